//! Superblocks made by hand, and noise. Those of mdadm itself are in the tests of `scan`.

use super::*;
use crate::testing::Memory;
use landfall_image::DiskMut;
use proptest::prelude::*;
use std::sync::Arc;

/// A superblock of version 1.x for tests.
#[derive(Clone)]
pub struct New {
    /// Where it lies, in bytes.
    pub at: u64,
    pub features: u32,
    pub name: &'static str,
    pub level: i32,
    pub layout: u32,
    pub size_sectors: u64,
    pub chunk_sectors: u32,
    pub disks: u32,
    /// First sector and number of sectors.
    pub data: (u64, u64),
    pub recovery: u64,
    pub resync: u64,
    pub number: u32,
    pub events: u64,
    pub roles: Vec<u16>,
    pub flags: u8,
}

impl Default for New {
    fn default() -> Self {
        New {
            at: 4096,
            features: 0,
            name: "host:0",
            level: 1,
            layout: 0,
            size_sectors: 64,
            chunk_sectors: 0,
            disks: 2,
            data: (16, 64),
            recovery: 0,
            resync: u64::MAX,
            number: 0,
            events: 10,
            roles: vec![0, 1],
            flags: 0,
        }
    }
}

impl New {
    pub fn bytes(&self) -> Vec<u8> {
        let mut raw = vec![0; 256 + 2 * self.roles.len()];
        let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_le_bytes());
        put(4, &1_u32.to_le_bytes());
        put(8, &self.features.to_le_bytes());
        put(16, &[7; 16]);
        put(32, self.name.as_bytes());
        put(72, &self.level.to_le_bytes());
        put(76, &self.layout.to_le_bytes());
        put(80, &self.size_sectors.to_le_bytes());
        put(88, &self.chunk_sectors.to_le_bytes());
        put(92, &self.disks.to_le_bytes());
        put(128, &self.data.0.to_le_bytes());
        put(136, &self.data.1.to_le_bytes());
        put(144, &(self.at / 512).to_le_bytes());
        put(152, &self.recovery.to_le_bytes());
        put(160, &self.number.to_le_bytes());
        put(184, &[self.flags]);
        // A list of bad blocks, which is not all ones.
        put(186, &1_u16.to_le_bytes());
        put(188, &8_u32.to_le_bytes());
        put(200, &self.events.to_le_bytes());
        put(208, &self.resync.to_le_bytes());
        put(220, &u32::try_from(self.roles.len()).unwrap().to_le_bytes());
        for (index, role) in self.roles.iter().enumerate() {
            put(256 + 2 * index, &role.to_le_bytes());
        }
        let sum = checksum(&raw);
        raw[216..220].copy_from_slice(&sum.to_le_bytes());
        raw
    }

    /// A device of 64 KiB with it.
    pub fn device(&self) -> Arc<dyn DiskMut> {
        let mut raw = vec![0; 64 << 10];
        let at = usize::try_from(self.at).unwrap();
        let bytes = self.bytes();
        raw[at..at + bytes.len()].copy_from_slice(&bytes);
        Arc::new(Memory::new(raw))
    }

    pub fn parsed(&self) -> Result<Superblock> {
        read(&*self.device()).map(Option::unwrap)
    }
}

/// A superblock of version 0.90: words as (index, value), on top of a clean mirror of two disks.
pub fn old(little: bool, words: &[(usize, u32)]) -> Vec<u8> {
    let mut all = vec![0_u32; OLD_LEN / 4];
    let base = [
        (0, MAGIC),
        (2, 90),
        (5, 0x1111_1111),
        (13, 0x2222_2222),
        (14, 0x3333_3333),
        (15, 0x4444_4444),
        (7, 1),
        (8, 64),
        (10, 2),
        (11, 3),
        (33, 1),
        (if little { 39 } else { 40 }, 9),
        (128 + 4, 6),
        (160, 1),
        (160 + 3, 1),
        (160 + 4, 6),
        (992, 1),
        (992 + 3, 1),
        (992 + 4, 6),
    ];
    for &(index, value) in base.iter().chain(words) {
        all[index] = value;
    }
    all[38] = 0;
    let sum: u64 = all.iter().map(|&word| u64::from(word)).sum();
    all[38] = u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap();
    all.iter().flat_map(|word| if little { word.to_le_bytes() } else { word.to_be_bytes() }).collect()
}

