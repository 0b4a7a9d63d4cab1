//! `headwater bench`: from flags to measurements.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use hdrhistogram::Histogram;

use crate::bench::relay::{Setting, Setup};
use crate::bench::report::{Files, Report};
use crate::bench::work::Work;
use crate::bench::{self, ceiling, http, machine, source, step, storm};
use crate::cli::output;
use crate::io::ceiling::{SIZE_MAX, Way};

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure what a raw send loop costs on this machine: no relay can be cheaper.
    ///
    /// One thread on the first core sends to many connections over loopback; the receivers are
    /// other processes on other cores. Costs are processor seconds per 10^9 bytes.
    Ceiling(CeilingArgs),
    /// Measure the relay with many HTTP viewers, beside a raw send loop.
    ///
    /// Starts the relay on the first cores, and source, viewers and probes on the others. Each
    /// pair is the relay and then a raw send loop with as many connections, the same bytes per
    /// send and the same bytes per second, so the ratio holds for this machine as it is now.
    Http(HttpArgs),
    /// Measure the relay with many HLS players, beside nginx with the same playlist and segments.
    ///
    /// Each pair is the relay and then nginx, which serves from memory what the relay has served,
    /// at the same pace, to as many players. nginx is taken from PATH.
    Hls(HlsArgs),
    /// Measure the relay with many peers of its swarm, beside a raw loop that sends trains.
    ///
    /// Every peer gets every subtree from the relay and answers it with one ACK. Each pair is the
    /// relay and then the raw loop, to as many sockets and at as many bytes per second.
    Swarm(SwarmArgs),
    /// Let many viewers join at once and measure the time to their first byte.
    Storm(StormArgs),
    /// Let few viewers become many within seconds, and trace how the relay's coalescing follows.
    ///
    /// A busy relay gathers bytes longer before it sends them. The trace shows four times a
    /// second how long, how busy it was, the bytes per send and the delay at the probes; the
    /// report says whether the interval oscillates.
    Step(StepArgs),
    /// Publish very many small streams and a large one at once, and see whether anybody starves.
    Streams(StreamsArgs),
    /// Be a load process.
    #[command(hide = true)]
    Load(LoadArgs),
    /// Be the publisher.
    #[command(hide = true)]
    Source(SourceArgs),
    /// Remove a folder when the input ends.
    #[command(hide = true)]
    Sweep { folder: PathBuf },
    /// Become a program, on some cores.
    #[command(hide = true)]
    Pinned(PinnedArgs),
}

/// How the relay under test is started.
#[derive(Debug, clap::Args)]
struct RelayArgs {
    /// How the relay asks the kernel.
    #[arg(long, value_name = "auto|uring|epoll", default_value = "auto")]
    io_driver: String,
    /// Threads of the relay.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    shards: usize,
    /// Set a key of the relay's configuration; may be given many times.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = Setting::parse)]
    settings: Vec<Setting>,
}

#[derive(Debug, clap::Args)]
struct RateArgs {
    /// Bits per second of the stream: a number, or with k or M.
    #[arg(long, value_name = "RATE", default_value = "2M", value_parser = bitrate)]
    bitrate: u64,
}

#[derive(Debug, clap::Args)]
struct CeilingArgs {
    /// Bytes per send, joined by commas.
    #[arg(long, value_delimiter = ',', default_value = "1316,16384,61440", value_parser = size)]
    sizes: Vec<usize>,
    /// Number of connections.
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = at_least_one)]
    connections: usize,
    /// Bits per second of each connection; 0: as fast as the receivers take it.
    #[arg(long, value_name = "RATE", default_value = "2M", value_parser = pace)]
    bitrate: u64,
    /// How the kernel is asked.
    #[arg(long, value_name = "both|uring|epoll", default_value = "both", value_parser = ways)]
    io_driver: Ways,
    /// Seconds of each measurement.
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// How often each is measured; they take turns.
    #[arg(long, value_name = "P", default_value_t = 5, value_parser = at_least_one)]
    pairs: usize,
    #[command(flatten)]
    files: FileArgs,
}

