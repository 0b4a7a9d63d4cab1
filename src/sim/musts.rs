//! What the swarm must reach and is meant to reach, a row for each figure, and whether it does.

use std::fmt;
use std::time::Duration;

use crate::sim::figures::{Range, Values, unit};
use crate::sim::scenario::Scenario;
use crate::sim::stage::Plan;
use crate::sim::summary::Bound;

/// What is asked of a figure.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// The figure's name.
    pub figure: &'static str,
    /// What it must be.
    pub must: Bound,
    /// What it is meant to be.
    pub aim: Bound,
}

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct Must {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    scenario: &'static str,
    /// Viewers.
    pub audience: usize,
    /// If there is one, the figures are by how many percent they are greater than with so many
    /// viewers.
    pub against: Option<usize>,
    /// Seconds from one key frame to the next.
    gop: u64,
    /// Of one world, or of a world and the one that it is held against.
    pub demands: &'static [Demand],
}

const fn demand(figure: &'static str, must: Bound, aim: Bound) -> Demand {
    Demand { figure, must, aim }
}

const fn least(figure: &'static str, must: f64, aim: f64) -> Demand {
    demand(figure, Bound::Least(must), Bound::Least(aim))
}

const fn most(figure: &'static str, must: f64, aim: f64) -> Demand {
    demand(figure, Bound::Most(must), Bound::Most(aim))
}

/// What is asked of a steady audience; of offload by its size.
const OFFLOAD_1000: Demand = least("offload", 87.0, 95.0);
const OFFLOAD_10000: Demand = least("offload", 90.0, 97.0);
const DELAY: Demand = most("delay_p99", 3_000.0, 2_500.0);
const STALLS: Demand = most("stalls_per_hour", 0.1, 0.0);
const STARTUP: Demand = most("startup_p95", 2_000.0, 1_000.0);
const TWICE: Demand = most("duplicates", 5.0, 2.0);
const CONTROL: Demand = most("control", 5.0, 3.0);

/// What the others differ from.
const STEADY: Must = Must {
    name: "offload-1000",
    about: "offload at 1,000",
    scenario: "steady",
    audience: 1_000,
    against: None,
    gop: 2,
    demands: &[OFFLOAD_1000],
};

/// All rows.
pub const MUSTS: [Must; 14] = [
    Must {
        name: "offload-100",
        about: "offload at 100",
        audience: 100,
        demands: &[least("offload", 70.0, 85.0)],
        ..STEADY
    },
    STEADY,
    Must {
        name: "offload-10000",
        about: "offload at 10,000",
        audience: 10_000,
        demands: &[OFFLOAD_10000],
        ..STEADY
    },
    Must { name: "delay", about: "delay behind live, GOP 2 s", demands: &[DELAY], ..STEADY },
    Must {
        name: "delay-gop1",
        about: "delay behind live, GOP 1 s",
        gop: 1,
        demands: &[most("delay_p99", 3_000.0, 2_000.0)],
        ..STEADY
    },
    Must { name: "stalls", about: "stalls per viewer-hour, steady", demands: &[STALLS], ..STEADY },
    Must { name: "startup", about: "startup", demands: &[STARTUP], ..STEADY },
    Must {
        name: "growth",
        about: "delay, stalls and startup at 10,000 against 100, in percent more",
        audience: 10_000,
        against: Some(100),
        demands: &[
            most("delay_p99", 10.0, 0.0),
            most("stalls_per_hour", 10.0, 0.0),
            most("startup_p95", 10.0, 0.0),
        ],
        ..STEADY
    },
    Must {
        name: "overhead",
        about: "duplicates and control",
        demands: &[TWICE, CONTROL],
        ..STEADY
    },
    Must {
        name: "poor",
        about: "stalls per viewer-hour with poor uplinks",
        scenario: "poor",
        demands: &[most("stalls_per_hour", 0.2, 0.0)],
        ..STEADY
    },
    Must {
        name: "flash",
        about: "startup in a flash crowd",
        scenario: "crowd",
        audience: 5_000,
        demands: &[most("startup_p95", 3_000.0, 1_500.0)],
        ..STEADY
    },
    Must {
        name: "attackers",
        about: "stalls per viewer-hour of the honest among attackers",
        scenario: "corrupt10",
        demands: &[most("stalls_per_hour", 0.3, 0.0)],
        ..STEADY
    },
    Must {
        name: "steady-1000",
        about: "all that is asked of a steady thousand, in one world",
        demands: &[OFFLOAD_1000, DELAY, STALLS, STARTUP, TWICE, CONTROL],
        ..STEADY
    },
    Must {
        name: "steady-10000",
        about: "all that is asked of a steady ten thousand, in one world",
        audience: 10_000,
        demands: &[OFFLOAD_10000, DELAY, STALLS, STARTUP, TWICE, CONTROL],
        ..STEADY
    },
];

