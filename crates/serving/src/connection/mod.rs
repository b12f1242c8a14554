//! Connections: how many at once, how long they may take for each thing, and how they end.
//!
//! TLS tells by ALPN whether a client speaks HTTP/2 or HTTP/1.1. Without TLS there is HTTP/1.1 alone: HTTP/2 in the
//! clear brings request smuggling by upgrade and nothing that loopback needs.

mod activity;
mod lingering;
mod patient;
mod peer;
mod unread;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::http::header::{CONNECTION, EXPECT};
use axum::http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use self::activity::{Activity, Verdict, WatchedBody};
use self::lingering::{Lingering, Owed, OwedBody};
use self::patient::Patient;
pub use self::peer::Peer;
use self::unread::KeptBody;
use crate::identity::network;
use crate::live::Live;
use crate::settings::ServeSettings;
use crate::tls::{Certificates, HTTP2};

/// How often what is open is looked at while the server drains.
const DRAIN_CHECK: Duration = Duration::from_millis(10);
/// Rest after a failed accept, such as for want of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How often an HTTP/2 connection is judged, at most.
const JUDGED_EVERY: Duration = Duration::from_secs(1);

/// A body that was not wanted is read all the same if it is no longer than this and already there, so that its connection
/// can go on.
const SMALL_BODY_BYTES: u64 = 16 << 10;

/// Streams that a client opened and reset before they were accepted; more are an attack ("rapid reset",
/// CVE-2023-44487). hyper's own number.
const PENDING_RESETS: usize = 20;
/// Streams that the server itself had to reset because of what the client sent; more are an attack
/// (RUSTSEC-2024-0003). Honest clients cause none.
const ERROR_RESETS: usize = 64;
/// What one stream, and all of a connection, may send before the server has read it.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes of one stream's answer that wait in memory for the client to take them.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// A socket, and how what comes over it is answered.
pub struct Listening {
    pub listener: TcpListener,
    /// Without them, plain HTTP.
    pub certificates: Option<Arc<Certificates>>,
    pub router: Router,
    pub settings: Arc<Live<ServeSettings>>,
    /// Connections at once.
    pub places: usize,
}

/// Accepts connections until `stop`, then lets those under way finish. Returns how many there were.
pub async fn accept(listening: Listening, mut stop: watch::Receiver<bool>) -> u64 {
    let Listening { listener, certificates, router, settings, places } = listening;
    let places = Arc::new(Semaphore::new(places));
    let open = Arc::new(AtomicUsize::new(0));
    let crowded = Arc::new(AtomicBool::new(false));
    let peers = Arc::new(Peers::default());
    let mut connections = 0;
    loop {
        let accepted = tokio::select! {
            // An error says that whoever could ask to stop is gone.
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = accept_one(&listener, &places, &crowded) => accepted,
        };
        let (place, stream, address) = match accepted {
            Ok(accepted) => accepted,
            // It was reset while it waited: nobody else has to wait for that.
            Err(error) if is_of_client(&error) => continue,
            Err(error) => {
                tracing::warn!(problem = %error, "a connection could not be accepted");
                sleep(ACCEPT_REST).await;
                continue;
            }
        };
        connections += 1;
        let settings = settings.get();
        let Some(from) = peers.enter(address.ip(), settings.maximum_connections_per_address) else {
            tracing::debug!(%address, "a connection beyond the limit of its address was closed");
            continue;
        };
        let connection = Connection {
            router: router.clone(),
            settings,
            stop: stop.clone(),
            acceptor: certificates.as_ref().map(|certificates| TlsAcceptor::from(certificates.config())),
            address,
            crowded: crowded.clone(),
        };
        open.fetch_add(1, Ordering::SeqCst);
        let open = open.clone();
        tokio::spawn(async move {
            connection.run(stream).await;
            open.fetch_sub(1, Ordering::SeqCst);
            drop((place, from));
        });
    }
    drop(listener);
    let deadline = Instant::now() + settings.get().drain_time();
    while open.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        sleep(DRAIN_CHECK).await;
    }
    connections
}

async fn accept_one(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    crowded: &AtomicBool,
) -> io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    // The place first: who finds none waits in the system's queue, not in our memory.
    crowded.store(places.available_permits() == 0, Ordering::Relaxed);
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    crowded.store(false, Ordering::Relaxed);
    let (stream, address) = listener.accept().await?;
    // Small events of a stream go out at once; of a connection that is gone already, reading tells.
    let _ = stream.set_nodelay(true);
    Ok((place, stream, address))
}

/// Whether a connection could not be accepted for what its client did.
fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// How many connections each address has, so that none takes all places. Of IPv6 the network counts: who has one has 2⁶⁴
/// addresses.
#[derive(Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// One connection's place among those of its address.
struct FromPeer {
    peers: Arc<Peers>,
    address: IpAddr,
}

impl Peers {
    fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<FromPeer> {
        let address = network(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(FromPeer { peers: self.clone(), address })
    }
}

impl Drop for FromPeer {
    fn drop(&mut self) {
        let mut counts = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

struct Connection {
    router: Router,
    /// As they were when it was accepted.
    settings: Arc<ServeSettings>,
    stop: watch::Receiver<bool>,
    acceptor: Option<TlsAcceptor>,
    address: SocketAddr,
    /// All places are taken: who waits must get one.
    crowded: Arc<AtomicBool>,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        let result = match &self.acceptor {
            None => self.http1(stream, self.peer(None)).await,
            Some(acceptor) => match timeout(self.settings.header_time(), acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let session = stream.get_ref().1;
                    let peer = self.peer(session.peer_certificates());
                    if session.alpn_protocol() == Some(HTTP2) {
                        self.http2(stream, peer).await
                    } else {
                        self.http1(stream, peer).await
                    }
                }
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no TLS handshake in time".to_string()),
            },
        };
        if let Err(problem) = result {
            // Clients that leave, send nonsense or nothing: of interest only when one looks for it.
            tracing::debug!(problem, "a connection ended early");
        }
    }

