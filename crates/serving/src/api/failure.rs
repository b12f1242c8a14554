//! What goes wrong inside a request, in the shape that OpenAI's clients read:
//! `{"error": {"message", "type", "param", "code"}}`.

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use inference::{RequestFailure, SubmitError};
use serde_json::{Value, json};
use tokio::task::JoinError;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiFailure {
    pub status: StatusCode,
    /// For programs: what kind of thing it is, such as `model_not_found`.
    pub code: &'static str,
    /// The field at fault, such as `messages[0].role`.
    pub param: Option<String>,
    /// For people: what was expected, what was found, what to do.
    pub message: String,
    /// Seconds after which to try again, where it is known.
    pub retry_after: Option<u64>,
}

/// Why a request was refused: an extension of the response, for the metrics.
#[derive(Clone, Copy, Debug)]
pub struct Refusal(pub &'static str);

/// How long a client should wait before it tries a full queue again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("2");

impl ApiFailure {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> ApiFailure {
        ApiFailure { status, code, param: None, message: message.into(), retry_after: None }
    }

    /// A field with a value that cannot be used.
    pub fn field(
        param: impl Into<String>,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> ApiFailure {
        let param = param.into();
        let message = format!("`{param}`: expected {expected}, found {found}");
        ApiFailure {
            param: Some(param),
            ..ApiFailure::new(StatusCode::BAD_REQUEST, "invalid_value", message)
        }
    }

    /// Something broke on our side; what exactly goes to the log, not to the client.
    pub fn internal(log: &str) -> ApiFailure {
        tracing::error!(problem = log, "request failed");
        let message = "the server could not compute an answer; its log says why";
        ApiFailure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// Work beside the request did not come to its end. What it said is not repeated: a panic may say what a client sent.
    pub fn of_task(error: JoinError) -> ApiFailure {
        ApiFailure::internal(if error.is_panic() { "its work panicked" } else { "its work was given up" })
    }

    /// The policy of the caller's tenant asks for what this server no longer has; what exactly goes to the log, not to the
    /// client.
    pub fn policy(tenant: &str, problem: &str) -> ApiFailure {
        tracing::error!(tenant, problem, "a tenant's policy cannot be kept: its requests are refused");
        let message = "the policy of your tenant asks for something that this server does not have now, and without it \
                       nothing is answered; tell those who run the server: its log and `eulalia serve --check` say what";
        ApiFailure::new(StatusCode::SERVICE_UNAVAILABLE, "tenant_policy", message)
    }

    /// The engine would not take the request; `prompt` is the field that holds it.
    pub fn from_submit(error: SubmitError, prompt: &str) -> ApiFailure {
        let bad = |code, param: &str| ApiFailure {
            param: Some(param.to_string()),
            ..ApiFailure::new(StatusCode::BAD_REQUEST, code, error.to_string())
        };
        match &error {
            SubmitError::QueueFull { .. } => {
                ApiFailure::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", error.to_string())
            }
            SubmitError::ContextLength { .. } | SubmitError::TextLength { .. } => {
                bad("context_length_exceeded", prompt)
            }
            SubmitError::EmptyPrompt => bad("empty_prompt", prompt),
            SubmitError::UnknownToken { .. } => bad("unknown_token", prompt),
            SubmitError::UnknownBias { .. } => bad("unknown_token", "logit_bias"),
            SubmitError::Field { field, .. } => bad("invalid_value", field),
            SubmitError::Format { .. } => bad("invalid_value", "response_format"),
            SubmitError::UnknownAdapter { .. } => ApiFailure::internal(&error.to_string()),
            SubmitError::Stopped => ApiFailure::stopping(),
        }
    }

    /// The engine took the request and did not finish it.
    pub fn from_request(failure: &RequestFailure) -> ApiFailure {
        match failure {
            RequestFailure::TimeLimit => {
                let message = "the answer took longer than this server allows; ask for fewer tokens";
                ApiFailure::new(StatusCode::GATEWAY_TIMEOUT, "time_limit", message)
            }
            RequestFailure::EngineStopped | RequestFailure::Cancelled => ApiFailure::stopping(),
            RequestFailure::Format(_) => ApiFailure {
                param: Some("response_format".to_string()),
                ..ApiFailure::new(StatusCode::BAD_REQUEST, "format_too_complex", failure.to_string())
            },
            RequestFailure::Computing(_) => ApiFailure::internal(&failure.to_string()),
        }
    }

    pub fn stopping() -> ApiFailure {
        let message = "the server is stopping; try again in a moment";
        ApiFailure::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", message)
    }

    /// The body of the answer.
    pub fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiFailure {
    fn into_response(self) -> Response {
        let retry_after = self.retry_after.map_or(RETRY_AFTER_SECONDS, HeaderValue::from);
        let mut response = (self.status, axum::Json(self.body())).into_response();
        response.extensions_mut().insert(Refusal(self.code));
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, retry_after);
            }
            _ => {}
        }
        response
    }
}
