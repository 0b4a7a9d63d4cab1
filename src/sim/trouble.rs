//! What befalls more than one line: a region that nothing reaches, a host that is too slow.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::base::time::Mono;
use crate::sim::tcp::TcpEvent;
use crate::sim::world::{Event, RELAY, World};

/// One host in so many is in the region. Relay and publisher are elsewhere.
const REGION: usize = 3;

/// The longest time that a region is cut off: who wants to connect must hear something after five
/// seconds, and here all that begins meanwhile comes about afterwards.
pub const RIFT_MAX: Duration = Duration::from_secs(4);

/// How long after the healing TCP tries again: by then it waits for long between two tries.
const RETRY: Duration = Duration::from_millis(500);

/// How much later an end of a connection comes, behind all that was sent before.
const BEHIND: Duration = Duration::from_secs(1);

const _: () = assert!(RIFT_MAX.as_millis() + RETRY.as_millis() < 5_000);

/// What befalls the world.
#[derive(Debug, Default)]
pub struct Trouble {
    /// When the region's ways are healed.
    heals: Option<Mono>,
    slow: Option<Slow>,
    /// Events that had to wait.
    pub(super) held: u64,
}

/// A host that does nothing for a part of each period, as one does whose cores do something else.
/// What comes meanwhile waits, none of it is lost: buffers are as large as they need to be.
#[derive(Clone, Copy, Debug)]
struct Slow {
    host: usize,
    since: Mono,
    until: Mono,
    busy: Duration,
    period: Duration,
}

impl Slow {
    /// How long the host is busy with something else yet.
    fn rest(&self, now: Mono) -> Option<Duration> {
        if now < self.since || now >= self.until {
            return None;
        }
        let phase = now.since(self.since).as_nanos() % self.period.as_nanos().max(1);
        let phase = Duration::from_nanos(u64::try_from(phase).unwrap_or(0));
        // What comes after the end must not overtake what waits.
        let rest = self.busy.checked_sub(phase)?.min(self.until.since(now));
        (!rest.is_zero()).then_some(rest)
    }
}

/// Whether a host is in the region.
#[must_use]
pub fn is_in_region(host: usize) -> bool {
    host % REGION == REGION - 1
}

impl World {
    /// From now on and for this time nothing passes between the region and everybody else.
    pub fn cut_off_region(&mut self, time: Duration) {
        self.trouble.heals = Some(self.now() + time.min(RIFT_MAX));
    }

    /// Whether the region is cut off.
    #[must_use]
    pub fn is_parted(&self) -> bool {
        self.trouble.heals.is_some_and(|heals| self.now() < heals)
    }

    /// From now on and for this time `host` does nothing for `busy` of each `period`.
    pub fn slow_down(&mut self, host: usize, time: Duration, busy: Duration, period: Duration) {
        let since = self.now();
        self.trouble.slow = Some(Slow { host, since, until: since + time, busy, period });
    }

    /// Whether datagrams from this address do not get through to `host`.
    pub(super) fn is_apart(&self, from: Ipv4Addr, host: usize) -> bool {
        self.is_parted()
            && self.host_of(from).is_some_and(|from| is_in_region(from) != is_in_region(host))
    }

    /// Lets an event wait if it must. All that waits goes on at one instant, in its order.
    pub(super) fn hold_up(&mut self, event: Event) -> Option<Event> {
        if self.trouble.heals.is_none() && self.trouble.slow.is_none() {
            return Some(event);
        }
        let now = self.now();
        let Some(until) = self.held_until(now, &event) else { return Some(event) };
        if let Event::Wake { seat, life } = event {
            let place = &mut self.seats[seat];
            if place.life != life || place.wake != Some(now) {
                return None;
            }
            place.wake = Some(until);
        }
        self.trouble.held += 1;
        self.queue.plan(until, event);
        None
    }

    fn held_until(&self, now: Mono, event: &Event) -> Option<Mono> {
        let rest = self.trouble.slow.and_then(|slow| {
            (self.host_at(event) == Some(slow.host)).then(|| slow.rest(now)).flatten()
        });
        if let Some(rest) = rest {
            return Some(now + rest);
        }
        let Event::Tcp(event) = event else { return None };
        let resume = self.trouble.heals? + RETRY;
        let (here, there, late) = match event {
            TcpEvent::Syn { seat, to, .. } => {
                (self.seats[*seat].host, self.host_of(*to.ip())?, Duration::ZERO)
            }
            TcpEvent::Router { wire, side, .. } => {
                (self.host_of_end(*wire, *side), self.host_of_end(*wire, 1 - side), Duration::ZERO)
            }
            TcpEvent::Fin { wire, side } => {
                (self.host_of_end(*wire, *side), self.host_of_end(*wire, 1 - side), BEHIND)
            }
            _ => return None,
        };
        let apart = is_in_region(here) != is_in_region(there);
        (apart && now <= resume).then(|| resume + late + Duration::from_nanos(1))
    }

    /// The host whose machines an event is for.
    fn host_at(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Wake { seat, .. }
            | Event::Room { seat, .. }
            | Event::Mail { seat, .. }
            | Event::Head { seat, .. } => Some(self.seats[*seat].host),
            Event::Land { host, .. } => Some(*host),
            Event::Router(_) | Event::Step(_) => None,
            Event::Tcp(event) => match event {
                // Whoever listens is told by the same event.
                TcpEvent::Syn { to, .. } => self.host_of(*to.ip()),
                TcpEvent::Refused { seat, .. } => Some(self.seats[*seat].host),
                TcpEvent::Connected { wire, .. } => Some(self.host_of_end(*wire, 0)),
                TcpEvent::Router { .. } => None,
                TcpEvent::Data { wire, side, .. }
                | TcpEvent::Acked { wire, side, .. }
                | TcpEvent::Fin { wire, side } => Some(self.host_of_end(*wire, *side)),
            },
        }
    }
}

const _: () = assert!(RELAY % REGION != REGION - 1 && (RELAY + 1) % REGION != REGION - 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_host_rests_in_each_period_until_it_is_over() {
        let ms = Duration::from_millis;
        let (since, until) = (Mono::from_millis(1_000), Mono::from_millis(2_030));
        let slow = Slow { host: 0, since, until, busy: ms(75), period: ms(200) };
        let rest = |at: u64| slow.rest(Mono::from_millis(at));
        assert_eq!([rest(999), rest(1_000), rest(1_074)], [None, Some(ms(75)), Some(ms(1))]);
        assert_eq!([rest(1_075), rest(1_199), rest(1_200)], [None, None, Some(ms(75))]);
        assert_eq!([rest(1_810), rest(2_010), rest(2_030)], [Some(ms(65)), Some(ms(20)), None]);
    }
}
