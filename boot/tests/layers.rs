//! Arrays of mdadm, mirrors of lvm2 and volumes of cryptsetup, made by the kernel (`tools/make-arrays.sh target/arrays`):
//! they are found, read, written straight and by the sandbox, and the kernel finds them whole afterwards.

mod helper;

use helper::FileDisk;
use landfall_boot::apply::Change;
use landfall_boot::session::Reader;
use landfall_boot::tree::ext4::Ext4Tree;
use landfall_boot::tree::{GuestTree, GuestTreeExt};
use landfall_boot::volume::{Content, Scan, VolumeId, scan, scan_with};
use landfall_image::disk::DiskMut;
use landfall_image::luks::Secret;
use landfall_image::{Bytes, GuestOffset, GuestRange};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn target_folder() -> PathBuf {
    let agent = Path::new(env!("CARGO_BIN_EXE_sandbox_agent"));
    agent.ancestors().find(|folder| folder.ends_with("target")).unwrap().to_owned()
}

/// The folder of fixtures, or a loud skip.
fn fixtures() -> Option<PathBuf> {
    let folder = std::env::var_os("LANDFALL_ARRAYS").map_or(target_folder().join("arrays"), PathBuf::from);
    if !folder.join("complete").exists() {
        eprintln!("SKIPPED: no arrays here: run tools/make-arrays.sh {}", folder.display());
        return None;
    }
    Some(folder)
}

/// A fixture, the volume with its file system, and one of its names.
struct Fixture {
    name: &'static str,
    disks: usize,
    volume: &'static str,
    device: &'static str,
}

const fn fixture(name: &'static str, disks: usize, volume: &'static str, device: &'static str) -> Fixture {
    Fixture { name, disks, volume, device }
}

const FIXTURES: &[Fixture] = &[
    fixture("r1-12", 2, "md0", "/dev/md/guest:0"),
    fixture("r1-10-disk", 2, "md/wholep1", "/dev/md/whole1"),
    fixture("r1-090", 2, "md2", "/dev/md2"),
    fixture("r0-12", 2, "md3", "/dev/md3"),
    fixture("linear-090", 2, "md4", "/dev/md4"),
    fixture("r10-12", 3, "md5", "/dev/md5"),
    fixture("r10-four", 4, "md6", "/dev/md/6"),
    fixture("linear", 2, "md7", "/dev/md7"),
    fixture("stale", 2, "md8", "/dev/md8"),
    fixture("lvm-raid1", 2, "vg-raid1/root", "/dev/mapper/vg--raid1-root"),
    fixture("lvm-mirror", 2, "vg-mirror/root", "/dev/vg-mirror/root"),
    fixture("lvm-on-md", 2, "vg-md/root", "/dev/vg-md/root"),
    fixture("luks-on-lvm", 1, "vg-plain/secret:luks", "/dev/mapper/luks-"),
    fixture("lvm-on-luks", 1, "vg-luks/root", "/dev/vg-luks/root"),
    fixture("luks1", 1, "disk0p1:luks", "/dev/mapper/luks-"),
    fixture("r5-ls", 3, "md/r5-ls", "/dev/md/r5-ls"),
    fixture("r5-la", 3, "md/r5-la", "/dev/md/r5-la"),
    fixture("r5-rs", 3, "md/r5-rs", "/dev/md/r5-rs"),
    fixture("r5-ra", 3, "md/r5-ra", "/dev/md/r5-ra"),
    fixture("r4", 3, "md/r4", "/dev/md/r4"),
    fixture("r6", 4, "md/r6", "/dev/md/r6"),
    fixture("r6-ra", 5, "md/r6-ra", "/dev/md/r6-ra"),
    fixture("lvm-thin", 1, "vg-thin/root", "/dev/vg-thin/root"),
    fixture("lvm-thin-two", 2, "vg-two/root", "/dev/mapper/vg--two-root"),
    fixture("lvm-raid5", 3, "vg-raid5/root", "/dev/vg-raid5/root"),
    fixture("lvm-raid6", 5, "vg-raid6/root", "/dev/vg-raid6/root"),
    fixture("lvm-cache", 2, "vg-cache/root", "/dev/vg-cache/root"),
    fixture("lvm-cachevol", 2, "vg-cachevol/root", "/dev/vg-cachevol/root"),
];

