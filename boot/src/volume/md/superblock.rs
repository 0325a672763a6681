//! The superblocks of md, versions 0.90 and 1.x: what one member says of its array, and how it is made to say that
//! others are gone.
//!
//! The layout is that of the kernel's `include/uapi/linux/raid/md_p.h`.
//!
//! ```text
//! 0.90, 4 KiB in words of the machine's own byte order, in the last 64 KiB that begin on a multiple of 64 KiB
//!   0 magic · 1 major 0 · 2 minor 90 (91: a reshape) · 5, 13..16 UUID · 7 level · 8 size, KiB · 10 disks · 11 minor number
//!  33 state (0: clean) · 34 active, 35 working, 36 failed disks · 38 checksum · 39 events · 43 resync done · 64 layout · 65 chunk, bytes
//! 128 27 descriptors of 32 words: 0 number · 3 disk of the array · 4 state (0 faulty, 1 active, 2 in sync, 3 removed, 9 write-mostly)
//! 992 this one's descriptor
//!
//! 1.x, little-endian; 1.0: at the end · 1.1: at 0 · 1.2: at 4 KiB
//!   0 magic · 4 major 1 · 8 features · 16 UUID · 32 name · 72 level · 76 layout · 80 size, sectors · 88 chunk, sectors
//!  92 disks · 128 data begins · 136 data length · 144 this superblock's place · 152 rebuilt up to · 160 this one's number
//! 184 flags (1: write-mostly) · 186 length and 188 place of the list of bad blocks · 200 events · 208 resync done
//! 216 checksum · 220 number of roles · 256.. role of each number: disk of the array, 0xfffe faulty, 0xffff spare
//! ```

use crate::volume::field::{array, bytes, le16, le32, le64, text};
use crate::{Error, Result, limits};
use landfall_image::{Bytes, Disk, DiskMut, GuestOffset, GuestRange, Sectors};

const MAGIC: u32 = 0xa92b_4efc;
/// Room at the end of a device that version 0.90 keeps for itself, at least.
const RESERVED: u64 = 64 << 10;
const OLD_LEN: usize = 4096;
const OLD_DISKS: usize = 27;
const NEW_HEADER: usize = 256;
/// The role of a member that was thrown out.
const FAULTY: u16 = 0xfffe;

/// Features of version 1.x.
mod feature {
    pub const BITMAP: u32 = 1;
    pub const RECOVERY_OFFSET: u32 = 2;
    pub const RESHAPE: u32 = 4;
    pub const BAD_BLOCKS: u32 = 8;
    pub const REPLACEMENT: u32 = 16;
    pub const NEW_OFFSET: u32 = 64;
    pub const RECOVERY_BITMAP: u32 = 128;
    pub const RAID0_LAYOUT: u32 = 4096;
    /// Of these nothing changes where data lies or which of it is good.
    pub const KNOWN: u32 = BITMAP
        | RECOVERY_OFFSET
        | RESHAPE
        | BAD_BLOCKS
        | REPLACEMENT
        | NEW_OFFSET
        | RECOVERY_BITMAP
        | RAID0_LAYOUT;
}

/// What a device is in its array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It holds the data of the disk of that number.
    Disk(u32),
    /// It waits.
    Spare,
    /// It was thrown out.
    Faulty,
}

