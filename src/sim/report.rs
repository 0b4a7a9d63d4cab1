//! What a world came to: figures, a verdict, and how to see it again.

use std::fmt::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::peer::figures::Figures;
use crate::sim::crowd::Viewer;
use crate::sim::egress::{Class, in_words};
use crate::sim::figures::millis;
use crate::sim::link::Link;
use crate::sim::scenario::{Limits, Scenario};
use crate::sim::shares::Bytes;
use crate::sim::stage::{Foul, Plan, Stage, WINDOW};
use crate::sim::summary::Bound;
use crate::sim::world::RELAY;
use crate::swarm::settings::{Mode, Strategy};

/// Viewers from which on they are meant to carry the stream.
const SHARED_FROM: usize = 50;

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was played.
    pub(super) plan: Plan,
    /// One number for all that happened.
    pub(super) digest: String,
    /// How many things happened.
    pub(super) events: u64,
    /// Viewers that ever came, and those who were there at the end.
    pub(super) viewers: usize,
    pub(super) present: usize,
    /// Viewers that played.
    pub(super) played: usize,
    /// Hours that all viewers were there.
    pub(super) hours: f64,
    /// Startup in milliseconds, sorted.
    pub(super) startup: Vec<u64>,
    /// Delay behind live, and from signing to verified, in milliseconds.
    pub(super) delay: Histogram<u64>,
    pub(super) arrival: Histogram<u64>,
    /// Stalls, those of them that the network explains, the time of all, and of the worst viewer.
    pub(super) stalls: u64,
    pub(super) excused: u64,
    pub(super) stall_time: Duration,
    pub(super) stall_worst: Duration,
    /// How much later all play because they played slower.
    pub(super) stretched: Duration,
    /// The viewer that stalled longest.
    pub(super) worst: Option<usize>,
    /// What went between all hosts, in the whole run and in its last minute.
    pub(super) whole: Bytes,
    pub(super) window: Bytes,
    /// Bytes that came over HTTP.
    pub(super) http_bytes: u64,
    /// Bytes that were held against what was published.
    pub(super) compared: u64,
    /// Bytes of chunks from each other, and those of them that nobody had asked for, as the
    /// viewers say.
    pub(super) peer_bytes: u64,
    pub(super) pushed_bytes: u64,
    /// Grafts, prunes and chunks that the relay was asked for in need.
    pub(super) grafts: u64,
    pub(super) prunes: u64,
    pub(super) rescues: u64,
    /// How long after the last thing that was done to the world somebody still stalled.
    pub(super) recovery: Option<Duration>,
    /// Chunks: duplicates, found missing, repaired, given up, refused for want of room.
    pub(super) duplicates: u64,
    pub(super) lost: u64,
    pub(super) repaired: u64,
    pub(super) given_up: u64,
    pub(super) dropped: u64,
    /// What the viewers' tables had no room for: addresses, questions, news, late chunks, tracks,
    /// breaks.
    pub(super) forgotten: [u64; 6],
    /// Messages that broke the protocol, as the viewers count.
    pub(super) crimes: u64,
    /// What the relay's host got as datagrams.
    pub(super) relay_received: u64,
    /// Datagrams that the network lost, that found a queue full, that were too long.
    pub(super) net_lost: u64,
    pub(super) net_full: u64,
    pub(super) net_long: u64,
    /// Chunks hashed and signatures checked for real.
    pub(super) real_work: u64,
    /// Broken rules.
    pub(super) fouls: Vec<Foul>,
    /// A line about each viewer.
    pub each: Vec<String>,
}

fn histogram() -> Histogram<u64> {
    #[allow(clippy::expect_used, reason = "constant bounds, which every test tries")]
    Histogram::new_with_bounds(1, 600_000, 2).expect("constant bounds are valid")
}

