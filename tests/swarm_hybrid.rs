//! The swarm at work: peers on lines of their own carry the stream, the relay guarantees it.
//!
//! Without anything set the crowds are small, so that any machine can do it beside other tests,
//! and only what must never happen is refused. With `HEADWATER_WORLD_SECONDS=120`, on a machine
//! that has nothing else to do and with a release build as `RELAY_BINARY`, the crowd is 60 and
//! what is promised is asked for.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};

use std::time::Instant;

use common::homes::Nat;
use common::hybrid::{self, Outcome, Plan, Swarm, keep, number};
use common::netns::World;
use common::peer::{Peer, judge_killed};
use common::{Driver, both_drivers, pass, secs, wait_for};
use rustix::process::Signal;
use tempfile::TempDir;

both_drivers!(
    a_crowd_carries_the_stream,
    peers_that_vanish_leave_no_hole,
    peers_that_hang_are_done_without,
    who_changes_bytes_is_dropped_by_name,
    a_cut_relay_is_not_missed_for_three_seconds,
    a_relay_that_returns_finds_everybody,
    homes_behind_routers_feed_each_other,
    homes_that_cannot_meet_say_so,
);

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
    swarm.watch(seconds);
    let to = swarm.mark();
    let published = swarm.broadcast.bytes.clone();
    let outcome = swarm.end(&published, [from, to]);
    println!("{}", outcome.table());
    keep(&outcome, &format!("crowd-{driver:?}"));
    let least = seconds * common::hybrid::BITRATE / 8 * peers as u64;
    assert!(outcome.played > least / 10 * 9, "{} bytes of {least}", outcome.played);
    assert!(outcome.worst_stall() <= if strict { 0 } else { 3_000 });
}

/// The longest that an honest peer may wait in all while others do what they should not.
fn assert_smooth(outcome: &Outcome, strict: bool) {
    let most = if strict { 500 } else { 3_000 };
    assert!(outcome.worst_stall() <= most, "{} ms", outcome.worst_stall());
}

/// A crowd that plays well, for faults; `None` where there is no world, and in small runs for one
/// of the drivers: the other one has its turn with the next fault.
fn crowd(driver: Driver, turn: Driver, more: &'static [&'static str]) -> Option<(Swarm, bool)> {
    let (peers, _, strict) = scale();
    let peers = if strict { peers } else { 12 };
    if !strict && driver != turn {
        return None;
    }
    let plan = Plan { driver, peers, loss_permille: 20, more, seconds: 60 };
    let swarm = Swarm::start(World::new(1 + peers)?, plan, |setup| setup);
    swarm.wait_playing(secs(20));
    pass(secs(5));
    Some((swarm, strict))
}

/// Lets the rest play on and judges it.
fn conclude(mut swarm: Swarm, seconds: u64, name: &str) -> Outcome {
    let from = swarm.mark();
    swarm.watch(seconds);
    let to = swarm.mark();
    let published = swarm.broadcast.bytes.clone();
    let outcome = swarm.end(&published, [from, to]);
    println!("{name}\n{}", outcome.table());
    keep(&outcome, &format!("{name}-{:?}", swarm.plan.driver));
    outcome
}

fn peers_that_vanish_leave_no_hole(driver: Driver) {
    let _alone = alone();
    let Some((mut swarm, strict)) = crowd(driver, Driver::Uring, &[]) else { return };
    // A third, spread over all kinds of lines.
    let killed = swarm.kill((0..swarm.plan.peers).step_by(3));
    killed.iter().for_each(|dump| judge_killed(&swarm.broadcast.bytes, dump));
    let outcome = conclude(swarm, 12, "vanish");
    assert_smooth(&outcome, strict);
}

fn peers_that_hang_are_done_without(driver: Driver) {
    let _alone = alone();
    let Some((mut swarm, strict)) = crowd(driver, Driver::Epoll, &[]) else { return };
    let hung: Vec<usize> = (1..swarm.plan.peers).step_by(12).collect();
    swarm.some(hung.iter().copied()).for_each(|peer| peer.signal(Signal::STOP));
    pass(secs(12));
    // What they say of themselves is not asked for.
    let dumps = swarm.kill(hung);
    dumps.iter().for_each(|dump| judge_killed(&swarm.broadcast.bytes, dump));
    let outcome = conclude(swarm, 1, "hang");
    assert_smooth(&outcome, strict);
}

fn who_changes_bytes_is_dropped_by_name(driver: Driver) {
    let _alone = alone();
    let Some((swarm, strict)) = crowd(driver, Driver::Uring, &[]) else { return };
    let liars: Vec<usize> = (3..swarm.plan.peers).step_by(12).collect();
    liars.iter().for_each(|number| swarm.host(*number).mangle_udp(200));
    pass(secs(12));
    let mangled: Vec<u64> =
        liars.iter().map(|number| swarm.host(*number).traffic().mangled.packets).collect();
    let addresses: Vec<String> =
        liars.iter().map(|number| format!("{}:", swarm.host(*number).v4())).collect();
    let outcome = conclude(swarm, 1, "change");
    println!("changed datagrams of each: {mangled:?}");
    for (address, mangled) in addresses.iter().zip(mangled) {
        let dropped = outcome
            .viewers
            .iter()
            .flat_map(|viewer| viewer["sharing"]["dropped"].as_array().expect("a list"));
        let named = dropped.filter(|one| one["address"].as_str().unwrap().starts_with(address));
        let named = named.count();
        println!("{address} was dropped by {named}");
        assert!(mangled < 3 || named > 0, "{address}: {mangled} and nobody dropped it");
    }
    assert_smooth(&outcome, strict);
}

