//! What a peer asked for and has not been answered yet: bounded, eight bytes a run. The lowest
//! chunks are answered first: their turn to be played comes first.

use std::collections::VecDeque;
use std::num::NonZeroU64;

/// The most runs that wait. Neighbours join, so an honest peer needs one per hole; where it gets
/// stripes from several others, one for each subtree that it lacks.
pub const RUNS_MAX: usize = 64;

/// The most chunks of one run.
const RUN_MAX: u64 = 0xffff;

/// The largest chunk number: 2^48 chunks are more than a stream has.
const CHUNK_MAX: u64 = (1 << 48) - 1;

/// Chunks one after the other, in eight bytes: `first:48 | count:16`. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run(NonZeroU64);

impl Run {
    /// The chunks `first` to `last`; cut to 65,535. `None` if that is nothing, or beyond what a
    /// stream can have.
    #[must_use]
    pub const fn new(first: u64, last: u64) -> Option<Run> {
        if first > last || first > CHUNK_MAX {
            return None;
        }
        let more = last - first;
        let count = if more >= RUN_MAX { RUN_MAX } else { more + 1 };
        match NonZeroU64::new(first << 16 | count) {
            Some(packed) => Some(Run(packed)),
            None => None,
        }
    }

    /// The first chunk.
    #[must_use]
    pub const fn first(self) -> u64 {
        self.0.get() >> 16
    }

    /// The last chunk.
    #[must_use]
    pub const fn last(self) -> u64 {
        self.first() + self.chunks() - 1
    }

    /// How many there are.
    #[must_use]
    pub const fn chunks(self) -> u64 {
        self.0.get() & RUN_MAX
    }

    /// Whether the two have a chunk in common.
    #[must_use]
    pub const fn meets(self, other: Run) -> bool {
        self.first() <= other.last() && other.first() <= self.last()
    }

    /// Its chunks that lie in `subtree`, of `size` chunks: one bit each.
    #[must_use]
    pub fn bits(self, subtree: u64, size: u64) -> u16 {
        let (begin, end) = (subtree * size, subtree * size + size - 1);
        if self.last() < begin || self.first() > end {
            return 0;
        }
        let (low, high) = (self.first().max(begin) - begin, self.last().min(end) - begin);
        let below = |n: u64| ((1u32 << n.min(16)) - 1) as u16;
        below(high + 1) & !below(low)
    }

    /// The lowest chunks in one row of those that `bits` names in `subtree`; at most `most`.
    #[must_use]
    pub fn lowest(bits: u16, subtree: u64, size: u64, most: u32) -> Option<Run> {
        let gap = bits.trailing_zeros();
        let count = bits.checked_shr(gap)?.trailing_ones().min(most);
        let first = subtree.checked_mul(size)?.checked_add(gap.into())?;
        Run::new(first, (first + u64::from(count)).checked_sub(1)?)
    }

    /// Whether all of `other` is in this one.
    #[must_use]
    pub const fn holds(self, other: Run) -> bool {
        self.first() <= other.first() && other.last() <= self.last()
    }
}

/// The questions of one peer.
#[derive(Debug, Default)]
pub struct Requests {
    runs: VecDeque<Run>,
    chunks: u64,
    /// How many of the runs, the first ones, were there when [`Requests::age`] was last called.
    old: u32,
    /// Chunks that were forgotten unanswered: there was no room, or they had waited for long.
    forgotten: u32,
}

impl Requests {
    /// Adds chunks, unless they wait already; at most `most` wait. Returns how many were
    /// dropped.
    pub fn add(&mut self, run: Run, most: u64) -> u64 {
        let dropped = self.put(run, most);
        self.forget(dropped);
        dropped
    }

