//! The ring as a whole: slab sizes, age, visibility, starvation, quotas, teardown, threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use proptest::prelude::ProptestConfig;

use crate::base::ids::ShardId;
use crate::base::limits::{SLAB_LARGE, SLAB_SMALL, SUBTREE, TS_PACKET};
use crate::base::payload::Payload;
use crate::base::time::{Mono, Utc};
use crate::ring::arena::Arena;
use crate::ring::marks::{Mark, MarkKind};
use crate::ring::reader::{Overtaken, Reader};
use crate::ring::window::{OutOfMemory, QUOTA_LARGE, Settings, Window, open};
use crate::ring::writer::Writer;

const LARGE: u64 = SLAB_LARGE as u64;
const SMALL: u64 = SLAB_SMALL as u64;
const MINUTE: Duration = Duration::from_secs(60);

fn settings(bytes: u64, span: Duration) -> Settings {
    Settings { bytes, span }
}

/// A window alone in an arena of `frames` large slabs, of which it may use all.
fn alone(frames: u64, span: Duration) -> (Arc<Arena>, Writer, Arc<Window>) {
    let arena = Arena::create(frames * LARGE).unwrap();
    let (writer, window) = open(&arena, &settings(frames * LARGE, span), 0, 1).unwrap();
    (arena, writer, window)
}

/// 48 cases of a property, or as many as `PROPTEST_CASES` says: fewer for slow tools.
pub(super) fn cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    let set = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig { cases: if set { default.cases } else { 48 }, ..default }
}

/// `len` bytes that differ from those of any other stream offset and seed nearby: a table whose
/// length is a prime, so that no mix-up of slabs goes unnoticed.
pub(super) fn noise(seed: u64, at: u64, len: usize) -> Vec<u8> {
    const PRIME: usize = 1_048_573;
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut random = fastrand::Rng::with_seed(1);
        (0..PRIME).map(|_| random.u8(..)).collect()
    });
    let mut bytes = Vec::with_capacity(len);
    let mut from = (at as usize + seed as usize * 7_919) % PRIME;
    while bytes.len() < len {
        let end = PRIME.min(from + len - bytes.len());
        bytes.extend_from_slice(&table[from..end]);
        from = 0;
    }
    bytes
}

pub(super) fn joined(parts: &[Payload; 2]) -> Vec<u8> {
    [parts[0].as_slice(), parts[1].as_slice()].concat()
}

/// Appends and publishes `bytes` bytes in pieces of at most 100 packets, `step` apart.
fn run(writer: &mut Writer, now: &mut Mono, step: Duration, bytes: u64) {
    let end = writer.next() + bytes;
    while writer.next() < end {
        let len = (end - writer.next()).min(100 * TS_PACKET as u64);
        let piece = noise(0, writer.next(), len as usize);
        assert_eq!(writer.append(*now, &piece), piece.len(), "starved");
        writer.publish(*now);
        *now = *now + step;
    }
}

#[test]
fn slabs_grow_and_shrink_with_the_bitrate() {
    let (arena, mut writer, _window) = alone(8, MINUTE);
    let mut now = Mono::ZERO;
    run(&mut writer, &mut now, Duration::from_millis(300), SMALL);
    assert_eq!(arena.in_use(), SMALL, "a window begins with a small slab");
    run(&mut writer, &mut now, Duration::from_millis(300), SMALL);
    assert_eq!(arena.in_use(), 2 * SMALL, "0.5 Mbit/s stays small");
    run(&mut writer, &mut now, Duration::from_millis(10), 2 * SMALL);
    assert_eq!(arena.in_use(), 3 * SMALL + LARGE, "15 Mbit/s turns to large");
    run(&mut writer, &mut now, Duration::from_millis(300), LARGE - SMALL + 100 * 188);
    assert_eq!(arena.in_use(), 4 * SMALL + LARGE, "and back");
}

