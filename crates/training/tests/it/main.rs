//! The stage as a whole, on a corpus of a few lines: thread counts, kills, damage and bad settings.

mod oracle;

use model::{InferenceModel, LogitRows, SequenceChunk};
use provenance::digest::sha256_file;
use provenance::{Context, Progress, StageOutput};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use training::{Error, Report, Settings, build};

/// A corpus and a tokenizer in a folder of their own.
struct Bench {
    folder: tempfile::TempDir,
}

const SENTENCES: [(&str, &str); 3] = [
    ("bg", "Здравейте от малкия град на брега на морето. "),
    ("el", "Καλημέρα από τη μικρή πόλη δίπλα στη θάλασσα. "),
    ("mt", "Bonġu mill-belt żgħira ħdejn il-baħar. "),
];

impl Bench {
    fn new() -> Bench {
        let bench = Bench { folder: tempfile::tempdir().unwrap() };
        let context = Context::quiet(1);
        for (part, count) in [("train", 6), ("heldout", 2)] {
            let folder = bench.corpus().join(part);
            std::fs::create_dir_all(&folder).unwrap();
            for (language, sentence) in SENTENCES {
                let path = folder.join(format!("{language}.jsonl.zst"));
                let mut shard = documents::ShardWriter::create(&context.storage, &path).unwrap();
                for index in 0..count {
                    let mut document = documents::Document::new(
                        format!("{language}-{part}-{index}"),
                        sentence.repeat(1 + index % 3),
                    );
                    document.source = Some(["web", "books"][index % 2].to_string());
                    shard.write(&document).unwrap();
                }
                shard.finish().unwrap();
            }
        }
        let settings = tokenizer::Settings { vocabulary_size: 270, ..tokenizer::Settings::default() };
        let output = bench.output("tokenizer");
        tokenizer::build(&settings, &bench.corpus(), None, &output, &context).unwrap();
        bench
    }

    fn corpus(&self) -> PathBuf {
        self.folder.path().join("corpus")
    }

    fn output(&self, name: &str) -> StageOutput {
        let payload = self.folder.path().join(name).join("payload");
        let scratch = self.folder.path().join(name).join("scratch");
        std::fs::create_dir_all(&payload).unwrap();
        std::fs::create_dir_all(&scratch).unwrap();
        StageOutput { payload, scratch }
    }

    fn tokenizer(&self) -> PathBuf {
        self.folder.path().join("tokenizer/payload")
    }

    fn build(&self, settings: &Settings, output: &StageOutput, context: &Context) -> Result<Report, Error> {
        build(settings, &self.corpus(), &self.tokenizer(), output, context)
    }
}

fn settings() -> Settings {
    Settings {
        hidden_size: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        intermediate_size: 48,
        sequence_length: 64,
        batch_tokens: 256 * 8,
        steps: 12,
        warmup_ratio: 0.2,
        decay_ratio: 0.4,
        checkpoint_every: 4,
        learning_rate: 0.01,
        minimum_learning_rate: 0.0,
        maximum_positions: 128,
        ..Settings::default()
    }
}

fn weights(output: &StageOutput) -> String {
    sha256_file(&output.payload.join("model.safetensors")).unwrap().to_string()
}

