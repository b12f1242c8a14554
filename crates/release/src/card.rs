//! The model card, in the form that model hubs read (YAML head, Markdown body), rendered from the record alone.
//!
//! A fact that the record does not hold reads "not recorded": nothing is guessed. What a person must say (licence,
//! intended use, provider) comes from the release's settings, which stand in the record too.

use std::fmt::Write;

use provenance::energy::Energy;
use provenance::record::Segment;
use serde_json::Value;

use crate::{Settings, languages, recorded};

const NOT_RECORDED: &str = "not recorded";

/// Renders the card of a release whose ancestors' record this is.
pub fn render(settings: &Settings, record: &[Segment]) -> String {
    let mut card = String::new();
    head(&mut card, settings, record);
    let title = stated(&settings.title);
    let _ = write!(card, "# {title}\n\n");
    proves(&mut card, record);
    card.push_str("| | |\n|---|---|\n");
    row(&mut card, "provider", &stated(&settings.provider.name));
    row(&mut card, "contact", &stated(&settings.provider.contact));
    row(&mut card, "country", &stated(&settings.provider.country));
    row(&mut card, "licence of the weights", &stated(&settings.license));
    row(&mut card, "intended use", &stated(&settings.intended_use));
    row(&mut card, "known limitations", &stated(&settings.limitations));
    card.push('\n');
    model(&mut card, record);
    data(&mut card, record);
    evaluation(&mut card, record);
    stages(&mut card, record);
    card.push_str(
        "## Check it\n\n`eulalia verify .` in this folder recomputes every digest and follows the record line by line; \
         `sha256sum -c SHA256SUMS` checks the files with common tools.\n",
    );
    card
}

fn head(card: &mut String, settings: &Settings, record: &[Segment]) {
    card.push_str("---\nlibrary_name: transformers\npipeline_tag: text-generation\n");
    if !settings.license.is_empty() {
        let _ = writeln!(card, "license: {}", settings.license.to_lowercase());
    }
    card.push_str("language:\n");
    for code in languages(record).keys().filter(|code| *code != "unknown") {
        // "no" is Norwegian to people and false to YAML: quoted like all others.
        let _ = writeln!(card, "- \"{code}\"");
    }
    card.push_str("tags:\n- eulalia\n---\n\n");
}

/// A model far too small to be useful says so itself.
fn proves(card: &mut String, record: &[Segment]) {
    let parameters = number(finished(record, "pretrain", "/counts/parameters"));
    if parameters.is_some_and(|parameters| parameters < 50e6) {
        card.push_str(
            "> A model of this size proves that the pipeline works, and no more. It does not answer questions \
             usefully.\n\n",
        );
    }
}

fn model(card: &mut String, record: &[Segment]) {
    card.push_str("## Model and training\n\n| | |\n|---|---|\n");
    let counts = |key: &str| finished(record, "pretrain", &format!("/counts/{key}"));
    row(card, "parameters", &shown(counts("parameters")));
    row(card, "training tokens", &shown(counts("tokens")));
    row(card, "training compute (FLOP)", &two_digits(counts("floating_point_operations")));
    row(card, "last training loss (nats per token)", &shown(counts("last_loss")));
    let circumstances = |key: &str| finished(record, "pretrain", &format!("/circumstances/{key}"));
    row(card, "time to train (seconds)", &shown(circumstances("duration_seconds")));
    row(card, "processor", &shown(circumstances("machine/processor")));
    row(card, "threads", &shown(circumstances("threads")));
    let energy: Option<Energy> =
        circumstances("energy").and_then(|energy| serde_json::from_value(energy.clone()).ok());
    row(card, "energy of training", &energy.map_or(NOT_RECORDED.to_string(), |energy| energy.describe()));
    card.push('\n');
    if let Some(settings) = started(record, "pretrain", "/settings") {
        let _ = write!(card, "Settings of pretraining:\n\n```json\n{settings:#}\n```\n\n");
    }
}

fn data(card: &mut String, record: &[Segment]) {
    card.push_str("## Training text\n\n");
    let languages = languages(record);
    if languages.is_empty() {
        let _ = write!(card, "{NOT_RECORDED}\n\n");
        return;
    }
    card.push_str("| language | documents read | kept | dropped | bytes kept |\n|---|---:|---:|---:|---:|\n");
    for (code, counts) in &languages {
        let field = |pointer: &str| counts.pointer(pointer).and_then(Value::as_u64);
        let dropped = counts
            .get("dropped")
            .and_then(Value::as_object)
            .map(|reasons| reasons.values().filter_map(Value::as_u64).sum::<u64>());
        let bytes =
            field("/train/bytes").zip(field("/heldout/bytes")).map(|(train, heldout)| train + heldout);
        let cells = [field("/read"), field("/kept"), dropped, bytes]
            .map(|cell| cell.map_or(NOT_RECORDED.to_string(), |number| number.to_string()));
        let _ = writeln!(card, "| {code} | {} |", cells.join(" | "));
    }
    card.push('\n');
    for (title, key) in [
        ("Dropped, by reason", "dropped"),
        ("Repaired", "repaired"),
        ("Personal data replaced, by type", "placeholders"),
        ("Licences", "licenses"),
        ("Sources", "sources"),
    ] {
        if let Some(Value::Object(counts)) = finished(record, "corpus", &format!("/counts/total/{key}"))
            && !counts.is_empty()
        {
            let list: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
            let _ = write!(card, "{title}: {}.\n\n", list.join(", "));
        }
    }
}

