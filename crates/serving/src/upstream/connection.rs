//! Connections to one engine: made, kept for the next request, given up.
//!
//! HTTP/1.1, one request at a time on each. A connection whose answer was not read to its end is closed, which is how an
//! engine learns that nobody waits any more.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Largest head of an answer.
const HEAD_LIMIT: usize = 64 << 10;

/// Why there is no connection, or no answer over one.
#[derive(Debug)]
pub enum Failure {
    /// The request did not leave: another may be tried.
    NotSent(String),
    /// It left; what the engine did with it is not known.
    Sent(String),
    /// It left, and nothing came in time.
    TimedOut,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Failure::NotSent(problem) | Failure::Sent(problem) => formatter.write_str(problem),
            Failure::TimedOut => formatter.write_str("no answer in time"),
        }
    }
}

/// Where something is that speaks HTTP, and how it is reached.
pub struct Target<'a> {
    pub url: &'a str,
    /// Certificates in PEM that its own must lead to; without it those that the operating system trusts.
    pub ca: Option<&'a Path>,
    /// `http://` beyond loopback.
    pub allow_plain_http: bool,
    /// For a connection with its TLS handshake.
    pub connect_time: Duration,
    /// How long a connection is kept for the next request.
    pub keep: Duration,
}

/// Where an engine is, and the connections to it that wait.
pub struct Connections {
    host: String,
    port: u16,
    /// As the header `host` says it.
    pub authority: String,
    /// Of the interface, without a slash at the end.
    pub base_path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connect_time: Duration,
    keep: Duration,
    /// The last used last. Held for a push or a pop, never while waiting.
    idle: Mutex<Vec<(SendRequest<Body>, Instant)>>,
}

/// A connection while it is used.
pub struct Lease {
    sender: SendRequest<Body>,
    connections: Arc<Connections>,
}

impl Connections {
    /// Reads the address and, for https, the certificates.
    pub fn new(target: &Target) -> Result<Connections, String> {
        let expected = "`url`: expected http:// or https://, a host, and a path such as /v1";
        let uri: Uri = target.url.parse().map_err(|_| format!("{expected}, found {:?}", target.url))?;
        let host = uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_string();
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{expected}, found {:?}", target.url)),
        };
        let authority = uri.authority().map(|authority| authority.to_string()).unwrap_or_default();
        if bare.is_empty() || authority.contains('@') || uri.query().is_some() {
            return Err(format!("{expected}, without a user and a query, found {:?}", target.url));
        }
        let is_here =
            bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !is_https && !is_here && !target.allow_plain_http {
            return Err(
                "`url`: what is sent, a key with it, would travel in the clear to another machine: use https, or say \
                 `allow_plain_http = true` if something in between encrypts"
                    .to_string(),
            );
        }
        let tls = match is_https {
            false if target.ca.is_some() => {
                return Err("`ca`: expected an `url` with https, found http".to_string());
            }
            false => None,
            true => {
                let name = ServerName::try_from(bare.clone()).map_err(|error| format!("`url`: {error}"))?;
                let config = client_config(target.ca)?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        Ok(Connections {
            port: uri.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            host: bare,
            authority,
            base_path: uri.path().trim_end_matches('/').to_string(),
            tls,
            connect_time: target.connect_time,
            keep: target.keep,
            idle: Mutex::default(),
        })
    }

    /// A connection that is free, or a new one.
    pub async fn lease(self: &Arc<Self>, fresh: bool) -> Result<Lease, Failure> {
        if !fresh {
            while let Some((mut sender, since)) = self.pop() {
                // What is too old is closed by being dropped.
                if since.elapsed() < self.keep && !sender.is_closed() && sender.ready().await.is_ok() {
                    return Ok(Lease { sender, connections: self.clone() });
                }
            }
        }
        let sender = timeout(self.connect_time, self.connect())
            .await
            .map_err(|_| Failure::NotSent("no connection in time".to_string()))?
            .map_err(|error| Failure::NotSent(format!("no connection: {error}")))?;
        Ok(Lease { sender, connections: self.clone() })
    }

    fn pop(&self) -> Option<(SendRequest<Body>, Instant)> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> io::Result<SendRequest<Body>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => handshake(TokioIo::new(stream)).await,
            Some((connector, name)) => {
                handshake(TokioIo::new(connector.connect(name.clone(), stream).await?)).await
            }
        }
    }
}

async fn handshake<S>(stream: S) -> io::Result<SendRequest<Body>>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut builder = Builder::new();
    builder.max_buf_size(HEAD_LIMIT);
    let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(problem = %error, "a connection to an engine ended");
        }
    });
    Ok(sender)
}

impl Lease {
    /// Sends a request and waits for the head of its answer. A request that did not leave comes back, to be sent again.
    pub async fn send(
        &mut self,
        request: Request<Body>,
        patience: Duration,
    ) -> Result<Response<Incoming>, (Failure, Option<Request<Body>>)> {
        match timeout(patience, self.sender.try_send_request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(mut error)) => match error.take_message() {
                Some(request) => Err((Failure::NotSent(error.error().to_string()), Some(request))),
                None => Err((Failure::Sent(error.error().to_string()), None)),
            },
            Err(_) => Err((Failure::TimedOut, None)),
        }
    }

    /// The answer was read to its end: the connection is kept for another request.
    pub fn keep(self) {
        if !self.sender.is_closed() && !self.connections.keep.is_zero() {
            let mut idle = self.connections.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((self.sender, Instant::now()));
        }
    }
}

fn client_config(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| format!("TLS: {error}"))?;
    let Some(path) = ca else {
        let trusted = builder.with_platform_verifier().map_err(|error| format!("TLS: {error}"))?;
        return Ok(trusted.with_no_client_auth());
    };
    let trouble = |problem: String| format!("`ca`, {}: {problem}", path.display());
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| trouble(format!("expected certificates in PEM: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| trouble(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(trouble("expected at least one certificate in PEM, found none".to_string()));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
