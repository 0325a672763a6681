//! The indexes of a kernel's modules, which the distribution's package leaves to `depmod`: made of what the modules say of themselves.
//!
//! Source: kmod's depmod(8) and modules.dep(5); the `.modinfo` section (`alias=`, `depends=`, `softdep=`).
//!
//! Deliberately absent: `modules.symbols` (no program of the appliance loads modules by symbol), and dependencies by symbol: a
//! distribution's modules name in `depends=` all that they need.

use super::root::{Kind, Root};
use crate::linux::kmod::{self, IndexFiles, ModuleSet};
use crate::{Error, Result};
use object::{Object, ObjectSection};
use std::collections::BTreeMap;

/// A module of the tree, unpacked.
pub struct Module {
    /// Below the modules folder.
    pub path: String,
    /// The ELF file.
    pub bytes: Vec<u8>,
    /// `key=value` of `.modinfo`, in order.
    pub info: Vec<(String, String)>,
}

impl Module {
    fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.info.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Names of the modules that it needs directly.
    fn depends(&self) -> Vec<String> {
        let list = self.values("depends").flat_map(|list| list.split(','));
        list.filter(|name| !name.is_empty()).map(kmod::normal).collect()
    }
}

/// The modules of a kernel in a tree, by name.
pub struct Modules {
    /// `/usr/lib/modules/RELEASE`
    pub folder: String,
    /// By the name that the kernel has for it.
    pub modules: BTreeMap<String, Module>,
    /// Names of what is built into the kernel.
    pub builtin: std::collections::BTreeSet<String>,
}

impl Modules {
    /// Reads all modules of the one kernel in the tree.
    ///
    /// # Errors
    /// `Corrupt` where there is none, or a module cannot be read.
    pub fn read(root: &Root) -> Result<Modules> {
        const ALL: &str = "/usr/lib/modules/";
        let release = root
            .nodes()
            .filter_map(|(path, _)| path.strip_prefix(ALL)?.split_once('/').map(|(release, _)| release))
            .next()
            .ok_or_else(|| Error::corrupt("the packages hold no kernel with modules"))?
            .to_owned();
        let folder = format!("{ALL}{release}");
        let below = format!("{folder}/");
        let files: Vec<(&str, &Vec<u8>)> = root
            .nodes()
            .filter_map(|(path, node)| match &node.kind {
                Kind::File(content) => Some((path.strip_prefix(&below)?, content.as_ref())),
                _ => None,
            })
            .filter(|(path, _)| kmod::name_of_file(path).is_some())
            .collect();
        use rayon::prelude::*;
        let modules: Result<Vec<(String, Module)>> = files
            .par_iter()
            .map(|(path, content)| {
                let in_file = |e: Error| e.in_file(std::path::Path::new(path));
                let bytes = kmod::elf::unpack((*content).clone()).map_err(in_file)?;
                let info = modinfo(&bytes).map_err(in_file)?;
                let name = kmod::name_of_file(path).unwrap_or_default();
                Ok((name, Module { path: (*path).to_owned(), bytes, info }))
            })
            .collect();
        let builtin = root.read(&format!("{folder}/modules.builtin"));
        let builtin = builtin.map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default();
        Ok(Modules {
            folder,
            modules: modules?.into_iter().collect(),
            builtin: builtin.lines().filter_map(|line| kmod::name_of_file(line.trim())).collect(),
        })
    }

    /// Takes out what cannot be loaded for want of another module, and gives the paths: where a module was left out, so are those that need it.
    pub fn prune(&mut self) -> Vec<String> {
        let mut gone = Vec::new();
        loop {
            let lost: Vec<String> = self
                .modules
                .iter()
                .filter(|(_, module)| {
                    module
                        .depends()
                        .iter()
                        .any(|need| !self.modules.contains_key(need) && !self.builtin.contains(need))
                })
                .map(|(name, _)| name.clone())
                .collect();
            if lost.is_empty() {
                return gone;
            }
            for name in lost {
                gone.extend(
                    self.modules.remove(&name).map(|module| format!("{}/{}", self.folder, module.path)),
                );
            }
        }
    }

