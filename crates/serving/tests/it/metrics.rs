//! What a monitoring system reads, held to the text format by a parser that forgives nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use serving::{KeyStore, Role};

use crate::client::{Options, TestServer};

/// A sample's family, its own name, and its labels.
type Series = (String, Labels);
type Labels = Vec<(String, String)>;

#[derive(Default, Debug)]
struct Families {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<Series, f64>,
}

/// Reads the text format 0.0.4: `# HELP`, `# TYPE`, then all samples of the family, no series twice.
fn parse(text: &str) -> Families {
    let mut families = Families::default();
    let (mut current, mut helped) = (String::new(), BTreeSet::new());
    assert!(text.ends_with('\n'), "the last line has no end");
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect(line);
            assert!(is_name(name) && !words.is_empty(), "{line}");
            assert!(helped.insert(name.to_string()), "family twice: {line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect(line);
            assert!(helped.contains(name), "no help before {line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kind != "counter" || name.ends_with("_total"), "{line}");
            assert!(families.kinds.insert(name.into(), kind.into()).is_none(), "type twice: {line}");
            current = name.to_string();
        } else {
            let (name, labels, value) = sample(line);
            let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} stands in {current}"));
            let known: &[&str] =
                if families.kinds[&current] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(known.contains(&suffix), "{line}");
            assert!(families.samples.insert((name, labels), value).is_none(), "series twice: {line}");
        }
    }
    families
}

fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (head, value) = line.rsplit_once(' ').expect(line);
    let (name, labels) = match head.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
        None => (head, ""),
    };
    assert!(is_name(name), "{line}");
    let (mut pairs, mut rest) = (Vec::new(), labels);
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").expect(line);
        assert!(is_name(label), "{line}");
        let (mut value, mut characters) = (String::new(), after.char_indices());
        let end = loop {
            match characters.next().expect(line) {
                (at, '"') => break at + 1,
                (_, '\\') => match characters.next().expect(line).1 {
                    'n' => value.push('\n'),
                    c @ ('\\' | '"') => value.push(c),
                    other => panic!("escaped {other}: {line}"),
                },
                (_, c) => value.push(c),
            }
        };
        pairs.push((label.to_string(), value));
        rest = after[end..].strip_prefix(',').unwrap_or(&after[end..]);
        assert!(after[end..].is_empty() || after[end..].starts_with(','), "{line}");
    }
    let value = match value {
        "+Inf" => f64::INFINITY,
        number => number.parse().expect(line),
    };
    (name.to_string(), pairs, value)
}

impl Families {
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let series = (name.to_string(), labels);
        *self.samples.get(&series).unwrap_or_else(|| panic!("no {series:?} in {:#?}", self.samples.keys()))
    }

    /// Buckets grow, and the last of them counts everything.
    fn check_histograms(&self) {
        let mut last: BTreeMap<Series, (f64, f64)> = BTreeMap::new();
        for name in self.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for ((sample, labels), count) in &self.samples {
                if *sample == format!("{name}_bucket") {
                    let (bound, others): (Vec<_>, Vec<_>) =
                        labels.iter().cloned().partition(|(label, _)| label == "le");
                    let bound =
                        if bound[0].1 == "+Inf" { f64::INFINITY } else { bound[0].1.parse().unwrap() };
                    buckets.entry(others).or_default().push((bound, *count));
                }
            }
            for (labels, mut of_labels) in buckets {
                of_labels.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(of_labels.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name} {of_labels:?}");
                let end = *of_labels.last().unwrap();
                let count = self.samples[&(format!("{name}_count"), labels.clone())];
                assert!(end.0.is_infinite() && (end.1 - count).abs() < 0.5, "{name}");
                assert!(self.samples.contains_key(&(format!("{name}_sum"), labels.clone())));
                last.insert((name.clone(), labels), end);
            }
        }
        assert!(!last.is_empty());
    }
}

#[test]
fn metrics_hold_to_the_format_and_count_what_happened() {
    let server = TestServer::start(Options::default());
    let body = json!({"model": "toy", "prompt": "uv", "temperature": 0, "max_tokens": 20});
    server.post("/v1/completions", body.clone()).json();
    let mut streamed = body;
    streamed["stream"] = json!(true);
    server.post("/v1/completions", streamed);
    for made_up in ["a\"b\\c\nd", "../../etc/passwd", "{}"] {
        server.post("/v1/completions", json!({"model": made_up, "prompt": "a"})).check(404, Some("model"));
        server.ask("GET", &format!("/{}", "x".repeat(made_up.len())), "").check(404, None);
    }
    server.ask_with("GET", "/v1/models", "", "").check(401, None);

    let answer = server.ask("GET", "/metrics", "");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let metrics = parse(&answer.body);
    metrics.check_histograms();
    let route = ("route", "POST /v1/completions");
    let value = |name: &str, labels: &[(&str, &str)]| metrics.value(name, labels);
    assert_eq!(value("eulalia_requests_total", &[route, ("status", "200"), ("model", "toy")]), 2.0);
    assert_eq!(value("eulalia_requests_total", &[route, ("status", "404"), ("model", "none")]), 3.0);
    assert_eq!(value("eulalia_refusals_total", &[("reason", "model_not_found")]), 3.0);
    assert_eq!(value("eulalia_refusals_total", &[("reason", "unknown_route")]), 3.0);
    assert_eq!(value("eulalia_refusals_total", &[("reason", "missing_api_key")]), 1.0);
    assert_eq!(value("eulalia_strangers_total", &[]), 1.0);
    assert_eq!(value("eulalia_prompt_tokens_total", &[("model", "toy")]), 4.0);
    assert_eq!(value("eulalia_completion_tokens_total", &[("model", "toy")]), 10.0);
    assert_eq!(value("eulalia_time_to_first_token_seconds_count", &[("model", "toy")]), 2.0);
    assert!(value("eulalia_inter_token_seconds_count", &[("model", "toy")]) >= 2.0);
    assert_eq!(value("eulalia_running_requests", &[("model", "toy")]), 0.0);
    assert_eq!(value("eulalia_engine_up", &[("model", "toy")]), 1.0);
    assert!(value("eulalia_cache_blocks", &[("model", "toy")]) >= 1.0);
    assert_eq!(value("eulalia_cache_blocks_used", &[("model", "toy")]), 0.0);
    assert_eq!(value("eulalia_draining", &[]), 0.0);
    if cfg!(target_os = "linux") {
        assert!(value("process_resident_memory_bytes", &[]) > 1e6);
        assert!(value("process_open_fds", &[]) > 3.0);
    }
    assert!(metrics.samples.len() < 400, "{} series", metrics.samples.len());
}

#[test]
fn metrics_are_for_those_who_may_see_them() {
    let server = TestServer::start(Options::default());
    let keys = KeyStore::open(&server.state).unwrap();
    for (role, status) in [(Role::User, 403), (Role::Metrics, 200), (Role::Auditor, 403)] {
        let key = keys.new_key("Test", "other", role, None, 0).unwrap().key;
        let answer = server.ask_with("GET", "/metrics", &format!("Authorization: Bearer {key}\r\n"), "");
        assert_eq!(answer.status, status, "{role:?}");
    }
    let key = keys.new_key("Test", "other", Role::Metrics, None, 0).unwrap().key;
    server.ask_with("GET", "/v1/models", &format!("Authorization: Bearer {key}\r\n"), "").check(403, None);
}
