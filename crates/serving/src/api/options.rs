//! What completions and chat completions have in common: how to sample, when to stop, how to answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use filters::Chain;
use inference::{AnswerFormat, GenerationDefaults, Sampling, seed_of_answer};
use serde_json::{Value, json};

use super::answer::{Asked, Terms};
use super::failure::ApiFailure;
use super::fields::{Fields, shown, whole};
use super::models::ServedModel;
use super::render::Kind;

/// Stop strings of one request; OpenAI allows 4.
pub const MOST_STOPS: usize = 16;
/// Entries of `logit_bias`: each is looked at for every token.
pub const MOST_BIASES: usize = 1_024;
/// How deep a schema may nest.
pub const DEEPEST_SCHEMA: usize = 32;
/// In bytes.
pub const LONGEST_STOP: usize = 256;
/// OpenAI's, for models whose makers say nothing.
const DEFAULT_TEMPERATURE: f32 = 1.0;
/// Longest `user`, in bytes.
pub const LONGEST_USER: usize = 512;
/// Most alternatives beside a token; OpenAI's limit for chat.
pub const MOST_ALTERNATIVES: usize = 20;

/// Common fields of a request.
#[derive(Debug, PartialEq)]
pub struct Options {
    pub model: String,
    sampling: SamplingFields,
    /// The form that answers are held to.
    pub format: Option<AnswerFormat>,
    /// `None`: any.
    pub seed: Option<u64>,
    pub stop: Vec<String>,
    /// Answers to each prompt.
    pub answers: usize,
    pub stream: bool,
    /// A last chunk with the token counts.
    pub stream_usage: bool,
    /// The client's own name for its user; only a keyed digest of it goes on, to the audit log.
    pub user: Option<String>,
}

/// What a request says about sampling. What it leaves out is as the model's `generation_config.json` says, or as OpenAI's
/// default.
#[derive(Debug, PartialEq)]
struct SamplingFields {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: f32,
    frequency_penalty: f32,
    logit_bias: BTreeMap<u32, f32>,
}

impl SamplingFields {
    fn over(&self, defaults: &GenerationDefaults, seed: u64) -> Sampling {
        let model = defaults.over(Sampling { temperature: DEFAULT_TEMPERATURE, ..Sampling::default() });
        Sampling {
            temperature: self.temperature.unwrap_or(model.temperature),
            top_p: self.top_p.unwrap_or(model.top_p),
            top_k: self.top_k.unwrap_or(model.top_k),
            min_p: self.min_p.unwrap_or(model.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(model.repetition_penalty),
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.clone(),
            seed,
        }
    }
}

impl Options {
    pub fn read(fields: &mut Fields, maximum_choices: usize) -> Result<Options, ApiFailure> {
        let Some(model) = fields.string("model")? else {
            return Err(ApiFailure::field("model", "the name of a model", "none"));
        };
        let stream = fields.flag("stream")?;
        Ok(Options {
            model,
            sampling: sampling(fields)?,
            format: format(fields)?,
            seed: seed(fields)?,
            stop: stop(fields)?,
            answers: fields.count("n", 1, maximum_choices)?.unwrap_or(1),
            stream,
            stream_usage: stream_usage(fields, stream)?,
            user: user(fields)?,
        })
    }

    /// What is asked for, before any work on the prompts.
    pub fn asked(&self, kind: Kind, model: ServedModel, chain: Arc<Chain>) -> Asked {
        let Options { seed, stream, stream_usage, .. } = *self;
        Asked { kind, model, chain, seed, stream, stream_usage }
    }

