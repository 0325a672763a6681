//! Deltas: of qemu-img, and real ones of Windows; in their order, and out of it.

use super::{Options, Yard, content, fs, output, program, qemu_img, seal, vmx, yard};
use landfall_image::{Disk, DiskMut, GuestOffset, OpenOptions, formats};
use std::path::{Path, PathBuf};
use std::process::Command;

/// An image of the folder as qemu-img reads it, with all that it is over.
fn whole(folder: &Path, image: &str, format: &str) -> Vec<u8> {
    let raw = folder.join("whole.raw");
    qemu_img(&["convert", "-f", format, "-O", "raw", image, raw.to_str().unwrap()], folder);
    let bytes = fs::read(&raw).unwrap();
    fs::remove_file(raw).unwrap();
    bytes
}

fn put(yard: &Yard, from: &Path, names: &[&str], drop: &str) -> PathBuf {
    let folder = yard.drops().join("web01").join(drop);
    fs::create_dir_all(&folder).unwrap();
    for name in names {
        fs::copy(from.join(name), folder.join(name)).unwrap();
    }
    folder
}

fn write(folder: &Path, image: &str, format: &str, commands: &[&str]) {
    let mut qemu_io = Command::new("qemu-io");
    qemu_io.args(["-f", format]).current_dir(folder);
    for command in commands {
        qemu_io.args(["-c", command]);
    }
    output(qemu_io.arg(image));
}

/// A chain of three in a folder, as a hypervisor leaves it; what each holds.
fn chain(folder: &Path, format: &str) -> [Vec<u8>; 3] {
    fs::write(folder.join("raw"), content(1)).unwrap();
    qemu_img(&["convert", "-f", "raw", "-O", format, "raw", "base.img"], folder);
    fs::rename(folder.join("base.img"), folder.join(format!("base.{format}"))).unwrap();
    let name = |name: &str| format!("{name}.{format}");
    qemu_img(&["create", "-q", "-f", format, "-b", &name("base"), "-F", format, &name("one")], folder);
    write(folder, &name("one"), format, &["write -P 7 0 100k", "write -P 8 5M 64k"]);
    qemu_img(&["create", "-q", "-f", format, "-b", &name("one"), "-F", format, &name("two")], folder);
    write(folder, &name("two"), format, &["write -P 9 50k 100k", "write -z 5M 32k"]);
    ["base", "one", "two"].map(|image| whole(folder, &name(image), format))
}

#[test]
fn deltas_lead_from_drop_to_drop() {
    if program("qemu-img", "qemu-utils").is_none() || program("qemu-io", "qemu-utils").is_none() {
        return;
    }
    for format in ["qcow2", "vmdk"] {
        let (dir, yard) = yard(Options::default());
        let from = dir.path().join("source");
        fs::create_dir(&from).unwrap();
        let [base, one, two] = chain(&from, format);
        let name = |name: &str| format!("{name}.{format}");
        // Nothing to be over.
        let early = put(&yard, &from, &[&name("two")], "0");
        let refused = yard.refused();
        assert!(refused.contains("no drop has brought") || refused.contains("delta"), "{format}: {refused}");
        assert!(early.join("REFUSED.txt").exists());
        fs::remove_dir_all(&early).unwrap();
        put(&yard, &from, &[&name("base")], "1");
        yard.taken();
        assert!(yard.live("web01", "disk0") == base, "{format}");
        // The second delta before the first: refused with the way out, and taken by itself when that is there.
        let second = put(&yard, &from, &[&name("two")], "3");
        let refused = yard.refused();
        assert!(refused.contains(&name("one")) && refused.contains(&name("base")), "{format}: {refused}");
        assert!(yard.live("web01", "disk0") == base);
        put(&yard, &from, &[&name("one")], "2");
        let outcomes = yard.scan();
        assert_eq!(outcomes.len(), 2, "{format}: {outcomes:?}");
        assert!(!second.exists(), "{format}: {outcomes:?}");
        assert_eq!(yard.points("web01"), 3);
        let machine = yard.vault.machine(&"web01".parse().unwrap()).unwrap();
        let points: Vec<u64> = machine.points().unwrap().iter().map(|point| point.sequence).collect();
        for (point, wanted) in points.iter().zip([&base, &one, &two]) {
            assert!(yard.at("web01", "disk0", *point) == *wanted, "{format}");
        }
        // Of a delta nothing else was read.
        let read: u64 = outcomes
            .iter()
            .map(|outcome| match &outcome.became {
                super::Became::Taken(taken) => taken.disks[0].counts.compared,
                other => panic!("{other:?}"),
            })
            .sum();
        assert!(read <= 1 << 20, "{format}: {read}");
        // Once more: it is over an older one.
        put(&yard, &from, &[&name("one")], "4");
        assert!(yard.refused().contains("is a delta over"), "{format}");
        fs::remove_dir_all(yard.drops().join("web01/4")).unwrap();
        // With all that it is over, it is whole.
        put(&yard, &from, &[&name("base"), &name("one")], "5");
        yard.taken();
        assert!(yard.live("web01", "disk0") == one, "{format}");
        // Something else wrote to the disk.
        machine.live("disk0").unwrap().write_at(GuestOffset(0), &[1; 512]).unwrap();
        put(&yard, &from, &[&name("two")], "6");
        assert!(yard.refused().contains("something else was written to it since"), "{format}");
    }
}

