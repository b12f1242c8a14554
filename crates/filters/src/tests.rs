//! What all filters promise together: the same for every way of cutting a text, and what each finds.

use std::path::PathBuf;

use crate::*;

/// Numbers that look random and are the same each time (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end
    }
}

/// What texts are put together from: prose of several scripts, personal data, what almost is, and what breaks scanners.
const PIECES: [&str; 86] = [
    "Das Wetter ist schön. ",
    "Ħobża tajba ",
    "το Α.Φ.Μ. της είναι ",
    "тел. ",
    "Tel.: ",
    "Please call ",
    "order no. ",
    "nummer ",
    "mobil ",
    "PESEL ",
    "ID card ",
    "číslo účtu ",
    "IP address ",
    "version ",
    "CPR-nummer er ",
    "anna.kovács",
    "@",
    "post.example",
    "ministerstvo.example.eu",
    "anna@post.example",
    "a.b+c@x.example.com",
    " (at) ",
    "[at]",
    "(at)",
    " [dot] ",
    "dot)",
    "example",
    "030 1234567",
    "+49 30 12345678",
    "+",
    "(0",
    "0030 210 1234567",
    "06 12 34 56 78",
    "(212) 555-0123",
    "212-555-0123",
    "DE89 3704 0044 0532 0130 00",
    "DE89370400440532013000",
    "NL91 ABNA 0417 1643 00",
    "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "44051401458",
    "131052-308T",
    "RSS MRA 85T10 A562S",
    "RSSMRA85T10A562S",
    "rssmra85t10a562s",
    "12345678Z",
    "X-1234567-L",
    "123M",
    "1234 G",
    "1 85 05 2A 123 456 78",
    "192.0.2.17",
    "93.184.216.34",
    "1.2.3.4",
    "2001:db8::1",
    "2a00:1450:4001:81b::200e",
    "::1",
    "12:30",
    "2026",
    "35 %",
    "1939-1945",
    "01.02.2026",
    "1,234,567",
    "3.14",
    "H1N1",
    "GPT4",
    "1990s",
    "https://example.eu/page?id=",
    "www.example.eu/",
    "\n",
    "\n\n",
    "\t",
    " ",
    "  ",
    ", ",
    ". ",
    ": ",
    "-",
    "/",
    "\u{A0}",
    "\u{200B}",
    "\u{AD}",
    "０３０１２３４５６７",
    "漢字",
    "👩\u{200D}🔬",
    "<EMAIL>",
];

fn text(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..random.below(40) {
        text.push_str(PIECES[random.below(PIECES.len())]);
        if random.below(3) == 0 {
            text.push(' ');
        }
    }
    text
}

/// Sends a text through a stream in pieces of `most` characters at most; what goes out, and the refusal if there was one.
fn in_pieces(chain: &Chain, text: &str, most: usize, random: &mut Random) -> (String, Option<Refusal>) {
    let mut stream = chain.stream();
    let mut passed = String::new();
    let mut characters = text.chars();
    loop {
        let length = 1 + random.below(most);
        let piece: String = characters.by_ref().take(length).collect();
        let step = if piece.is_empty() { stream.finish() } else { stream.push(&piece) };
        match step {
            Ok(released) => passed.push_str(&released),
            Err(stopped) => {
                passed.push_str(&stopped.released);
                return (passed, Some(stopped.refusal));
            }
        }
        if piece.is_empty() {
            return (passed, None);
        }
    }
}

fn chain(toml: &str) -> Chain {
    Chain::compile(&settings(toml)).unwrap()
}

fn settings(toml: &str) -> Settings {
    toml::from_str(toml).unwrap()
}

const PERSONAL: &str = "[[output]]\nname = 'p'\nkind = 'personal_data'\naction = 'replace'\n";

fn check(chain: &Chain, text: &str, expected: Result<&str, &str>) {
    match (chain.output(text), expected) {
        (Verdict::Pass(found), Ok(expected)) => assert_eq!(found, expected, "{text:?}"),
        (Verdict::Refused(refusal), Err(code)) => assert_eq!(refusal.code, code, "{text:?}"),
        (verdict, expected) => panic!("{text:?}: {verdict:?}, expected {expected:?}"),
    }
}

