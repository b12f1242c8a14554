//! From tensors on disk or in memory to a model that is ready to run.

use super::latent::PackedLatent;
use super::mixture::PackedMixture;
use super::read::Reader;
use super::rotations::Rotations;
use super::weight::WeightFormat;
use super::{InferenceModel, LayerVectors, PackedLayer, Projections, SmallParameters};
use crate::ModelError;
use crate::adapter::{Adapter, Projection};
use crate::config::{Architecture, LayerSpecification, ModelConfig};
use crate::gguf_tensors::open;
use crate::spans::ModelSpans;
use crate::tensors::{Tensors, TensorsInMemory, check};
use crate::weights::WeightsReader;
use compute::Team;
use compute::activations::Xielu;
use compute::elementary::{exp_f64, ln};
use gguf::ElementType;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::Path;

/// Is told how many parts of a model are loaded, and of how many, first of none; what it says decides whether to go on.
pub type LoadWatch<'a> = &'a dyn Fn(usize, usize) -> ControlFlow<()>;

impl InferenceModel {
    /// Reads `config.json` and the weights of a folder in Hugging Face's layout, or a GGUF file; kept as F32.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(folder: &Path) -> Result<InferenceModel, ModelError> {
        InferenceModel::load_as(folder, WeightFormat::F32)
    }

    /// Reads a folder in Hugging Face's layout, or a GGUF file; matrices are kept as `format`.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load_as(folder: &Path, format: WeightFormat) -> Result<InferenceModel, ModelError> {
        InferenceModel::load_on(folder, format, 1)
    }

    /// As [`InferenceModel::load_as`], on so many threads. The bits do not depend on them.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load_on(
        folder: &Path,
        format: WeightFormat,
        threads: usize,
    ) -> Result<InferenceModel, ModelError> {
        InferenceModel::load_watched(folder, None, format, threads, &unwatched)
    }

    /// As [`InferenceModel::load_on`], or [`InferenceModel::load_merged`] with an adapter; `watch` follows it layer by layer.
    ///
    /// # Errors
    /// Names the file and what is wrong with it; [`ModelError::Stopped`] where `watch` breaks off.
    pub fn load_watched(
        folder: &Path,
        adapter_folder: Option<&Path>,
        format: WeightFormat,
        threads: usize,
        watch: LoadWatch<'_>,
    ) -> Result<InferenceModel, ModelError> {
        let (config, tensors) = open(folder)?;
        let tensors = match adapter_folder {
            Some(adapter) => with_adapter(&config, tensors, adapter)?,
            None => tensors,
        };
        InferenceModel::assemble(&config, tensors.as_ref(), format, threads, false, watch)
    }

    /// Reads a model and adds an adapter to its weights; matrices are kept as `format`.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load_merged(
        folder: &Path,
        adapter_folder: &Path,
        format: WeightFormat,
        threads: usize,
    ) -> Result<InferenceModel, ModelError> {
        InferenceModel::load_watched(folder, Some(adapter_folder), format, threads, &unwatched)
    }

    /// A model from parameters in memory, in the order of its table.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    ///
    /// # Panics
    /// When there are fewer values than parameters.
    pub fn from_values(config: &ModelConfig, values: &[f32]) -> Result<InferenceModel, ModelError> {
        InferenceModel::from_values_as(config, values, WeightFormat::F32)
    }

    /// As [`InferenceModel::from_values`]; matrices are kept as `format`.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    ///
    /// # Panics
    /// When there are fewer values than parameters.
    pub fn from_values_as(
        config: &ModelConfig,
        values: &[f32],
        format: WeightFormat,
    ) -> Result<InferenceModel, ModelError> {
        config.check()?;
        let table = ModelSpans::new(config).table;
        InferenceModel::load_with(config, &TensorsInMemory::new(&table, values), format, 1)
    }

    /// Reads a model from wherever its tensors are; matrices are kept as `format`. The tensors must be exactly those that
    /// the configuration asks for. No whole matrix stands in memory as f32, whatever the format; `threads` read and pack.
    ///
    /// # Errors
    /// When the configuration makes no sense; names a tensor that is missing, too many, of another shape, or unreadable.
    pub fn load_with(
        config: &ModelConfig,
        tensors: &dyn Tensors,
        format: WeightFormat,
        threads: usize,
    ) -> Result<InferenceModel, ModelError> {
        InferenceModel::assemble(config, tensors, format, threads, false, &unwatched)
    }

    /// As [`InferenceModel::load_with`]; with `counts_only` nothing is read but the headers, and the model is of no use but
    /// for its sizes.
    pub(super) fn assemble(
        config: &ModelConfig,
        tensors: &dyn Tensors,
        format: WeightFormat,
        threads: usize,
        counts_only: bool,
        watch: LoadWatch<'_>,
    ) -> Result<InferenceModel, ModelError> {
        config.check()?;
        let spans = ModelSpans::new(config);
        // Check the sizes on disk before memory is taken for what a configuration merely claims.
        check(tensors, &spans.table, |name| may_be_left(config, name))?;
        let hidden = config.hidden_size;
        // These two of xIELU's numbers are the same in all layers of the published models, and not always written.
        let numbers = match spans.layers.iter().any(|layer| layer.activation.is_some()) {
            true if counts_only => Ok(vec![[0.0; 2]; spans.layers.len()]),
            true => (0..spans.layers.len()).map(|layer| xielu_constants(tensors, layer)).collect(),
            false => Ok(Vec::new()),
        }?;
        let team = Team::new(threads);
        // Where there are only numbers, f32 is how they are stored.
        let in_blocks =
            |name: &String| tensors.stored(name).is_some_and(|element| element != ElementType::F32);
        let format = match format {
            WeightFormat::Stored if !tensors.names().iter().any(in_blocks) => WeightFormat::F32,
            format => format,
        };
        let reader = Reader { tensors, table: &spans.table, team: &team, format, counts_only };
        let read = |span: &Range<usize>| reader.values(span);
        // Input and output tables are one part more.
        let parts = spans.layers.len() + 1;
        let loaded = |done| match watch(done, parts) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ModelError::Stopped),
        };
        let mut layers = Vec::new();
        let mut vectors = Vec::new();
        for (index, layer) in spans.layers.iter().enumerate() {
            loaded(index)?;
            let LayerSpecification { attention, feed_forward, .. } = config.layers[index];
            let projections = match (&layer.latent, attention.latent) {
                (Some(spans), Some(latent)) => Projections::Latent(Box::new(PackedLatent::new(
                    &attention, latent, spans, &reader, hidden,
                )?)),
                _ => Projections::Fused(reader.matrix(&layer.fused, hidden)?),
            };
            let output = reader.matrix(&layer.output, attention.output_width())?;
            let dense = match feed_forward.intermediate_size {
                0 => None,
                width => Some((reader.matrix(&layer.gate_up, hidden)?, reader.matrix(&layer.down, width)?)),
            };
            let mixture = match (&layer.mixture, feed_forward.mixture) {
                (Some(spans), Some(mixture)) => Some(PackedMixture::new(mixture, spans, &reader, hidden)?),
                _ => None,
            };
            layers.push(PackedLayer { projections, output, dense, mixture });
            let from_one = config.architecture.norms_count_from_one();
            let norm = |span: &Range<usize>| -> Result<Vec<f32>, ModelError> {
                let mut weight = read(span)?;
                if from_one {
                    weight.iter_mut().for_each(|weight| *weight += 1.0);
                }
                Ok(weight)
            };
            let (input_norm, middle_norm) = (norm(&layer.input_norm)?, norm(&layer.middle_norm)?);
            let query_norm = layer.query_norm.as_ref().map(norm).transpose()?;
            let key_norm = layer.key_norm.as_ref().map(norm).transpose()?;
            let attention_norm = layer.attention_norm.as_ref().map(norm).transpose()?;
            let feed_forward_norm = layer.feed_forward_norm.as_ref().map(norm).transpose()?;
            let (gate_up_bias, down_bias) = match &layer.biases {
                Some((gate_up, down)) => (Some(read(gate_up)?), Some(read(down)?)),
                None => (None, None),
            };
            vectors.push(LayerVectors {
                input_norm,
                fused_bias: layer.fused_bias.as_ref().map(read).transpose()?,
                query_norm,
                key_norm,
                output_bias: layer.output_bias.as_ref().map(read).transpose()?,
                attention_norm,
                middle_norm,
                gate_up_bias,
                down_bias,
                xielu: match &layer.activation {
                    Some(span) => Some(xielu(&read(span)?, numbers[index])),
                    None => None,
                },
                feed_forward_norm,
            });
        }
        loaded(parts - 1)?;
        let mut final_norm = read(&spans.final_norm)?;
        if config.architecture.norms_count_from_one() {
            final_norm.iter_mut().for_each(|weight| *weight += 1.0);
        }
        let head = reader.matrix(&spans.head, hidden)?;
        let embedding = match config.tie_embeddings && reader.head_serves_as_table(&spans.head) {
            true => None,
            false => Some(reader.embedding(&spans.embedding, hidden)?),
        };
        let small = SmallParameters { embedding, layers: vectors, final_norm };
        loaded(parts)?;
        let rotations = Rotations::new(config);
        Ok(InferenceModel { config: config.clone(), rotations, small, layers, head, format })
    }
}

