//! Images that QEMU wrote, and real files.

use super::*;
use crate::Kind;
use crate::luks::Secret;
use crate::testing::noise_bytes;

/// Runs the corpus's own recipe and compares every image with the recorded hash of its content.
#[test]
fn every_generated_kind_has_the_recorded_content() {
    let test = "every_generated_kind_has_the_recorded_content";
    let Some(corpus) = crate::corpus::root() else { return };
    if !have(test, &["qemu-img", "qemu-io", "openssl"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let commands = std::fs::read_to_string(corpus.join("generated/COMMANDS.txt")).unwrap();
    for line in commands.lines() {
        let ours = line.contains("q-")
            || line.contains(".luks")
            || !line.contains("qemu-img") && !line.contains(".vmdk");
        if !ours || line.starts_with('#') {
            continue;
        }
        if line.contains("luks") {
            // On a busy machine QEMU cannot time its key derivation; a few tries help.
            let made = line.rsplit(' ').next().unwrap();
            run(dir.path(), &format!("for try in {{1..20}}; do {line} && break; rm -f {made}; done"));
        } else {
            run(dir.path(), line);
        }
    }
    let hashes = std::fs::read_to_string(corpus.join("generated/HASHES.tsv")).unwrap();
    let mut checked = 0;
    for line in hashes.lines() {
        let [name, _, size, sha, nz4k] = *line.split('\t').collect::<Vec<_>>() else { panic!("{line}") };
        let ours =
            name.starts_with("q-") || name.ends_with(".luks") || name == "base.raw" || name == "odd.raw";
        if !ours {
            continue;
        }
        let (file, snapshot) = match name.split_once('@') {
            Some((file, snapshot)) => (file, Some(snapshot.to_owned())),
            None => (name, None),
        };
        let path = dir.path().join(file);
        if name.contains("luks") {
            if !path.exists() {
                eprintln!("SKIPPED: {name}: qemu-img could not make it on this machine");
                continue;
            }
            // A whole disk in LUKS is a disk as its guest left it, until somebody wants it opened.
            let format =
                path.extension().is_some_and(|ending| ending == "luks").then_some(crate::Format::Luks);
            let asked = OpenOptions { format, ..OpenOptions::default() };
            let error = crate::formats::open(&path, &asked).err().expect("an encrypted image is refused");
            assert_eq!(error.kind(), Kind::Refused);
            assert!(error.says().contains("no key was given"), "{error}");
            assert!(error.hint_text().unwrap().contains("--key-file"));
        }
        let key = Some(Secret::new(b"landfall".to_vec()));
        let image = formats::open(&path, &OpenOptions { snapshot, key, ..OpenOptions::default() });
        let image = image.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(image.disk.size().0.to_string(), size, "{name}");
        assert_eq!(crate::corpus::sha256(&*image.disk), sha, "{name}");
        assert_eq!(crate::corpus::nz4k(&*image.disk), nz4k, "{name}: the map");
        if ["luks", "q-cs4096-zlib", "q-cs2097152-zlib", "q-extl2-zstd", "q-v3.", "q-chain2"]
            .iter()
            .any(|some| name.contains(some))
        {
            let odd = OddSteps(&*image.disk);
            assert_eq!(crate::corpus::sha256(&odd), sha, "{name}: reads that cross clusters");
        }
        checked += 1;
    }
    assert!(checked > 30, "{checked}");
    let info = |name: &str, key: &str| {
        let details = open(&dir.path().join(name)).unwrap().layers[0].details.clone();
        details.into_iter().find(|(name, _)| name == key).map(|(_, value)| value)
    };
    assert_eq!(info("q-snap.qcow2", "internal snapshots").unwrap(), "2: one, two with space");
    assert_eq!(info("q-bitmap.qcow2", "bitmaps").unwrap(), "1: b0 (granularity 64.0 KiB, auto)");
    assert_eq!(info("q-extl2.qcow2", "extended L2").unwrap(), "yes");
    assert_eq!(info("q-lazy.qcow2", "lazy refcounts").unwrap(), "yes");
    assert_eq!(info("q-chain2.qcow2", "backing file").unwrap(), "q-chain1.qcow2");
    assert_eq!(info("q-rb64.qcow2", "refcount bits").unwrap(), "64");
    assert_eq!(info("q-v3-zstd.qcow2", "compression").unwrap(), "zstd");
    let chain = open(&dir.path().join("q-chain2.qcow2")).unwrap();
    assert_eq!(chain.layers.iter().map(|layer| &*layer.variant).collect::<Vec<_>>(), ["v3", "v3", "raw"]);
    let external = open(&dir.path().join("q-extdata-raw.qcow2")).unwrap();
    assert_eq!(external.layers[0].files.len(), 1);
}

/// Reads in pieces that meet no cluster boundary.
struct OddSteps<'a>(&'a dyn Disk);

impl Disk for OddSteps<'_> {
    fn size(&self) -> Bytes {
        self.0.size()
    }
    fn extents(&self, range: GuestRange, at_most: usize) -> crate::Result<Vec<Extent>> {
        self.0.extents(range, at_most)
    }
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> crate::Result<()> {
        let mut here = at.0;
        for part in buf.chunks_mut(77_777) {
            self.0.read_at(GuestOffset(here), part)?;
            here += part.len() as u64;
        }
        Ok(())
    }
}

