//! How a forwarder pushes: it cuts through subtrees, chunk by chunk as they come.
//!
//! Subtrees come from several parents, so they begin and end in any order. Of each of the newest
//! ones is kept which chunks were sent to this peer, when, and which it has shown to have: forty
//! bytes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::requests::Run;
use crate::swarm::sender::{Parcel, Sender, Source, Stock, Why};
use crate::swarm::stripes::bit_of;

/// How far the push to a neighbour may fall behind before it goes on at the live edge. By then the
/// neighbour has the relay bring it: it would come twice, and keep what is new waiting.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// The most subtrees that are kept, with those that the peer has and this end does not.
const SLOTS: u64 = 512;

/// How many of them are ahead of the newest known here.
const AHEAD: u64 = 128;

/// How long a neighbour waits for an answer, and a round trip, before it asks somebody else.
const PATIENCE: Duration = Duration::from_millis(300);

/// For how long the peer is told of a subtree that becomes whole late.
const KEPT: Duration = Duration::from_secs(6);

/// One subtree.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Chunks that were sent.
    sent: u16,
    /// Chunks that the peer has, by its own account.
    shown: u16,
    flags: u8,
}

/// The hash datagram was sent.
const HASHED: u8 = 1;

/// Was there before its stripe was added: not pushed.
const PASSED: u8 = 2;

/// The peer was told that it is whole.
const TOLD: u8 = 4;

/// What was sent of it may all have been lost.
const DOUBTED: u8 = 8;

impl Slot {
    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What the peer has, unless it was lost on the way.
    fn has(&self) -> u16 {
        self.sent | self.shown
    }
}

/// What only a forwarder keeps of a link.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// The subtree of the first slot. The others follow without a gap.
    first: u64,
    slots: VecDeque<Slot>,
    /// When each of their chunks was last sent, in milliseconds modulo 2^16; as far as any was.
    /// Apart from what is looked through for everything that is sent.
    times: VecDeque<[u16; 16]>,
    /// Below it nothing is pushed any more.
    from: u64,
    /// Stripes that were added since the last look.
    pub(super) fresh: u8,
    /// The last chunk that was sent.
    last: Option<u64>,
    /// Stripes that the peer feeds us: of those it need not be told.
    fed: u8,
    /// When questions last grew older.
    aged: Mono,
    /// Whether there are news that wait.
    news: bool,
    /// Below it there are none, whatever may come.
    told: u64,
    /// Chunks acknowledged and lost, for whoever measures the upload.
    pub(super) acked: u64,
    pub(super) lost: u64,
}

