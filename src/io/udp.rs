//! Datagram sockets: how they are made, and what the kernel says beside the bytes.

mod swarm;

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

pub use swarm::bind_swarm;

/// Bytes that the kernel may hold for one socket: a second at 32 Mbit/s, while a core is busy.
/// For the swarm the same in either direction.
pub const BACKLOG: usize = 4 << 20;

/// Bytes for the largest run of datagrams that the kernel hands over at once. It puts at most
/// 64 KiB together (udp(7), UDP_GRO), and no datagram is larger.
pub(super) const DATA: usize = 64 * 1024;

/// Bytes for the control messages that [`bind`] asks for: segment size and drop counter (24
/// each), and the address sent to, of both families on a dual-stack socket (32 and 40).
pub(super) const CONTROL: usize = 128;

/// Binds a socket for datagrams and joins the group if the address is one.
///
/// `local` (an address of the interface; unspecified: the kernel chooses) is for groups of IPv4,
/// `index` (the interface's; 0: the kernel chooses) for those of IPv6. `[::]` is dual-stack. Also
/// returned: the bytes that the kernel holds for it at most, which is less than [`BACKLOG`] where
/// the sysctl `net.core.rmem_max` is.
///
/// # Errors
/// Every error names the address and, where a group cannot be joined, the interface.
pub fn bind(address: SocketAddr, local: Ipv4Addr, index: u32) -> io::Result<(UdpSocket, usize)> {
    let name = |why: io::Error| {
        io::Error::new(why.kind(), format!("cannot receive datagrams on {address}: {why}"))
    };
    let socket = open(address, index).map_err(name)?;
    let join = match address.ip() {
        IpAddr::V4(group) if group.is_multicast() => socket.join_multicast_v4(&group, &local),
        IpAddr::V6(group) if group.is_multicast() => socket.join_multicast_v6(&group, index),
        _ => Ok(()),
    };
    join.map_err(|why| {
        let interface = match (address.is_ipv4(), index) {
            (true, _) if !local.is_unspecified() => format!("the interface of {local}"),
            (false, 1..) => format!("interface {index}"),
            _ => "the interface that the system chose".to_owned(),
        };
        let text = format!("cannot join the group {address} on {interface}: {why}");
        io::Error::new(why.kind(), text)
    })?;
    // The kernel doubles what is asked for, to account for its own overhead (socket(7)).
    let backlog = socket.recv_buffer_size().map_err(name)? / 2;
    Ok((socket.into(), backlog))
}

fn open(address: SocketAddr, index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    let mut bound = address;
    if let SocketAddr::V6(v6) = &mut bound {
        socket.set_only_v6(address.ip() != Ipv6Addr::UNSPECIFIED)?;
        if v6.ip().is_multicast() {
            v6.set_scope_id(index);
        }
    }
    if address.ip().is_multicast() {
        // Other programs may listen to the same group. On an address of this host the same
        // option would let them take our datagrams.
        socket.set_reuse_address(true)?;
        // Only what this socket joined, not what others on this host did (ip(7)).
        match address.is_ipv4() {
            true => socket.set_multicast_all_v4(false)?,
            false => socket.set_multicast_all_v6(false)?,
        }
    }
    socket.set_recv_buffer_size(BACKLOG)?;
    socket.set_nonblocking(true)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    // Without it (before Linux 5.0) datagrams come one by one.
    let _ = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    if address.is_ipv6() {
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
    } else {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    }
    socket.bind(&bound.into())?;
    Ok(socket)
}

