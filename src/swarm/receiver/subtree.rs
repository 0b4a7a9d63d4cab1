//! One subtree while it is received: which of its hashes are proven, which chunks are there.

use crate::base::limits::SUBTREE_CHUNKS_MAX;
use crate::base::time::Mono;
use crate::ring::records::{Hash, Record, SubtreeSize};
use crate::swarm::integrity::{Signature, Verifier};

/// The root's place among the nodes; the children of node n are 2n and 2n + 1.
const ROOT: usize = 1;

/// What was signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof {
    pub munro: Hash,
    pub ntp: u64,
    pub signature: Signature,
}

/// What the hashes say of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is what was signed.
    Proven,
    /// It is not, or an uncle is wrong.
    Wrong,
    /// A hash is missing.
    Unknown,
}

/// A subtree between its first datagram and some time after its last: what all links of a viewer
/// have brought of it.
#[derive(Debug)]
pub struct Subtree {
    size: SubtreeSize,
    pub(super) proof: Option<Box<Proof>>,
    /// Its hashes as a heap: node 1 is the munro, the leaves begin at node N. A kilobyte, apart
    /// from what is looked through to find holes.
    nodes: Box<[Hash; 2 * SUBTREE_CHUNKS_MAX]>,
    /// Nodes that lead to the munro, a bit each.
    proven: u32,
    /// Nodes that somebody told, not proven.
    told: u32,
    /// Chunks that are there or were played, a bit each.
    pub(super) have: u16,
    /// Those of them that were verified here, and so may be passed on.
    pub(super) got: u16,
    /// When it was first known to exist.
    pub(super) since: Mono,
    /// Its record was given to the window.
    pub(super) recorded: bool,
}

impl Subtree {
    pub(super) fn new(size: SubtreeSize, have: u16, now: Mono) -> Subtree {
        Subtree {
            size,
            proof: None,
            nodes: Box::new([[0; 32]; 2 * SUBTREE_CHUNKS_MAX]),
            proven: 0,
            told: 0,
            have,
            got: 0,
            since: now,
            recorded: false,
        }
    }

    /// Every chunk's bit.
    pub(super) fn all(&self) -> u16 {
        (u32::MAX >> (32 - self.size.chunks())) as u16
    }

    /// Whether all of it came, or was played.
    pub(super) fn is_complete(&self) -> bool {
        self.have == self.all()
    }

    /// The munro was verified.
    pub(super) fn prove(&mut self, proof: Proof) {
        self.nodes[ROOT] = proof.munro;
        self.proven |= 1 << ROOT;
        self.proof = Some(Box::new(proof));
    }

    /// All leaves were verified with the munro.
    pub(super) fn prove_leaves(&mut self, leaves: &[Hash]) {
        let first = self.size.chunks();
        for (node, leaf) in self.nodes[first..2 * first].iter_mut().zip(leaves) {
            *node = *leaf;
        }
        self.proven |= ((1 << first) - 1) << first;
    }

    /// Somebody told the hash over `chunks` chunks from the `first` of the subtree on. False if
    /// there is no such node.
    pub(super) fn tell(&mut self, first: usize, chunks: usize, hash: &Hash) -> bool {
        let all = self.size.chunks();
        if !chunks.is_power_of_two() || !first.is_multiple_of(chunks) || first + chunks > all {
            return false;
        }
        let node = (all + first) / chunks;
        if self.proven & (1 << node) == 0 {
            self.nodes[node] = *hash;
            self.told |= 1 << node;
        }
        true
    }

    /// Judges a chunk by its hash. With a way up to the munro all nodes on it become proven.
    pub(super) fn judge(&mut self, chunk: usize, leaf: Hash, by: &mut impl Verifier) -> Verdict {
        let leaf_node = self.size.chunks() + chunk;
        let (mut node, mut hash) = (leaf_node, leaf);
        let mut way = [(0, [0; 32]); 5];
        let mut steps = 0;
        while self.proven & (1 << node) == 0 {
            let sibling = node ^ 1;
            if node <= ROOT || (self.proven | self.told) & (1 << sibling) == 0 {
                return Verdict::Unknown;
            }
            way[steps] = (node, hash);
            steps += 1;
            let other = self.nodes[sibling];
            hash = by.munro(&if node < sibling { [hash, other] } else { [other, hash] });
            node /= 2;
        }
        if self.nodes[node] != hash {
            // Nobody can say which of them is wrong: what was only told is forgotten.
            self.told = 0;
            return Verdict::Wrong;
        }
        for (node, hash) in &way[..steps] {
            self.nodes[*node] = *hash;
            self.proven |= 1 << node | 1 << (node ^ 1);
        }
        Verdict::Proven
    }

