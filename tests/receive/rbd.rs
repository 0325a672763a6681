//! RBD's streams, with the tool that the distribution has for them and a reader and a writer in Python: `rbd merge-diff` needs no cluster.

use super::{noise, output, program, read_all};
use landfall::receive::batch::Batches;
use landfall::receive::content::Effort;
use landfall::receive::digest::{Sum, Verdict};
use landfall::receive::lease::Leases;
use landfall::receive::rbd::export::{Wanted, export};
use landfall::receive::rbd::record::Version;
use landfall::receive::rbd::{Outcome, Policy, take};
use landfall::receive::spool::{Request, Spool};
use landfall::vault::Vault;
use landfall::vault::journal::{DiskInfo, Mark};
use landfall::vault::machine::Machine;
use landfall::vault::storage::{Folder, Storage};
use landfall_image::convert::Cancel;
use landfall_image::{Bytes, DiskMut, GuestOffset, GuestRange, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// A vault in a folder, as far as it receives streams.
pub struct Site {
    _dir: tempfile::TempDir,
    vault: Vault,
    batches: Batches,
    spool: Spool,
}

impl Site {
    pub fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let (vault, _) = Vault::open(dir.path()).unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Folder::new(dir.path()));
        let batches = Batches::open(&storage, &Leases::default()).unwrap();
        let (spool, _) = Spool::open(&storage).unwrap();
        Site { _dir: dir, vault, batches, spool }
    }

    pub fn machine(&self) -> Arc<Machine> {
        self.vault.machine_or_new(&"web01".parse().unwrap()).unwrap()
    }

    fn send(&self, file: &Path, sha256: Option<Sum>) -> Result<Outcome> {
        let request = Request {
            machine: "web01".parse().unwrap(),
            disk: "sda".parse().unwrap(),
            name: file.file_name().unwrap().to_str().unwrap().to_owned(),
            sha256,
            replace: false,
            apart: false,
            taken_at: None,
        };
        let upload = self.spool.take(request, &mut std::fs::File::open(file).unwrap()).unwrap();
        let (policy, effort) = (Policy::default(), Effort::default());
        take(&self.batches, &self.spool, &self.machine(), &[upload.id], policy, 1, &effort)
    }

    fn content(&self) -> Vec<u8> {
        read_all(&self.machine().live("sda").unwrap())
    }
}

/// A machine with four points, of which the disk grows, is written to with data and zeros, and shrinks; what it held at each.
pub fn source() -> (Site, Vec<(u64, Vec<u8>)>) {
    let site = Site::new();
    let machine = site.machine();
    let mut points = Vec::new();
    let sizes = [3 << 20, 9 << 20, 9 << 20, (5 << 20) + 512];
    for (number, size) in sizes.into_iter().enumerate() {
        machine.journal().set_disk(&DiskInfo { name: "sda".into(), size, sector: 512 }).unwrap();
        let live = machine.live("sda").unwrap();
        let n = number as u64;
        live.write_at(GuestOffset(n * 100_000), &noise(n, 700_000)).unwrap();
        live.write_at(GuestOffset(size - 512 * (n + 1)), &noise(n + 10, 512)).unwrap();
        live.zero_at(GuestRange::new(GuestOffset(n * 150_000), Bytes(60_000))).unwrap();
        let point = machine.checkpoint(1000 * (n + 1), &Mark::default()).unwrap();
        points.push((point, read_all(&live)));
    }
    (site, points)
}

pub fn exported(
    site: &Site,
    dir: &Path,
    from: Option<(u64, &str)>,
    to: (u64, &str),
    version: Version,
) -> PathBuf {
    let path = dir.join(format!("{}-{}.{version:?}", from.map_or("", |from| from.1), to.1));
    let wanted = Wanted { disk: "sda", from, to: to.0, name: Some(to.1), version };
    let file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    export(&site.machine(), &wanted, file, &Cancel::default()).unwrap();
    path
}

pub fn merge(rbd: &str, one: &Path, two: &Path, to: &Path) {
    let mut command = Command::new(rbd);
    command.env("CEPH_CONF", "/dev/null").arg("merge-diff").args([one, two, to]).arg("--no-progress");
    output(&mut command);
}

/// A reader that shares nothing with ours: `apply STREAM FILE`.
const READER: &str = r"
import struct, sys
raw, out = open(sys.argv[1], 'rb').read(), open(sys.argv[2], 'r+b')
at = 12
v2 = {b'rbd diff v1\n': False, b'rbd diff v2\n': True}[raw[:12]]
def take(form):
    global at
    got = struct.unpack_from('<' + form, raw, at)
    at += struct.calcsize('<' + form)
    return got
