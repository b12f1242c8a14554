//! Prefill and decode of a GGUF file in candle's quantised Llama:
//!
//!     candle-bench FILE PROMPT ANSWER DEPTH THREADS
//!
//! prints tokens per second of both as a JSON array, medians of three after one run that does not count.

use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().collect();
    anyhow::ensure!(words.len() == 6, "usage: candle-bench FILE PROMPT ANSWER DEPTH THREADS");
    let numbers: Vec<usize> = words[2..].iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
    let [prompt, answer, depth, threads] = numbers[..] else { unreachable!("four numbers were read") };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let mut file = std::fs::File::open(&words[1])?;
    let content = Content::read(&mut file)?;
    let mut model = ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
    let mut read = |tokens: usize, first: usize| -> anyhow::Result<f64> {
        let ids: Vec<u32> = (0..tokens).map(|i| (i * 7919 % 250 + 2) as u32).collect();
        let began = Instant::now();
        let logits = model.forward(&Tensor::new(&ids[..], &Device::Cpu)?.unsqueeze(0)?, first)?;
        // The last number is waited for.
        let _: f32 = logits.flatten_all()?.get(0)?.to_scalar()?;
        Ok(began.elapsed().as_secs_f64())
    };
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for round in 0..4 {
        let seconds = read(prompt, 0)?;
        // Position 0 begins a new text; a depth is read in one go.
        read(depth.max(1), 0)?;
        let mut written = 0.0;
        for step in 0..answer {
            written += read(1, depth.max(1) + step)?;
        }
        if round > 0 {
            prefill.push(prompt as f64 / seconds);
            decode.push(answer as f64 / written);
        }
    }
    println!("[{}, {}]", median(prefill), median(decode));
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
