//! Who feeds whom in a stream's swarm: a sample that one shard draws and everybody reads.

use crate::base::time::Mono;

/// The most peers of a graph.
pub const PEERS_MAX: usize = 256;

/// The neighbour graph of one stream. Immutable: a new one replaces it now and then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// When it was drawn; `None`: never.
    pub drawn: Option<Mono>,
    /// Whether peers pass on what they get.
    pub hybrid: bool,
    /// Peers of the stream, those that are not in the sample included.
    pub all: u64,
    /// The sample: at most [`PEERS_MAX`].
    pub peers: Vec<GraphPeer>,
}

/// One peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphPeer {
    /// A short hash of its address, with a secret of the process: never the address, which is
    /// nobody's business.
    pub id: u32,
    /// The stripes that the relay pushes to it.
    pub relay_stripes: u8,
    /// Its neighbours, in the sample or not, and the stripes that each pushes to it.
    pub links: Vec<(u32, u8)>,
    /// What it can send, as it says.
    pub upload_kbit: u32,
    /// How far behind live it plays at the median, as it says.
    pub delay_ms: u16,
}
