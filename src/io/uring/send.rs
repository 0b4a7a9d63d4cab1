//! The sends of one batch: what the kernel reads until it has answered.

use std::cell::UnsafeCell;

use io_uring::{opcode, squeue};

use crate::base::payload::Payload;
use crate::io::driver::BATCH;
use crate::io::uring::files::Target;

/// Bytes that the kernel reads while a send is submitted.
struct Header {
    parts: [libc::iovec; 2],
    message: libc::msghdr,
    option: u32,
}

/// What keeps a send's bytes alive.
struct Inflight {
    /// The connection's place in the table.
    conn: u32,
    _parts: [Payload; 2],
}

/// A place for each send of a batch, allocated once.
///
/// With `MSG_DONTWAIT` a send completes inside the system call that submits it, so a place is
/// free again right after. Should the kernel ever answer later, the place simply stays taken:
/// correctness does not rest on it.
pub(super) struct Sends {
    /// Read by the kernel between submission and completion, hence the cells: no Rust reference
    /// covers them while it may. The box keeps their addresses.
    headers: Box<[UnsafeCell<Header>]>,
    inflight: Box<[Option<Inflight>]>,
    free: Vec<u32>,
}

impl Sends {
    /// Places for one batch.
    pub fn new() -> Sends {
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: msghdr is a plain C struct of integers and pointers, for which all zeroes are
        // a valid value (and mean: no address, no control data).
        let message: libc::msghdr = unsafe { std::mem::zeroed() };
        let header = || UnsafeCell::new(Header { parts: [nothing; 2], message, option: 0 });
        Sends {
            headers: (0..BATCH).map(|_| header()).collect(),
            inflight: (0..BATCH).map(|_| None).collect(),
            free: (0..BATCH as u32).rev().collect(),
        }
    }

    /// Whether another send can be taken.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes a send for the connection at `conn` with the socket `target`: its place and the
    /// operation, which points into this object and into the parts. Both stay as they are until
    /// [`Sends::finish`]. `None` if there is no place.
    pub fn take(
        &mut self,
        conn: u32,
        target: Target,
        parts: [Payload; 2],
    ) -> Option<(u32, squeue::Entry)> {
        let place = self.free.pop()?;
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let fd = target.fd();
        let entry = if parts[1].is_empty() {
            let bytes = parts[0].as_slice();
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            opcode::Send::new(fd, bytes.as_ptr(), len).flags(flags).build()
        } else {
            let header = self.headers[place as usize].get();
            let vector = |part: &Payload| {
                let bytes = part.as_slice();
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
            };
            // SAFETY: the place was free, so no submitted operation reads this header, and
            // `&mut self` rules out any other access. The pointers stay inside the box, whose
            // memory does not move.
            unsafe {
                (*header).parts = [vector(&parts[0]), vector(&parts[1])];
                (*header).message.msg_iov = (&raw mut (*header).parts).cast();
                (*header).message.msg_iovlen = 2;
                let message = &raw const (*header).message;
                opcode::SendMsg::new(fd, message).flags(flags.cast_unsigned()).build()
            }
        };
        // Moving the handles does not move the bytes: `Bytes` and slabs are behind pointers.
        self.inflight[place as usize] = Some(Inflight { conn, _parts: parts });
        Some((place, target.mark(entry)))
    }

    /// Takes the setting of a TCP option (tcp(7)) of the connection at `conn`, as
    /// [`Sends::take`] takes a send. Linux 6.7.
    pub fn take_option(
        &mut self,
        conn: u32,
        target: Target,
        option: i32,
        value: u32,
    ) -> Option<(u32, squeue::Entry)> {
        let place = self.free.pop()?;
        let header = self.headers[place as usize].get();
        // SAFETY: as in `take`: nobody else looks at the header of a free place, and the pointer
        // stays inside the box.
        let address = unsafe {
            (*header).option = value;
            &raw const (*header).option
        };
        let (level, option) = (libc::IPPROTO_TCP.cast_unsigned(), option.cast_unsigned());
        let len = size_of::<u32>() as u32;
        let entry = opcode::SetSockOpt::new(target.fd(), level, option, address.cast(), len);
        self.inflight[place as usize] = Some(Inflight { conn, _parts: Default::default() });
        Some((place, target.mark(entry.build())))
    }

    /// The operation at `place` was answered: lets its bytes go. The connection's place.
    pub fn finish(&mut self, place: u32) -> Option<u32> {
        let done = self.inflight.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(done.conn)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::io::uring::completion::Op;
    use crate::io::uring::ring::Ring;
    use crate::metrics::cells::Cells;

    /// A full batch is submitted at once, its bytes are alive until answered and gone after.
    #[test]
    fn a_batch_arrives_in_order_and_lets_its_bytes_go() {
        if let Err(why) = crate::io::probe::uring() {
            println!("SKIPPED: {why}");
            return;
        }
        let (mut ring, mut sends, cells) = (Ring::new().unwrap(), Sends::new(), Cells::default());
        let (client, mut server) = UnixStream::pair().unwrap();
        let target = Target::Descriptor(client.as_raw_fd());
        let owned: Vec<Bytes> = (0..BATCH).map(|n| vec![n as u8; 100].into()).collect();
        for round in 0..3 {
            for (n, bytes) in owned.iter().enumerate() {
                let (head, tail) = (bytes.slice(..30), bytes.slice(30..));
                let parts = match (n + round) % 2 {
                    0 => [bytes.clone().into(), Payload::Empty],
                    _ => [head.into(), tail.into()],
                };
                let (place, entry) = sends.take(n as u32, target, parts).unwrap();
                // SAFETY: `sends` keeps header and parts until `finish`.
                unsafe { ring.push(&cells, Op::Send, place, entry) };
            }
            assert!(!sends.has_room() && sends.take(0, target, Default::default()).is_none());
            assert!(owned.iter().all(|bytes| !bytes.is_unique()), "kept until answered");
            ring.wait(&cells, Duration::from_secs(5)).unwrap();
            for _ in 0..BATCH {
                let done = ring.pop().expect("complete inside the call that submitted it");
                assert_eq!(done.result, Ok(100));
                assert!(sends.finish(done.index).is_some());
                assert_eq!(sends.finish(done.index), None, "once");
            }
            let mut got = vec![0; BATCH * 100];
            server.read_exact(&mut got).unwrap();
            assert!(got == owned.concat());
            assert!(owned.iter().all(Bytes::is_unique), "let go");
        }
    }
}
