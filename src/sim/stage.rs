//! A scenario, played: the world is built, things are done to it, rules are held against it.

use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::StreamName;
use crate::base::time::Mono;
use crate::sim::chaos;
use crate::sim::crowd::{Crowd, Plan as CrowdPlan, Viewer};
use crate::sim::dice::{Dice, Ppm};
use crate::sim::foe::Nature;
use crate::sim::gauge::Gauge;
use crate::sim::house::{House, Plan as HousePlan, bytes_of};
use crate::sim::notary::Notary;
use crate::sim::population::{self, NARROW};
use crate::sim::scenario::{Act, SWING_MAX, Scenario};
use crate::sim::scribe::Scribe;
use crate::sim::shares::Bytes;
use crate::sim::source::{Encoder, Generator, Pause, Tape, Valve};
use crate::sim::spoofer::Spoofer;
use crate::sim::truth::Truth;
use crate::sim::world::{HTTP, RELAY, SEATS_MAX, Trace, World};
use crate::swarm::receiver::Profile;

/// Where everybody finds the relay.
const RELAY_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// How long the stream is live before anybody comes.
const WARM_UP: Duration = Duration::from_secs(4);

/// How often the household and the referee look at things.
const TICK: Duration = Duration::from_millis(250);

/// The offload is a figure of the last minute: design.md, section 2. A shorter run is one window.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// Over which time those leave who leave together.
const TOGETHER: Duration = Duration::from_secs(1);

/// How often datagrams under false addresses are sent.
const FLOOD: Duration = Duration::from_millis(10);

/// How often each besieger opens a link to somebody.
const SIEGE: Duration = Duration::from_millis(100);

/// The publisher's host.
const PUBLISHER: usize = 1;

/// How often each rule's breach is kept: none hides another.
const FOULS_MAX: usize = 4;

/// What is to be played.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Viewers.
    pub peers: usize,
    /// Bits per second of the stream.
    pub bitrate: u64,
    /// From one key frame to the next.
    pub gop: Duration,
    /// How long, from the first viewer on.
    pub time: Duration,
    /// What happens.
    pub scenario: Scenario,
    /// Whether hashes and signatures are remembered by content. Faster, and nothing else.
    pub remember: bool,
}

impl Plan {
    /// What the relay may send to peers, in bits per second.
    #[must_use]
    pub fn egress(&self) -> Option<u64> {
        let all = self.bitrate * self.peers as u64;
        self.scenario.egress.map(|percent| all * percent / 100)
    }
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foul {
    /// When.
    pub at: Mono,
    /// Its name.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
}

/// Something that happens at a planned time.
#[derive(Clone, Copy, Debug)]
enum Cue {
    Tick,
    Join,
    Churn,
    Act(Act),
    Gone { index: usize, politely: bool },
    Flood { until: Mono },
    Besiege { until: Mono },
    Swing,
    Calm { host: usize },
    RelayReturns,
    SwarmBack,
    Window,
}

/// A world at work.
pub struct Stage {
    pub(super) plan: Plan,
    pub(super) world: World,
    pub(super) house: Option<House>,
    pub(super) crowd: Crowd,
    pub(super) truth: Truth,
    pub(super) source: Tape,
    valve: Valve,
    pub(super) fouls: Vec<Foul>,
    pub(super) notary: Notary,
    /// Datagrams of relays that are gone are not in its cells any more.
    pub(super) relay_lives: u64,
    key: Arc<Scribe>,
    numbers: Vec<(StreamName, crate::registry::streams::Resume)>,
    relay_seats: Vec<usize>,
    cues: Vec<Cue>,
    people: Dice,
    secrets: Dice,
    pub(super) spoofer: Spoofer,
    pub(super) ticks: usize,
    pub(super) gauge: Gauge,
    /// When something was last done to the world, and the last stall after that.
    pub(super) fault: Option<Mono>,
    pub(super) last_stall: Option<Mono>,
    /// Until when the publisher pauses, or paused.
    pub(super) paused: Option<Mono>,
    /// What had been sent when the last window began.
    pub(super) before: Bytes,
    end: Mono,
}

impl Stage {
    /// Builds the world of a plan.
    ///
    /// # Errors
    /// In words, if this machine cannot: memory, randomness.
    pub fn new(mut plan: Plan, trace: Option<Trace>) -> Result<Stage, String> {
        let seed = plan.seed;
        if plan.scenario.chaos {
            plan.scenario = chaos::scenario(seed, plan.scenario);
        }
        let mut world = World::new(seed, plan.bitrate, plan.scenario.drift, trace);
        // Half more than everybody needs: the network card is not what is tried here.
        let rate = (plan.bitrate * plan.peers as u64 * 2).max(1_000_000_000);
        world.add_host(RELAY_IP, population::relay(rate));
        let name: StreamName = "sim".parse().map_err(|_| "the stream's name".to_owned())?;
        let key = Scribe::new(Dice::new(seed, "key", 0))?;
        let notary = Notary::new(plan.remember);
        // Those who leave may still be remembered when those come who take their place.
        let most = plan.peers + plan.peers / 10 + 2;
        let crowd = CrowdPlan {
            seed,
            most,
            bitrate: plan.bitrate,
            time: WARM_UP + plan.time,
            relay: RELAY_IP,
            name,
            strategy: plan.scenario.strategy,
        };
        let crowd = Crowd::new(crowd, notary.clone());
        let mut stage = Stage {
            crowd: crowd.map_err(|why| format!("no memory for {most} viewers: {why}"))?,
            house: None,
            truth: Truth::default(),
            source: Rc::new(RefCell::new(Vec::new())),
            valve: Rc::new(Cell::new(None)),
            fouls: Vec::new(),
            notary,
            relay_lives: 0,
            key: Arc::new(key),
            numbers: Vec::new(),
            relay_seats: Vec::new(),
            cues: Vec::new(),
            people: Dice::new(seed, "people", 0),
            secrets: Dice::new(seed, "secrets", 0),
            spoofer: Spoofer::new(Dice::new(seed, "spoofer", 0)),
            ticks: 0,
            gauge: Gauge::default(),
            fault: None,
            last_stall: None,
            paused: None,
            before: Bytes::default(),
            end: Mono::ZERO + WARM_UP + plan.time,
            world,
            plan,
        };
        stage.set_up()?;
        Ok(stage)
    }

