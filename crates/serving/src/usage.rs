//! What was used, by tenant, key, model and day: the audit log, added up.
//!
//! Usage is nothing but a sum over the log's lines, so it is as true as the log: a line counts once, whatever happened
//! between its writing and its counting. The database holds the sums together with the number of the last line that is in
//! them, changed in one transaction; a server that was killed goes on after that line when it starts. Lines are counted a
//! moment after they were written; what a limit must know at once stands in memory (`limits`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::audit::segment::{segment_path, segments};
use crate::error::ServingError;
use crate::store::{Store, Used, UsedBy};

/// Lines that are counted in one transaction.
const LINES_PER_TRANSACTION: u64 = 10_000;

/// Counts the lines of one log.
pub struct UsageCounter {
    folder: PathBuf,
    store: Store,
    /// Name of the log; empty before its first line was seen.
    log: String,
    /// Number of the last line that is counted.
    sequence: u64,
    segment: u64,
    /// Bytes of the segment that are counted.
    counted_bytes: u64,
    /// Length of the segment at the last look: a line that a failing disk takes back is gone by the next one.
    seen_bytes: u64,
}

/// What counting needs of a line. Lines of other events lack most of it.
#[derive(Deserialize)]
struct Line {
    sequence: u64,
    time: String,
    event: String,
    #[serde(default)]
    log: String,
    #[serde(default)]
    tenant: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    route: String,
    #[serde(default)]
    model: String,
    #[serde(default)]
    outcome: String,
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    #[serde(default)]
    milliseconds: u64,
    #[serde(default)]
    count: u64,
}

impl UsageCounter {
    /// Counts the log in `folder` into `store`.
    pub fn new(folder: &Path, store: Store) -> UsageCounter {
        UsageCounter {
            folder: folder.to_path_buf(),
            store,
            log: String::new(),
            sequence: 0,
            segment: 0,
            counted_bytes: 0,
            seen_bytes: 0,
        }
    }

    /// Counts every line there is. For a log that nobody writes at the moment.
    pub fn catch_up(&mut self) -> Result<(), ServingError> {
        while self.count_some(None)? {}
        Ok(())
    }

    /// Counts the lines that stood there at the last call already.
    pub fn follow(&mut self) -> Result<(), ServingError> {
        let seen = (self.segment, self.seen_bytes);
        while self.count_some(Some(seen))? {}
        Ok(())
    }

    /// Counts a part of one segment; of the newest one no more than was `seen`, if that is given. `Ok(false)` if there is
    /// nothing left to count now.
    fn count_some(&mut self, seen: Option<(u64, u64)>) -> Result<bool, ServingError> {
        let unreadable = |path: &Path, error: std::io::Error| ServingError::AuditUnreadable {
            path: path.to_path_buf(),
            problem: error.to_string(),
        };
        let segments = segments(&self.folder)?;
        if self.segment == 0 {
            self.find_place(&segments)?;
        }
        let path = segment_path(&self.folder, self.segment);
        let Ok(mut file) = File::open(&path) else { return Ok(false) };
        let length = file.metadata().map_err(|error| unreadable(&path, error))?.len();
        let newer = segments.iter().copied().find(|number| *number > self.segment);
        // Nothing is taken back any more from a segment that another one follows.
        let limit = match seen {
            Some((segment, bytes)) if newer.is_none() => {
                if segment == self.segment {
                    bytes.min(length)
                } else {
                    0
                }
            }
            _ => length,
        };
        self.seen_bytes = length;
        if self.counted_bytes >= limit {
            let Some(newer) = newer else { return Ok(false) };
            (self.segment, self.counted_bytes, self.seen_bytes) = (newer, 0, 0);
            return Ok(true);
        }
        file.seek(SeekFrom::Start(self.counted_bytes)).map_err(|error| unreadable(&path, error))?;
        let mut reader = BufReader::with_capacity(1 << 18, file.take(limit - self.counted_bytes));
        let (mut sums, mut line, mut lines) = (BTreeMap::new(), Vec::new(), 0);
        let (mut bytes, mut sequence) = (self.counted_bytes, self.sequence);
        while lines < LINES_PER_TRANSACTION {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(|error| unreadable(&path, error))?;
            if line.last() != Some(&b'\n') {
                break;
            }
            bytes += read as u64;
            lines += 1;
            // Checking the log is `verify`'s task; a line that cannot be read counts nothing.
            let Ok(line) = serde_json::from_slice::<Line>(&line) else { continue };
            if !line.log.is_empty() && line.log != self.log {
                self.log.clone_from(&line.log);
                sequence = self.store.usage_counted(&self.log)?;
            }
            if line.sequence > sequence {
                sequence = line.sequence;
                add(&mut sums, line);
            }
        }
        if lines == 0 {
            return Ok(false);
        }
        self.store.add_usage(&self.log, sequence, &sums)?;
        (self.counted_bytes, self.sequence) = (bytes, sequence);
        Ok(true)
    }

