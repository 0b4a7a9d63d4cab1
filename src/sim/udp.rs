//! Datagrams of the virtual network: out through the sender's line, across, and in through the
//! receiver's, with all that can happen to them on the way.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use crate::base::ids::SocketId;
use crate::base::limits::CHUNK;
use crate::base::time::Mono;
use crate::io::machine::Input;
use crate::sim::describe::describe;
use crate::sim::flight::{Cargo, Flight, Kind};
use crate::sim::link::HEADERS;
use crate::sim::truth::sum;
use crate::sim::world::{Event, PORT, Passed, RELAY, SEATS_MAX, World};

/// A flight whose datagrams need longer than this for a line goes on in parts of at most this
/// length, so that who forwards them need not wait for the last one.
const PART: Duration = Duration::from_millis(12);

/// Bytes that a viewer may send in a minute to an address that has not answered: an opening,
/// and that again four times. Who was called in vain is left alone for a minute.
const CALLS: usize = 5 * 113;

/// The relay, which the viewer was sent to, is tried every three seconds.
const RELAY_CALLS: usize = 20 * CALLS;

/// A line for which so much is waiting is over its capacity, and excuses who is behind it.
const OVER: Duration = Duration::from_millis(300);

/// How much later than others a datagram comes that is overtaken, at most.
const LATE_MAX: Duration = Duration::from_millis(30);

/// What the digest calls a flight that begins; 2 and 3 are those that arrive and land.
const SENT: u64 = 1;

impl World {
    /// A machine hands datagrams to its socket.
    pub(super) fn submit(&mut self, seat: usize, to: SocketAddr, cargo: Cargo) {
        let host = self.seats[seat].host;
        let SocketAddr::V4(to) = to else { return };
        let (now, stamp) = (self.now(), self.clock(host).mono.as_nanos() / 1_000);
        let from = self.hosts[host].nat.outward(now, to);
        let mut flight = Box::new(Flight::new(from, to, cargo, stamp));
        let mut parts = Parts::new();
        let receiver = self.host_of(*to.ip());
        let place = &mut self.hosts[host];
        for n in flight.numbers() {
            let bytes = flight.len(n);
            place.traffic.sent += 1;
            place.traffic.sent_bytes += bytes as u64;
            let kind = flight.kind(n);
            self.egress.send(now, [Some(host), receiver], kind, bytes);
            match kind {
                Kind::Chunk(chunk) if place.honest => {
                    let sum = sum(flight.chunk_bytes(n));
                    self.passed.push(Passed { host, at: now, chunk, sum });
                }
                Kind::Chunk(_) => {}
                Kind::Integrity => place.traffic.integrity_sent += bytes as u64,
                Kind::Control => place.traffic.control_sent += bytes as u64,
            }
            let through = match (bytes + HEADERS > place.link.mtu, place.link.patient) {
                (true, _) => {
                    place.traffic.too_long += 1;
                    None
                }
                (false, true) => Some(place.up.take_all(now, bytes + HEADERS)),
                (false, false) => place.up.take(now, bytes + HEADERS).or_else(|| {
                    place.traffic.queue_full += 1;
                    None
                }),
            };
            let lost = place.link.udp_blocked || place.out.loses(&place.link.faults);
            if through.is_none() || lost {
                place.traffic.lost += u64::from(through.is_some());
                flight.lose(n);
            }
            parts.add(n, through);
        }
        self.digest_flight(SENT, host, &flight);
        // Who was introduced is called first, and a few times.
        let unasked = match (host, receiver) {
            (RELAY, _) => 0,
            (_, Some(RELAY)) => RELAY_CALLS,
            _ => CALLS,
        };
        if !self.proofs.answers(now, (host, to), flight.bytes(), unasked) {
            let who = self.hosts[host].ip;
            self.broken = Some(format!("unproven: {who} sent {to} more than came from there"));
        }
        self.note(host, || format!("-> {to}  {}", describe(&flight)));
        let place = &self.hosts[host];
        let full = place.link.patient && place.up.backlog(now) > place.link.queue_up;
        let (room_at, delay) = (place.up.below(place.link.queue_up / 2), place.link.delay);
        if full {
            self.fill(seat, room_at);
        }
        self.bury(&flight, !flight.aboard);
        let jitter = self.hosts[host].link.jitter;
        let late = delay + self.hosts[host].out.time(jitter);
        for (flight, leaves) in flight.split(parts.done()) {
            if flight.aboard != 0 {
                let at = self.hosts[host].out.in_order(leaves + late);
                self.queue.plan(at, Event::Router(flight));
            }
        }
    }

