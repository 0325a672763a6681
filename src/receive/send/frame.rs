//! Changed content on its way from one landfall to another: a body of frames, for one disk.
//!
//! ```text
//! body:   "lf-send1" | frame | frame | … | end frame
//! frame:  0        kind: 1 data in Zstandard, 2 data as it is, 3 zeros, 4 check, 5 end
//!         1..4     0
//!         4..8     bytes that are stored behind the header (of kinds 1 and 2)
//!         8..16    offset on the disk; of the end: how many frames came before
//!         16..24   length on the disk; of the end: 0
//!         24..56   BLAKE3 of what stands before it in the header, and of the content (of kinds 1, 2 and 4: what the run is to hold)
//! ```
//! Numbers are little-endian. A body is small enough to be kept in memory as a whole, is true or refused as a whole, and may be sent again:
//! it says what is to be where. A check asks the receiver to read back what it holds and to compare it.
//!
//! Absent: which disk and which machine, which is said where the body is handed over; encryption, which is TLS's.

use super::CHUNK;
use landfall_image::convert::is_zero;
use landfall_image::{Bytes, Error, FileOffset, GuestOffset, GuestRange, Result};

/// What a body begins with.
pub const MAGIC: [u8; 8] = *b"lf-send1";
/// Bytes of a frame's header.
pub const HEADER: usize = 56;
/// Bytes of a body at most. Two of the longest frames fit in any case.
pub const BODY_AT_MOST: usize = 16 << 20;
/// What the data of one body come to when it is unpacked, and what it has compared: more would keep a thread of the receiver for too long.
pub const CONTENT_AT_MOST: u64 = 256 << 20;
/// Zeros of one frame: as much as a node.
pub const ZEROS_AT_MOST: u64 = super::NODE;
/// Of Zstandard: its usual one, faster than most lines.
const LEVEL: i32 = 3;

const ZSTD: u8 = 1;
const PLAIN: u8 = 2;
const ZEROS: u8 = 3;
const CHECK: u8 = 4;
const END: u8 = 5;

/// BLAKE3 of a frame and its content.
pub type Digest = [u8; 32];

fn head(kind: u8, stored: usize, offset: u64, len: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = kind;
    header[4..8].copy_from_slice(&u32::try_from(stored).unwrap_or(u32::MAX).to_le_bytes());
    header[8..16].copy_from_slice(&offset.to_le_bytes());
    header[16..24].copy_from_slice(&len.to_le_bytes());
    header
}

fn digest_of(header: &[u8; HEADER], content: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header[..24]);
    hasher.update(content);
    *hasher.finalize().as_bytes()
}

/// Whether a run holds what a check says of it.
pub fn agrees(range: GuestRange, holds: &[u8], digest: &Digest) -> bool {
    digest_of(&head(CHECK, 0, range.start().0, range.len().0), holds) == *digest
}

/// One frame of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'b> {
    /// Content of a run, packed.
    Data {
        /// Where.
        range: GuestRange,
        /// As it lies in the body.
        stored: &'b [u8],
        /// It is packed with Zstandard.
        is_packed: bool,
        /// Of the content.
        digest: Digest,
        /// Where the body has it.
        at: FileOffset,
    },
    /// A run that is zeros.
    Zeros {
        /// Which.
        range: GuestRange,
    },
    /// A run that has to have this digest by now.
    Check {
        /// Which.
        range: GuestRange,
        /// Of what it holds at the sender.
        digest: Digest,
    },
}

