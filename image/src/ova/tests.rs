//! Packages of others read, our own read by others, and archives that lie.

use super::*;
use crate::corpus;
use crate::create::{CreateOptions, FileOptions};
use crate::disk::Disk;
use crate::testing::{MemDisk, mixed, noise_bytes, read_all, text_bytes};
use crate::{Format, Kind, OpenOptions, convert, formats};
use std::process::Command;
use std::sync::Arc;

fn package(dir: &Path, members: &[(&str, &[u8])]) -> PathBuf {
    let mut bytes = Vec::new();
    for (name, content) in members {
        bytes.extend(tar::header(name, Bytes(content.len() as u64)).unwrap());
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    let path = dir.join("package.ova");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn open(path: &Path) -> Result<Arc<dyn Disk>> {
    formats::open(path, &OpenOptions::default()).map(|image| image.disk)
}

fn tool(name: &str) -> Option<Command> {
    if Command::new(name).arg("--version").output().is_err() {
        eprintln!("SKIPPED: no {name} here");
        return None;
    }
    Some(Command::new(name))
}

fn output(mut command: Command, args: &[&str]) -> String {
    let out = command.args(args).output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn real_packages_are_verified_and_their_disks_read_in_place() {
    let single = |name: &str| corpus::rows("vmdk").into_iter().find(|row| row.path.contains(name));
    for row in corpus::rows("ova") {
        let unpacked = row.unpack();
        let package = Package::open(&unpacked.path).unwrap();
        let (name, text) = package.descriptor().unwrap();
        assert!(name.ends_with(".ovf") && text.contains("Envelope"), "{}", row.path);
        let verified = package.verify(&Cancel::default()).unwrap().unwrap();
        assert!(verified.right.len() >= 2 && verified.unlisted.is_empty(), "{}: {verified:?}", row.path);
        let [disk] = package.disks()[..] else { panic!("{}: {:?}", row.path, package.disks()) };
        let of_its_own = unpacked.path.join(disk);
        let (one, other) = (open(&unpacked.path), open(&of_its_own));
        if row.path.contains("ttylinux") {
            // Package and manifest are sound, the disk in it is cut off.
            assert_eq!(one.err().unwrap().kind(), Kind::Corrupt);
            assert_eq!(other.err().unwrap().kind(), Kind::Corrupt);
            continue;
        }
        let alone = single(if row.path.contains("input") { "input.vmdk" } else { disk }).unwrap();
        for disk in [one.unwrap(), other.unwrap()] {
            alone.compare(&*disk);
        }
    }
}

/// The same files, as every archiver at hand writes them.
#[test]
fn archives_of_every_dialect_are_read() {
    let Some(_) = tool("tar") else { return };
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}.raw", "long-name-".repeat(12));
    let disk = noise_bytes(1, 5000);
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    for (name, content) in
        [("a.ovf", &b"<Envelope/>"[..]), (&long, &disk), ("empty.iso", b""), ("folder/b.raw", b"x")]
    {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let dialects: [&[&str]; 6] = [
        &["--format=gnu"],
        &["--format=pax"],
        &["--format=oldgnu"],
        &["--format=posix", "--pax-option=globexthdr.name=/x,comment=hello"],
        &["--format=gnu", "--blocking-factor=1"],
        &["--format=pax", "--pax-option=exthdr.name=%d/%f,atime:=1"],
    ];
    for dialect in dialects {
        let path = dir.path().join("a.ova");
        let mut command = Command::new("tar");
        command.args(dialect).arg("-C").arg(dir.path()).arg("-cf").arg(&path);
        output(command, &["./a.ovf", &long, "empty.iso", "folder"]);
        let package = Package::open(&path).unwrap();
        let names: Vec<_> = package.members().iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["a.ovf", &long, "empty.iso", "folder/b.raw"], "{dialect:?}");
        assert_eq!(package.disks(), [long.as_str(), "folder/b.raw"]);
        assert!(read_all(&*open(&path.join(&long)).unwrap()).unwrap() == disk, "{dialect:?}");
        assert_eq!(read_all(&*open(&path.join("folder/b.raw")).unwrap()).unwrap(), b"x");
    }
}

#[test]
fn one_disk_of_several_has_to_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let path =
        package(dir.path(), &[("a.ovf", b"<x/>"), ("1.raw", b"one"), ("2.img", b"two"), ("3.iso", b"3")]);
    let error = open(&path).err().unwrap();
    assert_eq!(error.kind(), Kind::Refused);
    let hint = error.hint_text().unwrap();
    assert!(
        hint.contains("package.ova/1.raw") && hint.contains("package.ova/2.img") && !hint.contains("iso"),
        "{hint}"
    );
    assert_eq!(read_all(&*open(&path.join("2.img")).unwrap()).unwrap(), b"two");
    let error = open(&path.join("4.raw")).err().unwrap();
    assert_eq!((error.kind(), error.hint_text()), (Kind::Refused, Some("its disks: 1.raw, 2.img")));
    let image = formats::open(&path.join("1.raw"), &OpenOptions::default()).unwrap();
    assert_eq!(image.layers[0].path, path);
    assert!(image.layers[0].details.contains(&("member of the package".into(), "1.raw".into())));
    // Asked for as raw, a package is its own bytes.
    let raw = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
    let whole = formats::open(&path, &raw).unwrap().disk;
    assert_eq!(whole.size().0, std::fs::metadata(&path).unwrap().len());
    // A path below a file that is no package, or below nothing.
    std::fs::write(dir.path().join("plain"), b"x").unwrap();
    assert_eq!(open(&dir.path().join("plain/1.raw")).err().unwrap().kind(), Kind::Unsupported);
    assert_eq!(open(&dir.path().join("absent/1.raw")).err().unwrap().kind(), Kind::Io);
}

#[test]
fn wrapped_disks_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content, says) in [
        ("d.vmdk.gz", &b"\x1f\x8b\x08x"[..], "compressed with gzip"),
        ("d.vmdk", b"\x1f\x8b\x08x", "compressed with gzip"),
        ("d.vmdk.000000000", b"KDMV", "cut into chunks"),
        ("d.vmdk", b"no header at all", "has no header of it"),
    ] {
        let path = package(dir.path(), &[("a.ovf", b"<x/>"), (name, content)]);
        let error = open(&path).err().unwrap();
        assert!(error.says().contains(says), "{name}: {error}");
        assert!(matches!(error.kind(), Kind::Unsupported | Kind::Corrupt));
        assert!(error.hint_text().is_some());
    }
    // What is there to be copied runs nothing else.
    let path = package(dir.path(), &[("a.ovf", b"<x/>"), ("x';id;'.vmdk.gz", b"\x1f\x8b\x08x")]);
    let error = open(&path).err().unwrap();
    assert!(error.hint_text().unwrap().contains(r"'x'\'';id;'\''.vmdk.gz'"), "{error:?}");
    let path = package(dir.path(), &[("a.ovf", b"<x/>"), ("x.iso", b"x")]);
    assert_eq!(open(&path).err().unwrap().kind(), Kind::Unsupported);
    // Only the first of the chunks is listed.
    let chunks = [("a.ovf", &b"<x/>"[..]), ("d.vmdk.000000000", b"x"), ("d.vmdk.000000001", b"y")];
    let package = Package::open(&package(dir.path(), &chunks)).unwrap();
    assert_eq!(package.disks(), ["d.vmdk.000000000"]);
}

