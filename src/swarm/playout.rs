//! Where a viewer's node plays: a little behind the live edge, always by the same time, so that
//! what is lost on the way can come again before its turn.
//!
//! Position = live edge - D. D is the target, or the age of the access point that was played
//! first; it grows when bytes came too late, up to a limit, and before that, by playing slower,
//! when few are left. A *stall* is time beyond 40 ms in
//! which the position waited for bytes, plus the media time of every skip.
//!
//! Where key frames are further apart than the limit, whoever comes must begin further behind
//! live or wait: with G from one to the next, startup and first delay are together at least
//! G + D for those who come at the worst time. An access point is played up to an age of the
//! limit, and the limit is then higher by what it takes to begin, until easing has brought it
//! back: people forgive a second more behind live rather than a second more of nothing.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crate::swarm::stamp::Stamp;
use crate::swarm::timeline::Timeline;

/// A wait up to this long is none: decoders have a frame in hand.
pub const TOLERANCE: Duration = Duration::from_millis(40);

/// What is to be in hand at least when playing begins, and how much longer than it lasts that is
/// waited for. What a newcomer asks for comes at twice the stream's rate, so this much is there
/// after half the time.
const IN_HAND: Duration = Duration::from_millis(400);
const IN_HAND_WAIT: Duration = Duration::from_millis(100);

/// How far before its turn an access point may be fetched to wait for it.
const SOON: Duration = Duration::from_millis(1_500);

/// An older access point is not worth it to start sooner when the viewer would be further behind
/// live than this from then on. (A chunk that is lost on the way then makes it 3 s.)
const BEHIND: Duration = Duration::from_millis(2_900);

/// How much of the time that passes a viewer that began further behind live than it wants comes
/// nearer: one part of so many. Not with less than this in hand.
const EASE: u32 = 20;
const EASE_HAND: Duration = Duration::from_millis(800);

/// The most time between two looks that counts for the pace.
const PACE_STEP: Duration = Duration::from_millis(200);

/// With less than this in hand, and a round trip to the relay, it plays slower, so that what was
/// asked for has more time to come: by one part of so many. People hardly notice a quarter in
/// video or in sound that keeps its pitch, and a player with some buffer does not see it at all.
const THIN: Duration = Duration::from_millis(400);
const SLOWER: u32 = 4;

/// So much more than thin is to be in hand before it comes nearer to live again.
const EASE_ABOVE: Duration = Duration::from_millis(200);

/// How much further behind live than the limit a viewer may begin, and fall back at first.
pub const BEYOND: Duration = Duration::from_millis(2_500);

/// How long beyond their turn missing bytes are waited for when what follows is there.
const PATIENCE: Duration = Duration::from_millis(500);

/// Breaks that lie ahead at one time; each is a restart of the relay.
pub const BREAKS_MAX: usize = 4;

/// How far behind live to play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The whole delay from ingest to the player.
    pub target: Duration,
    /// The most that it grows to.
    pub max: Duration,
}

/// The most that the delay grows to, if nobody chose otherwise.
pub const MAX: Duration = Duration::from_secs(5);

impl Default for Settings {
    fn default() -> Settings {
        Settings { target: Duration::from_millis(1_800), max: MAX }
    }
}

/// What the relay needs to make good what neighbours did not bring: so many round trips of the
/// way to it, beside what the way through neighbours takes; and where that ends.
const WAY_TRIPS: u32 = 3;
const WAY: Duration = Duration::from_millis(1_000);
/// Beyond this round trip so many more: a newcomer's window takes long to open there.
const FAR: Duration = Duration::from_millis(350);
const WAY_TRIPS_FAR: u32 = 3;
const WAY_MAX: Duration = Duration::from_millis(2_800);

impl Settings {
    /// The same for a viewer whose round trip to the relay is `trip`: no nearer to live than what
    /// was lost on such a way can come again.
    #[must_use]
    pub fn over(self, trip: Duration) -> Settings {
        let far = trip.saturating_sub(FAR) * WAY_TRIPS_FAR;
        let least = (WAY + trip * WAY_TRIPS + far).min(WAY_MAX).min(self.max);
        Settings { target: self.target.max(least), ..self }
    }
}

/// An access point: its stream offset and how long ago it came in.
pub type Entrance = (u64, Duration);

/// Which access point a newcomer plays first; `points` oldest first, and `ready` from now on the
/// first bytes are in hand. `None`: wait for the next.
///
/// The newest of age g if g >= D (then D := g) or if its turn comes soon (D - g <= 1.5 s); else
/// the one before, unless by its turn it would be more than 2.85 s old, or it is older than the
/// limit. Else again the newest, although its turn is further away.
#[must_use]
pub fn tune_in(points: &[Entrance], settings: &Settings, ready: Duration) -> Option<Entrance> {
    let young =
        |age: Duration| age <= settings.max && age + ready + PATIENCE <= settings.max + BEYOND;
    let young = points.iter().rev().take_while(|(_, age)| young(*age));
    let mut best = None;
    for (offset, age) in young {
        if best.is_some() && *age + ready > BEHIND {
            break;
        }
        best = best.or(Some((*offset, *age)));
        if *age + SOON >= settings.target {
            return Some((*offset, *age));
        }
    }
    best
}

