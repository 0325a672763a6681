//! QEMU's machine protocol: one JSON object per line, commands answered in order, events in between.
//!
//! Source: QEMU's `docs/interop/qmp-spec.rst`.

use crate::{Error, Result};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::{Value, json};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest line taken: answers here have a few hundred bytes, the greeting about the same.
const LINE_AT_MOST: usize = 1 << 20;

/// How long a read may block before the caller's reasons to give up are looked at.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// Reasons to stop waiting besides time: asked again and again.
pub(super) trait Watch {
    /// An error where waiting has become pointless.
    fn check(&self) -> Result<()>;
    /// The same where the other side hung up: its end may be a moment away.
    fn hung_up(&self) -> Result<()>;
}

/// A connection to one QEMU.
pub(super) struct Qmp {
    stream: UnixStream,
    pending: Vec<u8>,
}

impl Qmp {
    /// Reads the greeting and leaves the negotiation mode. Returns QEMU's version, too.
    pub(super) fn open(stream: UnixStream, watch: &dyn Watch, within: Duration) -> Result<(Qmp, String)> {
        stream.set_read_timeout(Some(TICK)).map_err(|e| Error::io("cannot set up QMP", e))?;
        let mut qmp = Qmp { stream, pending: Vec::new() };
        let greeting = qmp.line(watch, Instant::now() + within)?;
        let version = &greeting["QMP"]["version"]["qemu"];
        let version = format!("{}.{}.{}", version["major"], version["minor"], version["micro"]);
        qmp.call("qmp_capabilities", json!({}), watch, within)?;
        Ok((qmp, version))
    }

    /// Runs a command and returns what it returns.
    pub(super) fn call(
        &mut self,
        command: &str,
        arguments: Value,
        watch: &dyn Watch,
        within: Duration,
    ) -> Result<Value> {
        self.call_with(command, arguments, None, watch, within)
    }

    /// Runs a command with a file descriptor beside it.
    pub(super) fn call_with(
        &mut self,
        command: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
        watch: &dyn Watch,
        within: Duration,
    ) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        let lost = |e: std::io::Error| Error::io(format!("cannot send {command} to QEMU"), e);
        match fd {
            None => self.stream.write_all(line.as_bytes()).map_err(lost)?,
            Some(fd) => {
                let fds = [fd];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                control.push(SendAncillaryMessage::ScmRights(&fds));
                let sent = rustix::net::sendmsg(
                    &self.stream,
                    &[IoSlice::new(line.as_bytes())],
                    &mut control,
                    SendFlags::NOSIGNAL,
                )
                .map_err(|e| lost(e.into()))?;
                self.stream.write_all(line.as_bytes().get(sent..).unwrap_or_default()).map_err(lost)?;
            }
        }
        let deadline = Instant::now() + within;
        loop {
            let mut answer = self.line(watch, deadline)?;
            if let Some(error) = answer.get("error") {
                let says = error["desc"].as_str().unwrap_or("an error without a description");
                return Err(Error::unsupported(format!("QEMU cannot do {command}: {says}")));
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            // An event.
        }
    }

    fn line(&mut self, watch: &dyn Watch, deadline: Instant) -> Result<Value> {
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return serde_json::from_slice(&line)
                    .map_err(|e| Error::corrupt(format!("QEMU's answer is no JSON: {e}")));
            }
            if self.pending.len() > LINE_AT_MOST {
                return Err(Error::refused(format!("QEMU answers with more than {LINE_AT_MOST} bytes")));
            }
            let mut buffer = [0; 8192];
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    watch.hung_up()?;
                    return Err(Error::io("QEMU hung up", ErrorKind::UnexpectedEof.into()));
                }
                Ok(len) => self.pending.extend(buffer.get(..len).unwrap_or_default()),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    watch.check()?;
                    if Instant::now() >= deadline {
                        return Err(Error::io("QEMU does not answer", ErrorKind::TimedOut.into()));
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("cannot hear QEMU", e)),
            }
        }
    }
}
