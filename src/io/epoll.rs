//! The epoll driver: mio's edge-triggered readiness, and plain non-blocking calls.
//!
//! Edge-triggered means that the kernel reports a change once. So what was reported and not
//! used up (unread bytes, waiting connections) is remembered here.

use std::collections::VecDeque;
use std::io;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags};

use crate::base::payload::Payload;
use crate::io::connect;
use crate::io::driver::{self, Backend, Setup};
use crate::io::hub::{self, Hub};
use crate::io::machine::{Closed, Machine};
use crate::io::outbound;
use crate::io::recvmmsg::{Batch, MESSAGES};
use crate::io::socket;
use crate::io::udp::Control;
use crate::metrics::cells::Cells;
use crate::metrics::table::Cell;

/// Readiness events taken per wait.
const EVENTS: usize = 1024;

/// Bytes of the one buffer into which everything is received.
const SCRATCH: usize = 64 * 1024;

/// Reads of one connection per round. One that has more goes to the end of the list.
const READS_MAX: usize = 4;

/// Connections accepted from one listener per round.
const ACCEPTS_MAX: usize = 64;

/// Shorter waits than this are not left to mio, which rounds up to whole milliseconds: half of
/// one on average, as much as all else that delays a byte on an idle shard.
const FINE: Duration = Duration::from_millis(5);

/// The token of the bell; listeners, then sockets for datagrams, count down from the one below,
/// connections up from 0.
const BELL: Token = Token(usize::MAX - 1);

/// Runs `machine` until drained or halted, on the calling thread.
///
/// # Errors
/// If epoll(7) cannot be set up or fails as a whole; errors of one connection only close it.
pub fn run<X: Machine>(setup: Setup<X::Mail>, machine: &mut X) -> io::Result<()> {
    driver::drive::<X, Epoll>(setup, machine)
}

struct Epoll {
    poll: Poll,
    events: Events,
    scratch: Box<[u8]>,
    /// Connections that may have more to read, in the order of their turn. An entry whose
    /// connection is gone costs one read that finds nothing.
    ready: VecDeque<u32>,
    /// Listeners that may have connections waiting.
    waiting: Box<[bool]>,
    accepting: bool,
    /// Sockets that may have datagrams waiting.
    arrived: Box<[bool]>,
    /// Made if there are such sockets.
    batch: Option<Batch>,
}

/// The token of the listener at `index`; those of the sockets for datagrams follow.
fn listener_token(index: usize) -> Token {
    Token(BELL.0 - 1 - index)
}

impl Backend for Epoll {
    fn new<X: Machine>(hub: &Hub<'_, X>) -> io::Result<Epoll> {
        let poll = Poll::new()?;
        let bell = hub.post.bell(hub.shard).as_raw_fd();
        poll.registry().register(&mut SourceFd(&bell), BELL, Interest::READABLE)?;
        for (index, (_, listener)) in hub.listeners.iter().enumerate() {
            listener.set_nonblocking(true)?;
            let fd = listener.as_raw_fd();
            let token = listener_token(index);
            poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        }
        for (index, socket) in hub.sockets.iter().enumerate() {
            let fd = socket.udp.as_raw_fd();
            let token = listener_token(hub.listeners.len() + index);
            poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        }
        Ok(Epoll {
            arrived: vec![false; hub.sockets.len()].into(),
            batch: (!hub.sockets.is_empty()).then(Batch::new),
            poll,
            events: Events::with_capacity(EVENTS),
            scratch: vec![0; SCRATCH].into(),
            ready: VecDeque::with_capacity(hub.max_connections),
            waiting: vec![false; hub.listeners.len()].into(),
            accepting: false,
        })
    }

    /// Costs no system call: readiness that was reported meanwhile is kept in `waiting`.
    fn accept<X: Machine>(&mut self, _: &mut Hub<'_, X>, on: bool) {
        self.accepting = on;
    }

