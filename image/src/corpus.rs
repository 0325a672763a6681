//! For tests: the corpus of real images, found through LANDFALL_CORPUS or beside the checkout, and independent
//! tools. What is missing is skipped loudly.

use crate::disk::{Disk, ExtentKind};
use crate::units::{Bytes, GuestOffset, GuestRange};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Disks above this are hashed by their blocks that are not zero, not whole.
pub const HASHED_WHOLE: u64 = 2 << 30;

/// One file of the corpus.
pub struct Row {
    /// Below the corpus, as stored.
    pub path: String,
    pub kind: String,
    pub size: Option<u64>,
    pub expected: String,
    pub nz4k: String,
}

/// A row's file, and what lies beside it if it is one of a set, in a folder of its own.
pub struct Unpacked {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

/// The corpus's folder, or a loud word that there is none.
pub fn root() -> Option<PathBuf> {
    let root = std::env::var_os("LANDFALL_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"), PathBuf::from);
    // A worktree lies one level deeper than the main checkout.
    let deeper = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let found = [root, deeper].into_iter().find(|root| root.join("MANIFEST.tsv").is_file());
    if found.is_none() {
        eprintln!("SKIPPED: no corpus of real images; set LANDFALL_CORPUS to its folder");
    }
    found
}

/// The rows whose kind begins with `kind`. Empty, after a loud word, where there is no corpus.
pub fn rows(kind: &str) -> Vec<Row> {
    let Some(root) = root() else { return Vec::new() };
    let manifest = std::fs::read_to_string(root.join("MANIFEST.tsv")).unwrap();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let field = |at: usize| (*fields.get(at).unwrap_or(&"")).to_owned();
        Row {
            path: field(0),
            kind: field(1),
            size: field(5).parse().ok(),
            expected: field(6),
            nz4k: field(7),
        }
    };
    let rows: Vec<Row> = manifest.lines().map(row).filter(|row| row.kind.starts_with(kind)).collect();
    assert!(!rows.is_empty(), "the corpus has no {kind}");
    rows
}

impl Row {
    pub fn unpack(&self) -> Unpacked {
        let stored = root().unwrap().join(&self.path);
        let folder = tempfile::tempdir().unwrap();
        let name = |path: &Path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.strip_suffix(".zst").unwrap_or(name).to_owned()
        };
        // Sets have a folder of their own below the upstream's.
        if Path::new(&self.path).components().count() > 2 {
            for entry in std::fs::read_dir(stored.parent().unwrap()).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    expand(&path, &folder.path().join(name(&path)));
                }
            }
        } else {
            expand(&stored, &folder.path().join(name(&stored)));
        }
        Unpacked { path: folder.path().join(name(&stored)), _folder: folder }
    }

    /// Compares the disk with what the corpus says of it: `raw:` or the hash of its blocks.
    pub fn compare(&self, disk: &dyn Disk) {
        let size = disk.size().0;
        assert_eq!(Some(size), self.size, "{}", self.path);
        assert_eq!(nz4k(disk), self.nz4k, "{}: blocks that the map says are stored", self.path);
        if size <= HASHED_WHOLE
            && let Some(whole) = self.expected.strip_prefix("raw:")
        {
            assert_eq!(sha256(disk), whole, "{}: every byte", self.path);
        }
    }
}

/// Copies or decompresses, with holes for zeros.
fn expand(from: &Path, to: &Path) {
    let file = File::open(from).unwrap();
    let mut input: Box<dyn Read> = match from.extension().is_some_and(|ending| ending == "zst") {
        true => Box::new(zstd::stream::read::Decoder::new(file).unwrap()),
        false => Box::new(file),
    };
    let mut output = File::create(to).unwrap();
    let mut block = Vec::new();
    let mut len = 0;
    while input.by_ref().take(1 << 16).read_to_end(&mut block).unwrap() > 0 {
        len += block.len() as u64;
        match block.iter().all(|byte| *byte == 0) {
            true => output.seek(SeekFrom::Current(block.len() as i64)).map(drop).unwrap(),
            false => output.write_all(&block).unwrap(),
        }
        block.clear();
    }
    output.set_len(len).unwrap();
}

