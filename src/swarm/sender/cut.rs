//! Passing on what is still coming in: a viewer sends the chunks of a subtree as it gets them.
//!
//! Of each subtree first the hash datagram, alone and without HAVE, for it does not have the
//! subtree yet; then runs of chunks, the lowest subtree first. Who is not fed is told of subtrees
//! that are whole.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::requests::Run;
use crate::swarm::sender::{Parcel, Sender, Shown, Source, Stock, Why, all};

/// After so long in vain a neighbour is gone: it says something every second.
pub(super) const PROBING_MAX: Duration = Duration::from_secs(3);

/// Subtrees that are begun at one time; the oldest is given up.
const BEGUN_MAX: usize = 64;

/// Subtrees of which it is remembered what the neighbour has; the oldest is forgotten.
const THEIRS_MAX: usize = 96;

/// A subtree that could not be finished in this time is left to the neighbour's questions.
const GIVE_UP: Duration = Duration::from_secs(2);

/// Chunks that may be under way at least, however slow the path.
const LEAST: f32 = 8.0;

/// A subtree that is being passed on.
#[derive(Debug)]
struct Begun {
    subtree: u64,
    at: Mono,
    hash: bool,
}

/// What one neighbour was sent, and what it has.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// Lowest first.
    begun: VecDeque<Begun>,
    /// Chunks that the neighbour has, or was sent: of each subtree a bit each. Ascending.
    theirs: VecDeque<(u64, u16)>,
    /// Subtrees that it knows us to have.
    told: Shown,
    /// Chunks that were acknowledged and lost.
    acked: u64,
    lost: u64,
}

impl Cut {
    /// The neighbour has the chunks of `run`, or they are on their way.
    pub(super) fn note_theirs(&mut self, run: Run, size: u64) {
        let last = run.last() / size;
        let first = (run.first() / size).max(last.saturating_sub(THEIRS_MAX as u64 - 1));
        for subtree in first..=last {
            let (begin, end) = (subtree * size, subtree * size + size - 1);
            let low = run.first().max(begin) - begin;
            let high = run.last().min(end) - begin;
            let bits = all(high + 1) & !if low == 0 { 0 } else { all(low) };
            match self.theirs.binary_search_by_key(&subtree, |(known, _)| *known) {
                Ok(place) => self.theirs[place].1 |= bits,
                Err(place) if self.theirs.len() < THEIRS_MAX || place > 0 => {
                    self.theirs.insert(place, (subtree, bits));
                    if self.theirs.len() > THEIRS_MAX {
                        self.theirs.pop_front();
                    }
                }
                // Older than all that is remembered.
                Err(_) => {}
            }
        }
    }

    fn theirs(&self, subtree: u64) -> u16 {
        let place = self.theirs.binary_search_by_key(&subtree, |(known, _)| *known);
        place.map_or(0, |place| self.theirs[place].1)
    }

    /// Whether the hash datagram of a subtree is on its way, or was.
    pub(super) fn has_hashed(&self, subtree: u64) -> bool {
        self.begun.iter().any(|begun| begun.subtree == subtree && begun.hash)
    }

    /// Whether there may be subtrees that the neighbour was not told of.
    pub(super) fn has_news(&self, source: &Source) -> bool {
        let recent = source.subtrees.end.saturating_sub(16).max(source.subtrees.start);
        (recent..source.subtrees.end).any(|subtree| !self.told.has(subtree))
    }

    /// The next run of whole subtrees of which the neighbour was not told and that it does not
    /// have.
    pub(super) fn next_news(&mut self, stock: &impl Stock) -> Option<Run> {
        let source = stock.source();
        let whole = all(source.size);
        let oldest = source.subtrees.end.saturating_sub(60).max(source.subtrees.start);
        let mut run: Option<(u64, u64)> = None;
        for subtree in oldest..source.subtrees.end {
            let news = !self.told.has(subtree) && stock.chunks(subtree) == whole;
            if news {
                self.told.set(subtree);
            }
            match (news && self.theirs(subtree) != whole, run) {
                (true, None) => run = Some((subtree, subtree)),
                (true, Some((first, _))) => run = Some((first, subtree)),
                (false, Some(_)) => break,
                (false, None) => {}
            }
        }
        let (first, last) = run?;
        Run::new(first * source.size, last * source.size + source.size - 1)
    }
}