impl Must {
    /// The row of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Must> {
        MUSTS.into_iter().find(|must| must.name == name)
    }

    /// What is played for it with a seed; `like` has the bitrate and the time.
    #[must_use]
    pub fn plans(&self, like: &Plan, seed: u64) -> Vec<Plan> {
        let sizes = [Some(self.audience), self.against].into_iter().flatten();
        let plan = |peers| Plan {
            seed,
            peers,
            gop: Duration::from_secs(self.gop),
            scenario: Scenario::named(self.scenario).unwrap_or_else(|| like.scenario.clone()),
            ..like.clone()
        };
        sizes.map(plan).collect()
    }

    /// The figures of one seed, in the order of the demands, from those of what was played.
    #[must_use]
    pub fn figures(&self, worlds: &[Values]) -> Vec<f64> {
        let of = |demand: &Demand| {
            let mut all = worlds.iter().filter_map(|values| values.get(demand.figure));
            let own = all.next().unwrap_or(f64::NAN);
            match (self.against, all.next()) {
                (None, _) => own,
                (Some(_), other) => growth(other.unwrap_or(f64::NAN), own),
            }
        };
        self.demands.iter().map(of).collect()
    }
}

/// By how many percent `to` is greater than `from`. From nothing to something it is endless.
fn growth(from: f64, to: f64) -> f64 {
    if from == to { 0.0 } else { 100.0 * (to / from - 1.0) }
}

/// What came of a row with some seeds.
#[derive(Debug)]
pub struct Outcome {
    must: Must,
    /// The figures of each seed.
    seeds: Vec<Vec<f64>>,
}

impl Outcome {
    /// Of a row, of which nothing was played yet.
    #[must_use]
    pub fn new(must: Must) -> Outcome {
        Outcome { must, seeds: Vec::new() }
    }

    /// Adds what was played with one seed.
    pub fn add(&mut self, worlds: &[Values]) {
        self.seeds.push(self.must.figures(worlds));
    }

    fn column(&self, at: usize) -> impl Iterator<Item = f64> {
        self.seeds.iter().filter_map(move |figures| figures.get(at).copied())
    }

    /// Whether each seed has what it must.
    #[must_use]
    pub fn holds(&self) -> bool {
        let mut demands = self.must.demands.iter().enumerate();
        demands.all(|(at, demand)| self.column(at).all(|value| demand.must.holds(value)))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Must { name, about, .. } = self.must;
        writeln!(f, "\n{name}: {about}; {} seeds: min / median / max", self.seeds.len())?;
        for (at, Demand { figure, must, aim }) in self.must.demands.iter().enumerate() {
            let Some(range) = Range::of(self.column(at)) else { continue };
            let unit = if self.must.against.is_some() { " % more" } else { unit(figure) };
            let meets = |bound: &Bound| self.column(at).filter(|value| bound.holds(*value)).count();
            let all = self.seeds.len();
            writeln!(
                f,
                "  {figure:<16} {:<40} must {must}: {} of {all}; aim {aim}: {} of {all}",
                format!("{range}{unit}"),
                meets(must),
                meets(aim)
            )?;
        }
        writeln!(f, "{}", if self.holds() { "reached" } else { "NOT reached" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::figures::FIGURES;

    fn values(figure: &str, value: f64) -> Values {
        let of = |name| if name == figure { value } else { 0.0 };
        Values(FIGURES.iter().map(|known| of(known.name)).collect())
    }

    #[test]
    fn each_row_is_of_a_scenario_and_of_figures_that_there_are() {
        for must in MUSTS {
            assert!(Scenario::named(must.scenario).is_some(), "{}", must.scenario);
            assert_eq!(Must::named(must.name).map(|found| found.about), Some(must.about));
            for demand in must.demands {
                assert!(values(demand.figure, 1.0).get(demand.figure).is_some());
                let (Bound::Least(must) | Bound::Most(must)) = demand.must;
                // The aim is never less than the must.
                assert!(demand.must.holds(must) && !demand.aim.holds(must), "{}", demand.figure);
            }
        }
        assert!(Must::named("everything").is_none());
    }

    #[test]
    fn a_row_is_reached_if_each_seed_reaches_it() {
        let mut outcome = Outcome::new(Must::named("offload-100").unwrap());
        [72.0, 90.0, 80.0].into_iter().for_each(|value| outcome.add(&[values("offload", value)]));
        let text = outcome.to_string();
        assert!(outcome.holds() && text.ends_with("\nreached\n"), "{text}");
        assert!(text.contains("72.0 / 80.0 / 90.0 %"), "{text}");
        assert!(text.contains("must at least 70: 3 of 3; aim at least 85: 1 of 3"), "{text}");
        outcome.add(&[values("offload", 69.9)]);
        assert!(!outcome.holds() && outcome.to_string().ends_with("NOT reached\n"));
        // What was not measured is not reached.
        let mut outcome = Outcome::new(Must::named("stalls").unwrap());
        outcome.add(&[]);
        assert!(!outcome.holds());
    }

    #[test]
    fn growth_is_of_a_world_against_another() {
        let must = Must::named("growth").unwrap();
        let figures = must.figures(&[values("delay_p99", 2_100.0), values("delay_p99", 2_000.0)]);
        assert!((figures[0] - 5.0).abs() < 1e-9 && figures[1..] == [0.0, 0.0], "{figures:?}");
        assert_eq!(growth(0.0, 0.01), f64::INFINITY);
        let like = Plan {
            seed: 1,
            peers: 1,
            bitrate: 2_000_000,
            gop: Duration::from_secs(5),
            time: Duration::from_secs(90),
            scenario: Scenario::named("steady").unwrap(),
            remember: true,
        };
        let plans = must.plans(&like, 7);
        let kinds: Vec<_> = plans.iter().map(|plan| (plan.seed, plan.peers, plan.gop)).collect();
        let two = Duration::from_secs(2);
        assert_eq!(kinds, [(7, 10_000, two), (7, 100, two)]);
    }
}
