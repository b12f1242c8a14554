//! Tokenizers into a file and back: the same ids, with and without the `tokenizer.json` that a file may carry.

use crate::models;
use gguf::{Array, ElementType, GgufWriter, Metadata, Model, TensorPlan, TokenizerFiles, Value};
use serde_json::json;
use std::collections::BTreeMap;
use tokenizers::Tokenizer;

const TEXTS: [&str; 6] = [
    "It-tfal jilagħbu fil-ġnien, u l-kelb jorqod.",
    "Η γάτα κοιμάται στο παράθυρο· η μέρα είναι ζεστή.",
    "Котката спи на прозореца, а денят е топъл. 2026!",
    "Codlaíonn an cat ar an bhfuinneog; tá an lá te.",
    "don't  stop\n\n12345 x",
    "",
];

/// A byte-level vocabulary learnt from the texts, as Llama 3's are written.
fn byte_level(pattern: &str) -> serde_json::Value {
    let alphabet: BTreeMap<u8, char> = byte_alphabet();
    let mut tokens: Vec<String> = vec!["<|begin|>".into(), "<|end|>".into(), "<|turn|>".into()];
    tokens.extend(alphabet.values().map(char::to_string));
    let mut merges: Vec<[String; 2]> = Vec::new();
    for text in TEXTS {
        for word in text.split_inclusive(' ') {
            let letters: Vec<String> = word.bytes().map(|byte| alphabet[&byte].to_string()).collect();
            let mut left = letters.first().cloned().unwrap_or_default();
            for letter in letters.iter().skip(1).take(4) {
                let joined = format!("{left}{letter}");
                if !tokens.contains(&joined) {
                    merges.push([left, letter.clone()]);
                    tokens.push(joined.clone());
                }
                left = joined;
            }
        }
    }
    let special = |id: usize| {
        json!({ "id": id, "content": tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0), special(1), special(2)],
        "normalizer": null,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
        ]},
        "post_processor": { "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<|begin|>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "<|begin|>": { "id": "<|begin|>", "ids": [0], "tokens": ["<|begin|>"] } } },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocabulary, "merges": merges },
    })
}

fn byte_alphabet() -> BTreeMap<u8, char> {
    let mut next = 0x100;
    (0..=255u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => (byte, char::from(byte)),
            _ => {
                next += 1;
                (byte, char::from_u32(next - 1).unwrap())
            }
        })
        .collect()
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn settings() -> serde_json::Value {
    json!({ "bos_token": "<|begin|>", "eos_token": { "content": "<|end|>" }, "pad_token": null,
            "chat_template": "{{ messages[0]['content'] }}" })
}

/// The metadata of a file with this tokenizer.
fn written(
    tokenizer: &serde_json::Value,
    settings: &serde_json::Value,
    rows: usize,
) -> (Metadata, Option<String>) {
    let files = TokenizerFiles { tokenizer: tokenizer.clone(), config: settings.clone() };
    let (bytes, warning) = models::tiny_with_tokenizer(&files, rows);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    (Model::open(&path).unwrap().file().metadata().clone(), warning)
}

/// What a file with this metadata says of its tokenizer.
fn read(metadata: &Metadata) -> Result<TokenizerFiles, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let metadata: Vec<(String, Value)> = metadata.clone().into_iter().collect();
    let rows = match metadata.iter().find(|(key, _)| key == "llama.vocab_size") {
        Some((_, value)) => value.as_u64().unwrap() as usize,
        None => 1,
    };
    let plan =
        [TensorPlan { name: "token_embd.weight".into(), element: ElementType::F32, shape: vec![rows, 1] }];
    let mut bytes = Vec::new();
    let mut writer = GgufWriter::begin(&mut bytes, &metadata, &plan).unwrap();
    writer.numbers(&vec![0.0; rows]).unwrap();
    writer.finish();
    std::fs::write(&path, bytes).unwrap();
    Model::open(&path).unwrap().tokenizer().map(Option::unwrap).map_err(|error| error.to_string())
}

fn ids(tokenizer: &serde_json::Value, text: &str) -> Vec<u32> {
    let tokenizer = Tokenizer::from_bytes(tokenizer.to_string()).unwrap_or_else(|error| panic!("{error}"));
    tokenizer.encode(text, true).unwrap().get_ids().to_vec()
}

