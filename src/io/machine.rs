//! The contract between a driver and the sans-I/O object it runs.
//!
//! A relay shard is a [`Machine`]; io_uring and epoll (later a simulator) are drivers of the
//! same object. A machine reads no clock, no file and no socket. The loop of every driver:
//!
//! 1. Read the clock once: `now`.
//! 2. For everything that happened, call [`Machine::handle`] with one [`Input`].
//! 3. Call [`Machine::poll`] with the empty [`Outbox`]; carry out each [`Output`] in order.
//!    Every `Send` is answered by exactly one `Sent` or `Blocked` (step 2) before the machine
//!    may send on that connection again. Repeat 3 until `poll` adds nothing.
//! 4. Sleep until something happens or [`Machine::next_deadline`] passes. A driver never sleeps
//!    longer than one second, so that its progress counter moves.
//! 5. Go to 1.
//!
//! Life of a connection: one `Accepted`, then any number of `Received`, `Sent`, `Blocked`,
//! `Writable`, then exactly one `Closed`, also after the machine's own `Close`. After `Closed`
//! the [`ConnId`] never comes back. Outputs for a connection that is already closed are ignored
//! by the driver: the machine may not have been told yet.
//!
//! A connection that the machine itself opens begins otherwise: every `Connect` is answered by
//! exactly one `Connected`, from which on it is a connection as any other, or `ConnectFailed`.
//!
//! Datagrams are not answered one by one. What the kernel takes is sent, what the network loses
//! is lost. When the kernel takes no more, the driver keeps what it was given, in order, and says
//! `SocketFull` once; the machine gives nothing for that socket from then on, but what stands in
//! the same outbox already is kept as well. `SocketReady` follows when all of it was sent. Whole
//! datagrams and trains of that outbox that the kernel did take may be ahead of what was kept.

use std::net::{IpAddr, SocketAddr};

use crate::base::ids::{ConnId, ListenerId, ShardId, SocketId, StreamSlot};
use crate::base::limits::SUBTREE_CHUNKS_MAX;
use crate::base::payload::Payload;
use crate::base::time::{Mono, Now};

/// A sans-I/O object that a driver runs: a relay shard, later a viewer's node.
pub trait Machine {
    /// What machines of one process send each other.
    type Mail: Send + 'static;

    /// Takes one event. The input is borrowed: a machine keeps nothing of it.
    fn handle(&mut self, now: Now, input: Input<'_, Self::Mail>);

    /// Adds what is to be done to `out`, up to its capacity. Called until it adds nothing.
    fn poll(&mut self, now: Now, out: &mut Outbox<Self::Mail>);

    /// When `poll` must be called even if nothing happens; `None` if never.
    fn next_deadline(&self) -> Option<Mono>;
}

/// Something that happened, told by the driver.
#[derive(Debug)]
pub enum Input<'a, M> {
    /// A connection came in.
    Accepted {
        /// Its id from now on.
        conn: ConnId,
        /// The socket that it came through.
        listener: ListenerId,
        /// The other end's address.
        peer: SocketAddr,
    },
    /// Bytes arrived. Never empty.
    Received {
        /// The connection.
        conn: ConnId,
        /// The bytes, valid during the call only.
        data: &'a [u8],
    },
    /// One or several datagrams arrived, from one sender, in the order of their arrival.
    Datagrams {
        /// The socket that they came through.
        socket: SocketId,
        /// Who sent them.
        from: SocketAddr,
        /// The address that they were sent to, if the kernel tells.
        to: Option<IpAddr>,
        /// Bytes of each datagram; the last may be shorter. At least 1.
        segment: usize,
        /// The datagrams, one behind the other, valid during the call only. Never empty.
        data: &'a [u8],
    },
    /// The kernel took the first `n` bytes of the last `Send`; `n` may be less than asked for.
    Sent {
        /// The connection.
        conn: ConnId,
        /// Bytes taken, at least 1.
        n: usize,
    },
    /// The kernel took nothing of the last `Send`; `Writable` follows when it would.
    Blocked {
        /// The connection.
        conn: ConnId,
    },
    /// A connection that was `Blocked` can take bytes again.
    Writable {
        /// The connection.
        conn: ConnId,
    },
    /// The connection is gone. The last event of its id.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Why.
        why: Closed,
    },
    /// The kernel takes no more through this socket for now. What it was given is kept by the
    /// driver and is sent first; more than one outbox is not kept.
    SocketFull {
        /// The socket.
        socket: SocketId,
    },
    /// A socket that was full has sent everything and takes more.
    SocketReady {
        /// The socket.
        socket: SocketId,
    },
    /// A connection that the machine asked for is there. From now on it is one as any other.
    Connected {
        /// As the machine named it in its `Connect`.
        token: u64,
        /// Its id from now on.
        conn: ConnId,
    },
    /// A connection that the machine asked for did not come about.
    ConnectFailed {
        /// As the machine named it in its `Connect`.
        token: u64,
        /// Why.
        why: ConnectError,
    },
    /// Mail from another machine, or from itself.
    Mail(M),
    /// A stream that this machine serves has grown (see [`Output::Head`]).
    Head {
        /// Its place in the registry.
        stream: StreamSlot,
    },
    /// The process is to end: finish what is open. The driver stops when the last connection
    /// is closed, or after a grace period.
    Drain,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The machine asked for it.
    Local,
    /// The other end closed, or closed its sending half.
    Eof,
    /// The other end reset the connection.
    Reset,
    /// The kernel gave up: no answer from the other end.
    TimedOut,
    /// Any other error of the socket.
    Error,
}