    /// The record of the subtree, once, when all its leaves are proven.
    pub(super) fn take_record(&mut self) -> Option<Record> {
        let first = self.size.chunks();
        let leaves = ((1_u32 << first) - 1) << first;
        let all = !self.recorded && self.proven & leaves == leaves;
        let proof = self.proof.as_deref().filter(|_| all)?;
        self.recorded = true;
        let mut record = Record {
            leaves: [[0; 32]; SUBTREE_CHUNKS_MAX],
            munro: proof.munro,
            ntp: proof.ntp,
            signature: proof.signature,
        };
        record.leaves[..first].copy_from_slice(&self.nodes[first..2 * first]);
        Some(record)
    }
}

/// The runs of set bits, as the first and the last of each.
pub(super) fn runs(mut bits: u16) -> impl Iterator<Item = (u64, u64)> {
    std::iter::from_fn(move || {
        let first = bits.trailing_zeros();
        if first >= 16 {
            return None;
        }
        let length = (bits >> first).trailing_ones();
        let last = first + length - 1;
        bits &= u16::MAX.checked_shl(last + 1).unwrap_or(0);
        Some((u64::from(first), u64::from(last)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::integrity::{Real, leaf, munro};

    fn tree(chunks: usize) -> (Subtree, Vec<Hash>) {
        let size = SubtreeSize::new(chunks).unwrap();
        let leaves: Vec<Hash> = (0..chunks).map(|n| leaf(&[n as u8; 9])).collect();
        let mut subtree = Subtree::new(size, 0, Mono::ZERO);
        subtree.prove(Proof { munro: munro(&leaves), ntp: 7, signature: [1; 64] });
        (subtree, leaves)
    }

    #[test]
    fn runs_of_bits() {
        let of = |bits| runs(bits).collect::<Vec<_>>();
        assert_eq!(of(0), []);
        assert_eq!(of(0b1101), [(0, 0), (2, 3)]);
        assert_eq!((of(u16::MAX), of(1 << 15)), (vec![(0, 15)], vec![(15, 15)]));
    }

    #[test]
    fn uncles_prove_a_chunk_and_what_they_hold() {
        for size in [2, 4, 8, 16] {
            let (mut subtree, leaves) = tree(size);
            let by = &mut Real::default();
            assert_eq!(subtree.judge(1, leaves[1], by), Verdict::Unknown);
            assert!(subtree.tell(0, 1, &leaves[0]));
            let mut width = 2;
            while width < size {
                assert!(subtree.tell(width, width, &munro(&leaves[width..2 * width])));
                width *= 2;
            }
            assert_eq!(subtree.judge(1, leaves[1], by), Verdict::Proven);
            assert_eq!(subtree.judge(0, leaves[0], by), Verdict::Proven, "its leaf came as uncle");
            assert_eq!(subtree.judge(0, leaves[1], by), Verdict::Wrong);
            assert!(subtree.take_record().is_none() || size == 2, "some leaves are not known");
            for chunk in 2..size {
                if subtree.judge(chunk, leaves[chunk], by) == Verdict::Unknown {
                    subtree.tell(chunk ^ 1, 1, &leaves[chunk ^ 1]);
                    for width in [2, 4, 8].into_iter().filter(|width| *width < size) {
                        let first = ((chunk / width) ^ 1) * width;
                        subtree.tell(first, width, &munro(&leaves[first..first + width]));
                    }
                    assert_eq!(subtree.judge(chunk, leaves[chunk], by), Verdict::Proven);
                }
            }
            if size > 2 {
                let record = subtree.take_record().unwrap();
                assert_eq!(record.leaves[..size], leaves);
            }
            assert!(subtree.take_record().is_none(), "once");
        }
    }

    #[test]
    fn a_wrong_uncle_proves_nothing_and_is_forgotten() {
        let (mut subtree, leaves) = tree(4);
        let by = &mut Real::default();
        assert!(subtree.tell(1, 1, &leaves[1]) && subtree.tell(2, 2, &leaves[2]));
        assert_eq!(subtree.judge(0, leaves[0], by), Verdict::Wrong);
        assert_eq!(subtree.judge(0, leaves[0], by), Verdict::Unknown);
        for (first, chunks) in [(1, 2), (0, 3), (4, 1), (0, 8)] {
            assert!(!subtree.tell(first, chunks, &leaves[0]), "{first} {chunks}");
        }
    }
}
