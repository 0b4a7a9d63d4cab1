//! Raw send loops: what the kernel takes from a thread that does nothing but send.
//!
//! A relay cannot be cheaper than this on the same machine at the same bytes per send, so its
//! cost is reported as a ratio to it. Both ways of sending are those of the drivers: the same
//! flags, the same batch, the same socket options; what is missing is everything else.

mod epoll;
mod trains;
mod uring;

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::base::limits::SEND_MAX;
use crate::io::socket;

pub use trains::{TRAIN, Trains, run_trains};

/// The most bytes of one send: a little more than the relay ever sends at once.
pub const SIZE_MAX: usize = 64 * 1024;

/// The backlog of a viewer whose stream has a high bitrate (`TCP_NOTSENT_LOWAT`).
const BACKLOG: u32 = 256 * 1024;

/// How long to wait when no connection takes anything.
const BREATH: Duration = Duration::from_millis(1);

/// What is sent: constant, so that it outlives every operation of the kernel.
static BYTES: [u8; SIZE_MAX] = [0x47; SIZE_MAX];

const _: () = assert!(SEND_MAX <= SIZE_MAX);

/// How the kernel is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Batches of SEND through a ring with the flags of the io_uring driver.
    Uring,
    /// One send(2) after the other, as the epoll driver does.
    Epoll,
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How.
    pub way: Way,
    /// Bytes of each send, 1 to [`SIZE_MAX`].
    pub size: usize,
    /// Time from one round (a send to every connection) to the next; `None`: at once.
    pub round: Option<Duration>,
    /// How long.
    pub length: Duration,
}

/// What it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Processor time of the thread, system calls and the softirq work done in them included.
    pub cpu: Duration,
    /// Time from the first send to the last.
    pub wall: Duration,
    /// Bytes that the kernel took.
    pub bytes: u64,
    /// Sends of which it took something.
    pub sends: u64,
    /// Sends of which it took nothing.
    pub blocked: u64,
    /// System calls made for all of them.
    pub calls: u64,
}

/// One round of one way: a send to each connection.
trait Rounds {
    /// Adds what happened to `outcome`.
    ///
    /// # Errors
    /// If a connection or the ring failed.
    fn round(
        &mut self,
        connections: &[TcpStream],
        bytes: &'static [u8],
        outcome: &mut Outcome,
    ) -> io::Result<()>;
}

/// Sends by `plan` on the calling thread, which the caller has pinned. Blocks for
/// `plan.length`.
///
/// # Errors
/// Of io_uring_setup(2); if a connection breaks; [`io::ErrorKind::InvalidInput`] for a size of
/// 0 or beyond [`SIZE_MAX`].
pub fn run(plan: &Plan, connections: &[TcpStream]) -> io::Result<Outcome> {
    let Some(bytes) = BYTES.get(..plan.size).filter(|bytes| !bytes.is_empty()) else {
        let text = format!("{} bytes per send, but 1 to {SIZE_MAX} are possible", plan.size);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    for connection in connections {
        connection.set_nonblocking(false)?;
        socket::prepare(connection.as_fd())?;
        socket::set_backlog(connection.as_fd(), BACKLOG);
    }
    match plan.way {
        Way::Uring => drive(plan, connections, bytes, &mut uring::Ring::new()?),
        Way::Epoll => drive(plan, connections, bytes, &mut epoll::Plain),
    }
}

fn drive(
    plan: &Plan,
    connections: &[TcpStream],
    bytes: &'static [u8],
    rounds: &mut impl Rounds,
) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let (start, cpu) = (Instant::now(), thread_cpu());
    let mut due = start;
    while start.elapsed() < plan.length {
        let before = outcome.sends;
        rounds.round(connections, bytes, &mut outcome)?;
        match plan.round {
            Some(round) => {
                // A sender that cannot keep the pace goes as fast as it can: no debt is kept.
                due = (due + round).max(Instant::now());
                pause_until(due);
            }
            None if outcome.sends == before => pause_until(Instant::now() + BREATH),
            None => {}
        }
    }
    outcome.wall = start.elapsed();
    outcome.cpu = thread_cpu().saturating_sub(cpu);
    Ok(outcome)
}

fn pause_until(when: Instant) {
    while let Some(left) = when.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// Processor time of the calling thread, user and system (getrusage(2), `RUSAGE_THREAD`).
#[must_use]
pub fn thread_cpu() -> Duration {
    // SAFETY: rusage is a plain C struct of integers, for which all zeroes are a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid rusage that lives during the call, which alone writes to it.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    debug_assert_eq!(result, 0, "getrusage fails only for bad arguments");
    let time = |t: libc::timeval| {
        let seconds = Duration::from_secs(u64::try_from(t.tv_sec).unwrap_or(0));
        seconds + Duration::from_micros(u64::try_from(t.tv_usec).unwrap_or(0))
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    fn pairs(count: usize) -> (Vec<TcpStream>, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (0..count)
            .map(|_| {
                let near = TcpStream::connect(address).unwrap();
                (near, listener.accept().unwrap().0)
            })
            .unzip()
    }

    /// What is reported is what arrives, on every connection, also beyond one batch and when
    /// the connections block.
    fn sends_what_it_says(way: Way, size: usize, count: usize) {
        let (near, far) = pairs(count);
        let plan = Plan { way, size, round: None, length: Duration::from_millis(50) };
        let outcome = run(&plan, &near).unwrap();
        drop(near);
        let mut got = 0;
        for mut stream in far {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            assert!(!bytes.is_empty() && bytes.iter().all(|&byte| byte == 0x47));
            got += bytes.len() as u64;
        }
        assert_eq!(got, outcome.bytes);
        assert!(outcome.sends * size as u64 >= got && outcome.sends > 0);
        assert!(outcome.calls > 0 && outcome.cpu <= outcome.wall + BREATH);
        assert!(size < SIZE_MAX || outcome.blocked > 0, "a reader that reads nothing blocks");
    }

    #[test]
    fn plain_sends_are_accounted() {
        sends_what_it_says(Way::Epoll, 1_316, 150);
        sends_what_it_says(Way::Epoll, SIZE_MAX, 2);
    }

    #[test]
    fn ring_sends_are_accounted() {
        if let Err(why) = crate::io::probe::uring() {
            println!("SKIPPED: {why}");
            return;
        }
        sends_what_it_says(Way::Uring, 1_316, 150);
        sends_what_it_says(Way::Uring, SIZE_MAX, 2);
    }

    #[test]
    fn a_pace_is_kept() {
        let (near, _far) = pairs(2);
        let (round, length) = (Duration::from_millis(20), Duration::from_millis(100));
        let plan = Plan { way: Way::Epoll, size: 100, round: Some(round), length };
        let outcome = run(&plan, &near).unwrap();
        assert!((2..=10).contains(&outcome.sends), "five rounds at most: {outcome:?}");
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for size in [0, SIZE_MAX + 1] {
            let plan = Plan { way: Way::Epoll, size, round: None, length: Duration::ZERO };
            assert_eq!(run(&plan, &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn processor_time_grows_with_work_only() {
        let start = thread_cpu();
        pause_until(Instant::now() + Duration::from_millis(50));
        assert!(thread_cpu() - start < Duration::from_millis(40), "sleeping costs nothing");
        while thread_cpu() - start < Duration::from_millis(50) {
            std::hint::black_box(thread_cpu());
        }
    }
}
