//! The io_uring driver: everything is asked for once and told in batches.
//!
//! Accepting, receiving and the bell are armed once and go on by themselves (multishot). The
//! sends of a batch are submitted by one system call and are answered when it returns. Beyond
//! its share of descriptors a connection lives in the ring's own table (`files`). The memory
//! that the kernel reads or writes belongs to `buffers`, `send`, `datagrams` and `parcels`, and
//! outlives every operation: `Uring` lets go of it only after the last one was taken back.

mod buffers;
mod completion;
mod datagrams;
mod files;
mod parcels;
mod ring;
mod send;

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::{opcode, types};

use crate::base::ids::SocketId;
use crate::base::payload::Payload;
use crate::io::driver::{self, Backend, Setup};
use crate::io::hub::Hub;
use crate::io::machine::Machine;
use crate::io::parcel::Parcel;
use crate::io::{outbound, socket};
use crate::metrics::cells::Cells;
use crate::metrics::table::Cell;
use buffers::Buffers;
use completion::Op;
use datagrams::Datagrams;
use files::{Files, Target};
use parcels::Parcels;
use ring::Ring;
use send::Sends;

/// Runs `machine` until drained or halted, on the calling thread.
///
/// # Errors
/// If the ring cannot be set up or fails as a whole; errors of one connection only close it.
pub fn run<X: Machine>(setup: Setup<X::Mail>, machine: &mut X) -> io::Result<()> {
    driver::drive::<X, Uring>(setup, machine)
}

