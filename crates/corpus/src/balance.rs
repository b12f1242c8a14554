//! How much of each language and source is taken: budgets, caps, and repeats where there is too little.
//!
//! A budget names a language, a source, both, or neither (all text), and an amount. Documents are taken in an order that
//! follows from their words and the seed, or from their score; each must fit into every budget that concerns it. Where a
//! budget with `repeats` is not filled when all documents were shown, they are shown again, each copy fitting likewise.
//! The order of the input plays no part.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use languages::Language;
use serde::{Deserialize, Serialize};

use crate::block::first_eight;
use crate::error::Error;
use crate::statistics::PartStatistics;
use crate::words::mix;

/// A document stands at most so often: what is repeated more than that teaches little (Muennighoff et al. 2023,
/// "Scaling Data-Constrained Language Models").
pub const MOST_REPEATS: u8 = 16;

/// How the training part is balanced. Held-out text is none of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BalanceSettings {
    pub unit: Unit,
    /// Bytes of text in one token, for `unit = "tokens"`: the tokenizer is made after the corpus, so its measure is given,
    /// such as from the fairness report of one made before.
    pub bytes_per_token: f64,
    pub choose: Choose,
    pub budgets: Vec<Budget>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    #[default]
    Bytes,
    Words,
    Tokens,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choose {
    #[default]
    Random,
    /// The highest scores first; needs `good_texts`.
    Score,
}

/// An amount of text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// ISO 639-1; absent: any language. `each` instead: every language has this budget for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Scope<Language>>,
    /// As documents name it; absent: any source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Scope<String>>,
    /// In the unit of the settings.
    pub amount: u64,
    /// How often a document may stand to fill the budget; 1: once.
    #[serde(default = "once")]
    pub repeats: u8,
}

/// The training part of a language before and after, for `statistics.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceStatistics {
    pub before: PartStatistics,
    /// As the shards have it: repeated documents as often as they stand.
    pub after: PartStatistics,
    /// Documents left out, and documents that stand more than once.
    pub over_budget: u64,
    pub repeated: u64,
    /// By source (`none` where a record names none): bytes of text before and after.
    pub sources: BTreeMap<String, (u64, u64)>,
}

/// One of many, or each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope<T> {
    One(T),
    Each,
}

fn once() -> u8 {
    1
}

impl<T: Serialize> Serialize for Scope<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Scope::One(one) => one.serialize(serializer),
            Scope::Each => serializer.serialize_str("each"),
        }
    }
}

impl<'de, T: FromStr<Err: std::fmt::Display>> Deserialize<'de> for Scope<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "each" => Ok(Scope::Each),
            text => text.parse().map(Scope::One).map_err(serde::de::Error::custom),
        }
    }
}

impl BalanceSettings {
    pub fn is_on(&self) -> bool {
        !self.budgets.is_empty()
    }

    pub fn check(&self, languages: &[Language]) -> Result<(), Error> {
        let wrong = |key, expected, found: String| Err(Error::Setting { key, expected, found });
        if self.unit == Unit::Tokens && !(self.bytes_per_token >= 0.5 && self.bytes_per_token <= 64.0) {
            let expected = "the bytes of text in a token (0.5 to 64) for `unit = \"tokens\"`";
            return wrong("balance.bytes_per_token", expected, self.bytes_per_token.to_string());
        }
        if self.unit != Unit::Tokens && self.bytes_per_token != 0.0 {
            let expected = "nothing, unless `unit = \"tokens\"`";
            return wrong("balance.bytes_per_token", expected, self.bytes_per_token.to_string());
        }
        for budget in &self.budgets {
            if budget.amount == 0 {
                return wrong("balance.budgets", "an `amount` above 0", "0".to_string());
            }
            if !(1..=MOST_REPEATS).contains(&budget.repeats) {
                return wrong("balance.budgets", "`repeats` from 1 to 16", budget.repeats.to_string());
            }
            if let Some(Scope::One(language)) = &budget.language
                && !languages.contains(language)
            {
                let expected = "languages that `languages` names";
                return wrong("balance.budgets", expected, format!("`{language}`"));
            }
        }
        let same =
            |left: &Budget, right: &Budget| left.language == right.language && left.source == right.source;
        let mut pairs = self.budgets.iter().enumerate();
        if let Some((_, twice)) =
            pairs.find(|(place, budget)| self.budgets[..*place].iter().any(|before| same(before, budget)))
        {
            let found = serde_json::to_string(twice).unwrap_or_default();
            return wrong(
                "balance.budgets",
                "one budget for each language and source",
                format!("a second: {found}"),
            );
        }
        Ok(())
    }

