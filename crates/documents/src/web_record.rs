//! A WARC record that may become a document: what its head says, which ones are wanted, and the way from its block to
//! a document.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::document::Document;
use crate::html;
use crate::http::{BodyFault, Response};
use crate::reader::Problem;

/// What the head of a record says, and its block.
#[derive(Debug, Clone, Default)]
pub struct WebRecord {
    /// `WARC-Type`.
    pub kind: String,
    pub content_length: Option<u64>,
    id: Option<String>,
    address: Option<String>,
    date: Option<String>,
    content_type: Option<String>,
    /// `WARC-Truncated`: why the crawler stopped.
    cut: Option<String>,
    /// `WARC-Identified-Content-Language`, most certain first.
    languages: Option<String>,
    pub collection: Option<Arc<str>>,
    pub block: Vec<u8>,
}

impl WebRecord {
    /// Reads the lines of a head, version line and empty line included. Later values of a name do not count.
    pub fn from_head(head: &[u8]) -> WebRecord {
        let text = String::from_utf8_lossy(head);
        let mut record = WebRecord::default();
        for line in unfolded(&text) {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            let field = match name.trim().to_ascii_lowercase().as_str() {
                "warc-type" if record.kind.is_empty() => {
                    record.kind = value.to_string();
                    continue;
                }
                "content-length" if record.content_length.is_none() => {
                    record.content_length = value.parse().ok();
                    continue;
                }
                "warc-record-id" => &mut record.id,
                "warc-target-uri" => &mut record.address,
                "warc-date" => &mut record.date,
                "content-type" => &mut record.content_type,
                "warc-truncated" => &mut record.cut,
                "warc-identified-content-language" => &mut record.languages,
                _ => continue,
            };
            if field.is_none() {
                // WARC 1.0 in its examples, and some tools, write addresses and ids in angle brackets.
                let value =
                    value.strip_prefix('<').and_then(|value| value.strip_suffix('>')).unwrap_or(value);
                *field = Some(value.to_string());
            }
        }
        record
    }

    /// Whether records of this type can hold a text: requests, metadata, revisits and the like cannot.
    pub fn may_be_document(&self) -> bool {
        ["response", "resource", "conversion"].iter().any(|kind| self.kind.eq_ignore_ascii_case(kind))
    }

    /// Which of its site's rules this is, if it is any: `robots.txt`, or `tdmrep.json`.
    pub fn site_file(&self) -> Option<&'static str> {
        let address = self.address.as_ref()?;
        let rest = address.split_once("://").map_or(address.as_str(), |(_, rest)| rest);
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        match path.split_once('/')?.1 {
            "robots.txt" => Some("robots.txt"),
            ".well-known/tdmrep.json" => Some("tdmrep.json"),
            _ => None,
        }
    }

    /// The payload's own type: the server's in a response, the record's otherwise.
    fn payload<'a>(&'a self, response: Option<&Response<'a>>) -> (&'a [u8], Option<Cow<'a, str>>) {
        match response {
            Some(response) => (response.body, response.first("content-type")),
            None => (&self.block, self.content_type.as_deref().map(Cow::Borrowed)),
        }
    }

    fn response(&self) -> Option<Response<'_>> {
        // Only what came over HTTP has a head: `dns:` and `ftp:` responses are payload alone.
        let is_http = self.kind.eq_ignore_ascii_case("response");
        is_http.then(|| Response::parse(&self.block)).flatten()
    }

    /// The document of a wanted record, or what is wrong with it. `id` is for a record without one.
    pub fn document(self, id: String, limit_bytes: usize) -> Result<Document, Problem> {
        let response = self.response();
        let (stored, content_type) = self.payload(response.as_ref());
        let body = match &response {
            Some(response) => {
                response.body(limit_bytes, self.cut.is_some()).map_err(|fault| match fault {
                    BodyFault::TooLarge => Problem::UnpacksTooFar {
                        packed_bytes: stored.len() as u64,
                        limit_bytes: limit_bytes as u64,
                    },
                    BodyFault::Damaged(detail) => Problem::NotARecord {
                        message: format!("its content encoding cannot be undone: {detail}"),
                    },
                })?
            }
            None => Cow::Borrowed(stored),
        };
        let mut document = Document {
            url: self.address.clone(),
            date: self.date.clone(),
            source: self.collection.as_deref().map(String::from),
            ..Document::new(self.id.clone().unwrap_or(id), String::new())
        };
        if let Some(kind) = self.site_file() {
            document.text = String::from_utf8_lossy(&body).into_owned();
            document.metadata.insert("kind".to_string(), kind.into());
        } else if content_type.as_deref().is_some_and(|content_type| is_text(&media_type(content_type))) {
            fill_from_text(&mut document, &body, content_type.as_deref())?;
        } else {
            html::fill(&mut document, &body, content_type.as_deref());
        }
        if let Some(response) = &response {
            fill_from_headers(&mut document, response);
        }
        if let Some(cut) = self.cut {
            document.metadata.insert("warc-truncated".to_string(), cut.into());
        }
        if let Some(language) = self.languages.as_deref().and_then(|languages| languages.split(',').next()) {
            document.language.get_or_insert_with(|| language.trim().to_string());
        }
        Ok(document)
    }
}

