//! Device names that change with the hypervisor become UUIDs, wherever the guest's configuration has them outside of
//! the boot loader: fstab, crypttab, the resume device, md arrays, mount units. Only the name itself is replaced.
//!
//! Deliberately absent: `sdX` to `vdX`. The next hypervisor would break that again.

use super::device::{Devices, Meaning, Place, Want};
use super::draft::Draft;
use super::fstab::Fstab;
use super::text;
use crate::Result;
use crate::patch::InitramfsFile;
use crate::tree::GuestTreeExt;
use crate::volume::Content;
use crate::volume::device_name::{Name, classify};

/// Plans all of it. `inside` collects the files whose copies in every initramfs have to change, too.
pub fn plan(draft: &mut Draft<'_>, inside: &mut Vec<InitramfsFile>) -> Result<()> {
    let mut devices = Devices::new(draft.scene.volumes, draft.scene.mounts);
    let table = Fstab::parse(&draft.read("/etc/fstab")?.unwrap_or_default());
    for entry in table.entries().iter().filter(|entry| entry.option("noauto").is_none()) {
        devices.observe(&entry.spec);
    }
    fstab(draft, &devices)?;
    crypttab(draft, &devices)?;
    resume(draft, &devices, inside)?;
    mdadm(draft, inside)?;
    units(draft, &devices)?;
    smartd_and_autofs(draft)?;
    kdump(draft)
}

fn fstab(draft: &mut Draft<'_>, devices: &Devices<'_>) -> Result<()> {
    let path = "/etc/fstab";
    let Some(old) = draft.read(path)? else {
        draft.find(
            "linux-no-fstab",
            "The guest has no readable /etc/fstab, so its mounts could not be checked.",
            "Check by hand that every file system is mounted by UUID or label.",
        );
        return Ok(());
    };
    let mut table = Fstab::parse(&old);
    for (index, entry) in table.entries().to_vec().iter().enumerate() {
        let has = |option: &str| entry.option(option).is_some();
        let removable = entry.kind.split(',').any(|kind| kind == "iso9660" || kind == "udf");
        if has("bind") || has("rbind") || removable {
            continue;
        }
        let spec = &entry.spec;
        if has("_netdev") {
            // Behind the network lies what none of the disks holds; its kernel name depends on how many of them there are.
            if matches!(classify(spec), Name::Disk { .. } | Name::Path { .. }) {
                draft.find(
                    if has("noauto") { "linux-mount-by-hand-lost" } else { "linux-mount-optional-lost" },
                    format!(
                        "/etc/fstab mounts {spec} on {} over the network (_netdev), by a name that this move changes.",
                        entry.at
                    ),
                    "Name it by UUID in /etc/fstab, in the guest or on the target.",
                );
            }
            continue;
        }
        let want = if entry.is_swap() { Want::Swap } else { Want::FileSystem(&entry.kind) };
        let why = match devices.resolve_at(spec, want, Place::At(&entry.at)) {
            Meaning::Keep => {
                if devices.has_tag(spec) == Some(false) && !devices.something_is_hidden() && !has("noauto") {
                    draft.find(
                        "linux-uuid-absent",
                        format!(
                            "/etc/fstab names {spec} for {}, which no volume on the given disks has.",
                            entry.at
                        ),
                        "Check that every disk of the machine was given.",
                    );
                }
                continue;
            }
            Meaning::Volume(volume) => match devices.stable_name(volume) {
                Some(name) => {
                    table.set_spec(index, &name);
                    continue;
                }
                None => format!("volume {} has no UUID of its own", volume.id.0),
            },
            Meaning::Lost(why) => why,
        };
        let id = match (entry.is_swap(), has("noauto"), has("nofail")) {
            (_, true, _) => "linux-mount-by-hand-lost",
            (true, ..) => "linux-swap-lost",
            (_, _, true) => "linux-mount-optional-lost",
            _ => "linux-mount-lost",
        };
        let at = if entry.is_swap() { "swap" } else { &entry.at };
        draft.find(
            id,
            format!("/etc/fstab mounts {spec} on {at} by a name that this move changes, and {why}."),
            "Name it by UUID in the guest's /etc/fstab, or add `nofail` to its options, and convert again.",
        );
    }
    draft.write(path, table.to_bytes(), "Device names change with the hypervisor; UUIDs do not.")
}

