//! Filters for what goes into a model and what comes out of it: an ordered, configured [`Chain`].
//!
//! Each filter looks for one thing (length, scripts, invisible characters, personal data, patterns, passages of texts that
//! were opted out) and does one of three things about it: refuse, replace, or only count ([`Action`]). A text in pieces,
//! as a stream brings it, gives what the whole text gives, however it is cut: every filter is a machine over characters
//! whose output so far depends on the characters so far alone, and which holds back no more than its window. Time is
//! linear in the text, memory bounded. No async, no network.

mod chain;
mod characters;
mod counts;
mod error;
mod length;
mod passages;
mod patterns;
mod personal;
mod rows;
mod settings;
mod stage;
mod written;

pub use chain::{Chain, Chains, FilterStream, Refusal, Stopped, Verdict};
pub use counts::Count;
pub use error::FilterError;
pub use passages::{PassageSet, WORDS_IN_A_PASSAGE, normalised_words};
pub use personal_data::PersonalData;
pub use settings::{
    Action, ChainSettings, FilterSettings, HiddenCharacters, InvisibleSettings, LengthSettings,
    PassagesSettings, PatternsSettings, PersonalDataSettings, ScriptsSettings, Settings,
};

#[cfg(test)]
mod tests;
