//! Blocks made by the `gguf` package (`tools/oracles/make_gguf_blocks.py`): the same bits in both directions.

use gguf::{ElementType, dequantise, quantise};
use std::path::Path;

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.bin")))
        .unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Stored bytes, and what they mean.
fn blocks(element: ElementType) -> (Vec<u8>, Vec<f32>) {
    let bytes = golden(element.name());
    let per_block = element.block_bytes() + 4 * element.block_elements();
    let stored = bytes.len() / per_block * element.block_bytes();
    (bytes[..stored].to_vec(), floats(&bytes[stored..]))
}

#[test]
fn every_type_is_decoded_to_the_same_bits() {
    use ElementType::{Bf16, F16, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    for element in [F16, Bf16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4K, Q5K, Q6K] {
        let (stored, expected) = blocks(element);
        let mut found = vec![0.0; expected.len()];
        dequantise(element, &stored, &mut found);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
        assert!(found.iter().any(|value| *value != 0.0));
        assert_eq!(bits(&found), bits(&expected), "{}", element.name());
    }
}

#[test]
fn what_is_written_is_encoded_to_the_same_bytes() {
    let numbers = floats(&golden("numbers"));
    for element in [ElementType::F16, ElementType::Bf16, ElementType::Q8_0, ElementType::Q4_0] {
        let mut found = Vec::new();
        quantise(element, &numbers, &mut found);
        assert_eq!(found, blocks(element).0, "{}", element.name());
    }
}

#[test]
fn other_types_are_widened_to_q8_0() {
    use ElementType::{Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    for element in [Q8_0, Q4_0, Q5_0, Q4_1, Q5_1, Q4K, Q5K, Q6K] {
        let (stored, expected) = blocks(element);
        let mut wide = Vec::new();
        gguf::widen(element, &stored, &mut wide);
        let mut found = vec![0.0; expected.len()];
        dequantise(Q8_0, &wide, &mut found);
        for (block, (found, expected)) in found.chunks(32).zip(expected.chunks(32)).enumerate() {
            let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            // Half a step of the block, and what its scale loses in 16 bits.
            let most =
                if [Q8_0, Q4_0, Q5_0].contains(&element) { 0.0 } else { largest * (0.5 / 127.0 + 1e-3) };
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() <= most,
                    "{} block {block}: {found}, {expected}",
                    element.name()
                );
            }
        }
    }
}

#[test]
fn rows_are_whole_blocks() {
    assert_eq!(ElementType::Q8_0.row_bytes(64), Some(68));
    assert_eq!(ElementType::Q8_0.row_bytes(48), None);
    assert_eq!(ElementType::Q6K.row_bytes(256), Some(210));
    assert_eq!(ElementType::F32.row_bytes(usize::MAX / 2), None);
}
