//! Adding drivers to an initramfs without running the guest's tool: parse every archive in it, merge, add, write again.
//!
//! ```text
//! before:  [ early: microcode ] [ more … ] [ main, compressed ] [ appended … ]
//! after:   [ early, the same bytes ]       [ one archive with everything else and the edit, compressed ]
//! ```
//!
//! Rewriting is preferred to appending a segment: an archive in LZ4's legacy frame cannot be followed by another, an
//! appended `lib/` would replace a link of that name, an overwritten file would change its hard links, and
//! `unmkinitramfs` documents one compressed segment only. Plain archives in front of the first compressed one are kept
//! byte for byte: the kernel's microcode loader searches them as they lie, and Debian 13 keeps its modules there.
//!
//! Reading the guest ([`gather`]) and rewriting ([`Gathered::rewrite`]) are two steps: the first needs the guest's
//! files and one thread, the second needs neither.
//!
//! Deliberately absent: initial RAM disks that hold a file system (before Linux 2.6), EROFS images of dracut's squash
//! mode, unified kernel images. The initramfs of kdump is left alone.

mod addresses;
pub mod compress;
pub mod content;
pub mod cpio;
mod encrypted;
mod explicit;
pub mod generator;
pub mod limits;
mod lzop;
mod parameters;
pub mod segment;
mod squash;
mod squashfs;
#[cfg(test)]
mod tests;

use crate::linux::kmod::{self, Closure, IndexFiles, ModuleSet, elf};
use crate::patch::InitramfsEdit;
use crate::tree::{CONFIG_AT_MOST, GuestTree};
use crate::{Error, Result};
use compress::Packer;
pub use compress::{Compressor, Effort};
use content::{Content, Origin, Removal};
use explicit::NashStyle;
pub use generator::Generator;
use landfall_image::Bytes;
use segment::Segment;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// All module files of one edit together. The drivers of every target come to 10 MiB.
const MODULE_FILES: Bytes = Bytes::gib(1);

/// Module files asked for at once: bounds what is in memory before the sum is checked.
const MODULES_PER_READ: usize = 16;

/// What is in an initramfs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Contents {
    /// Who made it.
    pub generator: Generator,
    /// Names of the modules inside, with `_` throughout.
    pub modules: BTreeSet<String>,
    /// The kernel versions that have a modules folder inside.
    pub kernels: BTreeSet<String>,
    /// How each archive is packed, in order.
    pub compressors: Vec<Compressor>,
    /// True where CPU microcode comes first.
    pub microcode: bool,
    /// True where dracut hid the content in a squashfs image.
    pub squashed: bool,
    /// True where it belongs to a kernel that only writes a crash dump.
    pub kdump: bool,
    /// Entries of all archives.
    pub entries: usize,
    /// Everything unpacked.
    pub unpacked: Bytes,
}

/// An initramfs with its edit applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The whole new file; the old bytes where nothing had to change.
    pub bytes: Vec<u8>,
    /// False where everything was there already.
    pub changed: bool,
    /// Modules added, each behind what it needs.
    pub added: Vec<String>,
    /// Modules wanted that were inside already.
    pub already: Vec<String>,
    /// Drivers wanted that are part of the kernel.
    pub builtin: Vec<String>,
    /// Drivers wanted that the kernel does not have.
    pub missing: Vec<String>,
    /// What a person should know: whole sentences.
    pub warnings: Vec<String>,
    /// Device names inside that this move changes, and that got no other: `root=/dev/sdc1 in etc/cmdline.d/x.conf`.
    pub names_left: Vec<String>,
    /// How the main archive is packed now.
    pub compressor: Compressor,
    /// Size before.
    pub old_size: Bytes,
    /// Size after.
    pub new_size: Bytes,
}

