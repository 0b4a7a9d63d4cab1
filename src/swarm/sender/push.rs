//! How a relay pushes: whole subtrees in order, and news of those that it does not push.

use std::ops::Range;
use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::requests::Run;
use crate::swarm::sender::{HAVE, HAVE_WITHHELD, LAG_MAX, PROBE};
use crate::swarm::sender::{Parcel, Sender, Source, Stock, Why, whole};
use crate::swarm::stripes::bit_of;

impl Sender {
    /// What the push sends next.
    pub(super) fn push(&mut self, now: Mono, stock: &impl Stock) -> Option<Parcel> {
        let source = stock.source();
        if self.cut.is_some() {
            return self.push_parts(now, stock);
        }
        if !self.pushes() {
            return None;
        }
        self.keep_up(now, source);
        self.pass(source);
        let run = whole(self.next, source.size)?;
        // Questions are about what is played sooner: as long as some wait for their pace, the
        // push leaves them room, or it would keep them waiting for round trips.
        let room = if self.asked { 2 * source.size } else { source.size };
        if self.next >= source.subtrees.end || !self.has_room(room as u32, source) {
            return None;
        }
        Some(self.push_one(now, run, Why::Push, source))
    }

    /// Goes on at the live edge if the push is too far behind for any player: what was skipped
    /// counts as lost.
    fn keep_up(&mut self, now: Mono, source: &Source) {
        let Range { start, end } = source.subtrees;
        let behind = end.saturating_sub(self.next);
        if self.next >= start && behind <= source.trains_in(LAG_MAX) {
            return;
        }
        let Some(newest) = source.newest() else { return };
        let skipped = newest.saturating_sub(self.next).saturating_mul(source.size);
        let skipped = skipped / 8 * u64::from(self.pushed_stripes().count_ones());
        let skipped = u32::try_from(skipped).unwrap_or(u32::MAX);
        self.losses.note(now, skipped, skipped);
        (self.next, self.fresh) = (newest, 0);
    }

    fn push_one(&mut self, now: Mono, run: Run, why: Why, source: &Source) -> Parcel {
        let subtree = run.first() / source.size;
        self.go_to(self.next.max(subtree + 1), true);
        self.requests.remove(run);
        self.send(now, run, source);
        Parcel { subtree, hash: true, run: Some(run), why }
    }

    /// Goes on behind subtrees that are not pushed: of those the peer is told.
    pub(super) fn pass(&mut self, source: &Source) {
        let end = source.subtrees.end;
        if self.cut.is_some() {
            return;
        }
        if !self.pushes() {
            self.go_to(self.next.max(end), false);
        }
        while self.next < end && !self.wants(self.next, source.size) {
            self.go_to(self.next + 1, self.had(self.next, source.size));
        }
        if self.next >= end {
            self.fresh = 0;
        }
    }

    /// Of those up to `next` the peer knows, or is to be told.
    fn go_to(&mut self, next: u64, known: bool) {
        if known && self.untold == self.next {
            self.untold = next;
        }
        self.next = next;
    }

    /// Whether a subtree is to be pushed.
    fn wants(&self, subtree: u64, size: u64) -> bool {
        let stripe = bit_of(subtree);
        self.pushed_stripes() & !self.fresh & stripe != 0 && !self.had(subtree, size)
    }

    /// Whether the push is yet to bring a subtree.
    pub(super) fn is_to_come(&self, subtree: u64, size: u64) -> bool {
        subtree >= self.next && self.wants(subtree, size)
    }

    /// Whether the peer has a subtree, by its own account.
    fn had(&self, subtree: u64, size: u64) -> bool {
        whole(subtree, size).zip(self.had).is_some_and(|(run, had)| had.holds(run))
    }

    /// One train to a peer that is silent: the next of a push, or the next answer. Of a
    /// forwarder one chunk, of those sent last.
    pub(super) fn probe(
        &mut self,
        now: Mono,
        question: Option<Run>,
        stock: &impl Stock,
    ) -> Option<Parcel> {
        if now < self.probe_at {
            return None;
        }
        let source = stock.source();
        self.flight.clear();
        self.probe_at = now + PROBE;
        if self.pushes()
            && self.cut.is_none()
            && let Some(newest) = source.newest()
        {
            self.keep_up(now, source);
            self.pass(source);
            let run = whole(self.newest_pushed(newest), source.size)?;
            return Some(self.push_one(now, run, Why::Probe, source));
        }
        let last = self.cut.as_ref().and_then(|cut| cut.last(stock));
        let Some(run) = last.or(question) else {
            self.probing = false;
            return None;
        };
        self.send(now, run, source);
        let subtree = run.first() / source.size;
        let hash = self.cut.is_none();
        Some(Parcel { subtree, hash, run: Some(run), why: Why::Probe })
    }

    /// The next subtree that is pushed, or the last one, if `newest` is the newest there is.
    fn newest_pushed(&self, newest: u64) -> u64 {
        let next = self.next.min(newest);
        let pushed = |subtree: &u64| self.pushed_stripes() & bit_of(*subtree) != 0;
        (next.saturating_sub(7)..=next).rev().find(pushed).unwrap_or(next)
    }

    /// News of subtrees that are not pushed.
    pub(super) fn have(&mut self, now: Mono, stock: &impl Stock) -> Option<Run> {
        let due = now >= self.tells_from(stock);
        let source = stock.source();
        let run = if let Some(cut) = &mut self.cut {
            let pushed = if self.choked { 0 } else { self.stripes & self.allowed };
            // More of them at once, if they are in several rows.
            let due = due || now == self.have_at;
            cut.news(stock, pushed, due)
        } else {
            self.pass(source);
            if self.pushes_all() {
                // The hash datagrams tell.
                self.untold = self.next;
            }
            // What was pushed meanwhile may be told of as well. All below `next` exists, but for
            // a subscription from later on.
            let begin = self.untold.max(source.subtrees.start);
            let end = self.next.min(source.subtrees.end);
            let run = Run::new(begin * source.size, (end * source.size).saturating_sub(1));
            if due || run.is_none() {
                self.untold = self.next;
            }
            run.filter(|_| due)
        }?;
        self.have_at = now;
        self.unheard = self.unheard.saturating_add(1);
        Some(run)
    }

    /// Whether there will be news without anything happening.
    pub(super) fn has_news(&self) -> bool {
        self.cut.as_ref().map_or(self.untold < self.next, |cut| cut.has_news())
    }

    /// From when on the peer may be told of them.
    pub(super) fn tells_from(&self, stock: &impl Stock) -> Mono {
        stock.tells_from().unwrap_or(self.have_at + self.have_every())
    }

    /// How often there are.
    fn have_every(&self) -> Duration {
        if self.is_member() && !self.choked { HAVE_WITHHELD } else { HAVE }
    }
}