fn crypttab(draft: &mut Draft<'_>, devices: &Devices<'_>) -> Result<()> {
    let (mut lost, mut renamed) = (Vec::new(), Vec::new());
    draft.edit(
        "/etc/crypttab",
        "Encrypted volumes by UUID: device names change with the hypervisor.",
        |old| {
            text::map_lines(old, |body| {
                if text::is_comment(body) {
                    return None;
                }
                let range = text::words(body).into_iter().nth(1)?;
                let spec = std::str::from_utf8(body.get(range.clone())?).ok()?;
                let key = text::word(body, 2).unwrap_or("");
                let options = text::word(body, 3).unwrap_or("");
                // A swap that gets a random key at each start has no UUID: only the partition's own will do.
                let random = key.starts_with("/dev/") && key.ends_with("random");
                let plain = random || options.split(',').any(|option| option == "plain" || option == "swap");
                let meaning = match plain {
                    true => devices.resolve_partition(spec),
                    false => devices.resolve(spec, Want::Encrypted),
                };
                let name = match meaning {
                    Meaning::Keep => return None,
                    Meaning::Volume(volume) if plain => devices.part_uuid(volume),
                    Meaning::Volume(volume) => devices.stable_name(volume),
                    Meaning::Lost(_) => None,
                };
                if let Some(name) = &name {
                    renamed.push((spec.to_owned(), name.clone()));
                }
                if name.is_none() {
                    let is_optional =
                        options.split(',').any(|option| option == "noauto" || option == "nofail");
                    lost.push((spec.to_owned(), is_optional));
                }
                Some(text::replace(body, range, name?.as_bytes()))
            })
        },
    )?;
    // Some tools copy the name into their initramfs as it stands.
    draft.renamed_inside = renamed;
    let rebuild = draft.builder.rebuild();
    for (spec, is_optional) in lost {
        draft.find(
            if is_optional { "linux-mount-optional-lost" } else { "linux-crypttab-lost" },
            format!("/etc/crypttab names {spec}, a name that this move changes, and which volume it means is not certain."),
            format!("Name the volume by UUID in the guest's /etc/crypttab, {rebuild} there, and convert again."),
        );
    }
    Ok(())
}

fn resume(draft: &mut Draft<'_>, devices: &Devices<'_>, inside: &mut Vec<InitramfsFile>) -> Result<()> {
    let folder = "/etc/initramfs-tools/conf.d";
    for name in draft.scene.tree.names(folder)? {
        let path = format!("{folder}/{name}");
        let mut lost = None;
        let changed =
            draft.edit(&path, "The resume device by UUID: its name changes with the hypervisor.", |old| {
                text::map_lines(old, |body| {
                    if text::is_comment(body) {
                        return None;
                    }
                    text::change_values(body, &["RESUME"], |_, spec| {
                        match devices.resolve(spec, Want::Swap) {
                            Meaning::Volume(volume) => devices.stable_name(volume),
                            Meaning::Keep => None,
                            Meaning::Lost(_) => {
                                lost = Some(spec.to_owned());
                                Some("none".to_owned())
                            }
                        }
                    })
                })
            })?;
        if let Some(spec) = lost {
            draft.find(
                "linux-resume-lost",
                format!("{path} resumes from {spec}, which names no known swap volume; hibernation was switched off."),
                "Set RESUME= to the swap volume's UUID on the target if hibernation is wanted.",
            );
        }
        if changed && let Some(contents) = draft.read(&path)? {
            inside.push(InitramfsFile {
                path: format!("conf/conf.d/{name}"),
                contents: crate::patch::Text(contents),
                mode: 0o644,
            });
        }
    }
    Ok(())
}

