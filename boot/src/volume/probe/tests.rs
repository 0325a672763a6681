//! Against `blkid -p` on images made by the tools of each file system, and on the corpus.

use super::*;
use crate::testing::{self, Tool};
use std::path::Path;
use std::process::Command;

/// What `blkid -p` says, in this crate's words: (name, UUID, label).
type Answer = (String, Option<String>, Option<String>);

fn blkid(image: &Path) -> Option<Answer> {
    let out = Command::new("blkid").args(["-p", "-o", "export"]).arg(image).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        // `export` escapes for the shell.
        Some(line.replace('\\', ""))
    };
    let name = match field("TYPE")?.as_str() {
        "linux_raid_member" => "linux-raid".to_owned(),
        "LVM2_member" => "LVM".to_owned(),
        "crypto_LUKS" => format!("LUKS{}", field("VERSION")?),
        "zfs_member" => "zfs".to_owned(),
        "swsuspend" => "swap".to_owned(),
        other => other.to_owned(),
    };
    Some((name, field("UUID"), field("LABEL")))
}

fn ours(image: &Path) -> Probe {
    probe(&*testing::open(image)).unwrap()
}

#[track_caller]
fn same(image: &Path) -> Probe {
    let probe = ours(image);
    let expected = blkid(image).unwrap_or_else(|| panic!("blkid knows nothing of {}", image.display()));
    assert_eq!((probe.name(), probe.uuid.clone(), probe.label.clone()), expected, "{}", image.display());
    probe
}

/// Free bytes as each file system's own tool counts them.
fn free(image: &Path, probe: &Probe) -> Option<u64> {
    let path = image.display();
    let run = |line: &str| {
        let mut words = line.split_whitespace();
        let out = Command::new(words.next().unwrap()).args(words).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let number = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
        line.trim_start_matches([':', '=', ' ', '\t']).trim().parse::<u64>().unwrap()
    };
    match probe.name().as_str() {
        "ext2" | "ext3" | "ext4" => {
            let text = run(&format!("dumpe2fs -h {path}"));
            Some(number(&text, "Free blocks") * number(&text, "Block size"))
        }
        "xfs" => {
            let text = run(&format!("xfs_db -r -c sb -c print {path}"));
            Some(number(&text, "fdblocks") * number(&text, "blocksize"))
        }
        "btrfs" => {
            let text = run(&format!("btrfs inspect-internal dump-super {path}"));
            Some(number(&text, "total_bytes") - number(&text, "bytes_used"))
        }
        "vfat" => {
            let text = run(&format!("fsck.vfat -n -v {path}"));
            let bytes = text.lines().find_map(|line| line.trim().strip_suffix(" bytes per cluster")).unwrap();
            let (_, clusters) =
                text.trim().rsplit_once(' ').map(|(rest, _)| rest.rsplit_once(' ').unwrap()).unwrap();
            let (used, all) = clusters.split_once('/').unwrap();
            Some(
                (all.parse::<u64>().unwrap() - used.parse::<u64>().unwrap())
                    * bytes.trim().parse::<u64>().unwrap(),
            )
        }
        _ => None,
    }
}

/// (what the tool is, the command with `IMG` for the image, size in MiB)
const MADE: &[(&str, &str, u64)] = &[
    ("mke2fs", "mke2fs -q -t ext2 -L root2 IMG", 8),
    ("mke2fs", "mke2fs -q -t ext3 -L sixteen-letters- IMG", 16),
    ("mke2fs", "mke2fs -q -t ext4 IMG", 16),
    ("mke2fs", "mke2fs -q -t ext4 -O ^has_journal -L nojournal IMG", 16),
    ("mke2fs", "mke2fs -q -t ext4 -O ^metadata_csum,^64bit,^extent -b 1024 IMG", 16),
    ("mkfs.xfs", "mkfs.xfs -q -L xroot IMG", 320),
    ("mkfs.xfs", "mkfs.xfs -q -m crc=0 IMG", 320),
    ("mkfs.btrfs", "mkfs.btrfs -q -L b IMG", 128),
    ("mkfs.vfat", "mkfs.vfat -F 12 -n BOOT IMG", 4),
    ("mkfs.vfat", "mkfs.vfat -F 16 -i 0a0b0c0d IMG", 32),
    ("mkfs.vfat", "mkfs.vfat -F 32 -n EFI IMG", 64),
    ("mkfs.vfat", "mkfs.vfat -F 32 -S 4096 -n EFI4K IMG", 512),
    ("mkswap", "mkswap -q -L sw IMG", 8),
    ("mkswap", "mkswap -q -p 65536 IMG", 8),
    ("mkfs.ntfs", "mkfs.ntfs -q -F -f -L Windows IMG", 8),
    ("mkfs.exfat", "mkfs.exfat -L Stick IMG", 8),
    ("mkfs.f2fs", "mkfs.f2fs -q IMG", 64),
    ("jfs_mkfs", "jfs_mkfs -q -L jay IMG", 32),
    ("cryptsetup", "cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 1000 IMG", 16),
    (
        "cryptsetup",
        "cryptsetup -q luksFormat --type luks2 --label secret --pbkdf pbkdf2 --pbkdf-force-iterations 1000 IMG",
        32,
    ),
];

