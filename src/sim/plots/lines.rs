//! Figures against the size of the audience: a line for each policy through the middle of all
//! seeds, in a band from the least to the greatest of them.

use crate::sim::figures::Range;
use crate::sim::plots::axis::{Axis, Growth};
use crate::sim::plots::svg::{Svg, number};

/// Of the whole drawing.
pub const WIDTH: f64 = 720.0;
/// Of the whole drawing.
pub const HEIGHT: f64 = 420.0;

const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 88.0;
pub(super) const BOTTOM: f64 = 360.0;
/// Between two panels.
const GAP: f64 = 26.0;

/// What a letter of a name takes, in the mean.
const LETTER: f64 = 6.8;

/// The least room between the middles of two marks below a panel.
const MARKS_APART: f64 = 34.0;

/// One line.
pub struct Series {
    /// What it is of.
    pub name: &'static str,
    /// Its colour, and its dashes: not everybody sees colours.
    pub colour: &'static str,
    /// See `stroke-dasharray`; empty: a whole line.
    pub dashes: &'static str,
    /// Sizes of the audience, ascending, with what was found.
    pub points: Vec<(f64, Range)>,
}

/// Lines in one frame.
pub struct Panel {
    /// What is drawn.
    pub name: &'static str,
    /// All lines.
    pub series: Vec<Series>,
    /// What must not be exceeded.
    pub limit: Option<f64>,
}

/// Panels side by side, with one scale.
pub struct Lines {
    /// What all of it is about.
    pub title: &'static str,
    /// Behind each figure.
    pub unit: &'static str,
    /// How the scale grows.
    pub growth: Growth,
    /// The frames.
    pub panels: Vec<Panel>,
}

/// Where the panel with this number of so many lies: its left and its right end.
pub(super) fn ends(panel: usize, panels: usize) -> [f64; 2] {
    let all = panels.max(1) as f64;
    let width = (WIDTH - LEFT - RIGHT - GAP * (all - 1.0)) / all;
    let start = LEFT + panel as f64 * (width + GAP);
    [start, start + width]
}

/// The frame of a panel, with marks beside the first one and lines behind all.
pub(super) fn frame(svg: &mut Svg, [start, end]: [f64; 2], name: &str, axis: &Axis, first: bool) {
    svg.text("head", "middle", [f64::midpoint(start, end), TOP - 8.0], name);
    for (value, text) in axis.marks() {
        let y = axis.place(value);
        svg.line("grid", [start, y], [end, y]);
        if first {
            svg.text("small", "end", [start - 6.0, y + 4.0], &text);
        }
    }
    svg.line("axis", [start, BOTTOM], [end, BOTTOM]);
    svg.line("axis", [start, TOP], [start, BOTTOM]);
}

/// Name and unit of the figures, and what the panels stand on.
pub(super) fn titles(svg: &mut Svg, title: &str, unit: &str, below: &str) {
    svg.text("title", "start", [LEFT - 40.0, 26.0], title);
    svg.text("small", "start", [LEFT - 40.0, TOP - 8.0], unit.trim());
    svg.text("", "middle", [f64::midpoint(LEFT, WIDTH), HEIGHT - 14.0], below);
}

/// The scale of all panels.
pub(super) fn scale(growth: Growth, values: &[f64]) -> Axis {
    Axis::around(growth, values, BOTTOM, TOP)
}

/// The names of some things with their signs, each so long, in a row.
pub(super) fn legend(svg: &mut Svg, names: &[(&str, &str, &str)], sign: f64) {
    let mut x = LEFT - 40.0;
    for (name, colour, dashes) in names {
        let mut attributes = vec![
            ("d", format!("M{x:.2} 48h{sign}")),
            ("stroke", (*colour).to_owned()),
            ("stroke-width", (30.0 / sign + 2.0).round().to_string()),
        ];
        if !dashes.is_empty() {
            attributes.push(("stroke-dasharray", (*dashes).to_owned()));
        }
        svg.element("path", &attributes, "");
        svg.text("", "start", [x + sign + 5.0, 52.0], name);
        x += sign + 18.0 + LETTER * name.chars().count() as f64;
    }
}

