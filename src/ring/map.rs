//! The shared mapping: one memfd, mapped once, every page present from the start. In a simulator
//! private memory instead, taken as it is written to.

use std::io;
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::ring::poison;

/// Zeroed shared memory. Unmapped on drop; everything that points into it is behind the
/// arena's `Arc`, so that happens after the last pin.
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory that any thread may address until `Drop`, which needs
// the only handle. Who may read or write which bytes is the business of the callers of `at`.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives out raw pointers only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` zero bytes. Blocks while the kernel provides the pages.
    ///
    /// # Errors
    /// `OutOfMemory` if the machine has less memory than that; else what the kernel says.
    pub(super) fn create(len: usize) -> io::Result<Mapping> {
        // A memfd has no limit of its own: the kernel would go on until it kills somebody.
        fits(len)?;
        // Some systems refuse memory files that could be executed (sysctl vm.memfd_noexec);
        // kernels before 6.3 do not know the flag that says it never will be.
        let open = |flag| rustix::fs::memfd_create("headwater-arena", MemfdFlags::CLOEXEC | flag);
        let fd = match open(MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => open(MemfdFlags::ALLOW_SEALING)?,
            other => other?,
        };
        let size = len as u64;
        rustix::fs::ftruncate(&fd, size)?;
        // MAP_POPULATE alone ignores a lack of memory, and the first touch is then a SIGBUS
        // (mmap(2)). fallocate(2) fails where the kernel accounts strictly; elsewhere what is
        // too much for a control group shows at the start, not hours later.
        rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, size)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        // SAFETY: the kernel chooses a fresh address range, so no existing reference is
        // touched; the seals keep the file, and with it the range, at `len` bytes until
        // `Drop` unmaps it. The mapping outlives the descriptor (mmap(2)).
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                &fd,
                0,
            )?
        };
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len })
    }

    /// As [`Mapping::create`], but the kernel provides each page when it is first touched; if it
    /// has none then, the process dies. Nobody else can be given this memory. Its pages are large
    /// if the kernel has such: thousands of windows are more small ones than a processor
    /// remembers the places of.
    ///
    /// # Errors
    /// What the kernel says of an address range that it does not give.
    pub(super) fn create_lazy(len: usize) -> io::Result<Mapping> {
        // SAFETY: the kernel chooses a fresh address range, so no existing reference is touched;
        // nothing takes any of it away until `Drop` unmaps it.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        // SAFETY: the range is the mapping just made; the advice changes none of its bytes.
        // Without large pages it is refused, and the mapping is as good.
        let _ = unsafe { rustix::mm::madvise(base, len, Advice::LinuxHugepage) };
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len })
    }

    /// The address of `len` bytes at `offset`.
    ///
    /// # Panics
    /// If they are not all inside the mapping: a bug of the ring.
    pub(super) fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "outside the arena");
        // SAFETY: `offset` lies inside the mapping (just checked), which lives as long as self.
        unsafe { self.base.add(offset) }
    }
}

/// Whether the machine has as much memory as that.
fn fits(len: usize) -> io::Result<()> {
    let memory = rustix::system::sysinfo();
    if len as u64 > memory.totalram.saturating_mul(u64::from(memory.mem_unit)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok(())
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // The next mapping may lie at the same address.
        poison::show(self.base, self.len);
        // SAFETY: base and len are those of the mmap above; no slice into the mapping exists,
        // because each borrows from a pin, and each pin holds the arena that owns this.
        // Unmapping a whole valid mapping does not fail.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guard that every pointer of the ring goes through.
    #[test]
    #[should_panic(expected = "outside the arena")]
    fn no_pointer_leaves_the_mapping() {
        let map = Mapping::create(8192).unwrap();
        let last = map.at(8188, 4);
        // SAFETY: four bytes of the mapping, which is alive and which nobody else knows.
        assert_eq!(unsafe { last.cast::<u32>().read() }, 0, "mapped and zero to the end");
        map.at(8189, 4);
    }

    #[test]
    fn absurd_sizes_are_an_error() {
        // Refused before the kernel is asked: asking takes all memory of the machine.
        let error = Mapping::create(usize::MAX / 2).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    }
}
