//! Is this prose? Limits on what can be counted, by language: the rules of MassiveText (Rae et al. 2021, "Scaling Language
//! Models: Methods, Analysis & Insights from Training Gopher", appendix A) and of FineWeb (Penedo et al. 2024), with
//! thresholds from the data files of `languages` instead of English ones for all.

mod characters;
mod measures;
mod ngrams;
mod vocabulary;

use languages::{Language, Thresholds};

pub use measures::Measures;
pub use ngrams::{REPEATED_WORDS, Repetition, TOP_WORDS};

use crate::reason::{Drop, Reason};

/// Nothing where the text is good enough, else the first limit that it breaks.
pub fn fault(text: &str, language: Language, maximum_list_line_share: f64) -> Option<Drop> {
    let limits = language.thresholds();
    let characters = text.chars().count();
    if characters < limits.minimum_characters {
        return Some(Drop::measured(Reason::TooShort, characters as f64, limits.minimum_characters as f64));
    }
    if characters > limits.maximum_characters {
        return Some(Drop::measured(Reason::TooLong, characters as f64, limits.maximum_characters as f64));
    }
    let measures = Measures::of(text, language);
    let above = [
        (Reason::Symbols, measures.symbol_share, limits.maximum_symbol_share),
        (Reason::ListLines, measures.list_line_share, maximum_list_line_share),
        (Reason::ServiceLines, measures.service_line_share, limits.maximum_service_line_share),
        (Reason::EllipsisLines, measures.ellipsis_line_share, limits.maximum_ellipsis_line_share),
        (Reason::RepeatedLines, measures.repeated_line_share, limits.maximum_repeated_line_share),
        (Reason::RepeatedLines, measures.repeated_line_byte_share, limits.maximum_repeated_line_byte_share),
    ];
    let below = [
        (Reason::Script, measures.script_share, limits.minimum_script_share),
        (Reason::WordLength, measures.mean_word_length, limits.minimum_mean_word_length),
        (Reason::StopWords, measures.stop_word_share, limits.minimum_stop_word_share),
        (Reason::UnfinishedLines, measures.finished_line_share, limits.minimum_finished_line_share),
    ];
    let too_high = |(_, value, limit): &(Reason, f64, f64)| value > limit;
    let too_low = |(_, value, limit): &(Reason, f64, f64)| value < limit;
    let drop = |(reason, value, limit)| Drop::measured(reason, value, limit);
    let too_long_words = (Reason::WordLength, measures.mean_word_length, limits.maximum_mean_word_length);
    above
        .into_iter()
        .find(too_high)
        .map(drop)
        .or_else(|| repetition_fault(&measures.repetition, limits))
        .or_else(|| Some(too_long_words).filter(too_high).map(drop))
        .or_else(|| below.into_iter().find(too_low).map(drop))
}

/// The shortest n-gram that fills too much of the text, or else the shortest that repeats too much of it.
fn repetition_fault(repetition: &Repetition, limits: &Thresholds) -> Option<Drop> {
    let repeated =
        REPEATED_WORDS.into_iter().zip(repetition.repeated).zip(limits.maximum_repeated_ngram_shares);
    let top = TOP_WORDS.into_iter().zip(repetition.top).zip(limits.maximum_top_ngram_shares);
    let fault = |reason| {
        move |((words, value), limit): ((usize, f64), f64)| {
            (value > limit).then(|| Drop::measured(reason, value, limit).with("words", words))
        }
    };
    repeated
        .into_iter()
        .find_map(fault(Reason::RepeatedNgrams))
        .or_else(|| top.into_iter().find_map(fault(Reason::TopNgram)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROSE: &str = "Morgens um sechs öffnet die Bäckerin den Laden, und der Duft von frischem Brot zieht durch die \
        ganze Straße. Zuerst kommen die Nachbarn, die zur Arbeit müssen, dann die Kinder mit ihren Schulranzen. Am \
        Nachmittag ist es ruhiger; nur der alte Herr aus dem Eckhaus sitzt am Fenster und liest in der Zeitung.";

    fn check(text: &str, expected: Option<Reason>) {
        let language = Language::from_code("de").unwrap();
        assert_eq!(fault(text, language, 0.5).map(|drop| drop.reason), expected, "{text}");
    }

    #[test]
    fn prose_passes() {
        check(PROSE, None);
        check(&PROSE.replace(". ", ".\n\n"), None);
    }

    #[test]
    fn each_limit_has_its_reason() {
        check("Zu kurz.", Some(Reason::TooShort));
        check(&PROSE.repeat(5_000), Some(Reason::TooLong));
        check(&format!("{PROSE}\n").repeat(4), Some(Reason::RepeatedLines));
        check(&PROSE.repeat(3), Some(Reason::RepeatedNgrams));
        check(&"Start\nNachrichten\nSport\nWetter heute\nKontakt\nImpressum\nDatenschutz und Cookies\nAnmelden\n".repeat(4), Some(Reason::ListLines));
        check(&format!("{PROSE} {}", "=#+ {} 12345 ".repeat(30)), Some(Reason::Symbols));
        check(
            &"Η θάλασσα ήταν ήρεμη και ο ήλιος έλαμπε πάνω από το λιμάνι. "
                .repeat(5)
                .replace("λιμάνι. ", "λιμάνι, "),
            Some(Reason::RepeatedNgrams),
        );
        check(&PROSE.replace(['a', 'e', 'i', 'n'], "λ"), Some(Reason::Script));
        check(
            &(0..60)
                .map(|n| format!("Wort{} ", char::from(b'a' + n % 26)).repeat(1 + usize::from(n) / 26))
                .collect::<String>(),
            Some(Reason::StopWords),
        );
        check(
            &(0..26)
                .map(|n| format!("Donaudampfschifffahrts{}gesellschaft ", char::from(b'a' + n)))
                .collect::<String>(),
            Some(Reason::WordLength),
        );
    }

    #[test]
    fn lines_have_their_limits() {
        let words: Vec<&str> = PROSE.split([' ', '.', ',', ';']).filter(|word| !word.is_empty()).collect();
        let lines = |end: &str| words.chunks(8).map(|words| words.join(" ") + end + "\n").collect::<String>();
        check(&lines(" …"), Some(Reason::EllipsisLines));
        check(&lines(""), Some(Reason::UnfinishedLines));
        check(&lines("."), None);
        check(
            &format!(
                "{PROSE}\nWir verwenden Cookies, um Ihnen das Lesen so angenehm wie möglich zu machen, und zählen mit, wer kommt und geht."
            ),
            Some(Reason::ServiceLines),
        );
        check(
            &format!(
                "{PROSE}\nWe use cookies to make it nice to read all of this, and to count who does; here you can choose which."
            ),
            Some(Reason::ServiceLines),
        );
    }

    #[test]
    fn a_phrase_that_fills_the_text_is_found_with_its_length() {
        let text = PROSE.split_inclusive(' ').enumerate().map(|(place, word)| {
            if place % 6 == 5 { format!("{word}aber selbstverständlich ") } else { word.to_string() }
        });
        let drop = fault(&text.collect::<String>(), Language::from_code("de").unwrap(), 0.5).unwrap();
        assert_eq!(drop.reason, Reason::TopNgram);
        assert_eq!(drop.evidence["words"], 2);
        assert!(drop.evidence["value"].as_f64() > drop.evidence["limit"].as_f64());
    }
}
