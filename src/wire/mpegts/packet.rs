//! One transport packet: its header, adaptation field and payload (13818-1, 2.4.3.2 to 2.4.3.5).

use crate::base::limits::TS_PACKET;
use crate::wire::mpegts::clock::{PCR_MODULUS, PCR_PER_TICK};
use crate::wire::mpegts::{PID_NULL, Pid, SYNC};

/// A borrowed transport packet. Made only from 188 bytes that begin with the sync byte.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a>(&'a [u8; TS_PACKET]);

impl<'a> Packet<'a> {
    /// A view of `bytes`; `None` unless they are 188 and begin with the sync byte.
    #[must_use]
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Packet<'a>> {
        let bytes: &[u8; TS_PACKET] = bytes.try_into().ok()?;
        (bytes[0] == SYNC).then_some(Packet(bytes))
    }

    /// The 188 bytes.
    #[must_use]
    #[inline]
    pub fn bytes(self) -> &'a [u8; TS_PACKET] {
        self.0
    }

    /// Whether whoever received the packet found it damaged (`transport_error_indicator`).
    #[must_use]
    #[inline]
    pub fn transport_error(self) -> bool {
        self.0[1] & 0x80 != 0
    }

    /// Whether a PES packet or a section begins in the payload (`payload_unit_start_indicator`).
    #[must_use]
    #[inline]
    pub fn unit_start(self) -> bool {
        self.0[1] & 0x40 != 0
    }

    /// The packet identifier.
    #[must_use]
    #[inline]
    pub fn pid(self) -> Pid {
        u16::from(self.0[1] & 0x1F) << 8 | u16::from(self.0[2])
    }

    /// Whether this is a null packet.
    #[must_use]
    #[inline]
    pub fn is_null(self) -> bool {
        self.pid() == PID_NULL
    }

    /// Whether the payload is scrambled (`transport_scrambling_control`).
    #[must_use]
    #[inline]
    pub fn scrambled(self) -> bool {
        self.0[3] & 0xC0 != 0
    }

    /// Whether there is an adaptation field.
    #[must_use]
    #[inline]
    pub fn has_adaptation(self) -> bool {
        self.0[3] & 0x20 != 0
    }

    /// Whether there is a payload. Only then does the continuity counter advance.
    #[must_use]
    #[inline]
    pub fn has_payload(self) -> bool {
        self.0[3] & 0x10 != 0
    }

    /// The continuity counter, 0 to 15.
    #[must_use]
    #[inline]
    pub fn continuity(self) -> u8 {
        self.0[3] & 0x0F
    }

    /// The adaptation field; `None` when there is none or its length is impossible.
    #[must_use]
    #[inline]
    pub fn adaptation(self) -> Option<Adaptation<'a>> {
        if !self.has_adaptation() {
            return None;
        }
        let len = usize::from(self.0[4]);
        self.0.get(5..5 + len).map(Adaptation)
    }

    /// Where the payload starts in the packet; `None` when there is none or the adaptation
    /// field leaves no room for it.
    #[must_use]
    #[inline]
    pub fn payload_start(self) -> Option<usize> {
        if !self.has_payload() {
            return None;
        }
        let start = if self.has_adaptation() { 5 + usize::from(self.0[4]) } else { 4 };
        (start < TS_PACKET).then_some(start)
    }

    /// The payload, never empty.
    #[must_use]
    #[inline]
    pub fn payload(self) -> Option<&'a [u8]> {
        self.payload_start().map(|start| &self.0[start..])
    }
}

/// A borrowed adaptation field, without its length byte. A field of length 0 has no flags.
#[derive(Clone, Copy, Debug)]
pub struct Adaptation<'a>(&'a [u8]);

impl Adaptation<'_> {
    fn flag(self, bit: u8) -> bool {
        self.0.first().is_some_and(|flags| flags & bit != 0)
    }

    /// The continuity counter, or on the PCR PID the clock, may be discontinuous here.
    #[must_use]
    #[inline]
    pub fn discontinuity(self) -> bool {
        self.flag(0x80)
    }

    /// The elementary stream can be decoded from the next PES packet on.
    #[must_use]
    #[inline]
    pub fn random_access(self) -> bool {
        self.flag(0x40)
    }

    /// The program clock reference in 27 MHz ticks, below [`PCR_MODULUS`].
    #[must_use]
    pub fn pcr(self) -> Option<u64> {
        if !self.flag(0x10) {
            return None;
        }
        let b = self.0.get(1..7)?;
        let base = u64::from(b[0]) << 25
            | u64::from(b[1]) << 17
            | u64::from(b[2]) << 9
            | u64::from(b[3]) << 1
            | u64::from(b[4]) >> 7;
        let extension = u64::from(b[4] & 1) << 8 | u64::from(b[5]);
        // The extension counts to 299; a broken one may say 511.
        Some((base * PCR_PER_TICK + extension) % PCR_MODULUS)
    }
}

