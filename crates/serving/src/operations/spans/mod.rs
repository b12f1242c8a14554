//! Spans of requests for a collector of OpenTelemetry: one for each request, with its route, model, status, token counts and
//! times; never its text.
//!
//! A span is put into a bounded queue when its request ends, and sent in the background: a collector that is slow or away
//! costs spans, which are counted, and never a request. OTLP over HTTP in JSON (<https://opentelemetry.io/docs/specs/otlp/>)
//! is written by hand: it is stable, it is one kind of message, and the crates that speak it would bring gRPC, protobuf and
//! a second HTTP client.

mod exporter;
mod otlp;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use provenance::Clock;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;

use self::exporter::Exporter;
use self::otlp::FinishedSpan;
use super::trace::{RequestTrace, SpanCounts, SpanEnd, TraceParent};
use crate::error::ServingError;
use crate::keys::random_hex;
use crate::settings::TracesSettings;

/// Makes spans and sends them on; without settings it does neither.
pub struct Tracer {
    clock: Clock,
    sink: Option<Sink>,
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

struct Sink {
    queue: Sender<FinishedSpan>,
    /// Taken by the task that sends.
    waiting: Mutex<Option<Receiver<FinishedSpan>>>,
    exporter: Exporter,
}

/// A request that is recorded.
pub struct Span {
    tracer: Arc<Tracer>,
    here: TraceParent,
    /// The client's span.
    parent: Option<String>,
    /// By the calendar.
    began: Duration,
    began_at: Instant,
}

impl Tracer {
    /// Reads what the settings name; connects to nothing.
    pub fn open(settings: Option<&TracesSettings>, clock: Clock) -> Result<Tracer, ServingError> {
        let sink = settings.map(|settings| {
            let (queue, waiting) = channel(settings.queue);
            Ok::<Sink, ServingError>(Sink {
                queue,
                waiting: Mutex::new(Some(waiting)),
                exporter: Exporter::open(settings)?,
            })
        });
        Ok(Tracer {
            clock,
            sink: sink.transpose()?,
            exported: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// A request begins. A client that records nothing (`sampled` is not set) is followed in that.
    pub fn begin(self: &Arc<Self>, parent: Option<TraceParent>) -> RequestTrace {
        let is_recorded = self.sink.is_some() && parent.as_ref().is_none_or(|parent| parent.is_sampled);
        let span = is_recorded.then(|| self.span(parent.as_ref())).flatten();
        RequestTrace { parent, span }
    }

    /// `None` without random numbers, which end the request anyway.
    fn span(self: &Arc<Self>, parent: Option<&TraceParent>) -> Option<Span> {
        let trace = match parent {
            Some(parent) => parent.trace.clone(),
            None => random_hex(16).ok()?,
        };
        Some(Span {
            tracer: self.clone(),
            here: TraceParent { trace, span: random_hex(8).ok()?, is_sampled: true },
            parent: parent.map(|parent| parent.span.clone()),
            began: self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            began_at: Instant::now(),
        })
    }

    /// What became of spans so far; `None` if none are recorded.
    pub fn counts(&self) -> Option<SpanCounts> {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.sink.as_ref().map(|_| SpanCounts {
            exported: count(&self.exported),
            dropped: count(&self.dropped),
            failed: count(&self.failed),
        })
    }

    /// Sends what ends, until `stop` and what waits then.
    pub async fn export(self: Arc<Self>, stop: watch::Receiver<bool>) {
        let Some(sink) = &self.sink else { return };
        let waiting = sink.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(waiting) = waiting else { return };
        sink.exporter
            .run(waiting, stop, |spans, is_taken| {
                let count = if is_taken { &self.exported } else { &self.failed };
                count.fetch_add(spans, Ordering::Relaxed);
            })
            .await;
    }
}

impl Span {
    /// What engines elsewhere are told.
    pub fn here(&self) -> &TraceParent {
        &self.here
    }

    /// The request has ended. Never waits.
    pub fn end(&self, end: &SpanEnd) {
        let Some(sink) = &self.tracer.sink else { return };
        let span =
            FinishedSpan::new(&self.here, self.parent.as_deref(), self.began, self.began_at.elapsed(), end);
        if sink.queue.try_send(span).is_err() {
            self.tracer.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