    fn set_up(&mut self) -> Result<(), String> {
        self.relay_seats = (0..SEATS_MAX).map(|_| self.world.add_seat(RELAY)).collect();
        self.start_relay()?;
        let publisher = self.world.add_host(Ipv4Addr::LOCALHOST, population::relay(1_000_000_000));
        let seat = self.world.add_seat(publisher);
        let dice = Dice::new(self.plan.seed, "source", 0);
        let gop = self.gop();
        let stream = Generator::new(self.plan.bitrate, gop, dice);
        let relay = (RELAY_IP, HTTP).into();
        let shared = (Rc::clone(&self.source), Rc::clone(&self.valve));
        let encoder = Encoder::new(relay, "sim", stream, shared);
        self.world.seat(seat, Box::new(encoder));
        self.cue(Duration::ZERO, Cue::Tick);
        let mut arrivals = Dice::new(self.plan.seed, "arrivals", 0);
        let arrival = self.plan.scenario.arrival;
        for _ in 0..self.plan.peers {
            self.cue(WARM_UP + arrivals.time(arrival), Cue::Join);
        }
        let rest = self.plan.time.saturating_sub(arrival);
        let planned = self.plan.scenario.acts.iter().map(|(thousandths, act)| {
            (rest * u32::try_from(*thousandths).unwrap_or(0) / 1_000, *act)
        });
        let drawn = match self.plan.scenario.chaos {
            true => chaos::acts(self.plan.seed, rest),
            false => Vec::new(),
        };
        for (at, act) in planned.chain(drawn) {
            self.cue(WARM_UP + arrival + at, Cue::Act(act));
        }
        if self.plan.scenario.swings > 0 {
            self.cue(WARM_UP + arrival, Cue::Swing);
        }
        if self.plan.scenario.churn > 0 {
            self.cue(WARM_UP + arrival, Cue::Churn);
        }
        if self.plan.time > WINDOW {
            self.cue(WARM_UP + (self.plan.time - WINDOW), Cue::Window);
        }
        Ok(())
    }

    /// Plays it to its end.
    pub fn play(&mut self) {
        while let Some(happened) = self.world.next(self.end) {
            if let Some(cue) = happened.and_then(|cue| self.cues.get(cue).copied()) {
                self.on_cue(cue);
            }
            if let Some(why) = self.world.broken.take() {
                self.foul("contract", why);
                return;
            }
        }
        self.look_at_all();
    }

    /// From one key frame to the next.
    pub(super) fn gop(&self) -> Duration {
        self.plan.scenario.gop.unwrap_or(self.plan.gop)
    }

    /// The scenario's end.
    #[must_use]
    pub fn end(&self) -> Mono {
        self.end
    }

