//! The opt-out ledger: requests that a site, a page, a document or a text be left out, one a line, in the order of their
//! dates, never changed, applied again at each build.
//!
//! A line names one of `domain`, `url`, `id` and `text_digest`, its `date`, the `reference` under which the request is
//! filed, and may give a `reason`. `eulalia opt-out add` appends lines that also carry `previous`, the SHA-256 of all bytes
//! before them: whoever changes, removes or inserts an earlier line breaks the chain. That the last lines were not cut off
//! shows against a digest of the ledger that `eulalia opt-out check` printed before.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use documents::Document;
use provenance::digest::sha256;
use provenance::{Digest, Storage};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::addresses::{comparable, domain_and_parents, host_of};
use crate::block_list::{is_public_suffix, plain_domain};
use crate::error::Error;

/// One request, as a line of the ledger has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The day of the request, YYYY-MM-DD.
    pub date: String,
    /// A site with all below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// A page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A document by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A text wherever it stands, see [`digest_of_text`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_digest: Option<Digest>,
    /// Where the request is filed; required, so that each entry can be traced.
    pub reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// SHA-256 of all bytes of the ledger before this line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
}

/// Requests to be left out, by what they name; each with its date.
#[derive(Debug, Default)]
pub struct Ledger {
    domains: HashMap<String, String>,
    addresses: HashMap<String, String>,
    ids: HashMap<String, String>,
    texts: HashMap<Digest, String>,
    summary: Summary,
}

/// What a sound ledger holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    pub requests: usize,
    /// Requests whose line is chained to all before it.
    pub chained: usize,
    pub first_date: Option<String>,
    pub last_date: Option<String>,
    /// SHA-256 of the ledger as it is: what a later check can start from.
    pub digest: Option<Digest>,
}

/// The digest that stands for a text in a ledger: SHA-256 of its words (runs of letters and digits) in lower case, one
/// space after each, so that spacing, case and punctuation make no difference.
pub fn digest_of_text(text: &str) -> Digest {
    let mut words = String::with_capacity(text.len());
    for word in text.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty()) {
        words.extend(word.chars().flat_map(char::to_lowercase));
        words.push(' ');
    }
    sha256(words.as_bytes())
}

/// Reads a ledger and proves it sound: dates in order, references, the chain; and, with `since`, that it begins with the
/// bytes of that digest.
pub fn check(path: &Path, since: Option<Digest>) -> Result<Summary, Error> {
    let ledger = Ledger::read(path)?;
    let bytes = read_bytes(path)?;
    if let Some(since) = since {
        let mut chain = Chain::default();
        let mut begins = chain.digest() == since;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            chain.pass(line);
            begins |= chain.digest() == since;
        }
        if !begins {
            return Err(Error::LedgerCut { path: path.to_path_buf(), since });
        }
    }
    Ok(ledger.summary)
}

/// Appends a request, chained to all before it; the ledger is checked first and made where there is none.
///
/// `today` is the date of a request that names none.
pub fn add(storage: &Storage, path: &Path, mut request: Request, today: &str) -> Result<Request, Error> {
    let bytes = match path.exists() {
        true => read_bytes(path)?,
        false => Vec::new(),
    };
    let ledger = Ledger::parse(path, &bytes)?;
    let line = ledger.summary.requests + 1;
    let wrong = |problem: String| Error::Ledger { path: path.to_path_buf(), line, problem };
    if request.date.is_empty() {
        request.date = today.to_string();
    }
    if let Some(domain) = &request.domain {
        let domain = plain_domain(domain).map_err(wrong)?;
        if is_public_suffix(&domain) {
            return Err(wrong(format!("everyone can register below `{domain}`: name the site itself")));
        }
    }
    let separator: &[u8] = if bytes.is_empty() || bytes.ends_with(b"\n") { b"" } else { b"\n" };
    let mut whole = [&bytes, separator].concat();
    request.previous = Some(sha256(&whole));
    let json = serde_json::to_string(&request).map_err(|error| wrong(error.to_string()))?;
    whole.extend_from_slice(json.as_bytes());
    whole.push(b'\n');
    // What is about to be written must pass the check that will read it.
    Ledger::parse(path, &whole)?;
    storage.replace(path, &whole)?;
    Ok(request)
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })
}

