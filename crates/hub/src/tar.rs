//! The part of the tar format that bundles need (POSIX.1-2001 ustar, with GNU's binary lengths above 8 GiB): regular files
//! with names and lengths, nothing else. Written without times, owners or order of a file system, so that the same files
//! give the same archive; read as from a stranger.

use std::io::{self, Read, Write};

pub(crate) const BLOCK: usize = 512;
const NAME: std::ops::Range<usize> = 0..100;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const KIND: usize = 156;
const PREFIX: std::ops::Range<usize> = 345..500;
/// The largest length that fits eleven octal digits.
const LARGEST_OCTAL: u64 = (1 << 33) - 1;

/// The header of a file.
///
/// # Errors
/// When the name is too long for the format.
pub(crate) fn header(name: &str, bytes: u64) -> Result<[u8; BLOCK], String> {
    let mut block = [0; BLOCK];
    let (prefix, last) =
        split_name(name).ok_or_else(|| format!("{name} is too long a name for a tar archive"))?;
    block[..last.len()].copy_from_slice(last.as_bytes());
    block[PREFIX.start..PREFIX.start + prefix.len()].copy_from_slice(prefix.as_bytes());
    put(&mut block, 100, b"0000644\0");
    put(&mut block, 108, b"0000000\0");
    put(&mut block, 116, b"0000000\0");
    if bytes <= LARGEST_OCTAL {
        put(&mut block, SIZE.start, format!("{bytes:011o}\0").as_bytes());
    } else {
        block[SIZE.start] = 0x80;
        block[SIZE.end - 8..SIZE.end].copy_from_slice(&bytes.to_be_bytes());
    }
    put(&mut block, 136, b"00000000000\0");
    block[KIND] = b'0';
    put(&mut block, 257, b"ustar\x0000");
    let sum = checksum(&block);
    put(&mut block, CHECKSUM.start, format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// Zeros after the bytes of a file, up to a whole block.
pub(crate) fn padding(bytes: u64) -> usize {
    (BLOCK - (bytes % BLOCK as u64) as usize) % BLOCK
}

/// The end of an archive.
pub(crate) fn write_end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

/// An archive, read from front to back.
pub(crate) struct Archive<R> {
    inner: R,
}

impl<R: Read> Archive<R> {
    pub fn new(inner: R) -> Archive<R> {
        Archive { inner }
    }

    /// Name and length of the next file; its bytes have to be taken with [`Archive::bytes`] before the next call. `None`
    /// at the end.
    pub fn next_file(&mut self) -> Result<Option<(String, u64)>, String> {
        let mut block = [0; BLOCK];
        self.inner.read_exact(&mut block).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "ends too early: it was cut off on the way".to_string(),
            _ => error.to_string(),
        })?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = octal(&block[CHECKSUM]).ok_or("is no tar archive")?;
        if sum != u64::from(checksum(&block)) {
            return Err("is no tar archive, or was changed: a header does not add up".to_string());
        }
        if !matches!(block[KIND], b'0' | 0) {
            return Err("holds something other than regular files, which no bundle does".to_string());
        }
        let bytes = match block[SIZE.start] {
            0x80 => {
                let number = &block[SIZE.end - 8..SIZE.end];
                u64::from_be_bytes(number.try_into().map_err(|_| "a length cannot be read")?)
            }
            _ => octal(&block[SIZE]).ok_or("a length cannot be read")?,
        };
        let text = |field: &[u8]| -> Result<String, String> {
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8(field[..end].to_vec()).map_err(|_| "a name is not UTF-8".to_string())
        };
        let (name, prefix) = (text(&block[NAME])?, text(&block[PREFIX])?);
        Ok(Some((if prefix.is_empty() { name } else { format!("{prefix}/{name}") }, bytes)))
    }

    /// The bytes of a file, in blocks.
    pub fn bytes<E: From<String>>(
        &mut self,
        bytes: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = vec![0; 1 << 18];
        let mut left = bytes;
        while left > 0 {
            let part = left.min(buffer.len() as u64) as usize;
            self.exactly(&mut buffer[..part])?;
            each(&buffer[..part])?;
            left -= part as u64;
        }
        Ok(self.exactly(&mut buffer[..padding(bytes)])?)
    }

    fn exactly(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        self.inner.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "ends too early: it was cut off on the way".to_string(),
            _ => error.to_string(),
        })
    }
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The sum of all bytes, those of the sum itself counted as spaces.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let byte = |(place, byte): (usize, &u8)| if CHECKSUM.contains(&place) { 32 } else { u32::from(*byte) };
    block.iter().enumerate().map(byte).sum()
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(|c| c == '\0' || c == ' ');
    u64::from_str_radix(text, 8).ok()
}

/// Long names are cut at a `/`: the first part goes into a field of its own.
fn split_name(name: &str) -> Option<(&str, &str)> {
    if name.len() <= NAME.len() {
        return Some(("", name));
    }
    name.match_indices('/')
        .map(|(at, _)| (&name[..at], &name[at + 1..]))
        .find(|(prefix, last)| prefix.len() <= PREFIX.len() && last.len() <= NAME.len() && !last.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, bytes) in files {
            out.extend(header(name, bytes.len() as u64).unwrap());
            out.extend(*bytes);
            out.extend(vec![0; padding(bytes.len() as u64)]);
        }
        write_end(&mut out).unwrap();
        out
    }

    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut archive = Archive::new(bytes);
        let mut files = Vec::new();
        while let Some((name, length)) = archive.next_file()? {
            let mut content = Vec::new();
            archive.bytes::<String>(length, |bytes| {
                content.extend(bytes);
                Ok(())
            })?;
            files.push((name, content));
        }
        Ok(files)
    }

    #[test]
    fn what_is_written_is_read() {
        let long = format!("{}/{}.json", "folder".repeat(20), "μ".repeat(40));
        let files = [("a", &b""[..]), ("b/ü", &[7; 513][..]), (long.as_str(), &b"x"[..])];
        let found = read(&archive(&files)).unwrap();
        for ((name, bytes), (found_name, found_bytes)) in files.iter().zip(&found) {
            assert_eq!((*name, *bytes), (found_name.as_str(), found_bytes.as_slice()));
        }
        assert!(header(&"x".repeat(101), 0).is_err());
    }

    #[test]
    fn lengths_above_eight_gibibytes_are_kept() {
        let block = header("a", 20_000_000_000).unwrap();
        let mut archive = Archive::new(&block[..]);
        assert_eq!(archive.next_file().unwrap(), Some(("a".to_string(), 20_000_000_000)));
    }

    #[test]
    fn archives_that_lie_are_refused() {
        let good = archive(&[("a", b"bytes")]);
        for length in [0, 1, 511, 512, 600, 1024, 1025] {
            assert!(read(&good[..length]).is_err(), "cut at {length}");
        }
        for place in [0, 130, 150, 156, 400] {
            let mut changed = good.clone();
            changed[place] ^= 0x55;
            assert!(read(&changed).is_err(), "changed at {place}");
        }
        let mut link = header("a", 0).unwrap();
        link[KIND] = b'2';
        let sum = checksum(&link);
        put(&mut link, CHECKSUM.start, format!("{sum:06o}\0 ").as_bytes());
        assert!(read(&link).unwrap_err().contains("regular files"));
    }
}
