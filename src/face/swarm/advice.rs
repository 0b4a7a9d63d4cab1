//! Peers are told who is to feed them: LINKS, from the relay.
//!
//! It is advice. A peer opens to whom it does not know yet, asks it for the stripes, and asks the
//! relay for them as long as they do not come: so a plan that cannot be carried out costs egress
//! and nothing else.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::base::time::Mono;
use crate::face::swarm::Swarm;
use crate::face::swarm::notes::Note;
use crate::swarm::channel::shard_of;
use crate::swarm::stripes::STRIPES;
use crate::wire::ppspp::{Addressing, Link, Links, Message, Private, Writer};

/// How often advice is repeated: datagrams get lost.
const REPEAT: Duration = Duration::from_secs(2);

/// The largest datagram with advice: a channel, a type, a length, a count, and a feeder for each
/// stripe.
const ADVICE_BYTES: usize = 4 + 4 + STRIPES * Link::BYTES;

impl Swarm {
    /// Tells a peer who is to feed it, if that is news, or was told some time ago.
    pub(super) fn advise(&mut self, now: Mono, index: usize, place: u32) {
        let Some(session) = self.sessions.get(place) else { return };
        let Some(Some(shoal)) = self.shoals.get(index) else { return };
        let (own, shares) = (super::introductions::plain(session.to), session.extras.shares());
        let Some(told) = session.told.as_deref_mut().filter(|_| shares) else { return };
        let plan = &shoal.orders.plan;
        let parents = plan.get(session.ours).map_or([0; STRIPES], |row| row.parents);
        let news = parents != told.parents;
        let again = told.advised.is_some_and(|at| now.since(at) >= REPEAT);
        if !news && !again {
            return;
        }
        // Who asks us for a stripe of somebody's has perhaps not reached it.
        let relayed = session.sender.pushed_stripes();
        let mut feeders: Vec<(u32, SocketAddr, u8)> = Vec::with_capacity(STRIPES);
        let mut meet = Vec::new();
        for (stripe, parent) in parents.iter().enumerate() {
            let Some(row) = plan.get(*parent).filter(|_| *parent != 0) else { continue };
            let bit = 1 << stripe;
            match feeders.iter_mut().find(|(channel, ..)| channel == parent) {
                Some((.., stripes)) => *stripes |= bit,
                None => feeders.push((*parent, row.address, bit)),
            }
            let new = !told.parents.contains(parent) || again && relayed & bit != 0;
            if new && !meet.contains(parent) {
                meet.push(*parent);
            }
        }
        (told.parents, told.advised) = (parents, Some(now));
        if feeders.is_empty() {
            // Said three times or so, no more.
            told.advised = told.advised.filter(|_| news);
        }
        let letter = advice(
            feeders
                .iter()
                .map(|(_, address, stripes)| Link { address: *address, stripes_in: *stripes }),
        );
        if let Some(letter) = self.letter(place, letter.into()) {
            self.post(letter);
        }
        for channel in meet {
            if let Some(shard) = shard_of(channel) {
                self.write(now, shard, Note::Introduce { channel, address: own });
            }
        }
    }
}

/// A datagram, without its channel, that names feeders.
fn advice(links: impl Iterator<Item = Link>) -> Bytes {
    let mut buf = [0; ADVICE_BYTES];
    let mut room = [0; Links::MAX * Link::BYTES];
    let mut writer = Writer::new(&mut buf, 0, Addressing::default());
    let _ = writer.push(Message::Private(Private::Links(Links::fill(links, &mut room))));
    Bytes::copy_from_slice(writer.written())
}
