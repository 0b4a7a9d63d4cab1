//! The third driver of the machines: hosts on a virtual network, in virtual time.
//!
//! It keeps the loop of the contract ([`crate::io::machine`]): inputs, then polls until nothing
//! more comes, then sleep until the deadline or the next input. Nothing else moves: no thread, no
//! clock, no socket. Hosts have clocks of their own, which agree about nothing but the length of
//! a second.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use crate::base::ids::{ConnId, ShardId, SocketId, StreamSlot};
use crate::base::spread::Mix;
use crate::base::time::{Mono, Now, Utc};
use crate::io::machine::{Input, Machine, Outbox, Output};
use crate::shard::mail::Mail;
use crate::sim::dice::{Dice, Ppm};
use crate::sim::digest::Digest;
use crate::sim::egress::Egress;
use crate::sim::flight::{Cargo, Flight};
use crate::sim::link::{Link, Pipe, Weather};
use crate::sim::losses::Losses;
use crate::sim::nat::Nat;
use crate::sim::proofs::Proofs;
use crate::sim::queue::Queue;
use crate::sim::tcp::{Ports, TcpEvent, Wires};
use crate::sim::trouble::Trouble;

/// Outputs of one poll.
const OUTBOX: usize = 64;

const MILLION: i64 = 1_000_000;

/// Polls in a row after which a machine is one that never rests.
const ROUNDS_MAX: u32 = 100_000;

/// No driver wakes up more exactly than this...
const GRAIN: Duration = Duration::from_micros(50);

/// ...nor sleeps longer than this.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// How long mail between shards is under way.
const MAIL: Duration = Duration::from_micros(20);

/// The year 2027, at which all worlds begin.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// The port of every UDP socket.
pub const PORT: u16 = 6_778;
/// The relay's port for HTTP.
pub const HTTP: u16 = 8_080;

/// Machines of a host, at most: the shards of the relay.
pub const SEATS_MAX: usize = 2;

/// The first host is the relay.
pub const RELAY: usize = 0;

/// A machine that a world can drive.
pub type Driven = Box<dyn Machine<Mail = Mail>>;

/// What happens.
pub enum Event {
    /// A machine's deadline passes.
    Wake { seat: usize, life: u32 },
    /// A flight is in front of the receiver's line.
    Router(Box<Flight>),
    /// A flight lands.
    Land { host: usize, flight: Box<Flight> },
    /// A network card has room again.
    Room { seat: usize, life: u32 },
    /// Something about a connection.
    Tcp(TcpEvent),
    /// Mail between the machines of a host.
    Mail { seat: usize, life: u32, mail: Mail },
    /// A stream has grown.
    Head { seat: usize, life: u32, stream: StreamSlot },
    /// The scenario goes on.
    Step(usize),
}

/// A computer.
pub struct Host {
    /// Its address, as the world sees it.
    pub ip: Ipv4Addr,
    /// Its way to the world.
    pub link: Link,
    /// Its machines.
    pub seats: Vec<usize>,
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    pub(super) out: Weather,
    pub(super) inward: Weather,
    pub(super) nat: Nat,
    /// Its monotonic clock is ahead of the world's by this.
    pub(super) skew: Duration,
    /// And gains so many millionths, or loses them.
    pub(super) drift: i64,
    /// Its wall clock is ahead by this many milliseconds.
    utc_skew: u64,
    pub(super) traffic: Traffic,
    /// It passes on what it verified, and nothing else.
    pub(super) honest: bool,
    /// What has come since its last turn, and what will come next, in its order.
    pub(super) inbox: VecDeque<(Mono, Box<Flight>)>,
    /// Its turns are so much later than those of others.
    pub(super) phase: u64,
}

/// A chunk that a viewer passed on.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// Who.
    pub host: usize,
    /// When.
    pub at: Mono,
    /// Its id, and the sum of its bytes.
    pub chunk: u64,
    /// See [`crate::sim::truth::sum`].
    pub sum: u64,
}

/// What went through a host's link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams that it sent, and bytes of their payload.
    pub sent: u64,
    pub sent_bytes: u64,
    /// Datagrams that reached it, and their bytes.
    pub received: u64,
    pub received_bytes: u64,
    /// Bytes of chunks that reached it, from the relay and from others.
    pub chunks_relay: u64,
    pub chunks_peers: u64,
    /// Bytes of datagrams with hashes that it sent, and of those with neither hashes nor chunks.
    pub integrity_sent: u64,
    pub control_sent: u64,
    /// Datagrams to or from it that were lost to chance.
    pub lost: u64,
    /// Datagrams that found a queue full, that were too long, that nobody let through.
    pub queue_full: u64,
    pub too_long: u64,
    pub refused: u64,
}

