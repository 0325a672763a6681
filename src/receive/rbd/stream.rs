//! Reads RBD's streams, from any reader, in memory that does not depend on what they say.
//!
//! Everything that can be wrong without knowing the disk is found here: a stream that is cut off or goes on behind its end, records that are
//! unknown or in the wrong place, ranges behind the end of the disk, lengths that contradict each other. Nothing is skipped: a
//! record that is not known could hold what the disk needs.

use super::record::{
    DIFF_V1, DIFF_V2, DIFFS_AT_MOST, Head, IMAGE_DIFFS, IMAGE_V2, NAME_AT_MOST, Part, SETTINGS_AT_MOST,
    Shape, Version, tag,
};
use landfall_image::{Bytes, Error, FileOffset, GuestOffset, GuestRange, Result, limits};
use std::io::{self, ErrorKind, Read};

/// A stream that is read.
#[derive(Debug)]
pub struct Stream<R> {
    inner: R,
    /// Bytes that were read.
    at: u64,
    shape: Shape,
    version: Version,
    /// Diffs that are still to come, the one that is read not counted.
    left: u64,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// A diff begins; its banner was read.
    Begins,
    /// Between records; the disk has that size, and the tag of the next was read already.
    Records { size: u64, tag: Option<u8> },
    /// In the data of a record.
    Data { size: u64, left: u64 },
    /// Behind the last.
    Ended,
}

/// What is said where a stream is no stream.
const HINT: &str =
    "make it with rbd export-diff POOL/IMAGE@SNAPSHOT FILE, or rbd export --export-format 2 POOL/IMAGE FILE";
const AGAIN: &str = "send it again; rbd export-diff POOL/IMAGE@SNAPSHOT FILE writes it";

impl<R: Read> Stream<R> {
    /// Reads its beginning, up to the first diff.
    ///
    /// # Errors
    /// Corrupt where it is none; unsupported where it holds what is not known; as the reader's.
    pub fn open(inner: R) -> Result<Stream<R>> {
        let shape = Shape::Diff(Version::V1);
        let mut stream = Stream { inner, at: 0, shape, version: Version::V1, left: 0, state: State::Begins };
        let banner = stream.banner(&[DIFF_V1, DIFF_V2, IMAGE_V2])?;
        if banner == DIFF_V1 {
            return Ok(stream);
        }
        stream.version = Version::V2;
        stream.shape = Shape::Diff(Version::V2);
        if banner == IMAGE_V2 {
            stream.settings()?;
            stream.banner(&[IMAGE_DIFFS])?;
            let at = stream.at;
            let diffs = stream.u64("the number of diffs")?;
            if diffs == 0 || diffs > DIFFS_AT_MOST {
                return Err(Error::corrupt(format!("says that it has {diffs} diffs; 1 to {DIFFS_AT_MOST} are read"))
                    .at(FileOffset(at))
                    .hint("an image with more snapshots is brought over snapshot by snapshot: rbd export-diff --from-snap"));
            }
            stream.shape = Shape::Image { diffs };
            stream.left = diffs - 1;
            stream.banner(&[DIFF_V2])?;
        }
        Ok(stream)
    }

    /// What it is.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Bytes of it that were read.
    pub fn position(&self) -> FileOffset {
        FileOffset(self.at)
    }

    /// What it is read from.
    pub fn inner(&self) -> &R {
        &self.inner
    }

