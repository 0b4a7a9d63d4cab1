//! Five hundred small streams and a large one beside each other: nobody starves.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use common::crowd::Crowd;
use common::judge::{Judge, Reference};
use common::ts::{Broadcast, Shape};
use common::{Driver, PutStream, Setup, Watch, both_drivers, pass, secs, wait_for};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

both_drivers!(small_and_large_streams_all_come_through);

const SMALL: usize = 500;
/// Side by side these tests would take the time from each other.
static ALONE: Mutex<()> = Mutex::new(());
/// What a publisher may take beside its window. Declared is more: one that waits for a seat.
const PUBLISHER: u64 = 200 << 10;
/// What counts: when all are there, up to the end.
const COUNTED: Range<usize> = 75..190;

/// Publishes the same small run under each name, and the large one, frame by frame. Returns how
/// many frames were sent.
fn publish(
    relay: SocketAddr,
    names: &[String],
    small: &Broadcast,
    large: &Broadcast,
) -> (JoinHandle<()>, Arc<AtomicUsize>) {
    let mut each: Vec<_> = names.iter().map(|name| PutStream::begin(relay, name)).collect();
    let mut one = PutStream::begin(relay, "large");
    let (small, large, frames) = (small.clone(), large.clone(), Arc::<AtomicUsize>::default());
    let sent = Arc::clone(&frames);
    let thread = thread::spawn(move || {
        let start = Instant::now();
        for frame in 0..small.frames() {
            pass(Broadcast::due(frame).saturating_sub(start.elapsed()));
            one.push(large.slice(frame, frame + 1));
            each.iter_mut().for_each(|put| put.push(small.slice(frame, frame + 1)));
            sent.store(frame + 1, Relaxed);
        }
    });
    (thread, frames)
}

fn small_and_large_streams_all_come_through(driver: Driver) {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let relay = Setup::new(driver)
        .memory("1280MiB")
        .set("streams.max", SMALL as i64 + 1)
        .set("streams.memory", "auto")
        .start();
    let small = Broadcast::new(1, Shape::new(200_000), 8.0);
    let large = Broadcast::new(2, Shape::new(20_000_000), 8.0);
    let names: Vec<String> = (0..SMALL).map(|n| format!("s{n}")).collect();
    let (publishers, frames) = publish(relay.http, &names, &small, &large);
    let at = |frame| {
        wait_for("the broadcasts", secs(60), || (frames.load(Relaxed) >= frame).then_some(()));
    };
    at(25);
    wait_for("all publishers", secs(20), || {
        (relay.metric("headwater_publishers", &[]) == Some(SMALL as f64 + 1.0)).then_some(())
    });
    let crowd = Crowd::join_each(relay.http, &names);
    let whole = ["large", "s0", "s499"].map(|name| Watch::live(relay.http, name).start());
    at(COUNTED.start);
    let before = crowd.counts();
    at(COUNTED.end);
    let after = crowd.counts();
    let rss = relay.rss();
    let bodies = whole.map(|viewer| viewer.stop().body);
    crowd.leave();
    publishers.join().unwrap();
    // A frame or two may be on the way at each end.
    let due = small.slice(COUNTED.start + 5, COUNTED.end - 5).len() as u64;
    let least = after.iter().zip(before).map(|(after, before)| after - before).min().unwrap();
    println!("{least} bytes at least, {due} were due; {} MiB resident", rss >> 20);
    assert!(least >= due, "somebody got {least} of {due} bytes");
    for (body, run) in bodies.iter().zip([&large, &small, &small]) {
        let reference = Reference::new(&[&run.bytes]);
        let mut judge = Judge::new(&reference);
        judge.feed(body).unwrap();
        let verdict = judge.so_far().unwrap();
        assert!(verdict.jumps.is_empty() && verdict.resumes == 0, "{verdict:?}");
    }
    for name in ["ring_starved_total", "viewer_skips_total", "viewers_overtaken_total"] {
        assert_eq!(relay.metric(&format!("headwater_{name}"), &[]), Some(0.0), "{name}");
    }
    let arena = relay.metric("headwater_ring_bytes", &["state=\"arena\""]).unwrap() as u64;
    assert!(rss <= arena + SMALL as u64 * PUBLISHER, "{rss} bytes are resident, {arena} of rings");
}