/// A disk that somebody wrote a tar archive to is no package, unless it is called one.
#[test]
fn an_archive_without_a_descriptor_is_a_raw_disk() {
    let dir = tempfile::tempdir().unwrap();
    let named = package(dir.path(), &[("etc.conf", b"x"), ("1.raw", b"one")]);
    assert_eq!(open(&named).err().unwrap().kind(), Kind::Corrupt);
    let path = dir.path().join("disk.img");
    std::fs::rename(&named, &path).unwrap();
    let disk = open(&path).unwrap();
    assert_eq!(disk.size().0, std::fs::metadata(&path).unwrap().len());
}

#[test]
fn a_manifest_is_believed_only_where_it_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let right = "SHA1(1.raw)= fe05bcdcdc4928012781a5f1a2a77cbb5398e106\r\n\
                 SHA256(1.raw)= 7692C3AD3540BB803C020B3AEE66CD8887123234EA0C6E7143C0ADD73FF431ED\n";
    let verify = |text: &str| {
        let members = [("a.ovf", &b"<x/>"[..]), ("a.mf", text.as_bytes()), ("1.raw", b"one")];
        Package::open(&package(dir.path(), &members)).unwrap().verify(&Cancel::default())
    };
    let verified = verify(right).unwrap().unwrap();
    assert_eq!((verified.right, verified.unlisted), (vec!["1.raw".to_owned()], vec!["a.ovf".to_owned()]));
    for (text, says) in [
        (right.replace("fe05", "fe06"), "the manifest says fe06"),
        (right.replace("1.raw", "2.raw"), "which is not there"),
        (right.replace("SHA1", "MD5"), "line 1"),
        (right.replace("fe05", "fe0"), "line 1"),
        ("nonsense".into(), "line 1"),
        ("\n\n)(".into(), "line 3"),
    ] {
        let error = verify(&text).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{text}");
        assert!(error.says().contains(says), "{error}");
    }
    let cancel = Cancel::default();
    cancel.cancel();
    let path = package(dir.path(), &[("a.ovf", b"<x/>"), ("a.mf", right.as_bytes()), ("1.raw", b"one")]);
    assert_eq!(Package::open(&path).unwrap().verify(&cancel).unwrap_err().kind(), Kind::Interrupted);
    assert_eq!(
        Package::open(&self::package(dir.path(), &[("a.ovf", b"")]))
            .unwrap()
            .verify(&Cancel::default())
            .unwrap(),
        None
    );
}

