//! Whom a server trusts to sign models: the keys of its settings, and the exceptions that the operator names.

use provenance::signature::{self, Demand, PublicKey, Standing};
use serving::{ModelSettings, ServeSettings};

use crate::commands::load::{self, Checked};
use crate::errors::{Usage, suggestion};
use crate::run::World;

/// The keys that the settings name, read.
pub struct Trust(Vec<PublicKey>);

impl Trust {
    /// Reads the keys. A file that is no key stops the server before anything is loaded.
    pub fn of(settings: &ServeSettings) -> anyhow::Result<Trust> {
        let keys: Result<Vec<PublicKey>, _> =
            settings.signatures.trusted_keys.iter().map(|path| PublicKey::read(path)).collect();
        Ok(Trust(keys?))
    }

    /// Checks a model that is to be served: its digests, and who signed it.
    pub fn check(&self, model: &ModelSettings, world: &World) -> anyhow::Result<Checked> {
        let own = model.public_key.as_ref().map(|path| PublicKey::read(path)).transpose()?;
        let keys = own.map(|key| vec![key]);
        let demand = Demand {
            signature: model.signature.as_deref(),
            keys: keys.as_deref().unwrap_or(&self.0),
            allow_unsigned: model.allow_unsigned,
        };
        load::check_for_service(&model.path, model.allow_unverified, &demand, world)
    }
}

/// Marks the models that `--allow-unsigned NAME` names.
pub fn allow_unsigned(names: &[String], models: &mut [ModelSettings]) -> anyhow::Result<()> {
    for name in names {
        let mut known = Vec::new();
        let mut found = false;
        for model in models.iter_mut() {
            let called = match &model.name {
                Some(name) => name.clone(),
                None => load::name_of(&model.path)?,
            };
            if called == *name {
                model.allow_unsigned = true;
                found = true;
            }
            known.push(called);
        }
        if !found {
            let advice = suggestion(name, known.iter().map(String::as_str));
            return Err(Usage(format!("--allow-unsigned: no model is called {name}{advice}")).into());
        }
    }
    Ok(())
}

/// What an operator should know of who vouches for a model; whether it is good news.
pub fn in_words(name: &str, standing: &Standing) -> (bool, String) {
    match standing {
        Standing::SignedBy(key) => (true, format!("{name} is signed by the key {}", signature::short(key))),
        Standing::Unsigned => {
            (false, format!("{name} is not signed: nobody vouches for it but whoever started this server"))
        }
        Standing::Unchecked(key) => (
            false,
            format!(
                "{name}: its signature lists these files, but the key that it names, {}, is none that this server trusts \
                 (--trust-key)",
                key.as_deref().map_or("of an unknown owner", signature::short)
            ),
        ),
    }
}