#[test]
fn it_learns_and_its_bytes_do_not_depend_on_threads() {
    let bench = Bench::new();
    let mut digests = Vec::new();
    for threads in [1, 2, 3] {
        let output = bench.output(&format!("threads-{threads}"));
        let report = bench.build(&settings(), &output, &Context::quiet(threads)).unwrap();
        assert!(report.last_loss < report.first_loss - 0.2, "{report:?}");
        assert_eq!(report.tokens, 12 * 2048);
        assert_eq!(report.languages.values().map(|language| language.tokens).sum::<u64>(), 12 * 2048);
        let training = sha256_file(&output.payload.join("training.json")).unwrap();
        digests.push((weights(&output), training));
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
}

#[test]
fn a_mixture_of_experts_learns_and_its_bytes_depend_on_no_cutting() {
    let bench = Bench::new();
    let mixture = Settings {
        experts: 8,
        experts_per_token: 2,
        shared_experts: 1,
        moe_intermediate_size: 16,
        first_dense_layers: 1,
        router_bias_update: 0.01,
        router_z_loss: 1e-3,
        // A table with two gradients adds them up micro-batch by micro-batch.
        tie_embeddings: false,
        ..settings()
    };
    let mut digests = Vec::new();
    for (threads, recompute, micro_batch_tokens) in
        [(1, false, 2048), (2, false, 2048), (2, true, 2048), (3, true, 512)]
    {
        let output = bench.output(&format!("mixture-{threads}-{recompute}-{micro_batch_tokens}"));
        let settings = Settings { recompute, micro_batch_tokens, ..mixture.clone() };
        let report = bench.build(&settings, &output, &Context::quiet(threads)).unwrap();
        assert!(report.last_loss < report.first_loss - 0.2, "{report:?}");
        digests.push(weights(&output));
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");

    let payload = bench.folder.path().join("mixture-1-false-2048/payload");
    let model = InferenceModel::load(&payload).unwrap();
    assert_eq!(model.config().architecture, model::Architecture::Dots1);
    let values = model::load_parameters(model.config(), &payload).unwrap();
    let decoder = model::Decoder::new(model.config(), 1).unwrap();
    let bias = decoder.table().find("model.layers.1.mlp.gate.e_score_correction_bias").unwrap();
    let bias = &values[bias.span.clone()];
    assert!(bias.iter().any(|b| *b != 0.0), "{bias:?}");
    assert!(bias.iter().all(|b| (b * 100.0 - (b * 100.0).round()).abs() < 1e-3), "whole steps: {bias:?}");
    let metrics = std::fs::read_to_string(payload.join("circumstances/metrics.jsonl")).unwrap();
    assert!(metrics.contains("expert_load_max_over_mean"));
}

#[test]
fn the_artefact_is_a_model_that_loads() {
    let bench = Bench::new();
    let output = bench.output("model");
    bench.build(&Settings { steps: 6, decay_ratio: 0.0, ..settings() }, &output, &Context::quiet(2)).unwrap();
    let model = InferenceModel::load(&output.payload).unwrap();
    assert_eq!(model.config().end_of_text, Some(0));
    assert_eq!(model.config().maximum_positions, 128);
    tokenizer::Tokenizer::load(&output.payload).unwrap();
    let chunk = SequenceChunk {
        tokens: &[0, 5],
        first_position: 0,
        blocks: &[0],
        adapter: None,
        logits: LogitRows::Last,
        answer: false,
    };
    let mut workspace = model.new_workspace(2, 1);
    let logits = model.forward(&[chunk], &mut model.new_cache(1), &mut workspace).unwrap();
    assert_eq!(logits.len(), 270);
    for name in ["generation_config.json", "training.json", "circumstances/metrics.jsonl"] {
        assert!(output.payload.join(name).exists(), "{name}");
    }
}

/// Cancels once a number of steps is done, and keeps the warnings.
struct Watcher {
    cancel_at: u64,
    done: Mutex<u64>,
    warnings: Mutex<Vec<String>>,
    cancellation: provenance::Cancellation,
}

impl Progress for Watcher {
    fn begin(&self, _: &str, _: Option<u64>, _: &str) {
        *self.done.lock().unwrap() = 0;
    }
    fn advance(&self, units: u64) {
        let mut done = self.done.lock().unwrap();
        *done += units;
        if *done == self.cancel_at {
            self.cancellation.cancel();
        }
    }
    fn note(&self, _: &str) {}
    fn warn(&self, text: &str) {
        self.warnings.lock().unwrap().push(text.to_string());
    }
    fn end(&self) {}
}

fn watched(cancel_at: u64) -> (Context, Arc<Watcher>) {
    let mut context = Context::quiet(2);
    let cancellation = context.cancellation.clone();
    let watcher =
        Arc::new(Watcher { cancel_at, done: Mutex::default(), warnings: Mutex::default(), cancellation });
    context.progress = watcher.clone();
    (context, watcher)
}

#[test]
fn a_stopped_run_goes_on_and_ends_with_the_same_bytes() {
    let bench = Bench::new();
    let whole = bench.output("whole");
    bench.build(&settings(), &whole, &Context::quiet(2)).unwrap();

    let stopped = bench.output("stopped");
    let (context, _) = watched(7);
    assert!(matches!(bench.build(&settings(), &stopped, &context), Err(Error::Cancelled(_))));
    assert!(checkpoints(&stopped.scratch).last().unwrap().ends_with("checkpoint-0000000007.bin"));
    bench.build(&settings(), &stopped, &Context::quiet(1)).unwrap();
    assert_eq!(weights(&stopped), weights(&whole));

    // As a kill would leave it: the last checkpoint is torn, the one before is whole.
    let torn = bench.output("torn");
    let (context, _) = watched(10);
    assert!(bench.build(&settings(), &torn, &context).is_err());
    let last = checkpoints(&torn.scratch).pop().unwrap();
    let bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(torn.scratch.join(".checkpoint-0000000011.partial"), b"half").unwrap();
    let (context, watcher) = watched(u64::MAX);
    bench.build(&settings(), &torn, &context).unwrap();
    assert_eq!(weights(&torn), weights(&whole));
    let warnings = watcher.warnings.lock().unwrap().join("\n");
    assert!(warnings.contains("checkpoint-0000000010.bin is passed over"), "{warnings}");
}

fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "bin"));
    found.sort();
    found
}

