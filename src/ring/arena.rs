//! The arena: all stream memory of the process, one mapping of slabs.
//!
//! ```text
//! 0          page of the header: magic, version, sizes, counts
//! 4096       one word per small slab (a large slab uses the word of its first unit)
//! slabs_at   the slabs, frame after frame
//! ```
//!
//! Everything in the mapping is an offset, never a pointer, and at every instant the header and
//! the words are valid: a process that finds the mapping after a `kill -9` can read it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::limits::{SLAB_LARGE, SLAB_SMALL, SLAB_SPLIT};
use crate::ring::map::Mapping;
use crate::ring::mirror::Mirror;
use crate::ring::poison;
use crate::ring::pool::{Class, Pool, SlabRef};
use crate::ring::word::Word;

const PAGE: usize = 4096;
const MAGIC: [u8; 8] = *b"headwatr";
const VERSION: u32 = 1;
/// Unit numbers must leave one bit of 32 for the class (see the directory).
const FRAMES_MAX: u64 = 1 << 27;

/// The first page. Written once, before anybody else can see the mapping.
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: u32,
    slab_small: u32,
    slab_large: u32,
    frames: u32,
    words_at: u64,
    slabs_at: u64,
}

/// The memory of all windows. Shared by `Arc`; unmapped when the last window and the last pin
/// are gone.
pub struct Arena {
    map: Mapping,
    frames: u32,
    /// Offset of the first slab in the mapping.
    slabs_at: usize,
    pool: Mutex<Pool>,
    reserved: AtomicU64,
    in_use: AtomicU64,
    /// Only in a simulator.
    mirror: Option<Mirror>,
    /// Loom's atomics are no plain words, so under loom they cannot live in the mapping.
    #[cfg(headwater_loom)]
    words: Box<[Word]>,
}

impl Arena {
    /// Maps an arena of `bytes` bytes, rounded up to whole large slabs, at least two: windows
    /// that share `bytes` among them, each rounded down, always fit.
    /// Blocks while the kernel provides every page.
    ///
    /// # Errors
    /// What the kernel says, in particular that there is no memory.
    pub fn create(bytes: u64) -> io::Result<Arc<Arena>> {
        Arena::build(bytes, Mapping::create, None)
    }

    /// As [`Arena::create`], but memory is taken when it is first written to, and the process
    /// dies if there is none; and what windows of one stream hold alike is there once, of its
    /// first `alike` bytes. For thousands of windows, in a simulator: it may be larger than the
    /// machine's memory.
    ///
    /// # Errors
    /// What the kernel says of an address range that it does not give.
    pub fn create_lazy(bytes: u64, alike: u64) -> io::Result<Arc<Arena>> {
        let alike = usize::try_from(alike).map_err(|_| io::ErrorKind::InvalidInput)?;
        Arena::build(bytes, Mapping::create_lazy, Some(alike))
    }

