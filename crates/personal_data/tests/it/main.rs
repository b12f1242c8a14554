//! The detector on the test set in 24 languages: precision and recall of every kind on the half that it was not tuned on.

mod test_set;

use std::collections::BTreeMap;

use personal_data::PersonalData;
use test_set::{Half, Score};

#[test]
fn redacting_again_changes_nothing() {
    for case in test_set::read() {
        let once = personal_data::redact(&case.text, Some(case.language)).text;
        let twice = personal_data::redact(&once, Some(case.language));
        assert_eq!(twice.text, once, "{}", case.text);
    }
}

#[test]
fn precision_and_recall_of_every_kind() {
    let mut scores: BTreeMap<PersonalData, Score> = BTreeMap::new();
    let mut faults: BTreeMap<PersonalData, Vec<String>> = BTreeMap::new();
    for case in test_set::read().iter().filter(|case| case.half == Half::HeldOut) {
        let compared = test_set::compare(case, Some(case.language));
        for (kind, score) in compared.scores {
            scores.entry(kind).or_default().add(score);
        }
        for missed in compared.missed {
            let fault = format!("missed {}: {}", missed.form, &case.text[missed.start..missed.end]);
            faults.entry(missed.kind).or_default().push(fault);
        }
        for wrong in compared.wrong {
            faults.entry(wrong.kind).or_default().push(format!("wrong: {}", &case.text[wrong.range]));
        }
    }
    assert_eq!(scores.len(), 6, "a kind is neither expected nor found");
    for (kind, score) in scores {
        let faults = faults.remove(&kind).unwrap_or_default().join("\n");
        assert!(score.hits + score.missed >= 200, "{kind:?}: {score:?} says little");
        assert!(score.precision() >= 0.95, "{kind:?}: precision {:.4}\n{faults}", score.precision());
        assert!(score.recall() >= 0.95, "{kind:?}: recall {:.4}\n{faults}", score.recall());
    }
}
