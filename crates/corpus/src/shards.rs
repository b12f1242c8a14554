//! The first phase: input files become blocks of examined documents.
//!
//! Each file is a shard. Its records are read in order by whichever thread is free, cut into blocks of a fixed size, and
//! examined by that thread while the next one reads on. A block that stands already was made by a run that was stopped: its
//! records are skipped. A shard is done when all its blocks stand; then a small file says how many there are.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use documents::{InputFile, InputReader, RawRecord, ReadOptions};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::block::MAXIMUM_DOCUMENTS;
use crate::error::Error;
use crate::examine::{Buffers, Examiner};
use crate::holding::Holding;
use crate::settings::{DamagedInput, TextUnit};
use crate::team::{Pieces, Team};

/// Bytes of the records of one block: a second of work for a thread, little memory, files of a size that disks like.
const BLOCK_BYTES: usize = 16 << 20;

/// An input file.
pub struct Shard {
    pub file: InputFile,
    /// From an earlier corpus, to be compared with.
    pub existing: bool,
}

/// What stands in the file that ends a shard's folder.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct ShardEnd {
    blocks: u32,
    damaged: bool,
}

/// All shards examined.
pub struct ExaminedShards {
    pub holding: Holding,
    pub damaged_files: u64,
}

/// Files of the inputs, those of earlier corpora first.
pub fn list(existing: &[PathBuf], inputs: &[PathBuf]) -> Result<Vec<Shard>, Error> {
    let mut shards = Vec::new();
    for (paths, existing) in [(existing, true), (inputs, false)] {
        let files = documents::list_input_files(paths)?;
        shards.extend(files.into_iter().map(|file| Shard { file, existing }));
    }
    Ok(shards)
}

/// Examines what is not examined yet, and opens all of it.
/// With a `limit`, no more records of each file than that.
pub fn examine(
    examiner: &Examiner,
    shards: &[Shard],
    limit: Option<u64>,
    team: &Team,
) -> Result<ExaminedShards, Error> {
    let folder = team.scratch.join("examined");
    team.storage().create_folder(&folder)?;
    let bytes = |shard: &Shard| shard.file.path.metadata().map_or(0, |metadata| metadata.len());
    let total: u64 = shards.iter().map(bytes).sum();
    let progress = &team.context.progress;
    progress.begin("examine", Some(total), "bytes");
    let paths: Vec<PathBuf> = (0..shards.len()).map(|shard| folder.join(format!("{shard:06}"))).collect();
    let ends: Vec<PathBuf> = paths.iter().map(|path| path.join("end")).collect();
    for (shard, _) in shards.iter().zip(&ends).filter(|(_, end)| end.exists()) {
        progress.already(bytes(shard));
    }
    team.share(&ends, |pieces| {
        let source = Source { examiner, shards, limit, team, paths: &paths, pieces, open: Mutex::new(None) };
        (0..team.context.threads).into_par_iter().with_max_len(1).try_for_each(|_| source.work())
    })?;
    progress.end();
    let mut blocks = Vec::new();
    let mut damaged_files = 0;
    for (path, end) in paths.iter().zip(&ends) {
        let json = std::fs::read(end).map_err(|source| Error::Read { path: end.clone(), source })?;
        let end: ShardEnd =
            serde_json::from_slice(&json).map_err(|_| Error::BadBlock { path: end.clone() })?;
        damaged_files += u64::from(end.damaged);
        blocks.extend((0..end.blocks).map(|number| block_path(path, number)));
    }
    Ok(ExaminedShards { holding: Holding::open(blocks)?, damaged_files })
}

fn block_path(shard: &Path, number: u32) -> PathBuf {
    shard.join(format!("{number:06}"))
}

/// Where the threads take their blocks from.
struct Source<'a> {
    examiner: &'a Examiner<'a>,
    shards: &'a [Shard],
    limit: Option<u64>,
    team: &'a Team<'a>,
    paths: &'a [PathBuf],
    /// The next shard that is this process's to do.
    pieces: Pieces<'a>,
    open: Mutex<Option<OpenShard>>,
}

struct OpenShard {
    /// None where the file could not even be opened.
    reader: Option<InputReader>,
    input_bytes: u64,
    account: Arc<Account>,
}

/// What is left to do of a shard, among threads.
struct Account {
    shard: usize,
    blocks: AtomicU32,
    /// Blocks that are being examined, and one for the reader.
    unfinished: AtomicU32,
    damaged: AtomicBool,
}

struct RawBlock {
    account: Arc<Account>,
    number: u32,
    records: Vec<RawRecord>,
}

