//! A signed token (JWS compact form, RFC 7515; claims of RFC 7519; advice of RFC 8725), taken apart and checked.
//!
//! Nothing that a token says about how it wants to be checked is believed: its `alg` must be one that the operator allows
//! and that fits the kind of the issuer's key, keys come from the issuer's set alone (`jwk`, `jku`, `x5c` and `x5u` are
//! not looked at), and an extension that must be understood (`crit`) is one that is not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::jwks::{Algorithm, KeySet};
use crate::strict_json::strict_object;

/// Longest token that is looked at. Real ones have one to three KiB.
pub const LONGEST_TOKEN: usize = 8 << 10;
const LONGEST_KEY_ID: usize = 200;

/// What must hold of a token besides its signature.
pub struct Expected<'a> {
    pub issuer: &'a str,
    pub audience: &'a str,
    pub algorithms: &'a [Algorithm],
    /// By how much clocks may differ, in seconds.
    pub skew: u64,
}

/// Why a token opens nothing. For the log and for whoever holds the token; shows nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The issuer's set has no such key: it may be newer than ours.
    UnknownKey,
    Because(String),
}

/// The bytes of base64url without padding (RFC 4648, section 5); `None` for anything else, bits that no encoder sets
/// included, so that a token has one spelling.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn because<T>(problem: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Because(problem.into()))
}

/// The claims of a token, once everything about it has been checked. `now` in seconds since 1970.
pub fn verified_claims(
    token: &str,
    keys: &KeySet,
    expected: &Expected,
    now: u64,
) -> Result<Map<String, Value>, Refused> {
    if token.len() > LONGEST_TOKEN {
        return because(format!("it is longer than {LONGEST_TOKEN} bytes"));
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        return because("expected three parts with points between them");
    };
    let decoded = |part: &str, name: &str| {
        from_base64url(part).ok_or_else(|| Refused::Because(format!("its {name} is not base64url")))
    };
    let object = |bytes: Vec<u8>, name: &str| {
        strict_object(&bytes).map_err(|problem| Refused::Because(format!("its {name}: {problem}")))
    };
    let signed = &token.as_bytes()[..header.len() + 1 + claims.len()];
    let header = object(decoded(header, "header")?, "header")?;
    let algorithm = algorithm(&header, expected.algorithms)?;
    check_header(&header)?;
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) if id.len() <= LONGEST_KEY_ID => Some(id.as_str()),
        Some(_) => return because("its `kid` is not a short string"),
    };
    let signature = decoded(signature, "signature")?;
    let mut candidates = keys.find(key_id, algorithm).peekable();
    if candidates.peek().is_none() {
        return Err(Refused::UnknownKey);
    }
    if !candidates.any(|key| key.verifies(algorithm, signed, &signature)) {
        return because("its signature does not hold");
    }
    // Only now is what it claims worth a look.
    let claims = object(decoded(claims, "claims")?, "claims")?;
    check_claims(&claims, expected, now)?;
    Ok(claims)
}

fn algorithm(header: &Map<String, Value>, allowed: &[Algorithm]) -> Result<Algorithm, Refused> {
    let named = header.get("alg").and_then(Value::as_str).and_then(Algorithm::from_name);
    match named {
        Some(algorithm) if allowed.contains(&algorithm) => Ok(algorithm),
        _ => because("its `alg` is none that the settings allow"),
    }
}

fn check_header(header: &Map<String, Value>) -> Result<(), Refused> {
    if header.contains_key("crit") {
        return because("it has `crit`, and no extension is understood here");
    }
    let kind = header.get("typ").map(|kind| kind.as_str().unwrap_or_default().to_lowercase());
    match kind.as_deref() {
        None | Some("jwt" | "at+jwt" | "application/at+jwt") => Ok(()),
        // Signed by the same issuer for another purpose, such as a notice of logout.
        Some(_) => because("its `typ` is neither JWT nor at+jwt"),
    }
}

fn check_claims(claims: &Map<String, Value>, expected: &Expected, now: u64) -> Result<(), Refused> {
    if claims.get("iss").and_then(Value::as_str) != Some(expected.issuer) {
        return because("it is from another issuer");
    }
    let is_audience = |value: &Value| value.as_str() == Some(expected.audience);
    let meant_for_us = match claims.get("aud") {
        Some(Value::Array(audiences)) => audiences.iter().any(is_audience),
        Some(audience) => is_audience(audience),
        None => false,
    };
    if !meant_for_us {
        return because("it is meant for another audience");
    }
    if claims.get("sub").and_then(Value::as_str).is_none_or(str::is_empty) {
        return because("it has no `sub`");
    }
    let (now, skew) = (now as f64, expected.skew as f64);
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) => Ok(Some(seconds)),
            None => because(format!("its `{name}` is not a number")),
        },
    };
    match time("exp")? {
        None => return because("it has no `exp`"),
        Some(end) if now >= end + skew => return because("it has expired"),
        Some(_) => {}
    }
    for name in ["nbf", "iat"] {
        if time(name)?.is_some_and(|start| now + skew < start) {
            return because(format!("it is not valid yet (`{name}`)"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_one_spelling() {
        for (text, bytes) in [("", ""), ("Zg", "f"), ("Zm8", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(from_base64url(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(from_base64url("-_8").unwrap(), [0xfb, 0xff]);
        for wrong in ["Z", "Zh", "Zm9", "Zg==", "+/8", "Zm 9v", "Zm9vé", "Zm9v\n"] {
            assert_eq!(from_base64url(wrong), None, "{wrong}");
        }
    }
}