    /// Chunks that were forgotten since the last call, because too many waited or for too long.
    pub fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten).into()
    }

    fn forget(&mut self, chunks: u64) {
        let more = u32::try_from(chunks).unwrap_or(u32::MAX);
        self.forgotten = self.forgotten.saturating_add(more);
    }

    fn put(&mut self, run: Run, most: u64) -> u64 {
        if let Some(at) = self.runs.iter().position(|waits| waits.holds(run)) {
            self.old = self.old.min(at as u32);
            return 0;
        }
        let room = most.saturating_sub(self.chunks);
        let Some(kept) = cut(run, room) else { return run.chunks() };
        let joined = self.runs.back().and_then(|back| {
            let touches = back.first() <= kept.first() && kept.first() <= back.last() + 1;
            let whole = Run::new(back.first(), kept.last().max(back.last()))?;
            (touches && whole.last() >= kept.last()).then_some((back.chunks(), whole))
        });
        if let Some((before, whole)) = joined {
            self.chunks += whole.chunks() - before;
            self.runs.pop_back();
            self.runs.push_back(whole);
            // Asked again, or more of it.
            self.old = self.old.min(self.runs.len() as u32 - 1);
        } else if self.runs.len() < RUNS_MAX {
            self.chunks += kept.chunks();
            self.push(kept);
        } else {
            return run.chunks();
        }
        run.chunks() - kept.chunks()
    }

    /// Takes chunks out: cancelled, or no longer needed. A run that falls into two when there
    /// is no room for both keeps the first.
    pub fn remove(&mut self, gone: Run) {
        for at in (0..self.runs.len()).rev() {
            let run = self.runs[at];
            if !run.meets(gone) {
                continue;
            }
            let before = gone.first().checked_sub(1).and_then(|last| Run::new(run.first(), last));
            let behind = Run::new(gone.last() + 1, run.last());
            self.chunks -= run.chunks();
            match (before, behind) {
                (None, None) => self.take(at),
                (Some(one), None) | (None, Some(one)) => self.replace(at, one),
                (Some(one), Some(two)) => {
                    self.replace(at, one);
                    if self.runs.len() < RUNS_MAX {
                        self.runs.insert(at + 1, two);
                        self.old += u32::from((at as u32) < self.old);
                        self.chunks += two.chunks();
                    } else {
                        self.forget(two.chunks());
                    }
                }
            }
        }
    }

    /// The lowest chunks asked for that lie in `there` and that `can` names, one bit for each
    /// chunk of a subtree of `size` chunks: a row of them, of one subtree. Forgets what lies
    /// below `there`: it is too old to be answered.
    ///
    /// Not in the order in which they were asked for: a viewer who joins asks for seconds of the
    /// stream at once, and a hole in what comes would be filled when all the rest has come.
    pub fn next(
        &mut self,
        there: std::ops::Range<u64>,
        size: u64,
        can: impl Fn(u64) -> u16,
    ) -> Option<Run> {
        if let Some(last) = there.start.checked_sub(1) {
            self.forget_below(last);
        }
        let mut lowest: Option<Run> = None;
        for run in &self.runs {
            let mut first = run.first();
            let end = (run.last() + 1).min(there.end);
            while first < end && lowest.is_none_or(|found| first < found.first()) {
                let subtree = first / size;
                let found = Run::new(first, end - 1).map_or(0, |asked| asked.bits(subtree, size));
                if let Some(found) = Run::lowest(found & can(subtree), subtree, size, 16) {
                    lowest = Some(found);
                    break;
                }
                first = (subtree + 1) * size;
            }
        }
        lowest
    }

    /// Forgets what has waited since the last call: who asked has asked others by now.
    pub fn age(&mut self) {
        let before = self.chunks;
        for run in self.runs.drain(..self.old as usize) {
            self.chunks -= run.chunks();
        }
        self.forget(before - self.chunks);
        self.old = self.runs.len() as u32;
    }

    /// Chunks that wait.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    fn forget_below(&mut self, last: u64) {
        for at in (0..self.runs.len()).rev() {
            let run = self.runs[at];
            if run.first() <= last {
                self.chunks -= run.chunks();
                match Run::new(last + 1, run.last()) {
                    Some(rest) => self.replace(at, rest),
                    None => self.take(at),
                }
            }
        }
    }

    fn take(&mut self, at: usize) {
        self.runs.remove(at);
        self.old -= u32::from((at as u32) < self.old);
    }

    fn replace(&mut self, at: usize, run: Run) {
        self.chunks += run.chunks();
        self.runs[at] = run;
    }

    /// Grows by doubling as always, but never beyond the bound.
    fn push(&mut self, run: Run) {
        if self.runs.len() == self.runs.capacity() {
            let more = self.runs.len().max(4).min(RUNS_MAX - self.runs.len());
            self.runs.reserve_exact(more);
        }
        self.runs.push_back(run);
    }
}

