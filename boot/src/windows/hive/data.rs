//! Data of a value: its type and its bytes, made and read the way that Windows' own programs do.
//!
//! Text is UTF-16LE with a NUL at its end. Getters are lenient, as programs have to be with what others stored: text
//! without the NUL or with an odd byte, numbers stored as binary. Deliberately absent: the structures inside of resource
//! lists and device properties.

use crate::volume::field::{array, le32, le64};

/// Types of values (`winnt.h`, `REG_*`).
pub mod kind {
    /// Nothing said.
    pub const NONE: u32 = 0;
    /// Text.
    pub const SZ: u32 = 1;
    /// Text with names of variables between percent signs.
    pub const EXPAND_SZ: u32 = 2;
    /// Bytes.
    pub const BINARY: u32 = 3;
    /// 32 bits.
    pub const DWORD: u32 = 4;
    /// 32 bits, the highest byte first.
    pub const DWORD_BIG_ENDIAN: u32 = 5;
    /// The target of a key that is a symbolic link.
    pub const LINK: u32 = 6;
    /// Several texts.
    pub const MULTI_SZ: u32 = 7;
    /// 64 bits.
    pub const QWORD: u32 = 11;
}

/// What a value holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Data {
    /// One of [`kind`], or any other number: device properties have types of their own.
    pub kind: u32,
    /// As they are stored.
    pub bytes: Vec<u8>,
}

fn utf16(text: &str) -> impl Iterator<Item = u8> + '_ {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes)
}

impl Data {
    /// `REG_DWORD`
    pub fn dword(number: u32) -> Data {
        Data { kind: kind::DWORD, bytes: number.to_le_bytes().to_vec() }
    }
    /// `REG_QWORD`
    pub fn qword(number: u64) -> Data {
        Data { kind: kind::QWORD, bytes: number.to_le_bytes().to_vec() }
    }
    /// `REG_SZ`
    pub fn string(text: &str) -> Data {
        Data { kind: kind::SZ, bytes: utf16(text).collect() }
    }
    /// `REG_EXPAND_SZ`
    pub fn expand_string(text: &str) -> Data {
        Data { kind: kind::EXPAND_SZ, bytes: utf16(text).collect() }
    }
    /// `REG_MULTI_SZ`. An empty text would end the list for every reader, so there must be none among them.
    pub fn multi_string<'a>(texts: impl IntoIterator<Item = &'a str>) -> Data {
        let bytes = texts.into_iter().flat_map(utf16).chain([0, 0]).collect();
        Data { kind: kind::MULTI_SZ, bytes }
    }
    /// `REG_BINARY`
    pub fn binary(bytes: impl Into<Vec<u8>>) -> Data {
        Data { kind: kind::BINARY, bytes: bytes.into() }
    }

    /// The number, of any type that holds one of 32 bits: also four bytes of binary, which programs store by mistake.
    pub fn as_dword(&self) -> Option<u32> {
        match self.kind {
            kind::DWORD => le32(&self.bytes, 0),
            kind::DWORD_BIG_ENDIAN => array(&self.bytes, 0).map(u32::from_be_bytes),
            kind::QWORD => le64(&self.bytes, 0).and_then(|number| number.try_into().ok()),
            kind::BINARY | kind::NONE if self.bytes.len() == 4 => le32(&self.bytes, 0),
            _ => None,
        }
    }
    /// The text up to its NUL, of the types that hold one.
    pub fn as_text(&self) -> Option<String> {
        let is_text = matches!(self.kind, kind::SZ | kind::EXPAND_SZ | kind::LINK);
        is_text.then(|| self.texts(true).next().unwrap_or_default())
    }
    /// The texts up to the empty one; a single text counts as a list of one.
    pub fn as_texts(&self) -> Option<Vec<String>> {
        match self.kind {
            kind::MULTI_SZ => Some(self.texts(false).take_while(|text| !text.is_empty()).collect()),
            _ => self.as_text().map(|text| if text.is_empty() { Vec::new() } else { vec![text] }),
        }
    }

    fn texts(&self, first_only: bool) -> impl Iterator<Item = String> {
        let units: Vec<u16> =
            self.bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        let texts: Vec<String> = units
            .split(|&unit| unit == 0)
            .take(if first_only { 1 } else { usize::MAX })
            .map(String::from_utf16_lossy)
            .collect();
        texts.into_iter()
    }
}
