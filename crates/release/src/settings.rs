//! What a person says about a release; everything else comes from the record.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Name of the model, as the card's title.
    pub title: String,
    /// SPDX identifier of the licence of the weights, such as `Apache-2.0`.
    pub license: String,
    pub intended_use: String,
    pub limitations: String,
    pub provider: Provider,
    /// SPDX identifiers of the licences under which training texts may be passed on; texts under others are named by
    /// digest only.
    pub redistributable_licenses: Vec<String>,
}

/// Who publishes the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provider {
    pub name: String,
    pub contact: String,
    pub country: String,
}

impl Settings {
    /// Refuses settings that cannot be meant.
    pub fn check(&self) -> Result<(), String> {
        for (key, value) in [("title", &self.title), ("license", &self.license)] {
            if value.contains('\n') || value.len() > 200 {
                return Err(format!("{key} must be one line of at most 200 bytes"));
            }
        }
        Ok(())
    }
}
