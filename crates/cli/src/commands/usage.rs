//! `eulalia usage`: what tenants have used of a server.

use serde_json::{Value, json};

use super::keys::seconds_since_1970;
use crate::arguments::UsageArguments;
use crate::commands::state;
use crate::console;
use crate::run::World;

/// A table for people; the rows themselves with `--json`.
pub fn usage(arguments: &UsageArguments, world: &World) -> anyhow::Result<Value> {
    let now = seconds_since_1970(world);
    state::must_be_here(&arguments.state)?;
    let tenant = arguments.tenant.as_ref().map(|name| state::tenant(&arguments.state, name)).transpose()?;
    let tenant = tenant.map(|tenant| tenant.id);
    let rows = serving::usage(&arguments.state, tenant.as_deref(), arguments.days, now)?;
    if rows.is_empty() && !serving::has_audit_log(&arguments.state) {
        let shown = arguments.state.display();
        world.console.say(&format!("{shown}: no server has used this state yet, and so there is no usage."));
        return Ok(json!({ "usage": rows }));
    }
    let names = [
        "date",
        "tenant",
        "key",
        "model",
        "requests",
        "refused",
        "prompt_tokens",
        "completion_tokens",
        "seconds",
    ];
    let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| names.iter().map(|name| cell(&row[*name])).collect()).collect();
    let header = names.map(|name| match name {
        "prompt_tokens" => "prompt",
        "completion_tokens" => "answer",
        name => name,
    });
    world.console.say(&console::table(&header, &cells, 4));
    Ok(json!({ "usage": rows }))
}
