#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code)]
mod targets;

thread_local!(static GROUND: targets::Ground = targets::Ground::new());

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| GROUND.with(|ground| targets::chat_template(ground, bytes)));
