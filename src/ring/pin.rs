//! A reader's pin on one slab: what a [`Payload`](crate::base::payload::Payload) refers to.

use std::cell::Cell;
use std::sync::Arc;

use crate::base::payload::Slab;
use crate::ring::arena::Arena;
use crate::ring::directory::Held;

/// Keeps a slab from being written by a new owner, and the mapping from being unmapped.
///
/// The slab may be the one that the writer is filling, so references cover only what the
/// reader has seen published: the writer writes beyond.
pub(super) struct Pin {
    arena: Arc<Arena>,
    held: Held,
    /// Bytes from the slab's start that are known to be published. Only grows.
    published: Cell<u32>,
}

impl Pin {
    /// Pins the slab if it is still what `held` says.
    pub(super) fn new(arena: &Arc<Arena>, held: Held) -> Option<Pin> {
        let arena = arena.pin(held.slab).then(|| Arc::clone(arena))?;
        Some(Pin { arena, held, published: Cell::new(0) })
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
}

impl Slab for Pin {
    fn published(&self, at: u32, len: u32) -> &[u8] {
        let end = at.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.published.get()), "range is not published");
        // SAFETY: self has a pin until it is dropped, which the slice's lifetime forbids; the
        // range is below a head that the reader loaded with Acquire (`seen`), and the writer
        // writes only beyond it while the slab is of this generation.
        unsafe { self.arena.slice(self.held.slab, at as usize, len as usize) }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.arena.unpin(self.held.slab);
    }
}