#[test]
fn a_stream_redacts_what_the_corpus_redacts() {
    let mut random = Random(7);
    let chain = chain(PERSONAL);
    let mut found = 0;
    for _ in 0..2_500 {
        let text = text(&mut random);
        let redaction = personal_data::redact(&text, None);
        found += redaction.counts.len();
        let (passed, _) = in_pieces(&chain, &text, 9, &mut random);
        assert_eq!(passed, redaction.text, "{text:?}");
    }
    assert!(found > 2_500, "the texts hold personal data: {found}");
}

#[test]
fn however_a_text_is_cut_the_answer_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let passages = passages_file(folder.path(), &PIECES[..40].concat());
    let mut random = Random(11);
    let pattern = |action: &str| {
        format!(
            "[[output]]\nname = 'b'\nkind = 'patterns'\naction = '{action}'\n\
             block = ['(?i)\\bta?jba\\b', '\\d+-\\d+$', '[a-z]+@[a-z.]+', '(?m)^Tel']\nallow = ['.*@post\\.example']\n"
        )
    };
    let passages = |action: &str| {
        format!(
            "[[output]]\nname = 'h'\nkind = 'passages'\naction = '{action}'\nfile = '{}'\n",
            passages.display()
        )
    };
    let scripts = |action: &str| {
        format!(
            "[[output]]\nname = 's'\nkind = 'scripts'\naction = '{action}'\nallowed = ['Latin', 'Greek', 'Cyrillic']\n\
             [[output]]\nname = 'i'\nkind = 'invisible'\naction = '{action}'\n"
        )
    };
    let refuse = PERSONAL.replace("replace", "refuse");
    let length = "[[output]]\nname = 'l'\nkind = 'length'\naction = 'replace'\nmaximum_characters = 150\n";
    let chains = [
        refuse.clone(),
        pattern("replace"),
        pattern("refuse"),
        passages("replace"),
        passages("refuse"),
        passages("flag"),
        scripts("replace"),
        scripts("refuse"),
        length.to_string(),
        [&scripts("replace"), PERSONAL, &pattern("replace"), &passages("replace"), length].concat(),
        [&passages("refuse"), &pattern("refuse"), refuse.as_str()].concat(),
        [length, &refuse, &scripts("flag"), &pattern("refuse")].concat(),
    ];
    for toml in chains {
        let chain = chain(&toml);
        for _ in 0..150 {
            let text = text(&mut random);
            let whole = in_pieces(&chain, &text, usize::MAX >> 1, &mut Random(1));
            for most in [1, 4, 30] {
                let pieces = in_pieces(&chain, &text, most, &mut random);
                assert_eq!(pieces, whole, "{text:?}\n{toml}");
            }
            match chain.output(&text) {
                Verdict::Pass(passed) => assert_eq!((passed.into_owned(), None), whole),
                Verdict::Refused(refusal) => assert_eq!(Some(refusal), whole.1),
            }
        }
    }
}

#[test]
fn text_without_end_takes_no_memory_and_little_time() {
    let chain = chain(&format!(
        "{PERSONAL}[[output]]\nname = 'b'\nkind = 'patterns'\naction = 'replace'\nblock = ['a+b', 'geheim']\n"
    ));
    // Held back is at most a row with its context, and the longest match.
    let most = 1_600;
    for piece in ["1", "a", "a1", "1 ", "A1 ", "(at) ", "a.", "@", "1.", ":", "+", "\u{200B}1", "Ω"] {
        let mut stream = chain.stream();
        let (mut sent, mut received) = (0, 0);
        for _ in 0..4_000 {
            sent += piece.len();
            received += stream.push(piece).unwrap().len();
            assert!(received + most >= sent || received > sent / 4, "{piece:?}: {received} of {sent}");
        }
        let tail = stream.finish().unwrap();
        assert!(tail.len() <= 4 * most, "{piece:?}: {} bytes were held back", tail.len());
    }
}

#[test]
fn prose_is_not_held_back() {
    let chain = chain(PERSONAL);
    let mut stream = chain.stream();
    let (mut sent, mut received) = (String::new(), String::new());
    for word in "Im Jahr 2026 lebten 35 % der 1200 Menschen, so die Behörde (2. Auflage), am See: gut."
        .split_inclusive(' ')
    {
        sent.push_str(word);
        received.push_str(&stream.push(word).unwrap());
        assert!(sent.len() - received.len() <= word.len() + 10, "{sent:?}, {received:?}");
    }
}

