//! The intake with a window that runs dry: what is dropped, where it goes on, what is marked.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::limits::{SLAB_LARGE, SUBTREE};
use crate::base::payload::Payload;
use crate::base::time::{Mono, Utc};
use crate::media::looper::Looper;
use crate::media::sample::DEMO;
use crate::ring::arena::Arena;
use crate::ring::reader::Reader;
use crate::ring::window::{Settings, Window, open};

const MINUTE: Duration = Duration::from_secs(60);

/// A publisher of the demo's stream in front of a window in two large slabs of memory.
struct Stage {
    intake: Option<Intake>,
    window: Arc<Window>,
    looper: Looper,
    time: Duration,
    /// Whether random access indicators are cleared, so that key frames are recognised late.
    unmarked: bool,
    sent: Vec<u8>,
}

fn segmenter(resumed: bool) -> Segmenter {
    Segmenter::new(Duration::from_secs(2), Arc::default(), resumed)
}

impl Stage {
    fn new(first: u64) -> Stage {
        let arena = Arena::create(2 * SLAB_LARGE as u64).unwrap();
        let settings = Settings { bytes: arena.bytes(), span: 100 * MINUTE };
        let (writer, window) = open(&arena, &settings, first, 1).unwrap();
        let mut stage = Stage {
            intake: None,
            window,
            looper: Looper::new(DEMO).unwrap(),
            time: Duration::ZERO,
            unmarked: false,
            sent: Vec::new(),
        };
        stage.intake = Some(Intake::new(writer, segmenter(false), false, stage.now()));
        stage
    }

    fn now(&self) -> Now {
        Now { mono: Mono::from_millis(1) + self.time, utc: Utc::default() }
    }

    /// What is due in the next 200 ms, in pieces of at most `piece` bytes.
    fn step(&mut self, piece: usize) -> Taken {
        self.time += Duration::from_millis(200);
        let mut due = Vec::new();
        self.looper.next(self.time, &mut due);
        if self.unmarked {
            for packet in due.chunks_mut(TS_PACKET).filter(|p| p[3] & 0x20 != 0 && p[4] > 0) {
                packet[5] &= !0x40;
            }
        }
        let (now, intake) = (self.now(), self.intake.as_mut().unwrap());
        let mut sum = Taken::default();
        for piece in due.chunks(piece) {
            let taken = intake.push(now, piece);
            sum.written += taken.written;
            sum.dropped += taken.dropped;
            sum.starved |= taken.starved;
            sum.discontinuity |= taken.discontinuity;
        }
        assert_eq!((sum.written + sum.dropped) % TS_PACKET as u64, 0);
        self.sent.extend_from_slice(&due);
        sum
    }

    fn read(&self, reader: &mut Reader, at: u64, len: usize) -> Vec<u8> {
        let parts = reader.read(at, len).unwrap();
        [parts[0].as_slice(), parts[1].as_slice()].concat()
    }

    /// Pins every slab and runs until data was dropped. Returns the pins.
    fn starve(&mut self, piece: usize) -> Vec<[Payload; 2]> {
        let mut reader = Reader::new(Arc::clone(&self.window));
        let mut pins = Vec::new();
        for _ in 0..3_000 {
            let at = self.window.head();
            let taken = self.step(piece);
            if self.window.head() > at {
                pins.push(reader.read(at, TS_PACKET).unwrap());
            }
            if taken.starved {
                assert!(taken.dropped > 0);
                return pins;
            }
        }
        panic!("never starved");
    }

    fn discontinuities(&self) -> Vec<u64> {
        let marks = self.window.marks();
        let breaks = marks.iter().filter(|m| m.kind == MarkKind::Discontinuity);
        breaks.map(|m| m.at).collect()
    }
}

fn begins_key_frame(packet: &[u8]) -> bool {
    packet[0] == 0x47 && packet[1] & 0x40 != 0 && packet[3] & 0x20 != 0
}

