//! The matrix unit of Intel's processors (AMX): eight tiles of 16 rows by 64 bytes, four of them sums.

use super::{Part, STEP_NUMBERS, TILE, TILE_NUMBERS};
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
/// [`Tiles::configure`] was called in this thread; rows and columns lie inside y, and nobody else touches them there.
pub unsafe fn multiply(part: &Part) {
    let (rows, columns, y) = (part.x.rows(), part.columns.len(), part.y);
    let steps = part.weights.len() / STEP_NUMBERS;
    for half in 0..columns.div_ceil(2 * TILE) {
        let column = half * 2 * TILE;
        let weights = part.weights[2 * half * TILE_NUMBERS..].as_ptr();
        for row in (0..rows).step_by(2 * TILE) {
            let pair = rows - row > TILE;
            let tile = |row: usize| {
                part.x.numbers[(row / TILE * part.x.steps() + part.first) * TILE_NUMBERS..]
                    [..steps * TILE_NUMBERS]
                    .as_ptr()
            };
            let (above, below) = (tile(row), if pair { tile(row + TILE) } else { tile(row) });
            let (height, width) = ((rows - row).min(2 * TILE), (columns - column).min(2 * TILE));
            let whole = height == 2 * TILE && width == 2 * TILE;
            let mut edge = Edge([0.0; 4 * TILE * TILE]);
            let place = y.at(row, part.columns.start + column);
            // SAFETY: 2 × 2 tiles lie inside y, or the part of them that does is copied from and to `edge`, which is as
            // large; the pointers to x and W have `steps` tiles each, a tile apart in x and a step apart in W.
            unsafe {
                let (pointer, stride) = match whole {
                    true => (place, y.row_stride()),
                    false => (edge.0.as_mut_ptr(), 2 * TILE),
                };
                if !whole && part.first > 0 {
                    for r in 0..height {
                        let from = place.add(r * y.row_stride());
                        std::ptr::copy_nonoverlapping(from, pointer.add(r * stride), width);
                    }
                }
                square(above, below, weights, steps, pointer, stride, part.first > 0);
                if !whole {
                    for r in 0..height {
                        let to = place.add(r * y.row_stride());
                        std::ptr::copy_nonoverlapping(pointer.add(r * stride), to, width);
                    }
                }
            }
        }
    }
}

#[repr(C, align(64))]
struct Edge([f32; 4 * TILE * TILE]);

/// 2 × 2 tiles of y, `stride` floats from row to row.
///
/// # Safety
/// The tiles are configured; `above` and `below` have `steps` tiles, `weights` two tiles each step, `y` 32 rows of 32 floats.
#[inline(always)]
unsafe fn square(
    above: *const u16,
    below: *const u16,
    weights: *const u16,
    steps: usize,
    y: *mut f32,
    stride: usize,
    goes_on: bool,
) {
    // SAFETY: as promised by the caller. The tiles are no registers that compiled code knows.
    unsafe {
        let second = y.add(TILE * stride);
        let bytes = stride * 4;
        if goes_on {
            asm!(
                "tileloadd tmm0, [{y} + {bytes}]",
                "tileloadd tmm1, [{y} + {bytes} + 64]",
                "tileloadd tmm2, [{second} + {bytes}]",
                "tileloadd tmm3, [{second} + {bytes} + 64]",
                y = in(reg) y, second = in(reg) second, bytes = in(reg) bytes, options(nostack),
            );
        } else {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack));
        }
        asm!(
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
            above = inout(reg) above => _, below = inout(reg) below => _, weights = inout(reg) weights => _,
            steps = inout(reg) steps => _, line = in(reg) 64usize, tile = const 2 * TILE_NUMBERS,
            step = const 2 * STEP_NUMBERS, options(nostack),
        );
        asm!(
            "tilestored [{y} + {bytes}], tmm0",
            "tilestored [{y} + {bytes} + 64], tmm1",
            "tilestored [{second} + {bytes}], tmm2",
            "tilestored [{second} + {bytes} + 64], tmm3",
            y = in(reg) y, second = in(reg) second, bytes = in(reg) bytes, options(nostack),
        );
    }
}
