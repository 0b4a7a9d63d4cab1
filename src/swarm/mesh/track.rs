//! What is known of one subtree on its way to us.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::mesh::Source;

/// Announcers whose time is kept: the first ones.
const FIRSTS: usize = 4;

/// Who pushed a subtree first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Relay,
    Http,
    /// The neighbour at this place.
    By(usize),
}

/// A subtree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Track {
    /// When it was first known to exist.
    pub since: Mono,
    /// Who has announced it, a bit each.
    pub have: u64,
    /// The first of them.
    firsts: [Option<u8>; FIRSTS],
    /// When the first announcement of all came.
    announced: Option<Mono>,
    /// Who pushed it first, and when.
    pub pushed: Option<(Pushed, Mono)>,
    /// The parent has begun with it, first or not.
    pub brought: bool,
    /// Who is asked for it instead of whoever should push it, and since when.
    pub asked: Option<(u8, Mono)>,
    /// Who was asked and did not bring it, a bit each.
    pub tried: u64,
    /// The parent had begun it and was late.
    pub late: bool,
    /// The parent did not begin it, and was judged for that.
    pub missed: bool,
    /// When we had all of it.
    pub whole: Option<Mono>,
    /// When it is played.
    pub deadline: Option<Mono>,
    /// Who is asked for its holes.
    pub source: Source,
}

impl Track {
    pub(super) fn new(now: Mono, source: Source) -> Track {
        Track {
            since: now,
            have: 0,
            firsts: [None; FIRSTS],
            announced: None,
            pushed: None,
            brought: false,
            asked: None,
            tried: 0,
            late: false,
            missed: false,
            whole: None,
            deadline: None,
            source,
        }
    }

    /// The neighbour at `slot` has all of it. False: that was known.
    pub(super) fn announce(&mut self, now: Mono, slot: usize) -> bool {
        if self.have & (1 << slot) != 0 {
            return false;
        }
        self.have |= 1 << slot;
        self.announced.get_or_insert(now);
        if let Some(free) = self.firsts.iter_mut().find(|first| first.is_none()) {
            *free = Some(slot as u8);
        }
        true
    }

    /// How long after the first announcement `now` is.
    pub(super) fn lag(&self, now: Mono) -> Duration {
        self.announced.map_or(Duration::ZERO, |first| now.since(first))
    }

    /// The first of `among` who announced it.
    pub(super) fn first_of(&self, among: u64) -> Option<usize> {
        let mut firsts = self.firsts.into_iter().flatten().map(usize::from);
        firsts.find(|slot| among & (1 << slot) != 0)
    }

    /// A neighbour is gone.
    pub(super) fn leave(&mut self, slot: usize) {
        let bit = 1 << slot;
        self.have &= !bit;
        self.tried &= !bit;
        let is = |of: u8| usize::from(of) == slot;
        self.asked = self.asked.filter(|(asked, _)| !is(*asked));
        self.pushed = self.pushed.filter(|(by, _)| *by != Pushed::By(slot));
        for first in &mut self.firsts {
            *first = first.filter(|announcer| !is(*announcer));
        }
        // Their order is kept.
        self.firsts.sort_by_key(Option::is_none);
        if matches!(self.source, Source::Neighbour(_)) && self.asked.is_none() {
            self.source = Source::Wait;
        }
    }
}
