//! Values as Python writes them: `str(value)` and `repr(value)`, which templates print.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::budget::{Budget, refused};

/// Whether Python's `str.isspace` holds: the white space of Unicode and the four separators of ASCII.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// `str(value)`.
///
/// # Errors
/// Where the text would be too long, or the value is nested too deep.
pub(super) fn text(value: &Value, budget: &Budget) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        budget.make(text.len())?;
        return Ok(text.to_owned());
    }
    if value.is_undefined() {
        return Ok(String::new());
    }
    budget.look_through(value)?;
    let mut written = String::new();
    represent(value, budget, &mut written)?;
    Ok(written)
}

/// `repr(value)` onto the end of `written`; the value is known to be of bounded depth.
fn represent(value: &Value, budget: &Budget, written: &mut String) -> Result<(), Error> {
    let before = written.len();
    match value.kind() {
        ValueKind::String => quote(value.as_str().unwrap_or_default(), written),
        ValueKind::Number => match float_of(value) {
            Some(number) => written.push_str(&float(number)),
            None => {
                let _ = write!(written, "{value}");
            }
        },
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.is_tuple();
            written.push(if tuple { '(' } else { '[' });
            let mut count = 0;
            for item in value.try_iter()?.checked() {
                if count > 0 {
                    written.push_str(", ");
                }
                represent(&item?, budget, written)?;
                count += 1;
            }
            written.push_str(match (tuple, count) {
                (true, 1) => ",)",
                (true, _) => ")",
                (false, _) => "]",
            });
        }
        ValueKind::Map => {
            written.push('{');
            for (number, key) in value.try_iter()?.checked().enumerate() {
                let key = key?;
                if number > 0 {
                    written.push_str(", ");
                }
                represent(&key, budget, written)?;
                written.push_str(": ");
                represent(&value.get_item(&key)?, budget, written)?;
            }
            written.push('}');
        }
        ValueKind::Undefined => written.push_str("Undefined"),
        ValueKind::Plain | ValueKind::Bytes | ValueKind::Invalid => {
            return Err(refused("a function or macro cannot be written as text"));
        }
        // None, True, False.
        _ => {
            let _ = write!(written, "{value}");
        }
    }
    // What is inside a list has been counted by itself; so this counts each byte once for each level.
    budget.make(written.len() - before)
}

/// The number if it is a float in Python.
pub(super) fn float_of(value: &Value) -> Option<f64> {
    let is_float = value.is_number() && !value.is_integer();
    if is_float { f64::try_from(value.clone()).ok() } else { None }
}

/// `repr` of a float: the fewest digits that give it back, with an exponent below 1e-4 and from 1e16 on.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{number}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

/// A text in quotes, as Python chooses and fills them.
fn quote(text: &str, written: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    written.push(mark);
    for character in text.chars() {
        let code = character as u32;
        match character {
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            _ if character == mark => {
                written.push('\\');
                written.push(mark);
            }
            _ if is_printable(character) => written.push(character),
            _ => {
                let _ = match code {
                    0..=0xFF => write!(written, "\\x{code:02x}"),
                    0x100..=0xFFFF => write!(written, "\\u{code:04x}"),
                    _ => write!(written, "\\U{code:08x}"),
                };
            }
        }
    }
    written.push(mark);
}

/// Python's `str.isprintable` but for code points without a character, which the standard library does not tell.
fn is_printable(character: char) -> bool {
    let unseen = matches!(character as u32,
        0xAD | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x180E | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F
        | 0xE000..=0xF8FF | 0xFEFF | 0xFFF9..=0xFFFB | 0xFDD0..=0xFDEF | 0xE0000..);
    let noncharacter = character as u32 & 0xFFFE == 0xFFFE;
    character == ' ' || !(character.is_control() || character.is_whitespace() || unseen || noncharacter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_does() {
        let check = |number: f64, expected: &str| assert_eq!(float(number), expected);
        check(1.0, "1.0");
        check(-0.0, "-0.0");
        check(1e15, "1000000000000000.0");
        check(1e16, "1e+16");
        check(1.5e300, "1.5e+300");
        check(1e-4, "0.0001");
        check(1e-5, "1e-05");
        check(5e-324, "5e-324");
        check(123456789.125, "123456789.125");
    }
}
