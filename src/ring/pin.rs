//! A reader's pin on one slab: what a [`Payload`](crate::base::payload::Payload) refers to.

use std::cell::Cell;
use std::sync::Arc;

use crate::base::limits::{CHUNK, SLAB_LARGE};
use crate::base::payload::Slab;
use crate::ring::arena::Arena;
use crate::ring::directory::Held;

/// Words of one bit per chunk of the largest slab.
const CHUNK_WORDS: usize = (SLAB_LARGE / CHUNK).div_ceil(64);

/// Keeps a slab from being written by a new owner, and the mapping from being unmapped.
///
/// The slab may be the one that the writer is filling, so references cover only what the
/// reader has seen published: the writer writes beyond.
pub(super) struct Pin {
    arena: Arc<Arena>,
    held: Held,
    /// Bytes from the slab's start that are known to be published. Only grows.
    published: Cell<u32>,
    /// One bit per chunk of the slab that was seen to be there, in whatever order.
    chunks: [Cell<u64>; CHUNK_WORDS],
}

impl Pin {
    /// Pins the slab if it is still what `held` says.
    pub(super) fn new(arena: &Arc<Arena>, held: Held) -> Option<Pin> {
        let arena = arena.pin(held.slab).then(|| Arc::clone(arena))?;
        Some(Pin { arena, held, published: Cell::new(0), chunks: Default::default() })
    }

    /// The slab and its place in the stream.
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// The window's head was read with Acquire and is `head`.
    pub(super) fn seen(&self, head: u64) {
        let bytes = head.saturating_sub(self.held.start).min(self.held.slab.class.bytes() as u64);
        // At most a large slab: fits (limits.rs).
        self.published.set(self.published.get().max(bytes as u32));
    }

    /// Presence was read with Acquire and has the chunk that begins `at` bytes into the slab.
    pub(super) fn seen_chunk(&self, at: u32) {
        let chunk = at as usize / CHUNK;
        let word = &self.chunks[chunk / 64];
        word.set(word.get() | 1 << (chunk % 64));
    }

    /// Whether a range lies in chunks all of which were seen to be there.
    fn in_seen_chunks(&self, at: u32, end: u32) -> bool {
        let (first, last) = (at as usize / CHUNK, end.saturating_sub(1) as usize / CHUNK);
        let seen = |chunk: usize| {
            let word = self.chunks.get(chunk / 64);
            word.is_some_and(|word| word.get() & 1 << (chunk % 64) != 0)
        };
        (first..=last).all(seen)
    }
}

impl Slab for Pin {
    fn published(&self, at: u32, len: u32) -> &[u8] {
        let end = at.checked_add(len);
        let seen = |end| end <= self.published.get() || self.in_seen_chunks(at, end);
        assert!(end.is_some_and(seen), "range is not published");
        // SAFETY: self has a pin until it is dropped, which the slice's lifetime forbids; the
        // range is below a head that the reader loaded with Acquire (`seen`), beyond which alone
        // the writer writes while the slab is of this generation; or in chunks each of which it
        // found there with Acquire (`seen_chunk`), which the writer writes once only.
        unsafe { self.arena.slice(self.held.slab, at as usize, len as usize) }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.arena.unpin(self.held.slab);
    }
}
