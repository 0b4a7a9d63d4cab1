//! Worlds that were bad once are good now: `tests/seeds/chaos.txt`.
//!
//! `RELAY_BINARY` names another build to play them in: `.ci/run` names a release build.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::process::Command;

/// More worlds than this take too long: the oldest have been good for longest, and may go.
const WORLDS_MAX: usize = 40;

#[test]
fn worlds_that_were_bad_are_good_now() {
    let text = include_str!("seeds/chaos.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let worlds: Vec<_> = lines.map(|line| line.split_once("  # ").unwrap()).collect();
    assert!((1..=WORLDS_MAX).contains(&worlds.len()), "{}", worlds.len());
    let binary = common::binary();
    let mut bad = Vec::new();
    for (args, why) in worlds {
        let output = Command::new(&binary).arg("sim").args(args.split(' ')).output().unwrap();
        println!("{args}: {}", output.status);
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            bad.push(format!("headwater sim {args} ({why})\n{said}"));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
