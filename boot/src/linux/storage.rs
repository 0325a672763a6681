//! Storage layers that remember the old hardware: multipath, LVM, and caches of device names.

use super::draft::Draft;
use super::keep::Builder;
use super::loader;
use super::packages::{Packages, World};
use super::text;
use crate::Result;
use crate::patch::{InitramfsFile, Text};
use crate::target::Request;
use crate::tree::{GuestTree, GuestTreeExt};
use crate::volume::device_name::is_multipath;

/// Plans all of it. `inside` collects the files whose copies in every initramfs have to change, too.
pub fn plan(
    draft: &mut Draft<'_>,
    packages: &Packages,
    request: &Request,
    inside: &mut Vec<InitramfsFile>,
) -> Result<()> {
    multipath(draft, packages, inside)?;
    lvm_filter(draft, request, inside)?;
    devices_file(draft)?;
    for cache in [
        "/etc/blkid.tab",
        "/etc/blkid.tab.old",
        "/etc/blkid/blkid.tab",
        "/etc/blkid/blkid.tab.old",
        "/etc/lvm/cache/.cache",
        "/etc/lvm/.cache",
    ] {
        draft.remove(cache, "A cache of device names that are no longer true; it is made anew.")?;
    }
    Ok(())
}

const MULTIPATH_CONF: &str = "/etc/multipath.conf";
/// Plain virtual disks on every target: none of them has more than one path.
const PLAIN_DISKS: &str = "devnode \"^(sd[a-z]|vd[a-z]|nvme[0-9]|xvd[a-z])\"";