#[test]
fn a_byte_level_tokenizer_comes_back() {
    let tokenizer = byte_level(LLAMA3);
    let count = tokenizer["model"]["vocab"].as_object().unwrap().len();
    let (mut metadata, warning) = written(&tokenizer, &settings(), count + 5);
    assert_eq!(warning, None);
    assert_eq!(metadata["tokenizer.ggml.pre"].as_str(), Some("llama-bpe"));
    assert_eq!(metadata["tokenizer.ggml.eos_token_id"].as_u64(), Some(1));
    assert_eq!(metadata["tokenizer.ggml.eot_token_id"].as_u64(), Some(2));
    assert_eq!(metadata["tokenizer.ggml.tokens"].as_array().unwrap().len(), count + 5);
    let found = read(&metadata).unwrap();
    assert_eq!(found.tokenizer, tokenizer);
    assert_eq!(found.config["eos_token"], "<|end|>");
    assert_eq!(found.config["chat_template"], "{{ messages[0]['content'] }}");
    metadata.remove("tokenizer.huggingface.json");
    let found = read(&metadata).unwrap();
    for text in TEXTS.into_iter().chain(["<|turn|>ħobż<|end|>", "Ωmega"]) {
        assert_eq!(ids(&found.tokenizer, text), ids(&tokenizer, text), "{text:?}");
    }
    assert_eq!(ids(&found.tokenizer, "x")[0], 0, "the beginning is added");
}

/// Of several templates each is there by its name, as llama.cpp looks for them.
#[test]
fn templates_with_names_come_back() {
    let tokenizer = byte_level(LLAMA3);
    let template = |name: &str, text: &str| json!({ "name": name, "template": text });
    let check = |written_as: serde_json::Value, keys: &[(&str, &str)], expected: serde_json::Value| {
        let mut settings = settings();
        settings["chat_template"] = written_as;
        let (mut metadata, _) = written(&tokenizer, &settings, 600);
        let found = metadata
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix("tokenizer.chat_template")?, value.as_str()?)));
        assert_eq!(found.collect::<Vec<_>>(), keys);
        let names = metadata.get("tokenizer.chat_templates").and_then(Value::as_array).map_or(0, Array::len);
        assert_eq!(names, keys.len().saturating_sub(1));
        assert_eq!(read(&metadata).unwrap().config["chat_template"], expected);
        metadata.remove("tokenizer.chat_templates");
        assert_eq!(
            read(&metadata).unwrap().config["chat_template"],
            expected,
            "llama.cpp does not look there"
        );
    };
    let (default, tools) = (template("default", "plain"), template("tool_use", "tools"));
    let keys = [("", "plain"), (".tool_use", "tools")];
    check(json!([default, tools]), &keys, json!([default, tools]));
    check(json!([tools, default]), &keys, json!([default, tools]));
    check(json!([default]), &keys[..1], json!("plain"));
    check(json!("plain"), &keys[..1], json!("plain"));
    let odd = template("à.b", "odd");
    check(
        json!([odd]),
        &[("", "odd"), (".__b", "odd")],
        json!([template("default", "odd"), template("__b", "odd")]),
    );
}

/// Tokens that stand in `tokenizer_config.json` alone are in the file, so that their rows of the embedding mean something.
#[test]
fn tokens_of_the_settings_alone_come_back() {
    let tokenizer = byte_level(LLAMA3);
    let count = tokenizer["model"]["vocab"].as_object().unwrap().len();
    let with = |id: usize, content: &str| {
        let mut settings = settings();
        let token = json!({ "content": content, "special": true, "lstrip": true });
        settings["added_tokens_decoder"] = json!({ id.to_string(): token, "1": { "content": "<|end|>" } });
        settings
    };
    let (mut metadata, _) = written(&tokenizer, &with(count, "<|call|>"), count + 2);
    let tokens = metadata["tokenizer.ggml.tokens"].as_array().and_then(Array::as_strings).unwrap();
    assert_eq!(tokens[count..], ["<|call|>".to_owned(), format!("[PAD{}]", count + 1)]);
    let Some(Array::I32(kinds)) = metadata["tokenizer.ggml.token_type"].as_array() else { panic!() };
    assert_eq!(kinds[count..], [3, 5], "control, unused");
    for carried in [true, false] {
        let found = read(&metadata).unwrap().tokenizer;
        assert_eq!(
            ids(&found, "x<|call|>")[1..],
            ids(&tokenizer, "x<|end|>")[1..2].iter().copied().chain([count as u32]).collect::<Vec<_>>()[..]
        );
        assert!(metadata.remove("tokenizer.huggingface.json").is_some() == carried);
    }
    let refused = |id: usize, content: &str, rows: usize, expected: &str| {
        let files = TokenizerFiles { tokenizer: tokenizer.clone(), config: with(id, content) };
        let message = models::plan_with_tokenizer(&files, rows).err().unwrap().to_string();
        assert!(message.contains(expected), "{message}\n  expected: {expected}");
    };
    refused(
        count + 1,
        "<|call|>",
        count + 2,
        &format!("\"<|call|>\" is token {}, with tokenizer.json it is {count}", count + 1),
    );
    refused(count, "<|call|>", count, &format!("but the model has {count} embeddings"));
}

