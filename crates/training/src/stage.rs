//! The stage itself: settings → texts → batches → steps → artefact.

use crate::batches::Batches;
use crate::checkpoint::Checkpoints;
use crate::error::Error;
use crate::heldout::HeldOut;
use crate::journal::Journal;
use crate::metrics::{Metrics, Yardstick};
use crate::report::{Report, operations_per_token};
use crate::run::{BEFORE_DECAY, Run};
use crate::settings::Settings;
use crate::state::State;
use crate::texts::Texts;
use compute::Device;
use model::{Decoder, ModelConfig, ParameterTable, write_safetensors};
use provenance::{Context, Digest, StageOutput};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;
use tokenizer::Tokenizer;

/// Raised whenever the same inputs and settings give other bytes than before.
pub const STAGE_VERSION: u32 = 3;

/// Trains a model on `train/<language>.jsonl.zst` of a corpus and writes it in the Hugging Face layout.
///
/// Checkpoints stand in `output.scratch`; a run that was stopped or killed goes on from the newest and ends with the bytes
/// of one that was not.
///
/// # Errors
/// Bad settings before the first step; damaged inputs; a loss that is no number; storage; cancellation.
pub fn build(
    settings: &Settings,
    corpus_folder: &Path,
    tokenizer_folder: &Path,
    output: &StageOutput,
    context: &Context,
) -> Result<Report, Error> {
    settings.check()?;
    let tokenizer = Tokenizer::load(tokenizer_folder)?.remembering_words();
    let separator = tokenizer
        .separator_id()
        .ok_or_else(|| Error::Settings("the tokenizer has no token that stands between documents".into()))?;
    if ![0, tokenizer.vocabulary_size()].contains(&settings.vocabulary_size) {
        return Err(Error::Settings(format!(
            "vocabulary_size = {}, but the tokenizer in {} has {} entries; state that number, or 0 to take what it has",
            settings.vocabulary_size,
            tokenizer_folder.display(),
            tokenizer.vocabulary_size()
        )));
    }
    let config = ModelConfig {
        padding: tokenizer.padding_id(),
        ..settings.shape(tokenizer.vocabulary_size(), Some(separator))
    };
    let decoder = Decoder::new(&config, settings.sequence_length)?.with_routers(settings.routers());
    let texts = Texts::read(corpus_folder, &tokenizer, separator, context)?;
    let heldout = HeldOut::read(corpus_folder, &tokenizer, separator, settings, context)?;
    let fingerprint = fingerprint(settings, &config, &texts);
    let batches = Batches::new(texts, settings)?;
    say_what_was_cut(settings, &batches, context);

    let device = Device::cpu(context.threads)?;
    let checkpoints =
        Checkpoints::new(&output.scratch, fingerprint, &device, context).retaining(settings.checkpoints_kept);
    let fresh_state = || {
        State::new(&device, decoder.table().initial_values(settings.seed))
            .with_moments(&device, settings.moments.format())
    };
    let fresh = || (fresh_state(), Journal::default());
    let (mut state, mut journal) = resume(settings, &checkpoints, context)?.unwrap_or_else(fresh);
    say_where_it_begins(&checkpoints, state.step, context);
    let operations = settings.batch_tokens as f64 * operations_per_token(&decoder, settings.sequence_length);
    let yardstick =
        Yardstick::new(settings.batch_tokens, operations, settings.steps - state.step, context.threads)?;
    let mut metrics = Metrics::resume(output, state.step, yardstick, context)?;
    let run = Run {
        settings,
        device: &device,
        decoder: &decoder,
        batches: &batches,
        heldout: &heldout,
        checkpoints: &checkpoints,
        context,
    };
    run.train(&mut state, &mut journal, &mut metrics)?;

    let report = Report::new(settings, &decoder, &batches, &state, &journal);
    let model =
        FinishedModel { config: &config, table: decoder.table(), tokenizer: &tokenizer, tokenizer_folder };
    let values = state.average.as_ref().unwrap_or(&state.parameters);
    model.write(&device.lend(values.at(..)), &output.payload, context)?;
    if settings.keep_before_decay
        && let Some(before) = checkpoints.named(BEFORE_DECAY)
    {
        let folder = output.payload.join(BEFORE_DECAY);
        context.storage.create_folder(&folder)?;
        model.write(&device.lend(before.parameters.at(..)), &folder, context)?;
    }
    write_curves(&report, &state, &journal, output, context)?;
    metrics.finish(output)?;
    Ok(report)
}