/// A machine's place.
pub struct Seat {
    pub(super) host: usize,
    machine: Option<Driven>,
    /// Counts the machines that had this place.
    pub(super) life: u32,
    pub(super) wake: Option<Mono>,
    full: bool,
    pub(super) ports: Ports,
}

/// Takes lines about one host.
pub struct Trace {
    /// The host.
    pub host: usize,
    /// Where lines go.
    pub sink: Box<dyn FnMut(&str)>,
}

/// All hosts and what happens between them.
pub struct World {
    seed: u64,
    pub(super) queue: Queue<Event>,
    /// All hosts; never fewer.
    pub hosts: Vec<Host>,
    places: HashMap<Ipv4Addr, usize, BuildHasherDefault<Mix>>,
    /// Who has proven the address to which host, by the traffic between them.
    pub(super) proofs: Proofs,
    pub(super) seats: Vec<Seat>,
    pub(super) wires: Wires,
    pub(super) trouble: Trouble,
    /// What the clocks of hosts that are added gain or lose at most.
    drift: Ppm,
    /// Everything that happened between machines.
    pub digest: Digest,
    /// How many things happened.
    pub events: u64,
    /// Chunks that the network lost.
    pub losses: Losses,
    /// Chunks that honest viewers passed on, to be held against the truth.
    pub passed: Vec<Passed>,
    /// What the relay sends, by what for.
    pub egress: Egress,
    pub(super) trace: Option<Trace>,
    outbox: Outbox<Mail>,
    pub(super) landing: Vec<u8>,
    /// A rule of the contract that a machine broke.
    pub broken: Option<String>,
    /// The machine that was driven last.
    pub touched: Vec<usize>,
}

