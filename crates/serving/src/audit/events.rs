//! The kinds of events there are. `docs/reference/audit.md` lists their fields.

use super::chain::SEGMENT_OPENED;

/// Lines whose time is over were erased from a segment; names the digest of the segment's file as it is since.
pub const LINES_ERASED: &str = "lines_erased";
/// The oldest segments were removed; names the last line that went.
pub const SEGMENTS_REMOVED: &str = "segments_removed";
/// The clock does not show what it should after the time that has passed.
pub const CLOCK_JUMPED: &str = "clock_jumped";
/// What stands in the place of a line that was erased.
pub const ERASED: &str = "erased";

/// A backup begins; a signed head covers this line, so that the backup can end with it.
pub const BACKUP_TAKEN: &str = "backup_taken";

/// Every kind that a retention can be set for.
pub const KINDS: [&str; 18] = [
    "request",
    "content",
    "content_lost",
    "requests_refused",
    "strangers_refused",
    "sign_in_refused",
    "administration",
    "server_started",
    "server_stopped",
    "settings_reloaded",
    "settings_refused",
    "certificates_reloaded",
    "certificates_refused",
    "audit_read",
    BACKUP_TAKEN,
    "state_restored",
    "note_unreadable",
    CLOCK_JUMPED,
];

/// Whether lines of this kind hold the log together: they go with their segment, and are never erased alone.
pub fn holds_the_chain(kind: &str) -> bool {
    [SEGMENT_OPENED, LINES_ERASED, SEGMENTS_REMOVED].contains(&kind)
}
