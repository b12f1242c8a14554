//! Every route there is, in one table: what it is called in logs, what it asks of who comes, what answers.
//!
//! Router, guard and the OpenAPI document are made from it, so none of them can know a route that another does not.

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::routing::{MethodRouter, delete, get, patch, post};

use crate::api::audit;
use crate::api::failure::ApiFailure;
use crate::api::{admin, chat, completions, embeddings, models, tokens, usage};
use crate::guard;
use crate::identity::Scope;
use crate::openapi;
use crate::operations::{health, metrics};
use crate::page;
use crate::server::Server;

/// One method on one path.
pub struct Route {
    pub method: Method,
    /// As the router writes it, with `{names}` for what varies.
    pub path: &'static str,
    /// Method and path: what logs and metrics say, since a path that somebody made up could hold anything.
    pub name: &'static str,
    /// What it asks of who comes; `None` lets strangers in.
    pub scope: Option<Scope>,
    handler: fn() -> MethodRouter<Arc<Server>>,
}

/// The table.
pub static ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "/healthz",
        name: "GET /healthz",
        scope: None,
        handler: || get(health::live),
    },
    Route {
        method: Method::GET,
        path: "/readyz",
        name: "GET /readyz",
        scope: Some(Scope::Status),
        handler: || get(health::ready),
    },
    Route {
        method: Method::GET,
        path: "/metrics",
        name: "GET /metrics",
        scope: Some(Scope::Metrics),
        handler: || get(metrics::page),
    },
    Route {
        method: Method::GET,
        path: "/admin/v1/audit",
        name: "GET /admin/v1/audit",
        scope: Some(Scope::Audit),
        handler: || get(audit::read),
    },
    Route {
        method: Method::GET,
        path: "/openapi.json",
        name: "GET /openapi.json",
        scope: Some(Scope::Status),
        handler: || get(openapi::serve),
    },
    Route {
        method: Method::GET,
        path: page::PATH,
        name: "GET /",
        scope: Some(Scope::Inference),
        handler: || get(page::show),
    },
    Route {
        method: Method::POST,
        path: "/session",
        name: "POST /session",
        scope: Some(Scope::Inference),
        handler: || post(page::sign_in),
    },
    Route {
        method: Method::DELETE,
        path: "/session",
        name: "DELETE /session",
        scope: Some(Scope::Inference),
        handler: || delete(page::sign_out),
    },
    Route {
        method: Method::GET,
        path: "/v1/models",
        name: "GET /v1/models",
        scope: Some(Scope::Inference),
        handler: || get(models::list),
    },
    Route {
        method: Method::GET,
        path: "/v1/models/{id}",
        name: "GET /v1/models/{id}",
        scope: Some(Scope::Inference),
        handler: || get(models::show),
    },
    Route {
        method: Method::POST,
        path: "/v1/completions",
        name: "POST /v1/completions",
        scope: Some(Scope::Inference),
        handler: || post(completions::complete),
    },
    Route {
        method: Method::POST,
        path: "/v1/chat/completions",
        name: "POST /v1/chat/completions",
        scope: Some(Scope::Inference),
        handler: || post(chat::complete),
    },
    Route {
        method: Method::POST,
        path: "/v1/embeddings",
        name: "POST /v1/embeddings",
        scope: Some(Scope::Inference),
        handler: || post(embeddings::embed),
    },
    Route {
        method: Method::POST,
        path: "/tokenize",
        name: "POST /tokenize",
        scope: Some(Scope::Inference),
        handler: || post(tokens::tokenize),
    },
    Route {
        method: Method::POST,
        path: "/detokenize",
        name: "POST /detokenize",
        scope: Some(Scope::Inference),
        handler: || post(tokens::detokenize),
    },
    Route {
        method: Method::GET,
        path: "/tokenizer_info",
        name: "GET /tokenizer_info",
        scope: Some(Scope::Inference),
        handler: || get(tokens::info),
    },
    Route {
        method: Method::GET,
        path: "/admin/v1/tenants",
        name: "GET /admin/v1/tenants",
        scope: Some(Scope::Administer),
        handler: || get(admin::list_tenants),
    },
    Route {
        method: Method::POST,
        path: "/admin/v1/tenants",
        name: "POST /admin/v1/tenants",
        scope: Some(Scope::Administer),
        handler: || post(admin::new_tenant),
    },
    Route {
        method: Method::GET,
        path: "/admin/v1/tenants/{name}",
        name: "GET /admin/v1/tenants/{name}",
        scope: Some(Scope::Administer),
        handler: || get(admin::show_tenant),
    },
    Route {
        method: Method::PATCH,
        path: "/admin/v1/tenants/{name}",
        name: "PATCH /admin/v1/tenants/{name}",
        scope: Some(Scope::Administer),
        handler: || patch(admin::change_tenant),
    },
    Route {
        method: Method::DELETE,
        path: "/admin/v1/tenants/{name}",
        name: "DELETE /admin/v1/tenants/{name}",
        scope: Some(Scope::Administer),
        handler: || delete(admin::remove_tenant),
    },
    Route {
        method: Method::GET,
        path: "/admin/v1/keys",
        name: "GET /admin/v1/keys",
        scope: Some(Scope::Administer),
        handler: || get(admin::list_keys),
    },
    Route {
        method: Method::POST,
        path: "/admin/v1/keys",
        name: "POST /admin/v1/keys",
        scope: Some(Scope::Administer),
        handler: || post(admin::new_key),
    },
    Route {
        method: Method::GET,
        path: "/admin/v1/keys/{id}",
        name: "GET /admin/v1/keys/{id}",
        scope: Some(Scope::Administer),
        handler: || get(admin::show_key),
    },
    Route {
        method: Method::PATCH,
        path: "/admin/v1/keys/{id}",
        name: "PATCH /admin/v1/keys/{id}",
        scope: Some(Scope::Administer),
        handler: || patch(admin::change_key),
    },
    Route {
        method: Method::DELETE,
        path: "/admin/v1/keys/{id}",
        name: "DELETE /admin/v1/keys/{id}",
        scope: Some(Scope::Administer),
        handler: || delete(admin::revoke_key),
    },
    Route {
        method: Method::POST,
        path: "/admin/v1/keys/{id}/rotate",
        name: "POST /admin/v1/keys/{id}/rotate",
        scope: Some(Scope::Administer),
        handler: || post(admin::rotate_key),
    },
    Route {
        method: Method::GET,
        path: "/v1/usage",
        name: "GET /v1/usage",
        scope: Some(Scope::Inference),
        handler: || get(usage::own),
    },
    Route {
        method: Method::GET,
        path: "/admin/v1/usage",
        name: "GET /admin/v1/usage",
        scope: Some(Scope::Audit),
        handler: || get(usage::all),
    },
];

