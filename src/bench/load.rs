//! The load: thousands of viewers in one process, which let the kernel drop what they get.
//!
//! A receive with `MSG_TRUNC` takes bytes off a TCP socket without copying them (tcp(7)), so that
//! the load costs a fraction of what it loads. Each process connects from an address of its own
//! in 127.0.0.0/8, which has its own ports. An empty line on standard input asks for a [`Mark`]
//! on standard output; the process ends with its input, and after `life` at the latest.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::bench::crowd::Count;
use crate::bench::{Outcome, asked, machine};

/// The most bytes dropped by one call.
const TAKE: usize = 256 * 1024;

/// The most bytes of a response head.
const HEAD_MAX: usize = 4096;

/// Connections opened in one turn of the loop.
const OPEN_MAX: usize = 64;

/// Readiness events taken in one turn of the loop.
const EVENTS: usize = 1024;

/// The name of standard input among the connections.
const INPUT: u64 = u64::MAX;

/// Twice the longest time that a relay may keep bytes back on purpose.
const PAUSE: Duration = Duration::from_secs(2);

/// A viewer is slow below this share of the bitrate, in percent.
const ENOUGH_PERCENT: u64 = 97;

/// What one load process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where to.
    pub to: SocketAddr,
    /// The address that it comes from.
    pub from: IpAddr,
    /// What to GET; `None`: say nothing, only receive.
    pub path: Option<String>,
    /// Number of streams: a `{}` in the path is the number of the viewer's one, dealt in turn.
    pub streams: usize,
    /// Number of connections.
    pub connections: usize,
    /// Open them over this time, evenly.
    pub ramp: Duration,
    /// Pause after each turn of the loop, so that several arrivals are dropped by one call.
    pub nap: Duration,
    /// What a viewer should get, in bit/s; 0: whatever.
    pub bitrate: u64,
    /// Ends after this time at the latest.
    pub life: Duration,
}

/// What happened since the mark before; times to first byte since the beginning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Seconds since the mark before.
    pub seconds: f64,
    /// Bytes received, response heads not counted.
    pub bytes: u64,
    /// Connections that are being served.
    pub open: u64,
    /// Connections that were refused, broken or closed, since the beginning.
    pub failed: u64,
    /// Viewers that got less than 97 % of the bitrate, counted from arrival to arrival.
    pub slow: u64,
    /// Whole seconds in which a served viewer got nothing, summed over viewers.
    pub silent: u64,
    /// Time to first byte from the beginning of connect(2) in milliseconds: the 50th and 99th
    /// percentile and the longest.
    pub first_byte_ms: [f64; 3],
    /// The reason of the first failure.
    pub why: Option<String>,
}

#[derive(Debug)]
enum State {
    Connecting,
    /// Reads the response head, of which this much is there.
    Head(Vec<u8>),
    Served,
    Gone,
}

#[derive(Debug)]
struct Viewer {
    socket: Option<Socket>,
    state: State,
    began: Instant,
    bytes: u64,
    /// When the last of them came.
    last: Instant,
    /// Both at the last mark.
    at_mark: (u64, Instant),
    at_second: u64,
}

struct Load {
    plan: Plan,
    epoll: rustix::fd::OwnedFd,
    viewers: Vec<Viewer>,
    sink: Vec<u8>,
    first_bytes: Histogram<u64>,
    silent: u64,
    failed: u64,
    why: Option<String>,
    marked: Instant,
}

/// Runs the load until its input ends or its life is over. Blocks.
///
/// # Errors
/// If epoll(7) or the standard streams fail; a connection that fails is counted.
pub fn run(plan: Plan) -> Outcome<()> {
    machine::raise_open_files();
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, io::stdin().as_fd(), EventData::new_u64(INPUT), EventFlags::IN)?;
    let mut load = Load {
        epoll,
        viewers: Vec::with_capacity(plan.connections),
        sink: vec![0; TAKE],
        first_bytes: Histogram::new_with_bounds(1, 60_000_000, 3)?,
        silent: 0,
        failed: 0,
        why: None,
        marked: Instant::now(),
        plan,
    };
    let (start, mut second) = (Instant::now(), Instant::now());
    let mut events = Vec::with_capacity(EVENTS);
    while start.elapsed() < load.plan.life {
        load.open_due(start);
        let opening = load.viewers.len() < load.plan.connections;
        let timeout =
            Timespec { tv_sec: 0, tv_nsec: if opening { 1_000_000 } else { 100_000_000 } };
        events.clear();
        match epoll::wait(&load.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout))
        {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let now = Instant::now();
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
                    None => return Ok(()),
                },
                index => load.ready(now, index),
            }
        }
        if second.elapsed() >= Duration::from_secs(1) {
            second += Duration::from_secs(1);
            load.count_silence();
        }
        if !load.plan.nap.is_zero() {
            thread::sleep(load.plan.nap);
        }
    }
    Ok(())
}

