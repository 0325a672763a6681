//! The footer: Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format".
//!
//! ```text
//! fixed:         +------------------------------------------------+--------+
//!                | the disk's bytes                               | footer |
//!                +------------------------------------------------+--------+
//! dynamic,       +--------+----------------+-------+--------------+--------+
//! differencing:  | footer | dynamic header | BAT   | blocks       | footer |
//!                | (copy) | 1024 bytes     |       |              | 512    |
//!                +--------+----------------+-------+--------------+--------+
//! ```
//!
//! All integers are big-endian. Virtual PC before 2004 wrote footers of 511 bytes; the last, missing byte is reserved.

use crate::error::{Error, Result};
use uuid::Uuid;

/// What begins every footer.
pub const COOKIE: &[u8; 8] = b"conectix";
/// Length of a footer.
pub const FOOTER_BYTES: usize = 512;
/// Length of a footer by Virtual PC before 2004.
pub const SHORT_FOOTER_BYTES: usize = 511;

/// Creators whose guests saw the size that the geometry gives. All others go by the current size: what Hyper-V,
/// disk2vhd, XenServer, VirtualBox, Azure and `qemu-img -o force_size` do.
const SIZED_BY_GEOMETRY: [&[u8; 4]; 3] = [b"vpc ", b"vs  ", b"qemu"];
/// What Windows 10 and Windows Server 2016 and later write beside the creator `win `.
const CREATOR_VERSION: u32 = 0x000a_0000;
/// The largest geometry. It stands for all larger disks too, so that it says nothing about the size.
pub const GEOMETRY_MAX: (u16, u8, u8) = (65535, 16, 255);

/// `N` bytes at `at`, or `Corrupt` where the structure is shorter.
pub fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    at.checked_add(N).and_then(|end| bytes.get(at..end)).and_then(|part| part.try_into().ok()).ok_or_else(
        || Error::corrupt(format!("a structure of {} bytes is cut off at byte {at}", bytes.len())),
    )
}

/// A 32-bit field.
pub fn be32(bytes: &[u8], at: usize) -> Result<u32> {
    field(bytes, at).map(u32::from_be_bytes)
}

/// A 64-bit field.
pub fn be64(bytes: &[u8], at: usize) -> Result<u64> {
    field(bytes, at).map(u64::from_be_bytes)
}

/// The complement of the sum of all bytes but the four of the checksum field at `at`.
pub fn checksum(bytes: &[u8], at: usize) -> u32 {
    let outside = bytes.iter().enumerate().filter(|(n, _)| !(at..at.saturating_add(4)).contains(n));
    !outside.fold(0u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}

/// Refuses a structure whose checksum at `at` does not fit its bytes.
pub fn check_checksum(what: &str, bytes: &[u8], at: usize) -> Result<()> {
    let (stored, computed) = (be32(bytes, at)?, checksum(bytes, at));
    if stored == computed {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "the checksum of the {what} is {stored:#010x}, its bytes give {computed:#010x}"
    ))
    .hint("the image is damaged or was edited by hand; copy it again from its origin"))
}

/// The kind of disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Fixed,
    Dynamic,
    Differencing,
}

/// Which of two fields the size comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeRule {
    CurrentSize,
    Geometry,
}

/// A footer whose checksum is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Where the dynamic header lies; meaningless for fixed disks.
    pub data_offset: u64,
    /// The product that made the image, four characters.
    pub creator: [u8; 4],
    /// Size of the disk by its footer.
    pub current_size_bytes: u64,
    /// Cylinders, heads, sectors per track.
    pub geometry: (u16, u8, u8),
    /// The kind.
    pub kind: Kind,
    /// What children name.
    pub unique_id: Uuid,
    /// The machine was suspended.
    pub saved_state: bool,
}

impl Footer {
    /// Reads a footer of 512 or 511 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Footer> {
        if &field::<8>(bytes, 0)? != COOKIE {
            return Err(Error::corrupt("there is no footer with the cookie \"conectix\""));
        }
        let bytes = bytes.get(..FOOTER_BYTES.min(bytes.len())).unwrap_or(bytes);
        field::<1>(bytes, SHORT_FOOTER_BYTES - 1)?;
        check_checksum("footer", bytes, 64)?;
        let version = be32(bytes, 12)?;
        if version >> 16 != 1 {
            return Err(Error::unsupported(format!(
                "VHD version {}.{}; version 1 is read",
                version >> 16,
                version & 0xffff
            )));
        }
        let kind = match be32(bytes, 60)? {
            2 => Kind::Fixed,
            3 => Kind::Dynamic,
            4 => Kind::Differencing,
            kind => {
                return Err(Error::unsupported(format!(
                    "the disk type is {kind}; 2 (fixed), 3 (dynamic) and 4 (differencing) are read"
                )));
            }
        };
        let [cylinder_high, cylinder_low, heads, sectors] = field(bytes, 56)?;
        Ok(Footer {
            data_offset: be64(bytes, 16)?,
            creator: field(bytes, 28)?,
            current_size_bytes: be64(bytes, 48)?,
            geometry: (u16::from_be_bytes([cylinder_high, cylinder_low]), heads, sectors),
            kind,
            unique_id: Uuid::from_bytes(field(bytes, 68)?),
            saved_state: field::<1>(bytes, 84)? != [0],
        })
    }

    /// The creator without its padding, for people.
    pub fn creator_name(&self) -> String {
        self.creator.escape_ascii().to_string().replace("\\x00", "").trim_end().to_owned()
    }

    /// Size of the disk as its guest saw it, and the rule that gave it. A size that is not of whole sectors is
    /// `Corrupt`.
    pub fn size(&self) -> Result<(u64, SizeRule)> {
        let (cylinders, heads, sectors) = self.geometry;
        let by_geometry = u64::from(cylinders) * u64::from(heads) * u64::from(sectors) * 512;
        let counts =
            SIZED_BY_GEOMETRY.contains(&&self.creator) && self.geometry != GEOMETRY_MAX && by_geometry != 0;
        if counts {
            return Ok((by_geometry, SizeRule::Geometry));
        }
        let size = self.current_size_bytes;
        if size == 0 || !size.is_multiple_of(512) {
            return Err(Error::corrupt(format!(
                "the current size is {size} bytes; it must be a multiple of 512, above zero"
            )));
        }
        Ok((size, SizeRule::CurrentSize))
    }
}

