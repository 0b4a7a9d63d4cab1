//! The text of `/metrics`.
//!
//! The `prometheus-client` crate writes OpenMetrics. Prometheus asks for that; many tools,
//! `promtool check metrics` among them, still read only the older text format, in which a
//! counter's family carries `_total` in its name. [`Format::Text`] is derived from the same
//! text line by line.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use hdrhistogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode as encode_openmetrics;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry as Families;

use crate::control::{House, swarm, viewers};
use crate::metrics::delay;
use crate::metrics::table::{Kind, Series, TABLE};
use crate::registry::stream::{Proto, Stream};

/// Streams that get a label of their own; the rest are summed under `_other`.
pub(super) const STREAM_LABELS_MAX: usize = 100;

/// Upper bounds of the fan-out delay's buckets in milliseconds.
const BUCKETS_MS: &[f64] =
    &[0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];

/// The two text formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text format 0.0.4.
    Text,
}

impl Format {
    /// The format that a client's `Accept` header asks for.
    #[must_use]
    pub fn for_accept(accept: &str) -> Format {
        match accept.contains("application/openmetrics-text") {
            true => Format::OpenMetrics,
            false => Format::Text,
        }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The exposition of everything.
///
/// # Errors
/// Only if formatting fails, which a `String` never does.
pub fn encode(house: &House, format: Format) -> Result<String, fmt::Error> {
    let mut families = Families::default();
    families.register_collector(Box::new(Snapshot::take(house)));
    let mut text = String::with_capacity(16 * 1024);
    encode_openmetrics(&mut text, &families)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Text => to_text_format(&text),
    })
}

