//! Peers are told who is to feed them: LINKS, from the relay.
//!
//! It is advice. A peer opens to whom it does not know yet, asks it for the stripes, and asks the
//! relay for them as long as they do not come: so a plan that cannot be carried out costs egress
//! and nothing else. LINKS is full state: said on change, repeated while it names anybody, and
//! when it names nobody any more said once more. Who never had anybody is told nothing.
//!
//! Whoever is named hears of it at the same moment, see [`super::introductions`]. When a large
//! stream becomes hybrid or direct everybody is told something else: that is spread over some
//! time, a step every few milliseconds, so that neither the shard nor its socket is held up.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::base::time::Mono;
use crate::face::swarm::introductions::{MEETINGS_MAX, plain};
use crate::face::swarm::notes::{NOTES_MAX, Note};
use crate::face::swarm::{LETTERS_MAX, Swarm};
use crate::metrics::table::Cell;
use crate::swarm::channel::shard_of;
use crate::swarm::controller::Plan;
use crate::swarm::stripes::STRIPES;
use crate::wire::ppspp::{Addressing, Link, Links, Message, Private, Writer};

/// How often advice is repeated: datagrams get lost.
const REPEAT: Duration = Duration::from_secs(2);

/// How often it goes on when there is more to tell than one step takes, and how many peers are
/// looked at in each.
const STEP: Duration = Duration::from_millis(5);
const LOOKS: usize = 512;

/// The largest datagram with advice: a channel, a type, a length, a count, and a feeder for each
/// stripe.
const ADVICE_BYTES: usize = 4 + 4 + STRIPES * Link::BYTES;

/// How far new orders have been told to the peers of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Round {
    /// The seat that is next, and how many are to come.
    next: usize,
    left: usize,
    /// Whether somebody is to be told again.
    again: bool,
}

impl Round {
    /// There are orders for so many peers. Returns whether there is anything to tell: in direct
    /// mode there is not, once everybody knows.
    fn begin(&mut self, hybrid: bool, members: usize) -> bool {
        if !hybrid && !self.again && self.left == 0 {
            return false;
        }
        if self.left == 0 {
            self.again = false;
        }
        // It goes on where it is, or those in the last seats would wait for ever.
        self.left = members;
        true
    }

    /// The seat that is to be looked at.
    fn next(&mut self, members: usize) -> Option<usize> {
        let left = self.left.min(members);
        self.left = left.saturating_sub(1);
        if left == 0 {
            return None;
        }
        let seat = if self.next < members { self.next } else { 0 };
        self.next = seat + 1;
        Some(seat)
    }
}

/// Who is to feed a peer: each feeder once, with its stripes.
struct Feeders {
    all: [(u32, SocketAddr, u8); STRIPES],
    count: usize,
}

impl Feeders {
    fn of(parents: &[u32; STRIPES], plan: &Plan) -> Feeders {
        let nobody = (0, SocketAddr::from(([0, 0, 0, 0], 0)), 0);
        let mut feeders = Feeders { all: [nobody; STRIPES], count: 0 };
        for (stripe, parent) in parents.iter().enumerate().filter(|(_, parent)| **parent != 0) {
            let known = feeders.all[..feeders.count].iter_mut().find(|(one, ..)| one == parent);
            if let Some((.., stripes)) = known {
                *stripes |= 1 << stripe;
            } else if let Some(row) = plan.get(*parent) {
                feeders.all[feeders.count] = (*parent, row.address, 1 << stripe);
                feeders.count += 1;
            }
        }
        feeders
    }

    fn all(&self) -> &[(u32, SocketAddr, u8)] {
        &self.all[..self.count]
    }

    /// A datagram, without its channel, that names them.
    fn letter(&self) -> Bytes {
        let link = |(_, address, stripes): &_| Link { address: *address, stripes_in: *stripes };
        let mut buf = [0; ADVICE_BYTES];
        let mut room = [0; Links::MAX * Link::BYTES];
        let links = Links::fill(self.all().iter().map(link), &mut room);
        let mut writer = Writer::new(&mut buf, 0, Addressing::default());
        let whole = writer.push(Message::Private(Private::Links(links)));
        debug_assert!(whole);
        Bytes::copy_from_slice(writer.written())
    }
}

