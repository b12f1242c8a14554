//! What is made of those settings that a running server can change: engines elsewhere, filters, the issuer of tokens.
//!
//! Made whole before any of it is taken, so that no request meets half of a change; who has begun with the old parts
//! keeps them to its end.

use std::sync::Arc;

use filters::Chains;

use crate::error::ServingError;
use crate::identity::oidc::Issuer;
use crate::settings::ServeSettings;
use crate::upstream::Upstreams;

/// Made of one state of the settings.
pub struct Parts {
    /// Engines that run elsewhere.
    pub upstreams: Upstreams,
    pub filters: Chains,
    /// Whose tokens are taken besides keys.
    pub issuer: Option<Arc<Issuer>>,
}

impl Parts {
    /// For a server that starts. An issuer that cannot be reached now may be later. Reads files; blocks for some seconds
    /// at most.
    pub fn open(settings: &ServeSettings) -> Result<Parts, ServingError> {
        let issuer = settings.oidc.as_ref().map(Issuer::open).transpose()?.map(Arc::new);
        Parts::with(settings, issuer, None)
    }

    /// For a server that runs: what is known of engines and issuer stays known, and an issuer that cannot be reached is
    /// none to change to.
    pub fn reopen(settings: &ServeSettings, before: &Parts) -> Result<Parts, ServingError> {
        let old = before.issuer.as_deref();
        let issuer = settings.oidc.as_ref().map(|oidc| Issuer::reopen(oidc, old)).transpose()?.map(Arc::new);
        Parts::with(settings, issuer, Some(&before.upstreams))
    }

    fn with(
        settings: &ServeSettings,
        issuer: Option<Arc<Issuer>>,
        before: Option<&Upstreams>,
    ) -> Result<Parts, ServingError> {
        Ok(Parts {
            upstreams: Upstreams::open(&settings.upstreams, before)?,
            filters: Chains::compile(&settings.filters)?,
            issuer,
        })
    }

    /// Names of the models that engines elsewhere have.
    pub fn names(&self) -> Vec<String> {
        self.upstreams.models().map(|model| model.name.clone()).collect()
    }
}
