//! A model in Hugging Face's layout as one GGUF file: the way back from [`crate::Model`].

use crate::config::{Facts, config as read_config};
use crate::element::ElementType;
use crate::error::GgufError;
use crate::families::{
    Family, OUTER_NAMES, ROTARY_FACTORS, ROUTER_BIAS, XIELU, llama3_factors, neighbour_row,
};
use crate::metadata::{Described, describe};
use crate::tokenizer::TokenizerFiles;
use crate::value::{Array, Metadata, Value as Entry};
use crate::vocabulary;
use crate::writer::{GgufWriter, TensorPlan};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::io::Write;

/// ggml's version of its blocks.
const QUANTISATION_VERSION: u32 = 2;

/// Why the work cannot go on.
pub type Stop = Box<dyn std::error::Error + Send + Sync>;

/// Where the numbers of a model come from, by Hugging Face's names.
pub trait Source {
    /// Row-major shape of a tensor, if there is one of this name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// All names.
    fn names(&self) -> Vec<String>;

    /// Reads a whole tensor as f32; `out` has the product of its shape.
    ///
    /// # Errors
    /// When the tensor cannot be read.
    fn read(&mut self, name: &str, out: &mut [f32]) -> Result<(), Stop>;
}

/// How the matrices are stored. Vectors and routers are always F32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As they are.
    F32,
    /// Rounded to half floats.
    F16,
    /// Rounded to the upper halves of floats.
    Bf16,
    /// 8 bits a weight and a scale for 32.
    Q8_0,
    /// 4 bits a weight and a scale for 32; the output projection in 8 bits, where most of the error would come from.
    Q4_0,
}

impl Format {
    /// `general.file_type`, as llama.cpp numbers it.
    fn file_type(self) -> u32 {
        match self {
            Format::F32 => 0,
            Format::F16 => 1,
            Format::Q4_0 => 2,
            Format::Q8_0 => 7,
            Format::Bf16 => 32,
        }
    }

    fn element(self, name: &str, shape: &[usize], tied: bool) -> ElementType {
        let head = name == "output.weight" || (tied && name == "token_embd.weight");
        let element = match self {
            _ if shape.len() == 1 || name.contains("ffn_gate_inp") => return ElementType::F32,
            Format::F32 => ElementType::F32,
            Format::F16 => ElementType::F16,
            Format::Bf16 => ElementType::Bf16,
            Format::Q4_0 if !head => ElementType::Q4_0,
            Format::Q4_0 | Format::Q8_0 => ElementType::Q8_0,
        };
        // As llama.cpp does with rows that are no whole number of blocks.
        match shape.last().is_some_and(|columns| columns.is_multiple_of(element.block_elements())) {
            true => element,
            false => ElementType::F16,
        }
    }
}

/// A model that is going to be written.
pub struct Export {
    metadata: Vec<(String, Entry)>,
    plan: Vec<TensorPlan>,
    /// What each tensor of the plan is made from.
    parts: Vec<Part>,
    /// What a reader of the file should know.
    pub warning: Option<String>,
}

enum Part {
    /// Tensors behind one another.
    Tensors {
        names: Vec<String>,
        /// Heads whose rows are turned, or 0.
        heads: usize,
        /// What is added.
        more: f32,
        /// Numbers of a part, and how often each part is written.
        repeat: (usize, usize),
    },
    Numbers(Vec<f32>),
}

