//! A whole pull: what a repository has, which of it is wanted, what of that is missing, and the fetching of it.

use std::path::{Path, PathBuf};

use provenance::{Cancellation, Context, Digest};

use crate::client::{Failure, Hub};
use crate::content::ContentDigest;
use crate::download::download;
use crate::folder::{Filling, Source, SourceFile, unfinished};
use crate::listing::{Listing, RemoteFile};
use crate::selection::{LeftOut, select};
use crate::{Address, Error};

/// Progress is shown in megabytes.
const MEGABYTE: u64 = 1_000_000;
/// Kept free beside what is fetched: file systems work badly when they are full to the last block.
const SPARE_BYTES: u64 = 64 << 20;

/// What is to be fetched.
pub struct Plan {
    /// The repository at one commit.
    pub listing: Listing,
    /// In the order of their paths.
    pub wanted: Vec<RemoteFile>,
    /// The others, with the reason.
    pub left_out: Vec<(String, LeftOut)>,
}

/// What a pull did.
#[derive(Debug)]
pub struct Pulled {
    /// The folder.
    pub folder: PathBuf,
    /// What stands in it now.
    pub source: Source,
    /// Files that came.
    pub fetched: usize,
    /// Files that were there and are what they should be.
    pub verified: usize,
    /// Files that were there, were not, and have been replaced.
    pub replaced: Vec<String>,
}

/// Asks the hub what a repository has; nothing is fetched yet. `named` files are wanted as well.
///
/// # Errors
/// When the repository cannot be read, or holds nothing that could be loaded.
pub fn plan(
    hub: &Hub,
    address: &Address,
    named: &[String],
    cancellation: &Cancellation,
) -> Result<Plan, Error> {
    let listing = hub.listing(address, cancellation)?;
    let selection = select(&listing, named)?;
    Ok(Plan { listing, wanted: selection.wanted, left_out: selection.left_out })
}

impl Plan {
    /// Bytes of all files that are wanted.
    pub fn bytes(&self) -> u64 {
        self.wanted.iter().map(|file| file.bytes).sum()
    }

    /// Bytes that are still to come, judged by the lengths of what stands in `folder`.
    pub fn missing_bytes(&self, folder: &Path) -> u64 {
        let length = |path: PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
        let missing = |file: &RemoteFile| match length(provenance::digest::join(folder, &file.path)) {
            there if there == file.bytes => 0,
            _ => file.bytes.saturating_sub(length(unfinished(folder, &file.digest))),
        };
        self.wanted.iter().map(missing).sum()
    }
}

/// Fetches what is missing of a plan into `folder` and checks what is there. Stopped at any moment, it leaves a folder
/// that the next call goes on with.
///
/// `free_bytes` says how much the disk that holds a folder has left, where that is known.
///
/// # Errors
/// Names the file that could not be fetched; those before it stand.
pub fn fetch(
    hub: &Hub,
    plan: &Plan,
    folder: &Path,
    free_bytes: impl Fn(&Path) -> Option<u64>,
    context: &Context,
) -> Result<Pulled, Error> {
    let needed = plan.missing_bytes(folder);
    if let Some(free) = free_bytes(folder).filter(|free| needed > 0 && needed + SPARE_BYTES > *free) {
        return Err(Error::Space { folder: folder.to_path_buf(), needed, free });
    }
    let filling = Filling::begin(folder, &plan.listing.repository, &context.storage)?;
    let (mut fetched, mut verified, mut replaced) = (0, 0, Vec::new());
    let mut files = Vec::new();
    let mut meter = Meter { context, bytes: 0 };
    context.progress.begin(&plan.listing.repository, Some(plan.bytes().div_ceil(MEGABYTE)), "MB");
    for file in &plan.wanted {
        context.progress.note(&file.path);
        let sha256 = match check(file, folder, &mut meter, context)? {
            Standing::Right(sha256) => {
                verified += 1;
                sha256
            }
            standing => {
                if matches!(standing, Standing::Wrong) {
                    replaced.push(file.path.clone());
                }
                let mut gained = |bytes| meter.advance(bytes);
                let sha256 = download(hub, &plan.listing, file, &filling, &mut gained, context)?;
                fetched += 1;
                sha256
            }
        };
        files.push(SourceFile { path: file.path.clone(), bytes: file.bytes, sha256 });
    }
    context.progress.note("");
    context.progress.end();
    let source = remember(&filling, plan, files, context)?;
    filling.finish(&source, &context.storage)?;
    Ok(Pulled { folder: folder.to_path_buf(), source, fetched, verified, replaced })
}

