//! What a peer has told us about itself, and what it keeps asking for.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::channel::Channels;
use crate::swarm::controller::{LOTS, Orders, lot, mix};
use crate::swarm::stripes::STRIPES;
use crate::wire::ppspp::{Link, Links, Report, State};

/// Ticks over which rescues are reckoned: three seconds of them.
const OVER: u16 = 12;

/// The part of a stripe that must be asked for, over that time, until it is pushed...
const LEASE_AT: f64 = 0.5;

/// ...for so many ticks: eight seconds.
const LEASE: u8 = 32;

/// How much of that is still on record when a lease is over: it comes back soon if need be.
const LEASE_AFTER: f64 = 0.6;

/// Rescued chunks are counted in these parts, so that a slow stream's few do not get lost.
const PARTS: u16 = 16;

/// Ticks over which a peer that was pushed everything is weaned of it, stripe by stripe.
const WEANING: u32 = 12;

/// For so long after a peer first asked for the stream its questions are about what it missed.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Addresses that a peer is told without having asked, at once; two more every tick.
const NAMED_MAX: u8 = 24;

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

    /// How many there are.
    pub(super) fn count(&self) -> u8 {
        self.count
    }

    /// Whether one is among them.
    pub(super) fn has(&self, id: u32) -> bool {
        self.ids[..usize::from(self.count)].contains(&id)
    }
}

/// Stripes that are asked for again and again are pushed for a while: their **lease**.
#[derive(Clone, Copy, Debug, Default)]
struct Leases {
    /// Chunks asked for, a sum that fades over [`OVER`], in [`PARTS`].
    rescued: [u16; STRIPES],
    /// Ticks that are left.
    left: [u8; STRIPES],
}

impl Leases {
    fn stripes(&self) -> u8 {
        let bit = |(stripe, left): (usize, &u8)| u8::from(*left > 0) << stripe;
        self.left.iter().enumerate().map(bit).sum()
    }

