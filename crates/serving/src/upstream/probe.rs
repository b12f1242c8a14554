//! Trying the engines before a server needs them: can each be reached, does it take our key, has it the models?

use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::timeout;

use super::endpoint::{Endpoint, next_frame};
use super::settings::UpstreamSettings;
use crate::error::ServingError;

/// For all that one engine is asked.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest list of models that is read.
const LIST_LIMIT: usize = 1 << 20;
/// Names shown of those that an engine has.
const NAMES_SHOWN: usize = 5;

/// What came of trying one engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriedUpstream {
    pub name: String,
    /// What was found, or what is wrong and what to do.
    pub found: Result<String, String>,
}

/// Tries all engines, each for at most ten seconds. Blocks.
pub fn try_upstreams(settings: &[UpstreamSettings]) -> Result<Vec<TriedUpstream>, ServingError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(ServingError::Runtime)?;
    let trying = settings.iter().map(|settings| async move {
        let found = match timeout(PATIENCE, try_one(settings)).await {
            Ok(found) => found,
            Err(_) => Err(format!("{}: nothing within {} s", settings.url, PATIENCE.as_secs())),
        };
        TriedUpstream { name: settings.name.clone(), found }
    });
    let tried = runtime.block_on(join_all(trying));
    // A name that nobody resolves must not be waited for.
    runtime.shutdown_background();
    Ok(tried)
}

async fn try_one(settings: &UpstreamSettings) -> Result<String, String> {
    let endpoint = Endpoint::new(settings, None).map_err(|error| error.to_string())?;
    let at = |problem: String| format!("{}: {problem}", settings.url);
    let path = format!("{}/models", endpoint.base_path());
    let answer = endpoint.look(&path, PATIENCE).await.map_err(at)?;
    let status = answer.status();
    let found = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let what = match settings.api_key_file {
                Some(_) => "refuses the key in `api_key_file`",
                None => "wants a key: give it as `api_key_file`",
            };
            return Err(at(format!("{path} answers {}: the engine {what}", status.as_u16())));
        }
        StatusCode::OK => offered(settings, &path, &read(answer.into_body()).await?).map_err(at)?,
        _ => return Err(at(format!("{path} answers {}: does `url` end as it should?", status.as_u16()))),
    };
    let health = endpoint.look(&settings.health_path, PATIENCE).await.map_err(at)?.status();
    if !health.is_success() {
        let path = &settings.health_path;
        let status = health.as_u16();
        let problem =
            format!("{path} answers {status}, and the engine would count as ill: see `health_path`");
        return Err(at(problem));
    }
    Ok(found)
}

/// Whether a list of models has all that the settings name.
fn offered(settings: &UpstreamSettings, path: &str, list: &[u8]) -> Result<String, String> {
    let list: Value = serde_json::from_slice(list).map_err(|_| format!("{path} answers no JSON"))?;
    let Some(list) = list.get("data").and_then(Value::as_array) else {
        return Err(format!("{path} answers no list of models"));
    };
    let names: Vec<&str> = list.iter().filter_map(|model| model.get("id")?.as_str()).collect();
    let shown = || match names.len() {
        0 => "none".to_string(),
        count if count > NAMES_SHOWN => format!("{}, …", names[..NAMES_SHOWN].join(", ")),
        _ => names.join(", "),
    };
    match settings.models.values().find(|name| !names.contains(&name.as_str())) {
        Some(name) => Err(format!("the engine does not list `{name}`; it has: {}", shown())),
        None => Ok(format!("{} answers and has {}", settings.url, shown())),
    }
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = next_frame(&mut body).await {
        let frame = frame.map_err(|error| format!("the list of models broke off: {error}"))?;
        bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
        if bytes.len() > LIST_LIMIT {
            return Err(format!("the list of models is larger than {LIST_LIMIT} bytes"));
        }
    }
    Ok(bytes)
}
