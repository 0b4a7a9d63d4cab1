//! Parents by chance: what a relay would do that knows who is there and how much they carry, and
//! nothing else. To be compared with the trees, and with the same care for everything else:
//! newcomers, complaints, and how many the relay feeds.

use crate::swarm::controller::mix;
use crate::swarm::controller::plan::forest::bits;
use crate::swarm::controller::plan::orphans::{CHANGES_MAX, Matching};

/// Draws for one peer and stripe in one step.
const DRAWS: u64 = 16;

impl Matching<'_> {
    /// Gives parents to those who have none, as long as the relay feeds more than `copies` in a
    /// stripe. Other numbers are drawn in each turn.
    pub(super) fn scatter(&mut self, turn: u64, copies: u32) {
        for at in 0..self.forest.order.len() {
            let (channel, child) = self.forest.order[at];
            let seat = self.forest.seat(child);
            if !seat.takes_parents(self.now) {
                continue;
            }
            let mut given = 0;
            let unfed = !seat.fed;
            for stripe in bits(unfed) {
                let enough = given == CHANGES_MAX || self.is_spent();
                if enough || self.forest.relayed(stripe) <= copies {
                    continue;
                }
                let salt = mix(turn) ^ u64::from(channel) << 8 ^ stripe as u64;
                if let Some(parent) = self.draw(stripe, child, salt) {
                    self.give(stripe, child, parent);
                    given += 1;
                }
            }
        }
    }

    /// Somebody with room who can feed a peer and is not fed by it.
    fn draw(&self, stripe: usize, child: u32, salt: u64) -> Option<u32> {
        let fits = |parent: &u32| {
            *parent != child
                && self.forest.seat(*parent).free() > 0
                && self.can_pair(*parent, child)
                && !self.forest.is_within(stripe, *parent, child)
        };
        let drawn = (0..DRAWS).filter_map(|draw| {
            let dice = mix(salt ^ mix(draw)) as usize;
            self.open.get(dice.checked_rem(self.open.len())?).copied()
        });
        drawn.into_iter().find(fits)
    }
}
