//! Energy of NVIDIA's boards through NVML, a library that is looked for when the program runs. Where it is not there, or a
//! board does not count, there is nothing to read, and nothing else happens.

use nvml_wrapper::Nvml;

/// Boards that count their energy.
pub(crate) struct Boards {
    nvml: Nvml,
    boards: Vec<Board>,
}

struct Board {
    index: u32,
    first_millijoules: u64,
    last_millijoules: u64,
}

impl Boards {
    /// The boards of this machine; None where there are none that count.
    pub fn find() -> Option<Boards> {
        let nvml = Nvml::init().ok()?;
        let mut boards = Vec::new();
        for index in 0..nvml.device_count().ok()? {
            if let Ok(now) = nvml.device_by_index(index).and_then(|board| board.total_energy_consumption()) {
                boards.push(Board { index, first_millijoules: now, last_millijoules: now });
            }
        }
        (!boards.is_empty()).then_some(Boards { nvml, boards })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.boards.len()
    }

    /// What they spent since they were found. A board that no longer answers keeps its last figure.
    pub fn joules(&mut self) -> f64 {
        let mut millijoules = 0;
        for board in &mut self.boards {
            let now =
                self.nvml.device_by_index(board.index).and_then(|device| device.total_energy_consumption());
            board.last_millijoules = now.unwrap_or(board.last_millijoules).max(board.last_millijoules);
            millijoules += board.last_millijoules - board.first_millijoules;
        }
        millijoules as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a machine without the library this is the answer "none", on one with it a figure that never falls.
    #[test]
    fn a_machine_without_the_library_has_no_boards() {
        if let Some(mut boards) = Boards::find() {
            assert!(boards.count() > 0);
            let first = boards.joules();
            assert!(boards.joules() >= first);
        }
    }
}
