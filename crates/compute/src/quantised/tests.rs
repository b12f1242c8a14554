use super::*;
use crate::float16::f16_bits;
use crate::random;
use crate::testing::{normal_numbers, same_on_every_path};

fn exact(x: &[f32], matrix: &QuantisedMatrix) -> Vec<f64> {
    let mut row = vec![0.0; matrix.inputs()];
    let mut y = Vec::new();
    for x in x.chunks(matrix.inputs()) {
        for output in 0..matrix.outputs() {
            matrix.row(output, &mut row);
            y.push(x.iter().zip(&row).map(|(&x, &w)| x as f64 * w as f64).sum());
        }
    }
    y
}

/// Blocks as in a file, with scales and minima of a sensible size.
fn stored(bits: Bits, outputs: usize, inputs: usize) -> Vec<u8> {
    let halves = if bits.has_minimum() { 2 } else { 1 };
    let mut stored = Vec::new();
    for block in 0..outputs * inputs / bits.block_inputs() {
        for half in 0..halves {
            let value = random::uniform(7 + half, block as u64) as f32 * 0.01 - 0.002;
            stored.extend(f16_bits(value).to_le_bytes());
        }
        let rest = bits.stored_block_bytes() - 2 * halves as usize;
        stored.extend((0..rest).map(|i| (random::uniform(9, (block * 256 + i) as u64) * 256.0) as u8));
    }
    stored
}

const ALL: [Bits; 4] = [Bits::Eight, Bits::Four, Bits::FourAndMinimum, Bits::FourNested];

/// A matrix of these parts, each [outputs, inputs] as it would be stored.
pub fn repacked(inputs: usize, parts: &[(usize, Bits)]) -> QuantisedMatrix {
    let mut matrix = QuantisedMatrix::zeroed(inputs, parts);
    let rows: Vec<Vec<u8>> = parts
        .iter()
        .flat_map(|&(outputs, bits)| {
            let bytes = inputs / bits.block_inputs() * bits.stored_block_bytes();
            stored(bits, outputs, inputs).chunks(bytes).map(<[u8]>::to_vec).collect::<Vec<_>>()
        })
        .collect();
    for mut panel in matrix.panels_mut() {
        let rows = rows[panel.outputs()].concat();
        panel.repack(&rows);
    }
    matrix
}

#[test]
fn products_are_near_those_of_the_weights_as_they_count() {
    let quantised = |bits| {
        [(1, 32, 64), (3, 100, 70), (7, 256, 130), (2, 31, 1)].map(|(rows, inputs, outputs)| {
            let w = normal_numbers(2, inputs * outputs);
            (rows, inputs, outputs, QuantisedMatrix::new(&w, inputs, bits))
        })
    };
    let taken_over = ALL.map(|bits| (4, 512, 100, repacked(512, &[(100, bits)])));
    let mixed = ALL.map(|bits| (bits, 70)).map(|(bits, outputs)| (outputs, bits));
    let mixed = (5, 256, 280, repacked(256, &mixed));
    let cases = quantised(Bits::Eight).into_iter().chain(quantised(Bits::Four)).chain(taken_over);
    {
        for (rows, inputs, outputs, matrix) in cases.chain([mixed]) {
            let x = normal_numbers(1, rows * inputs);
            let mut y = vec![f32::NAN; rows * outputs];
            matrix.multiply(&Team::new(1), &QuantisedRows::of(&x, inputs), &mut y);
            let expected = exact(&x, &matrix);
            let error: f64 = y.iter().zip(&expected).map(|(&y, e)| (y as f64 - e).powi(2)).sum();
            let scale: f64 = expected.iter().map(|e| e * e).sum();
            // what is left is the rounding of x to 8 bits
            assert!((error / scale).sqrt() < 0.012, "{rows}×{inputs}×{outputs}: {error} of {scale}");
        }
    }
}

#[test]
fn weights_are_near_their_values() {
    let w = normal_numbers(3, 64 * 96);
    for (bits, most) in [(Bits::Eight, 0.006), (Bits::Four, 0.1)] {
        let matrix = QuantisedMatrix::new(&w, 96, bits);
        let (mut error, mut scale, mut row) = (0.0, 0.0, vec![0.0; 96]);
        for (output, w) in w.chunks(96).enumerate() {
            matrix.row(output, &mut row);
            error += w.iter().zip(&row).map(|(&w, &q)| ((w - q) as f64).powi(2)).sum::<f64>();
            scale += w.iter().map(|&w| (w as f64).powi(2)).sum::<f64>();
        }
        assert!((error / scale).sqrt() < most, "{bits:?}: {}", (error / scale).sqrt());
    }
}

