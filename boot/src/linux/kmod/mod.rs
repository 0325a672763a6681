//! Kernel modules: what a kernel has, what a driver needs, and the indexes that modprobe reads.
//!
//! Everything is taken from the guest's own modules folder (`modules.dep` and its like, made there by depmod), never
//! computed anew from symbols. Formats: modules.dep(5), depmod.d(5), and the lines that kmod's depmod writes.
//!
//! Deliberately absent: firmware files. None of the drivers that a virtual machine boots with wants any.

pub mod elf;
pub mod index;

use crate::tree::GuestTree;
use crate::{Error, Result};
use index::Row;
use landfall_image::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::Path;

/// One text or binary index. The largest in the field, `modules.alias`, has 2 MiB.
const INDEX: Bytes = Bytes::mib(64);

/// Modules in a kernel: distributions ship up to 6000.
const MODULES: usize = 100_000;

/// Lines in one index: `modules.symbols` has 30 000.
const LINES: usize = 1_000_000;

/// A module of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// With `_` throughout: `virtio_blk`.
    pub name: String,
    /// File below the modules folder: `kernel/drivers/block/virtio_blk.ko.xz`.
    pub path: String,
    /// Names of all modules that it needs, those that load last first (as `modules.dep` has them).
    pub needs: Vec<String>,
}

/// Where a driver stands in a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A module file.
    Module,
    /// Part of the kernel itself.
    Builtin,
    /// The kernel does not have it.
    Absent,
}

/// The content of the index files of one modules folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleSet {
    /// In the order of `modules.dep`, which is load order.
    modules: Vec<Module>,
    by_name: HashMap<String, usize>,
    builtin: BTreeSet<String>,
    /// `(alias, module)`, in file order.
    aliases: Vec<(String, String)>,
    /// `(symbol:…, module)`, in file order.
    symbols: Vec<(String, String)>,
    /// Whole lines of `modules.softdep`, `modules.weakdep`, `modules.devname`, each with its module.
    softdeps: Vec<(String, String)>,
    weakdeps: Vec<(String, String)>,
    devnames: Vec<(String, String)>,
}

/// What a set of drivers comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// Names of module files, each behind all that it needs.
    pub modules: Vec<String>,
    /// Asked for, and built in.
    pub builtin: Vec<String>,
    /// Asked for, and not there.
    pub absent: Vec<String>,
}

/// The index files by name (`modules.dep`), as read.
pub type IndexFiles = BTreeMap<String, Vec<u8>>;

/// Every index that is read. The binary ones stand in where the text is absent.
pub const INDEX_NAMES: &[&str] = &[
    "modules.dep",
    "modules.alias",
    "modules.symbols",
    "modules.softdep",
    "modules.weakdep",
    "modules.devname",
    "modules.builtin",
    "modules.dep.bin",
    "modules.alias.bin",
    "modules.symbols.bin",
    "modules.builtin.bin",
];

/// The modules of the kernel whose folder is `folder` (`/usr/lib/modules/VERSION`).
///
/// # Errors
/// `Corrupt` where the folder has no module list, or one that makes no sense.
pub fn available(tree: &dyn GuestTree, folder: &str) -> Result<ModuleSet> {
    let paths: Vec<String> = INDEX_NAMES.iter().map(|name| format!("{folder}/{name}")).collect();
    let files: IndexFiles = INDEX_NAMES
        .iter()
        .zip(tree.read_many(&paths, INDEX)?)
        .filter_map(|(name, bytes)| Some((name.to_string(), bytes?)))
        .collect();
    if !files.contains_key("modules.dep") && !files.contains_key("modules.dep.bin") {
        return Err(Error::corrupt("modules.dep is missing: the kernel's module list was never made")
            .in_file(Path::new(folder))
            .hint("run depmod for this kernel in the guest, or reinstall its kernel package"));
    }
    ModuleSet::parse(&files).map_err(|e| e.in_file(Path::new(folder)))
}

/// The name of the module in a file: `kernel/x/virtio-blk.ko.xz` is `virtio_blk`. `None` where it is no module file.
pub fn name_of_file(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (stem, suffix) = file.split_once(".ko")?;
    (!stem.is_empty() && matches!(suffix, "" | ".gz" | ".xz" | ".zst")).then(|| normal(stem))
}

/// A module's name as the kernel has it: `_` for `-`.
pub fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// An alias as it stands in the binary index: `_` for `-`, except between brackets.
fn normal_alias(alias: &str) -> String {
    let mut depth = false;
    alias
        .chars()
        .map(|c| {
            depth = match c {
                '[' => true,
                ']' => false,
                _ => depth,
            };
            if c == '-' && !depth { '_' } else { c }
        })
        .collect()
}

