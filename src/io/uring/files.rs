//! The ring's own table of sockets: where a connection lives for which the process has no
//! descriptor to spare.
//!
//! A socket comes in by its descriptor, which is closed right after; from then on operations
//! name it by its place (`IOSQE_FIXED_FILE`). Nothing but io_uring reaches it any more: what is
//! a plain call on a descriptor (an option, a shutdown) is an operation here.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use io_uring::{squeue, types};
use socket2::{Domain, SockRef, Socket, Type};

use crate::io::table::Table;
use crate::io::uring::completion::Op;
use crate::io::uring::ring::Ring;
use crate::io::uring::send::Sends;
use crate::metrics::cells::Cells;

/// The largest table that the kernel grants (`IORING_MAX_FIXED_FILES`); it also refuses one
/// that is larger than RLIMIT_NOFILE.
pub const PLACES_MAX: usize = 1 << 20;

/// Threads of the kernel that carry out what may wait (`SHUTDOWN` always counts as such), for
/// each of its two classes of work. Without a bound it starts one per operation.
const WORKERS: u32 = 1;

/// How an operation names a socket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Descriptor(RawFd),
    /// The place in the ring's table.
    Place(u32),
}

impl Target {
    /// The name of the connection at `index`.
    pub fn of(table: &Table, index: u32) -> Target {
        table.ring_place(index).map_or(Target::Descriptor(table.raw_fd(index)), Target::Place)
    }

    /// The number for the operation's entry, which must then be given to [`Target::mark`].
    pub fn fd(self) -> types::Fd {
        match self {
            Target::Descriptor(fd) => types::Fd(fd),
            Target::Place(place) => types::Fd(place.cast_signed()),
        }
    }

    /// Says in the entry what its number means.
    pub fn mark(self, entry: squeue::Entry) -> squeue::Entry {
        match self {
            Target::Descriptor(_) => entry,
            Target::Place(_) => entry.flags(squeue::Flags::FIXED_FILE),
        }
    }
}

/// The free places of the table.
pub(super) struct Files {
    /// The one freed last first. Its only allocation.
    free: Vec<u32>,
    places: usize,
}

impl Files {
    /// Registers an empty table; with no places, nothing.
    ///
    /// # Errors
    /// `EMFILE`: more places than RLIMIT_NOFILE or [`PLACES_MAX`]; `EINVAL` before Linux 5.19.
    pub fn new(ring: &Ring, places: usize) -> io::Result<Files> {
        let nr = u32::try_from(places).unwrap_or(u32::MAX);
        if nr > 0 {
            ring.submitter().register_files_sparse(nr)?;
            ring.submitter().register_iowq_max_workers(&mut [WORKERS; 2])?;
        }
        Ok(Files { free: (0..nr).rev().collect(), places })
    }

    /// Puts a socket into the table. It stays open when its descriptor is closed.
    ///
    /// # Errors
    /// `ENFILE`: no place is free; else of io_uring_register(2).
    pub fn insert(&mut self, ring: &Ring, fd: BorrowedFd<'_>) -> io::Result<u32> {
        let place = self.free.pop().ok_or(io::Error::from_raw_os_error(libc::ENFILE))?;
        match ring.submitter().register_files_update(place, &[fd.as_raw_fd()]) {
            Ok(_) => Ok(place),
            Err(error) => {
                self.free.push(place);
                Err(error)
            }
        }
    }

    /// Closes the socket at `place`. No operation on it may be in flight: it would keep the
    /// connection open.
    pub fn remove(&mut self, ring: &Ring, place: u32) {
        let result = ring.submitter().register_files_update(place, &[-1]);
        debug_assert!(result.is_ok(), "{result:?}");
        self.free.push(place);
    }

    /// Closes every socket now; the ring itself goes some time after its last descriptor.
    pub fn close_all(&mut self, ring: &Ring) {
        if self.places > 0 {
            let result = ring.submitter().unregister_files();
            debug_assert!(result.is_ok(), "{result:?}");
        }
    }
}

/// Does once what a connection in the table needs beyond the rest of the driver: an option set
/// by an operation.
///
/// # Errors
/// `EINVAL` or `EOPNOTSUPP` before Linux 6.7; those of io_uring_setup(2).
pub(crate) fn probe() -> io::Result<()> {
    let (mut ring, mut sends, cells) = (Ring::new()?, Sends::new(), Cells::default());
    let mut files = Files::new(&ring, 1)?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let target = Target::Place(files.insert(&ring, socket.as_fd())?);
    let wanted = 54_321;
    let taken = sends.take_option(0, target, libc::TCP_NOTSENT_LOWAT, wanted);
    let Some((place, entry)) = taken else { return Err(io::ErrorKind::OutOfMemory.into()) };
    // SAFETY: `sends` outlives the operation: it is complete, or the ring is emptied below.
    unsafe { ring.push(&cells, Op::Option, place, entry) };
    ring.submit(&cells);
    let done = ring.pop().map(|completion| completion.result);
    if !ring.cancel_all() {
        std::mem::forget(sends);
    }
    match done {
        Some(Ok(_)) if SockRef::from(&socket).tcp_notsent_lowat()? == wanted => Ok(()),
        Some(Err(errno)) => Err(errno.into()),
        _ => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_table_keeps_a_socket_open_and_closes_it() {
        if let Err(why) = crate::io::probe::uring_table() {
            println!("SKIPPED: {why}");
            return;
        }
        let ring = Ring::new().unwrap();
        let mut files = Files::new(&ring, 2).unwrap();
        let pair = || UnixStream::pair().unwrap();
        let [(mut first, a), (second, b), (_, c)] = [pair(), pair(), pair()];
        second.set_nonblocking(true).unwrap();
        let place = files.insert(&ring, a.as_fd()).unwrap();
        files.insert(&ring, b.as_fd()).unwrap();
        let full = files.insert(&ring, c.as_fd()).unwrap_err();
        assert_eq!(full.raw_os_error(), Some(libc::ENFILE));
        drop((a, b));
        first.write_all(b"still open").unwrap();
        files.remove(&ring, place);
        assert!(first.read(&mut [0; 1]).is_err(), "closed with bytes unread: a reset");
        assert!((&second).read(&mut [0; 1]).is_err(), "the other one is open: nothing to read");
        assert_eq!(files.insert(&ring, c.as_fd()).unwrap(), place);
        files.close_all(&ring);
        assert_eq!((&second).read(&mut [0; 1]).unwrap(), 0);
    }
}
