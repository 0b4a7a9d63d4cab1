//! What the faces of different shards tell each other.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::ids::ShardId;
use crate::base::time::Mono;
use crate::face::swarm::Swarm;
use crate::metrics::table::Cell;
use crate::registry::graph::GraphPeer;
use crate::registry::stream::Stream;
use crate::swarm::controller::{Census, Orders};

/// Introductions that wait to be told to other shards; beyond it they are dropped and counted:
/// who is advised waits until there is room, and who asks for addresses asks again. Of other notes
/// there is one per stream, shard and round.
pub(super) const NOTES_MAX: usize = 1_024;

/// A note of one face to another.
#[derive(Debug)]
pub enum Note {
    /// To the shard that coordinates the stream: what another one counted.
    Census {
        /// The stream.
        stream: Arc<Stream>,
        /// Who counted.
        shard: ShardId,
        /// What.
        census: Box<Census>,
        /// Who feeds whom there; not each time.
        graph: Option<Vec<GraphPeer>>,
    },
    /// From the shard that coordinates the stream.
    Orders {
        /// The stream.
        stream: Arc<Stream>,
        /// What is to be done.
        orders: Arc<Orders>,
    },
    /// A peer is told the address of another one, who is told its own at the same moment.
    Introduce {
        /// The peer's channel.
        channel: u32,
        /// The other one's address.
        address: SocketAddr,
    },
}

impl Swarm {
    /// Writes a note; one to this shard is read at once.
    pub(super) fn write(&mut self, now: Mono, to: ShardId, note: Note) {
        if to == self.shard {
            return self.handle_note(now, note);
        }
        let droppable = matches!(note, Note::Introduce { .. });
        if droppable && self.notes.len() >= NOTES_MAX {
            return self.cells.add(Cell::IntroductionsDropped, 1);
        }
        self.notes.push_back((to, note));
    }

    /// The next note for another shard.
    pub fn poll_note(&mut self) -> Option<(ShardId, Note)> {
        self.notes.pop_front()
    }
}
