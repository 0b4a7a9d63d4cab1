//! The links to peers that were confirmed, and where each is found.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::base::ids::StreamSlot;
use crate::face::swarm::told::Told;
use crate::face::swarm::wheel::Hook;
use crate::registry::admission::Permit;
use crate::swarm::crimes::Record;
use crate::swarm::sender::Sender;
use crate::wire::ppspp::{Options, kind};

/// The most user-space memory of one peer in bytes, in all tables together. Held by a test.
pub const PEER_BYTES: u64 = 1_536;

/// Which of our private messages a peer knows: one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extras(pub u16);

impl Extras {
    const SUBSCRIBE: u16 = 1;
    const TOKEN: u16 = 2;
    const BYE: u16 = 4;
    const ANY: u16 = 8;
    const STATE: u16 = 16;
    const LINKS: u16 = 32;
    const PEX: u16 = 64;
    const PROBE: u16 = 128;
    const SHARES: u16 = Extras::SUBSCRIBE | Extras::STATE | Extras::LINKS | Extras::PEX;

    /// What an opening said.
    pub(super) fn of(options: &Options<'_>) -> Extras {
        let bit = |kind: u8, bit: u16| if options.knows(kind) { bit } else { 0 };
        let any = kind::PRIVATE.fold(0, |bits, kind| bits | bit(kind, Extras::ANY));
        let known = bit(kind::SUBSCRIBE, Extras::SUBSCRIBE)
            | bit(kind::TOKEN, Extras::TOKEN)
            | bit(kind::BYE, Extras::BYE)
            | bit(kind::STATE, Extras::STATE)
            | bit(kind::LINKS, Extras::LINKS)
            | bit(kind::PROBE, Extras::PROBE);
        let pex = [kind::PEX_REQUEST, kind::PEX_V4, kind::PEX_V6];
        let pex = if pex.iter().all(|kind| options.knows(*kind)) { Extras::PEX } else { 0 };
        Extras(known | any | pex)
    }

    /// Whether it asks for a push by SUBSCRIBE.
    pub(super) fn subscribes(self) -> bool {
        self.0 & Extras::SUBSCRIBE != 0
    }

    /// Whether it can share: it hears of others, and says what it can give and who feeds it.
    /// Others are pushed everything for ever.
    pub(super) fn shares(self) -> bool {
        self.0 & Extras::SHARES == Extras::SHARES
    }

    /// Whether it can show a token.
    pub(super) fn shows_token(self) -> bool {
        self.0 & Extras::TOKEN != 0
    }

    /// Whether it is told why it is closed.
    pub(super) fn hears_bye(self) -> bool {
        self.0 & Extras::BYE != 0
    }

    /// Whether it is told how fast its trains come.
    pub(super) fn probes(self) -> bool {
        self.0 & Extras::PROBE != 0
    }

    /// Whether private messages may come from it.
    pub(super) fn any(self) -> bool {
        self.0 & Extras::ANY != 0
    }
}

/// Where a session stands in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Nowhere.
    None,
    /// Among those that have something to be pushed.
    Ready,
    /// Among those that asked for something.
    Urgent,
}

/// One link.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) sender: Sender,
    pub(super) to: SocketAddr,
    /// The other end's id.
    pub(super) theirs: u32,
    /// Ours.
    pub(super) ours: u32,
    pub(super) stream: StreamSlot,
    /// Its place among the members of its shoal.
    pub(super) seat: u32,
    pub(super) hook: Hook,
    /// The address that it wrote to: its place in the table of those.
    pub(super) origin: u8,
    pub(super) line: Line,
    /// Whether it has a place in the line of [`Line::Ready`], which it may have left.
    pub(super) in_ready: bool,
    pub(super) crimes: Record,
    pub(super) extras: Extras,
    /// What it said of itself; only of peers that do.
    pub(super) told: Option<Box<Told>>,
    /// Counts it, and what it costs; given back when the session is dropped.
    pub(super) permit: Permit,
}