impl Cut {
    fn slot(&mut self, subtree: u64) -> Option<&mut Slot> {
        let at = subtree.checked_sub(self.first).filter(|at| *at < SLOTS)? as usize;
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, Slot::default);
        }
        self.slots.get_mut(at)
    }

    /// What is known of a subtree.
    fn get(&self, subtree: u64) -> Slot {
        let at = subtree.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.slots.get(at)).copied().unwrap_or_default()
    }

    /// Forgets what is old.
    fn keep(&mut self, source: &Source) {
        let kept = source.trains_in(KEPT).min(SLOTS - AHEAD);
        let first = source.subtrees.end.saturating_sub(kept).max(source.subtrees.start);
        if first <= self.first {
            return;
        }
        let gone = (first - self.first).min(self.slots.len() as u64);
        self.slots.drain(..gone as usize);
        self.times.drain(..self.times.len().min(gone as usize));
        self.first = first;
    }

    /// Subtrees that are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.slots.len()
    }

    /// The peer has these chunks.
    pub(super) fn show(&mut self, run: Run, source: &Source) {
        self.keep(source);
        let size = source.size;
        let first = (run.first() / size).max(self.first);
        let last = (run.last() / size).min(self.first + SLOTS - 1);
        for subtree in first..=last {
            if let Some(slot) = self.slot(subtree) {
                slot.shown |= run.bits(subtree, size);
            }
        }
    }

    pub(super) fn has_shown(&self, subtree: u64) -> bool {
        self.get(subtree).shown != 0
    }

    /// The hash datagram was sent.
    pub(super) fn hashed(&mut self, subtree: u64) {
        if let Some(slot) = self.slot(subtree) {
            slot.flags |= HASHED;
        }
    }

    pub(super) fn has_hashed(&self, subtree: u64) -> bool {
        self.get(subtree).is(HASHED)
    }

    /// The peer asks for chunks. If it was sent some of them long ago and has shown nothing of
    /// their subtree, its hashes were lost: they go once more.
    pub(super) fn doubt_hash(&mut self, asked: Run, size: u64) {
        let subtree = asked.first() / size;
        let slot = self.get(subtree);
        let sent = slot.shown == 0 && slot.sent & asked.bits(subtree, size) != 0;
        if let Some(slot) = self.slot(subtree).filter(|_| sent) {
            slot.flags &= !HASHED;
        }
    }

    /// Chunks of one subtree were sent.
    pub(super) fn sent(&mut self, now: Mono, run: Run, size: u64) {
        let subtree = run.first() / size;
        self.last = Some(run.last());
        if let Some(slot) = self.slot(subtree) {
            let bits = run.bits(subtree, size);
            slot.sent |= bits;
            let at = (subtree - self.first) as usize;
            if at >= self.times.len() {
                self.times.resize(at + 1, [0; 16]);
            }
            let chunks = self.times[at].iter_mut().enumerate();
            chunks.filter(|(n, _)| bits >> n & 1 != 0).for_each(|(_, at)| *at = millis(now));
        }
    }

    /// Gives `found` those chunks of a run that were sent less than `age` ago: too late for the
    /// peer to know anything of them when it asked.
    pub(super) fn fresh(
        &self,
        now: Mono,
        run: Run,
        size: u64,
        age: Duration,
        found: &mut dyn FnMut(Run),
    ) {
        let first = (run.first() / size).max(self.first);
        let last = (run.last() / size).min(self.first + SLOTS - 1);
        let age = age.as_millis().min(u128::from(u16::MAX)) as u16;
        for subtree in first..=last {
            let slot = self.get(subtree);
            let asked = run.bits(subtree, size) & slot.sent & !slot.shown;
            let times = self.times.get((subtree - self.first) as usize);
            let Some(times) = times.filter(|_| asked != 0) else { continue };
            for n in (0..size.min(16)).filter(|n| asked >> n & 1 != 0) {
                if millis(now).wrapping_sub(times[n as usize]) < age {
                    let chunk = subtree * size + n;
                    Run::new(chunk, chunk).into_iter().for_each(&mut *found);
                }
            }
        }
    }

    /// The path was dead for a while: whatever was sent may not have come.
    pub(super) fn doubt(&mut self) {
        self.told = 0;
        for slot in &mut self.slots {
            if slot.sent & !slot.shown != 0 {
                slot.flags |= DOUBTED;
            }
        }
    }

    /// The last chunk that was sent, if it can be sent again.
    pub(super) fn last(&self, stock: &impl Stock) -> Option<Run> {
        let last = Run::new(self.last?, self.last?)?;
        let size = stock.source().size;
        let subtree = last.first() / size;
        (stock.chunks(subtree) & last.bits(subtree, size) != 0).then_some(last)
    }

    /// Looks at what was added to the stream and to the push.
    pub(super) fn go_on(&mut self, stock: &impl Stock) {
        self.keep(stock.source());
        let fresh = std::mem::take(&mut self.fresh);
        if fresh == 0 {
            return;
        }
        for subtree in self.first..stock.source().subtrees.end {
            if fresh & bit_of(subtree) != 0
                && stock.proven(subtree)
                && let Some(slot) = self.slot(subtree)
            {
                slot.flags |= PASSED;
            }
        }
    }

    /// Gives up what is so old that the peer asks the relay for it, or has done so. Returns how
    /// many chunks could have been sent.
    pub(super) fn skip(&mut self, stock: &impl Stock, pushed: u8) -> u32 {
        let source = stock.source();
        let lag = source.trains_in(BEHIND_MAX);
        let until = source.subtrees.end.saturating_sub(lag).max(self.first);
        let mut skipped = 0;
        for subtree in self.from.max(self.first)..until {
            let slot = self.get(subtree);
            if pushed & bit_of(subtree) != 0 && !slot.is(PASSED) {
                skipped += (stock.chunks(subtree) & !slot.has()).count_ones();
            }
        }
        self.from = self.from.max(until);
        self.lost += u64::from(skipped);
        skipped
    }

    /// What is to be pushed next: a subtree, and those of its chunks that are there; none for its
    /// hash datagram.
    fn next(&mut self, stock: &impl Stock, pushed: u8) -> Option<(u64, u16)> {
        if pushed == 0 {
            return None;
        }
        let full = stock.source().full();
        for subtree in self.from.max(self.first)..stock.source().subtrees.end {
            let slot = self.get(subtree);
            if pushed & bit_of(subtree) == 0 || slot.is(PASSED) || slot.has() == full {
                continue;
            }
            if !slot.is(HASHED) && slot.shown == 0 {
                if stock.proven(subtree) {
                    return Some((subtree, 0));
                }
                continue;
            }
            let there = stock.chunks(subtree) & !slot.has();
            if there != 0 {
                return Some((subtree, there));
            }
        }
        None
    }

    /// Whole subtrees in a row of which the peer may not know, if it is to be told `now`.
    pub(super) fn news(&mut self, stock: &impl Stock, pushed: u8, now: bool) -> Option<Run> {
        if !stock.is_shared() {
            self.news = false;
            return None;
        }
        if self.news && !now {
            return None;
        }
        let source = stock.source();
        let full = source.full();
        let needless = |subtree: u64, slot: Slot| {
            let known = slot.is(TOLD) || slot.shown == full;
            let sent = slot.has() == full && !slot.is(DOUBTED);
            known || sent || self.fed & bit_of(subtree) != 0
        };
        let tell = |subtree: u64, slot: Slot| {
            let sent = slot.has() == full;
            let comes = pushed & bit_of(subtree) != 0 && !slot.is(PASSED) && subtree >= self.from;
            !needless(subtree, slot) && (sent || !comes) && stock.chunks(subtree) == full
        };
        let begin = self.told.max(self.first).max(source.subtrees.start);
        let open = |subtree: &u64| !needless(*subtree, self.get(*subtree));
        let begin = (begin..source.subtrees.end).find(open).unwrap_or(source.subtrees.end);
        let mut all = begin..source.subtrees.end;
        let first = all.find(|subtree| tell(*subtree, self.get(*subtree)));
        self.news = first.is_some();
        self.told = begin;
        let first = first.filter(|_| now)?;
        let last = all.take_while(|subtree| tell(*subtree, self.get(*subtree))).last();
        let last = last.unwrap_or(first);
        for subtree in first..=last {
            if let Some(slot) = self.slot(subtree) {
                slot.flags |= TOLD;
            }
        }
        Run::new(first * source.size, (last + 1) * source.size - 1)
    }

    pub(super) fn has_news(&self) -> bool {
        self.news
    }
}