/// What unknown requests are called.
pub const UNKNOWN: &str = "unknown";

/// The route that answers this method on this path of the table. The router answers HEAD by what answers GET, so it asks for
/// the same rights.
pub fn find(method: &Method, path: &str) -> Option<&'static Route> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    ROUTES.iter().find(|route| route.method == method && route.path == path)
}

/// The whole router, with the guard before everything, unknown routes included.
pub fn router(server: &Arc<Server>) -> Router {
    let router =
        ROUTES.iter().fold(Router::new(), |router, route| router.route(route.path, (route.handler)()));
    router
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        // The last layer is the outermost: it stands before the fallbacks too.
        .layer(axum::middleware::from_fn_with_state(server.clone(), guard::guard))
        .with_state(server.clone())
}

async fn unknown_route() -> ApiFailure {
    let paths: Vec<&str> =
        ROUTES.iter().map(|route| route.path).filter(|path| path.starts_with("/v1/")).collect();
    let message = format!("there is no such route; this server has {}", paths.join(", "));
    ApiFailure::new(StatusCode::NOT_FOUND, "unknown_route", message)
}

async fn unknown_method() -> ApiFailure {
    let message = "this route does not take this method: GET for what is read, POST for what is asked";
    ApiFailure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_reach_health_alone_and_names_tell_routes_apart() {
        let open: Vec<&str> =
            ROUTES.iter().filter(|route| route.scope.is_none()).map(|route| route.path).collect();
        assert_eq!(open, ["/healthz"]);
        for (number, route) in ROUTES.iter().enumerate() {
            assert_eq!(route.name, format!("{} {}", route.method, route.path));
            assert!(ROUTES[..number].iter().all(|other| other.name != route.name));
        }
    }
}