impl Report {
    /// What the world itself counted.
    fn begin(stage: &Stage) -> Report {
        let (relay, whole) = (stage.world.hosts[RELAY].traffic, Bytes::of(stage));
        let all = stage.world.hosts.iter().map(|host| host.traffic);
        let sum = |of: fn(&crate::sim::world::Traffic) -> u64| all.clone().map(|t| of(&t)).sum();
        Report {
            plan: stage.plan.clone(),
            digest: stage.world.digest.to_string(),
            events: stage.world.events,
            viewers: stage.crowd.viewers.len(),
            present: stage.crowd.present().len(),
            played: 0,
            hours: 0.0,
            startup: Vec::new(),
            delay: histogram(),
            arrival: histogram(),
            stalls: 0,
            excused: 0,
            stall_time: Duration::ZERO,
            stretched: Duration::ZERO,
            stall_worst: Duration::ZERO,
            worst: None,
            whole,
            window: whole.since(stage.before),
            http_bytes: 0,
            compared: 0,
            peer_bytes: 0,
            pushed_bytes: 0,
            grafts: 0,
            prunes: 0,
            rescues: 0,
            recovery: stage.recovery(),
            duplicates: 0,
            lost: 0,
            repaired: 0,
            given_up: 0,
            dropped: 0,
            forgotten: [0; 6],
            crimes: 0,
            relay_received: relay.received_bytes,
            net_lost: sum(|traffic| traffic.lost),
            net_full: sum(|traffic| traffic.queue_full),
            net_long: sum(|traffic| traffic.too_long),
            real_work: stage.notary.real_work(),
            fouls: stage.fouls.clone(),
            each: Vec::new(),
        }
    }

    /// Of a world that has been played.
    #[must_use]
    pub fn of(stage: &Stage) -> Report {
        let (mut report, now) = (Report::begin(stage), stage.world.now());
        for viewer in &stage.crowd.viewers {
            report.hours += viewer.stay(now).as_secs_f64() / 3_600.0;
            report.compared += viewer.shown.bytes;
            if viewer.is_honest() {
                report.excused += u64::from(viewer.excused);
            }
            report.each.push(line(viewer, &stage.world.hosts[viewer.host].link));
            let Some(figures) = &viewer.figures else { continue };
            report.add(figures);
            if !viewer.is_honest() {
                continue;
            }
            if let Some(startup) = figures.startup {
                report.played += 1;
                report.startup.push(u64::try_from(startup.as_millis()).unwrap_or(u64::MAX));
            }
            // Equal bounds: adding cannot fail.
            let _ = report.delay.add(&figures.delay);
            let _ = report.arrival.add(&figures.arrival);
            report.stalls += u64::from(figures.tally.stalls);
            report.stall_time += figures.tally.stall_time;
            report.stretched += figures.tally.stretched;
            if figures.tally.stall_time > report.stall_worst {
                report.stall_worst = figures.tally.stall_time;
                report.worst = Some(viewer.number);
            }
        }
        report.startup.sort_unstable();
        report
    }

    /// Adds what went to and from a viewer.
    fn add(&mut self, figures: &Figures) {
        let Figures { counts, sharing, .. } = figures;
        self.http_bytes += figures.http_bytes;
        self.duplicates += counts.duplicates;
        self.lost += counts.lost;
        self.repaired += counts.repaired;
        self.dropped += counts.dropped;
        self.given_up += figures.given_up;
        self.crimes += counts.bad();
        self.peer_bytes += sharing.peer_bytes;
        self.pushed_bytes += sharing.pushed_bytes;
        self.grafts += sharing.grafts;
        self.prunes += sharing.prunes;
        self.rescues += sharing.rescues;
        let forgotten = [
            sharing.addresses_forgotten,
            sharing.questions_forgotten,
            sharing.news_forgotten,
            counts.late_forgotten,
            sharing.tracks_forgotten,
            figures.breaks_forgotten,
        ];
        self.forgotten.iter_mut().zip(forgotten).for_each(|(sum, n)| *sum += n);
    }

    /// What the viewers carried in the last minute, of a hundred.
    #[must_use]
    pub fn offload(&self) -> f64 {
        self.window.offload()
    }

    /// What the relay sent of a class in the last minute, in copies of the stream.
    #[must_use]
    pub fn copies(&self, class: Class) -> f64 {
        self.window.copies(class, self.copy(WINDOW))
    }

    /// The same of the whole run.
    #[must_use]
    pub fn copies_whole(&self, class: Class) -> f64 {
        self.whole.copies(class, self.copy(Duration::MAX))
    }

    /// Bytes of the stream in the last part of the run, of this length at most.
    fn copy(&self, last: Duration) -> f64 {
        self.plan.bitrate as f64 / 8.0 * self.plan.time.min(last).as_secs_f64()
    }

    /// Whether the viewers are meant to carry the stream.
    fn is_shared(&self) -> bool {
        let Scenario { mode, .. } = self.plan.scenario;
        mode != Mode::Direct && self.plan.peers >= SHARED_FROM
    }

    /// A percentile of the startup times.
    #[must_use]
    pub fn startup(&self, percent: usize) -> Duration {
        let at = (self.startup.len() * percent).div_ceil(100).saturating_sub(1);
        Duration::from_millis(self.startup.get(at).copied().unwrap_or(0))
    }

