use std::fs;
use std::path::{Path, PathBuf};

use provenance::Digest;
use provenance::digest::sha256;
use serde_json::json;

use super::head::heads_path;

use super::*;
use crate::store::DATABASE_FILE;

/// Where a log and its state stand.
pub struct Place {
    _folder: tempfile::TempDir,
    pub log: PathBuf,
    pub state: PathBuf,
}

pub fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let (log, state) = (folder.path().join("audit"), folder.path().join("state"));
    Place { _folder: folder, log, state }
}

fn open_with(place: &Place, settings: AuditSettings, storage: Storage) -> Result<AuditLog, ServingError> {
    AuditLog::open(&place.log, &place.state, &settings, storage, Clock::fixed(1_000))
}

fn open(place: &Place, storage: Storage) -> Result<AuditLog, ServingError> {
    open_with(place, AuditSettings::default(), storage)
}

fn append(log: &AuditLog, events: usize) {
    for number in 0..events {
        log.append_and_wait(AuditEvent::new("request").with("number", number)).unwrap();
    }
}

fn write(place: &Place, events: usize) {
    append(&open(place, Storage::disk()).unwrap(), events);
}

fn verify(place: &Place) -> Result<AuditSummary, ServingError> {
    verify_audit(&place.log, Some(&place.state), None)
}

fn lines(place: &Place) -> Vec<String> {
    let text = fs::read_to_string(segment_path(&place.log, 1)).unwrap();
    text.lines().map(str::to_string).collect()
}

fn write_lines(place: &Place, lines: &[String]) {
    fs::write(segment_path(&place.log, 1), lines.join("\n") + "\n").unwrap();
}

/// Gives each line the digest of the one before it: what somebody does who knows how the chain is made.
fn chain_again(lines: &mut [String]) {
    let mut head = Digest::ZERO;
    for line in lines {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value["previous"] = json!(head.to_string());
        *line = value.to_string();
        head = sha256(line.as_bytes());
    }
}

fn check_found(place: &Place, what: &str) {
    let found = verify(place);
    assert!(found.is_err(), "{what}: {found:?}");
    assert!(open(place, Storage::disk()).is_err(), "{what}: the server starts");
}

