//! Whose credential came with a request: a key, a token of the issuer, a session of the page, or a client certificate.
//!
//! What stands in `Authorization` counts alone, right or wrong. Wrong ones are counted by address and slowed.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::http::{HeaderValue, StatusCode};
use provenance::digest::sha256;

use crate::api::failure::ApiFailure;
use crate::connection::Peer;
use crate::error::ServingError;
use crate::identity::certificates::identify;
use crate::identity::oidc::{Issuer, Step, TokenHolder, TokenRefused};
use crate::identity::{Caller, client_address};
use crate::page;
use crate::server::Server;

/// The code for who shows no credential.
const NO_KEY: &str = "missing_api_key";

/// What a request shows of who sends it.
pub struct Shown {
    authorization: Option<HeaderValue>,
    /// Without `authorization`: who signed in on the page.
    signed_in: Result<Option<Caller>, ApiFailure>,
    peer: Option<Peer>,
    /// A page of another site sends it.
    from_another_site: bool,
    address: IpAddr,
}

impl Shown {
    pub fn of(server: &Server, request: &Request) -> Shown {
        let headers = request.headers();
        let peer = request.extensions().get::<Peer>().cloned();
        let connected = peer.as_ref().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.address.ip());
        let authorization = headers.get(AUTHORIZATION).cloned();
        let signed_in = if authorization.is_some() { Ok(None) } else { signed_in(server, request) };
        Shown {
            authorization,
            signed_in,
            peer,
            from_another_site: !request.method().is_safe()
                && headers.contains_key(ORIGIN)
                && !page::is_same_origin(headers, request.uri()),
            address: client_address(connected, headers, &server.settings().trusted_proxies),
        }
    }
}

impl Shown {
    /// Where the request comes from.
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

/// Whether a failure is that of somebody who tried to sign in; who shows nothing did not.
pub fn is_refused_sign_in(failure: &ApiFailure) -> bool {
    let refuses = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS];
    refuses.contains(&failure.status) && failure.code != NO_KEY
}

/// Whose credential it is.
pub async fn caller(server: &Arc<Server>, shown: Shown) -> Result<Caller, ApiFailure> {
    if let Some(authorization) = &shown.authorization {
        return throttled_bearer(server, authorization, shown.address).await;
    }
    if let Some(caller) = shown.signed_in? {
        return Ok(caller);
    }
    match of_certificate(server, shown.peer.as_ref())? {
        // Browsers show certificates on behalf of any site.
        Some(_) if shown.from_another_site => Err(cross_site()),
        Some(caller) => Ok(caller),
        None => {
            let message = "no key was given; send it as `Authorization: Bearer eu-…`";
            Err(unauthorized(NO_KEY, message))
        }
    }
}

fn unauthorized(code: &'static str, message: impl Into<String>) -> ApiFailure {
    ApiFailure::new(StatusCode::UNAUTHORIZED, code, message)
}

fn cross_site() -> ApiFailure {
    let message = "a signed-in page of this server may send this, another site may not";
    ApiFailure::new(StatusCode::FORBIDDEN, "cross_site_request", message)
}

fn internal(error: &ServingError) -> ApiFailure {
    ApiFailure::internal(&error.to_string())
}

/// Who signed in on the page, if the request comes from there and the key has not been revoked since.
fn signed_in(server: &Server, request: &Request) -> Result<Option<Caller>, ApiFailure> {
    let Some(caller) = server.sessions.caller(request.headers(), server.now()) else { return Ok(None) };
    if !request.method().is_safe() && !page::is_same_origin(request.headers(), request.uri()) {
        return Err(cross_site());
    }
    server.keys.caller_of(&caller.key_id, server.now()).map_err(|error| internal(&error))
}

