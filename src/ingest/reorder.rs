//! RTP packets put back into order, for as long as a live stream can wait.

use std::time::Duration;

use crate::base::time::Mono;

/// How far ahead of the next packet one may come, in packets; a power of two.
pub const PACKETS: u16 = 64;

/// How long a missing packet is waited for.
pub const WAIT: Duration = Duration::from_millis(200);

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sequence numbers that were given up.
    pub lost: u64,
    /// Packets that came after a later one and were still put into their place.
    pub reordered: u64,
    /// Packets that came a second time, or after they had been given up.
    pub late: u64,
}

/// One packet that came before its turn.
#[derive(Debug, Default)]
struct Held {
    /// When it came; `None`: the place is empty.
    came: Option<Mono>,
    payload: Vec<u8>,
}

/// The window of one run of sequence numbers.
///
/// A packet that comes in its turn is passed on from where it lies; only one that comes early is
/// copied. The copies keep their memory, so that after warm-up nothing is allocated: at most
/// [`PACKETS`] times one datagram.
#[derive(Debug)]
pub struct Reorder {
    next: u16,
    /// The highest number seen, plus one: what comes below it comes out of order.
    top: u16,
    held: Box<[Held]>,
    count: usize,
}

impl Reorder {
    /// A window whose first packet is `first`.
    #[must_use]
    pub fn new(first: u16) -> Reorder {
        let held = (0..PACKETS).map(|_| Held::default()).collect();
        Reorder { next: first, top: first, held, count: 0 }
    }

    /// Begins anew at `first`; what was held is forgotten.
    pub fn restart(&mut self, first: u16) {
        (self.next, self.top, self.count) = (first, first, 0);
        self.held.iter_mut().for_each(|held| held.came = None);
    }

    /// How far `sequence` lies ahead of the next packet; negative: behind it.
    #[must_use]
    pub fn ahead(&self, sequence: u16) -> i16 {
        sequence.wrapping_sub(self.next).cast_signed()
    }

    /// Takes a packet, and passes on what is in order now.
    pub fn push(
        &mut self,
        now: Mono,
        sequence: u16,
        payload: &[u8],
        tally: &mut Tally,
        sink: &mut dyn FnMut(&[u8]),
    ) {
        let ahead = self.ahead(sequence);
        if ahead < 0 {
            tally.late += 1;
            return;
        }
        if sequence.wrapping_sub(self.top).cast_signed() < 0 {
            if ahead > 0 && self.slot(sequence).came.is_some() {
                tally.late += 1;
                return;
            }
            tally.reordered += 1;
        } else {
            self.top = sequence.wrapping_add(1);
        }
        while self.ahead(sequence) >= PACKETS.cast_signed() {
            self.step(tally, sink);
        }
        // The window may have moved onto packets that are there.
        self.drain(tally, sink);
        if sequence == self.next {
            sink(payload);
            self.next = self.next.wrapping_add(1);
            self.drain(tally, sink);
            return;
        }
        let held = self.slot(sequence);
        held.came = Some(now);
        held.payload.clear();
        held.payload.extend_from_slice(payload);
        self.count += 1;
    }

    /// When the packet that is waited for is given up.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        if self.count == 0 {
            return None;
        }
        self.held.iter().filter_map(|held| held.came).min().map(|came| came + WAIT)
    }

    /// Gives up what was waited for long enough, and passes on what lies behind it.
    pub fn handle_timer(&mut self, now: Mono, tally: &mut Tally, sink: &mut dyn FnMut(&[u8])) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.flush(tally, sink);
        }
    }

    /// Gives up the missing packets in front of the first one held, and passes that on with
    /// those that follow it.
    fn flush(&mut self, tally: &mut Tally, sink: &mut dyn FnMut(&[u8])) {
        while self.count > 0 && self.slot(self.next).came.is_none() {
            self.step(tally, sink);
        }
        self.drain(tally, sink);
    }

    /// Passes on everything that is held.
    pub fn finish(&mut self, tally: &mut Tally, sink: &mut dyn FnMut(&[u8])) {
        while self.count > 0 {
            self.flush(tally, sink);
        }
    }

    /// Passes on packets up to the next missing one.
    fn drain(&mut self, tally: &mut Tally, sink: &mut dyn FnMut(&[u8])) {
        while self.count > 0 && self.slot(self.next).came.is_some() {
            self.step(tally, sink);
        }
    }

    /// Goes on by one number: passes its packet on, or counts it as lost.
    fn step(&mut self, tally: &mut Tally, sink: &mut dyn FnMut(&[u8])) {
        let held = &mut self.held[usize::from(self.next % PACKETS)];
        match held.came.take() {
            Some(_) => {
                sink(&held.payload);
                self.count -= 1;
            }
            None => tally.lost += 1,
        }
        self.next = self.next.wrapping_add(1);
    }

    fn slot(&mut self, sequence: u16) -> &mut Held {
        &mut self.held[usize::from(sequence % PACKETS)]
    }
}

