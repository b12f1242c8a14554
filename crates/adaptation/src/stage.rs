//! The stage itself: settings → conversations → steps → adapter.

use crate::conversations::{Conversation, read_conversations};
use crate::error::Error;
use crate::plan::Plan;
use crate::settings::Settings;
use compute::Device;
use model::{Adapter, Decoder, ModelConfig, NO_TARGET, load_parameters, write_safetensors};
use provenance::digest::{Sha256Writer, sha256_file};
use provenance::{Context, Digest, StageOutput};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tokenizer::Tokenizer;
use training::{Checkpoints, Optimiser, State, StepControl, Subject, Trainer};

/// Raised whenever the same inputs and settings give other bytes than before.
pub const STAGE_VERSION: u32 = 2;

/// What the stage made, for the manifest. Nothing in it depends on the machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Steps done.
    pub steps: u64,
    /// Parameters of the adapter.
    pub parameters: usize,
    /// Conversations learned from, by language.
    pub conversations: BTreeMap<String, u64>,
    /// Conversations without an answer within the longest length.
    pub without_answer: u64,
    /// Tokens of all conversations.
    pub tokens: u64,
    /// Tokens of answers: those that are learned.
    pub answer_tokens: u64,
    /// How often the conversations were gone through.
    pub epochs: f64,
    /// Mean loss of the first five steps, nats per answer token.
    pub first_loss: f64,
    /// Mean loss of the last five steps, nats per answer token.
    pub last_loss: f64,
}

/// Tunes an adapter of the model in `model_folder` (with its tokenizer) on conversations and writes it as `peft` does.
///
/// # Errors
/// Bad settings or conversations before the first step; a loss that is no number; storage; cancellation.
pub fn build(
    settings: &Settings,
    model_folder: &Path,
    conversations: &[PathBuf],
    output: &StageOutput,
    context: &Context,
) -> Result<Report, Error> {
    settings.check()?;
    let config = ModelConfig::load(&model_folder.join("config.json"))?;
    let tokenizer = Tokenizer::load(model_folder)?;
    if tokenizer.vocabulary_size() > config.vocabulary_size {
        return Err(Error::Settings(format!(
            "the tokenizer has {} entries, the model {}: they do not belong together",
            tokenizer.vocabulary_size(),
            config.vocabulary_size
        )));
    }
    let adapter = Adapter::new(&config, settings.adapter()?, settings.seed)?;
    let longest = settings.maximum_length.min(config.maximum_positions);
    let (examples, without_answer) = read_conversations(conversations, &tokenizer, longest)?;
    if examples.is_empty() {
        return Err(Error::Nothing { paths: conversations.to_vec() });
    }
    let fingerprint = fingerprint(settings, model_folder, &examples)?;
    let plan = Plan::new(&examples, settings.steps, settings.batch_tokens, settings.seed);
    let device = Device::cpu(context.threads).map_err(training::Error::from)?;
    let checkpoints = Checkpoints::new(&output.scratch, fingerprint, &device, context);
    let mut state = checkpoints
        .newest()?
        .filter(|state| state.step <= settings.steps)
        .unwrap_or_else(|| State::new(&device, adapter.values.clone()));
    let parameters = device.upload(load_parameters(&config, model_folder)?);
    let decoder = Decoder::new(&config, longest)?;
    let subject = Subject::Adapter { parameters, adapter: Box::new(adapter.clone()) };
    tune(settings, &device, decoder, subject, &plan, &examples, &mut state, &checkpoints, context)?;

    let report = report(settings, &adapter, &examples, without_answer, &plan, &state);
    write(&adapter, &report, &state, &device, output, context)?;
    Ok(report)
}

