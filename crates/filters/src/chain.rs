//! Filters in their order: over whole texts and over streams.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regex::Regex;

use crate::characters::{Invisible, Scripts, other_scripts};
use crate::counts::{Count, Counter};
use crate::error::FilterError;
use crate::length::Length;
use crate::passages::{PassageSet, Passages};
use crate::patterns::{PatternSet, Patterns};
use crate::personal::{Personal, PersonalRules};
use crate::settings::{
    Action, FilterSettings, InvisibleSettings, LengthSettings, PassagesSettings, PatternsSettings,
    PersonalDataSettings, ScriptsSettings, Settings,
};
use crate::stage::{Output, Stage, Stop};

/// The chain of everybody and those that differ from it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Chains {
    everybody: Arc<Chain>,
    named: Arc<BTreeMap<String, Arc<Chain>>>,
}

/// The filters for what goes in and for what comes out.
#[derive(Default)]
pub struct Chain {
    input: Vec<Arc<Filter>>,
    output: Vec<Arc<Filter>>,
}

/// A compiled filter.
struct Filter {
    settings: FilterSettings,
    compiled: Compiled,
    counter: Counter,
}

/// A filter's settings with what they were compiled to.
enum Compiled {
    Length(LengthSettings),
    Invisible(InvisibleSettings),
    Scripts(ScriptsSettings, Arc<Regex>),
    Personal(PersonalDataSettings, Arc<PersonalRules>),
    Patterns(PatternsSettings, Arc<PatternSet>),
    Passages(PassagesSettings, Arc<PassageSet>),
}

/// Why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The filter's name.
    pub filter: String,
    /// The reason, such as `personal_data` or `blocked_pattern`.
    pub code: &'static str,
}

/// What becomes of a whole text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The text, with what was to be replaced replaced.
    Pass(Cow<'a, str>),
    Refused(Refusal),
}

impl Chains {
    /// Checks and compiles the settings; reads the files that they name.
    pub fn compile(settings: &Settings) -> Result<Chains, FilterError> {
        check_names("filters.input", &settings.input)?;
        check_names("filters.output", &settings.output)?;
        let everybody = Chain {
            input: settings.input.iter().map(Filter::compile).collect::<Result<_, _>>()?,
            output: settings.output.iter().map(Filter::compile).collect::<Result<_, _>>()?,
        };
        let mut named = BTreeMap::new();
        for (name, own) in &settings.chains {
            check_names(&format!("filters.chains.{name}.input"), &own.input)?;
            check_names(&format!("filters.chains.{name}.output"), &own.output)?;
            let known: BTreeSet<&str> =
                settings.input.iter().chain(&settings.output).map(FilterSettings::name).collect();
            if let Some(filter) = own.without.iter().find(|filter| !known.contains(filter.as_str())) {
                return Err(FilterError::NoSuchFilter { chain: name.clone(), name: filter.clone() });
            }
            let chain = Chain {
                input: differing(&everybody.input, &own.input, &own.without)?,
                output: differing(&everybody.output, &own.output, &own.without)?,
            };
            named.insert(name.clone(), Arc::new(chain));
        }
        Ok(Chains { everybody: Arc::new(everybody), named: Arc::new(named) })
    }

    /// The chain of this name, or without one that of everybody. `None` if there is no chain of the name.
    pub fn of(&self, name: Option<&str>) -> Option<&Arc<Chain>> {
        match name {
            None => Some(&self.everybody),
            Some(name) => self.named.get(name),
        }
    }

    /// Names of the chains that differ from that of everybody.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }

    /// What all filters did so far: those of everybody, then those that other chains have alone, as `chain/filter`.
    pub fn counts(&self) -> Vec<Count> {
        let mut counts = self.everybody.counts_with("");
        let shared: BTreeSet<*const Filter> =
            self.everybody.filters().map(|(_, filter)| Arc::as_ptr(filter)).collect();
        for (name, chain) in self.named.iter() {
            let own = chain.filters().filter(|(_, filter)| !shared.contains(&Arc::as_ptr(filter)));
            counts.extend(own.map(|(place, filter)| filter.count(place, &format!("{name}/"))));
        }
        counts
    }
}

fn check_names(place: &str, filters: &[FilterSettings]) -> Result<(), FilterError> {
    let mut names = BTreeSet::new();
    for filter in filters {
        let name = filter.name();
        let is_fit = !name.is_empty()
            && name.len() <= 64
            && name.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.'));
        if !is_fit {
            return Err(FilterError::Setting {
                name: name.to_string(),
                key: "name",
                expected: "1 to 64 letters, digits, `-`, `_` and `.`".to_string(),
                found: format!("{name:?}"),
            });
        }
        if !names.insert(name) {
            return Err(FilterError::NameTwice { name: name.to_string(), place: place.to_string() });
        }
    }
    Ok(())
}

