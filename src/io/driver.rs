//! The loop of every driver, written once. A backend is the part that differs: how it waits,
//! receives, sends and accepts.
//!
//! [`crate::io::machine`] numbers the steps; the comments in `Loop::round` repeat the numbers.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::{ListenerId, ShardId, SocketId};
use crate::base::payload::Payload;
use crate::base::time::Mono;
use crate::io::clock::Clock;
use crate::io::connect;
use crate::io::hub::{self, Hub};
use crate::io::machine::{Closed, Input, Machine, Outbox, Output};
use crate::io::mailbox::{Phase, Post};
use crate::io::outbound;
use crate::io::outgoing::Outgoing;
use crate::io::parcel::{Content, Parcel};
use crate::io::socket;
use crate::metrics::cells::Cells;
use crate::metrics::table::Cell;

/// Outputs per call of `poll`, and so sends per system call of the io_uring driver. Measured
/// batches of 32 to 128 cost the same per send; the largest asks the machine least often.
pub(super) const BATCH: usize = 128;

/// How long the machine may be asked for more before the loop looks at the clock, the sockets
/// and its mail again: streams are looked at once per millisecond of work. By time and not by
/// count, for a send costs between one and twenty microseconds, depending on its bytes.
const WORK_MAX: Duration = Duration::from_millis(1);

/// No sleep is longer, so that the progress counter moves.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// How long connections may go on after a drain began.
const GRACE: Duration = Duration::from_secs(2);

/// What the node gives a driver.
pub struct Setup<M> {
    /// Which shard this is.
    pub shard: ShardId,
    /// The sockets to accept from, not blocking, as [`crate::io::socket::listen`] makes them.
    pub listeners: Vec<(ListenerId, TcpListener)>,
    /// The sockets to receive datagrams from, as [`crate::io::udp::bind`] makes them.
    pub sockets: Vec<(SocketId, UdpSocket)>,
    /// The mailboxes of all shards.
    pub post: Post<M>,
    /// The clock.
    pub clock: Clock,
    /// The shard's counters; this thread is their only writer.
    pub cells: Arc<Cells>,
    /// The most connections of this driver at one time.
    pub max_connections: usize,
    /// How many of them may have a descriptor of the process. The io_uring driver moves the
    /// others into its ring's own table; under epoll every connection has one.
    pub descriptors: usize,
    /// Called once, when connections are being accepted.
    pub on_ready: Box<dyn FnOnce() + Send>,
}

/// The part of a driver that talks to the kernel.
pub(super) trait Backend: Sized {
    /// Prepares everything that the loop will need.
    fn new<X: Machine>(hub: &Hub<'_, X>) -> io::Result<Self>;

    /// Begins or stops accepting from the hub's listeners. Idempotent.
    fn accept<X: Machine>(&mut self, hub: &mut Hub<'_, X>, on: bool);

    /// Begins to receive on a new connection, accepted or opened.
    fn open<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) -> io::Result<()>;

    /// Takes one send, to be answered by `sent`, `blocked` or `close` at the latest in `flush`.
    fn send<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32, parts: [Payload; 2]);