const OLD_SIZE: Bytes = Bytes(1 << 20);

fn parse(raw: &[u8]) -> Result<Superblock> {
    parse_old(raw, old_place(OLD_SIZE).unwrap(), OLD_SIZE)
}

#[test]
fn the_old_kind_is_told_what_is_gone() {
    for little in [true, false] {
        let place = old_place(OLD_SIZE).unwrap();
        let mut raw = vec![0; usize::try_from(OLD_SIZE.0).unwrap()];
        let at = usize::try_from(place.0).unwrap();
        let counts = [(9, 2), (34, 2), (35, 2), (if little { 39 } else { 40 }, u32::MAX)];
        raw[at..at + OLD_LEN].copy_from_slice(&old(little, &counts));
        let disk = Memory::new(raw);
        let before = read(&disk).unwrap().unwrap();
        leave_behind(&disk, place, &[0, 99], 2).unwrap();
        let after = read(&disk).unwrap().unwrap();
        let mut roles = before.roles.clone();
        roles[0] = Role::Faulty;
        assert_eq!(after, Superblock { events: before.events + 2, roles, ..before });
        let mut changed = vec![0; OLD_LEN];
        disk.read_at(place, &mut changed).unwrap();
        let word = |index: usize| {
            let four = array(&changed, index * 4).unwrap();
            if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) }
        };
        assert_eq!([9, 34, 35, 36].map(word), [1, 1, 1, 1]);
        assert!(leave_behind(&disk, GuestOffset(0), &[], 2).is_err(), "none is there");
    }
}

#[test]
fn the_old_kind_is_read_in_both_byte_orders() {
    for little in [true, false] {
        let found = parse(&old(little, &[])).unwrap();
        assert_eq!(found.uuid, "11111111:22222222:33333333:44444444");
        assert_eq!((found.level, found.disks, found.events, found.node), (1, 2, 9, Some(3)));
        assert_eq!((found.number, found.role(0), found.role(1)), (1, Role::Disk(0), Role::Disk(1)));
        assert_eq!((found.data.len(), found.is_clean), (Bytes(64 << 10), true));
        assert_eq!(found.objection, None);
    }
    assert!(!parse(&old(true, &[(33, 0)])).unwrap().is_clean);
    assert!(parse(&old(true, &[(2, 91)])).unwrap().objection.unwrap().contains("reshaped"));
    let found = parse(&old(true, &[(132, 7), (164, 2)])).unwrap();
    assert_eq!((found.role(0), found.role(1), found.role(99)), (Role::Faulty, Role::Spare, Role::Spare));
    // Stripes use all of the device.
    assert_eq!(parse(&old(true, &[(7, 0)])).unwrap().data.len(), Bytes(0xf0000));
    for words in [[(10, 0)], [(10, limits::MD_DISKS + 1)], [(8, 0xf0000 / 1024 + 1)]] {
        assert!(parse(&old(true, &words)).is_err(), "{words:?}");
    }
    let mut bad = old(true, &[]);
    bad[500] ^= 1;
    assert!(parse(&bad).unwrap_err().says().contains("checksum"));
    assert!(parse(&bad[..4000]).is_err());
}

