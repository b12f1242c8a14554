//! W3C trace context (<https://www.w3.org/TR/trace-context/>): a client's trace goes on in our log, in our spans, and at
//! engines elsewhere.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode};

use super::spans::Span;

/// The header.
pub const TRACEPARENT: &str = "traceparent";

/// Where a request stands in a trace: what its client said, or what we say of it to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// 32 hexadecimal digits.
    pub trace: String,
    /// Of the caller: 16 hexadecimal digits.
    pub span: String,
    /// Whether the caller records it.
    pub is_sampled: bool,
}

impl TraceParent {
    /// What a `traceparent` header says, if it follows the standard.
    pub fn of(headers: &HeaderMap) -> Option<TraceParent> {
        let parent = headers.get(TRACEPARENT)?.to_str().ok()?;
        let mut parts = parent.split('-');
        let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
        let flags = parts.next()?;
        let is_hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_some = |text: &str| text.bytes().any(|byte| byte != b'0');
        // Later versions may say more behind the flags.
        let ends = version != "00" || parts.next().is_none();
        let holds = is_hex(version, 2) && version != "ff" && is_hex(trace, 32) && is_hex(span, 16);
        (holds && ends && is_hex(flags, 2) && is_some(trace) && is_some(span)).then(|| TraceParent {
            trace: trace.to_string(),
            span: span.to_string(),
            is_sampled: u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1),
        })
    }

    fn header(&self) -> Option<HeaderValue> {
        let flags = u8::from(self.is_sampled);
        HeaderValue::from_str(&format!("00-{}-{}-{flags:02x}", self.trace, self.span)).ok()
    }
}

/// One request in its trace.
#[derive(Default)]
pub struct RequestTrace {
    /// What the client said.
    pub parent: Option<TraceParent>,
    /// What we record of it, if we do.
    pub span: Option<Span>,
}

impl RequestTrace {
    /// The trace's id, for the log.
    pub fn id(&self) -> Option<&str> {
        let own = self.span.as_ref().map(Span::here);
        own.or(self.parent.as_ref()).map(|parent| parent.trace.as_str())
    }

    /// What engines elsewhere are told: that we ask, or where we record nothing, what the client said.
    pub fn outgoing(&self) -> Option<HeaderValue> {
        self.span.as_ref().map(Span::here).or(self.parent.as_ref())?.header()
    }
}

/// What is known of a request at its end. No prompt and no answer.
pub struct SpanEnd<'a> {
    /// The request's id, as the audit log has it.
    pub id: &'a str,
    pub route: &'static str,
    pub status: StatusCode,
    pub outcome: &'a str,
    pub model: &'a str,
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    /// How long it waited for its engine, where the engine is ours.
    pub queued: Option<Duration>,
    /// From its arrival.
    pub first_token: Option<Duration>,
}

impl SpanEnd<'_> {
    /// The request's line in the log.
    pub fn log(&self, trace: Option<&str>, key: &str, milliseconds: u64) {
        let whole =
            |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        tracing::info!(
            id = self.id,
            trace,
            route = self.route,
            key,
            model = self.model,
            prompt_tokens = self.prompt_tokens,
            completion_tokens = self.completion_tokens,
            outcome = self.outcome,
            status = self.status.as_u16(),
            milliseconds,
            queue_milliseconds = whole(self.queued),
            first_token_milliseconds = whole(self.first_token),
            "request"
        );
    }
}

/// What became of spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// The collector has them.
    pub exported: u64,
    /// The queue was full.
    pub dropped: u64,
    /// The collector did not take them.
    pub failed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &'static str, expected: Option<(&str, bool)>) {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, header.parse().unwrap());
        let found = TraceParent::of(&headers);
        let said = found.as_ref().map(|parent| (parent.trace.as_str(), parent.is_sampled));
        assert_eq!(said, expected, "{header}");
        if let Some(found) = found.filter(|_| header.starts_with("00")) {
            assert_eq!(found.header().unwrap(), header);
        }
    }

    #[test]
    fn only_what_follows_the_standard_is_taken() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some((id, true)));
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some((id, false)));
        check("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", Some((id, true)));
        check("00-4bf92f3577b34da6a3ce929d0e0e4736", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", None);
        check("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e473%-00f067aa0ba902b7-01", None);
    }
}
