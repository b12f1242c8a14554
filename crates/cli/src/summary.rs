//! The closing table of a run: what became of each language, a few words of the model, the energy, the digest, and what
//! to do next. Everything is read back from the artefacts, so that a run that found all made shows the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use inference::{Engine, EngineSettings, Request, Sampling};
use provenance::Artefact;
use provenance::energy::Energy;
use serde::Serialize;
use serde_json::Value;

use crate::console::{counted, duration, printable, table};
use crate::recipe::Recipe;
use crate::run::Outcome;

/// What a run made, for people and for programs.
#[derive(Serialize)]
pub struct Summary {
    pub languages: BTreeMap<String, Row>,
    /// Documents dropped before anyone could say in which of the languages they are.
    pub dropped_in_no_language: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Value>,
    /// Mean bits per byte with the adapter, where that was evaluated.
    pub adapted_mean_bits_per_byte: Option<f64>,
    pub parameters: Option<u64>,
    pub continuations: Vec<Continuation>,
    pub energy: Option<Energy>,
    pub release_digest: Option<String>,
    pub weights_sha256: Option<String>,
    #[serde(skip)]
    release_name: Option<String>,
}

/// One language. What a stage did not run for is absent.
#[derive(Default, Serialize)]
pub struct Row {
    pub documents_kept: Option<u64>,
    pub documents_dropped: Option<u64>,
    pub bytes: Option<u64>,
    pub tokens: Option<u64>,
    pub tokens_per_word: Option<f64>,
    pub bits_per_byte: Option<f64>,
    pub lzma_bits_per_byte: Option<f64>,
    pub ngram_bits_per_byte: Option<f64>,
}

/// Some words of the model.
#[derive(Serialize)]
pub struct Continuation {
    pub language: String,
    pub prompt: String,
    pub text: String,
}

/// The name under which the corpus stage counts documents of no known language.
const NO_LANGUAGE: &str = "unknown";

/// Languages whose continuation is shown: four scripts and families.
const SHOWN_LANGUAGES: [&str; 5] = ["de", "fi", "el", "bg", "mt"];
const PROMPT_CHARACTERS: usize = 48;
const CONTINUATION_TOKENS: usize = 40;

/// Below this many parameters a model proves the pipeline and no more.
const TINY_PARAMETERS: u64 = 50_000_000;

/// Reads the artefacts of a run.
pub fn of(outcomes: &[Outcome]) -> Summary {
    // Of several of a kind the first: the base model, not what came of it.
    let first = |kind: &str| {
        let adapted = |outcome: &Outcome| outcome.artefact.manifest.content.inputs.contains_key("adapter");
        outcomes.iter().find(|outcome| outcome.kind.name == kind && (kind == "release" || !adapted(outcome)))
    };
    let counts = |kind: &str, pointer: &str| {
        first(kind).and_then(|outcome| outcome.artefact.manifest.content.counts.pointer(pointer))
    };
    let mut languages: BTreeMap<String, Row> = BTreeMap::new();
    let mut dropped_in_no_language = 0;
    for (code, values) in object(counts("corpus", "/languages")) {
        if code == NO_LANGUAGE {
            dropped_in_no_language = values.get("read").and_then(Value::as_u64).unwrap_or(0);
            continue;
        }
        let row = languages.entry(code.clone()).or_default();
        row.documents_kept = values.get("kept").and_then(Value::as_u64);
        row.documents_dropped =
            Some(object(values.get("dropped")).filter_map(|(_, count)| count.as_u64()).sum());
        let part = |name: &str| values.pointer(&format!("/{name}/bytes")).and_then(Value::as_u64);
        row.bytes = part("train").zip(part("heldout")).map(|(train, heldout)| train + heldout);
    }
    for (code, values) in object(counts("tokenizer", "/fairness/languages")) {
        let Some(row) = languages.get_mut(code) else { continue };
        row.tokens = values.pointer("/training/tokens").and_then(Value::as_u64);
        row.tokens_per_word = values.pointer("/training/tokens_per_word").and_then(Value::as_f64);
    }
    for (code, values) in object(counts("evaluate", "/languages")) {
        let row = languages.entry(code.clone()).or_default();
        let number = |key: &str| values.get(key).and_then(Value::as_f64);
        row.bits_per_byte = number("bits_per_byte");
        row.lzma_bits_per_byte = number("lzma_bits_per_byte");
        row.ngram_bits_per_byte = number("ngram_bits_per_byte");
    }
    let release = first("release");
    let energies = outcomes.iter().filter_map(|outcome| energy_of(&outcome.artefact));
    Summary {
        languages,
        dropped_in_no_language,
        mean: counts("evaluate", "/mean").cloned(),
        adapted_mean_bits_per_byte: adapted_mean(outcomes),
        parameters: counts("pretrain", "/parameters").and_then(Value::as_u64),
        continuations: continuations(first("pretrain"), first("corpus")),
        energy: energies.reduce(|sum, next| sum.plus(&next)),
        release_digest: release.map(|outcome| outcome.artefact.digest().to_string()),
        weights_sha256: first("pretrain").and_then(|outcome| weights_digest(&outcome.artefact)),
        release_name: release.map(|outcome| outcome.name.clone()),
    }
}

/// The evaluation of the model with its adapter, told by the input that it took.
fn adapted_mean(outcomes: &[Outcome]) -> Option<f64> {
    let content = outcomes
        .iter()
        .map(|outcome| &outcome.artefact.manifest.content)
        .find(|content| content.stage == "evaluate" && content.inputs.contains_key("adapter"))?;
    content.counts.pointer("/mean/bits_per_byte")?.as_f64()
}

