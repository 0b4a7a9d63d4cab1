//! Trains of datagrams by a thread that does nothing but send them.

use std::cell::UnsafeCell;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use bytes::Bytes;
use io_uring::{opcode, types};
use rustix::io::Errno;

use crate::base::limits::{CHUNK, SUBTREE_CHUNKS_MAX};
use crate::io::ceiling::{BREATH, Outcome, Way, pause_until, thread_cpu, uring};
use crate::io::driver::BATCH;
use crate::io::machine::HEADER_MAX;
use crate::io::parcel::{Content, FLAGS, Frame, Parcel};

/// Bytes of each datagram.
const SEGMENT: usize = HEADER_MAX + CHUNK;

/// Bytes of one train: the largest subtree and the datagram that proves it.
pub const TRAIN: usize = (SUBTREE_CHUNKS_MAX + 1) * SEGMENT;

/// What is sent: constant, so that it outlives every operation of the kernel.
static BYTES: [u8; TRAIN] = [0x47; TRAIN];

/// Which trains to send.
#[derive(Clone, Copy, Debug)]
pub struct Trains {
    /// How.
    pub way: Way,
    /// Time from one train to the next on average; `None`: as fast as it goes. Those that are due
    /// are sent together, a millisecond's at least.
    pub gap: Option<Duration>,
    /// How long.
    pub length: Duration,
}

/// Sends whole trains of [`TRAIN`] bytes to each address in turn, on the calling thread, which
/// the caller has pinned. Blocks for `plan.length`. In the outcome, `sends` are trains.
///
/// # Errors
/// Of io_uring_setup(2); if the socket fails or the kernel cuts no trains for it;
/// [`io::ErrorKind::InvalidInput`] without an address.
pub fn run_trains(plan: &Trains, socket: &UdpSocket, to: &[SocketAddr]) -> io::Result<Outcome> {
    if to.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "nobody to send trains to"));
    }
    let v6 = socket.local_addr()?.is_ipv6();
    match plan.way {
        Way::Uring => drive(plan, socket, v6, to, &mut Ring::new()?),
        Way::Epoll => drive(plan, socket, v6, to, &mut Plain(Box::new(Frame::new()))),
    }
}

/// One way of sending a few trains.
trait Batches {
    /// Adds what happened to `outcome`.
    ///
    /// # Errors
    /// If the socket or the ring failed.
    fn batch(
        &mut self,
        socket: BorrowedFd<'_>,
        v6: bool,
        trains: &[Parcel],
        outcome: &mut Outcome,
    ) -> io::Result<()>;
}

fn drive(
    plan: &Trains,
    socket: &UdpSocket,
    v6: bool,
    to: &[SocketAddr],
    batches: &mut impl Batches,
) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut trains: Vec<Parcel> = Vec::with_capacity(BATCH);
    let mut next = to.iter().cycle();
    let (start, cpu) = (Instant::now(), thread_cpu());
    let mut due = start;
    while start.elapsed() < plan.length {
        let now = Instant::now();
        trains.clear();
        while trains.len() < BATCH && plan.gap.is_none_or(|_| due <= now) {
            due += plan.gap.unwrap_or_default();
            let (data, segment) = (Bytes::from_static(&BYTES).into(), SEGMENT as u16);
            let train = next.next().map(|&to| Content::Run { to, data, segment });
            trains.extend(train.and_then(Parcel::new));
        }
        let before = outcome.blocked;
        batches.batch(socket.as_fd(), v6, &trains, &mut outcome)?;
        if trains.len() == BATCH {
            // A sender that cannot keep the pace goes as fast as it can: no debt is kept.
            due = due.max(Instant::now());
        }
        if outcome.blocked > before {
            pause_until(Instant::now() + BREATH);
        } else if plan.gap.is_some() {
            pause_until(due.max(now + BREATH));
        }
    }
    outcome.wall = start.elapsed();
    outcome.cpu = thread_cpu().saturating_sub(cpu);
    Ok(outcome)
}

/// Adds the kernel's answer to one train.
fn add(result: Result<usize, Errno>, outcome: &mut Outcome) -> io::Result<()> {
    match result {
        Ok(n) => {
            outcome.bytes += n as u64;
            outcome.sends += 1;
        }
        Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => outcome.blocked += 1,
        Err(errno) => return Err(errno.into()),
    }
    Ok(())
}

/// One sendmsg(2) after the other, as the epoll driver sends.
struct Plain(Box<Frame>);

impl Batches for Plain {
    fn batch(
        &mut self,
        socket: BorrowedFd<'_>,
        v6: bool,
        trains: &[Parcel],
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        for train in trains {
            outcome.calls += 1;
            add(self.0.send(socket, train, train.rest(), v6, 0), outcome)?;
        }
        Ok(())
    }
}

