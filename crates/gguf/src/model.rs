//! A GGUF file in Hugging Face's terms: configuration, names and shapes of its tensors, and their numbers in Hugging
//! Face's order, read one tensor at a time.

use crate::config::{Facts, Shape, config};
use crate::dequantise::dequantise;
use crate::element::ElementType;
use crate::error::GgufError;
use crate::families::{OUTER_NAMES, ROTARY_FACTORS, ROUTER_BIAS, XIELU, neighbour_row};
use crate::reader::{GgufFile, TensorInfo};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Numbers that are decoded at once: a whole number of blocks of every type.
const PART: usize = 1 << 16;

/// An opened model: configuration in memory, tensors on disk.
#[derive(Debug)]
pub struct Model {
    file: GgufFile,
    config: Map<String, Value>,
    places: BTreeMap<String, Place>,
}

/// Where a tensor of Hugging Face's layout comes from.
#[derive(Clone, Debug)]
struct Place {
    shape: Vec<usize>,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// Numbers `first..` of a stored tensor.
    Stored {
        tensor: String,
        element: ElementType,
        first: u64,
        /// Heads whose rows stand in the order of neighbours, or 0.
        heads: usize,
        /// Norms that are stored as 1 + w.
        one_more: bool,
    },
    /// A number of the metadata.
    Number(f32),
}

impl Place {
    /// Numbers in a row.
    fn columns(&self) -> usize {
        match (&self.shape[..], &self.source) {
            (&[_, columns], _) => columns,
            // A bias that is turned like the rows of its matrix.
            (_, Source::Stored { heads: 1.., .. }) => 1,
            (shape, _) => shape.iter().product::<usize>().max(1),
        }
    }

    /// Rows that are turned together.
    fn head_rows(&self, heads: usize) -> usize {
        self.shape.first().and_then(|rows| rows.checked_div(heads)).unwrap_or(1)
    }
}

impl Model {
    /// Opens a file, or the first part of a split one with all others.
    ///
    /// # Errors
    /// Names the file and the key or tensor that is missing, wrong or not supported.
    pub fn open(path: &Path) -> Result<Model, GgufError> {
        let file = GgufFile::open(path)?;
        let unsupported = |problem: String| GgufError::unsupported(path, problem);
        let (config, shape) = config(&Facts::of(&file)?).map_err(unsupported)?;
        let places = places(&file, &shape).map_err(unsupported)?;
        Ok(Model { file, config, places })
    }

    /// What stands in `config.json`.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// The file below.
    pub fn file(&self) -> &GgufFile {
        &self.file
    }

    /// The file, or its first part, for messages.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Row-major shape of a tensor, if there is one of this name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.places.get(name).map(|place| &place.shape[..])
    }

    /// How a tensor's numbers are stored; `None` where there is no such tensor, or its numbers have to be computed.
    pub fn element_type(&self, name: &str) -> Option<ElementType> {
        match self.places.get(name)?.source {
            Source::Stored { element, one_more: false, .. } => Some(element),
            _ => None,
        }
    }

    /// Reads a whole tensor as f32; `out` has the product of its shape.
    ///
    /// # Errors
    /// When there is no such tensor, `out` has another length, or the file cannot be read.
    pub fn read(&self, name: &str, out: &mut [f32]) -> Result<(), GgufError> {
        self.place(name, out.len())?;
        self.read_rows(name, 0, out)
    }

    /// Reads rows of a matrix from `first` on as f32; what is no matrix is one row. `out` has as many rows as are wanted.
    ///
    /// # Errors
    /// As [`Model::read`]; also when there are not as many rows.
    pub fn read_rows(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), GgufError> {
        let place = self.places.get(name).ok_or_else(|| self.missing(name))?;
        let Source::Stored { element, heads, one_more, .. } = place.source else {
            if let Source::Number(number) = place.source {
                out.fill(number);
            }
            return Ok(());
        };
        let columns = place.columns();
        self.check_rows(name, place, first, out.len(), columns)?;
        let together = (PART / columns).max(1).next_multiple_of(place.head_rows(heads));
        let row_bytes = element.row_bytes(columns).unwrap_or(0);
        let mut stored = Vec::new();
        for (index, out) in out.chunks_mut(together * columns).enumerate() {
            stored.resize(out.len() / columns * row_bytes, 0);
            self.read_stored_rows(name, first + index * together, &mut stored)?;
            dequantise(element, &stored, out);
        }
        if one_more {
            out.iter_mut().for_each(|value| *value -= 1.0);
        }
        Ok(())
    }

    /// Reads rows of a matrix from `first` on as they are stored, in Hugging Face's order; `out` has the bytes of as many
    /// rows as are wanted. What is no matrix is one row.
    ///
    /// # Errors
    /// As [`Model::read_rows`]; also where the tensor's numbers are none of the file's.
    pub fn read_stored_rows(&self, name: &str, first: usize, out: &mut [u8]) -> Result<(), GgufError> {
        let place = self.places.get(name).ok_or_else(|| self.missing(name))?;
        let Source::Stored { tensor, element, first: begin, heads, .. } = &place.source else {
            return Err(GgufError::malformed(self.path(), format!("tensor {name} is not stored")));
        };
        let columns = place.columns();
        let row_bytes = element.row_bytes(columns).unwrap_or(0);
        self.check_rows(name, place, first, out.len(), row_bytes)?;
        let place_of = |row: usize| stored_bytes(*element, begin + (row * columns) as u64);
        if *heads == 0 {
            return self.file.read_bytes(tensor, place_of(first), out);
        }
        let head_rows = place.head_rows(*heads);
        let mut stored = vec![0; head_rows * row_bytes];
        let mut head = None;
        for (row, out) in (first..).zip(out.chunks_exact_mut(row_bytes)) {
            if head != Some(row / head_rows) {
                head = Some(row / head_rows);
                self.file.read_bytes(tensor, place_of(row / head_rows * head_rows), &mut stored)?;
            }
            out.copy_from_slice(
                &stored[neighbour_row(row % head_rows, head_rows) * row_bytes..][..row_bytes],
            );
        }
        Ok(())
    }

    /// Whether `length` numbers or bytes are whole rows, and so many stand from `first` on.
    fn check_rows(
        &self,
        name: &str,
        place: &Place,
        first: usize,
        length: usize,
        row: usize,
    ) -> Result<(), GgufError> {
        let all = place.shape.iter().product::<usize>() / place.columns();
        match row > 0 && length.is_multiple_of(row) && first + length / row <= all {
            true => Ok(()),
            false => {
                let problem =
                    format!("tensor {name} has {all} rows of {row}, asked for {length} from row {first} on");
                Err(GgufError::malformed(self.path(), problem))
            }
        }
    }

    fn place(&self, name: &str, length: usize) -> Result<&Place, GgufError> {
        let place = self.places.get(name).ok_or_else(|| self.missing(name))?;
        let expected: usize = place.shape.iter().product();
        if expected != length {
            let problem = format!("tensor {name} has {expected} numbers, asked for {length}");
            return Err(GgufError::malformed(self.path(), problem));
        }
        Ok(place)
    }

    fn missing(&self, name: &str) -> GgufError {
        GgufError::malformed(self.path(), format!("tensor {name} is missing"))
    }
}