#[test]
fn starvation_drops_up_to_the_next_access_point() {
    let mut stage = Stage::new(0);
    let pins = stage.starve(usize::MAX);
    let head = stage.window.head();
    for _ in 0..10 {
        let taken = stage.step(usize::MAX);
        assert_eq!((taken.written, taken.starved, taken.discontinuity), (0, false, false));
    }
    assert_eq!(stage.window.head(), head, "nothing is written while every slab is pinned");
    assert_eq!(stage.discontinuities(), [0; 0], "a break is marked when the stream goes on");
    drop(pins);
    let mut resumed = Taken::default();
    for _ in 0..10 {
        if !resumed.discontinuity {
            resumed = stage.step(usize::MAX);
        }
    }
    assert!(resumed.discontinuity && resumed.written > 0, "{resumed:?}");
    assert_eq!(stage.discontinuities(), [head]);
    let start = stage.window.marks().newest_access_point().cloned().unwrap();
    assert_eq!(start.at, head, "it goes on with an access point");
    let mut reader = Reader::new(Arc::clone(&stage.window));
    let bytes = stage.read(&mut reader, head, resumed.written as usize);
    assert!(begins_key_frame(&bytes) && bytes[5] & 0x40 != 0);
    assert!(stage.sent.ends_with(&bytes), "what is kept came in like this");
    // From here on the numbers of what is found are right again.
    stage.step(usize::MAX);
    for _ in 0..20 {
        stage.step(usize::MAX);
    }
    for mark in stage.window.marks().iter().filter(|m| m.is_access_point() && m.at > head) {
        let packet = stage.read(&mut reader, mark.at, TS_PACKET);
        assert!(packet[5] & 0x40 != 0, "the mark at {} is no key frame", mark.at);
        let MarkKind::AccessPoint { pat, .. } = mark.kind else { unreachable!() };
        let packet = stage.read(&mut reader, pat, TS_PACKET);
        assert_eq!(packet[1..3], [0x40, 0], "no PAT at {pat}");
    }
}

/// A key frame that began in a dropped piece and is recognised in a later one: its offset means
/// another packet of the window, and must not be marked.
#[test]
fn what_began_in_a_dropped_piece_is_never_marked() {
    let mut stage = Stage::new(0);
    stage.unmarked = true;
    let pins = stage.starve(TS_PACKET);
    let head = stage.window.head();
    for _ in 0..12 {
        stage.step(TS_PACKET);
    }
    assert_eq!(stage.window.head(), head);
    drop(pins);
    for _ in 0..30 {
        stage.step(TS_PACKET);
    }
    assert_eq!(stage.discontinuities(), [head], "it goes on although no piece holds a whole start");
    let mut reader = Reader::new(Arc::clone(&stage.window));
    let mut found = 0;
    for mark in stage.window.marks().iter().filter(|m| m.is_access_point()) {
        let packet = stage.read(&mut reader, mark.at, TS_PACKET);
        assert!(begins_key_frame(&packet), "the mark at {} begins nothing", mark.at);
        found += usize::from(mark.at >= head);
    }
    assert!(found >= 3, "{found} access points in 6 s");
}

#[test]
fn a_run_ends_on_a_subtree_and_the_next_one_begins_with_a_mark() {
    let first = 5 * SUBTREE as u64;
    let mut stage = Stage::new(first);
    for _ in 0..10 {
        stage.step(1000);
    }
    let sent = stage.sent.len() - stage.sent.len() % TS_PACKET;
    let now = stage.now();
    let (writer, _) = stage.intake.take().unwrap().finish(now);
    let end = writer.next();
    assert!(end.is_multiple_of(SUBTREE as u64) && end >= first + sent as u64);
    assert_eq!(stage.window.head(), end, "padding is published");
    let mut reader = Reader::new(Arc::clone(&stage.window));
    let padding = stage.read(&mut reader, first + sent as u64, (end - first) as usize - sent);
    assert!(padding.chunks(TS_PACKET).all(|p| p[..3] == [0x47, 0x1f, 0xff]), "null packets only");
    assert_eq!(stage.discontinuities(), [0; 0], "a first run continues nothing");
    stage.intake = Some(Intake::new(writer, segmenter(true), true, now));
    assert_eq!(stage.discontinuities(), [end]);
    stage.sent.clear();
    stage.step(1000);
    assert_eq!(stage.read(&mut reader, end, TS_PACKET), stage.sent[..TS_PACKET], "numbers go on");
}