#[test]
fn old_bytes_leave_by_age_and_their_marks_with_them() {
    let (arena, mut writer, window) = alone(8, Duration::from_secs(4));
    let mut now = Mono::ZERO;
    run(&mut writer, &mut now, Duration::from_millis(300), SMALL);
    let kind = MarkKind::Discontinuity;
    writer.mark(Mark { at: 0, ingest: now, utc: Utc::default(), kind });
    assert_eq!(window.marks().iter().count(), 1);
    run(&mut writer, &mut now, Duration::from_millis(300), 20 * SMALL);
    let age = now.since(window.ingest_time(window.tail()).unwrap());
    assert!(age > Duration::from_secs(4) && age < Duration::from_secs(6), "{age:?}");
    assert_eq!(window.marks().iter().count(), 0);
    assert_eq!((window.marks().first(), window.mark_count()), (1, 1));
    writer.publish(now + MINUTE);
    assert_eq!(arena.in_use(), 2 * SMALL, "two slabs stay whatever their age");
    assert_eq!(window.ingest_time(window.head()), None);
    assert_eq!(window.ingest_time(window.tail() - 1), None);
}

#[test]
fn nothing_is_visible_before_it_is_published() {
    let (_arena, mut writer, window) = alone(4, MINUTE);
    let mut reader = Reader::new(Arc::clone(&window));
    let bytes = noise(0, 0, 3 * TS_PACKET);
    assert_eq!(writer.append(Mono::ZERO, &bytes[..TS_PACKET + 5]), TS_PACKET);
    assert_eq!((window.head(), writer.next()), (0, 188));
    assert!(joined(&reader.read(0, 1_000).unwrap()).is_empty());
    writer.publish(Mono::from_millis(7));
    let first = reader.read(0, 1_000).unwrap();
    assert_eq!(joined(&first), bytes[..188]);
    writer.append(Mono::ZERO, &bytes[188..]);
    assert_eq!(joined(&reader.read(0, 1_000).unwrap()), bytes[..188]);
    writer.publish(Mono::from_millis(9));
    let all = reader.read(0, 1_000).unwrap();
    assert_eq!((joined(&all), joined(&first)), (bytes.clone(), bytes[..188].to_vec()));
    assert_eq!(window.last_ingest(), Mono::from_millis(9));
    assert_eq!(window.ingest_time(187), Some(Mono::from_millis(7)));
    assert_eq!(window.ingest_time(188), Some(Mono::from_millis(9)));
    assert!(joined(&reader.read(10_000, 5).unwrap()).is_empty(), "beyond the head");
}

#[test]
#[should_panic(expected = "not published")]
fn a_pin_refuses_what_the_writer_may_be_writing() {
    let (_arena, mut writer, window) = alone(4, MINUTE);
    writer.append(Mono::ZERO, &[0x47; 2 * TS_PACKET]);
    writer.publish(Mono::ZERO);
    let [Payload::Slab { slab, .. }, _] = Reader::new(window).read(0, 188).unwrap() else {
        panic!("a payload on a slab");
    };
    assert_eq!(slab.published(188, 188), [0x47; 188]);
    slab.published(189, 188);
}

#[test]
fn one_pin_serves_all_reads_of_a_slab_until_it_is_not_used() {
    let (arena, mut writer, window) = alone(4, MINUTE);
    run(&mut writer, &mut Mono::from_millis(1), Duration::from_secs(1), SMALL / 2);
    let mut reader = Reader::new(window);
    let slab = |reader: &mut Reader, at| match reader.read(at, 188).unwrap() {
        [Payload::Slab { slab, .. }, Payload::Empty] => slab,
        _ => panic!("one part on a slab"),
    };
    let first = slab(&mut reader, 0);
    assert_eq!(std::rc::Rc::strong_count(&first), 2);
    reader.release();
    let again = slab(&mut reader, 1_880);
    assert!(std::ptr::addr_eq(&raw const *first, &raw const *again), "no second pin");
    reader.release();
    reader.release();
    assert_eq!(std::rc::Rc::strong_count(&first), 3, "the newest slab stays pinned");
    run(&mut writer, &mut Mono::from_millis(2_000), Duration::from_secs(1), SMALL);
    let newer = slab(&mut reader, SMALL);
    reader.release();
    assert_eq!(std::rc::Rc::strong_count(&first), 2, "only the two of this test");
    drop((first, again, newer, reader, writer));
    assert_eq!(arena.in_use(), 0);
}

