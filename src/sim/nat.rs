//! Address translation as homes have it: what the rest of the world sees of a host, and what it
//! may send to it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::base::time::Mono;

/// How long a way stays open that nothing goes out through. RFC 4787 asks for two minutes, many
/// routers give thirty seconds.
const OPEN_FOR: Duration = Duration::from_secs(30);

/// Ways that one translator keeps; the oldest is given up.
const WAYS_MAX: usize = 256;

/// The first port that a symmetric translator gives out.
const PORT_FIRST: u16 = 20_000;

/// How a host's address is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// Not at all, or by a rule that lets everybody in.
    Open,
    /// One outer port; who was written to may answer, from any port.
    AddressDependent,
    /// Another outer port towards each destination, which alone may answer.
    Symmetric,
}

/// One host's translator.
#[derive(Clone, Debug)]
pub struct Nat {
    kind: NatKind,
    outer: Ipv4Addr,
    inner_port: u16,
    ways: Vec<Way>,
    next_port: u16,
}

#[derive(Clone, Copy, Debug)]
struct Way {
    to: SocketAddrV4,
    port: u16,
    used: Mono,
}

impl Nat {
    /// A translator whose outer address is `outer`, for a host with one socket on `inner_port`.
    #[must_use]
    pub fn new(kind: NatKind, outer: Ipv4Addr, inner_port: u16) -> Nat {
        Nat { kind, outer, inner_port, ways: Vec::new(), next_port: PORT_FIRST }
    }

    /// The host sends to `to`: what the other end sees as the sender.
    pub fn outward(&mut self, now: Mono, to: SocketAddrV4) -> SocketAddrV4 {
        if self.kind == NatKind::Open {
            return SocketAddrV4::new(self.outer, self.inner_port);
        }
        let open = |way: &Way| now.since(way.used) <= OPEN_FOR;
        if let Some(way) = self.ways.iter_mut().find(|way| way.to == to && open(way)) {
            way.used = now;
            return SocketAddrV4::new(self.outer, way.port);
        }
        self.ways.retain(open);
        let mut port = self.inner_port;
        if self.kind == NatKind::Symmetric {
            port = self.next_port;
            self.next_port = self.next_port.checked_add(1).unwrap_or(PORT_FIRST);
        }
        if self.ways.len() == WAYS_MAX {
            self.ways.remove(0);
        }
        self.ways.push(Way { to, port, used: now });
        SocketAddrV4::new(self.outer, port)
    }

    /// Something came from `from` to an outer port: whether the host gets it.
    #[must_use]
    pub fn lets_in(&self, now: Mono, from: SocketAddrV4, port: u16) -> bool {
        let open = |way: &&Way| now.since(way.used) <= OPEN_FOR && way.port == port;
        let mut ways = self.ways.iter().filter(open);
        match self.kind {
            NatKind::Open => port == self.inner_port,
            NatKind::AddressDependent => ways.any(|way| way.to.ip() == from.ip()),
            NatKind::Symmetric => ways.any(|way| way.to == from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 9);

    fn at(ip: u8, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, ip), port)
    }

    #[test]
    fn each_kind_lets_in_what_it_should() {
        let now = Mono::from_millis(1);
        let open = Nat::new(NatKind::Open, OUTER, 6_778);
        assert!(open.lets_in(now, at(1, 1), 6_778) && !open.lets_in(now, at(1, 1), 6_779));

        let mut cone = Nat::new(NatKind::AddressDependent, OUTER, 6_778);
        assert!(!cone.lets_in(now, at(1, 1), 6_778), "unasked");
        assert_eq!(cone.outward(now, at(1, 1)), SocketAddrV4::new(OUTER, 6_778));
        assert_eq!(cone.outward(now, at(2, 1)).port(), 6_778, "the same for everybody");
        assert!(cone.lets_in(now, at(1, 99), 6_778) && !cone.lets_in(now, at(3, 1), 6_778));

        let mut strict = Nat::new(NatKind::Symmetric, OUTER, 6_778);
        let (one, two) = (strict.outward(now, at(1, 1)), strict.outward(now, at(2, 1)));
        assert_ne!(one.port(), two.port());
        assert!(strict.lets_in(now, at(1, 1), one.port()));
        assert!(!strict.lets_in(now, at(1, 2), one.port()));
        assert!(!strict.lets_in(now, at(1, 1), two.port()));
    }

    #[test]
    fn ways_close_when_nobody_uses_them() {
        let mut nat = Nat::new(NatKind::Symmetric, OUTER, 1);
        let first = nat.outward(Mono::ZERO, at(1, 1));
        let later = Mono::ZERO + OPEN_FOR;
        assert!(nat.lets_in(later, at(1, 1), first.port()));
        let too_late = later + Duration::from_nanos(1);
        assert!(!nat.lets_in(too_late, at(1, 1), first.port()));
        assert_ne!(nat.outward(too_late, at(1, 1)), first);
        for port in 0..1_000 {
            nat.outward(too_late, at(2, port));
        }
        assert_eq!(nat.ways.len(), WAYS_MAX);
    }
}
