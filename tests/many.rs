//! Five hundred small streams and a large one beside each other: nobody starves.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use common::crowd::Crowd;
use common::judge::{Judge, Reference};
use common::ts::{Broadcast, Shape};
use common::{Driver, PutStream, Relay, Setup, Watch, both_drivers, pass, secs, wait_for};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

both_drivers!(small_and_large_streams_all_come_through);

const SMALL: usize = 500;
/// Side by side these tests would take the time from each other.
static ALONE: Mutex<()> = Mutex::new(());
/// What a publisher may take beside its window and its records, in KiB. Declared is more: one
/// that waits for a seat.
const PUBLISHER_KIB: u64 = 200;
/// The frame from which on it counts: all are there.
const COUNTED: usize = 75;

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
    at(COUNTED);
    let before = crowd.counts();
    at(small.frames());
    let rss = relay.rss();
    // Of what was sent since then, all comes through; a second of it was perhaps there already.
    let due = small.slice(COUNTED + 25, small.frames()).len() as u64;
    let least = wait_for("bytes for everybody", secs(10), || {
        let got = crowd.counts().into_iter().zip(&before).map(|(after, before)| after - before);
        got.min().filter(|least| *least >= due)
    });
    println!("{least} bytes at least, {due} were due; {} MiB resident", rss >> 20);
    let bodies = whole.map(|viewer| viewer.stop().body);
    crowd.leave();
    publishers.join().unwrap();
    for (n, (body, run)) in bodies.iter().zip([&large, &small, &small]).enumerate() {
        let reference = Reference::new(&[&run.bytes]);
        let mut judge = Judge::new(&reference);
        judge.feed(body).unwrap();
        let verdict = judge.so_far().unwrap();
        println!("{verdict:?}");
        // A second is all that the large one has in memory: on a busy machine it may jump.
        assert!(n == 0 || verdict.jumps.is_empty(), "{verdict:?}");
    }
    assert_eq!(relay.metric("headwater_ring_starved_total", &[]), Some(0.0));
    let declared = declared(&relay, "arena_mib") + declared(&relay, "records_mib");
    let rss = rss >> 20;
    assert!(rss <= declared + SMALL as u64 * PUBLISHER_KIB / 1024, "{rss} MiB of {declared}");
}

/// A figure of what the relay said at its start about its memory.
fn declared(relay: &Relay, name: &str) -> u64 {
    let log = relay.log();
    let figure = log.split_whitespace().find_map(|word| word.strip_prefix(&format!("{name}=")));
    figure.unwrap_or_else(|| panic!("no {name}: {log}")).parse().unwrap()
}