/// A connection on its way to `to` from the address `from`.
pub(super) fn socket(to: SocketAddr, from: IpAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A reset at the end: ports are free again at once, not after a minute of TIME_WAIT.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    match socket.connect(&to.into()) {
        Err(why) if why.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(why),
        _ => Ok(socket),
    }
}

/// How many of `all` connections must be open this long after the beginning.
pub(super) fn due(all: usize, ramp: Duration, passed: Duration) -> usize {
    if passed >= ramp {
        return all;
    }
    (all as f64 * passed.as_secs_f64() / ramp.as_secs_f64()) as usize
}

impl Load {
    fn open_due(&mut self, start: Instant) {
        let due = due(self.plan.connections, self.plan.ramp, start.elapsed());
        for _ in 0..due.saturating_sub(self.viewers.len()).min(OPEN_MAX) {
            let began = Instant::now();
            let index = self.viewers.len() as u64;
            let socket = self.connect(index);
            let viewer = |socket, state| Viewer {
                socket,
                state,
                began,
                bytes: 0,
                last: began,
                at_mark: (0, began),
                at_second: 0,
            };
            match socket {
                Ok(socket) => self.viewers.push(viewer(Some(socket), State::Connecting)),
                Err(why) => {
                    self.viewers.push(viewer(None, State::Gone));
                    self.fail(&format!("connect: {why}"));
                }
            }
        }
    }

    fn connect(&self, index: u64) -> io::Result<Socket> {
        let socket = socket(self.plan.to, self.plan.from)?;
        epoll::add(&self.epoll, &socket, EventData::new_u64(index), EventFlags::OUT)?;
        Ok(socket)
    }

    fn fail(&mut self, why: &str) {
        self.failed += 1;
        self.why.get_or_insert_with(|| why.to_owned());
    }

