//! One viewer cannot keep up: it jumps, cleanly; nobody else notices, and memory stays.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::client::{End, Seen};
use common::judge::{Judge, Reference};
use common::ts::{Broadcast, NULL_PID, PACKET, Shape, pid};
use common::{Driver, Publisher, PutStream, Setup, Watch, both_drivers, millis, secs, wait_for};

both_drivers!(
    a_slow_viewer_jumps_and_the_others_lose_nothing,
    a_hopeless_viewer_is_closed,
    a_dead_reader_is_closed,
);

/// These tests move much data; side by side they would slow each other's fast viewers.
static ALONE: Mutex<()> = Mutex::new(());

const FAST: usize = 50;
const RATE: u64 = 8_000_000;
/// Frames in one second.
const SECOND: usize = 25;
/// What resident memory may move by while nothing grows.
const RSS_NOISE: u64 = 8 << 20;

fn a_slow_viewer_jumps_and_the_others_lose_nothing(driver: Driver) {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let stream = Broadcast::new(50, Shape::new(RATE), 20.0);
    let reference = Reference::new(&[&stream.bytes]);
    let relay = Setup::new(driver)
        .set("viewers.max_lag", "1s")
        .set("viewers.max_jumps_per_minute", 1000)
        .set("streams.memory", "16MiB")
        .set("streams.max", 4)
        .set("streams.linger", "1s")
        .start();
    let publisher = Publisher::start(relay.http, "mixed", &stream);
    relay.wait_live("mixed");
    let fast: Vec<_> =
        (0..FAST).map(|_| Watch::live(relay.http, "mixed").judged(&reference).start()).collect();
    let at = |frame| {
        wait_for("the broadcast", secs(30), || (publisher.frames() >= frame).then_some(()));
    };
    at(6 * SECOND);
    let mut slow = Watch::live(relay.http, "mixed");
    slow.receive_buffer = Some(16 * 1024);
    slow.rate = Some(RATE / 8 / 10);
    let (slow, joined) = (slow.start(), publisher.frames());
    at(12 * SECOND);
    let middle = relay.rss();
    at(19 * SECOND);
    let end = relay.rss();
    let skips = relay.metric("headwater_viewer_skips_total", &["face=\"http\""]).unwrap();
    let seen = slow.stop();
    at(stream.frames());
    let sent = publisher.sent();
    assert!(matches!(publisher.finish().status, 200 | 201));
    let delays: Vec<_> = fast
        .into_iter()
        .enumerate()
        .map(|(n, viewer)| delays(&stream, &sent, &untouched(n, viewer.end(), &reference)))
        .collect();
    let (alone, beside) = (p99(&delays, 2 * SECOND..joined), p99(&delays, joined..sent.len()));
    println!("p99 of the fast viewers: {alone:?} without a slow one, {beside:?} with it");
    assert!(beside < alone * 2 + millis(20), "{alone:?} became {beside:?} beside a slow viewer");
    let mut judge = Judge::new(&reference);
    judge.feed(&seen.body).unwrap();
    let verdict = judge.so_far().unwrap();
    assert_eq!(seen.end, End::Stopped, "a slow viewer is kept");
    assert!(verdict.jumps.len() >= 2, "{verdict:?}");
    for (from, to) in &verdict.jumps {
        assert!((to - from) * PACKET > RATE as usize / 8 / 4, "jumps are not for nothing");
    }
    assert!(skips >= verdict.jumps.len() as f64 && skips >= 2.0, "{skips} {verdict:?}");
    let grown = end.abs_diff(middle);
    assert!(grown < RSS_NOISE, "resident memory moved by {grown}: {middle} to {end}");
}

/// That this viewer got everything; and what it got, with the place in the stream where it began.
fn untouched(n: usize, seen: Seen, reference: &Reference) -> (Seen, usize) {
    assert_eq!((seen.head.status, seen.end), (200, End::Closed), "fast viewer {n}");
    let verdict = seen.verdict.clone().unwrap().unwrap_or_else(|e| panic!("fast viewer {n}: {e}"));
    assert!(verdict.jumps.is_empty(), "fast viewer {n} lost something: {verdict:?}");
    assert_eq!(verdict.end, reference.packets(), "fast viewer {n} misses the end");
    (seen, verdict.start)
}

