//! Storage layers that remember the old hardware: LVM, caches of device names, and multipath in a module of its own.

use super::draft::Draft;
use super::packages::Packages;
use super::{multipath, text};
use crate::Result;
use crate::patch::{InitramfsFile, Text};
use crate::target::Request;
use crate::tree::GuestTreeExt;

/// Plans all of it. `inside` collects the files whose copies in every initramfs have to change, too.
pub fn plan(
    draft: &mut Draft<'_>,
    packages: &Packages,
    request: &Request,
    inside: &mut Vec<InitramfsFile>,
) -> Result<()> {
    multipath::plan(draft, packages, inside)?;
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
    use crate::testing::{dpkg_status, written};
    use crate::tree::mem::MemTree;
    use proptest::prelude::*;

    fn run(tree: &MemTree, packages: &[(&str, &str)]) -> (PatchPlan, Vec<InitramfsFile>) {
        let scene = Scene { tree, volumes: &[], mounts: &[] };
        let mut draft = Draft::new(&scene);
        let status = dpkg_status(packages);
        let request = Request { platform: Platform::Kvm, firmware: Firmware::Bios, ..Request::default() };
        let mut inside = Vec::new();
        plan(&mut draft, &Packages::parse(status.as_bytes()), &request, &mut inside).unwrap();
        (draft.finish(), inside)
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
