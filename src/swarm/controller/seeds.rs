//! Which peers the relay pushes a stripe to because they will pass it on.
//!
//! Spread over as many peers as there are: one that leaves is then parent of few. Who is a seed
//! stays one as long as it is there and can upload, for every change costs its children a graft.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::swarm::controller::census::Candidate;
use crate::swarm::stripes::STRIPES;

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

/// The stripes of one seed, and in which step it was given each; 0: it was not.
type Given = [u32; STRIPES];

/// The seeds of one stream by channel.
#[derive(Debug, Default)]
pub(super) struct Seeds {
    given: BTreeMap<u32, Given>,
    step: u32,
}

/// A candidate while seeds are chosen.
struct Runner {
    channel: u32,
    upload: u64,
    room: u32,
    given: Given,
}

impl Runner {
    /// Who comes first: upload left for each stripe that it would have then.
    fn rank(&self, charge: u64) -> Option<(u64, u32, Reverse<u32>)> {
        let count = count(&self.given);
        let left = self.upload.checked_sub((count + 1) * charge)?;
        Some((left / (count + 1), self.room, Reverse(self.channel)))
    }
}

impl Seeds {
    pub(super) fn clear(&mut self) {
        self.given.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.given.len()
    }

    pub(super) fn by_channel(&self) -> Vec<(u32, u8)> {
        let bit = |(stripe, step): (usize, &u32)| u8::from(*step != 0) << stripe;
        let stripes = |given: &Given| given.iter().enumerate().map(bit).sum();
        self.given.iter().map(|(channel, given)| (*channel, stripes(given))).collect()
    }

    /// Chooses up to `copies` seeds of each stripe. Returns how many each stripe has.
    pub(super) fn assign(
        &mut self,
        candidates: &[Candidate],
        copies: u32,
        stripe_kbit: u64,
    ) -> [u32; STRIPES] {
        self.step = self.step.wrapping_add(1).max(1);
        let mut counts = [0; STRIPES];
        let mut runners: Vec<Runner> = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let mut given = self.given.get(&candidate.channel).copied().unwrap_or_default();
            let upload =
                u64::from(candidate.upload_kbit).min(stripe_kbit * STRIPES as u64 * STREAMS_MAX);
            if count(&given) == 0 && (candidate.age < TRIED || upload < CHILDREN * stripe_kbit) {
                continue;
            }
            let fits = upload / (CHILDREN_LEFT * stripe_kbit).max(1);
            while count(&given) > fits {
                drop_newest(&mut given);
            }
            counts.iter_mut().zip(given).for_each(|(count, step)| *count += u32::from(step != 0));
            let (channel, room) = (candidate.channel, candidate.room_kbit);
            runners.push(Runner { channel, upload, room, given });
        }
        shed(&mut runners, &mut counts, copies);
        let charge = CHILDREN * stripe_kbit;
        add(&mut runners, &mut counts, copies, charge, self.step);
        self.given.clear();
        let seeds = runners.iter().filter(|runner| count(&runner.given) > 0);
        self.given.extend(seeds.map(|runner| (runner.channel, runner.given)));
        counts
    }
}

/// How many stripes a seed has.
fn count(given: &Given) -> u64 {
    given.iter().filter(|step| **step != 0).count() as u64
}

/// Takes away what was given last: it has fewest children yet.
fn drop_newest(given: &mut Given) {
    if let Some(newest) = given.iter_mut().max_by_key(|step| **step) {
        *newest = 0;
    }
}

/// Takes stripes off seeds where there are too many: what was given last first.
fn shed(runners: &mut [Runner], counts: &mut [u32; STRIPES], copies: u32) {
    for (stripe, seeds) in counts.iter_mut().enumerate() {
        while *seeds > copies {
            let has = |runner: &&mut Runner| runner.given[stripe] != 0;
            let worst = runners.iter_mut().filter(has).max_by_key(|runner| {
                let many = count(&runner.given);
                (runner.given[stripe], many, Reverse(runner.upload), runner.channel)
            });
            let Some(worst) = worst else { break };
            worst.given[stripe] = 0;
            *seeds -= 1;
        }
    }
}

/// Gives stripes to the best candidates, that stripe first which has fewest seeds.
fn add(runners: &mut [Runner], counts: &mut [u32; STRIPES], copies: u32, charge: u64, step: u32) {
    let mut open = [true; STRIPES];
    for _ in 0..CHANGES_MAX {
        let wanting = (0..STRIPES).filter(|stripe| open[*stripe] && counts[*stripe] < copies);
        let Some(stripe) = wanting.min_by_key(|stripe| counts[*stripe]) else { return };
        let free = |runner: &&mut Runner| runner.given[stripe] == 0;
        let ranked = runners
            .iter_mut()
            .filter(free)
            .filter_map(|runner| runner.rank(charge).map(|rank| (rank, runner)));
        match ranked.max_by_key(|(rank, _)| *rank) {
            Some((_, best)) => {
                best.given[stripe] = step;
                counts[stripe] += 1;
            }
            None => open[stripe] = false,
        }
    }
}