    /// A quarter of a second is over. `chunks`: of one stripe in that time.
    fn tick(&mut self, pushed: u8, chunks: f64) -> u64 {
        let all = chunks * f64::from(OVER) * f64::from(PARTS);
        let mut begun = 0;
        for stripe in 0..STRIPES {
            let (rescued, left) = (&mut self.rescued[stripe], &mut self.left[stripe]);
            if *left > 0 {
                *left -= 1;
                *rescued = if *left == 0 { (all * LEASE_AT * LEASE_AFTER) as u16 } else { 0 };
            } else if pushed >> stripe & 1 == 0 && f64::from(*rescued) >= all * LEASE_AT {
                *left = LEASE;
                begun += 1;
            }
            *rescued -= rescued.div_ceil(OVER);
        }
        begun
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
    leases: Leases,
    /// When it was last answered a wish for addresses.
    pub(super) answered: Option<Mono>,
    /// Addresses that it was told unasked, a number that fades.
    named: u8,
    /// Ticks since weaning began; 0: it has not.
    weaned: u8,
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
            leases: Leases::default(),
            answered: None,
            named: 0,
            weaned: 0,
        })
    }

    /// Its neighbours have changed.
    pub(super) fn take(&mut self, links: Links<'_>, channels: &Channels) {
        self.neighbours.take(links, channels);
    }

    /// It was never pushed everything, and need not be weaned of it.
    pub(super) fn begin_lean(&mut self) {
        self.weaned = u8::MAX;
    }

    /// Whether it has caught up with the stream.
    pub(super) fn is_settled(&self, now: Mono) -> bool {
        self.since.is_some_and(|since| now.since(since) >= CATCH_UP)
    }

    /// It was sent chunks because it asked.
    pub(super) fn rescued(&mut self, stripe: usize, chunks: u64) {
        let parts = u16::try_from(chunks).unwrap_or(u16::MAX).saturating_mul(PARTS);
        let rescued = &mut self.leases.rescued[stripe % STRIPES];
        *rescued = rescued.saturating_add(parts);
    }

    /// Whether it may be told one more address that it did not ask for.
    pub(super) fn may_be_named(&mut self) -> bool {
        let may = self.named < NAMED_MAX;
        self.named += u8::from(may);
        may
    }

    /// A quarter of a second is over. `chunks`: of one stripe in that time. Returns how many
    /// leases began.
    pub(super) fn tick(&mut self, hybrid: bool, pushed: u8, chunks: f64) -> u64 {
        self.named -= self.named.min(2);
        if !hybrid {
            self.weaned = 0;
            self.leases = Leases::default();
            return 0;
        }
        // Who can pass on nothing and has nobody to get it from would only ask for all of it.
        let ready = self.state.is_some() && self.neighbours.count() > 0;
        if self.weaned > 0 || ready {
            self.weaned = self.weaned.saturating_add(1);
        }
        self.leases.tick(pushed, chunks)
    }

    /// Leases that run.
    pub(super) fn leases(&self) -> u32 {
        self.leases.stripes().count_ones()
    }

    /// The stripes that are pushed to it.
    pub(super) fn stripes(&self, orders: &Orders, channel: u32) -> u8 {
        let mut stripes = orders.stripes(channel) | self.leases.stripes();
        if u32::from(self.weaned) <= WEANING {
            let kept =
                |stripe: &usize| lot(!channel, *stripe) * WEANING >= u32::from(self.weaned) * LOTS;
            stripes |= (0..STRIPES).filter(kept).map(|stripe| 1u8 << stripe).sum::<u8>();
        }
        stripes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ShardId;

    fn told() -> Box<Told> {
        Told::new(([10, 0, 0, 1], 7).into(), &Channels::new(&[1; 32], ShardId(0)))
    }

    fn hybrid() -> Orders {
        Orders { hybrid: true, fill: [0; STRIPES], ..Orders::direct(Mono::ZERO) }
    }

    #[test]
    fn a_stripe_that_is_asked_for_all_the_time_is_leased() {
        let (mut told, orders) = (told(), hybrid());
        told.begin_lean();
        assert_eq!(told.stripes(&orders, 9), 0);
        // Ten chunks a tick, of stripe 3 all are asked for, of stripe 4 every third.
        let mut ticks = 0;
        while told.leases() == 0 {
            told.rescued(3, 10);
            told.rescued(4, 3);
            told.tick(true, 0, 10.0);
            ticks += 1;
        }
        assert!((7..=11).contains(&ticks), "{ticks}");
        assert_eq!(told.stripes(&orders, 9), 1 << 3);
        let mut pushed = 0;
        while told.leases() > 0 {
            told.rescued(4, 3);
            told.tick(true, 1 << 3, 10.0);
            pushed += 1;
        }
        assert_eq!(pushed, u32::from(LEASE));
        // Nothing has changed: sooner than the first time.
        ticks = 0;
        while told.leases() == 0 {
            told.rescued(3, 10);
            told.tick(true, 0, 10.0);
            ticks += 1;
        }
        assert!(ticks <= 6, "{ticks}");
        told.tick(false, 0xff, 10.0);
        assert_eq!(told.leases(), 0);
        for _ in 0..100 {
            told.tick(true, 0, 10.0);
        }
        assert_eq!(told.leases(), 0, "nothing was asked for");
    }

    #[test]
    fn weaning_takes_three_seconds_and_begins_with_a_neighbour() {
        let (mut told, orders) = (told(), hybrid());
        for _ in 0..100 {
            told.tick(true, 0xff, 10.0);
        }
        assert_eq!(told.stripes(&orders, 9), 0xff, "nobody to get it from");
        told.state = Some(State::default());
        let link = Link { address: ([10, 0, 0, 2], 7).into(), stripes_in: 0 };
        let mut buf = [0; Links::MAX * Link::BYTES];
        let channels = Channels::new(&[1; 32], ShardId(1));
        told.take(Links::fill(std::iter::once(link), &mut buf), &channels);
        assert!(told.neighbours.has(channels.name(link.address)));
        let mut before = 0xff_u8;
        for _ in 0..=WEANING {
            told.tick(true, 0xff, 10.0);
            let now = told.stripes(&orders, 9);
            assert_eq!(now & !before, 0, "none comes back");
            assert!((before & !now).count_ones() <= 4, "not all at once");
            before = now;
        }
        assert_eq!(before, 0);
        told.tick(false, 0, 10.0);
        assert_eq!(told.stripes(&Orders::direct(Mono::ZERO), 9), 0xff);
    }
}
