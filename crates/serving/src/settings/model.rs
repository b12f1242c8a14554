//! A model to load.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the operator says of one model; what is left out is as on the command line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// The name that clients give; without one, the release's or folder's own.
    #[serde(default)]
    pub name: Option<String>,
    /// A release, a model in the Hugging Face layout or a GGUF file.
    pub path: PathBuf,
    /// Numbers that weights are kept in, such as `q8_0`.
    #[serde(default)]
    pub weights: Option<String>,
    /// Numbers that keys and values are kept in, such as `bf16`.
    #[serde(default)]
    pub kv_cache: Option<String>,
    /// For weights and caches, in MiB.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Tokens guessed ahead.
    #[serde(default)]
    pub speculation: Option<usize>,
    /// Whether what prompts of a tenant have in common is computed once.
    #[serde(default)]
    pub prefix_cache: Option<bool>,
    /// Load it even if its release does not verify.
    #[serde(default)]
    pub allow_unverified: bool,
    /// Where its signature lies; without it, `model.sig` in a folder and `<file>.sig` beside a file.
    #[serde(default)]
    pub signature: Option<PathBuf>,
    /// The public key that must have signed it, in the place of the trusted keys of the server.
    #[serde(default)]
    pub public_key: Option<PathBuf>,
    /// Load it even if no trusted key signed it.
    #[serde(default)]
    pub allow_unsigned: bool,
}

impl ModelSettings {
    /// Every path of these settings.
    pub(crate) fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.path].into_iter().chain(&mut self.signature).chain(&mut self.public_key)
    }
}
