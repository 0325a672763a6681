//! Images as unsquashfs and the kernel unpack them, and what cannot be.

use super::*;
use crate::error::Kind;
use crate::testing::{noise_bytes, text_bytes};
use std::io::Cursor;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::process::Command;

const PLAIN: Meta = Meta { mode: 0o644, uid: 0, gid: 0 };
const FOLDER: Meta = Meta { mode: 0o755, uid: 0, gid: 0 };

fn options() -> SquashOptions {
    SquashOptions { block_size: Bytes::kib(16), level: 3, time: 1_709_210_096 }
}

fn image(tree: Tree, options: SquashOptions) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let length = tree.write(&mut out, options).unwrap();
    assert_eq!(length.0, out.get_ref().len() as u64);
    out.into_inner()
}

/// Every kind of thing, and every kind of content: none, small, a block exactly, holes, what does not compress, twins.
fn sample() -> (Tree, Vec<(String, Vec<u8>)>) {
    let mut tree = Tree::new(Meta { mode: 0o750, uid: 7, gid: 8 });
    let mut files = Vec::new();
    let mut holes = noise_bytes(3, 100_000);
    holes[16_384..65_536].fill(0);
    for (path, content) in [
        ("empty", Vec::new()),
        ("small", b"small\n".to_vec()),
        ("block", text_bytes(1, 16_384)),
        ("block less one", text_bytes(2, 16_383)),
        ("block and one", text_bytes(3, 16_385)),
        ("noise", noise_bytes(4, 50_000)),
        ("holes", holes),
        ("all zeros", vec![0; 70_000]),
        ("small zeros", vec![0; 70]),
        ("twin of noise", noise_bytes(4, 50_000)),
        ("twin of small", b"small\n".to_vec()),
        ("as long as small", b"SMALL\n".to_vec()),
        ("Größe", text_bytes(5, 300_000)),
    ] {
        files.push((path.to_owned(), content));
    }
    tree.dir("many", FOLDER).unwrap();
    for number in 0..3000 {
        files.push((format!("many/{number:05} of a long name for a long list"), vec![b'x'; number % 50]));
    }
    let mut deep = String::new();
    for depth in 0..40 {
        deep += &format!("d{depth}");
        tree.dir(&deep, FOLDER).unwrap();
        files.push((format!("{deep}/file"), text_bytes(depth, 1000)));
        deep += "/";
    }
    for (number, (path, content)) in (0u32..).zip(&files) {
        let meta = Meta { mode: if number % 2 == 0 { 0o4755 } else { 0o600 }, uid: number % 5, gid: 70_000 };
        tree.file(path, meta, content.clone()).unwrap();
    }
    tree.dir("sticky", Meta { mode: 0o1777, ..FOLDER }).unwrap();
    tree.symlink("link", PLAIN, "many/../small").unwrap();
    tree.symlink("long link", PLAIN, "x".repeat(TARGET)).unwrap();
    tree.device("null", Meta { mode: 0o666, ..PLAIN }, Device::Character(1, 3)).unwrap();
    tree.device("disk", PLAIN, Device::Block(259, 0xabcde)).unwrap();
    tree.device("pipe", PLAIN, Device::Fifo).unwrap();
    tree.device("socket", PLAIN, Device::Socket).unwrap();
    (tree, files)
}

/// Unpacks an image; `None` (and a loud word) where the tool is missing, or not run by who may make devices.
fn unpacked(folder: &Path, image: &[u8]) -> Option<PathBuf> {
    let path = folder.join("image");
    std::fs::write(&path, image).unwrap();
    let to = folder.join("unpacked");
    match Command::new("unsquashfs").arg("-no-progress").arg("-d").arg(&to).arg(&path).output() {
        Ok(output) => {
            let says = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && says.is_empty(), "{says}");
            Some(to)
        }
        Err(e) => {
            eprintln!("SKIPPED: unsquashfs: {e}");
            None
        }
    }
}