#[derive(Debug, clap::Args)]
struct HttpArgs {
    /// Number of viewers.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    viewers: usize,
    #[command(flatten)]
    relay: RelayArgs,
    #[command(flatten)]
    rate: RateArgs,
    /// Seconds that count of each half of a pair.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Seconds that the viewers watch before it counts.
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    warm_up: Duration,
    /// Number of pairs; fewer than 5 are a trial.
    #[arg(long, value_name = "P", default_value_t = 5, value_parser = at_least_one)]
    pairs: usize,
    /// Viewers that measure the delay.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    probes: usize,
    /// Seconds behind live at which a probe plays: what comes later than that is a stall.
    #[arg(long, value_name = "S", default_value = "0.3", value_parser = seconds)]
    behind: Duration,
    #[command(flatten)]
    files: FileArgs,
    /// Write the delays to this file, as HdrHistogram percentiles in milliseconds.
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct HlsArgs {
    /// Number of players.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    viewers: usize,
    #[command(flatten)]
    relay: RelayArgs,
    #[command(flatten)]
    rate: RateArgs,
    /// Seconds that count of each half of a pair.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Seconds that the players play before it counts.
    #[arg(long, value_name = "S", default_value = "4", value_parser = seconds)]
    warm_up: Duration,
    /// Number of pairs; fewer than 5 are a trial.
    #[arg(long, value_name = "P", default_value_t = 5, value_parser = at_least_one)]
    pairs: usize,
    /// nginx's program, if it is not in PATH; none: the relay alone.
    #[arg(long, value_name = "PATH|none")]
    nginx: Option<PathBuf>,
    #[command(flatten)]
    files: FileArgs,
}

#[derive(Debug, clap::Args)]
struct SwarmArgs {
    /// Number of peers.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    peers: usize,
    #[command(flatten)]
    relay: RelayArgs,
    #[command(flatten)]
    rate: RateArgs,
    /// Sockets of the peers, each with an address of its own from 127.0.1.1 on.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = sockets)]
    sockets: u8,
    /// Seconds that count of each half of a pair.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Seconds that the peers are served before it counts.
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    warm_up: Duration,
    /// Number of pairs; fewer than 5 are a trial.
    #[arg(long, value_name = "P", default_value_t = 5, value_parser = at_least_one)]
    pairs: usize,
    /// Peers that verify everything and measure the delay.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    probes: usize,
    /// Seconds behind live at which a probe plays: what comes later than that is a stall.
    #[arg(long, value_name = "S", default_value = "1.5", value_parser = seconds)]
    behind: Duration,
    #[command(flatten)]
    files: FileArgs,
    /// Write the delays to this file, as HdrHistogram percentiles in milliseconds.
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct StormArgs {
    /// Number of viewers.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = at_least_one)]
    connections: usize,
    /// Seconds within which all of them connect.
    #[arg(long, value_name = "S", default_value = "0.4", value_parser = seconds)]
    seconds: Duration,
    #[command(flatten)]
    relay: RelayArgs,
    #[command(flatten)]
    rate: RateArgs,
    /// Number of storms.
    #[arg(long, value_name = "P", default_value_t = 5, value_parser = at_least_one)]
    pairs: usize,
    #[command(flatten)]
    files: FileArgs,
}

#[derive(Debug, clap::Args)]
struct StepArgs {
    /// Number of viewers at the beginning.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    viewers: usize,
    /// Number of viewers at the end.
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = at_least_one)]
    to: usize,
    /// Seconds within which the others come.
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// Seconds that it is watched after they came.
    #[arg(long, value_name = "S", default_value = "20", value_parser = seconds)]
    watch: Duration,
    #[command(flatten)]
    relay: RelayArgs,
    #[command(flatten)]
    rate: RateArgs,
    #[command(flatten)]
    files: FileArgs,
}

#[derive(Debug, clap::Args)]
struct StreamsArgs {
    /// Number of small streams.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = streams)]
    streams: usize,
    /// Bits per second of each of them.
    #[arg(long, value_name = "RATE", default_value = "200k", value_parser = bitrate)]
    bitrate: u64,
    /// Bits per second of the large stream.
    #[arg(long, value_name = "RATE", default_value = "20M", value_parser = bitrate)]
    large: u64,
    /// Viewers of every stream.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least_one)]
    viewers: usize,
    #[command(flatten)]
    relay: RelayArgs,
    /// Seconds that count.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Seconds that the viewers watch before it counts.
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    warm_up: Duration,
    /// Number of measurements.
    #[arg(long, value_name = "P", default_value_t = 1, value_parser = at_least_one)]
    pairs: usize,
    #[command(flatten)]
    files: FileArgs,
}