#[test]
fn real_files_have_the_recorded_content() {
    let mut checked = 0;
    for row in crate::corpus::rows("").into_iter().filter(|row| row.path.contains(".qcow2")) {
        let file = row.unpack();
        row.compare(&*open(&file.path).unwrap().disk);
        checked += 1;
    }
    if checked == 0 {
        eprintln!("SKIPPED: real_files_have_the_recorded_content: no corpus");
    } else {
        assert!(checked >= 7, "{checked}");
    }
}

/// Writes of every kind that end inside clusters and subclusters, over a shorter backing file.
#[test]
fn partial_writes_of_every_kind_read_as_qemu_reads_them() {
    let test = "partial_writes_of_every_kind_read_as_qemu_reads_them";
    if !have(test, &["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("base.raw"), noise_bytes(1, 3 << 20)).unwrap();
    let writes = "qemu-io -c 'write -c -P 7 0 2097152' -c 'write -P 1 70000 3000' \
                  -c 'write -z 131072 9000' -c 'write -z -u 200704 40960' -c 'write -P 9 300000 10' \
                  -c 'discard 1048576 262144' -c 'write -P 5 1572864 700000' -c 'write -z 2000000 300000' \
                  -c 'write -P 4 3145000 3000' -c 'write -P 6 4193792 512' -c 'write -z 0 5000'";
    for options in [
        "compat=0.10",
        "compat=1.1",
        "cluster_size=512",
        "cluster_size=2M",
        "compression_type=zstd",
        "extended_l2=on,cluster_size=16k",
        "extended_l2=on,cluster_size=64k",
        "extended_l2=on,cluster_size=2M,compression_type=zstd",
        "cluster_size=4k,refcount_bits=1",
    ] {
        for backing in ["", "-b base.raw -F raw"] {
            run(dir.path(), &format!("qemu-img create -q -f qcow2 {backing} -o {options} a.qcow2 4M"));
            run(dir.path(), &format!("{writes} a.qcow2"));
            let image = open(&dir.path().join("a.qcow2")).unwrap();
            let ours = if backing.is_empty() {
                content(&*image.disk, 100_003).unwrap()
            } else {
                let mut out = vec![0; 4 << 20];
                image.disk.read_at(GuestOffset(0), &mut out).unwrap();
                extents(&*image.disk).unwrap();
                out
            };
            assert!(ours == qemu_reads(dir.path(), "a.qcow2"), "{options} {backing}");
        }
    }
}

/// QEMU's own map of the top layer says the same as ours.
#[test]
fn the_map_agrees_with_qemu() {
    if !have("the_map_agrees_with_qemu", &["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    run(
        dir.path(),
        "qemu-img create -q -f qcow2 a.qcow2 3G && qemu-io -c 'write -P 1 65536 131072' -c 'write -z 1M 1M' \
         -c 'write -P 3 2147483648 65536' -c 'write -c -P 3 2147549184 65536' a.qcow2",
    );
    let image = open(&dir.path().join("a.qcow2")).unwrap();
    let ours: Vec<_> = extents(&*image.disk)
        .unwrap()
        .into_iter()
        .map(|extent| (extent.range.start().0, extent.range.len().0, extent.kind))
        .collect();
    let json: serde_json_free::Map =
        serde_json_free::parse(&run(dir.path(), "qemu-img map --output=json a.qcow2"));
    let mut qemu: Vec<(u64, u64, ExtentKind)> = Vec::new();
    for (start, len, present, data) in json {
        let kind = match (present, data) {
            (_, true) => ExtentKind::Data,
            (true, false) => ExtentKind::Zero,
            (false, false) => ExtentKind::Unallocated,
        };
        match qemu.last_mut() {
            Some(last) if last.2 == kind => last.1 += len,
            _ => qemu.push((start, len, kind)),
        }
    }
    assert_eq!(ours, qemu);
}

/// The four fields that are wanted from `qemu-img map --output=json`, one object a line.
mod serde_json_free {
    pub type Map = Vec<(u64, u64, bool, bool)>;
    pub fn parse(text: &str) -> Map {
        let field = |line: &str, name: &str| {
            let rest = line.split_once(&format!("\"{name}\": ")).unwrap().1;
            rest.split([',', '}']).next().unwrap().to_owned()
        };
        text.lines()
            .filter(|line| line.contains("\"start\""))
            .map(|line| {
                let number = |name| field(line, name).parse().unwrap();
                (
                    number("start"),
                    number("length"),
                    field(line, "present") == "true",
                    field(line, "data") == "true",
                )
            })
            .collect()
    }
}

#[test]
fn a_huge_empty_disk_is_one_extent() {
    if !have("a_huge_empty_disk_is_one_extent", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), "qemu-img create -q -f qcow2 a.qcow2 16T");
    let disk = open(&dir.path().join("a.qcow2")).unwrap().disk;
    assert_eq!(
        disk.extents(whole(&*disk), 1000).unwrap(),
        [Extent { range: whole(&*disk), kind: ExtentKind::Unallocated }]
    );
    // Holes of a preallocated image are zeros without being read.
    run(
        dir.path(),
        "qemu-img create -q -f qcow2 -o preallocation=metadata b.qcow2 8G && qemu-io -c 'write -P 1 4G 1M' b.qcow2",
    );
    let disk = open(&dir.path().join("b.qcow2")).unwrap().disk;
    let extents = extents(&*disk).unwrap();
    let stored: u64 = extents.iter().filter(|e| e.kind == ExtentKind::Data).map(|e| e.range.len().0).sum();
    assert!(stored < 16 << 20, "{extents:?}");
}

/// Names of files that the image may not reach, or that only QEMU understands.
#[test]
fn names_in_images_pass_the_gate() {
    if !have("names_in_images_pass_the_gate", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let vm = dir.path().join("vm");
    std::fs::create_dir(&vm).unwrap();
    std::fs::write(dir.path().join("secret.raw"), noise_bytes(1, 1 << 20)).unwrap();
    let refused = |options: &str, kind: Kind, says: &str| {
        run(&vm, &format!("rm -f a.qcow2; qemu-img create -q -f qcow2 {options} a.qcow2 1M"));
        let error = open(&vm.join("a.qcow2")).err().unwrap_or_else(|| panic!("{options} was opened"));
        assert_eq!(error.kind(), kind, "{options}: {error}");
        assert!(error.says().contains(says), "{options}: {error}");
    };
    refused("-u -b ../secret.raw -F raw", Kind::Refused, "leads outside");
    refused("-u -b /etc/hostname -F raw", Kind::Refused, "leads outside");
    refused("-u -b absent.raw -F raw", Kind::Io, "cannot be opened");
    refused("-u -b nbd://localhost/x -F raw", Kind::Unsupported, "no plain file name");
    refused(
        r#"-u -b 'json:{"driver":"raw","file.filename":"x"}' -F raw"#,
        Kind::Unsupported,
        "no plain file name",
    );
    refused("-u -b base -F qed", Kind::Unsupported, "format \"qed\"");
    refused("-o data_file=../data.raw", Kind::Refused, "leads outside");
    // A loop of images.
    run(
        &vm,
        "qemu-img create -q -f qcow2 -u -b b.qcow2 -F qcow2 a.qcow2 1M; qemu-img create -q -f qcow2 -u -b a.qcow2 -F qcow2 b.qcow2 1M",
    );
    assert!(open(&vm.join("a.qcow2")).err().unwrap().says().contains("loop"));
    // The recorded format counts: a raw backing file whose content looks like qcow2 stays raw.
    run(
        &vm,
        "qemu-img create -q -f qcow2 forged.raw 1M; truncate -s 1M forged.raw; qemu-img create -q -f qcow2 -b forged.raw -F raw a.qcow2",
    );
    let image = open(&vm.join("a.qcow2")).unwrap();
    let read = crate::testing::read_all(&*image.disk).unwrap();
    assert!(read == std::fs::read(vm.join("forged.raw")).unwrap());
}

/// Snapshots by id and by name, of disks that have grown since, as `qemu-img convert -l` reads them.
#[test]
fn snapshots_read_as_qemu_reads_them() {
    if !have("snapshots_read_as_qemu_reads_them", &["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for options_of in ["compat=1.1", "compat=0.10,cluster_size=4k", "extended_l2=on,compression_type=zstd"] {
        let grow = if options_of.contains("0.10") { "true" } else { "qemu-img resize -q a.qcow2 9M" };
        run(
            dir.path(),
            &format!(
                "rm -f a.qcow2; qemu-img create -q -f qcow2 -o {options_of} a.qcow2 5M && \
                 qemu-io -c 'write -P 1 1M 300k' -c 'write -c -P 2 2M 128k' a.qcow2 && qemu-img snapshot -c first a.qcow2 && \
                 qemu-io -c 'write -P 3 1M 100k' -c 'write -z 2M 64k' a.qcow2 && qemu-img snapshot -c 1 a.qcow2 && {grow} && \
                 qemu-io -c 'write -P 4 4M 1M' a.qcow2 && qemu-img snapshot -c third a.qcow2 && \
                 qemu-io -c 'write -P 5 0 2M' a.qcow2"
            ),
        );
        // "1" is the id of the first and the name of the second: the id counts.
        for wanted in ["first", "1", "2", "third", "3"] {
            run(dir.path(), &format!("qemu-img convert -l {wanted} -O raw a.qcow2 snap.raw"));
            let options = OpenOptions { snapshot: Some(wanted.to_owned()), ..OpenOptions::default() };
            let image = formats::open(&dir.path().join("a.qcow2"), &options).unwrap();
            let ours = content(&*image.disk, 100_003).unwrap();
            let (grown, last) = (!options_of.contains("0.10"), ["third", "3"].contains(&wanted));
            assert_eq!(ours.len(), if grown && last { 9 << 20 } else { 5 << 20 }, "{options_of} {wanted}");
            // qemu-img gives a snapshot the size that the disk has today; going back to it gives it its own.
            let theirs = std::fs::read(dir.path().join("snap.raw")).unwrap();
            let (same, behind) = theirs.split_at(ours.len());
            assert!(ours == same && behind.iter().all(|&byte| byte == 0), "{options_of} {wanted}");
        }
        let options = OpenOptions { snapshot: Some("fourth".to_owned()), ..OpenOptions::default() };
        let error = formats::open(&dir.path().join("a.qcow2"), &options).err().unwrap();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.hint_text().unwrap().contains("first, 1, third"), "{error}");
        let error = formats::open(&dir.path().join("snap.raw"), &options).err().unwrap();
        assert!(error.kind() == Kind::Refused && error.says().contains("no internal snapshots"), "{error}");
    }
}

/// A row of compressed clusters that is longer than one read, in pieces of every kind.
#[test]
fn long_rows_of_compressed_clusters_are_read() {
    if !have("long_rows_of_compressed_clusters_are_read", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    for n in 0..40u64 {
        // Compressible to a half, with incompressible stretches and zeros in between.
        for part in noise_bytes(n, 150_000).chunks(1000) {
            bytes.extend(part);
            bytes.extend([part[0]; 1000]);
        }
        bytes.extend(noise_bytes(n + 100, 70_000));
        bytes.extend(vec![0; 90_000]);
    }
    bytes.truncate(bytes.len() / 512 * 512);
    std::fs::write(dir.path().join("a.raw"), &bytes).unwrap();
    for options in ["cluster_size=4k", "cluster_size=64k,compression_type=zstd", "cluster_size=2M"] {
        run(dir.path(), &format!("qemu-img convert -c -O qcow2 -o {options} a.raw a.qcow2"));
        let image = open(&dir.path().join("a.qcow2")).unwrap();
        for step in [1 << 20, 3_000_001, 65_536, 4 << 20] {
            assert!(content(&*image.disk, step).unwrap() == bytes, "{options} in steps of {step}");
        }
    }
}
