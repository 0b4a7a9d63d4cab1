//! The relay under test: the real binary as a child, with what it says of itself.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::bench::child::{Child, command};
use crate::bench::machine::{self, Cores};
use crate::bench::{Outcome, source};
use crate::config::table;

/// How long the relay may take to start, and to answer on its control listener.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often to look for the ready file.
const LOOK: Duration = Duration::from_millis(10);

/// Viewers that come besides those of the plan.
const MORE: usize = 100;

/// Files that a relay keeps for other things than connections.
const RESERVED_FILES: usize = 256;

/// Streams for which the defaults have room.
const FEW_STREAMS: usize = 16;

/// Memory for each of many streams: a second and a half of 20 Mbit/s.
const STREAM_BYTES: u64 = 4 << 20;

/// A value for one key of the relay's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    variable: String,
    value: String,
}

impl Setting {
    /// Reads `section.key=value`, the value as it is written in an environment variable.
    ///
    /// # Errors
    /// If there is no such key: which one may be meant.
    pub fn parse(text: &str) -> Result<Setting, String> {
        let (path, value) = text.split_once('=').ok_or("write section.key=value")?;
        let Some(key) = table::find(path) else {
            let (section, name) = path.split_once('.').unwrap_or(("", path));
            let meant = table::suggest(section, name);
            let meant = meant.map(|key| format!(", did you mean {}?", key.path));
            return Err(format!("there is no key {path}{}", meant.unwrap_or_default()));
        };
        Ok(Setting { variable: key.variable(), value: value.to_owned() })
    }
}

/// How the relay is started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `--io-driver`.
    pub io_driver: String,
    /// `--shards`.
    pub shards: usize,
    /// Viewers that must be let in.
    pub viewers: usize,
    /// Publishers that must be let in.
    pub streams: usize,
    /// Further settings, which win.
    pub settings: Vec<Setting>,
}

impl Setup {
    /// One shard, one stream, no viewer but probes, and `io_driver`.
    #[must_use]
    pub fn new(io_driver: &str) -> Setup {
        let io_driver = io_driver.to_owned();
        Setup { io_driver, shards: 1, viewers: 0, streams: 1, settings: Vec::new() }
    }
}

/// A folder of our own, removed with everything in it when dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Outcome<Scratch> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("headwater-bench-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Fails where somebody else has made it: nothing there is trusted.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the ready file says.
#[derive(Debug, Deserialize)]
struct Ready {
    http: SocketAddr,
    control: SocketAddr,
    io_driver: String,
}

/// A running relay. Dropping it kills it.
#[derive(Debug)]
pub struct Relay {
    child: Child,
    ready: Ready,
    declared: u64,
    cores: Vec<usize>,
}

/// The relay's counters at one moment. Differences of two are a measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// When, on any clock.
    pub at: Duration,
    /// Processor time of the process.
    pub cpu: Duration,
    /// Time in which its cores did anything, for anybody.
    pub busy: Duration,
    /// Stream bytes that the kernel took for viewers.
    pub bytes: f64,
    /// Writes that the kernel took.
    pub sends: f64,
    /// Writes of which it took nothing.
    pub blocked: f64,
    /// Waits and submissions.
    pub enters: f64,
    /// Seconds in which its shards worked, by their own account.
    pub worked: f64,
    /// The longest time that a shard gathers bytes now, in seconds: no difference.
    pub interval: f64,
    /// Times that incoming data was dropped because there was no room for it.
    pub starved: f64,
    /// Jumps of slow viewers.
    pub skips: f64,
}

impl Counters {
    /// What happened since `before`.
    #[must_use]
    pub fn since(&self, before: &Counters) -> Counters {
        Counters {
            at: self.at.saturating_sub(before.at),
            cpu: self.cpu.saturating_sub(before.cpu),
            busy: self.busy.saturating_sub(before.busy),
            bytes: self.bytes - before.bytes,
            sends: self.sends - before.sends,
            blocked: self.blocked - before.blocked,
            enters: self.enters - before.enters,
            worked: self.worked - before.worked,
            interval: self.interval,
            starved: self.starved - before.starved,
            skips: self.skips - before.skips,
        }
    }

    /// System calls, as far as they are counted: under io_uring a send is no call of its own.
    #[must_use]
    pub fn calls(&self, io_driver: &str) -> f64 {
        match io_driver {
            "epoll" => self.enters + self.sends + self.blocked,
            _ => self.enters,
        }
    }
}