#[test]
fn every_path_number_of_rows_and_of_threads_gives_the_same_bits() {
    let (inputs, outputs, all) = (352, 200, 37);
    let (x, w) = (normal_numbers(4, all * inputs), normal_numbers(5, inputs * outputs));
    let (x_wide, matrices) = (
        normal_numbers(4, all * 512),
        ALL.map(|bits| repacked(512, &[(90, bits), (33, Bits::Eight), (70, bits)])),
    );
    let own = [Bits::Eight, Bits::Four].map(|bits| (&x, QuantisedMatrix::new(&w, inputs, bits)));
    for (x, matrix) in own.into_iter().chain(matrices.map(|matrix| (&x_wide, matrix))) {
        let (inputs, outputs) = (matrix.inputs(), matrix.outputs());
        let run = |threads: usize, rows: usize| {
            let team = Team::new(threads);
            let mut result = Vec::new();
            for x in x.chunks(rows * inputs) {
                let mut y = vec![0.0; x.len() / inputs * outputs];
                matrix.multiply(&team, &QuantisedRows::of(x, inputs), &mut y);
                result.extend(y);
            }
            result
        };
        let expected = run(1, 1);
        for (threads, rows) in
            [(1, 2), (1, 9), (2, 9), (3, 4), (1, 5), (2, 6), (1, 7), (1, 16), (2, all), (3, 33)]
        {
            assert_eq!(
                run(threads, rows),
                expected,
                "{:?}, {threads} threads, {rows} rows at a time",
                matrix.panel(0).0
            );
        }
        same_on_every_path(|| run(1, all));
    }
}

#[test]
fn codes_that_were_made_here_are_stored_as_they_are_in_a_file() {
    let (inputs, outputs) = (96, 70);
    for bits in [Bits::Eight, Bits::Four] {
        let matrix = repacked(inputs, &[(outputs, bits)]);
        let mut values = vec![0.0; inputs * outputs];
        for (output, row) in values.chunks_mut(inputs).enumerate() {
            matrix.row(output, row);
        }
        for (block, values) in
            stored(bits, outputs, inputs).chunks(bits.stored_block_bytes()).zip(values.as_chunks::<GROUP>().0)
        {
            let scale = crate::float16::f16_value(u16::from_le_bytes([block[0], block[1]]));
            for (k, &value) in values.iter().enumerate() {
                let code = match bits {
                    Bits::Eight => block[2 + k] as i8 as f32,
                    _ => (block[2 + k % 16] >> (k / 16 * 4) & 15) as f32 - 8.0,
                };
                assert_eq!(value, scale * code);
            }
        }
    }
}

#[test]
fn values_beyond_measure_do_not_break_anything() {
    for value in [0.0, 1e-30, 3e38, f32::INFINITY, f32::NAN] {
        let matrix = QuantisedMatrix::new(&[value; 64], 32, Bits::Eight);
        let mut y = vec![0.0; 2];
        matrix.multiply(&Team::new(1), &QuantisedRows::of(&[value; 32], 32), &mut y);
        assert!(value.is_finite() || y.iter().all(|y| !y.is_finite()), "{value}: {y:?}");
    }
}

#[test]
fn a_gated_product_has_the_bits_of_its_steps_one_after_another() {
    let (inputs, width, rows) = (96, 192, 37);
    let (x, w) = (normal_numbers(4, rows * inputs), normal_numbers(5, 2 * width * inputs));
    let x = QuantisedRows::of(&x, inputs);
    for (bits, gate, threads) in
        [(Bits::Eight, Gate::Silu, 1), (Bits::Eight, Gate::GeluTanh, 2), (Bits::Four, Gate::Silu, 3)]
    {
        let (team, weights) = (Team::new(threads), QuantisedMatrix::new(&w, inputs, bits));
        if !weights.has_gated_product(rows) {
            continue;
        }
        let (mut wide, mut narrow) = (vec![0.0; 2 * rows * width], vec![0.0; rows * width]);
        weights.multiply(&team, &x, &mut wide);
        gate.rows(&wide, width, &mut narrow);
        let expected = QuantisedRows::of(&narrow, width);
        // What stands there is written over.
        let mut found = QuantisedRows::of(&vec![7.0; 80 * width], width);
        weights.multiply_gated(&team, &x, gate, &mut found);
        assert_eq!((found.rows(), found.width()), (rows, width));
        assert!(
            found.codes == expected.codes && found.sums == expected.sums && found.scales == expected.scales
        );
    }
    // Two parts that end within a panel each fill it up.
    assert!(!QuantisedMatrix::zeroed(32, &[(96, Bits::Eight), (96, Bits::Four)]).has_gated_product(rows));
    assert!(!QuantisedMatrix::zeroed(32, &[(128, Bits::Eight)]).has_gated_product(1));
}
