//! What of a file's room is no block: headers, tables, a log.

use crate::check::{Checked, Severity};
use crate::units::FileOffset;

/// A part of the file that no block may lie in: bytes from `start` to before `end`.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Its first byte.
    pub start: u64,
    /// The byte behind it.
    pub end: u64,
    /// What it is, for messages.
    pub what: &'static str,
}

/// Adds a problem for each part that ends behind `end`, where the file (or what may be used of it) does, and for each two
/// neighbours that overlap. `taken` is sorted by its starts.
pub fn check(taken: &[Taken], end: u64, checked: &mut Checked) {
    for one in taken {
        if one.end > end {
            let says = format!("the {} ends at {:#x}; the file's data ends at {end:#x}", one.what, one.end);
            checked.add(Severity::Corrupt, says, Some(FileOffset(one.start)));
        }
    }
    for (a, b) in taken.iter().zip(taken.iter().skip(1)) {
        if a.end > b.start {
            let says =
                format!("the {} at {:#x} and the {} at {:#x} overlap", a.what, a.start, b.what, b.start);
            checked.add(Severity::Corrupt, says, Some(FileOffset(b.start)));
        }
    }
}
