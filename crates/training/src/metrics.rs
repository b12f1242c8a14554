//! What a person watches: one line per step in `metrics.jsonl`, an event file for TensorBoard, a short live status.
//!
//! There are clocks in it, so it belongs to the circumstances. The files stand in the scratch folder while the run lasts:
//! they survive a kill, are cut back to the step from which the run goes on, and cover the whole run in the end.

use crate::Error;
use crate::journal::HeldOutPoint;
use crate::tensorboard::{self, EVENTS_FILE};
use provenance::{Context, StageOutput, StoredFile};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const METRICS_FILE: &str = "metrics.jsonl";
/// The rate that is shown is that of so many steps.
const RATE_STEPS: usize = 20;

/// One step's numbers.
#[derive(Clone, Debug)]
pub(crate) struct StepLine {
    /// Counted from 1.
    pub step: u64,
    pub loss: f64,
    pub gradient_norm: f64,
    pub learning_rate: f64,
    /// Whether the step was left out as an outlier.
    pub skipped: bool,
    /// Largest load of an expert over the mean, by layer; empty in a dense model.
    pub expert_load: Vec<f64>,
}

/// The metrics of a run.
pub(crate) struct Metrics<'a> {
    context: &'a Context,
    batch_tokens: usize,
    metrics: Target,
    events: Target,
    step_began: SystemTime,
    /// How long the last steps took, without what happened between them.
    took: VecDeque<Duration>,
    last_loss: f64,
}

/// A file that grows.
struct Target {
    path: PathBuf,
    file: Option<StoredFile>,
    pending: Vec<u8>,
}

