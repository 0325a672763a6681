//! From a .reg file's bytes to its lines: encodings by their marks, no byte replaced in silence.

use super::refused;
use crate::{Error, Result};

/// A file's text, and which of the two formats it is in.
pub(super) struct Text {
    pub lines: Vec<String>,
    /// `REGEDIT4`: byte strings of `hex(1)`, `hex(2)` and `hex(7)` have one byte per character.
    pub is_ansi: bool,
}

const VERSION_5: &str = "Windows Registry Editor Version 5.00";
const VERSION_4: &str = "REGEDIT4";
const AS_UNICODE: &str = "save it in regedit as \"Registration Files (*.reg)\", which is Unicode";

pub(super) fn decode(bytes: &[u8]) -> Result<Text> {
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest)?,
        [0xfe, 0xff, ..] => {
            return Err(Error::refused("is big-endian UTF-16, which regedit does not read").hint(AS_UNICODE));
        }
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest)?,
        _ if bytes.get(1) == Some(&0) => {
            return Err(Error::refused("is UTF-16 without the mark at its beginning").hint(AS_UNICODE));
        }
        _ => utf8(bytes)?,
    };
    let mut lines: Vec<String> = Vec::new();
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if let Some(letter) = line.chars().find(|letter| letter.is_control() && *letter != '\t') {
            return Err(refused(
                lines.len() + 1,
                format!("holds the control character U+{:04X}", u32::from(letter)),
            )
            .hint("write the value as hex(1): with its bytes"));
        }
        lines.push(line.to_owned());
    }
    let first = lines.iter_mut().find(|line| !line.trim().is_empty());
    let header = first.map(std::mem::take).unwrap_or_default();
    let is_ansi = match header.trim() {
        VERSION_5 => false,
        VERSION_4 => true,
        other => {
            let shown: String = other.chars().take(60).collect();
            return Err(Error::refused(format!("begins with {shown:?}, and is no registry editor file"))
                .hint(format!("the first line has to be {VERSION_5:?} or {VERSION_4:?}")));
        }
    };
    // What it means depends on the code page of the Windows that wrote it.
    if is_ansi && let Some(at) = lines.iter().position(|line| !line.is_ascii()) {
        return Err(refused(
            at + 1,
            "holds characters beyond ASCII, which a REGEDIT4 file does not name exactly",
        )
        .hint(AS_UNICODE));
    }
    Ok(Text { lines, is_ansi })
}

fn utf8(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| {
        let valid = bytes.get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        refused(line, "is neither UTF-8 nor UTF-16").hint(AS_UNICODE)
    })
}

fn utf16(bytes: &[u8]) -> Result<String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(pairs.len());
    for letter in char::decode_utf16(pairs.iter().map(|pair| u16::from_le_bytes(*pair))) {
        let line = || text.bytes().filter(|byte| *byte == b'\n').count() + 1;
        text.push(letter.map_err(|error| {
            refused(line(), format!("half a character, {:#06x}", error.unpaired_surrogate()))
                .hint("write such a value as hex(1): with its bytes")
        })?);
    }
    if !rest.is_empty() {
        return Err(Error::corrupt("ends in the middle of a character").hint("copy the file again"));
    }
    Ok(text)
}
