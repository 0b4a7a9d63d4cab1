//! A machine that does what a test tells it, and the threads that run it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use socket2::SockRef;

use crate::base::ids::{ConnId, ListenerId, ShardId, SocketId, StreamSlot};
use crate::base::payload::Payload;
use crate::base::time::{Mono, Now};
use crate::io::clock::Clock;
use crate::io::driver::Setup;
use crate::io::machine::{Closed, ConnectError, Input, Machine, Outbox, Output};
use crate::io::mailbox::Post;
use crate::io::{epoll, socket, udp, uring};
use crate::metrics::cells::Cells;
use crate::metrics::table::Cell;

/// No test waits longer for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    Epoll,
    Uring,
    /// io_uring with every connection in the ring's own table.
    UringTable,
}

/// What the machine was told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Accepted {
        conn: ConnId,
        listener: ListenerId,
        peer: SocketAddr,
    },
    Received(ConnId, Vec<u8>),
    Datagrams {
        from: SocketAddr,
        to: Option<IpAddr>,
        segment: usize,
        data: Vec<u8>,
    },
    Sent(ConnId, usize),
    Blocked(ConnId),
    Writable(ConnId),
    Closed(ConnId, Closed),
    Number(u32),
    Head(u32),
    Deadline(Mono),
    /// The last hit of a rally, and the longest that this side waited for the ball.
    Rally(Duration),
    Drain,
    /// A socket took no more (true), or takes more again.
    Socket(bool),
    Connected(u64, ConnId),
    ConnectFailed(u64, ConnectError),
}

pub(super) enum Mail {
    /// Do this.
    Order(Box<dyn FnOnce(&mut Scripted) + Send>),
    /// Report this.
    Number(u32),
}

/// What the machine knows of a connection, to hold the driver to the contract.
#[derive(Default)]
struct Conn {
    unsent: Bytes,
    sending: bool,
    blocked: bool,
    finish: bool,
}

/// The machine. It panics, and so fails the test, when the driver breaks the contract.
pub(super) struct Scripted {
    pub now: Now,
    pub todo: VecDeque<Output<Mail>>,
    pub deadline: Option<Mono>,
    pub echo: bool,
    /// Whatever comes from here is thrown away.
    pub sink: Option<ConnId>,
    /// Hits left in a rally: a head is answered by one to the other shard.
    pub rally: Option<u32>,
    longest: Duration,
    shard: ShardId,
    events: Sender<(ShardId, Event)>,
    conns: HashMap<ConnId, Conn>,
    /// Connections asked for and not answered.
    tokens: HashSet<u64>,
    /// The socket took no more: what goes through it waits here.
    full: bool,
    /// Datagrams and trains to send as the socket takes them.
    pub parcels: VecDeque<Output<Mail>>,
}

impl Scripted {
    fn new(shard: ShardId, events: Sender<(ShardId, Event)>, echo: bool) -> Scripted {
        Scripted {
            now: Now::default(),
            todo: VecDeque::new(),
            deadline: None,
            echo,
            sink: None,
            rally: None,
            longest: Duration::ZERO,
            shard,
            events,
            conns: HashMap::new(),
            tokens: HashSet::new(),
            full: false,
            parcels: VecDeque::new(),
        }
    }

    fn report(&self, event: Event) {
        let _ = self.events.send((self.shard, event));
    }

    /// Sends all of `data` in as many sends as it takes, then FIN if `finish`.
    pub fn write(&mut self, conn: ConnId, data: Bytes, finish: bool) {
        let state = self.conns.get_mut(&conn).expect("known");
        let all = [&state.unsent[..], &data[..]].concat();
        state.unsent = all.into();
        state.finish = finish;
        self.go_on(conn);
    }

    /// The next send of `conn`, in two parts of uneven length.
    fn go_on(&mut self, conn: ConnId) {
        let state = self.conns.get_mut(&conn).expect("known");
        if state.sending || state.blocked {
            return;
        }
        if !state.unsent.is_empty() {
            let next = state.unsent.slice(..state.unsent.len().min(60 * 1024));
            let (head, tail) = (next.slice(..next.len() / 3), next.slice(next.len() / 3..));
            let parts = match head.is_empty() {
                true => [tail.into(), Payload::Empty],
                false => [head.into(), tail.into()],
            };
            state.sending = true;
            self.todo.push_back(Output::Send { conn, parts });
        } else if state.finish {
            state.finish = false;
            self.todo.push_back(Output::Shutdown { conn });
        }
    }

