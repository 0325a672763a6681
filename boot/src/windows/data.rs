//! A registry value's data: a type and bytes (Microsoft, Win32, "Registry Value Types").
//!
//! Getters are lenient, as programs have to be with what others stored: text without a final zero or with an odd byte, numbers
//! stored as bytes. Deliberately absent: the structures inside of resource lists and device properties.

use crate::volume::field::{array, le32, le64};
use serde::{Serialize, Serializer};
use std::fmt::{self, Display, Formatter};

/// Type numbers (winnt.h).
pub const REG_NONE: u32 = 0;
/// A text in UTF-16LE, with a final zero.
pub const REG_SZ: u32 = 1;
/// A text with `%variables%`.
pub const REG_EXPAND_SZ: u32 = 2;
/// Bytes.
pub const REG_BINARY: u32 = 3;
/// A number of 32 bits.
pub const REG_DWORD: u32 = 4;
/// The same, big-endian.
pub const REG_DWORD_BIG_ENDIAN: u32 = 5;
/// The target of a key that is a symbolic link.
pub const REG_LINK: u32 = 6;
/// Several texts, each with a final zero, and one more zero.
pub const REG_MULTI_SZ: u32 = 7;
/// A number of 64 bits.
pub const REG_QWORD: u32 = 11;

/// Data of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Data {
    /// The type, which need not be one of the known ones: device properties have types of their own.
    pub kind: u32,
    /// As they lie in the hive.
    pub bytes: Vec<u8>,
}

fn utf16(text: &str) -> impl Iterator<Item = u8> + '_ {
    text.encode_utf16().flat_map(u16::to_le_bytes)
}

impl Data {
    /// `REG_DWORD`
    pub fn dword(value: u32) -> Data {
        Data { kind: REG_DWORD, bytes: value.to_le_bytes().to_vec() }
    }
    /// `REG_QWORD`
    pub fn qword(value: u64) -> Data {
        Data { kind: REG_QWORD, bytes: value.to_le_bytes().to_vec() }
    }
    /// `REG_SZ`
    pub fn text(text: &str) -> Data {
        Data { kind: REG_SZ, bytes: utf16(text).chain([0, 0]).collect() }
    }
    /// `REG_EXPAND_SZ`
    pub fn expand(text: &str) -> Data {
        Data { kind: REG_EXPAND_SZ, ..Data::text(text) }
    }
    /// `REG_MULTI_SZ`. An empty text would end the list for every reader, so there must be none among them.
    pub fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Data {
        let mut bytes = Vec::new();
        for text in texts {
            bytes.extend(utf16(text.as_ref()).chain([0, 0]));
        }
        bytes.extend([0, 0]);
        Data { kind: REG_MULTI_SZ, bytes }
    }
    /// `REG_BINARY`
    pub fn binary(bytes: impl Into<Vec<u8>>) -> Data {
        Data { kind: REG_BINARY, bytes: bytes.into() }
    }

    /// The number, of any type that holds one of 32 bits: also four bytes of binary, which programs store by mistake.
    pub fn as_dword(&self) -> Option<u32> {
        match self.kind {
            REG_DWORD => le32(&self.bytes, 0),
            REG_DWORD_BIG_ENDIAN => array(&self.bytes, 0).map(u32::from_be_bytes),
            REG_QWORD => le64(&self.bytes, 0).and_then(|number| number.try_into().ok()),
            REG_BINARY | REG_NONE if self.bytes.len() == 4 => le32(&self.bytes, 0),
            _ => None,
        }
    }

    /// The text up to its first zero, of the types that hold one. What is no UTF-16 is replaced.
    pub fn as_text(&self) -> Option<String> {
        let is_text = matches!(self.kind, REG_SZ | REG_EXPAND_SZ | REG_LINK);
        is_text.then(|| {
            let units = self.units();
            String::from_utf16_lossy(units.split(|unit| *unit == 0).next().unwrap_or_default())
        })
    }

