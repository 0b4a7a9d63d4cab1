//! Datagrams and trains of one batch on their way into the kernel: what it reads until it has
//! answered.

use std::cell::UnsafeCell;

use io_uring::types::Fd;
use io_uring::{opcode, squeue};

use crate::io::driver::BATCH;
use crate::io::parcel::{FLAGS, Frame, Parcel};

/// A place for each parcel of a batch. As for [`super::send::Sends`], sending never waits, so
/// that a place is free again right after; should an answer ever come later, it stays taken.
pub(super) struct Parcels {
    /// Read by the kernel between submission and completion, hence the cells: no Rust reference
    /// covers them while it may. The box keeps their addresses. Empty before the first parcel:
    /// most shards send none.
    frames: Box<[UnsafeCell<Frame>]>,
    /// The socket's index, and what keeps the bytes alive.
    inflight: Box<[Option<(usize, Parcel)>]>,
    free: Vec<u32>,
}

impl Parcels {
    /// Allocates nothing.
    pub fn new() -> Parcels {
        Parcels { frames: Box::default(), inflight: Box::default(), free: Vec::new() }
    }

    /// Whether another parcel can be taken.
    pub fn has_room(&self) -> bool {
        self.frames.is_empty() || !self.free.is_empty()
    }

    /// Takes a parcel for the socket at `index`: its place and the operation, which points into
    /// this object and into the parcel's bytes. Both stay as they are until [`Parcels::finish`].
    /// `None` if there is no place.
    pub fn take(
        &mut self,
        index: usize,
        fd: Fd,
        v6: bool,
        stamp: u64,
        parcel: Parcel,
    ) -> Option<(u32, squeue::Entry)> {
        if self.frames.is_empty() {
            self.frames = (0..BATCH).map(|_| UnsafeCell::new(Frame::new())).collect();
            self.inflight = (0..BATCH).map(|_| None).collect();
            self.free = (0..BATCH as u32).rev().collect();
        }
        let place = self.free.pop()?;
        let frame = self.frames[place as usize].get();
        // SAFETY: the place was free, so no submitted operation reads this frame, and `&mut self`
        // rules out any other access. The box does not move its memory, and moving the parcel
        // does not move its bytes: they are behind pointers. It is kept until `finish`.
        let message = unsafe { Frame::fill(frame, &parcel, parcel.rest(), v6, stamp) };
        self.inflight[place as usize] = Some((index, parcel));
        let entry = opcode::SendMsg::new(fd, message).flags(FLAGS.cast_unsigned()).build();
        Some((place, entry))
    }

    /// The operation at `place` was answered: the socket's index and the parcel.
    pub fn finish(&mut self, place: u32) -> Option<(usize, Parcel)> {
        let done = self.inflight.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(done)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::io::parcel::Content;
    use crate::io::uring::completion::Op;
    use crate::io::uring::ring::Ring;
    use crate::metrics::cells::Cells;

    /// A full batch is submitted at once, in order, its bytes alive until answered.
    #[test]
    fn a_batch_arrives_in_order_and_lets_its_bytes_go() {
        if let Err(why) = crate::io::probe::uring() {
            println!("SKIPPED: {why}");
            return;
        }
        let (mut ring, mut parcels, cells) =
            (Ring::new().unwrap(), Parcels::new(), Cells::default());
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let to = receiver.local_addr().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let owned: Vec<Bytes> = (0..BATCH).map(|n| vec![n as u8; 100].into()).collect();
        let parcel = |bytes: &Bytes| {
            let data = bytes.clone().into();
            Parcel::new(Content::One { to, from: None, data }).unwrap()
        };
        for _ in 0..3 {
            for (n, bytes) in owned.iter().enumerate() {
                let fd = Fd(socket.as_raw_fd());
                let (place, entry) = parcels.take(n, fd, false, 0, parcel(bytes)).unwrap();
                // SAFETY: `parcels` keeps frame and bytes until `finish`.
                unsafe { ring.push(&cells, Op::Parcel, place, entry) };
            }
            let more = parcels.take(0, Fd(socket.as_raw_fd()), false, 0, parcel(&owned[0]));
            assert!(!parcels.has_room() && more.is_none());
            assert!(owned.iter().all(|bytes| !bytes.is_unique()), "kept until answered");
            ring.wait(&cells, Duration::from_secs(5)).unwrap();
            for (n, bytes) in owned.iter().enumerate() {
                let done = ring.pop().expect("complete inside the call that submitted it");
                assert_eq!((done.op, done.result), (Op::Parcel, Ok(100)));
                assert_eq!(parcels.finish(done.index).unwrap().0, n);
                assert!(parcels.finish(done.index).is_none(), "once");
                let mut got = [0; 200];
                assert_eq!(receiver.recv(&mut got).unwrap(), 100);
                assert_eq!(got[..100], bytes[..]);
            }
            assert!(owned.iter().all(Bytes::is_unique), "let go");
        }
    }
}
