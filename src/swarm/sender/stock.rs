//! What there is to send.

use std::ops::Range;
use std::time::Duration;

/// What is known of the stream at the moment.
#[derive(Clone, Debug)]
pub struct Source {
    /// Chunks of a subtree.
    pub size: u64,
    /// Subtrees that may be sent: signed at most 20 s ago, and still there.
    pub subtrees: Range<u64>,
    /// How long the chunks of one subtree play.
    pub train: Duration,
    /// Chunks of the discard window: the most that may wait to be answered.
    pub window: u64,
}

impl Source {
    /// The newest subtree.
    #[must_use]
    pub fn newest(&self) -> Option<u64> {
        self.subtrees.end.checked_sub(1).filter(|newest| self.subtrees.contains(newest))
    }

    pub(super) fn chunks(&self) -> Range<u64> {
        self.subtrees.start * self.size..self.subtrees.end * self.size
    }
}

/// What there is to send.
pub trait Stock {
    /// What is known of the stream.
    fn source(&self) -> &Source;

    /// The chunks of a subtree that can be sent now, a bit each.
    fn chunks(&self, subtree: u64) -> u16;

    /// Whether the hash datagram of a subtree can be sent.
    fn proven(&self, subtree: u64) -> bool;
}

/// Who signs has whole subtrees.
impl Stock for Source {
    fn source(&self) -> &Source {
        self
    }

    fn chunks(&self, subtree: u64) -> u16 {
        if self.proven(subtree) { all(self.size) } else { 0 }
    }

    fn proven(&self, subtree: u64) -> bool {
        self.subtrees.contains(&subtree)
    }
}

/// The bits of all chunks of a subtree of `size`.
pub(super) fn all(size: u64) -> u16 {
    (u32::MAX >> (32 - size.clamp(1, 16))) as u16
}
