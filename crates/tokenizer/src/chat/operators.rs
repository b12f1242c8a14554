//! What operators, filters, tests and functions of a template do, where Python's meaning or the budget of the run asks for
//! more than the engine's own.

use std::sync::Arc;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, State, Value};

use super::budget::{Budget, refused};
use super::clock::Moment;
use super::{guard, json, methods, python};

/// Bytes of a value in a list.
const PLACE: usize = size_of::<Value>();

/// Puts everything into the environment of one run.
pub(super) fn install(environment: &mut Environment<'_>, budget: &Arc<Budget>, now: Option<Moment>) {
    checks(environment, budget);
    arithmetic(environment, budget);
    filters(environment, budget);
    tests(environment);
    let methods_budget = budget.clone();
    environment.set_unknown_method_callback(move |state, value, method, args| {
        methods::call(state, value, method, args, &methods_budget)
    });
    environment.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        Err(refused(format!("the template refuses the conversation: {}", shortened(&message))))
    });
    environment.add_function("strftime_now", move |format: String| match now {
        Some(moment) => moment.format(&format).map_err(refused),
        None => Err(refused(
            "the template asks for the date (strftime_now), which would give other tokens every day; write the date into \
             a system message instead",
        )),
    });
    let format_budget = budget.clone();
    environment.set_formatter(move |out, _, value| {
        let text = python::text(value, &format_budget)?;
        out.write_str(&text).map_err(Error::from)
    });
}

/// The first words of what a template says.
fn shortened(message: &Value) -> String {
    match message.as_str() {
        Some(text) => text.chars().take(500).collect(),
        None => format!("a value of type {}", message.kind()),
    }
}

/// The names that `guard` put around expressions.
fn checks(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    let at = budget.clone();
    environment.add_filter(guard::LOOK_AT, move |value: Value| at.look_at(&value).map(|()| value));
    let iterate = budget.clone();
    environment.add_filter(guard::ITERATE, move |value: Value| {
        // The engine takes none for a list without elements; Python does not.
        if value.is_none() {
            return Err(refused("a loop cannot go through none"));
        }
        iterate.look_at(&value).map(|()| value)
    });
    let text = budget.clone();
    environment.add_filter(guard::LOOK_AT_TEXT, move |value: Value| {
        if value.as_str().is_some() {
            text.look_at(&value)?;
        }
        Ok::<_, Error>(value)
    });
    let through = budget.clone();
    environment
        .add_filter(guard::LOOK_THROUGH, move |value: Value| through.look_through(&value).map(|()| value));
    let made = budget.clone();
    environment.add_filter(guard::MADE, move |value: Value| {
        match (value.as_str(), value.kind()) {
            (Some(text), _) => made.make(text.len())?,
            (None, ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) => {
                made.make(value.len().unwrap_or(0).saturating_mul(PLACE))?;
                made.look_through(&value)?;
            }
            _ => {}
        }
        Ok::<_, Error>(value)
    });
}