/// Looks into an initramfs.
///
/// # Errors
/// As [`Gathered::rewrite`].
pub fn inspect(archive: &[u8]) -> Result<Contents> {
    let segments = segment::split(archive)?;
    let image;
    let mut content = Content::new();
    let entries = merge(archive, &segments, segments.len(), &mut content)?;
    let layout = squash::find(&mut content)?;
    if let Some(layout) = layout.filter(|layout| *layout != squash::Layout::Erofs) {
        image = squash::read(&mut content, layout)?;
        squash::apply(&image, &mut content)?;
    }
    let mut contents = Contents {
        generator: Generator::of(&mut content)?,
        modules: BTreeSet::new(),
        kernels: BTreeSet::new(),
        compressors: segments.iter().map(|segment| segment.compressor).collect(),
        microcode: false,
        squashed: layout.is_some(),
        kdump: generator::is_kdump(&mut content)?,
        entries,
        unpacked: Bytes(segments.iter().map(|segment| segment.unpacked_size().0).sum()),
    };
    for (path, _) in content.iter() {
        let Ok(path) = std::str::from_utf8(path) else { continue };
        contents.microcode |= path.starts_with("kernel/x86/microcode/");
        if let Some((_, below)) = path.split_once("lib/modules/") {
            contents.kernels.extend(below.split('/').next().map(str::to_string));
            contents.modules.extend(kmod::name_of_file(below));
        }
    }
    Ok(contents)
}

/// [`gather`] and [`Gathered::rewrite`] in one, quickly and on all processors.
///
/// # Errors
/// As the two.
pub fn rewrite(archive: &[u8], edit: &InitramfsEdit, tree: &dyn GuestTree) -> Result<Rewritten> {
    gather(edit, tree)?.rewrite(archive, Effort::Quick, threads())
}

/// Processors to pack on.
pub fn threads() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
}

/// Everything of the guest that an edit needs.
#[derive(Clone, Debug)]
pub struct Gathered {
    edit: InitramfsEdit,
    set: ModuleSet,
    closure: Closure,
    /// Module files as they lie in the guest, in the order of the closure.
    files: Vec<Vec<u8>>,
    /// The kernel's lists of what is built in, for an initramfs that has no modules yet.
    builtin: IndexFiles,
    /// `CONFIG_RD_*` that the kernel has; `None` where its configuration is not to be found, or is older than they are.
    decoders: Option<BTreeSet<String>>,
}

/// Reads the modules of an edit, all they depend on, and what the kernel can unpack.
///
/// # Errors
/// `Corrupt` where the modules folder has no list or lists what is not there; `Refused` beyond the bounds.
pub fn gather(edit: &InitramfsEdit, tree: &dyn GuestTree) -> Result<Gathered> {
    let set = kmod::available(tree, &edit.modules)?;
    let closure = set.closure(&edit.drivers);
    let paths: Vec<String> = closure
        .modules
        .iter()
        .filter_map(|name| Some(format!("{}/{}", edit.modules, set.module(name)?.path)))
        .collect();
    let mut files = Vec::with_capacity(paths.len());
    let mut total = 0u64;
    for some in paths.chunks(MODULES_PER_READ) {
        for (path, bytes) in some.iter().zip(tree.read_many(some, elf::MODULE)?) {
            let bytes = bytes.ok_or_else(|| {
                Error::corrupt("modules.dep lists this file, but it does not exist")
                    .in_file(Path::new(path))
                    .hint("run depmod for this kernel in the guest, or reinstall its kernel package")
            })?;
            total = total.saturating_add(bytes.len() as u64);
            files.push(bytes);
        }
        if total > MODULE_FILES.0 {
            return Err(Error::refused(format!(
                "the drivers and what they need have more than {MODULE_FILES}"
            )));
        }
    }
    let lists = ["modules.builtin", "modules.builtin.bin", "modules.builtin.alias.bin"];
    let paths = lists.map(|name| format!("{}/{name}", edit.modules));
    let builtin = lists.iter().zip(tree.read_many(&paths, elf::MODULE)?);
    let builtin = builtin.filter_map(|(name, bytes)| Some((name.to_string(), bytes?))).collect();
    let mut decoders = None;
    for path in [format!("/boot/config-{}", edit.kernel), format!("{}/config", edit.modules)] {
        if let Some(text) = tree.read(&path, CONFIG_AT_MOST)? {
            let text = String::from_utf8_lossy(&text).into_owned();
            let set = text.lines().filter_map(|line| line.trim().strip_suffix("=y"));
            let set = set.filter(|name| name.starts_with("CONFIG_RD_")).map(str::to_string);
            // Before 2.6.30 there were no such options, and every kernel with an initramfs unpacked gzip.
            decoders = Some(set.collect()).filter(|set: &BTreeSet<String>| !set.is_empty());
            break;
        }
    }
    Ok(Gathered { edit: edit.clone(), set, closure, files, builtin, decoders })
}

