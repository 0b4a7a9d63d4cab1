//! The link to the relay: what comes over it, and what it is told.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::time::{Mono, Now};
use crate::peer::desk::Desk;
use crate::peer::figures::Source;
use crate::peer::viewer::Viewer;
use crate::peer::viewer::neighbours::{Letter, Notes};
use crate::peer::viewer::playing::Playing;
use crate::swarm::doors::same;
use crate::swarm::receiver::{Receiver, Tools};
use crate::wire::ppspp::{Message, Private, Writer};

/// Addresses of other viewers that are taken from one datagram.
const NAMED_MAX: usize = 16;

/// The relay's link is looked at so often, though nothing seems to be due.
const TELL_APART: Duration = Duration::from_secs(1);

/// The least time until it is looked at again.
const GRAIN: Duration = Duration::from_micros(100);

/// A link to the relay.
pub(super) struct Link {
    pub receiver: Receiver,
    pub channel: u32,
    pub to: SocketAddr,
    /// When something is to be said to it.
    pub tells_at: Mono,
}

impl Viewer {
    /// Takes the messages of a datagram on one of our channels, or of an opening.
    pub(in crate::peer) fn handle_datagram(
        &mut self,
        now: Now,
        channel: u32,
        from: SocketAddr,
        messages: &[u8],
        desk: &mut Desk<'_>,
    ) {
        let opening = self.opener.as_ref().filter(|(opener, _)| opener.channel() == channel);
        if let Some((opener, to)) = opening {
            if same(*to, from)
                && let Some(opened) = opener.handle_datagram(now.mono, messages)
            {
                self.opened(now, &opened, desk);
            }
            return;
        }
        let Some(playing) = &mut self.playing else { return };
        let relay = self.link.as_ref().filter(|link| link.channel == channel);
        if relay.is_some_and(|link| same(link.to, from)) {
            // It was the way that was silent: another link would begin from nothing.
            self.drop_opener(desk);
            return self.handle_relay(now.mono, messages, desk);
        }
        let Some(neighbours) = self.neighbours.as_mut().filter(|_| relay.is_none()) else { return };
        if channel == 0 {
            return neighbours.handle_opening(now.mono, from, messages, playing, desk);
        }
        let figures = &mut self.figures;
        let letter = Letter { channel, from, messages };
        let came = neighbours.handle_datagram(now.mono, letter, playing, figures, desk);
        self.note_came(now.mono, came, None);
    }

    /// Takes the messages of a datagram from the relay.
    fn handle_relay(&mut self, now: Mono, messages: &[u8], desk: &mut Desk<'_>) {
        let (Some(link), Some(playing)) = (&mut self.link, &mut self.playing) else { return };
        let Playing { assembly, store, fresh, .. } = playing;
        let before = link.receiver.counts().payload;
        let mut tools = Tools { assembly, store, fresh, verifier: desk.verifier };
        let (mut named, mut unnamed): (Vec<SocketAddr>, u64) = (Vec::new(), 0);
        let mut trip = None;
        let neighbours = &mut self.neighbours;
        link.receiver.handle_datagram(now, messages, &mut tools, &mut |message| {
            let address: SocketAddr = match message {
                Message::Private(Private::Probed { run, kbit }) => {
                    trip = neighbours.as_mut().and_then(|them| them.measured(now, run, kbit));
                    return Ok(());
                }
                Message::PexV4(address) => address.into(),
                Message::PexV6(address) => address.into(),
                Message::Private(Private::Links(links)) => {
                    neighbours.iter_mut().for_each(|them| them.take_advice(links));
                    return Ok(());
                }
                _ => return Ok(()),
            };
            if named.len() < NAMED_MAX {
                named.push(address);
            } else {
                unnamed += 1;
            }
            Ok(())
        });
        // Of a handshake that was said twice nobody knows which was answered: it was too long.
        if let Some(trip) = trip.filter(|trip| *trip < link.receiver.rtt()) {
            link.receiver.set_rtt(trip);
        }
        let mut newest = None;
        for signed in link.receiver.take_signed().collect::<Vec<_>>() {
            playing.note_signed(now, signed);
            newest = newest.or(Some(signed.number));
        }
        let came = link.receiver.counts().payload > before;
        let rtt = link.receiver.rtt();
        if let Some(neighbours) = &mut self.neighbours {
            named.into_iter().for_each(|address| neighbours.introduce(address));
            neighbours.forget_addresses(unnamed);
            neighbours.note_relay(now, link.receiver.take_news(), rtt, playing);
            neighbours.note_whole(now, playing, &mut self.figures);
            neighbours.wake(link.receiver.take_brought());
        }
        link.tells_at = Mono::ZERO;
        let first = newest.map(|number| number * playing.profile.size.chunks() as u64);
        self.note_came(now, came, first);
    }

    /// Something came over UDP, whoever sent it; `first`: the first chunk that was new.
    fn note_came(&mut self, now: Mono, came: bool, first: Option<u64>) {
        let Some(playing) = &self.playing else { return };
        match &mut self.http {
            Some(http) => {
                let next = || came.then(|| playing.assembly.edge());
                http.recovered = http.recovered.or(first).or_else(next);
            }
            None if came => self.figures.switch(now, Source::Udp),
            None => {}
        }
        if playing.is_dry() {
            self.next_tick = now;
        }
    }

    /// Writes what is due to the relay.
    pub(super) fn tell_relay(&mut self, now: Mono, desk: &mut Desk<'_>) {
        let (Some(link), Some(playing)) = (&mut self.link, &self.playing) else { return };
        let mut neighbours = self.neighbours.as_mut();
        while link.tells_at <= now {
            let notes = neighbours.as_ref().map(|them| them.notes(now, playing, &link.receiver));
            let them = neighbours.as_deref();
            let asks = |subtree| them.is_none_or(|them| them.asks_relay(subtree));
            let view = playing.view(Some(&asks));
            let deadline = link.receiver.next_deadline(view).unwrap_or(now + TELL_APART);
            let tells_at = deadline.max(now + GRAIN);
            if deadline > now && notes.as_ref().is_none_or(Notes::is_empty) {
                link.tells_at = tells_at;
                break;
            }
            let (mut said, mut buf) = (false, [0; 1_500]);
            let mut more = |writer: &mut Writer<'_>, _| {
                said = notes.as_ref().is_some_and(|notes| notes.write(writer));
            };
            let wrote = link.receiver.poll_datagram(now, view, &mut buf, &mut more);
            if wrote.is_none() {
                link.tells_at = tells_at;
            }
            if let (Some(them), Some(notes)) = (&mut neighbours, notes) {
                them.noted(now, &notes, said, wrote.unwrap_or(0));
            }
            let Some(n) = wrote else { break };
            desk.datagram(link.to, &buf[..n]);
        }
        if let Some(them) = neighbours.filter(|_| self.figures.startup.is_some()) {
            them.probe(now, link.to, link.receiver.them(), desk);
        }
    }

    /// When something is to be said to the relay.
    pub(super) fn link_deadline(&self) -> Option<Mono> {
        self.link.as_ref().zip(self.playing.as_ref()).map(|(link, _)| link.tells_at)
    }
}