/// Renames counters' families to what their samples are called; drops what 0.0.4 has not.
fn to_text_format(openmetrics: &str) -> String {
    let counters: Vec<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(openmetrics.len() + 1024);
    for line in openmetrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let head = ["# HELP ", "# TYPE "].into_iter().find(|head| line.starts_with(head));
        match head.map(|head| (head, line[head.len()..].split_once(' '))) {
            Some((head, Some((family, rest)))) if counters.contains(&family) => {
                text.extend([head, family, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// One series of a family: its labels and value.
pub(super) type Row = (Vec<(&'static str, String)>, f64);

/// Everything that a scrape shows, read once.
#[derive(Debug)]
struct Snapshot {
    families: Vec<Family>,
    delays: Histogram<u64>,
}

#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    help: &'static str,
    pub(super) counter: bool,
    rows: Vec<Row>,
}

impl Snapshot {
    fn take(house: &House) -> Snapshot {
        let mut families = Vec::new();
        for group in TABLE.chunk_by(|a, b| a.family == b.family) {
            families.push(Family::of(group, house));
        }
        families.extend(process_families(house));
        families.extend(stream_families(house));
        families.extend(swarm::families(&house.registry));
        families.extend(house.viewers.iter().flat_map(|board| viewers::families(&board.read())));
        families.retain(|family| !family.rows.is_empty());
        let delays = delay::merge(house.shelves.iter().map(std::convert::AsRef::as_ref));
        Snapshot { families, delays }
    }
}

impl Family {
    pub(super) fn gauge(name: &'static str, help: &'static str, rows: Vec<Row>) -> Family {
        Family { name, help, counter: false, rows }
    }

    pub(super) fn counter(name: &'static str, help: &'static str, rows: Vec<Row>) -> Family {
        Family { name, help, counter: true, rows }
    }

    fn of(group: &[Series], house: &House) -> Family {
        let mut rows = Vec::new();
        for series in group {
            let nanos = matches!(series.kind, Kind::Seconds | Kind::GaugeSeconds);
            let scale = if nanos { 1e-9 } else { 1.0 };
            let labels: Vec<_> =
                series.labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            let values = house.cells.iter().map(|cells| cells.get(series.cell) as f64 * scale);
            if series.per_shard {
                rows.extend(values.enumerate().map(|(shard, value)| {
                    let mut labels = labels.clone();
                    labels.push(("shard", shard.to_string()));
                    (labels, value)
                }));
            } else {
                rows.push((labels, values.sum()));
            }
        }
        let counter = matches!(group[0].kind, Kind::Counter | Kind::Seconds);
        Family { name: group[0].family, help: group[0].help, counter, rows }
    }
}

fn process_families(house: &House) -> Vec<Family> {
    let arena = house.registry.arena();
    let draining = f64::from(u8::from(house.registry.pulse.load().draining));
    let label = |name, value: &str| (name, value.to_owned());
    let egress = house.registry.admission.egress();
    let rate = |kind, bits: u64| (vec![label("kind", kind)], bits as f64 / 8.0);
    let mut rates = vec![rate("measured", egress.measured()), rate("reckoned", egress.promised())];
    rates.extend(egress.most().map(|most| rate("budget", most)));
    vec![
        Family::gauge(
            "headwater_build_info",
            "The running program; always 1.",
            vec![(vec![label("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        ),
        Family::gauge(
            "headwater_io_driver_info",
            "The I/O driver that runs and why; always 1.",
            vec![(vec![label("driver", house.io_driver), label("reason", &house.io_reason)], 1.0)],
        ),
        Family::gauge("headwater_draining", "Whether the process ends.", vec![(vec![], draining)]),
        Family::gauge(
            "headwater_ring_bytes",
            "Memory of the rings: the whole arena, what is promised to streams, what is filled.",
            vec![
                (vec![label("state", "arena")], arena.bytes() as f64),
                (vec![label("state", "reserved")], arena.reserved() as f64),
                (vec![label("state", "in_use")], arena.in_use() as f64),
            ],
        ),
        Family::gauge(
            "headwater_swarm_egress_bytes_per_second",
            "What goes out to peers with headers, what all of them are reckoned at, the budget.",
            rates,
        ),
    ]
}

/// Per stream, with a bounded number of labels: names are chosen by publishers.
fn stream_families(house: &House) -> Vec<Family> {
    let directory = house.registry.directory();
    let now = house.clock.now();
    let rows = |value: &dyn Fn(&Stream) -> f64| {
        let mut rows: Vec<Row> = Vec::new();
        for (index, stream) in directory.iter().enumerate() {
            let label = if index < STREAM_LABELS_MAX { stream.name.as_str() } else { "_other" };
            if index > STREAM_LABELS_MAX {
                rows[STREAM_LABELS_MAX].1 += value(stream);
                continue;
            }
            rows.push((vec![("stream", label.to_owned())], value(stream)));
        }
        rows
    };
    let edge = |stream: &Stream| {
        let behind = now.mono.since(stream.window.last_ingest());
        (now.utc.as_unix_millis() as f64 / 1e3) - behind.as_secs_f64()
    };
    let mut edges = rows(&edge);
    edges.truncate(STREAM_LABELS_MAX);
    // Only ways that a stream has come in.
    let ingest = Proto::ALL.iter().flat_map(|proto| {
        let mut rows = rows(&|s| s.ingest_bytes(*proto) as f64);
        rows.retain(|(_, bytes)| *bytes > 0.0);
        rows.iter_mut().for_each(|row| row.0.push(("proto", proto.as_str().to_owned())));
        rows
    });
    let ingest = ingest.collect();
    vec![
        Family::counter("headwater_ingest_bytes", "Bytes that came from publishers.", ingest),
        Family::counter(
            "headwater_ingest_discontinuities",
            "Breaks after which a stream's numbers went on.",
            rows(&|s| s.discontinuities.load(Relaxed) as f64),
        ),
        Family::counter(
            "headwater_ingest_continuity_errors",
            "Packets missing or repeated in what publishers sent.",
            rows(&|s| s.health().continuity_errors as f64),
        ),
        Family::gauge(
            "headwater_stream_viewers",
            "Viewers of a stream.",
            rows(&|s| s.viewers() as f64),
        ),
        Family::gauge(
            "headwater_live_edge_timestamp_seconds",
            "When a stream's newest byte came in, Unix time.",
            edges,
        ),
    ]
}

/// Labels of one row, in the form that the encoder takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Labels<'a>(&'a [(&'static str, String)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, value) in self.0 {
            (*name, value.as_str()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.families {
            let kind = if family.counter { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.rows {
                if labels.is_empty() {
                    encode_value(family.counter, *value, &mut metric)?;
                } else {
                    let labels = Labels(labels);
                    let mut member = metric.encode_family(&labels)?;
                    encode_value(family.counter, *value, &mut member)?;
                }
            }
        }
        let mut metric = encoder.encode_descriptor(
            "headwater_chunk_fanout_duration_seconds",
            "From ingest to the kernel's acceptance for a viewer that had caught up.",
            None,
            MetricType::Histogram,
        )?;
        let (sum, buckets) = buckets(&self.delays);
        metric.encode_histogram::<NoLabelSet>(sum, self.delays.len(), &buckets, None)
    }
}

fn encode_value(
    counter: bool,
    value: f64,
    metric: &mut MetricEncoder<'_>,
) -> Result<(), fmt::Error> {
    match counter {
        true => metric.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        false => metric.encode_gauge(&value),
    }
}

/// Sum in seconds and counts per bucket, the last one being everything beyond the bounds.
fn buckets(delays: &Histogram<u64>) -> (f64, Vec<(f64, u64)>) {
    let mut counts = vec![0u64; BUCKETS_MS.len() + 1];
    let mut micros = 0.0;
    for step in delays.iter_recorded() {
        let value = step.value_iterated_to() as f64;
        let count = step.count_since_last_iteration();
        micros += value * count as f64;
        counts[BUCKETS_MS.partition_point(|bound| bound * 1e3 < value)] += count;
    }
    let bounds = BUCKETS_MS.iter().map(|ms| ms / 1e3).chain([f64::INFINITY]);
    (micros / 1e6, bounds.zip(counts).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_format_names_counters_as_their_samples() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"1\"} 2\n\
                    # HELP g Level.\n# TYPE g gauge\ng 3\n# EOF\n";
        let text = "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 2\n\
                    # HELP g Level.\n# TYPE g gauge\ng 3\n";
        assert_eq!(to_text_format(open), text);
    }

    #[test]
    fn every_delay_is_in_exactly_one_bucket() {
        let mut delays = Histogram::new_with_bounds(1, 300_000_000, 3).unwrap();
        for micros in [100, 500, 501, 9_000_000] {
            delays.record(micros).unwrap();
        }
        let (sum, buckets) = buckets(&delays);
        assert_eq!(buckets[0], (0.0005, 2));
        assert_eq!(buckets[1], (0.001, 1));
        assert_eq!(buckets.last().unwrap().1, 1);
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 4);
        assert!((sum - 9.0011).abs() < 0.02, "{sum}");
    }
}
