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
            self.note_named(self.advice[at].0);
        }
        for (at, place) in self.places().into_iter().enumerate() {
            let address = self.advice[at].0;
            let new = known.iter().all(|(before, _)| *before != address);
            if new && place.is_none() {
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
        for ((_, stripes), place) in self.advice.iter().zip(self.places()) {
            if let Some(place) = place {
                advised[place] |= stripes;
            }
        }
        for (link, stripes) in self.links.iter().zip(advised) {
            self.mesh.advise(link.key, stripes);
        }
    }

    /// The link to each of those who are named, if there is one. Behind a NAT that gives every
    /// destination another port somebody is not where the relay sees it: whoever came from the
    /// same IP, and from a port that the relay has never named, is taken for it.
    fn places(&self) -> Vec<Option<usize>> {
        let at = |address| self.links.iter().position(|link| same(link.to, address));
        let mut places: Vec<_> = self.advice.iter().map(|(address, _)| at(*address)).collect();
        for n in 0..places.len() {
            if places[n].is_some() {
                continue;
            }
            let ip = self.advice[n].0.ip().to_canonical();
            let alike = |place: &usize| {
                let link = &self.links[*place];
                let fits = !link.named && link.to.ip().to_canonical() == ip;
                fits && !places.contains(&Some(*place))
            };
            let found = (0..self.links.len()).find(alike);
            places[n] = found;
        }
        places
    }

    /// The relay has named an address: whoever is there is nobody else.
    pub(super) fn note_named(&mut self, address: SocketAddr) {
        for link in self.links.iter_mut().filter(|link| same(link.to, address)) {
            link.named = true;
        }
    }
}
