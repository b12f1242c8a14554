use super::*;

fn pair() -> (Identity, Recipient) {
    let identity = Identity::make().unwrap();
    let recipient = identity.recipient();
    (identity, recipient)
}

#[test]
fn what_is_sealed_is_opened_by_its_recipients_alone() {
    let ((one, for_one), (two, for_two), (other, _)) = (pair(), pair(), pair());
    for length in [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000] {
        let text: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
        let file = encrypt(&[for_one, for_two], &text).unwrap();
        let open = |identity: &Identity| {
            let identity = Identity::parse(&identity.secret_text().unwrap()).unwrap();
            decrypt(&[identity], &file).unwrap()
        };
        assert_eq!(open(&one).as_deref(), Some(text.as_slice()), "{length}");
        assert_eq!(open(&two).as_deref(), Some(text.as_slice()), "{length}");
        assert_eq!(open(&other), None, "{length}");
    }
    assert!(encrypt(&[], b"a").is_err(), "nobody could open it");
}

#[test]
fn every_altered_byte_and_every_cut_is_noticed() {
    let (identity, recipient) = pair();
    let identities = [identity];
    let text = "geheim".repeat(20);
    let file = encrypt(&[recipient], text.as_bytes()).unwrap();
    for at in 0..file.len() {
        let mut altered = file.clone();
        altered[at] ^= 1 << (at % 8);
        let found = decrypt(&identities, &altered);
        assert!(!matches!(found, Ok(Some(_))), "byte {at}");
        assert!(decrypt(&identities, &file[..at]).is_err(), "cut after {at}");
    }
    let longer = [file.as_slice(), b"x"].concat();
    assert!(decrypt(&identities, &longer).is_err());
    // A whole last chunk taken away, so that the one before it ends the file.
    let long = encrypt(&[recipient], &vec![7; 3 << 16]).unwrap();
    assert!(decrypt(&identities, &long[..long.len() - (1 << 16) - 16]).is_err());
}

#[test]
fn headers_from_strangers_are_read_with_distrust() {
    let (identity, recipient) = pair();
    let identities = [identity];
    let file = encrypt(&[recipient], b"text").unwrap();
    let text = String::from_utf8_lossy(&file[..200]).to_string();
    let (head, _) = text.split_once("---").unwrap();
    for (wrong, what) in [
        (String::new(), "empty"),
        ("age-encryption.org/v2\n--- AA\n".to_string(), "another version"),
        ("age-encryption.org/v1\n".to_string(), "no end"),
        (format!("{head}-> X25519\n\n--- AA\n"), "no share"),
        (format!("{head}-> X25519 {}\n\n--- AA\n", "A".repeat(43)), "no body"),
        (format!("{head}\n--- AA\n"), "an empty line"),
        (format!("{head}-> a  b\n\n--- AA\n"), "an empty word"),
        (format!("{head}---\n"), "no code"),
        (format!("{head}--- %%\n"), "no Base64"),
        ("age-encryption.org/v1\n".to_string() + &"-> a\n\n".repeat(20_000), "a header without end"),
        (format!("age-encryption.org/v1\n-> a\n{}\n--- AA\n", "A".repeat(100)), "a long line"),
    ] {
        assert!(decrypt(&identities, wrong.as_bytes()).is_err(), "{what}");
    }
    // A share of low order gives everybody the same secret.
    let share = "A".repeat(43);
    let body = "A".repeat(43);
    let low = format!("age-encryption.org/v1\n-> X25519 {share}\n{body}\n--- {body}\n");
    assert!(decrypt(&identities, low.as_bytes()).is_err());
}

#[test]
fn keys_are_read_and_the_unusable_refused_with_the_reason() {
    let (identity, recipient) = pair();
    let text = recipient.to_string();
    assert!(text.starts_with("age1") && text.len() == 62, "{text}");
    assert_eq!(Recipient::parse(&text).unwrap(), recipient);
    let secret = identity.secret_text().unwrap();
    assert!(secret.starts_with("AGE-SECRET-KEY-1") && secret.len() == 74);
    assert_eq!(Identity::parse(&secret).unwrap().recipient(), recipient);
    let check = |text: &str, reason: &str| {
        let problem = Recipient::parse(text).unwrap_err();
        assert!(problem.contains(reason) && !problem.contains(&secret), "{text}: {problem}");
    };
    check(&secret, "secret key");
    check("", "expected");
    check("ssh-ed25519 AAAA", "expected");
    check(&text.to_uppercase(), "expected");
    check(&text[..61], "letter");
    // One letter alone: of the word before the key none may change.
    let (mut slip, other) = (text.clone(), if &text[20..21] == "q" { "p" } else { "q" });
    slip.replace_range(20..21, other);
    check(&slip, "letter");
    let encoded = |word: &str, bytes: &[u8]| {
        bech32::encode::<bech32::Bech32>(bech32::Hrp::parse_unchecked(word), bytes).unwrap()
    };
    check(&encoded("age1pq", &[1; 32]), "another kind");
    check(&encoded("age", &[1; 31]), "32 bytes");
    check(&encoded("age", &[1; 33]), "32 bytes");
    check(&encoded("age", &[0; 32]), "low order");
    for wrong in ["", &text, &secret.to_lowercase(), &secret[..73]] {
        let problem = Identity::parse(wrong).unwrap_err();
        assert!(wrong.is_empty() || !problem.contains(wrong), "{problem}");
    }
    assert!(!format!("{identity:?}").contains(&secret[20..30]));
}

/// Files that the library of `rage` wrote (`tools/oracles/check_age.py`).
#[test]
fn files_of_another_program_are_opened() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let identities = Identity::read_file(&golden.join("age-identity.txt")).unwrap();
    let short = decrypt(&identities, &std::fs::read(golden.join("age-short.age")).unwrap()).unwrap().unwrap();
    assert_eq!(String::from_utf8(short).unwrap(), "Żółw, čaj, Ὀδυσσεύς, чай, oíche mhaith");
    let long = decrypt(&identities, &std::fs::read(golden.join("age-long.age")).unwrap()).unwrap().unwrap();
    let expected: Vec<u8> = (0..70_000).map(|number: u32| (number * 7 % 256) as u8).collect();
    assert!(long == expected, "two chunks");
}