impl Ledger {
    pub fn read(path: &Path) -> Result<Ledger, Error> {
        Ledger::parse(path, &read_bytes(path)?)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Ledger, Error> {
        let mut ledger = Ledger::default();
        let mut chain = Chain::default();
        let mut latest = String::new();
        for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let wrong =
                |problem: String| Error::Ledger { path: path.to_path_buf(), line: index + 1, problem };
            let text = std::str::from_utf8(line).map_err(|_| wrong("not UTF-8".to_string()))?;
            if !text.trim().is_empty() {
                let request: Request =
                    serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
                chain.check(request.previous).map_err(wrong)?;
                check_request(&request, &latest).map_err(wrong)?;
                latest.clone_from(&request.date);
                ledger.add(request).map_err(wrong)?;
            }
            chain.pass(line);
        }
        ledger.summary.digest = Some(sha256(bytes));
        Ok(ledger)
    }

    fn add(&mut self, request: Request) -> Result<(), String> {
        let summary = &mut self.summary;
        summary.requests += 1;
        summary.chained += usize::from(request.previous.is_some());
        summary.first_date.get_or_insert_with(|| request.date.clone());
        summary.last_date = Some(request.date.clone());
        // The first request counts: that is the day from which the text was not to be used.
        match (request.domain, request.url, request.id, request.text_digest) {
            (Some(domain), None, None, None) => {
                self.domains.entry(plain_domain(&domain)?).or_insert(request.date);
            }
            (None, Some(url), None, None) if host_of(&url).is_some() => {
                self.addresses.entry(comparable(&url)).or_insert(request.date);
            }
            (None, Some(url), None, None) => {
                return Err(format!("`url`: expected an address, found {url:?}"));
            }
            (None, None, Some(id), None) if !id.is_empty() => {
                self.ids.entry(id).or_insert(request.date);
            }
            (None, None, None, Some(digest)) => {
                self.texts.entry(digest).or_insert(request.date);
            }
            _ => return Err("expected one of `domain`, `url`, `id` and `text_digest`".to_string()),
        }
        Ok(())
    }

    /// The date of the request that names the document.
    pub fn names(&self, document: &Document) -> Option<&str> {
        if let Some(date) = self.ids.get(&document.id) {
            return Some(date);
        }
        if !self.texts.is_empty()
            && let Some(date) = self.texts.get(&digest_of_text(&document.text))
        {
            return Some(date);
        }
        if self.addresses.is_empty() && self.domains.is_empty() {
            return None;
        }
        let url = document.url.as_deref()?;
        if let Some(date) = self.addresses.get(&comparable(url)) {
            return Some(date);
        }
        let host = host_of(url)?;
        domain_and_parents(&host).find_map(|domain| self.domains.get(domain)).map(String::as_str)
    }
}

/// The digest of all lines so far, and whether the chain has begun.
#[derive(Default)]
struct Chain {
    hasher: Sha256,
    has_begun: bool,
}

impl Chain {
    fn digest(&self) -> Digest {
        Digest(self.hasher.clone().finalize().into())
    }

    fn check(&mut self, previous: Option<Digest>) -> Result<(), String> {
        match previous {
            None if self.has_begun => {
                Err("`previous` is missing, and lines before have it: this line was not \
                appended by `eulalia opt-out add`"
                    .to_string())
            }
            Some(previous) if previous != self.digest() => {
                Err("`previous` is not the digest of the lines before: \
                one of them was changed, removed or inserted"
                    .to_string())
            }
            previous => {
                self.has_begun |= previous.is_some();
                Ok(())
            }
        }
    }

    fn pass(&mut self, line: &[u8]) {
        self.hasher.update(line);
    }
}

