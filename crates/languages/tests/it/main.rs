//! The identifier over text that nothing was trained on: the project's own parallel sentences, and a few lines in
//! languages beyond the 24.

use std::path::Path;

use languages::{Language, identify, identify_document, identify_paragraphs};

fn sentences(language: Language) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/tiny/parallel");
    let path = folder.join(format!("{language}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn each_of_the_24_is_recognised_by_the_sentence() {
    let (mut right, mut all) = (0, 0);
    for language in Language::all() {
        let sentences = sentences(language);
        let found = sentences.iter().filter(|sentence| identify(sentence).language == Some(language)).count();
        // Croatian and Bosnian share most of their sentences.
        let least_percent = if language.code() == "hr" { 80 } else { 90 };
        assert!(100 * found >= least_percent * sentences.len(), "{language}: {found} of {}", sentences.len());
        right += found;
        all += sentences.len();
    }
    assert!(1000 * right >= 985 * all, "{right} of {all}");
}

#[test]
fn five_sentences_leave_no_doubt() {
    for language in Language::all() {
        for five in sentences(language).chunks_exact(5) {
            let found = identify(&five.join(" "));
            assert_eq!(found.language, Some(language), "{five:?} {:?}", found.ranking);
        }
    }
}

#[test]
fn neighbours_are_kept_apart() {
    let check = |code: &str, text: &str| {
        let found = identify(text);
        assert_eq!((found.code, found.language), (code, None), "{text} {:?}", found.ranking);
    };
    check(
        "nb",
        "Boken ligger på bordet, og katten sover under stolen mens barna leker ute i hagen sammen med bestemoren sin.",
    );
    check(
        "nn",
        "Boka ligg på bordet, og katten søv under stolen medan borna leikar ute i hagen saman med bestemora si.",
    );
    check("sr", "Књига је на столу, а мачка спава испод столице док се деца играју у башти са својом баком.");
    check(
        "mk",
        "Книгата е на масата, а мачката спие под столот додека децата си играат во градината со својата баба.",
    );
    check("ru", "Книга лежит на столе, а кошка спит под стулом, пока дети играют в саду со своей бабушкой.");
    check(
        "uk",
        "Книжка лежить на столі, а кішка спить під стільцем, поки діти граються в саду зі своєю бабусею.",
    );
    check(
        "tr",
        "Kitap masanın üzerinde duruyor, kedi sandalyenin altında uyuyor ve çocuklar bahçede oynuyor.",
    );
    check(
        "ca",
        "El llibre és sobre la taula i el gat dorm sota la cadira mentre els nens juguen al jardí amb la seva àvia.",
    );
    check(
        "gl",
        "O libro está na mesa e o gato dorme debaixo da cadeira mentres os nenos xogan no xardín coa súa avoa.",
    );
    check(
        "eu",
        "Liburua mahai gainean dago eta katua aulkiaren azpian lo dago, umeak lorategian jolasten ari diren bitartean.",
    );
    check(
        "is",
        "Bókin liggur á borðinu og kötturinn sefur undir stólnum á meðan börnin leika sér í garðinum með ömmu sinni.",
    );
    check(
        "sq",
        "Libri është mbi tavolinë dhe macja fle nën karrige ndërsa fëmijët luajnë në kopsht me gjyshen e tyre.",
    );
    check("ka", "წიგნი მაგიდაზეა და კატას სკამის ქვეშ სძინავს, ბავშვები კი ბაღში თამაშობენ.");
}

#[test]
fn what_no_label_explains_is_other() {
    let check = |text: &str| {
        let found = identify(text);
        assert_eq!((found.code, found.language), ("other", None), "{text} {:?}", found.ranking);
        assert!(found.score > 0.5, "{text} {:?}", found.ranking);
    };
    check("书在桌子上，猫在椅子下面睡觉，孩子们在花园里玩耍。");
    check("الكتاب على الطاولة والقطة تنام تحت الكرسي بينما يلعب الأطفال في الحديقة.");
    check("किताब मेज पर है और बिल्ली कुर्सी के नीचे सो रही है।");
    check("Cuốn sách nằm trên bàn và con mèo đang ngủ dưới ghế trong khi bọn trẻ chơi trong vườn.");
    check("Кітап үстел үстінде жатыр, мысық орындықтың астында ұйықтап жатыр, ал балалар бақта ойнап жүр.");
    check("xkq vbrz plmt wqzx jjkl qwrtp zxcv bnmk lkjh gfds");
    check("");
    check(" 12.5 % – 1999 \u{0}\u{FFFD} €");
}

#[test]
fn odd_input_is_answered_too() {
    for text in [
        "a",
        "é",
        "ß",
        "\u{301}",
        "ﬁ",
        "İ",
        &"ħ".repeat(100_000),
        &"the ".repeat(100_000),
        &"x".repeat(1_000_000),
    ] {
        let found = identify(text);
        assert!((0.0..=1.0).contains(&found.score), "{found:?}");
        let sum: f32 = found.ranking.iter().map(|candidate| candidate.score).sum();
        assert!((0.9..1.001).contains(&sum), "{found:?}");
    }
}

#[test]
fn the_languages_of_a_mixed_document_show() {
    let of = |code: &str| sentences(Language::from_code(code).unwrap())[..6].join(" ");
    let text = format!("{}\n\n1.\n{}\n{}\n", of("mt"), of("el"), of("mt"));
    let shares = identify_paragraphs(&text);
    assert_eq!(shares.iter().map(|share| share.code).collect::<Vec<_>>(), ["mt", "el"], "{shares:?}");
    assert!((0.55..0.8).contains(&shares[0].share), "{shares:?}");
    assert!((shares.iter().map(|share| share.share).sum::<f32>() - 1.0).abs() < 1e-5);
    assert_eq!(identify_paragraphs(" \n\n"), []);

    // Read by paragraphs, a document is what it is as a whole.
    for text in [text.as_str(), &of("hr"), "1.\r\n2.", "", "ħa\u{2029}ħa\r\nthe l’homme"] {
        let (document, shares) = identify_document(text);
        assert_eq!(document, identify(text), "{text}");
        assert_eq!(shares, identify_paragraphs(text), "{text}");
    }
}

#[test]
fn a_mixed_document_has_the_language_of_its_largest_part() {
    let of = |code: &str| sentences(Language::from_code(code).unwrap())[..6].to_vec();
    // As a whole it is in no language; by paragraphs Greek and Maltese are clear.
    let (greek, maltese) = (of("el"), of("mt"));
    let mut lines: Vec<&str> = maltese.iter().chain(&greek).map(String::as_str).collect();
    let check = |lines: &[&str], expected: &[&str]| {
        let (document, shares) = identify_document(&lines.join("\n"));
        let found: Vec<&str> = shares.iter().map(|share| share.code).collect();
        assert_eq!((document.code, &found[..]), (expected[0], expected), "{document:?} {shares:?}");
        let sum: f32 = document.ranking.iter().map(|candidate| candidate.score).sum();
        assert!((0.9..1.001).contains(&sum), "{document:?}");
    };
    assert_eq!(identify(&lines.join("\n")).code, "other");
    let characters = |lines: &[String]| lines.iter().map(|line| line.chars().count()).sum::<usize>();
    let expected = if characters(&greek) > characters(&maltese) { ["el", "mt"] } else { ["mt", "el"] };
    check(&lines, &expected);
    lines.reverse();
    check(&lines, &expected);
    // A language that the identifier does not know is not that of the few words it shares with one it knows.
    let hindi = "किताब मेज पर है और बिल्ली कुर्सी के नीचे सो रही है।";
    check(&[hindi, hindi, hindi, hindi, "The book lies on the table."], &["other", "en"]);
    // A paragraph undecided between neighbours is not in a third language because the rest is.
    let croatian = "Karte se mogu kupiti u luci.";
    let probable = identify(croatian).score;
    assert!(probable < 0.9, "the example has become certain: {probable}");
    let polish = of("pl").join("\n");
    let (document, shares) = identify_document(&format!("{polish}\n{croatian}"));
    assert!(document.code == "pl" && shares.len() == 2, "{document:?} {shares:?}");
}
