//! One number for everything that happened: two runs with the same number were the same run.
//!
//! It covers times, kinds, places, lengths, the headers of chunks, and every byte of all other
//! datagrams as they are sent, hashes and signatures among them. The bytes of chunks are the
//! referee's: those that are played are held against what was published.

use std::fmt;

/// FNV-1a over 64-bit words, which is as stable as arithmetic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(0xCBF2_9CE4_8422_2325)
    }
}

impl Digest {
    /// Adds a number.
    pub fn add(&mut self, word: u64) {
        // The words' high bits reach the low ones of the sum by the turn.
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(29);
    }

    /// Adds bytes and how many there are.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add(u64::from_le_bytes(last));
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_everywhere_and_every_bit_counts() {
        let of = |bytes: &[u8]| {
            let mut digest = Digest::default();
            digest.add_bytes(bytes);
            digest.to_string()
        };
        assert_eq!(of(b"headwater"), "8702f0d61a783b30");
        let all = [&b""[..], b"\0", b"\0\0", b"a", b"\0\0\0\0\0\0\0\0"].map(of);
        assert!((1..all.len()).all(|n| !all[..n].contains(&all[n])), "{all:?}");
    }
}
