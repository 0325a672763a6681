//! What the types of partitions are called, for people (fdisk's list of MBR types; UEFI and the Discoverable Partitions
//! Specification for GUIDs). Types that a server's disk does not have are absent: their number is shown.

/// The name of a partition type as reports have it: `0x83`, or a GUID in lower case.
pub fn name(kind: &str) -> Option<&'static str> {
    KINDS.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name)
}

/// True for a type of partition that has code or tables of its own and never a file system.
pub fn is_bare(kind: &str) -> bool {
    const BARE: [&str; 6] = [
        "0x41",
        "21686148-6449-6e6f-744e-656564454649",
        "9e1a2d38-c612-4316-aa26-8b49521e5a8b",
        "e3c9e316-0b5c-4db8-817d-f92df00215ae",
        "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3",
        "8da63339-0007-60c0-c436-083ac8230908",
    ];
    BARE.contains(&kind)
}

const KINDS: &[(&str, &str)] = &[
    ("0x05", "extended"),
    ("0x07", "NTFS or exFAT"),
    ("0x0b", "FAT32"),
    ("0x0c", "FAT32"),
    ("0x0e", "FAT16"),
    ("0x0f", "extended"),
    ("0x27", "Windows recovery"),
    ("0x41", "PReP boot"),
    ("0x42", "Windows dynamic disk"),
    ("0x82", "Linux swap"),
    ("0x83", "Linux"),
    ("0x85", "extended"),
    ("0x8e", "Linux LVM"),
    ("0xa5", "FreeBSD"),
    ("0xef", "EFI system"),
    ("0xfb", "VMFS"),
    ("0xfd", "Linux RAID"),
    ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI system"),
    ("21686148-6449-6e6f-744e-656564454649", "BIOS boot"),
    ("bc13c2ff-59e6-4262-a352-b275fd6f7172", "extended boot loader"),
    ("0fc63daf-8483-4772-8e79-3d69d8477de4", "Linux"),
    ("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "Linux swap"),
    ("e6d6d379-f507-44c2-a23c-238f2a3df928", "Linux LVM"),
    ("a19d880f-05fc-4d3b-a006-743f0f84911e", "Linux RAID"),
    ("ca7d7ccb-63ed-4c53-861c-1742536059cc", "Linux LUKS"),
    ("4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "Linux root (x86-64)"),
    ("b921b045-1df0-41c3-af44-4c6f280d3fae", "Linux root (ARM64)"),
    ("933ac7e1-2eb4-4f13-b844-0e14e2aef915", "Linux home"),
    ("3b8f8425-20e0-4f3b-907f-1a25a76f98e8", "Linux server data"),
    ("8da63339-0007-60c0-c436-083ac8230908", "Linux reserved"),
    ("9e1a2d38-c612-4316-aa26-8b49521e5a8b", "PReP boot"),
    ("e3c9e316-0b5c-4db8-817d-f92df00215ae", "Microsoft reserved"),
    ("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "Microsoft basic data"),
    ("de94bba4-06d1-4d40-a16a-bfd50179d6ac", "Windows recovery"),
    ("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3", "Windows dynamic disk (LDM) metadata"),
    ("af9b60a0-1431-4f62-bc68-3311714a69ad", "Windows dynamic disk (LDM)"),
    ("e75caf8f-f680-4cee-afa3-b001e56efc2d", "Windows storage spaces"),
    ("aa31e02a-400f-11db-9590-000c2911d1b8", "VMFS"),
];
