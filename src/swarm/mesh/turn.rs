//! The decisions: who is asked for what is missing, and who feeds each stripe.

use std::time::Duration;

use crate::base::planted::{Plant, is};
use crate::base::spread::spread;
use crate::base::time::Mono;
use crate::swarm::mesh::stripe::RETIRING;
use crate::swarm::mesh::track::{Pushed, Track};
use crate::swarm::mesh::{BEHIND, Mesh, Missing, Source};
use crate::swarm::stripes::{STRIPES, bit_of, stripe_of};

/// A subtree that was begun is late so long and a round trip after that; so is an answer. A
/// parent sends one subtree to all its children at the same time, and perhaps a second one: that
/// takes most of this, and whoever asks others sooner gets it twice.
pub(super) const LATE: Duration = Duration::from_millis(600);

/// A neighbour that feeds us and says nothing for so long, and a round trip, is not there: it
/// acknowledges and announces all the time.
const SILENT: Duration = Duration::from_millis(500);

/// A relay that says nothing for so long, and a round trip, brings nothing: it announces several
/// times in this time.
const RELAY_SILENT: Duration = Duration::from_millis(600);

/// The relay answers in time if it is asked so long before the deadline, or three round trips.
const RESCUE: Duration = Duration::from_millis(500);

/// How much earlier at most a viewer asks it, by chance: what the relay answers to one viewer
/// reaches those below it as a push, before they ask on their own.
const RESCUE_CHANCE_MICROS: u64 = 100_000;

/// What the relay pushes is on its way for no longer than a round trip and this.
const RELAYED: Duration = Duration::from_millis(30);

/// Where nobody pushes, a viewer asks the relay at once for one subtree in so many.
const PULLED_FROM_RELAY: u64 = 8;

/// How soon everything is looked at again: what is newly missing.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What asking somebody costs beside round trip and lag: each subtree that it was asked for.
const COST_ASKED: Duration = Duration::from_millis(20);

/// What speaks for the one who announced first, and the most that chance adds.
const FAVOUR: Duration = Duration::from_millis(30);
const CHANCE_MICROS: u64 = 16_000;

impl Mesh {
    /// Decides, knowing what is missing: all of it, in any order.
    pub fn turn(&mut self, now: Mono, missing: &[Missing]) {
        self.clock = now;
        self.due = None;
        let first = missing.iter().map(|missing| missing.subtree).min();
        if let Some(first) = first {
            self.floor = first;
            self.tracks.forget_below(first.saturating_sub(BEHIND));
        }
        for Missing { subtree, since, deadline } in missing {
            let track = self.track(now, *subtree);
            track.since = track.since.min(*since);
            track.deadline = *deadline;
            self.seen = self.seen.max(Some(*subtree));
        }
        if self.is_alone() {
            return;
        }
        self.wake(now + LOOK_AGAIN);
        if !self.pulls {
            (0..STRIPES).for_each(|index| self.follow(now, index));
        }
        for missing in missing {
            self.judge(now, missing.subtree);
        }
    }

    /// Asks whom the relay has named to feed a stripe, if we know it.
    fn follow(&mut self, now: Mono, index: usize) {
        let bit = 1 << index;
        let named = |slot: &usize| {
            self.at(*slot).is_some_and(|one| one.advised & bit != 0 && one.children & bit == 0)
        };
        let advised = (0..self.neighbours.len()).find(named);
        let newest = self.newest(index);
        let stripe = &mut self.stripes[index];
        if stripe.retiring.is_some_and(|(_, at)| now.since(at) >= RETIRING) {
            stripe.retiring = None;
            self.events.prunes += 1;
        }
        match advised {
            Some(_) if stripe.parent == advised => {}
            Some(_) => {
                stripe.follow(now, advised, newest);
                self.events.grafts += 1;
            }
            // Nobody is named: the relay itself feeds it.
            None if self.relay_feeds & bit != 0 && stripe.parent.is_some() => {
                stripe.follow(now, None, newest);
            }
            None => stripe.relayed |= stripe.parent.is_none() && stripe.retiring.is_none(),
        }
    }

