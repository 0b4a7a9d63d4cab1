//! Subtrees on their way to being whole: hashes before chunks, chunks verified before anything
//! else is done with them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use crate::base::limits::CHUNK;
use crate::base::time::Mono;
use crate::ring::chunks::Refused;
use crate::ring::records::Hash;
use crate::swarm::crimes::Crime;
use crate::swarm::integrity::{Freshness, Signature, Verifier, ntp, plaintext};
use crate::swarm::receiver::store::Store;
use crate::swarm::receiver::subtree::{Proof, Subtree, Verdict};
use crate::swarm::receiver::{Profile, Signed};
use crate::wire::ppspp::Span;

/// Subtrees kept behind the first missing chunk, so that what comes twice is known.
const BEHIND: u64 = 8;

/// The most subtrees between the first missing chunk and the newest: more than any window holds
/// ahead. What is further ahead is ignored.
const AHEAD_MAX: u64 = 4_096;

/// Subtrees whose chunks are kept although no hash has come for them.
const ORPHANED_MAX: usize = 2;

/// Chunks long behind that are acknowledged in one go.
const LATE_MAX: usize = 40;

/// Hashes told in one datagram beyond which the rest is ignored: those of a largest subtree,
/// twice.
const HASHES_MAX: usize = 34;

/// A chunk time longer than the mean by more than this factor counts as so much only.
const PAUSE: u32 = 4;

/// A chunk for which no hash has come.
struct Orphan {
    chunk: u64,
    bytes: Box<[u8; CHUNK]>,
    delay: i64,
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Verified and written; whether it had been lost and came because it was asked for.
    Written { repaired: bool },
    /// It is there already.
    Duplicate,
    /// Kept until its hash comes.
    Kept,
    /// No room for it, or far from what is played.
    Dropped,
    /// It is not what was signed.
    Wrong(Crime),
}

/// The hashes of one datagram.
#[derive(Default)]
pub(super) struct Batch {
    hashes: Vec<(Span, Hash)>,
    signed: Option<(Span, u64, Signature)>,
}

impl Batch {
    pub(super) fn hash(&mut self, span: Span, hash: &Hash) {
        if self.hashes.len() < HASHES_MAX {
            self.hashes.push((span, *hash));
        }
    }

    pub(super) fn signature(&mut self, span: Span, ntp: u64, signature: &Signature) {
        self.signed.get_or_insert((span, ntp, *signature));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty() && self.signed.is_none()
    }

    fn clear(&mut self) {
        self.hashes.clear();
        self.signed = None;
    }
}

/// All subtrees that are open.
pub(super) struct Assembly {
    profile: Profile,
    pub(super) subtrees: BTreeMap<u64, Subtree>,
    /// Behind the newest subtree that is known to exist.
    edge: u64,
    orphans: Vec<Orphan>,
    /// The first subtree that was pushed: what lies before had to be asked for anyhow.
    pub(super) pushed_from: Option<u64>,
    /// Chunks that came long after their turn and are to be acknowledged, with their delays.
    pub(super) late: Vec<(u64, i64)>,
    /// The last answer: which chunk, and when it came.
    pub(super) answered: Option<(u64, Mono)>,
    /// The round trip, and whether the lowest chunks are answered first.
    pub(super) rtt: Duration,
    pub(super) lowest_first: bool,
    /// The newest munro: its subtree and time.
    newest: Option<(u64, u64)>,
    /// How long a chunk takes at the stream's rate.
    pub(super) chunk_time: Duration,
    /// Munros that were too old or from the future.
    pub(super) stale: u64,
    /// Chunks without a hash that were dropped because others came.
    pub(super) orphans_dropped: u64,
    /// The oldest chunk that the source has shown: what lies before it does not exist there.
    pub(super) floor: Option<u64>,
    /// The newest chunk that the source has shown, however far ahead.
    pub(super) newest_chunk: u64,
}

impl Assembly {
    /// Nothing is there from chunk `first` on.
    pub(super) fn new(profile: Profile, first: u64) -> Assembly {
        Assembly {
            profile,
            subtrees: BTreeMap::new(),
            edge: first / profile.size.chunks() as u64,
            orphans: Vec::new(),
            pushed_from: None,
            late: Vec::new(),
            answered: None,
            rtt: Duration::ZERO,
            lowest_first: false,
            newest: None,
            chunk_time: Duration::from_millis(5),
            stale: 0,
            orphans_dropped: 0,
            floor: None,
            newest_chunk: 0,
        }
    }

