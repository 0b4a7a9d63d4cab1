//! Datagrams for the io_uring driver: one receive operation per socket, armed once, into a ring
//! of buffers of its own that hold a whole run of datagrams each.

use std::cell::UnsafeCell;
use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;

use io_uring::types::{Fd, RecvMsgOut};
use io_uring::{opcode, squeue};
use rustix::io::Errno;

use crate::io::hub::Hub;
use crate::io::machine::Machine;
use crate::io::udp::{CONTROL, Control, DATA, sender};
use crate::io::uring::Uring;
use crate::io::uring::buffers::{Buffers, Shape};
use crate::io::uring::completion::{Completion, Op};
use crate::io::uring::ring::Ring;
use crate::metrics::table::Cell;

/// Bytes for the address of a sender.
const NAME: usize = size_of::<libc::sockaddr_in6>();

/// Bytes in front of a buffer's data: lengths and flags (four words of 32 bits), the sender, the
/// control messages.
const FRONT: usize = 16 + NAME + CONTROL;

/// One buffer per run of datagrams that waits to be told; a megabyte for a shard that has any
/// socket for datagrams.
const SHAPE: Shape = Shape { group: 1, count: 16, size: (DATA + FRONT).next_multiple_of(64) };

/// The same with the socket of the swarm. Each acknowledgement of a peer takes a buffer for
/// itself, for runs are of one sender; it fills only the first page. When they run out, receiving
/// ends and is armed again: with 64 that costs one more entry per 64 datagrams.
const SWARM: Shape = Shape { count: 64, ..SHAPE };

/// What receiving datagrams needs.
pub(super) struct Datagrams {
    buffers: Buffers,
    /// Says how much room the name and the control messages have. The kernel may read it at any
    /// time until the last operation is over, hence the cell; it never writes to it.
    header: Box<UnsafeCell<libc::msghdr>>,
    /// Sockets whose operation has ended and is to be armed again.
    rearm: Vec<u32>,
}

impl Datagrams {
    /// Maps and registers the buffers.
    ///
    /// # Errors
    /// As [`Buffers::new`].
    pub fn new(ring: &Ring, sockets: usize, swarm: bool) -> io::Result<Datagrams> {
        // SAFETY: msghdr is a plain C struct of integers and pointers; all zeroes are a value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_namelen = NAME as libc::socklen_t;
        header.msg_controllen = CONTROL as _;
        Ok(Datagrams {
            buffers: Buffers::new(ring, if swarm { SWARM } else { SHAPE })?,
            header: Box::new(UnsafeCell::new(header)),
            rearm: (0..u32::try_from(sockets).unwrap_or(u32::MAX)).collect(),
        })
    }

    fn operation(&self, fd: Fd) -> squeue::Entry {
        opcode::RecvMsgMulti::new(fd, self.header.get(), SHAPE.group).build()
    }
}

impl Uring {
    /// Arms what is not armed, and gives buffers back.
    pub(super) fn arm_datagrams<X: Machine>(&mut self, hub: &Hub<'_, X>) {
        let Some(datagrams) = &mut *self.datagrams else { return };
        datagrams.buffers.publish();
        while let Some(index) = datagrams.rearm.pop() {
            let Some(socket) = hub.sockets.get(index as usize) else { continue };
            let entry = datagrams.operation(Fd(socket.udp.as_raw_fd()));
            // SAFETY: the entry points to the header and names the group of the buffers; both
            // belong to `datagrams`, which outlives every operation (`Drop` of `Uring`).
            unsafe { self.ring.push(&hub.cells, Op::Datagrams, index, entry) };
        }
    }

    /// Tells the machine what came.
    pub(super) fn datagrams<X: Machine>(&mut self, hub: &mut Hub<'_, X>, completion: Completion) {
        let Some(datagrams) = &mut *self.datagrams else { return };
        let index = completion.index;
        if !completion.more {
            hub.cells.add(Cell::UringRearms, 1);
            datagrams.rearm.push(index);
        }
        if completion.result == Err(Errno::NOBUFS) {
            hub.cells.add(Cell::UringEnobufs, 1);
        }
        let Some(id) = completion.buffer else { return };
        if let Ok(n) = completion.result {
            // SAFETY: this completion named the buffer with n bytes; it is given back below,
            // after the last use of the slice.
            let bytes = unsafe { datagrams.buffers.filled(id, n as usize) };
            // SAFETY: the operation is over for this buffer, and nobody ever writes to the
            // header; a shared borrow of it is all that exists.
            let header = unsafe { &*datagrams.header.get() };
            match RecvMsgOut::parse(bytes, header) {
                Ok(out) => tell(hub, index, &out),
                Err(()) => hub.cells.add(Cell::DatagramsTruncated, 1),
            }
        }
        datagrams.buffers.give_back(id);
    }
}

fn tell<X: Machine>(hub: &mut Hub<'_, X>, index: u32, out: &RecvMsgOut<'_>) {
    let whole = !out.is_payload_truncated() && !out.is_control_data_truncated();
    let from = sender(out.name_data()).filter(|_| whole);
    let control = Control::parse(out.control_data());
    hub.datagrams(index as usize, from, control, out.payload_data());
}
