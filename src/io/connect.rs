//! Connections that a machine asks for, from the first packet to the answer.
//!
//! The socket takes its place in the table at once, unknown to the machine; the backend says when
//! the kernel has decided. Every attempt is told exactly once, also when the driver ends.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::base::time::Mono;
use crate::io::driver::Backend;
use crate::io::hub::Hub;
use crate::io::machine::{ConnectError, Input, Machine};
use crate::io::socket;
use crate::metrics::table::Cell;

/// How long an attempt may take: the first packet and two repetitions, after one and three
/// seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Attempts at one time. A machine asks for a handful: a viewer for its relay, a relay for those
/// above it.
const ATTEMPTS_MAX: usize = 256;

/// One connection that is being opened.
struct Attempt {
    /// Its place in the table.
    index: u32,
    token: u64,
    until: Mono,
}

/// The connections that are being opened.
pub(super) struct Attempts {
    list: Vec<Attempt>,
}

impl Attempts {
    /// Allocates nothing: most machines never connect.
    pub fn new() -> Attempts {
        Attempts { list: Vec::new() }
    }

    /// When the first one is to be given up.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.list.iter().map(|attempt| attempt.until).min()
    }

    /// Takes out the attempt at `index` of the table.
    fn take(&mut self, index: u32) -> Option<Attempt> {
        let place = self.list.iter().position(|attempt| attempt.index == index)?;
        Some(self.list.swap_remove(place))
    }
}

/// Begins to open a connection.
pub(super) fn begin<X: Machine, B: Backend>(
    hub: &mut Hub<'_, X>,
    backend: &mut B,
    token: u64,
    to: SocketAddr,
) {
    if let Err(why) = attempt(hub, backend, token, to) {
        hub.tell(Input::ConnectFailed { token, why });
    }
}

fn attempt<X: Machine, B: Backend>(
    hub: &mut Hub<'_, X>,
    backend: &mut B,
    token: u64,
    to: SocketAddr,
) -> Result<(), ConnectError> {
    if hub.is_shut() {
        return Err(ConnectError::Other);
    }
    if !hub.table.has_room() || hub.attempts.list.len() >= ATTEMPTS_MAX {
        return Err(ConnectError::NoRoom);
    }
    let fd = open(to).map_err(|error| sort(&error))?;
    let index = hub.table.insert_connecting(fd).ok_or(ConnectError::NoRoom)?;
    if let Err(error) = backend.watch_connect(hub, index) {
        hub.table.remove(index);
        return Err(sort(&error));
    }
    hub.attempts.list.push(Attempt { index, token, until: hub.now.mono + PATIENCE });
    if !hub.table.has_room() {
        // As after the last connection that came in.
        hub.pause(Cell::AcceptErrorsExhausted);
    }
    Ok(())
}

/// A socket that does not block and whose first packet is on its way.
fn open(to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// What the machine is told of an error of connect(2).
fn sort(error: &io::Error) -> ConnectError {
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => ConnectError::Refused,
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::HOSTDOWN) => {
            ConnectError::Unreachable
        }
        Some(Errno::TIMEDOUT) => ConnectError::TimedOut,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => ConnectError::NoRoom,
        _ => ConnectError::Other,
    }
}

/// The kernel has decided about the connection at `index`, on which the backend holds nothing.
pub(super) fn decided<X: Machine, B: Backend>(hub: &mut Hub<'_, X>, backend: &mut B, index: u32) {
    let Some(Attempt { token, .. }) = hub.attempts.take(index) else { return };
    if let Err(error) = finish(hub, backend, index) {
        backend.release(hub, index);
        return hub.tell(Input::ConnectFailed { token, why: sort(&error) });
    }
    hub.table.establish(index);
    let conn = hub.table.id(index);
    hub.tell(Input::Connected { token, conn });
}

fn finish<X: Machine, B: Backend>(
    hub: &mut Hub<'_, X>,
    backend: &mut B,
    index: u32,
) -> io::Result<()> {
    let fd = hub.table.fd(index).ok_or(io::ErrorKind::NotConnected)?;
    if let Some(error) = SockRef::from(&fd).take_error()? {
        return Err(error);
    }
    socket::prepare(fd.as_fd())?;
    backend.open(hub, index)
}

/// Gives up what has taken too long, or, with `all`, everything.
pub(super) fn give_up<X: Machine, B: Backend>(hub: &mut Hub<'_, X>, backend: &mut B, all: bool) {
    let now = hub.now.mono;
    while let Some(late) = hub.attempts.list.iter().find(|attempt| all || attempt.until <= now) {
        let (index, token) = (late.index, late.token);
        hub.attempts.take(index);
        hub.table.close(index);
        backend.release(hub, index);
        let why = if all { ConnectError::Other } else { ConnectError::TimedOut };
        hub.tell(Input::ConnectFailed { token, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted() {
        let sorted = |code| sort(&io::Error::from_raw_os_error(code));
        assert_eq!(sorted(libc::ECONNREFUSED), ConnectError::Refused);
        assert_eq!(sorted(libc::EHOSTUNREACH), ConnectError::Unreachable);
        assert_eq!(sorted(libc::ETIMEDOUT), ConnectError::TimedOut);
        assert_eq!(sorted(libc::EMFILE), ConnectError::NoRoom);
        assert_eq!(sorted(libc::EACCES), ConnectError::Other);
        assert_eq!(sort(&io::ErrorKind::NotConnected.into()), ConnectError::Other);
    }
}