#[test]
fn blkid_says_the_same_of_what_mkfs_makes() {
    let Some(_) = testing::tool("blkid") else { return };
    let dir = tempfile::tempdir().unwrap();
    for (index, (tool, command, mib)) in MADE.iter().enumerate() {
        let Some(_) = testing::tool(tool) else { continue };
        let image = dir.path().join(format!("{index}.img"));
        testing::sparse(&image, *mib << 20);
        Tool::line(&command.replace("IMG", image.to_str().unwrap())).input(b"password\n").run();
        let probe = same(&image);
        assert!(probe.claims.is_empty());
        let free =
            if tool == &"mkfs.vfat" && !command.contains("-F 32") { None } else { free(&image, &probe) };
        assert_eq!(probe.free.map(|free| free.0), free, "{command}");
        // Half a superblock and no superblock: no panic, no answer that is not there.
        for keep in [0, 100, 1100, 4100, 66_000] {
            let cut = dir.path().join("cut.img");
            let raw = std::fs::read(&image).unwrap();
            std::fs::write(&cut, &raw[..keep.min(raw.len())]).unwrap();
            ours(&cut);
        }
        std::fs::remove_file(&image).unwrap();
    }
}

#[test]
fn blkid_says_the_same_of_the_corpus() {
    let (Some(corpus), Some(_)) = (testing::corpus(), testing::tool("blkid")) else { return };
    let dir = tempfile::tempdir().unwrap();
    for name in ["ext2", "ext4", "fat12", "luks1", "luks2", "ntfs", "xfs", "iso9660", "lvm"] {
        let image = testing::unpack(&corpus.join("dfvfs/raw"), &format!("{name}.raw"), dir.path());
        same(&image);
    }
}

#[test]
fn a_suspended_system_is_seen() {
    let Some(_) = testing::tool("mkswap") else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("swap");
    let page_end = 4096 - 10;
    for (at, mark) in [
        (page_end, &b"S1SUSPEND\0"[..]),
        (page_end, b"ULSUSPEND\0"),
        (page_end, b"LINHIB0001"),
        (0, b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c"),
    ] {
        testing::sparse(&image, 8 << 20);
        Tool::line(&format!("mkswap -q {}", image.display())).run();
        assert_eq!(ours(&image).content, Content::Swap { hibernated: false });
        testing::patch(&image, at, mark);
        let probe = ours(&image);
        assert_eq!(probe.content, Content::Swap { hibernated: true });
        assert!(probe.uuid.is_some(), "the header is still there");
        if testing::tool("blkid").is_some() {
            same(&image);
        }
    }
}

/// A RAID 1 member with its superblock at the end, over a file system that begins at 0.
#[test]
fn a_mirror_is_not_taken_for_what_it_mirrors() {
    let Some(_) = testing::tool("mke2fs") else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("member");
    let size = 16 << 20;
    for version in ["0.90", "1.0", "1.1", "1.2"] {
        testing::sparse(&image, size);
        Tool::line(&format!("mke2fs -q -t ext4 {}", image.display())).run();
        match version {
            "0.90" => {
                let mut sb = vec![0; 4096];
                sb[..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
                sb[8..12].copy_from_slice(&90_u32.to_le_bytes());
                for (number, at) in (0x1234_5600_u32..).zip([20, 52, 56, 60]) {
                    sb[at..at + 4].copy_from_slice(&number.to_le_bytes());
                }
                testing::patch(&image, size - (64 << 10), &sb);
            }
            version => {
                let at = match version {
                    "1.0" => size - 8192,
                    "1.1" => 0,
                    _ => 4096,
                };
                let mut sb = vec![0; 256];
                sb[..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
                sb[4] = 1;
                sb[16..32].copy_from_slice(&[7; 16]);
                sb[32..38].copy_from_slice(b"host:0");
                sb[144..152].copy_from_slice(&(at / 512).to_le_bytes());
                let max_dev = 0_u32;
                sb[220..224].copy_from_slice(&max_dev.to_le_bytes());
                // The checksum of md_calc_sb_1.c: the sum of all words, folded.
                let sum: u64 = sb
                    .chunks_exact(4)
                    .map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())))
                    .sum();
                let folded = (sum & 0xffff_ffff) + (sum >> 32);
                sb[216..220].copy_from_slice(&u32::try_from(folded & 0xffff_ffff).unwrap().to_le_bytes());
                testing::patch(&image, at, &sb);
            }
        }
        let probe = ours(&image);
        assert_eq!(probe.content, Content::Member { of: "linux-raid".into() }, "{version}");
        if testing::tool("blkid").is_some() {
            same(&image);
        }
    }
}

#[test]
fn two_superblocks_are_no_answer() {
    let (Some(_), Some(_)) = (testing::tool("mke2fs"), testing::tool("mkswap")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("both");
    testing::sparse(&image, 16 << 20);
    Tool::line(&format!("mke2fs -q -t ext4 {}", image.display())).run();
    testing::patch(&image, 4096 - 10, b"S1SUSPEND\0");
    let probe = ours(&image);
    assert_eq!((probe.content, probe.claims), (Content::Unknown, vec!["swap".into(), "ext4".into()]));
}

/// Damaged superblocks of every kind: any answer, but an answer.
#[test]
fn no_damage_panics() {
    let Some(corpus) = testing::corpus() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for name in ["ext4", "fat12", "luks1", "ntfs", "xfs", "lvm"] {
        let image = testing::unpack(&corpus.join("dfvfs/raw"), &format!("{name}.raw"), dir.path());
        let raw = std::fs::read(&image).unwrap();
        for _ in 0..300 {
            let mut bad = raw[..raw.len().min(1 << 20)].to_vec();
            for _ in 0..8 {
                let at = usize::try_from(random(8192)).unwrap() % bad.len();
                bad[at] = match random(4) {
                    0 => 0xff,
                    1 => 0,
                    2 => 0x80,
                    _ => bad[at] ^ 1 << random(8),
                };
            }
            let _ = probe(&testing::Memory::new(bad));
        }
    }
}
