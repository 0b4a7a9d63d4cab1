//! From figures to places on paper, and the marks beside them.

use crate::sim::figures::rounded;

/// How an axis grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Growth {
    /// Equal steps add the same.
    Linear,
    /// Equal steps multiply by the same; at the lower end stands nothing, and all that is less
    /// than this.
    Log(f64),
}

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    growth: Growth,
    /// The figures at its ends.
    from: f64,
    to: f64,
    /// The places of its ends.
    start: f64,
    end: f64,
}

impl Axis {
    /// An axis on which these figures fit, from `start` to `end` on paper.
    pub fn around(growth: Growth, values: &[f64], start: f64, end: f64) -> Axis {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let most = finite().fold(f64::MIN, f64::max);
        let least = finite().fold(f64::MAX, f64::min);
        let (from, to) = match growth {
            Growth::Linear => {
                let (least, most) = (least.min(0.0), most.max(0.0));
                let step = step(most - least);
                ((least / step).floor() * step, (most / step).ceil().max(1.0) * step)
            }
            Growth::Log(least) => (least, decade_above(most.max(least * 10.0))),
        };
        Axis { growth, from, to, start, end }
    }

    /// An axis for sizes, which are greater than nothing: a little more than from the least to
    /// the greatest.
    pub fn of_sizes(sizes: &[f64], start: f64, end: f64) -> Axis {
        let least = sizes.iter().copied().fold(f64::MAX, f64::min).max(1.0);
        let most = sizes.iter().copied().fold(least, f64::max);
        let from = least / 1.2;
        Axis { growth: Growth::Log(from), from, to: most * 1.2, start, end }
    }

    /// Where a figure stands. What lies outside stands at the end.
    pub fn place(&self, value: f64) -> f64 {
        let part = match self.growth {
            Growth::Linear => (value - self.from) / (self.to - self.from),
            Growth::Log(least) => (value.max(least) / self.from).ln() / (self.to / self.from).ln(),
        };
        let part = if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) };
        self.start + (self.end - self.start) * part
    }

    /// Figures to be written beside the axis.
    pub fn marks(&self) -> Vec<(f64, String)> {
        match self.growth {
            Growth::Linear => {
                let step = step(self.to - self.from);
                let many = ((self.to - self.from) / step).round() as i64;
                let value = |n: i64| self.from + n as f64 * step;
                (0..=many).map(|n| (value(n), short(value(n)))).collect()
            }
            Growth::Log(least) => {
                let mut marks = vec![(self.from, "0".to_owned())];
                let mut value = least * 10.0;
                while value <= self.to * 1.001 {
                    marks.push((value, short(value)));
                    value *= 10.0;
                }
                marks
            }
        }
    }
}

/// A number beside an axis.
fn short(value: f64) -> String {
    let text = rounded(value);
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    match text.strip_suffix("000") {
        Some(thousands) if !thousands.is_empty() => format!("{thousands} k"),
        _ => text,
    }
}

/// A round step, so that there are four to eight of them.
fn step(span: f64) -> f64 {
    let rough = if span > 0.0 { span / 5.0 } else { 0.2 };
    let decade = 10.0_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * decade);
    steps.into_iter().find(|step| *step >= rough * 0.7).unwrap_or(decade * 10.0)
}

fn decade_above(value: f64) -> f64 {
    10.0_f64.powf((value.log10() - 1e-9).ceil())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<String> {
        axis.marks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn figures_stand_where_they_belong() {
        let axis = Axis::around(Growth::Linear, &[12.0, 87.0], 300.0, 100.0);
        assert_eq!(texts(&axis), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!([0.0, 50.0, 100.0, 900.0].map(|v| axis.place(v)), [300.0, 200.0, 100.0, 100.0]);
        let axis = Axis::around(Growth::Linear, &[-11.0, 91.0], 0.0, 1.0);
        assert_eq!(texts(&axis), ["-20", "0", "20", "40", "60", "80", "100"]);
        assert!((axis.place(0.0) - 1.0 / 6.0).abs() < 1e-9 && axis.place(-20.0) < 1e-9);
        let axis = Axis::around(Growth::Log(0.01), &[0.0, 3.0], 0.0, 3.0);
        assert_eq!(texts(&axis), ["0", "0.1", "1", "10"]);
        let places = [0.0, 0.1, 1.0, f64::INFINITY].map(|value| axis.place(value));
        assert!(places.iter().zip([0.0, 1.0, 2.0, 3.0]).all(|(is, to)| (is - to).abs() < 1e-9));
    }

    #[test]
    fn an_axis_of_nothing_is_an_axis_all_the_same() {
        for growth in [Growth::Linear, Growth::Log(0.01)] {
            for values in [&[][..], &[0.0], &[f64::NAN]] {
                let axis = Axis::around(growth, values, 10.0, 20.0);
                let place = axis.place(0.0);
                assert!((10.0..=20.0).contains(&place) && axis.marks().len() > 1, "{axis:?}");
            }
        }
        let axis = Axis::of_sizes(&[7.0], 10.0, 20.0);
        assert!((axis.place(7.0) - 15.0).abs() < 1e-9);
        assert_eq!(
            texts(&Axis::around(Growth::Linear, &[4_800.0], 0.0, 1.0))[1..3],
            ["1 k", "2 k"]
        );
    }
}
