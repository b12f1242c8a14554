//! `eulalia bench`: how fast this machine does what a run spends its time on.

use serde_json::{Value, json};
use training::OptimiserKind;
use training::bench::{self, BENCH_SHAPES, BenchSettings, BenchShape};
use training::products;

use crate::arguments::{BenchAction, BenchArguments, BenchTrainingArguments};
use crate::console;
use crate::errors::{Usage, suggestion};
use crate::machine;
use crate::run::World;

/// How often each product is measured; the median counts.
const PRODUCT_REPEATS: usize = 7;

pub fn bench(arguments: &BenchArguments, world: &World) -> anyhow::Result<Value> {
    match &arguments.action {
        BenchAction::Training(arguments) => training(arguments, world),
        BenchAction::Inference(arguments) => super::bench_inference::inference(arguments, world),
        BenchAction::Quality(arguments) => super::bench_quality::quality(arguments, world),
    }
}

fn training(arguments: &BenchTrainingArguments, world: &World) -> anyhow::Result<Value> {
    let shape = BenchShape::named(&arguments.config).ok_or_else(|| {
        let hint = suggestion(&arguments.config, BENCH_SHAPES);
        Usage(format!("--config {}: unknown shape{hint}", arguments.config))
    })?;
    let optimizer = match arguments.optimizer.as_str() {
        "muon" => OptimiserKind::Muon,
        _ => OptimiserKind::AdamW,
    };
    let settings =
        BenchSettings { optimizer, steps: arguments.steps as usize, recompute: arguments.recompute };
    let context = world.context();
    let speed = bench::steps(&shape, &settings, &context)?;
    // What the steps took, before the buffers of the products alone come on top.
    let peak_memory_bytes = machine::peak_memory_bytes();
    let products = shape.products();
    let alone = products::measure(&products, world.threads, PRODUCT_REPEATS)?;
    let ceiling = alone.operations_per_second / 1e9;
    let share = speed.useful_gflops / ceiling;
    let ceiling_per_core = alone.operations_per_core_second.map(|operations| operations / 1e9);
    let share_on_cores =
        speed.useful_gflops_per_core.zip(ceiling_per_core).map(|(useful, ceiling)| useful / ceiling);

    let rows = [
        ("parameters", console::amount(speed.parameters as f64)),
        ("tokens a step", speed.tokens_per_step.to_string()),
        ("a step", format!("{:.3} s", speed.seconds_per_step)),
        (
            "tokens/s",
            format!("{:.0} (best step {:.0})", speed.tokens_per_second, speed.best_tokens_per_second),
        ),
        ("useful GFLOP/s", format!("{:.1}", speed.useful_gflops)),
        ("its matrix products alone", format!("{ceiling:.1} GFLOP/s")),
        (
            "share of that ceiling",
            match share_on_cores {
                Some(on_cores) => format!("{share:.2} ({on_cores:.2} by the cores' own time)"),
                None => format!("{share:.2}"),
            },
        ),
        ("peak memory", peak_memory_bytes.map_or("not recorded".into(), console::bytes)),
    ];
    let heading = format!(
        "{}, {}, {}, median of {}",
        shape.name,
        arguments.optimizer,
        console::counted(world.threads as u64, "thread"),
        console::counted(arguments.steps, "step"),
    );
    let rows = rows.map(|(name, value)| vec![name.to_string(), value]);
    world.console.say(&console::table(&[&heading, ""], &rows, 1));

    let mut result = json!({
        "program": concat!("eulalia ", env!("CARGO_PKG_VERSION")),
        "config": shape.name,
        "optimizer": arguments.optimizer,
        "threads": world.threads,
        "recompute": arguments.recompute,
    });
    if let (Value::Object(result), Value::Object(speed)) = (&mut result, serde_json::to_value(&speed)?) {
        result.extend(speed);
    }
    result["gemm_ceiling_gflops"] = json!(ceiling);
    result["gemm_ceiling_gflops_per_core"] = json!(ceiling_per_core);
    result["share"] = json!(share);
    result["share_on_cores"] = json!(share_on_cores);
    result["peak_memory_bytes"] = json!(peak_memory_bytes);
    result["instructions"] = json!(format!("{:?}", compute::CpuPath::detected()));
    Ok(result)
}
