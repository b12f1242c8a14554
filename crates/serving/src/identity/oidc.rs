//! Bearer tokens of an OpenID Connect issuer: whose they are and what they permit.
//!
//! The issuer's keys are fetched in the background and kept. A token with a key that is not known may be the first after
//! a rotation: then they are fetched at once, but not more often than every half minute, whatever tokens come. While the
//! issuer cannot be reached, known keys hold for a bounded time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::jwks::KeySet;
use super::token::{Expected, Refused, verified_claims};
use super::{Role, Scopes};
use crate::error::ServingError;
use crate::live::Live;
use crate::settings::OidcSettings;
use crate::spelling::is_same;

/// Between two fetches for tokens with unknown keys, and after one that failed.
const REST: Duration = Duration::from_secs(30);
/// For one fetch as a whole.
const FETCH_TIME: Duration = Duration::from_secs(5);
const LARGEST_SET_BYTES: u64 = 256 << 10;

/// An issuer, and its keys as far as they are known.
pub struct Issuer {
    settings: OidcSettings,
    agent: Option<ureq::Agent>,
    keys: Live<Option<Known>>,
    /// When keys were last asked for; held while they are.
    asked: Mutex<Option<Instant>>,
    /// Taken by who fetches on behalf of a request: however many wait, one thread does.
    pub turn: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Known {
    keys: Arc<KeySet>,
    at: Instant,
}

/// Whose token it is.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenHolder {
    /// Name of a tenant, which need not exist.
    pub tenant: String,
    /// The first of the roles that the token names, in the order of [`Role::ALL`].
    pub role: Role,
    /// What all its roles permit together.
    pub scopes: Scopes,
    /// Issuer and subject.
    pub subject: String,
}

/// Why a token opens nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenRefused {
    /// It is not what it should be.
    Invalid(String),
    /// It is whole, and says nothing that permits anything here.
    NoRights(String),
    /// The issuer's keys are not known, or no longer to be trusted.
    NoKeys,
}

impl Issuer {
    /// Reads the issuer's keys. A file that does not hold is an error; an issuer that cannot be reached now may be later.
    pub fn open(settings: &OidcSettings) -> Result<Issuer, ServingError> {
        let issuer = Issuer::without_keys(settings)?;
        match issuer.fetch() {
            Err(problem) if issuer.agent.is_none() => return Err(issuer.no_keys(problem)),
            Err(problem) => tracing::warn!(problem, "the issuer's keys cannot be fetched yet"),
            Ok(()) => {}
        }
        Ok(issuer)
    }

    /// The same for a server that runs with `before`: if the keys cannot be fetched from where they came from so far, those
    /// known hold on; another source must show keys before it is taken.
    pub fn reopen(settings: &OidcSettings, before: Option<&Issuer>) -> Result<Issuer, ServingError> {
        let issuer = Issuer::without_keys(settings)?;
        let Err(problem) = issuer.fetch() else { return Ok(issuer) };
        match before {
            Some(before) if issuer.agent.is_some() && before.settings.jwks_url == settings.jwks_url => {
                tracing::warn!(
                    problem,
                    "the issuer's keys cannot be fetched now; those known hold for a while"
                );
                issuer.keys.replace((*before.keys.get()).clone());
                Ok(issuer)
            }
            _ => Err(issuer.no_keys(problem)),
        }
    }

    fn without_keys(settings: &OidcSettings) -> Result<Issuer, ServingError> {
        Ok(Issuer {
            agent: settings.jwks_url.as_ref().map(|url| agent(settings, url)).transpose()?,
            settings: settings.clone(),
            keys: Live::new(None),
            turn: tokio::sync::Mutex::new(()),
            asked: Mutex::new(None),
        })
    }

    fn no_keys(&self, problem: String) -> ServingError {
        let key = if self.agent.is_some() { "oidc.jwks_url" } else { "oidc.jwks_file" };
        ServingError::Setting { key, expected: "a key set".to_string(), found: problem }
    }