/// How long each frame took from the publisher to this viewer, if it got it.
fn delays(
    stream: &Broadcast,
    sent: &[Instant],
    (seen, start): &(Seen, usize),
) -> Vec<Option<Duration>> {
    let packets = stream.bytes.chunks_exact(PACKET).enumerate();
    let mut whole = packets.filter(|(_, packet)| pid(packet) != NULL_PID);
    let begin = whole.nth(*start).expect("where it began").0 * PACKET;
    let mut reads = seen.reads.iter().peekable();
    let frames = stream.ends.iter().zip(sent);
    let delay = |(end, sent): (&usize, &Instant)| {
        // The body opens with a PAT and a PMT.
        let bytes = 2 * PACKET + end.checked_sub(begin).filter(|more| *more > 0)?;
        while reads.next_if(|(_, got)| *got < bytes).is_some() {}
        reads.peek().map(|(when, _)| when.saturating_duration_since(*sent))
    };
    frames.map(delay).collect()
}

/// The 99th percentile over these frames and all viewers.
fn p99(delays: &[Vec<Option<Duration>>], frames: Range<usize>) -> Duration {
    let mut all: Vec<_> =
        delays.iter().flat_map(|of| of[frames.clone()].iter().flatten()).collect();
    all.sort_unstable();
    assert!(all.len() > FAST * SECOND, "delays of {} frames", all.len());
    *all[all.len() * 99 / 100]
}

fn a_hopeless_viewer_is_closed(driver: Driver) {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let stream = Broadcast::new(51, Shape::new(RATE), 25.0);
    let reference = Reference::new(&[&stream.bytes]);
    let relay = Setup::new(driver)
        .set("viewers.max_lag", "500ms")
        .set("viewers.max_jumps_per_minute", 1)
        .start();
    let publisher = Publisher::start(relay.http, "steep", &stream);
    relay.wait_live("steep");
    let mut slow = Watch::live(relay.http, "steep");
    slow.receive_buffer = Some(16 * 1024);
    slow.rate = Some(RATE / 8 / 10);
    let slow = slow.start();
    wait_for("the slow viewer closed", secs(20), || slow.has_ended().then_some(()));
    let seen = slow.end();
    assert_ne!(seen.end, End::Stopped);
    let verdict = Judge::on(&reference, &seen.body[..seen.body.len() / PACKET * PACKET]);
    assert!(verdict.unwrap().jumps.len() <= 2);
    let closed = relay.metric("headwater_sessions_closed_total", &["reason=\"slow\""]);
    assert_eq!(closed, Some(1.0));
    drop(publisher.silence());
}

fn a_dead_reader_is_closed(driver: Driver) {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let relay = Setup::new(driver)
        .set("viewers.stall_timeout", "2s")
        .set("viewers.max_jumps_per_minute", 1000)
        .start();
    let stream = Broadcast::new(52, Shape::new(2_000_000), 30.0);
    let publisher = Publisher::drive(PutStream::begin(relay.http, "deaf"), &stream);
    relay.wait_live("deaf");
    let mut watch = Watch::live(relay.http, "deaf");
    watch.receive_buffer = Some(4096);
    let (_, connection) = watch.ask();
    wait_for("one viewer", secs(5), || {
        (relay.metric("headwater_viewers", &["http"]) == Some(1.0)).then_some(())
    });
    wait_for("the dead reader closed", secs(15), || {
        (relay.metric("headwater_viewers", &["http"]) == Some(0.0)).then_some(())
    });
    let closed = relay.metric("headwater_sessions_closed_total", &["reason=\"stalled\""]);
    assert_eq!(closed, Some(1.0));
    // A reader that pauses for less than that is not dead.
    let mut watch = Watch::live(relay.http, "deaf");
    watch.receive_buffer = Some(4096);
    let (_, mut pausing) = watch.ask();
    assert_eq!(pausing.response_head(secs(5)).status, 200);
    common::pass(millis(1000));
    let before = pausing.pending().len();
    wait_for("bytes after a pause", secs(5), || {
        assert!(pausing.fill(secs(2)).unwrap(), "closed after a short pause");
        (pausing.pending().len() > before + 100 * PACKET).then_some(())
    });
    drop((connection, pausing));
    drop(publisher.silence());
}
