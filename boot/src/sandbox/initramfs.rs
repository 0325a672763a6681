//! The sandbox's initramfs: our own program as `/init`, and the modules that it loads, in their order.
//!
//! A newc archive (`Documentation/driver-api/early-userspace/buffer-format.rst`), not compressed: unpacking is slow
//! under emulation. The order of the modules comes from what the modules say themselves (`depends` and `softdep` in
//! their `.modinfo`), not from `modules.dep`, which an unpacked package does not have.

use super::kernel::{Kernel, LATER, NEEDED, WANTED, stripped};
use super::protocol;
use crate::{Error, Result};
use landfall_image::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// One module, uncompressed. The largest of a distribution (a GPU driver) has 10 MiB.
const MODULE_AT_MOST: Bytes = Bytes::mib(64);

/// Our own program: a debug build has a few hundred MiB.
const AGENT_AT_MOST: Bytes = Bytes::gib(1);

/// Folders below a module tree: a distribution's has about six.
const DEPTH_AT_MOST: usize = 32;

/// The archive for `kernel` with `agent` as its first program.
pub(super) fn build(kernel: &Kernel, agent: &Path) -> Result<Vec<u8>> {
    let program = read(agent, AGENT_AT_MOST)?;
    let program = stripped(&program).ok_or_else(|| {
        Error::unsupported("is no static program: it cannot run alone in the sandbox")
            .in_file(agent)
            .hint("use the released program, or build with .cargo/config.toml as it is")
    })?;
    let mut archive = Archive::default();
    archive.folder("dev", 0o755);
    archive.add("dev/console", 0o020_600, &[], Some((5, 1)));
    archive.folder("guest", 0o755);
    archive.folder("modules", 0o755);
    archive.file(protocol::MARKER.trim_start_matches('/'), 0o444, b"");
    archive.file("init", 0o755, &program);
    let (at_boot, later) = modules(kernel)?;
    for (list, modules) in [(protocol::MODULES_AT_BOOT, at_boot), (protocol::MODULES_LATER, later)] {
        let mut order = String::new();
        for module in modules {
            let name = format!("{}.ko", module.name);
            archive.file(&format!("modules/{name}"), 0o444, &module.bytes);
            order.push_str(&name);
            order.push('\n');
        }
        archive.file(list.trim_start_matches('/'), 0o444, order.as_bytes());
    }
    Ok(archive.finish())
}

