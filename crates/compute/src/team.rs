//! A few threads that work on one thing after the other, each part done before the next begins.
//!
//! A decoding step is a hundred short products in a row; waking a sleeping thread for each would cost as much as the
//! product. So the threads of a team wait for the next part awake, for a moment, and sleep only when nothing comes.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread waits awake for the next part.
const AWAKE: Duration = Duration::from_micros(200);
/// Looks at the counter between two looks at the clock.
const LOOKS: u32 = 64;
/// Looks for the end of a part, about a tenth of a millisecond, before the processor is offered to others.
const LOOKS_ALONE: u32 = 2_000;

/// Threads that share out work, the calling one among them.
#[derive(Debug)]
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One caller at a time.
    busy: Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    /// How many parts have begun.
    begun: AtomicUsize,
    /// Workers that are not done with the part that has begun.
    running: AtomicUsize,
    part: AtomicPtr<Part<'static>>,
    panicked: AtomicBool,
    ending: AtomicBool,
    sleeping: Vec<AtomicBool>,
}

struct Part<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    _of_caller: PhantomData<&'a ()>,
}

impl std::fmt::Debug for Part<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Part")
    }
}

impl Team {
    /// A team of `threads`, with the calling one among them; fewer if the system gives no more, at least one.
    pub fn new(threads: usize) -> Team {
        let wanted = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            begun: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            part: AtomicPtr::new(std::ptr::null_mut()),
            panicked: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            sleeping: (0..wanted).map(|_| AtomicBool::new(false)).collect(),
        });
        let start = |index: usize| {
            let shared = shared.clone();
            let name = format!("compute-{}", index + 1);
            std::thread::Builder::new().name(name).spawn(move || shared.serve(index)).ok()
        };
        let workers = (0..wanted).map_while(start).collect();
        Team { shared, workers, busy: Mutex::new(()) }
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work(0)` here and `work(1)`, `work(2)`, … in the other threads; returns when all are done. Called from within
    /// `work`, it would wait for itself.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return work(0);
        }
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut part = Part { work, _of_caller: PhantomData };
        let shared = &*self.shared;
        shared.running.store(self.workers.len(), Ordering::Relaxed);
        shared.part.store((&raw mut part).cast(), Ordering::Relaxed);
        // SeqCst here and in `serve`: either this sees that a worker sleeps, or the worker sees that a part has begun.
        shared.begun.fetch_add(1, Ordering::SeqCst);
        for (worker, sleeping) in self.workers.iter().zip(&shared.sleeping) {
            if sleeping.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        let wait = WaitOnDrop(shared);
        work(0);
        drop(wait);
        if shared.panicked.swap(false, Ordering::Relaxed) {
            panic!("a thread of the team panicked");
        }
    }

    /// Runs `work` on all of `tasks`, each taken by whoever is free.
    ///
    /// # Panics
    /// When `work` does.
    pub fn each<T: Send>(&self, tasks: Vec<T>, work: impl Fn(T) + Sync) {
        if self.workers.is_empty() || tasks.len() < 2 {
            return tasks.into_iter().for_each(work);
        }
        let tasks = Mutex::new(tasks.into_iter());
        self.run(&|_| {
            loop {
                let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).next();
                match task {
                    Some(task) => work(task),
                    None => return,
                }
            }
        });
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A panic of a worker was told where it happened.
            let _ = worker.join();
        }
    }
}

/// Waits until the workers are done, also when the caller's own share panics: they hold a reference to its stack.
struct WaitOnDrop<'a>(&'a Shared);

impl Drop for WaitOnDrop<'_> {
    fn drop(&mut self) {
        let mut looks = 0u32;
        while self.0.running.load(Ordering::Acquire) > 0 {
            looks += 1;
            if looks > LOOKS_ALONE {
                // Others want the processor, perhaps the very threads that are waited for.
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

impl Shared {
    fn serve(&self, index: usize) {
        let mut seen = 0;
        while self.wait(index, seen) {
            seen += 1;
            let part = self.part.load(Ordering::Acquire);
            // SAFETY: the caller keeps the part until `running` is zero, and `begun` was raised after it was stored.
            let part = unsafe { &*part };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (part.work)(index + 1)));
            if result.is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.running.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for a part after the first `seen`; false when the team ends.
    fn wait(&self, index: usize, seen: usize) -> bool {
        let began = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if self.begun.load(Ordering::Acquire) != seen {
                    return true;
                }
                std::hint::spin_loop();
            }
            if self.ending.load(Ordering::SeqCst) {
                return false;
            }
            if began.elapsed() < AWAKE {
                continue;
            }
            self.sleeping[index].store(true, Ordering::SeqCst);
            while self.begun.load(Ordering::SeqCst) == seen && !self.ending.load(Ordering::SeqCst) {
                std::thread::park();
            }
            self.sleeping[index].store(false, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_does_its_part_every_time() {
        for threads in [1, 2, 3, 5] {
            let team = Team::new(threads);
            let counts: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for round in 0..2_000 {
                team.run(&|index| {
                    counts[index].fetch_add(1, Ordering::Relaxed);
                });
                if round % 500 == 0 {
                    std::thread::sleep(AWAKE * 3);
                }
            }
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 2_000));
        }
    }

    #[test]
    fn tasks_are_done_once_each() {
        let team = Team::new(3);
        let mut numbers = vec![0usize; 1_000];
        team.each(numbers.iter_mut().enumerate().collect(), |(index, number)| *number += index);
        assert!(numbers.iter().enumerate().all(|(index, &number)| index == number));
    }

    #[test]
    fn a_panic_in_any_thread_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(2);
        for culprit in [0, 1] {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                team.run(&|index| assert_ne!(index, culprit, "on purpose"));
            }));
            assert!(result.is_err());
        }
        team.run(&|_| {});
    }
}