impl Swarm {
    /// New orders have come for a stream: its peers are told, from now on.
    pub(super) fn begin_round(&mut self, now: Mono, index: usize) {
        let Some(Some(shoal)) = self.shoals.get_mut(index) else { return };
        if shoal.round.begin(shoal.orders.hybrid, shoal.members.len()) {
            self.attend_advice(now);
        }
    }

    /// There is something to tell.
    pub(super) fn attend_advice(&mut self, now: Mono) {
        self.advise_at.get_or_insert(now);
    }

    /// Tells peers what is to be told, if that is due: so many that the others do not wait.
    pub(super) fn advise_if_due(&mut self, now: Mono) {
        if self.advise_at.is_none_or(|at| now < at) {
            return;
        }
        let mut looks = LOOKS;
        for index in 0..self.shoals.len() {
            while looks > 0 && self.has_room_for_advice() {
                let Some(Some(shoal)) = self.shoals.get_mut(index) else { break };
                let seat = shoal.round.next(shoal.members.len());
                let Some(place) = seat.and_then(|seat| shoal.members.get(seat)) else { break };
                let place = *place;
                self.advise(now, index, place);
                looks -= 1;
            }
        }
        self.tell_meetings();
        let left = self.shoals.iter().flatten().any(|shoal| shoal.round.left > 0);
        self.advise_at = (left || !self.meetings.is_empty()).then(|| now + STEP);
    }

    /// What waits for the socket must leave room for answers to openings.
    fn has_room_for_advice(&self) -> bool {
        self.letters.len() < LETTERS_MAX / 2
            && self.meetings.len() < MEETINGS_MAX / 2
            && self.notes.len() < NOTES_MAX / 2
    }

    /// Tells a peer who is to feed it, if that is news, or was told some time ago.
    fn advise(&mut self, now: Mono, index: usize, place: u32) {
        let Some(session) = self.sessions.get(place) else { return };
        let Some(Some(shoal)) = self.shoals.get_mut(index) else { return };
        let (own, shares) = (plain(session.to), session.extras.shares());
        let Some(told) = session.told.as_deref_mut().filter(|_| shares) else { return };
        let plan = &shoal.orders.plan;
        let parents = plan.get(session.ours).map_or([0; STRIPES], |row| row.parents);
        let news = parents != told.parents;
        let again = told.advised.is_some_and(|at| now.since(at) >= REPEAT);
        if !news && !again {
            shoal.round.again |= told.advised.is_some();
            return;
        }
        let before = std::mem::replace(&mut told.parents, parents);
        let feeders = Feeders::of(&parents, plan);
        // That there is nobody is said twice.
        told.advised = Some(now).filter(|_| news || feeders.count > 0);
        shoal.round.again |= told.advised.is_some();
        // Who asks us for a stripe of somebody's has perhaps not reached it.
        let asked = session.sender.pushed_stripes();
        let letter = feeders.letter();
        self.send(place, letter);
        for (channel, _, stripes) in feeders.all() {
            let unmet = !before.contains(channel) || again && asked & stripes != 0;
            if let Some(shard) = shard_of(*channel).filter(|_| unmet) {
                self.cells.add(Cell::Introductions, 1);
                self.write(now, shard, Note::Introduce { channel: *channel, address: own });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_looks_at_everybody_and_goes_on_where_it_is() {
        let mut round = Round::default();
        assert!(!round.begin(false, 5), "nobody was ever told anything");
        assert!(round.begin(true, 5));
        let seats: Vec<usize> = (0..3).filter_map(|_| round.next(5)).collect();
        assert_eq!(seats, [0, 1, 2]);
        // New orders come, and somebody leaves.
        assert!(round.begin(true, 5));
        let seats: Vec<usize> = std::iter::from_fn(|| round.next(4)).collect();
        assert_eq!(seats, [3, 0, 1, 2]);
        assert!(!round.begin(false, 4));
        round.again = true;
        assert!(round.begin(false, 4) && !round.again);
        assert_eq!((round.next(0), round.left), (None, 0), "all have left");
    }
}
