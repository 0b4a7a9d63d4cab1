//! The relay as operators and systemd meet it: start, stop, probes, exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use assert_cmd::prelude::*;
use common::client::End;
use common::ts::{Broadcast, PACKET, Shape};
use common::{Driver, Publisher, Relay, Setup, Watch, both_drivers, have, millis, secs, skipped};
use rustix::process::{Pid, Signal, kill_process};

both_drivers!(
    a_stop_is_clean_with_viewers_connected,
    a_second_signal_stops_at_once,
    systemd_is_told_in_order,
    the_watchdog_is_fed,
    promtool_accepts_the_metrics,
);

fn with_traffic(relay: &Relay) -> (Publisher, common::Viewer) {
    let stream = Broadcast::new(1, Shape::new(500_000), 60.0);
    let publisher = Publisher::start(relay.http, "ops", &stream);
    relay.wait_live("ops");
    let viewer = Watch::live(relay.http, "ops").start();
    viewer.wait_bytes(3 * PACKET, secs(10));
    (publisher, viewer)
}

fn a_stop_is_clean_with_viewers_connected(driver: Driver) {
    for signal in [Signal::TERM, Signal::INT] {
        let mut relay = Setup::new(driver).start();
        let (_publisher, viewer) = with_traffic(&relay);
        relay.signal(signal);
        let status = relay.wait_exit(secs(5));
        assert_eq!(status.code(), Some(0), "{signal:?}: {status}:\n{}", relay.log());
        let seen = viewer.end();
        assert!(matches!(seen.end, End::Closed | End::Reset), "{:?}", seen.end);
        assert_eq!(seen.body.len() % PACKET, 0, "whole packets up to the end");
    }
}

fn a_second_signal_stops_at_once(driver: Driver) {
    let mut relay = Setup::new(driver).start();
    let (_publisher, _viewer) = with_traffic(&relay);
    relay.signal(Signal::TERM);
    relay.signal(Signal::INT);
    let begun = Instant::now();
    let status = relay.wait_exit(secs(2));
    assert!(begun.elapsed() < secs(2), "{status}");
}

fn systemd_is_told_in_order(driver: Driver) {
    let mut relay = Setup::new(driver).start();
    let before: Vec<&str> = relay.notified.iter().flat_map(|m| m.lines()).collect();
    let ready = before.iter().filter(|line| **line == "READY=1").count();
    assert_eq!(ready, 1, "{before:?}");
    assert!(!before.contains(&"STOPPING=1"), "{before:?}");
    assert_eq!(relay.control("/readyz").status, 200);
    let pid = relay.ready["pid"].as_u64();
    assert_eq!(pid, Some(u64::from(relay.pid())));
    assert_eq!(relay.ready["shards"], 2);
    relay.signal(Signal::TERM);
    relay.wait_exit(secs(5));
    let mut after = Vec::new();
    while let Some(message) = relay.notification(millis(50)) {
        after.extend(message.lines().map(str::to_owned));
    }
    assert_eq!(after.iter().filter(|line| *line == "STOPPING=1").count(), 1, "{after:?}");
    assert!(!after.iter().any(|line| line == "READY=1"), "{after:?}");
    assert!(!after.iter().any(|line| line == "WATCHDOG=1"), "nobody asked for it: {after:?}");
}

fn the_watchdog_is_fed(driver: Driver) {
    let relay = Setup::new(driver).watchdog(secs(1)).start();
    // Idle shards make progress too: nothing is published here.
    let mut last = Instant::now();
    let mut pings = 0;
    while pings < 5 {
        let message = relay.notification(secs(2)).expect("a ping within two intervals");
        if message.lines().any(|line| line == "WATCHDOG=1") {
            pings += 1;
            let gap = last.elapsed();
            assert!(gap < millis(1000), "systemd would have killed it after {gap:?}");
            last = Instant::now();
        }
    }
}

fn promtool_accepts_the_metrics(driver: Driver) {
    if !have(&["promtool"]) {
        return;
    }
    let relay = Setup::new(driver).start();
    let (_publisher, _viewer) = with_traffic(&relay);
    let metrics = relay.dir.path().join("metrics");
    std::fs::write(&metrics, relay.control("/metrics").body).unwrap();
    let output = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(File::open(&metrics).unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", std::fs::read_to_string(&metrics).unwrap());
}

#[test]
fn the_unit_is_locked_down() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/headwater.service");
    if !unit.exists() {
        return skipped("systemd-analyze", "no systemd/headwater.service");
    }
    // Numbers go on after a restart without a line of configuration.
    let text = std::fs::read_to_string(&unit).unwrap();
    let directory = text.lines().any(|line| line == "StateDirectory=headwater");
    let told = text.lines().any(|line| line == "Environment=HEADWATER_STATE_DIR=%S/headwater");
    assert!(directory && told, "{text}");
    if !have(&["systemd-analyze"]) {
        return;
    }
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold=20"])
        .arg(&unit)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "exposure above 2.0:\n{said}\n{errors}");
    assert!(said.contains("Overall exposure level"), "{said}\n{errors}");
}

