//! Makes packets and tables: for tests, simulated publishers and tools, not for the data path.

use crate::base::limits::TS_PACKET;
use crate::wire::mpegts::packet::set_pcr;
use crate::wire::mpegts::psi::{TABLE_PAT, TABLE_PMT, crc32};
use crate::wire::mpegts::{Pid, SYNC};

/// What the header of a packet shall say.
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketSpec {
    /// The packet identifier.
    pub pid: Pid,
    /// The continuity counter, 0 to 15.
    pub continuity: u8,
    /// A PES packet or a section begins here.
    pub unit_start: bool,
    /// Sets the `random_access_indicator`.
    pub random_access: bool,
    /// Sets the `discontinuity_indicator`.
    pub discontinuity: bool,
    /// The clock in 27 MHz ticks.
    pub pcr: Option<u64>,
}

/// A packet with as much of `payload` as fits, stuffed in the adaptation field. Without any
/// payload it is a packet of adaptation field only.
#[must_use]
pub fn packet(spec: &PacketSpec, payload: &[u8]) -> [u8; TS_PACKET] {
    let mut packet = [0xFF; TS_PACKET];
    packet[0] = SYNC;
    packet[1] = (spec.pid >> 8) as u8 & 0x1F | if spec.unit_start { 0x40 } else { 0 };
    packet[2] = spec.pid as u8;
    let flags = if spec.discontinuity { 0x80 } else { 0 }
        | if spec.random_access { 0x40 } else { 0 }
        | if spec.pcr.is_some() { 0x10 } else { 0 };
    let fixed = match (spec.pcr.is_some(), flags) {
        (true, _) => 8,
        (false, 0) => 0,
        _ => 2,
    };
    let len = payload.len().min(TS_PACKET - 4 - fixed);
    let field = TS_PACKET - 4 - len;
    let control = if field > 0 { 0x20 } else { 0 } | if len > 0 { 0x10 } else { 0 };
    packet[3] = control | spec.continuity & 0x0F;
    if field > 0 {
        packet[4] = (field - 1) as u8;
    }
    if field > 1 {
        packet[5] = flags;
    }
    if let Some(pcr) = spec.pcr {
        set_pcr(&mut packet, pcr);
    }
    packet[TS_PACKET - len..].copy_from_slice(&payload[..len]);
    packet
}

/// Cuts a PES packet or section (with its pointer field) into packets and appends them to `out`.
/// The flags of `spec` go on the first packet; its counter is left at the one to use next.
pub fn packets(spec: &mut PacketSpec, mut unit: &[u8], out: &mut Vec<u8>) {
    let mut first = true;
    while first || !unit.is_empty() {
        let head = if first {
            PacketSpec { unit_start: true, ..*spec }
        } else {
            PacketSpec { pid: spec.pid, continuity: spec.continuity, ..PacketSpec::default() }
        };
        let fixed = match (head.pcr.is_some(), head.random_access || head.discontinuity) {
            (true, _) => 8,
            (false, true) => 2,
            (false, false) => 0,
        };
        let len = unit.len().min(TS_PACKET - 4 - fixed);
        out.extend_from_slice(&packet(&head, &unit[..len]));
        unit = &unit[len..];
        spec.continuity = (spec.continuity + u8::from(len > 0)) & 0x0F;
        first = false;
    }
}

/// A section with pointer field, as it goes into the first packet of a table.
#[must_use]
pub fn pointed(section: &[u8]) -> Vec<u8> {
    let mut unit = vec![0];
    unit.extend_from_slice(section);
    unit
}

/// The PAT of `programs`: (program number, PMT PID).
#[must_use]
pub fn pat_section(version: u8, programs: &[(u16, Pid)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (program, pid) in programs {
        body.extend_from_slice(&program.to_be_bytes());
        body.extend_from_slice(&(pid | 0xE000).to_be_bytes());
    }
    section(TABLE_PAT, 1, version, &body)
}

/// One elementary stream for [`pmt_section`].
#[derive(Clone, Copy, Debug)]
pub struct StreamSpec<'a> {
    /// `stream_type`.
    pub kind: u8,
    /// Where its packets are.
    pub pid: Pid,
    /// Descriptors as they go on the wire.
    pub descriptors: &'a [u8],
}

/// The PMT of one program.
#[must_use]
pub fn pmt_section(program: u16, version: u8, pcr_pid: Pid, streams: &[StreamSpec<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&(pcr_pid | 0xE000).to_be_bytes());
    body.extend_from_slice(&[0xF0, 0]);
    for stream in streams {
        body.push(stream.kind);
        body.extend_from_slice(&(stream.pid | 0xE000).to_be_bytes());
        body.extend_from_slice(&(stream.descriptors.len() as u16 | 0xF000).to_be_bytes());
        body.extend_from_slice(stream.descriptors);
    }
    section(TABLE_PMT, program, version, &body)
}

fn section(table: u8, extension: u16, version: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![table];
    // Counted from behind the length: five bytes of head, the body, four of checksum.
    bytes.extend_from_slice(&((5 + body.len() + 4) as u16 & 0x0FFF | 0xB000).to_be_bytes());
    bytes.extend_from_slice(&extension.to_be_bytes());
    bytes.extend_from_slice(&[0xC1 | version << 1, 0, 0]);
    bytes.extend_from_slice(body);
    let crc = crc32(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mpegts::packet::Packet;

    #[test]
    fn units_of_any_length_are_cut_and_put_together_again() {
        for len in [0, 1, 175, 176, 177, 182, 183, 184, 185, 1000] {
            let unit: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut spec = PacketSpec { pid: 77, pcr: Some(5), ..PacketSpec::default() };
            let mut out = Vec::new();
            packets(&mut spec, &unit, &mut out);
            let mut read = Vec::new();
            for (index, bytes) in out.chunks_exact(TS_PACKET).enumerate() {
                let p = Packet::new(bytes).unwrap();
                assert_eq!((p.pid(), p.unit_start()), (77, index == 0));
                assert_eq!(usize::from(p.continuity()), index % 16);
                read.extend_from_slice(p.payload().unwrap_or_default());
            }
            assert_eq!(read, unit);
        }
    }
}
