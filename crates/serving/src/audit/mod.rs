//! The audit log: who asked what kind of thing when, of which model, with what outcome. Never prompts or answers: where a
//! tenant's policy asks for them, they stand sealed in files of their own, which lines name by their digests (`content`).
//!
//! Append-only JSON lines in segments `audit-000001.jsonl`, …. Each line carries a running number and the SHA-256 of the
//! line before it (`previous`), across segments; so an altered, dropped or reordered line shows. That the end of a log
//! was cut off, or written anew with digests that fit, shows against signed heads (`head`). A request's line is synced to
//! disk before its answer ends: one thread writes, and syncs once for all lines that came in meanwhile (group commit), so
//! many requests at once cost one sync. If the disk refuses a line, the request fails, and the log is cut back to its last
//! whole line before the next one is tried.
//!
//! Times come from the clock and may jump; the order of events is that of the running number.

mod chain;
mod content;
mod ecs;
pub mod events;
mod head;
mod key;
mod open;
mod read;
mod retention;
pub mod segment;
mod verify;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use provenance::{Clock, Storage};
use serde_json::{Map, Value};

use crate::error::ServingError;
use crate::settings::AuditSettings;
#[cfg(test)]
use crate::settings::Durability;
use crate::store::Store;
use retention::{ClockWatch, Retention};
use writer::{Entry, Writer};

pub use content::{Content, NamedContent, sync_days};
pub use head::{AuditHead, HEADS_FILE, HeadSignature};
pub use key::{AuditKey, AuditPublicKey, KEY_FILE, close_to_others};
pub use open::{Opened, OpenedConversations, open_conversations};
pub use read::{AuditFilter, AuditFormat, export_log, object, read_log};
pub use retention::lock_shared;
pub use segment::{SegmentLines, segment_path, segments};
pub use verify::{AuditFaults, AuditSummary, find_faults, verify_audit};

/// Most lines that share one sync.
const LINES_PER_SYNC: usize = 512;
/// How often events that other processes noted are moved into the log;
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// how often, counted in that, the clock is looked at,
const CLOCK_EVERY: u64 = 60;
/// and what is over goes.
const RETENTION_EVERY: u64 = 3_600;
/// Fields that the log itself gives each line.
const OWN_FIELDS: [&str; 3] = ["sequence", "time", "previous"];

/// What happened, without the fields that the log itself adds (`sequence`, `time`, `previous`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditEvent(Map<String, Value>);

impl AuditEvent {
    pub fn new(event: &str) -> AuditEvent {
        AuditEvent::default().with("event", event)
    }

    /// The event as [`AuditEvent::text`] wrote it. What cannot be read becomes an event that says so.
    pub fn from_text(text: &str) -> AuditEvent {
        match serde_json::from_str(text) {
            Ok(Value::Object(mut fields)) if fields.get("event").is_some_and(Value::is_string) => {
                fields.retain(|name, _| !OWN_FIELDS.contains(&name.as_str()));
                AuditEvent(fields)
            }
            _ => AuditEvent::new("note_unreadable"),
        }
    }

    /// The event as JSON.
    pub fn text(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// Adds a field; fields stand in the order in which they were added.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> AuditEvent {
        assert!(!OWN_FIELDS.contains(&name), "the log itself gives each line its `{name}`");
        self.0.insert(name.to_string(), value.into());
        self
    }
}

/// The log, open for writing. Cheap to clone; the last clone to go closes it.
pub struct AuditLog {
    orders: Option<Sender<Order>>,
    /// Events that are not on disk yet.
    waiting: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
    /// Dropped to end the thread that looks after clock and retention.
    upkeep: Option<(Sender<()>, JoinHandle<()>)>,
}

struct Order {
    /// `None` begins a new segment if the day of the current one is over.
    entry: Option<Entry>,
    written: Box<dyn FnOnce(Result<(), String>) + Send>,
    /// Whether a signed head must cover the event before `written` is called.
    with_head: bool,
}

