//! The payload: chunks of 64 KiB, after the STREAM construction (<https://eprint.iacr.org/2015/189>).

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{FILE_KEY, derive, random};

const CHUNK: usize = 1 << 16;
const TAG: usize = 16;
/// Random bytes before the chunks.
const SALT: usize = 16;

/// Seals a text, behind what `file` holds already.
pub fn seal(file_key: &[u8; FILE_KEY], text: &[u8], file: &mut Vec<u8>) -> Result<(), String> {
    let salt: [u8; SALT] = random()?;
    file.extend_from_slice(&salt);
    let key = key(file_key, &salt)?;
    // An empty text is one empty chunk.
    let count = text.len().div_ceil(CHUNK).max(1);
    for number in 0..count {
        let end = text.len().min((number + 1) * CHUNK);
        let mut chunk = text[number * CHUNK..end].to_vec();
        key.seal_in_place_append_tag(nonce(number, number + 1 == count), Aad::empty(), &mut chunk)
            .map_err(|_| "a chunk cannot be sealed".to_string())?;
        file.extend_from_slice(&chunk);
    }
    Ok(())
}

/// Opens what stands after a header.
pub fn open(file_key: &[u8; FILE_KEY], sealed: &[u8]) -> Result<Vec<u8>, String> {
    let Some((salt, sealed)) = sealed.split_at_checked(SALT) else {
        return Err("it ends after its header".to_string());
    };
    let key = key(file_key, salt)?;
    let count = sealed.len().div_ceil(CHUNK + TAG).max(1);
    let mut text = Vec::with_capacity(sealed.len());
    for number in 0..count {
        let end = sealed.len().min((number + 1) * (CHUNK + TAG));
        let mut chunk = sealed[number * (CHUNK + TAG)..end].to_vec();
        let is_last = number + 1 == count;
        let opened = key
            .open_in_place(nonce(number, is_last), Aad::empty(), &mut chunk)
            .map_err(|_| format!("chunk {} was altered, or the end is missing", number + 1))?;
        if opened.is_empty() && number > 0 {
            return Err("it ends with an empty chunk".to_string());
        }
        text.extend_from_slice(opened);
    }
    Ok(text)
}

fn key(file_key: &[u8; FILE_KEY], salt: &[u8]) -> Result<LessSafeKey, String> {
    let key = derive(file_key, salt, b"payload")?;
    UnboundKey::new(&CHACHA20_POLY1305, &key)
        .map(LessSafeKey::new)
        .map_err(|_| "a key has the wrong length".to_string())
}

/// Eleven bytes of the chunk's number, and whether it is the last.
fn nonce(number: usize, is_last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[3..11].copy_from_slice(&(number as u64).to_be_bytes());
    bytes[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(bytes)
}
