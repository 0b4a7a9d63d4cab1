//! Windows that are received: chunks, presence and records in any order, against an oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use proptest::prelude::*;

use crate::base::limits::{CHUNK, SLAB_LARGE, SLAB_SMALL, SUBTREE, TS_PACKET};
use crate::base::payload::Payload;
use crate::base::time::Mono;
use crate::ring::arena::Arena;
use crate::ring::chunks::{ChunkWriter, Refused};
use crate::ring::pool::Class;
use crate::ring::reader::{Overtaken, Reader};
use crate::ring::records::tests::record;
use crate::ring::records::{NoRecord, SubtreeSize, Unsigned};
use crate::ring::tests::{cases, joined, noise};
use crate::ring::window::{QUOTA_LARGE, Settings, Window, open, open_received};

const LARGE: u64 = SLAB_LARGE as u64;

/// What a test does next. Chunks and subtrees count from the first missing one, less the bias.
#[derive(Clone, Debug)]
enum Step {
    Run { window: usize, chunks: u64 },
    Chunk { window: usize, chunk: u64 },
    Sign { window: usize, subtree: u64 },
    GiveUp { window: usize, chunk: u64 },
    Publish { window: usize, millis: u64 },
    Read { window: usize, place: u64, hold: bool },
    Record { window: usize, place: u64 },
    Release { window: usize },
    Reopen { window: usize },
}

const BIAS: u64 = 20;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let window = 0..3_usize;
    let chunk = prop_oneof![4 => 0..100_u64, 1 => 0..1_000_u64, 1 => Just(u64::MAX / 2)];
    let step = prop_oneof![
        4 => (window.clone(), 0..700_u64).prop_map(|(window, chunks)| Step::Run { window, chunks }),
        8 => (window.clone(), chunk.clone())
            .prop_map(|(window, chunk)| Step::Chunk { window, chunk }),
        4 => (window.clone(), chunk.clone())
            .prop_map(|(window, subtree)| Step::Sign { window, subtree }),
        1 => (window.clone(), chunk).prop_map(|(window, chunk)| Step::GiveUp { window, chunk }),
        4 => (window.clone(), 0..400_u64)
            .prop_map(|(window, millis)| Step::Publish { window, millis }),
        6 => (window.clone(), any::<u64>(), any::<bool>())
            .prop_map(|(window, place, hold)| Step::Read { window, place, hold }),
        4 => (window.clone(), any::<u64>())
            .prop_map(|(window, place)| Step::Record { window, place }),
        2 => window.clone().prop_map(|window| Step::Release { window }),
        1 => window.prop_map(|window| Step::Reopen { window }),
    ];
    prop::collection::vec(step, 1..150)
}

fn bytes(seed: u64, chunk: u64) -> [u8; CHUNK] {
    noise(seed, chunk % (1 << 40) * CHUNK as u64, CHUNK).try_into().unwrap()
}

/// A window and all that is known of it.
struct Stream {
    /// Of its bytes: every second stream is the same one.
    seed: u64,
    size: SubtreeSize,
    writer: ChunkWriter,
    reader: Reader,
    /// Chunks from the first one on: written (true) or given up.
    chunks: BTreeMap<u64, bool>,
    next: u64,
    signed: BTreeSet<u64>,
}

impl Stream {
    fn open(arena: &Arc<Arena>, seed: u64) -> Stream {
        let quota = Settings { bytes: QUOTA_LARGE, span: Duration::from_secs(5) };
        let size = SubtreeSize::new(2 << (seed % 4)).unwrap();
        let first = seed % 5 * SUBTREE as u64;
        let (writer, window) = open_received(arena, &quota, size, first, 1).unwrap();
        let (next, reader) = (first / CHUNK as u64, Reader::new(window));
        let (chunks, signed) = (BTreeMap::new(), BTreeSet::new());
        Stream { seed: seed % 2, size, writer, reader, chunks, next, signed }
    }

