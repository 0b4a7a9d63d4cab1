//! HLS players: pairs of the relay and nginx, which serves the same bytes from files in memory.
//!
//! The first half of a pair is the relay with a live stream and its players; beside them a
//! recorder keeps each playlist and each segment with the time at which it came. In the second
//! half these appear as files at the same times, and the same number of players takes them from
//! nginx. The relay also takes the stream in and cuts it, nginx does not.

mod list;
pub mod load;
pub mod nginx;
mod tape;
mod viewer;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::ceiling::cost;
use crate::bench::crowd::{self, Crowd, FROM, NAP};
use crate::bench::hls::load::Mark;
use crate::bench::hls::nginx::Nginx;
use crate::bench::hls::tape::{Player, Recorder, Scene};
use crate::bench::machine::{self, Cores};
use crate::bench::relay::{self, Relay, Setup};
use crate::bench::report::{Report, Row};
use crate::bench::shelf::Shelf;
use crate::bench::work::Work;
use crate::bench::{Outcome, Progress, source};

/// How long the players may take to play, and the stream to have segments.
const PATIENCE: Duration = Duration::from_secs(60);

/// Players begin evenly, this many a second: each loads three segments at once.
const JOINS_PER_SECOND: f64 = 250.0;

/// They begin within this time at least, so that their requests are spread over a segment.
const RAMP_MIN: Duration = Duration::from_secs(2);

/// Segments that must be there before players come: they begin three from the end.
const SEGMENTS: usize = 3;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the relay is started; its viewers are the players.
    pub relay: Setup,
    /// Bit/s of the stream.
    pub bitrate: u64,
    /// How long each half of a pair counts.
    pub length: Duration,
    /// How long the players play before it counts.
    pub warm_up: Duration,
    /// Number of pairs.
    pub pairs: usize,
    /// nginx's program; `None`: the relay alone.
    pub nginx: Option<PathBuf>,
}

/// What one server did for its players.
#[derive(Clone, Debug, Default)]
struct Half {
    cpu: Duration,
    seconds: f64,
    load: Mark,
    /// Bytes per write call, as far as they are counted.
    size: f64,
}

impl Half {
    fn cost(&self) -> f64 {
        cost(self.cpu, self.load.bytes as f64)
    }

    fn errors(&self) -> f64 {
        (self.load.refused + self.load.failed + self.load.missed) as f64
    }
}

struct Pair {
    io_driver: String,
    relay: Half,
    nginx: Option<Half>,
}

/// Measures pair by pair and reports.
///
/// # Errors
/// If the relay, nginx or a load process fails, or players are refused.
pub fn run(plan: &Plan, progress: Progress<'_>) -> Outcome<Report> {
    let (machine, files) = (machine::describe(), machine::raise_open_files());
    let cores = Cores::of_this_machine(plan.relay.shards)?;
    let mut pairs = Vec::with_capacity(plan.pairs);
    for number in 1..=plan.pairs {
        let (io_driver, relay, tape, from) = first_half(plan, &cores, files)?;
        let nginx = plan.nginx.as_deref();
        let nginx = nginx.map(|program| second_half(plan, program, &tape, from, &cores, files));
        let pair = Pair { io_driver, relay, nginx: nginx.transpose()? };
        let say = |name: &str, half: &Half| {
            let (cost, late) = (half.cost(), half.load.late);
            let (segments, errors) = (half.load.segments, half.errors());
            format!("{name} {cost:.3} CPU-s/GB, {late} of {segments} late, {errors} errors")
        };
        let other = pair.nginx.as_ref().map(|half| "; ".to_owned() + &say("nginx", half));
        progress(&format!(
            "{number}/{}: {}{}",
            plan.pairs,
            say("relay", &pair.relay),
            other.unwrap_or_default()
        ));
        pairs.push(pair);
    }
    Ok(report(plan, machine, &pairs))
}

/// The folder of the playlist in addresses.
fn folder() -> String {
    format!("/live/{}/", source::NAME)
}

fn ramp(viewers: usize) -> Duration {
    RAMP_MIN.max(Duration::from_secs_f64(viewers as f64 / JOINS_PER_SECOND))
}

