//! What a person watches: one line per step in `metrics.jsonl`, an event file for TensorBoard, a short live status.
//!
//! There are clocks in it, so it belongs to the circumstances. The files stand in the scratch folder while the run lasts:
//! they survive a kill, are cut back to the step from which the run goes on, and cover the whole run in the end.

use crate::Error;
use crate::journal::HeldOutPoint;
use crate::products::{self, Product};
use crate::tensorboard::{self, EVENTS_FILE};
use provenance::{Context, StageOutput, StoredFile};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const METRICS_FILE: &str = "metrics.jsonl";
/// The rate that is shown is that of so many steps.
const RATE_STEPS: usize = 20;
/// Memory and energy are read once in so many steps.
pub(crate) const MACHINE_STEPS: u64 = 10;
/// A run of fewer operations is not worth measuring the machine's peak for.
const OPERATIONS_WORTH_A_PEAK: f64 = 1e12;

/// What the figures of a run are measured by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Yardstick {
    pub batch_tokens: usize,
    /// Useful floating-point operations of a step.
    pub step_operations: f64,
    /// The machine's, a second, in a large matrix product.
    pub peak: Option<f64>,
}

impl Yardstick {
    /// Measures the peak, where the run is long enough.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn new(
        batch_tokens: usize,
        step_operations: f64,
        steps: u64,
        threads: usize,
    ) -> Result<Yardstick, Error> {
        let mut yardstick = Yardstick { batch_tokens, step_operations, peak: None };
        if step_operations * steps as f64 >= OPERATIONS_WORTH_A_PEAK {
            let large = Product {
                rows: 1024,
                columns: 1024,
                depth: 512,
                a_transposed: false,
                b_transposed: true,
                adds: false,
                times: 1,
            };
            yardstick.peak = Some(products::measure(&[large], threads, 5)?.operations_per_second);
        }
        Ok(yardstick)
    }
}

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
    yardstick: Yardstick,
    metrics: Target,
    events: Target,
    step_began: SystemTime,
    /// How long the last steps took, without what happened between them.
    took: VecDeque<Duration>,
    last_loss: f64,
    /// That of the layer whose experts have the least even loads.
    expert_load: Option<f64>,
    memory_bytes: Option<u64>,
    /// What the runs before this one spent, as far as their lines say.
    joules_before: f64,
    /// The last two readings: when, and how much since this run began.
    energy: [Option<(SystemTime, f64)>; 2],
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
        yardstick: Yardstick,
        context: &'a Context,
    ) -> Result<Metrics<'a>, Error> {
        let path = output.scratch.join(METRICS_FILE);
        let found = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(Error::Read { path, source }),
        };
        let (mut kept, mut events, mut joules_before) = (Vec::new(), tensorboard::opening(), 0.0);
        for line in found.split_inclusive(|byte| *byte == b'\n') {
            // A torn last line is no JSON, or has no end.
            let Ok(value) = serde_json::from_slice::<Value>(line) else { continue };
            if line.ends_with(b"\n") && value["step"].as_u64().is_some_and(|number| number <= step) {
                kept.extend_from_slice(line);
                events.extend(tensorboard::event(&value));
                joules_before = value["energy_joules"].as_f64().unwrap_or(joules_before);
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
            yardstick,
            metrics: target(path),
            events: target(events_path),
            step_began: context.clock.now(),
            took: VecDeque::new(),
            last_loss: f64::NAN,
            expert_load: None,
            memory_bytes: None,
            joules_before,
            energy: [None, context.meters.energy().joules.map(|joules| (context.clock.now(), joules))],
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
        self.expert_load = line.expert_load.iter().copied().reduce(f64::max);
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
        if let Some(share) = self.peak_share() {
            value["peak_share"] = json!((share * 1e4).round() / 1e4);
        }
        if line.step.is_multiple_of(MACHINE_STEPS) {
            self.read_meters();
            value["memory_bytes"] = json!(self.memory_bytes);
            value["energy_joules"] = json!(self.energy[1].map(|(_, joules)| self.joules_before + joules));
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

    fn read_meters(&mut self) {
        let Context { meters, clock, .. } = self.context;
        self.memory_bytes = meters.memory_bytes();
        self.energy = [self.energy[1], meters.energy().joules.map(|joules| (clock.now(), joules))];
    }

    /// Steps per second of the last steps.
    fn steps_per_second(&self) -> f64 {
        let seconds: f64 = self.took.iter().map(Duration::as_secs_f64).sum();
        if seconds > 0.0 { self.took.len() as f64 / seconds } else { 0.0 }
    }

    fn tokens_per_second(&self) -> f64 {
        self.steps_per_second() * self.yardstick.batch_tokens as f64
    }

    /// Useful operations over those that the machine could do; none where other programs disturbed the measurement so much
    /// that steps were faster than it.
    fn peak_share(&self) -> Option<f64> {
        let share = |peak| self.steps_per_second() * self.yardstick.step_operations / peak;
        self.yardstick.peak.map(share).filter(|share| *share <= 1.0)
    }

    /// Mean power between the last two readings.
    fn watts(&self) -> Option<f64> {
        let [Some((before, first)), Some((now, last))] = self.energy else { return None };
        let seconds = now.duration_since(before).unwrap_or_default().as_secs_f64();
        (seconds > 0.0).then(|| (last - first) / seconds)
    }

    /// For the terminal; what it says is also handed to the system, for whoever follows the files.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn status(&mut self) -> Result<String, Error> {
        self.metrics.write(self.context)?;
        self.events.write(self.context)?;
        let mut parts =
            vec![format!("loss {:.3}", self.last_loss), format!("{:.0} tokens/s", self.tokens_per_second())];
        if let Some(share) = self.peak_share() {
            parts.push(format!("{:.0} % of peak", share * 100.0));
        }
        if let Some(load) = self.expert_load {
            parts.push(format!("expert load {load:.2}"));
        }
        if let Some(bytes) = self.memory_bytes {
            parts.push(format!("{} MB", bytes / 1_000_000));
        }
        parts.push(self.watts().map_or("energy absent".to_string(), |watts| format!("{watts:.0} W")));
        Ok(parts.join(", "))
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

    const YARDSTICK: Yardstick = Yardstick { batch_tokens: 64, step_operations: 1e6, peak: Some(4e6) };

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
        let mut metrics = Metrics::resume(&output, 0, YARDSTICK, &context).unwrap();
        for step in 1..=5 {
            metrics.begin_step();
            metrics.step(&line(step));
        }
        metrics.sync().unwrap();
        // A kill in the middle of a write.
        let path = output.scratch.join(METRICS_FILE);
        let torn = [std::fs::read(&path).unwrap(), b"{\"step\": 4".to_vec()].concat();
        std::fs::write(&path, torn).unwrap();
        let mut metrics = Metrics::resume(&output, 4, YARDSTICK, &context).unwrap();
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

    #[test]
    fn the_status_tells_rate_share_of_the_peak_and_what_there_is_no_meter_for() {
        let folder = tempfile::tempdir().unwrap();
        let output = StageOutput { payload: folder.path().into(), scratch: folder.path().into() };
        let mut context = Context::quiet(1);
        // A clock that goes half a second on each time it is read.
        let ticks = std::sync::atomic::AtomicU64::new(0);
        context.clock = provenance::Clock::from_fn(move || {
            UNIX_EPOCH + Duration::from_millis(500 * ticks.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
        });
        let mut metrics = Metrics::resume(&output, 0, YARDSTICK, &context).unwrap();
        for step in 1..=10 {
            metrics.begin_step();
            metrics.step(&line(step));
        }
        assert_eq!(metrics.status().unwrap(), "loss 2.000, 128 tokens/s, 50 % of peak, energy absent");
        let last = std::fs::read_to_string(folder.path().join(METRICS_FILE)).unwrap();
        let last: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
        assert_eq!(
            (last["peak_share"].as_f64(), last["tokens_per_second"].as_f64()),
            (Some(0.5), Some(128.0))
        );
        assert!(last["energy_joules"].is_null() && last["memory_bytes"].is_null());
        assert!(Yardstick::new(64, 1e9, 1, 1).unwrap().peak.is_none(), "too short a run");
        assert!(Yardstick::new(64, 1e9, 1000, 1).unwrap().peak.unwrap() > 1e6);
    }
}