    /// Says that a send of `len` bytes was put into `todo` by hand.
    pub fn mark_sending(&mut self, conn: ConnId, len: usize) {
        let state = self.conns.get_mut(&conn).expect("known");
        (state.sending, state.unsent) = (true, vec![0; len].into());
    }

    /// Asks for a connection.
    pub fn connect(&mut self, token: u64, to: SocketAddr) {
        self.tokens.insert(token);
        self.todo.push_back(Output::Connect { token, to });
    }

    fn socket(&mut self, socket: SocketId, full: bool) {
        assert_eq!(socket, SocketId::SWARM);
        assert_ne!(std::mem::replace(&mut self.full, full), full, "told twice");
        self.report(Event::Socket(full));
    }

    fn hit(&mut self, stream: StreamSlot) {
        let left = self.rally.unwrap_or_default().saturating_sub(1);
        self.rally = (left > 0).then_some(left);
        if left == 0 {
            self.report(Event::Rally(self.longest));
        }
        self.todo.push_back(Output::Head { shard: ShardId(1 - self.shard.0), stream });
    }

    fn answered(&mut self, conn: ConnId) -> &mut Conn {
        let state = self.conns.get_mut(&conn).expect("answer for a closed connection");
        assert!(std::mem::replace(&mut state.sending, false), "answer without a send");
        state
    }
}

impl Machine for Scripted {
    type Mail = Mail;

    fn handle(&mut self, now: Now, input: Input<'_, Mail>) {
        assert!(now.mono >= self.now.mono, "time goes forward");
        if self.rally.is_some() {
            self.longest = self.longest.max(now.mono.since(self.now.mono));
        }
        self.now = now;
        match input {
            Input::Accepted { conn, listener, peer } => {
                assert!(self.conns.insert(conn, Conn::default()).is_none(), "{conn:?} twice");
                self.report(Event::Accepted { conn, listener, peer });
            }
            Input::Received { conn, data } => {
                assert!(!data.is_empty() && self.conns.contains_key(&conn));
                match self.echo {
                    _ if self.sink == Some(conn) => {}
                    true => self.write(conn, Bytes::copy_from_slice(data), false),
                    false => self.report(Event::Received(conn, data.to_vec())),
                }
            }
            Input::Datagrams { socket, from, to, segment, data } => {
                assert!(socket == SocketId(9) || socket == SocketId::SWARM);
                assert!((1..=data.len()).contains(&segment), "{segment} of {}", data.len());
                let data = data.to_vec();
                self.report(Event::Datagrams { from, to, segment, data });
            }
            Input::Sent { conn, n } => {
                let state = self.answered(conn);
                assert!(n > 0 && n <= state.unsent.len());
                state.unsent = state.unsent.slice(n..);
                self.report(Event::Sent(conn, n));
                self.go_on(conn);
            }
            Input::Blocked { conn } => {
                self.answered(conn).blocked = true;
                self.report(Event::Blocked(conn));
            }
            Input::Writable { conn } => {
                let state = self.conns.get_mut(&conn).expect("closed");
                assert!(std::mem::replace(&mut state.blocked, false), "was not blocked");
                self.report(Event::Writable(conn));
                self.go_on(conn);
            }
            Input::Closed { conn, why } => {
                assert!(self.conns.remove(&conn).is_some(), "{conn:?} closed twice");
                self.report(Event::Closed(conn, why));
            }
            Input::SocketFull { socket } => self.socket(socket, true),
            Input::SocketReady { socket } => self.socket(socket, false),
            Input::Connected { token, conn } => {
                assert!(self.tokens.remove(&token), "{token} was not asked for");
                assert!(self.conns.insert(conn, Conn::default()).is_none(), "{conn:?} twice");
                self.report(Event::Connected(token, conn));
            }
            Input::ConnectFailed { token, why } => {
                assert!(self.tokens.remove(&token), "{token} was not asked for");
                self.report(Event::ConnectFailed(token, why));
            }
            Input::Mail(Mail::Order(order)) => order(self),
            Input::Mail(Mail::Number(number)) => self.report(Event::Number(number)),
            Input::Head { stream } if self.rally.is_some() => self.hit(stream),
            Input::Head { stream } => self.report(Event::Head(stream.0)),
            Input::Drain => self.report(Event::Drain),
        }
    }

