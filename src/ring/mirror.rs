//! Bytes that many windows hold alike, kept once: for a simulator, where thousands of windows in
//! one process are of the same stream.
//!
//! A slab lies in the mirror at the stream offset at which it begins, as long as what is written
//! to it is what the mirror has there, or is the first to say what that is. With the first chunk
//! that differs the slab gets memory of its own: null packets in place of what was lost, numbers
//! that went on elsewhere.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::base::limits::CHUNK;
use crate::ring::map::Mapping;
use crate::ring::poison;

/// A slab with memory of its own.
const OWN: u64 = u64::MAX;

/// A chunk that nobody has written, that somebody writes, that is there for good.
const NONE: u8 = 0;
const BEGUN: u8 = 1;
const THERE: u8 = 2;

/// The bytes of a stream from offset 0 on, each of which is written once, and which slabs lie
/// there.
pub(super) struct Mirror {
    map: Mapping,
    len: u64,
    /// What there is of each chunk.
    chunks: Box<[AtomicU8]>,
    /// By a slab's unit: where in the mirror it begins, or [`OWN`].
    places: Box<[AtomicU64]>,
}

impl Mirror {
    /// Of the first `len` bytes of a stream, for slabs of `units`. Memory is taken when it is
    /// first written to.
    ///
    /// # Errors
    /// As [`Mapping::create_lazy`].
    pub(super) fn create(len: usize, units: usize) -> io::Result<Mirror> {
        let len = len.next_multiple_of(CHUNK);
        Ok(Mirror {
            map: Mapping::create_lazy(len)?,
            len: len as u64,
            chunks: (0..len / CHUNK).map(|_| AtomicU8::new(NONE)).collect(),
            places: (0..units).map(|_| AtomicU64::new(OWN)).collect(),
        })
    }

    /// A slab of `len` bytes at stream offset `start` was claimed: it lies here if it can.
    pub(super) fn claim(&self, unit: u32, start: u64, len: usize) {
        let inside = start.is_multiple_of(CHUNK as u64)
            && start.checked_add(len as u64).is_some_and(|end| end <= self.len);
        self.places[unit as usize].store(if inside { start } else { OWN }, Ordering::Release);
    }

    /// Where byte `at` of a slab lies, and the `len` bytes from there on; `None`: in its own
    /// memory.
    pub(super) fn at(&self, unit: u32, at: usize, len: usize) -> Option<NonNull<u8>> {
        // Acquire: what was copied to its own memory is there.
        let start = self.places[unit as usize].load(Ordering::Acquire);
        (start != OWN).then(|| self.map.at(start as usize + at, len))
    }

    /// Writes `bytes` to a slab of which `own` is its own memory, if it lies here and they are
    /// what is here; otherwise the slab lies in its own memory from now on, and they are still to
    /// be written there: false.
    ///
    /// # Safety
    /// As [`write`](crate::ring::arena::Arena::write) asks; and `own` is as long as the slab,
    /// which only its writer writes.
    pub(super) unsafe fn write(
        &self,
        unit: u32,
        at: usize,
        bytes: &[u8],
        own: (NonNull<u8>, usize),
    ) -> bool {
        let start = self.places[unit as usize].load(Ordering::Relaxed);
        if start == OWN {
            return false;
        }
        let place = start as usize + at;
        if place.is_multiple_of(CHUNK) && bytes.len() == CHUNK && self.is_alike(place, bytes) {
            return true;
        }
        // SAFETY: what this function asks of `own` is what is asked there.
        unsafe { self.part(start as usize, own) };
        // Release: who finds the slab there finds all that was shown of it.
        self.places[unit as usize].store(OWN, Ordering::Release);
        false
    }

