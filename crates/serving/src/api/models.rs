//! `GET /v1/models`, `GET /v1/models/{id}`: which models there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use inference::Engine;
use serde_json::{Value, json};

use super::failure::ApiFailure;
use super::path::PathPart;
use crate::account::Account;
use crate::error::ServingError;
use crate::identity::TenantPolicy;
use crate::live::Live;
use crate::server::Server;
use crate::spelling::composed;

/// A model under the name that clients give.
#[derive(Clone)]
pub struct ServedModel {
    pub name: String,
    pub engine: Arc<Engine>,
    /// An adapter of the engine that answers under this name.
    pub adapter: Option<String>,
    /// Digest of the release it comes from: goes to the audit log and, shortened, to clients as `system_fingerprint`.
    pub digest: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

/// Models by name.
pub struct Models {
    own: BTreeMap<String, ServedModel>,
    /// Names of those that engines elsewhere have.
    elsewhere: Live<Vec<String>>,
}

impl Models {
    pub fn new(models: Vec<ServedModel>, elsewhere: Vec<String>) -> Result<Models, ServingError> {
        let mut by_name = BTreeMap::new();
        for mut model in models {
            model.name = composed(&model.name).into_owned();
            if let Some(twice) = by_name.insert(model.name.clone(), model) {
                return Err(ServingError::ModelTwice { name: twice.name });
            }
        }
        let models = Models { own: by_name, elsewhere: Live::new(Vec::new()) };
        models.check_elsewhere(&elsewhere)?;
        models.set_elsewhere(elsewhere);
        Ok(models)
    }

    /// Whether engines elsewhere may have models of these names: none that is ours, and some if we have none.
    pub fn check_elsewhere(&self, names: &[String]) -> Result<(), ServingError> {
        match names.iter().find(|name| self.own.contains_key(*name)) {
            Some(name) => Err(ServingError::ModelTwice { name: name.clone() }),
            None if self.own.is_empty() && names.is_empty() => Err(ServingError::NoModel),
            None => Ok(()),
        }
    }

    /// From now on engines elsewhere have these.
    pub fn set_elsewhere(&self, names: Vec<String>) {
        self.elsewhere.replace(names);
    }

    pub fn iter(&self) -> impl Iterator<Item = &ServedModel> {
        self.own.values()
    }

    /// The models that a tenant may know of.
    pub fn allowed<'a>(&'a self, policy: &'a TenantPolicy) -> impl Iterator<Item = &'a ServedModel> {
        self.iter().filter(|model| policy.allows_model(&model.name))
    }

    /// The model of that name; models are never addressed by a path or anything else that a client makes up. One that the
    /// tenant may not use is answered like one that there is not.
    pub fn find(&self, name: &str, policy: &TenantPolicy) -> Result<&ServedModel, ApiFailure> {
        self.own.get(composed(name).as_ref()).filter(|model| policy.allows_model(&model.name)).ok_or_else(
            || {
                let shown: String = name.chars().take(100).collect();
                let elsewhere = self.elsewhere.get();
                let elsewhere = elsewhere.iter().filter(|name| policy.allows_model(name));
                let own = self.allowed(policy).map(|model| model.name.as_str());
                let names: Vec<&str> = own.chain(elsewhere.map(String::as_str)).collect();
                let names = if names.is_empty() { "none".to_string() } else { names.join(", ") };
                let message = format!("there is no model `{shown}`; you may use: {names}");
                ApiFailure {
                    param: Some("model".to_string()),
                    ..ApiFailure::new(StatusCode::NOT_FOUND, "model_not_found", message)
                }
            },
        )
    }

    /// The model of that name; without a name, the one model that the tenant may use.
    pub fn find_or_only(
        &self,
        name: Option<&str>,
        policy: &TenantPolicy,
    ) -> Result<&ServedModel, ApiFailure> {
        if let Some(name) = name {
            return self.find(name, policy);
        }
        let mut models = self.iter().filter(|model| policy.allows_model(&model.name));
        let elsewhere = self.elsewhere.get().iter().any(|name| policy.allows_model(name));
        match (models.next(), models.next()) {
            (Some(model), None) if !elsewhere => Ok(model),
            _ => Err(ApiFailure::field("model", "the name of a model, as there is not exactly one", "none")),
        }
    }
}

/// `GET /v1/models`
pub async fn list(State(server): State<Arc<Server>>, Extension(account): Extension<Account>) -> Response {
    let policy = &account.caller().policy;
    let parts = server.parts();
    let elsewhere = parts.upstreams.models().filter(|model| policy.allows_model(&model.name));
    let elsewhere = elsewhere.map(|model| description_elsewhere(&model.name));
    let models: Vec<Value> = server.models.allowed(policy).map(description).chain(elsewhere).collect();
    Json(json!({"object": "list", "data": models})).into_response()
}

/// `GET /v1/models/{id}`
pub async fn show(
    State(server): State<Arc<Server>>,
    Extension(account): Extension<Account>,
    PathPart(name): PathPart,
) -> Result<Json<Value>, ApiFailure> {
    let policy = &account.caller().policy;
    let parts = server.parts();
    if let Some(model) = parts.upstreams.find(&name).filter(|model| policy.allows_model(&model.name)) {
        return Ok(Json(description_elsewhere(&model.name)));
    }
    server.models.find(&name, policy).map(|model| Json(description(model)))
}

/// A model of an engine elsewhere: when it was made and what it can hold, nobody here knows.
fn description_elsewhere(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 0, "owned_by": "upstream"})
}

fn description(model: &ServedModel) -> Value {
    json!({
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "eulalia",
        "context_length": model.engine.context_length(),
        "digest": model.digest,
    })
}