/// The filters of everybody with a chain's own in their places or after them.
fn differing(
    everybody: &[Arc<Filter>],
    own: &[FilterSettings],
    without: &[String],
) -> Result<Vec<Arc<Filter>>, FilterError> {
    let mut filters = Vec::new();
    for filter in everybody {
        let name = filter.settings.name();
        match own.iter().find(|own| own.name() == name) {
            Some(own) => filters.push(Filter::compile(own)?),
            None if without.iter().any(|without| without == name) => (),
            None => filters.push(filter.clone()),
        }
    }
    for own in own {
        if !everybody.iter().any(|filter| filter.settings.name() == own.name()) {
            filters.push(Filter::compile(own)?);
        }
    }
    Ok(filters)
}

impl Chain {
    /// The chain of everybody alone.
    pub fn compile(settings: &Settings) -> Result<Chain, FilterError> {
        let chains = Chains::compile(&Settings { chains: BTreeMap::new(), ..settings.clone() })?;
        Ok(Arc::try_unwrap(chains.everybody).unwrap_or_default())
    }

    /// Whether nothing is looked at in what clients send.
    pub fn passes_input(&self) -> bool {
        self.input.is_empty()
    }

    /// Whether nothing is looked at in what models answer.
    pub fn passes_output(&self) -> bool {
        self.output.is_empty()
    }

    /// Whether answers may be changed or refused: then nothing may stand beside them that repeats their text, such as log
    /// probabilities of tokens.
    pub fn may_change_output(&self) -> bool {
        self.output.iter().any(|filter| filter.settings.action() != Action::Flag)
    }

    /// A whole text that a client sent.
    pub fn input<'a>(&self, text: &'a str) -> Verdict<'a> {
        whole(&self.input, text)
    }

    /// A whole text that a model answered.
    pub fn output<'a>(&self, text: &'a str) -> Verdict<'a> {
        whole(&self.output, text)
    }

    /// A text that a model answers in pieces.
    pub fn stream(&self) -> FilterStream {
        FilterStream::new(&self.output)
    }

    /// A text that a client sends in pieces.
    pub fn input_stream(&self) -> FilterStream {
        FilterStream::new(&self.input)
    }

    fn filters(&self) -> impl Iterator<Item = (&'static str, &Arc<Filter>)> {
        let input = self.input.iter().map(|filter| ("input", filter));
        input.chain(self.output.iter().map(|filter| ("output", filter)))
    }

    /// What its filters did so far, in their order, input first.
    pub fn counts(&self) -> Vec<Count> {
        self.counts_with("")
    }

    fn counts_with(&self, prefix: &str) -> Vec<Count> {
        self.filters().map(|(place, filter)| filter.count(place, prefix)).collect()
    }
}

fn whole<'a>(filters: &[Arc<Filter>], text: &'a str) -> Verdict<'a> {
    if filters.is_empty() {
        return Verdict::Pass(Cow::Borrowed(text));
    }
    let mut stream = FilterStream::new(filters);
    let passed = stream.push(text).and_then(|mut passed| {
        passed.push_str(&stream.finish()?);
        Ok(passed)
    });
    match passed {
        Ok(passed) if passed == text => Verdict::Pass(Cow::Borrowed(text)),
        Ok(passed) => Verdict::Pass(Cow::Owned(passed)),
        Err(stopped) => Verdict::Refused(stopped.refusal),
    }
}

/// A text on its way through a chain, in pieces.
pub struct FilterStream {
    steps: Vec<Step>,
    refusal: Option<Refusal>,
}

struct Step {
    filter: Arc<Filter>,
    stage: Box<dyn Stage>,
    /// Kept for its memory.
    output: Output,
}

/// A stream was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// What may still go out before the refusal: the text before what was found.
    pub released: String,
    pub refusal: Refusal,
}

impl FilterStream {
    fn new(filters: &[Arc<Filter>]) -> FilterStream {
        let steps = filters.iter().map(|filter| {
            filter.counter.text();
            Step { filter: filter.clone(), stage: filter.stage(), output: Output::default() }
        });
        FilterStream { steps: steps.collect(), refusal: None }
    }

