//! Who feeds whom in a stream's swarm, and how that went over the last minutes, as JSON: what
//! the watch page draws. There are numbers of viewers in it, never addresses.

use bytes::Bytes;
use serde::Serialize;

use crate::base::time::Now;
use crate::registry::course::{Course, POINTS_APART, Reading};
use crate::registry::graph::{Graph, GraphPeer, PEERS_MAX};
use crate::registry::stream::Stream;

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

/// The newest picture of a stream; of nobody if there is none yet.
#[must_use]
pub fn drawn(stream: &Stream) -> Bytes {
    let drawn = stream.picture.load();
    match drawn.is_empty() {
        true => encode(&Picture { mode: "direct", ..Picture::default() }),
        false => Bytes::clone(&drawn),
    }
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
        let column = |of: fn(&Reading) -> u64| {
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
    /// A stream's swarm: who is in it as last drawn, and how it went.
    #[must_use]
    pub fn of(now: Now, peers: u64, course: &Course, graph: &Graph) -> Picture {
        // In the order of their names, so that everybody stays in place from picture to picture.
        let mut sample: Vec<&GraphPeer> = graph.peers.iter().take(PEERS_MAX).collect();
        sample.sort_unstable_by_key(|peer| peer.id);
        let mut edges = Vec::new();
        for (to, peer) in (1..).zip(&sample) {
            if peer.relay_stripes != 0 {
                edges.push([0, to, peer.relay_stripes.into()]);
            }
            for (id, stripes) in peer.links.iter().filter(|(_, stripes)| *stripes != 0) {
                if let Ok(from) = sample.binary_search_by_key(id, |peer| peer.id)
                    && let Ok(from) = u16::try_from(from + 1)
                {
                    edges.push([from, to, (*stripes).into()]);
                }
            }
        }
        let node = |peer: &&GraphPeer| Node {
            id: format!("{:08x}", peer.id),
            delay_ms: peer.delay_ms,
            upload_kbit: peer.upload_kbit,
        };
        Picture {
            now: now.utc.as_unix_millis(),
            mode: mode(graph.hybrid),
            peers,
            offload: ratio(course.offload),
            course: Curves::of(course),
            nodes: sample.iter().map(node).collect(),
            edges,
        }
    }
}

/// The word for how a stream's peers get it now.
#[must_use]
pub fn mode(hybrid: bool) -> &'static str {
    if hybrid { "hybrid" } else { "direct" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::{Mono, Utc};

    #[test]
    fn a_picture_has_everybody_in_place_and_no_address() {
        let peer = |id, relay_stripes, links: &[(u32, u8)]| GraphPeer {
            id,
            relay_stripes,
            links: links.to_vec(),
            upload_kbit: 3_000,
            delay_ms: 1_500,
        };
        let graph = Graph {
            hybrid: true,
            all: 3,
            // One link carries nothing, one comes from somebody who is not in the sample.
            peers: vec![
                peer(0xbb, 0, &[(0xaa, 0x0f), (0xcc, 0), (0xdd, 0xf0)]),
                peer(0xaa, 0xff, &[(0xbb, 0)]),
                peer(0xcc, 0x01, &[(0xbb, 0xfe)]),
            ],
            ..Graph::default()
        };
        let mut course = Course::default();
        for second in 0..3 {
            let reading =
                Reading { sent: second, played: second * 8, peers: 3, ..Reading::default() };
            course = course.next(Mono::from_millis(second * 1_000), reading);
        }
        let now = Now { mono: Mono::from_millis(3_000), utc: Utc::from_unix_millis(77) };
        let json = encode(&Picture::of(now, 3, &course, &graph));
        let text = std::str::from_utf8(&json).unwrap();
        let edges = "\"edges\":[[0,1,255],[1,2,15],[0,3,1],[2,3,254]]";
        for part in [
            "{\"now\":77,\"mode\":\"hybrid\",\"peers\":3,\"offload\":0.875,",
            "\"step_ms\":2000,\"offload\":[null,0.875],\"peers\":[3,3]",
            "{\"id\":\"000000bb\",\"delay_ms\":1500,\"upload_kbit\":3000}",
            edges,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn the_largest_picture_is_small_enough_for_once_a_second() {
        let links: Vec<(u32, u8)> = (0..16).map(|n| (n * 16, 0xff)).collect();
        let peer = |id| GraphPeer {
            id,
            relay_stripes: 0xff,
            links: links.clone(),
            ..GraphPeer::default()
        };
        let graph = Graph { peers: (0..300).map(peer).collect(), ..Graph::default() };
        let now = Now { mono: Mono::ZERO, utc: Utc::from_unix_millis(0) };
        let picture = Picture::of(now, 300, &Course::default(), &graph);
        assert_eq!((picture.nodes.len(), picture.edges.len()), (PEERS_MAX, PEERS_MAX * 17));
        assert!(encode(&picture).len() < 100_000);
    }
}
