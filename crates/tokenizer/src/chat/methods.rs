//! Methods of Python's texts, lists and dictionaries, for templates.

use minijinja::value::{Kwargs, Tuple, from_args};
use minijinja::{Error, State, Value};

use super::budget::{Budget, refused};
use super::python;

/// Widest field of a formatted text or an indentation.
const WIDEST: usize = 1_000;

/// A method of a value that the engine does not know itself.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
    budget: &Budget,
) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(result) = of_text(text, method, args, budget)?
    {
        return Ok(result);
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn of_text(text: &str, method: &str, args: &[Value], budget: &Budget) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => {
            let (characters,): (Option<&str>,) = from_args(args)?;
            let out = |character: char| match characters {
                Some(characters) => characters.contains(character),
                None => python::is_space(character),
            };
            budget.look(text.len().saturating_mul(1 + characters.map_or(0, str::len)) / 64)?;
            Value::from(match method {
                "strip" => text.trim_matches(out),
                "lstrip" => text.trim_start_matches(out),
                _ => text.trim_end_matches(out),
            })
        }
        "split" | "rsplit" => {
            let (separator, most, options): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.or(options.get("sep")?).filter(|separator| !separator.is_none());
            let most = most.or(options.get("maxsplit")?).unwrap_or(-1);
            options.assert_all_used()?;
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let separator = match &separator {
                Some(value) => {
                    Some(value.as_str().ok_or_else(|| refused("split: the separator is no text"))?)
                }
                None => None,
            };
            let parts = if method == "split" {
                split(text, separator, most)?
            } else {
                rsplit(text, separator, most)?
            };
            budget.make(parts.len() * size_of::<Value>() + text.len())?;
            Value::from(parts)
        }
        "splitlines" => {
            let (keep, options): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(options.get("keepends")?).unwrap_or(false);
            options.assert_all_used()?;
            let lines: Vec<Value> = lines(text, keep).map(Value::from).collect();
            budget.make(lines.len() * size_of::<Value>() + text.len())?;
            Value::from(lines)
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let found =
                if method == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) };
            let parts = match found {
                Some((before, after)) => [before, separator, after],
                None if method == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "replace" => {
            let (old, new, count, options): (&str, &str, Option<i64>, Kwargs) = from_args(args)?;
            let count = count.or(options.get("count")?).unwrap_or(-1);
            options.assert_all_used()?;
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let places = text.matches(old).count().min(count);
            budget.make(text.len().saturating_add(places.saturating_mul(new.len())))?;
            Value::from(text.replacen(old, new, count))
        }
        "join" => {
            let (values,): (Value,) = from_args(args)?;
            Value::from(join(text, values.try_iter()?.checked(), budget)?)
        }
        "title" => {
            let () = from_args(args)?;
            Value::from(title(text))
        }
        "capitalize" => {
            let () = from_args(args)?;
            Value::from(capitalized(text))
        }
        "find" | "index" | "rfind" | "rindex" => {
            let (wanted,): (&str,) = from_args(args)?;
            let place = if method.starts_with('r') { text.rfind(wanted) } else { text.find(wanted) };
            match place {
                Some(place) => Value::from(text[..place].chars().count()),
                None if method.ends_with("find") => Value::from(-1),
                None => return Err(refused(format!("{method}: not in the text"))),
            }
        }
        "ljust" | "rjust" | "center" | "zfill" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            Value::from(padded(text, method, width.min(WIDEST), fill.unwrap_or(" ")))
        }
        "format" => {
            check_fields(text, args, budget)?;
            return Ok(None);
        }
        "encode" | "translate" | "expandtabs" => {
            return Err(refused(format!("the method `{method}` of texts has no place in a chat template")));
        }
        _ => return Ok(None),
    }))
}

fn split(text: &str, separator: Option<&str>, most: usize) -> Result<Vec<Value>, Error> {
    if separator == Some("") {
        return Err(refused("split: the separator is empty"));
    }
    let Some(separator) = separator else {
        let mut parts = Vec::new();
        let mut rest = text.trim_start_matches(python::is_space);
        while !rest.is_empty() {
            if parts.len() == most {
                parts.push(Value::from(rest));
                break;
            }
            let end = rest.find(python::is_space).unwrap_or(rest.len());
            parts.push(Value::from(&rest[..end]));
            rest = rest[end..].trim_start_matches(python::is_space);
        }
        return Ok(parts);
    };
    Ok(text.splitn(most.saturating_add(1), separator).map(Value::from).collect())
}

fn rsplit(text: &str, separator: Option<&str>, most: usize) -> Result<Vec<Value>, Error> {
    if separator == Some("") {
        return Err(refused("rsplit: the separator is empty"));
    }
    let Some(separator) = separator else {
        let mut parts = Vec::new();
        let mut rest = text.trim_end_matches(python::is_space);
        while !rest.is_empty() {
            if parts.len() == most {
                parts.push(Value::from(rest));
                break;
            }
            let begin = rest.char_indices().rev().find(|(_, character)| python::is_space(*character));
            let begin = begin.map_or(0, |(place, character)| place + character.len_utf8());
            parts.push(Value::from(&rest[begin..]));
            rest = rest[..begin].trim_end_matches(python::is_space);
        }
        parts.reverse();
        return Ok(parts);
    };
    let mut parts: Vec<Value> = text.rsplitn(most.saturating_add(1), separator).map(Value::from).collect();
    parts.reverse();
    Ok(parts)
}

/// Lines by all the line breaks that Python knows.
fn lines(text: &str, keep: bool) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let is_break = |character: char| {
            matches!(
                character,
                '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
            )
        };
        let end = rest.find(is_break).unwrap_or(rest.len());
        let broken = match rest[end..].chars().next() {
            Some('\r') if rest[end + 1..].starts_with('\n') => 2,
            Some(character) => character.len_utf8(),
            None => 0,
        };
        let line = &rest[..if keep { end + broken } else { end }];
        rest = &rest[end + broken..];
        Some(line)
    })
}

