//! `GET /metrics`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use filters::Count;
use inference::EngineLoad;

use super::exposition::Exposition;
use super::histogram::Histogram;
use super::{Metrics, OfModel, process};
use crate::server::Server;
use crate::upstream::{BreakerState, Endpoint};

const CONTENT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Name, and what is read.
type OfModels = (&'static str, fn(&OfModel) -> u64);
/// Name, help, and what is read.
type Times = (&'static str, &'static str, fn(&OfModel) -> &Histogram);
/// Name, kind, help, and what is read.
type OfEngine = (&'static str, &'static str, &'static str, fn(&EngineLoad) -> u64);

/// `GET /metrics`
pub async fn page(State(server): State<Arc<Server>>) -> Response {
    let mut text = Exposition::default();
    requests(&mut text, &server);
    times(&mut text, &server.metrics);
    engines(&mut text, &server);
    upstreams(&mut text, &server);
    filters(&mut text, &server);
    house(&mut text, &server);
    process::write(&mut text);
    let mut response = text.into_text().into_response();
    response.headers_mut().insert(CONTENT_TYPE, CONTENT);
    response
}

fn requests(text: &mut Exposition, server: &Server) {
    let metrics = &server.metrics;
    let name = "eulalia_requests_total";
    text.family(
        name,
        "counter",
        "Requests with a valid credential that have ended, by route, status and model",
    );
    for (route, status, model, count) in metrics.request_counts() {
        text.sample(name, &[("route", route), ("status", &status), ("model", &model)], count);
    }
    let name = "eulalia_refusals_total";
    text.family(name, "counter", "Requests that were not answered, by the code that the client reads");
    for (reason, count) in metrics.refusal_counts() {
        text.sample(name, &[("reason", reason)], count);
    }
    let help = "Requests without a valid credential";
    text.single("eulalia_strangers_total", "counter", help, server.strangers.load(Ordering::Relaxed));
    let tokens: [OfModels; 2] = [
        ("eulalia_prompt_tokens_total", |of| of.prompt_tokens.load(Ordering::Relaxed)),
        ("eulalia_completion_tokens_total", |of| of.completion_tokens.load(Ordering::Relaxed)),
    ];
    for (name, count) in tokens {
        text.family(name, "counter", "Tokens of ended requests");
        for model in metrics.models.get().iter() {
            text.sample(name, &[("model", &model.name)], count(model));
        }
    }
}

fn times(text: &mut Exposition, metrics: &Metrics) {
    let families: [Times; 3] = [
        ("eulalia_time_to_first_token_seconds", "From a request's arrival to its first token", |of| {
            &of.first_token
        }),
        ("eulalia_inter_token_seconds", "From one token of an answer to the next", |of| &of.between_tokens),
        ("eulalia_request_seconds", "From a request's arrival to its end", |of| &of.request),
    ];
    for (name, help, histogram) in families {
        text.family(name, "histogram", help);
        for model in metrics.models.get().iter() {
            text.histogram(name, &[("model", &model.name)], histogram(model));
        }
    }
}

fn upstreams(text: &mut Exposition, server: &Server) {
    let parts = server.parts();
    type OfUpstream = (&'static str, &'static str, &'static str, fn(&Endpoint) -> u64);
    let families: [OfUpstream; 6] = [
        ("eulalia_upstream_up", "gauge", "Whether the last health check succeeded", |upstream| {
            u64::from(upstream.is_healthy())
        }),
        (
            "eulalia_upstream_breaker_open",
            "gauge",
            "Whether the circuit breaker keeps everyone's requests back",
            |upstream| u64::from(upstream.breaker_state() != BreakerState::Closed),
        ),
        (
            "eulalia_upstream_breaker_tenants",
            "gauge",
            "Tenants whose requests alone it keeps back",
            |upstream| upstream.tenants_kept_back() as u64,
        ),
        ("eulalia_upstream_running_requests", "gauge", "Requests that the upstream answers", |upstream| {
            upstream.running() as u64
        }),
        ("eulalia_upstream_requests_total", "counter", "Requests that the upstream was sent", |upstream| {
            upstream.counts().requests
        }),
        (
            "eulalia_upstream_failures_total",
            "counter",
            "Refused connections, 5xx, late and broken answers",
            |upstream| upstream.counts().failures,
        ),
    ];
    for (name, kind, help, value) in families {
        text.family(name, kind, help);
        for upstream in parts.upstreams.endpoints() {
            text.sample(name, &[("upstream", upstream.name())], value(upstream));
        }
    }
}

fn filters(text: &mut Exposition, server: &Server) {
    type OfFilter = (&'static str, &'static str, fn(&Count) -> u64);
    let counts = server.parts().filters.counts();
    let families: [OfFilter; 3] = [
        ("eulalia_filter_texts_total", "Texts that a filter looked at", |count| count.texts),
        ("eulalia_filter_findings_total", "What a filter found", |count| count.found),
        ("eulalia_filter_refusals_total", "Texts that a filter refused", |count| count.refused),
    ];
    for (name, help, value) in families {
        text.family(name, "counter", help);
        for count in &counts {
            text.sample(name, &[("place", count.place), ("filter", &count.filter)], value(count));
        }
    }
}

fn engines(text: &mut Exposition, server: &Server) {
    let loads: Vec<(&str, EngineLoad)> =
        server.models.iter().map(|model| (model.name.as_str(), model.engine.load())).collect();
    let families: [OfEngine; 9] = [
        ("eulalia_engine_up", "gauge", "Whether the engine takes requests", |load| u64::from(load.alive)),
        ("eulalia_queue_requests", "gauge", "Requests that wait for the engine", |load| load.waiting as u64),
        ("eulalia_running_requests", "gauge", "Requests that the engine computes", |load| {
            load.running as u64
        }),
        ("eulalia_engine_steps_total", "counter", "Forward passes", |load| load.figures.steps),
        ("eulalia_engine_rows_total", "counter", "Token rows computed", |load| load.figures.computed_tokens),
        (
            "eulalia_prefix_cache_hits_total",
            "counter",
            "Requests that found the beginning of their prompt computed",
            |load| load.figures.prefix_hits,
        ),
        (
            "eulalia_prefix_cache_rows_saved_total",
            "counter",
            "Token rows that these did not need computed",
            |load| load.figures.prefix_tokens_saved,
        ),
        ("eulalia_cache_blocks", "gauge", "Blocks of the key-value cache", |load| load.cache_blocks as u64),
        ("eulalia_cache_blocks_used", "gauge", "Of these, blocks that running requests hold", |load| {
            load.cache_blocks_used as u64
        }),
    ];
    for (name, kind, help, value) in families {
        text.family(name, kind, help);
        for (model, load) in &loads {
            text.sample(name, &[("model", model)], value(load));
        }
    }
}

fn house(text: &mut Exposition, server: &Server) {
    let waiting = server.audit.waiting();
    text.single("eulalia_audit_waiting_events", "gauge", "Audit events that are not on disk yet", waiting);
    let draining = u8::from(server.is_draining());
    text.single("eulalia_draining", "gauge", "Whether the server was asked to stop", draining);
    if let Some(dates) = server.certificates.as_ref().and_then(|certificates| certificates.validity()) {
        let help = "When the certificate ends, in seconds since 1970";
        text.single("eulalia_tls_certificate_end_timestamp_seconds", "gauge", help, dates.not_after);
    }
    if let Some(counts) = server.tracer.counts() {
        let name = "eulalia_trace_spans_total";
        text.family(name, "counter", "Spans of requests, by what became of them");
        let outcomes =
            [("exported", counts.exported), ("dropped", counts.dropped), ("failed", counts.failed)];
        for (outcome, count) in outcomes {
            text.sample(name, &[("outcome", outcome)], count);
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    text.family("eulalia_build_info", "gauge", "Always 1; its labels say what runs");
    text.sample("eulalia_build_info", &[("version", version)], 1);
}
