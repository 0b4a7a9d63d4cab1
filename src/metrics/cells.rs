//! The cells of one shard: written by that shard alone, read by anybody.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;

use crate::metrics::table::{CELLS, Cell};

/// One shard's values of every series in the table.
///
/// There is one writer, the shard, so an increment is a load and a store and never a locked
/// instruction. The padding keeps two shards' blocks off one cache line.
#[derive(Debug)]
pub struct Cells {
    values: CachePadded<[AtomicU64; CELLS]>,
}

impl Default for Cells {
    fn default() -> Cells {
        Cells { values: CachePadded::new([const { AtomicU64::new(0) }; CELLS]) }
    }
}

impl Cells {
    /// Adds `n`. Only the shard that owns the block may call it.
    pub fn add(&self, cell: Cell, n: u64) {
        let value = &self.values[cell as usize];
        value.store(value.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes `n` off a gauge, not below zero. Only the owner may call it.
    pub fn sub(&self, cell: Cell, n: u64) {
        let value = &self.values[cell as usize];
        value.store(value.load(Relaxed).saturating_sub(n), Relaxed);
    }

    /// Sets a gauge. Only the owner may call it.
    pub fn set(&self, cell: Cell, n: u64) {
        self.values[cell as usize].store(n, Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn get(&self, cell: Cell) -> u64 {
        self.values[cell as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_never_wraps_below_zero() {
        let cells = Cells::default();
        cells.add(Cell::HttpViewers, 1);
        cells.sub(Cell::HttpViewers, 2);
        assert_eq!(cells.get(Cell::HttpViewers), 0);
    }
}
