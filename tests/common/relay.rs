//! The relay under test as a child process; this harness plays systemd towards it.
//!
//! No test sleeps for the relay to start: the child says `READY=1` on a socket that we bound.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::http::{self, Response};
use super::{Driver, HOSTS, wait_for};

/// The longest a relay may take from exec to READY in a debug build on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// What a relay is started with.
pub struct Setup {
    io_driver: String,
    host: IpAddr,
    shards: usize,
    memory: String,
    http: Option<String>,
    config: toml::Table,
    environment: Vec<(String, String)>,
    watchdog: Option<Duration>,
    state: Option<PathBuf>,
    nofile: Option<u32>,
    within: Vec<OsString>,
}

/// Why a relay did not get ready.
pub struct StartFailure {
    /// How it ended, if it did.
    pub status: Option<ExitStatus>,
    /// What it printed.
    pub log: String,
}

/// A running relay. Dropping it kills it.
pub struct Relay {
    /// Where streams and pages are.
    pub http: SocketAddr,
    /// Where metrics and probes are.
    pub control: SocketAddr,
    /// The whole ready file.
    pub ready: serde_json::Value,
    /// The directory of this relay: configuration, state, ready file, log.
    pub dir: TempDir,
    /// Datagrams of the notify protocol before READY=1, and that one.
    pub notified: Vec<String>,
    child: Child,
    notify: UnixDatagram,
    log: PathBuf,
}

impl Setup {
    /// A relay on one driver, 127.0.0.1, two shards and little memory.
    pub fn new(driver: Driver) -> Self {
        Self::io_driver(driver.name())
    }

    /// The same with the word of `--io-driver` given.
    pub fn io_driver(word: &str) -> Self {
        Setup {
            io_driver: word.to_owned(),
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            shards: 2,
            memory: "64MiB".to_owned(),
            http: None,
            config: toml::Table::new(),
            environment: Vec::new(),
            watchdog: None,
            state: None,
            nofile: None,
            within: Vec::new(),
        }
        .set("streams.memory", "8MiB")
        .set("streams.max", 8)
    }

    /// Listens on another loopback address.
    pub fn host(mut self, host: IpAddr) -> Self {
        self.host = host;
        self
    }

    /// The value of `--http` word for word.
    pub fn http(mut self, address: &str) -> Self {
        self.http = Some(address.to_owned());
        self
    }

    /// Another number of shards.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// A key of the configuration file: `section.key`.
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        let (section, key) = key.split_once('.').expect("section.key");
        let section = self.config.entry(section).or_insert_with(|| toml::Table::new().into());
        section.as_table_mut().expect("a section").insert(key.to_owned(), value.into());
        self
    }

    /// An `[[ingest]]`: its table as TOML.
    pub fn ingest(mut self, table: &str) -> Self {
        let entry: toml::Table = table.parse().expect("TOML");
        let list = self.config.entry("ingest").or_insert_with(|| toml::Value::Array(Vec::new()));
        list.as_array_mut().expect("an array").push(entry.into());
        self
    }

    /// A variable of the environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Asks for keep-alive pings as systemd's `WatchdogSec=` does.
    pub fn watchdog(mut self, interval: Duration) -> Self {
        self.watchdog = Some(interval);
        self
    }

    /// A state directory that outlives the relay.
    pub fn state(mut self, dir: &std::path::Path) -> Self {
        self.state = Some(dir.to_owned());
        self
    }

    /// Lowers RLIMIT_NOFILE, the hard limit as well.
    pub fn nofile(mut self, files: u32) -> Self {
        self.nofile = Some(files);
        self
    }

    /// Runs on a host of its own: [`super::netns::Host::words`].
    pub fn within(mut self, words: impl IntoIterator<Item = OsString>) -> Self {
        self.within = words.into_iter().collect();
        self
    }

    /// Another size of the arena.
    pub fn memory(mut self, size: &str) -> Self {
        self.memory = size.to_owned();
        self
    }

    /// Starts the relay and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Relay {
        match self.try_start() {
            Ok(relay) => relay,
            Err(f) => panic!("the relay did not start, {:?}; it said:\n{}", f.status, f.log),
        }
    }

    /// Starts the relay and waits until it is ready or has ended.
    pub fn try_start(self) -> Result<Relay, StartFailure> {
        let dir = TempDir::with_prefix("headwater-").expect("a temporary directory");
        let notify_path = dir.path().join("notify");
        let notify = UnixDatagram::bind(&notify_path).expect("a notify socket");
        let log = dir.path().join("log");
        let mut command = self.command(&dir, &log);
        command.env("NOTIFY_SOCKET", &notify_path);
        let mut child = command.spawn().expect("the relay's binary runs");
        let mut notified = Vec::new();
        if let Err(status) = await_ready(&mut child, &notify, &mut notified) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(StartFailure { status, log: fs::read_to_string(&log).unwrap_or_default() });
        }
        let text = fs::read_to_string(dir.path().join("ready"))
            .expect("the ready file is there before READY=1 is sent");
        let ready: serde_json::Value = serde_json::from_str(&text).expect("the ready file is JSON");
        let address = |key: &str| -> SocketAddr {
            let text = ready[key].as_str().unwrap_or_else(|| panic!("no {key} in {ready}"));
            text.parse().unwrap_or_else(|e| panic!("{key} {text}: {e}"))
        };
        let (http, control) = (address("http"), address("control"));
        Ok(Relay { http, control, ready, dir, notified, child, notify, log })
    }

    fn command(&self, dir: &TempDir, log: &std::path::Path) -> Command {
        let config = dir.path().join("headwater.toml");
        fs::write(&config, self.config.to_string()).expect("the configuration file");
        let output = File::create(log).expect("the log file");
        // Whatever stands in front becomes the relay: the process id stays.
        let mut words = self.within.clone();
        if let Some(files) = self.nofile {
            let limit = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
            words.extend(["sh".into(), "-c".into(), limit.into()]);
        }
        words.push(super::binary().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        // WATCHDOG_PID stays unset: sd_watchdog_enabled(3) then takes the request as its own.
        match self.watchdog {
            None => command.env_remove("WATCHDOG_USEC"),
            Some(interval) => command.env("WATCHDOG_USEC", interval.as_micros().to_string()),
        };
        let any_port = |host: IpAddr| SocketAddr::new(host, 0).to_string();
        command
            .arg("relay")
            .arg("--config")
            .arg(&config)
            .args(["--http", &self.http.clone().unwrap_or_else(|| any_port(self.host))])
            .args(["--control", &any_port(self.host)])
            .args(["--shards", &self.shards.to_string()])
            .args(["--io-driver", &self.io_driver])
            .args(["--memory", &self.memory])
            .arg("--state")
            .arg(self.state.clone().unwrap_or_else(|| dir.path().join("state")))
            .arg("--ready-file")
            .arg(dir.path().join("ready"))
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle of the log"))
            .stderr(output);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HEADWATER_")) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        command
    }
}

