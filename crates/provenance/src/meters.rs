//! What a machine can say of itself while a stage works: energy so far, memory held. A stage asks the environment for
//! nothing: it receives the meters with its context, and without any the answer is "absent".

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::energy::{Energy, EnergyMeter};

/// A CPU's counter wraps around after about a quarter of an hour at full load at the earliest (262 kJ at 300 W).
const SAMPLE_EVERY: Duration = Duration::from_secs(60);

/// The meters of one stage. Cheap to clone.
#[derive(Clone, Default)]
pub struct Meters(Option<Arc<Running>>);

struct Running {
    energy: Arc<Mutex<EnergyMeter>>,
    /// Ends the thread that samples, once it is dropped.
    _sampling: Option<mpsc::Sender<()>>,
}

impl Meters {
    /// No meters: for tests, and where nothing is to be measured.
    pub fn none() -> Meters {
        Meters::default()
    }

    /// This machine's meters, from now on.
    pub fn start() -> Meters {
        Self::start_with(EnergyMeter::start())
    }

    fn start_with(meter: EnergyMeter) -> Meters {
        let wraps = meter.has_counters();
        let energy = Arc::new(Mutex::new(meter));
        let sampling = wraps.then(|| {
            let (sender, receiver) = mpsc::channel::<()>();
            let energy = energy.clone();
            std::thread::spawn(move || {
                while receiver.recv_timeout(SAMPLE_EVERY) == Err(RecvTimeoutError::Timeout) {
                    energy.lock().unwrap_or_else(PoisonError::into_inner).sample();
                }
            });
            sender
        });
        Meters(Some(Arc::new(Running { energy, _sampling: sampling })))
    }

    /// What was spent since the start.
    pub fn energy(&self) -> Energy {
        match &self.0 {
            Some(running) => running.energy.lock().unwrap_or_else(PoisonError::into_inner).read(),
            None => Energy::absent(),
        }
    }

    /// Memory that this process holds now, where the system says so.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.0.as_ref()?;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::Flag;

    #[test]
    fn without_meters_everything_is_absent() {
        assert_eq!(Meters::none().energy(), Energy::absent());
        assert_eq!(Meters::none().memory_bytes(), None);
    }

    #[test]
    fn energy_is_counted_from_the_start_and_the_sampling_ends_with_the_last_clone() {
        let folder = tempfile::tempdir().unwrap();
        let zone = folder.path().join("intel-rapl:0");
        std::fs::create_dir(&zone).unwrap();
        for (name, content) in
            [("name", "package-0\n"), ("max_energy_range_uj", "10000000"), ("energy_uj", "5000000")]
        {
            std::fs::write(zone.join(name), content).unwrap();
        }
        let meters = Meters::start_with(EnergyMeter::start_at(folder.path()));
        std::fs::write(zone.join("energy_uj"), "7500000").unwrap();
        let energy = meters.energy();
        assert_eq!((energy.flag, energy.joules), (Flag::Measured, Some(2.5)));
        let shared = meters.0.as_ref().unwrap().energy.clone();
        drop(meters);
        let began = std::time::Instant::now();
        while Arc::strong_count(&shared) > 1 {
            assert!(began.elapsed() < Duration::from_secs(20), "the sampling goes on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_holds_some_memory() {
        assert!(Meters::start().memory_bytes().unwrap() > 1 << 20);
    }
}