    /// The size of a document in the unit of the budgets: thousandths of tokens, so that small texts do not vanish.
    pub fn size(&self, bytes: u64, words: u64) -> u64 {
        match self.unit {
            Unit::Bytes => bytes,
            Unit::Words => words,
            Unit::Tokens => (bytes as f64 * 1000.0 / self.bytes_per_token) as u64,
        }
    }

    fn room(&self, amount: u64) -> u64 {
        match self.unit {
            Unit::Tokens => amount.saturating_mul(1000),
            Unit::Bytes | Unit::Words => amount,
        }
    }
}

/// A document that may be taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub language: Language,
    /// Its place in a list of all sources.
    pub source: u32,
    /// In the unit of the budgets, see [`BalanceSettings::size`].
    pub size: u64,
    /// Documents come in the order of the highest score (0 where there are none), then of this.
    pub key: u64,
    pub score: u16,
    /// Between documents that agree in all else.
    pub id_hash: u64,
}

/// What decides about a document where scores do not: its words and the seed, never its place.
pub fn key_of(seed: u64, digest_of_words: &[u8; 32]) -> u64 {
    mix(mix(seed ^ 0xba1a) ^ first_eight(digest_of_words))
}

/// How often each candidate stands in the training part; 0: not at all. `sources` holds their names.
pub fn balance(settings: &BalanceSettings, candidates: &[Candidate], sources: &[Option<String>]) -> Vec<u8> {
    let mut accounts = Accounts::new(settings, sources);
    let mut order: Vec<u32> = (0..candidates.len() as u32).collect();
    let by_score = settings.choose == Choose::Score;
    order.sort_unstable_by(|&left, &right| {
        let (left, right) = (&candidates[left as usize], &candidates[right as usize]);
        let scores = if by_score { right.score.cmp(&left.score) } else { std::cmp::Ordering::Equal };
        scores.then(left.key.cmp(&right.key)).then(left.id_hash.cmp(&right.id_hash))
    });
    let mut copies = vec![0u8; candidates.len()];
    let most = settings.budgets.iter().map(|budget| budget.repeats).max().unwrap_or(1);
    for round in 1..=most {
        let mut taken = false;
        for &place in &order {
            let candidate = &candidates[place as usize];
            // A copy comes after the one before it, or not at all.
            if copies[place as usize] == round - 1 && accounts.take(candidate, round) {
                copies[place as usize] = round;
                taken = true;
            }
        }
        if !taken {
            break;
        }
    }
    copies
}

/// What is left of each budget.
struct Accounts<'a> {
    settings: &'a BalanceSettings,
    sources: &'a [Option<String>],
    /// For each budget one account, or one for each language, source, or both.
    left: Vec<HashMap<(u32, u32), u64>>,
}

