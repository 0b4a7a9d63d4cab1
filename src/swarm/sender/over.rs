//! When and why a link is given up, and what the other end is told.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::sender::{FIRST_TRAINS, FIRST_TRAINS_WAIT, Sender};
use crate::wire::ppspp::Bye;

/// After probing for so long in vain the peer is dead.
const PROBING_MAX: Duration = Duration::from_secs(10);

/// As much at a forwarder: the second before the first probe makes it three.
const PROBING_MAX_FORWARDER: Duration = Duration::from_secs(2);

/// A subscriber repeats itself every second: silence for so long means that it is gone.
const SILENCE_SUBSCRIBED: Duration = Duration::from_secs(10);

/// As much at a forwarder.
const SILENCE_FORWARDER: Duration = Duration::from_secs(5);

/// Silence of other peers after which they are gone, if three datagrams were sent meanwhile
/// (RFC 7574, 3.12).
const SILENCE: Duration = Duration::from_secs(180);

/// Why a link is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Nothing is heard any more.
    Dead,
    /// The path loses too much: it is too small for the stream.
    Downlink,
    /// Full datagrams do not pass.
    Mtu,
}

impl Over {
    /// What the other end is told.
    #[must_use]
    pub const fn bye(self) -> Bye {
        match self {
            Over::Dead => Bye::Leaving,
            Over::Downlink => Bye::Downlink,
            Over::Mtu => Bye::Mtu,
        }
    }
}

impl Sender {
    /// Whether a peer of a relay takes the stream: it has subscribed. Its neighbours may bring
    /// all of it, so that it subscribes to nothing at the moment.
    pub(super) fn is_member(&self) -> bool {
        self.ours && self.member && self.cut.is_none()
    }

    /// Whether the peer says every second what it wants.
    fn repeats(&self) -> bool {
        self.is_member() || self.ours && self.stripes != 0
    }

    /// Why the link is over, if it is.
    pub(super) fn over(&self, now: Mono) -> Option<Over> {
        let (probing_max, silence_max) = match self.cut {
            None => (PROBING_MAX, SILENCE_SUBSCRIBED),
            Some(_) => (PROBING_MAX_FORWARDER, SILENCE_FORWARDER),
        };
        let in_vain = self.probing && now.since(self.probing_since) >= probing_max;
        let silence = now.since(self.heard);
        let gone = match self.repeats() {
            true => silence >= silence_max,
            false => silence >= SILENCE && self.unheard >= 3,
        };
        if in_vain || gone {
            Some(Over::Dead)
        } else if !self.probing && self.losses.endured(now) {
            Some(Over::Downlink)
        } else if self.stuck_at().is_some_and(|at| now >= at) {
            Some(Over::Mtu)
        } else {
            None
        }
    }

    /// When it is known that full datagrams do not pass, if nothing else is heard.
    pub(super) fn stuck_at(&self) -> Option<Mono> {
        // Whose neighbours bring everything has no need of this path.
        let idle = self.is_member() && !self.pushes();
        let stuck = self.trains >= FIRST_TRAINS && !self.ever_acked && !idle;
        stuck.then(|| self.first_trains + FIRST_TRAINS_WAIT)
    }
}
