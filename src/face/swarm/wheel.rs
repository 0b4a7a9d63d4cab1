//! Timers of many sessions, none of which needs to be exact: a wheel of 8 ms a spoke.

use std::time::Duration;

use crate::base::time::Mono;

/// One spoke in nanoseconds, as a power of two: 8.4 ms.
const SPOKE_BITS: u32 = 23;

/// Spokes. What lies further ahead is looked at when the wheel has gone round.
const SPOKES: u32 = 256;

/// Which spoke a session hangs on, counted from the clock's origin; 0: on none. Kept by the
/// session: what the wheel finds of one that has moved since is stale, and dropped.
pub(super) type Spoke = u32;

/// The wheel: places of sessions.
#[derive(Debug)]
pub(super) struct Wheel {
    spokes: Vec<Vec<u32>>,
    /// One bit for each spoke that has anything.
    used: [u64; SPOKES as usize / 64],
    /// The last spoke that was emptied.
    done: Spoke,
}

fn spoke_of(at: Mono) -> Spoke {
    u32::try_from(at.as_nanos() >> SPOKE_BITS).unwrap_or(u32::MAX)
}

impl Wheel {
    /// Nothing hangs on it.
    pub(super) fn new() -> Wheel {
        Wheel { spokes: vec![Vec::new(); SPOKES as usize], used: [0; 4], done: 0 }
    }

    /// Hangs a session up, to be looked at soon after `at`, on a wheel that was turned to now.
    /// `hangs`: where it is now; it stays there if that is earlier.
    pub(super) fn hang(&mut self, place: u32, at: Mono, hangs: &mut Spoke) {
        let spoke = (spoke_of(at) + 1).clamp(self.done + 1, self.done + SPOKES - 1);
        if *hangs > self.done && *hangs <= spoke {
            return;
        }
        *hangs = spoke;
        let slot = spoke % SPOKES;
        self.spokes[slot as usize].push(place);
        self.used[slot as usize / 64] |= 1 << (slot % 64);
    }

    /// Takes everything off that is due: the places, and the spoke that each hung on.
    pub(super) fn turn(&mut self, now: Mono, due: &mut Vec<(u32, Spoke)>) {
        let upto = spoke_of(now);
        self.done = self.done.max(upto.saturating_sub(SPOKES));
        while self.done < upto {
            self.done += 1;
            let slot = (self.done % SPOKES) as usize;
            if self.used[slot / 64] & 1 << (slot % 64) != 0 {
                self.used[slot / 64] &= !(1 << (slot % 64));
                due.extend(self.spokes[slot].drain(..).map(|place| (place, self.done)));
            }
        }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Mono> {
        let used = |spoke: &u32| {
            let slot = spoke % SPOKES;
            self.used[slot as usize / 64] & 1 << (slot % 64) != 0
        };
        let spoke = (self.done + 1..=self.done + SPOKES).find(used)?;
        Some(Mono::from_nanos(u64::from(spoke) << SPOKE_BITS))
    }
}

/// How late a timer may be.
#[cfg(test)]
const LATE: Duration = Duration::from_nanos(2 << SPOKE_BITS);

const _: () = assert!(Duration::from_secs(2).as_nanos() < (SPOKES as u128) << SPOKE_BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_once_and_not_much_too_late() {
        let mut wheel = Wheel::new();
        let mut random = fastrand::Rng::with_seed(4);
        let begin = Mono::from_millis(1_000_000);
        let mut wanted: Vec<(Mono, Spoke, u32)> = Vec::new();
        let mut due = Vec::new();
        wheel.turn(begin, &mut due);
        for place in 0..500 {
            let at = begin + Duration::from_micros(random.u64(0..2_000_000));
            let mut hangs = 0;
            wheel.hang(place, at, &mut hangs);
            wanted.push((at, hangs, 0));
        }
        let mut now = begin;
        while let Some(next) = wheel.next() {
            assert!(next >= now);
            now = next.max(now + Duration::from_millis(1));
            wheel.turn(now, &mut due);
            for (place, spoke) in due.drain(..) {
                let (at, hangs, times) = &mut wanted[place as usize];
                assert_eq!(*hangs, spoke);
                assert!(now >= *at && now.since(*at) <= LATE, "{at:?} at {now:?}");
                *times += 1;
            }
        }
        assert!(wanted.iter().all(|(_, _, times)| *times == 1));
    }

    #[test]
    fn an_earlier_time_moves_a_session_and_a_later_one_does_not() {
        let mut wheel = Wheel::new();
        let begin = Mono::from_millis(5_000);
        let at = |millis| begin + Duration::from_millis(millis);
        let (mut hangs, mut due) = (0, Vec::new());
        wheel.turn(begin, &mut due);
        wheel.hang(7, at(900), &mut hangs);
        let late = hangs;
        wheel.hang(7, at(950), &mut hangs);
        assert_eq!(hangs, late);
        wheel.hang(7, at(100), &mut hangs);
        assert!(hangs < late);
        wheel.turn(at(120), &mut due);
        assert_eq!(due, [(7, hangs)]);
        due.clear();
        wheel.turn(at(1_000), &mut due);
        assert_eq!(due, [(7, late)], "stale: the session knows another spoke");
        // Far ahead, in the past, and after a long sleep.
        let (mut far, mut past) = (0, 0);
        wheel.hang(1, at(900_000), &mut far);
        wheel.hang(2, at(0), &mut past);
        due.clear();
        wheel.turn(at(60_000), &mut due);
        assert_eq!(due.len(), 2);
        assert_eq!(wheel.next(), None);
    }
}