    fn open<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        let (fd, token) = (hub.table.raw_fd(index), Token(index as usize));
        let registry = self.poll.registry();
        match registry.register(&mut SourceFd(&fd), token, both) {
            // One that was being opened. What is ready by now is reported once more.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                registry.reregister(&mut SourceFd(&fd), token, both)
            }
            result => result,
        }
    }

    fn send<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32, parts: [Payload; 2]) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let Some(fd) = hub.table.fd(index) else { return };
        let sent = loop {
            let [first, second] = [parts[0].as_slice(), parts[1].as_slice()];
            let sent = if second.is_empty() {
                rustix::net::send(fd, first, flags)
            } else {
                let parts = [IoSlice::new(first), IoSlice::new(second)];
                rustix::net::sendmsg(fd, &parts, &mut SendAncillaryBuffer::default(), flags)
            };
            if sent != Err(Errno::INTR) {
                break sent;
            }
        };
        match sent {
            Ok(n) => hub.sent(index, n),
            Err(Errno::AGAIN) => hub.blocked(index),
            Err(errno) => hub::close(hub, self, index, socket::closed_by(errno)),
        }
    }

    fn settle<X: Machine>(&mut self, _: &mut Hub<'_, X>, _: u32) {}

    fn watch_room<X: Machine>(
        &mut self,
        hub: &mut Hub<'_, X>,
        index: usize,
        on: bool,
    ) -> io::Result<()> {
        // Not always: every datagram that leaves makes the socket writable once more.
        let room = on.then_some(Interest::WRITABLE);
        let interest = room.map_or(Interest::READABLE, |room| room | Interest::READABLE);
        let fd = hub.sockets[index].udp.as_raw_fd();
        let token = listener_token(self.waiting.len() + index);
        self.poll.registry().reregister(&mut SourceFd(&fd), token, interest)
    }

    fn watch_connect<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) -> io::Result<()> {
        let (fd, token) = (hub.table.raw_fd(index), Token(index as usize));
        self.poll.registry().register(&mut SourceFd(&fd), token, Interest::WRITABLE)
    }

    /// Closing the only descriptor takes a socket out of the epoll set.
    fn release<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) {
        hub.table.remove(index);
    }

    fn flush<X: Machine>(&mut self, _: &mut Hub<'_, X>) {}

    fn dispatch<X: Machine>(&mut self, hub: &mut Hub<'_, X>) {
        self.take_events(hub);
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { break };
            hub.table.slot(index).ready = false;
            if hub.table.is_open(index) && self.receive(hub, index) {
                hub.table.slot(index).ready = true;
                self.ready.push_back(index);
            }
        }
        for socket in 0..self.arrived.len() {
            self.receive_datagrams(hub, socket);
        }
        for listener in 0..hub.listeners.len() {
            self.accept_from(hub, listener);
        }
    }

    fn pending(&mut self) -> bool {
        !self.ready.is_empty()
            || self.arrived.contains(&true)
            || (self.accepting && self.waiting.contains(&true))
    }

    fn wait(&mut self, cells: &Cells, timeout: Duration) -> io::Result<()> {
        cells.add(Cell::IoEnters, 1);
        let mut timeout = timeout;
        if !timeout.is_zero() && timeout < FINE {
            cells.add(Cell::IoEnters, 1);
            self.wait_finely(timeout)?;
            timeout = Duration::ZERO;
        }
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            result => result,
        }
    }
}

