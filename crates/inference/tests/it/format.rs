//! Answers held to a form: whatever the model says, the text has it, and a form that cannot be followed is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use inference::testing::write_byte_tokenizer;
use inference::{
    Answer, AnswerFormat, Chunk, Decoder, DecoderShape, Engine, EngineSettings, FinishReason, Request, Rows,
    Sampling, SubmitError,
};
use serde_json::{Value, json};
use tokenizer::Tokenizer;

use crate::validator::fault;

const CONTEXT: usize = 4_096;

/// Tokens beyond the single bytes: pieces that straddle the parts of a JSON text and the bytes of a character.
const PIECES: [&str; 13] =
    ["{\"", "\":", "\",\"", "\"}", "[{", "}]", "tr", "ue}", "1.", "00", "  ", "ŁąÄ", "abc"];

/// A tokenizer of bytes and of [`PIECES`] (in its own alphabet of bytes).
fn tokenizer() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    write_byte_tokenizer(folder.path()).unwrap();
    let bytes = std::fs::read(folder.path().join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&bytes).unwrap();
    for (number, piece) in PIECES.iter().enumerate() {
        json["model"]["vocab"][piece.replace(' ', "Ġ")] = json!(260 + number);
    }
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

/// Says anything: logits are noise that depends on the last tokens, with a liking for what closes things.
struct Babbler {
    history: Vec<u32>,
    logits: Vec<f32>,
}

const VOCABULARY: usize = 280;

impl Decoder for Babbler {
    fn shape(&self) -> DecoderShape {
        let (vocabulary_size, hidden_size, context_length) = (VOCABULARY, 0, CONTEXT);
        DecoderShape { vocabulary_size, hidden_size, context_length, block_positions: 64, blocks: 1_024 }
    }