#[test]
fn kinds_and_actions() {
    let only = chain(
        "[[output]]\nname = 'p'\nkind = 'personal_data'\naction = 'replace'\nkinds = ['iban']\nlanguage = 'de'\n",
    );
    check(&only, "anna@post.example, DE89 3704 0044 0532 0130 00.", Ok("anna@post.example, <IBAN>."));
    let refuse = chain(&PERSONAL.replace("replace", "refuse"));
    check(&refuse, "nobody here", Ok("nobody here"));
    check(&refuse, "to anna@post.example", Err("personal_data"));
    let flag = chain(&PERSONAL.replace("replace", "flag"));
    check(&flag, "to anna@post.example", Ok("to anna@post.example"));
    let counts = |chain: &Chain| {
        let count = chain.counts().remove(0);
        (count.texts, count.found, count.refused)
    };
    assert_eq!(counts(&flag), (1, 1, 0));
    assert_eq!(counts(&refuse), (2, 1, 1));
}

#[test]
fn what_nobody_sees_is_found() {
    let refuse = chain("[[output]]\nname = 'i'\nkind = 'invisible'\naction = 'refuse'\n");
    for hidden in [
        "a\u{202E}b",
        "a\u{2066}b",
        "a\u{E0041}",
        "a\u{200B}b",
        "\u{FEFF}",
        "a\u{0}",
        "\u{9B}31m",
        "\u{E0101}",
        "\u{3164}",
        "\u{2028}",
    ] {
        check(&refuse, hidden, Err("invisible_characters"));
    }
    for seen in ["Ωραία\tγλώσσα\r\n", "👩\u{200D}🔬 ❤\u{FE0F}", "Ħ ż ő ș ñ", "e\u{301}"]
    {
        check(&refuse, seen, Ok(seen));
    }
    let replace = chain(
        "[[output]]\nname = 'i'\nkind = 'invisible'\naction = 'replace'\nwhat = ['zero_width', 'tags']\n",
    );
    check(&replace, "Do\u{AD}nau\u{200B}\u{E0068}\u{E0069}\u{202E}", Ok("Donau\u{202E}"));
}

#[test]
fn scripts_are_named() {
    let latin = "[[output]]\nname = 's'\nkind = 'scripts'\naction = 'replace'\nallowed = ['Latin']\nreplacement = '?'\n";
    // The second `a` is Cyrillic.
    check(&chain(latin), "pаypal, 12 € 漢字 👍 é e\u{301}", Ok("p?ypal, 12 € ? 👍 é e\u{301}"));
    check(&chain(&latin.replace("replace'", "refuse'")), "Жълт", Err("script_not_allowed"));
    for wrong in ["['Latn1']", "[]", "['L}']", "['']"] {
        let error = Chain::compile(&settings(&latin.replace("['Latin']", wrong))).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("`allowed`"), "{error}");
    }
}

#[test]
fn what_is_allowed_is_not_blocked() {
    let chain = chain(
        "[[output]]\nname = 'b'\nkind = 'patterns'\naction = 'replace'\nreplacement = '###'\n\
         block = ['(?i)aktenzeichen [0-9]+', '[\\w.]+@[\\w.]+']\nallow = ['\\S+@ministry\\.example']\n",
    );
    check(
        &chain,
        "Aktenzeichen 4711: post@ministry.example, x@y.example",
        Ok("###: post@ministry.example, ###"),
    );
}

#[test]
fn longer_texts_are_cut_or_refused() {
    let cut = "[[output]]\nname = 'l'\nkind = 'length'\naction = 'replace'\nmaximum_characters = 5\n";
    check(&chain(cut), "Ελλάδα", Ok("Ελλάδ"));
    check(&chain(cut), "Ελλάς", Ok("Ελλάς"));
    check(&chain(&cut.replace("replace", "refuse")), "Ελλάδα", Err("text_too_long"));
    check(&chain(&cut.replace("replace", "flag")), "Ελλάδα", Ok("Ελλάδα"));
}