fn mdadm(draft: &mut Draft<'_>, inside: &mut Vec<InitramfsFile>) -> Result<()> {
    const FIRST: &str = "/etc/mdadm/mdadm.conf";
    for path in [FIRST, "/etc/mdadm.conf"] {
        let why = "md arrays are found by UUID on any device: the named devices change with the hypervisor.";
        let changed = draft.edit(path, why, |old| text::map_lines(old, mdadm_line))?;
        // The initramfs gets the second only where the first is absent.
        let changed = changed && (path == FIRST || !draft.scene.tree.exists(FIRST)?);
        if changed && let Some(contents) = draft.read(path)? {
            inside.push(InitramfsFile {
                path: draft.builder.mdadm_conf().into(),
                contents: crate::patch::Text(contents),
                mode: 0o644,
            });
        }
    }
    Ok(())
}

/// `DEVICE /dev/sd*` becomes `DEVICE partitions containers` (mdadm's own default); `devices=` goes from ARRAY lines that
/// have a UUID.
fn mdadm_line(body: &[u8]) -> Option<Vec<u8>> {
    let words = text::words(body);
    let keyword = body.get(words.first()?.clone())?.to_ascii_lowercase();
    // mdadm takes any abbreviation of three letters and more.
    if keyword.len() >= 3 && b"device".starts_with(&keyword) {
        let fleeting = words.iter().skip(1).any(|range| {
            let spec = body.get(range.clone()).and_then(|word| std::str::from_utf8(word).ok()).unwrap_or("");
            matches!(classify(spec.trim_end_matches('*')), Name::Disk { .. } | Name::Path { .. })
                || spec.starts_with("/dev/sd")
                || spec.starts_with("/dev/hd")
        });
        if fleeting {
            let range = words.get(1)?.start..words.last()?.end;
            return Some(text::replace(body, range, b"partitions containers"));
        }
    }
    if keyword.len() >= 3 && b"array".starts_with(&keyword) {
        let lower = body.to_ascii_lowercase();
        let word = |start: &[u8]| {
            words.iter().find(|range| lower.get((*range).clone()).is_some_and(|word| word.starts_with(start)))
        };
        if word(b"uuid=").is_some() {
            let range = word(b"devices=")?;
            return Some(text::replace(body, range.start.saturating_sub(1)..range.end, b""));
        }
    }
    None
}

/// `What=` of mount units. A swap unit's file name has to follow its device, so it is only reported.
fn units(draft: &mut Draft<'_>, devices: &Devices<'_>) -> Result<()> {
    let folder = "/etc/systemd/system";
    for name in draft.scene.tree.names(folder)? {
        let path = format!("{folder}/{name}");
        let is_mount = name.ends_with(".mount");
        if !is_mount && !name.ends_with(".swap") {
            continue;
        }
        let mut lost = None;
        draft.edit(&path, "Mounted by UUID: device names change with the hypervisor.", |old| {
            text::map_lines(old, |body| {
                if text::is_comment(body) {
                    return None;
                }
                text::change_values(body, &["What"], |_, spec| match devices.resolve(spec, Want::Any) {
                    Meaning::Volume(volume) if is_mount => {
                        devices.stable_name(volume).map(|name| match name.split_once('=') {
                            Some((tag, value)) => {
                                format!("/dev/disk/by-{}/{value}", tag.to_ascii_lowercase())
                            }
                            None => name,
                        })
                    }
                    Meaning::Keep => None,
                    _ => {
                        lost = Some(spec.to_owned());
                        None
                    }
                })
            })
        })?;
        if let Some(spec) = lost {
            draft.find(
                "linux-unit-device",
                format!("{path} names {spec}, a name that this move changes."),
                format!("Rewrite {path} for the device by UUID on the target."),
            );
        }
    }
    Ok(())
}

