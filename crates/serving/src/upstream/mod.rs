//! Engines that run elsewhere in the house, as models of this server.
//!
//! What goes to an engine is made here: our headers, our key for it, its name of the model. What comes back is read, bounded
//! and written anew ([`crate::api::relay`]). A request is sent again only if it surely did not leave the first time.

mod breaker;
mod connection;
mod endpoint;
mod events;
mod health;
mod places;
mod probe;
mod settings;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::body::Bytes;
use axum::http::StatusCode;
use tokenizer::Tokenizer;
use tokio::task::AbortHandle;

pub use breaker::BreakerState;
#[cfg(any(test, feature = "opentelemetry"))]
pub use connection::{Connections, Target};
pub use endpoint::{Asked, Endpoint, UpstreamAnswer, failed};
pub use events::{BadStream, Events};
pub use probe::{TriedUpstream, try_upstreams};
pub use settings::UpstreamSettings;

use crate::api::failure::ApiFailure;
use crate::error::ServingError;
use crate::spelling::composed;
use endpoint::Unasked;

/// All upstreams, and the models that they have.
#[derive(Default)]
pub struct Upstreams {
    endpoints: Vec<Arc<Endpoint>>,
    models: BTreeMap<String, Arc<UpstreamModel>>,
    /// Those who ask for health; they end with these upstreams.
    watchers: Mutex<Vec<AbortHandle>>,
}

/// A model that one or more upstreams have.
pub struct UpstreamModel {
    /// The name that clients give.
    pub name: String,
    /// Counts usage that an engine does not report.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Sorted by priority.
    places: Vec<Place>,
    /// Turns among upstreams of the same priority.
    turn: AtomicUsize,
}

struct Place {
    endpoint: Arc<Endpoint>,
    /// The engine's name of the model.
    their_name: String,
}

impl Upstreams {
    /// Checks the settings and reads keys, certificates and tokenizers. Connects to nothing. What is known of engines that
    /// were there `before` stays known: their health, their breakers, how many requests they have.
    pub fn open(
        settings: &[UpstreamSettings],
        before: Option<&Upstreams>,
    ) -> Result<Upstreams, ServingError> {
        let mut upstreams = Upstreams::default();
        for settings in settings {
            settings.check()?;
            if upstreams.endpoints.iter().any(|other| other.name() == settings.name) {
                let problem = "the name is given twice; names must differ".to_string();
                return Err(ServingError::Upstream { name: settings.name.clone(), problem });
            }
            let before = before.and_then(|before| before.endpoint(&settings.name));
            let endpoint = Arc::new(Endpoint::new(settings, before)?);
            for (name, their_name) in &settings.models {
                let ours = composed(name).into_owned();
                let model = upstreams.models.entry(ours.clone()).or_insert_with(|| {
                    let (name, places) = (ours, Vec::new());
                    Arc::new(UpstreamModel { name, tokenizer: None, places, turn: AtomicUsize::new(0) })
                });
                // Nobody else has it yet.
                let Some(model) = Arc::get_mut(model) else { continue };
                if let Some(path) = settings.tokenizers.get(name) {
                    let tokenizer = Tokenizer::load(path).map_err(|error| ServingError::Upstream {
                        name: settings.name.clone(),
                        problem: format!("`tokenizers`, {}: {error}", path.display()),
                    })?;
                    model.tokenizer = Some(Arc::new(tokenizer));
                }
                model.places.push(Place { endpoint: endpoint.clone(), their_name: their_name.clone() });
                model.places.sort_by_key(|place| place.endpoint.priority());
            }
            upstreams.endpoints.push(endpoint);
        }
        Ok(upstreams)
    }

    /// The model of that name.
    pub fn find(&self, name: &str) -> Option<&Arc<UpstreamModel>> {
        self.models.get(composed(name).as_ref())
    }

    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// All models, by name.
    pub fn models(&self) -> impl Iterator<Item = &Arc<UpstreamModel>> {
        self.models.values()
    }

    /// All engines, in the order of the settings.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter()
    }

    /// Asks every engine for its health, again and again, until these upstreams are dropped.
    pub fn watch(&self) {
        let watch = |endpoint: &Arc<Endpoint>| tokio::spawn(health::watch(endpoint.clone())).abort_handle();
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.extend(self.endpoints.iter().map(watch));
    }

    fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.name() == name).map(Arc::as_ref)
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        let watchers = self.watchers.get_mut().unwrap_or_else(PoisonError::into_inner);
        watchers.drain(..).for_each(|watcher| watcher.abort());
    }
}

impl UpstreamModel {
    /// Whether any of its engines can be asked now.
    pub fn is_available(&self) -> bool {
        let now = Instant::now();
        self.places.iter().any(|place| place.endpoint.can_be_asked(now))
    }

