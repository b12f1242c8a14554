//! The kinds of stages: one table that says what each takes, what can be set, and which crate builds it.
//!
//! Recipes, stage commands and help texts are made from this table; a stage crate knows nothing of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use provenance::record::Segment;
use provenance::{Context, StageOutput};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A kind of stage.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    pub version: u32,
    pub about: &'static str,
    pub example: &'static str,
    /// Artefacts it takes from other stages.
    pub roles: &'static [Role],
    /// Files of the owner it takes.
    pub files: &'static [FileInput],
    /// Every setting with its default.
    pub defaults: fn() -> Value,
    /// Whether settings have the right types.
    pub parse: fn(&Value) -> Result<(), String>,
    /// Whether settings can work together.
    pub check: fn(&Value) -> Result<(), String>,
    pub build: fn(&StageCall<'_>) -> anyhow::Result<Value>,
    /// Whether several processes can make one artefact together.
    pub shared: bool,
    /// Whether its record holds the segments of all it was made from.
    pub carries_ancestors: bool,
    /// Files that do not count for the digest, because times and energy stand in them.
    pub outside_digest: &'static [&'static str],
}

/// A place that another stage's artefact fills.
#[derive(Debug)]
pub struct Role {
    pub name: &'static str,
    pub kinds: &'static [&'static str],
    pub required: bool,
    pub what: &'static str,
}

/// A file, or several, that the owner brings.
#[derive(Debug)]
pub struct FileInput {
    pub key: &'static str,
    pub many: bool,
    pub required: bool,
    pub what: &'static str,
}

/// All that a build receives.
pub struct StageCall<'a> {
    pub settings: &'a Value,
    pub artefacts: &'a BTreeMap<String, PathBuf>,
    pub files: &'a BTreeMap<String, Vec<PathBuf>>,
    pub ancestors: &'a [Segment],
    pub output: &'a StageOutput,
    pub context: &'a Context,
}

impl StageCall<'_> {
    fn artefact(&self, role: &str) -> anyhow::Result<&Path> {
        self.optional_artefact(role).with_context(|| format!("nothing fills the role {role}"))
    }

    fn optional_artefact(&self, role: &str) -> Option<&Path> {
        self.artefacts.get(role).map(PathBuf::as_path)
    }

    fn files(&self, key: &str) -> &[PathBuf] {
        self.files.get(key).map_or(&[], Vec::as_slice)
    }

    fn settings<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        Ok(T::deserialize(self.settings)?)
    }
}

const CORPUS: Role =
    Role { name: "corpus", kinds: &["corpus"], required: true, what: "Folder that a corpus stage made" };
const TOKENIZER: Role = Role {
    name: "tokenizer",
    kinds: &["tokenizer"],
    required: true,
    what: "Folder with tokenizer.json (Hugging Face format)",
};
const MODEL: Role = Role {
    name: "model",
    kinds: &["pretrain"],
    required: true,
    what: "Folder of a model in the Hugging Face layout",
};
const ADAPTER: Role = Role {
    name: "adapter",
    kinds: &["adapt"],
    required: false,
    what: "Folder of an adapter in the PEFT layout",
};

