//! The swarm at work: peers on lines of their own carry the stream, the relay guarantees it.
//!
//! Without anything set everything is asked of few peers, and somewhat less than what is promised;
//! with a release build as `RELAY_BINARY` of sixty. With `HEADWATER_WORLD_STRICT=1`, on a machine
//! that has nothing else to do, it is what is promised, on both drivers everywhere
//! ([`common::scale`]).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use common::homes::Nat;
use common::hybrid::{self, Plan, Swarm, uplink};
use common::netns::World;
use common::outcome::{Outcome, number, percent};
use common::peer::Peer;
use common::scale::Scale;
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

/// Fails with everything that is false.
#[track_caller]
fn assert_all(what: &[(bool, String)]) {
    let wrong: Vec<&str> =
        what.iter().filter(|(right, _)| !right).map(|(_, what)| what.as_str()).collect();
    assert!(wrong.is_empty(), "not as promised:\n{}", wrong.join("\n"));
}

fn a_crowd_carries_the_stream(driver: Driver) {
    let (_alone, scale) = (alone(), Scale::new());
    let (peers, seconds) = (scale.peers, scale.seconds);
    let Some(world) = World::new(1 + peers) else { return };
    let plan = Plan { driver, peers, uplink, loss_permille: 20, more: &[], seconds };
    let swarm = Swarm::start(world, plan, |setup| scale.of(setup));
    swarm.wait_since_start(secs(10));
    let outcome = swarm.conclude(None, &[]);
    outcome.tell("crowd");
    let all = seconds * hybrid::BITRATE / 8 * peers as u64;
    let (offload, pushed) = (outcome.then().offload(), outcome.pushed());
    let (arrival, stall) = (outcome.quantile("arrival_counts", 0.5), outcome.worst_stall());
    let shared = scale.is_hybrid();
    // The relay feeds each stripe to three: the fewer peers, the larger their part.
    let spared = 0.8 * (1.0 - 3.3 / peers as f64);
    let (offload_min, arrival_max, stall_max) = scale.bound((0.8, 400, 0), (spared, 600, 500));
    assert_all(&[
        (outcome.played > all / 10 * 9, format!("{} bytes of {all}", outcome.played)),
        (!shared || offload >= offload_min, format!("offload {}", percent(offload))),
        (!shared || pushed >= 0.8, format!("pushed {}", percent(pushed))),
        (arrival <= arrival_max, format!("arrival p50 {arrival} ms")),
        (stall <= stall_max, format!("one stalled for {stall} ms")),
    ]);
}

/// Whether this is left to the other driver, unless what is promised is asked for: each has its
/// turn with every second fault.
fn is_others_turn(driver: Driver, turn: Driver) -> bool {
    !Scale::new().strict && driver != turn
}

/// A crowd that has played well for some seconds, for faults, which is watched for `seconds`
/// after that; `None` where there is no world, and if it is the other driver's turn.
fn crowd(
    driver: Driver,
    turn: Driver,
    (more, seconds): (&'static [&'static str], u64),
) -> Option<(Swarm, Scale)> {
    if is_others_turn(driver, turn) {
        return None;
    }
    let scale = Scale::new();
    let plan = Plan { driver, peers: scale.peers, uplink, loss_permille: 20, more, seconds };
    let swarm = Swarm::start(World::new(1 + scale.peers)?, plan, |setup| scale.of(setup));
    swarm.wait_since_start(secs(15));
    Some((swarm, scale))
}

/// No honest peer waits for more than half a second in all while others do what they should not.
#[track_caller]
fn assert_smooth(outcome: &Outcome, scale: &Scale, honest: impl Fn(usize) -> bool) {
    let (peer, stall) = outcome.worst_stall_of(honest);
    assert!(stall <= scale.bound(500, 2_000), "peer {peer} stalled for {stall} ms");
}

