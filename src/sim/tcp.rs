//! Connections of the virtual network: bytes in order, none lost, by the same lines that the
//! datagrams use. Loss costs time; a receiver's window is all the congestion control there is.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use crate::base::ids::{ConnId, ListenerId};
use crate::base::payload::Payload;
use crate::base::time::Mono;
use crate::io::machine::{Closed, ConnectError, Input};
use crate::sim::dice::Dice;
use crate::sim::world::{Event, HTTP, World};

/// Bytes under way in one direction before a send is blocked.
const WINDOW: usize = 256 << 10;

/// A viewer stalls without fault to whom no more can be sent because the window is full of what
/// waits for so long to be sent again.
const HELD_UP: Duration = Duration::from_millis(300);

/// Payload of a segment, and the headers in front.
const SEGMENT: usize = 1_448;
const SEGMENT_HEADERS: usize = 52;

/// The first port of a client.
const PORT_FIRST: u16 = 32_768;

/// What happens to connections.
pub enum TcpEvent {
    /// Somebody wants to connect.
    Syn { seat: usize, life: u32, token: u64, to: SocketAddrV4 },
    /// Somebody hears that nobody listens.
    Refused { seat: usize, life: u32, token: u64 },
    /// Somebody hears that they are connected.
    Connected { wire: usize, token: u64 },
    /// Bytes are in front of the receiver's line.
    Router { wire: usize, side: usize, data: Box<[u8]> },
    /// Bytes have come to the end `side`.
    Data { wire: usize, side: usize, data: Box<[u8]> },
    /// The end `side` hears that bytes arrived.
    Acked { wire: usize, side: usize, bytes: usize },
    /// The end `side` hears that nothing more comes.
    Fin { wire: usize, side: usize },
}

/// One end of a connection.
struct End {
    seat: usize,
    life: u32,
    conn: ConnId,
    /// The machine was told of it and has not heard that it is closed.
    open: bool,
    /// Bytes under way from here.
    ahead: usize,
    blocked: bool,
    /// When the last of what was sent from here is in front of the receiver's line...
    passed: Mono,
    /// ...and when it arrives.
    last: Mono,
    /// Nothing more is sent from here.
    finished: bool,
}

/// All connections.
pub struct Wires {
    wires: Vec<[End; 2]>,
    dice: Dice,
    port: u16,
}

impl Wires {
    /// None.
    #[must_use]
    pub fn new(dice: Dice) -> Wires {
        Wires { wires: Vec::new(), dice, port: PORT_FIRST }
    }
}

/// A machine's connections, by the places in its table.
#[derive(Debug, Default)]
pub struct Ports {
    ends: Vec<Option<(usize, usize)>>,
    generations: Vec<u32>,
    free: Vec<u32>,
}

impl Ports {
    fn open(&mut self, wire: usize, side: usize) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.ends.push(None);
            self.generations.push(0);
            (self.ends.len() - 1) as u32
        });
        self.ends[index as usize] = Some((wire, side));
        ConnId { index, generation: self.generations[index as usize] }
    }

    /// The wire of a connection and its side there.
    #[must_use]
    pub fn end(&self, conn: ConnId) -> Option<(usize, usize)> {
        let index = conn.index as usize;
        let same = self.generations.get(index) == Some(&conn.generation);
        self.ends.get(index).copied().flatten().filter(|_| same)
    }

    fn close(&mut self, conn: ConnId) {
        if self.end(conn).is_some() {
            self.ends[conn.index as usize] = None;
            self.generations[conn.index as usize] += 1;
            self.free.push(conn.index);
        }
    }

    fn all(&self) -> Vec<(usize, usize)> {
        self.ends.iter().flatten().copied().collect()
    }
}

impl World {
    /// The host of one end of a connection.
    pub(super) fn host_of_end(&self, wire: usize, side: usize) -> usize {
        self.seats[self.wires.wires[wire][side].seat].host
    }

    pub(super) fn tcp_connect(&mut self, seat: usize, token: u64, to: SocketAddr) {
        let (life, host) = (self.seats[seat].life, self.seats[seat].host);
        let SocketAddr::V4(to) = to else { return };
        let at = self.now() + self.hosts[host].link.delay;
        match self.host_of(*to.ip()) {
            Some(other) => {
                let at = at + self.hosts[other].link.delay;
                self.queue.plan(at, Event::Tcp(TcpEvent::Syn { seat, life, token, to }));
            }
            None => self.queue.plan(at, Event::Tcp(TcpEvent::Refused { seat, life, token })),
        }
    }