/// Batches of SENDMSG through a ring, as the io_uring driver sends.
struct Ring {
    ring: uring::Ring,
    /// Read by the kernel while a batch is submitted.
    frames: Box<[UnsafeCell<Frame>]>,
}

impl Ring {
    fn new() -> io::Result<Ring> {
        let frames = (0..BATCH).map(|_| UnsafeCell::new(Frame::new())).collect();
        Ok(Ring { ring: uring::Ring::new()?, frames })
    }

    fn submit(
        &mut self,
        socket: BorrowedFd<'_>,
        v6: bool,
        trains: &[Parcel],
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let fd = types::Fd(socket.as_raw_fd());
        for (train, frame) in trains.iter().zip(&self.frames) {
            // SAFETY: every operation on an earlier content of this frame is complete (`batch`),
            // so nobody looks at it. The frame and what the train holds, constant bytes, stay
            // until this one is complete, or for ever.
            let message = unsafe { Frame::fill(frame.get(), train, train.rest(), v6, 0) };
            let flags = FLAGS.cast_unsigned();
            let entry = opcode::SendMsg::new(fd, message).flags(flags).build();
            // SAFETY: as above; and the socket is borrowed until the entry is submitted, below.
            unsafe { self.ring.push(&entry)? };
        }
        self.ring.settle(trains.len(), outcome, |result, outcome| {
            let errno = || Errno::from_raw_os_error(-result);
            add(usize::try_from(result).map_err(|_| errno()), outcome)
        })
    }
}

impl Batches for Ring {
    fn batch(
        &mut self,
        socket: BorrowedFd<'_>,
        v6: bool,
        trains: &[Parcel],
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let result = self.submit(socket, v6, trains, outcome);
        if result.is_err() {
            // Some may not be complete: the kernel may still read their frames.
            std::mem::forget(std::mem::take(&mut self.frames));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is reported is what arrives, at every address in turn, cut as it should be.
    fn sends_what_it_says(way: Way) {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let ends: Vec<_> = (0..3).map(|_| UdpSocket::bind(host).unwrap()).collect();
            let to: Vec<_> = ends.iter().map(|end| end.local_addr().unwrap()).collect();
            let socket = UdpSocket::bind(host).unwrap();
            let (gap, length) = (Duration::from_millis(5), Duration::from_millis(60));
            let plan = Trains { way, gap: Some(gap), length };
            // Twelve at most; a busy machine may send fewer.
            let outcome = run_trains(&plan, &socket, &to).unwrap();
            let mut datagrams = Vec::new();
            for end in &ends {
                end.set_nonblocking(true).unwrap();
                let mut count = 0;
                let mut got = [0; 2000];
                while let Ok(n) = end.recv(&mut got) {
                    assert!(n == SEGMENT && got[..n].iter().all(|&byte| byte == 0x47));
                    count += 1;
                }
                datagrams.push(count);
            }
            let sum: u64 = datagrams.iter().sum();
            assert_eq!((outcome.bytes, outcome.blocked), (sum * SEGMENT as u64, 0));
            assert_eq!(outcome.sends * 17, sum);
            assert!((3..=13).contains(&outcome.sends), "{outcome:?}");
            assert!(datagrams.iter().all(|&n| n >= 17), "in turn: {datagrams:?}");
            assert!(outcome.calls > 0 && outcome.cpu < outcome.wall);
        }
    }

    #[test]
    fn plain_trains_are_accounted() {
        sends_what_it_says(Way::Epoll);
    }

    #[test]
    fn ring_trains_are_accounted() {
        match crate::io::probe::uring() {
            Ok(()) => sends_what_it_says(Way::Uring),
            Err(why) => println!("SKIPPED: {why}"),
        }
    }

    #[test]
    fn without_a_pace_it_goes_as_fast_as_it_can() {
        let end = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = [end.local_addr().unwrap()];
        let length = Duration::from_millis(50);
        let plan = Trains { way: Way::Epoll, gap: None, length };
        let outcome = run_trains(&plan, &socket, &to).unwrap();
        assert!(outcome.sends >= BATCH as u64, "{outcome:?}");
        let nobody = run_trains(&plan, &socket, &[]).unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::InvalidInput);
    }

    /// What fails ends the loop and says why.
    #[test]
    fn a_socket_that_cannot_is_an_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = ["[::1]:9".parse().unwrap()];
        let length = Duration::from_secs(5);
        for way in [Way::Epoll, Way::Uring] {
            let plan = Trains { way, gap: None, length };
            if way == Way::Epoll || crate::io::probe::uring().is_ok() {
                let error = run_trains(&plan, &socket, &to).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EAFNOSUPPORT));
            }
        }
    }
}
