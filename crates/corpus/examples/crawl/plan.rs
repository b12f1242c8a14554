//! Which document is what: a function of the seed and the document's number alone, so that a copy can be made far from
//! its original, on any thread.

use languages::Language;
use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::words::Words;

/// What was planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plant {
    /// Nothing: has to be kept.
    Plain,
    /// The words of another document.
    ExactCopy,
    /// Another document with a few words changed: above the limit of similarity.
    NearCopy,
    /// Another document with many words changed: below the limit, has to be kept.
    FarCopy,
    /// On a site whose owner opted out.
    OptedOut,
    /// Reserved by the page itself.
    Reserved,
    /// No licence is named.
    NoLicense,
    /// With an e-mail address and a bank account.
    PersonalData,
    /// Half in another language.
    Mixed,
    /// A handful of words.
    Short,
    /// Ends in a paragraph that all pages of its site share.
    Boilerplate,
    /// A line that is no JSON, in JSON lines only.
    Broken,
}

/// Share of each plant, in thousandths; the rest is plain.
const SHARES: [(Plant, usize); 11] = [
    (Plant::ExactCopy, 20),
    (Plant::NearCopy, 20),
    (Plant::FarCopy, 10),
    (Plant::OptedOut, 10),
    (Plant::Reserved, 10),
    (Plant::NoLicense, 10),
    (Plant::PersonalData, 20),
    (Plant::Mixed, 10),
    (Plant::Short, 10),
    (Plant::Boilerplate, 50),
    (Plant::Broken, 2),
];

/// Sites a language.
const SITES: usize = 200;
/// No address at this site may stand anywhere in the corpus.
pub const MAIL_SITE: &str = "post.example";
pub const OPTED_OUT_SITE: &str = "geschlossen.example";

/// A document before it is written.
pub struct Page {
    pub number: u64,
    pub language: Language,
    pub plant: Plant,
    pub url: String,
    pub date: String,
    pub title: String,
    pub text: String,
    /// The number of the document that a copy repeats.
    pub of: Option<u64>,
}

/// All that pages are made from.
pub struct Plan {
    pub seed: u64,
    pub languages: Vec<(Language, Words)>,
}

impl Plan {
    /// What document `number` is.
    pub fn plant(&self, number: u64) -> Plant {
        let mut draw = Random::of(self.seed, number << 2).below(1000);
        // The first of each language are what copies may repeat.
        if number < self.languages.len() as u64 {
            return Plant::Plain;
        }
        for (plant, share) in SHARES {
            if draw < share {
                return plant;
            }
            draw -= share;
        }
        Plant::Plain
    }

    /// The document itself.
    pub fn page(&self, number: u64) -> Page {
        let plant = self.plant(number);
        let mut random = Random::of(self.seed, number << 2 | 1);
        let of = match plant {
            Plant::ExactCopy | Plant::NearCopy | Plant::FarCopy => Some(self.original(number, &mut random)),
            _ => None,
        };
        let place = (of.unwrap_or(number) % self.languages.len() as u64) as usize;
        let (language, words) = &self.languages[place];
        let text = match plant {
            Plant::ExactCopy => respaced(&self.body(of.unwrap_or(number), words)),
            Plant::NearCopy => changed(&self.body(of.unwrap_or(number), words), words, 70, &mut random),
            Plant::FarCopy => changed(&self.body(of.unwrap_or(number), words), words, 12, &mut random),
            Plant::Short => words.word(&mut random).to_string(),
            Plant::Mixed => {
                let (_, other) = &self.languages[(place + 7) % self.languages.len()];
                let (own, strange) = (words.text(&mut random, 110), other.text(&mut random, 110));
                format!("{own}\n\n{strange}")
            }
            Plant::PersonalData => {
                let address = format!("a{}@{MAIL_SITE}", random.digits(8));
                format!("{} {address}\n\n{}", self.body(number, words), iban(&mut random))
            }
            Plant::Boilerplate => format!("{}\n\n{}", self.body(number, words), self.footer(number, words)),
            _ => self.body(number, words),
        };
        let site = self.site(number, *language, plant);
        // A copy is younger than every original.
        let year = if of.is_some() { 2025 } else { 2015 + number % 10 };
        let date = format!("{year}-{:02}-{:02}", 1 + number % 12, 1 + number % 28);
        let title = words.word(&mut random).to_string();
        let url = format!("https://{site}/{number}");
        Page { number, language: *language, plant, url, date, title, text, of }
    }

    /// A plain document before this one.
    fn original(&self, number: u64, random: &mut Random) -> u64 {
        // Within the last hundred thousand, so that copies are found across files.
        let window = number.min(100_000);
        for _ in 0..64 {
            let candidate = number - 1 - random.below(window as usize) as u64;
            if self.plant(candidate) == Plant::Plain {
                return candidate;
            }
        }
        number % self.languages.len() as u64
    }

    /// The text that is a document's own.
    fn body(&self, number: u64, words: &Words) -> String {
        let mut random = Random::of(self.seed, number << 2 | 2);
        let length = 90 + random.below(280);
        words.text(&mut random, length)
    }

    fn site(&self, number: u64, language: Language, plant: Plant) -> String {
        match plant {
            Plant::OptedOut => OPTED_OUT_SITE.to_string(),
            _ => format!("site{}.{language}.example", number % SITES as u64),
        }
    }

    /// The paragraph that the pages of a site share.
    fn footer(&self, number: u64, words: &Words) -> String {
        let mut random = Random::of(self.seed ^ 0xf007, number % (SITES as u64 / 10));
        let mut text = String::new();
        for sentence in 0..2 {
            if sentence > 0 {
                text.push(' ');
            }
            words.sentence(&mut random, &mut text);
        }
        text
    }
}

/// One word in so many is another one.
fn changed(text: &str, words: &Words, one_in: usize, random: &mut Random) -> String {
    let mut out = String::with_capacity(text.len());
    for (place, paragraph) in text.split("\n\n").enumerate() {
        if place > 0 {
            out += "\n\n";
        }
        for (place, word) in paragraph.split(' ').enumerate() {
            if place > 0 {
                out.push(' ');
            }
            out += if random.below(one_in) == 0 { words.word(random) } else { word };
        }
    }
    out
}

/// A German account number with its check digits (ISO 13616).
fn iban(random: &mut Random) -> String {
    let account = random.digits(18);
    let digits = format!("{account}131400");
    let rest = digits.bytes().fold(0u32, |rest, digit| (rest * 10 + u32::from(digit - b'0')) % 97);
    format!("DE{:02}{account}", 98 - rest)
}

/// The same words with other spacing: still an exact copy.
fn respaced(text: &str) -> String {
    text.replacen("\n\n", "\n", 1).replacen(' ', "  ", 1)
}
