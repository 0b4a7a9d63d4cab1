//! One fixed record per subtree: what proves its bytes. Kept only for windows that are signed.
//!
//! A record is a seqlock of its own: its tag is the number of its subtree, which only grows in a
//! slot, so a record that was overwritten while it was read is never taken for a whole one.

use crossbeam::utils::CachePadded;

use crate::base::limits::{CHUNK, SUBTREE_CHUNKS_MAX};
use crate::ring::sync::{AtomicU64, Ordering, fence};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// 64-bit words of the largest record.
const WORDS_MAX: usize = words(SUBTREE_CHUNKS_MAX);

const _: () = assert!(WORDS_MAX * 8 == 616, "the record of the design at 16 chunks");

/// Words of a record of `chunks` leaves: leaves, munro, NTP time, signature.
const fn words(chunks: usize) -> usize {
    4 * chunks + 4 + 1 + 8
}

/// How many chunks are under one signature: 2, 4, 8 or 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubtreeSize(usize);

impl SubtreeSize {
    /// Two chunks.
    pub const SMALLEST: SubtreeSize = SubtreeSize(2);

    /// A subtree of `chunks` chunks; `None` unless that is 2, 4, 8 or 16.
    #[must_use]
    pub const fn new(chunks: usize) -> Option<SubtreeSize> {
        let valid = chunks.is_power_of_two() && chunks > 1 && chunks <= SUBTREE_CHUNKS_MAX;
        if valid { Some(SubtreeSize(chunks)) } else { None }
    }

    /// Chunks of a subtree.
    #[must_use]
    pub const fn chunks(self) -> usize {
        self.0
    }

    /// Stream bytes of a subtree.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        (self.0 * CHUNK) as u64
    }

    /// Bytes of a record: 168, 232, 360 or 616.
    #[must_use]
    pub const fn record_bytes(self) -> usize {
        words(self.0) * 8
    }

    /// Bytes of memory that the records of a window of `quota` bytes take beside the arena:
    /// about 4 % of the quota at 16 chunks, 8 % at 2.
    #[must_use]
    pub const fn index_bytes(self, quota: u64) -> u64 {
        self.slots(quota) * (self.record_bytes() as u64 + 8)
    }

    /// Records kept: those of a window of `quota` bytes, and of a quarter more, because the
    /// record of a subtree that is received comes before its bytes.
    const fn slots(self, quota: u64) -> u64 {
        (quota + quota / 4) / self.bytes() + 1
    }
}

/// What proves the bytes of one subtree (RFC 7574, 6.1.2: unified Merkle tree).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Hashes of the chunks in order. As many as the subtree has chunks; zeroes behind.
    pub leaves: [Hash; SUBTREE_CHUNKS_MAX],
    /// The root of the subtree: what is signed.
    pub munro: Hash,
    /// When it was signed: NTP time, seconds since 1900 in the upper 32 bits, fraction below.
    pub ntp: u64,
    /// ECDSA P-256, r and s.
    pub signature: [u8; 64],
}

impl Record {
    fn to_words(&self) -> [u64; WORDS_MAX] {
        let mut words = [self.ntp; WORDS_MAX];
        let bytes = self.munro.iter().chain(&self.signature).chain(self.leaves.as_flattened());
        let mut bytes = bytes.copied();
        for word in &mut words[1..] {
            *word = u64::from_le_bytes(std::array::from_fn(|_| bytes.next().unwrap_or(0)));
        }
        words
    }

    fn from_words(words: &[u64; WORDS_MAX]) -> Record {
        let mut bytes = words[1..].iter().flat_map(|word| word.to_le_bytes());
        let mut next = || bytes.next().unwrap_or(0);
        let munro = std::array::from_fn(|_| next());
        let signature = std::array::from_fn(|_| next());
        let leaves = std::array::from_fn(|_| std::array::from_fn(|_| next()));
        Record { leaves, munro, ntp: words[0], signature }
    }
}

/// Why there is no record to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRecord {
    /// Nobody has signed the subtree yet, or the window has no records.
    Unsigned,
    /// The subtree has left the window.
    Overtaken,
}

/// Why a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsigned {
    /// The window has no records.
    NoRecords,
    /// The subtree has left the window, or has a record already.
    Late,
    /// The writer's own subtree is not published to its end, or a received one is further
    /// ahead than the window looks.
    Early,
}

/// The records of a window. Changed by its one writer, read by everybody.
pub(super) struct Records {
    size: SubtreeSize,
    slots: Slots,
    /// Stream offset behind the newest subtree with a record.
    head: CachePadded<AtomicU64>,
}

impl Records {
    /// No record yet, in a window of at most `quota` bytes that begins at `first`.
    pub(super) fn new(size: SubtreeSize, quota: u64, first: u64) -> Records {
        // Records of the arena's own memory: fits usize.
        let slots = Slots::new(size.slots(quota) as usize, words(size.chunks()));
        Records { size, slots, head: CachePadded::new(AtomicU64::new(first)) }
    }

