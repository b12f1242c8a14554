//! A server's state and settings before it runs: what the commands around it say of what is missing, wrong or taken.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use model::ModelConfig;
use model::testing::write_random_model;
use serde_json::Value;

use crate::support::program;

fn in_folder(folder: &Path, line: &[&str]) -> Output {
    program().current_dir(folder).args(line).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn says(folder: &Path, line: &[&str], code: i32, words: &[&str]) {
    let output = in_folder(folder, line);
    assert_eq!(output.status.code(), Some(code), "{line:?}: {}", said(&output));
    for word in words {
        assert!(said(&output).contains(word), "{line:?}: {word:?} is missing in {}", said(&output));
    }
}

fn write_model(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    write_random_model(folder, &ModelConfig::tiny_for_tests(260), 1);
    inference::testing::write_byte_tokenizer(folder).unwrap();
}

#[test]
fn who_only_looks_makes_no_state() {
    let folder = tempfile::tempdir().unwrap();
    for line in [
        &["keys", "list"][..],
        &["keys", "revoke", "abc"],
        &["tenants", "list"],
        &["tenants", "set", "library", "limits.answers=1"],
        &["limits", "abc", "answers=1"],
        &["audit", "show"],
        &["usage"],
    ] {
        says(
            folder.path(),
            line,
            2,
            &["no state of a server here", "eulalia keys new --state eulalia-state"],
        );
    }
    assert!(!folder.path().join("eulalia-state").exists());

    says(folder.path(), &["keys", "new"], 0, &["a new one is in", "eulalia-state"]);
    let again = in_folder(folder.path(), &["keys", "new", "--tenant", "library"]);
    assert!(!said(&again).contains("a new one"), "{}", said(&again));
    says(folder.path(), &["usage"], 0, &["no server has used this state yet"]);
    says(folder.path(), &["verify", "eulalia-state"], 2, &["no server has used yet"]);
    says(folder.path(), &["audit", "show"], 1, &["no server has used this state yet"]);
    says(folder.path(), &["usage", "--tenant", "nix"], 2, &["nix", "default, library"]);
}

#[test]
fn what_no_line_of_the_log_can_have_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    says(folder.path(), &["keys", "new", "--tenant", "library"], 0, &[]);
    let log = folder.path().join("eulalia-state/audit");
    std::fs::create_dir(&log).unwrap();
    let tenants = in_folder(folder.path(), &["tenants", "list", "--json"]);
    let tenants: Value = serde_json::from_slice(&tenants.stdout).unwrap();
    let id = tenants["tenants"][0]["id"].as_str().unwrap();
    let line = format!(
        "{{\"sequence\":1,\"time\":\"2026-01-02T03:04:05Z\",\"event\":\"request\",\"tenant\":\"{id}\"}}\n"
    );
    std::fs::write(log.join("audit-000001.jsonl"), line).unwrap();
    let found = |flags: &[&str]| {
        let output = in_folder(folder.path(), &[&["audit", "show", "--json"], flags].concat());
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["found"].as_u64().unwrap()
    };
    assert_eq!(found(&["--tenant", "library", "--event", "request"]), 1, "a name stands for its pseudonym");
    assert_eq!(found(&["--tenant", id]), 1);
    assert_eq!(found(&["--event", "server_started"]), 0);
    says(folder.path(), &["audit", "show", "--event", "reqest"], 2, &["no kind reqest", "request, "]);
    says(folder.path(), &["audit", "show", "--tenant", "nix"], 2, &["nix", "library"]);
}

