//! The page at `/`: sign in with a key, talk to a model. One document that loads nothing from anywhere: style and script
//! stand in it, and its policy names them by their digests, so no other script runs whatever a model writes.
//!
//! Who has not signed in gets the same document with the form for a key, under the status 401: no route answers strangers
//! but the one for health. The key is sent once, to `POST /session`; afterwards a cookie stands for it that no script can
//! read, no other site can send, and no restart of the server survives.

mod sessions;

use std::sync::{Arc, LazyLock};

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, SET_COOKIE,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use provenance::digest::sha256;

use crate::account::Account;
use crate::api::failure::ApiFailure;
use crate::server::Server;

pub use sessions::{Sessions, is_same_origin};

/// Where the page stands.
pub const PATH: &str = "/";

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const TEXTS: &str = include_str!("texts.json");

static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = |text: &str| format!("'sha256-{}'", STANDARD.encode(sha256(text.as_bytes()).0));
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        digest(SCRIPT),
        digest(STYLE)
    )
});

/// `GET /` for who has signed in.
pub async fn show() -> Response {
    page(StatusCode::OK, true)
}

/// The answer to a stranger whose browser asks for the page; `None` for any other request.
pub fn for_strangers(request: &Request) -> Option<Response> {
    let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    (request.method() == Method::GET && request.uri().path() == PATH && accepts.contains("text/html"))
        .then(|| page(StatusCode::UNAUTHORIZED, false))
}

fn page(status: StatusCode, signed_in: bool) -> Response {
    let document = HTML
        .replace("{{signed_in}}", if signed_in { "true" } else { "false" })
        .replace("{{style}}", STYLE)
        .replace("{{texts}}", TEXTS)
        .replace("{{script}}", SCRIPT);
    let mut response = (status, document).into_response();
    let headers = response.headers_mut();
    let fixed = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// `POST /session`: the credential that came with the request is good for the page until the cookie ends.
pub async fn sign_in(
    State(server): State<Arc<Server>>,
    Extension(account): Extension<Account>,
) -> Result<Response, ApiFailure> {
    let cookie = server
        .sessions
        .open(account.caller(), server.now())
        .map_err(|error| ApiFailure::internal(&error.to_string()))?;
    Ok(with_cookie(&cookie))
}

/// `DELETE /session`: the cookie opens nothing any more.
pub async fn sign_out(State(server): State<Arc<Server>>, headers: HeaderMap) -> Response {
    with_cookie(&server.sessions.close(&headers))
}

fn with_cookie(cookie: &str) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(SET_COOKIE, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_page_speaks_every_official_language() {
        let texts: Value = serde_json::from_str(TEXTS).unwrap();
        let texts = texts.as_object().unwrap();
        assert_eq!(texts.len(), 24);
        let english: Vec<&String> = texts["en"].as_object().unwrap().keys().collect();
        for (language, words) in texts {
            let words = words.as_object().unwrap();
            assert!(words.keys().eq(english.iter().copied()), "{language}");
            assert!(
                words.values().all(|word| word.as_str().is_some_and(|word| !word.is_empty())),
                "{language}"
            );
        }
        for name in SCRIPT.match_indices("say.").map(|(at, _)| &SCRIPT[at + 4..]) {
            let name = name.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap();
            assert!(texts["en"].get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn nothing_in_the_document_can_end_its_own_script_or_reach_out() {
        for text in [STYLE, SCRIPT, TEXTS] {
            assert!(!text.contains("</") && !text.contains("{{"));
        }
        for word in ["http:", "https:", "//cdn", "innerHTML", "eval(", "localStorage", "document.cookie"] {
            assert!(!SCRIPT.contains(word) && !HTML.contains(word) && !STYLE.contains(word), "{word}");
        }
    }
}
