//! What pages and the API say of a stream, as JSON.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use crate::base::time::Now;
use crate::face::http::graph::{mode, ratio};
use crate::media::health::Health;
use crate::registry::course::Reading;
use crate::registry::pulse::Pulse;
use crate::registry::stream::{Proto, State, Stream};
use crate::registry::streams::Registry;
use crate::swarm::crimes::Crime;

/// All streams: `/streams.json` and, with more detail, the API of the control listener.
#[derive(Clone, Debug, Serialize)]
pub struct Streams {
    /// Wall-clock time of the answer, Unix milliseconds.
    pub now: u64,
    /// The program's version.
    pub version: &'static str,
    /// One entry per stream that is live or held.
    pub streams: Vec<Status>,
}

/// One stream: `/live/NAME/status.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The name.
    pub name: String,
    /// `live`, or `held` while the publisher is away.
    pub state: &'static str,
    /// How it comes in: `http`, `tcp`, `udp` or `rtp`.
    pub proto: &'static str,
    /// When it went live, Unix milliseconds.
    pub since: u64,
    /// Viewers now.
    pub viewers: u64,
    /// What the publisher sends.
    #[serde(flatten)]
    pub health: Health,
    /// Times that packet alignment was lost.
    pub resyncs: u64,
    /// Breaks after which the numbers went on.
    pub discontinuities: u64,
    /// How much is in memory, milliseconds.
    pub window_ms: u64,
    /// Stream offset of the newest byte.
    pub head: u64,
    /// Delay between ingest and the kernel's acceptance for viewers, all streams, last 10 s.
    pub delay_p50_ms: f64,
    /// The same, 99th percentile.
    pub delay_p99_ms: f64,
    /// Bytes from the publisher.
    pub ingest_bytes: u64,
    /// Bytes to viewers.
    pub egress_bytes: u64,
    /// Peers, and what they say.
    pub swarm: Swarm,
}

/// The peers of one stream.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Swarm {
    /// The stream's name in the swarm, hexadecimal; absent until it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `direct`: the relay sends everything to everybody; `hybrid`: peers pass it on.
    pub mode: &'static str,
    /// Peers served now.
    pub peers: u64,
    /// Share of what peers played that did not cost the relay, over the last minute; `null` if
    /// nothing was played.
    pub offload: Option<f64>,
    /// UDP payload sent to them: what follows, and control.
    pub bytes: u64,
    /// With chunks that they did not ask for.
    pub push_bytes: u64,
    /// With chunks that they asked for.
    pub rescue_bytes: u64,
    /// With hashes and signatures.
    pub hash_bytes: u64,
    /// The most peers that a stripe is pushed to by plan; 0 in direct mode.
    pub copies: u64,
    /// Peers that are to get a stripe or more from the relay, by plan; 0 in direct mode.
    pub seeds: u64,
    /// How often the mode was changed.
    pub switches: u64,
    /// Complaints of peers about who should feed them that were forgotten because of newer ones.
    pub complaints_forgotten: u64,
    /// Bytes that they say they got from the relay.
    pub relay_bytes: u64,
    /// Bytes that they got from each other.
    pub peer_bytes: u64,
    /// Bytes that they sent each other.
    pub sent_bytes: u64,
    /// Mean of their median delays behind live in milliseconds.
    pub delay_p50_ms: u64,
    /// The largest of their 99th percentiles.
    pub delay_p99_ms: u64,
    /// The same of the time from signing to verified there.
    pub arrival_p50_ms: u64,
    /// The largest of their 99th percentiles of that.
    pub arrival_p99_ms: u64,
    /// Stalls.
    pub stalls: u64,
    /// Time stalled in milliseconds.
    pub stall_ms: u64,
    /// Chunks that they asked the relay for because their deadline was near.
    pub rescues: u64,
    /// Chunks that were not what was signed.
    pub bad: u64,
    /// Chunks that came to them more than once.
    pub duplicates: u64,
    /// What peers did to the relay that no honest one does, by name; only what happened.
    pub crimes: BTreeMap<&'static str, u64>,
}

