//! A second implementation of the swarm, in Python, against ours: `tests/rfc_peer.py`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use common::http;
use common::peer::{Peer, packets, place};
use common::ts::{Broadcast, Shape};
use common::{Driver, HOSTS, Publisher, Relay, Setup, both_drivers, secs, skipped, wait_for};
use serde_json::Value;

both_drivers!(
    a_plain_peer_is_served,
    the_end_of_a_stream_is_told,
    our_peer_plays_a_foreign_source,
    what_was_not_signed_is_not_played,
);

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

/// A seed at work.
struct Seed {
    child: Child,
    report: PathBuf,
    url: String,
}

impl Seed {
    /// Serves a stream of `broadcast`, which lasts `seconds`, and is said to be there.
    fn start(python: &str, dir: &Path, broadcast: &Broadcast, more: &[&str]) -> Seed {
        let (ts, report) = (dir.join("seed.ts"), dir.join("seed.json"));
        fs::write(&ts, &broadcast.bytes).unwrap();
        let seconds = Broadcast::due(broadcast.frames()).as_secs_f64();
        let rate = (broadcast.bytes.len() * 8) as f64 / seconds;
        let mut command = rfc_peer(python);
        command.arg("seed").arg("--ts").arg(&ts).arg("--report").arg(&report);
        command.args(["--bitrate", &format!("{rate:.0}")]).args(more);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let http = ready["http"].as_str().unwrap();
        wait_for("an access point", secs(5), || {
            let answer = http::get(http.parse().unwrap(), "/live/cam/swarm.json");
            let swarm: Value = serde_json::from_slice(&answer.body).unwrap();
            swarm["access_points"].as_array().is_some_and(|all| all.len() > 2).then_some(())
        });
        Seed { child, report, url: format!("http://{http}/live/cam") }
    }

    /// Ends it in good order.
    fn end(mut self) -> Value {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        let ended = || self.child.try_wait().unwrap();
        assert!(wait_for("the seed's end", secs(10), ended).success());
        serde_json::from_slice(&fs::read(&self.report).unwrap()).unwrap()
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LISTEN: [[&str; 4]; 2] = [
    ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"],
    ["--listen", "[::1]:0", "--http", "[::1]:0"],
];

fn our_peer_plays_a_foreign_source(driver: Driver) {
    let Some(python) = python() else { return };
    for (listen, more) in
        LISTEN.iter().zip([["--cam", "4", "--n", "8"], ["--cam", "2", "--n", "4"]])
    {
        let dir = tempfile::tempdir().unwrap();
        let broadcast = Broadcast::new(11, Shape::new(RATE), 14.0);
        let seed = Seed::start(python, dir.path(), &broadcast, &[&listen[..], &more].concat());
        let peer = Peer::start((dir.path(), "peer"), (&seed.url, None), (driver, 1, 7));
        let (played, seed) = (peer.end(), seed.end());
        assert_eq!(seed["violations"], serde_json::json!({}), "{seed}");
        let session = &seed["sessions"][0];
        assert!(session["closed"] == true && session["bye"] == 0, "{seed}");
        assert!(
            session["private"] == true && seed["subtrees_pushed"].as_u64() > Some(20),
            "{seed}"
        );
        let viewer = &played.report["viewers"][0];
        assert_eq!(viewer["bytes"]["http"], 0, "{viewer}");
        assert_eq!(viewer["bad"], serde_json::json!({}), "{viewer}");
        assert_eq!(played.report["stalls"], 0, "{viewer}");
        assert!(place(&broadcast.bytes, &played.dumps[0]).is_some(), "other bytes: {viewer}");
        assert!(played.dumps[0].len() as u64 > RATE / 8 * 4, "{viewer}");
    }
}

fn what_was_not_signed_is_not_played(driver: Driver) {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let broadcast = Broadcast::new(12, Shape::new(RATE), 14.0);
    let more = [&LISTEN[0][..], &["--n", "8", "--corrupt", "37"]].concat();
    let seed = Seed::start(python, dir.path(), &broadcast, &more);
    let peer = Peer::start((dir.path(), "peer"), (&seed.url, None), (driver, 1, 7));
    let (played, seed) = (peer.end(), seed.end());
    let (viewer, published) = (&played.report["viewers"][0], packets(&broadcast.bytes));
    assert!(seed["corrupted"].as_u64() > Some(0), "{seed}");
    assert_ne!(viewer["bad"], serde_json::json!({}), "the crime has a name: {viewer}");
    let published: std::collections::HashSet<&[u8]> = published.into_iter().collect();
    let played = packets(&played.dumps[0]);
    assert!(played.iter().all(|packet| published.contains(packet)), "{viewer}");
}