    /// Takes what happened to a connection.
    pub(super) fn tcp(&mut self, event: TcpEvent) {
        match event {
            TcpEvent::Syn { seat, life, token, to } if self.seats[seat].life == life => {
                self.accept(seat, token, to);
            }
            TcpEvent::Refused { seat, life, token } if self.seats[seat].life == life => {
                self.tell(seat, Input::ConnectFailed { token, why: ConnectError::Refused });
                self.step(seat);
            }
            TcpEvent::Syn { .. } | TcpEvent::Refused { .. } => {}
            TcpEvent::Connected { wire, token } => {
                let end = &self.wires.wires[wire][0];
                let (seat, conn) = (end.seat, end.conn);
                if end.open && self.seats[seat].life == end.life {
                    self.tell(seat, Input::Connected { token, conn });
                    self.step(seat);
                }
            }
            TcpEvent::Router { wire, side, data } => {
                let host = self.seats[self.wires.wires[wire][side].seat].host;
                let now = self.now();
                let place = &mut self.hosts[host];
                let through = place.down.take_all(now, on_the_wire(data.len()));
                let at = (through + place.link.delay).max(self.wires.wires[wire][1 - side].last);
                self.wires.wires[wire][1 - side].last = at;
                self.queue.plan(at, Event::Tcp(TcpEvent::Data { wire, side, data }));
            }
            TcpEvent::Data { wire, side, data } => self.arrive(wire, side, &data),
            TcpEvent::Acked { wire, side, bytes } => {
                let end = &mut self.wires.wires[wire][side];
                end.ahead = end.ahead.saturating_sub(bytes);
                if end.open && end.blocked && end.ahead <= WINDOW / 2 {
                    end.blocked = false;
                    let (seat, conn) = (end.seat, end.conn);
                    self.tell(seat, Input::Writable { conn });
                    self.step(seat);
                }
            }
            TcpEvent::Fin { wire, side } => {
                if let Some(seat) = self.end_here(wire, side, Closed::Eof) {
                    // The process closes its side as well.
                    self.finish(wire, side);
                    self.step(seat);
                }
            }
        }
    }

    /// Opens a connection, if somebody listens at `to`.
    fn accept(&mut self, seat: usize, token: u64, to: SocketAddrV4) {
        let (client, life) = (self.seats[seat].host, self.seats[seat].life);
        let host = self.host_of(*to.ip()).filter(|_| to.port() == HTTP);
        let seats: Vec<usize> = host.map_or(Vec::new(), |host| {
            let seats = self.hosts[host].seats.iter().copied();
            seats.filter(|seat| self.lives(*seat)).collect()
        });
        let back = self.now() + self.hosts[client].link.delay;
        if seats.is_empty() {
            let event = TcpEvent::Refused { seat, life, token };
            return self.queue.plan(back, Event::Tcp(event));
        }
        let other = seats[self.wires.dice.below(seats.len() as u64) as usize];
        let back = back + self.hosts[self.seats[other].host].link.delay;
        let wire = self.wires.wires.len();
        self.wires.port = self.wires.port.checked_add(1).unwrap_or(PORT_FIRST);
        let peer = SocketAddrV4::new(self.hosts[client].ip, self.wires.port);
        let end = |world: &mut World, seat: usize, side| {
            let conn = world.seats[seat].ports.open(wire, side);
            let (life, ahead, last) = (world.seats[seat].life, 0, back);
            let (open, blocked, finished) = (true, false, false);
            End { seat, life, conn, open, ahead, blocked, passed: last, last, finished }
        };
        let ends = [end(self, seat, 0), end(self, other, 1)];
        let conn = ends[1].conn;
        self.wires.wires.push(ends);
        self.queue.plan(back, Event::Tcp(TcpEvent::Connected { wire, token }));
        self.tell(other, Input::Accepted { conn, listener: ListenerId(0), peer: peer.into() });
        self.step(other);
    }