impl Epoll {
    /// Waits until epoll has something to report, to the nanosecond: an epoll descriptor can
    /// itself be polled.
    fn wait_finely(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
        // SAFETY: `self.poll` owns the descriptor and outlives this call.
        let set = unsafe { BorrowedFd::borrow_raw(self.poll.as_raw_fd()) };
        match rustix::event::poll(&mut [PollFd::new(&set, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sorts what epoll reported into the lists, and tells who can write again.
    fn take_events<X: Machine>(&mut self, hub: &mut Hub<'_, X>) {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let mut count = 0;
        for event in &events {
            count += 1;
            if event.token() == BELL {
                hub.woken();
                continue;
            }
            let Ok(index) = u32::try_from(event.token().0) else {
                self.take_socket_event(hub, event);
                continue;
            };
            // An event of this batch for a connection that an earlier input closed finds the
            // place closed. None finds a new connection there: accepting comes last, and
            // connecting too.
            if !hub.table.is_open(index) {
                if hub.table.slot(index).connecting {
                    connect::decided(hub, self, index);
                }
                continue;
            }
            let slot = hub.table.slot(index);
            let failed = event.is_error();
            slot.ended |= event.is_read_closed() || failed;
            if (event.is_readable() || slot.ended) && !slot.ready {
                slot.ready = true;
                self.ready.push_back(index);
            }
            if event.is_writable() || failed {
                hub.writable(index);
            }
        }
        events.clear();
        self.events = events;
        hub.cells.add(Cell::IoEvents, count);
    }

    /// Something happened at a listener or a socket for datagrams.
    fn take_socket_event<X: Machine>(&mut self, hub: &mut Hub<'_, X>, event: &Event) {
        let place = BELL.0 - 1 - event.token().0;
        match place.checked_sub(self.waiting.len()) {
            None => self.waiting[place] = true,
            Some(socket) => {
                if let Some(arrived) = self.arrived.get_mut(socket) {
                    *arrived = true;
                    if event.is_writable() {
                        outbound::room(hub, self, socket);
                    }
                }
            }
        }
    }

    /// Reads a few times. Whether there may be more.
    fn receive<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) -> bool {
        for _ in 0..READS_MAX {
            let Some(fd) = hub.table.fd(index) else { return false };
            match rustix::net::recv(fd, &mut self.scratch[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    hub::close(hub, self, index, Closed::Eof);
                    return false;
                }
                Ok((n, _)) => {
                    hub.received(index, &self.scratch[..n]);
                    // epoll(7): less than asked for means that all was read, unless the end
                    // was reported already, for which no other event would come.
                    if n < SCRATCH && !hub.table.slot(index).ended {
                        return false;
                    }
                }
                Err(Errno::AGAIN) => return false,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    hub::close(hub, self, index, socket::closed_by(errno));
                    return false;
                }
            }
        }
        true
    }

    /// Receives datagrams until none wait or it is another socket's turn.
    fn receive_datagrams<X: Machine>(&mut self, hub: &mut Hub<'_, X>, socket: usize) {
        let Some(batch) = &mut self.batch else { return };
        for _ in 0..READS_MAX {
            if !self.arrived[socket] {
                return;
            }
            let count = match batch.receive(hub.sockets[socket].udp.as_fd()) {
                Ok(count) => count,
                // Whatever else it is belongs to this one call: the next event tells.
                Err(errno) => {
                    self.arrived[socket] = errno == Errno::INTR;
                    continue;
                }
            };
            self.arrived[socket] = count == MESSAGES;
            for index in 0..count {
                let message = batch.message(index);
                let (from, control) = message
                    .read()
                    .map_or((None, Control::default()), |read| (Some(read.0), read.1));
                hub.datagrams(socket, from, control, message.data);
            }
        }
    }

    /// Accepts until nobody waits, the gate closes, or it is another listener's turn.
    fn accept_from<X: Machine>(&mut self, hub: &mut Hub<'_, X>, listener: usize) {
        for _ in 0..ACCEPTS_MAX {
            if !self.waiting[listener] || !self.accepting || !hub.accepting() {
                return;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(&hub.listeners[listener].1, flags) {
                Ok(fd) => hub::accepted(hub, self, listener, fd),
                Err(Errno::AGAIN) => self.waiting[listener] = false,
                Err(errno) => {
                    hub.accept_failed(errno);
                }
            }
        }
    }
}
