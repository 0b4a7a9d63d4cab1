//! What the network did to chunks: the ground truth by which a viewer's stall is excused.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::time::Duration;

use crate::base::spread::Mix;
use crate::base::time::Mono;

/// Tries of one chunk in a row that were lost, from which on nobody is to blame.
const TRIES: u8 = 3;

/// How long a loss is remembered: longer than any chunk lives.
const MEMORY: Duration = Duration::from_secs(30);

/// Chunks that were lost on the way to each host and have not come since.
#[derive(Debug, Default)]
pub struct Losses {
    /// Looked up for every chunk that comes, and mostly in vain.
    open: HashMap<(usize, u64), (u8, Mono), BuildHasherDefault<Mix>>,
    /// Chunks whose tries were lost three times in a row, by host.
    hopeless: BTreeMap<(usize, u64), Mono>,
    /// Until when each host's line was down or full.
    faults: BTreeMap<usize, Mono>,
    pruned: Mono,
}

impl Losses {
    /// A try to bring `chunk` to `host` failed.
    pub fn lost(&mut self, now: Mono, host: usize, chunk: u64) {
        let (tries, at) = self.open.entry((host, chunk)).or_default();
        (*tries, *at) = (tries.saturating_add(1), now);
        if *tries >= TRIES {
            self.hopeless.insert((host, chunk), now);
        }
        if now.since(self.pruned) >= MEMORY {
            self.pruned = now;
            self.open.retain(|_, (_, at)| now.since(*at) < MEMORY);
            self.hopeless.retain(|_, at| now.since(*at) < MEMORY);
        }
    }

    /// `chunk` came through to `host`.
    pub fn came(&mut self, host: usize, chunk: u64) {
        self.open.remove(&(host, chunk));
    }

    /// No datagram came to `host` at this time, whatever anybody did.
    pub fn fault(&mut self, now: Mono, host: usize) {
        self.faults.insert(host, now);
    }

    /// Whether the network explains that `host` missed something in the time before `now`.
    #[must_use]
    pub fn excuse(&self, now: Mono, host: usize, lately: Duration) -> bool {
        let recent = |at: &Mono| now.since(*at) <= lately;
        let mut hopeless = self.hopeless.range((host, 0)..=(host, u64::MAX));
        hopeless.any(|(_, at)| recent(at)) || self.faults.get(&host).is_some_and(recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_lost_tries_in_a_row_are_an_excuse() {
        let mut losses = Losses::default();
        let (now, lately) = (Mono::from_millis(50_000), Duration::from_secs(5));
        for chunk in [1, 1, 2, 2, 2] {
            losses.lost(now, 7, chunk);
        }
        assert!(losses.excuse(now, 7, lately) && !losses.excuse(now, 8, lately));
        assert!(!losses.excuse(now + Duration::from_secs(6), 7, lately));
        let mut patient = Losses::default();
        patient.lost(now, 7, 1);
        patient.lost(now, 7, 1);
        patient.came(7, 1);
        patient.lost(now, 7, 1);
        assert!(!patient.excuse(now, 7, lately), "it came between");
        patient.fault(now, 7);
        assert!(patient.excuse(now, 7, lately));
    }
}