#[test]
fn a_reader_on_the_slab_that_just_left_does_not_starve_the_writer() {
    let (arena, mut writer, window) = alone(2, MINUTE);
    let mut now = Mono::ZERO;
    run(&mut writer, &mut now, Duration::from_millis(1), 40 * SMALL);
    let mut reader = Reader::new(Arc::clone(&window));
    for _ in 0..5 {
        let tail = window.tail();
        let last = reader.read(tail, 188).unwrap();
        run(&mut writer, &mut now, Duration::from_millis(1), SMALL);
        assert!(window.tail() > tail, "it has left");
        assert_eq!(arena.in_use(), writer.held_bytes() + SMALL);
        reader.release();
        assert_eq!(arena.in_use(), writer.held_bytes() + SMALL, "the payload is left");
        drop(last);
        assert_eq!(arena.in_use(), writer.held_bytes());
    }
}

#[test]
fn pins_on_everything_starve_the_writer_but_never_block_it() {
    // Two large slabs: small slabs only, 31 in the window and one to spare.
    let (arena, mut writer, window) = alone(2, MINUTE);
    let mut now = Mono::ZERO;
    run(&mut writer, &mut now, Duration::from_millis(1), 31 * SMALL);
    assert_eq!((window.tail(), arena.in_use()), (0, 31 * SMALL));
    let mut reader = Reader::new(Arc::clone(&window));
    let held: Vec<_> = (0..4).map(|n| reader.read(n * SMALL, 188).unwrap()).collect();
    let piece = noise(0, writer.next(), SLAB_SMALL);
    assert_eq!(writer.append(now, &piece), piece.len(), "the spare slab");
    writer.publish(now);
    assert_eq!(writer.append(now, &piece), 0);
    assert_eq!(arena.in_use(), arena.bytes());
    let tail = window.tail();
    assert_eq!(reader.read(tail - 1, 1).err(), Some(Overtaken));
    assert_eq!(writer.append(now, &piece), 0);
    assert_eq!(window.tail(), tail, "trying again costs the readers nothing");
    reader.release();
    assert_eq!(writer.append(now, &piece), 0, "payloads still hold them");
    drop(held);
    reader.release();
    assert_eq!(writer.append(now, &piece), piece.len());
}

#[test]
fn the_arena_promises_no_more_than_it_has() {
    let arena = Arena::create(9 * LARGE).unwrap();
    let least = settings(QUOTA_LARGE, MINUTE);
    let (first, _) = open(&arena, &least, 0, 1).unwrap();
    let (second, second_window) = open(&arena, &least, 0, 1).unwrap();
    assert_eq!(arena.reserved(), 2 * QUOTA_LARGE);
    assert_eq!(open(&arena, &least, 0, 1).err(), Some(OutOfMemory));
    drop(second);
    assert_eq!(open(&arena, &least, 0, 1).err(), Some(OutOfMemory), "its window is in use");
    drop(second_window);
    assert!(open(&arena, &settings(6 * LARGE, MINUTE), 0, 1).is_err());
    assert!(open(&arena, &settings(u64::MAX, MINUTE), 0, 1).is_err());
    assert!(open(&arena, &settings(5 * LARGE, MINUTE), 0, 1).is_ok());
    drop(first);
    assert_eq!(arena.reserved(), 0);
}

/// Many small windows in one arena: as many as their quotas fit, each of small slabs only.
#[test]
fn an_arena_holds_as_many_windows_as_it_was_divided_for() {
    let bytes = 9 * LARGE + 5;
    let arena = Arena::create(bytes).unwrap();
    for count in [1, 7, 20, 36] {
        let each = settings(bytes / count, MINUTE);
        let open = || open(&arena, &each, 0, 1).expect("a window");
        let mut windows: Vec<_> = (0..count).map(|_| open()).collect();
        assert!(arena.reserved() <= arena.bytes());
        let piece = noise(0, 0, 50 * TS_PACKET);
        for (writer, window) in &mut windows {
            for _ in 0..2 * bytes / count / piece.len() as u64 {
                assert_eq!(writer.append(Mono::ZERO, &piece), piece.len(), "{count} windows");
                writer.publish(Mono::ZERO);
            }
            assert!(window.head() - window.tail() >= SMALL, "{count} windows");
        }
        assert!(arena.in_use() <= arena.bytes());
    }
    assert_eq!(arena.reserved(), 0);
}

