//! What each peer is reckoned at in the egress budget, and what of it goes out.
//!
//! A peer is let in at what those inside cost on average, for others will feed it; as soon as it
//! says what it has the relay push to it, it is reckoned at that, and again whenever that changes.
//! Who cannot share, and everybody while the relay sends everything, is reckoned at the whole
//! stream. See [`crate::registry::budget`] for why nobody inside is cut off for it.

use crate::face::swarm::sessions::{Extras, Session};
use crate::face::swarm::shoal::Shoal;
use crate::face::swarm::{Shipment, Swarm};
use crate::swarm::controller::CHARGE_MIN;
use crate::swarm::stripes::STRIPES;

/// UDP, IP and hash datagrams on top of a stream's bytes, in percent.
const OVERHEAD: u64 = 111;

/// IP and UDP headers of one datagram.
const HEADERS_V4: u64 = 28;
const HEADERS_V6: u64 = 48;

/// What the whole of a stream costs for one peer, in bits per second.
pub(super) fn whole(bitrate: u64) -> u64 {
    bitrate / 100 * OVERHEAD
}

/// Bytes that a shipment is on the wire.
pub(super) fn on_the_wire(shipment: &Shipment) -> u64 {
    let headers = if shipment.to.ip().to_canonical().is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    let train = shipment.headers.len() / usize::from(shipment.header.max(1));
    let datagrams = train as u64 + u64::from(!shipment.head.is_empty());
    shipment.bytes() + datagrams * headers
}

impl Shoal {
    /// What somebody who comes is reckoned at.
    pub(super) fn entry(&self, extras: Extras) -> u64 {
        let percent = if extras.shares() { self.orders.charge } else { 100 };
        whole(self.bitrate()) / 100 * percent
    }
}

/// What somebody inside is reckoned at, of a stream that costs `whole`.
///
/// Not what is pushed at the moment: who chokes can have it back at once.
pub(super) fn price(session: &Session, hybrid: bool, whole: u64) -> u64 {
    if !hybrid || !session.extras.shares() {
        return whole;
    }
    let stripes = u64::from(session.sender.subscribed().count_ones());
    (whole * stripes / STRIPES as u64).max(whole / 100 * CHARGE_MIN)
}

impl Swarm {
    /// Reckons a peer anew.
    pub(super) fn reprice(&mut self, place: u32) {
        let Some(session) = self.sessions.get(place) else { return };
        let Some(Some(shoal)) = self.shoals.get(session.stream.0 as usize) else { return };
        let bits = price(session, shoal.orders.hybrid, whole(shoal.bitrate()));
        session.permit.reprice(bits);
    }

    /// Reckons all peers of a stream anew.
    pub(super) fn reprice_all(&mut self, index: usize) {
        let Some(Some(shoal)) = self.shoals.get(index) else { return };
        let whole = whole(shoal.bitrate());
        for place in &shoal.members {
            if let Some(session) = self.sessions.get(*place) {
                session.permit.reprice(price(session, shoal.orders.hybrid, whole));
            }
        }
    }
}
