//! Who feeds this viewer and whom it feeds, for its own page: what the relay's page shows of all.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::base::time::Now;
use crate::face::http::graph::{self, Curves, Node, Picture};
use crate::peer::figures::{Figures, Source};
use crate::registry::course::{Course, Reading};
use crate::registry::graph::PEERS_MAX;
use crate::registry::streams::Registry;

/// Stripes of a stream, all of them.
const ALL: u8 = 0xff;

/// Makes names of addresses.
#[derive(Default)]
pub(super) struct Painter(RandomState);

impl Painter {
    /// Draws the viewer with these figures, if its stream is there.
    pub(super) fn draw(&self, now: Now, registry: &Registry, figures: &Figures) {
        let directory = registry.directory();
        let Some(stream) = directory.iter().next() else { return };
        let course = stream.course.load().next(now.mono, reading(figures));
        let picture = self.picture(now, figures, &course);
        stream.course.store(Arc::new(course));
        stream.picture.store(Arc::new(graph::encode(&picture)));
    }

    fn picture(&self, now: Now, figures: &Figures, course: &Course) -> Picture {
        let sharing = &figures.sharing;
        let you = Node {
            id: "you".to_owned(),
            delay_ms: figures.recent().0,
            upload_kbit: sharing.upload_kbit,
        };
        let (mut nodes, mut edges, mut fed) = (vec![you], Vec::new(), 0);
        let neighbours = sharing.neighbours.iter().take(PEERS_MAX - 1);
        for (place, neighbour) in (2..).zip(neighbours) {
            // Never the address, also here: the page may be open to others.
            let id = format!("{:08x}", self.0.hash_one(neighbour.address) >> 32);
            nodes.push(Node { id, ..Node::default() });
            fed |= neighbour.stripes_in;
            for (from, to, stripes) in
                [(place, 1, neighbour.stripes_in), (1, place, neighbour.stripes_out)]
            {
                if stripes != 0 {
                    edges.push([from, to, stripes.into()]);
                }
            }
        }
        // What nobody else feeds, the relay does, by its promise.
        if figures.source == Some(Source::Udp) && fed != ALL {
            edges.push([0, 1, (ALL & !fed).into()]);
        }
        Picture {
            now: now.utc.as_unix_millis(),
            mode: if fed == 0 { "direct" } else { "hybrid" },
            peers: nodes.len() as u64,
            offload: graph::ratio(course.offload),
            course: Curves::of(course),
            nodes,
            edges,
        }
    }
}

fn reading(figures: &Figures) -> Reading {
    let sharing = &figures.sharing;
    let (delay_p50_ms, delay_p99_ms) = figures.recent();
    Reading {
        sent: sharing.relay_bytes,
        played: sharing.relay_bytes + sharing.peer_bytes,
        peers: sharing.neighbours.len() as u64 + 1,
        delay_p50_ms: delay_p50_ms.into(),
        delay_p99_ms: delay_p99_ms.into(),
        arrival_p50_ms: figures.recent_arrivals().0.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::time::{Mono, Utc};
    use crate::peer::figures::Neighbour;

    #[test]
    fn neighbours_are_drawn_around_you_without_their_addresses() {
        let neighbour = |n: u8, stripes_in, stripes_out| Neighbour {
            address: ([192, 0, 2, n], 9).into(),
            stripes_in,
            stripes_out,
            in_bytes: 0,
            out_bytes: 0,
            rtt: Duration::ZERO,
        };
        let mut figures = Figures::new(Mono::ZERO);
        figures.source = Some(Source::Udp);
        figures.sharing.neighbours = vec![neighbour(1, 0x0f, 0), neighbour(2, 0x70, 0x01)];
        let now = Now { mono: Mono::ZERO, utc: Utc::from_unix_millis(0) };
        let picture = Painter::default().picture(now, &figures, &Course::default());
        assert_eq!(picture.edges, [[2, 1, 0x0f], [3, 1, 0x70], [1, 3, 0x01], [0, 1, 0x80]]);
        assert_eq!((picture.mode, picture.peers, picture.nodes.len()), ("hybrid", 3, 3));
        let json = graph::encode(&picture);
        assert!(!String::from_utf8_lossy(&json).contains("192.0.2"));
        figures.sharing.neighbours.clear();
        let picture = Painter::default().picture(now, &figures, &Course::default());
        assert_eq!((picture.mode, &picture.edges[..]), ("direct", &[[0, 1, 0xff]][..]));
    }
}
