//! Pulls that succeed, whatever happens on the way.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hub::{Address, Error, Hub, HubSettings, Plan, Pulled, SOURCE_FILE, Source};
use provenance::{Cancellation, Context, Storage};

use crate::server::{COMMIT, Model, Reply, Request, Server};

pub fn hub(server: &Server, token: Option<&str>) -> Hub {
    Hub::new(HubSettings {
        endpoint: server.address(),
        token: token.map(str::to_string),
        silence: Duration::from_secs(5),
        attempts: 4,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_secs(2),
    })
    .unwrap()
}

pub fn plan(hub: &Hub) -> Result<Plan, Error> {
    hub::plan(hub, &Address::parse("hf:org/model").unwrap(), &[], &Cancellation::default())
}

pub fn pull(server: &Server, folder: &Path) -> Result<Pulled, Error> {
    let hub = hub(server, None);
    hub::fetch(&hub, &plan(&hub)?, folder, |_| None, &Context::quiet(1))
}

/// Every file that is wanted stands as the hub holds it, and nothing else.
pub fn assert_whole(folder: &Path, model: &Model) {
    let mut found = provenance::digest::files_below(folder).unwrap();
    found.retain(|path| path != SOURCE_FILE);
    assert_eq!(found, ["README.md", "config.json", "model.safetensors", "tokenizer.json"]);
    for path in found {
        assert!(std::fs::read(folder.join(&path)).unwrap() == model.bytes(&path), "{path}");
    }
}

fn requests_for(server: &Server, part: &str) -> Vec<Request> {
    server.requests().into_iter().filter(|request| request.target.contains(part)).collect()
}

#[test]
fn a_model_arrives_with_its_source_and_a_second_pull_fetches_nothing() {
    let model = Model::usual();
    let server = Server::start(move |request| Model::usual().answer(request));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("models/model");
    let pulled = pull(&server, &path).unwrap();
    assert_eq!((pulled.fetched, pulled.verified), (4, 0));
    assert_whole(&path, &model);
    let source = Source::of_folder(&path).unwrap().unwrap();
    assert_eq!((source.repository.as_str(), source.commit.as_str()), ("org/model", COMMIT));
    assert_eq!(source.license.as_deref(), Some("apache-2.0"));
    let before = server.requests().len();
    let again = pull(&server, &path).unwrap();
    assert_eq!((again.fetched, again.verified), (0, 4));
    assert_eq!(server.requests().len(), before + 1, "only the list is asked for");
}

#[test]
fn a_changed_file_is_found_and_replaced() {
    let server = Server::start(|request| Model::usual().answer(request));
    let folder = tempfile::tempdir().unwrap();
    pull(&server, folder.path()).unwrap();
    let weights = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    bytes[500_000] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    let pulled = pull(&server, folder.path()).unwrap();
    assert_eq!((pulled.fetched, pulled.verified), (2, 2));
    assert_eq!(pulled.replaced, ["model.safetensors"]);
    assert_whole(folder.path(), &Model::usual());
}

#[test]
fn broken_connections_are_gone_on_with_from_where_they_broke() {
    let server = Server::start(|request| {
        let reply = Model::usual().answer(request);
        match (request.target.starts_with("/storage/"), request.range) {
            (true, None) => reply.cut_at(300_000),
            (true, Some(from)) if from < 900_000 => reply.cut_at(200_000),
            _ => reply,
        }
    });
    let folder = tempfile::tempdir().unwrap();
    pull(&server, folder.path()).unwrap();
    assert_whole(folder.path(), &Model::usual());
    let fetched = requests_for(&server, "/storage/");
    let starts: Vec<Option<usize>> = fetched.iter().map(|request| request.range).collect();
    assert_eq!(starts, [None, Some(300_000), Some(500_000), Some(700_000), Some(900_000)]);
    assert!(fetched[1..].iter().all(|request| request.if_range.is_some()), "of the same version");
}

#[test]
fn a_server_without_ranges_is_read_from_the_beginning_again() {
    let whole = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let reply = Model::usual().answer(&Request { range: None, ..request.clone() });
        match request.target.starts_with("/storage/") && whole.fetch_add(1, Ordering::SeqCst) < 2 {
            true => reply.cut_at(400_000),
            false => reply,
        }
    });
    let folder = tempfile::tempdir().unwrap();
    pull(&server, folder.path()).unwrap();
    assert_whole(folder.path(), &Model::usual());
}

