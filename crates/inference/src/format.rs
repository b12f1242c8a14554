//! Answers held to a form: a JSON Schema, a regular expression or a grammar (`llguidance`, an Earley parser over the
//! tokens' bytes).
//!
//! A form is compiled when its request is handed in, so that what cannot be followed is refused before anything is
//! computed. While the answer grows, the form says which tokens may follow; all settings of sampling then choose among
//! these. What a form allows depends on the answer so far and on nothing else, so an answer has the same bits in any
//! company here too.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use llguidance::api::TopLevelGrammar;
use llguidance::panic_utils::catch_unwind;
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;
use tokenizer::Tokenizer;
use toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie};

use crate::error::SubmitError;
use crate::schema_place;

/// Largest schema, expression or grammar, in bytes.
pub const LARGEST_FORMAT: usize = 256 << 10;
/// Largest expression or grammar, in bytes: they are compiled slower than schemas.
pub const LARGEST_GRAMMAR: usize = 16 << 10;
/// How long a form may wait for its compiler, and then be compiled. A compiler cannot be stopped: one that takes longer goes
/// on, and keeps its place until it ends, so that no more than [`COMPILERS`] ever run.
const PATIENCE: Duration = Duration::from_secs(10);
/// Forms that are compiled at a time; of one tenant, one.
const COMPILERS: usize = 2;
/// Deepest nesting of a schema, or of brackets in an expression or a grammar; JSON parsers stop at the same depth.
const DEEPEST_FORMAT: usize = 128;
/// The compiler calls itself for each property, reference and bracket; with the limits above it stays far below this. It
/// is address space, of which only what is used becomes memory.
const COMPILER_STACK: usize = 512 << 20;
/// Longer tokens (runs of spaces, mostly) are not used inside a form.
const LONGEST_TOKEN: usize = 256;
/// Memory of one form's lexer: 1 to 2 KiB each.
const MOST_LEXER_STATES: usize = 50_000;
/// White space between the parts of a JSON text: one space, or a new line and its indentation. Without an end, a model
/// that has nothing to say goes on with it for ever.
const JSON_SPACE: &str = r"\x20|\x0A[\x20\x09]{0,24}";

const NOTHING_FOLLOWS: &str = "no token of the vocabulary can follow";

/// The form of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerFormat {
    /// A JSON text that is valid under this schema. Keywords that cannot be enforced are refused.
    JsonSchema(Value),
    /// Any JSON object.
    JsonObject,
    /// A text that this expression (syntax of crate `regex`) matches as a whole.
    Regex(String),
    /// A text of this grammar, in llguidance's variant of Lark's syntax.
    Lark(String),
}

impl AnswerFormat {
    /// For messages.
    fn kind(&self) -> &'static str {
        match self {
            AnswerFormat::JsonSchema(_) | AnswerFormat::JsonObject => "JSON Schema",
            AnswerFormat::Regex(_) => "regular expression",
            AnswerFormat::Lark(_) => "grammar",
        }
    }

    fn grammar(&self) -> TopLevelGrammar {
        match self {
            AnswerFormat::JsonSchema(schema) => {
                let mut schema = match schema {
                    // A schema may be just `true`.
                    Value::Object(_) => schema.clone(),
                    other => serde_json::json!({"allOf": [other]}),
                };
                schema["x-guidance"] = serde_json::json!({"whitespace_pattern": JSON_SPACE});
                TopLevelGrammar::from_json_schema(schema)
            }
            AnswerFormat::JsonObject => {
                AnswerFormat::JsonSchema(serde_json::json!({"type": "object"})).grammar()
            }
            AnswerFormat::Regex(expression) => TopLevelGrammar::from_regex(expression),
            AnswerFormat::Lark(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
        }
    }
}

/// Compiles forms for one tokenizer.
pub struct FormatCompiler {
    /// Tokens that end every answer.
    end_tokens: Vec<u32>,
    compiler: Arc<Compiler>,
    places: Arc<Places>,
    /// The last form with its tenant: several answers to one request have the same. Another tenant's never serves, or the
    /// time that it saves would tell what that tenant asks.
    last: Mutex<Option<(String, AnswerFormat, Matcher)>>,
}

impl FormatCompiler {
    pub fn new(tokenizer: Arc<Tokenizer>, vocabulary_size: usize, end_tokens: Vec<u32>) -> FormatCompiler {
        FormatCompiler {
            end_tokens,
            compiler: Arc::new(Compiler { tokenizer, vocabulary_size, factory: OnceLock::new() }),
            places: Arc::default(),
            last: Mutex::new(None),
        }
    }

