//! What the node tells when it ends, as JSON; and how it goes meanwhile, in one line.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::base::time::Mono;
use crate::node::peer::sharing::{self, Sharing};
use crate::peer::figures::Figures;
use crate::swarm::crimes::Crime;

/// Milliseconds at some places of a distribution.
#[derive(Debug, Serialize)]
struct Delays {
    p50: u64,
    p95: u64,
    p99: u64,
    max: u64,
}

impl Delays {
    fn of(of: &Histogram<u64>) -> Option<Delays> {
        let at = |part| of.value_at_quantile(part);
        (!of.is_empty()).then(|| Delays {
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            max: of.max(),
        })
    }
}

fn counts_of(of: &Histogram<u64>) -> Vec<(u64, u64)> {
    let some = of.iter_recorded();
    some.map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
}

#[derive(Debug, Serialize)]
struct Stalls {
    count: u32,
    ms: u64,
    skips: u32,
    skipped_ms: u64,
    /// How much later it plays because it played slower: no part of `ms`.
    stretched_ms: u64,
}

#[derive(Debug, Serialize)]
struct Chunks {
    lost: u64,
    repaired: u64,
    given_up: u64,
    duplicates: u64,
    dropped: u64,
    late_forgotten: u64,
}

#[derive(Debug, Serialize)]
struct Switch {
    at_ms: u64,
    to: &'static str,
}

/// From byte `played` of what was played on, the stream's offsets are these.
#[derive(Debug, Serialize)]
struct Run {
    played: u64,
    offset: u64,
}

#[derive(Debug, Serialize)]
struct Loss {
    played: u64,
    bytes: u64,
}

/// One viewer.
#[derive(Debug, Serialize)]
struct Viewer {
    startup_ms: Option<u64>,
    delay_ms: Option<Delays>,
    arrival_ms: Option<Delays>,
    /// Both once more, as milliseconds and how often: what many viewers say can be put together.
    delay_counts: Vec<(u64, u64)>,
    arrival_counts: Vec<(u64, u64)>,
    target_ms: u64,
    stalls: Stalls,
    /// Bytes by source: verified over UDP, played over HTTP.
    bytes: BTreeMap<&'static str, u64>,
    played_bytes: u64,
    chunks: Chunks,
    sharing: Sharing,
    bad: BTreeMap<&'static str, u64>,
    switches: Vec<Switch>,
    joins: u64,
    breaks_forgotten: u64,
    runs: Vec<Run>,
    losses: Vec<Loss>,
    problem: String,
}

/// The whole report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: u32,
    url: String,
    seconds: f64,
    startup_ms: Option<Delays>,
    delay_ms: Option<Delays>,
    stalls: u32,
    stall_ms: u64,
    viewers: Vec<Viewer>,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Report {
    pub(super) fn new(url: &str, all: &[Figures], now: Mono) -> Report {
        let mut delay = Histogram::new_from(&Figures::new(Mono::ZERO).delay);
        let mut startup = delay.clone();
        for figures in all {
            // Equal bounds: adding cannot fail.
            let _ = delay.add(&figures.delay);
            if let Some(took) = figures.startup {
                startup.saturating_record(millis(took).max(1));
            }
        }
        let began = all.iter().map(|figures| figures.started).min().unwrap_or(now);
        Report {
            version: 1,
            url: url.to_owned(),
            seconds: now.since(began).as_secs_f64(),
            startup_ms: Delays::of(&startup),
            delay_ms: Delays::of(&delay),
            stalls: all.iter().map(|figures| figures.tally.stalls).sum(),
            stall_ms: all.iter().map(|figures| millis(figures.tally.stall_time)).sum(),
            viewers: all.iter().map(Viewer::new).collect(),
        }
    }
}

impl Viewer {
    fn new(figures: &Figures) -> Viewer {
        let (counts, tally) = (&figures.counts, &figures.tally);
        let start = figures.window.as_ref().map_or(0, |(_, start)| *start);
        let head = figures.window.as_ref().map_or(0, |(window, _)| window.head());
        let bad = Crime::ALL.iter().map(|crime| (crime.label(), counts.crimes[*crime as usize]));
        let played = |local: u64| local.saturating_sub(start);
        Viewer {
            startup_ms: figures.startup.map(millis),
            delay_ms: Delays::of(&figures.delay),
            arrival_ms: Delays::of(&figures.arrival),
            delay_counts: counts_of(&figures.delay),
            arrival_counts: counts_of(&figures.arrival),
            target_ms: millis(figures.target),
            stalls: Stalls {
                count: tally.stalls,
                ms: millis(tally.stall_time),
                skips: tally.skips,
                skipped_ms: millis(tally.skipped),
                stretched_ms: millis(tally.stretched),
            },
            bytes: [("udp", counts.payload), ("http", figures.http_bytes)].into(),
            played_bytes: head.saturating_sub(start),
            chunks: Chunks {
                lost: counts.lost,
                repaired: counts.repaired,
                given_up: figures.given_up,
                duplicates: counts.duplicates,
                dropped: counts.dropped,
                late_forgotten: counts.late_forgotten,
            },
            sharing: Sharing::new(&figures.sharing),
            bad: bad.filter(|(_, count)| *count > 0).collect(),
            switches: figures
                .switches
                .iter()
                .map(|(at, to)| Switch { at_ms: millis(*at), to: to.as_str() })
                .collect(),
            joins: figures.joins,
            breaks_forgotten: figures.breaks_forgotten,
            runs: figures
                .runs
                .iter()
                .map(|run| Run { played: played(run.local), offset: run.wire })
                .collect(),
            losses: figures
                .losses
                .iter()
                .map(|loss| Loss { played: played(loss.local), bytes: loss.bytes })
                .collect(),
            problem: figures.problem.clone(),
        }
    }
}

/// One line for the user.
pub(super) fn status(all: &[Figures]) -> String {
    let mut text = String::new();
    let stalls: u32 = all.iter().map(|figures| figures.tally.stalls).sum();
    let stalled: u64 = all.iter().map(|figures| millis(figures.tally.stall_time)).sum();
    let lost: u64 = all.iter().map(|figures| figures.counts.lost).sum();
    let repaired: u64 = all.iter().map(|figures| figures.counts.repaired).sum();
    let behind = all.iter().map(|figures| figures.delay_now).max().unwrap_or_default();
    let playing = all.iter().filter(|figures| figures.startup.is_some()).count();
    let over = |word| {
        let over = |figures: &&Figures| figures.source.map(|source| source.as_str()) == Some(word);
        all.iter().filter(over).count()
    };
    // Writing to a String cannot fail.
    let _ = write!(text, "{:.1} s behind live", behind.as_secs_f64());
    let _ = match all.len() {
        1 => write!(text, ", {}", if over("http") > 0 { "http" } else { "udp" }),
        n => write!(text, ", {playing} of {n} play, {} over http", over("http")),
    };
    let _ = write!(text, ", {lost} lost, {repaired} repaired, {stalls} stalls ({stalled} ms)");
    if let Some((percent, neighbours)) = sharing::share(all) {
        let _ = write!(text, ", {percent} % from {neighbours} neighbours");
    }
    let waiting = all.iter().find(|figures| figures.startup.is_none());
    if let Some(why) = waiting.map(|figures| figures.problem.as_str()).filter(|w| !w.is_empty()) {
        text = why.to_owned();
    }
    text
}
