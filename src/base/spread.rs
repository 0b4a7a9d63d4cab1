//! Spreading numbers over all their bits: chance that is the same each time.

/// SplitMix64's last step: numbers that differ in one bit become numbers that differ in half.
#[must_use]
pub const fn spread(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// SplitMix64's step from one state to the next.
pub const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_splitmix64() {
        // The first numbers of seed 0 in Vigna's reference.
        let first = [GOLDEN, GOLDEN.wrapping_mul(2), GOLDEN.wrapping_mul(3)].map(spread);
        let known = [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F];
        assert_eq!(first, known);
    }
}
