//! The log: a line per event, as text or as JSON.
//!
//! Only events of our own crates are written, whose fields are known: no library can put a header, a prompt or a key
//! into it. There are no spans; a request's id ties its lines together, and its trace id, where a client sent a W3C
//! `traceparent`, ties them to the client's.

use std::any::Any;
use std::fmt::Debug;
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use provenance::Clock;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::settings::{LogFormat, LogLevel, LogSettings};

/// Crates whose events are written.
const OURS: [&str; 6] = ["serving", "inference", "filters", "tokenizer", "provenance", "cli"];

/// One for the process, like its standard error.
static LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Info as u8);

struct Log {
    format: LogFormat,
    clock: Clock,
    output: Mutex<Box<dyn Write + Send>>,
}

/// Begins the log of the process on `output`. `false` if it has one already, which then stays.
pub fn start_log(settings: LogSettings, clock: Clock, output: Box<dyn Write + Send>) -> bool {
    set_level(settings.level);
    let log = Log { format: settings.format, clock, output: Mutex::new(output) };
    tracing::subscriber::set_global_default(log).is_ok()
}

/// From now on the log says where a thread panicked, and nothing of standard error else: what a panic says of a slice or of an
/// `unwrap` repeats the text that it is about, which may be a prompt.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, said = said(panic.payload()), "a thread panicked: a mistake of this program");
    }));
}

/// What a panic says, where that stands in the program as it is.
fn said(payload: &(dyn Any + Send)) -> &'static str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("not told, since it may repeat what a client sent")
}

/// From now on, only events of this importance.
pub fn set_level(level: LogLevel) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

fn importance(level: &Level) -> LogLevel {
    match *level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        _ => LogLevel::Debug,
    }
}

fn is_ours(metadata: &Metadata) -> bool {
    let name = metadata.target().split("::").next().unwrap_or_default();
    metadata.is_event() && OURS.contains(&name) && *metadata.level() != Level::TRACE
}

impl Subscriber for Log {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // The level may change later.
        if is_ours(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata) -> bool {
        is_ours(metadata) && importance(metadata.level()) as u8 <= LEVEL.load(Ordering::Relaxed)
    }

    fn event(&self, event: &Event) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = event.metadata().level().as_str().to_lowercase();
        let line = match self.format {
            LogFormat::Json => json_line(&self.clock.timestamp(), &level, event.metadata().target(), fields),
            LogFormat::Text => text_line(&self.clock.timestamp(), &level, fields),
        };
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        // Who reads the log may have gone; the server goes on.
        let _ = output.write_all(line.as_bytes());
    }

    fn new_span(&self, _: &Attributes) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The fields of an event, in their order.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            ("message", other) => self.message = other.to_string(),
            (name, value) => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, json!(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, json!(value));
    }
}

fn json_line(time: &str, level: &str, target: &str, fields: Fields) -> String {
    let mut line = Map::new();
    for (name, value) in [("time", time), ("level", level), ("target", target), ("message", &fields.message)]
    {
        line.insert(name.to_string(), json!(value));
    }
    for (name, value) in fields.others {
        line.insert(name.to_string(), value);
    }
    format!("{}\n", Value::Object(line))
}

fn text_line(time: &str, level: &str, fields: Fields) -> String {
    let mut line = format!("{time} {level:<5} {}", printable(&fields.message));
    for (name, value) in fields.others {
        let value = match value {
            Value::String(text) if is_plain(&text) => text,
            // As JSON it has no line ends and cannot pretend to be another line.
            other => other.to_string(),
        };
        line.push_str(&format!(" {name}={value}"));
    }
    line.push('\n');
    line
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "-_./:{}".contains(c))
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields {
            message: "request".to_string(),
            others: vec![
                ("route", json!("GET /x")),
                ("id", json!("ab")),
                ("n", json!(3)),
                ("evil", json!("a\nb")),
            ],
        }
    }

    #[test]
    fn a_panic_does_not_repeat_what_it_is_about() {
        let payload = |work: fn(&str)| std::panic::catch_unwind(|| work("geheim ż")).unwrap_err();
        let of_slice = payload(|text| assert!(text[..8].is_empty()));
        assert!(of_slice.downcast_ref::<String>().is_some_and(|text| text.contains("geheim")), "it would");
        assert!(!said(of_slice.as_ref()).contains("geheim"));
        assert_eq!(said(payload(|_| panic!("as it stands here")).as_ref()), "as it stands here");
    }

    #[test]
    fn a_line_is_one_line_in_both_formats() {
        let text = text_line("T", "info", fields());
        assert_eq!(text, "T info  request route=\"GET /x\" id=ab n=3 evil=\"a\\nb\"\n");
        let json: Value = serde_json::from_str(&json_line("T", "info", "serving", fields())).unwrap();
        let expected = json!({
            "time": "T", "level": "info", "target": "serving", "message": "request",
            "route": "GET /x", "id": "ab", "n": 3, "evil": "a\nb",
        });
        assert_eq!(json, expected);
    }
}
