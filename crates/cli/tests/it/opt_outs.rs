//! The ledger of opt-outs from the command line, and the settings that choose text in a recipe.

use std::process::Output;

use crate::support::{program, sample};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn requests_are_appended_and_the_ledger_is_proved() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("opt-outs.jsonl");
    let run = |arguments: &[&str]| {
        let mut program = program();
        program.arg("opt-out").arg(arguments[0]).arg("--ledger").arg(&ledger).args(&arguments[1..]);
        program.output().unwrap()
    };
    let poem = folder.path().join("poem.txt");
    std::fs::write(&poem, "Il-baħar kalm, ix-xemx fuqu.").unwrap();
    for what in [["--domain", "site.example"], ["--url", "https://a.example/page"], ["--id", "mt-0007"]] {
        let added = run(&["add", what[0], what[1], "--reference", "letter 12"]);
        assert!(added.status.success(), "{}", said(&added));
    }
    let added =
        run(&["add", "--text", poem.to_str().unwrap(), "--reference", "letter 13", "--reason", "it is hers"]);
    assert!(added.status.success(), "{}", said(&added));
    let lines = std::fs::read_to_string(&ledger).unwrap();
    assert!(lines.lines().all(|line| line.contains("\"previous\"")) && !lines.contains("baħar"), "{lines}");
    let checked = run(&["check", "--json"]);
    let summary: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!((summary["requests"].as_u64(), summary["chained"].as_u64()), (Some(4), Some(4)));

    // The file that the server filters by holds digests of texts that the ledger names, and of no others.
    let (story, file) = (folder.path().join("story.txt"), folder.path().join("passages.bin"));
    std::fs::write(
        &story,
        "Kien hemm darba raġel li kien joqgħod waħdu ħdejn il-baħar u jħares lejn l-ilma.",
    )
    .unwrap();
    let (story, out) = (story.to_str().unwrap(), file.to_str().unwrap());
    let unnamed = run(&["passages", "--out", out, story]);
    assert!(unnamed.status.code() == Some(1) && said(&unnamed).contains("story.txt"), "{}", said(&unnamed));
    assert!(run(&["add", "--text", story, "--reference", "letter 14"]).status.success());
    let made = run(&["passages", "--out", out, story, poem.to_str().unwrap()]);
    assert!(made.status.success(), "{}", said(&made));
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"eulalia passages 1\n") && !bytes.windows(5).any(|window| window == b"darba"));
    let lines = std::fs::read_to_string(&ledger).unwrap();

    assert_eq!(run(&["add", "--domain", "site.example"]).status.code(), Some(2), "a reference is needed");
    assert_eq!(run(&["add", "--reference", "1"]).status.code(), Some(2), "what is left out?");
    let suffix = run(&["add", "--domain", "co.uk", "--reference", "1"]);
    assert!(suffix.status.code() == Some(1) && said(&suffix).contains("co.uk"), "{}", said(&suffix));
    std::fs::write(&ledger, lines.replace("site.example", "other.example")).unwrap();
    let broken = run(&["check"]);
    assert!(broken.status.code() == Some(1) && said(&broken).contains("line 2"), "{}", said(&broken));
}

#[test]
fn a_recipe_chooses_text() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| sample().join(path).display().to_string();
    std::fs::write(folder.path().join("blocked.txt"), "nobody.example\n").unwrap();
    let set = "X'kienet l-ewwel belt li nbniet mill-Kavallieri wara l-Assedju l-Kbir tal-1565?\n";
    std::fs::write(folder.path().join("questions.txt"), set).unwrap();
    let recipe = folder.path().join("recipe.toml");
    let text = format!(
        "format = 1\nname = \"chosen\"\n[corpus]\ndocuments = {:?}\nblocked_domains = \"blocked.txt\"\n\
         decontaminate = \"questions.txt\"\ngood_texts = {:?}\nlanguages = [\"mt\"]\n\
         [corpus.score]\nkeep_share = 0.9\n[corpus.balance]\nchoose = \"score\"\n\
         [[corpus.balance.budgets]]\nlanguage = \"mt\"\namount = 9000\nrepeats = 2\n",
        at("documents/mt.jsonl"),
        at("documents/mt.jsonl"),
    );
    std::fs::write(&recipe, &text).unwrap();
    let run =
        || program().arg("run").arg(&recipe).arg("--output").arg(folder.path().join("run")).output().unwrap();
    let output = run();
    assert!(output.status.success(), "{}", said(&output));
    let statistics = std::fs::read(folder.path().join("run/corpus/payload/statistics.json"))
        .or_else(|_| std::fs::read(folder.path().join("run/corpus/statistics.json")))
        .unwrap();
    let statistics: serde_json::Value = serde_json::from_slice(&statistics).unwrap();
    assert_eq!(statistics["decontamination"]["questions.txt"]["found"], 1);
    assert_eq!(statistics["scores"]["mt"]["histogram"].as_array().unwrap().len(), 20);
    assert!(statistics["balance"]["mt"]["after"]["bytes"].as_u64().unwrap() <= 9000);
    std::fs::write(&recipe, text.replace("amount = 9000", "amount = 0")).unwrap();
    assert!(said(&run()).contains("amount"), "{}", said(&run()));
}
