//! Many worlds of one kind: least, middle and greatest of what is judged, and which were bad.

use std::fmt;

use crate::sim::figures::{Range, Values, unit};
use crate::sim::report::Report;

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Not less.
    Least(f64),
    /// Not more.
    Most(f64),
}

impl Bound {
    /// Whether a figure is as it must be.
    #[must_use]
    pub fn holds(self, value: f64) -> bool {
        match self {
            Bound::Least(least) => value >= least,
            Bound::Most(most) => value <= most,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Least(least) => write!(f, "at least {least}"),
            Bound::Most(most) => write!(f, "at most {most}"),
        }
    }
}

/// What many worlds came to.
#[derive(Debug, Default)]
pub struct Summary {
    what: String,
    bounds: Vec<(&'static str, Option<Bound>)>,
    worlds: Vec<(u64, Values)>,
    /// How to play the bad ones again, and what was wrong first.
    bad: Vec<(String, String)>,
}

impl Summary {
    /// Adds a world. All must be of one kind, but for their seeds.
    pub fn add(&mut self, report: &Report) {
        if self.worlds.is_empty() {
            self.what = report.kind();
            self.bounds = report.bounds();
        }
        self.worlds.push((report.seed(), Values::of(report)));
        if let Some(failure) = report.failures().into_iter().next() {
            self.bad.push((report.replay(), failure));
        }
    }

    /// Whether none was bad.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.bad.is_empty()
    }

    /// The worlds' figures, by seed.
    #[must_use]
    pub fn worlds(&self) -> &[(u64, Values)] {
        &self.worlds
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds = self.worlds.iter().map(|(seed, _)| *seed);
        let (first, last) = (seeds.clone().min().unwrap_or(0), seeds.max().unwrap_or(0));
        let count = self.worlds.len();
        writeln!(f, "\n{}, seeds {first} to {last}: min / median / max", self.what)?;
        for (name, bound) in &self.bounds {
            let values = self.worlds.iter().filter_map(|(_, values)| values.get(name));
            let Some(range) = Range::of(values) else { continue };
            let text = format!("{range}{}", unit(name));
            match bound {
                Some(bound) => writeln!(f, "  {name:<28} {text:<44} {bound}")?,
                None => writeln!(f, "  {name:<28} {text}")?,
            }
        }
        writeln!(f, "bad     {} of {count}", self.bad.len())?;
        self.bad.iter().try_for_each(|(again, why)| writeln!(f, "  {why}\n    {again}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::figures::FIGURES;

    #[test]
    fn a_bound_is_what_still_holds() {
        assert!(Bound::Least(85.0).holds(85.0) && !Bound::Least(85.0).holds(84.9));
        assert!(Bound::Most(0.1).holds(0.1) && !Bound::Most(0.1).holds(f64::INFINITY));
    }

    #[test]
    fn a_summary_has_the_middle_of_each_figure_and_names_who_was_bad() {
        let values = |offload: f64| {
            let value = |name| if name == "offload" { offload } else { 0.0 };
            Values(FIGURES.iter().map(|figure| value(figure.name)).collect())
        };
        let summary = Summary {
            what: "steady, 9 viewers".to_owned(),
            bounds: vec![("offload", Some(Bound::Least(85.0))), ("control", None)],
            worlds: vec![(4, values(91.0)), (5, values(80.0)), (6, values(90.0))],
            bad: vec![("again 5".to_owned(), "offload: 80 %".to_owned())],
        };
        let text = summary.to_string();
        assert!(!summary.is_good());
        assert!(text.contains("steady, 9 viewers, seeds 4 to 6"), "{text}");
        assert!(text.contains("80.0 / 90.0 / 91.0 %") && text.contains("at least 85"), "{text}");
        assert!(text.contains("bad     1 of 3\n  offload: 80 %\n    again 5\n"), "{text}");
        assert!(text.contains("control") && text.contains("0 / 0 / 0 %"), "{text}");
    }
}
