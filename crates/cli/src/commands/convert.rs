//! `eulalia convert`: a model between the Hugging Face layout and GGUF.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use gguf::{Export, Format, TokenizerFiles};
use model::{ModelConfig, ModelError, Tensors, WeightsReader, write_tensors};
use provenance::Cancelled;
use serde_json::{Map, Value, json};

use crate::arguments::ConvertArguments;
use crate::commands::load;
use crate::console;
use crate::errors::Usage;
use crate::run::World;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 20;

pub fn convert(arguments: &ConvertArguments, world: &World) -> anyhow::Result<Value> {
    let ConvertArguments { model, output, format, force, adapter, allow_unverified } = arguments;
    let into_file = load::is_gguf(output);
    let format = match format.as_str() {
        "f16" | "q8_0" | "q4_0" if !into_file => {
            let message = format!(
                "--format {format}: a folder holds f32 or bf16; name the output {}.gguf for a GGUF file",
                output.display()
            );
            return Err(Usage(message).into());
        }
        "f16" => Format::F16,
        "bf16" => Format::Bf16,
        "q8_0" => Format::Q8_0,
        "q4_0" => Format::Q4_0,
        _ => Format::F32,
    };
    check_output(output, *force, into_file)?;
    let model = Opened::open(model, adapter.as_deref(), *allow_unverified, world)?;
    match into_file {
        true => write_gguf(model, output, format, world),
        false => write_folder(model, output, format == Format::Bf16, world),
    }
}

/// Refuses what would destroy something.
fn check_output(output: &Path, force: bool, into_file: bool) -> anyhow::Result<()> {
    if output.symlink_metadata().is_err() {
        return Ok(());
    }
    if !force {
        return Err(Usage(format!("{}: is there already; --force replaces it", output.display())).into());
    }
    if into_file && !output.is_file() {
        return Err(Usage(format!("{}: is no file, so it is not replaced", output.display())).into());
    }
    let is_model = output.is_dir() && output.join("config.json").is_file();
    if !into_file && !is_model {
        let message = format!("{}: is no folder of a model, so it is not replaced", output.display());
        return Err(Usage(message).into());
    }
    Ok(())
}

/// A model that is read, from a folder or a file.
pub struct Opened {
    name: String,
    config: Map<String, Value>,
    tensors: Box<dyn Tensors>,
    tokenizer: Option<TokenizerFiles>,
}

impl Opened {
    /// Opens a release, a folder in the Hugging Face layout or a GGUF file, with an adapter merged into it if one is given.
    pub fn open(
        path: &Path,
        adapter: Option<&Path>,
        allow_unverified: bool,
        world: &World,
    ) -> anyhow::Result<Opened> {
        let opened = Opened::without_adapter(path, adapter.is_some(), allow_unverified, world)?;
        let Some(adapter) = adapter else { return Ok(opened) };
        let config = ModelConfig::from_map(&opened.config, path)?;
        Ok(Opened { tensors: model::with_adapter(&config, opened.tensors, adapter)?, ..opened })
    }

    fn without_adapter(
        path: &Path,
        is_adapted: bool,
        allow_unverified: bool,
        world: &World,
    ) -> anyhow::Result<Opened> {
        if load::is_gguf(path) && path.is_file() {
            let model = gguf::Model::open(path)?;
            let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let (config, tokenizer) = (model.config().clone(), model.tokenizer()?);
            return Ok(Opened { name, config, tensors: Box::new(model), tokenizer });
        }
        let checked = load::check(path, allow_unverified, world)?;
        if let Some(adapter) = checked.adapter.filter(|_| !is_adapted) {
            world.progress.warn(&format!(
                "{}: `chat` and `serve` use this adapter; what is written will be the model without it. To merge it into the \
                 weights: --adapter {}",
                adapter.display(),
                adapter.display()
            ));
        }
        let config_file = checked.folder.join("config.json");
        // Refuses a key that is not understood, which would be lost on the way.
        let understood = ModelConfig::load(&config_file)?;
        let mut config = read_json(&config_file)?.as_object().cloned().unwrap_or_default();
        let tensors = Box::new(WeightsReader::open_folder(&checked.folder)?);
        if model::has_own_output_table(&understood, tensors.as_ref())? {
            config.insert("tie_word_embeddings".into(), json!(false));
        }
        let tokenizer = tokenizer::tokenizer_files(&checked.folder)?;
        Ok(Opened { name: checked.name, config, tensors, tokenizer })
    }
}

fn read_json(path: &Path) -> anyhow::Result<Value> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{}: not valid JSON", path.display()))
}

/// Tensors as the writer of GGUF asks for them.
struct Source<'a>(&'a dyn Tensors);

impl gguf::Source for Source<'_> {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.shape(name)
    }

    fn names(&self) -> Vec<String> {
        self.0.names()
    }

    fn read(&mut self, name: &str, out: &mut [f32]) -> Result<(), gguf::Stop> {
        Ok(self.0.read(name, out)?)
    }
}