    fn window(&self) -> &Arc<Window> {
        self.writer.window()
    }

    fn limit(&self) -> u64 {
        self.window().head() + QUOTA_LARGE / 4
    }

    fn write(&mut self, now: Mono, chunk: u64, pinned: u64) {
        let end = chunk.checked_mul(CHUNK as u64).and_then(|at| at.checked_add(CHUNK as u64));
        let want = if chunk < self.next {
            Err(Refused::Late)
        } else if self.chunks.contains_key(&chunk) {
            Err(Refused::Known)
        } else if end.is_none_or(|end| end > self.limit()) {
            Err(Refused::Ahead)
        } else {
            Ok(())
        };
        let got = self.writer.write_chunk(now, chunk, &bytes(self.seed, chunk));
        if got == Err(Refused::Starved) {
            assert!(want.is_ok() && pinned > 0, "starved with nothing pinned");
            return;
        }
        assert_eq!(got, want, "chunk {chunk}");
        if got.is_ok() {
            self.chunks.insert(chunk, true);
            self.advance();
        }
    }

    fn give_up(&mut self, now: Mono, until: u64, pinned: u64) {
        let missing = (self.next..until.min(self.limit() / CHUNK as u64))
            .filter(|chunk| !self.chunks.contains_key(chunk));
        let missing: Vec<u64> = missing.collect();
        let lost = self.writer.give_up(now, until) as usize;
        assert!(lost == missing.len() || lost < missing.len() && pinned > 0);
        self.chunks.extend(missing[..lost].iter().map(|chunk| (*chunk, false)));
        self.advance();
    }

    fn sign(&mut self, number: u64) {
        let end = number.checked_add(1).and_then(|next| next.checked_mul(self.size.bytes()));
        let want = if end.is_none_or(|end| end > self.limit()) {
            Err(Unsigned::Early)
        } else if number * self.size.bytes() < self.window().tail() || self.signed.contains(&number)
        {
            Err(Unsigned::Late)
        } else {
            Ok(())
        };
        assert_eq!(self.writer.sign(number, &record(self.size, number)), want, "{number}");
        if want.is_ok() {
            self.signed.insert(number);
            let newest = self.signed.last().unwrap();
            let end = (newest + 1) * self.size.bytes();
            assert_eq!(self.window().signed_head(), Some(end));
        }
    }

    fn advance(&mut self) {
        while self.chunks.contains_key(&self.next) {
            self.next += 1;
        }
        assert_eq!(self.writer.next(), self.next);
    }

    /// What a reader of bytes is to see of a chunk.
    fn shown(&self, chunk: u64) -> Vec<u8> {
        let null = [&[0x47, 0x1f, 0xff, 0x10][..], &[0xff; TS_PACKET - 4]].concat();
        if self.chunks[&chunk] { bytes(self.seed, chunk).to_vec() } else { null.repeat(7) }
    }

    fn read(&mut self, place: u64) -> Option<(Payload, Vec<u8>)> {
        let (tail, head) = (self.window().tail(), self.window().head());
        let low = (tail / CHUNK as u64).saturating_sub(30);
        let chunk = low + place % (self.next + 500 - low);
        let at = chunk * CHUNK as u64;
        let there = self.chunks.get(&chunk) == Some(&true);
        let got = self.reader.read_chunk(chunk);
        if at < tail {
            assert_eq!(got.err(), Some(Overtaken));
            return None;
        }
        let got = got.expect("inside the window");
        assert_eq!((got.is_some(), self.window().has_chunk(chunk)), (there, there), "{chunk}");
        self.read_run(chunk, 1 + place % 7);
        if at < head {
            let parts = self.reader.read(at, CHUNK).unwrap();
            assert_eq!(joined(&parts), self.shown(chunk));
        }
        let payload = got?;
        assert_eq!(payload.as_slice(), bytes(self.seed, chunk));
        Some((payload, bytes(self.seed, chunk).to_vec()))
    }