/// How long it takes until the first bytes are in hand, on a way of this round trip: the half of
/// it for which the document was under way, a handshake, a request, a round trip in which the
/// window opens, and what is to be in hand when playing begins, at twice the stream's rate.
#[must_use]
pub fn ready(trip: Duration) -> Duration {
    trip * 7 / 2 + in_hand(trip) / 2
}

/// What is to be in hand when playing begins: a chunk that was lost on the way twice needs two
/// round trips to come, and what it takes to miss it.
fn in_hand(trip: Duration) -> Duration {
    IN_HAND.max(trip * 5 / 2)
}

/// What went wrong for the viewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Times that it stalled, skips included.
    pub stalls: u32,
    /// How long in all.
    pub stall_time: Duration,
    /// Times that something was skipped.
    pub skips: u32,
    /// Media time of what was skipped; part of `stall_time`.
    pub skipped: Duration,
    /// How much later it has come to play by playing slower: no part of `stall_time`.
    pub stretched: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The first byte's turn has not come, or it is not there: it is `since` then, and was so
    /// before its turn or not. `short`: its turn came with too little in hand.
    Waiting { since: Option<Stamp>, early: bool, short: bool },
    /// Playing; `starved`: everything that was there has been played.
    Playing { starved: bool },
}

/// The position of one viewer, in stream offsets.
#[derive(Debug)]
pub struct Playout {
    settings: Settings,
    /// What is to be in hand when playing begins.
    in_hand: Duration,
    delay: Duration,
    state: State,
    position: u64,
    /// Where a run of the stream ends and the next one begins: oldest first, few.
    breaks: VecDeque<(u64, u64)>,
    /// How many were forgotten.
    forgotten: u64,
    tally: Tally,
    /// What the delay goes back to: the target, or what it was found out to need.
    least: Duration,
    /// The most that the delay grows to: `max`, and more for who began further behind than that,
    /// until it has come back.
    limit: Duration,
    /// When the pace was last looked at.
    paced: Option<Stamp>,
    /// With less in hand it plays slower.
    thin: Duration,
}

impl Playout {
    /// Plays from `first` on as soon as it is its turn.
    #[must_use]
    pub fn new(settings: Settings, first: u64) -> Playout {
        let (delay, tally) = (settings.target, Tally::default());
        let state = State::Waiting { since: None, early: false, short: false };
        let (in_hand, breaks) = (IN_HAND, VecDeque::new());
        let (least, limit, paced, thin) = (settings.target, settings.max, None, THIN);
        Playout {
            settings,
            in_hand,
            delay,
            state,
            position: first,
            breaks,
            forgotten: 0,
            tally,
            least,
            limit,
            paced,
            thin,
        }
    }

    /// Begins at an access point that is so old by the time its first bytes are in hand.
    #[must_use]
    pub fn with_age(mut self, age: Duration) -> Playout {
        let max = self.settings.max;
        self.limit = (age + self.in_hand + PATIENCE).clamp(max, max + BEYOND);
        self
    }

    /// Begins with more in hand where the way to the relay is long, and plays slower sooner: its
    /// round trip.
    #[must_use]
    pub fn with_trip(mut self, trip: Duration) -> Playout {
        self.in_hand = in_hand(trip);
        self.thin = THIN + trip;
        self
    }

