//! The stage as a whole, on a corpus of a few lines: thread counts, kills, damage and bad settings.

use model::{InferenceModel, LogitRows, SequenceChunk};
use provenance::digest::sha256_file;
use provenance::{Context, Progress, StageOutput};
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
        let train = bench.corpus().join("train");
        std::fs::create_dir_all(&train).unwrap();
        for (language, sentence) in SENTENCES {
            let path = train.join(format!("{language}.jsonl.zst"));
            let mut shard = documents::ShardWriter::create(&context.storage, &path).unwrap();
            for index in 0..6 {
                let document =
                    documents::Document::new(format!("{language}-{index}"), sentence.repeat(1 + index % 3));
                shard.write(&document).unwrap();
            }
            shard.finish().unwrap();
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
    let mut strange = settings();
    strange.language_weights.insert("xx".into(), 1.0);
    assert!(problem(bench.build(&strange, &output, &context)).contains("language_weights.xx"));
    let empty = tempfile::tempdir().unwrap();
    std::fs::create_dir(empty.path().join("train")).unwrap();
    let nothing = build(&settings(), empty.path(), &bench.tokenizer(), &output, &context);
    assert!(problem(nothing).contains("no documents to train on"));
    assert!(checkpoints(&output.scratch).is_empty());
}
