//! Figures of several pairs: a table for people, JSON for programs, percentiles for plots.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::bench::Outcome;

/// Where a report goes besides the terminal.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The report as JSON.
    pub json: Option<PathBuf>,
    /// The delays as the text that HdrHistogram's plotter reads.
    pub hdr: Option<PathBuf>,
}

/// One figure, once per pair.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// Its unit; empty for plain numbers.
    pub unit: &'static str,
    /// One value per pair, in their order.
    pub values: Vec<f64>,
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Row {
    /// A row of values. All figures of no values are 0.
    #[must_use]
    pub fn new(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Row {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (sorted.first().copied(), sorted.last().copied());
        let (min, max) = (min.unwrap_or(0.0), max.unwrap_or(0.0));
        Row { name: name.into(), unit, median: median(&sorted), min, max, values }
    }
}

/// The middle of sorted values; of an even number of them the mean of the two in the middle.
fn median(sorted: &[f64]) -> f64 {
    match (sorted.get(sorted.len() / 2), sorted.len()) {
        (None, _) => 0.0,
        (Some(middle), len) if len % 2 == 1 => *middle,
        (Some(middle), len) => f64::midpoint(sorted[len / 2 - 1], *middle),
    }
}

/// Figures as they went, one line per moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Trace {
    /// What stands in each column, with its unit.
    pub columns: Vec<&'static str>,
    /// The moments, each with a figure for every column.
    pub lines: Vec<Vec<f64>>,
}

/// A whole report.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What was measured, with its parameters.
    pub title: String,
    /// On what machine.
    pub machine: String,
    /// The figures.
    pub rows: Vec<Row>,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// How it went, where that is the point.
    pub trace: Option<Trace>,
}

impl Report {
    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{}\n{}\n\n", self.title, self.machine);
        let mut line = |cells: [&str; 5]| {
            let [name, median, min, max, unit] = cells;
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "{}",
                format!("{name:<34}{median:>12}{min:>12}{max:>12}  {unit}").trim_end()
            );
        };
        line(["", "median", "min", "max", ""]);
        for row in &self.rows {
            let [median, min, max] = [row.median, row.min, row.max].map(figure);
            line([&row.name, &median, &min, &max, row.unit]);
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}");
        }
        text.push('\n');
        if let Some(trace) = &self.trace {
            text.push_str(&trace.text());
        }
        text
    }

    /// Writes what was asked for.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, files: &Files, delays: &Histogram<u64>) -> Outcome<()> {
        let save = |path: &Path, text: String| {
            fs::write(path, text).map_err(|why| format!("{}: {why}", path.display()))
        };
        if let Some(path) = &files.json {
            save(path, serde_json::to_string_pretty(self)? + "\n")?;
        }
        if let Some(path) = &files.hdr {
            save(path, percentiles(delays))?;
        }
        Ok(())
    }
}

impl Trace {
    fn text(&self) -> String {
        let cells = |cells: Vec<String>| {
            let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>14}")).collect();
            cells.concat() + "\n"
        };
        let head = cells(self.columns.iter().map(|name| (*name).to_owned()).collect());
        let lines = self.lines.iter().map(|line| cells(line.iter().copied().map(figure).collect()));
        format!("\n{head}{}", lines.collect::<String>())
    }
}

/// Three digits that say something, more where the number is large.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The text form of HdrHistogram's `outputPercentileDistribution`, in milliseconds.
fn percentiles(delays: &Histogram<u64>) -> String {
    let mut text = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n".to_owned();
    for step in delays.iter_quantiles(5) {
        let (value, quantile) =
            (step.value_iterated_to() as f64 / 1000.0, step.quantile_iterated_to());
        let count = delays.count_between(0, step.value_iterated_to());
        let rest = match quantile < 1.0 {
            true => format!("{:14.2}", 1.0 / (1.0 - quantile)),
            false => String::new(),
        };
        let line = format!("{value:12.3} {quantile:2.12} {count:10} {rest}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let (mean, deviation) = (delays.mean() / 1000.0, delays.stdev() / 1000.0);
    let (max, count) = (delays.max() as f64 / 1000.0, delays.len());
    let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let _ = writeln!(text, "#[Max     = {max:12.3}, Total count    = {count:12}]");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f64]) -> (f64, f64, f64) {
        let row = Row::new("x", "", values.to_vec());
        (row.median, row.min, row.max)
    }

    #[test]
    fn rows_have_median_and_bounds() {
        assert_eq!(row(&[5.0, 1.0, 3.0]), (3.0, 1.0, 5.0));
        assert_eq!(row(&[4.0, 1.0, 3.0, 2.0]), (2.5, 1.0, 4.0));
        assert_eq!(row(&[]), (0.0, 0.0, 0.0));
    }

    #[test]
    fn figures_have_three_digits() {
        let figures = [0.0, 0.4567, 4.567, 45.67, 456.7, 45_670.0].map(figure);
        assert_eq!(figures, ["0", "0.457", "4.57", "45.7", "457", "45670"]);
    }

    #[test]
    fn the_table_shows_every_row_and_note() {
        let report = Report {
            title: "two viewers".to_owned(),
            machine: "a machine".to_owned(),
            rows: vec![Row::new("cost", "CPU-s/GB", vec![0.5, 0.25])],
            notes: vec!["a note".to_owned()],
            trace: None,
        };
        let table = report.table();
        let line = table.lines().find(|line| line.starts_with("cost")).unwrap();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["cost", "0.375", "0.250", "0.500", "CPU-s/GB"]
        );
        assert!(table.starts_with("two viewers\na machine\n") && table.ends_with("\na note\n"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rows"][0]["values"][0], 0.5);
        let trace = Trace { columns: vec!["at s", "viewers"], lines: vec![vec![0.25, 100.0]] };
        let table = Report { trace: Some(trace), ..report }.table();
        assert!(
            table.ends_with(
                "a note\n\n          at s       viewers\n         0.250           100\n"
            )
        );
    }

    #[test]
    fn percentiles_are_in_milliseconds_and_end_with_the_most() {
        let mut delays = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap();
        (1..=1000).for_each(|n| delays.record(n * 1000).unwrap());
        let text = percentiles(&delays);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
            .filter(|row: &Vec<f64>| row.len() >= 3)
            .collect();
        assert!(rows.iter().any(|row| row[1] == 0.5 && (row[0] - 500.0).abs() < 1.0));
        let last = rows.last().unwrap();
        assert!(last[1] == 1.0 && last[2] == 1000.0 && (last[0] - 1000.0).abs() < 1.0, "{last:?}");
    }
}
