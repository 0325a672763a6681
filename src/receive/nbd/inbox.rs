//! What has come from a client and was not looked at yet, and the requests in it. No socket is in here.

use landfall_image::nbd::protocol::{CMD_WRITE, REQUEST_AT_MOST, Request};
use landfall_image::{Error, Result};
use std::ops::Range;

/// Bytes that a connection always has room for.
pub const INBOX_IDLE: usize = 16 << 10;
/// Bytes that it has room for while it has much to say.
pub const INBOX_BUSY: usize = 256 << 10;

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A request that is here with all its data, which [`Inbox::data`] gives.
    Whole(Request, Range<usize>),
    /// A write whose data do not fit in here; as many as are here [`Inbox::part`] gives.
    Long(Request),
    /// Not enough is here.
    More,
}

/// Bytes of one client.
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        Inbox { buffer: vec![0; INBOX_IDLE], start: 0, end: 0 }
    }
}

impl Inbox {
    /// Bytes that there is room for.
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }
    /// True where nothing is here, not even a part of a request.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
    /// True where nothing is here but the last `len` bytes.
    pub fn is_only(&self, len: usize) -> bool {
        self.end - self.start <= len
    }
    /// True where what came last left no room behind it: there may be more.
    pub fn is_full(&self) -> bool {
        self.end == self.buffer.len()
    }

    /// Makes room for `capacity` bytes, or for what is here where that is more.
    pub fn resize(&mut self, capacity: usize) {
        let here = self.end - self.start;
        if capacity == self.buffer.len() || capacity < here {
            return;
        }
        let mut buffer = vec![0; capacity];
        buffer[..here].copy_from_slice(&self.buffer[self.start..self.end]);
        *self = Inbox { buffer, start: 0, end: here };
    }

    /// Where the next bytes go: never empty after [`Inbox::take`] has asked for more.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.end > self.buffer.len() / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// That many bytes have been put into the room.
    pub fn filled(&mut self, len: usize) {
        self.end = self.buffer.len().min(self.end.saturating_add(len));
    }

    /// Takes the next request.
    ///
    /// # Errors
    /// Where the bytes are no request, or a write is longer than is taken: what follows cannot be understood.
    pub fn take(&mut self) -> Result<Next> {
        let here = &self.buffer[self.start..self.end];
        let Some(head) = here.first_chunk::<{ Request::LEN }>() else { return Ok(Next::More) };
        let request = Request::parse(head)?;
        if request.command != CMD_WRITE {
            self.start += Request::LEN;
            return Ok(Next::Whole(request, 0..0));
        }
        if u64::from(request.len) > REQUEST_AT_MOST.0 {
            return Err(Error::refused(format!(
                "sends {} bytes in one write; at most {} are taken",
                request.len, REQUEST_AT_MOST.0
            )));
        }
        let whole = Request::LEN.saturating_add(usize::try_from(request.len).unwrap_or(usize::MAX));
        if whole > self.buffer.len() {
            self.start += Request::LEN;
            return Ok(Next::Long(request));
        }
        if here.len() < whole {
            return Ok(Next::More);
        }
        let data = self.start + Request::LEN..self.start + whole;
        self.start = data.end;
        Ok(Next::Whole(request, data))
    }

    /// The length of the write that has begun to come, where its head is here.
    pub fn coming(&self) -> Option<usize> {
        let head = self.buffer[self.start..self.end].first_chunk::<{ Request::LEN }>()?;
        let request = Request::parse(head).ok().filter(|request| request.command == CMD_WRITE)?;
        Request::LEN.checked_add(usize::try_from(request.len).ok()?)
    }

    /// The data of a request that was just taken.
    pub fn data(&self, data: Range<usize>) -> &[u8] {
        self.buffer.get(data).unwrap_or_default()
    }

    /// Takes what is here of the data of a long write, which has `len` bytes.
    pub fn part(&mut self, len: usize) -> &[u8] {
        let from = self.start;
        self.start = self.end.min(from.saturating_add(len));
        &self.buffer[from..self.start]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::nbd::protocol::{CMD_FLUSH, CMD_READ};

    fn request(command: u16, cookie: u64, len: u32) -> Request {
        Request { flags: 0, command, cookie, offset: cookie * 512, len }
    }

    /// However the bytes are cut, the same requests with the same data come out.
    #[test]
    fn requests_are_whole_however_they_arrive() {
        let mut bytes = Vec::new();
        let mut sent = Vec::new();
        for cookie in 0..200u64 {
            let len = u32::try_from(cookie * 97 % 20_000).unwrap();
            let command = [CMD_WRITE, CMD_READ, CMD_FLUSH][usize::try_from(cookie % 3).unwrap()];
            let request = request(command, cookie, len);
            bytes.extend(request.to_bytes());
            let data = match command {
                CMD_WRITE => vec![u8::try_from(cookie).unwrap(); usize::try_from(len).unwrap()],
                _ => Vec::new(),
            };
            bytes.extend(&data);
            sent.push((request, data));
        }
        for step in [1, 7, 28, 4096, 1 << 20] {
            let (mut inbox, mut got, mut rest) = (Inbox::default(), Vec::new(), &bytes[..]);
            let mut long: Option<(Request, Vec<u8>)> = None;
            loop {
                if let Some((request, data)) = &mut long {
                    let missing = usize::try_from(request.len).unwrap() - data.len();
                    data.extend(inbox.part(missing));
                    if data.len() == usize::try_from(request.len).unwrap() {
                        got.push(long.take().unwrap());
                        continue;
                    }
                } else {
                    match inbox.take().unwrap() {
                        Next::Whole(request, data) => {
                            got.push((request, inbox.data(data).to_vec()));
                            continue;
                        }
                        Next::Long(request) => {
                            long = Some((request, Vec::new()));
                            continue;
                        }
                        Next::More => {}
                    }
                }
                if rest.is_empty() {
                    break;
                }
                let room = inbox.room();
                assert!(!room.is_empty());
                let len = room.len().min(step).min(rest.len());
                room[..len].copy_from_slice(&rest[..len]);
                inbox.filled(len);
                rest = &rest[len..];
            }
            assert!(got == sent, "in steps of {step}");
            assert!(inbox.is_empty());
        }
    }

    #[test]
    fn nonsense_and_too_long_writes_are_the_end() {
        for bytes in [vec![9; 28], request(CMD_WRITE, 0, (32 << 20) + 1).to_bytes().to_vec()] {
            let mut inbox = Inbox::default();
            inbox.room()[..28].copy_from_slice(&bytes);
            inbox.filled(28);
            assert!(inbox.take().is_err());
        }
        let mut inbox = Inbox::default();
        inbox.room()[..28].copy_from_slice(&request(CMD_WRITE, 0, 32 << 20).to_bytes());
        inbox.filled(28);
        assert!(matches!(inbox.take(), Ok(Next::Long(_))));
    }

    #[test]
    fn what_is_here_survives_a_change_of_size() {
        let mut inbox = Inbox::default();
        let write = request(CMD_WRITE, 1, 20_000);
        inbox.room()[..28].copy_from_slice(&write.to_bytes());
        inbox.filled(28);
        assert_eq!(inbox.coming(), Some(20_028));
        inbox.resize(INBOX_BUSY);
        let room = inbox.room();
        room[..20_000].fill(7);
        inbox.filled(20_000);
        // Too small for what is here: nothing happens.
        inbox.resize(INBOX_IDLE);
        let Next::Whole(got, data) = inbox.take().unwrap() else { panic!() };
        assert_eq!(got, write);
        assert_eq!(inbox.data(data), [7; 20_000]);
        inbox.resize(INBOX_IDLE);
        assert_eq!(inbox.capacity(), INBOX_IDLE);
    }
}
