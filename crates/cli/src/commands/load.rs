//! Loading a model for `chat` and `serve`: a release is checked before a byte of it is trusted.

use std::path::{Path, PathBuf};

use anyhow::bail;
use provenance::Artefact;
use provenance::artefact::MANIFEST_FILE;

use crate::run::World;

/// Whether a path is that of a GGUF file.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// A model that may be loaded.
pub struct Checked {
    /// Its folder, or its GGUF file.
    pub folder: PathBuf,
    /// The digest of the release, if it is one.
    pub digest: Option<String>,
    /// The name of the release or of the folder.
    pub name: String,
    /// The adapter inside it, if there is one.
    pub adapter: Option<PathBuf>,
}

/// Checks a model folder. A release whose digests or record do not hold is refused unless `allow_unverified`.
pub fn check(folder: &Path, allow_unverified: bool, world: &World) -> anyhow::Result<Checked> {
    if is_gguf(folder) && folder.is_file() {
        let name = folder.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(Checked { folder: folder.to_path_buf(), digest: None, name, adapter: None });
    }
    if !folder.is_dir() {
        bail!(
            "{}: expected the folder of a release or of a model in the Hugging Face layout, or a GGUF file",
            folder.display()
        );
    }
    let release = folder.join("release");
    if !folder.join("config.json").is_file() && release.join("config.json").is_file() {
        bail!("{}: is the folder of a run; the model in it is {}", folder.display(), release.display());
    }
    let mut digest = None;
    if folder.join(MANIFEST_FILE).is_file() {
        let found = provenance::verify::verify_watched(folder, world.progress.as_ref())?;
        if let Some(problem) = found.problems.first() {
            let problem = format!("{} does not verify: {problem}", folder.display());
            if !allow_unverified {
                bail!(
                    "{problem} ({} in all: `eulalia verify`); get it again, or load it all the same with \
                     --allow-unverified",
                    crate::console::counted(found.problems.len() as u64, "problem")
                );
            }
            world.progress.warn(&problem);
        }
        digest = found.digest.map(|digest| digest.to_string());
    }
    let adapter = folder.join("adapter");
    let absolute = folder.canonicalize()?;
    let name = match Artefact::open(folder) {
        // A release is named after the run that holds it: runs/tiny/release is "tiny".
        Ok(_) => std::path::absolute(folder)?
            .parent()
            .and_then(Path::file_name)
            .map(|name| name.to_string_lossy().into_owned()),
        Err(_) => absolute.file_name().map(|name| name.to_string_lossy().into_owned()),
    };
    Ok(Checked {
        folder: folder.to_path_buf(),
        digest,
        name: name.filter(|name| !name.is_empty()).unwrap_or_else(|| "model".into()),
        adapter: adapter.join("adapter_config.json").is_file().then_some(adapter),
    })
}