    /// A flight is in front of its receiver's line.
    pub(super) fn route(&mut self, mut flight: Box<Flight>) {
        let Some(host) = self.host_of(*flight.to.ip()) else { return };
        let (now, before) = (self.now(), flight.aboard);
        let parted = self.is_apart(*flight.from.ip(), host);
        let place = &mut self.hosts[host];
        if parted {
            // No excuse for whoever has others to ask: it is not noted which chunks they were.
            place.traffic.lost += before.count_ones() as u64;
            return;
        }
        let open = place.nat.lets_in(now, flight.from, flight.to.port());
        let (mut parts, mut apart) = (Parts::new(), Vec::new());
        for n in flight.numbers() {
            let bytes = flight.len(n);
            if place.link.udp_blocked || !open {
                place.traffic.refused += 1;
                flight.lose(n);
            } else if bytes + HEADERS > place.link.mtu {
                place.traffic.too_long += 1;
                flight.lose(n);
            } else if place.inward.loses(&place.link.faults) {
                place.traffic.lost += 1;
                flight.lose(n);
            } else if let Some(at) = place.down.take(now, bytes + HEADERS) {
                parts.add(n, Some(at));
                if place.inward.happens(place.link.faults.twice) {
                    apart.push((flight.only(1 << n), at + place.inward.time(LATE_MAX)));
                }
                if place.inward.happens(place.link.faults.late) {
                    apart.push((flight.only(1 << n), at + place.inward.time(LATE_MAX)));
                    flight.lose(n);
                }
            } else {
                place.traffic.queue_full += 1;
                flight.lose(n);
            }
        }
        let late = place.inward.time(place.link.jitter) + place.link.delay;
        let full = place.down.wait(now) >= OVER;
        if full {
            self.losses.fault(now, host);
        }
        self.digest_flight(2, host, &flight);
        let kept = apart.iter().fold(flight.aboard, |sum, (one, _)| sum | one.aboard);
        self.bury(&flight, before & !kept);
        for (one, at) in apart {
            let at = at + self.hosts[host].link.delay;
            self.bring(host, at, Box::new(one));
        }
        for (flight, through) in flight.split(parts.done()) {
            if flight.aboard != 0 {
                let at = self.hosts[host].inward.in_order(through + late);
                self.bring(host, at, flight);
            }
        }
    }

    /// Notes the chunks among the datagrams `lost` of a flight.
    fn bury(&mut self, flight: &Flight, lost: u32) {
        if lost == 0 {
            return;
        }
        let (now, Some(host)) = (self.now(), self.host_of(*flight.to.ip())) else { return };
        let relayed = *flight.from.ip() == self.hosts[RELAY].ip;
        for n in flight.missing().chain(flight.numbers()).filter(|n| lost & (1 << n) != 0) {
            if let Some(chunk) = flight.chunk(n) {
                self.losses.lost(now, host, chunk);
                if relayed {
                    self.egress.lose(host, chunk);
                }
            }
        }
    }

    /// A flight lands on `host`. Returns whom of its machines it was for.
    pub(super) fn land(&mut self, host: usize, flight: &Flight) -> [Option<usize>; SEATS_MAX] {
        self.digest_flight(3, host, flight);
        self.note(host, || format!("<- {}  {}", flight.from, describe(flight)));
        // A train is for one channel, and comes from one address.
        let echo = flight.numbers().any(|n| flight.beginning(n).0[..4] != [0; 4]);
        if flight.aboard != 0 {
            self.proofs.asks((host, flight.from), flight.bytes(), echo);
        }
        let mut landing = std::mem::take(&mut self.landing);
        let mut numbers = flight.numbers().peekable();
        let mut told = [None; SEATS_MAX];
        let sender = self.host_of(*flight.from.ip());
        while let Some(first) = numbers.next() {
            landing.clear();
            let (segment, seat) = (flight.len(first), self.steer(host, flight, first));
            self.count([host, sender.unwrap_or(host)], flight, first);
            flight.write(first, &mut landing);
            // Segments of one length come as one, as they do with UDP_GRO; the last may be short.
            while let Some(n) = numbers.next_if(|n| {
                landing.len().is_multiple_of(segment.max(1)) && flight.len(*n) <= segment
            }) {
                self.count([host, sender.unwrap_or(host)], flight, n);
                flight.write(n, &mut landing);
            }
            if host == RELAY {
                let datagrams = landing.chunks(segment.max(1));
                sender.iter().for_each(|from| {
                    datagrams.clone().for_each(|datagram| self.egress.hear(*from, datagram));
                });
            }
            let Some(seat) = seat.filter(|_| segment > 0) else { continue };
            let to = Some(IpAddr::V4(self.hosts[host].ip));
            let (socket, from) = (SocketId::SWARM, SocketAddr::V4(flight.from));
            self.tell(seat, Input::Datagrams { socket, from, to, segment, data: &landing });
            if told[0] != Some(seat) {
                told = [Some(seat), told[0]];
            }
        }
        self.landing = landing;
        told
    }