/// Reads all frames of a body for a disk of `size` in sectors of `sector` bytes. What is packed is not unpacked yet.
///
/// # Errors
/// Corrupt, with the offset in the body, for anything that is no such body: nothing of it may be applied then.
pub fn parse(body: &[u8], size: Bytes, sector: u64) -> Result<Vec<Frame<'_>>> {
    let wrong = |at: usize, says: String| {
        Err(Error::corrupt(says)
            .at(FileOffset(at as u64))
            .hint("send it again; where that does not help, use one version of landfall on both sides"))
    };
    if body.len() > BODY_AT_MOST {
        return wrong(0, format!("a body of {} bytes; {BODY_AT_MOST} are the most", body.len()));
    }
    if body.get(..MAGIC.len()) != Some(&MAGIC[..]) {
        return wrong(0, "it does not begin as a body of frames does".to_owned());
    }
    let (mut at, mut frames) = (MAGIC.len(), Vec::new());
    let (mut content, mut checked) = (0_u64, 0_u64);
    loop {
        let Some(header) = body.get(at..).and_then(|rest| rest.first_chunk::<HEADER>()) else {
            return wrong(at, "the body ends in the middle, or without its end frame".to_owned());
        };
        let word = |from: usize| u64::from_le_bytes(std::array::from_fn(|n| header[from + n]));
        let stored = u32::from_le_bytes(std::array::from_fn(|n| header[4 + n])) as usize;
        let digest: Digest = std::array::from_fn(|n| header[24 + n]);
        let (kind, offset, len) = (header[0], word(8), word(16));
        if header[1..4] != [0; 3] {
            return wrong(at, "a frame's header has something where nothing belongs".to_owned());
        }
        if kind == END {
            let is_whole =
                at + HEADER == body.len() && stored == 0 && len == 0 && digest_of(header, &[]) == digest;
            return match offset == frames.len() as u64 && is_whole {
                true => Ok(frames),
                false => wrong(
                    at,
                    format!(
                        "the body's end tells of {offset} frames; {} are there, and {} bytes behind it",
                        frames.len(),
                        body.len() - at - HEADER
                    ),
                ),
            };
        }
        if kind == ZEROS && digest_of(header, &[]) != digest {
            return wrong(at, "a frame does not have its digest".to_owned());
        }
        let fits = offset.checked_add(len).is_some_and(|end| end <= size.0);
        if !fits || len == 0 {
            return wrong(
                at,
                format!("a frame is about {len} bytes at {offset} of a disk of {} bytes", size.0),
            );
        }
        if !offset.is_multiple_of(sector) || !len.is_multiple_of(sector) {
            return wrong(
                at,
                format!("a frame is about {len} bytes at {offset}: no whole sectors of {sector}"),
            );
        }
        let range = GuestRange::new(GuestOffset(offset), Bytes(len));
        let at_most = if kind == ZEROS { ZEROS_AT_MOST } else { CHUNK as u64 };
        if len > at_most {
            return wrong(at, format!("a frame is about {len} bytes; {at_most} are the most"));
        }
        let begin = at + HEADER;
        let Some(bytes) = body.get(begin..).and_then(|rest| rest.get(..stored)) else {
            return wrong(at, format!("a frame stores {stored} bytes, and the body ends before"));
        };
        let is_sound = match kind {
            ZSTD => stored > 0 && (stored as u64) < len,
            PLAIN => stored as u64 == len,
            ZEROS | CHECK => stored == 0,
            _ => return wrong(at, format!("{kind} is no kind of frame")),
        };
        if !is_sound {
            return wrong(at, format!("a frame of kind {kind} stores {stored} bytes for {len} of the disk"));
        }
        frames.push(match kind {
            ZEROS => Frame::Zeros { range },
            CHECK => Frame::Check { range, digest },
            _ => Frame::Data {
                range,
                stored: bytes,
                is_packed: kind == ZSTD,
                digest,
                at: FileOffset(at as u64),
            },
        });
        match kind {
            CHECK => checked += len,
            ZEROS => {}
            _ => content += len,
        }
        if content.max(checked) > CONTENT_AT_MOST {
            return wrong(at, format!("the frames come to more than {CONTENT_AT_MOST} bytes of content"));
        }
        at = begin + stored;
    }
}

/// The content of a data frame, checked; `room` is made use of.
///
/// # Errors
/// Corrupt, with the offset in the body, where it is not what it says.
pub fn unpacked<'r>(frame: &Frame<'r>, room: &'r mut Vec<u8>) -> Result<&'r [u8]> {
    let Frame::Data { range, stored, is_packed, digest, at } = *frame else { return Ok(&[]) };
    let len = range.len().to_usize().unwrap_or(usize::MAX);
    let wrong = |says: &str| {
        Error::corrupt(says.to_owned()).at(at).hint("send it again: something on the way changes bytes")
    };
    let content: &[u8] = match is_packed {
        false => stored,
        true => {
            room.clear();
            room.resize(len, 0);
            // Into a buffer of the length that was said: more than that is an error, however much it would be.
            let found = zstd::bulk::decompress_to_buffer(stored, room.as_mut_slice());
            if found.ok() != Some(len) {
                return Err(wrong("a frame does not unpack to what it says"));
            }
            room
        }
    };
    let header = head(if is_packed { ZSTD } else { PLAIN }, stored.len(), range.start().0, range.len().0);
    match digest_of(&header, content) == digest {
        true => Ok(content),
        false => Err(wrong("the content of a frame does not have its digest")),
    }
}

