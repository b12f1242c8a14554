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
        let place = self.place(name, out.len())?;
        let Source::Stored { tensor, element, first, heads, one_more } = &place.source else {
            if let Source::Number(number) = place.source {
                out.fill(number);
            }
            return Ok(());
        };
        let columns = if place.shape.len() == 2 { place.shape[1] } else { 1 };
        match heads {
            0 => self.read_run(tensor, *element, *first, out)?,
            heads => {
                let rows = out.len() / columns / heads;
                let mut head = vec![0.0; rows * columns];
                for (index, out) in out.chunks_exact_mut(rows * columns).enumerate() {
                    self.read_run(tensor, *element, first + (index * head.len()) as u64, &mut head)?;
                    for (row, out) in out.chunks_exact_mut(columns).enumerate() {
                        out.copy_from_slice(&head[neighbour_row(row, rows) * columns..][..columns]);
                    }
                }
            }
        }
        if *one_more {
            out.iter_mut().for_each(|value| *value -= 1.0);
        }
        Ok(())
    }

    /// Reads a whole matrix as it is stored, its rows in Hugging Face's order; `out` has the rows' bytes.
    ///
    /// # Errors
    /// As [`Model::read`]; also where [`Model::element_type`] has nothing to say, or the tensor is no matrix.
    pub fn read_stored(&self, name: &str, out: &mut [u8]) -> Result<(), GgufError> {
        let place = self.places.get(name).ok_or_else(|| self.missing(name))?;
        let (Source::Stored { tensor, element, first, heads, one_more: false }, &[rows, columns]) =
            (&place.source, &place.shape[..])
        else {
            return Err(GgufError::malformed(
                self.path(),
                format!("tensor {name} is not stored as a matrix"),
            ));
        };
        let row_bytes = element.row_bytes(columns).unwrap_or(0);
        if out.len() != rows * row_bytes {
            let problem = format!("tensor {name} takes {} bytes, asked for {}", rows * row_bytes, out.len());
            return Err(GgufError::malformed(self.path(), problem));
        }
        self.file.read_bytes(tensor, stored_bytes(*element, *first), out)?;
        if *heads > 0 {
            let head_rows = rows / heads;
            for head in out.chunks_exact_mut(head_rows * row_bytes) {
                let stored = head.to_vec();
                for (row, out) in head.chunks_exact_mut(row_bytes).enumerate() {
                    out.copy_from_slice(&stored[neighbour_row(row, head_rows) * row_bytes..][..row_bytes]);
                }
            }
        }
        Ok(())
    }

    fn read_run(
        &self,
        tensor: &str,
        element: ElementType,
        first: u64,
        out: &mut [f32],
    ) -> Result<(), GgufError> {
        let mut stored = vec![0; element.row_bytes(PART.min(out.len())).unwrap_or(0)];
        for (index, part) in out.chunks_mut(PART).enumerate() {
            let bytes = element.row_bytes(part.len()).unwrap_or(0);
            let from = stored_bytes(element, first + (index * PART) as u64);
            self.file.read_bytes(tensor, from, &mut stored[..bytes])?;
            dequantise(element, &stored[..bytes], part);
        }
        Ok(())
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
