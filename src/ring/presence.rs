//! Which chunks of a window are there, for windows that are filled out of order.

use crate::base::limits::{SUBTREE, SUBTREE_CHUNKS_MAX};
use crate::ring::sync::{AtomicU64, Ordering};

/// Chunks of one word, and bits of its lower part.
const CHUNKS: u64 = SUBTREE_CHUNKS_MAX as u64;

/// One word per 16 chunks, `number of the 16:48 | one bit per chunk:16`. The number makes a word
/// that was taken over by newer chunks a plain miss. 2^48 times 21 kB are more than a stream has.
pub(super) struct Presence {
    words: Box<[AtomicU64]>,
}

impl Presence {
    /// Nothing is there. Keeps the last `quota` bytes, whole 16 chunks, apart.
    pub(super) fn new(quota: u64) -> Presence {
        // No more than the arena has: fits usize.
        let words = (quota / SUBTREE as u64).max(1) as usize;
        Presence { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Writer: `chunk` was written to its end.
    pub(super) fn set(&self, chunk: u64) {
        let word = self.word(chunk);
        let seen = word.load(Ordering::Relaxed);
        let tag = (chunk / CHUNKS) << CHUNKS;
        let before = if seen >> CHUNKS << CHUNKS == tag { seen } else { tag };
        word.store(before | bit(chunk), Ordering::Release);
    }

    /// Acquire: if it is there, its bytes are visible.
    pub(super) fn has(&self, chunk: u64) -> bool {
        let seen = self.word(chunk).load(Ordering::Acquire);
        seen >> CHUNKS << CHUNKS == (chunk / CHUNKS) << CHUNKS && seen & bit(chunk) != 0
    }

    fn word(&self, chunk: u64) -> &AtomicU64 {
        // Below the length: fits usize.
        &self.words[(chunk / CHUNKS % self.words.len() as u64) as usize]
    }
}

fn bit(chunk: u64) -> u64 {
    1 << (chunk % CHUNKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_chunk_has_a_bit_until_a_newer_one_takes_the_word() {
        let presence = Presence::new(2 * SUBTREE as u64);
        assert!((0..64).all(|chunk| !presence.has(chunk)), "empty, also for number 0");
        for chunk in [5, 17, 0, 31] {
            presence.set(chunk);
        }
        let there = |below| (0..below).filter(|chunk| presence.has(*chunk)).collect::<Vec<_>>();
        assert_eq!(there(96), [0, 5, 17, 31]);
        presence.set(32 + 3);
        assert_eq!(there(96), [17, 31, 35]);
    }
}