async fn throttled_bearer(
    server: &Arc<Server>,
    authorization: &HeaderValue,
    address: IpAddr,
) -> Result<Caller, ApiFailure> {
    let digest = sha256(authorization.as_bytes()).0;
    if let Err(seconds) = server.throttle.may_try(address, &digest, Instant::now()) {
        let message = "too many wrong credentials came from this address; come again later";
        let failure = ApiFailure::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", message);
        return Err(ApiFailure { retry_after: Some(seconds), ..failure });
    }
    let found = bearer(server, authorization).await;
    match &found {
        Ok(_) => server.throttle.passed(address, &digest, Instant::now()),
        Err(failure) if failure.status == StatusCode::UNAUTHORIZED => {
            server.throttle.failed(address, &server.settings().throttle, Instant::now());
        }
        Err(_) => {}
    }
    found
}

async fn bearer(server: &Arc<Server>, authorization: &HeaderValue) -> Result<Caller, ApiFailure> {
    let presented = authorization.to_str().ok().and_then(|text| {
        let (scheme, key) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let presented = presented.unwrap_or_default();
    if presented.contains('.')
        && let Some(issuer) = &server.parts().issuer
    {
        return of_token(server, issuer, presented).await;
    }
    // A read of some tens of microseconds that no writer blocks (SQLite's write-ahead log): done where it stands.
    match server.keys.authenticate(presented, server.now()) {
        Ok(Some(caller)) => Ok(caller),
        Ok(None) => Err(unauthorized("invalid_api_key", "this key is wrong, expired or revoked")),
        Err(error) => Err(internal(&error)),
    }
}

async fn of_token(server: &Arc<Server>, issuer: &Arc<Issuer>, token: &str) -> Result<Caller, ApiFailure> {
    let now = server.now();
    let mut holder = issuer.holder(token, now, false);
    if matches!(holder, Err(Step::FetchFirst(_))) {
        let _turn = issuer.turn.lock().await;
        // Who had the turn before may have fetched the key.
        holder = issuer.holder(token, now, false);
        if matches!(holder, Err(Step::FetchFirst(_))) {
            let (issuer, token) = (issuer.clone(), token.to_string());
            let fetched = tokio::task::spawn_blocking(move || issuer.holder(&token, now, true)).await;
            holder = fetched.map_err(ApiFailure::of_task)?;
        }
    }
    match holder {
        Ok(holder) => token_caller(server, holder),
        Err(Step::Refused(refused) | Step::FetchFirst(refused)) => Err(match refused {
            TokenRefused::Invalid(message) => unauthorized("invalid_token", message),
            TokenRefused::NoRights(message) => ApiFailure::new(StatusCode::FORBIDDEN, "no_rights", message),
            TokenRefused::NoKeys => {
                let message =
                    "the issuer of tokens cannot be reached, so none can be checked; try again later";
                ApiFailure::new(StatusCode::SERVICE_UNAVAILABLE, "issuer_unreachable", message)
            }
        }),
    }
}

fn token_caller(server: &Server, holder: TokenHolder) -> Result<Caller, ApiFailure> {
    let Some((tenant, policy)) = server.keys.tenant(&holder.tenant).map_err(|error| internal(&error))? else {
        let message = "this token names a tenant that this server does not have";
        return Err(ApiFailure::new(StatusCode::FORBIDDEN, "no_rights", message));
    };
    let key_id = format!("oidc-{}", server.pseudonym(&holder.subject));
    Ok(Caller { tenant, key_id, role: holder.role, scopes: holder.scopes, policy })
}

fn of_certificate(server: &Server, peer: Option<&Peer>) -> Result<Option<Caller>, ApiFailure> {
    let settings = server.settings();
    let Some(certificate) = peer.and_then(|peer| peer.certificates.first()) else { return Ok(None) };
    let rules = settings.tls.as_ref().map_or(&[][..], |tls| &tls.clients);
    let Some((rule, fingerprint)) = identify(certificate, rules) else { return Ok(None) };
    let tenant = server.keys.tenant(&rule.tenant).map_err(|error| internal(&error))?;
    let caller = tenant.map(|(tenant, policy)| Caller {
        tenant,
        key_id: format!("cert-{}", &fingerprint[..16]),
        role: rule.role,
        scopes: rule.role.scopes(),
        policy,
    });
    if caller.is_none() {
        tracing::warn!(fingerprint, "a client certificate is of a tenant that there is not");
    }
    Ok(caller)
}
