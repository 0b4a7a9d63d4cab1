//! What a viewer's node tells about itself: copied to a board twice a second, for whoever asks.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::base::time::Mono;
use crate::ring::window::Window;
use crate::swarm::playout::Tally;
use crate::swarm::receiver::Counts;

/// The longest delay that is told apart, in milliseconds.
const DELAY_MAX_MS: u64 = 600_000;

/// Changes of source that are kept with their times.
const SWITCHES_MAX: usize = 1_000;

/// Runs and losses that are kept with their places.
const PLACES_MAX: usize = 10_000;

/// Delays of the last ten seconds, one in a hundred milliseconds.
const RECENT: usize = 100;
const RECENT_APART: Duration = Duration::from_millis(100);

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The swarm.
    Udp,
    /// The relay's HTTP face.
    Http,
}

impl Source {
    /// The word in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Udp => "udp",
            Source::Http => "http",
        }
    }
}

/// From an offset in the window on, offsets on the wire are larger by a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Offset in the window.
    pub local: u64,
    /// The same place in the stream.
    pub wire: u64,
}

/// A stretch of the window that is null packets instead of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Offset in the window.
    pub local: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Neighbours that were dropped for what they did and that are told by name.
const DROPPED_MAX: usize = 64;

/// A neighbour, as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Where it is.
    pub address: SocketAddr,
    /// The stripes that it feeds this viewer, a bit each.
    pub stripes_in: u8,
    /// The stripes that this viewer feeds it.
    pub stripes_out: u8,
    /// Bytes of chunks that came from it, verified and new.
    pub in_bytes: u64,
    /// Bytes of chunks that were sent to it.
    pub out_bytes: u64,
    /// The round trip to it.
    pub rtt: Duration,
}

/// What a viewer gets from others and gives to them. Only grows, but for the neighbours and the
/// upload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Bytes of chunks from the relay over UDP, verified and new.
    pub relay_bytes: u64,
    /// The same from neighbours.
    pub peer_bytes: u64,
    /// Those of them that came without having been asked for.
    pub pushed_bytes: u64,
    /// Bytes of chunks that were sent to neighbours.
    pub sent_bytes: u64,
    /// UDP payload of everything else that came from relay and neighbours: handshakes,
    /// acknowledgements, announcements, questions.
    pub control_in: u64,
    /// The same that was sent.
    pub control_out: u64,
    /// UDP payload of hashes and signatures that came.
    pub integrity_in: u64,
    /// The same that was sent.
    pub integrity_out: u64,
    /// Chunks that had come already.
    pub duplicates: u64,
    /// Stripes that a neighbour was asked to feed.
    pub grafts: u64,
    /// Stripes that a neighbour was told to feed no more.
    pub prunes: u64,
    /// Chunks that came from the relay because it was asked for them.
    pub rescues: u64,
    /// Addresses that the relay named.
    pub introduced: u64,
    /// Links to neighbours that were opened.
    pub opened: u64,
    /// Links that we ended because nobody had been fed over them for long, and there were many.
    pub idle_ended: u64,
    /// Introductions that led nowhere: there is no direct path.
    pub unreachable: u64,
    /// Addresses that the relay named, openings and links for which the tables had no room: the
    /// oldest went, or the newest was not taken.
    pub addresses_forgotten: u64,
    /// Chunks that neighbours asked for and that were forgotten unanswered: too many waited, or
    /// for too long.
    pub questions_forgotten: u64,
    /// What links brought and the choice among them was not told: it was too much at once.
    pub news_forgotten: u64,
    /// Subtrees that were missing and that nobody watched any more: there were too many, or they
    /// lay too far apart.
    pub tracks_forgotten: u64,
    /// Neighbours that were dropped for what they did, and what that was.
    pub dropped: Vec<(SocketAddr, &'static str)>,
    /// How many they are, those included that are not told by name.
    pub dropped_all: u64,
    /// Those who are there.
    pub neighbours: Vec<Neighbour>,
    /// What this viewer takes itself to be able to send.
    pub upload_kbit: u32,
    /// What of it is free.
    pub room_kbit: u32,
    /// A table that holds more than it may: a defect.
    pub overfull: Option<&'static str>,
}

impl Sharing {
    /// A neighbour was dropped for what it did.
    pub(super) fn drop_neighbour(&mut self, address: SocketAddr, why: &'static str) {
        self.dropped_all += 1;
        if self.dropped.len() < DROPPED_MAX {
            self.dropped.push((address, why));
        }
    }
}

/// All figures of one viewer.
#[derive(Clone)]
pub struct Figures {
    /// When it began.
    pub started: Mono,
    /// From there to the first byte that was played.
    pub startup: Option<Duration>,
    /// Delays behind live of what was played, in milliseconds.
    pub delay: Histogram<u64>,
    /// The newest of them, and the play-out delay D.
    pub delay_now: Duration,
    /// The play-out delay D.
    pub target: Duration,
    /// From signing to verified here, per subtree, in milliseconds.
    pub arrival: Histogram<u64>,
    /// Stalls and skips.
    pub tally: Tally,
    /// What the links of this viewer saw.
    pub counts: Counts,
    /// What it gets from others and gives to them.
    pub sharing: Sharing,
    /// Bytes that were played and came over HTTP.
    pub http_bytes: u64,
    /// Chunks that were given up.
    pub given_up: u64,
    /// Restarts of the relay of which the times or the turn were forgotten because of newer ones.
    pub breaks_forgotten: u64,
    /// Where bytes come from now.
    pub source: Option<Source>,
    /// When that changed, from the start on.
    pub switches: Vec<(Duration, Source)>,
    /// Times that a link was opened.
    pub joins: u64,
    /// The window, once there is one, and the first byte of it that is played.
    pub window: Option<(Arc<Window>, u64)>,
    /// How its offsets lie in the stream.
    pub runs: Vec<Run>,
    /// What is missing in it.
    pub losses: Vec<Loss>,
    /// What stands in the way, in words; empty if nothing does.
    pub problem: String,
    /// It cannot go on.
    pub failed: bool,
    recent: Recent,
    recent_arrivals: Recent,
}

