//! What goes over the socket: a line with a bound and a deadline, and chunks ([`protocol`](super::protocol)).

use super::protocol::{CHUNK_AT_MOST, CHUNK_WITHIN};
use landfall_image::{Error, Result};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A connection whose reads and writes end at a moment, however slowly the other side goes on.
#[derive(Debug)]
pub(super) struct Timed<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl<'a> Timed<'a> {
    pub fn new(stream: &'a UnixStream, within: Duration) -> Timed<'a> {
        Timed { stream, until: Instant::now() + within }
    }

    /// The time begins again.
    fn again(&mut self, within: Duration) {
        self.until = Instant::now() + within;
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// The kernel says of a timeout that it would block.
fn timed(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

impl Read for Timed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        let mut stream = self.stream;
        stream.read(buf).map_err(timed)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        let mut stream = self.stream;
        stream.write(buf).map_err(timed)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line without its end. Where more than `at_most` bytes come, or something behind the line, it is refused.
pub(super) fn read_line(from: &mut impl Read, at_most: usize, may_follow: bool) -> Result<Vec<u8>> {
    let cannot = |error| Error::io("the other side of the helper's socket is silent", error);
    let mut line = Vec::new();
    let mut buf = [0; 4096];
    loop {
        // What follows is read by somebody else: byte by byte then.
        let step = if may_follow { 1 } else { buf.len() };
        let room = buf.get_mut(..step).unwrap_or_default();
        let count = match from.read(room) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other.map_err(cannot)?,
        };
        let came = room.get(..count).unwrap_or_default();
        if came.is_empty() {
            return Err(Error::refused("the connection ended before the line did"));
        }
        if line.len() + came.len() > at_most {
            return Err(Error::refused(format!("a line of more than {at_most} bytes")));
        }
        line.extend_from_slice(came);
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            if end + 1 < line.len() {
                return Err(Error::refused("something follows the request, which nobody has asked for"));
            }
            line.truncate(end);
            return Ok(line);
        }
    }
}

/// Reads chunks as one row of bytes, which ends where they end.
pub(super) struct Chunks<'a> {
    from: Timed<'a>,
    /// Of this chunk.
    left: usize,
    /// Bytes of all.
    total: u64,
    at_most: u64,
    is_ended: bool,
}

impl<'a> Chunks<'a> {
    pub fn new(stream: &'a UnixStream, at_most: u64) -> Chunks<'a> {
        Chunks { from: Timed::new(stream, CHUNK_WITHIN), left: 0, total: 0, at_most, is_ended: false }
    }

    /// True where all has come.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }
}

impl Read for Chunks<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let cut = || io::Error::new(ErrorKind::UnexpectedEof, "it was cut off");
        if self.is_ended || buf.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            self.from.again(CHUNK_WITHIN);
            let mut length = [0; 4];
            self.from.read_exact(&mut length).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => cut(),
                _ => error,
            })?;
            let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            if length == 0 {
                self.is_ended = true;
                return Ok(0);
            }
            self.total = self.total.saturating_add(length as u64);
            if length > CHUNK_AT_MOST || self.total > self.at_most {
                return Err(io::Error::new(ErrorKind::InvalidData, "it is longer than allowed"));
            }
            self.left = length;
        }
        let most = self.left.min(buf.len());
        let count = self.from.read(buf.get_mut(..most).unwrap_or_default())?;
        if count == 0 {
            return Err(cut());
        }
        self.left = self.left.saturating_sub(count);
        Ok(count)
    }
}

/// Writes a row of bytes as chunks. Without [`finish`](Self::finish) it is cut off.
pub(super) struct ChunkWriter<'a> {
    to: Timed<'a>,
    buffer: Vec<u8>,
}

impl<'a> ChunkWriter<'a> {
    pub fn new(stream: &'a UnixStream) -> ChunkWriter<'a> {
        ChunkWriter { to: Timed::new(stream, CHUNK_WITHIN), buffer: Vec::new() }
    }

    fn send(&mut self) -> io::Result<()> {
        for chunk in self.buffer.chunks(CHUNK_AT_MOST).filter(|chunk| !chunk.is_empty()) {
            self.to.again(CHUNK_WITHIN);
            let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            self.to.write_all(&length.to_be_bytes())?;
            self.to.write_all(chunk)?;
        }
        self.buffer.clear();
        Ok(())
    }

    /// Writes the end.
    pub fn finish(mut self) -> io::Result<()> {
        self.send()?;
        self.to.again(CHUNK_WITHIN);
        self.to.write_all(&0_u32.to_be_bytes())
    }
}

impl Write for ChunkWriter<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(buf);
        if self.buffer.len() >= 64 << 10 {
            self.send()?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn lines_have_a_bound_and_nothing_behind_them() {
        let read = |bytes: &[u8], at_most| {
            read_line(&mut &bytes[..], at_most, false).map_err(|error| error.says().to_owned())
        };
        assert_eq!(read(b"{}\n", 3).unwrap(), b"{}");
        assert!(read(b"{ }\n", 3).unwrap_err().contains("more than 3 bytes"));
        assert!(read(b"{}\nx", 64).unwrap_err().contains("follows"));
        assert!(read(b"{}", 64).unwrap_err().contains("ended before"));
        let mut two = &b"a\nb"[..];
        assert_eq!(read_line(&mut two, 64, true).unwrap(), b"a");
        assert_eq!(two, b"b");
    }

    #[test]
    fn a_slow_side_does_not_hold_the_line() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let drip = thread::spawn(move || {
            let mut theirs = theirs;
            for _ in 0..100 {
                if theirs.write_all(b" ").is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        let begin = Instant::now();
        let error = read_line(&mut Timed::new(&ours, Duration::from_millis(200)), 4096, false).unwrap_err();
        assert_eq!(error.io_error().unwrap().kind(), ErrorKind::TimedOut);
        assert!(begin.elapsed() < Duration::from_secs(1));
        drop(ours);
        drip.join().unwrap();
        // Nor does one that does not take its answer.
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut timed = Timed::new(&ours, Duration::from_millis(100));
        assert_eq!(timed.write_all(&vec![0; 16 << 20]).unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn chunks_come_whole_or_not_at_all() {
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sent = content.clone();
        let sender = thread::spawn(move || {
            let mut writer = ChunkWriter::new(&theirs);
            writer.write_all(&sent).unwrap();
            writer.finish().unwrap();
        });
        let mut chunks = Chunks::new(&ours, u64::MAX);
        let mut got = Vec::new();
        chunks.read_to_end(&mut got).unwrap();
        assert!(got == content && chunks.is_ended());
        sender.join().unwrap();
        let fails = |bytes: &[u8], at_most: u64| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(bytes).unwrap();
            drop(theirs);
            let mut chunks = Chunks::new(&ours, at_most);
            let error = chunks.read_to_end(&mut Vec::new()).unwrap_err();
            assert!(!chunks.is_ended());
            error.kind()
        };
        assert_eq!(fails(b"", 100), ErrorKind::UnexpectedEof);
        assert_eq!(fails(b"\0\0\0\x02a", 100), ErrorKind::UnexpectedEof);
        assert_eq!(fails(b"\0\0\0\x02ab", 100), ErrorKind::UnexpectedEof);
        assert_eq!(fails(b"\0\0", 100), ErrorKind::UnexpectedEof);
        assert_eq!(fails(b"\0\x10\0\x01", u64::MAX), ErrorKind::InvalidData);
        assert_eq!(fails(b"\0\0\0\x02ab\0\0\0\x02ab\0\0\0\0", 3), ErrorKind::InvalidData);
    }
}
