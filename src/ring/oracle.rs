//! Random operations on several windows in one small arena, against an oracle: a vector of
//! everything that was ever written.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use crate::base::limits::{CHUNK, SLAB_LARGE, SLAB_SMALL, SUBTREE, TS_PACKET};
use crate::base::payload::Payload;
use crate::base::time::{Mono, Utc};
use crate::ring::arena::Arena;
use crate::ring::marks::{Mark, MarkKind};
use crate::ring::pool::Class;
use crate::ring::reader::{Overtaken, Reader};
use crate::ring::records::tests::record;
use crate::ring::records::{NoRecord, SubtreeSize, Unsigned};
use crate::ring::tests::{cases, joined, noise};
use crate::ring::window::{QUOTA_LARGE, Settings, Window, open, open_signed};
use crate::ring::writer::Writer;

const LARGE: u64 = SLAB_LARGE as u64;
const SMALL: u64 = SLAB_SMALL as u64;

/// What a test does next. Windows and positions are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Append { window: usize, packets: usize },
    Publish { window: usize, millis: u64 },
    Pad { window: usize, small: bool },
    Mark { window: usize },
    Begin { window: usize, back: u64 },
    Sign { window: usize, subtree: u64 },
    Chunk { window: usize, place: u64 },
    Record { window: usize, place: u64 },
    Read { window: usize, place: u64, max: usize, hold: bool },
    Release { window: usize },
    LetGo { held: usize },
    Reopen { window: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let window = 0..3_usize;
    let step = prop_oneof![
        6 => (window.clone(), 0..6_000_usize)
            .prop_map(|(window, packets)| Step::Append { window, packets }),
        4 => (window.clone(), 0..400_u64)
            .prop_map(|(window, millis)| Step::Publish { window, millis }),
        1 => (window.clone(), any::<bool>())
            .prop_map(|(window, small)| Step::Pad { window, small }),
        1 => window.clone().prop_map(|window| Step::Mark { window }),
        2 => (window.clone(), 0..9 * SMALL)
            .prop_map(|(window, back)| Step::Begin { window, back }),
        4 => (window.clone(), 0..12_u64)
            .prop_map(|(window, subtree)| Step::Sign { window, subtree }),
        4 => (window.clone(), any::<u64>())
            .prop_map(|(window, place)| Step::Chunk { window, place }),
        4 => (window.clone(), any::<u64>())
            .prop_map(|(window, place)| Step::Record { window, place }),
        6 => (window.clone(), any::<u64>(), 0..150_000_usize, any::<bool>())
            .prop_map(|(window, place, max, hold)| Step::Read { window, place, max, hold }),
        2 => window.clone().prop_map(|window| Step::Release { window }),
        2 => any::<usize>().prop_map(|held| Step::LetGo { held }),
        1 => window.prop_map(|window| Step::Reopen { window }),
    ];
    prop::collection::vec(step, 1..150)
}

/// A window and everything that was ever written to it.
struct Stream {
    seed: u64,
    first: u64,
    writer: Writer,
    reader: Reader,
    written: Vec<u8>,
    marks: u64,
    size: SubtreeSize,
    signed: BTreeSet<u64>,
}

impl Stream {
    fn open(arena: &Arc<Arena>, seed: u64) -> Stream {
        let first = seed % 5 * SUBTREE as u64;
        let quota =
            Settings { bytes: QUOTA_LARGE + seed % 3 * SMALL, span: Duration::from_secs(5) };
        let size = SubtreeSize::new(2 << (seed % 4)).unwrap();
        // Some begin to have records when they are in use already.
        let (writer, window) = match seed % 3 {
            0 => open(arena, &quota, first, 2).unwrap(),
            _ => open_signed(arena, &quota, size, first, 2).unwrap(),
        };
        let (reader, written, signed) = (Reader::new(window), Vec::new(), BTreeSet::new());
        Stream { seed, first, writer, reader, written, marks: 0, size, signed }
    }

    fn window(&self) -> &Arc<Window> {
        self.writer.window()
    }