impl Fixture {
    fn files(&self, folder: &Path) -> Vec<PathBuf> {
        (0..self.disks).map(|disk| folder.join(format!("{}.{disk}.raw", self.name))).collect()
    }

    fn scan(&self, folder: &Path) -> Scan {
        let disks: Vec<_> = self.files(folder).iter().map(|file| FileDisk::open(file)).collect();
        scan_with(&disks, &[Secret::new(b"landfall".to_vec())]).unwrap()
    }

    fn view(&self, scan: &Scan) -> Arc<dyn DiskMut> {
        scan.view(&VolumeId(self.volume.into())).unwrap_or_else(|| panic!("{}: {:?}", self.name, ids(scan)))
    }
}

fn ids(scan: &Scan) -> Vec<&str> {
    scan.volumes.iter().map(|volume| volume.id.0.as_str()).collect()
}

fn findings(scan: &Scan) -> Vec<&str> {
    scan.findings.iter().map(|finding| finding.id).collect()
}

/// What the fixtures hold in /etc/data.
fn data(name: &str) -> Vec<u8> {
    format!("{name} in the array\n").bytes().cycle().take(3_000_000).collect()
}

#[test]
fn every_layer_is_found_and_read() {
    let Some(folder) = fixtures() else { return };
    for fixture in FIXTURES {
        let scan = fixture.scan(&folder);
        let name = fixture.name;
        eprintln!("{name}: {:?} {:?}", ids(&scan), findings(&scan));
        let volume = scan.volume(&VolumeId(fixture.volume.into())).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(volume.content, Content::FileSystem { name: "ext4".into() }, "{name}");
        let has_name = volume.device_names.iter().any(|known| known.starts_with(fixture.device));
        assert!(has_name, "{name}: {:?}", volume.device_names);
        let tree = Ext4Tree::open(fixture.view(&scan)).unwrap();
        assert_eq!(tree.read_text("/etc/hostname").unwrap().unwrap(), format!("{name}\n"));
        let long = tree.read("/etc/data", Bytes::mib(8)).unwrap().unwrap();
        assert!(long == data(name), "{name}");
        let expected: &[&str] = match name {
            "stale" => &["array-member-stale", "array-degraded"],
            "lvm-thin" => &["lvm-snapshot-inactive", "lvm-snapshot-inactive", "lvm-snapshot-inactive"],
            _ => &[],
        };
        assert_eq!(findings(&scan), expected, "{name}: {:?}", scan.findings);
        // What is open hides nothing.
        let hidden = scan.volumes.iter().filter(|volume| {
            matches!(
                volume.content,
                Content::Encrypted { .. } | Content::Member { .. } | Content::LvmPhysical { .. }
            ) && !volume.is_opened_in(&scan.volumes)
        });
        assert_eq!(hidden.count(), 0, "{name}");
    }
}

/// mdadm's own word on every superblock.
#[test]
fn names_and_uuids_are_those_of_mdadm() {
    let Some(folder) = fixtures() else { return };
    let mdadm = folder.join("packages/sbin/mdadm");
    for fixture in FIXTURES.iter().filter(|fixture| fixture.name.starts_with('r')) {
        let scan = fixture.scan(&folder);
        if fixture.name == "r1-090" {
            continue; // on partitions, which mdadm does not look into
        }
        let file = &fixture.files(&folder)[0];
        let out = Command::new(&mdadm).args(["--examine", "--export"]).arg(file).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let uuid =
            text.lines().find_map(|line| line.strip_prefix("MD_UUID=")).unwrap_or_else(|| panic!("{text}"));
        let link = format!("/dev/disk/by-id/md-uuid-{uuid}");
        let volume = scan.volume(&VolumeId(fixture.volume.into())).unwrap();
        assert!(
            volume.device_names.iter().any(|name| name.starts_with(&link)),
            "{link} {:?}",
            volume.device_names
        );
    }
}

