//! Rights come first: no text is looked at before it is known that it may be used.
//!
//! Three rules, in this order: the opt-out ledger, reservations in the document's own metadata (TDMRep, `noai`,
//! `Content-Usage`), and the licence allow-list. The ledger is append-only: one request a line, in the order of dates,
//! never changed, applied again at each build.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use documents::Document;
use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;
use crate::reason::{Drop, Reason};
use crate::settings::Settings;

/// The rules of one build, ready to be asked about many documents.
pub struct Rights {
    ledger: Ledger,
    licenses: HashSet<String>,
    default_license: String,
}

/// A document dropped for rights; `date` is the request's, or the document's own where no request was made.
#[derive(Debug, PartialEq)]
pub struct RightsDrop {
    pub drop: Drop,
    pub date: Option<String>,
}

impl Rights {
    pub fn new(settings: &Settings) -> Result<Rights, Error> {
        let ledger = match &settings.opt_outs {
            Some(path) => Ledger::read(path)?,
            None => Ledger::default(),
        };
        let licenses = settings.licenses.iter().map(|license| license.trim().to_lowercase()).collect();
        Ok(Rights { ledger, licenses, default_license: settings.default_license.clone() })
    }

    /// Nothing where the document may be used, else the reason.
    pub fn check(&self, document: &Document) -> Option<RightsDrop> {
        if let Some(request_date) = self.ledger.names(document) {
            let drop = Drop::new(Reason::OptedOut);
            return Some(RightsDrop { drop, date: Some(request_date.to_string()) });
        }
        let drop =
            if is_reserved(document) { Some(Reason::TrainingReserved) } else { self.license_fault(document) };
        drop.map(|reason| RightsDrop { drop: Drop::new(reason), date: document.date.clone() })
    }

    fn license_fault(&self, document: &Document) -> Option<Reason> {
        let named = document.license.as_deref().unwrap_or(&self.default_license).trim();
        if named.is_empty() {
            return Some(Reason::LicenseMissing);
        }
        (!self.allows(named)).then_some(Reason::LicenseNotAllowed)
    }

    /// SPDX expressions: one licence of an `OR` is enough, all of an `AND` are needed. What cannot be understood is not
    /// allowed.
    fn allows(&self, expression: &str) -> bool {
        expression.split(" OR ").any(|alternative| {
            alternative.split(" AND ").all(|license| {
                let license = license.trim().trim_matches(['(', ')']).trim();
                let license = license_of_address(license).unwrap_or_else(|| license.to_lowercase());
                self.licenses.contains(&license)
            })
        })
    }
}

/// The SPDX identifier (lower case) behind a Creative Commons address.
fn license_of_address(address: &str) -> Option<String> {
    let path = address
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_start_matches("www.")
        .strip_prefix("creativecommons.org/")?;
    let mut parts = path.split('/');
    match (parts.next()?, parts.next()?, parts.next()?) {
        ("licenses", kind, version) => Some(format!("cc-{kind}-{version}").to_lowercase()),
        ("publicdomain", "zero", version) => Some(format!("cc0-{version}")),
        ("publicdomain", "mark", version) => Some(format!("cc-pdm-{version}")),
        _ => None,
    }
}

/// Whether the document's own metadata reserve it: robots directives `noai` and `notrain`, TDMRep's reservation, AI
/// preferences (`Content-Usage: train-ai=n`), `Content-Signal: ai-train=no`.
fn is_reserved(document: &Document) -> bool {
    document.metadata.iter().any(|(key, value)| {
        let key = key.to_lowercase().replace('_', "-");
        match key.as_str() {
            "noai" | "no-ai" | "notrain" => is_true(value),
            "tdm-reservation" => is_true(value),
            "robots" | "meta-robots" | "x-robots-tag" => has_directive(value, &["noai", "notrain", "noml"]),
            "content-usage" => has_directive(value, &["train-ai=n", "ai=n", "tdm=n"]),
            "content-signal" => has_directive(value, &["ai-train=no"]),
            _ => false,
        }
    })
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(text.trim().to_lowercase().as_str(), "" | "0" | "false" | "no"),
        _ => false,
    }
}

