//! A transport stream made from a seed: valid tables, counters and clocks around random
//! payload, so that every packet is recognised again in what a viewer got.
//!
//! Sources: ISO/IEC 13818-1 (packets 2.4.3.2, PES 2.4.3.6, tables 2.4.4), H.264 annex B.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

/// Bytes of a packet.
pub const PACKET: usize = 188;
/// Where the program map is.
pub const PMT_PID: u16 = 0x1000;
/// H.264, and the clock reference.
pub const VIDEO_PID: u16 = 0x100;
/// AAC in ADTS; carries the clock reference where there is no video.
pub const AUDIO_PID: u16 = 0x101;
/// Private data that no player knows: a counter.
pub const PRIVATE_PID: u16 = 0x102;
/// Null packets, the only ones that a relay may drop.
pub const NULL_PID: u16 = 0x1fff;

/// Frames per second.
const FPS: u64 = 25;
/// Ticks per second of PTS and the PCR base.
const CLOCK: u64 = 90_000;
/// 320x176, baseline, made by hand after H.264 7.3.2.1.
const SPS: [u8; 8] = [0x67, 0x42, 0xc0, 0x1e, 0xda, 0x05, 0x05, 0xe4];
const PPS: [u8; 4] = [0x68, 0xce, 0x38, 0x80];

/// One packet.
pub type Packet = [u8; PACKET];

/// What a stream is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// About how many bits a second of it has.
    pub bitrate: u64,
    /// Frames from key frame to key frame; 25 is a second.
    pub gop: u64,
    /// Whether there is video; if not, audio carries the clock.
    pub video: bool,
}

impl Shape {
    /// Video, audio and private data with a key frame every half second.
    pub fn new(bitrate: u64) -> Self {
        Shape { bitrate, gop: 12, video: true }
    }
}

/// The maker of frames.
pub struct Source {
    shape: Shape,
    rng: Rng,
    frame: u64,
    start: u64,
    counters: [u8; 5],
}

/// A stream made in advance: what is sent, and when.
#[derive(Clone)]
pub struct Broadcast {
    /// All of its bytes.
    pub bytes: Arc<[u8]>,
    /// Where each frame's bytes end; frame n is due at n / 25 s.
    pub ends: Arc<[usize]>,
}

impl Broadcast {
    /// `seconds` of a stream of this shape; the same for the same seed.
    pub fn new(seed: u64, shape: Shape, seconds: f64) -> Self {
        let mut source = Source::new(seed, shape);
        let frames = (seconds * FPS as f64).round() as usize;
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..frames {
            source.frame(&mut bytes);
            ends.push(bytes.len());
        }
        Broadcast { bytes: bytes.into(), ends: ends.into() }
    }

    /// Frames in it.
    pub fn frames(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of frames `from..to`.
    pub fn slice(&self, from: usize, to: usize) -> &[u8] {
        let end = |n: usize| if n == 0 { 0 } else { self.ends[n - 1] };
        &self.bytes[end(from)..end(to)]
    }

    /// When frame `n` is due after the start.
    pub fn due(n: usize) -> Duration {
        Duration::from_millis(n as u64 * 1000 / FPS)
    }
}

impl Source {
    /// A source; equal seeds make equal streams.
    pub fn new(seed: u64, shape: Shape) -> Self {
        let mut rng = Rng::with_seed(seed);
        let start = rng.u64(CLOCK..CLOCK * 3600);
        Source { shape, rng, frame: 0, start, counters: [0; 5] }
    }

