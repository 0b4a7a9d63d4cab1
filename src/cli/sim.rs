//! `headwater sim`: from flags to a world, and what came of it.

mod musts;
mod report;

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[cfg(feature = "planted")]
use crate::base::planted::{self, Plant};
use crate::cli::output;
use crate::sim::policy::Policy;
use crate::sim::scenario::{ALL, Scenario};
use crate::sim::{self, Plan, Report, Summary, Trace};
use crate::swarm::settings::Mode;

/// The most viewers: each takes most of a megabyte.
const PEERS_MAX: u64 = 50_000;

/// Those of a world of which nothing else is said.
const PEERS: u64 = 100;

/// The longest time of a world in seconds.
const SECONDS_MAX: f64 = 86_400.0;

/// The time of a world of which nothing else is said.
const SECONDS: Duration = Duration::from_secs(60);

/// Arguments of `sim`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What decides everything that happens.
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Play so many seeds, from `--seed` on, and say what they came to together.
    /// [default: 1; of `--must`: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds: Option<u64>,
    /// Play as many seeds, from `--seed` on, as begin within so many seconds of real time.
    #[arg(long, value_name = "S", value_parser = seconds,
          conflicts_with_all = ["seeds", "report", "must", "each", "trace"])]
    budget: Option<Duration>,
    /// Viewers. [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=PEERS_MAX))]
    peers: Option<u64>,
    /// The stream's bitrate: 2mbit, 500kbit, or bits per second.
    #[arg(long, value_name = "RATE", default_value = "2mbit", value_parser = bitrate)]
    bitrate: u64,
    /// How long, in virtual seconds from the first viewer on. Offload, duplicates and control are
    /// judged by the last 60. [default: 60; of `--must`: 90]
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<Duration>,
    /// What happens: steady, churn, poor, asymmetric, nats, mobile, lossy, blocked, flash, crowd,
    /// leave, region, restart, cut, egress, overload, hiccup, standstill, longgop, skew, frozen,
    /// frozen10, corrupt, corrupt10, riders, boasters, eclipse, spoof, direct, namespaces or
    /// chaos. A wrong name prints what each is.
    #[arg(long, value_name = "NAME", default_value = "steady", value_parser = scenario)]
    scenario: Scenario,
    /// Who sends what to viewers: auto, direct or hybrid, instead of the scenario's.
    #[arg(long, value_name = "MODE", value_parser = mode)]
    mode: Option<Mode>,
    /// How that is decided: swarm, as in production; relay, pull or random, to compare it with.
    #[arg(long, value_name = "NAME", default_value = "swarm", value_parser = report::policy)]
    policy: Policy,
    /// Seconds from one key frame to the next.
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    gop: Duration,
    /// Random loss on every viewer's line, in percent, instead of the scenario's.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    loss: Option<u32>,
    /// Viewers that leave and that come in a second, in percent, instead of the scenario's.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    churn: Option<u32>,
    /// Hash and verify everything for every viewer. Slower; the digest is the same.
    #[arg(long)]
    full_integrity: bool,
    /// Plant a bug, which is to be found.
    #[cfg(feature = "planted")]
    #[arg(long, value_name = "NAME", value_parser = plant)]
    plant: Option<Plant>,
    /// Print a line about each viewer as well.
    #[arg(long)]
    each: bool,
    /// Print what happens to one host: relay, or peer:17.
    #[arg(long, value_name = "HOST", value_parser = host)]
    trace: Option<usize>,
    /// Play the scenario for several audiences and policies, and write tables and plots into this
    /// directory: after each world all that is known by then. Given again it goes on there.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["each", "trace", "peers", "policy"])]
    report: Option<PathBuf>,
    /// The audiences of a report.
    #[arg(long, value_name = "N", value_delimiter = ',', requires = "report",
          default_value = "10,30,100,300,1000",
          value_parser = clap::value_parser!(u64).range(1..=PEERS_MAX))]
    audiences: Vec<u64>,
    /// The policies of a report.
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "report",
          default_value = "swarm,relay,pull,random", value_parser = report::policy)]
    policies: Vec<Policy>,
    /// Play what shows one thing that must be reached, and say whether it is; or `list` them.
    #[arg(long, value_name = "NAME", value_parser = musts::row,
          conflicts_with_all = ["report", "each", "trace", "scenario", "gop"])]
    must: Option<musts::Row>,
}

/// Plays the worlds.
pub fn sim(args: &Args) -> ExitCode {
    #[cfg(feature = "planted")]
    planted::plant(args.plant);
    match (&args.report, &args.must) {
        (Some(dir), _) => report::report(args, dir),
        (None, Some(row)) => musts::must(args, row),
        (None, None) => match args.budget {
            Some(budget) => search(args, budget),
            None => worlds(args),
        },
    }
}

