//! `exp`, `ln`, `sin`, `cos` and powers of our own: the platform's differ from machine to machine, and scalar calls keep a
//! loop from being vectorised (the profiles of other frameworks show `expf` on one lane as a main cost).
//!
//! The f32 ones are for inner loops (relative error below 2e-7, checked over the whole range by a test); the f64 ones
//! are for tables and initialisation, built of operations that IEEE 754 rounds exactly.

use std::f64::consts::{FRAC_PI_2, LN_2};

/// e^x. Below −87.3 it is 0 (no subnormals), above 88 it is +∞; NaN stays NaN.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, then a polynomial of degree 6 for e^r (Cody and Waite's reduction; minimax
/// coefficients of Cephes' `expf`), whose exponent grows by n.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.3;
    const HIGHEST: f32 = 88.0;
    const ROUNDER: f32 = 12_582_912.0; // 1.5·2^23: adding it rounds to the nearest whole number
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let n = shifted - ROUNDER;
    let r = n.mul_add(-LN_2_HIGH, x);
    let r = n.mul_add(-LN_2_LOW, r);
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_2e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 0.166_666_66);
    p = p.mul_add(r, 0.5);
    let result = (r * r).mul_add(p, r) + 1.0;
    // Outside of the range the exponent overflows into nonsense, which the selections below replace.
    let result = f32::from_bits(result.to_bits().wrapping_add(shifted.to_bits() << 23));
    let result = if x < LOWEST { 0.0 } else { result };
    // The sum is +∞, or NaN where x is.
    if x <= HIGHEST { result } else { x + f32::INFINITY }
}

/// 1 / (1 + e^−x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// e^x − 1. Near zero by its series, where the difference would cancel.
#[inline(always)]
pub fn exp_minus_one(x: f32) -> f32 {
    let mut p = 1.0 / 5040.0f32;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0] {
        p = p.mul_add(x, factor);
    }
    if x.abs() < 0.4 { p * x } else { exp(x) - 1.0 }
}

/// The hyperbolic tangent. Near zero by its series, where the difference would cancel.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let square = x * x;
    let mut p = -1382.0 / 155_925.0f32;
    for factor in [62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
        p = p.mul_add(square, factor);
    }
    // 1 − 2 / (e^2x + 1) reaches ±1 by itself.
    if x.abs() < 0.3 { p * x } else { 1.0 - 2.0 / (exp(2.0 * x) + 1.0) }
}

/// The natural logarithm, for positive finite x: x = 2^n·m, m in [√½, √2), then ln m = 2·artanh((m−1)/(m+1)) as a series.
pub fn ln(x: f64) -> f64 {
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x == f64::INFINITY {
        return x;
    }
    let (scaled, shift) = if x < f64::MIN_POSITIVE { (x * 2f64.powi(64), -64) } else { (x, 0) };
    let bits = scaled.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1023 + shift;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let z_squared = z * z;
    let mut sum = 0.0;
    for k in (0..14).rev() {
        sum = sum * z_squared + 1.0 / (2 * k + 1) as f64;
    }
    exponent as f64 * LN_2 + 2.0 * z * sum
}

/// e^x in double precision: reduction by ln 2, then the Taylor series.
pub fn exp_f64(x: f64) -> f64 {
    if x.is_nan() || x > 709.0 {
        return if x.is_nan() { x } else { f64::INFINITY };
    }
    if x < -708.0 {
        return 0.0;
    }
    let n = (x / LN_2).round();
    let r = (x - n * 0.693_147_180_369_123_8) - n * 1.908_214_929_270_587_7e-10;
    let mut sum = 1.0;
    for k in (1..18).rev() {
        sum = 1.0 + sum * r / k as f64;
    }
    f64::from_bits((((n as i64) + 1023) << 52) as u64) * sum
}

/// base^exponent for a positive base.
pub fn power(base: f64, exponent: f64) -> f64 {
    exp_f64(exponent * ln(base))
}

/// (sin x, cos x): reduction by π/2 in two parts, then Taylor series. For |x| below about a million.
pub fn sine_cosine(x: f64) -> (f64, f64) {
    let quadrant = (x / FRAC_PI_2).round();
    let r = (x - quadrant * 1.570_796_326_734_125_6) - quadrant * 6.077_100_506_506_192e-11;
    let r_squared = r * r;
    let (mut sine, mut cosine) = (1.0, 1.0);
    for k in (1..10).rev() {
        let k = k as f64;
        sine = 1.0 - sine * r_squared / ((2.0 * k) * (2.0 * k + 1.0));
        cosine = 1.0 - cosine * r_squared / ((2.0 * k - 1.0) * (2.0 * k));
    }
    let sine = sine * r;
    match (quadrant as i64).rem_euclid(4) {
        0 => (sine, cosine),
        1 => (cosine, -sine),
        2 => (-sine, -cosine),
        _ => (-cosine, sine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_over_its_range() {
        let mut worst = 0.0f64;
        for i in -8_730..8_799 {
            let x = i as f32 / 100.0 + 0.003;
            let expected = (x as f64).exp();
            worst = worst.max((exp(x) as f64 / expected - 1.0).abs());
        }
        assert!(worst < 2e-7, "relative error {worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(88.0).is_finite());
    }

    #[test]
    fn near_zero_nothing_cancels() {
        for i in -4_000..4_000 {
            let x = i as f32 / 500.0 + 0.000_3;
            let (found, expected) = (exp_minus_one(x) as f64, (x as f64).exp_m1());
            assert!((found / expected - 1.0).abs() < 6e-7, "exp_minus_one({x}) = {found}");
            let (found, expected) = (tanh(x) as f64, (x as f64).tanh());
            assert!((found / expected - 1.0).abs() < 6e-7, "tanh({x}) = {found}");
        }
        assert_eq!([tanh(0.0), tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)], [0.0, 1.0, -1.0]);
        assert_eq!([exp_minus_one(0.0), exp_minus_one(f32::NEG_INFINITY)], [0.0, -1.0]);
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn double_precision_functions_agree_with_the_platform() {
        for i in 1..2_000 {
            let x = i as f64 * 0.37;
            assert!((ln(x) - x.ln()).abs() < 1e-14 * x.ln().abs().max(1.0), "ln {x}");
            let (sine, cosine) = sine_cosine(x * 40.0);
            assert!((sine - (x * 40.0).sin()).abs() < 1e-11, "sin {x}");
            assert!((cosine - (x * 40.0).cos()).abs() < 1e-11, "cos {x}");
            let small = x / 10.0 - 40.0;
            assert!((exp_f64(small) / small.exp() - 1.0).abs() < 1e-13, "exp {small}");
        }
        assert!((power(1e6, -0.25) - 1e6f64.powf(-0.25)).abs() < 1e-14);
        assert_eq!(sine_cosine(0.0), (0.0, 1.0));
    }
}