impl Gathered {
    /// Rewrites one initramfs.
    ///
    /// # Errors
    /// `Corrupt` where the archive or a module is damaged, `Unsupported` for a kind of archive that is not handled,
    /// `Refused` for hostile content.
    pub fn rewrite(&self, archive: &[u8], effort: Effort, threads: u32) -> Result<Rewritten> {
        let segments = segment::split(archive)?;
        let early = early(archive, &segments)?;
        let image;
        let mut content = Content::new();
        merge(archive, &segments, early, &mut content)?;
        let mut new = Rewritten {
            bytes: Vec::new(),
            changed: false,
            added: Vec::new(),
            already: Vec::new(),
            builtin: self.closure.builtin.clone(),
            missing: self.closure.absent.clone(),
            warnings: Vec::new(),
            names_left: Vec::new(),
            compressor: self.compressor(&segments, early, effort, false),
            old_size: Bytes(archive.len() as u64),
            new_size: Bytes(0),
        };
        if let Some(layout) = squash::find(&mut content)? {
            image = squash::read(&mut content, layout)?;
            content = Content::new();
            let (kept, main) = segments.split_at(early);
            merge(archive, kept, early, &mut content)?;
            squash::apply(&image, &mut content)?;
            if layout == squash::Layout::Layered {
                merge(archive, main, 0, &mut content)?;
                squash::drop_loader(&mut content)?;
            }
            // The archive around the image may have been plain.
            new.compressor = self.compressor(&segments, early, effort, true);
        }
        if generator::is_kdump(&mut content)? {
            new.warnings
                .push("the initramfs is one that writes crash dumps (kdump): it is left alone".into());
            (new.bytes, new.new_size) = (archive.to_vec(), new.old_size);
            return Ok(new);
        }
        if content.lost() > 0 {
            let lost = content.lost();
            new.warnings
                .push(format!("{lost} entries of the initramfs are left out, as the kernel leaves them out"));
        }
        let generator = Generator::of(&mut content)?;
        let nash = generator::nash_style(&mut content, generator)?;
        let all = self.add_modules(&mut content, nash, &mut new)?;
        for path in &self.edit.remove {
            match content.remove(path.trim_start_matches('/').as_bytes())? {
                Removal::Absent => {}
                Removal::Removed => new.changed = true,
                Removal::Emptied => {
                    new.changed = true;
                    let says = format!(
                        "{path} lies in an early archive of the initramfs, which is kept: it is empty now"
                    );
                    new.warnings.push(says);
                }
            }
        }
        encrypted::rename(&mut content, &self.edit.renames, &mut new)?;
        let renamed = parameters::rename(&mut content, &self.edit.devices)?;
        new.changed |= renamed.changed;
        new.names_left = renamed.left;
        for file in &self.edit.files {
            put_if_new(&mut content, &file.path, file.mode, file.contents.0.clone(), &mut new)?;
        }
        new.changed |= addresses::renew(&mut content, &self.edit.addresses)?;
        let load: Vec<String> = self
            .edit
            .load
            .iter()
            .map(|name| kmod::normal(name))
            .filter(|name| self.set.place(name) == kmod::Place::Module)
            .collect();
        generator::load_by_name(generator, &mut content, &load, &all, &mut new)?;
        if new.changed {
            let start = segments.get(early).map_or(archive.len(), |main| main.range.start);
            let mut head = archive.get(..start).unwrap_or(archive).to_vec();
            head.resize(head.len().next_multiple_of(4), 0);
            let packer = Packer::new(new.compressor, effort, content.size(), threads, head)?;
            let packing = |e| Error::io("cannot pack the initramfs", e);
            new.bytes = content.write(packer).and_then(Packer::finish).map_err(packing)?;
        } else {
            new.bytes = archive.to_vec();
        }
        new.new_size = Bytes(new.bytes.len() as u64);
        Ok(new)
    }

