//! `eulalia plot`: the curves of runs and the bars of evaluations as a picture, several runs above each other.
//!
//! Reads what the stages leave behind: `circumstances/metrics.jsonl` (everything, a line a step; while a run lasts it
//! stands in the work folder), `training.json` (losses alone), `results.json` of an evaluation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use plot::{Bars, Colour, Curve, Curves, Figure, Panel, Stroke, colour};
use provenance::artefact::MANIFEST_FILE;
use serde_json::{Value, json};

use crate::arguments::PlotArguments;
use crate::errors::Usage;
use crate::run::World;

const METRICS_FILE: &str = "metrics.jsonl";
const TRAINING_FILE: &str = "training.json";
const RESULTS_FILE: &str = "results.json";

/// Pixels of the PNG for each of the figure's: sharp on paper and on fine screens.
const PNG_SCALE: u32 = 2;

pub fn plot(arguments: &PlotArguments, world: &World) -> anyhow::Result<Value> {
    let output = match &arguments.output {
        Some(output) => output.clone(),
        None => PathBuf::from(format!("{}.svg", short_name(&arguments.runs[0]))),
    };
    let extension = output.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    let as_png = match extension.as_deref() {
        Some("svg") => false,
        Some("png") => true,
        _ => {
            let message = format!("--output {}: expected a file that ends in .svg or .png", output.display());
            return Err(Usage(message).into());
        }
    };
    let mut runs: Vec<Run> = Vec::new();
    for path in &arguments.runs {
        runs.extend(read(path, world)?);
    }
    name_apart(&mut runs);
    let scene = figure(&runs).scene();
    let bytes = if as_png { scene.to_png(PNG_SCALE) } else { scene.to_svg().into_bytes() };
    world.storage.replace(&output, &bytes)?;
    world.console.say(&format!("{}", output.display()));
    let shown = runs.iter().map(|run| {
        json!({
            "name": run.name, "source": run.source, "steps": run.loss.last().map(|point| point.0),
            "last_loss": run.loss.last().map(|point| point.1), "languages": run.languages(),
        })
    });
    Ok(json!({ "output": output.display().to_string(), "runs": shown.collect::<Vec<_>>() }))
}

/// Where figures by language stand, the mean of them goes by this name.
const MEAN: &str = "mean";

/// By step.
type Points = Vec<(f64, f64)>;

/// What there is to draw of one run or one evaluation.
#[derive(Default)]
struct Run {
    name: String,
    source: PathBuf,
    loss: Points,
    learning_rate: Points,
    gradient_norm: Points,
    tokens_per_second: Points,
    /// Held-out bits per byte by language.
    heldout: BTreeMap<String, Points>,
    /// Largest load of an expert over the mean load: the highest layer and the mean of the layers.
    load_highest: Points,
    load_mean: Points,
    /// Figures of an evaluation by language.
    evaluation: BTreeMap<String, Value>,
}

impl Run {
    /// How many languages its held-out curves and its evaluation have together; the mean is none.
    fn languages(&self) -> usize {
        let names: BTreeSet<&String> = self.heldout.keys().chain(self.evaluation.keys()).collect();
        names.iter().filter(|name| name.as_str() != MEAN).count()
    }
}

/// The name that a person gave the folder.
fn short_name(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let names = absolute.iter().rev().map(|part| part.to_string_lossy().into_owned());
    let generic =
        [METRICS_FILE, TRAINING_FILE, RESULTS_FILE, "circumstances", "pretrain", "evaluate", "release", "/"];
    let named: Vec<String> = names.filter(|name| !generic.contains(&name.as_str())).take(1).collect();
    named.into_iter().next().unwrap_or_else(|| "plot".into())
}

/// Two runs never share a name in the legend.
fn name_apart(runs: &mut [Run]) {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for (index, run) in runs.iter_mut().enumerate() {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            let before = names[..index].iter().filter(|name| **name == run.name).count();
            run.name = format!("{} ({})", run.name, before + 1);
        }
    }
}

/// Everything that can be drawn at a path: a file, an artefact, a release, or the folder of a run.
fn read(path: &Path, world: &World) -> anyhow::Result<Vec<Run>> {
    let mut run = Run { name: short_name(path), source: path.to_path_buf(), ..Run::default() };
    if path.is_file() {
        read_file(path, true, &mut run, world)?;
        return Ok(vec![run]);
    }
    if path.join(".artefacts").is_dir() {
        return read_run(path, world);
    }
    let finished = path.join(MANIFEST_FILE).is_file();
    if !read_folder(path, finished, &mut run, world)? {
        // A missing path says so in the system's words.
        path.metadata().with_context(|| format!("cannot read {}", path.display()))?;
        bail!(
            "{}: nothing to draw; expected a run, a pretrained model or an evaluation, with {METRICS_FILE}, {TRAINING_FILE} \
             or {RESULTS_FILE}",
            path.display()
        );
    }
    Ok(vec![run])
}

