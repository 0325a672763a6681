//! Where the blocks of each disk lie: the archive's headers, read once.
//!
//! ```text
//! number -> position in the disk: end of the block before it + (number - number before it - 1) * length of the first block
//! ```
//! For most exports that is number times 1 MiB. But an exporter that has met nothing but zeros for some seconds writes a block
//! of no bytes, so that firewalls see something, and counts on: every later number is then one too high, and the rule is
//! right.

use super::DEFINITION;
use crate::error::{Error, Result};
use crate::limits;
use crate::source::Source;
use crate::tar::{Member, Walk};
use crate::units::{Bytes, FileOffset};
use std::collections::HashMap;
use std::sync::Arc;

/// How a block's digest was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sum {
    /// The archive has none.
    Absent,
    /// SHA-1 in hexadecimal digits.
    Sha1,
    /// XXH64 with the seed 0, in hexadecimal digits.
    Xxh64,
}

/// Endings of a digest's name.
const SUMS: [(Sum, &str, u64); 2] = [(Sum::Sha1, ".checksum", 40), (Sum::Xxh64, ".xxhash", 16)];

/// A block that holds bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Where it begins in the disk.
    pub(super) at: u64,
    /// Where its bytes lie in the archive.
    pub(super) file: u64,
    /// Where its digest lies in the archive.
    pub(super) sum_file: u64,
    /// Its length.
    pub(super) len: u32,
    /// What its digest is.
    pub(super) sum: Sum,
}

/// The blocks of a disk.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// With rising positions, none on another.
    pub(super) list: Vec<Block>,
    /// Sum of their lengths.
    pub(super) stored: u64,
    /// Where the next block would lie if its number were the next one.
    end: u64,
    /// Number of the last block so far.
    last: Option<u64>,
    /// Length of the first block.
    unit: u64,
    /// The last header was that of a block, whose digest may follow.
    expects_sum: bool,
}

/// All disks of an archive.
#[derive(Debug)]
pub(super) struct Index {
    /// By name, in the order in which they begin.
    pub(super) disks: Vec<(String, Arc<Blocks>)>,
    /// Other members, the first few by name.
    pub(super) strangers: Vec<String>,
}

/// What a member's name says it is.
#[derive(Debug, PartialEq, Eq)]
enum Name<'a> {
    Block(&'a str, u64),
    Sum(&'a str, u64, Sum, u64),
    Other,
}

fn name(member: &str) -> Name<'_> {
    let Some((disk, last)) = member.rsplit_once('/') else { return Name::Other };
    let (digits, sum) = match SUMS.iter().find_map(|row| Some((last.strip_suffix(row.1)?, row))) {
        Some((digits, row)) => (digits, Some(row)),
        None => (last, None),
    };
    let is_number = (1..=18).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(number) if is_number && !disk.is_empty() => match sum {
            Some((sum, _, len)) => Name::Sum(disk, number, *sum, *len),
            None => Name::Block(disk, number),
        },
        _ => Name::Other,
    }
}

/// Reads all headers: the definition, and where the blocks lie.
pub(super) fn read(source: &Source) -> Result<(Member, Index)> {
    let mut walk = Walk::new(source, "an XVA", limits::XVA_HEADERS);
    let definition = walk.next()?.filter(|first| first.name == DEFINITION);
    let definition = definition.ok_or_else(|| source.corrupt("does not begin with ova.xml"))?;
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut disks: Vec<(String, Blocks)> = Vec::new();
    let mut strangers: Vec<String> = Vec::new();
    let mut count = 0;
    while let Some(member) = walk.next()? {
        let corrupt = |says: String| source.corrupt(says).at(member.at);
        match name(&member.name) {
            Name::Block(disk, number) => {
                let place = match places.get(disk) {
                    Some(place) => *place,
                    None => {
                        if disks.len() >= limits::XVA_DISKS {
                            return Err(corrupt(format!("has more than {} disks", limits::XVA_DISKS)));
                        }
                        disks.push((disk.to_owned(), Blocks::default()));
                        places.insert(disk.to_owned(), disks.len() - 1);
                        disks.len() - 1
                    }
                };
                count += 1;
                if count > limits::XVA_BLOCKS {
                    return Err(corrupt(format!("has more than {} blocks", limits::XVA_BLOCKS)));
                }
                disks[place].1.add(number, &member).map_err(|e| named(e, source, &member))?;
            }
            Name::Sum(disk, number, sum, len) => {
                let blocks = places.get(disk).and_then(|place| disks.get_mut(*place));
                let fits = blocks.is_some_and(|(_, blocks)| blocks.add_sum(number, sum, &member));
                if !fits {
                    return Err(corrupt(format!(
                        "{:?} is a digest that follows no block of it",
                        member.name
                    )));
                }
                if member.len.0 != len {
                    let says = format!("the digest {:?} has {} bytes, not {len}", member.name, member.len.0);
                    return Err(corrupt(says));
                }
            }
            Name::Other if member.name == DEFINITION => {
                return Err(corrupt("has ova.xml twice".into()));
            }
            Name::Other if strangers.len() < limits::XVA_STRANGERS => strangers.push(member.name),
            Name::Other => {}
        }
    }
    let disks = disks.into_iter().map(|(name, blocks)| (name, Arc::new(blocks))).collect();
    Ok((definition, Index { disks, strangers }))
}