fn read(path: &Path, at_most: Bytes) -> Result<Vec<u8>> {
    let failed = |e| Error::io("cannot read", e).in_file(path);
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(failed)?.take(at_most.0 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > at_most.0 {
        return Err(Error::refused(format!("is longer than {at_most}")).in_file(path));
    }
    Ok(bytes)
}

/// A module, ready to be loaded.
#[derive(Debug)]
struct Module {
    name: String,
    bytes: Vec<u8>,
}

/// The modules that the sandbox loads at boot and those for later, each behind those that it depends on.
fn modules(kernel: &Kernel) -> Result<(Vec<Module>, Vec<Module>)> {
    let mut tree = Tree { files: BTreeMap::new(), done: BTreeSet::new(), ordered: Vec::new() };
    tree.walk(&kernel.modules.join("kernel"), 0)?;
    let builtin = fs::read_to_string(kernel.modules.join("modules.builtin")).unwrap_or_default();
    tree.done.extend(builtin.lines().filter_map(|line| module_name(line.rsplit('/').next()?)));
    for name in NEEDED {
        if !tree.load(name)? {
            return Err(Error::unsupported(format!("the kernel {} has no {name}", kernel.release))
                .in_file(&kernel.modules)
                .hint("give the sandbox a distribution's kernel with all its modules"));
        }
    }
    for name in WANTED {
        tree.load(name)?;
    }
    let at_boot = std::mem::take(&mut tree.ordered);
    for name in LATER {
        tree.load(name)?;
    }
    Ok((at_boot, tree.ordered))
}

/// `ext4` of `ext4.ko.xz`. The kernel takes `-` and `_` for the same.
fn module_name(file: &str) -> Option<String> {
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().find_map(|suffix| file.strip_suffix(suffix))?;
    Some(stem.replace('-', "_"))
}

/// A kernel's module files, and those taken from them.
struct Tree {
    files: BTreeMap<String, PathBuf>,
    /// Names that need not be loaded: built in, or loaded already.
    done: BTreeSet<String>,
    ordered: Vec<Module>,
}

impl Tree {
    fn walk(&mut self, folder: &Path, depth: usize) -> Result<()> {
        let failed = |e| Error::io("cannot read the kernel's modules", e).in_file(folder);
        if depth > DEPTH_AT_MOST {
            return Ok(());
        }
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_dir() {
                self.walk(&entry.path(), depth + 1)?;
            } else if let Some(name) = entry.file_name().to_str().and_then(module_name) {
                self.files.insert(name, entry.path());
            }
        }
        Ok(())
    }

    /// Puts a module behind what it depends on. False where there is none of that name.
    fn load(&mut self, name: &str) -> Result<bool> {
        let name = name.replace('-', "_");
        if self.done.contains(&name) {
            return Ok(true);
        }
        let Some(path) = self.files.get(&name).cloned() else { return Ok(false) };
        // Before its dependencies: a circle must end.
        self.done.insert(name.clone());
        let bytes = decompress(&path)?;
        let info = ModInfo::parse(&bytes);
        for dependency in info.depends {
            if !self.load(&dependency)? {
                return Err(Error::corrupt(format!("needs the module {dependency}, which the kernel lacks"))
                    .in_file(&path));
            }
        }
        // Soft ones may be aliases or absent.
        for dependency in info.soft_before {
            self.load(&dependency)?;
        }
        self.ordered.push(Module { name, bytes });
        Ok(true)
    }
}

fn decompress(path: &Path) -> Result<Vec<u8>> {
    let raw = read(path, MODULE_AT_MOST)?;
    let failed = |e| Error::io("cannot decompress", e).in_file(path);
    let mut out = Vec::new();
    let limit = MODULE_AT_MOST.0 + 1;
    match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => {
            liblzma::read::XzDecoder::new(&raw[..]).take(limit).read_to_end(&mut out).map_err(failed)?
        }
        Some("zst") => zstd::Decoder::with_buffer(&raw[..])
            .and_then(|d| d.take(limit).read_to_end(&mut out))
            .map_err(failed)?,
        Some("gz") => {
            flate2::read::MultiGzDecoder::new(&raw[..]).take(limit).read_to_end(&mut out).map_err(failed)?
        }
        _ => return Ok(raw),
    };
    if out.len() as u64 > MODULE_AT_MOST.0 {
        return Err(Error::refused(format!("unpacks to more than {MODULE_AT_MOST}")).in_file(path));
    }
    Ok(out)
}

/// What a module says of what it needs.
#[derive(Debug, Default, PartialEq, Eq)]
struct ModInfo {
    depends: Vec<String>,
    soft_before: Vec<String>,
}

impl ModInfo {
    /// `.modinfo` is a section of `key=value` strings, each ended by NUL. They are looked for in the whole file: a
    /// string of that shape elsewhere would only load a module too many, of the same kernel.
    fn parse(module: &[u8]) -> ModInfo {
        let mut info = ModInfo::default();
        for text in module.split(|&byte| byte == 0) {
            if let Some(list) = text.strip_prefix(b"depends=") {
                let list = String::from_utf8_lossy(list);
                info.depends.extend(list.split(',').filter(|name| is_name(name)).map(str::to_owned));
            } else if let Some(list) = text.strip_prefix(b"softdep=") {
                let list = String::from_utf8_lossy(list);
                // "pre: a b post: c"
                let before = list.split("post:").next().unwrap_or_default();
                let names = before.split("pre:").nth(1).unwrap_or_default();
                info.soft_before
                    .extend(names.split_whitespace().filter(|name| is_name(name)).map(str::to_owned));
            }
        }
        info
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

/// A newc archive, all of root's.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    pub(crate) fn folder(&mut self, name: &str, mode: u32) {
        self.add(name, 0o040_000 | mode, &[], None);
    }

