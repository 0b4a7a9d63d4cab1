//! Advice of the relay: who is to feed us.

use std::net::SocketAddr;

use crate::peer::viewer::neighbours::Neighbours;
use crate::swarm::doors::same;
use crate::wire::ppspp::Links;

impl Neighbours {
    /// The relay names who is to feed us; it feeds the other stripes itself. Who is not known yet
    /// is opened to.
    pub(in crate::peer::viewer) fn take_advice(&mut self, links: Links<'_>) {
        let known = std::mem::take(&mut self.advice);
        self.followed = false;
        self.advice.extend(links.iter().map(|link| (link.address, link.stripes_in)));
        let named = self.advice.iter().fold(0, |named, (_, stripes)| named | stripes);
        self.mesh.set_relay_feeds(!named);
        for at in 0..self.advice.len() {
            let address = self.advice[at].0;
            let new = known.iter().all(|(before, _)| *before != address);
            if new && self.find(address).is_none() {
                self.introduce(address);
            }
        }
    }

    /// Tells the mesh what was advised about those that are known by now.
    pub(super) fn follow(&mut self) {
        if std::mem::replace(&mut self.followed, true) {
            return;
        }
        let mut advised = vec![0; self.links.len()];
        for (address, stripes) in &self.advice {
            if let Some(place) = self.find(*address) {
                advised[place] |= stripes;
            }
        }
        for (link, stripes) in self.links.iter().zip(advised) {
            self.mesh.advise(link.key, stripes);
        }
    }

    /// The link to whoever has this address at the relay. Behind a NAT that gives every
    /// destination another port it has another one here.
    fn find(&self, address: SocketAddr) -> Option<usize> {
        let exact = self.links.iter().position(|link| same(link.to, address));
        exact.or_else(|| {
            let ip = address.ip().to_canonical();
            let named = |to: SocketAddr| self.advice.iter().any(|(other, _)| same(*other, to));
            let alike = |to: SocketAddr| to.ip().to_canonical() == ip && !named(to);
            self.links.iter().position(|link| alike(link.to))
        })
    }
}