    /// Stream offset of the byte that is played next.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The play-out delay D.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Whether the first byte was played.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        matches!(self.state, State::Playing { .. })
    }

    /// What went wrong so far, closed waits only.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// How late the byte at the position is.
    #[must_use]
    pub fn lateness(&self, now: Stamp, line: &Timeline) -> Duration {
        let turn = line.time_of(self.position).map(|time| time.plus(self.delay));
        turn.map_or(Duration::ZERO, |turn| now.since(turn))
    }

    /// Moves on: `next` is the end of what is there without a hole. Returns the new position:
    /// everything below it is to be handed over.
    pub fn advance(&mut self, now: Stamp, next: u64, line: &Timeline) -> u64 {
        while let Some((_, begin)) = self.breaks.front().filter(|(end, _)| *end <= self.position) {
            self.position = *begin;
            self.breaks.pop_front();
            self.come_nearer(now, line);
        }
        let at_break = self.breaks.front().is_some_and(|(end, _)| *end <= next);
        let next = self.breaks.front().map_or(next, |(end, _)| next.min(*end));
        if next <= self.position {
            if self.has_begun() {
                self.state = State::Playing { starved: true };
            }
            return self.position;
        }
        match self.state {
            State::Waiting { since, early, short } => {
                let begin = line.time_of(self.position);
                let age = begin.map_or(Duration::ZERO, |begin| now.since(begin));
                let since = since.unwrap_or(now);
                if age < self.settings.target {
                    self.state = State::Waiting { since: Some(since), early: true, short };
                    return self.position;
                }
                // The rest is on its way, at little more than the stream's own rate: with
                // nothing in hand the first hiccup would be a stall.
                let hand = self.media(next, line);
                let waited = if early { age - self.settings.target } else { now.since(since) };
                if hand < self.in_hand && waited < self.in_hand + IN_HAND_WAIT {
                    self.state = State::Waiting { since: Some(since), early, short: true };
                    return self.position;
                }
                if !early || short {
                    self.delay = age.min(self.limit);
                    self.lower_limit();
                }
            }
            State::Playing { starved: true } => self.end_wait(now, line, Duration::ZERO),
            State::Playing { starved: false } => {
                // What exists and is not there is worth waiting for; a pause of the publisher,
                // or of the relay, is not.
                let lacks = !at_break && line.newest().is_some_and(|(end, _)| end > next);
                self.pace(now, next, lacks, line);
            }
        }
        let due = line.reach(now.minus(self.delay));
        self.position = due.clamp(self.position, next);
        self.state = State::Playing { starved: self.position == next };
        self.position
    }

    /// The media time from the position to `end`, as far as is known.
    fn media(&self, end: u64, line: &Timeline) -> Duration {
        let begin = line.time_of(self.position);
        let end = line.time_of(end).or_else(|| line.newest().map(|(_, time)| time));
        begin.zip(end).map_or(Duration::ZERO, |(begin, end)| end.since(begin))
    }

    /// Plays a little slower while little is in hand and something `lacks`, up to the limit; and a
    /// little faster, nearer to live again, while there is more than enough. What is handed over at
    /// another pace than it came in a player keeps for later, or takes from what it kept.
    fn pace(&mut self, now: Stamp, next: u64, lacks: bool, line: &Timeline) {
        let passed = self.paced.replace(now).map_or(Duration::ZERO, |before| now.since(before));
        let (hand, passed) = (self.media(next, line), passed.min(PACE_STEP));
        if lacks && hand < self.thin {
            let later = (self.delay + passed / SLOWER).min(self.limit).max(self.delay);
            self.tally.stretched += later - self.delay;
            self.delay = later;
        } else if self.delay > self.least && hand >= EASE_HAND.max(self.thin + EASE_ABOVE) {
            self.delay = self.delay.saturating_sub(passed / EASE).max(self.least);
            self.lower_limit();
        }
    }

    /// Who has come nearer to live does not fall back as far again.
    fn lower_limit(&mut self) {
        self.limit = self.limit.min(self.delay + PATIENCE).max(self.settings.max);
    }

    /// Whether to go on at `beyond`, the next byte that is there, because what lies before it
    /// has been waited for long enough.
    #[must_use]
    pub fn gives_up(&self, now: Stamp, line: &Timeline) -> bool {
        let late = self.lateness(now, line);
        // Before the first byte the delay is still to be that byte's age: it is not late.
        let beyond = self.delay + late > self.limit;
        // What is no stall yet is none at the limit either.
        if self.has_begun() { late >= PATIENCE || beyond && late > TOLERANCE } else { beyond }
    }

    /// Goes on at `to`: what lies before is skipped.
    pub fn skip(&mut self, now: Stamp, to: u64, line: &Timeline) {
        let media = self.media(to, line);
        self.tally.skips += 1;
        self.tally.skipped += media;
        if self.has_begun() {
            self.end_wait(now, line, media);
        }
        self.position = self.position.max(to);
        self.come_nearer(now, line);
        if let State::Playing { starved } = &mut self.state {
            *starved = false;
        }
    }

    /// Nothing lies between what was played and the position: what comes next need not become as
    /// old as that was. What was needed while nothing came is not asked for again: until that age
    /// nothing at all would be shown, and no wait be counted.
    fn come_nearer(&mut self, now: Stamp, line: &Timeline) {
        let age = line.time_of(self.position).map_or(self.delay, |came| now.since(came));
        if self.has_begun() && age + PATIENCE < self.delay {
            self.delay = self.settings.target.max(age + self.in_hand).min(self.delay);
            self.least = self.least.min(self.delay);
            self.lower_limit();
        }
    }

    /// Behind `end` nothing more of this run of the stream comes; the next one begins at
    /// `begin`. What lies between does not exist and has no media time.
    pub fn add_break(&mut self, end: u64, begin: u64) {
        self.breaks.push_back((end.max(self.position), begin.max(end)));
        if self.breaks.len() > BREAKS_MAX {
            self.breaks.pop_front();
            self.forgotten += 1;
        }
    }

    /// Breaks that were forgotten because of newer ones before their turn.
    #[must_use]
    pub fn breaks_forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Counts a wait that is over, and plays later from now on.
    fn end_wait(&mut self, now: Stamp, line: &Timeline, skipped: Duration) {
        let late = self.lateness(now, line);
        let waited = late.saturating_sub(TOLERANCE);
        if waited + skipped > Duration::ZERO {
            self.tally.stalls += 1;
            self.tally.stall_time += waited + skipped;
        }
        if waited > Duration::ZERO {
            let later = late.saturating_sub(skipped);
            self.delay = (self.delay + later).min(self.limit).max(self.delay);
            // So much was needed beyond what there was.
            self.least = (self.least + later).min(self.delay);
        }
    }
}
