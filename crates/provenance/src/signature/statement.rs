//! What is signed: an in-toto statement (<https://github.com/in-toto/attestation/tree/main/spec/v1>) whose predicate
//! lists the files of a model.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::{NO_PART_OF_A_MODEL, SIGNATURE_FILE};
use crate::digest::{Digest, sha256};
use crate::tree::THE_FILE_ITSELF;

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";
const MOST_FILES: usize = 100_000;
const LONGEST_PATH: usize = 1024;

/// A list of files, each once, each inside the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    name: String,
    pub files: BTreeMap<String, Digest>,
}

// Fields that are not known are passed over, as the format asks of readers; a field that stands twice is an error.
#[derive(Deserialize)]
struct Written {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Deserialize)]
struct Subject {
    name: String,
    digest: SubjectDigest,
}

#[derive(Deserialize)]
struct SubjectDigest {
    sha256: Digest,
}

#[derive(Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: Digest,
}

impl Statement {
    /// Of these files, without the signature's own and those that are no part of a model.
    pub fn new(name: &str, files: &BTreeMap<String, Digest>) -> Result<Statement, String> {
        let of_model = |path: &str| {
            path != SIGNATURE_FILE && !NO_PART_OF_A_MODEL.contains(&path.split('/').next().unwrap_or(path))
        };
        let files: BTreeMap<String, Digest> = files
            .iter()
            .filter(|(path, _)| of_model(path))
            .map(|(path, digest)| (path.clone(), *digest))
            .collect();
        check(files.len(), files.keys().map(String::as_str))?;
        Ok(Statement { name: name.to_string(), files })
    }

    pub fn parse(payload: &[u8]) -> Result<Statement, String> {
        let written: Written = serde_json::from_slice(payload)
            .map_err(|error| format!("what it signs is no list of a model's files: {error}"))?;
        let expect = |what: &str, found: &str, expected: &str| {
            if found == expected {
                Ok(())
            } else {
                Err(format!("{what}: expected {expected}, found {found:.100}"))
            }
        };
        expect("_type", &written.kind, STATEMENT_TYPE)?;
        expect("predicateType", &written.predicate_type, PREDICATE_TYPE)?;
        let Predicate { serialization, resources } = written.predicate;
        // The other forms of the package: pieces of files, and other digests.
        expect("serialization.method", &serialization.method, "files")?;
        expect("serialization.hash_type", &serialization.hash_type, "sha256")?;
        let [subject] = written.subject.as_slice() else {
            return Err(format!("subject: expected one, found {}", written.subject.len()));
        };
        check(resources.len(), resources.iter().map(|resource| resource.name.as_str()))?;
        let mut files = BTreeMap::new();
        let mut digests = Vec::with_capacity(resources.len() * 32);
        for resource in resources {
            expect(&format!("algorithm of {:?}", resource.name), &resource.algorithm, "sha256")?;
            digests.extend_from_slice(&resource.digest.0);
            if files.contains_key(&resource.name) {
                return Err(format!("lists {:?} twice", resource.name));
            }
            files.insert(resource.name, resource.digest);
        }
        if sha256(&digests) != subject.digest.sha256 {
            return Err("contradicts itself: the digest of its subject is not that of its list".to_string());
        }
        Ok(Statement { name: subject.name.clone(), files })
    }

    /// The statement as the package lists it: files in the order of their paths, part by part.
    pub fn to_json(&self) -> String {
        let mut files: Vec<(&String, &Digest)> = self.files.iter().collect();
        files.sort_by(|(one, _), (other, _)| one.split('/').cmp(other.split('/')));
        let digests: Vec<u8> = files.iter().flat_map(|(_, digest)| digest.0).collect();
        let resources: Vec<serde_json::Value> = files
            .iter()
            .map(|(name, digest)| json!({"name": name, "algorithm": "sha256", "digest": digest}))
            .collect();
        let mut left_out = vec![SIGNATURE_FILE];
        left_out.extend(NO_PART_OF_A_MODEL);
        let statement = json!({
            "_type": STATEMENT_TYPE,
            "subject": [{"name": self.name, "digest": {"sha256": sha256(&digests)}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "serialization": {
                    "method": "files", "hash_type": "sha256", "allow_symlinks": false, "ignore_paths": left_out,
                },
                "resources": resources,
            },
        });
        format!("{statement:#}")
    }
}

/// How many files, and where they lie.
fn check<'a>(count: usize, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    if count == 0 {
        return Err("lists no file".to_string());
    }
    if count > MOST_FILES {
        return Err(format!("lists {count} files; at most {MOST_FILES} are read"));
    }
    for name in names {
        let alone = name == THE_FILE_ITSELF && count == 1;
        let leads_out = name.starts_with('/')
            || name.contains('\\')
            || name.chars().any(char::is_control)
            || name.len() > LONGEST_PATH
            || name.split('/').any(|part| part.is_empty() || part == "." || part == "..");
        if leads_out && !alone {
            return Err(format!("lists {name:.100?}, which is no path inside a model"));
        }
    }
    Ok(())
}
