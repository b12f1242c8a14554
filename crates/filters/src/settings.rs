//! What the operator decides: which filters, in which order, and what each does. Plain TOML:
//!
//! ```toml
//! [[filters.input]]
//! name = "length"
//! kind = "length"
//! action = "refuse"
//! maximum_characters = 100_000
//!
//! [[filters.output]]
//! name = "people"
//! kind = "personal_data"
//! action = "replace"
//!
//! [filters.chains.archive]
//! without = ["people"]
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use personal_data::PersonalData;
use serde::{Deserialize, Serialize};

/// The filters of everybody, and chains that differ from them, which tenants can be given by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// For what clients send, in this order.
    pub input: Vec<FilterSettings>,
    /// For what models answer, in this order.
    pub output: Vec<FilterSettings>,
    /// By the name that a tenant's policy gives.
    pub chains: BTreeMap<String, ChainSettings>,
}

impl Settings {
    /// Every path that the settings name.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let of_chains =
            self.chains.values_mut().flat_map(|chain| chain.input.iter_mut().chain(&mut chain.output));
        let filters = self.input.iter_mut().chain(&mut self.output).chain(of_chains);
        filters.filter_map(|filter| match filter {
            FilterSettings::Passages(settings) => Some(&mut settings.file),
            _ => None,
        })
    }
}

/// How a chain differs: a filter with the name of one of everybody's stands in its place, others come after.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChainSettings {
    pub input: Vec<FilterSettings>,
    pub output: Vec<FilterSettings>,
    /// Names of filters of everybody that this chain goes without.
    pub without: Vec<String>,
}

/// What is done about what a filter finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The request, or the answer from there on, is refused with the filter's reason.
    Refuse,
    /// A placeholder stands in its place.
    Replace,
    /// It is counted, and the text stays.
    Flag,
}

/// One filter.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FilterSettings {
    Length(LengthSettings),
    Scripts(ScriptsSettings),
    Invisible(InvisibleSettings),
    PersonalData(PersonalDataSettings),
    Patterns(PatternsSettings),
    Passages(PassagesSettings),
}

impl FilterSettings {
    /// The name that metrics, refusals and other chains call it by.
    pub fn name(&self) -> &str {
        match self {
            FilterSettings::Length(settings) => &settings.name,
            FilterSettings::Scripts(settings) => &settings.name,
            FilterSettings::Invisible(settings) => &settings.name,
            FilterSettings::PersonalData(settings) => &settings.name,
            FilterSettings::Patterns(settings) => &settings.name,
            FilterSettings::Passages(settings) => &settings.name,
        }
    }

    /// What it does about what it finds.
    pub fn action(&self) -> Action {
        match self {
            FilterSettings::Length(settings) => settings.action,
            FilterSettings::Scripts(settings) => settings.action,
            FilterSettings::Invisible(settings) => settings.action,
            FilterSettings::PersonalData(settings) => settings.action,
            FilterSettings::Patterns(settings) => settings.action,
            FilterSettings::Passages(settings) => settings.action,
        }
    }

    /// The code that a refusal carries.
    pub fn code(&self) -> &'static str {
        match self {
            FilterSettings::Length(_) => "text_too_long",
            FilterSettings::Scripts(_) => "script_not_allowed",
            FilterSettings::Invisible(_) => "invisible_characters",
            FilterSettings::PersonalData(_) => "personal_data",
            FilterSettings::Patterns(_) => "blocked_pattern",
            FilterSettings::Passages(_) => "opted_out_passage",
        }
    }
}

/// Texts longer than this; to replace means to cut.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LengthSettings {
    pub name: String,
    pub action: Action,
    /// Unicode characters, at least 1.
    pub maximum_characters: usize,
}

/// Letters of scripts that are not in the list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScriptsSettings {
    pub name: String,
    pub action: Action,
    /// Unicode script names, such as `Latin`, `Greek`, `Cyrillic`. What belongs to no script or to all (digits, signs,
    /// emoji, combining marks) is always allowed.
    pub allowed: Vec<String>,
    /// What stands for a run of letters that are not allowed.
    pub replacement: String,
}

/// Characters that a reader does not see but a model reads; to replace means to leave out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InvisibleSettings {
    pub name: String,
    pub action: Action,
    pub what: Vec<HiddenCharacters>,
}

/// Groups of characters without a picture of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenCharacters {
    /// Direction marks, embeddings, overrides and isolates (Unicode TR 9): text that reads otherwise than it is stored.
    Bidi,
    /// U+E0000 to U+E0FFF: tags and the supplementary variation selectors, in which whole prompts can be hidden.
    Tags,
    /// Without width: spaces and joiners, soft hyphen, fillers, invisible operators, byte order mark. Joiners within emoji
    /// are let pass.
    ZeroWidth,
    /// C0 and C1 controls but tab and line ends, interlinear annotation, line and paragraph separator, noncharacters.
    Controls,
}

impl HiddenCharacters {
    pub const ALL: [HiddenCharacters; 4] = [
        HiddenCharacters::Bidi,
        HiddenCharacters::Tags,
        HiddenCharacters::ZeroWidth,
        HiddenCharacters::Controls,
    ];
}

/// Personal data by the rules of the corpus; to replace means to put the corpus's placeholders.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PersonalDataSettings {
    pub name: String,
    pub action: Action,
    pub kinds: Vec<PersonalData>,
    /// ISO 639-1 code of the language that texts are in; without it the words and forms of all 24 count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

/// Regular expressions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PatternsSettings {
    pub name: String,
    pub action: Action,
    /// Syntax of the crate `regex` (no look-around, no back-references). A repetition without end counts as at most
    /// [`crate::patterns::OPEN_REPETITIONS`] more.
    pub block: Vec<String>,
    /// A blocked stretch that one of these matches whole is let pass.
    pub allow: Vec<String>,
    pub replacement: String,
}

/// Passages of texts that were opted out, known by the digests of their runs of words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PassagesSettings {
    pub name: String,
    pub action: Action,
    /// Made by `eulalia opt-out passages`.
    pub file: PathBuf,
    pub replacement: String,
}