impl Export {
    /// Plans a file: `config` is `config.json`, `name` goes into `general.name`. Nothing is read of the tensors but shapes.
    ///
    /// # Errors
    /// [`GgufError::Model`] where GGUF, or llama.cpp, cannot follow the configuration; it names the key or tensor.
    pub fn plan(
        config: &Map<String, Value>,
        tokenizer: Option<&TokenizerFiles>,
        source: &mut dyn Source,
        name: &str,
        format: Format,
    ) -> Result<Export, GgufError> {
        let described = describe(config).map_err(GgufError::Model)?;
        let architecture = described.family.architecture();
        let (plan, parts) = tensors(&described, source, format).map_err(GgufError::Model)?;
        let mut metadata = vec![
            ("general.architecture".to_owned(), Entry::String(architecture.into())),
            ("general.type".to_owned(), Entry::String("model".into())),
            ("general.name".to_owned(), Entry::String(name.into())),
            ("general.file_type".to_owned(), Entry::U32(format.file_type())),
            ("general.quantization_version".to_owned(), Entry::U32(QUANTISATION_VERSION)),
        ];
        let own = |(key, value): &(&str, Entry)| (format!("{architecture}.{key}"), value.clone());
        metadata.extend(described.keys.iter().map(own));
        if described.family.expert_names().is_empty() && described.experts > 0 {
            return Err(GgufError::Model("the family has no experts".into()));
        }
        metadata.extend(xielu(&described, source)?);
        let mut warning = None;
        if let Some(files) = tokenizer {
            let empty = Map::new();
            let settings = files.config.as_object().unwrap_or(&empty);
            let rows = plan
                .iter()
                .find(|tensor| tensor.name == "token_embd.weight")
                .map_or(0, |table| table.shape[0]);
            let written = vocabulary::write(&files.tokenizer, settings, rows, &described.ends)
                .map_err(GgufError::Model)?;
            metadata.extend(written.metadata);
            warning = written.warning;
        }
        check(config, &described, &metadata, &plan, &parts).map_err(GgufError::Model)?;
        Ok(Export { metadata, plan, parts, warning })
    }

    /// The tensors in their order.
    pub fn tensors(&self) -> &[TensorPlan] {
        &self.plan
    }

    /// Writes the file; `advance` is told the bytes of each tensor that is done, and may stop the work.
    ///
    /// # Errors
    /// When a tensor cannot be read, the output not be written, or `advance` says so.
    pub fn write(
        &self,
        source: &mut dyn Source,
        out: &mut dyn Write,
        advance: &mut dyn FnMut(u64) -> Result<(), Stop>,
    ) -> Result<(), GgufError> {
        let mut writer = GgufWriter::begin(out, &self.metadata, &self.plan)?;
        for (tensor, part) in self.plan.iter().zip(&self.parts) {
            match part {
                Part::Numbers(numbers) => writer.numbers(numbers)?,
                Part::Tensors { names, heads, more, repeat: (part, repeat) } => {
                    for name in names {
                        let mut values = vec![0.0; tensor.elements() / names.len() / repeat];
                        source.read(name, &mut values).map_err(GgufError::Source)?;
                        if *more != 0.0 {
                            values.iter_mut().for_each(|value| *value += more);
                        }
                        if *heads > 0 {
                            values = turned(
                                &values,
                                *heads,
                                if tensor.shape.len() == 2 { tensor.shape[1] } else { 1 },
                            );
                        }
                        if *repeat > 1 {
                            let parts =
                                values.chunks(*part).flat_map(|part| std::iter::repeat_n(part, *repeat));
                            values = parts.flatten().copied().collect();
                        }
                        writer.numbers(&values)?;
                    }
                }
            }
            advance(tensor.bytes()).map_err(GgufError::Source)?;
        }
        writer.finish();
        Ok(())
    }
}

/// The rows of each head from Hugging Face's order into that of neighbours.
fn turned(values: &[f32], heads: usize, columns: usize) -> Vec<f32> {
    let mut result = vec![0.0; values.len()];
    let length = values.len() / heads;
    for (head, out) in values.chunks_exact(length).zip(result.chunks_exact_mut(length)) {
        for (row, values) in head.chunks_exact(columns).enumerate() {
            out[neighbour_row(row, length / columns) * columns..][..columns].copy_from_slice(values);
        }
    }
    result
}

