//! `eulalia bench quality`: what fewer bits cost, text by text, beside the same model in f32.

use std::path::PathBuf;

use anyhow::{Context, bail};
use inference::{Quality, WindowLogits};
use model::WeightFormat;
use serde_json::{Value, json};
use tokenizer::Tokenizer;

use crate::arguments::BenchQualityArguments;
use crate::console;
use crate::run::World;

pub fn quality(arguments: &BenchQualityArguments, world: &World) -> anyhow::Result<Value> {
    let folder = &arguments.model;
    let window = arguments.window as usize;
    let load = |format, as_answers| WindowLogits::load(folder, format, window, as_answers, world.threads);
    let mut reference = load(WeightFormat::F32, false)?;
    let texts = texts(arguments, &reference)?;
    let mut formats = Vec::new();
    for &format in &arguments.weights {
        let mut model = load(format, arguments.as_answers)?;
        let mut all = Quality::default();
        let mut measured = Vec::new();
        for (name, tokens) in &texts {
            world.cancellation.check()?;
            let quality = Quality::measure(&mut reference, &mut model, tokens)
                .with_context(|| format!("{name}, {}", folder.display()))?;
            if quality.tokens() == 0 {
                bail!(
                    "{name}: {} tokens, and a window has {window}: give more text or --window",
                    tokens.len()
                );
            }
            all.add(&quality);
            measured.push((name.clone(), quality));
        }
        measured.push(("all".to_string(), all));
        let rows: Vec<Vec<String>> = measured.iter().map(|(name, quality)| row(name, quality)).collect();
        let headings = [
            format.name(),
            "tokens",
            "perplexity f32",
            "perplexity",
            "KL divergence",
            "same token",
            "logit error",
        ];
        world.console.say(&console::table(&headings, &rows, 1));
        let texts: Vec<Value> = measured.iter().map(|(name, quality)| figures(name, quality)).collect();
        formats.push(json!({"format": format.name(), "texts": texts}));
    }
    Ok(json!({
        "program": concat!("eulalia ", env!("CARGO_PKG_VERSION")),
        "model": folder.display().to_string(),
        "window": window,
        "as_answers": arguments.as_answers,
        "formats": formats,
    }))
}

/// Tokens of each text by its name; without texts, tokens by chance, for models of random weights.
fn texts(arguments: &BenchQualityArguments, model: &WindowLogits) -> anyhow::Result<Vec<(String, Vec<u32>)>> {
    if arguments.texts.is_empty() {
        let vocabulary = model.vocabulary_size() as u64;
        let mut state = 1u64;
        let tokens = std::iter::repeat_with(|| {
            // The generator of Knuth's MMIX; its high bits are good enough for this.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocabulary) as u32
        });
        return Ok(vec![(
            "tokens by chance".to_string(),
            tokens.take(2 * arguments.window as usize).collect(),
        )]);
    }
    let tokenizer = Tokenizer::load(&arguments.model)?;
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        Ok((name, tokenizer.encode_ordinary(&text)?))
    };
    arguments.texts.iter().map(read).collect()
}

fn row(name: &str, quality: &Quality) -> Vec<String> {
    vec![
        name.to_string(),
        quality.tokens().to_string(),
        format!("{:.3}", quality.reference_perplexity()),
        format!("{:.3}", quality.perplexity()),
        format!("{:.6}", quality.divergence()),
        format!("{:.1} %", quality.agreement() * 100.0),
        format!("{:.4}", quality.logit_error()),
    ]
}

fn figures(name: &str, quality: &Quality) -> Value {
    json!({
        "text": name,
        "tokens": quality.tokens(),
        "reference_perplexity": quality.reference_perplexity(),
        "perplexity": quality.perplexity(),
        "kl_divergence": quality.divergence(),
        "largest_kl_divergence": quality.largest_divergence(),
        "top_token_agreement": quality.agreement(),
        "logit_error": quality.logit_error(),
    })
}