    /// The newest subtree of a stripe that is known to exist.
    fn newest(&self, index: usize) -> u64 {
        let of_stripe = |(subtree, _): &(u64, &Track)| stripe_of(*subtree) == index;
        self.tracks.from(0).rev().find(of_stripe).map_or(0, |(subtree, _)| subtree)
    }

    /// Who is asked for one subtree; whether its parent feeds us.
    fn judge(&mut self, now: Mono, subtree: u64) {
        let Some(mut track) = self.tracks.get(subtree).copied() else { return };
        if track.whole.is_some() {
            return;
        }
        self.lapse_answer(now, &mut track);
        let source = if subtree < self.backlog {
            // Nobody pushes it, and it is played soon.
            Source::Relay
        } else {
            match track.pushed {
                Some((Pushed::Relay | Pushed::Http, _)) => Source::Relay,
                Some((Pushed::By(slot), at)) => self.begun(now, subtree, &mut track, slot, at),
                None if self.pulls => self.pulled(now, subtree, &mut track),
                None => self.expected(now, subtree, &mut track),
            }
        };
        track.source = source;
        let early = self.rescue(stripe_of(subtree));
        if let Some(deadline) = track.deadline.filter(|_| !is(Plant::NoRescue)) {
            if deadline <= now + early {
                track.source = Source::Relay;
            } else {
                self.wake(deadline - early);
            }
        }
        if track.source == Source::Relay && self.relay_is_silent(now) {
            track.source = self.without_relay(now, subtree, &mut track);
        }
        if is(Plant::ForgetStripe) && stripe_of(subtree) == 3 {
            track.source = Source::Wait;
        }
        if let Some(place) = self.tracks.get_mut(subtree) {
            *place = track;
        }
    }

    /// Who is asked while the relay is away: whoever has it all, else who has begun with it. If
    /// there is nobody, the relay, so that it knows once it is back.
    fn without_relay(&mut self, now: Mono, subtree: u64, track: &mut Track) -> Source {
        let begun = match track.pushed {
            Some((Pushed::By(slot), _)) => self.at(slot).map(|by| Source::Neighbour(by.key)),
            _ => None,
        };
        self.ask(now, subtree, track, None).or(begun).unwrap_or(Source::Relay)
    }

    /// Whether the relay has spoken to us before, and does not any more.
    pub(super) fn relay_is_silent(&self, now: Mono) -> bool {
        self.relay_heard.is_some_and(|heard| now.since(heard) > RELAY_SILENT + self.relay_rtt)
    }

    /// How long before its deadline the relay is asked for a subtree of a stripe.
    fn rescue(&self, index: usize) -> Duration {
        let chance = spread(self.seed ^ spread(!(index as u64))) % RESCUE_CHANCE_MICROS;
        (RESCUE + Duration::from_micros(chance)).max(3 * self.relay_rtt)
    }

    /// Who was asked and has not answered in time is not asked again.
    fn lapse_answer(&mut self, now: Mono, track: &mut Track) {
        let Some((slot, at)) = track.asked else { return };
        let until = at + LATE + self.rtt(usize::from(slot));
        if now < until {
            self.wake(until);
        } else {
            track.tried |= 1 << slot;
            track.asked = None;
        }
    }

    /// A neighbour has begun to push it.
    fn begun(
        &mut self,
        now: Mono,
        subtree: u64,
        track: &mut Track,
        slot: usize,
        at: Mono,
    ) -> Source {
        let own = self.at(slot).map_or(Source::Wait, |by| Source::Neighbour(by.key));
        let late = at + LATE + self.rtt(slot);
        if now < late {
            self.wake(late);
            return own;
        }
        let stripe = &mut self.stripes[stripe_of(subtree)];
        let new = !std::mem::replace(&mut track.late, true) && stripe.parent == Some(slot);
        if new && stripe.note_late(now) {
            // What else of the stripe is missing is asked of the relay as well.
            self.wake(now);
        }
        // Whoever has it all; else the one who has begun may still bring it, in time or not.
        self.ask(now, subtree, track, Some(slot)).unwrap_or(own)
    }

