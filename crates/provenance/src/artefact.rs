//! An artefact: the folder that a stage wrote, with its manifest, its record and the digests of all its files.
//!
//! `manifest.json` says in `content` what the artefact is (inputs by digest, resolved settings, versions, counts: the
//! same for everyone who makes it) and in `circumstances` how this copy came to be (time, machine, threads, energy).
//! The artefact's digest covers its deterministic files; `SHA256SUMS` covers every file but the signature, which comes later.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::digest::{self, Digest, sha256, sha256_of_set};
use crate::record::RECORD_FILE;
use crate::signature::SIGNATURE_FILE;

/// The format of manifest and folder that this program writes.
pub const FORMAT: u32 = 1;
pub const MANIFEST_FILE: &str = "manifest.json";
pub const SUMS_FILE: &str = "SHA256SUMS";
/// Files below this folder tell of one run (timings, meters) and do not count for the artefact's digest.
pub const CIRCUMSTANCES_FOLDER: &str = "circumstances/";

/// What `manifest.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    /// SHA-256 over the sorted (path, SHA-256) of the deterministic files.
    pub digest: Digest,
    pub content: Content,
    pub record: RecordHead,
    pub circumstances: Value,
}

/// What the artefact is: the same for everyone who makes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// The name of the stage instance in the recipe.
    pub name: String,
    /// The kind of stage: `corpus`, `tokenizer`, …
    pub stage: String,
    pub stage_version: u32,
    pub key: Digest,
    /// Inputs by role, each with its digest.
    pub inputs: BTreeMap<String, Digest>,
    /// Every setting, defaults included.
    pub settings: Value,
    /// What the stage reports: counts, losses, measures.
    pub counts: Value,
    /// Files (beside those in `circumstances/`) that do not count for the digest: texts rendered from the record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside_digest: Vec<String>,
}

/// How long the record is and where it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordHead {
    pub lines: usize,
    pub last: Digest,
}

/// The key of an artefact: the hash of stage, version, inputs and settings, and of nothing else.
pub fn key(stage: &str, stage_version: u32, inputs: &BTreeMap<String, Digest>, settings: &Value) -> Digest {
    let content = serde_json::json!({
        "stage": stage, "stage_version": stage_version, "inputs": inputs, "settings": sorted(settings),
    });
    sha256(content.to_string().as_bytes())
}

/// The same value with the keys of every object in alphabetical order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let ordered: BTreeMap<&String, Value> =
                fields.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// Whether a file counts for the artefact's digest.
pub fn is_deterministic(path: &str, outside_digest: &[String]) -> bool {
    !(path == MANIFEST_FILE
        || path == SUMS_FILE
        || path == RECORD_FILE
        || path == SIGNATURE_FILE
        || path.starts_with(CIRCUMSTANCES_FOLDER)
        || outside_digest.iter().any(|outside| outside == path))
}

/// The digest of an artefact from the digests of its files.
pub fn digest_of(files: &BTreeMap<String, Digest>, outside_digest: &[String]) -> Digest {
    sha256_of_set(
        files
            .iter()
            .filter(|(path, _)| is_deterministic(path, outside_digest))
            .map(|(path, digest)| (path.as_str(), *digest)),
    )
}

/// A finished artefact on disk.
#[derive(Clone, Debug)]
pub struct Artefact {
    pub folder: PathBuf,
    pub manifest: Manifest,
}

impl Artefact {
    /// Opens an artefact by its manifest, without looking at its other files.
    pub fn open(folder: &Path) -> Result<Artefact, Error> {
        let path = folder.join(MANIFEST_FILE);
        let text = std::fs::read(&path).map_err(Error::read(&path))?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|error| Error::malformed(&path, format!("not a manifest of this program: {error}")))?;
        if manifest.format != FORMAT {
            return Err(Error::malformed(
                &path,
                format!(
                    "format {} was written by another version; this one reads format {FORMAT}",
                    manifest.format
                ),
            ));
        }
        Ok(Artefact { folder: folder.to_path_buf(), manifest })
    }

    pub fn digest(&self) -> Digest {
        self.manifest.digest
    }

    pub fn name(&self) -> &str {
        &self.manifest.content.name
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        digest::join(&self.folder, relative)
    }

    /// What `SHA256SUMS` says of every file.
    pub fn sums(&self) -> Result<BTreeMap<String, Digest>, Error> {
        read_sums(&self.folder.join(SUMS_FILE))
    }
}

/// `SHA256SUMS` as `sha256sum -c` reads it: digest, two spaces, path; sorted by path.
pub fn render_sums(files: &BTreeMap<String, Digest>) -> String {
    files.iter().map(|(path, digest)| format!("{digest}  {path}\n")).collect()
}

/// Reads `SHA256SUMS` strictly: sorted, no path twice, none that leads out of the folder.
pub fn read_sums(path: &Path) -> Result<BTreeMap<String, Digest>, Error> {
    let bytes = std::fs::read(path).map_err(Error::read(path))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::malformed(path, "not UTF-8"))?;
    let mut files = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let at = |problem: &str| Error::malformed(path, format!("line {}: {problem}", number + 1));
        let (digest, name) =
            line.split_once("  ").ok_or_else(|| at("expected a digest, two spaces and a path"))?;
        let digest: Digest = digest.parse().map_err(|problem: String| at(&problem))?;
        let leads_out = name.starts_with('/')
            || name.contains('\\')
            || name.split('/').any(|part| part.is_empty() || part == "." || part == "..");
        if leads_out {
            return Err(at(&format!("{name:?} is not a path inside this folder")));
        }
        if files.insert(name.to_string(), digest).is_some() {
            return Err(at(&format!("{name} stands twice")));
        }
    }
    if render_sums(&files) != text {
        return Err(Error::malformed(
            path,
            "not in the form that this program writes (sorted, one line a file)",
        ));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_depends_on_content_and_not_on_the_order_of_settings() {
        let inputs = BTreeMap::from([("documents".to_string(), sha256(b"a"))]);
        let one = key("corpus", 1, &inputs, &json!({"a": 1, "b": {"c": 2, "d": 3}}));
        let same = key("corpus", 1, &inputs, &json!({"b": {"d": 3, "c": 2}, "a": 1}));
        assert_eq!(one, same);
        assert_ne!(one, key("corpus", 2, &inputs, &json!({"a": 1, "b": {"c": 2, "d": 3}})));
        assert_ne!(one, key("corpus", 1, &inputs, &json!({"a": 1, "b": {"c": 2, "d": 4}})));
        assert_ne!(one, key("corpus", 1, &BTreeMap::new(), &json!({"a": 1, "b": {"c": 2, "d": 3}})));
    }

    #[test]
    fn sums_are_read_strictly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SUMS_FILE);
        let digest = sha256(b"");
        let check = |text: String| {
            std::fs::write(&path, text).unwrap();
            read_sums(&path).map_err(|error| error.to_string())
        };
        assert_eq!(check(format!("{digest}  a\n{digest}  b/c\n")).unwrap().len(), 2);
        for bad in [
            format!("{digest}  ../a\n"),
            format!("{digest}  /a\n"),
            format!("{digest}  a\n{digest}  a\n"),
            format!("{digest}  b\n{digest}  a\n"),
            format!("{digest} a\n"),
            format!("{digest}  a"),
            format!("{}  a\n", digest.to_string().to_uppercase()),
        ] {
            assert!(check(bad.clone()).is_err(), "accepted {bad:?}");
        }
    }
}