fn peers_that_vanish_leave_no_hole(driver: Driver) {
    let _alone = alone();
    let Some((mut swarm, scale)) = crowd(driver, Driver::Uring, (&[], 12)) else { return };
    // A third, spread over all kinds of lines.
    swarm.kill((0..swarm.plan.peers).step_by(3));
    let outcome = swarm.conclude(None, &[]);
    outcome.tell("vanish");
    assert_smooth(&outcome, &scale, |_| true);
}

fn peers_that_hang_are_done_without(driver: Driver) {
    let _alone = alone();
    let Some((swarm, scale)) = crowd(driver, Driver::Epoll, (&[], 12)) else { return };
    let hung: Vec<usize> = (1..swarm.plan.peers).step_by(12).collect();
    swarm.some(hung.iter().copied()).for_each(|peer| peer.signal(Signal::STOP));
    let outcome = swarm.conclude(None, &hung);
    outcome.tell("hang");
    assert_smooth(&outcome, &scale, |_| true);
}

fn who_changes_bytes_is_dropped_by_name(driver: Driver) {
    let _alone = alone();
    let Some((swarm, scale)) = crowd(driver, Driver::Uring, (&[], 12)) else { return };
    let liars: Vec<usize> = (3..swarm.plan.peers).step_by(12).collect();
    liars.iter().for_each(|number| swarm.host(*number).mangle_udp(200));
    let addresses: Vec<String> =
        liars.iter().map(|number| format!("{}:", swarm.host(*number).v4())).collect();
    let outcome = swarm.conclude(None, &[]);
    outcome.tell("change");
    let mut mangled_all = 0;
    for (number, address) in liars.iter().zip(addresses) {
        let mangled = outcome.mangled(*number);
        let dropped = outcome
            .viewers
            .values()
            .flat_map(|viewer| viewer["sharing"]["dropped"].as_array().expect("a list"));
        let named = dropped.filter(|one| one["address"].as_str().unwrap().starts_with(&address));
        let named = named.count();
        println!("peer {number}, {address} {mangled} changed, dropped by {named}");
        assert!(mangled < 3 || named > 0, "{address} {mangled} and nobody dropped it");
        mangled_all += mangled;
    }
    assert!(!scale.is_hybrid() || mangled_all > 0, "nobody had anything to change");
    assert_smooth(&outcome, &scale, |number| !liars.contains(&number));
}

fn a_cut_relay_is_not_missed_for_three_seconds(driver: Driver) {
    let _alone = alone();
    let more = &["--target-delay", "3.5", "--max-delay", "5"];
    let Some((swarm, scale)) = crowd(driver, Driver::Epoll, (more, 10)) else { return };
    let home = swarm.world.host(0);
    home.cut_udp(true);
    pass(secs(3));
    home.cut_udp(false);
    let outcome = swarm.conclude(None, &[]);
    outcome.tell("cut");
    let stall = outcome.worst_stall();
    assert!(stall <= scale.bound(0, 500), "one stalled for {stall} ms");
}

