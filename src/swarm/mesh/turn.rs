//! The decisions: who is asked, who is grafted, who is pruned.

use std::time::Duration;

use crate::base::planted::{Plant, is};
use crate::base::spread::spread;
use crate::base::time::Mono;
use crate::swarm::mesh::track::{Pushed, Track};
use crate::swarm::mesh::{BEHIND, Mesh, Missing, Source};
use crate::swarm::stripes::{STRIPES, stripe_of};

/// An announced subtree is missed so long and a round trip after its announcement.
pub(super) const MISS: Duration = Duration::from_millis(100);

/// A subtree that was begun is late so long and a round trip after that; so is an answer.
pub(super) const LATE: Duration = Duration::from_millis(400);

/// Late so many times in a row while another had it whole: that one is grafted.
const LATE_ROW: u8 = 3;

/// A stripe gets another parent at most once in this time, unless its parent has left.
const CALM: Duration = Duration::from_millis(300);

/// How long it takes a new parent to begin, beyond a round trip: announcements may be 50 ms old.
const BEGINS: Duration = Duration::from_millis(60);

/// The relay has announced and not pushed, so long and a round trip after that: it pushes the
/// stripe no longer. It announces every 250 ms.
const LAPSE: Duration = Duration::from_millis(300);

/// The relay answers in time if it is asked so long before the deadline, or three round trips.
const RESCUE: Duration = Duration::from_millis(500);

/// How much earlier at most a viewer asks it that has a parent in the stripe, by chance, and one
/// that has none: what the relay answers to one viewer reaches those below it as a push, before
/// they ask on their own.
const RESCUE_CHANCE_MICROS: u64 = 100_000;
const RESCUE_FREE: Duration = Duration::from_millis(250);

/// A neighbour that has shown nothing of a stripe for so long does not get it.
const RECENT: Duration = Duration::from_secs(3);

/// A stripe that the relay pushed so lately is not grafted before something of it is missed.
const RELAY_RECENT: Duration = Duration::from_secs(2);

/// How many subtrees behind the newest a parent's own newest may be: three of each stripe.
const BEHIND_MAX: u64 = 3 * STRIPES as u64;

/// How soon everything is looked at again: what is newly missing, room that was free meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long after a graft a neighbour's STATE may not know of it, beyond a round trip.
const STATE_AGE: Duration = Duration::from_millis(600);

/// Stripes that one neighbour feeds while others have room.
const SHARE: u32 = 4;

/// What choosing somebody costs, beside round trip and lag: each stripe that it feeds us, each
/// subtree that it was asked for, more than its share, and not knowing whether it has room.
const COST_STRIPE: Duration = Duration::from_millis(15);
const COST_ASKED: Duration = Duration::from_millis(20);
const COST_SHARE: Duration = Duration::from_secs(10);
const COST_UNKNOWN: Duration = Duration::from_millis(500);

/// What speaks for the one who announced first, and the most that chance adds.
const FAVOUR: Duration = Duration::from_millis(30);
const CHANCE_MICROS: u64 = 16_000;

/// Who may be chosen.
struct Call {
    stripe: usize,
    /// Places, a bit each.
    among: u32,
    /// The first who announced.
    first: Option<usize>,
    /// It shall push the stripe, not only answer.
    feed: bool,
}

