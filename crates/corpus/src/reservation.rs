//! Reservations from training, as pages and sites write them: TDMRep, robots directives, AI preferences, content signals.
//!
//! - TDMRep (W3C community report, 2024): `tdm-reservation: 1` in a header or meta tag, rules in `/.well-known/tdmrep.json`;
//! - `noai`, `notrain`, `noml` in robots meta tags and `X-Robots-Tag` (`noimageai` is about pictures and reserves no text);
//! - `Content-Usage: train-ai=n` (IETF, AI preferences), `Content-Signal: ai-train=no`.

use documents::Document;
use serde_json::Value;

use crate::reason::Reason;
use crate::robots::matches;

/// Whether the document's own metadata reserve it from training, and how.
pub fn of_document(document: &Document) -> Option<Reason> {
    document.metadata.iter().find_map(|(key, value)| {
        let key = key.to_lowercase().replace('_', "-");
        match key.as_str() {
            "tdm-reservation" => is_true(value).then_some(Reason::TdmReserved),
            "noai" | "no-ai" | "notrain" => is_true(value).then_some(Reason::TrainingReserved),
            "robots" | "meta-robots" | "x-robots-tag" => {
                any_text(value, &has_directive).then_some(Reason::TrainingReserved)
            }
            "content-usage" | "content-signal" => any_text(value, &|text| of_preferences(text) == Some(true))
                .then_some(Reason::TrainingReserved),
            _ => None,
        }
    })
}

/// What a list of preferences (`train-ai=n, search=y`; `ai-train=no`) says of training: reserved, free, or nothing.
///
/// The more exact category counts: `train-ai` before `ai`, `bots` and `tdm`, which it is a part of.
pub fn of_preferences(preferences: &str) -> Option<bool> {
    const CATEGORIES: [&str; 6] = ["train-ai", "ai-train", "train-genai", "tdm", "ai", "bots"];
    let preferences = preferences.to_lowercase();
    let value_of = |category: &str| {
        let mut pairs = preferences.split([',', ';']).filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(key, _)| key.trim() == category)
            .map(|(_, value)| value.trim().trim_matches('"').to_string())
    };
    CATEGORIES.iter().find_map(|category| match value_of(category)?.as_str() {
        "n" | "no" | "?0" | "0" | "disallow" => Some(true),
        "y" | "yes" | "?1" | "1" | "allow" => Some(false),
        _ => None,
    })
}

fn has_directive(text: &str) -> bool {
    let text = text.to_lowercase();
    text.split([',', ';', ' ', ':']).any(|part| matches!(part.trim(), "noai" | "notrain" | "noml"))
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(text.trim().to_lowercase().as_str(), "" | "0" | "false" | "no"),
        Value::Array(values) => values.iter().any(is_true),
        _ => false,
    }
}

fn any_text(value: &Value, holds: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => holds(text),
        Value::Array(values) => values.iter().any(|value| any_text(value, holds)),
        _ => false,
    }
}

/// The rules of a site's `/.well-known/tdmrep.json`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TdmRules {
    /// Path patterns and whether they reserve, in the order of the file.
    rules: Vec<(String, bool)>,
}

impl TdmRules {
    /// Reads the file; what is no rule in it is passed over. The error says why it is no such file at all.
    pub fn parse(text: &str) -> Result<TdmRules, String> {
        let value: Value =
            serde_json::from_str(text.trim_start_matches('\u{FEFF}')).map_err(|error| error.to_string())?;
        let entries = match value {
            Value::Array(entries) => entries,
            Value::Object(_) => vec![value],
            _ => return Err("expected a list of rules".to_string()),
        };
        let rules = entries.iter().filter_map(|entry| {
            let location = entry.get("location")?.as_str()?;
            Some((location.to_string(), is_true(entry.get("tdm-reservation")?)))
        });
        Ok(TdmRules { rules: rules.collect() })
    }

    /// Whether the page at this path is reserved. Rules are read in order; where the first that matches and the longest
    /// that matches say different things, the page is reserved: readers of the report differ here.
    pub fn reserves(&self, path: &str) -> bool {
        let path = if path.is_empty() { "/" } else { path };
        let mut matching = self.rules.iter().filter(|(pattern, _)| matches(pattern, path));
        let first = matching.next();
        let longest = matching.fold(first, |longest, rule| match longest {
            Some(longest) if longest.0.len() >= rule.0.len() => Some(longest),
            _ => Some(rule),
        });
        [first, longest].into_iter().flatten().any(|(_, reserves)| *reserves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_can_reserve_themselves() {
        let check = |key: &str, value: Value, expected: Option<Reason>| {
            let mut document = Document::new("1", "");
            document.metadata.insert(key.into(), value.clone());
            assert_eq!(of_document(&document), expected, "{key} {value}");
        };
        check("robots", "index, noai".into(), Some(Reason::TrainingReserved));
        check("robots", "noindex, noimageai".into(), None);
        check("X-Robots-Tag", serde_json::json!(["nosnippet", "noai"]), Some(Reason::TrainingReserved));
        check("X-Robots-Tag", "gptbot:noai".into(), Some(Reason::TrainingReserved));
        check("tdm_reservation", 1.into(), Some(Reason::TdmReserved));
        check("tdm-reservation", "1".into(), Some(Reason::TdmReserved));
        check("tdm-reservation", "0".into(), None);
        check("Content-Usage", "search=y, train-ai = n".into(), Some(Reason::TrainingReserved));
        check("Content-Usage", "bots=n, train-ai=y".into(), None);
        check("Content-Usage", "bots=n".into(), Some(Reason::TrainingReserved));
        check("content-signal", "search=yes, ai-train=no".into(), Some(Reason::TrainingReserved));
        check("content-signal", "search=yes".into(), None);
        check("noai", true.into(), Some(Reason::TrainingReserved));
        check("topic", "noai".into(), None);
    }

    #[test]
    fn tdmrep_files_reserve_paths() {
        let rules = TdmRules::parse(
            r#"[{"location": "/news/*.html", "tdm-reservation": 1, "tdm-policy": "https://a.example/p"},
                {"location": "/open/", "tdm-reservation": 0}, {"location": "/open/mine", "tdm-reservation": "1"}, 7]"#,
        )
        .unwrap();
        for (path, expected) in [
            ("/news/1.html", true),
            ("/news/", false),
            ("/open/1", false),
            ("/open/mine/1", true),
            ("", false),
        ] {
            assert_eq!(rules.reserves(path), expected, "{path}");
        }
        assert!(TdmRules::parse("<html>").is_err() && TdmRules::parse("7").is_err());
    }
}
