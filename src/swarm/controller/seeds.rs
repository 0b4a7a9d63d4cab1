//! Which peers the relay pushes a stripe to because they will pass it on.
//!
//! Spread over as many peers as there are: one that leaves is then parent of few. Who is a seed
//! stays one as long as it is there and can upload, for every change costs its children a graft.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::swarm::controller::STRIPES;
use crate::swarm::controller::census::Candidate;

/// Newcomers are not yet seeds: many of them leave at once.
const TRIED: Duration = Duration::from_secs(5);

/// Children that a seed shall have room for, in each of its stripes.
const CHILDREN: u64 = 2;

/// Children for which it must have room to stay one.
const CHILDREN_LEFT: u64 = 1;

/// No peer counts for more than this many streams: it has no more neighbours than that.
const STREAMS_MAX: u64 = 12;

/// Changes in one step. More come in the next.
const CHANGES_MAX: usize = 256;

/// The seeds of one stream by channel, and the stripes of each.
#[derive(Debug, Default)]
pub(super) struct Seeds {
    stripes: BTreeMap<u32, u8>,
}

/// A candidate while seeds are chosen.
struct Runner {
    channel: u32,
    upload: u64,
    room: u32,
    stripes: u8,
}

impl Runner {
    /// Who comes first: upload left for each stripe that it would have then.
    fn rank(&self, charge: u64) -> Option<(u64, u32, Reverse<u32>)> {
        let count = u64::from(self.stripes.count_ones());
        let left = self.upload.checked_sub((count + 1) * charge)?;
        Some((left / (count + 1), self.room, Reverse(self.channel)))
    }
}

impl Seeds {
    pub(super) fn clear(&mut self) {
        self.stripes.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.stripes.len()
    }

    pub(super) fn by_channel(&self) -> Vec<(u32, u8)> {
        self.stripes.iter().map(|(channel, stripes)| (*channel, *stripes)).collect()
    }

    /// Chooses up to `copies` seeds of each stripe. Returns how many each stripe has.
    pub(super) fn assign(
        &mut self,
        candidates: &[Candidate],
        copies: u32,
        stripe_kbit: u64,
    ) -> [u32; STRIPES] {
        let mut counts = [0; STRIPES];
        let mut runners: Vec<Runner> = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let before = self.stripes.get(&candidate.channel).copied().unwrap_or(0);
            let upload =
                u64::from(candidate.upload_kbit).min(stripe_kbit * STRIPES as u64 * STREAMS_MAX);
            if before == 0 && (candidate.age < TRIED || upload < CHILDREN * stripe_kbit) {
                continue;
            }
            let fits = upload / (CHILDREN_LEFT * stripe_kbit).max(1);
            let stripes = keep(before, fits);
            for (stripe, count) in counts.iter_mut().enumerate() {
                *count += u32::from(stripes >> stripe & 1);
            }
            let (channel, room) = (candidate.channel, candidate.room_kbit);
            runners.push(Runner { channel, upload, room, stripes });
        }
        shed(&mut runners, &mut counts, copies);
        add(&mut runners, &mut counts, copies, CHILDREN * stripe_kbit);
        self.stripes.clear();
        let seeds = runners.iter().filter(|runner| runner.stripes != 0);
        self.stripes.extend(seeds.map(|runner| (runner.channel, runner.stripes)));
        counts
    }
}

/// At most so many of the stripes.
fn keep(mut stripes: u8, most: u64) -> u8 {
    while u64::from(stripes.count_ones()) > most {
        stripes &= stripes - 1;
    }
    stripes
}

/// Takes stripes off seeds where there are too many: off those with most of them first.
fn shed(runners: &mut [Runner], counts: &mut [u32; STRIPES], copies: u32) {
    for (stripe, count) in counts.iter_mut().enumerate() {
        while *count > copies {
            let has = |runner: &&mut Runner| runner.stripes >> stripe & 1 == 1;
            let worst = runners.iter_mut().filter(has).max_by_key(|runner| {
                (runner.stripes.count_ones(), Reverse(runner.upload), runner.channel)
            });
            let Some(worst) = worst else { break };
            worst.stripes &= !(1 << stripe);
            *count -= 1;
        }
    }
}

/// Gives stripes to the best candidates, that stripe first which has fewest seeds.
fn add(runners: &mut [Runner], counts: &mut [u32; STRIPES], copies: u32, charge: u64) {
    let mut open = [true; STRIPES];
    for _ in 0..CHANGES_MAX {
        let wanting = (0..STRIPES).filter(|stripe| open[*stripe] && counts[*stripe] < copies);
        let Some(stripe) = wanting.min_by_key(|stripe| counts[*stripe]) else { return };
        let free = |runner: &&mut Runner| runner.stripes >> stripe & 1 == 0;
        let ranked = runners
            .iter_mut()
            .filter(free)
            .filter_map(|runner| runner.rank(charge).map(|rank| (rank, runner)));
        match ranked.max_by_key(|(rank, _)| *rank) {
            Some((_, best)) => {
                best.stripes |= 1 << stripe;
                counts[stripe] += 1;
            }
            None => open[stripe] = false,
        }
    }
}
