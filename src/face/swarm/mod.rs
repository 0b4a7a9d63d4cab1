//! The relay's face towards peers: PPSPP over one UDP socket, of one shard.
//!
//! ```text
//! opening    datagrams to channel 0: answered if all is right, else silence
//! talk       datagrams on a channel of ours: the first confirms the opening, then messages
//! serve      who is due is asked what to send; links that are over are closed
//! sessions   the links, by place and by channel
//! shoal      the peers of one stream here, and which of its subtrees can be sent
//! told       what peers say of themselves, and what they were told
//! prices     what each peer is reckoned at, and what goes out
//! hybrid     what is counted for the stream's controller, and its orders
//! advice     peers are told who is to feed them
//! introductions  peers are told of each other
//! probing    peers measure what their lines carry
//! notes      what the faces of different shards tell each other
//! trains     what is the same for all of them, made once
//! wheel      timers
//! ```
//!
//! The rules against strangers: nobody is answered more bytes than they sent, before they have
//! echoed a channel id that only we could have told them; nothing is kept for them but 40 bytes
//! for three seconds; what is wrong meets silence. Whoever has proven the address is told why
//! they are refused.
//!
//! Who holds the face calls `handle_*` for what happens, then [`Swarm::turn`] once and
//! [`Swarm::poll`] until it gives nothing, and again at [`Swarm::deadline`].

mod advice;
mod hybrid;
mod introductions;
pub mod notes;
mod opening;
mod prices;
mod probing;
mod serve;
mod sessions;
mod shoal;
mod talk;
#[cfg(test)]
mod tests;
mod told;
pub mod trains;
mod wheel;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;

use crate::base::ids::{ShardId, StreamSlot};
use crate::base::payload::Payload;
use crate::base::planted::{Plant, is};
use crate::base::time::Mono;
use crate::metrics::cells::Cells;
use crate::metrics::table::Cell;
use crate::registry::budget::Meter;
use crate::registry::stream::Stream;
use crate::registry::streams::Registry;
use crate::swarm::channel::{Channels, shard_of};
use crate::swarm::controller::mix;
use crate::swarm::halfopen::HalfOpen;
use crate::swarm::integrity::SwarmId;
use crate::swarm::settings::Settings;
use crate::wire::ppspp::{self, Bye};

pub use sessions::PEER_BYTES;

use hybrid::Helm;
use notes::Note;
use probing::Probings;
use sessions::{Line, Sessions};
use shoal::Shoal;
use wheel::Wheel;

/// Answers to openings, and closes, that wait for the socket. Beyond it answers are dropped and
/// counted: who gets none tries again.
const LETTERS_MAX: usize = 1_024;

/// How often the registry is looked through for a swarm that is not known: strangers may name
/// any.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a face is made of.
pub struct Parts {
    /// The shard.
    pub shard: ShardId,
    /// What the operator chose.
    pub settings: Arc<Settings>,
    /// The process's secret behind channel ids: random, and new with each start.
    pub key: [u8; 32],
    /// All streams.
    pub registry: Arc<Registry>,
    /// The shard's block of metrics.
    pub cells: Arc<Cells>,
}

/// Datagrams to send: one, or several as one train.
#[derive(Clone, Debug)]
pub struct Shipment {
    /// The peer.
    pub to: SocketAddr,
    /// The address to send from.
    pub from: Option<IpAddr>,
    /// The peer's channel: to be written over the first four bytes of each datagram.
    pub channel: u32,
    /// The first datagram, or nothing.
    pub head: Payload,
    /// One header for each of the other datagrams; the last eight bytes are for the time.
    pub headers: Payload,
    /// Bytes of one header.
    pub header: u16,
    /// Their chunks.
    pub body: Payload,
}

impl Shipment {
    /// One datagram.
    fn letter(to: SocketAddr, from: Option<IpAddr>, channel: u32, head: Payload) -> Shipment {
        let (headers, body) = (Payload::Empty, Payload::Empty);
        Shipment { to, from, channel, head, headers, header: 29, body }
    }

    /// Bytes of UDP payload.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.head.len() + self.headers.len() + self.body.len()) as u64
    }
}