/// Gives each frame of a body the digest of what it is, as far as it is one: what a fuzzer makes would end at the first otherwise.
#[cfg(any(test, fuzzing))]
pub fn repair(body: &mut [u8]) {
    let mut at = MAGIC.len();
    while let Some(header) = body.get(at..).and_then(|rest| rest.first_chunk::<HEADER>()).copied() {
        let stored = u32::from_le_bytes(std::array::from_fn(|n| header[4 + n])) as usize;
        let len = u64::from_le_bytes(std::array::from_fn(|n| header[16 + n]));
        let begin = at + HEADER;
        let Some(bytes) = begin.checked_add(stored).and_then(|end| body.get(begin..end)) else { return };
        let content = match header[0] {
            PLAIN => bytes.to_vec(),
            ZSTD => {
                let room = usize::try_from(len).unwrap_or(usize::MAX).min(CHUNK);
                zstd::bulk::decompress(bytes, room).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        if header[0] != CHECK {
            let digest = digest_of(&header, &content);
            body[at + 24..begin].copy_from_slice(&digest);
        }
        if header[0] == END {
            return;
        }
        at = begin + stored;
    }
}

/// A frame that is ready to be put into a body.
#[derive(Debug)]
pub struct Ready {
    header: [u8; HEADER],
    stored: Vec<u8>,
    len: u64,
}

impl Ready {
    fn new(kind: u8, offset: u64, len: u64, stored: Vec<u8>, content: &[u8]) -> Ready {
        let mut header = head(kind, stored.len(), offset, len);
        let digest = digest_of(&header, content);
        header[24..56].copy_from_slice(&digest);
        Ready { header, stored, len }
    }

    /// Content of up to [`CHUNK`] bytes: as zeros where it is, packed where that is shorter.
    pub fn content(at: GuestOffset, content: &[u8]) -> Ready {
        let len = content.len() as u64;
        if is_zero(content) {
            return Ready::new(ZEROS, at.0, len, Vec::new(), &[]);
        }
        match zstd::bulk::compress(content, LEVEL).ok().filter(|packed| packed.len() < content.len()) {
            Some(packed) => Ready::new(ZSTD, at.0, len, packed, content),
            None => Ready::new(PLAIN, at.0, len, content.to_vec(), content),
        }
    }

    /// A run of up to [`ZEROS_AT_MOST`] that is zeros.
    pub fn zeros(range: GuestRange) -> Ready {
        Ready::new(ZEROS, range.start().0, range.len().0, Vec::new(), &[])
    }

    /// A question whether a run of up to [`CHUNK`] bytes holds this.
    pub fn check(at: GuestOffset, content: &[u8]) -> Ready {
        Ready::new(CHECK, at.0, content.len() as u64, Vec::new(), content)
    }

    /// The question of a frame that was read.
    #[cfg(test)]
    pub fn asking(range: GuestRange, digest: Digest) -> Ready {
        let mut header = head(CHECK, 0, range.start().0, range.len().0);
        header[24..56].copy_from_slice(&digest);
        Ready { header, stored: Vec::new(), len: range.len().0 }
    }

    /// Bytes of the disk that it brings; 0 for a check.
    pub fn brings(&self) -> u64 {
        if self.header[0] == CHECK { 0 } else { self.len }
    }

    /// Bytes of the disk that it has compared; 0 for others.
    pub fn checks(&self) -> u64 {
        if self.header[0] == CHECK { self.len } else { 0 }
    }
}

/// A body that is being put together.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    frames: u64,
    content: u64,
    checked: u64,
}

impl Default for Body {
    fn default() -> Body {
        Body { bytes: MAGIC.to_vec(), frames: 0, content: 0, checked: 0 }
    }
}

impl Body {
    /// True where nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// True where this frame still fits into a body of `at_most` bytes; one always does.
    pub fn has_room(&self, frame: &Ready, at_most: usize) -> bool {
        let at_most = at_most.min(BODY_AT_MOST);
        let len = self.bytes.len() + frame.stored.len() + 2 * HEADER;
        self.is_empty()
            || len <= at_most
                && self.content + frame.brings() <= CONTENT_AT_MOST
                && self.checked + frame.checks() <= CONTENT_AT_MOST
    }

    /// Puts a frame behind the others.
    pub fn put(&mut self, frame: &Ready) {
        self.bytes.extend_from_slice(&frame.header);
        self.bytes.extend_from_slice(&frame.stored);
        self.frames += 1;
        self.content += frame.brings();
        self.checked += frame.checks();
    }

    /// Bytes of the disk that it has compared.
    pub fn checked(&self) -> u64 {
        self.checked
    }

    /// The whole body.
    pub fn finish(mut self) -> Vec<u8> {
        let end = Ready::new(END, self.frames, 0, Vec::new(), &[]);
        self.bytes.extend_from_slice(&end.header);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: Bytes = Bytes(8 << 20);

    fn body(frames: &[Ready]) -> Vec<u8> {
        let mut body = Body::default();
        frames.iter().for_each(|frame| body.put(frame));
        body.finish()
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 7_u64;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_le_bytes()[7]
            })
            .collect()
    }

    fn contents(body: &[u8]) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut room = Vec::new();
        let frames = parse(body, SIZE, 512)?;
        let one = |frame: &Frame<'_>| match frame {
            Frame::Data { range, .. } => Ok((range.start().0, unpacked(frame, &mut room.clone())?.to_vec())),
            Frame::Zeros { range } => Ok((range.start().0, vec![0; range.len().to_usize().unwrap()])),
            Frame::Check { range, digest } => Ok((range.start().0, digest.to_vec())),
        };
        let all = frames.iter().map(one).collect();
        room.clear();
        all
    }

    #[test]
    fn what_was_put_in_comes_out() {
        let noise = noise(CHUNK);
        let text = vec![b'a'; 4096];
        let frames = [
            Ready::content(GuestOffset(0), &noise),
            Ready::content(GuestOffset(1 << 20), &text),
            Ready::content(GuestOffset(2 << 20), &[0; 512]),
            Ready::check(GuestOffset(1 << 20), &text),
        ];
        let body = body(&frames);
        let kinds: Vec<u8> = frames.iter().map(|frame| frame.header[0]).collect();
        assert_eq!(kinds, [PLAIN, ZSTD, ZEROS, CHECK]);
        let wanted = [(0, noise), (1 << 20, text.clone()), (2 << 20, vec![0; 512])];
        let found = contents(&body).unwrap();
        assert_eq!(found[..3], wanted);
        let (range, digest) =
            (GuestRange::new(GuestOffset(1 << 20), Bytes(4096)), found[3].1.as_slice().try_into().unwrap());
        assert!(agrees(range, &text, &digest) && !agrees(range, &text[1..], &digest));
        assert_eq!(contents(&Body::default().finish()).unwrap(), []);
    }

    /// Each bound, one step beyond it.
    #[test]
    fn frames_that_no_sender_writes_are_refused_with_their_place() {
        let raw = |kind, offset, len, stored: &[u8]| {
            body(&[Ready::new(
                kind,
                offset,
                len,
                stored.to_vec(),
                if kind == ZEROS { &[] } else { &[0; 512] },
            )])
        };
        let end = SIZE.0;
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        for (what, bytes) in [
            ("behind the end", raw(PLAIN, end, 512, &[0; 512])),
            ("over the end", raw(ZEROS, end - 512, 1024, &[])),
            ("around", raw(ZEROS, u64::MAX - 511, 1024, &[])),
            ("no length", raw(ZEROS, 0, 0, &[])),
            ("no sectors", raw(ZEROS, 1, 512, &[])),
            ("no whole sectors", raw(PLAIN, 0, 511, &[0; 511])),
            ("too long", raw(CHECK, 0, CHUNK as u64 + 512, &[])),
            ("no kind", raw(6, 0, 512, &[])),
            ("kind 0", raw(0, 0, 512, &[])),
            ("not all stored", raw(PLAIN, 0, 1024, &[0; 512])),
            ("zeros with content", raw(ZEROS, 0, 512, &[0])),
            ("packed to more", raw(ZSTD, 0, 512, &[0; 512])),
            ("nothing packed", raw(ZSTD, 0, 512, &[])),
            ("not packed", raw(ZSTD, 0, 512, &[0; 100])),
            ("a bomb", raw(ZSTD, 0, CHUNK as u64, &bomb)),
            ("unpacks to less", raw(ZSTD, 0, 1024, &zstd::bulk::compress(&[0; 512], 3).unwrap())),
            ("another digest", raw(PLAIN, 0, 512, &[1; 512])),
            ("nothing", Vec::new()),
            ("another magic", b"lf-send2".to_vec()),
            ("no end", MAGIC.to_vec()),
        ] {
            let error = contents(&bytes).expect_err(what);
            assert_eq!(error.kind(), landfall_image::Kind::Corrupt, "{what}");
            assert!(error.offset().is_some() && error.hint_text().is_some(), "{what}: {error}");
        }
        let good = raw(PLAIN, 0, 512, &[0; 512]);
        contents(&good).unwrap();
        // Cut off anywhere, and with something behind it.
        for len in 0..good.len() {
            assert!(contents(&good[..len]).is_err(), "{len}");
        }
        assert!(contents(&[&good[..], &[0]].concat()).is_err());
        assert!(parse(&good, SIZE, 4096).is_err(), "sectors of 4096 bytes");
        // More content than a body may come to: checks are short.
        let frames: Vec<Ready> = (0..257).map(|_| Ready::check(GuestOffset(0), &vec![0; CHUNK])).collect();
        parse(&body(&frames[..256]), SIZE, 512).unwrap();
        assert!(parse(&body(&frames), SIZE, 512).is_err());
        let mut full = Body::default();
        let fitting = frames
            .iter()
            .take_while(|frame| full.has_room(frame, BODY_AT_MOST).then(|| full.put(frame)).is_some());
        assert_eq!(fitting.count(), 256);
        assert!(parse(&vec![0; BODY_AT_MOST + 1], SIZE, 512).is_err());
    }

    /// A bit that changes on the way is found before anything is written.
    #[test]
    fn flipped_bits_are_found() {
        let text: Vec<u8> = (0..4096).map(|n: u32| n.to_le_bytes()[0] / 3).collect();
        let check = Ready::check(GuestOffset(4096), &text);
        let zeros = Ready::content(GuestOffset(0), &[0; 512]);
        let good = body(&[Ready::content(GuestOffset(4096), &text), zeros, check]);
        let wanted = contents(&good).unwrap();
        // What is packed can be told in more than one way: where a bit makes no difference, nothing is wrong.
        let is_told = |found: Result<Vec<(u64, Vec<u8>)>>| match found {
            Err(_) => true,
            Ok(found) if found[..2] != wanted[..2] => panic!("content has changed in silence"),
            // The digest of a check is compared with what is held.
            Ok(found) => {
                let range = GuestRange::new(GuestOffset(found[2].0), Bytes(4096));
                found == wanted || !agrees(range, &text, &found[2].1.as_slice().try_into().unwrap())
            }
        };
        let agreeing = |found: &[(u64, Vec<u8>)]| {
            let range = GuestRange::new(GuestOffset(found[2].0), Bytes(4096));
            agrees(range, &text, &found[2].1.as_slice().try_into().unwrap())
        };
        assert!(agreeing(&wanted));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(is_told(contents(&bad)), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0u8..7) {
            let _ = contents(&bytes);
            bytes.splice(..0, MAGIC);
            if let Some(byte) = bytes.get_mut(8) { *byte = kind; }
            for byte in bytes.iter_mut().skip(9).take(3) { *byte = 0; }
            let _ = contents(&bytes);
            repair(&mut bytes);
            let _ = contents(&bytes);
        }
    }
}
