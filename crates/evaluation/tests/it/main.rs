//! The stage over a small corpus, with models that are functions: what they should cost is known beforehand.

use std::fs;
use std::path::Path;

use documents::{Document, ShardWriter};
use evaluation::{Error, Results, Score, Settings, evaluate};
use provenance::digest::sha256;
use provenance::{Context, StageOutput};
use tokenizer::Tokenizer;

const TEXTS: [(&str, &str, &str); 3] = [
    ("bg", "Котката спи до прозореца, а навън вали цял ден.", "Кучето спи до вратата, а навън вали."),
    ("mt", "Il-qattus rieqed ħdejn it-tieqa waqt li barra nieżla x-xita.", "Il-kelb rieqed ħdejn il-bieb."),
    ("sv", "Katten sover vid fönstret medan det regnar ute hela dagen.", "Hunden sover vid dörren."),
];

fn shard(path: &Path, texts: &[&str]) {
    let mut shard = ShardWriter::create(&Context::quiet(1).storage, path).unwrap();
    for (number, text) in texts.iter().enumerate() {
        shard.write(&Document::new(number.to_string(), *text)).unwrap();
    }
    shard.finish().unwrap();
}

fn output_in(folder: &Path, name: &str) -> StageOutput {
    let output = StageOutput {
        payload: folder.join(name).join("payload"),
        scratch: folder.join(name).join("scratch"),
    };
    fs::create_dir_all(&output.payload).unwrap();
    fs::create_dir_all(&output.scratch).unwrap();
    output
}

/// A corpus of three languages and a tokenizer whose tokens are bytes (260 entries).
fn corpus_and_tokenizer(folder: &Path) -> Tokenizer {
    for split in ["train", "heldout"] {
        fs::create_dir_all(folder.join("corpus").join(split)).unwrap();
    }
    for (code, training, held_out) in TEXTS {
        shard(&folder.join(format!("corpus/train/{code}.jsonl.zst")), &[training, training]);
        shard(&folder.join(format!("corpus/heldout/{code}.jsonl.zst")), &[held_out, training]);
    }
    let output = output_in(folder, "tokenizer");
    let settings = tokenizer::Settings { vocabulary_size: 260, ..tokenizer::Settings::default() };
    tokenizer::build(&settings, &folder.join("corpus"), None, &output, &Context::quiet(1)).unwrap();
    Tokenizer::load(&output.payload).unwrap()
}

fn measured(
    settings: &Settings,
    score: Score<'_>,
    threads: usize,
) -> Result<(Results, String, String), Error> {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = corpus_and_tokenizer(folder.path());
    let output = output_in(folder.path(), "evaluate");
    let corpus = folder.path().join("corpus");
    let (results, _) = evaluate(settings, &tokenizer, score, &corpus, &output, &Context::quiet(threads))?;
    let read = |name: &str| fs::read_to_string(output.payload.join(name)).unwrap();
    Ok((results, read("results.json"), read("results.md")))
}

/// Every token has the probability 1/16.
fn four_bits(tokens: &[u32]) -> Result<Vec<f32>, String> {
    Ok(vec![-(16f32.ln()); tokens.len() - 1])
}

#[test]
fn a_uniform_model_costs_what_it_must() {
    let settings = Settings { context_length: 7, stride: 3, ..Settings::default() };
    let (results, json, markdown) = measured(&settings, &mut four_bits, 2).unwrap();
    assert_eq!(results.languages.len(), 3);
    for (code, training, held_out) in TEXTS {
        let language = &results.languages[code];
        assert_eq!(language.documents, 2);
        assert_eq!(language.bytes, (training.len() + held_out.len()) as u64);
        assert_eq!(language.tokens, language.bytes, "a token is a byte");
        assert!((language.figures.bits_per_byte - 4.0).abs() < 1e-6, "{code}");
        let half_known = language.figures;
        assert!(
            half_known.ngram_bits_per_byte < 4.0 && half_known.lzma_bits_per_byte < 6.0,
            "{half_known:?}"
        );
    }
    assert!((results.mean.bits_per_byte - 4.0).abs() < 1e-6);
    assert!(json.contains("\"bits_per_byte\": ") && json.contains("\"lzma_bits_per_byte\": "));
    assert!(markdown.contains("| mt | 4.000 | "), "{markdown}");
    let columns: Vec<usize> =
        markdown.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count()).collect();
    assert_eq!(columns, [10; 6], "a head, a rule, three languages and the mean: {markdown}");
}

