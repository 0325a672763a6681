//! Lists of modules in scripts: initramfs kinds whose drivers are loaded by name, and only those.
//!
//! ```text
//! RHEL 5 and before (nash)      /init              insmod /lib/virtio_blk.ko     one line each, needs first
//! SLES 11 (mkinitrd)            /run_all.sh, /config/start.sh                    RESOLVED_INITRD_MODULES='a b'
//! Arch (mkinitcpio, busybox)    /config                                          MODULES="a b"
//! ```
//!
//! Everything here is text in, text out; the scripts are never run.

use crate::linux::kmod;

/// A module for a script: its name and what stands in the script for it (`/lib/virtio_blk.ko`).
pub struct Line {
    /// With `_`.
    pub name: String,
    /// Argument of `insmod`, or of `modprobe`.
    pub argument: String,
}

/// How a nash script loads modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NashStyle {
    /// `insmod` with a path: nothing knows dependencies.
    Insmod,
    /// `modprobe` with a name (Fedora up to 11).
    Modprobe,
}

/// How this script loads modules. A script without any such line is one of the older kind.
pub fn nash_style(script: &str) -> NashStyle {
    let mut lines = script.lines().map(str::trim_start);
    match lines.any(|line| line.starts_with("modprobe ")) && !script.lines().any(|l| l.starts_with("insmod "))
    {
        true => NashStyle::Modprobe,
        false => NashStyle::Insmod,
    }
}

/// The names of the modules that a nash script loads.
pub fn nash_loads(script: &str) -> Vec<String> {
    script.lines().filter_map(loaded).collect()
}

fn loaded(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let command = words.next().filter(|word| *word == "insmod" || *word == "modprobe")?;
    let module = words.find(|word| !word.starts_with('-'))?;
    match command {
        "insmod" => kmod::name_of_file(module),
        _ => Some(kmod::normal(module)),
    }
}

/// A nash script that loads `modules`, too: behind all that it loads, and before it looks for disks. `None` where the
/// script has no place that is known to be right.
pub fn nash(script: &str, style: NashStyle, modules: &[Line]) -> Option<String> {
    let known = nash_loads(script);
    let lines: Vec<&str> = script.split_inclusive('\n').collect();
    let command = |line: &str| line.split_whitespace().next().map(str::to_owned).unwrap_or_default();
    // Where disks have to be there: the root's node is made, volumes are looked for, a suspended system is resumed.
    let needs_disks = |line: &str| {
        ["mkrootdev", "lvm", "dm", "mdadm", "raidautorun", "rmparts", "resume", "cryptsetup", "kpartx"]
            .contains(&command(line).as_str())
            || line.trim() == "mount /sysroot"
    };
    let root = lines.iter().position(|line| needs_disks(line))?;
    let before = lines.get(..root)?;
    let last_load = before.iter().rposition(|line| loaded(line).is_some());
    let at = match last_load {
        Some(last) => last + 1,
        None => before.iter().rposition(|line| command(line) == "mkblkdevs")?,
    };
    let mut new: String = before.get(..at)?.concat();
    let mut count = 0;
    for module in modules.iter().filter(|module| !known.contains(&module.name)) {
        count += 1;
        let verb = match style {
            NashStyle::Insmod => "insmod",
            NashStyle::Modprobe => "modprobe -q",
        };
        new.push_str(&format!("echo \"Loading {} module\"\n{verb} {}\n", module.name, module.argument));
    }
    if count == 0 {
        return Some(script.to_owned());
    }
    let rest = before.get(at..)?;
    if !rest.iter().any(|line| command(line) == "mkblkdevs") {
        // The nodes of disks that just appeared.
        new.push_str("mkblkdevs\n");
    }
    new.push_str(&rest.concat());
    new.push_str(&lines.get(root..)?.concat());
    Some(new)
}

/// A script in which every assignment of `variable` names `modules`, too, in front. `None` where there is no such
/// assignment of a quoted list.
pub fn assignment(script: &str, variable: &str, modules: &[String]) -> Option<String> {
    let start = format!("{variable}=");
    let mut found = false;
    let lines = script.split_inclusive('\n').map(|line| {
        let edited = edit_assignment(line, &start, modules);
        found |= edited.is_some();
        edited.unwrap_or_else(|| line.to_owned())
    });
    let new: String = lines.collect();
    found.then_some(new)
}