impl Swarm {
    /// What the course of the last minutes is made of.
    #[must_use]
    pub fn reading(&self) -> Reading {
        Reading {
            sent: self.bytes,
            played: self.relay_bytes + self.peer_bytes,
            peers: self.peers,
            delay_p50_ms: self.delay_p50_ms,
            delay_p99_ms: self.delay_p99_ms,
            arrival_p50_ms: self.arrival_p50_ms,
        }
    }
}

/// The status of every stream.
#[must_use]
pub fn streams(registry: &Registry, now: Now) -> Streams {
    let pulse = registry.pulse.load();
    Streams {
        now: now.utc.as_unix_millis(),
        version: env!("CARGO_PKG_VERSION"),
        streams: registry.directory().iter().map(|s| status(s, &pulse, now)).collect(),
    }
}

/// The status of one stream.
#[must_use]
pub fn status(stream: &Stream, pulse: &Pulse, now: Now) -> Status {
    let window = &stream.window;
    let oldest = window.ingest_time(window.tail()).unwrap_or(now.mono);
    Status {
        name: stream.name.to_string(),
        state: match stream.state() {
            State::Live => "live",
            State::Held => "held",
        },
        proto: stream.proto().as_str(),
        since: stream.since.as_unix_millis(),
        viewers: stream.viewers(),
        health: Health::clone(&stream.health()),
        resyncs: stream.resyncs.load(Relaxed),
        discontinuities: stream.discontinuities.load(Relaxed),
        window_ms: u64::try_from(now.mono.since(oldest).as_millis()).unwrap_or(u64::MAX),
        head: window.head(),
        delay_p50_ms: pulse.delay_p50_ms,
        delay_p99_ms: pulse.delay_p99_ms,
        ingest_bytes: Proto::ALL.iter().map(|proto| stream.ingest_bytes(*proto)).sum(),
        egress_bytes: stream.egress_bytes(),
        swarm: swarm(stream),
    }
}