/// The texts of values with a text between them.
pub(super) fn join(
    between: &str,
    values: impl Iterator<Item = Result<Value, Error>>,
    budget: &Budget,
) -> Result<String, Error> {
    let mut joined = String::new();
    for (place, value) in values.enumerate() {
        if place > 0 {
            budget.make(between.len())?;
            joined.push_str(between);
        }
        joined.push_str(&python::text(&value?, budget)?);
    }
    budget.make(joined.len())?;
    Ok(joined)
}

/// `str.title`: every letter that follows no letter is large.
fn title(text: &str) -> String {
    let is_cased =
        |character: char| character.is_uppercase() || character.is_lowercase() || is_digraph(character);
    let mut titled = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(is_cased).unwrap_or(rest.len());
        titled.push_str(&rest[..word]);
        let end = rest[word..].find(|character| !is_cased(character)).map_or(rest.len(), |end| word + end);
        titled.push_str(&capitalized(&rest[word..end]));
        rest = &rest[end..];
    }
    titled
}

/// The first character large, the others small. They are made small together, because a Greek sigma at the end of a word
/// has a form of its own.
fn capitalized(text: &str) -> String {
    let Some(first) = text.chars().next() else { return String::new() };
    let small = text.to_lowercase();
    to_title(first).chars().chain(small.chars().skip(first.to_lowercase().count())).collect()
}

fn is_digraph(character: char) -> bool {
    matches!(character, 'ǅ' | 'ǈ' | 'ǋ' | 'ǲ')
}

/// A character at the beginning of a word. The four letters that are written as two have a form of their own.
fn to_title(character: char) -> String {
    match character {
        'Ǆ' | 'ǅ' | 'ǆ' => "ǅ".to_owned(),
        'Ǉ' | 'ǈ' | 'ǉ' => "ǈ".to_owned(),
        'Ǌ' | 'ǋ' | 'ǌ' => "ǋ".to_owned(),
        'Ǳ' | 'ǲ' | 'ǳ' => "ǲ".to_owned(),
        _ => {
            let mut upper = character.to_uppercase();
            let first: String = upper.next().into_iter().collect();
            first + &upper.flat_map(char::to_lowercase).collect::<String>()
        }
    }
}

fn padded(text: &str, method: &str, width: usize, fill: &str) -> String {
    let missing = width.saturating_sub(text.chars().count());
    let fill = |count: usize| fill.chars().cycle().take(count).collect::<String>();
    match method {
        "ljust" => format!("{text}{}", fill(missing)),
        "rjust" => format!("{}{text}", fill(missing)),
        "center" => {
            // Python puts the odd one to the left of an even width.
            let left = missing / 2 + (missing & width & 1);
            format!("{}{text}{}", fill(left), fill(missing - left))
        }
        _ => {
            let (sign, digits) = match text.strip_prefix(['+', '-']) {
                Some(digits) => (&text[..1], digits),
                None => ("", text),
            };
            format!("{sign}{}{digits}", "0".repeat(missing))
        }
    }
}

/// Jinja's filter: a width or text in front of every line but the first, and but empty ones.
pub(super) fn indent(text: &str, args: &[Value], options: &Kwargs, budget: &Budget) -> Result<String, Error> {
    let argument = |place: usize, name: &str| -> Result<Option<Value>, Error> {
        Ok(args.get(place).cloned().or(options.get(name)?))
    };
    let width = argument(0, "width")?.unwrap_or_else(|| Value::from(4));
    let first = argument(1, "first")?.is_some_and(|value| value.is_true());
    let blank = argument(2, "blank")?.is_some_and(|value| value.is_true());
    options.assert_all_used()?;
    let before = match (width.as_str(), usize::try_from(width.clone())) {
        (Some(text), _) if text.len() <= WIDEST => text.to_owned(),
        (None, Ok(width)) if width <= WIDEST => " ".repeat(width),
        _ => return Err(refused(format!("indent: at most {WIDEST} characters"))),
    };
    budget.make(
        text.len().saturating_add(text.matches('\n').count().saturating_add(1).saturating_mul(before.len())),
    )?;
    // As Jinja does it: the text gets a line end, and what it makes is cut off again.
    let ended = format!("{text}\n");
    let mut indented = String::new();
    for (place, line) in lines(&ended, false).enumerate() {
        if place > 0 {
            indented.push('\n');
        }
        if (place > 0 && (blank || !line.is_empty())) || (place == 0 && first) {
            indented.push_str(&before);
        }
        indented.push_str(line);
    }
    Ok(indented)
}

/// `format % values`.
pub(super) fn percent(format: &str, values: &[Value], budget: &Budget) -> Result<Value, Error> {
    check_fields(format, values, budget)?;
    let style = minijinja::formatting::FormatStyle::Printf;
    minijinja::formatting::format(style, format, values).map(Value::from)
}

/// Refuses a field that is wider than any text of a prompt; counts what the fields can come to, as each may show any of
/// the values.
fn check_fields(format: &str, values: &[Value], budget: &Budget) -> Result<(), Error> {
    let mut digits = 0;
    for byte in format.bytes() {
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > 3 {
            return Err(refused("format: a field of more than 999 characters"));
        }
    }
    if format.contains('*') {
        return Err(refused("format: the width of a field is to stand in the format"));
    }
    let mut longest = WIDEST;
    for value in values {
        longest = longest.max(python::text(value, budget)?.len());
    }
    let fields = format.matches(['{', '%']).count();
    budget.make(format.len().saturating_add(fields.saturating_mul(longest)))
}
