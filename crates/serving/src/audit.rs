//! The audit log: who asked what kind of thing when, of which model, with what outcome; never prompts or answers.
//!
//! Append-only JSON lines in segments `audit-000001.jsonl`, …. Each line carries a running number and the SHA-256 of the
//! line before it (`previous`), across segments; so an altered, dropped or reordered line shows. That the end of a log
//! was cut off shows against the heads that the state database remembers. A request's line is synced to disk before its
//! answer ends: one thread writes, and syncs once for all lines that came in meanwhile (group commit), so many requests
//! at once cost one sync. If the disk refuses a line, the request fails, and the log is cut back to its last whole line
//! before the next one is tried.
//!
//! Times come from the clock and may jump; the order of events is that of the running number.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use provenance::digest::sha256;
use provenance::{Clock, Digest, Storage, StorageError, StoredFile};
use serde_json::{Map, Value, json};

use crate::audit_chain::{Chain, Torn, segment_path, segments};
use crate::error::ServingError;
use crate::keys::random_hex;
use crate::store::{AuditHead, Store};

/// A new segment begins when one has grown beyond this.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Most lines that share one sync.
const LINES_PER_SYNC: usize = 512;
/// The database remembers the log's head at its opening, its closing, and after every so many lines.
const LINES_PER_HEAD: u64 = 1_000;

/// What happened, without the fields that the log itself adds (`sequence`, `time`, `previous`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditEvent(Map<String, Value>);

impl AuditEvent {
    pub fn new(event: &str) -> AuditEvent {
        AuditEvent::default().with("event", event)
    }

    /// Adds a field; fields stand in the order in which they were added.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> AuditEvent {
        self.0.insert(name.to_string(), value.into());
        self
    }
}

/// The log, open for writing. Cheap to clone; the last clone to go closes it.
pub struct AuditLog {
    orders: Option<Sender<Order>>,
    writer: Option<JoinHandle<()>>,
}

struct Order {
    event: AuditEvent,
    written: Box<dyn FnOnce(Result<(), String>) + Send>,
}

impl AuditLog {
    /// Opens the log in `folder`, after checking the chain of its newest segment and the head that the database
    /// remembers. A torn last line (a crash in the middle of a write; no request was answered on it) is cut off.
    pub fn open(
        folder: &Path,
        state_folder: &Path,
        storage: Storage,
        clock: Clock,
    ) -> Result<AuditLog, ServingError> {
        crate::store::make_private_folder(folder)?;
        let store = Store::open(state_folder)?;
        let mut writer = Writer::open(folder, store, storage, clock)?;
        writer.append(Vec::new()).map_err(ServingError::AuditFailed)?;
        writer.remember_head()?;
        let (orders, incoming) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("audit".to_string())
            .spawn(move || write_orders(writer, &incoming))
            .map_err(ServingError::Runtime)?;
        Ok(AuditLog { orders: Some(orders), writer: Some(thread) })
    }

    /// Appends an event and calls `written` once it is on disk, or cannot be put there.
    pub fn append(&self, event: AuditEvent, written: impl FnOnce(Result<(), String>) + Send + 'static) {
        let order = Order { event, written: Box::new(written) };
        let sent = match &self.orders {
            Some(orders) => orders.send(order).map_err(|unsent| unsent.0),
            None => Err(order),
        };
        if let Err(order) = sent {
            (order.written)(Err("its thread has ended".to_string()));
        }
    }

    /// Appends an event and waits until it is on disk.
    pub fn append_and_wait(&self, event: AuditEvent) -> Result<(), ServingError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.append(event, move |result| {
            // The waiting side is this function: it cannot have gone.
            let _ = sender.send(result);
        });
        receiver
            .recv()
            .unwrap_or_else(|_| Err("its thread has ended".to_string()))
            .map_err(ServingError::AuditFailed)
    }
}

impl Drop for AuditLog {
    /// Waits until everything appended is on disk.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the audit log's thread panicked");
        }
    }
}

