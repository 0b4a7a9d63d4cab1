//! What an operator can choose about a stream that comes in otherwise than over HTTP.

use std::net::{Ipv4Addr, SocketAddr};

use crate::base::ids::StreamName;
use crate::registry::settings::Network;

/// One `[[ingest]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The stream that it fills.
    pub stream: StreamName,
    /// How the stream comes in.
    pub way: Way,
    /// Who may send it.
    pub allow: Vec<Network>,
}

/// How a stream comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Datagrams, of MPEG-TS packets or of RTP with such packets.
    Udp {
        /// Where they are sent to: an address of this host, or a multicast group.
        address: SocketAddr,
        /// The interface, by its address, on which an IPv4 group is joined. Unspecified: the
        /// kernel chooses.
        local: Ipv4Addr,
        /// The interface, by its index, on which an IPv6 group is joined. 0: the kernel chooses.
        index: u32,
    },
    /// Bytes of a TCP connection that the sender opens.
    Tcp {
        /// Where the relay listens.
        address: SocketAddr,
    },
}

impl Way {
    /// The address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match self {
            Way::Udp { address, .. } | Way::Tcp { address } => *address,
        }
    }
}
