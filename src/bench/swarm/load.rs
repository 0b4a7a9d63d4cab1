//! The load: thousands of peers in one process, on some dozens of sockets, each of them connected
//! to the relay from an address of its own in 127.0.0.0/8.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;
use serde::{Deserialize, Serialize};

use crate::bench::crowd::Count;
use crate::bench::swarm::facts::Facts;
use crate::bench::swarm::peers::{Moment, Peers, Said};
use crate::bench::{Outcome, asked, load, machine, marker};
use crate::io::heads::{self, Heads};

/// Readiness events taken in one turn of the loop.
const EVENTS: usize = 256;

/// The name of standard input among the sockets.
const INPUT: u64 = u64::MAX;

/// How often peers are looked at for what time asks of them.
const TICK: Duration = Duration::from_millis(20);

/// Bytes that the kernel may hold for one socket: some hundred trains at once.
const BACKLOG: usize = 16 << 20;

/// What one load process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// What peers know of the swarm. `None`: they say who they are to `to` and only receive.
    pub facts: Option<Facts>,
    /// Where to.
    pub to: SocketAddr,
    /// The address of the first socket.
    pub from: Ipv4Addr,
    /// Number of sockets.
    pub sockets: u8,
    /// Number of peers.
    pub peers: usize,
    /// They join within this time, evenly.
    pub ramp: Duration,
    /// Pause after each turn of the loop, so that several arrivals are handled at once.
    pub nap: Duration,
    /// What a peer should get, in bit/s.
    pub bitrate: u64,
    /// Ends after this time at the latest.
    pub life: Duration,
}

/// What happened since the mark before; `open` and `failed` are as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Seconds since the mark before.
    pub seconds: f64,
    /// Bytes of chunks.
    pub bytes: u64,
    /// Bytes of datagrams.
    pub wire: u64,
    /// Subtrees that came as a whole.
    pub trains: u64,
    /// Chunks that never came, or came out of order.
    pub lost: u64,
    /// Runs of chunks that came again, or out of order.
    pub again: u64,
    /// Subtrees that came long after the first peer had them.
    pub late: u64,
    /// Acknowledgements sent.
    pub acks: u64,
    /// Datagrams that the kernel did not take.
    pub blocked: u64,
    /// Times that a peer heard nothing for a second.
    pub silent: u64,
    /// Datagrams for nobody, or that make no sense.
    pub stray: u64,
    /// Peers that are served.
    pub open: u64,
    /// Peers that were refused or closed, since the beginning.
    pub failed: u64,
    /// Peers that got less than 97 % of the bitrate.
    pub slow: u64,
    /// How long after the first peer of the process the others had a subtree, in milliseconds:
    /// the 50th and 99th percentile and the longest.
    pub spread_ms: [f64; 3],
    /// The reason of the first failure.
    pub why: Option<String>,
}

impl Count for Mark {
    fn add(&mut self, other: Mark) {
        self.seconds = self.seconds.max(other.seconds);
        for (sum, more) in [
            (&mut self.bytes, other.bytes),
            (&mut self.wire, other.wire),
            (&mut self.trains, other.trains),
            (&mut self.lost, other.lost),
            (&mut self.again, other.again),
            (&mut self.late, other.late),
            (&mut self.acks, other.acks),
            (&mut self.blocked, other.blocked),
            (&mut self.silent, other.silent),
            (&mut self.stray, other.stray),
            (&mut self.open, other.open),
            (&mut self.failed, other.failed),
            (&mut self.slow, other.slow),
        ] {
            *sum += more;
        }
        for (time, other) in self.spread_ms.iter_mut().zip(other.spread_ms) {
            *time = time.max(other);
        }
        self.why = self.why.take().or(other.why);
    }

    fn open(&self) -> u64 {
        self.open
    }

    fn failed(&self) -> u64 {
        self.failed
    }

    fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }
}

struct Load {
    plan: Plan,
    sockets: Vec<UdpSocket>,
    said: Vec<Said>,
    heads: Heads,
    /// `None`: only receives.
    peers: Option<Peers>,
    mark: Mark,
    marked: Instant,
}

