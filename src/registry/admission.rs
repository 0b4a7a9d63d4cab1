//! Who may come in: limits on connections, viewers and addresses.
//!
//! Refusing is better than degrading: whoever is inside keeps what was promised.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::registry::budget::Budget;
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
    /// What the peers inside cost leaves no room for another one.
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
    egress: Budget,
    households: [Mutex<HashMap<Household, usize>>; STRIPES],
}

impl Admission {
    /// Nobody inside yet.
    #[must_use]
    pub fn new(limits: Limits) -> Admission {
        Admission {
            egress: Budget::new(limits.egress),
            limits,
            viewers: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            peers: AtomicUsize::new(0),
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

    /// Lets a peer in that is reckoned at `bits` per second.
    ///
    /// # Errors
    /// If there are too many, of its address or in all, or the egress budget has no room.
    pub fn peer(self: &Arc<Admission>, ip: IpAddr, bits: u64) -> Result<Permit, Refused> {
        if !enter(&self.peers, self.limits.peers) {
            return Err(Refused::Peers);
        }
        let mut permit = Permit::new(self, Guest::Peer);
        permit.client(ip)?;
        let kbits = kbits(bits);
        if !self.egress.take(u64::from(kbits) * 1_000) {
            return Err(Refused::Egress);
        }
        permit.kbits = kbits;
        Ok(permit)
    }

    /// What may go out to peers, and what does.
    #[must_use]
    pub fn egress(&self) -> &Budget {
        &self.egress
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

fn kbits(bits: u64) -> u32 {
    u32::try_from(bits.div_ceil(1_000)).unwrap_or(u32::MAX)
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
    /// What a peer is reckoned at, in kbit/s: there are many permits.
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

    /// What a peer is reckoned at, in bits per second.
    #[must_use]
    pub fn bits(&self) -> u64 {
        u64::from(self.kbits) * 1_000
    }

    /// Reckons a peer at something else. It stays inside, be there room or not.
    pub fn reprice(&mut self, bits: u64) {
        let before = std::mem::replace(&mut self.kbits, kbits(bits));
        if before != self.kbits {
            self.admission.egress.change(u64::from(before) * 1_000, self.bits());
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.egress.change(self.bits(), 0);
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
            && house.egress.promised() == 0
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
    fn peers_are_counted_apart_and_reckoned_at_their_bits() {
        let house = admission(1, 3, 2);
        let ip = |text: &str| text.parse().unwrap();
        let mut a = house.peer(ip("192.0.2.1"), 2_000_000).unwrap();
        let b = house.peer(ip("192.0.2.1"), 2_000_000).unwrap();
        assert_eq!(house.peer(ip("192.0.2.1"), 1).unwrap_err(), Refused::Address);
        assert_eq!(house.peer(ip("192.0.2.2"), 1_000_001).unwrap_err(), Refused::Egress);
        let c = come(&house, "192.0.2.9").unwrap();
        let d = house.peer(ip("192.0.2.2"), 1_000_000).unwrap();
        assert_eq!(house.peer(ip("192.0.2.3"), 0).unwrap_err(), Refused::Peers);
        drop(d);
        a.reprice(3_000_000);
        assert_eq!(house.peer(ip("192.0.2.2"), 1).unwrap_err(), Refused::Egress);
        a.reprice(1_000_000);
        let d = house.peer(ip("192.0.2.2"), 2_000_000).unwrap();
        assert_eq!((a.bits(), house.egress().promised()), (1_000_000, 5_000_000));
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