    /// Signs the subtree that comes `ahead` behind the newest signed one, as swarm code may ask.
    fn sign(&mut self, ahead: u64) {
        let bytes = self.size.bytes();
        let Some(signed) = self.window().signed_head() else {
            let refused = self.writer.sign(ahead, &record(self.size, ahead));
            return assert_eq!(refused, Err(Unsigned::NoRecords));
        };
        let number = (signed / bytes + ahead).saturating_sub(2);
        let (tail, head) = (self.window().tail(), self.window().head());
        let want = if number * bytes < signed {
            Err(Unsigned::Late)
        } else if (number + 1) * bytes > head {
            Err(Unsigned::Early)
        } else if number * bytes < tail {
            Err(Unsigned::Late)
        } else {
            self.signed.insert(number);
            Ok(())
        };
        assert_eq!(self.writer.sign(number, &record(self.size, number)), want, "{number}");
        let signed = if want.is_ok() { (number + 1) * bytes } else { signed };
        assert_eq!(self.window().signed_head(), Some(signed));
    }

    /// Begins to have records `back` bytes behind the head.
    fn begin(&mut self, back: u64) {
        let before = self.window().signed_head();
        let (tail, head) = (self.window().tail(), self.window().head());
        let from = head.saturating_sub(back);
        assert_eq!(self.writer.begin_records(self.size, from), before.is_none());
        let first = from.max(tail).next_multiple_of(self.size.bytes());
        assert_eq!(self.window().signed_head(), before.or(Some(first)));
        assert_eq!(self.window().subtree_size(), Some(self.size));
    }

    /// The writer's own look at a chunk from a little below the tail to beyond the head.
    fn look_at(&self, place: u64) {
        let (tail, head) = (self.window().tail(), self.window().head());
        let low = tail.saturating_sub(SMALL).max(self.first) / CHUNK as u64;
        let chunk = low + place % (head / CHUNK as u64 + 3 - low);
        let (at, len) = (chunk * CHUNK as u64, CHUNK as u64);
        let there = at >= tail && at + len <= head;
        assert_eq!(self.writer.chunk(chunk), there.then(|| self.bytes(at, len)), "{chunk}");
    }

    fn look_up(&self, place: u64) {
        let (tail, end) = (self.window().tail(), self.window().head() + 9 * SMALL);
        // Nobody knows how large subtrees will be before there are records.
        let bytes = self.window().subtree_size().map_or(SUBTREE as u64, SubtreeSize::bytes);
        let low = (tail.saturating_sub(SMALL)) / bytes;
        let number = low + place % (end / bytes - low);
        let want = if number * bytes < tail {
            Err(NoRecord::Overtaken)
        } else if self.signed.contains(&number) {
            Ok(record(self.size, number))
        } else {
            Err(NoRecord::Unsigned)
        };
        assert_eq!(self.window().record(number), want, "{number}");
    }

    fn bytes(&self, at: u64, len: u64) -> &[u8] {
        &self.written[(at - self.first) as usize..][..len as usize]
    }
}

/// The whole test bed.
struct World {
    arena: Arc<Arena>,
    now: Mono,
    seeds: u64,
    streams: Vec<Stream>,
    held: Vec<([Payload; 2], Vec<u8>)>,
}

