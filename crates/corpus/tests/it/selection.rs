//! Scores and balance: what is taken of what is good enough, and how the corpus says so.

use std::collections::BTreeSet;
use std::fs;

use corpus::{BalanceSettings, Choose, MissingLanguage, Reason, ScoreSettings, Settings};
use documents::{Document, read_shard};
use languages::Language;

use crate::behaviour::{document, german};
use crate::{Built, build, put};

/// A document about other things than the others: what the owner calls good.
fn learned(number: usize) -> Document {
    let words =
        [("Suppe", "Messung"), ("Küche", "Forschung"), ("Zeitung", "Untersuchung"), ("Kinder", "Ergebnisse")];
    let plain = document(number);
    let text = words.iter().fold(plain.text, |text, (from, to)| text.replace(from, to));
    Document { text, ..plain }
}

/// The lines of the training shard, copies included.
fn train_lines(built: &Built) -> Vec<Document> {
    let shard = read_shard(&built.payload().join("train/de.jsonl.zst")).unwrap();
    shard.map(|document| document.unwrap()).collect()
}

#[test]
fn documents_that_read_like_the_good_texts_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let documents: Vec<Document> = (0..60).map(|n| if n < 30 { learned(n) } else { document(n) }).collect();
    let input = [put(folder.path(), "documents.jsonl", &documents)];
    let good = put(folder.path(), "good.jsonl", &(100..160).map(learned).collect::<Vec<_>>());
    let score = ScoreSettings { keep_share: 0.5, ..ScoreSettings::default() };
    let settings = Settings { good_texts: vec![good], score, ..german() };
    let built = build(&settings, &input, 2).unwrap();
    let kept = built.kept();
    assert_eq!(kept.len(), 30);
    let learned_kept = kept.keys().filter(|id| id.as_str() < "de-030").count();
    assert!(learned_kept >= 27, "{learned_kept} of 30");
    let statistics = &built.report.scores["de"];
    assert_eq!((statistics.good_pieces, statistics.sample_documents), (60, 60));
    assert_eq!(statistics.histogram.iter().sum::<u64>(), 60);
    assert!(statistics.good_above_ordinary > 0.6, "{}", statistics.good_above_ordinary);
    let scores: Vec<f64> =
        kept.values().map(|document| document.metadata["score"].as_f64().unwrap()).collect();
    assert!(scores.iter().all(|score| *score >= statistics.cut && *score <= 1.0));
    let dropped = built.dropped("quality");
    assert_eq!(dropped.len(), 30);
    for line in dropped {
        assert_eq!(line["reason"], "low_score");
        assert!(line["value"].as_f64().unwrap() < line["limit"].as_f64().unwrap());
    }
    assert_eq!(built.files(), build(&settings, &input, 1).unwrap().files(), "threads change no byte");

    let missing = Settings { languages: vec![language("de"), language("mt")], ..settings.clone() };
    let message = build(&missing, &input, 1).err().unwrap().to_string();
    assert!(message.contains("`mt` (0)") && message.contains("score.missing_language"), "{message}");
    let score = ScoreSettings { missing_language: MissingLanguage::Unscored, ..ScoreSettings::default() };
    let small_language = corpus::SmallLanguage::TrainOnly;
    let built = build(&Settings { score, small_language, ..missing }, &input, 1).unwrap();
    assert_eq!(built.report.scores.keys().collect::<Vec<_>>(), ["de"]);
}

