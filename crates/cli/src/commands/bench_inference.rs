//! `eulalia bench inference`: how fast a model reads a prompt and writes an answer on this machine.

use std::path::Path;
use std::time::Instant;

use anyhow::bail;
use model::{
    BLOCK_POSITIONS, CallLimits, InferenceModel, InferenceWorkspace, KvCache, LogitRows, SequenceChunk,
};
use serde_json::{Value, json};

use super::{bench_mixed, load, loading};
use crate::arguments::BenchInferenceArguments;
use crate::console;
use crate::machine;
use crate::program::STOPPED;
use crate::run::World;

/// Rows of one forward pass, as the engine takes them.
const TOKENS_PER_STEP: usize = 512;

pub fn inference(arguments: &BenchInferenceArguments, world: &World) -> anyhow::Result<Value> {
    // To the end: a measurement that was broken off is worth nothing.
    let _ends = loading::EndsAtOnce::new(world, STOPPED);
    let folder = &arguments.model;
    let threads = world.threads;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let bandwidth = compute::machine::read_bandwidth(&pool, compute::machine::BANDWIDTH_BYTES);
    drop(pool);
    world.console.say(&format!(
        "{}, {}, read bandwidth {:.1} GB/s",
        folder.display(),
        console::counted(threads as u64, "thread"),
        bandwidth / 1e9
    ));
    let mut results = Vec::new();
    let mut rows = Vec::new();
    for &format in &arguments.weights {
        let began = Instant::now();
        let model = loading::shown(&load::name_of(folder)?, world, |watch| {
            InferenceModel::load_watched(folder, None, format, threads, watch)
        })?;
        let load_seconds = began.elapsed().as_secs_f64();
        let mut bench = Bench::new(&model, arguments, threads, folder)?;
        let prefill = bench.prefill(arguments, world)?;
        let decode = bench.decode(arguments, world)?;
        let cache_format = bench.cache.format();
        drop(bench);
        let bytes = model.bytes_per_token();
        for (length, speed) in &prefill {
            rows.push(vec![format.name().into(), format!("prefill {length}"), rate(*speed), String::new()]);
        }
        for &(depth, batch, speed) in &decode {
            let share = bytes as f64 * speed / batch as f64 / bandwidth;
            let what = match batch {
                1 => format!("decode at {depth}"),
                _ => format!("decode at {depth}, {batch} together"),
            };
            let share = if batch == 1 { format!("{share:.2}") } else { String::new() };
            rows.push(vec![format.name().into(), what, rate(speed), share]);
        }
        let mut result = json!({
            "format": format.name(),
            "kv_cache": cache_format.name(),
            "kv_cache_bytes_per_position": model.cache_block_bytes(cache_format) / BLOCK_POSITIONS,
            "load_seconds": load_seconds,
            "weight_bytes": model.weight_bytes(),
            "bytes_per_token": bytes,
            "prefill": prefill.iter().map(|(length, speed)| json!({ "tokens": length, "tokens_per_second": speed })).collect::<Vec<_>>(),
            "decode": decode.iter().map(|(depth, batch, speed)| json!({
                "depth": depth, "batch": batch, "tokens_per_second": speed,
                "bandwidth_share": bytes as f64 * speed / *batch as f64 / bandwidth,
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
    world.console.say(&console::table(&["weights", "what", "tokens/s", "share of the bandwidth"], &rows, 2));
    Ok(json!({
        "program": concat!("eulalia ", env!("CARGO_PKG_VERSION")),
        "model": folder.display().to_string(),
        "threads": threads,
        "instructions": format!("{:?}", compute::CpuPath::detected()),
        "matrix_unit": compute::bf16::has_matrix_unit(),
        "read_bandwidth_bytes_per_second": bandwidth,
        "formats": results,
        "peak_memory_bytes": machine::peak_memory_bytes(),
    }))
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

    /// Tokens per second, all sequences together, for each depth and number of sequences, medians.
    fn decode(
        &mut self,
        arguments: &BenchInferenceArguments,
        world: &World,
    ) -> anyhow::Result<Vec<(u64, u64, f64)>> {
        let mut speeds = Vec::new();
        for &depth in &arguments.depths {
            for &batch in &arguments.batches {
                for sequence in 0..batch as usize {
                    self.read(sequence, depth as usize)?;
                }
                let mut seconds = Vec::new();
                for _ in 0..arguments.rounds {
                    world.cancellation.check()?;
                    let began = Instant::now();
                    for step in 0..arguments.decode as usize {
                        let token = [(step % self.model.config().vocabulary_size) as u32];
                        let chunks: Vec<_> = (self.blocks[..batch as usize].iter())
                            .map(|blocks| SequenceChunk {
                                tokens: &token,
                                first_position: depth as usize + step,
                                blocks,
                                adapter: None,
                                logits: LogitRows::Last,
                                answer: true,
                            })
                            .collect();
                        self.model.forward(&chunks, &mut self.cache, &mut self.workspace)?;
                    }
                    seconds.push(began.elapsed().as_secs_f64());
                }
                speeds.push((depth, batch, (arguments.decode * batch) as f64 / median(seconds)));
            }
        }
        Ok(speeds)
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
