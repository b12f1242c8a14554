//! Opening kept conversations with the keys of their tenant: done wherever those keys are, never by a server.

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Map, Value};

use super::content::NamedContent;
use super::read::{AuditFilter, object, read_log};
use crate::age::{Identity, decrypt};
use crate::error::ServingError;

/// A conversation that was opened.
pub struct Opened {
    /// The line that names it.
    pub line: Map<String, Value>,
    /// What was kept: `id`, the prompt's field, `answers`, `truncated`.
    pub conversation: Map<String, Value>,
}

/// How many conversations were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct OpenedConversations {
    pub opened: u64,
    /// Sealed for other keys.
    pub for_others: u64,
}

/// See [`crate::open_conversations`].
pub fn open_conversations(
    folder: &Path,
    filter: &AuditFilter,
    id: Option<&str>,
    identities: &[Identity],
    mut take: impl FnMut(Opened) -> ControlFlow<()>,
) -> Result<OpenedConversations, ServingError> {
    let filter = AuditFilter { event: Some("content".to_string()), ..filter.clone() };
    let mut found = OpenedConversations::default();
    read_log(folder, &filter, |_, line| {
        let Some(content) = NamedContent::of_line(line) else { return Ok(ControlFlow::Continue(())) };
        let line = object(line);
        if id.is_some_and(|id| line.get("id").and_then(Value::as_str) != Some(id)) {
            return Ok(ControlFlow::Continue(()));
        }
        let sealed = content.read(folder)?;
        let broken = |problem: String| ServingError::AuditUnreadable { path: content.path(folder), problem };
        let Some(text) = decrypt(identities, &sealed).map_err(broken)? else {
            found.for_others += 1;
            return Ok(ControlFlow::Continue(()));
        };
        let conversation: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|error| broken(format!("what is sealed in it is no conversation: {error}")))?;
        found.opened += 1;
        Ok(take(Opened { line, conversation }))
    })?;
    Ok(found)
}