/// A header with fields of our choosing and the right checksum.
fn forged(name: &[u8], size: &[u8], kind: u8) -> tar::Header {
    let mut block = tar::header("x", Bytes(0)).unwrap();
    block[..100].fill(0);
    block[..name.len()].copy_from_slice(name);
    block[124..136].fill(0);
    block[124..124 + size.len()].copy_from_slice(size);
    block[156] = kind;
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().copied().map(u64::from).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

#[test]
fn headers_that_lie_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ova");
    let members = |bytes: Vec<u8>| {
        let mut all = tar::header("a.ovf", Bytes(0)).unwrap().to_vec();
        all.extend(bytes);
        std::fs::write(&path, all).unwrap();
        Package::open(&path).map(|package| package.members().to_vec())
    };
    let with = |head: tar::Header, content: &[u8]| {
        let mut out = head.to_vec();
        out.extend(content);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    };
    for (what, bytes, kind) in [
        ("longer than the file", forged(b"d", b"1000", b'0').to_vec(), Kind::Corrupt),
        (
            "2^63 bytes",
            forged(b"d", b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", b'0').to_vec(),
            Kind::Corrupt,
        ),
        (
            "wraps around",
            forged(b"d", b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", b'0').to_vec(),
            Kind::Corrupt,
        ),
        ("past 64 bits", forged(b"d", b"\x80\0\0\x01\0\0\0\0\0\0\0\0", b'0').to_vec(), Kind::Corrupt),
        ("negative", forged(b"d", &[0xff; 12], b'0').to_vec(), Kind::Corrupt),
        ("no number", forged(b"d", b"12x", b'0').to_vec(), Kind::Corrupt),
        ("a name twice", [forged(b"d", b"0", b'0'), forged(b"./d", b"0", b'0')].concat(), Kind::Corrupt),
        ("no name", forged(b"", b"0", b'0').to_vec(), Kind::Corrupt),
        ("a file of the host", forged(b"/etc/passwd", b"0", b'0').to_vec(), Kind::Corrupt),
        ("a file beside it", forged(b"../d.vmdk", b"0", b'0').to_vec(), Kind::Corrupt),
        ("a file somewhere", forged(b"a/../../d.vmdk", b"0", b'0').to_vec(), Kind::Corrupt),
        ("no UTF-8", forged(b"\xff", b"0", b'0').to_vec(), Kind::Corrupt),
        ("a link", forged(b"d.vmdk", b"0", b'2').to_vec(), Kind::Unsupported),
        ("a hard link", forged(b"d.vmdk", b"0", b'1').to_vec(), Kind::Unsupported),
        ("a device", forged(b"d.vmdk", b"0", b'3').to_vec(), Kind::Unsupported),
        ("sparse", forged(b"d.vmdk", b"0", b'S').to_vec(), Kind::Unsupported),
        ("unknown", forged(b"d.vmdk", b"0", b'Z').to_vec(), Kind::Unsupported),
        ("long name too long", with(forged(b"l", b"10001", b'L'), &[b'x'; 4097]), Kind::Corrupt),
        ("pax too long", with(forged(b"p", b"4000001", b'x'), &vec![0; (1 << 20) + 1]), Kind::Corrupt),
        ("pax without length", with(forged(b"p", b"5", b'x'), b"path="), Kind::Corrupt),
        ("pax length 0", with(forged(b"p", b"7", b'x'), b"0 a=b\n\n"), Kind::Corrupt),
        ("pax length past its end", with(forged(b"p", b"7", b'x'), b"99 a=b\n"), Kind::Corrupt),
        ("pax size", with(forged(b"p", b"13", b'x'), b"11 size=-1\n"), Kind::Corrupt),
        ("pax sparse", with(forged(b"p", b"27", b'x'), b"23 GNU.sparse.major=1\n\n"), Kind::Corrupt),
        ("cut off in a header", forged(b"d", b"0", b'0')[..100].to_vec(), Kind::Corrupt),
        (
            "checksum",
            {
                let mut b = forged(b"d", b"0", b'0');
                b[0] = b'e';
                b.to_vec()
            },
            Kind::Corrupt,
        ),
    ] {
        let error = members(bytes).expect_err(what);
        assert_eq!(error.kind(), kind, "{what}: {error}");
    }
    // What is no lie: no end marker, names and sizes said ahead, base 256, spaces before digits.
    let good = [
        with(forged(b"l", b"6", b'L'), b"named\0"),
        with(forged(b"d", b"   3 ", 0), b"abc"),
        with(forged(b"p", b"23", b'x'), b"9 size=5\n10 path=e\n"),
        with(forged(b"d", b"0", b'0'), b"12345"),
        with(forged(b"f", b"\x80\0\0\0\0\0\0\0\0\0\0\x02", b'7'), b"xy"),
    ]
    .concat();
    let names: Vec<_> = members(good).unwrap().into_iter().map(|m| (m.name, m.len.0)).collect();
    assert_eq!(names, [("a.ovf".into(), 0), ("named".into(), 3), ("e".into(), 5), ("f".into(), 2)]);
    let many = |count: usize| {
        let all: Vec<u8> = (0..count).flat_map(|n| forged(n.to_string().as_bytes(), b"0", b'0')).collect();
        members(all)
    };
    assert!(many(limits::OVA_HEADERS - 2).is_ok());
    assert_eq!(many(limits::OVA_HEADERS).unwrap_err().kind(), Kind::Corrupt);
}

/// Cut off anywhere, a package is an error or lacks what was cut off, and nothing panics.
#[test]
fn a_package_cut_off_anywhere_gives_no_wrong_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk = noise_bytes(5, 3000);
    let path = package(dir.path(), &[("a.ovf", b"<x/>"), ("1.raw", &disk)]);
    let whole = std::fs::read(&path).unwrap();
    for len in (0..whole.len()).step_by(100) {
        std::fs::write(&path, &whole[..len]).unwrap();
        if len >= 512
            && let Ok(read) = open(&path)
        {
            assert!(read_all(&*read).unwrap() == disk, "{len}");
        }
    }
    for at in 0..1600 {
        let mut bent = whole.clone();
        bent[at] ^= 0x41;
        std::fs::write(&path, &bent).unwrap();
        let _ = open(&path.join("1.raw"));
        let _ = open(&path);
    }
}

const NEW: FileOptions = FileOptions { replace: false, resume: false, sync: false };

fn write(writer: &mut OvaWriter, kind: &str, name: &str, disk: &MemDisk) -> Bytes {
    let mut options = CreateOptions::default();
    let path = writer.disk(name, &mut options).unwrap();
    let sink = (formats::kind(kind).unwrap().create)(&path, disk.size(), &options).unwrap();
    convert::convert(disk, sink, &convert::Options { jobs: 2, ..Default::default() }).unwrap();
    writer.disk_done().unwrap()
}

#[test]
fn a_written_package_is_read_by_us_and_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("vm.ova");
    let disks =
        [mixed(1, Bytes(6 << 20)), MemDisk::from_bytes(text_bytes(2, (1 << 20) + 7)), MemDisk::new(Bytes(5))];
    let mut writer = OvaWriter::create(&target, "vm.ovf", "<Envelope/>", Bytes(2000), NEW).unwrap();
    for (n, disk) in disks.iter().enumerate() {
        assert_eq!(write(&mut writer, "raw", &format!("vm-disk{n}.raw"), disk), disk.size());
    }
    writer.add("notes.txt", b"hello").unwrap();
    writer.set_descriptor("<Envelope>final</Envelope>").unwrap();
    assert!(!target.exists());
    let receipt = writer.finish(&Cancel::default()).unwrap();
    assert_eq!(receipt.files, [target.as_path()]);
    assert_eq!(std::fs::metadata(&target).unwrap().len() % 10_240, 0);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

    let package = Package::open(&target).unwrap();
    let names: Vec<_> = package.members().iter().map(|member| member.name.as_str()).collect();
    let expected = ["vm.ovf", "vm-disk0.raw", "vm-disk1.raw", "vm-disk2.raw", "notes.txt", "vm.mf"];
    assert_eq!(names, expected);
    assert_eq!(package.descriptor().unwrap().1.trim_end(), "<Envelope>final</Envelope>");
    let verified = package.verify(&Cancel::default()).unwrap().unwrap();
    assert_eq!(verified.right, expected[..5]);
    for (n, disk) in disks.iter().enumerate() {
        let read = open(&target.join(format!("vm-disk{n}.raw"))).unwrap();
        assert!(convert::compare(disk, &*read, &convert::Options::default()).unwrap().is_identical());
    }
    let target = target.to_str().unwrap();
    if let Some(tar) = tool("tar") {
        assert_eq!(output(tar, &["-tf", target]).lines().collect::<Vec<_>>(), expected);
        let out = dir.path().join("out");
        std::fs::create_dir(&out).unwrap();
        output(Command::new("tar"), &["-xf", target, "-C", out.to_str().unwrap()]);
        for (n, disk) in disks.iter().enumerate() {
            let got = std::fs::read(out.join(format!("vm-disk{n}.raw"))).unwrap();
            assert!(got == read_all(disk).unwrap());
        }
        // The digests by another's hand.
        let manifest = std::fs::read_to_string(out.join("vm.mf")).unwrap();
        for line in manifest.lines() {
            let (name, digest) = line.strip_prefix("SHA256(").unwrap().split_once(")= ").unwrap();
            let theirs = output(Command::new("sha256sum"), &[out.join(name).to_str().unwrap()]);
            assert!(theirs.starts_with(digest), "{line}: {theirs}");
        }
    }
    if let Some(python) = tool("python3") {
        let script = "import sys, tarfile\nt = tarfile.open(sys.argv[1], 'r:', format=tarfile.USTAR_FORMAT)\n\
                      print([(m.name, m.size, m.isreg()) for m in t.getmembers()][1])\n\
                      b = open(sys.argv[2], 'rb').read()\ni = tarfile.TarInfo.frombuf(b, 'ascii', 'strict')\nprint(i.name, i.size)";
        let head = dir.path().join("head");
        std::fs::write(&head, tar::header("large.vmdk", Bytes(9 << 40)).unwrap()).unwrap();
        let text = output(python, &["-c", script, target, head.to_str().unwrap()]);
        assert_eq!(text, format!("('vm-disk0.raw', {}, True)\nlarge.vmdk {}\n", 6 << 20, 9u64 << 40));
    }
}