/// Sets an option that is a number.
pub(super) fn set_option(
    socket: &impl AsRawFd,
    level: i32,
    option: i32,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel reads the bytes of
    // `value`, which lives to the end of the call, and keeps nothing.
    let result = unsafe {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What the kernel says beside the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Control {
    /// Bytes of each datagram, if there are several.
    pub segment: Option<usize>,
    /// The address that they were sent to.
    pub to: Option<IpAddr>,
    /// Datagrams dropped since the socket was made, modulo 2^32, if there are any.
    pub dropped: Option<u32>,
}

impl Control {
    /// Reads control messages (cmsg(3)). What is not known or not whole is passed over.
    pub fn parse(mut bytes: &[u8]) -> Control {
        const HEAD: usize = size_of::<libc::cmsghdr>();
        let mut control = Control::default();
        while bytes.len() >= HEAD {
            // SAFETY: there are at least as many bytes as the header has, and it is a plain C
            // struct of integers, for which any bytes are a value. They need not be aligned.
            let head: libc::cmsghdr =
                unsafe { bytes.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
            #[allow(clippy::unnecessary_cast, reason = "32 bits with some C libraries")]
            let len = head.cmsg_len as usize;
            let Some(data) = bytes.get(HEAD..len) else { break };
            control.take(head.cmsg_level, head.cmsg_type, data);
            bytes = bytes.get(len.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
        }
        control
    }

    fn take(&mut self, level: i32, kind: i32, data: &[u8]) {
        let number = data.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes));
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                self.segment = number.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => self.dropped = number,
            // in_pktinfo: index, the local address, the address in the header (ip(7)).
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let address = data.get(8..12).and_then(|bytes| bytes.first_chunk::<4>());
                self.to = address.map(|bytes| IpAddr::from(*bytes));
            }
            // in6_pktinfo begins with the address (ipv6(7)).
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let address = data.first_chunk::<16>();
                self.to = address.map(|bytes| IpAddr::from(*bytes).to_canonical());
            }
            _ => {}
        }
    }
}

/// Reads a socket address as the kernel writes it (ip(7), ipv6(7)). An IPv4 address mapped into
/// IPv6 is given as the IPv4 address that it is.
pub(super) fn sender(name: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(*name.first_chunk()?));
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    match family {
        libc::AF_INET => {
            let ip: [u8; 4] = *name.get(4..)?.first_chunk()?;
            Some(SocketAddr::new(ip.into(), port))
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(*name.get(8..)?.first_chunk::<16>()?);
            let scope = u32::from_ne_bytes(*name.get(24..)?.first_chunk()?);
            Some(match ip.to_canonical() {
                IpAddr::V4(ip) => SocketAddr::new(ip.into(), port),
                IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_address_and_the_interface() {
        let (taken, backlog) =
            bind("127.0.0.1:0".parse().unwrap(), Ipv4Addr::UNSPECIFIED, 0).unwrap();
        assert!(backlog > 0);
        let address = taken.local_addr().unwrap();
        let error = bind(address, Ipv4Addr::UNSPECIFIED, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        let nowhere = "203.0.113.77".parse().unwrap();
        let error = bind("239.255.1.1:0".parse().unwrap(), nowhere, 0).unwrap_err().to_string();
        assert!(error.contains("239.255.1.1") && error.contains("203.0.113.77"), "{error}");
    }

    #[test]
    fn control_messages_are_read_and_nonsense_is_passed_over() {
        let message = |level: i32, kind: i32, data: &[u8]| {
            let len = size_of::<libc::cmsghdr>() + data.len();
            let mut bytes = len.to_ne_bytes().to_vec();
            bytes.extend(level.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(data);
            bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
            bytes
        };
        let all = [
            message(libc::SOL_UDP, libc::UDP_GRO, &1316u32.to_ne_bytes()),
            message(libc::SOL_SOCKET, 4711, b"?"),
            message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &7u32.to_ne_bytes()),
            message(libc::IPPROTO_IP, libc::IP_PKTINFO, &[0, 0, 0, 0, 9, 9, 9, 9, 127, 0, 0, 1]),
        ]
        .concat();
        let want =
            Control { segment: Some(1316), to: Some(Ipv4Addr::LOCALHOST.into()), dropped: Some(7) };
        assert_eq!(Control::parse(&all), want);
        for cut in 0..all.len() {
            let _ = Control::parse(&all[..cut]);
        }
        let zero = message(libc::SOL_UDP, libc::UDP_GRO, &[0; 4]);
        assert_eq!(Control::parse(&zero), Control::default());
        assert_eq!(Control::parse(&[0; 64]), Control::default());
        assert_eq!(sender(&[]), None);
        assert_eq!(sender(&[0; 28]), None);
    }
}