/// The bytes of a small file of a repository, checked like any other; nothing is written to disk.
///
/// # Errors
/// When the repository has no such file, it is larger than `limit` bytes, or its bytes are not what was announced.
pub fn read_small(
    hub: &Hub,
    listing: &Listing,
    path: &str,
    limit: u64,
    cancellation: &Cancellation,
) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let missing = |problem: String| Error::NothingToLoad { repository: listing.repository.clone(), problem };
    let file = listing.files.iter().find(|file| file.path == path);
    let file = file.ok_or_else(|| missing(format!("it has no {path}")))?;
    if file.bytes > limit {
        return Err(missing(format!("its {path} has {} bytes, expected at most {limit}", file.bytes)));
    }
    let bytes = hub.again(hub.settings.attempts, cancellation, || {
        let reply = hub.file(listing, path, None)?;
        let address = reply.address.clone();
        let mut bytes = Vec::new();
        let read = reply.body.take(file.bytes + 1).read_to_end(&mut bytes);
        read.map_err(|error| Failure::Passing { address, problem: error.to_string(), wait: None })?;
        Ok(bytes)
    })?;
    let mut digest = ContentDigest::new(&file.digest, file.bytes);
    digest.update(&bytes);
    let (_, found) = digest.finish();
    if found != file.digest {
        let (expected, found) = (file.digest.to_string(), found.to_string());
        return Err(Error::Digest { file: path.to_string(), expected, found });
    }
    Ok(bytes)
}

/// What stands under a file's name.
enum Standing {
    Nothing,
    Wrong,
    Right(Digest),
}

fn check(file: &RemoteFile, folder: &Path, meter: &mut Meter, context: &Context) -> Result<Standing, Error> {
    use std::io::Read;
    let path = provenance::digest::join(folder, &file.path);
    match path.symlink_metadata() {
        Err(_) => return Ok(Standing::Nothing),
        Ok(metadata) if !metadata.is_file() || metadata.len() != file.bytes => return Ok(Standing::Wrong),
        Ok(_) => {}
    }
    let mut digest = ContentDigest::new(&file.digest, file.bytes);
    let mut there = std::fs::File::open(&path).map_err(Error::read(&path))?;
    let mut block = vec![0; 1 << 18];
    loop {
        context.cancellation.check()?;
        match there.read(&mut block).map_err(Error::read(&path))? {
            0 => break,
            read => digest.update(&block[..read]),
        }
    }
    let (sha256, found) = digest.finish();
    if found != file.digest {
        return Ok(Standing::Wrong);
    }
    meter.already(file.bytes);
    Ok(Standing::Right(sha256))
}

/// The list of what stands in the folder now. Files of an earlier commit that this one no longer has go away: weights of
/// two versions must not stand side by side.
fn remember(
    filling: &Filling,
    plan: &Plan,
    mut files: Vec<SourceFile>,
    context: &Context,
) -> Result<Source, Error> {
    for old in filling.before.iter().flat_map(|before| &before.files) {
        if files.iter().any(|file| file.path == old.path) {
            continue;
        }
        let same_commit = filling.before.as_ref().is_some_and(|before| before.commit == plan.listing.commit);
        if same_commit {
            files.push(old.clone());
        } else {
            context.storage.remove_file(&provenance::digest::join(&filling.path, &old.path))?;
        }
    }
    files.sort_by(|one, two| one.path.cmp(&two.path));
    Ok(Source::new(&plan.listing, files))
}

/// Bytes shown as whole megabytes.
struct Meter<'a> {
    context: &'a Context,
    bytes: u64,
}

impl Meter<'_> {
    fn advance(&mut self, bytes: u64) {
        let megabytes = self.add(bytes);
        if megabytes > 0 {
            self.context.progress.advance(megabytes);
        }
    }

    fn already(&mut self, bytes: u64) {
        let megabytes = self.add(bytes);
        if megabytes > 0 {
            self.context.progress.already(megabytes);
        }
    }

    fn add(&mut self, bytes: u64) -> u64 {
        let before = self.bytes / MEGABYTE;
        self.bytes += bytes;
        self.bytes / MEGABYTE - before
    }
}