    /// Begins again from chunk `store.next()` on, with what is known of the source.
    pub(super) fn rebase(&mut self, now: Mono, store: &Store) {
        let mut fresh = Assembly::new(self.profile, store.next());
        (fresh.floor, fresh.newest_chunk) = (self.floor, self.newest_chunk);
        (fresh.chunk_time, fresh.newest) = (self.chunk_time, self.newest);
        (fresh.stale, fresh.orphans_dropped) = (self.stale, self.orphans_dropped);
        (fresh.rtt, fresh.lowest_first) = (self.rtt, self.lowest_first);
        fresh.reach(now, fresh.newest_chunk, store);
        *self = fresh;
    }

    /// The source has the chunks of `span`.
    pub(super) fn shown(&mut self, now: Mono, span: Span, store: &Store) {
        self.floor.get_or_insert(span.first);
        self.newest_chunk = self.newest_chunk.max(span.last);
        self.reach(now, span.last, store);
    }

    /// Chunks of a subtree.
    pub(super) fn n(&self) -> u64 {
        self.profile.size.chunks() as u64
    }

    /// How long a chunk takes at the stream's rate.
    pub(super) fn chunk_time(&self) -> Duration {
        self.chunk_time
    }

    /// The chunk behind the newest that is known to exist.
    pub(super) fn edge(&self) -> u64 {
        self.edge * self.n()
    }

    /// Chunks up to `last` exist: those not seen yet are missed from now on.
    pub(super) fn reach(&mut self, now: Mono, last: u64, store: &Store) {
        let number = last / self.n();
        let base = store.next() / self.n();
        if number < self.edge || number > base + AHEAD_MAX {
            return;
        }
        for missed in self.edge.max(base)..=number {
            self.open(now, missed, store);
        }
        self.edge = number + 1;
    }