    fn build(
        bytes: u64,
        map: fn(usize) -> io::Result<Mapping>,
        alike: Option<usize>,
    ) -> io::Result<Arc<Arena>> {
        let frames = bytes.div_ceil(SLAB_LARGE as u64).max(2);
        if frames > FRAMES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let units = frames as usize * SLAB_SPLIT;
        let slabs_at = PAGE + (units * size_of::<u64>()).next_multiple_of(PAGE);
        let map = map(slabs_at + units * SLAB_SMALL)?;
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            slab_small: SLAB_SMALL as u32,
            slab_large: SLAB_LARGE as u32,
            frames: frames as u32,
            words_at: PAGE as u64,
            slabs_at: slabs_at as u64,
        };
        let place = map.at(0, size_of::<Header>()).cast::<Header>();
        // SAFETY: `at` gave the size of a header inside the new mapping, page aligned; nobody
        // else has the mapping before this function returns.
        unsafe { place.write(header) };
        poison::hide(map.at(slabs_at, units * SLAB_SMALL), units * SLAB_SMALL);
        Ok(Arc::new(Arena {
            map,
            frames: frames as u32,
            slabs_at,
            pool: Mutex::new(Pool::new(frames as u32)),
            reserved: AtomicU64::new(0),
            in_use: AtomicU64::new(0),
            mirror: alike.map(|len| Mirror::create(len, units)).transpose()?,
            #[cfg(headwater_loom)]
            words: (0..units).map(|_| Word::new()).collect(),
        }))
    }

    /// Bytes of all slabs.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.frames) * SLAB_LARGE as u64
    }

    /// Bytes promised to windows.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Bytes of slabs that windows hold or that readers' pins keep.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Promises `bytes` to a window, if that much is not promised yet.
    pub(super) fn reserve(&self, bytes: u64) -> bool {
        let order = Ordering::Relaxed;
        let add = |now: u64| now.checked_add(bytes).filter(|sum| *sum <= self.bytes());
        self.reserved.fetch_update(order, order, add).is_ok()
    }

    /// Takes a promise back.
    pub(super) fn unreserve(&self, bytes: u64) {
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A slab for the caller alone to write, with one pin, for stream bytes from `start` on.
    /// Waits for the pool's lock only.
    pub(super) fn claim(&self, class: Class, start: u64) -> Option<SlabRef> {
        let slab = self.pool().claim(class, self.words())?;
        if let Some(mirror) = &self.mirror {
            mirror.claim(slab.unit, start, class.bytes());
        }
        self.in_use.fetch_add(class.bytes() as u64, Ordering::Relaxed);
        Some(slab)
    }

    /// Gives up the pin of [`Arena::claim`] and lets the slab be claimed again once readers
    /// have given up theirs.
    pub(super) fn retire(&self, slab: SlabRef) {
        self.unpin(slab);
        self.pool().give_back(slab, self.words());
    }

    /// A reader's pin; false if the slab is no longer what `slab` says.
    pub(super) fn pin(&self, slab: SlabRef) -> bool {
        self.words()[slab.unit as usize].pin(slab.generation)
    }

    /// Gives one pin up.
    pub(super) fn unpin(&self, slab: SlabRef) {
        // Nobody may claim the slab between the last pin's end and its being hidden.
        #[cfg(headwater_asan)]
        let _pool = self.pool();
        if self.words()[slab.unit as usize].unpin() {
            #[cfg(headwater_asan)]
            poison::hide(self.map.at(self.slab_at(slab), slab.class.bytes()), slab.class.bytes());
            self.in_use.fetch_sub(slab.class.bytes() as u64, Ordering::Relaxed);
        }
    }

    /// Copies `bytes` into a slab at `at`.
    ///
    /// # Safety
    /// The caller claimed `slab`, has not retired it, is the only one who writes it, and has
    /// not published any byte of the range: no reader has or can get a reference to it.
    ///
    /// # Panics
    /// If the range is not inside the slab.
    pub(super) unsafe fn write(&self, slab: SlabRef, at: usize, bytes: &[u8]) {
        assert!(at.checked_add(bytes.len()).is_some_and(|end| end <= slab.class.bytes()));
        if let Some(mirror) = &self.mirror {
            let (len, unit) = (slab.class.bytes(), slab.unit);
            let own = (self.map.at(self.slab_at(slab), len), len);
            // SAFETY: this function's contract is the mirror's; `own` is the slab's place in the
            // mapping, as long as the slab.
            if unsafe { mirror.write(unit, at, bytes, own) } {
                return;
            }
        }
        let to = self.map.at(self.slab_at(slab) + at, bytes.len());
        poison::show(to, bytes.len());
        // SAFETY: the range is inside the slab and the mapping (both asserted), and by this
        // function's contract nobody reads or writes it during the copy. `bytes` is no part
        // of it: a reference into the mapping covers published bytes only.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
    }

    /// The bytes `at .. at + len` of a slab.
    ///
    /// # Safety
    /// The caller has a pin on `slab` that lasts as long as the slice, and has seen the range
    /// published (Acquire of a head at or beyond its end): it is not written again before the
    /// pin is gone.
    ///
    /// # Panics
    /// If the range is not inside the slab.
    pub(super) unsafe fn slice(&self, slab: SlabRef, at: usize, len: usize) -> &[u8] {
        assert!(at.checked_add(len).is_some_and(|end| end <= slab.class.bytes()));
        let alike = self.mirror.as_ref().and_then(|mirror| mirror.at(slab.unit, at, len));
        let from = alike.unwrap_or_else(|| self.map.at(self.slab_at(slab) + at, len));
        // SAFETY: the range is inside the slab and its mapping (both asserted), initialised by
        // the kernel's zeroes and then the writer, and by this function's contract not written
        // while the slice lives: the mirror's bytes are written once.
        unsafe { std::slice::from_raw_parts(from.as_ptr(), len) }
    }

    fn slab_at(&self, slab: SlabRef) -> usize {
        self.slabs_at + slab.unit as usize * SLAB_SMALL
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(not(headwater_loom))]
    fn words(&self) -> &[Word] {
        let units = self.frames as usize * SLAB_SPLIT;
        let first = self.map.at(PAGE, units * size_of::<Word>()).cast::<Word>();
        // SAFETY: the table is inside the mapping (asserted by `at`) and page aligned; a word
        // is one AtomicU64, zeroes are a valid one, and the table is touched through such
        // references only, for as long as self owns the mapping.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), units) }
    }

    #[cfg(headwater_loom)]
    fn words(&self) -> &[Word] {
        &self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_large_slabs_and_at_least_two() {
        let two = 2 * SLAB_LARGE as u64;
        for (asked, got) in [(0, two), (two + 1, two / 2 * 3), (3 * SLAB_LARGE as u64, two / 2 * 3)]
        {
            assert_eq!(Arena::create(asked).unwrap().bytes(), got);
        }
        assert!(Arena::create(u64::MAX).is_err());
    }

    #[test]
    fn the_header_says_what_follows() {
        let arena = Arena::create(0).unwrap();
        let place = arena.map.at(0, size_of::<Header>()).cast::<Header>();
        // SAFETY: `create` wrote a header there, and nobody writes it again.
        let header = unsafe { place.as_ref() };
        assert_eq!((header.magic, header.version, header.frames), (MAGIC, VERSION, 2));
        assert_eq!((header.slab_small, header.slab_large), (63_168, 1_010_688));
        assert_eq!(header.words_at, 4096);
        assert!(header.slabs_at >= 4096 + 32 * 8 && header.slabs_at.is_multiple_of(4096));
    }

    /// What makes the runs under AddressSanitizer see more than nothing.
    #[cfg(headwater_asan)]
    #[test]
    fn slabs_are_hidden_but_for_what_was_written_and_is_pinned() {
        let arena = Arena::create(0).unwrap();
        let slab = arena.claim(Class::Small, 0).unwrap();
        let hidden = |at| poison::is_hidden(arena.map.at(arena.slab_at(slab) + at, 1));
        assert!(hidden(0) && hidden(1_316) && hidden(SLAB_SMALL), "nothing was written");
        // SAFETY: just claimed by this test, and nothing of it is published.
        unsafe { arena.write(slab, 1_316, &[7; 1_316]) };
        assert!(hidden(0) && !hidden(1_316) && !hidden(2_631) && hidden(2_632));
        assert!(arena.pin(slab));
        arena.retire(slab);
        assert!(!hidden(1_316), "a reader has a pin");
        arena.unpin(slab);
        assert!(hidden(1_316));
    }

    #[test]
    fn slabs_and_words_do_not_overlap() {
        let arena = Arena::create(0).unwrap();
        let slabs: Vec<_> = std::iter::from_fn(|| arena.claim(Class::Small, 0)).collect();
        assert_eq!(slabs.len(), 2 * SLAB_SPLIT);
        for (n, slab) in slabs.iter().enumerate() {
            // SAFETY: just claimed by this test, and nothing of it is published.
            unsafe { arena.write(*slab, 0, &vec![n as u8; SLAB_SMALL]) };
        }
        for (n, slab) in slabs.iter().enumerate() {
            // SAFETY: the claim's pin is held, and this test writes no more.
            let bytes = unsafe { arena.slice(*slab, 0, SLAB_SMALL) };
            assert!(bytes.iter().all(|b| *b == n as u8), "slab {n}");
            assert!(arena.pin(*slab), "word {n}");
            arena.unpin(*slab);
        }
        assert_eq!(arena.in_use(), arena.bytes());
        slabs.into_iter().for_each(|slab| arena.retire(slab));
        assert_eq!(arena.in_use(), 0);
        assert!(arena.claim(Class::Large, 0).is_some() && arena.claim(Class::Large, 0).is_some());
    }
}
