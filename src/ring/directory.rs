//! Where a stream offset lies: byte head, byte tail, and the slabs between them.

use crossbeam::utils::CachePadded;

use crate::ring::log::Log;
use crate::ring::pool::{Class, SlabRef};
use crate::ring::sync::{AtomicU64, Ordering};

/// A slab of the window and the stream offset of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Stream offset of the slab's first byte.
    pub(super) start: u64,
    /// The slab.
    pub(super) slab: SlabRef,
}

impl Held {
    /// Stream offset behind the slab's last byte.
    pub(super) fn end(&self) -> u64 {
        self.start + self.slab.class.bytes() as u64
    }
}

/// Head, tail and slabs of a window. Changed by its one writer, read by everybody.
pub(super) struct Directory {
    /// Read by every shard once per round, written per publication: its own cache line.
    head: CachePadded<AtomicU64>,
    tail: CachePadded<AtomicU64>,
    /// `start -> generation:32 | unit:31 | large:1` of every slab, in stream order.
    slabs: Log,
    /// Number in `slabs` of the oldest slab that is not retired.
    oldest: AtomicU64,
}

impl Directory {
    /// An empty window at `first` that never holds more than `keep` slabs.
    pub(super) fn new(first: u64, keep: usize) -> Directory {
        Directory {
            head: CachePadded::new(AtomicU64::new(first)),
            tail: CachePadded::new(AtomicU64::new(first)),
            slabs: Log::new(keep),
            oldest: AtomicU64::new(0),
        }
    }

    /// Acquire: every byte below it, and the slab that it lies in, is visible.
    pub(super) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// The oldest byte that is kept.
    pub(super) fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    /// Writer: a slab that continues the window.
    pub(super) fn add(&self, held: Held) {
        let slab = held.slab;
        let low = slab.unit << 1 | u32::from(slab.class == Class::Large);
        self.slabs.push(held.start, u64::from(slab.generation) << 32 | u64::from(low));
    }

    /// Writer: everything written below `head` may be read from now on.
    pub(super) fn publish(&self, head: u64) {
        self.head.store(head, Ordering::Release);
    }

    /// Writer: what is kept begins behind the oldest slab. Only then it is given out, for the
    /// caller to retire: so a reader who fails to pin it finds itself below the tail.
    pub(super) fn drop_oldest(&self) -> Option<Held> {
        let oldest = self.oldest.load(Ordering::Relaxed);
        let held = unpack(self.slabs.get(oldest)?);
        self.tail.store(held.end(), Ordering::Release);
        self.oldest.store(oldest + 1, Ordering::Release);
        Some(held)
    }

    /// The slab in which the byte at `at` lies or lay: pin it to know which. `None` if it was
    /// dropped or does not exist yet.
    pub(super) fn locate(&self, at: u64) -> Option<Held> {
        self.slabs.find(at).map(unpack).filter(|held| held.start <= at && at < held.end())
    }

    /// All slabs not dropped, oldest first. For the last owner: nobody writes any more.
    pub(super) fn remaining(&self) -> impl Iterator<Item = Held> + '_ {
        let oldest = self.oldest.load(Ordering::Acquire);
        (oldest..self.slabs.count()).filter_map(|n| self.slabs.get(n)).map(unpack)
    }
}

fn unpack((start, value): (u64, u64)) -> Held {
    let low = value as u32;
    let class = if low & 1 == 1 { Class::Large } else { Class::Small };
    Held { start, slab: SlabRef { unit: low >> 1, generation: (value >> 32) as u32, class } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_found_by_any_of_their_bytes_until_overwritten() {
        let directory = Directory::new(0, 3);
        let mut all = Vec::new();
        let mut start = 0;
        for n in 0..20_u32 {
            if n >= 3 {
                assert_eq!(directory.drop_oldest(), Some(all[n as usize - 3]));
                assert_eq!(directory.tail(), all[n as usize - 2].start);
            }
            let class = if n % 3 == 0 { Class::Large } else { Class::Small };
            let slab = SlabRef { unit: (1 << 31) - 1 - n, generation: u32::MAX - n, class };
            let held = Held { start, slab };
            directory.add(held);
            start = held.end();
            all.push(held);
            for known in &all[all.len().saturating_sub(3)..] {
                for at in [known.start, known.start + 1, known.end() - 1] {
                    assert_eq!(directory.locate(at), Some(*known));
                }
            }
            assert_eq!(directory.locate(start), None, "not written yet");
            if n >= 3 {
                let kept: Vec<_> = directory.remaining().collect();
                assert_eq!(kept, all[n as usize - 2..]);
            }
        }
        assert_eq!(directory.locate(0), None, "long gone");
    }
}