    /// Some chunks in a row, of one subtree.
    fn read_run(&mut self, first: u64, count: u64) {
        let end = (first + count).min(first.next_multiple_of(16).max(first + 1));
        let there = (first..end).all(|chunk| self.chunks.get(&chunk) == Some(&true));
        let got = self.reader.read_run(first, (end - first) as usize).expect("inside the window");
        let want: Vec<u8> = (first..end).flat_map(|chunk| bytes(self.seed, chunk)).collect();
        assert_eq!(got.is_some(), there, "{first}..{end}");
        assert!(got.is_none_or(|got| got.as_slice() == want));
    }

    fn look_up(&self, place: u64) {
        let low = (self.window().tail() / self.size.bytes()).saturating_sub(10);
        let number = low + place % (self.limit() / self.size.bytes() + 10 - low);
        let want = if number * self.size.bytes() < self.window().tail() {
            Err(NoRecord::Overtaken)
        } else if self.signed.contains(&number) {
            Ok(record(self.size, number))
        } else {
            Err(NoRecord::Unsigned)
        };
        assert_eq!(self.window().record(number), want, "{number}");
    }
}

/// The whole test bed.
struct World {
    arena: Arc<Arena>,
    now: Mono,
    seeds: u64,
    streams: Vec<Stream>,
    held: Vec<(Payload, Vec<u8>)>,
}

impl World {
    fn step(&mut self, step: &Step) {
        let windows: u64 = self.streams.iter().map(|s| s.writer.held_bytes()).sum();
        let pinned = self.arena.in_use() - windows;
        let now = self.now;
        let from = |stream: &Stream, offset: u64| (stream.next + offset).saturating_sub(BIAS);
        match *step {
            Step::Run { window, chunks } => {
                let stream = &mut self.streams[window];
                (stream.next..stream.next + chunks).for_each(|chunk| {
                    let windows = stream.writer.held_bytes();
                    stream.write(now, chunk, pinned + windows);
                });
            }
            Step::Chunk { window, chunk } => {
                let stream = &mut self.streams[window];
                stream.write(now, from(stream, chunk), pinned);
            }
            Step::Sign { window, subtree } => {
                let stream = &mut self.streams[window];
                stream.sign(
                    (stream.next / stream.size.chunks() as u64 + subtree) - BIAS.min(subtree),
                );
            }
            Step::GiveUp { window, chunk } => {
                let stream = &mut self.streams[window];
                stream.give_up(now, from(stream, chunk), pinned);
            }
            Step::Publish { window, millis } => {
                self.now = now + Duration::from_millis(millis);
                let stream = &mut self.streams[window];
                stream.writer.publish(self.now);
                assert_eq!(stream.window().head(), stream.next * CHUNK as u64);
            }
            Step::Read { window, place, hold } => {
                let read = self.streams[window].read(place);
                self.held.extend(read.filter(|_| hold));
                if self.held.len() > 12 {
                    self.held.remove(0);
                }
            }
            Step::Record { window, place } => self.streams[window].look_up(place),
            Step::Release { window } => self.streams[window].reader.release(),
            Step::Reopen { window } => {
                self.streams.remove(window);
                self.streams.insert(window, Stream::open(&self.arena, self.seeds));
                self.seeds += 1;
            }
        }
        for (payload, bytes) in &self.held {
            assert_eq!(payload.as_slice(), bytes, "a held payload changed");
        }
    }
}

fn agree(arena: Arc<Arena>, steps: &[Step]) {
    let streams = (0..3).map(|seed| Stream::open(&arena, seed)).collect();
    let mut world = World { arena, now: Mono::ZERO, seeds: 3, streams, held: Vec::new() };
    steps.iter().for_each(|step| world.step(step));
    let World { arena, streams, held, .. } = world;
    drop((streams, held));
    assert_eq!((arena.reserved(), arena.in_use()), (0, 0));
    let larges = std::iter::from_fn(|| arena.claim(Class::Large, 0)).count();
    assert_eq!(larges, 13, "a frame was lost or stayed split");
}