    /// Sends a request to one of its engines and gives the answer whose head has come, with a status of success. `body` is
    /// the request's JSON object without `model`.
    pub async fn ask(&self, asked: &Asked<'_>, body: &Bytes) -> Result<UpstreamAnswer, ApiFailure> {
        let mut is_busy = false;
        for place in self.order() {
            let body = with_model(&place.their_name, body);
            match place.endpoint.ask(asked, body).await {
                Ok(answer) => return Ok(answer),
                Err(Unasked::Failed(failure)) => return Err(failure),
                Err(Unasked::Busy) => is_busy = true,
                Err(Unasked::Unreachable) => (),
            }
        }
        if is_busy {
            let message = "the engine of this model has as many requests as it may; try again in a moment";
            return Err(ApiFailure::new(StatusCode::TOO_MANY_REQUESTS, "upstream_busy", message));
        }
        let message = "the engine of this model cannot be reached; try again later";
        Err(ApiFailure::new(StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable", message))
    }

    /// The engines in the order in which they are tried: by priority, and in turns by weight where it is the same.
    fn order(&self) -> impl Iterator<Item = &Place> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut order: Vec<&Place> = Vec::with_capacity(self.places.len());
        for group in self.places.chunk_by(|a, b| a.endpoint.priority() == b.endpoint.priority()) {
            let weights: usize = group.iter().map(|place| place.endpoint.weight()).sum();
            let mut turn = turn % weights.max(1);
            let first = group.iter().position(|place| {
                let weight = place.endpoint.weight();
                let is_its = turn < weight;
                turn = turn.saturating_sub(weight);
                is_its
            });
            let first = first.unwrap_or(0);
            order.extend(&group[first..]);
            order.extend(&group[..first]);
        }
        order.into_iter()
    }
}

/// Puts the engine's name of the model at the head of a JSON object that has other fields.
fn with_model(their_name: &str, body: &Bytes) -> Bytes {
    let mut whole = Vec::with_capacity(body.len() + their_name.len() + 16);
    whole.extend_from_slice(b"{\"model\":");
    whole.extend_from_slice(serde_json::Value::from(their_name).to_string().as_bytes());
    if body.len() > 2 {
        whole.push(b',');
    }
    whole.extend_from_slice(&body[1..]);
    whole.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(name: &str, weight: usize, priority: u32) -> UpstreamSettings {
        UpstreamSettings {
            models: BTreeMap::from([("m".to_string(), format!("{name}/model"))]),
            weight,
            priority,
            ..UpstreamSettings::new(name, "http://127.0.0.1:1/v1")
        }
    }

    #[test]
    fn turns_go_by_weight_and_priority() {
        let settings = [upstream("reserve", 1, 1), upstream("a", 2, 0), upstream("b", 1, 0)];
        let upstreams = Upstreams::open(&settings, None).unwrap();
        let model = upstreams.find("m").unwrap();
        let orders: Vec<String> = (0..4)
            .map(|_| model.order().map(|place| place.endpoint.name()).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(orders, ["a b reserve", "a b reserve", "b a reserve", "a b reserve"]);
    }

    #[test]
    fn a_model_is_found_however_its_name_is_written() {
        let models = BTreeMap::from([("Brise\u{301}e".to_string(), "their/model".to_string())]);
        let settings = UpstreamSettings { models, ..upstream("a", 1, 0) };
        let upstreams = Upstreams::open(&[settings], None).unwrap();
        for name in ["Brisée", "Brise\u{301}e"] {
            assert_eq!(upstreams.find(name).unwrap().name, "Brisée");
        }
        assert!(upstreams.find("Brisee").is_none());
    }

    #[test]
    fn the_name_is_put_in_as_json() {
        assert_eq!(with_model("a\"b", &Bytes::from_static(b"{\"n\":1}")), "{\"model\":\"a\\\"b\",\"n\":1}");
        assert_eq!(with_model("a", &Bytes::from_static(b"{}")), "{\"model\":\"a\"}");
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let with = |change: fn(&mut UpstreamSettings)| {
            let mut settings = upstream("gpu", 1, 0);
            change(&mut settings);
            Upstreams::open(&[settings], None).err().unwrap().to_string()
        };
        for (message, expected) in [
            (with(|settings| settings.url = "ftp://a/v1".into()), "`url`"),
            (with(|settings| settings.url = "http://user:pw@127.0.0.1/v1".into()), "`url`"),
            (with(|settings| settings.url = "http://gpu.example:8000/v1".into()), "allow_plain_http"),
            (with(|settings| settings.models.clear()), "`models`"),
            (with(|settings| settings.weight = 0), "`weight`"),
            (with(|settings| settings.ca = Some("nowhere.pem".into())), "gpu"),
            (with(|settings| settings.api_key_file = Some("nowhere.key".into())), "nowhere.key"),
            (with(|settings| settings.health_path = "health".into()), "`health_path`"),
        ] {
            assert!(message.contains(expected) && message.contains("gpu"), "{message}");
        }
        let twice = Upstreams::open(&[upstream("a", 1, 0), upstream("a", 1, 0)], None).err().unwrap();
        assert!(twice.to_string().contains("twice"), "{twice}");
    }
}