pub use files::PLACES_MAX;
pub(super) use files::probe as probe_table;

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
    parcels: ManuallyDrop<Parcels>,
    /// Sockets for datagrams for which an operation waits until they are writable.
    watching: Box<[bool]>,
    files: Files,
    /// A socket went into the table since descriptors last ran out.
    moved: bool,
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
                ManuallyDrop::drop(&mut self.parcels);
            }
            self.files.close_all(&self.ring);
        }
        // Else they leak: the kernel may still use them, and a leak harms nobody.
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
            sockets => {
                let swarm = hub.sockets.iter().any(|socket| socket.id == SocketId::SWARM);
                Some(Datagrams::new(&ring, sockets, swarm)?)
            }
        };
        for socket in &hub.sockets {
            socket.udp.set_nonblocking(false)?;
        }
        let places = hub.max_connections.saturating_sub(hub.descriptors);
        let files = Files::new(&ring, places)?;
        let mut uring = Uring {
            datagrams: ManuallyDrop::new(datagrams),
            parcels: ManuallyDrop::new(Parcels::new()),
            watching: vec![false; hub.sockets.len()].into(),
            ring,
            files,
            moved: false,
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
        if hub.table.descriptors() > hub.descriptors {
            self.move_to_table(hub, index)?;
        }
        self.arm_recv(hub, index);
        Ok(())
    }

    fn send<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32, parts: [Payload; 2]) {
        if !self.make_room(hub, index) {
            return;
        }
        let target = Target::of(&hub.table, index);
        if let Some((place, entry)) = self.sends.take(index, target, parts) {
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

    fn set_backlog<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32, bytes: u32) {
        if let Some(fd) = hub.table.fd(index) {
            return socket::set_backlog(fd, bytes);
        }
        if !self.make_room(hub, index) {
            return;
        }
        let (target, option) = (Target::of(&hub.table, index), libc::TCP_NOTSENT_LOWAT);
        if let Some((place, entry)) = self.sends.take_option(index, target, option, bytes) {
            hub.table.slot(index).inflight += 1;
            // SAFETY: as for a send.
            unsafe { self.ring.push(&hub.cells, Op::Option, place, entry) };
        }
    }

    fn send_fin<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) {
        match hub.table.fd(index) {
            Some(fd) => socket::send_fin(fd),
            None => self.shut_down(hub, index, libc::SHUT_WR),
        }
    }

    fn ship<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: usize, parcel: Parcel) {
        if !self.parcels.has_room() {
            // The kernel still owes answers of an earlier batch.
            return outbound::send(hub, self, index, parcel);
        }
        let stamp = hub.stamp();
        let socket = &hub.sockets[index];
        let (fd, v6) = (types::Fd(socket.udp.as_raw_fd()), socket.outbound.v6);
        if let Some((place, entry)) = self.parcels.take(index, fd, v6, stamp, parcel) {
            // SAFETY: `parcels` keeps what the entry points to until `finish`, which is called
            // for this operation's completion only, or for ever (`Drop`).
            unsafe { self.ring.push(&hub.cells, Op::Parcel, place, entry) };
        }
    }

    fn watch_room<X: Machine>(
        &mut self,
        hub: &mut Hub<'_, X>,
        index: usize,
        on: bool,
    ) -> io::Result<()> {
        // Waiting ends by itself when it has come true.
        if on && !std::mem::replace(&mut self.watching[index], true) {
            let fd = types::Fd(hub.sockets[index].udp.as_raw_fd());
            let entry = opcode::PollAdd::new(fd, libc::POLLOUT as u32).build();
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            // SAFETY: the entry points to no memory.
            unsafe { self.ring.push(&hub.cells, Op::Room, index, entry) };
        }
        Ok(())
    }

    fn watch_connect<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) -> io::Result<()> {
        let fd = types::Fd(hub.table.raw_fd(index));
        let entry = opcode::PollAdd::new(fd, libc::POLLOUT as u32).build();
        hub.table.slot(index).inflight += 1;
        // SAFETY: the entry points to no memory.
        unsafe { self.ring.push(&hub.cells, Op::Connect, index, entry) };
        Ok(())
    }

    /// Ends what the kernel still does for the connection by ending the connection itself:
    /// receiving completes with the end of the stream, waiting with a hang-up.
    fn release<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) {
        if let Some(fd) = hub.table.fd(index) {
            // ENOTCONN: it was reset, which completes the operations as well.
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Both);
        } else if hub.table.slot(index).inflight > 0 {
            self.shut_down(hub, index, libc::SHUT_RDWR);
        }
        self.let_go(hub, index);
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
        let target = Target::of(&hub.table, index);
        let entry = opcode::RecvMulti::new(target.fd(), buffers::CONNECTIONS.group).build();
        let entry = target.mark(entry);
        let slot = hub.table.slot(index);
        slot.receiving = true;
        slot.inflight += 1;
        // SAFETY: the entry names the group of `buffers`, which outlives every operation.
        unsafe { self.ring.push(&hub.cells, Op::Recv, index, entry) };
    }

    fn arm_poll<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) {
        let target = Target::of(&hub.table, index);
        let slot = hub.table.slot(index);
        if std::mem::replace(&mut slot.polling, true) {
            return;
        }
        slot.inflight += 1;
        let entry = opcode::PollAdd::new(target.fd(), libc::POLLOUT as u32).build();
        let entry = target.mark(entry);
        // SAFETY: the entry points to no memory.
        unsafe { self.ring.push(&hub.cells, Op::Poll, index, entry) };
    }

    /// Gives the place of a closed connection back when the kernel holds no operation on it.
    fn let_go<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) {
        if !hub.table.is_open(index)
            && hub.table.slot(index).inflight == 0
            && let Some(place) = hub.table.remove(index)
        {
            hub.cells.sub(Cell::UringTableSockets, 1);
            self.files.remove(&self.ring, place);
        }
    }

    /// Waits until another send can be taken. An outbox is not larger than the batch, so there
    /// is room unless the kernel still owes answers of an earlier batch. False if the connection
    /// was closed meanwhile.
    fn make_room<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) -> bool {
        let conn = hub.table.id(index);
        while !self.sends.has_room() {
            if self.ring.wait(&hub.cells, Duration::from_millis(10)).is_err() {
                return false; // Broken: the loop's own wait reports it and ends.
            }
            self.dispatch(hub);
        }
        hub.table.find(conn).is_some()
    }

    /// Puts the socket of a new connection, on which no operation is armed, into the ring's
    /// table and closes its descriptor.
    fn move_to_table<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) -> io::Result<()> {
        debug_assert_eq!(hub.table.slot(index).inflight, 0, "an operation has the descriptor");
        let Some(fd) = hub.table.fd(index) else { return Ok(()) };
        let place = self.files.insert(&self.ring, fd)?;
        hub.table.moved(index, place);
        hub.cells.add(Cell::UringTableSockets, 1);
        self.moved = true;
        Ok(())
    }

    fn shut_down<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32, how: i32) {
        let target = Target::of(&hub.table, index);
        let entry = target.mark(opcode::Shutdown::new(target.fd(), how).build());
        hub.table.slot(index).inflight += 1;
        // SAFETY: the entry points to no memory.
        unsafe { self.ring.push(&hub.cells, Op::Shutdown, index, entry) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    use super::*;
    use crate::base::ids::{ListenerId, ShardId};
    use crate::base::time::{Mono, Now};
    use crate::io::clock::Clock;
    use crate::io::machine::{Input, Outbox};
    use crate::io::mailbox::Post;

    /// Counts what it is told.
    #[derive(Debug, Default)]
    struct Sink {
        connections: usize,
        bytes: usize,
    }

    impl Machine for Sink {
        type Mail = ();
        fn handle(&mut self, _: Now, input: Input<'_, ()>) {
            match input {
                Input::Accepted { .. } => self.connections += 1,
                Input::Received { data, .. } => self.bytes += data.len(),
                other => panic!("{other:?}"),
            }
        }
        fn poll(&mut self, _: Now, _: &mut Outbox<()>) {}
        fn next_deadline(&self) -> Option<Mono> {
            None
        }
    }

    fn setup(listeners: Vec<(ListenerId, TcpListener)>, max_connections: usize) -> Setup<()> {
        Setup {
            sockets: Vec::new(),
            shard: ShardId(0),
            listeners,
            post: Post::new(1, 1, 1).unwrap(),
            clock: Clock::start(),
            cells: Arc::new(Cells::default()),
            max_connections,
            descriptors: max_connections,
            on_ready: Box::new(|| {}),
        }
    }

    #[test]
    fn a_receive_that_finds_no_buffer_is_counted_and_made_up_for() {
        if let Err(why) = crate::io::probe::uring() {
            println!("SKIPPED: {why}");
            return;
        }
        const COUNT: usize = 3 * buffers::CONNECTIONS.count as usize;
        let listener = socket::listen("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        let addr = listener.local_addr().unwrap();
        let (mut sink, setup) = (Sink::default(), setup(vec![(ListenerId(0), listener)], COUNT));
        let mut hub = Hub::new(setup, &mut sink, Now::default());
        let mut uring = Uring::new(&hub).unwrap();
        uring.accept(&mut hub, true);
        let clients: Vec<_> = (0..COUNT).map(|_| TcpStream::connect(addr).unwrap()).collect();
        turn_until(&mut uring, &mut hub, |sink| sink.connections == COUNT);
        for mut client in &clients {
            client.write_all(b"x").unwrap();
            // The kernel receives it, and nobody looks.
            uring.wait(&hub.cells, Duration::ZERO).unwrap();
        }
        turn_until(&mut uring, &mut hub, |sink| sink.bytes == COUNT);
        assert!(hub.cells.get(Cell::UringEnobufs) > 0);
    }

    fn turn_until(uring: &mut Uring, hub: &mut Hub<'_, Sink>, done: impl Fn(&Sink) -> bool) {
        let clock = Clock::start();
        let limit = clock.mono() + Duration::from_secs(10);
        while !done(hub.machine()) {
            assert!(clock.mono() < limit, "{:?}", hub.machine());
            uring.flush(hub);
            uring.wait(&hub.cells, Duration::from_millis(20)).unwrap();
            uring.dispatch(hub);
        }
        uring.flush(hub);
    }

    #[test]
    fn an_overflow_is_counted_and_nothing_is_lost() {
        if let Err(why) = crate::io::probe::uring() {
            println!("SKIPPED: {why}");
            return;
        }
        let mut sink = Sink::default();
        let mut hub = Hub::new(setup(Vec::new(), 1), &mut sink, Now::default());
        let mut uring = Uring::new(&hub).unwrap();
        let count = ring::COMPLETIONS * 3;
        for index in 0..count {
            // SAFETY: a no-op points to nothing.
            unsafe { uring.ring.push(&hub.cells, Op::Cancel, index, opcode::Nop::new().build()) };
        }
        uring.flush(&mut hub);
        while uring.pending() {
            uring.wait(&hub.cells, Duration::ZERO).unwrap();
            uring.dispatch(&mut hub);
        }
        assert_eq!(hub.cells.get(Cell::IoEvents), u64::from(count));
        // The bell is the only operation beside them.
        assert_eq!(hub.cells.get(Cell::UringSubmissions), u64::from(count) + 1);
        assert!((1..=4).contains(&hub.cells.get(Cell::UringOverflow)));
    }
}
