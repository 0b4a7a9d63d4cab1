//! Datagrams on a channel of ours: the first one confirms the opening, the others are heard.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use crate::base::limits::CHUNK;
use crate::base::time::Mono;
use crate::face::swarm::probing::Probings;
use crate::face::swarm::sessions::{Extras, Line, Session};
use crate::face::swarm::told::Told;
use crate::face::swarm::wheel::Hook;
use crate::face::swarm::{Shipment, Swarm};
use crate::metrics::table::Cell;
use crate::registry::admission::{Permit, Refused};
use crate::registry::stream::Share;
use crate::swarm::channel::Channels;
use crate::swarm::crimes::{Crime, Record};
use crate::swarm::halfopen::Opening;
use crate::swarm::probing::Heard;
use crate::swarm::sender::{Sender, Source};
use crate::swarm::settings::{Join, Mode};
use crate::wire::ppspp::{
    Addressing, Bye, CHANNEL, Malformed, Message, Messages, Private, Probe, Report, Span, Subscribe,
};

impl Swarm {
    /// A datagram on one of this shard's channels.
    pub(super) fn talk(
        &mut self,
        now: Mono,
        from: SocketAddr,
        to: Option<IpAddr>,
        channel: u32,
        messages: &[u8],
    ) {
        if let Some((place, session)) = self.sessions.find(channel) {
            // "a known channel from a new address is ignored": addresses do not migrate.
            if session.to != from {
                return self.cells.add(Cell::SwarmDatagramsForeign, 1);
            }
            self.cells.add(Cell::SwarmDatagramsTaken, 1);
            return self.hear(now, place, messages);
        }
        match self.openings.get(now, channel) {
            None => self.cells.add(Cell::SwarmDatagramsUnknown, 1),
            Some(opening) if !opening.is_from(from) => {
                self.cells.add(Cell::SwarmDatagramsForeign, 1);
            }
            Some(_) => {
                self.cells.add(Cell::SwarmDatagramsTaken, 1);
                if let Some(opening) = self.openings.take(now, channel) {
                    self.confirm(now, from, to, channel, &opening, messages);
                }
            }
        }
    }

    /// The other end has echoed our channel: it is where it says, and is let in or told why not.
    fn confirm(
        &mut self,
        now: Mono,
        from: SocketAddr,
        to: Option<IpAddr>,
        channel: u32,
        opening: &Opening,
        messages: &[u8],
    ) {
        let extras = Extras(opening.extras);
        let permit = match self.admit(from, opening, messages) {
            Ok(permit) => permit,
            Err((why, bye)) => {
                self.cells.add(why, 1);
                self.channels.retire(channel);
                let head = self.goodbye(bye, extras);
                return self.post(Shipment::letter(from, to, opening.theirs, head));
            }
        };
        let Some(shoal) = self.shoal(opening.stream) else { return };
        let seat = shoal.members.len() as u32;
        let session = Session {
            sender: Sender::new(now, extras.subscribes()).with_rtt(opening.age(now)),
            to: from,
            theirs: opening.theirs,
            ours: channel,
            stream: opening.stream,
            seat,
            hook: Hook::default(),
            origin: self.sessions.origin(to),
            line: Line::None,
            in_ready: false,
            crimes: Record::default(),
            extras,
            told: None,
            permit,
        };
        let place = self.sessions.insert(session);
        if let Some(shoal) = self.shoal(opening.stream) {
            shoal.refresh(now);
            shoal.members.push(place);
            shoal.attend(now);
        }
        self.cells.add(Cell::SwarmPeers, 1);
        self.hear(now, place, messages);
        self.enqueue(place, Line::Ready);
    }

    fn admit(
        &self,
        from: SocketAddr,
        opening: &Opening,
        messages: &[u8],
    ) -> Result<Permit, (Cell, Bye)> {
        let shoal = self.shoals.get(opening.stream.0 as usize).and_then(Option::as_ref);
        let shoal = shoal.filter(|shoal| !shoal.stream.ended());
        let shoal = shoal.ok_or((Cell::RejectedEnded, Bye::Ended))?;
        if self.draining {
            return Err((Cell::RejectedDraining, Bye::Draining));
        }
        if let Join::Token(tokens) = &self.settings.join {
            let known = Extras(opening.extras).shows_token()
                && shows_one_of(tokens, messages, shoal.identity.addressing);
            if !known {
                return Err((Cell::RejectedToken, Bye::Token));
            }
        }
        if self.busy {
            return Err((Cell::RejectedLoad, Bye::Busy));
        }
        let bits = shoal.entry(Extras(opening.extras));
        self.registry.admission.peer(from.ip(), bits).map_err(|why| {
            let cell = match why {
                Refused::Address => Cell::RejectedAddress,
                Refused::Egress => Cell::RejectedEgress,
                Refused::Peers | Refused::Viewers | Refused::Connections => Cell::RejectedPeers,
            };
            (cell, Bye::Busy)
        })
    }