impl Mesh {
    /// Decides, knowing what is missing: all of it, in any order.
    pub fn turn(&mut self, now: Mono, missing: &[Missing]) {
        self.clock = now;
        self.due = None;
        let first = missing.iter().map(|missing| missing.subtree).min();
        if let Some(first) = first {
            self.floor = first;
            self.tracks = self.tracks.split_off(&first.saturating_sub(BEHIND));
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
        for missing in missing {
            self.judge(now, missing.subtree);
        }
        for index in 0..STRIPES {
            self.prefer(now, index);
            self.provide(now, index);
        }
    }

    /// Who is asked for one subtree; whether its parent is to be another.
    fn judge(&mut self, now: Mono, subtree: u64) {
        let Some(mut track) = self.tracks.get(&subtree).copied() else { return };
        if track.whole.is_some() {
            return;
        }
        self.lapse_answer(now, &mut track);
        let source = if subtree < self.backlog {
            self.backlog_source(now, subtree, &mut track)
        } else {
            match track.pushed {
                Some((Pushed::Relay | Pushed::Http, _)) => Source::Relay,
                Some((Pushed::By(slot), at)) => self.begun(now, subtree, &mut track, slot, at),
                None => self.expected(now, subtree, &mut track),
            }
        };
        track.source = source;
        let early = self.rescue(stripe_of(subtree));
        if let Some(deadline) = track.deadline.filter(|_| !is(Plant::NoRescue)) {
            if deadline <= now + early {
                track.rescued |= source != Source::Relay;
                track.source = Source::Relay;
            } else {
                self.wake(deadline - early);
            }
        }
        self.tracks.insert(subtree, track);
    }

    /// How long before its deadline the relay is asked for a subtree of a stripe.
    fn rescue(&self, index: usize) -> Duration {
        let early = if self.stripes[index].parent.is_none() {
            RESCUE + RESCUE_FREE
        } else {
            let chance = spread(self.seed ^ spread(!(index as u64))) % RESCUE_CHANCE_MICROS;
            RESCUE + Duration::from_micros(chance)
        };
        early.max(3 * self.relay_rtt)
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

    /// Nobody pushes it: neighbours are asked first, else the relay, at once.
    fn backlog_source(&mut self, now: Mono, subtree: u64, track: &mut Track) -> Source {
        self.ask(now, subtree, track, None).unwrap_or(Source::Relay)
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
        let Some(other) = self.ask(now, subtree, track, Some(slot)) else { return own };
        let index = stripe_of(subtree);
        if !track.late {
            track.late = true;
            self.stripes[index].late_row = self.stripes[index].late_row.saturating_add(1);
        }
        let stripe = &self.stripes[index];
        if stripe.late_row >= LATE_ROW && stripe.parent == Some(slot) {
            let among = track.have & !(1 << slot);
            let first = self.first_of(track, among);
            if let Some(better) =
                self.choose(now, &Call { stripe: index, among, first, feed: true })
            {
                self.graft(now, index, better);
            }
        }
        other
    }

    /// Nothing of it has come.
    fn expected(&mut self, now: Mono, subtree: u64, track: &mut Track) -> Source {
        let index = stripe_of(subtree);
        let announced = track.have != 0;
        let times = track.announcers().map(|(slot, at)| at + MISS + self.rtt(slot));
        let missed = times.min().unwrap_or(track.since + MISS);
        if self.stripes[index].is_relayed() {
            let lapse = track.since + LAPSE + self.relay_rtt;
            let until = if announced { lapse.min(missed) } else { lapse };
            if now < until {
                self.wake(until);
                return Source::Relay;
            }
            self.stripes[index].lapse_relay();
        }
        if !announced {
            return Source::Wait;
        }
        let stripe = self.stripes[index];
        // What was announced before its parent could begin with it is not pushed any more.
        let coming = !stripe.is_free() && (subtree > stripe.from || stripe.parent.is_none());
        if coming && now < missed {
            self.wake(missed);
            return Source::Wait;
        }
        if coming && !std::mem::replace(&mut track.missed, true) {
            self.miss(now, subtree, track);
        }
        self.ask(now, subtree, track, None).unwrap_or(Source::Wait)
    }

    /// The parent has not begun what others have had for a while.
    fn miss(&mut self, now: Mono, subtree: u64, track: &Track) {
        let index = stripe_of(subtree);
        let stripe = self.stripes[index];
        let among = stripe.parent.map_or(track.have, |slot| track.have & !(1 << slot));
        let begins = stripe.parent.map_or(Duration::ZERO, |slot| self.rtt(slot) + BEGINS);
        if stripe.grafted.is_some_and(|grafted| track.since < grafted + begins) {
            // It may have had it before it knew that we want it.
            return;
        }
        let first = self.first_of(track, among);
        let better = self.choose(now, &Call { stripe: index, among, first, feed: true });
        let refuses = stripe.parent.filter(|slot| track.have & (1 << slot) != 0);
        match better {
            Some(better) => self.graft(now, index, better),
            None if refuses.is_some() => self.prune(index),
            None => {}
        }
        if let Some(slot) = refuses
            && self.stripes[index].parent != Some(slot)
            && let Some(neighbour) = self.neighbours[slot].as_mut()
        {
            neighbour.bar(now, index, true);
        }
    }

    /// Somebody would be a better parent.
    fn prefer(&mut self, now: Mono, index: usize) {
        let Some(rival) = self.stripes[index].rival.take() else { return };
        let call = Call { stripe: index, among: 1 << rival, first: None, feed: true };
        if self.stripes[index].parent.is_some() && self.choose(now, &call).is_some() {
            self.graft(now, index, rival);
            self.stripes[index].hold(now);
        }
    }

    /// A stripe that nobody feeds gets a parent before anything is missed.
    fn provide(&mut self, now: Mono, index: usize) {
        let stripe = &self.stripes[index];
        if !stripe.is_free() {
            return;
        }
        if let Some(at) = stripe.relay_at.filter(|at| now < *at + RELAY_RECENT) {
            self.wake(at + RELAY_RECENT);
            return;
        }
        let since = now - RECENT;
        let newest = |slot: usize| self.at(slot)?.newest_since(index, since);
        let slots = 0..self.neighbours.len();
        let Some(edge) = slots.clone().filter_map(newest).max() else { return };
        let near = |slot: &usize| newest(*slot).is_some_and(|own| own + BEHIND_MAX >= edge);
        let among = slots.filter(near).fold(0, |among, slot| among | 1 << slot);
        let call = Call { stripe: index, among, first: None, feed: true };
        if let Some(parent) = self.choose(now, &call) {
            self.graft(now, index, parent);
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
            let stripe = stripe_of(subtree);
            let among = track.have & !track.tried & !except;
            let parent = self.stripes[stripe].parent.filter(|slot| among & (1 << slot) != 0);
            let first = self.first_of(track, among);
            let chosen = match parent {
                // Its room is what it gives us.
                Some(parent) => Some(parent),
                None => self.choose(now, &Call { stripe, among, first, feed: false }),
            };
            track.asked = chosen.map(|slot| (slot as u8, now));
            if let Some(slot) = chosen {
                self.wake(now + LATE + self.rtt(slot));
            }
        }
        let (slot, _) = track.asked?;
        self.at(usize::from(slot)).map(|neighbour| Source::Neighbour(neighbour.key))
    }

    /// Makes the neighbour at `slot` the parent of a stripe, if it had none for long enough.
    pub(super) fn graft(&mut self, now: Mono, index: usize, slot: usize) {
        let stripe = self.stripes[index];
        let calm = stripe.grafted.is_none_or(|grafted| now >= grafted + CALM);
        if stripe.parent == Some(slot) || !calm {
            return;
        }
        if let Some(before) = stripe.parent {
            self.prune(index);
            if let Some(neighbour) = self.neighbours[before].as_mut() {
                neighbour.bar(now, index, false);
            }
        }
        let of_stripe = |(subtree, _): &(&u64, &Track)| stripe_of(**subtree) == index;
        let newest = self.tracks.iter().rev().find(of_stripe).map(|(subtree, _)| *subtree);
        let stripe = &mut self.stripes[index];
        stripe.set_parent(Some(slot));
        stripe.grafted = Some(now);
        stripe.from = newest.unwrap_or(stripe.from);
        self.events.grafts += 1;
    }

    /// A stripe has no parent any longer.
    pub(super) fn prune(&mut self, index: usize) {
        self.stripes[index].set_parent(None);
        self.events.prunes += 1;
    }

    /// The best of those who may be chosen and have room.
    fn choose(&self, now: Mono, call: &Call) -> Option<usize> {
        let fits = |slot: &usize| {
            let Some(neighbour) = self.at(*slot) else { return false };
            let stripes = self.stripes.iter();
            let unknown = stripes.filter(|stripe| {
                let fresh = |at| now < at + neighbour.rtt + STATE_AGE;
                stripe.parent == Some(*slot) && stripe.grafted.is_some_and(fresh)
            });
            let more = unknown.count() as u32 + 1;
            call.among & (1 << slot) != 0
                && neighbour.has_room(more, self.stripe_kbit)
                && (!call.feed || neighbour.may_feed(now, call.stripe))
        };
        let slots = (0..self.neighbours.len()).filter(fits);
        slots.min_by_key(|slot| self.cost(call, *slot))
    }

    fn cost(&self, call: &Call, slot: usize) -> Duration {
        let Some(neighbour) = self.at(slot) else { return Duration::MAX };
        let taken = self.stripes_of(slot).count_ones();
        let over = call.feed && taken >= SHARE;
        let asked = self.tracks.values().filter(|track| {
            let by = track.asked.map(|(asked, _)| usize::from(asked));
            track.whole.is_none() && by == Some(slot)
        });
        let asked = if call.feed { 0 } else { asked.count().min(100) as u32 };
        let salt = u64::from(neighbour.key.0) << 8 | call.stripe as u64;
        let chance = spread(self.seed ^ spread(salt)) % CHANCE_MICROS;
        let favour = if call.first == Some(slot) { Duration::ZERO } else { FAVOUR };
        neighbour.rtt
            + neighbour.lag
            + COST_STRIPE * taken
            + COST_ASKED * asked
            + if over { COST_SHARE } else { Duration::ZERO }
            + if neighbour.room_kbit.is_none() { COST_UNKNOWN } else { Duration::ZERO }
            + favour
            + Duration::from_micros(chance)
    }

    /// The first of `among` who announced.
    fn first_of(&self, track: &Track, among: u32) -> Option<usize> {
        track.announcers().map(|(slot, _)| slot).find(|slot| among & (1 << slot) != 0)
    }

    fn rtt(&self, slot: usize) -> Duration {
        self.at(slot).map_or(Duration::ZERO, |neighbour| neighbour.rtt)
    }
}