impl Relay {
    /// Starts a relay and waits until it is ready.
    ///
    /// # Errors
    /// If it ends or is not ready in time: what it said.
    pub fn start(setup: &Setup, cores: &Cores) -> Outcome<Relay> {
        let scratch = Scratch::new()?;
        let (ready, log) = (scratch.0.join("ready"), scratch.0.join("log"));
        let mut arguments: Vec<String> = ["relay", "--log-level", "info"].map(str::to_owned).into();
        for (flag, value) in [
            ("--http", "127.0.0.1:0".to_owned()),
            ("--control", "127.0.0.1:0".to_owned()),
            ("--shards", setup.shards.to_string()),
            ("--io-driver", setup.io_driver.clone()),
            ("--ready-file", ready.display().to_string()),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        let output = File::create(&log)?;
        let mut command = command(&cores.relay, &arguments)?;
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(table::VARIABLE_PREFIX) {
                command.env_remove(name);
            }
        }
        command.env("HEADWATER_LOG_FORMAT", "text");
        command.envs(limits(setup));
        command.envs(setup.settings.iter().map(|s| (&s.variable, &s.value)));
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut child = Child::start("the relay", &mut command)?;
        let ready = await_ready(&mut child, &ready, &log)?;
        let declared = declared(&fs::read_to_string(&log)?).ok_or("the relay declares nothing")?;
        // The folder goes here: what runs has its log open, and nothing is left by a killed bench.
        Ok(Relay { child, ready, declared, cores: cores.relay.clone() })
    }

    /// Where viewers and publishers go.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.ready.http
    }

    /// Which driver serves.
    #[must_use]
    pub fn io_driver(&self) -> &str {
        &self.ready.io_driver
    }

    /// What it said at its start that it may use, in bytes: rings and connections.
    #[must_use]
    pub fn declared(&self) -> u64 {
        self.declared
    }

    /// Its memory now.
    ///
    /// # Errors
    /// If the relay has ended.
    pub fn memory(&self) -> Outcome<machine::Memory> {
        machine::memory(self.child.pid())
    }

    /// The counters now, the process's own first.
    ///
    /// # Errors
    /// If the relay has ended or does not answer.
    pub fn counters(&self, start: Instant) -> Outcome<Counters> {
        let (at, cpu) = (start.elapsed(), machine::process_cpu(self.child.pid())?);
        let busy = machine::busy(&self.cores);
        let text = get(self.ready.control, "/metrics")?;
        let all = |name| match values_of(&text, name) {
            values if values.is_empty() => Err(format!("/metrics has no {name}")),
            values => Ok(values),
        };
        let sum = |name| all(name).map(|values| values.iter().sum::<f64>());
        let blocked = sum("headwater_sends_blocked_total")?;
        Ok(Counters {
            at,
            cpu,
            busy,
            bytes: sum("headwater_egress_bytes_total")?,
            sends: sum("headwater_sends_total")? - blocked,
            blocked,
            enters: sum("headwater_io_enters_total")?,
            worked: sum("headwater_shard_busy_seconds_total")?,
            interval: all("headwater_flush_interval_seconds")?.into_iter().fold(0.0, f64::max),
            starved: sum("headwater_ring_starved_total")?,
            skips: sum("headwater_viewer_skips_total")?,
        })
    }
}

/// Room for everybody who comes: the variables that set the relay's limits.
fn limits(setup: &Setup) -> Vec<(&'static str, String)> {
    // Probes are viewers too.
    let viewers = setup.viewers + MORE;
    let mut limits = vec![("HEADWATER_LIMITS_VIEWERS", viewers.to_string())];
    // Left to itself the relay takes what the limit of open files gives, which is enough for
    // most; beyond that it must be told that it shall go past it.
    let files = usize::try_from(machine::raise_open_files()).unwrap_or(usize::MAX);
    let connections = viewers + setup.streams;
    if connections + RESERVED_FILES > files {
        limits.push(("HEADWATER_LIMITS_CONNECTIONS", connections.to_string()));
    }
    if setup.streams > FEW_STREAMS {
        limits.push(("HEADWATER_STREAMS_MAX", setup.streams.to_string()));
        let arena = setup.streams as u64 * STREAM_BYTES;
        limits.push(("HEADWATER_MEMORY_ARENA", arena.to_string()));
    }
    limits
}

