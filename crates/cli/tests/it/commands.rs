//! The commands as a user types them: exit codes, standard output, help.

use std::io::Write;
use std::process::{Output, Stdio};

use crate::support::{program, sample, write_recipe};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn json_goes_to_standard_output_and_people_read_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = write_recipe(folder.path(), 4);
    let root = folder.path().join("run");
    let run = |extra: &[&str]| {
        program().arg("run").arg(&recipe).arg("--output").arg(&root).args(extra).output().unwrap()
    };
    let dry = run(&["--dry-run", "--json"]);
    assert!(dry.status.success(), "{}", said(&dry));
    assert!(!root.exists(), "a dry run left something behind");
    let plan: serde_json::Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!(plan["plan"].as_array().unwrap().len(), 7);

    let output = run(&["--json"]);
    assert!(output.status.success(), "{}", said(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["languages"].as_object().unwrap().len(), 3);
    assert!(result["languages"]["mt"]["bits_per_byte"].as_f64().unwrap() > 0.0);
    assert_eq!(result["release_digest"].as_str().unwrap().len(), 64);
    assert!(result["continuations"].as_array().unwrap().iter().any(|words| words["language"] == "mt"));
    for words in ["proves that the pipeline works", "bits/byte", "energy", "eulalia chat", "eulalia verify"] {
        assert!(said(&output).contains(words), "{words:?} is missing in {}", said(&output));
    }
    assert!(!said(&output).contains('\x1b'), "escape codes in a pipe");

    let plain = run(&[]);
    assert!(plain.stdout.is_empty(), "without --json nothing goes to standard output");

    for name in ["corpus", "tokenizer", "pretrain", "evaluate", "adapt", "release"] {
        let output = program().arg("inspect").arg(root.join(name)).arg("--json").output().unwrap();
        assert!(output.status.success(), "{name}: {}", said(&output));
        let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(shown["manifest"]["content"]["name"], name);
    }
    assert!(said(&program().arg("inspect").arg(&root).output().unwrap()).contains("pretrain"));

    let mut chat = program();
    chat.arg("chat").arg(root.join("release")).args(["--max-tokens", "8", "--json"]);
    chat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = chat.spawn().unwrap();
    child.stdin.take().unwrap().write_all("X'inhi l-belt kapitali?\n".as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("tokens/s"), "{}", said(&output));
}

#[test]
fn usage_errors_leave_with_2_and_failures_with_1() {
    for (arguments, code) in [
        (&["nonsense"][..], 2),
        (&["run"], 2),
        (&["verify", "/nonexistent"], 1),
        (&["inspect", "/nonexistent"], 1),
        (&["chat", "/nonexistent"], 1),
        (&["gc", "/nonexistent"], 1),
        (&["corpus", "--output", "/tmp/x"], 2),
        (&["bench", "training", "--config", "XXL"], 2),
        (&["bench", "training", "--optimizer", "sgd"], 2),
        (&["--help"], 0),
        (&["run", "--help"], 0),
        (&["--version"], 0),
    ] {
        let output = program().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(!said(&output).contains("panicked"));
    }
}

