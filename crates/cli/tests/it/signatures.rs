//! Releases and models are signed and checked, and a server takes none that is not what a trusted key signed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use model::ModelConfig;
use model::testing::write_random_model;
use provenance::Storage;
use provenance::digest::{files_below, join};
use serde_json::Value;

use crate::support::{program, read_recipe, run, world, write_shortest_recipe};

struct House {
    folder: tempfile::TempDir,
}

impl House {
    /// Two keys, a model in the Hugging Face layout, and its one-file form.
    fn new() -> House {
        let house = House { folder: tempfile::tempdir().unwrap() };
        for key in ["ours", "theirs"] {
            house.call(&["signing-key", "new", &format!("{key}.pem")], 0);
        }
        house.write_model("model", 1);
        house
    }

    fn write_model(&self, name: &str, seed: u64) {
        let model = self.path(name);
        fs::create_dir(&model).unwrap();
        write_random_model(&model, &ModelConfig::tiny_for_tests(260), seed);
        inference::testing::write_byte_tokenizer(&model).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a call says on standard error.
    fn call(&self, words: &[&str], code: i32) -> String {
        let output = program().current_dir(self.folder.path()).args(words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        said
    }

    /// What stops a server, which has not listened; also asked with `--check`.
    fn refused(&self, words: &[&str]) -> String {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--state", "state"];
        let said = self.call(&[&serve, words].concat(), 1);
        assert!(!said.contains("Serving"), "{said}");
        let checked = self.call(&[&serve, words, &["--check"]].concat(), 1);
        assert!(checked.contains("FAILED"), "{checked}");
        said
    }

    /// What a server says until it serves.
    fn served(&self, words: &[&str]) -> String {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--state", "state"];
        self.call(&[&serve, words, &["--check"]].concat(), 0);
        let mut child = program()
            .current_dir(self.folder.path())
            .args(serve)
            .args(words)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            let line = line.unwrap();
            said.push_str(&line);
            said.push('\n');
            if line.contains("Serving") {
                break;
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        assert!(said.contains("Serving"), "{said}");
        said
    }
}

#[test]
fn a_release_is_signed_without_changing_it() {
    let house = House::new();
    let recipe = read_recipe(&write_shortest_recipe(house.folder.path()), &[]);
    let root = house.path("run");
    run(&recipe, &root, &world(Storage::disk(), 2)).unwrap();
    let release = root.join("release");
    let before = files_below(&release.canonicalize().unwrap()).unwrap();
    let digest = |said: &str| {
        let (_, digest) = said.split_once("digest ").unwrap();
        digest.lines().next().unwrap().to_string()
    };
    let said = house.call(&["verify", "run/release"], 0);
    assert!(said.contains("not signed"), "{said}");
    let unsigned = digest(&said);

    house.call(&["sign", "run/release", "--key", "ours.pem"], 0);
    let said = house.call(&["verify", "run/release"], 0);
    assert!(said.contains("not checked against a key"), "{said}");
    assert_eq!(digest(&said), unsigned);
    let said = house.call(&["verify", "run/release", "--public-key", "ours.pub.pem"], 0);
    assert!(said.contains("signed by the key"), "{said}");
    let said = house.call(&["verify", "run/release", "--public-key", "theirs.pub.pem"], 1);
    assert!(said.contains("none of the trusted ones"), "{said}");
    let after = files_below(&release.canonicalize().unwrap()).unwrap();
    let added: Vec<&String> = after.iter().filter(|file| !before.contains(file)).collect();
    assert_eq!(added, ["model.sig"]);
    // The artefact is the same: the run finds it made, and signing again is refused unless asked for.
    assert!(run(&recipe, &root, &world(Storage::disk(), 2)).is_ok());
    let said = house.call(&["sign", "run/release", "--key", "theirs.pem"], 1);
    assert!(said.contains("--force"), "{said}");
    house.call(&["sign", "run/release", "--key", "theirs.pem", "--force"], 0);
    house.call(&["verify", "run/release", "--public-key", "theirs.pub.pem"], 0);

    // Each file of it, and the signature itself.
    let copy = house.path("copy");
    for file in &after {
        fs::create_dir_all(join(&copy, file).parent().unwrap()).unwrap();
        fs::copy(join(&release, file), join(&copy, file)).unwrap();
    }
    house.call(&["verify", "copy", "--public-key", "theirs.pub.pem"], 0);
    let verify = || provenance::verify::verify(&copy).unwrap().problems.join("\n");
    for file in &after {
        let original = fs::read(join(&copy, file)).unwrap();
        let mut altered = original.clone();
        let middle = altered.len() / 2;
        if let Some(byte) = altered.get_mut(middle) {
            *byte ^= 1;
            fs::write(join(&copy, file), altered).unwrap();
            assert!(verify().contains(file), "{file}");
            fs::write(join(&copy, file), original).unwrap();
        }
    }
    // Whoever rewrites sums, manifest and record cannot rewrite the signature: its list stays.
    assert_eq!(verify(), "");
    fs::write(copy.join("model.sig"), "{}").unwrap();
    let said = house.call(&["verify", "copy"], 1);
    assert!(said.contains("model.sig") && said.contains("no signature"), "{said}");
    // What is not whole is not signed.
    fs::remove_file(copy.join("model.sig")).unwrap();
    fs::write(copy.join("config.json"), "{}").unwrap();
    let said = house.call(&["sign", "copy", "--key", "ours.pem"], 1);
    assert!(said.contains("not whole") && !copy.join("model.sig").exists(), "{said}");
    // The server: the release by its own key, and not once a byte is another.
    let said = house.served(&["r=run/release", "--trust-key", "theirs.pub.pem"]);
    assert!(said.contains("r is signed by the key"), "{said}");
    assert!(house.refused(&["r=copy"]).contains("does not verify"));
}

#[test]
fn a_server_takes_what_a_trusted_key_signed_and_nothing_else() {
    let house = House::new();
    let trusted = ["m=model", "--trust-key", "ours.pub.pem"];
    // Newcomers: no key is named, the model is, and the log says so.
    let said = house.served(&["m=model"]);
    assert!(said.contains("m is not signed"), "{said}");
    let said = house.refused(&trusted);
    assert!(said.contains("is not signed") && said.contains("model.sig"), "{said}");
    let said = house.served(&[&trusted[..], &["--allow-unsigned", "m"]].concat());
    assert!(said.contains("m is not signed"), "{said}");
    let said = house.call(&[&["serve"], &trusted[..], &["--allow-unsigned", "n"]].concat(), 2);
    assert!(said.contains("no model is called n"), "{said}");

    house.call(&["sign", "model", "--key", "ours.pem"], 0);
    let said = house.served(&trusted);
    assert!(said.contains("m is signed by the key"), "{said}");
    assert!(house.served(&["m=model"]).contains("none that this server trusts"));
    let said = house.refused(&["m=model", "--trust-key", "theirs.pub.pem"]);
    assert!(said.contains("none of the trusted ones"), "{said}");
    house.served(&[&trusted[..], &["--trust-key", "theirs.pub.pem"]].concat());
    let said = house.call(&["serve", "m=model", "--trust-key", "ours.pem"], 1);
    assert!(said.contains("ours.pem: expected a public key"), "{said}");

    let model = house.path("model");
    let attack = |act: &dyn Fn(), expected: &[&str]| {
        let kept: Vec<(PathBuf, Vec<u8>)> = files_below(&model)
            .unwrap()
            .into_iter()
            .map(|file| (join(&model, &file), fs::read(join(&model, &file)).unwrap()))
            .collect();
        act();
        let said = house.refused(&trusted);
        for expected in expected {
            assert!(said.contains(expected), "expected {expected:?}: {said}");
        }
        fs::remove_dir_all(&model).unwrap();
        fs::create_dir(&model).unwrap();
        for (path, bytes) in kept {
            fs::write(path, bytes).unwrap();
        }
    };
    let flip = |file: &str, from_end: usize| {
        let path = model.join(file);
        let mut bytes = fs::read(&path).unwrap();
        let place = bytes.len() - from_end;
        bytes[place] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    attack(&|| flip("model.safetensors", 1), &["model.safetensors was altered", "get it again"]);
    // The last bytes of the bundle: `…","keyid":""}]}}`.
    attack(&|| flip("model.sig", 40), &["model.sig"]);
    attack(
        &|| {
            fs::rename(model.join("config.json"), model.join("x")).unwrap();
            fs::rename(model.join("tokenizer.json"), model.join("config.json")).unwrap();
            fs::rename(model.join("x"), model.join("tokenizer.json")).unwrap();
        },
        &["config.json was altered"],
    );
    attack(
        &|| fs::write(model.join("chat_template.jinja"), "x").unwrap(),
        &["chat_template.jinja was added"],
    );
    attack(&|| fs::remove_file(model.join("tokenizer.json")).unwrap(), &["tokenizer.json is missing"]);
    attack(
        &|| {
            house.write_model("other", 2);
            house.call(&["sign", "other", "--key", "ours.pem"], 0);
            fs::copy(house.path("other/model.sig"), model.join("model.sig")).unwrap();
        },
        &["model.safetensors was altered"],
    );
    attack(
        &|| {
            let text = fs::read_to_string(model.join("model.sig")).unwrap();
            fs::write(model.join("model.sig"), &text[..text.len() / 2]).unwrap();
        },
        &["model.sig: is no signature"],
    );
    attack(&|| fs::write(model.join("model.sig"), vec![b' '; 17 << 20]).unwrap(), &["more than 16 MiB"]);
    attack(
        &|| {
            fs::rename(model.join("model.safetensors"), house.path("elsewhere")).unwrap();
            std::os::unix::fs::symlink("../elsewhere", model.join("model.safetensors")).unwrap();
        },
        &["model.safetensors: is a symbolic link"],
    );
    attack(&|| fs::remove_file(model.join("model.sig")).unwrap(), &["is not signed"]);
    house.served(&trusted);

    // Without a key named, what was altered is refused all the same; named as unverified, it is loaded.
    fs::write(model.join("generation_config.json"), "{}").unwrap();
    assert!(house.refused(&["m=model"]).contains("was added"));
    let said = house.call(&["chat", "model"], 1);
    assert!(said.contains("was added") && said.contains("--allow-unverified"), "{said}");
    house.served(&["m=model", "--allow-unverified"]);
}

#[test]
fn settings_name_keys_and_signatures_of_single_models() {
    let house = House::new();
    house.call(&["convert", "model", "m.gguf"], 0);
    house.call(&["sign", "m.gguf", "--key", "theirs.pem"], 0);
    assert!(house.path("m.gguf.sig").is_file());
    let settings = |models: &str| {
        let text = format!("state = 'state'\n{models}\n[signatures]\ntrusted_keys = ['ours.pub.pem']\n");
        fs::write(house.path("gateway.toml"), text).unwrap();
        ["--config", "gateway.toml"]
    };
    let said = house.refused(&settings("[[models]]\npath = 'm.gguf'"));
    assert!(said.contains("m.gguf.sig") && said.contains("none of the trusted ones"), "{said}");
    house.served(&settings("[[models]]\npath = 'm.gguf'\npublic_key = 'theirs.pub.pem'"));
    house.served(&settings("[[models]]\npath = 'm.gguf'\nallow_unsigned = true"));
    fs::rename(house.path("m.gguf.sig"), house.path("kept.sig")).unwrap();
    house.served(&settings(
        "[[models]]\npath = 'm.gguf'\npublic_key = 'theirs.pub.pem'\nsignature = 'kept.sig'",
    ));
    let said = house
        .refused(&settings("[[models]]\npath = 'm.gguf'\nsignature = 'none.sig'\nallow_unsigned = true"));
    assert!(said.contains("none.sig"), "{said}");
    // One file among several that were signed together.
    house.write_model("folder", 3);
    fs::rename(house.path("m.gguf"), house.path("folder/m.gguf")).unwrap();
    house.call(&["sign", "folder", "--key", "ours.pem"], 0);
    let model = "[[models]]\npath = 'folder/m.gguf'\nsignature = 'folder/model.sig'";
    house.served(&settings(model));
    let mut bytes = fs::read(house.path("folder/m.gguf")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(house.path("folder/m.gguf"), bytes).unwrap();
    assert!(house.refused(&settings(model)).contains("m.gguf was altered"));

    let shown = program()
        .current_dir(house.folder.path())
        .args(["--json", "signing-key", "show", "ours.pem"])
        .output();
    let shown: Value = serde_json::from_slice(&shown.unwrap().stdout).unwrap();
    let public = fs::read_to_string(house.path("ours.pub.pem")).unwrap();
    assert_eq!(shown["public_key"].as_str(), Some(public.as_str()));
    assert_eq!(shown["key"].as_str().unwrap().len(), 64);
}
