//! Energy: measured where the machine has a meter, estimated where the recipe states rated watts, else absent — and
//! always said which.
//!
//! The meters are Linux powercap (Intel and AMD RAPL), `energy_uj` of each CPU package and, where present, its memory domain,
//! and NVML for NVIDIA's boards (cargo feature `nvml`). The boundary is therefore packages, memory and boards, not the node.
//! See <https://docs.kernel.org/power/powercap/powercap.html>.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An amount of energy, or the plain statement that nobody measured it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// `measured`, `estimated` or `absent`.
    pub flag: Flag,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joules: Option<f64>,
    /// What the figure covers, such as `package` or `node (rated watts × time)`.
    pub boundary: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flag {
    Measured,
    Estimated,
    Absent,
}

impl Energy {
    pub fn absent() -> Energy {
        Energy { flag: Flag::Absent, joules: None, boundary: "no meter found".into() }
    }

    /// Rated power times time: a figure of last resort.
    pub fn estimated(rated_watts: f64, duration: Duration) -> Energy {
        Energy {
            flag: Flag::Estimated,
            joules: Some(rated_watts * duration.as_secs_f64()),
            boundary: format!("node (rated {rated_watts} W × time)"),
        }
    }

    /// The sum of two amounts: as good as the worse of the two, absent if either is.
    pub fn plus(&self, other: &Energy) -> Energy {
        match (self.joules, other.joules) {
            (Some(one), Some(two)) => Energy {
                flag: if self.flag == Flag::Measured && other.flag == Flag::Measured {
                    Flag::Measured
                } else {
                    Flag::Estimated
                },
                joules: Some(one + two),
                boundary: self.boundary.clone(),
            },
            _ => Energy::absent(),
        }
    }

    /// For people: `12.3 kJ (measured, package)`, or `absent (no meter found)`.
    pub fn describe(&self) -> String {
        match (self.flag, self.joules) {
            (Flag::Absent, _) | (_, None) => format!("absent ({})", self.boundary),
            (flag, Some(joules)) => {
                let amount = match joules {
                    j if j < 1e3 => format!("{j:.1} J"),
                    j if j < 3.6e6 => format!("{:.2} kJ", j / 1e3),
                    j => format!("{:.3} kWh", j / 3.6e6),
                };
                let flag = if flag == Flag::Measured { "measured" } else { "estimated" };
                format!("{amount} ({flag}, {})", self.boundary)
            }
        }
    }
}

/// The energy counters of this machine, read at the start and at the end of what is measured.
///
/// A counter wraps around (typically after some hours at full load); [`EnergyMeter::sample`] must be called more often
/// than that.
pub struct EnergyMeter {
    counters: Vec<Counter>,
    #[cfg(feature = "nvml")]
    boards: Option<crate::gpu_energy::Boards>,
}

struct Counter {
    energy: PathBuf,
    range_microjoules: u64,
    last_microjoules: u64,
    total_microjoules: u64,
}

impl EnergyMeter {
    /// Starts measuring with the counters below `/sys/class/powercap` and those of NVIDIA's boards.
    pub fn start() -> EnergyMeter {
        let meter = Self::start_at(Path::new("/sys/class/powercap"));
        #[cfg(feature = "nvml")]
        let meter = EnergyMeter { boards: crate::gpu_energy::Boards::find(), ..meter };
        meter
    }

    /// Whether there are counters that wrap around.
    pub(crate) fn has_counters(&self) -> bool {
        !self.counters.is_empty()
    }

    /// Starts measuring with the counters below another folder, and nothing else.
    pub fn start_at(powercap: &Path) -> EnergyMeter {
        let mut counters = Vec::new();
        let entries = std::fs::read_dir(powercap).into_iter().flatten().flatten();
        for zone in entries.map(|entry| entry.path()) {
            let name = std::fs::read_to_string(zone.join("name")).unwrap_or_default();
            let counts = name.trim().starts_with("package") || name.trim() == "dram";
            let energy = zone.join("energy_uj");
            let range = read_number(&zone.join("max_energy_range_uj"));
            if let (true, Some(now), Some(range)) = (counts, read_number(&energy), range) {
                counters.push(Counter {
                    energy,
                    range_microjoules: range,
                    last_microjoules: now,
                    total_microjoules: 0,
                });
            }
        }
        counters.sort_by(|one, two| one.energy.cmp(&two.energy));
        EnergyMeter {
            counters,
            #[cfg(feature = "nvml")]
            boards: None,
        }
    }

    /// Reads the counters, so that a wrap-around is not missed.
    pub fn sample(&mut self) {
        for counter in &mut self.counters {
            if let Some(now) = read_number(&counter.energy) {
                let spent = if now >= counter.last_microjoules {
                    now - counter.last_microjoules
                } else {
                    now + counter.range_microjoules.saturating_sub(counter.last_microjoules)
                };
                counter.total_microjoules += spent;
                counter.last_microjoules = now;
            }
        }
    }

    /// What was spent since the start.
    pub fn read(&mut self) -> Energy {
        self.sample();
        let mut joules = 0.0;
        let mut boundary = Vec::new();
        if !self.counters.is_empty() {
            let microjoules: u64 = self.counters.iter().map(|counter| counter.total_microjoules).sum();
            joules += microjoules as f64 / 1e6;
            boundary.push("CPU packages and memory with a powercap counter".to_string());
        }
        #[cfg(feature = "nvml")]
        if let Some(boards) = &mut self.boards {
            joules += boards.joules();
            let count = boards.count();
            boundary.push(format!("{count} NVIDIA board{} by NVML", if count == 1 { "" } else { "s" }));
        }
        if boundary.is_empty() {
            return Energy::absent();
        }
        Energy { flag: Flag::Measured, joules: Some(joules), boundary: boundary.join("; ") }
    }
}

fn read_number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(folder: &Path, name: &str, kind: &str, energy: u64) -> PathBuf {
        let zone = folder.join(name);
        std::fs::create_dir_all(&zone).unwrap();
        std::fs::write(zone.join("name"), kind).unwrap();
        std::fs::write(zone.join("max_energy_range_uj"), "10000000").unwrap();
        std::fs::write(zone.join("energy_uj"), energy.to_string()).unwrap();
        zone.join("energy_uj")
    }

    #[test]
    fn packages_are_summed_and_wrap_around_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let one = zone(folder.path(), "intel-rapl:0", "package-0\n", 9_000_000);
        let two = zone(folder.path(), "intel-rapl:1", "package-1\n", 1_000_000);
        zone(folder.path(), "intel-rapl:0:0", "core\n", 0);
        let mut meter = EnergyMeter::start_at(folder.path());
        std::fs::write(one, "1000000").unwrap();
        std::fs::write(two, "1500000").unwrap();
        let energy = meter.read();
        assert_eq!(energy.flag, Flag::Measured);
        assert_eq!(energy.joules, Some(2.5));
    }

    #[test]
    fn no_counter_means_absent_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let energy = EnergyMeter::start_at(folder.path()).read();
        assert_eq!(energy, Energy::absent());
        assert!(energy.describe().contains("absent"));
        assert_eq!(energy.plus(&Energy::estimated(100.0, Duration::from_secs(2))).flag, Flag::Absent);
    }
}
