//! A bounded log of pairs: one writer appends, anybody reads, the oldest are overwritten.
//!
//! It is a seqlock whose sequence is the number of entries: an entry is good if, after it was
//! read, the log had not yet come round to its slot again. Keys only grow, so that the entry
//! for a stream offset is found by search, fastest for the newest.

use crate::ring::sync::{AtomicU64, Ordering, fence};

/// The log. `len() - 1` entries at least can be read at any time.
pub(super) struct Log {
    slots: Box<[[AtomicU64; 2]]>,
    count: AtomicU64,
}

impl Log {
    /// A log in which the newest `keep` entries are safe from being overwritten.
    pub(super) fn new(keep: usize) -> Log {
        let slots = (0..keep.saturating_add(1).next_power_of_two())
            .map(|_| [AtomicU64::new(0), AtomicU64::new(0)])
            .collect();
        Log { slots, count: AtomicU64::new(0) }
    }

    /// How many entries were ever appended.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The lowest number that could be read while there were `count` entries.
    pub(super) fn oldest(&self, count: u64) -> u64 {
        (count + 1).saturating_sub(self.slots.len() as u64)
    }

    /// Appends an entry. One thread at a time; `key` must be above all before.
    pub(super) fn push(&self, key: u64, value: u64) {
        let n = self.count.load(Ordering::Relaxed);
        let [first, second] = self.slot(n);
        // Who reads a byte of what follows and then fences sees `count` of at least n: so it
        // knows that entry n - len, which was in this slot, is gone.
        fence(Ordering::Release);
        first.store(key, Ordering::Relaxed);
        second.store(value, Ordering::Relaxed);
        self.count.store(n + 1, Ordering::Release);
    }

    /// Entry `n`, if it was appended and is not being overwritten.
    pub(super) fn get(&self, n: u64) -> Option<(u64, u64)> {
        if n >= self.count.load(Ordering::Acquire) {
            return None;
        }
        let [first, second] = self.slot(n);
        let entry = (first.load(Ordering::Relaxed), second.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        // Acquire, because who learns here that the entry is gone also acts on why.
        let count = self.count.load(Ordering::Acquire);
        (n >= self.oldest(count)).then_some(entry)
    }

    /// The newest entry whose key is at most `key`, if it is still kept.
    pub(super) fn find(&self, key: u64) -> Option<(u64, u64)> {
        let end = self.count();
        let (mut low, mut high) = (self.oldest(end), end);
        // Most questions are about the newest entries: search backwards in doubling steps,
        // then between the last two steps.
        let mut step = 1;
        while high > low {
            let back = end.saturating_sub(step).max(low);
            match self.get(back) {
                Some((k, _)) if k > key => high = back,
                Some(_) => {
                    low = back;
                    break;
                }
                None => {
                    low = back + 1;
                    break;
                }
            }
            step *= 2;
        }
        let mut best = None;
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle) {
                Some((k, _)) if k > key => high = middle,
                found => {
                    // Overwritten entries (`None`) are older than all that remain.
                    best = found.or(best);
                    low = middle + 1;
                }
            }
        }
        best
    }

    fn slot(&self, n: u64) -> &[AtomicU64; 2] {
        // The length is a power of two; the mask keeps the index inside it.
        &self.slots[(n & (self.slots.len() as u64 - 1)) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_agrees_with_a_linear_search() {
        for keep in [1_usize, 2, 5, 31] {
            let log = Log::new(keep);
            assert_eq!(log.find(u64::MAX), None);
            for n in 0..100_u64 {
                log.push(n * 10, n);
                let kept: Vec<_> = (0..=n).filter_map(|i| log.get(i)).collect();
                assert!(kept.len() >= keep.min(n as usize + 1), "{keep} {n}");
                for key in 0..=n * 10 + 11 {
                    let best = kept.iter().rev().find(|(k, _)| *k <= key).copied();
                    assert_eq!(log.find(key), best, "keep {keep}, n {n}, key {key}");
                }
            }
        }
    }
}
