//! The way between a host and the rest of the world: what it carries, how long that takes, and
//! what it does to datagrams.

use std::time::Duration;

use crate::base::time::Mono;
use crate::sim::dice::{Dice, Ppm};
use crate::sim::nat::NatKind;

/// Bytes of the IPv4 and UDP headers of a datagram.
pub const HEADERS: usize = 28;

/// A host's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Bits per second from the host.
    pub up: u64,
    /// Bits per second to the host.
    pub down: u64,
    /// Bytes that wait in front of the line to the host before more are dropped.
    pub queue: u64,
    /// The same in front of the line from the host.
    pub queue_up: u64,
    /// The host itself waits for room instead: its own network card, not a router at home.
    pub patient: bool,
    /// How often the machines of the host get their turn at most: what comes meanwhile waits, and
    /// what is due. Zero: at once.
    pub turn: Duration,
    /// From here to the middle of the network.
    pub delay: Duration,
    /// Up to so much longer, for each thing that is sent; never less than for what is ahead.
    pub jitter: Duration,
    /// What happens to datagrams, in either direction.
    pub faults: Faults,
    /// The longest packet, IP header included.
    pub mtu: usize,
    /// The address translation in front of the host.
    pub nat: NatKind,
    /// No datagram comes through at all.
    pub udp_blocked: bool,
}

/// What happens to datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// One is lost.
    pub loss: Ppm,
    /// Losses in a row begin.
    pub burst: Ppm,
    /// Such a row goes on for another datagram.
    pub burst_goes_on: Ppm,
    /// One comes twice.
    pub twice: Ppm,
    /// One is overtaken by others.
    pub late: Ppm,
}

/// One direction of a link: a line with a queue in front.
#[derive(Clone, Debug)]
pub struct Pipe {
    rate: u64,
    limit: u64,
    /// When the last byte of what was taken has left.
    free: Mono,
    /// Bytes that were taken.
    pub bytes: u64,
}

impl Pipe {
    /// A pipe of `rate` bit/s, in front of which `limit` bytes may wait.
    #[must_use]
    pub fn new(rate: u64, limit: u64) -> Pipe {
        Pipe { rate: rate.max(1), limit, free: Mono::ZERO, bytes: 0 }
    }

    /// Bits per second that it carries.
    #[cfg(test)]
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// How long it takes until what waits is through.
    #[must_use]
    pub fn wait(&self, now: Mono) -> Duration {
        self.free.since(now)
    }

    /// Bytes that wait.
    #[must_use]
    pub fn backlog(&self, now: Mono) -> u64 {
        let nanos = self.free.since(now).as_nanos() * u128::from(self.rate);
        u64::try_from(nanos / 8_000_000_000).unwrap_or(u64::MAX)
    }

    /// Takes `bytes`; returns when the last of them is through. `None`: the queue is full.
    pub fn take(&mut self, now: Mono, bytes: usize) -> Option<Mono> {
        let room = self.backlog(now).saturating_add(bytes as u64) <= self.limit;
        room.then(|| self.take_all(now, bytes))
    }

    /// Takes `bytes` however many are waiting.
    pub fn take_all(&mut self, now: Mono, bytes: usize) -> Mono {
        self.free = self.free.max(now) + self.time(bytes as u64);
        self.bytes += bytes as u64;
        self.free
    }

    /// Carries `rate` bit/s from now on; what waits goes on waiting.
    pub fn change(&mut self, now: Mono, rate: u64) {
        let waiting = self.backlog(now);
        self.rate = rate.max(1);
        self.free = now + self.time(waiting);
    }

    /// How long the line needs for so many bytes.
    fn time(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When at most `bytes` are waiting.
    #[must_use]
    pub fn below(&self, bytes: u64) -> Mono {
        self.free - self.time(bytes)
    }
}

/// What happens to the datagrams of one direction, one after the other.
#[derive(Clone, Debug)]
pub struct Weather {
    dice: Dice,
    /// Inside a row of losses.
    bad: bool,
    /// When the last thing came out.
    last: Mono,
}

impl Weather {
    /// The weather that `dice` make.
    #[must_use]
    pub fn new(dice: Dice) -> Weather {
        Weather { dice, bad: false, last: Mono::ZERO }
    }

    /// Whether the next datagram is lost.
    pub fn loses(&mut self, faults: &Faults) -> bool {
        self.bad = match self.bad {
            true => self.dice.happens(faults.burst_goes_on),
            false => self.dice.happens(faults.burst),
        };
        self.bad || self.dice.happens(faults.loss)
    }

    /// When something comes out that would at `at`: jitter is time in queues, which keep their
    /// order. (What is overtaken all the same is a fault of its own.)
    pub fn in_order(&mut self, at: Mono) -> Mono {
        self.last = self.last.max(at);
        self.last
    }

    /// Whether something else of this likelihood happens to it.
    pub fn happens(&mut self, ppm: Ppm) -> bool {
        self.dice.happens(ppm)
    }

    /// A time of at most `longest`.
    pub fn time(&mut self, longest: Duration) -> Duration {
        self.dice.time(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_takes_its_time_and_no_more_than_fits() {
        let mut pipe = Pipe::new(8_000_000, 3_000);
        let now = Mono::from_millis(5);
        assert_eq!(pipe.take(now, 1_000), Some(Mono::from_millis(6)));
        assert_eq!(pipe.take(now, 2_000), Some(Mono::from_millis(8)));
        assert_eq!((pipe.take(now, 1), pipe.backlog(now)), (None, 3_000));
        assert_eq!(pipe.below(1_000), Mono::from_millis(7));
        assert_eq!(pipe.take(Mono::from_millis(7), 2_000), Some(Mono::from_millis(10)));
        assert_eq!(pipe.take_all(Mono::from_millis(7), 9_000), Mono::from_millis(19));
        assert_eq!(pipe.take(Mono::from_millis(50), 1_000), Some(Mono::from_millis(51)));
        assert_eq!(pipe.bytes, 15_000);
    }

    #[test]
    fn what_waits_for_a_line_that_changes_goes_on_waiting() {
        let mut pipe = Pipe::new(8_000_000, 10_000);
        let now = Mono::from_millis(5);
        pipe.take(now, 3_000);
        pipe.change(Mono::from_millis(6), 2_000_000);
        assert_eq!(pipe.backlog(Mono::from_millis(6)), 2_000);
        assert_eq!(pipe.take(Mono::from_millis(6), 1_000), Some(Mono::from_millis(18)));
        pipe.change(Mono::from_millis(18), 8_000_000);
        assert_eq!(pipe.take(Mono::from_millis(20), 1_000), Some(Mono::from_millis(21)));
    }

    #[test]
    fn losses_come_singly_and_in_rows() {
        let mut weather = Weather::new(Dice::new(3, "test", 0));
        let single = Faults { loss: 20_000, ..Faults::default() };
        let lost = (0..100_000).filter(|_| weather.loses(&single)).count();
        assert!((1_800..2_200).contains(&lost), "{lost}");
        // One row in a thousand datagrams, of twenty on average.
        let rows = Faults { burst: 1_000, burst_goes_on: 950_000, ..Faults::default() };
        let seen: Vec<bool> = (0..200_000).map(|_| weather.loses(&rows)).collect();
        let lost = seen.iter().filter(|lost| **lost).count();
        let starts = seen.windows(2).filter(|two| !two[0] && two[1]).count();
        assert!((15..26).contains(&(lost / starts)), "{lost} in {starts} rows");
    }
}
