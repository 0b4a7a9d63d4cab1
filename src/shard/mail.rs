//! What shards tell each other.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::face::swarm::notes::Note;
use crate::registry::stream::Stream;

/// Mail between shards. All of it is rare: when a publisher comes, goes or is replaced, when the
/// kernel gives a datagram to the wrong shard, and for each stream with peers a few times a second.
#[derive(Debug)]
pub enum Mail {
    /// A publisher began to write: whoever waits for the stream looks again.
    Live,
    /// Somebody with the same key wants the seat of the publisher with this ticket.
    GiveUp {
        /// The stream.
        stream: Arc<Stream>,
        /// The publisher's ticket.
        ticket: u64,
    },
    /// A writer lies on its desk again: whoever asked for it claims again.
    Parked,
    /// The stream is over: its viewers are closed.
    Ended(Arc<Stream>),
    /// A datagram for a peer of that shard.
    Stray(Box<Stray>),
    /// What the face towards peers of one shard tells that of another.
    Swarm(Box<Note>),
}

/// A datagram that came to the wrong shard.
#[derive(Debug)]
pub struct Stray {
    /// Who sent it.
    pub from: SocketAddr,
    /// The address that it was sent to.
    pub to: Option<IpAddr>,
    /// The datagram.
    pub data: Box<[u8]>,
}
