//! `eulalia audit`: what an auditor asks of a server's audit log.

use serde_json::{Value, json};
use serving::AuditKey;

use crate::arguments::{AuditAction, AuditArguments};

/// Words go to standard error; what was asked for to standard output.
pub fn audit(arguments: &AuditArguments, json: bool) -> anyhow::Result<Value> {
    match &arguments.action {
        AuditAction::Key { state } => {
            let key = AuditKey::read(state)?.public();
            if !json {
                print!("{}", key.pem());
            }
            Ok(json!({ "id": key.id(), "public_key": key.pem() }))
        }
    }
}
