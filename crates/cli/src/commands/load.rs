//! Loading a model for `chat` and `serve`: a release is checked before a byte of it is trusted.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
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

/// Files that Python's pickle wrote can run code when they are opened; nothing here opens them.
fn refuse_pickled(path: &Path) -> anyhow::Result<()> {
    const PICKLED: [&str; 5] = ["bin", "pt", "pth", "ckpt", "pkl"];
    let is = |path: &Path, ends: &[&str]| {
        let end = path.extension().map(|end| end.to_string_lossy().to_lowercase());
        end.is_some_and(|end| ends.contains(&end.as_str()))
    };
    let files: Vec<PathBuf> = if path.is_dir() {
        let entries = path.read_dir().with_context(|| format!("cannot read {}", path.display()))?;
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    } else {
        vec![path.to_path_buf()]
    };
    let pickled = files.iter().find(|file| is(file, &PICKLED));
    match pickled {
        Some(file) if !files.iter().any(|file| is(file, &["safetensors"])) => bail!(
            "{}: is a pickle, and such files can run code when they are opened: get the model as .safetensors or GGUF",
            file.display()
        ),
        _ => Ok(()),
    }
}

/// Checks a model folder. A release whose digests or record do not hold is refused unless `allow_unverified`.
pub fn check(folder: &Path, allow_unverified: bool, world: &World) -> anyhow::Result<Checked> {
    if is_gguf(folder) && folder.is_file() {
        let name = folder.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(Checked { folder: folder.to_path_buf(), digest: None, name, adapter: None });
    }
    if !folder.is_dir() {
        refuse_pickled(folder)?;
        bail!(
            "{}: expected the folder of a release or of a model in the Hugging Face layout, or a GGUF file",
            folder.display()
        );
    }
    refuse_pickled(folder)?;
    let release = folder.join("release");
    if !folder.join("config.json").is_file() && release.join("config.json").is_file() {
        bail!("{}: is the folder of a run; the model in it is {}", folder.display(), release.display());
    }
    let mut digest = None;
    if folder.join(MANIFEST_FILE).is_file() {
        let found = provenance::verify::verify_watched(folder, world.threads, world.progress.as_ref())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pickled_models_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |files: &[&str], path: &str| {
            for file in files {
                std::fs::write(folder.path().join(file), "").unwrap();
            }
            let refused = refuse_pickled(&folder.path().join(path)).err().map(|error| error.to_string());
            for file in files {
                std::fs::remove_file(folder.path().join(file)).unwrap();
            }
            refused
        };
        for name in ["pytorch_model.bin", "model.PT", "weights.ckpt", "model.pkl"] {
            let said = refused(&["config.json", name], "").unwrap();
            assert!(said.contains(name) && said.contains("safetensors"), "{said}");
            assert!(refused(&[name], name).is_some());
        }
        // Beside weights that can be read, a pickle is just a file that nobody opens.
        assert_eq!(refused(&["model.safetensors", "pytorch_model.bin"], ""), None);
        assert_eq!(refused(&["model.gguf"], "model.gguf"), None);
    }
}
