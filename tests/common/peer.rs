//! `headwater peer` without local players, as a child process, and what it played.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;

use super::netns::Host;
use super::ts::{NULL_PID, PACKET, pid};
use super::{Driver, wait_for};

/// A viewer's node, or several in one process. Dropping it kills it.
pub struct Peer {
    child: Child,
    report: PathBuf,
    dumps: Vec<PathBuf>,
    log: PathBuf,
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
        command.args(["--duration", &seconds.to_string(), "--log-level", "info"]);
        command
            .arg("--report")
            .arg(&report)
            .arg("--dump")
            .arg(&dump)
            .stdin(std::process::Stdio::null());
        command.stdout(output.try_clone().expect("a second handle")).stderr(output);
        let child = command.spawn().expect("the binary runs");
        Peer { child, report, dumps, log, limit: Duration::from_secs(seconds + 20) }
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
