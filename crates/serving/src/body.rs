//! A request's body, read within its limits of size and time.

use std::error::Error;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use http_body_util::LengthLimitError;

use crate::api::failure::ApiFailure;
use crate::server::Server;

/// The bytes of a body.
pub struct Body(pub Bytes);

impl FromRequest<Arc<Server>> for Body {
    type Rejection = ApiFailure;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Body, ApiFailure> {
        let settings = server.settings();
        let limit = settings.body_limit_bytes;
        let too_large = || {
            let message = format!("the body is larger than {limit} bytes, the most that this server reads");
            ApiFailure::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
        };
        let declared = request
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|declared| declared > limit as u64) {
            return Err(too_large());
        }
        let read = axum::body::to_bytes(request.into_body(), limit);
        match tokio::time::timeout(settings.body_time(), read).await {
            Ok(Ok(bytes)) => Ok(Body(bytes)),
            Ok(Err(error)) if is_length(&error) => Err(too_large()),
            Ok(Err(_)) => {
                let message = "the body broke off, or is not what its headers say: send it whole";
                Err(ApiFailure::new(StatusCode::BAD_REQUEST, "body_broken", message))
            }
            Err(_) => {
                let message = "the body did not arrive in time";
                Err(ApiFailure::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message))
            }
        }
    }
}

/// Whether reading ended for the size alone.
fn is_length(error: &axum::Error) -> bool {
    error.source().is_some_and(|source| source.is::<LengthLimitError>())
}
