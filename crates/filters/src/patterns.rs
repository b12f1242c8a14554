//! Block and allow patterns: regular expressions over a stream.
//!
//! A match of an expression without end (`\d+`, `.*`) can grow as long as the stream does. Here every expression is
//! rewritten before it is compiled: a repetition without end may repeat [`OPEN_REPETITIONS`] times beyond its minimum. So
//! each expression has a longest match, of so many bytes; a place that has that many bytes after it is decided, and later
//! ones wait. The crate `regex` keeps the time linear.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind, Repetition};

use crate::error::FilterError;
use crate::settings::{Action, PatternsSettings};
use crate::stage::{Output, Stage, Stop, floor};

/// A repetition without end counts as at most so many more.
pub const OPEN_REPETITIONS: u32 = 64;

/// Longest match that a pattern may have, in bytes: so much of a stream is held back.
const LONGEST_MATCH: usize = 4096;

/// Bytes of one compiled set of patterns: a repetition with an end is compiled so many times over, and a class of all
/// letters of Unicode takes 70 KB each time.
const SIZE_LIMIT: usize = 32 << 20;
/// Bytes of the automaton that a search builds while it runs.
const SEARCH_LIMIT: usize = 8 << 20;
/// Nested groups in a pattern.
const NEST_LIMIT: u32 = 50;

/// What `\b` and `$` look at beyond a match: one character.
const LOOK: usize = 4;

/// Text before what is undecided that is kept, for what `\b` and `(?m)^` look back at.
const CONTEXT: usize = 8;
/// Decided text is thrown away in pieces of this size at least.
const DRAINED: usize = 4096;

/// The compiled patterns of one filter.
pub(crate) struct PatternSet {
    block: Regex,
    /// Matches a whole stretch that is allowed.
    allow: Option<Regex>,
    /// Bytes that have to follow a place before it is decided.
    window: usize,
}

impl PatternSet {
    pub fn compile(settings: &PatternsSettings) -> Result<PatternSet, FilterError> {
        let name = &settings.name;
        if settings.block.is_empty() {
            return Err(FilterError::Setting {
                name: name.clone(),
                key: "block",
                expected: "at least one pattern".to_string(),
                found: "none".to_string(),
            });
        }
        let mut window = 0;
        let mut blocks = Vec::with_capacity(settings.block.len());
        for pattern in &settings.block {
            let (expression, longest) = bounded(pattern).map_err(|problem| FilterError::Pattern {
                name: name.clone(),
                key: "block",
                pattern: pattern.clone(),
                problem,
            })?;
            window = window.max(longest + LOOK);
            blocks.push(format!("(?:{expression})"));
        }
        let mut allows = Vec::with_capacity(settings.allow.len());
        for pattern in &settings.allow {
            let (expression, _) = bounded(pattern).map_err(|problem| FilterError::Pattern {
                name: name.clone(),
                key: "allow",
                pattern: pattern.clone(),
                problem,
            })?;
            allows.push(format!("(?:{expression})"));
        }
        let compile = |key: &'static str, expression: &str, all: &[String]| {
            let built = RegexBuilder::new(expression)
                .size_limit(SIZE_LIMIT)
                .dfa_size_limit(SEARCH_LIMIT)
                .nest_limit(NEST_LIMIT * 2)
                .build();
            built.map_err(|error| FilterError::Pattern {
                name: name.clone(),
                key,
                pattern: all.join(" | ").chars().take(200).collect(),
                problem: format!("{error}; shorter repetitions, such as `{{0,20}}`, make it smaller"),
            })
        };
        let block = compile("block", &blocks.join("|"), &settings.block)?;
        let allow = match allows.is_empty() {
            true => None,
            false => Some(compile("allow", &format!(r"\A(?:{})\z", allows.join("|")), &settings.allow)?),
        };
        Ok(PatternSet { block, allow, window })
    }
}