    /// Puts every module in that is not there. Gives all of them with their paths inside, needs first.
    fn add_modules(
        &self,
        content: &mut Content<'_>,
        nash: Option<NashStyle>,
        new: &mut Rewritten,
    ) -> Result<Vec<(String, String)>> {
        // insmod takes paths: all modules lie in one folder, and no list is needed.
        let is_flat = nash == Some(NashStyle::Insmod);
        let folder = match is_flat {
            true => content.real_folder(b"lib")?.map_or(Ok("lib".into()), text)?,
            false => self.folder_inside(content, new)?,
        };
        let mut inside = modules_inside(content, &folder, &self.set);
        let is_new = inside.is_empty();
        let packed_inside: BTreeSet<String> = inside.values().filter_map(|path| packing(path)).collect();
        for (name, bytes) in self.closure.modules.iter().zip(&self.files) {
            if inside.contains_key(name) {
                new.already.push(name.clone());
                continue;
            }
            let Some(module) = self.set.module(name) else { continue };
            let source = format!("{}/{}", self.edit.modules, module.path);
            let named = |e: Error| e.in_file(Path::new(&source));
            let plain = elf::unpack(bytes.clone()).map_err(named)?;
            let info = elf::parse(&plain).map_err(named)?;
            if let Some(other) = info.kernel().filter(|kernel| *kernel != self.edit.kernel) {
                let kernel = &self.edit.kernel;
                new.warnings
                    .push(format!("module {name} was built for kernel {other}, and is used by {kernel}"));
            }
            // The kmod inside can unpack what its own modules are packed with; nothing else is certain.
            let suffix = packing(&module.path);
            let keep = suffix.as_ref().is_none_or(|suffix| packed_inside.contains(suffix));
            let (path, data) = match suffix {
                Some(suffix) if !keep => {
                    (module.path.strip_suffix(&suffix).unwrap_or(&module.path).to_string(), plain)
                }
                _ => (module.path.clone(), bytes.clone()),
            };
            let path = match path.rsplit_once('/') {
                Some((_, file)) if is_flat => file.to_string(),
                _ => path,
            };
            content.put(format!("{folder}/{path}").as_bytes(), 0o644, data)?;
            inside.insert(name.clone(), path);
            new.added.push(name.clone());
        }
        let with_path = |name: &String| Some((name.clone(), format!("{folder}/{}", inside.get(name)?)));
        let all = self.closure.modules.iter().filter_map(with_path).collect();
        if new.added.is_empty() {
            return Ok(all);
        }
        new.changed = true;
        if is_flat {
            return Ok(all);
        }
        for (name, bytes) in self.builtin.iter().filter(|_| is_new) {
            let path = format!("{folder}/{name}");
            if content.get(path.as_bytes())?.is_none() {
                content.put(path.as_bytes(), 0o644, bytes.clone())?;
            }
        }
        let mut old = IndexFiles::new();
        for name in kmod::INDEX_NAMES {
            if let Some(file) =
                content.get(format!("{folder}/{name}").as_bytes())?.filter(|f| f.is(cpio::REGULAR))
            {
                old.insert(name.to_string(), file.data.to_vec());
            }
        }
        let old = ModuleSet::parse(&old).unwrap_or_else(|e| {
            new.warnings
                .push(format!("the module lists inside the initramfs were damaged and are made anew: {e}"));
            ModuleSet::default()
        });
        for (name, bytes) in kmod::indexes(&self.set, &old, &inside)? {
            content.put(format!("{folder}/{name}").as_bytes(), 0o644, bytes)?;
        }
        Ok(all)
    }

    /// The real path of the kernel's modules folder inside the archive, made where it is missing.
    fn folder_inside(&self, content: &mut Content<'_>, new: &mut Rewritten) -> Result<String> {
        let kernel = &self.edit.kernel;
        if kernel.is_empty() || kernel.contains('/') || kernel == ".." || kernel == "." {
            return Err(Error::refused(format!("{kernel:?} is no kernel version")));
        }
        for base in ["lib/modules", "usr/lib/modules"] {
            if let Some(real) = content.real_folder(format!("{base}/{kernel}").as_bytes())? {
                return text(real);
            }
        }
        if content.iter().any(|(path, _)| path.windows(12).any(|part| part == b"lib/modules/")) {
            new.warnings.push(format!("the initramfs has modules, but none for kernel {kernel}"));
        }
        let base = match content.real_folder(b"lib")? {
            Some(real) => text(real)?,
            None => "usr/lib".into(),
        };
        Ok(format!("{base}/modules/{kernel}"))
    }

