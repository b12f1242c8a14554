//! Rows of activations in eight bits.

use super::GROUP;
use crate::activations::Gate;
use crate::path::vectorised;
use crate::product::PANEL_COLUMNS;
use crate::team::Team;

/// Rows that one thread quantises at a time.
const ROWS_TOGETHER: usize = 16;

/// Rows x in groups of 32 codes with one scale: x ≈ scale · q, q from −127 to 127. The last group is filled up with zeros.
#[derive(Debug, Default)]
pub struct QuantisedRows {
    rows: usize,
    width: usize,
    pub(super) codes: Vec<i8>,
    /// [rows, groups]
    pub(super) scales: Vec<f32>,
    /// Σ q of each group, [rows, groups].
    pub(super) sums: Vec<i32>,
}

impl QuantisedRows {
    /// Quantises `x` [rows, width].
    ///
    /// # Panics
    /// When `x` does not consist of rows of `width`.
    pub fn of(x: &[f32], width: usize) -> QuantisedRows {
        let mut rows = QuantisedRows::default();
        rows.fill(x, width);
        rows
    }

    /// Quantises `x` [rows, width] over whatever was here.
    ///
    /// # Panics
    /// When `x` does not consist of rows of `width`.
    pub fn fill(&mut self, x: &[f32], width: usize) {
        self.fill_on(&Team::new(1), x, width);
    }

    /// [`QuantisedRows::fill`], shared out over the team.
    ///
    /// # Panics
    /// When `x` does not consist of rows of `width`.
    pub fn fill_on(&mut self, team: &Team, x: &[f32], width: usize) {
        assert!(width > 0 && x.len().is_multiple_of(width), "rows of {width}");
        self.reshape(x.len() / width, width);
        let groups = self.groups();
        let codes = self.codes.chunks_mut(ROWS_TOGETHER * groups * GROUP);
        let scales = self.scales.chunks_mut(ROWS_TOGETHER * groups);
        let sums = self.sums.chunks_mut(ROWS_TOGETHER * groups);
        let parts = x.chunks(ROWS_TOGETHER * width).zip(codes).zip(scales).zip(sums).collect();
        team.each(parts, |(((x, codes), scales), sums)| quantise(x, width, codes, scales, sums));
    }

