//! Viewers over HTTP: pairs of the relay and the raw send loop, at equal bytes per send.

use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::bench::ceiling::{self, cost};
use crate::bench::crowd::{Crowd, FROM, NAP};
use crate::bench::load::{self, Mark};
use crate::bench::machine::{self, Cores};
use crate::bench::playout::PlayOut;
use crate::bench::probe::Probes;
use crate::bench::relay::{self, Counters, Relay, Setup};
use crate::bench::report::{Report, Row};
use crate::bench::{Outcome, Progress};
use crate::io::ceiling::{SIZE_MAX, Way};

/// How long the viewers may take to be served.
const PATIENCE: Duration = Duration::from_secs(60);

/// Viewers join evenly, this many a second.
const JOINS_PER_SECOND: f64 = 2_000.0;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the relay is started.
    pub relay: Setup,
    /// Bit/s of the stream.
    pub bitrate: u64,
    /// How long each half of a pair counts.
    pub length: Duration,
    /// How long the viewers watch before it counts.
    pub warm_up: Duration,
    /// Number of pairs.
    pub pairs: usize,
    /// Viewers that look at the time markers.
    pub probes: usize,
    /// How far behind live a probe plays.
    pub behind: Duration,
}

/// What one pair has shown.
struct Pair {
    relay: Counters,
    io_driver: String,
    load: Mark,
    play: PlayOut,
    /// Bytes per viewer: what the relay has allocated, what of it is resident, and the kernel's.
    memory: [f64; 3],
    /// CPU-s/GB of the raw send loop.
    ceiling: f64,
}

impl Pair {
    fn size(&self) -> f64 {
        if self.relay.sends > 0.0 { self.relay.bytes / self.relay.sends } else { 0.0 }
    }

    fn cost(&self) -> f64 {
        cost(self.relay.cpu, self.relay.bytes)
    }

