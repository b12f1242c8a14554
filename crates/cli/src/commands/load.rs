//! Loading a model for `chat` and `serve`: a release is checked before a byte of it is trusted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use provenance::artefact::MANIFEST_FILE;
use provenance::digest::sha256_of_set;
use provenance::signature::{self, Demand, SIGNATURE_FILE, Standing};
use provenance::tree::{Seal, THE_FILE_ITSELF, digest_tree};
use provenance::{Artefact, Digest};

use crate::commands::later::Later;
use crate::run::World;

/// Whether a path is that of a GGUF file.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// A model that may be loaded.
pub struct Checked {
    /// Its folder, or its GGUF file.
    pub folder: PathBuf,
    /// The digest of the release; of another model, where all its files were read, theirs.
    pub digest: Option<String>,
    /// Whether it is a release.
    pub is_release: bool,
    /// The name of the release or of the folder.
    pub name: String,
    /// The adapter inside it, if there is one.
    pub adapter: Option<PathBuf>,
    /// Who vouches for it.
    pub standing: Standing,
    /// How its files stood when they were read, if they were.
    pub seal: Seal,
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

/// Checks a model for this program's own use. A release whose digests, record or signature do not hold is refused unless
/// `allow_unverified`; so is a signed model that is not what was signed.
pub fn check(folder: &Path, allow_unverified: bool, world: &World) -> anyhow::Result<Checked> {
    check_model(folder, allow_unverified, &Demand::default(), false, world)
}

/// The same for a server: all files are read, on the way that the weights will be read, and whoever must have signed them
/// must have.
pub fn check_for_service(
    folder: &Path,
    allow_unverified: bool,
    demand: &Demand<'_>,
    world: &World,
) -> anyhow::Result<Checked> {
    // A link that is set to another folder meanwhile must not lead the engine there.
    let name = name_of(folder)?;
    let resolved = if folder.is_dir() { folder.canonicalize()? } else { folder.to_path_buf() };
    let checked = check_model(&resolved, allow_unverified, demand, true, world)?;
    Ok(Checked { name, ..checked })
}

fn check_model(
    model: &Path,
    allow_unverified: bool,
    demand: &Demand<'_>,
    read_all: bool,
    world: &World,
) -> anyhow::Result<Checked> {
    let is_file = is_gguf(model) && model.is_file();
    if !is_file {
        refuse_pickled(model)?;
    }
    if !is_file && !model.is_dir() {
        bail!(
            "{}: expected the folder of a release or of a model in the Hugging Face layout, or a GGUF file",
            model.display()
        );
    }
    let release = model.join("release");
    if !model.join("config.json").is_file() && release.join("config.json").is_file() {
        bail!("{}: is the folder of a run; the model in it is {}", model.display(), release.display());
    }
    let adapter = model.join("adapter");
    let mut checked = Checked {
        folder: model.to_path_buf(),
        digest: None,
        is_release: model.join(MANIFEST_FILE).is_file(),
        name: name_of(model)?,
        adapter: adapter.join("adapter_config.json").is_file().then_some(adapter),
        standing: Standing::Unsigned,
        seal: Seal::default(),
    };
    let progress = Later::new(world.progress.as_ref());
    let refuse = |problem: String| -> anyhow::Result<()> {
        if !allow_unverified {
            bail!(
                "{problem}; or load it all the same with --allow-unverified (allow_unverified in the settings)"
            );
        }
        world.progress.warn(&problem);
        Ok(())
    };
    let files = if checked.is_release {
        let found = provenance::verify::verify_watched(model, world.threads, &progress)?;
        if let Some(problem) = found.problems.first() {
            let count = crate::console::counted(found.problems.len() as u64, "problem");
            refuse(format!(
                "{} does not verify: {problem} ({count} in all: `eulalia verify`); get it again",
                model.display()
            ))?;
        }
        checked.digest = found.digest.map(|digest| digest.to_string());
        checked.seal = found.seal;
        found.present
    } else if read_all || signature::default_place(model).exists() {
        let tree = digest_tree(model, world.threads, &progress)?;
        if let Some(problem) = tree.problems.first() {
            bail!("{}: {problem}", model.display());
        }
        checked.digest = Some(digest_of(&tree.files));
        checked.seal = tree.seal;
        tree.files
    } else {
        return Ok(checked);
    };
    match signature::judge(model, &files, demand) {
        Ok(standing) => checked.standing = standing,
        Err(error) => refuse(error.to_string())?,
    }
    Ok(checked)
}

/// What names a model that is no release: the digest of its files, or of its one file; a signature does not change it.
fn digest_of(files: &BTreeMap<String, Digest>) -> String {
    if let Some(digest) = files.get(THE_FILE_ITSELF) {
        return digest.to_string();
    }
    let of_model = files.iter().filter(|(path, _)| *path != SIGNATURE_FILE);
    sha256_of_set(of_model.map(|(path, digest)| (path.as_str(), *digest))).to_string()
}

/// What a model is called if nobody says otherwise: a release after the run that holds it (runs/tiny/release is "tiny"), a
/// folder or a file after itself.
pub fn name_of(model: &Path) -> anyhow::Result<String> {
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = if model.is_file() {
        model.file_stem().map(|name| name.to_string_lossy().into_owned())
    } else if Artefact::open(model).is_ok() {
        std::path::absolute(model)?.parent().and_then(last)
    } else {
        model.canonicalize().ok().as_deref().and_then(last)
    };
    Ok(name.filter(|name| !name.is_empty()).unwrap_or_else(|| "model".into()))
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
