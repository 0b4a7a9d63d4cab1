//! The egress budget of the swarm: what peers are reckoned at, what goes out, and whether there
//! is room for another one.
//!
//! Two guards stand before the same budget, and a newcomer has to pass both. What each peer is
//! reckoned at is known at once, and is an estimate: of what it has the relay push to it. What
//! goes out is measured, whatever it is sent for, and is known a second later. Without the first,
//! a crowd that comes within a second is let in whole; without the second, peers that ask for
//! what they do not subscribe to cost nothing.
//!
//! Neither is held against those inside. Whoever is cut off stalls; whoever is refused plays over
//! HTTP or elsewhere. So what goes out may exceed the budget: when peers that were fed by others
//! fall back to the relay, by as much as the least that a peer is reckoned at allows.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::base::time::Mono;

/// Nobody comes in while this much of the budget goes out, in percent, and until it is less than
/// that: a single newcomer must not open and close the door.
const FULL: u64 = 90;
const FREE: u64 = 80;

/// Over what time it is measured what goes out: a few subtrees of a slow stream.
const MEASURED_OVER: Duration = Duration::from_secs(1);

/// One for the whole process. Everything in bits per second.
#[derive(Debug)]
pub struct Budget {
    /// `None`: no limit is known.
    most: Option<u64>,
    promised: AtomicU64,
    measured: AtomicU64,
    full: AtomicBool,
}

impl Budget {
    /// Of which nothing is used.
    #[must_use]
    pub fn new(most: Option<u64>) -> Budget {
        let (promised, measured) = (AtomicU64::new(0), AtomicU64::new(0));
        Budget { most, promised, measured, full: AtomicBool::new(false) }
    }

    /// The budget, if there is one.
    #[must_use]
    pub fn most(&self) -> Option<u64> {
        self.most
    }

    /// What all peers inside are reckoned at together.
    #[must_use]
    pub fn promised(&self) -> u64 {
        self.promised.load(Relaxed)
    }

    /// What goes out to peers, as last measured.
    #[must_use]
    pub fn measured(&self) -> u64 {
        self.measured.load(Relaxed)
    }

    /// Takes `bits` for a newcomer. False, and nothing is taken: there is no room for it.
    pub(super) fn take(&self, bits: u64) -> bool {
        if self.full.load(Relaxed) {
            return false;
        }
        let most = self.most.unwrap_or(u64::MAX);
        let under = |sum: u64| sum.checked_add(bits).filter(|sum| *sum <= most);
        self.promised.fetch_update(Relaxed, Relaxed, under).is_ok()
    }

    /// Somebody inside is reckoned at something else, be there room or not.
    pub(super) fn change(&self, before: u64, bits: u64) {
        // Wraps, as the sum does: what is taken off was added before.
        self.promised.fetch_add(bits.wrapping_sub(before), Relaxed);
    }

    /// One meter shows something else.
    fn measure(&self, before: u64, bits: u64) {
        let change = bits.wrapping_sub(before);
        let sum = self.measured.fetch_add(change, Relaxed).wrapping_add(change);
        let Some(most) = self.most else { return };
        let part = |percent: u64| u128::from(most) * u128::from(percent) / 100;
        if u128::from(sum) >= part(FULL) {
            self.full.store(true, Relaxed);
        } else if u128::from(sum) < part(FREE) {
            self.full.store(false, Relaxed);
        }
    }
}

/// What one shard sends to peers. It has to be looked at several times a second, and to rest as
/// soon as there is nobody left to send to: what it shows counts until then.
#[derive(Debug, Default)]
pub struct Meter {
    since: Option<Mono>,
    bytes: u64,
    /// What it shows, in bits per second.
    rate: u64,
}

impl Meter {
    /// So many bytes went out.
    pub fn count(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Looks how much that was, if it is time.
    pub fn look(&mut self, now: Mono, budget: &Budget) {
        let Some(since) = self.since else {
            (self.since, self.bytes) = (Some(now), 0);
            return;
        };
        let span = now.since(since);
        if span < MEASURED_OVER {
            return;
        }
        let bits = u128::from(self.bytes) * 8 * 1_000_000_000 / span.as_nanos();
        self.show(u64::try_from(bits).unwrap_or(u64::MAX), budget);
        (self.since, self.bytes) = (Some(now), 0);
    }

    /// Nothing goes out any more.
    pub fn rest(&mut self, budget: &Budget) {
        self.show(0, budget);
        (self.since, self.bytes) = (None, 0);
    }

    fn show(&mut self, rate: u64, budget: &Budget) {
        budget.measure(self.rate, rate);
        self.rate = rate;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `meter` see so many bits per second for a second, in quarters.
    fn send(meter: &mut Meter, now: &mut Mono, budget: &Budget, bits: u64) {
        for _ in 0..4 {
            meter.count(bits / 8 / 4);
            *now = *now + Duration::from_millis(250);
            meter.look(*now, budget);
        }
    }

    #[test]
    fn the_door_closes_at_nine_tenths_and_opens_below_eight() {
        let budget = Budget::new(Some(10_000));
        let (mut meter, mut now) = (Meter::default(), Mono::from_millis(5_000));
        meter.look(now, &budget);
        let mut is_open_at = |bits: u64| {
            send(&mut meter, &mut now, &budget, bits);
            assert_eq!(budget.measured(), bits);
            let open = budget.take(1);
            budget.change(u64::from(open), 0);
            open
        };
        assert!(is_open_at(8_960));
        assert!(!is_open_at(9_024));
        assert!(!is_open_at(8_000), "not back and forth");
        assert!(is_open_at(7_968));
        assert!(is_open_at(8_960), "nor here");
        assert_eq!(budget.promised(), 0);
    }

    #[test]
    fn all_meters_count_and_one_that_rests_does_not() {
        let budget = Budget::new(Some(10_000));
        let mut meters = [Meter::default(), Meter::default()];
        let start = Mono::from_millis(5_000);
        for meter in &mut meters {
            meter.look(start, &budget);
            send(meter, &mut start.clone(), &budget, 4_800);
        }
        assert_eq!(budget.measured(), 9_600);
        assert!(!budget.take(1));
        meters[0].rest(&budget);
        assert_eq!(budget.measured(), 4_800);
        assert!(budget.take(1));
        // A time without peers is not measured: it would make what comes next look small.
        let mut later = start + Duration::from_secs(60);
        meters[0].look(later, &budget);
        send(&mut meters[0], &mut later, &budget, 4_800);
        assert_eq!(budget.measured(), 9_600);
    }

    #[test]
    fn those_inside_are_reckoned_anew_be_there_room_or_not() {
        let budget = Budget::new(Some(10));
        assert!(budget.take(4) && budget.take(4));
        budget.change(4, 30);
        assert_eq!(budget.promised(), 34);
        assert!(!budget.take(0), "there is none");
        budget.change(30, 6);
        assert!(budget.take(0) && !budget.take(1));
        let endless = Budget::new(None);
        assert!(endless.take(1 << 40) && endless.take(1 << 40));
        endless.measure(0, u64::MAX);
        assert!(endless.take(1));
    }
}
