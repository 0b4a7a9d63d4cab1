//! Who is not fed, and whose fault that is.
//!
//! A peer that asks the relay for a stripe although it has a parent complains about the parent.
//! If the parent lacked the stripe itself until just now, the fault is above, and both recover.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::controller::plan::forest::{Forest, NONE, bits};
use crate::swarm::stripes::STRIPES;

/// How long a parent has to begin; with a child that is itself new; and how long what it fed
/// once may be missing.
const BEGIN: Duration = Duration::from_secs(3);
const BEGIN_NEW: Duration = Duration::from_secs(4);
const GONE: Duration = Duration::from_millis(1_500);

/// How old a child is no longer new.
const NEW: Duration = Duration::from_secs(5);

/// A child that did not ask the relay when it was given a parent proves nothing before.
const CHANGED_OVER: Duration = Duration::from_secs(1);

/// Who began or ceased to ask the relay within this lacked the stripe until just now.
const LACKED: Duration = Duration::from_millis(2_500);

/// If half of so many roots and more, which get everything from the relay itself, feed nobody any
/// more at the same time, nothing comes in. Nobody is blamed for that, for so long.
const ROOTS_FEW: usize = 3;
const DRY: Duration = Duration::from_secs(10);

/// How much longer a child waits for a parent that is not at fault.
const PATIENCE: Duration = Duration::from_secs(3);

/// A child that is to be fed by somebody else.
struct Complaint {
    child: u32,
    stripe: usize,
    /// Whether the parent is at fault.
    blame: bool,
}

impl Forest {
    /// Takes children away from those who do not feed them.
    pub(super) fn hear(&mut self, now: Mono) {
        let complaints = self.look(now);
        let mut blamed = Vec::new();
        for Complaint { child, stripe, blame } in complaints {
            let parent = self.branch(stripe, child).parent;
            let began = self.seat(child).delivered >> stripe & 1 != 0;
            self.detach(stripe, child);
            let own = self.seat(child).row.channel;
            let channel = self.seat(parent).row.channel;
            if !began {
                self.seat_mut(child).bars.failed(now);
            }
            if blame {
                let barred = self.seat_mut(child).bars.add(now, channel);
                let struck = self.seat_mut(parent).trust.strike(now, own);
                self.forgotten += u64::from(barred) + u64::from(struck);
                blamed.push(parent);
            }
        }
        blamed.sort_unstable();
        blamed.dedup();
        for parent in blamed {
            let fine = self.fine(parent);
            let seat = self.seat_mut(parent);
            seat.trust.judge(now, seat.slots, seat.used, fine);
            seat.slots = seat.trust.limit(now, seat.slots);
        }
    }

    fn look(&mut self, now: Mono) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        let gone = if self.is_dry() { DRY } else { GONE };
        for at in 0..self.order.len() {
            let child = self.order[at].1;
            self.note_delivered(now, child);
            let seat = self.seat_mut(child);
            seat.trust.fade(now);
            let asks = seat.relayed & seat.fed;
            complaints
                .extend(bits(asks).filter_map(|stripe| self.complaint(now, stripe, child, gone)));
        }
        complaints
    }

    /// Whether children of most roots miss what they had.
    fn is_dry(&self) -> bool {
        let (mut roots, mut dry) = (0, 0);
        for (_, root) in &self.order {
            let (mut had, mut missing) = (0, 0);
            for stripe in bits(self.seat(*root).root) {
                for child in self.children(stripe, *root) {
                    let child = self.seat(child);
                    had += usize::from(child.delivered >> stripe & 1);
                    missing += usize::from((child.delivered & child.relayed) >> stripe & 1);
                }
            }
            roots += usize::from(had > 0);
            dry += usize::from(missing * 2 > had);
        }
        roots >= ROOTS_FEW && dry * 2 > roots
    }

    /// Sees what has come from parents.
    fn note_delivered(&mut self, now: Mono, child: u32) {
        let seat = self.seat(child);
        for stripe in bits(seat.fed & !seat.delivered & !seat.relayed) {
            let branch = *self.branch(stripe, child);
            // Who did not ask the relay before is perhaps still fed by the last parent.
            if branch.turned <= branch.planned && now.since(branch.planned) < CHANGED_OVER {
                continue;
            }
            let seat = self.seat_mut(child);
            seat.delivered |= 1 << stripe;
            seat.bars.succeeded();
            self.seat_mut(branch.parent).trust.fed = true;
        }
    }

    fn complaint(&self, now: Mono, stripe: usize, child: u32, gone: Duration) -> Option<Complaint> {
        let seat = self.seat(child);
        let branch = &seat.branches[stripe];
        let (missing, patience) = if seat.delivered >> stripe & 1 != 0 {
            (now.since(branch.turned), gone)
        } else if branch.planned.since(seat.came) < NEW {
            (now.since(branch.planned), BEGIN_NEW)
        } else {
            (now.since(branch.planned), BEGIN)
        };
        let blame = !self.lacks(now, stripe, branch.parent);
        let patience = if blame { patience } else { patience + PATIENCE };
        (missing >= patience).then_some(Complaint { child, stripe, blame })
    }

    /// Whether a parent lacked the stripe until just now.
    fn lacks(&self, now: Mono, stripe: usize, parent: u32) -> bool {
        let seat = self.seat(parent);
        let branch = &seat.branches[stripe];
        let left = branch.parent == NONE && seat.relayed >> stripe & 1 == 0;
        left || now.since(branch.turned) < LACKED
    }

    /// How many children of a peer are content, over all stripes.
    fn fine(&self, parent: u32) -> u16 {
        let content = (0..STRIPES).map(|stripe| {
            let children = self.children(stripe, parent);
            children.filter(|child| self.seat(*child).is_sure_of(stripe)).count() as u16
        });
        content.sum()
    }
}