/// One member's superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// `0.90`, `1.2`.
    pub version: &'static str,
    /// Where on its device it begins.
    pub place: GuestOffset,
    /// The array's UUID as mdadm prints it: `11111111:22222222:33333333:44444444`.
    pub uuid: String,
    /// The array's name, `host:name`; version 0.90 has none.
    pub name: Option<String>,
    /// The number of its device node that version 0.90 keeps.
    pub node: Option<u32>,
    /// 0, 1, 4, 5, 6, 10; -1 is linear.
    pub level: i32,
    /// Of the level.
    pub layout: u32,
    /// Bytes of a chunk; 0 where the level has none.
    pub chunk: Bytes,
    /// Disks of the array.
    pub disks: u32,
    /// Bytes of each member that levels with redundancy use.
    pub size: Bytes,
    /// Where the data lies on this member.
    pub data: GuestRange,
    /// Grows with every change of the array's state: the member with the most is the freshest.
    pub events: u64,
    /// This member's own number, an index of [`roles`](Self::roles).
    pub number: u32,
    /// What each number is, as this member knew it last.
    pub roles: Vec<Role>,
    /// It was stopped in order: its mirrors are known to be alike.
    pub is_clean: bool,
    /// This member is read only where no other can be.
    pub is_write_mostly: bool,
    /// Why this member's data cannot be relied upon from outside, as the end of a sentence.
    pub objection: Option<String>,
}

impl Superblock {
    /// What `number` is.
    pub fn role(&self, number: u32) -> Role {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        self.roles.get(index).copied().unwrap_or(Role::Spare)
    }
}

/// Reads the superblock of `disk`: `None` where it has none.
///
/// # Errors
/// [`Kind::Corrupt`](crate::Kind::Corrupt) where it has one that is damaged.
pub fn read(disk: &dyn Disk) -> Result<Option<Superblock>> {
    let size = disk.size();
    if let Some(at) = old_place(size) {
        let mut raw = vec![0; OLD_LEN];
        disk.read_at(at, &mut raw)?;
        if is_old(&raw) {
            return parse_old(&raw, at, size).map(Some);
        }
    }
    for (at, version) in new_places(size) {
        let len = limits::MD_SUPERBLOCK.to_usize().unwrap_or(0);
        let rest = size.0.saturating_sub(at.0);
        let mut raw = vec![0; usize::try_from(rest).unwrap_or(usize::MAX).min(len)];
        disk.read_at(at, &mut raw)?;
        if is_new(&raw, at) {
            let mut found = parse_new(&raw, at, version, size)?;
            if found.objection.is_none() && has_bad_blocks(disk, &raw, at)? {
                found.objection = Some("it has a list of blocks that could not be written".into());
            }
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Where version 0.90 has its superblock.
pub fn old_place(size: Bytes) -> Option<GuestOffset> {
    (size.0 & !(RESERVED - 1)).checked_sub(RESERVED).map(GuestOffset)
}

/// Where the versions 1.x have theirs, in the order in which they are looked for.
pub fn new_places(size: Bytes) -> impl Iterator<Item = (GuestOffset, &'static str)> {
    let at_end = (size.0 / 512).checked_sub(16).map(|sector| (sector & !7) * 512);
    let places = [(at_end, "1.0"), (Some(0), "1.1"), (Some(4096), "1.2")];
    places
        .into_iter()
        .filter_map(|(at, version)| Some((GuestOffset(at?), version)))
        .filter(move |(at, _)| at.0.checked_add(NEW_HEADER as u64).is_some_and(|end| end <= size.0))
}

/// True for a superblock of version 0.90 in either byte order.
pub fn is_old(raw: &[u8]) -> bool {
    let is = |word: fn([u8; 4]) -> u32| {
        array(raw, 0).map(word) == Some(MAGIC) && array(raw, 4).map(word) == Some(0)
    };
    is(u32::from_le_bytes) || is(u32::from_be_bytes)
}

/// True for a superblock of version 1.x that belongs where it was found.
pub fn is_new(raw: &[u8], at: GuestOffset) -> bool {
    le32(raw, 0) == Some(MAGIC)
        && le32(raw, 4) == Some(1)
        && le64(raw, 144).and_then(|sector| sector.checked_mul(512)) == Some(at.0)
}

/// Sixteen bytes as mdadm prints them.
fn colons(raw: [u8; 16]) -> String {
    let mut out = String::new();
    for (index, byte) in raw.iter().enumerate() {
        if index > 0 && index % 4 == 0 {
            out.push(':');
        }
        out.push_str(&format!("{byte:02x}"));
    }
    out
}

fn wrong(says: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("md superblock: {says}"))
}

fn check_disks(disks: u32) -> Result<()> {
    if disks == 0 || disks > limits::MD_DISKS {
        return Err(wrong(format!("an array of {disks} disks; 1 to {} are possible", limits::MD_DISKS)));
    }
    Ok(())
}

/// Version 0.90, found at `at` of a device of `size`.
pub fn parse_old(raw: &[u8], at: GuestOffset, size: Bytes) -> Result<Superblock> {
    let is_little = le32(raw, 0) == Some(MAGIC);
    let raw = bytes(raw, 0, OLD_LEN).ok_or_else(|| wrong("cut off"))?;
    let word = |index: usize| {
        let four: [u8; 4] = array(raw, index * 4).unwrap_or_default();
        if is_little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) }
    };
    let sum = old_sum(word);
    // Some machines folded the sum to 16 bits.
    let fold = |sum: u64| {
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        (sum & 0xffff) + (sum >> 16)
    };
    if fold(sum) != fold(u64::from(word(38))) {
        return Err(wrong("its checksum is wrong"));
    }
    let disks = word(10);
    check_disks(disks)?;
    let mut id = [0; 16];
    for (four, index) in id.chunks_exact_mut(4).zip([5, 13, 14, 15]) {
        four.copy_from_slice(&word(index).to_be_bytes());
    }
    let role = |descriptor: usize| {
        let (disk, state) = (word(descriptor + 3), word(descriptor + 4));
        match () {
            () if state & 1 != 0 => Role::Faulty,
            () if state & 6 == 6 && disk < disks => Role::Disk(disk),
            () => Role::Spare,
        }
    };
    let level = i32::from_ne_bytes(word(7).to_ne_bytes());
    let (low, high) = if is_little { (word(39), word(40)) } else { (word(40), word(39)) };
    // KiB in 32 bits: no overflow.
    let used = Bytes(u64::from(word(8)) << 10);
    let data = if level >= 1 { used } else { Bytes(at.0) };
    if data.0 > at.0 || at.0 > size.0 {
        return Err(wrong(format!("{data} of data do not fit a device of {size}")));
    }
    let objection = match word(2) {
        90 => None,
        91 => Some("it is being reshaped".to_owned()),
        other => Some(format!("its superblock has version 0.{other}")),
    };
    Ok(Superblock {
        version: "0.90",
        place: at,
        uuid: colons(id),
        name: None,
        node: Some(word(11)),
        level,
        layout: word(64),
        chunk: Bytes(u64::from(word(65))),
        disks,
        size: used,
        data: GuestRange::new(GuestOffset(0), data),
        events: u64::from(high) << 32 | u64::from(low),
        number: word(992),
        roles: (0..OLD_DISKS).map(|number| role(128 + number * 32)).collect(),
        is_clean: word(33) & 1 != 0,
        is_write_mostly: word(992 + 4) & 1 << 9 != 0,
        objection,
    })
}

