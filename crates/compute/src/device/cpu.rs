//! The processor as a device: its threads, what each keeps for itself, and how work is cut for them.

use crate::attention::AttentionWorkspace;
use crate::muon::MuonBuffers;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Threads that could not be started.
#[derive(Debug)]
pub struct ThreadsError {
    /// How many were wanted.
    pub threads: usize,
    /// What the system says.
    pub problem: String,
}

impl std::fmt::Display for ThreadsError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} threads cannot be started: {}", self.threads, self.problem)
    }
}

impl std::error::Error for ThreadsError {}

/// Elements that are not worth waking a thread for.
const WORTH_SHARING: usize = 1 << 14;

/// Buffers of one thread for the optimiser; they grow to the largest matrix met.
#[derive(Debug, Default)]
pub struct OptimiserScratch {
    pub muon: MuonBuffers,
    /// Moments as f32, where they are stored otherwise.
    pub first: Vec<f32>,
    pub second: Vec<f32>,
}

#[derive(Debug)]
pub struct Cpu {
    pool: rayon::ThreadPool,
    threads: usize,
    attention: Vec<Mutex<AttentionWorkspace>>,
    optimiser: Vec<Mutex<OptimiserScratch>>,
    pub logits: Mutex<Vec<f32>>,
}

impl Cpu {
    pub fn new(threads: usize) -> Result<Cpu, ThreadsError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| ThreadsError { threads, problem: error.to_string() })?;
        Ok(Cpu {
            pool,
            threads,
            attention: (0..threads).map(|_| Mutex::default()).collect(),
            optimiser: (0..threads).map(|_| Mutex::default()).collect(),
            logits: Mutex::default(),
        })
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Runs `work` on the spans of a fixed cutting into `length` rows each.
    pub fn spans(&self, rows: usize, length: usize, work: impl Fn(usize, Range<usize>) + Sync) {
        let count = rows.div_ceil(length.max(1));
        let span = |index: usize| index * length..((index + 1) * length).min(rows);
        if self.threads == 1 || count <= 1 {
            (0..count).for_each(|index| work(index, span(index)));
        } else {
            self.run(|| {
                (0..count).into_par_iter().with_max_len(1).for_each(|index| work(index, span(index)))
            });
        }
    }

    /// Rows of a piece, when rows of `width` elements are shared out and no bit depends on the cutting.
    pub fn rows_of_piece(&self, rows: usize, width: usize) -> usize {
        if rows * width <= WORTH_SHARING { rows.max(1) } else { rows.div_ceil(2 * self.threads).max(1) }
    }

    /// What this thread keeps for attention.
    pub fn attention(&self) -> MutexGuard<'_, AttentionWorkspace> {
        lock(&self.attention[rayon::current_thread_index().unwrap_or(0) % self.threads])
    }

    /// What this thread keeps for the optimiser.
    pub fn optimiser(&self) -> MutexGuard<'_, OptimiserScratch> {
        lock(&self.optimiser[rayon::current_thread_index().unwrap_or(0) % self.threads])
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A slice that several threads write to, each in places of its own.
pub struct Shared<'a, T> {
    start: *mut T,
    length: usize,
    elements: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: every access goes through `span`, whose callers promise that no two spans overlap.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(elements: &'a mut [T]) -> Self {
        Shared { start: elements.as_mut_ptr(), length: elements.len(), elements: std::marker::PhantomData }
    }

    /// Some of the elements.
    ///
    /// # Safety
    /// No other span that is alive overlaps this one.
    ///
    /// # Panics
    /// When the span does not lie inside.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn span(&self, span: Range<usize>) -> &mut [T] {
        assert!(span.start <= span.end && span.end <= self.length, "{span:?} of {} elements", self.length);
        // SAFETY: inside the slice, which outlives this; the caller keeps spans apart.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(span.start), span.len()) }
    }
}
