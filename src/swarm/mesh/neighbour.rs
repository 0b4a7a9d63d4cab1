//! What is known of one neighbour, and what it would cost to ask it.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::mesh::Key;

/// The longest lag that counts.
const LAG_MAX: Duration = Duration::from_secs(2);

/// A neighbour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbour {
    pub key: Key,
    pub rtt: Duration,
    /// What it can still push; `None` as long as it has said nothing.
    pub room_kbit: Option<u32>,
    /// How much later than the first one it announces.
    pub lag: Duration,
    /// The stripes that we push to it.
    pub children: u8,
    /// The stripes that the relay wants it to push to us.
    pub advised: u8,
    /// When anything last came from it.
    pub heard: Mono,
}

impl Neighbour {
    pub(super) fn new(now: Mono, key: Key, rtt: Duration) -> Neighbour {
        let lag = Duration::ZERO;
        Neighbour { key, rtt, room_kbit: None, lag, children: 0, advised: 0, heard: now }
    }

    /// The mean over about eight announcements.
    pub(super) fn note_lag(&mut self, lag: Duration) {
        self.lag = (self.lag * 7 + lag.min(LAG_MAX)) / 8;
    }

    /// Whether it has room for `kbit` more. Who has said nothing may have.
    pub(super) fn has_room(&self, kbit: u32) -> bool {
        self.room_kbit.is_none_or(|room| room >= kbit)
    }
}
