//! Worlds that were played for a report: a line for each, which can be read again, so that a
//! report that was broken off goes on.

use crate::sim::figures::{FIGURES, Range, Values};
use crate::sim::policy::Policy;

/// What makes a world of a report another one than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Viewers.
    pub audience: usize,
    /// What decides everything.
    pub seed: u64,
    /// Who sends what to whom.
    pub policy: Policy,
}

/// A world that was played.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// Which.
    pub key: Key,
    /// Its figures.
    pub values: Values,
    /// How to play it again.
    pub command: String,
}

/// The first line of all worlds.
#[must_use]
pub fn header() -> String {
    let figures = FIGURES.iter().map(|figure| figure.name);
    let names = ["policy", "audience", "seed"].into_iter().chain(figures).chain(["command"]);
    names.collect::<Vec<_>>().join(",")
}

impl Played {
    /// Its line.
    #[must_use]
    pub fn line(&self) -> String {
        let Key { audience, seed, policy } = self.key;
        let mut fields = vec![policy.name().to_owned(), audience.to_string(), seed.to_string()];
        // A ten-thousandth of anything here is nothing.
        let figures = self.values.0.iter().map(|value| ((value * 1e4).round() / 1e4).to_string());
        fields.extend(figures);
        fields.push(self.command.clone());
        fields.join(",")
    }

    /// The world of a line, if it is whole.
    #[must_use]
    pub fn parse(line: &str) -> Option<Played> {
        let fields: Vec<&str> = line.split(',').collect();
        let [policy, audience, seed, figures @ .., command] = &fields[..] else { return None };
        let key = Key {
            policy: Policy::named(policy)?,
            audience: audience.parse().ok()?,
            seed: seed.parse().ok()?,
        };
        let values: Option<Vec<f64>> = figures.iter().map(|text| text.parse().ok()).collect();
        let values = Values(values.filter(|values| values.len() == FIGURES.len())?);
        Some(Played { key, values, command: (*command).to_owned() })
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Worlds(Vec<Played>);

impl Worlds {
    /// Adds one, which was not there.
    pub fn add(&mut self, played: Played) {
        self.0.push(played);
        self.0.sort_by_key(|played| played.key);
    }

    /// Whether it was played.
    #[must_use]
    pub fn has(&self, key: Key) -> bool {
        self.0.iter().any(|played| played.key == key)
    }

    /// All, by audience, seed and policy.
    pub fn iter(&self) -> impl Iterator<Item = &Played> {
        self.0.iter()
    }

    /// Those that hold the worlds of a text as [`Worlds::text`] makes it, and how many lines of
    /// it are none. `None`: it is of another kind.
    #[must_use]
    pub fn read(text: &str) -> Option<(Worlds, usize)> {
        let mut lines = text.lines();
        if lines.next()? != header() {
            return None;
        }
        let (mut worlds, mut broken) = (Worlds::default(), 0);
        for line in lines {
            match Played::parse(line).filter(|played| !worlds.has(played.key)) {
                Some(played) => worlds.add(played),
                None => broken += 1,
            }
        }
        Some((worlds, broken))
    }

    /// All lines.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.0.iter().map(Played::line);
        [header()].into_iter().chain(lines).map(|line| line + "\n").collect()
    }

    /// The sizes of the audience, ascending.
    #[must_use]
    pub fn audiences(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self.0.iter().map(|played| played.key.audience).collect();
        sizes.dedup();
        sizes
    }

    /// The policies, in their order.
    #[must_use]
    pub fn policies(&self) -> Vec<Policy> {
        let there = |policy: &Policy| self.0.iter().any(|played| played.key.policy == *policy);
        Policy::ALL.into_iter().filter(there).collect()
    }

    /// A figure of all seeds of one policy and audience.
    pub fn values<'a>(
        &'a self,
        policy: Policy,
        audience: usize,
        figure: &'a str,
    ) -> impl Iterator<Item = f64> + 'a {
        let of =
            move |played: &&Played| played.key.policy == policy && played.key.audience == audience;
        self.0.iter().filter(of).filter_map(move |played| played.values.get(figure))
    }

    /// Least, middle and greatest of these.
    #[must_use]
    pub fn range(&self, policy: Policy, audience: usize, figure: &str) -> Option<Range> {
        Range::of(self.values(policy, audience, figure))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A world in which one figure is something, and all others nothing.
    pub fn world(policy: Policy, audience: usize, seed: u64, figure: (&str, f64)) -> Played {
        let value = |name| if name == figure.0 { figure.1 } else { 0.0 };
        let values = Values(FIGURES.iter().map(|figure| value(figure.name)).collect());
        let command = format!("headwater sim --seed {seed} --peers {audience}");
        Played { key: Key { audience, seed, policy }, values, command }
    }

    /// Some of them.
    pub fn worlds() -> Worlds {
        let mut worlds = Worlds::default();
        for (audience, offload) in [(100, [90.0, 70.0, 80.5]), (10, [40.0, 50.0, 45.0])] {
            for (seed, offload) in (1..).zip(offload) {
                worlds.add(world(Policy::Swarm, audience, seed, ("offload", offload)));
            }
            worlds.add(world(Policy::Relay, audience, 1, ("offload", -11.0)));
        }
        worlds
    }

    #[test]
    fn what_is_written_is_read_again() {
        let worlds = worlds();
        let text = worlds.text();
        let (read, broken) = Worlds::read(&text).unwrap();
        assert_eq!((&read.0, broken), (&worlds.0, 0));
        assert!(read.has(Key { audience: 10, seed: 3, policy: Policy::Swarm }));
        assert!(!read.has(Key { audience: 10, seed: 2, policy: Policy::Relay }));
        let names = header().split(',').count();
        assert!(text.lines().all(|line| line.split(',').count() == names), "{text}");
        // Broken off in the middle of a line, and a line twice.
        let cut = text.trim_end().rsplit_once(',').unwrap().0;
        assert_eq!(Worlds::read(cut).map(|(read, broken)| (read.0.len(), broken)), Some((7, 1)));
        let twice = text.clone() + text.lines().last().unwrap();
        assert_eq!(Worlds::read(&twice).map(|(read, broken)| (read.0.len(), broken)), Some((8, 1)));
        assert!(Worlds::read(&text.replace("offload", "onload")).is_none());
        assert!(Worlds::read("").is_none());
    }

    #[test]
    fn worlds_are_grouped_by_policy_and_audience() {
        let worlds = worlds();
        assert_eq!(worlds.audiences(), [10, 100]);
        assert_eq!(worlds.policies(), [Policy::Swarm, Policy::Relay]);
        let range = worlds.range(Policy::Swarm, 100, "offload").unwrap();
        assert_eq!([range.min, range.median, range.max], [70.0, 80.5, 90.0]);
        assert_eq!(worlds.range(Policy::Pull, 100, "offload"), None);
    }
}