/// What is written in which order, and from what.
fn tensors(
    described: &Described,
    source: &dyn Source,
    format: Format,
) -> Result<(Vec<TensorPlan>, Vec<Part>), String> {
    let family = described.family;
    let mut left: BTreeSet<String> = source.names().into_iter().collect();
    if described.tied {
        // Some folders hold the table twice.
        left.remove(OUTER_NAMES[2].1);
    }
    let tied = !left.contains(OUTER_NAMES[2].1);
    let copied = tied && family.repeats_table();
    let (mut plan, mut parts) = (Vec::new(), Vec::new());
    let mut push = |name: String, shape: Vec<usize>, part: Part| {
        plan.push(TensorPlan { element: format.element(&name, &shape, tied && !copied), name, shape });
        parts.push(part);
    };
    let mut single = |stored: String, name: String, push: &mut dyn FnMut(String, Vec<usize>, Part)| {
        let Some(shape) = source.shape(&name).filter(|_| left.remove(&name)) else { return Ok(()) };
        if shape.is_empty() || shape.len() > 2 || shape.contains(&0) {
            return Err(format!("tensor {name} has shape {shape:?}, expected one or two dimensions"));
        }
        let heads = match family.turns_neighbours() {
            true if name.contains(".q_proj.") => described.heads,
            true if name.contains(".k_proj.") => described.kv_heads,
            _ => 0,
        };
        if heads > 0 && !shape[0].is_multiple_of(2 * heads) {
            return Err(format!("tensor {name} has {} rows, which make no {heads} heads of pairs", shape[0]));
        }
        let more = if family.norms_hold_one_more() && name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        let mut shape = shape;
        let mut repeat = (1, 1);
        if described.repeat > 1 && (name.contains(".k_proj.") || name.contains(".v_proj.")) {
            let elements = shape.iter().product::<usize>();
            repeat = ((elements / described.kv_heads).max(1), described.repeat);
            shape[0] *= described.repeat;
        }
        push(stored, shape, Part::Tensors { names: vec![name], heads, more, repeat });
        Ok(())
    };
    if let Some((theta, head_dim, scaling)) = &described.llama3 {
        let factors = llama3_factors(*theta, *head_dim, scaling);
        push(ROTARY_FACTORS.into(), vec![factors.len()], Part::Numbers(factors));
    }
    let [table, outer @ ..] = OUTER_NAMES;
    single(table.0.into(), table.1.into(), &mut push)?;
    for layer in 0..described.layers {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (stored, name) in family.layer_names() {
            for ending in ["weight", "bias"] {
                pairs.push((format!("{stored}.{ending}"), format!("{name}.{ending}")));
            }
        }
        if described.experts > 0 {
            pairs.push((ROUTER_BIAS.0.into(), ROUTER_BIAS.1.into()));
        }
        for (stored, name) in pairs {
            single(format!("blk.{layer}.{stored}"), format!("model.layers.{layer}.{name}"), &mut push)?;
        }
    }
    for (stored, name) in outer {
        single(stored.into(), name.into(), &mut push)?;
    }
    if let (true, Some(shape)) = (copied, source.shape(table.1)) {
        let names = vec![table.1.to_owned()];
        push(OUTER_NAMES[2].0.into(), shape, Part::Tensors { names, heads: 0, more: 0.0, repeat: (1, 1) });
    }
    for layer in 0..described.layers {
        for (stored, block, part) in family.expert_names() {
            let names: Vec<String> = (0..described.experts)
                .map(|expert| format!("model.layers.{layer}.{block}.{expert}.{part}.weight"))
                .collect();
            let Some(shape) = source.shape(&names[0]) else { continue };
            if let Some(strange) = names.iter().find(|name| source.shape(name).as_ref() != Some(&shape)) {
                return Err(format!("tensor {strange} is missing or has another shape than {}", names[0]));
            }
            for name in &names {
                left.remove(name);
            }
            let shape = [&[described.experts][..], &shape].concat();
            push(
                format!("blk.{layer}.{stored}.weight"),
                shape,
                Part::Tensors { names, heads: 0, more: 0.0, repeat: (1, 1) },
            );
        }
        for (_, name, _) in XIELU {
            left.remove(&format!("model.layers.{layer}.{name}"));
        }
    }
    match left.first() {
        Some(strange) => {
            Err(format!("tensor {strange} belongs to no part of {} that is known", family.class()))
        }
        None => Ok((plan, parts)),
    }
}

