//! How long each kind of event stays in the audit log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::audit::events::{ERASED, KINDS};
use crate::error::ServingError;

/// Six months and a little: what Article 26(6) of the AI Act asks of who deploys a high-risk system, and a sensible
/// default for others. No six months have more days.
const DEFAULT_DAYS: u64 = 184;
const DAY_SECONDS: u64 = 86_400;

/// For each kind of event a number of days, such as `request = "184d"`; `default` for those that are not named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RetentionSettings(BTreeMap<String, String>);

impl RetentionSettings {
    /// One period for one kind.
    pub fn with(mut self, kind: &str, period: &str) -> RetentionSettings {
        self.0.insert(kind.to_string(), period.to_string());
        self
    }

    pub(super) fn check(&self) -> Result<(), ServingError> {
        for (kind, period) in &self.0 {
            if kind != "default" && !KINDS.contains(&kind.as_str()) {
                return Err(ServingError::Setting {
                    key: "audit.retention",
                    expected: format!("`default` or a kind of event ({})", KINDS.join(", ")),
                    found: kind.clone(),
                });
            }
            if days(period).is_none() {
                return Err(ServingError::Setting {
                    key: "audit.retention",
                    expected: format!("`{kind}` as a number of days from 1 to 36500, such as \"184d\""),
                    found: period.clone(),
                });
            }
        }
        Ok(())
    }

    /// How long lines of this kind stay, in seconds.
    pub(crate) fn seconds(&self, kind: &str) -> u64 {
        debug_assert!(kind != ERASED, "what is erased stays erased");
        let period = self.0.get(kind).or_else(|| self.0.get("default"));
        period.and_then(|period| days(period)).unwrap_or(DEFAULT_DAYS) * DAY_SECONDS
    }

    /// The shortest of all periods, in seconds: nothing is over before.
    pub(crate) fn shortest_seconds(&self) -> u64 {
        KINDS.iter().map(|kind| self.seconds(kind)).min().unwrap_or(DEFAULT_DAYS * DAY_SECONDS)
    }
}

fn days(period: &str) -> Option<u64> {
    let days: u64 = period.strip_suffix('d')?.parse().ok()?;
    (1..=36_500).contains(&days).then_some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_days_and_kinds_are_known() {
        let settings = RetentionSettings::default().with("content", "30d").with("default", "400d");
        settings.check().unwrap();
        assert_eq!(settings.seconds("content"), 30 * DAY_SECONDS);
        assert_eq!(settings.seconds("request"), 400 * DAY_SECONDS);
        assert_eq!(settings.shortest_seconds(), 30 * DAY_SECONDS);
        assert_eq!(RetentionSettings::default().seconds("request"), 184 * DAY_SECONDS);
        for (kind, period) in [("request", "0d"), ("request", "1y"), ("request", "d"), ("requests", "1d")] {
            let error = RetentionSettings::default().with(kind, period).check().unwrap_err().to_string();
            assert!(error.contains("audit.retention"), "{error}");
        }
    }
}
