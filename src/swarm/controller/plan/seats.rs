//! Peers come, go, and say what they can carry.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::controller::PROVEN;
use crate::swarm::controller::census::Member;
use crate::swarm::controller::plan::Row;
use crate::swarm::controller::plan::forest::{Branch, Forest, bits};
use crate::swarm::controller::plan::trust::{Bars, Trust};
use crate::swarm::realm::Realm;
use crate::swarm::stripes::{STRIPES, rate_of};

/// The part of an upload that is planned with, in percent.
const PLANNED: u64 = 95;

/// The most links of one peer.
const SLOTS_MAX: u64 = 48;

/// A line that wavers around a whole number of links is taken at the lower one: more only if it
/// is more than that by a quarter, or was never less for so long.
const STEADY: Duration = Duration::from_secs(10);

/// The round trip of a peer that has not been measured, in milliseconds.
const RTT_UNKNOWN: u32 = 80;

/// A round trip that is other by more than this, in milliseconds, and by a quarter is taken, an
/// eighth of the difference each time.
const RTT_OTHER: u32 = 10;

/// Bits of a subtree, and how long it lasts at most, in milliseconds.
const SUBTREE: u64 = 16 * 1_316 * 8;
const SUBTREE_LASTS: u64 = 150;

/// A bitrate that is other by this much, in percent, is taken after [`RATE_OVER`]; by that much,
/// at once.
const RATE_OTHER: u64 = 5;
const RATE_FAR: u64 = 25;
const RATE_OVER: Duration = Duration::from_secs(5);

/// The bitrate that is planned with: no encoder keeps its own exactly, and a plan must not
/// change with every reading.
#[derive(Debug, Default)]
pub(super) struct Rate {
    held: u64,
    other: Option<Mono>,
}

impl Rate {
    /// Takes a reading.
    pub(super) fn take(&mut self, now: Mono, bitrate: u64) {
        let off = self.held.abs_diff(bitrate) * 100;
        if bitrate == 0 || off < self.held * RATE_OTHER {
            self.other = None;
        } else {
            let since = *self.other.get_or_insert(now);
            if off >= self.held * RATE_FAR || now.since(since) >= RATE_OVER {
                (self.held, self.other) = (bitrate, None);
            }
        }
    }

    /// What one stripe takes in bits per second; 0 as long as nobody knows.
    pub(super) fn stripe(&self) -> u64 {
        rate_of(self.held)
    }

    /// How long a line takes for one subtree that carries so many stripes, in milliseconds.
    fn train(&self, stripes: u16) -> u32 {
        let lasts = (SUBTREE * 1_000).checked_div(self.held).unwrap_or(SUBTREE_LASTS);
        (lasts.min(SUBTREE_LASTS) * STRIPES as u64 / u64::from(stripes.max(1))) as u32
    }
}

/// A round trip in milliseconds.
fn millis(rtt: Duration) -> u32 {
    if rtt.is_zero() { RTT_UNKNOWN } else { rtt.as_millis().clamp(1, 2_000) as u32 }
}

/// One peer.
#[derive(Debug)]
pub(super) struct Seat {
    /// What it is told.
    pub(super) row: Row,
    pub(super) realm: Realm,
    /// Its round trip to the relay, and how long its line takes for a subtree, in milliseconds.
    pub(super) rtt: u32,
    pub(super) train: u32,
    /// When it came.
    pub(super) came: Mono,
    /// Stripes it asks the relay for; has a parent in; has got from that parent.
    pub(super) relayed: u8,
    pub(super) fed: u8,
    pub(super) delivered: u8,
    /// Stripes in which it is one of those whom the relay shall feed.
    pub(super) root: u8,
    /// Stripes in which it waits for a parent, while parents are looked for.
    pub(super) waiting: u8,
    /// Links that its line carries as it says, when that last became less, links that it is
    /// given, and links that it has.
    pub(super) said: u16,
    pub(super) lessened: Mono,
    pub(super) slots: u16,
    pub(super) used: u16,
    pub(super) trust: Trust,
    pub(super) bars: Bars,
    pub(super) branches: [Branch; STRIPES],
}

impl Seat {
    pub(super) fn free(&self) -> u16 {
        self.slots.saturating_sub(self.used)
    }

    /// How bad it is as a parent of parents, as far as its line goes: a subtree goes through all
    /// of its children before it is everywhere.
    pub(super) fn slowness(&self) -> u32 {
        self.train.saturating_mul(6).saturating_add(self.rtt)
    }

    /// Links that it keeps for the stripes other than `stripe` in which it is a root, if each
    /// root shall feed so many.
    pub(super) fn reserve(&self, stripe: Option<usize>, share: u16) -> u16 {
        let own = stripe.map_or(0, |stripe| 1 << stripe);
        bits(self.root & !own).fold(0, |sum: u16, other| {
            sum.saturating_add(share.saturating_sub(self.branches[other].children))
        })
    }

