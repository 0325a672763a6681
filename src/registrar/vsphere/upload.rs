//! A file on its way to the server: read where it lies, counted, stopped on request, with a sign of life in between.

use super::http::{Answer, Http};
use crate::event::Event;
use crate::registrar::Surroundings;
use landfall_image::convert::Progress;
use landfall_image::{Bytes, Error, FileOffset, Kind, Result, Source};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A lease ends after some minutes without a sign, a login after half an hour.
const SIGN: Duration = Duration::from_secs(10);

/// Where a file goes.
pub(super) struct To<'a> {
    pub method: &'a str,
    pub url: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    /// What it is called in messages.
    pub name: &'a str,
}

/// Sends a file. `sign` is called again and again meanwhile, with the bytes that were sent, from another thread.
///
/// # Errors
/// [`Kind::Interrupted`]; I/O where the server takes no more, or answers with anything but success.
pub(super) fn send(
    http: &Http,
    to: &To<'_>,
    source: &Source,
    around: &Surroundings<'_>,
    sign: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let progress = Progress::default();
    progress.start(source.len());
    let disk = to.name.to_owned();
    around.observer.event(Event::CopyStarted { disk, progress: progress.clone() });
    let done = AtomicBool::new(false);
    let mut content = Content { source, at: 0, progress: progress.clone(), around, broken: None };
    let sent = std::thread::scope(|scope| {
        let signs = scope.spawn(|| {
            let mut last = Instant::now();
            while !done.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(500));
                if last.elapsed() >= SIGN {
                    sign(progress.snapshot().read.0);
                    last = Instant::now();
                }
            }
        });
        let sent = http.send(to.method, to.url, to.headers, source.len(), &mut content);
        done.store(true, Ordering::Relaxed);
        signs.thread().unpark();
        sent
    });
    around.observer.event(Event::CopyFinished);
    if around.cancel.is_cancelled() {
        return Err(Error::interrupted());
    }
    if let Some(broken) = content.broken {
        return Err(broken);
    }
    let Answer { status, text, .. } = sent.map_err(|e| context(&e, to.name, content.at))?;
    if !(200..300).contains(&status) {
        let says: String = String::from_utf8_lossy(&text).chars().take(200).collect();
        return Err(Error::new(
            Kind::Io,
            format!(
                "the server answers {status} to {}: {}",
                to.name,
                says.split_whitespace().collect::<Vec<_>>().join(" ")
            ),
        ));
    }
    if content.at != source.len().0 {
        let says =
            format!("the server wanted only {} of the {} of {}", Bytes(content.at), source.len(), to.name);
        return Err(Error::new(Kind::Io, says));
    }
    Ok(())
}

/// The same failure, with how far it came.
fn context(error: &Error, name: &str, sent: u64) -> Error {
    let says = format!("{name} was cut off after {}: {error}", Bytes(sent));
    let new = Error::new(error.kind(), says);
    match error.hint_text() {
        Some(hint) => new.hint(hint),
        None => new.hint("see whether the server and the network between are well, then do it again"),
    }
}

struct Content<'a> {
    source: &'a Source,
    at: u64,
    progress: Progress,
    around: &'a Surroundings<'a>,
    /// Why reading ended; the client of the protocol does not pass it on.
    broken: Option<Error>,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.around.cancel.is_cancelled() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let left = usize::try_from(self.source.len().0.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        if self.around.pause(Bytes(want as u64)).is_err() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if let Err(error) = self.source.read_exact_at(FileOffset(self.at), &mut buffer[..want]) {
            let says = io::Error::other(error.to_string());
            self.broken = Some(error);
            return Err(says);
        }
        self.at += want as u64;
        self.progress.advance(Bytes(want as u64));
        Ok(want)
    }
}
