//! The guard before every route, unknown ones included: nobody passes without a credential, but to what strangers may
//! see, and nobody without the scope that the route asks for. There are no CORS headers: a web page of another origin
//! cannot read anything here.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HOST, HeaderName, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::account::Account;
use crate::api::failure::{ApiFailure, Refusal};
use crate::credential::{self, Shown};
use crate::identity::{Caller, Scope};
use crate::limits::Admission;
use crate::operations::trace::TraceParent;
use crate::page;
use crate::routes::{self, Route};
use crate::server::Server;

/// The header that OpenAI's clients show as the request's id; the audit log has the same.
const REQUEST_ID: &str = "x-request-id";

/// Lets holders of a key pass, opens and settles the account of their request. A mistake of this program, wherever it shows,
/// costs the one request that meets it.
pub async fn guard(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let answer = without_panic(guarded(&server, request, next)).await;
    answer.unwrap_or_else(|failure| sealed(&server, failure.into_response()))
}

async fn guarded(server: &Arc<Server>, mut request: Request, next: Next) -> Response {
    if let Some(failure) = refuse_ambiguous(&request) {
        return sealed(server, failure.into_response());
    }
    let route = route_of(&request);
    if route.is_some_and(|route| route.scope.is_none()) {
        return sealed(server, next.run(request).await);
    }
    let shown = Shown::of(server, &request);
    let address = shown.address();
    let caller = match credential::caller(server, shown).await {
        Ok(caller) => caller,
        Err(failure) => {
            if failure.status == StatusCode::UNAUTHORIZED {
                server.strangers.fetch_add(1, Ordering::Relaxed);
            }
            if credential::is_refused_sign_in(&failure) {
                server.refused_sign_ins.note(address, failure.code);
            }
            let page = page::for_strangers(&request);
            return sealed(server, page.unwrap_or_else(|| failure.into_response()));
        }
    };
    server.requests.fetch_add(1, Ordering::Relaxed);
    let name = route.map_or(routes::UNKNOWN, |route| route.name);
    let forbidden = route.and_then(|route| route.scope).and_then(|scope| refuse_without(scope, &caller));
    let admitted = match &forbidden {
        None if is_counted(route) => server.limiter.admit(&caller, &server.settings().limits_in_force()),
        _ => Ok(Admission::unlimited()),
    };
    let admission = match admitted {
        Ok(admission) => admission,
        Err(failure) => return sealed(server, failure.into_response()),
    };
    let trace = server.tracer.begin(TraceParent::of(request.headers()));
    let account = match Account::open(server, trace, caller, admission, name) {
        Ok(account) => account,
        Err(error) => return sealed(server, ApiFailure::internal(&error.to_string()).into_response()),
    };
    request.extensions_mut().insert(account.clone());
    let mut response = match forbidden {
        Some(failure) => failure.into_response(),
        None => without_panic(next.run(request)).await.unwrap_or_else(IntoResponse::into_response),
    };
    if !account.is_streaming() {
        response = settled(&account, response).await;
    }
    account.admission().announce(response.headers_mut());
    if let Ok(id) = HeaderValue::from_str(account.id()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    sealed(server, response)
}

/// The answer, or a plain failure where making it panics. Where, the log says, and not what about (`log_panics`).
async fn without_panic(answer: impl Future<Output = Response>) -> Result<Response, ApiFailure> {
    // What a handler leaves half done is its own: what requests share stands behind locks that nothing panics under.
    let mut answer = pin!(answer);
    let answer = poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context)));
        polled.map_or_else(|panic| Poll::Ready(Err(panic)), |answer| answer.map(Ok))
    });
    answer.await.map_err(|_| ApiFailure::internal("it panicked"))
}

/// Refuses what someone before this server may read in another way: two credentials of which one counts, two hosts or none
/// (RFC 9112, 3.2; HTTP/2 carries the host otherwise).
fn refuse_ambiguous(request: &Request) -> Option<ApiFailure> {
    let count = |name: HeaderName| request.headers().get_all(name).iter().count();
    let found = match (count(AUTHORIZATION), count(HOST)) {
        (2.., _) => "`Authorization` more than once",
        (_, 2..) => "`Host` more than once",
        (_, 0) if request.version() == Version::HTTP_11 => "no `Host`",
        _ => return None,
    };
    let message = format!("the headers: expected one `Host` and at most one `Authorization`, found {found}");
    Some(ApiFailure::new(StatusCode::BAD_REQUEST, "malformed_headers", message))
}

/// Where the router will send the request.
fn route_of(request: &Request) -> Option<&'static Route> {
    let path = request.extensions().get::<MatchedPath>()?;
    routes::find(request.method(), path.as_str())
}

/// Whether limits count the request: all but the tasks of those who run the server, which a limit of their tenant must not
/// lock out.
fn is_counted(route: Option<&Route>) -> bool {
    route.and_then(|route| route.scope).is_none_or(|scope| scope == Scope::Inference)
}

fn refuse_without(scope: Scope, caller: &Caller) -> Option<ApiFailure> {
    (!caller.scopes.contains(scope)).then(|| {
        let message = format!("this key (role {}) lacks the scope `{}`", caller.role.name(), scope.name());
        ApiFailure::new(StatusCode::FORBIDDEN, "insufficient_scope", message)
    })
}

/// A whole answer goes out once its event is on disk.
async fn settled(account: &Account, response: Response) -> Response {
    let outcome = match response.status() {
        status if status.is_success() => "ok",
        status if status.is_server_error() => "failed",
        _ => "refused",
    };
    match account.settle(outcome, response.status()).await {
        Ok(()) => response,
        Err(failure) => failure.into_response(),
    }
}

/// Headers that every answer carries.
fn sealed(server: &Server, mut response: Response) -> Response {
    if let Some(Refusal(reason)) = response.extensions().get() {
        server.metrics.refused(reason);
    }
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
