//! Containers that are cut, twisted and lie: each ends in an error that names what is wrong, within bounded memory.

use gguf::{Array, ElementType, GgufFile, GgufWriter, Model, TensorPlan, Value};
use std::path::PathBuf;

/// A small file with values of every type and three tensors.
pub fn small_file() -> Vec<u8> {
    let metadata: Vec<(String, Value)> = [
        ("general.architecture", Value::String("llama".into())),
        ("a.u8", Value::U8(1)),
        ("a.i8", Value::I8(-1)),
        ("a.u16", Value::U16(2)),
        ("a.i16", Value::I16(-2)),
        ("a.u32", Value::U32(3)),
        ("a.i32", Value::I32(-3)),
        ("a.f32", Value::F32(0.1)),
        ("a.bool", Value::Bool(true)),
        ("a.u64", Value::U64(4)),
        ("a.i64", Value::I64(-4)),
        ("a.f64", Value::F64(0.2)),
        ("a.texts", Value::Array(Array::String(vec!["ħobż".into(), "ψωμί".into(), "".into()]))),
        (
            "a.nested",
            Value::Array(Array::Nested(vec![Array::Bool(vec![true, false]), Array::F32(vec![1.5])])),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec();
    let plan = [
        TensorPlan { name: "one".into(), element: ElementType::F32, shape: vec![2, 3] },
        TensorPlan { name: "two".into(), element: ElementType::Q8_0, shape: vec![1, 32] },
        TensorPlan { name: "three".into(), element: ElementType::Bf16, shape: vec![5] },
    ];
    let mut bytes = Vec::new();
    let mut writer = GgufWriter::begin(&mut bytes, &metadata, &plan).unwrap();
    writer.numbers(&[1.0, 2.0, 3.0]).unwrap();
    writer.numbers(&[4.0, 5.0, 6.0]).unwrap();
    writer.numbers(&[0.5; 32]).unwrap();
    writer.numbers(&[1.0, -1.0, 0.0, 2.0, 4.0]).unwrap();
    writer.finish();
    bytes
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self, bytes: &[u8]) -> Result<GgufFile, gguf::GgufError> {
        std::fs::write(self.path("file.gguf"), bytes).unwrap();
        GgufFile::open(&self.path("file.gguf"))
    }
}

/// Where the bytes of a text stand, its length not counted.
fn find(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap()
}

fn patched(place: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = small_file();
    bytes[place..place + with.len()].copy_from_slice(with);
    bytes
}

#[test]
fn what_is_written_reads_back() {
    let folder = Folder::new();
    let file = folder.open(&small_file()).unwrap();
    assert_eq!(file.metadata()["a.nested"].as_array().unwrap().len(), 2);
    assert_eq!(file.metadata()["a.texts"].as_array().unwrap().as_strings().unwrap()[1], "ψωμί");
    assert_eq!(file.metadata()["a.f32"].as_f64(), Some(0.1));
    assert_eq!(file.tensors()["one"].shape, [2, 3]);
    let mut stored = vec![0; 12];
    file.read_bytes("one", 12, &mut stored).unwrap();
    assert_eq!(stored, [4.0f32, 5.0, 6.0].map(f32::to_le_bytes).concat());
    assert!(file.read_bytes("one", 13, &mut stored).is_err());
    assert!(file.read_bytes("four", 0, &mut stored).is_err());
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let folder = Folder::new();
    let whole = small_file();
    // The last tensor has ten bytes, behind them there is only filling.
    let needed = whole.len() - 22;
    for length in 0..whole.len() {
        let result = folder.open(&whole[..length]);
        assert_eq!(result.is_ok(), length >= needed, "{length} of {}", whole.len());
    }
}

#[test]
fn lies_are_named() {
    let folder = Folder::new();
    let check = |bytes: &[u8], expected: &str| {
        let problem = folder.open(bytes).unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}\n  expected: {expected}");
    };
    let whole = small_file();
    let huge = u64::MAX.to_le_bytes();
    check(b"GGUX", "not a GGUF file");
    check(&patched(4, &1u32.to_le_bytes()), "version 1");
    check(&patched(4, &9u32.to_le_bytes()), "version 9");
    check(&patched(4, &3u32.to_be_bytes()), "big-endian");
    check(&patched(8, &huge), "tensors cannot stand");
    check(&patched(16, &huge), "keys cannot stand");
    check(&patched(24, &huge), "a text of");
    let key = find(&whole, "a.u8");
    check(&patched(key, b"a.i8"), "key a.i8 stands twice");
    check(&patched(key + 4, &77u32.to_le_bytes()), "unknown type 77");
    check(&patched(key, &[0xFF; 4]), "not UTF-8");
    check(&patched(find(&whole, "a.bool") + 10, &[7]), "neither false");
    let texts = find(&whole, "a.texts") + 7 + 4;
    check(&patched(texts + 4, &huge), "an array of");
    check(&patched(texts, &99u32.to_le_bytes()), "unknown type 99");
    let tensor = find(&whole, "one") + 3;
    check(&patched(tensor, &5u32.to_le_bytes()), "5 dimensions");
    check(&patched(tensor + 4, &0u64.to_le_bytes()), "makes no tensor");
    check(&patched(tensor + 4, &(1u64 << 62).to_le_bytes()), "makes no tensor");
    check(&patched(tensor + 12, &(1u64 << 40).to_le_bytes()), "truncated");
    check(&patched(tensor + 20, &10u32.to_le_bytes()), "Q2_K");
    check(&patched(tensor + 20, &8u32.to_le_bytes()), "no whole number of Q8_0's blocks");
    check(&patched(tensor + 24, &huge), "expected a multiple of 32");
    check(&patched(tensor + 24, &(1u64 << 63).to_le_bytes()), "truncated");
    check(&patched(find(&whole, "three") + 5 + 16, &0u64.to_le_bytes()), "tensors one and three overlap");
}