/// The numbers of Apertus' activation, one a layer.
fn xielu(described: &Described, source: &mut dyn Source) -> Result<Vec<(String, Entry)>, GgufError> {
    if described.family != Family::Apertus {
        return Ok(Vec::new());
    }
    let mut keys = Vec::new();
    for (key, name, _) in XIELU {
        let mut numbers = Vec::new();
        for layer in 0..described.layers {
            let name = format!("model.layers.{layer}.{name}");
            if source.shape(&name).is_none_or(|shape| shape.iter().product::<usize>() != 1) {
                return Err(GgufError::Model(format!("tensor {name} is missing or more than one number")));
            }
            let mut number = [0.0];
            source.read(&name, &mut number).map_err(GgufError::Source)?;
            numbers.push(number[0]);
        }
        keys.push((key.to_owned(), Entry::Array(Array::F32(numbers))));
    }
    Ok(keys)
}

/// Reads the planned file as anyone would, and compares: what GGUF cannot say, or llama.cpp fixes for a family, must not
/// change silently.
fn check(
    source: &Map<String, Value>,
    described: &Described,
    metadata: &[(String, Entry)],
    plan: &[TensorPlan],
    parts: &[Part],
) -> Result<(), String> {
    let metadata: Metadata = metadata.iter().cloned().collect();
    let rotary_factors = parts.iter().find_map(|part| match part {
        Part::Numbers(numbers) => Some(numbers.clone()),
        Part::Tensors { .. } => None,
    });
    let tensors = plan.iter().map(|tensor| (&tensor.name[..], &tensor.shape[..])).collect();
    let (read, _) = read_config(&Facts { metadata: &metadata, tensors, rotary_factors })?;
    let again = describe(&read)?;
    if again.keys != described.keys || again.llama3 != described.llama3 {
        let differs = |(a, b): &(&(&str, Entry), &(&str, Entry))| a != b;
        let key = again.keys.iter().zip(&described.keys).find(differs).map_or("rope", |(_, key)| key.0);
        return Err(format!("the configuration does not come back as it is ({key})"));
    }
    // Named by the side that computes, derived from others, or without effect.
    const ELSEWHERE: [&str; 12] = [
        "architectures",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "max_window_layers",
        "model_type",
        "pad_token_id",
        "rope_parameters",
        "rope_theta",
        "sliding_window",
        "use_sliding_window",
        "head_dim",
    ];
    let written_out = |key: &str| match key {
        "num_key_value_heads" => described.family.repeats_heads(),
        "tie_word_embeddings" => described.family.repeats_table(),
        key => ELSEWHERE.contains(&key),
    };
    for (key, value) in read.iter().filter(|(key, _)| !written_out(key)) {
        let Some(wanted) = source.get(key).filter(|wanted| !wanted.is_null()) else { continue };
        let same = match (value.as_f64(), wanted.as_f64()) {
            (Some(value), Some(wanted)) => value as f32 == wanted as f32,
            _ => value == wanted,
        };
        if !same {
            return Err(format!("{key} is {wanted}, but readers of the file would take it for {value}"));
        }
    }
    let window = source.get("sliding_window").filter(|window| !window.is_null());
    if let (Family::Llama | Family::Mixtral | Family::Ministral3, Some(window)) = (described.family, window) {
        return Err(format!(
            "sliding_window is {window}, which readers of the file do not follow in this family"
        ));
    }
    let windowed = source.get("use_sliding_window") == Some(&Value::Bool(true));
    if windowed && read.get("use_sliding_window") == Some(&Value::Bool(false)) {
        return Err(
            "use_sliding_window is true, which readers of the file do not follow in this family".into()
        );
    }
    Ok(())
}
