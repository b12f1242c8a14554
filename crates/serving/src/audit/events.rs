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

/// Every kind that a retention can be set for.
pub const KINDS: [&str; 27] = [
    "request",
    "content",
    "requests_refused",
    "strangers_refused",
    "login_failed",
    "server_started",
    "server_stopped",
    "server_draining",
    "settings_reloaded",
    "certificates_reloaded",
    "key_created",
    "key_changed",
    "key_revoked",
    "tenant_created",
    "tenant_changed",
    "tenant_removed",
    "session_opened",
    "session_closed",
    "upstream_down",
    "upstream_up",
    "release_refused",
    "filter_matched",
    "audit_read",
    "backup_taken",
    "state_restored",
    "state_changed",
    CLOCK_JUMPED,
];

/// Whether lines of this kind hold the log together: they go with their segment, and are never erased alone.
pub fn holds_the_chain(kind: &str) -> bool {
    [SEGMENT_OPENED, LINES_ERASED, SEGMENTS_REMOVED].contains(&kind)
}
