//! Tells from the first bytes of a video access unit whether decoding can start there.
//!
//! Streams without `random_access_indicator` are read up to the first slice of each picture:
//! usually a few dozen bytes. State passes over packet borders, so a start code may be split.

/// Bytes of one access unit that are looked at: parameter sets and SEI in front of the slice.
const LOOK_MAX: u32 = 64 * 1024;

/// Bytes of a unit that are kept for a closer look.
const KEEP: usize = 128;

/// How the units of a video stream are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// ISO/IEC 11172-2 and 13818-2: a sequence header marks the place.
    Mpeg2,
    /// ITU-T H.264: IDR, recovery point SEI, or SPS and an I slice.
    H264,
    /// ITU-T H.265: an IRAP picture.
    Hevc,
}

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not decided: more bytes, please.
    More,
    /// A decoder can start with this access unit.
    Access,
    /// It cannot, or nothing was found within the bound.
    Ordinary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a unit of no interest, or before the first.
    Skip,
    /// The next byte says what unit this is.
    Header,
    /// In an SEI, kept to its end.
    Sei,
    /// In a slice, kept until its type can be read.
    Slice,
}

/// Reads one access unit after the other; see [`Scanner::start`].
#[derive(Debug)]
pub(super) struct Scanner {
    syntax: Syntax,
    place: Place,
    /// Zero bytes just seen, at most two.
    zeros: u8,
    looked: u32,
    parameters: bool,
    recovery: bool,
    kept: [u8; KEEP],
    len: usize,
}

impl Scanner {
    pub(super) fn new() -> Scanner {
        Scanner {
            syntax: Syntax::H264,
            place: Place::Skip,
            zeros: 0,
            looked: 0,
            parameters: false,
            recovery: false,
            kept: [0; KEEP],
            len: 0,
        }
    }

    /// A new access unit begins.
    pub(super) fn start(&mut self, syntax: Syntax) {
        self.syntax = syntax;
        self.place = Place::Skip;
        self.zeros = 0;
        self.looked = 0;
        self.parameters = false;
        self.recovery = false;
        self.len = 0;
    }

    /// The next bytes of the access unit.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Verdict {
        for &byte in bytes {
            let verdict = self.byte(byte);
            if verdict != Verdict::More {
                return verdict;
            }
        }
        self.looked = self.looked.saturating_add(bytes.len() as u32);
        if self.looked > LOOK_MAX { Verdict::Ordinary } else { Verdict::More }
    }

    fn byte(&mut self, byte: u8) -> Verdict {
        if self.zeros == 2 && byte == 1 {
            let verdict = self.end_unit();
            self.zeros = 0;
            self.place = Place::Header;
            return verdict;
        }
        if self.zeros == 2 && byte == 3 && self.place != Place::Header {
            // An emulation prevention byte: no part of the unit (H.264, 7.4.1).
            self.zeros = 0;
            return Verdict::More;
        }
        self.zeros = if byte == 0 { (self.zeros + 1).min(2) } else { 0 };
        match self.place {
            Place::Skip => Verdict::More,
            Place::Header => self.begin_unit(byte),
            Place::Sei => {
                self.keep(byte);
                Verdict::More
            }
            Place::Slice => {
                self.keep(byte);
                if self.len < 8 { Verdict::More } else { self.slice() }
            }
        }
    }

    fn begin_unit(&mut self, header: u8) -> Verdict {
        self.len = 0;
        self.place = Place::Skip;
        match self.syntax {
            Syntax::Mpeg2 => match header {
                0xB3 => Verdict::Access,
                0x00 => Verdict::Ordinary,
                _ => Verdict::More,
            },
            // H.265, table 7-1: 16 to 23 are IRAP, all below 32 are slices.
            Syntax::Hevc => match header >> 1 & 0x3F {
                16..=23 => Verdict::Access,
                0..=31 => Verdict::Ordinary,
                _ => Verdict::More,
            },
            // H.264, table 7-1.
            Syntax::H264 => match header & 0x1F {
                5 => Verdict::Access,
                1 | 2 if self.recovery => Verdict::Access,
                1 | 2 if self.parameters => {
                    self.place = Place::Slice;
                    Verdict::More
                }
                1 | 2 => Verdict::Ordinary,
                6 => {
                    self.place = Place::Sei;
                    Verdict::More
                }
                7 => {
                    self.parameters = true;
                    Verdict::More
                }
                _ => Verdict::More,
            },
        }
    }

    fn end_unit(&mut self) -> Verdict {
        match self.place {
            Place::Sei => {
                self.recovery |= has_recovery_point(&self.kept[..self.len]);
                Verdict::More
            }
            Place::Slice => self.slice(),
            Place::Skip | Place::Header => Verdict::More,
        }
    }

    /// Slice header (H.264, 7.3.3): first_mb_in_slice, slice_type, both ue(v). I is 2 and 7.
    fn slice(&self) -> Verdict {
        let mut bits = [0; 8];
        let len = self.len.min(8);
        bits[..len].copy_from_slice(&self.kept[..len]);
        let intra = exp_golomb(u64::from_be_bytes(bits))
            .and_then(|(_, rest)| exp_golomb(rest))
            .is_some_and(|(kind, _)| matches!(kind, 2 | 7));
        if intra { Verdict::Access } else { Verdict::Ordinary }
    }

    fn keep(&mut self, byte: u8) {
        if let Some(at) = self.kept.get_mut(self.len) {
            *at = byte;
            self.len += 1;
        }
    }
}

