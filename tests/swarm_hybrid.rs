//! The swarm at work: peers on lines of their own carry the stream, the relay guarantees it.
//!
//! Without anything set the crowds are small, so that any machine can do it beside other tests,
//! and only what must never happen is refused. With `HEADWATER_WORLD_SECONDS=120`, on a machine
//! that has nothing else to do and with a release build as `RELAY_BINARY`, the crowd is 60 and
//! what is promised is asked for.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};

use common::hybrid::{Plan, Swarm, keep};
use common::netns::World;
use common::{Driver, both_drivers, pass, secs};

both_drivers!(a_crowd_carries_the_stream);

/// One world at a time: each keeps the whole machine busy, and a machine without time to spare
/// makes stalls of its own.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many peers for how long, and whether what is promised is asked for.
fn scale() -> (usize, u64, bool) {
    let given = std::env::var("HEADWATER_WORLD_SECONDS").ok();
    let peers = std::env::var("HEADWATER_WORLD_PEERS").ok();
    let number = |text: String| text.parse().expect("a number");
    match given.map(|text| text.parse().expect("seconds")) {
        Some(seconds) => (peers.map_or(60, number), seconds, true),
        None => (16, 20, false),
    }
}

fn a_crowd_carries_the_stream(driver: Driver) {
    let _alone = alone();
    let (peers, seconds, strict) = scale();
    let Some(world) = World::new(1 + peers) else { return };
    let plan = Plan { driver, peers, loss_permille: 20, more: &[], seconds };
    let mut swarm = Swarm::start(world, plan, |setup| setup);
    swarm.wait_playing(secs(20));
    let from = swarm.mark();
    pass(secs(seconds));
    let to = swarm.mark();
    let published = swarm.broadcast.bytes.clone();
    let outcome = swarm.end(&published, [from, to]);
    println!("{}", outcome.table());
    keep(&outcome, &format!("crowd-{driver:?}"));
    let least = seconds * common::hybrid::BITRATE / 8 * peers as u64;
    assert!(outcome.payload > least / 10 * 9, "{} bytes of {least}", outcome.payload);
    assert!(outcome.worst_stall() <= if strict { 0 } else { 3_000 });
}
