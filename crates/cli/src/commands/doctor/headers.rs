//! The headers of safetensors files: names, shapes and types of the weights, without a byte of the weights themselves.
//! See <https://huggingface.co/docs/safetensors>.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

/// The format's own limit.
const LARGEST_HEADER_BYTES: u64 = 100_000_000;

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub name: String,
    /// As stored: `BF16`, `Q4_K`.
    pub kind: String,
    pub shape: Vec<u64>,
    /// In the file.
    pub bytes: u64,
}

impl Tensor {
    /// How many numbers it holds.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product, size| product.saturating_mul(*size))
    }
}

/// The tensors of a safetensors file.
///
/// # Errors
/// Says what is wrong with the file, such as that its end is missing.
pub fn of_safetensors(path: &Path) -> Result<Vec<Tensor>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    let mut file = file;
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|_| "is too short for a safetensors file".to_string())?;
    let size = u64::from_le_bytes(size);
    if size > LARGEST_HEADER_BYTES || size > length.saturating_sub(8) {
        return Err("its header is longer than the file or than any header".to_string());
    }
    let mut header = Vec::new();
    file.take(size).read_to_end(&mut header).map_err(|error| error.to_string())?;
    let header: Value =
        serde_json::from_slice(&header).map_err(|error| format!("its header is not JSON: {error}"))?;
    let entries = header.as_object().ok_or("its header is not a JSON object")?;
    let (mut tensors, mut end) = (Vec::new(), 0);
    for (name, entry) in entries.iter().filter(|(name, _)| *name != "__metadata__") {
        let wrong = || format!("its header does not describe {}", crate::console::printable(name));
        let numbers = |key: &str| -> Option<Vec<u64>> {
            entry.get(key)?.as_array()?.iter().map(Value::as_u64).collect()
        };
        let kind = entry.get("dtype").and_then(Value::as_str).ok_or_else(wrong)?.to_string();
        let shape = numbers("shape").ok_or_else(wrong)?;
        let [from, to] = numbers("data_offsets").and_then(|two| two.try_into().ok()).ok_or_else(wrong)?;
        let bytes = u64::checked_sub(to, from).ok_or_else(wrong)?;
        end = end.max(to);
        tensors.push(Tensor { name: name.clone(), kind, shape, bytes });
    }
    match (8 + size).checked_add(end) {
        Some(expected) if expected == length => Ok(tensors),
        Some(expected) if expected > length => {
            Err(format!("{} of its {expected} bytes are missing", expected - length))
        }
        _ => Err("its length is not what its header says".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, body: usize) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; body]);
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    const HEADER: &str =
        r#"{"__metadata__": {}, "a": {"dtype": "BF16", "shape": [3, 5], "data_offsets": [0, 30]}}"#;

    #[test]
    fn a_header_is_read() {
        let tensors = of_safetensors(file(HEADER, 30).path()).unwrap();
        assert_eq!((tensors[0].elements(), tensors[0].bytes, tensors[0].kind.as_str()), (15, 30, "BF16"));
    }

    #[test]
    fn files_that_lie_are_named() {
        assert!(of_safetensors(file(HEADER, 20).path()).unwrap_err().contains("10 of its"));
        assert!(of_safetensors(file(HEADER, 40).path()).is_err());
        for header in
            ["", "[]", "{", r#"{"a": 1}"#, r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [9, 1]}}"#]
        {
            assert!(of_safetensors(file(header, 8).path()).is_err(), "{header}");
        }
        let short = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(short.path(), u64::MAX.to_le_bytes()).unwrap();
        assert!(of_safetensors(short.path()).is_err());
    }
}