/// An unsigned Exp-Golomb number (H.264, 9.1) at the top of `bits`, and the bits behind it.
fn exp_golomb(bits: u64) -> Option<(u64, u64)> {
    let zeros = bits.leading_zeros();
    let len = 2 * zeros + 1;
    // Two such numbers are read from 64 bits; longer ones are no slice header of ours.
    (len < 32).then(|| ((bits >> (64 - len)) - 1, bits << len))
}

/// Whether an SEI holds a recovery point message (H.264, 7.3.2.3 and D.1.8: payload type 6).
fn has_recovery_point(mut sei: &[u8]) -> bool {
    let number = |sei: &mut &[u8]| {
        let mut sum = 0usize;
        while let Some((&byte, rest)) = sei.split_first() {
            *sei = rest;
            sum += usize::from(byte);
            if byte != 0xFF {
                return Some(sum);
            }
        }
        None
    };
    while let (Some(kind), Some(len)) = (number(&mut sei), number(&mut sei)) {
        if kind == 6 {
            return true;
        }
        let Some(rest) = sei.get(len..) else { return false };
        sei = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(syntax: Syntax, unit: &[u8]) -> Verdict {
        let mut scanner = Scanner::new();
        scanner.start(syntax);
        let whole = scanner.feed(unit);
        // However it is cut, the verdict is the same.
        for cut in 0..unit.len() {
            scanner.start(syntax);
            let mut verdict = scanner.feed(&unit[..cut]);
            if verdict == Verdict::More {
                verdict = scanner.feed(&unit[cut..]);
            }
            assert_eq!(verdict, whole, "cut at {cut}");
        }
        whole
    }

    const AUD: [u8; 6] = [0, 0, 0, 1, 9, 0xF0];
    const SPS: [u8; 8] = [0, 0, 0, 1, 0x67, 0x42, 0xC0, 0x1E];
    const PPS: [u8; 6] = [0, 0, 1, 0x68, 0xCE, 0x3C];

    #[test]
    fn h264_idr_recovery_point_and_sps_with_i_slice() {
        let h264 = |parts: &[&[u8]]| scan(Syntax::H264, &parts.concat());
        let p_slice = [0, 0, 1, 0x41, 0x9A, 1, 2, 3, 4, 5, 6, 7];
        let i_slice = [0, 0, 1, 0x41, 0x88, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(h264(&[&AUD, &SPS, &PPS, &[0, 0, 1, 0x65]]), Verdict::Access);
        assert_eq!(h264(&[&AUD, &[0, 0, 0, 1, 0x65]]), Verdict::Access);
        assert_eq!(h264(&[&AUD, &p_slice]), Verdict::Ordinary);
        assert_eq!(h264(&[&AUD, &SPS, &PPS, &p_slice]), Verdict::Ordinary);
        assert_eq!(h264(&[&AUD, &SPS, &PPS, &i_slice]), Verdict::Access);
        assert_eq!(h264(&[&AUD, &i_slice]), Verdict::Ordinary, "an I slice without an SPS");
        // A picture timing message with an emulation prevention byte, then a recovery point.
        let sei = [0, 0, 1, 6, 1, 4, 0, 0, 3, 1, 9, 6, 1, 0xC4, 0x80];
        assert_eq!(h264(&[&AUD, &sei, &p_slice]), Verdict::Access);
        let other = [0, 0, 1, 6, 5, 3, 6, 1, 0x84, 0x80];
        assert_eq!(h264(&[&AUD, &other, &p_slice]), Verdict::Ordinary);
        assert_eq!(h264(&[&AUD]), Verdict::More);
    }

    #[test]
    fn hevc_irap_and_mpeg2_sequence_header() {
        let hevc = |nal: u8| scan(Syntax::Hevc, &[0, 0, 0, 1, 0x46, 1, 0, 0, 1, nal << 1, 1]);
        assert_eq!((hevc(19), hevc(21)), (Verdict::Access, Verdict::Access));
        assert_eq!((hevc(1), hevc(32)), (Verdict::Ordinary, Verdict::More));
        let mpeg2 = |code: u8| scan(Syntax::Mpeg2, &[0, 0, 1, code, 1, 2]);
        assert_eq!((mpeg2(0xB3), mpeg2(0)), (Verdict::Access, Verdict::Ordinary));
        assert_eq!(mpeg2(0xB8), Verdict::More);
    }

    #[test]
    fn a_unit_without_slices_is_given_up() {
        let mut scanner = Scanner::new();
        scanner.start(Syntax::H264);
        let fed = (0..1000).take_while(|_| scanner.feed(&[0xFF; 184]) == Verdict::More).count();
        assert_eq!(fed, LOOK_MAX as usize / 184);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_verdict(
            unit in prop::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..60),
        ) {
            for syntax in [Syntax::Mpeg2, Syntax::H264, Syntax::Hevc] {
                scan(syntax, &unit);
            }
        }
    }
}
