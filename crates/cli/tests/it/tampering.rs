//! A release with anything altered, added, removed, cut off or linked does not verify, and the fault is named.

use std::fs;
use std::path::{Path, PathBuf};

use provenance::artefact::{self, MANIFEST_FILE, SUMS_FILE};
use provenance::digest::{files_below, join, sha256};
use provenance::record::RECORD_FILE;
use provenance::{Artefact, Storage};

use crate::support::{program, read_recipe, run, world, write_recipe};

fn release() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let recipe = read_recipe(&write_recipe(folder.path(), 4), &[]);
    let root = folder.path().join("run");
    run(&recipe, &root, &world(Storage::disk(), 2)).unwrap();
    // A plain copy, as someone else would have it.
    let copy = folder.path().join("copy");
    copy_folder(&root.join("release"), &copy);
    (folder, copy)
}

fn copy_folder(from: &Path, to: &Path) {
    for relative in files_below(&from.canonicalize().unwrap()).unwrap() {
        let target = join(to, &relative);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(join(from, &relative), target).unwrap();
    }
}

/// The program's verdict: exit code and what it says.
fn verify(folder: &Path) -> (i32, String) {
    let output = program().arg("verify").arg(folder).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn problems(folder: &Path) -> String {
    provenance::verify::verify(folder).unwrap().problems.join("\n")
}

#[test]
fn whatever_is_changed_in_a_release_is_named() {
    let (_folder, release) = release();
    let (code, said) = verify(&release);
    assert_eq!(code, 0, "{said}");

    // One flipped bit, first, middle and last byte, in every file.
    for relative in files_below(&release).unwrap() {
        let path = join(&release, &relative);
        let original = fs::read(&path).unwrap();
        if original.is_empty() {
            continue;
        }
        for place in [0, original.len() / 2, original.len() - 1] {
            for bit in [0x01, 0x20] {
                let mut flipped = original.clone();
                flipped[place] ^= bit;
                fs::write(&path, &flipped).unwrap();
                let found = problems(&release);
                assert!(!found.is_empty(), "{relative}: byte {place}, bit {bit:#x} went unseen");
                if relative != SUMS_FILE {
                    assert!(found.contains(&relative), "{relative} is not named: {found}");
                }
            }
        }
        fs::write(&path, &original[..original.len() / 2]).unwrap();
        assert!(problems(&release).contains(&relative), "{relative} cut off went unseen");
        fs::remove_file(&path).unwrap();
        assert!(problems(&release).contains(&relative), "{relative} removed went unseen");
        fs::write(&path, &original).unwrap();
    }
    assert_eq!(problems(&release), "");

    fs::write(release.join("extra.bin"), "x").unwrap();
    assert!(problems(&release).contains("extra.bin: was added"));
    fs::remove_file(release.join("extra.bin")).unwrap();

    let target = release.join("config.json");
    let kept = release.parent().unwrap().join("kept.json");
    fs::rename(&target, &kept).unwrap();
    std::os::unix::fs::symlink(&kept, &target).unwrap();
    let (code, said) = verify(&release);
    assert!(code == 1 && said.contains("config.json: is a symbolic link"), "{said}");
    fs::remove_file(&target).unwrap();
    fs::rename(&kept, &target).unwrap();
    assert_eq!(verify(&release).0, 0);

    let published = Artefact::open(&release).unwrap().digest().to_string();
    let expecting = |digest: &str| {
        let status =
            program().arg("verify").arg(&release).args(["--expect", digest]).output().unwrap().status;
        status.code().unwrap()
    };
    assert_eq!(expecting(&published), 0);
    assert_eq!(expecting(&sha256(b"another").to_string()), 1);
    assert_eq!(expecting("abc"), 2);
}

#[test]
fn a_line_dropped_from_or_moved_in_the_record_is_found_even_when_the_sums_are_rewritten() {
    let (_folder, release) = release();
    let path = release.join(RECORD_FILE);
    let original = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = original.lines().collect();
    assert!(lines.len() >= 14, "seven stages, at least two lines each");
    let check = |kept: Vec<&str>, what: String| {
        fs::write(&path, kept.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        rewrite_sums(&release);
        let found = problems(&release);
        assert!(found.contains(RECORD_FILE), "{what} went unseen: {found}");
    };
    for dropped in 0..lines.len() {
        let mut kept = lines.clone();
        kept.remove(dropped);
        check(kept, format!("line {} dropped", dropped + 1));
    }
    for moved in 1..lines.len() {
        let mut kept = lines.clone();
        kept.swap(moved - 1, moved);
        check(kept, format!("lines {moved} and {} exchanged", moved + 1));
    }
    // A whole segment, two lines that form a chain of their own.
    check(lines[2..].to_vec(), "the first segment dropped".into());
    fs::write(&path, &original).unwrap();
    rewrite_sums(&release);
    assert_eq!(problems(&release), "");
}

/// What a forger would do: make `SHA256SUMS` agree again.
fn rewrite_sums(release: &Path) {
    let files = files_below(release).unwrap();
    let sums = files
        .into_iter()
        .filter(|path| path != SUMS_FILE)
        .map(|path| {
            let digest = sha256(&fs::read(join(release, &path)).unwrap());
            (path, digest)
        })
        .collect();
    fs::write(release.join(SUMS_FILE), artefact::render_sums(&sums)).unwrap();
    assert!(release.join(MANIFEST_FILE).exists());
}

#[test]
fn an_altered_release_is_not_loaded() {
    let (_folder, release) = release();
    let path = release.join("model.safetensors");
    let mut weights = fs::read(&path).unwrap();
    let last = weights.len() - 1;
    weights[last] ^= 1;
    fs::write(&path, weights).unwrap();
    let chat = |arguments: &[&str]| {
        let mut command = program();
        command.arg("chat").arg(&release).args(arguments).stdin(std::process::Stdio::null());
        command.output().unwrap()
    };
    let refused = chat(&[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("does not verify") && said.contains("--allow-unverified"), "{said}");
    assert!(chat(&["--allow-unverified"]).status.success());
}

#[test]
fn a_server_is_checked_before_it_starts() {
    let (folder, release) = release();
    let state = folder.path().join("state");
    let check_at = |address: &str, arguments: &[&str]| {
        let mut command = program();
        command.arg("serve").arg(&release).args(["--check", "--json", "--listen", address, "--state"]);
        let output = command.arg(&state).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let result: serde_json::Value =
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        let failed: Vec<String> = result["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|check| check["outcome"] == "failed")
            .map(|check| {
                format!("{}: {}", check["check"].as_str().unwrap(), check["found"].as_str().unwrap())
            })
            .collect();
        assert_eq!(result["ok"], failed.is_empty());
        assert_eq!(output.status.code(), Some(i32::from(!failed.is_empty())));
        failed.join("; ")
    };
    let check = |arguments: &[&str]| check_at("127.0.0.1:0", arguments);
    assert_eq!(check(&[]), "");
    assert!(!state.exists(), "a check makes nothing");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert!(check_at(&address, &[]).contains(&address));
    assert!(check(&["--tls-certificate", "none.pem", "--tls-key", "none.pem"]).contains("none.pem"));
    assert!(check_at("0.0.0.0:0", &[]).contains("settings"), "plain http beyond loopback");
    let config = folder.path().join("gateway.toml");
    // Nobody listens on port 1.
    let upstream = "[[upstreams]]\nname = 'gpu'\nurl = 'http://127.0.0.1:1/v1'\nmodels = { far = 'x' }\n";
    fs::write(&config, upstream).unwrap();
    let config = config.to_str().unwrap();
    assert!(check(&["--config", config]).contains("upstream gpu: http://127.0.0.1:1/v1: no connection"));
    assert_eq!(check(&["--config", config, "--offline"]), "");

    fs::write(release.join("model.safetensors"), "altered").unwrap();
    assert!(check(&[]).contains("does not verify"));
    fs::rename(release.join("model.safetensors"), release.join("pytorch_model.bin")).unwrap();
    assert!(check(&["--allow-unverified"]).contains("pytorch_model.bin"));
}