#[test]
fn what_is_missing_is_named() {
    let Some(folder) = fixtures() else { return };
    let some = |name: &str, numbers: &[usize]| {
        let disks: Vec<_> =
            numbers.iter().map(|disk| FileDisk::open(&folder.join(format!("{name}.{disk}.raw")))).collect();
        scan_with(&disks, &[Secret::new(b"landfall".to_vec())]).unwrap()
    };
    for (name, disks, expected) in [
        ("r1-12", vec![1], vec!["array-degraded"]),
        ("r1-10-disk", vec![0], vec!["array-degraded"]),
        ("r0-12", vec![1], vec!["array-incomplete"]),
        ("linear", vec![0], vec!["array-incomplete"]),
        ("r10-12", vec![0, 2], vec!["array-degraded"]),
        ("r10-12", vec![2], vec!["array-incomplete"]),
        ("r5-ls", vec![0, 2], vec!["array-degraded"]),
        ("r5-ls", vec![1], vec!["array-incomplete"]),
        ("r6-ra", vec![0, 2, 3], vec!["array-degraded"]),
        ("r6-ra", vec![3, 4], vec!["array-incomplete"]),
        ("rebuilding", vec![0, 1], vec!["array-not-opened"]),
        ("rebuilding", vec![0], vec!["array-degraded"]),
        ("r1-12", vec![0, 1, 1], vec!["array-not-opened"]),
        ("lvm-raid1", vec![1], vec!["lvm-degraded", "lvm-missing-pv"]),
        ("lvm-raid5", vec![0, 2], vec!["lvm-degraded", "lvm-missing-pv"]),
        ("lvm-raid5", vec![0], vec!["lvm-not-opened", "lvm-missing-pv"]),
        ("lvm-raid6", vec![1, 2, 4], vec!["lvm-degraded", "lvm-degraded", "lvm-missing-pv"]),
        ("lvm-cache", vec![0], vec!["lvm-not-opened", "lvm-missing-pv"]),
        ("lvm-cachevol", vec![1], vec!["lvm-not-opened", "lvm-missing-pv"]),
        ("lvm-thin-two", vec![1], vec!["lvm-not-opened", "lvm-degraded", "lvm-not-opened", "lvm-missing-pv"]),
        ("lvm-mirror", vec![0], vec!["lvm-not-opened", "lvm-missing-pv"]),
    ] {
        let scan = some(name, &disks);
        assert_eq!(findings(&scan), expected, "{name} {disks:?}: {:?}", scan.findings);
        let opened = !expected.iter().any(|id| id.ends_with("not-opened") || id.ends_with("incomplete"));
        let volumes = scan.volumes.iter();
        let read = volumes.filter(|volume| matches!(volume.content, Content::FileSystem { .. })).count();
        assert_eq!(read == 1, opened, "{name} {disks:?}: {:?}", ids(&scan));
    }
    // What has only one leg is read from that.
    let tree =
        Ext4Tree::open(some("lvm-raid1", &[1]).view(&VolumeId("vg-raid1/root".into())).unwrap()).unwrap();
    assert!(tree.read("/etc/data", Bytes::mib(8)).unwrap().unwrap() == data("lvm-raid1"));
    // What is missing is computed.
    for (name, disks) in [
        ("r5-ls", vec![0, 1]),
        ("r5-ra", vec![1, 2]),
        ("r5-la", vec![0, 2]),
        ("r4", vec![1, 2]),
        ("r6", vec![0, 3]),
        ("r6", vec![1, 2]),
        ("r6-ra", vec![0, 2, 4]),
        ("r6-ra", vec![0, 1, 4]),
        ("lvm-raid5", vec![1, 2]),
        ("lvm-raid6", vec![0, 3, 4]),
    ] {
        let scan = some(name, &disks);
        let id = match name.strip_prefix("lvm-") {
            Some(level) => format!("vg-{level}/root"),
            None => format!("md/{name}"),
        };
        let view = scan.view(&VolumeId(id)).unwrap_or_else(|| panic!("{:?}", scan.findings));
        let tree = Ext4Tree::open(view).unwrap();
        assert!(tree.read("/etc/data", Bytes::mib(8)).unwrap().unwrap() == data(name), "{name} {disks:?}");
    }
    // Without a key, and with a wrong one.
    let disk = [FileDisk::open(&folder.join("luks-on-lvm.0.raw"))];
    let locked = scan(&disk).unwrap();
    assert_eq!(findings(&locked), ["luks-locked"]);
    assert!(locked.findings[0].says.contains("vg-plain/secret"), "{:?}", locked.findings);
    assert!(locked.findings[0].remedy.contains("--key-file"), "{:?}", locked.findings);
    let wrong = scan_with(&disk, &[Secret::new(b"landfall\n".to_vec())]).unwrap();
    assert_eq!(findings(&wrong), ["luks-key-wrong"]);
    let second = scan_with(&disk, &[Secret::new(b"no".to_vec()), Secret::new(b"landfall".to_vec())]).unwrap();
    assert_eq!(findings(&second), [""; 0]);
}

