//! What a recipe can set in the corpus stage. Thresholds that differ by language stand in the data files of `languages`,
//! not here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use languages::{LANGUAGE_COUNT, Language};
use serde::{Deserialize, Serialize};

use crate::balance::BalanceSettings;
use crate::decontaminate::DecontaminationSettings;
use crate::error::Error;
use crate::score::ScoreSettings;

/// The settings of one corpus, as plain TOML.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Languages to keep, ISO 639-1. A document in any other language is dropped.
    pub languages: Vec<Language>,
    /// Licences whose texts may be used: SPDX identifiers, compared without regard to case.
    pub licenses: Vec<String>,
    /// The licence of a record that names none; empty means that such a record is dropped.
    pub default_license: String,
    /// The opt-out ledger, JSON lines; see `rights`. Its content is part of the artefact's key (see
    /// [`crate::digest_inputs`]).
    pub opt_outs: Option<PathBuf>,
    /// Domains of which no document is used, one a line; see `block_list`.
    pub blocked_domains: Option<PathBuf>,
    /// robots.txt and TDMRep files of the sites that documents come from; see `site_rules`.
    pub robots: Vec<PathBuf>,
    /// Agents that are asked for in robots.txt: a page that one of them must not fetch is not used. `*` stands for the
    /// rules for all agents that a file does not name.
    pub robots_agents: Vec<String>,
    /// The own crawler's name. A robots.txt that names it is asked for it alone.
    pub own_agent: String,
    /// A file of at least 32 random bytes, kept secret: the key of the digests that stand in `dropped/` for texts dropped
    /// for rights or personal data. Without it no digest is written.
    pub digest_key: Option<PathBuf>,
    /// What happens to a document whose label names another language than its text is in.
    pub wrong_language: WrongLanguage,
    /// How much more likely than chance the label makes its language: the identifier's probability of the labelled
    /// language is multiplied by it before the languages are compared, which decides between close neighbours.
    pub label_weight: f32,
    /// Least probability of a document's language.
    pub minimum_language_score: f32,
    /// Most that lines of lists and menus may be of a document's lines.
    pub maximum_list_line_share: f64,
    /// A paragraph that stands in this many documents is boilerplate and removed from all of them; 0 turns it off.
    pub boilerplate_documents: u32,
    /// Documents whose word 5-grams have at least this Jaccard similarity are duplicates; 1 turns it off.
    pub near_duplicate_similarity: f64,
    /// Words of a shingle, the unit of that similarity.
    pub near_duplicate_shingle_words: usize,
    /// Documents are compared where all rows of one of so many bands of their sketches agree: more bands find more, more
    /// rows compare less.
    pub near_duplicate_bands: usize,
    pub near_duplicate_rows: usize,
    /// Whether a document can be the duplicate of one in another language.
    pub duplicates_across_languages: bool,
    /// Files or folders of corpora made earlier: what stands there is not taken again.
    pub existing: Vec<PathBuf>,
    /// Evaluation sets, or folders of them, that the corpus must not hold; see `decontaminate`.
    pub decontaminate: Vec<PathBuf>,
    pub decontamination: DecontaminationSettings,
    /// A run of at least so many words that stands in several documents is cut from all but the first; 0 turns it off.
    pub repeated_passage_words: usize,
    /// Files or folders of text that the owner calls good: every document is scored by how much it reads like them; see
    /// `score`.
    pub good_texts: Vec<PathBuf>,
    pub score: ScoreSettings,
    /// How much of each language and source is taken for training; see `balance`.
    pub balance: BalanceSettings,
    /// A document with more placeholders for personal data per word than this is dropped.
    pub maximum_personal_data_share: f64,
    /// Each language keeps at least so many documents and bytes of text out of training, for evaluation.
    pub heldout_documents: usize,
    pub heldout_bytes: u64,
    /// A language with too little text for a held-out part and training: stop, or keep all of it for training.
    pub small_language: SmallLanguage,
    /// A truncated or empty input file: stop the run, or count it and go on.
    pub damaged_input: DamagedInput,
    /// Records beyond this size are dropped without being held in memory.
    pub record_limit_bytes: usize,
    /// What a document is in a plain text file.
    pub text_unit: TextUnit,
    /// Under which keys or columns the fields of a document stand, where the inputs are of no corpus that is known by its
    /// keys: `text = "content"`, `url = "meta.url"`, `language = "=mt"`.
    pub fields: BTreeMap<String, String>,
    /// Further keys of the inputs that the shards keep, such as `title`; personal data in them become placeholders too.
    /// All others end at the examination: nobody looked at what stands in them.
    pub keep_metadata: Vec<String>,
    /// Chooses the held-out documents.
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongLanguage {
    Relabel,
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SmallLanguage {
    Stop,
    TrainOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DamagedInput {
    Stop,
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextUnit {
    File,
    Paragraph,
}

/// Licences and marks that permit training and redistribution of the text, attribution and share-alike included
/// (SPDX licence list 3.27; `LicenseRef-public-domain` for works without any right in them).
const OPEN_LICENSES: [&str; 20] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC-BY-2.0",
    "CC-BY-2.5",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "CC-PDDC",
    "CC-PDM-1.0",
    "CC0-1.0",
    "DL-DE-BY-2.0",
    "etalab-2.0",
    "EUPL-1.2",
    "LicenseRef-public-domain",
    "MIT",
    "ODC-By-1.0",
    "PDDL-1.0",
];

/// Crawlers and tokens by which sites shut out AI training, as their owners documented them in November 2026.
const ROBOTS_AGENTS: [&str; 12] = [
    "*",
    "AI2Bot",
    "anthropic-ai",
    "Applebot-Extended",
    "Bytespider",
    "CCBot",
    "ClaudeBot",
    "cohere-training-data-crawler",
    "Google-Extended",
    "GPTBot",
    "meta-externalagent",
    "PanguBot",
];

/// What a shard's line has by the stage's own hand.
const OWN_KEYS: [&str; 9] = ["id", "url", "date", "license", "language", "source", "text", "score", "copy"];

impl Default for Settings {
    fn default() -> Self {
        Settings {
            languages: Language::all().collect(),
            licenses: OPEN_LICENSES.map(String::from).to_vec(),
            default_license: String::new(),
            opt_outs: None,
            blocked_domains: None,
            robots: Vec::new(),
            robots_agents: ROBOTS_AGENTS.map(String::from).to_vec(),
            own_agent: String::new(),
            digest_key: None,
            wrong_language: WrongLanguage::Relabel,
            label_weight: 10.0,
            minimum_language_score: 0.5,
            maximum_list_line_share: 0.5,
            boilerplate_documents: 3,
            near_duplicate_similarity: 0.75,
            near_duplicate_shingle_words: 5,
            near_duplicate_bands: 20,
            near_duplicate_rows: 6,
            duplicates_across_languages: true,
            repeated_passage_words: 0,
            existing: Vec::new(),
            decontaminate: Vec::new(),
            decontamination: DecontaminationSettings::default(),
            good_texts: Vec::new(),
            score: ScoreSettings::default(),
            balance: BalanceSettings::default(),
            maximum_personal_data_share: 0.1,
            heldout_documents: 2,
            heldout_bytes: 1536,
            small_language: SmallLanguage::Stop,
            damaged_input: DamagedInput::Stop,
            record_limit_bytes: 64 << 20,
            text_unit: TextUnit::File,
            fields: BTreeMap::new(),
            keep_metadata: Vec::new(),
            seed: 0,
        }
    }
}

impl Settings {
    /// The files and folders that the settings name, with the key of each.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let one = [
            ("opt_outs", &self.opt_outs),
            ("blocked_domains", &self.blocked_domains),
            ("digest_key", &self.digest_key),
        ];
        let many = [
            ("robots", &self.robots),
            ("decontaminate", &self.decontaminate),
            ("good_texts", &self.good_texts),
        ];
        let one = one.into_iter().filter_map(|(key, path)| Some((key, path.as_deref()?)));
        one.chain(
            many.into_iter().flat_map(|(key, paths)| paths.iter().map(move |path| (key, path.as_path()))),
        )
    }

    /// Whether the values make sense, before any work.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |key: &'static str, expected: &'static str, found: String| {
            Err(Error::Setting { key, expected, found })
        };
        if self.languages.is_empty() {
            return wrong("languages", "at least one ISO 639-1 code", "an empty list".into());
        }
        documents::FieldMap::new(&self.fields)?;
        if let Some(own) = self.keep_metadata.iter().find(|key| OWN_KEYS.contains(&key.as_str())) {
            let expected = "keys besides those that every document of a shard has or the stage writes itself";
            return wrong("keep_metadata", expected, format!("{own:?}"));
        }
        let mut sorted = self.languages.clone();
        sorted.sort();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return wrong("languages", "each language once", format!("`{}` twice", pair[0]));
        }
        debug_assert!(sorted.len() <= LANGUAGE_COUNT);
        if self.licenses.iter().any(|license| license.trim().is_empty()) {
            return wrong("licenses", "SPDX identifiers", "an empty name".into());
        }
        let is_token = |agent: &str| {
            !agent.is_empty() && agent.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        if let Some(agent) = self.robots_agents.iter().find(|agent| *agent != "*" && !is_token(agent)) {
            return wrong(
                "robots_agents",
                "product tokens such as \"GPTBot\", or \"*\"",
                format!("{agent:?}"),
            );
        }
        if !self.own_agent.is_empty() && !is_token(&self.own_agent) {
            return wrong("own_agent", "a product token such as \"ourbot\"", format!("{:?}", self.own_agent));
        }
        self.decontamination.check()?;
        self.score.check()?;
        self.balance.check(&self.languages)?;
        let shares = [
            ("minimum_language_score", f64::from(self.minimum_language_score)),
            ("maximum_list_line_share", self.maximum_list_line_share),
            ("maximum_personal_data_share", self.maximum_personal_data_share),
        ];
        for (key, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return wrong(key, "a share from 0 to 1", share.to_string());
            }
        }
        if !(0.5..=1.0).contains(&self.near_duplicate_similarity) {
            let expected = "a similarity from 0.5 (half of the word 5-grams shared) to 1 (off)";
            return wrong("near_duplicate_similarity", expected, self.near_duplicate_similarity.to_string());
        }
        let sketch = [
            ("near_duplicate_shingle_words", self.near_duplicate_shingle_words),
            ("near_duplicate_bands", self.near_duplicate_bands),
            ("near_duplicate_rows", self.near_duplicate_rows),
        ];
        for (key, value) in sketch {
            if !(1..=64).contains(&value) {
                return wrong(key, "a number from 1 to 64", value.to_string());
            }
        }
        if self.repeated_passage_words > 0 && !(20..=10_000).contains(&self.repeated_passage_words) {
            let expected = "0 (off), or from 20 to 10000: fewer words may well be a proverb or a name";
            return wrong("repeated_passage_words", expected, self.repeated_passage_words.to_string());
        }
        if !(self.label_weight.is_finite() && self.label_weight >= 1.0) {
            return wrong("label_weight", "a number of at least 1", self.label_weight.to_string());
        }
        if matches!(self.boilerplate_documents, 1 | 2) {
            let expected = "0 (off), or at least 3: two documents may well quote the same paragraph";
            return wrong("boilerplate_documents", expected, self.boilerplate_documents.to_string());
        }
        if self.record_limit_bytes < 1024 {
            return wrong("record_limit_bytes", "at least 1024", self.record_limit_bytes.to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_survive_toml() {
        let settings = Settings::default();
        settings.check().unwrap();
        assert_eq!(settings.languages.len(), LANGUAGE_COUNT);
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), settings);
        assert_eq!(toml::from_str::<Settings>("").unwrap(), settings);
    }

    fn check_error(text: &str, expected: &str) {
        let message = match toml::from_str::<Settings>(text) {
            Ok(settings) => settings.check().expect_err(text).to_string(),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(expected), "{text}: {message}");
    }

    #[test]
    fn wrong_values_name_their_key() {
        check_error("languages = []", "languages");
        check_error("fields = { body = 'content' }", "`body`");
        check_error("languages = ['bg', 'bg']", "`bg` twice");
        check_error("languages = ['xx']", "xx");
        check_error("licences = []", "licences");
        check_error("near_duplicate_similarity = 0.1", "near_duplicate_similarity");
        check_error("boilerplate_documents = 1", "boilerplate_documents");
        check_error("repeated_passage_words = 5", "repeated_passage_words");
        check_error("maximum_personal_data_share = 7.0", "maximum_personal_data_share");
        check_error("wrong_language = 'guess'", "relabel");
        check_error("record_limit_bytes = 3", "record_limit_bytes");
        check_error("robots_agents = ['GPTBot/1.0']", "GPTBot/1.0");
        check_error("keep_metadata = ['title', 'score']", "\"score\"");
        check_error("own_agent = 'our bot'", "own_agent");
    }
}
