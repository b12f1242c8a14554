//! `eulalia tenants`: who shares a server, and what each may use.

use provenance::context::timestamp;
use serde_json::{Value, json};
use serving::{TenantPolicy, TenantRecord, TenantStore};

use crate::arguments::{TenantsAction, TenantsArguments};
use crate::commands::keys::seconds_since_1970;
use crate::commands::state;
use crate::console;
use crate::errors::Usage;
use crate::run::World;

pub fn tenants(arguments: &TenantsArguments, world: &World) -> anyhow::Result<Value> {
    let now = seconds_since_1970(world);
    match &arguments.action {
        TenantsAction::New { name, changes, state } => {
            let policy = changed(TenantPolicy::default(), changes)?;
            let is_new = !state::is_here(state);
            let make = |tenants: &TenantStore| tenants.new_tenant(name, &policy, now);
            let made =
                TenantStore::open(state)?.noting(now, "tenant_created", make, |made| made.id.clone())?;
            if is_new {
                let place = state.canonicalize().unwrap_or_else(|_| state.clone());
                world.console.say(&format!(
                    "There was no state of a server yet: a new one is in {}.",
                    place.display()
                ));
            }
            world.console.say(&format!("Tenant {}; in the audit log it is called {}.", made.name, made.id));
            say_what_is_not_checked(&policy, world);
            Ok(json!(made))
        }
        TenantsAction::List { state } => {
            state::must_be_here(state)?;
            let tenants = TenantStore::open(state)?.list()?;
            let rows: Vec<Vec<String>> = tenants.iter().map(row).collect();
            let header = ["name", "in the audit log", "made", "removed", "models"];
            world.console.say(&console::table(&header, &rows, 5));
            Ok(json!({ "tenants": tenants }))
        }
        TenantsAction::Show { name, state } => {
            state::must_be_here(state)?;
            let tenant = TenantStore::open(state)?.show(name)?;
            world.console.say(&format!(
                "{} ({}), made {}",
                tenant.name,
                tenant.id,
                timestamp(tenant.created_at)
            ));
            world.console.say(&serde_json::to_string_pretty(&tenant.policy)?);
            Ok(json!(tenant))
        }
        TenantsAction::Set { name, changes, state } => {
            state::must_be_here(state)?;
            let tenants = TenantStore::open(state)?;
            let policy = changed(tenants.show(name)?.policy, changes)?;
            let set = |tenants: &TenantStore| {
                tenants.set_policy(name, &policy)?;
                tenants.show(name)
            };
            tenants.noting(now, "tenant_changed", set, |tenant| tenant.id.clone())?;
            world.console.say(&format!("The policy of {name} holds from the next request on."));
            say_what_is_not_checked(&policy, world);
            Ok(json!(tenants.show(name)?))
        }
        TenantsAction::Remove { name, state } => {
            state::must_be_here(state)?;
            let tenants = TenantStore::open(state)?;
            let remove = |tenants: &TenantStore| {
                let tenant = tenants.show(name)?;
                tenants.remove(name, now)?;
                Ok(tenant)
            };
            let removed = tenants.noting(now, "tenant_removed", remove, |tenant| tenant.id.clone())?.name;
            world.console.say(&format!("Tenant {removed} is removed; its keys open nothing any more."));
            Ok(json!({ "removed": removed }))
        }
    }
}

/// Which models and filters a server has, its settings say, and they are not here.
fn say_what_is_not_checked(policy: &TenantPolicy, world: &World) {
    let names = [policy.models.as_ref().map(|_| "models"), policy.filters.as_ref().map(|_| "filters")];
    let names: Vec<&str> = names.into_iter().flatten().collect();
    if !names.is_empty() {
        world.console.say(&format!(
            "Whether the server has the {} that it names was not checked: `eulalia serve … --check` and the server's log tell.",
            names.join(" and ")
        ));
    }
}

fn changed(policy: TenantPolicy, changes: &[String]) -> anyhow::Result<TenantPolicy> {
    let changed = changes.iter().try_fold(policy, |policy, change| policy.with(change));
    changed.map_err(|error| Usage(error.to_string()).into())
}

fn row(tenant: &TenantRecord) -> Vec<String> {
    let models = tenant.policy.models.as_ref().map_or_else(|| "all".to_string(), |models| models.join(", "));
    vec![
        tenant.name.clone(),
        tenant.id.clone(),
        timestamp(tenant.created_at),
        tenant.removed_at.map_or_else(|| "–".to_string(), timestamp),
        models,
    ]
}
