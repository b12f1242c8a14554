//! What a person sees while the program works: on standard error, a bar with rate and remaining time on a terminal,
//! plain lines in a pipe. Results for programs go to standard output, as one JSON object, when `--json` is given.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use provenance::Progress;

/// How often a long task says something when nobody watches a bar.
const PLAIN_LINE_EVERY: Duration = Duration::from_secs(10);

/// Standard error as a place for people.
pub struct Console {
    terminal: bool,
    colour: bool,
    task: Mutex<Option<Task>>,
}

struct Task {
    name: String,
    unit: String,
    total: Option<u64>,
    done: u64,
    /// Units that an earlier run had done.
    already: u64,
    note: String,
    bar: Option<ProgressBar>,
    began: Instant,
    last_line: Instant,
}

impl Console {
    /// `no_colour` is whether `NO_COLOR` is set (<https://no-color.org>).
    pub fn new(no_colour: bool) -> Console {
        let terminal = std::io::stderr().is_terminal();
        Console { terminal, colour: terminal && !no_colour, task: Mutex::new(None) }
    }

    /// A line for people.
    pub fn say(&self, text: &str) {
        let task = self.task.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match task.as_ref().and_then(|task| task.bar.as_ref()) {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Text in bold, where the terminal shows it.
    pub fn bold(&self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_string() }
    }

    fn style(&self, total: bool) -> ProgressStyle {
        let (open, close) = if self.colour { ("{bar:24.cyan}", "") } else { ("{bar:24}", "") };
        let template = if total {
            format!("  {{prefix:<26}} {open}{close} {{pos}}/{{len}} {{unit}}  {{rate}}  {{eta}}  {{msg}}")
        } else {
            "  {prefix:<26} {spinner} {pos} {unit}  {rate}  {msg}".to_string()
        };
        let style = ProgressStyle::with_template(&template);
        style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
    }
}

impl Progress for Console {
    fn begin(&self, name: &str, total: Option<u64>, unit: &str) {
        self.end();
        let bar = self.terminal.then(|| {
            let bar = match total {
                Some(total) => ProgressBar::new(total),
                None => ProgressBar::new_spinner(),
            };
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            let unit = unit.to_string();
            let style = self
                .style(total.is_some())
                .with_key("unit", move |_: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = out.write_str(&unit);
                })
                .with_key("rate", |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = write!(out, "{}/s", amount(state.per_sec()));
                })
                .with_key("eta", |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = write!(out, "{} left", duration(state.eta()));
                });
            bar.set_style(style);
            bar.set_prefix(name.to_string());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let now = Instant::now();
        *self.task.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(Task {
            name: name.to_string(),
            unit: unit.to_string(),
            total,
            done: 0,
            already: 0,
            note: String::new(),
            bar,
            began: now,
            last_line: now,
        });
    }

    fn advance(&self, units: u64) {
        let mut task = self.task.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(task) = task.as_mut() else { return };
        task.done += units;
        match &task.bar {
            Some(bar) => bar.inc(units),
            None if task.last_line.elapsed() >= PLAIN_LINE_EVERY => {
                task.last_line = Instant::now();
                eprintln!("  {}", task.line());
            }
            None => {}
        }
    }

    fn already(&self, units: u64) {
        let mut task = self.task.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(task) = task.as_mut() else { return };
        task.done += units;
        task.already += units;
        if let Some(bar) = &task.bar {
            bar.set_position(task.done);
            bar.reset_eta();
        }
    }

    fn note(&self, text: &str) {
        let mut task = self.task.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(task) = task.as_mut() else { return };
        task.note = text.to_string();
        if let Some(bar) = &task.bar {
            bar.set_message(text.to_string());
        }
    }

    fn warn(&self, text: &str) {
        let mark = if self.colour { "\x1b[33mwarning:\x1b[0m" } else { "warning:" };
        Console::say(self, &format!("{mark} {text}"));
    }

    fn say(&self, text: &str) {
        Console::say(self, &format!("  {text}"));
    }

    fn end(&self) {
        let task = self.task.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let Some(task) = task else { return };
        if let Some(bar) = &task.bar {
            bar.finish_and_clear();
        }
        if task.done > 0 {
            eprintln!("  {}", task.closing_line());
        }
    }
}