    /// The oldest segment with lines that are not counted: the last one that begins with a line that is, or the first.
    fn find_place(&mut self, segments: &[u64]) -> Result<(), ServingError> {
        self.segment = segments.first().copied().unwrap_or(1);
        for &number in segments.iter().rev() {
            let Ok(file) = File::open(segment_path(&self.folder, number)) else { continue };
            let mut first = String::new();
            // The line that opens a segment is short; one that is not says nothing.
            let read = BufReader::new(file.take(1 << 16)).read_line(&mut first);
            let Ok(line) = serde_json::from_str::<Line>(&first) else { continue };
            if read.is_ok() && !line.log.is_empty() && self.store.usage_counted(&line.log)? >= line.sequence {
                self.segment = number;
                break;
            }
        }
        Ok(())
    }
}

/// Adds a line to the sums, if it is about use.
fn add(sums: &mut BTreeMap<UsedBy, Used>, line: Line) {
    let Some(day) = day_of(&line.time) else { return };
    let refused = match (line.event.as_str(), line.outcome.as_str()) {
        ("requests_refused", _) => line.count,
        ("request", "refused") => 1,
        // Lists, the page and the like: asked, not used.
        ("request", _) if line.model.is_empty() => return,
        ("request", _) => 0,
        _ => return,
    };
    let sum = sums.entry(UsedBy { day, tenant: line.tenant, key: line.key, model: line.model }).or_default();
    if refused > 0 {
        sum.refused += refused;
        return;
    }
    sum.requests += 1;
    sum.milliseconds += line.milliseconds;
    // Counting tokens computes none.
    if !line.route.ends_with("tokenize") {
        sum.prompt_tokens += line.prompt_tokens;
        sum.completion_tokens += line.completion_tokens;
    }
}

