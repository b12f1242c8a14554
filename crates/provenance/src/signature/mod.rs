//! Signatures of models and releases: OpenSSF Model Signing 1.0 (<https://github.com/sigstore/model-transparency>), as
//! the PyPI package `model-signing` writes and checks it with `sign key` and `verify key`.
//!
//! A signature is a Sigstore bundle: a DSSE envelope over an in-toto statement that lists every file with its SHA-256.
//! It lies in the model's folder as `model.sig` and covers every other file there; beside a model that is one file it is
//! called `<file>.sig`. No digest of an artefact covers it, so that a finished release can be signed by whoever vouches
//! for it.
//!
//! Everything in a bundle is input from strangers until a key that the reader named has signed it.

mod bundle;
mod key;
mod statement;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::digest::Digest;
use crate::tree::THE_FILE_ITSELF;

pub use key::{PublicKey, SigningKey};
use statement::Statement;

/// The signature's name inside the folder that it signs.
pub const SIGNATURE_FILE: &str = "model.sig";
/// A bundle of more is no list of a model's files.
const LARGEST_BUNDLE_BYTES: u64 = 16 << 20;
/// Files that may lie in a signed folder and are no part of the model: those of git, which the package leaves out too,
/// and the note of `eulalia pull` about where a folder came from. Nothing here reads them as a model.
const NO_PART_OF_A_MODEL: [&str; 5] =
    [".git", ".gitattributes", ".github", ".gitignore", "eulalia-source.json"];

/// A signature whose form holds. Who made it is known only after [`Signature::is_by`].
#[derive(Clone, Debug)]
pub struct Signature {
    /// SHA-256 of the public key in PEM, as the signature itself states it.
    hint: Option<String>,
    payload: Vec<u8>,
    /// ECDSA in ASN.1 DER.
    signature: Vec<u8>,
    statement: Statement,
}

/// What is known of who vouches for a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is no signature.
    Unsigned,
    /// By one of the keys that were named; its fingerprint.
    SignedBy(String),
    /// The files are those that it lists, but no key was named to check it with; the fingerprint that it states.
    Unchecked(Option<String>),
}

/// What is asked of a model's signature.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand<'a> {
    /// Where the signature lies; by default [`default_place`].
    pub signature: Option<&'a Path>,
    /// One of them must have signed. With none, nothing is asked, but a signature that is there must fit the files.
    pub keys: &'a [PublicKey],
    /// Take the model also without a signature by one of the keys.
    pub allow_unsigned: bool,
}

/// Where the signature of a model lies if nobody says otherwise: `model.sig` in a folder, `<file>.sig` beside a file.
pub fn default_place(model: &Path) -> PathBuf {
    if model.is_dir() {
        return model.join(SIGNATURE_FILE);
    }
    let mut name = model.file_name().unwrap_or_default().to_os_string();
    name.push(".sig");
    model.with_file_name(name)
}

/// Holds the files of a model (by [`crate::tree::digest_tree`]) against its signature.
///
/// # Errors
/// Says which file does not hold and what to do.
pub fn judge(model: &Path, files: &BTreeMap<String, Digest>, demand: &Demand<'_>) -> Result<Standing, Error> {
    let place = demand.signature.map_or_else(|| default_place(model), Path::to_path_buf);
    if demand.signature.is_none() && place.symlink_metadata().is_err() {
        if demand.keys.is_empty() || demand.allow_unsigned {
            return Ok(Standing::Unsigned);
        }
        return Err(Error::malformed(
            model,
            format!(
                "is not signed: there is no {}, and a signature by a trusted key is asked for ({}); get one from whoever \
                 publishes the model, sign it yourself (`eulalia sign`), or name the model as one that may be unsigned",
                place.display(),
                fingerprints(demand.keys)
            ),
        ));
    }
    let signature = Signature::read(&place)?;
    let differences = signature.differences(model, &place, files);
    if let Some(first) = differences.first() {
        let more = differences.len() - 1;
        let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
        return Err(Error::malformed(
            model,
            format!(
                "is not what {} signed: {first}{more}; get it again from whoever published it",
                place.display()
            ),
        ));
    }
    match signature.trusted(demand.keys) {
        Ok(Some(key)) => Ok(Standing::SignedBy(key.fingerprint())),
        Ok(None) if demand.keys.is_empty() || demand.allow_unsigned => {
            Ok(Standing::Unchecked(signature.hint))
        }
        Ok(None) => Err(Error::malformed(
            &place,
            format!(
                "is by the key {}, which is none of the trusted ones ({}); if you trust its owner, name that public key \
                 as well, otherwise get the model from whom you trust",
                signature.hint.as_deref().map_or("of an unknown owner", short),
                fingerprints(demand.keys)
            ),
        )),
        Err(problem) => Err(Error::malformed(&place, problem)),
    }
}