    /// The subtree, opened if need be; what the window has of it is there.
    fn open(&mut self, now: Mono, number: u64, store: &Store) -> &mut Subtree {
        let (size, first) = (self.profile.size, number * self.n());
        match self.subtrees.entry(number) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let there = (0..size.chunks()).filter(|n| store.has(first + *n as u64));
                let have = there.fold(0, |bits, n| bits | 1 << n);
                entry.insert(Subtree::new(size, have, now))
            }
        }
    }

    /// Whether `number` is near enough to what is played to be kept.
    fn is_near(&self, number: u64, store: &Store) -> bool {
        let base = store.next() / self.n();
        number + BEHIND >= base && number <= base + AHEAD_MAX
    }

    /// Takes the hashes of a datagram. What they prove is written to `signed`.
    pub(super) fn hashes(
        &mut self,
        now: Mono,
        batch: &mut Batch,
        store: &mut Store,
        fresh: &mut Freshness,
        by: &mut impl Verifier,
        signed: &mut Vec<Signed>,
    ) -> Result<(), Crime> {
        let judged = self.munro(now, batch, store, fresh, by, signed);
        if judged.is_ok() {
            self.uncles(now, batch, store);
        }
        batch.clear();
        judged
    }

    /// Verifies the munro of a datagram, and all the leaves if they are there.
    fn munro(
        &mut self,
        now: Mono,
        batch: &Batch,
        store: &mut Store,
        fresh: &mut Freshness,
        by: &mut impl Verifier,
        signed: &mut Vec<Signed>,
    ) -> Result<(), Crime> {
        let Some((span, ntp, signature)) = batch.signed else { return Ok(()) };
        let n = self.n();
        if span.chunks() != n || !span.first.is_multiple_of(n) {
            return Err(Crime::WrongSpan);
        }
        let number = span.first / n;
        let told = batch.hashes.iter().find(|(of, _)| *of == span);
        // "in one datagram" (RFC 7574, 6.1.2.3): alone it signs nothing.
        let Some((_, munro)) = told else { return Ok(()) };
        if number + BEHIND < store.next() / n {
            return Ok(());
        }
        if fresh.judge(ntp, now).is_err() {
            self.stale += 1;
            return Ok(());
        }
        let leaves = leaves(batch, span);
        if leaves.is_some_and(|leaves| by.munro(&leaves[..n as usize]) != *munro) {
            return Err(Crime::BadLeaves);
        }
        let known = self.subtrees.get(&number).and_then(|subtree| subtree.proof);
        let is_known = known.is_some_and(|known| known.munro == *munro);
        if !is_known {
            let text = plaintext(self.profile.addressing, span, ntp, munro);
            if !by.verify(&self.profile.swarm_id, text.as_ref(), &signature) {
                return Err(Crime::BadSignature);
            }
            if known.is_some() {
                return Err(Crime::TwoMunros);
            }
            fresh.verified(ntp, now);
            self.rate(number, ntp);
            signed.push(Signed { number, ntp });
        }
        self.shown(now, span, store);
        if !self.is_near(number, store) {
            return Ok(());
        }
        let subtree = self.open(now, number, store);
        if !subtree.was_asked && self.pushed_from.is_none() {
            self.pushed_from = Some(number);
        }
        let subtree = self.open(now, number, store);
        if !is_known {
            subtree.prove(Proof { munro: *munro, ntp, signature });
        }
        if let Some(leaves) = leaves {
            subtree.prove_leaves(&leaves[..n as usize]);
        }
        subtree.last = subtree.last.max(now);
        if let Some(record) = subtree.take_record() {
            // A window without room for the record plays without it.
            let _ = store.sign(number, &record);
        }
        Ok(())
    }

    /// Keeps hashes that may lead to a munro.
    fn uncles(&mut self, now: Mono, batch: &Batch, store: &Store) {
        let n = self.n();
        for (span, hash) in &batch.hashes {
            let number = span.first / n;
            let inside = span.last / n == number && span.chunks() < n;
            if inside && self.is_near(number, store) && number < self.edge {
                let first = (span.first % n) as usize;
                self.open(now, number, store).tell(first, span.chunks() as usize, hash);
            }
        }
    }

    /// Learns the stream's rate from the times of two subtrees.
    fn rate(&mut self, number: u64, ntp: u64) {
        let Some((before, time)) = self.newest.filter(|(before, _)| *before < number) else {
            self.newest.get_or_insert((number, ntp));
            return;
        };
        self.newest = Some((number, ntp));
        let chunks = (number - before).saturating_mul(self.n());
        let took = ntp::before(ntp, time).unwrap_or_default();
        let each = took / u32::try_from(chunks).unwrap_or(u32::MAX);
        let mean = self.chunk_time;
        // A pause of the publisher is no rate, but a stream may well become slower.
        self.chunk_time = (mean * 7 + each.min(mean * PAUSE)) / 8;
    }

    /// Takes a chunk: verified, written, or kept until it can be verified.
    pub(super) fn chunk(
        &mut self,
        now: Mono,
        chunk: u64,
        bytes: &[u8; CHUNK],
        delay: i64,
        store: &mut Store,
        by: &mut impl Verifier,
    ) -> Outcome {
        let (number, place) = (chunk / self.n(), (chunk % self.n()) as usize);
        if !self.is_near(number, store) {
            if !store.has(chunk) {
                return Outcome::Dropped;
            }
            // Of no use any more, but it did arrive: the source's path is not to blame.
            if self.late.len() < LATE_MAX {
                self.late.push((chunk, delay));
            }
            return Outcome::Duplicate;
        }
        if number > self.edge + ORPHANED_MAX as u64 {
            // Nothing has proven that so much is there.
            return Outcome::Dropped;
        }
        self.reach(now, chunk, store);
        let subtree = self.open(now, number, store);
        subtree.last = subtree.last.max(now);
        let bit = 1 << place;
        if subtree.have & bit != 0 {
            subtree.unacked |= bit;
            subtree.delay = Some(subtree.delay.map_or(delay, |least| least.min(delay)));
            return Outcome::Duplicate;
        }
        match subtree.judge(place, by.leaf(bytes), by) {
            Verdict::Wrong => return Outcome::Wrong(Crime::BadChunk),
            Verdict::Unknown => {
                // The answer came without its hashes: one is asked for again soon.
                subtree.asked &= !bit;
                subtree.passed &= !bit;
                return self.keep(chunk, bytes, delay);
            }
            Verdict::Proven => {}
        }
        match store.write(now, chunk, bytes) {
            Ok(()) => {}
            // Given up, or filled over HTTP: it is of no use any more, but it did arrive.
            Err(Refused::Late | Refused::Known) => {}
            Err(Refused::Ahead | Refused::Starved) => return Outcome::Dropped,
        }
        let asked = subtree.asked & bit != 0;
        let repaired = asked && subtree.lost & bit != 0;
        subtree.have |= bit;
        subtree.unacked |= bit;
        subtree.asked &= !bit;
        subtree.passed &= !bit;
        subtree.delay = Some(subtree.delay.map_or(delay, |least| least.min(delay)));
        let asked_at = subtree.asked_at;
        if let Some(record) = subtree.take_record() {
            let _ = store.sign(number, &record);
        }
        if asked {
            self.answered = Some((chunk, now));
            self.pass(now, asked_at, chunk);
        }
        Outcome::Written { repaired }
    }

    /// An answer to `chunk`, which was asked for at `asked_at`, passes what is lower: the source
    /// answers the lowest first, and knew of what was asked for a round trip ago; or it answers
    /// in the order of the questions.
    fn pass(&mut self, now: Mono, asked_at: Mono, chunk: u64) {
        let (n, rtt, lowest_first) = (self.n(), self.rtt, self.lowest_first);
        for (number, subtree) in self.subtrees.range_mut(..=chunk / n) {
            let known = match lowest_first {
                true => subtree.asked_at + rtt <= now,
                false => subtree.asked_at <= asked_at,
            };
            if known && subtree.asked != 0 {
                let below = (chunk - number * n).min(16) as u32;
                subtree.pass(now, !u16::MAX.checked_shl(below).unwrap_or(0));
            }
        }
    }

    /// Keeps a chunk until its hash comes; those of the subtree that came first make room.
    fn keep(&mut self, chunk: u64, bytes: &[u8; CHUNK], delay: i64) -> Outcome {
        if self.orphans.iter().any(|orphan| orphan.chunk == chunk) {
            return Outcome::Duplicate;
        }
        let n = self.n();
        let mut numbers: Vec<u64> = self.orphans.iter().map(|orphan| orphan.chunk / n).collect();
        numbers.dedup();
        let foreign = numbers.iter().filter(|number| **number != chunk / n).count();
        if foreign >= ORPHANED_MAX {
            let (first, before) = (numbers[0], self.orphans.len());
            self.orphans.retain(|orphan| orphan.chunk / n != first);
            self.orphans_dropped += (before - self.orphans.len()) as u64;
        }
        self.orphans.push(Orphan { chunk, bytes: Box::new(*bytes), delay });
        Outcome::Kept
    }

    /// Takes the chunks that were kept and can be verified now; tells what became of each.
    pub(super) fn adopt(
        &mut self,
        now: Mono,
        store: &mut Store,
        by: &mut impl Verifier,
        tell: &mut impl FnMut(Outcome),
    ) {
        let n = self.n();
        let proven = |subtrees: &BTreeMap<u64, Subtree>, orphan: &Orphan| {
            subtrees.get(&(orphan.chunk / n)).is_some_and(|subtree| subtree.proof.is_some())
        };
        if !self.orphans.iter().any(|orphan| proven(&self.subtrees, orphan)) {
            return;
        }
        for orphan in std::mem::take(&mut self.orphans) {
            if proven(&self.subtrees, &orphan) {
                tell(self.chunk(now, orphan.chunk, &orphan.bytes, orphan.delay, store, by));
            } else {
                self.orphans.push(orphan);
            }
        }
    }

    /// The chunks of a subtree that are kept without a hash, a bit each.
    pub(super) fn orphaned(&self, number: u64) -> u16 {
        let n = self.n();
        let of = self.orphans.iter().filter(|orphan| orphan.chunk / n == number);
        of.fold(0, |bits, orphan| bits | 1 << (orphan.chunk % n))
    }

    /// Forgets what lies behind what is played.
    pub(super) fn prune(&mut self, store: &Store) {
        let keep = (store.next() / self.n()).saturating_sub(BEHIND);
        // Not before all of it was acknowledged: a hole that is filled late moves what is played
        // far ahead, and a source that never hears of it takes it for lost.
        let old = self.subtrees.range(..keep).filter(|(_, subtree)| subtree.unacked == 0);
        for number in old.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.subtrees.remove(&number);
        }
        let first = store.next();
        self.orphans.retain(|orphan| orphan.chunk >= first);
    }
}

/// The leaves of `span` in a datagram, if all are there, in any order.
fn leaves(batch: &Batch, span: Span) -> Option<[Hash; 16]> {
    let mut found = [[0; 32]; 16];
    let mut bits = 0_u32;
    for (of, hash) in batch.hashes.iter().filter(|(of, _)| of.first == of.last) {
        if span.contains(of.first) {
            let place = (of.first - span.first) as usize;
            found[place] = *hash;
            bits |= 1 << place;
        }
    }
    (u64::from(bits.count_ones()) == span.chunks()).then_some(found)
}