fn edit_assignment(line: &str, start: &str, modules: &[String]) -> Option<String> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    // `[ "$X" ] || X='a b'`: the name stands at the beginning of a word.
    let at = line.match_indices(start).map(|(at, _)| at).find(|at| {
        let before = line.get(..*at).and_then(|head| head.chars().next_back());
        before.is_none_or(|char| char.is_whitespace() || char == ';')
    })?;
    let value = line.get(at.checked_add(start.len())?..)?;
    let quote = value.chars().next().filter(|char| matches!(char, '\'' | '"'))?;
    let list = value.get(1..)?;
    let end = list.find(quote)?;
    let list = list.get(..end)?;
    let known: Vec<String> = list.split_whitespace().map(kmod::normal).collect();
    let mut names: Vec<&str> =
        modules.iter().filter(|name| !known.contains(name)).map(String::as_str).collect();
    if names.is_empty() {
        return Some(line.to_owned());
    }
    names.extend(list.split_whitespace());
    let head = line.get(..at)?;
    let tail = value.get(end.checked_add(2)?..)?;
    Some(format!("{head}{start}{quote}{}{quote}{tail}", names.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(names: &[&str]) -> Vec<Line> {
        names
            .iter()
            .map(|name| Line { name: name.replace('-', "_"), argument: format!("/lib/{name}.ko") })
            .collect()
    }

    #[test]
    fn modules_come_behind_the_old_ones_and_before_the_root() {
        let script = "#!/bin/nash\nmkblkdevs\necho \"Loading ext3.ko module\"\ninsmod /lib/ext3.ko \n\
            insmod /lib/virtio.ko \nstabilized --hash --interval 250 /proc/scsi/scsi\nmkblkdevs\n\
            lvm vgscan --ignorelockingfailure\ninsmod /lib/dm-mod.ko\nmkrootdev -t ext3 -o defaults,ro sda1\n\
            mount /sysroot\nswitchroot\n";
        assert_eq!(nash_style(script), NashStyle::Insmod);
        let new = nash(script, NashStyle::Insmod, &lines(&["virtio", "virtio-ring", "virtio_blk"])).unwrap();
        let expected = script.replace(
            "stabilized",
            "echo \"Loading virtio_ring module\"\ninsmod /lib/virtio-ring.ko\n\
             echo \"Loading virtio_blk module\"\ninsmod /lib/virtio_blk.ko\nstabilized",
        );
        assert_eq!(new, expected);
        let again = nash(&new, NashStyle::Insmod, &lines(&["virtio", "virtio-ring", "virtio_blk"]));
        assert_eq!(again.as_deref(), Some(new.as_str()));
    }

    #[test]
    fn without_modules_or_device_nodes_a_place_is_found_or_none() {
        let nodes =
            "#!/bin/nash\nhotplug\nmkblkdevs\nresume LABEL=s\nmkrootdev -t ext3 hda1\nmount /sysroot\n";
        let new = nash(nodes, NashStyle::Insmod, &lines(&["a"])).unwrap();
        assert!(
            new.contains("hotplug\necho \"Loading a module\"\ninsmod /lib/a.ko\nmkblkdevs\nresume"),
            "{new}"
        );
        let late = "insmod /lib/x.ko\nmkrootdev -t ext3 hda1\n";
        let new = nash(late, NashStyle::Insmod, &lines(&["a"])).unwrap();
        assert!(new.ends_with("insmod /lib/a.ko\nmkblkdevs\nmkrootdev -t ext3 hda1\n"), "{new}");
        assert_eq!(nash("echo nothing\n", NashStyle::Insmod, &lines(&["a"])), None);
        assert_eq!(nash("mkrootdev hda1\n", NashStyle::Insmod, &lines(&["a"])), None);
        let fedora = "modprobe -q scsi_wait_scan\nmkblkdevs\nmkrootdev -t ext3 sda1\n";
        assert_eq!(nash_style(fedora), NashStyle::Modprobe);
    }

    #[test]
    fn lists_are_extended_in_front_and_only_once() {
        let names = ["virtio_pci".to_string(), "virtio_blk".to_string()];
        let script = "[ \"$RESOLVED_INITRD_MODULES\" ] || RESOLVED_INITRD_MODULES='thermal virtio-blk ext3'\n\
            [ \"$modules\" ] && load_modules\nXRESOLVED_INITRD_MODULES='x'\n";
        let new = assignment(script, "RESOLVED_INITRD_MODULES", &names).unwrap();
        assert_eq!(new, script.replace("'thermal", "'virtio_pci thermal"));
        assert_eq!(assignment(&new, "RESOLVED_INITRD_MODULES", &names).as_deref(), Some(new.as_str()));
        assert_eq!(
            assignment("MODULES=\"\"\n", "MODULES", &names).unwrap(),
            "MODULES=\"virtio_pci virtio_blk\"\n"
        );
        for none in ["", "MODULES=(a b)\n", "MODULES=\"a\n", "#MODULES\n", "MODULES=$(x)\n"] {
            assert_eq!(assignment(none, "MODULES", &names), None, "{none}");
        }
    }
}
