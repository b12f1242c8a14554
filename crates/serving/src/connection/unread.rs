//! Over HTTP/2, an answer that comes before its request has been read.
//!
//! A stream whose body nobody reads any more is reset once its answer is out, and some clients (curl among them) then report
//! a broken protocol instead of the answer. So what the client still sends is read and thrown away first, for a while.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, timeout, timeout_at};

use super::lingering::Patience;

/// A request's body that can still be read once its request has been answered.
#[derive(Clone)]
pub struct KeptBody(Arc<Mutex<Body>>);

impl KeptBody {
    pub fn new(body: Body) -> KeptBody {
        KeptBody(Arc::new(Mutex::new(body)))
    }

    /// Reads what is left and throws it away, until the client has sent all or patience ends.
    pub async fn drain(mut self, patience: Patience) {
        let end = Instant::now() + patience.time;
        let mut left = patience.bytes;
        while left > 0 && !self.is_end_stream() {
            let next = std::future::poll_fn(|context| Pin::new(&mut self).poll_frame(context));
            match timeout_at(end, timeout(patience.pause, next)).await {
                Ok(Ok(Some(Ok(frame)))) => left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len)),
                _ => return,
            }
        }
    }

    fn body(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for KeptBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}
