//! Raw TCP: who may connect, one connection at a time.

use std::net::SocketAddr;

use crate::base::ids::ConnId;
use crate::base::time::Mono;
use crate::registry::settings::Network;

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its address may not send.
    Address,
    /// Another connection brings the stream.
    Foreign,
}

/// The one place of a configured TCP ingest.
#[derive(Debug)]
pub struct Place {
    allow: Vec<Network>,
    taken: Option<(ConnId, Mono)>,
}

impl Place {
    /// An empty place for senders of these networks.
    #[must_use]
    pub fn new(allow: Vec<Network>) -> Place {
        Place { allow, taken: None }
    }

    /// Gives the place to a new connection.
    ///
    /// # Errors
    /// The reason for which it is to be closed.
    pub fn take(&mut self, conn: ConnId, peer: SocketAddr, now: Mono) -> Result<(), Refused> {
        if !self.allow.iter().any(|net| net.contains(peer.ip())) {
            return Err(Refused::Address);
        }
        if self.taken.is_some() {
            return Err(Refused::Foreign);
        }
        self.taken = Some((conn, now));
        Ok(())
    }

    /// Notes that the connection sent something. False if the place is not its.
    pub fn hear(&mut self, conn: ConnId, now: Mono) -> bool {
        match &mut self.taken {
            Some((owner, heard)) if *owner == conn => {
                *heard = now;
                true
            }
            _ => false,
        }
    }

    /// Empties the place if it is that connection's.
    pub fn leave(&mut self, conn: ConnId) -> bool {
        self.taken.take_if(|(owner, _)| *owner == conn).is_some()
    }

    /// The connection that has the place, and when it was last heard.
    #[must_use]
    pub fn owner(&self) -> Option<(ConnId, Mono)> {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn one_connection_at_a_time_and_only_from_the_networks_named() {
        let net = Network { address: IpAddr::from([192, 0, 2, 0]), prefix: 24 };
        let mut place = Place::new(vec![net]);
        let (one, two) = (ConnId { index: 1, generation: 0 }, ConnId { index: 1, generation: 1 });
        let now = Mono::from_millis;
        let (good, bad) = ("192.0.2.9:1".parse().unwrap(), "198.51.100.1:1".parse().unwrap());
        assert_eq!(place.take(one, bad, now(0)), Err(Refused::Address));
        assert_eq!(place.take(one, good, now(0)), Ok(()));
        assert_eq!(place.take(two, good, now(1)), Err(Refused::Foreign));
        assert!(place.hear(one, now(5)) && !place.hear(two, now(6)));
        assert_eq!(place.owner(), Some((one, now(5))));
        assert!(!place.leave(two) && place.leave(one) && place.owner().is_none());
        assert_eq!(place.take(two, good, now(7)), Ok(()));
    }
}
