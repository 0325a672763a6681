//! On-disk structures of ext2, ext3 and ext4 (kernel: `fs/ext4/ext4.h`, `Documentation/filesystems/ext4`).
//! Little-endian, but for the journal.
//!
//! ```text
//! block group  0: [1 KiB boot][superblock][group descriptors …][bitmaps][inode table …][data …]
//! superblock   0x04 blocks · 0x14 first data block · 0x18 log2 block size - 10 · 0x1C log2 cluster size - 10
//!              0x20 blocks per group · 0x28 inodes per group · 0x38 magic EF53 · 0x58 inode size · 0x5C features
//!              0x68 UUID · 0xE0 journal inode · 0xFE descriptor size · 0x104 first meta group · 0x150 blocks, high
//!              0x270 checksum seed · 0x3FC checksum
//! descriptor   0x08 inode table · 0x0C free blocks · 0x1E checksum · 0x28, 0x2C their high halves
//! inode        0x00 mode · 0x04 size · 0x10 mtime · 0x20 flags · 0x28 60 bytes of map or link · 0x64 generation
//!              0x6C size, high · 0x7C checksum · 0x80 extra size · 0x82 checksum, high · 0x88 mtime, extra
//! extent node  0 magic F30A · 2 entries · 4 room · 6 depth · 12… entries of 12 bytes · checksum behind the room
//!   leaf       0 first block of the file · 4 length, above 32768: unwritten · 6 place, high · 8 place
//!   index      0 first block of the file · 4 child · 8 child, high
//! folder entry 0 inode · 4 length · 6 length of the name · 7 kind · 8 name
//! ```

use crate::volume::field::{bytes, le16, le32};
use crate::{Error, Result, limits};

/// `crc32c` with a seed and without the inversions that the crate adds.
pub fn crc(seed: u32, data: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, data)
}

/// Bits of `s_feature_incompat` and `s_feature_ro_compat` that matter here.
pub mod feature {
    pub const INCOMPAT_FILETYPE: u32 = 0x2;
    pub const INCOMPAT_RECOVER: u32 = 0x4;
    pub const INCOMPAT_META_BG: u32 = 0x10;
    pub const INCOMPAT_64BIT: u32 = 0x80;
    pub const INCOMPAT_CSUM_SEED: u32 = 0x2000;
    /// Those above, extents, MMP, flex_bg, attributes in inodes, large folders, inline data, encryption and folded
    /// case. The last three are refused inode by inode.
    pub const INCOMPAT_KNOWN: u32 = 0x3_e7d6;
    pub const RO_BIGALLOC: u32 = 0x200;
    pub const RO_METADATA_CSUM: u32 = 0x400;
}

/// Bits of an inode's flags.
pub mod flag {
    pub const ENCRYPT: u32 = 0x800;
    pub const INDEX: u32 = 0x1000;
    pub const EXTENTS: u32 = 0x8_0000;
    pub const INLINE_DATA: u32 = 0x1000_0000;
    pub const CASEFOLD: u32 = 0x4000_0000;
}

/// What reading needs of the superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// 1 KiB to 64 KiB.
    pub block_size: u32,
    pub blocks: u64,
    pub first_data_block: u32,
    /// Blocks in a cluster, the unit of free counts.
    pub cluster_blocks: u64,
    pub blocks_per_group: u32,
    pub inodes_per_group: u32,
    pub inodes: u32,
    pub inode_size: u16,
    pub descriptor_size: u16,
    pub first_meta_group: u32,
    pub incompat: u32,
    pub journal_inode: u32,
    /// Of metadata checksums; `None` where there are none.
    pub seed: Option<u32>,
}

fn wrong(field: &str, value: impl std::fmt::Display, bound: &str) -> Error {
    Error::corrupt(format!("ext superblock: {field} is {value}; {bound}"))
}