    /// Sees to it that a send which was taken before reaches the socket before what follows.
    fn settle<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32);

    /// Limits the unsent bytes that the kernel holds for a connection.
    fn set_backlog<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32, bytes: u32) {
        if let Some(fd) = hub.table.fd(index) {
            socket::set_backlog(fd, bytes);
        }
    }

    /// Sends FIN behind what was sent, and goes on receiving.
    fn send_fin<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) {
        if let Some(fd) = hub.table.fd(index) {
            socket::send_fin(fd);
        }
    }

    /// Sends a parcel through the datagram socket at `index`, to be answered by
    /// `outbound::conclude` at the latest in `flush`.
    fn ship<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: usize, parcel: Parcel) {
        outbound::send(hub, self, index, parcel);
    }

    /// Begins (`on`) or stops to wait until the datagram socket at `index` is writable, which
    /// `outbound::room` is then told.
    fn watch_room<X: Machine>(
        &mut self,
        hub: &mut Hub<'_, X>,
        index: usize,
        on: bool,
    ) -> io::Result<()>;

    /// Begins to wait until the kernel has opened a connection or failed to, which
    /// `connect::decided` is then told.
    fn watch_connect<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32) -> io::Result<()>;

    /// Lets the socket of a closed connection go and gives its place back, now or as soon as
    /// the kernel holds no operation on it.
    fn release<X: Machine>(&mut self, hub: &mut Hub<'_, X>, index: u32);

    /// Answers every send that was taken.
    fn flush<X: Machine>(&mut self, hub: &mut Hub<'_, X>);

    /// Tells the hub everything that has happened.
    fn dispatch<X: Machine>(&mut self, hub: &mut Hub<'_, X>);

    /// Whether there is something to do without waiting.
    fn pending(&mut self) -> bool;

    /// Waits until something happens, at most `timeout`. Being interrupted is no error.
    fn wait(&mut self, cells: &Cells, timeout: Duration) -> io::Result<()>;
}

/// Marks the shard as ended whatever way the loop is left, a panic included, so that no other
/// shard waits for it.
struct Leaving<M: Send> {
    post: Post<M>,
    shard: ShardId,
    idle: bool,
}

impl<M: Send> Leaving<M> {
    fn set_idle(&mut self) {
        if !std::mem::replace(&mut self.idle, true) {
            self.post.set_idle();
        }
    }
}

impl<M: Send> Drop for Leaving<M> {
    fn drop(&mut self) {
        self.set_idle();
        self.post.close(self.shard);
    }
}

/// Runs `machine` until the process is drained or halted.
pub(super) fn drive<X: Machine, B: Backend>(
    mut setup: Setup<X::Mail>,
    machine: &mut X,
) -> io::Result<()> {
    let leaving = Leaving { post: setup.post.clone(), shard: setup.shard, idle: false };
    let on_ready = std::mem::replace(&mut setup.on_ready, Box::new(|| {}));
    let clock = setup.clock;
    let mut hub = Hub::new(setup, machine, clock.now());
    // The fields of `Loop` go before the hub: no operation outlives its socket's place.
    let backend = B::new(&hub)?;
    let outgoing = Outgoing::new(hub.post.shards(), BATCH);
    let outbox = Outbox::new(BATCH);
    let mut lap =
        Loop { backend, outbox, outgoing, clock, leaving, seen: Phase::Running, end: None };
    lap.backend.accept(&mut hub, true);
    lap.backend.wait(&hub.cells, Duration::ZERO)?;
    on_ready();
    let result = loop {
        let Some(timeout) = lap.round(&mut hub) else { break Ok(()) };
        let busy = clock.mono().since(hub.now.mono);
        hub.cells.add(Cell::BusyNanos, u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX));
        if let Err(error) = lap.backend.wait(&hub.cells, timeout) {
            break Err(error);
        }
        hub.post.get_up(hub.shard);
    };
    connect::give_up(&mut hub, &mut lap.backend, true);
    for index in 0..u32::try_from(hub.table.len()).unwrap_or(u32::MAX) {
        hub::close(&mut hub, &mut lap.backend, index, Closed::Local);
    }
    result
}

/// The state of the loop between rounds.
struct Loop<M: Send, B> {
    backend: B,
    outbox: Outbox<M>,
    outgoing: Outgoing<M>,
    clock: Clock,
    leaving: Leaving<M>,
    /// The phase that this driver has acted on.
    seen: Phase,
    /// When a drain is over at the latest.
    end: Option<Mono>,
}

impl<M: Send + 'static, B: Backend> Loop<M, B> {
    /// One round: how long to sleep after it, or `None` to end.
    fn round<X: Machine<Mail = M>>(&mut self, hub: &mut Hub<'_, X>) -> Option<Duration> {
        hub.now = self.clock.now(); // 1
        hub.cells.add(Cell::LoopRounds, 1);
        self.backend.dispatch(hub); // 2
        let (post, shard) = (hub.post.clone(), hub.shard);
        post.receive(shard, |mail| hub.tell(Input::Mail(mail)));
        post.receive_heads(shard, |stream| hub.tell(Input::Head { stream }));
        self.follow_phase(hub);
        outbound::retry(hub, &mut self.backend);
        connect::give_up(hub, &mut self.backend, false);
        let quiet = self.run_machine(hub); // 3
        hub::reopen(hub, &mut self.backend);
        let on = hub.accepting();
        self.backend.accept(hub, on);
        if self.seen == Phase::Halted || self.drained(hub, quiet) {
            return None;
        }
        Some(self.sleep_time(hub, quiet)) // 4
    }

    /// Acts once on a drain.
    fn follow_phase<X: Machine<Mail = M>>(&mut self, hub: &mut Hub<'_, X>) {
        let phase = hub.post.phase();
        if phase == Phase::Draining && self.seen == Phase::Running {
            hub::shut(hub, &mut self.backend);
            self.end = Some(hub.now.mono + GRACE);
            hub.tell(Input::Drain);
        }
        self.seen = phase;
    }

    /// Whether a drain is over. A shard without connections stays until the others have none
    /// either: it may be the home of a stream that they still serve.
    fn drained<X: Machine<Mail = M>>(&mut self, hub: &Hub<'_, X>, quiet: bool) -> bool {
        let Some(end) = self.end else { return false };
        if hub.table.open() == 0 && quiet && self.outgoing.is_empty() {
            self.leaving.set_idle();
        }
        hub.post.all_idle() || end <= hub.now.mono
    }

    /// Asks the machine until it has nothing more to do. False if it may have.
    fn run_machine<X: Machine<Mail = M>>(&mut self, hub: &mut Hub<'_, X>) -> bool {
        loop {
            self.outgoing.retry(&hub.post, hub.shard);
            if !self.outgoing.is_empty() {
                return true;
            }
            let now = hub.now;
            hub.machine().poll(now, &mut self.outbox);
            if self.outbox.is_empty() {
                return true;
            }
            self.carry_out(hub);
            self.backend.flush(hub);
            if self.clock.mono().since(now.mono) >= WORK_MAX {
                return false;
            }
        }
    }

    fn carry_out<X: Machine<Mail = M>>(&mut self, hub: &mut Hub<'_, X>) {
        for output in self.outbox.drain() {
            match output {
                Output::Send { conn, parts } => {
                    if let Some(index) = hub.table.find(conn) {
                        let before = std::mem::replace(&mut hub.table.slot(index).sending, true);
                        debug_assert!(!before, "{conn:?}: the last send was not answered");
                        self.backend.send(hub, index, parts);
                    }
                }
                Output::Backlog { conn, bytes } => {
                    if let Some(index) = hub.table.find(conn) {
                        self.backend.set_backlog(hub, index, bytes);
                    }
                }
                Output::Shutdown { conn } => {
                    if let Some(index) = hub.table.find(conn) {
                        self.backend.settle(hub, index);
                        self.backend.send_fin(hub, index);
                    }
                }
                Output::Close { conn } => {
                    if let Some(index) = hub.table.find(conn) {
                        self.backend.settle(hub, index);
                        hub::close(hub, &mut self.backend, index, Closed::Local);
                    }
                }
                Output::Datagram { socket, to, from, data } => {
                    let content = Content::One { to, from, data };
                    outbound::ship(hub, &mut self.backend, socket, content);
                }
                Output::Train(train) => {
                    let socket = train.socket;
                    outbound::ship(hub, &mut self.backend, socket, Content::Train(train));
                }
                Output::Connect { token, to } => {
                    connect::begin(hub, &mut self.backend, token, to);
                }
                Output::Mail { shard, mail } => {
                    self.outgoing.send(&hub.post, hub.shard, shard, mail, &hub.cells);
                }
                Output::Head { shard, stream } => hub.post.head(hub.shard, shard, stream),
            }
        }
    }

    /// How long to wait for the kernel. Not at all if anything is left to do.
    fn sleep_time<X: Machine<Mail = M>>(&mut self, hub: &mut Hub<'_, X>, quiet: bool) -> Duration {
        if !quiet || self.backend.pending() || !hub.post.fall_asleep(hub.shard, self.seen) {
            return Duration::ZERO;
        }
        // From here on others ring the bell; what they did just before is looked at once more.
        if self.end.is_some() && hub.post.all_idle() {
            return Duration::ZERO;
        }
        if !self.outgoing.is_empty() {
            self.outgoing.retry(&hub.post, hub.shard);
            if self.outgoing.is_empty() {
                return Duration::ZERO;
            }
        }
        let deadlines = [hub.machine().next_deadline(), hub.next_deadline(), self.end];
        let now = self.clock.mono();
        let next = deadlines.into_iter().flatten().min();
        next.map_or(SLEEP_MAX, |next| next.since(now).min(SLEEP_MAX))
    }
}