    /// `stop_tokens` end this answer besides the engine's own.
    ///
    /// # Errors
    /// [`SubmitError::Format`] with the place inside a schema, where one part of it is at fault.
    pub fn compile(
        &self,
        tenant: &str,
        format: &AnswerFormat,
        stop_tokens: &[u32],
    ) -> Result<Form, SubmitError> {
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let again = match &*last() {
            Some((whose, last, matcher)) if whose == tenant && last == format => Some(matcher.deep_clone()),
            _ => None,
        };
        let matcher = match again {
            Some(matcher) => matcher,
            None => {
                let matcher = self.compile_anew(tenant, format)?;
                *last() = Some((tenant.to_string(), format.clone(), matcher.deep_clone()));
                matcher
            }
        };
        let mut end_tokens = self.end_tokens.clone();
        end_tokens.extend(stop_tokens);
        let end = self.compiler.vocabulary_size as u32;
        Ok(Form { matcher: Box::new(matcher), end, end_tokens })
    }

    fn compile_anew(&self, tenant: &str, format: &AnswerFormat) -> Result<Matcher, SubmitError> {
        let refused =
            |place: String, problem: String| SubmitError::Format { kind: format.kind(), place, problem };
        let (size, most) = match format {
            AnswerFormat::JsonSchema(schema) => (schema.to_string().len(), LARGEST_FORMAT),
            AnswerFormat::JsonObject => (0, LARGEST_FORMAT),
            AnswerFormat::Regex(text) | AnswerFormat::Lark(text) => (text.len(), LARGEST_GRAMMAR),
        };
        if size > most {
            let problem = format!("it has {size} bytes; at most {most} are allowed: shorten it");
            return Err(refused(String::new(), problem));
        }
        let depth = match format {
            AnswerFormat::JsonSchema(schema) => schema_place::depth(schema),
            AnswerFormat::JsonObject => 0,
            AnswerFormat::Regex(text) | AnswerFormat::Lark(text) => bracket_depth(text),
        };
        if depth > DEEPEST_FORMAT {
            let problem = format!("it is nested more than {DEEPEST_FORMAT} deep: make it flatter");
            return Err(refused(String::new(), problem));
        }
        if let AnswerFormat::JsonSchema(schema) = format
            && let Some((place, problem)) = schema_place::refused_part(schema)
        {
            return Err(refused(place, problem));
        }
        let end = Instant::now() + PATIENCE;
        let late = |what: &str| {
            let problem = format!("{what} took longer than {} seconds: make it simpler", PATIENCE.as_secs());
            refused(String::new(), problem)
        };
        let place = self.places.take(tenant, end).ok_or_else(|| late("waiting for its compiler"))?;
        let (sender, compiled) = mpsc::channel();
        let (compiler, own) = (self.compiler.clone(), format.clone());
        let thread = std::thread::Builder::new().name("form".to_string()).stack_size(COMPILER_STACK);
        let started = thread.spawn(move || {
            let _place = place;
            // Nobody may be waiting any more.
            let _ = sender.send(compiler.compile(&own));
        });
        if let Err(error) = started {
            return Err(refused(String::new(), format!("its compiler cannot start: {error}")));
        }
        match compiled.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(result) => result.map_err(|(place, problem)| refused(place, problem)),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(late("its compilation")),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(refused(String::new(), "its compiler failed".to_string()))
            }
        }
    }
}

/// Who compiles at the moment.
#[derive(Default)]
struct Places {
    taken: Mutex<Vec<String>>,
    changed: Condvar,
}

/// A place among those who compile, until it is dropped.
struct Place {
    places: Arc<Places>,
    tenant: String,
}

