//! Which slabs are with a window and which are in the pool: bookkeeping under the arena's lock.
//!
//! The arena is cut into frames of one large slab. A frame is whole, or split into 16 small
//! slabs. Slabs that windows retired come back here at once; those that a reader still pins
//! wait and are passed over. All lists have their full capacity from the start.

use crate::base::limits::{SLAB_LARGE, SLAB_SMALL, SLAB_SPLIT};
use crate::ring::word::Word;

const ALL: u16 = u16::MAX;
const _: () = assert!(SLAB_SPLIT == u16::BITS as usize, "one bit of a mask per small slab");

/// The size class of a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// `SLAB_SMALL` bytes.
    Small,
    /// `SLAB_LARGE` bytes.
    Large,
}

impl Class {
    /// Bytes of a slab.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Class::Small => SLAB_SMALL,
            Class::Large => SLAB_LARGE,
        }
    }
}

/// A slab as its owner knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlabRef {
    /// Its first small unit in the arena: the index of its word.
    pub(super) unit: u32,
    /// The generation that its owner claimed.
    pub(super) generation: u32,
    /// Its size.
    pub(super) class: Class,
}

/// The pool.
pub(super) struct Pool {
    /// Whole frames in the pool, in no order.
    whole: Vec<u32>,
    /// Frames with at least one small slab in the pool, in no order.
    split: Vec<u32>,
    /// Per frame: which of its small slabs are in the pool. 0 for whole frames.
    spare: Vec<u16>,
}

impl Pool {
    /// `frames` whole frames.
    pub(super) fn new(frames: u32) -> Pool {
        Pool {
            whole: (0..frames).rev().collect(),
            split: Vec::with_capacity(frames as usize),
            spare: vec![0; frames as usize],
        }
    }

    /// Takes an unpinned slab of `class` out.
    pub(super) fn claim(&mut self, class: Class, words: &[Word]) -> Option<SlabRef> {
        match class {
            Class::Large => self.claim_large(words),
            Class::Small => self.claim_small(words),
        }
    }

    fn claim_large(&mut self, words: &[Word]) -> Option<SlabRef> {
        if !self.whole.iter().any(|&f| words[first_unit(f)].is_free()) {
            self.merge_one(words)?;
        }
        let place = self.whole.iter().rposition(|&f| words[first_unit(f)].is_free())?;
        let unit = first_unit(self.whole[place]);
        let generation = words[unit].claim()?;
        self.whole.swap_remove(place);
        Some(SlabRef { unit: unit as u32, generation, class: Class::Large })
    }

    fn claim_small(&mut self, words: &[Word]) -> Option<SlabRef> {
        for place in (0..self.split.len()).rev() {
            let frame = self.split[place];
            for bit in 0..SLAB_SPLIT {
                let unit = first_unit(frame) + bit;
                if self.spare[frame as usize] & (1 << bit) == 0 {
                    continue;
                }
                if let Some(generation) = words[unit].claim() {
                    self.spare[frame as usize] &= !(1 << bit);
                    if self.spare[frame as usize] == 0 {
                        self.split.swap_remove(place);
                    }
                    return Some(SlabRef { unit: unit as u32, generation, class: Class::Small });
                }
            }
        }
        let place = self.whole.iter().rposition(|&f| words[first_unit(f)].is_free())?;
        let unit = first_unit(self.whole[place]);
        let generation = words[unit].claim()?;
        let frame = self.whole.swap_remove(place);
        self.spare[frame as usize] = ALL & !1;
        self.split.push(frame);
        Some(SlabRef { unit: unit as u32, generation, class: Class::Small })
    }

    /// Takes back a slab whose window has given its pin up; readers may still have theirs.
    pub(super) fn give_back(&mut self, slab: SlabRef, words: &[Word]) {
        let frame = slab.unit / SLAB_SPLIT as u32;
        if slab.class == Class::Large {
            self.whole.push(frame);
            return;
        }
        let spare = &mut self.spare[frame as usize];
        if *spare == 0 {
            self.split.push(frame);
        }
        *spare |= 1 << (slab.unit % SLAB_SPLIT as u32);
        if *spare == ALL {
            self.merge_one(words);
        }
    }

    /// Makes one split frame whole again of which all small slabs are here and unpinned.
    fn merge_one(&mut self, words: &[Word]) -> Option<()> {
        let place = self.split.iter().rposition(|&f| {
            self.spare[f as usize] == ALL
                && words[first_unit(f)..][..SLAB_SPLIT].iter().all(Word::is_free)
        })?;
        let frame = self.split.swap_remove(place);
        self.spare[frame as usize] = 0;
        self.whole.push(frame);
        Some(())
    }
}

fn first_unit(frame: u32) -> usize {
    frame as usize * SLAB_SPLIT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(frames: usize) -> Vec<Word> {
        (0..frames * SLAB_SPLIT).map(|_| Word::new()).collect()
    }

    fn retire(pool: &mut Pool, slab: SlabRef, words: &[Word]) {
        words[slab.unit as usize].unpin();
        pool.give_back(slab, words);
    }

    #[test]
    fn a_split_frame_becomes_whole_again() {
        let words = words(2);
        let mut pool = Pool::new(2);
        let smalls: Vec<_> = (0..17).map(|_| pool.claim(Class::Small, &words).unwrap()).collect();
        assert!(pool.claim(Class::Large, &words).is_none(), "17 smalls are in both frames");
        for slab in &smalls[..16] {
            retire(&mut pool, *slab, &words);
        }
        let large = pool.claim(Class::Large, &words).unwrap();
        assert!(pool.claim(Class::Large, &words).is_none());
        retire(&mut pool, smalls[16], &words);
        let other = pool.claim(Class::Large, &words).unwrap();
        assert_ne!(large.unit, other.unit);
        assert!(pool.claim(Class::Small, &words).is_none(), "all is taken");
    }

    #[test]
    fn a_pinned_slab_waits_in_the_pool_whatever_its_class() {
        let words = words(2);
        let mut pool = Pool::new(2);
        let small = pool.claim(Class::Small, &words).unwrap();
        let large = pool.claim(Class::Large, &words).unwrap();
        for slab in [small, large] {
            assert!(words[slab.unit as usize].pin(slab.generation));
            retire(&mut pool, slab, &words);
        }
        assert!(pool.claim(Class::Large, &words).is_none(), "a reader is in both frames");
        let around: Vec<_> = std::iter::from_fn(|| pool.claim(Class::Small, &words)).collect();
        assert_eq!(around.len(), 15, "the small slabs beside the pinned one");
        for slab in around {
            retire(&mut pool, slab, &words);
        }
        words[small.unit as usize].unpin();
        assert!(pool.claim(Class::Large, &words).is_some(), "merged when asked for");
        words[large.unit as usize].unpin();
        assert!(pool.claim(Class::Large, &words).is_some());
    }
}
