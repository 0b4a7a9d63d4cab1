//! The sockets of the configured ingests: bound before the relay says that it is ready, then
//! handed to the shard that each one lives on.

use std::net::{TcpListener, UdpSocket};

use tracing::warn;

use crate::base::ids::{ListenerId, SocketId, StreamName};
use crate::ingest::settings::{Settings, Way};
use crate::io::{socket, udp};

/// One bound socket.
enum Door {
    Udp(UdpSocket),
    Tcp(TcpListener),
}

/// What one shard gets.
pub(super) type Handed = (Vec<(ListenerId, TcpListener)>, Vec<(SocketId, UdpSocket)>);

/// What is bound and not yet handed out, by the index in the configuration.
pub(super) struct Doors(Vec<Option<Door>>);

impl Doors {
    /// Binds everything.
    ///
    /// # Errors
    /// One line that names the stream, the key and the address.
    pub fn open(ingest: &[Settings]) -> Result<Doors, String> {
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
                    let bound = socket::listen(address, 1).map_err(|why| name("tcp", why))?;
                    Door::Tcp(bound.into_iter().next().ok_or("no listener")?)
                }
            }))
        };
        ingest.iter().map(open).collect::<Result<_, String>>().map(Doors)
    }

    /// Each stream and its way in, with the real port.
    pub fn ways(&self, ingest: &[Settings]) -> Vec<(StreamName, Way)> {
        let ways = ingest.iter().zip(&self.0).map(|(settings, door)| {
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

    /// Hands out what lives on shard `id`: every `shards`th, from the shard's number on.
    pub fn of_shard(&mut self, id: usize, shards: usize) -> Handed {
        let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
        for (index, door) in (0u16..).zip(&mut self.0).skip(id).step_by(shards.max(1)) {
            match door.take() {
                Some(Door::Udp(socket)) => sockets.push((SocketId(index), socket)),
                Some(Door::Tcp(listener)) => listeners.push((ListenerId(index + 1), listener)),
                None => {}
            }
        }
        (listeners, sockets)
    }
}