/// Collects notifications up to READY=1. The error is the child's end, `None` at the time limit.
fn await_ready(
    child: &mut Child,
    notify: &UnixDatagram,
    notified: &mut Vec<String>,
) -> Result<(), Option<ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < START_LIMIT {
        if let Some(message) = receive(notify, Duration::from_millis(50)) {
            let ready = message.lines().any(|line| line == "READY=1");
            notified.push(message);
            if ready {
                return Ok(());
            }
        } else if let Some(status) = child.try_wait().expect("the child can be waited for") {
            return Err(Some(status));
        }
    }
    Err(None)
}

fn receive(notify: &UnixDatagram, limit: Duration) -> Option<String> {
    let mut buffer = [0_u8; 4096];
    notify.set_read_timeout(Some(limit)).expect("a read timeout");
    let n = notify.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

impl Relay {
    /// Where the configured ingest of that stream is.
    #[track_caller]
    pub fn ingest(&self, stream: &str) -> SocketAddr {
        let all = self.ready["ingest"].as_array().expect("configured ingests");
        let one = all.iter().find(|one| one["stream"] == stream).expect("the stream's ingest");
        let address = one["udp"].as_str().or(one["tcp"].as_str()).expect("its address");
        address.parse().expect("an address")
    }

    /// The next message of the notify protocol within `limit`.
    pub fn notification(&self, limit: Duration) -> Option<String> {
        receive(&self.notify, limit)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the relay.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child takes a signal");
    }

    /// Waits for the relay to end by itself.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the relay's exit", limit, || child.try_wait().expect("waitpid"))
    }

    /// Whether the process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("waitpid").is_none()
    }

    /// Everything printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(&path).expect("the relay lives");
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("kB");
        kib * 1024
    }

    /// GET on the public listener.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        http::get(self.http, target)
    }

    /// GET on the control listener.
    #[track_caller]
    pub fn control(&self, target: &str) -> Response {
        http::get(self.control, target)
    }

    /// `/live/NAME/status.json`, if the stream is known.
    pub fn status(&self, name: &str) -> Option<serde_json::Value> {
        let answer = self.get(&format!("/live/{name}/status.json"));
        (answer.status == 200).then(|| serde_json::from_slice(&answer.body).expect("JSON"))
    }

    /// The state of a stream, empty if unknown.
    pub fn state(&self, name: &str) -> String {
        let status = self.status(name);
        status.and_then(|s| s["state"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Waits until a stream is live.
    #[track_caller]
    pub fn wait_live(&self, name: &str) {
        wait_for("a live stream", Duration::from_secs(10), || {
            (self.state(name) == "live").then_some(())
        });
    }

    /// The sum of all samples of `name` whose labels contain all of `labels` (`key="value"`).
    pub fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let answer = self.control("/metrics");
        assert_eq!(answer.status, 200, "/metrics: {}", answer.text());
        sum_of(&answer.text(), name, labels)
    }

    /// Waits until the relay has taken in `bytes` of a stream over HTTP.
    #[track_caller]
    pub fn wait_ingested(&self, stream: &str, bytes: usize) {
        let (short, long) = (format!("stream=\"{stream}\""), format!("stream=\"live/{stream}\""));
        let name = "headwater_ingest_bytes_total";
        let start = Instant::now();
        loop {
            let text = self.control("/metrics").text();
            let seen = sum_of(&text, name, &[&short]).or_else(|| sum_of(&text, name, &[&long]));
            if seen.unwrap_or(0.0) >= bytes as f64 {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{seen:?} of {bytes} ingested");
            super::pass(Duration::from_millis(10));
        }
    }
}

fn sum_of(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let values: Vec<f64> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (family, rest) = series.split_once('{').unwrap_or((series, ""));
            let wanted = family == name && labels.iter().all(|label| rest.contains(label));
            wanted.then(|| value.parse().ok()).flatten()
        })
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("--- the relay ({}) said:\n{log}---", self.ready);
        } else {
            assert!(!log.contains("panicked"), "the relay panicked:\n{log}");
        }
    }
}

/// A relay per loopback address, for tests that must hold on both.
pub fn on_each_host(setup: impl Fn() -> Setup, test: impl Fn(&Relay)) {
    for host in HOSTS {
        test(&setup().host(host).start());
    }
}