impl Source<'_> {
    /// Examines blocks until there are none left.
    fn work(&self) -> Result<(), Error> {
        let mut buffers = Buffers::default();
        while let Some(block) = self.next()? {
            self.team.context.cancellation.check()?;
            let path = block_path(&self.paths[block.account.shard], block.number);
            if !path.exists() {
                let documents = block.records.len() as u64;
                let examined = match self.shards[block.account.shard].existing {
                    true => self.examiner.existing_block(block.records, &mut buffers),
                    false => self.examiner.block(block.records, &mut buffers),
                };
                examined.commit(self.team.storage(), &self.team.aside(), &path)?;
                self.team.note_documents(documents);
            }
            self.finish(&block.account)?;
        }
        Ok(())
    }

    /// The next records of the open shard, or the first of the next one.
    fn next(&self) -> Result<Option<RawBlock>, Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if open.is_none() {
                let Some(shard) = (self.pieces)()? else { return Ok(None) };
                *open = Some(self.open(shard)?);
            }
            let Some(current) = open.as_mut() else { continue };
            let records = self.read(current)?;
            let read = current.reader.as_ref().map_or(0, InputReader::input_bytes);
            self.team.context.progress.advance(read - current.input_bytes);
            current.input_bytes = read;
            let account = current.account.clone();
            if records.is_empty() {
                *open = None;
                self.finish(&account)?;
                continue;
            }
            account.unfinished.fetch_add(1, Ordering::SeqCst);
            let number = account.blocks.fetch_add(1, Ordering::SeqCst);
            return Ok(Some(RawBlock { account, number, records }));
        }
    }

    fn open(&self, shard: usize) -> Result<OpenShard, Error> {
        self.team.storage().create_folder(&self.paths[shard])?;
        let settings = self.examiner.settings;
        let text_unit = match settings.text_unit {
            TextUnit::File => documents::TextUnit::File,
            TextUnit::Paragraph => documents::TextUnit::Paragraph,
        };
        let options = ReadOptions {
            record_limit_bytes: settings.record_limit_bytes,
            text_unit,
            fields: match settings.fields.is_empty() {
                true => None,
                false => Some(Arc::new(documents::FieldMap::new(&settings.fields)?)),
            },
            ..ReadOptions::default()
        };
        let account = Account {
            shard,
            blocks: AtomicU32::new(0),
            unfinished: AtomicU32::new(1),
            damaged: AtomicBool::new(false),
        };
        let reader = match documents::open_input(&self.shards[shard].file, options) {
            Ok(reader) => Some(reader),
            Err(error) => {
                self.damage(error, &account)?;
                None
            }
        };
        Ok(OpenShard { reader, input_bytes: 0, account: Arc::new(account) })
    }

    /// The records of a block, none at the end of the shard.
    fn read(&self, open: &mut OpenShard) -> Result<Vec<RawRecord>, Error> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let Some(reader) = &mut open.reader else { return Ok(records) };
        let left = self.limit.map_or(usize::MAX, |limit| limit.saturating_sub(reader.records()) as usize);
        while records.len() < MAXIMUM_DOCUMENTS.min(left) && bytes < BLOCK_BYTES {
            match reader.next() {
                None => break,
                Some(Ok(raw)) => {
                    bytes += raw.len_bytes();
                    records.push(raw);
                }
                Some(Err(error)) => self.damage(error, &open.account)?,
            }
        }
        Ok(records)
    }

    /// Counts a damaged file, or stops the run.
    fn damage(&self, error: documents::Error, account: &Account) -> Result<(), Error> {
        if !error.is_damage() {
            return Err(error.into());
        }
        match self.examiner.settings.damaged_input {
            DamagedInput::Stop => Err(Error::DamagedInput(error)),
            DamagedInput::Skip => {
                account.damaged.store(true, Ordering::SeqCst);
                self.team.context.progress.warn(&format!("{error}; the rest of it is skipped"));
                Ok(())
            }
        }
    }

    /// One thing less to do of a shard; after the last one the shard is done.
    fn finish(&self, account: &Account) -> Result<(), Error> {
        if account.unfinished.fetch_sub(1, Ordering::SeqCst) > 1 {
            return Ok(());
        }
        let end = ShardEnd {
            blocks: account.blocks.load(Ordering::SeqCst),
            damaged: account.damaged.load(Ordering::SeqCst),
        };
        let json = serde_json::to_vec(&end).expect("plain values always serialise");
        let path = self.paths[account.shard].join("end");
        self.team.commit(&path, &json)?;
        self.team.release(&path)
    }
}
