//! Spans as OTLP has them in JSON: ids in hexadecimal, 64-bit numbers as strings.

use std::time::Duration;

use serde_json::{Value, json};

use crate::operations::trace::{SpanEnd, TraceParent};

/// `SPAN_KIND_SERVER`
const SERVER: u8 = 2;
/// `STATUS_CODE_ERROR`
const ERROR: u8 = 2;

/// A span as it is sent.
pub struct FinishedSpan(Value);

impl FinishedSpan {
    /// `began` since 1970.
    pub fn new(
        here: &TraceParent,
        parent: Option<&str>,
        began: Duration,
        took: Duration,
        end: &SpanEnd,
    ) -> FinishedSpan {
        let (method, path) = end.route.split_once(' ').unwrap_or(("", end.route));
        let mut attributes = vec![
            text("http.request.method", method),
            text("http.route", path),
            count("http.response.status_code", u64::from(end.status.as_u16())),
            text("eulalia.request_id", end.id),
            text("eulalia.outcome", end.outcome),
        ];
        if !end.model.is_empty() {
            attributes.extend([
                text("gen_ai.request.model", end.model),
                count("gen_ai.usage.input_tokens", end.prompt_tokens as u64),
                count("gen_ai.usage.output_tokens", end.completion_tokens as u64),
            ]);
        }
        let times =
            [("eulalia.queue_seconds", end.queued), ("eulalia.time_to_first_token_seconds", end.first_token)];
        attributes.extend(times.into_iter().filter_map(|(key, time)| Some(seconds(key, time?))));
        let mut span = json!({
            "traceId": here.trace,
            "spanId": here.span,
            "name": end.route,
            "kind": SERVER,
            "startTimeUnixNano": began.as_nanos().to_string(),
            "endTimeUnixNano": (began + took).as_nanos().to_string(),
            "attributes": attributes,
        });
        if let Some(parent) = parent {
            span["parentSpanId"] = json!(parent);
        }
        if end.status.is_server_error() {
            span["status"] = json!({"code": ERROR});
        }
        FinishedSpan(span)
    }
}

/// The body of a request to the collector.
pub fn body(service: &str, spans: Vec<FinishedSpan>) -> Value {
    let spans: Vec<Value> = spans.into_iter().map(|FinishedSpan(span)| span).collect();
    let version = env!("CARGO_PKG_VERSION");
    json!({"resourceSpans": [{
        "resource": {"attributes": [text("service.name", service), text("service.version", version)]},
        "scopeSpans": [{"scope": {"name": "eulalia", "version": version}, "spans": spans}],
    }]})
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn count(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

fn seconds(key: &str, value: Duration) -> Value {
    json!({"key": key, "value": {"doubleValue": value.as_secs_f64()}})
}