impl<'a> Accounts<'a> {
    fn new(settings: &'a BalanceSettings, sources: &'a [Option<String>]) -> Accounts<'a> {
        Accounts { settings, sources, left: vec![HashMap::new(); settings.budgets.len()] }
    }

    /// Which account of a budget a document belongs to; none where the budget does not concern it.
    fn account(&self, budget: &Budget, candidate: &Candidate) -> Option<(u32, u32)> {
        let language = match &budget.language {
            None => 0,
            Some(Scope::Each) => candidate.language.index() as u32 + 1,
            Some(Scope::One(language)) if *language == candidate.language => 0,
            Some(Scope::One(_)) => return None,
        };
        let source = match &budget.source {
            None => 0,
            Some(Scope::Each) => candidate.source + 1,
            Some(Scope::One(name)) if self.sources[candidate.source as usize].as_deref() == Some(name) => 0,
            Some(Scope::One(_)) => return None,
        };
        Some((language, source))
    }

    /// Takes a document, in the round in which it stands so often, if every budget that concerns it has room and, from
    /// the second round on, wants repeats. A document that no budget concerns is taken once.
    fn take(&mut self, candidate: &Candidate, round: u8) -> bool {
        let budgets = &self.settings.budgets;
        let accounts: Vec<(usize, (u32, u32))> = budgets
            .iter()
            .enumerate()
            .filter_map(|(place, budget)| Some((place, self.account(budget, candidate)?)))
            .collect();
        let wanted = accounts.iter().any(|(place, _)| budgets[*place].repeats >= round);
        if round > 1 && !wanted {
            return false;
        }
        let room = |place: usize, account: &(u32, u32)| {
            self.left[place]
                .get(account)
                .copied()
                .unwrap_or_else(|| self.settings.room(budgets[place].amount))
        };
        if accounts.iter().any(|(place, account)| room(*place, account) < candidate.size) {
            return false;
        }
        for (place, account) in accounts {
            let amount = self.settings.room(budgets[place].amount);
            *self.left[place].entry(account).or_insert(amount) -= candidate.size;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language(code: &str) -> Language {
        Language::from_code(code).unwrap()
    }

    fn settings(toml: &str) -> BalanceSettings {
        toml::from_str(toml).unwrap()
    }

    /// Documents of 10 bytes: language and source each.
    fn candidates(documents: &[(&str, u32)]) -> Vec<Candidate> {
        let candidate = |(place, (code, source)): (usize, &(&str, u32))| Candidate {
            language: language(code),
            source: *source,
            size: 10,
            key: mix(place as u64),
            score: place as u16,
            id_hash: place as u64,
        };
        documents.iter().enumerate().map(candidate).collect()
    }

    fn sources() -> Vec<Option<String>> {
        vec![None, Some("news".to_string()), Some("law".to_string())]
    }

    #[test]
    fn budgets_cap_languages_and_sources() {
        let documents: Vec<(&str, u32)> =
            (0..60).map(|n| (["mt", "ga", "de"][n % 3], (n / 3 % 3) as u32)).collect();
        let candidates = candidates(&documents);
        let taken = |toml: &str, holds: &dyn Fn(&(&str, u32)) -> bool| {
            let copies = balance(&settings(toml), &candidates, &sources());
            let of = documents.iter().zip(&copies).filter(|(document, _)| holds(document));
            of.map(|(_, copies)| u32::from(*copies)).sum::<u32>()
        };
        let all = |_: &(&str, u32)| true;
        assert_eq!(taken("budgets = [{ amount = 255 }]", &all), 25);
        let maltese = "budgets = [{ language = 'mt', amount = 70 }]";
        assert_eq!(taken(maltese, &|document| document.0 == "mt"), 7);
        assert_eq!(taken(maltese, &|document| document.0 != "mt"), 40);
        let each = "budgets = [{ language = 'each', amount = 50 }]";
        assert_eq!(taken(each, &all), 15);
        let law =
            "budgets = [{ source = 'law', amount = 30 }, { language = 'ga', source = 'law', amount = 10 }]";
        assert_eq!(taken(law, &|document| document.1 == 2), 3);
        assert!(taken(law, &|document| *document == ("ga", 2)) <= 1);
        assert_eq!(taken("budgets = [{ language = 'each', source = 'each', amount = 20 }]", &all), 18);
        let words = "unit = 'tokens'\nbytes_per_token = 4.0\nbudgets = [{ amount = 10 }]";
        let copies = balance(
            &settings(words),
            &candidates
                .iter()
                .map(|c| Candidate { size: settings(words).size(10, 2), ..*c })
                .collect::<Vec<_>>(),
            &sources(),
        );
        assert_eq!(copies.iter().filter(|copies| **copies > 0).count(), 4);
    }

    #[test]
    fn what_is_too_little_is_repeated_up_to_its_limit() {
        let documents: Vec<(&str, u32)> = [("mt", 0); 3].into_iter().chain([("de", 0); 10]).collect();
        let candidates = candidates(&documents);
        let check = |toml: &str, maltese: &[u8]| {
            let mut copies = balance(&settings(toml), &candidates, &sources());
            assert!(copies[3..].iter().all(|copies| *copies == 1), "{toml}");
            copies.truncate(3);
            copies.sort_unstable();
            assert_eq!(copies, maltese, "{toml}");
        };
        check("budgets = [{ language = 'mt', amount = 1000, repeats = 4 }]", &[4, 4, 4]);
        check("budgets = [{ language = 'mt', amount = 85, repeats = 4 }]", &[2, 3, 3]);
        check("budgets = [{ language = 'mt', amount = 25, repeats = 4 }]", &[0, 1, 1]);
        check("budgets = [{ language = 'mt', amount = 1000, repeats = 4 }, { amount = 160 }]", &[2, 2, 2]);
    }

    #[test]
    fn the_order_of_the_input_plays_no_part_and_scores_do_if_asked() {
        let documents = [("mt", 0); 40];
        let mut candidates = candidates(&documents);
        let chosen = |candidates: &[Candidate], toml: &str| {
            let copies = balance(&settings(toml), candidates, &sources());
            let mut ids: Vec<u64> = candidates
                .iter()
                .zip(copies)
                .filter(|(_, copies)| *copies > 0)
                .map(|(c, _)| c.id_hash)
                .collect();
            ids.sort_unstable();
            ids
        };
        let random = chosen(&candidates, "budgets = [{ amount = 100 }]");
        let best = chosen(&candidates, "choose = 'score'\nbudgets = [{ amount = 100 }]");
        assert_eq!(best, (30..40).collect::<Vec<u64>>());
        assert_ne!(random, best);
        candidates.reverse();
        assert_eq!(chosen(&candidates, "budgets = [{ amount = 100 }]"), random);
        assert_ne!(key_of(1, &[7; 32]), key_of(2, &[7; 32]));
    }

    #[test]
    fn settings_are_checked() {
        let check = |toml: &str, expected: &str| {
            let message = match toml::from_str::<BalanceSettings>(toml) {
                Ok(settings) => settings.check(&[language("mt")]).expect_err(toml).to_string(),
                Err(error) => error.to_string(),
            };
            assert!(message.contains(expected), "{toml}: {message}");
        };
        check("unit = 'tokens'", "bytes_per_token");
        check("bytes_per_token = 4.0", "unless");
        check("budgets = [{ amount = 0 }]", "above 0");
        check("budgets = [{ amount = 9, repeats = 90 }]", "1 to 16");
        check("budgets = [{ language = 'de', amount = 9 }]", "`de`");
        check("budgets = [{ language = 'xx', amount = 9 }]", "xx");
        check("budgets = [{ amount = 9 }, { amount = 10 }]", "a second");
        check("budgets = [{ language = 'mt' }]", "amount");
        assert!(settings("budgets = [{ language = 'each', source = 'law', amount = 9 }]").check(&[]).is_ok());
        let text =
            toml::to_string(&settings("budgets = [{ language = 'each', source = 'law', amount = 9 }]"))
                .unwrap();
        assert!(text.contains("\"each\""), "{text}");
    }
}
