//! A GGUF file as a source of named tensors: the names, shapes and order of the rows are Hugging Face's already.

use crate::ModelError;
use crate::tensors::Tensors;
use std::path::Path;

impl Tensors for gguf::Model {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        gguf::Model::shape(self, name).map(<[usize]>::to_vec)
    }

    fn names(&self) -> Vec<String> {
        gguf::Model::names(self).map(str::to_owned).collect()
    }

    fn read(&mut self, name: &str, out: &mut [f32]) -> Result<(), ModelError> {
        gguf::Model::read(self, name, out).map_err(ModelError::Gguf)
    }

    fn place(&self) -> &Path {
        self.path()
    }
}
