//! Whose tokens a request is about: those of a model of ours, or of an engine elsewhere whose tokenizer the operator named.

use std::sync::Arc;

use axum::http::StatusCode;
use tokenizer::Tokenizer;

use super::failure::ApiFailure;
use super::models::ServedModel;
use crate::account::Account;
use crate::server::Server;
use crate::spelling::is_same;
use crate::upstream::UpstreamModel;

/// The tokens of one model.
pub enum Vocabulary {
    Own(ServedModel),
    Elsewhere(String, Arc<Tokenizer>),
}

impl Vocabulary {
    /// That of the model of this name, or without one, of the one model that the caller may use. Notes it in the account.
    pub fn of(server: &Server, account: &Account, name: Option<&str>) -> Result<Vocabulary, ApiFailure> {
        if let Some(model) = elsewhere(server, account, name) {
            server.describe_upstream(account, &model.name, None);
            let tokenizer = model.tokenizer.clone().ok_or_else(|| no_tokenizer(&model.name))?;
            return Ok(Vocabulary::Elsewhere(model.name.clone(), tokenizer));
        }
        let model = server.models.find_or_only(name, &account.caller().policy)?.clone();
        server.describe(account, &model, None);
        Ok(Vocabulary::Own(model))
    }

    pub fn model_name(&self) -> &str {
        match self {
            Vocabulary::Own(model) => &model.name,
            Vocabulary::Elsewhere(name, _) => name,
        }
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        match self {
            Vocabulary::Own(model) => model.engine.tokenizer(),
            Vocabulary::Elsewhere(_, tokenizer) => tokenizer,
        }
    }

    /// Tokens that fit the model; how many fit one that is elsewhere, nobody here knows.
    pub fn context_length(&self) -> Option<usize> {
        match self {
            Vocabulary::Own(model) => Some(model.engine.context_length()),
            Vocabulary::Elsewhere(..) => None,
        }
    }

    /// Refuses text that cannot fit the model however it is encoded.
    pub fn refuse_too_long(&self, bytes: usize, field: &str) -> Result<(), ApiFailure> {
        match self {
            Vocabulary::Own(model) => {
                model.engine.admit_bytes(bytes).map_err(|error| ApiFailure::from_submit(error, field))
            }
            Vocabulary::Elsewhere(..) => Ok(()),
        }
    }
}

/// The model elsewhere that is meant.
fn elsewhere(server: &Server, account: &Account, name: Option<&str>) -> Option<Arc<UpstreamModel>> {
    let policy = &account.caller().policy;
    let parts = server.parts();
    let mut models = parts.upstreams.models().filter(|model| policy.allows_model(&model.name));
    match name {
        Some(name) => models.find(|model| is_same(&model.name, name)).cloned(),
        None if server.models.allowed(policy).next().is_some() => None,
        None => models.next().filter(|_| models.next().is_none()).cloned(),
    }
}

fn no_tokenizer(name: &str) -> ApiFailure {
    let message = format!(
        "`{name}` runs elsewhere, and this server has no tokenizer for it: whoever runs it can name one (`tokenizers` of the \
         upstream)"
    );
    ApiFailure {
        param: Some("model".to_string()),
        ..ApiFailure::new(StatusCode::BAD_REQUEST, "no_tokenizer", message)
    }
}
