//! `GET /v1/usage`, `GET /admin/v1/usage`: what was used, by day, key and model.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::failure::ApiFailure;
use crate::account::Account;
use crate::server::Server;
use crate::store::UsageRow;
use crate::usage_report::{MOST_DAYS, MOST_ROWS, rendered};

const DAYS: u64 = 30;
const SECONDS_PER_DAY: u64 = 86_400;

/// `GET /v1/usage`: of the caller's own tenant.
pub async fn own(
    State(server): State<Arc<Server>>,
    Extension(account): Extension<Account>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiFailure> {
    let asked = Asked::read(query.as_deref().unwrap_or_default(), false)?;
    report(&server, Some(account.caller().tenant.clone()), asked.days).await
}

/// `GET /admin/v1/usage`: of all tenants, or of one by its name or id.
pub async fn all(
    State(server): State<Arc<Server>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiFailure> {
    let asked = Asked::read(query.as_deref().unwrap_or_default(), true)?;
    report(&server, asked.tenant, asked.days).await
}

async fn report(server: &Arc<Server>, tenant: Option<String>, days: u64) -> Result<Json<Value>, ApiFailure> {
    let since = (server.now() / SECONDS_PER_DAY).saturating_sub(days - 1);
    let server = server.clone();
    let reading =
        tokio::task::spawn_blocking(move || server.keys.store().usage(tenant.as_deref(), since, MOST_ROWS));
    let rows = reading.await.map_err(ApiFailure::of_task)?;
    let rows: Vec<UsageRow> = rows.map_err(|error| ApiFailure::internal(&error.to_string()))?;
    Ok(Json(json!({"object": "list", "data": rows.iter().map(rendered).collect::<Vec<_>>()})))
}

/// What the query says.
#[derive(Debug, PartialEq)]
struct Asked {
    tenant: Option<String>,
    days: u64,
}

impl Asked {
    fn read(query: &str, with_tenant: bool) -> Result<Asked, ApiFailure> {
        let mut asked = Asked { tenant: None, days: DAYS };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "days" => {
                    let days = value.parse().ok().filter(|days| (1..=MOST_DAYS).contains(days));
                    asked.days = days.ok_or_else(|| {
                        let expected = format!("a whole number from 1 to {MOST_DAYS}");
                        ApiFailure::field("days", expected, "something else")
                    })?;
                }
                "tenant" if with_tenant => asked.tenant = Some(unescaped(value)?),
                _ => {
                    let name: String = name.chars().take(64).collect();
                    let known = if with_tenant { "`days` and `tenant`" } else { "`days`" };
                    let message = format!("`{name}` is not supported by this route, which knows {known}");
                    return Err(ApiFailure {
                        param: Some(name),
                        ..ApiFailure::new(StatusCode::BAD_REQUEST, "unsupported_field", message)
                    });
                }
            }
        }
        Ok(asked)
    }
}

/// A value of a query without its escapes (`%20`, `+`).
fn unescaped(value: &str) -> Result<String, ApiFailure> {
    let wrong = || ApiFailure::field("tenant", "text in UTF-8 with escapes such as %20", "something else");
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_or_refused_by_name() {
        let asked = Asked::read("days=7&tenant=Universit%C3%A4t+A", true).unwrap();
        assert_eq!(asked, Asked { tenant: Some("Universität A".to_string()), days: 7 });
        assert_eq!(Asked::read("", false).unwrap().days, DAYS);
        for (query, param) in
            [("days=0", "days"), ("days=many", "days"), ("tenant=a", "tenant"), ("week=1", "week")]
        {
            assert_eq!(Asked::read(query, false).unwrap_err().param.as_deref(), Some(param), "{query}");
        }
        for value in ["%", "%4", "%zz", "%ff"] {
            assert!(unescaped(value).is_err(), "{value}");
        }
    }
}