fn evaluation(card: &mut String, record: &[Segment]) {
    card.push_str("## Evaluation\n\n");
    let Some(Value::Object(results)) = finished(record, "evaluate", "/counts/languages") else {
        let _ = write!(card, "{NOT_RECORDED}\n\n");
        return;
    };
    card.push_str(
        "Bits per byte on held-out documents (lower is better), beside what a general compressor and a byte n-gram \
         model need for the same bytes after seeing the training text.\n\n\
         | language | model | LZMA | n-gram |\n|---|---:|---:|---:|\n",
    );
    let line = |name: &str, values: &Value| {
        let field = |key: &str| decimals(values.get(key));
        format!(
            "| {name} | {} | {} | {} |\n",
            field("bits_per_byte"),
            field("lzma_bits_per_byte"),
            field("ngram_bits_per_byte")
        )
    };
    for (code, values) in results {
        card.push_str(&line(code, values));
    }
    if let Some(mean) = finished(record, "evaluate", "/counts/mean") {
        card.push_str(&line("**mean**", mean));
    }
    card.push('\n');
}

fn stages(card: &mut String, record: &[Segment]) {
    card.push_str(
        "## How it was made\n\n| stage | kind | version | digest of what it made |\n|---|---|---:|---|\n",
    );
    for segment in record {
        let first = segment.lines().first();
        let field = |key: &str| shown(first.and_then(|line| line.fields.get(key)));
        let digest = segment.event("finished").and_then(|line| line.fields.get("artefact"));
        let _ = writeln!(
            card,
            "| {} | {} | {} | `{}` |",
            field("name"),
            field("stage"),
            field("stage_version"),
            shown(digest)
        );
    }
    card.push('\n');
}

/// A field of the closing line of the last stage of this kind.
fn finished<'a>(record: &'a [Segment], stage: &str, pointer: &str) -> Option<&'a Value> {
    lookup(record, stage, "finished", pointer)
}

fn started<'a>(record: &'a [Segment], stage: &str, pointer: &str) -> Option<&'a Value> {
    lookup(record, stage, "started", pointer)
}

fn lookup<'a>(record: &'a [Segment], stage: &str, event: &str, pointer: &str) -> Option<&'a Value> {
    // The first evaluation is that of the base model.
    let segment = match stage {
        "evaluate" => record.iter().find(|segment| {
            let first = segment.lines().first();
            first.and_then(|line| line.fields.get("stage")).and_then(Value::as_str) == Some(stage)
        }),
        _ => recorded(record, stage),
    }?;
    let mut parts = pointer.trim_start_matches('/').split('/');
    let mut value = segment.event(event)?.fields.get(parts.next()?)?;
    for part in parts {
        value = value.get(part)?;
    }
    Some(value)
}

fn row(card: &mut String, name: &str, value: &str) {
    let _ = writeln!(card, "| {name} | {value} |");
}

/// What a person stated, safe inside a table.
fn stated(text: &str) -> String {
    if text.trim().is_empty() {
        NOT_RECORDED.to_string()
    } else {
        text.replace('|', "\\|").replace('\n', " ")
    }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => NOT_RECORDED.to_string(),
        Some(Value::String(text)) => stated(text),
        Some(Value::Number(number)) if number.is_f64() => format!("{:.4}", number.as_f64().unwrap_or(0.0)),
        Some(other) => other.to_string(),
    }
}

fn decimals(value: Option<&Value>) -> String {
    number(value).map_or(NOT_RECORDED.to_string(), |number| format!("{number:.3}"))
}

fn number(value: Option<&Value>) -> Option<f64> {
    value.and_then(Value::as_f64)
}

fn two_digits(value: Option<&Value>) -> String {
    number(value).map_or(NOT_RECORDED.to_string(), |number| format!("{number:.1e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_recorded_means_not_recorded() {
        let card = render(&Settings::default(), &[]);
        for heading in ["## Model and training", "## Training text", "## Evaluation"] {
            let section = card.split(heading).nth(1).unwrap_or_default();
            assert!(section.starts_with("\n\n"), "{heading} is missing");
            assert!(section.contains(NOT_RECORDED), "{heading} guesses");
        }
        assert!(!card.contains("proves that the pipeline works"));
    }

    #[test]
    fn facts_come_from_the_record() {
        let mut corpus = Segment::default();
        corpus.add("t", "started", json!({"name": "corpus", "stage": "corpus", "stage_version": 1}));
        corpus.add(
            "t",
            "finished",
            json!({"counts": {"languages": {"mt": {
                "read": 23, "kept": 21, "dropped": {"opted_out": 2}, "train": {"bytes": 9000}, "heldout": {"bytes": 1},
            }}}}),
        );
        let mut pretrain = Segment::default();
        pretrain.add(
            "t",
            "started",
            json!({"name": "pretrain", "stage": "pretrain", "settings": {"steps": 7}}),
        );
        pretrain.add(
            "t",
            "finished",
            json!({"counts": {"parameters": 900_000, "floating_point_operations": 3.14e13}}),
        );
        let settings =
            Settings { title: "Żgħira".into(), license: "Apache-2.0".into(), ..Settings::default() };
        let card = render(&settings, &[corpus, pretrain]);
        for fact in [
            "- \"mt\"",
            "| mt | 23 | 21 | 2 | 9001 |",
            "900000",
            "3.1e13",
            "\"steps\": 7",
            "# Żgħira",
            "license: apache-2.0",
        ] {
            assert!(card.contains(fact), "{fact} is missing in\n{card}");
        }
        assert!(card.contains("proves that the pipeline works"));
    }
}