/// What vSphere imports: streams, straight into the archive, the same bytes as in files of their own.
#[test]
fn streams_are_written_into_a_package() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("vm.ova");
    let disks = [mixed(1, Bytes(6 << 20)), mixed(2, Bytes(40 << 20))];
    let mut writer = OvaWriter::create(&target, "vm.ovf", "<Envelope/>", Bytes(0), NEW).unwrap();
    for (n, disk) in disks.iter().enumerate() {
        write(&mut writer, "vmdk-stream", &format!("disk{n}.vmdk"), disk);
    }
    writer.finish(&Cancel::default()).unwrap();
    let package = Package::open(&target).unwrap();
    assert!(package.verify(&Cancel::default()).unwrap().is_some());
    for (n, disk) in disks.iter().enumerate() {
        let name = format!("disk{n}.vmdk");
        let read = open(&target.join(&name)).unwrap();
        assert!(convert::compare(disk, &*read, &convert::Options::default()).unwrap().is_identical());
        let source = package.disk(&name).unwrap();
        let alone = dir.path().join(&name);
        let sink =
            (formats::kind("vmdk-stream").unwrap().create)(&alone, disk.size(), &CreateOptions::default());
        convert::convert(disk, sink.unwrap(), &convert::Options::default()).unwrap();
        let bytes = std::fs::read(&alone).unwrap();
        assert!(source.head(usize::MAX).unwrap() == bytes);
        if let Some(qemu_img) = tool("qemu-img") {
            let raw = dir.path().join("raw");
            std::fs::write(&raw, read_all(disk).unwrap()).unwrap();
            let extracted = dir.path().join(format!("extracted-{name}"));
            std::fs::write(&extracted, source.head(usize::MAX).unwrap()).unwrap();
            let args =
                ["compare", "-f", "vmdk", "-F", "raw", extracted.to_str().unwrap(), raw.to_str().unwrap()];
            assert!(output(qemu_img, &args).contains("identical"));
        }
    }
    let checked = formats::check(&target.join("disk1.vmdk"), &OpenOptions::default()).unwrap();
    assert!(checked[0].2.as_ref().unwrap().problems.is_empty(), "{checked:?}");
}

