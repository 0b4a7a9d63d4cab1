//! Who may come in: limits on connections, viewers and addresses.
//!
//! Refusing is better than degrading: whoever is inside keeps what was promised.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::registry::settings::Limits;

/// Locks over which addresses are spread, so that shards seldom meet.
const STRIPES: usize = 16;

/// Why somebody was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many connections of this address.
    Address,
    /// Too many connections in all.
    Connections,
    /// Too many viewers in all.
    Viewers,
    /// Too many peers in all.
    Peers,
    /// What the peers inside were promised leaves no room for another one.
    Egress,
}

/// One IPv4 address or one IPv6 /64: what one household or one attacker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Household {
    V4(u32),
    V6(u64),
}

impl Household {
    fn of(ip: IpAddr) -> Household {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Household::V4(u32::from(ip)),
            IpAddr::V6(ip) => Household::V6((u128::from(ip) >> 64) as u64),
        }
    }

    fn stripe(self) -> usize {
        let bits = match self {
            Household::V4(ip) => u64::from(ip),
            Household::V6(net) => net,
        };
        (bits ^ (bits >> 8) ^ (bits >> 32)) as usize % STRIPES
    }
}

/// Counts who is inside. The tables hold one entry per household with an open connection or a
/// peer, so `limits.connections` and `limits.peers` bound them.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    viewers: AtomicUsize,
    connections: AtomicUsize,
    peers: AtomicUsize,
    /// Promised to peers, in kbit/s.
    promised: AtomicU64,
    households: [Mutex<HashMap<Household, usize>>; STRIPES],
}

impl Admission {
    /// Nobody inside yet.
    #[must_use]
    pub fn new(limits: Limits) -> Admission {
        Admission {
            limits,
            viewers: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            peers: AtomicUsize::new(0),
            promised: AtomicU64::new(0),
            households: Default::default(),
        }
    }

    /// Lets a connection in. [`Permit::client`] then counts it for its address: the other end's,
    /// or the one behind a trusted proxy once that is known.
    ///
    /// # Errors
    /// If there are too many connections.
    pub fn connection(self: &Arc<Admission>) -> Result<Permit, Refused> {
        if !enter(&self.connections, self.limits.connections) {
            return Err(Refused::Connections);
        }
        Ok(Permit::new(self, Guest::Connection))
    }

    /// Lets a peer in that is to get `bits` per second.
    ///
    /// # Errors
    /// If there are too many, of its address or in all, or too much was promised.
    pub fn peer(self: &Arc<Admission>, ip: IpAddr, bits: u64) -> Result<Permit, Refused> {
        if !enter(&self.peers, self.limits.peers) {
            return Err(Refused::Peers);
        }
        let mut permit = Permit::new(self, Guest::Peer);
        permit.client(ip)?;
        let kbits = bits.div_ceil(1_000).min(u64::from(u32::MAX));
        let most = self.limits.egress.map_or(u64::MAX, |egress| egress / 1_000);
        let under = |sum: u64| sum.checked_add(kbits).filter(|sum| *sum <= most);
        if self.promised.fetch_update(Relaxed, Relaxed, under).is_err() {
            return Err(Refused::Egress);
        }
        permit.kbits = u32::try_from(kbits).unwrap_or(u32::MAX);
        Ok(permit)
    }

    /// Peers inside.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.peers.load(Relaxed)
    }

    /// Viewers inside.
    #[must_use]
    pub fn viewers(&self) -> usize {
        self.viewers.load(Relaxed)
    }

    /// Connections inside.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    fn household(&self, of: Household) -> std::sync::MutexGuard<'_, HashMap<Household, usize>> {
        self.households[of.stripe()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn enter(counter: &AtomicUsize, limit: usize) -> bool {
    let under = |n: usize| (n < limit).then_some(n + 1);
    counter.fetch_update(Relaxed, Relaxed, under).is_ok()
}

/// What a permit is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    Connection,
    /// A connection that plays.
    Viewer,
    Peer,
}

/// The right to be inside; given back on drop.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    household: Option<Household>,
    /// What it was promised, in kbit/s.
    kbits: u32,
    guest: Guest,
}

impl Permit {
    fn new(admission: &Arc<Admission>, guest: Guest) -> Permit {
        Permit { admission: Arc::clone(admission), household: None, kbits: 0, guest }
    }

    /// Counts the connection for its client's address, once.
    ///
    /// # Errors
    /// If that client has too many connections.
    pub fn client(&mut self, ip: IpAddr) -> Result<(), Refused> {
        let exempt = self.admission.limits.exempt.iter().any(|net| net.contains(ip));
        if exempt || self.household.is_some() {
            return Ok(());
        }
        let household = Household::of(ip);
        let mut table = self.admission.household(household);
        let inside = table.get(&household).copied().unwrap_or(0);
        if inside >= self.admission.limits.per_address {
            return Err(Refused::Address);
        }
        table.insert(household, inside + 1);
        drop(table);
        self.household = Some(household);
        Ok(())
    }

