//! A join storm: very many viewers at once, and how long each waits for its first byte.

use std::thread;
use std::time::Duration;

use crate::bench::crowd::{Crowd, FROM};
use crate::bench::load::{self, Mark};
use crate::bench::machine::{self, Cores};
use crate::bench::probe::Probes;
use crate::bench::relay::{self, Relay, Setup};
use crate::bench::report::{Report, Row};
use crate::bench::{Outcome, Progress};

/// How long the last viewer may wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the stream is live before the storm: a whole group of pictures is in the window.
const CALM: Duration = Duration::from_millis(1_500);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the relay is started; all its viewers are in the storm.
    pub relay: Setup,
    /// Bit/s of the stream.
    pub bitrate: u64,
    /// Within this time all of them connect.
    pub ramp: Duration,
    /// Number of storms, each on a fresh relay.
    pub pairs: usize,
}

/// Measures storm by storm and reports.
///
/// # Errors
/// If the relay or a load process fails.
pub fn run(plan: &Plan, progress: Progress<'_>) -> Outcome<Report> {
    let (machine, files) = (machine::describe(), machine::raise_open_files());
    let cores = Cores::of_this_machine(plan.relay.shards)?;
    let mut marks = Vec::with_capacity(plan.pairs);
    let mut io_driver = String::new();
    for number in 1..=plan.pairs {
        let (mark, driver) = storm(plan, &cores, files)?;
        let [p50, p99, max] = mark.first_byte_ms;
        progress(&format!(
            "{number}/{}: first byte p50 {p50:.1} ms, p99 {p99:.1} ms, at most {max:.1} ms, \
             {} failed",
            plan.pairs, mark.failed
        ));
        marks.push(mark);
        io_driver = driver;
    }
    let row = |name: &str, unit, value: &dyn Fn(&Mark) -> f64| {
        Row::new(name, unit, marks.iter().map(value).collect())
    };
    let rows = vec![
        row("time to first byte p50", "ms", &|mark| mark.first_byte_ms[0]),
        row("time to first byte p99", "ms", &|mark| mark.first_byte_ms[1]),
        row("time to first byte, longest", "ms", &|mark| mark.first_byte_ms[2]),
        row("viewers served", "", &|mark| mark.open as f64),
        row("viewers that failed", "", &|mark| mark.failed as f64),
    ];
    let why = marks.iter().find_map(|mark| mark.why.clone());
    let title = format!(
        "join storm: {} viewers in {} s, {:.3} Mbit/s, io_driver {io_driver}",
        plan.relay.viewers,
        plan.ramp.as_secs_f64(),
        plan.bitrate as f64 / 1e6
    );
    let notes = why.map(|why| format!("The first failure: {why}")).into_iter().collect();
    Ok(Report { title, machine, rows, notes, trace: None })
}

fn storm(plan: &Plan, cores: &Cores, files: u64) -> Outcome<(Mark, String)> {
    let life = CALM + plan.ramp + 2 * PATIENCE;
    let relay = Relay::start(&plan.relay, cores)?;
    let _source = relay::publish(relay.http(), plan.bitrate, life, &cores.others)?;
    // One viewer, so that the stream's ring and reader are in use.
    let _probe = Probes::start(1, relay.http(), Duration::ZERO, &cores.others)?;
    thread::sleep(CALM);
    let load = load::Plan {
        to: relay.http(),
        from: FROM,
        path: Some(relay::path()),
        streams: 0,
        connections: plan.relay.viewers,
        ramp: plan.ramp,
        nap: Duration::ZERO,
        bitrate: 0,
        life,
    };
    let mut crowd = Crowd::start(&load, &cores.others, files)?;
    // A refusal is a result here: it is in the mark.
    let _ = crowd.complete(plan.ramp + PATIENCE);
    Ok((crowd.mark()?, relay.io_driver().to_owned()))
}
