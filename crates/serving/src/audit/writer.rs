//! The one writer of the log: lines, segments, heads.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use provenance::digest::sha256;
use provenance::{Clock, Digest, Storage, StorageError, StoredFile};
use serde_json::{Map, Value, json};

use super::AuditEvent;
use super::chain::{Chain, SEGMENT_OPENED};
use super::content::{Content, ContentWriter};
use super::head::{AuditHead, heads_path, read_heads};
use super::key::AuditKey;
use super::segment::{segment_path, segments};
use crate::error::ServingError;
use crate::keys::random_hex;
use crate::settings::{AuditSettings, Durability};
use crate::store::Store;

/// Version of what a line looks like, in the first line of each segment.
const FORMAT: u64 = 1;
/// How long a head may wait for the database while another process writes there. Requests wait as long; the head is
/// tried again later.
const DATABASE_WAIT: Duration = Duration::from_millis(50);
/// How soon a head that could not be kept is tried again.
const HEAD_AGAIN: Duration = Duration::from_secs(2);

/// What one line says, and what is to be kept beside it.
pub struct Entry {
    pub event: AuditEvent,
    pub content: Option<Content>,
}

impl From<AuditEvent> for Entry {
    fn from(event: AuditEvent) -> Entry {
        Entry { event, content: None }
    }
}

pub struct Writer {
    folder: PathBuf,
    contents: ContentWriter,
    store: Store,
    key: AuditKey,
    settings: AuditSettings,
    storage: Storage,
    clock: Clock,
    /// Random name of the log, from its first line.
    log: String,
    segment: u64,
    /// The same, for others to see.
    pub current_segment: Arc<AtomicU64>,
    /// Day of the current segment's first line: a segment holds lines of one day, so that what is over can go.
    day: Option<String>,
    /// Time of the last line that was there at the opening.
    pub last_time: Option<String>,
    /// Open between writes; `None` after a failure, until the segment is cut back to its last whole line.
    file: Option<StoredFile>,
    /// Bytes of whole, synced lines in the current segment.
    whole_bytes: u64,
    /// Number of the last line.
    sequence: u64,
    head: Digest,
    /// Number of the line that the newest head names.
    head_sequence: u64,
    /// No head is made before then, unless many lines have come.
    next_head: Instant,
    /// The last head could not be kept: no further one is tried before `next_head`.
    head_failed: bool,
    /// Bytes of whole lines in the file of heads.
    heads_bytes: u64,
    /// A head that the database has and the file of heads lacks.
    unfiled: Option<AuditHead>,
    /// Of a log that begins: the log that the state had before, as its newest head names it.
    before: Option<AuditHead>,
}

impl Writer {
    pub fn open(
        folder: &Path,
        store: Store,
        key: AuditKey,
        settings: AuditSettings,
        storage: Storage,
        clock: Clock,
    ) -> Result<Writer, ServingError> {
        let mut writer = Writer {
            folder: folder.to_path_buf(),
            contents: ContentWriter::new(folder, storage.clone(), settings.durability),
            store,
            key,
            next_head: Instant::now() + settings.head_time(),
            settings,
            storage,
            clock,
            log: random_hex(8)?,
            segment: 0,
            current_segment: Arc::default(),
            day: None,
            last_time: None,
            file: None,
            whole_bytes: 0,
            sequence: 0,
            head: Digest::ZERO,
            head_sequence: 0,
            head_failed: false,
            heads_bytes: 0,
            unfiled: None,
            before: None,
        };
        // A crash may have left the newest segment without a whole line: then the one before it holds the head.
        for &segment in segments(folder)?.iter().rev() {
            let mut chain = Chain::trusting_the_first_line();
            let (whole_bytes, _) = chain.follow(&segment_path(folder, segment), |_| Ok(()))?;
            if writer.segment < segment {
                (writer.segment, writer.whole_bytes) = (segment, whole_bytes);
                writer.day = chain.first_time.as_deref().map(day);
            }
            if let Some(log) = chain.log {
                (writer.log, writer.sequence, writer.head) = (log, chain.sequence, chain.head);
                writer.last_time = Some(chain.time);
                break;
            }
        }
        writer.segment = writer.segment.max(1);
        writer.current_segment.store(writer.segment, Ordering::SeqCst);
        writer.check_heads()?;
        writer.store.wait_at_most(DATABASE_WAIT)?;
        Ok(writer)
    }

