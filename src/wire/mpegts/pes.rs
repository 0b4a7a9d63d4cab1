//! The header of a PES packet (13818-1, 2.4.3.6): whose it is, and its time stamps.

use crate::wire::mpegts::clock::TICKS_MODULUS;

/// What the first bytes of a PES packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PesHeader {
    /// `stream_id`: 0xE0 to 0xEF video, 0xC0 to 0xDF audio, 0xBD private.
    pub stream_id: u8,
    /// Presentation time in 90 kHz ticks.
    pub pts: Option<u64>,
    /// Decoding time in 90 kHz ticks; absent when it equals `pts`.
    pub dts: Option<u64>,
    /// An access unit begins with the first payload byte (`data_alignment_indicator`).
    pub aligned: bool,
    /// Where the elementary stream's bytes begin, counted from the start code. May lie beyond
    /// the bytes at hand.
    pub payload_start: usize,
}

impl PesHeader {
    /// Reads the header at the start of `bytes`. `None` when they do not begin with a PES start
    /// code or end before the fixed part; time stamps that lie beyond the end or have wrong
    /// marker bits are `None`.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<PesHeader> {
        let &[0, 0, 1, stream_id, _, _, ..] = bytes else { return None };
        let mut header =
            PesHeader { stream_id, pts: None, dts: None, aligned: false, payload_start: 6 };
        if !has_extension(stream_id) {
            return Some(header);
        }
        let &[first, second, length] = bytes.get(6..9)? else { return None };
        if first & 0xC0 != 0x80 {
            return None;
        }
        header.aligned = first & 0x04 != 0;
        header.payload_start = 9 + usize::from(length);
        if second & 0x80 != 0 && length >= 5 {
            header.pts = bytes.get(9..14).and_then(stamp);
        }
        if second & 0xC0 == 0xC0 && length >= 10 {
            header.dts = bytes.get(14..19).and_then(stamp);
        }
        Some(header)
    }

    /// The time of decoding: DTS where there is one, else PTS.
    #[must_use]
    pub fn decode_time(&self) -> Option<u64> {
        self.dts.or(self.pts)
    }
}

/// Stream ids whose header ends after six bytes (13818-1, table 2-21: program stream map,
/// padding, private_stream_2, ECM, EMM, directory, DSM-CC, H.222.1 type E).
fn has_extension(stream_id: u8) -> bool {
    !matches!(stream_id, 0xBC | 0xBE | 0xBF | 0xF0 | 0xF1 | 0xF2 | 0xF8 | 0xFF)
}

fn stamp(b: &[u8]) -> Option<u64> {
    let &[a, b, c, d, e] = b else { return None };
    if a & c & e & 1 == 0 {
        return None;
    }
    Some(
        u64::from(a >> 1 & 7) << 30
            | u64::from(b) << 22
            | u64::from(c >> 1) << 15
            | u64::from(d) << 7
            | u64::from(e >> 1),
    )
}

fn write_stamp(at: &mut [u8], value: u64) {
    if let [a, b, c, d, e] = at {
        // The four bits in front say which of the two stamps this is; they stay.
        *a = *a & 0xF0 | (value >> 29) as u8 & 0x0E | 1;
        *b = (value >> 22) as u8;
        *c = (value >> 14) as u8 | 1;
        *d = (value >> 7) as u8;
        *e = (value << 1) as u8 | 1;
    }
}

/// Adds `ticks` to PTS and DTS of the PES header at the start of `bytes`, in place.
///
/// Returns false, with nothing changed, when this is no PES header or it does not end in `bytes`.
pub fn shift_stamps(bytes: &mut [u8], ticks: u64) -> bool {
    let Some(header) = PesHeader::parse(bytes) else { return false };
    if header.payload_start > bytes.len() {
        return false;
    }
    let moved = |stamp: u64| (stamp + ticks % TICKS_MODULUS) % TICKS_MODULUS;
    if let (Some(pts), Some(at)) = (header.pts, bytes.get_mut(9..14)) {
        write_stamp(at, moved(pts));
    }
    if let (Some(dts), Some(at)) = (header.dts, bytes.get_mut(14..19)) {
        write_stamp(at, moved(dts));
    }
    true
}

/// Writes a video or audio PES header with unbounded length (`PES_packet_length` 0) and returns
/// its length. For tests and tools.
///
/// # Panics
/// If `out` has fewer than 19 bytes.
pub fn write_header(out: &mut [u8], stream_id: u8, pts: Option<u64>, dts: Option<u64>) -> usize {
    let (flags, stamps): (u8, usize) = match (pts, dts) {
        (Some(_), Some(_)) => (0xC0, 10),
        (Some(_), None) => (0x80, 5),
        _ => (0, 0),
    };
    out[..9].copy_from_slice(&[0, 0, 1, stream_id, 0, 0, 0x84, flags, stamps as u8]);
    if let Some(pts) = pts {
        out[9] = flags >> 2;
        write_stamp(&mut out[9..14], pts);
        if let Some(dts) = dts {
            out[14] = 0x10;
            write_stamp(&mut out[14..19], dts);
        }
    }
    9 + stamps
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From a file of ffmpeg: video, PTS 126,000 (1.4 s).
    #[test]
    fn reads_a_known_header() {
        let bytes = [0, 0, 1, 0xE0, 0, 0, 0x84, 0x80, 5, 0x21, 0x00, 0x07, 0xD8, 0x61, 0, 0, 0, 1];
        let header = PesHeader::parse(&bytes).unwrap();
        assert_eq!(header.pts, Some(126_000));
        assert_eq!((header.dts, header.aligned, header.payload_start), (None, true, 14));
        assert_eq!(header.decode_time(), Some(126_000));
    }

    #[test]
    fn padding_has_no_stamps_and_short_headers_no_values() {
        let padding = [0, 0, 1, 0xBE, 0, 4, 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(PesHeader::parse(&padding).unwrap().payload_start, 6);
        assert_eq!(PesHeader::parse(&[0, 0, 1, 0xE0, 0, 0, 0x84]), None);
        let cut = [0, 0, 1, 0xE0, 0, 0, 0x84, 0x80, 5, 0x21, 0x00];
        assert_eq!(PesHeader::parse(&cut).unwrap().pts, None);
    }

    proptest! {
        #[test]
        fn stamps_come_back_and_move(
            pts in 0..TICKS_MODULUS, dts in prop::option::of(0..TICKS_MODULUS), by in any::<u64>(),
        ) {
            let mut bytes = [0u8; 24];
            let len = write_header(&mut bytes, 0xE0, Some(pts), dts);
            let header = PesHeader::parse(&bytes).unwrap();
            prop_assert_eq!((header.pts, header.dts, header.payload_start), (Some(pts), dts, len));
            prop_assert!(shift_stamps(&mut bytes, by));
            let moved = PesHeader::parse(&bytes).unwrap();
            let expect = |t: u64| (t + by % TICKS_MODULUS) % TICKS_MODULUS;
            prop_assert_eq!((moved.pts, moved.dts), (Some(expect(pts)), dts.map(expect)));
        }

        #[test]
        fn any_bytes_are_read_without_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let _ = PesHeader::parse(&bytes);
            for (at, byte) in [0, 0, 1].into_iter().enumerate().take(bytes.len()) {
                bytes[at] = byte;
            }
            let before = PesHeader::parse(&bytes);
            if !shift_stamps(&mut bytes, 0) {
                prop_assert!(before.is_none_or(|h| h.payload_start > bytes.len()));
            }
        }
    }
}
