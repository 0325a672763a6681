//! Multipath: the daemon must not claim the plain disks that the guest mounts, and must go on with disks that have several
//! paths inside of the guest (iSCSI initiators, passed-through adapters).
//!
//! multipath.conf(5): a path is judged by property, device node, vendor with product, protocol and WWID, in this order, each
//! by itself; the first that is blacklisted decides. An exception counts for its own criterion only, so a LUN that an
//! exception names by WWID is lost where its node is blacklisted. That is why, beside real multipath, virtual disks are told
//! by their vendor.
//!
//! Deliberately absent: maps that the guest starts from or mounts by name. They stay as they are, and are reported.

use super::draft::Draft;
use super::keep::Builder;
use super::loader;
use super::packages::{Packages, World};
use super::text;
use crate::Result;
use crate::patch::{InitramfsFile, Text};
use crate::tree::{GuestTree, GuestTreeExt};
use crate::volume::device_name::is_multipath;

const MULTIPATH_CONF: &str = "/etc/multipath.conf";
/// Plain virtual disks on every target: none of them has more than one path.
const PLAIN_DISKS: &str = "devnode \"^(sd[a-z]|vd[a-z]|nvme[0-9]|xvd[a-z])\"";

/// The same disks by who says to have made them, for guests that have others on several paths. The program's older versions
/// want a product beside every vendor, and one word on a line.
const VIRTUAL_DISKS: &[&str] = &[
    "devnode \"^(vd[a-z]|xvd[a-z])\"",
    "device {",
    "    vendor \"^(VMware|QEMU|Msft|NUTANIX|ATA)\"",
    "    product \".*\"",
    "}",
    "device {",
    "    vendor \"^NVME\"",
    "    product \"^(VMware|QEMU|MSFT|Microsoft)\"",
    "}",
];

/// Keeps multipathd from claiming the plain disks that fstab names: a claimed disk cannot be checked or mounted. A guest
/// that really uses multipath maps keeps its configuration.
pub(super) fn plan(
    draft: &mut Draft<'_>,
    packages: &Packages,
    inside: &mut Vec<InitramfsFile>,
) -> Result<()> {
    let tree = draft.scene.tree;
    let mut is_installed = packages.has("multipath-tools");
    for program in ["/sbin/multipathd", "/usr/sbin/multipathd", "/usr/bin/multipathd"] {
        is_installed |= tree.exists(program)?;
    }
    if !is_installed
        || tree.read_link("/etc/systemd/system/multipathd.service")?.as_deref() == Some("/dev/null")
        || (packages.world() != World::Dpkg && !multipathd_starts(tree)?)
    {
        return Ok(());
    }
    let uses: Vec<String> = maps_in_use(draft)?;
    if let Some(first) = uses.first() {
        draft.find(
            "linux-multipath-in-use",
            format!("The guest uses the multipath map {first}, so multipath was left as it is."),
            "Disable multipathd on the target if its disks have one path only, and check names of maps in LVM filters.",
        );
        return Ok(());
    }
    let rules = match real_paths(draft)? {
        None => &[PLAIN_DISKS][..],
        Some(proof) => {
            draft.find(
                "linux-multipath-in-use",
                format!(
                    "The guest has disks with several paths ({proof}), so multipathd was kept from virtual disks only."
                ),
                "Check on the target with `multipath -ll` that these disks have all their paths, and that no virtual disk is among the maps.",
            );
            VIRTUAL_DISKS
        }
    };
    let why =
        "multipathd must not claim the plain disks that the guest mounts: the boot stops where it does.";
    // Of Debian's own initramfs only multipath.conf itself gets into one; before 0.6 there was nothing else. The other
    // tools pack it where the root lies on a map.
    let in_initramfs = draft.builder != Builder::InitramfsTools || packages.has("multipath-tools-boot");
    if in_initramfs || !packages.has_at_least("multipath-tools", "0.6") {
        let old = draft.read(MULTIPATH_CONF)?.unwrap_or_default();
        if let Some(new) = with_blacklist(&old, rules) {
            draft.write(MULTIPATH_CONF, new, why)?;
        }
        if in_initramfs && let Some(contents) = draft.read(MULTIPATH_CONF)? {
            inside.push(InitramfsFile {
                path: "etc/multipath.conf".into(),
                contents: Text(contents),
                mode: 0o644,
            });
        }
    } else {
        let rules: String = rules.iter().map(|rule| format!("    {rule}\n")).collect();
        let contents =
            format!("# Written by landfall: virtual disks have one path.\nblacklist {{\n{rules}}}\n");
        draft.write("/etc/multipath/conf.d/landfall.conf", contents, why)?;
    }
    Ok(())
}

