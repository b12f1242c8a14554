//! The age format, version 1 (<https://age-encryption.org/v1>): files that only the holders of certain keys can read, and
//! that the programs `age` and `rage` open as well.
//!
//! What is kept of a tenant's conversations is written so, for keys that the tenant holds: the server knows the public
//! halves alone and can read nothing of it afterwards. Of the format there is what this takes: X25519 recipients, and
//! payloads that fit in memory.
//!
//! A file is a header of text and a payload. For each recipient the header has a stanza that holds the file's key under a
//! secret which the recipient shares with a key made for this one file; a message authentication code closes it. The
//! payload goes in chunks of 64 KiB, each sealed with its number, the last one marked.

mod header;
mod keys;
mod payload;

use ring::hkdf::{HKDF_SHA256, KeyType, Salt};

pub use keys::{Identity, Recipient};

/// Bytes of a file's key.
const FILE_KEY: usize = 16;

/// Seals a text for all of these recipients. Fails where there is none, or no randomness.
pub fn encrypt(recipients: &[Recipient], text: &[u8]) -> Result<Vec<u8>, String> {
    let file_key: [u8; FILE_KEY] = random()?;
    let mut file = header::write(recipients, &file_key)?;
    payload::seal(&file_key, text, &mut file)?;
    Ok(file)
}

/// Opens a file with one of these keys. `Ok(None)` if it was made for none of them; `Err` says what is wrong with it.
pub fn decrypt(identities: &[Identity], file: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let Some(opened) = header::open(identities, file)? else { return Ok(None) };
    payload::open(&opened.file_key, opened.sealed).map(Some)
}

/// HKDF with SHA-256 (RFC 5869).
fn derive(secret: &[u8], salt: &[u8], purpose: &[u8]) -> Result<[u8; 32], String> {
    struct KeyLength;
    impl KeyType for KeyLength {
        fn len(&self) -> usize {
            32
        }
    }
    let mut key = [0; 32];
    let extracted = Salt::new(HKDF_SHA256, salt).extract(secret);
    let expanded = extracted.expand(&[purpose], KeyLength).and_then(|expanded| expanded.fill(&mut key));
    expanded.map_err(|_| "a key cannot be derived".to_string())?;
    Ok(key)
}

fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], String> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
