//! What a peer has told us about itself, and what it was told.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::channel::Channels;
use crate::swarm::controller::mix;
use crate::swarm::stripes::STRIPES;
use crate::wire::ppspp::{Link, Links, Report, State};

/// For so long after a peer first asked for the stream its questions are about what it missed.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Addresses that a peer is told without having asked, at once, and how many more every tick:
/// who is to feed many hears of all of them when a stream becomes hybrid.
const NAMED_MAX: u8 = 128;
const NAMED_TICK: u8 = 16;

/// The neighbours that a peer told of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Neighbours {
    /// Their names in pictures.
    ids: [u32; Links::MAX],
    /// The stripes that each pushes to the peer.
    stripes: [u8; Links::MAX],
    count: u8,
    /// Over their addresses: whether they are still the same.
    sum: u64,
}

impl Neighbours {
    /// Takes a new list. Names are made only when there are other addresses: each costs a hash.
    fn take(&mut self, links: Links<'_>, channels: &Channels) {
        let sum = |sum: u64, link: Link| {
            let bytes = link.to_bytes();
            let words = bytes[..18]
                .chunks(8)
                .map(|part| part.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte)));
            words.fold(sum, |sum, word| mix(sum ^ word))
        };
        let sum = links.iter().fold(links.len() as u64, sum);
        let same = sum == self.sum && links.len() == usize::from(self.count);
        (self.sum, self.count) = (sum, links.len() as u8);
        for (at, link) in links.iter().enumerate() {
            self.stripes[at] = link.stripes_in;
            if !same {
                self.ids[at] = channels.name(link.address);
            }
        }
    }

    /// Name and stripes of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u8)> {
        let count = usize::from(self.count);
        self.ids[..count].iter().copied().zip(self.stripes)
    }
}

/// All of it. Only for peers with our extensions.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// Its name in pictures.
    pub(super) id: u32,
    /// When it first wanted the stream.
    pub(super) since: Option<Mono>,
    pub(super) report: Option<Report>,
    pub(super) state: Option<State>,
    pub(super) neighbours: Neighbours,
    /// When it was last answered a wish for addresses.
    pub(super) answered: Option<Mono>,
    /// Addresses that it was told unasked, a number that fades.
    named: u8,
    /// Who is to feed it, by the channel of each, as it was last told, and when that was.
    pub(super) parents: [u32; STRIPES],
    pub(super) advised: Option<Mono>,
}

impl Told {
    /// Of a peer at `to`, which has said nothing yet.
    pub(super) fn new(to: SocketAddr, channels: &Channels) -> Box<Told> {
        Box::new(Told {
            id: channels.name(to),
            since: None,
            report: None,
            state: None,
            neighbours: Neighbours::default(),
            answered: None,
            named: 0,
            parents: [0; STRIPES],
            advised: None,
        })
    }

    /// Its neighbours have changed.
    pub(super) fn take(&mut self, links: Links<'_>, channels: &Channels) {
        self.neighbours.take(links, channels);
    }

    /// Whether it has caught up with the stream.
    pub(super) fn is_settled(&self, now: Mono) -> bool {
        self.since.is_some_and(|since| now.since(since) >= CATCH_UP)
    }

    /// Whether it may be told one more address that it did not ask for.
    pub(super) fn may_be_named(&mut self) -> bool {
        let may = self.named < NAMED_MAX;
        self.named += u8::from(may);
        may
    }

    /// A quarter of a second is over.
    pub(super) fn tick(&mut self) {
        self.named -= self.named.min(NAMED_TICK);
    }
}
