//! Kernel parameters that an initramfs carries with it, and scripts that name the root by themselves: device names that
//! change with the hypervisor get the names that stay, as in the boot entries, and those that get none are told.
//!
//! ```text
//! dracut                    /etc/cmdline, /etc/cmdline.d/*.conf        root=/dev/sda2 resume=/dev/sda3
//! SLES 11 (mkinitrd)        /run_all.sh, /config/*.sh                  rootdev="/dev/sda2" resumedev='/dev/sda3'
//! RHEL 5 and before (nash)  /init                                      resume /dev/sda3
//! ```
//! Deliberately absent: nash's script, which is told and not changed: not every nash knows UUIDs, and `root=` of the boot
//! entry wins over its own.

use super::content::Content;
use super::cpio;
use crate::Result;
use crate::linux::text;
use crate::patch::DeviceRename;
use crate::volume::device_name::{Name, classify};

/// dracut's, with what lies behind each: swap, or a file system.
const PARAMETERS: &[(&str, bool)] =
    &[("root", false), ("real_root", false), ("boot", false), ("mount.usr", false), ("resume", true)];

/// SUSE's variables, in the same way.
const VARIABLES: &[(&str, bool)] = &[("rootdev", false), ("resumedev", true)];

/// Names that an image is told to hold; a hostile one could have millions.
const TOLD_AT_MOST: usize = 16;

/// What became of an image.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Renamed {
    /// Some file was changed.
    pub changed: bool,
    /// Names that this move changes, and that got no other.
    pub left: Vec<String>,
}

/// Replaces device names in every such file.
pub(super) fn rename(content: &mut Content<'_>, renames: &[DeviceRename]) -> Result<Renamed> {
    let mut done = Renamed::default();
    let is_list =
        |path: &str| path == "etc/cmdline" || (path.starts_with("etc/cmdline.d/") && path.ends_with(".conf"));
    let is_script =
        |path: &str| path == "run_all.sh" || (path.starts_with("config/") && path.ends_with(".sh"));
    let paths: Vec<String> = content
        .iter()
        .filter_map(|(path, _)| std::str::from_utf8(path).ok())
        .filter(|path| is_list(path) || is_script(path) || *path == "init")
        .map(str::to_owned)
        .collect();
    for path in paths {
        let Some(file) = content.get(path.as_bytes())?.filter(|file| file.is(cpio::REGULAR)) else {
            continue;
        };
        let (mode, old) = (file.mode & 0o7777, file.data.to_vec());
        if path == "init" {
            done.tell(nash(&old));
            continue;
        }
        let (keys, is_list) = if is_list(&path) { (PARAMETERS, true) } else { (VARIABLES, false) };
        let mut left = Vec::new();
        let changed = text::map_lines(&old, |body| {
            if text::is_comment(body) {
                return None;
            }
            let names: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
            text::change_values(body, &names, |key, value| {
                let is_swap = keys.iter().any(|(known, is_swap)| *known == key && *is_swap);
                let found = renames.iter().find(|known| known.old == value && known.is_swap == is_swap);
                // A script gives the name to tools that know paths only.
                let name = found.and_then(|known| match (is_list, known.new.strip_prefix("UUID=")) {
                    (true, _) => Some(known.new.clone()),
                    (false, Some(uuid)) => Some(format!("/dev/disk/by-uuid/{uuid}")),
                    (false, None) => None,
                });
                if name.is_none() && is_fleeting(value) {
                    left.push(format!("{key}={value} in {path}"));
                }
                name
            })
        });
        done.tell(left);
        if let Some(changed) = changed {
            content.put(path.as_bytes(), mode, changed)?;
            done.changed = true;
        }
    }
    Ok(done)
}

