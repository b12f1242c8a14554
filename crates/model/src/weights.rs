//! Weights on disk: safetensors (one file, or shards with an index), read with distrust and written in one pass.
//!
//! A weights file is a stranger's input. The header's length, every offset, shape and type are checked against the file
//! before a byte of a tensor is read; holes and overlaps are refused as the format demands. Pickle files are not read at all.

use crate::ModelError;
use crate::parameters::ParameterTable;
use crate::tensors::Tensors;
use half::{bf16, f16};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The format's own limit for a header.
const LONGEST_HEADER: u64 = 100_000_000;
/// Bytes that are read at a time: what is converted then is still in the cache.
const READ_TOGETHER: usize = 256 << 10;

/// Opened weights: the headers are checked, the tensors still on disk.
#[derive(Debug)]
pub struct WeightsReader {
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Clone, Debug)]
struct Tensor {
    file: usize,
    kind: ElementKind,
    shape: Vec<usize>,
    offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ElementKind {
    F32,
    Bf16,
    F16,
    /// A type that the format knows and this decoder does not compute with; its size in bytes.
    Other(u64),
}

impl ElementKind {
    fn parse(name: &str) -> Option<ElementKind> {
        Some(match name {
            "F32" => ElementKind::F32,
            "BF16" => ElementKind::Bf16,
            "F16" => ElementKind::F16,
            "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" => ElementKind::Other(1),
            "I16" | "U16" => ElementKind::Other(2),
            "I32" | "U32" => ElementKind::Other(4),
            "F64" | "I64" | "U64" => ElementKind::Other(8),
            _ => return None,
        })
    }

    fn bytes(self) -> u64 {
        match self {
            ElementKind::F32 => 4,
            ElementKind::Bf16 | ElementKind::F16 => 2,
            ElementKind::Other(bytes) => bytes,
        }
    }
}

impl WeightsReader {
    /// Opens `model.safetensors` of a folder, or the shards that `model.safetensors.index.json` names. Of a model of pictures
    /// and text, the tensors of its text part, by the names that they would have alone.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn open_folder(folder: &Path) -> Result<WeightsReader, ModelError> {
        let mut reader = WeightsReader::open_files(folder)?;
        reader.keep_text_part();
        Ok(reader)
    }

    fn open_files(folder: &Path) -> Result<WeightsReader, ModelError> {
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        if single.exists() || !index.exists() {
            return WeightsReader::open(&single);
        }
        let text = read_regular(&index).map_err(ModelError::read(&index))?;
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let Index { weight_map } = serde_json::from_slice(&text)
            .map_err(|error| ModelError::weights(&index, format!("not a weights index: {error}")))?;
        let mut reader = WeightsReader { files: Vec::new(), tensors: BTreeMap::new() };
        let shards: BTreeSet<&String> = weight_map.values().collect();
        for shard in shards {
            if Path::new(shard).components().count() != 1
                || shard.starts_with('.')
                || shard.contains(['/', '\\'])
            {
                return Err(ModelError::weights(
                    &index,
                    format!("shard {shard:?} is not a file name in the same folder"),
                ));
            }
            reader.add(&folder.join(shard))?;
        }
        if weight_map.is_empty() {
            return Err(ModelError::weights(&index, "the index names no tensor"));
        }
        if let Some(missing) = weight_map.keys().find(|name| !reader.tensors.contains_key(*name)) {
            return Err(ModelError::weights(&index, format!("tensor {missing} is in no shard")));
        }
        Ok(reader)
    }

    fn keep_text_part(&mut self) {
        // transformers writes the first, and since version 5 in memory has the second.
        let prefixes = [("language_model.", ""), ("model.language_model.", "model.")];
        let table = "embed_tokens.weight";
        let whole = ["language_model.model.", "model.language_model."];
        if !whole.iter().any(|prefix| self.tensors.contains_key(&format!("{prefix}{table}"))) {
            return;
        }
        let of_pictures = [
            "vision_tower.",
            "multi_modal_projector.",
            "model.vision_tower.",
            "model.multi_modal_projector.",
        ];
        let tensors = std::mem::take(&mut self.tensors);
        for (name, tensor) in tensors {
            if of_pictures.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            let alone = prefixes.iter().find_map(|(prefix, instead)| {
                name.strip_prefix(prefix).map(|rest| format!("{instead}{rest}"))
            });
            // A name that comes twice would be one too many, and stays as it is for the check to find.
            match alone.filter(|alone| !self.tensors.contains_key(alone)) {
                Some(alone) => self.tensors.insert(alone, tensor),
                None => self.tensors.insert(name, tensor),
            };
        }
    }

