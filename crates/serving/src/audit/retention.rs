//! Retention: what is over goes, and the log stays checkable.
//!
//! Once a day the writer begins a new segment. When a closed segment is older than the period of a kind, the lines of that
//! kind are erased in it: in the place of each stands a line with its number, kind, time, predecessor and digest, so that
//! the chain still holds. When everything in the oldest segments is over, their files are removed. Either way an event in
//! the log says so first, with the digest that checks what is left, and a signed head covers that event before anything
//! goes. Files of conversations go by whole days, once no line names them any more. A segment's age is that of its newest line; times after the present are a clock's mistakes and do not count.
//!
//! A clock that jumped must not erase the log: after a jump nothing is removed for a day (`ClockWatch`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use provenance::context::timestamp;
use provenance::digest::sha256;
use provenance::{Clock, Digest, Storage};
use serde::Deserialize;
use serde_json::json;

use super::AuditEvent;
use super::chain::Chain;
use super::content;
use super::events::{CLOCK_JUMPED, ERASED, LINES_ERASED, SEGMENTS_REMOVED, holds_the_chain};
use super::segment::{SegmentLines, segment_path, segments};
use crate::error::ServingError;
use crate::settings::RetentionSettings;

/// Name of the file that whoever reads or copies whole segments holds shared, so that none goes meanwhile.
const LOCK_FILE: &str = "retention.lock";
/// A clock may run this much faster or slower than the time that passes.
const CLOCK_SLACK: Duration = Duration::from_secs(600);
/// A log that was not written for longer than this may belong to a machine with a wrong clock.
const LONGEST_PAUSE_SECONDS: u64 = 30 * 86_400;
/// How long nothing goes after the clock jumped.
const QUIET: Duration = Duration::from_secs(86_400);

/// Removes what is over from the closed segments of one log.
pub struct Retention {
    pub folder: PathBuf,
    pub settings: RetentionSettings,
    pub storage: Storage,
    /// What closed segments hold, from when they were last read.
    known: BTreeMap<u64, Contents>,
}

/// What a closed segment holds.
struct Contents {
    /// The newest time that is not in the future.
    newest: String,
    /// Kinds whose lines could be erased.
    kinds: BTreeSet<String>,
    last_sequence: u64,
    last_digest: Digest,
}

#[derive(Deserialize)]
struct Line {
    sequence: u64,
    time: String,
    event: String,
    previous: Digest,
}

impl Retention {
    pub fn new(folder: &Path, settings: RetentionSettings, storage: Storage) -> Retention {
        // Where it cannot be made, nothing can be removed either.
        let _ = lock_alone(folder);
        Retention { folder: folder.to_path_buf(), settings, storage, known: BTreeMap::new() }
    }

    /// Applies the periods to the segments before `current`. `announce` puts an event into the log and a signed head over
    /// it. `now` is in seconds since 1970.
    pub fn apply(
        &mut self,
        current: u64,
        now: u64,
        announce: &mut dyn FnMut(AuditEvent) -> Result<(), ServingError>,
    ) -> Result<(), ServingError> {
        let Some(_lock) = lock_alone(&self.folder)? else { return Ok(()) };
        let mut closed = segments(&self.folder)?;
        closed.retain(|&segment| segment < current);
        let mut removable = Vec::new();
        let mut is_oldest = true;
        for segment in closed {
            if !self.may_be_over(segment, now)? {
                // Later segments are younger, but for a clock that was set back.
                is_oldest = false;
                continue;
            }
            if !self.known.contains_key(&segment) {
                let contents = self.read(segment, now)?;
                self.known.insert(segment, contents);
            }
            let contents = &self.known[&segment];
            let over: BTreeSet<String> =
                contents.kinds.iter().filter(|kind| self.is_over(contents, kind, now)).cloned().collect();
            if is_oldest
                && over.len() == contents.kinds.len()
                && self.is_over(contents, SEGMENTS_REMOVED, now)
            {
                removable.push(segment);
                continue;
            }
            is_oldest = false;
            if !over.is_empty() {
                self.erase(segment, &over, announce)?;
            }
        }
        self.remove(&removable, announce)?;
        self.sweep_contents(current, now)
    }

    /// Removes the files of days whose conversations are over, also such as no line ever named. A day stays while a line
    /// names one of its files.
    fn sweep_contents(&mut self, current: u64, now: u64) -> Result<(), ServingError> {
        let over = timestamp(now.saturating_sub(self.settings.seconds("content")));
        let mut days = content::days(&self.folder)?;
        days.retain(|day| format!("{day}T23:59:59Z") < over);
        if days.is_empty() {
            return Ok(());
        }
        for segment in segments(&self.folder)? {
            let Some(first) = self.first_line(segment)? else { continue };
            let day = first.time.get(..10).unwrap_or_default();
            // All lines of a segment are of one day.
            let names_files = || {
                segment >= current
                    || self.known.get(&segment).is_none_or(|contents| contents.kinds.contains("content"))
            };
            if days.contains(day) && names_files() {
                days.remove(day);
            }
        }
        for day in &days {
            content::remove_day(&self.folder, day, &self.storage)?;
        }
        Ok(())
    }

    fn is_over(&self, contents: &Contents, kind: &str, now: u64) -> bool {
        !contents.newest.is_empty()
            && contents.newest < timestamp(now.saturating_sub(self.settings.seconds(kind)))
    }

    /// Whether anything in a segment can be over, by its first line alone.
    pub fn may_be_over(&self, segment: u64, now: u64) -> Result<bool, ServingError> {
        let over = timestamp(now.saturating_sub(self.settings.shortest_seconds()));
        Ok(self.first_line(segment)?.is_some_and(|first| first.time < over))
    }