/// Version 1.x, found at `at` of a device of `size`; `raw` begins with the superblock.
pub fn parse_new(raw: &[u8], at: GuestOffset, version: &'static str, size: Bytes) -> Result<Superblock> {
    let short = || wrong("cut off");
    let word = |at: usize| le32(raw, at).ok_or_else(short);
    let long = |at: usize| le64(raw, at).ok_or_else(short);
    let count = word(220)?;
    if count > limits::MD_DISKS {
        return Err(wrong(format!("{count} roles; up to {} are possible", limits::MD_DISKS)));
    }
    let count = usize::try_from(count).unwrap_or(0);
    let whole = bytes(raw, 0, NEW_HEADER + 2 * count).ok_or_else(short)?;
    if checksum(whole) != word(216)? {
        return Err(wrong("its checksum is wrong"));
    }
    let disks = word(92)?;
    check_disks(disks)?;
    let sectors = |at: usize| {
        let sectors = long(at)?;
        Sectors(sectors).to_bytes().ok_or_else(|| wrong(format!("{sectors} sectors")))
    };
    let (begin, len, used) = (sectors(128)?, sectors(136)?, sectors(80)?);
    if begin.0.checked_add(len.0).is_none_or(|end| end > size.0) {
        return Err(wrong(format!("{len} of data at {:#x} do not fit a device of {size}", begin.0)));
    }
    let roles = (0..count).map(|number| match le16(raw, NEW_HEADER + 2 * number).unwrap_or(u16::MAX) {
        role if u32::from(role) < disks => Role::Disk(role.into()),
        FAULTY => Role::Faulty,
        _ => Role::Spare,
    });
    let features = word(8)?;
    let is_rebuilding = features & feature::RECOVERY_OFFSET != 0 && long(152)? != u64::MAX;
    let objection = match () {
        () if features & !feature::KNOWN != 0 => {
            Some(format!("it has features that are not known ({:#x})", features & !feature::KNOWN))
        }
        () if features & (feature::RESHAPE | feature::NEW_OFFSET) != 0 => Some("it is being reshaped".into()),
        () if features & feature::REPLACEMENT != 0 => Some("a disk of it is being replaced".into()),
        () if is_rebuilding => Some("a disk of it is being rebuilt".into()),
        () => None,
    };
    Ok(Superblock {
        version,
        place: at,
        uuid: colons(array(raw, 16).ok_or_else(short)?),
        name: bytes(raw, 32, 32).and_then(text),
        node: None,
        level: i32::from_ne_bytes(word(72)?.to_ne_bytes()),
        layout: word(76)?,
        // Sectors in 32 bits: no overflow.
        chunk: Bytes(u64::from(word(88)?) * 512),
        disks,
        size: used,
        data: GuestRange::new(GuestOffset(begin.0), len),
        events: long(200)?,
        number: word(160)?,
        roles: roles.collect(),
        is_clean: long(208)? == u64::MAX,
        is_write_mostly: raw.get(184).is_some_and(|flags| flags & 1 != 0),
        objection,
    })
}

