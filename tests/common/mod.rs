//! What the whole-system tests share: the relay as a child process, a transport stream made
//! from a seed, publishers and viewers on threads, and the judge of what a viewer got.
//!
//! Everything has a time limit, an own port and an own directory, so that tests run side by
//! side. A test that needs something this machine lacks says `SKIPPED` and why; with
//! `NO_SKIP=1` in the environment that is a failure.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "every test binary uses a part of this"
)]

pub mod client;
pub mod crowd;
pub mod hls;
pub mod homes;
pub mod http;
pub mod hybrid;
pub mod judge;
pub mod leech;
pub mod mutate;
pub mod netns;
pub mod outcome;
pub mod peer;
pub mod relay;
pub mod scale;
pub mod ts;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use client::{Idle, Publisher, PutStream, Viewer, Watch};
pub use relay::{Relay, Setup};

/// A driver that must serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `--io-driver epoll`.
    Epoll,
    /// `--io-driver uring`.
    Uring,
}

impl Driver {
    /// The word on the command line, in the ready file and in the gauge.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Epoll => "epoll",
            Driver::Uring => "uring",
        }
    }

    /// The drivers that this kernel lets a process use. The missing one is reported as skipped.
    pub fn available() -> Vec<Driver> {
        match why_no_uring() {
            None => vec![Driver::Epoll, Driver::Uring],
            Some(why) => {
                skipped("uring", why);
                vec![Driver::Epoll]
            }
        }
    }
}

/// Makes two tests, `NAME::epoll` and `NAME::uring`, of each function `NAME(Driver)`.
macro_rules! both_drivers {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn epoll() {
                super::$name($crate::common::Driver::Epoll);
            }

            #[test]
            fn uring() {
                match $crate::common::why_no_uring() {
                    None => super::$name($crate::common::Driver::Uring),
                    Some(why) => $crate::common::skipped("uring", why),
                }
            }
        }
    )+};
}
pub(crate) use both_drivers;

/// Why this kernel gives no io_uring to this process; `None`: it does. The kernel is asked, not
/// the relay: a relay that refuses a working io_uring must fail its tests, not skip them.
pub fn why_no_uring() -> Option<&'static str> {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    WHY.get_or_init(|| io_uring::IoUring::new(8).err().map(|e| format!("io_uring_setup: {e}")))
        .as_deref()
}

/// Says that something was not tested; fails where nothing may be skipped.
pub fn skipped(what: &str, why: &str) {
    eprintln!("SKIPPED {what}: {why}");
    assert!(std::env::var_os("NO_SKIP").is_none(), "NO_SKIP is set, but {what}: {why}");
}

/// Whether all of `programs` can be run; else says so.
pub fn have(programs: &[&str]) -> bool {
    programs.iter().all(|program| {
        let probe = Command::new(program)
            .arg(if program.starts_with("ff") { "-version" } else { "--version" })
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if let Err(e) = &probe {
            skipped(program, &e.to_string());
        }
        probe.is_ok()
    })
}

/// The loopback addresses on which everything must work alike.
pub const HOSTS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Asks again and again until the answer is `Some`; fails with `what` after `limit`.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for: {what}");
        pass(Duration::from_millis(10));
    }
}

/// Lets time pass: between two questions of [`wait_for`], between the frames of a live source,
/// and where silence itself is what is tested. Never to wait for something to happen.
pub fn pass(time: Duration) {
    let start = Instant::now();
    while let Some(left) = time.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// The seed of a random test: `HEADWATER_SEED`, else a fresh one; printed before use.
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var("HEADWATER_SEED")
        .ok()
        .map(|text| text.parse().expect("HEADWATER_SEED is a number"))
        .unwrap_or_else(|| fastrand::u64(..));
    println!("{test}: HEADWATER_SEED={seed} repeats this run");
    seed
}

/// The lower-case hexadecimal SHA-256 of `text`, as `publish.keys` stores it.
pub fn key_hash(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The relay's binary: the one that cargo built, or an installed one in `RELAY_BINARY`. It is
/// started in other directories.
pub fn binary() -> std::path::PathBuf {
    let path =
        std::env::var_os("RELAY_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_headwater").into());
    std::path::absolute(path).expect("not empty")
}

/// Shorthand for a duration in seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Shorthand for a duration in milliseconds.
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
