//! `eulalia quantize`: a model as a GGUF file with weights of 8 or 4 bits.

use serde_json::Value;

use crate::arguments::{ConvertArguments, QuantizeArguments};
use crate::commands::{convert, load};
use crate::errors::Usage;
use crate::run::World;

pub fn quantize(arguments: &QuantizeArguments, world: &World) -> anyhow::Result<Value> {
    let QuantizeArguments { model, output, format, force, adapter, allow_unverified } = arguments.clone();
    if !load::is_gguf(&output) {
        let message = format!(
            "{}: quantised models are written as GGUF; name it so that it ends in .gguf",
            output.display()
        );
        return Err(Usage(message).into());
    }
    convert::convert(&ConvertArguments { model, output, format, force, adapter, allow_unverified }, world)
}