/// All that the settings can turn on at once: an interrupted run must not differ in anything.
fn everything() -> Settings {
    Settings {
        source_weights: BTreeMap::from([("web".to_string(), 2.0), ("books".to_string(), 1.0)]),
        language_temperature: 2.0,
        maximum_epochs: 1e6,
        goldfish_k: 5,
        goldfish_context: 4,
        evaluate_every: 5,
        evaluate_bytes: 100,
        keep_before_decay: true,
        decay_shape: training::DecayShape::OneMinusSqrt,
        checkpoint_every: 3,
        weight_average_decay: 0.9,
        skip_outliers: 5.0,
        checkpoint_beside: false,
        experts: 4,
        moe_intermediate_size: 16,
        router_bias_update: 0.01,
        moments: training::MomentStorage::Bf16,
        ..settings()
    }
}

fn metrics(output: &StageOutput) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(output.payload.join("circumstances/metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_with_everything_can_be_stopped_anywhere() {
    let bench = Bench::new();
    let whole = bench.output("whole");
    let report = bench.build(&everything(), &whole, &Context::quiet(2)).unwrap();
    assert_eq!(report.sources.values().map(|source| source.tokens).sum::<u64>(), 12 * 2048);
    let share = report.sources["web"].tokens as f64 / report.tokens as f64;
    assert!((share - 2.0 / 3.0).abs() < 0.02, "{share}");
    let training = |output: &StageOutput| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(output.payload.join("training.json")).unwrap()).unwrap()
    };
    let heldout = &training(&whole)["heldout"];
    let steps: Vec<u64> =
        heldout.as_array().unwrap().iter().map(|point| point["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [5, 10, 12]);
    let bits = |point: usize, language: &str| heldout[point]["bits_per_byte"][language].as_f64().unwrap();
    for (language, _) in SENTENCES {
        assert!(
            (0.5..8.0).contains(&bits(2, language)) && bits(2, language) < bits(0, language),
            "{heldout}"
        );
    }
    // The model before the decay is a whole model, and another one.
    let before = whole.payload.join("before-decay");
    InferenceModel::load(&before).unwrap();
    tokenizer::Tokenizer::load(&before).unwrap();
    assert_ne!(sha256_file(&before.join("model.safetensors")).unwrap().to_string(), weights(&whole));

    for stop in 1..12 {
        let stopped = bench.output(&format!("stopped-{stop}"));
        let (context, _) = watched(stop);
        assert!(matches!(bench.build(&everything(), &stopped, &context), Err(Error::Cancelled(_))));
        // A second interruption, like a kill: what stands in the scratch folder was written up to some moment.
        let (context, _) = watched(11);
        let _ = bench.build(&everything(), &stopped, &context);
        let last = checkpoints(&stopped.scratch).pop().unwrap();
        std::fs::write(&last, b"").unwrap();
        let (context, watcher) = watched(u64::MAX);
        bench.build(&everything(), &stopped, &context).unwrap();
        assert!(watcher.warnings.lock().unwrap()[0].contains("it is too short"));
        assert_eq!(weights(&stopped), weights(&whole), "stopped at {stop}");
        assert_eq!(training(&stopped), training(&whole), "stopped at {stop}");
        let kept = |output: &StageOutput| {
            sha256_file(&output.payload.join("before-decay/model.safetensors")).unwrap()
        };
        assert_eq!(kept(&stopped), kept(&whole));
        let numbers = |output: &StageOutput| -> Vec<(u64, Option<f64>)> {
            metrics(output)
                .iter()
                .map(|line| (line["step"].as_u64().unwrap(), line["loss"].as_f64()))
                .collect()
        };
        assert_eq!(numbers(&stopped), numbers(&whole), "the metrics cover the whole run");
    }
}

#[test]
fn long_gradients_are_left_out_counted_and_said() {
    let bench = Bench::new();
    // Steps of one sequence: their gradients differ enough for some to be left out.
    let picky = Settings {
        skip_outliers: 1.2,
        steps: 60,
        checkpoint_every: 7,
        batch_tokens: 64,
        learning_rate: 1e-3,
        ..settings()
    };
    let whole = bench.output("picky");
    let (context, watcher) = watched(u64::MAX);
    let report = bench.build(&picky, &whole, &context).unwrap();
    let skipped = &report.skipped_steps;
    assert!(!skipped.is_empty() && skipped.iter().all(|step| *step > 16), "{skipped:?}");
    assert!(watcher.warnings.lock().unwrap()[0].contains("is left out: its gradient norm"));
    let lines = metrics(&whole);
    let flagged: Vec<u64> = lines
        .iter()
        .filter(|line| line["skipped"] == true)
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(flagged, *skipped);
    assert_eq!(lines.len(), 60);
    // What was left out was not learned from.
    assert_eq!(report.tokens, (60 - skipped.len() as u64) * 64);
    assert_eq!(report.languages.values().map(|language| language.tokens).sum::<u64>(), report.tokens);
    assert_eq!(report.sources.values().map(|source| source.tokens).sum::<u64>(), report.tokens);
    assert!(watcher.warnings.lock().unwrap().last().unwrap().contains("of 60 steps"));
    for stop in [20, skipped[0], 43] {
        let stopped = bench.output(&format!("picky-{stop}"));
        let (context, _) = watched(stop);
        assert!(bench.build(&picky, &stopped, &context).is_err());
        let resumed = bench.build(&picky, &stopped, &Context::quiet(1)).unwrap();
        assert_eq!((resumed.skipped_steps, weights(&stopped)), (skipped.clone(), weights(&whole)));
    }
    // With a factor of 1 the gradients, which grow while the rate is high, are soon all left out: the run says so and ends.
    let never = Settings { skip_outliers: 1.0, steps: 60, ..settings() };
    match bench.build(&never, &bench.output("never"), &Context::quiet(2)) {
        Err(Error::Outliers { in_a_row, last_good, .. }) => {
            assert!(in_a_row == 16 && last_good.contains("checkpoint-"), "{last_good}");
        }
        other => panic!("expected too many outliers: {other:?}"),
    }
    let plain = bench.output("plain");
    bench.build(&Settings { skip_outliers: 0.0, ..picky }, &plain, &Context::quiet(2)).unwrap();
    assert_ne!(weights(&plain), weights(&whole));
}

#[test]
fn an_average_of_the_weights_is_what_comes_out() {
    let bench = Bench::new();
    let (plain, averaged) = (bench.output("plain"), bench.output("averaged"));
    let one = bench.build(&settings(), &plain, &Context::quiet(2)).unwrap();
    let average = Settings { weight_average_decay: 0.5, ..settings() };
    let other = bench.build(&average, &averaged, &Context::quiet(1)).unwrap();
    assert_eq!(one.last_loss, other.last_loss, "the weights that are trained are the same");
    assert_ne!(weights(&plain), weights(&averaged));
    InferenceModel::load(&averaged.payload).unwrap();
}

#[test]
fn what_was_kept_before_the_decay_and_lost_is_made_again() {
    let bench = Bench::new();
    let whole = bench.output("whole");
    bench.build(&everything(), &whole, &Context::quiet(2)).unwrap();
    let output = bench.output("lost");
    let (context, _) = watched(11);
    assert!(bench.build(&everything(), &output, &context).is_err());
    std::fs::write(output.scratch.join("before-decay.bin"), b"damaged").unwrap();
    let (context, watcher) = watched(u64::MAX);
    bench.build(&everything(), &output, &context).unwrap();
    assert!(watcher.warnings.lock().unwrap().iter().any(|warning| warning.contains("keep_before_decay")));
    assert_eq!(weights(&output), weights(&whole));
}

#[test]
fn a_text_that_would_come_too_often_is_cut_and_said() {
    let bench = Bench::new();
    let output = bench.output("cut");
    let plain = bench.build(&settings(), &output, &Context::quiet(2)).unwrap();
    let most = plain.languages.values().map(|language| language.epochs).fold(0.0, f64::max);
    let weights = BTreeMap::from([("mt".to_string(), 5.0), ("bg".to_string(), 1.0), ("el".to_string(), 1.0)]);
    let limited = Settings { language_weights: weights, maximum_epochs: most * 1.5, ..settings() };
    let (context, watcher) = watched(u64::MAX);
    let report = bench.build(&limited, &bench.output("limited"), &context).unwrap();
    assert_eq!(report.cut.iter().map(|cut| cut.language.as_str()).collect::<Vec<_>>(), ["mt"]);
    assert!(report.languages["mt"].epochs < most * 1.5 * 1.05, "{report:?}");
    assert!(watcher.warnings.lock().unwrap()[0].contains("cuts shares: mt"));
    let hopeless = Settings { maximum_epochs: most / 2.0, ..settings() };
    let refused = bench.build(&hopeless, &bench.output("hopeless"), &Context::quiet(1)).unwrap_err();
    assert!(refused.to_string().contains("maximum_epochs"), "{refused}");
}

#[test]
fn a_failed_write_leaves_a_run_that_goes_on() {
    let bench = Bench::new();
    let whole = bench.output("whole");
    bench.build(&settings(), &whole, &Context::quiet(2)).unwrap();
    for operation in [0, 3, 7, 12, 20, 33] {
        let output = bench.output(&format!("failed-{operation}"));
        let mut context = Context::quiet(2);
        context.storage = provenance::Storage::failing_at(operation);
        if bench.build(&settings(), &output, &context).is_ok() {
            continue;
        }
        std::fs::remove_dir_all(&output.payload).unwrap();
        std::fs::create_dir_all(&output.payload).unwrap();
        bench.build(&settings(), &output, &Context::quiet(1)).unwrap();
        assert_eq!(weights(&output), weights(&whole), "operation {operation}");
    }
}

#[test]
fn divergence_names_the_last_good_checkpoint() {
    let bench = Bench::new();
    let output = bench.output("diverged");
    let wild = Settings {
        learning_rate: 10.0,
        epsilon: 1e-30,
        clip_norm: 1e9,
        beta_2: 0.0,
        beta_1: 0.0,
        ..settings()
    };
    let wild = Settings {
        steps: 4000,
        weight_decay: 10.0,
        decay_ratio: 0.0,
        dropout: 0.0,
        checkpoint_every: 1,
        ..wild
    };
    let (context, _) = watched(300);
    match bench.build(&wild, &output, &context) {
        Err(Error::Diverged { last_good, .. }) => assert!(last_good.contains("checkpoint-"), "{last_good}"),
        other => panic!("expected divergence: {other:?}"),
    }
}

#[test]
fn what_cannot_be_trained_is_refused_before_the_first_step() {
    let bench = Bench::new();
    let output = bench.output("refused");
    let context = Context::quiet(1);
    let problem = |result: Result<Report, Error>| result.unwrap_err().to_string();
    let heads = Settings { heads: 5, ..settings() };
    assert!(problem(bench.build(&heads, &output, &context)).contains("5 attention heads"));
    for (change, expected) in [
        (Settings { vocabulary_size: 512, ..settings() }, "vocabulary_size = 512"),
        (Settings { sequence_length: 256, maximum_positions: 128, ..settings() }, "maximum_positions = 128"),
        (Settings { learning_rate: f64::NAN, ..settings() }, "learning_rate = NaN"),
        (Settings { learning_rate: 0.0, ..settings() }, "learning_rate = 0"),
    ] {
        let refused = problem(bench.build(&change, &output, &context));
        assert!(refused.contains(expected), "{refused}");
    }
    bench
        .build(&Settings { vocabulary_size: 270, steps: 1, ..settings() }, &bench.output("stated"), &context)
        .unwrap();
    let mut strange = settings();
    strange.language_weights.insert("xx".into(), 1.0);
    assert!(problem(bench.build(&strange, &output, &context)).contains("language_weights.xx"));
    std::fs::rename(bench.corpus().join("heldout"), bench.folder.path().join("away")).unwrap();
    let measured = Settings { evaluate_every: 1, ..settings() };
    assert!(problem(bench.build(&measured, &output, &context)).contains("evaluate_every = 1"));
    let empty = tempfile::tempdir().unwrap();
    std::fs::create_dir(empty.path().join("train")).unwrap();
    let nothing = build(&settings(), empty.path(), &bench.tokenizer(), &output, &context);
    assert!(problem(nothing).contains("no documents to train on"));
    assert!(checkpoints(&output.scratch).is_empty());
}
