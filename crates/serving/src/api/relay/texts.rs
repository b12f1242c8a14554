//! The texts of a request on their way through the input filters, each in its place.

use axum::http::StatusCode;
use filters::{Chain, Verdict};
use serde_json::Value;

use crate::api::completions::Prompt;
use crate::api::failure::ApiFailure;

/// Bytes of text that are looked through in less time than it takes to hand them to another thread.
const SHORT: usize = 16 << 10;

/// Work on so many bytes of text. While it is long, other connections are served by another thread.
pub fn beside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes > SHORT { tokio::task::block_in_place(work) } else { work() }
}

/// Lets the prompts of our own engine through the input filters.
pub fn filter_prompts(prompts: &mut [Prompt], field: &str, chain: &Chain) -> Result<(), ApiFailure> {
    for (number, prompt) in prompts.iter_mut().enumerate() {
        match prompt {
            Prompt::Text(text) => filter(text, &format!("{field}[{number}]"), chain)?,
            Prompt::Tokens(_) if chain.passes_input() => (),
            Prompt::Tokens(_) => {
                let expected = "text: filters read no tokens";
                return Err(ApiFailure::field(field, expected, "an array of tokens"));
            }
        }
    }
    Ok(())
}

/// Refuses probabilities where answers may be changed.
pub fn refuse_logprobs(chain: &Chain, is_asked: bool) -> Result<(), ApiFailure> {
    if is_asked && chain.may_change_output() { Err(filtered_logprobs("logprobs")) } else { Ok(()) }
}

/// Why probabilities are refused.
pub fn filtered_logprobs(field: &str) -> ApiFailure {
    let message = format!(
        "`{field}`: answers are filtered here, and probabilities would repeat them unfiltered: leave it out"
    );
    ApiFailure {
        param: Some(field.to_string()),
        ..ApiFailure::new(StatusCode::BAD_REQUEST, "unsupported_field", message)
    }
}

/// Lets a text through the input filters, in its place.
pub fn filter(text: &mut String, place: &str, chain: &Chain) -> Result<(), ApiFailure> {
    if chain.passes_input() {
        return Ok(());
    }
    let changed = match beside(text.len(), || chain.input(text)) {
        Verdict::Pass(std::borrow::Cow::Borrowed(_)) => return Ok(()),
        Verdict::Pass(std::borrow::Cow::Owned(changed)) => changed,
        Verdict::Refused(refusal) => {
            let message =
                format!("`{place}`: the filter `{}` of this server refuses the text", refusal.filter);
            return Err(ApiFailure {
                param: Some(place.to_string()),
                ..ApiFailure::new(StatusCode::BAD_REQUEST, refusal.code, message)
            });
        }
    };
    *text = changed;
    Ok(())
}

/// Lets every string within a value through the input filters. Keys of objects, such as the names of a tool's parameters, are
/// text that a template may write out; they are not changed, so what would have to be is refused.
pub fn filter_strings(value: &mut Value, place: &str, chain: &Chain) -> Result<(), ApiFailure> {
    if chain.passes_input() {
        return Ok(());
    }
    match value {
        Value::String(text) => filter(text, place, chain),
        Value::Array(values) => values.iter_mut().try_for_each(|value| filter_strings(value, place, chain)),
        Value::Object(object) => object.iter_mut().try_for_each(|(key, value)| {
            let mut passed = key.clone();
            filter(&mut passed, place, chain)?;
            if passed != *key {
                let expected = "keys that the filters of this server leave as they are";
                return Err(ApiFailure::field(place, expected, "another"));
            }
            filter_strings(value, place, chain)
        }),
        _ => Ok(()),
    }
}