proptest! {
    #![proptest_config(cases())]

    /// Three windows in one arena with one large slab to spare.
    #[test]
    fn chunks_and_records_agree_with_an_oracle(steps in steps()) {
        agree(Arena::create(13 * LARGE).unwrap(), &steps);
        // And where two of them are alike, as far as the third slab of each.
        agree(Arena::create_lazy(13 * LARGE, 2 * LARGE).unwrap(), &steps);
    }
}

#[test]
fn windows_that_do_not_ask_have_no_records() {
    let arena = Arena::create(0).unwrap();
    let quota = Settings { bytes: 0, span: Duration::from_secs(5) };
    let (mut writer, window) = open(&arena, &quota, 0, 1).unwrap();
    writer.append(Mono::ZERO, &[0x47; SUBTREE]);
    writer.publish(Mono::ZERO);
    assert_eq!((window.signed_head(), window.record(0)), (None, Err(NoRecord::Unsigned)));
    let size = SubtreeSize::new(16).unwrap();
    assert_eq!(writer.sign(0, &record(size, 0)), Err(Unsigned::NoRecords));
    assert!(window.has_chunk(15) && !window.has_chunk(16), "chunks are there all the same");
    let mut reader = Reader::new(window);
    assert_eq!(reader.read_chunk(15).unwrap().unwrap().as_slice(), [0x47; CHUNK]);
    assert!(reader.read_chunk(16).unwrap().is_none());
    assert!(reader.read_chunk(u64::MAX).unwrap().is_none());
}

#[test]
#[should_panic(expected = "not published")]
fn a_pin_refuses_the_chunk_beside_the_one_that_is_there() {
    let arena = Arena::create(0).unwrap();
    let quota = Settings { bytes: 0, span: Duration::from_secs(5) };
    let size = SubtreeSize::new(16).unwrap();
    let (mut writer, window) = open_received(&arena, &quota, size, 0, 1).unwrap();
    writer.write_chunk(Mono::ZERO, 2, &[7; CHUNK]).unwrap();
    let Some(Payload::Slab { slab, at, .. }) = Reader::new(window).read_chunk(2).unwrap() else {
        panic!("a payload on a slab");
    };
    assert_eq!(slab.published(at, CHUNK as u32), [7; CHUNK]);
    slab.published(at, CHUNK as u32 + 1);
}

#[test]
#[should_panic(expected = "not published")]
fn a_pin_refuses_more_than_the_chunks_of_a_run() {
    let arena = Arena::create(0).unwrap();
    let quota = Settings { bytes: 0, span: Duration::from_secs(5) };
    let size = SubtreeSize::new(16).unwrap();
    let (mut writer, window) = open_received(&arena, &quota, size, 0, 1).unwrap();
    for chunk in [7, 4, 3, 5] {
        writer.write_chunk(Mono::ZERO, chunk, &[chunk as u8; CHUNK]).unwrap();
    }
    let mut reader = Reader::new(window);
    assert!(reader.read_run(3, 5).unwrap().is_none(), "one of them is missing");
    assert!(reader.read_run(3, 0).unwrap().is_none(), "nothing");
    assert!(reader.read_run(u64::MAX / 2, 9).unwrap().is_none(), "no such chunk");
    let Some(Payload::Slab { slab, at, len }) = reader.read_run(3, 3).unwrap() else {
        panic!("a payload on a slab");
    };
    assert_eq!((at, len), (3 * CHUNK as u32, 3 * CHUNK as u32));
    let want = [[3; CHUNK], [4; CHUNK], [5; CHUNK]].concat();
    assert_eq!(slab.published(at, len), want);
    let inside = slab.published(at + 1, len - 1);
    assert_eq!(inside, &want[1..]);
    slab.published(at, len + 1);
}