impl Task {
    /// Units per second of this run.
    fn rate(&self) -> f64 {
        (self.done - self.already) as f64 / self.began.elapsed().as_secs_f64().max(1e-9)
    }

    fn line(&self) -> String {
        let rate = self.rate();
        let (of, left) = match self.total {
            Some(total) => {
                let left = total.saturating_sub(self.done) as f64 / rate.max(1e-9);
                (format!("/{total}"), format!("  {} left", duration(Duration::from_secs_f64(left.min(1e9)))))
            }
            None => (String::new(), String::new()),
        };
        format!("{:<26} {}{of} {}  {}/s{left}  {}", self.name, self.done, self.unit, amount(rate), self.note)
            .trim_end()
            .to_string()
    }

    fn closing_line(&self) -> String {
        let elapsed = self.began.elapsed();
        let rate = amount(self.rate());
        format!(
            "{:<26} {} {} in {}  ({rate}/s)  {}",
            self.name,
            self.done,
            self.unit,
            duration(elapsed),
            self.note
        )
        .trim_end()
        .to_string()
    }
}

/// A number for people: `4.1k`, `12.3M`.
pub fn amount(number: f64) -> String {
    match number {
        n if n < 10.0 => format!("{n:.1}"),
        n if n < 1e4 => format!("{n:.0}"),
        n if n < 1e6 => format!("{:.1}k", n / 1e3),
        n if n < 1e9 => format!("{:.1}M", n / 1e6),
        n => format!("{:.1}G", n / 1e9),
    }
}

/// `1 document`, `2 documents`.
pub fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A number of bytes for people: `3.4 MB`.
pub fn bytes(number: u64) -> String {
    match number as f64 {
        n if n < 1e3 => format!("{n:.0} B"),
        n if n < 1e6 => format!("{:.1} KB", n / 1e3),
        n if n < 1e9 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.2} GB", n / 1e9),
    }
}

/// A span of time for people: `0.4 s`, `3 min 20 s`, `2 h 5 min`, `3.1 years`.
pub fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..=9 => format!("{:.1} s", span.as_secs_f64()),
        10..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        86_400..=31_557_599 => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
        _ => format!("{:.1} years", span.as_secs_f64() / 31_557_600.0),
    }
}

/// Text of a model or of a file as it may be shown on a terminal: control characters, which could move the cursor or
/// change what stands there, become the replacement character; line ends and tabs stay.
pub fn printable(text: &str) -> String {
    let harmless = |c: char| !c.is_control() || c == '\n' || c == '\t';
    text.chars().map(|c| if harmless(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// A table for people: columns separated by two spaces, the first `left` columns flush left, the others flush right.
pub fn table(header: &[&str], rows: &[Vec<String>], left: usize) -> String {
    let width = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = header.iter().map(|title| width(title)).collect();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            widths[column] = widths[column].max(width(cell));
        }
    }
    let line = |cells: &[String]| {
        let mut line = String::from(" ");
        for (column, cell) in cells.iter().enumerate() {
            let padding = " ".repeat(widths[column] - width(cell));
            let (before, after) = if column < left { ("", padding.as_str()) } else { (padding.as_str(), "") };
            line.push_str(&format!(" {before}{cell}{after} "));
        }
        line.trim_end().to_string()
    };
    let header: Vec<String> = header.iter().map(|title| title.to_string()).collect();
    let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
    let mut lines = vec![line(&header), line(&rule)];
    lines.extend(rows.iter().map(|row| line(row)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(amount(3.12), "3.1");
        assert_eq!(amount(21_300.0), "21.3k");
        assert_eq!(bytes(3_400_000), "3.4 MB");
        assert_eq!((counted(1, "problem"), counted(2, "problem")), ("1 problem".into(), "2 problems".into()));
        assert_eq!(duration(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(duration(Duration::from_millis(400)), "0.4 s");
        assert_eq!(duration(Duration::from_secs(100_000_000)), "3.2 years");
    }

    #[test]
    fn a_model_cannot_command_the_terminal() {
        assert_eq!(printable("\u{1b}[2Jħobż\n"), "\u{fffd}[2Jħobż\n");
    }

    #[test]
    fn a_table_is_aligned_in_any_script() {
        let rows = vec![vec!["ελληνικά".into(), "1".into()], vec!["Malti".into(), "1,000".into()]];
        let text = table(&["language", "documents"], &rows, 1);
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }
}
