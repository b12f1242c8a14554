//! Personal data in a stream, by the rules of the corpus (crate `personal_data`).
//!
//! The text is cut into rows that may hold personal data ([`crate::rows`]) and text between them that cannot. A row waits
//! until it has ended and the words after it that may name it are there; then it is scanned with what stands around it.

use std::sync::Arc;

use languages::Language;
use personal_data::{PersonalData, find_from};

use crate::error::FilterError;
use crate::rows::{Next, next_row};
use crate::settings::{Action, PersonalDataSettings};
use crate::stage::{Output, Stage, Stop, floor};

/// Decided text that is kept: a web address is looked back into for 2048 bytes, a name for 160.
const CONTEXT: usize = 2304;
/// Decided text is thrown away in pieces of this size at least.
const DRAINED: usize = 8192;

/// The checked settings of one filter.
pub(crate) struct PersonalRules {
    kinds: Vec<PersonalData>,
    language: Option<Language>,
}

impl PersonalRules {
    pub fn compile(settings: &PersonalDataSettings) -> Result<PersonalRules, FilterError> {
        let wrong = |key, expected: String, found: String| FilterError::Setting {
            name: settings.name.clone(),
            key,
            expected,
            found,
        };
        if settings.kinds.is_empty() {
            return Err(wrong("kinds", "at least one kind".to_string(), "none".to_string()));
        }
        let language = settings.language.as_deref().map(Language::from_code).transpose();
        let language = language.map_err(|error| {
            let found = format!("{:?}", settings.language.as_deref().unwrap_or_default());
            wrong("language", format!("the code of an official language ({error})"), found)
        })?;
        Ok(PersonalRules { kinds: settings.kinds.clone(), language })
    }
}

pub(crate) struct Personal {
    action: Action,
    rules: Arc<PersonalRules>,
    buffer: String,
    /// Everything before this place in the buffer has been given on.
    decided: usize,
    /// The end of the last row or finding: the next row begins there or later.
    row_floor: usize,
    /// The end of the last finding.
    finding_floor: usize,
}

impl Personal {
    pub fn new(settings: &PersonalDataSettings, rules: Arc<PersonalRules>) -> Personal {
        Personal {
            action: settings.action,
            rules,
            buffer: String::new(),
            decided: 0,
            row_floor: 0,
            finding_floor: 0,
        }
    }

    fn decide(&mut self, is_end: bool, output: &mut Output) -> Result<(), Stop> {
        loop {
            match next_row(&self.buffer, self.row_floor, self.decided, is_end) {
                Next::Nothing { until } => {
                    self.give_until(until, output);
                    break;
                }
                Next::Wait { start } => {
                    self.give_until(start, output);
                    break;
                }
                Next::Row { start, end, context } => {
                    self.give_until(start, output);
                    self.scan(start, end, context, output)?;
                }
            }
        }
        if self.decided > DRAINED {
            let kept = floor(&self.buffer, self.decided - CONTEXT);
            self.buffer.drain(..kept);
            self.decided -= kept;
            self.row_floor = self.row_floor.saturating_sub(kept);
            self.finding_floor = self.finding_floor.saturating_sub(kept);
        }
        Ok(())
    }

    /// Looks through the row from `start` to `end`; `context` is the end of what may be looked at.
    fn scan(&mut self, start: usize, end: usize, context: usize, output: &mut Output) -> Result<(), Stop> {
        // Far text before a row says nothing: what looks back stays cheap.
        let first = floor(&self.buffer, start.saturating_sub(CONTEXT));
        let window = &self.buffer[first..context];
        let finding_floor = self.finding_floor.saturating_sub(first);
        let findings = find_from(window, finding_floor, start - first, self.rules.language);
        let mut end = end;
        for finding in findings {
            let (from, to) = (first + finding.range.start, first + finding.range.end);
            if from < self.decided || from >= end {
                continue;
            }
            self.finding_floor = to;
            end = end.max(to);
            if !self.rules.kinds.contains(&finding.kind) {
                continue;
            }
            self.give_until(from, output);
            self.decided = to;
            output.finding(self.action, &self.buffer[from..to], finding.kind.placeholder())?;
        }
        self.give_until(end, output);
        self.row_floor = end;
        Ok(())
    }

    fn give_until(&mut self, place: usize, output: &mut Output) {
        if place > self.decided {
            output.text.push_str(&self.buffer[self.decided..place]);
            self.decided = place;
        }
    }
}

impl Stage for Personal {
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
