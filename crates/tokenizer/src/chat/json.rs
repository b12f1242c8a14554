//! `tojson` of chat templates: Python's `json.dumps` as `transformers` calls it, with `ensure_ascii=False` and without the
//! HTML escapes of Jinja's own filter.

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, Value};

use super::budget::{Budget, refused};
use super::python;

/// How `json.dumps` was asked to write.
struct Style {
    ascii: bool,
    indent: Option<String>,
    /// Between items, and between a key and its value.
    separators: (String, String),
    sort_keys: bool,
}

impl Style {
    /// From the arguments that a template gives.
    fn read(positional: &[Value], named: &Kwargs) -> Result<Style, Error> {
        let argument = |place: usize, name: &str| -> Result<Value, Error> {
            match positional.get(place) {
                Some(value) => Ok(value.clone()),
                None => Ok(named.get::<Option<Value>>(name)?.unwrap_or(Value::from(()))),
            }
        };
        let ascii = argument(0, "ensure_ascii")?.is_true();
        let indent = argument(1, "indent")?;
        let indent = match (indent.is_none(), indent.as_str(), usize::try_from(indent.clone())) {
            (true, ..) => None,
            (_, Some(text), _) if text.len() <= 64 => Some(text.to_owned()),
            (_, _, Ok(width)) if width <= 64 => Some(" ".repeat(width)),
            _ => return Err(refused("tojson: `indent` is to be at most 64 spaces")),
        };
        let separators = argument(2, "separators")?;
        let separators = if separators.is_none() {
            (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned())
        } else {
            let part = |place: usize| {
                let part = separators.get_item_by_index(place)?;
                let text = part.as_str().filter(|text| text.len() <= 64);
                text.map(str::to_owned)
                    .ok_or_else(|| refused("tojson: `separators` are to be two short texts"))
            };
            (part(0)?, part(1)?)
        };
        let sort_keys = argument(3, "sort_keys")?.is_true();
        named.assert_all_used()?;
        Ok(Style { ascii, indent, separators, sort_keys })
    }
}

/// A value as JSON.
///
/// # Errors
/// For what JSON cannot say, for what is nested too deep, and where the text would be too long.
pub(super) fn to_json(
    value: &Value,
    positional: &[Value],
    named: &Kwargs,
    budget: &Budget,
) -> Result<String, Error> {
    let style = Style::read(positional, named)?;
    budget.look_through(value)?;
    let mut written = String::new();
    Writer { style: &style, budget, counted: 0 }.write(value, 0, &mut written)?;
    Ok(written)
}

struct Writer<'a> {
    style: &'a Style,
    budget: &'a Budget,
    /// Bytes of the text that the budget knows of.
    counted: usize,
}

impl Writer<'_> {
    fn write(&mut self, value: &Value, depth: usize, written: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => written.push_str("null"),
            ValueKind::Bool => written.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => written.push_str(&number(value)),
            ValueKind::String => quote(value.as_str().unwrap_or_default(), self.style.ascii, written),
            ValueKind::Seq | ValueKind::Iterable => {
                written.push('[');
                let mut empty = true;
                for item in value.try_iter()?.checked() {
                    self.separate(empty, depth + 1, written);
                    empty = false;
                    self.write(&item?, depth + 1, written)?;
                }
                self.close(empty, depth, ']', written);
            }
            ValueKind::Map => {
                let mut keys = value.try_iter()?.checked().collect::<Result<Vec<Value>, Error>>()?;
                if self.style.sort_keys {
                    keys.sort();
                }
                written.push('{');
                for (place, key) in keys.iter().enumerate() {
                    self.separate(place == 0, depth + 1, written);
                    let name = key_text(key)?;
                    quote(&name, self.style.ascii, written);
                    written.push_str(&self.style.separators.1);
                    self.write(&value.get_item(key)?, depth + 1, written)?;
                }
                self.close(keys.is_empty(), depth, '}', written);
            }
            other => return Err(refused(format!("tojson: JSON cannot hold a value of type {other}"))),
        }
        self.budget.make(written.len() - self.counted)?;
        self.counted = written.len();
        Ok(())
    }

    fn separate(&self, first: bool, depth: usize, written: &mut String) {
        if !first {
            written.push_str(&self.style.separators.0);
        }
        self.new_line(depth, written);
    }

    fn close(&self, empty: bool, depth: usize, bracket: char, written: &mut String) {
        if !empty {
            self.new_line(depth, written);
        }
        written.push(bracket);
    }

    fn new_line(&self, depth: usize, written: &mut String) {
        if let Some(indent) = &self.style.indent {
            written.push('\n');
            (0..depth).for_each(|_| written.push_str(indent));
        }
    }
}

/// Python writes keys that are no texts as the JSON of their value.
fn key_text(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
        ValueKind::Number => number(key),
        other => return Err(refused(format!("tojson: a key of JSON cannot be a value of type {other}"))),
    })
}

fn number(value: &Value) -> String {
    match python::float_of(value) {
        Some(number) if number.is_nan() => "NaN".to_owned(),
        Some(number) if number.is_infinite() => {
            if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        }
        Some(number) => python::float(number),
        None => value.to_string(),
    }
}

fn quote(text: &str, ascii: bool, written: &mut String) {
    written.push('"');
    for character in text.chars() {
        match character {
            '"' => written.push_str("\\\""),
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            '\u{8}' => written.push_str("\\b"),
            '\u{c}' => written.push_str("\\f"),
            '\0'..='\u{1f}' => escape(character as u16, written),
            '\u{7f}'.. if ascii => {
                character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escape(*unit, written));
            }
            _ => written.push(character),
        }
    }
    written.push('"');
}

fn escape(unit: u16, written: &mut String) {
    let _ = write!(written, "\\u{unit:04x}");
}
