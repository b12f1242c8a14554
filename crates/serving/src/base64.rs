//! Base64 with padding (RFC 4648, section 4), and what URLs and tokens hold, without (section 5).

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The bytes as text.
pub fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let bits =
            (0..3).fold(0u32, |bits, index| bits << 8 | u32::from(part.get(index).copied().unwrap_or(0)));
        for place in 0..4 {
            let digit = char::from(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]);
            text.push(if place <= part.len() { digit } else { '=' });
        }
    }
    text
}

/// The bytes of base64url without padding; `None` for anything else, signs that no encoder writes included.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for part in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for &letter in part {
            let letter = match letter {
                b'-' => b'+',
                b'_' => b'/',
                b'+' | b'/' => return None,
                letter => letter,
            };
            let digit = ALPHABET.iter().position(|&known| known == letter)?;
            bits = bits << 6 | digit as u32;
        }
        // 2 letters are 1 byte and 4 bits, 3 are 2 bytes and 2 bits; what is left over is zero.
        let left_over = match part.len() {
            4 => 0,
            3 => 2,
            2 => 4,
            _ => return None,
        };
        if bits & ((1 << left_over) - 1) != 0 {
            return None;
        }
        bytes.extend_from_slice(&(bits >> left_over).to_be_bytes()[5 - part.len()..]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_standard() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

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
