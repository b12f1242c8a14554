//! JSON Schemas of requests and answers. What may be absent may be `null` too: both count the same.

use serde_json::{Map, Value, json};

use crate::api::conversation::MOST_MESSAGES;
use crate::api::embeddings::MOST_INPUTS;
use crate::api::options::{LONGEST_STOP, LONGEST_USER, MOST_ALTERNATIVES, MOST_BIASES, MOST_STOPS};
use crate::api::variables;
use crate::settings::ServeSettings;

/// A reference to a schema of [`all`].
pub fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Any JSON object.
pub fn any() -> Value {
    json!({"type": "object"})
}

/// An answer with these properties, all of them always there.
pub fn object(properties: &[(&str, Value)]) -> Value {
    let names: Vec<&str> = properties.iter().map(|(name, _)| *name).collect();
    let map: Map<String, Value> =
        properties.iter().map(|(name, schema)| (name.to_string(), schema.clone())).collect();
    json!({"type": "object", "properties": map, "required": names})
}

/// Or `null`.
pub fn or_null(schema: Value) -> Value {
    json!({"anyOf": [schema, {"type": "null"}]})
}

/// A request with these properties and no others; all but `required` may be absent.
pub fn request(required: &[&str], properties: Vec<(&str, Value)>) -> Value {
    let property = |(name, schema): (&str, Value)| {
        let schema = if required.contains(&name) { schema } else { or_null(schema) };
        (name.to_string(), schema)
    };
    let map: Map<String, Value> = properties.into_iter().map(property).collect();
    json!({"type": "object", "properties": map, "required": required, "additionalProperties": false})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn flag() -> Value {
    json!({"type": "boolean"})
}

fn count(low: u64) -> Value {
    json!({"type": "integer", "minimum": low})
}

fn between(low: f64, high: f64) -> Value {
    json!({"type": "number", "minimum": low, "maximum": high})
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn one_of(values: &[&str]) -> Value {
    json!({"type": "string", "enum": values})
}

fn constant(value: &str) -> Value {
    json!({"type": "string", "const": value})
}

/// A token, of a request or an answer.
fn token_id() -> Value {
    named("TokenId")
}

/// Of the largest vocabulary among the models, where that is known.
fn bounded_token_id(vocabulary: Option<usize>) -> Value {
    let most = vocabulary.map_or(u64::from(u32::MAX), |size| (size as u64).saturating_sub(1));
    json!({
        "type": "integer", "minimum": 0, "maximum": most,
        "description": "A token of the model's vocabulary; another is refused with 400, `unknown_token` or `invalid_value`.",
    })
}

/// A string, strings, token ids, or lists of them.
fn prompts(most: usize) -> Value {
    let several = |items: Value| json!({"type": "array", "items": items, "minItems": 1, "maxItems": most});
    let tokens = json!({"type": "array", "items": token_id(), "minItems": 1});
    json!({"anyOf": [text(), several(text()), tokens, several(list(token_id()))]})
}

/// What one key used of one model on one day.
fn usage_entry() -> Value {
    let mut entry = vec![("date", text()), ("tenant", text()), ("key", text()), ("model", text())];
    let counts = ["requests", "refused", "prompt_tokens", "cached_prompt_tokens", "completion_tokens"];
    entry.extend(counts.map(|name| (name, count(0))));
    entry.push(("seconds", json!({"type": "number", "minimum": 0})));
    object(&entry)
}

/// All of them, by name.
pub fn all(settings: &ServeSettings, models: &[&str], vocabulary: Option<usize>) -> Value {
    let mut all = requests(settings.maximum_choices, models.len() == 1);
    all.insert("ModelName".into(), one_of(models));
    all.insert("TokenId".into(), bounded_token_id(vocabulary));
    all.extend(answers());
    all.extend(super::administration::all());
    Value::Object(all)
}

/// Bodies of requests. With `one_model`, the caller may use no other, and some need not name it.
fn requests(choices: usize, one_model: bool) -> Map<String, Value> {
    let needed: &[&str] = if one_model { &[] } else { &["model"] };
    let completion = vec![
        ("prompt", prompts(choices)),
        ("max_tokens", count(0)),
        ("echo", flag()),
        ("logprobs", json!({"type": "integer", "minimum": 0, "maximum": MOST_ALTERNATIVES})),
        ("best_of", json!({"const": 1})),
    ];
    let turns =
        json!({"type": "array", "items": named("ChatMessage"), "minItems": 1, "maxItems": MOST_MESSAGES});
    let chat = vec![
        ("messages", turns.clone()),
        (variables::FIELD, template_variables()),
        ("max_completion_tokens", count(1)),
        ("max_tokens", count(1)),
        ("logprobs", flag()),
        ("top_logprobs", json!({"type": "integer", "minimum": 0, "maximum": MOST_ALTERNATIVES})),
    ];
    let part = request(&["type", "text"], vec![("type", constant("text")), ("text", text())]);
    let content = json!({"anyOf": [text(), list(part)]});
    let roles = one_of(&["system", "developer", "user", "assistant"]);
    let message = vec![("role", roles), ("content", content), ("tool_calls", json!({"const": []}))];
    let embedding = vec![
        ("model", named("ModelName")),
        ("input", prompts(MOST_INPUTS)),
        ("pooling", one_of(&["mean", "last"])),
        ("encoding_format", one_of(&["float", "base64"])),
        ("user", user()),
    ];
    let tokenize = |named_as: &'static str, other: &'static str, own: Vec<(&'static str, Value)>| {
        let flags =
            ["add_special_tokens", "add_generation_prompt", "return_token_strs"].map(|name| (name, flag()));
        let shared = vec![("model", named("ModelName")), (other, json!({"type": "null"}))];
        request(&[needed, &[named_as]].concat(), [shared, own, flags.to_vec()].concat())
    };
    let detokenize = vec![("model", named("ModelName")), ("tokens", list(token_id()))];
    let mut chat_request = request(&["model", "messages"], [options(choices), chat].concat());
    let given = |name: &str| json!({"required": [name], "properties": {name: {"type": "integer"}}});
    let (old, new) = (given("max_tokens"), given("max_completion_tokens"));
    let alternatives = json!({"required": ["top_logprobs"], "properties": {"top_logprobs": {"minimum": 1, "type": "integer"}}});
    let probabilities = json!({"required": ["logprobs"], "properties": {"logprobs": {"const": true}}});
    chat_request["allOf"] =
        json!([{"not": {"allOf": [old, new]}}, {"if": alternatives, "then": probabilities}]);
    let schemas = [
        ("ResponseFormat", response_format()),
        ("ChatMessage", request(&["role", "content"], message)),
        ("CompletionRequest", request(&["model", "prompt"], [options(choices), completion].concat())),
        ("ChatCompletionRequest", chat_request),
        ("EmbeddingRequest", request(&["model", "input"], embedding)),
        ("TokenizeTextRequest", tokenize("prompt", "messages", vec![("prompt", text())])),
        (
            "TokenizeChatRequest",
            tokenize(
                "messages",
                "prompt",
                vec![("messages", turns), (variables::FIELD, template_variables())],
            ),
        ),
        ("TokenizeRequest", json!({"anyOf": [named("TokenizeTextRequest"), named("TokenizeChatRequest")]})),
        ("DetokenizeRequest", request(&[needed, &["tokens"]].concat(), detokenize)),
    ];
    schemas.into_iter().map(|(name, schema)| (name.to_string(), schema)).collect()
}

/// What completions and chat completions have in common.
fn options(choices: usize) -> Vec<(&'static str, Value)> {
    let stop = json!({"type": "string", "minLength": 1, "maxLength": LONGEST_STOP});
    let bias = json!({
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]{1,9}$"},
        "additionalProperties": between(-100.0, 100.0),
        "maxProperties": MOST_BIASES,
        "description": "By token id; one beyond the model's vocabulary is refused with 400.",
    });
    vec![
        ("model", named("ModelName")),
        ("stream", flag()),
        (
            "stream_options",
            request(&[], vec![("include_usage", flag()), ("include_obfuscation", json!({"const": false}))]),
        ),
        ("n", json!({"type": "integer", "minimum": 1, "maximum": choices})),
        ("seed", json!({"type": "integer", "minimum": i64::MIN, "maximum": u64::MAX})),
        ("stop", json!({"anyOf": [stop, {"type": "array", "items": stop, "maxItems": MOST_STOPS}]})),
        ("temperature", between(0.0, 2.0)),
        ("top_p", json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1})),
        ("top_k", count(0)),
        ("min_p", between(0.0, 1.0)),
        ("repetition_penalty", between(0.01, 100.0)),
        ("presence_penalty", between(-2.0, 2.0)),
        ("frequency_penalty", between(-2.0, 2.0)),
        ("logit_bias", bias),
        ("response_format", named("ResponseFormat")),
        ("user", user()),
        // What asks for nothing: clients send it unasked.
        ("tools", json!({"const": []})),
        ("functions", json!({"const": []})),
        ("tool_choice", one_of(&["none", "auto"])),
        ("parallel_tool_calls", flag()),
        ("modalities", json!({"const": ["text"]})),
        ("store", json!({"const": false})),
        ("metadata", json!({"const": {}})),
        ("service_tier", one_of(&["auto", "default"])),
        ("suffix", json!({"const": ""})),
    ]
}

