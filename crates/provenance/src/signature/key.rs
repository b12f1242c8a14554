//! Keys that sign models: ECDSA on P-256 with SHA-256 (FIPS 186-5), in PEM files. Signatures on P-384 are checked too.

use std::fmt;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use crate::digest::sha256;
use crate::storage::Storage;
use crate::{Error, StorageError};

/// A key file is a few hundred bytes.
const LARGEST_KEY_FILE: u64 = 64 << 10;
/// What stands before the 65 bytes of a point on P-256 in a SubjectPublicKeyInfo (RFC 5480, section 2).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3,
    1, 7, 3, 0x42, 0,
];
const P256_POINT: usize = 65;
/// The same for the 97 bytes of a point on P-384.
const P384_PREFIX: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22, 3, 0x62,
    0,
];
const P384_POINT: usize = 97;

/// The private half.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl SigningKey {
    /// Makes a key pair: `path` gets the private half, for its owner alone (mode 0600), `public_path` the public one.
    ///
    /// # Errors
    /// A file that is there already is never overwritten.
    pub fn create(path: &Path, public_path: &Path, storage: &Storage) -> Result<SigningKey, Error> {
        let there = |path: &Path| {
            Error::malformed(path, "is there already, and a key is never overwritten; choose another name")
        };
        for path in [path, public_path] {
            if path.symlink_metadata().is_ok() {
                return Err(there(path));
            }
        }
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        let made = made.map_err(|_| Error::malformed(path, "the system gives no random numbers"))?;
        let key = SigningKey::from_der(made.as_ref()).map_err(|problem| Error::malformed(path, problem))?;
        let write = |path: &Path, private: bool, text: String| -> Result<bool, StorageError> {
            let made = if private { storage.create_new_private(path)? } else { storage.create_new(path)? };
            let Some(mut file) = made else { return Ok(false) };
            file.write_bytes(text.as_bytes())?;
            file.finish()?;
            storage.sync_folder(match path.parent() {
                Some(above) if !above.as_os_str().is_empty() => above,
                _ => Path::new("."),
            })?;
            Ok(true)
        };
        if !write(path, true, pem("PRIVATE KEY", made.as_ref()))? {
            return Err(there(path));
        }
        if !write(public_path, false, key.public().pem())? {
            return Err(there(public_path));
        }
        Ok(key)
    }

    /// Reads a private key in PKCS #8 (`-----BEGIN PRIVATE KEY-----`).
    pub fn read(path: &Path) -> Result<SigningKey, Error> {
        let text = key_file(path)?;
        let trouble = |problem: &str| Error::malformed(path, problem);
        let Ok(der) = PrivatePkcs8KeyDer::from_pem_slice(&text) else {
            let has = |label: &str| text.windows(label.len()).any(|window| window == label.as_bytes());
            return Err(trouble(if has("BEGIN ENCRYPTED PRIVATE KEY") {
                "is encrypted, and only keys in the clear are read; decrypt it into a file that only you can read: \
                 `openssl pkcs8 -in FILE -out key.pem`"
            } else if has("BEGIN EC PRIVATE KEY") {
                "is in the older form SEC 1; convert it: `openssl pkcs8 -topk8 -nocrypt -in FILE -out key.pem`"
            } else if has("BEGIN PUBLIC KEY") {
                "is a public key; signing takes the private one"
            } else {
                "expected a private key in PEM (`-----BEGIN PRIVATE KEY-----`), as `eulalia signing-key new` makes it"
            }));
        };
        SigningKey::from_der(der.secret_pkcs8_der()).map_err(|problem| trouble(&problem))
    }

    fn from_der(der: &[u8]) -> Result<SigningKey, String> {
        let random = SystemRandom::new();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random).map_err(|error| {
                format!("expected a key on the curve P-256 in PKCS #8, with its public half: {error}")
            })?;
        Ok(SigningKey { pair, random })
    }

    /// An ECDSA signature in ASN.1 DER.
    pub(super) fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let signature = self.pair.sign(&self.random, bytes);
        signature
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| "the system gives no random numbers".to_string())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey { curve: Curve::P256, point: self.pair.public_key().as_ref().to_vec() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
}

/// The public half: what a reader checks signatures with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    curve: Curve,
    /// Uncompressed.
    point: Vec<u8>,
}

impl PublicKey {
    /// Reads a public key in PEM (`-----BEGIN PUBLIC KEY-----`).
    pub fn read(path: &Path) -> Result<PublicKey, Error> {
        let text = key_file(path)?;
        let trouble = |problem: &str| Error::malformed(path, problem);
        let der = SubjectPublicKeyInfoDer::from_pem_slice(&text).map_err(|_| {
            trouble(
                "expected a public key in PEM (`-----BEGIN PUBLIC KEY-----`), the file .pub.pem that `eulalia signing-key \
                 new` makes",
            )
        })?;
        let of = |curve, prefix: &[u8], point: usize| {
            let bytes = der.strip_prefix(prefix).filter(|bytes| bytes.len() == point && bytes[0] == 4)?;
            Some(PublicKey { curve, point: bytes.to_vec() })
        };
        of(Curve::P256, &P256_PREFIX, P256_POINT)
            .or_else(|| of(Curve::P384, &P384_PREFIX, P384_POINT))
            .ok_or_else(|| trouble("expected a key on the curve P-256 or P-384, its point uncompressed"))
    }

    /// The key as a file: `-----BEGIN PUBLIC KEY-----`.
    pub fn pem(&self) -> String {
        let prefix: &[u8] = match self.curve {
            Curve::P256 => &P256_PREFIX,
            Curve::P384 => &P384_PREFIX,
        };
        pem("PUBLIC KEY", &[prefix, &self.point].concat())
    }

    /// What names the key: the SHA-256 of [`PublicKey::pem`] in hexadecimal, as bundles state it.
    pub fn fingerprint(&self) -> String {
        sha256(self.pem().as_bytes()).to_string()
    }

    pub(super) fn signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self.curve {
            Curve::P256 => &ECDSA_P256_SHA256_ASN1,
            Curve::P384 => &ECDSA_P384_SHA384_ASN1,
        };
        UnparsedPublicKey::new(algorithm, &self.point).verify(bytes, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({})", self.fingerprint())
    }
}

fn key_file(path: &Path) -> Result<Vec<u8>, Error> {
    if !path.metadata().map_err(Error::read(path))?.is_file() {
        return Err(Error::malformed(path, "is no file; expected a key in PEM"));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::read(path))?;
    file.take(LARGEST_KEY_FILE).read_to_end(&mut bytes).map_err(Error::read(path))?;
    Ok(bytes)
}

/// PEM in lines of 64 characters (RFC 7468), byte for byte as OpenSSL writes it: the fingerprint is taken over this text.
fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
