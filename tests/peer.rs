//! `headwater peer` against the relay, both as processes: what is played is what was published,
//! over UDP, over HTTP, and across a restart of the relay.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use common::ts::{Broadcast, NULL_PID, PACKET, Shape, pid};
use common::{
    Driver, HOSTS, Publisher, PutStream, Relay, Setup, both_drivers, http, pass, secs, wait_for,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

both_drivers!(
    what_is_played_is_what_was_published,
    players_here_are_served_as_by_a_relay,
    where_there_is_no_udp_it_plays_over_http,
    udp_that_comes_and_goes_is_no_stall,
    a_relay_that_was_started_again_is_joined_again,
);

const RATE: u64 = 2_000_000;

fn run(seed: u64, seconds: f64) -> Broadcast {
    Broadcast::new(seed, Shape::new(RATE), seconds)
}

/// A viewer's node as a child process. Dropping it kills it.
struct Node {
    child: Child,
    dir: TempDir,
}

impl Node {
    /// Plays stream `cam` of a relay.
    fn start(driver: Driver, relay: SocketAddr, more: &[&str]) -> Node {
        let dir = TempDir::with_prefix("headwater-peer-").unwrap();
        let output = File::create(dir.path().join("log")).unwrap();
        let any = SocketAddr::new(relay.ip(), 0).to_string();
        let child = Command::new(common::binary())
            .args(["peer", &format!("http://{relay}/live/cam")])
            .args(["--control", &any, "--io-driver", driver.name()])
            .arg("--report")
            .arg(dir.path().join("report"))
            .args(more)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Node { child, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// The address behind a word that it prints.
    fn address(&self, word: &str) -> SocketAddr {
        wait_for("an address", secs(10), || {
            let log = self.log();
            let (_, rest) = log.split_once(&format!("{word} http://"))?;
            rest.split_once('/')?.0.parse().ok()
        })
    }

    /// Waits for its end; the report.
    fn wait(&mut self, limit: Duration) -> Value {
        let status = wait_for("the node's end", limit, || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.log());
        serde_json::from_slice(&fs::read(self.path("report")).unwrap()).unwrap()
    }

    /// Ends it by SIGTERM; the report.
    fn stop(&mut self) -> Value {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.wait(secs(10))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if thread::panicking() {
            eprintln!("--- the node said:\n{log}---");
        } else {
            assert!(!log.contains("panicked"), "the node panicked:\n{log}");
        }
    }
}

fn number(of: &Value, path: &str) -> u64 {
    of.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {of}"))
}

/// The relay completes late subtrees with null packets, at places of its own choice.
fn without_null(bytes: &[u8]) -> Vec<u8> {
    let packets = bytes.chunks_exact(PACKET).filter(|packet| pid(packet) != NULL_PID);
    packets.flatten().copied().collect()
}

/// `played` is a stretch of what was published, of at least `least` bytes.
#[track_caller]
fn assert_published(played: &[u8], published: &[u8], least: usize) {
    let (played, published) = (without_null(played), without_null(published));
    assert!(played.len() >= least, "{} bytes of {least}", played.len());
    let start = http::find(&published, &played[..played.len().min(40 * PACKET)]);
    let rest = &published[start.expect("the first packets are of the stream")..];
    let differs = played.iter().zip(rest).position(|(a, b)| a != b);
    assert!(differs.is_none() && played.len() <= rest.len(), "byte {differs:?} differs");
}

/// Waits until a stream can be joined where a decoder can start.
fn wait_invited(relay: &Relay) {
    wait_for("an invitation", secs(15), || {
        let answer = relay.get("/live/cam/swarm.json");
        let document: Value = serde_json::from_slice(&answer.body).ok()?;
        let points = document["access_points"].as_array()?;
        (answer.status == 200 && points.len() > 1).then_some(())
    });
}

/// No viewer waited, nothing was wrong, and all came over UDP or over HTTP.
fn assert_smooth(report: &Value, viewers: usize) {
    assert_eq!(report["viewers"].as_array().unwrap().len(), viewers);
    assert_eq!(number(report, "/stalls"), 0, "{report:#}");
    for viewer in report["viewers"].as_array().unwrap() {
        assert_eq!(viewer["bad"], serde_json::json!({}));
        assert_eq!(number(viewer, "/chunks/given_up"), 0);
        assert!(number(viewer, "/startup_ms") < 3_000, "{viewer:#}");
        assert!(number(viewer, "/delay_ms/p99") < 3_500, "{viewer:#}");
    }
}

fn what_is_played_is_what_was_published(driver: Driver) {
    let broadcast = run(61, 30.0);
    for host in HOSTS {
        let relay = Setup::new(driver).host(host).start();
        let publisher = Publisher::start(relay.http, "cam", &broadcast);
        wait_invited(&relay);
        let more = ["--headless", "--count", "3", "--dump", "played", "--duration", "5"];
        let mut node = Node::start(driver, relay.http, &more);
        let report = node.wait(secs(20));
        assert_smooth(&report, 3);
        for (n, viewer) in report["viewers"].as_array().unwrap().iter().enumerate() {
            assert_eq!(viewer["switches"].as_array().unwrap().len(), 1);
            assert_eq!(viewer["switches"][0]["to"], "udp");
            assert_eq!(number(viewer, "/bytes/http"), 0);
            let played = fs::read(node.path(&format!("played.{n}"))).unwrap();
            assert_eq!(played.len() as u64, number(viewer, "/played_bytes"));
            assert_published(&played, &broadcast.bytes, 400_000);
            // The very bytes: those that the relay gives from that offset on.
            let at = number(viewer, "/runs/0/offset");
            let answer = fetch(&relay, at, played.len());
            assert!(played == answer, "bytes of the relay from {at} on");
        }
        publisher.silence();
    }
}

/// `len` bytes of the stream from `at` on.
fn fetch(relay: &Relay, at: u64, len: usize) -> Vec<u8> {
    let mut connection = http::connect(relay.http);
    connection.send(&http::head(relay.http, "GET", &format!("/live/cam.ts?at={at}"), &[]));
    assert_eq!(connection.response_head(secs(10)).status, 200);
    while connection.pending().len() < len {
        assert!(connection.fill(secs(10)).unwrap(), "closed");
    }
    connection.pending()[..len].to_vec()
}

fn players_here_are_served_as_by_a_relay(driver: Driver) {
    let broadcast = run(62, 40.0);
    let relay = Setup::new(driver).start();
    let publisher = Publisher::start(relay.http, "cam", &broadcast);
    wait_invited(&relay);
    let mut node = Node::start(driver, relay.http, &["--http", "127.0.0.1:0"]);
    let local = node.address("play");
    let mut connection = wait_for("the stream here", secs(10), || {
        let mut connection = http::connect(local);
        connection.send(&http::head(local, "GET", "/live/cam.ts?wait=10", &[]));
        (connection.response_head(secs(15)).status == 200).then_some(connection)
    });
    while connection.pending().len() < 600_000 {
        assert!(connection.fill(secs(10)).unwrap(), "closed");
    }
    let played = connection.pending().clone();
    // The tables in front are said once more.
    assert_published(&played[2 * PACKET..600_000 / PACKET * PACKET], &broadcast.bytes, 400_000);
    let playlist = wait_for("a playlist with two segments", secs(20), || {
        let text = http::get(local, "/live/cam/index.m3u8").text();
        (text.matches("#EXTINF").count() > 1).then_some(text)
    });
    let segment = playlist.lines().find(|line| !line.starts_with('#') && !line.is_empty()).unwrap();
    let answer = http::get(local, &format!("/live/cam/{segment}"));
    assert_eq!(answer.status, 200, "{segment}");
    assert_published(&answer.body[2 * PACKET..], &broadcast.bytes, 100_000);
    let refused = http::request(local, "PUT", "/live/cam", &["Content-Length: 0"]);
    assert!([401, 403].contains(&refused.status), "nobody publishes here: {}", refused.status);
    let metrics = http::get(node.address("metrics"), "/metrics").text();
    assert!(metrics.contains("headwater_peer_bytes_total{source=\"udp\"}"), "{metrics}");
    let report = node.stop();
    assert_smooth(&report, 1);
    publisher.silence();
}

fn where_there_is_no_udp_it_plays_over_http(driver: Driver) {
    let broadcast = run(63, 30.0);
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    let advertise: toml::Value = vec![dead.local_addr().unwrap().to_string()].into();
    let relay = Setup::new(driver).set("swarm.advertise", advertise).start();
    let publisher = Publisher::start(relay.http, "cam", &broadcast);
    wait_invited(&relay);
    let more = ["--headless", "--dump", "played", "--duration", "6"];
    let mut node = Node::start(driver, relay.http, &more);
    let report = node.wait(secs(20));
    assert_smooth(&report, 1);
    let viewer = &report["viewers"][0];
    assert_eq!(
        (number(viewer, "/bytes/udp"), viewer["switches"][0]["to"].as_str()),
        (0, Some("http"))
    );
    let played = fs::read(node.path("played")).unwrap();
    assert_published(&played, &broadcast.bytes, 400_000);
    publisher.silence();
}

/// A way for datagrams that can be closed.
struct Way {
    address: SocketAddr,
    open: Arc<AtomicBool>,
}

impl Way {
    /// Of one viewer to the relay that `target` names later.
    fn new(target: Arc<std::sync::OnceLock<SocketAddr>>) -> Way {
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = near.local_addr().unwrap();
        let open = Arc::new(AtomicBool::new(true));
        let viewer = Arc::new(std::sync::Mutex::new(None));
        let (gate, from) = (open.clone(), viewer.clone());
        let (back, out) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        thread::spawn(move || {
            let mut buf = [0; 2_000];
            while let Ok((n, sender)) = near.recv_from(&mut buf) {
                *from.lock().unwrap() = Some(sender);
                if let Some(relay) = target.get().filter(|_| gate.load(Relaxed)) {
                    let _ = out.send_to(&buf[..n], relay);
                }
            }
        });
        let gate = open.clone();
        thread::spawn(move || {
            let mut buf = [0; 2_000];
            while let Ok((n, _)) = far.recv_from(&mut buf) {
                let sender = *viewer.lock().unwrap();
                if let Some(sender) = sender.filter(|_| gate.load(Relaxed)) {
                    let _ = back.send_to(&buf[..n], sender);
                }
            }
        });
        Way { address, open }
    }
}

fn udp_that_comes_and_goes_is_no_stall(driver: Driver) {
    let broadcast = run(64, 60.0);
    let target = Arc::new(std::sync::OnceLock::new());
    let way = Way::new(target.clone());
    let advertise: toml::Value = vec![way.address.to_string()].into();
    let relay = Setup::new(driver).set("swarm.advertise", advertise).start();
    target.set(relay.ready["swarm"].as_str().unwrap().parse().unwrap()).unwrap();
    let publisher = Publisher::start(relay.http, "cam", &broadcast);
    wait_invited(&relay);
    let mut node = Node::start(driver, relay.http, &["--headless", "--dump", "played"]);
    let control = node.address("metrics");
    let switches = |n: usize| {
        let wanted = format!("headwater_peer_switches_total {n}");
        wait_for("a change of source", secs(15), || {
            let text = http::get(control, "/metrics").text();
            text.lines().any(|line| line == wanted || line == format!("{wanted}.0")).then_some(())
        });
    };
    pass(secs(3));
    way.open.store(false, Relaxed);
    switches(1);
    pass(secs(2));
    way.open.store(true, Relaxed);
    switches(2);
    pass(secs(2));
    let report = node.stop();
    assert_smooth(&report, 1);
    let viewer = &report["viewers"][0];
    let to: Vec<_> = viewer["switches"].as_array().unwrap().iter().map(|s| &s["to"]).collect();
    assert_eq!(to, ["udp", "http", "udp"]);
    assert_eq!(viewer["losses"], serde_json::json!([]));
    let played = fs::read(node.path("played")).unwrap();
    assert_published(&played, &broadcast.bytes, 1_000_000);
    publisher.silence();
}

fn a_relay_that_was_started_again_is_joined_again(driver: Driver) {
    let broadcast = run(65, 60.0);
    let state = TempDir::new().unwrap();
    let first = Setup::new(driver).state(state.path()).start();
    let (address, swarm) = (first.http, first.ready["swarm"].as_str().unwrap().to_owned());
    let publisher = Publisher::start(address, "cam", &broadcast);
    wait_invited(&first);
    let mut node = Node::start(driver, address, &["--headless", "--dump", "played"]);
    pass(secs(4));
    first.signal(Signal::KILL);
    drop((first, publisher));
    let second = Setup::new(driver)
        .state(state.path())
        .http(&address.to_string())
        .set("swarm.listen", swarm)
        .start();
    let again = run(66, 60.0);
    let publisher = Publisher::drive(PutStream::begin(address, "cam"), &again);
    wait_invited(&second);
    pass(secs(6));
    let report = node.stop();
    let viewer = &report["viewers"][0];
    let runs = viewer["runs"].as_array().unwrap();
    assert_eq!((runs.len(), number(&report, "/stalls")), (2, 0), "{viewer:#}");
    assert!(number(&runs[1], "/offset") > number(&runs[0], "/offset"), "ids only go forward");
    let played = fs::read(node.path("played")).unwrap();
    let begin = number(&runs[1], "/played") as usize;
    let end = viewer["losses"][0]["played"].as_u64().map_or(begin, |end| end as usize);
    assert_published(&played[..end], &broadcast.bytes, 200_000);
    assert_published(&played[begin..], &again.bytes, 200_000);
    publisher.silence();
}
