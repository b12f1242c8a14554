//! `eulalia signing-key` and `eulalia sign`: vouch for a finished release, or for any model, with a key.
//!
//! Nothing that a digest covers changes: the signature is one more file, which lists all the others.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use provenance::artefact::MANIFEST_FILE;
use provenance::signature::{self, PublicKey, SIGNATURE_FILE, Signature, SigningKey};
use provenance::tree::digest_tree;
use serde_json::{Value, json};

use crate::console;
use crate::errors::to_output;
use crate::run::World;

/// Sign a release or a model, so that others can check who vouches for it (OpenSSF Model Signing 1.0).
#[derive(Args)]
pub struct SignArguments {
    /// The folder of a release or of a model in the Hugging Face layout, or a GGUF file
    pub model: PathBuf,
    /// The private key, as `eulalia signing-key new` makes it
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Where to write the signature [default: model.sig in a folder, FILE.sig beside a file]
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// Put the new signature in the place of one that is there
    #[arg(long)]
    pub force: bool,
}

/// Make or show a key that signs releases.
#[derive(Args)]
pub struct SigningKeyArguments {
    #[command(subcommand)]
    pub action: SigningKeyAction,
}

#[derive(clap::Subcommand)]
pub enum SigningKeyAction {
    /// Make a key pair: FILE.pem for you alone, FILE.pub.pem for everyone who checks; nothing is ever overwritten
    New {
        /// Where the private key goes
        #[arg(value_name = "FILE.pem")]
        path: PathBuf,
    },
    /// Print the public key of a private one, and its fingerprint
    Show {
        /// A private or a public key
        #[arg(value_name = "FILE.pem")]
        path: PathBuf,
    },
}

/// The public key goes to standard output, so that it can be kept in a file.
pub fn signing_key(arguments: &SigningKeyArguments, json: bool, world: &World) -> anyhow::Result<Value> {
    match &arguments.action {
        SigningKeyAction::New { path } => {
            let public_path = path.with_extension("pub.pem");
            let key = SigningKey::create(path, &public_path, &world.storage)?;
            let fingerprint = key.public().fingerprint();
            world.console.say(&format!("Private key: {} (keep it to yourself)", path.display()));
            world.console.say(&format!("Public key:  {} (give it to everyone)", public_path.display()));
            world.console.say(&format!("Fingerprint: {fingerprint}"));
            Ok(
                json!({"private_key": path.display().to_string(), "public_key": public_path.display().to_string(), "key": fingerprint}),
            )
        }
        SigningKeyAction::Show { path } => {
            let public = match PublicKey::read(path) {
                Ok(public) => public,
                Err(_) => SigningKey::read(path)?.public(),
            };
            world.console.say(&format!("Fingerprint: {}", public.fingerprint()));
            if !json {
                to_output(write!(std::io::stdout().lock(), "{}", public.pem()))?;
            }
            Ok(json!({"public_key": public.pem(), "key": public.fingerprint()}))
        }
    }
}

pub fn sign(arguments: &SignArguments, world: &World) -> anyhow::Result<Value> {
    let model = &arguments.model;
    let key = SigningKey::read(&arguments.key)?;
    warn_of_open_key(&arguments.key, world);
    let place = arguments.signature.clone().unwrap_or_else(|| signature::default_place(model));
    if !arguments.force && place.symlink_metadata().is_ok() {
        let by = Signature::read(&place).ok();
        let by = by.as_ref().and_then(Signature::stated_key).map(signature::short).unwrap_or("no key");
        bail!("{} is there already, by {by}; --force puts the new signature in its place", place.display());
    }
    let (mut problems, files) = if model.join(MANIFEST_FILE).is_file() {
        let found = provenance::verify::verify_watched(model, world.threads, world.progress.as_ref())?;
        // The signature that was there goes.
        let problems = found.problems.into_iter().filter(|problem| !problem.contains(SIGNATURE_FILE));
        (problems.collect(), found.present)
    } else {
        let tree = digest_tree(model, world.threads, world.progress.as_ref())?;
        (tree.problems, tree.files)
    };
    if model.join(".artefacts").is_dir() {
        problems.push(format!("is the folder of a run; sign its {}", model.join("release").display()));
    }
    if let Some(problem) = problems.first() {
        bail!(
            "{} is not signed, because it is not whole: {problem} ({} in all)",
            model.display(),
            console::counted(problems.len() as u64, "problem")
        );
    }
    let mut files = files;
    if let Some(own) = name_inside(&place, model) {
        files.remove(&own);
    }
    let signed = Signature::new(&name(model)?, &files, &key);
    let signed =
        signed.map_err(|problem| anyhow::anyhow!("{} cannot be signed: {problem}", model.display()))?;
    world.storage.replace(&place, signed.to_json().as_bytes())?;
    let fingerprint = key.public().fingerprint();
    world.console.say(&format!("Signed {} by the key {fingerprint}: {}", model.display(), place.display()));
    Ok(json!({"signature": place, "key": fingerprint}))
}

/// The signature's own name, if it goes into the folder that it signs under another name than usual.
fn name_inside(place: &Path, model: &Path) -> Option<String> {
    let (place, model) = (std::path::absolute(place).ok()?, std::path::absolute(model).ok()?);
    Some(place.strip_prefix(model).ok()?.to_string_lossy().into_owned())
}

/// What the model is called in the signature: the last part of its path. It binds nobody.
fn name(model: &Path) -> anyhow::Result<String> {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(match name(model) {
        Some(name) => name,
        None => name(&model.canonicalize()?).unwrap_or_default(),
    })
}

fn warn_of_open_key(path: &Path, world: &World) {
    use std::os::unix::fs::PermissionsExt;
    if let Ok(metadata) = path.metadata()
        && metadata.permissions().mode() & 0o077 != 0
    {
        let mode = metadata.permissions().mode() & 0o777;
        world.progress.warn(&format!(
            "{}: others may read this private key (mode {mode:04o}); run `chmod 600` on it",
            path.display()
        ));
    }
}
