//! What one link has brought of one subtree, and what it was asked for.

use std::time::Duration;

use crate::base::time::Mono;

/// One link's part in a subtree. Chunks are bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Chunks that came and are not acknowledged.
    pub unacked: u16,
    /// When the first of them came.
    pub unacked_at: Mono,
    /// Chunks that came on this link, wanted or not.
    pub came: u16,
    /// Chunks that were asked for and have not come.
    pub asked: u16,
    /// The least delay since the last acknowledgement.
    pub delay: Option<i64>,
    /// When its last datagram came; before that, when it was first missed.
    pub last: Mono,
    /// Since when a chunk is missing although a later one came.
    pub skipped_at: Option<Mono>,
    /// When it was last asked for.
    pub asked_at: Mono,
    /// Whether something of what was asked for then has come.
    pub timed: bool,
    /// Before this time nothing is asked for again.
    pub retry_at: Mono,
    /// When the same question goes out once more, should it be lost on a long way.
    pub echo_at: Option<Mono>,
    /// Chunks that should have come and did not.
    pub lost: u16,
    /// Chunks that were asked for and that an answer to a later one has passed, and since when.
    pub passed: u16,
    pub passed_at: Mono,
    /// Those that come in one train with an answer that came, behind it.
    pub rest: u16,
    /// Its hash datagram came on this link.
    pub hashed: bool,
    /// It was asked for at least once.
    pub was_asked: bool,
    /// A chunk came before its hash.
    pub unproven: bool,
}

impl Part {
    /// Nothing came; the subtree is missed since `since`.
    pub fn new(since: Mono) -> Part {
        Part {
            unacked: 0,
            unacked_at: since,
            came: 0,
            asked: 0,
            delay: None,
            last: since,
            skipped_at: None,
            asked_at: Mono::ZERO,
            timed: false,
            retry_at: since,
            echo_at: None,
            lost: 0,
            passed: 0,
            passed_at: since,
            rest: 0,
            hashed: false,
            was_asked: false,
            unproven: false,
        }
    }

    /// Whether anything of it came on this link.
    pub fn has_begun(&self) -> bool {
        self.hashed || self.came != 0
    }

    /// Whether chunks came on this link, and no hash for them.
    pub fn lacks_hash(&self) -> bool {
        self.unproven && !self.hashed && self.came == 0
    }

    /// Chunks `bits` came, `delay` after they were sent.
    fn note(&mut self, now: Mono, bits: u16, delay: i64) {
        if self.unacked == 0 {
            self.unacked_at = now;
        }
        self.unacked |= bits;
        self.came |= bits;
        self.delay = Some(self.delay.map_or(delay, |least| least.min(delay)));
    }

    /// Chunk `bit` came, and those of `have` are there now. Returns whether it has overtaken some
    /// that are not.
    pub fn take(&mut self, now: Mono, bit: u16, delay: i64, have: u16) -> bool {
        let before = self.below_newest();
        self.note(now, bit, delay);
        self.asked &= !bit;
        self.passed &= !bit;
        let skipped = self.below_newest() & !have;
        self.skipped_at = self.skipped_at.or(Some(now)).filter(|_| skipped != 0);
        skipped & !before != 0
    }

    /// When what came is to be acknowledged: at once when the subtree is whole, else when nothing
    /// more came for `wait`, and at the latest `most` after the first.
    pub fn ack_at(&self, whole: bool, wait: Duration, most: Duration) -> Option<Mono> {
        let at = if whole { Mono::ZERO } else { (self.last + wait).min(self.unacked_at + most) };
        (self.unacked != 0).then_some(at)
    }

    /// An answer has passed those of `chunks` that were asked for and have not come.
    pub fn pass(&mut self, now: Mono, chunks: u16) {
        let new = self.asked & chunks & !self.passed;
        if new != 0 {
            // Those that were passed before lose nothing: they are asked for when these are.
            self.passed_at = if self.passed == 0 { now } else { self.passed_at };
            self.passed |= new;
        }
    }

    /// Whether the last question is to go out once more.
    pub fn echoes(&self, now: Mono) -> bool {
        self.echo_at.is_some_and(|at| at <= now)
    }

    /// The answer `bit` came: what was asked for and follows it without a gap is in its train.
    pub fn expect_rest(&mut self, bit: u16) {
        // Carries through the run that begins behind it.
        self.rest = self.asked & !self.asked.wrapping_add(bit << 1);
    }

    /// Chunks that later ones have overtaken on this link.
    pub fn below_newest(&self) -> u16 {
        match self.came {
            0 => 0,
            came => (1 << (15 - came.leading_zeros())) - 1,
        }
    }
}

/// The subtrees among which those of one kind lie: from the first to behind the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    pub first: u64,
    pub end: u64,
}

impl Reach {
    /// One more.
    pub fn add(&mut self, number: u64) {
        let first = if self.first < self.end { self.first.min(number) } else { number };
        (self.first, self.end) = (first, self.end.max(number + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reach_begins_with_the_first_that_is_added() {
        let mut reach = Reach::default();
        assert_eq!((reach.first, reach.end), (0, 0));
        [9, 7, 8].into_iter().for_each(|number| reach.add(number));
        assert_eq!((reach.first, reach.end), (7, 10));
    }

    #[test]
    fn a_part_is_acknowledged_when_whole_or_after_a_while() {
        let at = Mono::from_millis;
        let ms = Duration::from_millis;
        let mut part = Part::new(at(5));
        assert_eq!(part.ack_at(true, ms(10), ms(50)), None);
        part.note(at(10), 0b1, 7);
        part.note(at(30), 0b1000, 3);
        part.last = at(30);
        assert_eq!(part.delay, Some(3));
        assert_eq!(part.ack_at(true, ms(10), ms(50)), Some(Mono::ZERO));
        assert_eq!(part.ack_at(false, ms(10), ms(50)), Some(at(40)));
        part.last = at(58);
        assert_eq!(part.ack_at(false, ms(10), ms(50)), Some(at(60)), "not for ever");
        assert_eq!(part.below_newest(), 0b111);
    }
}
