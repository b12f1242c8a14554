//! What completions and chat completions have in common: how to sample, when to stop, how to answer.

use std::collections::BTreeMap;
use std::time::Duration;

use inference::Sampling;
use serde_json::{Value, json};

use super::failure::ApiFailure;
use super::fields::{Fields, shown};

/// Stop strings of one request; OpenAI allows 4.
const MOST_STOPS: usize = 16;
const LONGEST_STOP: usize = 256;
/// Longest `user`, in bytes.
const LONGEST_USER: usize = 512;
/// Most alternatives beside a token; OpenAI's limit for chat.
pub const MOST_ALTERNATIVES: usize = 20;

/// Common fields of a request.
#[derive(Debug, PartialEq)]
pub struct Options {
    pub model: String,
    /// Without its seed, which is in `seed`.
    pub sampling: Sampling,
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

impl Options {
    pub fn read(fields: &mut Fields, maximum_choices: usize) -> Result<Options, ApiFailure> {
        let Some(model) = fields.string("model")? else {
            return Err(ApiFailure::field("model", "the name of a model", "none"));
        };
        let stream = fields.flag("stream")?;
        Ok(Options {
            model,
            sampling: sampling(fields)?,
            seed: seed(fields)?,
            stop: stop(fields)?,
            answers: fields.count("n", 1, maximum_choices)?.unwrap_or(1),
            stream,
            stream_usage: stream_usage(fields, stream)?,
            user: user(fields)?,
        })
    }

    /// The engine's request for one answer, without what completions and chat set differently.
    pub fn request(
        &self,
        tenant: &str,
        prompt: Vec<u32>,
        seed: u64,
        time_limit: Duration,
    ) -> inference::Request {
        inference::Request {
            sampling: Sampling { seed, ..self.sampling.clone() },
            stop: self.stop.clone(),
            time_limit: Some(time_limit),
            ..inference::Request::new(tenant, prompt)
        }
    }
}

/// Fields of OpenAI's that we do not support, with values that ask for nothing.
pub fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiFailure> {
    fields.only("response_format", &[json!({"type": "text"})])?;
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

fn sampling(fields: &mut Fields) -> Result<Sampling, ApiFailure> {
    let top_p = fields.number("top_p", 0.0, 1.0)?.unwrap_or(1.0);
    if top_p == 0.0 {
        return Err(ApiFailure::field("top_p", "a number above 0, at most 1", 0));
    }
    let repetition_penalty = fields.number("repetition_penalty", 0.01, 100.0)?;
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0, 2.0)?.unwrap_or(1.0),
        top_p,
        top_k: fields.count("top_k", 0, usize::MAX)?.unwrap_or(0),
        min_p: fields.number("min_p", 0.0, 1.0)?.unwrap_or(0.0),
        repetition_penalty: repetition_penalty.unwrap_or(1.0),
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        logit_bias: logit_bias(fields)?,
        seed: 0,
    })
}

fn logit_bias(fields: &mut Fields) -> Result<BTreeMap<u32, f32>, ApiFailure> {
    let expected = "an object of token ids and numbers from -100 to 100, such as {\"17\": -100}";
    let Some(value) = fields.take("logit_bias") else { return Ok(BTreeMap::new()) };
    let Value::Object(object) = &value else { return Err(fields.wrong("logit_bias", expected, &value)) };
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
        Some(value) => match value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned)) {
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
    if !stream {
        return Err(fields.wrong("stream_options", "to be absent unless `stream` is true", &value));
    }
    let mut options = Fields::of(value, "stream_options")?;
    let usage = options.flag("include_usage")?;
    options.only("include_obfuscation", &[json!(false)])?;
    options.finish()?;
    Ok(usage)
}

fn user(fields: &mut Fields) -> Result<Option<String>, ApiFailure> {
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
        assert_eq!(read(json!({"model": "m"})).unwrap().sampling.temperature, 1.0, "as OpenAI's default");
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
            ("stream_options", json!({"include_usage": true})),
            ("user", json!(long)),
            ("response_format", json!({"type": "json_object"})),
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