/// Reads what a folder has; says whether it had anything.
fn read_folder(folder: &Path, finished: bool, run: &mut Run, world: &World) -> anyhow::Result<bool> {
    let metrics = [folder.join("circumstances").join(METRICS_FILE), folder.join(METRICS_FILE)];
    let training = metrics.into_iter().chain([folder.join(TRAINING_FILE)]).find(|path| path.is_file());
    let results = [folder.join(RESULTS_FILE), folder.join("evaluation").join(RESULTS_FILE)];
    let results = results.into_iter().find(|path| path.is_file());
    for path in training.iter().chain(&results) {
        read_file(path, finished, run, world)?;
    }
    Ok(training.is_some() || results.is_some())
}

/// The pretraining stages of a run (those that are not finished by what they have written so far), each with the
/// evaluation of its model.
fn read_run(folder: &Path, world: &World) -> anyhow::Result<Vec<Run>> {
    let mut runs = Vec::new();
    let mut evaluations = Vec::new();
    let mut linked: Vec<PathBuf> = entries(folder)?;
    linked.retain(|path| path.join(MANIFEST_FILE).is_file());
    for path in linked {
        let artefact = provenance::Artefact::open(&path)?;
        let content = &artefact.manifest.content;
        let mut run = Run { name: content.name.clone(), source: path.clone(), ..Run::default() };
        match content.stage.as_str() {
            "pretrain" => {
                read_folder(&path, true, &mut run, world)?;
                runs.push((artefact.digest(), run));
            }
            // One with an adapter measures another model.
            "evaluate" if !content.inputs.contains_key("adapter") => {
                read_folder(&path, true, &mut run, world)?;
                evaluations.extend(content.inputs.get("model").map(|model| (*model, run.evaluation)));
            }
            _ => {}
        }
    }
    for (model, evaluation) in evaluations {
        if let Some((_, run)) = runs.iter_mut().find(|(digest, _)| *digest == model) {
            run.evaluation = evaluation;
        }
    }
    let mut runs: Vec<Run> = runs.into_iter().map(|(_, run)| run).collect();
    for path in entries(&folder.join(".work")).unwrap_or_default() {
        let mut run = Run { source: path.clone(), ..Run::default() };
        if path.is_dir()
            && (read_folder(&path, false, &mut run, world)? || read_inside(&path, &mut run, world)?)
        {
            run.name = format!("{} (not finished)", path.file_name().unwrap_or_default().to_string_lossy());
            runs.push(run);
        }
    }
    if runs.is_empty() {
        bail!("{}: this run has no pretrained model yet, and no metrics of one", folder.display());
    }
    let name = short_name(folder);
    match &mut runs[..] {
        [run] => run.name = name,
        many => many.iter_mut().for_each(|run| run.name = format!("{name} {}", run.name)),
    }
    Ok(runs)
}