fn template_variables() -> Value {
    json!({
        "type": "object",
        "propertyNames": {"pattern": variables::NAME_PATTERN, "not": {"enum": tokenizer::NAMES_OF_TEMPLATES}},
        "maxProperties": variables::MOST_VARIABLES,
        "description": "Further names for the model's chat template, such as {\"enable_thinking\": false}.",
    })
}

fn user() -> Value {
    json!({"type": "string", "maxLength": LONGEST_USER, "description": "Kept as a keyed digest only."})
}

fn response_format() -> Value {
    let schema = vec![
        ("name", text()),
        ("description", text()),
        ("strict", flag()),
        ("schema", json!({"type": ["object", "boolean"]})),
    ];
    json!({"anyOf": [
        request(&["type"], vec![("type", one_of(&["text", "json_object"]))]),
        request(&["type", "json_schema"], vec![
            ("type", constant("json_schema")),
            ("json_schema", request(&[], schema)),
        ]),
        request(&["type", "regex"], vec![("type", constant("regex")), ("regex", text())]),
        request(&["type", "grammar"], vec![("type", constant("lark")), ("grammar", text())]),
    ]})
}

fn answers() -> Map<String, Value> {
    let model =
        object(&[("id", text()), ("object", constant("model")), ("created", count(0)), ("owned_by", text())]);
    let usage =
        object(&[("prompt_tokens", count(0)), ("completion_tokens", count(0)), ("total_tokens", count(0))]);
    let reason = one_of(&["stop", "length"]);
    let choice = object(&[
        ("index", count(0)),
        ("text", text()),
        ("logprobs", or_null(any())),
        ("finish_reason", reason.clone()),
    ]);
    let message = object(&[
        ("role", constant("assistant")),
        ("content", or_null(text())),
        ("refusal", or_null(text())),
    ]);
    let chat_choice = object(&[
        ("index", count(0)),
        ("message", message),
        ("logprobs", or_null(any())),
        ("finish_reason", reason),
    ]);
    let answer = |kind: &str, choice: Value| {
        object(&[
            ("id", text()),
            ("object", constant(kind)),
            ("created", count(0)),
            ("model", text()),
            ("choices", list(choice)),
            ("usage", named("Usage")),
        ])
    };
    let embedding = object(&[
        ("object", constant("embedding")),
        ("index", count(0)),
        ("embedding", json!({"anyOf": [text(), list(json!({"type": "number"}))]})),
    ]);
    let error =
        object(&[("message", text()), ("type", text()), ("param", or_null(text())), ("code", text())]);
    let of_list = |items: Value| object(&[("object", constant("list")), ("data", list(items))]);
    let schemas = [
        ("Error", object(&[("error", error)])),
        ("Health", object(&[("status", constant("ok"))])),
        ("Readiness", object(&[("status", one_of(&["ready", "not ready"])), ("models", list(any()))])),
        ("Model", model),
        ("ModelList", of_list(named("Model"))),
        ("Usage", usage),
        ("Completion", answer("text_completion", choice)),
        ("ChatCompletion", answer("chat.completion", chat_choice)),
        ("EmbeddingList", of_list(embedding)),
        ("UsageList", object(&[("object", constant("list")), ("data", list(usage_entry()))])),
        (
            "Tokens",
            object(&[
                ("count", count(0)),
                ("max_model_len", or_null(count(1))),
                ("tokens", list(token_id())),
                ("token_strs", or_null(list(text()))),
            ]),
        ),
        (
            "TokenizerInfo",
            object(&[
                ("model", text()),
                ("bos_token", or_null(text())),
                ("eos_token", or_null(text())),
                ("pad_token", or_null(text())),
                ("vocab_size", count(1)),
                ("model_max_length", or_null(count(1))),
                ("chat_template", or_null(text())),
            ]),
        ),
    ];
    schemas.into_iter().map(|(name, schema)| (name.to_string(), schema)).collect()
}