names, last = {}, 0
while True:
    tag = chr(take('B')[0])
    if tag == 'e':
        break
    length = take('Q')[0] if v2 else None
    begin = at
    if tag in 'ft':
        n = take('I')[0]
        names[tag] = raw[at:at + n].decode()
        at += n
    elif tag == 's':
        out.truncate(take('Q')[0])
    elif tag in 'wz':
        offset, n = take('QQ')
        assert offset >= last and n > 0
        last = offset + n
        out.seek(offset)
        if tag == 'w':
            out.write(raw[at:at + n])
            at += n
        else:
            out.write(b'\0' * n)
    else:
        raise SystemExit('unknown ' + tag)
    assert length is None or at == begin + length, (tag, length)
assert at == len(raw)
print(names.get('f', '-'), names.get('t', '-'))
";

/// What Python makes of a file and a stream; and the names of the snapshots.
pub fn by_python(stream: &Path, before: &[u8]) -> Option<(Vec<u8>, String)> {
    let mut python = program("python3", "python3")?;
    let dir = tempfile::tempdir().unwrap();
    let (script, file) = (dir.path().join("reader.py"), dir.path().join("disk"));
    std::fs::write(&script, READER).unwrap();
    std::fs::write(&file, before).unwrap();
    let names = output(python.arg(&script).arg(stream).arg(&file)).trim().to_owned();
    Some((std::fs::read(&file).unwrap(), names))
}

#[test]
fn what_is_exported_is_what_others_read() {
    let (site, points) = source();
    let dir = tempfile::tempdir().unwrap();
    for version in [Version::V1, Version::V2] {
        let mut before: Option<(u64, &Vec<u8>)> = None;
        for (number, (point, content)) in points.iter().enumerate() {
            let name = format!("s{number}");
            let stream = exported(&site, dir.path(), None, (*point, &name), version);
            let Some((found, names)) = by_python(&stream, &[]) else { return };
            assert!(found == *content, "{version:?}, all of {number}");
            assert_eq!(names, format!("- {name}"));
            if let Some((from, old)) = before {
                let old_name = format!("s{}", number - 1);
                let stream = exported(&site, dir.path(), Some((from, &old_name)), (*point, &name), version);
                let (found, names) = by_python(&stream, old).unwrap();
                assert!(found == *content, "{version:?}, from {} to {number}", number - 1);
                assert_eq!(names, format!("{old_name} {name}"));
            }
            before = Some((*point, content));
        }
    }
}

#[test]
fn rbd_merges_what_is_exported_and_its_merges_apply_exactly() {
    if program("rbd", "ceph-common").is_none() {
        return;
    }
    let (site, points) = source();
    let dir = tempfile::tempdir().unwrap();
    let names = ["s0", "s1", "s2", "s3"];
    let step = |from: Option<usize>, to: usize| {
        let from = from.map(|from| (points[from].0, names[from]));
        exported(&site, dir.path(), from, (points[to].0, names[to]), Version::V1)
    };
    let (whole, one, two, three) = (step(None, 0), step(Some(0), 1), step(Some(1), 2), step(Some(2), 3));
    let path = |name: &str| dir.path().join(name);
    merge("rbd", &whole, &one, &path("w1"));
    merge("rbd", &path("w1"), &two, &path("w2"));
    merge("rbd", &two, &three, &path("23"));
    merge("rbd", &one, &path("23"), &path("123"));
    // What rbd has written, from nothing and from each snapshot, in a vault and in Python.
    for (first, merged, to) in [(None, "w2", 2), (Some(&whole), "123", 3), (Some(&path("w1")), "23", 3)] {
        let other = Site::new();
        if let Some(first) = first {
            other.send(first, None).unwrap();
        }
        let before = first.map(|_| other.content()).unwrap_or_default();
        let raw = std::fs::read(path(merged)).unwrap();
        let outcome = other.send(&path(merged), Some(Sum::of(&raw))).unwrap();
        assert_eq!(outcome.disks[0].verdict, Verdict::Matched);
        assert_eq!(outcome.disks[0].snapshot.as_deref(), Some(names[to]));
        assert!(other.content() == points[to].1, "{merged}");
        if let Some((found, _)) = by_python(&path(merged), &before) {
            assert!(found == points[to].1, "{merged}");
        }
        // The next of ours fits on what rbd has written.
        if to == 2 {
            // It makes the disk smaller, which takes a digest.
            assert!(other.send(&three, None).is_err());
            other.send(&three, Some(Sum::of(&std::fs::read(&three).unwrap()))).unwrap();
            assert!(other.content() == points[3].1);
        }
    }
    // rbd refuses what does not follow, as landfall does.
    let mut command = Command::new("rbd");
    command.env("CEPH_CONF", "/dev/null").arg("merge-diff").args([&one, &three, &path("13")]);
    assert!(!command.output().unwrap().status.success());
    let other = Site::new();
    other.send(&whole, None).unwrap();
    assert!(other.send(&three, None).is_err());
}