#[test]
fn a_rule_that_llama_cpp_does_not_know_is_said() {
    let (metadata, warning) = written(&byte_level(r"\p{L}+['’]?|.+"), &settings(), 600);
    assert!(warning.unwrap().contains("may differ around apostrophes"));
    assert_eq!(read(&metadata).unwrap().tokenizer, byte_level(r"\p{L}+['’]?|.+"));
}

/// The rule of tokenizers trained here: llama.cpp is given the words that end in an apostrophe by their plain text, and no merge
/// that would make them; read here, the tokenizer is the one it was.
#[test]
fn words_with_an_apostrophe_are_tokens_of_their_own_for_llama_cpp() {
    let mut tokenizer = byte_level(gguf::OWN_RULE);
    let count = tokenizer["model"]["vocab"].as_object().unwrap().len();
    for (id, [left, right]) in [["Ġ", "l"], ["Ġl", "'"], ["l", "'"]].into_iter().enumerate() {
        tokenizer["model"]["vocab"][format!("{left}{right}")] = json!(count + id);
        tokenizer["model"]["merges"].as_array_mut().unwrap().push(json!([left, right]));
    }
    let (mut metadata, warning) = written(&tokenizer, &settings(), count + 3);
    assert!(warning.unwrap().contains("1 word that ends in an apostrophe as a token of its own"));
    assert_eq!(metadata["tokenizer.ggml.pre"].as_str(), Some("llama-bpe"));
    let tokens = metadata["tokenizer.ggml.tokens"].as_array().and_then(Array::as_strings).unwrap();
    assert_eq!(tokens[count..], ["Ġl", " l'", "l'"].map(String::from));
    let Some(Array::I32(kinds)) = metadata["tokenizer.ggml.token_type"].as_array() else { panic!() };
    assert_eq!(kinds[count..], [1, 4, 1], "normal, user-defined, normal");
    let merges = metadata["tokenizer.ggml.merges"].as_array().and_then(Array::as_strings).unwrap();
    assert!(merges.contains(&"l '".to_string()) && !merges.contains(&"Ġl '".to_string()), "{merges:?}");
    assert_eq!(read(&metadata).unwrap().tokenizer, tokenizer);
    // A file that lists another text for such a token lies, as with any other.
    let mut other = tokens.to_vec();
    other[count + 1] = " d'".into();
    metadata.insert("tokenizer.ggml.tokens".into(), Value::Array(Array::String(other)));
    assert!(read(&metadata).unwrap_err().contains("not of this model"));
}

/// SentencePiece's search: of all neighbours that make a token, the best score first, the leftmost of equals.
fn search(pieces: &[(String, f32)], text: &str) -> Vec<usize> {
    let find = |piece: &str| pieces.iter().position(|(token, _)| token == piece);
    let mut symbols: Vec<String> = format!("▁{}", text.replace(' ', "▁")).chars().map(String::from).collect();
    while let Some((_, place)) = symbols
        .windows(2)
        .enumerate()
        .filter_map(|(place, pair)| find(&pair.concat()).map(|id| (pieces[id].1, place)))
        .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))
    {
        let second = symbols.remove(place + 1);
        symbols[place].push_str(&second);
    }
    let bytes = |symbol: &str| {
        symbol.bytes().map(|byte| find(&format!("<0x{byte:02X}>")).unwrap()).collect::<Vec<_>>()
    };
    symbols.iter().flat_map(|symbol| find(symbol).map_or_else(|| bytes(symbol), |id| vec![id])).collect()
}

