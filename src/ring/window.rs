//! One stream's window: what its writer and all readers share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;
use once_cell::race::OnceBox;

use crate::base::ids::ShardId;
use crate::base::limits::{CHUNK, SLAB_LARGE, SLAB_SMALL, SUBTREE, WINDOW_MIN};
use crate::base::time::Mono;
use crate::ring::arena::Arena;
use crate::ring::bell::Bell;
use crate::ring::chunks::ChunkWriter;
use crate::ring::directory::{Directory, Held};
use crate::ring::marks::{Mark, Marks};
use crate::ring::presence::Presence;
use crate::ring::records::{NoRecord, Record, Records, SubtreeSize, Unsigned};
use crate::ring::sync::{AtomicU64, Ordering};
use crate::ring::timeline::Timeline;
use crate::ring::writer::Writer;

/// The quota from which on a window uses large slabs as well: four of them.
///
/// Four, because a stream of a high bitrate needs at every moment one large slab that is being
/// filled, two that are full, and one that just left the window and that a reader may still
/// pin. Two full slabs are 2 MB: even a reader that looks only every 200 ms (the longest batch
/// delay) is not overtaken up to 80 Mbit/s. A stream above that needs a larger quota.
pub const QUOTA_LARGE: u64 = 4 * SLAB_LARGE as u64;

/// How much of a stream is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most memory of the window in bytes: reserved when it is opened. Raised to
    /// [`WINDOW_MIN`], cut to whole small slabs. One slab of it is kept free for the turn from
    /// one slab to the next.
    pub bytes: u64,
    /// How long bytes are kept, if `bytes` allows. The newest two slabs stay whatever their age.
    pub span: Duration,
}

/// The arena cannot promise the window's quota any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory left for another stream")
    }
}

impl std::error::Error for OutOfMemory {}

/// A window. Its quota and slabs go back to the arena with the last handle on it; slabs that
/// payloads pin follow when those are gone.
pub struct Window {
    arena: Arc<Arena>,
    /// Bytes promised by the arena.
    quota: u64,
    directory: Directory,
    timeline: Timeline,
    marks: ArcSwap<Marks>,
    /// `Marks::count` of the newest snapshot: lets a shard see cheaply that nothing is new.
    mark_count: AtomicU64,
    /// Only of a window that is signed, from when that began. Not std's `OnceLock`: the sanitizer
    /// does not see its atomics, which came compiled with the toolchain.
    records: OnceBox<Records>,
    /// Only of a window that is filled out of order.
    presence: Option<Presence>,
    /// One cache line per shard: arming one does not slow the others.
    bells: Box<[CachePadded<Bell>]>,
}

/// Opens a window for a stream that goes live.
///
/// `first`: stream offset of the first byte, a multiple of [`SUBTREE`] (rounded up if not).
/// `shards`: number of bells, one for each [`ShardId`] below it.
///
/// # Errors
/// [`OutOfMemory`] if the arena's other windows leave less than the quota.
pub fn open(
    arena: &Arc<Arena>,
    settings: &Settings,
    first: u64,
    shards: usize,
) -> Result<(Writer, Arc<Window>), OutOfMemory> {
    build(arena, settings, None, false, first, shards)
}

/// As [`open`], with a record per subtree of `size`, which the writer signs. For a window whose
/// size is not known yet see [`Writer::begin_records`].
///
/// # Errors
/// As [`open`].
pub fn open_signed(
    arena: &Arc<Arena>,
    settings: &Settings,
    size: SubtreeSize,
    first: u64,
    shards: usize,
) -> Result<(Writer, Arc<Window>), OutOfMemory> {
    build(arena, settings, Some(size), false, first, shards)
}

/// As [`open_signed`], for chunks and records that are received in any order.
///
/// # Errors
/// As [`open`].
pub fn open_received(
    arena: &Arc<Arena>,
    settings: &Settings,
    size: SubtreeSize,
    first: u64,
    shards: usize,
) -> Result<(ChunkWriter, Arc<Window>), OutOfMemory> {
    let (writer, window) = build(arena, settings, Some(size), true, first, shards)?;
    Ok((ChunkWriter::new(writer), window))
}

fn build(
    arena: &Arc<Arena>,
    settings: &Settings,
    size: Option<SubtreeSize>,
    received: bool,
    first: u64,
    shards: usize,
) -> Result<(Writer, Arc<Window>), OutOfMemory> {
    debug_assert!(first.is_multiple_of(SUBTREE as u64));
    let first = first.next_multiple_of(SUBTREE as u64);
    let small = SLAB_SMALL as u64;
    let quota = settings.bytes.max(WINDOW_MIN as u64) / small * small;
    if !arena.reserve(quota) {
        return Err(OutOfMemory);
    }
    // No more slabs than the arena has: fits usize.
    let slabs = (quota / small) as usize;
    let signed = |size| Box::new(Records::new(size, quota, first));
    let window = Arc::new(Window {
        arena: Arc::clone(arena),
        quota,
        directory: Directory::new(first, slabs),
        timeline: Timeline::new(),
        marks: ArcSwap::default(),
        mark_count: AtomicU64::new(0),
        records: size.map_or_else(OnceBox::new, |size| OnceBox::with_value(signed(size))),
        presence: received.then(|| Presence::new(quota)),
        bells: (0..shards).map(|_| CachePadded::default()).collect(),
    });
    let writer = Writer::new(Arc::clone(&window), first, settings.span, slabs);
    Ok((writer, window))
}

