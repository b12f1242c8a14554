//! The server from outside, over real sockets: who may pass, what is answered, what is refused, how it ends.

mod answers;
mod attacks;
mod auditing;
mod bombs;
mod certificates;
mod client;
mod conversations;
mod disasters;
mod documents;
mod guessing;
mod identity;
mod limits;
mod metrics;
mod oidc;
mod openapi;
mod page;
mod quotas;
mod reloads;
mod secrets;
mod secure_upstreams;
mod stub;
mod tokens;
#[cfg(feature = "opentelemetry")]
mod traces;
mod transport;
mod upstreams;
mod walls;
