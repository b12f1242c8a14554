//! The Sigstore bundle 0.3 around a signature, in the JSON form of its protocol buffers
//! (<https://docs.sigstore.dev/about/bundle/>), and the DSSE envelope in it
//! (<https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md>).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Signature;
use super::statement::Statement;

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

/// How the key is to be found. Of the kinds that the format knows, this program checks a key that its reader names.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<KeyIdentifier>,
    /// Entries of public logs; the package wants the list, and for keys it is empty.
    #[serde(default)]
    tlog_entries: Vec<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct KeyIdentifier {
    #[serde(default)]
    hint: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signed>,
}

#[derive(Serialize, Deserialize)]
struct Signed {
    sig: String,
    #[serde(default)]
    keyid: Option<String>,
}

/// What a signature is made over: the envelope's "pre-authentication encoding".
pub fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

pub fn parse(bytes: &[u8]) -> Result<Signature, String> {
    let bundle: Bundle = serde_json::from_slice(bytes)
        .map_err(|error| format!("is no signature (expected a Sigstore bundle in JSON): {error}"))?;
    let expect = |what: &str, found: &str, expected: &str| {
        if found == expected {
            Ok(())
        } else {
            Err(format!("{what}: expected {expected}, found {found:.100}"))
        }
    };
    expect("mediaType", &bundle.media_type, MEDIA_TYPE)?;
    expect("payloadType", &bundle.dsse_envelope.payload_type, PAYLOAD_TYPE)?;
    let key = bundle.verification_material.public_key.ok_or(
        "was made with a certificate or through Sigstore's public service; this program checks signatures by a key \
         (`model_signing sign key`)",
    )?;
    let hint = key.hint.filter(|hint| !hint.is_empty());
    if hint
        .as_ref()
        .is_some_and(|hint| hint.len() != 64 || !hint.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err("publicKey.hint: expected the SHA-256 of a public key".to_string());
    }
    let [signed] = bundle.dsse_envelope.signatures.as_slice() else {
        let found = bundle.dsse_envelope.signatures.len();
        return Err(format!("expected one signature in the envelope, found {found}"));
    };
    let decode = |what: &str, text: &str| {
        STANDARD.decode(text).map_err(|error| format!("{what}: expected Base64: {error}"))
    };
    let payload = decode("payload", &bundle.dsse_envelope.payload)?;
    let signature = decode("sig", &signed.sig)?;
    let statement = Statement::parse(&payload)?;
    Ok(Signature { hint, payload, signature, statement })
}

pub fn write(signature: &Signature) -> String {
    let bundle = Bundle {
        media_type: MEDIA_TYPE.to_string(),
        verification_material: Material {
            public_key: Some(KeyIdentifier { hint: signature.hint.clone() }),
            tlog_entries: Vec::new(),
        },
        dsse_envelope: Envelope {
            payload: STANDARD.encode(&signature.payload),
            payload_type: PAYLOAD_TYPE.to_string(),
            signatures: vec![Signed {
                sig: STANDARD.encode(&signature.signature),
                keyid: Some(String::new()),
            }],
        },
    };
    serde_json::to_string(&bundle).unwrap_or_default() + "\n"
}