    /// Reads the keys again when it is time. Blocks for some seconds at most; called every now and then.
    pub fn keep_fresh(&self) {
        let refresh = Duration::from_secs(self.settings.refresh_seconds);
        let age = self.keys.get().as_ref().as_ref().map(|known| known.at.elapsed());
        if age.is_none_or(|age| age >= refresh) {
            self.ask_again(REST.min(refresh));
        }
    }

    /// Whose token this is. May block for a fetch if `may_fetch`; `now` in seconds since 1970.
    pub fn holder(&self, token: &str, now: u64, may_fetch: bool) -> Result<TokenHolder, Step> {
        match self.claims(token, now) {
            Ok(claims) => {
                self.rights(&claims).map_err(|problem| Step::Refused(TokenRefused::NoRights(problem)))
            }
            Err(Some(Refused::Because(problem))) => {
                Err(Step::Refused(TokenRefused::Invalid(format!("this token opens nothing: {problem}"))))
            }
            Err(unknown) if may_fetch => {
                if self.ask_again(REST) {
                    return self.holder(token, now, false);
                }
                Err(Step::Refused(without_key(unknown)))
            }
            Err(unknown) if self.may_ask(REST) => Err(Step::FetchFirst(without_key(unknown))),
            Err(unknown) => Err(Step::Refused(without_key(unknown))),
        }
    }

    /// `Err(None)` if there are no keys to check with.
    fn claims(&self, token: &str, now: u64) -> Result<Map<String, Value>, Option<Refused>> {
        let known = self.keys.get();
        let known = known.as_ref().as_ref().ok_or(None)?;
        if known.at.elapsed() > Duration::from_secs(self.settings.stale_seconds) {
            return Err(None);
        }
        let expected = Expected {
            issuer: &self.settings.issuer,
            audience: &self.settings.audience,
            algorithms: &self.settings.algorithms,
            skew: self.settings.clock_skew_seconds,
        };
        verified_claims(token, &known.keys, &expected, now).map_err(Some)
    }

    fn rights(&self, claims: &Map<String, Value>) -> Result<TokenHolder, String> {
        let settings = &self.settings;
        let said =
            |claim: &Option<String>| claim.as_deref().map_or(Vec::new(), |claim| strings(claims, claim));
        let named = said(&settings.tenant_claim);
        let known: Vec<&String> = match settings.tenants.is_empty() {
            true => named.iter().collect(),
            false => named.iter().filter_map(|name| tenant_called(&settings.tenants, name)).collect(),
        };
        let tenant = match (known[..].first(), known.len()) {
            (Some(tenant), 1) => (*tenant).clone(),
            (Some(_), _) => return Err("this token names more than one tenant".to_string()),
            (None, _) => {
                settings.default_tenant.clone().ok_or("this token names no tenant of this server")?
            }
        };
        let said = said(&settings.role_claim);
        let mut roles: Vec<Role> = said.iter().filter_map(|name| settings.roles.get(name).copied()).collect();
        if roles.is_empty() {
            roles.extend(settings.default_role);
        }
        roles.sort();
        let Some(&role) = roles.first() else {
            return Err("this token names no role of this server".to_string());
        };
        let all: Vec<_> = roles.iter().flat_map(|role| role.scopes().iter().collect::<Vec<_>>()).collect();
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        let subject = format!("{}\n{subject}", settings.issuer);
        Ok(TokenHolder { tenant, role, scopes: Scopes::of(&all), subject })
    }

    fn may_ask(&self, rest: Duration) -> bool {
        match self.asked.try_lock() {
            Ok(asked) => asked.is_none_or(|asked| asked.elapsed() >= rest),
            // Somebody is asking: whoever waits for them gets the answer too.
            Err(_) => true,
        }
    }

    /// Fetches unless that was done within `rest`; waits for a fetch that is under way. Whether the keys are newer than
    /// before.
    fn ask_again(&self, rest: Duration) -> bool {
        let before = self.keys.get();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_none_or(|asked| asked.elapsed() >= rest) {
            *asked = Some(Instant::now());
            if let Err(problem) = self.fetch() {
                tracing::warn!(problem, "the issuer's keys cannot be fetched; those known hold for a while");
            }
        }
        !Arc::ptr_eq(&before, &self.keys.get())
    }

