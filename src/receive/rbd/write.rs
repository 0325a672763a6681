//! Writes RBD's diffs, so that every reader of them is content: records in the order of the disk, none empty, none longer than an object.

use super::record::{DATA_AT_MOST, DIFF_V1, DIFF_V2, Head, NAME_AT_MOST, Version, tag};
use landfall_image::{Bytes, Error, GuestOffset, GuestRange, Result};
use std::io::{self, Write};

/// A diff that is being written.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    version: Version,
    size: u64,
    /// Where the next record may begin.
    at: u64,
}

fn failed(error: io::Error) -> Error {
    Error::io("cannot write the stream", error)
}

impl<W: Write> Writer<W> {
    /// Begins a diff.
    ///
    /// # Errors
    /// Refused where a name of a snapshot is empty, too long or has control characters; as the writer's.
    pub fn begin(out: W, version: Version, head: &Head) -> Result<Writer<W>> {
        let mut writer = Writer { out, version, size: head.size.0, at: 0 };
        writer.put(if version == Version::V1 { DIFF_V1 } else { DIFF_V2 })?;
        for (tag, name) in [(tag::FROM, &head.from), (tag::TO, &head.to)] {
            let Some(name) = name else { continue };
            let len = u32::try_from(name.len()).ok().filter(|len| (1..=NAME_AT_MOST).contains(len));
            let Some(len) =
                len.filter(|_| !name.contains(|letter: char| letter.is_control() || "@/".contains(letter)))
            else {
                return Err(Error::refused(format!("{name:?} cannot be the name of a snapshot"))
                    .hint("give it 1 to 4096 bytes without @, / and control characters"));
            };
            writer.record(tag, u64::from(len) + 4)?;
            writer.put(&len.to_le_bytes())?;
            writer.put(name.as_bytes())?;
        }
        writer.record(tag::SIZE, 8)?;
        writer.put(&head.size.0.to_le_bytes())?;
        Ok(writer)
    }

    /// Adds data.
    ///
    /// # Errors
    /// Refused where it lies before what was added, or passes the end of the disk; as the writer's.
    pub fn data(&mut self, at: GuestOffset, bytes: &[u8]) -> Result<()> {
        self.claim(GuestRange::new(at, Bytes(bytes.len() as u64)))?;
        let mut here = at.0;
        for piece in bytes.chunks(DATA_AT_MOST) {
            let len = piece.len() as u64;
            self.record(tag::DATA, 16 + len)?;
            self.put(&here.to_le_bytes())?;
            self.put(&len.to_le_bytes())?;
            self.put(piece)?;
            here += len;
        }
        Ok(())
    }

    /// Adds zeros.
    ///
    /// # Errors
    /// As [`data`](Self::data).
    pub fn zero(&mut self, range: GuestRange) -> Result<()> {
        self.claim(range)?;
        if range.is_empty() {
            return Ok(());
        }
        self.record(tag::ZERO, 16)?;
        self.put(&range.start().0.to_le_bytes())?;
        self.put(&range.len().0.to_le_bytes())
    }

    /// Ends it, and gives the writer back.
    ///
    /// # Errors
    /// As the writer's.
    pub fn finish(mut self) -> Result<W> {
        self.put(&[tag::END])?;
        self.out.flush().map_err(failed)?;
        Ok(self.out)
    }

    fn claim(&mut self, range: GuestRange) -> Result<()> {
        match range.start().0 >= self.at && range.end().0 <= self.size {
            true => {
                self.at = range.end().0;
                Ok(())
            }
            false => Err(Error::refused(format!(
                "{} bytes at {:#x} lie before {:#x}, or pass the end of the disk",
                range.len().0,
                range.start().0,
                self.at
            ))),
        }
    }

    fn record(&mut self, tag: u8, length: u64) -> Result<()> {
        self.put(&[tag])?;
        match self.version {
            Version::V1 => Ok(()),
            Version::V2 => self.put(&length.to_le_bytes()),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(failed)
    }
}
