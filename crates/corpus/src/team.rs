//! The processes that work on one corpus, and what each does next.
//!
//! Every piece of work ends in a file that gets its name when it is whole, and whose bytes depend on the documents and the
//! settings alone. So a piece is done if its file stands, whoever made it; a run that was stopped goes on with the pieces
//! that are missing; and two processes that do the same piece do no harm.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use provenance::{Claims, Context, Storage};
use rayon::prelude::*;

use crate::error::Error;

/// How long a process that has nothing to do waits before it looks again.
const WAIT: Duration = Duration::from_millis(200);

/// Gives out pieces of work, each by its number; `None` when there are none left that this process could do now.
pub type Pieces<'a> = &'a (dyn Fn() -> Result<Option<usize>, Error> + Sync);

/// This process among those that share a scratch folder.
pub struct Team<'a> {
    pub context: &'a Context,
    pub scratch: PathBuf,
    /// None where there are no other processes.
    claims: Option<Claims>,
    asides: AtomicU64,
    documents: AtomicU64,
    began: Instant,
}

impl<'a> Team<'a> {
    pub fn join(context: &'a Context, scratch: &Path) -> Result<Team<'a>, Error> {
        context.storage.create_folder(scratch)?;
        let rank = context.rank;
        let claims = match rank.is_one_of_many() {
            true => {
                let folder = scratch.join("claims");
                Some(Claims::open(&context.storage, &folder, rank.rank, rank.patience)?)
            }
            false => None,
        };
        Ok(Team {
            context,
            scratch: scratch.to_path_buf(),
            claims,
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
        let number = self.asides.fetch_add(1, Ordering::SeqCst);
        self.scratch.join(format!(".aside-{}-{number}", self.context.rank.rank))
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

    /// Sees to it that all these files stand; `work` makes some of them, as many as the pieces that it is given.
    pub fn share(
        &self,
        results: &[PathBuf],
        work: impl Fn(Pieces) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let done: Vec<AtomicBool> = results.iter().map(|_| AtomicBool::new(false)).collect();
        let is_done = |piece: usize| {
            let known = done[piece].load(Ordering::Relaxed) || results[piece].exists();
            done[piece].store(known, Ordering::Relaxed);
            known
        };
        loop {
            self.context.cancellation.check()?;
            if (0..results.len()).all(is_done) {
                return Ok(());
            }
            let given = AtomicU64::new(0);
            let next = Mutex::new(0);
            let pieces = || {
                let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
                while *next < results.len() {
                    let piece = self.order(*next, results.len());
                    *next += 1;
                    if !is_done(piece) && self.take(&results[piece])? {
                        // Another process may have made it between the look and the claim.
                        if is_done(piece) {
                            self.release(&results[piece])?;
                            continue;
                        }
                        given.fetch_add(1, Ordering::Relaxed);
                        return Ok(Some(piece));
                    }
                }
                Ok(None)
            };
            work(&pieces)?;
            if given.into_inner() == 0 {
                std::thread::sleep(WAIT.min(self.context.rank.patience / 8));
            }
        }
    }

    /// Processes begin at different places, so that they meet late.
    fn order(&self, number: usize, pieces: usize) -> usize {
        let rank = self.context.rank;
        (number + pieces * (rank.rank % rank.world.max(1)) / rank.world.max(1)) % pieces
    }

    /// The same for pieces that a thread each makes.
    pub fn each(
        &self,
        results: &[PathBuf],
        work: impl Fn(usize) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        self.share(results, |pieces| {
            (0..self.context.threads).into_par_iter().with_max_len(1).try_for_each(|_| {
                while let Some(piece) = pieces()? {
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
        self.share(&[result.to_path_buf()], |pieces| {
            while pieces()?.is_some() {
                work()?;
                self.release(result)?;
            }
            Ok(())
        })
    }

    fn take(&self, result: &Path) -> Result<bool, Error> {
        match &self.claims {
            Some(claims) => Ok(claims.take(&self.name_of(result))?),
            None => Ok(true),
        }
    }

    /// This process is done with a piece.
    pub fn release(&self, result: &Path) -> Result<(), Error> {
        match &self.claims {
            Some(claims) => Ok(claims.release(&self.name_of(result))?),
            None => Ok(()),
        }
    }

    /// The name of a piece's claim: where its result stands in the scratch folder.
    fn name_of(&self, result: &Path) -> String {
        let relative = result.strip_prefix(&self.scratch).unwrap_or(result);
        relative.to_string_lossy().replace(['/', '\\'], "-")
    }
}
