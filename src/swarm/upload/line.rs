//! What a viewer's line carries, by trains that are sent to the relay in one go.
//!
//! First a small one, which even a poor line lets through in a fifth of a second: what waits
//! behind it is what the viewer says itself, while it begins to play. Most lines let some first
//! bytes through at once, so to a line that is not poor by the small one, or is less so than it
//! was, a larger one is sent soon after.

use std::time::Duration;

use crate::base::time::Mono;
use crate::wire::ppspp;

/// After this time on a link a line is measured: it has better to do before.
const BEGIN: Duration = Duration::from_millis(300);

/// Datagrams of a train, at least and at most: so many that they take [`LASTS`] seconds on a line
/// that carries what is believed. Bytes of each.
const FEW: u8 = 12;
const MANY: u8 = 48;
const LASTS: f32 = 0.25;
const LONG: u16 = 1_200;

/// Bytes of those of the first train, and of every train on a poor line.
const SHORT: u16 = 400;

/// A line that carries less, in bits per second, is measured by such trains alone.
const POOR: f32 = 500_000.0;

/// How soon after another a train is sent at the earliest: the relay measures one a second.
const APART: Duration = Duration::from_millis(1_100);

/// How soon one that was not answered is sent again, and how often.
const AGAIN: Duration = Duration::from_secs(5);
const TRIES: u8 = 4;

/// How long after it was too much a line is measured again: the first time, and at most. Twice as
/// long if it is soon too much again.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// How long after the first time a line is measured again, and how often one that is believed to
/// carry less than it once did.
const REST: Duration = Duration::from_secs(60);

/// Who carries so much of what it once did is left alone.
const WHOLE: f32 = 0.9;

/// An answer that much above what is believed is asked for again soon: it is believed by half.
const SURPRISE: f32 = 1.2;

/// And no answer is believed to be more than this above it.
const RISE: f32 = 3.0;

/// A train to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its number.
    pub run: u8,
    /// Datagrams.
    pub of: u8,
    /// Bytes of each.
    pub bytes: u16,
}

impl Probe {
    /// Bits of all of it on the wire.
    pub(super) fn bits(self) -> f32 {
        f32::from(self.of) * bits_of(self.bytes)
    }
}

/// Bits of a datagram on the wire.
fn bits_of(bytes: u16) -> f32 {
    ppspp::Probe::bits(bytes.into()) as f32
}

/// What a line carries.
#[derive(Debug)]
pub(super) struct Line {
    /// Bits per second that are believed, and the most that ever were.
    bits: Option<f32>,
    best: f32,
    /// Nobody measures it.
    guess: bool,
    /// By a small train, when the larger one is due that is believed.
    first: Option<f32>,
    /// The last train: its number, when it was sent, whether it was answered.
    run: u8,
    sent: Option<Mono>,
    waits: bool,
    /// When the next one is due, and how many were not answered.
    due: Option<Mono>,
    tries: u8,
    /// When it was last too much.
    reduced: Option<Mono>,
    patience: Duration,
}

impl Default for Line {
    fn default() -> Line {
        Line {
            bits: None,
            best: 0.0,
            guess: false,
            first: None,
            run: 0,
            sent: None,
            waits: false,
            due: None,
            tries: 0,
            reduced: None,
            patience: PATIENCE,
        }
    }
}

impl Line {
    /// A link to the relay begins.
    pub(super) fn linked(&mut self, now: Mono, measures: bool) {
        (self.waits, self.tries, self.first) = (false, 0, None);
        if !measures {
            self.due = None;
            self.guess = self.bits.is_none();
        } else if self.bits.is_none() {
            self.due = Some(now + BEGIN);
        } else if self.due.is_some() {
            self.due = self.due.max(Some(now + BEGIN));
        }
    }

    /// The train that is due.
    pub(super) fn probe(&mut self, now: Mono) -> Option<Probe> {
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        if self.tries >= TRIES {
            (self.tries, self.waits, self.first) = (0, false, None);
            self.guess = self.bits.is_none();
            self.due = Some(now + REST);
            return None;
        }
        let (of, bytes) = self.size();
        Some(Probe { run: self.run.wrapping_add(1), of, bytes })
    }

    /// Datagrams of the next train, and bytes of each.
    fn size(&self) -> (u8, u16) {
        match self.first.or(self.bits) {
            Some(bits) if bits >= POOR => {
                let all = bits * LASTS / bits_of(LONG);
                (all.clamp(FEW.into(), MANY.into()) as u8, LONG)
            }
            _ => (FEW, SHORT),
        }
    }

    /// A train was sent.
    pub(super) fn probed(&mut self, now: Mono, run: u8) {
        (self.run, self.sent, self.waits) = (run, Some(now), true);
        self.due = Some(now + AGAIN);
        self.tries += 1;
    }

    /// The answer to a train: what is believed now, if that is news. Who carries less than
    /// `least` is asked again some day.
    pub(super) fn measured(&mut self, now: Mono, run: u8, kbit: u32, least: f32) -> Option<f32> {
        if !self.waits || run != self.run || kbit == 0 {
            return None;
        }
        self.waits = false;
        let new = kbit as f32 * 1_000.0;
        self.tries = 0;
        let small = self.size().1 == SHORT;
        if small && new >= self.bits.map_or(POOR, |old| old * SURPRISE) {
            // The larger one waits in a line that may be as poor as it was.
            self.first = Some(if self.bits.is_some() { POOR } else { new });
            self.due = self.sent.map(|sent| (sent + APART).max(now));
            return None;
        }
        let old = self.bits;
        self.first = None;
        self.guess = false;
        let bits = match old {
            Some(old) if new > old => old.midpoint(new.min(old * RISE)),
            _ => new,
        };
        self.bits = Some(bits);
        self.best = self.best.max(new);
        let surprise = old.is_some_and(|old| new > old * SURPRISE);
        // A first answer came at a moment when all at home and at the relay was in motion.
        let doubtful = old.is_none() || bits < (self.best * WHOLE).max(least);
        self.due = match (surprise, doubtful) {
            (true, _) => Some(now + PATIENCE),
            (false, true) => Some(now + REST),
            (false, false) => None,
        };
        Some(bits)
    }

    /// It was too much: this part of it is believed.
    pub(super) fn reduce(&mut self, now: Mono, part: f32) {
        let before = self.reduced.replace(now);
        if let Some(bits) = &mut self.bits {
            *bits *= part;
            self.waits = false;
        }
        if self.due.is_some_and(|due| due < now + self.patience) {
            // It will soon be known.
            return;
        }
        let soon = before.is_some_and(|at| now.since(at) < self.patience * 3);
        self.patience = if soon { (self.patience * 2).min(PATIENCE_MAX) } else { PATIENCE };
        if self.bits.is_some() {
            (self.due, self.tries) = (Some(now + self.patience), 0);
        }
    }

    /// Whether it was not too much for so long that more may be tried.
    pub(super) fn is_patient(&self, now: Mono) -> bool {
        self.reduced.is_none_or(|at| now.since(at) >= self.patience)
    }

    /// Bits per second that are believed, if they were measured.
    pub(super) fn bits(&self) -> Option<f32> {
        self.bits
    }

    /// Whether nobody measures it.
    pub(super) fn is_guess(&self) -> bool {
        self.guess
    }

    /// When the last train was sent.
    pub(super) fn sent_at(&self) -> Option<Mono> {
        self.sent
    }
}
