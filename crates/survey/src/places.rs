//! The files of a corpus, and the site that an address belongs to.

use std::path::{Path, PathBuf};

use crate::Error;

/// A shard, and which part of the corpus it is in.
pub struct Shard {
    pub path: PathBuf,
    /// `train`, `heldout` or `dropped`.
    pub part: &'static str,
    /// Path within the corpus, parts joined by `/`.
    pub name: String,
}

const PARTS: [&str; 3] = ["train", "heldout", "dropped"];

/// All shards of a corpus in the order of parts and names.
pub fn shards(folder: &Path) -> Result<Vec<Shard>, Error> {
    if !folder.join("statistics.json").is_file() || !folder.join("train").is_dir() {
        return Err(Error::NotACorpus { path: folder.to_path_buf() });
    }
    let mut shards = Vec::new();
    for part in PARTS {
        let inside = folder.join(part);
        if !inside.is_dir() {
            continue;
        }
        let read_error = |source| Error::Read { path: inside.clone(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&inside).map_err(read_error)? {
            let name = entry.map_err(read_error)?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".jsonl.zst") {
                names.push(name);
            }
        }
        names.sort();
        shards.extend(names.into_iter().map(|name| Shard {
            path: inside.join(&name),
            part,
            name: format!("{part}/{name}"),
        }));
    }
    Ok(shards)
}

/// Host of an address, lower case, without user, port and a leading `www.`; nothing where there is none.
pub fn site(url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None => host.split(':').next()?,
    };
    let host = host.trim_end_matches('.').to_lowercase();
    let host = host.strip_prefix("www.").unwrap_or(&host);
    (!host.is_empty()).then(|| host.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_site_is_the_host() {
        for (url, expected) in [
            ("https://www.Example.org/a?b#c", Some("example.org")),
            ("http://user:pass@news.example.mt:8080", Some("news.example.mt")),
            ("https://[2001:db8::1]:443/x", Some("2001:db8::1")),
            ("https://παράδειγμα.example./", Some("παράδειγμα.example")),
            ("mailto:someone", None),
            ("https:///x", None),
            ("", None),
        ] {
            assert_eq!(site(url).as_deref(), expected, "{url}");
        }
    }
}