#[test]
fn a_second_run_goes_on_where_the_first_was_stopped() {
    let server = Server::start(|request| {
        let reply = Model::usual().answer(request);
        match request.target.starts_with("/storage/") && request.number < 20 {
            true => Reply { cut: Some(250_000 * usize::from(request.range.is_none())), ..reply },
            false => reply,
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let error = pull(&server, folder.path()).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(!folder.path().join("model.safetensors").exists(), "no name before its bytes are whole");
    while server.requests().len() < 20 {
        let _ = plan(&hub(&server, None));
    }
    let before = server.requests().len();
    pull(&server, folder.path()).unwrap();
    assert_whole(folder.path(), &Model::usual());
    let later: Vec<_> = server.requests()[before..].iter().filter_map(|request| request.range).collect();
    assert_eq!(later, [250_000, 250_000], "the hub and its storage are asked for the rest alone");
}

#[test]
fn rubbish_left_by_a_power_cut_is_noticed_and_fetched_again() {
    let server = Server::start(|request| Model::usual().answer(request));
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(&hub(&server, None)).unwrap();
    let weights = plan.wanted.iter().find(|file| file.path == "model.safetensors").unwrap();
    std::fs::create_dir(folder.path().join(".pull")).unwrap();
    std::fs::write(folder.path().join(".pull").join(weights.digest.to_string()), vec![0; 400_000]).unwrap();
    pull(&server, folder.path()).unwrap();
    assert_whole(folder.path(), &Model::usual());
}

#[test]
fn busy_and_broken_servers_are_asked_again() {
    let server = Server::start(|request| match request.number {
        0 | 3 => Reply::new("503 Service Unavailable"),
        1 => Reply::new("429 Too Many Requests").with("Retry-After", "1"),
        4 => Reply::new("500 Internal Server Error"),
        _ => Model::usual().answer(request),
    });
    let folder = tempfile::tempdir().unwrap();
    let began = std::time::Instant::now();
    pull(&server, folder.path()).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "the server asked for a second");
    assert_whole(folder.path(), &Model::usual());
}

#[test]
fn an_address_that_was_signed_too_long_ago_is_signed_again() {
    let expired = AtomicUsize::new(0);
    let storage = Server::start(move |request| match expired.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new("403 Forbidden"),
        _ => Model::usual().answer(request),
    });
    let elsewhere = storage.address();
    let front = Server::start(move |request| {
        let mut reply = Model::usual().answer(request);
        for (name, value) in &mut reply.headers {
            if name == "Location" {
                *value = format!("{elsewhere}{value}");
            }
        }
        reply
    });
    let folder = tempfile::tempdir().unwrap();
    pull(&front, folder.path()).unwrap();
    assert_whole(folder.path(), &Model::usual());
}

#[test]
fn a_token_goes_to_the_hub_alone() {
    let storage = Server::start(|request| Model::usual().answer(request));
    let elsewhere = storage.address();
    let front = Server::start(move |request| {
        if request.token.as_deref() != Some("Bearer hf_secret") {
            return Reply::new("401 Unauthorized").with("X-Error-Code", "GatedRepo");
        }
        let mut reply = Model::usual().answer(request);
        for (name, value) in &mut reply.headers {
            if name == "Location" {
                *value = format!("{elsewhere}{value}");
            }
        }
        reply
    });
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(&front, Some("hf_secret"));
    hub::fetch(&hub, &plan(&hub).unwrap(), folder.path(), |_| None, &Context::quiet(1)).unwrap();
    assert_whole(folder.path(), &Model::usual());
    assert!(front.requests().iter().all(|request| request.token.is_some()));
    assert_eq!(storage.requests().len(), 1);
    assert!(storage.requests().iter().all(|request| request.token.is_none()), "the token travelled");
}

#[test]
fn odd_names_reach_the_hub_as_they_are() {
    let odd = "README ü 100%#?&.md";
    let server = Server::start(move |request| {
        let mut model = Model::usual();
        model.files.push((odd.to_string(), b"odd".to_vec()));
        if request.target.contains("README%20%C3%BC%20100%25%23%3F&.md") {
            return Reply::of(b"odd", request);
        }
        model.answer(request)
    });
    let folder = tempfile::tempdir().unwrap();
    pull(&server, folder.path()).unwrap();
    assert_eq!(std::fs::read(folder.path().join(odd)).unwrap(), b"odd");
}

#[test]
fn stopping_leaves_what_came() {
    let server = Server::start(|request| Model::usual().answer(request));
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(&server, None);
    let plan = plan(&hub).unwrap();
    let context = Context::quiet(1);
    context.cancellation.cancel();
    let error = hub::fetch(&hub, &plan, folder.path(), |_| None, &context).unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)), "{error}");
    pull(&server, folder.path()).unwrap();
    assert_whole(folder.path(), &Model::usual());
}

#[test]
fn files_of_an_older_commit_do_not_stay_beside_the_new_ones() {
    let newer = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let mut model = Model::usual();
        let lists = newer.fetch_add(usize::from(request.is_list()), Ordering::SeqCst);
        let (first, second) = match request.is_list() {
            true => (lists == 0, lists > 0),
            false => (false, false),
        };
        if first || !request.is_list() {
            model.files.push(("generation_config.json".into(), b"{}".to_vec()));
        }
        let mut reply = model.answer(request);
        if second {
            reply.body = String::from_utf8(reply.body).unwrap().replace(COMMIT, &"f".repeat(40)).into_bytes();
        }
        reply
    });
    let folder = tempfile::tempdir().unwrap();
    pull(&server, folder.path()).unwrap();
    assert!(folder.path().join("generation_config.json").exists());
    let pulled = pull(&server, folder.path()).unwrap();
    assert_eq!(pulled.source.commit, "f".repeat(40));
    assert_eq!((pulled.fetched, pulled.verified), (0, 4));
    assert_whole(folder.path(), &Model::usual());
}

#[test]
fn a_failing_disk_leaves_a_folder_that_the_next_pull_completes() {
    let server = Server::start(|request| Model::usual().answer(request));
    let hub = hub(&server, None);
    let plan = plan(&hub).unwrap();
    let mut operation = 0;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::failing_at(operation);
        let context = Context { storage: storage.clone(), ..Context::quiet(1) };
        let done = hub::fetch(&hub, &plan, folder.path(), |_| None, &context);
        storage.discard_unsynced().unwrap();
        let failed = done.is_err();
        pull(&server, folder.path()).unwrap();
        assert_whole(folder.path(), &Model::usual());
        if !failed {
            break;
        }
        operation += 3;
    }
    assert!(operation > 15);
}
