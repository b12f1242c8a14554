//! The table: `results.json` for programs, `results.md` for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

/// All that an evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Results {
    /// By ISO 639-1 code.
    pub languages: BTreeMap<&'static str, LanguageResults>,
    /// Mean over the languages, each counting the same.
    pub mean: Figures,
    /// All held-out text as one: bits by bytes. LZMA here compresses the joint held-out text alone.
    pub joint: Figures,
    /// Tokens that the model saw at once, and tokens that a window scored.
    pub context_length: usize,
    pub stride: usize,
    pub comparisons: Comparisons,
}

/// One language's held-out text and what it costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LanguageResults {
    #[serde(flatten)]
    pub figures: Figures,
    pub documents: usize,
    /// UTF-8 bytes of the held-out documents.
    pub bytes: u64,
    /// Words between white space.
    pub words: u64,
    pub tokens: u64,
}

/// Bits per byte of the model and of the comparisons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    pub bits_per_byte: f64,
    pub lzma_bits_per_byte: f64,
    pub ngram_bits_per_byte: f64,
    pub kneser_ney_bits_per_byte: f64,
    pub tokens_per_word: f64,
}

/// What the comparisons are and what they have seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparisons {
    pub lzma: &'static str,
    pub ngram: &'static str,
    pub kneser_ney: &'static str,
    /// Bytes of training text that LZMA saw before each language's held-out text.
    pub lzma_training_bytes: u64,
    /// Bytes of training text that the n-gram model learned from.
    pub ngram_training_bytes: u64,
    /// Bytes of training text that were there, as far as they were read.
    pub training_text_is_whole: bool,
}

impl Figures {
    /// The unweighted mean.
    pub fn mean<'a>(figures: impl Iterator<Item = &'a Figures>) -> Figures {
        let mut sum = Figures::default();
        let mut count = 0.0f64;
        for figures in figures {
            sum.bits_per_byte += figures.bits_per_byte;
            sum.lzma_bits_per_byte += figures.lzma_bits_per_byte;
            sum.ngram_bits_per_byte += figures.ngram_bits_per_byte;
            sum.kneser_ney_bits_per_byte += figures.kneser_ney_bits_per_byte;
            sum.tokens_per_word += figures.tokens_per_word;
            count += 1.0;
        }
        let count = count.max(1.0);
        let figures = Figures {
            bits_per_byte: sum.bits_per_byte / count,
            lzma_bits_per_byte: sum.lzma_bits_per_byte / count,
            ngram_bits_per_byte: sum.ngram_bits_per_byte / count,
            kneser_ney_bits_per_byte: sum.kneser_ney_bits_per_byte / count,
            tokens_per_word: sum.tokens_per_word / count,
        };
        figures.rounded()
    }

    /// To six decimals, so that a logarithm whose last bit another C library rounds otherwise gives the same table.
    pub(crate) fn rounded(self) -> Figures {
        let round = |value: f64| (value * 1e6).round() / 1e6;
        Figures {
            bits_per_byte: round(self.bits_per_byte),
            lzma_bits_per_byte: round(self.lzma_bits_per_byte),
            ngram_bits_per_byte: round(self.ngram_bits_per_byte),
            kneser_ney_bits_per_byte: round(self.kneser_ney_bits_per_byte),
            tokens_per_word: round(self.tokens_per_word),
        }
    }
}

impl Results {
    /// Languages in which the model needs fewer bits than LZMA and than the Witten-Bell model.
    pub fn languages_ahead(&self) -> usize {
        let ahead = |figures: &Figures| {
            figures.bits_per_byte < figures.lzma_bits_per_byte
                && figures.bits_per_byte < figures.ngram_bits_per_byte
        };
        self.languages.values().filter(|language| ahead(&language.figures)).count()
    }

    /// Languages in which the model needs fewer bits than the Kneser-Ney model, the strongest comparison.
    pub fn languages_ahead_of_kneser_ney(&self) -> usize {
        let ahead = |figures: &Figures| figures.bits_per_byte < figures.kneser_ney_bits_per_byte;
        self.languages.values().filter(|language| ahead(&language.figures)).count()
    }

    /// The results as a Markdown page.
    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "# Bits per byte on held-out text\n\nLower is better. Every byte is scored once, in windows of {} tokens of which \
             up to {} are scored at a time. Ahead of LZMA and Witten-Bell in {} of {} languages, of Kneser-Ney in {}.\n\n- LZMA: {}. On the joint \
             held-out text alone: {:.3}.\n- Witten-Bell: {}.\n- Kneser-Ney: {}.\n",
            self.context_length,
            self.stride,
            self.languages_ahead(),
            self.languages.len(),
            self.languages_ahead_of_kneser_ney(),
            self.comparisons.lzma,
            self.joint.lzma_bits_per_byte,
            self.comparisons.ngram,
            self.comparisons.kneser_ney,
        );
        if !self.comparisons.training_text_is_whole {
            text.push_str("- The comparisons saw a part of the training text; see `results.json`.\n");
        }
        text.push_str(
            "\n| language | model | LZMA | Witten-Bell | Kneser-Ney | tokens per word | documents | bytes | tokens |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        for (code, language) in &self.languages {
            let figures = row(&language.figures);
            let _ = writeln!(
                text,
                "| {code} | {figures} | {} | {} | {} |",
                language.documents, language.bytes, language.tokens
            );
        }
        let documents: usize = self.languages.values().map(|language| language.documents).sum();
        let bytes: u64 = self.languages.values().map(|language| language.bytes).sum();
        let tokens: u64 = self.languages.values().map(|language| language.tokens).sum();
        let _ = writeln!(text, "| **mean** | {} | {documents} | {bytes} | {tokens} |", row(&self.mean));
        text
    }
}

fn row(figures: &Figures) -> String {
    format!(
        "{:.3} | {:.3} | {:.3} | {:.3} | {:.2}",
        figures.bits_per_byte,
        figures.lzma_bits_per_byte,
        figures.ngram_bits_per_byte,
        figures.kneser_ney_bits_per_byte,
        figures.tokens_per_word
    )
}
