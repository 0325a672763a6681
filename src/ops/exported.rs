//! A machine that Hyper-V exported: a folder with its configuration in one folder and its disks in another.
//!
//! ```text
//! web01/Virtual Machines/GUID.vmcx   (.xml up to 2012 R2, .exp up to 2008 R2: not read)
//! web01/Virtual Hard Disks/web01.vhdx
//! web01/Snapshots/GUID.vmcx
//! ```

use landfall_image::{Error, Gate, Result};
use std::path::{Path, PathBuf};

const CONFIGURATIONS: &str = "Virtual Machines";
const DISKS: &str = "Virtual Hard Disks";

/// The definition that `path` means: itself, or the one configuration below an exported folder.
///
/// # Errors
/// Refused where there are several, with their names; unsupported where there is none.
pub fn definition(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let below = path.join(CONFIGURATIONS);
    let folder = if below.is_dir() { below } else { path.to_owned() };
    let entries = std::fs::read_dir(&folder).map_err(|e| Error::io("cannot read", e).in_file(&folder))?;
    let mut found = Vec::new();
    for entry in entries {
        let file = entry.map_err(|e| Error::io("cannot read", e).in_file(&folder))?.path();
        let ending =
            file.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        if matches!(ending.as_str(), "vmcx" | "xml") && file.is_file() {
            found.push(file);
        }
    }
    found.sort();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Error::unsupported("is a folder in which no Hyper-V configuration lies")
            .in_file(path)
            .hint("name the machine's definition itself, or the folder that Export-VM wrote (with the folder Virtual Machines in it)")),
        several => {
            let names: Vec<String> = several.iter().map(|file| format!("'{}'", file.display())).collect();
            Err(Error::refused(format!("is a folder with {} machines", several.len()))
                .in_file(path)
                .hint(format!("name one of them: {}", names.join(", "))))
        }
    }
}

/// The disk with that file name, in the folder of disks beside the folder of a configuration. `None` where there is none.
pub fn disk(definition: &Path, name: &str) -> Option<PathBuf> {
    let real = definition.canonicalize().ok()?;
    let machine = real.parent()?.parent()?;
    // The name is one component; the folder is the only one that it may lead to.
    [machine.join(DISKS), machine.parent()?.join(DISKS)]
        .iter()
        .find_map(|folder| Gate::own_folder().resolve(&folder.join("configuration"), name).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::Kind;
    use std::fs;

    #[test]
    fn an_exported_folder_is_a_source() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("web01");
        let machines = root.join(CONFIGURATIONS);
        fs::create_dir_all(&machines).unwrap();
        fs::create_dir_all(root.join(DISKS)).unwrap();
        assert_eq!(definition(&root).unwrap_err().kind(), Kind::Unsupported);
        fs::write(machines.join("A.vmcx"), "").unwrap();
        fs::write(machines.join("A.vmgs"), "").unwrap();
        let file = definition(&root).unwrap();
        assert_eq!(file, machines.join("A.vmcx"));
        assert_eq!(definition(&file).unwrap(), file);
        fs::write(root.join(DISKS).join("x.vhdx"), "").unwrap();
        fs::write(root.join("secret"), "").unwrap();
        std::os::unix::fs::symlink("../secret", root.join(DISKS).join("link")).unwrap();
        assert_eq!(disk(&file, "x.vhdx"), Some(root.join(DISKS).join("x.vhdx")));
        for other in ["../secret", "link", "y.vhdx", "", "/etc/hostname"] {
            assert_eq!(disk(&file, other), None, "{other}");
        }
        fs::write(machines.join("B.xml"), "").unwrap();
        let error = definition(&root).unwrap_err();
        assert!(error.kind() == Kind::Refused && error.hint_text().unwrap().contains("B.xml"), "{error}");
    }
}
