//! The root file system of the appliance, as a tree in memory: packages are laid into it, what the appliance does not need is left
//! out, its own files are added, and whether every program finds its libraries is checked.
//!
//! Deliberately absent: the packages' scripts (see [`super::package`]). What of their work is needed is done here or by the files
//! that the program adds: accounts, links that `update-alternatives` would make, the kernel's module indexes.

use super::package::{Placed, What};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file.
    File(Arc<Vec<u8>>),
    /// A symbolic link.
    Link(String),
}

/// A node of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
}

/// A root file system. Paths are absolute and have no slash at the end; `/usr` is merged (`/bin` is a link to `usr/bin`).
#[derive(Clone, Debug, Default)]
pub struct Root {
    nodes: BTreeMap<String, Node>,
}

impl Root {
    /// Lays the files of a package into the tree. A folder that is there already stays as it is; another thing is replaced.
    ///
    /// # Errors
    /// `Corrupt` where another name of a file comes before the file.
    pub fn lay(&mut self, placed: Vec<Placed>, wanted: impl Fn(&str) -> bool) -> Result<()> {
        for Placed { path, mode, owner, what } in placed {
            let path = self.merged(&path);
            if path.is_empty() || !wanted(&path) {
                continue;
            }
            let kind = match what {
                What::Folder => {
                    // A folder of one package may be a link of another (`/lib`).
                    self.nodes.entry(path).or_insert(Node { kind: Kind::Folder, mode, owner });
                    continue;
                }
                What::File(content) => Kind::File(Arc::new(content)),
                What::Link(target) => Kind::Link(target),
                What::Same(other) => {
                    let other = self.merged(&other);
                    match self.nodes.get(&other) {
                        Some(node) => node.kind.clone(),
                        None => {
                            return Err(Error::corrupt(format!(
                                "{path} is another name of {other}, which is not there"
                            )));
                        }
                    }
                }
            };
            self.parents(&path);
            self.nodes.insert(path, Node { kind, mode, owner });
        }
        Ok(())
    }

    /// `/lib/x` as `/usr/lib/x`: some packages still name the old folders.
    fn merged(&self, path: &str) -> String {
        for old in ["/bin/", "/sbin/", "/lib/", "/lib64/"] {
            if path.starts_with(old) {
                return format!("/usr{path}");
            }
        }
        path.to_owned()
    }

