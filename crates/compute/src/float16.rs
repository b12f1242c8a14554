//! Numbers of sixteen bits: IEEE 754 half precision (f16) and the upper half of an f32 (bf16).

/// The value of an f16. Exact.
#[inline(always)]
pub fn f16_value(bits: u16) -> f32 {
    let (sign, exponent, fraction) =
        ((bits as u32 & 0x8000) << 16, (bits as u32 >> 10) & 31, bits as u32 & 0x3ff);
    // A subnormal is fraction · 2^−24; a normal number moves its exponent from base 15 to base 127.
    let subnormal = (fraction as f32 * (1.0 / 16_777_216.0)).to_bits();
    let normal = ((exponent + 112) << 23) | (fraction << 13);
    let special = 0x7f80_0000 | (fraction << 13);
    let size = if exponent == 0 { subnormal } else { normal };
    let size = if exponent == 31 { special } else { size };
    f32::from_bits(sign | size)
}

/// The nearest f16, of two equally near the even one. What is too large becomes infinite.
#[inline(always)]
pub fn f16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let size = bits & 0x7fff_ffff;
    if size > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    if size >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    if size < 0x3880_0000 {
        // Below 2^−14: the addition of 2^−1 rounds at the last place of a subnormal.
        let rounded = (f32::from_bits(size) + 0.5).to_bits() - 0.5f32.to_bits();
        return sign | rounded as u16;
    }
    let odd = (size >> 13) & 1;
    sign | (((size - (112 << 23)) + 0xfff + odd) >> 13) as u16
}

/// The nearest bf16, of two equally near the even one; NaN stays NaN.
#[inline(always)]
pub fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    if value.is_nan() { ((bits >> 16) | 0x40) as u16 } else { rounded }
}

/// The value of a bf16. Exact.
#[inline(always)]
pub fn bf16_value(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_comes_back() {
        for bits in 0..=u16::MAX {
            let value = f16_value(bits);
            if value.is_nan() {
                assert!(f16_value(f16_bits(value)).is_nan());
            } else {
                assert_eq!(f16_bits(value), bits, "{value}");
            }
        }
        assert_eq!(f16_value(0x3c00), 1.0);
        assert_eq!(f16_value(0xc000), -2.0);
        assert_eq!(f16_value(1), 2f32.powi(-24));
        assert_eq!(f16_bits(65_519.0), 0x7bff);
        assert_eq!(f16_bits(65_520.0), 0x7c00);
    }

    #[test]
    fn between_two_the_nearer_is_taken_and_of_equals_the_even_one() {
        for bits in [0x0000u16, 0x0001, 0x03ff, 0x0400, 0x3c00, 0x3c01, 0x7bfe] {
            let (low, high) = (f16_value(bits), f16_value(bits + 1));
            let middle = (low + high) / 2.0;
            let even = if bits.is_multiple_of(2) { bits } else { bits + 1 };
            assert_eq!(f16_bits(middle), even);
            assert_eq!(f16_bits(f32::from_bits(middle.to_bits() + 1)), bits + 1);
            assert_eq!(f16_bits(f32::from_bits(middle.to_bits() - 1)), bits);
        }
        assert_eq!(bf16_bits(1.0), 0x3f80);
        assert_eq!(bf16_bits(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(bf16_bits(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert!(bf16_value(bf16_bits(f32::NAN)).is_nan());
    }
}