#[test]
fn a_port_in_use_is_named() {
    for host in common::HOSTS {
        let taken = TcpListener::bind((host, 0)).unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let failure = Setup::io_driver("auto").http(&address).try_start().err();
        let failure = failure.expect("must not start");
        let code = failure.status.and_then(|status| status.code());
        assert_eq!(code, Some(1), "{}", failure.log);
        assert!(failure.log.contains(&address), "{address} is not named:\n{}", failure.log);
    }
}

#[test]
fn a_second_relay_does_not_join_the_port_of_the_first() {
    let first = Setup::io_driver("auto").start();
    let address = first.http.to_string();
    let failure = Setup::io_driver("auto").http(&address).try_start().err();
    let failure = failure.expect("must not start");
    assert_eq!(failure.status.and_then(|status| status.code()), Some(1), "{}", failure.log);
    assert_eq!(failure.log.matches("cannot listen on").count(), 1, "{}", failure.log);
}

#[test]
fn the_ready_file_is_gone_after_a_stop() {
    let mut relay = Setup::io_driver("auto").start();
    let file = relay.dir.path().join("ready");
    assert!(file.exists());
    relay.signal(Signal::TERM);
    relay.wait_exit(secs(5));
    assert!(!file.exists());
}

#[test]
fn a_demo_stops_without_a_complaint() {
    let mut demo = Command::new(common::binary())
        .args(["demo", "--http", "127.0.0.1:0", "--control", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let play = lines.by_ref().find(|line| line.contains("play  ")).unwrap();
    let address = play.split('/').nth(2).unwrap().parse().unwrap();
    assert_eq!(lines.by_ref().take(2).count(), 2, "publish and metrics");
    let mut watch = Watch::live(address, "demo");
    watch.target.push_str("?wait=10");
    common::wait_for("the demo's stream", secs(10), || {
        (common::http::get(address, "/live/demo/status.json").status == 200).then_some(())
    });
    let viewer = watch.start();
    viewer.wait_bytes(100 * PACKET, secs(10));
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    let more: Vec<String> = lines.collect();
    let output = demo.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(more.is_empty() && output.stderr.is_empty(), "{more:?} {output:?}");
    viewer.end();
}

#[test]
fn a_bad_configuration_is_refused_with_78() {
    let bad = [
        ("viewers.max_lagg", toml::Value::from("5s"), "max_lagg"),
        ("viewers.max_lag", toml::Value::from("a while"), "max_lag"),
        ("limits.viewers", toml::Value::from(-1), "viewers"),
        ("nonsense.key", toml::Value::from(1), "nonsense"),
        ("publish.keys", toml::Value::Array(vec!["not a hash".into()]), "keys"),
        ("proxy.trusted", toml::Value::Array(vec!["10.0.0.0/99".into()]), "trusted"),
    ];
    for (key, value, named) in bad {
        let failure = Setup::io_driver("auto").set(key, value).try_start().err();
        let failure = failure.unwrap_or_else(|| panic!("{key} was accepted"));
        let code = failure.status.and_then(|status| status.code());
        assert_eq!(code, Some(78), "{key}:\n{}", failure.log);
        assert!(failure.log.contains(named), "{named} is not named:\n{}", failure.log);
        assert!(failure.log.contains("headwater.toml"), "the file is named:\n{}", failure.log);
    }
}

#[test]
fn the_command_line_and_the_environment_are_checked_too() {
    let run = |arguments: &[&str], name: &str, value: &str| {
        let mut command = Command::new(common::binary());
        command.args(arguments).env(name, value).stdin(Stdio::null());
        command.env_remove("NOTIFY_SOCKET");
        command.assert()
    };
    let relay = ["relay", "--http", "127.0.0.1:0", "--control", "127.0.0.1:0"];
    run(&relay, "HEADWATER_VIEWERS_MAX_LAG", "soon").code(78);
    run(&["relay", "--config", "/nonexistent/headwater.toml"], "X", "").failure();
    let output = run(&["--help"], "X", "").success();
    let text = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
    assert!(text.contains("relay"), "{text}");
}

#[test]
fn the_environment_stands_above_the_file() {
    let relay = Setup::io_driver("auto")
        .set("limits.viewers", 5)
        .environment("HEADWATER_LIMITS_VIEWERS", "1")
        .start();
    let (_publisher, _viewer) = with_traffic(&relay);
    relay.get("/live/ops.ts").assert_line(503);
}