/// Writes a GGUF file: aside, synced, then named.
pub fn write_gguf(model: Opened, output: &Path, format: Format, world: &World) -> anyhow::Result<Value> {
    let mut source = Source(model.tensors.as_ref());
    let export = Export::plan(&model.config, model.tokenizer.as_ref(), &mut source, &model.name, format)?;
    if let Some(warning) = &export.warning {
        world.progress.warn(warning);
    }
    if model.tokenizer.is_none() {
        world.progress.warn("the model has no tokenizer.json: the file will hold no tokenizer, and llama.cpp will not open it for text");
    }
    let bytes: u64 = export.tensors().iter().map(gguf::TensorPlan::bytes).sum();
    world.progress.begin("writing", Some(bytes), "bytes");
    let aside = aside(output);
    let mut advance = |bytes| {
        world.progress.advance(bytes);
        Ok(world.cancellation.check()?)
    };
    let written = write_aside(&aside, world, |out| {
        export.write(&mut source, out, &mut advance).map_err(|error| match error {
            gguf::GgufError::Source(cause) => match cause.downcast::<Cancelled>() {
                Ok(cancelled) => anyhow::Error::new(*cancelled),
                Err(cause) => anyhow::Error::from_boxed(cause),
            },
            error => error.into(),
        })
    });
    world.progress.end();
    finish(written, &aside, world)?;
    world.storage.rename(&aside, output)?;
    let size = std::fs::metadata(output)?.len();
    let tensors = export.tensors().len();
    world.console.say(&format!("{}: {tensors} tensors, {}", output.display(), console::bytes(size)));
    Ok(json!({ "output": output.display().to_string(), "tensors": tensors, "bytes": size }))
}

/// Writes a folder in the Hugging Face layout: aside, synced, then named.
fn write_folder(model: Opened, output: &Path, halves: bool, world: &World) -> anyhow::Result<Value> {
    let names = model.tensors.names();
    let count = |name: &String| model.tensors.shape(name).map_or(0, |shape| shape.iter().product::<usize>());
    let bytes = names.iter().map(count).sum::<usize>() as u64 * if halves { 2 } else { 4 };
    let aside = aside(output);
    world.storage.remove_folder(&aside)?;
    world.storage.create_folder(&aside)?;
    world.progress.begin("writing", Some(bytes), "bytes");
    let mut advance = |bytes| {
        world.progress.advance(bytes);
        world.cancellation.check().map_err(Problem::Cancelled)
    };
    let written = write_aside(&aside.join("model.safetensors"), world, |out| {
        write_tensors::<Problem>(out, model.tensors.as_ref(), halves, &mut advance)
            .map_err(anyhow::Error::from)
    });
    world.progress.end();
    let texts = || -> anyhow::Result<()> {
        let mut config = model.config.clone();
        config.insert("dtype".into(), json!(if halves { "bfloat16" } else { "float32" }));
        let token = |key: &str| config.get(key).cloned().unwrap_or(Value::Null);
        let generation = json!({
            "bos_token_id": token("bos_token_id"),
            "eos_token_id": token("eos_token_id"),
            "pad_token_id": token("pad_token_id"),
        });
        write_json(&aside.join("generation_config.json"), &generation, world)?;
        write_json(&aside.join("config.json"), &Value::Object(config), world)?;
        if let Some(TokenizerFiles { tokenizer, config }) = &model.tokenizer {
            write_json(&aside.join("tokenizer.json"), tokenizer, world)?;
            write_json(&aside.join("tokenizer_config.json"), config, world)?;
        }
        Ok(())
    };
    finish(written.and_then(|()| texts()), &aside, world)?;
    if output.symlink_metadata().is_ok() {
        world.storage.remove_folder(output)?;
    }
    world.storage.sync_folder(&aside)?;
    world.storage.rename(&aside, output)?;
    world.console.say(&format!("{}: {} tensors, {}", output.display(), names.len(), console::bytes(bytes)));
    Ok(json!({ "output": output.display().to_string(), "tensors": names.len(), "bytes": bytes }))
}

/// What can stop the writing of tensors.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Cancelled(Cancelled),
    #[error(transparent)]
    Model(#[from] ModelError),
}

fn write_json(path: &Path, value: &Value, world: &World) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(world.storage.write(path, text.as_bytes())?)
}

fn write_aside(
    path: &Path,
    world: &World,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, world.storage.create(path)?);
    write(&mut out)?;
    out.flush()?;
    let Ok(file) = out.into_inner() else { bail!("{}: the last bytes could not be written", path.display()) };
    Ok(file.finish()?)
}

/// After a failure nothing unfinished stays.
fn finish(written: anyhow::Result<()>, aside: &Path, world: &World) -> anyhow::Result<()> {
    written.inspect_err(|_| {
        // The failure itself is what the user has to know.
        let _ = match aside.is_dir() {
            true => world.storage.remove_folder(aside),
            false => world.storage.remove_file(aside),
        };
    })
}

fn aside(output: &Path) -> PathBuf {
    let name = output.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    output.with_file_name(format!(".{name}.partial"))
}
