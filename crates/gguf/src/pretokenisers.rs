//! The rules that cut a text into pieces before bytes are merged, which GGUF names (`tokenizer.ggml.pre`) and
//! `tokenizer.json` spells out. The names are llama.cpp's (`src/llama-vocab.cpp`); where it writes an expression in a form
//! that its own matcher can read, the published form stands here.

use serde_json::{Value, json};

/// GPT-2's rule, which the `tokenizers` library has built in (`ByteLevel` with `use_regex`).
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const DIGIT: &str = r"\p{N}";

/// A rule by its names; the first is written.
pub(crate) struct Rule {
    pub names: &'static [&'static str],
    /// Applied one after another, each to the pieces that the one before left.
    pub expressions: &'static [&'static str],
    /// Whether a piece that is a token is taken whole, without merging.
    pub ignores_merges: bool,
    /// Whether texts begin with the first token where the file does not say.
    pub begins: bool,
    /// Whether the published tokenizer brings texts into Unicode's composed form first, which the file does not say.
    pub composes: bool,
}

const PLAIN: Rule =
    Rule { names: &[], expressions: &[], ignores_merges: false, begins: false, composes: false };

pub(crate) const RULES: &[Rule] = &[
    Rule {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0", "lfm2"],
        expressions: &[LLAMA3],
        ignores_merges: true,
        begins: true,
        ..PLAIN
    },
    Rule { names: &["dbrx", "smaug-bpe"], expressions: &[LLAMA3], ..PLAIN },
    Rule { names: &["qwen2"], expressions: &[QWEN2], composes: true, ..PLAIN },
    Rule { names: &["deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"], expressions: &[QWEN2], ..PLAIN },
    Rule { names: &["qwen35"], expressions: &[QWEN35], composes: true, ..PLAIN },
    Rule { names: &["tekken"], expressions: &[TEKKEN], ignores_merges: true, begins: true, ..PLAIN },
    Rule { names: &["gpt-4o", "llama4"], expressions: &[GPT4O], ..PLAIN },
    Rule { names: &["gpt-2", "phi-2", "mpt", "olmo", "gigachat", "mellum"], expressions: &[GPT2], ..PLAIN },
    Rule {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        expressions: &[DIGIT, GPT2],
        ..PLAIN
    },
    Rule { names: &["viking"], expressions: &[BLOOM, DIGIT], ..PLAIN },
    Rule { names: &["poro-chat", "bloom", "gpt3-finnish"], expressions: &[BLOOM], ..PLAIN },
    Rule {
        names: &["default"],
        expressions: &[
            r"[\p{P}\$\+<=>\^~\|]+",
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
            r"\p{N}+",
            "[0-9][0-9][0-9]",
        ],
        ..PLAIN
    },
];

impl Rule {
    /// The rule with this name.
    pub fn named(name: &str) -> Result<&'static Rule, String> {
        RULES.iter().find(|rule| rule.names.contains(&name)).ok_or_else(|| {
            let known: Vec<&str> = RULES.iter().flat_map(|rule| rule.names.iter().copied()).collect();
            format!("tokenizer.ggml.pre is {name:?}; supported are: {}", known.join(", "))
        })
    }

    /// `pre_tokenizer` of `tokenizer.json`.
    pub fn to_json(&self) -> Value {
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
        });
        let split = |expression: &&str| json!({ "type": "Split", "pattern": { "Regex": expression }, "behavior": "Isolated", "invert": false });
        let mut steps: Vec<Value> = self.expressions.iter().map(split).collect();
        steps.push(byte_level);
        json!({ "type": "Sequence", "pretokenizers": steps })
    }

    /// The rule of a `tokenizer.json`, if it is one of these.
    pub fn of_json(pre_tokenizer: &Value, ignores_merges: bool) -> Option<&'static Rule> {
        let expressions = expressions(pre_tokenizer)?;
        let same = |rule: &&Rule| rule.expressions == expressions;
        let fitting = RULES.iter().filter(same).find(|rule| rule.ignores_merges == ignores_merges);
        fitting.or_else(|| RULES.iter().find(same))
    }
}

/// The expressions of a `pre_tokenizer`, where it consists of nothing else.
pub(crate) fn expressions(pre_tokenizer: &Value) -> Option<Vec<&str>> {
    match pre_tokenizer["type"].as_str()? {
        "Sequence" => {
            let steps = pre_tokenizer["pretokenizers"].as_array()?;
            Some(steps.iter().map(expressions).collect::<Option<Vec<_>>>()?.concat())
        }
        "Split" => {
            let isolated = pre_tokenizer["behavior"] == "Isolated" && pre_tokenizer["invert"] != true;
            pre_tokenizer["pattern"]["Regex"].as_str().filter(|_| isolated).map(|expression| vec![expression])
        }
        "Digits" => (pre_tokenizer["individual_digits"] == true).then(|| vec![DIGIT]),
        "ByteLevel" if pre_tokenizer["add_prefix_space"] == true => None,
        "ByteLevel" => Some(if pre_tokenizer["use_regex"] == false { Vec::new() } else { vec![GPT2] }),
        _ => None,
    }
}

/// Whether a `pre_tokenizer` turns text into the characters of a byte-level vocabulary.
pub(crate) fn is_byte_level(pre_tokenizer: &Value) -> bool {
    match pre_tokenizer["type"].as_str() {
        Some("ByteLevel") => true,
        Some("Sequence") => {
            pre_tokenizer["pretokenizers"].as_array().is_some_and(|steps| steps.iter().any(is_byte_level))
        }
        _ => false,
    }
}
