//! The processes that work on one corpus, and what each does next.
//!
//! Every piece of work ends in a file that gets its name when it is whole, and whose bytes depend on the documents and the
//! settings alone. So a piece is done if its file stands, whoever made it; a run that was stopped goes on with the pieces
//! that are missing; and two processes that do the same piece do no harm.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use provenance::{Context, Storage};
use rayon::prelude::*;

use crate::error::Error;

/// Gives out pieces of work, each by its number; `None` when there are none left.
pub type Claims<'a> = &'a (dyn Fn() -> Result<Option<usize>, Error> + Sync);

/// This process among those that share a scratch folder.
pub struct Team<'a> {
    pub context: &'a Context,
    pub scratch: PathBuf,
    asides: AtomicU64,
    documents: AtomicU64,
    began: Instant,
}

impl<'a> Team<'a> {
    pub fn join(context: &'a Context, scratch: &Path) -> Result<Team<'a>, Error> {
        context.storage.create_folder(scratch)?;
        Ok(Team {
            context,
            scratch: scratch.to_path_buf(),
            asides: AtomicU64::new(0),
            documents: AtomicU64::new(0),
            began: Instant::now(),
        })
    }

    pub fn storage(&self) -> &Storage {
        &self.context.storage
    }

    /// A path of this process's own, for a file that is not whole yet.
    pub fn aside(&self) -> PathBuf {
        self.scratch.join(format!(".aside-{}", self.asides.fetch_add(1, Ordering::SeqCst)))
    }

    /// Writes a file aside and gives it its name.
    pub fn commit(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let aside = self.aside();
        self.storage().write(&aside, bytes)?;
        self.storage().rename(&aside, path)?;
        Ok(())
    }

    /// Shows how fast documents are examined.
    pub fn note_documents(&self, documents: u64) {
        let all = self.documents.fetch_add(documents, Ordering::Relaxed) + documents;
        let rate = all as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        self.context.progress.note(&format!("{all} documents, {rate:.0} documents/s"));
    }

    /// Sees to it that all these files stand; `work` makes some of them, as many as `Claims` gives out.
    pub fn share(
        &self,
        results: &[PathBuf],
        work: impl Fn(Claims) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.context.cancellation.check()?;
        let next = Mutex::new(0);
        let claims = || {
            let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
            while *next < results.len() {
                *next += 1;
                if !results[*next - 1].exists() {
                    return Ok(Some(*next - 1));
                }
            }
            Ok(None)
        };
        work(&claims)
    }

    /// The same for pieces that a thread each makes.
    pub fn each(
        &self,
        results: &[PathBuf],
        work: impl Fn(usize) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        self.share(results, |claims| {
            (0..self.context.threads).into_par_iter().with_max_len(1).try_for_each(|_| {
                while let Some(piece) = claims()? {
                    self.context.cancellation.check()?;
                    work(piece)?;
                    self.release(&results[piece])?;
                }
                Ok(())
            })
        })
    }

    /// The same for one piece, which may use all threads.
    pub fn once(&self, result: &Path, work: impl Fn() -> Result<(), Error>) -> Result<(), Error> {
        self.share(&[result.to_path_buf()], |claims| {
            while claims()?.is_some() {
                work()?;
                self.release(result)?;
            }
            Ok(())
        })
    }

    /// This process is done with a piece.
    pub fn release(&self, _result: &Path) -> Result<(), Error> {
        Ok(())
    }
}