/// The geometry of a disk of that many bytes, by the specification's appendix "CHS Calculation".
pub fn geometry(size_bytes: u64) -> (u16, u8, u8) {
    let (cylinders, heads, sectors) = GEOMETRY_MAX;
    let most = u64::from(cylinders) * u64::from(heads) * u64::from(sectors);
    let total = (size_bytes / 512).min(most);
    let (heads, sectors) = if total >= 65535 * 16 * 63 {
        (16, 255)
    } else {
        let tracks = total / 17;
        let heads = tracks.div_ceil(1024).max(4);
        if heads <= 16 && tracks < heads * 1024 {
            (heads, 17)
        } else if total / 31 < 16 * 1024 {
            (16, 31)
        } else {
            (16, 63)
        }
    };
    // At most 65535, 16 and 255.
    let cylinders = u16::try_from(total / sectors / heads).unwrap_or(u16::MAX);
    (cylinders, u8::try_from(heads).unwrap_or(16), u8::try_from(sectors).unwrap_or(255))
}

/// The footer of a new disk of `size_bytes`, of whole sectors. Its header, if it has one, follows the footer's copy.
pub fn new_footer(kind: Kind, size_bytes: u64, unique_id: Uuid) -> [u8; FOOTER_BYTES] {
    let mut bytes = [0; FOOTER_BYTES];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, COOKIE);
    // Features: the bit that is always set. The version is 1.0.
    put(8, &2u32.to_be_bytes());
    put(12, &0x1_0000u32.to_be_bytes());
    let header = if kind == Kind::Fixed { u64::MAX } else { FOOTER_BYTES as u64 };
    put(16, &header.to_be_bytes());
    put(28, b"win ");
    put(32, &CREATOR_VERSION.to_be_bytes());
    put(36, b"Wi2k");
    put(40, &size_bytes.to_be_bytes());
    put(48, &size_bytes.to_be_bytes());
    let (cylinders, heads, sectors) = geometry(size_bytes);
    put(56, &cylinders.to_be_bytes());
    put(58, &[heads, sectors]);
    let kind: u32 = match kind {
        Kind::Fixed => 2,
        Kind::Dynamic => 3,
        Kind::Differencing => 4,
    };
    put(60, &kind.to_be_bytes());
    put(68, unique_id.as_bytes());
    let sum = checksum(&bytes, 64);
    bytes[64..68].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer(creator: &[u8; 4], current_size_bytes: u64, geometry: (u16, u8, u8)) -> Footer {
        Footer {
            data_offset: u64::MAX,
            creator: *creator,
            current_size_bytes,
            geometry,
            kind: Kind::Fixed,
            unique_id: Uuid::nil(),
            saved_state: false,
        }
    }

    /// The geometries in the footers of real images, and worked by hand from the specification.
    #[test]
    fn geometries() {
        for (size, wanted) in [
            (4 << 20, (120, 4, 17)),
            (136_365_211_648, (65278, 16, 255)),
            (512, (0, 4, 17)),
            (17 * 512 * 4096, (140, 16, 31)),
            (500 << 20, (1015, 16, 63)),
            (2040 << 30, (65535, 16, 255)),
            (65535 * 16 * 63 * 512, (16191, 16, 255)),
            (65535 * 16 * 63 * 512 - 512, (65534, 16, 63)),
        ] {
            assert_eq!(geometry(size), wanted, "{size}");
        }
    }

    #[test]
    fn the_creator_decides_what_the_size_is() {
        let size =
            |creator, size, geometry| footer(creator, size, geometry).size().map(|(size, _)| size).ok();
        // The two real images of one size, by Virtual PC and by Hyper-V.
        assert_eq!(size(b"vpc ", 136_365_211_648, (65278, 16, 255)), Some(136_363_130_880));
        assert_eq!(size(b"win ", 136_365_211_648, (65278, 16, 255)), Some(136_365_211_648));
        for creator in [b"d2v\0", b"tap\0", b"qem2", b"vbox", b"CTXS", b"wa\0\0", b"\0\0\0\0"] {
            assert_eq!(size(creator, 8 << 30, (1, 2, 3)), Some(8 << 30));
        }
        // Larger than any geometry; no geometry at all.
        assert_eq!(size(b"vpc ", 1 << 40, (65535, 16, 255)), Some(1 << 40));
        assert_eq!(size(b"qemu", 1 << 20, (0, 0, 0)), Some(1 << 20));
        assert_eq!(size(b"win ", 0, (1, 1, 1)), None);
        assert_eq!(size(b"win ", 513, (1, 1, 1)), None);
    }
}