    fn first_line(&self, segment: u64) -> Result<Option<Line>, ServingError> {
        let mut lines = SegmentLines::open(&segment_path(&self.folder, segment))?;
        Ok(lines.next_line()?.and_then(|line| serde_json::from_slice(line).ok()))
    }

    fn read(&self, segment: u64, now: u64) -> Result<Contents, ServingError> {
        let path = segment_path(&self.folder, segment);
        let mut chain = Chain::trusting_the_first_line();
        let (now, mut newest, mut kinds) = (timestamp(now), String::new(), BTreeSet::new());
        chain.follow(&path, |chain| {
            if chain.time > newest && chain.time <= now {
                newest.clone_from(&chain.time);
            }
            if chain.event != ERASED && !holds_the_chain(&chain.event) && !kinds.contains(&chain.event) {
                kinds.insert(chain.event.clone());
            }
            Ok(())
        })?;
        Ok(Contents { newest, kinds, last_sequence: chain.sequence, last_digest: chain.head })
    }

    fn erase(
        &mut self,
        segment: u64,
        kinds: &BTreeSet<String>,
        announce: &mut dyn FnMut(AuditEvent) -> Result<(), ServingError>,
    ) -> Result<(), ServingError> {
        let path = segment_path(&self.folder, segment);
        let (mut lines, mut kept, mut erased) = (SegmentLines::open(&path)?, Vec::new(), 0u64);
        while let Some(line) = lines.next_line()? {
            let parsed: Line = serde_json::from_slice(line).map_err(|error| ServingError::AuditBroken {
                path: path.clone(),
                line: erased,
                problem: error.to_string(),
            })?;
            if kinds.contains(&parsed.event) {
                let stub = json!({
                    "sequence": parsed.sequence, "time": parsed.time, "event": ERASED, "kind": parsed.event,
                    "digest": sha256(line).to_string(), "previous": parsed.previous.to_string(),
                });
                kept.extend_from_slice(stub.to_string().as_bytes());
                erased += 1;
            } else {
                kept.extend_from_slice(line);
            }
            kept.push(b'\n');
        }
        let kinds_text: Vec<&str> = kinds.iter().map(String::as_str).collect();
        let event = AuditEvent::new(LINES_ERASED).with("segment", segment).with("kinds", kinds_text);
        announce(event.with("lines", erased).with("file_sha256", sha256(&kept).to_string()))?;
        self.storage.replace(&path, &kept)?;
        if let Some(contents) = self.known.get_mut(&segment) {
            contents.kinds.retain(|kind| !kinds.contains(kind));
        }
        Ok(())
    }

    fn remove(
        &mut self,
        oldest: &[u64],
        announce: &mut dyn FnMut(AuditEvent) -> Result<(), ServingError>,
    ) -> Result<(), ServingError> {
        let Some(contents) = oldest.last().and_then(|last| self.known.get(last)) else { return Ok(()) };
        let event = AuditEvent::new(SEGMENTS_REMOVED)
            .with("through_segment", oldest.last().copied())
            .with("through_sequence", contents.last_sequence)
            .with("through_digest", contents.last_digest.to_string())
            .with("through_time", contents.newest.as_str());
        announce(event)?;
        for segment in oldest {
            self.storage.remove_file(&segment_path(&self.folder, *segment))?;
            self.known.remove(segment);
        }
        Ok(self.storage.sync_folder(&self.folder)?)
    }
}

/// Held by who removes; `None` while somebody reads.
fn lock_alone(folder: &Path) -> Result<Option<File>, ServingError> {
    let path = folder.join(LOCK_FILE);
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(|error| ServingError::AuditUnreadable { path, problem: error.to_string() })?;
    Ok(file.try_lock().is_ok().then_some(file))
}

/// Held by who reads whole segments. A copy has no lock, and nobody who removes.
pub fn lock_shared(folder: &Path) -> Option<File> {
    let file = File::open(folder.join(LOCK_FILE)).ok()?;
    file.lock_shared().is_ok().then_some(file)
}

/// Compares the clock with the time that passes.
pub struct ClockWatch {
    clock: Clock,
    seen: Option<(SystemTime, Instant)>,
    quiet_until: Option<Instant>,
}

impl ClockWatch {
    /// `last_time` is that of the log's last line before this start.
    pub fn new(clock: Clock, last_time: Option<&str>) -> ClockWatch {
        let paused = last_time.is_some_and(|last| {
            let now = seconds(clock.now());
            *last < *timestamp(now.saturating_sub(LONGEST_PAUSE_SECONDS)) || *last > *timestamp(now + 600)
        });
        ClockWatch { clock, seen: None, quiet_until: paused.then(|| Instant::now() + QUIET) }
    }

    /// What to say of the clock, if it jumped since it was last looked at.
    pub fn look(&mut self) -> Option<AuditEvent> {
        let (now, instant) = (self.clock.now(), Instant::now());
        let seen = self.seen.replace((now, instant));
        let (before, since) = seen?;
        let expected = before + instant.duration_since(since);
        let off = now.duration_since(expected).unwrap_or_else(|error| error.duration());
        if off <= CLOCK_SLACK {
            return None;
        }
        self.quiet_until = Some(instant + QUIET);
        let event = AuditEvent::new(CLOCK_JUMPED).with("expected", timestamp(seconds(expected)));
        Some(event.with("found", timestamp(seconds(now))))
    }

    /// The time, in seconds since 1970, unless the clock is not to be believed.
    pub fn believed(&self) -> Option<u64> {
        let quiet = self.quiet_until.is_some_and(|until| Instant::now() < until);
        (!quiet).then(|| seconds(self.clock.now()))
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
