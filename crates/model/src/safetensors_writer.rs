//! Any source of named tensors as one safetensors file, tensor by tensor.

use crate::ModelError;
use crate::tensors::Tensors;
use half::bf16;
use serde_json::{Map, json};
use std::io::Write;

/// Writes all tensors in the order of their names, as BF16 or F32. `advance` is told the bytes of each tensor that is
/// done.
///
/// # Errors
/// When a tensor cannot be read, the output not be written, or `advance` says so.
pub fn write_tensors<E: From<ModelError>>(
    writer: &mut dyn Write,
    tensors: &dyn Tensors,
    halves: bool,
    advance: &mut dyn FnMut(u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut names = tensors.names();
    names.sort_unstable();
    let width = if halves { 2 } else { 4 };
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut offset = 0;
    let mut lengths = Vec::new();
    for name in &names {
        let shape = tensors.shape(name).unwrap_or_default();
        let length = shape.iter().product::<usize>();
        let end = offset + length * width;
        let kind = if halves { "BF16" } else { "F32" };
        header.insert(name.clone(), json!({ "dtype": kind, "shape": shape, "data_offsets": [offset, end] }));
        lengths.push(length);
        offset = end;
    }
    let write = |writer: &mut dyn Write, bytes: &[u8]| writer.write_all(bytes).map_err(ModelError::Write);
    let mut header = serde_json::to_vec(&header).map_err(|error| ModelError::Write(error.into()))?;
    // The data begin at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    write(writer, &(header.len() as u64).to_le_bytes())?;
    write(writer, &header)?;
    let mut bytes = Vec::new();
    for (name, length) in names.iter().zip(lengths) {
        let mut values = vec![0.0; length];
        tensors.read(name, &mut values)?;
        for part in values.chunks(1 << 14) {
            bytes.clear();
            match halves {
                true => bytes.extend(part.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes())),
                false => bytes.extend(part.iter().flat_map(|value| value.to_le_bytes())),
            }
            write(writer, &bytes)?;
        }
        advance((length * width) as u64)?;
    }
    Ok(())
}
