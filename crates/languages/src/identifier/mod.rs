//! The language identifier: which of the 24 a text is in, a neighbour of them, or something else.
//!
//! Naive Bayes over the n-grams of words (see [`features`]) with numbers of our own, learned by
//! `cargo run --release -p languages --example train_identifier` and embedded from `data/identifier.bin`. All of a text
//! counts: nothing is sampled, cut off or kept from one text to the next.

mod answer;
mod features;
mod model;
mod scoring;
mod table;

pub use answer::{
    Candidate, Document, Identification, Identifier, Share, identify, identify_document, identify_paragraphs,
};
pub use features::{FeatureKind, feature_kind, features};
pub use model::{
    Entry, LABEL_COUNT, LARGEST_WEIGHT, LabelParameters, Model, NEIGHBOURS, Parameters, label_code,
};
pub use scoring::Scores;
