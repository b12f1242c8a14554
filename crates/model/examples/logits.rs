//! Prints the logits of a token sequence as JSON, one row a token: for comparing a model folder with other programs.
//!
//! cargo run --release -p model --example logits -- MODEL_FOLDER 1,2,3 [ADAPTER_FOLDER] [--by N]
//!
//! With --by, N tokens at a time over the cache, as a prompt in pieces or an answer is computed; else all at once.

use model::{InferenceModel, LogitRows, SequenceChunk};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let by = match arguments.iter().position(|argument| argument == "--by") {
        Some(place) => Some(arguments.drain(place..).nth(1).ok_or("--by needs a number")?.parse::<usize>()?),
        None => None,
    };
    let [folder, tokens, adapter @ ..] = &arguments[..] else {
        return Err("usage: logits MODEL_FOLDER 1,2,3 [ADAPTER_FOLDER] [--by N]".into());
    };
    let tokens = tokens.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let by = by.unwrap_or(tokens.len());
    if by == 0 {
        return Err("--by 0 would take no token at a time".into());
    }
    let model = InferenceModel::load(Path::new(folder))?;
    let adapter = adapter.first().map(|folder| model.load_adapter(Path::new(folder))).transpose()?;
    let count = tokens.len().div_ceil(model::BLOCK_POSITIONS);
    let blocks: Vec<u32> = (0..count as u32).collect();
    let (mut cache, mut workspace) = (model.new_cache(count), model.new_workspace(tokens.len(), 1));
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for (piece, tokens) in tokens.chunks(by).enumerate() {
        let chunk = SequenceChunk {
            tokens,
            first_position: piece * by,
            blocks: &blocks,
            adapter: adapter.as_ref(),
            logits: LogitRows::All,
            answer: false,
        };
        let logits = model.forward(&[chunk], &mut cache, &mut workspace)?;
        rows.extend(logits.chunks(model.config().vocabulary_size).map(<[f32]>::to_vec));
    }
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}