    /// The engine's request for the answer of this number, without what completions and chat set differently.
    pub fn request(
        &self,
        terms: &Terms,
        model: &ServedModel,
        prompt: Vec<u32>,
        number: usize,
    ) -> inference::Request {
        let seed = seed_of_answer(terms.seed, number as u64);
        inference::Request {
            sampling: self.sampling.over(model.engine.defaults(), seed),
            format: self.format.clone(),
            stop: self.stop.clone(),
            time_limit: Some(terms.time_limit),
            adapter: model.adapter.clone(),
            ..inference::Request::new(&terms.tenant, prompt)
        }
    }
}

/// Fields of OpenAI's that we do not support, with values that ask for nothing.
pub fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiFailure> {
    fields.only("tools", &[json!([])])?;
    fields.only("functions", &[json!([])])?;
    fields.only("tool_choice", &[json!("none"), json!("auto")])?;
    fields.only("parallel_tool_calls", &[json!(true), json!(false)])?;
    fields.only("modalities", &[json!(["text"])])?;
    fields.only("store", &[json!(false)])?;
    fields.only("metadata", &[json!({})])?;
    fields.only("service_tier", &[json!("auto"), json!("default")])?;
    fields.only("suffix", &[json!("")])
}

fn sampling(fields: &mut Fields) -> Result<SamplingFields, ApiFailure> {
    let top_p = fields.number("top_p", 0.0, 1.0)?;
    if top_p == Some(0.0) {
        return Err(ApiFailure::field("top_p", "a number above 0, at most 1", 0));
    }
    Ok(SamplingFields {
        temperature: fields.number("temperature", 0.0, 2.0)?,
        top_p,
        top_k: fields.count("top_k", 0, usize::MAX)?,
        min_p: fields.number("min_p", 0.0, 1.0)?,
        repetition_penalty: fields.number("repetition_penalty", 0.01, 100.0)?,
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        logit_bias: logit_bias(fields)?,
    })
}

/// `response_format`: OpenAI's types, and `regex` and `lark` in the same way.
fn format(fields: &mut Fields) -> Result<Option<AnswerFormat>, ApiFailure> {
    let Some(value) = fields.take("response_format") else { return Ok(None) };
    let mut format = Fields::of(value, "response_format")?;
    let expected = "one of text, json_object, json_schema, regex, lark";
    let missing = |name: &str, expected: &str| {
        ApiFailure::field(format!("response_format.{name}"), expected, "nothing")
    };
    let kind = format.string("type")?;
    let found = match kind.as_deref() {
        Some("text") => None,
        Some("json_object") => Some(AnswerFormat::JsonObject),
        Some("json_schema") => {
            let Some(value) = format.take("json_schema") else {
                return Err(missing("json_schema", "an object with `name` and `schema`"));
            };
            let mut named = Fields::of(value, "response_format.json_schema")?;
            named.string("name")?;
            named.string("description")?;
            // A schema is always followed to the letter here, asked for strictly or not.
            named.flag("strict")?;
            let schema = named.take("schema").unwrap_or_else(|| json!({}));
            named.finish()?;
            let place = "response_format.json_schema.schema";
            if is_deeper(&schema, DEEPEST_SCHEMA) {
                let expected = format!("at most {DEEPEST_SCHEMA} levels");
                return Err(ApiFailure::field(place, expected, "more"));
            }
            Some(AnswerFormat::JsonSchema(schema))
        }
        Some("regex") => {
            let expression = format.string("regex")?;
            Some(AnswerFormat::Regex(expression.ok_or_else(|| missing("regex", "a regular expression"))?))
        }
        Some("lark") => {
            let grammar = format.string("grammar")?;
            Some(AnswerFormat::Lark(grammar.ok_or_else(|| missing("grammar", "a grammar in Lark's syntax"))?))
        }
        Some(other) => {
            return Err(ApiFailure::field("response_format.type", expected, shown(&json!(other))));
        }
        None => return Err(missing("type", expected)),
    };
    format.finish()?;
    Ok(found)
}

/// Whether a value nests deeper than `levels`. Parsing a body has bounded the depth already.
pub fn is_deeper(value: &Value, levels: usize) -> bool {
    let inner = |value: &Value| levels == 0 || is_deeper(value, levels - 1);
    match value {
        Value::Array(values) => values.iter().any(inner),
        Value::Object(fields) => fields.values().any(inner),
        _ => false,
    }
}

fn logit_bias(fields: &mut Fields) -> Result<BTreeMap<u32, f32>, ApiFailure> {
    let expected = "an object of token ids and numbers from -100 to 100, such as {\"17\": -100}";
    let Some(value) = fields.take("logit_bias") else { return Ok(BTreeMap::new()) };
    let Value::Object(object) = &value else { return Err(fields.wrong("logit_bias", expected, &value)) };
    if object.len() > MOST_BIASES {
        let expected = format!("at most {MOST_BIASES} tokens");
        return Err(ApiFailure::field("logit_bias", expected, object.len()));
    }
    object
        .iter()
        .map(|(token, bias)| {
            let number = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
            match (token.parse(), number) {
                (Ok(token), Some(bias)) => Ok((token, bias as f32)),
                (Err(_), _) => Err(fields.wrong("logit_bias", expected, &json!(token))),
                (_, None) => Err(fields.wrong("logit_bias", expected, bias)),
            }
        })
        .collect()
}

fn seed(fields: &mut Fields) -> Result<Option<u64>, ApiFailure> {
    match fields.take("seed") {
        None => Ok(None),
        Some(value) => match whole(&value).or_else(|| value.as_i64().map(i64::cast_unsigned)) {
            Some(seed) => Ok(Some(seed)),
            None => Err(fields.wrong("seed", "a whole number of 64 bits", &value)),
        },
    }
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiFailure> {
    let expected = format!("a string, or an array of at most {MOST_STOPS}, of 1 to {LONGEST_STOP} bytes");
    let strings = match fields.take("stop") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(values)) => {
            if values.len() > MOST_STOPS {
                return Err(ApiFailure::field("stop", expected, format!("{} strings", values.len())));
            }
            let string = |value| match value {
                Value::String(text) => Ok(text),
                other => Err(ApiFailure::field("stop", &expected, shown(&other))),
            };
            values.into_iter().map(string).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(fields.wrong("stop", &expected, &other)),
    };
    match strings.iter().find(|text| text.is_empty() || text.len() > LONGEST_STOP) {
        Some(text) => Err(ApiFailure::field("stop", expected, format!("a string of {} bytes", text.len()))),
        None => Ok(strings),
    }
}

fn stream_usage(fields: &mut Fields, stream: bool) -> Result<bool, ApiFailure> {
    let Some(value) = fields.take("stream_options") else { return Ok(false) };
    let mut options = Fields::of(value, "stream_options")?;
    let usage = options.flag("include_usage")?;
    options.only("include_obfuscation", &[json!(false)])?;
    options.finish()?;
    // A whole answer has its usage anyway.
    Ok(usage && stream)
}

/// The client's own name for its user.
pub fn user(fields: &mut Fields) -> Result<Option<String>, ApiFailure> {
    let user = fields.string("user")?;
    match &user {
        Some(text) if text.len() > LONGEST_USER => {
            let found = format!("{} bytes", text.len());
            Err(ApiFailure::field("user", format!("at most {LONGEST_USER} bytes"), found))
        }
        _ => Ok(user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<Options, ApiFailure> {
        let mut fields = Fields::of_body(body.to_string().as_bytes())?;
        let options = Options::read(&mut fields, 4)?;
        refuse_unsupported(&mut fields)?;
        fields.finish()?;
        Ok(options)
    }

    #[test]
    fn fields_become_options() {
        let options = read(json!({
            "model": "m", "temperature": 0.5, "top_p": 0.9, "top_k": 40, "logit_bias": {"5": -100, "6": 1.5},
            "seed": -1, "stop": ["τέλος", "\n"], "n": 3, "stream": true, "stream_options": {"include_usage": true},
            "response_format": {"type": "text"}, "tools": []
        }))
        .unwrap();
        assert_eq!(options.sampling.logit_bias, BTreeMap::from([(5, -100.0), (6, 1.5)]));
        assert_eq!((options.seed, options.answers, options.stream_usage), (Some(u64::MAX), 3, true));
        assert_eq!(options.stop, ["τέλος", "\n"]);
        assert_eq!(options.format, None);
        let sampling = |options: &Options, defaults: &GenerationDefaults| options.sampling.over(defaults, 3);
        let silent = read(json!({"model": "m"})).unwrap();
        let nothing = GenerationDefaults::default();
        assert_eq!(sampling(&silent, &nothing).temperature, 1.0, "as OpenAI's default");
        let model =
            GenerationDefaults { temperature: Some(0.6), top_p: Some(0.8), top_k: Some(9), ..nothing };
        let Sampling { temperature, top_p, top_k, seed, .. } = sampling(&silent, &model);
        assert_eq!((temperature, top_p, top_k, seed), (0.6, 0.8, 9, 3), "as the model's makers say");
        let Sampling { temperature, top_p, top_k, .. } = sampling(&options, &model);
        assert_eq!((temperature, top_p, top_k), (0.5, 0.9, 40), "as the request says");
    }

    #[test]
    fn forms_are_read() {
        let format = |format: Value| {
            read(json!({"model": "m", "response_format": format})).map(|options| options.format)
        };
        let schema = json!({"type": "object"});
        for (field, expected) in [
            (json!({"type": "text"}), None),
            (json!({"type": "json_object"}), Some(AnswerFormat::JsonObject)),
            (
                json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}}),
                Some(AnswerFormat::JsonSchema(schema)),
            ),
            (json!({"type": "regex", "regex": "a+"}), Some(AnswerFormat::Regex("a+".to_string()))),
            (
                json!({"type": "lark", "grammar": "start: \"a\""}),
                Some(AnswerFormat::Lark("start: \"a\"".to_string())),
            ),
        ] {
            assert_eq!(format(field.clone()).unwrap(), expected, "{field}");
        }
        for (field, param) in [
            (json!("json"), "response_format"),
            (json!({}), "response_format.type"),
            (json!({"type": "xml"}), "response_format.type"),
            (json!({"type": "json_schema"}), "response_format.json_schema"),
            (
                json!({"type": "json_schema", "json_schema": {"shcema": {}}}),
                "response_format.json_schema.shcema",
            ),
            (json!({"type": "regex"}), "response_format.regex"),
            (json!({"type": "text", "regex": "a"}), "response_format.regex"),
        ] {
            assert_eq!(format(field.clone()).unwrap_err().param.as_deref(), Some(param), "{field}");
        }
    }

    #[test]
    fn values_that_mean_nothing_are_refused_by_name() {
        let long = "x".repeat(600);
        for (field, value) in [
            ("model", json!(3)),
            ("temperature", json!(-0.1)),
            ("top_p", json!(0)),
            ("logit_bias", json!([1])),
            ("logit_bias", json!({"a": 1})),
            ("logit_bias", json!({"1": 101})),
            ("seed", json!(1.5)),
            ("stop", json!([""])),
            ("stop", json!([1])),
            ("stop", json!(vec!["a"; 17])),
            ("n", json!(5)),
            ("stream_options", json!(true)),
            ("user", json!(long)),
            ("tools", json!([{"type": "function"}])),
            ("store", json!(true)),
            ("best_guess", json!(1)),
        ] {
            let mut body = json!({"model": "m"});
            body[field] = value;
            assert_eq!(read(body.clone()).unwrap_err().param.as_deref(), Some(field), "{body}");
        }
        assert_eq!(read(json!({})).unwrap_err().param.as_deref(), Some("model"));
    }
}
