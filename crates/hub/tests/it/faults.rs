//! Hubs that lie, refuse or never end: an error that says what to do, and nothing under a name that is not what it says.

use hub::Error;
use provenance::Context;

use crate::pulls::{hub, plan, pull};
use crate::server::{COMMIT, Model, Reply, Request, Server, sibling};

/// The error of a pull, after which no file of the model has a name.
fn fails(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> String {
    let server = Server::start(answer);
    let folder = tempfile::tempdir().unwrap();
    let error = pull(&server, folder.path()).unwrap_err().to_string();
    assert!(!folder.path().join("model.safetensors").exists(), "{error}");
    error
}

#[test]
fn wrong_bytes_are_thrown_away() {
    let error = fails(|request| {
        let mut reply = Model::usual().answer(request);
        if request.target.starts_with("/storage/") {
            reply.body[12_345] ^= 1;
        }
        reply
    });
    assert!(error.contains("model.safetensors") && error.contains("digest"), "{error}");
}

#[test]
fn wrong_bytes_of_a_small_file_are_noticed_by_its_git_digest() {
    let server = Server::start(|request| {
        let mut reply = Model::usual().answer(request);
        if request.target.ends_with("config.json") {
            reply.body = b"[]".to_vec();
        }
        reply
    });
    let folder = tempfile::tempdir().unwrap();
    let error = pull(&server, folder.path()).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("digest"), "{error}");
    assert!(!folder.path().join("config.json").exists());
}

#[test]
fn sizes_that_are_not_what_was_listed_stop_the_pull() {
    let longer = |request: &Request| match request.target.starts_with("/storage/") {
        true => Reply { body: vec![1; 1_000_001], ..Reply::new("200 OK") },
        false => Model::usual().answer(request),
    };
    let error = fails(longer);
    assert!(error.contains("the server has 1000001 bytes") && error.contains("1000000 bytes"), "{error}");
    let shorter = |request: &Request| match request.target.starts_with("/storage/") {
        true => Reply { body: vec![1; 999], ..Reply::new("200 OK") },
        false => Model::usual().answer(request),
    };
    assert!(fails(shorter).contains("the server has 999 bytes"));
    let another_whole = |request: &Request| {
        let reply = Model::usual().answer(request);
        match (request.target.starts_with("/storage/"), request.range) {
            (true, None) => reply.cut_at(100_000),
            (true, Some(from)) => Reply { body: reply.body, ..Reply::new("206 Partial Content") }
                .with("Content-Range", format!("bytes {from}-2999999/3000000")),
            _ => reply,
        }
    };
    assert!(fails(another_whole).contains("the server has 3000000 bytes"));
}

#[test]
fn a_body_without_end_ends() {
    let error = fails(|request| match request.target.starts_with("/storage/") {
        true => Reply { endless: true, ..Reply::new("200 OK") },
        false => Model::usual().answer(request),
    });
    assert!(error.contains("sends more"), "{error}");
    let error = fails(|_| Reply { endless: true, ..Reply::new("200 OK") });
    assert!(error.contains("longer than"), "{error}");
}

#[test]
fn gated_models_say_where_conditions_are_accepted() {
    let gated = |_: &Request| Reply::new("401 Unauthorized").with("X-Error-Code", "GatedRepo");
    let server = Server::start(gated);
    let error = plan(&hub(&server, None)).err().unwrap().to_string();
    assert!(error.contains(&format!("{}/org/model", server.address())), "{error}");
    assert!(error.contains("/settings/tokens") && error.contains("--token-file"), "{error}");
    let server = Server::start(|_| Reply::new("403 Forbidden").with("X-Error-Code", "GatedRepo"));
    let error = plan(&hub(&server, Some("hf_secret"))).err().unwrap();
    assert!(matches!(error, Error::GatedForToken { .. }), "{error}");
    let server = Server::start(|_| Reply::new("401 Unauthorized"));
    let error = plan(&hub(&server, Some("hf_secret"))).err().unwrap();
    assert!(
        matches!(error, Error::TokenRefused { .. }) && !error.to_string().contains("hf_secret"),
        "{error}"
    );
}