#[test]
fn results_do_not_depend_on_threads() {
    let run = |threads| measured(&Settings::default(), &mut four_bits, threads).unwrap();
    assert_eq!(run(1), run(3));
}

#[test]
fn a_token_is_judged_by_what_stands_before_it() {
    // A model that is sure of a token when the one before it is visible: only window starts could betray it.
    let mut score = |tokens: &[u32]| -> Result<Vec<f32>, String> {
        Ok((1..tokens.len()).map(|position| if position > 1 { 0.0 } else { -1.0 }).collect())
    };
    let mut cost = |stride| {
        let settings = Settings { context_length: 8, stride, ..Settings::default() };
        let (results, _, _) = measured(&settings, &mut score, 1).unwrap();
        results.joint.bits_per_byte
    };
    // With two tokens or more of context, only the first token of each of the 6 documents costs 1 nat.
    let bytes: usize = TEXTS.iter().map(|(_, training, held_out)| training.len() + held_out.len()).sum();
    let expected = 6.0 / std::f64::consts::LN_2 / bytes as f64;
    assert!((cost(4) - expected).abs() < 1e-6);
    assert!((cost(6) - expected).abs() < 1e-6);
    // With one token of context, each window's first scored token costs too.
    assert!(cost(7) > 2.0 * expected);
}

#[test]
fn broken_models_and_inputs_end_in_one_clear_message() {
    let check = |score: Score<'_>, expected: &str| {
        let message = measured(&Settings::default(), score, 1).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(&mut |tokens| Ok(vec![f32::NAN; tokens.len() - 1]), "log probability NaN");
    check(&mut |tokens| Ok(vec![0.5; tokens.len() - 1]), "log probability 0.5");
    check(&mut |tokens| Ok(vec![0.0; tokens.len()]), "one for each but the first");
    check(&mut |_| Err("out of memory".to_owned()), "document `0` (bg): out of memory");
    let settings = Settings { stride: 0, ..Settings::default() };
    assert!(measured(&settings, &mut four_bits, 1).unwrap_err().to_string().contains("stride = 0"));

    let folder = tempfile::tempdir().unwrap();
    let tokenizer = corpus_and_tokenizer(folder.path());
    let output = output_in(folder.path(), "evaluate");
    fs::remove_dir_all(folder.path().join("corpus/heldout")).unwrap();
    let corpus = folder.path().join("corpus");
    let run =
        || evaluate(&Settings::default(), &tokenizer, &mut four_bits, &corpus, &output, &Context::quiet(1));
    assert!(run().unwrap_err().to_string().contains("heldout: cannot be read"));
    fs::create_dir(corpus.join("heldout")).unwrap();
    assert!(run().unwrap_err().to_string().contains("holds no held-out text"));
    let cancelled = Context::quiet(1);
    cancelled.cancellation.cancel();
    shard(&corpus.join("heldout/bg.jsonl.zst"), &["Котката спи."]);
    let stopped = evaluate(&Settings::default(), &tokenizer, &mut four_bits, &corpus, &output, &cancelled);
    assert!(matches!(stopped, Err(Error::Cancelled(_))));
}

/// The golden digest of the stage, over a model that is a function. If it changes, the same text and the same model get
/// another table: raise `STAGE_VERSION` and write both down here.
#[test]
fn the_bytes_of_a_stage_version_stay() {
    let (_, json, markdown) = measured(&Settings::default(), &mut four_bits, 2).unwrap();
    let files = [("results.json", sha256(json.as_bytes())), ("results.md", sha256(markdown.as_bytes()))];
    let golden = (evaluation::STAGE_VERSION, provenance::digest::sha256_of_set(files).to_string());
    assert_eq!(golden, (2, "9ef93ee0a06d47f2f98e1da01ec91b31d18ad4476c9101e33db9afd991a89693".to_string()));
}
