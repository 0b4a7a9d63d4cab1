//! Parts of a whole against the size of the audience: a bar for each size, of one piece for each
//! part.

use crate::sim::figures::rounded;
use crate::sim::plots::axis::{Axis, Growth};
use crate::sim::plots::lines::{BOTTOM, HEIGHT, WIDTH, ends, frame, legend, scale, sizes, titles};
use crate::sim::plots::svg::{Svg, number};

/// What a bar takes of the room that it has.
const BROAD: f64 = 0.62;

/// A bar: the size of the audience, and its parts, from the ground up.
pub type Bar = (f64, Vec<f64>);

/// Bars side by side, of several kinds, with one scale.
pub struct Bars {
    /// What all of it is about.
    pub title: String,
    /// What the bars are made of.
    pub unit: &'static str,
    /// Name and colour of each part.
    pub parts: Vec<(&'static str, &'static str)>,
    /// The kinds.
    pub panels: Vec<(&'static str, Vec<Bar>)>,
}

/// A scale for bars of these heights, with room for a number above each.
fn axis(heights: impl Iterator<Item = f64>) -> Axis {
    let highest = heights.fold(0.0, f64::max);
    scale(Growth::Linear, &[highest * 1.08])
}

impl Bars {
    /// The drawing.
    #[must_use]
    pub fn svg(&self) -> String {
        let mut svg = Svg::new(WIDTH, HEIGHT, &self.title);
        titles(&mut svg, &self.title, self.unit, "viewers");
        let names: Vec<_> = self.parts.iter().map(|(name, colour)| (*name, *colour, "")).collect();
        legend(&mut svg, &names, 10.0);
        let bars = self.panels.iter().flat_map(|(_, bars)| bars);
        let heights = bars.map(|(_, parts)| parts.iter().sum());
        let axis = axis(heights);
        for (at, (name, bars)) in self.panels.iter().enumerate() {
            let ends = ends(at, self.panels.len());
            frame(&mut svg, ends, name, &axis, at == 0);
            self.panel(&mut svg, ends, &axis, bars);
        }
        svg.finish()
    }

    fn panel(&self, svg: &mut Svg, [start, end]: [f64; 2], axis: &Axis, bars: &[Bar]) {
        let room = (end - start) / bars.len().max(1) as f64;
        let middle = |at: usize| start + (at as f64 + 0.5) * room;
        let places: Vec<_> =
            bars.iter().enumerate().map(|(at, (size, _))| (*size, middle(at))).collect();
        sizes(svg, &places);
        for (at, (size, parts)) in bars.iter().enumerate() {
            let mut below = 0.0;
            for (part, (name, colour)) in parts.iter().zip(&self.parts) {
                let (low, high) = (axis.place(below), axis.place(below + part));
                below += part;
                let attributes = [
                    ("x", number(middle(at) - room * BROAD / 2.0)),
                    ("y", number(high)),
                    ("width", number(room * BROAD)),
                    ("height", number(low - high)),
                    ("fill", (*colour).to_owned()),
                ];
                let tip = format!("{size} viewers, {name}: {part:.3} {}", self.unit);
                svg.element("rect", &attributes, &tip);
            }
            let top = [middle(at), axis.place(below).min(BOTTOM) - 5.0];
            svg.text("small", "middle", top, &rounded(below));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plots::svg::tests::{elements, value};

    #[test]
    fn each_part_is_as_high_as_it_should_be_and_stands_on_the_one_before() {
        let bars = Bars {
            title: "egress".to_owned(),
            unit: "copies",
            parts: vec![("seeding", "#111"), ("control", "#222")],
            panels: vec![
                ("last minute", vec![(10.0, vec![1.0, 2.0]), (100.0, vec![4.0, 0.5])]),
                ("whole run", vec![(10.0, vec![3.0, 2.0])]),
            ],
        };
        let svg = bars.svg();
        let elements = elements(&svg);
        let names = elements.iter().filter(|(name, _)| name == "text");
        assert!(names.clone().all(|(_, at)| value(at, "x") < WIDTH - 20.0));
        // The first is the ground.
        let rects = elements.iter().filter(|(name, _)| name == "rect").skip(1);
        let rects: Vec<_> = rects.map(|(_, attributes)| attributes).collect();
        let pixels = |from: f64, to: f64| {
            let axis = axis([3.0, 5.0].into_iter());
            axis.place(from) - axis.place(to)
        };
        for (rect, part) in rects.iter().zip([1.0, 2.0, 4.0, 0.5, 3.0, 2.0]) {
            assert!((value(rect, "height") - pixels(0.0, part)).abs() < 0.02, "{rect:?}");
        }
        assert_eq!(rects.len(), 6);
        let stands = |above: usize, below: usize| {
            let low = value(rects[above], "y") + value(rects[above], "height");
            (low - value(rects[below], "y")).abs() < 0.02
        };
        assert!(stands(1, 0) && stands(3, 2) && stands(5, 4));
        assert!(value(rects[2], "x") > value(rects[0], "x") + value(rects[0], "width"));
        assert!(svg.contains("100 viewers, control: 0.500 copies") && svg.contains(">4.50<"));
    }
}
