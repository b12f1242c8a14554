//! The folder of a server's state, as the commands that look into it find it.

use std::path::Path;

use serving::{TenantRecord, TenantStore};

use crate::errors::Usage;

/// Whether a state is here.
pub fn is_here(state: &Path) -> bool {
    state.join("state.sqlite").is_file()
}

/// Refuses where no state is: whoever only looks, or changes what should be there, must not make one.
///
/// # Errors
/// Says how to make one.
pub fn must_be_here(state: &Path) -> anyhow::Result<()> {
    if is_here(state) {
        return Ok(());
    }
    let shown = state.display();
    Err(Usage(format!(
        "{shown}: there is no state of a server here; name the folder that `eulalia serve --state` was given, or make one \
         with `eulalia keys new --state {shown}`"
    ))
    .into())
}

/// A tenant by its name, or by its pseudonym in the audit log.
///
/// # Errors
/// Names those that there are, where it is none of them.
pub fn tenant(state: &Path, wanted: &str) -> anyhow::Result<TenantRecord> {
    let store = TenantStore::open(state)?;
    if let Some(named) = store.find(wanted)? {
        return Ok(named);
    }
    let tenants = store.list()?;
    let names: Vec<String> = tenants.iter().map(|tenant| tenant.name.clone()).collect();
    tenants.iter().find(|tenant| tenant.id == wanted).cloned().ok_or_else(|| {
        let known = if names.is_empty() { "there is none yet".to_string() } else { names.join(", ") };
        Usage(format!("--tenant: no tenant of {} is called {wanted}; there are: {known}", state.display()))
            .into()
    })
}