    /// Opens one file.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<WeightsReader, ModelError> {
        let mut reader = WeightsReader { files: Vec::new(), tensors: BTreeMap::new() };
        reader.add(path)?;
        Ok(reader)
    }

    /// Whether every tensor of `table` is there with its shape.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check_shapes(&self, table: &ParameterTable) -> Result<(), ModelError> {
        table
            .entries()
            .iter()
            .try_for_each(|parameter| self.find(&parameter.name, &parameter.shape).map(|_| ()))
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<&Tensor, ModelError> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| ModelError::weights(&self.files[0].0, format!("tensor {name} is missing")))?;
        if tensor.shape != shape {
            let problem =
                format!("tensor {name} has shape {:?}, the configuration says {shape:?}", tensor.shape);
            return Err(ModelError::weights(&self.files[tensor.file].0, problem));
        }
        Ok(tensor)
    }

    /// Reads one tensor of a known shape as f32.
    ///
    /// # Errors
    /// When it is missing, has another shape or a type that cannot be read, or the file ends early.
    pub fn read_shaped(&self, name: &str, shape: &[usize], target: &mut [f32]) -> Result<(), ModelError> {
        self.read_numbers(name, self.find(name, shape)?, 0, target)
    }

    /// Reads numbers of a tensor from number `first` on.
    fn read_numbers(
        &self,
        name: &str,
        tensor: &Tensor,
        first: usize,
        target: &mut [f32],
    ) -> Result<(), ModelError> {
        let (path, file) = &self.files[tensor.file];
        let width = tensor.kind.bytes() as usize;
        if first + target.len() > tensor.shape.iter().product() {
            let problem = format!("tensor {name} has no {} numbers from number {first} on", target.len());
            return Err(ModelError::weights(path, problem));
        }
        let mut buffer = vec![0u8; READ_TOGETHER.min(target.len() * width)];
        let mut offset = tensor.offset + (first * width) as u64;
        for part in target.chunks_mut(READ_TOGETHER / width) {
            let bytes = &mut buffer[..part.len() * width];
            file.read_exact_at(bytes, offset).map_err(ModelError::read(path))?;
            offset += bytes.len() as u64;
            match tensor.kind {
                ElementKind::F32 => convert(part, bytes, f32::from_le_bytes),
                ElementKind::Bf16 => convert(part, bytes, |b| bf16::from_le_bytes(b).to_f32()),
                ElementKind::F16 => convert(part, bytes, |b| f16::from_le_bytes(b).to_f32()),
                ElementKind::Other(_) => {
                    return Err(ModelError::weights(
                        path,
                        format!("tensor {name} has a type that is not supported; expected F32, BF16 or F16"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Reads every tensor of `table` into `values`; tensors that the table does not know are refused.
    ///
    /// # Errors
    /// As [`WeightsReader::read_shaped`].
    pub fn read_all(&self, table: &ParameterTable, values: &mut [f32]) -> Result<(), ModelError> {
        for parameter in table.entries() {
            self.read_shaped(&parameter.name, &parameter.shape, &mut values[parameter.span.clone()])?;
        }
        let known: BTreeSet<&str> = table.entries().iter().map(|parameter| parameter.name.as_str()).collect();
        match self.tensors.keys().find(|name| !known.contains(name.as_str())) {
            Some(strange) => Err(ModelError::weights(
                &self.files[0].0,
                format!("tensor {strange} belongs to no part of the configured model"),
            )),
            None => Ok(()),
        }
    }

    fn add(&mut self, path: &Path) -> Result<(), ModelError> {
        let fail = |problem: String| ModelError::weights(path, problem);
        check_regular(path).map_err(ModelError::read(path))?;
        let mut file = File::open(path).map_err(ModelError::read(path))?;
        let length = file.metadata().map_err(ModelError::read(path))?.len();
        let mut prefix = [0u8; 8];
        file.read_exact(&mut prefix)
            .map_err(|_| fail(format!("{length} bytes are too few for a safetensors file")))?;
        let header_length = u64::from_le_bytes(prefix);
        if header_length > LONGEST_HEADER || header_length > length - 8 {
            return Err(fail(format!(
                "the header claims {header_length} bytes of a file of {length}: not a safetensors file, or a truncated one"
            )));
        }
        let mut header = vec![0u8; header_length as usize];
        file.read_exact(&mut header).map_err(ModelError::read(path))?;
        let Header(entries) =
            serde_json::from_slice(&header).map_err(|error| fail(format!("malformed header: {error}")))?;
        let data = length - 8 - header_length;
        let mut ranges = Vec::new();
        for (name, entry) in entries {
            let (tensor, begin, end) =
                check_entry(&entry, data).map_err(|problem| fail(format!("tensor {name}: {problem}")))?;
            ranges.push((begin, end));
            let tensor =
                Tensor { file: self.files.len(), offset: tensor.offset + 8 + header_length, ..tensor };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                return Err(fail(format!("tensor {name} stands in two shards")));
            }
        }
        ranges.sort_unstable();
        let mut expected = 0;
        for (begin, end) in ranges {
            if begin != expected {
                return Err(fail(format!("tensors overlap or leave a hole at byte {expected} of the data")));
            }
            expected = end;
        }
        if expected != data {
            return Err(fail(format!(
                "{data} bytes of data, but the header describes {expected}: the file is truncated or has something appended"
            )));
        }
        self.files.push((path.to_path_buf(), file));
        Ok(())
    }
}

/// The bytes of a regular file; of anything else (a device, a pipe, links to them) there may be no end.
pub(crate) fn read_regular(path: &Path) -> std::io::Result<Vec<u8>> {
    check_regular(path)?;
    std::fs::read(path)
}

fn check_regular(path: &Path) -> std::io::Result<()> {
    match std::fs::metadata(path)?.is_file() {
        true => Ok(()),
        false => Err(std::io::Error::other("it is no regular file")),
    }
}

impl Tensors for WeightsReader {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|tensor| tensor.shape.clone())
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn read_rows(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), ModelError> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(ModelError::weights(self.place(), format!("tensor {name} is missing")));
        };
        self.read_numbers(name, tensor, first * tensor.shape.last().copied().unwrap_or(1), out)
    }

    fn place(&self) -> &Path {
        &self.files[0].0
    }
}

fn convert<const N: usize>(target: &mut [f32], bytes: &[u8], number: impl Fn([u8; N]) -> f32) {
    for (value, chunk) in target.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = number(*chunk);
    }
}

fn check_entry(entry: &Value, data: u64) -> Result<(Tensor, u64, u64), String> {
    #[derive(Deserialize)]
    struct Entry {
        dtype: String,
        shape: Vec<u64>,
        data_offsets: (u64, u64),
    }
    let Entry { dtype, shape, data_offsets: (begin, end) } =
        Entry::deserialize(entry).map_err(|error| error.to_string())?;
    let kind = ElementKind::parse(&dtype).ok_or_else(|| format!("type {dtype} is unknown"))?;
    let bytes = shape
        .iter()
        .try_fold(kind.bytes(), |product, &size| product.checked_mul(size))
        .ok_or("its shape overflows")?;
    if begin > end || end > data {
        return Err(format!("offsets {begin}..{end} lie outside of {data} bytes of data"));
    }
    if end - begin != bytes {
        return Err(format!("offsets {begin}..{end} do not hold shape {shape:?} of {dtype}"));
    }
    let shape = shape.into_iter().map(|size| size as usize).collect();
    Ok((Tensor { file: 0, kind, shape, offset: begin }, begin, end))
}

/// The header's tensors; a name that comes twice is an error, which a plain map would swallow.
struct Header(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;
            fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                formatter.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if name != "__metadata__" && entries.insert(name.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("tensor {name} is described twice")));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Writes all tensors of `table` as one safetensors file of F32, in the order of their names.
///
/// # Errors
/// What the writer says.
pub fn write_safetensors(
    writer: &mut dyn Write,
    table: &ParameterTable,
    values: &[f32],
) -> std::io::Result<()> {
    let sorted: BTreeMap<&String, _> =
        table.entries().iter().map(|parameter| (&parameter.name, parameter)).collect();
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut offset = 0;
    for (name, parameter) in &sorted {
        let end = offset + parameter.span.len() * 4;
        header.insert(
            (*name).clone(),
            json!({ "dtype": "F32", "shape": parameter.shape, "data_offsets": [offset, end] }),
        );
        offset = end;
    }
    let mut header = serde_json::to_string(&header)?.into_bytes();
    // The data begin at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    writer.write_all(&(header.len() as u64).to_le_bytes())?;
    writer.write_all(&header)?;
    let mut bytes = Vec::with_capacity(1 << 16);
    for parameter in sorted.values() {
        for part in values[parameter.span.clone()].chunks(1 << 14) {
            bytes.clear();
            bytes.extend(part.iter().flat_map(|value| value.to_le_bytes()));
            writer.write_all(&bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::ParameterKind;

    fn table() -> ParameterTable {
        let mut table = ParameterTable::default();
        table.push("b".into(), &[2, 3], ParameterKind::Matrix, 0.02);
        table.push("a".into(), &[4], ParameterKind::Norm, 0.0);
        table
    }

    fn file_with(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn whole() -> Vec<u8> {
        let mut bytes = Vec::new();
        write_safetensors(&mut bytes, &table(), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
            .unwrap();
        bytes
    }

    fn with_header(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    #[test]
    fn what_is_written_reads_back() {
        let (_folder, path) = file_with(&whole());
        let mut values = vec![0.0; 10];
        WeightsReader::open(&path).unwrap().read_all(&table(), &mut values).unwrap();
        assert_eq!(values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
    }

    #[test]
    fn halves_are_widened() {
        let header = r#"{"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"y":{"dtype":"F16","shape":[1],"data_offsets":[4,6]}}"#;
        let mut bytes = with_header(header, 0);
        for value in [1.5f32, -2.0] {
            bytes.extend(bf16::from_f32(value).to_le_bytes());
        }
        bytes.extend(f16::from_f32(0.25).to_le_bytes());
        let (_folder, path) = file_with(&bytes);
        let reader = WeightsReader::open(&path).unwrap();
        let mut values = [0.0; 3];
        reader.read_shaped("x", &[2], &mut values[..2]).unwrap();
        reader.read_shaped("y", &[1], &mut values[2..]).unwrap();
        assert_eq!(values, [1.5, -2.0, 0.25]);
    }

    #[test]
    fn lying_files_are_refused() {
        let one = |entry: &str| with_header(&format!(r#"{{"x":{entry}}}"#), 8);
        for (bytes, expected) in [
            (vec![1, 2, 3], "too few"),
            (with_header("", 0), "malformed"),
            (u64::MAX.to_le_bytes().to_vec(), "claims"),
            (with_header("[]", 0), "malformed"),
            (with_header(r#"{"x":3}"#, 0), "tensor x"),
            (one(r#"{"dtype":"F32","shape":[3],"data_offsets":[0,12]}"#), "outside"),
            (one(r#"{"dtype":"F32","shape":[2],"data_offsets":[8,0]}"#), "outside"),
            (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,8]}"#), "do not hold"),
            (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#), "truncated or has"),
            (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#), "hole"),
            (one(r#"{"dtype":"Q9","shape":[2],"data_offsets":[0,8]}"#), "unknown"),
            (one(r#"{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,8]}"#), "overflows"),
            (one(r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}"#), "tensor x"),
            (
                with_header(
                    r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
                    8,
                ),
                "twice",
            ),
        ] {
            let (_folder, path) = file_with(&bytes);
            let problem = WeightsReader::open(&path).unwrap_err().to_string();
            assert!(problem.contains(expected), "expected {expected:?}: {problem}");
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        let whole = whole();
        for length in 0..whole.len() {
            let (_folder, path) = file_with(&whole[..length]);
            assert!(WeightsReader::open(&path).is_err(), "{length} of {} bytes", whole.len());
        }
    }

    #[test]
    fn tensors_must_match_the_table() {
        let (_folder, path) = file_with(&whole());
        let reader = WeightsReader::open(&path).unwrap();
        let problem = |result: Result<(), ModelError>| result.unwrap_err().to_string();
        assert!(problem(reader.read_shaped("b", &[3, 2], &mut [0.0; 6])).contains("[3, 2]"));
        assert!(problem(reader.read_shaped("c", &[1], &mut [0.0; 1])).contains("missing"));
        let mut small = ParameterTable::default();
        small.push("a".into(), &[4], ParameterKind::Norm, 0.0);
        assert!(problem(reader.read_all(&small, &mut [0.0; 4])).contains("tensor b belongs to no part"));
    }
}