    /// The compression of the new main archive: the old one where the kernel is known to have it.
    fn compressor(&self, segments: &[Segment], early: usize, effort: Effort, squashed: bool) -> Compressor {
        let main = segments.get(early..).unwrap_or_default();
        let old = main.iter().max_by_key(|segment| segment.unpacked_size()).map(|segment| segment.compressor);
        let certain = |c: &Compressor| {
            c.config().is_some_and(|name| self.decoders.as_ref().is_some_and(|have| have.contains(name)))
        };
        // It was unpacked by this kernel before, whatever a configuration file says, unless that file says no.
        let usable = |c: &Compressor| *c == Compressor::None || self.decoders.is_none() || certain(c);
        // zstd packs tighter than all but xz, and faster than those; xz tightest: where the kernel certainly has them.
        let tight = match effort {
            Effort::Quick => None,
            Effort::Small if matches!(old, Some(Compressor::Xz | Compressor::Lzma)) => None,
            Effort::Small => Some(Compressor::Zstd).filter(certain),
            Effort::Smallest => [Compressor::Xz, Compressor::Zstd].into_iter().find(certain),
        };
        if let Some(tight) = tight {
            return tight;
        }
        if let Some(old) = old.filter(|old| usable(old) && !(squashed && *old == Compressor::None)) {
            return old;
        }
        let others = [Compressor::Zstd, Compressor::Gzip, Compressor::Xz, Compressor::Lz4];
        others.into_iter().find(certain).unwrap_or(Compressor::None)
    }
}

/// How many archives at the front are kept as they are: the plain ones before the first compressed one. Where none is
/// compressed, those that hold nothing but what the kernel reads before it unpacks anything.
fn early(archive: &[u8], segments: &[Segment]) -> Result<usize> {
    if let Some(first) = segments.iter().position(|segment| segment.compressor != Compressor::None) {
        return Ok(first);
    }
    for (i, segment) in segments.iter().enumerate() {
        let archives = segment.archives(archive)?;
        let early = |name: &[u8]| {
            matches!(name, b"." | b"early_cpio" | b"kernel")
                || name.starts_with(b"kernel/")
                || name.starts_with(b"./kernel")
        };
        if !archives.iter().flatten().all(|entry| early(entry.name)) {
            return Ok(i);
        }
    }
    Ok(segments.len())
}

/// Applies every archive, the first `early` of them as kept. Gives the number of entries.
fn merge<'a>(
    archive: &'a [u8],
    segments: &'a [Segment],
    early: usize,
    content: &mut Content<'a>,
) -> Result<usize> {
    let mut count = 0usize;
    for (i, segment) in segments.iter().enumerate() {
        let origin = if i < early { Origin::Early } else { Origin::Main };
        for entries in segment.archives(archive)? {
            count = count.saturating_add(entries.len());
            if count > limits::ENTRIES {
                return Err(Error::refused(format!(
                    "the initramfs has more than {} entries",
                    limits::ENTRIES
                )));
            }
            content.apply(&entries, origin)?;
        }
    }
    Ok(count)
}

/// The modules below a real folder: name and path below it. Of two files for one module, the one that the guest's own
/// list names counts.
fn modules_inside(content: &Content<'_>, folder: &str, set: &ModuleSet) -> BTreeMap<String, String> {
    let mut inside = BTreeMap::new();
    for (path, inode) in content.iter() {
        let below =
            std::str::from_utf8(path).ok().and_then(|path| path.strip_prefix(folder)?.strip_prefix('/'));
        let Some(below) = below.filter(|_| !inode.is(cpio::DIRECTORY)) else { continue };
        let Some(name) = kmod::name_of_file(below) else { continue };
        let plain =
            |path: &str| packing(path).map_or(path.len(), |suffix| path.len().saturating_sub(suffix.len()));
        let listed =
            set.module(&name).is_some_and(|m| m.path.get(..plain(&m.path)) == below.get(..plain(below)));
        if listed || !inside.contains_key(&name) {
            inside.insert(name, below.to_string());
        }
    }
    inside
}

/// `.xz` and the like behind `.ko`.
fn packing(path: &str) -> Option<String> {
    [".xz", ".zst", ".gz"].into_iter().find(|suffix| path.ends_with(suffix)).map(str::to_string)
}

fn put_if_new(
    content: &mut Content<'_>,
    path: &str,
    mode: u32,
    data: Vec<u8>,
    new: &mut Rewritten,
) -> Result<()> {
    let path = path.trim_start_matches('/').as_bytes();
    let same = content.get(path)?.is_some_and(|old| old.is(cpio::REGULAR) && *old.data == *data);
    if !same {
        content.put(path, mode, data)?;
        new.changed = true;
    }
    Ok(())
}

fn text(path: Vec<u8>) -> Result<String> {
    String::from_utf8(path)
        .map_err(|_| Error::unsupported("the modules folder inside the initramfs is not UTF-8"))
}