/// All kinds, in the order of a model's life.
pub static KINDS: &[Kind] = &[
    Kind {
        name: "corpus",
        version: corpus::STAGE_VERSION,
        about: "Stage 1: identify, filter, deduplicate, redact and split documents",
        example: "eulalia corpus --documents texts/ --output runs/mine --set 'languages=[\"mt\", \"ga\"]'",
        roles: &[],
        files: &[
            FileInput {
                key: "documents",
                many: true,
                required: true,
                what: "Files, folders or addresses (https://, s3://) of documents: JSONL, text, HTML, WARC, Parquet",
            },
            FileInput {
                key: "opt_outs",
                many: false,
                required: false,
                what: "The ledger of opt-outs (JSONL): sites and documents that must not be used",
            },
            FileInput {
                key: "existing",
                many: true,
                required: false,
                what: "Files or folders of corpora made earlier: what stands there is not taken again",
            },
            FileInput {
                key: "blocked_domains",
                many: false,
                required: false,
                what: "Domains of which nothing is used, one a line",
            },
            FileInput {
                key: "robots",
                many: true,
                required: false,
                what: "robots.txt and tdmrep.json of the sites: folders with <host>/robots.txt, WARC, JSONL",
            },
            FileInput {
                key: "decontaminate",
                many: true,
                required: false,
                what: "Evaluation sets that the corpus must not hold: JSONL, TSV or text, or folders of them",
            },
            FileInput {
                key: "good_texts",
                many: true,
                required: false,
                what: "Texts that you call good: documents are scored by how much they read like them",
            },
            FileInput {
                key: "digest_key",
                many: false,
                required: false,
                what: "A secret file of 32 random bytes or more, for digests of texts dropped for rights",
            },
        ],
        defaults: || {
            let files = [
                "opt_outs",
                "existing",
                "blocked_domains",
                "robots",
                "decontaminate",
                "good_texts",
                "digest_key",
            ];
            files.into_iter().fold(defaults::<corpus::Settings>(), without)
        },
        parse: parse::<corpus::Settings>,
        check: |settings| {
            let settings: corpus::Settings = read(settings)?;
            settings.check().map_err(|error| error.to_string())
        },
        build: |call| {
            let settings = corpus_settings(call.settings, call.files)?;
            report(corpus::build(&settings, call.files("documents"), call.output, call.context)?)
        },
        shared: true,
        carries_ancestors: false,
        outside_digest: &[],
    },
    Kind {
        name: "tokenizer",
        version: tokenizer::STAGE_VERSION,
        about: "Stage 2: train a byte-level BPE vocabulary in which all languages weigh the same",
        example: "eulalia tokenizer --corpus runs/mine/corpus --output runs/mine --set vocabulary_size=4096",
        roles: &[CORPUS],
        files: &[FileInput {
            key: "parallel",
            many: false,
            required: false,
            what: "Folder of parallel sentences (<language>.txt), on which fairness is measured",
        }],
        defaults: defaults::<tokenizer::Settings>,
        parse: parse::<tokenizer::Settings>,
        check: |settings| read::<tokenizer::Settings>(settings)?.check(),
        build: |call| {
            let settings: tokenizer::Settings = call.settings()?;
            let parallel = call.files("parallel").first().map(PathBuf::as_path);
            let corpus = call.artefact("corpus")?;
            report(tokenizer::build(&settings, corpus, parallel, call.output, call.context)?)
        },
        shared: false,
        carries_ancestors: false,
        outside_digest: &[],
    },
    Kind {
        name: "pretrain",
        version: training::STAGE_VERSION,
        about: "Stage 3: train a decoder from nothing",
        example: "eulalia pretrain --corpus runs/mine/corpus --tokenizer runs/mine/tokenizer --output runs/mine",
        roles: &[CORPUS, TOKENIZER],
        files: &[],
        defaults: defaults::<training::Settings>,
        parse: parse::<training::Settings>,
        check: |settings| read::<training::Settings>(settings)?.check().map_err(|error| error.to_string()),
        build: |call| {
            let settings: training::Settings = call.settings()?;
            let (corpus, tokenizer) = (call.artefact("corpus")?, call.artefact("tokenizer")?);
            report(training::build(&settings, corpus, tokenizer, call.output, call.context)?)
        },
        shared: false,
        carries_ancestors: false,
        outside_digest: &[],
    },
    Kind {
        name: "evaluate",
        version: evaluation::STAGE_VERSION,
        about: "Stage 4: bits per byte per language on held-out text, beside two comparisons",
        example: "eulalia evaluate --model runs/mine/pretrain --corpus runs/mine/corpus --output runs/mine",
        roles: &[MODEL, CORPUS, ADAPTER],
        files: &[],
        defaults: defaults::<evaluation::Settings>,
        parse: parse::<evaluation::Settings>,
        check: |settings| read::<evaluation::Settings>(settings)?.check().map_err(|error| error.to_string()),
        build: |call| {
            let settings: evaluation::Settings = call.settings()?;
            let (model, corpus) = (call.artefact("model")?, call.artefact("corpus")?);
            let adapter = call.optional_artefact("adapter");
            report(evaluation::build(&settings, model, adapter, corpus, call.output, call.context)?)
        },
        shared: false,
        carries_ancestors: false,
        outside_digest: &[],
    },
    Kind {
        name: "adapt",
        version: adaptation::STAGE_VERSION,
        about: "Stage 5: tune a model on conversations, as a LoRA adapter",
        example: "eulalia adapt --model runs/mine/pretrain --conversations talks.jsonl --output runs/mine",
        roles: &[MODEL],
        files: &[FileInput {
            key: "conversations",
            many: true,
            required: true,
            what: "Files or folders of conversations (JSONL with \"messages\")",
        }],
        defaults: defaults::<adaptation::Settings>,
        parse: parse::<adaptation::Settings>,
        check: |settings| read::<adaptation::Settings>(settings)?.check().map_err(|error| error.to_string()),
        build: |call| {
            let settings: adaptation::Settings = call.settings()?;
            let model = call.artefact("model")?;
            report(adaptation::build(
                &settings,
                model,
                call.files("conversations"),
                call.output,
                call.context,
            )?)
        },
        shared: false,
        carries_ancestors: false,
        outside_digest: &[],
    },
    Kind {
        name: "release",
        version: release::STAGE_VERSION,
        about: "Stage 6: one folder that stands alone: weights, adapter, texts, record, model card",
        example: "eulalia release --model runs/mine/pretrain --corpus runs/mine/corpus --output runs/mine",
        roles: &[
            MODEL,
            ADAPTER,
            Role {
                name: "evaluation",
                kinds: &["evaluate"],
                required: false,
                what: "Folder that an evaluate stage made for the model",
            },
            Role {
                name: "adapter_evaluation",
                kinds: &["evaluate"],
                required: false,
                what: "Folder that an evaluate stage made for the model with the adapter",
            },
            Role { required: false, ..TOKENIZER },
            Role { required: false, ..CORPUS },
        ],
        files: &[],
        defaults: defaults::<release::Settings>,
        parse: parse::<release::Settings>,
        check: |settings| read::<release::Settings>(settings)?.check(),
        build: |call| {
            let settings: release::Settings = call.settings()?;
            let optional = |role: &str| call.optional_artefact(role).map(Path::to_path_buf);
            let inputs = release::Inputs {
                model: call.artefact("model")?.to_path_buf(),
                adapter: optional("adapter"),
                evaluation: optional("evaluation"),
                adapter_evaluation: optional("adapter_evaluation"),
                tokenizer: optional("tokenizer"),
                corpus: optional("corpus"),
                record: call.ancestors,
            };
            report(release::build(&settings, &inputs, call.output, call.context)?)
        },
        shared: false,
        carries_ancestors: true,
        outside_digest: &[release::CARD_FILE],
    },
];

