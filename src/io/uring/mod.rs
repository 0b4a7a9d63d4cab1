//! The io_uring driver: everything is asked for once and told in batches.
//!
//! Accepting, receiving and the bell are armed once and go on by themselves (multishot). The
//! sends of a batch are submitted by one system call and are answered when it returns. The
//! memory that the kernel reads or writes belongs to `buffers`, `send` and `datagrams`, and outlives
//! every operation: `Uring` lets go of it only after the last one was taken back.

mod buffers;
mod completion;
mod datagrams;
mod ring;
mod send;

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::{opcode, types};

use crate::base::payload::Payload;
use crate::io::driver::{self, Backend, Setup};
use crate::io::hub::Hub;
use crate::io::machine::Machine;
use crate::metrics::cells::Cells;
use crate::metrics::table::Cell;
use buffers::Buffers;
use completion::Op;
use datagrams::Datagrams;
use ring::Ring;
use send::Sends;

/// Runs `machine` until drained or halted, on the calling thread.
///
/// # Errors
/// If the ring cannot be set up or fails as a whole; errors of one connection only close it.
pub fn run<X: Machine>(setup: Setup<X::Mail>, machine: &mut X) -> io::Result<()> {
    driver::drive::<X, Uring>(setup, machine)
}

/// A listener's accept operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    No,
    Armed,
    /// To be cancelled; it is armed until its last completion.
    Cancelled,
}

struct Uring {
    ring: Ring,
    /// Dropped by `Drop`, if the kernel holds no operation any more.
    buffers: ManuallyDrop<Buffers>,
    sends: ManuallyDrop<Sends>,
    datagrams: ManuallyDrop<Option<Datagrams>>,
    listeners: Box<[Accepting]>,
    /// Connections whose receive operation ended although they go on.
    rearm: Vec<u32>,
    bell: RawFd,
}

impl Drop for Uring {
    /// Takes every operation back before the memory goes, also when the machine panicked.
    fn drop(&mut self) {
        if self.ring.cancel_all() {
            // SAFETY: dropped once, here, and not used after. No operation is in flight, so the
            // kernel neither reads headers and payloads nor writes buffers.
            unsafe {
                ManuallyDrop::drop(&mut self.sends);
                ManuallyDrop::drop(&mut self.buffers);
                ManuallyDrop::drop(&mut self.datagrams);
            }
        }
        // Else both leak: the kernel may still use them, and a leak harms nobody.
    }
}

impl Backend for Uring {
    fn new<X: Machine>(hub: &Hub<'_, X>) -> io::Result<Uring> {
        let ring = Ring::new()?;
        let buffers = ManuallyDrop::new(Buffers::new(&ring, buffers::CONNECTIONS)?);
        for (_, listener) in &hub.listeners {
            // On a socket that does not block, io_uring reports EAGAIN instead of waiting.
            listener.set_nonblocking(false)?;
        }
        let datagrams = match hub.sockets.len() {
            0 => None,
            sockets => Some(Datagrams::new(&ring, sockets)?),
        };
        for socket in &hub.sockets {
            socket.udp.set_nonblocking(false)?;
        }
        let mut uring = Uring {
            datagrams: ManuallyDrop::new(datagrams),
            ring,
            buffers,
            sends: ManuallyDrop::new(Sends::new()),
            listeners: vec![Accepting::No; hub.listeners.len()].into(),
            rearm: Vec::with_capacity(hub.max_connections),
            bell: hub.post.bell(hub.shard).as_raw_fd(),
        };
        uring.arm_bell(&hub.cells);
        uring.arm_datagrams(hub);
        Ok(uring)
    }

    fn accept<X: Machine>(&mut self, hub: &mut Hub<'_, X>, on: bool) {
        for (index, (_, listener)) in (0u32..).zip(&hub.listeners) {
            let state = &mut self.listeners[index as usize];
            match (on, *state) {
                (true, Accepting::No) => {
                    let fd = types::Fd(listener.as_raw_fd());
                    let entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
                    *state = Accepting::Armed;
                    // SAFETY: the entry points to no memory.
                    unsafe { self.ring.push(&hub.cells, Op::Accept, index, entry) };
                }
                (false, Accepting::Armed) => {
                    *state = Accepting::Cancelled;
                    self.ring.cancel(&hub.cells, Op::Accept, index);
                }
                _ => {}
            }
        }
    }

