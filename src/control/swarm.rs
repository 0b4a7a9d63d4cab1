//! The series of streams' swarms. Streams that never had a peer have none.

use crate::control::exposition::{Family, Row, STREAM_LABELS_MAX};
use crate::face::http::status::{self, Swarm};
use crate::registry::streams::Registry;

/// Sums of what streams without a label of their own have.
const OTHER: &str = "_other";

/// The swarms that are shown.
struct Swarms(Vec<(String, Swarm)>);

/// All families.
pub(super) fn families(registry: &Registry) -> Vec<Family> {
    let directory = registry.directory();
    let all = directory.iter().map(|stream| (stream.name.to_string(), status::swarm(stream)));
    let swarms = Swarms(all.filter(|(_, swarm)| swarm.peers > 0 || swarm.bytes > 0).collect());
    let mut families = swarms.gauges();
    families.extend(swarms.counters());
    families
}

impl Swarms {
    /// One row for each stream; beyond [`STREAM_LABELS_MAX`] one for all others together.
    fn sums(&self, labels: &[(&'static str, &str)], of: impl Fn(&Swarm) -> u64) -> Vec<Row> {
        let (own, others) = self.0.split_at(self.0.len().min(STREAM_LABELS_MAX));
        let row = |name: &str, value: u64| -> Row {
            let labels = labels.iter().map(|(label, value)| (*label, (*value).to_owned()));
            ([("stream", name.to_owned())].into_iter().chain(labels).collect(), value as f64)
        };
        let mut rows: Vec<Row> = own.iter().map(|(name, swarm)| row(name, of(swarm))).collect();
        if !others.is_empty() {
            rows.push(row(OTHER, others.iter().map(|(_, swarm)| of(swarm)).sum()));
        }
        rows
    }

    /// The same for what cannot be summed: nothing for the others.
    fn each(
        &self,
        labels: &[(&'static str, &str)],
        of: impl Fn(&Swarm) -> Option<f64>,
    ) -> Vec<Row> {
        let own = self.0.iter().take(STREAM_LABELS_MAX);
        own.filter_map(|(name, swarm)| {
            let labels = labels.iter().map(|(label, value)| (*label, (*value).to_owned()));
            let labels = [("stream", name.clone())].into_iter().chain(labels).collect();
            Some((labels, of(swarm)?))
        })
        .collect()
    }

    /// Delays at two places of a distribution, in milliseconds.
    fn delays(&self, of: impl Fn(&Swarm) -> [u64; 2]) -> Vec<Row> {
        let seconds = |place: usize| {
            let of = &of;
            move |swarm: &Swarm| (swarm.peers > 0).then(|| of(swarm)[place] as f64 / 1e3)
        };
        let mut rows = self.each(&[("stat", "p50_mean")], seconds(0));
        rows.extend(self.each(&[("stat", "p99_max")], seconds(1)));
        rows
    }

    fn gauges(&self) -> Vec<Family> {
        let mode = |word: &'static str| {
            self.each(&[("mode", word)], move |s| Some(f64::from(u8::from(s.mode == word))))
        };
        vec![
            Family::gauge(
                "headwater_stream_peers",
                "Peers of a stream; its viewers over HTTP are counted elsewhere.",
                self.sums(&[], |s| s.peers),
            ),
            Family::gauge(
                "headwater_stream_offload_ratio",
                "Part of what peers played that did not cost the relay, last 60 s; below 0 if it \
                 sent more than was played.",
                self.each(&[], |s| s.offload),
            ),
            Family::gauge(
                "headwater_stream_swarm_mode",
                "How peers get a stream: 1 for the mode that it is in.",
                mode("direct").into_iter().chain(mode("hybrid")).collect(),
            ),
            Family::gauge(
                "headwater_stream_swarm_pushes",
                "In hybrid mode, by plan: the most peers that a stripe is pushed to, and peers \
                 that get a stripe or more from the relay.",
                [
                    self.sums(&[("kind", "copies")], |s| s.copies),
                    self.sums(&[("kind", "seeds")], |s| s.seeds),
                ]
                .concat(),
            ),
            Family::gauge(
                "headwater_stream_peer_delay_seconds",
                "How far behind live peers play, as they say, last 10 s: mean of their medians, \
                 largest of their 99th percentiles.",
                self.delays(|s| [s.delay_p50_ms, s.delay_p99_ms]),
            ),
            Family::gauge(
                "headwater_stream_peer_arrival_seconds",
                "Time from signing to verified at peers, as they say, last 10 s: mean of their \
                 medians, largest of their 99th percentiles.",
                self.delays(|s| [s.arrival_p50_ms, s.arrival_p99_ms]),
            ),
        ]
    }

    fn counters(&self) -> Vec<Family> {
        let told = |source, of: fn(&Swarm) -> u64| self.sums(&[("source", source)], of);
        let sent = |kind, of: fn(&Swarm) -> u64| self.sums(&[("kind", kind)], of);
        let stalled = self.each(&[], |s| Some(s.stall_ms as f64 / 1e3));
        vec![
            Family::counter(
                "headwater_stream_swarm_sent_bytes",
                "UDP payload sent to a stream's peers: chunks unasked, chunks asked for, hashes, \
                 everything else.",
                [
                    sent("push", |s| s.push_bytes),
                    sent("rescue", |s| s.rescue_bytes),
                    sent("hash", |s| s.hash_bytes),
                    sent("control", |s| {
                        s.bytes.saturating_sub(s.push_bytes + s.rescue_bytes + s.hash_bytes)
                    }),
                ]
                .concat(),
            ),
            Family::counter(
                "headwater_stream_swarm_mode_switches",
                "How often the mode of a stream's swarm was changed.",
                self.sums(&[], |s| s.switches),
            ),
            Family::counter(
                "headwater_stream_swarm_complaints_forgotten",
                "Complaints of peers about who should feed them that were forgotten because of \
                 newer ones.",
                self.sums(&[], |s| s.complaints_forgotten),
            ),
            Family::counter(
                "headwater_stream_peer_bytes",
                "Bytes of the stream that peers got, each once, as they say, by who sent them.",
                [told("relay", |s| s.relay_bytes), told("peer", |s| s.peer_bytes)].concat(),
            ),
            Family::counter(
                "headwater_stream_peer_sent_bytes",
                "Bytes of the stream that peers sent each other, as they say.",
                self.sums(&[], |s| s.sent_bytes),
            ),
            Family::counter(
                "headwater_stream_peer_stalls",
                "Stalls of peers, as they say.",
                self.sums(&[], |s| s.stalls),
            ),
            Family::counter(
                "headwater_stream_peer_stall_seconds",
                "Time for which peers stalled, as they say.",
                stalled,
            ),
            Family::counter(
                "headwater_stream_rescued_chunks",
                "Chunks that peers asked the relay for because their turn was near, as they say.",
                self.sums(&[], |s| s.rescues),
            ),
            Family::counter(
                "headwater_stream_duplicate_chunks",
                "Chunks that came to peers more than once, as they say.",
                self.sums(&[], |s| s.duplicates),
            ),
            Family::counter(
                "headwater_stream_bad_chunks",
                "What came to peers and was not what was signed, as they say.",
                self.sums(&[], |s| s.bad),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_names_every_series() {
        let manual = include_str!("../../README.md");
        let swarms = Swarms(Vec::new());
        for family in swarms.gauges().iter().chain(&swarms.counters()) {
            let end = if family.counter { "_total" } else { "" };
            assert!(manual.contains(&format!("`{}{end}", family.name)), "{}", family.name);
        }
    }

    #[test]
    fn streams_without_a_label_are_summed_and_ratios_are_not() {
        let swarm = |n: u64| Swarm {
            peers: n,
            bytes: n * 10,
            offload: (n > 1).then_some(0.5),
            ..Swarm::default()
        };
        let swarms = Swarms((0..105).map(|n| (format!("s{n}"), swarm(n))).collect());
        let rows = swarms.sums(&[("kind", "x")], |s| s.bytes);
        assert_eq!(rows.len(), STREAM_LABELS_MAX + 1);
        let labels = |name: &str| vec![("stream", name.to_owned()), ("kind", "x".to_owned())];
        assert_eq!(rows[7], (labels("s7"), 70.0));
        assert_eq!(rows[STREAM_LABELS_MAX], (labels(OTHER), 5_100.0));
        let ratios = swarms.each(&[], |s| s.offload);
        assert_eq!(ratios.len(), STREAM_LABELS_MAX - 2, "nothing where nothing was played");
        assert_eq!(ratios[0], (vec![("stream", "s2".to_owned())], 0.5));
    }
}