#[test]
fn unsquashfs_unpacks_what_was_put_in() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can unpack owners and devices");
        return;
    }
    let (tree, files) = sample();
    let image = image(tree, options());
    let folder = tempfile::tempdir().unwrap();
    let Some(root) = unpacked(folder.path(), &image) else { return };
    let meta = |path: &str| root.join(path).symlink_metadata().unwrap();
    for (number, (path, content)) in (0u32..).zip(&files) {
        assert!(std::fs::read(root.join(path)).unwrap() == *content, "{path}");
        let meta = meta(path);
        assert_eq!(
            meta.permissions().mode() & 0o7777,
            if number % 2 == 0 { 0o4755 } else { 0o600 },
            "{path}"
        );
        assert_eq!((meta.uid(), meta.gid(), meta.mtime()), (number % 5, 70_000, 1_709_210_096), "{path}");
    }
    assert_eq!((meta("").mode() & 0o7777, meta("").uid(), meta("").gid()), (0o750, 7, 8));
    assert_eq!(meta("sticky").mode() & 0o7777, 0o1777);
    assert_eq!(std::fs::read_link(root.join("link")).unwrap(), Path::new("many/../small"));
    assert_eq!(std::fs::read_link(root.join("long link")).unwrap().as_os_str().len(), TARGET);
    assert!(meta("null").file_type().is_char_device() && meta("disk").file_type().is_block_device());
    let numbers = |path| (rustix::fs::major(meta(path).rdev()), rustix::fs::minor(meta(path).rdev()));
    assert_eq!((numbers("null"), numbers("disk")), ((1, 3), (259, 0xabcde)));
    assert!(meta("pipe").file_type().is_fifo() && meta("socket").file_type().is_socket());
    assert_eq!(std::fs::read_dir(root.join("many")).unwrap().count(), 3000);
    // Holes are holes again, so they were not stored.
    assert!(meta("all zeros").blocks() == 0 && meta("holes").blocks() < 120);
}

#[test]
fn the_superblock_says_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let (tree, _) = sample();
    let image = image(tree, SquashOptions { level: 19, ..options() });
    assert_eq!(image.len() % 4096, 0);
    std::fs::write(&path, &image).unwrap();
    let output = match Command::new("unsquashfs").env("TZ", "UTC").arg("-s").arg(&path).output() {
        Ok(output) => String::from_utf8(output.stdout).unwrap(),
        Err(e) => return eprintln!("SKIPPED: unsquashfs: {e}"),
    };
    for line in [
        "Found a valid SQUASHFS 4:0 superblock",
        "Thu Feb 29 12:34:56 2024",
        "Compression zstd",
        "compression-level 19",
        "Block size 16384",
        "Filesystem is not exportable via NFS",
        "Duplicates are removed",
        "Xattrs are not stored",
        "Number of inodes 3102",
        "Number of ids 8",
    ] {
        assert!(output.contains(line), "{line}: {output}");
    }
}

/// Calls `look` with the folder where the kernel has mounted an image, if it knows squashfs and we may mount.
fn mounted<T>(folder: &Path, image: &[u8], look: impl FnOnce(&Path) -> T) -> Option<T> {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("squashfs");
    if !known || !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: the kernel knows no squashfs, or we are not root");
        return None;
    }
    let (path, to) = (folder.join("to mount"), folder.join("mounted"));
    std::fs::write(&path, image).unwrap();
    std::fs::create_dir_all(&to).unwrap();
    let status = Command::new("mount").args(["-o", "loop,ro", "-t", "squashfs"]).arg(&path).arg(&to).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: cannot mount here");
        return None;
    }
    let seen = look(&to);
    assert!(Command::new("umount").arg(&to).status().unwrap().success());
    Some(seen)
}

#[test]
fn the_kernel_mounts_it() {
    let folder = tempfile::tempdir().unwrap();
    for (block_size, level) in [(Bytes::kib(4), 1), (Bytes::kib(16), 3), (Bytes::mib(1), 22)] {
        let (tree, files) = sample();
        let image = image(tree, SquashOptions { block_size, level, ..options() });
        let look = |to: &Path| {
            let same = |(path, content): &(String, Vec<u8>)| {
                std::fs::read(to.join(path)).is_ok_and(|read| read == *content)
            };
            let differ = files.iter().filter(|file| !same(file)).count();
            let names = std::fs::read_dir(to.join("many")).unwrap().count();
            (differ, names, to.join("sticky").metadata().unwrap().len())
        };
        let Some(seen) = mounted(folder.path(), &image, look) else { return };
        // An empty folder counts for three bytes.
        assert_eq!(seen, (0, 3000, 3), "{block_size}");
    }
}

