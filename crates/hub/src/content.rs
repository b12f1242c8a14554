//! What the bytes of a file turn out to be, computed while they pass.

use provenance::Digest;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::listing::Announced;

/// SHA-256 of a file, and git's digest of it where that is what was announced.
pub(crate) struct ContentDigest {
    sha256: Sha256,
    git: Option<Sha1>,
}

impl ContentDigest {
    /// For a file of `bytes` bytes of which `announced` is known.
    pub fn new(announced: &Announced, bytes: u64) -> ContentDigest {
        let git = matches!(announced, Announced::GitBlob(_)).then(|| {
            let mut git = Sha1::new();
            git.update(format!("blob {bytes}\0"));
            git
        });
        ContentDigest { sha256: Sha256::new(), git }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
    }

    /// The SHA-256, and the digest to compare with what was announced.
    pub fn finish(self) -> (Digest, Announced) {
        let sha256 = Digest(self.sha256.finalize().into());
        let found = match self.git {
            Some(git) => Announced::GitBlob(git.finalize().into()),
            None => Announced::Sha256(sha256),
        };
        (sha256, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_names_a_blob_as_git_does() {
        // `printf 'Dia dhuit\n' | git hash-object --stdin`
        let mut digest = ContentDigest::new(&Announced::GitBlob([0; 20]), 10);
        digest.update(b"Dia dhuit\n");
        assert_eq!(digest.finish().1.to_string(), "74f2250349459e1113538e20c828737302ffd056");
    }
}
