//! Bytes of everybody together in a stretch of time, and what shares of the stream they are.

use crate::sim::egress::{Class, Sent};
use crate::sim::stage::Stage;
use crate::sim::world::{RELAY, Traffic};

/// What went between all hosts, from some time on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Bytes that viewers verified and that came over UDP.
    pub verified: u64,
    /// What the relay's host sent as datagrams.
    pub relay_sent: u64,
    /// Bytes of chunks that reached viewers, from the relay and from each other.
    pub from_relay: u64,
    pub from_peers: u64,
    /// Bytes of datagrams with hashes, and of those with neither hashes nor chunks.
    pub integrity: u64,
    pub control: u64,
    /// Of `relay_sent`, what each class of it is.
    pub egress: Sent,
}

impl Bytes {
    /// All until now, as far as the viewers were looked at.
    #[must_use]
    pub fn of(stage: &Stage) -> Bytes {
        let sum = |of: fn(&Traffic) -> u64| {
            stage.world.hosts.iter().map(|host| of(&host.traffic)).sum::<u64>()
        };
        let figures = stage.crowd.viewers.iter().filter_map(|viewer| viewer.figures.as_ref());
        Bytes {
            verified: figures.map(|figures| figures.counts.payload).sum(),
            relay_sent: stage.world.hosts[RELAY].traffic.sent_bytes,
            from_relay: sum(|traffic| traffic.chunks_relay),
            from_peers: sum(|traffic| traffic.chunks_peers),
            integrity: sum(|traffic| traffic.integrity_sent),
            control: sum(|traffic| traffic.control_sent),
            egress: stage.world.egress.sent,
        }
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Bytes) -> Bytes {
        Bytes {
            verified: self.verified.saturating_sub(earlier.verified),
            relay_sent: self.relay_sent.saturating_sub(earlier.relay_sent),
            from_relay: self.from_relay.saturating_sub(earlier.from_relay),
            from_peers: self.from_peers.saturating_sub(earlier.from_peers),
            integrity: self.integrity.saturating_sub(earlier.integrity),
            control: self.control.saturating_sub(earlier.control),
            egress: std::array::from_fn(|at| self.egress[at].saturating_sub(earlier.egress[at])),
        }
    }

    /// What the viewers carried, of a hundred: of the definition in design.md, section 2.
    #[must_use]
    pub fn offload(self) -> f64 {
        100.0 - self.share(self.relay_sent)
    }

    /// What the relay sent of a class, in copies of a stream of which `copy` bytes are one.
    #[must_use]
    pub fn copies(self, class: Class, copy: f64) -> f64 {
        self.egress[class as usize] as f64 / copy.max(1.0)
    }

    /// Bytes of chunks that came twice or in vain, of a hundred.
    #[must_use]
    pub fn twice(self) -> f64 {
        self.share((self.from_relay + self.from_peers).saturating_sub(self.verified))
    }

    /// Datagrams with neither hashes nor chunks, of a hundred.
    #[must_use]
    pub fn talk(self) -> f64 {
        self.share(self.control)
    }

    /// Datagrams with hashes, of a hundred.
    #[must_use]
    pub fn hashes(self) -> f64 {
        self.share(self.integrity)
    }

    /// So many of a hundred of the bytes that viewers verified.
    fn share(self, bytes: u64) -> f64 {
        100.0 * bytes as f64 / self.verified.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_stretch() {
        let whole = Bytes {
            verified: 1_000,
            relay_sent: 600,
            from_relay: 500,
            from_peers: 550,
            integrity: 40,
            control: 30,
            egress: [500, 10, 0, 0, 20, 30, 40],
        };
        assert_eq!([whole.offload(), whole.twice(), whole.talk()], [40.0, 5.0, 3.0]);
        // Everybody came in the first part, in which the relay sent most of it.
        let first = Bytes { verified: 500, relay_sent: 525, from_relay: 450, ..Bytes::default() };
        let window = whole.since(Bytes { egress: [400, 10, 0, 0, 0, 0, 0], ..first });
        assert_eq!(window.egress, [100, 0, 0, 0, 20, 30, 40]);
        assert_eq!([Class::Seeding, Class::Joining].map(|of| window.copies(of, 50.0)), [2.0, 0.0]);
        assert_eq!([window.offload(), window.twice(), window.hashes()], [85.0, 20.0, 8.0]);
        assert_eq!(whole.since(Bytes::default()), whole);
        assert!(Bytes::default().offload() > 99.0, "nobody divides by nothing");
    }
}