    /// The newest head must be one of this log as it is, signed with this key. One that the database has and the file of
    /// heads lacks (a crash came between the two) is added to the file.
    fn check_heads(&mut self) -> Result<(), ServingError> {
        let heads = self.store.audit_heads()?;
        let (in_file, whole_bytes) = read_heads(&self.folder)?;
        self.heads_bytes = whole_bytes;
        let newest_of = |heads: &[AuditHead]| -> Option<AuditHead> {
            heads.iter().filter(|head| head.log == self.log).max_by_key(|head| head.sequence).cloned()
        };
        let broken = |problem: String| ServingError::AuditBroken {
            path: segment_path(&self.folder, self.segment),
            line: self.sequence,
            problem: format!(
                "{problem}; keep the folder for inquiry, move it away, and start again with a new log"
            ),
        };
        if self.sequence == 0 {
            // Heads stay with their lines, so here lines were taken away. A folder that was moved as a whole leaves its heads
            // in the database alone: the new log begins with the name of the old one.
            if let Some(lost) = in_file.iter().max_by_key(|head| head.sequence) {
                return Err(broken(format!(
                    "there is no line at all, but a head of event {} of the log {} stands beside: the lines were removed",
                    lost.sequence, lost.log
                )));
            }
            self.before =
                heads.iter().max_by(|a, b| (&a.time, a.sequence).cmp(&(&b.time, b.sequence))).cloned();
        }
        let (newest, newest_in_file) = (newest_of(&heads), newest_of(&in_file));
        if let Some(in_file) = &newest_in_file
            && newest.as_ref().is_none_or(|newest| newest.sequence < in_file.sequence)
        {
            return Err(broken(format!(
                "a head of event {} stands beside the log, and the state database does not know it: an older database \
                 was put in its place (`eulalia restore` puts back a whole state)",
                in_file.sequence
            )));
        }
        let Some(newest) = newest else { return Ok(()) };
        if newest.sequence > self.sequence
            || (newest.sequence == self.sequence && newest.digest != self.head.to_string())
        {
            return Err(broken(format!(
                "the log ends at event {}, but event {} was written before: lines are missing or altered",
                self.sequence, newest.sequence
            )));
        }
        if newest.signature.is_some() && !newest.is_signed_by(&self.key.public()) {
            return Err(broken(format!(
                "its newest head is not signed with the key of this state folder, {}: key or head was replaced",
                self.key.public().id()
            )));
        }
        if newest.signature.is_some() {
            self.head_sequence = newest.sequence;
            if newest_in_file.is_none_or(|in_file| in_file.sequence < newest.sequence) {
                self.unfiled = Some(newest);
                self.file_head()?;
            }
        }
        Ok(())
    }

    /// Appends lines for all entries with one write and one sync, after what is kept beside them; a new segment begins with
    /// a line that names the log. Returns for each entry why what it brought could not be kept: then a line says that.
    pub fn append(&mut self, entries: Vec<Entry>) -> Result<Vec<Option<String>>, String> {
        let time = self.clock.timestamp();
        let mut unkept = Vec::with_capacity(entries.len());
        let events = self.keep_contents(entries, &day(&time), &mut unkept)?;
        let mut file = self.take_file(&day(&time)).map_err(|error| error.to_string())?;
        let new_segment = self.whole_bytes == 0;
        let opening = new_segment.then(|| {
            let event = AuditEvent::new(SEGMENT_OPENED).with("log", self.log.as_str());
            let event = event.with("format", FORMAT).with("segment", self.segment);
            let event = event.with("key", self.key.public().id());
            match self.before.as_ref().filter(|_| self.sequence == 0) {
                Some(before) => {
                    event.with("after_log", before.log.as_str()).with("after_event", before.sequence)
                }
                None => event,
            }
        });
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
        if lines.is_empty() {
            self.file = Some(file);
            return Ok(unkept);
        }
        // On failure the file is dropped here, and cut back by the next call.
        file.write_bytes(&lines).map_err(|error| error.to_string())?;
        if self.settings.durability == Durability::Synced {
            file.sync().map_err(|error| error.to_string())?;
        }
        if new_segment {
            self.storage.sync_folder(&self.folder).map_err(|error| error.to_string())?;
            self.day = Some(day(&time));
        }
        self.file = Some(file);
        (self.head, self.sequence, self.whole_bytes) =
            (head, sequence, self.whole_bytes + lines.len() as u64);
        Ok(unkept)
    }

