//! The sockets of the swarm: one per shard on one port, each datagram steered to the shard whose
//! number its first word holds.

use std::io;
use std::mem::size_of;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::io::socket;
use crate::io::udp::{BACKLOG, set_option};

/// The bits of a datagram's first word of which one at least is set in every channel id that a
/// relay issues. A word with neither begins a handshake, or is for nobody.
const ISSUED: u32 = 0b11 << 30;

/// The bits of such a word that hold the number of the shard.
const SHARD: u32 = 0xff;

/// A place in the group that never exists: the kernel chooses by addresses and ports.
const ANY: u32 = u32::MAX;

/// Steps of the program that steers.
const STEPS: usize = 6;

/// Binds the socket of each shard, all on one port, and lets the kernel steer.
///
/// A datagram whose first word has one of its top two bits set goes to the shard of the word's
/// low eight bits; every other one, and one for a shard that does not exist, to a shard that the
/// kernel picks by the addresses and ports, so that one sender's always meet the same one. With
/// port 0 the kernel picks the port. `[::]` is dual-stack. They do not block, never fragment,
/// and tell which address a datagram was sent to.
///
/// # Errors
/// Every error names the address. [`io::ErrorKind::AddrInUse`]: also if another relay's sockets
/// share the port. [`io::ErrorKind::Unsupported`]: the host has no IPv6; a caller who wanted
/// `[::]` may try `0.0.0.0`. [`io::ErrorKind::InvalidInput`]: no shard at all, or more than
/// [`SHARDS_MAX`](crate::base::limits::SHARDS_MAX).
pub fn bind_swarm(addr: SocketAddr, shards: usize) -> io::Result<Vec<UdpSocket>> {
    socket::check_shards(addr, shards)?;
    bind_all(addr, shards).map_err(|error| socket::name(addr, &error))
}

fn bind_all(addr: SocketAddr, shards: usize) -> io::Result<Vec<UdpSocket>> {
    // The first one binds alone: refused while anybody has the port, shared or not. It agrees to
    // share it afterwards, so that nobody slips in between.
    let first = open(addr)?;
    first.bind(&addr.into())?;
    let mut sockets: Vec<UdpSocket> = vec![first.into()];
    if shards > 1 {
        let shared = sockets[0].local_addr()?;
        set_option(&sockets[0], libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        while sockets.len() < shards {
            // The place in the kernel's group is the order of binding.
            let next = open(shared)?;
            next.set_reuse_port(true)?;
            next.bind(&shared.into())?;
            sockets.push(next.into());
        }
        steer(&sockets[0], shards)?;
    }
    Ok(sockets)
}

/// A socket with everything set that the swarm needs of it, but not bound.
fn open(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(BACKLOG)?;
    socket.set_send_buffer_size(BACKLOG)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    // Without it (before Linux 5.0) datagrams come one by one.
    let _ = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    // What is too large for the way is an error here and no fragments there.
    let whole = libc::IP_PMTUDISC_DO;
    if addr.is_ipv6() {
        let both = addr.ip() == Ipv6Addr::UNSPECIFIED;
        socket.set_only_v6(!both)?;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, whole)?;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        if both {
            set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, whole)?;
        }
    } else {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, whole)?;
        set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    }
    Ok(socket)
}

/// The program: what it returns is a place in the group, in the order of binding. It sees a
/// datagram without its UDP header, and words in the order of the network. One that is too short
/// for a word ends it with 0: the first shard throws it away.
fn program(shards: u32) -> [libc::sock_filter; STEPS] {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: code as u16, // All of them fit: they are made of the lowest byte only.
        jt,
        jf,
        k,
    };
    [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 3, ISSUED),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, SHARD),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, 0, shards),
        step(libc::BPF_RET | 0x10, 0, 0, 0), // BPF_A: what was loaded
        step(libc::BPF_RET | libc::BPF_K, 0, 0, ANY),
    ]
}

