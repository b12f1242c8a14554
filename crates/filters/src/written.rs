//! A filter as it stands in the settings: one table whose keys depend on `kind`.
//!
//! Read by hand rather than by serde's tagged enums, which forget where each key stood: an error would then name the line
//! of another filter.

use std::fmt;
use std::path::PathBuf;

use personal_data::PersonalData;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::settings::{
    Action, FilterSettings, HiddenCharacters, InvisibleSettings, LengthSettings, PassagesSettings,
    PatternsSettings, PersonalDataSettings, ScriptsSettings,
};

/// Every key that a filter of any kind may have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    kind: Kind,
    name: String,
    action: Action,
    maximum_characters: Option<usize>,
    allowed: Option<Vec<String>>,
    what: Option<Vec<HiddenCharacters>>,
    kinds: Option<Vec<PersonalData>>,
    language: Option<String>,
    block: Option<Vec<String>>,
    allow: Option<Vec<String>>,
    file: Option<PathBuf>,
    replacement: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Length,
    Scripts,
    Invisible,
    PersonalData,
    Patterns,
    Passages,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Length => "length",
            Kind::Scripts => "scripts",
            Kind::Invisible => "invisible",
            Kind::PersonalData => "personal_data",
            Kind::Patterns => "patterns",
            Kind::Passages => "passages",
        }
    }

    /// Its keys beside `kind`, `name` and `action`.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Kind::Length => &["maximum_characters"],
            Kind::Scripts => &["allowed", "replacement"],
            Kind::Invisible => &["what"],
            Kind::PersonalData => &["kinds", "language"],
            Kind::Patterns => &["block", "allow", "replacement"],
            Kind::Passages => &["file", "replacement"],
        }
    }
}

impl<'de> Deserialize<'de> for FilterSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = FilterSettings;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a filter: `kind`, `name`, `action` and the keys of its kind")
    }

    // What fails within is told with the place of the filter's table, or of the value itself.
    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<FilterSettings, M::Error> {
        Written::deserialize(MapAccessDeserializer::new(map))?.settings().map_err(M::Error::custom)
    }
}

impl Written {
    fn settings(self) -> Result<FilterSettings, String> {
        let kind = self.kind;
        let keys = kind.keys();
        if let Some(other) = self.given().into_iter().find(|key| !keys.contains(key)) {
            let (name, kind) = (&self.name, kind.name());
            let keys = keys.join("`, `");
            return Err(format!(
                "filter `{name}`: `{other}` is no key of kind `{kind}`; beside `name` and `action` it has `{keys}`"
            ));
        }
        let missing = |key: &str| format!("filter `{}`: `{key}` is missing", self.name);
        let (name, action) = (self.name.clone(), self.action);
        Ok(match kind {
            Kind::Length => {
                let maximum_characters =
                    self.maximum_characters.ok_or_else(|| missing("maximum_characters"))?;
                FilterSettings::Length(LengthSettings { name, action, maximum_characters })
            }
            Kind::Scripts => {
                let allowed = self.allowed.ok_or_else(|| missing("allowed"))?;
                let replacement = self.replacement.unwrap_or_else(|| "\u{FFFD}".to_string());
                FilterSettings::Scripts(ScriptsSettings { name, action, allowed, replacement })
            }
            Kind::Invisible => {
                let what = self.what.unwrap_or_else(|| HiddenCharacters::ALL.to_vec());
                FilterSettings::Invisible(InvisibleSettings { name, action, what })
            }
            Kind::PersonalData => {
                let kinds = self.kinds.unwrap_or_else(|| PersonalData::ALL.to_vec());
                let language = self.language;
                FilterSettings::PersonalData(PersonalDataSettings { name, action, kinds, language })
            }
            Kind::Patterns => {
                let block = self.block.ok_or_else(|| missing("block"))?;
                let allow = self.allow.unwrap_or_default();
                let replacement = self.replacement.unwrap_or_else(|| "<REMOVED>".to_string());
                FilterSettings::Patterns(PatternsSettings { name, action, block, allow, replacement })
            }
            Kind::Passages => {
                let file = self.file.ok_or_else(|| missing("file"))?;
                let replacement = self.replacement.unwrap_or_else(|| "<OPTED_OUT>".to_string());
                FilterSettings::Passages(PassagesSettings { name, action, file, replacement })
            }
        })
    }

    /// The keys that were given, of those that not all kinds have.
    fn given(&self) -> Vec<&'static str> {
        let keys = [
            ("maximum_characters", self.maximum_characters.is_some()),
            ("allowed", self.allowed.is_some()),
            ("what", self.what.is_some()),
            ("kinds", self.kinds.is_some()),
            ("language", self.language.is_some()),
            ("block", self.block.is_some()),
            ("allow", self.allow.is_some()),
            ("file", self.file.is_some()),
            ("replacement", self.replacement.is_some()),
        ];
        keys.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::Settings;

    const TWO: &str = "[[input]]\nname = 'a'\nkind = 'length'\naction = 'refuse'\nmaximum_characters = 9\n\n\
                       [[input]]\nname = 'b'\nkind = 'patterns'\naction = 'refuse'\nblock = ['x']\n\n\
                       [[chains.c.output]]\nname = 'd'\nkind = 'length'\naction = 'refuse'\nmaximum_characters = 9\n\n\
                       [[chains.c.output]]\nname = 'e'\nkind = 'scripts'\naction = 'replace'\nallowed = ['Latin']\n";

    /// The error about settings that differ from those above, and the line that it is told of.
    fn check(old: &str, new: &str, line: usize, words: &[&str]) {
        let text = TWO.replace(old, new);
        assert_ne!(text, TWO);
        let error = toml::from_str::<Settings>(&text).unwrap_err().to_string();
        assert!(error.contains(&format!("at line {line},")), "{new}: {error}");
        assert!(words.iter().all(|word| error.contains(word)), "{new}: {error}");
    }

    #[test]
    fn an_error_names_the_line_of_its_filter() {
        toml::from_str::<Settings>(TWO).unwrap();
        check("block = ['x']", "blok = ['x']", 11, &["unknown field `blok`", "`block`"]);
        check("block = ['x']", "block = 'x'", 11, &["invalid type"]);
        check("'patterns'", "'paterns'", 9, &["unknown variant `paterns`"]);
        check(
            "'b'\nkind = 'patterns'\naction = 'refuse'",
            "'b'\nkind = 'patterns'\naction = 'no'",
            10,
            &["`no`"],
        );
        check("kind = 'patterns'\n", "", 7, &["missing field `kind`"]);
        check("block = ['x']\n", "", 7, &["filter `b`", "`block` is missing"]);
        check(
            "'patterns'",
            "'length'",
            7,
            &["filter `b`", "`block` is no key of kind `length`", "`maximum_characters`"],
        );
        check("allowed = ['Latin']", "allowed = [7]", 23, &["invalid type"]);
        check("allowed = ['Latin']", "file = 'x'", 19, &["filter `e`", "`file` is no key"]);
    }

    #[test]
    fn what_was_read_is_written_and_read_again() {
        let settings: Settings = toml::from_str(TWO).unwrap();
        let written = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<Settings>(&written).unwrap(), settings);
    }
}