    fn cue(&mut self, after: Duration, cue: Cue) {
        self.cues.push(cue);
        self.world.plan(self.world.now() + after, self.cues.len() - 1);
    }

    /// Once more after `every`, unless it is over by then.
    fn cue_until(&mut self, until: Mono, every: Duration, cue: Cue) {
        if self.world.now() + every < until {
            self.cue(every, cue);
        }
    }

    fn on_cue(&mut self, cue: Cue) {
        match cue {
            Cue::Tick => {
                self.look();
                self.cue(TICK, Cue::Tick);
            }
            Cue::Join => self.join(),
            Cue::Churn => self.churn(self.plan.scenario.churn),
            Cue::Gone { index, politely } => self.leave(index, politely),
            Cue::Flood { until } => self.flood(until),
            Cue::Besiege { until } => self.besiege(until),
            Cue::Swing => self.swing(),
            Cue::Calm { host } => self.set_width(host, 100),
            Cue::RelayReturns => {
                self.note_fault(Duration::ZERO);
                if let Err(why) = self.start_relay() {
                    self.foul("start", why);
                }
            }
            Cue::SwarmBack => {
                self.note_fault(Duration::ZERO);
                self.world.hosts[RELAY].link.udp_blocked = false;
            }
            Cue::Window => {
                self.crowd.viewers.iter_mut().for_each(Viewer::refresh);
                self.before = Bytes::of(self);
            }
            Cue::Act(act) => self.act(act),
        }
    }

    /// Something is done to the world, and is over after this time.
    fn note_fault(&mut self, lasts: Duration) {
        self.fault = Some(self.world.now() + lasts);
        self.last_stall = None;
    }

    fn act(&mut self, act: Act) {
        self.world.say(|| format!("-- {act:?}"));
        match act {
            Act::Leave { thousandths, politely } => {
                self.note_fault(TOGETHER);
                for index in self.crowd.present() {
                    if self.people.below(1_000) < thousandths {
                        let after = self.people.time(TOGETHER);
                        self.cue(after, Cue::Gone { index, politely });
                    }
                }
            }
            Act::Freeze(thousandths) => {
                self.note_fault(Duration::ZERO);
                for index in self.crowd.present() {
                    if self.people.below(1_000) < thousandths {
                        self.crowd.freeze(&mut self.world, index);
                    }
                }
            }
            Act::RelayDies(time) => {
                // What it published in its last moments may have been sent.
                self.look();
                self.numbers = self.house.as_ref().map_or(Vec::new(), House::numbers);
                self.house = None;
                self.gauge = Gauge::default();
                self.relay_seats.clone().into_iter().for_each(|seat| self.world.kill(seat));
                self.cue(time, Cue::RelayReturns);
            }
            Act::SwarmCut(time) => {
                self.world.hosts[RELAY].link.udp_blocked = true;
                self.cue(time, Cue::SwarmBack);
            }
            Act::Spoof(time) => self.flood(self.world.now() + time),
            Act::Besiege(time) => self.besiege(self.world.now() + time),
            Act::RegionCut(time) => {
                self.note_fault(time);
                self.world.cut_off_region(time);
            }
            Act::RelaySlow { time, busy, period } => {
                self.note_fault(time);
                self.world.slow_down(RELAY, time, busy, period);
            }
            Act::Pause { time, burst } => {
                self.note_fault(time);
                self.paused = Some(self.world.now() + time);
                let until = self.world.clock(PUBLISHER).mono + time;
                self.valve.set(Some(Pause { until, time, burst }));
            }
            Act::Refill => {
                let missing = self.plan.peers.saturating_sub(self.crowd.present().len());
                for _ in 0..missing {
                    let after = self.people.time(TOGETHER);
                    self.cue(after, Cue::Join);
                }
            }
        }
    }

    /// Some lines get narrow for a while; again in a second.
    fn swing(&mut self) {
        for index in self.crowd.present() {
            if self.people.happens(self.plan.scenario.swings) {
                let host = self.crowd.viewers[index].host;
                let percent = NARROW + self.people.below(100 - NARROW);
                self.set_width(host, percent);
                let time = self.people.time(SWING_MAX);
                self.cue(time, Cue::Calm { host });
            }
        }
        self.cue(Duration::from_secs(1), Cue::Swing);
    }

    fn set_width(&mut self, host: usize, percent: u64) {
        let (now, host) = (self.world.now(), &mut self.world.hosts[host]);
        host.up.change(now, host.link.up * percent / 100);
        host.down.change(now, host.link.down * percent / 100);
    }

