//! Which kernel computes, and what it is given.

use super::{COLUMNS, ROWS_WORTH_TILES, STEP_NUMBERS, STEPS, Sums, TILE, TILE_NUMBERS, TileRows, portable};
#[cfg(target_arch = "x86_64")]
use super::{amx, avx512, dot};
use crate::path::CpuPath;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "x86_64")]
    Dot,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    Portable,
}

impl Kernel {
    /// The fastest where weights stand ready in bf16 and there are few sums: for any number of rows.
    pub fn for_attention() -> Kernel {
        Kernel::for_rows(ROWS_WORTH_TILES)
    }

    /// The fastest for so many rows.
    pub fn for_rows(rows: usize) -> Kernel {
        match CpuPath::current() {
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx512 if rows >= ROWS_WORTH_TILES && amx::is_ready() => Kernel::Amx,
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx512 if dot::is_ready() => Kernel::Dot,
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx512 => Kernel::Avx512,
            _ => Kernel::Portable,
        }
    }
}

/// The processor's unit, ready for a kernel that needs it, while the value lives.
pub(crate) struct Ready {
    #[cfg(target_arch = "x86_64")]
    _tiles: Option<amx::Tiles>,
    kernel: Kernel,
}

impl Ready {
    pub fn new(kernel: Kernel) -> Ready {
        Ready {
            // SAFETY: the kernel is chosen only where the unit is ready.
            #[cfg(target_arch = "x86_64")]
            _tiles: (kernel == Kernel::Amx).then(|| unsafe { amx::Tiles::configure() }),
            kernel,
        }
    }

    /// For a kernel that takes pairs in another order: all rows, in `buffer`, for as many panels as there are.
    pub fn pair<'a>(&self, x: TileRows, buffer: &'a mut Vec<PairedRows>) -> Option<&'a [PairedRows]> {
        #[cfg(target_arch = "x86_64")]
        if self.kernel == Kernel::Dot && dot::is_worth(x.rows) {
            let count = dot::paired_steps(x.rows, x.steps);
            if buffer.len() < count {
                *buffer = Vec::new();
                buffer.resize(count, Default::default());
            }
            // SAFETY: the kernel is chosen only where the instructions are.
            unsafe { dot::pair_rows(x, 0, x.steps, buffer) };
            return Some(&buffer[..count]);
        }
        let _ = (x, buffer);
        None
    }

    /// Adds `parts`, which have the same rows, to the sums, which begin at zero if `fresh`.
    pub fn add(&self, parts: &[Part], sums: &mut Sums, fresh: bool) {
        let rows = parts.first().map_or(0, |part| part.x.rows);
        // The matrix unit is given bare addresses.
        for Part { x, first, weights, .. } in parts {
            let tiles = x.rows.div_ceil(TILE) * x.steps * TILE_NUMBERS;
            assert!(x.rows == rows && first + weights.len() / STEP_NUMBERS <= x.steps);
            assert!(x.numbers.len() >= tiles);
        }
        assert!(rows == 0 || sums.numbers.len() >= (rows.next_multiple_of(TILE) - 1) * sums.stride + COLUMNS);
        match self.kernel {
            // SAFETY: the tiles are configured; rows, steps and sums are there.
            #[cfg(target_arch = "x86_64")]
            Kernel::Amx => unsafe { amx::multiply(parts, sums, fresh) },
            #[cfg(target_arch = "x86_64")]
            Kernel::Dot => {
                clear(sums, if fresh { rows } else { 0 });
                // SAFETY: the kernel is chosen only where the instructions are.
                parts.iter().for_each(|part| unsafe { dot::multiply(part, sums) });
            }
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => {
                clear(sums, if fresh { rows } else { 0 });
                // SAFETY: the processor has AVX-512.
                parts.iter().for_each(|part| unsafe { avx512::multiply(part, sums) });
            }
            Kernel::Portable => {
                clear(sums, if fresh { rows } else { 0 });
                parts.iter().for_each(|part| portable::multiply(part, sums));
            }
        }
    }
}

fn clear(sums: &mut Sums, rows: usize) {
    for row in 0..rows {
        sums.row(row).fill(0.0);
    }
}

/// Some steps of all rows of x against one panel, to be added to the sums [rows, 32].
pub(crate) struct Part<'a> {
    pub x: TileRows<'a>,
    /// The first step.
    pub first: usize,
    /// The panel's steps from there on.
    pub weights: &'a [u16],
    /// x as [`Ready::pair`] gave it.
    pub paired: Option<&'a [PairedRows]>,
}

/// A step of some rows in the order that a kernel takes them.
#[cfg(target_arch = "x86_64")]
pub type PairedRows = dot::RowsStep;
#[cfg(not(target_arch = "x86_64"))]
pub type PairedRows = ();

/// Bytes that a product of so many rows takes for them and for weights, on each thread.
pub fn paired_bytes(rows: usize, steps: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if Kernel::for_rows(rows) == Kernel::Dot && dot::is_worth(rows) {
        return size_of::<PairedRows>() * dot::paired_steps(rows, steps) + 2 * STEPS * STEP_NUMBERS;
    }
    let _ = (rows, steps);
    0
}
