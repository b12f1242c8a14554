//! The container: header, metadata and the table of tensors of a GGUF file (version 2 or 3), or of all files of a split
//! model, read with distrust (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! A file is a stranger's input: every count and length is compared with the bytes that are left before memory is taken
//! for it, every tensor's place with the file's size and with its neighbours. Tensors stay on disk until they are read.

use crate::element::ElementType;
use crate::error::GgufError;
use crate::input::Input;
use crate::value::{Metadata, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: [u8; 4] = *b"GGUF";
/// Where `general.alignment` says nothing.
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
const LARGEST_ALIGNMENT: u64 = 1 << 20;
/// ggml's own limit of a tensor's dimensions.
const MOST_DIMENSIONS: u32 = 4;
/// ggml allows 63.
const LONGEST_TENSOR_NAME: u64 = 255;
const LONGEST_KEY: u64 = 65_535;
/// The largest published models have a few thousand tensors in a file.
const MOST_TENSORS: u64 = 1 << 20;
const MOST_KEYS: u64 = 1 << 16;
/// Name, one dimension, type and offset: the least that a tensor's entry takes.
const SMALLEST_TENSOR_ENTRY: u64 = 8 + 4 + 8 + 4 + 8;
const SMALLEST_KEY_ENTRY: u64 = 8 + 4 + 1;
/// As the names of split files count.
const MOST_PARTS: u64 = 99_999;

/// An opened file, or all parts of a split one: metadata in memory, tensors on disk.
#[derive(Debug)]
pub struct GgufFile {
    parts: Vec<(PathBuf, File)>,
    metadata: Metadata,
    tensors: BTreeMap<String, TensorInfo>,
}

/// One tensor: where and how it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    part: usize,
    /// How its numbers are stored.
    pub element: ElementType,
    /// Its shape, the longest stride first: [rows, columns] of a matrix.
    pub shape: Vec<usize>,
    offset: u64,
    /// Its size in the file.
    pub bytes: u64,
}

impl TensorInfo {
    /// Numbers in a row; rows are stored one behind another.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.element.row_bytes(self.columns()).unwrap_or(0)
    }
}