/// qcow2 does not record which image it is over, only its name: the digest in the manifest does.
#[test]
fn the_parent_of_a_qcow2_is_known_by_its_digest() {
    if program("qemu-img", "qemu-utils").is_none() || program("qemu-io", "qemu-utils").is_none() {
        return;
    }
    let (dir, yard) = yard(Options::default());
    let from = dir.path().join("source");
    fs::create_dir(&from).unwrap();
    let [_, one, _] = chain(&from, "qcow2");
    put(&yard, &from, &["base.qcow2"], "1");
    yard.taken();
    let sum = |name: &str| output(Command::new("sha256sum").arg(from.join(name)))[..64].to_owned();
    for (parent, is_right) in [(sum("two.qcow2"), false), (sum("base.qcow2"), true)] {
        let folder = put(&yard, &from, &["one.qcow2"], "2");
        let text = format!(
            "{{\"landfall_drop\": 1, \"files\": {{\"one.qcow2\": {{\"sha256\": \"{}\"}}}}, \"parents\": {{\"base.qcow2\": \"{parent}\"}}}}",
            sum("one.qcow2")
        );
        fs::write(folder.join("landfall.json"), text).unwrap();
        match is_right {
            false => assert!(yard.refused().contains("is a delta over")),
            true => assert!(yard.taken().notes.is_empty()),
        }
    }
    assert!(yard.live("web01", "disk0") == one);
    // Without, that is said.
    put(&yard, &from, &["two.qcow2"], "3");
    assert!(yard.taken().notes.iter().any(|note| note.contains("by its name alone")));
}

/// The definition names the youngest image of each disk, as VMware does when there is a snapshot.
#[test]
fn a_definition_comes_with_deltas() {
    if program("qemu-img", "qemu-utils").is_none() || program("qemu-io", "qemu-utils").is_none() {
        return;
    }
    let (dir, yard) = yard(Options { manifest: true, keep: false });
    let from = dir.path().join("source");
    fs::create_dir(&from).unwrap();
    let [base, one, _] = chain(&from, "vmdk");
    let other = from.join("other.vmdk");
    qemu_img(&["create", "-q", "-f", "vmdk", other.to_str().unwrap(), "2M"], &from);
    for (number, (images, wanted)) in
        [(["base.vmdk", "other.vmdk"], &base), (["one.vmdk", "other.vmdk"], &one)].into_iter().enumerate()
    {
        let folder = put(&yard, &from, &images, &number.to_string());
        fs::write(folder.join("web01.vmx"), vmx("web01", &images)).unwrap();
        seal(&folder);
        let taken = yard.taken();
        assert_eq!(taken.disks.iter().map(|disk| disk.is_delta).collect::<Vec<_>>(), [number == 1, false]);
        assert!(yard.live("web01", "scsi0-0") == *wanted, "{number}");
    }
}

/// Images of a corpus, unpacked into a folder.
fn unpacked(folder: &Path, names: [&str; 2], to: &Path) -> Option<()> {
    let corpus = crate::machines::corpus()?.join(folder);
    for name in names {
        let packed = fs::File::open(corpus.join(format!("{name}.zst"))).unwrap();
        let mut file = fs::File::create(to.join(name)).unwrap();
        std::io::copy(&mut zstd::Decoder::new(packed).unwrap(), &mut file).unwrap();
    }
    Some(())
}

/// What Windows' diskpart made: a parent, and a differencing disk over it, each in a drop of its own.
#[test]
fn differencing_disks_of_windows_are_deltas() {
    for (folder, parent, child) in [
        ("dfvfs/ntfs-diff-vhdx", "ntfs-parent.vhdx", "ntfs-differential.vhdx"),
        ("dfvfs/ntfs-diff-vhd", "ntfs-parent.vhd", "ntfs-differential.vhd"),
    ] {
        let (dir, yard) = yard(Options::default());
        let from = dir.path().join("source");
        fs::create_dir(&from).unwrap();
        if unpacked(Path::new(folder), [parent, child], &from).is_none() {
            return;
        }
        let read = |name: &str| {
            let image = formats::open(&from.join(name), &OpenOptions::default()).unwrap();
            let mut bytes = vec![0; image.disk.size().to_usize().unwrap()];
            image.disk.read_at(GuestOffset(0), &mut bytes).unwrap();
            bytes
        };
        put(&yard, &from, &[parent], "1");
        yard.taken();
        assert!(yard.live("web01", "disk0") == read(parent), "{child}");
        put(&yard, &from, &[child], "2");
        let taken = yard.taken();
        assert!(taken.disks[0].is_delta && taken.notes.is_empty(), "{taken:?}");
        assert!(yard.live("web01", "disk0") == read(child), "{child}");
        // Its parent is another one now.
        put(&yard, &from, &[child], "3");
        let refused = yard.refused();
        assert!(refused.contains("is a delta over") && refused.contains("(id "), "{refused}");
    }
}