fn sentence_piece() -> (Metadata, Vec<(String, f32)>) {
    let mut pieces: Vec<(String, f32)> =
        vec![("<unk>".into(), 0.0), ("<s>".into(), 0.0), ("</s>".into(), 0.0)];
    pieces.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 0.0)));
    let mut kinds = [vec![2, 3, 3], vec![6; 256]].concat();
    for text in &TEXTS[..3] {
        let letters: Vec<char> = format!("▁{}", text.replace(' ', "▁")).chars().collect();
        for length in [2, 3, 4, 1] {
            for piece in letters.windows(length).step_by(if length == 1 { 1 } else { 3 }) {
                let piece: String = piece.iter().collect();
                if !pieces.iter().any(|(token, _)| *token == piece) {
                    pieces.push((piece, -(pieces.len() as f32)));
                    kinds.push(1);
                }
            }
        }
    }
    let tokens = pieces.iter().map(|(token, _)| token.clone()).collect();
    let mut metadata = models::metadata_of_tiny_llama();
    metadata.extend([
        ("llama.vocab_size".to_owned(), Value::U32(pieces.len() as u32)),
        ("tokenizer.ggml.model".to_owned(), Value::String("llama".into())),
        ("tokenizer.ggml.tokens".to_owned(), Value::Array(Array::String(tokens))),
        (
            "tokenizer.ggml.scores".to_owned(),
            Value::Array(Array::F32(pieces.iter().map(|piece| piece.1).collect())),
        ),
        ("tokenizer.ggml.token_type".to_owned(), Value::Array(Array::I32(kinds))),
        ("tokenizer.ggml.bos_token_id".to_owned(), Value::U32(1)),
        ("tokenizer.ggml.eos_token_id".to_owned(), Value::U32(2)),
        ("tokenizer.ggml.unknown_token_id".to_owned(), Value::U32(0)),
    ]);
    (metadata, pieces)
}

#[test]
fn scores_become_merges() {
    let (metadata, pieces) = sentence_piece();
    let found = read(&metadata).unwrap();
    for text in ["It-tfal jilagħbu", "Η γάτα κοιμάται", "Котката спи на прозореца", "漢 two  spaces"]
    {
        let mut expected: Vec<u32> = vec![1];
        expected.extend(search(&pieces, text).iter().map(|id| *id as u32));
        assert_eq!(ids(&found.tokenizer, text), expected, "{text:?}");
        let tokenizer = Tokenizer::from_bytes(found.tokenizer.to_string()).unwrap();
        assert_eq!(tokenizer.decode(&expected, true).unwrap(), text);
    }
    // Into a file and back: the scores are others, their order is the same.
    let (mut again, _) = written(&found.tokenizer, &found.config, pieces.len());
    assert_eq!(again["tokenizer.ggml.model"].as_str(), Some("llama"));
    again.remove("tokenizer.huggingface.json");
    let back = read(&again).unwrap();
    for text in TEXTS {
        assert_eq!(ids(&back.tokenizer, text), ids(&found.tokenizer, text), "{text:?}");
    }
}

#[test]
fn tokenizers_that_cannot_be_followed_are_refused() {
    let check = |change: &dyn Fn(&mut Metadata), expected: &str| {
        let mut metadata = sentence_piece().0;
        change(&mut metadata);
        let error = read(&metadata).unwrap_err();
        assert!(error.contains(expected), "{error}\n  expected: {expected}");
    };
    let set = |key: &'static str, value: Value| {
        move |metadata: &mut Metadata| drop(metadata.insert(key.into(), value.clone()))
    };
    let text = |text: &str| Value::String(text.into());
    check(&set("tokenizer.ggml.model", text("t5")), "tokenizer.ggml.model is \"t5\"");
    check(&set("tokenizer.ggml.model", text("gpt2")), "tokenizer.ggml.merges is missing");
    check(
        &|metadata| {
            set("tokenizer.ggml.model", text("gpt2"))(metadata);
            set("tokenizer.ggml.pre", text("hy_v4"))(metadata);
        },
        "tokenizer.ggml.pre is \"hy_v4\"",
    );
    check(&set("tokenizer.ggml.tokens", Value::U8(1)), "tokenizer.ggml.tokens is missing or no list");
    let twice = Value::Array(Array::String(vec!["a".into(); 2]));
    check(
        &|metadata| {
            set("tokenizer.ggml.tokens", twice.clone())(metadata);
            metadata.remove("tokenizer.ggml.token_type");
        },
        "are both \"a\"",
    );
    check(&set("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1]))), "token_type is no list");
    check(&set("tokenizer.ggml.bos_token_id", Value::U32(1 << 30)), "bos_token_id is no id below");
    let merge = |text: &str| Value::Array(Array::String(vec![text.into()]));
    check(&set("tokenizer.ggml.merges", merge("ab")), "merge 0 is \"ab\"");
    check(&set("tokenizer.ggml.merges", merge("no such")), "needs the token \"no\"");
    check(&set("tokenizer.huggingface.json", text("{}")), "no vocabulary");
    let other = r#"{"model": {"vocab": {"strange": 3}}}"#;
    check(&set("tokenizer.huggingface.json", text(other)), "one of them is not of this model");
    check(
        &|metadata| {
            let count = metadata["tokenizer.ggml.tokens"].as_array().unwrap().len();
            set("tokenizer.ggml.scores", Value::Array(Array::F32(vec![-1000.0; count])))(metadata);
        },
        "all scores are the same",
    );
}