/// Whether multipathd starts where a package alone does not make it start. Red Hat's asks for its configuration: to write
/// one would switch it on. SUSE's and Arch's is enabled as any service is.
fn multipathd_starts(tree: &dyn GuestTree) -> Result<bool> {
    if tree.exists(MULTIPATH_CONF)? {
        return Ok(true);
    }
    let mut unit = String::new();
    for folder in ["/usr/lib/systemd/system", "/lib/systemd/system"] {
        unit = tree.read_text(&format!("{folder}/multipathd.service"))?.unwrap_or(unit);
    }
    if unit.is_empty() || unit.contains("ConditionPathExists=/etc/multipath.conf") {
        return Ok(false);
    }
    for target in ["sysinit.target.wants", "multi-user.target.wants", "sockets.target.wants"] {
        for name in ["multipathd.service", "multipathd.socket"] {
            if tree.link_metadata(&format!("/etc/systemd/system/{target}/{name}"))?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The file with the rules in its blacklist section, or in one at its end. What an earlier pass put there gives way.
fn with_blacklist(old: &[u8], rules: &[&str]) -> Option<Vec<u8>> {
    let wanted = rules.first().copied().unwrap_or_default();
    let is = |body: &[u8], rule: &str| body.trim_ascii() == rule.as_bytes();
    let has = |rule: &str| text::lines(old).any(|(body, _)| is(body, rule));
    if has(wanted) {
        return None;
    }
    let lines = rules.join("\n    ");
    // It closed all disks out, those with several paths, too.
    if has(PLAIN_DISKS) {
        return text::map_lines(old, |body| {
            is(body, PLAIN_DISKS).then(|| format!("    {lines}").into_bytes())
        });
    }
    let mut done = false;
    let inserted = text::map_lines(old, |body| {
        let words: Vec<_> = text::words(body).into_iter().filter_map(|range| body.get(range)).collect();
        let opens = matches!(words.as_slice(), [b"blacklist", b"{"] | [b"blacklist{"]);
        if done || !opens {
            return None;
        }
        done = true;
        Some([body, b"\n    ", lines.as_bytes()].concat())
    });
    inserted.or_else(|| {
        text::append_lines(
            old,
            &[
                "# Added by landfall: virtual disks have one path.",
                "blacklist {",
                &format!("    {lines}"),
                "}",
            ],
        )
    })
}

/// Where an iSCSI initiator keeps the targets that it logs in to.
const ISCSI_TARGETS: &[&str] = &["/etc/iscsi/nodes", "/var/lib/iscsi/nodes"];

/// WWIDs of disks that a hypervisor makes: VMware's and Microsoft's, and QEMU's, which are made of its names. A guest that
/// takes every disk into a map (Ubuntu Server) lists them, too.
const WWIDS_OF_VIRTUAL_DISKS: &[&str] =
    &["36000c29", "360022480", "0QEMU", "SQEMU", "1ATA", "SATA", "SVMware", "NVME_VMware"];

/// Sections of multipath.conf that somebody wrote for certain disks.
const SECTIONS_FOR_DISKS: &[&str] = &["multipaths", "blacklist_exceptions"];

/// What shows that the guest itself reaches disks on several paths, which no volume on its own disks tells.
fn real_paths(draft: &mut Draft<'_>) -> Result<Option<String>> {
    for folder in ISCSI_TARGETS {
        if !draft.scene.tree.names(folder)?.is_empty() {
            return Ok(Some((*folder).to_owned()));
        }
    }
    // `/360a98000…/`, one per line.
    let wwids = "/etc/multipath/wwids";
    let known = draft.read_text(wwids)?.unwrap_or_default();
    let known = known.lines().map(str::trim).filter(|line| !text::is_comment(line.as_bytes()));
    for wwid in known.map(|line| line.trim_matches('/')).filter(|wwid| !wwid.is_empty()) {
        if !WWIDS_OF_VIRTUAL_DISKS.iter().any(|start| wwid.starts_with(start)) {
            return Ok(Some(format!("{wwid} in {wwids}")));
        }
    }
    let config = draft.read_text(MULTIPATH_CONF)?.unwrap_or_default();
    let mut words = config
        .lines()
        .map(|line| line.split(['#', '!']).next().unwrap_or("").replace('{', " { ").replace('}', " } "))
        .flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    while let Some(word) = words.next() {
        let is_for_disks = SECTIONS_FOR_DISKS.contains(&word.as_str());
        if is_for_disks
            && words.next().as_deref() == Some("{")
            && words.next().is_some_and(|word| word != "}")
        {
            return Ok(Some(format!("{word} in {MULTIPATH_CONF}")));
        }
    }
    Ok(None)
}

/// Where maps are named by who uses them.
const USERS_OF_MAPS: &[&str] =
    &["/etc/fstab", "/etc/crypttab", "/etc/lvm/lvm.conf", "/etc/default/grub", "/etc/kernel/cmdline"];

/// Multipath maps that mounts, swap or the boot loader name: by the default schemes, or by an alias.
fn maps_in_use(draft: &mut Draft<'_>) -> Result<Vec<String>> {
    let mut aliases = Vec::new();
    for line in draft.read_text(MULTIPATH_CONF)?.unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("alias") {
            aliases.extend(words.next().map(|alias| alias.trim_matches('"').to_owned()));
        }
    }
    let mut maps = Vec::new();
    let mut paths: Vec<String> = USERS_OF_MAPS.iter().map(|path| (*path).to_owned()).collect();
    let files = loader::files(draft)?;
    paths.extend([files.configs, files.entries, files.environments].concat());
    for path in &paths {
        let text = draft.read_text(path)?.unwrap_or_default();
        for line in text.lines().filter(|line| !text::is_comment(line.as_bytes())) {
            for (at, _) in line.match_indices("/dev/mapper/") {
                let name = line.get(at + "/dev/mapper/".len()..).unwrap_or("");
                let end = name
                    .find(|char: char| char.is_whitespace() || "\"'|,]".contains(char))
                    .unwrap_or(name.len());
                let name = name.get(..end).unwrap_or("");
                let is_alias = aliases.iter().any(|alias| {
                    name.strip_prefix(alias.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', 'p', '_']))
                });
                // A filter's pattern stands for all maps.
                let is_pattern = path.ends_with("lvm.conf") && name.starts_with("mpath");
                if is_multipath(name) || is_alias || is_pattern {
                    maps.push(format!("{name} ({path})"));
                }
            }
        }
    }
    Ok(maps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Scene;
    use crate::patch::PatchPlan;
    use crate::testing::{dpkg_status, written};
    use crate::tree::mem::MemTree;
    use proptest::prelude::*;

    fn run(tree: &MemTree, packages: &[(&str, &str)]) -> (PatchPlan, Vec<InitramfsFile>) {
        let scene = Scene { tree, volumes: &[], mounts: &[] };
        let mut draft = Draft::new(&scene);
        let status = dpkg_status(packages);
        let mut inside = Vec::new();
        plan(&mut draft, &Packages::parse(status.as_bytes()), &mut inside).unwrap();
        (draft.finish(), inside)
    }

    #[test]
    fn multipath_is_kept_off_plain_disks() {
        let tree = MemTree::new().file("/etc/fstab", "UUID=1 / ext4\n");
        let (plan, inside) = run(&tree, &[("multipath-tools", "0.9.4-3+deb12u1")]);
        assert!(written(&plan, "/etc/multipath/conf.d/landfall.conf").unwrap().contains("blacklist {"));
        assert!(inside.is_empty());
        // With the initramfs's part, or an old version: the one file that both read.
        let tree = tree
            .file("/etc/multipath.conf", "defaults {\n    user_friendly_names yes\n}\nblacklist {\r\n}\r\n");
        let (plan, inside) = run(&tree, &[("multipath-tools", "0.9"), ("multipath-tools-boot", "0.9")]);
        let conf = written(&plan, "/etc/multipath.conf").unwrap();
        assert!(conf.contains(&format!("blacklist {{\n    {PLAIN_DISKS}\r\n}}")), "{conf:?}");
        assert_eq!(inside[0].path, "etc/multipath.conf");
        assert_eq!(with_blacklist(conf.as_bytes(), &[PLAIN_DISKS]), None, "once is enough");
        let (plan, inside) = run(&MemTree::new(), &[("multipath-tools", "0.5.0-6")]);
        assert!(written(&plan, "/etc/multipath.conf").is_some() && inside.is_empty());
        assert!(run(&MemTree::new(), &[]).0.edits.is_empty());
    }

    /// Red Hat's daemon starts only where it has a configuration; SUSE's, where it is enabled.
    #[test]
    fn multipath_of_rpm_distributions() {
        let run = |tree: &MemTree| {
            let scene = Scene { tree, volumes: &[], mounts: &[] };
            let mut draft = Draft::new(&scene);
            draft.builder = Builder::Dracut;
            let packages = Packages::read(World::Rpm, tree).unwrap();
            let mut inside = Vec::new();
            plan(&mut draft, &packages, &mut inside).unwrap();
            (draft.finish(), inside)
        };
        let unit = "/usr/lib/systemd/system/multipathd.service";
        let enabled = "/etc/systemd/system/sysinit.target.wants/multipathd.service";
        let redhat = MemTree::new()
            .file("/usr/sbin/multipathd", "")
            .file(unit, "[Unit]\nConditionPathExists=/etc/multipath.conf\n")
            .symlink(enabled, unit);
        assert_eq!(run(&redhat).0.edits, []);
        let conf = "# device-mapper-multipath configuration file\ndefaults {\n\tuser_friendly_names yes\n\tfind_multipaths yes\n}\n\nblacklist {\n}\n";
        let (plan, inside) = run(&redhat.clone().file("/etc/multipath.conf", conf));
        let new = written(&plan, "/etc/multipath.conf").unwrap();
        assert!(new.contains(&format!("blacklist {{\n    {PLAIN_DISKS}\n}}")), "{new}");
        assert_eq!((inside.len(), inside[0].path.as_str()), (1, "etc/multipath.conf"));
        // LVM on maps: the root is named by its group, the map by the filter alone.
        let lvm = redhat.clone().file("/etc/multipath.conf", conf).file(
            "/etc/lvm/lvm.conf",
            "devices {\n\tfilter = [ \"a|/dev/mapper/mpath.*|\", \"r|.*|\" ]\n}\n",
        );
        assert_eq!(run(&lvm).0.findings[0].id, "linux-multipath-in-use");
        let entry = redhat
            .file("/etc/multipath.conf", conf)
            .file("/boot/loader/entries/x-5.14.conf", "options root=/dev/mapper/mpatha3 ro\n");
        assert_eq!(run(&entry).0.findings[0].id, "linux-multipath-in-use");
        let suse = MemTree::new().file("/usr/sbin/multipathd", "").file(unit, "[Unit]\n");
        assert_eq!(run(&suse).0.edits, []);
        let (plan, inside) = run(&suse.symlink(enabled, unit));
        assert!(written(&plan, "/etc/multipath.conf").is_some() && inside.len() == 1);
    }

    #[test]
    fn real_multipath_stays() {
        for (file, line) in [
            ("/etc/fstab", "/dev/mapper/mpatha-part1 / ext4\n"),
            ("/etc/fstab", "/dev/mapper/sanroot-part1 / ext4\n"),
            ("/boot/grub/grub.cfg", "linux /vmlinuz root=/dev/mapper/mpathb2 ro\n"),
        ] {
            let tree = MemTree::new()
                .file(
                    "/etc/multipath.conf",
                    "multipaths {\n multipath {\n  wwid 36\n  alias sanroot\n }\n}\n",
                )
                .file(file, line);
            let (plan, _) = run(&tree, &[("multipath-tools", "0.9")]);
            assert!(plan.edits.is_empty(), "{line}");
            assert_eq!(plan.findings[0].id, "linux-multipath-in-use", "{line}");
        }
        let tree = MemTree::new().file("/etc/fstab", "/dev/mapper/vg0-root / ext4\n");
        assert!(run(&tree, &[("multipath-tools", "0.9")]).0.findings.is_empty());
    }

    /// LVM on LUNs: nothing that mounts them names a map.
    #[test]
    fn disks_with_several_paths_inside_of_the_guest_stay() {
        let vendors = VIRTUAL_DISKS.iter().map(|rule| format!("    {rule}\n")).collect::<String>();
        let fstab = "UUID=1 / ext4\n/dev/vgdata/lv /data xfs _netdev\n";
        let conf_d = "/etc/multipath/conf.d/landfall.conf";
        for (file, contents) in [
            ("/var/lib/iscsi/nodes/iqn.1992-08.com.netapp:sn.1/10.0.0.1,3260,1/default", "x"),
            ("/etc/iscsi/nodes/iqn.1992-08.com.netapp:sn.1/10.0.0.1,3260,1", "x"),
            ("/etc/multipath/wwids", "# Valid WWIDs:\n/36000c29a1b/\n/360a98000572d4273685a664462667a4d/\n"),
            ("/etc/multipath.conf", "multipaths {\n multipath {\n  wwid 360a98\n  alias data\n }\n}\n"),
            ("/etc/multipath.conf", "blacklist {\n}\nblacklist_exceptions{\n  wwid \"360a98.*\"\n}\n"),
        ] {
            let tree = MemTree::new().file("/etc/fstab", fstab).file(file, contents);
            let (plan, _) = run(&tree, &[("multipath-tools", "0.9")]);
            let new = written(&plan, conf_d).unwrap();
            assert!(new.contains(&vendors) && !new.contains(PLAIN_DISKS), "{file}: {new}");
            assert_eq!(plan.findings.len(), 1, "{file}");
            assert_eq!(plan.findings[0].id, "linux-multipath-in-use", "{file}");
        }
        // Virtual disks alone, and sections with nothing in them.
        let tree = MemTree::new()
            .file(
                "/etc/multipath/wwids",
                "# Valid WWIDs:\n/36000c29a1b/\n/360022480aa/\n/0QEMU_QEMU_HARDDISK_x/\n",
            )
            .file("/etc/multipath.conf", "multipaths {\n# wwid 1\n}\nblacklist_exceptions { }\n");
        let (plan, _) = run(&tree, &[("multipath-tools", "0.9")]);
        assert!(written(&plan, conf_d).unwrap().contains(PLAIN_DISKS) && plan.findings.is_empty());
    }

    #[test]
    fn rules_of_an_earlier_pass_give_way() {
        let once = with_blacklist(b"blacklist {\n}\n", &[PLAIN_DISKS]).unwrap();
        let twice = with_blacklist(&once, VIRTUAL_DISKS).unwrap();
        let lines: String = VIRTUAL_DISKS.iter().map(|rule| format!("    {rule}\n")).collect();
        assert_eq!(String::from_utf8(twice.clone()).unwrap(), format!("blacklist {{\n{lines}}}\n"));
        assert_eq!(with_blacklist(&twice, VIRTUAL_DISKS), None, "once is enough");
    }

    proptest! {
        #[test]
        fn no_file_panics(file in "(multipaths|blacklist|blacklist_exceptions|wwid|alias|[{}#!\"\n ]){0,20}") {
            let tree = MemTree::new().file("/etc/multipath.conf", &file).file("/etc/multipath/wwids", &file);
            run(&tree, &[("multipath-tools", "0.5")]);
        }
    }
}
