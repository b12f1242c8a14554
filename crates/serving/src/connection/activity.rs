//! What goes on over one HTTP/2 connection, so that it ends when nothing does.
//!
//! HTTP/1.1 has one request at a time, and hyper's time limit on headers closes an idle connection. Over HTTP/2 a client
//! may answer pings for ever and ask nothing, or ask and never open the window for the answer. So the connection counts
//! its requests and knows which answers nobody takes.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// The requests of one connection.
#[derive(Default)]
pub struct Activity(Mutex<Requests>);

#[derive(Default)]
struct Requests {
    /// Requests whose answers have not ended.
    open: usize,
    /// Number of the next request.
    next: u64,
    /// When the last of them ended; `None` before the first.
    idle_since: Option<Instant>,
    /// Answers that have more to send and since when nobody has asked for it.
    untaken: BTreeMap<u64, Instant>,
}

/// What should become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Keep,
    /// No new requests; what is under way may end.
    End,
    /// Nothing on it moves any more.
    Cut,
}

impl Activity {
    /// Notes a request; it is open until the returned guard goes.
    pub fn begin(self: &Arc<Self>) -> OpenRequest {
        let mut requests = self.requests();
        requests.open += 1;
        requests.next += 1;
        OpenRequest { activity: self.clone(), number: requests.next }
    }

    /// Judges a connection that began at `began`: idle for longer than `idle`, or with an answer that nobody takes for
    /// longer than `patience`.
    pub fn verdict(&self, began: Instant, now: Instant, idle: Duration, patience: Duration) -> Verdict {
        let requests = self.requests();
        if requests.open == 0 {
            let since = requests.idle_since.unwrap_or(began);
            return if now.saturating_duration_since(since) >= idle { Verdict::Cut } else { Verdict::Keep };
        }
        let is_stalled = |since: &&Instant| now.saturating_duration_since(**since) >= patience;
        match requests.untaken.values().filter(is_stalled).count() {
            0 => Verdict::Keep,
            stalled if stalled == requests.open => Verdict::Cut,
            _ => Verdict::End,
        }
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        // Nothing that holds the lock can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request whose answer has not ended.
pub struct OpenRequest {
    activity: Arc<Activity>,
    number: u64,
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut requests = self.activity.requests();
        requests.untaken.remove(&self.number);
        requests.open -= 1;
        if requests.open == 0 {
            requests.idle_since = Some(Instant::now());
        }
    }
}

/// An answer's body that says when it waits to be taken.
pub struct WatchedBody {
    body: Body,
    request: OpenRequest,
}

impl WatchedBody {
    pub fn new(body: Body, request: OpenRequest) -> WatchedBody {
        let watched = WatchedBody { body, request };
        watched.wait();
        watched
    }

    fn wait(&self) {
        let mut requests = self.request.activity.requests();
        requests.untaken.insert(self.request.number, Instant::now());
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match polled {
            Poll::Ready(_) => self.wait(),
            // It is the answer that is not ready: its makers have time limits of their own.
            Poll::Pending => {
                self.request.activity.requests().untaken.remove(&self.request.number);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(10);
    const PATIENCE: Duration = Duration::from_secs(30);

    fn check(activity: &Activity, began: Instant, seconds: u64, expected: Verdict) {
        let found = activity.verdict(began, Instant::now() + Duration::from_secs(seconds), IDLE, PATIENCE);
        assert_eq!(found, expected, "after {seconds} s");
    }

    #[test]
    fn a_connection_without_requests_ends() {
        let (activity, began) = (Arc::new(Activity::default()), Instant::now());
        check(&activity, began, 9, Verdict::Keep);
        check(&activity, began, 11, Verdict::Cut);
        let computing = activity.begin();
        check(&activity, began, 3_000, Verdict::Keep);
        drop(computing);
        check(&activity, began, 11, Verdict::Cut);
    }

    #[test]
    fn an_answer_that_nobody_takes_ends_the_connection_once_nothing_else_moves() {
        let (activity, began) = (Arc::new(Activity::default()), Instant::now());
        let computing = activity.begin();
        let untaken = WatchedBody::new(Body::from("a"), activity.begin());
        check(&activity, began, 29, Verdict::Keep);
        check(&activity, began, 31, Verdict::End);
        drop(computing);
        check(&activity, began, 31, Verdict::Cut);
        drop(untaken);
        check(&activity, began, 5, Verdict::Keep);
    }
}
