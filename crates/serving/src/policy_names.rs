//! Whether what the policies of tenants name is there: models and chains of filters.
//!
//! A tenant whose policy names filters that there are not is answered nothing, one that names models alone that there are
//! not sees none: slips that nobody should have to find by a complaint. The administration refuses such a policy; of one
//! that stands in the state already, the start, a reload and `eulalia serve --check` tell.

use std::path::Path;

use crate::error::ServingError;
use crate::identity::TenantPolicy;
use crate::settings::ServeSettings;
use crate::spelling::is_same;
use crate::store::Store;

/// What a server has, by name.
pub struct Known {
    /// `None` where not all are known.
    pub models: Option<Vec<String>>,
    pub filters: Vec<String>,
}

/// A name that stands for nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing {
    /// Of the policy, such as `models`.
    pub field: &'static str,
    pub name: String,
    /// What it could be.
    pub expected: String,
}

impl Known {
    /// What a policy names and this server has not.
    pub fn missing(&self, policy: &TenantPolicy) -> Vec<Missing> {
        let mut missing = Vec::new();
        if let (Some(known), Some(named)) = (&self.models, &policy.models) {
            for name in named.iter().filter(|name| !known.iter().any(|known| is_same(known, name))) {
                let expected = format!("names of models of this server ({})", list(known));
                missing.push(Missing { field: "models", name: shown(name), expected });
            }
        }
        if let Some(name) = policy.filters.as_ref().filter(|name| !self.filters.contains(name)) {
            let expected = match self.filters.is_empty() {
                true => "none: the settings of this server have no [filters.chains]".to_string(),
                false => format!("the name of a chain of filters of this server ({})", list(&self.filters)),
            };
            missing.push(Missing { field: "filters", name: shown(name), expected });
        }
        missing
    }
}

impl Missing {
    /// What follows for the tenant.
    pub fn consequence(&self) -> &'static str {
        match self.field {
            "filters" => "its requests are all refused",
            _ => "it cannot use that one",
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_string() } else { names.join(", ") }
}

/// A name in a message, cut.
fn shown(name: &str) -> String {
    name.chars().take(100).collect()
}

/// A line for each name in the policies of a state folder that stands for nothing, with the tenant's name. Changes nothing;
/// empty where there is no state yet. `models` is `None` where not all are known.
///
/// # Errors
/// If the state cannot be read, or another version of the program wrote it.
pub fn check_tenants(
    state: &Path,
    settings: &ServeSettings,
    models: Option<Vec<String>>,
) -> Result<Vec<String>, ServingError> {
    let Some(store) = Store::look(state)? else { return Ok(Vec::new()) };
    let known = Known { models, filters: settings.filters.chains.keys().cloned().collect() };
    let mut lines = Vec::new();
    for tenant in store.tenants()?.into_iter().filter(|tenant| tenant.removed_at.is_none()) {
        lines.extend(known.missing(&tenant.policy).into_iter().map(|missing| {
            format!(
                "tenant {}, `{}`: expected {}, found `{}`: {}",
                tenant.name,
                missing.field,
                missing.expected,
                missing.name,
                missing.consequence()
            )
        }));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenants::TenantStore;

    #[test]
    fn names_that_stand_for_nothing_are_found_and_nothing_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state ?#%41");
        let mut settings: ServeSettings =
            toml::from_str("[filters.chains.streng]\n[filters.chains.locker]\n").unwrap();
        let models = || Some(vec!["klein".to_string()]);
        assert!(check_tenants(&state, &settings, models()).unwrap().is_empty() && !state.exists());
        let tenants = TenantStore::open(&state).unwrap();
        let policy = |changes: &[&str]| {
            changes.iter().fold(TenantPolicy::default(), |policy, change| policy.with(change).unwrap())
        };
        tenants.new_tenant("Amt", &policy(&[r#"models=["klein"]"#, "filters=streng"]), 1).unwrap();
        let wrong = policy(&[r#"models=["klein", "groß"]"#, "filters=sterng"]);
        tenants.new_tenant("Żłobek", &wrong, 1).unwrap();
        tenants.new_tenant("weg", &wrong, 1).unwrap();
        tenants.remove("weg", 2).unwrap();
        let expected = [
            "tenant Żłobek, `models`: expected names of models of this server (klein), found `groß`: it cannot use that one",
            "tenant Żłobek, `filters`: expected the name of a chain of filters of this server (locker, streng), found \
             `sterng`: its requests are all refused",
        ];
        // While a server has it open, and when nobody has.
        assert_eq!(check_tenants(&state, &settings, models()).unwrap(), expected);
        drop(tenants);
        let files = || {
            let entries = std::fs::read_dir(&state).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = files();
        assert_eq!(check_tenants(&state, &settings, models()).unwrap(), expected);
        assert_eq!(files(), before);
        assert_eq!(check_tenants(&state, &settings, None).unwrap(), expected[1..]);
        settings.filters.chains.clear();
        let lines = check_tenants(&state, &settings, None).unwrap();
        assert!(lines.len() == 2 && lines[0].contains("[filters.chains]"), "{lines:?}");
    }
}