fn a_relay_that_returns_finds_everybody(driver: Driver) {
    let (_alone, state) = (alone(), TempDir::new().unwrap());
    if is_others_turn(driver, Driver::Uring) {
        return;
    }
    let scale = Scale::new();
    let peers = scale.peers;
    let Some(world) = World::new(1 + peers) else { return };
    let plan = Plan { driver, peers, uplink, loss_permille: 20, more: &[], seconds: 8 };
    let mut swarm = Swarm::start(world, plan, |setup| scale.of(setup).state(state.path()));
    swarm.wait_since_start(secs(12));
    swarm.relay.signal(Signal::KILL);
    drop(swarm.publisher());
    // Nobody has anything left to play.
    pass(secs(3));
    let before: Vec<u64> = swarm.some(0..peers).map(Peer::written).collect();
    let home = swarm.world.host(0);
    let setup = scale.of(hybrid::relay(home, driver)).state(state.path());
    let setup = setup.http(&swarm.relay.http.to_string());
    let setup = setup.set("swarm.listen", swarm.relay.ready["swarm"].as_str().unwrap());
    let relay = home.enter(|| setup.start());
    let (returned, again) = (Instant::now(), hybrid::broadcast(5, 40));
    let publisher = hybrid::publish(home, &relay, &again);
    let first = swarm.set_relay(relay, publisher);
    let [mut live, mut playing] = [None; 2];
    wait_for("everybody to play again", secs(20), || {
        // Those whom the relay serves: it knows no others than these.
        if live.is_none() && number(&swarm.status(), "/peers") == peers as u64 {
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
    let published = [&swarm.broadcast.bytes[..], &again.bytes[..]].concat();
    let outcome = swarm.conclude(Some(&published), &[]);
    outcome.tell("restart");
    drop(first);
    for viewer in outcome.viewers.values() {
        let runs = viewer["runs"].as_array().unwrap();
        let offsets: Vec<u64> = runs.iter().map(|run| number(run, "/offset")).collect();
        assert!(runs.len() > 1 && offsets.is_sorted(), "ids went back: {viewer:#}");
    }
    // What is played is a delay behind.
    let (live_max, playing_max) = scale.bound((secs(2), secs(4)), (secs(4), secs(8)));
    assert!(live <= live_max && playing <= playing_max, "{live:?}, {playing:?}");
}

/// Two homes behind routers of this kind, with lines that carry the stream twice.
fn homes(driver: Driver, nat: Nat) -> Option<(Outcome, Scale)> {
    let (_alone, scale) = (alone(), Scale::new());
    let mut world = World::new(3)?;
    (1..3).for_each(|index| world.put_behind_router(index, nat));
    let (uplink, seconds) = (|_| 2 * hybrid::BITRATE, if scale.strict { 60 } else { 8 });
    let plan = Plan { driver, peers: 2, uplink, loss_permille: 0, more: &[], seconds };
    // Two are too few for a relay to leave it to them by itself.
    let swarm = Swarm::start(world, plan, |setup| scale.of(setup));
    swarm.wait_since_start(secs(8));
    let outcome = swarm.conclude(None, &[]);
    outcome.tell(&format!("{nat:?}"));
    Some((outcome, scale))
}

/// Of a stream for two, one copy must come from the relay; what can go straight is the other.
fn homes_behind_routers_feed_each_other(driver: Driver) {
    let Some((outcome, scale)) = homes(driver, Nat::Keeps) else { return };
    let (then, whole) = (outcome.then(), outcome.whole());
    let copy = then.played() as f64 / 2.0;
    // What the relay did not send, by its port of the switch; and what came to one home from the
    // other, by theirs, with headers and hashes.
    let spared = (then.played() as f64 - then.relay_sent() as f64) / copy;
    let straight = then.straight() as f64 / copy;
    let brought = outcome.sum("/sharing/peer_bytes");
    println!(
        "of the second copy the relay did not send {}, and {} went straight ({} of the second \
         copy of everything, as the two say)",
        percent(spared),
        percent(straight),
        percent(brought as f64 / (outcome.payload as f64 / 2.0)),
    );
    assert!(whole.straight() >= brought, "{} bytes, not {brought}", whole.straight());
    assert!(!scale.is_hybrid() || spared.min(straight) >= 0.8, "{spared}, {straight}");
    assert_eq!(outcome.worst_stall(), 0);
}

fn homes_that_cannot_meet_say_so(driver: Driver) {
    if is_others_turn(driver, Driver::Epoll) {
        return;
    }
    let Some((outcome, scale)) = homes(driver, Nat::Scatters) else { return };
    assert_eq!(outcome.worst_stall(), 0);
    assert_eq!(outcome.sum("/sharing/peer_bytes"), 0, "{:#?}", outcome.viewers);
    for (viewer, log) in outcome.viewers.values().zip(&outcome.logs) {
        let unreachable = number(viewer, "/sharing/unreachable");
        let told =
            log.contains("WARN headwater::node::peer::sharing: no direct path to any viewer");
        assert!(!scale.is_hybrid() || (unreachable > 0 && told), "{viewer:#}\n{log}");
    }
}
