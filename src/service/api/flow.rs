//! Bodies of any length: bytes that come in and go out as they are read and written, by threads that may wait for files.
//!
//! ```text
//! hyper's body -> a few pieces -> Incoming (Read)     a client that is cut off is an error of the reader
//! Outgoing (Write) -> a few pieces -> hyper's body    a writer that fails cuts the client off: its body has no end
//! ```

use super::call::Refusal;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::Frame;
use landfall_image::Error;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Pieces that are on their way.
const PIECES: usize = 8;
/// Bytes of one that goes out.
const PIECE: usize = 128 << 10;

/// How many bodies of a connection are on their way: it is not cut off for its age meanwhile.
#[derive(Clone, Debug, Default)]
pub(super) struct Flowing(Arc<AtomicUsize>);

/// One of them, with its place among all.
#[derive(Debug)]
pub(super) struct Flow(Arc<AtomicUsize>, #[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

impl Flowing {
    pub(super) fn begin(&self, place: OwnedSemaphorePermit) -> Flow {
        self.0.fetch_add(1, Ordering::Relaxed);
        Flow(Arc::clone(&self.0), place)
    }

    pub(super) fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that comes in, for a thread.
pub(super) struct Incoming {
    /// Nothing is asked of the client before somebody reads: it may wait for that (Expect: 100-continue).
    start: Option<oneshot::Sender<()>>,
    pieces: Receiver<io::Result<Bytes>>,
    piece: Bytes,
    has_ended: bool,
}

/// The reader of a body, and what brings it there: that ends with the body, or when nobody reads any longer. A client that sends nothing for
/// `silence` is given up.
pub(super) fn incoming(body: Body, silence: Duration) -> (Incoming, impl Future<Output = ()> + Send) {
    let (sender, pieces) = mpsc::channel(PIECES);
    let (start, started) = oneshot::channel();
    let incoming = Incoming { start: Some(start), pieces, piece: Bytes::new(), has_ended: false };
    let bring = async move {
        if started.await.is_ok() {
            bring(body, sender, silence).await;
        }
    };
    (incoming, bring)
}

async fn bring(mut body: Body, to: Sender<io::Result<Bytes>>, silence: Duration) {
    loop {
        let next = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let piece = match tokio::time::timeout(silence, next).await {
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client sends nothing any longer")),
            // The sender's end is what tells the reader that all of it was there.
            Ok(None) => Ok(Bytes::new()),
            Ok(Some(Err(error))) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, error)),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if data.is_empty() => continue,
                Ok(data) => Ok(data),
                Err(_) => continue,
            },
        };
        let is_last = piece.as_ref().map_or(true, Bytes::is_empty);
        if to.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

impl Read for Incoming {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(start) = self.start.take() {
            let _ = start.send(());
        }
        if self.piece.is_empty() && !self.has_ended {
            self.piece = match self.pieces.blocking_recv() {
                Some(piece) => piece?,
                // Whoever was to bring the rest is gone, and has not said that there is none.
                None => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client is gone")),
            };
            self.has_ended = self.piece.is_empty();
        }
        let count = self.piece.len().min(buf.len());
        buf[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// A body that goes out, for a thread.
pub(super) struct Outgoing {
    pieces: Sender<Result<Bytes, Error>>,
    piece: Vec<u8>,
}

/// What hyper sends.
struct Pieces {
    pieces: Receiver<Result<Bytes, Error>>,
    _flow: Option<Flow>,
}

/// A body with what `write` writes, in a thread that may wait; an error of it cuts the body off. What it does before its first byte is waited
/// for: an error until then is the answer.
pub(super) fn outgoing(
    flow: Option<Flow>,
    write: impl FnOnce(&mut Outgoing) -> Result<(), Error> + Send + 'static,
) -> Result<Body, Refusal> {
    let (sender, mut pieces) = mpsc::channel(PIECES);
    let work = move || {
        let mut out = Outgoing { pieces: sender, piece: Vec::with_capacity(PIECE) };
        let done = write(&mut out)
            .and_then(|()| out.flush().map_err(|error| Error::io("the answer cannot be sent", error)));
        if let Err(error) = done {
            tracing::warn!(%error, "an answer of the API ends before its time");
            // Nobody may wait for it any longer.
            let _ = out.pieces.blocking_send(Err(error));
        }
    };
    let started = std::thread::Builder::new().name("diff".into()).spawn(work);
    started.map_err(|error| Refusal::from(Error::io("cannot start a thread", error)))?;
    let first = match pieces.blocking_recv() {
        Some(Err(error)) => return Err(error.into()),
        first => first.and_then(Result::ok),
    };
    let rest = Pieces { pieces, _flow: flow };
    Ok(Body::new(Prefixed { first, rest }))
}

/// Its first piece is there already.
struct Prefixed {
    first: Option<Bytes>,
    rest: Pieces,
}

impl HttpBody for Prefixed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        match this.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => this.rest.pieces.poll_recv(cx).map(|next| next.map(|piece| piece.map(Frame::data))),
        }
    }
}

impl Write for Outgoing {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(buf);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone");
        self.pieces.blocking_send(Ok(piece.into())).map_err(gone)
    }
}