/// Copies of the fixtures, to be written to.
fn copies(folder: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(folder).unwrap();
    for fixture in FIXTURES {
        for file in fixture.files(folder) {
            let copied =
                Command::new("cp").arg("--sparse=always").arg(&file).arg(dir.path()).status().unwrap();
            assert!(copied.success());
        }
    }
    dir
}

/// What the kernel says of the fixtures in a folder: name to (mismatches, state of the file system, host name, data).
fn kernel_says(folder: &Path, copies: &Path) -> BTreeMap<String, BTreeMap<String, String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/make-arrays.sh");
    let out = Command::new(script).arg("--check").args([folder, copies]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    eprintln!("{text}");
    let results = text.lines().filter_map(|line| line.strip_prefix("RESULT ")?.split_once(' '));
    let fields = |rest: &str| rest.split(' ').filter_map(|field| field.split_once('=')).map(own).collect();
    results.map(|(name, rest)| (name.to_owned(), fields(rest))).collect()
}

fn own((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Writes another file system through a view, with this in /etc/data.
fn write_anew(view: &dyn DiskMut, name: &str, content: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/hostname"), format!("new-{name}\n")).unwrap();
    std::fs::write(root.join("etc/data"), content).unwrap();
    write_file_system(view, &root, &dir.path().join("image"));
}

/// A file system with the files of a folder, written over all of a volume.
fn write_file_system(view: &dyn DiskMut, root: &Path, image: &Path) {
    File::create(image).unwrap().set_len(view.size().0 / 4096 * 4096).unwrap();
    let made = Command::new("/sbin/mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-d"])
        .args([root, image])
        .status()
        .unwrap();
    assert!(made.success());
    let bytes = std::fs::read(image).unwrap();
    // In pieces that fit no chunk.
    for (index, piece) in bytes.chunks(300_001).enumerate() {
        let at = GuestOffset(index as u64 * 300_001);
        match piece.iter().all(|&byte| byte == 0) {
            true => view.zero_at(GuestRange::new(at, Bytes(piece.len() as u64))).unwrap(),
            false => view.write_at(at, piece).unwrap(),
        }
    }
    view.flush().unwrap();
}

/// Everything is written anew through the views: another file system, made elsewhere. One of them by the sandbox's kernel.
#[test]
fn what_is_written_is_whole_to_the_kernel() {
    let Some(folder) = fixtures() else { return };
    let copies = copies(&folder);
    let mut expected: BTreeMap<&str, String> = BTreeMap::new();
    for (number, fixture) in FIXTURES.iter().enumerate() {
        let scan = fixture.scan(copies.path());
        let view = fixture.view(&scan);
        let content = data(&format!("written {number}"));
        write_anew(&*view, fixture.name, &content);
        expected.insert(fixture.name, sum(&content));
    }
    let by_sandbox = write_by_sandbox(copies.path());
    let found = kernel_says(&folder, copies.path());
    for fixture in FIXTURES {
        let name = fixture.name;
        let result = found.get(name).unwrap_or_else(|| panic!("nothing is said of {name}"));
        assert!(["0", "-"].contains(&result["mismatches"].as_str()), "{name}: {result:?}");
        assert_eq!(result["fsck"], "clean", "{name}");
        let hostname = match by_sandbox.contains(&name) {
            true => format!("sandbox-{name}"),
            false => format!("new-{name}"),
        };
        assert_eq!(result["hostname"], hostname, "{name}");
        assert_eq!(result["data"], expected[name], "{name}");
    }
    // Another volume of the pool, and one that a volume of the pool began as: neither was changed.
    for other in ["lvm-thin-snap:lvm-thin-before", "lvm-thin-base:lvm-thin-two-before"] {
        let (name, content) = other.split_once(':').unwrap();
        assert_eq!(found[name]["fsck"], "clean", "{name}");
        assert_eq!(found[name]["hostname"], content, "{name}");
        assert_eq!(found[name]["data"], sum(&data(content)), "{name}");
    }
    for pool in ["lvm-thin-pool", "lvm-thin-two-pool"] {
        assert_eq!(found[pool]["books"], "clean", "{pool}");
    }
    for array in ["r5-ls", "r5-la", "r5-rs", "r5-ra", "r4", "r6", "r6-ra"] {
        assert_eq!(found[array]["mismatches"], "0", "{array} was compared");
    }
    for mirrored in [
        "r1-12",
        "r1-10-disk",
        "r1-090",
        "r10-12",
        "r10-four",
        "lvm-on-md",
        "lvm-raid1-legs",
        "lvm-raid5-legs",
        "lvm-raid6-legs",
    ] {
        assert_eq!(found[mirrored]["mismatches"], "0", "{mirrored} was compared");
    }
}

/// A leg of lvm-raid1 that the other one says to have failed, by what dm-raid keeps of it.
fn fail_leg(disk: &Path, leg: u32) {
    let mut raw = std::fs::read(disk).unwrap();
    let at = raw.chunks(512).position(|sector| sector.starts_with(b"DmRd")).unwrap() * 512;
    let events = u64::from_le_bytes(raw[at + 16..at + 24].try_into().unwrap());
    raw[at + 16..at + 24].copy_from_slice(&(events + 3).to_le_bytes());
    raw[at + 24..at + 32].copy_from_slice(&(1_u64 << leg).to_le_bytes());
    std::fs::write(disk, raw).unwrap();
}

/// Clears what the write-intent bitmap of a member (version 1.2) marks.
fn forget_marks(disk: &Path) {
    let mut raw = std::fs::read(disk).unwrap();
    let sectors = i32::from_le_bytes(raw[4096 + 96..4096 + 100].try_into().unwrap());
    let at = 4096 + usize::try_from(sectors).unwrap() * 512;
    assert_eq!(&raw[at..at + 4], b"bitm");
    raw[at + 256..at + 512].fill(0);
    std::fs::write(disk, raw).unwrap();
}

/// Disks of mirrors and of arrays with parity that were not written, because they were not here or had failed, are with the others again: the kernel
/// takes nothing from them, and copies all that was written to them.
#[test]
fn what_was_not_written_is_filled_anew_by_the_kernel() {
    let Some(folder) = fixtures() else { return };
    // Name, disks, those that are given. One volume group cannot be there twice.
    type Case = (&'static str, usize, &'static [usize]);
    let runs: [&[Case]; 2] = [
        &[
            ("r1-12", 2, &[0]),
            ("r10-four", 4, &[0, 2]),
            ("stale", 2, &[0, 1]),
            ("r6", 4, &[0, 3]),
            ("lvm-raid1", 2, &[0, 1]),
            ("lvm-raid5", 3, &[0, 2]),
        ],
        &[("r1-090", 2, &[0]), ("r5-ls", 3, &[0, 2]), ("lvm-raid1", 2, &[0])],
    ];
    for (number, cases) in runs.into_iter().enumerate() {
        let copies = tempfile::tempdir_in(&folder).unwrap();
        let file = |name: &str, disk: usize| copies.path().join(format!("rejoin-{name}.{disk}.raw"));
        for &(name, disks, given) in cases {
            for disk in 0..disks {
                let from = folder.join(format!("{name}.{disk}.raw"));
                let mut copy = Command::new("cp");
                assert!(
                    copy.arg("--sparse=always").arg(from).arg(file(name, disk)).status().unwrap().success()
                );
            }
            if name == "lvm-raid1" && given.len() == 2 {
                fail_leg(&file(name, 0), 1);
            }
            // As if nothing had been written since the other one failed: only landfall's own marks count.
            if name == "stale" {
                forget_marks(&file(name, 0));
            }
            let given: Vec<_> = given.iter().map(|&disk| FileDisk::open(&file(name, disk))).collect();
            let scan = scan(&given).unwrap();
            let fixture = FIXTURES.iter().find(|fixture| fixture.name == name).unwrap();
            eprintln!("{name}: {:?}", scan.findings);
            write_anew(&*fixture.view(&scan), name, &data(&format!("written {number}")));
            // They are found like that again, and nothing is taken from what was left behind.
            let disks: Vec<_> = (0..disks).map(|disk| FileDisk::open(&file(name, disk))).collect();
            let again = scan_with(&disks, &[]).unwrap();
            let tree = Ext4Tree::open(fixture.view(&again)).unwrap();
            assert_eq!(tree.read_text("/etc/hostname").unwrap().unwrap(), format!("new-{name}\n"));
        }
        let found = kernel_says(&folder, copies.path());
        for &(name, ..) in cases {
            let mut parts = vec![format!("rejoin-{name}")];
            parts
                .extend(["r1-12", "stale", "r1-090"].contains(&name).then(|| format!("rejoin-{name}-alone")));
            for part in parts {
                let result = found.get(&part).unwrap_or_else(|| panic!("nothing is said of {part}"));
                assert!(["0", "-"].contains(&result["mismatches"].as_str()), "{part}: {result:?}");
                assert_eq!(result["fsck"], "clean", "{part}");
                assert_eq!(result["hostname"], format!("new-{name}"), "{part}");
                assert_eq!(result["data"], sum(&data(&format!("written {number}"))), "{part}");
            }
        }
        for (name, ..) in cases.iter().filter(|(name, ..)| name.starts_with("lvm-")) {
            assert_eq!(found[&format!("rejoin-{name}-legs")]["mismatches"], "0", "{name}");
        }
    }
}

/// Changes a file by way of the sandbox, in as many fixtures as it takes volumes. Their names.
fn write_by_sandbox(copies: &Path) -> Vec<&'static str> {
    let Some(sandbox) = helper::sandbox("writing by the sandbox") else { return Vec::new() };
    let chosen: Vec<&Fixture> = FIXTURES
        .iter()
        .filter(|fixture| {
            [
                "r1-12",
                "r1-10-disk",
                "r10-12",
                "lvm-raid1",
                "lvm-on-luks",
                "luks1",
                "lvm-thin",
                "lvm-thin-two",
                "r5-ls",
                "r6",
                "lvm-raid5",
                "lvm-cache",
            ]
            .contains(&fixture.name)
        })
        .collect();
    let volumes = chosen.iter().map(|fixture| (fixture.name.to_owned(), fixture.view(&fixture.scan(copies))));
    let session = sandbox.start(volumes.collect()).unwrap();
    for fixture in &chosen {
        session.mount(fixture.name, "ext4", fixture.name, "/", false).unwrap();
        let bytes = format!("sandbox-{}\n", fixture.name).into_bytes();
        let change = Change::Put { path: "/etc/hostname".into(), bytes, mode: 0o644 };
        session.apply(fixture.name, &[change]).unwrap();
    }
    session.finish().unwrap();
    chosen.iter().map(|fixture| fixture.name).collect()
}

