//! Names of keys and values: their two encodings, how Windows compares and sorts them, the hashes and hints of lists.
//!
//! Names are compared by units of UTF-16 in upper case. Windows maps single units with a table of its own that leaves out
//! what Unicode got later and some that map out of their block (MICRO SIGN, DOTLESS I); the table is that of NTFS's
//! `$UpCase` since Windows Vista. Deliberately absent: the tables of earlier versions, which map fewer letters still.

use crate::volume::field::le16;
use std::cmp::Ordering;

/// Units that have an upper case in Unicode and none in Windows. Every letter in a range that Unicode maps is left alone.
const UNMAPPED: [(u16, u16); 33] = [
    (0x00b5, 0x00b5),
    (0x0131, 0x0131),
    (0x017f, 0x017f),
    (0x019b, 0x019b),
    (0x01c5, 0x01c5),
    (0x01c8, 0x01c8),
    (0x01cb, 0x01cb),
    (0x01f2, 0x01f2),
    (0x023f, 0x0240),
    (0x0252, 0x0252),
    (0x025c, 0x025c),
    (0x0261, 0x0261),
    (0x0264, 0x0266),
    (0x026a, 0x026a),
    (0x026c, 0x026c),
    (0x0282, 0x0282),
    (0x0287, 0x0287),
    (0x029d, 0x0345),
    (0x03c2, 0x03c2),
    (0x03d0, 0x03d6),
    (0x03f0, 0x03f1),
    (0x03f3, 0x03f5),
    (0x0525, 0x052f),
    (0x10d0, 0x1c8a),
    (0x1d8e, 0x1d8e),
    (0x1e9b, 0x1e9b),
    (0x1fbe, 0x1fbe),
    (0x2c5f, 0x2c5f),
    (0x2cec, 0x2cf3),
    (0x2d27, 0x2d2d),
    (0xa661, 0xa661),
    (0xa699, 0xa69b),
    (0xa791, 0xabbf),
];

/// The unit in upper case, as Windows has it.
pub fn upper(unit: u16) -> u16 {
    match unit {
        0x61..=0x7a => unit - 0x20,
        0..0x80 => unit,
        _ => upper_beyond_ascii(unit),
    }
}

fn upper_beyond_ascii(unit: u16) -> u16 {
    match unit {
        // Letters with a subscript iota, which Unicode turns into two letters and Windows into one.
        0x1f80..=0x1f87 | 0x1f90..=0x1f97 | 0x1fa0..=0x1fa7 => return unit + 8,
        0x1fb3 | 0x1fc3 | 0x1ff3 => return unit + 9,
        _ => {}
    }
    if UNMAPPED.iter().any(|(first, last)| (*first..=*last).contains(&unit)) {
        return unit;
    }
    let Some(letter) = char::from_u32(u32::from(unit)) else { return unit };
    let mut mapped = letter.to_uppercase();
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => u16::try_from(u32::from(one)).unwrap_or(unit),
        _ => unit,
    }
}

/// A name in a cell.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// Latin-1, one byte for each letter, or UTF-16LE.
    pub bytes: &'a [u8],
    /// It is UTF-16LE.
    pub wide: bool,
}

impl<'a> Name<'a> {
    /// Its units of UTF-16.
    pub fn units(self) -> impl Iterator<Item = u16> + 'a {
        let step = 1 + usize::from(self.wide);
        self.bytes.chunks_exact(step).map(|unit| le16(unit, 0).unwrap_or_else(|| u16::from(unit[0])))
    }
    /// Length as UTF-16, in bytes: what a key says of its longest ones.
    pub fn len_utf16(self) -> u32 {
        let units = self.bytes.len() / (1 + usize::from(self.wide));
        u32::try_from(units * 2).unwrap_or(u32::MAX)
    }
    /// As text. Half of a surrogate pair becomes U+FFFD.
    pub fn text(self) -> String {
        if self.wide {
            let units: Vec<u16> = self.units().collect();
            String::from_utf16_lossy(&units)
        } else {
            self.bytes.iter().map(|&byte| char::from(byte)).collect()
        }
    }
    /// How it compares with units that are in upper case already.
    pub fn compare(self, upper_case: &[u16]) -> Ordering {
        self.units().map(upper).cmp(upper_case.iter().copied())
    }
    /// How it sorts against another name.
    pub fn compare_name(self, other: Name<'_>) -> Ordering {
        self.units().map(upper).cmp(other.units().map(upper))
    }
    /// The hash in lists of the kind `lh`.
    pub fn hash(self) -> u32 {
        self.units().map(upper).fold(0, |hash: u32, unit| hash.wrapping_mul(37).wrapping_add(u32::from(unit)))
    }
    /// The hint in lists of the kind `lf`: the first four letters, all zeros where one of them is not Latin-1.
    pub fn hint(self) -> [u8; 4] {
        let mut hint = [0; 4];
        for (at, unit) in hint.iter_mut().zip(self.units()) {
            let Ok(letter) = u8::try_from(unit) else { return [0; 4] };
            *at = letter;
        }
        hint
    }
}

/// Text as the units by which names are compared.
pub fn folded(name: &str) -> Vec<u16> {
    name.encode_utf16().map(upper).collect()
}

/// A name as it is stored: in bytes where every letter is Latin-1, which is what Windows chooses, too.
pub fn encoded(name: &str) -> (Vec<u8>, bool) {
    let latin: Option<Vec<u8>> = name.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect();
    match latin {
        Some(bytes) => (bytes, false),
        None => (name.encode_utf16().flat_map(u16::to_le_bytes).collect(), true),
    }
}