#[test]
fn same_tree_same_bytes_whatever_the_order_and_the_origin() {
    let (one, files) = sample();
    let one = image(one, options());
    assert!(one == image(sample().0, options()));
    assert!(one != image(sample().0, SquashOptions { time: 1, ..options() }));
    // From files, the other way round.
    let folder = tempfile::tempdir().unwrap();
    let (mut from_files, _) = sample();
    for (number, (path, content)) in (0u32..).zip(&files).collect::<Vec<_>>().into_iter().rev() {
        let meta = Meta { mode: if number % 2 == 0 { 0o4755 } else { 0o600 }, uid: number % 5, gid: 70_000 };
        let source = folder.path().join(format!("{number}"));
        std::fs::write(&source, content).unwrap();
        assert!(from_files.remove(path).unwrap());
        from_files.file(path, meta, source).unwrap();
    }
    assert!(one == image(from_files, options()));
}

#[test]
fn the_same_content_is_stored_once() {
    let stored = |contents: &[Vec<u8>]| {
        let mut tree = Tree::new(FOLDER);
        for (number, content) in contents.iter().enumerate() {
            tree.file(format!("{number}"), PLAIN, content.clone()).unwrap();
        }
        image(tree, options()).len()
    };
    for len in [10_000, 100_000] {
        let [a, b] = [noise_bytes(1, len), noise_bytes(2, len)];
        let once = stored(std::slice::from_ref(&a));
        assert_eq!(stored(&[a.clone(), a.clone(), a.clone()]), once);
        assert!(stored(&[a, b]) > once + len - 4096);
    }
}

#[test]
fn the_image_begins_where_the_output_stands() {
    let mut out = Cursor::new(vec![7; 1000]);
    out.seek(SeekFrom::Start(1000)).unwrap();
    let length = sample().0.write(&mut out, options()).unwrap();
    assert_eq!(out.position(), 1000 + length.0);
    let bytes = out.into_inner();
    assert!(bytes[..1000] == [7; 1000] && bytes[1000..] == image(sample().0, options()));
}

#[test]
fn an_empty_tree_is_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(Tree::new(FOLDER), SquashOptions::default());
    assert_eq!(image.len(), 4096);
    let Some(root) = unpacked(folder.path(), &image) else { return };
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 0);
}

