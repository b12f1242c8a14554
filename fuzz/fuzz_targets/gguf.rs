#![no_main]

thread_local!(static GROUND: targets::Ground = targets::Ground::new());

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| GROUND.with(|ground| targets::gguf_file(ground, bytes)));