const _: () = assert!(PACKETS.is_power_of_two(), "places stay the same when numbers wrap");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pushes numbers a millisecond apart; what comes out.
    fn run(first: u16, numbers: &[u16]) -> (Vec<u16>, Tally, Reorder) {
        let (mut window, mut tally, mut out) = (Reorder::new(first), Tally::default(), Vec::new());
        for (at, number) in (0..).zip(numbers) {
            let mut sink = |bytes: &[u8]| out.push(u16::from_be_bytes([bytes[0], bytes[1]]));
            let now = Mono::from_millis(at);
            window.push(now, *number, &number.to_be_bytes(), &mut tally, &mut sink);
        }
        (out, tally, window)
    }

    #[test]
    fn order_is_restored_also_where_the_numbers_wrap() {
        let (out, tally, _) = run(65_534, &[65_534, 0, 65_535, 2, 3, 1]);
        assert_eq!(out, [65_534, 65_535, 0, 1, 2, 3]);
        assert_eq!(tally, Tally { lost: 0, reordered: 2, late: 0 });
    }

    #[test]
    fn what_comes_twice_or_too_late_is_not_passed_on() {
        let (out, tally, _) = run(1, &[1, 1, 3, 3, 2, 2]);
        assert_eq!(out, [1, 2, 3]);
        assert_eq!(tally, Tally { lost: 0, reordered: 1, late: 3 });
    }

    #[test]
    fn the_window_moves_on_when_it_is_full() {
        let numbers: Vec<u16> = (1..=65).collect();
        let (out, tally, _) = run(0, &numbers);
        assert_eq!((out.len(), tally.lost), (65, 1), "0 was given up at 64");
        let (out, tally, _) = run(0, &[0, 2, 1000]);
        assert_eq!(out, [0, 2]);
        assert_eq!(tally.lost, 1 + 1000 - 2 - 64);
    }

    #[test]
    fn a_missing_packet_is_given_up_after_a_while() {
        let (out, mut tally, mut window) = run(0, &[0, 2, 3, 5]);
        assert_eq!(out, [0]);
        let deadline = Mono::from_millis(1) + WAIT;
        assert_eq!(window.deadline(), Some(deadline));
        let mut out = Vec::new();
        let mut sink = |bytes: &[u8]| out.push(bytes[1]);
        window.handle_timer(deadline - Duration::from_nanos(1), &mut tally, &mut sink);
        window.handle_timer(deadline, &mut tally, &mut sink);
        assert_eq!((tally.lost, window.deadline()), (1, Some(Mono::from_millis(3) + WAIT)));
        window.finish(&mut tally, &mut sink);
        assert_eq!((out, tally.lost, window.deadline()), (vec![2, 3, 5], 2, None));
    }

    proptest! {
        /// Whatever is lost, doubled or moved within the window: what comes out ascends, and
        /// every number is passed on or counted.
        #[test]
        fn every_number_comes_out_once_or_is_counted(
            first: u16,
            moves in prop::collection::vec((0..4u8, 0..60usize), 1..400),
        ) {
            let mut numbers: Vec<u16> = Vec::new();
            for (n, (fate, _)) in (0u16..).zip(&moves) {
                let number = first.wrapping_add(n);
                let times = [1, 1, 2, usize::from(n == 0)][usize::from(*fate)];
                numbers.extend(std::iter::repeat_n(number, times));
            }
            for (at, (_, by)) in moves.iter().enumerate() {
                let to = (at + by % 30).min(numbers.len() - 1);
                if at > 0 && at < to {
                    numbers[at..=to].rotate_left(1);
                }
            }
            let (mut out, mut tally, mut window) = run(first, &numbers);
            let mut sink = |bytes: &[u8]| out.push(u16::from_be_bytes([bytes[0], bytes[1]]));
            window.finish(&mut tally, &mut sink);
            let places: Vec<u16> = out.iter().map(|n| n.wrapping_sub(first)).collect();
            prop_assert!(places.is_sorted_by(|a, b| a < b), "{:?}", places);
            prop_assert_eq!(numbers.len() as u64, out.len() as u64 + tally.late);
            let last = u64::from(*places.last().unwrap()) + 1;
            prop_assert_eq!(last, out.len() as u64 + tally.lost);
        }
    }
}