    /// Makes the folders on the way to `path`.
    fn parents(&mut self, path: &str) {
        let mut at = path;
        while let Some((parent, _)) = at.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
            let folder = || Node { kind: Kind::Folder, mode: 0o755, owner: (0, 0) };
            self.nodes.entry(parent.to_owned()).or_insert_with(folder);
            at = parent;
        }
    }

    /// Puts a file of root's, replacing what is there.
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.put(path, Node { kind: Kind::File(Arc::new(content.into())), mode, owner: (0, 0) });
    }

    /// Puts a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.put(path, Node { kind: Kind::Link(target.into()), mode: 0o777, owner: (0, 0) });
    }

    /// Puts a folder of root's.
    pub fn folder(&mut self, path: &str, mode: u32) {
        self.put(path, Node { kind: Kind::Folder, mode, owner: (0, 0) });
    }

    /// Puts a node.
    pub fn put(&mut self, path: &str, node: Node) {
        self.parents(path);
        self.nodes.insert(path.to_owned(), node);
    }

    /// Takes out what `gone` names, and folders with all below.
    pub fn remove(&mut self, gone: impl Fn(&str) -> bool) {
        let roots: Vec<String> = self.nodes.keys().filter(|path| gone(path)).cloned().collect();
        for root in roots {
            let below = format!("{root}/");
            self.nodes.remove(&root);
            let inside: Vec<String> = self
                .nodes
                .range(below.clone()..)
                .map(|(path, _)| path.clone())
                .take_while(|path| path.starts_with(&below))
                .collect();
            for path in inside {
                self.nodes.remove(&path);
            }
        }
    }

    /// Every node in the order of the paths, folders before what is in them.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// The content of the file at a path, links followed.
    pub fn read(&self, path: &str) -> Option<&Arc<Vec<u8>>> {
        match &self.nodes.get(&self.real(path)?)?.kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    /// The path without links on its way; `None` where it leads nowhere.
    pub fn real(&self, path: &str) -> Option<String> {
        let mut parts: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut at = String::new();
        let mut links = 0;
        while let Some(part) = parts.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    at.truncate(at.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let next = format!("{at}/{part}");
            if let Some(Node { kind: Kind::Link(target), .. }) = self.nodes.get(&next) {
                links += 1;
                if links > 40 {
                    return None;
                }
                if target.starts_with('/') {
                    at.clear();
                }
                parts.extend(target.split('/').rev().map(str::to_owned));
                continue;
            }
            at = next;
        }
        (at.is_empty() || self.nodes.contains_key(&at)).then_some(at)
    }

    /// A program with all that it needs to run where nothing else is: its loader and its libraries, each at the path where it is
    /// looked for.
    ///
    /// # Errors
    /// `Corrupt` where it, or something that it needs, is not there.
    pub fn program(&self, path: &str) -> Result<BTreeMap<String, Arc<Vec<u8>>>> {
        let not_there = |what: &str| Error::corrupt(format!("the packages hold no {what}"));
        let mut files = BTreeMap::new();
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            let content = self.read(&path).ok_or_else(|| not_there(&path))?.clone();
            open.extend(interpreter(&content).filter(|loader| !files.contains_key(loader)));
            for (name, own) in needed(&content) {
                let says = || not_there(&format!("{name}, which {path} asks for"));
                let library = self.library(&name, &path, &own).ok_or_else(says)?;
                if !files.contains_key(&library) {
                    open.push(library);
                }
            }
            files.insert(path, content);
        }
        Ok(files)
    }

    /// Where the loader finds a library for the program or library at `path`, which looks into its `own` folders as well.
    fn library(&self, name: &str, path: &str, own: &[String]) -> Option<String> {
        const FOLDERS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib"];
        let beside = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let own = own.iter().map(|folder| folder.replace("$ORIGIN", beside));
        let folders = FOLDERS.iter().map(|folder| (*folder).to_owned()).chain(own);
        folders.map(|folder| format!("{folder}/{name}")).find(|at| self.real(at).is_some())
    }

    /// What programs and libraries of the tree ask for and do not find: `library (asked for by path)`, in order. Empty is good.
    pub fn missing_libraries(&self) -> Vec<String> {
        let mut missing = BTreeMap::<String, String>::new();
        let mut known = BTreeSet::new();
        for (path, node) in &self.nodes {
            let Kind::File(content) = &node.kind else { continue };
            for (library, own) in needed(content) {
                if known.contains(&library) {
                    continue;
                }
                if self.library(&library, path, &own).is_some() {
                    known.insert(library);
                } else {
                    missing.entry(library).or_insert_with(|| path.clone());
                }
            }
        }
        missing.into_iter().map(|(library, path)| format!("{library} (asked for by {path})")).collect()
    }

    /// Links that lead nowhere below the given folder, as `path -> target`.
    pub fn dangling(&self, below: &str) -> Vec<String> {
        let links = self.nodes.iter().filter(|(path, _)| path.starts_with(below));
        links
            .filter_map(|(path, node)| match &node.kind {
                Kind::Link(target) if self.real(path).is_none() => Some(format!("{path} -> {target}")),
                _ => None,
            })
            .collect()
    }
}

/// The libraries that an ELF file names, and the folders that it looks into besides the usual ones.
fn needed(content: &[u8]) -> Vec<(String, Vec<String>)> {
    use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH};
    use object::read::elf::{Dyn, FileHeader, ProgramHeader};
    if !content.starts_with(b"\x7fELF") {
        return Vec::new();
    }
    let read = || -> Option<Vec<(String, Vec<String>)>> {
        let header = object::elf::FileHeader64::<object::Endianness>::parse(content).ok()?;
        let endian = header.endian().ok()?;
        let sections = header.sections(endian, content).ok()?;
        let segments = header.program_headers(endian, content).ok()?;
        let dynamic = segments.iter().find_map(|segment| segment.dynamic(endian, content).ok().flatten())?;
        let (mut names, mut folders) = (Vec::new(), Vec::new());
        let strings = sections.dynamic(endian, content).ok().flatten().map(|(_, link)| link)?;
        let strings = sections.strings(endian, content, strings).ok()?;
        for entry in dynamic {
            let tag = entry.tag(endian);
            let text = || {
                let at = u32::try_from(entry.val(endian)).ok()?;
                Some(String::from_utf8_lossy(strings.get(at).ok()?).into_owned())
            };
            match tag {
                DT_NEEDED => names.extend(text()),
                DT_RPATH | DT_RUNPATH => {
                    folders.extend(text()?.split(':').map(str::to_owned));
                }
                _ => {}
            }
        }
        Some(names.into_iter().map(|name| (name, folders.clone())).collect())
    };
    read().unwrap_or_default()
}