    fn forward(&mut self, chunks: &[Chunk<'_>]) -> Result<&[f32], String> {
        self.logits.clear();
        for chunk in chunks {
            for (index, &token) in chunk.tokens.iter().enumerate() {
                let wanted = match chunk.rows {
                    Rows::None => false,
                    Rows::Last => index + 1 == chunk.tokens.len(),
                    Rows::All => true,
                };
                let seed = u64::from(token) << 32 | (chunk.first_position + index) as u64;
                if wanted {
                    self.logits.extend((0..VOCABULARY as u64).map(|id| {
                        let mixed = (seed ^ id << 17).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                        let noise = (mixed >> 40) as f32 / (1u64 << 24) as f32 * 4.0;
                        let closing = (4..260).contains(&id) && b"\"]}0".contains(&((id - 4) as u8));
                        noise + if closing { 3.0 } else { 0.0 }
                    }));
                }
            }
        }
        self.history.clear();
        Ok(&self.logits)
    }

    fn hidden_states(&mut self, _: &[Chunk<'_>]) -> Result<&[f32], String> {
        Err("no hidden states".to_string())
    }

    fn copy_block(&mut self, _: u32, _: u32) {}
}

/// A tokenizer as SentencePiece makes them: `▁` for a space, single bytes by name, several tokens of the same bytes.
fn sentencepiece() -> Tokenizer {
    let special = ["<unk>", "<s>", "</s>"].map(str::to_string);
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let pieces =
        ["▁", "▁a", "a", "{\"", "\":", "▁tr", "ue", "ναι", "\",▁\"", "1", "▁▁", "]}"].map(str::to_string);
    let vocabulary: Vec<Value> =
        special.into_iter().chain(bytes).chain(pieces).map(|piece| json!([piece, -1.0])).collect();
    let added: Vec<Value> = (0..3)
        .map(|id| {
            json!({"id": id, "content": (["<unk>", "<s>", "</s>"][id]), "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let decoders = json!([
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    ]);
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": true}
    });
    Tokenizer::from_json(tokenizer.to_string().as_bytes()).unwrap()
}

fn engine() -> Engine {
    engine_over(tokenizer())
}

fn engine_over(tokenizer: Tokenizer) -> Engine {
    let babbler = Babbler { history: Vec::new(), logits: Vec::new() };
    let settings = EngineSettings { running_requests: 8, ..EngineSettings::default() };
    Engine::over(Box::new(babbler), Vec::new(), Arc::new(tokenizer), vec![0], &settings).unwrap()
}

fn request(format: AnswerFormat, seed: u64) -> Request {
    let samplings = [
        Sampling { temperature: 1.0, ..Sampling::default() },
        Sampling { temperature: 1.5, top_k: 5, frequency_penalty: 0.2, ..Sampling::default() },
        Sampling { temperature: 0.7, top_p: 0.5, repetition_penalty: 1.2, ..Sampling::default() },
        Sampling { temperature: 2.0, min_p: 0.2, presence_penalty: 1.0, ..Sampling::default() },
        // Asks for what the form rules out.
        Sampling { temperature: 1.0, logit_bias: [(4 + 0x21, 100.0)].into(), ..Sampling::default() },
        Sampling::default(),
    ];
    Request {
        sampling: Sampling { seed, ..samplings[seed as usize % samplings.len()].clone() },
        format: Some(format),
        speculation: Some(if seed.is_multiple_of(2) { 8 } else { 0 }),
        logprobs: Some(1),
        ..Request::new("a", vec![4 + 65 + (seed % 20) as u32])
    }
}

fn answers(engine: &Engine, format: &AnswerFormat, count: u64) -> Vec<Answer> {
    let handles: Vec<_> =
        (0..count).map(|seed| engine.submit(request(format.clone(), seed)).unwrap()).collect();
    handles.into_iter().map(|handle| handle.wait().unwrap()).collect()
}

/// Schemas: nested, unions, enums, references, Unicode; all of them bounded, so that babble ends.
fn schemas() -> Vec<Value> {
    serde_json::from_str(include_str!("../golden/schemas.json")).unwrap()
}

#[test]
fn babble_held_to_a_schema_validates() {
    let engine = engine();
    let (mut whole, mut texts) = (0, 0);
    for schema in schemas() {
        let format = AnswerFormat::JsonSchema(schema.clone());
        let answers = answers(&engine, &format, 12);
        for (seed, answer) in answers.iter().enumerate() {
            texts += 1;
            if answer.reason == Some(FinishReason::EndOfText) {
                whole += 1;
                assert_eq!(fault(&schema, &answer.text), None, "{schema}, seed {seed}: {}", answer.text);
            } else {
                assert_eq!(answer.reason, Some(FinishReason::ContextLength), "{schema}, seed {seed}");
            }
        }
        let ended = answers.iter().filter(|answer| answer.reason == Some(FinishReason::EndOfText)).count();
        assert!(ended > 0, "{schema}: no answer came to its end");
        // Alone, without guessing ahead: the same.
        let alone = Request { speculation: None, ..request(format, 4) };
        assert_eq!(engine.submit(alone).unwrap().wait().unwrap(), answers[4], "{schema}");
    }
    assert!(whole * 10 >= texts * 9, "{whole} of {texts} came to their end");
}

#[test]
fn a_vocabulary_of_pieces_holds_a_form_too() {
    let engine = engine_over(sentencepiece());
    let schema = json!({"type": "object", "properties": {"ναι": {"type": "boolean"}, "a": {"type": "string", "maxLength": 5}},
        "required": ["ναι", "a"], "additionalProperties": false});
    let answers = answers(&engine, &AnswerFormat::JsonSchema(schema.clone()), 24);
    let ended = |answer: &&Answer| answer.reason == Some(FinishReason::EndOfText);
    assert!(answers.iter().filter(ended).count() > 20);
    for answer in answers.iter().filter(ended) {
        assert_eq!(fault(&schema, &answer.text), None, "{}", answer.text);
    }
    let pieces = answers.iter().flat_map(|answer| &answer.ids).filter(|id| **id >= 259).count();
    assert!(pieces > 0, "tokens of several bytes are used");
}

#[test]
fn patterns_dates_and_objects_hold() {
    let engine = engine();
    let pattern = json!({"type": "string", "pattern": "^[A-ZÅÄÖ]{2}-[0-9]{3,5}$"});
    for answer in answers(&engine, &AnswerFormat::JsonSchema(pattern), 12) {
        let text: String = serde_json::from_str(&answer.text).unwrap();
        let (letters, digits) = text.split_once('-').unwrap();
        assert!(
            letters.chars().count() == 2
                && letters.chars().all(|letter| "ÅÄÖ".contains(letter) || letter.is_ascii_uppercase()),
            "{text}"
        );
        assert!((3..=5).contains(&digits.len()) && digits.parse::<u32>().is_ok(), "{text}");
    }
    let date = json!({"type": "string", "format": "date"});
    for answer in answers(&engine, &AnswerFormat::JsonSchema(date), 12) {
        let text: String = serde_json::from_str(&answer.text).unwrap();
        let parts: Vec<u32> = text.split('-').map(|part| part.parse().unwrap()).collect();
        assert!(text.len() == 10 && (1..=12).contains(&parts[1]) && (1..=31).contains(&parts[2]), "{text}");
    }
    for answer in answers(&engine, &AnswerFormat::JsonObject, 6) {
        if answer.reason == Some(FinishReason::EndOfText) {
            assert_eq!(fault(&json!({"type": "object"}), &answer.text), None, "{}", answer.text);
        }
        assert!(answer.text.starts_with('{'));
    }
}

#[test]
fn expressions_and_grammars_hold() {
    let engine = engine();
    for answer in answers(&engine, &AnswerFormat::Regex("(ja|nein|Ολα)( !){1,3}".to_string()), 12) {
        let rest = ["ja", "nein", "Ολα"].iter().find_map(|word| answer.text.strip_prefix(word)).unwrap();
        assert!([" !", " ! !", " ! ! !"].contains(&rest), "{:?}", answer.text);
        assert_eq!(answer.reason, Some(FinishReason::EndOfText));
    }
    let sums = "start: number (\"+\" number){1,3}\nnumber: /[1-9][0-9]{0,2}/\n";
    for answer in answers(&engine, &AnswerFormat::Lark(sums.to_string()), 12) {
        let numbers: Vec<&str> = answer.text.split('+').collect();
        assert!((2..=4).contains(&numbers.len()), "{:?}", answer.text);
        assert!(numbers.iter().all(|number| (1..=999).contains(&number.parse::<u32>().unwrap())));
    }
}

#[test]
fn an_answer_that_may_end_ends_by_a_token_of_the_end() {
    let engine = engine();
    let request = |bias: f32| Request {
        sampling: Sampling { logit_bias: [(0, bias)].into(), ..Sampling::default() },
        format: Some(AnswerFormat::Regex("a*".to_string())),
        max_tokens: Some(50),
        ..Request::new("a", vec![70])
    };
    let answer = engine.submit(request(100.0)).unwrap().wait().unwrap();
    assert_eq!((answer.text.as_str(), answer.reason), ("", Some(FinishReason::EndOfText)));
    let answer = engine.submit(request(-100.0)).unwrap().wait().unwrap();
    assert!(answer.reason == Some(FinishReason::MaxTokens) && answer.text.bytes().all(|byte| byte == b'a'));
}

#[test]
fn what_cannot_be_followed_is_refused_with_its_place() {
    let engine = engine();
    let check = |format: AnswerFormat, expected_place: &str, words: &str| {
        let began = Instant::now();
        match engine.submit(request(format.clone(), 0)).err() {
            Some(SubmitError::Format { place, problem, .. }) => {
                assert_eq!(place, expected_place, "{format:?}: {problem}");
                assert!(problem.contains(words), "{problem:?} should say {words:?}");
                assert!(problem.len() < 1_000, "{} bytes: {problem}", problem.len());
            }
            other => panic!("{format:?}: {other:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    };
    let schema = |schema| AnswerFormat::JsonSchema(schema);
    let object = |part: Value| json!({"type": "object", "properties": {"ok": {"type": "null"}, "part": part}, "required": ["part"]});
    check(schema(json!(false)), "", "nsatisfiable");
    check(schema(json!({"type": "integer", "minimum": 5, "maximum": 3})), "", "");
    check(schema(object(json!({"type": "string", "minLength": 9, "maxLength": 3}))), "/properties/part", "");
    check(
        schema(object(
            json!({"type": "array", "items": {"allOf": [{"type": "string"}, {"type": "null"}]}, "minItems": 1}),
        )),
        "/properties/part/items",
        "nsatisfiable",
    );
    check(schema(object(json!({"type": "unicorn"}))), "/properties/part", "unicorn");
    check(schema(object(json!({"not": {"type": "string"}}))), "/properties/part", "not");
    check(schema(object(json!({"type": "array", "uniqueItems": true}))), "/properties/part", "uniqueItems");
    check(schema(object(json!({"type": "string", "pattern": "(a"}))), "/properties/part", "");
    check(schema(object(json!({"$ref": "#/$defs/none"}))), "/properties/part", "none");
    check(schema(object(json!({"$ref": "http://localhost/x.json"}))), "", "ref");
    check(schema(object(json!({"x-guidance": {"lenient": true}}))), "/properties/part", "x-guidance");
    let many: serde_json::Map<String, Value> =
        (0..401).map(|number| (number.to_string(), json!({}))).collect();
    check(schema(object(json!({"properties": many}))), "/properties/part", "401 properties");
    check(schema(json!({"description": "x".repeat(2 << 20)})), "", "at most 262144");
    check(AnswerFormat::Regex("(a".to_string()), "", "unclosed group");
    check(AnswerFormat::Regex("a(?=b)".to_string()), "", "");
    check(AnswerFormat::Lark("start: nothing".to_string()), "", "nothing");
    check(AnswerFormat::Lark(String::new()), "", "");
}

#[test]
fn hostile_forms_end_in_bounded_time() {
    let engine = engine();
    let mut deep = json!({"type": "integer"});
    for _ in 0..60 {
        deep = json!({"type": "array", "items": deep, "minItems": 1});
    }
    // Each level refers to the next one twice: 2^40 leaves, were they written out.
    let mut doubling = serde_json::Map::new();
    for level in 0..40 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        doubling.insert(format!("d{level}"), json!({"allOf": [next.clone(), next]}));
    }
    doubling.insert("d40".to_string(), json!({"type": "integer"}));
    let crossing: Vec<Value> = (0..14)
        .map(|number| {
            let name = format!("p{number}");
            json!({"anyOf": [{"properties": {name.clone(): {"type": "null"}}}, {"properties": {name: {"type": "boolean"}}}]})
        })
        .collect();
    // As large as may be, in several directions.
    let wide: serde_json::Map<String, Value> =
        (0..400).map(|number| (format!("{number:x}"), json!({}))).collect();
    let chain: serde_json::Map<String, Value> = (0..5_000)
        .map(|number| {
            (format!("{number:x}"), json!({"allOf": [{"$ref": format!("#/$defs/{:x}", number + 1)}]}))
        })
        .chain([(format!("{:x}", 5_000), json!({"type": "integer"}))])
        .collect();
    let values: Vec<Value> = (0..15_000).map(|number| json!(format!("{number:x}Ω"))).collect();
    let long = "x".repeat(200_000);
    let schemas = [
        ("deep", deep),
        ("crossing", json!({"type": "object", "allOf": crossing})),
        ("wide", json!({"type": "object", "properties": wide})),
        ("chain", json!({"$ref": "#/$defs/0", "$defs": chain})),
        ("doubling", json!({"$ref": "#/$defs/d0", "$defs": doubling})),
        ("endless", json!({"$ref": "#"})),
        ("values", json!({"enum": values})),
        ("long", json!({"const": long})),
        (
            "repeated",
            json!({"type": "array", "minItems": 100_000, "maxItems": 200_000, "items": {"type": "integer"}}),
        ),
    ];
    let brackets = |count| format!("start: {}\"a\"{}", "(".repeat(count), ")".repeat(count));
    let rules: String = (0..8_000).map(|number| format!("r{number}: r{}\n", number + 1)).collect();
    let forms = [
        ("brackets", AnswerFormat::Lark(brackets(100_000))),
        ("fewer brackets", AnswerFormat::Lark(brackets(100))),
        ("rules", AnswerFormat::Lark(format!("start: r0\n{rules}r8000: \"a\"\n"))),
        ("left", AnswerFormat::Lark("start: start start | \"a\" | \"\"".to_string())),
        ("alternatives", AnswerFormat::Regex((0..20_000).map(|number| format!("{number:x}|")).collect())),
        ("repeats", AnswerFormat::Regex("(a{0,50}b{0,50}){0,50}".to_string())),
        ("exponential", AnswerFormat::Regex("(.*a.{20})*".to_string())),
    ];
    let schemas = schemas.map(|(name, schema)| (name, AnswerFormat::JsonSchema(schema)));
    for (name, form) in schemas.into_iter().chain(forms) {
        let began = Instant::now();
        let taken = engine.submit(Request { max_tokens: Some(3), ..request(form, 1) });
        let outcome =
            taken.map(|handle| handle.wait().map(|answer| answer.text)).map_err(|error| error.to_string());
        assert!(began.elapsed() < Duration::from_secs(60), "{name}: {:?}, {outcome:.200?}", began.elapsed());
    }
}
