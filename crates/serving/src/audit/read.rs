//! Reading the log: the lines that somebody asks for, one after the other, with bounded memory.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::ecs;
use super::retention::lock_shared;
use super::segment::{SegmentLines, segment_path, segments};
use crate::error::ServingError;

/// Which lines somebody asks for. Everything that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditFilter {
    /// Lines at or after this time, RFC 3339 in UTC or a beginning of it, such as `2026-11-20`.
    pub since: Option<String>,
    /// Lines before this time.
    pub until: Option<String>,
    /// Lines of this tenant, by its pseudonym.
    pub tenant: Option<String>,
    /// Lines of this kind.
    pub event: Option<String>,
    /// Lines after the one of this number: to go on where an earlier export ended.
    pub after: Option<u64>,
}

/// What a line looks like when it leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditFormat {
    /// As it stands in the log: JSON lines that can be checked against the chain.
    #[default]
    Jsonl,
    /// JSON lines in the Elastic Common Schema.
    Ecs,
}

impl AuditFormat {
    /// The format of that name.
    pub fn from_name(name: &str) -> Option<AuditFormat> {
        match name {
            "jsonl" => Some(AuditFormat::Jsonl),
            "ecs" => Some(AuditFormat::Ecs),
            _ => None,
        }
    }
}

/// The fields that lines are chosen by.
#[derive(Deserialize)]
struct Chosen<'a> {
    sequence: u64,
    #[serde(borrow)]
    time: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    event: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    tenant: Option<std::borrow::Cow<'a, str>>,
}

impl AuditFilter {
    /// Refuses times that are none. The error is for people.
    pub fn check(&self) -> Result<(), String> {
        for (name, time) in [("since", &self.since), ("until", &self.until)] {
            if let Some(time) = time
                && !is_time(time)
            {
                let found: String = time.chars().take(40).collect();
                return Err(format!(
                    "`{name}`: expected a time in UTC such as 2026-11-20 or 2026-11-20T08:00:00Z, found {found}"
                ));
            }
        }
        Ok(())
    }

    /// Times of the log compare as texts: all have the same form.
    fn takes(&self, line: &Chosen<'_>) -> bool {
        self.after.is_none_or(|after| line.sequence > after)
            && self.since.as_deref().is_none_or(|since| *line.time >= *since)
            && self.until.as_deref().is_none_or(|until| *line.time < *until)
            && self.event.as_deref().is_none_or(|event| line.event == event)
            && self.tenant.as_deref().is_none_or(|tenant| line.tenant.as_deref() == Some(tenant))
    }
}

/// Whether a text is a beginning of `2026-11-20T08:00:00Z` that ends after a whole part.
fn is_time(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00Z";
    let fits = text.bytes().zip(FORM).all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        form => byte == *form,
    });
    fits && [4, 7, 10, 16, 19, 20].contains(&text.len())
}

/// Calls `take` with each line that the filter takes, in the order of the log. What a crash or a running server left torn
/// at the end is passed over.
pub fn read_log(
    folder: &Path,
    filter: &AuditFilter,
    mut take: impl FnMut(u64, &[u8]) -> Result<ControlFlow<()>, ServingError>,
) -> Result<(), ServingError> {
    // Held until the end: no segment goes meanwhile.
    let _lock = lock_shared(folder);
    for segment in segments(folder)? {
        let mut lines = SegmentLines::open(&segment_path(folder, segment))?;
        loop {
            let Some(line) = lines.next_line()? else { break };
            let chosen: Result<Chosen<'_>, _> = serde_json::from_slice(line);
            match chosen {
                Err(error) => {
                    let problem = format!("not an event: {error}; `eulalia verify` says more");
                    return Err(lines.broken(problem));
                }
                Ok(chosen) if filter.takes(&chosen) => {
                    let sequence = chosen.sequence;
                    if take(sequence, line)?.is_break() {
                        return Ok(());
                    }
                }
                Ok(_) => {}
            }
        }
    }
    Ok(())
}

/// Writes the lines that the filter takes, in a format; returns how many.
pub fn export_log(
    folder: &Path,
    filter: &AuditFilter,
    format: AuditFormat,
    output: &mut dyn Write,
) -> Result<u64, ServingError> {
    let mut count = 0;
    read_log(folder, filter, |_, line| {
        let written = match format {
            AuditFormat::Jsonl => output.write_all(line),
            AuditFormat::Ecs => output.write_all(ecs::line(&object(line)).to_string().as_bytes()),
        };
        written.and_then(|()| output.write_all(b"\n")).map_err(|error| {
            ServingError::AuditFailed(format!("what was read cannot be written: {error}"))
        })?;
        count += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(count)
}

/// A line's fields; none if it is no object, which `read_log` refuses before.
pub fn object(line: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_parts_of_a_time() {
        for good in [
            "2026",
            "2026-11",
            "2026-11-20",
            "2026-11-20T08:00",
            "2026-11-20T08:00:00",
            "2026-11-20T08:00:00Z",
        ] {
            assert!(is_time(good), "{good}");
        }
        for bad in [
            "",
            "20",
            "2026-1",
            "2026-11-20 08:00",
            "yesterday",
            "2026-11-20T08:00:00+01:00",
            "2026-11-20T08:00:00ZZ",
        ] {
            assert!(!is_time(bad), "{bad}");
        }
    }
}
