//! Where verified chunks go: a window, whose numbers go on when those of the stream jump.

use std::sync::Arc;

use crate::base::limits::{CHUNK, SUBTREE_CHUNKS_MAX};
use crate::base::planted::{Plant, is};
use crate::base::time::Mono;
use crate::ring::chunks::{ChunkWriter, Refused};
use crate::ring::records::{Record, SubtreeSize, Unsigned};
use crate::ring::window::Window;

/// A window and its numbering.
///
/// A window's numbers are its own: those on the wire are larger by `shift`. When the relay was
/// started again, the ids between its old life and its new one do not exist; a window has no such
/// gaps, so the shift grows, and players see one stream without a hole, with a discontinuity.
pub struct Store {
    writer: ChunkWriter,
    size: SubtreeSize,
    /// Chunk ids on the wire less those in the window; a multiple of the largest subtree.
    shift: u64,
    /// Behind the furthest chunk that was written, in the window's numbers.
    top: u64,
    /// The first id on the wire since the shift was last changed.
    floor: u64,
}

impl Store {
    /// Fills the window of `writer`, in which nothing was written yet, from chunk `first` on,
    /// which begins a largest subtree. `None` if the window's numbers are beyond it already.
    #[must_use]
    pub fn new(writer: ChunkWriter, size: SubtreeSize, first: u64) -> Option<Store> {
        debug_assert!(first.is_multiple_of(SUBTREE_CHUNKS_MAX as u64));
        let shift = first.checked_sub(writer.next())?;
        Some(Store { writer, size, shift, top: 0, floor: first })
    }

    /// Chunks under one signature.
    #[must_use]
    pub fn size(&self) -> SubtreeSize {
        self.size
    }

    /// The window.
    #[must_use]
    pub fn window(&self) -> &Arc<Window> {
        self.writer.window()
    }

    /// The writer, for publishing and marks.
    pub fn writer(&mut self) -> &mut ChunkWriter {
        &mut self.writer
    }

    /// The first chunk that is missing, by its id on the wire.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.writer.next() + self.shift
    }

    /// The first id that the window's numbers stand for: what lies before it in the window had
    /// other ids, which are not told any more.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The first chunk that lies too far ahead to be taken now.
    #[must_use]
    pub fn ahead(&self) -> u64 {
        self.writer.ahead() + self.shift
    }

    /// Stream offset on the wire of an offset in the window.
    #[must_use]
    pub fn wire_offset(&self, local: u64) -> u64 {
        local + self.shift * CHUNK as u64
    }

    /// Offset in the window of a stream offset on the wire; the window's first one for what
    /// lies before the last jump.
    #[must_use]
    pub fn local_offset(&self, wire: u64) -> u64 {
        wire.saturating_sub(self.shift * CHUNK as u64)
    }

    /// Whether chunk `id` is there, or was played already.
    #[must_use]
    pub fn has(&self, id: u64) -> bool {
        let Some(chunk) = id.checked_sub(self.shift) else { return true };
        chunk < self.writer.next() || self.window().has_chunk(chunk)
    }

    /// Writes a verified chunk.
    ///
    /// # Errors
    /// As [`ChunkWriter::write_chunk`].
    pub fn write(&mut self, now: Mono, id: u64, bytes: &[u8; CHUNK]) -> Result<(), Refused> {
        let chunk = id.checked_sub(self.shift).ok_or(Refused::Late)?;
        if is(Plant::WrongByte) && id % 100 == 7 {
            let mut wrong = *bytes;
            wrong[CHUNK / 2] ^= 1;
            return self.writer.write_chunk(now, chunk, &wrong);
        }
        self.writer.write_chunk(now, chunk, bytes)?;
        self.top = self.top.max(chunk + 1);
        Ok(())
    }

    /// Fills the first missing chunk with bytes that nothing proves, if it is chunk `id`.
    ///
    /// # Errors
    /// As [`ChunkWriter::fill`]; `Late` if that chunk is there, `Ahead` if others come first.
    pub fn fill(&mut self, now: Mono, id: u64, bytes: &[u8; CHUNK]) -> Result<(), Refused> {
        match id.cmp(&self.next()) {
            std::cmp::Ordering::Less => Err(Refused::Late),
            std::cmp::Ordering::Greater => Err(Refused::Ahead),
            std::cmp::Ordering::Equal => self.writer.fill(now, bytes),
        }
    }

    /// Adds the record of subtree `number`, as numbered on the wire.
    ///
    /// # Errors
    /// As [`ChunkWriter::sign`].
    pub fn sign(&mut self, number: u64, record: &Record) -> Result<(), Unsigned> {
        let shift = self.shift / self.size.chunks() as u64;
        let number = number.checked_sub(shift).ok_or(Unsigned::Late)?;
        self.writer.sign(number, record)
    }

    /// The first chunk behind the hole at [`Store::next`] that is there, up to `limit`.
    #[must_use]
    pub fn beyond(&self, limit: u64) -> Option<u64> {
        (self.next()..limit).find(|id| self.has(*id))
    }

    /// Gives up what is missing below chunk `id`. Returns how many were lost.
    pub fn give_up(&mut self, now: Mono, id: u64) -> u64 {
        let until = id.saturating_sub(self.shift);
        self.writer.give_up(now, until)
    }

    /// Goes on at chunk `id`, a multiple of the largest subtree, because the ids before it do
    /// not exist. What is open is completed with null packets. Returns whether it did; else the
    /// window has no room yet.
    pub fn jump(&mut self, now: Mono, id: u64) -> bool {
        debug_assert!(id.is_multiple_of(SUBTREE_CHUNKS_MAX as u64));
        // What lies behind a hole is played, the hole is given up: no number is used twice.
        let end = self.writer.next().max(self.top);
        let open = end.next_multiple_of(SUBTREE_CHUNKS_MAX as u64);
        self.writer.give_up(now, open);
        if self.writer.next() < open || id < open {
            return false;
        }
        (self.shift, self.floor) = (id - self.writer.next(), id);
        true
    }
}