/// Keeps multipathd from claiming the plain disks that fstab names: a claimed disk cannot be checked or mounted. A guest
/// that really uses multipath maps keeps its configuration.
fn multipath(draft: &mut Draft<'_>, packages: &Packages, inside: &mut Vec<InitramfsFile>) -> Result<()> {
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
    let why =
        "multipathd must not claim the plain disks that the guest mounts: the boot stops where it does.";
    // Of Debian's own initramfs only multipath.conf itself gets into one; before 0.6 there was nothing else. The other
    // tools pack it where the root lies on a map.
    let in_initramfs = draft.builder != Builder::InitramfsTools || packages.has("multipath-tools-boot");
    if in_initramfs || !packages.has_at_least("multipath-tools", "0.6") {
        let old = draft.read(MULTIPATH_CONF)?.unwrap_or_default();
        if let Some(new) = with_blacklist(&old) {
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
        let contents = format!(
            "# Written by landfall: virtual disks have one path.\nblacklist {{\n    {PLAIN_DISKS}\n}}\n"
        );
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

/// The file with the rule in its blacklist section, or in one at its end.
fn with_blacklist(old: &[u8]) -> Option<Vec<u8>> {
    let has_rule = text::lines(old).any(|(body, _)| body.trim_ascii() == PLAIN_DISKS.as_bytes());
    if has_rule {
        return None;
    }
    let mut done = false;
    let inserted = text::map_lines(old, |body| {
        let words: Vec<_> = text::words(body).into_iter().filter_map(|range| body.get(range)).collect();
        let opens = matches!(words.as_slice(), [b"blacklist", b"{"] | [b"blacklist{"]);
        if done || !opens {
            return None;
        }
        done = true;
        Some([body, b"\n    ", PLAIN_DISKS.as_bytes()].concat())
    });
    inserted.or_else(|| {
        text::append_lines(
            old,
            &[
                "# Added by landfall: virtual disks have one path.",
                "blacklist {",
                &format!("    {PLAIN_DISKS}"),
                "}",
            ],
        )
    })
}

/// Where maps are named by who uses them, apart from the loaders' own files.
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

/// LVM's list of devices by hardware id (lvmdevices(8)): after a move it fits nothing, and the volume group stays away.
fn devices_file(draft: &mut Draft<'_>) -> Result<()> {
    let folder = "/etc/lvm/devices";
    let tree = draft.scene.tree;
    if !tree.exists(folder)? {
        return Ok(());
    }
    for name in tree.names(folder)?.into_iter().filter(|name| name.ends_with(".devices")) {
        draft.remove(
            &format!("{folder}/{name}"),
            "LVM's list of hardware ids is stale after the move, and would hide every volume group.",
        )?;
    }
    // dracut packs the list of the machine that it ran on. Without one, LVM takes every device that the filter allows.
    draft.gone_inside.insert("etc/lvm/devices/system.devices".into());
    Ok(())
}

/// A filter that accepts only the old names hides every physical volume.
fn lvm_filter(draft: &mut Draft<'_>, request: &Request, inside: &mut Vec<InitramfsFile>) -> Result<()> {
    let crypttab = draft.read_text("/etc/crypttab")?.unwrap_or_default();
    let encrypted: Vec<&str> = crypttab
        .lines()
        .filter_map(|line| text::word(line.as_bytes(), 0))
        .filter(|name| !name.starts_with('#'))
        .collect();
    for path in ["/etc/lvm/lvm.conf", "/etc/lvm/lvmlocal.conf"] {
        let Some(old) = draft.read(path)? else { continue };
        let mut new = old.clone();
        let mut rejected = None;
        // From the end, so that positions before it stay true.
        for (start, end) in filters(&old).into_iter().rev() {
            let list = String::from_utf8_lossy(old.get(start..end).unwrap_or_default()).into_owned();
            match judge(&list, &encrypted, request.platform.linux_drivers().disk_names) {
                Judgement::Fine => {}
                Judgement::Add(rules) => {
                    new = text::replace(&new, start..start, format!(" {rules},").as_bytes())
                }
                Judgement::Rejects => rejected = Some(list),
            }
        }
        let rebuild = draft.builder.rebuild();
        if let Some(list) = rejected {
            draft.find(
                "linux-lvm-filter",
                format!("The LVM filter in {path} rejects the target's disks: [{}].", list.trim()),
                format!("Accept /dev/vd* and /dev/sd* in the guest's filter and {rebuild}."),
            );
        }
        if new != old {
            draft.write(path, new.clone(), "The LVM filter accepts the disks as the target names them.")?;
            let inner = path.trim_start_matches('/').to_owned();
            inside.retain(|file| file.path != inner);
            inside.push(InitramfsFile { path: inner, contents: Text(new), mode: 0o644 });
        }
    }
    Ok(())
}

enum Judgement {
    Fine,
    Add(String),
    Rejects,
}

fn judge(list: &str, encrypted: &[&str], disk_names: &[&str]) -> Judgement {
    let rules: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    // The rule is `a` or `r`, then a pattern between two equal delimiters; the first that fits decides.
    let verdict = |device: &str| {
        rules.iter().find_map(|rule| {
            let pattern = rule.get(2..rule.len().checked_sub(1)?)?;
            fits(pattern, device)?.then(|| rule.starts_with('a'))
        })
    };
    let missing: Vec<&&str> =
        disk_names.iter().filter(|name| verdict(&format!("/dev/{name}a")) == Some(false)).collect();
    if missing.is_empty() || is_for_layers(&rules, encrypted) {
        return Judgement::Fine;
    }
    let closes = rules.iter().any(|rule| {
        rule.starts_with('r')
            && fits(rule.get(2..rule.len().saturating_sub(1)).unwrap_or(""), "/dev/any") == Some(true)
    });
    let by_name = rules.iter().any(|rule| {
        rule.starts_with('a')
            && ["/sd", "/hd", "/vd", "/nvme", "by-id", "by-path", "/xvd", "cciss", "/mapper/mpath"]
                .iter()
                .any(|name| rule.contains(name))
    });
    if !closes || !by_name {
        return Judgement::Rejects;
    }
    let rules: Vec<_> = missing.iter().map(|name| format!("\"a|^/dev/{name}|\"")).collect();
    Judgement::Add(rules.join(", "))
}

/// True where all that is accepted lies above the disks under names that stay: arrays, replicated devices, encrypted volumes.
/// The volume groups on them are found as before. A map of another name may be multipath's.
fn is_for_layers(rules: &[&str], encrypted: &[&str]) -> bool {
    let mut accepted = rules.iter().filter(|rule| rule.starts_with('a')).peekable();
    accepted.peek().is_some()
        && accepted.all(|rule| {
            let pattern = rule.get(2..rule.len().saturating_sub(1)).unwrap_or("");
            let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
            let Some(device) = pattern.strip_prefix("/dev/") else { return false };
            match device.strip_prefix("mapper/") {
                Some(map) => map.starts_with("luks-") || encrypted.iter().any(|name| map.starts_with(name)),
                None => device.starts_with("md") || device.starts_with("drbd"),
            }
        })
}

/// Whether a filter's pattern fits a whole disk or its partition: enough of regular expressions for what stands in real
/// filters. `None` where there is more in it.
fn fits(pattern: &str, device: &str) -> Option<bool> {
    let anchored = pattern.strip_prefix('^');
    let body = anchored.unwrap_or(pattern);
    let (body, to_end) = match body.strip_suffix('$') {
        Some(body) => (body, true),
        None => (body, false),
    };
    let body = body.strip_suffix(".*").or(body.strip_suffix('*')).unwrap_or(body);
    if body.is_empty() {
        return Some(true);
    }
    if body.contains(['(', '[', '|', '+', '?', '\\', '{']) {
        return body.strip_suffix(']').and_then(|body| body.rsplit_once('[')).map(|(stem, _)| {
            // `/dev/sd[a-z]`: the class stands for letters or digits.
            !stem.contains(['(', '[', '|', '+', '?', '\\', '{']) && device.starts_with(stem) && !to_end
        });
    }
    let body = body.replace(".*", "");
    Some(match (anchored.is_some(), to_end) {
        (_, true) => device == body,
        (true, false) => device.starts_with(&body),
        (false, false) => device.contains(&body),
    })
}

/// Where the lists of `filter` and `global_filter` lie: after `[`, up to `]`.
fn filters(file: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    for (body, ending) in text::lines(file) {
        let start = at;
        at += body.len() + ending.len();
        let trimmed = body.trim_ascii_start();
        let key = trimmed.strip_prefix(b"devices/").unwrap_or(trimmed);
        let Some(rest) = key.strip_prefix(b"global_filter").or_else(|| key.strip_prefix(b"filter")) else {
            continue;
        };
        let rest = rest.trim_ascii_start();
        let Some(rest) = rest.strip_prefix(b"=") else { continue };
        if !rest.trim_ascii_start().starts_with(b"[") {
            continue;
        }
        let Some(open) = body.iter().position(|byte| *byte == b'[') else { continue };
        let from = start + open + 1;
        // To the `]` outside of quotes, which may stand on a later line.
        let mut quoted = false;
        let tail = file.get(from..).unwrap_or_default();
        let close = tail.iter().position(|byte| {
            quoted ^= *byte == b'"';
            *byte == b']' && !quoted
        });
        if let Some(close) = close {
            found.push((from, from + close));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Scene;
    use crate::patch::{Action, PatchPlan};
    use crate::target::{Firmware, Platform};
    use crate::tree::mem::MemTree;
    use proptest::prelude::*;

    fn run(tree: &MemTree, packages: &[(&str, &str)]) -> (PatchPlan, Vec<InitramfsFile>) {
        let scene = Scene { tree, volumes: &[], mounts: &[] };
        let mut draft = Draft::new(&scene);
        let status: String = packages
            .iter()
            .map(|(name, version)| {
                format!("Package: {name}\nStatus: install ok installed\nVersion: {version}\n\n")
            })
            .collect();
        let request = Request { platform: Platform::Kvm, firmware: Firmware::Bios, ..Request::default() };
        let mut inside = Vec::new();
        plan(&mut draft, &Packages::parse(status.as_bytes()), &request, &mut inside).unwrap();
        (draft.finish(), inside)
    }

    fn written(plan: &PatchPlan, path: &str) -> Option<String> {
        plan.edits.iter().find(|edit| edit.path == path).map(|edit| match &edit.action {
            Action::Write { contents, .. } => String::from_utf8_lossy(&contents.0).into_owned(),
            other => panic!("{other:?}"),
        })
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
        assert_eq!(with_blacklist(conf.as_bytes()), None, "once is enough");
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
            multipath(&mut draft, &packages, &mut inside).unwrap();
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

    #[test]
    fn stale_lists_and_caches_go() {
        let tree = MemTree::new()
            .file(
                "/etc/lvm/devices/system.devices",
                "IDTYPE=sys_wwid IDNAME=naa.6000c29 DEVNAME=/dev/sda3 PVID=x\n",
            )
            .file("/etc/lvm/lvmlocal.conf", "local {\n}\n")
            .file("/etc/blkid.tab", "x");
        let (mut plan, inside) = run(&tree, &[]);
        plan.edits.retain(|edit| edit.action != Action::Remove);
        assert_eq!(plan.edits, []);
        assert!(inside.is_empty());
        for (tree, gone) in [(&tree, 1), (&MemTree::new(), 0)] {
            let scene = Scene { tree, volumes: &[], mounts: &[] };
            let mut draft = Draft::new(&scene);
            devices_file(&mut draft).unwrap();
            assert_eq!(draft.gone_inside.len(), gone, "the list in each initramfs goes, too");
        }
    }

    #[test]
    fn filters_accept_the_new_names() {
        for (filter, expected) in [
            (
                r#"[ "a|/dev/sda3|", "r|.*|" ]"#,
                Some(r#"[ "a|^/dev/vd|", "a|^/dev/sd|", "a|/dev/sda3|", "r|.*|" ]"#),
            ),
            (r#"[ "a|^/dev/sd|", "r|.*|" ]"#, Some(r#"[ "a|^/dev/vd|", "a|^/dev/sd|", "r|.*|" ]"#)),
            (r#"[ "a|/dev/sd.*|", "r/.*/" ]"#, Some(r#"[ "a|^/dev/vd|", "a|/dev/sd.*|", "r/.*/" ]"#)),
            (
                "[\n  \"a|/dev/disk/by-id/scsi-36.*|\",\n  \"r|.*|\"\n]",
                Some(
                    "[ \"a|^/dev/vd|\", \"a|^/dev/sd|\",\n  \"a|/dev/disk/by-id/scsi-36.*|\",\n  \"r|.*|\"\n]",
                ),
            ),
            // Maps are made where there are paths; LVM leaves out the paths of a map by itself.
            (
                r#"[ "a|/dev/mapper/mpath.*|", "r|.*|" ]"#,
                Some(r#"[ "a|^/dev/vd|", "a|^/dev/sd|", "a|/dev/mapper/mpath.*|", "r|.*|" ]"#),
            ),
            (r#"[ "a|.*|" ]"#, None),
            (r#"[ "r|/dev/cdrom|" ]"#, None),
            (r#"[ "a|/dev/sd[a-z]|", "r|.*|" ]"#, Some(r#"[ "a|^/dev/vd|", "a|/dev/sd[a-z]|", "r|.*|" ]"#)),
        ] {
            let conf = format!("devices {{\n\t# filter = [ \"r|.*|\" ]\n\tfilter = {filter}\n}}\n");
            let (plan, inside) = run(&MemTree::new().file("/etc/lvm/lvm.conf", &conf), &[]);
            let expected = expected
                .map(|filter| format!("devices {{\n\t# filter = [ \"r|.*|\" ]\n\tfilter = {filter}\n}}\n"));
            assert_eq!(written(&plan, "/etc/lvm/lvm.conf"), expected);
            assert_eq!(inside.len(), usize::from(expected.is_some()));
            if let Some(once) = expected {
                let (plan, _) = run(&MemTree::new().file("/etc/lvm/lvm.conf", once), &[]);
                assert_eq!(plan.edits, []);
            }
        }
        let conf = "devices {\n filter = [ \"a|/dev/mapper/sanroot.*|\", \"r|.*|\" ]\n}\n";
        let (plan, _) = run(&MemTree::new().file("/etc/lvm/lvm.conf", conf), &[]);
        assert_eq!(plan.findings[0].id, "linux-lvm-filter");
    }

    /// Volume groups on arrays, in encrypted volumes and on replicated devices are found as before.
    #[test]
    fn filters_for_layers_below_lvm_are_fine() {
        for filter in [
            r#"[ "a|/dev/md.*|", "r|.*|" ]"#,
            r#"[ "a|^/dev/md[0-9]|", "a|^/dev/drbd|", "r|.*|" ]"#,
            r#"[ "a|/dev/mapper/luks-5e1f|", "r|.*|" ]"#,
            r#"[ "a|/dev/mapper/cryptdata|", "r|.*|" ]"#,
        ] {
            let conf = format!("devices {{\n\tfilter = {filter}\n}}\n");
            let tree = MemTree::new()
                .file("/etc/lvm/lvm.conf", conf)
                .file("/etc/crypttab", "# x\ncryptdata UUID=1 none luks\n");
            let (plan, _) = run(&tree, &[]);
            assert!(plan.edits.is_empty() && plan.findings.is_empty(), "{filter} {:?}", plan.findings);
        }
    }

    proptest! {
        #[test]
        fn no_file_panics(file in "(filter = |global_filter=|\\[|\\]|\"a\\|/dev/sd\\||\"r|.\\*|blacklist \\{|[\"\n |,]){0,20}") {
            let tree = MemTree::new().file("/etc/lvm/lvm.conf", &file).file("/etc/multipath.conf", &file);
            run(&tree, &[("multipath-tools", "0.5")]);
        }
    }
}
