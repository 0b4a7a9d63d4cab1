//! The figures of a world, by name: what summaries, tables and plots are made of.

use hdrhistogram::Histogram;

use crate::sim::egress::Class;
use crate::sim::report::Report;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name, which is that of its column.
    pub name: &'static str,
    /// Its unit, behind a space; empty if it has none.
    pub unit: &'static str,
    of: fn(&Report) -> f64,
}

const fn figure(name: &'static str, unit: &'static str, of: fn(&Report) -> f64) -> Figure {
    Figure { name, unit, of }
}

/// All figures.
pub const FIGURES: [Figure; 41] = [
    figure("viewers", "", |report| report.viewers as f64),
    figure("played", "", |report| report.played as f64),
    figure("viewer_hours", " h", |report| report.hours),
    figure("offload", " %", |report| report.window.offload()),
    figure("offload_whole", " %", |report| report.whole.offload()),
    figure("duplicates", " %", |report| report.window.twice()),
    figure("control", " %", |report| report.window.talk()),
    figure("hashes", " %", |report| report.window.hashes()),
    figure("delay_p50", " ms", |report| millis(&report.delay, 0.5)),
    figure("delay_p99", " ms", |report| millis(&report.delay, 0.99)),
    figure("delay_p999", " ms", |report| millis(&report.delay, 0.999)),
    figure("arrival_p50", " ms", |report| millis(&report.arrival, 0.5)),
    figure("arrival_p99", " ms", |report| millis(&report.arrival, 0.99)),
    figure("arrival_p999", " ms", |report| millis(&report.arrival, 0.999)),
    figure("startup_p50", " ms", |report| report.startup(50).as_millis() as f64),
    figure("startup_p95", " ms", |report| report.startup(95).as_millis() as f64),
    figure("stalls_per_hour", " per viewer-hour", Report::stalls_per_hour),
    figure("excused_per_hour", " per viewer-hour", Report::excused_per_hour),
    figure("stall_worst", " ms", |report| report.stall_worst.as_millis() as f64),
    figure("slower", " s per viewer-hour", |report| {
        report.stretched.as_secs_f64() / report.hours.max(1e-9)
    }),
    figure("recovery", " ms", |report| report.recovery.unwrap_or_default().as_millis() as f64),
    figure("rescues", "", |report| report.rescues as f64),
    figure("given_up", "", |report| report.given_up as f64),
    figure("egress", " copies", |report| all(Report::copies, report)),
    figure("egress_seeding", " copies", |report| report.copies(Class::Seeding)),
    figure("egress_joining", " copies", |report| report.copies(Class::Joining)),
    figure("egress_rescue", " copies", |report| report.copies(Class::Rescue)),
    figure("egress_retransmission", " copies", |report| report.copies(Class::Retransmission)),
    figure("egress_duplicates", " copies", |report| report.copies(Class::Duplicate)),
    figure("egress_control", " copies", |report| report.copies(Class::Control)),
    figure("egress_integrity", " copies", |report| report.copies(Class::Integrity)),
    figure("whole", " copies", |report| all(Report::copies_whole, report)),
    figure("whole_seeding", " copies", |report| report.copies_whole(Class::Seeding)),
    figure("whole_joining", " copies", |report| report.copies_whole(Class::Joining)),
    figure("whole_rescue", " copies", |report| report.copies_whole(Class::Rescue)),
    figure("whole_retransmission", " copies", |report| report.copies_whole(Class::Retransmission)),
    figure("whole_duplicates", " copies", |report| report.copies_whole(Class::Duplicate)),
    figure("whole_control", " copies", |report| report.copies_whole(Class::Control)),
    figure("whole_integrity", " copies", |report| report.copies_whole(Class::Integrity)),
    figure("crimes", "", |report| report.crimes as f64),
    figure("failures", "", |report| report.failures().len() as f64),
];

/// The unit of the figure of this name; empty if there is none.
#[must_use]
pub fn unit(name: &str) -> &'static str {
    FIGURES.iter().find(|figure| figure.name == name).map_or("", |figure| figure.unit)
}

/// All classes of what the relay sent together.
fn all(copies: fn(&Report, Class) -> f64, report: &Report) -> f64 {
    Class::ALL.into_iter().map(|class| copies(report, class)).sum()
}

/// What a bucket of the percentile holds at least.
pub(super) fn millis(times: &Histogram<u64>, part: f64) -> f64 {
    times.lowest_equivalent(times.value_at_quantile(part)) as f64
}

/// The figures of one world, in the order of [`FIGURES`].
#[derive(Clone, Debug, PartialEq)]
pub struct Values(pub Vec<f64>);

impl Values {
    /// Of a world.
    #[must_use]
    pub fn of(report: &Report) -> Values {
        Values(FIGURES.iter().map(|figure| (figure.of)(report)).collect())
    }

    /// The figure of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        let at = FIGURES.iter().position(|figure| figure.name == name)?;
        self.0.get(at).copied()
    }
}

/// A figure as people read it: three digits, and all of those before the point.
#[must_use]
pub fn rounded(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        // Not "-0.00".
        size if size < 0.005 => "0".to_owned(),
        _ => format!("{value:.2}"),
    }
}

/// Least, middle and greatest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The least.
    pub min: f64,
    /// As many are less as are greater; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Range {
    /// Of these, if there are any.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Range> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        // Two that are infinite have no mean.
        let median = if low == high { low } else { f64::midpoint(low, high) };
        Some(Range { min, median, max })
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [min, median, max] = [self.min, self.median, self.max].map(rounded);
        write!(f, "{min} / {median} / {max}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_there_once_and_find_their_values() {
        let values = Values((0..FIGURES.len()).map(|at| at as f64).collect());
        for (at, figure) in FIGURES.iter().enumerate() {
            assert_eq!(values.get(figure.name), Some(at as f64), "{}", figure.name);
        }
        assert_eq!(values.get("nothing"), None);
    }

    #[test]
    fn a_range_has_the_middle_of_its_numbers() {
        let range = |values: &[f64]| {
            let range = Range::of(values.iter().copied()).unwrap();
            [range.min, range.median, range.max]
        };
        assert_eq!(range(&[3.0, -1.0, 2.0]), [-1.0, 2.0, 3.0]);
        assert_eq!(range(&[4.0, 1.0, 3.0, 100.0]), [1.0, 3.5, 100.0]);
        assert_eq!(range(&[7.0]), [7.0; 3]);
        let endless = f64::INFINITY;
        assert_eq!(range(&[endless, endless]), [endless; 3]);
        assert_eq!(Range::of([]), None);
    }

    #[test]
    fn numbers_are_as_long_as_people_read_them() {
        let text = [1_834.0, 99.96, 12.34, 1.5, 0.1, 0.001, -0.001, -12.34].map(rounded);
        assert_eq!(text, ["1834", "100.0", "12.3", "1.50", "0.10", "0", "0", "-12.3"]);
    }
}