impl Signature {
    /// Signs these files (see [`crate::tree::digest_tree`]). `name` is what the model is called, for people.
    ///
    /// # Errors
    /// A name of a file that others would not read back, or no random numbers.
    pub fn new(name: &str, files: &BTreeMap<String, Digest>, key: &SigningKey) -> Result<Signature, String> {
        let statement = Statement::new(name, files)?;
        let payload = statement.to_json().into_bytes();
        let signature = key.sign(&bundle::signed_bytes(&payload))?;
        Ok(Signature { hint: Some(key.public().fingerprint()), payload, signature, statement })
    }

    /// Reads a file; only its form is checked.
    pub fn read(path: &Path) -> Result<Signature, Error> {
        // Of a pipe nobody knows when it ends: look before opening.
        if !path.metadata().map_err(Error::read(path))?.is_file() {
            return Err(Error::malformed(
                path,
                "is no file; expected a signature (a Sigstore bundle in JSON)",
            ));
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(Error::read(path))?;
        file.take(LARGEST_BUNDLE_BYTES + 1).read_to_end(&mut bytes).map_err(Error::read(path))?;
        if bytes.len() as u64 > LARGEST_BUNDLE_BYTES {
            let problem = format!("has more than {} MiB: that is no signature", LARGEST_BUNDLE_BYTES >> 20);
            return Err(Error::malformed(path, problem));
        }
        Signature::parse(&bytes).map_err(|problem| Error::malformed(path, problem))
    }

    /// Reads a bundle.
    pub fn parse(bytes: &[u8]) -> Result<Signature, String> {
        bundle::parse(bytes)
    }

    /// The bundle, as it is written to a file.
    pub fn to_json(&self) -> String {
        bundle::write(self)
    }

    /// The fingerprint of the key that it says it is by.
    pub fn stated_key(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether this key made it.
    pub fn is_by(&self, key: &PublicKey) -> bool {
        key.signed(&bundle::signed_bytes(&self.payload), &self.signature)
    }

    /// The one of these keys that made it; `None` if it says that another did.
    fn trusted<'a>(&self, keys: &'a [PublicKey]) -> Result<Option<&'a PublicKey>, String> {
        // Bundles of old say nothing about the key: each may be it.
        let mut stated =
            keys.iter().filter(|key| self.hint.as_ref().is_none_or(|hint| *hint == key.fingerprint()));
        if let Some(key) = stated.clone().find(|key| self.is_by(key)) {
            return Ok(Some(key));
        }
        match (&self.hint, stated.next()) {
            (Some(hint), Some(_)) => Err(format!(
                "does not hold: it says that the key {} made it, but that key did not sign this list of files; it was \
                 altered: get it again from whoever published the model",
                short(hint)
            )),
            _ => Ok(None),
        }
    }

    /// Where these files are not those that were signed; each line names the file. `place` is where the signature lies.
    pub fn differences(&self, model: &Path, place: &Path, files: &BTreeMap<String, Digest>) -> Vec<String> {
        let signed = &self.statement.files;
        if files.contains_key(THE_FILE_ITSELF) {
            return self.difference_of_one(model, files);
        }
        let mut differences = Vec::new();
        for (name, expected) in signed {
            match files.get(name) {
                None => differences.push(format!("{name} is missing")),
                Some(found) if found != expected => {
                    differences.push(format!(
                        "{name} was altered (signed {}…, found {}…)",
                        expected.short(),
                        found.short()
                    ));
                }
                Some(_) => {}
            }
        }
        for name in files.keys().filter(|name| !signed.contains_key(*name)) {
            let first = name.split('/').next().unwrap_or(name);
            let is_signature = model.join(name) == *place || name == SIGNATURE_FILE;
            if !is_signature && !NO_PART_OF_A_MODEL.contains(&first) {
                differences.push(format!("{name} was added; the signature does not know it"));
            }
        }
        differences
    }

    /// A file is signed alone, or by its name in the list of a folder.
    fn difference_of_one(&self, model: &Path, files: &BTreeMap<String, Digest>) -> Vec<String> {
        let name = model.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let signed = &self.statement.files;
        let difference =
            match (signed.get(THE_FILE_ITSELF).or_else(|| signed.get(&name)), files.get(THE_FILE_ITSELF)) {
                (None, _) => format!("{name} is not among the files that it lists"),
                (Some(expected), Some(found)) if expected == found => return Vec::new(),
                (Some(expected), found) => format!(
                    "{name} was altered (signed {}…, found {}…)",
                    expected.short(),
                    found.map(Digest::short).unwrap_or_default()
                ),
            };
        vec![difference]
    }
}

/// Enough of a fingerprint to tell keys apart.
pub fn short(fingerprint: &str) -> &str {
    fingerprint.get(..16).unwrap_or(fingerprint)
}

fn fingerprints(keys: &[PublicKey]) -> String {
    let all: Vec<String> = keys.iter().map(|key| short(&key.fingerprint()).to_string()).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests;