    fn poll(&mut self, now: Now, out: &mut Outbox<Mail>) {
        self.now = now;
        if self.deadline.is_some_and(|deadline| deadline <= now.mono) {
            self.deadline = None;
            self.report(Event::Deadline(now.mono));
        }
        while out.has_room() {
            let Some(output) = self.todo.pop_front() else { break };
            out.push(output);
        }
        while out.has_room() && !self.full {
            let Some(output) = self.parcels.pop_front() else { break };
            out.push(output);
        }
    }

    fn next_deadline(&self) -> Option<Mono> {
        self.deadline
    }
}

/// What differs between tests.
pub(super) struct Options {
    pub shards: usize,
    pub listen: &'static str,
    pub max_connections: usize,
    pub mailbox: usize,
    pub echo: bool,
    /// Where each shard receives datagrams.
    pub udp: Option<&'static str>,
    /// Where all shards receive datagrams of the swarm.
    pub swarm: Option<&'static str>,
    /// SO_SNDBUF of its sockets.
    pub send_buffer: Option<usize>,
    /// Its sockets make no checksums, for which reason the kernel cuts no trains.
    pub uncut: bool,
    /// Connections that may have a descriptor, where the driver can do without.
    pub descriptors: usize,
    /// SO_RCVBUF of the driver's connections.
    pub receive_buffer: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        let listen = "127.0.0.1:0";
        Options {
            shards: 1,
            listen,
            max_connections: 1000,
            mailbox: 64,
            echo: false,
            udp: None,
            swarm: None,
            send_buffer: None,
            uncut: false,
            descriptors: 0,
            receive_buffer: None,
        }
    }
}