/// Marks below a panel, as many as have room.
pub(super) fn sizes(svg: &mut Svg, places: &[(f64, f64)]) {
    let mut last = f64::MIN;
    for (size, x) in places {
        svg.line("axis", [*x, BOTTOM], [*x, BOTTOM + 4.0]);
        if x - last >= MARKS_APART {
            svg.text("small", "middle", [*x, BOTTOM + 18.0], &size.to_string());
            last = *x;
        }
    }
}

impl Lines {
    /// The drawing.
    #[must_use]
    pub fn svg(&self) -> String {
        let mut svg = Svg::new(WIDTH, HEIGHT, self.title);
        titles(&mut svg, self.title, self.unit, "viewers");
        if let Some(panel) = self.panels.first() {
            let names = panel.series.iter().map(|one| (one.name, one.colour, one.dashes));
            legend(&mut svg, &names.collect::<Vec<_>>(), 26.0);
        }
        let axis = self.axis();
        for (at, panel) in self.panels.iter().enumerate() {
            let ends = ends(at, self.panels.len());
            frame(&mut svg, ends, panel.name, &axis, at == 0);
            panel.draw(&mut svg, ends, &axis, self.unit);
        }
        svg.finish()
    }

    fn axis(&self) -> Axis {
        let series = self.panels.iter().flat_map(|panel| &panel.series);
        let ranges = series.flat_map(|series| &series.points);
        let mut values: Vec<f64> = ranges.flat_map(|(_, range)| [range.min, range.max]).collect();
        values.extend(self.panels.iter().filter_map(|panel| panel.limit));
        scale(self.growth, &values)
    }
}

impl Panel {
    /// Sizes of the audience of any line.
    fn sizes(&self) -> Vec<f64> {
        let points = self.series.iter().flat_map(|series| &series.points);
        let mut sizes: Vec<f64> = points.map(|(size, _)| *size).collect();
        sizes.sort_unstable_by(f64::total_cmp);
        sizes.dedup();
        sizes
    }

    fn draw(&self, svg: &mut Svg, [start, end]: [f64; 2], axis: &Axis, unit: &str) {
        let all = self.sizes();
        let below = Axis::of_sizes(&all, start, end);
        let places: Vec<(f64, f64)> = all.iter().map(|size| (*size, below.place(*size))).collect();
        sizes(svg, &places);
        if let Some(limit) = self.limit {
            let y = axis.place(limit);
            svg.line("limit", [start, y], [end, y]);
            svg.text("small", "end", [end - 2.0, y - 4.0], "must");
        }
        for series in &self.series {
            series.band(svg, &below, axis);
        }
        for series in &self.series {
            series.line(svg, &below, axis);
            series.dots(svg, &below, axis, unit);
        }
    }
}