    fn count(&mut self, [host, sender]: [usize; 2], flight: &Flight, n: usize) {
        let relay = self.hosts[RELAY].ip;
        // What somebody has changed is not what the relay may spare itself.
        let true_to_it = sender == RELAY || self.hosts[sender].honest;
        let traffic = &mut self.hosts[host].traffic;
        traffic.received += 1;
        traffic.received_bytes += flight.len(n) as u64;
        if let Some(chunk) = flight.chunk(n) {
            self.losses.came(host, chunk);
            if true_to_it {
                self.egress.come(host, chunk);
            }
            let bytes = CHUNK.min(flight.len(n)) as u64;
            match *flight.from.ip() == relay {
                true => traffic.chunks_relay += bytes,
                false => traffic.chunks_peers += bytes,
            }
        }
    }

    /// The machine that a datagram goes to, as the sockets' filter does it: by the channel's low
    /// bits if we gave it out, else by the addresses.
    fn steer(&self, host: usize, flight: &Flight, n: usize) -> Option<usize> {
        let seats = &self.hosts[host].seats;
        let (seen, len) = flight.beginning(n);
        let word = u32::from_be_bytes([seen[0], seen[1], seen[2], seen[3]]);
        let ours = len >= 4 && (word >> 30 >= 2 || word >> 30 == 1);
        let shard = match (ours, usize::from(seen[3])) {
            (true, shard) if shard < seats.len() => shard,
            _ => hash(flight.from) as usize % seats.len().max(1),
        };
        seats.get(shard).copied()
    }

    fn digest_flight(&mut self, kind: u64, host: usize, flight: &Flight) {
        self.digest.add(kind << 32 | host as u64);
        self.digest.add(u64::from(flight.aboard) << 32 | flight.bytes() as u64);
        if let Some(first) = flight.numbers().next() {
            let (seen, len) = flight.beginning(first);
            self.digest.add_bytes(&seen[..len]);
        }
        // Once is enough: nothing is changed on the way.
        for n in flight.numbers().filter(|n| kind == SENT && flight.chunk(*n).is_none()) {
            self.digest.add_bytes(flight.rest(n));
        }
    }
}

/// Cuts a flight into parts, each of which is on a line for a short time only.
struct Parts {
    done: Vec<(u32, Mono)>,
    part: u32,
    /// When the part's first datagram was through, and its last.
    began: Mono,
    ends: Mono,
}

impl Parts {
    fn new() -> Parts {
        Parts { done: Vec::new(), part: 0, began: Mono::ZERO, ends: Mono::ZERO }
    }

    /// The next datagram, and when it is through, if it is at all.
    fn add(&mut self, n: usize, through: Option<Mono>) {
        let through = through.unwrap_or(self.ends);
        if self.part != 0 && through.since(self.began) > PART {
            self.done.push((self.part, self.ends));
            self.part = 0;
        }
        if self.part == 0 {
            self.began = through;
        }
        self.part |= 1 << n;
        self.ends = through;
    }

    /// All parts, and when each is through.
    fn done(mut self) -> Vec<(u32, Mono)> {
        if self.part != 0 {
            self.done.push((self.part, self.ends));
        }
        self.done
    }
}

/// As the kernel does it, roughly: the same flow comes to the same socket.
fn hash(from: SocketAddrV4) -> u32 {
    let word = u32::from(*from.ip()).wrapping_mul(0x9E37_79B9) ^ u32::from(from.port() ^ PORT);
    word.wrapping_mul(0x85EB_CA6B) >> 16
}
