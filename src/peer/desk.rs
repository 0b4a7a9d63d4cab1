//! What all viewers of a node share: settings, the verifier, channel ids, wishes to the driver.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::base::ids::{ConnId, ShardId, StreamSlot};
use crate::base::payload::Payload;
use crate::base::spread::Mix;
use crate::peer::figures::Board;
use crate::peer::settings::{Names, Settings};
use crate::swarm::channel::{Channels, Taken};
use crate::swarm::integrity::Verifier;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// `swarm.json`.
    Document,
    /// The stream over HTTP.
    Http,
}

/// What a viewer wants of the driver.
pub(super) enum Wish {
    Connect {
        token: u64,
        to: SocketAddr,
        viewer: usize,
        which: Which,
    },
    Forget {
        token: u64,
    },
    Send {
        conn: ConnId,
        data: Payload,
    },
    Close {
        conn: ConnId,
    },
    Datagram {
        viewer: usize,
        to: SocketAddr,
        data: Bytes,
    },
    /// Datagrams with chunks, to another viewer.
    Train {
        viewer: usize,
        to: SocketAddr,
        /// Written over the first four bytes of each datagram.
        channel: u32,
        head: Payload,
        headers: Payload,
        header: u16,
        body: Payload,
    },
    Head {
        shard: ShardId,
        stream: StreamSlot,
    },
    /// Whoever waits for the stream may look again.
    Live,
}

impl Wish {
    /// The viewer whose socket it goes through, if it is for one.
    pub(super) fn socket(&self) -> Option<usize> {
        match self {
            Wish::Datagram { viewer, .. } | Wish::Train { viewer, .. } => Some(*viewer),
            _ => None,
        }
    }
}

/// What is lent to a viewer for one call.
pub(super) struct Desk<'a> {
    /// To whom.
    pub viewer: usize,
    /// Its socket takes nothing now.
    pub full: bool,
    pub settings: &'a Settings,
    pub names: &'a mut dyn Names,
    pub verifier: &'a mut Box<dyn Verifier + Send>,
    pub board: &'a Board,
    pub ids: &'a mut Ids,
    pub wishes: &'a mut VecDeque<Wish>,
}

/// Ids that are given out.
pub(super) struct Ids {
    channels: Channels,
    /// Which viewer a channel of ours belongs to. Looked up for everything that comes; the keys
    /// are ours, so nobody can make them meet.
    pub of_channel: HashMap<u32, usize, BuildHasherDefault<Mix>>,
    counter: u32,
    token: u64,
}

impl Ids {
    /// `key` is random.
    pub(super) fn new(key: &[u8; 32]) -> Ids {
        let channels = Channels::new(key, ShardId(0));
        Ids { channels, of_channel: HashMap::default(), counter: 0, token: 0 }
    }
}

impl Desk<'_> {
    pub(super) fn wish(&mut self, wish: Wish) {
        self.wishes.push_back(wish);
    }

    pub(super) fn datagram(&mut self, to: SocketAddr, bytes: &[u8]) {
        let data = Bytes::copy_from_slice(bytes);
        self.wish(Wish::Datagram { viewer: self.viewer, to, data });
    }

    /// A name for a connect.
    pub(super) fn token(&mut self) -> u64 {
        self.ids.token += 1;
        self.ids.token
    }

    /// A channel of ours on which `to` answers this viewer.
    pub(super) fn channel(&mut self, to: SocketAddr) -> Option<u32> {
        let Ids { channels, of_channel, counter, .. } = self.ids;
        *counter = counter.wrapping_add(1);
        let taken = |id| if of_channel.contains_key(&id) { Taken::Other } else { Taken::Free };
        let channel = channels.issue(to, *counter, taken)?;
        of_channel.insert(channel, self.viewer);
        Some(channel)
    }

    pub(super) fn forget_channel(&mut self, channel: u32) {
        if self.ids.of_channel.remove(&channel).is_some() {
            self.ids.channels.retire(channel);
        }
    }
}
