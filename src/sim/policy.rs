//! What is compared: the swarm as it is, and three simple ways to do it, in the same worlds.

use crate::sim::scenario::Scenario;
use crate::swarm::settings::{Mode, Strategy};

/// Who sends what to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// As in production, in the scenario's mode.
    Swarm,
    /// The relay sends everything to everybody.
    Relay,
    /// Viewers know some others and ask them for what they lack; nothing is pushed.
    Pull,
    /// The relay names somebody with room to feed each viewer each stripe, by chance.
    Random,
}

impl Policy {
    /// All of them.
    pub const ALL: [Policy; 4] = [Policy::Swarm, Policy::Relay, Policy::Pull, Policy::Random];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Policy::Swarm => "swarm",
            Policy::Relay => "relay",
            Policy::Pull => "pull",
            Policy::Random => "random",
        }
    }

    /// What it is, in a line.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Policy::Swarm => "the swarm as it is, in the scenario's mode",
            Policy::Relay => "the relay sends everything to everybody",
            Policy::Pull => {
                "viewers know some others by chance and ask them for what these announce; one \
                 subtree in eight each asks of the relay at once, and all of it that is missing \
                 when its turn comes near; nothing is pushed once somebody is known"
            }
            Policy::Random => {
                "the relay names somebody with room to feed each viewer each stripe, by chance, \
                 instead of its plan, and feeds as many itself"
            }
        }
    }

    /// The policy of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Policy> {
        Policy::ALL.into_iter().find(|policy| policy.name() == name)
    }

    /// Lets a scenario be played so.
    pub fn apply(self, scenario: &mut Scenario) {
        (scenario.mode, scenario.strategy) = match self {
            Policy::Swarm => (scenario.mode, Strategy::Trees),
            Policy::Relay => (Mode::Direct, Strategy::Trees),
            Policy::Pull => (Mode::Hybrid, Strategy::Pull),
            Policy::Random => (Mode::Hybrid, Strategy::Random),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_changes_how_a_scenario_is_played_and_nothing_else() {
        for policy in Policy::ALL {
            assert_eq!(Policy::named(policy.name()), Some(policy));
            let before = Scenario::named("flash").unwrap();
            let mut after = before.clone();
            policy.apply(&mut after);
            let (mode, strategy) = (before.mode, before.strategy);
            assert_eq!((after == before), policy == Policy::Swarm);
            assert_eq!(Scenario { mode, strategy, ..after }, before);
        }
        assert_eq!(Policy::named("best"), None);
    }
}
