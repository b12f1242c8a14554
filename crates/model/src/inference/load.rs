//! From tensors on disk or in memory to a model that is ready to run: read one matrix at a time, packed, and dropped.

use super::mixture::PackedMixture;
use super::weight::{Weight, WeightFormat};
use super::{InferenceModel, LayerVectors, PackedLayer, SmallParameters};
use crate::ModelError;
use crate::adapter::Adapter;
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::parameters::ModelSpans;
use crate::tensors::{Tensors, TensorsInMemory, check, read_span};
use crate::weights::WeightsReader;
use std::ops::Range;
use std::path::Path;

/// Reads what stands in a span of the model's table.
pub(super) type ReadSpan<'a> = dyn FnMut(&Range<usize>) -> Result<Vec<f32>, ModelError> + 'a;

impl InferenceModel {
    /// Reads `config.json` and the weights of a folder in Hugging Face's layout, kept as F32.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(folder: &Path) -> Result<InferenceModel, ModelError> {
        InferenceModel::load_as(folder, WeightFormat::F32)
    }

    /// Reads a folder in Hugging Face's layout; matrices are kept as `format`.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load_as(folder: &Path, format: WeightFormat) -> Result<InferenceModel, ModelError> {
        let config = ModelConfig::load(&folder.join("config.json"))?;
        InferenceModel::load_with(&config, &mut WeightsReader::open_folder(folder)?, format)
    }

    /// Reads a model and adds an adapter to its weights.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load_merged(folder: &Path, adapter_folder: &Path) -> Result<InferenceModel, ModelError> {
        let config = ModelConfig::load(&folder.join("config.json"))?;
        let mut values = load_parameters(&config, folder)?;
        Adapter::load(&config, adapter_folder)?.merge_into(&config, &mut values);
        InferenceModel::from_values(&config, &values)
    }

    /// A model from parameters in memory, in the order of its table.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    ///
    /// # Panics
    /// When there are fewer values than parameters.
    pub fn from_values(config: &ModelConfig, values: &[f32]) -> Result<InferenceModel, ModelError> {
        config.check()?;
        let table = ModelSpans::new(config).table;
        InferenceModel::load_with(config, &mut TensorsInMemory::new(&table, values), WeightFormat::F32)
    }

    /// Reads a model from wherever its tensors are; matrices are kept as `format`. The tensors must be exactly those that
    /// the configuration asks for. No more than one matrix at a time stands in memory as f32.
    ///
    /// # Errors
    /// When the configuration makes no sense; names a tensor that is missing, too many, of another shape, or unreadable.
    pub fn load_with(
        config: &ModelConfig,
        tensors: &mut dyn Tensors,
        format: WeightFormat,
    ) -> Result<InferenceModel, ModelError> {
        config.check()?;
        let spans = ModelSpans::new(config);
        // Check the sizes on disk before memory is taken for what a configuration merely claims.
        check(tensors, &spans.table)?;
        let decoder = Decoder::new(config, config.maximum_positions)?;
        let hidden = config.hidden_size;
        let mut read = |span: &Range<usize>| read_span(tensors, &spans.table, span);
        let mut layers = Vec::new();
        let mut vectors = Vec::new();
        let embedding = read(&spans.embedding)?;
        for (index, layer) in spans.layers.iter().enumerate() {
            let feed_forward = config.layers[index].feed_forward;
            let mut packed = |span: &Range<usize>, input: usize| -> Result<Weight, ModelError> {
                Ok(Weight::new(&read(span)?, input, format))
            };
            let (fused, output) =
                (packed(&layer.fused, hidden)?, packed(&layer.output, decoder.shape(index).query_width())?);
            let (gate_up, down) =
                (packed(&layer.gate_up, hidden)?, packed(&layer.down, feed_forward.intermediate_size)?);
            let mixture = match (&layer.mixture, feed_forward.mixture) {
                (Some(spans), Some(mixture)) => {
                    Some(PackedMixture::new(mixture, spans, &mut read, hidden, format)?)
                }
                _ => None,
            };
            layers.push(PackedLayer { fused, output, gate_up, down, mixture });
            vectors.push(LayerVectors {
                input_norm: read(&layer.input_norm)?,
                fused_bias: layer.fused_bias.as_ref().map(&mut read).transpose()?,
                query_norm: layer.query_norm.as_ref().map(&mut read).transpose()?,
                key_norm: layer.key_norm.as_ref().map(&mut read).transpose()?,
                middle_norm: read(&layer.middle_norm)?,
            });
        }
        let final_norm = read(&spans.final_norm)?;
        let head = match config.tie_embeddings {
            true => Weight::new(&embedding, hidden, format),
            false => Weight::new(&read(&spans.head)?, hidden, format),
        };
        let small = SmallParameters { embedding, layers: vectors, final_norm };
        Ok(InferenceModel { decoder, small, layers, head })
    }
}

/// The weights of a folder, in the order of the configuration's table: for training, which needs them all as f32.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn load_parameters(config: &ModelConfig, folder: &Path) -> Result<Vec<f32>, ModelError> {
    let table = ModelSpans::new(config).table;
    let mut reader = WeightsReader::open_folder(folder)?;
    reader.check_shapes(&table)?;
    let mut values = vec![0.0; table.length()];
    reader.read_all(&table, &mut values)?;
    Ok(values)
}
