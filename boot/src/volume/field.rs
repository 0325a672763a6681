//! Fields of on-disk structures, read without a panic: `None` past the end of the buffer.

/// `len` bytes at `at`.
pub fn bytes(buf: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    buf.get(at..at.checked_add(len)?)
}

/// An array at `at`.
pub fn array<const N: usize>(buf: &[u8], at: usize) -> Option<[u8; N]> {
    bytes(buf, at, N)?.try_into().ok()
}

macro_rules! number {
    ($($name:ident $kind:ty, $from:ident, $doc:literal;)*) => {$(
        #[doc = $doc]
        pub fn $name(buf: &[u8], at: usize) -> Option<$kind> {
            array(buf, at).map(<$kind>::$from)
        }
    )*};
}

number! {
    le16 u16, from_le_bytes, "Little-endian 16 bits.";
    le32 u32, from_le_bytes, "Little-endian 32 bits.";
    le64 u64, from_le_bytes, "Little-endian 64 bits.";
    be16 u16, from_be_bytes, "Big-endian 16 bits.";
    be32 u32, from_be_bytes, "Big-endian 32 bits.";
    be64 u64, from_be_bytes, "Big-endian 64 bits.";
}

/// The text up to the first NUL; `None` where it is empty.
pub fn text(raw: &[u8]) -> Option<String> {
    let end = raw.iter().position(|&byte| byte == 0).unwrap_or(raw.len());
    let text = String::from_utf8_lossy(raw.get(..end)?);
    let text = text.trim_end_matches([' ', '\t', '\n']);
    (!text.is_empty()).then(|| text.to_owned())
}

/// The text of UTF-16LE units up to the first NUL; `None` where it is empty.
pub fn text_utf16(raw: &[u8]) -> Option<String> {
    let units: Vec<u16> =
        raw.chunks_exact(2).filter_map(|unit| le16(unit, 0)).take_while(|&unit| unit != 0).collect();
    (!units.is_empty()).then(|| String::from_utf16_lossy(&units))
}

/// 16 bytes as `8-4-4-4-12` hexadecimal digits in lower case; `None` where all are zero.
pub fn uuid(buf: &[u8], at: usize) -> Option<String> {
    let raw: [u8; 16] = array(buf, at)?;
    (raw != [0; 16]).then(|| uuid::Uuid::from_bytes(raw).to_string())
}