    /// The kernel's release.
    pub fn release(&self) -> &str {
        self.folder.rsplit('/').next().unwrap_or_default()
    }

    /// Names of the modules behind what they need, each once; those built in are left out.
    ///
    /// # Errors
    /// `Corrupt` where one is not there.
    pub fn closure<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>> {
        let mut ordered = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            self.follow(&kmod::normal(name), &mut seen, &mut ordered)?;
        }
        Ok(ordered)
    }

    fn follow(
        &self,
        name: &str,
        seen: &mut std::collections::BTreeSet<String>,
        ordered: &mut Vec<String>,
    ) -> Result<()> {
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let module = self.modules.get(name).ok_or_else(|| {
            Error::corrupt(format!("the kernel {} has no module {name}", self.release()))
                .hint("list the full kernel of the distribution, not the one for clouds")
        })?;
        let soft =
            module.values("softdep").filter_map(|text| text.split("post:").next()?.split("pre:").nth(1));
        for soft in soft.flat_map(str::split_ascii_whitespace).map(kmod::normal) {
            // They may be aliases, or not there.
            if self.modules.contains_key(&soft) {
                self.follow(&soft, seen, ordered)?;
            }
        }
        for need in module.depends() {
            self.follow(&need, seen, ordered)?;
        }
        ordered.push(name.to_owned());
        Ok(())
    }

    /// The index files of the folder, as depmod would write them.
    ///
    /// # Errors
    /// As [`Modules::closure`].
    pub fn indexes(&self) -> Result<IndexFiles> {
        let mut text = IndexFiles::new();
        let mut add = |name: &str, line: String| {
            let file = text.entry(name.to_owned()).or_default();
            file.extend(line.as_bytes());
            file.push(b'\n');
        };
        for (name, module) in &self.modules {
            let needs = self.closure([name.as_str()])?;
            let needs =
                needs.iter().rev().filter(|need| *need != name).filter_map(|need| self.modules.get(need));
            let needs: String = needs.map(|need| format!(" {}", need.path)).collect();
            add("modules.dep", format!("{}:{needs}", module.path));
            for alias in module.values("alias") {
                add("modules.alias", format!("alias {alias} {name}"));
            }
            for soft in module.values("softdep") {
                add("modules.softdep", format!("softdep {name} {soft}"));
            }
            if let Some(line) = devname(name, module) {
                add("modules.devname", line);
            }
        }
        let set = ModuleSet::parse(&text)?;
        let inside = self.modules.iter().map(|(name, module)| (name.clone(), module.path.clone())).collect();
        let mut files = kmod::indexes(&set, &ModuleSet::default(), &inside)?;
        files.extend(text.into_iter().filter(|(name, _)| name == "modules.devname"));
        let rows: Vec<kmod::index::Row> = self
            .builtin
            .iter()
            .map(|name| kmod::index::Row { key: name.clone(), priority: 0, value: String::new() })
            .collect();
        files.insert("modules.builtin.bin".into(), kmod::index::write(&rows)?);
        Ok(files)
    }
}

/// A line of `modules.devname`, by which device nodes are there before their driver: `fuse fuse c10:229`.
fn devname(name: &str, module: &Module) -> Option<String> {
    let node = module.values("alias").find_map(|alias| alias.strip_prefix("devname:"))?;
    let number = |kind: &str, word: &str| {
        let major_minor = module.values("alias").find_map(|alias| alias.strip_prefix(word))?;
        let (major, minor) = major_minor.split_once('-')?;
        let plain = |n: &str| n.parse::<u32>().ok();
        Some(format!("{kind}{}:{}", plain(major)?, plain(minor)?))
    };
    let device = number("c", "char-major-").or_else(|| number("b", "block-major-"))?;
    Some(format!("{name} {node} {device}"))
}

