//! Very many small streams and one large one in one relay at the same time: nobody starves, and
//! the relay keeps to the memory that it has declared.

use std::thread;
use std::time::{Duration, Instant};

use crate::bench::ceiling::cost;
use crate::bench::crowd::{Crowd, FROM, NAP};
use crate::bench::load::{self, Mark};
use crate::bench::machine::{self, Cores, Memory};
use crate::bench::relay::{self, Counters, Relay, Setup};
use crate::bench::report::{Report, Row};
use crate::bench::{Outcome, Progress};

/// How long the viewers may take to be served.
const PATIENCE: Duration = Duration::from_secs(60);

/// The name of the large stream. The small ones are `s` and their number.
const LARGE: &str = "large";

/// Names that fit a command line with room to spare.
pub const STREAMS_MAX: usize = 4_000;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the relay is started; its viewers and streams are all that there are.
    pub relay: Setup,
    /// Number of small streams.
    pub small: usize,
    /// Bit/s of each.
    pub bitrate: u64,
    /// Bit/s of the large one.
    pub large: u64,
    /// Viewers of every stream.
    pub viewers: usize,
    /// How long it counts.
    pub length: Duration,
    /// How long the viewers watch before it counts.
    pub warm_up: Duration,
    /// Number of measurements, each on a fresh relay.
    pub pairs: usize,
}

impl Plan {
    /// A plan whose relay lets everybody in.
    #[must_use]
    pub fn seated(mut self) -> Plan {
        self.relay.streams = self.small + 1;
        self.relay.viewers = self.relay.streams * self.viewers;
        self
    }
}

struct Run {
    relay: Counters,
    io_driver: String,
    small: Mark,
    large: Mark,
    memory: Memory,
    declared: u64,
}

/// Measures and reports.
///
/// # Errors
/// If the relay, a source or a load process fails, or somebody is refused.
pub fn run(plan: &Plan, progress: Progress<'_>) -> Outcome<Report> {
    let (machine, files) = (machine::describe(), machine::raise_open_files());
    let cores = Cores::of_this_machine(plan.relay.shards)?;
    let mut runs = Vec::with_capacity(plan.pairs);
    for number in 1..=plan.pairs {
        let run = measure(plan, &cores, files)?;
        progress(&format!(
            "{number}/{}: {} of {} viewers slow, starved {}, {} of {} MiB resident",
            plan.pairs,
            run.small.slow + run.large.slow,
            plan.relay.viewers,
            run.relay.starved,
            run.memory.resident >> 20,
            run.declared >> 20,
        ));
        runs.push(run);
    }
    Ok(report(plan, machine, &runs))
}

fn measure(plan: &Plan, cores: &Cores, files: u64) -> Outcome<Run> {
    let life = plan.warm_up + plan.length + 3 * PATIENCE;
    let relay = Relay::start(&plan.relay, cores)?;
    let names: Vec<String> = (0..plan.small).map(|n| format!("s{n}")).collect();
    let others = &cores.others;
    let _small = relay::publish_many(relay.http(), &names, plan.bitrate, life, others)?;
    let large = [LARGE.to_owned()];
    let _large = relay::publish_many(relay.http(), &large, plan.large, life, others)?;
    let load = |name: &str, streams: usize, bitrate| load::Plan {
        to: relay.http(),
        from: FROM,
        path: Some(relay::path_of(name)),
        streams,
        connections: streams * plan.viewers,
        // A viewer who comes early waits for its stream, but not longer than the relay lets it.
        ramp: Duration::from_secs(1),
        nap: NAP,
        bitrate,
        life,
    };
    let mut small = Crowd::start(&load("s{}", plan.small, plan.bitrate), others, files)?;
    let mut large = Crowd::start(&load(LARGE, 1, plan.large), others, files)?;
    small.complete(PATIENCE)?;
    large.complete(PATIENCE)?;
    thread::sleep(plan.warm_up);
    let clock = Instant::now();
    let first = relay.counters(clock)?;
    small.mark()?;
    large.mark()?;
    thread::sleep(plan.length);
    let last = relay.counters(clock)?;
    Ok(Run {
        relay: last.since(&first),
        io_driver: relay.io_driver().to_owned(),
        small: small.mark()?,
        large: large.mark()?,
        memory: relay.memory()?,
        declared: relay.declared(),
    })
}