    /// Stalls per viewer-hour that the network does not explain.
    #[must_use]
    pub fn stalls_per_hour(&self) -> f64 {
        let stalls = self.stalls.saturating_sub(self.excused);
        if stalls == 0 { 0.0 } else { stalls as f64 / self.hours.max(1e-9) }
    }

    /// Stalls per viewer-hour that the network does explain.
    #[must_use]
    pub fn excused_per_hour(&self) -> f64 {
        self.excused as f64 / self.hours.max(1e-9)
    }

    /// What decides everything in this world.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.plan.seed
    }

    /// What was played, but for the seed.
    #[must_use]
    pub fn kind(&self) -> String {
        let Plan { peers, bitrate, time, ref scenario, .. } = self.plan;
        let (rate, seconds) = (bitrate as f64 / 1e6, time.as_secs_f64());
        format!("{}, {peers} viewers, {rate:.3} Mbit/s, {seconds} s", scenario.name)
    }

    /// The figures that are judged, and what each must be: those without a bound are judged in
    /// other scenarios, or with more viewers.
    #[must_use]
    pub fn bounds(&self) -> Vec<(&'static str, Option<Bound>)> {
        let limits = self.plan.scenario.limits;
        let millis = |time: Duration| Some(Bound::Most(time.as_millis() as f64));
        let shared = |bound: Bound| Some(bound).filter(|_| self.is_shared());
        vec![
            ("offload", shared(Bound::Least(limits.offload))),
            ("duplicates", shared(Bound::Most(limits.overhead))),
            ("control", shared(Bound::Most(limits.overhead))),
            ("delay_p99", millis(limits.delay_p99)),
            ("startup_p95", millis(limits.startup_p95)),
            ("stalls_per_hour", Some(Bound::Most(limits.stalls_per_hour))),
            ("excused_per_hour", Some(Bound::Most(limits.excused_per_hour))),
            ("stall_worst", millis(limits.stall_max)),
            ("recovery", limits.recovery.and_then(millis)),
        ]
    }

    /// What it came to in a line.
    #[must_use]
    pub fn line(&self) -> String {
        let Plan { seed, peers, .. } = self.plan;
        let bad = self.failures();
        let verdict = bad.first().map_or("good".to_owned(), |bad| format!("BAD, {bad}"));
        format!(
            "seed {seed}, {peers} viewers: offload {:.1} %, delay p99 {} ms, startup p95 {} ms, \
             {:.2} stalls per viewer-hour, {verdict}",
            self.offload(),
            millis(&self.delay, 0.99),
            self.startup(95).as_millis(),
            self.stalls_per_hour()
        )
    }

    /// What is not as it should be. Empty: the verdict is good.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let limits = self.plan.scenario.limits;
        let mut found: Vec<String> = Vec::new();
        let per_hour = self.stalls_per_hour();
        if per_hour > limits.stalls_per_hour {
            found.push(format!(
                "deadline: {} stalls that nothing explains, {per_hour:.2} per viewer-hour",
                self.stalls.saturating_sub(self.excused)
            ));
        }
        let excused = self.excused_per_hour();
        // One in a small world is no rate.
        if self.excused > 1 && excused > limits.excused_per_hour {
            found.push(format!("excuses: {} stalls, {excused:.2} per viewer-hour", self.excused));
        }
        if self.stalls > self.excused && self.stall_worst > limits.stall_max {
            found.push(format!(
                "deadline: peer:{} stalled for {} ms",
                self.worst.unwrap_or(0),
                self.stall_worst.as_millis()
            ));
        }
        if self.startup(95) > limits.startup_p95 {
            found.push(format!("startup: p95 {} ms", self.startup(95).as_millis()));
        }
        let p99 = millis(&self.delay, 0.99);
        if p99 > limits.delay_p99.as_millis() as f64 {
            found.push(format!("delay: p99 {p99} ms"));
        }
        found.extend(self.waste());
        found.extend(self.over_budget());
        let late = |limit: &Duration| self.recovery.is_some_and(|recovery| recovery > *limit);
        if limits.recovery.is_some_and(|limit| late(&limit)) {
            let took = self.recovery.unwrap_or_default().as_millis();
            found.push(format!("recovery: somebody stalled {took} ms after the last fault"));
        }
        if self.crimes > 0 && !self.plan.scenario.somebody_lies() {
            found.push(format!("crimes: honest peers accuse each other {} times", self.crimes));
        }
        found.extend(self.fouls.iter().map(|foul| {
            format!("{}: at {:.3} s: {}", foul.rule, seconds(foul.at.as_nanos()), foul.what)
        }));
        found
    }

    /// What the swarm should not need.
    fn waste(&self) -> Vec<String> {
        let mut found = Vec::new();
        if !self.is_shared() {
            return found;
        }
        let Limits { offload: least, overhead, .. } = self.plan.scenario.limits;
        let offload = self.offload();
        if offload < least {
            found.push(format!("offload: {offload:.1} %, of {least}"));
        }
        let twice = self.window.twice();
        if twice > overhead {
            found.push(format!("duplicates: {twice:.1} %"));
        }
        let control = self.window.talk();
        if control > overhead {
            found.push(format!("control: {control:.1} %"));
        }
        found
    }

    /// What the relay may not cost.
    fn over_budget(&self) -> Option<String> {
        let budget = self.plan.egress()? as f64 * self.plan.scenario.limits.egress / 100.0;
        let rate = self.window.relay_sent as f64 * 8.0 / self.plan.time.min(WINDOW).as_secs_f64();
        (rate > budget).then(|| format!("egress: {:.1} Mbit/s, of {:.1}", rate / 1e6, budget / 1e6))
    }

    /// How to see the same again.
    #[must_use]
    pub fn replay(&self) -> String {
        let mut text = self.plan.command();
        if let Some(worst) = self.worst {
            let _ = write!(text, " --trace peer:{worst}");
        }
        text
    }
}