/// Follows chunks and records by number until `last`; returns how many it got of each.
fn follow(window: &Arc<Window>, size: SubtreeSize, newest: &AtomicU64, last: u64) -> [u64; 2] {
    let mut reader = Reader::new(Arc::clone(window));
    let mut random = fastrand::Rng::with_seed(last);
    let mut got = [0; 2];
    while newest.load(Ordering::Relaxed) < last {
        let around = newest.load(Ordering::Relaxed) + 40;
        let chunk = around.saturating_sub(random.u64(0..1_700));
        if let Ok(Some(payload)) = reader.read_chunk(chunk) {
            assert_eq!(payload.as_slice(), bytes(7, chunk), "chunk {chunk}");
            got[0] += 1;
        }
        let count = 1 + random.usize(0..(16 - chunk as usize % 16));
        if let Ok(Some(payload)) = reader.read_run(chunk, count) {
            let parts = payload.as_slice().chunks_exact(CHUNK).zip(chunk..);
            assert_eq!(payload.len(), count * CHUNK);
            parts.for_each(|(part, chunk)| assert_eq!(part, bytes(7, chunk), "chunk {chunk}"));
        }
        let number = chunk / size.chunks() as u64;
        match window.record(number) {
            Ok(found) => {
                assert!(found == record(size, number), "record {number}");
                got[1] += 1;
            }
            Err(NoRecord::Overtaken) => assert!(number * size.bytes() < window.tail()),
            Err(NoRecord::Unsigned) => {}
        }
        reader.release();
    }
    got
}

/// What is played later than it came, and what nothing proves.
#[test]
fn the_head_waits_for_its_time_and_unproven_chunks_are_only_played() {
    let arena = Arena::create(0).unwrap();
    let quota = Settings { bytes: 0, span: Duration::from_secs(5) };
    let size = SubtreeSize::new(16).unwrap();
    let (mut writer, window) = open_received(&arena, &quota, size, 0, 1).unwrap();
    for chunk in [0, 1, 3] {
        writer.write_chunk(Mono::ZERO, chunk, &bytes(7, chunk)).unwrap();
    }
    writer.publish_below(Mono::ZERO, 1_000);
    assert_eq!(window.head(), 940, "whole packets");
    writer.publish_below(Mono::ZERO, 200);
    assert_eq!(window.head(), 940, "never back");
    writer.fill(Mono::ZERO, &bytes(7, 2)).unwrap();
    assert_eq!(writer.next(), 4, "what came before goes on behind it");
    writer.publish_below(Mono::ZERO, u64::MAX);
    assert_eq!(window.head(), 4 * CHUNK as u64);
    assert!(!window.has_chunk(2) && window.has_chunk(3));
    let mut reader = Reader::new(window);
    assert_eq!(reader.read_chunk(2).unwrap().map(|_| ()), None);
    let read = joined(&reader.read(2 * CHUNK as u64, CHUNK).unwrap());
    assert_eq!(read, bytes(7, 2));
    assert_eq!(writer.write_chunk(Mono::ZERO, 2, &bytes(7, 2)), Err(Refused::Late));
}

/// One writer in steps out of order, two readers: what is there is right, whoever asks.
#[test]
fn threads_agree_on_chunks_and_records() {
    const CHUNKS: u64 = 12_000;
    let arena = Arena::create(0).unwrap();
    let quota = Settings { bytes: 0, span: Duration::from_secs(60) };
    let size = SubtreeSize::new(8).unwrap();
    let (mut writer, window) = open_received(&arena, &quota, size, 0, 1).unwrap();
    let (newest, begin) = (AtomicU64::new(0), Barrier::new(3));
    std::thread::scope(|scope| {
        let readers = [0, 1].map(|_| {
            scope.spawn(|| {
                begin.wait();
                follow(&window, size, &newest, CHUNKS)
            })
        });
        begin.wait();
        let mut now = Mono::ZERO;
        for first in (0..CHUNKS).step_by(8) {
            writer.sign(first / 8, &record(size, first / 8)).unwrap();
            for chunk in [3, 0, 7, 1, 6, 2, 5, 4].map(|n| first + n) {
                while writer.write_chunk(now, chunk, &bytes(7, chunk)) == Err(Refused::Starved) {
                    std::thread::yield_now();
                }
            }
            now = now + Duration::from_millis(1);
            writer.publish(now);
            newest.store(first + 8, Ordering::Relaxed);
        }
        for reader in readers {
            let got = reader.join().unwrap();
            assert!(got[0] > 0 && got[1] > 0, "{got:?}");
        }
    });
    assert_eq!(window.head(), CHUNKS * CHUNK as u64);
}

