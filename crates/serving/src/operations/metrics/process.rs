//! What the process takes, as Linux tells it; nothing where `/proc` is not there.

use super::exposition::Exposition;

/// Ticks per second in `/proc/self/stat`: 100 on every Linux that this program is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds the families that Prometheus' own clients have, under the same names.
pub fn write(text: &mut Exposition) {
    if let Some(seconds) = cpu_seconds() {
        let help = "User and system processor time";
        text.single("process_cpu_seconds_total", "counter", help, seconds);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kibibytes) = field(&status, "VmRSS:") {
        text.single("process_resident_memory_bytes", "gauge", "Resident memory", kibibytes * 1024);
    }
    if let Some(kibibytes) = field(&status, "VmSize:") {
        text.single("process_virtual_memory_bytes", "gauge", "Virtual memory", kibibytes * 1024);
    }
    if let Some(threads) = field(&status, "Threads:") {
        text.single("process_threads", "gauge", "Threads", threads);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        text.single("process_open_fds", "gauge", "Open file descriptors", open.count());
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(most) = field(&limits, "Max open files") {
        text.single("process_max_fds", "gauge", "Most open file descriptors", most);
    }
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name, in brackets, may hold anything; fields 14 and 15 of the line are the times (proc(5)).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}