impl World {
    /// A world without anybody, whose clocks gain or lose `drift` at most.
    #[must_use]
    pub fn new(seed: u64, bitrate: u64, drift: Ppm, trace: Option<Trace>) -> World {
        World {
            seed,
            queue: Queue::default(),
            hosts: Vec::new(),
            places: HashMap::default(),
            proofs: Proofs::default(),
            seats: Vec::new(),
            wires: Wires::new(Dice::new(seed, "tcp", 0)),
            trouble: Trouble::default(),
            drift,
            digest: Digest::default(),
            events: 0,
            losses: Losses::default(),
            passed: Vec::new(),
            egress: Egress::new(bitrate),
            trace,
            outbox: Outbox::new(OUTBOX),
            landing: Vec::new(),
            broken: None,
            touched: Vec::new(),
        }
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Mono {
        self.queue.now()
    }

    /// Adds a host.
    pub fn add_host(&mut self, ip: Ipv4Addr, link: Link) -> usize {
        let index = self.hosts.len() as u64;
        let mut clocks = Dice::new(self.seed, "clocks", index);
        self.hosts.push(Host {
            ip,
            up: Pipe::new(link.up, link.queue_up),
            down: Pipe::new(link.down, link.queue),
            out: Weather::new(Dice::new(self.seed, "outward", index)),
            inward: Weather::new(Dice::new(self.seed, "inward", index)),
            nat: Nat::new(link.nat, ip, PORT),
            skew: clocks.time(Duration::from_secs(86_400)),
            utc_skew: clocks.below(1_000_000_000),
            drift: clocks.below(2 * u64::from(self.drift) + 1).cast_signed()
                - i64::from(self.drift),
            seats: Vec::new(),
            traffic: Traffic::default(),
            honest: index > RELAY as u64,
            inbox: VecDeque::new(),
            phase: clocks.below(1_000_000_000),
            link,
        });
        self.places.insert(ip, self.hosts.len() - 1);
        self.hosts.len() - 1
    }

    /// Adds a place for a machine on `host`.
    pub fn add_seat(&mut self, host: usize) -> usize {
        let (life, wake, ports) = (0, None, Ports::default());
        self.seats.push(Seat { host, machine: None, life, wake, full: false, ports });
        self.hosts[host].seats.push(self.seats.len() - 1);
        debug_assert!(self.hosts[host].seats.len() <= SEATS_MAX);
        self.seats.len() - 1
    }

    /// Puts a machine into a place, and lets it begin.
    pub fn seat(&mut self, seat: usize, machine: Driven) {
        let place = &mut self.seats[seat];
        place.life += 1;
        (place.machine, place.wake, place.full) = (Some(machine), None, false);
        self.step(seat);
    }

    /// Takes a machine away, as a signal does that no process survives: its connections end, of
    /// datagrams nobody hears more.
    pub fn kill(&mut self, seat: usize) {
        if self.seats[seat].machine.take().is_some() {
            self.seats[seat].life += 1;
            self.forget_inbox(seat);
            self.hang_up_all(seat);
        }
    }

    /// A machine does nothing any more, as one that is stopped: nobody is told.
    pub fn freeze(&mut self, seat: usize) {
        if self.seats[seat].machine.take().is_some() {
            self.seats[seat].life += 1;
            self.forget_inbox(seat);
        }
    }

    /// Whether there is a machine.
    #[must_use]
    pub fn lives(&self, seat: usize) -> bool {
        self.seats[seat].machine.is_some()
    }

    /// What the clocks of a host say.
    #[must_use]
    pub fn clock(&self, host: usize) -> Now {
        let (now, host) = (self.queue.now(), &self.hosts[host]);
        let now = Mono::from_nanos(scale(now.as_nanos(), MILLION + host.drift, MILLION));
        let utc = EPOCH_MS + host.utc_skew + now.as_nanos() / 1_000_000;
        Now { mono: now + host.skew, utc: Utc::from_unix_millis(utc) }
    }

    /// When the monotonic clock of a host says `at`.
    fn when(&self, host: usize, at: Mono) -> Mono {
        let host = &self.hosts[host];
        let nanos = scale((at - host.skew).as_nanos(), MILLION, MILLION + host.drift);
        // What was divided is less by a fraction.
        Mono::from_nanos(nanos + u64::from(host.drift != 0))
    }

    /// The host with this address.
    pub(super) fn host_of(&self, ip: Ipv4Addr) -> Option<usize> {
        self.places.get(&ip).copied()
    }

    /// Lets something happen now.
    pub fn inject(&mut self, event: Event) {
        self.queue.plan(self.queue.now(), event);
    }

    /// Plans the scenario's step `step`.
    pub fn plan(&mut self, at: Mono, step: usize) {
        self.queue.plan(at, Event::Step(step));
    }

    /// Lets the next event happen, if it does until `end`. A step of the scenario is left to the
    /// caller. `None`: there is nothing left until then.
    pub fn next(&mut self, end: Mono) -> Option<Option<usize>> {
        self.touched.clear();
        let event = self.queue.next_until(end)?;
        let Some(event) = self.hold_up(event) else { return Some(None) };
        self.events += 1;
        // How often a machine looks at its clock is its own business.
        if !matches!(event, Event::Wake { .. }) {
            self.digest.add(self.queue.now().as_nanos());
        }
        match event {
            Event::Step(step) => return Some(Some(step)),
            Event::Wake { seat, life } => {
                let place = &mut self.seats[seat];
                if place.life == life && place.wake == Some(self.queue.now()) {
                    place.wake = None;
                    self.read_inbox(self.seats[seat].host);
                    self.step(seat);
                }
            }
            Event::Router(flight) => self.route(flight),
            Event::Land { host, flight } => {
                let told = self.land(host, &flight);
                told.into_iter().flatten().for_each(|seat| self.step(seat));
            }
            Event::Room { seat, life } if self.seats[seat].life == life => {
                self.seats[seat].full = false;
                self.tell(seat, Input::SocketReady { socket: SocketId::SWARM });
                self.step(seat);
            }
            Event::Mail { seat, life, mail } if self.seats[seat].life == life => {
                self.tell(seat, Input::Mail(mail));
                self.step(seat);
            }
            Event::Head { seat, life, stream } if self.seats[seat].life == life => {
                self.tell(seat, Input::Head { stream });
                self.step(seat);
            }
            Event::Tcp(event) => self.tcp(event),
            // For a machine that is gone.
            Event::Room { .. } | Event::Mail { .. } | Event::Head { .. } => {}
        }
        Some(None)
    }

    /// Gives a machine an input.
    pub fn tell(&mut self, seat: usize, input: Input<'_, Mail>) {
        let now = self.clock(self.seats[seat].host);
        if let Some(machine) = &mut self.seats[seat].machine {
            machine.handle(now, input);
        }
    }

    /// Lets a machine do what it wants to do now, and plans when it is asked again.
    pub fn step(&mut self, seat: usize) {
        let host = self.seats[seat].host;
        let now = self.clock(host);
        for round in 0.. {
            if round > ROUNDS_MAX {
                self.broken = Some(format!("the machine of seat {seat} never rests"));
                break;
            }
            let Some(machine) = &mut self.seats[seat].machine else { return };
            let mut out = std::mem::replace(&mut self.outbox, Outbox::new(0));
            machine.poll(now, &mut out);
            let empty = out.is_empty();
            out.drain().for_each(|output| self.carry_out(seat, output));
            self.outbox = out;
            if empty {
                break;
            }
        }
        self.touched.push(seat);
        let now = self.queue.now();
        let machine = self.seats[seat].machine.as_ref();
        let deadline = machine.and_then(|machine| machine.next_deadline());
        let deadline = deadline.map_or(now + SLEEP_MAX, |at| self.when(host, at));
        let comes = self.hosts[host].inbox.front().map_or(deadline, |(at, _)| *at);
        self.wake(seat, deadline.min(comes).clamp(now + GRAIN, now + SLEEP_MAX));
    }

    fn carry_out(&mut self, seat: usize, output: Output<Mail>) {
        match output {
            Output::Send { conn, parts } => self.tcp_send(seat, conn, &parts),
            Output::Shutdown { conn } => self.tcp_shutdown(seat, conn),
            Output::Close { conn } => self.tcp_close(seat, conn),
            Output::Connect { token, to } => self.tcp_connect(seat, token, to),
            // A connection here holds little unsent.
            Output::Backlog { .. } => {}
            Output::Datagram { to, data, .. } => self.submit(seat, to, Cargo::Datagram(data)),
            Output::Train(train) => self.submit(seat, train.to, Cargo::Train(Rc::new(train))),
            Output::Mail { shard, mail } => {
                let Some((seat, life)) = self.sibling(seat, shard) else { return };
                self.queue.plan(self.queue.now() + MAIL, Event::Mail { seat, life, mail });
            }
            Output::Head { shard, stream } => {
                let Some((seat, life)) = self.sibling(seat, shard) else { return };
                self.queue.plan(self.queue.now() + MAIL, Event::Head { seat, life, stream });
            }
        }
    }

    /// The machine of a shard on the host of `seat`.
    fn sibling(&self, seat: usize, shard: ShardId) -> Option<(usize, u32)> {
        let seats = &self.hosts[self.seats[seat].host].seats;
        let seat = *seats.get(usize::from(shard.0))?;
        Some((seat, self.seats[seat].life))
    }

    /// The socket of `seat` takes no more until its host's line has taken `bytes` of what waits.
    pub(super) fn fill(&mut self, seat: usize, until: Mono) {
        if !std::mem::replace(&mut self.seats[seat].full, true) {
            let life = self.seats[seat].life;
            self.queue.plan(until, Event::Room { seat, life });
            self.tell(seat, Input::SocketFull { socket: SocketId::SWARM });
        }
    }

    /// Adds a line to the trace, if `host` is the one that is traced.
    pub(super) fn note(&mut self, host: usize, line: impl FnOnce() -> String) {
        if self.trace.as_ref().is_some_and(|trace| trace.host == host) {
            self.say(line);
        }
    }

    /// Adds a line to the trace, whoever is traced.
    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = self.trace.as_mut() {
            let nanos = self.queue.now().as_nanos();
            let (seconds, micros) = (nanos / 1_000_000_000, nanos / 1_000 % 1_000_000);
            (trace.sink)(&format!("{seconds:>4}.{micros:06}  {}", line()));
        }
    }