fn report(plan: &Plan, machine: String, runs: &[Run]) -> Report {
    let row = |name: &str, unit, value: &dyn Fn(&Run) -> f64| {
        Row::new(name, unit, runs.iter().map(value).collect())
    };
    let rate = |mark: &Mark, streams: usize| {
        let viewers = (streams * plan.viewers).max(1) as f64;
        mark.bytes as f64 * 8e-3 / viewers / mark.seconds.max(f64::MIN_POSITIVE)
    };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let rows = vec![
        row("received, small streams", "kbit/s", &|run| rate(&run.small, plan.small)),
        row("received, large stream", "kbit/s", &|run| rate(&run.large, 1)),
        row("viewers under 97 %, small", "", &|run| run.small.slow as f64),
        row("viewers under 97 %, large", "", &|run| run.large.slow as f64),
        row("viewer-seconds without a byte", "", &|run| {
            (run.small.silent + run.large.silent) as f64
        }),
        row("viewers that failed", "", &|run| (run.small.failed + run.large.failed) as f64),
        row("ring starved", "", &|run| run.relay.starved),
        row("jumps of slow viewers", "", &|run| run.relay.skips),
        row("resident memory", "MiB", &|run| mib(run.memory.resident)),
        row("relay's own memory", "MiB", &|run| mib(run.memory.own)),
        row("declared memory", "MiB", &|run| mib(run.declared)),
        row("relay", "CPU-s/GB", &|run| cost(run.relay.cpu, run.relay.bytes)),
        row("relay's busy share", "%", &|run| {
            run.relay.worked / run.relay.at.as_secs_f64().max(f64::MIN_POSITIVE) * 100.0
        }),
    ];
    let over = runs.iter().any(|run| run.memory.resident > run.declared);
    let slow = runs.iter().any(|run| run.small.slow + run.large.slow > 0);
    let starved = slow || runs.iter().any(|run| run.relay.starved > 0.0);
    let word = |bad: bool, bad_word: &str, good: &str| if bad { bad_word } else { good }.to_owned();
    Report {
        title: format!(
            "{} streams of {:.3} Mbit/s and one of {:.3} Mbit/s, {} viewers each, io_driver {}",
            plan.small,
            plan.bitrate as f64 / 1e6,
            plan.large as f64 / 1e6,
            plan.viewers,
            runs.first().map_or("", |run| &run.io_driver),
        ),
        machine,
        rows,
        notes: vec![
            word(starved, "Somebody starved.", "Nobody starved."),
            word(over, "More memory than declared.", "Declared memory holds."),
        ],
        trace: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            relay: Setup::new("epoll"),
            small: 500,
            bitrate: 200_000,
            large: 20_000_000,
            viewers: 2,
            length: Duration::from_secs(10),
            warm_up: Duration::ZERO,
            pairs: 1,
        }
        .seated()
    }

    fn told(slow: u64, resident: u64) -> Report {
        let mark = |bytes| Mark { seconds: 10.0, bytes, ..Mark::default() };
        let run = Run {
            relay: Counters { at: Duration::from_secs(10), worked: 2.5, ..Counters::default() },
            io_driver: "epoll".to_owned(),
            small: Mark { slow, ..mark(250_000_000) },
            large: mark(50_000_000),
            memory: Memory { resident, own: 1 << 20 },
            declared: 300 << 20,
        };
        report(&plan(), String::new(), &[run])
    }

    #[test]
    fn everybody_has_a_seat() {
        let plan = plan();
        assert_eq!((plan.relay.streams, plan.relay.viewers), (501, 1_002));
    }

    #[test]
    fn rates_are_per_viewer_and_the_verdict_is_in_words() {
        let report = told(0, 299 << 20);
        let value = |name: &str| report.rows.iter().find(|row| row.name == name).unwrap().median;
        assert_eq!(value("received, small streams"), 200.0);
        assert_eq!(value("received, large stream"), 20_000.0);
        assert_eq!(value("relay's busy share"), 25.0);
        assert_eq!(report.notes, ["Nobody starved.", "Declared memory holds."]);
        assert_eq!(told(1, 301 << 20).notes, ["Somebody starved.", "More memory than declared."]);
    }
}