#[derive(Debug, clap::Args)]
struct FileArgs {
    /// Write the report to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct LoadArgs {
    #[arg(value_parser = Work::parse)]
    work: Work,
}

#[derive(Debug, clap::Args)]
struct SourceArgs {
    #[arg(long)]
    to: SocketAddr,
    #[arg(long)]
    bitrate: u64,
    #[arg(long, value_parser = seconds)]
    life: Duration,
    #[arg(long, value_delimiter = ',')]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct PinnedArgs {
    #[arg(long)]
    parent: u32,
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    #[arg(long)]
    program: PathBuf,
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Which ways a raw send loop goes.
#[derive(Clone, Debug)]
struct Ways(Vec<Way>);

fn ways(text: &str) -> Result<Ways, String> {
    match text {
        "both" => Ok(Ways(vec![Way::Uring, Way::Epoll])),
        "uring" => Ok(Ways(vec![Way::Uring])),
        "epoll" => Ok(Ways(vec![Way::Epoll])),
        _ => Err("it is both, uring or epoll".to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "a whole number from 1".to_owned())
}

fn sockets(text: &str) -> Result<u8, String> {
    text.parse().ok().filter(|n| (1..=250).contains(n)).ok_or_else(|| "1 to 250".to_owned())
}

fn streams(text: &str) -> Result<usize, String> {
    let most = bench::streams::STREAMS_MAX;
    at_least_one(text).ok().filter(|n| *n <= most).ok_or_else(|| format!("1 to {most}"))
}

fn size(text: &str) -> Result<usize, String> {
    at_least_one(text)
        .ok()
        .filter(|n| *n <= SIZE_MAX)
        .ok_or_else(|| format!("a number of bytes from 1 to {SIZE_MAX}"))
}

/// The longest time that may be asked for: a day.
const SECONDS_MAX: f64 = 86_400.0;

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|s| (0.0..=SECONDS_MAX).contains(s));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "seconds from 0 to 86400".to_owned())
}

/// The highest bitrate that may be asked for.
const BITRATE_MAX: u64 = 10_000_000_000;

fn pace(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    let rate = digits.parse::<f64>().ok().map(|rate| rate * unit);
    let rate = rate.filter(|rate| (0.0..=BITRATE_MAX as f64).contains(rate));
    rate.map(|rate| rate as u64).ok_or_else(|| "bit/s, such as 64k or 2M".to_owned())
}

fn bitrate(text: &str) -> Result<u64, String> {
    let least = source::BITRATE_MIN;
    match pace(text)? {
        rate if rate >= least => Ok(rate),
        _ => Err(format!("at least {least} bit/s")),
    }
}

impl RelayArgs {
    fn setup(&self, viewers: usize) -> Setup {
        Setup {
            io_driver: self.io_driver.clone(),
            shards: self.shards,
            viewers,
            streams: 1,
            settings: self.settings.clone(),
        }
    }
}

/// Runs one of the measurements, or as one of their children.
pub fn bench(args: Args) -> ExitCode {
    let outcome = match args.command {
        Command::Ceiling(args) => run_ceiling(args),
        Command::Http(args) => run_http(args),
        Command::Storm(args) => run_storm(args),
        Command::Step(args) => run_step(args),
        Command::Hls(args) => run_hls(args),
        Command::Swarm(args) => run_swarm(args),
        Command::Sweep { folder } => bench::shelf::sweep(&folder).map(|()| None),
        Command::Streams(args) => run_streams(args),
        Command::Load(args) => args.work.run().map(|()| None),
        Command::Source(args) => {
            source::run(args.to, &args.names, args.bitrate, args.life).map(|()| None)
        }
        Command::Pinned(args) => {
            let PinnedArgs { parent, cores, program, arguments } = args;
            Err(machine::become_pinned(parent, &cores, &program, &arguments))
        }
    };
    match outcome {
        Ok(Some(report)) => output::say(&report.table()),
        Ok(None) => ExitCode::SUCCESS,
        Err(why) => {
            output::complain(&format!("error: {why}\n"));
            ExitCode::FAILURE
        }
    }
}

fn progress(line: &str) {
    output::complain(&format!("{line}\n"));
}

fn save(
    report: Report,
    files: FileArgs,
    hdr: Option<PathBuf>,
    delays: &Histogram<u64>,
) -> bench::Outcome<Option<Report>> {
    report.write(&Files { json: files.json, hdr }, delays)?;
    Ok(Some(report))
}