impl World {
    fn new() -> World {
        let arena = Arena::create(13 * LARGE).unwrap();
        let streams = (0..3).map(|seed| Stream::open(&arena, seed)).collect();
        World { arena, now: Mono::ZERO, seeds: 3, streams, held: Vec::new() }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append { window, packets } => self.append(window, packets),
            Step::Publish { window, millis } => {
                self.now = self.now + Duration::from_millis(millis);
                let stream = &mut self.streams[window];
                stream.writer.publish(self.now);
                assert_eq!(stream.window().head(), stream.writer.next());
            }
            Step::Pad { window, small } => {
                let stream = &mut self.streams[window];
                let bytes = if small { stream.size.bytes() } else { SUBTREE as u64 };
                let added = stream.writer.pad_to(self.now, bytes as usize);
                assert!(stream.writer.next().is_multiple_of(bytes), "never starved");
                for packet in 0..added as usize / TS_PACKET {
                    stream.written.extend([0x47, 0x1f, 0xff, 0x10]);
                    stream.written.resize(stream.written.len() + TS_PACKET - 4, 0xff);
                    assert!(packet < SUBTREE / TS_PACKET, "more than a subtree");
                }
            }
            Step::Mark { window } => {
                let stream = &mut self.streams[window];
                let at = stream.window().head();
                let utc = Utc::default();
                let kind = MarkKind::AccessPoint { pts: None, pat: at, tables: Bytes::new() };
                stream.writer.mark(Mark { at, ingest: self.now, utc, kind });
                stream.marks += 1;
                assert_eq!(stream.window().mark_count(), stream.marks);
            }
            Step::Begin { window, back } => self.streams[window].begin(back),
            Step::Sign { window, subtree } => self.streams[window].sign(subtree),
            Step::Chunk { window, place } => self.streams[window].look_at(place),
            Step::Record { window, place } => self.streams[window].look_up(place),
            Step::Read { window, place, max, hold } => self.read(window, place, max, hold),
            Step::Release { window } => self.streams[window].reader.release(),
            Step::LetGo { held } => {
                if !self.held.is_empty() {
                    self.held.swap_remove(held % self.held.len());
                }
            }
            Step::Reopen { window } => {
                // The old one goes first: the arena has no room for a fourth.
                self.streams.remove(window);
                self.streams.insert(window, Stream::open(&self.arena, self.seeds));
                self.seeds += 1;
            }
        }
    }

    fn append(&mut self, window: usize, packets: usize) {
        let pinned = self.pinned();
        let stream = &mut self.streams[window];
        let bytes = noise(stream.seed, stream.writer.next(), packets * TS_PACKET);
        let taken = stream.writer.append(self.now, &bytes);
        assert!(taken.is_multiple_of(TS_PACKET));
        stream.written.extend(&bytes[..taken]);
        let unpublished = stream.writer.next() - stream.window().head();
        let excuse = pinned > 0 || unpublished + 3 * LARGE > QUOTA_LARGE;
        assert!(taken == bytes.len() || excuse, "starved with nothing pinned");
    }

    fn read(&mut self, window: usize, place: u64, max: usize, hold: bool) {
        let stream = &mut self.streams[window];
        let (tail, head) = (stream.window().tail(), stream.window().head());
        // From a little below the tail to the head.
        let low = tail.saturating_sub(SMALL).max(stream.first);
        let at = low + place % (head - low + 1);
        let result = stream.reader.read(at, max);
        if at < tail {
            assert_eq!(result.err(), Some(Overtaken));
            return;
        }
        let parts = result.expect("inside the window");
        let bytes = joined(&parts);
        assert_eq!(bytes, stream.bytes(at, bytes.len() as u64));
        let wanted = (head - at).min(max as u64);
        let two_slabs = wanted.min(SMALL);
        assert!(bytes.len() as u64 >= two_slabs && bytes.len() as u64 <= wanted);
        if hold {
            self.held.push((parts, bytes));
            if self.held.len() > 12 {
                self.held.remove(0);
            }
        }
    }

    /// Bytes that nothing but pins keeps.
    fn pinned(&self) -> u64 {
        let windows: u64 = self.streams.iter().map(|s| s.writer.held_bytes()).sum();
        self.arena.in_use() - windows
    }

    fn check(&self) {
        for (parts, bytes) in &self.held {
            let (first, second) = bytes.split_at(parts[0].len());
            let same = parts[0].as_slice() == first && parts[1].as_slice() == second;
            assert!(same, "a held payload changed");
        }
        for stream in &self.streams {
            let window = stream.window();
            assert!(window.tail() <= window.head() && window.head() <= stream.writer.next());
            assert!(stream.writer.held_bytes() <= window.quota());
            let held = stream.writer.next() - window.tail();
            assert!(held <= stream.writer.held_bytes(), "bytes without a slab");
            if held > 0 && window.head() > window.tail() {
                assert!(window.ingest_time(window.tail()).is_some());
            }
            assert!(window.marks().iter().all(|mark| mark.at >= window.tail()));
        }
        let quotas: u64 = self.streams.iter().map(|s| s.window().quota()).sum();
        assert_eq!(self.arena.reserved(), quotas);
        assert!(self.arena.in_use() <= self.arena.bytes());
    }

    /// Everything goes; the arena must be as it was.
    fn end(self) {
        let World { arena, streams, held, .. } = self;
        drop(streams);
        assert_eq!(arena.reserved(), 0);
        drop(held);
        assert_eq!(arena.in_use(), 0);
        let larges = std::iter::from_fn(|| arena.claim(Class::Large, 0)).count();
        assert_eq!(larges as u64, arena.bytes() / LARGE, "a frame was lost or stayed split");
    }
}

proptest! {
    #![proptest_config(cases())]

    /// Three windows in one arena with one large slab to spare.
    #[test]
    fn operations_agree_with_an_oracle(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.end();
    }
}
