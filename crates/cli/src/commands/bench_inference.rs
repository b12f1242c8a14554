//! `eulalia bench inference`: how fast a model reads a prompt and writes an answer on this machine.

use std::path::Path;
use std::time::Instant;

use anyhow::bail;
use compute::machine::{BANDWIDTH_BYTES, Peaks, Reading};
use model::{
    BLOCK_POSITIONS, CallLimits, InferenceModel, InferenceWorkspace, KvCache, LogitRows, SequenceChunk,
    WeightFormat,
};
use serde_json::{Value, json};

use super::{bench_mixed, load, loading};
use crate::arguments::BenchInferenceArguments;
use crate::console;
use crate::machine;
use crate::program::STOPPED;
use crate::run::World;

/// Reads of the memory before each round of answers.
const READS: usize = 5;
/// Rows of one forward pass, as the engine takes them.
const TOKENS_PER_STEP: usize = 512;

pub fn inference(arguments: &BenchInferenceArguments, world: &World) -> anyhow::Result<Value> {
    // To the end: a measurement that was broken off is worth nothing.
    let _ends = loading::EndsAtOnce::new(world, STOPPED);
    let folder = &arguments.model;
    let threads = world.threads;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let reading = Reading::new(&pool, bandwidth_bytes());
    let peaks = Peaks::measure(&pool);
    world.console.say(&format!(
        "{}, {}, {}",
        folder.display(),
        console::counted(threads as u64, "thread"),
        limits(&peaks)
    ));
    let mut results = Vec::new();
    let (mut rows, mut bandwidths) = (Vec::new(), Vec::new());
    let default = if load::is_gguf(folder) { WeightFormat::Stored } else { WeightFormat::Q8 };
    let formats = if arguments.weights.is_empty() { &vec![default] } else { &arguments.weights };
    for &format in formats {
        let began = Instant::now();
        let model = loading::shown(&load::name_of(folder)?, world, |watch| {
            InferenceModel::load_watched(folder, None, format, threads, watch)
        })?;
        let load_seconds = began.elapsed().as_secs_f64();
        let mut bench = Bench::new(&model, arguments, threads, folder)?;
        let prefill = bench.prefill(arguments, world)?;
        let decode = bench.decode(arguments, &reading, world)?;
        let cache_format = bench.cache.format();
        drop(bench);
        let operations = model.operations_per_token();
        let share = |speed: f64, peak: f64| operations as f64 * speed / peak;
        for &(length, speed) in &prefill {
            let limit = share(speed, limit_of(&model, &peaks).1);
            rows.push(vec![
                format.name().into(),
                format!("prefill {length}"),
                rate(speed),
                format!("{limit:.2}"),
            ]);
        }
        for Decode { depth, batch, speed, share, .. } in &decode {
            let what = match batch {
                1 => format!("decode at {depth}"),
                _ => format!("decode at {depth}, {batch} together"),
            };
            let share = if *batch == 1 { format!("{share:.2}") } else { String::new() };
            rows.push(vec![format.name().into(), what, rate(*speed), share]);
        }
        bandwidths.extend(decode.iter().map(|decode| decode.bandwidth));
        let mut result = json!({
            "format": format.name(),
            "kv_cache": cache_format.name(),
            "kv_cache_bytes_per_position": model.cache_block_bytes(cache_format) / BLOCK_POSITIONS,
            "load_seconds": load_seconds,
            "weight_bytes": model.weight_bytes(),
            "bytes_per_token": model.bytes_per_token(),
            "operations_per_prompt_token": operations,
            "limit_of_prefill": limit_of(&model, &peaks).0,
            "prefill": prefill.iter().map(|&(length, speed)| json!({
                "tokens": length, "tokens_per_second": speed,
                "limit_share": share(speed, limit_of(&model, &peaks).1),
                "vnni_share": peaks.int8.map(|peak| share(speed, peak)),
            })).collect::<Vec<_>>(),
            "decode": decode.iter().map(|decode| json!({
                "depth": decode.depth, "batch": decode.batch, "tokens_per_second": decode.speed,
                "bandwidth_share": decode.share, "read_bandwidth_bytes_per_second": decode.bandwidth,
            })).collect::<Vec<_>>(),
        });
        drop(model);
        if arguments.mixed > 0 {
            let mixed = bench_mixed::mixed(arguments, format, world)?;
            for (what, of) in [
                ("answers alone", [mixed.in_turn.writing, mixed.together.writing]),
                ("prompts too", [mixed.in_turn.whole, mixed.together.whole]),
            ] {
                for (way, speed) in ["in turn", "together"].into_iter().zip(of) {
                    let what = format!("{} of mixed lengths, {what}, {way}", arguments.mixed);
                    rows.push(vec![format.name().into(), what, rate(speed), String::new()]);
                }
            }
            result["mixed"] = mixed.to_json(arguments.mixed);
        }
        results.push(result);
    }
    let bandwidth = if bandwidths.is_empty() { reading.once() } else { median(bandwidths) };
    world.console.say(&console::table(&["weights", "what", "tokens/s", "share of the limit"], &rows, 2));
    world.console.say(&format!(
        "Limits: of prefill, the instruction's peak that its products go by; of decode, the read bandwidth beside it ({:.1} GB/s, \
         median).",
        bandwidth / 1e9
    ));
    Ok(json!({
        "program": concat!("eulalia ", env!("CARGO_PKG_VERSION")),
        "model": folder.display().to_string(),
        "threads": threads,
        "instructions": format!("{:?}", compute::CpuPath::detected()),
        "matrix_unit": compute::bf16::has_matrix_unit(),
        "read_bandwidth_bytes_per_second": bandwidth,
        "peak_operations_per_second": {
            "f32": peaks.f32, "int8_vnni": peaks.int8, "bf16_pairs": peaks.pairs,
            "bf16_matrix_unit": peaks.matrix_unit,
        },
        "formats": results,
        "peak_memory_bytes": machine::peak_memory_bytes(),
    }))
}

