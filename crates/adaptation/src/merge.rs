//! An adapter added to its model: one full model, for programs that know no adapters.

use crate::Error;
use model::{Adapter, Decoder, ModelConfig, load_parameters, write_safetensors};
use provenance::Context;
use std::io::BufWriter;
use std::path::Path;

/// Writes the merged model into `output` (which exists): weights, and the model's configuration and tokenizer as they are.
///
/// # Errors
/// When model or adapter cannot be read or do not belong together; storage.
pub fn merge(
    model_folder: &Path,
    adapter_folder: &Path,
    output: &Path,
    context: &Context,
) -> Result<(), Error> {
    let config = ModelConfig::load(&model_folder.join("config.json"))?;
    let adapter = Adapter::load(&config, adapter_folder)?;
    let mut values = load_parameters(&config, model_folder)?;
    adapter.merge_into(&config, &mut values);
    let path = output.join("model.safetensors");
    let failed = |source| Error::Write { path: path.clone(), source };
    let mut writer = BufWriter::with_capacity(1 << 18, context.storage.create(&path)?);
    let decoder = Decoder::new(&config, 1)?;
    write_safetensors(&mut writer, decoder.table(), &values).map_err(failed)?;
    writer.into_inner().map_err(|error| failed(error.into_error()))?.finish()?;
    for name in [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ] {
        let from = model_folder.join(name);
        if from.exists() {
            let bytes = std::fs::read(&from).map_err(|source| Error::Read { path: from, source })?;
            context.storage.write(&output.join(name), &bytes)?;
        }
    }
    Ok(())
}
