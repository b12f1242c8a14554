//! The fuzz targets over mutated sound files, a fixed number for each, in a process with little memory. `cargo fuzz` runs the
//! same targets for as long as one likes: docs/reference/fuzzing.md.

use std::process::Command;
use std::time::{Duration, Instant};

#[path = "../../../../fuzz/targets.rs"]
mod targets;

/// Tells the process that it is the one with little memory, and which target it is to run.
const TARGET: &str = "EULALIA_FUZZ_TARGET";
/// More rounds than in a test, or another seed.
const ROUNDS: &str = "EULALIA_FUZZ_ROUNDS";
const SEED: &str = "EULALIA_FUZZ_SEED";
/// A folder for the seeds, for `cargo fuzz`.
const CORPUS: &str = "EULALIA_FUZZ_CORPUS";
/// Address space of that process; the stack on which templates run has 512 MiB of it.
const MEMORY: u64 = 3 << 30;
/// A single input may not take longer, even on a slow machine without optimisation.
const LONGEST: Duration = Duration::from_secs(60);

#[test]
fn mutated_files_end_in_an_error_or_a_result() {
    let program = std::env::current_exe().unwrap();
    for (target, _) in targets::TARGETS {
        let output = Command::new(&program)
            .args(["fuzz::one_target", "--exact", "--nocapture", "--test-threads", "1"])
            .env(TARGET, target)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{target}: {}\n{said}", output.status);
    }
}

/// Runs one target; without its name in the environment there is nothing to do.
#[test]
fn one_target() {
    let Ok(target) = std::env::var(TARGET) else { return };
    let memory = rustix::process::Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    rustix::process::setrlimit(rustix::process::Resource::As, memory).unwrap();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (_, run) = targets::TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let ground = targets::Ground::new();
    let seeds = ground.seeds(&target);
    if let Ok(folder) = std::env::var(CORPUS) {
        let folder = std::path::Path::new(&folder).join(&target);
        std::fs::create_dir_all(&folder).unwrap();
        for (place, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{place}")), seed).unwrap();
        }
    }
    let usual = if target == "chat_template" { 250 } else { 600 };
    let mut chance = Chance(number(SEED).unwrap_or(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    for seed in &seeds {
        run(&ground, seed);
    }
    for round in 0..number(ROUNDS).unwrap_or(usual) {
        let mut bytes = seeds[chance.below(seeds.len())].clone();
        for _ in 0..=chance.below(3) {
            mutate(&mut bytes, &seeds, &mut chance);
        }
        // What a crash leaves behind, so that it can be looked at.
        if number(ROUNDS).is_some() {
            std::fs::write(std::env::temp_dir().join(format!("fuzz-{target}")), &bytes).unwrap();
        }
        let began = Instant::now();
        run(&ground, &bytes);
        assert!(began.elapsed() < LONGEST, "{target}, round {round}: {:?}", began.elapsed());
    }
}

/// Numbers by chance (xorshift), the same in every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }
}

/// Numbers that lengths and offsets lie with.
const LIES: [u64; 12] = [
    0,
    1,
    7,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    1 << 32,
    1 << 40,
    1 << 61,
    1 << 62,
    i64::MAX as u64,
    u64::MAX - 7,
    u64::MAX,
];
/// The same as texts.
const WORDS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "4294967296",
    "18446744073709551615",
    "99999999999999999999999",
    "1e308",
    "0.5",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"x\"",
];

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], chance: &mut Chance) {
    // Headers hold what is believed: they are hit as often as all the rest.
    let reach = if chance.below(2) == 0 { bytes.len().min(2_048) } else { bytes.len() };
    let place = chance.below(reach);
    match chance.below(9) {
        0 if !bytes.is_empty() => bytes[place] ^= 1 << chance.below(8),
        1 => bytes.truncate(place),
        2 => {
            let lie = LIES[chance.below(LIES.len())].wrapping_add(chance.below(3) as u64).wrapping_sub(1);
            let width = [4, 8][chance.below(2)];
            for (byte, value) in bytes[place..].iter_mut().zip(&lie.to_le_bytes()[..width]) {
                *byte = *value;
            }
        }
        3 => {
            let lie = LIES[chance.below(LIES.len())].to_le_bytes();
            for (byte, value) in bytes.iter_mut().zip(lie) {
                *byte = value;
            }
        }
        // A number of a text, or a word, becomes another.
        4 | 5 => {
            let is_digit = |byte: &u8| byte.is_ascii_digit();
            let Some(first) = bytes[place..].iter().take(4_096).position(is_digit) else { return };
            let first = place + first;
            let length = bytes[first..].iter().take_while(|byte| is_digit(byte)).count();
            let word = WORDS[chance.below(WORDS.len())];
            bytes.splice(first..first + length, word.bytes());
        }
        6 => {
            let end = (place + chance.below(64)).min(bytes.len());
            bytes.drain(place..end);
        }
        7 => {
            let end = (place + chance.below(256)).min(bytes.len());
            let again = bytes[place..end].to_vec();
            let to = chance.below(reach);
            bytes.splice(to..to, again);
        }
        _ => {
            let other = &seeds[chance.below(seeds.len())];
            let from = chance.below(other.len());
            let end = (from + chance.below(128)).min(other.len());
            bytes.splice(place..place, other[from..end].iter().copied());
        }
    }
}