/// The lines of a head, those that begin with a blank joined to the one before.
fn unfolded(head: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in head.lines() {
        match lines.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => lines.push(line.to_string()),
        }
    }
    lines
}

/// Whether the block holds a text or a robots.txt, as far as its head tells: looked at before anything is unpacked.
pub fn is_wanted(record: &WebRecord, block: &[u8]) -> bool {
    if !record.may_be_document() {
        return false;
    }
    let response = match record.kind.eq_ignore_ascii_case("response") {
        true => Response::parse(block),
        false => None,
    };
    if record.site_file().is_some() {
        return true;
    }
    let content_type = match &response {
        Some(response) if !(200..300).contains(&response.status) => return false,
        Some(response) => response.first("content-type"),
        None => record.content_type.as_deref().map(Cow::Borrowed),
    };
    match content_type.map(|content_type| media_type(&content_type)) {
        Some(media_type) => is_text(&media_type) || html::is_html(&media_type),
        None => html::looks_like_html(response.as_ref().map_or(block, |response| response.body)),
    }
}

/// `text/html` of `Text/HTML; charset=utf-8`.
fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_text(media_type: &str) -> bool {
    matches!(media_type, "text/plain" | "text/markdown")
}

fn fill_from_text(document: &mut Document, body: &[u8], content_type: Option<&str>) -> Result<(), Problem> {
    let label = content_type.and_then(|content_type| {
        let (_, charset) = content_type.split_once("charset=")?;
        Some(charset.split(';').next()?.trim().trim_matches('"'))
    });
    let named = label.and_then(|label| encoding_rs::Encoding::for_label(label.as_bytes()));
    // A byte order mark counts for more than a label; without either, only UTF-8 can be told for certain.
    let (text, _, lost) = named.unwrap_or(encoding_rs::UTF_8).decode(body);
    if lost && named.is_none() {
        return Err(Problem::NotUtf8);
    }
    document.text = text.into_owned();
    Ok(())
}

/// What the server said about the page, beside what the page says of itself.
fn fill_from_headers(document: &mut Document, response: &Response<'_>) {
    document.metadata.insert("http-status".to_string(), response.status.into());
    for (header, key) in [
        ("x-robots-tag", "robots"),
        ("tdm-reservation", "tdm-reservation"),
        ("content-usage", "content-usage"),
        ("content-signal", "content-signal"),
    ] {
        let mut values: Vec<String> = response.all(header).map(Cow::into_owned).collect();
        if let Some(Value::String(own)) = document.metadata.get(key) {
            values.push(own.clone());
        }
        if !values.is_empty() {
            document.metadata.insert(key.to_string(), values.join(", ").into());
        }
    }
    if document.date.is_none() {
        document.date = response.first("last-modified").map(Cow::into_owned);
    }
    if let Some(language) = response.first("content-language").filter(|value| !value.contains(',')) {
        document.language.get_or_insert_with(|| language.into_owned());
    }
}
