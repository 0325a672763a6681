//! What HTTP is spoken over: the other side has to take what it is sent, in time.

use super::flow::Flowing;
use super::limits::Limits;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What HTTP is spoken over.
pub(super) trait Line: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

/// A line whose other side has to take what it is sent, in time.
pub(super) struct Patient {
    line: Box<dyn Line>,
    stall: Duration,
    /// The same while a body of any length is on its way: whoever takes it may wait for somebody else.
    silence: Duration,
    flowing: Flowing,
    /// Until when it has to take something, while it does not.
    until: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    pub(super) fn new(line: Box<dyn Line>, limits: &Limits, flowing: Flowing) -> Patient {
        Patient { line, stall: limits.stall, silence: limits.silence, flowing, until: None }
    }

    fn waited<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.until = None;
            return polled;
        }
        let stall = if self.flowing.is_any() { self.silence } else { self.stall };
        let until =
            self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + stall)));
        match until.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client does not take its answer",
            ))),
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().line).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.line).poll_write(cx, buf);
        this.waited(cx, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.line).poll_flush(cx);
        this.waited(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.line).poll_shutdown(cx);
        this.waited(cx, polled)
    }
}