/// Plays a world for each seed until the time is over, and prints a line about each.
fn search(args: &Args, budget: Duration) -> ExitCode {
    let (mut summary, began) = (Summary::default(), Instant::now());
    for seed in args.seed.. {
        if began.elapsed() >= budget {
            break;
        }
        match play(plan(args, seed)) {
            Ok((report, line)) => {
                output::say(&line);
                summary.add(&report);
            }
            Err(why) => {
                output::complain(&format!("error: {why}\n"));
                return ExitCode::FAILURE;
            }
        }
    }
    output::say(&summary.to_string());
    if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays a world for each seed, and prints all of each.
fn worlds(args: &Args) -> ExitCode {
    let (mut summary, seeds) = (Summary::default(), seeds(args, 1));
    for seed in seeds.clone() {
        let (plan, began) = (plan(args, seed), Instant::now());
        let time = plan.time.as_secs_f64();
        let report = match sim::run(plan, args.trace.map(trace)) {
            Ok(report) => report,
            Err(why) => {
                output::complain(&format!("error: {why}\n"));
                return ExitCode::FAILURE;
            }
        };
        let took = began.elapsed().as_secs_f64();
        if args.each {
            report.each.iter().for_each(|line| {
                let _ = output::say(&format!("{line}\n"));
            });
        }
        let speed = time / took.max(1e-9);
        output::say(&format!("{report}played in {took:.1} s, {speed:.1} times real time\n"));
        summary.add(&report);
    }
    if seeds.end - seeds.start > 1 {
        output::say(&summary.to_string());
    }
    if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The seeds that are to be played, if nobody says otherwise as many as `usual`.
fn seeds(args: &Args, usual: u64) -> Range<u64> {
    args.seed..args.seed.saturating_add(args.seeds.unwrap_or(usual))
}

/// Plays a world, and says in a line what came of it and how to play it again.
fn play(plan: Plan) -> Result<(Report, String), String> {
    let (command, began) = (plan.command(), Instant::now());
    let report = sim::run(plan, None)?;
    let (took, line) = (began.elapsed().as_secs_f64(), report.line());
    Ok((report, format!("{line}; {took:.1} s\n  {command}\n")))
}

fn plan(args: &Args, seed: u64) -> Plan {
    let mut scenario = args.scenario.clone();
    args.policy.apply(&mut scenario);
    scenario.faults.loss = args.loss.unwrap_or(scenario.faults.loss);
    scenario.mode = args.mode.unwrap_or(scenario.mode);
    scenario.churn = args.churn.unwrap_or(scenario.churn);
    Plan {
        seed,
        peers: usize::try_from(args.peers.unwrap_or(PEERS)).unwrap_or(usize::MAX),
        bitrate: args.bitrate,
        gop: args.gop,
        time: args.seconds.unwrap_or(SECONDS),
        scenario,
        remember: !args.full_integrity,
    }
}

fn trace(host: usize) -> Trace {
    let sink = Box::new(|line: &str| {
        let _ = output::say(&format!("{line}\n"));
    });
    Trace { host, sink }
}

fn host(name: &str) -> Result<usize, String> {
    sim::host(name).ok_or_else(|| "relay, or peer:N with N from 1 on".to_owned())
}

fn mode(name: &str) -> Result<Mode, String> {
    match name {
        "auto" => Ok(Mode::Auto),
        "direct" => Ok(Mode::Direct),
        "hybrid" => Ok(Mode::Hybrid),
        _ => Err("auto, direct or hybrid".to_owned()),
    }
}

#[cfg(feature = "planted")]
fn plant(name: &str) -> Result<Plant, String> {
    let found = Plant::ALL.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, plant)| plant).ok_or_else(|| {
        let known = Plant::ALL.map(|(name, _)| name);
        format!("known are {}", known.join(", "))
    })
}

fn scenario(name: &str) -> Result<Scenario, String> {
    Scenario::named(name).ok_or_else(|| {
        let known = ALL.map(|scenario| format!("{} ({})", scenario.name, scenario.about));
        format!("known are {}", known.join("; "))
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|s| (0.1..=SECONDS_MAX).contains(s));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("from 0.1 to {SECONDS_MAX}"))
}

/// Percent as parts per million.
fn percent(text: &str) -> Result<u32, String> {
    let percent = text.parse::<f64>().ok().filter(|p| (0.0..=100.0).contains(p));
    // At most a million.
    percent.map(|p| (p * 10_000.0).round() as u32).ok_or_else(|| "from 0 to 100".to_owned())
}

fn bitrate(text: &str) -> Result<u64, String> {
    let units = [("kbit", 1e3), ("mbit", 1e6), ("k", 1e3), ("M", 1e6), ("", 1.0)];
    let split = units.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)));
    let bits = split.and_then(|(number, size)| Some(number.parse::<f64>().ok()? * size));
    let bits = bits.filter(|bits| (100e3..=100e6).contains(bits));
    bits.map(|bits| bits as u64).ok_or_else(|| "from 100kbit to 100mbit".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        assert_eq!(bitrate("2mbit"), Ok(2_000_000));
        assert_eq!(bitrate("500kbit"), Ok(500_000));
        assert_eq!([bitrate("1.5M"), bitrate("1500000")], [Ok(1_500_000), Ok(1_500_000)]);
        assert!(bitrate("2").is_err() && bitrate("fast").is_err());
        assert_eq!([percent("0.2"), percent("5")], [Ok(2_000), Ok(50_000)]);
        assert!(percent("101").is_err() && seconds("0").is_err());
        assert!(scenario("nothing").is_err() && scenario("steady").is_ok());
    }
}
