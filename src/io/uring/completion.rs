//! What the kernel answered, and what the machine is told of it.

use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;
use rustix::io::Errno;

use crate::io::hub::{self, Hub};
use crate::io::machine::{Closed, Machine};
use crate::io::uring::{Accepting, Uring};
use crate::io::{connect, outbound, socket};
use crate::metrics::table::Cell;

/// What an operation is; the upper half of its `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Accepting; the index is the listener's.
    Accept,
    /// Receiving; the index is the connection's, as for `Poll`.
    Recv,
    /// Waiting until a blocked connection can take bytes.
    Poll,
    /// Sending; the index is the place in the batch, as for `Option`.
    Send,
    /// Setting an option of a socket in the ring's table.
    Option,
    /// Shutting a socket in the ring's table down; the index is the connection's.
    Shutdown,
    /// Waiting for the bell.
    Bell,
    /// Receiving datagrams; the index is the socket's, as for `Room`.
    Datagrams,
    /// Sending datagrams; the index is the place in the batch.
    Parcel,
    /// Waiting until a socket takes datagrams again.
    Room,
    /// Waiting until a connection is open; the index is the connection's.
    Connect,
    /// Cancelling another one.
    Cancel,
}

/// The name of an operation: what it is and what it is for.
pub(super) fn tag(op: Op, index: u32) -> u64 {
    (op as u64) << 32 | u64::from(index)
}

/// One completion. Not `Copy`: a descriptor in it has one owner.
#[derive(Debug)]
pub(super) struct Completion {
    pub op: Op,
    pub index: u32,
    /// Bytes, a descriptor or an event mask; or why it failed.
    pub result: Result<u32, Errno>,
    /// The provided buffer that was used.
    pub buffer: Option<u16>,
    /// The operation is still armed: more completions follow.
    pub more: bool,
}

impl Completion {
    pub fn new(entry: &cqueue::Entry) -> Completion {
        let op = match entry.user_data() >> 32 {
            0 => Op::Accept,
            1 => Op::Recv,
            2 => Op::Poll,
            3 => Op::Send,
            4 => Op::Option,
            5 => Op::Shutdown,
            6 => Op::Bell,
            7 => Op::Datagrams,
            8 => Op::Parcel,
            9 => Op::Room,
            10 => Op::Connect,
            _ => Op::Cancel,
        };
        let result = entry.result();
        Completion {
            op,
            index: (entry.user_data() & u64::from(u32::MAX)) as u32,
            result: u32::try_from(result).map_err(|_| Errno::from_raw_os_error(-result)),
            buffer: cqueue::buffer_select(entry.flags()),
            more: cqueue::more(entry.flags()),
        }
    }

    /// The descriptor that an accept gave us.
    pub fn accepted(self) -> Option<Result<OwnedFd, Errno>> {
        if self.op != Op::Accept {
            return None;
        }
        Some(self.result.map(|fd| {
            // SAFETY: the kernel installed this descriptor for the accept operation that this
            // completion belongs to and told nobody else. The completion is made once, when it
            // is popped, and consumed here, so that the descriptor gets one owner.
            unsafe { OwnedFd::from_raw_fd(fd.cast_signed()) }
        }))
    }
}

