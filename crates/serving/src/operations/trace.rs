//! W3C trace context (<https://www.w3.org/TR/trace-context/>): a client's trace goes on in our log.

use axum::http::HeaderMap;

/// The trace id of a `traceparent` header: 32 lower-case hexadecimal digits, not all zero.
pub fn trace_id(headers: &HeaderMap) -> Option<String> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = parent.split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let holds = is_hex(version, 2) && version != "ff" && is_hex(trace, 32) && is_hex(span, 16);
    (holds && trace.bytes().any(|byte| byte != b'0')).then(|| trace.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &'static str, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", header.parse().unwrap());
        assert_eq!(trace_id(&headers).as_deref(), expected, "{header}");
    }

    #[test]
    fn only_what_follows_the_standard_is_taken() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(id));
        check("00-4bf92f3577b34da6a3ce929d0e0e4736", None);
        check("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e473%-00f067aa0ba902b7-01", None);
    }
}
