//! Where the choices of a random run come from: a seed, or the bytes of a fuzzer.

/// A source of choices. Equal sources make equal runs.
#[derive(Clone, Debug)]
pub enum Choices<'a> {
    /// As many as wanted, from this state.
    Seed(u64),
    /// As many as there are bytes, then always the first alternative.
    Bytes(&'a [u8]),
}

impl Choices<'_> {
    /// There are more choices.
    #[must_use]
    pub fn more(&self) -> bool {
        !matches!(self, Choices::Bytes([]))
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        match self {
            Choices::Seed(state) => {
                // SplitMix64 (Steele, Lea, Flood 2014): small, and good enough for this.
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                ((z ^ (z >> 31)) % n as u64) as usize
            }
            Choices::Bytes(bytes) => {
                let mut value = 0;
                let mut room = 1;
                while let (true, Some((first, rest))) = (room < n, bytes.split_first()) {
                    (value, room) = (value * 256 + usize::from(*first), room * 256);
                    *bytes = rest;
                }
                value % n
            }
        }
    }

    /// True in about `percent` of cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        // The last values, so that an exhausted source says no.
        self.below(100) >= 100 - percent.min(100)
    }

    /// One of several.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}
