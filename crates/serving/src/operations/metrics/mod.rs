//! What a monitoring system reads: counters and histograms, kept in atomics, so that counting never waits.
//!
//! Every label has few values that are known at the start: routes from the table, models by their configured names
//! (anything else is one value), statuses and refusals from fixed lists. No label holds what a client sent, no tenant,
//! no key.

mod exposition;
mod histogram;
mod page;
mod process;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::StatusCode;

use self::histogram::Histogram;
pub use self::page::page;
use crate::live::Live;
use crate::routes::{self, ROUTES};

/// What models are called that are not served here, and requests that concern no model.
const NO_MODEL: &str = "none";
/// Kinds of refusals that are told apart; there are some thirty in the code, further ones share the last place.
const REFUSALS: usize = 64;
/// Statuses that are told apart; the last place is for all others.
const STATUSES: [u16; 17] =
    [200, 201, 204, 400, 401, 403, 404, 405, 408, 413, 415, 429, 499, 500, 502, 503, 504];

/// Everything that is counted.
pub struct Metrics {
    /// The last is that of no model. A reload may bring more; none goes, since counters never fall.
    models: Live<Vec<Arc<OfModel>>>,
    refusals: [Refusal; REFUSALS],
}

#[derive(Default)]
struct Refusal {
    reason: OnceLock<&'static str>,
    count: AtomicU64,
}

struct OfModel {
    name: String,
    /// By route and status; see `place`.
    requests: Vec<AtomicU64>,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    first_token: Histogram,
    between_tokens: Histogram,
    request: Histogram,
}

/// A request that has ended.
pub struct Ended<'a> {
    pub route: &'static str,
    pub status: StatusCode,
    pub model: &'a str,
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    pub time: Duration,
}

impl Metrics {
    /// With a place for each of these models.
    pub fn new<'a>(models: impl Iterator<Item = &'a str>) -> Metrics {
        let metrics = Metrics {
            models: Live::new(vec![Arc::new(OfModel::new(NO_MODEL))]),
            refusals: std::array::from_fn(|_| Refusal::default()),
        };
        metrics.learn(models);
        metrics
    }

    /// Makes places for models that are served from now on.
    pub fn learn<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut models = self.models.get().to_vec();
        for name in names {
            if models.iter().all(|model| model.name != name) {
                models.insert(models.len() - 1, Arc::new(OfModel::new(name)));
            }
        }
        self.models.replace(models);
    }

    /// Counts a request with a valid credential.
    pub fn ended(&self, request: &Ended) {
        let model = self.model(request.model);
        let route = ROUTES.iter().position(|route| route.name == request.route).unwrap_or(ROUTES.len());
        let status = request.status.as_u16();
        let status = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len());
        if let Some(count) = model.requests.get(place(route, status)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        model.prompt_tokens.fetch_add(request.prompt_tokens as u64, Ordering::Relaxed);
        model.completion_tokens.fetch_add(request.completion_tokens as u64, Ordering::Relaxed);
        model.request.observe(request.time, 1);
    }

    /// Counts a refusal, by the code that the client reads.
    pub fn refused(&self, reason: &'static str) {
        for refusal in &self.refusals[..REFUSALS - 1] {
            if *refusal.reason.get_or_init(|| reason) == reason {
                refusal.count.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let last = &self.refusals[REFUSALS - 1];
        last.reason.get_or_init(|| "other");
        last.count.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer of this model has begun so long after its request came.
    pub fn first_token(&self, model: &str, after: Duration) {
        self.model(model).first_token.observe(after, 1);
    }

    /// So many tokens came together, so long after those before them.
    pub fn further_tokens(&self, model: &str, after: Duration, count: u32) {
        if count > 0 {
            self.model(model).between_tokens.observe(after / count, u64::from(count));
        }
    }

    /// Where the model of that name is counted.
    fn model(&self, name: &str) -> Arc<OfModel> {
        let models = self.models.get();
        let last = models.len() - 1;
        models[..last].iter().find(|model| model.name == name).unwrap_or(&models[last]).clone()
    }

    /// What was counted: route, status, model, how often. Nothing that never came.
    fn request_counts(&self) -> Vec<(&'static str, String, String, u64)> {
        let models = self.models.get();
        let mut counts = Vec::new();
        for (route, name) in ROUTES.iter().map(|route| route.name).chain([routes::UNKNOWN]).enumerate() {
            for status in 0..=STATUSES.len() {
                for model in models.iter() {
                    let count = model.requests[place(route, status)].load(Ordering::Relaxed);
                    if count > 0 {
                        let status = STATUSES.get(status).map_or("other".to_string(), u16::to_string);
                        counts.push((name, status, model.name.clone(), count));
                    }
                }
            }
        }
        counts
    }

    fn refusal_counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.refusals
            .iter()
            .filter_map(|refusal| Some((*refusal.reason.get()?, refusal.count.load(Ordering::Relaxed))))
    }
}

impl OfModel {
    fn new(name: &str) -> OfModel {
        let places = (ROUTES.len() + 1) * (STATUSES.len() + 1);
        OfModel {
            name: name.to_string(),
            requests: std::iter::repeat_with(AtomicU64::default).take(places).collect(),
            prompt_tokens: AtomicU64::new(0),
            completion_tokens: AtomicU64::new(0),
            first_token: Histogram::new(&[
                0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
            ]),
            between_tokens: Histogram::new(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0]),
            request: Histogram::new(&[0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0]),
        }
    }
}