/// The peers of a stream.
#[must_use]
pub fn swarm(stream: &Stream) -> Swarm {
    let mut all =
        Swarm { id: stream.identity().map(|id| id.swarm_id.to_string()), ..Swarm::default() };
    let (mut medians, mut arrivals, mut reporting) = (0, 0, 0);
    for share in stream.shares() {
        let told = &share.told;
        all.peers += u64::from(share.peers.load(Relaxed));
        all.seeds += u64::from(share.seeds.load(Relaxed));
        for (sum, figure) in [
            (&mut all.bytes, &share.swarm_bytes),
            (&mut all.push_bytes, &share.push_bytes),
            (&mut all.rescue_bytes, &share.rescue_bytes),
            (&mut all.hash_bytes, &share.hash_bytes),
            (&mut all.relay_bytes, &told.relay_bytes),
            (&mut all.peer_bytes, &told.peer_bytes),
            (&mut all.sent_bytes, &told.sent_bytes),
            (&mut all.stalls, &told.stalls),
            (&mut all.stall_ms, &told.stall_ms),
            (&mut all.rescues, &told.rescues),
            (&mut all.bad, &told.bad),
            (&mut all.duplicates, &told.duplicates),
            (&mut medians, &share.delay_p50_ms_sum),
            (&mut arrivals, &share.arrival_p50_ms_sum),
        ] {
            *sum += figure.load(Relaxed);
        }
        reporting += u64::from(share.reporting.load(Relaxed));
        all.delay_p99_ms = all.delay_p99_ms.max(share.delay_p99_ms_max.load(Relaxed).into());
        all.arrival_p99_ms = all.arrival_p99_ms.max(share.arrival_p99_ms_max.load(Relaxed).into());
    }
    all.mode = mode(stream.swarm.hybrid.load(Relaxed));
    all.copies = stream.swarm.copies.load(Relaxed).into();
    all.switches = stream.swarm.switches.load(Relaxed);
    all.complaints_forgotten = stream.swarm.forgotten.load(Relaxed);
    all.offload = ratio(stream.course.load().offload);
    for crime in Crime::ALL {
        let count = stream.shares().map(|share| share.crimes[crime as usize].load(Relaxed)).sum();
        if count > 0 {
            all.crimes.insert(crime.label(), count);
        }
    }
    all.delay_p50_ms = medians.checked_div(reporting).unwrap_or(0);
    all.arrival_p50_ms = arrivals.checked_div(reporting).unwrap_or(0);
    all
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::base::ids::ShardId;
    use crate::base::limits::SLAB_LARGE;
    use crate::base::time::{Mono, Utc};
    use crate::registry::settings::{Limits, Settings};
    use crate::registry::streams::Claim;
    use crate::ring::arena::Arena;

    fn stream() -> Arc<Stream> {
        let all = 9;
        let limits = Limits {
            viewers: all,
            connections: all,
            per_address: all,
            exempt: Vec::new(),
            peers: all,
            egress: None,
        };
        let settings = Settings {
            max_streams: 1,
            window: Duration::from_secs(60),
            window_bytes: 2 * SLAB_LARGE as u64,
            linger: Duration::from_secs(30),
            keys: Vec::new(),
            limits,
        };
        let registry = Registry::new(settings, Arena::create(4 * SLAB_LARGE as u64).unwrap(), 2);
        let (name, here) = ("demo".parse().unwrap(), [127, 0, 0, 1].into());
        let key = registry.authorise(None, &name, here, true).unwrap();
        let now = Now { mono: Mono::ZERO, utc: Utc::default() };
        let Claim::Granted(lease) = registry.claim(&name, key, ShardId(0), now) else { panic!() };
        lease.stream
    }

    #[test]
    fn a_swarm_is_summed_over_shards_and_told_by_kind_and_cause() {
        let stream = stream();
        for (shard, n) in [(ShardId(0), 1), (ShardId(1), 2)] {
            let share = stream.share(shard);
            share.peers.store(10 * n, Relaxed);
            share.reporting.store(n, Relaxed);
            share.seeds.store(n, Relaxed);
            for (figure, value) in [
                (&share.swarm_bytes, 1_000),
                (&share.push_bytes, 600),
                (&share.rescue_bytes, 100),
                (&share.hash_bytes, 200),
                (&share.told.relay_bytes, 500),
                (&share.told.peer_bytes, 9_500),
                (&share.told.duplicates, 3),
                (&share.delay_p50_ms_sum, 1_500),
                (&share.arrival_p50_ms_sum, 150),
                (&share.crimes[Crime::Malformed as usize], 1),
            ] {
                figure.store(value * u64::from(n), Relaxed);
            }
            share.delay_p99_ms_max.store(1_600 + n, Relaxed);
        }
        stream.swarm.hybrid.store(true, Relaxed);
        let seen = swarm(&stream);
        assert_eq!((seen.mode, seen.peers, seen.bytes), ("hybrid", 30, 3_000));
        assert_eq!((seen.push_bytes, seen.rescue_bytes, seen.hash_bytes), (1_800, 300, 600));
        assert_eq!((seen.seeds, seen.duplicates), (3, 9));
        assert_eq!(
            (seen.delay_p50_ms, seen.delay_p99_ms, seen.arrival_p50_ms),
            (1_500, 1_602, 150)
        );
        assert_eq!(seen.reading().played, 30_000);
        let json = serde_json::to_string(&seen).unwrap();
        for part in [r#""offload":null"#, r#""rescue_bytes":300"#, r#""crimes":{"malformed":3}"#] {
            assert!(json.contains(part), "{part} in {json}");
        }
    }
}
