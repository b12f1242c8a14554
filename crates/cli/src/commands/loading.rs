//! Waiting for a model: shown where it takes long, and ended at once by Ctrl-C or SIGTERM.

use std::cell::Cell;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::process;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::LoadWatch;
use provenance::Progress as _;

use crate::commands::later::{LONG, Later};
use crate::run::World;

/// How often one looks whether a signal came.
const GLANCE: Duration = Duration::from_millis(50);

/// While this lives, Ctrl-C and SIGTERM end the process at once. For work that writes nothing: there is nothing to complete.
pub struct EndsAtOnce {
    /// Dropped, it ends the thread.
    lives: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EndsAtOnce {
    /// `exit_code` is that of the process where a signal ends it.
    pub fn new(world: &World, exit_code: u8) -> EndsAtOnce {
        let (lives, alive) = mpsc::channel();
        let (cancellation, console) = (world.cancellation.clone(), world.console.clone());
        let thread = std::thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = alive.recv_timeout(GLANCE) {
                if cancellation.is_cancelled() {
                    console.end();
                    console.say("stopped on request");
                    process::exit(i32::from(exit_code));
                }
            }
        });
        EndsAtOnce { lives: Some(lives), thread: Some(thread) }
    }
}

impl Drop for EndsAtOnce {
    fn drop(&mut self) {
        drop(self.lives.take());
        // A signal that comes from here on is another's to heed.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Loads with `load`, and shows how far it is once it has taken two seconds.
pub fn shown<T, E>(
    name: &str,
    world: &World,
    load: impl FnOnce(LoadWatch<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let progress = Later::new(world.progress.as_ref());
    let (began, said) = (Instant::now(), Cell::new(false));
    let watch = |done: usize, parts: usize| {
        match done {
            0 => progress.begin(&format!("loading {name}"), Some(parts as u64), "layers"),
            _ => progress.advance(1),
        }
        // In a pipe, a task's first line comes late.
        if began.elapsed() >= LONG && !std::io::stderr().is_terminal() && !said.replace(true) {
            world.console.say(&format!("Loading {name} … {done} of {parts} layers"));
        }
        ControlFlow::Continue(())
    };
    let loaded = load(&watch);
    progress.end();
    loaded
}