/// A window begins to have records under the eyes of a reader: what it finds is whole.
#[test]
fn threads_agree_on_when_records_begin() {
    const SUBTREES: u64 = 400;
    let size = SubtreeSize::new(4).unwrap();
    for begin in [0, 1, 77] {
        let arena = Arena::create(0).unwrap();
        let quota = Settings { bytes: 0, span: Duration::from_secs(60) };
        let (mut writer, window) = open(&arena, &quota, 0, 1).unwrap();
        let (seen, done) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut found = 0;
                while done.load(Ordering::Relaxed) == 0
                    || window.record(found) != Ok(record(size, found))
                {
                    let Some(signed) = window.signed_head() else { continue };
                    seen.store(1, Ordering::Relaxed);
                    assert_eq!(window.subtree_size(), Some(size));
                    found = (signed / size.bytes()).max(1) - 1;
                    if signed > begin * size.bytes() {
                        let got = window.record(found);
                        let gone = found * size.bytes() < window.tail();
                        assert!(got == Ok(record(size, found)) || gone, "record {found}");
                    }
                }
            });
            for number in 0..SUBTREES {
                let bytes = noise(1, number * size.bytes(), size.bytes() as usize);
                assert_eq!(writer.append(Mono::ZERO, &bytes), bytes.len());
                writer.publish(Mono::ZERO);
                if number == begin {
                    assert!(writer.begin_records(size, begin * size.bytes()));
                    // Nothing else is shared yet: only the beginning itself can order the two.
                    while seen.load(Ordering::Relaxed) == 0 && !reader.is_finished() {
                        std::thread::yield_now();
                    }
                }
                if number >= begin {
                    writer.sign(number, &record(size, number)).unwrap();
                }
            }
            done.store(1, Ordering::Relaxed);
            reader.join().unwrap();
        });
        assert!(!writer.begin_records(size, 0), "once");
    }
}

/// Sends in flight on other shards keep the mapping when everything else has gone.
#[test]
fn teardown_waits_for_what_is_in_flight() {
    let arena = Arena::create(0).unwrap();
    let quota = Settings { bytes: 0, span: Duration::from_secs(60) };
    let (mut writer, window) = open(&arena, &quota, 0, 1).unwrap();
    let all = noise(3, 0, SLAB_SMALL / TS_PACKET * TS_PACKET);
    assert_eq!(writer.append(Mono::ZERO, &all), all.len());
    writer.publish(Mono::ZERO);
    let alive = Arc::downgrade(&arena);
    let (pinned, gone) = (Barrier::new(4), Barrier::new(4));
    std::thread::scope(|scope| {
        for shard in 0..3 {
            let window = Arc::clone(&window);
            let (pinned, gone, all) = (&pinned, &gone, &all);
            scope.spawn(move || {
                let at = shard * TS_PACKET;
                let in_flight = Reader::new(window).read(at as u64, all.len()).unwrap();
                pinned.wait();
                gone.wait();
                assert_eq!(joined(&in_flight), all[at..], "shard {shard}");
            });
        }
        pinned.wait();
        drop((writer, window, arena));
        assert_eq!(alive.upgrade().unwrap().in_use(), SLAB_SMALL as u64);
        gone.wait();
    });
    assert!(alive.upgrade().is_none(), "nobody unmaps it");
}