#[test]
fn the_list_may_be_open_and_the_files_gated() {
    let error = fails(|request| match request.is_list() {
        true => Model { gated: "\"auto\"", ..Model::usual() }.answer(request),
        false => Reply::new("401 Unauthorized").with("X-Error-Code", "GatedRepo"),
    });
    assert!(error.contains("is gated"), "{error}");
}

#[test]
fn what_is_not_there_is_named() {
    let error = fails(|_| Reply::new("404 Not Found").with("X-Error-Code", "RevisionNotFound"));
    assert!(error.contains("org/model at revision main is not there"), "{error}");
    let error = fails(|_| Reply::new("401 Unauthorized").with("X-Error-Code", "RepoNotFound"));
    assert!(error.contains("or is private"), "{error}");
    assert!(fails(|_| Reply::new("418 I'm a teapot")).contains("answered 418"));
}

#[test]
fn a_hub_that_stays_broken_is_given_up() {
    let error = fails(|_| Reply::new("502 Bad Gateway"));
    assert!(error.contains("answered 502 (tried 3 times)"), "{error}");
    let error = fails(|_| Reply::new("429 Too Many Requests").with("Retry-After", "86400"));
    assert!(error.contains("too many requests"), "{error}");
    assert!(fails(|_| Reply::new("200 OK").with("Content-Length", "-1")).len() > 10);
    assert!(
        fails(|_| Reply { body: b"<html>maintenance</html>".to_vec(), ..Reply::new("200 OK") })
            .contains("not the JSON")
    );
}

#[test]
fn redirects_end_and_stay_on_the_web() {
    let error = fails(|_| Reply::new("302 Found").with("Location", "/again?signature=secret"));
    assert!(error.contains("redirects") && !error.contains("secret"), "{error}");
    for place in ["file:///etc/passwd", "ftp://127.0.0.1/x", "//", "http://"] {
        let error = fails(move |_| Reply::new("302 Found").with("Location", place));
        assert!(error.contains("redirect"), "{place}: {error}");
    }
}

#[test]
fn names_that_lead_out_of_the_folder_stop_everything() {
    for path in ["../outside.json", "/outside.json", "a/../../outside.json", "a\\outside.json"] {
        let error = fails(move |request| match request.is_list() {
            true => {
                let good = sibling("model.safetensors", &[0; 20_000]);
                let bad = sibling(path, b"{}");
                let json = format!(r#"{{"sha": "{COMMIT}", "siblings": [{good}, {bad}]}}"#);
                Reply { body: json.into_bytes(), ..Reply::new("200 OK") }
            }
            false => Reply { body: b"{}".to_vec(), ..Reply::new("200 OK") },
        });
        assert!(error.contains("file name"), "{path}: {error}");
    }
}

#[test]
fn a_hub_that_answers_with_another_commit_is_refused() {
    let error = fails(|request| {
        let mut reply = Model::usual().answer(request);
        for (name, value) in &mut reply.headers {
            if name == "X-Repo-Commit" {
                *value = "f".repeat(40);
            }
        }
        reply
    });
    assert!(error.contains("instead of 0123"), "{error}");
}

#[test]
fn a_disk_that_is_too_small_is_said_before_anything_is_fetched() {
    let server = Server::start(|request| Model::usual().answer(request));
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(&server, None);
    let plan = plan(&hub).unwrap();
    let path = folder.path().join("model");
    let error = hub::fetch(&hub, &plan, &path, |_| Some(1_000), &Context::quiet(1)).unwrap_err();
    assert!(matches!(error, Error::Space { free: 1_000, .. }), "{error}");
    assert!(!path.exists());
    assert_eq!(server.requests().len(), 1);
}

#[cfg(unix)]
#[test]
fn a_link_in_the_folder_does_not_lead_files_elsewhere() {
    let server = Server::start(|request| {
        let mut model = Model::usual();
        model.files.push(("additional_chat_templates/tools.jinja".into(), b"{{ tools }}".to_vec()));
        model.answer(request)
    });
    let folder = tempfile::tempdir().unwrap();
    let (path, outside) = (folder.path().join("model"), folder.path().join("outside"));
    std::fs::create_dir_all(path.join(".pull")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, path.join("additional_chat_templates")).unwrap();
    let error = pull(&server, &path).unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}