fn object(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

fn weights_digest(artefact: &Artefact) -> Option<String> {
    artefact.sums().ok()?.get("model.safetensors").map(ToString::to_string)
}

fn energy_of(artefact: &Artefact) -> Option<Energy> {
    serde_json::from_value(artefact.manifest.circumstances.get("energy")?.clone()).ok()
}

/// A few words in several languages, from the beginnings of held-out documents. A model that cannot be loaded shows
/// none: the stages themselves have succeeded.
fn continuations(pretrain: Option<&Outcome>, corpus: Option<&Outcome>) -> Vec<Continuation> {
    let (Some(pretrain), Some(corpus)) = (pretrain, corpus) else { return Vec::new() };
    let Ok(engine) = Engine::start(&pretrain.artefact.folder, &EngineSettings::default()) else {
        return Vec::new();
    };
    let words = |language: &&str| continuation(&engine, &corpus.artefact.folder, language);
    SHOWN_LANGUAGES.iter().filter_map(words).collect()
}

fn continuation(engine: &Engine, corpus: &Path, language: &str) -> Option<Continuation> {
    let shard = corpus.join("heldout").join(format!("{language}.jsonl.zst"));
    let document = documents::read_shard(&shard).ok()?.next()?.ok()?;
    let mut prompt = String::new();
    for word in document.text.split_whitespace() {
        if prompt.chars().count() + word.chars().count() > PROMPT_CHARACTERS {
            break;
        }
        if !prompt.is_empty() {
            prompt.push(' ');
        }
        prompt.push_str(word);
    }
    let tokenizer = engine.tokenizer();
    let mut ids: Vec<u32> = tokenizer.separator_id().into_iter().collect();
    ids.extend(tokenizer.encode_ordinary(&prompt).ok()?);
    let mut request = Request::new("local", ids);
    request.max_tokens = Some(CONTINUATION_TOKENS);
    request.sampling = Sampling { temperature: 0.7, seed: 1, ..Sampling::default() };
    let answer = engine.submit(request).ok()?.wait().ok()?;
    let text = answer.text.split_whitespace().collect::<Vec<_>>().join(" ");
    let gap = if answer.text.starts_with(char::is_whitespace) { " " } else { "" };
    Some(Continuation { language: language.to_string(), prompt, text: format!("{gap}{text}") })
}

/// The closing words for people.
pub fn render(summary: &Summary, recipe: &Recipe, root: &Path, took: Duration) -> String {
    let mut parts = vec![String::new()];
    if summary.parameters.is_some_and(|parameters| parameters < TINY_PARAMETERS) {
        parts.push("A model of this size proves that the pipeline works, and no more.\n".to_string());
    }
    if !summary.languages.is_empty() {
        parts.push(language_table(summary));
        if summary.dropped_in_no_language > 0 {
            parts.push(format!(
                "  and {} dropped that no language of these claims",
                counted(summary.dropped_in_no_language, "document")
            ));
        }
    }
    if let Some(mean) = summary.adapted_mean_bits_per_byte {
        parts.push(format!(
            "  With the adapter, tuned to answer in turns, the model needs {mean:.3} bits per byte in the mean."
        ));
    }
    if !summary.continuations.is_empty() {
        parts.push("\nThe model goes on (its words after the bar):".to_string());
        for words in &summary.continuations {
            let text = printable(&words.text);
            parts.push(format!("  {}  {} |{text}", words.language, printable(&words.prompt)));
        }
    }
    parts.push(String::new());
    if let Some(energy) = &summary.energy {
        parts.push(format!("energy    {}", energy.describe()));
    }
    parts.push(format!("time      {}", duration(took)));
    if let Some(digest) = &summary.release_digest {
        parts.push(format!("release   {digest}"));
    }
    if let Some(name) = &summary.release_name {
        let release = root.join(name);
        let release = release.display();
        parts.push(format!(
            "\nNext:\n  eulalia chat {release}\n  eulalia keys new && eulalia serve {release}\n  eulalia verify {release}"
        ));
    } else if let Some(last) = recipe.instances.last() {
        parts.push(format!("\nNext:\n  eulalia inspect {}", root.join(&last.name).display()));
    }
    parts.join("\n")
}

fn language_table(summary: &Summary) -> String {
    let count = |number: Option<u64>| number.map_or_else(|| "–".to_string(), |number| number.to_string());
    let decimals = |number: Option<f64>, digits: usize| {
        number.map_or_else(|| "–".to_string(), |number| format!("{number:.digits$}"))
    };
    let mut rows: Vec<Vec<String>> = summary
        .languages
        .iter()
        .map(|(code, row)| {
            vec![
                code.clone(),
                count(row.documents_kept),
                count(row.documents_dropped),
                count(row.bytes),
                count(row.tokens),
                decimals(row.tokens_per_word, 2),
                decimals(row.bits_per_byte, 3),
                decimals(row.lzma_bits_per_byte, 3),
                decimals(row.ngram_bits_per_byte, 3),
            ]
        })
        .collect();
    if let Some(mean) = &summary.mean {
        let number = |key: &str| decimals(mean.get(key).and_then(Value::as_f64), 3);
        let mut row = vec!["mean".to_string()];
        row.extend((0..5).map(|_| String::new()));
        row.extend([number("bits_per_byte"), number("lzma_bits_per_byte"), number("ngram_bits_per_byte")]);
        rows.push(row);
    }
    let header =
        ["language", "kept", "dropped", "bytes", "tokens", "tokens/word", "bits/byte", "LZMA", "n-gram"];
    table(&header, &rows, 1)
}
