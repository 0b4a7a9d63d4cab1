//! A report's plots: what is drawn, and how it is called.
//!
//! ```text
//! svg      elements of a drawing
//! axis     from figures to places
//! lines    a figure against the audience, a line for each policy
//! bars     the parts of a whole
//! ```

mod axis;
mod bars;
mod lines;
mod svg;

use crate::sim::egress::Class;
use crate::sim::played::Worlds;
use crate::sim::policy::Policy;

use axis::Growth;
use bars::{Bar, Bars};
use lines::{Lines, Panel, Series};

/// The colours of the policies, and their dashes (Okabe and Ito: for all eyes).
const LOOKS: [(&str, &str); 4] =
    [("#0072b2", ""), ("#d55e00", "6 3"), ("#009e73", "2 3"), ("#cc79a7", "9 3 2 3")];

/// The colours of the classes of what the relay sends, in their order.
const CLASSES: [&str; Class::ALL.len()] =
    ["#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#cc79a7", "#999999", "#009e73"];

/// A plot of lines: its file, what it is about, the names and figures of its panels.
struct Sheet {
    file: &'static str,
    title: &'static str,
    unit: &'static str,
    growth: Growth,
    panels: &'static [(&'static str, &'static str, Option<f64>)],
}

/// Stalls of less than this per viewer-hour are none.
const STALLS_NONE: f64 = 0.01;

const SHEETS: [Sheet; 6] = [
    Sheet {
        file: "offload.svg",
        title: "Offload: what viewers carry of what they play",
        unit: " %",
        growth: Growth::Linear,
        panels: &[("last minute", "offload", None), ("joining included", "offload_whole", None)],
    },
    Sheet {
        file: "delay.svg",
        title: "Delay behind live",
        unit: " ms",
        growth: Growth::Linear,
        panels: &[
            ("p50", "delay_p50", None),
            ("p99", "delay_p99", Some(3_000.0)),
            ("p99.9", "delay_p999", None),
        ],
    },
    Sheet {
        file: "arrival.svg",
        title: "Arrival delay: from signing to verified",
        unit: " ms",
        growth: Growth::Linear,
        panels: &[
            ("p50", "arrival_p50", None),
            ("p99", "arrival_p99", None),
            ("p99.9", "arrival_p999", None),
        ],
    },
    Sheet {
        file: "stalls.svg",
        title: "Stalls per viewer-hour",
        unit: " per viewer-hour",
        growth: Growth::Log(STALLS_NONE),
        panels: &[
            ("that nothing explains", "stalls_per_hour", Some(0.1)),
            ("that the network explains", "excused_per_hour", None),
        ],
    },
    Sheet {
        file: "startup.svg",
        title: "Startup: from joining to the first byte shown",
        unit: " ms",
        growth: Growth::Linear,
        panels: &[("p50", "startup_p50", None), ("p95", "startup_p95", Some(2_000.0))],
    },
    Sheet {
        file: "egress.svg",
        title: "What leaves the relay, in copies of the stream",
        unit: " copies",
        growth: Growth::Log(0.1),
        panels: &[("last minute", "egress", None), ("whole run", "whole", None)],
    },
];

/// All plots of some worlds: the name of each file, and what is in it.
#[must_use]
pub fn plots(worlds: &Worlds) -> Vec<(String, String)> {
    let sheets = SHEETS.iter().map(|sheet| (sheet.file.to_owned(), sheet.lines(worlds).svg()));
    let policies = worlds.policies().into_iter();
    let split = policies.map(|policy| (split_file(policy), split(worlds, policy).svg()));
    sheets.chain(split).collect()
}

/// The name of the plot of a policy's egress by class.
#[must_use]
pub fn split_file(policy: Policy) -> String {
    format!("egress-{}.svg", policy.name())
}

/// The names of the plots of lines.
pub fn files() -> impl Iterator<Item = &'static str> {
    SHEETS.iter().map(|sheet| sheet.file)
}

impl Sheet {
    fn lines(&self, worlds: &Worlds) -> Lines {
        let series = |figure: &str| {
            let of = |policy: Policy| {
                let (colour, dashes) = LOOKS[policy as usize];
                let sizes = worlds.audiences().into_iter();
                let points = sizes
                    .filter_map(|size| Some((size as f64, worlds.range(policy, size, figure)?)));
                Series { name: policy.name(), colour, dashes, points: points.collect() }
            };
            worlds.policies().into_iter().map(of).collect()
        };
        let panel = |(name, figure, limit): &(&'static str, &'static str, Option<f64>)| Panel {
            name,
            series: series(figure),
            limit: *limit,
        };
        Lines {
            title: self.title,
            unit: self.unit,
            growth: self.growth,
            panels: self.panels.iter().map(panel).collect(),
        }
    }
}

/// What the relay sends, by class, per hundred viewers: the mean of all seeds, because middles do
/// not add up.
fn split(worlds: &Worlds, policy: Policy) -> Bars {
    let bars = |part: &str| -> Vec<Bar> {
        let sizes = worlds.audiences().into_iter();
        let bar = |size: usize| {
            let mean = |class: Class| {
                let figure = format!("{part}_{}", class.column());
                let values: Vec<f64> = worlds.values(policy, size, &figure).collect();
                100.0 * values.iter().sum::<f64>() / (values.len().max(1) * size) as f64
            };
            let there = worlds.range(policy, size, part).is_some();
            there.then(|| (size as f64, Class::ALL.into_iter().map(mean).collect()))
        };
        sizes.filter_map(bar).collect()
    };
    Bars {
        title: format!("What leaves the relay for what: {}", policy.name()),
        unit: "copies per 100 viewers",
        parts: Class::ALL.into_iter().map(Class::name).zip(CLASSES).collect(),
        panels: vec![("last minute", bars("egress")), ("whole run", bars("whole"))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::figures::FIGURES;
    use crate::sim::played::tests::worlds;

    #[test]
    fn all_figures_that_are_drawn_are_there() {
        let known = |name: &str| FIGURES.iter().any(|figure| figure.name == name);
        for (_, figure, _) in SHEETS.iter().flat_map(|sheet| sheet.panels) {
            assert!(known(figure), "{figure}");
        }
        for part in ["egress", "whole"] {
            let all = Class::ALL.map(|class| format!("{part}_{}", class.column()));
            assert!(known(part) && all.iter().all(|name| known(name)), "{part}");
        }
    }

    #[test]
    fn each_plot_is_a_drawing_of_its_own() {
        let plots = plots(&worlds());
        let mut names: Vec<&String> = plots.iter().map(|(name, _)| name).collect();
        names.dedup();
        assert_eq!(names.len(), SHEETS.len() + 2);
        for (name, svg) in &plots {
            let elements = svg::tests::elements(svg);
            assert!(elements.len() > 20, "{name}");
        }
        let (name, offload) = &plots[0];
        assert_eq!(name, "offload.svg");
        // Two panels, two policies, two sizes.
        assert_eq!(offload.matches("<circle").count(), 8);
        assert!(offload.contains("swarm, 100 viewers: 70.0 / 80.5 / 90.0 %"), "{offload}");
        assert!(offload.contains("relay, 10 viewers: -11.0 / -11.0 / -11.0 %"), "{offload}");
    }
}
