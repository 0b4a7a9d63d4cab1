//! A second implementation of the swarm, in Python, against ours: `tests/rfc_peer.py`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use common::ts::{self, Broadcast, PACKET, Shape};
use common::{Driver, HOSTS, Publisher, Relay, Setup, both_drivers, secs, skipped, wait_for};
use serde_json::Value;

both_drivers!(a_plain_peer_is_served, the_end_of_a_stream_is_told);

/// A Python that has what `rfc_peer.py` needs. There may be several, and not all have it.
fn python() -> Option<&'static str> {
    static FOUND: OnceLock<Option<&str>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        ["python3", "/usr/bin/python3"].into_iter().find(|program| {
            let mut probe = Command::new(program);
            probe.args(["-c", "import cryptography.hazmat.primitives.asymmetric.ec"]);
            probe.stdout(Stdio::null()).stderr(Stdio::null());
            probe.status().is_ok_and(|status| status.success())
        })
    });
    if found.is_none() {
        skipped("rfc_peer.py", "no python3 with the package cryptography");
    }
    *found
}

/// `rfc_peer.py` with arguments still to come.
fn rfc_peer(python: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rfc_peer.py"));
    command.stdin(Stdio::null());
    command
}

#[track_caller]
fn succeeded(output: &Output) {
    let (out, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{errors}", output.status);
}

#[test]
fn agrees_with_the_vectors_and_with_itself() {
    let Some(python) = python() else { return };
    succeeded(&rfc_peer(python).arg("selftest").output().unwrap());
}

/// Bits per second of the streams.
const RATE: u64 = 1_000_000;

/// A leech at work.
struct Leech {
    name: String,
    child: Child,
    files: [PathBuf; 2],
}

impl Leech {
    fn start(python: &str, relay: &Relay, name: &str, mode: &str, seconds: u32) -> Leech {
        let drop = if name.contains("lossy") { "0.05" } else { "0" };
        let file = |what: &str| relay.dir.path().join(format!("{name}.{what}"));
        let files = [file("ts"), file("json")];
        let mut command = rfc_peer(python);
        command.args(["leech", "--url", &format!("http://{}/live/cam", relay.http)]);
        command.args(["--mode", mode, "--seconds", &seconds.to_string(), "--drop", drop]);
        command.args(["--seed", "7"]).arg("--out").arg(&files[0]).arg("--report").arg(&files[1]);
        Leech { name: name.to_owned(), child: command.spawn().unwrap(), files }
    }

    /// What it says, and what it wrote.
    fn end(mut self, limit: Duration) -> (Value, Vec<u8>) {
        let ended = || self.child.try_wait().unwrap();
        let status = wait_for(&self.name, limit, ended);
        assert!(status.success(), "{}: {status}", self.name);
        let report = serde_json::from_slice(&fs::read(&self.files[1]).unwrap()).unwrap();
        println!("{}: {report}", self.name);
        (report, fs::read(&self.files[0]).unwrap())
    }
}

impl Drop for Leech {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Packets without null packets: those a relay may add and leave out.
fn packets(bytes: &[u8]) -> Vec<&[u8]> {
    assert!(bytes.len().is_multiple_of(PACKET));
    bytes.chunks_exact(PACKET).filter(|packet| ts::pid(packet) != ts::NULL_PID).collect()
}

/// The place in what was published where `got` begins; it must be the same from there on.
fn place(published: &[u8], got: &[u8]) -> Option<(usize, usize)> {
    let (published, got) = (packets(published), packets(got));
    let place = published.windows(got.len().max(1)).position(|window| window == got)?;
    Some((place, published.len() - place - got.len()))
}

fn a_plain_peer_is_served(driver: Driver) {
    let Some(python) = python() else { return };
    // Both forms of chunk ids, and both families of addresses.
    for (addressing, host) in [(4, HOSTS[0]), (2, HOSTS[1])] {
        let relay = Setup::new(driver).host(host).set("swarm.chunk_addressing", addressing).start();
        let broadcast = Broadcast::new(addressing as u64, Shape::new(RATE), 20.0);
        let publisher = Publisher::start(relay.http, "cam", &broadcast);
        relay.wait_live("cam");
        let leeches: Vec<_> =
            [("push", "push"), ("lossy-push", "push"), ("pull", "pull"), ("lossy-pull", "pull")]
                .into_iter()
                .map(|(name, mode)| Leech::start(python, &relay, name, mode, 8))
                .collect();
        for leech in leeches {
            let (name, lossy) = (leech.name.clone(), leech.name.contains("lossy"));
            let (report, written) = leech.end(secs(40));
            assert_eq!(report["violations"], serde_json::json!({}), "{name}: {report}");
            assert_eq!(report["cam"], addressing, "{name}: {report}");
            assert_eq!(report["uncles"].as_u64().unwrap_or(0), 0, "{name}: {report}");
            assert!(place(&broadcast.bytes, &written).is_some(), "{name}: other bytes");
            let least = RATE / 8 * 8 / 2;
            assert!(written.len() as u64 > least, "{name}: {} bytes of {report}", written.len());
            assert!(!lossy || report["repairs"].as_u64() > Some(0), "{name}: {report}");
            let pushed = report["pushed"].as_u64() > Some(0);
            assert_eq!(pushed, name.ends_with("push"), "{name}: {report}");
        }
        drop(publisher);
    }
}

fn the_end_of_a_stream_is_told(driver: Driver) {
    let Some(python) = python() else { return };
    let relay = Setup::new(driver).set("streams.linger", "1s").start();
    let broadcast = Broadcast::new(9, Shape::new(RATE), 6.0);
    let publisher = Publisher::start(relay.http, "cam", &broadcast);
    relay.wait_live("cam");
    let leech = Leech::start(python, &relay, "push", "push", 30);
    publisher.finish();
    let (report, written) = leech.end(secs(20));
    assert_eq!(report["violations"], serde_json::json!({}), "{report}");
    assert_eq!(report["close_seen"], true, "{report}");
    let (_, missing) = place(&broadcast.bytes, &written).expect("the same bytes");
    assert_eq!(missing, 0, "packets of the last subtree: {report}");
}