/// A time in milliseconds, modulo 2^16.
fn millis(now: Mono) -> u16 {
    (now.as_nanos() / 1_000_000) as u16
}

impl Sender {
    /// Chunks that were acknowledged since the last call, and those that were lost, or given up
    /// for want of room; only a forwarder counts them.
    pub fn take_counts(&mut self) -> [u64; 2] {
        let Some(cut) = &mut self.cut else { return [0; 2] };
        [std::mem::take(&mut cut.acked), std::mem::take(&mut cut.lost)]
    }

    /// Chunks that were asked for and forgotten unanswered since the last call: too many waited,
    /// or for too long.
    pub fn take_forgotten(&mut self) -> u64 {
        self.requests.take_forgotten()
    }

    /// The peer feeds us these stripes: it is told of none of their subtrees, so that it shows
    /// whether it brings them, also as long as somebody else is faster.
    pub fn set_fed(&mut self, stripes: u8) {
        if let Some(cut) = &mut self.cut {
            cut.fed = stripes;
            cut.told = 0;
        }
    }

    /// What goes out next: what a neighbour that we feed lacks, then what is new, then what others
    /// ask for, if there is room.
    pub(super) fn pass_on(&mut self, now: Mono, stock: &impl Stock) -> Option<Parcel> {
        let fed = self.pushed_stripes();
        self.answer_in(now, stock, fed).or_else(|| self.push_parts(now, stock)).or_else(|| {
            let spare = stock.has_spare();
            spare.then(|| self.answer_in(now, stock, !fed)).flatten()
        })
    }