#[allow(clippy::too_many_arguments)]
fn tune(
    settings: &Settings,
    device: &Device,
    decoder: Decoder,
    subject: Subject,
    plan: &Plan,
    examples: &[Conversation],
    state: &mut State,
    checkpoints: &Checkpoints,
    context: &Context,
) -> Result<(), Error> {
    let optimiser = Optimiser {
        kind: training::OptimiserKind::AdamW,
        weight_decay: settings.weight_decay,
        beta_1: 0.9,
        beta_2: 0.999,
        epsilon: 1e-8,
        clip_norm: settings.clip_norm,
    };
    let micro_tokens = Plan::micro_tokens(examples);
    let mut trainer = Trainer::new(device, decoder, subject, optimiser, micro_tokens, false);
    let schedule = settings.schedule();
    context.progress.begin("tuning", Some(settings.steps), "steps");
    context.progress.advance(state.step);
    while state.step < settings.steps {
        if context.cancellation.is_cancelled() {
            checkpoints.write(state)?;
            context.cancellation.check()?;
        }
        let step = state.step;
        let control = StepControl::new(schedule.learning_rate(step));
        let outcome = trainer.step(state, &plan.step(step, examples), control)?;
        if !outcome.applied {
            return Err(Error::Diverged { step: step + 1 });
        }
        context.progress.advance(1);
        context.progress.note(&format!("loss {:.3}", outcome.loss));
        if state.step.is_multiple_of(settings.checkpoint_every) || state.step == settings.steps {
            checkpoints.write(state)?;
        }
    }
    context.progress.end();
    Ok(())
}

fn fingerprint(settings: &Settings, model_folder: &Path, examples: &[Conversation]) -> Result<Digest, Error> {
    let mut hash = Sha256Writer::new(std::io::sink());
    let mut add = |bytes: &[u8]| hash.write_all(bytes).expect("a sink takes everything");
    add(format!("adapt {STAGE_VERSION}\n").as_bytes());
    add(&serde_json::to_vec(settings).expect("plain settings"));
    for name in ["config.json", "model.safetensors", "model.safetensors.index.json"] {
        let path = model_folder.join(name);
        if path.exists() {
            let digest = sha256_file(&path).map_err(|source| Error::Read { path, source })?;
            add(&digest.0);
        }
    }
    for example in examples {
        add(&(example.tokens.len() as u64).to_le_bytes());
        example.tokens.iter().chain(&example.targets).for_each(|token| add(&token.to_le_bytes()));
    }
    Ok(hash.into_parts().1)
}

fn report(
    settings: &Settings,
    adapter: &Adapter,
    examples: &[Conversation],
    without_answer: u64,
    plan: &Plan,
    state: &State,
) -> Report {
    let mut conversations = BTreeMap::new();
    for example in examples {
        *conversations.entry(example.language.clone()).or_insert(0) += 1;
    }
    let answers =
        |example: &Conversation| example.targets.iter().filter(|target| **target != NO_TARGET).count() as u64;
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len().max(1) as f64;
    Report {
        steps: settings.steps,
        parameters: adapter.values.len(),
        conversations,
        without_answer,
        tokens: examples.iter().map(|example| example.tokens.len() as u64).sum(),
        answer_tokens: examples.iter().map(answers).sum(),
        epochs: plan.epochs,
        first_loss: mean(&state.losses[..state.losses.len().min(5)]),
        last_loss: mean(&state.losses[state.losses.len().saturating_sub(5)..]),
    }
}

fn write(
    adapter: &Adapter,
    report: &Report,
    state: &State,
    device: &Device,
    output: &StageOutput,
    context: &Context,
) -> Result<(), Error> {
    let storage = &context.storage;
    storage.write(&output.payload.join("adapter_config.json"), adapter.to_json().as_bytes())?;
    let path = output.payload.join("adapter_model.safetensors");
    let failed = |source| Error::Write { path: path.clone(), source };
    let mut writer = BufWriter::with_capacity(1 << 18, storage.create(&path)?);
    write_safetensors(&mut writer, adapter.table(), &device.lend(state.parameters.at(..))).map_err(failed)?;
    writer.into_inner().map_err(|error| failed(error.into_error()))?.finish()?;
    let curve = serde_json::json!({ "report": report, "loss_nats_per_answer_token": state.losses });
    let mut text = serde_json::to_string_pretty(&curve).expect("plain numbers");
    text.push('\n');
    storage.write(&output.payload.join("adaptation.json"), text.as_bytes())?;
    Ok(())
}