    pub(crate) fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.add(name, 0o100_000 | mode, content, None);
    }

    pub(crate) fn add(&mut self, name: &str, mode: u32, content: &[u8], device: Option<(u32, u32)>) {
        self.inode += 1;
        let (major, minor) = device.unwrap_or_default();
        let len = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let fields =
            [self.inode, mode, 0, 0, 1, 0, len(content.len()), 0, 0, major, minor, len(name.len() + 1), 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        let len = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(len, 0);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[], None);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(text: &str) -> Vec<u8> {
        [b"\x7fELF...\0license=GPL\0", text.as_bytes(), b"\0name=x\0"].concat()
    }

    #[test]
    fn modules_come_behind_what_they_need() {
        let dir = tempfile::tempdir().unwrap();
        let fs_folder = dir.path().join("kernel/fs");
        fs::create_dir_all(&fs_folder).unwrap();
        fs::write(
            dir.path().join("modules.builtin"),
            "kernel/drivers/virtio/virtio_pci.ko\nkernel/sd_mod.ko\n",
        )
        .unwrap();
        let put = |name: &str, text: &str| fs::write(fs_folder.join(name), module(text)).unwrap();
        put("ext4.ko", "depends=jbd2,mb-cache\0softdep=pre: crc32c other post: late");
        put("jbd2.ko", "depends=ext4"); // a circle
        put("virtio_scsi.ko", "depends=");
        put("virtio_console.ko", "depends=");
        put("crc32c_generic.ko", "depends=");
        put("late.ko", "");
        let xz = |text: &str| {
            let mut out = Vec::new();
            liblzma::read::XzEncoder::new(&module(text)[..], 1).read_to_end(&mut out).unwrap();
            out
        };
        fs::write(fs_folder.join("mb_cache.ko.xz"), xz("depends=")).unwrap();
        let kernel = Kernel { release: "6".into(), image: PathBuf::new(), modules: dir.path().to_owned() };
        put("btrfs.ko", "depends=raid6_pq,jbd2");
        put("raid6_pq.ko", "depends=");
        let (loaded, later) = modules(&kernel).unwrap();
        let later: Vec<_> = later.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(later, ["raid6_pq", "btrfs"]);
        let names: Vec<_> = loaded.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["virtio_scsi", "virtio_console", "jbd2", "mb_cache", "ext4", "crc32c_generic"]);
        assert_eq!(loaded[3].bytes, module("depends="));
        fs::remove_file(fs_folder.join("jbd2.ko")).unwrap();
        assert!(modules(&kernel).unwrap_err().says().contains("jbd2"));
        fs::remove_file(fs_folder.join("virtio_scsi.ko")).unwrap();
        assert!(modules(&kernel).unwrap_err().says().contains("virtio_scsi"));
    }

    #[test]
    fn cpio_reads_the_archive() {
        let mut archive = Archive::default();
        archive.folder("d", 0o755);
        archive.file("d/file", 0o644, b"content");
        archive.file("odd", 0o600, b"x");
        let bytes = archive.finish();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.cpio"), &bytes).unwrap();
        let out = std::process::Command::new("cpio")
            .args(["-idmv", "--quiet", "-F", "a.cpio"])
            .current_dir(dir.path())
            .output();
        let Ok(out) = out else {
            eprintln!("SKIPPED: cpio_reads_the_archive: no cpio here");
            return;
        };
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(fs::read(dir.path().join("d/file")).unwrap(), b"content");
        assert_eq!(fs::read(dir.path().join("odd")).unwrap(), b"x");
    }
}