    fn seconds(&self) -> f64 {
        self.relay.at.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn quantile_ms(&self, quantile: f64) -> f64 {
        self.play.delays.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Measures pair by pair and reports; the delays of all probes are beside the report.
///
/// # Errors
/// If the relay, a load process or a probe fails, or viewers are refused.
pub fn run(plan: &Plan, progress: Progress<'_>) -> Outcome<(Report, Histogram<u64>)> {
    let (machine, files) = (machine::describe(), machine::raise_open_files());
    let cores = Cores::of_this_machine(plan.relay.shards)?;
    let mut delays = PlayOut::new(plan.behind)?.delays;
    let mut pairs = Vec::with_capacity(plan.pairs);
    for number in 1..=plan.pairs {
        let mut pair = watch(plan, &cores, files)?;
        pair.ceiling = bare(plan, &pair, &cores, files)?;
        delays.add(&pair.play.delays)?;
        progress(&format!(
            "{number}/{}: relay {:.3} CPU-s/GB at {:.0} B per send, ceiling {:.3}; p99 {:.1} ms, \
             {} slow, {} stalls",
            plan.pairs,
            pair.cost(),
            pair.size(),
            pair.ceiling,
            pair.quantile_ms(0.99),
            pair.load.slow,
            pair.play.stalls,
        ));
        pairs.push(pair);
    }
    Ok((report(plan, machine, &cores, &pairs), delays))
}

/// The first half of a pair: the relay with its viewers.
fn watch(plan: &Plan, cores: &Cores, files: u64) -> Outcome<Pair> {
    let viewers = plan.relay.viewers;
    let ramp = Duration::from_secs_f64(viewers as f64 / JOINS_PER_SECOND);
    let life = ramp + plan.warm_up + plan.length + 2 * PATIENCE;
    let relay = Relay::start(&plan.relay, cores)?;
    let _source = relay::publish(relay.http(), plan.bitrate, life, &cores.others)?;
    let probes = Probes::start(plan.probes, relay.http(), plan.behind, &cores.others)?;
    let load = load::Plan {
        to: relay.http(),
        from: FROM,
        path: Some(relay::path()),
        streams: 0,
        connections: viewers,
        ramp,
        nap: NAP,
        bitrate: plan.bitrate,
        life,
    };
    let memory = || -> Outcome<[u64; 3]> {
        let machine::Memory { own, resident } = relay.memory()?;
        Ok([own, resident, machine::kernel_memory()])
    };
    let before = memory()?;
    let mut crowd = Crowd::start(&load, &cores.others, files)?;
    crowd.complete(ramp + PATIENCE)?;
    thread::sleep(plan.warm_up);
    let clock = Instant::now();
    let first = relay.counters(clock)?;
    crowd.mark()?;
    probes.begin();
    thread::sleep(plan.length);
    let last = relay.counters(clock)?;
    let load = crowd.mark()?;
    let after = memory()?;
    let play = probes.end(plan.behind)?;
    let each = |n: usize| (after[n] as f64 - before[n] as f64) / viewers.max(1) as f64;
    Ok(Pair {
        relay: last.since(&first),
        io_driver: relay.io_driver().to_owned(),
        load,
        play,
        memory: [each(0), each(1), each(2)],
        ceiling: 0.0,
    })
}

/// The second half: the raw send loop, as many connections, bytes per send and per second.
fn bare(plan: &Plan, pair: &Pair, cores: &Cores, files: u64) -> Outcome<f64> {
    let viewers = plan.relay.viewers + plan.probes;
    let way = if pair.io_driver == "epoll" { Way::Epoll } else { Way::Uring };
    let size = (pair.size().round() as usize).clamp(1, SIZE_MAX);
    let bits = pair.relay.bytes * 8.0 / pair.seconds() / viewers.max(1) as f64;
    let same = ceiling::Plan {
        ways: vec![way],
        sizes: vec![size],
        connections: viewers,
        bitrate: (bits as u64).max(1),
        length: plan.length,
        pairs: 1,
    };
    let sent = ceiling::measure(way, size, &same, cores, files)?;
    Ok(cost(sent.cpu, sent.bytes as f64))
}

fn report(plan: &Plan, machine: String, cores: &Cores, pairs: &[Pair]) -> Report {
    let viewers = (plan.relay.viewers + plan.probes).max(1) as f64;
    let row = |name: &str, unit, value: &dyn Fn(&Pair) -> f64| {
        Row::new(name, unit, pairs.iter().map(value).collect())
    };
    let share = |time: Duration, pair: &Pair| time.as_secs_f64() / pair.seconds() * 100.0;
    let foreign = |p: &Pair| share(p.relay.busy.saturating_sub(p.relay.cpu), p);
    let mut rows = vec![
        row("relay", "CPU-s/GB", &Pair::cost),
        row("raw send loop, same bytes/send", "CPU-s/GB", &|p| p.ceiling),
        row("ratio: raw send loop / relay", "", &|p| p.ceiling / p.cost().max(f64::MIN_POSITIVE)),
        row("bytes per send", "B", &Pair::size),
        row("system calls per viewer-second", "", &|p| {
            p.relay.calls(&p.io_driver) / viewers / p.seconds()
        }),
        row("sends that blocked", "", &|p| p.relay.blocked),
        row("relay's share of its cores", "%", &|p| {
            share(p.relay.cpu, p) / cores.relay.len() as f64
        }),
        row("others on the relay's cores", "%", &|p| foreign(p) / cores.relay.len() as f64),
        row("received per viewer", "Mbit/s", &|p| {
            let each = p.load.bytes as f64 / plan.relay.viewers.max(1) as f64;
            each * 8e-6 / p.load.seconds.max(f64::MIN_POSITIVE)
        }),
        row("viewers under 97 % of the rate", "", &|p| p.load.slow as f64),
        row("viewer-seconds without a byte", "", &|p| p.load.silent as f64),
    ];
    for (name, quantile) in [("delay p50", 0.5), ("delay p99", 0.99), ("delay p99.9", 0.999)] {
        rows.push(row(name, "ms", &|p| p.quantile_ms(quantile)));
    }
    rows.extend([
        row("markers seen by the probes", "", &|p| p.play.delays.len() as f64),
        row("stalls at the probes", "", &|p| p.play.stalls as f64),
        row("stalled at the probes", "s", &|p| p.play.stalled.as_secs_f64()),
        row("relay's own memory per viewer", "kB", &|p| p.memory[0] / 1e3),
        row("resident memory per viewer", "kB", &|p| p.memory[1] / 1e3),
        row("kernel memory per viewer", "kB", &|p| p.memory[2] / 1e3),
    ]);
    Report {
        title: format!(
            "{} viewers and {} probes, {:.3} Mbit/s, {} for {} s, pairs: {}, io_driver {}",
            plan.relay.viewers,
            plan.probes,
            plan.bitrate as f64 / 1e6,
            if plan.relay.shards == 1 {
                "1 shard".into()
            } else {
                format!("{} shards", plan.relay.shards)
            },
            plan.length.as_secs_f64(),
            pairs.len(),
            pairs.first().map_or("", |pair| &pair.io_driver),
        ),
        machine,
        notes: notes(plan, &rows),
        rows,
        trace: None,
    }
}

fn notes(plan: &Plan, rows: &[Row]) -> Vec<String> {
    let median = |at: usize| rows.get(at).map_or(0.0, |row| row.median);
    let mut notes: Vec<String> = ceiling::doubt(median(3), median(1)).into_iter().collect();
    if plan.pairs < 5 {
        notes.push("fewer than 5 pairs: a trial, not a result".to_owned());
    }
    let room = ceiling::room(machine::raise_open_files());
    if plan.relay.viewers + plan.probes > room {
        notes.push(format!(
            "The raw send loop had {room} connections: it has no way past the limit of open files."
        ));
    }
    notes.push(format!(
        "A stall: a marker that came more than 40 ms after its play-out, {} ms behind live (later\n\
         after a stall), or never. The relay's own memory is what it allocated and touched since\n\
         before the viewers came; kernel memory is that of both ends.",
        plan.behind.as_millis()
    ));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(cpu: u64, ceiling: f64) -> Pair {
        let relay = Counters {
            at: Duration::from_secs(10),
            cpu: Duration::from_secs(cpu),
            busy: Duration::from_secs(cpu + 1),
            bytes: 10e9,
            sends: 625_000.0,
            blocked: 0.0,
            enters: 5_000.0,
            ..Counters::default()
        };
        let load = Mark { seconds: 10.0, bytes: 10_000_000_000, slow: 3, ..Mark::default() };
        let mut play = PlayOut::new(Duration::from_millis(300)).unwrap();
        play.delays.record(2_500).unwrap();
        Pair { relay, io_driver: "uring".to_owned(), load, play, memory: [1e3, 2e3, 5e3], ceiling }
    }

    #[test]
    fn figures_follow_from_the_counters() {
        let relay = Setup { viewers: 4_000, ..Setup::new("uring") };
        let plan = Plan {
            relay,
            bitrate: 2_000_000,
            length: Duration::from_secs(10),
            warm_up: Duration::ZERO,
            pairs: 2,
            probes: 0,
            behind: Duration::from_millis(300),
        };
        let cores = Cores { relay: vec![0], others: vec![1] };
        let report = report(&plan, String::new(), &cores, &[pair(5, 0.4), pair(8, 0.4)]);
        let value = |name: &str| report.rows.iter().find(|row| row.name == name).unwrap().median;
        let near = |name, wanted: f64| {
            let value = value(name);
            assert!((value - wanted).abs() <= wanted.abs() * 0.01, "{name}: {value}");
        };
        near("relay", 0.65);
        near("ratio: raw send loop / relay", (0.8 + 0.5) / 2.0);
        near("bytes per send", 16_000.0);
        near("system calls per viewer-second", 5_000.0 / 4_000.0 / 10.0);
        near("relay's share of its cores", 65.0);
        near("others on the relay's cores", 10.0);
        near("received per viewer", 2.0);
        near("delay p99", 2.5);
        near("kernel memory per viewer", 5.0);
        assert!(report.notes.iter().all(|note| !note.contains("not itself")), "0.4 is known");
        assert!(report.notes[0].contains("trial"));
    }
}