    /// What an opening has to say about the stream.
    fn profile(&self) -> Option<Profile> {
        let stream = self.house.as_ref().and_then(House::stream);
        let identity = stream.as_ref().and_then(|stream| stream.identity())?;
        Some(Profile {
            swarm_id: identity.swarm_id,
            addressing: identity.addressing,
            size: identity.size,
        })
    }

    /// Where those viewers are who are there and are of some kind.
    fn addresses(&self, of: impl Fn(Nature) -> bool) -> Vec<Ipv4Addr> {
        let present = self.crowd.present().into_iter();
        let viewers = present.map(|index| &self.crowd.viewers[index]);
        let those = viewers.filter(|viewer| of(viewer.nature));
        those.map(|viewer| self.world.hosts[viewer.host].ip).collect()
    }

    /// Datagrams under false addresses, again and again.
    fn flood(&mut self, until: Mono) {
        if let Some(profile) = self.profile() {
            // As many at the relay as at all viewers.
            let mut victims = self.addresses(|_| true);
            victims.extend(std::iter::repeat_n(RELAY_IP, victims.len().max(1)));
            self.spoofer.flood(&mut self.world, profile, &victims);
        }
        self.cue_until(until, FLOOD, Cue::Flood { until });
    }

    /// Each besieger opens a link to somebody, again and again.
    fn besiege(&mut self, until: Mono) {
        let attackers = self.addresses(|nature| nature == Nature::Besieger);
        let victims = self.addresses(|nature| nature == Nature::Honest);
        if let Some(profile) = self.profile().filter(|_| !victims.is_empty()) {
            self.spoofer.besiege(&mut self.world, profile, &attackers, &victims);
        }
        self.cue_until(until, SIEGE, Cue::Besiege { until });
    }

    fn start_relay(&mut self) -> Result<(), String> {
        let plan = HousePlan {
            address: RELAY_IP.to_string() + ":" + &crate::sim::world::PORT.to_string(),
            name: "sim".parse().map_err(|_| "the stream's name".to_owned())?,
            bitrate: self.plan.bitrate,
            peers: 2 * self.plan.peers + 16,
            egress: self.plan.egress(),
            mode: self.plan.scenario.mode,
            strategy: self.plan.scenario.strategy,
        };
        let numbers = std::mem::take(&mut self.numbers);
        let house = House::new(plan, Arc::clone(&self.key), numbers);
        let house = house.map_err(|why| format!("no memory for the relay: {why}"))?;
        let shards = house.shards(&mut self.secrets);
        self.house = Some(house);
        self.relay_lives += 1;
        for (seat, shard) in self.relay_seats.clone().into_iter().zip(shards) {
            self.world.seat(seat, shard);
        }
        Ok(())
    }

    fn join(&mut self) {
        let Scenario { folk, faults, blocked, liars, riders, boasters, besiegers, .. } =
            self.plan.scenario;
        let mut link = population::peer(self.plan.bitrate, &folk, faults, &mut self.people);
        link.udp_blocked = self.people.happens(blocked);
        let kinds = [
            (liars, Nature::Liar),
            (riders, Nature::Rider),
            (boasters, Nature::Boaster),
            (besiegers, Nature::Besieger),
        ];
        let nature = kinds.into_iter().find(|(part, _)| self.people.happens(*part));
        let nature = nature.map_or(Nature::Honest, |(_, nature)| nature);
        self.crowd.join(&mut self.world, link, nature);
    }

    fn leave(&mut self, index: usize, politely: bool) {
        self.look_at(index);
        self.crowd.leave(&mut self.world, index, politely);
    }

    /// Some leave, as many come; again in a while.
    fn churn(&mut self, per_second: Ppm) {
        let present = self.crowd.present();
        let leaving: Vec<usize> =
            present.into_iter().filter(|_| self.people.happens(per_second)).collect();
        for index in leaving {
            let politely = self.people.happens(500_000);
            self.leave(index, politely);
            self.join();
        }
        self.cue(Duration::from_secs(1), Cue::Churn);
    }

    pub(super) fn foul(&mut self, rule: &'static str, what: String) {
        if self.fouls.iter().filter(|foul| foul.rule == rule).count() < FOULS_MAX {
            self.fouls.push(Foul { at: self.world.now(), rule, what });
        }
    }

    /// Bytes that a viewer who stayed should have shown at the end.
    #[must_use]
    pub fn bytes_of(&self, time: Duration) -> u64 {
        bytes_of(self.plan.bitrate, time)
    }
}
