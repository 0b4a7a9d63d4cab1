//! Direct or hybrid: slow to begin, quick to give up, and never back and forth.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::controller::census::Ballot;
use crate::swarm::settings::Mode;

/// Peers from which on passing on is worth its trouble, and below which it no longer is.
const PEERS_ENOUGH: u32 = 8;
const PEERS_FEW: u32 = 6;

/// The same while the egress budget has no room for one more peer in direct mode: the trouble is
/// less than refusing whoever comes, and eight might never come together.
const PEERS_TIGHT: u32 = 2;

/// Uploads from which on peers pass on, and below which they no longer can, in parts of what all
/// need together.
const SUPPLY_ENOUGH: f64 = 0.25;
const SUPPLY_GONE: f64 = 0.1;

/// Rescues above which nothing is passed on, in parts of what all need together.
const RESCUE_LOST: f64 = 0.5;

/// For how long it must look like that before anything is changed.
const ENOUGH_FOR: Duration = Duration::from_secs(1);
const GONE_FOR: Duration = Duration::from_secs(1);
const LOST_FOR: Duration = Duration::from_millis(1_750);

/// The least time between two changes, but for the one to direct because there is nobody who
/// could pass on.
const APART: Duration = Duration::from_secs(60);

/// Since when something has held without a break.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held(Option<Mono>);

impl Held {
    /// Whether `holds` has held for so long.
    pub(super) fn for_so_long(&mut self, now: Mono, holds: bool, long: Duration) -> bool {
        if !holds {
            self.0 = None;
            return false;
        }
        now.since(*self.0.get_or_insert(now)) >= long
    }
}

/// Decides the mode of one stream.
#[derive(Debug)]
pub(super) struct Judge {
    mode: Mode,
    hybrid: bool,
    since: Mono,
    /// When it was last changed by itself.
    changed: Option<Mono>,
    switches: u64,
    enough: Held,
    few: Held,
    gone: Held,
    lost: Held,
}

impl Judge {
    pub(super) fn new(now: Mono, mode: Mode) -> Judge {
        Judge {
            mode,
            hybrid: mode == Mode::Hybrid,
            since: now,
            changed: None,
            switches: 0,
            enough: Held::default(),
            few: Held::default(),
            gone: Held::default(),
            lost: Held::default(),
        }
    }

    pub(super) fn since(&self) -> Mono {
        self.since
    }

    pub(super) fn switches(&self) -> u64 {
        self.switches
    }

    /// Whether the stream is hybrid from now on.
    pub(super) fn look(&mut self, now: Mono, ballot: &Ballot) -> bool {
        if self.mode != Mode::Auto {
            return self.hybrid;
        }
        let supply = ballot.supply();
        let calm = self.changed.is_none_or(|changed| now.since(changed) >= APART);
        let least = |peers: u32| if ballot.tight { PEERS_TIGHT } else { peers };
        let enough = ballot.peers >= least(PEERS_ENOUGH) && supply >= SUPPLY_ENOUGH;
        let few = ballot.peers < least(PEERS_FEW);
        if self.hybrid {
            // The first two heed no budget: what peers do not bring the relay sends in any case.
            // All are looked at each time: a condition that is not loses its beginning.
            let gone = self.gone.for_so_long(now, supply < SUPPLY_GONE, GONE_FOR);
            let lost = self.lost.for_so_long(now, ballot.rescue > RESCUE_LOST, LOST_FOR);
            let few = self.few.for_so_long(now, few, ENOUGH_FOR) && calm;
            if gone || lost || few {
                self.switch(now, false);
            }
        } else if self.enough.for_so_long(now, enough, ENOUGH_FOR) && calm {
            self.switch(now, true);
        }
        self.hybrid
    }

    fn switch(&mut self, now: Mono, hybrid: bool) {
        self.hybrid = hybrid;
        self.since = now;
        self.changed = Some(now);
        self.switches += 1;
        let none = Held::default();
        (self.enough, self.few, self.gone, self.lost) = (none, none, none, none);
    }
}
