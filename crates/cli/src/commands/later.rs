//! Progress that shows itself only when a task takes long: most models are read in a moment, and nobody wants to hear of it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use provenance::Progress;

/// A task that takes longer is shown.
pub const LONG: Duration = Duration::from_secs(2);

/// Passes a task on once it has taken [`LONG`].
pub struct Later<'a> {
    shown: &'a dyn Progress,
    long: Duration,
    task: Mutex<Option<Task>>,
}

struct Task {
    name: String,
    total: Option<u64>,
    unit: String,
    began: Instant,
    done: u64,
    is_shown: bool,
}

impl<'a> Later<'a> {
    pub fn new(shown: &'a dyn Progress) -> Later<'a> {
        Later { shown, long: LONG, task: Mutex::new(None) }
    }

    fn task(&self) -> std::sync::MutexGuard<'_, Option<Task>> {
        self.task.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Progress for Later<'_> {
    fn begin(&self, name: &str, total: Option<u64>, unit: &str) {
        let (name, unit) = (name.to_string(), unit.to_string());
        *self.task() = Some(Task { name, total, unit, began: Instant::now(), done: 0, is_shown: false });
    }

    fn advance(&self, units: u64) {
        let mut task = self.task();
        let Some(task) = task.as_mut() else { return };
        task.done += units;
        if task.is_shown {
            self.shown.advance(units);
        } else if task.began.elapsed() >= self.long {
            task.is_shown = true;
            self.shown.begin(&task.name, task.total, &task.unit);
            self.shown.advance(task.done);
        }
    }

    fn note(&self, text: &str) {
        if self.task().as_ref().is_some_and(|task| task.is_shown) {
            self.shown.note(text);
        }
    }

    fn warn(&self, text: &str) {
        self.shown.warn(text);
    }

    fn say(&self, text: &str) {
        self.shown.say(text);
    }

    fn end(&self) {
        if self.task().take().is_some_and(|task| task.is_shown) {
            self.shown.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Progress for Heard {
        fn begin(&self, task: &str, total: Option<u64>, unit: &str) {
            self.0.lock().unwrap().push(format!("{task} {total:?} {unit}"));
        }
        fn advance(&self, units: u64) {
            self.0.lock().unwrap().push(units.to_string());
        }
        fn note(&self, _: &str) {}
        fn warn(&self, _: &str) {}
        fn end(&self) {
            self.0.lock().unwrap().push("end".to_string());
        }
    }

    #[test]
    fn a_short_task_is_not_heard_of_and_a_long_one_from_its_beginning() {
        let heard = Heard::default();
        for (long, expected) in [
            (Duration::from_secs(3600), vec![]),
            (Duration::ZERO, vec!["reading Some(9) bytes", "4", "5", "end"]),
        ] {
            let later = Later { long, ..Later::new(&heard) };
            later.begin("reading", Some(9), "bytes");
            later.advance(4);
            later.advance(5);
            later.end();
            assert_eq!(std::mem::take(&mut *heard.0.lock().unwrap()), expected);
        }
    }
}
