//! Reproducible random numbers for the tests and the benches.

/// A small generator (`SplitMix64`). The same seed gives the same numbers.
pub struct Seeded(pub u64);

impl Seeded {
    /// Returns the next number, which is less than `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}
