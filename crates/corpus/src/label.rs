//! Which language a document is in: its label, checked against the identification of its text.
//!
//! The label is evidence too. Between close neighbours (Croatian and Bosnian, Danish and Norwegian) a short text often
//! leaves the identifier in doubt; there the label decides. Where the text says clearly that the label is wrong, the text
//! is right.

use languages::{Candidate, Identification, Language};

use crate::reason::{Drop, Reason, rounded};
use crate::settings::{Settings, WrongLanguage};

/// The language of a document that is kept, and whether its label said otherwise.
#[derive(Debug, PartialEq)]
pub struct Labelled {
    pub language: Language,
    pub relabelled: bool,
}

/// Decides the language of a text that was labelled `label`.
pub fn decide(label: Option<&str>, text: &str, settings: &Settings) -> Result<Labelled, Drop> {
    decide_identified(label, &languages::identify(text), settings)
}

fn decide_identified(
    label: Option<&str>,
    identified: &Identification,
    settings: &Settings,
) -> Result<Labelled, Drop> {
    let claimed = label.and_then(|label| Language::from_code(label).ok());
    let weight = |candidate: &Candidate| match claimed {
        Some(claimed) if candidate.language == Some(claimed) => candidate.score * settings.label_weight,
        _ => candidate.score,
    };
    let total: f32 = identified.ranking.iter().map(weight).sum();
    let best = identified
        .ranking
        .iter()
        .max_by(|left, right| weight(left).total_cmp(&weight(right)).then_with(|| right.code.cmp(left.code)));
    let Some(best) = best else { return Err(Drop::new(Reason::LanguageUnclear)) };
    let score = weight(best) / total;
    let drop = |reason| {
        let drop = Drop::new(reason).with("identified", best.code).with("score", rounded(f64::from(score)));
        label.map_or(drop.clone(), |label| drop.with("label", label))
    };
    let Some(language) = best.language.filter(|language| settings.languages.contains(language)) else {
        return Err(drop(Reason::LanguageNotWanted));
    };
    // A score that is no number (no evidence at all) is unclear too.
    if score.is_nan() || score < settings.minimum_language_score {
        return Err(drop(Reason::LanguageUnclear));
    }
    let relabelled = label.is_some() && claimed != Some(language);
    if relabelled && settings.wrong_language == WrongLanguage::Drop {
        return Err(drop(Reason::LanguageLabelWrong));
    }
    Ok(Labelled { language, relabelled })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(label: Option<&str>, ranking: &[(&'static str, f32)], expected: Result<(&str, bool), Reason>) {
        let ranking: Vec<Candidate> = ranking
            .iter()
            .map(|&(code, score)| Candidate { code, language: Language::from_code(code).ok(), score })
            .collect();
        let identified = Identification {
            language: ranking[0].language,
            code: ranking[0].code,
            score: ranking[0].score,
            ranking,
        };
        let found = decide_identified(label, &identified, &Settings::default());
        let found =
            found.map(|labelled| (labelled.language.code(), labelled.relabelled)).map_err(|drop| drop.reason);
        assert_eq!(found, expected, "{label:?} {identified:?}");
    }

    #[test]
    fn the_label_decides_between_neighbours_only() {
        check(Some("hr"), &[("hr", 0.99), ("bs", 0.01)], Ok(("hr", false)));
        check(Some("hr"), &[("bs", 0.8), ("hr", 0.2)], Ok(("hr", false)));
        check(Some("hr"), &[("sl", 0.99), ("hr", 0.001)], Ok(("sl", true)));
        check(None, &[("bs", 0.8), ("hr", 0.2)], Err(Reason::LanguageNotWanted));
        check(Some("da"), &[("nb", 0.999), ("da", 0.001)], Err(Reason::LanguageNotWanted));
        check(None, &[("et", 0.9), ("fi", 0.1)], Ok(("et", false)));
        check(Some("xx"), &[("et", 0.9), ("fi", 0.1)], Ok(("et", true)));
        check(None, &[("et", 0.4), ("fi", 0.35), ("lv", 0.25)], Err(Reason::LanguageUnclear));
        check(Some("en"), &[("other", 0.9), ("en", 0.01)], Err(Reason::LanguageNotWanted));
    }

    #[test]
    fn the_settings_can_drop_wrong_labels_and_choose_languages() {
        let text =
            languages::identify("Το βιβλίο είναι στο τραπέζι και η γάτα κοιμάται κάτω από την καρέκλα.");
        let strict = Settings { wrong_language: WrongLanguage::Drop, ..Settings::default() };
        assert_eq!(
            decide_identified(Some("bg"), &text, &strict).unwrap_err().reason,
            Reason::LanguageLabelWrong
        );
        let few = Settings { languages: vec![Language::from_code("bg").unwrap()], ..Settings::default() };
        assert_eq!(decide_identified(Some("el"), &text, &few).unwrap_err().reason, Reason::LanguageNotWanted);
    }
}
