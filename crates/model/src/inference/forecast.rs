//! What a model will take of memory, from its configuration and the headers of its weights: before anything is loaded, and
//! by the same counting as of a model that is.

use super::load::unwatched;
use super::{CacheFormat, CallLimits, InferenceModel, WeightFormat};
use crate::ModelError;
use crate::config::ModelConfig;
use crate::gguf_tensors::open;
use crate::spans::ModelSpans;
use crate::tensors::Tensors;
use gguf::ElementType;
use std::collections::BTreeMap;
use std::path::Path;

/// Sizes of a model in one format. They are those of the loaded model to the byte.
#[derive(Debug)]
pub struct ModelSizes(InferenceModel);

impl ModelSizes {
    /// Of a folder in Hugging Face's layout, or a GGUF file: nothing is read but the configuration and the headers.
    ///
    /// # Errors
    /// As [`InferenceModel::load_as`], but for faults in the numbers themselves.
    pub fn of_path(path: &Path, format: WeightFormat) -> Result<ModelSizes, ModelError> {
        let (config, tensors) = open(path)?;
        Ok(ModelSizes(InferenceModel::assemble(&config, tensors.as_ref(), format, 1, true, &unwatched)?))
    }

    /// Of a configuration, where nothing is known of the files but how their numbers are stored.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn of_config(
        config: &ModelConfig,
        stored: Option<ElementType>,
        format: WeightFormat,
    ) -> Result<ModelSizes, ModelError> {
        config.check()?;
        let tensors = Expected::of(config, stored);
        Ok(ModelSizes(InferenceModel::assemble(config, &tensors, format, 1, true, &unwatched)?))
    }

    /// As [`InferenceModel::config`].
    pub fn config(&self) -> &ModelConfig {
        self.0.config()
    }

    /// As [`InferenceModel::weight_bytes`].
    pub fn weight_bytes(&self) -> usize {
        self.0.weight_bytes()
    }

    /// As [`InferenceModel::bytes_per_token`].
    pub fn bytes_per_token(&self) -> usize {
        self.0.bytes_per_token()
    }

    /// As [`InferenceModel::default_cache_format`].
    pub fn default_cache_format(&self) -> CacheFormat {
        self.0.default_cache_format()
    }

    /// As [`InferenceModel::cache_block_bytes`].
    pub fn cache_block_bytes(&self, format: CacheFormat) -> usize {
        self.0.cache_block_bytes(format)
    }

    /// As [`InferenceModel::workspace_bytes`].
    pub fn workspace_bytes(&self, limits: CallLimits, threads: usize) -> usize {
        self.0.workspace_bytes(limits, threads)
    }
}

/// The tensors that a configuration asks for.
struct Expected {
    shapes: BTreeMap<String, Vec<usize>>,
    stored: Option<ElementType>,
}

impl Expected {
    fn of(config: &ModelConfig, stored: Option<ElementType>) -> Expected {
        let table = ModelSpans::new(config).table;
        let shapes = table
            .entries()
            .iter()
            .map(|parameter| (parameter.name.clone(), parameter.shape.clone()))
            .collect();
        Expected { shapes, stored }
    }
}

impl Tensors for Expected {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.shapes.get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.shapes.keys().cloned().collect()
    }

    fn read_rows(&self, name: &str, _first: usize, _out: &mut [f32]) -> Result<(), ModelError> {
        Err(ModelError::weights(self.place(), format!("tensor {name} has not been read")))
    }

    fn stored(&self, name: &str) -> Option<ElementType> {
        self.stored.filter(|_| self.shapes.get(name).is_some_and(|shape| shape.len() == 2))
    }
}