    fn open<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) -> io::Result<()> {
        self.arm_recv(hub, index);
        Ok(())
    }

    fn send<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32, parts: [Payload; 2]) {
        let conn = hub.table.id(index);
        // An outbox is not larger than the batch, so there is room unless the kernel still owes
        // answers of an earlier batch.
        while !self.sends.has_room() {
            if self.ring.wait(&hub.cells, Duration::from_millis(10)).is_err() {
                return; // Broken: the loop's own wait reports it and ends.
            }
            self.dispatch(hub);
        }
        if hub.table.find(conn).is_none() {
            return;
        }
        let fd = hub.table.raw_fd(index);
        if let Some((place, entry)) = self.sends.take(index, fd, parts) {
            hub.table.slot(index).inflight += 1;
            // SAFETY: `sends` keeps what the entry points to until `finish`, which is called
            // for this operation's completion only, or for ever (`Drop`).
            unsafe { self.ring.push(&hub.cells, Op::Send, place, entry) };
        }
    }

    fn settle<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) {
        if hub.table.slot(index).sending {
            self.ring.submit(&hub.cells);
        }
    }

    /// Ends what the kernel still does for the connection by ending the connection itself:
    /// receiving completes with the end of the stream, waiting with a hang-up.
    fn release<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) {
        if let Some(fd) = hub.table.fd(index) {
            // ENOTCONN: it was reset, which completes the operations as well.
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Both);
        }
        Self::let_go(hub, index);
    }

    fn flush<X: Machine>(&mut self, hub: &mut Hub<'_, X>) {
        self.ring.submit(&hub.cells);
        self.dispatch(hub);
    }

    fn dispatch<X: Machine>(&mut self, hub: &mut Hub<'_, X>) {
        if self.ring.overflowed() {
            hub.cells.add(Cell::UringOverflow, 1);
        }
        // What is there now: more may come while these are told, and is for the next turn.
        for _ in 0..self.ring.ready() {
            let Some(completion) = self.ring.pop() else { break };
            hub.cells.add(Cell::IoEvents, 1);
            self.complete(hub, completion);
        }
        self.buffers.publish();
        self.arm_datagrams(hub);
        while let Some(index) = self.rearm.pop() {
            if hub.table.is_open(index) && !hub.table.slot(index).receiving {
                hub.cells.add(Cell::UringRearms, 1);
                self.arm_recv(hub, index);
            }
        }
    }

    fn pending(&mut self) -> bool {
        self.ring.ready() > 0 || self.ring.overflowed()
    }

    fn wait(&mut self, cells: &Cells, timeout: Duration) -> io::Result<()> {
        self.ring.wait(cells, timeout)
    }
}

impl Uring {
    fn arm_bell(&mut self, cells: &Cells) {
        let fd = types::Fd(self.bell);
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.ring.push(cells, Op::Bell, 0, entry) };
    }

    fn arm_recv<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) {
        let fd = types::Fd(hub.table.raw_fd(index));
        let entry = opcode::RecvMulti::new(fd, buffers::CONNECTIONS.group).build();
        let slot = hub.table.slot(index);
        slot.receiving = true;
        slot.inflight += 1;
        // SAFETY: the entry names the group of `buffers`, which outlives every operation.
        unsafe { self.ring.push(&hub.cells, Op::Recv, index, entry) };
    }

    fn arm_poll<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) {
        let fd = types::Fd(hub.table.raw_fd(index));
        let slot = hub.table.slot(index);
        if std::mem::replace(&mut slot.polling, true) {
            return;
        }
        slot.inflight += 1;
        let entry = opcode::PollAdd::new(fd, libc::POLLOUT as u32).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.ring.push(&hub.cells, Op::Poll, index, entry) };
    }

    /// Gives the place of a closed connection back when the kernel holds no operation on it.
    fn let_go<X: Machine>(hub: &mut Hub<'_, X>, index: u32) {
        if !hub.table.is_open(index) && hub.table.slot(index).inflight == 0 {
            hub.table.remove(index);
        }
    }
}
