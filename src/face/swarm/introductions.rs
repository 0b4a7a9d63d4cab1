//! Peers are told of each other: both ends at the same moment, so that both open at once and
//! make way through their NATs for the other.
//!
//! The attack: somebody asks for addresses to find out who watches, or to have datagrams sent to
//! others. An answer names at most eight, one comes every two seconds, each address that is told
//! costs its owner one small datagram at most, and beyond [`NAMED_MAX`](super::told) nobody is
//! told more of those than some in a second. Peers that do not share are told nobody and named to
//! nobody.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::base::time::Mono;
use crate::face::swarm::notes::Note;
use crate::face::swarm::{LETTERS_MAX, Swarm};
use crate::metrics::table::Cell;
use crate::swarm::channel::shard_of;
use crate::swarm::controller::{Row, mix};
use crate::swarm::realm::can_meet;
use crate::wire::ppspp::{Addressing, Message, Writer};

/// The most addresses of one answer.
pub(super) const ANSWER: usize = 8;

/// How often a peer is answered: it asks every two seconds, and datagrams are early at times.
const ANSWER_APART: Duration = Duration::from_millis(1_900);

/// Addresses that wait to be told to peers of this shard; beyond it they are dropped and counted.
pub(super) const MEETINGS_MAX: usize = 1_024;

/// Rows that are looked at for one answer.
const LOOKED_AT: usize = 32;

/// The largest answer: channel, and eight addresses of IPv6.
const ANSWER_BYTES: usize = 4 + ANSWER * 19;

/// The address as it is without IPv6 around it.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A datagram, without its channel, that tells addresses.
fn answer(addresses: impl Iterator<Item = SocketAddr>) -> Bytes {
    let mut buf = [0; ANSWER_BYTES];
    let mut writer = Writer::new(&mut buf, 0, Addressing::default());
    for address in addresses {
        let _ = writer.push(match address {
            SocketAddr::V4(address) => Message::PexV4(address),
            SocketAddr::V6(address) => Message::PexV6(address),
        });
    }
    Bytes::copy_from_slice(writer.written())
}

impl Swarm {
    /// A peer wants addresses.
    pub(super) fn asked(&mut self, now: Mono, place: u32) {
        let Some(told) = self.sessions.get(place).and_then(|session| session.told.as_deref_mut())
        else {
            return;
        };
        if told.answered.is_some_and(|at| now.since(at) < ANSWER_APART) {
            return self.cells.add(Cell::IntroductionsTooSoon, 1);
        }
        self.introduce(now, place, ANSWER);
    }

    /// Tells a peer up to so many addresses, and each of these its own.
    pub(super) fn introduce(&mut self, now: Mono, place: u32, most: usize) {
        let Some(session) = self.sessions.get(place) else { return };
        let (ours, own, shares) = (session.ours, plain(session.to), session.extras.shares());
        let Some(told) = session.told.as_deref_mut().filter(|_| shares) else { return };
        let Some(Some(shoal)) = self.shoals.get(session.stream.0 as usize) else { return };
        let candidates = shoal.orders.plan.rows();
        if !shoal.orders.hybrid || candidates.is_empty() {
            return;
        }
        told.answered = Some(now);
        let mut looked = [None; LOOKED_AT];
        let mut found = 0;
        self.dice = mix(self.dice);
        let first = self.dice as usize;
        for n in 0..candidates.len() {
            let candidate = &candidates[(first.wrapping_add(n)) % candidates.len()];
            let fits = candidate.channel != ours && can_meet(candidate.address, own);
            if fits {
                looked[found] = Some(*candidate);
                found += 1;
            }
            if found == LOOKED_AT {
                break;
            }
        }
        let chosen = choose(&mut looked[..found], most, &mut self.dice);
        self.tell_of(now, place, own, &looked[..chosen]);
    }

    fn tell_of(&mut self, now: Mono, place: u32, own: SocketAddr, who: &[Option<Row>]) {
        if who.is_empty() {
            return self.cells.add(Cell::IntroductionsNobody, 1);
        }
        let head = answer(who.iter().flatten().map(|candidate| candidate.address));
        self.cells.add(Cell::Introductions, who.len() as u64);
        self.send(place, head);
        for candidate in who.iter().flatten() {
            if let Some(shard) = shard_of(candidate.channel) {
                let note = Note::Introduce { channel: candidate.channel, address: own };
                self.write(now, shard, note);
            }
        }
    }

    /// A peer of this shard is to be told of one that is told its address now.
    pub(super) fn named(&mut self, now: Mono, channel: u32, address: SocketAddr) {
        let Some((place, _)) = self.sessions.find(channel) else { return };
        let Some(session) = self.sessions.get(place) else { return };
        let told = session.told.as_deref_mut().filter(|_| session.extras.shares());
        let Some(told) = told else { return };
        if self.meetings.len() >= MEETINGS_MAX || !told.may_be_named() {
            return self.cells.add(Cell::IntroductionsDropped, 1);
        }
        self.meetings.push((channel, address));
        self.attend_advice(now);
    }

    /// Tells peers of those that were told their addresses: several in one datagram, for who is
    /// to feed many is named to many at once.
    pub(super) fn tell_meetings(&mut self) {
        let mut meetings = std::mem::take(&mut self.meetings);
        meetings.sort_unstable();
        meetings.dedup();
        let mut done = 0;
        for some in meetings.chunk_by(|a, b| a.0 == b.0).flat_map(|same| same.chunks(ANSWER)) {
            // What waits for the socket must leave room for answers to openings.
            if self.letters.len() >= LETTERS_MAX / 4 * 3 {
                break;
            }
            done += some.len();
            let Some((place, _)) = self.sessions.find(some[0].0) else { continue };
            let head = answer(some.iter().map(|(_, address)| *address));
            self.cells.add(Cell::Introductions, some.len() as u64);
            self.send(place, head);
        }
        meetings.drain(..done);
        self.meetings = meetings;
    }
}

/// Puts those that are told to the front, by chance. Returns how many they are.
fn choose(looked: &mut [Option<Row>], most: usize, dice: &mut u64) -> usize {
    let most = most.min(looked.len());
    for at in 0..most {
        *dice = mix(*dice);
        let other = at + *dice as usize % (looked.len() - at);
        looked.swap(at, other);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_as_they_are() {
        let mapped = plain("[::ffff:192.0.2.1]:5".parse().unwrap());
        assert_eq!(mapped, "192.0.2.1:5".parse().unwrap());
    }
}