fn await_ready(child: &mut Child, ready: &Path, log: &Path) -> Outcome<Ready> {
    let start = Instant::now();
    loop {
        if let Ok(text) = fs::read(ready) {
            return Ok(serde_json::from_slice(&text)?);
        }
        let ended = child.has_ended()?;
        if ended.is_some() || start.elapsed() > PATIENCE {
            let said = fs::read_to_string(log).unwrap_or_default();
            return Err(format!("the relay did not start; it said:\n{said}").into());
        }
        thread::sleep(LOOK);
    }
}

/// A publisher of the bench stream, as a child on `cores`.
///
/// # Errors
/// If it cannot be started.
pub fn publish(to: SocketAddr, bitrate: u64, life: Duration, cores: &[usize]) -> Outcome<Child> {
    publish_many(to, &[source::NAME.to_owned()], bitrate, life, cores)
}

/// A publisher of streams with these names, each of `bitrate`, as a child on `cores`.
///
/// # Errors
/// If it cannot be started.
pub fn publish_many(
    to: SocketAddr,
    names: &[String],
    bitrate: u64,
    life: Duration,
    cores: &[usize],
) -> Outcome<Child> {
    let (to, bitrate, life) = (to.to_string(), bitrate.to_string(), life.as_secs_f64().to_string());
    let names = names.join(",");
    let words = ["bench", "source", "--to", &to, "--bitrate", &bitrate, "--life", &life];
    let words: Vec<String> =
        words.iter().copied().chain(["--names", &names]).map(str::to_owned).collect();
    Child::talking("the source", cores, &words)
}

/// The path at which the stream is watched, also by those who come before it is live.
#[must_use]
pub fn path() -> String {
    path_of(source::NAME)
}

/// The same for a stream of this name.
#[must_use]
pub fn path_of(name: &str) -> String {
    format!("/live/{name}.ts?wait=10")
}

/// The body of a text response.
fn get(from: SocketAddr, path: &str) -> Outcome<String> {
    Ok(String::from_utf8(fetch(from, path)?)?)
}

/// The body of a response, on a connection of its own.
///
/// # Errors
/// If the server does not answer, or with something else than 200.
pub fn fetch(from: SocketAddr, path: &str) -> Outcome<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&from, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {from}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    match bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        Some(end) if bytes.starts_with(b"HTTP/1.1 200") => Ok(bytes.split_off(end + 4)),
        _ => {
            let text = String::from_utf8_lossy(&bytes);
            Err(format!("{path}: {}", text.lines().next().unwrap_or("no answer")).into())
        }
    }
}

/// The values of all series of a family in the text format.
fn values_of(text: &str, family: &str) -> Vec<f64> {
    let value = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let name = series.split_once('{').map_or(series, |(name, _)| name);
        (name == family).then(|| value.parse::<f64>().ok())?
    };
    text.lines().filter_map(value).collect()
}

/// What the relay's log says that its configuration can use, in bytes: rings and connections.
fn declared(log: &str) -> Option<u64> {
    let line = log.lines().find(|line| line.contains("memory: the most that"))?;
    let mib = |name: &str| {
        let (_, rest) = line.split_once(name)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    Some((mib("arena_mib=")? + mib("connections_mib=")?) << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_the_table() {
        let setting = Setting::parse("viewers.max_lag=2s").unwrap();
        assert_eq!(setting.variable, "HEADWATER_VIEWERS_MAX_LAG");
        assert_eq!(setting.value, "2s");
        assert!(Setting::parse("viewers.max_lag").is_err());
        let why = Setting::parse("cores.shard=2").unwrap_err();
        assert!(why.contains("cores.shards"), "{why}");
    }

    #[test]
    fn families_are_found() {
        let text =
            "# HELP a_total x\na_total{shard=\"0\"} 2\na_total{shard=\"1\"} 3.5\nab_total 9\n";
        assert_eq!(values_of(text, "a_total"), [2.0, 3.5]);
        assert_eq!(values_of(text, "ab_total"), [9.0]);
        assert!(values_of(text, "b_total").is_empty());
    }

    #[test]
    fn the_declared_memory_is_read() {
        let log = "INFO starts\nINFO memory: the most that this configuration can use \
                   arena_mib=256 connections_mib=4 kernel_idle_mib=9\n";
        assert_eq!(declared(log), Some(260 << 20));
        assert_eq!(declared("INFO starts\n"), None);
    }

    #[test]
    fn sends_are_calls_under_epoll_only() {
        let counters = Counters { sends: 100.0, blocked: 10.0, enters: 5.0, ..Counters::default() };
        assert_eq!((counters.calls("epoll"), counters.calls("uring")), (115.0, 5.0));
        assert_eq!(counters.since(&counters).calls("epoll"), 0.0);
    }
}
