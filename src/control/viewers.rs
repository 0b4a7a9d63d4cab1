//! The series of a viewer's node: sums over its viewers.

use hdrhistogram::Histogram;

use crate::base::time::Mono;
use crate::control::exposition::{Family, Row};
use crate::peer::figures::Figures;
use crate::swarm::crimes::Crime;

/// All of them.
pub(super) fn families(all: &[Figures]) -> Vec<Family> {
    let sum = |of: &dyn Fn(&Figures) -> f64| all.iter().map(of).sum::<f64>();
    let one = |value: f64| -> Vec<Row> { vec![(Vec::new(), value)] };
    let labelled = |name, value: &str, n: f64| -> Row { (vec![(name, value.to_owned())], n) };
    let playing = sum(&|f| f64::from(u8::from(f.startup.is_some())));
    let mut delay = Histogram::new_from(&Figures::new(Mono::ZERO).delay);
    for figures in all {
        // Equal bounds: adding cannot fail.
        let _ = delay.add(&figures.delay);
    }
    let quantile = |label, part| -> Row {
        labelled("quantile", label, delay.value_at_quantile(part) as f64 / 1e3)
    };
    let bad = Crime::ALL.iter().map(|crime| {
        labelled("kind", crime.label(), sum(&|f| f.counts.crimes[*crime as usize] as f64))
    });
    vec![
        Family::gauge(
            "headwater_peer_viewers",
            "Viewers of this node, by whether they play.",
            vec![
                labelled("state", "playing", playing),
                labelled("state", "waiting", all.len() as f64 - playing),
            ],
        ),
        Family::counter(
            "headwater_peer_bytes",
            "Bytes of the stream, by where they came from.",
            vec![
                labelled("source", "udp", sum(&|f| f.counts.payload as f64)),
                labelled("source", "http", sum(&|f| f.http_bytes as f64)),
            ],
        ),
        Family::gauge(
            "headwater_peer_delay_seconds",
            "How far behind live was played, since the start.",
            vec![quantile("0.5", 0.5), quantile("0.99", 0.99)],
        ),
        Family::counter(
            "headwater_peer_stalls",
            "Times that bytes came too late or not at all.",
            one(sum(&|f| f64::from(f.tally.stalls))),
        ),
        Family::counter(
            "headwater_peer_stall_seconds",
            "Time for which they did, media time of skips included.",
            one(sum(&|f| f.tally.stall_time.as_secs_f64())),
        ),
        Family::counter(
            "headwater_peer_chunks",
            "Chunks that did not come at once, by what became of them.",
            vec![
                labelled("outcome", "lost", sum(&|f| f.counts.lost as f64)),
                labelled("outcome", "repaired", sum(&|f| f.counts.repaired as f64)),
                labelled("outcome", "given_up", sum(&|f| f.given_up as f64)),
                labelled("outcome", "duplicate", sum(&|f| f.counts.duplicates as f64)),
            ],
        ),
        Family::counter(
            "headwater_peer_switches",
            "Changes between UDP and HTTP.",
            one(sum(&|f| f.switches.len().saturating_sub(1) as f64)),
        ),
        Family::counter(
            "headwater_peer_bad",
            "What the other side did wrong, by kind.",
            bad.filter(|(_, count)| *count > 0.0).collect(),
        ),
    ]
}