    /// The texts up to the empty one; a single text counts as a list of one.
    pub fn as_texts(&self) -> Option<Vec<String>> {
        match self.kind {
            REG_MULTI_SZ => {
                let units = self.units();
                let texts = units.split(|unit| *unit == 0).take_while(|text| !text.is_empty());
                Some(texts.map(String::from_utf16_lossy).collect())
            }
            _ => self.as_text().map(|text| if text.is_empty() { Vec::new() } else { vec![text] }),
        }
    }

    fn units(&self) -> Vec<u16> {
        self.bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
    }
}

/// For reports: `REG_DWORD 3`, `REG_SZ "text"`, `REG_BINARY 01 ff`.
impl Display for Data {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            REG_NONE => "REG_NONE",
            REG_SZ => "REG_SZ",
            REG_EXPAND_SZ => "REG_EXPAND_SZ",
            REG_BINARY => "REG_BINARY",
            REG_DWORD => "REG_DWORD",
            REG_DWORD_BIG_ENDIAN => "REG_DWORD_BIG_ENDIAN",
            REG_MULTI_SZ => "REG_MULTI_SZ",
            REG_QWORD => "REG_QWORD",
            REG_LINK => "REG_LINK",
            other => return write!(f, "type {other:#x}{}", Hex(&self.bytes)),
        };
        f.write_str(name)?;
        let is_bytes = matches!(self.kind, REG_BINARY | REG_NONE);
        match (self.as_dword().filter(|_| !is_bytes), self.as_text(), self.as_texts()) {
            (Some(number), ..) => write!(f, " {number}"),
            (_, Some(text), _) => write!(f, " {text:?}"),
            (_, _, Some(texts)) => write!(f, " {texts:?}"),
            _ => Hex(&self.bytes).fmt(f),
        }
    }
}

/// Bytes as they are shown: not more than a line of them.
struct Hex<'a>(&'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 64;
        for byte in self.0.iter().take(SHOWN) {
            write!(f, " {byte:02x}")?;
        }
        match self.0.len() > SHOWN {
            true => write!(f, " … ({} bytes)", self.0.len()),
            false => Ok(()),
        }
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_as_it_was_made() {
        assert_eq!(Data::dword(7).as_dword(), Some(7));
        assert_eq!(Data::qword(7).as_dword(), Some(7));
        assert_eq!(Data::qword(1 << 32).as_dword(), None);
        assert_eq!(Data::text("é").bytes, [0xe9, 0, 0, 0]);
        assert_eq!(Data::expand("a").as_text().as_deref(), Some("a"));
        assert_eq!(Data::texts(["a", "bc"]).as_texts().unwrap(), ["a", "bc"]);
        assert_eq!(Data::texts::<&str>([]).bytes, [0, 0]);
        assert_eq!(Data::binary([1]).as_text(), None);
        // As Windows reads it: without a final zero, and with rubbish behind one.
        assert_eq!(Data { kind: REG_SZ, bytes: vec![0x61, 0, 0x62] }.as_text().as_deref(), Some("a"));
        assert_eq!(
            Data { kind: REG_SZ, bytes: vec![0x61, 0, 0, 0, 0x62, 0] }.as_text().as_deref(),
            Some("a")
        );
    }

    #[test]
    fn data_is_shown_in_a_line() {
        assert_eq!(Data::dword(3).to_string(), "REG_DWORD 3");
        assert_eq!(Data::text("a\n").to_string(), r#"REG_SZ "a\n""#);
        assert_eq!(Data::texts(["a", "b"]).to_string(), r#"REG_MULTI_SZ ["a", "b"]"#);
        assert_eq!(Data::binary([1, 255]).to_string(), "REG_BINARY 01 ff");
        assert_eq!(Data { kind: 0x1_0007, bytes: vec![9] }.to_string(), "type 0x10007 09");
        assert!(Data::binary(vec![0; 65]).to_string().ends_with("00 … (65 bytes)"));
    }
}
