//! The shard's table of connections: what each one is being used for.

use std::rc::Rc;

use crate::base::ids::{ConnId, StreamName};
use crate::base::time::Mono;
use crate::face::http::connection::{Connection, HlsRequest, PlayRequest};
use crate::registry::admission::Permit;
use crate::registry::keys::KeyId;
use crate::shard::library::Book;
use crate::shard::publish::Publisher;

/// What a connection is used for.
pub(super) enum Role {
    /// Requests and responses.
    Http(Box<Talk>),
    /// It brings a stream.
    Publisher(Box<Publisher>),
    /// It brings a stream and nothing else: the index of the configured ingest.
    Feed(u16),
    /// It plays a stream: the viewer's place.
    Viewer(u32),
    /// It is being closed; nothing is expected of it any more.
    Closing,
}

/// An HTTP connection, and what it waits for if its request could not be answered at once.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) connection: Connection,
    pub(super) waits: Option<Waits>,
    pub(super) hls: Option<HlsWaits>,
    /// Where the segment that it is sending is read.
    pub(super) book: Option<Rc<Book>>,
}

impl Talk {
    pub(super) fn new(connection: Connection) -> Talk {
        Talk { connection, waits: None, hls: None, book: None }
    }
}

/// A viewer that waits for its stream.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) request: PlayRequest,
    pub(super) until: Mono,
    /// The stream is live and only its first access point is missing.
    pub(super) soon: bool,
}

/// A player that waits for its first playlist.
#[derive(Debug)]
pub(super) struct HlsWaits {
    pub(super) request: HlsRequest,
    pub(super) until: Mono,
    /// The stream is live and only its first segment is missing.
    pub(super) soon: bool,
}

/// Who asked for a publisher's seat.
#[derive(Clone, Debug)]
pub(super) struct Claimant {
    pub(super) name: StreamName,
    pub(super) key: KeyId,
}

struct Entry {
    generation: u32,
    permit: Option<Permit>,
    role: Option<Role>,
}

/// Connections by the driver's index. As large as the most connections at one time.
#[derive(Default)]
pub(super) struct Connections {
    entries: Vec<Option<Entry>>,
    /// Indices of connections that are no viewers: those that a sweep looks at.
    talking: Vec<u32>,
}

impl Connections {
    /// Bytes of one place in the table.
    #[cfg(test)]
    pub(super) const ENTRY_BYTES: usize = size_of::<Option<Entry>>();

    pub(super) fn insert(&mut self, conn: ConnId, permit: Option<Permit>, role: Role) {
        let index = conn.index as usize;
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        let entry = Entry { generation: conn.generation, permit, role: Some(role) };
        self.entries[index] = Some(entry);
        self.talking.push(conn.index);
    }

    pub(super) fn role(&mut self, conn: ConnId) -> Option<&mut Role> {
        self.entry(conn)?.role.as_mut()
    }

    pub(super) fn permit(&mut self, conn: ConnId) -> Option<&mut Permit> {
        self.entry(conn)?.permit.as_mut()
    }

    /// Takes the role out, to be put back by [`Connections::put`] in the same call.
    pub(super) fn take(&mut self, conn: ConnId) -> Option<Role> {
        self.entry(conn)?.role.take()
    }

    pub(super) fn put(&mut self, conn: ConnId, role: Role) {
        if let Some(entry) = self.entry(conn) {
            entry.role = Some(role);
        }
    }

    pub(super) fn replace(&mut self, conn: ConnId, role: Role) -> Option<Role> {
        self.entry(conn)?.role.replace(role)
    }

    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Role> {
        let role = self.take(conn);
        if self.entry(conn).is_some() {
            self.entries[conn.index as usize] = None;
        }
        role
    }

    /// All connections.
    pub(super) fn ids(&self) -> Vec<ConnId> {
        let entries = self.entries.iter().enumerate();
        let ids = entries.filter_map(|(index, entry)| {
            let generation = entry.as_ref()?.generation;
            Some(ConnId { index: u32::try_from(index).ok()?, generation })
        });
        ids.collect()
    }

    /// Connections that a sweep looks at; forgets those that became viewers or are gone.
    pub(super) fn talking(&mut self, into: &mut Vec<ConnId>) {
        let entries = &self.entries;
        self.talking.sort_unstable();
        self.talking.dedup();
        self.talking.retain(|index| {
            let Some(Some(entry)) = entries.get(*index as usize) else { return false };
            let talks = !matches!(entry.role, Some(Role::Viewer(_)));
            if talks {
                into.push(ConnId { index: *index, generation: entry.generation });
            }
            talks
        });
    }

    /// Whether a sweep has anything to look at.
    pub(super) fn any_talking(&self) -> bool {
        !self.talking.is_empty()
    }

    fn entry(&mut self, conn: ConnId) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(conn.index as usize)?.as_mut()?;
        (entry.generation == conn.generation).then_some(entry)
    }
}
