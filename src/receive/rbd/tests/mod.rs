//! RBD's streams against models of their own: what is read, what is refused, what is left of a machine whatever happens.

mod applying;
mod cut_off;
mod exporting;
mod flips;
mod judging;
mod reading;

use super::record::{Head, Version};
use super::write::Writer;
use landfall_image::{Bytes, GuestOffset, GuestRange};

/// One record of a test's diff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Data(u64, Vec<u8>),
    Zero(u64, u64),
}

/// A diff as the writer makes it.
pub fn diff(version: Version, from: Option<&str>, to: Option<&str>, size: u64, said: &[Said]) -> Vec<u8> {
    let head = Head { from: from.map(str::to_owned), to: to.map(str::to_owned), size: Bytes(size) };
    let mut writer = Writer::begin(Vec::new(), version, &head).unwrap();
    for said in said {
        match said {
            Said::Data(at, bytes) => writer.data(GuestOffset(*at), bytes).unwrap(),
            Said::Zero(at, len) => writer.zero(GuestRange::new(GuestOffset(*at), Bytes(*len))).unwrap(),
        }
    }
    writer.finish().unwrap()
}

/// An image of these diffs, as `rbd export --export-format 2` writes it.
pub fn image(diffs: &[Vec<u8>]) -> Vec<u8> {
    let mut out = b"rbd image v2\n".to_vec();
    for (tag, value) in [(b'O', 22_u64), (b'T', 61), (b'U', 4 << 20), (b'C', 1)] {
        out.push(tag);
        out.extend(8_u64.to_le_bytes());
        out.extend(value.to_le_bytes());
    }
    let (key, value) = (b"conf_rbd_cache", b"true");
    out.push(b'M');
    out.extend(((key.len() + value.len() + 8) as u64).to_le_bytes());
    for text in [&key[..], value] {
        out.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        out.extend(text);
    }
    out.push(b'E');
    out.extend(b"rbd image diffs v2\n");
    out.extend((diffs.len() as u64).to_le_bytes());
    out.extend(diffs.concat());
    out
}

/// Makes a disk what a diff of these records makes of it.
pub fn model(disk: &mut Vec<u8>, size: u64, said: &[Said]) {
    disk.resize(usize::try_from(size).unwrap(), 0);
    for said in said {
        match said {
            Said::Data(at, bytes) => {
                let at = usize::try_from(*at).unwrap();
                disk[at..at + bytes.len()].copy_from_slice(bytes);
            }
            Said::Zero(at, len) => {
                let at = usize::try_from(*at).unwrap();
                disk[at..at + usize::try_from(*len).unwrap()].fill(0);
            }
        }
    }
}