#[test]
fn a_file_that_is_not_what_it_was_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let kind = |prepare: &dyn Fn(&mut Tree)| {
        let mut tree = Tree::new(FOLDER);
        prepare(&mut tree);
        let error = tree.write(&mut Cursor::new(Vec::new()), options()).unwrap_err();
        (error.kind(), error.path().map(Path::to_owned))
    };
    let missing = folder.path().join("missing");
    let named = |path: &Path| Some(path.to_owned());
    assert_eq!(kind(&|tree| tree.file("x", PLAIN, missing.clone()).unwrap()), (Kind::Io, named(&missing)));
    let itself = folder.path().to_owned();
    assert_eq!(kind(&|tree| tree.file("x", PLAIN, itself.clone()).unwrap()), (Kind::Refused, named(&itself)));
    // Longer and shorter than it says: what the kernel makes up has no length.
    for made_up in ["/proc/self/status", "/proc/self/maps"].map(PathBuf::from) {
        if made_up.exists() {
            let result = kind(&|tree| tree.file("x", PLAIN, made_up.clone()).unwrap());
            assert_eq!(result, (Kind::Io, named(&made_up)));
        }
    }
    std::fs::write(&path, [1; 100]).unwrap();
    for length in [99, 101] {
        let content = FileContent::Path(path.clone());
        let mut reader = blocks::Reader::open(&content, length).unwrap();
        let mut buf = vec![0; 200];
        assert!(reader.read(&mut buf).is_err(), "{length}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let mut tree = Tree::new(FOLDER);
    tree.dir("a", FOLDER).unwrap();
    tree.file("a/file", PLAIN, Vec::new()).unwrap();
    let refused = |what: &str, result: Result<()>| {
        assert_eq!(result.unwrap_err().kind(), Kind::Refused, "{what}");
    };
    refused("taken", tree.file("a/file", PLAIN, Vec::new()));
    refused("taken by a folder", tree.file("a", PLAIN, Vec::new()));
    refused("taken by a file", tree.dir("a/file", FOLDER));
    refused("no folder", tree.file("b/file", PLAIN, Vec::new()));
    refused("in a file", tree.file("a/file/x", PLAIN, Vec::new()));
    refused("root", tree.file("/", PLAIN, Vec::new()));
    refused("root", tree.remove("").map(drop));
    refused("parent", tree.file("a/../x", PLAIN, Vec::new()));
    refused("mode", tree.file("x", Meta { mode: 0o10000, ..PLAIN }, Vec::new()));
    refused("name", tree.file("n".repeat(256), PLAIN, Vec::new()));
    refused("NUL", tree.file("n\0", PLAIN, Vec::new()));
    refused("target", tree.symlink("x", PLAIN, ""));
    refused("target", tree.symlink("x", PLAIN, "t".repeat(TARGET + 1)));
    refused("major", tree.device("x", PLAIN, Device::Block(4096, 0)));
    refused("minor", tree.device("x", PLAIN, Device::Character(0, 1 << 20)));
    tree.file("n".repeat(255), PLAIN, Vec::new()).unwrap();
    tree.device("x", PLAIN, Device::Block(4095, (1 << 20) - 1)).unwrap();
    tree.dir("/", Meta { mode: 0o700, ..FOLDER }).unwrap();
    assert!(tree.contains("/a/file").unwrap() && tree.remove("a").unwrap());
    assert!(!tree.contains("a/file").unwrap() && !tree.remove("a").unwrap());
    for options in [
        SquashOptions { block_size: Bytes::kib(2), ..options() },
        SquashOptions { block_size: Bytes::mib(2), ..options() },
        SquashOptions { block_size: Bytes(5000), ..options() },
        SquashOptions { level: 0, ..options() },
        SquashOptions { level: 23, ..options() },
    ] {
        let error = Tree::new(FOLDER).write(&mut Cursor::new(Vec::new()), options).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{options:?}");
    }
    let mut owners = Tree::new(FOLDER);
    for uid in 0..=65_535 {
        owners.file(format!("{uid}"), Meta { uid, gid: 0, mode: 0 }, Vec::new()).unwrap();
    }
    let error = owners.write(&mut Cursor::new(Vec::new()), options()).unwrap_err();
    assert!(error.says().contains("65535 different"), "{error}");
}

/// A real tree, `LANDFALL_SQUASHFS_TREE`: its image is unpacked again and compared.
#[test]
fn a_real_tree_comes_back_as_it_was() {
    let Some(source) = std::env::var_os("LANDFALL_SQUASHFS_TREE").map(PathBuf::from) else {
        return eprintln!("SKIPPED: LANDFALL_SQUASHFS_TREE names no folder");
    };
    let mut tree = Tree::new(meta_of(&source));
    add(&mut tree, &source, Path::new(""));
    let folder =
        tempfile::tempdir_in(std::env::var_os("LANDFALL_SQUASHFS_AT").unwrap_or("/tmp".into())).unwrap();
    let path = folder.path().join("image");
    let begin = std::time::Instant::now();
    let mut file = std::fs::File::create_new(&path).unwrap();
    let length = tree.write(&mut file, SquashOptions { time: 1, ..SquashOptions::default() }).unwrap();
    let memory = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = memory.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    eprintln!("{} bytes in {:?}, {peak}", length.0, begin.elapsed());
    eprintln!("blake3 {}", blake3::hash(&std::fs::read(&path).unwrap()));
    let image = std::fs::read(&path).unwrap();
    let compare = |to: &Path| {
        let same =
            Command::new("diff").args(["-r", "--no-dereference"]).arg(&source).arg(to).output().unwrap();
        assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
    };
    if let Some(unpacked) = unpacked(folder.path(), &image) {
        compare(&unpacked);
    }
    mounted(folder.path(), &image, compare);
}

fn meta_of(path: &Path) -> Meta {
    let meta = path.symlink_metadata().unwrap();
    Meta { mode: u16::try_from(meta.mode() & 0o7777).unwrap(), uid: meta.uid(), gid: meta.gid() }
}

fn add(tree: &mut Tree, source: &Path, to: &Path) {
    for entry in std::fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            tree.dir(&to, meta_of(&from)).unwrap();
            add(tree, &from, &to);
        } else if kind.is_symlink() {
            tree.symlink(&to, meta_of(&from), std::fs::read_link(&from).unwrap()).unwrap();
        } else if kind.is_file() {
            tree.file(&to, meta_of(&from), from).unwrap();
        }
    }
}
