//! Many rows by `vpdpbusd` (AVX-512 VNNI): the weights of some groups stand as bytes in the first cache, with scales as f32, and all
//! rows of x pass by them, two at a time.

use super::blocks::{Bits, Group};
use super::rows::GroupsMut;
use super::scales::scales_and_minima;
use super::{GROUP, QuantisedRows, vnni};
use crate::activations::Gate;
use crate::memory::Lines;
use crate::product::{PANEL_COLUMNS, Target};
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

/// Rows that are taken at a time: their whole sums and sums are 16 of 32 registers, four more are weights. Each number of x is
/// loaded for four vectors of weights, each vector of weights for two rows.
const ROWS: usize = 2;
/// Groups that stand ready: 20 KiB, less than half of the first cache.
const GROUPS: usize = 8;
/// Vectors of sixteen columns in a panel.
const VECTORS: usize = PANEL_COLUMNS / 16;
/// Four inputs of all columns of a panel.
const LINE: usize = 4 * PANEL_COLUMNS;
/// From this many rows on, it is worth the while to widen the weights first.
pub const ROWS_WORTH_WIDENING: usize = 2 * vnni::ROWS;

/// A group of a panel.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Widened {
    codes: [[u8; LINE]; GROUP / 4],
    scales: [f32; PANEL_COLUMNS],
    minima: [f32; PANEL_COLUMNS],
}

const NOTHING: Widened =
    Widened { codes: [[0; LINE]; GROUP / 4], scales: [0.0; PANEL_COLUMNS], minima: [0.0; PANEL_COLUMNS] };

/// A group of two rows of x.
#[repr(align(32))]
#[derive(Clone, Copy, Default)]
struct RowsGroup {
    codes: [[i8; GROUP]; ROWS],
    scales: [f32; ROWS],
    /// Σ q.
    sums: [i32; ROWS],
}

/// What a thread needs.
struct Buffers {
    weights: Box<[Widened]>,
    /// [rows / 2, groups]
    x: Vec<RowsGroup>,
    /// Of all rows with a panel, so far: [rows, 64]. A gate's and up's are two.
    sums: [Lines; 2],
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers {
        weights: vec![NOTHING; GROUPS].into(),
        x: Vec::new(),
        sums: [Lines::default(), Lines::default()],
    });
}

/// Bytes that each thread of a product of so many rows of `width` takes.
pub fn buffer_bytes(rows: usize, width: usize) -> usize {
    if rows < ROWS_WORTH_WIDENING {
        return 0;
    }
    let x = rows.div_ceil(ROWS) * width.div_ceil(GROUP) * size_of::<RowsGroup>();
    GROUPS * size_of::<Widened>() + x + 2 * rows * PANEL_COLUMNS * size_of::<f32>()
}

/// A panel: its code, its columns and its weights.
type Panel<'a> = (Bits, Range<usize>, &'a [u8]);

/// All rows of x against these panels.
///
/// # Safety
/// The processor has AVX-512 F, BW, VL and VNNI; the columns lie inside y, which has the rows of x, and nobody else touches
/// them there.
pub unsafe fn multiply<'a>(panels: impl Iterator<Item = Panel<'a>>, x: &QuantisedRows, y: Target) {
    BUFFERS.with_borrow_mut(|Buffers { weights, x: packed, sums }| {
        let packed = pack(x, packed);
        for panel in panels {
            let columns = panel.1.clone();
            // SAFETY: passed on.
            let sums = unsafe { add_up(panel, packed, x, weights, &mut sums[0]) };
            for (row, sums) in sums.iter().enumerate() {
                // SAFETY: the columns lie inside y, at most 64 of them, and are ours.
                unsafe {
                    std::ptr::copy_nonoverlapping(sums.as_ptr(), y.at(row, columns.start), columns.len())
                };
            }
        }
    });
}

/// All rows of x against pairs of panels, a gate's and up's, whole ones: each pair becomes two groups of y, from the group on
/// that is named beside it.
///
/// # Safety
/// As [`multiply`]; the groups are nobody else's.
pub unsafe fn multiply_gated<'a>(
    pairs: impl Iterator<Item = (usize, [Panel<'a>; 2])>,
    x: &QuantisedRows,
    gate: Gate,
    y: GroupsMut,
) {
    BUFFERS.with_borrow_mut(|Buffers { weights, x: packed, sums: [gates, ups] }| {
        let packed = pack(x, packed);
        for (first, [of_gate, of_up]) in pairs {
            // SAFETY: passed on.
            let gates = unsafe { add_up(of_gate, packed, x, weights, gates) };
            // SAFETY: passed on.
            let ups = unsafe { add_up(of_up, packed, x, weights, ups) };
            // SAFETY: passed on.
            unsafe { y.put_gated(gate, gates, ups, first) };
        }
    });
}

fn pack<'a>(x: &QuantisedRows, packed: &'a mut Vec<RowsGroup>) -> &'a [RowsGroup] {
    let groups = x.groups();
    let length = x.rows().div_ceil(ROWS) * groups;
    if packed.len() < length {
        // The old ones are given back first.
        *packed = Vec::new();
        packed.resize(length, RowsGroup::default());
    }
    let codes = x.codes.as_chunks::<GROUP>().0;
    for row in 0..x.rows() {
        let packed = &mut packed[row / ROWS * groups..][..groups];
        for (group, packed) in packed.iter_mut().enumerate() {
            let (r, at) = (row % ROWS, row * groups + group);
            (packed.codes[r], packed.scales[r], packed.sums[r]) = (codes[at], x.scales[at], x.sums[at]);
        }
    }
    &packed[..length]
}