impl Series {
    fn places<'a>(
        &'a self,
        below: &'a Axis,
        axis: &'a Axis,
        of: fn(&Range) -> f64,
    ) -> impl DoubleEndedIterator<Item = String> + 'a {
        self.points.iter().map(move |(size, range)| {
            format!("{:.2},{:.2}", below.place(*size), axis.place(of(range)))
        })
    }

    fn band(&self, svg: &mut Svg, below: &Axis, axis: &Axis) {
        let upper = self.places(below, axis, |range| range.max);
        let lower = self.places(below, axis, |range| range.min).rev();
        let points = upper.chain(lower).collect::<Vec<_>>().join(" ");
        let fill = ("fill", self.colour.to_owned());
        // Of one size alone it is a stroke.
        let stroke = ("stroke", self.colour.to_owned());
        let opacity = ("opacity", "0.18".to_owned());
        svg.element("polygon", &[("points", points), fill, stroke, opacity], "");
    }

    fn line(&self, svg: &mut Svg, below: &Axis, axis: &Axis) {
        let points = self.places(below, axis, |range| range.median).collect::<Vec<_>>().join(" ");
        let mut attributes = vec![
            ("points", points),
            ("fill", "none".to_owned()),
            ("stroke", self.colour.to_owned()),
            ("stroke-width", "2".to_owned()),
        ];
        if !self.dashes.is_empty() {
            attributes.push(("stroke-dasharray", self.dashes.to_owned()));
        }
        svg.element("polyline", &attributes, "");
    }

    fn dots(&self, svg: &mut Svg, below: &Axis, axis: &Axis, unit: &str) {
        for (size, range) in &self.points {
            let attributes = [
                ("cx", number(below.place(*size))),
                ("cy", number(axis.place(range.median))),
                ("r", "3".to_owned()),
                ("fill", self.colour.to_owned()),
            ];
            let tip = format!("{}, {size} viewers: {range}{unit}", self.name);
            svg.element("circle", &attributes, &tip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plots::svg::tests::{elements, value};

    fn range(min: f64, median: f64, max: f64) -> Range {
        Range { min, median, max }
    }

    #[test]
    fn each_point_is_where_its_figures_say() {
        let points = vec![
            (10.0, range(0.0, 40.0, 60.0)),
            (100.0, range(70.0, 80.0, 90.0)),
            (1_000.0, range(90.0, 91.0, 100.0)),
        ];
        let series = |name, colour| Series { name, colour, dashes: "4 2", points: points.clone() };
        let panel = |name| Panel {
            name,
            series: vec![series("a", "#000"), series("b", "#111")],
            limit: Some(85.0),
        };
        let lines = Lines {
            title: "offload",
            unit: " %",
            growth: Growth::Linear,
            panels: vec![panel("p50"), panel("p99")],
        };
        let svg = lines.svg();
        let elements = elements(&svg);
        let dots: Vec<_> = elements.iter().filter(|(name, _)| name == "circle").collect();
        assert_eq!(dots.len(), 2 * 2 * 3, "each point of each line of each panel");
        for (at, (_, dot)) in dots.iter().enumerate() {
            let ([start, end], (size, range)) = (ends(at / 6, 2), points[at % 3]);
            // Back from paper: sizes grow by multiplying, from 10 / 1.2 to 1,000 * 1.2.
            let part = (value(dot, "cx") - start) / (end - start);
            let back = 10.0 / 1.2 * (100.0_f64 * 1.44).powf(part);
            assert!((back / size - 1.0).abs() < 0.01, "{back} for {size}");
            let back = 100.0 * (BOTTOM - value(dot, "cy")) / (BOTTOM - TOP);
            assert!((back - range.median).abs() < 0.1, "{back} for {}", range.median);
            assert!(value(dot, "cx") < WIDTH && value(dot, "cy") < HEIGHT);
        }
        let band = elements.iter().find(|(name, _)| name == "polygon").unwrap();
        let corners = band.1[0].1.split(' ').map(|corner| corner.split_once(',').unwrap().1);
        let corners: Vec<f64> = corners.map(|y| y.parse().unwrap()).collect();
        let back = corners.iter().map(|y| (100.0 * (BOTTOM - y) / (BOTTOM - TOP)).round());
        assert_eq!(back.collect::<Vec<_>>(), [60.0, 90.0, 100.0, 90.0, 70.0, 0.0]);
        assert!(svg.contains("a, 100 viewers: 70.0 / 80.0 / 90.0 %"), "{svg}");
    }

    #[test]
    fn marks_that_have_no_room_are_left_out() {
        let mut svg = Svg::new(1.0, 1.0, "");
        sizes(&mut svg, &[(10.0, 100.0), (20.0, 120.0), (30.0, 134.0)]);
        let text = svg.finish();
        assert!(text.contains(">10<") && !text.contains(">20<") && text.contains(">30<"));
    }

    #[test]
    fn nothing_at_all_can_be_drawn() {
        let lines = Lines { title: "x", unit: "", growth: Growth::Log(0.01), panels: Vec::new() };
        elements(&lines.svg());
        let panel = Panel { name: "p", series: Vec::new(), limit: None };
        elements(&Lines { panels: vec![panel], ..lines }.svg());
    }
}
