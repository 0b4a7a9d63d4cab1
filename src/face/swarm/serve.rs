//! Who is due is asked what to send; links that are over are closed.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use crate::base::payload::Payload;
use crate::base::time::Mono;
use crate::face::swarm::sessions::{Extras, Line, Session};
use crate::face::swarm::{Shipment, Swarm};
use crate::metrics::table::Cell;
use crate::swarm::sender::{Next, Over, Parcel, Why};
use crate::swarm::stripes::bit_of;
use crate::wire::ppspp::{Addressing, Bye, Handshake, Message, Private, Writer};

/// A BYE and a close, without a channel, for each reason.
pub(super) fn closes() -> [Bytes; Bye::COUNT] {
    std::array::from_fn(|code| {
        let mut buf = [0; 16];
        let mut writer = Writer::new(&mut buf, 0, Addressing::default());
        let bye = Bye::from_code(code as u8);
        let whole = writer.push(Message::Private(Private::Bye(bye)))
            && writer.push(Message::Handshake(Handshake::CLOSE));
        debug_assert!(whole);
        Bytes::copy_from_slice(writer.written())
    })
}

impl Swarm {
    /// Asks sessions in line until one has something to send.
    pub(super) fn serve_next(&mut self, now: Mono) -> Option<Shipment> {
        loop {
            let (line, place) = match self.urgent.pop_front() {
                Some(place) => (Line::Urgent, place),
                None => (Line::Ready, self.ready.pop_front()?),
            };
            let Some(session) = self.sessions.get(place) else { continue };
            if line == Line::Ready {
                session.in_ready = false;
            }
            if session.line != line {
                // It stood in the other line as well, and was served there.
                continue;
            }
            session.line = Line::None;
            if let Some(shipment) = self.serve(now, place) {
                return Some(shipment);
            }
        }
    }

    /// Asks one session what to send.
    fn serve(&mut self, now: Mono, place: u32) -> Option<Shipment> {
        let session = self.sessions.get(place)?;
        let slot = session.stream.0 as usize;
        let shoal = self.shoals.get_mut(slot)?.as_mut()?;
        match session.sender.next(now, &shoal.source) {
            Next::Send(parcel) => {
                let asked = session.sender.is_asked();
                let shipment = self.ship(now, place, parcel);
                self.enqueue(place, if asked { Line::Urgent } else { Line::Ready });
                shipment
            }
            Next::Have(run) => {
                let head = shoal.trains.have(run)?;
                self.enqueue(place, Line::Ready);
                self.letter(place, head)
            }
            Next::Wait => {
                let at = session.sender.deadline(now, &shoal.source);
                self.wheel.hang(place, at, &mut session.hook);
                None
            }
            Next::Close(over) => {
                let why = match over {
                    Over::Dead => Cell::PeersDead,
                    Over::Downlink => Cell::PeersDownlink,
                    Over::Mtu => Cell::PeersMtu,
                };
                self.close(place, over.bye(), why);
                None
            }
        }
    }

    /// The datagrams of a parcel. A hash datagram that does not fit the train goes first, the
    /// chunks follow as [`Swarm::second`].
    fn ship(&mut self, now: Mono, place: u32, parcel: Parcel) -> Option<Shipment> {
        let Parcel { subtree, hash, run, why } = parcel;
        let session = self.sessions.get(place)?;
        let (to, channel, origin) = (session.to, session.theirs, session.origin);
        let slot = session.stream.0 as usize;
        let shoal = self.shoals.get_mut(slot)?.as_mut()?;
        if why == Why::Answer
            && let Some(run) = run.filter(|_| shoal.orders.hybrid)
            // Else it repairs what was pushed.
            && session.sender.pushed_stripes() & bit_of(subtree) == 0
            && session.told.as_deref().is_some_and(|told| told.is_settled(now))
        {
            shoal.rescued += run.chunks();
        }
        let body = match run {
            Some(run) => shoal.body(run),
            None => Some(Payload::Empty),
        };
        let header = shoal.trains.header();
        let size = shoal.source.size;
        let ready = shoal.trains.get(&shoal.stream.window, subtree);
        let (Some(body), Some(ready)) = (body, ready) else {
            // It has left the window since the shoal looked; to the peer it is a loss.
            self.cells.add(Cell::SwarmOvertaken, 1);
            return None;
        };
        let headers = run.map_or(Payload::Empty, |run| ready.headers(run, size));
        let head = if hash { ready.hash.clone() } else { Payload::Empty };
        let apart = hash && !ready.joined && !body.is_empty();
        let from = self.sessions.address(origin);
        // A header has 21 or 29 bytes.
        let header = header as u16;
        let bytes = (headers.len() + body.len()) as u64;
        let share = shoal.stream.share(self.shard);
        share.swarm_bytes.fetch_add(head.len() as u64 + bytes, Relaxed);
        share.hash_bytes.fetch_add(head.len() as u64, Relaxed);
        let sent = if why == Why::Answer { &share.rescue_bytes } else { &share.push_bytes };
        sent.fetch_add(bytes, Relaxed);
        self.cells.add(Cell::EgressSwarmBytes, body.len() as u64);
        self.cells.add(
            match why {
                Why::Push => Cell::SwarmTrainsPush,
                Why::Probe => Cell::SwarmTrainsProbe,
                Why::Answer => Cell::SwarmTrainsAnswer,
                Why::Newest => Cell::SwarmTrainsNewest,
            },
            1,
        );
        if apart {
            let head = Payload::Empty;
            self.second = Some(Shipment { to, from, channel, head, headers, header, body });
            let hash = ready.hash.clone();
            return Some(Shipment::letter(to, from, channel, hash));
        }
        Some(Shipment { to, from, channel, head, headers, header, body })
    }