/// The sum of all words but the checksum itself.
fn old_sum(word: impl Fn(usize) -> u32) -> u64 {
    (0..OLD_LEN / 4).filter(|&index| index != 38).map(|index| u64::from(word(index))).sum()
}

/// Makes the superblock at `place` call the members of these numbers faulty, and adds `events` to its count.
///
/// # Errors
/// [`Kind::Corrupt`](crate::Kind::Corrupt) where there is none; as the device has it.
pub fn leave_behind(disk: &dyn DiskMut, place: GuestOffset, gone: &[u32], events: u64) -> Result<()> {
    let rest = disk.size().0.saturating_sub(place.0);
    let len = limits::MD_SUPERBLOCK.to_usize().unwrap_or(0).max(OLD_LEN);
    let mut raw = vec![0; usize::try_from(rest).unwrap_or(usize::MAX).min(len)];
    disk.read_at(place, &mut raw)?;
    let changed = match is_new(&raw, place) {
        true => leave_new(raw, gone, events),
        false if is_old(&raw) => leave_old(&raw, gone, events),
        false => None,
    };
    let changed = changed.ok_or_else(|| wrong(format!("it is no longer at {:#x}", place.0)))?;
    disk.write_at(place, &changed)
}

fn leave_new(mut raw: Vec<u8>, gone: &[u32], more: u64) -> Option<Vec<u8>> {
    let count = usize::try_from(le32(&raw, 220)?).ok()?;
    raw.truncate(count.checked_mul(2)?.checked_add(NEW_HEADER)?);
    let events = le64(&raw, 200)?.checked_add(more)?;
    raw.get_mut(200..208)?.copy_from_slice(&events.to_le_bytes());
    for number in gone.iter().filter_map(|&number| usize::try_from(number).ok()) {
        // A member may know fewer numbers than another.
        if let Some(role) = raw.get_mut(NEW_HEADER + 2 * number..NEW_HEADER + 2 * number + 2) {
            role.copy_from_slice(&FAULTY.to_le_bytes());
        }
    }
    let sum = checksum(&raw);
    raw.get_mut(216..220)?.copy_from_slice(&sum.to_le_bytes());
    Some(raw)
}