/// The expression with an end to every repetition, and the length of its longest match in bytes.
fn bounded(pattern: &str) -> Result<(String, usize), String> {
    let parsed = ParserBuilder::new()
        .nest_limit(NEST_LIMIT)
        .build()
        .parse(pattern)
        .map_err(|error| format!("not a regular expression: {error}"))?;
    let bounded = with_ends(&parsed);
    let properties = bounded.properties();
    if properties.minimum_len().unwrap_or(0) == 0 {
        return Err("it matches the empty text, which is everywhere".to_string());
    }
    match properties.maximum_len() {
        Some(longest) if longest <= LONGEST_MATCH => Ok((bounded.to_string(), longest)),
        longest => Err(format!(
            "its longest match has {} bytes, and a stream is held back by at most {LONGEST_MATCH}: give its repetitions \
             an end, such as `{{0,20}}`",
            longest.map_or("too many".to_string(), |longest| longest.to_string())
        )),
    }
}

fn with_ends(expression: &Hir) -> Hir {
    match expression.kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0.clone()),
        HirKind::Class(class) => Hir::class(class.clone()),
        HirKind::Look(look) => Hir::look(*look),
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            min: repetition.min,
            max: repetition.max.or(Some(repetition.min.saturating_add(OPEN_REPETITIONS))),
            greedy: repetition.greedy,
            sub: Box::new(with_ends(&repetition.sub)),
        }),
        // Groups are not asked for afterwards.
        HirKind::Capture(capture) => with_ends(&capture.sub),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(with_ends).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(with_ends).collect()),
    }
}

pub(crate) struct Patterns {
    action: Action,
    replacement: String,
    set: Arc<PatternSet>,
    buffer: String,
    /// Everything before this place in the buffer has been given on.
    decided: usize,
}

impl Patterns {
    pub fn new(settings: &PatternsSettings, set: Arc<PatternSet>) -> Patterns {
        Patterns {
            action: settings.action,
            replacement: settings.replacement.clone(),
            set,
            buffer: String::new(),
            decided: 0,
        }
    }

    fn decide(&mut self, is_end: bool, output: &mut Output) -> Result<(), Stop> {
        // A match that begins before this place lies in the buffer with all that it looks at.
        let trusted =
            if is_end { self.buffer.len() } else { (self.buffer.len() + 1).saturating_sub(self.set.window) };
        while self.decided < trusted {
            let found = self.set.block.find_at(&self.buffer, self.decided);
            let Some(found) = found.filter(|found| found.start() < trusted) else { break };
            let (start, end) = (found.start(), found.end());
            let stretch = found.as_str();
            output.text.push_str(&self.buffer[self.decided..start]);
            self.decided = end;
            if self.set.allow.as_ref().is_some_and(|allow| allow.is_match(stretch)) {
                output.text.push_str(stretch);
            } else {
                output.finding(self.action, stretch, &self.replacement)?;
            }
        }
        let trusted = floor(&self.buffer, trusted);
        if trusted > self.decided {
            output.text.push_str(&self.buffer[self.decided..trusted]);
            self.decided = trusted;
        }
        if self.decided > DRAINED {
            let kept = floor(&self.buffer, self.decided - CONTEXT);
            self.buffer.drain(..kept);
            self.decided -= kept;
        }
        Ok(())
    }
}

impl Stage for Patterns {
    fn push(&mut self, text: &str, output: &mut Output) -> Result<(), Stop> {
        self.buffer.push_str(text);
        self.decide(false, output)
    }

    fn finish(&mut self, output: &mut Output) -> Result<(), Stop> {
        self.decide(true, output)
    }

    fn holds_nothing(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_get_an_end() {
        let check =
            |pattern: &str, longest: usize| assert_eq!(bounded(pattern).unwrap().1, longest, "{pattern}");
        check("secret", 6);
        check(r"(?-u:\d)+", 65);
        check("(?:a[a-z]*?b)?c", 67);
        check("[a-z]{2,}", 66);
        for wrong in ["", "a*", "(", "(?:a{1,100}){1,100}", r"(a+)+b", "(?=a)"] {
            assert!(bounded(wrong).is_err(), "{wrong}");
        }
    }
}