#[test]
fn a_package_that_is_not_finished_leaves_nothing_and_rules_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("vm.ova");
    let begin = |name: &str, text: &str| OvaWriter::create(&target, name, text, Bytes(0), NEW);
    for name in ["vm.xml", "a/b.ovf", "a b.ovf", "", &format!("{}.ovf", "x".repeat(97))] {
        assert_eq!(begin(name, "").err().unwrap().kind(), Kind::Refused, "{name}");
    }
    let mut writer = begin("vm.ovf", "<x/>").unwrap();
    assert!(writer.set_descriptor("<xy/>").is_err(), "no room");
    let mut options = CreateOptions::default();
    writer.disk("d.raw", &mut options).unwrap();
    assert!(writer.disk("e.raw", &mut CreateOptions::default()).is_err(), "one at a time");
    // Kinds that do not know of packages say so.
    let qcow2 = formats::kind("qcow2").unwrap();
    let error = (qcow2.create)(&target.join("d.raw"), Bytes(512), &options).err().unwrap();
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(writer.finish(&Cancel::default()).err().unwrap().kind(), Kind::Refused);
    let mut writer = begin("vm.ovf", "<x/>").unwrap();
    writer.add("a.txt", b"").unwrap();
    assert!(writer.add("a.txt", b"").is_err(), "twice");
    assert!(writer.disk_done().is_err());
    // A sink that fails in the middle does not take the package's file away, nor its lock.
    let sink = {
        let mut options = CreateOptions::default();
        let path = writer.disk("d.raw", &mut options).unwrap();
        (formats::kind("raw").unwrap().create)(&path, Bytes(1 << 20), &options).unwrap()
    };
    drop(sink);
    assert_eq!(begin("vm.ovf", "<x/>").err().unwrap().kind(), Kind::Refused, "another run");
    drop(writer);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    /// Any bytes behind a good first header, and any extended header and manifest, are taken apart without a panic.
    #[test]
    fn any_archive_is_read_or_refused(
        kinds in proptest::collection::vec((proptest::num::u8::ANY, 0..2000u64, proptest::collection::vec(proptest::num::u8::ANY, 0..600)), 0..8),
        text in ".*",
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = tar::header("a.ovf", Bytes(0)).unwrap().to_vec();
        for (kind, size, content) in kinds {
            let kind = *b"0LxgK507SZ".get(usize::from(kind) % 11).unwrap_or(&kind);
            bytes.extend(forged(b"name", format!("{size:o}").as_bytes(), kind));
            bytes.extend(content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        let path = dir.path().join("a.ova");
        std::fs::write(&path, &bytes).unwrap();
        let _ = Package::open(&path).map(|package| package.verify(&Cancel::default()));
        let _ = open(&path);
        let _ = parse_manifest(&text);
        let _ = crate::nbd::Uri::parse(&format!("nbd://{text}"));
        let _ = crate::nbd::Uri::parse(&format!("nbd+unix:///{text}"));
    }
}

/// The digests of the manifest take a while on a large disk.
#[test]
fn a_package_can_be_stopped_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("vm.ova");
    let mut writer = OvaWriter::create(&target, "vm.ovf", "<Envelope/>", Bytes(0), NEW).unwrap();
    write(&mut writer, "vmdk-stream", "disk.vmdk", &mixed(1, Bytes(6 << 20)));
    let cancel = Cancel::default();
    cancel.cancel();
    assert_eq!(writer.finish(&cancel).unwrap_err().kind(), Kind::Interrupted);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// What cannot be opened is checked where it lies, not the archive around it.
#[test]
fn a_damaged_disk_in_a_package_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("disk.vhdx");
    let sink =
        (formats::kind("vhdx").unwrap().create)(&plain, Bytes(6 << 20), &CreateOptions::default()).unwrap();
    crate::convert::convert(&mixed(1, Bytes(6 << 20)), sink, &crate::convert::Options::default()).unwrap();
    let mut bytes = std::fs::read(&plain).unwrap();
    bytes.truncate(bytes.len() - (1 << 20));
    let target = dir.path().join("vm.ova");
    let mut writer = OvaWriter::create(&target, "vm.ovf", "<Envelope/>", Bytes(0), NEW).unwrap();
    writer.add("disk.vhdx", &bytes).unwrap();
    writer.finish(&Cancel::default()).unwrap();
    let member = target.join("disk.vhdx");
    assert_eq!(formats::open(&member, &OpenOptions::default()).err().unwrap().kind(), Kind::Corrupt);
    let layers = formats::check(&member, &OpenOptions::default()).unwrap();
    let (_, format, checked) = &layers[0];
    assert_eq!(*format, formats::Format::Vhdx);
    assert!(checked.as_ref().unwrap().count(crate::check::Severity::Corrupt) > 0);
}
