//! Philox 4x32-10, a counter-based generator (Salmon et al. 2011, "Parallel
//! random numbers: as easy as 1, 2, 3").
//!
//! Everything random in a run is a pure function of (seed, what it is for,
//! which item): no state is carried, so resuming, sharding and the number of
//! workers cannot change a draw. The same generator is written as graph ops
//! where draws are made on the device.

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// One Philox 4x32-10 block: 128 random bits of a 128-bit counter and a
/// 64-bit key.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c, mut k] = [counter, [key[0], key[1], 0, 0]];
    for round in 0..10 {
        if round > 0 {
            k[0] = k[0].wrapping_add(WEYL[0]);
            k[1] = k[1].wrapping_add(WEYL[1]);
        }
        let p0 = u64::from(MULTIPLIER[0]) * u64::from(c[0]);
        let p1 = u64::from(MULTIPLIER[1]) * u64::from(c[2]);
        c = [
            (p1 >> 32) as u32 ^ c[1] ^ k[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ c[3] ^ k[1],
            p0 as u32,
        ];
    }
    c
}

/// What a stream of draws is for. Distinct purposes never share a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Parameter initialisation; item = hash of the parameter's name.
    Init = 1,
    /// The order of an epoch; item = epoch.
    Shuffle = 2,
    /// Crops and augmentation; item = (epoch, sample, view).
    Augment = 3,
    /// The picture that stands in for a corrupt one; item = (epoch, sample).
    Replace = 4,
    /// Procedural pictures; item = index.
    Synthetic = 5,
    /// Anything a test draws.
    Test = 6,
    /// How a batch is mixed; item = step.
    Mix = 7,
    /// Branches that are skipped; item = (epoch, picture in the row).
    DropPath = 8,
    /// Erased rectangles; item = (epoch, picture in the row).
    Erase = 9,
    /// RandAugment's operations; item = (epoch, sample).
    RandAugment = 10,
    /// What is in erased rectangles, drawn on the device; item = (row, step).
    Noise = 11,
    /// Pictures that are shown; item = what for.
    Show = 12,
}

/// A sequence of draws for one (seed, purpose, item): cheap to make, never
/// stored.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    /// Counter words 1 to 3 name the item; word 0 counts blocks.
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Stream {
    /// The stream of one item. `item` is (major, minor): for example
    /// (epoch << 8 | view, sample).
    pub fn new(seed: u64, purpose: Purpose, item: (u32, u32)) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            counter: [0, item.0, item.1, purpose as u32],
            block: [0; 4],
            used: 4,
        }
    }

    /// 32 random bits.
    pub fn bits(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Uniform in [0, 1) with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        let high = u64::from(self.bits()) >> 5;
        let low = u64::from(self.bits()) >> 6;
        (high * (1 << 26) + low) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Uniform integer in 0..n without modulo bias (Lemire 2019).
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "an empty range has no draw");
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u64::from(self.bits()) * u64::from(n);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// Standard normal, by Box and Muller's transform.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with Random123 (kat_vectors, philox4x32 10).
    #[test]
    fn philox_matches_the_published_vectors() {
        let cases = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn streams_of_different_items_differ_and_repeat() {
        let draw = |item| Stream::new(7, Purpose::Augment, item).bits();
        assert_eq!(draw((1, 2)), draw((1, 2)));
        assert_ne!(draw((1, 2)), draw((2, 1)));
    }

    #[test]
    fn draws_have_the_moments_of_their_distribution() {
        let mut stream = Stream::new(0, Purpose::Test, (0, 0));
        let n = 20_000;
        let normals: Vec<f64> = (0..n).map(|_| stream.normal()).collect();
        let mean = normals.iter().sum::<f64>() / f64::from(n);
        let variance = normals.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.03, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.04, "variance {variance}");
        let sixes = (0..n).filter(|_| stream.below(6) == 5).count() as f64;
        assert!((sixes / f64::from(n) - 1.0 / 6.0).abs() < 0.01);
    }
}