fn check_request(request: &Request, latest: &str) -> Result<(), String> {
    if !is_date(&request.date) {
        return Err(format!("`date`: expected YYYY-MM-DD, found {:?}", request.date));
    }
    if request.date.as_str() < latest {
        return Err(format!(
            "dated {} after a request of {latest}: the ledger is only ever appended to",
            request.date
        ));
    }
    if request.reference.trim().is_empty() {
        return Err("`reference` is empty: where is the request filed?".to_string());
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ledger: &str) -> Result<Ledger, Error> {
        Ledger::parse(Path::new("ledger"), ledger.as_bytes())
    }

    fn page(url: &str) -> Document {
        Document {
            url: Some(url.into()), ..Document::new("x-1", "Ένα κείμενο, δύο λέξεις.")
        }
    }

    #[test]
    fn requests_name_sites_pages_ids_and_texts() {
        let digest = digest_of_text("ένα κείμενο δύο λέξεις");
        let ledger = read(
            "{\"date\":\"2026-01-31\",\"domain\":\"b.example\",\"reference\":\"1\",\"reason\":\"asked\"}\n\n\
             {\"date\":\"2026-02-01\",\"url\":\"https://www.c.example/page/\",\"reference\":\"2\"}\n\
             {\"date\":\"2026-02-02\",\"id\":\"d-7\",\"reference\":\"3\"}\n\
             {\"date\":\"2026-02-03\",\"domain\":\"Bücher.example\",\"reference\":\"4\"}\n",
        )
        .unwrap();
        let check = |document: Document, expected: Option<&str>| {
            assert_eq!(ledger.names(&document), expected, "{document:?}");
        };
        check(page("https://b.example/x"), Some("2026-01-31"));
        check(page("https://user@A.B.example:8080?q"), Some("2026-01-31"));
        check(page("https://ab.example/x"), None);
        check(page("http://c.example/page#part"), Some("2026-02-01"));
        check(page("http://c.example/page/other"), None);
        check(page("http://www.xn--bcher-kva.example/"), Some("2026-02-03"));
        check(Document { id: "d-7".into(), ..page("https://e.example") }, Some("2026-02-02"));
        let line = format!("{{\"date\":\"2026-02-01\",\"text_digest\":\"{digest}\",\"reference\":\"5\"}}");
        assert_eq!(read(&line).unwrap().names(&page("https://e.example")), Some("2026-02-01"));
    }

    #[test]
    fn a_ledger_that_was_tampered_with_is_an_error() {
        let check = |ledger: &str, expected: &str| {
            let message = read(ledger).expect_err(ledger).to_string();
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
    fn added_lines_are_chained_and_any_change_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("opt-outs.jsonl");
        let storage = Storage::disk();
        // A ledger that was begun by hand, without a line end.
        fs::write(&path, "{\"date\":\"2026-01-01\",\"id\":\"0\",\"reference\":\"0\"}").unwrap();
        let request = |domain: &str| Request {
            domain: Some(domain.to_string()),
            reference: "request".to_string(),
            ..Request::default()
        };
        add(&storage, &path, request("a.example"), "2026-02-01").unwrap();
        let middle = check(&path, None).unwrap();
        add(&storage, &path, request("b.example"), "2026-02-02").unwrap();
        let summary = check(&path, middle.digest).unwrap();
        assert_eq!((summary.requests, summary.chained), (3, 2));
        assert_eq!(summary.last_date.as_deref(), Some("2026-02-02"));

        let early = add(&storage, &path, request("c.example"), "2026-01-15").unwrap_err().to_string();
        assert!(early.contains("line 4: dated 2026-01-15 after"), "{early}");
        assert!(
            add(&storage, &path, request("co.uk"), "2026-03-01").unwrap_err().to_string().contains("co.uk")
        );
        assert_eq!(check(&path, None).unwrap(), summary, "what is refused changes nothing");

        let whole = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.split_inclusive('\n').collect();
        let broken = [
            (whole.replacen("\"0\"", "\"9\"", 1), "changed, removed or inserted"),
            (whole.replace("a.example", "d.example"), "changed, removed or inserted"),
            ([lines[0], lines[2]].concat(), "changed, removed or inserted"),
            (format!("{whole}{}", lines[0].replace("01-01", "03-01")), "`previous` is missing"),
        ];
        for (bytes, expected) in broken {
            fs::write(&path, &bytes).unwrap();
            let message = check(&path, None).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}\n{bytes}");
        }
        // Lines cut off at the end show against the older digest alone.
        fs::write(&path, lines[..2].concat()).unwrap();
        assert!(check(&path, None).is_ok());
        let message = check(&path, summary.digest).unwrap_err().to_string();
        assert!(message.contains("does not begin with"), "{message}");
    }
}