impl GgufFile {
    /// Opens a file; of a split model (`…-00001-of-0000N.gguf`) the first part, which brings the others with it.
    ///
    /// # Errors
    /// Names the file, the place in it, what was expected and what was found.
    pub fn open(path: &Path) -> Result<GgufFile, GgufError> {
        let (metadata, tensors) = open_part(path, 0)?;
        let mut file = GgufFile { parts: Vec::new(), metadata, tensors: BTreeMap::new() };
        file.add(path, tensors)?;
        let number = |key: &str| file.metadata.get(key).and_then(Value::as_u64);
        let (part, count) = (number("split.no").unwrap_or(0), number("split.count").unwrap_or(1));
        if count <= 1 {
            return Ok(file);
        }
        let fail = |problem: String| GgufError::malformed(path, problem);
        if count > MOST_PARTS {
            return Err(fail(format!("split.count is {count}, expected at most {MOST_PARTS}")));
        }
        if part != 0 {
            return Err(fail(format!(
                "this is part {} of {count} of a split model: give its first part, -00001-of-{count:05}.gguf",
                part + 1
            )));
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(stem) = name.strip_suffix(&format!("-00001-of-{count:05}.gguf")) else {
            return Err(fail(format!(
                "the file is the first of {count} parts, but its name does not end in -00001-of-{count:05}.gguf: \
                 give it its name back, so that the others can be found"
            )));
        };
        for index in 1..count {
            let next = path.with_file_name(format!("{stem}-{:05}-of-{count:05}.gguf", index + 1));
            let (metadata, tensors) = open_part(&next, index as usize)?;
            let number = |key: &str| metadata.get(key).and_then(Value::as_u64);
            if number("split.no") != Some(index) || number("split.count") != Some(count) {
                return Err(GgufError::malformed(
                    &next,
                    format!("does not say that it is part {} of {count} (split.no, split.count)", index + 1),
                ));
            }
            file.add(&next, tensors)?;
        }
        if let Some(expected) = file.metadata.get("split.tensors.count").and_then(Value::as_u64)
            && expected != file.tensors.len() as u64
        {
            return Err(fail(format!(
                "split.tensors.count is {expected}, but the {count} parts hold {} tensors",
                file.tensors.len()
            )));
        }
        Ok(file)
    }

    /// What messages name: the file, or the first part.
    pub fn path(&self) -> &Path {
        &self.parts[0].0
    }

    /// All keys.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the order of their names.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// Reads bytes of a tensor as they are stored, from `first` on.
    ///
    /// # Errors
    /// When there is no such tensor, it ends before, or the file cannot be read.
    pub fn read_bytes(&self, name: &str, first: u64, out: &mut [u8]) -> Result<(), GgufError> {
        let tensor = self.tensors.get(name).ok_or_else(|| {
            GgufError::malformed(
                self.path(),
                format!("tensor {name} is missing: the file is not the whole model"),
            )
        })?;
        let (path, file) = &self.parts[tensor.part];
        if first.checked_add(out.len() as u64).is_none_or(|end| end > tensor.bytes) {
            let problem = format!("{} bytes from {first} on are more than tensor {name} has", out.len());
            return Err(GgufError::malformed(path, problem));
        }
        file.read_exact_at(out, tensor.offset + first).map_err(GgufError::read(path))
    }

    fn add(&mut self, path: &Path, tensors: Vec<(String, TensorInfo)>) -> Result<(), GgufError> {
        for (name, tensor) in tensors {
            if self.tensors.contains_key(&name) {
                return Err(GgufError::malformed(path, format!("tensor {name} is described twice")));
            }
            self.tensors.insert(name, tensor);
        }
        self.parts.push((path.to_path_buf(), File::open(path).map_err(GgufError::read(path))?));
        Ok(())
    }
}

type Part = (Metadata, Vec<(String, TensorInfo)>);

fn open_part(path: &Path, part: usize) -> Result<Part, GgufError> {
    let file = File::open(path).map_err(GgufError::read(path))?;
    let length = file.metadata().map_err(GgufError::read(path))?.len();
    let mut input = Input::new(file, length);
    parse(&mut input, part).map_err(|fault| fault.at(path))
}

/// What is wrong, before it is known in which file.
#[derive(Debug)]
pub(crate) enum Fault {
    Read(std::io::Error),
    Malformed(String),
    Unsupported(String),
}

impl Fault {
    fn at(self, path: &Path) -> GgufError {
        match self {
            Fault::Read(source) => GgufError::Read { path: path.to_path_buf(), source },
            Fault::Malformed(problem) => GgufError::malformed(path, problem),
            Fault::Unsupported(problem) => GgufError::unsupported(path, problem),
        }
    }
}

fn parse(input: &mut Input, part: usize) -> Result<Part, Fault> {
    let malformed = |problem: String| Err(Fault::Malformed(problem));
    let magic: [u8; 4] = input.take("the magic number")?;
    if magic != MAGIC {
        return malformed(format!("begins with {magic:02x?}, expected \"GGUF\": not a GGUF file"));
    }
    let version = input.u32("the version")?;
    match version {
        2 | 3 => {}
        1 => {
            return Err(Fault::Unsupported(
                "version 1 of the format is not supported: get a newer file".into(),
            ));
        }
        version if [2, 3].contains(&version.swap_bytes()) => {
            return Err(Fault::Unsupported("the file is big-endian, which is not supported".into()));
        }
        version => return Err(Fault::Unsupported(format!("version {version} is unknown, expected 2 or 3"))),
    }
    let tensor_count = input.u64("the number of tensors")?;
    let key_count = input.u64("the number of keys")?;
    if tensor_count > MOST_TENSORS || tensor_count > input.left() / SMALLEST_TENSOR_ENTRY {
        return malformed(format!(
            "{tensor_count} tensors cannot stand in a file of {} bytes",
            input.length()
        ));
    }
    if key_count > MOST_KEYS || key_count > input.left() / SMALLEST_KEY_ENTRY {
        return malformed(format!("{key_count} keys cannot stand in a file of {} bytes", input.length()));
    }
    let mut metadata = Metadata::new();
    for index in 0..key_count {
        let key = input.text(LONGEST_KEY, &format!("key {index}"))?;
        let value = input.value(&key)?;
        if metadata.contains_key(&key) {
            return malformed(format!("key {key} stands twice"));
        }
        metadata.insert(key, value);
    }
    let alignment = alignment(&metadata)?;
    let mut tensors = Vec::new();
    for index in 0..tensor_count {
        tensors.push(tensor_entry(input, index, part)?);
    }
    let data_begin = input.position().next_multiple_of(alignment);
    place(&mut tensors, data_begin, alignment, input.length())?;
    Ok((metadata, tensors))
}

fn alignment(metadata: &Metadata) -> Result<u64, Fault> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(value) => match value.as_u64() {
            Some(alignment) if alignment.is_power_of_two() && alignment <= LARGEST_ALIGNMENT => Ok(alignment),
            _ => Err(Fault::Malformed(format!(
                "general.alignment is {value:?}, expected a power of two up to {LARGEST_ALIGNMENT}"
            ))),
        },
    }
}

