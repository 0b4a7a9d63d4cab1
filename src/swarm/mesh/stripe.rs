//! One stripe: its parent, and what speaks for another one.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::mesh::track::Track;
use crate::swarm::mesh::{NEIGHBOURS_MAX, Source};

/// From the relay first so many times in a row: the relay pushes the stripe.
const RELAY_RUN: u8 = 2;

/// From the relay so many times in a row, though later than from the parent: it does, too.
const RELAY_COPIES: u8 = 4;

/// Not pushed and whole so many times in a row: the relay does not push it any longer.
const ANSWERED: u8 = 2;

/// So much before we are whole a neighbour announces that would be a better parent.
const LEAD: Duration = Duration::from_millis(150);

/// In so many subtrees of the stripe in a row.
const LEADS: u8 = 4;

/// How long after such a change there is none again; it doubles each time, up to the longest. A
/// neighbour at the same depth always seems better than a parent whose upload we share, so two
/// such would take turns for ever.
const HOLD: Duration = Duration::from_secs(5);
const HOLD_MAX: Duration = Duration::from_secs(80);

/// A stripe of the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stripe {
    /// The place of its parent.
    pub parent: Option<usize>,
    /// When it was last grafted; `None` when its parent has left since.
    pub grafted: Option<Mono>,
    /// The newest subtree that was known when it was: the parent pushes only later ones.
    pub from: u64,
    /// How many subtrees in a row came from the relay first.
    pub relay_run: u8,
    /// How many in a row came from it as a copy.
    pub relay_copies: u8,
    /// How many in a row came only because they were asked for, while the relay should push.
    answered: u8,
    /// When one last did first.
    pub relay_at: Option<Mono>,
    /// How many in a row the parent was late with, while another had them whole.
    pub late_row: u8,
    /// How many of the parent's in a row were copies.
    pub copies: u8,
    /// How many of them in a row of what the relay had been asked for.
    pub echoes: u8,
    /// Of each neighbour: how many subtrees in a row it announced long before we were whole.
    leads: [u8; NEIGHBOURS_MAX],
    /// Somebody who would be better.
    pub rival: Option<usize>,
    /// Before this time nobody is.
    hold_until: Mono,
    hold: Duration,
}

impl Default for Stripe {
    fn default() -> Stripe {
        Stripe {
            parent: None,
            grafted: None,
            from: 0,
            relay_run: 0,
            relay_copies: 0,
            answered: 0,
            relay_at: None,
            late_row: 0,
            copies: 0,
            echoes: 0,
            leads: [0; NEIGHBOURS_MAX],
            rival: None,
            hold_until: Mono::ZERO,
            hold: HOLD,
        }
    }
}

impl Stripe {
    /// Whether nobody feeds it, as far as is known.
    pub(super) fn is_free(&self) -> bool {
        self.parent.is_none() && self.relay_run == 0
    }

    /// Whether the relay pushes it.
    pub(super) fn is_relayed(&self) -> bool {
        self.relay_run >= RELAY_RUN
    }

    /// Who is asked for a subtree of which nothing is known.
    pub(super) fn source(&self) -> Source {
        if self.is_relayed() { Source::Relay } else { Source::Wait }
    }

    /// The relay pushed a subtree of it, as the first or when it was there already.
    pub(super) fn note_relay(&mut self, now: Mono, first: bool) {
        self.relay_at = Some(now);
        if first {
            self.relay_run = self.relay_run.saturating_add(1);
            return;
        }
        self.relay_copies = self.relay_copies.saturating_add(1);
        if self.relay_copies >= RELAY_COPIES {
            self.relay_run = self.relay_run.max(RELAY_RUN);
        }
    }

    /// The relay has stopped pushing it.
    pub(super) fn lapse_relay(&mut self) {
        (self.relay_run, self.relay_copies, self.relay_at) = (0, 0, None);
        self.answered = 0;
    }

    /// A subtree is whole; whether nobody had pushed any of it. One train may be lost as a whole;
    /// after more the relay, if it should push, has stopped: true.
    pub(super) fn note_answered(&mut self, only: bool) -> bool {
        self.answered = if only && self.is_relayed() { self.answered + 1 } else { 0 };
        let lapses = self.answered >= ANSWERED;
        if lapses {
            self.lapse_relay();
        }
        lapses
    }

    /// Its parent is another one, or nobody.
    pub(super) fn set_parent(&mut self, parent: Option<usize>) {
        self.parent = parent;
        self.forget_parent();
    }

    fn forget_parent(&mut self) {
        (self.late_row, self.copies, self.echoes, self.relay_copies) = (0, 0, 0, 0);
        (self.leads, self.rival) = ([0; NEIGHBOURS_MAX], None);
    }

    /// A neighbour is gone.
    pub(super) fn leave(&mut self, slot: usize) {
        self.leads[slot] = 0;
        self.rival = self.rival.filter(|rival| *rival != slot);
        if self.parent == Some(slot) {
            (self.parent, self.grafted) = (None, None);
            self.forget_parent();
        }
    }

    /// A subtree is whole: notes who announced it how long before. Whether somebody is a rival
    /// now.
    pub(super) fn note_leads(&mut self, now: Mono, track: &Track) -> bool {
        let mut led = 0_u32;
        for (slot, at) in track.announcers() {
            let leads = now.since(at) > LEAD && self.parent != Some(slot);
            led |= u32::from(leads) << slot;
        }
        for (slot, count) in self.leads.iter_mut().enumerate() {
            *count = if led & (1 << slot) != 0 { count.saturating_add(1) } else { 0 };
        }
        if self.parent.is_none() || now < self.hold_until {
            return false;
        }
        // The first to announce this one.
        let mut best = track.announcers().filter(|(slot, _)| self.leads[*slot] >= LEADS);
        self.rival = best.next().map(|(slot, _)| slot);
        self.rival.is_some()
    }

    /// A rival has become the parent.
    pub(super) fn hold(&mut self, now: Mono) {
        self.hold_until = now + self.hold;
        self.hold = (self.hold * 2).min(HOLD_MAX);
    }
}