    /// Appends the packets of one frame time: tables where due, then video, audio, private
    /// data and sometimes a null packet, mixed in random order.
    pub fn frame(&mut self, out: &mut Vec<u8>) {
        let key = self.frame.is_multiple_of(self.shape.gop);
        if key || self.frame.is_multiple_of(5) {
            out.extend_from_slice(&self.table(0, 0));
            out.extend_from_slice(&self.table(1, PMT_PID));
        }
        let mut lanes = Vec::new();
        if self.shape.video {
            lanes.push(self.video(key));
        }
        lanes.push(self.audio());
        lanes.push(self.private());
        if self.rng.u8(..4) == 0 {
            let mut null = [0xff; PACKET];
            null[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
            lanes.push(vec![null]);
        }
        let mut lanes: Vec<_> = lanes.into_iter().map(Vec::into_iter).collect();
        while !lanes.is_empty() {
            let lane = self.rng.usize(..lanes.len());
            match lanes[lane].next() {
                Some(packet) => out.extend_from_slice(&packet),
                None => drop(lanes.swap_remove(lane)),
            }
        }
        self.frame += 1;
    }

    fn pts(&self) -> u64 {
        self.start + self.frame * CLOCK / FPS
    }

    fn video(&mut self, key: bool) -> Vec<Packet> {
        let mean = (self.shape.bitrate / 8 / FPS).saturating_sub(800).max(300) as usize;
        // A key frame is four times as large as the others; the mean over a GOP holds.
        let gop = self.shape.gop as usize;
        let other = mean * gop / (gop + 3);
        let size = if key { 4 * other } else { other };
        let mut pes = pes_head(0xe0, self.pts(), 0);
        pes.extend_from_slice(&[0, 0, 0, 1, 0x09, 0xf0]);
        if key {
            pes.extend_from_slice(&[0, 0, 0, 1]);
            pes.extend_from_slice(&SPS);
            pes.extend_from_slice(&[0, 0, 0, 1]);
            pes.extend_from_slice(&PPS);
        }
        pes.extend_from_slice(&[0, 0, 0, 1, if key { 0x65 } else { 0x41 }]);
        self.fill(&mut pes, size);
        self.packets(2, VIDEO_PID, &pes, Some(self.pts()), key)
    }

    fn audio(&mut self) -> Vec<Packet> {
        let size = 200;
        let mut pes = pes_head(0xc0, self.pts(), 8 + 7 + size);
        let frame = 7 + size;
        pes.extend_from_slice(&[
            0xff,
            0xf1,
            0x4c,
            0x80 | (frame >> 11) as u8,
            (frame >> 3) as u8,
            ((frame & 7) << 5) as u8 | 0x1f,
            0xfc,
        ]);
        self.fill(&mut pes, size);
        let clock = (!self.shape.video).then(|| self.pts());
        self.packets(3, AUDIO_PID, &pes, clock, false)
    }

    fn private(&mut self) -> Vec<Packet> {
        let mut pes = pes_head(0xbd, self.pts(), 8 + 8 + 100);
        pes.extend_from_slice(&self.frame.to_be_bytes());
        self.fill(&mut pes, 100);
        self.packets(4, PRIVATE_PID, &pes, None, false)
    }

    /// Random bytes without a zero, so that no start code arises.
    fn fill(&mut self, pes: &mut Vec<u8>, size: usize) {
        let from = pes.len();
        pes.resize(from + size, 0);
        self.rng.fill(&mut pes[from..]);
        pes[from..].iter_mut().for_each(|byte| *byte |= 1);
    }

    fn counter(&mut self, lane: usize) -> u8 {
        let now = self.counters[lane];
        self.counters[lane] = (now + 1) & 15;
        now
    }

    /// Cuts a PES packet into transport packets; the last one is filled up by stuffing.
    fn packets(
        &mut self,
        lane: usize,
        pid: u16,
        pes: &[u8],
        clock: Option<u64>,
        key: bool,
    ) -> Vec<Packet> {
        let mut packets = Vec::new();
        let mut rest = pes;
        while !rest.is_empty() {
            let first = packets.is_empty();
            let mut field = Vec::new();
            if first && (clock.is_some() || key) {
                field.push(u8::from(key) << 6 | u8::from(clock.is_some()) << 4);
                field.extend(clock.into_iter().flat_map(pcr));
            }
            let used = if field.is_empty() { 0 } else { 1 + field.len() };
            let n = rest.len().min(PACKET - 4 - used);
            let stuffing = PACKET - 4 - used - n;
            let adaptation = used + stuffing > 0;
            if field.is_empty() && stuffing > 1 {
                field.push(0);
            }
            let mut packet = [0xff; PACKET];
            packet[0] = 0x47;
            packet[1] = u8::from(first) << 6 | (pid >> 8) as u8;
            packet[2] = pid as u8;
            packet[3] = u8::from(adaptation) << 5 | 0x10 | self.counter(lane);
            if adaptation {
                packet[4] = (PACKET - 4 - 1 - n) as u8;
                packet[5..5 + field.len()].copy_from_slice(&field);
            }
            packet[PACKET - n..].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            packets.push(packet);
        }
        packets
    }

    /// The PAT (`pid` 0) or the PMT as one packet.
    fn table(&mut self, lane: usize, pid: u16) -> Packet {
        let body = if pid == 0 {
            vec![0, 1, 0xe0 | (PMT_PID >> 8) as u8, PMT_PID as u8]
        } else {
            let clock = if self.shape.video { VIDEO_PID } else { AUDIO_PID };
            let mut body = vec![0xe0 | (clock >> 8) as u8, clock as u8, 0xf0, 0];
            let video = self.shape.video.then_some((0x1b, VIDEO_PID));
            let others = [(0x0f, AUDIO_PID), (0x06, PRIVATE_PID)];
            for (kind, pid) in video.into_iter().chain(others) {
                body.extend_from_slice(&[kind, 0xe0 | (pid >> 8) as u8, pid as u8, 0xf0, 0]);
            }
            body
        };
        let length = 5 + body.len() + 4;
        let table_id = if pid == 0 { 0 } else { 2 };
        let mut section = vec![table_id, 0xb0, length as u8, 0, 1, 0xc1, 0, 0];
        section.extend_from_slice(&body);
        section.extend_from_slice(&crc(&section).to_be_bytes());
        let mut packet = [0xff; PACKET];
        let head = [0x47, 0x40 | (pid >> 8) as u8, pid as u8, 0x10 | self.counter(lane), 0];
        packet[..5].copy_from_slice(&head);
        packet[5..5 + section.len()].copy_from_slice(&section);
        packet
    }
}

/// A PES header with a PTS; `length` 0 is allowed for video only.
fn pes_head(stream_id: u8, pts: u64, length: usize) -> Vec<u8> {
    let mut head = vec![0, 0, 1, stream_id, (length >> 8) as u8, length as u8, 0x80, 0x80, 5];
    head.extend_from_slice(&[
        0x21 | ((pts >> 30) as u8 & 7) << 1,
        (pts >> 22) as u8,
        1 | (pts >> 14) as u8 & 0xfe,
        (pts >> 7) as u8,
        1 | (pts as u8) << 1,
    ]);
    head
}

/// A program clock reference 200 ms before `pts`.
fn pcr(pts: u64) -> [u8; 6] {
    let base = pts - CLOCK / 5;
    let low = ((base & 1) as u8) << 7 | 0x7e;
    [(base >> 25) as u8, (base >> 17) as u8, (base >> 9) as u8, (base >> 1) as u8, low, 0]
}

/// CRC-32/MPEG-2 (ISO/IEC 13818-1, annex A).
fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            (crc << 1) ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    })
}

/// The packet identifier.
pub fn pid(packet: &[u8]) -> u16 {
    u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2])
}

/// Whether a decoder can start here: payload starts and the random access flag is set.
pub fn is_access_point(packet: &[u8]) -> bool {
    let adaptation = packet[3] & 0x20 != 0 && packet[4] > 0;
    pid(packet) == VIDEO_PID && packet[1] & 0x40 != 0 && adaptation && packet[5] & 0x40 != 0
}
