//! A seed is the same world in every build and every process: nothing depends on how the code was
//! compiled, where memory lies or what the machine's own dice say.
//!
//! This test's build plays the world in its process, and a program plays it in another: cargo's,
//! or the one that `RELAY_BINARY` names. `.ci/run` names a release build.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::process::Command;
use std::time::Duration;

use headwater::sim::scenario::Scenario;
use headwater::sim::{Plan, run};
use headwater::swarm::settings::Mode;

#[test]
fn a_seed_is_a_world_in_every_build() {
    let mut scenario = Scenario::named("lossy").unwrap();
    scenario.mode = Mode::Hybrid;
    let plan = Plan {
        seed: 11,
        peers: 16,
        bitrate: 2_000_000,
        gop: Duration::from_secs(2),
        time: Duration::from_secs(6),
        scenario,
        remember: true,
    };
    let here = run(plan, None).unwrap().to_string();
    assert!(here.contains("\ndigest  "), "{here}");
    let binary = common::binary();
    let args = "sim --seed 11 --peers 16 --seconds 6 --scenario lossy --mode hybrid";
    // Whether it is a good world is not asked here.
    let output = Command::new(&binary).args(args.split(' ')).output().unwrap();
    let there = String::from_utf8(output.stdout).unwrap();
    // Behind it stands only how long that took.
    assert!(there.starts_with(&here), "here:\n{here}\n{}:\n{there}", binary.display());
}