/// `key=value` of a module's `.modinfo`.
fn modinfo(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let damaged = |e: object::Error| Error::corrupt(format!("is no sound module: {e}"));
    let file = object::File::parse(bytes).map_err(damaged)?;
    let section =
        file.section_by_name(".modinfo").ok_or_else(|| Error::corrupt("has no .modinfo: it is no module"))?;
    Ok(section
        .data()
        .map_err(damaged)?
        .split(|b| *b == 0)
        .filter_map(|field| {
            let text = String::from_utf8_lossy(field);
            text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    /// The sandbox's kernel, unpacked: what `depmod` makes of it, and what is made here, are asked the same questions.
    #[test]
    fn depmod_agrees() {
        let sandbox = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/sandbox/lib/modules");
        let release = std::fs::read_dir(&sandbox).ok().and_then(|mut entries| entries.next()?.ok());
        let (Some(release), Ok(_)) = (release, Command::new("depmod").arg("-V").output()) else {
            eprintln!("SKIPPED: depmod_agrees: no kernel in target/sandbox or no depmod here");
            return;
        };
        let release = release.file_name().into_string().unwrap();
        let mut root = Root::default();
        let mut open = vec![sandbox.join(&release)];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let at = path.strip_prefix(&sandbox).unwrap().to_str().unwrap().to_owned();
                    root.file(&format!("/usr/lib/modules/{at}"), 0o644, std::fs::read(&path).unwrap());
                }
            }
        }
        let modules = Modules::read(&root).unwrap();
        let indexes = modules.indexes().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("theirs/lib/modules");
        std::fs::create_dir_all(&theirs).unwrap();
        assert!(
            Command::new("cp").arg("-a").arg(sandbox.join(&release)).arg(&theirs).status().unwrap().success()
        );
        let base = dir.path().join("theirs");
        assert!(Command::new("depmod").arg("-b").arg(&base).arg(&release).status().unwrap().success());
        let ours = dir.path().join("ours/lib/modules").join(&release);
        std::fs::create_dir_all(&ours).unwrap();
        for (name, content) in &indexes {
            std::fs::write(ours.join(name), content).unwrap();
        }
        // It looks whether the files are there.
        std::os::unix::fs::symlink(
            sandbox.join(&release).canonicalize().unwrap().join("kernel"),
            ours.join("kernel"),
        )
        .unwrap();
        for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
            let _ = std::fs::copy(theirs.join(&release).join(name), ours.join(name));
        }
        let ask = |base: &Path, what: &str| {
            let out = Command::new("modprobe")
                .args(["-S", &release, "--show-depends", what, "-d"])
                .arg(base)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&out.stdout).replace(&base.display().to_string(), "");
            let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
            lines.sort();
            lines
        };
        for what in [
            "virtio_blk",
            "xfs",
            "btrfs",
            "ntfs3",
            "nvme",
            "vmw_pvscsi",
            "vmxnet3",
            "virtio_scsi",
            "sd-mod",
            "virtio:d00000001v00001AF4",
            "pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc07i00",
            "fs-xfs",
            "virtio_pci",
        ] {
            let (theirs, ours) = (ask(&base, what), ask(&dir.path().join("ours"), what));
            assert!(!theirs.is_empty(), "{what}: depmod knows nothing of it");
            let dep = String::from_utf8_lossy(&indexes["modules.dep"]);
            let line = dep.lines().find(|line| line.contains(&format!("/{what}.ko")));
            assert_eq!(ours, theirs, "{what}: {line:?}");
        }
        let names = ["virtio_blk", "xfs"];
        let closure = modules.closure(names).unwrap();
        assert!(closure.contains(&"xfs".to_owned()));
        assert!(modules.closure(["no_such_module"]).unwrap_err().says().contains("no_such_module"));
    }
}