/// Bytes before number `first` of a tensor; `first` begins a block.
fn stored_bytes(element: ElementType, first: u64) -> u64 {
    first / element.block_elements() as u64 * element.block_bytes() as u64
}

/// Gives every tensor of the file its names, and refuses those that have none.
fn places(file: &GgufFile, shape: &Shape) -> Result<BTreeMap<String, Place>, String> {
    let mut places = BTreeMap::new();
    let mut known: BTreeSet<String> = BTreeSet::from([ROTARY_FACTORS.to_owned()]);
    for (stored, name) in OUTER_NAMES {
        add(file, shape, stored, name.to_owned(), &mut places, &mut known)?;
    }
    for layer in 0..shape.layers {
        for (stored, name) in shape.family.layer_names() {
            for ending in ["weight", "bias"] {
                let stored = format!("blk.{layer}.{stored}.{ending}");
                let name = format!("model.layers.{layer}.{name}.{ending}");
                add(file, shape, &stored, name, &mut places, &mut known)?;
            }
        }
        let (stored, name) = ROUTER_BIAS;
        if shape.experts > 0 {
            let stored = format!("blk.{layer}.{stored}");
            add(file, shape, &stored, format!("model.layers.{layer}.{name}"), &mut places, &mut known)?;
        }
        for (stored, block, part) in shape.family.expert_names() {
            let stored = format!("blk.{layer}.{stored}.weight");
            let Some(tensor) = file.tensors().get(&stored) else { continue };
            let &[experts, rows, columns] = &tensor.shape[..] else {
                return Err(format!(
                    "tensor {stored} has shape {:?}, expected three dimensions",
                    tensor.shape
                ));
            };
            if experts != shape.experts {
                return Err(format!("tensor {stored} holds {experts} experts, expected {}", shape.experts));
            }
            for expert in 0..experts {
                let source = Source::Stored {
                    tensor: stored.clone(),
                    element: tensor.element,
                    first: (expert * rows * columns) as u64,
                    heads: 0,
                    one_more: false,
                };
                places.insert(
                    format!("model.layers.{layer}.{block}.{expert}.{part}.weight"),
                    Place { shape: vec![rows, columns], source },
                );
            }
            known.insert(stored);
        }
        for ((_, name, dimension), numbers) in XIELU.iter().zip(&shape.xielu) {
            let place = Place {
                shape: if *dimension { vec![1] } else { Vec::new() },
                source: Source::Number(numbers[layer]),
            };
            places.insert(format!("model.layers.{layer}.{name}"), place);
        }
    }
    match file.tensors().keys().find(|name| !known.contains(*name)) {
        Some(strange) => {
            Err(format!("tensor {strange} belongs to no part of {} that is understood", shape.family.class()))
        }
        None => Ok(places),
    }
}

fn add(
    file: &GgufFile,
    shape: &Shape,
    stored: &str,
    name: String,
    places: &mut BTreeMap<String, Place>,
    known: &mut BTreeSet<String>,
) -> Result<(), String> {
    let Some(TensorInfo { element, shape: dimensions, .. }) = file.tensors().get(stored) else {
        return Ok(());
    };
    if dimensions.len() > 2 {
        return Err(format!("tensor {stored} has shape {dimensions:?}, expected one or two dimensions"));
    }
    let heads = match shape.family.turns_neighbours() {
        true if name.contains(".q_proj.") => shape.heads,
        true if name.contains(".k_proj.") => shape.kv_heads,
        _ => 0,
    };
    if heads > 0 && !dimensions[0].is_multiple_of(2 * heads) {
        return Err(format!(
            "tensor {stored} has {} rows, which make no {heads} heads of pairs",
            dimensions[0]
        ));
    }
    if heads > 0 && dimensions.len() == 1 && element.block_elements() > 1 {
        return Err(format!("tensor {stored} is a quantised bias, which is not supported"));
    }
    let one_more = shape.family.norms_hold_one_more() && name.ends_with("norm.weight");
    let source = Source::Stored { tensor: stored.to_owned(), element: *element, first: 0, heads, one_more };
    places.insert(name, Place { shape: dimensions.clone(), source });
    known.insert(stored.to_owned());
    Ok(())
}