/// Metrics one folder further down, where a stage keeps its scratch.
fn read_inside(folder: &Path, run: &mut Run, world: &World) -> anyhow::Result<bool> {
    for path in entries(folder)? {
        if path.is_dir() && read_folder(&path, false, run, world)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = list.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// Reads one file by what it is. A last line that is cut off is an error in a finished artefact; a run that is still
/// writing is drawn without it.
fn read_file(path: &Path, finished: bool, run: &mut Run, world: &World) -> anyhow::Result<()> {
    let shown = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        bail!("{shown}: the file is empty; expected the measurements of a run");
    }
    if path.extension().is_some_and(|extension| extension == "jsonl") {
        for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            let whole = line.ends_with(b"\n");
            match serde_json::from_slice::<Value>(line) {
                Ok(value) => add_line(run, &value).with_context(|| format!("{shown}: line {number}"))?,
                Err(_) if !whole && !finished => {
                    world.console.say(&format!("{shown}: line {number} is not written yet"));
                }
                Err(_) if !whole => bail!("{shown}: line {number} is cut off; expected a JSON object"),
                Err(error) => bail!("{shown}: line {number}: expected a JSON object: {error}"),
            }
        }
        if run.loss.is_empty() {
            bail!("{shown}: no line has a loss; expected lines such as {{\"step\": 1, \"loss\": 6.2}}");
        }
        return Ok(());
    }
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| {
        let cut = if error.is_eof() { "the file is cut off" } else { "expected JSON" };
        anyhow::anyhow!("{shown}: line {}: {cut}: {error}", error.line())
    })?;
    if let Some(languages) = value.get("languages").and_then(Value::as_object) {
        for (code, figures) in languages {
            if figures.get("bits_per_byte").and_then(Value::as_f64).is_none() {
                bail!("{shown}: languages.{code}: expected the number bits_per_byte, found {figures}");
            }
            run.evaluation.insert(code.clone(), figures.clone());
        }
        run.evaluation.extend(value.get(MEAN).map(|mean| (MEAN.to_string(), mean.clone())));
        return Ok(());
    }
    let Some(losses) = value.get("loss_nats_per_token").and_then(Value::as_array) else {
        bail!("{shown}: expected loss_nats_per_token (a training) or languages (an evaluation)");
    };
    for (index, loss) in losses.iter().enumerate() {
        let loss = loss.as_f64();
        let loss =
            loss.with_context(|| format!("{shown}: loss_nats_per_token: entry {} is no number", index + 1))?;
        run.loss.push((index as f64 + 1.0, loss));
    }
    for point in value.get("heldout").and_then(Value::as_array).into_iter().flatten() {
        add_heldout(run, point["step"].as_f64().unwrap_or(f64::NAN), &point["bits_per_byte"]);
    }
    if run.loss.is_empty() {
        bail!("{shown}: loss_nats_per_token has no entries");
    }
    Ok(())
}

/// One line of `metrics.jsonl`.
fn add_line(run: &mut Run, line: &Value) -> anyhow::Result<()> {
    let step = line.get("step").and_then(Value::as_f64).context("expected the number \"step\"")?;
    for (key, points) in [
        ("loss", &mut run.loss),
        ("learning_rate", &mut run.learning_rate),
        ("gradient_norm", &mut run.gradient_norm),
        ("tokens_per_second", &mut run.tokens_per_second),
    ] {
        match line.get(key) {
            None | Some(Value::Null) => {}
            Some(value) => {
                let number = value.as_f64();
                points.push((
                    step,
                    number.with_context(|| format!("{key}: expected a number, found {value}"))?,
                ));
            }
        }
    }
    if let Some(bits) = line.get("heldout_bits_per_byte") {
        add_heldout(run, step, bits);
    }
    if let Some(layers) = line.get("expert_load_max_over_mean").and_then(Value::as_array) {
        let loads: Vec<f64> = layers.iter().filter_map(Value::as_f64).collect();
        run.load_highest.push((step, loads.iter().copied().fold(f64::NAN, f64::max)));
        run.load_mean.push((step, loads.iter().sum::<f64>() / loads.len() as f64));
    }
    Ok(())
}

fn add_heldout(run: &mut Run, step: f64, bits: &Value) {
    let numbers: Vec<(&String, f64)> = bits
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(code, bits)| bits.as_f64().map(|bits| (code, bits)))
        .collect();
    for (code, bits) in &numbers {
        run.heldout.entry(code.to_string()).or_default().push((step, *bits));
    }
    if !numbers.is_empty() && !numbers.iter().any(|(code, _)| *code == MEAN) {
        let mean = numbers.iter().map(|(_, bits)| bits).sum::<f64>() / numbers.len() as f64;
        run.heldout.entry(MEAN.into()).or_default().push((step, mean));
    }
}

/// Lines of the comparisons stand back behind the models.
const COMPARISONS: [(&str, &str, Colour); 3] = [
    ("n-gram (Witten-Bell)", "ngram_bits_per_byte", Colour(0x8c, 0x96, 0xa0)),
    ("n-gram (Kneser-Ney)", "kneser_ney_bits_per_byte", Colour(0xb4, 0xbc, 0xc4)),
    ("LZMA", "lzma_bits_per_byte", Colour(0xd9, 0xde, 0xe3)),
];