fn named(error: Error, source: &Source, member: &Member) -> Error {
    let says = format!("the block {:?} {}", member.name, error.says());
    let hint =
        "an archive that was packed again with tar has its blocks in another order: use the export itself";
    source.corrupt(says).at(member.at).hint(hint)
}

impl Blocks {
    fn add(&mut self, number: u64, member: &Member) -> Result<()> {
        let len = member.len.0;
        if len > limits::XVA_BLOCK.0 {
            return Err(Error::corrupt(format!("has {len} bytes; at most {} are read", limits::XVA_BLOCK.0)));
        }
        let skipped = match self.last {
            None if number == 0 && len > 0 => {
                self.unit = len;
                0
            }
            None => {
                return Err(Error::corrupt(
                    "is the first of its disk and not number 0 with data: blocks are missing",
                ));
            }
            Some(last) => number
                .checked_sub(last)
                .and_then(|step| step.checked_sub(1))
                .ok_or_else(|| Error::corrupt(format!("follows number {last}: numbers have to rise")))?,
        };
        let at = skipped.checked_mul(self.unit).and_then(|skipped| skipped.checked_add(self.end));
        let end = at.and_then(|at| at.checked_add(len)).filter(|end| *end <= limits::DISK_SIZE.0);
        let (Some(at), Some(end)) = (at, end) else {
            return Err(Error::corrupt(format!("lies beyond the largest disk, {}", limits::DISK_SIZE)));
        };
        self.last = Some(number);
        self.end = end;
        self.expects_sum = true;
        if len > 0 {
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            self.list.push(Block { at, file: member.at.0, sum_file: 0, len, sum: Sum::Absent });
            self.stored = self.stored.saturating_add(u64::from(len));
        }
        Ok(())
    }

    /// Takes the digest of the block with that number; false where that was not the last one.
    fn add_sum(&mut self, number: u64, sum: Sum, member: &Member) -> bool {
        let follows = self.expects_sum && self.last == Some(number);
        self.expects_sum = false;
        // A block of no bytes has a digest, too, and no place in the list.
        if let Some(block) =
            self.list.last_mut().filter(|block| block.at.saturating_add(block.len.into()) == self.end)
            && follows
            && block.sum == Sum::Absent
        {
            (block.sum, block.sum_file) = (sum, member.at.0);
        }
        follows
    }

    /// Refuses a disk of which blocks are missing at its end, or that has more of them than it is long.
    pub(super) fn complete(&self, size: u64, source: &Source) -> Result<()> {
        if self.end > size {
            let says = format!("has blocks up to {:#x} of a disk of {size} bytes", self.end);
            return Err(source
                .corrupt(says)
                .hint("export the machine again: its ova.xml and its blocks do not fit"));
        }
        if self.end < size {
            let says = format!(
                "has blocks up to {:#x} of a disk of {size} bytes, and the last block is never left out: the export is \
                 incomplete, it ends at {:#x}",
                self.end,
                source.len().0
            );
            return Err(source
                .corrupt(says)
                .at(FileOffset(source.len().0))
                .hint("copy it again from its origin and compare the sizes, or export the machine again"));
        }
        Ok(())
    }

    /// What its digests are, for people.
    pub(super) fn digests(&self) -> &'static str {
        let has = |sum: Sum| self.list.iter().any(|block| block.sum == sum);
        match (has(Sum::Sha1), has(Sum::Xxh64), has(Sum::Absent)) {
            (true, false, false) => "SHA-1",
            (false, true, false) => "XXH64",
            (_, _, false) => "SHA-1 and XXH64",
            (false, false, true) => "none",
            (_, _, true) => "not of all blocks",
        }
    }

    /// The place in the list of the first block that ends behind `at`.
    pub(super) fn first_behind(&self, at: u64) -> usize {
        self.list.partition_point(|block| block.at.saturating_add(block.len.into()) <= at)
    }
}

impl Block {
    /// Its end in the disk.
    pub(super) fn end(&self) -> u64 {
        self.at.saturating_add(self.len.into())
    }

    /// Its length.
    pub(super) fn bytes(&self) -> Bytes {
        Bytes(self.len.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are() {
        assert_eq!(name("Ref:9/00000012"), Name::Block("Ref:9", 12));
        assert_eq!(
            name("Ref:9/2048"),
            Name::Block("Ref:9", 2048),
            "some writers do not fill up the last number"
        );
        assert_eq!(name("Ref:9/00000012.checksum"), Name::Sum("Ref:9", 12, Sum::Sha1, 40));
        assert_eq!(name("Ref:9/00000012.xxhash"), Name::Sum("Ref:9", 12, Sum::Xxh64, 16));
        assert_eq!(name("../Ref:9/1"), Name::Block("../Ref:9", 1), "a word that leads nowhere");
        for other in [
            "x",
            "/1",
            "Ref:9/",
            "Ref:9/-1",
            "Ref:9/+1",
            "Ref:9/1.md5",
            "Ref:9/0000000000000000001",
            "Ref:9/1 ",
        ] {
            assert_eq!(name(other), Name::Other, "{other}");
        }
    }
}