impl Superblock {
    /// Parses the 1024 bytes at offset 1024.
    pub fn parse(raw: &[u8]) -> Result<Superblock> {
        let cut = || Error::corrupt("ext superblock: cut off");
        let n32 = |at: usize| le32(raw, at).ok_or_else(cut);
        let n16 = |at: usize| le16(raw, at).ok_or_else(cut);
        if n16(0x38)? != 0xef53 {
            return Err(wrong("the magic", format!("{:#06x}", n16(0x38)?), "0xef53 is expected"));
        }
        let (incompat, ro_compat) = match n32(0x4c)? {
            0 => (0, 0),
            _ => (n32(0x60)?, n32(0x64)?),
        };
        let unknown = incompat & !feature::INCOMPAT_KNOWN;
        if unknown != 0 {
            return Err(Error::unsupported(format!("ext superblock: unknown features {unknown:#x}")));
        }
        let has_checksums = ro_compat & feature::RO_METADATA_CSUM != 0;
        if has_checksums {
            let counted = crc(u32::MAX, bytes(raw, 0, 0x3fc).ok_or_else(cut)?);
            if n32(0x3fc)? != counted {
                return Err(wrong(
                    "the checksum",
                    format!("{:#010x}", n32(0x3fc)?),
                    &format!("the content gives {counted:#010x}"),
                ));
            }
        }
        let (log_block, log_cluster) = (n32(0x18)?, n32(0x1c)?);
        if log_block > 6 {
            return Err(wrong(
                "the block size",
                format!("2^{}", u64::from(log_block) + 10),
                "at most 2^16 is possible",
            ));
        }
        let cluster_blocks = match ro_compat & feature::RO_BIGALLOC {
            0 => 1,
            _ => log_cluster
                .checked_sub(log_block)
                // No kernel takes clusters of more than 1 GiB.
                .filter(|log| *log <= 20)
                .and_then(|log| 1_u64.checked_shl(log))
                .ok_or_else(|| {
                    wrong("the cluster size", log_cluster, "a block to 2^20 of them are possible")
                })?,
        };
        let block_size = 1024_u32 << log_block;
        let is_64 = incompat & feature::INCOMPAT_64BIT != 0;
        let descriptor_size = if is_64 { n16(0xfe)? } else { 32 };
        if !(32..=1024).contains(&descriptor_size)
            || !descriptor_size.is_power_of_two()
            || is_64 && descriptor_size < 64
        {
            return Err(wrong("the descriptor size", descriptor_size, "64 to 1024 is possible"));
        }
        let inode_size = if n32(0x4c)? == 0 { 128 } else { n16(0x58)? };
        if inode_size < 128 || u32::from(inode_size) > block_size || !inode_size.is_power_of_two() {
            return Err(wrong("the inode size", inode_size, "128 up to the block size is possible"));
        }
        let (blocks_per_group, inodes_per_group) = (n32(0x20)?, n32(0x28)?);
        let bits = u64::from(block_size) * 8;
        if blocks_per_group == 0 || u64::from(blocks_per_group) > bits * cluster_blocks {
            return Err(wrong(
                "blocks per group",
                blocks_per_group,
                &format!("1 to {} is possible", bits * cluster_blocks),
            ));
        }
        if inodes_per_group == 0 || u64::from(inodes_per_group) > bits {
            return Err(wrong("inodes per group", inodes_per_group, &format!("1 to {bits} is possible")));
        }
        let high = if is_64 { n32(0x150)? } else { 0 };
        let seed = match incompat & feature::INCOMPAT_CSUM_SEED {
            0 => crc(u32::MAX, bytes(raw, 0x68, 16).ok_or_else(cut)?),
            _ => n32(0x270)?,
        };
        let sb = Superblock {
            block_size,
            blocks: u64::from(n32(0x04)?) | u64::from(high) << 32,
            first_data_block: n32(0x14)?,
            cluster_blocks,
            blocks_per_group,
            inodes_per_group,
            inodes: n32(0)?,
            inode_size,
            descriptor_size,
            first_meta_group: n32(0x104)?,
            incompat,
            journal_inode: n32(0xe0)?,
            seed: has_checksums.then_some(seed),
        };
        if sb.blocks <= u64::from(sb.first_data_block) || sb.groups() > limits::EXT_GROUPS {
            return Err(wrong(
                "the number of blocks",
                sb.blocks,
                &format!("at most {} groups are read", limits::EXT_GROUPS),
            ));
        }
        Ok(sb)
    }

    /// True where a bit of the incompatible features is set.
    pub fn has(&self, incompat: u32) -> bool {
        self.incompat & incompat != 0
    }

    /// Number of block groups.
    pub fn groups(&self) -> u64 {
        self.blocks
            .saturating_sub(u64::from(self.first_data_block))
            .div_ceil(u64::from(self.blocks_per_group))
    }

    /// Where the descriptor of a group lies: (block, offset in it).
    pub fn descriptor_at(&self, group: u64) -> Option<(u64, usize)> {
        let per_block = u64::from(self.block_size / u32::from(self.descriptor_size));
        let index = group / per_block;
        let offset = usize::try_from(group % per_block).ok()? * usize::from(self.descriptor_size);
        // Behind the superblock, which is in block 1 where blocks are of 1 KiB.
        let first = 1024 / u64::from(self.block_size);
        if !self.has(feature::INCOMPAT_META_BG) || index < u64::from(self.first_meta_group) {
            return Some((first.checked_add(1)?.checked_add(index)?, offset));
        }
        // A meta group's first member holds its descriptors, behind the superblock copy where it has one. Whether
        // it has one depends on the sparse_super features: such groups are left to the kernel.
        None
    }
}

/// One block group's descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// First block of the inode table.
    pub inode_table: u64,
    /// Free clusters.
    pub free: u64,
}

