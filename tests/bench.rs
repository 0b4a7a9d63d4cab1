//! `headwater bench` measures what there is: short runs whose figures must be sane. How good
//! they are is never tested here: this machine has other work to do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::process::Command;
use std::time::Duration;

use common::{Driver, both_drivers};
use serde_json::Value;

both_drivers!(
    viewers_are_accounted,
    a_storm_is_served,
    a_raw_send_loop_is_measured,
    hls_players_are_served_beside_nginx,
    a_step_is_traced,
    nobody_starves_between_streams,
    peers_are_served_beside_raw_trains
);

/// Runs `headwater bench` with a time limit: its report and its table.
fn bench(words: &[&str]) -> (Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let child = Command::new("timeout")
        .args(["--kill-after=5", "120"])
        .arg(common::binary())
        .arg("bench")
        .args(words)
        .arg("--json")
        .arg(&json)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {said}");
    let text = std::fs::read(&json).unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    (serde_json::from_slice(&text).unwrap(), table)
}

/// The median of a row, which the table must show as well.
fn median(report: &(Value, String), name: &str) -> f64 {
    let (json, table) = report;
    assert!(table.lines().any(|line| line.starts_with(name)), "{name} is not in:\n{table}");
    let rows = json["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == name);
    row.unwrap_or_else(|| panic!("no {name} in {json}"))["median"].as_f64().unwrap()
}

fn viewers_are_accounted(driver: Driver) {
    let folder = tempfile::tempdir().unwrap();
    let hdr = folder.path().join("delays.hgrm");
    let words = ["http", "--viewers", "20", "--bitrate", "1M", "--seconds", "2", "--warm-up", "1"];
    let more = ["--pairs", "1", "--probes", "2", "--io-driver", driver.name()];
    let rest = ["--set", "viewers.max_lag=4s", "--hdr", hdr.to_str().unwrap()];
    let report = bench(&[&words[..], &more, &rest].concat());
    let value = |name| median(&report, name);
    assert!(report.1.contains(&format!("io_driver {}", driver.name())), "{}", report.1);
    // The viewers got the stream, and the relay counted what they got.
    let received = value("received per viewer");
    assert!((0.8..1.3).contains(&received), "{}", report.1);
    assert!((188.0..=65_536.0).contains(&value("bytes per send")), "{}", report.1);
    assert!(value("system calls per viewer-second") > 0.0, "{}", report.1);
    // A tick of processor time is 10 ms: a very idle relay may have used less in two seconds.
    assert!(value("relay") >= 0.0 && value("raw send loop, same bytes/send") > 0.0);
    let delays = ["delay p50", "delay p99", "delay p99.9"].map(value);
    assert!(0.0 < delays[0] && delays.is_sorted(), "{}", report.1);
    // One marker every 6 ms and probe: about 650. Half of them must do on a busy machine.
    assert!(value("markers seen by the probes") > 300.0, "{}", report.1);
    assert!(report.0["notes"].to_string().contains("a trial"), "{}", report.0);
    let text = std::fs::read_to_string(&hdr).unwrap();
    assert!(text.contains("#[Max") && text.lines().count() > 10, "{text}");
}

fn a_storm_is_served(driver: Driver) {
    let words = ["storm", "--connections", "50", "--seconds", "0.1", "--bitrate", "200k"];
    let report = bench(&[&words[..], &["--pairs", "1", "--io-driver", driver.name()]].concat());
    assert_eq!(median(&report, "viewers served"), 50.0, "{}", report.1);
    assert_eq!(median(&report, "viewers that failed"), 0.0, "{}", report.1);
    let times = ["p50", "p99"].map(|name| median(&report, &format!("time to first byte {name}")));
    assert!(0.0 < times[0] && times.is_sorted(), "{}", report.1);
}

fn a_raw_send_loop_is_measured(driver: Driver) {
    let words = ["ceiling", "--sizes", "1316,61440", "--connections", "10", "--seconds", "0.3"];
    let report = bench(&[&words[..], &["--pairs", "1", "--io-driver", driver.name()]].concat());
    for size in ["1316", "61440"] {
        let cost = median(&report, &format!("{size} B per send, {}", driver.name()));
        assert!(cost.is_finite() && cost > 0.0, "{}", report.1);
    }
}

/// The sum of a row's values over both servers, where there are two.
fn of_both(report: &(Value, String), name: &str) -> [f64; 2] {
    ["relay", "nginx"].map(|server| median(report, &format!("{server}: {name}")))
}

fn hls_players_are_served_beside_nginx(driver: Driver) {
    let words = ["hls", "--viewers", "10", "--bitrate", "500k", "--seconds", "3", "--warm-up", "0"];
    let more = ["--pairs", "1", "--io-driver", driver.name(), "--set", "hls.segment=1s"];
    let report = bench(&[&words[..], &more].concat());
    let received = median(&report, "relay: received per viewer");
    assert!((0.25..0.8).contains(&received), "{}", report.1);
    assert!(median(&report, "relay: segments") >= 10.0, "{}", report.1);
    assert_eq!(median(&report, "relay: errors"), 0.0, "{}", report.1);
    assert!(median(&report, "relay: bytes per write") > 1_000.0, "{}", report.1);
    if report.1.contains("no nginx") {
        return common::skipped("nginx", "it is not installed");
    }
    // The same bytes at the same pace: the same segments, give or take one a player.
    let [relay, nginx] = of_both(&report, "segments");
    assert!((relay - nginx).abs() <= 15.0, "{}", report.1);
    assert_eq!(median(&report, "nginx: errors"), 0.0, "{}", report.1);
    assert!(median(&report, "nginx: bytes per write") > 1_000.0, "{}", report.1);
}

#[test]
fn without_nginx_only_the_relay_is_measured() {
    let words = ["hls", "--viewers", "2", "--bitrate", "100k", "--seconds", "1", "--warm-up", "0"];
    let more = ["--pairs", "1", "--set", "hls.segment=1s", "--nginx", "none"];
    let report = bench(&[&words[..], &more].concat());
    assert!(report.1.contains("only the relay was measured"), "{}", report.1);
    assert!(!report.1.contains("nginx: "), "{}", report.1);
}

fn a_step_is_traced(driver: Driver) {
    let words = ["step", "--viewers", "5", "--to", "25", "--seconds", "1", "--watch", "5"];
    let report =
        bench(&[&words[..], &["--bitrate", "200k", "--io-driver", driver.name()]].concat());
    assert_eq!(median(&report, "viewers at the end"), 25.0, "{}", report.1);
    let interval = median(&report, "flush interval, settled");
    assert!((1.0..=200.0).contains(&interval), "{}", report.1);
    let lines = report.0["trace"]["lines"].as_array().unwrap();
    // Four a second for eight seconds; a busy machine may leave some out.
    assert!((10..=40).contains(&lines.len()), "{}", report.1);
    assert_eq!(lines[0][1], 5.0, "{}", report.1);
    assert!(report.1.contains("oscillate"), "{}", report.1);
}

fn nobody_starves_between_streams(driver: Driver) {
    let words = ["streams", "--streams", "20", "--bitrate", "100k", "--large", "2M"];
    let more = ["--seconds", "4", "--warm-up", "2", "--io-driver", driver.name()];
    let report = bench(&[&words[..], &more].concat());
    assert_eq!(median(&report, "ring starved"), 0.0, "{}", report.1);
    assert_eq!(median(&report, "viewers that failed"), 0.0, "{}", report.1);
    let rates =
        ["small streams", "large stream"].map(|n| median(&report, &format!("received, {n}")));
    assert!((80.0..130.0).contains(&rates[0]), "{}", report.1);
    assert!((1_600.0..2_600.0).contains(&rates[1]), "{}", report.1);
    assert!(report.1.contains("Declared memory holds."), "{}", report.1);
}

fn peers_are_served_beside_raw_trains(driver: Driver) {
    let words = ["swarm", "--peers", "20", "--bitrate", "1500k", "--seconds", "3"];
    let more = ["--warm-up", "1", "--pairs", "1", "--probes", "2", "--io-driver", driver.name()];
    let report = bench(&[&words[..], &more].concat());
    let value = |name| median(&report, name);
    assert!(report.1.contains("16 chunks under a signature"), "{}", report.1);
    assert_eq!(value("peers served"), 20.0, "{}", report.1);
    let received = value("received per peer");
    assert!((1.2..2.0).contains(&received), "{}", report.1);
    // Each subtree is one train, and each train is answered once.
    assert!((0.9..=1.1).contains(&value("ACKs per train")), "{}", report.1);
    assert!(value("raw trains received") > 90.0, "{}", report.1);
    assert!(value("raw trains, same bytes/s") > 0.0, "{}", report.1);
    // The probes have verified what they saw; a marker every 5 ms or so.
    assert!(value("markers seen by the probes") > 300.0, "{}", report.1);
    let delays = ["delay p50", "delay p99"].map(value);
    assert!(0.0 < delays[0] && delays.is_sorted() && delays[0] < 1_500.0, "{}", report.1);
}

/// Killing the bench in the middle leaves no relay, source, load or file behind.
#[test]
fn nothing_outlives_a_killed_bench() {
    let mut bench = Command::new(common::binary())
        .args(["bench", "http", "--viewers", "5", "--seconds", "60", "--io-driver", "epoll"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let children = common::wait_for("all children of the bench", Duration::from_secs(20), || {
        let children = children_of(bench.id());
        (children.len() == 3).then_some(children)
    });
    bench.kill().unwrap();
    bench.wait().unwrap();
    let folder = format!("headwater-bench-{}-0", bench.id());
    assert!(!std::env::temp_dir().join(folder).exists(), "a folder is left");
    common::wait_for("the end of all children", Duration::from_secs(10), || {
        children.iter().all(|pid| !is_alive(*pid)).then_some(())
    });
}

fn children_of(pid: u32) -> Vec<u32> {
    let tasks = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(tasks).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Killed while nginx serves, nothing of it is left either, nor its folder in memory.
#[test]
fn nothing_of_nginx_outlives_a_killed_bench() {
    let words = ["hls", "--viewers", "2", "--bitrate", "100k", "--seconds", "1", "--warm-up", "0"];
    let mut bench = Command::new(common::binary())
        .arg("bench")
        .args(words)
        .args(["--pairs", "1", "--set", "hls.segment=500ms", "--set", "hls.playlist=3"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let name = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let found = common::wait_for("nginx or the end", Duration::from_secs(60), || {
        if bench.try_wait().unwrap().is_some() {
            return Some(Vec::new());
        }
        let children = children_of(bench.id());
        children.iter().any(|pid| name(pid).trim() == "nginx").then_some(children)
    });
    if found.is_empty() {
        return common::skipped("nginx", "it is not installed");
    }
    bench.kill().unwrap();
    bench.wait().unwrap();
    common::wait_for("the end of all children", Duration::from_secs(10), || {
        found.iter().all(|pid| !is_alive(*pid)).then_some(())
    });
    let prefix = format!("headwater-bench-{}-", bench.id());
    for above in [std::path::Path::new("/dev/shm"), &std::env::temp_dir()] {
        let left =
            |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
        let mut entries = std::fs::read_dir(above).into_iter().flatten().flatten();
        assert!(!entries.any(left), "a folder is left in {}", above.display());
    }
}

/// Whether a process runs: one that has ended and waits to be reaped does not.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn mistakes_are_named_before_anything_starts() {
    for (words, named) in [
        (&["http", "--set", "cores.shard=2"][..], "did you mean cores.shards?"),
        (&["http", "--bitrate", "1k"], "at least 60000 bit/s"),
        (&["ceiling", "--sizes", "70000"], "from 1 to 65536"),
        (&["streams", "--streams", "5000"], "1 to 4000"),
        (&["storm", "--seconds=-1"], "seconds from 0 to 86400"),
    ] {
        let output = Command::new(common::binary()).arg("bench").args(words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{words:?}: {said}");
        assert!(said.contains(named), "{words:?}: {said}");
    }
    for (words, named) in [
        (&["step", "--to", "50", "--viewers", "60"][..], "it is a step up"),
        (&["hls", "--viewers", "1", "--nginx", "/nowhere"], "there is no /nowhere"),
    ] {
        let output = Command::new(common::binary()).arg("bench").args(words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(named), "{words:?}: {said}");
    }
}