/// The newest checkpoint that the run can go on from.
fn resume(
    settings: &Settings,
    checkpoints: &Checkpoints,
    context: &Context,
) -> Result<Option<(State, Journal)>, Error> {
    let Some((state, notes)) = checkpoints.newest_with_notes()? else { return Ok(None) };
    let Some(journal) = Journal::from_bytes(&notes).filter(|_| state.step <= settings.steps) else {
        return Ok(None);
    };
    let kept = !settings.keep_before_decay
        || settings.schedule().decay_start().is_none_or(|start| state.step < start)
        || checkpoints.named(BEFORE_DECAY).is_some();
    if !kept {
        context.progress.warn("the state before the decay, which keep_before_decay asks for, is not there any more: the run starts anew");
        return Ok(None);
    }
    Ok(Some((state, journal)))
}

/// A run that was begun before says from where it goes on.
fn say_where_it_begins(checkpoints: &Checkpoints, step: u64, context: &Context) {
    match (step, checkpoints.newest_path()) {
        (0, None) => {}
        (0, Some(_)) => {
            context.progress.warn("no checkpoint can be gone on from: the run begins again at step 1")
        }
        (step, _) => context.progress.say(&format!("going on from the checkpoint of step {step}")),
    }
}

fn say_what_was_cut(settings: &Settings, batches: &Batches, context: &Context) {
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    let cuts: Vec<String> = batches
        .cuts()
        .iter()
        .map(|cut| {
            let source = cut.source.as_ref().map_or(String::new(), |source| format!(" of {source}"));
            format!(
                "{}{source} {} instead of {}",
                cut.language,
                percent(cut.share),
                percent(cut.wanted_share)
            )
        })
        .collect();
    if !cuts.is_empty() {
        let epochs = settings.maximum_epochs;
        context.progress.warn(&format!("maximum_epochs = {epochs} cuts shares: {}", cuts.join(", ")));
    }
}

/// What a run's state depends on besides its step.
fn fingerprint(settings: &Settings, config: &ModelConfig, texts: &Texts) -> Digest {
    let mut hash = provenance::digest::Sha256Writer::new(std::io::sink());
    let mut add = |bytes: &[u8]| hash.write_all(bytes).expect("a sink takes everything");
    add(format!("pretrain {STAGE_VERSION}\n").as_bytes());
    add(&serde_json::to_vec(settings).expect("plain settings"));
    add(config.to_json().as_bytes());
    for language in &texts.languages {
        add(format!("{} {}\n", language.language, language.documents()).as_bytes());
        for document in 0..language.documents() {
            let tokens = language.document(document);
            add(&(tokens.len() as u64).to_le_bytes());
            tokens.iter().for_each(|token| add(&token.to_le_bytes()));
        }
    }
    hash.into_parts().1
}

/// What a model's folder holds besides the weights.
struct FinishedModel<'a> {
    config: &'a ModelConfig,
    table: &'a ParameterTable,
    tokenizer: &'a Tokenizer,
    tokenizer_folder: &'a Path,
}

impl FinishedModel<'_> {
    /// Writes the Hugging Face layout.
    fn write(&self, values: &[f32], folder: &Path, context: &Context) -> Result<(), Error> {
        let storage = &context.storage;
        storage.write(&folder.join("config.json"), self.config.to_json().as_bytes())?;
        // A conversation's turn ends with its own token; generation stops there too.
        let turn_end = self.tokenizer.special_id(tokenizer::SPECIAL_TOKENS[2]);
        let end_tokens = self.config.end_tokens.iter().copied().chain(turn_end).collect();
        let generation = ModelConfig { end_tokens, ..self.config.clone() }.generation_json();
        storage.write(&folder.join("generation_config.json"), generation.as_bytes())?;
        let path = folder.join("model.safetensors");
        let failed = |source| Error::Write { path: path.clone(), source };
        let mut writer = BufWriter::with_capacity(1 << 18, storage.create(&path)?);
        write_safetensors(&mut writer, self.table, values).map_err(failed)?;
        writer.into_inner().map_err(|error| failed(error.into_error()))?.finish()?;
        for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
            let from = self.tokenizer_folder.join(name);
            if from.exists() {
                let bytes = std::fs::read(&from).map_err(|source| Error::Read { path: from, source })?;
                storage.write(&folder.join(name), &bytes)?;
            }
        }
        Ok(())
    }
}

fn write_curves(
    report: &Report,
    state: &State,
    journal: &Journal,
    output: &StageOutput,
    context: &Context,
) -> Result<(), Error> {
    let mut curve = serde_json::json!({ "report": report, "loss_nats_per_token": state.losses });
    if !journal.heldout.is_empty() {
        let points = journal.heldout.iter().map(|point| {
            let bits: BTreeMap<&String, f64> =
                point.bits_per_byte.iter().map(|(code, bits)| (code, bits.0)).collect();
            serde_json::json!({ "step": point.step, "bits_per_byte": bits })
        });
        curve["heldout"] = points.collect();
    }
    let mut text = serde_json::to_string_pretty(&curve).expect("plain numbers");
    text.push('\n');
    context.storage.write(&output.payload.join("training.json"), text.as_bytes())?;
    Ok(())
}