/// A stream that rbd wrote, with every byte changed: each is refused by its digest.
#[test]
fn every_byte_of_what_rbd_wrote_counts() {
    if program("rbd", "ceph-common").is_none() {
        return;
    }
    let site = Site::new();
    let machine = site.machine();
    machine.journal().set_disk(&DiskInfo { name: "sda".into(), size: 64 << 10, sector: 512 }).unwrap();
    let live = machine.live("sda").unwrap();
    let dir = tempfile::tempdir().unwrap();
    live.write_at(GuestOffset(0), &[7; 100]).unwrap();
    let one = machine.checkpoint(1, &Mark::default()).unwrap();
    live.write_at(GuestOffset(8192), &[8; 100]).unwrap();
    let two = machine.checkpoint(2, &Mark::default()).unwrap();
    let first = exported(&site, dir.path(), None, (one, "a"), Version::V1);
    let second = exported(&site, dir.path(), Some((one, "a")), (two, "b"), Version::V1);
    let merged = dir.path().join("merged");
    merge("rbd", &first, &second, &merged);
    let good = std::fs::read(&merged).unwrap();
    let sum = Some(Sum::of(&good));
    let other = Site::new();
    let flipped = dir.path().join("flipped");
    // Payload in steps: one of its bytes is like another.
    let step = |at: &usize| *at < 60 || at.is_multiple_of(197) || at + 40 > good.len();
    for at in (0..good.len()).filter(step) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&flipped, &bytes).unwrap();
        assert!(other.send(&flipped, sum).is_err(), "byte {at}");
        other.spool.uploads().iter().for_each(|upload| other.spool.discard(upload.id).unwrap());
    }
    assert!(other.machine().points().unwrap().is_empty());
    other.send(&merged, sum).unwrap();
    assert!(other.content() == read_all(&live));
}

/// Writes `rbd image v2` after the documents: an image of two snapshots and itself.
const WRITER: &str = r"
import struct, sys
out = open(sys.argv[1], 'wb')
def rec(tag, body):
    out.write(tag + struct.pack('<Q', len(body)) + body)
def text(s):
    return struct.pack('<I', len(s)) + s
out.write(b'rbd image v2\n')
rec(b'O', struct.pack('<Q', 22)); rec(b'T', struct.pack('<Q', 61))
rec(b'U', struct.pack('<Q', 1 << 22)); rec(b'C', struct.pack('<Q', 1))
rec(b'M', text(b'key') + text(b'value'))
out.write(b'E' + b'rbd image diffs v2\n' + struct.pack('<Q', 3))
disk = bytearray()
def diff(old, new, size, runs):
    global disk
    out.write(b'rbd diff v2\n')
    if old: rec(b'f', text(old))
    if new:
        rec(b't', text(new)); rec(b'p', b'\1')
    rec(b's', struct.pack('<Q', size))
    disk = disk[:size] + bytes(max(0, size - len(disk)))
    for at, data in runs:
        if isinstance(data, int):
            rec(b'z', struct.pack('<QQ', at, data))
            disk[at:at + data] = bytes(data)
        else:
            rec(b'w', struct.pack('<QQ', at, len(data)) + data)
            disk[at:at + len(data)] = data
    out.write(b'e')
    open(sys.argv[1] + '.' + (new or b'head').decode(), 'wb').write(disk)
diff(None, b'one', 5 << 20, [(0, b'\xaa' * 70000), (4 << 20, b'\xbb' * 512)])
diff(b'one', b'two', 8 << 20, [(100, 5000), (5 << 20, b'\xcc' * 4096), (6 << 20, 1 << 20)])
diff(b'two', None, 8 << 20, [(8192, b'\xdd' * 3)])
";

#[test]
fn an_image_after_the_documents_is_taken_with_its_snapshots() {
    let Some(mut python) = program("python3", "python3") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (script, image) = (dir.path().join("writer.py"), dir.path().join("image"));
    std::fs::write(&script, WRITER).unwrap();
    output(python.arg(&script).arg(&image));
    let site = Site::new();
    let outcome = site.send(&image, Some(Sum::of(&std::fs::read(&image).unwrap()))).unwrap();
    assert!(outcome.disks[0].is_head && outcome.disks[0].snapshot.as_deref() == Some("two"));
    let machine = site.machine();
    let number = machine.disk_number("sda").unwrap();
    assert_eq!(outcome.points.len(), 3);
    for (point, name) in outcome.points.iter().zip(["one", "two", "head"]) {
        let wanted = std::fs::read(format!("{}.{name}", image.display())).unwrap();
        assert!(read_all(&machine.at(*point).unwrap().disk(number).unwrap()) == wanted, "{name}");
    }
}