    pub(super) fn tcp_send(&mut self, seat: usize, conn: ConnId, parts: &[Payload; 2]) {
        let Some((wire, side)) = self.end_of(seat, conn) else { return };
        let end = &self.wires.wires[wire][side];
        if !end.open || end.finished {
            return;
        }
        if end.blocked {
            self.broken = Some(format!("seat {seat} sends on a connection that is blocked"));
        }
        let room = WINDOW - end.ahead.min(WINDOW);
        let mut data = [parts[0].as_slice(), parts[1].as_slice()].concat();
        data.truncate(room);
        let n = data.len();
        self.digest.add(4 << 32 | seat as u64);
        self.digest.add(n as u64);
        if n == 0 {
            let [end, other] = &mut self.wires.wires[wire];
            let (end, other) = if side == 0 { (end, other) } else { (other, end) };
            end.blocked = true;
            let held = end.passed;
            if held.since(self.queue.now()) >= HELD_UP {
                self.losses.fault(held, self.seats[other.seat].host);
            }
            return self.tell(seat, Input::Blocked { conn });
        }
        let (host, other) = (self.seats[seat].host, self.wires.wires[wire][1 - side].seat);
        let there = self.seats[other].host;
        let again = self.lost_segments(host, there, n);
        let now = self.now();
        let place = &mut self.hosts[host];
        let leaves = place.up.take_all(now, on_the_wire(n)) + place.link.delay + again;
        let end = &mut self.wires.wires[wire][side];
        end.ahead += n;
        // What is sent again holds up what comes behind it.
        let leaves = leaves.max(end.passed);
        end.passed = leaves;
        let (data, side) = (data.into_boxed_slice(), 1 - side);
        self.queue.plan(leaves, Event::Tcp(TcpEvent::Router { wire, side, data }));
        self.tell(seat, Input::Sent { conn, n });
    }

    /// How much later `bytes` come because some of them had to be sent again.
    fn lost_segments(&mut self, from: usize, to: usize, bytes: usize) -> Duration {
        let (there, here) = (&self.hosts[to].link, &self.hosts[from].link);
        let loss = here.faults.loss + there.faults.loss;
        let trip = 2 * (here.delay + there.delay);
        let mut late = Duration::ZERO;
        for _ in 0..bytes.div_ceil(SEGMENT) {
            late += if self.wires.dice.happens(loss) { trip } else { Duration::ZERO };
        }
        late.min(2 * trip)
    }

    fn arrive(&mut self, wire: usize, side: usize, data: &[u8]) {
        let [here, there] = [side, 1 - side].map(|side| {
            let end = &self.wires.wires[wire][side];
            (end.seat, end.conn, end.open && self.seats[end.seat].life == end.life)
        });
        let delay = [here, there].map(|(seat, ..)| self.hosts[self.seats[seat].host].link.delay);
        let at = self.now() + delay[0] + delay[1];
        let acked = TcpEvent::Acked { wire, side: 1 - side, bytes: data.len() };
        self.queue.plan(at, Event::Tcp(acked));
        if here.2 {
            self.digest.add(5 << 32 | here.0 as u64);
            self.digest.add(data.len() as u64);
            let host = self.seats[here.0].host;
            self.note(host, || format!("<- tcp {} B", data.len()));
            self.tell(here.0, Input::Received { conn: here.1, data });
            self.step(here.0);
        }
    }

    pub(super) fn tcp_shutdown(&mut self, seat: usize, conn: ConnId) {
        if let Some((wire, side)) = self.end_of(seat, conn) {
            self.finish(wire, side);
        }
    }

    pub(super) fn tcp_close(&mut self, seat: usize, conn: ConnId) {
        if let Some((wire, side)) = self.end_of(seat, conn) {
            self.finish(wire, side);
            self.end_here(wire, side, Closed::Local);
        }
    }

    /// Tells the other end, behind all that was sent, that nothing more comes.
    fn finish(&mut self, wire: usize, side: usize) {
        let seats = [0, 1].map(|side: usize| self.wires.wires[wire][side].seat);
        let delay: Duration =
            seats.iter().map(|seat| self.hosts[self.seats[*seat].host].link.delay).sum();
        let now = self.now();
        let end = &mut self.wires.wires[wire][side];
        if !std::mem::replace(&mut end.finished, true) {
            // What is in front of the other's line comes first.
            let at = end.last.max(now + delay) + Duration::from_micros(1);
            let at = if end.ahead > 0 { at + 2 * delay } else { at };
            self.queue.plan(at, Event::Tcp(TcpEvent::Fin { wire, side: 1 - side }));
        }
    }

    /// Closes one end; its machine, if it was told.
    fn end_here(&mut self, wire: usize, side: usize, why: Closed) -> Option<usize> {
        let end = &mut self.wires.wires[wire][side];
        let (seat, conn, life) = (end.seat, end.conn, end.life);
        if !std::mem::replace(&mut end.open, false) {
            return None;
        }
        self.seats[seat].ports.close(conn);
        if self.seats[seat].life != life {
            return None;
        }
        self.tell(seat, Input::Closed { conn, why });
        Some(seat)
    }

    /// The process of `seat` is gone: all its connections end.
    pub(super) fn hang_up_all(&mut self, seat: usize) {
        for (wire, side) in self.seats[seat].ports.all() {
            self.finish(wire, side);
            self.end_here(wire, side, Closed::Error);
        }
    }
}

/// Bytes with their headers.
fn on_the_wire(bytes: usize) -> usize {
    bytes + bytes.div_ceil(SEGMENT) * SEGMENT_HEADERS
}
