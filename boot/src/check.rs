//! Findings: what stands between a guest and a boot on the target, as values.
//!
//! Every finding's id has a row in [`TABLE`], which is what `landfall explain ID` prints. "Could not check" is a
//! finding of its own, never the same as "checked, bad".

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It will not start, or landfall cannot make it start.
    Blocks,
    /// It will start, but something is lost or needs a person.
    Warns,
    /// Good to know.
    Notes,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Row of [`TABLE`].
    pub id: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What was found, with names and values: one sentence.
    pub says: String,
    /// What fixes it, in the imperative mood: one sentence.
    pub remedy: String,
}

/// What `landfall explain` knows of an id.
pub struct Explanation {
    /// Stable, kebab-case: `linux-no-kernel`.
    pub id: &'static str,
    /// Severity that it always has.
    pub severity: Severity,
    /// What it means and why it matters, and what to do: a few sentences.
    pub text: &'static str,
}

/// Every finding that this crate can give, sorted by id.
pub const TABLE: &[Explanation] = &[
    Explanation {
        id: "disk-in-array",
        severity: Severity::Warns,
        text: "A disk is a member of a RAID array as a whole, and the partition table that it shows is the array's \
               own. Patching a partition on one side of a mirror would make the sides differ, so nothing on the \
               disk is opened. It is copied as it is.",
    },
    Explanation {
        id: "guest-hibernated",
        severity: Severity::Blocks,
        text: "The swap space holds a suspended system. Its memory image believes in the old hardware and in file \
               systems that stand still; patching them and then resuming destroys data. Start the machine in the \
               source, shut it down properly (hibernation and fast startup off), and convert again.",
    },
    Explanation {
        id: "guest-not-recognised",
        severity: Severity::Blocks,
        text: "A root file system was found, but no guest family of this version knows what is on it, so nothing \
               about how it starts can be said or changed. landfall disk convert still converts the disks, as they are.",
    },
    Explanation {
        id: "linux-agent-inert",
        severity: Severity::Notes,
        text: "An agent of the old hypervisor is installed, and its services check for that hypervisor before \
               they start. It does no harm on the target and is there again after a move back. It can be \
               uninstalled with the distribution's tools once the machine stays.",
    },
    Explanation {
        id: "linux-agent-masked",
        severity: Severity::Notes,
        text: "An agent of the old platform would start on the target and fail, or wait for hardware that is \
               not there. Its services were switched off with links that a person can remove. Uninstall it on \
               the target with its own uninstaller or the distribution's tools.",
    },
    Explanation {
        id: "linux-agent-missing",
        severity: Severity::Notes,
        text: "The target's guest agent shuts the machine down cleanly, reports its addresses and quiesces file \
               systems for snapshots. The machine runs without it. Install the named package on the target.",
    },
    Explanation {
        id: "linux-automount-devices",
        severity: Severity::Warns,
        text: "A map of the automounter names a disk as the old hypervisor's kernel called it, such as \
               /dev/sdb1. On the target the name may be absent or mean another disk, and the mount fails when \
               it is used. Name the file system by UUID in the map.",
    },
    Explanation {
        id: "linux-cloud-init",
        severity: Severity::Notes,
        text: "cloud-init takes a machine whose data source is gone, or whose instance id changed, for a new \
               one: it makes new host keys and another network configuration. A drop-in tells it to keep what \
               is there. Remove the drop-in if the target has a data source that is to configure the machine.",
    },
    Explanation {
        id: "linux-crypttab-lost",
        severity: Severity::Blocks,
        text: "An encrypted volume is named by a device name that the target's kernel will not use, and \
               landfall could not tell for certain which volume is meant. The volume would not be opened, and \
               the boot would stop at what lies on it. Name the volume by its LUKS UUID (`blkid` shows it) in \
               /etc/crypttab, rebuild the initramfs in the guest, and convert again.",
    },
    Explanation {
        id: "linux-driver-forbidden",
        severity: Severity::Warns,
        text: "The guest's configuration of modprobe or dracut forbids a driver that the target's devices need, as \
               hardening guides sometimes do. If the module is needed for the root disk the machine does not start; if \
               for the network card it has no network. Remove the line in the guest and rebuild the initramfs \
               with the distribution's tool.",
    },
    Explanation {
        id: "linux-esp-not-mounted",
        severity: Severity::Warns,
        text: "The machine has an EFI system partition, but the guest's files do not show it at /boot/efi, so \
               the fallback loader could not be checked or placed. Boot entries in the firmware's memory do not \
               move with the disks. Mount the partition in the guest's /etc/fstab and run grub-install, or \
               place the loader by hand as EFI/BOOT/BOOTX64.EFI.",
    },
    Explanation {
        id: "linux-esp-unchecked",
        severity: Severity::Warns,
        text: "The loader on the EFI system partition could not be checked completely. The machine may stop in \
               the firmware or at the prompt of GRUB. Run grub-install in the guest before the move, or check \
               by hand that EFI/BOOT holds a loader that finds its configuration.",
    },
    Explanation {
        id: "linux-file-unreadable",
        severity: Severity::Warns,
        text: "A configuration file could not be read: it is damaged, no regular file, part of a loop of links, \
               or longer than any sane file of its kind. Nothing in it was checked or changed. Look at it by \
               hand before the machine is relied upon.",
    },
    Explanation {
        id: "linux-firmware-mismatch",
        severity: Severity::Blocks,
        text: "The boot loader on the disks is for one kind of firmware, BIOS or UEFI, and the target machine \
               was asked to have the other. It would not find a loader. Convert with the firmware of the \
               source, or install the other loader in the guest first.",
    },
    Explanation {
        id: "linux-grub-by-disk-order",
        severity: Severity::Warns,
        text: "GRUB finds its own files by the number that the firmware gives to a disk, not by UUID, and the \
               machine has several disks. It starts only if the target presents the disks in the same order. \
               Keep the order, or set GRUB_DISABLE_UUID to false in the guest and run update-grub.",
    },
    Explanation {
        id: "linux-grub-install-devices",
        severity: Severity::Notes,
        text: "The package grub-pc remembers the disk to which it installs GRUB by a name of the old hardware. \
               Nothing happens until its next upgrade, which then asks a question or fails. Run dpkg- \
               reconfigure grub-pc on the target and choose the disk there.",
    },
    Explanation {
        id: "linux-grub-uuid-unknown",
        severity: Severity::Warns,
        text: "GRUB's configuration searches a file system by a UUID that none of the given disks has. Either a \
               disk of the machine is missing from the conversion, or the configuration is stale. Check the \
               list of disks in the machine's definition.",
    },
    Explanation {
        id: "linux-initramfs-tool-unknown",
        severity: Severity::Warns,
        text: "The drivers were added to each initramfs that is there, but the tool that builds the next one was not \
               found, so it could not be told to keep them. The machine starts now, and may not do so after the \
               next update of its kernel. Add the named drivers to that tool's configuration.",
    },
    Explanation {
        id: "linux-kernel-no-disk-driver",
        severity: Severity::Blocks,
        text: "The kernel that starts by default has none of the target's disk drivers, neither as modules nor \
               built in, so it cannot find its root file system. Attach the disks by the bus that the remedy \
               names, or install the distribution's standard kernel in the guest before the move.",
    },
    Explanation {
        id: "linux-kernel-no-nic-driver",
        severity: Severity::Warns,
        text: "A kernel has no driver for the target's preferred network card. The machine starts without \
               network. Choose the card that the remedy names, or install the distribution's standard kernel.",
    },
    Explanation {
        id: "linux-kernel-other-bus",
        severity: Severity::Warns,
        text: "A kernel has no driver for the target's preferred kind of disk, but it has one for another kind \
               that the target offers. The machine starts if its disks are attached in that way. Change the bus \
               of the disks in the target's definition.",
    },
    Explanation {
        id: "linux-kernel-unchecked",
        severity: Severity::Warns,
        text: "A kernel lies in /boot without its list of modules, so it is not known which drivers it has, and \
               its initramfs was not changed. It may have been built by hand with everything built in, or its \
               modules may be damaged. Start another kernel on the target, or reinstall this one's package in \
               the guest before the move.",
    },
    Explanation {
        id: "linux-kernel-without-initramfs",
        severity: Severity::Blocks,
        text: "The kernel that starts by default has no initramfs, so the driver of the root disk has to be \
               built in, and the target's is not. Build one in the guest, or install the distribution's standard \
               kernel, and convert again.",
    },
    Explanation {
        id: "linux-loader-unsupported",
        severity: Severity::Blocks,
        text: "The guest starts by a boot loader whose configuration landfall does not edit, and whose copies \
               of kernel and initramfs lie where they are not patched. The machine would start the old \
               initramfs and not find its disks. Install GRUB in the guest before the move, or repair the boot \
               entries on the target from a rescue system.",
    },
    Explanation {
        id: "linux-lvm-filter",
        severity: Severity::Warns,
        text: "LVM's filter accepts only devices by names that the target does not use, and rejects the rest, \
               so volume groups would not be found. It was too unusual to be changed without doubt. Add rules \
               that accept the target's disks, and rebuild the initramfs in the guest, because it has a copy.",
    },
    Explanation {
        id: "linux-module-leftovers",
        severity: Severity::Notes,
        text: "Folders of kernel modules were found to which no kernel image in /boot belongs. Removed kernels \
               and locally built modules leave such folders behind. They do no harm and were left alone.",
    },
    Explanation {
        id: "linux-mount-by-hand-lost",
        severity: Severity::Notes,
        text: "A line of /etc/fstab that is mounted only on request names a device as the old hypervisor's \
               kernel called it, and no volume was found for it. The boot is not affected. Name the file system \
               by UUID if it is still used.",
    },
    Explanation {
        id: "linux-mount-lost",
        severity: Severity::Blocks,
        text: "A line of /etc/fstab names a device in a way that changes with the hypervisor, and landfall \
               could not tell for certain which volume is meant. systemd waits for the device, and then stops \
               the boot in the emergency shell. Name the file system by UUID, or add the option nofail, in the \
               guest's /etc/fstab, and convert again; or give the disk that is missing.",
    },
    Explanation {
        id: "linux-mount-optional-lost",
        severity: Severity::Warns,
        text: "A line of /etc/fstab with the option nofail names a device in a way that changes with the \
               hypervisor, and no volume was certain. The machine starts without this mount. Name the file \
               system by UUID.",
    },
    Explanation {
        id: "linux-multipath-in-use",
        severity: Severity::Warns,
        text: "The guest mounts or starts from multipath maps. On the target its disks may have a single path, \
               and maps are then made under other names or not at all. The multipath configuration was left as \
               it is. Check it on the target, and disable multipathd where every disk has one path.",
    },
    Explanation {
        id: "linux-network-by-driver",
        severity: Severity::Warns,
        text: "Part of the network configuration finds its card by driver or by slot, and both change with the \
               hypervisor. The interface would stay unconfigured. Let it go by the card's hardware address or \
               name.",
    },
    Explanation {
        id: "linux-network-pattern",
        severity: Severity::Warns,
        text: "Part of the network configuration is meant for interfaces whose names fit a pattern, and the \
               names on the target may not fit it. Compare the pattern with the output of `ip link` on the \
               target.",
    },
    Explanation {
        id: "linux-nic-ambiguous",
        severity: Severity::Warns,
        text: "The network configuration counts on an interface name, the machine has several cards, and \
               nothing on the disks or in the definition says which card has that name. The name was not given \
               to a card that might be the wrong one. Tell it by the card's hardware address in the guest's \
               configuration, or write a systemd .link file.",
    },
    Explanation {
        id: "linux-nic-by-order",
        severity: Severity::Notes,
        text: "Interfaces named eth0, eth1 and so on were given to the cards in the order of their slots, as \
               the kernel does without other rules. If the guest's order was different, for example through \
               different drivers, the names are swapped. Compare with `ip link` on the source.",
    },
    Explanation {
        id: "linux-nic-extra-config",
        severity: Severity::Notes,
        text: "The network configuration has an interface that no card of the machine is left for. Mostly it is \
               a remnant of earlier hardware or of the installer. Nothing was done about it.",
    },
    Explanation {
        id: "linux-nic-mac-unknown",
        severity: Severity::Warns,
        text: "The network configuration looks for a hardware address that no card in the machine's definition \
               has. The interface stays unconfigured unless the target's card gets that address. Compare the \
               definition with the configuration.",
    },
    Explanation {
        id: "linux-nic-no-mac",
        severity: Severity::Warns,
        text: "The machine's definition leaves the hardware address of a card to the hypervisor, so the target \
               gives it a new one, and its name cannot be kept by address. Put the address that the card has on \
               the source into the definition.",
    },
    Explanation {
        id: "linux-nic-none",
        severity: Severity::Warns,
        text: "The guest configures network interfaces, and the machine's definition has no network card. Add \
               one with the hardware address that the guest knew, if the machine needs a network.",
    },
    Explanation {
        id: "linux-no-efi-loader",
        severity: Severity::Blocks,
        text: "The EFI system partition holds neither a fallback loader nor a shim or GRUB that could become \
               one. Boot entries in the firmware's memory do not move with the disks, so the firmware finds \
               nothing to start. Install GRUB for UEFI in the guest before the move.",
    },
    Explanation {
        id: "linux-no-fstab",
        severity: Severity::Warns,
        text: "The guest has no file /etc/fstab that could be read, so its mounts could not be checked for \
               device names. Look at how its file systems are mounted before the machine is relied upon.",
    },
    Explanation {
        id: "linux-no-kernel",
        severity: Severity::Blocks,
        text: "No kernel image was found in the guest's /boot. Mostly the disk or partition with /boot was not \
               given or could not be read. Without a kernel nothing can start.",
    },
    Explanation {
        id: "linux-no-loader",
        severity: Severity::Blocks,
        text: "No boot loader was found, neither for BIOS nor for UEFI. Mostly the disk with /boot or the EFI \
               system partition was not given or could not be read. Check the list of disks.",
    },
    Explanation {
        id: "linux-no-serial-console",
        severity: Severity::Notes,
        text: "The kernel's messages go to the screen only. That is no fault; but a serial console of the \
               target, and evidence that is recorded from it, show nothing of the boot. Add console=tty0 \
               console=ttyS0 to the kernel command line if it is wanted.",
    },
    Explanation {
        id: "linux-old-kernel-no-disk-driver",
        severity: Severity::Warns,
        text: "A kernel that is not the default has none of the target's disk drivers. The machine starts by \
               its default kernel, but this entry of the boot menu does not work on the target. Remove the \
               kernel, or attach the disks by the bus that the remedy names when it has to be used.",
    },
    Explanation {
        id: "linux-packages-unchecked",
        severity: Severity::Warns,
        text: "The database of installed packages is absent, empty or damaged. Which agents and services are \
               installed was told from files, and something may have been overlooked. Check it in the guest \
               with the package manager, on Debian with dpkg --audit.",
    },
    Explanation {
        id: "linux-resume-lost",
        severity: Severity::Warns,
        text: "The device to resume from after hibernation is named in a way that changes with the hypervisor, \
               and it is not certain which swap volume is meant. The machine starts, but may wait for the \
               device, and it does not resume. Name the swap volume by UUID.",
    },
    Explanation {
        id: "linux-root-lost",
        severity: Severity::Blocks,
        text: "A boot entry names the root device in a way that changes with the hypervisor, and no volume with \
               a UUID was found for it. The entry would stop in the initramfs. Write root=UUID=… into the boot \
               configuration in the guest, and convert again.",
    },
    Explanation {
        id: "linux-second-loader",
        severity: Severity::Warns,
        text: "Besides GRUB there is another boot loader whose configuration landfall does not edit. If the \
               firmware starts that one, its entries may name devices that are gone, and its copies of the \
               initramfs lack the target's drivers. See that the machine starts by GRUB.",
    },
    Explanation {
        id: "linux-selinux-relabel",
        severity: Severity::Warns,
        text: "The guest enforces SELinux, and the files that say which context a new path gets were absent, damaged \
               or not understood. New files without the right label could not be read by the services that need \
               them, so the next start labels every file anew and then starts once more. That takes minutes. \
               Restore the policy's package in the guest to avoid it.",
    },
    Explanation {
        id: "linux-smart-devices",
        severity: Severity::Notes,
        text: "A service that reads the disks' own health data is configured for disks by the names of the old \
               hardware. Virtual disks have no such data. The service fails at start, which does no harm; \
               remove the lines or disable it.",
    },
    Explanation {
        id: "linux-swap-lost",
        severity: Severity::Warns,
        text: "A swap volume is named in a way that changes with the hypervisor, and it is not certain which \
               volume is meant. The boot waits for it for a minute and a half, and the machine runs without \
               this swap. Name it by UUID.",
    },
    Explanation {
        id: "linux-too-many-kernels",
        severity: Severity::Warns,
        text: "There are more kernels in /boot than any machine needs, and only the newest were patched. The \
               others do not start on the target. Remove what is not needed and convert again.",
    },
    Explanation {
        id: "linux-unit-device",
        severity: Severity::Warns,
        text: "A mount or swap unit of systemd names a device in a way that changes with the hypervisor, and \
               could not be rewritten: the file name of a swap unit follows its device. Write the unit anew for \
               /dev/disk/by-uuid on the target.",
    },
    Explanation {
        id: "linux-uuid-absent",
        severity: Severity::Warns,
        text: "A line of /etc/fstab names a UUID or label that no volume on the given disks has. Either a disk \
               of the machine is missing from the conversion, or the line is stale and would stop the boot on \
               the source as well. Check the list of disks.",
    },
    Explanation {
        id: "lvm-duplicate-name",
        severity: Severity::Warns,
        text: "Two volume groups of one name cannot be active in one system. Usually a disk of another machine, \
               or an old copy, is among the given disks. Volumes of such groups are not chosen by name.",
    },
    Explanation {
        id: "lvm-duplicate-pv",
        severity: Severity::Warns,
        text: "The same LVM physical volume is there twice: one disk is a copy of another. Which one is current \
               cannot be told, so logical volumes on it are not opened.",
    },
    Explanation {
        id: "lvm-metadata-unreadable",
        severity: Severity::Warns,
        text: "An LVM physical volume's metadata is damaged. If another physical volume of the group has a sound \
               copy, that one is used; otherwise the group's logical volumes are not seen.",
    },
    Explanation {
        id: "lvm-missing-pv",
        severity: Severity::Warns,
        text: "A volume group has physical volumes that are not on the given disks. Logical volumes that lie on \
               them are not opened. Usually a disk of the machine was left out.",
    },
    Explanation {
        id: "lvm-not-opened",
        severity: Severity::Notes,
        text: "A logical volume uses a kind of mapping (thin, cache, RAID, snapshot) or a state (a move or merge \
               in progress) that is not opened from outside. It is copied with its disks as it is. Another \
               finding says so if the guest needs it to start.",
    },
    Explanation {
        id: "lvm-snapshot-origin",
        severity: Severity::Warns,
        text: "A volume that is patched has an LVM snapshot. What is overwritten from outside is not preserved in \
               the snapshot, so the snapshot will show the new content in the places that were changed. Remove \
               the snapshot if it is not needed.",
    },
    Explanation {
        id: "mount-doubtful",
        severity: Severity::Blocks,
        text: "A file system is named in fstab by a hardware name such as /dev/sdb1, and what lies there does not look \
               like what is mounted there. The order of the disks is probably another than the guest's. Nothing is \
               patched, since writing to the wrong volume would be worse.",
    },
    Explanation {
        id: "mount-not-found",
        severity: Severity::Blocks,
        text: "The guest mounts a file system that it needs to start, and no volume on the given disks fits its \
               name. Usually a disk of the machine was left out, or fstab is stale. Add the disk, or correct \
               fstab in the source (nofail where the guest starts without it).",
    },
    Explanation {
        id: "mount-not-openable",
        severity: Severity::Blocks,
        text: "A file system that the guest needs to start lies on something that is not opened: an encrypted \
               container, a software RAID, a thin or cached logical volume. The patch cannot be made there.",
    },
    Explanation {
        id: "mount-not-readable",
        severity: Severity::Blocks,
        text: "A file system that the guest needs to start can be read neither directly nor by the kernel of the \
               sandbox, or the folder that it is mounted at is absent. Check it in the source machine (fsck, \
               xfs_repair) and convert again.",
    },
    Explanation {
        id: "mount-optional-missing",
        severity: Severity::Warns,
        text: "The guest mounts a file system that it starts without (nofail, noauto), and it is not on the given \
               disks or cannot be opened. Files that belong there are neither checked nor patched.",
    },
    Explanation {
        id: "mount-subvolume",
        severity: Severity::Blocks,
        text: "The guest mounts a subvolume (btrfs) that is not the one that is mounted by default. The sandbox \
               mounts the default one only, and patching the wrong one would be silent.",
    },
    Explanation {
        id: "no-operating-system",
        severity: Severity::Blocks,
        text: "None of the volumes holds the root file system of an operating system that landfall knows. Data \
               disks can be converted as they are, with landfall disk convert. If the machine does have a system, \
               its disk was left out, or it lies in an encrypted or unsupported volume; other findings name those.",
    },
    Explanation {
        id: "partition-table-odd",
        severity: Severity::Warns,
        text: "A partition table contradicts itself or its disk: partitions overlap, pass the end of the disk, or \
               one of two copies is damaged. What lies inside the disk is used.",
    },
    Explanation {
        id: "partition-table-unreadable",
        severity: Severity::Warns,
        text: "A disk's partition table is damaged beyond use, so that nothing on the disk is seen. It is copied \
               as it is.",
    },
    Explanation {
        id: "root-encrypted",
        severity: Severity::Blocks,
        text: "No root file system was found, and there are encrypted volumes: it probably lies in one of those. \
               landfall has no key for it.",
    },
    Explanation {
        id: "root-several",
        severity: Severity::Blocks,
        text: "Several volumes hold a root file system, and neither boot loader nor fstab tell which one the \
               machine starts from. Patching the wrong one would leave a machine that does not start. Choose one \
               by name.",
    },
    Explanation {
        id: "root-stale",
        severity: Severity::Notes,
        text: "A volume holds a root file system whose own fstab names another volume as root, or which the boot \
               loader does not start: an old copy, a rescue system, a container. It is left alone.",
    },
    Explanation {
        id: "sandbox-needed",
        severity: Severity::Blocks,
        text: "A file system that the guest needs can only be read or written by the sandbox, and no sandbox is \
               available. Install QEMU and a kernel for it, as `landfall explain` of the error says.",
    },
    Explanation {
        id: "volume-ambiguous",
        severity: Severity::Warns,
        text: "A volume carries the marks of two kinds of content at once, usually because a stale superblock was \
               left behind. It is not opened, since the wrong one could be.",
    },
    Explanation {
        id: "volume-not-looked-at",
        severity: Severity::Warns,
        text: "A file system could not be read, so it is not known whether another root file system lies on it. \
               The one that was found is taken. Check the named volume, or install the sandbox, if the \
               machine may start from there.",
    },
];

