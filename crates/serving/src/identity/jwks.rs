//! The issuer's keys (RFC 7517, RFC 7518, RFC 8037), and what is signed with them.
//!
//! `ring` computes the signatures: it is here already, as the provider of TLS. (The crate `jsonwebtoken` would bring
//! either aws-lc, which is built with CMake, or an RSA without protection against timing.) Algorithms with a shared
//! secret do not exist here, so that no public key can be taken for one.

use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::token::from_base64url;
use crate::strict_json::strict_object;

/// Keys of a set that are looked at. Issuers publish two or three.
const MOST_KEYS: usize = 64;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    const ALL: [(Algorithm, &'static str); 9] = [
        (Algorithm::RS256, "RS256"),
        (Algorithm::RS384, "RS384"),
        (Algorithm::RS512, "RS512"),
        (Algorithm::PS256, "PS256"),
        (Algorithm::PS384, "PS384"),
        (Algorithm::PS512, "PS512"),
        (Algorithm::ES256, "ES256"),
        (Algorithm::ES384, "ES384"),
        (Algorithm::EdDSA, "EdDSA"),
    ];

    /// The algorithm of exactly that name; `none` and `HS256` are names of nothing.
    pub fn from_name(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|(_, known)| *known == name).map(|(algorithm, _)| algorithm)
    }
}

/// A public key of the issuer.
struct VerifyingKey {
    id: Option<String>,
    /// The one algorithm that it is for, if it says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed points.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// The keys of an issuer, each of a kind that tokens can be checked with.
pub struct KeySet(Vec<VerifyingKey>);

/// A key that may have signed a token.
pub struct Candidate<'a>(&'a VerifyingKey);

impl KeySet {
    /// Reads a set. Keys of other kinds and for other purposes are passed over; a set without any key that can be used is
    /// an error.
    pub fn parse(bytes: &[u8]) -> Result<KeySet, String> {
        let object = strict_object(bytes)?;
        let Some(keys) = object.get("keys").and_then(Value::as_array) else {
            return Err("expected a key set: an object with the list `keys`".to_string());
        };
        let usable: Vec<VerifyingKey> =
            keys.iter().take(MOST_KEYS).filter_map(|key| read_key(key.as_object()?)).collect();
        if usable.is_empty() {
            return Err("none of its keys is an RSA, P-256, P-384 or Ed25519 key for signatures".to_string());
        }
        Ok(KeySet(usable))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The keys that a token of this algorithm may be signed with: those it names, or if it names none, all that fit.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = Candidate<'_>> {
        let fits = move |key: &&VerifyingKey| {
            id.is_none_or(|id| key.id.as_deref() == Some(id)) && key.is_for(algorithm)
        };
        self.0.iter().filter(fits).map(Candidate)
    }
}

impl VerifyingKey {
    fn is_for(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let kind = match self.material {
            Material::Rsa { .. } => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            Material::P256(_) => algorithm == ES256,
            Material::P384(_) => algorithm == ES384,
            Material::Ed25519(_) => algorithm == EdDSA,
        };
        kind && self.algorithm.is_none_or(|own| own == algorithm)
    }
}

impl Candidate<'_> {
    /// Whether the key signed these bytes. RSA keys below 2048 bits never did.
    pub fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        let verified =
            match &self.0.material {
                Material::Rsa { n, e } => {
                    let parameters = match algorithm {
                        Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                        Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                        Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                        Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
                        Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
                        Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
                        Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA => return false,
                    };
                    RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature)
                }
                Material::P256(point) => UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(signed, signature),
                Material::P384(point) => UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
                    .verify(signed, signature),
                Material::Ed25519(key) => {
                    UnparsedPublicKey::new(&signature::ED25519, key).verify(signed, signature)
                }
            };
        verified.is_ok()
    }
}

fn read_key(key: &Map<String, Value>) -> Option<VerifyingKey> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let bytes = |name: &str| text(name).and_then(from_base64url);
    if key.get("use").is_some_and(|purpose| purpose.as_str() != Some("sig")) {
        return None;
    }
    if let Some(operations) = key.get("key_ops")
        && !operations.as_array()?.iter().any(|operation| operation.as_str() == Some("verify"))
    {
        return None;
    }
    let algorithm = match text("alg") {
        None => None,
        Some(name) => Some(Algorithm::from_name(name)?),
    };
    let point = |length: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        (x.len() == length && y.len() == length).then(|| [&[4][..], &x, &y].concat())
    };
    let without_zeros = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect();
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => Material::Rsa { n: without_zeros(bytes("n")?), e: without_zeros(bytes("e")?) },
        ("EC", Some("P-256")) => Material::P256(point(32)?),
        ("EC", Some("P-384")) => Material::P384(point(48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|key| key.len() == 32)?),
        _ => return None,
    };
    Some(VerifyingKey { id: text("kid").map(String::from), algorithm, material })
}
