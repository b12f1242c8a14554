//! What can be wrong with the settings of filters.

use std::path::PathBuf;

/// Why a chain cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("filter `{name}`, `{key}`: expected {expected}, found {found}")]
    Setting { name: String, key: &'static str, expected: String, found: String },
    #[error("filter `{name}`, `{key}`, pattern {pattern:?}: {problem}")]
    Pattern { name: String, key: &'static str, pattern: String, problem: String },
    #[error("filter name `{name}` is given twice in `{place}`; names must differ")]
    NameTwice { name: String, place: String },
    #[error("chain `{chain}`: `without` names `{name}`, but there is no filter of that name")]
    NoSuchFilter { chain: String, name: String },
    #[error("passages file {path}: {problem}")]
    Passages { path: PathBuf, problem: String },
}
