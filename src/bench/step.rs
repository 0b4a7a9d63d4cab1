//! A step of load: how the relay's flush interval follows when few viewers become very many.

use std::thread;
use std::time::{Duration, Instant};

use crate::bench::crowd::{Crowd, FROM, NAP};
use crate::bench::load::{self, Mark};
use crate::bench::machine::{self, Cores};
use crate::bench::probe::Probes;
use crate::bench::relay::{self, Counters, Relay, Setup};
use crate::bench::report::{Report, Row, Trace};
use crate::bench::swing;
use crate::bench::{Outcome, Progress};

/// How long viewers may take to be served.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time from one line of the trace to the next.
const LOOK: Duration = Duration::from_millis(250);

/// The few are watched this long before the many come.
const BEFORE: Duration = Duration::from_secs(2);

/// The interval may look for its place this long after the last viewer came: a few of the
/// controller's observations at its longest interval.
const SETTLE: Duration = Duration::from_secs(3);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the relay is started; its viewers are those at the end.
    pub relay: Setup,
    /// Bit/s of the stream.
    pub bitrate: u64,
    /// Viewers at the beginning.
    pub from: usize,
    /// The others come evenly within this time.
    pub ramp: Duration,
    /// How long it is watched after they came.
    pub watch: Duration,
}

/// One line of the trace.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// Since the beginning.
    at: Duration,
    viewers: u64,
    counters: Counters,
    /// The 99th percentile of the delays of this time in milliseconds.
    p99: f64,
}

impl Sample {
    fn busy(&self) -> f64 {
        self.counters.worked / self.counters.at.as_secs_f64().max(f64::MIN_POSITIVE) * 100.0
    }

    fn size(&self) -> f64 {
        if self.counters.sends > 0.0 { self.counters.bytes / self.counters.sends } else { 0.0 }
    }

    fn interval_ms(&self) -> f64 {
        self.counters.interval * 1e3
    }

    fn line(&self) -> Vec<f64> {
        let (at, viewers) = (self.at.as_secs_f64(), self.viewers as f64);
        vec![at, viewers, self.interval_ms(), self.busy(), self.size(), self.p99]
    }
}

/// Measures one step and reports.
///
/// # Errors
/// If the relay, a load process or a probe fails, or viewers are refused.
pub fn run(plan: &Plan, progress: Progress<'_>) -> Outcome<Report> {
    let (machine, files) = (machine::describe(), machine::raise_open_files());
    let cores = Cores::of_this_machine(plan.relay.shards)?;
    let life = BEFORE + plan.ramp + plan.watch + 2 * PATIENCE;
    let relay = Relay::start(&plan.relay, &cores)?;
    let _source = relay::publish(relay.http(), plan.bitrate, life, &cores.others)?;
    let probes = Probes::start(4, relay.http(), Duration::ZERO, &cores.others)?;
    let load = |connections, ramp| load::Plan {
        to: relay.http(),
        from: FROM,
        path: Some(relay::path()),
        streams: 0,
        connections,
        ramp,
        nap: NAP,
        bitrate: plan.bitrate,
        life,
    };
    let mut few = Crowd::start(&load(plan.from, Duration::ZERO), &cores.others, files)?;
    few.complete(PATIENCE)?;
    probes.begin();
    let mut watch = Watch::new(&relay, &probes)?;
    watch.until(BEFORE, || Ok(plan.from as u64))?;
    progress(&format!("{} viewers; more come", plan.from));
    let more = load::Plan {
        // Ports of the first address may be used up.
        from: "127.0.1.101".parse()?,
        ..load(plan.relay.viewers.saturating_sub(plan.from), plan.ramp)
    };
    let mut many = Crowd::start(&more, &cores.others, files)?;
    let mut last = Mark::default();
    let end = watch.start.elapsed() + plan.ramp + plan.watch;
    watch.until(end, || {
        last = many.mark()?;
        Ok(plan.from as u64 + last.open)
    })?;
    let samples = watch.samples;
    probes.end(Duration::ZERO)?;
    Ok(report(plan, machine, relay.io_driver(), &samples, &last))
}

struct Watch<'a> {
    relay: &'a Relay,
    probes: &'a Probes,
    start: Instant,
    before: Counters,
    samples: Vec<Sample>,
}

impl<'a> Watch<'a> {
    fn new(relay: &'a Relay, probes: &'a Probes) -> Outcome<Watch<'a>> {
        let start = Instant::now();
        Ok(Watch { relay, probes, start, before: relay.counters(start)?, samples: Vec::new() })
    }

    /// Takes samples until `end` after the beginning.
    fn until(&mut self, end: Duration, mut viewers: impl FnMut() -> Outcome<u64>) -> Outcome<()> {
        while self.start.elapsed() < end {
            thread::sleep(LOOK.saturating_sub(self.start.elapsed().saturating_sub(self.before.at)));
            let viewers = viewers()?;
            let now = self.relay.counters(self.start)?;
            let mut delays = self.probes.recent();
            delays.sort_unstable();
            let at = (delays.len() * 99 / 100).min(delays.len().saturating_sub(1));
            let p99 = delays.get(at).map_or(0.0, |micros| *micros as f64 / 1e3);
            let counters = now.since(&self.before);
            self.samples.push(Sample { at: now.at, viewers, counters, p99 });
            self.before = now;
        }
        Ok(())
    }
}

