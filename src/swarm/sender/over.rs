//! Why a link is given up, and what the other end is told.

use crate::wire::ppspp::Bye;

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
