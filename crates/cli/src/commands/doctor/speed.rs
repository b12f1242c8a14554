//! The machine: what it is, which of its instructions are used, and how fast it reads and computes.

use std::path::Path;

use provenance::energy::{Energy, EnergyMeter};
use serde_json::{Value, json};

use crate::machine;
use crate::run::World;

/// Left alone while the bandwidth is measured.
const SPARE_BYTES: u64 = 512 << 20;

/// What matters for computing with weights, as Linux names it.
const INSTRUCTIONS: [(&str, &str); 13] = [
    ("avx2", "AVX2"),
    ("fma", "FMA"),
    ("avx512f", "AVX-512 F"),
    ("avx512bw", "AVX-512 BW"),
    ("avx512_vnni", "AVX-512 VNNI"),
    ("avx512_bf16", "AVX-512 BF16"),
    ("avx512_fp16", "AVX-512 FP16"),
    ("avx_vnni", "AVX-VNNI"),
    ("amx_tile", "AMX"),
    ("amx_int8", "AMX INT8"),
    ("amx_bf16", "AMX BF16"),
    ("sve", "SVE"),
    ("i8mm", "I8MM"),
];

/// Figures of a measurement.
pub struct Speed {
    /// Bytes per second.
    pub bandwidth: f64,
    /// Over so many bytes.
    pub bandwidth_bytes: u64,
    /// Operations per second.
    pub f32: f64,
    /// The same in bf16.
    pub bf16: f64,
    /// The same in 8 bits, where there is an instruction for it.
    pub int8: Option<f64>,
    /// What the measurement took.
    pub energy: Energy,
    /// Seconds of the measurement.
    pub seconds: f64,
}

impl Speed {
    /// Measures for some seconds, on the threads of the program.
    pub fn measure(world: &World) -> anyhow::Result<Speed> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(world.threads).build()?;
        let free = machine::available_bytes().unwrap_or(u64::MAX).saturating_sub(SPARE_BYTES);
        let bandwidth_bytes = (compute::machine::BANDWIDTH_BYTES as u64).min(free).max(1 << 20);
        let mut meter = EnergyMeter::start();
        let began = std::time::Instant::now();
        let bandwidth = compute::machine::read_bandwidth(&pool, bandwidth_bytes as usize);
        world.cancellation.check()?;
        let f32 = compute::machine::f32_operations(&pool);
        world.cancellation.check()?;
        let bf16 = compute::machine::bf16_operations(world.threads);
        world.cancellation.check()?;
        let int8 = compute::machine::int8_operations(&pool);
        let energy = meter.read();
        Ok(Speed {
            bandwidth,
            bandwidth_bytes,
            f32,
            bf16,
            int8,
            energy,
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    /// Operations per second of products whose weights have 8 or 4 bits: by bytes, or spread out to bf16 on the way.
    pub fn quantised(&self) -> f64 {
        self.int8.unwrap_or(0.0).max(self.bf16).max(self.f32)
    }

    /// Power while everything was busy, where there is a meter.
    pub fn watts(&self) -> Option<f64> {
        self.energy.joules.filter(|joules| *joules > 0.0).map(|joules| joules / self.seconds.max(1e-3))
    }

    pub fn to_json(&self) -> Value {
        json!({
            "read_bytes_per_second": self.bandwidth,
            "read_over_bytes": self.bandwidth_bytes,
            "f32_operations_per_second": self.f32,
            "bf16_operations_per_second": self.bf16,
            "int8_operations_per_second": self.int8,
            "energy": self.energy,
            "seconds": self.seconds,
        })
    }
}

/// What the machine says of itself.
pub fn describe(folder: &Path) -> Value {
    let mut description = machine::describe();
    let (used, not_used) = instructions();
    description["used"] = json!(used);
    description["not_used"] = json!(not_used);
    description["memory_available_bytes"] = json!(machine::available_bytes());
    description["load"] = json!(machine::load());
    description["disk_free_bytes"] = json!(machine::free_bytes(folder));
    description
}

/// Those that kernels are compiled for, and those that the processor has besides.
fn instructions() -> (Vec<&'static str>, Vec<&'static str>) {
    let flags = machine::processor_flags();
    INSTRUCTIONS
        .iter()
        .filter(|(flag, _)| flags.iter().any(|found| found == flag))
        .map(|(flag, name)| (is_used(flag), *name))
        .fold((Vec::new(), Vec::new()), |(mut used, mut not_used), (is_used, name)| {
            if is_used {
                used.push(name)
            } else {
                not_used.push(name)
            }
            (used, not_used)
        })
}

/// Whether a kernel of this program runs on an instruction set that this processor has.
fn is_used(flag: &str) -> bool {
    let path = compute::CpuPath::detected();
    match flag {
        "avx2" | "fma" => path >= compute::CpuPath::Avx2,
        "avx512f" | "avx512bw" => path >= compute::CpuPath::Avx512,
        "avx512_vnni" => compute::machine::uses_vnni(),
        // The matrix unit does the same, faster.
        "avx512_bf16" => compute::bf16::has_pairs() && !compute::bf16::has_matrix_unit(),
        "amx_tile" | "amx_bf16" => compute::bf16::has_matrix_unit(),
        _ => false,
    }
}
