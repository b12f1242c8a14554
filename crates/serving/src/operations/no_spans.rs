//! Built without the feature `opentelemetry`: nothing is recorded, and settings that ask for it are refused by name.

use std::sync::Arc;

use provenance::Clock;
use tokio::sync::watch;

use super::trace::{RequestTrace, SpanCounts, SpanEnd, TraceParent};
use crate::error::ServingError;
use crate::settings::TracesSettings;

/// Records nothing.
pub struct Tracer;

/// There is none.
pub enum Span {}

impl Tracer {
    /// Refuses settings of traces.
    pub fn open(settings: Option<&TracesSettings>, _: Clock) -> Result<Tracer, ServingError> {
        match settings {
            None => Ok(Tracer),
            Some(_) => Err(ServingError::Setting {
                key: "traces",
                expected: "a program built with `--features opentelemetry`".to_string(),
                found: "one built without it".to_string(),
            }),
        }
    }

    pub fn begin(self: &Arc<Self>, parent: Option<TraceParent>) -> RequestTrace {
        RequestTrace { parent, span: None }
    }

    pub fn counts(&self) -> Option<SpanCounts> {
        None
    }

    pub async fn export(self: Arc<Self>, _: watch::Receiver<bool>) {}
}

impl Span {
    pub fn here(&self) -> &TraceParent {
        match *self {}
    }

    pub fn end(&self, _: &SpanEnd) {
        match *self {}
    }
}
