//! The part of a path that varies, such as a model's name or a key's id.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::failure::ApiFailure;

/// That part, with its `%` escapes read. What cannot be read is refused in the shape of all errors here, where axum's own
/// extractor would answer in plain text.
pub struct PathPart(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathPart {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathPart, ApiFailure> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(PathPart(text)),
            Err(PathRejection::FailedToDeserializePathParams(_)) => {
                let message = "the path: expected UTF-8 behind its `%` escapes, found other bytes";
                Err(ApiFailure::new(StatusCode::BAD_REQUEST, "invalid_value", message))
            }
            Err(other) => Err(ApiFailure::internal(&other.body_text())),
        }
    }
}
