//! The stage itself: settings → texts → batches → steps → artefact.

use crate::batches::Batches;
use crate::checkpoint::{Checkpoints, State};
use crate::error::Error;
use crate::report::Report;
use crate::settings::Settings;
use crate::texts::Texts;
use crate::trainer::{Optimiser, StepOutcome, Subject, Trainer};
use model::{Decoder, DropoutPlan, ModelConfig, ParameterTable, write_safetensors};
use provenance::{Context, Digest, StageOutput};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::SystemTime;
use tokenizer::Tokenizer;

/// Raised whenever the same inputs and settings give other bytes than before.
pub const STAGE_VERSION: u32 = 1;

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
    let tokenizer = Tokenizer::load(tokenizer_folder)?;
    let separator = tokenizer
        .separator_id()
        .ok_or_else(|| Error::Settings("the tokenizer has no token that stands between documents".into()))?;
    let config = ModelConfig {
        padding: tokenizer.padding_id(),
        ..settings.shape(tokenizer.vocabulary_size(), Some(separator))
    };
    let decoder = Decoder::new(&config, settings.sequence_length)?;
    let texts = Texts::read(corpus_folder, &tokenizer, separator, context)?;
    let fingerprint = fingerprint(settings, &config, &texts);
    let batches = Batches::new(texts, settings)?;
    say_what_was_cut(settings, &batches, context);

    let checkpoints = Checkpoints::new(&output.scratch, fingerprint, context);
    let fresh = || State::new(decoder.table().initial_values(settings.seed));
    let mut state = checkpoints.newest()?.filter(|state| state.step <= settings.steps).unwrap_or_else(fresh);
    let mut metrics = Metrics::new(context, settings.batch_tokens);
    train(settings, &decoder, &batches, &mut state, &checkpoints, &mut metrics, context)?;

    let report = Report::new(settings, &decoder, &batches, &state);
    write_model(&config, decoder.table(), &state.parameters, &tokenizer, output, context)?;
    copy_tokenizer(tokenizer_folder, output, context)?;
    write_curves(&report, &state, metrics, output, context)?;
    Ok(report)
}

