//! The mesh around one viewer: which neighbour feeds which stripe, and who is asked for what is
//! missing.
//!
//! The relay names a neighbour for each stripe, or feeds it itself; the viewer takes the advice
//! and judges it. A stripe whose neighbour does not bring it is asked of the relay again, at
//! once; as long as that lasts the relay knows that its advice was bad. So the worst that can
//! happen to a viewer is what it would have without neighbours. A stripe is a label on a link and
//! nothing else; nobody announces, tracks or balances who takes which.
//!
//! There are no messages here and no sockets: facts come in, wishes are looked up.
//!
//! 1. Tell what happens: `note_*`, [`Mesh::advise`], [`Mesh::add`], [`Mesh::remove`].
//! 2. At [`Mesh::next_deadline`], which each of these may have moved: [`Mesh::turn`]. It is never
//!    far, so what is newly missing need not be told before.
//! 3. Then SUBSCRIBE each neighbour whose [`Mesh::stripes`] have changed, and the relay if
//!    [`Mesh::relay_stripes`] have; ask for holes where [`Mesh::source`] says.
//!
//! Without any neighbour the relay is asked for everything: that is direct mode.

mod neighbour;
mod stripe;
#[cfg(test)]
mod tests;
mod track;
mod turn;

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::mesh::neighbour::Neighbour;
use crate::swarm::mesh::stripe::Stripe;
use crate::swarm::mesh::track::{Pushed, Track};
use crate::swarm::row::Row;
use crate::swarm::stripes::{STRIPES, stripe_of};
use crate::wire::ppspp::State;

/// The most neighbours: a bit each in what is kept per subtree.
pub const NEIGHBOURS_MAX: usize = 64;

/// The most subtrees that are tracked; the oldest is forgotten.
const TRACKS_MAX: usize = 512;

/// From the least to the greatest of them, at most.
const APART_MAX: u64 = 8_192;

/// Subtrees kept below the oldest that is missing, for announcements that come late.
const BEHIND: u64 = 64;

/// Subtrees beyond the newest that was seen to exist; what is announced beyond is not believed.
const AHEAD_MAX: u64 = 512;

/// The round trip to the relay as long as nobody has said it.
const RELAY_RTT: Duration = Duration::from_millis(100);

/// A link of the viewer, named by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u16);

/// Who pushed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pusher {
    /// The relay.
    Relay,
    /// A neighbour.
    Neighbour(Key),
    /// The relay, over HTTP.
    Http,
}

/// Who is asked for the holes of a subtree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The relay.
    Relay,
    /// A neighbour.
    Neighbour(Key),
    /// Nobody yet: it is on its way, or will be announced.
    Wait,
}

/// A subtree that is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub subtree: u64,
    /// When it was first known to exist.
    pub since: Mono,
    /// When it is played, if that is known.
    pub deadline: Option<Mono>,
}

/// What has changed in the mesh since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Stripes that got another parent.
    pub grafts: u64,
    /// Parents that were kept beside the one that followed, and were not needed.
    pub prunes: u64,
    /// Subtrees that were not whole and are tracked no more: there are too many, or they lie too
    /// far apart.
    pub forgotten: u64,
}

/// The neighbours of a viewer and what it takes from them.
#[derive(Debug)]
pub struct Mesh {
    seed: u64,
    /// The newest time that was told.
    clock: Mono,
    /// Their places are bits in what is kept per subtree.
    neighbours: Vec<Option<Neighbour>>,
    /// Their names, in the same places: they are looked up for everything that comes.
    keys: Vec<Option<Key>>,
    stripes: [Stripe; STRIPES],
    tracks: Row<Track>,
    /// Below it nothing is missing.
    floor: u64,
    /// The newest subtree that was seen to exist, not only announced.
    seen: Option<u64>,
    /// Everything below was there before we joined: nobody pushes it.
    backlog: u64,
    relay_rtt: Duration,
    /// When anything last came from the relay.
    relay_heard: Option<Mono>,
    /// The stripes that the relay feeds itself.
    relay_feeds: u8,
    /// What a stripe takes of a neighbour's upload.
    stripe_kbit: u32,
    /// Nobody pushes anything: see [`Mesh::set_pulls`].
    pulls: bool,
    events: Events,
    due: Option<Mono>,
}