    /// Whether the chunk at `place` is `bytes`, which it becomes if nobody has written it.
    fn is_alike(&self, place: usize, bytes: &[u8]) -> bool {
        let (state, there) = (&self.chunks[place / CHUNK], self.map.at(place, CHUNK));
        match state.compare_exchange(NONE, BEGUN, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                // SAFETY: the range is inside the mapping (asserted by `at`). Of all writers only
                // this one found the chunk unwritten, so no window has shown it and nobody refers
                // to it; `bytes` is no part of it: it refers to bytes that were shown.
                unsafe { there.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), CHUNK) };
                state.store(THERE, Ordering::Release);
                true
            }
            Err(THERE) => {
                // SAFETY: the range is inside the mapping, was written (Acquire) and is not
                // written again.
                let kept = unsafe { std::slice::from_raw_parts(there.as_ptr(), CHUNK) };
                kept == bytes
            }
            // Another thread is at it: nobody waits here.
            Err(_) => false,
        }
    }

    /// Copies what is there of the slab at `start` to memory of its own.
    ///
    /// # Safety
    /// `own` is as long as the slab, and nobody but the caller writes it or has seen it.
    unsafe fn part(&self, start: usize, own: (NonNull<u8>, usize)) {
        poison::show(own.0, own.1);
        for at in (0..own.1).step_by(CHUNK) {
            if self.chunks[(start + at) / CHUNK].load(Ordering::Acquire) != THERE {
                continue;
            }
            let from = self.map.at(start + at, CHUNK);
            // SAFETY: the first range is inside the mapping (asserted by `at`) and was written
            // (Acquire) for good; the second is inside the slab, whose size is whole chunks
            // (limits.rs), and which nobody else writes or has seen, by this function's contract.
            unsafe {
                own.0.as_ptr().add(at).copy_from_nonoverlapping(from.as_ptr(), CHUNK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use crate::base::limits::{CHUNK, SLAB_LARGE};
    use crate::base::payload::Payload;
    use crate::base::time::Mono;
    use crate::ring::arena::Arena;
    use crate::ring::chunks::ChunkWriter;
    use crate::ring::reader::Reader;
    use crate::ring::records::SubtreeSize;
    use crate::ring::tests::noise;
    use crate::ring::window::{Settings, open_received};

    const LARGE: u64 = SLAB_LARGE as u64;

    fn arena() -> Arc<Arena> {
        Arena::create_lazy(4 * LARGE, LARGE).unwrap()
    }

    fn window(arena: &Arc<Arena>) -> (ChunkWriter, Reader) {
        let quota = Settings { bytes: LARGE, span: Duration::from_secs(60) };
        let size = SubtreeSize::new(16).unwrap();
        let (writer, window) = open_received(arena, &quota, size, 0, 1).unwrap();
        (writer, Reader::new(window))
    }

    fn chunk(stream: u64, chunk: u64) -> [u8; CHUNK] {
        noise(stream, chunk * CHUNK as u64, CHUNK).try_into().unwrap()
    }

    fn read(reader: &mut Reader, chunk: u64) -> Payload {
        reader.read_chunk(chunk).unwrap().unwrap()
    }

    #[test]
    fn what_is_alike_is_there_once_and_a_slab_that_differs_has_its_own() {
        let arena = arena();
        let (mut one, mut other) = (window(&arena), window(&arena));
        // The second, in another order, differs in chunk 5 of its first slab of 48.
        for n in 0..96 {
            one.0.write_chunk(Mono::ZERO, n, &chunk(7, n)).unwrap();
        }
        let mut held = Vec::new();
        for n in (0..96).rev() {
            let stream = if n == 5 { 8 } else { 7 };
            other.0.write_chunk(Mono::ZERO, n, &chunk(stream, n)).unwrap();
            held.push((read(&mut other.1, n), chunk(stream, n)));
        }
        for (payload, bytes) in held {
            assert_eq!(payload.as_slice(), bytes, "also what was held when the slab parted");
        }
        for n in 0..96 {
            let (ours, theirs) = (read(&mut one.1, n), read(&mut other.1, n));
            assert_eq!(ours.as_slice(), chunk(7, n));
            let same = std::ptr::eq(ours.as_slice(), theirs.as_slice());
            assert_eq!(same, n >= 48, "chunk {n}");
        }
    }

    #[test]
    fn a_slab_behind_the_end_has_its_own() {
        let arena = Arena::create_lazy(4 * LARGE, 60 * CHUNK as u64).unwrap();
        let (mut one, mut other) = (window(&arena), window(&arena));
        for n in 0..96 {
            one.0.write_chunk(Mono::ZERO, n, &chunk(7, n)).unwrap();
            other.0.write_chunk(Mono::ZERO, n, &chunk(7, n)).unwrap();
            let (ours, theirs) = (read(&mut one.1, n), read(&mut other.1, n));
            assert_eq!((ours.as_slice(), theirs.as_slice()), (&chunk(7, n)[..], &chunk(7, n)[..]));
            assert_eq!(std::ptr::eq(ours.as_slice(), theirs.as_slice()), n < 48, "chunk {n}");
        }
    }

    #[test]
    fn threads_that_write_alike_agree() {
        let arena = arena();
        std::thread::scope(|scope| {
            let threads = [0, 1, 2].map(|thread| {
                let arena = Arc::clone(&arena);
                scope.spawn(move || {
                    let (mut writer, mut reader) = window(&arena);
                    for n in 0..600 {
                        let stream = if n >= 300 && thread == 1 { 8 } else { 7 };
                        writer.write_chunk(Mono::ZERO, n, &chunk(stream, n)).unwrap();
                        writer.publish(Mono::ZERO);
                        let old = n.saturating_sub(9);
                        let expected = if old >= 300 && thread == 1 { 8 } else { 7 };
                        assert_eq!(read(&mut reader, old).as_slice(), chunk(expected, old));
                        reader.release();
                    }
                })
            });
            // Joined by hand: the thread sanitizer does not see the scope do it.
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
}