#[test]
fn budgets_hold_and_small_sources_are_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let source = |n: usize| if n.is_multiple_of(3) { "letters" } else { "news" };
    let mut documents: Vec<Document> =
        (0..36).map(|n| Document { source: Some(source(n).into()), ..document(n) }).collect();
    let input = [put(folder.path(), "documents.jsonl", &documents)];
    let balance: BalanceSettings = toml::from_str(
        "[[budgets]]\nsource = 'news'\namount = 5000\n[[budgets]]\nlanguage = 'de'\nsource = 'letters'\namount = 1000000\nrepeats = 3\n",
    )
    .unwrap();
    let settings = Settings { balance, ..german() };
    let built = build(&settings, &input, 2).unwrap();
    let statistics = &built.report.balance["de"];
    let (news_before, news_after) = statistics.sources["news"];
    let (letters_before, letters_after) = statistics.sources["letters"];
    assert!(news_before > 5000 && news_after <= 5000 && news_after > 4000, "{news_after}");
    assert_eq!(letters_after, 3 * letters_before);
    let lines = train_lines(&built);
    assert_eq!(lines.len() as u64, statistics.after.documents);
    assert_eq!(lines.iter().map(|line| line.text.len() as u64).sum::<u64>(), statistics.after.bytes);
    let copies =
        lines.iter().filter(|line| line.metadata.get("copy").is_some_and(|copy| copy == 3)).count() as u64;
    assert_eq!(copies, statistics.repeated);
    assert_eq!(built.dropped("budget").len() as u64, statistics.over_budget);
    assert_eq!(built.report.languages["de"].dropped[&Reason::OverBudget], statistics.over_budget);
    assert_eq!(built.report.total.read, 36);
    let held_out: BTreeSet<String> = built.part("heldout").into_keys().collect();
    assert!(
        lines.iter().all(|line| !held_out.contains(&line.id)),
        "held-out text is not repeated into training"
    );

    let ids =
        |built: &Built| train_lines(built).into_iter().map(|line| line.id).collect::<BTreeSet<String>>();
    documents.reverse();
    let turned = [put(folder.path(), "documents.jsonl", &documents)];
    assert_eq!(
        ids(&build(&settings, &turned, 1).unwrap()),
        ids(&built),
        "the order of the input plays no part"
    );
}

#[test]
fn settings_that_cannot_work_stop_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let input = [put(folder.path(), "documents.jsonl", &(0..9).map(document).collect::<Vec<_>>())];
    let by_score = BalanceSettings { choose: Choose::Score, ..BalanceSettings::default() };
    let message = build(&Settings { balance: by_score, ..german() }, &input, 1).err().unwrap().to_string();
    assert!(message.contains("good_texts"), "{message}");
    let tiny: BalanceSettings = toml::from_str("budgets = [{ language = 'de', amount = 7 }]").unwrap();
    let message = build(&Settings { balance: tiny, ..german() }, &input, 1).err().unwrap().to_string();
    assert!(message.contains("`de`") && message.contains("amount"), "{message}");
    let bad = folder.path().join("good.jsonl");
    fs::write(&bad, "{\"id\": \"x\"}\n").unwrap();
    let message =
        build(&Settings { good_texts: vec![bad], ..german() }, &input, 1).err().unwrap().to_string();
    assert!(message.contains("good.jsonl"), "{message}");
}

#[test]
fn keys_that_the_owner_asks_for_are_kept_without_personal_data() {
    let folder = tempfile::tempdir().unwrap();
    let mut documents: Vec<Document> = (0..9).map(document).collect();
    for document in &mut documents {
        let nested = serde_json::json!({"by": ["Anna", "anna@post.example"], "pages": 7});
        document.metadata.insert("title".into(), "Am Fluss".into());
        document.metadata.insert("origin".into(), nested);
        document.metadata.insert("private".into(), "anna@post.example".into());
    }
    let input = [put(folder.path(), "documents.jsonl", &documents)];
    let none = build(&german(), &input, 1).unwrap();
    assert!(none.kept().values().all(|document| document.metadata.is_empty()));
    let keep_metadata = ["title", "origin", "absent"].map(String::from).to_vec();
    let built = build(&Settings { keep_metadata, ..german() }, &input, 1).unwrap();
    let expected =
        serde_json::json!({"title": "Am Fluss", "origin": {"by": ["Anna", "<EMAIL>"], "pages": 7}});
    for document in built.kept().values() {
        assert_eq!(serde_json::to_value(&document.metadata).unwrap(), expected);
    }
    assert_eq!(built.report.total.placeholders.values().sum::<u64>(), 9);
}

fn language(code: &str) -> Language {
    Language::from_code(code).unwrap()
}