#[test]
fn arrays_do_not_nest_without_end() {
    let folder = Folder::new();
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(b"x");
    bytes.extend(9u32.to_le_bytes());
    for _ in 0..100_000 {
        bytes.extend(9u32.to_le_bytes());
        bytes.extend(1u64.to_le_bytes());
    }
    assert!(folder.open(&bytes).unwrap_err().to_string().contains("deeper than"));
}

/// Bytes changed at random: whatever comes out, it is a file or an error. Whole models are tried too.
#[test]
fn random_damage_never_panics() {
    let folder = Folder::new();
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for whole in [small_file(), crate::models::tiny_llama()] {
        for round in 0..2_000 {
            let mut bytes = whole.clone();
            // Mostly the head, where lies are worth something.
            let reach = if round % 4 == 0 { bytes.len() } else { bytes.len().min(2_048) };
            for _ in 0..1 + random(4) {
                bytes[random(reach)] = [0, 1, 0x7F, 0x80, 0xFF, random(256) as u8][random(6)];
            }
            let _ = folder.open(&bytes);
            if let Ok(model) = Model::open(&folder.path("file.gguf")) {
                let _ = model.tokenizer();
                for name in model.names() {
                    let length: usize = model.shape(name).unwrap().iter().product();
                    let _ = model.read(name, &mut vec![0.0; length]);
                }
            }
        }
    }
}

#[test]
fn parts_of_a_split_model_are_one() {
    let part = |number: u16, count: u16, name: &str, values: &[f32]| {
        let metadata = vec![
            ("split.no".to_owned(), Value::U16(number)),
            ("split.count".to_owned(), Value::U16(count)),
            ("split.tensors.count".to_owned(), Value::I32(2)),
        ];
        let plan = [TensorPlan { name: name.into(), element: ElementType::F32, shape: vec![values.len()] }];
        let mut bytes = Vec::new();
        let mut writer = GgufWriter::begin(&mut bytes, &metadata, &plan).unwrap();
        writer.numbers(values).unwrap();
        writer.finish();
        bytes
    };
    let folder = Folder::new();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path(name), bytes).unwrap();
    let first = folder.path("m-00001-of-00002.gguf");
    write("m-00001-of-00002.gguf", &part(0, 2, "a", &[1.0]));
    assert!(GgufFile::open(&first).unwrap_err().to_string().contains("m-00002-of-00002.gguf"));
    write("m-00002-of-00002.gguf", &part(1, 2, "b", &[2.0, 3.0]));
    let file = GgufFile::open(&first).unwrap();
    let mut stored = [0; 8];
    file.read_bytes("b", 0, &mut stored).unwrap();
    assert_eq!(stored, *[2.0f32, 3.0].map(f32::to_le_bytes).concat());
    let second = GgufFile::open(&folder.path("m-00002-of-00002.gguf")).unwrap_err().to_string();
    assert!(second.contains("give its first part"), "{second}");
    write("m-00002-of-00002.gguf", &part(1, 2, "a", &[2.0]));
    assert!(GgufFile::open(&first).unwrap_err().to_string().contains("described twice"));
    write("m-00002-of-00002.gguf", &part(0, 2, "b", &[2.0]));
    assert!(GgufFile::open(&first).unwrap_err().to_string().contains("part 2 of 2"));
    write("other.gguf", &part(0, 2, "a", &[1.0]));
    assert!(
        GgufFile::open(&folder.path("other.gguf")).unwrap_err().to_string().contains("give it its name back")
    );
}