/// When the last viewer came.
fn complete(plan: &Plan, samples: &[Sample]) -> Option<Duration> {
    let all = plan.relay.viewers as u64;
    samples.iter().find(|sample| sample.viewers >= all).map(|sample| sample.at)
}

fn report(
    plan: &Plan,
    machine: String,
    io_driver: &str,
    samples: &[Sample],
    last: &Mark,
) -> Report {
    let came = complete(plan, samples);
    let settled = |sample: &&Sample| came.is_some_and(|came| sample.at >= came + SETTLE);
    let intervals: Vec<f64> = samples.iter().filter(settled).map(Sample::interval_ms).collect();
    let swing = swing::of(&intervals);
    let all: Vec<f64> = samples.iter().map(Sample::interval_ms).collect();
    let one = |name: &str, unit, value: f64| Row::new(name, unit, vec![value]);
    let over = |value: &dyn Fn(&Sample) -> f64| -> Vec<f64> {
        samples.iter().filter(settled).map(value).collect()
    };
    let peak = all.iter().copied().fold(0.0, f64::max);
    let rows = vec![
        one("viewers at the end", "", samples.last().map_or(0.0, |sample| sample.viewers as f64)),
        one("viewers that failed", "", last.failed as f64),
        one("all had come after", "s", came.map_or(0.0, |at| at.as_secs_f64())),
        Row::new("flush interval, settled", "ms", intervals),
        one("flush interval, longest ever", "ms", peak),
        one("turns of the interval, settled", "", swing.turns as f64),
        Row::new("busy share, settled", "%", over(&Sample::busy)),
        Row::new("bytes per send, settled", "B", over(&Sample::size)),
        Row::new("delay p99, settled", "ms", over(&|sample| sample.p99)),
    ];
    let columns = vec!["at s", "viewers", "interval ms", "busy %", "B per send", "delay p99 ms"];
    let trace = Trace { columns, lines: samples.iter().map(Sample::line).collect() };
    Report {
        title: format!(
            "a step from {} to {} viewers within {} s, {:.3} Mbit/s, io_driver {io_driver}",
            plan.from,
            plan.relay.viewers,
            plan.ramp.as_secs_f64(),
            plan.bitrate as f64 / 1e6,
        ),
        machine,
        rows,
        notes: vec![verdict(came, swing)],
        trace: Some(trace),
    }
}

fn verdict(came: Option<Duration>, swing: swing::Swing) -> String {
    let Some(came) = came else {
        return "the viewers did not all come: nothing can be said of the interval".to_owned();
    };
    let (from, percent) = ((came + SETTLE).as_secs_f64(), swing::BAND * 100.0);
    let word = if swing.oscillates() { "oscillates" } else { "does not oscillate" };
    format!(
        "The flush interval {word}: from {from:.1} s on it turned {} times by more than \
         {percent:.0} %.\nOne turn is an end of its way to its place, two are one disturbance; \
         more are a wave.",
        swing.turns
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, viewers: u64, interval_ms: f64) -> Sample {
        let counters = Counters {
            at: LOOK,
            worked: 0.1,
            bytes: 32_000.0,
            sends: 2.0,
            interval: interval_ms / 1e3,
            ..Counters::default()
        };
        Sample { at: LOOK * at as u32, viewers, counters, p99: 7.0 }
    }

    fn plan() -> Plan {
        Plan {
            relay: Setup { viewers: 400, ..Setup::new("epoll") },
            bitrate: 2_000_000,
            from: 100,
            ramp: Duration::from_secs(1),
            watch: Duration::from_secs(9),
        }
    }

    fn told(interval: impl Fn(u64) -> f64) -> Report {
        let samples: Vec<Sample> =
            (0..40).map(|n| sample(n, 100 + 60 * n.min(5), interval(n))).collect();
        report(&plan(), String::new(), "epoll", &samples, &Mark::default())
    }

    #[test]
    fn a_way_to_a_place_is_no_oscillation() {
        let report = told(|n| n.min(10) as f64 * 2.0);
        assert!(report.notes[0].contains("does not oscillate"), "{:?}", report.notes);
        let value = |name: &str| report.rows.iter().find(|row| row.name == name).unwrap().median;
        assert_eq!(value("flush interval, settled"), 20.0);
        assert_eq!(value("bytes per send, settled"), 16_000.0);
        assert_eq!(value("busy share, settled"), 40.0);
        assert_eq!(value("delay p99, settled"), 7.0);
        let trace = report.trace.unwrap();
        assert_eq!((trace.lines.len(), trace.lines[2][1]), (40, 220.0));
        assert!(trace.lines.iter().all(|line| line.len() == trace.columns.len()));
    }

    #[test]
    fn a_wave_is_named_and_so_is_a_crowd_that_did_not_come() {
        let report = told(|n| if n % 8 < 4 { 10.0 } else { 20.0 });
        assert!(report.notes[0].contains("interval oscillates"), "{:?}", report.notes);
        let samples = [sample(0, 100, 1.0)];
        let report = super::report(&plan(), String::new(), "epoll", &samples, &Mark::default());
        assert!(report.notes[0].contains("did not all come"));
    }
}