fn figure(runs: &[Run]) -> Figure {
    let strokes: Vec<Stroke> = (0..runs.len())
        .map(|index| {
            let (colour, dashed) = colour(index);
            Stroke { colour, width: 1.8, opacity: 1.0, dashed }
        })
        .collect();
    let trained: Vec<(&Run, Stroke)> =
        runs.iter().zip(strokes.iter().copied()).filter(|(run, _)| !run.loss.is_empty()).collect();
    let mut figure = Figure {
        title: runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>().join(" · "),
        legend: trained.iter().map(|(run, stroke)| (run.name.clone(), *stroke)).collect(),
        panels: Vec::new(),
    };
    if figure.title.chars().count() > 90 {
        figure.title = format!("{} runs", runs.len());
    }
    if !trained.is_empty() {
        figure.panels.push(loss_panel(&trained));
    }
    let panel = |title: &str, y_label: &str, noisy: bool, of: fn(&Run) -> &Points| {
        let there = || trained.iter().filter(|(run, _)| !of(run).is_empty());
        let mut curves: Vec<Curve> = Vec::new();
        if noisy {
            let faint = |stroke: &Stroke| Stroke { width: 1.0, opacity: 0.28, ..*stroke };
            curves.extend(there().map(|(run, stroke)| curve(of(run).clone(), faint(stroke))));
            curves.extend(there().map(|(run, stroke)| curve(smoothed(of(run)), *stroke)));
        } else {
            curves.extend(there().map(|(run, stroke)| curve(of(run).clone(), *stroke)));
        }
        (!curves.is_empty()).then(|| {
            Panel::Curves(Curves {
                title: title.into(),
                x_label: "step".into(),
                y_label: y_label.into(),
                logarithmic: noisy,
                from_zero: !noisy,
                wide: false,
                curves,
            })
        })
    };
    figure.panels.extend(panel("Learning rate", "", false, |run| &run.learning_rate));
    figure.panels.extend(panel("Gradient norm", "before clipping", true, |run| &run.gradient_norm));
    figure.panels.extend(panel("Speed", "tokens per second", false, |run| &run.tokens_per_second));
    figure.panels.extend(load_panel(&trained));
    figure.panels.extend(heldout_panel(&trained));
    figure.panels.extend(evaluation_panel(runs, &strokes));
    figure
}

fn curve(points: Points, stroke: Stroke) -> Curve {
    Curve { points, stroke, decides_axis: true, label: None }
}

/// Every step faintly, and what remains when the noise of single batches is smoothed away.
fn loss_panel(runs: &[(&Run, Stroke)]) -> Panel {
    let mut curves = Vec::new();
    let highest = |points: &Points| {
        points.iter().map(|point| point.1).filter(|loss| loss.is_finite()).fold(f64::NEG_INFINITY, f64::max)
    };
    for (run, stroke) in runs {
        let faint = Stroke { width: 1.0, opacity: 0.28, ..*stroke };
        // Outliers may leave the axis: they would press everything else flat.
        let decides_axis = highest(&run.loss) <= 1.3 * highest(&smoothed(&run.loss));
        curves.push(Curve { decides_axis, ..curve(run.loss.clone(), faint) });
    }
    for (run, stroke) in runs {
        curves.push(curve(smoothed(&run.loss), Stroke { width: 2.2, ..*stroke }));
    }
    let values = || curves.iter().filter(|curve| curve.decides_axis).flat_map(|curve| &curve.points);
    let low = values().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = values().map(|point| point.1).fold(0.0, f64::max);
    Panel::Curves(Curves {
        title: "Training loss".into(),
        x_label: "step".into(),
        y_label: "nats per token".into(),
        logarithmic: low > 0.0 && high > 4.0 * low,
        from_zero: false,
        wide: true,
        curves,
    })
}

/// The mean of a window around each step, a fortieth of the run wide; at the beginning, where the loss falls fast, as
/// narrow as it must be to stay centred.
fn smoothed(points: &Points) -> Points {
    let half = points.len() / 80;
    let mut sums = vec![(0.0, 0.0)];
    for (_, value) in points {
        let (sum, count) = sums[sums.len() - 1];
        let counts = value.is_finite();
        sums.push((sum + if counts { *value } else { 0.0 }, count + f64::from(u8::from(counts))));
    }
    let window = |index: usize| {
        let (begin, end) = (index - half.min(index), (index + half.min(index) + 1).min(points.len()));
        (sums[end].0 - sums[begin].0) / (sums[end].1 - sums[begin].1)
    };
    points.iter().enumerate().map(|(index, (step, _))| (*step, window(index))).collect()
}