impl Mesh {
    /// Nobody around. Viewers with different seeds choose differently among equals.
    #[must_use]
    pub fn new(first_stripe_seed: u64) -> Mesh {
        Mesh {
            seed: first_stripe_seed,
            clock: Mono::ZERO,
            neighbours: Vec::new(),
            keys: Vec::new(),
            stripes: [Stripe::default(); STRIPES],
            tracks: Row::default(),
            floor: 0,
            seen: None,
            backlog: 0,
            relay_rtt: RELAY_RTT,
            relay_heard: None,
            relay_feeds: u8::MAX,
            stripe_kbit: 1,
            pulls: false,
            events: Events::default(),
            due: None,
        }
    }

    /// Neighbours are asked for what they announce, and nobody for a push: only to be compared
    /// with what is done otherwise.
    pub fn set_pulls(&mut self, pulls: bool) {
        self.pulls = pulls;
    }

    /// Whether nobody pushes anything.
    #[must_use]
    pub fn pulls(&self) -> bool {
        self.pulls
    }

    /// The round trip to the relay.
    pub fn set_relay_rtt(&mut self, rtt: Duration) {
        self.relay_rtt = rtt;
    }

    /// Something came from the relay. After a while without it others are asked instead.
    pub fn note_relay_heard(&mut self, now: Mono) {
        if self.relay_is_silent(now) {
            self.wake(now);
        }
        self.clock = now;
        self.relay_heard = Some(now);
    }

    /// What the stream takes, in bits per second: a parent must have room for an eighth of it.
    pub fn set_bitrate(&mut self, bits: u64) {
        let stripe = bits.div_ceil(1_000 * STRIPES as u64).max(1);
        self.stripe_kbit = u32::try_from(stripe).unwrap_or(u32::MAX);
    }

    /// What lies below `subtree` was there before we joined: it is asked for at once.
    pub fn backlog_until(&mut self, subtree: u64) {
        self.backlog = subtree;
        self.wake(self.clock);
    }

