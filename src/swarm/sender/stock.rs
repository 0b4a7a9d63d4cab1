//! What there is to send: of a relay whole subtrees, of a forwarder what has come so far.

use std::ops::Range;
use std::time::Duration;

use crate::base::time::Mono;

/// What is known of the stream at the moment.
#[derive(Clone, Debug)]
pub struct Source {
    /// Chunks of a subtree.
    pub size: u64,
    /// Subtrees that may be sent: signed at most 20 s ago, and still there. At a forwarder: up
    /// to the newest whose hash datagram was verified, though some may be missing.
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

    /// The bits of all chunks of a subtree.
    #[must_use]
    pub fn full(&self) -> u16 {
        full(self.size)
    }

    pub(super) fn chunks(&self) -> Range<u64> {
        self.subtrees.start * self.size..self.subtrees.end * self.size
    }

    /// How many subtrees play in `time`; at least two.
    pub(super) fn trains_in(&self, time: Duration) -> u64 {
        // Both are short: a division of 128 bits takes ten times as long.
        let [time, train] = [time, self.train].map(|time| time.as_nanos() as u64);
        (time / train.max(1)).max(2)
    }
}

/// What a sender may take from.
pub trait Stock {
    /// What is known of the stream.
    fn source(&self) -> &Source;

    /// The chunks of a subtree that can be sent now, one bit each. None of them before its hash
    /// datagram can be sent.
    fn chunks(&self, subtree: u64) -> u16;

    /// Whether the hash datagram of a subtree can be sent.
    fn proven(&self, subtree: u64) -> bool {
        self.chunks(subtree) != 0
    }

    /// Whether anything may be sent now, announcements apart.
    fn is_open(&self) -> bool {
        true
    }

    /// The most chunks that are sent in one go.
    fn run(&self) -> u32 {
        16
    }

    /// From when on a neighbour may be told of what is new, if whoever holds its link tells all
    /// of them at the same time; `None`: each has a time of its own.
    fn tells_from(&self) -> Option<Mono> {
        None
    }

    /// Whether there is room for questions of those who are not fed.
    fn has_spare(&self) -> bool {
        true
    }

    /// Whether there will ever be any: who can send nothing need tell nobody what he has.
    fn is_shared(&self) -> bool {
        true
    }
}

/// A relay has each subtree as a whole.
impl Stock for Source {
    fn source(&self) -> &Source {
        self
    }

    fn chunks(&self, subtree: u64) -> u16 {
        if self.subtrees.contains(&subtree) { self.full() } else { 0 }
    }
}

/// The bits of all of `size` chunks.
pub(super) fn full(size: u64) -> u16 {
    ((1u32 << size.min(16)) - 1) as u16
}
