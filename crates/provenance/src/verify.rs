//! Checking that a folder is what its manifest, sums and record say: `eulalia verify`.
//!
//! Every problem is named; nothing is repaired. The checks lean on each other: `SHA256SUMS` covers every file, the
//! manifest names the digest of the payload and the record's last line, the record repeats the payload's digest, and a
//! release's own segment lists the segments of its ancestors. Whoever rewrites one must rewrite all, and then the
//! artefact's digest is another: compare it with the one that was published (`--expect`), or ask for a signature
//! ([`crate::signature`]), which lies in the folder as the one file that the sums do not know.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::Error;
use crate::artefact::{Artefact, MANIFEST_FILE, SUMS_FILE, digest_of, read_sums};
use crate::context::{Progress, Silent};
use crate::digest::Digest;
use crate::record::{self, RECORD_FILE, Segment};
use crate::signature::{SIGNATURE_FILE, Signature};
use crate::tree::{Seal, digest_tree};

/// What a verification found.
#[derive(Debug, Serialize)]
pub struct Verification {
    /// The digest computed from the files, where the manifest could be read.
    pub digest: Option<Digest>,
    pub files: usize,
    pub bytes: u64,
    pub record_lines: usize,
    /// The names of the artefacts whose record is included, in order.
    pub segments: Vec<String>,
    /// What does not fit; empty if all is well.
    pub problems: Vec<String>,
    /// Digests of all files.
    #[serde(skip)]
    pub present: BTreeMap<String, Digest>,
    /// How the files stood before they were read.
    #[serde(skip)]
    pub seal: Seal,
}

/// Checks the artefact in `folder` (a link to the folder itself is followed, links inside are refused).
///
/// # Errors
/// Only when the folder cannot be looked at; what does not fit is in [`Verification::problems`].
pub fn verify(folder: &Path) -> Result<Verification, Error> {
    verify_watched(folder, 1, &Silent)
}

/// The same on several threads, with progress for a person: a large release takes a while to read.
pub fn verify_watched(folder: &Path, threads: usize, progress: &dyn Progress) -> Result<Verification, Error> {
    if !folder.is_dir() {
        let problem = if folder.exists() { "is not a folder" } else { "does not exist" };
        return Err(Error::malformed(
            folder,
            format!("{problem}; expected the folder of an artefact or a release"),
        ));
    }
    if folder.join(".artefacts").is_dir() {
        let release = folder.join("release");
        return Err(Error::malformed(
            folder,
            format!("is the folder of a run; verify one of its artefacts, such as {}", release.display()),
        ));
    }
    let tree = digest_tree(folder, threads, progress)?;
    let present = tree.files;
    let mut result = Verification {
        digest: None,
        files: present.len(),
        bytes: tree.bytes,
        record_lines: 0,
        segments: Vec::new(),
        problems: tree.problems,
        present: BTreeMap::new(),
        seal: tree.seal,
    };
    match read_sums(&folder.join(SUMS_FILE)) {
        Err(error) => result.problems.push(error.to_string()),
        Ok(sums) => {
            compare(&sums, &present, &mut result.problems);
            if !sums.contains_key(SIGNATURE_FILE) {
                check_signature(folder, &present, &mut result.problems);
            }
        }
    }
    check_manifest(folder, &present, &mut result);
    result.present = present;
    Ok(result)
}

/// A signature that lies in the folder must list these files; whose it is, is asked elsewhere.
fn check_signature(folder: &Path, present: &BTreeMap<String, Digest>, problems: &mut Vec<String>) {
    if !present.contains_key(SIGNATURE_FILE) {
        return;
    }
    let place = folder.join(SIGNATURE_FILE);
    match Signature::read(&place) {
        Err(error) => problems.push(error.to_string()),
        Ok(signature) => {
            let differences = signature.differences(folder, &place, present);
            problems
                .extend(differences.into_iter().map(|difference| format!("{SIGNATURE_FILE}: {difference}")));
        }
    }
}

/// The digest that the manifest names, and the record.
fn check_manifest(folder: &Path, present: &BTreeMap<String, Digest>, result: &mut Verification) {
    let manifest = match Artefact::open(folder) {
        Err(error) => {
            result.problems.push(error.to_string());
            return;
        }
        Ok(artefact) => artefact.manifest,
    };
    let digest = digest_of(present, &manifest.content.outside_digest);
    result.digest = Some(digest);
    if digest != manifest.digest {
        result
            .problems
            .push(format!("{MANIFEST_FILE}: names the digest {}, the files have {digest}", manifest.digest));
    }
    let record_path = folder.join(RECORD_FILE);
    match record::read(&record_path) {
        Err(error) => result.problems.push(error.to_string()),
        Ok(segments) => {
            result.record_lines = segments.iter().map(|segment| segment.lines().len()).sum();
            result.segments = segments.iter().map(|segment| segment.name().to_string()).collect();
            if result.record_lines != manifest.record.lines {
                result.problems.push(format!(
                    "{RECORD_FILE}: the manifest counts {} lines, here are {}",
                    manifest.record.lines, result.record_lines
                ));
            }
            check_record(&segments, &manifest.record.last, &manifest.digest, &mut result.problems);
        }
    }
}

/// The record's end, its claim about the payload, and the list of ancestors in a release's own segment.
fn check_record(segments: &[Segment], last: &Digest, digest: &Digest, problems: &mut Vec<String>) {
    let Some((own, ancestors)) = segments.split_last() else {
        problems.push(format!("{RECORD_FILE}: is empty"));
        return;
    };
    if own.last() != *last {
        problems.push(format!(
            "{RECORD_FILE}: the last line has the digest {}, the manifest names {last}; a line was dropped, added or \
             altered at the end",
            own.last()
        ));
    }
    let claimed = own.event("finished").and_then(|line| line.fields.get("artefact")).and_then(Value::as_str);
    if claimed != Some(digest.to_string().as_str()) {
        problems.push(format!("{RECORD_FILE}: its closing line does not name the digest {digest}"));
    }
    let listed: Vec<(String, u64, String)> = own
        .lines()
        .first()
        .and_then(|line| line.fields.get("segments"))
        .and_then(Value::as_array)
        .map(|segments| segments.iter().map(listed_segment).collect())
        .unwrap_or_default();
    let found: Vec<(String, u64, String)> = ancestors
        .iter()
        .map(|segment| (segment.name().to_string(), segment.lines().len() as u64, segment.last().to_string()))
        .collect();
    if listed != found {
        problems.push(format!(
            "{RECORD_FILE}: the release was made from {} segments, these {} do not match them",
            listed.len(),
            found.len()
        ));
    }
}

fn listed_segment(value: &Value) -> (String, u64, String) {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("").to_string();
    (text("name"), value.get("lines").and_then(Value::as_u64).unwrap_or(0), text("last"))
}

fn compare(sums: &BTreeMap<String, Digest>, present: &BTreeMap<String, Digest>, problems: &mut Vec<String>) {
    for (path, expected) in sums {
        match present.get(path) {
            None => problems.push(format!("{path}: is missing")),
            Some(found) if found != expected => {
                problems.push(format!("{path}: was changed (expected {expected}, found {found})"));
            }
            Some(_) => {}
        }
    }
    for path in present.keys() {
        if path != SUMS_FILE && path != SIGNATURE_FILE && !sums.contains_key(path) {
            problems.push(format!("{path}: was added; {SUMS_FILE} does not know it"));
        }
    }
}
