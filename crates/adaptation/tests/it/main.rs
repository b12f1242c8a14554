//! The stage as a whole: an adapter that learns its conversations, resumes, and merges.

use adaptation::{Error, Settings, build, merge, read_conversations};
use model::testing::write_random_model;
use model::{Adapter, InferenceModel, LogitRows, ModelConfig, NO_TARGET, SequenceChunk};
use provenance::digest::sha256_file;
use provenance::{Context, StageOutput};
use std::path::{Path, PathBuf};
use tokenizer::Tokenizer;

const CONVERSATIONS: &str = r#"{"id":"1","language":"mt","messages":[{"role":"user","content":"X'inhi l-belt kapitali?"},{"role":"assistant","content":"Il-Belt Valletta."}]}
{"id":"2","language":"el","messages":[{"role":"user","content":"Γεια"},{"role":"assistant","content":"Καλημέρα!"},{"role":"user","content":"Τι κάνεις;"},{"role":"assistant","content":"Καλά."}]}

{"id":"3","language":"bg","messages":[{"role":"user","content":"Здравей"}]}
"#;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// A random model with a tokenizer of its own, and a file of conversations.
    fn new() -> Bench {
        let bench = Bench { folder: tempfile::tempdir().unwrap() };
        let context = Context::quiet(1);
        let train = bench.path("corpus").join("train");
        std::fs::create_dir_all(&train).unwrap();
        let line = r#"{"id":"1","text":"Il-Belt Valletta hija l-belt kapitali ta' Malta, u hemm bosta toroq dojoq."}"#;
        let shard = zstd::encode_all(format!("{line}\n").as_bytes(), 3).unwrap();
        std::fs::write(train.join("mt.jsonl.zst"), shard).unwrap();
        let output = bench.output("model");
        let settings = tokenizer::Settings { vocabulary_size: 264, ..tokenizer::Settings::default() };
        tokenizer::build(&settings, &bench.path("corpus"), None, &output, &context).unwrap();
        write_random_model(&bench.model(), &ModelConfig::tiny_for_tests(264), 7);
        std::fs::write(bench.conversations(), CONVERSATIONS).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn model(&self) -> PathBuf {
        self.path("model/payload")
    }

    fn conversations(&self) -> PathBuf {
        self.path("conversations.jsonl")
    }

    fn output(&self, name: &str) -> StageOutput {
        let (payload, scratch) = (self.path(name).join("payload"), self.path(name).join("scratch"));
        std::fs::create_dir_all(&payload).unwrap();
        std::fs::create_dir_all(&scratch).unwrap();
        StageOutput { payload, scratch }
    }
}

fn settings() -> Settings {
    Settings {
        steps: 30,
        batch_tokens: 200,
        rank: 4,
        warmup_ratio: 0.15,
        checkpoint_every: 10,
        ..Settings::default()
    }
}

fn digest(folder: &Path) -> String {
    sha256_file(&folder.join("adapter_model.safetensors")).unwrap().to_string()
}

#[test]
fn only_answers_are_learned() {
    let bench = Bench::new();
    let tokenizer = Tokenizer::load(&bench.model()).unwrap();
    let (conversations, without) = read_conversations(&[bench.conversations()], &tokenizer, 512).unwrap();
    assert_eq!((conversations.len(), without), (2, 1));
    let learned = |index: usize| {
        let targets: Vec<u32> =
            conversations[index].targets.iter().copied().filter(|t| *t != NO_TARGET).collect();
        tokenizer.decode(&targets).unwrap()
    };
    assert_eq!(learned(0), "Il-Belt Valletta.<|im_end|>");
    assert_eq!(learned(1), "Καλημέρα!<|im_end|>Καλά.<|im_end|>");
    let (short, without) = read_conversations(&[bench.conversations()], &tokenizer, 20).unwrap();
    assert_eq!((short.len(), without), (0, 3));
}

#[test]
fn an_adapter_learns_and_its_bytes_do_not_depend_on_threads_or_stops() {
    let bench = Bench::new();
    let conversations = [bench.conversations()];
    let mut digests = Vec::new();
    for threads in [1, 2] {
        let output = bench.output(&format!("threads-{threads}"));
        let report =
            build(&settings(), &bench.model(), &conversations, &output, &Context::quiet(threads)).unwrap();
        assert!(report.last_loss < report.first_loss - 0.5, "{report:?}");
        assert_eq!(report.conversations.len(), 2);
        digests.push(digest(&output.payload));
    }
    let stopped = bench.output("stopped");
    let context = Context::quiet(2);
    context.cancellation.cancel();
    assert!(matches!(
        build(&settings(), &bench.model(), &conversations, &stopped, &context),
        Err(Error::Cancelled(_))
    ));
    build(&settings(), &bench.model(), &conversations, &stopped, &Context::quiet(2)).unwrap();
    digests.push(digest(&stopped.payload));
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
}

#[test]
fn the_adapter_loads_and_merges() {
    let bench = Bench::new();
    let output = bench.output("adapter");
    build(&settings(), &bench.model(), &[bench.conversations()], &output, &Context::quiet(2)).unwrap();
    let merged = bench.output("merged").payload;
    merge(&bench.model(), &output.payload, &merged, &Context::quiet(1)).unwrap();
    let run = |model: &InferenceModel, adapter: Option<&Adapter>| {
        let tokens = [1, 100, 101];
        let chunk = SequenceChunk {
            tokens: &tokens,
            first_position: 0,
            blocks: &[0],
            adapter,
            logits: LogitRows::Last,
            answer: false,
        };
        model.forward(&[chunk], &mut model.new_cache(1), &mut model.new_workspace(3, 1)).unwrap().to_vec()
    };
    let base = InferenceModel::load(&bench.model()).unwrap();
    let adapter = base.load_adapter(&output.payload).unwrap();
    let (apart, together) = (run(&base, Some(&adapter)), run(&InferenceModel::load(&merged).unwrap(), None));
    assert!(apart.iter().zip(&together).all(|(a, b)| (a - b).abs() < 1e-3));
    assert!(run(&base, None).iter().zip(&together).any(|(a, b)| (a - b).abs() > 0.01));
}

#[test]
fn bad_conversations_are_named_by_file_and_line() {
    let bench = Bench::new();
    let tokenizer = Tokenizer::load(&bench.model()).unwrap();
    for (line, expected) in
        [("{", "line 2"), (r#"{"id":"x"}"#, "messages"), (r#"{"messages":[{"role":3}]}"#, "line 2")]
    {
        std::fs::write(bench.conversations(), format!("\n{line}\n")).unwrap();
        let problem = read_conversations(&[bench.conversations()], &tokenizer, 512).unwrap_err().to_string();
        assert!(problem.contains(expected) && problem.contains("conversations.jsonl"), "{problem}");
    }
    let context = Context::quiet(1);
    std::fs::write(bench.conversations(), "\n").unwrap();
    let nothing =
        build(&settings(), &bench.model(), &[bench.conversations()], &bench.output("none"), &context);
    assert!(nothing.unwrap_err().to_string().contains("no conversation"));
}
