//! One stripe: who feeds it, and whether the relay is asked for it as well.

use std::time::Duration;

use crate::base::time::Mono;

/// Nothing of a subtree has come so long after it was known to exist: it is missed. The mean of
/// what its parent takes, twice, and a margin, but no longer than this. (The parent may be busy
/// with the stripe before; what it brings after all would have come twice.)
const MARGIN: Duration = Duration::from_millis(600);
const MISS_MAX: Duration = Duration::from_millis(900);

/// The lag of a parent of which nothing is known yet.
const LAG: Duration = Duration::from_millis(100);

/// So many subtrees in a row of which nothing came: the parent does not feed us.
const MISSED: u8 = 2;

/// So many in a row that were begun and not brought to an end in time: it does not keep up.
const LATE: u8 = 3;

/// A parent that failed must bring so many subtrees until the relay is not asked any more, for
/// so long after it failed; another one must bring one.
const TRUST_AGAIN: u8 = 3;
const DISTRUST: Duration = Duration::from_secs(15);

/// How long a parent is kept beside the one that is to follow it.
pub(super) const RETIRING: Duration = Duration::from_secs(2);

/// A stripe of the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stripe {
    /// The place of the neighbour that was asked to feed it.
    pub parent: Option<usize>,
    /// The newest subtree that was known then: the parent pushes only later ones.
    pub from: u64,
    /// The relay is asked for it.
    pub relayed: bool,
    /// The parent before, until the new one or the relay feeds us, and since when.
    pub retiring: Option<(usize, Mono)>,
    /// Subtrees in a row of which the parent brought nothing in time; that were late; and that
    /// it brought since it failed.
    missed: u8,
    late: u8,
    brought: u8,
    /// When the parent failed, if it did.
    failed: Option<Mono>,
    /// How long after a subtree is known to exist the parent begins with it: a mean.
    lag: Duration,
}

impl Default for Stripe {
    fn default() -> Stripe {
        Stripe {
            parent: None,
            from: 0,
            relayed: true,
            retiring: None,
            missed: 0,
            late: 0,
            brought: 0,
            failed: None,
            lag: LAG,
        }
    }
}

impl Stripe {
    /// How long after a subtree is known to exist it is missed.
    pub(super) fn patience(&self) -> Duration {
        (self.lag * 2 + MARGIN).min(MISS_MAX)
    }

    /// Another neighbour is to feed it, or nobody.
    pub(super) fn follow(&mut self, now: Mono, parent: Option<usize>, newest: u64) {
        let before = self.parent.take().filter(|before| Some(*before) != parent);
        // As long as nobody has taken over, it goes on.
        self.retiring = before.map(|before| (before, now)).filter(|_| !self.relayed);
        self.parent = parent;
        self.from = newest;
        (self.missed, self.late, self.brought, self.failed) = (0, 0, 0, None);
        self.lag = LAG;
        self.relayed |= parent.is_none();
    }

    /// A neighbour is gone.
    pub(super) fn leave(&mut self, slot: usize) {
        self.retiring = self.retiring.filter(|(before, _)| *before != slot);
        if self.parent == Some(slot) {
            self.parent = None;
            self.relayed |= self.retiring.is_none();
        }
    }

    /// The parent has begun with a subtree, so long after it was known to exist: perhaps the
    /// relay need not be asked any longer.
    pub(super) fn note_brought(&mut self, now: Mono, lag: Duration) {
        self.missed = 0;
        self.lag = (self.lag * 7 + lag.min(MISS_MAX)) / 8;
        self.retiring = None;
        self.brought = self.brought.saturating_add(1);
        let distrusted = self.failed.is_some_and(|at| now.since(at) < DISTRUST);
        let enough = self.brought >= if distrusted { TRUST_AGAIN } else { 1 };
        self.relayed &= !enough;
    }

    /// A subtree was whole in time.
    pub(super) fn note_in_time(&mut self) {
        self.late = 0;
    }

    /// A subtree was begun and is not whole in time. Whether the relay is asked from now on.
    pub(super) fn note_late(&mut self, now: Mono) -> bool {
        self.late = self.late.saturating_add(1);
        self.late >= LATE && self.fail(now)
    }

    /// Nothing of a subtree came in time. Whether the relay is asked from now on. `silent`: the
    /// parent has said nothing at all for a while.
    pub(super) fn note_missed(&mut self, now: Mono, silent: bool) -> bool {
        self.missed = self.missed.saturating_add(1);
        (silent || self.missed >= MISSED) && self.fail(now)
    }

    /// The parent does not feed us.
    fn fail(&mut self, now: Mono) -> bool {
        (self.brought, self.late) = (0, 0);
        self.failed = Some(now);
        !std::mem::replace(&mut self.relayed, true)
    }
}