/// Nobody watches, and nobody stops it.
pub(super) fn unwatched(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Whether a tensor that the table does not know has no influence on what is computed.
fn may_be_left(config: &ModelConfig, name: &str) -> bool {
    let behind = || {
        // DeepSeek-V3's layers that predict further tokens.
        let number = name.strip_prefix("model.layers.")?.split('.').next()?.parse::<usize>().ok()?;
        Some(number >= config.layers.len())
    };
    // The frequencies that older checkpoints carry follow from the configuration.
    name.ends_with(".self_attn.rotary_emb.inv_freq")
        || (name == "lm_head.weight" && config.tie_embeddings)
        || match config.architecture {
            Architecture::Apertus => name.ends_with(".mlp.act_fn.beta") || name.ends_with(".mlp.act_fn.eps"),
            Architecture::DeepseekV3 => behind() == Some(true),
            _ => false,
        }
}

/// β and ε of a layer's xIELU, transformers' defaults where they are not among the tensors.
fn xielu_constants(tensors: &dyn Tensors, layer: usize) -> Result<[f32; 2], ModelError> {
    let mut numbers = [0.5, -1e-6];
    for (number, part) in numbers.iter_mut().zip(["beta", "eps"]) {
        let name = format!("model.layers.{layer}.mlp.act_fn.{part}");
        match tensors.shape(&name).map(|shape| shape.iter().product::<usize>()) {
            None => {}
            Some(1) => tensors.read(&name, std::slice::from_mut(number))?,
            Some(length) => {
                let problem = format!("tensor {name} has {length} numbers, expected one");
                return Err(ModelError::weights(tensors.place(), problem));
            }
        }
    }
    Ok(numbers)
}

/// A layer's numbers from what is learned: [αₚ, αₙ] before their softplus, [β, ε].
fn xielu(alphas: &[f32], [beta, epsilon]: [f32; 2]) -> Xielu {
    let softplus = |x: f32| {
        let x = x as f64;
        (x.max(0.0) + ln(1.0 + exp_f64(-x.abs()))) as f32
    };
    Xielu { positive: softplus(alphas[0]), negative: beta + softplus(alphas[1]), beta, epsilon }
}

/// A model's tensors with an adapter (PEFT layout) merged into those that it changes.
///
/// # Errors
/// Names the file and what does not fit.
pub fn with_adapter(
    config: &ModelConfig,
    tensors: Box<dyn Tensors>,
    adapter_folder: &Path,
) -> Result<Box<dyn Tensors>, ModelError> {
    let adapter = Adapter::load(config, adapter_folder)?;
    let places = adapter.changed_tensors(config);
    Ok(Box::new(WithAdapter { tensors, adapter, places }))
}

/// Tensors with an adapter's product added to those that it changes.
struct WithAdapter {
    tensors: Box<dyn Tensors>,
    adapter: Adapter,
    places: BTreeMap<String, (usize, Projection)>,
}

impl Tensors for WithAdapter {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.shape(name)
    }

    fn names(&self) -> Vec<String> {
        self.tensors.names()
    }

    fn read_rows(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), ModelError> {
        self.tensors.read_rows(name, first, out)?;
        if let Some(&(layer, projection)) = self.places.get(name)
            && let Some(pair) = self.adapter.low_rank(layer, projection)
        {
            pair.merge_into_rows(first, out);
        }
        Ok(())
    }

    fn stored(&self, name: &str) -> Option<ElementType> {
        self.tensors.stored(name).filter(|_| !self.places.contains_key(name))
    }

    fn read_stored_rows(&self, name: &str, first: usize, out: &mut [u8]) -> Result<(), ModelError> {
        self.tensors.read_stored_rows(name, first, out)
    }

    fn place(&self) -> &Path {
        self.tensors.place()
    }
}

/// The weights of a folder, in the order of the configuration's table: for training, which needs them all as f32.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn load_parameters(config: &ModelConfig, folder: &Path) -> Result<Vec<f32>, ModelError> {
    let table = ModelSpans::new(config).table;
    let reader = WeightsReader::open_folder(folder)?;
    reader.check_shapes(&table)?;
    let mut values = vec![0.0; table.length()];
    reader.read_all(&table, &mut values)?;
    Ok(values)
}