/// The row of an id.
pub fn explain(id: &str) -> Option<&'static Explanation> {
    TABLE.iter().find(|row| row.id == id)
}

impl Finding {
    /// A finding of the row `id`, which gives its severity. An id without a row blocks (and fails a test).
    pub fn new(id: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        let severity = explain(id).map_or(Severity::Blocks, |row| row.severity);
        Finding { id, severity, says: says.into(), remedy: remedy.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn the_table_is_sorted_and_speaks_in_sentences() {
        assert!(TABLE.windows(2).all(|pair| pair[0].id < pair[1].id));
        for row in TABLE {
            assert!(row.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", row.id);
            assert!(
                row.text.starts_with(|char: char| char.is_uppercase()
                    || row.text.starts_with("systemd")
                    || row.text.starts_with("cloud-init")),
                "{}",
                row.id
            );
            assert!(
                row.text.ends_with('.') && !row.text.contains("  ") && !row.text.contains('\n'),
                "{}",
                row.id
            );
            assert!(row.text.matches(". ").count() >= 1, "{}: says what it means and what to do", row.id);
        }
    }

    /// Every id that stands in this crate's code has a row, and every row is used.
    #[test]
    fn every_id_has_a_row_and_every_row_is_used() {
        let mut code = String::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
        let known: BTreeSet<&str> = TABLE.iter().map(|row| row.id).collect();
        for prefix in ["linux-", "guest-", "volume-", "windows-"] {
            for (at, _) in code.match_indices(&format!("\"{prefix}")) {
                let Some(word) = code.get(at + 1..).and_then(|rest| rest.split('"').next()) else { continue };
                if word.len() > prefix.len()
                    && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
                {
                    assert!(known.contains(word) || NO_IDS.contains(&word), "{word} has no row");
                }
            }
        }
        for row in TABLE {
            assert!(code.contains(&format!("\"{}\"", row.id)), "{} is never given", row.id);
        }
    }

    /// Strings that look like ids.
    const NO_IDS: &[&str] = &["linux-raid", "linux-cloud-tools-common", "linux-lts"];

    fn collect(folder: &Path, code: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, code);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("check.rs") {
                code.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
}
