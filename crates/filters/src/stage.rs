//! A filter at work on one text that comes in pieces.

use crate::settings::Action;

/// The text is refused from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop;

/// What a stage gives on, and how much it found.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub text: String,
    pub found: u64,
}

impl Output {
    /// Deals with a finding: `original` is what stands there, `replacement` what would stand in its place.
    pub fn finding(&mut self, action: Action, original: &str, replacement: &str) -> Result<(), Stop> {
        self.found += 1;
        match action {
            Action::Refuse => return Err(Stop),
            Action::Replace => self.text.push_str(replacement),
            Action::Flag => self.text.push_str(original),
        }
        Ok(())
    }
}

/// One filter over one text. What it has given on after some pieces depends on the characters of those pieces alone, never
/// on where they were cut; so what is given on before a refusal is the same too.
pub(crate) trait Stage: Send {
    fn push(&mut self, text: &str, output: &mut Output) -> Result<(), Stop>;
    /// The text has ended: everything held back is decided.
    fn finish(&mut self, output: &mut Output) -> Result<(), Stop>;
    /// Nothing is held back: a piece that goes in comes out at once.
    fn holds_nothing(&self) -> bool;
}

/// The nearest character boundary not behind `place`.
pub(crate) fn floor(text: &str, place: usize) -> usize {
    let mut place = place.min(text.len());
    while !text.is_char_boundary(place) {
        place -= 1;
    }
    place
}

/// The nearest character boundary not before `place`.
pub(crate) fn ceiling(text: &str, place: usize) -> usize {
    let mut place = place.min(text.len());
    while !text.is_char_boundary(place) {
        place += 1;
    }
    place
}
