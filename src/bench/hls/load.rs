//! The load: thousands of HLS players in one process, which let the kernel drop the segments.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use socket2::Socket;

use crate::bench::crowd::Count;
use crate::bench::hls::viewer::{Ears, Next, Viewer};
use crate::bench::{Outcome, asked, load, machine};

/// Players that begin in one turn of the loop.
const OPEN_MAX: usize = 64;

/// Readiness events taken in one turn of the loop.
const EVENTS: usize = 1024;

/// The name of standard input among the connections.
const INPUT: u64 = u64::MAX;

/// The longest wait, after which the loop looks whether its life is over.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// What one load process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where to.
    pub to: SocketAddr,
    /// The address that it comes from.
    pub from: IpAddr,
    /// The folder of the playlist, with a slash at its end.
    pub folder: String,
    /// Number of players.
    pub viewers: usize,
    /// They begin within this time, evenly.
    pub ramp: Duration,
    /// Pause after each turn of the loop, so that several arrivals are dropped by one call.
    pub nap: Duration,
    /// Ends after this time at the latest.
    pub life: Duration,
}

/// What happened since the mark before; `open` and `failed` are as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Seconds since the mark before.
    pub seconds: f64,
    /// Bytes of playlists and segments.
    pub bytes: u64,
    /// Playlists loaded.
    pub playlists: u64,
    /// Segments loaded.
    pub segments: u64,
    /// Segments that were not there when the player came to them.
    pub late: u64,
    /// Segments that had left the playlist before they could be loaded.
    pub missed: u64,
    /// Responses that were no 200.
    pub refused: u64,
    /// Players that play.
    pub open: u64,
    /// Players that were refused or lost their connection, since the beginning.
    pub failed: u64,
    /// Time from the request of a segment to its last byte in milliseconds: the 50th and 99th
    /// percentile and the longest.
    pub load_ms: [f64; 3],
    /// The reason of the first failure.
    pub why: Option<String>,
}

impl Count for Mark {
    fn add(&mut self, other: Mark) {
        self.seconds = self.seconds.max(other.seconds);
        self.bytes += other.bytes;
        self.playlists += other.playlists;
        self.segments += other.segments;
        self.late += other.late;
        self.missed += other.missed;
        self.refused += other.refused;
        self.open += other.open;
        self.failed += other.failed;
        for (time, other) in self.load_ms.iter_mut().zip(other.load_ms) {
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
    epoll: rustix::fd::OwnedFd,
    viewers: Vec<Viewer>,
    /// When players load their playlist again, soonest first.
    alarms: BinaryHeap<Reverse<(Instant, usize)>>,
    ears: Ears,
    mark: Mark,
    marked: Instant,
}

/// Runs the load until its input ends or its life is over. Blocks.
///
/// # Errors
/// If epoll(7) or the standard streams fail; a player that fails is counted.
pub fn run(plan: Plan) -> Outcome<()> {
    machine::raise_open_files();
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, io::stdin().as_fd(), EventData::new_u64(INPUT), EventFlags::IN)?;
    let mut load = Load {
        epoll,
        viewers: Vec::with_capacity(plan.viewers),
        alarms: BinaryHeap::new(),
        ears: Ears::new(plan.to, &plan.folder)?,
        mark: Mark::default(),
        marked: Instant::now(),
        plan,
    };
    let start = Instant::now();
    let mut events = Vec::with_capacity(EVENTS);
    while start.elapsed() < load.plan.life {
        load.open_due(start);
        load.wake_due();
        events.clear();
        let wait = load.wait();
        match epoll::wait(&load.epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait)) {
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
                    None => return Ok(()),
                },
                index => load.ready(usize::try_from(index).unwrap_or(usize::MAX)),
            }
        }
        if !load.plan.nap.is_zero() {
            thread::sleep(load.plan.nap);
        }
    }
    Ok(())
}

impl Load {
    fn open_due(&mut self, start: Instant) {
        let due = load::due(self.plan.viewers, self.plan.ramp, start.elapsed());
        for _ in 0..due.saturating_sub(self.viewers.len()).min(OPEN_MAX) {
            match self.connect() {
                Ok(socket) => self.viewers.push(Viewer::new(socket)),
                Err(why) => {
                    self.viewers.push(Viewer::gone());
                    self.fail(&format!("connect: {why}"));
                }
            }
        }
    }

    fn connect(&self) -> io::Result<Socket> {
        let socket = load::socket(self.plan.to, self.plan.from)?;
        let index = EventData::new_u64(self.viewers.len() as u64);
        epoll::add(&self.epoll, &socket, index, EventFlags::OUT)?;
        Ok(socket)
    }

    fn fail(&mut self, why: &str) {
        self.mark.failed += 1;
        self.mark.why.get_or_insert_with(|| why.to_owned());
    }

    fn wait(&self) -> Timespec {
        let opening = self.viewers.len() < self.plan.viewers;
        let most = if opening { Duration::from_millis(1) } else { WAIT_MAX };
        let next = self.alarms.peek().map_or(most, |Reverse((when, _))| {
            when.saturating_duration_since(Instant::now()).min(most)
        });
        Timespec { tv_sec: 0, tv_nsec: i64::from(next.subsec_nanos()) }
    }

    fn wake_due(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((_, index))) =
            self.alarms.peek().filter(|Reverse((when, _))| *when <= now).copied()
        {
            self.alarms.pop();
            let told = self.viewers[index].load_list(&self.ears);
            self.tell(index, told.map(|()| Next::Wait));
        }
    }

    /// Something happened on a connection.
    fn ready(&mut self, index: usize) {
        let Some(viewer) = self.viewers.get_mut(index) else { return };
        let told = viewer.ready(&mut self.ears, &mut self.mark);
        self.tell(index, told);
    }

    fn tell(&mut self, index: usize, told: io::Result<Next>) {
        match told {
            Ok(Next::Wait) => {}
            Ok(Next::Alarm(when)) => self.alarms.push(Reverse((when, index))),
            Ok(Next::Connected) => {
                let data = EventData::new_u64(index as u64);
                let changed = self.viewers[index].socket().map_or(Ok(()), |socket| {
                    epoll::modify(&self.epoll, socket, data, EventFlags::IN)
                });
                if let Err(why) = changed {
                    self.tell(index, Err(why.into()));
                }
            }
            Err(why) => {
                self.viewers[index] = Viewer::gone();
                self.fail(&why.to_string());
            }
        }
    }

    fn mark(&mut self) -> Mark {
        let passed = std::mem::replace(&mut self.marked, Instant::now()).elapsed();
        let (failed, why) = (self.mark.failed, self.mark.why.clone());
        let mut mark = std::mem::replace(&mut self.mark, Mark { failed, why, ..Mark::default() });
        let times: &mut Histogram<u64> = &mut self.ears.times;
        mark.seconds = passed.as_secs_f64();
        mark.open = self.viewers.iter().filter(|viewer| viewer.plays()).count() as u64;
        let micros = [times.value_at_quantile(0.5), times.value_at_quantile(0.99), times.max()];
        mark.load_ms = micros.map(|micros| micros as f64 / 1000.0);
        times.reset();
        mark
    }
}
