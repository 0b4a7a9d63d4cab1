//! A "tell me once" flag of one shard at one window: no wake-up is lost, none comes twice.

use crate::ring::sync::{AtomicBool, Ordering, fence};

/// The flag. A shard that is about to sleep goes through these steps, in this order:
///
/// 1. [`Bell::arm`],
/// 2. read the window's head (and marks); if there is anything new, [`Bell::disarm`] and work,
/// 3. sleep until told.
///
/// The writer publishes, then asks [`Bell::take`], and tells the shard if it says so. Of the
/// two, at least one sees the other: the writer sees the flag, or the shard sees the head.
#[derive(Default)]
pub struct Bell(AtomicBool);

impl Bell {
    /// Asks to be told of the next publication. Reader only, before it reads the head.
    pub fn arm(&self) {
        self.0.store(true, Ordering::Relaxed);
        // Store the flag, then load the head: only a SeqCst fence on both sides keeps the two
        // from passing each other.
        fence(Ordering::SeqCst);
    }

    /// Takes the request back. The writer may be about to tell anyhow: that is harmless.
    pub fn disarm(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether the shard is to be told; disarms. Writer only, after it has published.
    pub fn take(&self) -> bool {
        fence(Ordering::SeqCst);
        // Load first: with nobody waiting the cache line stays shared. Then exchange and not
        // swap: who finds the flag disarmed must not store over a flag that is armed again.
        let order = Ordering::Relaxed;
        self.0.load(order) && self.0.compare_exchange(true, false, order, order).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_once() {
        let bell = Bell::default();
        assert!(!bell.take());
        bell.arm();
        assert!(bell.take());
        assert!(!bell.take());
        bell.arm();
        bell.disarm();
        assert!(!bell.take());
    }
}