    /// Forgets questions that have waited for long. A neighbour does not cancel what it got from
    /// others meanwhile, and who goes on answering what nobody needs any more never catches up.
    pub(super) fn age_questions(&mut self, now: Mono) {
        let every = self.questions_age_every();
        if let Some(cut) = self.cut.as_mut().filter(|cut| now.since(cut.aged) >= every) {
            cut.aged = now;
            self.requests.age();
        }
    }

    /// When they are to be looked at for that, if any waits: nobody knows when there is room.
    pub(super) fn questions_age_at(&self) -> Option<Mono> {
        let cut = self.cut.as_ref().filter(|_| self.is_asked())?;
        Some(cut.aged + self.questions_age_every())
    }

    fn questions_age_every(&self) -> Duration {
        PATIENCE + self.ledbat.rtt().unwrap_or_default()
    }

    /// Whether a neighbour is to be told of a subtree that became whole here. What it feeds us it
    /// has, and what is pushed to it tells by itself.
    #[must_use]
    pub fn tells_of(&self, subtree: u64) -> bool {
        let fed = self.cut.as_ref().map_or(0, |cut| cut.fed);
        (fed | self.pushed_stripes()) & bit_of(subtree) == 0
    }

    /// News for a neighbour that is being sent a datagram anyhow.
    pub fn news(&mut self, now: Mono, stock: &impl Stock) -> Option<Run> {
        let pushed = self.pushed_stripes();
        let run = self.cut.as_mut()?.news(stock, pushed, true)?;
        self.have_at = now;
        Some(run)
    }

    /// Whether a question waits for room on the line, which this end shares with others: when
    /// that is, its holder knows.
    pub(super) fn waits_for_line(&mut self, stock: &impl Stock) -> bool {
        if self.cut.is_none() || !self.asked || stock.is_open() && stock.has_spare() {
            return false;
        }
        let fed = self.pushed_stripes();
        !stock.is_open() || self.question(stock, fed).is_none()
    }

    fn answer_in(&mut self, now: Mono, stock: &impl Stock, stripes: u8) -> Option<Parcel> {
        let run = self.question(stock, stripes)?;
        let last = run.last().min(run.first() + u64::from(stock.run()) - 1);
        self.answer(now, Run::new(run.first(), last), stock.source())
    }

    /// What is pushed next to a neighbour: of the lowest subtree of which anything can be.
    pub(super) fn push_parts(&mut self, now: Mono, stock: &impl Stock) -> Option<Parcel> {
        let source = stock.source();
        let pushed = self.pushed_stripes();
        let mut cut = self.cut.take()?;
        let skipped = cut.skip(stock, pushed);
        let next = cut.next(stock, pushed);
        self.cut = Some(cut);
        if skipped > 0 {
            self.losses.note(now, skipped, skipped);
        }
        let (subtree, there) = next?;
        if !self.has_room(1, source) {
            self.held = true;
            return None;
        }
        if there == 0 {
            self.cut.as_mut()?.hashed(subtree);
            self.hashed = (subtree, now);
            return Some(Parcel { subtree, hash: true, run: None, why: Why::Push });
        }
        let room = self.most_under_way(source);
        let room = if self.credit > 0 { room.min(self.credit) } else { room };
        let room = room.saturating_sub(self.flight.chunks()).clamp(1, stock.run());
        let run = Run::lowest(there, subtree, source.size, room)?;
        self.requests.remove(run);
        self.send(now, run, source);
        Some(Parcel { subtree, hash: false, run: Some(run), why: Why::Push })
    }
}