    fn fetch(&self) -> Result<(), String> {
        let mut bytes = Vec::new();
        let source: Box<dyn Read> = match (&self.agent, &self.settings.jwks_url, &self.settings.jwks_file) {
            (Some(agent), Some(url), _) => {
                let answer = agent.get(url).call().map_err(|error| format!("{url}: {error}"))?;
                if answer.status() != 200 {
                    return Err(format!("{url}: answered {}", answer.status()));
                }
                Box::new(answer.into_body().into_reader())
            }
            (_, _, Some(path)) => {
                Box::new(File::open(path).map_err(|error| format!("{}: {error}", path.display()))?)
            }
            _ => return Err("neither an address nor a file".to_string()),
        };
        source.take(LARGEST_SET_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > LARGEST_SET_BYTES {
            return Err(format!("the key set is larger than {LARGEST_SET_BYTES} bytes"));
        }
        let keys = KeySet::parse(&bytes)?;
        tracing::debug!(keys = keys.len(), "the issuer's keys were read");
        self.keys.replace(Some(Known { keys: Arc::new(keys), at: Instant::now() }));
        Ok(())
    }
}

/// Tries whether an issuer's keys can be read, and says how many there are. Blocks for five seconds at most.
pub fn try_issuer(settings: &OidcSettings) -> Result<usize, ServingError> {
    let issuer = Issuer::without_keys(settings)?;
    issuer.fetch().map_err(|problem| issuer.no_keys(problem))?;
    Ok(issuer.keys.get().as_ref().as_ref().map_or(0, |known| known.keys.len()))
}

/// What follows from a look at a token that does not block.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Refused(TokenRefused),
    /// Keys may be fetched, which blocks; this follows if they are not.
    FetchFirst(TokenRefused),
}

fn without_key(unknown: Option<Refused>) -> TokenRefused {
    match unknown {
        None => TokenRefused::NoKeys,
        Some(_) => TokenRefused::Invalid("this token opens nothing: its key is not the issuer's".to_string()),
    }
}

/// The tenant of what a claim says: as it stands in the settings, or in another spelling.
fn tenant_called<'a>(tenants: &'a BTreeMap<String, String>, said: &str) -> Option<&'a String> {
    tenants.get(said).or_else(|| tenants.iter().find(|(known, _)| is_same(known, said)).map(|(_, name)| name))
}

/// The strings that a claim holds: one, or a list of them. A claim whose name has points is looked for as it stands
/// before its points lead into objects.
fn strings(claims: &Map<String, Value>, claim: &str) -> Vec<String> {
    let found = claims.get(claim).or_else(|| {
        let mut parts = claim.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    });
    match found {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => {
            items.iter().filter_map(|item| item.as_str().map(String::from)).collect()
        }
        _ => Vec::new(),
    }
}

fn agent(settings: &OidcSettings, url: &str) -> Result<ureq::Agent, ServingError> {
    use ureq::tls::{Certificate, RootCerts, TlsConfig};
    let roots = match &settings.ca {
        None => RootCerts::PlatformVerifier,
        Some(path) => {
            let certificates = crate::tls::read_chain(path)?;
            let certificates: Vec<Certificate<'static>> = certificates
                .iter()
                .map(|certificate| Certificate::from_der(certificate).to_owned())
                .collect();
            RootCerts::from(certificates)
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build();
    let mut config = ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        // Who may say where keys are is the operator alone.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("eulalia/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(FETCH_TIME));
    if url.starts_with("http://") {
        config = config.proxy(None);
    }
    Ok(config.build().new_agent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_claim_says_is_known_however_it_is_written() {
        let tenants = BTreeMap::from([("Kraj Vysočina", "a"), ("E\u{301}cole", "b"), ("École", "c")])
            .into_iter()
            .map(|(said, name)| (said.to_string(), name.to_string()))
            .collect();
        for (said, expected) in [
            ("Kraj Vysočina", Some("a")),
            ("Kraj Vysoc\u{30C}ina", Some("a")),
            ("E\u{301}cole", Some("b")),
            ("École", Some("c")),
            ("Kraj Vysocina", None),
        ] {
            assert_eq!(tenant_called(&tenants, said).map(String::as_str), expected, "{said}");
        }
    }
}
