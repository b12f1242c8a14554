//! Evaluation sets are kept out, and the corpus says how that was proved.

use std::fs;

use corpus::{Action, DecontaminationSettings, Reason, Repair, Settings};
use documents::Document;

use crate::behaviour::{document, german};
use crate::{build, put};

#[test]
fn documents_with_evaluation_items_are_dropped_or_lose_them() {
    let folder = tempfile::tempdir().unwrap();
    let item = "Welcher Fluss fließt durch die Stadt, in der die Werft mit dem blauen Kran steht, und wohin?";
    let mut documents: Vec<Document> = (0..12).map(document).collect();
    documents[4].text = format!("{}\n\n{item}\n\n{}", document(4).text, document(40).text);
    let input = [put(folder.path(), "documents.jsonl", &documents)];
    let sets = folder.path().join("sets");
    fs::create_dir(&sets).unwrap();
    fs::write(sets.join("questions.jsonl"), format!("{{\"question\":{item:?},\"answer\":\"A\"}}\n")).unwrap();
    fs::write(sets.join("README.md"), "what this is").unwrap();
    let settings = Settings { decontaminate: vec![sets.clone()], ..german() };

    let built = build(&settings, &input, 2).unwrap();
    assert!(!built.kept().contains_key("de-004"));
    assert_eq!(built.report.languages["de"].dropped[&Reason::Contaminated], 1);
    let line = built.dropped("contamination").remove(0);
    assert_eq!((line["id"].as_str(), line["set"].as_str()), (Some("de-004"), Some("sets/questions.jsonl")));
    let set = &built.report.decontamination["sets/questions.jsonl"];
    assert_eq!((set.texts, set.planted, set.found), (1, 1, 1));

    let decontamination =
        DecontaminationSettings { action: Action::Cut, ..DecontaminationSettings::default() };
    let built = build(&Settings { decontamination, ..settings.clone() }, &input, 2).unwrap();
    let cut = &built.kept()["de-004"].text;
    assert!(!cut.contains("Werft") && cut.contains(document(40).text.trim()), "{cut}");
    assert_eq!(built.report.total.repaired[&Repair::Decontaminated], 1);

    fs::write(sets.join("empty.txt"), "").unwrap();
    let message = build(&settings, &input, 1).err().unwrap().to_string();
    assert!(message.contains("empty.txt") && message.contains("nothing would be looked for"), "{message}");
}
