//! The one who fills a window. It never waits: without a free slab it takes no bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::base::limits::{CHUNK, SUBTREE, TS_PACKET};
use crate::base::time::Mono;
use crate::ring::directory::Held;
use crate::ring::marks::Mark;
use crate::ring::pool::Class;
use crate::ring::records::{Record, SubtreeSize, Unsigned};
use crate::ring::window::{QUOTA_LARGE, Window};

/// A small slab that was full in less is followed by a large one (above 1 Mbit/s).
const FAST: Duration = Duration::from_millis(500);

/// A large slab that took longer is followed by a small one (below 0.67 Mbit/s). The gap to
/// [`FAST`] keeps a stream near the edge from changing back and forth.
const SLOW: Duration = Duration::from_secs(12);

/// The slabs that stay whatever their age: the one being filled and the one before.
const KEEP: usize = 2;

/// One subtree of null packets.
pub(super) static PADDING: [u8; SUBTREE] = padding();

/// A slab of the window and when its bytes came in.
struct Filled {
    held: Held,
    first: Mono,
    last: Mono,
}

/// The writer of a window: exactly one, moved from thread to thread, never shared.
///
/// Bytes go through three steps: [`Writer::append`] copies them behind the head, where nobody
/// sees them; [`Writer::publish`] moves the head; the oldest slabs leave by quota or age.
pub struct Writer {
    window: Arc<Window>,
    /// Stream offset of the next byte.
    next: u64,
    span: Duration,
    /// The window's slabs, oldest first; the last one is being filled. Full capacity from the
    /// start.
    slabs: VecDeque<Filled>,
    /// Their bytes.
    bytes: u64,
}

impl Writer {
    /// A writer for a window without slabs that never holds more than `slabs`.
    pub(super) fn new(window: Arc<Window>, next: u64, span: Duration, slabs: usize) -> Writer {
        Writer { window, next, span, slabs: VecDeque::with_capacity(slabs), bytes: 0 }
    }

    /// What it writes.
    #[must_use]
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// Stream offset of the next byte; at or beyond the head.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Copies whole packets (a part of a packet at the end is left). Nobody sees them before
    /// [`Writer::publish`]. Returns how many bytes were taken, a multiple of 188: fewer than
    /// given means starved, either because pins keep every spare slab or because more than the
    /// window holds was appended without publishing. Never waits; trying again later is right.
    pub fn append(&mut self, now: Mono, packets: &[u8]) -> usize {
        let whole = packets.len() - packets.len() % TS_PACKET;
        let mut rest = &packets[..whole];
        while !rest.is_empty() {
            let taken = self.fill(now, rest);
            if taken == 0 && !self.turn(now) {
                break;
            }
            rest = &rest[taken..];
        }
        whole - rest.len()
    }

    /// Shows everything appended to the readers, as come in at `now`, and drops what is older
    /// than the span. Then ask the bells.
    pub fn publish(&mut self, now: Mono) {
        self.publish_below(now, self.next);
    }

    /// Shows what was written below stream offset `until`, whole packets only. The head never
    /// goes back.
    pub(super) fn publish_below(&mut self, now: Mono, until: u64) {
        let until = self.next.min(until - until % TS_PACKET as u64);
        if until > self.window.head() {
            self.window.publish(until, now);
        }
        self.drop_while(|writer| {
            writer.slabs.front().is_some_and(|oldest| now.since(oldest.last) > writer.span)
        });
    }

    /// Adds a mark about a published packet, or about the next one: `mark.at <= head()`. Ask
    /// the bells afterwards.
    pub fn mark(&mut self, mark: Mark) {
        debug_assert!(mark.at <= self.window.head(), "a mark beyond the head");
        self.window.add_mark(mark);
    }

    /// Begins to keep a record per subtree of `size`, in a window that was opened without: for
    /// subtrees from stream offset `from` on, as far as they are still there. Takes memory beside
    /// the arena: [`SubtreeSize::index_bytes`]. False if the window has records already.
    pub fn begin_records(&mut self, size: SubtreeSize, from: u64) -> bool {
        let first = from.max(self.window.tail()).next_multiple_of(size.bytes());
        self.window.begin_records(size, first)
    }

    /// The bytes of chunk number `chunk`; `None` if it is not published to its end, or has left.
    #[must_use]
    pub fn chunk(&self, chunk: u64) -> Option<&[u8]> {
        let at = chunk.checked_mul(CHUNK as u64)?;
        let published = at.checked_add(CHUNK as u64)? <= self.window.head();
        // What is asked for is mostly new.
        let filled = self.slabs.iter().rev().find(|filled| filled.held.start <= at);
        let held = filled.filter(|_| published)?.held;
        let offset = (at - held.start) as usize;
        // SAFETY: the slab is in `slabs`, so the window has a pin on it until this writer, which
        // is borrowed, retires it; the chunk lies in it as a whole (limits.rs) and below the
        // head, beyond which alone this writer writes.
        Some(unsafe { self.window.arena().slice(held.slab, offset, CHUNK) })
    }

    /// Adds the record of subtree `number`, whose bytes must be published. In order; what is left
    /// out stays unsigned. Ask the bells afterwards.
    ///
    /// # Errors
    /// [`Unsigned`] says why it was not added.
    pub fn sign(&mut self, number: u64, record: &Record) -> Result<(), Unsigned> {
        if self.window.signed_head().is_some_and(|head| self.window.starts_below(number, head)) {
            return Err(Unsigned::Late);
        }
        self.window.sign(number, record, self.window.head())
    }

    /// Completes the open subtree of the largest size with null packets and publishes. Returns
    /// the bytes added, fewer if starved.
    pub fn pad(&mut self, now: Mono) -> u64 {
        self.pad_to(now, SUBTREE)
    }

