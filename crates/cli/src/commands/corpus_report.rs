//! `eulalia corpus report`: what is in a corpus, as one HTML page.

use std::path::PathBuf;

use serde_json::{Value, json};
use survey::{Survey, page};

use crate::arguments::CorpusReportArguments;
use crate::run::World;

pub fn corpus_report(arguments: &CorpusReportArguments, world: &World) -> anyhow::Result<Value> {
    let output = arguments.output.clone().unwrap_or_else(|| PathBuf::from("corpus.html"));
    let survey = Survey::of(&arguments.folder, arguments.samples, &world.context())?;
    let name = arguments.folder.file_name().map_or_else(|| "corpus".into(), |name| name.to_string_lossy());
    let page = page(&survey, &name);
    world.storage.replace(&output, page.as_bytes())?;
    world.console.say(&output.display().to_string());
    Ok(json!({ "output": output.display().to_string(), "bytes": page.len(), "languages": survey.kept.len() }))
}
