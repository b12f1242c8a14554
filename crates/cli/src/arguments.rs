//! The flags of every command. Stage commands are made from the table of kinds, so that a stage alone takes what it
//! takes in a recipe.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::styling::Styles;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};
use model::{CacheFormat, WeightFormat};
use provenance::Digest;
use serving::{LogFormat, LogLevel, Role, Scope};

use crate::commands::answering::{AnswerArguments, cache_format, weight_format};
use crate::commands::keys::{role, scope};
use crate::kinds::{KINDS, Kind};
use crate::recipe::Override;

/// A parsed command line.
pub struct Call {
    pub json: bool,
    pub threads: Option<usize>,
    pub rated_watts: Option<f64>,
    pub rank: RankFlags,
    pub command: Command,
}

pub enum Command {
    Run(RunArguments),
    Stage(StageArguments),
    Verify(VerifyArguments),
    Inspect(InspectArguments),
    Identify(IdentifyArguments),
    Score(ScoreArguments),
    Gc(GcArguments),
    Generate(GenerateArguments),
    Chat(ChatArguments),
    Serve(ServeArguments),
    Keys(KeysArguments),
    Tenants(TenantsArguments),
    Audit(AuditArguments),
    Usage(UsageArguments),
    Limits(LimitsArguments),
    Backup(BackupArguments),
    Restore(RestoreArguments),
    OptOut(OptOutArguments),
    Plot(PlotArguments),
    Bench(BenchArguments),
    Convert(ConvertArguments),
    Quantize(QuantizeArguments),
    CorpusExport(CorpusExportArguments),
    CorpusReport(CorpusReportArguments),
    Pull(PullArguments),
    Doctor(DoctorArguments),
}

/// Which of several processes this is, as far as flags say so.
#[derive(Debug, Default, Clone, Copy)]
pub struct RankFlags {
    pub rank: Option<u64>,
    pub world: Option<u64>,
    pub patience_seconds: Option<f64>,
}

/// The whole life of a model, from one recipe.
#[derive(Args)]
pub struct RunArguments {
    /// The recipe, a TOML file
    pub recipe: PathBuf,
    /// Where the artefacts go [default: runs/<name of the recipe> in the current folder]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Change a setting, such as pretrain.steps=200 (repeatable)
    #[arg(long, value_name = "STAGE.KEY=VALUE")]
    pub set: Vec<Override>,
    /// Say what would be made and why, and make nothing
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: run the corpus stages on about so many documents, and show what they would keep and why
    #[arg(long, value_name = "DOCUMENTS", requires = "dry_run")]
    pub sample: Option<u64>,
    /// Say what pretraining would take (memory, time, energy), and make nothing
    #[arg(long, conflicts_with = "dry_run")]
    pub estimate: bool,
}

/// One stage alone, on files from anywhere.
pub struct StageArguments {
    pub kind: &'static Kind,
    pub output: PathBuf,
    pub settings: Option<PathBuf>,
    pub set: Vec<String>,
    pub roles: Vec<(String, PathBuf)>,
    pub files: Vec<(String, Vec<PathBuf>)>,
    pub dry_run: bool,
    pub sample: Option<u64>,
    pub estimate: bool,
}

/// Check that an artefact or a release is what its manifest, digests and record say, or that a server's audit log is whole.
#[derive(Args)]
pub struct VerifyArguments {
    /// The folder of an artefact or a release, or the state folder of a server
    pub folder: PathBuf,
    /// The digest that was published for it
    #[arg(long, value_name = "SHA256")]
    pub expect: Option<Digest>,
    /// Of an audit log or a copy of one: the installation's public key, as `eulalia audit key` printed it
    #[arg(long, value_name = "FILE")]
    pub audit_key: Option<PathBuf>,
}

/// Show an artefact: what it is, what it was made from, counts and samples.
#[derive(Args)]
pub struct InspectArguments {
    /// The folder of an artefact, a release, or a run
    pub folder: PathBuf,
    /// How many sample documents to show per file, or matches of a search
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub samples: usize,
    /// Of a corpus: find the document with this id
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Of a corpus: find documents of a site (example.org) or whose address begins so
    #[arg(long, value_name = "SITE|URL")]
    pub url: Option<String>,
    /// Of a corpus: find what was dropped for this reason, such as near_duplicate
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// Of a corpus: only documents in this language, ISO 639-1
    #[arg(long, value_name = "CODE")]
    pub language: Option<String>,
}

/// Draw what is in a corpus as one HTML page: sizes, reasons, lengths, sites, licences, duplicates, samples.
#[derive(Args)]
pub struct CorpusReportArguments {
    /// The folder of a corpus, such as runs/tiny/corpus
    pub folder: PathBuf,
    /// The page [default: corpus.html in the current folder]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Sample texts per language and per reason
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub samples: usize,
}