/// Runs the load until its input ends or its life is over. Blocks.
///
/// # Errors
/// If sockets, epoll(7) or the standard streams fail; a peer that fails is counted.
pub fn run(plan: Plan) -> Outcome<()> {
    machine::raise_open_files();
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, io::stdin().as_fd(), EventData::new_u64(INPUT), EventFlags::IN)?;
    let mut load = Load::new(plan)?;
    for (index, socket) in load.sockets.iter().enumerate() {
        epoll::add(&epoll, socket, EventData::new_u64(index as u64), EventFlags::IN)?;
    }
    let (start, mut ticked) = (Instant::now(), None);
    let mut events = Vec::with_capacity(EVENTS);
    let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
    while start.elapsed() < load.plan.life {
        if ticked.is_none_or(|at: Instant| at.elapsed() >= TICK) {
            ticked = Some(Instant::now());
            load.tick(start)?;
        }
        events.clear();
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in &events {
            // Copied out: the fields of the kernel's struct are not aligned.
            let Event { data, .. } = *event;
            match data.u64() {
                INPUT => match asked::questions()? {
                    Some(asked) => {
                        for _ in 0..asked {
                            asked::answer(&load.mark())?;
                        }
                    }
                    None => return load.close(),
                },
                index => load.receive(usize::try_from(index).unwrap_or(usize::MAX))?,
            }
        }
        if !load.plan.nap.is_zero() {
            thread::sleep(load.plan.nap);
        }
    }
    load.close()
}

impl Load {
    fn new(plan: Plan) -> Outcome<Load> {
        let sockets = (0..plan.sockets).map(|n| open(&plan, n)).collect::<io::Result<Vec<_>>>()?;
        let now = Instant::now();
        let peers = plan.facts.as_ref();
        let peers = peers.map(|facts| Peers::new(plan.peers, facts, plan.bitrate, now));
        if peers.is_none() {
            // The raw send loop learns from it where to send.
            sockets.iter().try_for_each(|socket| socket.send(b"here").map(drop))?;
        }
        Ok(Load {
            said: sockets.iter().map(|_| Said::default()).collect(),
            sockets,
            heads: Heads::new(),
            peers: peers.transpose()?,
            mark: Mark::default(),
            marked: now,
            plan,
        })
    }

    fn tick(&mut self, start: Instant) -> Outcome<()> {
        let Some(peers) = &mut self.peers else { return Ok(()) };
        let due = load::due(self.plan.peers, self.plan.ramp, start.elapsed());
        peers.tick(Instant::now(), due, &mut self.said);
        (0..self.sockets.len()).try_for_each(|index| self.flush(index))
    }

    /// Takes everything that has come to one socket, and answers.
    fn receive(&mut self, index: usize) -> Outcome<()> {
        let Some(socket) = self.sockets.get(index) else { return Ok(()) };
        loop {
            let (count, more) = match self.heads.receive(socket.as_fd()) {
                Ok(received) => received,
                // Refused: the relay has ended. What it sent before counts.
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNREFUSED) => break,
                Err(errno) => return Err(errno.into()),
            };
            let now = Moment { at: Instant::now(), micros: marker::now() / 1_000 };
            for head in (0..count).map(|n| self.heads.head(n)) {
                match &mut self.peers {
                    Some(peers) => peers.handle(now, head, &mut self.said[index]),
                    None => {
                        self.mark.wire += head.len as u64;
                        self.mark.trains += 1;
                    }
                }
            }
            if !more {
                break;
            }
        }
        self.flush(index)
    }

    fn flush(&mut self, index: usize) -> Outcome<()> {
        let said = &mut self.said[index];
        for datagram in said.datagrams() {
            match rustix::net::send(&self.sockets[index], datagram, SendFlags::NOSIGNAL) {
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR | Errno::CONNREFUSED) => {
                    self.mark.blocked += 1;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        said.clear();
        Ok(())
    }

    fn close(&mut self) -> Outcome<()> {
        if let Some(peers) = &mut self.peers {
            peers.close(&mut self.said);
        }
        (0..self.sockets.len()).try_for_each(|index| self.flush(index))
    }

    fn mark(&mut self) -> Mark {
        let now = Instant::now();
        let mut mark = std::mem::take(&mut self.mark);
        mark.seconds = now.duration_since(std::mem::replace(&mut self.marked, now)).as_secs_f64();
        if let Some(peers) = &mut self.peers {
            mark.add(peers.mark(now));
        }
        mark
    }
}

/// The socket with this number.
fn open(plan: &Plan, number: u8) -> io::Result<UdpSocket> {
    let [a, b, c, d] = plan.from.octets();
    let ip = match plan.to.ip() {
        IpAddr::V4(_) => Ipv4Addr::new(a, b, c, d.wrapping_add(number).max(1)).into(),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    };
    let socket = UdpSocket::bind(SocketAddr::new(ip, 0))?;
    socket.set_nonblocking(true)?;
    // Beyond net.core.rmem_max only with privileges; else as much as it allows.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BACKLOG).is_err() {
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BACKLOG)?;
    }
    heads::gather(&socket)?;
    socket.connect(plan.to)?;
    Ok(socket)
}