/// The relay: its driver, what it did, what it offered, and when on that tape players came.
fn first_half(
    plan: &Plan,
    cores: &Cores,
    files: u64,
) -> Outcome<(String, Half, Vec<Scene>, Duration)> {
    let relay = Relay::start(&plan.relay, cores)?;
    let life = ramp(plan.relay.viewers) + plan.warm_up + plan.length + 3 * PATIENCE;
    let _source = relay::publish(relay.http(), plan.bitrate, life, &cores.others)?;
    let recorder = Recorder::start(relay.http(), &folder(), &cores.others)?;
    let from = recorder.wait_for(SEGMENTS, PATIENCE)?;
    let mut crowd = join(plan, relay.http(), cores, files)?;
    let clock = Instant::now();
    let first = relay.counters(clock)?;
    crowd.mark()?;
    thread::sleep(plan.length);
    let did = relay.counters(clock)?.since(&first);
    let load = crowd.mark()?;
    let tape = recorder.end()?;
    let size = if did.sends > 0.0 { did.bytes / did.sends } else { 0.0 };
    let half = Half { cpu: did.cpu, seconds: did.at.as_secs_f64(), load, size };
    Ok((relay.io_driver().to_owned(), half, tape, from))
}

fn second_half(
    plan: &Plan,
    program: &Path,
    tape: &[Scene],
    from: Duration,
    cores: &Cores,
    files: u64,
) -> Outcome<Half> {
    let shelf = Shelf::new()?;
    let www = shelf.path().join("www").join("live").join(source::NAME);
    std::fs::create_dir_all(&www)?;
    let nginx = Nginx::start(program, &shelf, plan.relay.viewers, &cores.relay[..1])?;
    let player = Player::start(tape, from, &www, &cores.others)?;
    let mut crowd = join(plan, nginx.http(), cores, files)?;
    let clock = Instant::now();
    let (cpu, [calls, bytes]) = (nginx.cpu()?, nginx.writes()?);
    crowd.mark()?;
    thread::sleep(plan.length);
    let seconds = clock.elapsed().as_secs_f64();
    let cpu = nginx.cpu()?.saturating_sub(cpu);
    let [calls, bytes] = [nginx.writes()?[0] - calls, nginx.writes()?[1] - bytes];
    let load = crowd.mark()?;
    player.end()?;
    let size = if calls > 0 { bytes as f64 / calls as f64 } else { 0.0 };
    Ok(Half { cpu, seconds, load, size })
}

/// The players, after they have warmed up.
fn join(plan: &Plan, to: SocketAddr, cores: &Cores, files: u64) -> Outcome<Crowd<Mark>> {
    let viewers = plan.relay.viewers;
    let ramp = ramp(viewers);
    let shares = crowd::spread(viewers, files, FROM).into_iter();
    let works = shares.map(|share| {
        Work::Hls(load::Plan {
            to,
            from: share.from,
            folder: folder(),
            viewers: share.viewers,
            ramp,
            nap: NAP,
            life: ramp + plan.warm_up + plan.length + 2 * PATIENCE,
        })
    });
    let start = Instant::now();
    let mut crowd = Crowd::of(works, viewers, &cores.others)?;
    crowd.complete(ramp + PATIENCE)?;
    // Both halves count the same time of the tape, however long the last player took.
    thread::sleep((ramp + plan.warm_up).saturating_sub(start.elapsed()));
    Ok(crowd)
}