impl Target {
    /// Hands what is pending to the system.
    fn write(&mut self, context: &Context) -> Result<(), Error> {
        if !self.pending.is_empty() {
            let file = match &mut self.file {
                Some(file) => file,
                None => self.file.insert(context.storage.append(&self.path)?),
            };
            file.write_bytes(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }

    fn sync(&mut self, context: &Context) -> Result<(), Error> {
        self.write(context)?;
        if let Some(file) = &mut self.file {
            file.sync()?;
        }
        Ok(())
    }
}

impl<'a> Metrics<'a> {
    /// Goes on with the metrics of a run that has done `step` steps: later lines, which are about to come again, go.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn resume(
        output: &StageOutput,
        step: u64,
        batch_tokens: usize,
        context: &'a Context,
    ) -> Result<Metrics<'a>, Error> {
        let path = output.scratch.join(METRICS_FILE);
        let found = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(Error::Read { path, source }),
        };
        let (mut kept, mut events) = (Vec::new(), tensorboard::opening());
        for line in found.split_inclusive(|byte| *byte == b'\n') {
            // A torn last line is no JSON, or has no end.
            let Ok(value) = serde_json::from_slice::<Value>(line) else { continue };
            if line.ends_with(b"\n") && value["step"].as_u64().is_some_and(|number| number <= step) {
                kept.extend_from_slice(line);
                events.extend(tensorboard::event(&value));
            }
        }
        if kept != found {
            context.storage.replace(&path, &kept)?;
        }
        let events_path = output.scratch.join(EVENTS_FILE);
        context.storage.replace(&events_path, &events)?;
        let target = |path| Target { path, file: None, pending: Vec::new() };
        Ok(Metrics {
            context,
            batch_tokens,
            metrics: target(path),
            events: target(events_path),
            step_began: context.clock.now(),
            took: VecDeque::new(),
            last_loss: f64::NAN,
        })
    }

    /// A step begins.
    pub fn begin_step(&mut self) {
        self.step_began = self.context.clock.now();
    }

    /// A step is done.
    pub fn step(&mut self, line: &StepLine) {
        let took = self.context.clock.now().duration_since(self.step_began).unwrap_or_default();
        if self.took.len() == RATE_STEPS {
            self.took.pop_front();
        }
        self.took.push_back(took);
        self.last_loss = line.loss;
        let mut value = json!({
            "step": line.step,
            "loss": line.loss,
            "gradient_norm": line.gradient_norm,
            "learning_rate": line.learning_rate,
            "tokens_per_second": self.tokens_per_second().round(),
        });
        if line.skipped {
            value["skipped"] = json!(true);
        }
        if !line.expert_load.is_empty() {
            value["expert_load_max_over_mean"] = json!(line.expert_load);
        }
        self.push(value);
    }

    /// Held-out text was measured.
    pub fn heldout(&mut self, point: &HeldOutPoint) {
        let mut bits: Map<String, Value> =
            point.bits_per_byte.iter().map(|(code, bits)| (code.clone(), json!(bits.0))).collect();
        let sum: f64 = point.bits_per_byte.values().map(|bits| bits.0).sum();
        bits.insert("mean".into(), json!(sum / point.bits_per_byte.len() as f64));
        self.push(json!({ "step": point.step, "heldout_bits_per_byte": bits }));
    }

    /// A line of its own.
    fn push(&mut self, mut value: Value) {
        let time = self.context.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        value["time"] = json!(time.as_millis() as f64 / 1000.0);
        self.metrics.pending.extend(value.to_string().bytes());
        self.metrics.pending.push(b'\n');
        self.events.pending.extend(tensorboard::event(&value));
    }

    /// Tokens per second of the last steps.
    pub fn tokens_per_second(&self) -> f64 {
        let seconds: f64 = self.took.iter().map(Duration::as_secs_f64).sum();
        if seconds > 0.0 { (self.took.len() * self.batch_tokens) as f64 / seconds } else { 0.0 }
    }

    /// For the terminal; what it says is also handed to the system, for whoever follows the files.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn status(&mut self) -> Result<String, Error> {
        self.metrics.write(self.context)?;
        self.events.write(self.context)?;
        Ok(format!("loss {:.3}, {:.0} tokens/s", self.last_loss, self.tokens_per_second()))
    }

    /// Syncs: a checkpoint that stands has its metrics.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.metrics.sync(self.context)?;
        self.events.sync(self.context)
    }

    /// Puts the files into the artefact.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn finish(mut self, output: &StageOutput) -> Result<(), Error> {
        self.sync()?;
        let folder = output.payload.join("circumstances");
        self.context.storage.create_folder(&folder)?;
        for (target, name) in [(self.metrics, METRICS_FILE), (self.events, EVENTS_FILE)] {
            let bytes = match std::fs::read(&target.path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                Err(source) => return Err(Error::Read { path: target.path, source }),
            };
            self.context.storage.write(&folder.join(name), &bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64) -> StepLine {
        let expert_load = Vec::new();
        StepLine { step, loss: 2.0, gradient_norm: 1.0, learning_rate: 0.1, skipped: step == 3, expert_load }
    }

    #[test]
    fn lines_survive_and_are_cut_back_to_the_step_that_is_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let output =
            StageOutput { payload: folder.path().join("payload"), scratch: folder.path().join("scratch") };
        for path in [&output.payload, &output.scratch] {
            std::fs::create_dir(path).unwrap();
        }
        let context = Context::quiet(1);
        let mut metrics = Metrics::resume(&output, 0, 64, &context).unwrap();
        for step in 1..=5 {
            metrics.begin_step();
            metrics.step(&line(step));
        }
        metrics.sync().unwrap();
        // A kill in the middle of a write.
        let path = output.scratch.join(METRICS_FILE);
        let torn = [std::fs::read(&path).unwrap(), b"{\"step\": 4".to_vec()].concat();
        std::fs::write(&path, torn).unwrap();
        let mut metrics = Metrics::resume(&output, 4, 64, &context).unwrap();
        for step in 5..=6 {
            metrics.step(&line(step));
        }
        assert!(metrics.status().unwrap().contains("loss 2.000"));
        metrics.finish(&output).unwrap();
        let text = std::fs::read_to_string(output.payload.join("circumstances/metrics.jsonl")).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let steps: Vec<u64> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
        assert_eq!(lines.iter().filter(|line| line["skipped"] == true).count(), 1);
        let events = std::fs::read(output.payload.join("circumstances").join(EVENTS_FILE)).unwrap();
        let expected: Vec<u8> = lines.iter().flat_map(tensorboard::event).collect();
        assert_eq!(events, [tensorboard::opening(), expected].concat());
    }
}