/// The face of one shard.
pub struct Swarm {
    shard: ShardId,
    settings: Arc<Settings>,
    registry: Arc<Registry>,
    cells: Arc<Cells>,
    channels: Channels,
    openings: HalfOpen,
    sessions: Sessions,
    /// By the stream's place in the registry.
    shoals: Vec<Option<Shoal>>,
    /// Streams by their name in the swarm, as the registry was last looked through.
    names: HashMap<SwarmId, Arc<Stream>>,
    named: Option<Mono>,
    wheel: Wheel,
    /// Sessions off the wheel, kept for its memory.
    due: Vec<(u32, wheel::Spoke)>,
    /// Sessions that asked for something, then those that have something to be pushed. Each
    /// stands in at most one of them.
    urgent: VecDeque<u32>,
    ready: VecDeque<u32>,
    /// What goes out.
    meter: Meter,
    /// What belongs to no session, or no longer.
    letters: VecDeque<Shipment>,
    /// The chunks behind a hash datagram that did not fit their train.
    second: Option<Shipment>,
    /// Streams that this shard coordinates, by their place in the registry.
    helms: Vec<Option<Helm>>,
    /// For other shards.
    notes: VecDeque<(ShardId, Note)>,
    /// Peers of this shard by channel, and who is to be told to each.
    meetings: Vec<(u32, SocketAddr)>,
    /// When peers are told who is to feed them, and of each other, if there is anything to tell.
    advise_at: Option<Mono>,
    /// Peers of a stream by rank, kept for its memory.
    ranked: Vec<(u64, u32)>,
    /// Trains by which peers measure their lines.
    probings: Probings,
    /// What is chosen by chance.
    dice: u64,
    /// Closes by reason, without a channel, for peers that hear why and for others.
    closes: [Bytes; Bye::COUNT],
    close: Bytes,
    /// Whether any shoal is being closed.
    closing: bool,
    /// The socket takes no more.
    full: bool,
    /// The shard has too much to do: nobody new is let in.
    busy: bool,
    draining: bool,
}

impl Swarm {
    /// A face without peers.
    #[must_use]
    pub fn new(parts: Parts) -> Swarm {
        let Parts { shard, settings, key, registry, cells } = parts;
        Swarm {
            shard,
            settings,
            registry,
            cells,
            channels: Channels::new(&key, shard),
            openings: HalfOpen::default(),
            sessions: Sessions::default(),
            shoals: Vec::new(),
            names: HashMap::new(),
            named: None,
            wheel: Wheel::new(),
            due: Vec::new(),
            urgent: VecDeque::new(),
            ready: VecDeque::new(),
            meter: Meter::default(),
            letters: VecDeque::new(),
            second: None,
            helms: Vec::new(),
            notes: VecDeque::new(),
            meetings: Vec::new(),
            advise_at: None,
            ranked: Vec::new(),
            probings: Probings::default(),
            dice: key.iter().fold(u64::from(shard.0), |dice, byte| mix(dice ^ u64::from(*byte))),
            closes: serve::closes(),
            close: Bytes::copy_from_slice(&ppspp::build::close(0)),
            closing: false,
            full: false,
            busy: false,
            draining: false,
        }
    }

    /// Datagrams from one sender. Those for another shard are given to `forward`.
    pub fn handle_datagrams(
        &mut self,
        now: Mono,
        from: SocketAddr,
        to: Option<IpAddr>,
        segment: usize,
        data: &[u8],
        forward: &mut dyn FnMut(ShardId, &[u8]),
    ) {
        for datagram in data.chunks(segment.max(1)) {
            let Some((channel, messages)) = ppspp::split(datagram) else {
                self.cells.add(Cell::SwarmDatagramsStray, 1);
                continue;
            };
            match shard_of(channel) {
                None if channel == 0 => self.open(now, from, to, datagram.len(), messages),
                None => self.cells.add(Cell::SwarmDatagramsStray, 1),
                Some(shard) if shard == self.shard => {
                    self.talk(now, from, to, channel, messages);
                }
                Some(shard) if usize::from(shard.0) < self.registry.shards() => {
                    forward(shard, datagram);
                }
                Some(_) => self.cells.add(Cell::SwarmDatagramsStray, 1),
            }
        }
    }

    /// A stream has grown.
    pub fn handle_head(&mut self, now: Mono, stream: StreamSlot) {
        if let Some(Some(shoal)) = self.shoals.get_mut(stream.0 as usize) {
            shoal.grown(now);
        }
    }

    /// The socket takes no more (`true`), or takes more again.
    pub fn handle_socket(&mut self, full: bool) {
        self.full = full;
    }

    /// Whether the shard has too much to do to let anybody in.
    pub fn set_busy(&mut self, busy: bool) {
        self.busy = busy;
    }

    /// A stream is over: its peers are told.
    pub fn handle_end(&mut self, stream: &Arc<Stream>) {
        let shoals = self.shoals.iter_mut().flatten();
        for shoal in shoals.filter(|shoal| Arc::ptr_eq(&shoal.stream, stream)) {
            shoal.closing = Some(Bye::Ended);
            self.closing = true;
        }
        self.names.retain(|_, known| !Arc::ptr_eq(known, stream));
    }

    /// The process ends: every peer is told.
    pub fn handle_drain(&mut self) {
        self.draining = true;
        for shoal in self.shoals.iter_mut().flatten() {
            shoal.closing = Some(Bye::Draining);
            self.closing = true;
        }
    }

