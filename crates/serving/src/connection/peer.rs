//! Who is at the other end of a connection, as far as the connection itself tells: an extension of every request.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

/// The other end of the connection that a request came over.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the connection comes from; behind a proxy, that is the proxy.
    pub address: SocketAddr,
    /// The chain that the client showed, its own certificate first; TLS has verified it. Empty if it showed none.
    pub certificates: Arc<[CertificateDer<'static>]>,
}
