//! The buffers into which the kernel receives: it takes one when bytes are there, so that ten
//! thousand silent connections need none.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags};

use crate::io::uring::ring::Ring;

/// How many buffers there are, and how large they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The name of the group towards the kernel.
    pub group: u16,
    /// Buffers of one shard; a power of two, at most 256. They are used in the order in which
    /// they came back.
    pub count: u16,
    /// Bytes of one buffer.
    pub size: usize,
}

/// The buffers of connections. One holds a publisher's data of some tens of milliseconds; all
/// of them together are 2 MiB per shard. Measured: 4,000 connections that all ask within half
/// a second never find them used up, for since Linux 6.13 one call receives for 20 connections
/// at most; kernels before that take the rest in a second round (`UringEnobufs`).
pub(super) const CONNECTIONS: Shape = Shape { group: 0, count: 128, size: 16 * 1024 };

/// Bytes in front of the buffers for the ring of their descriptions: 16 each, page-aligned.
const HEAD: usize = 4096;

/// A mapping with the ring of descriptions and behind it the buffers.
///
/// The kernel takes buffers that were offered and writes into them at any time until a
/// completion names them. So nothing here is ever borrowed as a Rust reference except a buffer
/// that a completion named, until it is offered again.
pub(super) struct Buffers {
    base: NonNull<u8>,
    shape: Shape,
    /// Descriptions written, modulo 2^16; the kernel sees it when it is published.
    tail: u16,
}

impl Buffers {
    /// Maps the memory, registers it and offers every buffer.
    ///
    /// # Errors
    /// Of mmap(2) and of registering: `EINVAL` before Linux 5.19, `ENOMEM`.
    pub fn new(ring: &Ring, shape: Shape) -> io::Result<Buffers> {
        let Shape { group, count, size } = shape;
        assert!(count.is_power_of_two() && usize::from(count) * 16 <= HEAD, "{shape:?}");
        let len = HEAD + usize::from(count) * size;
        // SAFETY: a new private mapping at an address that the kernel chooses; it overlaps
        // nothing.
        let base = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, MapFlags::PRIVATE)?
        };
        let Some(base) = NonNull::new(base.cast()) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let mut buffers = Buffers { base, shape, tail: 0 };
        // SAFETY: `base` is page-aligned and has `count` descriptions, all zero. It stays mapped
        // until `Drop`, which `Uring` allows only after every operation has completed; if that
        // fails, it is never unmapped.
        unsafe {
            let ring_base = base.as_ptr() as u64;
            ring.submitter().register_buf_ring_with_flags(ring_base, count, group, 0)?;
        }
        for id in 0..count {
            buffers.give_back(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    fn at(&self, id: u16) -> *mut u8 {
        let Shape { count, size, .. } = self.shape;
        debug_assert!(id < count);
        // SAFETY: `id` is below `count` (the kernel names only what was offered), so the offset
        // lies inside the mapping.
        unsafe { self.base.as_ptr().add(HEAD + usize::from(id % count) * size) }
    }

    /// The first `len` bytes of the buffer `id`.
    ///
    /// # Safety
    /// A completion must have named `id` with at least `len` bytes, and it must not be given
    /// back while the slice lives.
    pub unsafe fn filled(&self, id: u16, len: usize) -> &[u8] {
        // SAFETY: the bytes are inside the mapping, initialised (mappings begin as zeroes), and
        // the kernel does not write to a buffer between naming it and being offered it again,
        // which the caller rules out.
        unsafe { std::slice::from_raw_parts(self.at(id), len.min(self.shape.size)) }
    }

    /// Offers a buffer again; seen by the kernel after [`Buffers::publish`].
    pub fn give_back(&mut self, id: u16) {
        let place = usize::from(self.tail % self.shape.count);
        let address = self.at(id) as u64;
        // SAFETY: `place` is one of the `count` descriptions at the front of the mapping. The
        // kernel reads descriptions between its own head and the published tail only; at most
        // `count` are offered at a time, so this one is not among them. The fields are written
        // one by one: the third of description 0 is the tail, which stays as it is.
        unsafe {
            let entry = &mut *self.base.as_ptr().cast::<BufRingEntry>().add(place);
            entry.set_addr(address);
            entry.set_len(self.shape.size as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back.
    pub fn publish(&self) {
        // SAFETY: the tail is 16 bits at a fixed place of the first description, aligned and
        // inside the mapping; the kernel only reads it, and this thread accesses it only here.
        // Release: the descriptions are visible before it.
        unsafe {
            let tail = BufRingEntry::tail(self.base.as_ptr().cast()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        let len = HEAD + usize::from(self.shape.count) * self.shape.size;
        // SAFETY: this is the mapping of `new`, unmapped once. No operation can write into it
        // any more (see `Drop` of `Uring`), and no slice of it lives: they borrow `self`.
        let result = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), len) };
        debug_assert!(result.is_ok(), "{result:?}");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use io_uring::{opcode, types};
    use rustix::io::Errno;

    use super::*;
    use crate::io::uring::completion::{Completion, Op};
    use crate::metrics::cells::Cells;

    fn next(ring: &mut Ring) -> Completion {
        for _ in 0..100 {
            if let Some(completion) = ring.pop() {
                return completion;
            }
            ring.wait(&Cells::default(), Duration::from_millis(100)).unwrap();
        }
        panic!("no completion");
    }

    /// Each buffer is used, none twice before it was given back, without one receiving ends and
    /// goes on after, and everything arrives as it was sent, several times around the ring.
    #[test]
    fn buffers_go_round() {
        if let Err(why) = crate::io::probe::uring() {
            println!("SKIPPED: {why}");
            return;
        }
        let mut ring = Ring::new().unwrap();
        let mut buffers = Buffers::new(&ring, CONNECTIONS).unwrap();
        let (mut client, server) = UnixStream::pair().unwrap();
        let cells = Cells::default();
        let arm = |ring: &mut Ring| {
            let entry =
                opcode::RecvMulti::new(types::Fd(server.as_raw_fd()), CONNECTIONS.group).build();
            // SAFETY: the entry points to nothing; `buffers` and `server` live to the end.
            unsafe { ring.push(&cells, Op::Recv, 0, entry) };
        };
        arm(&mut ring);
        for round in 0..5u8 {
            let mut held = Vec::new();
            for n in 0..CONNECTIONS.count {
                let byte = round ^ n as u8;
                client.write_all(&[byte; 1000]).unwrap();
                let got = next(&mut ring);
                let id = got.buffer.unwrap();
                assert!(!held.contains(&id), "buffer {id} was not given back");
                held.push(id);
                assert_eq!(got.result, Ok(1000));
                // SAFETY: named by this completion, given back below.
                assert_eq!(unsafe { buffers.filled(id, 1000) }, [byte; 1000]);
                if !got.more {
                    arm(&mut ring);
                }
            }
            client.write_all(b"x").unwrap();
            let none = next(&mut ring);
            assert_eq!((none.result, none.more), (Err(Errno::NOBUFS), false));
            for id in held {
                buffers.give_back(id);
            }
            buffers.publish();
            arm(&mut ring);
            let got = next(&mut ring);
            assert_eq!(got.result, Ok(1));
            buffers.give_back(got.buffer.unwrap());
            buffers.publish();
            if !got.more {
                arm(&mut ring);
            }
        }
        assert!(ring.cancel_all(), "the memory must not go before the operations");
    }
}