    /// Makes the connection a viewer.
    ///
    /// # Errors
    /// If there are too many viewers.
    pub fn viewer(&mut self) -> Result<(), Refused> {
        if self.guest == Guest::Connection {
            if !enter(&self.admission.viewers, self.admission.limits.viewers) {
                return Err(Refused::Viewers);
            }
            self.guest = Guest::Viewer;
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.promised.fetch_sub(self.kbits.into(), Relaxed);
        match self.guest {
            Guest::Peer => drop(self.admission.peers.fetch_sub(1, Relaxed)),
            Guest::Connection | Guest::Viewer => {
                self.admission.connections.fetch_sub(1, Relaxed);
            }
        }
        if self.guest == Guest::Viewer {
            self.admission.viewers.fetch_sub(1, Relaxed);
        }
        if let Some(household) = self.household {
            let mut table = self.admission.household(household);
            if let Some(inside) = table.get_mut(&household) {
                *inside -= 1;
                if *inside == 0 {
                    table.remove(&household);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::settings::Network;

    fn admission(viewers: usize, connections: usize, per_address: usize) -> Arc<Admission> {
        let exempt = vec![Network { address: "127.0.0.0".parse().unwrap(), prefix: 8 }];
        let (peers, egress) = (connections, Some(5_000_000));
        Arc::new(Admission::new(Limits {
            viewers,
            connections,
            per_address,
            exempt,
            peers,
            egress,
        }))
    }

    fn come(house: &Arc<Admission>, ip: &str) -> Result<Permit, Refused> {
        let mut permit = house.connection()?;
        permit.client(ip.parse().unwrap())?;
        Ok(permit)
    }

    fn is_empty(house: &Admission) -> bool {
        house.households.iter().all(|table| table.lock().unwrap().is_empty())
            && house.connections() == 0
            && house.viewers() == 0
            && house.peers() == 0
            && house.promised.load(Relaxed) == 0
    }

    #[test]
    fn everything_is_given_back() {
        let house = admission(1, 3, 2);
        let mut a = come(&house, "192.0.2.1").unwrap();
        let mut b = come(&house, "192.0.2.1").unwrap();
        assert_eq!(come(&house, "192.0.2.1").unwrap_err(), Refused::Address);
        let c = come(&house, "192.0.2.2").unwrap();
        assert_eq!(come(&house, "192.0.2.3").unwrap_err(), Refused::Connections);
        assert_eq!(a.viewer(), Ok(()));
        assert_eq!(a.viewer(), Ok(()));
        assert_eq!(b.viewer(), Err(Refused::Viewers));
        drop((a, b, c));
        assert!(is_empty(&house));
    }

    #[test]
    fn peers_are_counted_apart_and_promised_their_bits() {
        let house = admission(1, 3, 2);
        let ip = |text: &str| text.parse().unwrap();
        let a = house.peer(ip("192.0.2.1"), 2_000_000).unwrap();
        let b = house.peer(ip("192.0.2.1"), 2_000_000).unwrap();
        assert_eq!(house.peer(ip("192.0.2.1"), 1).unwrap_err(), Refused::Address);
        assert_eq!(house.peer(ip("192.0.2.2"), 1_000_001).unwrap_err(), Refused::Egress);
        let c = come(&house, "192.0.2.9").unwrap();
        let d = house.peer(ip("192.0.2.2"), 1_000_000).unwrap();
        assert_eq!(house.peer(ip("192.0.2.3"), 0).unwrap_err(), Refused::Peers);
        assert_eq!((house.peers(), house.connections()), (3, 1));
        drop((a, b, c, d));
        assert!(is_empty(&house));
    }

    #[test]
    fn one_v6_network_is_one_household() {
        let house = admission(9, 9, 1);
        let _a = come(&house, "2001:db8::1").unwrap();
        assert_eq!(come(&house, "2001:db8::2").unwrap_err(), Refused::Address);
        assert!(come(&house, "2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn exempt_networks_are_not_counted_and_nobody_twice() {
        let house = admission(9, 9, 1);
        let _a = come(&house, "127.0.0.1").unwrap();
        let _b = come(&house, "::ffff:127.0.0.1").unwrap();
        let mut c = come(&house, "192.0.2.1").unwrap();
        assert_eq!(c.client("192.0.2.1".parse().unwrap()), Ok(()));
    }

    #[test]
    fn a_limit_of_zero_leaves_no_entry_behind() {
        let house = admission(9, 9, 0);
        assert_eq!(come(&house, "192.0.2.1").unwrap_err(), Refused::Address);
        assert!(is_empty(&house));
    }
}
