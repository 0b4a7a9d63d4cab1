//! `headwater sim --report`: what it writes, that it goes on where it was, and what it refuses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// A small report into a directory, with other arguments behind.
fn report(dir: &Path, more: &[&str]) -> Output {
    let args = ["sim", "--audiences", "4,2", "--seconds", "3", "--report"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.args(args).arg(dir).args(more).output().unwrap()
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_report_is_written_world_by_world_and_goes_on_where_it_was() {
    let there = tempfile::tempdir().unwrap();
    let dir = there.path().join("new/report");
    let output = report(&dir, &["--policies", "swarm,relay"]);
    let (out, err) = said(&output);
    assert!(output.status.success(), "{out}{err}");
    // A line for each world, with the command that plays it.
    assert!(out.contains("[1/4] swarm, seed 42, 2 viewers: offload"), "{out}");
    assert!(out.contains("[4/4] relay, seed 42, 4 viewers: offload"), "{out}");
    assert!(out.contains("\n  headwater sim --seed 42 --peers 4 --bitrate 2000000"), "{out}");
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let lines = read("report.csv");
    assert_eq!(lines.lines().count(), 1 + 4, "{lines}");
    let tables = read("report.md");
    assert!(tables.contains("## Offload\n\n| viewers | swarm, % | relay, % |"), "{tables}");
    let drawn = tables.lines().filter_map(|line| line.strip_prefix("![")?.split_once(']'));
    let drawn: Vec<&str> = drawn.map(|(name, _)| name).collect();
    assert_eq!(drawn.len(), 8, "{drawn:?}");
    for name in drawn {
        let svg = read(name);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{name}");
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 2 + 8, "nothing else is left");

    // Killed while the last line was written, and begun again with one policy more.
    let cut = lines.trim_end().rsplit_once(',').unwrap().0;
    fs::write(dir.join("report.csv"), cut).unwrap();
    let output = report(&dir, &["--policies", "swarm,relay,random"]);
    let (out, err) = said(&output);
    assert!(output.status.success(), "{out}{err}");
    assert!(out.starts_with("3 worlds were played before, 1 lines are broken\n"), "{out}");
    let played: Vec<&str> = out.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(played.len(), 3, "{out}");
    // A world is the same again.
    let again = read("report.csv");
    assert!(lines.lines().all(|line| again.lines().any(|other| other == line)), "{again}");
}

#[test]
fn a_directory_that_is_of_no_use_is_named() {
    let there = tempfile::tempdir().unwrap();
    let file = there.path().join("file");
    fs::write(&file, "").unwrap();
    let output = report(&file.join("report"), &[]);
    let (out, err) = said(&output);
    assert!(!output.status.success() && out.is_empty(), "{out}");
    assert!(err.starts_with("error: cannot make ") && err.contains("file/report"), "{err}");

    // There, but nothing can be written: a directory has the name of a file.
    let dir = there.path().join("full");
    fs::create_dir_all(dir.join("report.csv.new")).unwrap();
    let (out, err) = said(&report(&dir, &[]));
    assert!(out.is_empty() && err.starts_with("error: cannot write "), "{out}{err}");

    let dir = there.path().join("other");
    fs::create_dir_all(&dir).unwrap();
    assert!(report(&dir, &["--policies", "relay"]).status.success());
    let (_, err) = said(&report(&dir, &["--policies", "relay", "--gop", "1"]));
    assert!(err.contains("is of other worlds: give another directory"), "{err}");
    fs::write(dir.join("report.csv"), "something,else\n").unwrap();
    let (_, err) = said(&report(&dir, &["--policies", "relay"]));
    assert!(err.contains("is of another version: give another directory"), "{err}");
}

#[test]
fn many_seeds_end_with_what_they_came_to_together() {
    let sim = |args: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        said(&command.arg("sim").args(args.split(' ')).output().unwrap()).0
    };
    let out = sim("--seeds 2 --peers 3 --seconds 3");
    assert_eq!(out.matches("\nverdict ").count(), 2, "{out}");
    assert!(out.contains("\nsteady, 3 viewers, 2.000 Mbit/s, 3 s, seeds 42 to 43"), "{out}");
    assert!(out.ends_with("bad     0 of 2\n"), "{out}");
    let rows = sim("--must list");
    assert!(rows.contains("headwater sim --must offload-1000 ") && rows.lines().count() > 9);
    let out = sim("--must startup --seeds 2 --peers 3 --seconds 3");
    assert!(out.contains("must at most 2000: 2 of 2; aim at most 1000: "), "{out}");
    assert!(out.ends_with("\nreached\n"), "{out}");
}

#[test]
fn a_time_is_filled_with_seeds_and_each_of_them_is_said() {
    let args = ["sim", "--budget", "1", "--seed", "7", "--peers", "2", "--seconds", "3"];
    let output = Command::new(env!("CARGO_BIN_EXE_headwater")).args(args).output().unwrap();
    let (out, err) = said(&output);
    assert!(output.status.success(), "{out}{err}");
    let lines =
        out.lines().filter_map(|line| line.strip_prefix("seed ")?.split_once(", 2 viewers"));
    let seeds: Vec<u64> = lines.map(|(seed, _)| seed.parse().unwrap()).collect();
    let last = 6 + seeds.len() as u64;
    assert!(seeds.iter().copied().eq(7..=last) && last >= 7, "one after the other: {seeds:?}");
    assert!(out.contains(&format!("\n  headwater sim --seed {last} --peers 2 ")), "{out}");
    assert!(out.ends_with(&format!("bad     0 of {}\n", seeds.len())), "{out}");
}
