//! The header: who can open the file.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::{hmac, rand};

use super::{FILE_KEY, Identity, Recipient, derive};

const VERSION: &str = "age-encryption.org/v1";
const PURPOSE: &[u8] = b"age-encryption.org/v1/X25519";
/// Letters in a full line of a stanza's body.
const LINE: usize = 64;
/// Longest header that is read: some hundred recipients.
const LONGEST: usize = 1 << 16;

/// The header of a file with this key.
pub fn write(recipients: &[Recipient], file_key: &[u8; FILE_KEY]) -> Result<Vec<u8>, String> {
    if recipients.is_empty() {
        return Err("nobody is named who could open it".to_string());
    }
    let mut text = format!("{VERSION}\n");
    for recipient in recipients {
        let (share, body) = wrap(recipient, file_key)?;
        // Into a string: this cannot fail.
        let _ = write!(text, "-> X25519 {}\n{}\n", BASE64.encode(share), BASE64.encode(body));
    }
    text.push_str("---");
    let code = hmac::sign(&code_key(file_key)?, text.as_bytes());
    let _ = writeln!(text, " {}", BASE64.encode(code));
    Ok(text.into_bytes())
}

/// What a header leads to.
pub struct Opened<'a> {
    pub file_key: [u8; FILE_KEY],
    /// What stands after the header.
    pub sealed: &'a [u8],
}

/// Opens the header of a file; `None` if no identity does.
pub fn open<'a>(identities: &[Identity], file: &'a [u8]) -> Result<Option<Opened<'a>>, String> {
    let mut lines = Lines { file, at: 0 };
    if lines.next()? != VERSION {
        return Err(format!("not a file of age: its first line is not `{VERSION}`"));
    }
    let mut file_key = None;
    let code = loop {
        let line = lines.next()?;
        if let Some(code) = line.strip_prefix("--- ") {
            break code;
        }
        let Some(stanza) = line.strip_prefix("-> ") else {
            return Err("its header has a line that belongs to nothing".to_string());
        };
        let body = lines.body()?;
        let words: Vec<&str> = stanza.split(' ').collect();
        if words.iter().any(|word| word.is_empty()) {
            return Err("its header has an empty word".to_string());
        }
        // Stanzas of other kinds are for others.
        if words[0] == "X25519" && file_key.is_none() {
            file_key = unwrap(identities, &words, &body)?;
        }
    };
    let code = BASE64.decode(code).map_err(|error| format!("the code of its header: {error}"))?;
    let Some(file_key) = file_key else { return Ok(None) };
    let written = &file[..lines.at];
    // All up to the dashes is covered: the line with the code has a space, the code and an end more.
    let end = written.windows(5).rposition(|window| window == b"\n--- ").map_or(0, |at| at + 4);
    hmac::verify(&code_key(&file_key)?, &file[..end], &code)
        .map_err(|_| "its header was altered".to_string())?;
    Ok(Some(Opened { file_key, sealed: &file[lines.at..] }))
}

/// What a recipient's stanza holds: the share of a key made for this, and the file's key under what both share.
fn wrap(recipient: &Recipient, file_key: &[u8; FILE_KEY]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let failed = |_| "a key cannot be made".to_string();
    let ours = EphemeralPrivateKey::generate(&X25519, &rand::SystemRandom::new()).map_err(failed)?;
    let share = ours.compute_public_key().map_err(failed)?.as_ref().to_vec();
    let salt = [share.as_slice(), recipient.bytes()].concat();
    let theirs = UnparsedPublicKey::new(&X25519, recipient.bytes());
    // `ring` refuses what a point of low order gives.
    let key = agree_ephemeral(ours, &theirs, |secret| derive(secret, &salt, PURPOSE)).map_err(failed)??;
    let mut body = file_key.to_vec();
    cipher(&key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut body)
        .map_err(failed)?;
    Ok((share, body))
}

/// The file's key from an X25519 stanza, if it is for one of these.
fn unwrap(identities: &[Identity], words: &[&str], body: &[u8]) -> Result<Option<[u8; FILE_KEY]>, String> {
    let malformed = || "its header has a malformed X25519 stanza".to_string();
    let [_, share] = words else { return Err(malformed()) };
    let share: [u8; 32] =
        BASE64.decode(share).ok().and_then(|share| share.try_into().ok()).ok_or_else(malformed)?;
    if body.len() != FILE_KEY + CHACHA20_POLY1305.tag_len() {
        return Err(malformed());
    }
    for identity in identities {
        let secret = identity.agree(&share).ok_or_else(malformed)?;
        let salt = [share, *identity.recipient().bytes()].concat();
        let key = derive(&secret, &salt, PURPOSE)?;
        let mut sealed = body.to_vec();
        let opened =
            cipher(&key)?.open_in_place(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut sealed);
        if let Ok(Ok(file_key)) = opened.map(|opened| <[u8; FILE_KEY]>::try_from(&*opened)) {
            return Ok(Some(file_key));
        }
    }
    Ok(None)
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, String> {
    UnboundKey::new(&CHACHA20_POLY1305, key)
        .map(LessSafeKey::new)
        .map_err(|_| "a key has the wrong length".to_string())
}

fn code_key(file_key: &[u8; FILE_KEY]) -> Result<hmac::Key, String> {
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &derive(file_key, &[], b"header")?))
}

/// The lines of a header.
struct Lines<'a> {
    file: &'a [u8],
    /// Bytes that were read.
    at: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<&'a str, String> {
        let rest = &self.file[self.at..self.file.len().min(LONGEST)];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| "its header does not end".to_string())?;
        self.at += end + 1;
        let line = std::str::from_utf8(&rest[..end])
            .ok()
            .filter(|line| line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
        line.ok_or_else(|| "its header is no text".to_string())
    }

    /// A stanza's body: full lines, and one that is not full.
    fn body(&mut self) -> Result<Vec<u8>, String> {
        let mut text = String::new();
        loop {
            let line = self.next()?;
            if line.len() > LINE {
                return Err("its header has a line that is too long".to_string());
            }
            text.push_str(line);
            if line.len() < LINE {
                return BASE64.decode(text).map_err(|error| format!("its header: {error}"));
            }
        }
    }
}
