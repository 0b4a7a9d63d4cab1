//! Who may come in: limits on connections, viewers and addresses.
//!
//! Refusing is better than degrading: whoever is inside keeps what was promised.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
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

/// Counts who is inside. The tables hold one entry per household with an open connection, so
/// `limits.connections` bounds them.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    viewers: AtomicUsize,
    connections: AtomicUsize,
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
        Ok(Permit { admission: Arc::clone(self), household: None, viewer: false })
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

/// The right to be inside; given back on drop.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    household: Option<Household>,
    viewer: bool,
}

impl Permit {
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
        if !self.viewer {
            if !enter(&self.admission.viewers, self.admission.limits.viewers) {
                return Err(Refused::Viewers);
            }
            self.viewer = true;
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.connections.fetch_sub(1, Relaxed);
        if self.viewer {
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
        Arc::new(Admission::new(Limits { viewers, connections, per_address, exempt }))
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
