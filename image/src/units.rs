//! Offsets and lengths, each with its own type, so that a guest offset cannot be used as a file offset.
//!
//! No bare `u64` that means bytes or sectors crosses a public function boundary of this crate. All arithmetic on
//! them is checked: a value that came from a file cannot wrap around.

use std::fmt;

/// Bytes in a sector of the 512-byte kind, the unit of VMDK, VHD and MBR structures.
pub const SECTOR_SIZE_BYTES: u64 = 512;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The value as `usize`, or `None` where this machine's address space is too small for it.
            pub fn to_usize(self) -> Option<usize> {
                usize::try_from(self.0).ok()
            }
        }
    };
}

unit!(
    /// A byte position on a disk as its guest sees it.
    GuestOffset
);
unit!(
    /// A byte position in a file on the host.
    FileOffset
);
unit!(
    /// A length in bytes.
    Bytes
);
unit!(
    /// A length or position in 512-byte sectors.
    Sectors
);

impl Bytes {
    /// `n` KiB.
    pub const fn kib(n: u64) -> Self {
        Bytes(n << 10)
    }
    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Bytes(n << 20)
    }
    /// `n` GiB.
    pub const fn gib(n: u64) -> Self {
        Bytes(n << 30)
    }
    /// Sum, or `None` past 2^64.
    pub fn checked_add(self, other: Bytes) -> Option<Bytes> {
        self.0.checked_add(other.0).map(Bytes)
    }
}

impl Sectors {
    /// Length in bytes, or `None` where it does not fit 64 bits.
    pub fn to_bytes(self) -> Option<Bytes> {
        self.0.checked_mul(SECTOR_SIZE_BYTES).map(Bytes)
    }
}

impl GuestOffset {
    /// This position moved forward by `by`, or `None` past 2^64.
    pub fn checked_add(self, by: Bytes) -> Option<GuestOffset> {
        self.0.checked_add(by.0).map(GuestOffset)
    }
    /// Distance from `earlier`, or `None` where that lies behind this position.
    pub fn checked_sub(self, earlier: GuestOffset) -> Option<Bytes> {
        self.0.checked_sub(earlier.0).map(Bytes)
    }
}

impl FileOffset {
    /// This position moved forward by `by`, or `None` past 2^64.
    pub fn checked_add(self, by: Bytes) -> Option<FileOffset> {
        self.0.checked_add(by.0).map(FileOffset)
    }
}

/// A run of bytes on a disk: `start` up to and without `start + len`, which never exceeds 2^64 - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GuestRange {
    start: GuestOffset,
    len: Bytes,
}

impl GuestRange {
    /// The run of `len` bytes from `start`. A run that would pass 2^64 - 1 is cut there.
    pub fn new(start: GuestOffset, len: Bytes) -> Self {
        GuestRange { start, len: Bytes(len.0.min(u64::MAX - start.0)) }
    }
    /// The run from `start` up to `end`; empty where `end` is not behind `start`.
    pub fn between(start: GuestOffset, end: GuestOffset) -> Self {
        GuestRange { start, len: Bytes(end.0.saturating_sub(start.0)) }
    }
    /// First byte.
    pub fn start(self) -> GuestOffset {
        self.start
    }
    /// Length.
    pub fn len(self) -> Bytes {
        self.len
    }
    /// First byte behind the run.
    pub fn end(self) -> GuestOffset {
        GuestOffset(self.start.0 + self.len.0)
    }
    /// True where the run holds no byte.
    pub fn is_empty(self) -> bool {
        self.len.0 == 0
    }
    /// The part of this run that lies in `other`; empty (at this run's start) where they do not meet.
    pub fn intersect(self, other: GuestRange) -> GuestRange {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        if end > start { GuestRange::between(start, end) } else { GuestRange::new(self.start, Bytes(0)) }
    }
}

impl fmt::Display for Bytes {
    /// Binary units with one decimal (`9.2 GiB`); exact below 1 KiB (`512 bytes`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" });
        }
        let mut unit = 0;
        let mut divisor: u64 = 1024;
        while unit + 1 < UNITS.len() && self.0 / divisor >= 1024 {
            divisor *= 1024;
            unit += 1;
        }
        let tenths = u128::from(self.0) * 10 / u128::from(divisor);
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_print_in_binary_units() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (9 << 30, "9.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_range_never_wraps() {
        let range = GuestRange::new(GuestOffset(u64::MAX - 1), Bytes(10));
        assert_eq!(range.end(), GuestOffset(u64::MAX));
        assert!(range.intersect(GuestRange::new(GuestOffset(0), Bytes(5))).is_empty());
    }
}
