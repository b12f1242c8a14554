//! What the operator says of an engine that runs elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::connection::Target;
use crate::error::ServingError;

/// One engine with an OpenAI-compatible interface: vLLM, llama-server and the like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    /// What logs and metrics call it.
    pub name: String,
    /// Where its interface begins, such as `https://gpu1.example:8000/v1`.
    pub url: String,
    /// The name that our clients give, and the one that the engine knows. Several upstreams may have the same name.
    pub models: BTreeMap<String, String>,
    /// A file with the key for this engine, and nothing else. Clients' own keys never go there.
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// Certificates in PEM that the engine's own must lead to; without it those that the operating system trusts.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Keys and prompts in the clear to another machine.
    #[serde(default)]
    pub allow_plain_http: bool,
    /// Folders with `tokenizer.json` by our model name: they count usage that the engine does not report.
    #[serde(default)]
    pub tokenizers: BTreeMap<String, PathBuf>,
    /// For a connection with its TLS handshake.
    #[serde(default = "seconds::<5>")]
    pub connect_seconds: u64,
    /// From a request for a stream to the head of its answer.
    #[serde(default = "seconds::<60>")]
    pub first_byte_seconds: u64,
    /// Between two pieces of an answer.
    #[serde(default = "seconds::<60>")]
    pub idle_seconds: u64,
    /// How long a connection is kept for the next request: less than the engine keeps it (vLLM: 5 seconds), so that none
    /// is closed under a request.
    #[serde(default = "seconds::<4>")]
    pub keep_seconds: u64,
    /// Asked regularly; without the path of `url`. Any answer of 200 to 299 is health.
    #[serde(default = "health_path")]
    pub health_path: String,
    #[serde(default = "seconds::<10>")]
    pub health_seconds: u64,
    /// Requests at once; further ones go to another upstream or are refused with 429.
    #[serde(default = "count::<64>")]
    pub maximum_concurrency: usize,
    /// Share of the requests, beside other upstreams with the same model and priority.
    #[serde(default = "count::<1>")]
    pub weight: usize,
    /// Upstreams with a higher number are asked only while none with a lower one can be.
    #[serde(default)]
    pub priority: u32,
    /// Failures in a row after which no requests are sent for a while.
    #[serde(default = "count::<5>")]
    pub failures: usize,
    /// How long that is; then one request tries.
    #[serde(default = "seconds::<10>")]
    pub rest_seconds: u64,
    /// Largest answer, in bytes; of a stream the largest event, and the most text of all events.
    #[serde(default = "count::<{ 16 << 20 }>")]
    pub answer_limit_bytes: usize,
}

fn seconds<const N: u64>() -> u64 {
    N
}

fn count<const N: usize>() -> usize {
    N
}

fn health_path() -> String {
    "/health".to_string()
}

impl UpstreamSettings {
    /// Settings with every default.
    pub fn new(name: &str, url: &str) -> UpstreamSettings {
        UpstreamSettings {
            name: name.to_string(),
            url: url.to_string(),
            models: BTreeMap::new(),
            api_key_file: None,
            ca: None,
            allow_plain_http: false,
            tokenizers: BTreeMap::new(),
            connect_seconds: 5,
            first_byte_seconds: 60,
            idle_seconds: 60,
            keep_seconds: 4,
            health_path: health_path(),
            health_seconds: 10,
            maximum_concurrency: 64,
            weight: 1,
            priority: 0,
            failures: 5,
            rest_seconds: 10,
            answer_limit_bytes: 16 << 20,
        }
    }

    /// Paths start at the folder of the settings.
    pub(crate) fn resolve(&mut self, folder: &Path) {
        let paths = [&mut self.api_key_file, &mut self.ca].into_iter().flatten();
        for path in paths.chain(self.tokenizers.values_mut()) {
            *path = folder.join(&*path);
        }
    }

    /// Refuses what cannot work, naming upstream and setting.
    pub(crate) fn check(&self) -> Result<(), ServingError> {
        let wrong = |key: &str, expected: &str, found: String| ServingError::Upstream {
            name: self.name.clone(),
            problem: format!("`{key}`: expected {expected}, found {found}"),
        };
        let is_name = |name: &str| {
            !name.is_empty() && name.len() <= 100 && !name.chars().any(|character| character.is_control())
        };
        if !is_name(&self.name) {
            return Err(wrong("name", "1 to 100 characters", format!("{:?}", self.name)));
        }
        if self.models.is_empty() {
            return Err(wrong(
                "models",
                "at least one name, as in { \"our name\" = \"its name\" }",
                "none".into(),
            ));
        }
        if let Some(name) = self.models.keys().find(|name| !is_name(name)) {
            return Err(wrong("models", "names of 1 to 100 characters", format!("{name:?}")));
        }
        if let Some(name) = self.tokenizers.keys().find(|name| !self.models.contains_key(*name)) {
            return Err(wrong("tokenizers", "names that stand in `models`", format!("{name:?}")));
        }
        if !self.health_path.starts_with('/') {
            return Err(wrong("health_path", "a path from `/` on", format!("{:?}", self.health_path)));
        }
        let numbers = [
            ("connect_seconds", self.connect_seconds),
            ("first_byte_seconds", self.first_byte_seconds),
            ("idle_seconds", self.idle_seconds),
            ("health_seconds", self.health_seconds),
            ("rest_seconds", self.rest_seconds),
            ("maximum_concurrency", self.maximum_concurrency as u64),
            ("weight", self.weight as u64),
            ("failures", self.failures as u64),
            ("answer_limit_bytes", self.answer_limit_bytes as u64),
        ];
        match numbers.into_iter().find(|(_, number)| *number == 0) {
            Some((key, _)) => Err(wrong(key, "at least 1", "0".into())),
            None => Ok(()),
        }
    }

    /// How it is reached.
    pub(super) fn target(&self) -> Target<'_> {
        Target {
            url: &self.url,
            ca: self.ca.as_deref(),
            allow_plain_http: self.allow_plain_http,
            connect_time: self.connect_time(),
            keep: Duration::from_secs(self.keep_seconds),
        }
    }

    pub(crate) fn connect_time(&self) -> Duration {
        Duration::from_secs(self.connect_seconds)
    }

    pub(crate) fn first_byte_time(&self) -> Duration {
        Duration::from_secs(self.first_byte_seconds)
    }

    pub(crate) fn idle_time(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }
}