/// Why a connection that the machine asked for did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// Nobody listens there.
    Refused,
    /// No way leads there.
    Unreachable,
    /// No answer within five seconds.
    TimedOut,
    /// The table of connections is full, or descriptors or memory have run out.
    NoRoom,
    /// Anything else; the process ends, for one.
    Other,
}

/// Several datagrams to one peer, handed to the kernel by one call: at most one subtree with the
/// datagram that proves it.
///
/// What differs between peers is written by the driver when it submits the train; everything
/// else is sent from where it lies.
#[derive(Clone, Debug)]
pub struct Train {
    /// The socket to send through.
    pub socket: SocketId,
    /// The peer.
    pub to: SocketAddr,
    /// The address to send from: the one that the peer wrote to. `None`: the kernel chooses.
    pub from: Option<IpAddr>,
    /// The peer's channel id: written over the first four bytes of every datagram, big-endian.
    pub channel: u32,
    /// The first datagram as a whole, or nothing. If others follow, it must have their length,
    /// `header` + `chunk`.
    pub head: Payload,
    /// One header of `header` bytes for each of the other datagrams. The last eight bytes of each
    /// are overwritten by the time of submission: microseconds of the monotonic clock (the one of
    /// [`Now`]), big-endian.
    pub headers: Payload,
    /// Bytes of one header: at least 12, at most [`HEADER_MAX`].
    pub header: u16,
    /// The chunks of the other datagrams, one behind the other, [`Train::chunk`] bytes each; at
    /// most [`TRAIN_MAX`].
    pub body: Payload,
    /// Bytes of one chunk.
    pub chunk: u16,
}

/// The most datagrams of a [`Train`] behind its head: one largest subtree.
pub const TRAIN_MAX: usize = SUBTREE_CHUNKS_MAX;

/// The most bytes of one header in a [`Train`]: channel, type, two 64-bit chunk ids, time stamp.
pub const HEADER_MAX: usize = 29;

/// Something to be done by the driver.
#[derive(Debug)]
pub enum Output<M> {
    /// Send the two parts, one after the other, as one write that does not block.
    Send {
        /// The connection.
        conn: ConnId,
        /// Handles on the bytes; the driver keeps neither beyond the call that submits them.
        parts: [Payload; 2],
    },
    /// Set the most unsent bytes that the kernel may hold for this connection
    /// (`TCP_NOTSENT_LOWAT`), so that a slow reader's lag stays visible.
    Backlog {
        /// The connection.
        conn: ConnId,
        /// Bytes.
        bytes: u32,
    },
    /// Send FIN and go on receiving: lets the other end read a response before the close.
    Shutdown {
        /// The connection.
        conn: ConnId,
    },
    /// Close the connection now. `Closed` follows.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Send one datagram, as it is.
    Datagram {
        /// The socket to send through.
        socket: SocketId,
        /// To whom.
        to: SocketAddr,
        /// The address to send from: the one that the other end wrote to. `None`: the kernel
        /// chooses.
        from: Option<IpAddr>,
        /// Its bytes.
        data: Payload,
    },
    /// Send several datagrams to one peer.
    Train(Train),
    /// Open a TCP connection. `Connected` or `ConnectFailed` follows, after five seconds at the
    /// latest.
    Connect {
        /// The machine's own name for it.
        token: u64,
        /// Where to.
        to: SocketAddr,
    },
    /// Mail to another machine of the process (or to itself), in order, never lost.
    Mail {
        /// The machine's shard.
        shard: ShardId,
        /// What to tell it.
        mail: M,
    },
    /// Tell the machine of `shard` that `stream` has grown. Many may fuse into one.
    Head {
        /// The machine's shard.
        shard: ShardId,
        /// The stream's place in the registry.
        stream: StreamSlot,
    },
}

/// A reused list of outputs with a fixed capacity: what one round of [`Machine::poll`] may add.
#[derive(Debug)]
pub struct Outbox<M> {
    items: Vec<Output<M>>,
    capacity: usize,
}

impl<M> Outbox<M> {
    /// An outbox that holds `capacity` outputs. The only allocation it ever makes.
    #[must_use]
    pub fn new(capacity: usize) -> Outbox<M> {
        Outbox { items: Vec::with_capacity(capacity), capacity }
    }

    /// Whether another output fits. A machine asks before it takes work from its own queues.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.items.len() < self.capacity
    }

    /// Adds an output.
    ///
    /// # Panics
    /// If the outbox is full: the machine did not ask [`Outbox::has_room`].
    pub fn push(&mut self, output: Output<M>) {
        assert!(self.has_room(), "outbox is full");
        self.items.push(output);
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The outputs in order, for the driver.
    #[must_use]
    pub fn as_slice(&self) -> &[Output<M>] {
        &self.items
    }

    /// Takes the outputs out in order, keeping the memory.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Output<M>> {
        self.items.drain(..)
    }
}
