//! Length in Unicode characters.

use crate::settings::{Action, LengthSettings};
use crate::stage::{Output, Stage, Stop};

pub(crate) struct Length {
    action: Action,
    maximum: usize,
    seen: usize,
    is_over: bool,
}

impl Length {
    pub fn new(settings: &LengthSettings) -> Length {
        Length {
            action: settings.action,
            maximum: settings.maximum_characters.max(1),
            seen: 0,
            is_over: false,
        }
    }
}

impl Stage for Length {
    fn push(&mut self, text: &str, output: &mut Output) -> Result<(), Stop> {
        if !self.is_over {
            let left = self.maximum - self.seen;
            // A text of fewer bytes cannot have more characters.
            let cut =
                if text.len() <= left { None } else { text.char_indices().nth(left).map(|(place, _)| place) };
            let Some(cut) = cut else {
                self.seen += text.chars().count();
                output.text.push_str(text);
                return Ok(());
            };
            self.is_over = true;
            output.text.push_str(&text[..cut]);
            return output.finding(self.action, &text[cut..], "");
        }
        if self.action == Action::Flag {
            output.text.push_str(text);
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut Output) -> Result<(), Stop> {
        Ok(())
    }

    fn holds_nothing(&self) -> bool {
        true
    }
}
