//! Bundles: one tar archive with a model's files, their digests and an explanation, for machines without internet. The same
//! model gives the same archive, byte for byte, and any `tar` and `sha256sum` can open and check it.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use provenance::{Context, Digest};
use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::folder::{Filling, SOURCE_FILE, Source};
use crate::listing::Announced;
use crate::tar::{self, Archive};

const README: &str = "BUNDLE.txt";
const DIGESTS: &str = "SHA256SUMS";
/// The list of files comes first and is never longer.
const LARGEST_SOURCE_BYTES: u64 = 64 << 20;

/// Writes the files of a pulled folder as one archive; below the folder's own name in it.
///
/// # Errors
/// When the folder was not pulled, a file is not what it was, or the archive cannot be written.
pub fn write(folder: &Path, bundle: &Path, context: &Context) -> Result<Digest, Error> {
    let source = Source::of_folder(folder)?.ok_or_else(|| Error::Folder {
        folder: folder.to_path_buf(),
        problem: format!("has no {SOURCE_FILE}, so that nobody knows what belongs to it"),
    })?;
    let top = source.repository.rsplit('/').next().unwrap_or("model").to_string();
    let aside = aside(bundle);
    if let Some(above) = bundle.parent().filter(|above| !above.as_os_str().is_empty()) {
        context.storage.create_folder(above)?;
    }
    let mut out = Out { inner: context.storage.create(&aside)?, hasher: Sha256::new() };
    for (name, text) in
        [(SOURCE_FILE, source.to_json()), (README, readme(&source)), (DIGESTS, digests(&source))]
    {
        let header = tar::header(&format!("{top}/{name}"), text.len() as u64);
        out.put(&header.map_err(|problem| Error::bundle(bundle, problem))?)?;
        out.put(text.as_bytes())?;
        out.put(&vec![0; tar::padding(text.len() as u64)])?;
    }
    let total: u64 = source.files.iter().map(|file| file.bytes).sum();
    context.progress.begin("bundle", Some(total.div_ceil(1_000_000)), "MB");
    let mut done = 0;
    for file in &source.files {
        let header = tar::header(&format!("{top}/{}", file.path), file.bytes);
        out.put(&header.map_err(|problem| Error::bundle(bundle, problem))?)?;
        let path = provenance::digest::join(folder, &file.path);
        let changed = |problem: &str| Error::Folder {
            folder: folder.to_path_buf(),
            problem: format!("{} {problem}; pull the model again", file.path),
        };
        let mut there = File::open(&path).map_err(Error::read(&path))?.take(file.bytes + 1);
        let (mut block, mut bytes, mut hasher) = (vec![0; 1 << 18], 0, Sha256::new());
        loop {
            context.cancellation.check()?;
            let read = there.read(&mut block).map_err(Error::read(&path))?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            if bytes > file.bytes {
                return Err(changed("is longer than it was"));
            }
            hasher.update(&block[..read]);
            out.put(&block[..read])?;
            let before = done / 1_000_000;
            done += read as u64;
            context.progress.advance(done / 1_000_000 - before);
        }
        if Digest(hasher.finalize().into()) != file.sha256 || bytes != file.bytes {
            return Err(changed("is not what was pulled"));
        }
        out.put(&vec![0; tar::padding(file.bytes)])?;
    }
    context.progress.end();
    tar::write_end(&mut out).map_err(|source| Error::Read { path: aside.clone(), source })?;
    let Out { inner, hasher } = out;
    inner.finish()?;
    context.storage.rename(&aside, bundle)?;
    Ok(Digest(hasher.finalize().into()))
}

/// Whose model a bundle holds, from its first bytes alone.
///
/// # Errors
/// When it is no bundle.
pub fn source(bundle: &Path) -> Result<Source, Error> {
    let file = File::open(bundle).map_err(Error::read(bundle))?;
    Ok(open(bundle, &mut Archive::new(BufReader::new(file)))?.1)
}