/// Puts `counter` (0 to 15) into a packet; nothing happens if `packet` is too short.
pub fn set_continuity(packet: &mut [u8], counter: u8) {
    if let Some(byte) = packet.get_mut(3) {
        *byte = *byte & 0xF0 | counter & 0x0F;
    }
}

/// Replaces the PCR of a packet. Returns whether the packet has one.
pub fn set_pcr(packet: &mut [u8], pcr: u64) -> bool {
    if Packet::new(packet).and_then(Packet::adaptation).and_then(Adaptation::pcr).is_none() {
        return false;
    }
    let Some(field) = packet.get_mut(6..12) else { return false };
    let (base, extension) = (pcr % PCR_MODULUS / PCR_PER_TICK, pcr % PCR_PER_TICK);
    field[0] = (base >> 25) as u8;
    field[1] = (base >> 17) as u8;
    field[2] = (base >> 9) as u8;
    field[3] = (base >> 1) as u8;
    field[4] = (base << 7) as u8 | 0x7E | (extension >> 8) as u8;
    field[5] = extension as u8;
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mpegts::NULL_PACKET;
    use crate::wire::mpegts::build::{PacketSpec, packet};
    use proptest::prelude::*;

    #[test]
    fn null_packets_are_what_the_standard_says() {
        let null = Packet::new(&NULL_PACKET).unwrap();
        assert!(null.is_null() && null.has_payload() && !null.has_adaptation());
        assert!(!null.transport_error() && !null.unit_start() && !null.scrambled());
        assert_eq!(null.payload().unwrap().len(), 184);
    }

    #[test]
    fn refuses_what_is_no_packet() {
        assert!(Packet::new(&NULL_PACKET[..187]).is_none());
        assert!(Packet::new(&[0; 188]).is_none());
        assert!(Packet::new(&[]).is_none());
    }

    /// A packet as ffmpeg writes it: PID 256, random access, PCR 63,000 x 300.
    #[test]
    fn reads_a_known_header() {
        let mut bytes = [0xFF; 188];
        bytes[..12].copy_from_slice(&[
            0x47, 0x41, 0x00, 0x30, 0x07, 0x50, 0x00, 0x00, 0x7B, 0x0C, 0x7E, 0x00,
        ]);
        let p = Packet::new(&bytes).unwrap();
        assert_eq!((p.pid(), p.unit_start(), p.continuity()), (256, true, 0));
        let field = p.adaptation().unwrap();
        assert!(field.random_access() && !field.discontinuity());
        assert_eq!(field.pcr(), Some(63_000 * 300));
        assert_eq!(p.payload_start(), Some(12));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 184)) {
            let mut whole = [0; 188];
            whole[0] = SYNC;
            whole[4..].copy_from_slice(&bytes);
            for header in 0..=255u8 {
                whole[3] = header;
                let p = Packet::new(&whole).unwrap();
                let _ = (p.payload(), p.adaptation().map(|a| (a.pcr(), a.random_access())));
                let mut copy = whole;
                set_pcr(&mut copy, u64::MAX);
            }
        }

        #[test]
        fn a_pcr_comes_back_as_written(old in 0..PCR_MODULUS, new in 0..PCR_MODULUS) {
            let spec = PacketSpec { pid: 256, pcr: Some(old), ..PacketSpec::default() };
            let mut bytes = packet(&spec, &[]);
            let read = |b: &[u8]| Packet::new(b).unwrap().adaptation().unwrap().pcr();
            prop_assert_eq!(read(&bytes), Some(old));
            prop_assert!(set_pcr(&mut bytes, new));
            prop_assert_eq!(read(&bytes), Some(new));
        }
    }

    #[test]
    fn a_packet_without_pcr_is_left_alone() {
        let mut bytes = NULL_PACKET;
        assert!(!set_pcr(&mut bytes, 1));
        assert_eq!(bytes, NULL_PACKET);
        set_continuity(&mut bytes, 9);
        assert_eq!(Packet::new(&bytes).unwrap().continuity(), 9);
    }
}
