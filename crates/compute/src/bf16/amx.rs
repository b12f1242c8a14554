//! The matrix unit of Intel's processors (AMX): eight tiles of 16 rows by 64 bytes, four of them sums.

use super::{Part, STEP_NUMBERS, Sums, TILE, TILE_NUMBERS};
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

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

/// Multiplications and additions that this thread's unit does in about `span`, on tiles that stay where they are.
///
/// # Safety
/// The unit is ready.
pub unsafe fn products(span: Duration) -> u64 {
    const ROUNDS: u64 = 1024;
    // SAFETY: passed on. The tiles are no registers that compiled code knows.
    unsafe {
        let _tiles = Tiles::configure();
        clear();
        asm!("tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7", options(nostack, nomem));
        let began = Instant::now();
        let mut operations = 0;
        while began.elapsed() < span {
            for _ in 0..ROUNDS {
                asm!(
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    options(nostack, nomem)
                );
            }
            // Tiles of 16 × 32 with 32 × 16.
            operations += ROUNDS * 4 * 16 * 16 * 32 * 2;
        }
        operations
    }
}

/// All rows of x against the panels of `parts`, added to the sums, or from zero on.
///
/// # Safety
/// [`Tiles::configure`] was called in this thread; x has the tiles that it says and the sums have whole tiles.
pub unsafe fn multiply(parts: &[Part], sums: &mut Sums, fresh: bool) {
    let rows = parts.first().map_or(0, |part| part.x.rows);
    let line = 4 * sums.stride;
    for row in (0..rows).step_by(2 * TILE) {
        let both = rows - row > TILE;
        let place = sums.numbers[row * sums.stride..].as_mut_ptr();
        // SAFETY: the pointers to x and W have `steps` tiles each, a tile apart in x and a step apart in W; the sums have 16
        // rows here, or 32 where there are rows below.
        unsafe {
            if fresh {
                clear();
            } else {
                load(place, line, both);
            }
            for part in parts {
                let steps = part.weights.len() / STEP_NUMBERS;
                let first = (row / TILE * part.x.steps + part.first) * TILE_NUMBERS;
                let above = part.x.numbers[first..].as_ptr();
                let below = above.wrapping_add(part.x.steps * TILE_NUMBERS);
                match (steps, both) {
                    (0, _) => {}
                    (_, true) => square(above, below, part.weights.as_ptr(), steps),
                    (_, false) => upper_half(above, part.weights.as_ptr(), steps),
                }
            }
            store(place, line, both);
        }
    }
}

/// Tiles 0 to 3, the sums, become zero.
///
/// # Safety
/// The tiles are configured.
#[inline(always)]
unsafe fn clear() {
    // SAFETY: the tiles are no registers that compiled code knows.
    unsafe {
        asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem))
    };
}

/// Reads the sums: 16 rows of 32, `line` bytes apart, or 32.
///
/// # Safety
/// The tiles are configured; the rows are there.
#[inline(always)]
unsafe fn load(sums: *const f32, line: usize, both: bool) {
    // SAFETY: as promised by the caller.
    unsafe {
        asm!("tileloadd tmm0, [{sums} + {line}]", "tileloadd tmm1, [{sums} + {line} + 64]",
            sums = in(reg) sums, line = in(reg) line, options(nostack, readonly));
        if both {
            asm!("tileloadd tmm2, [{sums} + {line}]", "tileloadd tmm3, [{sums} + {line} + 64]",
                sums = in(reg) sums.byte_add(TILE * line), line = in(reg) line, options(nostack, readonly));
        }
    }
}

/// Writes the sums.
///
/// # Safety
/// The tiles are configured; the rows are there.
#[inline(always)]
unsafe fn store(sums: *mut f32, line: usize, both: bool) {
    // SAFETY: as promised by the caller.
    unsafe {
        asm!("tilestored [{sums} + {line}], tmm0", "tilestored [{sums} + {line} + 64], tmm1",
            sums = in(reg) sums, line = in(reg) line, options(nostack));
        if both {
            asm!("tilestored [{sums} + {line}], tmm2", "tilestored [{sums} + {line} + 64], tmm3",
                sums = in(reg) sums.byte_add(TILE * line), line = in(reg) line, options(nostack));
        }
    }
}

/// Adds to 2 × 2 tiles of sums. Rows pass by (`tileloaddt1`), weights stay in the first cache.
///
/// # Safety
/// The tiles are configured; `above` and `below` have `steps` tiles, `weights` two tiles each step; there is a step.
#[inline(always)]
unsafe fn square(above: *const u16, below: *const u16, weights: *const u16, steps: usize) {
    // SAFETY: as promised by the caller. The tiles are no registers that compiled code knows.
    unsafe {
        asm!(
            "2:",
            "tileloaddt1 tmm4, [{above} + {line}]",
            "tileloadd tmm6, [{weights} + {line}]",
            "tileloadd tmm7, [{weights} + {line} + {tile}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloaddt1 tmm5, [{below} + {line}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {above}, {tile}",
            "add {below}, {tile}",
            "add {weights}, {step}",
            "dec {steps}",
            "jnz 2b",
            above = inout(reg) above => _, below = inout(reg) below => _, weights = inout(reg) weights => _,
            steps = inout(reg) steps => _, line = in(reg) 64usize, tile = const 2 * TILE_NUMBERS,
            step = const 2 * STEP_NUMBERS, options(nostack, readonly),
        );
    }
}

/// Adds to two tiles of sums beside each other.
///
/// # Safety
/// The tiles are configured; `above` has `steps` tiles, `weights` two tiles each step; there is a step.
#[inline(always)]
unsafe fn upper_half(above: *const u16, weights: *const u16, steps: usize) {
    // SAFETY: as promised by the caller. The tiles are no registers that compiled code knows.
    unsafe {
        asm!(
            "2:",
            "tileloaddt1 tmm4, [{above} + {line}]",
            "tileloadd tmm6, [{weights} + {line}]",
            "tileloadd tmm7, [{weights} + {line} + {tile}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {above}, {tile}",
            "add {weights}, {step}",
            "dec {steps}",
            "jnz 2b",
            above = inout(reg) above => _, weights = inout(reg) weights => _, steps = inout(reg) steps => _,
            line = in(reg) 64usize, tile = const 2 * TILE_NUMBERS, step = const 2 * STEP_NUMBERS,
            options(nostack, readonly),
        );
    }
}
