//! A GGUF file as a source of named tensors: the names, shapes and order of the rows are Hugging Face's already.

use crate::ModelError;
use crate::config::ModelConfig;
use crate::tensors::{Tensors, has_own_output_table};
use crate::weights::WeightsReader;
use gguf::ElementType;
use std::path::Path;

/// Configuration and tensors of a model: a folder in Hugging Face's layout, or a GGUF file.
///
/// # Errors
/// Names the file and what is wrong with it.
pub(crate) fn open(path: &Path) -> Result<(ModelConfig, Box<dyn Tensors>), ModelError> {
    if path.is_file() {
        let model = gguf::Model::open(path).map_err(ModelError::Gguf)?;
        return Ok((ModelConfig::from_map(model.config(), path)?, Box::new(model)));
    }
    let mut config = ModelConfig::load(&path.join("config.json"))?;
    let tensors = WeightsReader::open_folder(path)?;
    config.tie_embeddings &= !has_own_output_table(&config, &tensors)?;
    Ok((config, Box::new(tensors)))
}

impl Tensors for gguf::Model {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        gguf::Model::shape(self, name).map(<[usize]>::to_vec)
    }

    fn names(&self) -> Vec<String> {
        gguf::Model::names(self).map(str::to_owned).collect()
    }

    fn read_rows(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), ModelError> {
        gguf::Model::read_rows(self, name, first, out).map_err(ModelError::Gguf)
    }

    fn stored(&self, name: &str) -> Option<ElementType> {
        self.element_type(name).filter(|_| self.shape(name).is_some_and(|shape| shape.len() == 2))
    }

    fn read_stored_rows(&self, name: &str, first: usize, out: &mut [u8]) -> Result<(), ModelError> {
        gguf::Model::read_stored_rows(self, name, first, out).map_err(ModelError::Gguf)
    }

    fn place(&self) -> &Path {
        self.path()
    }
}