impl Descriptor {
    /// Parses the descriptor of `group`.
    pub fn parse(raw: &[u8], sb: &Superblock, group: u64) -> Result<Descriptor> {
        let cut = || Error::corrupt(format!("ext group descriptor {group}: cut off"));
        if let Some(seed) = sb.seed {
            let stored = le16(raw, 0x1e).ok_or_else(cut)?;
            let number = u32::try_from(group).unwrap_or(u32::MAX).to_le_bytes();
            let mut sum = crc(seed, &number);
            sum = crc(sum, bytes(raw, 0, 0x1e).ok_or_else(cut)?);
            sum = crc(sum, &[0, 0]);
            sum = crc(sum, raw.get(0x20..).ok_or_else(cut)?);
            if u32::from(stored) != sum & 0xffff {
                return Err(Error::corrupt(format!(
                    "ext group descriptor {group}: the checksum is {stored:#06x}, the content gives {:#06x}",
                    sum & 0xffff
                )));
            }
        }
        let wide = sb.descriptor_size >= 64;
        let high = |at: usize| if wide { le32(raw, at).ok_or_else(cut) } else { Ok(0) };
        let inode_table = u64::from(le32(raw, 0x08).ok_or_else(cut)?) | u64::from(high(0x28)?) << 32;
        let free_high = if wide { le16(raw, 0x2c).ok_or_else(cut)? } else { 0 };
        let free = u64::from(le16(raw, 0x0c).ok_or_else(cut)?) | u64::from(free_high) << 16;
        Ok(Descriptor { inode_table, free })
    }
}

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    pub number: u32,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime_seconds: i64,
    pub flags: u32,
    /// Block map, root of the extent tree, or a short link's target.
    pub map: [u8; 60],
    /// Seed of the checksums of its extent nodes and folder blocks.
    pub seed: Option<u32>,
}

impl Inode {
    /// Parses an inode of the inode size.
    pub fn parse(raw: &[u8], sb: &Superblock, number: u32) -> Result<Inode> {
        let cut = || Error::corrupt(format!("inode {number}: cut off"));
        let n32 = |at: usize| le32(raw, at).ok_or_else(cut);
        let n16 = |at: usize| le16(raw, at).ok_or_else(cut);
        let extra = if sb.inode_size > 128 { n16(0x80)? } else { 0 };
        let mut seed = None;
        if let Some(base) = sb.seed {
            let own = crc(crc(base, &number.to_le_bytes()), bytes(raw, 0x64, 4).ok_or_else(cut)?);
            seed = Some(own);
            let has_high = extra >= 4;
            let mut blanked = raw.to_vec();
            for at in [0x7c, 0x7d].into_iter().chain(has_high.then_some([0x82, 0x83]).into_iter().flatten()) {
                *blanked.get_mut(at).ok_or_else(cut)? = 0;
            }
            let counted = crc(own, &blanked);
            let high = if has_high { n16(0x82)? } else { 0 };
            let stored = u32::from(n16(0x7c)?) | u32::from(high) << 16;
            let counted = if has_high { counted } else { counted & 0xffff };
            if stored != counted {
                return Err(Error::corrupt(format!(
                    "inode {number}: the checksum is {stored:#010x}, the content gives {counted:#010x}"
                )));
            }
        }
        let mode = n16(0)?;
        let epoch = if extra >= 12 { i64::from(n32(0x88)? & 3) << 32 } else { 0 };
        // Two's complement of 32 bits.
        let mtime = i64::from(i32::from_le_bytes(n32(0x10)?.to_le_bytes()));
        Ok(Inode {
            number,
            mode,
            uid: u32::from(n16(0x02)?) | u32::from(n16(0x78)?) << 16,
            gid: u32::from(n16(0x18)?) | u32::from(n16(0x7a)?) << 16,
            size: u64::from(n32(0x04)?) | u64::from(n32(0x6c)?) << 32,
            mtime_seconds: mtime + epoch,
            flags: n32(0x20)?,
            map: crate::volume::field::array(raw, 0x28).ok_or_else(cut)?,
            seed,
        })
    }
}

/// The header of an extent node: (entries, room, depth).
pub fn extent_header(node: &[u8], inode: u32) -> Result<(usize, usize, u16)> {
    let wrong = |says: String| Error::corrupt(format!("inode {inode}: extent node: {says}"));
    let field = |at: usize| le16(node, at).ok_or_else(|| wrong("cut off".into()));
    if field(0)? != 0xf30a {
        return Err(wrong(format!("the magic is {:#06x}", field(0)?)));
    }
    let (entries, room, depth) = (usize::from(field(2)?), usize::from(field(4)?), field(6)?);
    if entries > room || depth > 5 || room.saturating_mul(12).saturating_add(12) > node.len() {
        return Err(wrong(format!(
            "{entries} of {room} entries at depth {depth} do not fit {} bytes",
            node.len()
        )));
    }
    Ok((entries, room, depth))
}