/// Where a model's requests of a route and status are counted.
fn place(route: usize, status: usize) -> usize {
    route * (STATUSES.len() + 1) + status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended<'a>(route: &'static str, status: u16, model: &'a str) -> Ended<'a> {
        Ended {
            route,
            status: StatusCode::from_u16(status).unwrap(),
            model,
            prompt_tokens: 3,
            completion_tokens: 4,
            time: Duration::from_millis(20),
        }
    }

    #[test]
    fn what_clients_make_up_shares_one_place() {
        let metrics = Metrics::new(["toy"].into_iter());
        for number in 0..1_000 {
            metrics.ended(&ended(routes::UNKNOWN, 404, &format!("made up {number}")));
        }
        metrics.ended(&ended("GET /healthz", 418, "toy"));
        let expected = [
            ("GET /healthz", "other".to_string(), "toy".to_string(), 1),
            (routes::UNKNOWN, "404".to_string(), NO_MODEL.to_string(), 1_000),
        ];
        assert_eq!(metrics.request_counts(), expected);
    }

    #[test]
    fn models_that_a_reload_brings_are_counted_and_counts_stay() {
        let metrics = Metrics::new(["toy"].into_iter());
        metrics.ended(&ended("GET /healthz", 200, "toy"));
        metrics.learn(["far", "toy"].into_iter());
        for model in ["toy", "far", "made up"] {
            metrics.ended(&ended("GET /healthz", 200, model));
        }
        let counts: Vec<_> =
            metrics.request_counts().into_iter().map(|(_, _, model, count)| (model, count)).collect();
        assert_eq!(counts, [("toy".into(), 2), ("far".into(), 1), (NO_MODEL.into(), 1)]);
    }

    #[test]
    fn refusals_are_told_apart_until_there_are_too_many() {
        let metrics = Metrics::new([].into_iter());
        let reasons: Vec<&'static str> = (0..100).map(|number| &*format!("reason {number}").leak()).collect();
        for reason in &reasons {
            metrics.refused(reason);
            metrics.refused(reason);
        }
        let counts: Vec<_> = metrics.refusal_counts().collect();
        assert_eq!((counts.len(), counts[0], counts[63]), (REFUSALS, ("reason 0", 2), ("other", 2 * 37)));
    }
}
