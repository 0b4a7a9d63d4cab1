//! What a stream's codecs are called, and how large its picture is: read from its own headers.
//!
//! The names are those of RFC 6381. Nothing here trusts the bytes: what does not add up is
//! "not known".

use crate::media::health::Picture;
use crate::media::scan::Syntax;

/// Bytes of an access unit that are kept to look for a parameter set.
const KEEP: usize = 2048;

/// Pictures larger than this on a side are a misreading.
const SIDE_MAX: u32 = 16_384;

/// What a sequence parameter set says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Video {
    /// The name of RFC 6381: `avc1.64001f`, `hvc1.1.6.L93.B0`.
    pub name: String,
    /// The picture.
    pub picture: Picture,
}

/// Collects the beginning of an access unit until a parameter set in it is whole.
#[derive(Debug, Default)]
pub(super) struct Collector {
    bytes: Vec<u8>,
    active: bool,
}

impl Collector {
    /// An access unit begins at which a decoder can start.
    pub(super) fn begin(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.active = true;
        self.add(bytes);
    }

    /// The unit goes on.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        if self.active {
            let room = KEEP - self.bytes.len();
            self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// The unit is of no interest after all.
    pub(super) fn stop(&mut self) {
        self.active = false;
    }

    /// What the parameter set says, once it is whole; `over`: nothing more comes.
    pub(super) fn take(&mut self, syntax: Syntax, over: bool) -> Option<Video> {
        if !self.active {
            return None;
        }
        let over = over || self.bytes.len() == KEEP;
        let found = parameter_set(&self.bytes, syntax, over);
        self.active = found.is_none() && !over;
        match syntax {
            Syntax::H264 => h264(found?),
            Syntax::Hevc => hevc(found?),
            Syntax::Mpeg2 => None,
        }
    }
}

/// The first sequence parameter set in `bytes` with its end; `over`: the end of the bytes is one.
fn parameter_set(bytes: &[u8], syntax: Syntax, over: bool) -> Option<&[u8]> {
    let is_set = |header: u8| match syntax {
        Syntax::H264 => header & 0x1F == 7,
        Syntax::Hevc => header >> 1 & 0x3F == 33,
        Syntax::Mpeg2 => false,
    };
    let mut rest = bytes;
    loop {
        rest = &rest[start_code(rest)? + 3..];
        if rest.first().is_some_and(|header| is_set(*header)) {
            return match start_code(rest) {
                Some(end) => Some(&rest[..end]),
                None => over.then_some(rest),
            };
        }
    }
}

fn start_code(bytes: &[u8]) -> Option<usize> {
    bytes.windows(3).position(|three| three == [0, 0, 1])
}

/// Bits of a parameter set, without its emulation prevention bytes. Reading beyond the end
/// gives nothing.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The bits not read of the byte before `at`.
    left: u32,
    zeros: u8,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits { bytes, at: 0, left: 0, zeros: 0 }
    }

    fn bit(&mut self) -> Option<u32> {
        if self.left == 0 {
            // "emulation_prevention_three_byte" (H.264, 7.4.1).
            if self.zeros == 2 && self.bytes.get(self.at) == Some(&3) {
                self.at += 1;
                self.zeros = 0;
            }
            let byte = *self.bytes.get(self.at)?;
            self.zeros = if byte == 0 { (self.zeros + 1).min(2) } else { 0 };
            self.at += 1;
            self.left = 8;
        }
        self.left -= 1;
        Some(u32::from(self.bytes[self.at - 1]) >> self.left & 1)
    }

    /// At most 32 bits.
    fn bits(&mut self, n: u32) -> Option<u32> {
        (0..n).try_fold(0_u32, |value, _| Some(value << 1 | self.bit()?))
    }

    fn flag(&mut self) -> Option<bool> {
        Some(self.bit()? == 1)
    }

    /// ue(v): H.264, 9.1.
    fn unsigned(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some(((1_u32 << zeros) - 1).wrapping_add(self.bits(zeros)?))
    }

    /// se(v).
    fn signed(&mut self) -> Option<i32> {
        let k = self.unsigned()?;
        let half = i32::try_from(k.div_ceil(2)).ok()?;
        Some(if k % 2 == 1 { half } else { -half })
    }

    fn skip(&mut self, n: u32) -> Option<()> {
        (0..n).try_for_each(|_| self.bit().map(drop))
    }
}

/// A sequence parameter set of H.264 (7.3.2.1.1), its header byte included.
#[must_use]
pub fn h264(set: &[u8]) -> Option<Video> {
    let &[_, profile, constraints, level, ..] = set else { return None };
    let name = format!("avc1.{profile:02x}{constraints:02x}{level:02x}");
    let mut b = Bits::new(set.get(4..)?);
    // A name without a picture is still worth something.
    let picture = h264_picture(&mut b, profile).unwrap_or_default();
    Some(Video { name, picture })
}

