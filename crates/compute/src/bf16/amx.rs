//! The matrix unit of Intel's processors (AMX): eight tiles of 16 rows by 64 bytes, four of them sums.

use super::{COLUMNS, Part, STEP_NUMBERS, TILE, TILE_NUMBERS};
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

/// Whether the processor has the unit and the system lets this process use it.
pub fn is_ready() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| {
        let features = __cpuid_count(7, 0).edx;
        let (bf16, tiles) = (features & (1 << 22) != 0, features & (1 << 24) != 0);
        bf16 && tiles && ask_for_tiles()
    })
}

/// Linux keeps the tiles' state from a process until it asks for it (`arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`).
#[cfg(target_os = "linux")]
fn ask_for_tiles() -> bool {
    const ARCH_PRCTL: u64 = 158;
    const REQUEST: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let result: i64;
    // SAFETY: a system call that reads two numbers and changes nothing but this process's permission.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") REQUEST, in("rsi") TILE_DATA,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn ask_for_tiles() -> bool {
    false
}

/// The unit, set up for this thread while the value lives.
pub struct Tiles(());

#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// Eight full tiles.
    ///
    /// # Safety
    /// The unit is ready.
    pub unsafe fn configure() -> Tiles {
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        configuration.row_bytes[..8].fill(64);
        configuration.rows[..8].fill(16);
        // SAFETY: 64 bytes in the layout that the instruction reads. Compiled code touches no tile.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly)) };
        Tiles(())
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: gives the tiles back; a thread that keeps them makes every change of threads dearer.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// All rows of x against one panel.
///
/// # Safety
/// [`Tiles::configure`] was called in this thread.
pub unsafe fn multiply(part: &Part, sums: &mut [f32]) {
    let rows = part.x.rows();
    let steps = part.weights.len() / STEP_NUMBERS;
    let tile = |row: usize| {
        let first = (row / TILE * part.x.steps() + part.first) * TILE_NUMBERS;
        part.x.numbers.numbers()[first..][..steps * TILE_NUMBERS].as_ptr()
    };
    for (pair, sums) in sums.as_chunks_mut::<{ 4 * TILE * TILE }>().0.iter_mut().enumerate() {
        let row = pair * 2 * TILE;
        let (above, below) = (tile(row), if rows - row > TILE { tile(row + TILE) } else { tile(row) });
        // SAFETY: the pointers to x and W have `steps` tiles each, a tile apart in x and a step apart in W.
        unsafe { square(above, below, part.weights.as_ptr(), steps, sums) };
    }
}

/// Adds to 2 × 2 tiles of sums.
///
/// # Safety
/// The tiles are configured; `above` and `below` have `steps` tiles, `weights` two tiles each step.
#[inline(always)]
unsafe fn square(
    above: *const u16,
    below: *const u16,
    weights: *const u16,
    steps: usize,
    sums: &mut [f32; 4 * TILE * TILE],
) {
    // SAFETY: as promised by the caller. The tiles are no registers that compiled code knows.
    unsafe {
        asm!(
            "tileloadd tmm0, [{sums} + {row}]",
            "tileloadd tmm1, [{sums} + {row} + 64]",
            "tileloadd tmm2, [{sums} + {row} + {half}]",
            "tileloadd tmm3, [{sums} + {row} + {half} + 64]",
            "2:",
            "tileloadd tmm4, [{above} + {line}]",
            "tileloadd tmm6, [{weights} + {line}]",
            "tileloadd tmm7, [{weights} + {line} + {tile}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{below} + {line}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {above}, {tile}",
            "add {below}, {tile}",
            "add {weights}, {step}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 64], tmm1",
            "tilestored [{sums} + {row} + {half}], tmm2",
            "tilestored [{sums} + {row} + {half} + 64], tmm3",
            above = inout(reg) above => _, below = inout(reg) below => _, weights = inout(reg) weights => _,
            steps = inout(reg) steps => _, sums = in(reg) sums.as_mut_ptr(), line = in(reg) 64usize,
            row = in(reg) 4 * COLUMNS, half = const 4 * TILE * COLUMNS, tile = const 2 * TILE_NUMBERS,
            step = const 2 * STEP_NUMBERS, options(nostack),
        );
    }
}
