//! Subtrees on their way to being whole: hashes before chunks, chunks verified before anything
//! else is done with them. One for all links of a viewer.

use std::time::Duration;

use crate::base::limits::CHUNK;
use crate::base::planted::{Plant, is};
use crate::base::time::Mono;
use crate::ring::chunks::Refused;
use crate::ring::records::Hash;
use crate::swarm::crimes::Crime;
use crate::swarm::integrity::{Freshness, Signature, Verifier, ntp, plaintext};
use crate::swarm::receiver::store::Store;
use crate::swarm::receiver::subtree::{Proof, Subtree, Verdict};
use crate::swarm::receiver::{Profile, Signed};
use crate::swarm::row::Row;
use crate::wire::ppspp::Span;

/// Subtrees kept behind the first missing chunk, so that what comes twice is known, and what is
/// passed on is found.
const BEHIND: u64 = 24;

/// The most subtrees between the first missing chunk and the newest: more than any window holds
/// ahead. What is further ahead is ignored.
const AHEAD_MAX: u64 = 4_096;

/// How far beyond the newest subtree that was proven a neighbour's word is taken for it that
/// there is more.
const HEARSAY_MAX: u64 = 32;

/// How far ahead of what is known chunks may come for which there is no hash.
const UNPROVEN_MAX: u64 = 2;

/// Subtrees that became whole and were not asked about, at most.
const WHOLE_MAX: usize = 256;

/// Hashes told in one datagram beyond which the rest is ignored: those of a largest subtree,
/// twice.
const HASHES_MAX: usize = 34;

/// A chunk time longer than the mean by more than this factor counts as so much only.
const PAUSE: u32 = 4;

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// Verified and written.
    Written,
    /// Verified, but its turn is over.
    TooLate,
    /// It is there already.
    Duplicate,
    /// Its turn was over long ago.
    Behind,
    /// Its hash has not come.
    Unproven,
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
    /// Hashes that prove nothing by themselves are kept: nobody can say afterwards who told a
    /// wrong one, so they are taken from the source only.
    uncles: bool,
}

impl Batch {
    /// Of a link whose other end tells uncles, or does not.
    pub(super) fn new(uncles: bool) -> Batch {
        Batch { uncles, ..Batch::default() }
    }

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

    pub(super) fn clear(&mut self) {
        self.hashes.clear();
        self.signed = None;
    }
}

/// All subtrees that are open, whoever brings them.
pub struct Assembly {
    profile: Profile,
    /// Near what is played: see [`Assembly::is_near`].
    subtrees: Row<Subtree>,
    /// Behind the newest subtree that is known to exist, and behind the newest proven one.
    edge: u64,
    proven: u64,
    /// The newest munro: its subtree and time.
    newest: Option<(u64, u64)>,
    /// How long a chunk takes at the stream's rate.
    chunk_time: Duration,
    /// Munros that were too old or from the future.
    pub(super) stale: u64,
    /// The newest chunk that the source has shown, however far ahead.
    newest_chunk: u64,
    /// Subtrees that became whole since they were asked for.
    whole: Vec<Signed>,
}

impl Assembly {
    /// Nothing is there from the store's next chunk on. A chunk takes `chunk_time`, as far as is
    /// known; it finds out the rest by itself.
    #[must_use]
    pub fn new(profile: Profile, store: &Store, chunk_time: Option<Duration>) -> Assembly {
        let edge = store.next() / profile.size.chunks() as u64;
        Assembly {
            profile,
            subtrees: Row::default(),
            edge,
            proven: edge,
            newest: None,
            chunk_time: chunk_time.unwrap_or(Duration::from_millis(5)),
            stale: 0,
            newest_chunk: 0,
            whole: Vec::new(),
        }
    }

    /// The store goes on elsewhere: begins again from its next chunk on.
    pub fn rebase(&mut self, now: Mono, store: &Store) {
        let edge = store.next() / self.n();
        (self.edge, self.proven) = (edge, edge);
        self.subtrees.clear();
        self.whole.clear();
        self.reach(now, self.newest_chunk, store);
    }

