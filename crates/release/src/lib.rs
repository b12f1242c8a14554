//! Stage 6: the bundle that leaves the house.
//!
//! A release is one folder that stands alone: base weights in the Hugging Face layout at its root, the adapter in
//! `adapter/`, the evaluations, the training texts whose licence permits it (and digests of the rest), the record of
//! every stage that led here, and a model card rendered from that record alone.

mod card;
mod settings;
mod texts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use provenance::record::Segment;
use provenance::{Cancelled, Context, StageOutput, Storage, StorageError};
use serde::Serialize;

pub use card::render as render_card;
pub use settings::{Provider, Settings};

pub const STAGE_VERSION: u32 = 1;

/// The model card: rendered from the record, times and energy included, so it does not count for the digest.
pub const CARD_FILE: &str = "README.md";

/// Files of a model that a release takes over; those marked must be there.
const MODEL_FILES: [(&str, bool); 6] = [
    ("config.json", true),
    ("model.safetensors", true),
    ("tokenizer.json", true),
    ("tokenizer_config.json", true),
    ("generation_config.json", false),
    ("training.json", false),
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {problem}")]
    Missing { path: PathBuf, problem: String },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Documents(#[from] documents::Error),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// What a release is made from; only the model is required.
#[derive(Default)]
pub struct Inputs<'a> {
    pub model: PathBuf,
    pub adapter: Option<PathBuf>,
    pub evaluation: Option<PathBuf>,
    pub adapter_evaluation: Option<PathBuf>,
    pub tokenizer: Option<PathBuf>,
    pub corpus: Option<PathBuf>,
    /// The record of everything above, ancestors first.
    pub record: &'a [Segment],
}

/// What the release holds.
#[derive(Debug, Serialize)]
pub struct Report {
    pub files: usize,
    pub bytes: u64,
    pub texts: texts::Counts,
}

/// Builds the release in `output.payload`.
pub fn build(
    settings: &Settings,
    inputs: &Inputs<'_>,
    output: &StageOutput,
    context: &Context,
) -> Result<Report, Error> {
    let payload = &output.payload;
    let mut copier = Copier { storage: &context.storage, files: 0, bytes: 0 };
    context.progress.begin("assembling the release", None, "files");
    for (name, required) in MODEL_FILES {
        let from = inputs.model.join(name);
        if from.exists() {
            copier.copy(&from, &payload.join(name))?;
            context.progress.advance(1);
        } else if required {
            return Err(Error::Missing {
                path: from,
                problem: "is missing; a release needs a model in the Hugging Face layout".into(),
            });
        }
        context.cancellation.check()?;
    }
    let folders: [(&Option<PathBuf>, &str, &[&str]); 4] = [
        (
            &inputs.adapter,
            "adapter",
            &["adapter_config.json", "adapter_model.safetensors", "adaptation.json"],
        ),
        (&inputs.evaluation, "evaluation", &["results.json", "results.md"]),
        (&inputs.adapter_evaluation, "adapter/evaluation", &["results.json", "results.md"]),
        (&inputs.tokenizer, "tokenizer", &["fairness.json", "fairness.md"]),
    ];
    for (folder, name, files) in folders {
        let Some(folder) = folder else { continue };
        for file in files {
            let from = folder.join(file);
            if from.exists() {
                context.storage.create_folder(&payload.join(name))?;
                copier.copy(&from, &payload.join(name).join(file))?;
                context.progress.advance(1);
            }
        }
    }
    let texts = match &inputs.corpus {
        Some(corpus) => texts::bundle(settings, corpus, &payload.join("corpus"), context)?,
        None => texts::Counts::default(),
    };
    let card = card::render(settings, inputs.record);
    context.storage.write(&payload.join(CARD_FILE), card.as_bytes())?;
    context.progress.end();
    Ok(Report { files: copier.files, bytes: copier.bytes, texts })
}

struct Copier<'a> {
    storage: &'a Storage,
    files: usize,
    bytes: u64,
}

impl Copier<'_> {
    fn copy(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        use std::io::Read;
        let read = |source| Error::Read { path: from.to_path_buf(), source };
        let mut source = std::fs::File::open(from).map_err(read)?;
        let mut target = self.storage.create(to)?;
        let mut block = vec![0u8; 1 << 20];
        loop {
            let length = source.read(&mut block).map_err(read)?;
            if length == 0 {
                break;
            }
            target.write_bytes(&block[..length])?;
            self.bytes += length as u64;
        }
        target.finish()?;
        self.files += 1;
        Ok(())
    }
}

/// The counts and circumstances that a stage recorded, by the kind of stage; the last of several.
fn recorded<'a>(record: &'a [Segment], stage: &str) -> Option<&'a Segment> {
    record.iter().rev().find(|segment| {
        let first = segment.lines().first();
        first.and_then(|line| line.fields.get("stage")).and_then(serde_json::Value::as_str) == Some(stage)
    })
}

/// The languages of a release by the corpus that its record names: code → documents.
fn languages(record: &[Segment]) -> BTreeMap<String, serde_json::Value> {
    let counts = recorded(record, "corpus")
        .and_then(|segment| segment.event("finished"))
        .and_then(|line| line.fields.get("counts"))
        .and_then(|counts| counts.get("languages"))
        .and_then(serde_json::Value::as_object);
    counts
        .map(|languages| languages.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
        .unwrap_or_default()
}