/// Write the documents that a corpus kept as Parquet files, one for each language and part.
#[derive(Args)]
pub struct CorpusExportArguments {
    /// The folder of a corpus, such as runs/tiny/corpus
    pub folder: PathBuf,
    /// Folder of the files: train/<language>.parquet, heldout/<language>.parquet
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

/// Name the language of texts: the 24 official EU languages, their neighbours, or "other".
///
/// Prints the ISO 639-1 code and its probability; for files also the share of each language by paragraphs, where there is
/// more than one: a mixed file has the language of its largest share. With --lines --json, one object a line: {"language": "mt", "score": 0.98}. An empty line is "other".
/// Bytes that are no text are "other" too and are said to be binary.
#[derive(Args)]
pub struct IdentifyArguments {
    /// Files to read; standard input without any
    pub files: Vec<PathBuf>,
    /// Judge every line on its own instead of the whole file
    #[arg(long)]
    pub lines: bool,
}

/// Say how probable a model finds each line of standard input: bits per byte; with --json, every token.
#[derive(Args)]
pub struct ScoreArguments {
    /// A release, a model in the Hugging Face layout, or a GGUF file
    pub model: PathBuf,
    /// An adapter (PEFT layout), merged into the weights
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Load a release even if it does not verify
    #[arg(long)]
    pub allow_unverified: bool,
}

/// Remove artefacts and unfinished work that no stage of a run points to any more.
#[derive(Args)]
pub struct GcArguments {
    /// The folder of a run, such as runs/tiny
    pub folder: PathBuf,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Talk with a model in the terminal.
#[derive(Args)]
pub struct ChatArguments {
    /// A release, a model in the Hugging Face layout, or a GGUF file
    pub model: PathBuf,
    /// An adapter (PEFT layout) [default: the folder adapter/ of the model, if it has one]
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// A first message that says who the model is to be
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    #[command(flatten)]
    pub answer: AnswerArguments,
    /// Load a release even if it does not verify
    #[arg(long)]
    pub allow_unverified: bool,
}

/// Let a model continue a text.
///
/// The prompt comes from --prompt, from --file, or from standard input. The text goes to standard output as it is
/// generated, what there is to say about it to standard error.
#[derive(Args)]
pub struct GenerateArguments {
    /// A release, a model in the Hugging Face layout, or a GGUF file
    pub model: PathBuf,
    /// The text to continue
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    pub prompt: Option<String>,
    /// A file with the text to continue
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How many continuations; the prompt is read once for all of them
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub count: u64,
    /// An adapter (PEFT layout) [default: the folder adapter/ of the model, if it has one]
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    #[command(flatten)]
    pub answer: AnswerArguments,
    /// Load a release even if it does not verify
    #[arg(long)]
    pub allow_unverified: bool,
}

/// Write a model as one GGUF file, which llama.cpp opens, or a GGUF file as a folder in the Hugging Face layout.
///
/// An OUTPUT that ends in .gguf becomes such a file; anything else a folder with config.json, model.safetensors and the
/// tokenizer. Quantised weights are widened on the way into a folder.
#[derive(Args)]
pub struct ConvertArguments {
    /// A release, a model in the Hugging Face layout, or a GGUF file (of a split one the first part)
    pub model: PathBuf,
    /// The file (.gguf) or folder to write
    pub output: PathBuf,
    /// How matrices are stored: f32, f16, bf16, q8_0 or q4_0; in a folder f32 or bf16
    #[arg(long, value_name = "FORMAT", default_value = "f32", value_parser = ["f32", "f16", "bf16", "q8_0", "q4_0"])]
    pub format: String,
    /// Put the new file or folder in the place of one that is there
    #[arg(long)]
    pub force: bool,
    /// Convert a release even if it does not verify
    #[arg(long)]
    pub allow_unverified: bool,
}

/// Write a model as a GGUF file with weights of 8 or 4 bits.
#[derive(Args, Clone)]
pub struct QuantizeArguments {
    /// A release, a model in the Hugging Face layout, or a GGUF file
    pub model: PathBuf,
    /// The GGUF file to write
    pub output: PathBuf,
    /// Weights of 8 bits (q8_0: a scale for 32 of them, 8.5 bits in all) or of 4 (q4_0: 4.5 bits; the output projection in 8)
    #[arg(long, value_name = "FORMAT", value_parser = ["q8_0", "q4_0"])]
    pub format: String,
    /// Put the new file in the place of one that is there
    #[arg(long)]
    pub force: bool,
    /// Quantise a release even if it does not verify
    #[arg(long)]
    pub allow_unverified: bool,
}

/// Serve models over the OpenAI API: https or loopback, nothing without a key.
#[derive(Clone, Args)]
pub struct ServeArguments {
    /// Releases, models in the Hugging Face layout or GGUF files; NAME=FOLDER gives one a name of your choice
    #[arg(required_unless_present = "config", value_name = "[NAME=]FOLDER")]
    pub models: Vec<String>,
    /// Settings of the server, in TOML; what is given here as well counts more
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:8480]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Folder of the server's state: keys, audit log [default: eulalia-state]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Certificate chain (PEM); with --tls-key, the server speaks https
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Speak plain http on an address that others can reach (for use behind a proxy that encrypts)
    #[arg(long)]
    pub allow_plain_http: bool,
    /// Load a release even if it does not verify
    #[arg(long)]
    pub allow_unverified: bool,
    /// Memory for the weights and caches of each model, in MiB [default: what the most requests at once can fill]
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
    /// The numbers that weights are kept in: f32, bf16, q8_0 or q4_0, fewer bits are faster and take less memory; or stored:
    /// those of a GGUF file as they are, of a folder f32 [default: stored]
    #[arg(long, value_name = "FORMAT", value_parser = weight_format)]
    pub weights: Option<WeightFormat>,
    /// The numbers that keys and values are kept in: f32, bf16 or q8_0 [default: f32 with weights in f32, else bf16]
    #[arg(long, value_name = "FORMAT", value_parser = cache_format)]
    pub kv_cache: Option<CacheFormat>,
    /// Guess up to so many tokens of each answer ahead from its own text; answers stay the same [default: 0]
    #[arg(long, value_name = "N")]
    pub speculation: Option<usize>,
    /// Compute every prompt anew, even where it begins like an earlier one of its tenant
    #[arg(long)]
    pub no_prefix_cache: bool,
    /// Check settings, certificates, state, models and ports, try upstreams and the issuer of tokens, print what was found,
    /// and end
    #[arg(long)]
    pub check: bool,
    /// With --check: ask nobody on the network
    #[arg(long, requires = "check")]
    pub offline: bool,
    /// How lines of the log are written: text or json [default: text]
    #[arg(long, value_name = "FORMAT", value_parser = log_format)]
    pub log_format: Option<LogFormat>,
    /// What the log says: error, warn, info or debug [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = log_level)]
    pub log_level: Option<LogLevel>,
}

fn log_format(name: &str) -> Result<LogFormat, String> {
    LogFormat::from_name(name).ok_or_else(|| "expected text or json".to_string())
}

fn log_level(name: &str) -> Result<LogLevel, String> {
    LogLevel::from_name(name).ok_or_else(|| "expected error, warn, info or debug".to_string())
}

/// Make, show, change and remove the tenants of a server: who shares it, and what each may use.
#[derive(Args)]
pub struct TenantsArguments {
    #[command(subcommand)]
    pub action: TenantsAction,
}

#[derive(clap::Subcommand)]
pub enum TenantsAction {
    /// Make a tenant
    New {
        /// What it is called in lists; the audit log has a pseudonym
        name: String,
        /// A field of its policy, such as models=["small"] or limits.tokens_per_minute=6000 (may be repeated)
        #[arg(long = "set", value_name = "KEY=VALUE")]
        changes: Vec<String>,
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
    /// List tenants
    List {
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
    /// Show a tenant with its policy
    Show {
        /// Its name
        name: String,
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
    /// Change fields of a tenant's policy; a running server heeds it from the next request on
    Set {
        /// Its name
        name: String,
        /// Fields and their values, such as limits.tokens_per_day=1000000; null takes a field back
        #[arg(required = true, value_name = "KEY=VALUE")]
        changes: Vec<String>,
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
    /// Remove a tenant for good: its keys open nothing any more, its name stays taken
    Remove {
        /// Its name
        name: String,
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
}

/// Read the audit log of a server.
#[derive(Args)]
pub struct AuditArguments {
    #[command(subcommand)]
    pub action: AuditAction,
}

#[derive(clap::Subcommand)]
pub enum AuditAction {
    /// Print the public key that the heads of the log are signed for; auditors give it to `eulalia verify --audit-key`
    Key {
        /// Folder of the server's state
        #[arg(default_value = "eulalia-state", value_name = "STATE")]
        state: PathBuf,
    },
    /// Show events as a table
    Show {
        /// Folder of the server's state, or a copy of its folder `audit`
        #[arg(default_value = "eulalia-state", value_name = "STATE")]
        state: PathBuf,
        #[command(flatten)]
        lines: AuditLines,
        /// Show the last N of them
        #[arg(long, value_name = "N", default_value_t = 50)]
        last: usize,
    },
    /// Write events to standard output for a security monitor
    Export {
        /// Folder of the server's state, or a copy of its folder `audit`
        #[arg(default_value = "eulalia-state", value_name = "STATE")]
        state: PathBuf,
        #[command(flatten)]
        lines: AuditLines,
        /// jsonl: as in the log; ecs: JSON lines in the Elastic Common Schema
        #[arg(long, value_name = "FORMAT", default_value = "jsonl", value_parser = ["jsonl", "ecs"])]
        format: String,
    },
}

/// Which events are asked for.
#[derive(Args)]
pub struct AuditLines {
    /// Events at or after this time in UTC, such as 2026-11-20 or 2026-11-20T08:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Events before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Events of this tenant, by its pseudonym
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    /// Events of this kind, such as request
    #[arg(long, value_name = "KIND")]
    pub event: Option<String>,
    /// Events after the one of this number, to go on where an earlier export ended
    #[arg(long, value_name = "SEQUENCE")]
    pub after: Option<u64>,
}

/// Copy the state of a server, which may be running, to a new folder: keys, tenants, usage, audit log.
#[derive(Args)]
pub struct BackupArguments {
    /// Folder of the server's state
    #[arg(default_value = "eulalia-state", value_name = "STATE")]
    pub state: PathBuf,
    /// The new folder
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
}

/// Put a backup into a new state folder, after checking it.
#[derive(Args)]
pub struct RestoreArguments {
    /// The backup
    #[arg(value_name = "BACKUP")]
    pub backup: PathBuf,
    /// The new state folder
    #[arg(long, value_name = "STATE")]
    pub to: PathBuf,
}

/// Show what tenants have used of a server, by day, key and model.
#[derive(Args)]
pub struct UsageArguments {
    /// Folder of the server's state
    #[arg(default_value = "eulalia-state", value_name = "STATE")]
    pub state: PathBuf,
    /// Only this tenant, by its name
    #[arg(long)]
    pub tenant: Option<String>,
    /// The last so many days (UTC), today included
    #[arg(long, default_value_t = 30, value_name = "DAYS")]
    pub days: u64,
}

/// Give a key limits of its own; without any, those of the settings and of its tenant hold.
#[derive(Args)]
pub struct LimitsArguments {
    /// The key's id, as `keys list` shows it
    pub key: String,
    /// requests_per_minute, tokens_per_minute, tokens_per_day, concurrent_requests, prompt_tokens, answer_tokens or
    /// answers; these replace what the key had
    #[arg(value_name = "LIMIT=NUMBER")]
    pub limits: Vec<String>,
    /// Folder of the server's state
    #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
    pub state: PathBuf,
}

/// Make, list, rotate and revoke the keys of a server.
#[derive(Args)]
pub struct KeysArguments {
    #[command(subcommand)]
    pub action: KeysAction,
}

#[derive(clap::Subcommand)]
pub enum KeysAction {
    /// Make a key; it is shown once, only its hash is kept
    New {
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
        /// What the key is for, to tell keys apart
        #[arg(long, default_value = "")]
        label: String,
        /// Tenant that the key belongs to
        #[arg(long, default_value = "default")]
        tenant: String,
        /// What the key may be used for: admin, operator, user, auditor or metrics
        #[arg(long, default_value = "user", value_parser = role)]
        role: Role,
        /// Narrow the key to fewer scopes than its role has: inference, status, metrics, audit, operate or administer
        /// (may be repeated)
        #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
        scopes: Vec<Scope>,
        /// Days until the key expires [default: never]
        #[arg(long, value_name = "DAYS")]
        expires: Option<u64>,
    },
    /// List keys: id, tenant, label, dates; never the keys themselves
    List {
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
    /// Make a key in the place of another: same tenant, role and scopes, same length of life
    Rotate {
        /// The id that `keys new` and `keys list` show
        id: String,
        /// Hours for which the old key still opens
        #[arg(long, default_value_t = 24, value_name = "HOURS")]
        grace: u64,
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
    /// Revoke a key by its id
    Revoke {
        /// The id that `keys new` and `keys list` show
        id: String,
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
}

/// Keep the ledger of opt-outs: requests that a site, a page, a document or a text be left out of every corpus.
#[derive(Args)]
pub struct OptOutArguments {
    #[command(subcommand)]
    pub action: OptOutAction,
}

#[derive(clap::Subcommand)]
pub enum OptOutAction {
    /// Append a request, chained to all before it; nothing that stands in the ledger is changed
    Add(OptOutAddArguments),
    /// Prove that a ledger is sound: dates in order, references, the chain
    Check {
        /// The ledger, JSON lines
        #[arg(long, value_name = "FILE")]
        ledger: PathBuf,
        /// The digest that this command printed on an earlier day: the ledger must begin with what stood there then
        #[arg(long, value_name = "SHA256")]
        since: Option<Digest>,
    },
    /// Make the file that the server's filter for passages reads, from the texts themselves; it holds digests alone
    Passages {
        /// The ledger, JSON lines; it must name every one of the texts
        #[arg(long, value_name = "FILE")]
        ledger: PathBuf,
        /// The file to make
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The texts, a file each
        #[arg(value_name = "FILE", required = true)]
        texts: Vec<PathBuf>,
    },
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct OptOutAddArguments {
    /// The ledger, JSON lines; made where there is none
    #[arg(long, value_name = "FILE")]
    pub ledger: PathBuf,
    /// A site with all below it
    #[arg(long, group = "what")]
    pub domain: Option<String>,
    /// A page
    #[arg(long, group = "what")]
    pub url: Option<String>,
    /// A document by its id
    #[arg(long, group = "what")]
    pub id: Option<String>,
    /// A text by its digest, as --text makes it
    #[arg(long, group = "what", value_name = "SHA256")]
    pub text_digest: Option<Digest>,
    /// A text, wherever it stands; the ledger holds the digest of its words alone
    #[arg(long, group = "what", value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Where the request is filed
    #[arg(long)]
    pub reference: String,
    /// Why, in words
    #[arg(long)]
    pub reason: Option<String>,
    /// The day of the request, YYYY-MM-DD [default: today]
    #[arg(long, value_name = "DATE")]
    pub date: Option<String>,
}

/// Draw the curves of runs (loss, learning rate, held-out text, expert load) and the bars of evaluations.
#[derive(Args)]
pub struct PlotArguments {
    /// Folders of runs, pretrained models, evaluations or releases; or their training.json, metrics.jsonl, results.json
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// The picture, .svg or .png [default: <name of the first run>.svg in the current folder]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Measure this machine on what a run spends its time on.
#[derive(Args)]
pub struct BenchArguments {
    #[command(subcommand)]
    pub action: BenchAction,
}

#[derive(clap::Subcommand)]
pub enum BenchAction {
    /// Whole training steps on random tokens, beside the speed of their matrix products alone
    Training(BenchTrainingArguments),
    /// How fast a model reads prompts and writes answers, with its weights in each format
    Inference(BenchInferenceArguments),
    /// What weights of fewer bits cost: perplexity, KL divergence and agreement with the same model in f32
    Quality(BenchQualityArguments),
}

/// Tokens in the second half of each window count, as in llama.cpp's llama-perplexity.
#[derive(Args)]
pub struct BenchQualityArguments {
    /// A model folder in the Hugging Face layout
    pub model: PathBuf,
    /// Text files, such as one a language; without any, tokens by chance
    pub texts: Vec<PathBuf>,
    /// Numbers that the weights are kept in, separated by commas: f32, bf16, q8_0, q4_0
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', default_value = "q8_0,q4_0", value_parser = weight_format)]
    pub weights: Vec<WeightFormat>,
    /// Tokens of a window
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u64).range(4..=65_536))]
    pub window: u64,
    /// Compute as answers are computed, token by token, rather than as prompts are
    #[arg(long)]
    pub as_answers: bool,
}

#[derive(Args)]
pub struct BenchInferenceArguments {
    /// A model folder in the Hugging Face layout, or a GGUF file
    pub model: PathBuf,
    /// Numbers that the weights are kept in, separated by commas: f32, bf16, q8_0, q4_0, stored
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', default_value = "q8_0", value_parser = weight_format)]
    pub weights: Vec<WeightFormat>,
    /// Numbers that keys and values are kept in: f32, bf16 or q8_0 [default: f32 with weights in f32, else bf16]
    #[arg(long, value_name = "FORMAT", value_parser = cache_format)]
    pub kv_cache: Option<CacheFormat>,
    /// Lengths of prompts
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "512", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub prefill: Vec<u64>,
    /// Tokens to write
    #[arg(long, value_name = "TOKENS", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub decode: u64,
    /// Tokens that stand in the cache before the first one is written
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "0", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub depths: Vec<u64>,
    /// Requests that are computed together
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub batches: Vec<u64>,
    /// Repetitions of each measurement; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub rounds: u64,
}

#[derive(Args)]
pub struct BenchTrainingArguments {
    /// The shape: S (9.3 million parameters), M (44 million), or MOE (experts, with M's active parameters)
    #[arg(long, value_name = "NAME", default_value = "S")]
    pub config: String,
    /// Steps to measure; two more warm up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub steps: u64,
    /// Who moves the matrices
    #[arg(long, value_name = "NAME", default_value = "adamw", value_parser = ["adamw", "muon"])]
    pub optimizer: String,
    /// Compute activations again in the backward pass: less memory, a third more work
    #[arg(long)]
    pub recompute: bool,
}

/// Fetch an open model: from the catalogue or a hub, checked file by file, gone on with where it was broken off.
///
/// The licence is shown before anything is fetched. A model that is there in full is checked, and nothing is fetched.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["model", "list", "from_bundle"]))]
pub struct PullArguments {
    /// A name of the catalogue (--list), or hf:ORG/REPOSITORY[@REVISION]
    #[arg(value_name = "NAME|hf:ORG/REPOSITORY[@REVISION]")]
    pub model: Option<String>,
    /// Show the catalogue: sizes, languages, licences
    #[arg(long)]
    pub list: bool,
    /// The folder [default: models/<name> in the current folder]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Fetch this file too, such as one of several GGUF files (repeatable)
    #[arg(long, value_name = "PATH", requires = "model")]
    pub file: Vec<String>,
    /// Also pack the model into one file, for machines without internet
    #[arg(long, value_name = "FILE.tar", requires = "model")]
    pub bundle: Option<PathBuf>,
    /// Unpack such a file, without any network
    #[arg(long, value_name = "FILE.tar")]
    pub from_bundle: Option<PathBuf>,
    /// Ask a mirror instead of the hub [default: HF_ENDPOINT, or https://huggingface.co]
    #[arg(long, value_name = "URL", requires = "model")]
    pub mirror: Option<String>,
    /// A file with the token for gated models [default: the variable HF_TOKEN, for the hub itself alone]
    #[arg(long, value_name = "FILE", requires = "model")]
    pub token_file: Option<PathBuf>,
    /// Take the licence as read and do not ask
    #[arg(long, requires = "model")]
    pub yes: bool,
}

/// Say what this machine can do, and whether a model fits it: memory, speed, energy, adapting, problems found.
///
/// Nothing is loaded: a model is judged by its configuration and the headers of its files, the machine by a measurement of
/// some seconds. Speeds are limits, which no program can exceed on this machine.
#[derive(Args)]
pub struct DoctorArguments {
    /// A folder, a .gguf file, a name of the catalogue, or hf:ORG/REPOSITORY[@REVISION] (its configuration alone is fetched)
    pub model: Option<String>,
    /// Tokens of context that must fit besides the weights
    #[arg(long, value_name = "TOKENS", default_value_t = 4096)]
    pub context: u64,
    /// Ask a mirror instead of the hub [default: HF_ENDPOINT, or https://huggingface.co]
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// A file with the token for gated models [default: the variable HF_TOKEN, for the hub itself alone]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Reads the command line.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Call, clap::Error> {
    let matches = program().try_get_matches_from(arguments)?;
    let Some((name, inner)) = matches.subcommand() else {
        return Err(program().error(clap::error::ErrorKind::MissingSubcommand, "a command is missing"));
    };
    let command = match name {
        "run" => Command::Run(RunArguments::from_arg_matches(inner)?),
        "verify" => Command::Verify(VerifyArguments::from_arg_matches(inner)?),
        "inspect" => Command::Inspect(InspectArguments::from_arg_matches(inner)?),
        "identify" => Command::Identify(IdentifyArguments::from_arg_matches(inner)?),
        "score" => Command::Score(ScoreArguments::from_arg_matches(inner)?),
        "gc" => Command::Gc(GcArguments::from_arg_matches(inner)?),
        "generate" => Command::Generate(GenerateArguments::from_arg_matches(inner)?),
        "chat" => Command::Chat(ChatArguments::from_arg_matches(inner)?),
        "serve" => Command::Serve(ServeArguments::from_arg_matches(inner)?),
        "keys" => Command::Keys(KeysArguments::from_arg_matches(inner)?),
        "tenants" => Command::Tenants(TenantsArguments::from_arg_matches(inner)?),
        "audit" => Command::Audit(AuditArguments::from_arg_matches(inner)?),
        "usage" => Command::Usage(UsageArguments::from_arg_matches(inner)?),
        "limits" => Command::Limits(LimitsArguments::from_arg_matches(inner)?),
        "backup" => Command::Backup(BackupArguments::from_arg_matches(inner)?),
        "restore" => Command::Restore(RestoreArguments::from_arg_matches(inner)?),
        "opt-out" => Command::OptOut(OptOutArguments::from_arg_matches(inner)?),
        "plot" => Command::Plot(PlotArguments::from_arg_matches(inner)?),
        "bench" => Command::Bench(BenchArguments::from_arg_matches(inner)?),
        "convert" => Command::Convert(ConvertArguments::from_arg_matches(inner)?),
        "quantize" => Command::Quantize(QuantizeArguments::from_arg_matches(inner)?),
        "pull" => Command::Pull(PullArguments::from_arg_matches(inner)?),
        "doctor" => Command::Doctor(DoctorArguments::from_arg_matches(inner)?),
        CORPUS if let Some(("export", export)) = inner.subcommand() => {
            Command::CorpusExport(CorpusExportArguments::from_arg_matches(export)?)
        }
        CORPUS if let Some((_, report)) = inner.subcommand() => {
            Command::CorpusReport(CorpusReportArguments::from_arg_matches(report)?)
        }
        stage => match KINDS.iter().find(|kind| kind.name == stage) {
            Some(kind) => Command::Stage(stage_arguments(kind, inner)),
            None => return Err(program().error(clap::error::ErrorKind::InvalidSubcommand, stage)),
        },
    };
    Ok(Call {
        json: matches.get_flag("json"),
        threads: matches.get_one::<u64>("threads").map(|threads| *threads as usize),
        rated_watts: matches.get_one::<f64>("rated-watts").copied(),
        rank: RankFlags {
            rank: matches.get_one::<u64>("rank").copied(),
            world: matches.get_one::<u64>("world").copied(),
            patience_seconds: matches.get_one::<f64>("rank-patience").copied(),
        },
        command,
    })
}

/// The whole command, for parsing and for tests of the help texts.
pub fn program() -> clap::Command {
    let mut program = clap::Command::new("eulalia")
        .version(env!("CARGO_PKG_VERSION"))
        .about("One program for the whole life of an open European language model")
        .long_about(
            "One program for the whole life of an open European language model: text, tokenizer, pretraining, \
             evaluation, adaptation, release, serving; in the 24 official languages of the European Union.",
        )
        .after_help("Begin with:  eulalia run recipes/tiny.toml")
        .styles(Styles::plain())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(
            Arg::new("json")
                .long("json")
                .global(true)
                .action(ArgAction::SetTrue)
                .help("Print the result as one JSON object on standard output"),
        )
        .arg(
            Arg::new("threads")
                .long("threads")
                .global(true)
                .value_name("N")
                .value_parser(clap::value_parser!(u64).range(1..=4096))
                .help("Threads to compute with [default: all cores]; never changes a byte of what is made"),
        )
        .arg(
            Arg::new("rated-watts")
                .long("rated-watts")
                .global(true)
                .value_name("W")
                .value_parser(clap::value_parser!(f64))
                .hide_short_help(true)
                .help("Power of this machine in watts, for an energy estimate where it has no meter"),
        )
        .arg(
            Arg::new("rank")
                .long("rank")
                .global(true)
                .value_name("N")
                .requires("world")
                .value_parser(clap::value_parser!(u64))
                .hide_short_help(true)
                .help("Which of the processes that make a corpus together this is, from 0 [default: from Slurm, Kubernetes or MPI]"),
        )
        .arg(
            Arg::new("world")
                .long("world")
                .global(true)
                .value_name("N")
                .requires("rank")
                .value_parser(clap::value_parser!(u64).range(1..))
                .hide_short_help(true)
                .help("How many processes there are; all write into the same --output"),
        )
        .arg(
            Arg::new("rank-patience")
                .long("rank-patience")
                .global(true)
                .value_name("SECONDS")
                .value_parser(clap::value_parser!(f64))
                .hide_short_help(true)
                .help("How long a process may give no sign of life before others do its work [default: 60]"),
        )
        .subcommand(with_example(
            RunArguments::augment_args(clap::Command::new("run")),
            "eulalia run recipes/tiny.toml --set pretrain.steps=200 --dry-run",
        ));
    for kind in KINDS {
        program = program.subcommand(stage_command(kind));
    }
    let program = program
        .subcommand(with_example(
            GenerateArguments::augment_args(clap::Command::new("generate")),
            "eulalia generate runs/tiny/release --prompt \"Es war einmal\" --max-tokens 50",
        ))
        .subcommand(with_example(
            PullArguments::augment_args(clap::Command::new("pull")),
            "eulalia pull --list\n  eulalia pull eurollm-1.7b-instruct\n  \
             eulalia pull hf:BSC-LT/salamandra-2b-instruct --to models/salamandra --bundle salamandra.tar",
        ))
        .subcommand(with_example(
            DoctorArguments::augment_args(clap::Command::new("doctor")),
            "eulalia doctor\n  eulalia doctor models/eurollm-1.7b-instruct",
        ))
        .subcommand(with_example(
            ChatArguments::augment_args(clap::Command::new("chat")),
            "eulalia chat runs/tiny/release",
        ))
        .subcommand(with_example(
            ServeArguments::augment_args(clap::Command::new("serve")),
            "eulalia keys new && eulalia serve tiny=runs/tiny/release",
        ))
        .subcommand(with_example(
            KeysArguments::augment_args(clap::Command::new("keys")),
            "eulalia keys new --label \"reading room\" --expires 90",
        ))
        .subcommand(with_example(
            TenantsArguments::augment_args(clap::Command::new("tenants")),
            "eulalia tenants new library --set 'models=[\"small\"]' --set limits.tokens_per_minute=6000",
        ))
        .subcommand(with_example(
            UsageArguments::augment_args(clap::Command::new("usage")),
            "eulalia usage eulalia-state --tenant \"reading room\" --days 7",
        ))
        .subcommand(with_example(
            LimitsArguments::augment_args(clap::Command::new("limits")),
            "eulalia limits 4fGh72Kq requests_per_minute=60 tokens_per_day=200000",
        ))
        .subcommand(with_example(
            AuditArguments::augment_args(clap::Command::new("audit")),
            "eulalia audit key eulalia-state > audit-key.pem\n  eulalia audit show --event request --since 2026-11-20\n  \
             eulalia audit export --format ecs --after 12000 > events.ndjson",
        ))
        .subcommand(with_example(
            BackupArguments::augment_args(clap::Command::new("backup")),
            "eulalia backup eulalia-state --to backups/2026-11-20",
        ))
        .subcommand(with_example(
            RestoreArguments::augment_args(clap::Command::new("restore")),
            "eulalia restore backups/2026-11-20 --to eulalia-state",
        ))
        .subcommand(with_example(
            OptOutArguments::augment_args(clap::Command::new("opt-out")),
            "eulalia opt-out add --ledger opt-outs.jsonl --domain site.example --reference \"letter 12\"\n  \
             eulalia opt-out check --ledger opt-outs.jsonl",
        ))
        .subcommand(with_example(
            VerifyArguments::augment_args(clap::Command::new("verify")),
            "eulalia verify runs/tiny/release\n  eulalia verify eulalia-state --audit-key audit-key.pem",
        ))
        .subcommand(with_example(
            InspectArguments::augment_args(clap::Command::new("inspect")),
            "eulalia inspect runs/tiny/corpus\n  eulalia inspect runs/tiny/corpus --reason near_duplicate --samples 5",
        ))
        .subcommand(with_example(
            IdentifyArguments::augment_args(clap::Command::new("identify")),
            "eulalia identify letter.txt report.txt\n  eulalia identify --lines --json < sentences.txt",
        ))
        .subcommand(with_example(
            ScoreArguments::augment_args(clap::Command::new("score")),
            "eulalia score runs/tiny/release < sentences.txt",
        ))
        .subcommand(with_example(
            PlotArguments::augment_args(clap::Command::new("plot")),
            "eulalia plot runs/adamw runs/muon --output curves.png",
        ))
        .subcommand(with_example(
            BenchArguments::augment_args(clap::Command::new("bench")),
            "eulalia bench training --config M --threads 2 --json",
        ))
        .subcommand(with_example(
            ConvertArguments::augment_args(clap::Command::new("convert")),
            "eulalia convert runs/tiny/release tiny.gguf --format bf16\n  eulalia convert model-Q4_K_M.gguf model --format bf16",
        ))
        .subcommand(with_example(
            QuantizeArguments::augment_args(clap::Command::new("quantize")),
            "eulalia quantize runs/tiny/release tiny-q8_0.gguf --format q8_0",
        ))
        .subcommand(with_example(
            GcArguments::augment_args(clap::Command::new("gc")),
            "eulalia gc runs/tiny --dry-run",
        ));
    hide_what_means_nothing(program)
}

/// Flags of the whole program that concern some commands alone: they are taken everywhere, and shown where they do something.
fn hide_what_means_nothing(mut program: clap::Command) -> clap::Command {
    let makes = |name: &str| name == "run" || KINDS.iter().any(|kind| kind.name == name);
    let computes = |name: &str| {
        makes(name) || !["gc", "identify", "keys", "opt-out", "plot", "tenants", "verify"].contains(&name)
    };
    let shared: Vec<Arg> = program.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    let names: Vec<String> =
        program.get_subcommands().map(|command| command.get_name().to_string()).collect();
    for name in names {
        let hidden = shared.iter().filter(|arg| match arg.get_id().as_str() {
            "threads" => !computes(&name),
            "rated-watts" | "rank" | "world" | "rank-patience" => !makes(&name),
            _ => false,
        });
        let hidden: Vec<Arg> = hidden.map(|arg| arg.clone().hide(true)).collect();
        program = program.mut_subcommand(&name, |command| command.args(hidden));
    }
    program
}

fn with_example(command: clap::Command, example: &'static str) -> clap::Command {
    command.after_help(format!("Example:\n  {example}"))
}

/// The kind of stage that can be estimated; for that, nothing else has to be there.
const ESTIMATED: &str = "pretrain";
/// The kind of stage that can be tried on a sample, and whose artefact can be drawn as a page and exported.
const CORPUS: &str = "corpus";

fn stage_command(kind: &'static Kind) -> clap::Command {
    let estimated = kind.name == ESTIMATED;
    let required = |arg: Arg| match estimated {
        true => arg.required_unless_present("estimate"),
        false => arg.required(true),
    };
    let mut command = clap::Command::new(kind.name)
        .about(kind.about)
        .arg(required(
            Arg::new("output")
                .long("output")
                .value_name("DIR")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Folder of the run; the artefact appears in it under the stage's name"),
        ))
        .arg(
            Arg::new("settings")
                .long("settings")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Settings of this stage, as in a recipe's table but without its header"),
        )
        .arg(
            Arg::new("set")
                .long("set")
                .value_name("KEY=VALUE")
                .action(ArgAction::Append)
                .help("Change a setting (repeatable)"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Say what would be made and why, and make nothing"),
        );
    if kind.name == CORPUS {
        command = command.arg(
            Arg::new("sample")
                .long("sample")
                .value_name("DOCUMENTS")
                .requires("dry-run")
                .value_parser(clap::value_parser!(u64).range(1..))
                .help(
                    "With --dry-run: run it on about so many documents, and show what it would keep and why",
                ),
        );
    }
    if estimated {
        command = command.arg(
            Arg::new("estimate")
                .long("estimate")
                .action(ArgAction::SetTrue)
                .conflicts_with("dry-run")
                .help("Say what it would take (memory, time, energy), and make nothing; corpus and tokenizer may be missing"),
        );
    }
    if kind.name == CORPUS {
        let report = CorpusReportArguments::augment_args(clap::Command::new("report"));
        let export = CorpusExportArguments::augment_args(clap::Command::new("export"));
        command = command
            .subcommand(with_example(report, "eulalia corpus report runs/tiny/corpus --output corpus.html"))
            .subcommand(with_example(export, "eulalia corpus export runs/tiny/corpus --output parquet/"))
            .subcommand_negates_reqs(true)
            .args_conflicts_with_subcommands(true);
    }
    for role in kind.roles {
        let arg = Arg::new(role.name)
            .long(role.name.replace('_', "-"))
            .value_name("DIR")
            .value_parser(clap::value_parser!(PathBuf))
            .help(role.what);
        command = command.arg(if role.required { required(arg) } else { arg });
    }
    for file in kind.files {
        command = command.arg(
            Arg::new(file.key)
                .long(file.key.replace('_', "-"))
                .value_name("PATH")
                .required(file.required)
                .num_args(if file.many { 1..=4096 } else { 1..=1 })
                .action(ArgAction::Append)
                .value_parser(clap::value_parser!(PathBuf))
                .help(file.what),
        );
    }
    let settings = serde_json::to_string_pretty(&(kind.defaults)()).unwrap_or_default();
    command
        .after_help(format!("Example:\n  {}", kind.example))
        .after_long_help(format!("Example:\n  {}\n\nSettings and their defaults:\n{settings}", kind.example))
}

fn stage_arguments(kind: &'static Kind, matches: &ArgMatches) -> StageArguments {
    let roles = kind.roles.iter().filter_map(|role| {
        matches.get_one::<PathBuf>(role.name).map(|path| (role.name.to_string(), path.clone()))
    });
    let files = kind.files.iter().filter_map(|file| {
        let paths = matches.get_many::<PathBuf>(file.key)?;
        Some((file.key.to_string(), paths.cloned().collect()))
    });
    StageArguments {
        kind,
        output: matches.get_one::<PathBuf>("output").cloned().unwrap_or_default(),
        settings: matches.get_one::<PathBuf>("settings").cloned(),
        set: matches.get_many::<String>("set").into_iter().flatten().cloned().collect(),
        roles: roles.collect(),
        files: files.collect(),
        dry_run: matches.get_flag("dry-run"),
        sample: match kind.name {
            CORPUS => matches.get_one::<u64>("sample").copied(),
            _ => None,
        },
        estimate: kind.name == ESTIMATED && matches.get_flag("estimate"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_consistent_and_each_shows_an_example() {
        let program = program();
        program.clone().debug_assert();
        for command in program.get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("eulalia "), "{} has no example", command.get_name());
        }
    }

    #[test]
    fn a_command_shows_the_flags_that_mean_something_to_it() {
        for (name, shown, hidden) in [
            ("gc", &["--json"][..], &["--threads", "--rated-watts", "--rank-patience"][..]),
            ("serve", &["--threads"], &["--rated-watts", "--world"]),
            ("corpus", &["--threads", "--rated-watts", "--world"], &[]),
        ] {
            let help = parse(["eulalia", name, "--help"].map(OsString::from)).err().unwrap().to_string();
            assert!(shown.iter().all(|flag| help.contains(flag)), "{name}: {help}");
            assert!(!hidden.iter().any(|flag| help.contains(flag)), "{name}: {help}");
        }
    }

    #[test]
    fn flags_come_before_or_after_the_command() {
        for line in ["eulalia --json --threads 2 run r.toml", "eulalia run r.toml --json --threads 2"] {
            let call = parse(line.split(' ').map(OsString::from)).unwrap_or_else(|error| panic!("{error}"));
            assert!(call.json && call.threads == Some(2));
        }
        assert!(parse(["eulalia", "run", "--threads", "0", "r"].map(OsString::from)).is_err());
        let call =
            parse("eulalia gc runs --threads 3 --rated-watts 5".split(' ').map(OsString::from)).unwrap();
        assert!(call.threads == Some(3) && call.rated_watts == Some(5.0), "taken where they mean nothing");
        assert!(parse(["eulalia", "run", "r", "--set", "steps"].map(OsString::from)).is_err());
    }
}