/// SHA-256 of every byte, read without looking at the map.
pub fn sha256(disk: &dyn Disk) -> String {
    let mut hash = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    for at in (0..disk.size().0).step_by(buf.len()) {
        let len = buf.len().min((disk.size().0 - at) as usize);
        disk.read_at(GuestOffset(at), &mut buf[..len]).unwrap();
        hash.update(&buf[..len]);
    }
    format!("{:x}", hash.finalize())
}

/// SHA-256 over the offset and bytes of each 4 KiB block that is not all zeros. Reads only where the map of the
/// disk says that something is stored, so it checks the map too.
pub fn nz4k(disk: &dyn Disk) -> String {
    const BLOCK: u64 = 4096;
    let size = disk.size().0;
    let mut hash = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut done = 0; // blocks below are hashed
    let mut at = 0;
    while at < size {
        let extents = disk.extents(GuestRange::new(GuestOffset(at), Bytes(size - at)), 1000).unwrap();
        assert!(!extents.is_empty(), "the map stops at {at:#x}");
        for extent in extents {
            assert_eq!(extent.range.start().0, at, "the map is contiguous");
            assert!(!extent.range.is_empty());
            at = extent.range.end().0;
            if extent.kind != ExtentKind::Data {
                continue;
            }
            let mut here = (extent.range.start().0 / BLOCK * BLOCK).max(done);
            let end = at.next_multiple_of(BLOCK).min(size);
            while here < end {
                let len = (buf.len() as u64).min(end - here) as usize;
                disk.read_at(GuestOffset(here), &mut buf[..len]).unwrap();
                for (n, block) in buf[..len].chunks(BLOCK as usize).enumerate() {
                    if block.iter().any(|byte| *byte != 0) {
                        hash.update((here + n as u64 * BLOCK).to_le_bytes());
                        hash.update(block);
                    }
                }
                here += len as u64;
            }
            done = end;
        }
    }
    format!("{:x}", hash.finalize())
}

/// Runs a tool in `folder` and gives its output; `None`, after a loud word, where it is not installed.
pub fn run(folder: &Path, tool: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(tool).args(arguments).current_dir(folder).output() {
        Ok(output) => {
            assert!(output.status.success(), "{tool} {arguments:?}: {output:?}");
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Err(error) => {
            eprintln!("SKIPPED: cannot run {tool}: {error}");
            None
        }
    }
}

/// A disk with runs of data, zeros and single sectors at awkward places, as a raw file, sparse.
pub fn write_pattern(path: &Path, size: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut put = |at: u64, len: u64| {
        let mut bytes = vec![0; len.min(size.saturating_sub(at)) as usize];
        for byte in &mut bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state as u8;
        }
        file.write_all_at(&bytes, at).unwrap();
    };
    put(0, 512);
    put(1 << 20, 3 << 20);
    put((8 << 20) + 512, 5 << 20);
    put(20_971_520, 512);
    put(33_550_336, 8192);
    put(size - 512, 512);
}

/// Every byte of two disks, read in pieces of an odd length, and `a`'s bytes where its map says that none are stored.
pub fn assert_same(a: &dyn Disk, b: &dyn Disk, what: &str) {
    assert_eq!(a.size(), b.size(), "{what}");
    let size = a.size().0;
    let (mut x, mut y) = (vec![0; 1_234_567], vec![0; 1_234_567]);
    for at in (0..size).step_by(x.len()) {
        let len = x.len().min((size - at) as usize);
        a.read_at(GuestOffset(at), &mut x[..len]).unwrap();
        b.read_at(GuestOffset(at), &mut y[..len]).unwrap();
        assert!(x[..len] == y[..len], "{what}: differs between {at:#x} and {:#x}", at + len as u64);
    }
    assert_eq!(nz4k(a), nz4k(b), "{what}: the map");
}