impl Places {
    /// Waits for a place until `end`.
    fn take(self: &Arc<Self>, tenant: &str, end: Instant) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while taken.len() >= COMPILERS || taken.iter().any(|other| other == tenant) {
            let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            taken = self.changed.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        taken.push(tenant.to_string());
        Some(Place { places: self.clone(), tenant: tenant.to_string() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = taken.iter().position(|tenant| *tenant == self.tenant) {
            taken.swap_remove(at);
        }
        drop(taken);
        self.places.changed.notify_all();
    }
}

/// What all compilers of one tokenizer share.
struct Compiler {
    tokenizer: Arc<Tokenizer>,
    vocabulary_size: usize,
    /// Made at its first use: most engines never see a form.
    factory: OnceLock<Result<ParserFactory, String>>,
}

impl Compiler {
    /// Compiles what is within the limits; the error is a place in a schema and a problem.
    fn compile(&self, format: &AnswerFormat) -> Result<Matcher, (String, String)> {
        let factory = self.factory.get_or_init(|| self.factory()).as_ref();
        let factory = factory.map_err(|problem| (String::new(), problem.clone()))?;
        compiled(factory, format).map_err(|problem| match format {
            AnswerFormat::JsonSchema(schema) => {
                let compiles = |part: &Value| compiled(factory, &AnswerFormat::JsonSchema(part.clone()));
                schema_place::locate(schema, problem, &|part| compiles(part).err())
            }
            _ => (String::new(), problem),
        })
    }

    fn factory(&self) -> Result<ParserFactory, String> {
        // One more than the model has: the end, which stands for whichever tokens end an answer.
        let mut words = vec![Vec::new(); self.vocabulary_size + 1];
        for (id, word) in words.iter_mut().enumerate().take(self.tokenizer.vocabulary_size()) {
            let bytes = self.tokenizer.text_bytes(id as u32);
            // 0xFF, which no text holds, opens the names of special tokens there.
            if bytes.len() <= LONGEST_TOKEN && bytes.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER) {
                word.extend_from_slice(bytes);
            }
        }
        words[self.vocabulary_size] = b"\xFF<|end|>".to_vec();
        let info = TokRxInfo {
            vocab_size: words.len() as u32,
            tok_eos: self.vocabulary_size as u32,
            tok_bos: None,
            tok_pad: None,
            tok_unk: None,
            tok_end_of_turn: None,
        };
        let made = catch_unwind(AssertUnwindSafe(|| {
            let environment: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
            let slices = llguidance::earley::SlicedBiasComputer::general_slices();
            ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
        }));
        let mut factory = made.map_err(|error| {
            format!("this tokenizer cannot be held to a form: {}", first_line(&error.to_string()))
        })?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.verbose_errors = false;
        limits.max_lexer_states = MOST_LEXER_STATES;
        Ok(factory)
    }
}

fn bracket_depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for character in text.chars() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Compiles and tries the first step: some contradictions only show there.
fn compiled(factory: &ParserFactory, format: &AnswerFormat) -> Result<Matcher, String> {
    let parser = catch_unwind(AssertUnwindSafe(|| factory.create_parser(format.grammar())));
    let mut matcher = Matcher::new(parser);
    if let Some(error) = matcher.get_error() {
        return Err(first_line(&error));
    }
    if matcher.is_stopped() {
        let reason = matcher.stop_reason();
        return Err(if reason.is_ok() { NOTHING_FOLLOWS.to_string() } else { reason.to_string() });
    }
    let mask = matcher.compute_mask().map_err(|error| first_line(&error.to_string()))?;
    if mask.is_zero() { Err(NOTHING_FOLLOWS.to_string()) } else { Ok(matcher) }
}

/// What the library says, without the backtrace and state that may follow.
fn first_line(message: &str) -> String {
    let mut lines = message.lines().map(str::trim);
    match lines.next().unwrap_or_default() {
        "NoExtensionBias" | "NoExtension" => NOTHING_FOLLOWS.to_string(),
        // An expression is drawn with its fault before the fault is named.
        line if line.ends_with(':') => match lines.find_map(|line| line.strip_prefix("error:")) {
            Some(cause) => format!("{line}{cause}"),
            None => line.to_string(),
        },
        line => line.to_string(),
    }
}

/// A compiled form, and how far the answer has got in it.
pub struct Form {
    matcher: Box<Matcher>,
    /// The bit of a mask that says that the answer may end.
    end: u32,
    end_tokens: Vec<u32>,
}

impl Form {
    /// The tokens that may follow.
    ///
    /// # Errors
    /// When the form became too complex to follow, or nothing may follow.
    pub fn allowed(&mut self) -> Result<Allowed, String> {
        let mut mask = self.matcher.compute_mask().map_err(|error| first_line(&error.to_string()))?;
        let may_end = mask.is_allowed(self.end);
        for &token in &self.end_tokens {
            mask.set(token as usize, may_end);
        }
        mask.set(self.end as usize, false);
        if mask.is_zero() {
            return Err(NOTHING_FOLLOWS.to_string());
        }
        Ok(Allowed(mask))
    }

    /// The answer goes on with an allowed token that is no end. Returns whether it is complete: nothing may follow.
    ///
    /// # Errors
    /// When the form became too complex to follow.
    pub fn take(&mut self, token: u32) -> Result<bool, String> {
        self.matcher.consume_token(token).map_err(|error| first_line(&error.to_string()))?;
        let reason = self.matcher.stop_reason();
        if reason.is_ok() { Ok(self.matcher.is_stopped()) } else { Err(reason.to_string()) }
    }
}

/// Tokens that may come next.
pub struct Allowed(SimpleVob);

impl Allowed {
    pub fn contains(&self, token: u32) -> bool {
        self.0.is_allowed(token)
    }
}
