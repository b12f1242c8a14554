//! Where is this document? Every shard is read, kept and dropped alike, and each match says what became of it.

use std::path::Path;

use provenance::Context;
use serde::Serialize;
use serde_json::Value;

use crate::places::site;
use crate::{Error, read_all};

/// What to look for; all that is given has to hold.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// The whole id.
    pub id: Option<String>,
    /// The beginning of an address, or a site: `example.org` finds it and everything below it.
    pub url: Option<String>,
    /// Why it was dropped, as `statistics.json` names it.
    pub reason: Option<String>,
    /// ISO 639-1.
    pub language: Option<String>,
}

/// A document, or what is left of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    /// File within the corpus, and line from 1.
    pub file: String,
    pub line: u64,
    pub record: Value,
}

/// The first `limit` matches in the order of files and lines, and how many there are in all.
pub fn search(
    folder: &Path,
    query: &Query,
    limit: usize,
    context: &Context,
) -> Result<(Vec<Found>, usize), Error> {
    let begin = || (Vec::new(), 0);
    let parts = read_all(folder, context, "search", begin, |(found, all), shard, placed| {
        if query.fits(&placed.value) {
            *all += 1;
            if found.len() < limit {
                found.push(Found { file: shard.name.clone(), line: placed.line, record: placed.value });
            }
        }
    })?;
    let all = parts.iter().map(|(_, all)| all).sum();
    Ok((parts.into_iter().flat_map(|(found, _)| found).take(limit).collect(), all))
}

impl Query {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.id.is_none() && self.url.is_none() && self.reason.is_none() && self.language.is_none()
    }

    fn fits(&self, record: &Value) -> bool {
        let field = |name: &str| record.get(name).and_then(Value::as_str);
        let same = |wanted: &Option<String>, name: &str| match wanted {
            Some(wanted) => field(name) == Some(wanted),
            None => true,
        };
        same(&self.id, "id")
            && same(&self.reason, "reason")
            && same(&self.language, "language")
            && self
                .url
                .as_ref()
                .is_none_or(|wanted| field("url").is_some_and(|url| stands_below(url, wanted)))
    }
}

fn stands_below(url: &str, wanted: &str) -> bool {
    if wanted.contains("://") {
        return url.starts_with(wanted);
    }
    let wanted = wanted.to_lowercase();
    let wanted = wanted.strip_prefix("www.").unwrap_or(&wanted);
    site(url).is_some_and(|site| {
        site.strip_suffix(wanted).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_found_with_what_is_below_it_and_nothing_else() {
        for (url, wanted, expected) in [
            ("https://example.org/a", "example.org", true),
            ("https://www.example.org/a", "Example.org", true),
            ("https://news.example.org/a", "example.org", true),
            ("https://badexample.org/a", "example.org", false),
            ("https://example.org.evil.example/a", "example.org", false),
            ("https://example.org/a/b", "https://example.org/a", true),
            ("https://example.org/b", "https://example.org/a", false),
        ] {
            assert_eq!(stands_below(url, wanted), expected, "{url} {wanted}");
        }
    }
}