#[test]
fn the_new_kind_is_read_where_it_belongs() {
    let good = New::default().parsed().unwrap();
    assert_eq!((good.version, good.level, good.disks, good.events), ("1.2", 1, 2, 10));
    assert_eq!(good.uuid, "07070707:07070707:07070707:07070707");
    assert_eq!(good.data, GuestRange::new(GuestOffset(8192), Bytes(32 << 10)));
    assert!(good.is_clean && !good.is_write_mostly && good.objection.is_none());
    assert_eq!(New { at: 0, ..New::default() }.parsed().unwrap().version, "1.1");
    let at_end = New { at: (64 << 10) - 8192, data: (0, 64), ..New::default() };
    assert_eq!(at_end.parsed().unwrap().version, "1.0");
    let elsewhere = New { at: 8192, ..New::default() };
    assert!(read(&*elsewhere.device()).unwrap().is_none());

    let objection = |sb: New| sb.parsed().unwrap().objection.unwrap_or_default();
    for (features, recovery, says) in [
        (2, 8, "rebuilt"),
        (4, 0, "reshaped"),
        (64, 0, "reshaped"),
        (16, 0, "replaced"),
        (512, 0, "not known"),
        (256, 0, "not known"),
        (8, 0, "could not be written"),
    ] {
        let found = objection(New { features, recovery, ..New::default() });
        assert!(found.contains(says), "{features}: {found}");
    }
    assert_eq!(objection(New { features: 2, recovery: u64::MAX, ..New::default() }), "");
    assert!(New { flags: 1, ..New::default() }.parsed().unwrap().is_write_mostly);
    let roles = New { roles: vec![0xfffe, 0xffff, 1, 2], ..New::default() }.parsed().unwrap();
    assert_eq!(roles.roles, [Role::Faulty, Role::Spare, Role::Disk(1), Role::Spare]);
}

#[test]
fn what_does_not_fit_is_corrupt() {
    for bad in [
        New { disks: 0, ..New::default() },
        New { disks: limits::MD_DISKS + 1, ..New::default() },
        New { data: (127, 2), ..New::default() },
        New { data: (u64::MAX / 512, 1), ..New::default() },
        New { data: (u64::MAX, 1), ..New::default() },
        New { size_sectors: u64::MAX, ..New::default() },
    ] {
        assert_eq!(bad.parsed().unwrap_err().kind(), crate::Kind::Corrupt);
    }
    let raw = New::default().bytes();
    for len in 0..raw.len() {
        assert!(parse_new(&raw[..len], GuestOffset(4096), "1.2", Bytes(64 << 10)).is_err(), "{len}");
    }
    for at in [8, 72, 92, 100, 255, 257] {
        let mut flipped = raw.clone();
        flipped[at] ^= 1;
        assert!(parse_new(&flipped, GuestOffset(4096), "1.2", Bytes(64 << 10)).is_err(), "{at}");
    }
    // One more role than is read, with a right checksum.
    let many = usize::try_from(limits::MD_DISKS).unwrap();
    let at_most = New { at: 0, data: (16, 64), roles: vec![0xffff; many], ..New::default() };
    assert_eq!(at_most.parsed().unwrap().roles.len(), many);
    let beyond = New { roles: vec![0xffff; many + 1], ..at_most };
    assert!(beyond.parsed().is_err());
}

proptest! {
    /// Whatever a device holds: no panic, and data inside the device.
    #[test]
    fn no_superblock_panics(
        flips in prop::collection::vec((0usize..300, any::<u8>()), 0..12),
        is_summed in any::<bool>(),
        version in 0..4_usize,
    ) {
        let (mut raw, at) = match version {
            0 => (New { at: 0, ..New::default() }.bytes(), 0),
            1 => (New::default().bytes(), 4096),
            2 => (New { at: (1 << 20) - 8192, ..New::default() }.bytes(), (1 << 20) - 8192),
            _ => (old(true, &[]), (1 << 20) - (64 << 10)),
        };
        for (index, byte) in flips {
            let index = index % raw.len();
            raw[index] = byte;
        }
        if is_summed && version < 3 && raw.len() >= 256 {
            let count = usize::try_from(le32(&raw, 220).unwrap()).unwrap_or(0);
            let whole = raw.get(..256usize.saturating_add(count.saturating_mul(2))).map(checksum);
            if let Some(sum) = whole {
                raw[216..220].copy_from_slice(&sum.to_le_bytes());
            }
        }
        let mut device = vec![0; 1 << 20];
        device[at..at + raw.len()].copy_from_slice(&raw);
        if let Ok(Some(found)) = read(&Memory::new(device)) {
            prop_assert!(found.data.end().0 <= 1 << 20);
            prop_assert!(found.roles.len() <= 1920);
        }
    }
}