    /// What all peers agree about.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Chunks of a subtree.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.profile.size.chunks() as u64
    }

    /// How long a chunk takes at the stream's rate.
    #[must_use]
    pub fn chunk_time(&self) -> Duration {
        self.chunk_time
    }

    /// The chunk behind the newest that is known to exist.
    #[must_use]
    pub fn edge(&self) -> u64 {
        self.edge * self.n()
    }

    /// Behind the newest subtree whose signature was verified.
    #[must_use]
    pub fn proven_edge(&self) -> u64 {
        self.proven
    }

    /// The newest subtree that was verified, and when it was signed: NTP time.
    #[must_use]
    pub fn newest(&self) -> Option<(u64, u64)> {
        self.newest
    }

    /// Subtrees of which something is missing, from the first missing chunk on.
    pub fn holes<'a>(&'a self, store: &Store) -> impl Iterator<Item = (u64, &'a Subtree)> {
        let open = self.subtrees.from(store.next() / self.n());
        open.filter(|(_, subtree)| !subtree.is_complete())
    }

    /// Of each hole its subtree and since when that is known to exist.
    pub fn missing<'a>(&'a self, store: &'a Store) -> impl Iterator<Item = (u64, Mono)> + 'a {
        self.holes(store).map(|(number, subtree)| (number, subtree.since))
    }

    /// A subtree that is open, or was a moment ago.
    pub(super) fn get(&self, number: u64) -> Option<&Subtree> {
        self.subtrees.get(number)
    }

    /// The chunks of a subtree that were verified here and may be passed on, a bit each; `None`
    /// if it is not remembered.
    #[must_use]
    pub fn servable(&self, number: u64) -> Option<u16> {
        self.subtrees.get(number).map(|subtree| if subtree.recorded { subtree.got } else { 0 })
    }

    /// Whether all hashes of a subtree are proven, as far as is remembered.
    #[must_use]
    pub fn is_proven(&self, number: u64) -> bool {
        self.subtrees.get(number).is_some_and(|subtree| subtree.recorded)
    }

    /// Whether nothing of a subtree is missing, as far as is remembered.
    #[must_use]
    pub fn is_whole(&self, number: u64) -> bool {
        self.subtrees.get(number).is_some_and(Subtree::is_complete)
    }

    /// Subtrees that became whole since the last call.
    pub fn take_whole(&mut self) -> Vec<Signed> {
        std::mem::take(&mut self.whole)
    }

    /// The source has the chunks of `span`.
    pub(super) fn shown(&mut self, now: Mono, span: Span, store: &Store) {
        self.newest_chunk = self.newest_chunk.max(span.last);
        self.reach(now, span.last, store);
    }

    /// A neighbour says that it has the chunks of `span`.
    pub(super) fn heard_of(&mut self, now: Mono, span: Span, store: &Store) {
        if span.last / self.n() <= self.proven + HEARSAY_MAX {
            self.reach(now, span.last, store);
        }
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
        self.subtrees.get_or_insert_with(number, || {
            let there = (0..size.chunks()).filter(|n| store.has(first + *n as u64));
            let have = there.fold(0, |bits, n| bits | 1 << n);
            Subtree::new(size, have, now)
        })
    }

    /// Whether `number` is near enough to what is played to be kept.
    pub(super) fn is_near(&self, number: u64, store: &Store) -> bool {
        let base = store.next() / self.n();
        number + BEHIND >= base && number <= base + AHEAD_MAX
    }

    /// Takes the hashes of a datagram. What they prove for the first time is written to `signed`.
    /// Returns the subtree that they are of, if they prove it.
    pub(super) fn hashes(
        &mut self,
        now: Mono,
        batch: &Batch,
        store: &mut Store,
        fresh: &mut Freshness,
        by: &mut impl Verifier,
        signed: &mut Vec<Signed>,
    ) -> Result<Option<u64>, Crime> {
        let proven = self.munro(now, batch, store, fresh, by, signed)?;
        if batch.uncles {
            self.uncles(now, batch, store);
        }
        Ok(proven)
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
    ) -> Result<Option<u64>, Crime> {
        let Some((span, ntp, signature)) = batch.signed else { return Ok(None) };
        let n = self.n();
        if span.chunks() != n || !span.first.is_multiple_of(n) {
            return Err(Crime::WrongSpan);
        }
        let number = span.first / n;
        let told = batch.hashes.iter().find(|(of, _)| *of == span);
        // "in one datagram" (RFC 7574, 6.1.2.3): alone it signs nothing.
        let Some((_, munro)) = told else { return Ok(None) };
        if number + BEHIND < store.next() / n {
            return Ok(None);
        }
        if fresh.judge(ntp, now).is_err() {
            self.stale += 1;
            return Ok(None);
        }
        let leaves = leaves(batch, span);
        if leaves.is_some_and(|leaves| by.munro(&leaves[..n as usize]) != *munro) {
            return Err(Crime::BadLeaves);
        }
        let known = self.subtrees.get(number).and_then(|subtree| subtree.proof.as_deref());
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
            return Ok(None);
        }
        self.proven = self.proven.max(number + 1);
        let subtree = self.open(now, number, store);
        if !is_known {
            subtree.prove(Proof { munro: *munro, ntp, signature });
        }
        if let Some(leaves) = leaves {
            subtree.prove_leaves(&leaves[..n as usize]);
        }
        if let Some(record) = subtree.take_record() {
            // A window without room for the record plays without it.
            let _ = store.sign(number, &record);
        }
        Ok(Some(number))
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

    /// Takes a chunk: verified and written, or not taken.
    pub(super) fn chunk(
        &mut self,
        now: Mono,
        chunk: u64,
        bytes: &[u8; CHUNK],
        store: &mut Store,
        by: &mut impl Verifier,
    ) -> Took {
        let (number, place) = (chunk / self.n(), (chunk % self.n()) as usize);
        if !self.is_near(number, store) {
            return if store.has(chunk) { Took::Behind } else { Took::Dropped };
        }
        if number > self.edge + UNPROVEN_MAX {
            // Nothing has proven that so much is there.
            return Took::Dropped;
        }
        self.reach(now, chunk, store);
        let subtree = self.open(now, number, store);
        let bit = 1 << place;
        if subtree.have & bit != 0 {
            return Took::Duplicate;
        }
        let trusted = is(Plant::TrustRepairs) && subtree.have >> place != 0;
        match subtree.judge(place, by.leaf(bytes), by) {
            Verdict::Wrong if is(Plant::ForwardFirst) => {
                let _ = store.write(now, chunk, bytes);
                subtree.have |= bit;
                return Took::Wrong(Crime::BadChunk);
            }
            Verdict::Wrong if !is(Plant::Gullible) && !trusted => {
                return Took::Wrong(Crime::BadChunk);
            }
            Verdict::Unknown => return Took::Unproven,
            Verdict::Proven | Verdict::Wrong => {}
        }
        let took = match store.write(now, chunk, bytes) {
            Ok(()) => Took::Written,
            // Given up, or filled over HTTP: it is of no use any more, but it did arrive.
            Err(Refused::Late | Refused::Known) => Took::TooLate,
            Err(Refused::Ahead | Refused::Starved) => return Took::Dropped,
        };
        subtree.have |= bit;
        subtree.got |= if took == Took::Written { bit } else { 0 };
        if let Some(record) = subtree.take_record() {
            let _ = store.sign(number, &record);
        }
        let ntp = subtree.proof.as_deref().map(|proof| proof.ntp);
        if let Some(ntp) = ntp.filter(|_| subtree.is_complete())
            && self.whole.len() < WHOLE_MAX
        {
            self.whole.push(Signed { number, ntp });
        }
        took
    }

    /// Forgets what lies behind what is played.
    pub fn prune(&mut self, store: &Store) {
        self.subtrees.forget_below((store.next() / self.n()).saturating_sub(BEHIND));
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