    /// Something happened on a connection.
    fn ready(&mut self, now: Instant, index: u64) {
        let Some(viewer) = usize::try_from(index).ok().and_then(|i| self.viewers.get_mut(i)) else {
            return;
        };
        let Some(socket) = &viewer.socket else { return };
        let outcome = match &mut viewer.state {
            State::Connecting => {
                let data = EventData::new_u64(index);
                connected(socket, &self.plan, index).and_then(|state| {
                    epoll::modify(&self.epoll, socket, data, EventFlags::IN)?;
                    viewer.state = state;
                    Ok(())
                })
            }
            State::Head(head) => match read_head(socket, head, &mut self.sink) {
                Ok(Some(body)) => {
                    let passed = viewer.began.elapsed().as_micros();
                    self.first_bytes.saturating_record(u64::try_from(passed).unwrap_or(u64::MAX));
                    viewer.bytes += body;
                    viewer.last = now;
                    viewer.state = State::Served;
                    Ok(())
                }
                Ok(None) => Ok(()),
                Err(why) => Err(why),
            },
            State::Served => {
                match rustix::net::recv(socket, &mut self.sink[..], RecvFlags::TRUNC) {
                    Ok((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok((_, n)) => {
                        viewer.bytes += n as u64;
                        viewer.last = now;
                        Ok(())
                    }
                    Err(Errno::AGAIN | Errno::INTR) => Ok(()),
                    Err(errno) => Err(errno.into()),
                }
            }
            State::Gone => Ok(()),
        };
        if let Err(why) = outcome {
            viewer.socket = None;
            viewer.state = State::Gone;
            self.fail(&why.to_string());
        }
    }

    fn count_silence(&mut self) {
        for viewer in &mut self.viewers {
            let served = matches!(viewer.state, State::Served) && viewer.at_second > 0;
            self.silent += u64::from(served && viewer.bytes == viewer.at_second);
            viewer.at_second = viewer.bytes;
        }
    }

    fn mark(&mut self) -> Mark {
        let passed = self.marked.elapsed();
        self.marked = Instant::now();
        let mut mark = Mark {
            seconds: passed.as_secs_f64(),
            failed: self.failed,
            silent: std::mem::take(&mut self.silent),
            why: self.why.clone(),
            ..Mark::default()
        };
        for viewer in &mut self.viewers {
            let (before, since) =
                std::mem::replace(&mut viewer.at_mark, (viewer.bytes, viewer.last));
            let got = viewer.bytes - before;
            let time = watched(since, viewer.last, self.marked);
            mark.bytes += got;
            mark.open += u64::from(matches!(viewer.state, State::Served));
            mark.slow += u64::from(got < enough(self.plan.bitrate, time));
        }
        let times = &self.first_bytes;
        let micros = [times.value_at_quantile(0.5), times.value_at_quantile(0.99), times.max()];
        mark.first_byte_ms = micros.map(|micros| micros as f64 / 1000.0);
        mark
    }
}

impl Count for Mark {
    fn add(&mut self, other: Mark) {
        self.seconds = self.seconds.max(other.seconds);
        self.bytes += other.bytes;
        self.open += other.open;
        self.failed += other.failed;
        self.slow += other.slow;
        self.silent += other.silent;
        for (time, other) in self.first_byte_ms.iter_mut().zip(other.first_byte_ms) {
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

/// The time in which a viewer got what it got between two marks: from the last bytes before one
/// to the last before the other, so that it does not matter where between two arrivals a mark
/// falls. Who got nothing of late is counted up to the mark.
pub(super) fn watched(since: Instant, last: Instant, mark: Instant) -> Duration {
    let end = if mark.saturating_duration_since(last) > PAUSE { mark } else { last };
    end.saturating_duration_since(since)
}

/// The bytes below which a viewer was slow.
pub(super) fn enough(bitrate: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    (bitrate / 8).saturating_mul(millis) / 1000 * ENOUGH_PERCENT / 100
}

/// The connection is there, or was refused: asks for the stream.
fn connected(socket: &Socket, plan: &Plan, index: u64) -> io::Result<State> {
    if let Some(why) = socket.take_error()? {
        return Err(why);
    }
    let Some(path) = &plan.path else { return Ok(State::Served) };
    let path = path.replace("{}", &(index % plan.streams.max(1) as u64).to_string());
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", plan.to);
    // A fresh socket has room for a request.
    rustix::net::send(socket, request.as_bytes(), SendFlags::NOSIGNAL)?;
    Ok(State::Head(Vec::new()))
}

/// Reads on in the response head. At its end: how many bytes of the body came with it.
fn read_head(socket: &Socket, head: &mut Vec<u8>, sink: &mut [u8]) -> io::Result<Option<u64>> {
    let n = match rustix::net::recv(socket, &mut *sink, RecvFlags::empty()) {
        Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok((_, n)) => n,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let before = head.len();
    head.extend_from_slice(&sink[..n.min(HEAD_MAX)]);
    match head.windows(4).position(|four| four == b"\r\n\r\n") {
        Some(_) if !head.starts_with(b"HTTP/1.1 200") => {
            let text = String::from_utf8_lossy(head);
            let line = text.lines().next().unwrap_or_default();
            Err(io::Error::other(format!("the relay answered: {line}")))
        }
        Some(at) => {
            *head = Vec::new();
            Ok(Some((before + n - at - 4) as u64))
        }
        None if head.len() >= HEAD_MAX => Err(io::Error::other("an endless response head")),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_opened_evenly() {
        let ramp = Duration::from_millis(400);
        let at = |ms| due(2_000, ramp, Duration::from_millis(ms));
        assert_eq!([at(0), at(100), at(399), at(400), at(9_999)], [0, 500, 1_995, 2_000, 2_000]);
        assert_eq!(due(7, Duration::ZERO, Duration::ZERO), 7);
    }

    #[test]
    fn enough_is_97_percent() {
        assert_eq!(enough(2_000_000, Duration::from_secs(10)), 2_425_000);
        assert_eq!(enough(0, Duration::from_secs(10)), 0);
    }

    #[test]
    fn a_rate_is_taken_from_arrival_to_arrival() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(watched(at(990), at(3_900), at(4_000)), Duration::from_millis(2_910));
        // Nothing for more than two seconds: the silence counts.
        assert_eq!(watched(at(990), at(1_900), at(4_000)), Duration::from_millis(3_010));
    }

    #[test]
    fn marks_add_up() {
        let mark = |n: u64| Mark {
            seconds: n as f64,
            bytes: n,
            open: n,
            failed: n,
            slow: n,
            silent: n,
            first_byte_ms: [n as f64, 1.0, 5.0 - n as f64],
            why: (n > 2).then(|| n.to_string()),
        };
        let mut sum = Mark::default();
        for n in 1..=4 {
            sum.add(serde_json::from_str(&serde_json::to_string(&mark(n)).unwrap()).unwrap());
        }
        let wanted = Mark {
            seconds: 4.0,
            first_byte_ms: [4.0, 1.0, 4.0],
            why: Some("3".to_owned()),
            ..mark(10)
        };
        assert_eq!(sum, wanted);
    }

    #[test]
    fn heads_are_told_from_bodies() {
        let (near, far) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        let (mut head, mut sink) = (Vec::new(), vec![0; TAKE]);
        near.set_nonblocking(true).unwrap();
        assert!(read_head(&near, &mut head, &mut sink).unwrap().is_none());
        far.send(b"HTTP/1.1 200 OK\r\nA: b\r\n\r").unwrap();
        assert!(read_head(&near, &mut head, &mut sink).unwrap().is_none());
        far.send(b"\nbody").unwrap();
        assert_eq!(read_head(&near, &mut head, &mut sink).unwrap(), Some(4));
        far.send(b"HTTP/1.1 503 No\r\n\r\nsorry").unwrap();
        let why = read_head(&near, &mut head, &mut sink).unwrap_err().to_string();
        assert!(why.contains("503"), "{why}");
        let mut head = Vec::new();
        far.send(&[b'x'; 5_000]).unwrap();
        assert!(read_head(&near, &mut head, &mut sink).is_err());
    }
}
