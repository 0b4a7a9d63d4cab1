//! The connections of one driver: a table of slots that are reused, with a generation each.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::base::ids::ConnId;

/// Who holds a connection's socket.
#[derive(Debug, Default)]
enum Holder {
    /// The place is free.
    #[default]
    Nobody,
    /// This process, by a descriptor.
    Process(OwnedFd),
    /// The ring, at this place of its own table (io_uring).
    Ring(u32),
}

/// One connection, or a free place.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The socket. It stays open until the kernel holds no operation on it, so that its number
    /// cannot come back while an operation still means the old connection.
    socket: Holder,
    /// Counts the reuses of this place; the other half of the [`ConnId`].
    generation: u32,
    /// Operations that the kernel holds; always 0 under epoll.
    pub inflight: u16,
    /// The machine knows the connection and was not told that it is closed.
    pub open: bool,
    /// It is being opened: the machine does not know it yet.
    pub connecting: bool,
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
    /// Sockets held by a descriptor.
    descriptors: usize,
    capacity: usize,
}

impl Table {
    /// An empty table. Its only allocations.
    pub fn new(capacity: usize) -> Table {
        let slots = Vec::with_capacity(capacity);
        Table { slots, free: Vec::with_capacity(capacity), open: 0, descriptors: 0, capacity }
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
        let index = self.insert_connecting(fd)?;
        self.establish(index);
        Some(index)
    }

    /// The same for one that the machine does not know before [`Table::establish`].
    pub fn insert_connecting(&mut self, fd: OwnedFd) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < self.capacity => {
                self.slots.push(Slot::default());
                u32::try_from(self.slots.len() - 1).ok()?
            }
            None => return None,
        };
        let slot = &mut self.slots[index as usize];
        let (socket, generation) = (Holder::Process(fd), slot.generation);
        *slot = Slot { socket, generation, connecting: true, ..Slot::default() };
        self.descriptors += 1;
        Some(index)
    }

    /// The machine is told of the connection at `index`.
    pub fn establish(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if std::mem::take(&mut slot.connecting) {
            slot.open = true;
            self.open += 1;
        }
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

    /// Sockets held by a descriptor.
    pub fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// The descriptor of the socket at `index`, until [`Table::remove`] or [`Table::moved`].
    pub fn fd(&self, index: u32) -> Option<BorrowedFd<'_>> {
        match &self.slots[index as usize].socket {
            Holder::Process(fd) => Some(fd.as_fd()),
            Holder::Nobody | Holder::Ring(_) => None,
        }
    }

    /// The place of the socket at `index` in the ring's own table, if it was moved there.
    pub fn ring_place(&self, index: u32) -> Option<u32> {
        match self.slots[index as usize].socket {
            Holder::Ring(place) => Some(place),
            Holder::Nobody | Holder::Process(_) => None,
        }
    }

    /// The ring holds the socket at `index` from now on: closes the descriptor. No operation
    /// that names it by the descriptor may be queued.
    pub fn moved(&mut self, index: u32, place: u32) {
        let slot = &mut self.slots[index as usize];
        let before = std::mem::replace(&mut slot.socket, Holder::Ring(place));
        self.descriptors -= usize::from(matches!(before, Holder::Process(_)));
    }

    /// The number of the socket at `index`, or -1.
    pub fn raw_fd(&self, index: u32) -> RawFd {
        self.fd(index).map_or(-1, |fd| fd.as_raw_fd())
    }

    /// Outputs for the connection are ignored from now on. False if it was closed already.
    pub fn close(&mut self, index: u32) -> bool {
        let slot = &mut self.slots[index as usize];
        slot.connecting = false;
        let was_open = std::mem::replace(&mut slot.open, false);
        self.open -= usize::from(was_open);
        was_open
    }

    /// Closes the socket and gives the place back under a new generation. A socket in the
    /// ring's table is the caller's to close: its place there.
    pub fn remove(&mut self, index: u32) -> Option<u32> {
        self.close(index);
        let slot = &mut self.slots[index as usize];
        debug_assert_eq!(slot.inflight, 0, "the kernel still uses the socket");
        let place = match std::mem::take(&mut slot.socket) {
            Holder::Nobody => return None,
            Holder::Process(_) => {
                self.descriptors -= 1;
                None
            }
            Holder::Ring(place) => Some(place),
        };
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        place
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

    #[test]
    fn a_socket_that_moved_has_no_descriptor() {
        use std::io::Read;
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut table = Table::new(2);
        let index = table.insert(theirs.into()).unwrap();
        assert_eq!((table.descriptors(), table.ring_place(index)), (1, None));
        table.moved(index, 7);
        assert_eq!(ours.read(&mut [0]).unwrap(), 0, "the descriptor is closed");
        assert_eq!((table.descriptors(), table.raw_fd(index)), (0, -1));
        assert_eq!(table.ring_place(index), Some(7));
        let id = table.id(index);
        assert_eq!(table.find(id), Some(index), "the connection goes on");
        assert_eq!(table.remove(index), Some(7));
        assert_eq!(table.remove(index), None, "once");
        assert_eq!((table.open(), table.find(id)), (0, None));
    }
}