/// One run by language; of several runs the means.
fn heldout_panel(runs: &[(&Run, Stroke)]) -> Option<Panel> {
    let mut curves = Vec::new();
    for (run, stroke) in runs {
        if let [_] = runs {
            for (index, (code, points)) in run.heldout.iter().filter(|(code, _)| *code != MEAN).enumerate() {
                let (colour, _) = colour(index);
                let stroke = Stroke { colour, width: 1.1, opacity: 0.75, dashed: false };
                curves.push(Curve { label: Some(code.clone()), ..curve(points.clone(), stroke) });
            }
        }
        if let Some(points) = run.heldout.get(MEAN) {
            let stroke = match runs {
                [_] => Stroke { colour: Colour(0x22, 0x26, 0x2b), width: 3.0, ..*stroke },
                _ => Stroke { width: 2.2, ..*stroke },
            };
            let label = (runs.len() == 1).then(|| MEAN.to_string());
            curves.push(Curve { label, ..curve(points.clone(), stroke) });
        }
    }
    let title = match runs {
        [_] => "Held-out text by language",
        _ => "Held-out text, mean of the languages",
    };
    (!curves.is_empty()).then(|| {
        Panel::Curves(Curves {
            title: title.into(),
            x_label: "step".into(),
            y_label: "bits per byte".into(),
            logarithmic: false,
            from_zero: false,
            wide: true,
            curves,
        })
    })
}

fn load_panel(runs: &[(&Run, Stroke)]) -> Option<Panel> {
    let mut curves = Vec::new();
    for (run, stroke) in runs.iter().filter(|(run, _)| !run.load_highest.is_empty()) {
        let faint = Stroke { width: 1.0, opacity: 0.3, ..*stroke };
        curves.push(curve(run.load_highest.clone(), faint));
        curves.push(curve(smoothed(&run.load_highest), *stroke));
        curves.push(curve(smoothed(&run.load_mean), Stroke { dashed: true, ..*stroke }));
    }
    (!curves.is_empty()).then(|| {
        Panel::Curves(Curves {
            title: "Expert load: worst layer, mean of the layers (broken)".into(),
            x_label: "step".into(),
            y_label: "largest over mean".into(),
            logarithmic: false,
            from_zero: false,
            wide: false,
            curves,
        })
    })
}

/// Bits per byte by language: each model, and what the first evaluation was compared with.
fn evaluation_panel(runs: &[Run], strokes: &[Stroke]) -> Option<Panel> {
    let evaluated: Vec<(&Run, Colour)> = runs
        .iter()
        .zip(strokes)
        .filter(|(run, _)| !run.evaluation.is_empty())
        .map(|(run, stroke)| (run, stroke.colour))
        .collect();
    let (first, _) = *evaluated.first()?;
    let codes: BTreeSet<&String> = evaluated.iter().flat_map(|(run, _)| run.evaluation.keys()).collect();
    // The mean stands at the end, behind the languages.
    let mut categories: Vec<String> = codes.into_iter().filter(|code| *code != MEAN).cloned().collect();
    categories.push(MEAN.into());
    let values = |run: &Run, key: &str| -> Vec<Option<f64>> {
        categories.iter().map(|code| run.evaluation.get(code)?.get(key)?.as_f64()).collect()
    };
    let mut series: Vec<(String, Colour, Vec<Option<f64>>)> = evaluated
        .iter()
        .map(|(run, colour)| (run.name.clone(), *colour, values(run, "bits_per_byte")))
        .collect();
    for (name, key, colour) in COMPARISONS {
        let values = values(first, key);
        if values.iter().any(Option::is_some) {
            series.push((name.into(), colour, values));
        }
    }
    Some(Panel::Bars(Bars {
        title: "Evaluation by language (lower is better)".into(),
        y_label: "bits per byte".into(),
        categories,
        series,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_a_level_and_begins_at_the_first_value() {
        let points: Points = (1..=200).map(|step| (step as f64, 3.0)).collect();
        assert!(smoothed(&points).iter().all(|(_, value)| (value - 3.0).abs() < 1e-12));
        let falling: Points = (1..=200).map(|step| (step as f64, 1.0 / step as f64)).collect();
        assert_eq!(smoothed(&falling)[0], (1.0, 1.0));
    }

    #[test]
    fn folders_have_the_names_that_people_gave_them() {
        for (path, name) in [
            ("runs/tiny", "tiny"),
            ("runs/tiny/pretrain", "tiny"),
            ("runs/tiny/pretrain/circumstances/metrics.jsonl", "tiny"),
            ("/", "plot"),
        ] {
            assert_eq!(short_name(Path::new(path)), name);
        }
    }
}