    /// Room for rows [rows, width], in which anything may stand.
    pub(super) fn reshape(&mut self, rows: usize, width: usize) -> GroupsMut {
        (self.rows, self.width) = (rows, width);
        let groups = self.groups();
        resize(&mut self.codes, rows * groups * GROUP);
        resize(&mut self.scales, rows * groups);
        resize(&mut self.sums, rows * groups);
        let (codes, scales, sums) =
            (self.codes.as_mut_ptr(), self.scales.as_mut_ptr(), self.sums.as_mut_ptr());
        GroupsMut { codes: codes.cast(), scales, sums, rows, groups }
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Width of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    pub(super) fn groups(&self) -> usize {
        self.width.div_ceil(GROUP)
    }
}

/// Bytes that so many rows take.
pub fn rows_bytes(rows: usize, width: usize) -> usize {
    rows * width.div_ceil(GROUP) * (GROUP + size_of::<f32>() + size_of::<i32>())
}

/// To this length, with no more memory than that.
fn resize<T: Clone + Default>(values: &mut Vec<T>, length: usize) {
    values.reserve_exact(length.saturating_sub(values.len()));
    values.resize(length, T::default());
}

/// Groups of rows that several threads write to, each its own.
#[derive(Clone, Copy)]
pub(super) struct GroupsMut {
    codes: *mut [i8; GROUP],
    scales: *mut f32,
    sums: *mut i32,
    rows: usize,
    groups: usize,
}

// SAFETY: whoever writes a group promises that it is nobody else's.
unsafe impl Send for GroupsMut {}
// SAFETY: as above.
unsafe impl Sync for GroupsMut {}

impl GroupsMut {
    /// Quantises gate · up of all rows, 64 columns, over two groups from the `first` on.
    ///
    /// # Safety
    /// The rows that this was made for still stand there, and nobody else has these groups.
    pub unsafe fn put_gated(
        self,
        gate: Gate,
        gates: &[[f32; PANEL_COLUMNS]],
        ups: &[[f32; PANEL_COLUMNS]],
        first: usize,
    ) {
        const GROUPS: usize = PANEL_COLUMNS / GROUP;
        assert!(gates.len() <= self.rows && first + GROUPS <= self.groups, "groups of these rows");
        for (row, (gates, ups)) in gates.iter().zip(ups).enumerate() {
            let at = row * self.groups + first;
            // SAFETY: the groups lie inside, and are the caller's.
            let (codes, scales, sums) = unsafe {
                (
                    std::slice::from_raw_parts_mut(self.codes.add(at), GROUPS),
                    std::slice::from_raw_parts_mut(self.scales.add(at), GROUPS),
                    std::slice::from_raw_parts_mut(self.sums.add(at), GROUPS),
                )
            };
            quantise_gated(gate, gates, ups, codes, scales, sums);
        }
    }
}

vectorised! {
    fn quantise_gated(
        gate: Gate, gates: &[f32; PANEL_COLUMNS], ups: &[f32; PANEL_COLUMNS], codes: &mut [[i8; GROUP]], scales: &mut [f32],
        sums: &mut [i32],
    ) {
        match gate {
            Gate::Silu => gated(gates, ups, codes, scales, sums, |g, u| Gate::Silu.apply(g, u)),
            Gate::GeluTanh => gated(gates, ups, codes, scales, sums, |g, u| Gate::GeluTanh.apply(g, u)),
        }
    }
}

#[inline(always)]
fn gated(
    gates: &[f32],
    ups: &[f32],
    codes: &mut [[i8; GROUP]],
    scales: &mut [f32],
    sums: &mut [i32],
    apply: impl Fn(f32, f32) -> f32,
) {
    let of = gates.as_chunks::<GROUP>().0.iter().zip(ups.as_chunks::<GROUP>().0);
    for (group, (gates, ups)) in of.enumerate() {
        let mut values = [0.0f32; GROUP];
        for (value, (&g, &u)) in values.iter_mut().zip(gates.iter().zip(ups)) {
            *value = apply(g, u);
        }
        (scales[group], sums[group]) = quantise_group(&values, &mut codes[group]);
    }
}

vectorised! {
    fn quantise(x: &[f32], width: usize, codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
        let groups = width.div_ceil(GROUP);
        let codes = codes.as_chunks_mut::<GROUP>().0;
        for (row, x) in x.chunks_exact(width).enumerate() {
            for (group, x) in x.chunks(GROUP).enumerate() {
                let mut values = [0.0f32; GROUP];
                values[..x.len()].copy_from_slice(x);
                let at = row * groups + group;
                (scales[at], sums[at]) = quantise_group(&values, &mut codes[at]);
            }
        }
    }
}

#[inline(always)]
fn quantise_group(x: &[f32; GROUP], codes: &mut [i8; GROUP]) -> (f32, i32) {
    const ROUNDER: f32 = 12_582_912.0; // 1.5·2^23: adding it rounds to the nearest whole number
    let mut largest = 0.0f32;
    let mut whole = 0.0f32;
    for &x in x {
        let size = x.abs();
        largest = if size > largest { size } else { largest };
        // a value that is no number must not vanish
        whole = if size <= f32::MAX { whole } else { f32::NAN };
    }
    let scale = largest / 127.0 + whole;
    let reciprocal = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let mut sum = 0i32;
    for (code, &x) in codes.iter_mut().zip(x) {
        let rounded = (x * reciprocal + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32;
        let rounded = if rounded > 127 { 127 } else { rounded };
        let rounded = if rounded < -127 { -127 } else { rounded };
        *code = rounded as i8;
        sum += rounded;
    }
    (scale, sum)
}
