//! Connections: how many at once, how long they may take for each thing, and how they end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use provenance::Cancellation;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::settings::ServeSettings;

/// How often the wish to stop is looked at.
const STOP_CHECK: Duration = Duration::from_millis(50);
/// Rest after a failed accept, such as for want of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Accepts connections until the wish to stop, then lets those under way finish. Returns how many there were.
pub async fn accept(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    settings: &ServeSettings,
    cancellation: &Cancellation,
) -> u64 {
    let places = Arc::new(Semaphore::new(settings.maximum_connections));
    let open = Arc::new(AtomicUsize::new(0));
    let (stop, stopping) = watch::channel(false);
    let acceptor = tls.map(TlsAcceptor::from);
    let mut connections = 0;
    loop {
        let accepted = tokio::select! {
            () = wait_for(cancellation) => break,
            accepted = accept_one(&listener, &places) => accepted,
        };
        let (place, stream) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(problem = %error, "a connection could not be accepted");
                sleep(ACCEPT_REST).await;
                continue;
            }
        };
        connections += 1;
        let connection = Connection {
            router: router.clone(),
            settings: settings.clone(),
            stopping: stopping.clone(),
            acceptor: acceptor.clone(),
        };
        open.fetch_add(1, Ordering::SeqCst);
        let open = open.clone();
        tokio::spawn(async move {
            connection.run(stream).await;
            open.fetch_sub(1, Ordering::SeqCst);
            drop(place);
        });
    }
    drop(listener);
    stop.send_replace(true);
    let deadline = Instant::now() + settings.drain_time();
    while open.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        sleep(STOP_CHECK / 5).await;
    }
    connections
}

async fn wait_for(cancellation: &Cancellation) {
    while !cancellation.is_cancelled() {
        sleep(STOP_CHECK).await;
    }
}

async fn accept_one(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(tokio::sync::OwnedSemaphorePermit, TcpStream)> {
    // The place first: who finds none waits in the system's queue, not in our memory.
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Small events of a stream go out at once.
    stream.set_nodelay(true)?;
    Ok((place, stream))
}

struct Connection {
    router: Router,
    settings: ServeSettings,
    stopping: watch::Receiver<bool>,
    acceptor: Option<TlsAcceptor>,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        let result = match &self.acceptor {
            None => self.serve(stream).await,
            Some(acceptor) => match timeout(self.settings.header_time(), acceptor.accept(stream)).await {
                Ok(Ok(stream)) => self.serve(stream).await,
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no TLS handshake in time".to_string()),
            },
        };
        if let Err(problem) = result {
            // Clients that leave, send nonsense or nothing: of interest only when one looks for it.
            tracing::debug!(problem, "a connection ended early");
        }
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), String> {
        let stream = Patient::new(stream, self.settings.stalled_client_time());
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.header_time())
            .max_buf_size(self.settings.header_limit_bytes);
        let service = TowerToHyperService::new(self.router.clone());
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut stopping = self.stopping.clone();
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            _ = stopping.wait_for(|stopping| *stopping) => None,
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
}

/// A stream whose other side must go on reading: a write that makes no progress for too long is an error.
struct Patient<S> {
    stream: S,
    patience: Duration,
    /// Set while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S: Unpin> Patient<S> {
    fn new(stream: S, patience: Duration) -> Patient<S> {
        Patient { stream, patience, waiting: None }
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that takes nothing.
    struct Stuck;

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[test]
    fn a_client_that_does_not_read_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut stream = Patient::new(Stuck, Duration::from_millis(20));
            let written =
                std::future::poll_fn(|context| Pin::new(&mut stream).poll_write(context, b"a")).await;
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }
}