fn h264_picture(b: &mut Bits<'_>, profile: u8) -> Option<Picture> {
    b.unsigned()?;
    let mut chroma = 1;
    let mut planes = false;
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        chroma = b.unsigned()?;
        if chroma == 3 {
            planes = b.flag()?;
        }
        b.unsigned()?;
        b.unsigned()?;
        b.flag()?;
        if b.flag()? {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if b.flag()? {
                    scaling_list(b, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    b.unsigned()?;
    match b.unsigned()? {
        0 => drop(b.unsigned()?),
        1 => {
            b.flag()?;
            b.signed()?;
            b.signed()?;
            for _ in 0..b.unsigned()?.min(256) {
                b.signed()?;
            }
        }
        _ => {}
    }
    b.unsigned()?;
    b.flag()?;
    let width = b.unsigned()?.checked_add(1)?.checked_mul(16)?;
    let units = b.unsigned()?.checked_add(1)?;
    let frames_only = b.flag()?;
    let lines = if frames_only { 1 } else { 2 };
    let height = units.checked_mul(16 * lines)?;
    if !frames_only {
        b.flag()?;
    }
    b.flag()?;
    // 6.2: samples of luma for one unit of cropping.
    let (unit_x, unit_y) = match if planes { 0 } else { chroma } {
        1 => (2, 2 * lines),
        2 => (2, lines),
        _ => (1, lines),
    };
    let crop = crop(b, unit_x, unit_y)?;
    let rate = if b.flag()? { h264_rate(b) } else { None };
    picture(width, height, crop, rate)
}

fn scaling_list(b: &mut Bits<'_>, size: u32) -> Option<()> {
    let (mut last, mut next) = (8_i32, 8_i32);
    for _ in 0..size {
        if next != 0 {
            next = last.wrapping_add(b.signed()?).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// The cropping window: samples that are not shown, across and down.
fn crop(b: &mut Bits<'_>, unit_x: u32, unit_y: u32) -> Option<(u32, u32)> {
    if !b.flag()? {
        return Some((0, 0));
    }
    let mut side = |unit: u32| b.unsigned()?.checked_add(b.unsigned()?)?.checked_mul(unit);
    Some((side(unit_x)?, side(unit_y)?))
}

fn picture(width: u32, height: u32, crop: (u32, u32), rate: Option<f64>) -> Option<Picture> {
    let (width, height) = (width.checked_sub(crop.0)?, height.checked_sub(crop.1)?);
    let fine = |side: u32| (1..=SIDE_MAX).contains(&side);
    (fine(width) && fine(height)).then_some(Picture { width, height, frame_rate: rate })
}

/// The frame rate in the VUI parameters (H.264, E.1.1), if they say that it is fixed or not.
fn h264_rate(b: &mut Bits<'_>) -> Option<f64> {
    if b.flag()? && b.bits(8)? == 255 {
        b.skip(32)?;
    }
    if b.flag()? {
        b.flag()?;
    }
    if b.flag()? {
        b.skip(4)?;
        if b.flag()? {
            b.skip(24)?;
        }
    }
    if b.flag()? {
        b.unsigned()?;
        b.unsigned()?;
    }
    if !b.flag()? {
        return None;
    }
    let (tick, scale) = (b.bits(32)?, b.bits(32)?);
    let rate = f64::from(scale) / (2.0 * f64::from(tick));
    (tick > 0 && (1.0..=1000.0).contains(&rate)).then_some(rate)
}

/// A sequence parameter set of HEVC (H.265, 7.3.2.2), its two header bytes included. The name
/// follows ISO/IEC 14496-15, annex E; `hvc1`, because players know that one best.
#[must_use]
pub fn hevc(set: &[u8]) -> Option<Video> {
    let mut b = Bits::new(set.get(2..)?);
    b.skip(4)?;
    let layers = b.bits(3)?;
    b.flag()?;
    let space = b.bits(2)?;
    let tier = b.flag()?;
    let profile = b.bits(5)?;
    let compatibility = b.bits(32)?.reverse_bits();
    let mut constraints = [0_u8; 6];
    for byte in &mut constraints {
        *byte = b.bits(8)? as u8;
    }
    let level = b.bits(8)?;
    let space = ["", "A", "B", "C"][space as usize];
    let tier = if tier { 'H' } else { 'L' };
    let mut name = format!("hvc1.{space}{profile}.{compatibility:X}.{tier}{level}");
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..used] {
        name.push_str(&format!(".{byte:X}"));
    }
    let picture = hevc_picture(&mut b, layers).unwrap_or_default();
    Some(Video { name, picture })
}

fn hevc_picture(b: &mut Bits<'_>, layers: u32) -> Option<Picture> {
    let mut present = Vec::with_capacity(8);
    for _ in 0..layers {
        present.push((b.flag()?, b.flag()?));
    }
    if layers > 0 {
        b.skip(2 * (8 - layers))?;
    }
    for (profile, level) in present {
        b.skip(if profile { 88 } else { 0 })?;
        b.skip(if level { 8 } else { 0 })?;
    }
    b.unsigned()?;
    let chroma = b.unsigned()?;
    let planes = chroma == 3 && b.flag()?;
    let (width, height) = (b.unsigned()?, b.unsigned()?);
    let (unit_x, unit_y) = match if planes { 0 } else { chroma } {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    let crop = crop(b, unit_x, unit_y)?;
    picture(width, height, crop, None)
}

/// The name of AAC in ADTS (ISO/IEC 14496-3, 1.A.2.2.1) at the start of `bytes`.
#[must_use]
pub fn adts(bytes: &[u8]) -> Option<String> {
    let &[0xFF, second, third, ..] = bytes else { return None };
    // Twelve bits of sync, then layer 0.
    (second & 0xF6 == 0xF0).then(|| format!("mp4a.40.{}", (third >> 6) + 1))
}

/// The name of a codec that the tables alone tell.
#[must_use]
pub fn by_table(codec: &str) -> Option<&'static str> {
    match codec {
        "ac3" => Some("ac-3"),
        "eac3" => Some("ec-3"),
        "opus" => Some("opus"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From the sample of this project: 480x270 at 25/s, main profile.
    fn demo_set() -> Vec<u8> {
        use crate::base::limits::TS_PACKET;
        use crate::media::sample::DEMO;
        let packet = DEMO
            .chunks_exact(TS_PACKET)
            .find(|p| parameter_set(p, Syntax::H264, false).is_some())
            .unwrap();
        parameter_set(packet, Syntax::H264, false).unwrap().to_vec()
    }

    #[test]
    fn h264_of_the_sample_and_of_a_hand_made_set() {
        let video = h264(&demo_set()).unwrap();
        assert!(video.name.starts_with("avc1.4d"), "{}", video.name);
        let Picture { width, height, frame_rate } = video.picture;
        assert_eq!((width, height, frame_rate), (480, 270, Some(25.0)));
        let small = h264(&[0x67, 0x42, 0xc0, 0x1e, 0xda, 0x05, 0x05, 0xe4]).unwrap();
        assert_eq!(small.name, "avc1.42c01e");
        assert_eq!(small.picture, Picture { width: 320, height: 176, frame_rate: None });
    }

    /// 1920x1080, main profile, level 4, as x265 writes it; 1088 lines with cropping.
    #[test]
    fn hevc_name_and_size() {
        let set = [
            0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00,
            0x00, 0x03, 0x00, 0x78, 0xa0, 0x03, 0xc0, 0x80, 0x10, 0xe5, 0x96, 0x56, 0x69, 0x24,
        ];
        let video = hevc(&set).unwrap();
        assert_eq!(video.name, "hvc1.1.6.L120.90");
        assert_eq!((video.picture.width, video.picture.height), (1920, 1080));
    }

    #[test]
    fn adts_and_what_is_none() {
        assert_eq!(adts(&[0xFF, 0xF1, 0x4C, 0x80]).as_deref(), Some("mp4a.40.2"));
        assert_eq!(adts(&[0xFF, 0xFB, 0x90]), None, "layer III");
        assert_eq!(adts(&[]), None);
    }

    #[test]
    fn a_set_is_found_however_it_is_cut() {
        let mut unit = vec![0, 0, 0, 1, 9, 0xF0, 0, 0, 0, 1];
        unit.extend_from_slice(&demo_set());
        unit.extend_from_slice(&[0, 0, 1, 0x68, 1]);
        for cut in 0..unit.len() {
            let mut collector = Collector::default();
            collector.begin(&unit[..cut]);
            let mut found = collector.take(Syntax::H264, false);
            collector.add(&unit[cut..]);
            found = found.or_else(|| collector.take(Syntax::H264, false));
            assert_eq!(found.unwrap().picture.width, 480, "cut at {cut}");
        }
        let mut endless = Collector::default();
        endless.begin(&[7; 100]);
        for _ in 0..100 {
            endless.add(&[0xFF; 184]);
            assert_eq!(endless.take(Syntax::H264, false), None);
        }
        assert!(!endless.active && endless.bytes.capacity() <= 2 * KEEP, "bounded");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            bytes in prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..80),
        ) {
            let _ = (h264(&bytes), hevc(&bytes), adts(&bytes));
            // The real beginning, then noise.
            let mut set = demo_set();
            for (to, from) in set.iter_mut().skip(4).zip(&bytes) {
                *to ^= from;
            }
            let _ = h264(&set);
            for syntax in [Syntax::H264, Syntax::Hevc, Syntax::Mpeg2] {
                let _ = parameter_set(&bytes, syntax, true);
            }
        }
    }
}