    /// As [`Writer::pad`], for subtrees of `bytes` bytes: whole chunks, as many as
    /// [`SubtreeSize`] knows.
    pub fn pad_to(&mut self, now: Mono, bytes: usize) -> u64 {
        debug_assert!(bytes <= SUBTREE && bytes.is_multiple_of(CHUNK));
        let open = (self.next % bytes as u64) as usize;
        let missing = if open == 0 { 0 } else { bytes - open };
        let added = self.append(now, &PADDING[..missing]);
        self.publish(now);
        added as u64
    }

    /// Copies `bytes`, which cross no multiple of the chunk size, to `at`, which is at or beyond
    /// the first missing byte, taking slabs as needed; false if there is none.
    pub(super) fn write_at(&mut self, now: Mono, at: u64, bytes: &[u8; CHUNK]) -> bool {
        debug_assert!(at >= self.next && at.is_multiple_of(CHUNK as u64));
        while self.end() <= at {
            if !self.turn(now) {
                return false;
            }
        }
        // What is received is mostly near the newest slab.
        let Some(filled) = self.slabs.iter_mut().rev().find(|f| f.held.start <= at) else {
            return false;
        };
        let offset = (at - filled.held.start) as usize;
        // SAFETY: the slab is in `slabs`, so this window claimed it and has not retired it; the
        // window has one writer, which is borrowed mutably; the range begins at or beyond every
        // head ever published, and its chunk was never shown by presence (`ChunkWriter` asks
        // before, and shows it after).
        unsafe { self.window.arena().write(filled.held.slab, offset, bytes) };
        filled.last = now;
        true
    }

    /// Counts `bytes` bytes from the first missing one on as there: they were written.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.next += bytes;
    }

    /// Stream offset behind the newest slab.
    fn end(&self) -> u64 {
        self.slabs.back().map_or(self.next, |filled| filled.held.end())
    }

    /// Copies what fits the slab being filled.
    fn fill(&mut self, now: Mono, bytes: &[u8]) -> usize {
        let Some(filled) = self.slabs.back_mut() else { return 0 };
        let room = filled.held.end() - self.next;
        let taken = bytes.len().min(room as usize);
        let at = (self.next - filled.held.start) as usize;
        // SAFETY: the slab is in `slabs`, so this window claimed it and has not retired it; the
        // window has one writer, which is borrowed mutably; the range begins at `next`, at or
        // beyond every head ever published.
        unsafe { self.window.arena().write(filled.held.slab, at, &bytes[..taken]) };
        if taken > 0 {
            filled.last = now;
            self.next += taken as u64;
        }
        taken
    }

    /// Goes on to a new slab; false if there is none.
    fn turn(&mut self, now: Mono) -> bool {
        let class = self.next_class();
        if !self.make_room(class.bytes() as u64) {
            return false;
        }
        let (arena, start) = (self.window.arena(), self.end());
        // Small slabs of other windows can lie in every frame; then small has to do.
        let claimed = arena.claim(class, start).or_else(|| match class {
            Class::Large => arena.claim(Class::Small, start),
            Class::Small => None,
        });
        let Some(slab) = claimed else { return false };
        let held = Held { start, slab };
        self.window.add(held);
        self.slabs.push_back(Filled { held, first: now, last: now });
        self.bytes += slab.class.bytes() as u64;
        true
    }

    /// The size that suits the stream, judged by how long the last slab took to fill.
    fn next_class(&self) -> Class {
        let Some(filled) = self.slabs.back() else { return Class::Small };
        if self.window.quota() < QUOTA_LARGE {
            return Class::Small;
        }
        let took = filled.last.since(filled.first);
        match filled.held.slab.class {
            Class::Small if took < FAST => Class::Large,
            Class::Large if took > SLOW => Class::Small,
            same => same,
        }
    }

    /// Drops the oldest slabs until one of `size` fits the quota, with as much to spare: what
    /// is dropped now and still pinned has a whole slab's time to come free.
    fn make_room(&mut self, size: u64) -> bool {
        let quota = self.window.quota();
        self.drop_while(|writer| writer.bytes + 2 * size > quota);
        self.bytes + size <= quota
    }

    /// Drops the oldest slabs, and then their marks, as long as `more` says so and it may.
    fn drop_while(&mut self, more: impl Fn(&Writer) -> bool) {
        let before = self.slabs.len();
        while more(self) && self.drop_oldest() {}
        if self.slabs.len() < before {
            self.window.trim_marks();
        }
    }

    /// Drops the oldest slab, unless it is one of the last two or holds unpublished bytes.
    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.slabs.front() else { return false };
        if self.slabs.len() <= KEEP || oldest.held.end() > self.window.head() {
            return false;
        }
        self.window.drop_oldest();
        self.bytes -= oldest.held.slab.class.bytes() as u64;
        self.slabs.pop_front();
        true
    }

    /// Bytes of the slabs that the window holds.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> u64 {
        self.bytes
    }
}

/// Null packets: PID 0x1fff, payload only, continuity counter 0 (ISO/IEC 13818-1, 2.4.3.3: the
/// counter of null packets is undefined).
const fn padding() -> [u8; SUBTREE] {
    let mut bytes = [0xff; SUBTREE];
    let mut at = 0;
    while at < SUBTREE {
        bytes[at] = 0x47;
        bytes[at + 1] = 0x1f;
        bytes[at + 2] = 0xff;
        bytes[at + 3] = 0x10;
        at += TS_PACKET;
    }
    bytes
}

const _: () = {
    const fn moves_between_threads<T: Send>() {}
    const fn is_shared<T: Send + Sync>() {}
    moves_between_threads::<Writer>();
    is_shared::<Window>();
};
