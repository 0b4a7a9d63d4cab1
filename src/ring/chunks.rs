//! The one who fills a window with chunks in any order: of a stream received from others.

use std::sync::Arc;

use crate::base::limits::CHUNK;
use crate::base::time::Mono;
use crate::ring::marks::Mark;
use crate::ring::records::{Record, Unsigned};
use crate::ring::window::Window;
use crate::ring::writer::{PADDING, Writer};

/// Why a chunk was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It lies below what is contiguous: it came twice, was given up, or has left the window.
    Late,
    /// It is there already.
    Known,
    /// It is more than a quarter of the window's quota ahead of the head.
    Ahead,
    /// Pins, or bytes not published, keep every spare slab. Trying again later is right.
    Starved,
}

/// The writer of a window that is filled out of order: exactly one, moved from thread to thread,
/// never shared.
///
/// A chunk can be read by its number ([`crate::ring::reader::Reader::read_chunk`]) as soon as it
/// was written, by stream offset when [`ChunkWriter::publish`] moved the head: to the first
/// chunk that is missing. It trusts its caller: chunks are to be verified before. It never waits.
pub struct ChunkWriter(Writer);

impl ChunkWriter {
    /// `writer` is that of a window with presence, and nothing was written yet.
    pub(super) fn new(writer: Writer) -> ChunkWriter {
        ChunkWriter(writer)
    }

    /// What it writes.
    #[must_use]
    pub fn window(&self) -> &Arc<Window> {
        self.0.window()
    }

    /// Number of the first chunk that is missing.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.0.next() / CHUNK as u64
    }

    /// Number of the first chunk that lies too far ahead to be taken now.
    #[must_use]
    pub fn ahead(&self) -> u64 {
        self.limit() / CHUNK as u64
    }

    /// Writes chunk number `chunk`, which readers of chunks see at once.
    ///
    /// # Errors
    /// [`Refused`] says why nothing was written.
    pub fn write_chunk(
        &mut self,
        now: Mono,
        chunk: u64,
        bytes: &[u8; CHUNK],
    ) -> Result<(), Refused> {
        if chunk < self.next() {
            return Err(Refused::Late);
        }
        if self.window().has_chunk(chunk) {
            return Err(Refused::Known);
        }
        self.place(now, chunk, bytes)?;
        self.window().set_chunk(chunk);
        self.advance();
        Ok(())
    }

    /// Gives up what is missing below chunk number `until`: null packets take its place in the
    /// bytes, and it never counts as there. Returns how many chunks were lost; look at
    /// [`ChunkWriter::next`] for how far it came: not beyond what [`Refused`] would stop. Then
    /// publish, and add the mark of a discontinuity.
    pub fn give_up(&mut self, now: Mono, until: u64) -> u64 {
        let mut lost = 0;
        let padding = PADDING.first_chunk::<CHUNK>();
        while let Some(padding) = padding.filter(|_| self.next() < until) {
            let next = self.next();
            if self.place(now, next, padding).is_err() {
                break;
            }
            lost += 1;
            self.0.skip(CHUNK as u64);
            self.advance();
        }
        lost
    }

    /// Fills the first chunk that is missing with bytes that nothing proves: they are played, and
    /// like padding they never count as there, so nobody passes them on.
    ///
    /// # Errors
    /// [`Refused`] says why nothing was written.
    pub fn fill(&mut self, now: Mono, bytes: &[u8; CHUNK]) -> Result<(), Refused> {
        self.place(now, self.next(), bytes)?;
        self.0.skip(CHUNK as u64);
        self.advance();
        Ok(())
    }

    /// Moves the head to the first chunk that is missing and drops what is older than the span.
    /// Then ask the bells.
    pub fn publish(&mut self, now: Mono) {
        self.0.publish(now);
    }

    /// As [`ChunkWriter::publish`], but not beyond stream offset `until`, cut to whole packets:
    /// what is there sooner than it is to be played waits behind the head.
    pub fn publish_below(&mut self, now: Mono, until: u64) {
        self.0.publish_below(now, until);
    }

    /// Adds a mark, as [`Writer::mark`] does.
    pub fn mark(&mut self, mark: Mark) {
        self.0.mark(mark);
    }

    /// Adds the record of subtree `number`, before or after its chunks, in any order.
    ///
    /// # Errors
    /// [`Unsigned`] says why it was not added.
    pub fn sign(&mut self, number: u64, record: &Record) -> Result<(), Unsigned> {
        let limit = self.limit();
        self.window().sign(number, record, limit)
    }

    /// Copies to where a chunk belongs that is missing and that nobody sees yet.
    fn place(&mut self, now: Mono, chunk: u64, bytes: &[u8; CHUNK]) -> Result<(), Refused> {
        let at = chunk.checked_mul(CHUNK as u64).ok_or(Refused::Ahead)?;
        if at.checked_add(CHUNK as u64).is_none_or(|end| end > self.limit()) {
            return Err(Refused::Ahead);
        }
        if self.0.write_at(now, at, bytes) { Ok(()) } else { Err(Refused::Starved) }
    }

    /// Goes on over chunks that came before those in front of them.
    fn advance(&mut self) {
        while self.window().has_chunk(self.next()) {
            self.0.skip(CHUNK as u64);
        }
    }

    /// Stream offset beyond which nothing is taken: what came in last and is contiguous must
    /// not leave the window for what is far ahead.
    fn limit(&self) -> u64 {
        self.window().head() + self.window().quota() / 4
    }

    /// Bytes of the slabs that the window holds.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> u64 {
        self.0.held_bytes()
    }
}

const _: () = {
    const fn moves_between_threads<T: Send>() {}
    moves_between_threads::<ChunkWriter>();
};
