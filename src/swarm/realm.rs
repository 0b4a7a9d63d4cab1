//! Where addresses mean the same to both ends: who can open to whom.

use std::net::{IpAddr, SocketAddr};

/// How far an address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Loopback,
    Private,
    Public,
}

/// Addresses of one realm can meet each other, those of two cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Realm {
    ipv4: bool,
    reach: Reach,
}

impl Realm {
    /// The realm of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Realm {
        let private = match ip {
            IpAddr::V4(ip) => {
                // Carriers' NATs have 100.64.0.0/10.
                let [a, b, ..] = ip.octets();
                ip.is_private() || ip.is_link_local() || (a == 100 && b & 0xc0 == 64)
            }
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
        };
        let reach = match (ip.is_loopback(), private) {
            (true, _) => Reach::Loopback,
            (false, true) => Reach::Private,
            (false, false) => Reach::Public,
        };
        Realm { ipv4: ip.is_ipv4(), reach }
    }
}

/// Whether one can open to the other, as far as addresses show that.
#[must_use]
pub fn can_meet(a: SocketAddr, b: SocketAddr) -> bool {
    a != b && Realm::of(a.ip()) == Realm::of(b.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_where_they_mean_something() {
        let meet = |a: &str, b: &str| can_meet(a.parse().unwrap(), b.parse().unwrap());
        assert!(meet("192.0.2.1:5", "198.51.100.7:5"));
        assert!(meet("192.0.2.1:5", "192.0.2.1:6"), "two behind one NAT");
        assert!(!meet("192.0.2.1:5", "192.0.2.1:5"));
        assert!(!meet("192.0.2.1:5", "10.0.0.1:5") && !meet("10.0.0.1:5", "192.0.2.1:5"));
        assert!(meet("10.0.0.1:5", "192.168.3.1:5") && meet("127.0.0.1:5", "127.0.0.1:6"));
        assert!(!meet("127.0.0.1:5", "10.0.0.1:5") && !meet("100.64.3.3:5", "192.0.2.1:5"));
        assert!(meet("[2001:db8::1]:5", "[2001:db8::2]:5"));
        assert!(!meet("[2001:db8::1]:5", "192.0.2.1:5") && !meet("[fd00::1]:5", "[2001:db8::1]:5"));
    }
}