/// As the kernel writes it of members that are not there, the counts among it.
fn leave_old(raw: &[u8], gone: &[u32], more: u64) -> Option<Vec<u8>> {
    const REMOVED_AND_FAULTY: u32 = 1 << 3 | 1;
    let is_little = le32(raw, 0) == Some(MAGIC);
    let words = bytes(raw, 0, OLD_LEN)?.chunks_exact(4).filter_map(|word| array(word, 0));
    let mut words: Vec<u32> =
        words.map(if is_little { u32::from_le_bytes } else { u32::from_be_bytes }).collect();
    let (low, high) = if is_little { (39, 40) } else { (40, 39) };
    let events = (u64::from(*words.get(high)?) << 32 | u64::from(*words.get(low)?)).checked_add(more)?;
    *words.get_mut(low)? = u32::try_from(events & 0xffff_ffff).ok()?;
    *words.get_mut(high)? = u32::try_from(events >> 32).ok()?;
    for number in gone.iter().filter_map(|&number| usize::try_from(number).ok()) {
        if number >= OLD_DISKS {
            continue;
        }
        let descriptor = 128 + number * 32;
        // Its device node is another machine's.
        words.get_mut(descriptor + 1..descriptor + 3)?.fill(0);
        *words.get_mut(descriptor + 4)? = REMOVED_AND_FAULTY;
        for (count, change) in [(9, -1), (34, -1), (35, -1), (36, 1)] {
            let count = words.get_mut(count)?;
            *count = count.saturating_add_signed(change);
        }
    }
    let sum = old_sum(|index| words.get(index).copied().unwrap_or(0));
    *words.get_mut(38)? = u32::try_from(((sum & 0xffff_ffff) + (sum >> 32)) & 0xffff_ffff).ok()?;
    Some(words.into_iter().flat_map(if is_little { u32::to_le_bytes } else { u32::to_be_bytes }).collect())
}

/// The sum of all 32-bit words but the checksum itself, folded; a half word at the end counts as one.
fn checksum(whole: &[u8]) -> u32 {
    let words = whole.chunks(4).enumerate().filter(|(index, _)| *index != 216 / 4);
    let sum: u64 = words
        .map(|(_, chunk)| chunk.iter().rev().fold(0_u64, |word, &byte| word << 8 | u64::from(byte)))
        .sum();
    let folded = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
    u32::try_from(folded & 0xffff_ffff).unwrap_or(0)
}

/// True where the member has recorded blocks that could not be written: what they hold is old.
fn has_bad_blocks(disk: &dyn Disk, raw: &[u8], at: GuestOffset) -> Result<bool> {
    /// The kernel takes no more.
    const SECTORS: u16 = 8;
    if le32(raw, 8).unwrap_or(0) & feature::BAD_BLOCKS == 0 {
        return Ok(false);
    }
    let (sectors, offset) = (le16(raw, 186).unwrap_or(0).min(SECTORS), le32(raw, 188).unwrap_or(0));
    // The distance is signed: version 1.0 has the list before it.
    let distance = i64::from(i32::from_ne_bytes(offset.to_ne_bytes())) * 512;
    let mut list = vec![0; usize::from(sectors) * 512];
    let Some(place) = at.0.checked_add_signed(distance) else { return Ok(true) };
    if place.checked_add(list.len() as u64).is_none_or(|end| end > disk.size().0) {
        return Ok(true);
    }
    disk.read_at(GuestOffset(place), &mut list)?;
    Ok(le64(&list, 0).is_some_and(|first| first != u64::MAX))
}

#[cfg(test)]
pub(in crate::volume) mod tests;
