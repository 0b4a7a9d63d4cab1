//! One atomic word per slab: `generation:32 | pins:32`, the whole of the reclamation protocol.
//!
//! A slab with pins is never written by a new owner. Pins come to zero once per generation:
//! the window holds one from claim to retirement, and a reader can only add a pin to a slab
//! that still has one. So zero is final, and a slab may then be split, merged or claimed.

use crate::ring::sync::{AtomicU64, Ordering};

const PINS: u64 = 0xffff_ffff;
const GENERATION: u64 = 1 << 32;

/// The word of a slab. All zero bytes are a valid free slab of generation 0.
#[repr(transparent)]
pub(super) struct Word(AtomicU64);

impl Word {
    /// A free slab of generation 0.
    #[cfg(any(test, headwater_loom))]
    pub(super) fn new() -> Word {
        Word(AtomicU64::new(0))
    }

    /// Takes a free slab: the next generation with one pin, the window's. `None` if it has pins.
    ///
    /// Acquire: what earlier readers read happened before the new owner's first write. The
    /// caller excludes other claims (the pool's lock).
    ///
    /// Generations wrap after 2^32 claims of one slab. A reader holds a generation only between
    /// its look into the directory and its pin, which is nanoseconds.
    pub(super) fn claim(&self) -> Option<u32> {
        let seen = self.0.load(Ordering::Relaxed);
        if seen & PINS != 0 {
            return None;
        }
        let next = seen.wrapping_add(GENERATION) | 1;
        self.0.compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed).ok()?;
        u32::try_from(next >> 32).ok()
    }

    /// Adds a pin if the slab is still of `generation` and somebody still has a pin on it.
    ///
    /// Acquire also on failure: who fails sees the tail that the writer moved before it retired
    /// the slab.
    pub(super) fn pin(&self, generation: u32) -> bool {
        let mut seen = self.0.load(Ordering::Acquire);
        loop {
            let pins = seen & PINS;
            if seen >> 32 != u64::from(generation) || pins == 0 || pins == PINS {
                return false;
            }
            let order = Ordering::Acquire;
            match self.0.compare_exchange_weak(seen, seen + 1, order, order) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
    }

    /// Gives one pin back; true if it was the last.
    ///
    /// Release: the pin's reads happened before whatever the next owner writes.
    pub(super) fn unpin(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Release) & PINS == 1
    }

    /// Whether nobody has a pin. Final until the next claim.
    pub(super) fn is_free(&self) -> bool {
        self.0.load(Ordering::Acquire) & PINS == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_pins_are_final_until_the_next_claim() {
        let word = Word::new();
        assert!(!word.pin(0), "nobody holds it");
        let first = word.claim().unwrap();
        assert!(word.claim().is_none(), "claimed twice");
        assert!(word.pin(first));
        assert!(!word.unpin(), "the reader's pin keeps it");
        assert!(word.claim().is_none(), "claimed under a reader");
        assert!(word.pin(first), "another reader may join");
        assert!(!word.unpin());
        assert!(word.unpin());
        assert!(!word.pin(first), "zero is final");
        let second = word.claim().unwrap();
        assert_ne!(first, second);
        assert!(!word.pin(first), "an old generation");
        assert!(word.pin(second));
    }

    #[test]
    fn the_generation_wraps_without_touching_the_pins() {
        let word = Word(AtomicU64::new(u64::from(u32::MAX) << 32));
        assert_eq!(word.claim(), Some(0));
        assert!(word.pin(0));
        assert!(!word.unpin());
        assert!(word.unpin());
    }
}