/// Delays of the last ten seconds, in milliseconds.
#[derive(Clone, Default)]
struct Recent {
    delays: VecDeque<(Mono, u16)>,
}

impl Recent {
    fn add(&mut self, now: Mono, delay: Duration) {
        if self.delays.back().is_some_and(|(at, _)| now.since(*at) < RECENT_APART) {
            return;
        }
        self.delays.push_back((now, u16::try_from(delay.as_millis()).unwrap_or(u16::MAX)));
        if self.delays.len() > RECENT {
            self.delays.pop_front();
        }
    }

    /// Median and 99th percentile.
    fn quantiles(&self) -> (u16, u16) {
        let mut sorted: Vec<u16> = self.delays.iter().map(|(_, delay)| *delay).collect();
        sorted.sort_unstable();
        let at = |part: usize| sorted.get((sorted.len() * part / 100).min(sorted.len().max(1) - 1));
        (at(50).copied().unwrap_or(0), at(99).copied().unwrap_or(0))
    }
}

fn histogram() -> Histogram<u64> {
    #[allow(clippy::expect_used, reason = "constant bounds, which a test tries")]
    Histogram::new_with_bounds(1, DELAY_MAX_MS, 2).expect("constant bounds are valid")
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Figures {
    /// Of a viewer that begins now.
    #[must_use]
    pub fn new(now: Mono) -> Figures {
        Figures {
            started: now,
            startup: None,
            delay: histogram(),
            delay_now: Duration::ZERO,
            target: Duration::ZERO,
            arrival: histogram(),
            tally: Tally::default(),
            counts: Counts::default(),
            sharing: Sharing::default(),
            http_bytes: 0,
            given_up: 0,
            breaks_forgotten: 0,
            source: None,
            switches: Vec::new(),
            joins: 0,
            window: None,
            runs: Vec::new(),
            losses: Vec::new(),
            problem: String::new(),
            failed: false,
            recent: Recent::default(),
            recent_arrivals: Recent::default(),
        }
    }

    /// Something was played `delay` after it came in at the relay.
    pub(super) fn played(&mut self, now: Mono, delay: Duration) {
        self.startup.get_or_insert(now.since(self.started));
        self.delay_now = delay;
        self.delay.saturating_record(millis(delay).max(1));
        self.recent.add(now, delay);
    }

    /// A subtree was verified `delay` after it was signed.
    pub(super) fn arrived(&mut self, now: Mono, delay: Duration) {
        self.arrival.saturating_record(millis(delay).max(1));
        self.recent_arrivals.add(now, delay);
    }

    /// Bytes come from `source` now.
    pub(super) fn switch(&mut self, now: Mono, source: Source) {
        if self.source != Some(source) {
            self.source = Some(source);
            if self.switches.len() < SWITCHES_MAX {
                self.switches.push((now.since(self.started), source));
            }
        }
    }

    pub(super) fn run(&mut self, run: Run) {
        if self.runs.len() < PLACES_MAX {
            self.runs.push(run);
        }
    }

    pub(super) fn loss(&mut self, loss: Loss) {
        if self.losses.len() < PLACES_MAX && loss.bytes > 0 {
            self.losses.push(loss);
        }
    }

    /// Median and 99th percentile of the delay over the last ten seconds, in milliseconds.
    #[must_use]
    pub fn recent(&self) -> (u16, u16) {
        self.recent.quantiles()
    }

    /// The same of the time from signing to verified here.
    #[must_use]
    pub fn recent_arrivals(&self) -> (u16, u16) {
        self.recent_arrivals.quantiles()
    }
}

/// Where all viewers of a node leave their figures.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<Vec<Figures>>>);

impl Board {
    /// Copies of all figures.
    #[must_use]
    pub fn read(&self) -> Vec<Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the figures of viewer `index`. If somebody is reading, the next time will do.
    pub(super) fn write(&self, index: usize, figures: Figures, must: bool) {
        let locked = match must {
            true => Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)),
            false => self.0.try_lock().ok(),
        };
        let Some(mut all) = locked else { return };
        match all.get_mut(index) {
            Some(place) => *place = figures,
            None => all.resize(index + 1, figures),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_delays_are_those_of_ten_seconds() {
        let mut figures = Figures::new(Mono::ZERO);
        assert_eq!(figures.recent(), (0, 0));
        for n in 1..=300 {
            figures.played(Mono::from_millis(n * 100), Duration::from_millis(n));
        }
        assert_eq!(figures.recent(), (251, 300));
        assert_eq!(figures.recent_arrivals(), (0, 0));
        figures.arrived(Mono::from_millis(30_000), Duration::from_millis(80));
        figures.arrived(Mono::from_millis(30_050), Duration::from_millis(900));
        assert_eq!(figures.recent_arrivals(), (80, 80), "one in a hundred milliseconds");
        assert_eq!(figures.arrival.len(), 2);
        assert_eq!(figures.startup, Some(RECENT_APART));
        let board = Board::default();
        board.write(1, figures, true);
        assert_eq!(board.read().len(), 2);
    }
}
