//! The sockets of the configured ingests and of the swarm: bound before the relay says that it
//! is ready, then handed to the shard that each one lives on.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use tracing::warn;

use crate::base::ids::{ListenerId, SocketId, StreamName};
use crate::ingest::settings::{Settings, Way};
use crate::io::{socket, udp};

/// One bound socket.
enum Door {
    Udp(UdpSocket),
    Tcp(TcpListener),
}

/// Binds `address`; on a host without IPv6, where `[::]` cannot be had, all of IPv4.
///
/// # Errors
/// Of `bind`.
pub(super) fn or_ipv4<T>(
    address: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    match bind(address) {
        Err(why) if why.kind() == ErrorKind::Unsupported && address.ip().is_unspecified() => {
            let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            warn!(%address, instead = %ipv4, "this host has no IPv6");
            bind(ipv4)
        }
        outcome => outcome,
    }
}

/// What one shard gets.
pub(super) type Handed = (Vec<(ListenerId, TcpListener)>, Vec<(SocketId, UdpSocket)>);

/// What is bound and not yet handed out.
pub(super) struct Doors {
    /// By the index in the configuration.
    ingest: Vec<Option<Door>>,
    /// By the shard.
    swarm: Vec<Option<UdpSocket>>,
}

impl Doors {
    /// Binds everything: peers come in at `swarm`.
    ///
    /// # Errors
    /// One line that names the stream, the key and the address.
    pub fn open(
        ingest: &[Settings],
        swarm: Option<SocketAddr>,
        shards: usize,
    ) -> Result<Doors, String> {
        let bind = |address| or_ipv4(address, |address| udp::bind_swarm(address, shards));
        let swarm = swarm.map(bind).transpose().map_err(|why| format!("swarm.listen: {why}"))?;
        let swarm = swarm.into_iter().flatten().map(Some).collect();
        let open = |settings: &Settings| {
            let stream = &settings.stream;
            let name = |key: &str, why: std::io::Error| {
                format!("[[ingest]] {key} of stream {:?}: {why}", stream.as_str())
            };
            Ok(Some(match settings.way {
                Way::Udp { address, local, index } => {
                    let bound = udp::bind(address, local, index);
                    let (socket, backlog) = bound.map_err(|why| name("udp", why))?;
                    if backlog < udp::BACKLOG {
                        warn!(
                            %stream, bytes = backlog, wanted = udp::BACKLOG,
                            "net.core.rmem_max allows only a small buffer for datagrams: bursts \
                             may be lost; install tuning/60-headwater.conf"
                        );
                    }
                    Door::Udp(socket)
                }
                Way::Tcp { address } => {
                    let bound = or_ipv4(address, |address| socket::listen(address, 1));
                    let bound = bound.map_err(|why| name("tcp", why))?;
                    Door::Tcp(bound.into_iter().next().ok_or("no listener")?)
                }
            }))
        };
        let ingest = ingest.iter().map(open).collect::<Result<_, String>>()?;
        Ok(Doors { ingest, swarm })
    }

    /// Where peers come in, with the real port.
    pub fn swarm(&self) -> Option<SocketAddr> {
        self.swarm.first()?.as_ref()?.local_addr().ok()
    }

    /// Each stream and its way in, with the real port.
    pub fn ways(&self, ingest: &[Settings]) -> Vec<(StreamName, Way)> {
        let ways = ingest.iter().zip(&self.ingest).map(|(settings, door)| {
            let bound = match door {
                Some(Door::Udp(socket)) => socket.local_addr().ok(),
                Some(Door::Tcp(listener)) => listener.local_addr().ok(),
                None => None,
            };
            let mut way = settings.way;
            if let (Way::Udp { address, .. } | Way::Tcp { address }, Some(bound)) =
                (&mut way, bound)
            {
                *address = bound;
            }
            (settings.stream.clone(), way)
        });
        ways.collect()
    }

    /// Hands out what lives on shard `id`: every `shards`th ingest, from the shard's number on,
    /// and its socket of the swarm.
    pub fn of_shard(&mut self, id: usize, shards: usize) -> Handed {
        let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
        for (index, door) in (0u16..).zip(&mut self.ingest).skip(id).step_by(shards.max(1)) {
            match door.take() {
                Some(Door::Udp(socket)) => sockets.push((SocketId(index), socket)),
                Some(Door::Tcp(listener)) => listeners.push((ListenerId(index + 1), listener)),
                None => {}
            }
        }
        let swarm = self.swarm.get_mut(id).and_then(Option::take);
        sockets.extend(swarm.map(|socket| (SocketId::SWARM, socket)));
        (listeners, sockets)
    }
}