fn a_cut_relay_is_not_missed_for_three_seconds(driver: Driver) {
    let _alone = alone();
    let more = &["--target-delay", "3.5", "--max-delay", "5"];
    let Some((swarm, strict)) = crowd(driver, Driver::Epoll, more) else { return };
    let home = swarm.world.host(0);
    home.cut_udp(true);
    pass(secs(3));
    home.cut_udp(false);
    let outcome = conclude(swarm, 10, "cut");
    assert!(outcome.worst_stall() <= if strict { 0 } else { 3_000 });
}

fn a_relay_that_returns_finds_everybody(driver: Driver) {
    let _alone = alone();
    let (peers, _, strict) = scale();
    let peers = if strict { peers } else { 12 };
    if !strict && driver != Driver::Uring {
        return;
    }
    let Some(world) = World::new(1 + peers) else { return };
    let state = TempDir::new().unwrap();
    let plan = Plan { driver, peers, loss_permille: 20, more: &[], seconds: 60 };
    let mut swarm = Swarm::start(world, plan, |setup| setup.state(state.path()));
    swarm.wait_playing(secs(20));
    pass(secs(5));
    swarm.relay.signal(Signal::KILL);
    drop(swarm.publisher());
    // Nobody has anything left to play.
    pass(secs(3));
    let before: Vec<u64> = swarm.some(0..peers).map(Peer::written).collect();
    let home = swarm.world.host(0);
    let setup = hybrid::relay(home, driver).state(state.path());
    let setup = setup.http(&swarm.relay.http.to_string());
    let setup = setup.set("swarm.listen", swarm.relay.ready["swarm"].as_str().unwrap());
    let relay = home.enter(|| setup.start());
    let (returned, again) = (Instant::now(), hybrid::broadcast(5, 40));
    let publisher = hybrid::publish(home, &relay, &again);
    let first = swarm.set_relay(relay, publisher);
    let home = swarm.world.host(0);
    // Those whom the relay feeds: it has no others than these.
    let fed = |swarm: &Swarm| {
        let status = home.enter(|| swarm.relay.status("cam"));
        status.map_or(0, |status| number(&status, "/swarm/peers"))
    };
    let [mut live, mut playing] = [None; 2];
    wait_for("everybody to play again", secs(20), || {
        if live.is_none() && fed(&swarm) == peers as u64 {
            live = Some(returned.elapsed());
        }
        let all = swarm.some(0..peers).zip(&before).all(|(peer, before)| peer.written() > *before);
        if playing.is_none() && all {
            playing = Some(returned.elapsed());
        }
        live.zip(playing)
    });
    let (live, playing) = (live.unwrap(), playing.unwrap());
    println!("after the relay was ready all were live in {live:?} and played on in {playing:?}");
    let from = swarm.mark();
    swarm.watch(8);
    let to = swarm.mark();
    let published = [&swarm.broadcast.bytes[..], &again.bytes[..]].concat();
    let outcome = swarm.end(&published, [from, to]);
    println!("restart\n{}", outcome.table());
    keep(&outcome, &format!("restart-{driver:?}"));
    drop(first);
    for viewer in &outcome.viewers {
        let runs = viewer["runs"].as_array().unwrap();
        let offsets: Vec<u64> = runs.iter().map(|run| number(run, "/offset")).collect();
        assert!(runs.len() > 1 && offsets.is_sorted(), "ids went back: {viewer:#}");
    }
    // What is played is a delay behind.
    assert!(!strict || (live <= secs(2) && playing <= secs(5)), "{live:?}, {playing:?}");
}

/// Two homes behind routers of this kind: what came of it, and the bytes of UDP payload that went
/// straight from one to the other.
fn homes(driver: Driver, nat: Nat) -> Option<(Outcome, u64)> {
    let _alone = alone();
    let mut world = World::new(3)?;
    (1..3).for_each(|index| world.put_behind_router(index, nat));
    let plan = Plan { driver, peers: 2, loss_permille: 0, more: &[], seconds: 80 };
    // Two are too few for a relay to leave it to them by itself.
    let mut swarm = Swarm::start(world, plan, |setup| setup.set("swarm.mode", "hybrid"));
    swarm.wait_playing(secs(20));
    let from = swarm.mark();
    swarm.watch(if scale().2 { 60 } else { 10 });
    let to = swarm.mark();
    let published = swarm.broadcast.bytes.clone();
    let outcome = swarm.end(&published, [from, to]);
    println!("{nat:?}\n{}", outcome.table());
    keep(&outcome, &format!("{nat:?}-{driver:?}"));
    let traffic = [0, 1, 2].map(|index| swarm.world.host(index).traffic());
    let received = traffic[1].received.payload() + traffic[2].received.payload();
    Some((outcome, received - traffic[0].sent.payload()))
}

fn homes_behind_routers_feed_each_other(driver: Driver) {
    let Some((outcome, direct)) = homes(driver, Nat::Keeps) else { return };
    // Each byte must come from the relay once: what can go straight is one of two copies.
    let share = direct as f64 / (outcome.payload as f64 / 2.0);
    println!("{:.1} % of what they could exchange went straight", share * 100.0);
    assert_eq!(outcome.worst_stall(), 0);
}

fn homes_that_cannot_meet_say_so(driver: Driver) {
    let Some((outcome, direct)) = homes(driver, Nat::Scatters) else { return };
    println!("{direct} bytes went straight");
    assert_eq!(outcome.worst_stall(), 0);
}
