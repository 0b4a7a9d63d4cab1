//! Each rule of the simulator is broken by a bug that was planted to break it, and named.
//!
//! `cargo test --release --features planted --test sim_planted`: nothing that ships has them.
#![cfg(feature = "planted")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use headwater::base::planted::{Plant, plant};
use headwater::sim::scenario::Scenario;
use headwater::sim::{Plan, run};
use headwater::swarm::settings::Mode;

/// A bug must be found within this time.
const SOON: Duration = Duration::from_secs(60);

/// A bug is in the whole process: one test at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn every_planted_bug_is_found_and_named() {
    let cases = [
        (Plant::WrongByte, "steady", 12, 8, "played"),
        (Plant::ForwardWrong, "steady", 12, 8, "forwarded"),
        (Plant::Gullible, "corrupt", 24, 12, "played"),
        (Plant::AnswerTwice, "direct", 3, 4, "contract: unproven"),
        (Plant::KeepOpenings, "spoof", 3, 24, "tables"),
        (Plant::NoRescue, "leave", 40, 14, "deadline"),
    ];
    let _alone = ALONE.lock();
    for (bug, scenario, peers, seconds, name) in cases {
        plant(Some(bug));
        let began = Instant::now();
        let failures = failures(scenario, peers, seconds);
        let took = began.elapsed();
        println!("{bug:?}: {took:.1?}: {}", failures.join("; "));
        let named = |failure: &String| {
            let (rule, what) = name.split_once(": ").unwrap_or((name, ""));
            failure.starts_with(rule) && failure.contains(what)
        };
        assert!(failures.iter().any(named), "{bug:?} is not found: {failures:?}");
        assert!(took < SOON, "{bug:?} was found after {took:?}");
        plant(None);
        let without = self::failures(scenario, peers, seconds);
        println!("without: {}", without.join("; "));
        assert!(!without.iter().any(named), "{name} without {bug:?}: {without:?}");
    }
}

/// What a run of `.ci/chaos` has.
const BUDGET: Duration = Duration::from_secs(300);

/// Random worlds, made for nothing in particular, find these within CI's budget. Only in a release
/// build, as CI plays them.
#[test]
fn chaos_finds_bugs_that_no_scenario_was_made_for() {
    if cfg!(debug_assertions) {
        return common::skipped("random worlds with planted bugs", "this is no release build");
    }
    let cases = [
        (Plant::ForgetStripe, ["deadline"].as_slice()),
        (Plant::TrustRepairs, &["played", "forwarded"]),
        (Plant::ForwardFirst, &["forwarded"]),
        (Plant::MissShard, &["egress"]),
    ];
    let seed = std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let _alone = ALONE.lock();
    for (bug, rules) in cases {
        let began = Instant::now();
        let named = |failure: &String| rules.iter().any(|rule| failure.starts_with(rule));
        let mut seeds = (seed..).take_while(|_| began.elapsed() < BUDGET);
        let found = seeds.find_map(|seed| {
            plant(Some(bug));
            let found = chaos(seed).into_iter().find(named);
            plant(None);
            // What the same world has without the bug is not found by it.
            found.filter(|_| !chaos(seed).iter().any(named)).map(|failure| (seed, failure))
        });
        let took = began.elapsed();
        let (at, failure) = found.unwrap_or_else(|| panic!("{bug:?} is not found in {took:.1?}"));
        println!("{bug:?}: {took:.1?}, {} worlds: seed {at}: {failure}", at - seed + 1);
    }
}

fn chaos(seed: u64) -> Vec<String> {
    let scenario = Scenario::named("chaos").unwrap();
    let (gop, time) = (Duration::from_secs(2), Duration::from_secs(20));
    let plan = Plan { seed, peers: 40, bitrate: 2_000_000, gop, time, scenario, remember: true };
    run(plan, None).unwrap().failures()
}

fn failures(scenario: &str, peers: usize, seconds: u64) -> Vec<String> {
    let mut scenario = Scenario::named(scenario).unwrap();
    if scenario.mode != Mode::Direct {
        scenario.mode = Mode::Hybrid;
    }
    // In so small a world a few stalls are no rate; without a rescue there are many.
    scenario.limits.stalls_per_hour = 30.0;
    // Enough of them among few.
    scenario.liars *= 5;
    scenario.churn = 0;
    let plan = Plan {
        seed: 7,
        peers,
        bitrate: 2_000_000,
        gop: Duration::from_secs(2),
        time: Duration::from_secs(seconds),
        scenario,
        remember: true,
    };
    run(plan, None).unwrap().failures()
}
