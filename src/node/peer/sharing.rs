//! What a viewer got from others and gave to them, as the report tells it.

use std::net::SocketAddr;

use serde::Serialize;
use tracing::{info, warn};

use crate::peer::figures::{self, Figures};

#[derive(Debug, Serialize)]
struct Neighbour {
    address: SocketAddr,
    /// Stripes are bits: the stripe i is 1 << i.
    stripes_in: u8,
    stripes_out: u8,
    in_bytes: u64,
    out_bytes: u64,
    rtt_ms: f64,
}

#[derive(Debug, Serialize)]
struct Dropped {
    address: SocketAddr,
    why: &'static str,
}

/// The block `sharing` of one viewer.
#[derive(Debug, Serialize)]
pub(super) struct Sharing {
    relay_bytes: u64,
    peer_bytes: u64,
    /// Those of `peer_bytes` that nobody asked for.
    pushed_bytes: u64,
    sent_bytes: u64,
    control_in: u64,
    control_out: u64,
    integrity_in: u64,
    integrity_out: u64,
    duplicates: u64,
    grafts: u64,
    prunes: u64,
    rescues: u64,
    introduced: u64,
    opened: u64,
    idle_ended: u64,
    unreachable: u64,
    upload_kbit: u32,
    room_kbit: u32,
    addresses_forgotten: u64,
    questions_forgotten: u64,
    news_forgotten: u64,
    tracks_forgotten: u64,
    dropped_all: u64,
    dropped: Vec<Dropped>,
    neighbours: Vec<Neighbour>,
}

impl Sharing {
    pub(super) fn new(of: &figures::Sharing) -> Sharing {
        let dropped = of.dropped.iter().map(|&(address, why)| Dropped { address, why });
        let neighbours = of.neighbours.iter().map(|one| Neighbour {
            address: one.address,
            stripes_in: one.stripes_in,
            stripes_out: one.stripes_out,
            in_bytes: one.in_bytes,
            out_bytes: one.out_bytes,
            rtt_ms: one.rtt.as_secs_f64() * 1e3,
        });
        Sharing {
            relay_bytes: of.relay_bytes,
            peer_bytes: of.peer_bytes,
            pushed_bytes: of.pushed_bytes,
            sent_bytes: of.sent_bytes,
            control_in: of.control_in,
            control_out: of.control_out,
            integrity_in: of.integrity_in,
            integrity_out: of.integrity_out,
            duplicates: of.duplicates,
            grafts: of.grafts,
            prunes: of.prunes,
            rescues: of.rescues,
            introduced: of.introduced,
            opened: of.opened,
            idle_ended: of.idle_ended,
            unreachable: of.unreachable,
            upload_kbit: of.upload_kbit,
            room_kbit: of.room_kbit,
            addresses_forgotten: of.addresses_forgotten,
            questions_forgotten: of.questions_forgotten,
            news_forgotten: of.news_forgotten,
            tracks_forgotten: of.tracks_forgotten,
            dropped_all: of.dropped_all,
            dropped: dropped.collect(),
            neighbours: neighbours.collect(),
        }
    }
}

/// The share of the bytes that others than the relay brought, in per cent, and how many others
/// there are; `None` while nobody has any.
pub(super) fn share(all: &[Figures]) -> Option<(u64, usize)> {
    let sum = |of: fn(&figures::Sharing) -> u64| all.iter().map(|one| of(&one.sharing)).sum();
    let (relay, peers): (u64, u64) = (sum(|of| of.relay_bytes), sum(|of| of.peer_bytes));
    let neighbours: usize = all.iter().map(|one| one.sharing.neighbours.len()).sum();
    let percent = (100 * peers).checked_div(relay + peers)?;
    (neighbours > 0 || peers > 0).then_some((percent, neighbours))
}

/// Says what went wrong between viewers, once each.
#[derive(Default)]
pub(super) struct Notes {
    unreachable: u64,
    /// Of each viewer.
    dropped: Vec<usize>,
}

impl Notes {
    /// Looks at the figures of all viewers of the node.
    pub(super) fn look(&mut self, all: &[Figures]) {
        let sum = |of: fn(&figures::Sharing) -> u64| -> u64 {
            all.iter().map(|one| of(&one.sharing)).sum()
        };
        let unreachable = sum(|of| of.unreachable);
        if unreachable > self.unreachable {
            let (introduced, opened) = (sum(|of| of.introduced), sum(|of| of.opened));
            if opened == 0 && self.unreachable == 0 {
                warn!(
                    unreachable,
                    "no direct path to any viewer that the relay named: a router here, or theirs, \
                     may give every destination another port; all comes from the relay"
                );
            }
            self.unreachable = unreachable;
            info!(
                unreachable,
                introduced,
                opened,
                "no direct path to viewers that the relay named; what they had comes from others \
                 or from the relay"
            );
        }
        self.dropped.resize(all.len(), 0);
        for (said, figures) in self.dropped.iter_mut().zip(all) {
            for (address, why) in figures.sharing.dropped.iter().skip(*said) {
                warn!(%address, why, "a neighbour was dropped for what it did");
            }
            *said = figures.sharing.dropped.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Mono;

    #[test]
    fn the_share_of_others_is_told_once_there_are_any() {
        let mut figures = Figures::new(Mono::ZERO);
        assert_eq!(share(std::slice::from_ref(&figures)), None);
        figures.sharing.relay_bytes = 100;
        assert_eq!(share(std::slice::from_ref(&figures)), None, "nobody else");
        figures.sharing.peer_bytes = 300;
        assert_eq!(share(std::slice::from_ref(&figures)), Some((75, 0)));
        assert_eq!(share(&[figures.clone(), figures]), Some((75, 0)));
    }

    #[test]
    fn everything_is_in_the_report() {
        let address = "192.0.2.1:9".parse().unwrap();
        let of = figures::Sharing {
            dropped: vec![(address, "hash")],
            neighbours: vec![figures::Neighbour {
                address,
                stripes_in: 0x81,
                stripes_out: 0,
                in_bytes: 1,
                out_bytes: 2,
                rtt: std::time::Duration::from_micros(1_500),
            }],
            rescues: 7,
            addresses_forgotten: 3,
            questions_forgotten: 4,
            news_forgotten: 8,
            tracks_forgotten: 9,
            dropped_all: 5,
            ..figures::Sharing::default()
        };
        let json = serde_json::to_value(Sharing::new(&of)).unwrap();
        assert_eq!(json["rescues"], 7);
        assert_eq!(
            (&json["addresses_forgotten"], &json["questions_forgotten"]),
            (&3.into(), &4.into())
        );
        assert_eq!((&json["news_forgotten"], &json["tracks_forgotten"]), (&8.into(), &9.into()));
        assert_eq!(json["dropped_all"], 5);
        assert_eq!(json["dropped"][0]["why"], "hash");
        assert_eq!(json["neighbours"][0]["stripes_in"], 0x81);
        assert_eq!(json["neighbours"][0]["rtt_ms"], 1.5);
    }
}
