//! The language identifier: which of the 24 a text is in, a neighbour of them, or something else.
//!
//! Naive Bayes over the n-grams of words (see [`features`]) with numbers of our own, learned by
//! `cargo run --release -p languages --example train_identifier` and embedded from `data/identifier.bin`.

mod answer;
mod features;
mod model;
mod scoring;

pub use answer::{Candidate, Identification, Identifier, Share, identify, identify_paragraphs};
pub use features::features;
pub use model::{
    Entry, LABEL_COUNT, LARGEST_WEIGHT, LabelParameters, Model, NEIGHBOURS, Parameters, label_code,
};
pub use scoring::Scores;