/// The loader that an ELF file names.
fn interpreter(content: &[u8]) -> Option<String> {
    use object::read::elf::{FileHeader, ProgramHeader};
    let header = object::elf::FileHeader64::<object::Endianness>::parse(content).ok()?;
    let endian = header.endian().ok()?;
    let mut segments = header.program_headers(endian, content).ok()?.iter();
    let path = segments.find_map(|segment| segment.interpreter(endian, content).ok().flatten())?;
    Some(String::from_utf8_lossy(path).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(path: &str, what: What) -> Placed {
        Placed { path: path.into(), mode: 0o755, owner: (0, 0), what }
    }

    #[test]
    fn packages_are_laid_over_each_other() {
        let mut root = Root::default();
        root.lay(
            vec![
                placed("", What::Folder),
                placed("/bin", What::Link("usr/bin".into())),
                placed("/usr", What::Folder),
                placed("/usr/bin", What::Folder),
                placed("/usr/bin/a", What::File(b"a".to_vec())),
                placed("/usr/bin/b", What::Same("/bin/a".into())),
                placed("/usr/share/doc/x", What::File(b"x".to_vec())),
            ],
            |path| !path.starts_with("/usr/share/doc/"),
        )
        .unwrap();
        // A package that knows nothing of the merged folders.
        root.lay(vec![placed("/bin", What::Folder), placed("/bin/c", What::File(b"c".to_vec()))], |_| true)
            .unwrap();
        assert_eq!(root.read("/bin/b").map(|c| c.to_vec()), Some(b"a".to_vec()));
        assert_eq!(root.real("/bin/c").as_deref(), Some("/usr/bin/c"));
        assert!(root.read("/usr/share/doc/x").is_none());
        let error = root.lay(vec![placed("/x", What::Same("/y".into()))], |_| true).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Corrupt);
        root.link("/usr/lib/gone", "nowhere");
        root.link("/usr/lib/circle", "circle");
        assert_eq!(root.dangling("/usr/lib").len(), 2);
        root.remove(|path| path == "/usr/bin");
        assert!(root.read("/bin/c").is_none() && root.real("/bin").is_none());
    }

    #[test]
    fn a_program_comes_with_all_that_it_needs() {
        let Ok(program) = std::fs::read("/bin/ls") else {
            eprintln!("SKIPPED: a_program_comes_with_all_that_it_needs: no /bin/ls here");
            return;
        };
        let mut root = Root::default();
        root.file("/usr/bin/ls", 0o755, program);
        let error = root.program("/usr/bin/ls").unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Corrupt);
        root.link("/lib64", "usr/lib64");
        root.file("/usr/lib64/ld-linux-x86-64.so.2", 0o755, b"loader".to_vec());
        while let Some(line) = root.missing_libraries().pop() {
            let library = line.split(' ').next().unwrap().to_owned();
            root.file(&format!("/usr/lib/x86_64-linux-gnu/{library}"), 0o644, library.into_bytes());
        }
        let files = root.program("/usr/bin/ls").unwrap();
        assert_eq!(files["/lib64/ld-linux-x86-64.so.2"].as_slice(), b"loader");
        assert_eq!(files["/usr/lib/x86_64-linux-gnu/libc.so.6"].as_slice(), b"libc.so.6");
        assert!(files.len() >= 3 && files.contains_key("/usr/bin/ls"));
    }

    #[test]
    fn a_missing_library_is_named() {
        let Ok(program) = std::fs::read("/bin/ls") else {
            eprintln!("SKIPPED: a_missing_library_is_named: no /bin/ls here");
            return;
        };
        let mut root = Root::default();
        root.file("/usr/bin/ls", 0o755, program);
        let missing = root.missing_libraries();
        assert!(
            missing.iter().any(|line| line.starts_with("libc.so.6 (asked for by /usr/bin/ls)")),
            "{missing:?}"
        );
        for line in missing {
            let library = line.split(' ').next().unwrap().to_owned();
            root.file(&format!("/usr/lib/x86_64-linux-gnu/{library}"), 0o644, b"".to_vec());
        }
        assert_eq!(root.missing_libraries(), Vec::<String>::new());
    }
}