fn passages_file(folder: &std::path::Path, text: &str) -> PathBuf {
    let mut set = PassageSet::new([7; 16]);
    assert!(set.add(text) > 0);
    let path = folder.join("passages");
    std::fs::write(&path, set.to_bytes()).unwrap();
    assert_eq!(PassageSet::read(&path).unwrap(), set);
    path
}

#[test]
fn passages_of_opted_out_texts_are_found() {
    const POEM: &str = "Siehst du den Mond am Abend stehn, er ist nur halb zu sehn und ist doch rund und schön; \
                        so sind wohl manche Sachen.";
    let folder = tempfile::tempdir().unwrap();
    let path = passages_file(folder.path(), POEM);
    let toml = format!(
        "[[output]]\nname = 'h'\nkind = 'passages'\naction = 'replace'\nfile = '{}'\n",
        path.display()
    );
    let replace = chain(&toml);
    check(&replace, &format!("Das Lied: {POEM} Ende."), Ok("Das Lied: <OPTED_OUT>. Ende."));
    check(&replace, "SIEHST DU DEN MOND\nam Abend – stehn, er ist nur halb zu!", Ok("<OPTED_OUT>!"));
    // Eleven words are no passage.
    let eleven = "Siehst du den Mond am Abend stehn, er ist nur halb";
    check(&replace, eleven, Ok(eleven));
    check(&chain(&toml.replace("replace", "refuse")), POEM, Err("opted_out_passage"));
    std::fs::write(&path, "text").unwrap();
    assert!(matches!(Chain::compile(&settings(&toml)), Err(FilterError::Passages { .. })));
}

#[test]
fn chains_differ_by_name() {
    let settings = settings(
        "[[input]]\nname = 'a'\nkind = 'length'\naction = 'refuse'\nmaximum_characters = 3\n\
         [[input]]\nname = 'b'\nkind = 'invisible'\naction = 'refuse'\n\
         [[chains.court.input]]\nname = 'a'\nkind = 'length'\naction = 'refuse'\nmaximum_characters = 9\n\
         [chains.archive]\nwithout = ['b']\n",
    );
    let chains = Chains::compile(&settings).unwrap();
    let passes = |name: &str, text: &str| {
        let chain = chains.of(Some(name).filter(|name| !name.is_empty())).unwrap();
        matches!(chain.input(text), Verdict::Pass(_))
    };
    assert!(chains.of(Some("nobody")).is_none());
    assert!(!passes("", "12345") && passes("court", "12345") && !passes("archive", "12345"));
    assert!(!passes("", "\u{202E}") && !passes("court", "\u{202E}") && passes("archive", "\u{202E}"));
    let names: Vec<String> = chains.counts().into_iter().map(|count| count.filter).collect();
    assert_eq!(names, ["a", "b", "court/a"]);
    let mut unknown = settings.clone();
    unknown.chains.get_mut("archive").unwrap().without.push("c".to_string());
    assert!(matches!(Chains::compile(&unknown), Err(FilterError::NoSuchFilter { .. })));
    let mut twice = settings.clone();
    twice.input.push(twice.input[0].clone());
    assert!(matches!(Chains::compile(&twice), Err(FilterError::NameTwice { .. })));
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    for wrong in [
        "kind = 'length'\naction = 'refuse'\nmaximum_characters = 3\nmaximum = 4",
        "kind = 'lenght'\naction = 'refuse'",
        "kind = 'length'\naction = 'refuse'",
        "kind = 'invisible'\naction = 'ignore'",
    ] {
        assert!(toml::from_str::<Settings>(&format!("[[input]]\nname = 'a'\n{wrong}")).is_err(), "{wrong}");
    }
    for wrong in [
        "kind = 'length'\naction = 'refuse'\nmaximum_characters = 0",
        "kind = 'invisible'\naction = 'refuse'\nwhat = []",
        "kind = 'personal_data'\naction = 'refuse'\nkinds = []",
        "kind = 'personal_data'\naction = 'refuse'\nlanguage = 'xx'",
        "kind = 'patterns'\naction = 'refuse'\nblock = []",
        "kind = 'patterns'\naction = 'refuse'\nblock = ['x*']",
        "kind = 'passages'\naction = 'refuse'\nfile = 'nowhere'",
    ] {
        assert!(Chain::compile(&settings(&format!("[[input]]\nname = 'a'\n{wrong}"))).is_err(), "{wrong}");
    }
}