/// Running drivers. Dropping it halts them and fails the test if one of them failed.
pub(super) struct Rig {
    /// The address of each shard's own listener.
    pub addrs: Vec<SocketAddr>,
    /// The address of each shard's own socket for datagrams, if it has one.
    pub udp: Vec<SocketAddr>,
    /// The address of the swarm's sockets, if there are any.
    pub swarm: Option<SocketAddr>,
    pub post: Post<Mail>,
    pub cells: Vec<Arc<Cells>>,
    events: Receiver<(ShardId, Event)>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// The sockets of the swarm, one per shard, if the test wants any.
fn swarm(options: &Options) -> VecDeque<UdpSocket> {
    let Some(address) = options.swarm else { return VecDeque::new() };
    let sockets = udp::bind_swarm(address.parse().unwrap(), options.shards).unwrap();
    for socket in &sockets {
        if let Some(bytes) = options.send_buffer {
            SockRef::from(socket).set_send_buffer_size(bytes).unwrap();
        }
        if options.uncut {
            udp::set_option(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        }
    }
    sockets.into()
}

impl Rig {
    /// Returns when every shard accepts.
    pub fn start(driver: Driver, options: &Options) -> Rig {
        let post = Post::new(options.shards, 10_000, options.mailbox).unwrap();
        let (tell, events) = channel();
        let (ready, all_ready) = channel();
        let (mut addrs, mut cells, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        let mut sockets = Vec::new();
        let mut swarm = swarm(options);
        let swarm_address = swarm.front().map(|socket| socket.local_addr().unwrap());
        for number in 0..options.shards {
            let shard = ShardId(number.try_into().unwrap());
            let listener = socket::listen(options.listen.parse().unwrap(), 1).unwrap().remove(0);
            if let Some(bytes) = options.receive_buffer {
                SockRef::from(&listener).set_recv_buffer_size(bytes).unwrap();
            }
            addrs.push(listener.local_addr().unwrap());
            let socket = options.udp.map(|address| {
                udp::bind(address.parse().unwrap(), Ipv4Addr::LOCALHOST, 0).unwrap().0
            });
            sockets.extend(socket.as_ref().map(|socket| socket.local_addr().unwrap()));
            let mut own: Vec<_> = socket.into_iter().map(|socket| (SocketId(9), socket)).collect();
            own.extend(swarm.pop_front().map(|socket| (SocketId::SWARM, socket)));
            cells.push(Arc::new(Cells::default()));
            let ready = ready.clone();
            let setup = Setup {
                shard,
                listeners: vec![(ListenerId(7), listener)],
                sockets: own,
                post: post.clone(),
                clock: Clock::start(),
                cells: Arc::clone(&cells[number]),
                max_connections: options.max_connections,
                descriptors: match driver {
                    Driver::Epoll | Driver::Uring => options.max_connections,
                    Driver::UringTable => options.descriptors,
                },
                on_ready: Box::new(move || ready.send(()).unwrap()),
            };
            let (events, echo) = (tell.clone(), options.echo);
            threads.push(std::thread::spawn(move || {
                let mut machine = Scripted::new(shard, events, echo);
                match driver {
                    Driver::Epoll => epoll::run(setup, &mut machine),
                    Driver::Uring | Driver::UringTable => uring::run(setup, &mut machine),
                }
            }));
        }
        for _ in 0..options.shards {
            all_ready.recv_timeout(PATIENCE).expect("a driver did not start");
        }
        Rig { addrs, udp: sockets, swarm: swarm_address, post, cells, events, threads }
    }

    /// The next event of any shard.
    pub fn next(&self) -> (ShardId, Event) {
        self.events.recv_timeout(PATIENCE).expect("nothing happened")
    }

    /// The next event of any shard, for which a test may have to wait long.
    pub fn events_within(&self, time: Duration) -> Event {
        self.events.recv_timeout(time).expect("nothing happened").1
    }

    /// The next event of the only shard.
    pub fn event(&self) -> Event {
        self.next().1
    }

    /// Whether nothing at all happens for a while.
    pub fn silent_for(&self, time: Duration) -> bool {
        self.events.recv_timeout(time).is_err()
    }

    /// The next event that `wanted` accepts; others are passed over.
    pub fn wait_for<T>(&self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.event()) {
                return found;
            }
        }
    }

    /// Connects, and returns when the machine was told.
    pub fn connect(&self) -> (TcpStream, ConnId) {
        let client = client(self.addrs[0]);
        let me = client.local_addr().unwrap();
        let conn = self.wait_for(|event| match event {
            Event::Accepted { conn, peer, .. } if peer == me => Some(conn),
            _ => None,
        });
        (client, conn)
    }

    /// Lets the machine of `shard` do something.
    pub fn order(&self, shard: u16, order: impl FnOnce(&mut Scripted) + Send + 'static) {
        let mut mail = Mail::Order(Box::new(order));
        let start = Instant::now();
        // Machines may keep the mailbox full for a while.
        while let Err(back) = self.post.send(ShardId(shard), mail) {
            assert!(start.elapsed() < PATIENCE, "the mailbox stays full or its shard has ended");
            mail = back;
            std::thread::yield_now();
        }
    }

    /// Sum of a cell over all shards.
    pub fn count(&self, cell: Cell) -> u64 {
        self.cells.iter().map(|cells| cells.get(cell)).sum()
    }

    /// Waits for a driver to end. Whether it panicked.
    pub fn ended_by_panic(&mut self, shard: usize) -> bool {
        self.threads.remove(shard).join().is_err()
    }

    /// Waits for the drivers to end by themselves; all events that were not looked at.
    pub fn join(mut self) -> Vec<(ShardId, Event)> {
        for thread in self.threads.drain(..) {
            thread.join().expect("a driver panicked").expect("a driver failed");
        }
        self.events.try_iter().collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.post.halt();
        for thread in self.threads.drain(..) {
            let result = thread.join();
            if !std::thread::panicking() {
                result.expect("a driver panicked").expect("a driver failed");
            }
        }
    }
}

/// A client whose calls do not wait for ever.
pub(super) fn client(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client
}

/// `len` bytes of which no two stretches are alike.
pub(super) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..)).collect()
}
