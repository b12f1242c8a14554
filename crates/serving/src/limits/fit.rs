//! Whether a request that was read keeps within the limits of its tenant and key, before the engine hears of it.

use axum::http::StatusCode;

use super::Admission;
use crate::api::answer::Job;
use crate::api::failure::ApiFailure;

/// Set aside for an answer whose request names no length; what it uses beyond is taken when it ends. Setting aside all
/// that the context may hold would let one such request use up the minute of a tenant that asks for a few lines.
const UNNAMED_ANSWER: usize = 1_024;

/// Checks a request's prompts and answers, holds answers without a named length to the longest allowed, and sets aside
/// the tokens.
pub fn fit(admission: &Admission, job: &mut Job) -> Result<(), ApiFailure> {
    let limits = admission.limits();
    if let Some(most) = limits.answers
        && job.choices.len() as u64 > most
    {
        return Err(too_large("n", "answers", most, job.choices.len(), "answers"));
    }
    let (mut firm, mut soft) = (job.prompt_tokens, 0usize);
    for choice in &mut job.choices {
        let request = &mut choice.request;
        fit_prompt(admission, request.prompt.len(), job.asked.kind.prompt_field())?;
        let room = job.asked.model.engine.context_length().saturating_sub(request.prompt.len());
        match (request.max_tokens, limits.answer_tokens) {
            (Some(wanted), Some(most)) if wanted as u64 > most => {
                return Err(too_large("max_tokens", "answer_tokens", most, wanted, "tokens"));
            }
            (Some(wanted), _) => firm = firm.saturating_add(wanted),
            (None, Some(most)) => {
                let most = usize::try_from(most).unwrap_or(usize::MAX).min(room);
                // An answer that the context cuts anyway ends for that reason.
                request.max_tokens = (most < room).then_some(most);
                soft = soft.saturating_add(most.min(UNNAMED_ANSWER));
            }
            (None, None) => soft = soft.saturating_add(room.min(UNNAMED_ANSWER)),
        }
    }
    admission.reserve(firm, soft)
}

/// Checks the length of one prompt, or text to embed.
pub fn fit_prompt(admission: &Admission, tokens: usize, field: &str) -> Result<(), ApiFailure> {
    match admission.limits().prompt_tokens {
        Some(most) if tokens as u64 > most => Err(too_large(field, "prompt_tokens", most, tokens, "tokens")),
        _ => Ok(()),
    }
}

fn too_large(field: &str, limit: &str, most: u64, found: usize, unit: &str) -> ApiFailure {
    let message =
        format!("`{field}`: {found} {unit} are more than the limit `{limit}` of {most}: ask for less");
    ApiFailure {
        param: Some(field.to_string()),
        ..ApiFailure::new(StatusCode::BAD_REQUEST, "request_too_large", message)
    }
}