    /// Nothing of it has come.
    fn expected(&mut self, now: Mono, subtree: u64, track: &mut Track) -> Source {
        let index = stripe_of(subtree);
        let stripe = self.stripes[index];
        let patience = if stripe.relayed { self.relay_rtt + RELAYED } else { stripe.patience() };
        // What was known before its parent was asked is not pushed by it.
        let coming = stripe.relayed || subtree > stripe.from;
        let missed = track.since + patience;
        if coming && now < missed {
            self.wake(missed);
            return Source::Wait;
        }
        if coming && !stripe.relayed && !std::mem::replace(&mut track.missed, true) {
            self.miss(now, index);
        }
        if self.stripes[index].relayed {
            return Source::Relay;
        }
        // The first time it is perhaps late: then whoever waits for it as well would ask, too.
        self.ask(now, subtree, track, None).unwrap_or(Source::Wait)
    }

    /// Nobody pushes it: whoever has announced it is asked. Some ask the relay, by chance, or
    /// nobody would have it.
    fn pulled(&mut self, now: Mono, subtree: u64, track: &mut Track) -> Source {
        if spread(self.seed ^ spread(subtree)).is_multiple_of(PULLED_FROM_RELAY) {
            return Source::Relay;
        }
        self.ask(now, subtree, track, None).unwrap_or(Source::Wait)
    }

    /// The parent has not begun with a subtree.
    fn miss(&mut self, now: Mono, index: usize) {
        let silent = self.stripes[index].parent.and_then(|slot| self.at(slot)).is_some_and(|one| {
            // Not heard of for long.
            now.since(one.heard) > SILENT + one.rtt
        });
        if self.stripes[index].note_missed(now, silent) {
            self.wake(now);
        }
    }

    /// Asks somebody who has announced a subtree, or goes on asking.
    fn ask(
        &mut self,
        now: Mono,
        subtree: u64,
        track: &mut Track,
        except: Option<usize>,
    ) -> Option<Source> {
        if track.asked.is_none() {
            let except = except.map_or(0, |slot| 1 << slot);
            let among = track.have & !track.tried & !except;
            let first = track.first_of(among);
            let chosen = self.choose(among, first, subtree);
            track.asked = chosen.map(|slot| (slot as u8, now));
            if let Some(slot) = chosen {
                self.wake(now + LATE + self.rtt(slot));
            }
        }
        let (slot, _) = track.asked?;
        self.at(usize::from(slot)).map(|neighbour| Source::Neighbour(neighbour.key))
    }

    /// The best of those who may be asked: who feeds us, or has room.
    fn choose(&self, among: u64, first: Option<usize>, subtree: u64) -> Option<usize> {
        let fits = |slot: &usize| {
            among & (1 << slot) != 0
                && self.at(*slot).is_some_and(|one| {
                    self.stripes_of(*slot) != 0 || one.has_room(self.stripe_kbit)
                })
        };
        let slots = (0..self.neighbours.len()).filter(fits);
        slots.min_by_key(|slot| self.cost(*slot, first, subtree))
    }

    fn cost(&self, slot: usize, first: Option<usize>, subtree: u64) -> Duration {
        let Some(neighbour) = self.at(slot) else { return Duration::MAX };
        let asked = self.tracks.from(0).filter(|(_, track)| {
            let by = track.asked.map(|(asked, _)| usize::from(asked));
            track.whole.is_none() && by == Some(slot)
        });
        let asked = asked.count().min(100) as u32;
        let salt = u64::from(neighbour.key.0) << 8 | u64::from(bit_of(subtree));
        let chance = spread(self.seed ^ spread(salt)) % CHANCE_MICROS;
        let favour = if first == Some(slot) { Duration::ZERO } else { FAVOUR };
        neighbour.rtt + neighbour.lag + COST_ASKED * asked + favour + Duration::from_micros(chance)
    }

    fn rtt(&self, slot: usize) -> Duration {
        self.at(slot).map_or(Duration::ZERO, |neighbour| neighbour.rtt)
    }
}