/// Bytes that are read to measure the bandwidth: less where little memory is free.
fn bandwidth_bytes() -> usize {
    let free = machine::available_bytes().unwrap_or(u64::MAX) / 8;
    BANDWIDTH_BYTES.min(free as usize).max(64 << 20)
}

/// What instructions alone do here, for people.
fn limits(peaks: &Peaks) -> String {
    let figures = [
        ("f32", Some(peaks.f32)),
        ("AVX-512 BF16", peaks.pairs),
        ("VNNI", peaks.int8),
        ("matrix unit", peaks.matrix_unit),
    ];
    let tera = |(name, peak): (&str, Option<f64>)| Some(format!("{name} {:.2}", peak? / 1e12));
    format!("at most {} TOP/s", figures.into_iter().filter_map(tera).collect::<Vec<_>>().join(", "))
}

/// The instructions that a prompt's products go by, and their peak.
fn limit_of(model: &InferenceModel, peaks: &Peaks) -> (&'static str, f64) {
    match (peaks.matrix_unit, peaks.int8, peaks.pairs) {
        (Some(peak), ..) if !model.is_f32() => ("bf16_matrix_unit", peak),
        (None, Some(peak), _) if model.is_quantised() => ("int8_vnni", peak),
        (None, _, Some(peak)) if !model.is_f32() && !model.is_quantised() => ("bf16_pairs", peak),
        _ => ("f32", peaks.f32),
    }
}

/// How fast answers were written.
struct Decode {
    depth: u64,
    batch: u64,
    /// Tokens per second of all sequences together, median.
    speed: f64,
    /// Bytes of weights per second over the read bandwidth before the same round, median.
    share: f64,
    /// Bytes per second, median.
    bandwidth: f64,
}

fn rate(speed: f64) -> String {
    if speed < 100.0 { format!("{speed:.1}") } else { format!("{speed:.0}") }
}

struct Bench<'a> {
    model: &'a InferenceModel,
    cache: KvCache,
    workspace: InferenceWorkspace,
    /// Blocks of each sequence.
    blocks: Vec<Vec<u32>>,
}