    /// A connection, by its machine.
    pub(super) fn end_of(&self, seat: usize, conn: ConnId) -> Option<(usize, usize)> {
        self.seats[seat].ports.end(conn)
    }
}

/// `nanos` times `by` over `of`, both of them positive.
fn scale(nanos: u64, by: i64, of: i64) -> u64 {
    if by == of {
        return nanos;
    }
    let scaled = i128::from(nanos) * i128::from(by) / i128::from(of);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::population;

    #[test]
    fn a_clock_that_gains_says_when_it_will_say_something() {
        let mut world = World::new(5, 2_000_000, 200, None);
        let hosts = (0..20_u8).map(|n| [192, 0, 2, n].into());
        hosts.for_each(|ip| _ = world.add_host(ip, population::relay(1_000_000)));
        world.plan(Mono::from_millis(1_000_000), 0);
        let before: Vec<Mono> = (0..20).map(|host| world.clock(host).mono).collect();
        assert_eq!(world.next(Mono::from_millis(2_000_000)), Some(Some(0)));
        for (host, before) in before.into_iter().enumerate() {
            let after = world.clock(host).mono;
            let gained = after.since(before).as_micros().cast_signed() - 1_000_000_000;
            assert!((-200_000..=200_000).contains(&gained), "{gained} us in a thousand seconds");
            assert_eq!(gained / 1_000, i128::from(world.hosts[host].drift));
            let late = world.when(host, after).since(world.now());
            assert!(world.when(host, after) >= world.now() && late <= Duration::from_nanos(3));
        }
        assert!((0..20).any(|host| world.hosts[host].drift < -50));
        assert!((0..20).any(|host| world.hosts[host].drift > 50));
    }
}