fn write_orders(mut writer: Writer, incoming: &Receiver<Order>) {
    while let Ok(first) = incoming.recv() {
        let mut orders = vec![first];
        while orders.len() < LINES_PER_SYNC
            && let Ok(order) = incoming.try_recv()
        {
            orders.push(order);
        }
        let (events, acknowledgements): (Vec<_>, Vec<_>) =
            orders.into_iter().map(|order| (order.event, order.written)).unzip();
        let result = writer.append(events);
        if let Err(problem) = &result {
            tracing::error!(problem, "the audit log cannot be written");
        }
        for written in acknowledgements {
            written(result.clone());
        }
    }
    if let Err(error) = writer.remember_head() {
        tracing::error!(problem = %error, "the audit log's head cannot be remembered");
    }
}

struct Writer {
    folder: PathBuf,
    store: Store,
    storage: Storage,
    clock: Clock,
    /// Random name of the log, from its first line.
    log: String,
    segment: u64,
    /// Open between writes; `None` after a failure, until the segment is cut back to its last whole line.
    file: Option<StoredFile>,
    /// Bytes of whole, synced lines in the current segment.
    whole_bytes: u64,
    /// Number of the last line.
    sequence: u64,
    head: Digest,
    remembered: u64,
}

impl Writer {
    fn open(folder: &Path, store: Store, storage: Storage, clock: Clock) -> Result<Writer, ServingError> {
        let mut writer = Writer {
            folder: folder.to_path_buf(),
            storage,
            clock,
            log: random_hex(8)?,
            segment: 0,
            file: None,
            whole_bytes: 0,
            sequence: 0,
            head: Digest::ZERO,
            remembered: 0,
            store,
        };
        // A crash may have left the newest segment without a whole line: then the one before it holds the head.
        for &segment in segments(folder)?.iter().rev() {
            let mut chain = Chain::trusting_the_first_line();
            let whole_bytes = chain.follow(&segment_path(folder, segment), Torn::CutOff)?;
            if writer.segment < segment {
                (writer.segment, writer.whole_bytes) = (segment, whole_bytes);
            }
            if let Some(log) = chain.log {
                (writer.log, writer.sequence, writer.head) = (log, chain.sequence, chain.head);
                break;
            }
        }
        writer.segment = writer.segment.max(1);
        writer.check_remembered_head()?;
        Ok(writer)
    }

    fn check_remembered_head(&self) -> Result<(), ServingError> {
        let heads = self.store.audit_heads()?;
        let Some(newest) = heads.iter().rfind(|head| head.log == self.log) else { return Ok(()) };
        if newest.sequence > self.sequence
            || (newest.sequence == self.sequence && newest.digest != self.head.to_string())
        {
            return Err(ServingError::AuditBroken {
                path: segment_path(&self.folder, self.segment),
                line: self.sequence,
                problem: format!(
                    "the log ends at event {}, but event {} was written before: lines are missing or altered; keep the \
                     folder for inquiry, move it away, and start again with a new log",
                    self.sequence, newest.sequence
                ),
            });
        }
        Ok(())
    }

    /// Appends lines for all events with one write and one sync; a new segment begins with a line that names the log.
    fn append(&mut self, events: Vec<AuditEvent>) -> Result<(), String> {
        let mut file = self.take_file().map_err(|error| error.to_string())?;
        let new_segment = self.whole_bytes == 0;
        let opening = new_segment.then(|| AuditEvent::new("segment_opened").with("log", self.log.as_str()));
        let time = self.clock.timestamp();
        let (mut head, mut sequence, mut lines) = (self.head, self.sequence, Vec::new());
        for event in opening.into_iter().chain(events) {
            sequence += 1;
            let mut line = Map::new();
            line.insert("sequence".to_string(), json!(sequence));
            line.insert("time".to_string(), json!(time));
            line.extend(event.0);
            line.insert("previous".to_string(), json!(head.to_string()));
            let text = Value::Object(line).to_string();
            head = sha256(text.as_bytes());
            lines.extend_from_slice(text.as_bytes());
            lines.push(b'\n');
        }
        // On failure the file is dropped here, and cut back by the next call.
        file.write_bytes(&lines).map_err(|error| error.to_string())?;
        file.sync().map_err(|error| error.to_string())?;
        if new_segment {
            self.storage.sync_folder(&self.folder).map_err(|error| error.to_string())?;
        }
        self.file = Some(file);
        (self.head, self.sequence, self.whole_bytes) =
            (head, sequence, self.whole_bytes + lines.len() as u64);
        if self.sequence - self.remembered >= LINES_PER_HEAD
            && let Err(error) = self.remember_head()
        {
            // The lines are safe; the next head is remembered later.
            tracing::error!(problem = %error, "the audit log's head cannot be remembered");
        }
        Ok(())
    }