fn arithmetic(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    let add = budget.clone();
    environment.add_filter(guard::ADD, move |left: Value, right: Value| {
        match (left.as_str(), right.as_str()) {
            (Some(first), Some(second)) => {
                add.make(first.len() + second.len())?;
                Ok(Value::from([first, second].concat()))
            }
            _ if is_list(&left) && is_list(&right) => {
                let items: Vec<Value> = left.try_iter()?.chain(right.try_iter()?).collect();
                add.make(items.len() * PLACE)?;
                Ok(Value::from(items))
            }
            _ => numbers("+", &left, &right, i128::checked_add, |left, right| left + right),
        }
    });
    let concatenate = budget.clone();
    environment.add_filter(guard::CONCATENATE, move |left: Value, right: Value| {
        let mut text = python::text(&left, &concatenate)?;
        text.push_str(&python::text(&right, &concatenate)?);
        concatenate.make(text.len())?;
        Ok::<_, Error>(Value::from(text))
    });
    let multiply = budget.clone();
    environment.add_filter(guard::MULTIPLY, move |left: Value, right: Value| {
        let (many, count) = if right.is_integer() { (&left, &right) } else { (&right, &left) };
        let times = || usize::try_from(i64::try_from(count.clone()).unwrap_or(0).max(0)).unwrap_or(0);
        if let Some(text) = many.as_str().filter(|_| count.is_integer()) {
            multiply.make(text.len().saturating_mul(times()))?;
            return Ok(Value::from(text.repeat(times())));
        }
        if is_list(many) && count.is_integer() {
            let items: Vec<Value> = many.try_iter()?.collect();
            multiply.make(items.len().saturating_mul(times()).saturating_mul(PLACE))?;
            multiply.look(times())?;
            let count = times() * usize::from(!items.is_empty());
            return Ok(Value::from((0..count).flat_map(|_| items.iter().cloned()).collect::<Vec<Value>>()));
        }
        numbers("*", &left, &right, i128::checked_mul, |left, right| left * right)
    });
    let slice = budget.clone();
    environment.add_filter(guard::SLICE, move |value: Value, start: Value, stop: Value, step: Value| {
        sliced(&value, [&start, &stop, &step], &slice)
    });
    let remainder = budget.clone();
    environment.add_filter(guard::REMAINDER, move |left: Value, right: Value| {
        if let Some(format) = left.as_str() {
            let values = if right.is_tuple() { right.try_iter()?.collect() } else { vec![right] };
            return methods::percent(format, &values, &remainder);
        }
        let whole = |left: i128, right: i128| {
            let rest = left.checked_rem(right)?;
            Some(if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest })
        };
        let real = |left: f64, right: f64| left - (left / right).floor() * right;
        numbers("%", &left, &right, whole, real)
    });
}

/// `value[start:stop:step]` of a text or a list.
fn sliced(value: &Value, edges: [&Value; 3], budget: &Budget) -> Result<Value, Error> {
    let edge = |edge: &Value| match edge.is_none() {
        true => Ok(None),
        false => i64::try_from(edge.clone()).map(Some),
    };
    let [start, stop, step] = [edge(edges[0])?, edge(edges[1])?, edge(edges[2])?];
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(refused("a slice cannot have a step of 0"));
    }
    budget.look_at(value)?;
    let places = |length: usize| places(length as i64, start, stop, step);
    if let Some(text) = value.as_str() {
        budget.make(text.len() * size_of::<char>())?;
        let characters: Vec<char> = text.chars().collect();
        let taken = places(characters.len()).filter_map(|place| characters.get(place));
        return Ok(Value::from(taken.collect::<String>()));
    }
    if !is_list(value) {
        return Err(refused(format!("a value of type {} cannot be sliced", value.kind())));
    }
    let items: Vec<Value> = value.try_iter()?.collect();
    budget.make(items.len() * PLACE)?;
    let taken = places(items.len()).filter_map(|place| items.get(place).cloned());
    Ok(Value::from(taken.collect::<Vec<Value>>()))
}

/// The places that Python's slice takes of a sequence.
fn places(length: i64, start: Option<i64>, stop: Option<i64>, step: i64) -> impl Iterator<Item = usize> {
    // Below the first place when it goes backwards, behind the last when it goes forwards.
    let (least, most) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let within = |edge: i64| {
        let from_end = if edge < 0 { edge.saturating_add(length) } else { edge };
        from_end.clamp(least, most)
    };
    let start = start.map_or(if step > 0 { least } else { most }, within);
    let stop = stop.map_or(if step > 0 { most } else { least }, within);
    let mut place = Some(start);
    std::iter::from_fn(move || {
        let here = place.filter(|here| if step > 0 { *here < stop } else { *here > stop })?;
        place = here.checked_add(step);
        usize::try_from(here).ok()
    })
}

