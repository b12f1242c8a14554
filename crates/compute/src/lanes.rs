//! Sums over a row in a fixed order: sixteen lanes (element `i` goes to lane `i mod 16`), then a fixed tree.
//!
//! Sixteen is the width of the widest path; narrower ones keep two or four registers and get the same bits.

/// How many lanes a sum over a row has.
pub const LANES: usize = 16;

/// Sixteen partial sums.
pub type Lanes = [f32; LANES];

/// The sum of sixteen partial sums: neighbours eight apart, then four, two, one.
#[inline(always)]
pub fn sum_of_lanes(lanes: &Lanes) -> f32 {
    let mut eight = [0.0f32; 8];
    for i in 0..8 {
        eight[i] = lanes[i] + lanes[i + 8];
    }
    let mut four = [0.0f32; 4];
    for i in 0..4 {
        four[i] = eight[i] + eight[i + 4];
    }
    (four[0] + four[2]) + (four[1] + four[3])
}

/// The largest of sixteen values, by the same tree.
#[inline(always)]
pub fn maximum_of_lanes(lanes: &Lanes) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut eight = [0.0f32; 8];
    for i in 0..8 {
        eight[i] = larger(lanes[i], lanes[i + 8]);
    }
    let mut four = [0.0f32; 4];
    for i in 0..4 {
        four[i] = larger(eight[i], eight[i + 4]);
    }
    larger(larger(four[0], four[2]), larger(four[1], four[3]))
}

/// Σ x·y.
#[inline(always)]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    let length = x.len();
    let y = &y[..length];
    let mut lanes = [0.0f32; LANES];
    let whole = length / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let (xs, ys) = (&x[start..start + LANES], &y[start..start + LANES]);
        for lane in 0..LANES {
            lanes[lane] = xs[lane].mul_add(ys[lane], lanes[lane]);
        }
    }
    for (lane, i) in (whole..length).enumerate() {
        lanes[lane] = x[i].mul_add(y[i], lanes[lane]);
    }
    sum_of_lanes(&lanes)
}

/// `output` ← work(inputs, output), sixteen elements at a time. For rows that are too short for the loops that a compiler
/// makes of slices of unknown length, which take 64 elements at once and the rest one by one.
#[inline(always)]
pub fn update<const N: usize>(output: &mut [f32], inputs: [&[f32]; N], work: impl Fn([f32; N], f32) -> f32) {
    let chunks = inputs.map(|input| input.as_chunks::<LANES>());
    let (whole, rest) = output.as_chunks_mut::<LANES>();
    for (index, output) in whole.iter_mut().enumerate() {
        let block = chunks.map(|(whole, _)| whole[index]);
        let before = *output;
        let mut after = [0.0f32; LANES];
        for lane in 0..LANES {
            after[lane] = work(block.map(|input| input[lane]), before[lane]);
        }
        *output = after;
    }
    for (index, output) in rest.iter_mut().enumerate() {
        *output = work(chunks.map(|(_, rest)| rest[index]), *output);
    }
}

/// The largest value of a row, −∞ for an empty one. Four registers at a time: one would wait for itself.
#[inline(always)]
pub fn maximum(x: &[f32]) -> f32 {
    let mut wide = [f32::NEG_INFINITY; 4 * LANES];
    let (whole, rest) = x.as_chunks::<{ 4 * LANES }>();
    for chunk in whole {
        for lane in 0..4 * LANES {
            wide[lane] = if chunk[lane] > wide[lane] { chunk[lane] } else { wide[lane] };
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        wide[lane] = if value > wide[lane] { value } else { wide[lane] };
    }
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for part in wide.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            lanes[lane] = if part[lane] > lanes[lane] { part[lane] } else { lanes[lane] };
        }
    }
    maximum_of_lanes(&lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_right_at_every_length() {
        for length in [0, 1, 15, 16, 17, 31, 33, 100] {
            let x: Vec<f32> = (0..length).map(|i| i as f32 - 3.0).collect();
            let expected: f32 = x.iter().map(|v| v * 2.0).sum();
            assert_eq!(dot(&x, &vec![2.0; length]), expected, "length {length}");
            assert_eq!(maximum(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
