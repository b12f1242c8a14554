//! The documents say what the program does: every setting and every metric stands in the reference, and the files for
//! deployment are settings that hold.

use std::path::{Path, PathBuf};

use serving::ServeSettings;
use toml::{Table, Value};

use crate::client::{Options, TestServer};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn settings(text: &str) -> Result<ServeSettings, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings.toml");
    std::fs::write(&path, text).unwrap();
    let settings = ServeSettings::from_file(&path).map_err(|error| error.to_string())?;
    settings.check().map_err(|error| error.to_string())?;
    Ok(settings)
}

/// The keys that a table takes, as the error about one that it does not take lists them. None for a map, whose keys the
/// operator makes up.
fn keys_of(example: &Table, at: &[&str]) -> Vec<String> {
    let mut altered = example.clone();
    let mut place = &mut altered;
    for name in at {
        let value = place.get_mut(*name).unwrap();
        place = match value {
            Value::Array(tables) => tables[0].as_table_mut().unwrap(),
            other => other.as_table_mut().unwrap(),
        };
    }
    place.insert("zzz".to_string(), Value::Boolean(true));
    let error = settings(&toml::to_string(&altered).unwrap()).expect_err("an unknown key is refused");
    let known = error.split_once("unknown field `zzz`").map_or("", |(_, known)| known);
    known.split('`').skip(1).step_by(2).map(String::from).collect()
}

fn check_table<'a>(page: &str, example: &'a Table, table: &'a Table, at: &mut Vec<&'a str>) {
    let known = keys_of(example, at);
    assert!(!known.is_empty() || !at.is_empty(), "the settings take any key");
    for key in known {
        // Of two keys that exclude each other, one stands there as a comment.
        let shown = table.contains_key(&key) || page.contains(&format!("\n# {key} = "));
        assert!(shown, "docs/reference/serving.md: the example has no `{key}` in {at:?}");
    }
    // These have pages of their own.
    let elsewhere = ["filters", "upstreams"];
    for (name, value) in table.iter().filter(|(name, _)| !elsewhere.contains(&name.as_str())) {
        let inner = match value {
            Value::Table(inner) => inner,
            Value::Array(tables) if tables.first().is_some_and(Value::is_table) => {
                tables[0].as_table().unwrap()
            }
            _ => continue,
        };
        at.push(name);
        check_table(page, example, inner, at);
        at.pop();
    }
}

#[test]
fn the_documented_settings_hold_and_are_all_there_are() {
    let page = read("docs/reference/serving.md");
    let (_, rest) = page.split_once("```toml\n").expect("an example of the settings");
    let (example, _) = rest.split_once("```").unwrap();
    let parsed = settings(example).unwrap();
    let example: Table = example.parse().unwrap();
    check_table(&page, &example, &example, &mut Vec::new());
    // What it says of the defaults of the first part is true.
    let defaults = ServeSettings::default();
    assert_eq!(parsed.body_limit_bytes, defaults.body_limit_bytes);
    assert_eq!(parsed.header_limit_bytes, defaults.header_limit_bytes);
    assert_eq!(
        (parsed.header_seconds, parsed.body_seconds),
        (defaults.header_seconds, defaults.body_seconds)
    );
    assert_eq!(parsed.stalled_client_seconds, defaults.stalled_client_seconds);
    assert_eq!(
        (parsed.request_seconds, parsed.drain_seconds),
        (defaults.request_seconds, defaults.drain_seconds)
    );
    assert_eq!(parsed.maximum_connections, defaults.maximum_connections);
    assert_eq!(parsed.maximum_connections_per_address, defaults.maximum_connections_per_address);
    assert_eq!(
        (parsed.maximum_streams, parsed.maximum_choices),
        (defaults.maximum_streams, defaults.maximum_choices)
    );
    assert_eq!(
        (parsed.address, parsed.drain_grace_seconds),
        (defaults.address, defaults.drain_grace_seconds)
    );
}

#[test]
fn the_settings_of_the_deployment_files_hold() {
    settings(&read("deploy/eulalia.toml")).unwrap();
    let manifest = read("deploy/kubernetes/settings.yaml");
    let (_, block) = manifest.split_once("eulalia.toml: |\n").unwrap();
    let text: String =
        block.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    let settings = settings(&text).unwrap();
    assert!(settings.tls.is_some() && settings.operations_address.is_some());
    // The pod is given longer to end than the server may take.
    let deployment = read("deploy/kubernetes/deployment.yaml");
    let (_, rest) = deployment.split_once("terminationGracePeriodSeconds: ").unwrap();
    let grace: u64 = rest.lines().next().unwrap().parse().unwrap();
    assert!(grace > settings.drain_grace_seconds + settings.drain_seconds);
    for hardening in
        ["runAsNonRoot: true", "readOnlyRootFilesystem: true", "type: RuntimeDefault", "drop: [\"ALL\"]"]
    {
        assert!(deployment.contains(hardening), "{hardening}");
    }
}

#[test]
fn every_metric_is_documented() {
    let page = read("docs/reference/serving.md");
    let server = TestServer::start(Options::default());
    let metrics = server.ask("GET", "/metrics", "").body;
    for line in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(page.contains(&format!("`{name}`")), "docs/reference/serving.md says nothing of {name}");
    }
}

/// All Rust sources below a folder, as one text.
fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|end| end == "rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let page = read("SECURITY.md");
    let (_, table) = page.split_once("## Attacks").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let mut text = String::new();
    sources(&root().join("crates"), &mut text);
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 15);
    for row in rows {
        let tests = row.trim_end_matches([' ', '|']).rsplit_once('|').unwrap().1;
        for name in tests.split('`').skip(1).step_by(2).filter(|name| !name.contains(['/', ' '])) {
            assert!(text.contains(&format!("fn {name}(")), "SECURITY.md names {name}, which is not there");
        }
    }
}
