//! Which vector instructions this processor has, found out at run time, and the dispatch to code compiled for them.
//!
//! A kernel is written once, in plain Rust, and compiled three times (AVX-512, AVX2 with FMA, portable) by `vectorised!`.
//! Rust never contracts or reorders float operations, so the three differ in speed alone, never in bits.

use std::cell::Cell;
use std::sync::OnceLock;

/// The instruction set that kernels run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CpuPath {
    /// Whatever the compilation target guarantees (NEON on aarch64). On x86-64 without FMA it is right, but slow.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F, VL, DQ and BW.
    Avx512,
}

impl CpuPath {
    /// The best path of this processor, or the one that [`with_path`] has set for this thread.
    #[inline]
    pub fn current() -> CpuPath {
        OVERRIDE.get().unwrap_or_else(CpuPath::detected)
    }

    /// The best path of this processor.
    pub fn detected() -> CpuPath {
        static DETECTED: OnceLock<CpuPath> = OnceLock::new();
        *DETECTED.get_or_init(detect)
    }

    /// All paths that this processor can run, the slowest first.
    pub fn available() -> Vec<CpuPath> {
        [CpuPath::Portable, CpuPath::Avx2, CpuPath::Avx512]
            .into_iter()
            .filter(|path| *path <= CpuPath::detected())
            .collect()
    }
}

/// Runs `work` with every kernel of this thread on `path`: for tests that compare paths, and benchmarks that rank them.
///
/// # Panics
/// When this processor cannot run `path`.
pub fn with_path<R>(path: CpuPath, work: impl FnOnce() -> R) -> R {
    assert!(path <= CpuPath::detected(), "this processor has no {path:?}");
    let before = OVERRIDE.replace(Some(path));
    let result = work();
    OVERRIDE.set(before);
    result
}

thread_local! {
    static OVERRIDE: Cell<Option<CpuPath>> = const { Cell::new(None) };
}

/// Whether there are sums of products of bytes (AVX-512 VNNI).
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_vnni() -> bool {
    static DETECTED: OnceLock<bool> = OnceLock::new();
    *DETECTED.get_or_init(|| is_x86_feature_detected!("avx512vnni"))
}

#[cfg(target_arch = "x86_64")]
fn detect() -> CpuPath {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw");
    match (avx2, avx512) {
        (true, true) => CpuPath::Avx512,
        (true, false) => CpuPath::Avx2,
        _ => CpuPath::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> CpuPath {
    CpuPath::Portable
}

/// Compiles a function for each path and dispatches to the best one that this processor has.
///
/// Everything that the body calls in its loops must be `#[inline(always)]`, or it stays on the portable path.
macro_rules! vectorised {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $visibility fn $name($($argument: $kind),*) $(-> $result)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($argument: $kind),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($argument: $kind),*) $(-> $result)? {
                    body($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($argument: $kind),*) $(-> $result)? {
                    body($($argument),*)
                }
                match $crate::path::CpuPath::current() {
                    // SAFETY: `current` never returns a path that this processor lacks.
                    $crate::path::CpuPath::Avx512 => unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    $crate::path::CpuPath::Avx2 => unsafe { avx2($($argument),*) },
                    $crate::path::CpuPath::Portable => body($($argument),*),
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            body($($argument),*)
        }
    };
}
pub(crate) use vectorised;
