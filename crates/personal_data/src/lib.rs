//! Personal data become typed placeholders: e-mail and IP addresses, telephone numbers, bank accounts, payment cards,
//! national identifiers.
//!
//! One pass over the bytes stops at digits and colons (and at `@`, in a pass of its own); only there is anything looked
//! at more closely. Every kind is found by its form and, where it has one, proved by its check digits; forms that ordinary
//! numbers share count only where the words around them call them so. Findings never overlap.

mod banking;
mod check_digits;
mod identifiers;
mod lexicon;
mod network;
mod numbers;
mod phones;
mod scan;
mod words;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use languages::Language;
use serde::{Deserialize, Serialize};

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
    pub const ALL: [PersonalData; 6] = [
        PersonalData::EmailAddress,
        PersonalData::IpAddress,
        PersonalData::PhoneNumber,
        PersonalData::Iban,
        PersonalData::PaymentCard,
        PersonalData::NationalIdentifier,
    ];

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

/// Replaces personal data by placeholders; see [`find`].
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

/// All personal data of a text, in its order, never overlapping. The language, where it is known, says in whose words
/// numbers are named and which national forms to look for; where it is not, all 24 count.
pub fn find(text: &str, language: Option<Language>) -> Vec<Finding> {
    scan::scan(text, language)
}

/// What [`find`] finds from the place `from` on, in a text whose earlier part was looked at before: it counts as the context
/// of what follows. Findings begin at `floor` or later, the end of the last one before; all in byte places. For texts that
/// come in pieces.
pub fn find_from(text: &str, floor: usize, from: usize, language: Option<Language>) -> Vec<Finding> {
    scan::scan_from(text, floor, from, language)
}

#[cfg(test)]
mod tests;