impl Uring {
    /// Tells the machine what one completion says.
    pub(super) fn complete<X: Machine>(&mut self, hub: &mut Hub<'_, X>, completion: Completion) {
        let index = completion.index;
        match completion.op {
            Op::Accept => self.accepted(hub, completion),
            Op::Recv => self.received(hub, completion),
            Op::Send => {
                let Some(index) = self.sends.finish(index) else { return };
                hub.table.slot(index).inflight -= 1;
                if hub.table.is_open(index) {
                    self.sent(hub, index, completion.result);
                }
                self.let_go(hub, index);
            }
            Op::Option => {
                // Fails only where the probe of the table failed, and then there is no table.
                debug_assert_eq!(completion.result, Ok(0));
                let Some(index) = self.sends.finish(index) else { return };
                hub.table.slot(index).inflight -= 1;
                self.let_go(hub, index);
            }
            Op::Shutdown => {
                // ENOTCONN: the other end has reset the connection; receiving says so.
                hub.table.slot(index).inflight -= 1;
                self.let_go(hub, index);
            }
            Op::Poll => {
                let slot = hub.table.slot(index);
                slot.polling = false;
                slot.inflight -= 1;
                if slot.open {
                    hub.writable(index);
                }
                self.let_go(hub, index);
            }
            Op::Bell => {
                hub.woken();
                if !completion.more {
                    hub.cells.add(Cell::UringRearms, 1);
                    self.arm_bell(&hub.cells);
                }
            }
            Op::Datagrams => self.datagrams(hub, completion),
            Op::Parcel => {
                let Some((socket, parcel)) = self.parcels.finish(index) else { return };
                let result = completion.result.map(|n| n as usize);
                outbound::conclude(hub, self, socket, parcel, result);
            }
            Op::Room => {
                self.watching[index as usize] = false;
                outbound::room(hub, self, index as usize);
            }
            Op::Connect => {
                hub.table.slot(index).inflight -= 1;
                if hub.table.slot(index).connecting {
                    // From now on io_uring waits, which it does not for a socket that does not
                    // block.
                    let blocks = hub.table.fd(index).map(|fd| rustix::io::ioctl_fionbio(fd, false));
                    debug_assert_eq!(blocks, Some(Ok(())));
                    connect::decided(hub, self, index);
                } else {
                    self.let_go(hub, index);
                }
            }
            Op::Cancel => {}
        }
    }

    fn accepted<X: Machine>(&mut self, hub: &mut Hub<'_, X>, completion: Completion) {
        let listener = completion.index as usize;
        if !completion.more {
            // The loop arms it again at the end of the round, unless the gate is closed.
            if self.listeners[listener] == Accepting::Armed {
                hub.cells.add(Cell::UringRearms, 1);
            }
            self.listeners[listener] = Accepting::No;
        }
        match completion.accepted() {
            Some(Ok(fd)) => hub::accepted(hub, self, listener, fd),
            // More came at once than there are descriptors, but those that came are in the
            // table now: try again in the same round.
            Some(Err(Errno::MFILE)) if std::mem::take(&mut self.moved) => {}
            Some(Err(errno)) => {
                hub.accept_failed(errno);
            }
            None => {}
        }
    }

    fn received<X: Machine>(&mut self, hub: &mut Hub<'_, X>, completion: Completion) {
        let index = completion.index;
        if !completion.more {
            let slot = hub.table.slot(index);
            slot.receiving = false;
            slot.inflight -= 1;
        }
        if hub.table.is_open(index) {
            match (completion.result, completion.buffer) {
                (Ok(0), _) => hub::close(hub, self, index, Closed::Eof),
                (Ok(n), Some(id)) => {
                    // SAFETY: this completion named the buffer with n bytes; it is given back
                    // below, after the last use of the slice.
                    let data = unsafe { self.buffers.filled(id, n as usize) };
                    hub.received(index, data);
                }
                (Ok(_), None) => hub::close(hub, self, index, Closed::Error),
                (Err(Errno::NOBUFS), _) => hub.cells.add(Cell::UringEnobufs, 1),
                (Err(Errno::INTR | Errno::AGAIN), _) => {}
                (Err(errno), _) => hub::close(hub, self, index, socket::closed_by(errno)),
            }
        }
        if let Some(id) = completion.buffer {
            self.buffers.give_back(id);
        }
        if !completion.more {
            self.rearm.push(index);
            self.let_go(hub, index);
        }
    }

    fn sent<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32, result: Result<u32, Errno>) {
        match result {
            Ok(n) => hub.sent(index, n as usize),
            Err(Errno::AGAIN | Errno::INTR) => {
                hub.blocked(index);
                self.arm_poll(hub, index);
            }
            Err(errno) => hub::close(hub, self, index, socket::closed_by(errno)),
        }
    }
}