fn report(plan: &Plan, machine: String, pairs: &[Pair]) -> Report {
    let row = |name: &str, unit, value: &dyn Fn(&Half) -> f64| {
        let relay = pairs.iter().map(|pair| value(&pair.relay)).collect();
        let nginx: Vec<f64> = pairs.iter().filter_map(|p| p.nginx.as_ref()).map(value).collect();
        let mut rows = vec![Row::new(format!("relay: {name}"), unit, relay)];
        if !nginx.is_empty() {
            rows.push(Row::new(format!("nginx: {name}"), unit, nginx));
        }
        rows
    };
    let mut rows = row("cost", "CPU-s/GB", &Half::cost);
    let ratio = |pair: &Pair| Some(pair.nginx.as_ref()?.cost() / pair.relay.cost().max(1e-9));
    let ratios: Vec<f64> = pairs.iter().filter_map(ratio).collect();
    let alone = ratios.is_empty();
    if !alone {
        rows.push(Row::new("ratio: nginx / relay", "", ratios));
    }
    let viewers = plan.relay.viewers.max(1) as f64;
    rows.extend(row("share of its core", "%", &|half| {
        half.cpu.as_secs_f64() / half.seconds.max(f64::MIN_POSITIVE) * 100.0
    }));
    rows.extend(row("received per viewer", "Mbit/s", &|half| {
        half.load.bytes as f64 * 8e-6 / viewers / half.load.seconds.max(f64::MIN_POSITIVE)
    }));
    rows.extend(row("segments", "", &|half| half.load.segments as f64));
    rows.extend(row("segments late", "", &|half| half.load.late as f64));
    rows.extend(row("errors", "", &Half::errors));
    rows.extend(row("bytes per write", "B", &|half| half.size));
    for (name, at) in [("segment load p50", 0), ("segment load p99", 1), ("segment load max", 2)] {
        rows.extend(row(name, "ms", &|half| half.load.load_ms[at]));
    }
    let driver = pairs.first().map_or("", |pair| &pair.io_driver);
    Report {
        title: format!(
            "{} HLS players, {:.3} Mbit/s, {} s, pairs: {}, io_driver {driver}",
            plan.relay.viewers,
            plan.bitrate as f64 / 1e6,
            plan.length.as_secs_f64(),
            pairs.len(),
        ),
        machine,
        rows,
        notes: notes(plan, pairs, alone),
        trace: None,
    }
}

fn notes(plan: &Plan, pairs: &[Pair], alone: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if alone {
        notes.push("no nginx (it was not found in PATH): only the relay was measured".to_owned());
    }
    if plan.pairs < 5 {
        notes.push("fewer than 5 pairs: a trial, not a result".to_owned());
    }
    notes.push(
        "A segment is late if it was not there as a whole when the player came to it; play-out\n\
         begins with the first, three from the end. Errors: refused, lost, or gone from the\n\
         playlist. The relay also takes the stream in and cuts it; nginx has files in memory."
            .to_owned(),
    );
    let halves = pairs.iter().flat_map(|pair| [Some(&pair.relay), pair.nginx.as_ref()]);
    let why = halves.flatten().find_map(|half| half.load.why.as_ref());
    notes.extend(why.map(|why| format!("The first error: {why}")));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(cpu: u64, why: Option<&str>) -> Half {
        let load = Mark {
            seconds: 10.0,
            bytes: 5_000_000_000,
            segments: 10_000,
            late: 3,
            missed: 1,
            refused: 1,
            load_ms: [1.0, 2.0, 3.0],
            why: why.map(str::to_owned),
            ..Mark::default()
        };
        Half { cpu: Duration::from_secs(cpu), seconds: 10.0, load, size: 60_000.0 }
    }

    fn told(nginx: Option<Half>) -> Report {
        let plan = Plan {
            relay: Setup { viewers: 2_000, ..Setup::new("epoll") },
            bitrate: 2_000_000,
            length: Duration::from_secs(10),
            warm_up: Duration::ZERO,
            pairs: 5,
            nginx: None,
        };
        let io_driver = "epoll".to_owned();
        report(&plan, String::new(), &[Pair { io_driver, relay: half(1, None), nginx }])
    }

    #[test]
    fn both_servers_are_reported_side_by_side() {
        let report = told(Some(half(2, Some("404"))));
        let value = |name: &str| report.rows.iter().find(|row| row.name == name).unwrap().median;
        assert_eq!([value("relay: cost"), value("nginx: cost")], [0.2, 0.4]);
        assert_eq!(value("ratio: nginx / relay"), 2.0);
        assert_eq!(value("relay: share of its core"), 10.0);
        assert_eq!(value("nginx: received per viewer"), 2.0);
        assert_eq!([value("relay: segments late"), value("relay: errors")], [3.0, 2.0]);
        assert!(report.notes.last().unwrap().ends_with("404"), "{:?}", report.notes);
    }

    #[test]
    fn without_nginx_the_relay_is_alone() {
        let report = told(None);
        assert!(report.rows.iter().all(|row| row.name.starts_with("relay: ")));
        assert!(report.notes[0].contains("no nginx"));
    }
}
