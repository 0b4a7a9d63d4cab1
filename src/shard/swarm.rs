//! Peers on this shard: what the driver says goes to their face, what the face gives goes out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::{ShardId, SocketId};
use crate::base::limits::CHUNK;
use crate::base::time::{Mono, Now};
use crate::face::swarm::notes::Note;
use crate::face::swarm::{self, Shipment};
use crate::io::machine::{Outbox, Output, Train};
use crate::metrics::table::Cell;
use crate::shard::Shard;
use crate::shard::mail::{Mail, Stray};
use crate::swarm::settings::Settings;

/// Datagrams that came to the wrong shard and wait to be passed on. Steering makes them rare;
/// beyond it they are dropped and counted.
const FORWARD_MAX: usize = 256;

/// A shard that has worked more than this share of its time...
const OVERLOAD: f64 = 0.9;

/// ...for this long lets nobody new in.
const OVERLOAD_FOR: Duration = Duration::from_secs(2);

/// What a shard needs to have peers.
#[derive(Clone)]
pub struct Swarming {
    /// What the operator chose.
    pub settings: Arc<Settings>,
    /// The process's secret behind channel ids.
    pub key: [u8; 32],
}

/// Whether the shard has too much to do.
#[derive(Debug, Default)]
pub(super) struct Load {
    since: Option<Mono>,
}

impl Load {
    /// Takes the busy share of the last moments; returns whether nobody new is to be let in.
    pub(super) fn observe(&mut self, now: Mono, busy: f64) -> bool {
        if busy <= OVERLOAD {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.since(since) >= OVERLOAD_FOR
    }
}

impl Shard {
    /// Datagrams from peers.
    pub(super) fn swarm_datagrams(
        &mut self,
        now: Now,
        from: SocketAddr,
        to: Option<IpAddr>,
        segment: usize,
        data: &[u8],
    ) {
        let Some(face) = &mut self.swarm else { return };
        let (out, strays, cells) = (&mut self.out, &mut self.strays, &self.cells);
        face.handle_datagrams(now.mono, from, to, segment, data, &mut |shard, datagram| {
            if *strays < FORWARD_MAX {
                *strays += 1;
                cells.add(Cell::SwarmDatagramsForwarded, 1);
                let stray = Box::new(Stray { from, to, data: datagram.into() });
                out.push_back(Output::Mail { shard, mail: Mail::Stray(stray) });
            } else {
                cells.add(Cell::SwarmForwardDropped, 1);
            }
        });
    }

    /// A datagram that came to another shard. Passed on once only: what names no shard of this
    /// process was not passed on at all.
    pub(super) fn stray(&mut self, now: Now, stray: &Stray) {
        let Some(face) = &mut self.swarm else { return };
        let length = stray.data.len();
        let lost = &mut |_: ShardId, _: &[u8]| {};
        face.handle_datagrams(now.mono, stray.from, stray.to, length, &stray.data, lost);
    }

    /// What another shard's face says to that of this shard.
    pub(super) fn swarm_note(&mut self, now: Now, note: Note) {
        if let Some(face) = &mut self.swarm {
            face.handle_note(now.mono, note);
        }
    }

    /// Mails what the face has to say to those of other shards.
    pub(super) fn post_notes(&mut self) {
        let Some(face) = &mut self.swarm else { return };
        while let Some((shard, note)) = face.poll_note() {
            self.out.push_back(Output::Mail { shard, mail: Mail::Swarm(Box::new(note)) });
        }
    }

    /// The swarm's socket takes no more, or takes more again.
    pub(super) fn swarm_socket(&mut self, socket: SocketId, full: bool) {
        if let Some(face) = self.swarm.as_mut().filter(|_| socket == SocketId::SWARM) {
            face.handle_socket(full);
        }
    }

    /// Sends what the face has next. False if it has nothing.
    pub(super) fn ship(&mut self, now: Now, out: &mut Outbox<Mail>) -> bool {
        let Some(next) = self.swarm.as_mut().and_then(|face| face.poll(now.mono)) else {
            return false;
        };
        let Shipment { to, from, channel, head, headers, header, body } = next;
        out.push(Output::Train(Train {
            socket: SocketId::SWARM,
            to,
            from,
            channel,
            head,
            headers,
            header,
            body,
            chunk: CHUNK as u16,
        }));
        true
    }

    /// The face of a shard that has peers.
    pub(super) fn swarm_face(
        swarming: Option<Swarming>,
        shard: ShardId,
        registry: &Arc<crate::registry::streams::Registry>,
        cells: &Arc<crate::metrics::cells::Cells>,
    ) -> Option<Box<swarm::Swarm>> {
        let Swarming { settings, key } = swarming?;
        let (registry, cells) = (Arc::clone(registry), Arc::clone(cells));
        let parts = swarm::Parts { shard, settings, key, registry, cells };
        Some(Box::new(swarm::Swarm::new(parts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_busy_seconds_close_the_door_and_one_calm_moment_opens_it() {
        let mut load = Load::default();
        let at = |millis: u64| Mono::from_millis(10_000 + millis);
        assert!(!load.observe(at(0), 0.95));
        assert!(!load.observe(at(1_900), 1.0));
        assert!(load.observe(at(2_000), 0.91));
        assert!(!load.observe(at(2_100), 0.9));
        assert!(!load.observe(at(2_200), 0.95));
    }
}
