//! How fast the trains come by which a peer measures its line: the end that looks at them.

use std::time::Duration;

use crate::base::time::Mono;
use crate::wire::ppspp::Probe;

/// How often a train is measured: a peer sends one a second, if any.
const APART: Duration = Duration::from_millis(750);

/// A train is over when nothing of it has come for so long.
const SILENCE: Duration = Duration::from_millis(300);

/// Datagrams of a train that do not count, at most: many lines let a burst through at once.
const BURST: usize = 16;

/// Of fewer datagrams than this nothing follows.
const COUNT_MIN: usize = 4;

/// What is said of a line that is faster than can be measured so.
const KBIT_MAX: u32 = 100_000;

/// What came of one train. It is kept for a second or so.
#[derive(Clone, Debug)]
pub struct Probing {
    run: u8,
    of: u8,
    /// Bytes of each datagram.
    bytes: usize,
    /// A bit for each that came.
    came: u64,
    begun: Mono,
    /// When each came, in microseconds since the first.
    at: [u32; Probe::MOST as usize],
    answered: bool,
}

/// What is to be done about a datagram of a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// More may come.
    More,
    /// It was the last: the train, and its rate.
    Over(u8, u32),
    /// It does not count.
    Dropped,
}

impl Probing {
    /// Takes the first datagram of a train, of `bytes`: what is to be done about it, and the
    /// train if it is one.
    #[must_use]
    pub fn begin(now: Mono, probe: &Probe<'_>, bytes: usize) -> (Heard, Option<Probing>) {
        let Probe { run, of, .. } = *probe;
        let at = [0; Probe::MOST as usize];
        let mut train = Probing { run, of, bytes, came: 0, begun: now, at, answered: false };
        match train.hear(now, probe, bytes) {
            Heard::Dropped => (Heard::Dropped, None),
            heard => (heard, Some(train)),
        }
    }

    /// Whether a datagram that is not of this train may begin another one.
    #[must_use]
    pub fn makes_room(&self, now: Mono, probe: &Probe<'_>) -> bool {
        self.run != probe.run && now.since(self.begun) >= APART
    }

    /// Takes a datagram of `bytes`.
    pub fn hear(&mut self, now: Mono, probe: &Probe<'_>, bytes: usize) -> Heard {
        let Probe { run, index, of, .. } = *probe;
        let same = self.run == run && self.of == of && self.bytes == bytes;
        let fits = index < of && of <= Probe::MOST;
        if !same || !fits || self.answered || self.came >> index & 1 == 1 {
            return Heard::Dropped;
        }
        let since = u32::try_from(now.since(self.begun).as_micros()).unwrap_or(u32::MAX);
        self.at[self.came.count_ones() as usize] = since;
        self.came |= 1 << index;
        if index + 1 < of {
            return Heard::More;
        }
        self.answered = true;
        Heard::Over(run, self.kbit())
    }

    /// Train and rate, if its end was lost and nothing more is going to come.
    pub fn give_up(&mut self, now: Mono) -> Option<(u8, u32)> {
        let last = self.at[(self.came.count_ones() as usize).saturating_sub(1)];
        let silence = now.since(self.begun).saturating_sub(Duration::from_micros(last.into()));
        if self.answered || silence < SILENCE {
            return None;
        }
        self.answered = true;
        Some((self.run, self.kbit()))
    }

    /// Whether it was answered and may be forgotten.
    #[must_use]
    pub fn is_over(&self, now: Mono) -> bool {
        self.answered && now.since(self.begun) >= APART
    }

    /// Thousands of bits per second at which the train came; 0 if that cannot be said.
    ///
    /// How far apart the middles of its two halves came, for each datagram is late by chance.
    fn kbit(&self) -> u32 {
        let at = &self.at[..self.came.count_ones() as usize];
        let counted = &at[BURST.min(at.len() / 2)..];
        let half = counted.len() / 2;
        let (first, last) = (&counted[..half], &counted[counted.len() - half..]);
        let sum = |times: &[u32]| times.iter().map(|time| u64::from(*time)).sum::<u64>();
        let took = sum(last) - sum(first);
        if counted.len() < COUNT_MIN || took == 0 {
            return if at.len() == usize::from(self.of) { KBIT_MAX } else { 0 };
        }
        let bits = Probe::bits(self.bytes) * (counted.len() - half) as u64;
        let kbit = bits * 1_000 * half as u64 / took;
        u32::try_from(kbit).unwrap_or(KBIT_MAX).clamp(1, KBIT_MAX)
    }
}