/// Sessions by place. A place is reused after its session is gone.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    entries: Vec<Option<Session>>,
    free: Vec<u32>,
    /// Places by our channel id.
    places: HashMap<u32, u32>,
    /// Addresses of this machine that peers wrote to.
    origins: Vec<IpAddr>,
}

/// The place of no address: the kernel chooses.
const NO_ORIGIN: u8 = u8::MAX;

impl Sessions {
    /// Bytes of one place in the tables, without what the session has on the heap.
    #[cfg(test)]
    pub(super) const ENTRY_BYTES: usize = size_of::<Option<Session>>() + 4 + 20;

    pub(super) fn insert(&mut self, session: Session) -> u32 {
        let channel = session.ours;
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                if self.entries.len() == self.entries.capacity() {
                    // Doubling would leave half of it unused.
                    self.entries.reserve_exact((self.entries.len() / 8).max(64));
                }
                self.entries.push(None);
                self.entries.len() as u32 - 1
            }
        };
        self.entries[place as usize] = Some(session);
        self.places.insert(channel, place);
        place
    }

    pub(super) fn get(&mut self, place: u32) -> Option<&mut Session> {
        self.entries.get_mut(place as usize)?.as_mut()
    }

    /// The session with our channel id.
    pub(super) fn find(&self, channel: u32) -> Option<(u32, &Session)> {
        let place = *self.places.get(&channel)?;
        Some((place, self.entries.get(place as usize)?.as_ref()?))
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<Session> {
        let session = self.entries.get_mut(place as usize)?.take()?;
        self.free.push(place);
        self.places.remove(&session.ours);
        Some(session)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The place of an address of this machine, for [`Session::origin`].
    pub(super) fn origin(&mut self, to: Option<IpAddr>) -> u8 {
        let Some(ip) = to else { return NO_ORIGIN };
        let known = self.origins.iter().position(|known| *known == ip);
        let place = known.unwrap_or_else(|| {
            // A machine with more addresses has some of them chosen by the kernel.
            if self.origins.len() < usize::from(NO_ORIGIN) {
                self.origins.push(ip);
            }
            self.origins.len() - 1
        });
        let same = self.origins.get(place) == Some(&ip);
        u8::try_from(place).ok().filter(|_| same).unwrap_or(NO_ORIGIN)
    }

    pub(super) fn address(&self, origin: u8) -> Option<IpAddr> {
        self.origins.get(usize::from(origin)).copied()
    }
}

/// When a session was last heard and the like is in its sender; this is what is looked at to
/// show that a peer costs no more than declared.
#[cfg(test)]
pub(super) fn session_bytes() -> usize {
    use crate::swarm::{flight, requests};
    let heap = flight::TRAINS_MAX * 8 + requests::RUNS_MAX * 8 + size_of::<Told>();
    // Its shoal's list of members, the wheel, both lines.
    let lists = 4 + 2 * 4 + 2 * 4;
    Sessions::ENTRY_BYTES + heap + lists
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_takes_no_more_than_declared() {
        let bytes = session_bytes() as u64;
        assert!(bytes <= PEER_BYTES, "{bytes}: session {}", size_of::<Option<Session>>());
    }

    #[test]
    fn addresses_of_this_machine_are_kept_once() {
        let mut sessions = Sessions::default();
        let ip = |n: u16| Some(IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]));
        assert_eq!(sessions.address(NO_ORIGIN), None);
        assert_eq!(sessions.origin(None), NO_ORIGIN);
        for n in 0..300 {
            let origin = sessions.origin(ip(n));
            let known = sessions.address(origin);
            assert_eq!(known, if n < 255 { ip(n) } else { None });
        }
        assert_eq!(sessions.address(sessions.origins.len() as u8 - 1), ip(254));
        let again = sessions.origin(ip(7));
        assert_eq!((again, sessions.origins.len()), (7, 255));
    }
}