/// The settings of a corpus stage, with the files that the owner brings.
pub fn corpus_settings(
    settings: &Value,
    files: &BTreeMap<String, Vec<PathBuf>>,
) -> anyhow::Result<corpus::Settings> {
    let files = |key: &str| files.get(key).cloned().unwrap_or_default();
    let file = |key: &str| files(key).into_iter().next();
    Ok(corpus::Settings {
        opt_outs: file("opt_outs"),
        existing: files("existing"),
        blocked_domains: file("blocked_domains"),
        robots: files("robots"),
        decontaminate: files("decontaminate"),
        good_texts: files("good_texts"),
        digest_key: file("digest_key"),
        ..read(settings).map_err(anyhow::Error::msg)?
    })
}

fn defaults<T: Default + Serialize>() -> Value {
    serde_json::to_value(T::default()).unwrap_or_default()
}

fn without(mut settings: Value, key: &str) -> Value {
    if let Value::Object(fields) = &mut settings {
        fields.remove(key);
    }
    settings
}

fn read<T: DeserializeOwned>(settings: &Value) -> Result<T, String> {
    T::deserialize(settings).map_err(|error| error.to_string())
}

fn parse<T: DeserializeOwned>(settings: &Value) -> Result<(), String> {
    read::<T>(settings).map(drop)
}

fn report(report: impl Serialize) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(report)?)
}
