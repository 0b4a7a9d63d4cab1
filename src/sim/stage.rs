//! A scenario, played: the world is built, things are done to it, rules are held against it.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::StreamName;
use crate::base::time::Mono;
use crate::metrics::table::Cell;
use crate::sim::crowd::Crowd;
use crate::sim::dice::{Dice, Ppm};
use crate::sim::house::{House, Plan as HousePlan, bytes_of};
use crate::sim::notary::Notary;
use crate::sim::population;
use crate::sim::scenario::{Act, Scenario};
use crate::sim::source::{Encoder, Generator, Tape};
use crate::sim::truth::Truth;
use crate::sim::world::{HTTP, RELAY, Trace, World};
use crate::swarm::halfopen;
use crate::swarm::integrity::KeyPair;

/// Where everybody finds the relay.
const RELAY_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// How long the stream is live before anybody comes.
const WARM_UP: Duration = Duration::from_secs(4);

/// How often the household and the referee look at things.
const TICK: Duration = Duration::from_millis(250);

/// A viewer is looked at in each of so many ticks.
const EVERY: usize = 4;

/// How long before a stall its cause may lie: as long as a chunk lives.
const LATELY: Duration = Duration::from_secs(6);

/// Broken rules that are kept.
const FOULS_MAX: usize = 20;

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
    RelayReturns,
    SwarmBack,
}

/// A world at work.
pub struct Stage {
    pub(super) plan: Plan,
    pub(super) world: World,
    pub(super) house: Option<House>,
    pub(super) crowd: Crowd,
    pub(super) truth: Truth,
    pub(super) source: Tape,
    pub(super) fouls: Vec<Foul>,
    pub(super) notary: Notary,
    /// Datagrams of relays that are gone are not in its cells any more.
    pub(super) relay_lives: u64,
    key: Arc<KeyPair>,
    numbers: Vec<(StreamName, crate::registry::streams::Resume)>,
    relay_seats: Vec<usize>,
    cues: Vec<Cue>,
    people: Dice,
    secrets: Dice,
    ticks: usize,
    end: Mono,
}

impl Stage {
    /// Builds the world of a plan.
    ///
    /// # Errors
    /// In words, if this machine cannot: memory, randomness.
    pub fn new(plan: Plan, trace: Option<Trace>) -> Result<Stage, String> {
        let seed = plan.seed;
        let mut world = World::new(seed, trace);
        // Half more than everybody needs: the network card is not what is tried here.
        let rate = (plan.bitrate * plan.peers as u64 * 2).max(1_000_000_000);
        world.add_host(RELAY_IP, population::relay(rate));
        let name: StreamName = "sim".parse().map_err(|_| "the stream's name".to_owned())?;
        let key = KeyPair::generate().map_err(|why| why.to_string())?;
        let notary = Notary::new(plan.remember);
        // Those who leave may still be remembered when those come who take their place.
        let most = plan.peers + plan.peers / 10 + 2;
        let crowd = Crowd::new(seed, most, plan.bitrate, RELAY_IP, name, notary.clone());
        let mut stage = Stage {
            crowd: crowd.map_err(|why| format!("no memory for {most} viewers: {why}"))?,
            house: None,
            truth: Truth::default(),
            source: Rc::new(RefCell::new(Vec::new())),
            fouls: Vec::new(),
            notary,
            relay_lives: 0,
            key: Arc::new(key),
            numbers: Vec::new(),
            relay_seats: Vec::new(),
            cues: Vec::new(),
            people: Dice::new(seed, "people", 0),
            secrets: Dice::new(seed, "secrets", 0),
            ticks: 0,
            end: Mono::ZERO + WARM_UP + plan.time,
            world,
            plan,
        };
        stage.set_up()?;
        Ok(stage)
    }

