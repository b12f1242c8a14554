//! Random numbers as pure functions of (seed, stream, index): no state, so that any step can be made again on its own,
//! by any thread, in any order.

use crate::elementary::{ln, sine_cosine};

/// Steele, Lea and Flood's SplitMix64 finaliser: a bijection on 64 bits that passes the usual batteries.
#[inline(always)]
pub const fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A key for one stream of numbers out of several coordinates (seed, step, layer, …).
pub fn key(coordinates: &[u64]) -> u64 {
    coordinates.iter().fold(0x6575_6c61_6c69_6121, |state, &coordinate| mix(state ^ mix(coordinate)))
}

/// 64 random bits.
#[inline(always)]
pub const fn bits(key: u64, index: u64) -> u64 {
    mix(key ^ mix(index))
}

/// A whole number in 0..bound (Lemire's multiplication; the bias is below bound / 2^64).
pub const fn below(key: u64, index: u64, bound: u64) -> u64 {
    ((bits(key, index) as u128 * bound as u128) >> 64) as u64
}

/// Uniform in (0, 1), 53 bits.
pub fn uniform(key: u64, index: u64) -> f64 {
    ((bits(key, index) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Standard normal (Box and Muller).
pub fn normal(key: u64, index: u64) -> f64 {
    let radius = (-2.0 * ln(uniform(key, 2 * index))).sqrt();
    radius * sine_cosine(std::f64::consts::TAU * uniform(key, 2 * index + 1)).1
}

/// A permutation of 0..length (Fisher and Yates).
pub fn permutation(key: u64, length: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..length as u32).collect();
    for i in (1..length).rev() {
        order.swap(i, below(key, i as u64, i as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let count = 20_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for i in 0..count {
            let x = normal(7, i);
            sum += x;
            squares += x * x;
        }
        assert!((sum / count as f64).abs() < 0.02);
        assert!((squares / count as f64 - 1.0).abs() < 0.03);
    }

    #[test]
    fn permutations_hold_every_index_once_and_differ_by_key() {
        let mut order = permutation(3, 1000);
        assert_ne!(order, permutation(4, 1000));
        assert_eq!(order, permutation(3, 1000));
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &v)| i as u32 == v));
    }
}