    /// Takes the next piece and gives what may go out by now. After a refusal nothing goes out any more.
    pub fn push(&mut self, text: &str) -> Result<String, Stopped> {
        self.refused_before()?;
        self.through(0, text.to_string())
    }

    /// The text has ended: gives the rest.
    pub fn finish(&mut self) -> Result<String, Stopped> {
        self.refused_before()?;
        let mut released = String::new();
        for number in 0..self.steps.len() {
            let step = &mut self.steps[number];
            let finished = step.stage.finish(&mut step.output);
            match self.after(number, finished) {
                Ok(text) => released.push_str(&text),
                Err(stopped) => {
                    released.push_str(&stopped.released);
                    return Err(Stopped { released, ..stopped });
                }
            }
        }
        Ok(released)
    }

    /// Whether every piece comes out at once.
    pub fn holds_nothing(&self) -> bool {
        self.steps.iter().all(|step| step.stage.holds_nothing())
    }

    fn refused_before(&self) -> Result<(), Stopped> {
        match &self.refusal {
            Some(refusal) => Err(Stopped { released: String::new(), refusal: refusal.clone() }),
            None => Ok(()),
        }
    }

    /// Sends a text through the stages from `first` on.
    fn through(&mut self, first: usize, text: String) -> Result<String, Stopped> {
        let Some(step) = self.steps.get_mut(first) else { return Ok(text) };
        if text.is_empty() {
            return Ok(text);
        }
        let pushed = step.stage.push(&text, &mut step.output);
        self.after(first, pushed)
    }

    /// Sends on what stage `number` gave, refused or not.
    fn after(&mut self, number: usize, outcome: Result<(), Stop>) -> Result<String, Stopped> {
        let step = &mut self.steps[number];
        let output = std::mem::take(&mut step.output);
        step.filter.counter.found(output.found);
        let filter = step.filter.clone();
        // What comes before a refusal goes through the later stages all the same: they may refuse even that.
        let released = self.through(number + 1, output.text)?;
        if outcome.is_ok() {
            return Ok(released);
        }
        filter.counter.refused();
        let settings = &filter.settings;
        let refusal = Refusal { filter: settings.name().to_string(), code: settings.code() };
        self.refusal = Some(refusal.clone());
        Err(Stopped { released, refusal })
    }
}

impl Filter {
    fn compile(settings: &FilterSettings) -> Result<Arc<Filter>, FilterError> {
        let empty = |key, expected: &str, found: &str| FilterError::Setting {
            name: settings.name().to_string(),
            key,
            expected: expected.to_string(),
            found: found.to_string(),
        };
        let compiled = match settings.clone() {
            FilterSettings::Length(settings) if settings.maximum_characters == 0 => {
                return Err(empty("maximum_characters", "at least 1", "0"));
            }
            FilterSettings::Length(settings) => Compiled::Length(settings),
            FilterSettings::Invisible(settings) if settings.what.is_empty() => {
                return Err(empty("what", "at least one group", "none"));
            }
            FilterSettings::Invisible(settings) => Compiled::Invisible(settings),
            FilterSettings::Scripts(settings) => {
                let others = other_scripts(&settings)?;
                Compiled::Scripts(settings, others)
            }
            FilterSettings::PersonalData(settings) => {
                let rules = Arc::new(PersonalRules::compile(&settings)?);
                Compiled::Personal(settings, rules)
            }
            FilterSettings::Patterns(settings) => {
                let set = Arc::new(PatternSet::compile(&settings)?);
                Compiled::Patterns(settings, set)
            }
            FilterSettings::Passages(settings) => {
                let set = Arc::new(PassageSet::read(&settings.file)?);
                Compiled::Passages(settings, set)
            }
        };
        Ok(Arc::new(Filter { settings: settings.clone(), compiled, counter: Counter::default() }))
    }

    fn stage(&self) -> Box<dyn Stage> {
        match &self.compiled {
            Compiled::Length(settings) => Box::new(Length::new(settings)),
            Compiled::Invisible(settings) => Box::new(Invisible::new(settings)),
            Compiled::Scripts(settings, others) => Box::new(Scripts::new(settings, others.clone())),
            Compiled::Personal(settings, rules) => Box::new(Personal::new(settings, rules.clone())),
            Compiled::Patterns(settings, set) => Box::new(Patterns::new(settings, set.clone())),
            Compiled::Passages(settings, set) => Box::new(Passages::new(settings, set.clone())),
        }
    }

    fn count(&self, place: &'static str, prefix: &str) -> Count {
        self.counter.read(place, &format!("{prefix}{}", self.settings.name()))
    }
}