    /// Messages of a peer, in order, up to the first that cannot be read.
    fn hear(&mut self, now: Mono, place: u32, messages: &[u8]) {
        let Some(session) = self.sessions.get(place) else { return };
        let slot = session.stream.0 as usize;
        let Some(Some(shoal)) = self.shoals.get(slot) else { return };
        session.sender.hear(now);
        let share = shoal.stream.share(self.shard);
        let (source, channels) = (&shoal.source, &self.channels);
        let measures = self.settings.mode != Mode::Direct && session.extras.probes();
        let mut ear = Ear {
            now,
            source,
            share,
            channels,
            bytes: CHANNEL + messages.len(),
            probings: Some(&mut self.probings).filter(|_| measures),
            ended: None,
            subscribed: false,
            wants: false,
            pex: false,
            probed: None,
            dropped: 0,
        };
        let mut guilty = false;
        for message in Messages::new(messages, shoal.identity.addressing, CHUNK) {
            let crime = match message {
                Ok(message) => ear.message(session, message).err(),
                Err(Malformed::UnknownMessage(_)) => Some(Crime::UnknownMessage),
                Err(_) => Some(Crime::Malformed),
            };
            if let Some(crime) = crime {
                self.cells.add(cell(crime), 1);
                share.crimes[crime as usize].fetch_add(1, Relaxed);
                guilty |= session.crimes.note(crime);
            }
        }
        let Ear { ended, subscribed, wants, pex, probed, dropped, .. } = ear;
        if dropped > 0 {
            self.cells.add(Cell::SwarmProbesDropped, dropped);
        }
        let forgotten = session.sender.take_forgotten();
        if forgotten > 0 {
            self.cells.add(Cell::SwarmQuestionsDropped, forgotten);
        }
        let asked = session.sender.is_asked();
        if let Some(why) = ended {
            self.cells.add(why, 1);
            self.forget(place);
        } else if guilty {
            self.close(place, Bye::BadData, Cell::PeersMisconduct);
        } else {
            self.enqueue(place, if asked { Line::Urgent } else { Line::Ready });
            if subscribed {
                self.reprice(place);
            }
            if wants {
                self.enrol(now, place);
            }
            if pex {
                self.asked(now, place);
            }
            if let Some((run, kbit)) = probed {
                self.tell_rate(place, run, kbit);
            }
        }
    }
}

/// Whether the datagram has a token of which we know the hash. Each is compared in constant time.
fn shows_one_of(tokens: &[[u8; 32]], messages: &[u8], addressing: Addressing) -> bool {
    let mut messages = Messages::new(messages, addressing, CHUNK);
    messages.any(|message| match message {
        Ok(Message::Private(Private::Token(token))) => {
            let hash = digest(&SHA256, token);
            let same = |known: &&[u8; 32]| verify_slices_are_equal(hash.as_ref(), *known).is_ok();
            tokens.iter().filter(same).count() > 0
        }
        _ => false,
    })
}

/// What one datagram is heard with.
struct Ear<'a> {
    now: Mono,
    source: &'a Source,
    share: &'a Share,
    channels: &'a Channels,
    /// Of the datagram.
    bytes: usize,
    /// If the peer may measure its line.
    probings: Option<&'a mut Probings>,
    /// The peer closed, and how that is counted.
    ended: Option<Cell>,
    /// It said what is to be pushed to it, and that for the first time.
    subscribed: bool,
    wants: bool,
    /// It asked for addresses.
    pex: bool,
    /// Its train is over: which, and how fast it came. Parts of trains that do not count.
    probed: Option<(u8, u32)>,
    dropped: u64,
}

