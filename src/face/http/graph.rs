//! Who feeds whom in a stream's swarm, and how that went over the last minutes, as JSON: what
//! the watch page draws. There are numbers of viewers in it, never addresses.

use bytes::Bytes;
use serde::Serialize;

use crate::base::time::Now;
use crate::registry::course::{Course, POINTS_APART};

/// `/live/NAME/graph.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Picture {
    /// When it was drawn, Unix milliseconds.
    pub now: u64,
    /// `direct`: the relay sends everything to everybody; `hybrid`: viewers pass it on.
    pub mode: &'static str,
    /// Peers of the stream. There may be fewer in the picture.
    pub peers: u64,
    /// See [`Course::offload`].
    pub offload: Option<f64>,
    /// The last minutes.
    pub course: Curves,
    /// Some or all of the peers. The relay is none of them.
    pub nodes: Vec<Node>,
    /// From whom, to whom, which stripes (a bit each of 8): places in `nodes`, counted from 1; 0
    /// is the relay.
    pub edges: Vec<[u16; 3]>,
}

/// One peer in the picture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name in the picture, the same as long as it is there.
    pub id: String,
    /// How far behind live it plays, as it says.
    pub delay_ms: u16,
    /// What it can send, as it says.
    pub upload_kbit: u32,
}

/// Curves, oldest value first, all of the same length.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Curves {
    /// Milliseconds from one value to the next.
    pub step_ms: u64,
    /// Offload of the minute before.
    pub offload: Vec<Option<f64>>,
    /// Peers.
    pub peers: Vec<u64>,
    /// Mean of the peers' median delays behind live.
    pub delay_p50_ms: Vec<u64>,
    /// The largest of their 99th percentiles.
    pub delay_p99_ms: Vec<u64>,
    /// Mean of their median times from signing to verified.
    pub arrival_p50_ms: Vec<u64>,
}

/// A picture of nobody.
#[must_use]
pub fn none() -> Bytes {
    encode(&Picture { mode: "direct", ..Picture::default() })
}

/// The JSON.
#[must_use]
pub fn encode(picture: &Picture) -> Bytes {
    // Structs of strings and numbers always serialise.
    serde_json::to_vec(picture).map_or_else(|_| Bytes::from_static(b"{}"), Bytes::from)
}

/// A ratio as it is shown: thousandths are enough.
#[must_use]
pub fn ratio(offload: Option<f64>) -> Option<f64> {
    offload.map(|ratio| (ratio * 1_000.0).round() / 1_000.0)
}

impl Curves {
    /// The curves of a course.
    #[must_use]
    pub fn of(course: &Course) -> Curves {
        let column = |of: fn(&crate::registry::course::Reading) -> u64| {
            course.points.iter().map(|point| of(&point.reading)).collect()
        };
        Curves {
            step_ms: u64::try_from(POINTS_APART.as_millis()).unwrap_or(u64::MAX),
            offload: course.points.iter().map(|point| ratio(point.offload)).collect(),
            peers: column(|reading| reading.peers),
            delay_p50_ms: column(|reading| reading.delay_p50_ms),
            delay_p99_ms: column(|reading| reading.delay_p99_ms),
            arrival_p50_ms: column(|reading| reading.arrival_p50_ms),
        }
    }
}

impl Picture {
    /// A picture without anybody in it yet.
    #[must_use]
    pub fn of(now: Now, peers: u64, course: &Course) -> Picture {
        Picture {
            now: now.utc.as_unix_millis(),
            mode: "direct",
            peers,
            offload: ratio(course.offload),
            course: Curves::of(course),
            nodes: Vec::new(),
            edges: Vec::new(),
        }
    }
}