fn has_directive(value: &Value, directives: &[&str]) -> bool {
    match value {
        Value::String(text) => {
            let text = text.to_lowercase().replace(" =", "=").replace("= ", "=");
            text.split([',', ';', ' ']).any(|part| directives.contains(&part.trim()))
        }
        Value::Array(values) => values.iter().any(|value| has_directive(value, directives)),
        _ => false,
    }
}

/// Requests to be left out, by what they name; each with its date.
#[derive(Default)]
struct Ledger {
    domains: HashMap<String, String>,
    addresses: HashMap<String, String>,
    ids: HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    date: String,
    domain: Option<String>,
    url: Option<String>,
    id: Option<String>,
    /// Where the request is filed; required, so that each entry can be traced.
    reference: String,
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
}

impl Ledger {
    fn read(path: &Path) -> Result<Ledger, Error> {
        let text =
            fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        let mut ledger = Ledger::default();
        let mut latest = String::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong =
                |problem: String| Error::Ledger { path: path.to_path_buf(), line: index + 1, problem };
            let request: Request = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            if !is_date(&request.date) {
                return Err(wrong(format!("`date`: expected YYYY-MM-DD, found {:?}", request.date)));
            }
            if request.date < latest {
                return Err(wrong(format!(
                    "dated {} after a request of {latest}: the ledger is only ever appended to",
                    request.date
                )));
            }
            if request.reference.trim().is_empty() {
                return Err(wrong("`reference` is empty".to_string()));
            }
            latest.clone_from(&request.date);
            ledger.add(request).map_err(wrong)?;
        }
        Ok(ledger)
    }

    fn add(&mut self, request: Request) -> Result<(), String> {
        let (table, name) = match (request.domain, request.url, request.id) {
            (Some(domain), None, None) if !domain.contains('/') => {
                (&mut self.domains, domain.trim().trim_end_matches('.').to_lowercase())
            }
            (Some(domain), None, None) => return Err(format!("expected a plain domain, found {domain:?}")),
            (None, Some(url), None) => (&mut self.addresses, comparable(&url)),
            (None, None, Some(id)) => (&mut self.ids, id),
            _ => return Err("expected one of `domain`, `url` and `id`".to_string()),
        };
        if name.is_empty() {
            return Err("the name is empty".to_string());
        }
        // The first request counts: that is the day from which the text was not to be used.
        table.entry(name).or_insert(request.date);
        Ok(())
    }

    /// The date of the request that names the document.
    fn names(&self, document: &Document) -> Option<&str> {
        if let Some(date) = self.ids.get(&document.id) {
            return Some(date);
        }
        let url = document.url.as_deref()?;
        if let Some(date) = self.addresses.get(&comparable(url)) {
            return Some(date);
        }
        let host = host_of(url)?;
        // The site and every site above it: `a.b.example`, `b.example`, `example`.
        let parents = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
        std::iter::once(host.as_str())
            .chain(parents)
            .find_map(|domain| self.domains.get(domain))
            .map(String::as_str)
    }
}

fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes.iter().enumerate().all(|(place, byte)| match place {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
        && ("01".."13").contains(&&text[5..7])
        && ("01".."32").contains(&&text[8..10])
}

/// An address without scheme, `www.`, fragment and closing slash: what two spellings of one page share.
fn comparable(url: &str) -> String {
    let url = url.trim().split('#').next().unwrap_or_default();
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.to_lowercase();
    format!("{}{}", host.strip_prefix("www.").unwrap_or(&host), path.trim_end_matches('/'))
}

/// The host of an address, lower case, without user, port and closing dot.
pub fn host_of(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?.split(':').next()?.trim_end_matches('.');
    (!host.is_empty()).then(|| host.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(ledger: &str) -> Result<Rights, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("opt-outs.jsonl");
        fs::write(&path, ledger).unwrap();
        Rights::new(&Settings { opt_outs: Some(path), ..Settings::default() })
    }

    fn document(url: &str, license: &str) -> Document {
        Document { url: Some(url.into()), license: Some(license.into()), ..Document::new("x-1", "") }
    }

    #[test]
    fn licences_are_spdx_expressions_or_creative_commons_addresses() {
        let rights = rights("").unwrap();
        let check = |license: &str, expected: Option<Reason>| {
            let found = rights.check(&document("https://a.example/", license)).map(|fault| fault.drop.reason);
            assert_eq!(found, expected, "{license}");
        };
        check("CC0-1.0", None);
        check("cc-by-4.0", None);
        check("GPL-3.0-only OR MIT", None);
        check("MIT AND Apache-2.0", None);
        check("https://creativecommons.org/licenses/by-sa/4.0/deed.mt", None);
        check("http://creativecommons.org/publicdomain/zero/1.0/", None);
        check("MIT AND CC-BY-NC-4.0", Some(Reason::LicenseNotAllowed));
        check("CC-BY-NC-ND-4.0", Some(Reason::LicenseNotAllowed));
        check("https://creativecommons.org/licenses/by-nc/4.0/", Some(Reason::LicenseNotAllowed));
        check("all rights reserved", Some(Reason::LicenseNotAllowed));
        check(" ", Some(Reason::LicenseMissing));
        assert_eq!(rights.check(&Document::new("1", "")).unwrap().drop.reason, Reason::LicenseMissing);
    }

    #[test]
    fn opt_outs_name_sites_pages_and_ids() {
        let rights = rights(
            "{\"date\":\"2026-01-31\",\"domain\":\"b.example\",\"reference\":\"1\",\"reason\":\"asked\"}\n\n\
             {\"date\":\"2026-02-01\",\"url\":\"https://www.c.example/page/\",\"reference\":\"2\"}\n\
             {\"date\":\"2026-02-01\",\"id\":\"d-7\",\"reference\":\"3\"}\n",
        )
        .unwrap();
        let check = |document: Document, expected: Option<&str>| {
            let found = rights.check(&document);
            assert_eq!(found.as_ref().and_then(|fault| fault.date.as_deref()), expected, "{document:?}");
        };
        check(document("https://b.example/x", "MIT"), Some("2026-01-31"));
        check(document("https://user@A.B.example:8080?q", "MIT"), Some("2026-01-31"));
        check(document("https://ab.example/x", "MIT"), None);
        check(document("http://c.example/page#part", "MIT"), Some("2026-02-01"));
        check(document("http://c.example/page/other", "MIT"), None);
        check(Document { id: "d-7".into(), ..document("https://e.example", "MIT") }, Some("2026-02-01"));
    }

    #[test]
    fn a_ledger_that_was_tampered_with_stops_the_run() {
        let check = |ledger: &str, expected: &str| {
            let message = rights(ledger).err().expect(ledger).to_string();
            assert!(message.contains(expected), "{message}");
        };
        check("{\"date\":\"2026-13-01\",\"id\":\"1\",\"reference\":\"1\"}", "line 1: `date`");
        check(
            "{\"date\":\"2026-02-01\",\"id\":\"1\",\"reference\":\"1\"}\n{\"date\":\"2026-01-01\",\"id\":\"2\",\"reference\":\"2\"}",
            "line 2: dated 2026-01-01 after",
        );
        check("{\"date\":\"2026-02-01\",\"reference\":\"1\"}", "expected one of");
        check(
            "{\"date\":\"2026-02-01\",\"domain\":\"https://a.example/\",\"reference\":\"1\"}",
            "plain domain",
        );
        check("{\"date\":\"2026-02-01\",\"id\":\"1\"}", "reference");
        check("not JSON", "line 1");
    }

    #[test]
    fn documents_can_reserve_themselves() {
        let rights = rights("").unwrap();
        let check = |key: &str, value: Value, expected: bool| {
            let mut document = document("https://a.example/", "MIT");
            document.metadata.insert(key.into(), value.clone());
            assert_eq!(rights.check(&document).is_some(), expected, "{key} {value}");
        };
        check("robots", "index, noai".into(), true);
        check("robots", "noindex, noimageai".into(), false);
        check("X-Robots-Tag", serde_json::json!(["nosnippet", "noai"]), true);
        check("tdm_reservation", 1.into(), true);
        check("tdm-reservation", "0".into(), false);
        check("Content-Usage", "search=y, train-ai = n".into(), true);
        check("content-signal", "search=yes, ai-train=no".into(), true);
        check("noai", true.into(), true);
        check("topic", "noai".into(), false);
    }
}