/// Unpacks a bundle into `folder`, checking every digest. Files that stand there and are right stay.
///
/// # Errors
/// Names what is missing, too much, or not what the bundle's own list says.
pub fn unpack(bundle: &Path, folder: &Path, context: &Context) -> Result<Source, Error> {
    let wrong = |problem: String| Error::bundle(bundle, problem);
    let file = File::open(bundle).map_err(Error::read(bundle))?;
    let mut archive = Archive::new(BufReader::with_capacity(1 << 18, file));
    let (top, source) = open(bundle, &mut archive)?;
    let filling = Filling::begin(folder, &source.repository, &context.storage)?;
    let total: u64 = source.files.iter().map(|file| file.bytes).sum();
    context.progress.begin("unpack", Some(total.div_ceil(1_000_000)), "MB");
    let mut done = 0u64;
    let mut waiting = source.files.iter();
    while let Some((name, bytes)) = archive.next_file().map_err(wrong)? {
        let relative = name.strip_prefix(&format!("{top}/")).unwrap_or(&name).to_string();
        if relative == README || relative == DIGESTS {
            archive.bytes(bytes, |_| Ok::<(), String>(())).map_err(wrong)?;
            continue;
        }
        // The files stand in the order of the list.
        let expected = waiting.next().filter(|file| file.path == relative && file.bytes == bytes);
        let Some(expected) = expected else {
            return Err(wrong(format!(
                "{} is not what its list says comes here",
                crate::listing::one_line(&name)
            )));
        };
        let aside = filling.unfinished(&Announced::Sha256(expected.sha256));
        let mut out = context.storage.create(&aside)?;
        let mut hasher = Sha256::new();
        archive
            .bytes(bytes, |block| {
                context.cancellation.check().map_err(|error| Unpacking::Other(error.into()))?;
                hasher.update(block);
                out.write_bytes(block).map_err(|error| Unpacking::Other(error.into()))?;
                let before = done / 1_000_000;
                done += block.len() as u64;
                context.progress.advance(done / 1_000_000 - before);
                Ok(())
            })
            .map_err(|error| match error {
                Unpacking::Archive(problem) => wrong(problem),
                Unpacking::Other(error) => error,
            })?;
        let found = Digest(hasher.finalize().into());
        if found != expected.sha256 {
            context.storage.remove_file(&aside)?;
            let expected = expected.sha256;
            return Err(wrong(format!("{relative} has the digest {found}, its list says {expected}")));
        }
        out.finish()?;
        filling.place(&aside, &relative, &context.storage)?;
    }
    context.progress.end();
    if let Some(missing) = waiting.next() {
        return Err(wrong(format!("{} is missing", missing.path)));
    }
    filling.finish(&source, &context.storage)?;
    Ok(source)
}

/// What went wrong inside a file of an archive.
enum Unpacking {
    Archive(String),
    Other(Error),
}

impl From<String> for Unpacking {
    fn from(problem: String) -> Unpacking {
        Unpacking::Archive(problem)
    }
}

/// The name of the folder in an archive, and its list of files, which comes first.
fn open<R: Read>(bundle: &Path, archive: &mut Archive<R>) -> Result<(String, Source), Error> {
    let wrong = |problem: String| Error::bundle(bundle, problem);
    let first = archive.next_file().map_err(wrong)?;
    let top = first.as_ref().and_then(|(name, _)| name.strip_suffix(&format!("/{SOURCE_FILE}")));
    let (Some(top), Some((_, bytes))) = (top, &first) else {
        return Err(wrong(format!("does not begin with {SOURCE_FILE}: it is no bundle of eulalia pull")));
    };
    if *bytes > LARGEST_SOURCE_BYTES {
        return Err(wrong("its list of files is too long".to_string()));
    }
    let mut json = Vec::new();
    archive
        .bytes(*bytes, |block| {
            json.extend_from_slice(block);
            Ok::<(), String>(())
        })
        .map_err(wrong)?;
    let source = Source::parse(&json).map_err(wrong)?;
    Ok((top.to_string(), source))
}

fn digests(source: &Source) -> String {
    source.files.iter().map(|file| format!("{}  {}\n", file.sha256, file.path)).collect()
}

fn readme(source: &Source) -> String {
    let license = source.license.as_deref().unwrap_or("not stated by its publisher");
    let link = source.license_link.as_ref().map_or(String::new(), |link| format!(" ({link})"));
    format!(
        "{repository} at commit {commit}\n\n\
         Licence as its publisher states it: {license}{link}. Who passes this bundle on does so under that licence; its\n\
         text and the model card are among the files, where the publisher put them there.\n\n\
         With eulalia, on a machine without internet:\n\n    \
         eulalia pull --from-bundle FILE.tar --to models/{name}\n\n\
         With other tools:\n\n    \
         tar -xf FILE.tar && cd {top} && sha256sum -c {DIGESTS}\n",
        repository = source.repository,
        commit = source.commit,
        top = source.repository.rsplit('/').next().unwrap_or("model"),
        name = source.repository.rsplit('/').next().unwrap_or("model").to_lowercase(),
    )
}

fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    path.with_file_name(format!(".{name}.partial"))
}

/// The archive on its way to disk.
struct Out {
    inner: provenance::StoredFile,
    hasher: Sha256,
}

impl Out {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hasher.update(bytes);
        Ok(self.inner.write_bytes(bytes)?)
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