impl ModuleSet {
    /// From the content of index files; absent ones count as empty.
    ///
    /// # Errors
    /// `Corrupt` for a module path that climbs, `Refused` beyond sane numbers of modules and lines.
    pub fn parse(files: &IndexFiles) -> Result<ModuleSet> {
        let mut set = ModuleSet::default();
        let rows = |name: &str| match files.get(&format!("{name}.bin")) {
            // A damaged index of an initramfs is about to be written anew: it only cannot add to the text.
            Some(bytes) if !files.contains_key(name) => index::read(bytes).unwrap_or_default(),
            _ => Vec::new(),
        };
        for line in lines(files, "modules.dep")? {
            set.add_module(&line)?;
        }
        let mut binary = rows("modules.dep");
        binary.sort_by_key(|row| row.priority);
        for row in binary {
            set.add_module(&row.value)?;
        }
        for line in lines(files, "modules.builtin")? {
            set.builtin.extend(name_of_file(line.trim()));
        }
        set.builtin.extend(rows("modules.builtin").into_iter().map(|row| normal(&row.key)));
        for (list, name) in [(&mut set.aliases, "modules.alias"), (&mut set.symbols, "modules.symbols")] {
            for line in lines(files, name)? {
                let mut words = line.split_ascii_whitespace();
                if let (Some("alias"), Some(alias), Some(module)) = (words.next(), words.next(), words.next())
                {
                    list.push((alias.to_string(), normal(module)));
                }
            }
            let mut binary = rows(name);
            binary.sort_by_key(|row| row.priority);
            list.extend(binary.into_iter().map(|row| (row.key, normal(&row.value))));
        }
        for (list, name, word) in [
            (&mut set.softdeps, "modules.softdep", 1),
            (&mut set.weakdeps, "modules.weakdep", 1),
            (&mut set.devnames, "modules.devname", 0),
        ] {
            for line in lines(files, name)? {
                if let Some(module) = line.split_ascii_whitespace().nth(word).map(normal) {
                    list.push((line, module));
                }
            }
        }
        Ok(set)
    }

    /// Every module file, in load order.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The module of that name (`-` and `_` are the same).
    pub fn module(&self, name: &str) -> Option<&Module> {
        self.by_name.get(&normal(name)).and_then(|at| self.modules.get(*at))
    }

    /// Where a driver stands.
    pub fn place(&self, name: &str) -> Place {
        let name = normal(name);
        if self.by_name.contains_key(&name) {
            Place::Module
        } else if self.builtin.contains(&name) {
            Place::Builtin
        } else {
            Place::Absent
        }
    }

    /// The drivers of `wanted` that the kernel lacks.
    pub fn absent<'a>(&self, wanted: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        wanted.into_iter().filter(|name| self.place(name) == Place::Absent).map(normal).collect()
    }

    /// `drivers` with all that they need: hard dependencies, and soft ones before and after. Soft dependencies name
    /// modules or aliases; those that the kernel does not have are nothing to it, and so to us.
    pub fn closure(&self, drivers: &[String]) -> Closure {
        let mut closure = Closure::default();
        let mut queue = VecDeque::new();
        for driver in drivers {
            let name = normal(driver);
            match self.place(&name) {
                Place::Module => queue.push_back(name),
                Place::Builtin => closure.builtin.push(name),
                Place::Absent => closure.absent.push(name),
            }
        }
        closure.builtin.sort();
        closure.builtin.dedup();
        closure.absent.sort();
        closure.absent.dedup();
        let mut soft: HashMap<&str, Vec<&str>> = HashMap::new();
        for (line, module) in &self.softdeps {
            soft.entry(module).or_default().extend(soft_dependencies(line));
        }
        let mut by_alias: HashMap<String, Vec<&str>> = HashMap::new();
        for (alias, module) in &self.aliases {
            by_alias.entry(normal_alias(alias)).or_default().push(module);
        }
        let mut found: HashSet<String> = HashSet::new();
        while let Some(name) = queue.pop_front() {
            let Some(module) = self.module(&name).filter(|module| found.insert(module.name.clone())) else {
                continue;
            };
            queue.extend(module.needs.iter().cloned());
            for wanted in soft.get(name.as_str()).into_iter().flatten() {
                if self.place(wanted) == Place::Absent {
                    let targets = by_alias.get(&normal_alias(wanted)).into_iter().flatten();
                    queue.extend(targets.map(|target| target.to_string()));
                } else {
                    queue.push_back(normal(wanted));
                }
            }
        }
        // modules.dep lists what loads last first; needing more means loading later.
        let mut names: Vec<&Module> =
            self.modules.iter().filter(|module| found.contains(&module.name)).collect();
        names.sort_by_key(|module| module.needs.len());
        closure.modules = names.into_iter().map(|module| module.name.clone()).collect();
        closure
    }

    fn add_module(&mut self, line: &str) -> Result<()> {
        let Some((path, needs)) = line.split_once(':') else { return Ok(()) };
        let path = relative(path.trim())?;
        let Some(name) = name_of_file(&path) else { return Ok(()) };
        if self.modules.len() >= MODULES {
            return Err(Error::refused(format!("modules.dep lists more than {MODULES} modules")));
        }
        let needs = needs.split_ascii_whitespace().filter_map(name_of_file).collect();
        if !self.by_name.contains_key(&name) {
            self.by_name.insert(name.clone(), self.modules.len());
            self.modules.push(Module { name, path, needs });
        }
        Ok(())
    }
}

