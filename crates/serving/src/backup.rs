//! Backup of a state folder while its server runs, and its restoration.
//!
//! A backup is a whole state folder: the database as it was at one moment, the key that signs heads, and the audit log up
//! to the newest head that the database then knew, with the sealed conversations that its lines name. Lines after that head are left out, so that everything in a backup is
//! covered by a signature. It holds secrets like the state itself, and is made for its owner alone (mode 0700).

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use provenance::{Clock, Storage};
use serde::Deserialize;

use crate::audit::events::BACKUP_TAKEN;
use crate::audit::{
    AuditEvent, AuditHead, AuditSummary, HEADS_FILE, KEY_FILE, NamedContent, SegmentLines,
    append_to_closed_log, lock_shared, segment_path, segments, sync_days, verify_audit,
};
use crate::error::ServingError;
use crate::server::{AUDIT_FOLDER, lock_state};
use crate::store::{DATABASE_FILE, Store, make_private_folder};

/// How long a backup waits for the running server.
const HEAD_WAIT: Duration = Duration::from_secs(10);

/// Copies the state to a new folder. Returns what its audit log amounts to; the copy was checked.
pub fn backup(
    state: &Path,
    to: &Path,
    storage: &Storage,
    clock: &Clock,
) -> Result<AuditSummary, ServingError> {
    if !state.join(DATABASE_FILE).is_file() {
        return Err(trouble(state, "there is no state of a server in it"));
    }
    make_new(to)?;
    let (log, log_copy) = (state.join(AUDIT_FOLDER), to.join(AUDIT_FOLDER));
    let store = Store::open(state)?;
    let now = clock.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    store.note_for_audit(&AuditEvent::new(BACKUP_TAKEN), now)?;
    wait_for_head(state, &store)?;
    // Held until the end: no segment goes meanwhile.
    let _lock = lock_shared(&log);
    store.copy_to(&to.join(DATABASE_FILE))?;
    copy_key(state, to, storage)?;
    // From here on the copy says how far the log goes.
    let heads = Store::open(to)?.audit_heads()?;
    let heads: Vec<AuditHead> = heads.into_iter().filter(|head| head.signature.is_some()).collect();
    make_private_folder(&log_copy)?;
    let lines: Result<String, _> = heads.iter().map(AuditHead::line).collect();
    storage.write(&log_copy.join(HEADS_FILE), lines?.as_bytes())?;
    let through = copy_log(&log, &log_copy, &heads, storage)?;
    sync_days(&log_copy, storage)?;
    storage.sync_folder(&log_copy)?;
    storage.sync_folder(to)?;
    let summary = verify_audit(&log_copy, Some(to), None)?;
    if summary.events != through || summary.events_after_head > 0 {
        return Err(trouble(to, "the copy does not end with the head that it should; try again"));
    }
    Ok(summary)
}

/// Puts a backup into a new state folder, after checking it, and notes that in its audit log.
pub fn restore(
    from: &Path,
    state: &Path,
    storage: &Storage,
    clock: &Clock,
) -> Result<AuditSummary, ServingError> {
    let summary = verify_audit(&from.join(AUDIT_FOLDER), Some(from), None)?;
    make_new(state)?;
    let _lock = lock_state(state)?;
    Store::open(from)?.copy_to(&state.join(DATABASE_FILE))?;
    copy_key(from, state, storage)?;
    let (log, log_copy) = (from.join(AUDIT_FOLDER), state.join(AUDIT_FOLDER));
    make_private_folder(&log_copy)?;
    let mut names: Vec<PathBuf> =
        segments(&log)?.into_iter().map(|segment| segment_path(Path::new(""), segment)).collect();
    names.push(PathBuf::from(HEADS_FILE));
    for name in names {
        let mut file = storage.create(&log_copy.join(&name))?;
        let mut source = fs::File::open(log.join(&name)).map_err(|error| trouble(&log.join(&name), error))?;
        std::io::copy(&mut source, &mut file).map_err(|error| trouble(&log_copy.join(&name), error))?;
        file.finish()?;
    }
    for segment in segments(&log)? {
        let mut lines = SegmentLines::open(&segment_path(&log, segment))?;
        while let Some(line) = lines.next_line()? {
            if let Some(content) = NamedContent::of_line(line) {
                content.copy(&log, &log_copy, storage)?;
            }
        }
    }
    sync_days(&log_copy, storage)?;
    storage.sync_folder(&log_copy)?;
    let event = AuditEvent::new("state_restored")
        .with("through_sequence", summary.events)
        .with("through_time", summary.last_time.as_str());
    append_to_closed_log(&log_copy, state, event, storage.clone(), clock.clone())?;
    storage.sync_folder(state)?;
    verify_audit(&log_copy, Some(state), None)
}

/// A running server moves the note of this backup into its log and signs a head over it: then the backup ends there. One
/// that does not is no reason against a backup, which then ends with an earlier head.
fn wait_for_head(state: &Path, store: &Store) -> Result<(), ServingError> {
    let began = Instant::now();
    let is_running = || matches!(lock_state(state), Err(ServingError::StateInUse { .. }));
    while is_running() && began.elapsed() < HEAD_WAIT && !store.noted_for_audit()?.is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Copies the lines up to the newest head of the log; returns that head's number.
fn copy_log(log: &Path, copy: &Path, heads: &[AuditHead], storage: &Storage) -> Result<u64, ServingError> {
    #[derive(Deserialize)]
    struct Line {
        sequence: u64,
        log: Option<String>,
    }
    let (mut name, mut through) = (None, 0);
    for segment in segments(log)? {
        let path = segment_path(log, segment);
        let mut lines = SegmentLines::open(&path)?;
        let file = storage.create(&segment_path(copy, segment))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        let mut ended = false;
        loop {
            let Some(line) = lines.next_line()? else { break };
            let parsed: Result<Line, _> = serde_json::from_slice(line);
            let content = NamedContent::of_line(line);
            let written = file.write_all(line).and_then(|()| file.write_all(b"\n"));
            let parsed = parsed.map_err(|error| lines.broken(format!("not an event: {error}")))?;
            written.map_err(|error| trouble(copy, error))?;
            if let Some(content) = content {
                content.copy(log, copy, storage)?;
            }
            if name.is_none() {
                name = parsed.log;
                let own = heads.iter().filter(|head| Some(&head.log) == name.as_ref());
                through = own.map(|head| head.sequence).max().unwrap_or(0);
            }
            if parsed.sequence >= through {
                ended = true;
                break;
            }
        }
        file.into_inner().map_err(|error| trouble(copy, error.into_error()))?.finish()?;
        if ended {
            break;
        }
    }
    Ok(through)
}

fn copy_key(from: &Path, to: &Path, storage: &Storage) -> Result<(), ServingError> {
    let (source, copy) = (from.join(KEY_FILE), to.join(KEY_FILE));
    let bytes = fs::read(&source).map_err(|error| trouble(&source, error))?;
    storage.write(&copy, &bytes)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o600))
            .map_err(|error| trouble(&copy, error))?;
    }
    Ok(())
}

/// A folder for its owner alone, with nothing in it.
fn make_new(folder: &Path) -> Result<(), ServingError> {
    make_private_folder(folder)?;
    let mut entries = fs::read_dir(folder).map_err(|error| trouble(folder, error))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(trouble(folder, "it is not empty; give a folder that is not there yet")),
    }
}

fn trouble(path: &Path, problem: impl ToString) -> ServingError {
    ServingError::StateFolder { path: path.to_path_buf(), problem: problem.to_string() }
}