impl Plan {
    /// The command that plays it.
    #[must_use]
    pub fn command(&self) -> String {
        let Plan { seed, peers, ref scenario, .. } = *self;
        let policy = match scenario.strategy {
            Strategy::Trees => "",
            Strategy::Random => " --policy random",
            Strategy::Pull => " --policy pull",
        };
        let (setting, mode) = (self.setting(), scenario.mode.word());
        format!("headwater sim --seed {seed} --peers {peers} {setting} --mode {mode}{policy}")
    }

    /// Of that what is the same for all audiences, seeds and policies.
    #[must_use]
    pub fn setting(&self) -> String {
        let Plan { bitrate, gop, time, ref scenario, .. } = *self;
        let loss = f64::from(scenario.faults.loss) / 10_000.0;
        let churn = f64::from(scenario.churn) / 10_000.0;
        format!(
            "--bitrate {bitrate} --seconds {} --scenario {} --gop {} --loss {loss} --churn {churn}",
            time.as_secs_f64(),
            scenario.name,
            gop.as_secs_f64()
        )
    }
}

/// A viewer in a line.
fn line(viewer: &Viewer, link: &Link) -> String {
    let [up, down] = [link.up, link.down].map(|rate| rate as f64 / 1e6);
    let mut text = format!(
        "{:?} peer:{} from {:.3} s on, {} ms away, up {up:.2} down {down:.1} Mbit/s, {:?}",
        viewer.nature,
        viewer.number,
        seconds(viewer.came.as_nanos()),
        link.delay.as_millis(),
        link.nat
    );
    if let Some(left) = viewer.left {
        let _ = write!(text, ", left at {:.3} s", seconds(left.as_nanos()));
    }
    let Some(figures) = &viewer.figures else { return text + ": no figures" };
    let startup = figures.startup.map_or(-1, |time| time.as_millis() as i64);
    let percentile = |h: &Histogram<u64>, part| h.value_at_quantile(part);
    let _ = write!(
        text,
        ": startup {startup} ms, delay {}/{} ms, arrival {}/{} ms, {} stalls {} ms, {} joins, \
         {} lost {} repaired {} twice {} given up, http {} B",
        percentile(&figures.delay, 0.5),
        percentile(&figures.delay, 0.99),
        percentile(&figures.arrival, 0.5),
        percentile(&figures.arrival, 0.99),
        figures.tally.stalls,
        figures.tally.stall_time.as_millis(),
        figures.joins,
        figures.counts.lost,
        figures.counts.repaired,
        figures.counts.duplicates,
        figures.given_up,
        figures.http_bytes
    );
    let sharing = &figures.sharing;
    let [relay, peers] = [sharing.relay_bytes, sharing.peer_bytes].map(megabytes);
    let (sent, links) = (megabytes(sharing.sent_bytes), sharing.neighbours.len());
    let _ = write!(
        text,
        ", {links} links, MB {relay:.1} from relay {peers:.1} from peers {sent:.1} to peers, \
         {} rescues",
        sharing.rescues
    );
    for (address, why) in &sharing.dropped {
        let _ = write!(text, ", dropped {address}: {why}");
    }
    if !figures.problem.is_empty() {
        let _ = write!(text, " ({})", figures.problem);
    }
    text
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

impl Report {
    /// The table: what the viewers saw.
    fn experience(&self) -> [(&'static str, String); 7] {
        let (delay, arrival) = (&self.delay, &self.arrival);
        let both = |h: &Histogram<u64>| {
            format!("{} / {} ms", h.value_at_quantile(0.5), h.value_at_quantile(0.99))
        };
        let (p50, p95) = (self.startup(50).as_millis(), self.startup(95).as_millis());
        [
            ("played", format!("{} of {}", self.played, self.viewers)),
            ("startup p50 / p95", format!("{p50} / {p95} ms")),
            ("arrival delay p50 / p99", both(arrival)),
            ("delay behind live p50 / p99", both(delay)),
            (
                "stalls",
                format!(
                    "{} ({} explained by the network), {} ms in all, worst viewer {} ms",
                    self.stalls,
                    self.excused,
                    self.stall_time.as_millis(),
                    self.stall_worst.as_millis()
                ),
            ),
            (
                "played slower",
                format!(
                    "{:.1} s later in each viewer-hour",
                    self.stretched.as_secs_f64() / self.hours.max(1e-9)
                ),
            ),
            (
                "compared",
                format!(
                    "{:.1} MB shown, byte for byte; {} hashes and signatures made for real",
                    megabytes(self.compared),
                    self.real_work
                ),
            ),
        ]
    }

    /// The table: what went over the wire.
    fn traffic(&self) -> [(&'static str, String); 9] {
        let (window, whole) = (self.window, self.whole);
        let [udp, http] = [whole.verified, self.http_bytes].map(megabytes);
        let [relay, peers] = [whole.from_relay, whole.from_peers].map(megabytes);
        let pushed = 100.0 * self.pushed_bytes as f64 / self.peer_bytes.max(1) as f64;
        let [addresses, questions, news, late, tracks, breaks] = self.forgotten;
        let [out, inward] = [whole.relay_sent, self.relay_received].map(megabytes);
        [
            ("bytes by source", format!("{udp:.1} MB verified over UDP, {http:.1} over HTTP")),
            (
                "offload",
                format!(
                    "{:.1} %, whole run {:.1} %; chunks {relay:.1} MB from the relay, {peers:.1} \
                     from each other, {pushed:.1} % of those pushed",
                    window.offload(),
                    whole.offload()
                ),
            ),
            (
                "overhead",
                format!(
                    "twice or in vain {:.2} %, control {:.2} %, hashes {:.2} %; whole run \
                     {:.2} %, {:.2} %, {:.2} %",
                    window.twice(),
                    window.talk(),
                    window.hashes(),
                    whole.twice(),
                    whole.talk(),
                    whole.hashes()
                ),
            ),
            (
                "links",
                format!(
                    "{} grafts, {} prunes, {} rescues; the last stall {} after the last fault",
                    self.grafts,
                    self.prunes,
                    self.rescues,
                    self.recovery.map_or("-".to_owned(), |time| format!("{} ms", time.as_millis()))
                ),
            ),
            ("relay's egress", in_words(window.egress, self.copy(WINDOW))),
            ("relay's datagrams", format!("{out:.1} MB out, {inward:.1} MB in")),
            (
                "chunks",
                format!(
                    "{} found missing, {} repaired, {} given up, {} twice, {} without room",
                    self.lost, self.repaired, self.given_up, self.duplicates, self.dropped
                ),
            ),
            (
                "forgotten",
                format!(
                    "{addresses} addresses, {questions} questions, {news} news, {late} late \
                     chunks, {tracks} missing subtrees, {breaks} breaks"
                ),
            ),
            (
                "network",
                format!(
                    "{} datagrams lost, {} in full queues, {} too long",
                    self.net_lost, self.net_full, self.net_long
                ),
            ),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seed, bitrate, time, ref scenario, .. } = self.plan;
        let (rate, seconds) = (bitrate as f64 / 1e6, time.as_secs_f64());
        writeln!(f, "{}: {}", scenario.name, scenario.about)?;
        writeln!(
            f,
            "seed {seed}, {} viewers came ({} there at the end), {rate:.3} Mbit/s, {seconds} s, \
             {} events\n",
            self.viewers, self.present, self.events
        )?;
        for (name, text) in self.experience().into_iter().chain(self.traffic()) {
            writeln!(f, "  {name:<28} {text}")?;
        }
        writeln!(f, "\ndigest  {}", self.digest)?;
        let failures = self.failures();
        if failures.is_empty() {
            return writeln!(f, "verdict good");
        }
        writeln!(f, "verdict BAD")?;
        failures.iter().try_for_each(|failure| writeln!(f, "  {failure}"))?;
        writeln!(f, "again:  {}", self.replay())
    }
}