/// The index files of a folder that holds exactly the modules of `inside` (name, path below the folder). What `root`
/// (the guest's own folder) knows of a module counts; for others, what the folder's `old` indexes said.
///
/// The three text files come with their `.bin`; softdep, weakdep and devname only where they have lines or were there.
pub fn indexes(root: &ModuleSet, old: &ModuleSet, inside: &BTreeMap<String, String>) -> Result<IndexFiles> {
    let from_old = |name: &str| inside.contains_key(name) && !root.by_name.contains_key(name);
    let from_root = |name: &str| inside.contains_key(name) && root.by_name.contains_key(name);
    let known = root
        .modules
        .iter()
        .filter(|m| from_root(&m.name))
        .chain(old.modules.iter().filter(|m| from_old(&m.name)));
    let mut ordered: Vec<(&str, &[String])> = known.map(|m| (m.name.as_str(), m.needs.as_slice())).collect();
    let listed: HashSet<&str> = ordered.iter().map(|(name, _)| *name).collect();
    ordered.extend(
        inside.keys().filter(|name| !listed.contains(name.as_str())).map(|name| (name.as_str(), &[][..])),
    );
    let position: HashMap<&str, u32> = ordered
        .iter()
        .enumerate()
        .map(|(i, (name, _))| (*name, u32::try_from(i).unwrap_or(u32::MAX)))
        .collect();
    let row = |key: String, module: &str, value: String| Row {
        key,
        priority: position.get(module).copied().unwrap_or(u32::MAX),
        value,
    };

    let mut files = IndexFiles::new();
    let mut dep = String::new();
    let mut rows = Vec::new();
    for (name, needs) in &ordered {
        let Some(path) = inside.get(*name) else { continue };
        let mut line = format!("{path}:");
        for need in needs.iter().filter_map(|need| inside.get(need)) {
            line.push(' ');
            line.push_str(need);
        }
        dep.push_str(&line);
        dep.push('\n');
        rows.push(row(name.to_string(), name, line));
    }
    files.insert("modules.dep".into(), dep.into_bytes());
    files.insert("modules.dep.bin".into(), index::write(&rows)?);

    for (name, head, root_list, old_list) in [
        ("modules.alias", "# Aliases extracted from modules themselves.\n", &root.aliases, &old.aliases),
        (
            "modules.symbols",
            "# Aliases for symbols, used by symbol_request().\n",
            &root.symbols,
            &old.symbols,
        ),
    ] {
        let mut text = head.to_string();
        let mut rows = Vec::new();
        let kept = root_list
            .iter()
            .filter(|(_, m)| from_root(m))
            .chain(old_list.iter().filter(|(_, m)| from_old(m)));
        for (alias, module) in kept {
            text.push_str(&format!("alias {alias} {module}\n"));
            rows.push(row(normal_alias(alias), module, module.clone()));
        }
        files.insert(name.into(), text.into_bytes());
        files.insert(format!("{name}.bin"), index::write(&rows)?);
    }
    for (name, head, root_list, old_list) in [
        (
            "modules.softdep",
            "# Soft dependencies extracted from modules themselves.\n",
            &root.softdeps,
            &old.softdeps,
        ),
        (
            "modules.weakdep",
            "# Weak dependencies extracted from modules themselves.\n",
            &root.weakdeps,
            &old.weakdeps,
        ),
        (
            "modules.devname",
            "# Device nodes to trigger on-demand module loading.\n",
            &root.devnames,
            &old.devnames,
        ),
    ] {
        let kept = root_list
            .iter()
            .filter(|(_, m)| from_root(m))
            .chain(old_list.iter().filter(|(_, m)| from_old(m)));
        let lines: Vec<&str> = kept.map(|(line, _)| line.as_str()).collect();
        if !lines.is_empty() {
            files.insert(name.into(), format!("{head}{}\n", lines.join("\n")).into_bytes());
        }
    }
    Ok(files)
}

/// The lines of a text index without comments.
fn lines(files: &IndexFiles, name: &str) -> Result<Vec<String>> {
    let text = String::from_utf8_lossy(files.get(name).map(Vec::as_slice).unwrap_or_default()).into_owned();
    let lines: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .take(LINES + 1)
        .map(str::to_string)
        .collect();
    if lines.len() > LINES {
        return Err(Error::refused(format!("{name} has more than {LINES} lines")));
    }
    Ok(lines)
}