    fn set_up(&mut self) -> Result<(), String> {
        self.relay_seats = (0..2).map(|_| self.world.add_seat(RELAY)).collect();
        self.start_relay()?;
        let publisher = self.world.add_host(Ipv4Addr::LOCALHOST, population::relay(1_000_000_000));
        let seat = self.world.add_seat(publisher);
        let dice = Dice::new(self.plan.seed, "source", 0);
        let stream = Generator::new(self.plan.bitrate, self.plan.gop, dice);
        let relay = (RELAY_IP, HTTP).into();
        let encoder = Encoder::new(relay, "sim", stream, Rc::clone(&self.source));
        self.world.seat(seat, Box::new(encoder));
        self.cue(Duration::ZERO, Cue::Tick);
        let mut arrivals = Dice::new(self.plan.seed, "arrivals", 0);
        let arrival = self.plan.scenario.arrival;
        for _ in 0..self.plan.peers {
            self.cue(WARM_UP + arrivals.time(arrival), Cue::Join);
        }
        let rest = self.plan.time.saturating_sub(arrival);
        for (thousandths, act) in self.plan.scenario.acts {
            let at = rest * u32::try_from(*thousandths).unwrap_or(0) / 1_000;
            self.cue(WARM_UP + arrival + at, Cue::Act(*act));
        }
        if self.plan.scenario.churn > 0 {
            self.cue(WARM_UP + arrival, Cue::Churn);
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
        (0..2 * EVERY).for_each(|_| self.look());
        self.check_source();
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

    fn on_cue(&mut self, cue: Cue) {
        match cue {
            Cue::Tick => {
                self.look();
                self.cue(TICK, Cue::Tick);
            }
            Cue::Join => self.join(),
            Cue::Churn => self.churn(self.plan.scenario.churn),
            Cue::Act(Act::Leave { thousandths, politely }) => {
                for index in self.crowd.present() {
                    if self.people.below(1_000) < thousandths {
                        self.crowd.leave(&mut self.world, index, politely);
                    }
                }
            }
            Cue::Act(Act::RelayDies(time)) => {
                self.numbers = self.house.as_ref().map_or(Vec::new(), House::numbers);
                self.house = None;
                self.relay_seats.clone().into_iter().for_each(|seat| self.world.kill(seat));
                self.cue(time, Cue::RelayReturns);
            }
            Cue::RelayReturns => {
                if let Err(why) = self.start_relay() {
                    self.foul("start", why);
                }
            }
            Cue::Act(Act::SwarmCut(time)) => {
                self.world.hosts[RELAY].link.udp_blocked = true;
                self.cue(time, Cue::SwarmBack);
            }
            Cue::SwarmBack => self.world.hosts[RELAY].link.udp_blocked = false,
        }
    }

    fn start_relay(&mut self) -> Result<(), String> {
        let plan = HousePlan {
            address: RELAY_IP.to_string() + ":" + &crate::sim::world::PORT.to_string(),
            name: "sim".parse().map_err(|_| "the stream's name".to_owned())?,
            bitrate: self.plan.bitrate,
            peers: 2 * self.plan.peers + 16,
            egress: None,
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
        let Scenario { faults, blocked, .. } = self.plan.scenario;
        let mut link = population::peer(self.plan.bitrate, faults, &mut self.people);
        link.udp_blocked = self.people.happens(blocked);
        self.crowd.join(&mut self.world, link);
    }

    /// Some leave, as many come; again in a while.
    fn churn(&mut self, per_second: Ppm) {
        let present = self.crowd.present();
        let leaving: Vec<usize> =
            present.into_iter().filter(|_| self.people.happens(per_second)).collect();
        for index in leaving {
            let politely = self.people.happens(500_000);
            self.crowd.leave(&mut self.world, index, politely);
            self.join();
        }
        self.cue(Duration::from_secs(1), Cue::Churn);
    }

    /// The referee looks at the relay and at a part of the viewers.
    fn look(&mut self) {
        let now = self.world.clock(RELAY);
        if let Some(house) = &mut self.house {
            house.tend(now);
            if let Some(stream) = house.stream() {
                self.truth.follow(&stream);
            }
            let half_open = house.cell(Cell::SwarmHalfOpen);
            if half_open > 2 * halfopen::OPENINGS_MAX as u64 {
                self.foul("tables", format!("{half_open} half-open peers"));
            }
        }
        self.ticks += 1;
        if self.house.is_none() {
            // Nobody can bring what nobody has.
            let (now, crowd) = (self.world.now(), &self.crowd);
            let hosts = crowd.present().into_iter().map(|index| crowd.viewers[index].host);
            hosts.for_each(|host| self.world.losses.fault(now, host));
        }
        for index in self.crowd.present() {
            if index % EVERY == self.ticks % EVERY {
                self.look_at(index);
            }
        }
    }

    fn look_at(&mut self, index: usize) {
        let viewer = &mut self.crowd.viewers[index];
        viewer.refresh();
        let Some(figures) = &viewer.figures else { return };
        let (number, host) = (viewer.number, viewer.host);
        let wrong = viewer.shown.look(figures, &self.truth).err();
        let new = figures.tally.stalls.saturating_sub(viewer.judged);
        let stalled = figures.tally.stall_time;
        viewer.judged += new;
        let excuse = self.world.losses.excuse(self.world.now(), host, LATELY);
        viewer.excused += if excuse { new } else { 0 };
        if let Some(wrong) = wrong {
            self.foul("played", format!("peer:{number}: {wrong}"));
        }
        if new > 0 {
            let why = if excuse { "the network explains it" } else { "nothing explains it" };
            let text = format!("-- stalled, {stalled:?} in all; {why}");
            self.world.note(host, || text);
        }
    }

    /// What the relay published is what the encoder sent, but for null packets.
    fn check_source(&mut self) {
        let source = self.source.borrow();
        let mut wrong = Vec::new();
        for run in self.truth.runs() {
            let mut packets = run.chunks_exact(188).filter(|packet| !is_null(packet)).peekable();
            let Some(first) = packets.peek() else { continue };
            let Some(start) = source.chunks_exact(188).position(|packet| packet == *first) else {
                wrong.push("a run begins with a packet that nobody sent".to_owned());
                continue;
            };
            let sent = source.chunks_exact(188).skip(start);
            if let Some(at) = packets.zip(sent).position(|(run, sent)| run != sent) {
                wrong.push(format!("packet {at} of a run is not what was sent"));
            }
        }
        drop(source);
        wrong.into_iter().for_each(|wrong| self.foul("source", wrong));
    }

    fn foul(&mut self, rule: &'static str, what: String) {
        if self.fouls.len() < FOULS_MAX {
            self.fouls.push(Foul { at: self.world.now(), rule, what });
        }
    }

    /// Bytes that a viewer who stayed should have shown at the end.
    #[must_use]
    pub fn bytes_of(&self, time: Duration) -> u64 {
        bytes_of(self.plan.bitrate, time)
    }
}

fn is_null(packet: &[u8]) -> bool {
    packet[1] & 0x1F == 0x1F && packet[2] == 0xFF
}
