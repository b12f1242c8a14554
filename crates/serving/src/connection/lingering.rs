//! A close that lets the client read the last answer.
//!
//! Who closes a connection while bytes lie unread resets it, and the reset takes with it what the client has not read yet:
//! a refusal in the middle of a large body would never be seen. So the writing side is closed first, and what still comes
//! is read and thrown away for a while (RFC 9112, section 9.6).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long, and for how much, a closed connection is read on.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub bytes: usize,
    /// All in all.
    pub time: Duration,
    /// Between two pieces.
    pub pause: Duration,
}

/// Enough for what a client sends in one go; whoever sends more for longer is not waited for. nginx waits up to 30 and 5
/// seconds (`lingering_time`, `lingering_timeout`); here each connection holds a place.
pub const PATIENCE: Patience =
    Patience { bytes: 64 << 20, time: Duration::from_secs(10), pause: Duration::from_secs(2) };

/// Read at a time.
const PIECE: usize = 16 << 10;

/// Whether the client has sent, or is sending, something that nobody has read as a request.
#[derive(Default)]
pub struct Owed(AtomicBool);

impl Owed {
    pub fn is_owed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, is_owed: bool) {
        self.0.store(is_owed, Ordering::Relaxed);
    }
}

/// A stream that is closed that way if something is owed.
pub struct Lingering<S> {
    stream: S,
    owed: Arc<Owed>,
    patience: Patience,
    /// Once writing is closed.
    closing: Option<Closing>,
}

struct Closing {
    /// Bytes that may still come.
    left: usize,
    end: Instant,
    pause: Pin<Box<Sleep>>,
}

impl<S> Lingering<S> {
    pub fn new(stream: S, owed: Arc<Owed>, patience: Patience) -> Lingering<S> {
        Lingering { stream, owed, patience, closing: None }
    }
}

impl<S: AsyncRead + Unpin> Lingering<S> {
    /// Reads and throws away until the client closes or patience ends. Never an error: the connection ends either way.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Lingering { stream, patience, closing, .. } = self;
        let closing = closing.get_or_insert_with(|| Closing {
            left: patience.bytes,
            end: Instant::now() + patience.time,
            pause: Box::pin(sleep(patience.pause)),
        });
        let mut piece = [0; PIECE];
        while closing.left > 0 {
            let mut buffer = ReadBuf::new(&mut piece);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    closing.left = closing.left.saturating_sub(buffer.filled().len());
                    let next = Instant::now() + patience.pause;
                    closing.pause.as_mut().reset(next.min(closing.end));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return closing.pause.as_mut().poll(context),
            }
            if Instant::now() >= closing.end {
                return Poll::Ready(());
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.owed.set(true);
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            if !self.owed.is_owed() {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_drain(context).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A request's body that says when it has been read to its end: then nothing is owed.
pub struct OwedBody {
    body: Body,
    owed: Arc<Owed>,
}

impl OwedBody {
    pub fn new(body: Body, owed: Arc<Owed>) -> OwedBody {
        let body = OwedBody { body, owed };
        body.note_end();
        body
    }

    fn note_end(&self) {
        if self.body.is_end_stream() {
            self.owed.set(false);
        }
    }
}

impl HttpBody for OwedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match polled {
            Poll::Ready(None) => self.owed.set(false),
            _ => self.note_end(),
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

    /// A client that sends for ever, or one that says nothing and does not go.
    struct Client {
        sends: bool,
        read: usize,
    }

    impl AsyncRead for Client {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if !self.sends {
                return Poll::Pending;
            }
            let piece = buffer.remaining().min(1_000);
            buffer.put_slice(&vec![b'a'; piece]);
            self.read += piece;
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Client {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Bytes that were read while such a client's connection was closed.
    fn close(sends: bool, is_owed: bool) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let patience =
                Patience { bytes: 10_000, time: Duration::from_secs(600), pause: Duration::from_millis(20) };
            let owed = Arc::new(Owed::default());
            owed.set(is_owed);
            let mut stream = Lingering::new(Client { sends, read: 0 }, owed, patience);
            std::future::poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context)).await.unwrap();
            stream.stream.read
        })
    }

    #[test]
    fn a_close_waits_for_so_much_and_so_long_and_only_where_something_is_owed() {
        assert_eq!(close(true, true), 10_000);
        assert_eq!(close(false, true), 0);
        assert_eq!(close(true, false), 0);
    }
}