#[test]
fn a_log_goes_on_where_it_ended() {
    let place = place();
    write(&place, 3);
    write(&place, 2);
    let found = verify(&place).unwrap();
    assert_eq!((found.events, found.segments, found.signed_heads, found.events_after_head), (6, 1, 3, 0));
    assert_eq!(found.first_time, "1970-01-01T00:16:40Z");
    assert!(found.database && !found.key_was_given && found.torn_bytes == 0);
    assert!(lines(&place)[5].contains(r#""event":"request","number":1"#));
}

#[test]
fn altered_dropped_reordered_and_cut_lines_are_found() {
    type Change = fn(&mut Vec<String>);
    let changes: [(&str, Change); 6] = [
        ("altered", |lines| lines[2] = lines[2].replace("\"number\":1", "\"number\":7")),
        ("last line altered", |lines| lines[4] = lines[4].replace("\"number\":3", "\"number\":7")),
        ("dropped", |lines| drop(lines.remove(2))),
        ("reordered", |lines| lines.swap(2, 3)),
        ("cut at the end", |lines| lines.truncate(3)),
        ("not JSON", |lines| lines[1] = "{".to_string()),
    ];
    for (what, change) in changes {
        let place = place();
        write(&place, 4);
        let mut changed = lines(&place);
        change(&mut changed);
        write_lines(&place, &changed);
        check_found(&place, what);
    }
}

#[test]
fn a_tail_with_new_digests_that_fit_is_found() {
    type Change = fn(&mut Vec<String>);
    let changes: [(&str, Change); 3] = [
        ("altered", |lines| lines[2] = lines[2].replace("\"number\":1", "\"number\":7")),
        ("dropped", |lines| {
            lines.remove(2);
            for (line, number) in lines.iter_mut().skip(2).zip(3..) {
                *line = line.replacen(
                    &format!("\"sequence\":{}", number + 1),
                    &format!("\"sequence\":{number}"),
                    1,
                );
            }
        }),
        ("reordered", |lines| {
            let (two, three) = (lines[2].clone(), lines[3].clone());
            lines[2] = three.replacen("\"sequence\":4", "\"sequence\":3", 1);
            lines[3] = two.replacen("\"sequence\":3", "\"sequence\":4", 1);
        }),
    ];
    for (what, change) in changes {
        let place = place();
        write(&place, 4);
        let mut changed = lines(&place);
        change(&mut changed);
        chain_again(&mut changed);
        write_lines(&place, &changed);
        let problem = verify(&place).unwrap_err().to_string();
        assert!(problem.contains("head"), "{what}: {problem}");
        check_found(&place, what);
    }
}

#[test]
fn heads_that_were_removed_altered_or_forged_are_found() {
    let other = place();
    write(&other, 1);
    let forged_key = AuditKey::read(&other.state).unwrap();
    type Change = Box<dyn Fn(&mut Vec<AuditHead>)>;
    let changes: [(&str, Change); 4] = [
        ("one removed", Box::new(|heads| drop(heads.remove(0)))),
        ("altered", Box::new(|heads| heads[0].time = "1970-01-02T00:16:40Z".to_string())),
        ("unsigned", Box::new(|heads| heads[0].signature = None)),
        (
            "forged",
            Box::new(move |heads| {
                let head = &heads[0];
                let digest = head.digest.parse().unwrap();
                heads[0] = AuditHead::sign(&forged_key, &head.log, head.sequence, digest, head.time.clone());
            }),
        ),
    ];
    for (what, change) in changes {
        let place = place();
        write(&place, 4);
        write(&place, 4);
        let (mut heads, _) = head::read_heads(&place.log).unwrap();
        change(&mut heads);
        let text: String = heads.iter().map(|head| head.line().unwrap()).collect();
        fs::write(heads_path(&place.log), text).unwrap();
        assert!(verify(&place).is_err(), "{what}");
    }
}

#[test]
fn lines_that_were_all_removed_are_found_and_a_log_that_was_moved_away_is_named() {
    for remove in [|path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, "").unwrap()] {
        let place = place();
        write(&place, 4);
        remove(&segment_path(&place.log, 1));
        check_found(&place, "no line is left");
    }
    let place = place();
    write(&place, 4);
    let first = verify(&place).unwrap();
    fs::rename(&place.log, place.log.with_file_name("for inquiry")).unwrap();
    write(&place, 1);
    let opened: Value = serde_json::from_str(&lines(&place)[0]).unwrap();
    assert_eq!((&opened["after_log"], &opened["after_event"]), (&json!(first.log), &json!(5)));
    let second = verify(&place).unwrap();
    assert_eq!(second.earlier_logs.into_iter().collect::<Vec<_>>(), [(first.log, 5)]);
}

#[test]
fn an_older_database_is_found() {
    let place = place();
    write(&place, 4);
    let database = place.state.join(DATABASE_FILE);
    let old = fs::read(&database).unwrap();
    write(&place, 4);
    fs::write(&database, old).unwrap();
    let problem = verify(&place).unwrap_err().to_string();
    assert!(problem.contains("older database"), "{problem}");
    check_found(&place, "older database");
}

#[test]
fn another_key_in_the_state_folder_is_found() {
    let (one, other) = (place(), place());
    write(&one, 2);
    write(&other, 2);
    fs::copy(other.state.join(KEY_FILE), one.state.join(KEY_FILE)).unwrap();
    check_found(&one, "another key");
    fs::remove_file(one.state.join(KEY_FILE)).unwrap();
    assert!(verify(&one).is_err());
    assert!(open(&one, Storage::disk()).is_err(), "a new key does not take the place of a lost one");
}

#[test]
fn a_copy_is_checked_with_the_public_key_alone() {
    let (one, other) = (place(), place());
    write(&one, 3);
    write(&other, 3);
    let key = AuditKey::read(&one.state).unwrap().public();
    let found = verify_audit(&one.log, None, Some(key)).unwrap();
    assert_eq!((found.events, found.database, found.key_was_given), (4, false, true));
    let wrong = AuditKey::read(&other.state).unwrap().public();
    assert!(verify_audit(&one.log, None, Some(wrong)).is_err());
    assert!(verify_audit(&one.log, None, None).unwrap_err().to_string().contains("--audit-key"));
    write_lines(&one, &lines(&one)[..2]);
    assert!(verify_audit(&one.log, None, Some(key)).is_err());
    fs::remove_file(heads_path(&one.log)).unwrap();
    assert!(verify_audit(&one.log, None, Some(key)).unwrap_err().to_string().contains("none of its heads"));
}

#[test]
fn heads_come_with_lines_and_with_time() {
    let place = place();
    let settings = AuditSettings { head_lines: 3, ..AuditSettings::default() };
    append(&open_with(&place, settings, Storage::disk()).unwrap(), 8);
    // At the opening (event 1), after events 4 and 7, and at the end.
    let (heads, _) = head::read_heads(&place.log).unwrap();
    assert_eq!(heads.iter().map(|head| head.sequence).collect::<Vec<_>>(), [1, 4, 7, 9]);
    let settings = AuditSettings { head_seconds: 1, ..AuditSettings::default() };
    let log = open_with(&place, settings, Storage::disk()).unwrap();
    append(&log, 1);
    let started = std::time::Instant::now();
    while head::read_heads(&place.log).unwrap().0.len() < 5 {
        assert!(started.elapsed().as_secs() < 60, "no head came");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(log);
    assert_eq!(verify(&place).unwrap().signed_heads, 5);
}

#[test]
fn a_locked_database_keeps_no_request_waiting() {
    let place = place();
    let settings = AuditSettings { head_lines: 1, ..AuditSettings::default() };
    let log = open_with(&place, settings, Storage::disk()).unwrap();
    let other = rusqlite::Connection::open(place.state.join(DATABASE_FILE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    append(&log, 5);
    assert_eq!(verify(&place).unwrap().events_after_head, 5, "no head could be kept");
    other.execute_batch("COMMIT").unwrap();
    drop(log);
    assert_eq!(verify(&place).unwrap().events_after_head, 0);
}

#[test]
fn a_torn_last_line_is_cut_off() {
    let place = place();
    write(&place, 2);
    let whole = fs::read(segment_path(&place.log, 1)).unwrap();
    fs::write(segment_path(&place.log, 1), [&whole[..], b"{\"sequence\":4,\"ti"].concat()).unwrap();
    assert_eq!(verify(&place).unwrap().torn_bytes, 17);
    let heads = fs::read(heads_path(&place.log)).unwrap();
    fs::write(heads_path(&place.log), [&heads[..], b"{\"log\":"].concat()).unwrap();
    write(&place, 1);
    let found = verify(&place).unwrap();
    assert_eq!((found.events, found.torn_bytes), (4, 0));
}

#[test]
fn what_was_acknowledged_survives_every_failure() {
    for (durability, step) in [(Durability::Synced, 1), (Durability::Written, 4)] {
        for operation in (0..48).step_by(step) {
            let place = place();
            let storage = Storage::failing_at(operation);
            let settings = AuditSettings { head_lines: 2, durability, ..AuditSettings::default() };
            let mut acknowledged = 0;
            if let Ok(log) = open_with(&place, settings, storage.clone()) {
                for number in 0..4 {
                    acknowledged += usize::from(
                        log.append_and_wait(AuditEvent::new("request").with("number", number)).is_ok(),
                    );
                }
            }
            if durability == Durability::Synced {
                // A power cut; otherwise the program alone ended.
                storage.discard_unsynced().unwrap();
            }
            write(&place, 1);
            let kept = lines(&place).iter().filter(|line| line.contains("\"request\"")).count();
            assert!(kept > acknowledged, "operation {operation}: {kept} lines, {acknowledged} acknowledged");
            verify(&place).unwrap_or_else(|error| panic!("operation {operation}: {error}"));
        }
    }
}

#[test]
fn no_line_names_a_conversation_that_is_not_there() {
    for (durability, step) in [(Durability::Synced, 1), (Durability::Written, 3)] {
        for operation in (0..60).step_by(step) {
            let place = place();
            let storage = Storage::failing_at(operation);
            let settings = AuditSettings { durability, ..AuditSettings::default() };
            let mut acknowledged = 0;
            if let Ok(log) = open_with(&place, settings, storage.clone()) {
                for number in 0..3 {
                    acknowledged += u64::from(append_kept(&log, &format!("{operation} {number}")).is_ok());
                }
            }
            if durability == Durability::Synced {
                storage.discard_unsynced().unwrap();
            }
            write(&place, 1);
            let found = verify(&place).unwrap_or_else(|error| panic!("operation {operation}: {error}"));
            assert!(found.contents >= acknowledged, "operation {operation}: {found:?}, {acknowledged}");
        }
    }
}

#[test]
fn what_cannot_be_kept_is_said_and_the_others_go_on() {
    let place = place();
    let log = open(&place, Storage::disk()).unwrap();
    append_kept(&log, "one").unwrap();
    // A file where the folder of the day should be.
    fs::remove_dir_all(place.log.join("content")).unwrap();
    fs::write(place.log.join("content"), "in the way").unwrap();
    assert!(append_kept(&log, "two").unwrap_err().contains("cannot be kept"));
    append(&log, 1);
    drop(log);
    let text = lines(&place).join("\n");
    assert_eq!(text.matches("\"event\":\"content_lost\",\"id\":\"a1\",\"problem\"").count(), 1, "{text}");
    assert_eq!(text.matches("\"event\":\"answered\"").count(), 2, "the request is told of all the same");
}

#[test]
fn a_server_without_requests_lets_go_too() {
    let (place, settings) = (place(), short_retention());
    let now = Arc::new(AtomicU64::new(10));
    let shown = now.clone();
    let clock =
        Clock::from_fn(move || std::time::UNIX_EPOCH + Duration::from_secs(shown.load(Ordering::SeqCst)));
    let log = AuditLog::open(&place.log, &place.state, &settings, Storage::disk(), clock).unwrap();
    append_kept(&log, "one").unwrap();
    now.store(4 * DAY, Ordering::SeqCst);
    let orders = log.orders.clone().unwrap();
    let mut retention = Retention::new(&place.log, settings.retention.clone(), Storage::disk());
    let started = std::time::Instant::now();
    // The log's own thread may be at it at the same time.
    while !kept_days(&place).is_empty() {
        assert!(started.elapsed().as_secs() < 60, "it stays");
        let current = Arc::new(AtomicU64::new(*segments(&place.log).unwrap().last().unwrap()));
        let_go(&mut retention, &current, 4 * DAY, &orders).unwrap();
    }
    drop((orders, log));
    let found = verify(&place).unwrap();
    assert_eq!((found.contents, found.erased, found.segments), (0, 1, 2));
}

#[test]
fn all_faults_are_listed_and_many_are_counted() {
    let place = place();
    write(&place, 400);
    let mut changed = lines(&place);
    changed[10] = changed[10].replace("\"number\":9", "\"number\":90");
    changed[20] = "{".to_string();
    changed.remove(30);
    changed.swap(40, 42);
    write_lines(&place, &changed);
    let faults = find_faults(&place.log, Some(&place.state), None).unwrap_err();
    let problems: Vec<String> = faults.listed.iter().map(ToString::to_string).collect();
    let at = |line: usize, what: &str| {
        let place = format!("line {line}: ");
        assert!(
            problems.iter().any(|text| text.contains(&place) && text.contains(what)),
            "{line}: {problems:?}"
        );
    };
    at(12, "that line was altered");
    at(21, "not an event");
    at(31, "expected event 31, found event 32");
    for line in [41, 42, 43] {
        at(line, "reordered");
    }
    assert!(faults.count == 7 && problems.len() == 7, "{problems:?}");
    let mut changed = lines(&place);
    for line in &mut changed[50..300] {
        *line = line.replace("\"request\"", "\"requests\"");
    }
    write_lines(&place, &changed);
    let faults = find_faults(&place.log, Some(&place.state), None).unwrap_err();
    assert_eq!((faults.listed.len(), faults.count), (100, 7 + 250));
    assert_eq!(verify(&place).unwrap_err().to_string(), problems[0], "the first one");
}

#[test]
fn a_clock_that_jumps_changes_no_order() {
    let place = place();
    for (seconds, opened) in [(2_000_000_000, 2), (1_000, 4), (4_000_000_000, 6)] {
        let clock = Clock::fixed(seconds);
        let log = AuditLog::open(&place.log, &place.state, &AuditSettings::default(), Storage::disk(), clock);
        append(&log.unwrap(), 1);
        assert_eq!(verify(&place).unwrap().events, opened);
    }
}

const DAY: u64 = 86_400;

/// Appends a line with a kept conversation before it.
fn append_kept(log: &AuditLog, sealed: &str) -> Result<(), String> {
    let event = |kind: &str| AuditEvent::new(kind).with("id", "a1");
    let sealed = Ok(sealed.as_bytes().to_vec());
    let content = Content { named: event("content"), lost: event("content_lost"), sealed };
    let (sender, receiver) = mpsc::sync_channel(1);
    log.append_with(AuditEvent::new("answered"), Some(content), move |result| drop(sender.send(result)));
    receiver.recv().unwrap()
}

/// Files of conversations, by day.
fn kept_days(place: &Place) -> Vec<String> {
    content::days(&place.log).unwrap().into_iter().collect()
}

/// Writes one request, and one conversation with its own, on each of so many days, as one server that runs.
fn write_days(place: &Place, days: u64, settings: &AuditSettings) -> AuditLog {
    let now = Arc::new(AtomicU64::new(0));
    let shown = now.clone();
    let clock =
        Clock::from_fn(move || std::time::UNIX_EPOCH + Duration::from_secs(shown.load(Ordering::SeqCst)));
    let log = AuditLog::open(&place.log, &place.state, settings, Storage::disk(), clock).unwrap();
    for day in 0..days {
        now.store(day * DAY + 10, Ordering::SeqCst);
        log.append_and_wait(AuditEvent::new("request").with("day", day)).unwrap();
        append_kept(&log, &format!("geheim {day}")).unwrap();
    }
    log
}

fn apply(
    place: &Place,
    log: &AuditLog,
    settings: &AuditSettings,
    storage: Storage,
    now: u64,
) -> Result<(), ServingError> {
    let current = *segments(&place.log).unwrap().last().unwrap();
    let orders = log.orders.clone().unwrap();
    let mut retention = Retention::new(&place.log, settings.retention.clone(), storage);
    retention.apply(current, now, &mut |event| put(&orders, Some(event.into()), true))
}

fn short_retention() -> AuditSettings {
    let retention = crate::settings::RetentionSettings::default();
    let retention = retention.with("default", "5d").with("content", "2d");
    AuditSettings { retention, ..AuditSettings::default() }
}

#[test]
fn what_is_over_goes_and_the_rest_is_checked() {
    let (place, settings) = (place(), short_retention());
    let log = write_days(&place, 10, &settings);
    assert_eq!(verify(&place).unwrap().segments, 10);
    // Lines of day 0 at second 10 are over just after 5 days and 10 seconds.
    apply(&place, &log, &settings, Storage::disk(), 5 * DAY + 10).unwrap();
    let found = verify(&place).unwrap();
    assert_eq!((found.segments, found.first_event), (10, 1), "nothing is over yet but contents");
    assert_eq!(found.erased, 3, "contents of days 0, 1 and 2");
    let text = fs::read_to_string(segment_path(&place.log, 1)).unwrap();
    assert!(!text.contains("sha256\":") && text.contains("\"day\":0"), "{text}");
    assert_eq!(
        (found.contents, kept_days(&place)[0].as_str(), kept_days(&place).len()),
        (7, "1970-01-04", 7)
    );
    apply(&place, &log, &settings, Storage::disk(), 7 * DAY + 11).unwrap();
    let found = verify(&place).unwrap();
    assert_eq!((found.segments, found.first_event, found.erased), (7, 13, 3));
    let copy = AuditKey::read(&place.state).unwrap().public();
    verify_audit(&place.log, None, Some(copy)).unwrap();
    drop(log);
    write(&place, 1);
    verify(&place).unwrap();
}

#[test]
fn what_is_gone_without_a_word_is_found() {
    type Change = fn(&Place);
    let changes: [(&str, Change); 4] = [
        ("a segment removed", |place| fs::remove_file(segment_path(&place.log, 4)).unwrap()),
        ("a middle segment removed", |place| fs::remove_file(segment_path(&place.log, 6)).unwrap()),
        ("a line erased by hand", |place| {
            let path = segment_path(&place.log, 8);
            let text = fs::read_to_string(&path).unwrap();
            let line = text.lines().find(|line| line.contains("\"request\"")).unwrap();
            let value: Value = serde_json::from_str(line).unwrap();
            let stub = json!({
                "sequence": value["sequence"], "time": value["time"], "event": "erased", "kind": "request",
                "digest": sha256(line.as_bytes()).to_string(), "previous": value["previous"],
            });
            fs::write(&path, text.replace(line, &stub.to_string())).unwrap();
        }),
        ("an erased line altered", |place| {
            let path = segment_path(&place.log, 4);
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains("\"kind\":\"content\""));
            fs::write(&path, text.replace("\"kind\":\"content\"", "\"kind\":\"nothing\"")).unwrap();
        }),
    ];
    for (what, change) in changes {
        let (place, settings) = (place(), short_retention());
        let log = write_days(&place, 10, &settings);
        apply(&place, &log, &settings, Storage::disk(), 7 * DAY + 11).unwrap();
        drop(log);
        verify(&place).unwrap();
        change(&place);
        let found = verify(&place);
        assert!(found.is_err(), "{what}: {found:?}");
    }
}

#[test]
fn a_retention_that_breaks_off_leaves_a_whole_log() {
    for operation in 0..24 {
        let (place, settings) = (place(), short_retention());
        let log = write_days(&place, 6, &settings);
        let storage = Storage::failing_at(operation);
        let _ = apply(&place, &log, &settings, storage.clone(), 7 * DAY + 11);
        storage.discard_unsynced().unwrap();
        verify(&place).unwrap_or_else(|error| panic!("operation {operation}: {error}"));
        apply(&place, &log, &settings, Storage::disk(), 7 * DAY + 11).unwrap();
        let found = verify(&place).unwrap();
        assert_eq!(
            (found.segments, found.contents),
            (3, 1),
            "operation {operation}: that of the newest segment"
        );
        assert_eq!(kept_days(&place), ["1970-01-06"], "operation {operation}");
    }
}

#[test]
fn nothing_goes_while_somebody_reads() {
    let (place, settings) = (place(), short_retention());
    let log = write_days(&place, 6, &settings);
    let reading = lock_shared(&place.log).unwrap();
    apply(&place, &log, &settings, Storage::disk(), 9 * DAY).unwrap();
    assert_eq!(verify(&place).unwrap().segments, 6);
    drop(reading);
    apply(&place, &log, &settings, Storage::disk(), 9 * DAY).unwrap();
    assert!(verify(&place).unwrap().segments < 6);
}

#[test]
fn a_clock_that_jumped_is_not_believed() {
    let now = Arc::new(AtomicU64::new(400 * DAY));
    let shown = now.clone();
    let clock =
        Clock::from_fn(move || std::time::UNIX_EPOCH + Duration::from_secs(shown.load(Ordering::SeqCst)));
    let time = |seconds| provenance::context::timestamp(seconds);
    let mut watch = ClockWatch::new(clock.clone(), Some(&time(399 * DAY)));
    assert!(watch.look().is_none() && watch.believed() == Some(400 * DAY));
    now.fetch_add(60, Ordering::SeqCst);
    assert!(watch.look().is_none(), "within the slack");
    for jumped in [700 * DAY, 3 * DAY] {
        now.store(jumped, Ordering::SeqCst);
        let event = watch.look().unwrap();
        assert_eq!(event.0["found"], json!(time(jumped)));
        assert_eq!(watch.believed(), None, "nothing goes for a day");
        assert!(watch.look().is_none(), "said once");
    }
    now.store(400 * DAY, Ordering::SeqCst);
    for last in [300 * DAY, 401 * DAY] {
        assert_eq!(ClockWatch::new(clock.clone(), Some(&time(last))).believed(), None, "{last}");
    }
}

#[test]
fn what_other_processes_note_comes_into_the_log_once() {
    let place = place();
    let other = Store::open(&place.state).unwrap();
    other.note_for_audit(&AuditEvent::new("key_created").with("key", "abc"), 900).unwrap();
    let log = open(&place, Storage::disk()).unwrap();
    other.note_for_audit(&AuditEvent::new("key_revoked").with("key", "abc"), 901).unwrap();
    drop(log);
    write(&place, 0);
    assert!(other.noted_for_audit().unwrap().is_empty());
    let text = lines(&place).join("\n");
    for wanted in
        ["\"event\":\"key_created\",\"key\":\"abc\",\"noted_at\":\"1970-01-01T00:15:00Z\"", "key_revoked"]
    {
        assert_eq!(text.matches(wanted).count(), 1, "{wanted}: {text}");
    }
    verify(&place).unwrap();
}

#[test]
fn an_export_has_what_was_asked_for() {
    let place = place();
    drop(write_days(&place, 4, &AuditSettings::default()));
    let export = |filter: AuditFilter, format| {
        let mut output = Vec::new();
        let count = export_log(&place.log, &filter, format, &mut output).unwrap();
        let lines: Vec<Value> = String::from_utf8(output)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len() as u64, count);
        lines
    };
    let some = |text: &str| Some(text.to_string());
    let all = export(AuditFilter::default(), AuditFormat::Jsonl);
    assert!(all.len() == 16 && !json!(all).to_string().contains("geheim"), "conversations do not leave");
    let filter = AuditFilter { event: some("request"), ..AuditFilter::default() };
    assert_eq!(export(filter.clone(), AuditFormat::Ecs)[3]["event"]["action"], "request");
    let days = AuditFilter { since: some("1970-01-02"), until: some("1970-01-04"), ..filter.clone() };
    let found = export(days, AuditFormat::Jsonl);
    assert_eq!(found.iter().map(|line| line["day"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    let later = AuditFilter { after: found[0]["sequence"].as_u64(), ..filter };
    assert_eq!(export(later, AuditFormat::Jsonl).len(), 2);
    let other = AuditFilter { tenant: some("nobody"), ..AuditFilter::default() };
    assert!(export(other, AuditFormat::Jsonl).is_empty());
}