    fn peer(&self, certificates: Option<&[rustls_pki_types::CertificateDer<'static>]>) -> Peer {
        Peer { address: self.address, certificates: certificates.unwrap_or_default().into() }
    }

    async fn http1(&self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer) -> Result<(), String> {
        let owed = Arc::new(Owed::default());
        let stream = Patient::new(stream, self.settings.stalled_client_time());
        let stream = Lingering::new(stream, owed.clone(), lingering::PATIENCE);
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.header_time())
            .max_buf_size(self.settings.header_limit_bytes);
        let router = TowerToHyperService::new(self.router.clone());
        let http1 = Http1 { owed, crowded: self.crowded.clone() };
        let requests = Requests { router, peer, version: Version::Http1(http1) };
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), requests));
        let mut stop = self.stop.clone();
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        ended.map_err(|error| error.to_string())
    }

    async fn http2(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
    ) -> Result<(), String> {
        let (idle, patience) = (self.settings.header_time(), self.settings.stalled_client_time());
        let stream = Patient::new(stream, patience);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.settings.maximum_streams)
            .max_header_list_size(u32::try_from(self.settings.header_limit_bytes).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(ERROR_RESETS)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            // A peer that vanished without a word is noticed while its answer is computed.
            .keep_alive_interval(idle)
            .keep_alive_timeout(idle);
        let activity = Arc::new(Activity::default());
        let router = TowerToHyperService::new(self.router.clone());
        let requests = Requests { router, peer, version: Version::Http2(activity.clone()) };
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), requests));
        let began = std::time::Instant::now();
        let mut looks = interval(JUDGED_EVERY.min(idle / 2).min(patience / 2));
        let (mut stop, mut stopping) = (self.stop.clone(), false);
        loop {
            tokio::select! {
                ended = connection.as_mut() => return ended.map_err(|error| error.to_string()),
                _ = stop.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = looks.tick() => {
                    match activity.verdict(began, std::time::Instant::now(), idle, patience) {
                        Verdict::Keep => {}
                        Verdict::End => connection.as_mut().graceful_shutdown(),
                        Verdict::Cut => return Err("nothing moves on it any more".to_string()),
                    }
                }
            }
        }
    }
}

/// Hands the requests of one connection to the router, with what is known of the other end.
struct Requests {
    router: TowerToHyperService<Router>,
    peer: Peer,
    version: Version,
}

/// What each version of HTTP has to be watched for.
enum Version {
    Http1(Http1),
    Http2(Arc<Activity>),
}

#[derive(Clone)]
struct Http1 {
    owed: Arc<Owed>,
    crowded: Arc<AtomicBool>,
}

impl Http1 {
    /// Says in the answer that it is the last of its connection, where it is.
    fn announce_end(&self, has_small_body: bool, response: &mut Response<Body>) {
        if self.crowded.load(Ordering::Relaxed) || (self.owed.is_owed() && !has_small_body) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer.clone());
        match &self.version {
            Version::Http1(http1) => {
                let http1 = http1.clone();
                let is_small =
                    request.body().size_hint().upper().is_some_and(|most| most <= SMALL_BODY_BYTES);
                // Who waits to be told to send has not sent, and will not be told.
                let has_small_body = is_small && !request.headers().contains_key(EXPECT);
                let request = request.map(|body| Body::new(OwedBody::new(body, http1.owed.clone())));
                let answer = self.router.call(request);
                Box::pin(async move {
                    let mut response = answer.await?;
                    http1.announce_end(has_small_body, &mut response);
                    Ok(response)
                })
            }
            Version::Http2(activity) => {
                let open = activity.begin();
                // Who waits to be told to send has not sent, and will not be told.
                let waits = request.headers().contains_key(EXPECT);
                let mut kept = None;
                let request = request.map(|body| Body::new(kept.insert(KeptBody::new(body)).clone()));
                let answer = self.router.call(request);
                Box::pin(async move {
                    let response = answer.await?;
                    if let Some(kept) = kept.filter(|_| !waits) {
                        kept.drain(lingering::PATIENCE).await;
                    }
                    Ok(response.map(|body| Body::new(WatchedBody::new(body, open))))
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let peers = Arc::new(Peers::default());
        let address = IpAddr::from([192, 0, 2, 1]);
        let first = peers.enter(address, 2);
        let second = peers.enter(address, 2);
        assert!(first.is_some() && second.is_some() && peers.enter(address, 2).is_none());
        assert!(peers.enter(IpAddr::from([192, 0, 2, 2]), 2).is_some());
        drop(first);
        assert!(peers.enter(address, 2).is_some());
        drop(second);
        let of_network = |host: u16| peers.enter(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]), 2);
        let held = [of_network(1), of_network(2)];
        assert!(held.iter().all(Option::is_some) && of_network(3).is_none(), "one network is one address");
        assert!(peers.enter(IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1]), 2).is_some());
        drop(held);
        assert!(peers.0.lock().unwrap().is_empty());
    }
}
