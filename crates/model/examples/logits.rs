//! Prints the logits of a token sequence as JSON, one row a token: for comparing a model folder with other programs.
//!
//! cargo run --release -p model --example logits -- MODEL_FOLDER 1,2,3 [ADAPTER_FOLDER]

use model::{InferenceModel, LogitRows, SequenceChunk};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, tokens, adapter @ ..] = &arguments[..] else {
        return Err("usage: logits MODEL_FOLDER 1,2,3 [ADAPTER_FOLDER]".into());
    };
    let tokens = tokens.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let model = InferenceModel::load(Path::new(folder))?;
    let adapter = adapter.first().map(|folder| model.load_adapter(Path::new(folder))).transpose()?;
    let count = tokens.len().div_ceil(model::BLOCK_POSITIONS);
    let blocks: Vec<u32> = (0..count as u32).collect();
    let (mut cache, mut workspace) = (model.new_cache(count), model.new_workspace(tokens.len(), 1));
    let chunk = SequenceChunk {
        tokens: &tokens,
        first_position: 0,
        blocks: &blocks,
        adapter: adapter.as_ref(),
        logits: LogitRows::All,
        answer: false,
    };
    let logits = model.forward(&[chunk], &mut cache, &mut workspace)?;
    let rows: Vec<&[f32]> = logits.chunks(model.config().vocabulary_size).collect();
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}