fn smartd_and_autofs(draft: &mut Draft<'_>) -> Result<()> {
    let names_disk = |line: &str| {
        line.split(|char: char| char.is_whitespace() || char == ':' || char == ',')
            .any(|word| matches!(classify(word), Name::Disk { .. } | Name::Path { .. }))
    };
    let lines = |text: String| -> Vec<String> {
        text.lines().filter(|line| !text::is_comment(line.as_bytes())).map(str::to_owned).collect()
    };
    for path in ["/etc/smartd.conf", "/etc/default/smartmontools", "/etc/hddtemp.db", "/etc/default/hddtemp"]
    {
        if lines(draft.read_text(path)?.unwrap_or_default())
            .iter()
            .any(|line| names_disk(&line.replace('"', " ")))
        {
            draft.find(
                "linux-smart-devices",
                format!("{path} names disks that will not exist on the target."),
                "Remove them, or disable the service: virtual disks have no SMART data.",
            );
        }
    }
    for name in draft.scene.tree.names("/etc")? {
        if !name.starts_with("auto.") {
            continue;
        }
        let path = format!("/etc/{name}");
        if lines(draft.read_text(&path)?.unwrap_or_default()).iter().any(|line| names_disk(line)) {
            draft.find(
                "linux-automount-devices",
                format!("{path} mounts a disk by a name that this move changes."),
                format!("Name it by UUID (`:/dev/disk/by-uuid/…`) in {path}."),
            );
        }
    }
    Ok(())
}

/// Where crash dumps go: read when the dump's own initramfs is made, which only the guest's tools do.
fn kdump(draft: &mut Draft<'_>) -> Result<()> {
    for path in ["/etc/kdump.conf", "/etc/default/kdump-tools", "/etc/sysconfig/kdump"] {
        let text = draft.read_text(path)?.unwrap_or_default();
        let mut words = text
            .lines()
            .filter(|line| !text::is_comment(line.as_bytes()))
            .flat_map(|line| line.split(|char: char| char.is_whitespace() || "\"'=,:".contains(char)));
        let is_fleeting = |word: &&str| matches!(classify(word), Name::Disk { .. } | Name::Path { .. });
        if let Some(name) = words.rfind(|word| is_fleeting(word)) {
            draft.find(
                "linux-kdump-device",
                format!("{path} names {name}, a name that this move changes."),
                format!("Name it by UUID in {path} on the target (`ext4 UUID=…`, `raw /dev/disk/by-partuuid/…`), and restart kdump."),
            );
        }
    }
    Ok(())
}