/// Days since 1970 of a time such as `2026-11-20T23:39:00Z` (days_from_civil, Howard Hinnant).
fn day_of(time: &str) -> Option<u64> {
    let mut parts = time.get(..10)?.split('-').map(str::parse::<u64>);
    let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = year % 400;
    (year / 400 * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    struct Place {
        _folder: tempfile::TempDir,
        state: PathBuf,
        log: PathBuf,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let log = folder.path().join("log");
        fs::create_dir(&log).unwrap();
        Place { state, log, _folder: folder }
    }

    impl Place {
        fn counter(&self) -> UsageCounter {
            UsageCounter::new(&self.log, Store::open(&self.state).unwrap())
        }

        fn write(&self, segment: u64, text: &str) {
            use std::io::Write;
            let path = segment_path(&self.log, segment);
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn tokens(&self) -> u64 {
            // 2026-11-20.
            Store::open(&self.state).unwrap().tokens_of_tenant("t", 20_777).unwrap()
        }
    }

    fn opening(sequence: u64, log: &str) -> String {
        json!({"sequence": sequence, "time": "2026-11-20T10:00:00Z", "event": "segment_opened", "log": log})
            .to_string()
            + "\n"
    }

    fn request(sequence: u64, tokens: u64) -> String {
        json!({"sequence": sequence, "time": "2026-11-20T23:59:59Z", "event": "request", "tenant": "t", "key": "k",
               "route": "POST /v1/completions", "model": "m", "outcome": "ok", "prompt_tokens": tokens,
               "completion_tokens": 1, "milliseconds": 5})
        .to_string()
            + "\n"
    }

    #[test]
    fn a_line_counts_once_however_often_one_begins_again() {
        let place = place();
        place.write(1, &(opening(1, "l") + &request(2, 10) + &request(3, 20)));
        place.counter().catch_up().unwrap();
        place.counter().catch_up().unwrap();
        assert_eq!(place.tokens(), 32);
        place.write(2, &(opening(4, "l") + &request(5, 100)));
        // A torn line is none yet.
        place.write(2, &request(6, 1_000)[..40]);
        let mut counter = place.counter();
        counter.catch_up().unwrap();
        assert_eq!(place.tokens(), 133);
        place.write(2, &request(6, 1_000)[40..]);
        counter.catch_up().unwrap();
        assert_eq!(place.tokens(), 1_134);
        // Another log begins with line 1 again.
        place.write(3, &(opening(1, "other") + &request(2, 10_000)));
        place.counter().catch_up().unwrap();
        assert_eq!(place.tokens(), 11_135);
    }

    #[test]
    fn a_line_that_was_just_written_waits_for_the_next_look() {
        let place = place();
        place.write(1, &(opening(1, "l") + &request(2, 10)));
        let mut counter = place.counter();
        counter.follow().unwrap();
        assert_eq!(place.tokens(), 0);
        place.write(1, &request(3, 20));
        counter.follow().unwrap();
        assert_eq!(place.tokens(), 11, "the new line may yet be taken back");
        counter.follow().unwrap();
        assert_eq!(place.tokens(), 32);
    }

    #[test]
    fn refusals_and_counted_tokens_are_told_apart() {
        let place = place();
        let line = |sequence: u64, more: serde_json::Value| {
            let mut line = json!({"sequence": sequence, "time": "2026-11-20T00:00:00Z", "event": "request",
                                  "tenant": "t", "key": "k", "model": "m", "prompt_tokens": 7});
            line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            line.to_string() + "\n"
        };
        let lines = [
            opening(1, "l"),
            line(2, json!({"outcome": "refused"})),
            line(3, json!({"event": "requests_refused", "model": "", "count": 40})),
            line(4, json!({"outcome": "ok", "route": "POST /tokenize"})),
            line(5, json!({"outcome": "abandoned", "route": "POST /v1/completions", "completion_tokens": 3})),
            line(6, json!({"outcome": "ok", "model": ""})),
            "no JSON\n".to_string(),
            line(7, json!({"event": "server_stopped"})),
        ];
        place.write(1, &lines.concat());
        place.counter().catch_up().unwrap();
        let rows = Store::open(&place.state).unwrap().usage(Some("t"), 0, 100).unwrap();
        let sum = |of: fn(&Used) -> u64| rows.iter().map(|row| of(&row.used)).sum::<u64>();
        assert_eq!((sum(|used| used.requests), sum(|used| used.refused)), (2, 41));
        assert_eq!((sum(|used| used.prompt_tokens), sum(|used| used.completion_tokens)), (7, 3));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (time, day) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(11_016)),
            ("2026-11-20T23:39:00Z", Some(20_777)),
            ("2026-13-01T00:00:00Z", None),
            ("soon", None),
        ] {
            assert_eq!(day_of(time), day, "{time}");
        }
        for day in (0..40_000).step_by(17) {
            assert_eq!(day_of(&provenance::context::timestamp(day * 86_400)), Some(day));
        }
    }
}
