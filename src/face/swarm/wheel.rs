//! Timers of many sessions, none of which needs to be exact: a wheel of 8 ms a spoke.

use std::time::Duration;

use crate::base::time::Mono;

/// One spoke in nanoseconds, as a power of two: 8.4 ms.
const SPOKE_BITS: u32 = 23;

/// Spokes. What lies further ahead is looked at when the wheel has gone round.
const SPOKES: u32 = 256;

/// Places for which each spoke has room from the beginning: 64 KiB in all.
const PLACES: usize = 64;

/// A spoke's number, counted from the clock's origin; 0: none.
pub(super) type Spoke = u32;

/// Where a session hangs. Kept by the session: what the wheel finds of one that has moved since
/// is stale, and dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hook {
    /// The spoke that counts.
    pub(super) near: Spoke,
    /// A later one that it has left, where it need not be hung up again: a session that answers
    /// questions moves back and forth all the time.
    far: Spoke,
}

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
        let spokes = (0..SPOKES).map(|_| Vec::with_capacity(PLACES)).collect();
        Wheel { spokes, used: [0; 4], done: 0 }
    }

    /// Hangs a session up, to be looked at soon after `at`, on a wheel that was turned to now. It
    /// stays where it is if that is earlier.
    pub(super) fn hang(&mut self, place: u32, at: Mono, hook: &mut Hook) {
        let spoke = (spoke_of(at) + 1).clamp(self.done + 1, self.done + SPOKES - 1);
        let hangs = |spoke: Spoke| spoke > self.done;
        if hangs(hook.near) && hook.near <= spoke {
            return;
        }
        if hangs(hook.far) && hook.far <= spoke {
            (hook.near, hook.far) = (hook.far, 0);
            return;
        }
        if hangs(hook.near) && !hangs(hook.far) {
            hook.far = hook.near;
        }
        hook.near = spoke;
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
        let mut wanted: Vec<(Mono, Hook, u32)> = Vec::new();
        let mut due = Vec::new();
        wheel.turn(begin, &mut due);
        for place in 0..500 {
            let at = begin + Duration::from_micros(random.u64(0..2_000_000));
            let mut hook = Hook::default();
            wheel.hang(place, at, &mut hook);
            wanted.push((at, hook, 0));
        }
        let mut now = begin;
        while let Some(next) = wheel.next() {
            assert!(next >= now);
            now = next.max(now + Duration::from_millis(1));
            wheel.turn(now, &mut due);
            for (place, spoke) in due.drain(..) {
                let (at, hook, times) = &mut wanted[place as usize];
                assert_eq!(hook.near, spoke);
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
        let (mut hook, mut due) = (Hook::default(), Vec::new());
        wheel.turn(begin, &mut due);
        wheel.hang(7, at(900), &mut hook);
        let late = hook.near;
        wheel.hang(7, at(950), &mut hook);
        assert_eq!(hook.near, late);
        wheel.hang(7, at(100), &mut hook);
        assert!(hook.near < late);
        wheel.turn(at(120), &mut due);
        assert_eq!(due, [(7, hook.near)]);
        // Far ahead, in the past, and after a long sleep.
        let (mut far, mut past) = (Hook::default(), Hook::default());
        wheel.hang(1, at(900_000), &mut far);
        wheel.hang(2, at(0), &mut past);
        due.clear();
        wheel.turn(at(60_000), &mut due);
        assert_eq!(due.len(), 3, "one of them stale: the session knows another spoke");
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn who_moves_back_and_forth_hangs_in_two_places_only() {
        let mut wheel = Wheel::new();
        let begin = Mono::from_millis(5_000);
        let (mut hook, mut due) = (Hook::default(), Vec::new());
        let mut came = 0;
        for step in 0..400 {
            let now = begin + Duration::from_millis(step * 10);
            due.clear();
            wheel.turn(now, &mut due);
            if due.iter().any(|(_, spoke)| *spoke == hook.near) {
                hook.near = 0;
                came += 1;
            }
            wheel.hang(7, now + Duration::from_secs(1), &mut hook);
            wheel.hang(7, now + Duration::from_millis(20), &mut hook);
            let hanging: usize = wheel.spokes.iter().map(Vec::len).sum();
            assert!(hanging <= 2, "{hanging} after {step} steps");
        }
        assert!(came > 100, "{came}");
    }
}
