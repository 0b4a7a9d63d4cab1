//! `headwater peer` without local players, as a child process, and what it played.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::netns::Host;
use super::ts::{NULL_PID, PACKET, pid};
use super::{Driver, secs, wait_for};

/// A viewer's node, or several in one process. Dropping it kills it.
pub struct Peer {
    child: Child,
    report: PathBuf,
    dumps: Vec<PathBuf>,
    log: PathBuf,
    /// How long it plays by itself, and some more.
    limit: Duration,
}

/// What a peer said of itself, and what each of its viewers played.
pub struct Played {
    /// `--report`.
    pub report: Value,
    /// `--dump`, one for each viewer.
    pub dumps: Vec<Vec<u8>>,
    /// What it printed.
    pub log: String,
}

impl Peer {
    /// Starts `count` viewers in one process that play for `seconds`, on a host of their own if
    /// one is given. Its files are in `dir` and begin with `name`.
    pub fn start(
        (dir, name): (&Path, &str),
        (url, host): (&str, Option<&Host>),
        (driver, count, seconds): (Driver, usize, u64),
    ) -> Peer {
        let more = ["--duration".to_owned(), seconds.to_string()];
        let mut peer = Self::start_with((dir, name), (url, host), (driver, count), &more);
        peer.limit += secs(seconds);
        peer
    }

    /// The same until it is told to stop, with `more` flags.
    pub fn start_with(
        (dir, name): (&Path, &str),
        (url, host): (&str, Option<&Host>),
        (driver, count): (Driver, usize),
        more: &[String],
    ) -> Peer {
        let file = |what: &str| dir.join(format!("{name}.{what}"));
        let (report, dump, log) = (file("json"), file("ts"), file("log"));
        let dumps = match count {
            1 => vec![dump.clone()],
            n => (0..n).map(|k| file(&format!("ts.{k}"))).collect(),
        };
        let output = fs::File::create(&log).expect("a log");
        let binary = super::binary();
        let mut command = host.map_or_else(|| Command::new(&binary), |host| host.command(&binary));
        command.args(["peer", url, "--headless", "--control", "127.0.0.1:0"]);
        command.args(["--io-driver", driver.name(), "--count", &count.to_string()]);
        command.args(["--log-level", "info"]).args(more);
        command
            .arg("--report")
            .arg(&report)
            .arg("--dump")
            .arg(&dump)
            .stdin(std::process::Stdio::null());
        command.stdout(output.try_clone().expect("a second handle")).stderr(output);
        let child = command.spawn().expect("the binary runs");
        Peer { child, report, dumps, log, limit: secs(20) }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child takes a signal");
    }

    /// Bytes that its viewers have played and written so far.
    pub fn written(&self) -> u64 {
        self.dumps.iter().filter_map(|dump| fs::metadata(dump).ok()).map(|file| file.len()).sum()
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it, and returns what its first viewer had played.
    pub fn kill(mut self) -> Vec<u8> {
        let _ = self.child.kill();
        let _: ExitStatus = self.child.wait().expect("waitpid");
        fs::read(&self.dumps[0]).unwrap_or_default()
    }

    /// Tells it to stop, and waits for its end.
    #[track_caller]
    pub fn stop(self) -> Played {
        self.signal(Signal::TERM);
        self.end()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Played {
        let child = &mut self.child;
        let status = wait_for("the peer's end", self.limit, || child.try_wait().expect("waitpid"));
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        assert!(status.success() && !log.contains("panicked"), "{status}:\n{log}");
        let report = fs::read(&self.report).expect("a report");
        let report = serde_json::from_slice(&report).expect("the report is JSON");
        let dumps = self.dumps.iter().map(|path| fs::read(path).unwrap_or_default()).collect();
        Played { report, dumps, log }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Packets without null packets: those a relay may add and leave out.
pub fn packets(bytes: &[u8]) -> Vec<&[u8]> {
    assert!(bytes.len().is_multiple_of(PACKET), "whole packets");
    bytes.chunks_exact(PACKET).filter(|packet| pid(packet) != NULL_PID).collect()
}

/// Where `got` stands in what was published, packet for packet and without a gap: packets before
/// and behind it.
pub fn place(published: &[u8], got: &[u8]) -> Option<(usize, usize)> {
    let (published, got) = (packets(published), packets(got));
    let place = published.windows(got.len().max(1)).position(|window| window == got)?;
    Some((place, published.len() - place - got.len()))
}

/// What was played is what was published, from its start on; where the viewer says that it left
/// something out or that the stream began anew, all of the rest.
pub fn judge(published: &[u8], dump: &[u8], viewer: &Value) {
    let length = |what: &str| viewer[what].as_array().map(Vec::len);
    if length("losses") == Some(0) && length("runs") == Some(1) {
        assert!(place(published, dump).is_some(), "other bytes: {viewer}");
        return;
    }
    let (mut next, published) = (0, packets(published));
    for packet in packets(dump) {
        let found = published[next..].iter().position(|one| *one == packet);
        next += 1 + found.unwrap_or_else(|| panic!("a packet that was not published: {viewer}"));
    }
}

/// The same of somebody who was killed and could not say what it left out.
pub fn judge_killed(published: &[u8], dump: &[u8]) {
    let whole = dump.len() / PACKET * PACKET;
    judge(published, &dump[..whole], &serde_json::json!({ "losses": ["unknown"] }));
}