/// A script for nash that resumes from, or makes the root of, a disk by its name.
fn nash(script: &[u8]) -> Vec<String> {
    let is_nash = script.starts_with(b"#!")
        && text::lines(script).next().is_some_and(|(line, _)| line.trim_ascii_end().ends_with(b"/nash"));
    let lines = text::lines(script).filter(|_| is_nash);
    let left = lines.filter_map(|(body, _)| {
        let command = text::word(body, 0).filter(|word| ["resume", "mkrootdev"].contains(word))?;
        let words = text::words(body).into_iter().skip(1);
        let mut words = words.filter_map(|range| std::str::from_utf8(body.get(range)?).ok());
        let name = words.rfind(|word| is_fleeting(word))?;
        Some(format!("{command} {name} in init"))
    });
    left.collect()
}

impl Renamed {
    fn tell(&mut self, left: Vec<String>) {
        for says in left {
            if self.left.len() < TOLD_AT_MOST && !self.left.contains(&says) {
                self.left.push(says);
            }
        }
    }
}

fn is_fleeting(spec: &str) -> bool {
    matches!(classify(spec), Name::Disk { .. } | Name::Path { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renames() -> Vec<DeviceRename> {
        [
            ("/dev/sda2", "UUID=r00t", false),
            ("/dev/sda3", "UUID=5wap", true),
            ("/dev/sda4", "PARTUUID=1-04", false),
        ]
        .map(|(old, new, is_swap)| DeviceRename { old: old.into(), new: new.into(), is_swap })
        .into()
    }

    fn run(path: &str, old: &str) -> (String, Renamed) {
        let mut content = Content::new();
        content.put(path.as_bytes(), 0o644, old.into()).unwrap();
        let done = rename(&mut content, &renames()).unwrap();
        let new = content.get(path.as_bytes()).unwrap().unwrap().data.to_vec();
        (String::from_utf8(new).unwrap(), done)
    }

    #[test]
    fn parameters_inside_get_names_that_stay() {
        for (path, old, new) in [
            (
                "etc/cmdline.d/95root-dev.conf",
                " root=/dev/sda2 rootfstype=xfs\n",
                " root=UUID=r00t rootfstype=xfs\n",
            ),
            ("etc/cmdline.d/95resume.conf", " resume=/dev/sda3\n", " resume=UUID=5wap\n"),
            ("etc/cmdline", "root=/dev/sda4 rd.lvm.lv=vg/root", "root=PARTUUID=1-04 rd.lvm.lv=vg/root"),
            (
                "run_all.sh",
                "#!/bin/bash\nrootdev=\"/dev/sda2\"\n",
                "#!/bin/bash\nrootdev=\"/dev/disk/by-uuid/r00t\"\n",
            ),
            ("config/start.sh", "resumedev='/dev/sda3'\n", "resumedev='/dev/disk/by-uuid/5wap'\n"),
        ] {
            assert_eq!(run(path, old), (new.to_owned(), Renamed { changed: true, left: vec![] }), "{path}");
            assert!(!run(path, new).1.changed, "once is enough");
        }
    }

    #[test]
    fn what_is_left_is_told() {
        let nash = "#!/bin/nash\necho /dev/sda3\nresume /dev/sda3\nmkrootdev -t ext3 -o defaults,ro /dev/VolGroup00/LogVol00\n";
        for (path, text, left) in [
            (
                "etc/cmdline.d/x.conf",
                "root=/dev/sdq7 resume=UUID=1\n",
                &["root=/dev/sdq7 in etc/cmdline.d/x.conf"][..],
            ),
            // Swap where a file system is wanted.
            ("etc/cmdline.d/x.conf", "root=/dev/sda3\n", &["root=/dev/sda3 in etc/cmdline.d/x.conf"]),
            ("run_all.sh", "rootdev=\"/dev/sda4\"\n", &["rootdev=/dev/sda4 in run_all.sh"]),
            ("init", nash, &["resume /dev/sda3 in init"]),
            ("init", "#!/bin/sh\nresume /dev/sda3\n", &[]),
            ("etc/cmdline.d/x.txt", "root=/dev/sdq7\n", &[]),
        ] {
            let (new, done) = run(path, text);
            assert_eq!((new.as_str(), done.changed), (text, false), "{path}");
            assert_eq!(done.left, left, "{path}");
        }
    }
}
