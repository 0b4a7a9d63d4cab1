//! The connections of one driver: a table of slots that are reused, with a generation each.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::base::ids::ConnId;

/// One connection, or a free place.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The socket. It stays open until the kernel holds no operation on it, so that its number
    /// cannot come back while an operation still means the old connection.
    fd: Option<OwnedFd>,
    /// Counts the reuses of this place; the other half of the [`ConnId`].
    generation: u32,
    /// Operations that the kernel holds; always 0 under epoll.
    pub inflight: u8,
    /// The machine knows the connection and was not told that it is closed.
    pub open: bool,
    /// A send was answered by `Blocked`, and `Writable` was not told since.
    pub blocked: bool,
    /// A send was submitted and not answered.
    pub sending: bool,
    /// A receive operation is armed (io_uring).
    pub receiving: bool,
    /// An operation waits until the socket can take bytes (io_uring).
    pub polling: bool,
    /// On the list of connections that may have more to read (epoll).
    pub ready: bool,
    /// The kernel said that no more will come: read to the very end (epoll).
    pub ended: bool,
}

/// A table of at most `capacity` connections.
#[derive(Debug)]
pub(super) struct Table {
    /// Grows up to its capacity, which is allocated once.
    slots: Vec<Slot>,
    /// Places to use again, the last one freed first: its memory is warm.
    free: Vec<u32>,
    /// Connections that the machine knows.
    open: usize,
    capacity: usize,
}

impl Table {
    /// An empty table. Its only allocations.
    pub fn new(capacity: usize) -> Table {
        let slots = Vec::with_capacity(capacity);
        Table { slots, free: Vec::with_capacity(capacity), open: 0, capacity }
    }

    /// Whether another connection fits.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slots.len() < self.capacity
    }

    /// Connections that the machine knows.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Places ever used: every index is below.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Takes a place for a socket; `None` when the table is full.
    pub fn insert(&mut self, fd: OwnedFd) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < self.capacity => {
                self.slots.push(Slot::default());
                u32::try_from(self.slots.len() - 1).ok()?
            }
            None => return None,
        };
        let slot = &mut self.slots[index as usize];
        *slot = Slot { fd: Some(fd), generation: slot.generation, open: true, ..Slot::default() };
        self.open += 1;
        Some(index)
    }

    /// The place of `conn`, unless it was closed.
    pub fn find(&self, conn: ConnId) -> Option<u32> {
        let slot = self.slots.get(conn.index as usize)?;
        (slot.open && slot.generation == conn.generation).then_some(conn.index)
    }

    /// The id of the connection at `index`.
    pub fn id(&self, index: u32) -> ConnId {
        ConnId { index, generation: self.slots[index as usize].generation }
    }

    /// The place `index`, which must have been given out once.
    pub fn slot(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    /// Whether the machine knows the connection at `index`.
    pub fn is_open(&self, index: u32) -> bool {
        self.slots[index as usize].open
    }

    /// The socket at `index`, until [`Table::remove`].
    pub fn fd(&self, index: u32) -> Option<BorrowedFd<'_>> {
        self.slots[index as usize].fd.as_ref().map(AsFd::as_fd)
    }

    /// The number of the socket at `index`, or -1.
    pub fn raw_fd(&self, index: u32) -> RawFd {
        self.fd(index).map_or(-1, |fd| fd.as_raw_fd())
    }

    /// Outputs for the connection are ignored from now on. False if it was closed already.
    pub fn close(&mut self, index: u32) -> bool {
        let slot = &mut self.slots[index as usize];
        let was_open = std::mem::replace(&mut slot.open, false);
        self.open -= usize::from(was_open);
        was_open
    }

    /// Closes the socket and gives the place back under a new generation.
    pub fn remove(&mut self, index: u32) {
        self.close(index);
        let slot = &mut self.slots[index as usize];
        debug_assert_eq!(slot.inflight, 0, "the kernel still uses the socket");
        if slot.fd.take().is_some() {
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> OwnedFd {
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()
    }

    #[test]
    fn a_place_comes_back_under_another_id_and_the_table_is_bounded() {
        let mut table = Table::new(2);
        let first = table.insert(socket()).unwrap();
        let id = table.id(first);
        assert_eq!(table.find(id), Some(first));
        assert!(table.insert(socket()).is_some());
        assert!(!table.has_room() && table.insert(socket()).is_none());
        assert!(table.close(first) && !table.close(first));
        assert_eq!(table.find(id), None, "closed: outputs are ignored");
        assert!(!table.has_room(), "the place is not free before the kernel let go");
        table.remove(first);
        assert_eq!(table.insert(socket()), Some(first));
        assert_eq!(table.find(id), None);
        assert_ne!(table.id(first), id);
        assert_eq!((table.open(), table.len()), (2, 2));
    }
}
