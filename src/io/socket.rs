//! How sockets are made and tuned, and what their errors mean.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::base::limits::SHARDS_MAX;
use crate::io::machine::Closed;

/// Connections that the kernel holds before they are accepted (it takes the lesser of this and
/// the sysctl `net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// How long sent bytes may stay unacknowledged before the kernel gives a connection up
/// (`TCP_USER_TIMEOUT`, tcp(7)).
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Binds one TCP listener per shard on the same address.
///
/// With more than one shard they share the port by `SO_REUSEPORT`; with port 0 the kernel picks
/// it for the first one and the others join. `[::]` is dual-stack. They do not block.
///
/// # Errors
/// Every error names the address. [`io::ErrorKind::Unsupported`]: the host has no IPv6; a
/// caller who wanted `[::]` may try `0.0.0.0`. [`io::ErrorKind::InvalidInput`]: no shard at
/// all, or more than [`SHARDS_MAX`].
pub fn listen(addr: SocketAddr, shards: usize) -> io::Result<Vec<TcpListener>> {
    check_shards(addr, shards)?;
    if shards > 1 && addr.port() != 0 {
        // With SO_REUSEPORT a second relay could join the first one's port unnoticed, and each
        // would get half of the connections. Binding without it is refused while anybody listens.
        drop(bind_one(addr, false).map_err(|error| name(addr, &error))?);
    }
    let mut listeners = Vec::with_capacity(shards);
    let mut join = addr;
    for _ in 0..shards {
        let listener = listen_one(join, shards > 1).map_err(|error| name(addr, &error))?;
        join = listener.local_addr().map_err(|error| name(addr, &error))?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Refuses impossible numbers of shards.
pub(super) fn check_shards(addr: SocketAddr, shards: usize) -> io::Result<()> {
    if (1..=SHARDS_MAX).contains(&shards) {
        return Ok(());
    }
    let text = format!("{addr}: {shards} shards, but 1 to {SHARDS_MAX} are possible");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

fn listen_one(addr: SocketAddr, share: bool) -> io::Result<TcpListener> {
    let socket = bind_one(addr, share)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_one(addr: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        // Whatever the sysctl net.ipv6.bindv6only says: [::] means both families.
        socket.set_only_v6(addr.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// The same error with the address and, where it is known, what to do.
pub(super) fn name(addr: SocketAddr, error: &io::Error) -> io::Error {
    let no_ipv6 = matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT))
        || (addr.is_ipv6() && matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL)));
    if addr.is_ipv6() && no_ipv6 && addr.ip().is_unspecified() {
        let text = format!("cannot listen on {addr}: this host has no IPv6 ({error})");
        return io::Error::new(io::ErrorKind::Unsupported, text);
    }
    io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}"))
}

/// Prepares an accepted connection and says who is at its other end. An IPv4 address mapped
/// into IPv6 is given as the IPv4 address that it is.
///
/// # Errors
/// If the other end is gone already.
pub(super) fn prepare(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let peer = SocketAddr::try_from(
        rustix::net::getpeername(fd)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "no peer"))?,
    )?;
    let socket = SockRef::from(&fd);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

/// Limits the unsent bytes that the kernel holds for a connection (`TCP_NOTSENT_LOWAT`).
pub(super) fn set_backlog(fd: BorrowedFd<'_>, bytes: u32) {
    // Fails only on a socket that is no TCP socket; all of ours are.
    let result = SockRef::from(&fd).set_tcp_notsent_lowat(bytes);
    debug_assert!(result.is_ok(), "{result:?}");
}

/// Sends FIN and goes on receiving.
pub(super) fn send_fin(fd: BorrowedFd<'_>) {
    // ENOTCONN: the other end has reset the connection; the next read will say so.
    let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
}

/// Why a connection with this error is closed.
pub(super) fn closed_by(errno: Errno) -> Closed {
    match errno {
        Errno::CONNRESET | Errno::PIPE | Errno::NOTCONN => Closed::Reset,
        Errno::TIMEDOUT => Closed::TimedOut,
        _ => Closed::Error,
    }
}

/// What a failed accept asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AcceptError {
    /// Nothing is waiting, or the attempt was cancelled.
    Nothing,
    /// The process or the host has no descriptor or memory left: wait.
    Exhausted,
    /// This one connection failed; the next may not. accept(2) lists these for Linux.
    ThisOne,
    /// The listener itself fails: wait, or the loop would spin.
    Listener,
}

/// Sorts the errors of accept(2).
pub(super) fn accept_error(errno: Errno) -> AcceptError {
    match errno {
        Errno::AGAIN | Errno::CANCELED => AcceptError::Nothing,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => AcceptError::Exhausted,
        Errno::CONNABORTED
        | Errno::INTR
        | Errno::PROTO
        | Errno::PERM
        | Errno::NETDOWN
        | Errno::NOPROTOOPT
        | Errno::HOSTDOWN
        | Errno::NONET
        | Errno::HOSTUNREACH
        | Errno::OPNOTSUPP
        | Errno::NETUNREACH => AcceptError::ThisOne,
        _ => AcceptError::Listener,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn shards_share_one_port_that_the_kernel_picks() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listeners = listen(any.parse().unwrap(), 3).unwrap();
            let ports: Vec<u16> =
                listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
            assert_eq!(ports.len(), 3);
            assert!(ports[0] != 0 && ports.iter().all(|&port| port == ports[0]), "{ports:?}");
        }
    }

    #[test]
    fn a_port_that_others_share_is_taken() {
        let first = listen("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let addr = first[0].local_addr().unwrap();
        assert_eq!(listen(addr, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert_eq!(listen(addr, 2).unwrap().len(), 2, "free again");
    }

    #[test]
    fn the_unspecified_ipv6_address_serves_both_families() {
        let listener = listen("[::]:0".parse().unwrap(), 1).unwrap().remove(0);
        listener.set_nonblocking(false).unwrap();
        let port = listener.local_addr().unwrap().port();
        for ip in ["127.0.0.1", "::1"] {
            let client = TcpStream::connect((ip, port)).unwrap();
            let (socket, _) = listener.accept().unwrap();
            let peer = prepare(socket.as_fd()).unwrap();
            assert_eq!(peer, client.local_addr().unwrap(), "as the client sees itself");
            assert!(socket.nodelay().unwrap());
            assert_eq!(
                SockRef::from(&socket).tcp_user_timeout().unwrap(),
                Some(Duration::from_secs(30))
            );
            set_backlog(socket.as_fd(), 20_000);
            assert_eq!(SockRef::from(&socket).tcp_notsent_lowat().unwrap(), 20_000);
        }
    }

    #[test]
    fn an_error_names_the_address() {
        let taken = listen("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let addr = taken[0].local_addr().unwrap();
        let error = listen(addr, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
        assert_eq!(listen(addr, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let no = io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
        let error = name("[::]:80".parse().unwrap(), &no);
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn errors_are_sorted() {
        assert_eq!(closed_by(Errno::CONNRESET), Closed::Reset);
        assert_eq!(closed_by(Errno::PIPE), Closed::Reset);
        assert_eq!(closed_by(Errno::TIMEDOUT), Closed::TimedOut);
        assert_eq!(closed_by(Errno::NOMEM), Closed::Error);
        assert_eq!(accept_error(Errno::MFILE), AcceptError::Exhausted);
        assert_eq!(accept_error(Errno::CONNABORTED), AcceptError::ThisOne);
        assert_eq!(accept_error(Errno::INVAL), AcceptError::Listener);
    }
}