#[test]
fn the_mapping_outlives_everything_but_the_last_payload() {
    let (arena, mut writer, window) = alone(2, MINUTE);
    let bytes = noise(0, 0, 10 * TS_PACKET);
    writer.append(Mono::ZERO, &bytes);
    writer.publish(Mono::ZERO);
    let mut reader = Reader::new(Arc::clone(&window));
    let parts = reader.read(0, bytes.len()).unwrap();
    let alive = Arc::downgrade(&arena);
    drop((arena, writer, window, reader));
    assert_eq!(joined(&parts), bytes);
    assert_eq!(alive.upgrade().unwrap().in_use(), SMALL);
    drop(parts);
    assert!(alive.upgrade().is_none(), "nobody unmaps it");
}

#[test]
fn padding_completes_a_subtree_with_null_packets() {
    let (_arena, mut writer, window) = alone(2, MINUTE);
    assert_eq!(writer.pad(Mono::ZERO), 0, "nothing is open");
    writer.append(Mono::ZERO, &[0x47; TS_PACKET]);
    assert_eq!(writer.pad(Mono::ZERO), (SUBTREE - TS_PACKET) as u64);
    assert_eq!(window.head(), SUBTREE as u64);
    let bytes = joined(&Reader::new(window).read(188, SUBTREE).unwrap());
    for packet in bytes.chunks(TS_PACKET) {
        assert_eq!(packet[..4], [0x47, 0x1f, 0xff, 0x10]);
        assert!(packet[4..].iter().all(|b| *b == 0xff));
    }
}

/// A packet that says which one it is, all over.
fn counted(number: u64) -> [u8; TS_PACKET] {
    let mut packet = [0x47; TS_PACKET];
    packet[4..].chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&number.to_le_bytes()));
    packet
}

/// Reads to the end with checks; parks when there is nothing. Returns packets and jumps.
fn follow(window: Arc<Window>, shard: ShardId, done: &AtomicBool) -> (u64, u64) {
    let mut reader = Reader::new(Arc::clone(&window));
    let (mut at, mut packets, mut jumps) = (0, 0, 0);
    loop {
        window.bell(shard).arm();
        let ended = done.load(Ordering::Acquire);
        if at == window.head() {
            if ended {
                return (packets, jumps);
            }
            std::thread::park();
            continue;
        }
        window.bell(shard).disarm();
        match reader.read(at, 60 * 1024 / TS_PACKET * TS_PACKET) {
            Ok(parts) => {
                for packet in parts.iter().flat_map(|p| p.as_slice().chunks(TS_PACKET)) {
                    assert_eq!(packet, counted(at / 188), "shard {shard:?} at {at}");
                    at += 188;
                    packets += 1;
                }
            }
            Err(Overtaken) => {
                let tail = window.tail();
                assert!(tail > at, "overtaken at {at}, but the tail is {tail}");
                (at, jumps) = (tail, jumps + 1);
            }
        }
        reader.release();
    }
}

/// One writer at full speed, two readers: every byte is the right one, nobody sleeps for ever.
#[test]
fn threads_agree_on_every_byte() {
    const PACKETS: u64 = 150_000;
    let arena = Arena::create(0).unwrap();
    let (mut writer, window) = open(&arena, &settings(arena.bytes(), MINUTE), 0, 2).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let readers: Vec<_> = (0..2)
            .map(|n| {
                let (window, tell, done) = (Arc::clone(&window), tell.clone(), &done);
                scope.spawn(move || {
                    tell.send(()).unwrap();
                    follow(window, ShardId(n), done)
                })
            })
            .collect();
        (0..2).for_each(|_| told.recv().unwrap());
        let mut now = Mono::ZERO;
        while writer.next() < PACKETS * 188 {
            let first = writer.next() / 188;
            let burst = first % 37 + 1;
            let bytes: Vec<u8> = (first..first + burst).flat_map(counted).collect();
            if writer.append(now, &bytes) < bytes.len() {
                std::thread::yield_now();
            }
            now = now + Duration::from_micros(100);
            writer.publish(now);
            for (n, reader) in readers.iter().enumerate() {
                if window.bell(ShardId(n as u16)).take() {
                    reader.thread().unpark();
                }
            }
        }
        done.store(true, Ordering::Release);
        readers.iter().for_each(|reader| reader.thread().unpark());
        for reader in readers {
            let (packets, jumps) = reader.join().unwrap();
            assert!(packets > 0 && packets <= PACKETS + 37, "{packets} packets, {jumps} jumps");
        }
    });
}