    /// The next part; `None` behind the last diff, and when it is certain that nothing follows. Data that was not read is passed over.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn part(&mut self) -> Result<Option<Part>> {
        match self.state.clone() {
            State::Begins => {
                let (head, tag) = self.head()?;
                self.state = State::Records { size: head.size.0, tag: Some(tag) };
                Ok(Some(Part::Diff(head)))
            }
            State::Records { size, tag } => self.record(size, tag).map(Some),
            State::Data { size, left } => {
                let mut left = left;
                let mut buf = [0; 4096];
                while left > 0 {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
                    self.fill(&mut buf[..len], "data")?;
                    left -= len as u64;
                }
                self.state = State::Records { size, tag: None };
                self.part()
            }
            State::Ended => Ok(None),
        }
    }

    /// Reads the next bytes of the data that [`Part::Data`] has announced: as many as there are left, or as `buf` takes. 0 when all
    /// were read.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let State::Data { size, left } = self.state else { return Ok(0) };
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        self.fill(&mut buf[..len], "data")?;
        let left = left - len as u64;
        self.state = match left {
            0 => State::Records { size, tag: None },
            left => State::Data { size, left },
        };
        Ok(len)
    }

    /// What stands before the data, and the tag of the first record behind it.
    fn head(&mut self) -> Result<(Head, u8)> {
        let begin = self.at;
        let (mut head, mut size, mut seen) = (Head::default(), None, Vec::new());
        loop {
            let (at, found) = self.tag()?;
            if !matches!(found, tag::FROM | tag::TO | tag::PROTECTED | tag::SIZE) {
                let Some(size) = size else {
                    return Err(corrupt(begin, "the diff does not say how large the disk is".into()));
                };
                head.size = size;
                return Ok((head, found));
            }
            if seen.contains(&found) {
                return Err(corrupt(
                    at,
                    format!("the diff has two records {:?} before its data", char::from(found)),
                ));
            }
            seen.push(found);
            let length = self.length()?;
            match found {
                tag::FROM => head.from = Some(self.name("from-snapshot", length)?),
                tag::TO => head.to = Some(self.name("to-snapshot", length)?),
                tag::PROTECTED if self.version == Version::V1 => return Err(unknown(at, found)),
                tag::PROTECTED => {
                    same(at, "record 'p'", length, 1)?;
                    let flag = self.array::<1>("the protection of a snapshot")?[0];
                    if flag > 1 {
                        return Err(corrupt(
                            at,
                            format!("the protection of a snapshot is {flag}; it is 0 or 1"),
                        ));
                    }
                }
                _ => {
                    same(at, "record 's'", length, 8)?;
                    let bytes = Bytes(self.u64("the size of the disk")?);
                    if bytes > limits::DISK_SIZE {
                        let says = format!(
                            "says it is a disk of {} bytes; the limit is {}",
                            bytes.0,
                            limits::DISK_SIZE
                        );
                        return Err(Error::refused(says).at(FileOffset(at)).hint(AGAIN));
                    }
                    size = Some(bytes);
                }
            }
        }
    }

    fn record(&mut self, size: u64, tag: Option<u8>) -> Result<Part> {
        let (at, found) = match tag {
            Some(tag) => (self.at - 1, tag),
            None => self.tag()?,
        };
        self.state = State::Records { size, tag: None };
        match found {
            tag::DATA | tag::ZERO => {
                let length = self.length()?;
                let what = "a record of data";
                let (offset, len) = (self.u64(what)?, self.u64(what)?);
                let letter = char::from(found);
                if len == 0 || offset.checked_add(len).is_none_or(|end| end > size) {
                    return Err(corrupt(
                        at,
                        format!(
                            "record {letter:?} is about {len} bytes at {offset:#x} of a disk of {size} bytes"
                        ),
                    ));
                }
                let range = GuestRange::new(GuestOffset(offset), Bytes(len));
                if found == tag::ZERO {
                    same(at, "record 'z'", length, 16)?;
                    return Ok(Part::Zero(range));
                }
                same(at, "record 'w'", length, len.saturating_add(16))?;
                self.state = State::Data { size, left: len };
                Ok(Part::Data(range))
            }
            tag::END => {
                self.end()?;
                Ok(Part::End)
            }
            tag::FROM | tag::TO | tag::SIZE | tag::PROTECTED => Err(corrupt(
                at,
                format!("record {:?} comes behind data; it belongs before it", char::from(found)),
            )),
            other => Err(unknown(at, other)),
        }
    }

    /// A diff has ended: another begins, or there is nothing more.
    fn end(&mut self) -> Result<()> {
        if self.left > 0 {
            self.left -= 1;
            self.banner(&[DIFF_V2])?;
            self.state = State::Begins;
            return Ok(());
        }
        let at = self.at;
        let mut one = [0];
        loop {
            match self.inner.read(&mut one) {
                Ok(0) => break,
                Ok(_) => {
                    return Err(corrupt(at, "goes on behind its last record".into()));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(at, error)),
            }
        }
        self.state = State::Ended;
        Ok(())
    }

    /// Passes over the settings of an image: no other hypervisor knows them, and none changes what the disk holds.
    fn settings(&mut self) -> Result<()> {
        let begin = self.at;
        let mut seen = Vec::new();
        loop {
            let (at, found) = self.tag()?;
            if found == tag::IMAGE_END {
                return Ok(());
            }
            if found != tag::META && !tag::NUMBERS.contains(&found) {
                return Err(unknown(at, found));
            }
            if found != tag::META {
                if seen.contains(&found) {
                    return Err(corrupt(at, format!("the image has two settings {:?}", char::from(found))));
                }
                seen.push(found);
                same(at, "a setting of the image", self.length()?, 8)?;
                self.u64("a setting of the image")?;
                continue;
            }
            let length = self.length()?.unwrap_or_default();
            if length > SETTINGS_AT_MOST.0 || self.at - begin > SETTINGS_AT_MOST.0 {
                return Err(corrupt(
                    at,
                    format!("the settings of the image have more than {SETTINGS_AT_MOST}"),
                ));
            }
            let mut left = length;
            for _ in 0..2 {
                let len = u64::from(self.u32("a setting of the image")?);
                let rest = left.checked_sub(4).and_then(|left| left.checked_sub(len));
                left = rest.ok_or_else(|| {
                    corrupt(at, format!("a setting of the image has a part of {len} bytes in {length}"))
                })?;
                self.pass(len, "a setting of the image")?;
            }
            if left > 0 {
                return Err(corrupt(at, format!("a setting of the image has {left} bytes too many")));
            }
        }
    }

    fn name(&mut self, what: &str, length: Option<u64>) -> Result<String> {
        let at = self.at;
        let len = self.u32("the name of a snapshot")?;
        if len == 0 || len > NAME_AT_MOST {
            return Err(corrupt(
                at,
                format!("the {what}'s name has {len} bytes; 1 to {NAME_AT_MOST} are possible"),
            ));
        }
        same(at, "the name of a snapshot", length, u64::from(len) + 4)?;
        let mut name = vec![0; usize::try_from(len).unwrap_or_default()];
        self.fill(&mut name, "the name of a snapshot")?;
        let name = String::from_utf8(name).ok().filter(|name| !name.chars().any(char::is_control));
        name.ok_or_else(|| {
            corrupt(at, format!("the {what}'s name is no text of UTF-8, or has control characters in it"))
        })
    }

    /// One of the banners that may come here.
    fn banner(&mut self, known: &[&'static [u8]]) -> Result<&'static [u8]> {
        let at = self.at;
        let mut read = Vec::new();
        while known.iter().any(|banner| banner.len() > read.len() && banner.starts_with(&read)) {
            let mut byte = [0];
            if !self.try_fill(&mut byte)? {
                break;
            }
            read.extend(byte);
            if let Some(banner) = known.iter().find(|banner| **banner == read) {
                return Ok(banner);
            }
        }
        let wanted: Vec<String> = known.iter().map(|banner| format!("{:?}", text(banner))).collect();
        let says = match read.is_empty() {
            true if at == 0 => "is empty".to_owned(),
            true => format!("ends where {} has to stand", wanted.join(" or ")),
            false => format!("has {:?} where {} has to stand", text(&read), wanted.join(" or ")),
        };
        Err(Error::corrupt(says).at(FileOffset(at)).hint(if at == 0 { HINT } else { AGAIN }))
    }

    fn tag(&mut self) -> Result<(u64, u8)> {
        let at = self.at;
        Ok((at, self.array::<1>("a record")?[0]))
    }

    /// The length of a record, where the notation has one.
    fn length(&mut self) -> Result<Option<u64>> {
        match self.version {
            Version::V1 => Ok(None),
            Version::V2 => self.u64("the length of a record").map(Some),
        }
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.fill(&mut out, what)?;
        Ok(out)
    }

    fn pass(&mut self, mut len: u64, what: &str) -> Result<()> {
        let mut buf = [0; 512];
        while len > 0 {
            let now = usize::try_from(len).unwrap_or(usize::MAX).min(buf.len());
            self.fill(&mut buf[..now], what)?;
            len -= now as u64;
        }
        Ok(())
    }

    fn fill(&mut self, buf: &mut [u8], what: &str) -> Result<()> {
        match self.try_fill(buf)? {
            true => Ok(()),
            false => Err(Error::corrupt(format!("ends in the middle of {what}: it was cut off"))
                .at(FileOffset(self.at))
                .hint(AGAIN)),
        }
    }

    /// False where the end came first.
    fn try_fill(&mut self, buf: &mut [u8]) -> Result<bool> {
        let mut done = 0;
        while done < buf.len() {
            match self.inner.read(&mut buf[done..]) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    done += count;
                    self.at += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(self.at, error)),
            }
        }
        Ok(true)
    }
}

fn text(banner: &[u8]) -> String {
    String::from_utf8_lossy(banner).trim_end().to_owned()
}

fn corrupt(at: u64, says: String) -> Error {
    Error::corrupt(says).at(FileOffset(at)).hint(AGAIN)
}

fn unknown(at: u64, tag: u8) -> Error {
    let shown = if tag.is_ascii_graphic() { format!("{:?}", char::from(tag)) } else { format!("{tag:#04x}") };
    Error::unsupported(format!("has a record {shown}, which is not known here")).at(FileOffset(at)).hint(
        "send it again, it may have been damaged; if a newer rbd writes such records, use a newer landfall",
    )
}

fn failed(at: u64, error: io::Error) -> Error {
    Error::io("cannot read the stream", error).at(FileOffset(at))
}

/// That a record says the length which it has.
fn same(at: u64, what: &str, says: Option<u64>, is: u64) -> Result<()> {
    match says.filter(|says| *says != is) {
        None => Ok(()),
        Some(says) => Err(corrupt(at, format!("{what} says that it has {says} bytes, and has {is}"))),
    }
}
