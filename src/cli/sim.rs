//! `headwater sim`: from flags to a world, and what came of it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

#[cfg(feature = "planted")]
use crate::base::planted::{self, Plant};
use crate::cli::output;
use crate::sim::scenario::{ALL, Scenario};
use crate::sim::{self, Plan, Summary, Trace};
use crate::swarm::settings::Mode;

/// The most viewers: each takes some megabytes.
const PEERS_MAX: u64 = 20_000;

/// The longest time of a world in seconds.
const SECONDS_MAX: f64 = 86_400.0;

/// Arguments of `sim`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What decides everything that happens.
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Play so many seeds, from `--seed` on, and say what they came to together.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seeds: u64,
    /// Viewers.
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=PEERS_MAX))]
    peers: u64,
    /// The stream's bitrate: 2mbit, 500kbit, or bits per second.
    #[arg(long, value_name = "RATE", default_value = "2mbit", value_parser = bitrate)]
    bitrate: u64,
    /// How long, in virtual seconds from the first viewer on. Offload, duplicates and control are
    /// judged by the last 60.
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
    seconds: Duration,
    /// What happens: steady, poor, lossy, flash, leave, frozen, corrupt, spoof, restart, cut,
    /// blocked, direct or namespaces.
    #[arg(long, value_name = "NAME", default_value = "steady", value_parser = scenario)]
    scenario: Scenario,
    /// Who sends what to viewers: auto, direct or hybrid, instead of the scenario's.
    #[arg(long, value_name = "MODE", value_parser = mode)]
    mode: Option<Mode>,
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
}

/// Plays the worlds.
pub fn sim(args: &Args) -> ExitCode {
    #[cfg(feature = "planted")]
    planted::plant(args.plant);
    let mut summary = Summary::default();
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        let began = Instant::now();
        let report = match sim::run(plan(args, seed), args.trace.map(trace)) {
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
        let speed = args.seconds.as_secs_f64() / took.max(1e-9);
        output::say(&format!("{report}played in {took:.1} s, {speed:.1} times real time\n"));
        summary.add(&report);
    }
    if args.seeds > 1 {
        output::say(&summary.to_string());
    }
    if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plan(args: &Args, seed: u64) -> Plan {
    let mut scenario = args.scenario.clone();
    scenario.faults.loss = args.loss.unwrap_or(scenario.faults.loss);
    scenario.mode = args.mode.unwrap_or(scenario.mode);
    scenario.churn = args.churn.unwrap_or(scenario.churn);
    Plan {
        seed,
        peers: usize::try_from(args.peers).unwrap_or(usize::MAX),
        bitrate: args.bitrate,
        gop: args.gop,
        time: args.seconds,
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