    /// The next datagrams to send, if there is anything.
    pub fn poll(&mut self, now: Mono) -> Option<Shipment> {
        if self.full {
            return None;
        }
        let next = self.second.take().or_else(|| self.letters.pop_front());
        let next = next.or_else(|| self.close_next()).or_else(|| self.serve_next(now))?;
        self.cells.add(Cell::SwarmSentBytes, next.bytes());
        self.meter.count(prices::on_the_wire(&next));
        Some(next)
    }

    /// When [`Swarm::poll`] has something although nothing happened.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        let shoals = self.shoals.iter().flatten().filter_map(Shoal::deadline);
        shoals.chain(self.wheel.next()).chain(self.advise_at).min()
    }

    /// Whether there is any peer.
    #[must_use]
    pub fn has_peers(&self) -> bool {
        self.sessions.len() > 0
    }

    /// After a round: gives back pins that it needed.
    pub fn release(&mut self) {
        for shoal in self.shoals.iter_mut().flatten().filter(|shoal| shoal.touched) {
            shoal.touched = false;
            shoal.reader.release();
        }
        let over = |shoal: &Shoal| shoal.members.is_empty() && shoal.stream.ended();
        for shoal in self.shoals.iter_mut().filter(|shoal| shoal.as_ref().is_some_and(over)) {
            *shoal = None;
        }
        self.leave_helms();
    }

    /// Several times a second: publishes figures.
    pub fn publish_figures(&mut self, now: Mono) {
        self.openings.expire(now);
        self.cells.set(Cell::SwarmHalfOpen, self.openings.len() as u64);
        self.end_trains(now);
        if self.has_peers() && !(is(Plant::MissShard) && self.shard == ShardId(1)) {
            self.meter.look(now, self.registry.admission.egress());
        }
        self.count(now);
        for shoal in self.shoals.iter().flatten() {
            let share = shoal.stream.share(self.shard);
            share.peers.store(shoal.members.len() as u32, Relaxed);
            let (mut sum, mut count, mut worst) = (0, 0, 0);
            let (mut arrivals, mut last) = (0, 0);
            for place in &shoal.members {
                let report = self.sessions.get(*place).and_then(|s| s.told.as_deref());
                let report = report.and_then(|told| told.report.as_ref());
                if let Some(report) = report {
                    (sum, count) = (sum + u64::from(report.delay_p50_ms), count + 1);
                    worst = worst.max(u32::from(report.delay_p99_ms));
                    arrivals += u64::from(report.arrival_p50_ms);
                    last = last.max(u32::from(report.arrival_p99_ms));
                }
            }
            share.reporting.store(count, Relaxed);
            share.delay_p50_ms_sum.store(sum, Relaxed);
            share.delay_p99_ms_max.store(worst, Relaxed);
            share.arrival_p50_ms_sum.store(arrivals, Relaxed);
            share.arrival_p99_ms_max.store(last, Relaxed);
        }
    }

    /// Puts a session into a line. It stands at most once in each.
    fn enqueue(&mut self, place: u32, line: Line) {
        let Some(session) = self.sessions.get(place) else { return };
        match (session.line, line) {
            (Line::None, Line::Ready) => {
                if !std::mem::replace(&mut session.in_ready, true) {
                    self.ready.push_back(place);
                }
            }
            // Its place in the other line is found empty when it comes up.
            (Line::None | Line::Ready, Line::Urgent) => self.urgent.push_back(place),
            _ => return,
        }
        session.line = line;
    }

    /// Puts everybody in line who is due: by the wheel, or because a stream has grown.
    pub fn turn(&mut self, now: Mono) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.turn(now, &mut due);
        for (place, spoke) in due.drain(..) {
            if let Some(session) = self.sessions.get(place)
                && session.hook.near == spoke
            {
                session.hook.near = 0;
                let asked = session.sender.is_asked();
                self.enqueue(place, if asked { Line::Urgent } else { Line::Ready });
            }
        }
        self.due = due;
        self.advise_if_due(now);
        for index in 0..self.shoals.len() {
            let Some(shoal) = &mut self.shoals[index] else { continue };
            if shoal.look_if_due(now) {
                let members = std::mem::take(&mut shoal.members);
                members.iter().for_each(|place| self.enqueue(*place, Line::Ready));
                if let Some(shoal) = &mut self.shoals[index] {
                    shoal.members = members;
                }
            }
        }
    }

    fn shoal(&mut self, slot: StreamSlot) -> Option<&mut Shoal> {
        self.shoals.get_mut(slot.0 as usize)?.as_mut()
    }

    /// Adds a datagram that belongs to no session.
    fn post(&mut self, letter: Shipment) {
        if self.letters.len() < LETTERS_MAX {
            self.letters.push_back(letter);
        } else {
            self.cells.add(Cell::SwarmLettersDropped, 1);
        }
    }
}
