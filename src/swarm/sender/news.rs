//! What a peer is told of that is not pushed to it, and what it has shown.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::requests::Run;
use crate::swarm::sender::{ALL_STRIPES, Sender, Source, Stock};

/// How often a peer that nothing is pushed to hears of new subtrees; and a peer that the source
/// leaves to its neighbours.
const HAVE: Duration = Duration::from_millis(50);
const HAVE_WITHHELD: Duration = Duration::from_millis(250);

/// Which of the newest subtrees a peer has shown a chunk of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    newest: u64,
    /// The newest and the 63 before it.
    bits: u64,
}

impl Shown {
    pub(super) fn set(&mut self, subtree: u64) {
        if let Some(ahead) = subtree.checked_sub(self.newest).filter(|ahead| *ahead > 0) {
            self.bits =
                u32::try_from(ahead).ok().and_then(|n| self.bits.checked_shl(n)).unwrap_or(0);
            self.newest = subtree;
        }
        let back = self.newest - subtree;
        self.bits |= u32::try_from(back).ok().and_then(|n| 1u64.checked_shl(n)).unwrap_or(0);
    }

    pub(super) fn has(&self, subtree: u64) -> bool {
        let back = self.newest.checked_sub(subtree).and_then(|back| u32::try_from(back).ok());
        back.and_then(|n| self.bits.checked_shr(n)).is_some_and(|bits| bits & 1 != 0)
    }
}

impl Sender {
    /// Whether there are subtrees that the peer was not told of.
    pub(super) fn has_news(&self, source: &Source) -> bool {
        match &self.cut {
            Some(cut) => cut.has_news(source),
            None => !self.pushes_all() && self.announced < self.announceable(source),
        }
    }

    /// Behind the last subtree that the peer may be told of: of one that is pushed not sooner.
    fn announceable(&self, source: &Source) -> u64 {
        let end = source.subtrees.end;
        if self.pushes() { end.min(self.next) } else { end }
    }

    pub(super) fn have_apart(&self) -> Duration {
        if self.allowed == ALL_STRIPES || self.cut.is_some() { HAVE } else { HAVE_WITHHELD }
    }

    /// News of subtrees, for a peer that not everything is pushed to.
    pub(super) fn have(&mut self, now: Mono, stock: &impl Stock) -> Option<Run> {
        let source = stock.source();
        if now < self.have_at + self.have_apart() || !self.has_news(source) {
            return None;
        }
        let run = match &mut self.cut {
            Some(cut) => {
                let run = cut.next_news(stock);
                if run.is_none() {
                    self.have_at = now;
                }
                run?
            }
            None => {
                let begin = self.announced.max(source.subtrees.start);
                let end = self.announceable(source);
                (self.announced, self.have_at) = (end, now);
                Run::new(begin * source.size, (end * source.size).checked_sub(1)?)?
            }
        };
        self.unheard = self.unheard.saturating_add(1);
        Some(run)
    }
}