impl<'v> Devices<'v> {
    /// The partition behind a name, whatever is in it (the swap of a random key looks like noise). Only for names
    /// that tell the disk.
    fn resolve_partition(&self, spec: &str) -> Meaning<'v> {
        match self.resolve(spec, Want::Anything) {
            Meaning::Volume(volume)
                if matches!(volume.content, Content::FileSystem { .. } | Content::LvmPhysical { .. }) =>
            {
                Meaning::Lost("it holds data".into())
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::device::tests::{mount, volume};
    use super::*;
    use crate::family::Scene;
    use crate::patch::PatchPlan;
    use crate::testing::written;
    use crate::tree::mem::MemTree;

    fn run(tree: &MemTree) -> (PatchPlan, Vec<InitramfsFile>) {
        let (plan, inside, _) = run_all(tree);
        (plan, inside)
    }

    /// The plan, files for every initramfs, and names to replace in it.
    fn run_all(tree: &MemTree) -> (PatchPlan, Vec<InitramfsFile>, Vec<(String, String)>) {
        let volumes =
            [volume(0, 1, "ext4", "r00t"), volume(0, 5, "swap", "5wap"), volume(1, 1, "luks", "1uk5")];
        let mounts = [mount("/", &volumes[0], "/dev/sda1")];
        let scene = Scene { tree, volumes: &volumes, mounts: &mounts };
        let mut draft = Draft::new(&scene);
        let mut inside = Vec::new();
        plan(&mut draft, &mut inside).unwrap();
        let renamed = draft.renamed_inside.clone();
        (draft.finish(), inside, renamed)
    }

    fn ids(plan: &PatchPlan) -> Vec<&str> {
        plan.findings.iter().map(|finding| finding.id).collect()
    }

    #[test]
    fn fstab_changes_only_names() {
        let fstab = b"# /etc/fstab: \xff\n/dev/sda1\t/  ext4\terrors=remount-ro 0 1\r\n  /dev/sda5 none swap sw 0 0\n\
            proc /proc proc defaults 0 0\n#/dev/sda5 x\nUUID=r00t /again auto ro\n/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\n\
            /dev/mapper/vg0-home /home ext4 defaults 0 2\n/dev/sda1 /twice ext4 bind";
        let (plan, _) = run(&MemTree::new().file("/etc/fstab", fstab));
        let expected = String::from_utf8_lossy(fstab)
            .replace("\n/dev/sda1\t", "\nUUID=r00t\t")
            .replace("  /dev/sda5 none", "  UUID=5wap none");
        assert_eq!(written(&plan, "/etc/fstab").unwrap(), expected);
        assert!(ids(&plan).is_empty(), "{:?}", plan.findings);
    }

    #[test]
    fn what_cannot_be_resolved_is_said() {
        let fstab = "/dev/sda1 / ext4 d 0 1\n/dev/sdc1 /data xfs d 0 2\n/dev/sdc2 /maybe xfs nofail 0 2\n\
            /dev/sdc5 none swap sw\nUUID=gone /g ext4 d\n/dev/sdd1 /usb auto noauto\n";
        let volumes = [volume(0, 1, "ext4", "r00t")];
        let mounts = [mount("/", &volumes[0], "/dev/sda1")];
        let tree = MemTree::new().file("/etc/fstab", fstab);
        let scene = Scene { tree: &tree, volumes: &volumes, mounts: &mounts };
        let mut draft = Draft::new(&scene);
        plan(&mut draft, &mut Vec::new()).unwrap();
        let plan = draft.finish();
        assert!(plan.is_blocked());
        let mut found = ids(&plan);
        found.sort();
        assert_eq!(
            found,
            [
                "linux-mount-by-hand-lost",
                "linux-mount-lost",
                "linux-mount-optional-lost",
                "linux-swap-lost",
                "linux-uuid-absent"
            ]
        );
    }

    /// What comes over the network is on none of the disks, but its name is one of theirs.
    #[test]
    fn network_disks_by_name_are_said() {
        let fstab = "/dev/sda1 / ext4 d 0 1\n/dev/sda5 /lun xfs _netdev 0 0\n/dev/sdq1 /q xfs _netdev,noauto 0 0\n\
            UUID=elsewhere /u xfs _netdev 0 0\nserver:/export /n nfs _netdev 0 0\n/dev/vgsan/lv /l xfs _netdev 0 0\n";
        let (plan, _) = run(&MemTree::new().file("/etc/fstab", fstab));
        assert_eq!(written(&plan, "/etc/fstab").unwrap(), fstab.replacen("/dev/sda1", "UUID=r00t", 1));
        assert_eq!(ids(&plan), ["linux-mount-optional-lost", "linux-mount-by-hand-lost"]);
        assert!(plan.findings[0].says.contains("/dev/sda5 on /lun"), "{:?}", plan.findings);
    }

    #[test]
    fn disks_that_get_crash_dumps_are_said() {
        for (path, text, said) in [
            ("/etc/kdump.conf", "path /var/crash\next4 /dev/sdb1\n", true),
            ("/etc/kdump.conf", "raw /dev/sdb2\n", true),
            ("/etc/kdump.conf", "# ext4 /dev/sdb1\next4 UUID=1\npath /var/crash\n", false),
            ("/etc/default/kdump-tools", "KDUMP_CMDLINE=\"root=/dev/sda1 ro\"\n", true),
            ("/etc/sysconfig/kdump", "KDUMP_COMMANDLINE_REMOVE=\"hugepages\"\n", false),
        ] {
            let (plan, _) = run(&MemTree::new().file("/etc/fstab", "").file(path, text));
            assert_eq!(ids(&plan), if said { &["linux-kdump-device"][..] } else { &[] }, "{path}: {text}");
        }
    }

    /// One name that is not in the order shows that the order counts for none.
    #[test]
    fn a_name_of_another_disk_never_becomes_the_roots_uuid() {
        let volumes =
            [volume(0, 1, "ext4", "r00t"), volume(1, 1, "ext4", "da7a"), volume(2, 1, "ext4", "1095")];
        let mounts = [mount("/", &volumes[0], "UUID=r00t")];
        let fstab = "UUID=r00t / ext4 d 0 1\n/dev/sda1 /data ext4 d 0 2\n/dev/sdb1 /logs ext4 d 0 2\n";
        let tree = MemTree::new().file("/etc/fstab", fstab);
        let scene = Scene { tree: &tree, volumes: &volumes, mounts: &mounts };
        let mut draft = Draft::new(&scene);
        plan(&mut draft, &mut Vec::new()).unwrap();
        let plan = draft.finish();
        assert_eq!(plan.edits, []);
        assert_eq!(ids(&plan), ["linux-mount-lost"; 2]);
    }

    #[test]
    fn resume_changes_inside_the_initramfs_too() {
        let tree = MemTree::new()
            .file("/etc/fstab", "")
            .file("/etc/initramfs-tools/conf.d/resume", "# set by the installer\nRESUME=/dev/sda5\n");
        let (plan, inside) = run(&tree);
        assert_eq!(
            written(&plan, "/etc/initramfs-tools/conf.d/resume").unwrap(),
            "# set by the installer\nRESUME=UUID=5wap\n"
        );
        assert_eq!(inside[0].path, "conf/conf.d/resume");
        let (plan, inside) = run(&MemTree::new()
            .file("/etc/fstab", "")
            .file("/etc/initramfs-tools/conf.d/resume", "RESUME=\"UUID=1\"\n"));
        assert!(plan.edits.is_empty() && inside.is_empty());
    }

    #[test]
    fn crypttab_and_md_and_units() {
        let tree = MemTree::new()
            .file("/etc/fstab", "")
            .file("/etc/crypttab", "data\t/dev/sdb1 none luks\nswap /dev/sda5 /dev/urandom swap,cipher=x\nx /dev/sdz1 none luks")
            .file(
                "/etc/mdadm/mdadm.conf",
                "# DEVICE /dev/sda\nDEVICE /dev/sd[ab]1 /dev/sdc1\nARRAY /dev/md0 UUID=1:2 devices=/dev/sda1,/dev/sdb1 name=x\nHOMEHOST <system>\n",
            )
            .file("/etc/mdadm.conf", "DEVICE /dev/sda1\n")
            .file("/etc/systemd/system/data.mount", "[Mount]\nWhat=/dev/sda1\nWhere=/data\n")
            .file("/etc/systemd/system/dev-sda5.swap", "[Swap]\nWhat=/dev/sda5\n")
            .file("/etc/smartd.conf", "#/dev/sda\n/dev/sda -a\n")
            .file("/etc/auto.misc", "x -fstype=ext4 :/dev/sda1\n");
        let (plan, inside, renamed) = run_all(&tree);
        let pair = |old: &str, new: &str| (old.to_owned(), new.to_owned());
        assert_eq!(renamed, [pair("/dev/sdb1", "UUID=1uk5"), pair("/dev/sda5", "PARTUUID=10000000-05")]);
        assert_eq!(
            written(&plan, "/etc/crypttab").unwrap(),
            "data\tUUID=1uk5 none luks\nswap PARTUUID=10000000-05 /dev/urandom swap,cipher=x\nx /dev/sdz1 none luks"
        );
        assert_eq!(
            written(&plan, "/etc/mdadm/mdadm.conf").unwrap(),
            "# DEVICE /dev/sda\nDEVICE partitions containers\nARRAY /dev/md0 UUID=1:2 name=x\nHOMEHOST <system>\n"
        );
        assert_eq!(inside.len(), 1);
        assert_eq!(inside[0].path, "etc/mdadm/mdadm.conf");
        assert!(inside[0].contents.0.starts_with(b"# DEVICE /dev/sda\n"));
        assert_eq!(
            written(&plan, "/etc/systemd/system/data.mount").unwrap(),
            "[Mount]\nWhat=/dev/disk/by-uuid/r00t\nWhere=/data\n"
        );
        let mut found = ids(&plan);
        found.sort();
        assert_eq!(
            found,
            ["linux-automount-devices", "linux-crypttab-lost", "linux-smart-devices", "linux-unit-device"]
        );
    }
}