/// Overwrites fields of the superblock of a thin pool or cache in a raw disk, and makes its checksum right.
fn change_superblock(file: &Path, magic: u64, salt: u32, fields: &[(usize, &[u8])]) {
    let mut raw = std::fs::read(file).unwrap();
    let is_it = |block: &[u8]| block[8..16] == [0; 8] && block[32..40] == magic.to_le_bytes();
    let block = raw.chunks_exact_mut(4096).find(|block| is_it(block)).expect("a superblock");
    for (at, bytes) in fields {
        block[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    let sum = !crc32c::crc32c(&block[4..]) ^ salt;
    block[..4].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(file, raw).unwrap();
}

/// Pools and caches in a state that no kernel would write to: they stay closed, with a remedy.
#[test]
fn pools_in_a_bad_state_are_named_with_what_to_do() {
    let Some(folder) = fixtures() else { return };
    let dir = tempfile::tempdir_in(&folder).unwrap();
    const THIN: (u64, u32) = (27_022_010, 160_774);
    const CACHE: (u64, u32) = (0o6_142_003, 9_031_977);
    for (name, disk, kind, field, says, remedy) in [
        ("lvm-thin", 0, THIN, (4, &[1][..]), "marked to be checked", "lvconvert --repair"),
        ("lvm-thin", 0, THIN, (56, &[9]), "snapshot of its metadata", "release_metadata_snap"),
        ("lvm-thin", 0, THIN, (48, &[99]), "and the pool itself 99", "lvconvert --repair"),
        ("lvm-thin", 0, THIN, (336, &[0, 1]), "640 blocks of data are counted", "lvconvert --repair"),
        ("lvm-cache", 1, CACHE, (4, &[2]), "marked to be checked", "lvconvert --repair"),
        ("lvm-cache", 1, CACHE, (240, &[0, 0, 0x30]), "up to 2097152 are read", "lvconvert --uncache"),
        ("lvm-cache", 1, CACHE, (232, &[64]), "size of a block", "nothing"),
    ] {
        let fixture = FIXTURES.iter().find(|fixture| fixture.name == name).unwrap();
        for file in fixture.files(&folder) {
            std::fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
        }
        change_superblock(&fixture.files(dir.path())[disk], kind.0, kind.1, &[field]);
        let scan = fixture.scan(dir.path());
        assert!(scan.view(&VolumeId(fixture.volume.into())).is_none(), "{name}: {says}");
        let finding = scan.findings.iter().find(|finding| finding.id == "lvm-not-opened").unwrap();
        assert!(finding.says.contains(fixture.volume), "{}", finding.says);
        assert!(finding.says.contains(says), "{}", finding.says);
        assert!(finding.remedy.contains(remedy), "{}", finding.remedy);
    }
}

/// Every write of the sandbox to a block that is shared, or was never written, needs a new one.
#[test]
fn a_full_pool_stops_the_sandbox_with_a_hint() {
    let Some(folder) = fixtures() else { return };
    let Some(sandbox) = helper::sandbox("a full pool") else { return };
    let _one = helper::one();
    let dir = tempfile::tempdir_in(&folder).unwrap();
    let fixture = FIXTURES.iter().find(|fixture| fixture.name == "lvm-thin").unwrap();
    let file = &fixture.files(&folder)[0];
    std::fs::copy(file, dir.path().join(file.file_name().unwrap())).unwrap();
    // From the end, where the file system puts nothing yet.
    let full = fixture.view(&fixture.scan(dir.path()));
    let error =
        (0..96).rev().find_map(|at| full.write_at(GuestOffset(at << 20), &[7; 1 << 20]).err()).unwrap();
    assert!(error.says().contains("the thin pool vg-thin/pool is full"), "{error}");
    let view = fixture.view(&fixture.scan(dir.path()));
    let session = sandbox.start(vec![("root".into(), view)]).unwrap();
    let change = Change::Put { path: "/etc/large".into(), bytes: vec![1; 20 << 20], mode: 0o644 };
    let written = session
        .mount("root", "ext4", "root", "/", false)
        .and_then(|()| session.apply("root", &[change]))
        .and_then(|_| session.finish());
    let error = written.unwrap_err();
    assert!(error.says().contains("the thin pool vg-thin/pool is full: all 640 blocks"), "{error}");
    assert!(error.hint_text().unwrap_or_default().contains("fstrim"), "{error:?}");
}

/// The whole pass, over a root that lies in the pool, on the array or under the cache; twice, for the second one finds what
/// the first one left.
#[test]
fn a_root_on_them_is_patched() {
    let Some(folder) = fixtures() else { return };
    let Some(sandbox) = helper::sandbox("a root on thin, cached and parity volumes") else { return };
    let _one = helper::one();
    let copies = copies(&folder);
    let dir = tempfile::tempdir().unwrap();
    for name in ["lvm-thin", "lvm-thin-two", "r5-la", "r6-ra", "lvm-raid6", "lvm-cachevol"] {
        let fixture = FIXTURES.iter().find(|fixture| fixture.name == name).unwrap();
        let root = dir.path().join(name);
        helper::root_files(&root, &format!("{} / ext4 defaults 0 1\n", fixture.device));
        let view = fixture.view(&fixture.scan(copies.path()));
        write_file_system(&*view, &root, &dir.path().join("image"));
        let files = fixture.files(copies.path());
        let disks: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        for path in ["/etc/motd", "/etc/new"] {
            let patched = helper::patched(&disks, &sandbox, &[path], None);
            let applied = patched.applied.unwrap_or_else(|| panic!("{name}: {:?}", patched.inspection.plan));
            assert_eq!(applied.verified_by, Reader::Direct, "{name}");
            let tree = Ext4Tree::open(fixture.view(&fixture.scan(copies.path()))).unwrap();
            assert_eq!(tree.read_text(path).unwrap().as_deref(), Some(helper::TEXT), "{name}");
        }
    }
}