impl<'a> Bench<'a> {
    fn new(
        model: &'a InferenceModel,
        arguments: &BenchInferenceArguments,
        threads: usize,
        folder: &Path,
    ) -> anyhow::Result<Bench<'a>> {
        let longest = |lengths: &[u64]| lengths.iter().max().copied().unwrap_or(0) as usize;
        let positions =
            longest(&arguments.prefill).max(longest(&arguments.depths) + arguments.decode as usize + 1);
        let context = model.config().maximum_positions;
        if positions > context {
            bail!("{}: has a context of {context} tokens, these settings need {positions}", folder.display());
        }
        let cache = arguments.kv_cache.unwrap_or(model.default_cache_format());
        let sequences = longest(&arguments.batches).max(1);
        let each = positions.div_ceil(BLOCK_POSITIONS);
        let limits = CallLimits { rows: TOKENS_PER_STEP.max(sequences), logit_rows: sequences, positions };
        let needed =
            model.workspace_bytes(limits, threads) + sequences * each * model.cache_block_bytes(cache);
        if let Some(available) = machine::available_bytes()
            && needed as u64 > available
        {
            bail!(
                "these settings need {} for cache and buffers, and {} of memory are free: ask for fewer --batches or a \
                 smaller --depths or --prefill",
                console::bytes(needed as u64),
                console::bytes(available)
            );
        }
        let blocks =
            (0..sequences).map(|s| (s * each..(s + 1) * each).map(|block| block as u32).collect()).collect();
        Ok(Bench {
            model,
            cache: model.new_cache_as(sequences * each, cache),
            workspace: model.new_workspace_for(limits, threads),
            blocks,
        })
    }

    /// Reads `length` tokens into the cache of one sequence.
    fn read(&mut self, sequence: usize, length: usize) -> anyhow::Result<()> {
        let vocabulary = self.model.config().vocabulary_size;
        let tokens: Vec<u32> = (0..length).map(|i| ((i * 7919 + sequence) % vocabulary) as u32).collect();
        for first in (0..length).step_by(TOKENS_PER_STEP) {
            let end = (first + TOKENS_PER_STEP).min(length);
            let chunk = SequenceChunk {
                tokens: &tokens[first..end],
                first_position: first,
                blocks: &self.blocks[sequence],
                adapter: None,
                logits: if end == length { LogitRows::Last } else { LogitRows::None },
                answer: false,
            };
            self.model.forward(&[chunk], &mut self.cache, &mut self.workspace)?;
        }
        Ok(())
    }

    /// Tokens per second of each length, medians.
    fn prefill(
        &mut self,
        arguments: &BenchInferenceArguments,
        world: &World,
    ) -> anyhow::Result<Vec<(u64, f64)>> {
        let mut speeds = Vec::new();
        for &length in &arguments.prefill {
            self.read(0, length as usize)?;
            let mut seconds = Vec::new();
            for _ in 0..arguments.rounds {
                world.cancellation.check()?;
                let began = Instant::now();
                self.read(0, length as usize)?;
                seconds.push(began.elapsed().as_secs_f64());
            }
            speeds.push((length, length as f64 / median(seconds)));
        }
        Ok(speeds)
    }

    /// Answers at each depth, of each number of sequences. The read bandwidth is measured before each round: on a machine with
    /// neighbours it changes from one second to the next.
    fn decode(
        &mut self,
        arguments: &BenchInferenceArguments,
        reading: &Reading,
        world: &World,
    ) -> anyhow::Result<Vec<Decode>> {
        let mut results = Vec::new();
        for &depth in &arguments.depths {
            for &batch in &arguments.batches {
                for sequence in 0..batch as usize {
                    self.read(sequence, depth as usize)?;
                }
                let (mut speeds, mut shares, mut bandwidths) = (Vec::new(), Vec::new(), Vec::new());
                for _ in 0..arguments.rounds {
                    world.cancellation.check()?;
                    let bandwidth = median((0..READS).map(|_| reading.once()).collect());
                    let began = Instant::now();
                    self.write(depth as usize, batch as usize, arguments.decode as usize)?;
                    let steps = arguments.decode as f64 / began.elapsed().as_secs_f64();
                    speeds.push(steps * batch as f64);
                    shares.push(self.model.bytes_per_token() as f64 * steps / bandwidth);
                    bandwidths.push(bandwidth);
                }
                results.push(Decode {
                    depth,
                    batch,
                    speed: median(speeds),
                    share: median(shares),
                    bandwidth: median(bandwidths),
                });
            }
        }
        Ok(results)
    }

    /// So many tokens of each of `batch` answers, all together.
    fn write(&mut self, depth: usize, batch: usize, tokens: usize) -> anyhow::Result<()> {
        for step in 0..tokens {
            let token = [(step % self.model.config().vocabulary_size) as u32];
            let chunks: Vec<_> = (self.blocks[..batch].iter())
                .map(|blocks| SequenceChunk {
                    tokens: &token,
                    first_position: depth + step,
                    blocks,
                    adapter: None,
                    logits: LogitRows::Last,
                    answer: true,
                })
                .collect();
            self.model.forward(&chunks, &mut self.cache, &mut self.workspace)?;
        }
        Ok(())
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
