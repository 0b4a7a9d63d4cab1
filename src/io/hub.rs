//! What both drivers share: the connections, whether new ones are let in, and the one way in
//! which a machine is told what happened.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::base::ids::{ListenerId, ShardId, SocketId};
use crate::base::time::{Mono, Now};
use crate::io::clock::Clock;
use crate::io::connect::Attempts;
use crate::io::driver::{Backend, Setup};
use crate::io::machine::{Closed, Input, Machine};
use crate::io::mailbox::Post;
use crate::io::outbound::Outbound;
use crate::io::parcel::Frame;
use crate::io::socket::{self, AcceptError};
use crate::io::table::Table;
use crate::io::udp::Control;
use crate::metrics::cells::Cells;
use crate::metrics::table::Cell;

/// How long no connection is accepted after the table was full or descriptors ran out.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections that the kernel had accepted for us already when the table was full, kept until
/// there is room. Beyond it they are closed.
const HELD_MAX: usize = 64;

/// Whether new connections are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// Not before this time.
    Paused(Mono),
    /// Never again: the process ends.
    Shut,
}

/// A socket for datagrams.
pub(super) struct Datagram {
    pub id: SocketId,
    pub udp: UdpSocket,
    /// Its sending half.
    pub outbound: Outbound,
    /// Datagrams that the kernel had dropped when it last said so, modulo 2^32.
    dropped: u32,
}

/// The state of one driver, apart from how it talks to the kernel.
pub(super) struct Hub<'m, X: Machine> {
    machine: &'m mut X,
    /// Read once per round.
    pub now: Now,
    pub table: Table,
    pub cells: Arc<Cells>,
    pub listeners: Vec<(ListenerId, TcpListener)>,
    pub sockets: Vec<Datagram>,
    pub shard: ShardId,
    pub max_connections: usize,
    pub descriptors: usize,
    pub post: Post<X::Mail>,
    /// What the kernel reads while a datagram is sent by a plain call.
    pub frame: Box<Frame>,
    /// Connections that are being opened.
    pub attempts: Attempts,
    clock: Clock,
    gate: Gate,
    /// Accepted sockets without a place, with their listener's index.
    held: VecDeque<(usize, OwnedFd)>,
}

