//! What the identifier looks at: n-grams of letters, 2 to 4, within words whose ends are marked, and the word itself.
//! (With 1 to 5 the dev sentences come out the same, from twice the numbers.)
//!
//! A text is cut into chunks at every ASCII character that is no letter, which takes one table look-up a byte; letters
//! are decoded, lower-cased and hashed only where a chunk has not been met before.

/// Shortest and longest n-gram, in letters and word marks.
const SHORTEST_NGRAM: usize = 2;
const LONGEST_NGRAM: usize = 4;

/// Stands before and behind each word.
const WORD_MARK: char = ' ';

/// Runs of ASCII letters and non-ASCII bytes of a text: every word of the text lies within one.
pub(crate) fn chunks(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut position = 0;
    std::iter::from_fn(move || {
        let start = position + bytes[position..].iter().position(|byte| in_chunk(*byte))?;
        let length = bytes[start..].iter().position(|byte| !in_chunk(*byte));
        position = length.map_or(bytes.len(), |length| start + length);
        // Cuts stand beside ASCII characters, so they never split one.
        text.get(start..position)
    })
}

const fn in_chunk(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte >= 0x80
}

/// Calls `found` with the key of each feature of a text; returns how many letters it has.
pub fn features(text: &str, mut found: impl FnMut(u32)) -> usize {
    let mut word = Vec::new();
    chunks(text).map(|chunk| chunk_features(chunk, &mut word, &mut found)).sum()
}

/// The same for one chunk; `word` is scratch space.
pub(crate) fn chunk_features(chunk: &str, word: &mut Vec<char>, found: &mut impl FnMut(u32)) -> usize {
    let mut letters = 0;
    word.clear();
    word.push(WORD_MARK);
    for character in chunk.chars() {
        if character.is_ascii_alphabetic() {
            word.push(character.to_ascii_lowercase());
            letters += 1;
        } else if character.is_alphabetic() || matches!(character, '\u{300}'..='\u{36F}') {
            word.extend(character.to_lowercase());
            letters += 1;
        } else {
            word_features(word, found);
        }
    }
    word_features(word, found);
    letters
}

/// Features of the word that stands behind the first mark; leaves the mark alone.
fn word_features(word: &mut Vec<char>, found: &mut impl FnMut(u32)) {
    if word.len() > 1 {
        word.push(WORD_MARK);
        for start in 0..word.len() {
            let mut hash = 0;
            for (position, letter) in word[start..].iter().take(LONGEST_NGRAM).enumerate() {
                hash = step(hash, *letter);
                if position + 1 >= SHORTEST_NGRAM {
                    found(key(hash));
                }
            }
        }
        if word.len() > LONGEST_NGRAM {
            found(key(word.iter().fold(0, |hash, letter| step(hash, *letter))));
        }
    }
    word.truncate(1);
}

/// One step of FxHash, whose upper bits are well mixed.
fn step(hash: u64, letter: char) -> u64 {
    (hash.rotate_left(5) ^ u64::from(u32::from(letter) + 1)).wrapping_mul(0x517C_C1B7_2722_0A95)
}

fn key(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<u32> {
        let mut keys = Vec::new();
        features(text, |key| keys.push(key));
        keys
    }

    #[test]
    fn features_are_those_of_the_words() {
        // " ħa ": three 2-grams, two 3-grams, and the 4-gram that is the whole word. " ħobż ": 5, 4, 3 and the word.
        assert_eq!(keys("ħa").len(), 3 + 2 + 1);
        assert_eq!(keys("ħobż").len(), 5 + 4 + 3 + 1);
        assert_eq!(keys("Ħa!"), keys("ħa"));
        assert_eq!(keys("«ħa»"), keys("ħa"));
        assert_eq!(keys("ħa ħa"), [keys("ħa"), keys("ħa")].concat());
        assert_eq!(keys("l’homme").len(), keys("l homme").len());
        assert_eq!(features("Γεια σου, κόσμε 12", |_| {}), 12);
        assert!(keys(" 12 – € ").is_empty());
    }
}