#[test]
fn a_run_is_estimated_before_anything_is_spent() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let recipe = write_recipe(folder.path(), 4);
    let output = program()
        .args(["--json", "--rated-watts", "100", "run", "--estimate"])
        .arg(&recipe)
        .arg("--output")
        .arg(&root)
        .output()
        .unwrap();
    assert!(output.status.success() && !root.exists(), "{}", said(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let estimate = &result["estimates"][0];
    assert_eq!(estimate["vocabulary_size"], 300);
    let number = |pointer: &str| estimate.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap();
    assert!(number("/estimate/memory/peak") > 4.0 * number("/estimate/memory/parameters"));
    assert!((number("/energy/joules") / number("/seconds") - 100.0).abs() < 1e-3);

    // A stage alone needs nothing but its settings, and says what it assumes.
    let output = program().args(["pretrain", "--estimate", "--set", "layers=2"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    for words in ["parameters", "activations", "assumed: no tokenizer", "GFLOP/s, measured now", "time here"]
    {
        assert!(said(&output).contains(words), "{words:?} is missing in {}", said(&output));
    }
    for (arguments, words) in [
        (&["pretrain", "--set", "layers=2"][..], "--output"),
        (&["pretrain", "--estimate", "--set", "heads=3"], "heads"),
        (&["corpus", "--estimate"], "--estimate"),
    ] {
        let output = program().args(arguments).output().unwrap();
        assert!(output.status.code() == Some(2) && said(&output).contains(words), "{}", said(&output));
    }
}

#[test]
fn languages_are_identified_line_by_line() {
    let mut child = program()
        .args(["identify", "--lines", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let codes =
        ["bg", "da", "de", "el", "es", "et", "fi", "fr", "ga", "hu", "it", "lt", "lv", "mt", "pl", "sv"];
    let mut lines = String::new();
    for code in codes {
        let text = std::fs::read_to_string(sample().join(format!("parallel/{code}.txt"))).unwrap();
        lines.push_str(&format!("{}\n", text.lines().take(3).collect::<Vec<_>>().join(" ")));
    }
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let found: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["language"].as_str().unwrap().into()
        })
        .collect();
    assert_eq!(found, codes);
}

#[test]
fn what_is_no_text_gets_no_language() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let maltese = std::fs::read_to_string(sample().join("parallel/mt.txt")).unwrap();
    let greek = std::fs::read_to_string(sample().join("parallel/el.txt")).unwrap();
    let zeros = write("zeros", b"\x7fELF\x02\x01\0\0\0this is the text of a program");
    let noise: Vec<u8> =
        (0..4_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8 | 1).collect();
    let noise = write("noise", &noise);
    let stray = write("stray", &[maltese.as_bytes(), b"\xff\xfe\n"].concat());
    let mixed = write("mixed", format!("{maltese}\n{greek}").as_bytes());
    // Longer than one piece of reading.
    let long = write("long", maltese.repeat(2_500_000 / maltese.len()).as_bytes());
    let empty = write("empty", b"");
    let output = program()
        .args(["identify", "--json"])
        .args([&zeros, &noise, &stray, &mixed, &long, &empty])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found: Vec<(&str, bool)> = result["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| (file["language"].as_str().unwrap(), file["binary"] == true))
        .collect();
    let text = |code| (code, false);
    assert_eq!(
        found,
        [("other", true), ("other", true), text("mt"), text(found[3].0), text("mt"), text("other")],
        "{result}"
    );
    let shares = &result["files"][3]["paragraphs"];
    assert!(shares["mt"].as_f64().unwrap() > 0.3 && shares["el"].as_f64().unwrap() > 0.3, "{shares}");

    // One answer a line, whatever the line is.
    let lines =
        write("lines", b"\n\0\0\0\nIl-ktieb qieghed fuq il-mejda u l-qattus qed jorqod.\r\n\xff\xfe\xfd\n12");
    let output = program().args(["identify", "--lines", "--json"]).arg(&lines).output().unwrap();
    let found: Vec<serde_json::Value> =
        said_out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let codes: Vec<&str> = found.iter().map(|line| line["language"].as_str().unwrap()).collect();
    assert_eq!(codes, ["other", "other", "mt", "other", "other"]);
    assert_eq!(found[1]["binary"], true);
    assert_eq!(found[0].as_object().unwrap().len(), 2, "only language and score");

    let output = program().arg("identify").arg(folder.path()).output().unwrap();
    assert!(output.status.code() == Some(1) && said(&output).contains("is a folder"), "{}", said(&output));
}

fn said_out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_stage_runs_alone_on_files_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("mine");
    let texts = sample().join("documents/mt.jsonl");
    let run = |arguments: &[&str]| {
        let output = program().args(arguments).arg("--output").arg(&root).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    };
    let corpus = root.join("corpus").display().to_string();
    run(&["corpus", "--documents", texts.to_str().unwrap(), "--set", "languages=[\"mt\"]"]);
    run(&["tokenizer", "--corpus", &corpus, "--set", "vocabulary_size=280"]);
    assert!(root.join("tokenizer/tokenizer.json").exists());
    let bad = program()
        .args(["tokenizer", "--corpus", &corpus, "--set", "vocabulary_sise=280", "--output"])
        .arg(&root)
        .output()
        .unwrap();
    assert_eq!(bad.status.code(), Some(2));
    assert!(said(&bad).contains("\"vocabulary_size\""), "{}", said(&bad));
}

#[test]
fn a_corpus_can_be_looked_at_and_searched() {
    let folder = tempfile::tempdir().unwrap();
    let eulalia = |arguments: &[&str]| {
        let output = program().args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        output
    };
    let documents = sample().join("documents");
    let languages = "languages=[\"mt\", \"hr\", \"et\"]";
    let documents = documents.to_str().unwrap();
    eulalia(&["corpus", "--documents", documents, "--output", "run", "--set", languages]);
    eulalia(&["corpus", "report", "run/corpus", "--output", "page.html", "--samples", "2"]);
    let page = std::fs::read_to_string(folder.path().join("page.html")).unwrap();
    for shown in ["<td>mt</td>", "near duplicate", "CC0-1.0", "<svg"] {
        assert!(page.contains(shown), "{shown}");
    }
    assert!(!page.contains("<script"));

    let search = |arguments: &[&str]| -> serde_json::Value {
        let all = [&["inspect", "run/corpus", "--json"], arguments].concat();
        serde_json::from_slice(&eulalia(&all).stdout).unwrap()
    };
    let dropped = search(&["--reason", "near_duplicate"]);
    assert!(dropped["all"].as_u64().unwrap() > 0, "{dropped}");
    let of = dropped["found"][0]["record"]["of"].as_str().unwrap();
    let kept = search(&["--id", of]);
    assert_eq!(kept["all"], 1, "what the dropped one repeats is kept: {kept}");
    assert_eq!(search(&["--url", "nowhere.example"])["all"], 0);

    let wrong = program().args(["corpus", "report"]).arg(folder.path()).output().unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    assert!(said(&wrong).contains("no corpus"), "{}", said(&wrong));
}

#[test]
fn an_audit_log_that_nobody_signed_or_somebody_changed_does_not_verify() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    assert!(program().args(["keys", "new", "--state"]).arg(&state).output().unwrap().status.success());
    // What the first start of a server makes.
    serving::AuditKey::read_or_make(&state, &provenance::Storage::disk()).unwrap();
    let log = state.join("audit/audit-000001.jsonl");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    let verify = || program().arg("verify").arg(&state).output().unwrap();
    let line = |sequence: u64, event: &str, previous: &str| {
        let time = "2026-01-02T03:04:05Z";
        let log = if sequence == 1 { "\"log\":\"test\"," } else { "" };
        format!(
            "{{{log}\"sequence\":{sequence},\"time\":\"{time}\",\"event\":\"{event}\",\"previous\":\"{previous}\"}}"
        )
    };
    let first = line(1, "segment_opened", &"0".repeat(64));
    let second = line(2, "server_started", &provenance::digest::sha256(first.as_bytes()).to_string());
    std::fs::write(&log, format!("{first}\n{second}\n")).unwrap();
    let output = verify();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("none of its heads is signed"), "{}", said(&output));
    let changed = first.replace("test", "tampered");
    std::fs::write(&log, format!("{changed}\n{second}\n")).unwrap();
    let output = verify();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("line 2"), "{}", said(&output));
}