impl Ear<'_> {
    fn message(&mut self, session: &mut Session, message: Message<'_>) -> Result<(), Crime> {
        let (now, source, sender) = (self.now, self.source, &mut session.sender);
        let ends = |span: Span| [span.first, span.last];
        match message {
            Message::Ack { span, delay } => sender.handle_ack(now, ends(span), delay, source),
            Message::Request(span) => sender.handle_request(now, ends(span), source),
            Message::Have(span) => sender.handle_have(ends(span), source),
            Message::Cancel(span) => {
                sender.handle_cancel(ends(span));
                Ok(())
            }
            Message::Choke => {
                sender.handle_choke();
                Ok(())
            }
            Message::Unchoke => {
                sender.handle_unchoke(source);
                Ok(())
            }
            Message::Handshake(handshake) if handshake.channel == 0 => {
                self.ended.get_or_insert(Cell::PeersLeft);
                Ok(())
            }
            Message::Handshake(_) => Err(Crime::SecondHandshake),
            Message::Data { .. } => Err(Crime::DataToSource),
            // Both sides show their right-most munro (6.1.2.4); this one knows what it signed.
            Message::Integrity { .. } | Message::SignedIntegrity { .. } => Ok(()),
            Message::PexRequest => {
                self.pex = true;
                Ok(())
            }
            Message::PexV4(_) | Message::PexV6(_) | Message::PexCert(_) => Err(Crime::PexFromPeer),
            Message::Private(_) if !session.extras.any() => Err(Crime::PrivateUnasked),
            Message::Private(private) => {
                self.private(session, &private);
                Ok(())
            }
        }
    }

    fn told<'s>(&self, session: &'s mut Session) -> &'s mut Told {
        session.told.get_or_insert_with(|| Told::new(session.to, self.channels))
    }

    fn probe(&mut self, session: &Session, probe: &Probe<'_>) {
        let (now, bytes) = (self.now, self.bytes);
        let probings = self.probings.as_deref_mut();
        match probings.map_or(Heard::Dropped, |all| all.hear(now, session.ours, probe, bytes)) {
            Heard::More => {}
            Heard::Over(run, kbit) => self.probed = Some((run, kbit)),
            Heard::Dropped => self.dropped += 1,
        }
    }

    fn private(&mut self, session: &mut Session, private: &Private<'_>) {
        match private {
            Private::Subscribe(Subscribe { start, stripes, window }) => {
                let start = Some(*start).filter(|start| *start != Subscribe::NEXT);
                let before = session.sender.subscribed();
                session.sender.subscribe(*stripes, start, *window, self.source);
                self.subscribed |= session.sender.subscribed() != before;
                let since = session.told.as_deref().and_then(|told| told.since);
                // Whose neighbours bring everything asks for nothing, and is inside all the same.
                self.wants |= since.is_none();
            }
            Private::Report(report) => {
                let told = self.told(session);
                note(self.share, told.report.as_ref(), report);
                told.report = Some(*report);
            }
            Private::Bye(why) => {
                let cell = match why {
                    Bye::Mtu => Cell::PeersLeftMtu,
                    Bye::Downlink => Cell::PeersLeftDownlink,
                    _ => Cell::PeersLeft,
                };
                self.ended.get_or_insert(cell);
            }
            Private::State(state) => self.told(session).state = Some(*state),
            Private::Links(links) => self.told(session).take(*links, self.channels),
            Private::Probe(probe) => self.probe(session, probe),
            Private::Token(_) | Private::Probed { .. } | Private::Unknown { .. } => {}
        }
    }
}

/// Adds what is new in a report to the stream's figures. Reports are cumulative for a session.
fn note(share: &Share, before: Option<&Report>, now: &Report) {
    let zero = Report::default();
    let before = before.unwrap_or(&zero);
    let add = |to: &AtomicU64, now: u64, before: u64| {
        to.fetch_add(now.saturating_sub(before), Relaxed);
    };
    let told = &share.told;
    add(&told.relay_bytes, now.relay_bytes, before.relay_bytes);
    add(&told.peer_bytes, now.peer_bytes, before.peer_bytes);
    add(&told.sent_bytes, now.sent_bytes, before.sent_bytes);
    add(&told.stalls, now.stalls.into(), before.stalls.into());
    add(&told.stall_ms, now.stall_ms.into(), before.stall_ms.into());
    add(&told.rescues, now.rescues.into(), before.rescues.into());
    add(&told.bad, now.bad.into(), before.bad.into());
    add(&told.duplicates, now.duplicates.into(), before.duplicates.into());
}

/// The series of a crime against a relay. Those that only a receiver can meet count as the
/// nearest.
fn cell(crime: Crime) -> Cell {
    match crime {
        Crime::UnknownMessage => Cell::CrimeUnknownMessage,
        Crime::SecondHandshake | Crime::WrongSwarm | Crime::WrongProfile => {
            Cell::CrimeSecondHandshake
        }
        Crime::PrivateUnasked => Cell::CrimePrivateUnasked,
        Crime::AckOfNothing => Cell::CrimeAckOfNothing,
        Crime::HaveOfNothing => Cell::CrimeHaveOfNothing,
        Crime::RequestFlood | Crime::RequestWhileChoked => Cell::CrimeRequestFlood,
        Crime::PexFromPeer => Cell::CrimePexFromPeer,
        Crime::DataToSource | Crime::WrongLength | Crime::BadChunk => Cell::CrimeDataToSource,
        _ => Cell::CrimeMalformed,
    }
}
