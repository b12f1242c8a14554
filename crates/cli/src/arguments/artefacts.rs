//! Flags of what looks at artefacts and texts: checks, samples, pages, curves, and the ledger of opt-outs.

use std::path::PathBuf;

use clap::Args;
use model::WeightFormat;
use provenance::Digest;

use crate::commands::answering::weight_format;

/// Check that an artefact or a release is what its manifest, digests, record and signature say, that a model is what was
/// signed, or that a server's audit log is whole.
#[derive(Args)]
pub struct VerifyArguments {
    /// The folder of an artefact or a release, a signed model (a folder or a file), or the state folder of a server
    pub folder: PathBuf,
    /// The public key of whoever must have signed it; with several, one of them
    #[arg(long, value_name = "FILE")]
    pub public_key: Vec<PathBuf>,
    /// Where the signature lies [default: model.sig in a folder, FILE.sig beside a file]
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
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
    /// The numbers that weights are kept in: f32, bf16, q8_0 or q4_0; or stored: those of a GGUF file as they are, of a folder
    /// f32
    #[arg(long, value_name = "FORMAT", default_value = "stored", value_parser = weight_format)]
    pub weights: WeightFormat,
    /// Load a release even if it does not verify
    #[arg(long)]
    pub allow_unverified: bool,
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