impl AuditLog {
    /// Opens the log in `folder`, after checking the chain of its newest segment and the newest head. A torn last line (a
    /// crash in the middle of a write; no request was answered on it) is cut off. The key that signs heads is made if
    /// there is none.
    pub fn open(
        folder: &Path,
        state_folder: &Path,
        settings: &AuditSettings,
        storage: Storage,
        clock: Clock,
    ) -> Result<AuditLog, ServingError> {
        crate::store::make_private_folder(folder)?;
        let store = Store::open(state_folder)?;
        let key = AuditKey::read_or_make(state_folder, &storage)?;
        let mut writer = Writer::open(folder, store, key, settings.clone(), storage.clone(), clock.clone())?;
        writer.append(Vec::new()).map_err(ServingError::AuditFailed)?;
        writer.sign_head()?;
        let retention = Retention::new(folder, settings.retention.clone(), storage);
        let watch = ClockWatch::new(clock, writer.last_time.as_deref());
        let current = writer.current_segment.clone();
        let noted = Store::open(state_folder)?;
        let (orders, incoming) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("audit".to_string())
            .spawn(move || write_orders(writer, &incoming))
            .map_err(ServingError::Runtime)?;
        let (ends, end) = mpsc::channel();
        let announcing = orders.clone();
        let upkeep = std::thread::Builder::new()
            .name("audit upkeep".to_string())
            .spawn(move || keep_up(retention, watch, &noted, &current, &announcing, &end))
            .map_err(ServingError::Runtime)?;
        Ok(AuditLog {
            orders: Some(orders),
            waiting: Arc::default(),
            writer: Some(thread),
            upkeep: Some((ends, upkeep)),
        })
    }

    /// Appends an event and calls `written` once it is on disk, or cannot be put there.
    pub fn append(&self, event: AuditEvent, written: impl FnOnce(Result<(), String>) + Send + 'static) {
        self.append_with(event, None, written);
    }

    /// The same with a part of a conversation, which is on disk before the event that names it; that one stands before
    /// `event`. If it cannot be kept, `written` is told so, and the log says it in its place.
    pub fn append_with(
        &self,
        event: AuditEvent,
        content: Option<Content>,
        written: impl FnOnce(Result<(), String>) + Send + 'static,
    ) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = self.waiting.clone();
        let written = move |result| {
            waiting.fetch_sub(1, Ordering::Relaxed);
            written(result);
        };
        let entry = Some(Entry { event, content });
        let order = Order { entry, written: Box::new(written), with_head: false };
        let sent = match &self.orders {
            Some(orders) => orders.send(order).map_err(|unsent| unsent.0),
            None => Err(order),
        };
        if let Err(order) = sent {
            (order.written)(Err("its thread has ended".to_string()));
        }
    }

    /// Events that are not on disk yet.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
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

/// Whether there is a segment of a log in this folder.
pub fn is_log(folder: &Path) -> bool {
    segments(folder).is_ok_and(|segments| !segments.is_empty())
}

impl Drop for AuditLog {
    /// Waits until everything appended is on disk.
    fn drop(&mut self) {
        if let Some((ends, upkeep)) = self.upkeep.take() {
            drop(ends);
            if upkeep.join().is_err() {
                tracing::error!("the thread of the audit log's retention panicked");
            }
        }
        self.orders = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the audit log's thread panicked");
        }
    }
}

fn write_orders(mut writer: Writer, incoming: &Receiver<Order>) {
    loop {
        let first = match incoming.recv_timeout(writer.time_to_head()) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                writer.sign_head_if_due();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut orders = vec![first];
        while orders.len() < LINES_PER_SYNC
            && let Ok(order) = incoming.try_recv()
        {
            orders.push(order);
        }
        let with_head = orders.iter().any(|order| order.with_head);
        let (mut entries, mut acknowledgements) = (Vec::new(), Vec::new());
        for order in orders {
            acknowledgements.push((order.entry.is_some(), order.written));
            entries.extend(order.entry);
        }
        let mut appended = writer.append(entries);
        if with_head && appended.is_ok() {
            appended = appended.and_then(|unkept| match writer.sign_head() {
                Ok(()) => Ok(unkept),
                Err(error) => Err(error.to_string()),
            });
        }
        if let Err(problem) = &appended {
            tracing::error!(problem, "the audit log cannot be written");
        }
        let mut results = appended.map(Vec::into_iter);
        for (has_entry, written) in acknowledgements {
            written(match &mut results {
                Ok(unkept) if has_entry => match unkept.next().flatten() {
                    None => Ok(()),
                    Some(problem) => {
                        tracing::error!(problem, "a conversation cannot be kept");
                        Err(format!("a conversation cannot be kept: {problem}"))
                    }
                },
                Ok(_) => Ok(()),
                Err(problem) => Err(problem.clone()),
            });
        }
        writer.sign_head_if_due();
    }
    if let Err(error) = writer.sign_head() {
        tracing::error!(problem = %error, "the audit log's last head cannot be kept");
    }
}

