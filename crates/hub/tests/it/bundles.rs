//! Bundles: written the same each time, opened by other tools, and not believed.

use std::path::{Path, PathBuf};

use hub::{Error, Source, bundle};
use provenance::Context;
use provenance::digest::{sha256, sha256_file};

/// A folder as a pull leaves it.
fn pulled(folder: &Path) -> PathBuf {
    let model = folder.join("model");
    std::fs::create_dir_all(model.join("additional_chat_templates")).unwrap();
    let files: [(&str, &[u8]); 4] = [
        ("additional_chat_templates/tools.jinja", b"{{ tools }}"),
        ("config.json", b"{}"),
        ("model.safetensors", &[7; 700_000]),
        ("tokenizer.json", b""),
    ];
    let list: Vec<String> = files
        .iter()
        .map(|(path, bytes)| {
            std::fs::write(model.join(path), bytes).unwrap();
            format!(r#"{{"path": "{path}", "bytes": {}, "sha256": "{}"}}"#, bytes.len(), sha256(bytes))
        })
        .collect();
    let json = format!(
        r#"{{"format": 1, "repository": "org/Model", "commit": "{}", "license": "apache-2.0", "license_link": null, "files": [{}]}}"#,
        "a".repeat(40),
        list.join(", ")
    );
    std::fs::write(model.join(hub::SOURCE_FILE), json).unwrap();
    model
}

#[test]
fn a_bundle_carries_a_model_to_another_machine() {
    let folder = tempfile::tempdir().unwrap();
    let model = pulled(folder.path());
    let (one, two) = (folder.path().join("one.tar"), folder.path().join("sub/two.tar"));
    let digest = bundle::write(&model, &one, &Context::quiet(1)).unwrap();
    assert_eq!(bundle::write(&model, &two, &Context::quiet(1)).unwrap(), digest);
    assert_eq!(sha256_file(&one).unwrap(), digest);
    assert_eq!(sha256_file(&two).unwrap(), digest);
    let there = folder.path().join("there");
    let source = bundle::unpack(&one, &there, &Context::quiet(1)).unwrap();
    assert_eq!(Some(&source), Source::of_folder(&model).unwrap().as_ref());
    assert_eq!(
        provenance::digest::files_below(&there).unwrap(),
        provenance::digest::files_below(&model).unwrap()
    );
    for file in &source.files {
        assert_eq!(sha256_file(&there.join(&file.path)).unwrap(), file.sha256);
    }
    // A second time, into what is there.
    bundle::unpack(&one, &there, &Context::quiet(1)).unwrap();
}

#[cfg(unix)]
#[test]
fn other_tools_open_and_check_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let model = pulled(folder.path());
    bundle::write(&model, &folder.path().join("m.tar"), &Context::quiet(1)).unwrap();
    let script = "tar -xf m.tar && cd Model && sha256sum --quiet -c SHA256SUMS && cat BUNDLE.txt";
    let Ok(out) = std::process::Command::new("sh").args(["-c", script]).current_dir(folder.path()).output()
    else {
        return;
    };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).contains("apache-2.0"));
}

#[test]
fn a_model_that_was_changed_is_not_bundled() {
    let folder = tempfile::tempdir().unwrap();
    let model = pulled(folder.path());
    std::fs::write(model.join("config.json"), "[]").unwrap();
    let bundle = folder.path().join("m.tar");
    let error = bundle::write(&model, &bundle, &Context::quiet(1)).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("pull the model again"), "{error}");
    assert!(!bundle.exists());
}

#[test]
fn a_bundle_that_was_cut_or_changed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = pulled(folder.path());
    let good = folder.path().join("good.tar");
    bundle::write(&model, &good, &Context::quiet(1)).unwrap();
    let bytes = std::fs::read(&good).unwrap();
    let bad = folder.path().join("bad.tar");
    let refused = |content: &[u8]| {
        std::fs::write(&bad, content).unwrap();
        let there = tempfile::tempdir().unwrap();
        let error = bundle::unpack(&bad, there.path(), &Context::quiet(1)).unwrap_err();
        assert!(matches!(error, Error::Bundle { .. }), "{error}");
        assert!(!there.path().join(hub::SOURCE_FILE).exists());
    };
    for length in [0, 100, 512, 3_000, bytes.len() / 2, bytes.len() - 1_025] {
        refused(&bytes[..length]);
    }
    let inside = bytes.windows(100).position(|part| part.iter().all(|byte| *byte == 7)).unwrap();
    let mut changed = bytes.clone();
    changed[inside + 1_000] = 8;
    refused(&changed);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let at = text.find("config.json").unwrap();
    let mut hostile = bytes.clone();
    hostile[at..at + 11].copy_from_slice(b"../x/y.json");
    refused(&hostile);
}
