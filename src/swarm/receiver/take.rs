//! What comes in a datagram, taken: hashes, then chunks, and chunks that wait for their hashes.

use crate::base::limits::CHUNK;
use crate::base::time::Mono;
use crate::swarm::crimes::Crime;
use crate::swarm::integrity::Verifier;
use crate::swarm::receiver::assembly::{Assembly, Took};
use crate::swarm::receiver::{News, Receiver, Tools};
use crate::swarm::stripes::bit_of;

/// Subtrees whose chunks are kept although no hash has come for them.
const ORPHANED_MAX: usize = 2;

/// Chunks long behind that are acknowledged in one go.
const LATE_MAX: usize = 40;

/// A chunk for which no hash has come.
pub(super) struct Orphan {
    pub chunk: u64,
    pub bytes: Box<[u8; CHUNK]>,
    pub delay: i64,
}

impl Receiver {
    /// Takes the hashes that came so far.
    pub(super) fn settle<V: Verifier>(
        &mut self,
        now: Mono,
        tools: &mut Tools<'_, V>,
    ) -> Result<(), Crime> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let Tools { assembly, store, fresh, verifier } = tools;
        let Receiver { batch, signed, .. } = self;
        let proven = assembly.hashes(now, batch, store, fresh, *verifier, signed);
        batch.clear();
        let Some(number) = proven? else { return Ok(()) };
        self.brought |= bit_of(number);
        self.stirred = true;
        let part = self.part(number, now, assembly);
        part.last = part.last.max(now);
        part.hashed = true;
        if !part.was_asked {
            self.pushed_from.get_or_insert(number);
            self.tell(News::Hashed(number));
        }
        Ok(())
    }

    pub(super) fn data<V: Verifier>(
        &mut self,
        now: Mono,
        chunk: u64,
        stamp: u64,
        bytes: &[u8],
        tools: &mut Tools<'_, V>,
    ) -> Result<(), Crime> {
        if bytes.is_empty() {
            // Deployed sources answer so to what they do not have.
            return Ok(());
        }
        let Ok(bytes) = <&[u8; CHUNK]>::try_from(bytes) else { return Err(Crime::WrongLength) };
        // The two clocks have different origins: the difference wraps.
        let delay = micros(now).wrapping_sub(stamp).cast_signed();
        self.take(now, chunk, bytes, delay, tools)
    }

    /// Takes a chunk, also one that was kept.
    fn take<V: Verifier>(
        &mut self,
        now: Mono,
        chunk: u64,
        bytes: &[u8; CHUNK],
        delay: i64,
        tools: &mut Tools<'_, V>,
    ) -> Result<(), Crime> {
        let Tools { assembly, store, verifier, .. } = tools;
        let took = assembly.chunk(now, chunk, bytes, store, *verifier);
        let n = assembly.n();
        let (number, bit) = (chunk / n, 1_u16 << (chunk % n));
        match took {
            Took::Wrong(crime) => return Err(crime),
            Took::Dropped => {
                self.counts.dropped += 1;
                return Ok(());
            }
            Took::Behind => {
                self.take_late(chunk, delay);
                return Ok(());
            }
            Took::Written | Took::TooLate | Took::Duplicate | Took::Unproven => {}
        }
        let whole = assembly.is_whole(number);
        if took != Took::Unproven {
            self.unacked.add(number);
        }
        let (rtt, in_trains) = (self.rtt, self.private && !self.neighbour);
        let part = self.part(number, now, assembly);
        part.last = part.last.max(now);
        if took == Took::Unproven {
            // The answer came without its hashes: one is asked for again soon.
            part.asked &= !bit;
            part.passed &= !bit;
            part.skipped_at.get_or_insert(now);
            if !part.was_asked && !std::mem::replace(&mut part.unproven, true) {
                // It was pushed all the same.
                self.tell(News::Hashed(number));
            }
            self.stirred = true;
            self.keep(chunk, n, bytes, delay);
            return Ok(());
        }
        let (asked, lost) = (part.asked & bit != 0, part.lost & bit != 0);
        let asked_at = part.asked_at;
        let first = Some(asked_at).filter(|_| asked && !std::mem::replace(&mut part.timed, true));
        // Sooner than a round trip it is no answer: it was late when it was asked for.
        let answers = asked && asked_at + rtt * 3 / 4 <= now;
        let have = assembly.get(number).map_or(u16::MAX, |subtree| subtree.have);
        let overtakes = part.take(now, bit, delay, if whole { u16::MAX } else { have });
        if answers && in_trains {
            part.expect_rest(bit);
        }
        first.into_iter().for_each(|asked_at| self.note_answer(now, asked_at));
        self.stirred |= whole || asked || overtakes;
        if took == Took::Duplicate {
            self.counts.duplicates += 1;
            return Ok(());
        }
        self.brought |= bit_of(number);
        self.counts.payload += CHUNK as u64;
        self.counts.pushed += if asked { 0 } else { CHUNK as u64 };
        self.counts.repaired += u64::from(asked && lost);
        if answers {
            self.answered = Some((chunk, now));
            self.pass(now, asked_at, chunk, n);
        }
        Ok(())
    }

    /// The first of what was asked for at `asked_at` has come.
    fn note_answer(&mut self, now: Mono, asked_at: Mono) {
        // What waits for its turn there says nothing of the way.
        let took = now.since(asked_at).min(self.rtt);
        self.answers_in = Some(self.answers_in.map_or(took, |mean| (mean * 7 + took) / 8));
    }

    /// A chunk is of no use any more, but it did arrive: the source's path is not to blame.
    fn take_late(&mut self, chunk: u64, delay: i64) {
        if self.late.len() < LATE_MAX {
            self.late.push((chunk, delay));
        } else {
            self.counts.late_forgotten += 1;
        }
        self.counts.duplicates += 1;
        self.stirred = true;
    }

    /// An answer to `chunk`, which was asked for at `asked_at`, passes what is lower: the source
    /// answers the lowest first, and knew of what was asked for a round trip ago; or it answers
    /// in the order of the questions.
    fn pass(&mut self, now: Mono, asked_at: Mono, chunk: u64, n: u64) {
        let (rtt, lowest_first) = (self.rtt, self.private);
        let asked = self.asked;
        for (number, part) in self.parts.within_mut(asked.first, asked.end.min(chunk / n + 1)) {
            let before = part.asked_at <= asked_at;
            let known = before || lowest_first && part.asked_at + rtt <= now;
            if known && part.asked != 0 {
                let below = (chunk - number * n).min(16) as u32;
                part.pass(now, !u16::MAX.checked_shl(below).unwrap_or(0));
            }
        }
    }

    /// Keeps a chunk until its hash comes; those of the subtree that came first make room.
    fn keep(&mut self, chunk: u64, n: u64, bytes: &[u8; CHUNK], delay: i64) {
        if self.orphans.iter().any(|orphan| orphan.chunk == chunk) {
            self.counts.duplicates += 1;
            return;
        }
        let mut numbers: Vec<u64> = self.orphans.iter().map(|orphan| orphan.chunk / n).collect();
        numbers.dedup();
        let foreign = numbers.iter().filter(|number| **number != chunk / n).count();
        if foreign >= ORPHANED_MAX {
            let (first, before) = (numbers[0], self.orphans.len());
            self.orphans.retain(|orphan| orphan.chunk / n != first);
            self.counts.dropped += (before - self.orphans.len()) as u64;
        }
        self.orphans.push(Orphan { chunk, bytes: Box::new(*bytes), delay });
    }

    /// Takes the chunks that were kept and can be verified now, whoever brought the hash.
    pub(super) fn adopt<V: Verifier>(
        &mut self,
        now: Mono,
        tools: &mut Tools<'_, V>,
    ) -> Result<(), Crime> {
        let n = tools.assembly.n();
        let proven = |assembly: &Assembly, orphan: &Orphan| {
            assembly.get(orphan.chunk / n).is_some_and(|subtree| subtree.proof.is_some())
        };
        if !self.orphans.iter().any(|orphan| proven(tools.assembly, orphan)) {
            return Ok(());
        }
        let mut judged = Ok(());
        for orphan in std::mem::take(&mut self.orphans) {
            if proven(tools.assembly, &orphan) {
                let taken = self.take(now, orphan.chunk, &orphan.bytes, orphan.delay, tools);
                judged = judged.and(taken);
            } else {
                self.orphans.push(orphan);
            }
        }
        judged
    }

    /// The chunks of a subtree that are kept without a hash, a bit each.
    pub(super) fn orphaned(&self, number: u64, n: u64) -> u16 {
        let of = self.orphans.iter().filter(|orphan| orphan.chunk / n == number);
        of.fold(0, |bits, orphan| bits | 1 << (orphan.chunk % n))
    }
}

/// The clock of delay samples: microseconds of monotonic time.
fn micros(now: Mono) -> u64 {
    now.as_nanos() / 1_000
}