fn run_ceiling(args: CeilingArgs) -> bench::Outcome<Option<Report>> {
    let plan = ceiling::Plan {
        ways: args.io_driver.0,
        sizes: args.sizes,
        connections: args.connections,
        bitrate: args.bitrate,
        length: args.seconds,
        pairs: args.pairs,
    };
    save(ceiling::run(&plan, &progress)?, args.files, None, &Histogram::new(3)?)
}

fn run_http(args: HttpArgs) -> bench::Outcome<Option<Report>> {
    let plan = http::Plan {
        relay: args.relay.setup(args.viewers),
        bitrate: args.rate.bitrate,
        length: args.seconds,
        warm_up: args.warm_up,
        pairs: args.pairs,
        probes: args.probes,
        behind: args.behind,
    };
    let (report, delays) = http::run(&plan, &progress)?;
    save(report, args.files, args.hdr, &delays)
}

fn run_hls(args: HlsArgs) -> bench::Outcome<Option<Report>> {
    let nginx = match args.nginx {
        None => bench::hls::nginx::find(),
        Some(path) if path.as_os_str() == "none" => None,
        Some(path) if path.is_file() => Some(path),
        Some(path) => return Err(format!("there is no {}", path.display()).into()),
    };
    let plan = bench::hls::Plan {
        relay: args.relay.setup(args.viewers),
        bitrate: args.rate.bitrate,
        length: args.seconds,
        warm_up: args.warm_up,
        pairs: args.pairs,
        nginx,
    };
    save(bench::hls::run(&plan, &progress)?, args.files, None, &Histogram::new(3)?)
}

fn run_swarm(args: SwarmArgs) -> bench::Outcome<Option<Report>> {
    let plan = bench::swarm::Plan {
        relay: args.relay.setup(args.peers),
        bitrate: args.rate.bitrate,
        sockets: args.sockets,
        length: args.seconds,
        warm_up: args.warm_up,
        pairs: args.pairs,
        probes: args.probes,
        behind: args.behind,
    };
    let (report, delays) = bench::swarm::run(&plan, &progress)?;
    save(report, args.files, args.hdr, &delays)
}

fn run_storm(args: StormArgs) -> bench::Outcome<Option<Report>> {
    let plan = storm::Plan {
        relay: args.relay.setup(args.connections),
        bitrate: args.rate.bitrate,
        ramp: args.seconds,
        pairs: args.pairs,
    };
    save(storm::run(&plan, &progress)?, args.files, None, &Histogram::new(3)?)
}

fn run_step(args: StepArgs) -> bench::Outcome<Option<Report>> {
    if args.to <= args.viewers {
        return Err("--to must be more than --viewers: it is a step up".into());
    }
    let plan = step::Plan {
        relay: args.relay.setup(args.to),
        bitrate: args.rate.bitrate,
        from: args.viewers,
        ramp: args.seconds,
        watch: args.watch,
    };
    save(step::run(&plan, &progress)?, args.files, None, &Histogram::new(3)?)
}

fn run_streams(args: StreamsArgs) -> bench::Outcome<Option<Report>> {
    let plan = bench::streams::Plan {
        relay: args.relay.setup(0),
        small: args.streams,
        bitrate: args.bitrate,
        large: args.large,
        viewers: args.viewers,
        length: args.seconds,
        warm_up: args.warm_up,
        pairs: args.pairs,
    };
    let report = bench::streams::run(&plan.seated(), &progress)?;
    save(report, args.files, None, &Histogram::new(3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        assert_eq!(bitrate("2M"), Ok(2_000_000));
        assert_eq!(bitrate("64k"), Ok(64_000));
        assert_eq!(bitrate("1.5M"), Ok(1_500_000));
        assert_eq!(pace("0"), Ok(0));
        for text in ["0", "59k", "2G", "-1M", "", "M", "nan", "1e99"] {
            assert!(bitrate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_in_bounds() {
        assert_eq!(seconds("0.4"), Ok(Duration::from_millis(400)));
        assert!(["-1", "nan", "inf", "90000", "x"].iter().all(|text| seconds(text).is_err()));
        assert!(at_least_one("0").is_err() && size("65537").is_err());
        assert_eq!(size("65536"), Ok(SIZE_MAX));
    }
}
