//! Stage 4: how good a model is, language by language.
//!
//! The first measure is bits per byte on held-out documents: how many bits the model needs for each byte of text that it
//! has never seen. It compares models with different vocabularies, because bytes are everyone's. Beside it stands what
//! LZMA and an n-gram model need for the same bytes, so that the figure means something.

mod error;
mod lzma;
mod ngram;
mod results;
mod settings;
mod stage;
mod text;
mod windows;

pub use error::Error;
pub use results::{Figures, LanguageResults, Results};
pub use settings::Settings;
pub use stage::{Report, STAGE_VERSION, Score, build, evaluate};
