//! The other side: what the console has the helper do.

use super::protocol::{ANSWER_AT_MOST, Answer, REQUEST_AT_MOST, Request, SOCKET, TAKEN_WITHIN};
use super::status::Status;
use super::stream::{ChunkWriter, Chunks, Timed, read_line};
use landfall_image::{Error, Kind, Result};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Changes of disks and networks take seconds; an update is written to a disk after it was sent, and a large disk has to be made. The helper
/// gives up before.
const ANSWERED_WITHIN: Duration = Duration::from_secs(22 * 60);
/// Journals of a few hundred MiB are less when they are packed.
const BUNDLE_AT_MOST: u64 = 1 << 30;

/// Asks the helper.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Default for Client {
    fn default() -> Client {
        Client::new(Path::new(SOCKET))
    }
}

impl Client {
    /// One for the helper at this socket: [`SOCKET`] on the appliance.
    pub fn new(socket: &Path) -> Client {
        Client { socket: socket.to_owned() }
    }

    /// How the machine is.
    ///
    /// # Errors
    /// The helper's; I/O where it does not answer.
    pub fn status(&self) -> Result<Status> {
        match self.ask(&Request::Status {})?.1 {
            Answer::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Has something done that neither takes nor gives a stream. What is to be known of it, for people.
    ///
    /// # Errors
    /// The helper's; I/O where it does not answer.
    pub fn change(&self, request: &Request) -> Result<Vec<String>> {
        done(self.ask(request)?.1)
    }

    /// Sends an update.
    ///
    /// # Errors
    /// The helper's; I/O where it does not answer, or `update` cannot be read.
    pub fn update(&self, update: &mut dyn Read) -> Result<Vec<String>> {
        let (stream, answer) = self.ask(&Request::Update {})?;
        if !matches!(answer, Answer::Send) {
            return done(answer).and_then(|_| Err(unexpected(&Answer::Send)));
        }
        let mut writer = ChunkWriter::new(&stream);
        let mut buf = vec![0; 256 << 10];
        let sent = loop {
            let count = match update.read(&mut buf) {
                Ok(0) => break writer.finish(),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("the update cannot be read", error)),
            };
            if let Err(error) = writer.write_all(buf.get(..count).unwrap_or_default()) {
                break Err(error);
            }
        };
        // Where it has seen enough it says why, and takes no more.
        match (self.answer(&stream), sent) {
            (Ok(answer), _) => done(answer),
            (Err(_), Err(error)) => Err(Error::io("the update cannot be sent", error)),
            (Err(error), Ok(())) => Err(error),
        }
    }

    /// Writes the support bundle, a .tar.zst, to `to`.
    ///
    /// # Errors
    /// The helper's; I/O where it does not answer or is cut off, or `to` cannot be written.
    pub fn support_bundle(&self, to: &mut dyn Write) -> Result<()> {
        let (stream, answer) = self.ask(&Request::SupportBundle {})?;
        if !matches!(answer, Answer::Stream) {
            return done(answer).and_then(|_| Err(unexpected(&Answer::Stream)));
        }
        let mut chunks = Chunks::new(&stream, BUNDLE_AT_MOST);
        io::copy(&mut chunks, to)
            .map_err(|error| Error::io("the support bundle did not come whole", error))?;
        Ok(())
    }

    fn ask(&self, request: &Request) -> Result<(UnixStream, Answer)> {
        let cannot = |error| {
            Error::io("the helper cannot be asked", error).in_file(&self.socket).hint(
                "see systemctl status landfall-helper.socket; users of the group landfall-console may ask",
            )
        };
        let mut line = serde_json::to_vec(request).map_err(|error| cannot(error.into()))?;
        line.push(b'\n');
        if line.len() > REQUEST_AT_MOST {
            return Err(Error::refused(format!(
                "a request of {} bytes; {REQUEST_AT_MOST} are allowed",
                line.len()
            ))
            .hint("give fewer or shorter values"));
        }
        let stream = UnixStream::connect(&self.socket).map_err(cannot)?;
        // A helper that refuses who asks does not wait for the question.
        let sent = Timed::new(&stream, TAKEN_WITHIN).write_all(&line);
        match (self.answer(&stream), sent) {
            (Ok(answer), _) => Ok((stream, answer)),
            (Err(_), Err(error)) => Err(cannot(error)),
            (Err(error), Ok(())) => Err(error),
        }
    }

    fn answer(&self, stream: &UnixStream) -> Result<Answer> {
        let line = read_line(&mut Timed::new(stream, ANSWERED_WITHIN), ANSWER_AT_MOST, true)
            .map_err(|error| error.in_file(&self.socket))?;
        serde_json::from_slice(&line).map_err(|error| {
            Error::corrupt(format!("the helper's answer is none: {error}")).in_file(&self.socket)
        })
    }
}

fn done(answer: Answer) -> Result<Vec<String>> {
    match answer {
        Answer::Done { says } => Ok(says),
        Answer::Error(told) => {
            let error = Error::new(told.kind, told.text);
            Err(match told.hint {
                Some(hint) => error.hint(hint),
                None => error,
            })
        }
        other => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &Answer) -> Error {
    if let Answer::Error(_) = answer {
        return done(answer.clone()).err().unwrap_or_else(|| Error::corrupt("the helper's answer is none"));
    }
    Error::new(Kind::Corrupt, "the helper's answer is to another question")
}