impl<'m, X: Machine> Hub<'m, X> {
    /// Takes over what the node set up. Allocates the table.
    pub fn new(setup: Setup<X::Mail>, machine: &'m mut X, now: Now) -> Hub<'m, X> {
        Hub {
            machine,
            now,
            table: Table::new(setup.max_connections),
            cells: setup.cells,
            listeners: setup.listeners,
            sockets: setup
                .sockets
                .into_iter()
                .map(|(id, udp)| Datagram { id, outbound: Outbound::new(&udp), udp, dropped: 0 })
                .collect(),
            shard: setup.shard,
            max_connections: setup.max_connections,
            descriptors: setup.descriptors,
            post: setup.post,
            frame: Box::new(Frame::new()),
            attempts: Attempts::new(),
            clock: setup.clock,
            gate: Gate::Open,
            held: VecDeque::with_capacity(HELD_MAX),
        }
    }

    /// Tells the machine.
    pub fn tell(&mut self, input: Input<'_, X::Mail>) {
        self.machine.handle(self.now, input);
    }

    /// The machine, for the steps of the loop that are not inputs.
    pub fn machine(&mut self) -> &mut X {
        self.machine
    }

    /// Bytes came in.
    pub fn received(&mut self, index: u32, data: &[u8]) {
        let conn = self.table.id(index);
        self.tell(Input::Received { conn, data });
    }

    /// One or several datagrams came in through the socket at `index`. Without a sender the
    /// kernel had to leave something out: they are thrown away.
    pub fn datagrams(
        &mut self,
        index: usize,
        from: Option<SocketAddr>,
        control: Control,
        data: &[u8],
    ) {
        let Some(socket) = self.sockets.get_mut(index) else { return };
        if let Some(dropped) = control.dropped {
            let more = dropped.wrapping_sub(std::mem::replace(&mut socket.dropped, dropped));
            self.cells.add(Cell::DatagramsKernelDropped, u64::from(more));
        }
        let socket = socket.id;
        let Some(from) = from else {
            return self.cells.add(Cell::DatagramsTruncated, 1);
        };
        if !data.is_empty() {
            let segment = control.segment.unwrap_or(data.len()).min(data.len());
            self.tell(Input::Datagrams { socket, from, to: control.to, segment, data });
        }
    }

    /// The kernel took `n` bytes.
    pub fn sent(&mut self, index: u32, n: usize) {
        let slot = self.table.slot(index);
        (slot.sending, slot.blocked) = (false, false);
        let conn = self.table.id(index);
        self.tell(Input::Sent { conn, n });
    }

    /// The kernel took nothing.
    pub fn blocked(&mut self, index: u32) {
        let slot = self.table.slot(index);
        (slot.sending, slot.blocked) = (false, true);
        let conn = self.table.id(index);
        self.tell(Input::Blocked { conn });
    }

    /// The kernel would take bytes; told only to who was blocked.
    pub fn writable(&mut self, index: u32) {
        if std::mem::replace(&mut self.table.slot(index).blocked, false) {
            let conn = self.table.id(index);
            self.tell(Input::Writable { conn });
        }
    }

    /// Another thread rang the bell.
    pub fn woken(&mut self) {
        self.cells.add(Cell::Wakeups, 1);
        self.post.silence(self.shard);
    }

    /// Whether a new connection may be accepted now.
    pub fn accepting(&self) -> bool {
        self.gate == Gate::Open
    }

    /// Whether the process ends and nobody is let in any more.
    pub fn is_shut(&self) -> bool {
        self.gate == Gate::Shut
    }

    /// When the gate, a full socket or a connection that is being opened is to be looked at.
    pub fn next_deadline(&self) -> Option<Mono> {
        let gate = match self.gate {
            Gate::Paused(until) => Some(until),
            Gate::Open | Gate::Shut => None,
        };
        let sockets = self.sockets.iter().filter_map(|socket| socket.outbound.retry());
        sockets.chain(gate).chain(self.attempts.next_deadline()).min()
    }

    /// The time for a datagram that is submitted now, in microseconds.
    pub fn stamp(&self) -> u64 {
        self.clock.mono().as_nanos() / 1000
    }

    /// Accepts nothing for a while. Called when something has run out.
    pub fn pause(&mut self, class: Cell) {
        self.cells.add(class, 1);
        if self.gate == Gate::Open {
            self.gate = Gate::Paused(self.now.mono + PAUSE);
        }
    }

    /// An accept failed. Whether it should be tried again at once.
    pub fn accept_failed(&mut self, errno: Errno) -> bool {
        match socket::accept_error(errno) {
            AcceptError::Nothing => return false,
            AcceptError::Exhausted => self.pause(Cell::AcceptErrorsExhausted),
            AcceptError::Listener => self.pause(Cell::AcceptErrorsOther),
            AcceptError::ThisOne => self.cells.add(Cell::AcceptErrorsOther, 1),
        }
        self.accepting()
    }
}

/// A socket was accepted: gives it a place, begins to receive, tells the machine.
pub(super) fn accepted<X: Machine, B: Backend>(
    hub: &mut Hub<'_, X>,
    backend: &mut B,
    listener: usize,
    fd: OwnedFd,
) {
    if hub.gate == Gate::Shut {
        return;
    }
    if !hub.table.has_room() {
        hub.pause(Cell::AcceptErrorsExhausted);
        if hub.held.len() < HELD_MAX {
            hub.held.push_back((listener, fd));
        }
        return;
    }
    let Ok(peer) = socket::prepare(fd.as_fd()) else {
        hub.cells.add(Cell::AcceptErrorsOther, 1);
        return;
    };
    let Some(index) = hub.table.insert(fd) else { return };
    if backend.open(hub, index).is_err() {
        hub.cells.add(Cell::AcceptErrorsOther, 1);
        hub.table.remove(index);
        return;
    }
    let (conn, listener) = (hub.table.id(index), hub.listeners[listener].0);
    hub.tell(Input::Accepted { conn, listener, peer });
    if !hub.table.has_room() {
        // Before the next one comes: it shall wait in the kernel's queue, not be turned away.
        hub.pause(Cell::AcceptErrorsExhausted);
    }
}

/// Ends a connection: the machine is told exactly once, the backend lets the socket go.
pub(super) fn close<X: Machine, B: Backend>(
    hub: &mut Hub<'_, X>,
    backend: &mut B,
    index: u32,
    why: Closed,
) {
    let conn = hub.table.id(index);
    if hub.table.close(index) {
        hub.tell(Input::Closed { conn, why });
        backend.release(hub, index);
    }
}

/// Opens the gate again when its time has come and there is room, held connections first.
pub(super) fn reopen<X: Machine, B: Backend>(hub: &mut Hub<'_, X>, backend: &mut B) {
    match hub.gate {
        Gate::Paused(until) if until <= hub.now.mono => {}
        _ => return,
    }
    if !hub.table.has_room() {
        hub.gate = Gate::Paused(hub.now.mono + PAUSE);
        return;
    }
    hub.gate = Gate::Open;
    while hub.accepting() {
        let Some((listener, fd)) = hub.held.pop_front() else { break };
        accepted(hub, backend, listener, fd);
    }
}

/// Lets nobody in any more: the listeners are closed.
pub(super) fn shut<X: Machine, B: Backend>(hub: &mut Hub<'_, X>, backend: &mut B) {
    hub.gate = Gate::Shut;
    hub.held.clear();
    backend.accept(hub, false);
    for (_, listener) in hub.listeners.drain(..) {
        // An accept operation that is still armed keeps the socket although it is closed here.
        let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::base::payload::Payload;
    use crate::io::machine::Outbox;

    /// Counts its connections.
    #[derive(Default)]
    struct Counter(usize);

    impl Machine for Counter {
        type Mail = ();
        fn handle(&mut self, _: Now, input: Input<'_, ()>) {
            self.0 += usize::from(matches!(input, Input::Accepted { .. }));
        }
        fn poll(&mut self, _: Now, _: &mut Outbox<()>) {}
        fn next_deadline(&self) -> Option<Mono> {
            None
        }
    }

    /// A kernel in which nothing happens.
    struct Still;

    impl Backend for Still {
        fn new<X: Machine>(_: &Hub<'_, X>) -> std::io::Result<Still> {
            Ok(Still)
        }
        fn accept<X: Machine>(&mut self, _: &mut Hub<'_, X>, _: bool) {}
        fn open<X: Machine>(&mut self, _: &mut Hub<'_, X>, _: u32) -> std::io::Result<()> {
            Ok(())
        }
        fn send<X: Machine>(&mut self, _: &mut Hub<'_, X>, _: u32, _: [Payload; 2]) {}
        fn settle<X: Machine>(&mut self, _: &mut Hub<'_, X>, _: u32) {}
        fn watch_room<X: Machine>(
            &mut self,
            _: &mut Hub<'_, X>,
            _: usize,
            _: bool,
        ) -> std::io::Result<()> {
            Ok(())
        }
        fn watch_connect<X: Machine>(&mut self, _: &mut Hub<'_, X>, _: u32) -> std::io::Result<()> {
            Ok(())
        }
        fn release<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) {
            hub.table.remove(index);
        }
        fn flush<X: Machine>(&mut self, _: &mut Hub<'_, X>) {}
        fn dispatch<X: Machine>(&mut self, _: &mut Hub<'_, X>) {}
        fn pending(&mut self) -> bool {
            false
        }
        fn wait(&mut self, _: &Cells, _: Duration) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn accepting_pauses_when_something_runs_out_and_held_sockets_go_first() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let setup = Setup {
            shard: ShardId(0),
            listeners: vec![(ListenerId(0), listener.try_clone().unwrap())],
            sockets: Vec::new(),
            post: Post::new(1, 1, 1).unwrap(),
            clock: Clock::start(),
            cells: Arc::new(Cells::default()),
            max_connections: 1,
            descriptors: 1,
            on_ready: Box::new(|| {}),
        };
        let mut machine = Counter::default();
        let mut hub = Hub::new(setup, &mut machine, Now::default());
        let exhausted = |hub: &Hub<'_, Counter>| hub.cells.get(Cell::AcceptErrorsExhausted);

        assert!(hub.accept_failed(Errno::CONNABORTED), "the next one may be fine");
        assert!(!hub.accept_failed(Errno::MFILE) && !hub.accepting());
        assert_eq!(exhausted(&hub), 1);
        hub.now.mono = hub.now.mono + PAUSE / 2;
        reopen(&mut hub, &mut Still);
        assert!(!hub.accepting(), "not yet");
        hub.now.mono = hub.now.mono + PAUSE;
        reopen(&mut hub, &mut Still);
        assert!(hub.accepting());

        // Two that the kernel had accepted already; one place.
        let clients: Vec<_> = (0..2).map(|_| TcpStream::connect(addr).unwrap()).collect();
        for _ in &clients {
            let fd = listener.accept().unwrap().0.into();
            accepted(&mut hub, &mut Still, 0, fd);
        }
        assert_eq!((hub.machine().0, exhausted(&hub), hub.held.len()), (1, 3, 1));
        hub.now.mono = hub.now.mono + PAUSE;
        reopen(&mut hub, &mut Still);
        assert!(!hub.accepting(), "still no place");
        close(&mut hub, &mut Still, 0, Closed::Local);
        hub.now.mono = hub.now.mono + PAUSE;
        reopen(&mut hub, &mut Still);
        assert_eq!((hub.machine().0, hub.held.len()), (2, 0));
        shut(&mut hub, &mut Still);
        assert!(!hub.accepting() && hub.next_deadline().is_none());
    }
}