/// The first `room` chunks of a run.
fn cut(run: Run, room: u64) -> Option<Run> {
    let last = run.first().checked_add(room)?.checked_sub(1)?;
    Run::new(run.first(), run.last().min(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, last: u64) -> Run {
        Run::new(first, last).unwrap()
    }

    fn waiting(requests: &Requests) -> Vec<(u64, u64)> {
        let runs: Vec<_> = requests.runs.iter().map(|r| (r.first(), r.last())).collect();
        let sum: u64 = runs.iter().map(|(first, last)| last - first + 1).sum();
        assert_eq!(sum, requests.chunks());
        runs
    }

    #[test]
    fn runs_fit_eight_bytes() {
        assert_eq!(Run::new(3, 2), None);
        assert_eq!(Run::new(u64::MAX, u64::MAX), None);
        assert_eq!(run(0, u64::MAX).chunks(), 65_535);
        assert_eq!((run(7, 9).first(), run(7, 9).last(), run(7, 9).chunks()), (7, 9, 3));
        assert!(run(0, 4).meets(run(4, 9)) && !run(0, 4).meets(run(5, 9)));
    }

    #[test]
    fn neighbours_join_and_nothing_waits_twice() {
        let mut requests = Requests::default();
        for chunk in 32..40 {
            assert_eq!(requests.add(run(chunk, chunk), 100), 0);
        }
        assert_eq!(requests.add(run(34, 36), 100), 0);
        assert_eq!(requests.add(run(36, 43), 100), 0);
        assert_eq!(requests.add(run(2, 2), 100), 0);
        assert_eq!(waiting(&requests), [(32, 43), (2, 2)]);
    }

    #[test]
    fn one_window_waits_and_no_more() {
        let mut requests = Requests::default();
        assert_eq!(requests.add(run(0, 99), 64), 36);
        assert_eq!(requests.add(run(500, 500), 64), 1);
        assert_eq!(waiting(&requests), [(0, 63)]);
        let mut requests = Requests::default();
        let dropped: u64 = (0..100).map(|n| requests.add(run(n * 2, n * 2), 4_000)).sum();
        assert_eq!(dropped, 100 - RUNS_MAX as u64);
        assert_eq!((requests.take_forgotten(), requests.take_forgotten()), (dropped, 0));
        assert_eq!(requests.runs.capacity(), RUNS_MAX);
        requests.remove(run(0, 3));
        requests.add(run(900, 900), 4_000);
        assert_eq!(requests.runs.capacity(), RUNS_MAX, "never beyond");
    }

    fn all(_: u64) -> u16 {
        u16::MAX
    }

    #[test]
    fn only_what_can_be_answered_is() {
        let mut requests = Requests::default();
        requests.add(run(40, 90), 1_000);
        requests.add(run(0, 20), 1_000);
        let can = |subtree| [0, 0, 0, 0b0011_0110_0000_0000, u16::MAX, 1][subtree as usize];
        assert_eq!(requests.next(0..96, 16, can), Some(run(57, 58)), "a row");
        requests.remove(run(57, 58));
        assert_eq!(requests.next(0..96, 16, can), Some(run(60, 61)));
        requests.remove(run(60, 61));
        assert_eq!(requests.next(0..70, 16, can), Some(run(64, 69)));
        requests.remove(run(64, 79));
        assert_eq!(requests.next(0..96, 16, can), Some(run(80, 80)));
        assert_eq!(requests.next(0..80, 16, can), None);
        assert_eq!(requests.next(0..96, 16, |subtree| (subtree == 0).into()), Some(run(0, 0)));
    }

    #[test]
    fn answers_come_in_order_and_from_one_subtree() {
        let mut requests = Requests::default();
        requests.add(run(200, 203), 1_000);
        requests.add(run(14, 40), 1_000);
        assert_eq!(requests.next(8..64, 16, all), Some(run(14, 15)), "the first that is there");
        requests.remove(run(14, 15));
        assert_eq!(requests.next(8..64, 16, all), Some(run(16, 31)));
        assert_eq!(requests.next(8..20, 16, all), Some(run(16, 19)));
        assert_eq!(requests.next(30..64, 16, all), Some(run(30, 31)), "older ones are forgotten");
        assert_eq!(waiting(&requests), [(200, 203), (30, 40)]);
        assert_eq!(requests.next(50..64, 16, all), None);
        assert_eq!(waiting(&requests), [(200, 203)]);
    }

    #[test]
    fn what_has_waited_for_long_is_forgotten() {
        let mut requests = Requests::default();
        requests.add(run(0, 9), 1_000);
        requests.add(run(20, 29), 1_000);
        requests.age();
        requests.add(run(40, 49), 1_000);
        requests.remove(run(24, 25));
        requests.remove(run(0, 9));
        assert_eq!(waiting(&requests), [(20, 23), (26, 29), (40, 49)]);
        assert_eq!(requests.take_forgotten(), 0, "taken out by who knows");
        requests.age();
        assert_eq!(waiting(&requests), [(40, 49)]);
        assert_eq!(requests.take_forgotten(), 8);
        requests.add(run(45, 55), 1_000);
        requests.age();
        assert_eq!(waiting(&requests), [(40, 55)], "asked again");
        requests.age();
        assert_eq!(waiting(&requests), []);
    }

    #[test]
    fn exactly_what_is_named_is_taken_out() {
        let mut requests = Requests::default();
        requests.add(run(10, 30), 1_000);
        requests.add(run(50, 60), 1_000);
        requests.remove(run(15, 20));
        requests.remove(run(58, 99));
        requests.remove(run(0, 10));
        assert_eq!(waiting(&requests), [(11, 14), (21, 30), (50, 57)]);
        requests.remove(run(0, 1_000));
        assert_eq!(waiting(&requests), []);
    }

    #[test]
    fn a_split_without_room_keeps_the_first_part() {
        let mut requests = Requests::default();
        for n in 0..RUNS_MAX as u64 {
            assert_eq!(requests.add(run(n * 10, n * 10 + 4), 4_000), 0);
        }
        requests.remove(run(2, 2));
        assert_eq!(waiting(&requests)[0], (0, 1));
        assert_eq!(requests.take_forgotten(), 2, "and the rest is counted");
        assert_eq!(requests.runs.len(), RUNS_MAX);
    }
}