    /// A link to a neighbour is established. False: there are too many.
    pub fn add(&mut self, now: Mono, key: Key, rtt: Duration) -> bool {
        self.clock = now;
        self.remove(now, key);
        let free = self.neighbours.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.neighbours.len());
        if slot == NEIGHBOURS_MAX {
            return false;
        }
        if slot == self.neighbours.len() {
            self.neighbours.push(None);
            self.keys.push(None);
        }
        self.neighbours[slot] = Some(Neighbour::new(now, key, rtt));
        self.keys[slot] = Some(key);
        true
    }

    /// A link has ended: what its neighbour fed is free at once.
    pub fn remove(&mut self, now: Mono, key: Key) {
        self.clock = now;
        let Some(slot) = self.slot(key) else { return };
        (self.neighbours[slot], self.keys[slot]) = (None, None);
        self.stripes.iter_mut().for_each(|stripe| stripe.leave(slot));
        self.tracks.iter_mut().for_each(|(_, track)| track.leave(slot));
        self.wake(now);
    }

    /// What a neighbour says of itself.
    pub fn note_state(&mut self, key: Key, state: &State) {
        if let Some(neighbour) = self.neighbour(key) {
            neighbour.room_kbit = Some(state.room_kbit);
        }
    }

    /// The relay's advice: `stripes` from this neighbour.
    pub fn advise(&mut self, key: Key, stripes: u8) {
        if let Some(neighbour) = self.neighbour(key)
            && std::mem::replace(&mut neighbour.advised, stripes) != stripes
        {
            self.wake(self.clock);
        }
    }

    /// The stripes that the relay feeds itself: it has named nobody for them.
    pub fn set_relay_feeds(&mut self, stripes: u8) {
        if std::mem::replace(&mut self.relay_feeds, stripes) != stripes {
            self.wake(self.clock);
        }
    }

    /// The relay is asked for everything, until neighbours bring it: nobody knows what it did
    /// before, or what was missed.
    pub fn begin_anew(&mut self) {
        self.stripes.iter_mut().for_each(|stripe| stripe.relayed = true);
        self.wake(self.clock);
    }

    /// Something came from a neighbour.
    pub fn note_heard(&mut self, now: Mono, key: Key) {
        if let Some(neighbour) = self.neighbour(key) {
            neighbour.heard = now;
        }
    }

    /// The round trip to a neighbour was measured again.
    pub fn note_rtt(&mut self, key: Key, rtt: Duration) {
        if let Some(neighbour) = self.neighbour(key) {
            neighbour.rtt = rtt;
        }
    }

    /// We push these stripes to a neighbour: it can feed us none of them.
    pub fn note_children(&mut self, key: Key, stripes: u8) {
        if let Some(neighbour) = self.neighbour(key) {
            neighbour.children = stripes;
        }
    }

    /// A neighbour has announced a whole subtree.
    pub fn note_have(&mut self, now: Mono, key: Key, subtree: u64) {
        self.clock = now;
        let Some(slot) = self.slot(key) else { return };
        if self.seen.is_some_and(|seen| subtree > seen.saturating_add(AHEAD_MAX)) {
            return;
        }
        if subtree < self.floor.saturating_sub(BEHIND) {
            return;
        }
        let track = self.track(now, subtree);
        let new = track.announce(now, slot);
        let track = *track;
        if let Some(neighbour) = self.neighbour(key).filter(|_| new) {
            neighbour.note_lag(track.lag(now));
        }
        // Somebody to ask: perhaps that was missing.
        let waits = self.pulls || track.missed || track.late || subtree < self.backlog;
        if track.whole.is_none() && waits {
            self.wake(now);
        }
    }

    /// The first pushed datagram of a subtree has come from `from`: its hashes, or a chunk if
    /// they were lost. What was asked for is not pushed. Told of each who pushes it.
    pub fn note_hash(&mut self, now: Mono, from: Pusher, subtree: u64) {
        self.clock = now;
        self.seen = self.seen.max(Some(subtree));
        let pushed = match from {
            Pusher::Relay => Pushed::Relay,
            Pusher::Http => Pushed::Http,
            Pusher::Neighbour(key) => match self.slot(key) {
                Some(slot) => Pushed::By(slot),
                None => return,
            },
        };
        let backlog = subtree < self.backlog;
        let stripe = self.stripes[stripe_of(subtree)];
        let parent = matches!(pushed, Pushed::By(slot) if stripe.parent == Some(slot));
        let track = self.track(now, subtree);
        if track.pushed.is_none() {
            track.pushed = Some((pushed, now));
            track.source = match from {
                Pusher::Neighbour(key) => Source::Neighbour(key),
                Pusher::Relay | Pusher::Http => Source::Relay,
            };
        }
        let new = parent && subtree > stripe.from;
        let brings = new && !std::mem::replace(&mut track.brought, true);
        let lag = now.since(track.since);
        let stripe = &mut self.stripes[stripe_of(subtree)];
        if pushed == Pushed::Relay && stripe.parent.is_none() && !backlog {
            stripe.retiring = None;
        }
        if brings {
            stripe.note_brought(now, lag);
        }
        self.wake(now + turn::LATE);
    }

    /// The relay has announced a subtree.
    pub fn note_relay_have(&mut self, now: Mono, subtree: u64) {
        self.clock = now;
        self.seen = self.seen.max(Some(subtree));
    }

    /// We have all of a subtree.
    pub fn note_whole(&mut self, now: Mono, subtree: u64) {
        self.clock = now;
        self.seen = self.seen.max(Some(subtree));
        let track = self.track(now, subtree);
        if track.whole.is_some() {
            return;
        }
        track.whole = Some(now);
        if !track.late {
            self.stripes[stripe_of(subtree)].note_in_time();
        }
    }

    /// The stripes that a neighbour is to push to us, a bit each: for SUBSCRIBE.
    #[must_use]
    pub fn stripes(&self, key: Key) -> u8 {
        let Some(slot) = self.slot(key) else { return 0 };
        self.stripes_of(slot)
    }

    /// The stripes that the relay is to push to us, a bit each.
    #[must_use]
    pub fn relay_stripes(&self) -> u8 {
        match (self.is_alone(), self.pulls) {
            (true, _) => u8::MAX,
            (false, true) => 0,
            (false, false) => self.mask(|stripe| stripe.relayed),
        }
    }

    /// Who is to be asked for the holes of a subtree now.
    #[must_use]
    pub fn source(&self, subtree: u64) -> Source {
        if self.is_alone() {
            return Source::Relay;
        }
        match self.tracks.get(subtree) {
            Some(track) => track.source,
            None => Source::Wait,
        }
    }

    /// A table that holds more than it may: a defect, whoever did what.
    #[must_use]
    pub fn overfull(&self) -> Option<&'static str> {
        let neighbours = self.neighbours.len() > NEIGHBOURS_MAX;
        let tracks = self.tracks.len() > TRACKS_MAX;
        neighbours.then_some("mesh's neighbours").or(tracks.then_some("tracks"))
    }

    /// What has changed since the last call.
    pub fn take_events(&mut self) -> Events {
        std::mem::take(&mut self.events)
    }

    /// When [`Mesh::turn`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.due.filter(|_| !self.is_alone())
    }

    fn is_alone(&self) -> bool {
        self.neighbours.iter().all(Option::is_none)
    }

    fn slot(&self, key: Key) -> Option<usize> {
        self.keys.iter().position(|known| *known == Some(key))
    }

    fn neighbour(&mut self, key: Key) -> Option<&mut Neighbour> {
        let slot = self.slot(key)?;
        self.neighbours[slot].as_mut()
    }

    fn at(&self, slot: usize) -> Option<&Neighbour> {
        self.neighbours.get(slot)?.as_ref()
    }

    fn mask(&self, is: impl Fn(&Stripe) -> bool) -> u8 {
        let bits = self.stripes.iter().enumerate().filter(|(_, stripe)| is(stripe));
        bits.fold(0, |mask, (index, _)| mask | 1 << index)
    }

    fn stripes_of(&self, slot: usize) -> u8 {
        self.mask(|stripe| {
            stripe.parent == Some(slot) || stripe.retiring.is_some_and(|(before, _)| before == slot)
        })
    }

    /// The track of a subtree, which exists at the latest from now on.
    fn track(&mut self, now: Mono, subtree: u64) -> &mut Track {
        if self.tracks.get(subtree).is_none() {
            self.make_room(subtree);
        }
        self.tracks.get_or_insert_with(subtree, || Track::new(now, Source::Wait))
    }

    /// Forgets what is too much, or too far from a subtree that is to be tracked as well.
    fn make_room(&mut self, subtree: u64) {
        let first = self.tracks.from(0).next().map(|(first, _)| first);
        let full = self.tracks.len() >= TRACKS_MAX;
        if let Some(first) = first.filter(|_| full) {
            self.forget_below(first + 1);
        }
        self.forget_below(subtree.saturating_sub(APART_MAX));
        if first.is_some_and(|first| first > subtree.saturating_add(APART_MAX)) {
            self.forget_below(u64::MAX);
        }
    }

    fn forget_below(&mut self, subtree: u64) {
        let below = self.tracks.within(0, subtree);
        let missing = below.filter(|(_, track)| track.whole.is_none()).count();
        self.events.forgotten += missing as u64;
        self.tracks.forget_below(subtree);
    }

    fn wake(&mut self, at: Mono) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}
