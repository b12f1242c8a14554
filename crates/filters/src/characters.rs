//! Single characters: scripts that are not allowed, and characters that nobody sees.

use std::sync::{Arc, LazyLock};

use regex::Regex;

use crate::error::FilterError;
use crate::settings::{Action, HiddenCharacters, InvisibleSettings, ScriptsSettings};
use crate::stage::{Output, Stage, Stop};

/// Letters of scripts that are not allowed.
pub(crate) struct Scripts {
    action: Action,
    replacement: String,
    /// One character that is not allowed.
    others: Arc<Regex>,
    /// The last character was one: the replacement of its run stands already.
    in_run: bool,
}

/// The expression of one character that is in none of these scripts, in no script or in several.
pub(crate) fn other_scripts(settings: &ScriptsSettings) -> Result<Arc<Regex>, FilterError> {
    let wrong = |expected: String, found: String| FilterError::Setting {
        name: settings.name.clone(),
        key: "allowed",
        expected,
        found,
    };
    if settings.allowed.is_empty() {
        return Err(wrong("at least one script".to_string(), "none".to_string()));
    }
    let mut expression = String::from(r"[^\p{sc=Common}\p{sc=Inherited}");
    for script in &settings.allowed {
        let class = format!(r"\p{{sc={script}}}");
        let is_name = script.chars().all(|letter| letter.is_ascii_alphabetic() || letter == '_');
        if !is_name || script.is_empty() || Regex::new(&class).is_err() {
            let expected = "the name of a Unicode script, such as Latin, Greek or Cyrillic".to_string();
            return Err(wrong(expected, format!("{script:?}")));
        }
        expression.push_str(&class);
    }
    expression.push(']');
    Regex::new(&expression).map(Arc::new).map_err(|error| wrong("scripts".to_string(), error.to_string()))
}

impl Scripts {
    pub fn new(settings: &ScriptsSettings, others: Arc<Regex>) -> Scripts {
        Scripts { action: settings.action, replacement: settings.replacement.clone(), others, in_run: false }
    }
}

impl Stage for Scripts {
    fn push(&mut self, text: &str, output: &mut Output) -> Result<(), Stop> {
        let mut copied = 0;
        for found in self.others.find_iter(text) {
            if found.start() > copied {
                output.text.push_str(&text[copied..found.start()]);
                self.in_run = false;
            }
            let replacement = if self.in_run { "" } else { self.replacement.as_str() };
            self.in_run = true;
            copied = found.end();
            output.finding(self.action, found.as_str(), replacement)?;
        }
        if copied < text.len() {
            output.text.push_str(&text[copied..]);
            self.in_run = false;
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

/// Characters that nobody sees.
pub(crate) struct Invisible {
    action: Action,
    what: [bool; HiddenCharacters::ALL.len()],
    /// The last character was part of an emoji: a joiner may follow.
    after_emoji: bool,
}

static EMOJI: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\p{Extended_Pictographic}|\p{Emoji_Modifier}").expect("a fixed pattern"));

impl Invisible {
    pub fn new(settings: &InvisibleSettings) -> Invisible {
        let what = HiddenCharacters::ALL.map(|group| settings.what.contains(&group));
        Invisible { action: settings.action, what, after_emoji: false }
    }

    /// Whether this character is hidden, coming after those before it.
    fn takes(&mut self, character: char) -> bool {
        if character.is_ascii() {
            self.after_emoji = false;
            return self.what[3] && character.is_ascii_control() && !matches!(character, '\t' | '\n' | '\r');
        }
        // Variation selectors say how the character before is drawn.
        if matches!(character, '\u{FE0E}' | '\u{FE0F}') {
            return false;
        }
        let joins_emoji = character == '\u{200D}' && self.after_emoji;
        self.after_emoji = EMOJI.is_match(character.encode_utf8(&mut [0; 4]));
        !joins_emoji && group(character).is_some_and(|group| self.what[group as usize])
    }
}

impl Stage for Invisible {
    fn push(&mut self, text: &str, output: &mut Output) -> Result<(), Stop> {
        let mut copied = 0;
        for (place, character) in text.char_indices() {
            if self.takes(character) {
                let end = place + character.len_utf8();
                output.text.push_str(&text[copied..place]);
                copied = end;
                output.finding(self.action, &text[place..end], "")?;
            }
        }
        output.text.push_str(&text[copied..]);
        Ok(())
    }

    fn finish(&mut self, _: &mut Output) -> Result<(), Stop> {
        Ok(())
    }

    fn holds_nothing(&self) -> bool {
        true
    }
}

/// The group of a hidden character (Unicode 17, `Default_Ignorable_Code_Point` and `Bidi_Control`).
fn group(character: char) -> Option<HiddenCharacters> {
    Some(match character {
        '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => {
            HiddenCharacters::Bidi
        }
        '\u{E0000}'..='\u{E0FFF}' => HiddenCharacters::Tags,
        '\u{AD}'
        | '\u{34F}'
        | '\u{115F}'
        | '\u{1160}'
        | '\u{17B4}'
        | '\u{17B5}'
        | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200D}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206A}'..='\u{206F}'
        | '\u{3164}'
        | '\u{FE00}'..='\u{FE0D}'
        | '\u{FEFF}'
        | '\u{FFA0}'
        | '\u{1BCA0}'..='\u{1BCA3}'
        | '\u{1D173}'..='\u{1D17A}' => HiddenCharacters::ZeroWidth,
        '\u{80}'..='\u{9F}' | '\u{2028}' | '\u{2029}' | '\u{FFF0}'..='\u{FFFB}' | '\u{FDD0}'..='\u{FDEF}' => {
            HiddenCharacters::Controls
        }
        other if u32::from(other) & 0xFFFE == 0xFFFE => HiddenCharacters::Controls,
        _ => return None,
    })
}
