//! Everything at once: what a scenario leaves open is drawn from the seed.
//!
//! What follows from one throw and what from another is left to the throws: the verdict is about
//! the rules that hold in every world.

use std::time::Duration;

use crate::sim::dice::{Dice, Ppm};
use crate::sim::link::Faults;
use crate::sim::population::{ASYMMETRIC, HOMES, LAN, LOSS, MOBILE, POOR, STRICT};
use crate::sim::scenario::{Act, Scenario};
use crate::sim::trouble::RIFT_MAX;
use crate::swarm::settings::Mode;

/// Something is done so often, and no two things at once that take long.
const APART_MIN: Duration = Duration::from_secs(6);
const APART: Duration = Duration::from_secs(10);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The scenario of a seed. Nothing is drawn that `base` says: the mode, if it says one.
#[must_use]
pub fn scenario(seed: u64, base: Scenario) -> Scenario {
    let mut dice = Dice::new(seed, "chaos", 0);
    let folks = [HOMES, HOMES, POOR, ASYMMETRIC, STRICT, MOBILE, LAN];
    let folk = folks[dice.below(folks.len() as u64) as usize];
    let mode = [Mode::Hybrid, Mode::Hybrid, Mode::Hybrid, Mode::Auto, Mode::Direct];
    let mode = mode[dice.below(5) as usize];
    let faults = Faults {
        loss: up_to(&mut dice, 500_000, 4 * LOSS),
        burst: up_to(&mut dice, 300_000, 200),
        burst_goes_on: 950_000,
        twice: up_to(&mut dice, 500_000, 5_000),
        late: up_to(&mut dice, 500_000, 20_000),
    };
    let gop = [None, None, Some(ms(500)), Some(ms(1_000)), Some(ms(4_000)), Some(ms(10_000))];
    let gop = gop[dice.below(6) as usize];
    Scenario {
        folk,
        mode: if base.mode == Mode::Auto { mode } else { base.mode },
        faults,
        arrival: ms(500) + dice.time(ms(9_500)),
        churn: up_to(&mut dice, 700_000, 15_000),
        blocked: up_to(&mut dice, 300_000, 200_000),
        liars: up_to(&mut dice, 300_000, 100_000),
        riders: up_to(&mut dice, 300_000, 100_000),
        boasters: up_to(&mut dice, 300_000, 100_000),
        besiegers: up_to(&mut dice, 300_000, 100_000),
        swings: up_to(&mut dice, 300_000, 50_000),
        drift: up_to(&mut dice, 300_000, 500),
        gop,
        egress: {
            let percent = 20 + dice.below(100);
            if dice.happens(200_000) { Some(percent) } else { base.egress }
        },
        ..base
    }
}

/// What is done in `time`, and when.
#[must_use]
pub fn acts(seed: u64, time: Duration) -> Vec<(Duration, Act)> {
    let mut dice = Dice::new(seed, "acts", 0);
    let mut acts = Vec::new();
    let mut at = dice.time(APART);
    while at < time {
        acts.push((at, act(&mut dice)));
        at += APART_MIN + dice.time(APART);
    }
    acts
}

fn act(dice: &mut Dice) -> Act {
    let thousandths = 20 + dice.below(480);
    let long = ms(200) + dice.time(RIFT_MAX.saturating_sub(ms(200)));
    let short = ms(100) + dice.time(ms(1_900));
    let luck = dice.happens(500_000);
    let busy = ms(20) + dice.time(ms(100));
    match dice.below(20) {
        0..=2 => Act::Leave { thousandths, politely: luck },
        3..=7 => Act::Refill,
        8..=9 => Act::Freeze(thousandths / 4),
        10 => Act::RelayDies(short),
        11..=12 => Act::SwarmCut(long),
        13..=14 => Act::RegionCut(long),
        15..=16 => Act::RelaySlow { time: long, busy, period: ms(200) },
        17..=18 => Act::Pause { time: short, burst: luck },
        _ if luck => Act::Spoof(long),
        _ => Act::Besiege(long),
    }
}

/// Nothing in most worlds, in a `part` of them anything up to `most`.
fn up_to(dice: &mut Dice, part: Ppm, most: Ppm) -> Ppm {
    let (some, amount) = (dice.happens(part), dice.below(u64::from(most) + 1));
    if some { u32::try_from(amount).unwrap_or(most) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_chaos_and_each_thing_happens_in_some() {
        let base = Scenario::named("chaos").unwrap();
        assert_eq!(scenario(3, base.clone()), scenario(3, base.clone()));
        let all: Vec<Scenario> = (0..100).map(|seed| scenario(seed, base.clone())).collect();
        let some = |of: fn(&Scenario) -> Ppm| all.iter().filter(|one| of(one) > 0).count();
        let kinds: [fn(&Scenario) -> Ppm; 6] = [
            |one| one.churn,
            |one| one.blocked,
            |one| one.liars,
            |one| one.riders,
            |one| one.swings,
            |one| one.drift,
        ];
        assert!(kinds.into_iter().all(|of| (15..85).contains(&some(of))));
        let direct = Scenario { mode: Mode::Direct, ..base };
        assert_eq!(scenario(3, direct.clone()).mode, Mode::Direct);
        assert_eq!(Scenario { mode: Mode::Auto, ..scenario(3, direct) }.folk, all[3].folk);
    }

    #[test]
    fn things_are_done_apart_and_every_kind_of_them() {
        let hour = Duration::from_secs(3_600);
        let all = acts(1, hour);
        assert_eq!(all, acts(1, hour));
        assert!(all.windows(2).all(|two| two[1].0 - two[0].0 >= APART_MIN));
        assert!((250..420).contains(&all.len()), "{}", all.len());
        let kinds: std::collections::HashSet<_> =
            all.iter().map(|(_, act)| std::mem::discriminant(act)).collect();
        assert_eq!(kinds.len(), 10);
    }
}