/// A tensor's entry; its offset still counts from the beginning of the data.
fn tensor_entry(input: &mut Input, index: u64, part: usize) -> Result<(String, TensorInfo), Fault> {
    let name = input.text(LONGEST_TENSOR_NAME, &format!("the name of tensor {index}"))?;
    let malformed = |problem: String| Err(Fault::Malformed(format!("tensor {name}: {problem}")));
    let dimensions = input.u32(&name)?;
    if dimensions == 0 || dimensions > MOST_DIMENSIONS {
        return malformed(format!("{dimensions} dimensions, expected 1 to {MOST_DIMENSIONS}"));
    }
    let mut shape = Vec::with_capacity(dimensions as usize);
    let mut elements: u64 = 1;
    for _ in 0..dimensions {
        let size = input.u64(&name)?;
        elements = match elements.checked_mul(size) {
            Some(product) if size > 0 && product <= i64::MAX as u64 => product,
            _ => return malformed(format!("a dimension of {size} makes no tensor")),
        };
        shape.push(size as usize);
    }
    // The file counts the columns first.
    shape.reverse();
    let code = input.u32(&name)?;
    let element = ElementType::from_code(code)
        .map_err(|problem| Fault::Unsupported(format!("tensor {name}: {problem}")))?;
    let offset = input.u64(&name)?;
    let columns = shape[shape.len() - 1];
    let row_bytes = element.row_bytes(columns).map(|bytes| bytes as u64);
    let Some(bytes) = row_bytes.and_then(|bytes| bytes.checked_mul(elements / columns as u64)) else {
        return malformed(format!(
            "rows of {columns} numbers are no whole number of {}'s blocks of {}",
            element.name(),
            element.block_elements()
        ));
    };
    Ok((name.clone(), TensorInfo { part, element, shape, offset, bytes }))
}

/// Checks where the tensors lie, and makes their offsets count from the beginning of the file.
fn place(
    tensors: &mut [(String, TensorInfo)],
    data_begin: u64,
    alignment: u64,
    length: u64,
) -> Result<(), Fault> {
    let malformed = |problem: String| Err(Fault::Malformed(problem));
    let data = length.saturating_sub(data_begin);
    for (name, tensor) in tensors.iter_mut() {
        if !tensor.offset.is_multiple_of(alignment) {
            return malformed(format!(
                "tensor {name} begins at byte {} of the data, expected a multiple of {alignment}",
                tensor.offset
            ));
        }
        if tensor.offset.checked_add(tensor.bytes).is_none_or(|end| end > data) {
            return malformed(format!(
                "tensor {name} takes {} bytes from byte {} on, but the file holds only {data} bytes of data: \
                 it is truncated, get it again",
                tensor.bytes, tensor.offset
            ));
        }
        tensor.offset += data_begin;
    }
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_unstable_by_key(|&index| tensors[index].1.offset);
    for pair in order.windows(2) {
        let (name, tensor) = &tensors[pair[0]];
        let (next_name, next) = &tensors[pair[1]];
        if tensor.offset + tensor.bytes > next.offset {
            return malformed(format!("tensors {name} and {next_name} overlap"));
        }
    }
    Ok(())
}
