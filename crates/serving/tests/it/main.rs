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
mod memory;
mod metrics;
mod oidc;
mod openapi;
mod page;
mod panics;
mod quotas;
mod reloads;
mod secrets;
mod secure_upstreams;
mod stub;
mod tokens;
mod transport;
mod upstreams;
mod walls;

use compute::allocation::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