/// An operator between two numbers: whole if both are.
fn numbers(
    name: &str,
    left: &Value,
    right: &Value,
    whole: impl Fn(i128, i128) -> Option<i128>,
    real: impl Fn(f64, f64) -> f64,
) -> Result<Value, Error> {
    let is_number = |value: &Value| value.is_number() || value.kind() == ValueKind::Bool;
    if !is_number(left) || !is_number(right) {
        return Err(operands(name, left, right));
    }
    if python::float_of(left).is_some() || python::float_of(right).is_some() {
        let number = |value: &Value| {
            f64::try_from(value.clone()).or_else(|_| i64::try_from(value.clone()).map(|n| n as f64))
        };
        let result = real(number(left)?, number(right)?);
        return Ok(Value::from(result));
    }
    let number = |value: &Value| match value.kind() {
        ValueKind::Bool => Ok(i128::from(value.is_true())),
        _ => i128::try_from(value.clone()),
    };
    let result = whole(number(left)?, number(right)?);
    let result = result.ok_or_else(|| refused(format!("`{name}` of these numbers has no result")))?;
    Ok(i64::try_from(result).map_or_else(|_| Value::from(result), Value::from))
}

fn operands(name: &str, left: &Value, right: &Value) -> Error {
    refused(format!("`{name}` between a value of type {} and one of type {}", left.kind(), right.kind()))
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn filters(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    let json = budget.clone();
    environment.add_filter("tojson", move |value: Value, args: Rest<Value>, options: Kwargs| {
        json::to_json(&value, &args, &options, &json)
    });
    let string = budget.clone();
    environment.add_filter("string", move |value: Value| python::text(&value, &string));
    let trim = budget.clone();
    environment.add_filter("trim", move |state: &mut State, value: Value, args: Rest<Value>| {
        let text = Value::from(python::text(&value, &trim)?);
        methods::call(state, &text, "strip", &args, &trim)
    });
    let join = budget.clone();
    environment.add_filter("join", move |value: Value, between: Option<String>, options: Kwargs| {
        let attribute: Option<String> = options.get("attribute")?;
        let named: Option<String> = options.get("d")?;
        options.assert_all_used()?;
        let between = between.or(named).unwrap_or_default();
        if value.is_undefined() {
            return Ok(String::new());
        }
        let items = value.try_iter()?.checked().map(|item| match &attribute {
            Some(name) => item?.get_attr(name),
            None => item,
        });
        methods::join(&between, items, &join)
    });
    let replace = budget.clone();
    environment.add_filter("replace", move |state: &mut State, value: Value, args: Rest<Value>| {
        let text = Value::from(python::text(&value, &replace)?);
        methods::call(state, &text, "replace", &args, &replace)
    });
    let indent = budget.clone();
    environment.add_filter("indent", move |value: Value, args: Rest<Value>, options: Kwargs| {
        methods::indent(&python::text(&value, &indent)?, &args, &options, &indent)
    });
    let format = budget.clone();
    environment.add_filter("format", move |value: String, args: Rest<Value>| {
        methods::percent(&value, &args, &format)
    });
    // In Python an undefined value has no elements; the engine refuses some of these.
    let length = |value: Value| match value.len() {
        Some(length) => Ok(length),
        None if value.is_undefined() => Ok(0),
        None => Err(refused(format!("a value of type {} has no length", value.kind()))),
    };
    environment.add_filter("length", length);
    environment.add_filter("count", length);
}

/// Tests as Python answers them: a text and a map can be taken apart too.
fn tests(environment: &mut Environment<'_>) {
    let has_elements = |value: Value| {
        value.is_undefined()
            || matches!(
                value.kind(),
                ValueKind::String | ValueKind::Seq | ValueKind::Iterable | ValueKind::Map
            )
    };
    environment.add_test("iterable", has_elements);
    environment.add_test("sequence", has_elements);
}