    /// Whether the stripe comes from its parent at the moment, or is pushed by the relay.
    pub(super) fn is_sure_of(&self, stripe: usize) -> bool {
        let bit = 1 << stripe;
        self.fed & bit == 0 || self.delivered & !self.relayed & bit != 0
    }

    fn new(now: Mono, member: &Member) -> Seat {
        let rtt = millis(member.rtt);
        Seat {
            row: Row { channel: member.channel, address: member.address, parents: [0; STRIPES] },
            realm: Realm::of(member.address.ip()),
            rtt,
            train: 0,
            came: now - member.age,
            relayed: member.relayed,
            fed: 0,
            delivered: 0,
            root: 0,
            waiting: 0,
            said: 0,
            lessened: Mono::ZERO,
            slots: 0,
            used: 0,
            trust: Trust::default(),
            bars: Bars::default(),
            branches: [Branch::new(now, rtt); STRIPES],
        }
    }

    /// Takes what is new about the peer.
    fn take(&mut self, now: Mono, member: &Member, rate: &Rate) {
        let (rtt, held) = (millis(member.rtt), self.rtt);
        if rtt.abs_diff(held) > (held / 4).max(RTT_OTHER) {
            self.rtt = (held * 7 + rtt) / 8;
        }
        let turned = self.relayed ^ member.relayed;
        self.relayed = member.relayed;
        bits(turned).for_each(|stripe| self.branches[stripe].turned = now);
        // In hundredths of a link.
        let carries = u64::from(member.upload_kbit) * 1_000 * PLANNED;
        let carries = carries.checked_div(rate.stripe()).unwrap_or(0).min(SLOTS_MAX * 100);
        let whole = (carries / 100) as u16;
        if whole < self.said {
            (self.said, self.lessened) = (whole, now);
        } else if self.said == 0
            || carries >= u64::from(self.said) * 100 + 125
            || now.since(self.lessened) >= STEADY
        {
            self.said = whole;
        }
        self.train = rate.train(self.said);
        let proven = now.since(self.came) >= PROVEN;
        self.slots = if proven { self.trust.limit(now, self.said) } else { 0 };
    }
}

impl Forest {
    /// Takes who is there: newcomers are left to the relay, and so are the children of those
    /// who are gone.
    pub(super) fn sync(&mut self, now: Mono, members: &[Member], rate: &Rate) {
        let heard = (0u32..).zip(members).map(|(at, member)| (member.channel, at));
        let mut heard: Vec<(u32, u32)> = heard.filter(|(channel, _)| *channel != 0).collect();
        heard.sort_unstable();
        heard.dedup_by_key(|(channel, _)| *channel);
        let before = std::mem::take(&mut self.order);
        let mut before = before.into_iter().peekable();
        let mut order = Vec::with_capacity(heard.len());
        for (channel, at) in heard {
            let member = &members[at as usize];
            while let Some((_, gone)) = before.next_if(|(known, _)| *known < channel) {
                self.leave(gone);
            }
            let known = before.next_if(|(known, _)| *known == channel).map(|(_, seat)| seat);
            let seat = match known {
                Some(seat) if self.seat(seat).row.address == member.address => seat,
                other => {
                    if let Some(gone) = other {
                        self.leave(gone);
                    }
                    self.join(now, member)
                }
            };
            self.seat_mut(seat).take(now, member, rate);
            order.push((channel, seat));
        }
        for (_, gone) in before {
            self.leave(gone);
        }
        self.order = order;
    }

    fn join(&mut self, now: Mono, member: &Member) -> u32 {
        let seat = Seat::new(now, member);
        if let Some(vacant) = self.vacant.pop() {
            *self.seat_mut(vacant) = seat;
            return vacant;
        }
        self.seats.push(seat);
        self.seats.len() as u32 - 1
    }

    fn leave(&mut self, gone: u32) {
        for stripe in 0..STRIPES {
            self.detach(stripe, gone);
            let children: Vec<u32> = self.children(stripe, gone).collect();
            children.into_iter().for_each(|child| self.detach(stripe, child));
        }
        self.vacant.push(gone);
    }

    /// Takes children away from those who have more than they carry: first those on whom nobody
    /// hangs, the newest before others.
    pub(super) fn shed(&mut self) {
        for at in 0..self.order.len() {
            let parent = self.order[at].1;
            let over = self.seat(parent).used.saturating_sub(self.seat(parent).slots);
            if over == 0 {
                continue;
            }
            let mut children = Vec::with_capacity(self.seat(parent).used.into());
            for stripe in 0..STRIPES {
                children.extend(self.children(stripe, parent).map(|child| {
                    let branch = self.branch(stripe, child);
                    (branch.children > 0, std::cmp::Reverse(branch.planned), child, stripe)
                }));
            }
            children.sort_unstable();
            for (.., child, stripe) in children.into_iter().take(over.into()) {
                self.detach(stripe, child);
            }
        }
    }
}
