//! What a tokenizer keeps of the texts that went through it: nothing, unless it is asked to.

use compute::allocation::held;
use serde_json::json;
use tokenizer::Tokenizer;

/// Bytes that some hundred words leave on this thread.
fn left_behind(tokenizer: &Tokenizer) -> isize {
    let encode = |number: usize| {
        let word: String = number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
        tokenizer.encode(&word).unwrap();
        tokenizer.encode_ordinary(&word).unwrap();
    };
    // What is made once, whatever the texts.
    (0..10).for_each(encode);
    let before = held();
    (10..400).for_each(encode);
    held() - before
}

#[test]
fn words_are_remembered_only_where_that_is_asked_for() {
    let letters: Vec<char> = ('a'..='j').collect();
    let ids: serde_json::Map<_, _> =
        letters.iter().enumerate().map(|(id, letter)| (letter.to_string(), json!(id))).collect();
    let scores: Vec<_> = letters.iter().map(|letter| json!([letter, -1.0])).collect();
    for model in [
        json!({"type": "BPE", "vocab": ids, "merges": []}),
        json!({"type": "Unigram", "unk_id": 0, "vocab": scores}),
    ] {
        let file = json!({"version": "1.0", "added_tokens": [], "model": model}).to_string();
        let tokenizer = Tokenizer::from_json(file.as_bytes()).unwrap();
        assert_eq!(left_behind(&tokenizer), 0, "{model}");
        let remembering = tokenizer.remembering_words();
        assert!(left_behind(&remembering) > 390 * 16, "{model}");
    }
}