/// The products of all rows with one panel: [rows, 64].
///
/// # Safety
/// The processor has AVX-512 F, BW, VL and VNNI.
unsafe fn add_up<'a>(
    (bits, _, weights): Panel,
    packed: &[RowsGroup],
    x: &QuantisedRows,
    buffer: &mut [Widened],
    sums: &'a mut Lines,
) -> &'a [[f32; PANEL_COLUMNS]] {
    let (rows, all) = (x.rows(), x.groups());
    if sums.floats().len() < rows * PANEL_COLUMNS {
        *sums = Lines::default();
        *sums = Lines::zeroed(rows * PANEL_COLUMNS * size_of::<f32>());
    }
    let sums = &mut sums.floats_mut().as_chunks_mut::<PANEL_COLUMNS>().0[..rows];
    sums.fill([0.0; PANEL_COLUMNS]);
    for first in (0..all).step_by(GROUPS) {
        let groups = &mut buffer[..GROUPS.min(all - first)];
        for (index, group) in groups.iter_mut().enumerate() {
            // SAFETY: passed on.
            unsafe { widen(bits, &bits.group(weights, first + index), group) };
        }
        for (sums, x) in sums.chunks_mut(ROWS).zip(packed.chunks_exact(all)) {
            let x = &x[first..][..groups.len()];
            let ahead = all * size_of::<RowsGroup>();
            // SAFETY: passed on.
            unsafe {
                match (sums.len(), bits.has_minimum()) {
                    (1, false) => run::<1, false>(bits.offset(), x, ahead, groups, sums),
                    (1, true) => run::<1, true>(bits.offset(), x, ahead, groups, sums),
                    (_, false) => run::<ROWS, false>(bits.offset(), x, ahead, groups, sums),
                    (_, true) => run::<ROWS, true>(bits.offset(), x, ahead, groups, sums),
                }
            }
        }
    }
    sums
}

/// Codes of four bits become bytes, whatever scales are becomes f32.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn widen(bits: Bits, group: &Group, widened: &mut Widened) {
    let lines = group.codes.as_chunks::<LINE>().0;
    match bits {
        Bits::Eight => widened.codes.copy_from_slice(lines),
        Bits::Four | Bits::FourAndMinimum | Bits::FourNested => {
            let (low, high) = widened.codes.split_at_mut(GROUP / 8);
            for ((line, low), high) in lines.iter().zip(low).zip(high) {
                for ((code, low), high) in line.iter().zip(low).zip(high) {
                    (*low, *high) = (code & 15, code >> 4);
                }
            }
        }
    }
    let scales = widened.scales.as_chunks_mut::<16>().0.iter_mut();
    for (v, (scales, minima)) in scales.zip(widened.minima.as_chunks_mut::<16>().0).enumerate() {
        // SAFETY: the processor has the instructions; sixteen floats each.
        unsafe {
            let found = scales_and_minima(bits, group, v);
            _mm512_storeu_ps(scales.as_mut_ptr(), found.0);
            _mm512_storeu_ps(minima.as_mut_ptr(), found.1);
        }
    }
}

/// Adds `R` rows' products with these groups to their sums: the chain of `add_up` in `vnni`. The next rows stand so many bytes
/// `ahead`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn run<const R: usize, const MINIMUM: bool>(
    offset: i32,
    x: &[RowsGroup],
    ahead: usize,
    groups: &[Widened],
    sums: &mut [[f32; PANEL_COLUMNS]],
) {
    let mut registers: [[__m512; VECTORS]; R] =
        std::array::from_fn(|r| std::array::from_fn(|v| floats(&sums[r].as_chunks::<16>().0[v])));
    for (x, group) in x.iter().zip(groups) {
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(x).cast::<i8>().wrapping_add(ahead));
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(x).cast::<i8>().wrapping_add(ahead + 64));
        let mut whole: [[__m512i; VECTORS]; R] =
            std::array::from_fn(|r| [_mm512_set1_epi32(-offset * x.sums[r]); VECTORS]);
        for (four, codes) in group.codes.iter().enumerate() {
            let codes: [__m512i; VECTORS] = std::array::from_fn(|v| bytes(&codes.as_chunks::<64>().0[v]));
            for (whole, of_x) in whole.iter_mut().zip(&x.codes) {
                let of_x = of_x.as_chunks::<4>().0[four].map(|code| code as u8);
                let of_x = _mm512_set1_epi32(i32::from_ne_bytes(of_x));
                for (whole, codes) in whole.iter_mut().zip(codes) {
                    *whole = _mm512_dpbusd_epi32(*whole, codes, of_x);
                }
            }
        }
        for v in 0..VECTORS {
            let scales = floats(&group.scales.as_chunks::<16>().0[v]);
            let minima = floats(&group.minima.as_chunks::<16>().0[v]);
            for r in 0..R {
                let scale = _mm512_mul_ps(scales, _mm512_set1_ps(x.scales[r]));
                let sum = &mut registers[r][v];
                *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[r][v]), scale, *sum);
                if MINIMUM {
                    let of_x = _mm512_set1_ps(x.sums[r] as f32 * x.scales[r]);
                    *sum = _mm512_fmadd_ps(of_x, minima, *sum);
                }
            }
        }
    }
    for (registers, sums) in registers.iter().zip(sums) {
        for (sum, place) in registers.iter().zip(sums.as_chunks_mut::<16>().0) {
            // SAFETY: sixteen floats.
            unsafe { _mm512_storeu_ps(place.as_mut_ptr(), *sum) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn floats(numbers: &[f32; 16]) -> __m512 {
    // SAFETY: sixteen floats.
    unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn bytes(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}
