//! Web pages as documents: the one place that knows `pages`.

use pages::extract;
use serde_json::Value;

use crate::document::Document;

/// Whether a media type is that of a web page.
pub fn is_html(media_type: &str) -> bool {
    matches!(media_type, "text/html" | "application/xhtml+xml")
}

/// Whether bytes without a type begin like a web page.
pub fn looks_like_html(bytes: &[u8]) -> bool {
    let head = bytes.trim_ascii_start();
    let begins =
        |tag: &str| head.get(..tag.len()).is_some_and(|head| head.eq_ignore_ascii_case(tag.as_bytes()));
    begins("<!doctype html") || begins("<html") || begins("<head")
}

/// Fills a document with a page's text and what the page says about itself. What is known already of address, date and
/// the rest stays.
pub fn fill(document: &mut Document, bytes: &[u8], content_type: Option<&str>) {
    let page = extract(bytes, content_type, document.url.as_deref());
    document.text = page.text;
    document.language = document.language.take().or_else(|| page.languages.into_iter().next());
    document.license = document.license.take().or(page.license);
    document.url = document.url.take().or(page.canonical_url);
    if document.date.is_none() {
        document.date = page.date;
    } else if let Some(date) = page.date {
        document.metadata.insert("published".to_string(), date.into());
    }
    let robots = (!page.robots.is_empty()).then(|| page.robots.join(", "));
    for (key, value) in [
        ("title", page.title),
        ("robots", robots),
        ("tdm-reservation", page.tdm_reservation),
        ("tdm-policy", page.tdm_policy),
        ("content-usage", page.content_usage),
    ] {
        if let Some(value) = value {
            document.metadata.insert(key.to_string(), Value::String(value));
        }
    }
}