    /// The current segment, open at the end of its last whole line.
    fn take_file(&mut self) -> Result<StoredFile, StorageError> {
        if self.whole_bytes > SEGMENT_BYTES {
            self.file = None;
            self.segment += 1;
            self.whole_bytes = 0;
        }
        if let Some(file) = self.file.take() {
            return Ok(file);
        }
        let path = segment_path(&self.folder, self.segment);
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if length > self.whole_bytes {
            let mut bytes = fs::read(&path).map_err(|source| StorageError {
                operation: "read",
                path: path.clone(),
                source,
            })?;
            bytes.truncate(usize::try_from(self.whole_bytes).unwrap_or(usize::MAX));
            self.storage.replace(&path, &bytes)?;
        }
        self.storage.append(&path)
    }

    fn remember_head(&mut self) -> Result<(), ServingError> {
        if self.sequence == self.remembered {
            return Ok(());
        }
        let head =
            AuditHead { log: self.log.clone(), sequence: self.sequence, digest: self.head.to_string() };
        let now = self.clock.now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.store.record_audit_head(&head, now)?;
        self.remembered = self.sequence;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit_chain::verify_audit;

    struct Place {
        _folder: tempfile::TempDir,
        log: PathBuf,
        state: PathBuf,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let (log, state) = (folder.path().join("audit"), folder.path().join("state"));
        Place { _folder: folder, log, state }
    }

    fn open(place: &Place, storage: Storage) -> Result<AuditLog, ServingError> {
        AuditLog::open(&place.log, &place.state, storage, Clock::fixed(1_000))
    }

    fn write(place: &Place, events: usize) {
        let log = open(place, Storage::disk()).unwrap();
        for number in 0..events {
            log.append_and_wait(AuditEvent::new("request").with("number", number)).unwrap();
        }
    }

    fn lines(place: &Place) -> Vec<String> {
        let text = fs::read_to_string(segment_path(&place.log, 1)).unwrap();
        text.lines().map(str::to_string).collect()
    }

    #[test]
    fn a_log_goes_on_where_it_ended() {
        let place = place();
        write(&place, 3);
        write(&place, 2);
        assert_eq!(verify_audit(&place.log, &place.state).unwrap().events, 6);
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
            fs::write(segment_path(&place.log, 1), changed.join("\n") + "\n").unwrap();
            assert!(verify_audit(&place.log, &place.state).is_err(), "{what}");
            assert!(open(&place, Storage::disk()).is_err(), "{what}");
        }
    }

    #[test]
    fn a_torn_last_line_is_cut_off() {
        let place = place();
        write(&place, 2);
        let whole = fs::read(segment_path(&place.log, 1)).unwrap();
        fs::write(segment_path(&place.log, 1), [&whole[..], b"{\"sequence\":4,\"ti"].concat()).unwrap();
        write(&place, 1);
        assert_eq!(verify_audit(&place.log, &place.state).unwrap().events, 4);
    }

    #[test]
    fn what_was_acknowledged_survives_every_failure() {
        for operation in 0..24 {
            let place = place();
            let storage = Storage::failing_at(operation);
            let mut acknowledged = 0;
            if let Ok(log) = open(&place, storage.clone()) {
                for number in 0..4 {
                    acknowledged += usize::from(
                        log.append_and_wait(AuditEvent::new("request").with("number", number)).is_ok(),
                    );
                }
            }
            storage.discard_unsynced().unwrap();
            write(&place, 1);
            let kept = lines(&place).iter().filter(|line| line.contains("\"request\"")).count();
            assert!(kept > acknowledged, "operation {operation}: {kept} lines, {acknowledged} acknowledged");
            verify_audit(&place.log, &place.state).unwrap();
        }
    }
}
