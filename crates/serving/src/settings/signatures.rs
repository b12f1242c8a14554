//! Whose signatures the models of a server must carry.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// With any key named, a model that none of them signed is refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignatureSettings {
    /// Public keys in PEM. Without any, an unsigned model is taken because the operator named it; an altered one never.
    pub trusted_keys: Vec<PathBuf>,
}