    /// One small datagram to a peer, counted for its stream.
    pub(super) fn letter(&mut self, place: u32, head: Payload) -> Option<Shipment> {
        let session = self.sessions.get(place)?;
        let (to, channel, origin, slot) =
            (session.to, session.theirs, session.origin, session.stream);
        let bytes = head.len() as u64;
        let shard = self.shard;
        if let Some(shoal) = self.shoal(slot) {
            shoal.stream.share(shard).swarm_bytes.fetch_add(bytes, Relaxed);
        }
        Some(Shipment::letter(to, self.sessions.address(origin), channel, head))
    }

    /// Sends a peer a datagram of messages, when the socket has room.
    pub(super) fn send(&mut self, place: u32, head: impl Into<Payload>) {
        if let Some(letter) = self.letter(place, head.into()) {
            self.post(letter);
        }
    }

    /// Closes a link, for a reason of ours.
    pub(super) fn close(&mut self, place: u32, bye: Bye, why: Cell) {
        let Some(extras) = self.sessions.get(place).map(|session| session.extras) else { return };
        self.cells.add(why, 1);
        let head = self.goodbye(bye, extras);
        self.send(place, head);
        self.forget(place);
    }

    /// The datagram that closes a link: with the reason if the other end hears it.
    pub(super) fn goodbye(&self, bye: Bye, extras: Extras) -> Payload {
        let told = self.closes.get(usize::from(bye.code())).filter(|_| extras.hears_bye());
        told.unwrap_or(&self.close).clone().into()
    }

    /// Forgets a session.
    pub(super) fn forget(&mut self, place: u32) -> Option<Session> {
        let session = self.sessions.remove(place)?;
        self.cells.sub(Cell::SwarmPeers, 1);
        if !self.has_peers() {
            self.meter.rest(self.registry.admission.egress());
        }
        self.channels.retire(session.ours);
        let shard = self.shard;
        let shoal = self.shoal(session.stream)?;
        // Found by its seat: a search would make the end of a large stream quadratic.
        let seat = session.seat as usize;
        if shoal.members.get(seat) == Some(&place) {
            shoal.members.swap_remove(seat);
            let moved = shoal.members.get(seat).copied();
            let left = shoal.members.len() as u32;
            shoal.stream.share(shard).peers.store(left, Relaxed);
            if let Some(moved) = moved.and_then(|moved| self.sessions.get(moved)) {
                moved.seat = session.seat;
            }
        }
        Some(session)
    }

    /// Closes the next of all sessions that are to be closed.
    pub(super) fn close_next(&mut self) -> Option<Shipment> {
        if !self.closing {
            return None;
        }
        let closing = |shoal: &&super::Shoal| shoal.closing.is_some();
        let Some(shoal) = self.shoals.iter().flatten().find(closing) else {
            self.closing = false;
            return None;
        };
        let bye = shoal.closing?;
        let Some(place) = shoal.members.last().copied() else {
            let slot = shoal.stream.slot;
            self.shoal(slot)?.closing = None;
            return self.close_next();
        };
        let extras = self.sessions.get(place).map(|session| session.extras)?;
        let why = if bye == Bye::Ended { Cell::PeersStreamEnded } else { Cell::PeersDrain };
        self.cells.add(why, 1);
        let head = self.goodbye(bye, extras);
        let letter = self.letter(place, head);
        self.forget(place);
        letter
    }

    /// Closes all sessions of a stream that is over, whose place another one takes.
    pub(super) fn close_all(&mut self, index: usize) {
        let last = |swarm: &Swarm| swarm.shoals.get(index)?.as_ref()?.members.last().copied();
        while let Some(place) = last(self) {
            self.close(place, Bye::Ended, Cell::PeersStreamEnded);
        }
    }
}
