//! One file from a hub to the disk: collected under its digest, continued where a connection or a process broke off, and
//! named only when its length and digest are what was announced.

use std::io::Read;
use std::path::Path;

use provenance::{Context, Digest, StoredFile};

use crate::Error;
use crate::client::{Failure, Hub, Reply, Resume};
use crate::content::ContentDigest;
use crate::folder::Filling;
use crate::listing::{Listing, RemoteFile};

const BLOCK_BYTES: usize = 1 << 18;

/// Fetches a file of `listing` into `folder`; `gained` is told how many bytes have come that were not there before.
/// Returns its SHA-256.
pub(crate) fn download(
    hub: &Hub,
    listing: &Listing,
    file: &RemoteFile,
    folder: &Filling,
    gained: &mut dyn FnMut(u64),
    context: &Context,
) -> Result<Digest, Error> {
    let path = folder.unfinished(&file.digest);
    let mut best = 0;
    // A second time from the beginning, where a part of an earlier run was wrong.
    for again in [false, true] {
        let mut part = Part::open(&path, file, context)?;
        let had = part.bytes;
        if had > best {
            gained(had - best);
            best = had;
        }
        let mut gained_beyond = |bytes: u64| {
            if bytes > best {
                gained(bytes - best);
                best = bytes;
            }
        };
        part.fill(hub, listing, file, &mut gained_beyond, context)?;
        let connections = part.connections;
        let (sha256, found) = part.finish()?;
        if found == file.digest {
            folder.place(&path, &file.path, &context.storage)?;
            return Ok(sha256);
        }
        context.storage.remove_file(&path)?;
        if again || (had == 0 && connections <= 1) {
            return Err(Error::Digest {
                file: file.path.clone(),
                expected: file.digest.to_string(),
                found: found.to_string(),
            });
        }
        context.progress.warn(&format!(
            "{}: the parts do not fit together; it is fetched again from the beginning",
            file.path
        ));
    }
    unreachable!("the second time returns")
}

/// What there is of a file.
struct Part<'a> {
    path: &'a Path,
    out: StoredFile,
    bytes: u64,
    digest: ContentDigest,
    connections: u32,
}

impl<'a> Part<'a> {
    /// Goes on from what an earlier run left.
    fn open(path: &'a Path, file: &RemoteFile, context: &Context) -> Result<Part<'a>, Error> {
        let mut digest = ContentDigest::new(&file.digest, file.bytes);
        let mut bytes = 0;
        match std::fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Read { path: path.to_path_buf(), source }),
            Ok(mut there) => {
                let mut block = vec![0; BLOCK_BYTES];
                loop {
                    context.cancellation.check()?;
                    let read = there.read(&mut block).map_err(Error::read(path))?;
                    if read == 0 {
                        break;
                    }
                    bytes += read as u64;
                    digest.update(&block[..read]);
                }
            }
        }
        if bytes > file.bytes {
            context.storage.remove_file(path)?;
            return Part::open(path, file, context);
        }
        Ok(Part { path, out: context.storage.append(path)?, bytes, digest, connections: 0 })
    }

    /// From nothing.
    fn restart(&mut self, file: &RemoteFile, context: &Context) -> Result<(), Error> {
        self.out = context.storage.create(self.path)?;
        self.digest = ContentDigest::new(&file.digest, file.bytes);
        self.bytes = 0;
        Ok(())
    }

    /// Fetches the rest, over as many connections as it takes.
    fn fill(
        &mut self,
        hub: &Hub,
        listing: &Listing,
        file: &RemoteFile,
        gained: &mut dyn FnMut(u64),
        context: &Context,
    ) -> Result<(), Error> {
        let (mut attempt, mut furthest) = (0, self.bytes);
        let mut etag: Option<String> = None;
        while self.bytes < file.bytes {
            context.cancellation.check()?;
            let asked = self.bytes;
            let resume = (asked > 0).then_some(Resume { from: asked, etag: etag.as_deref() });
            let reply = hub.file(listing, &file.path, resume.as_ref());
            let outcome = match reply {
                Ok(reply) => {
                    self.connections += 1;
                    // Only a strong tag says that the bytes are the same.
                    etag = reply.text("etag").filter(|tag| tag.starts_with('"')).map(str::to_string);
                    self.take(reply, asked, file, gained, context)
                }
                Err(failure) => Err(failure),
            };
            if let Err(failure) = outcome {
                attempt = if self.bytes > furthest { 1 } else { attempt + 1 };
                furthest = furthest.max(self.bytes);
                if let Err(error) = hub.pause(attempt, hub.settings.attempts, failure, &context.cancellation)
                {
                    // What has come stays for the next run.
                    self.out.sync()?;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Takes what one answer brings.
    fn take(
        &mut self,
        mut reply: Reply,
        asked: u64,
        file: &RemoteFile,
        gained: &mut dyn FnMut(u64),
        context: &Context,
    ) -> Result<(), Failure> {
        let wrong_size =
            |found: String| Error::Size { file: file.path.clone(), announced: file.bytes, found };
        let length = reply.text("content-length").and_then(|text| text.parse::<u64>().ok());
        match reply.status {
            206 => {
                let range = reply.text("content-range").and_then(content_range);
                let Some((first, total)) = range.filter(|(first, _)| *first == asked) else {
                    let problem = "another range than the one that was asked for".to_string();
                    return Err(Failure::Passing { address: reply.address, problem, wait: None });
                };
                if let Some(total) = total.filter(|total| *total != file.bytes) {
                    return Err(wrong_size(format!("the server has {total} bytes")).into());
                }
                debug_assert_eq!(first, self.bytes);
            }
            416 => {
                self.restart(file, context)?;
                let problem = "the server has no such range".to_string();
                return Err(Failure::Passing { address: reply.address, problem, wait: None });
            }
            // The whole file: the server knows no ranges, or has another version.
            _ => {
                if let Some(length) = length.filter(|length| *length != file.bytes) {
                    return Err(wrong_size(format!("the server has {length} bytes")).into());
                }
                if self.bytes > 0 {
                    self.restart(file, context)?;
                }
            }
        }
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            context.cancellation.check().map_err(Error::from)?;
            let broken =
                |problem: String| Failure::Passing { address: reply.address.clone(), problem, wait: None };
            let read = match reply.body.read(&mut block) {
                Ok(0) if self.bytes < file.bytes => {
                    return Err(broken(format!("broke off after {} of {} bytes", self.bytes, file.bytes)));
                }
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(error.to_string())),
            };
            if self.bytes + read as u64 > file.bytes {
                context.storage.remove_file(self.path).map_err(Error::from)?;
                return Err(wrong_size("the server sends more".to_string()).into());
            }
            self.out.write_bytes(&block[..read]).map_err(Error::from)?;
            self.digest.update(&block[..read]);
            self.bytes += read as u64;
            gained(self.bytes);
        }
    }

    /// The SHA-256, and the digest to compare, of a file that is on disk.
    fn finish(self) -> Result<(Digest, crate::listing::Announced), Error> {
        self.out.finish()?;
        Ok(self.digest.finish())
    }
}

/// First byte and length of the whole from `bytes 5-9/10` or `bytes 5-9/*`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let first = range.split_once('-')?.0.trim().parse().ok()?;
    match total.trim() {
        "*" => Some((first, None)),
        total => Some((first, Some(total.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for text in ["", "bytes", "bytes */10", "bytes x-9/10", "bytes 5-9/ten", "5-9/10"] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }
}