impl Window {
    /// Stream offset behind the newest published byte; always the end of a TS packet. Acquire:
    /// what lies below may be read.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.directory.head()
    }

    /// Stream offset of the oldest byte still kept.
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.directory.tail()
    }

    /// The marks. A snapshot: by the time it is used, the oldest may lie below the tail.
    #[must_use]
    pub fn marks(&self) -> arc_swap::Guard<Arc<Marks>> {
        self.marks.load()
    }

    /// How many marks were ever added. Unchanged: [`Window::marks`] has nothing new.
    #[must_use]
    pub fn mark_count(&self) -> u64 {
        self.mark_count.load(Ordering::Acquire)
    }

    /// The bell of a shard.
    ///
    /// # Panics
    /// If the window was opened for fewer shards.
    #[must_use]
    pub fn bell(&self, shard: ShardId) -> &Bell {
        &self.bells[usize::from(shard.0)]
    }

    /// When the byte at `at` came in, early by less than a millisecond near the live edge
    /// and by less than a quarter of a second behind it; for a byte older than four minutes a
    /// time that is too late. `None` outside the window.
    #[must_use]
    pub fn ingest_time(&self, at: u64) -> Option<Mono> {
        if at < self.tail() || at >= self.head() {
            return None;
        }
        self.timeline.find(at)
    }

    /// When the newest bytes came in; the clock's origin if none has.
    #[must_use]
    pub fn last_ingest(&self) -> Mono {
        self.timeline.newest()
    }

    /// Stream offset behind the newest subtree that has a record: of a window filled in order,
    /// all below it that were signed are there; of another one ask [`Window::record`]. `None`
    /// if the window has no records. Acquire: the newest record may be read.
    #[must_use]
    pub fn signed_head(&self) -> Option<u64> {
        self.records.get().map(Records::head)
    }

    /// How many chunks are under one signature; `None` if the window has no records (yet).
    #[must_use]
    pub fn subtree_size(&self) -> Option<SubtreeSize> {
        self.records.get().map(Records::size)
    }

    /// A copy of the record of subtree `number`.
    ///
    /// # Errors
    /// [`NoRecord`] says whether it is not there yet or no longer.
    pub fn record(&self, number: u64) -> Result<Record, NoRecord> {
        let record = self.records.get().and_then(|records| records.get(number));
        // Behind the look at the record: who finds it overwritten sees the tail that moved.
        if self.starts_below(number, self.tail()) {
            return Err(NoRecord::Overtaken);
        }
        record.ok_or(NoRecord::Unsigned)
    }

    /// Whether chunk number `chunk` can be read. Of a window filled in order: whether it is
    /// published to its end. It may have left by the time it is asked for.
    #[must_use]
    pub fn has_chunk(&self, chunk: u64) -> bool {
        let start = chunk.checked_mul(CHUNK as u64);
        let Some(start) = start.filter(|start| *start >= self.tail()) else { return false };
        match &self.presence {
            Some(presence) => presence.has(chunk),
            None => start.checked_add(CHUNK as u64).is_some_and(|end| end <= self.head()),
        }
    }

    /// Writer: has records from now on, of subtrees at or behind `first`; false if it had them
    /// before.
    pub(super) fn begin_records(&self, size: SubtreeSize, first: u64) -> bool {
        self.records.set(Box::new(Records::new(size, self.quota, first))).is_ok()
    }

    /// Whether subtree `number` begins below the stream offset `at`.
    pub(super) fn starts_below(&self, number: u64, at: u64) -> bool {
        let size = self.records.get().map_or(SUBTREE as u64, |records| records.size().bytes());
        number.checked_mul(size).is_some_and(|start| start < at)
    }

    /// Writer: adds a record of a subtree that ends at or below `limit`, which must be no more
    /// than a quarter of the quota ahead of the newest slab.
    pub(super) fn sign(&self, number: u64, record: &Record, limit: u64) -> Result<(), Unsigned> {
        let records = self.records.get().ok_or(Unsigned::NoRecords)?;
        let end = number.checked_add(1).and_then(|next| next.checked_mul(records.size().bytes()));
        if end.is_none_or(|end| end > limit) {
            return Err(Unsigned::Early);
        }
        if self.starts_below(number, self.tail()) || !records.put(number, record) {
            return Err(Unsigned::Late);
        }
        Ok(())
    }

    /// Writer: `chunk` was written.
    pub(super) fn set_chunk(&self, chunk: u64) {
        if let Some(presence) = &self.presence {
            presence.set(chunk);
        }
    }

    /// Bytes promised by the arena.
    pub(super) fn quota(&self) -> u64 {
        self.quota
    }

    pub(super) fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    pub(super) fn locate(&self, at: u64) -> Option<Held> {
        self.directory.locate(at)
    }

    /// Writer: a slab that continues the window.
    pub(super) fn add(&self, held: Held) {
        self.directory.add(held);
    }

    /// Writer: everything below `next` was written.
    pub(super) fn publish(&self, next: u64, now: Mono) {
        self.timeline.note(self.directory.head(), now);
        self.directory.publish(next);
    }

    /// Writer: drops the oldest slab.
    pub(super) fn drop_oldest(&self) {
        if let Some(oldest) = self.directory.drop_oldest() {
            self.arena.retire(oldest.slab);
        }
    }

    /// Writer: adds a mark.
    pub(super) fn add_mark(&self, mark: Mark) {
        self.replace_marks(Some(mark));
    }

    /// Writer, after it dropped slabs: drops their marks.
    pub(super) fn trim_marks(&self) {
        if self.marks.load().reach_below(self.tail()) {
            self.replace_marks(None);
        }
    }

    fn replace_marks(&self, new: Option<Mark>) {
        let marks = self.marks.load().next(self.tail(), new);
        let count = marks.count();
        self.marks.store(Arc::new(marks));
        self.mark_count.store(count, Ordering::Release);
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        for held in self.directory.remaining() {
            self.arena.retire(held.slab);
        }
        self.arena.unreserve(self.quota);
    }
}