/// Gives the group of `socket` its program.
fn steer(socket: &UdpSocket, shards: usize) -> io::Result<()> {
    let mut steps = program(u32::try_from(shards).unwrap_or(u32::MAX));
    let program = libc::sock_fprog { len: STEPS as u16, filter: steps.as_mut_ptr() };
    let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF);
    // SAFETY: the descriptor is open while `socket` is borrowed. The kernel reads the struct and
    // the `len` steps that it points to, which live to the end of the call, and keeps a copy.
    let result = unsafe {
        let len = size_of::<libc::sock_fprog>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const program).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::base::limits::SHARDS_MAX;

    const SHARDS: usize = 3;

    /// Which of the sockets the next datagram comes to.
    fn taken_by(sockets: &[UdpSocket], wanted: &[u8]) -> usize {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            for (index, socket) in sockets.iter().enumerate() {
                let mut got = [0; 64];
                if let Ok(n) = socket.recv(&mut got) {
                    assert_eq!(&got[..n], wanted);
                    return index;
                }
            }
            std::thread::yield_now();
        }
        panic!("nobody got {wanted:?}");
    }

    #[test]
    fn ids_land_on_their_shard_and_handshakes_spread_by_their_sender() {
        for (bind, host) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            ("[::]:0", "127.0.0.1"),
            ("[::]:0", "::1"),
        ] {
            let sockets = bind_swarm(bind.parse().unwrap(), SHARDS).unwrap();
            let ports: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
            assert!(ports[0] != 0 && ports.iter().all(|&port| port == ports[0]), "{ports:?}");
            let to = (host.parse::<IpAddr>().unwrap(), ports[0]);
            let mut opened = [0; SHARDS];
            for _ in 0..60 {
                let sender = UdpSocket::bind((host, 0)).unwrap();
                let send = |word: u32| {
                    let bytes = [&word.to_be_bytes()[..], b"and more"].concat();
                    sender.send_to(&bytes, to).unwrap();
                    taken_by(&sockets, &bytes)
                };
                for shard in 0..SHARDS as u32 {
                    for top in [0x8000_0000, 0x4000_0000, 0xC012_3400, 0xFFFF_FF00] {
                        assert_eq!(send(top | shard), shard as usize, "{bind}: {top:x}");
                    }
                }
                // An opening and its repetition, words that nobody issued, shards that are not.
                let home = send(0);
                opened[home] += 1;
                for word in [0, 1, 0x3FFF_FF02, 0x8000_0003, 0x4000_00FF] {
                    assert_eq!(send(word), home, "{bind}: {word:x}");
                }
            }
            assert!(opened.iter().all(|&n| n > 3), "{bind}: {opened:?}");
            // Too short for a word: the first shard's.
            UdpSocket::bind((host, 0)).unwrap().send_to(b"abc", to).unwrap();
            assert_eq!(taken_by(&sockets, b"abc"), 0);
        }
    }

    #[test]
    fn a_port_that_others_share_is_taken() {
        for any in ["127.0.0.1:0", "[::]:0"] {
            for (first, second) in [(1, 1), (2, 2), (1, 2), (2, 1)] {
                let sockets = bind_swarm(any.parse().unwrap(), first).unwrap();
                let mut addr: SocketAddr = any.parse().unwrap();
                addr.set_port(sockets[0].local_addr().unwrap().port());
                let error = bind_swarm(addr, second).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
                assert!(error.to_string().contains(&addr.to_string()), "{error}");
                drop(sockets);
                assert_eq!(bind_swarm(addr, second).unwrap().len(), second, "free again");
            }
        }
    }

    /// Port 0 never lands in the group of another relay.
    #[test]
    fn a_picked_port_is_nobody_elses() {
        let any = "127.0.0.1:0".parse().unwrap();
        let groups: Vec<_> = (0..200).map(|_| bind_swarm(any, 2).unwrap()).collect();
        let mut ports: Vec<_> = groups.iter().map(|g| g[0].local_addr().unwrap().port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), groups.len());
    }

    #[test]
    fn impossible_counts_are_refused() {
        let any = "127.0.0.1:0".parse().unwrap();
        for count in [0, SHARDS_MAX + 1] {
            assert_eq!(bind_swarm(any, count).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    /// Too large for the way is an error and no fragments.
    #[test]
    fn nothing_is_fragmented() {
        for (any, to) in [("127.0.0.1:0", "127.0.0.1:9"), ("[::]:0", "[::ffff:127.0.0.1]:9")] {
            let socket = bind_swarm(any.parse().unwrap(), 1).unwrap().remove(0);
            for (level, option) in [
                (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
                (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
            ] {
                if level == libc::IPPROTO_IP || any.starts_with('[') {
                    assert_eq!(option_of(&socket, level, option), libc::IP_PMTUDISC_DO);
                }
            }
            // Not fragments, but more than any datagram.
            let error = socket.send_to(&[0; 65_536], to).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        }
    }

    fn option_of(socket: &UdpSocket, level: i32, option: i32) -> i32 {
        let (mut value, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
        // SAFETY: the kernel writes at most `len` bytes to `value`, and `len` itself; both live
        // to the end of the call.
        let result = unsafe {
            let value = (&raw mut value).cast();
            libc::getsockopt(socket.as_raw_fd(), level, option, value, &raw mut len)
        };
        assert_eq!(result, 0);
        value
    }
}