fn train(
    settings: &Settings,
    decoder: &Decoder,
    batches: &Batches,
    state: &mut State,
    checkpoints: &Checkpoints,
    metrics: &mut Metrics,
    context: &Context,
) -> Result<(), Error> {
    let optimiser = Optimiser {
        kind: settings.optimizer,
        weight_decay: settings.weight_decay,
        beta_1: settings.beta_1,
        beta_2: settings.beta_2,
        epsilon: settings.epsilon,
        clip_norm: settings.clip_norm,
    };
    let micro_tokens = settings.micro_sequences() * settings.sequence_length;
    let slots = settings.gradient_slots;
    let mut trainer =
        Trainer::new(decoder.clone(), Subject::Model, optimiser, slots, micro_tokens, context.threads)?;
    let schedule = settings.schedule();
    context.progress.begin("training", Some(settings.steps), "steps");
    context.progress.advance(state.step);
    while state.step < settings.steps {
        if context.cancellation.is_cancelled() {
            checkpoints.write(state)?;
            context.cancellation.check()?;
        }
        let step = state.step;
        let dropout = (settings.dropout > 0.0).then_some(DropoutPlan {
            probability: settings.dropout as f32,
            seed: settings.seed,
            step,
        });
        let learning_rate = schedule.learning_rate(step);
        let outcome = trainer.step(state, &batches.step(step), dropout, learning_rate)?;
        if state.step == step {
            return Err(diverged(step, outcome, checkpoints));
        }
        metrics.add(step, outcome, learning_rate);
        context.progress.advance(1);
        if state.step.is_multiple_of(10) {
            context.progress.note(&metrics.status());
        }
        if state.step.is_multiple_of(settings.checkpoint_every) || state.step == settings.steps {
            checkpoints.write(state)?;
        }
    }
    context.progress.end();
    Ok(())
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

fn diverged(step: u64, outcome: StepOutcome, checkpoints: &Checkpoints) -> Error {
    let last_good = match checkpoints.newest_path() {
        Some(path) => format!("The last good checkpoint is {}.", path.display()),
        None => "There is no checkpoint before it.".into(),
    };
    let what = if outcome.loss.is_finite() { "gradient" } else { "loss" };
    Error::Diverged { step: step + 1, what, last_good }
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

fn write_model(
    config: &ModelConfig,
    table: &ParameterTable,
    values: &[f32],
    tokenizer: &Tokenizer,
    output: &StageOutput,
    context: &Context,
) -> Result<(), Error> {
    let storage = &context.storage;
    storage.write(&output.payload.join("config.json"), config.to_json().as_bytes())?;
    // A conversation's turn ends with its own token; generation stops there too.
    let turn_end = tokenizer.special_id(tokenizer::SPECIAL_TOKENS[2]);
    let end_tokens = config.end_tokens.iter().copied().chain(turn_end).collect();
    let generation = ModelConfig { end_tokens, ..config.clone() }.generation_json();
    storage.write(&output.payload.join("generation_config.json"), generation.as_bytes())?;
    let path = output.payload.join("model.safetensors");
    let failed = |source| Error::Write { path: path.clone(), source };
    let mut writer = BufWriter::with_capacity(1 << 18, storage.create(&path)?);
    write_safetensors(&mut writer, table, values).map_err(failed)?;
    writer.into_inner().map_err(|error| failed(error.into_error()))?.finish()?;
    Ok(())
}

fn copy_tokenizer(tokenizer_folder: &Path, output: &StageOutput, context: &Context) -> Result<(), Error> {
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        let from = tokenizer_folder.join(name);
        if from.exists() {
            let bytes = std::fs::read(&from).map_err(|source| Error::Read { path: from, source })?;
            context.storage.write(&output.payload.join(name), &bytes)?;
        }
    }
    Ok(())
}

fn write_curves(
    report: &Report,
    state: &State,
    metrics: Metrics,
    output: &StageOutput,
    context: &Context,
) -> Result<(), Error> {
    let curve = serde_json::json!({ "report": report, "loss_nats_per_token": state.losses });
    let mut text = serde_json::to_string_pretty(&curve).expect("plain numbers");
    text.push('\n');
    context.storage.write(&output.payload.join("training.json"), text.as_bytes())?;
    let folder = output.payload.join("circumstances");
    context.storage.create_folder(&folder)?;
    context.storage.write(&folder.join("metrics.jsonl"), metrics.lines.as_bytes())?;
    Ok(())
}

/// What a person watches: it has clocks in it and belongs to the circumstances.
struct Metrics<'a> {
    context: &'a Context,
    batch_tokens: usize,
    began: SystemTime,
    steps: u64,
    last: Option<StepOutcome>,
    lines: String,
}

impl<'a> Metrics<'a> {
    fn new(context: &'a Context, batch_tokens: usize) -> Metrics<'a> {
        Metrics {
            context,
            batch_tokens,
            began: context.clock.now(),
            steps: 0,
            last: None,
            lines: String::new(),
        }
    }

    fn add(&mut self, step: u64, outcome: StepOutcome, learning_rate: f64) {
        self.steps += 1;
        self.last = Some(outcome);
        let line = serde_json::json!({
            "step": step + 1,
            "loss": outcome.loss,
            "gradient_norm": outcome.gradient_norm,
            "learning_rate": learning_rate,
            "tokens_per_second": self.tokens_per_second().round(),
        });
        self.lines.push_str(&line.to_string());
        self.lines.push('\n');
    }

    fn tokens_per_second(&self) -> f64 {
        let seconds =
            self.context.clock.now().duration_since(self.began).map_or(0.0, |time| time.as_secs_f64());
        if seconds > 0.0 { (self.steps * self.batch_tokens as u64) as f64 / seconds } else { 0.0 }
    }

    fn status(&self) -> String {
        let loss = self.last.map_or(f64::NAN, |outcome| outcome.loss);
        format!("loss {loss:.3}, {:.0} tokens/s", self.tokens_per_second())
    }
}
