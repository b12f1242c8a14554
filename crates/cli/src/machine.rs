//! What the program can learn of the machine it runs on: for the record's circumstances and for checks before work.

use std::path::Path;

use provenance::digest::{files_below_with_links, join};
use serde_json::{Value, json};

/// Processor, logical cores, memory and system; what cannot be read is "not recorded".
pub fn describe() -> Value {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    json!({
        "processor": field(&cpuinfo, "model name").unwrap_or("not recorded"),
        "cores": cores(),
        "memory_bytes": field(&meminfo, "MemTotal").and_then(kilobytes),
        "system": format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The most memory this process ever held, where the system says so.
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    field(&status, "VmHWM").and_then(kilobytes)
}

/// Memory that programs can still take without swapping, within the limit of a container where there is one.
pub fn available_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let available = field(&meminfo, "MemAvailable").and_then(kilobytes)?;
    // Control groups of version 2, whose folder a container sees as its root.
    let number = |name: &str| -> Option<u64> {
        std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok()?.trim().parse().ok()
    };
    let left = number("memory.max").zip(number("memory.current")).map(|(most, now)| most.saturating_sub(now));
    Some(left.map_or(available, |left| left.min(available)))
}

/// Programs that were at work or waited to be, on average of the last minute.
pub fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// What the processor can do, as Linux names it (`avx2`, `amx_int8`); empty on other systems.
pub fn processor_flags() -> Vec<String> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = field(&cpuinfo, "flags").or_else(|| field(&cpuinfo, "Features")).unwrap_or_default();
    flags.split_whitespace().map(str::to_string).collect()
}

/// Free bytes on the disk that holds `path`, or the nearest folder above it that exists.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let absolute = std::path::absolute(path).ok()?;
    let existing = absolute.ancestors().find(|above| above.exists())?;
    let status = rustix::fs::statvfs(existing).ok()?;
    Some(status.f_bavail * status.f_frsize)
}

/// The size of a file, or of all files below a folder; links are followed. Nothing where that cannot be told.
pub fn bytes_below(path: &Path) -> u64 {
    let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    match files_below_with_links(path) {
        Ok(names) => names.iter().map(|name| size(&join(path, name))).sum(),
        Err(_) => size(path),
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

fn kilobytes(value: &str) -> Option<u64> {
    value.strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
