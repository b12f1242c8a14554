//! The catalogue: open models that European users run, with their facts as published. Data, not code: `data/catalogue.toml`.

use serde::{Deserialize, Serialize};

use crate::Address;

/// The catalogue that the program carries.
const DATA: &str = include_str!("../data/catalogue.toml");

/// The models that have a name here.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// In the order of the file.
    #[serde(rename = "model")]
    pub models: Vec<Model>,
}

/// One model and what its publisher says about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What `eulalia pull` calls it.
    pub name: String,
    /// `ORG/REPOSITORY` on the hub.
    pub repository: String,
    /// Commit, branch or tag that is fetched.
    #[serde(default = "main")]
    pub revision: String,
    /// Who publishes it.
    pub publisher: String,
    /// In billions; rounded as published.
    pub parameters_billions: f64,
    /// Of the files that are fetched, roughly.
    pub approximate_bytes: u64,
    /// Those of the 24 official languages of the European Union that its publisher names, ISO 639-1.
    pub languages: Vec<String>,
    /// Licence as its publisher names it.
    pub license: String,
    /// What the licence or the publisher asks beyond naming them; empty where nothing.
    #[serde(default)]
    pub conditions: String,
    /// Whether conditions have to be accepted on the hub first; absent where that is not known.
    pub gated: Option<bool>,
    /// `architectures` of its configuration.
    pub architecture: String,
    /// `base` continues texts, `instruct` answers.
    pub kind: Kind,
    /// What it is good for, in a sentence.
    #[serde(rename = "use")]
    pub suggested_use: String,
    /// What stands in the way of loading it here, if anything is known.
    #[serde(default)]
    pub note: String,
}

/// What a model was trained to do last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Continues a text.
    Base,
    /// Answers in conversations.
    Instruct,
}

fn main() -> String {
    "main".to_string()
}

impl Catalogue {
    /// The catalogue of this version of the program.
    pub fn embedded() -> Catalogue {
        toml::from_str(DATA).expect("a test reads the catalogue")
    }

    /// The model with this name, whichever way its letters are written.
    pub fn find(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name.eq_ignore_ascii_case(name))
    }
}

impl Model {
    /// Where it is fetched from.
    ///
    /// # Errors
    /// Says which part of the entry is no name.
    pub fn address(&self) -> Result<Address, String> {
        Address::new(&self.repository, &self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFICIAL: &str = "bg cs da de el en es et fi fr ga hr hu it lt lv mt nl pl pt ro sk sl sv";

    #[test]
    fn every_entry_is_whole() {
        let catalogue: Catalogue = toml::from_str(DATA).unwrap_or_else(|error| panic!("{error}"));
        let mut names = std::collections::BTreeSet::new();
        for model in &catalogue.models {
            let name = &model.name;
            assert!(names.insert(name.to_lowercase()), "{name} twice");
            assert!(
                name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c)),
                "{name}"
            );
            model.address().unwrap_or_else(|problem| panic!("{name}: {problem}"));
            assert!(!model.languages.is_empty() || model.note.contains("languages"), "{name}");
            assert!(model.languages.is_sorted(), "{name}: languages in order");
            for language in &model.languages {
                assert!(OFFICIAL.split(' ').any(|known| known == language), "{name}: {language}");
            }
            // Two bytes a parameter, four for a few.
            let per_parameter = model.approximate_bytes as f64 / (model.parameters_billions * 1e9);
            assert!((1.8..4.3).contains(&per_parameter), "{name}: {per_parameter} bytes a parameter");
            assert!(model.architecture.ends_with("ForCausalLM"), "{name}");
            assert!(!model.suggested_use.is_empty() && !model.publisher.is_empty(), "{name}");
        }
        assert!(catalogue.models.len() >= 15);
    }

    #[test]
    fn names_are_found_in_any_case() {
        let catalogue = Catalogue::embedded();
        let first = &catalogue.models[0];
        assert_eq!(catalogue.find(&first.name.to_uppercase()), Some(first));
        assert_eq!(catalogue.find("no-such-model"), None);
    }
}