/// What stands behind `pre:` and `post:` in a softdep line.
fn soft_dependencies(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split_ascii_whitespace().skip(2);
    words.skip_while(|word| *word != "pre:" && *word != "post:").filter(|word| !word.ends_with(':'))
}

/// A path of `modules.dep` below the modules folder: old ones are absolute (`/lib/modules/VERSION/kernel/…`).
fn relative(path: &str) -> Result<String> {
    let below = match path.split_once("lib/modules/") {
        Some((_, rest)) if path.starts_with('/') => rest.split_once('/').map_or("", |(_, below)| below),
        _ => path,
    };
    if below.is_empty() || below.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Error::corrupt(format!(
            "modules.dep names the path {path:?}, which is not below its folder"
        )));
    }
    Ok(below.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(files: &[(&str, &str)]) -> ModuleSet {
        let files = files.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())).collect();
        ModuleSet::parse(&files).expect("sound")
    }

    const DEP: &str = "kernel/drivers/virtio/virtio.ko:\n\
        kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n\
        kernel/drivers/block/virtio-blk.ko.xz: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko\n\
        kernel/fs/ext4.ko:\nkernel/crypto/crc32c_generic.ko:\n/lib/modules/2.6.18/kernel/old.ko:\n";

    #[test]
    fn closures_follow_hard_and_soft_dependencies_and_names_with_dashes() {
        let set = set(&[
            ("modules.dep", DEP),
            ("modules.builtin", "kernel/drivers/ata/ata_piix.ko\n"),
            (
                "modules.softdep",
                "softdep ext4 pre: crypto-crc32c nothing post: virtio-blk\nsoftdep ext4 old\n",
            ),
            (
                "modules.alias",
                "alias crypto-crc32c crc32c_generic\nalias crypto-crc32c-generic crc32c_generic\n",
            ),
        ]);
        let closure = set.closure(&["ext4".into(), "ata-piix".into(), "hv_vmbus".into(), "ext4".into()]);
        assert_eq!(closure.modules, ["virtio", "ext4", "crc32c_generic", "virtio_ring", "virtio_blk"]);
        assert_eq!(closure.builtin, ["ata_piix"]);
        assert_eq!(closure.absent, ["hv_vmbus"]);
        assert_eq!(set.place("virtio-ring"), Place::Module);
        assert_eq!(set.module("old").map(|m| m.path.as_str()), Some("kernel/old.ko"));
    }

    #[test]
    fn indexes_hold_what_is_inside_and_nothing_else() {
        let root = set(&[
            ("modules.dep", DEP),
            ("modules.alias", "alias virtio:d00000002v* virtio_blk\nalias fs-ext4 ext4\n"),
        ]);
        let old = set(&[
            ("modules.dep", "extra/dkms.ko: kernel/drivers/virtio/virtio.ko\n"),
            ("modules.alias", "alias pci:x dkms\n"),
        ]);
        let inside: BTreeMap<String, String> = [
            ("virtio_blk", "kernel/drivers/block/virtio-blk.ko"),
            ("virtio", "kernel/drivers/virtio/virtio.ko"),
            ("virtio_ring", "kernel/drivers/virtio/virtio_ring.ko"),
            ("dkms", "extra/dkms.ko"),
        ]
        .map(|(name, path)| (name.to_string(), path.to_string()))
        .into();
        let files = indexes(&root, &old, &inside).expect("small");
        let text = |name: &str| String::from_utf8(files[name].clone()).expect("text");
        assert_eq!(
            text("modules.dep"),
            "kernel/drivers/virtio/virtio.ko:\n\
             kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n\
             kernel/drivers/block/virtio-blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko\n\
             extra/dkms.ko: kernel/drivers/virtio/virtio.ko\n"
        );
        assert!(text("modules.alias").ends_with("alias virtio:d00000002v* virtio_blk\nalias pci:x dkms\n"));
        // The binary index alone says the same.
        let binary: IndexFiles = files.into_iter().filter(|(name, _)| name.ends_with(".bin")).collect();
        let again = ModuleSet::parse(&binary).expect("sound");
        assert_eq!(again.module("virtio_blk").map(|m| m.needs.len()), Some(2));
        assert_eq!(again.aliases.len(), 2);
    }

    #[test]
    fn a_path_that_climbs_is_refused() {
        let files = [("modules.dep".to_string(), b"../../etc/x.ko:\n".to_vec())].into();
        ModuleSet::parse(&files).expect_err("climbs");
        assert_eq!(name_of_file("a/b.ko.exe"), None);
        assert_eq!(name_of_file("a/.ko"), None);
        assert_eq!(normal_alias("a-b[0-9]c-d"), "a_b[0-9]c_d");
    }
}