    /// Writes the files of these entries; the events of all lines, those of files before their entry's own. What could not
    /// be kept stands in `unkept`, with nothing for entries that are well.
    fn keep_contents(
        &mut self,
        entries: Vec<Entry>,
        day: &str,
        unkept: &mut Vec<Option<String>>,
    ) -> Result<Vec<AuditEvent>, String> {
        let (mut events, mut has_written) = (Vec::with_capacity(entries.len()), false);
        for Entry { event, content } in entries {
            let kept = content.as_ref().map(|content| self.contents.keep(content, day));
            has_written |= matches!(kept, Some(Ok(_)));
            unkept.push(kept.as_ref().and_then(|kept| kept.as_ref().err().cloned()));
            match (kept, content) {
                (Some(Ok(named)), _) => events.push(named),
                (Some(Err(problem)), Some(content)) => events.push(content.lost.with("problem", problem)),
                _ => {}
            }
            events.push(event);
        }
        if has_written {
            self.contents.sync(day)?;
        }
        Ok(events)
    }

    /// The current segment, open at the end of its last whole line.
    fn take_file(&mut self, today: &str) -> Result<StoredFile, StorageError> {
        let is_full = self.whole_bytes > self.settings.segment_bytes();
        let is_old = self.whole_bytes > 0 && self.day.as_deref() != Some(today);
        if is_full || is_old {
            if let Some(mut file) = self.file.take() {
                file.sync()?;
            }
            self.segment += 1;
            self.whole_bytes = 0;
            self.current_segment.store(self.segment, Ordering::SeqCst);
        }
        if let Some(file) = self.file.take() {
            return Ok(file);
        }
        let path = segment_path(&self.folder, self.segment);
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if length > self.whole_bytes {
            self.cut(&path, self.whole_bytes)?;
        }
        self.storage.append(&path)
    }

    /// How long no head is due if no line comes.
    pub fn time_to_head(&self) -> Duration {
        self.next_head.saturating_duration_since(Instant::now())
    }

    /// Signs a head if enough lines or enough time have passed. One that cannot be kept is no reason to refuse requests:
    /// their lines are safe, and the head is tried again.
    pub fn sign_head_if_due(&mut self) {
        let lines = self.sequence - self.head_sequence;
        let due = self.time_to_head().is_zero() || (lines >= self.settings.head_lines && !self.head_failed);
        if due && let Err(error) = self.sign_head() {
            tracing::error!(problem = %error, "the audit log's head cannot be kept; it is tried again");
            self.head_failed = true;
            self.next_head = Instant::now() + HEAD_AGAIN;
        }
    }

    /// Signs how far the log has come, in the database and beside the segments.
    pub fn sign_head(&mut self) -> Result<(), ServingError> {
        self.file_head()?;
        if self.sequence > self.head_sequence {
            if self.settings.durability == Durability::Written
                && let Some(file) = &mut self.file
            {
                // A head that knows more than the disk would accuse an honest machine after a power cut.
                file.sync()?;
            }
            let time = self.clock.timestamp();
            let head = AuditHead::sign(&self.key, &self.log, self.sequence, self.head, time);
            self.store.add_audit_head(&head)?;
            self.head_sequence = self.sequence;
            let signature = head.signature.as_ref().map_or("", |signature| &signature.value);
            tracing::info!(
                log = head.log,
                sequence = head.sequence,
                digest = head.digest,
                signature,
                "audit head"
            );
            self.unfiled = Some(head);
            self.file_head()?;
        }
        self.head_failed = false;
        self.next_head = Instant::now() + self.settings.head_time();
        Ok(())
    }

    /// Adds the head that the file of heads lacks, after what a failed write may have left there is cut off.
    fn file_head(&mut self) -> Result<(), ServingError> {
        let Some(head) = &self.unfiled else { return Ok(()) };
        let path = heads_path(&self.folder);
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if length > self.heads_bytes {
            self.cut(&path, self.heads_bytes)?;
        }
        let line = head.line()?;
        let mut file = self.storage.append(&path)?;
        file.write_bytes(line.as_bytes())?;
        file.finish()?;
        if self.heads_bytes == 0 {
            self.storage.sync_folder(&self.folder)?;
        }
        self.heads_bytes += line.len() as u64;
        self.unfiled = None;
        Ok(())
    }

    /// Cuts a file back to its first `whole_bytes`.
    fn cut(&self, path: &Path, whole_bytes: u64) -> Result<(), StorageError> {
        let mut bytes = fs::read(path).map_err(|source| StorageError {
            operation: "read",
            path: path.to_path_buf(),
            source,
        })?;
        bytes.truncate(usize::try_from(whole_bytes).unwrap_or(usize::MAX));
        self.storage.replace(path, &bytes)
    }
}

/// The day of a time as lines have it.
fn day(time: &str) -> String {
    time.chars().take(10).collect()
}