/// Looks at the clock, and lets go what is over, until the log is closed.
fn keep_up(
    mut retention: Retention,
    mut watch: ClockWatch,
    noted: &Store,
    current: &Arc<AtomicU64>,
    orders: &Sender<Order>,
    end: &Receiver<()>,
) {
    for tick in 0u64.. {
        if tick.is_multiple_of(CLOCK_EVERY)
            && let Some(event) = watch.look()
        {
            tracing::warn!("the clock jumped; nothing leaves the audit log for a day");
            // Whether it could be written, the writer says.
            let entry = Some(Entry::from(event));
            let _ = orders.send(Order { entry, written: Box::new(|_| {}), with_head: false });
        }
        if tick.is_multiple_of(RETENTION_EVERY)
            && let Some(now) = watch.believed()
        {
            let applied = let_go(&mut retention, current, now, orders);
            if let Err(error) = applied {
                tracing::error!(problem = %error, "the audit log's retention failed; it is tried again in an hour");
            }
        }
        let ends = end.recv_timeout(UPKEEP_EVERY) != Err(RecvTimeoutError::Timeout);
        if let Err(error) = move_noted(noted, orders) {
            tracing::warn!(problem = %error, "events that wait in the database could not be moved to the audit log");
        }
        if ends {
            return;
        }
    }
}

/// Lets go what is over; also what stands in the newest segment, which a server without requests would never close.
fn let_go(
    retention: &mut Retention,
    current: &Arc<AtomicU64>,
    now: u64,
    orders: &Sender<Order>,
) -> Result<(), ServingError> {
    if retention.may_be_over(current.load(Ordering::SeqCst), now)? {
        put(orders, None, false)?;
    }
    retention.apply(current.load(Ordering::SeqCst), now, &mut |event| put(orders, Some(event.into()), true))
}

/// Moves what other processes noted into the log. After a crash between the two steps an event stands there twice, with
/// the same `note`.
fn move_noted(store: &Store, orders: &Sender<Order>) -> Result<(), ServingError> {
    for (id, text) in store.noted_for_audit()? {
        let event = AuditEvent::from_text(&text).with("note", id.as_str());
        let with_head = event.0.get("event").is_some_and(|kind| kind == events::BACKUP_TAKEN);
        put(orders, Some(event.into()), with_head)?;
        store.forget_noted(&id)?;
    }
    Ok(())
}

/// Appends one event to a log that no server has open.
pub fn append_to_closed_log(
    folder: &Path,
    state_folder: &Path,
    event: AuditEvent,
    storage: Storage,
    clock: Clock,
) -> Result<(), ServingError> {
    let key = AuditKey::read(state_folder)?;
    let store = Store::open(state_folder)?;
    let mut writer = Writer::open(folder, store, key, AuditSettings::default(), storage, clock)?;
    writer.append(vec![event.into()]).map_err(ServingError::AuditFailed)?;
    writer.sign_head()
}

/// Puts an event into the log and, if asked, a signed head over it; waits until they are on disk.
fn put(orders: &Sender<Order>, entry: Option<Entry>, with_head: bool) -> Result<(), ServingError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let written = Box::new(move |result| drop(sender.send(result)));
    let ended = || ServingError::AuditFailed("its thread has ended".to_string());
    orders.send(Order { entry, written, with_head }).map_err(|_| ended())?;
    receiver.recv().map_err(|_| ended())?.map_err(ServingError::AuditFailed)
}

#[cfg(test)]
mod tests;