    pub(super) fn size(&self) -> SubtreeSize {
        self.size
    }

    /// Acquire: the newest record is there.
    pub(super) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Writer: adds the record of subtree `number`; false if its slot has it, or a newer one.
    pub(super) fn put(&self, number: u64, record: &Record) -> bool {
        let words = record.to_words();
        if !self.slots.put(number, &words[..self.slots.per]) {
            return false;
        }
        let end = (number + 1) * self.size.bytes();
        if end > self.head.load(Ordering::Relaxed) {
            self.head.store(end, Ordering::Release);
        }
        true
    }

    /// The record of subtree `number`, unless it is not there or was overwritten.
    pub(super) fn get(&self, number: u64) -> Option<Record> {
        let mut words = [0; WORDS_MAX];
        let found = self.slots.get(number, &mut words[..self.slots.per]);
        found.then(|| Record::from_words(&words))
    }
}

/// Slots of equal size, each behind a tag: 0 while it is written, else 1 + the number in it.
pub(super) struct Slots {
    tags: Box<[AtomicU64]>,
    words: Box<[AtomicU64]>,
    per: usize,
}

impl Slots {
    /// `count` slots of `per` words.
    pub(super) fn new(count: usize, per: usize) -> Slots {
        let zeroes = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Slots { tags: zeroes(count), words: zeroes(count * per), per }
    }

    /// Fills the slot of `number`, unless it has that or a newer one. One thread at a time.
    pub(super) fn put(&self, number: u64, words: &[u64]) -> bool {
        let slot = self.slot(number);
        let tag = &self.tags[slot];
        if tag.load(Ordering::Relaxed) > number {
            return false;
        }
        // Release, because who finds the old record gone also acts on why: it has left.
        tag.store(0, Ordering::Release);
        // Who reads one of these words and then fences sees that the slot was begun.
        fence(Ordering::Release);
        for (to, word) in self.words[slot * self.per..][..self.per].iter().zip(words) {
            to.store(*word, Ordering::Relaxed);
        }
        tag.store(number + 1, Ordering::Release);
        true
    }

    /// Copies what is under `number` out; false if it is not there, or no longer.
    pub(super) fn get(&self, number: u64, words: &mut [u64]) -> bool {
        let slot = self.slot(number);
        let tag = &self.tags[slot];
        if tag.load(Ordering::Acquire) != number + 1 {
            return false;
        }
        for (from, word) in self.words[slot * self.per..][..self.per].iter().zip(words) {
            *word = from.load(Ordering::Relaxed);
        }
        fence(Ordering::Acquire);
        tag.load(Ordering::Acquire) == number + 1
    }

    fn slot(&self, number: u64) -> usize {
        // Below the length: fits usize.
        (number % self.tags.len() as u64) as usize
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record that no other number and size has.
    pub(in crate::ring) fn record(size: SubtreeSize, number: u64) -> Record {
        let mut random = fastrand::Rng::with_seed(number + 1);
        let mut leaves = [[0; 32]; SUBTREE_CHUNKS_MAX];
        leaves[..size.chunks()].iter_mut().for_each(|leaf| random.fill(leaf));
        let mut record = Record { leaves, munro: [0; 32], ntp: number, signature: [0; 64] };
        random.fill(&mut record.munro);
        random.fill(&mut record.signature);
        record
    }

    #[test]
    fn sizes_are_those_of_the_wire() {
        let sizes = [2, 4, 8, 16].map(|n| SubtreeSize::new(n).unwrap());
        assert_eq!(sizes.map(SubtreeSize::record_bytes), [168, 232, 360, 616]);
        assert_eq!(sizes[3].bytes(), 21_056);
        assert!([0, 1, 3, 12, 32].into_iter().all(|n| SubtreeSize::new(n).is_none()));
        let million = sizes.map(|size| size.index_bytes(1_000_000));
        assert!(million[3] < 40_000 && million[0] < 85_000, "{million:?}");
    }

    #[test]
    fn records_come_back_whole_until_overwritten() {
        for chunks in [2, 4, 8, 16] {
            let size = SubtreeSize::new(chunks).unwrap();
            let records = Records::new(size, 8 * size.bytes(), 0);
            let kept = records.slots.tags.len() as u64;
            assert_eq!(kept, 11);
            for n in 0..50 {
                assert_eq!(records.get(n), None);
                assert!(records.put(n, &record(size, n)));
                assert!(!records.put(n, &record(size, 99)), "once and for all");
                assert_eq!(records.head(), (n + 1) * size.bytes());
                for back in 0..kept.min(n + 1) {
                    assert_eq!(records.get(n - back), Some(record(size, n - back)));
                }
                if n >= kept {
                    assert_eq!(records.get(n - kept), None);
                    assert!(!records.put(n - kept, &record(size, 0)), "older than its slot");
                }
            }
        }
    }
}
