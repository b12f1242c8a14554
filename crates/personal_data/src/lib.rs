//! Personal data become typed placeholders: e-mail and IP addresses, telephone numbers, bank accounts, payment cards,
//! national identifiers.
//!
//! Every kind is found by its form and, where it has one, proved by its check digits; forms that ordinary numbers share
//! count only after a word that announces them. What is certain is looked for first, and no two findings overlap.

mod banking;
mod identifiers;
mod network;
mod numbers;
mod phones;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::LazyLock;

use languages::Language;
use regex::Regex;
use serde::{Deserialize, Serialize};

use numbers::NumberRun;

/// A kind of personal data, by the name that the statistics use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonalData {
    EmailAddress,
    IpAddress,
    PhoneNumber,
    Iban,
    PaymentCard,
    NationalIdentifier,
}

impl PersonalData {
    /// What stands in the text instead.
    pub fn placeholder(self) -> &'static str {
        match self {
            PersonalData::EmailAddress => "<EMAIL>",
            PersonalData::IpAddress => "<IP_ADDRESS>",
            PersonalData::PhoneNumber => "<PHONE_NUMBER>",
            PersonalData::Iban => "<IBAN>",
            PersonalData::PaymentCard => "<PAYMENT_CARD>",
            PersonalData::NationalIdentifier => "<NATIONAL_ID>",
        }
    }
}

/// A text without the personal data that were found, and how many of each kind there were.
#[derive(Debug, PartialEq)]
pub struct Redaction<'a> {
    pub text: Cow<'a, str>,
    pub counts: BTreeMap<PersonalData, u64>,
}

/// A stretch of a text that is personal data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub kind: PersonalData,
    /// Byte range in the text.
    pub range: Range<usize>,
}

/// Replaces personal data. The language, where it is known, says which national forms of telephone numbers to look for.
pub fn redact(text: &str, language: Option<Language>) -> Redaction<'_> {
    let findings = find(text, language);
    let mut counts = BTreeMap::new();
    if findings.is_empty() {
        return Redaction { text: Cow::Borrowed(text), counts };
    }
    let mut redacted = String::with_capacity(text.len());
    let mut copied = 0;
    for Finding { kind, range } in findings {
        redacted.push_str(&text[copied..range.start]);
        redacted.push_str(kind.placeholder());
        copied = range.end;
        *counts.entry(kind).or_insert(0) += 1;
    }
    redacted.push_str(&text[copied..]);
    Redaction { text: Cow::Owned(redacted), counts }
}

/// All personal data of a text, in its order, never overlapping.
pub fn find(text: &str, language: Option<Language>) -> Vec<Finding> {
    let mut findings = Findings { spans: Vec::new() };
    if may_hold_personal_data(text) {
        network::find_email_addresses(text, &mut findings);
        let addresses: Vec<Range<usize>> = WEB_ADDRESS.find_iter(text).map(|found| found.range()).collect();
        findings.closed_to(&addresses, |findings| {
            network::find_ip_addresses(text, findings);
            banking::find_ibans(text, findings);
            identifiers::find_with_letters(text, findings);
            for run in numbers::number_runs(text) {
                find_in_run(text, &run, language, findings);
            }
        });
    }
    findings.in_order()
}

/// A number in a web address belongs to the page, not to a person.
static WEB_ADDRESS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?i)(?-u:\b)(?:https?://|www\.)\S+").expect("a fixed pattern"));

fn may_hold_personal_data(text: &str) -> bool {
    text.contains('@') || text.contains("::") || text.bytes().filter(u8::is_ascii_digit).nth(3).is_some()
}

/// Looks at every stretch of a run, the longest first: "Tel. 030 23125 000, 4111 1111 1111 1111" is one run.
fn find_in_run(text: &str, run: &NumberRun, language: Option<Language>, findings: &mut Findings) {
    let mut first = 0;
    while first < run.groups.len() {
        let found = (first..run.groups.len()).rev().find_map(|last| {
            let stretch = run.stretch(text, first, last)?;
            let kind = if banking::is_payment_card(&stretch) {
                PersonalData::PaymentCard
            } else if identifiers::is_identifier(&stretch) {
                PersonalData::NationalIdentifier
            } else if phones::is_phone_number(&stretch, language) {
                PersonalData::PhoneNumber
            } else {
                return None;
            };
            Some((last, stretch.range(), kind))
        });
        match found {
            Some((last, range, kind)) => {
                findings.add(range, kind);
                first = last + 1;
            }
            None => first += 1,
        }
    }
}

/// Spans of the text, each with its kind, never overlapping: what was found first stays.
struct Findings {
    spans: Vec<(Range<usize>, Option<PersonalData>)>,
}

impl Findings {
    fn add(&mut self, range: Range<usize>, kind: PersonalData) {
        if self.is_free(&range) {
            self.spans.push((range, Some(kind)));
        }
    }

    fn is_free(&self, range: &Range<usize>) -> bool {
        self.spans.iter().all(|(taken, _)| range.end <= taken.start || taken.end <= range.start)
    }

    /// Runs `find` with these stretches of the text closed.
    fn closed_to(&mut self, stretches: &[Range<usize>], find: impl FnOnce(&mut Findings)) {
        let closed =
            stretches.iter().filter(|stretch| self.is_free(stretch)).map(|stretch| (stretch.clone(), None));
        let closed: Vec<_> = closed.collect();
        self.spans.extend(closed);
        find(self);
        self.spans.retain(|(_, kind)| kind.is_some());
    }

    fn in_order(mut self) -> Vec<Finding> {
        self.spans.sort_by_key(|(range, _)| range.start);
        let with_kind =
            |(range, kind): (Range<usize>, Option<PersonalData>)| kind.map(|kind| Finding { kind, range });
        self.spans.into_iter().filter_map(with_kind).collect()
    }
}

/// Whether one of the last words before `place`, on the same line, begins with one of these stems.
fn is_announced(text: &str, place: usize, words: usize, stems: &[&str]) -> bool {
    let line = text[..place].rsplit('\n').next().unwrap_or_default();
    line.split(|character: char| !character.is_alphanumeric())
        .rev()
        .filter(|word| !word.is_empty())
        .take(words)
        .any(|word| {
            let word = word.to_lowercase();
            stems.iter().any(|stem| word.starts_with(stem))
        })
}

#[cfg(test)]
mod tests;
