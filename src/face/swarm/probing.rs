//! A peer measures what its line carries: it sends a train in one go, and hears how fast it came.
//!
//! The attack: somebody sends nothing but such trains, or far more than that. Each datagram costs
//! a look, no train is answered more than once or with more bytes than it has, only one a second
//! or so counts, and what a session keeps for it is forgotten soon after. Who wants to be taken
//! for a faster line could say so without any of this.

use std::collections::HashMap;

use bytes::Bytes;

use crate::base::time::Mono;
use crate::face::swarm::Swarm;
use crate::metrics::table::Cell;
use crate::swarm::probing::{Heard, Probing};
use crate::wire::ppspp::{Addressing, Message, Private, Probe, Writer};

/// Trains that are measured at the same time, at most; others are dropped, and come again. Each is
/// kept for a second or so, in 400 bytes, and thousands come in that time when a popular stream
/// begins: whose line nobody has measured feeds nobody.
const TRAINS_MAX: usize = 8_192;

/// Bytes of an answer. A probe has more.
const ANSWER_BYTES: usize = 4 + 3 + 1 + 4;

/// Trains under way, by our channel.
#[derive(Debug, Default)]
pub(super) struct Probings(HashMap<u32, Probing>);

impl Probings {
    /// Takes a datagram of `bytes` on one of our channels.
    pub(super) fn hear(
        &mut self,
        now: Mono,
        channel: u32,
        probe: &Probe<'_>,
        bytes: usize,
    ) -> Heard {
        let room = self.0.len() < TRAINS_MAX;
        match self.0.get_mut(&channel) {
            Some(train) if !train.makes_room(now, probe) => train.hear(now, probe, bytes),
            None if !room => Heard::Dropped,
            _ => {
                let (heard, train) = Probing::begin(now, probe, bytes);
                self.0.extend(train.map(|train| (channel, train)));
                heard
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Swarm {
    /// Tells a peer how fast its train came.
    pub(super) fn tell_rate(&mut self, place: u32, run: u8, kbit: u32) {
        let mut buf = [0; ANSWER_BYTES];
        let mut writer = Writer::new(&mut buf, 0, Addressing::default());
        let whole = writer.push(Message::Private(Private::Probed { run, kbit }));
        debug_assert!(whole);
        let head = Bytes::copy_from_slice(writer.written());
        self.cells.add(Cell::SwarmProbesAnswered, 1);
        self.send(place, head);
    }

    /// Answers the trains whose end was lost, and forgets those that are long over. Sessions may
    /// have ended since.
    pub(super) fn end_trains(&mut self, now: Mono) {
        let mut over = Vec::new();
        self.probings.0.retain(|channel, train| {
            over.extend(train.give_up(now).map(|answer| (*channel, answer)));
            !train.is_over(now)
        });
        over.sort_unstable();
        for (channel, (run, kbit)) in over {
            if let Some((place, _)) = self.sessions.find(channel) {
                self.tell_rate(place, run, kbit);
            }
        }
    }
}