impl Sender {
    /// The half of a link to another viewer, which is passed on what comes in.
    #[must_use]
    pub fn forwarder(now: Mono) -> Sender {
        let mut sender = Sender::new(now, true);
        sender.cut = Some(Box::default());
        // Its own hash datagrams are shown with what it passes on.
        sender.greeted = true;
        sender
    }

    /// Chunks that were acknowledged and that were lost since the last call.
    pub fn take_counts(&mut self) -> [u64; 2] {
        let Some(cut) = &mut self.cut else { return [0; 2] };
        [std::mem::take(&mut cut.acked), std::mem::take(&mut cut.lost)]
    }

    /// Counts chunks, for whoever measures the upload.
    pub(super) fn count(&mut self, acked: u32, lost: u32) {
        if let Some(cut) = &mut self.cut {
            cut.acked += u64::from(acked);
            cut.lost += u64::from(lost);
        }
    }

    /// What can be passed on next: a hash datagram, or a run of chunks.
    pub(super) fn forward(&mut self, now: Mono, stock: &impl Stock) -> Option<Parcel> {
        let source = stock.source();
        self.begin(now, source);
        if !self.has_room(1, source) {
            return None;
        }
        let cut = self.cut.as_mut()?;
        let whole = all(source.size);
        let mut found = None;
        for begun in &mut cut.begun {
            let subtree = begun.subtree;
            let place = cut.theirs.binary_search_by_key(&subtree, |(known, _)| *known);
            let theirs = place.map_or(0, |place| cut.theirs[place].1);
            if theirs == whole || !stock.proven(subtree) {
                continue;
            }
            if !std::mem::replace(&mut begun.hash, true) {
                self.unheard = self.unheard.saturating_add(1);
                return Some(Parcel { subtree, hash: true, run: None, why: Why::Push });
            }
            let bits = stock.chunks(subtree) & !theirs;
            if bits != 0 {
                found = Some((subtree, bits));
                break;
            }
        }
        let (subtree, bits) = found?;
        let first = bits.trailing_zeros();
        let count = (bits >> first).trailing_ones();
        let first = subtree * source.size + u64::from(first);
        let run = Run::new(first, first + u64::from(count) - 1)?;
        self.requests.remove(run);
        self.send(now, run, source);
        Some(Parcel { subtree, hash: false, run: Some(run), why: Why::Push })
    }

    /// Begins the subtrees that are new, forgets those that are over.
    fn begin(&mut self, now: Mono, source: &Source) {
        let stripes = self.pushed_stripes();
        let Some(cut) = &mut self.cut else { return };
        let whole = all(source.size);
        let mut begun = std::mem::take(&mut cut.begun);
        begun.retain(|begun| {
            let wanted = stripes & 1 << (begun.subtree % 8) != 0;
            wanted && now.since(begun.at) < GIVE_UP && cut.theirs(begun.subtree) != whole
        });
        if stripes != 0 {
            self.next = self.next.max(source.subtrees.end.saturating_sub(BEGUN_MAX as u64));
            for subtree in self.next..source.subtrees.end {
                if stripes & 1 << (subtree % 8) != 0 {
                    begun.push_back(Begun { subtree, at: now, hash: false });
                }
            }
            while begun.len() > BEGUN_MAX {
                begun.pop_front();
            }
        }
        self.next = self.next.max(source.subtrees.end);
        cut.begun = begun;
    }

    /// Whether more may be under way to a neighbour: its share of the stream, not all of it.
    pub(super) fn has_room_to_forward(&self, chunks: u32, source: &Source) -> bool {
        let under_way = self.flight.chunks();
        if !self.flight.has_room() || self.credit > 0 && under_way + chunks > self.credit {
            return under_way == 0;
        }
        let size = source.size as f32;
        let share = self.pushed_stripes().count_ones().max(1) as f32 / 8.0;
        let train = source.train.as_secs_f32().max(0.000_1);
        let rtt = self.ledbat.rtt().unwrap_or(Duration::from_millis(100)).as_secs_f32();
        let floor = 1.25 * share * rtt / train * size + LEAST;
        let floor = if self.losses.high() { LEAST } else { floor };
        let second = (share / train * size).max(2.0 * LEAST);
        let window = self.ledbat.window_alone() * size;
        (under_way as f32) < window.max(floor).min(second)
    }
}