#[test]
fn a_check_judges_as_the_start_does() {
    let folder = tempfile::tempdir().unwrap();
    write_model(&folder.path().join("toy"));
    says(folder.path(), &["keys", "new"], 0, &[]);
    says(folder.path(), &["serve"], 2, &["--config FILE"]);
    says(
        folder.path(),
        &["serve", "toy", "--memory", "1"],
        2,
        &["--memory 1", "`memory` of the model", "at least"],
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let check = |more: &[&str]| {
        let output = in_folder(
            folder.path(),
            &[&["--json", "serve", "toy", "--check", "--listen", &address], more].concat(),
        );
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        let of = |name: &str| {
            let checks = result["checks"].as_array().unwrap();
            let found = checks.iter().find(|check| check["check"] == name).unwrap();
            (found["outcome"].as_str().unwrap().to_string(), found["found"].as_str().unwrap().to_string())
        };
        (output.status.code(), of("address"), of("model toy"))
    };
    let (code, address_found, model) = check(&[]);
    assert_eq!((code, address_found.0.as_str(), model.0.as_str()), (Some(1), "failed", "ok"));
    assert!(model.1.contains("of cache"), "{model:?}");
    let lock = std::fs::File::create(folder.path().join("eulalia-state/serve.lock")).unwrap();
    lock.lock().unwrap();
    let (code, address_found, _) = check(&[]);
    assert_eq!(code, Some(0), "{address_found:?}");
    assert!(address_found.1.contains("running server"), "{address_found:?}");
    let (code, _, model) = check(&["--memory", "1"]);
    assert!(code == Some(1) && model.0 == "failed" && model.1.contains("--memory 1"), "{model:?}");
}

#[test]
fn a_policy_that_names_what_there_is_not_is_told_by_the_check_and_the_start() {
    let folder = tempfile::tempdir().unwrap();
    write_model(&folder.path().join("toy"));
    let set =
        |changes: &[&str]| in_folder(folder.path(), &[&["tenants", "set", "library"], changes].concat());
    says(folder.path(), &["tenants", "new", "library"], 0, &["library"]);
    let fitting = set(&[r#"models=["toy"]"#]);
    assert!(said(&fitting).contains("models that it names was not checked"), "{}", said(&fitting));
    assert!(!said(&set(&["limits.answers=4"])).contains("filters"));
    for list in ["models=toy", "models=[toy]"] {
        let refused = set(&[list]);
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        assert!(said(&refused).contains(r#"'models=["toy"]'"#), "{}", said(&refused));
    }
    let check = || {
        let line = ["--json", "serve", "assistant=toy", "toy", "--check", "--listen", "127.0.0.1:0"];
        let output = in_folder(folder.path(), &line);
        assert!(output.status.success(), "{}", said(&output));
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        let of_tenants = |check: &&Value| check["check"] == "tenants";
        let checks = result["checks"].as_array().unwrap();
        assert!(checks.iter().any(|check| check["check"] == "model assistant"), "{result}");
        checks.iter().filter(of_tenants).cloned().collect::<Vec<Value>>()
    };
    let found = check();
    assert_eq!((found.len(), &found[0]["outcome"]), (1, &Value::from("ok")), "{found:?}");
    set(&[r#"models=["assistant", "helper"]"#, "filters=strict"]);
    let found: Vec<String> = check().iter().map(Value::to_string).collect();
    assert!(
        found.len() == 2 && found.iter().all(|check| check.contains("warning") && check.contains("library"))
    );
    assert!(found[0].contains("`helper`") && found[0].contains("assistant, toy"), "{found:?}");
    assert!(found[1].contains("`strict`") && found[1].contains("[filters.chains]"), "{found:?}");

    // The start says it too, and once that nobody has a key.
    let mut child = program()
        .current_dir(folder.path())
        .args(["serve", "toy", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let started: Vec<String> =
        lines.by_ref().map_while(Result::ok).take_while(|line| !line.contains("Ctrl-C or SIGTERM")).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let with = |word: &str| started.iter().filter(|line| line.contains(word)).count();
    assert_eq!(with("eulalia keys new"), 1, "{started:?}");
    assert!(with("helper") == 1 && with("strict") == 1 && with("assistant") == 1, "{started:?}");
}

#[test]
fn a_signal_ends_what_writes_nothing_at_once() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let mut child = program()
        .arg("score")
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It answers a line, and then waits for the next one, which never comes.
    let mut input = child.stdin.take().unwrap();
    input.write_all("Dia duit\n".as_bytes()).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(
        said(&output).contains("stopped on request") && !said(&output).contains("go on"),
        "{}",
        said(&output)
    );
    drop(input);
}

#[test]
fn a_path_that_is_not_there_is_no_name_of_the_catalogue() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["models/nope", "nope.gguf", "nope.safetensors"] {
        says(folder.path(), &["doctor", path], 2, &["there is no such file or folder"]);
    }
}
