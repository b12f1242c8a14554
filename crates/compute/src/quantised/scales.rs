//! Scales of sixteen outputs at once (AVX-512).

use super::Bits;
use super::blocks::Group;
use crate::product::PANEL_COLUMNS;
use std::arch::x86_64::*;

/// Scales and minima of the outputs 16·v to 16·v + 15. As `Bits::scale_and_minimum` has them, bit by bit.
///
/// Always inlined, so that it is compiled for its caller's processor and stands within its loop.
///
/// # Safety
/// The processor has AVX-512 F, BW and VL.
#[inline(always)]
pub unsafe fn scales_and_minima(bits: Bits, data: &Group, v: usize) -> (__m512, __m512) {
    // SAFETY: sixteen halves, or bytes; the processor has the instructions.
    unsafe {
        let halves = |bytes: &[u8]| {
            let halves = bytes[32 * v..][..32].as_ptr();
            _mm512_cvtph_ps(_mm256_loadu_si256(halves.cast()))
        };
        let bytes = |bytes: &[u8]| {
            let bytes = bytes[16 * v..][..16].as_ptr();
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.cast())))
        };
        let half = 2 * PANEL_COLUMNS;
        match bits {
            Bits::Eight | Bits::Four => (halves(data.head), _mm512_setzero_ps()),
            Bits::FourAndMinimum => (halves(data.head), halves(&data.head[half..])),
            Bits::FourNested => {
                let (s, m) = (bytes(data.head), bytes(&data.head[PANEL_COLUMNS..]));
                let scale = _mm512_mul_ps(halves(data.block), s);
                let minimum = _mm512_mul_ps(halves(&data.block[half..]), m);
                (scale, _mm512_sub_ps(_mm512_setzero_ps(), minimum))
            }
        }
    }
}
