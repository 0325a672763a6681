//! Findings whose ids come after `linux-`: encryption, logical volumes, mounts, the root, the target.

use super::super::{Explanation, Severity};

pub(super) const ROWS: &[Explanation] = &[
    Explanation {
        id: "luks-key-wrong",
        severity: Severity::Warns,
        text: "An encrypted volume was found, and the key that was given opens none of its key slots. It is \
               copied as it is. Give the volume's own key or passphrase; another finding says so if the guest \
               needs the volume to start.",
    },
    Explanation {
        id: "luks-locked",
        severity: Severity::Notes,
        text: "An encrypted volume was found, and no key was given. It is copied as it is, and what lies in it is \
               neither seen nor changed. Give the key in a file with --key-file or --passphrase-file if the \
               guest's system lies in it.",
    },
    Explanation {
        id: "luks-not-opened",
        severity: Severity::Warns,
        text: "An encrypted volume cannot be opened: its cipher or key derivation is not handled, it is being re- \
               encrypted, its header is damaged, or there are more of them than keys are tried on. It is copied \
               as it is. Another finding says so if the guest needs it to start.",
    },
    Explanation {
        id: "lvm-degraded",
        severity: Severity::Warns,
        text: "A logical volume with redundancy (a mirror, RAID 4, 5 or 6) lacks one of its legs, or one had failed, and \
               works without it. What is changed reaches the other legs only. Before the first change their metadata are made to say that \
               the leg failed, and that all of it differs: where the leg turns up on the target it is filled \
               anew. Name all disks of the machine, and give the keys of those that are encrypted, or repair the \
               volume on the target with `lvconvert --repair`.",
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
        text: "A logical volume uses a kind of mapping (an old-style snapshot, writecache, RAID 10, VDO) or is in a state \
               (a move or merge in progress, a thin pool or cache whose metadata are marked to be checked or do not \
               fit what LVM says of them) that is not opened from outside. It is copied with its disks as it is. \
               The finding says what can be done; another one says so if the guest needs it to start.",
    },
    Explanation {
        id: "lvm-snapshot-inactive",
        severity: Severity::Notes,
        text: "A thin snapshot is not activated with its volume group, as LVM makes them, so the guest does not see \
               it when it starts. It is not looked into, and keeps its content when its origin is patched: what \
               is overwritten there is copied first, as the guest would do.",
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
               volume without its key, an array or logical volume of a kind or in a state that is not written from \
               outside. The patch cannot be made there.",
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
        text: "No root file system was found, and there are encrypted volumes that were not opened: it probably \
               lies in one of those. Give its key with --key-file or --passphrase-file.",
    },
    Explanation {
        id: "root-not-seen",
        severity: Severity::Blocks,
        text: "A boot loader's configuration names a root file system that was not seen: it is encrypted, lies on \
               storage that is not opened, or could not be read. Another root was found, most likely an old one; \
               patching that would leave a machine that does not start. Give the key, name all disks, or install \
               the sandbox; or choose the root by name, which is not questioned.",
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
               available. It needs qemu-system-x86_64, bwrap and the kernel of a distribution; on Debian \
               tools/fetch-sandbox-kernel.sh FOLDER unpacks one.",
    },
    Explanation {
        id: "storage-not-opened",
        severity: Severity::Warns,
        text: "A disk or partition belongs to a storage system that is recognised and not opened: ZFS, bcachefs, \
               bcache, DRBD, a RAID of the firmware, a file system over several devices. It is copied as it is. \
               If the guest needs it to start, the drivers of the target have to be installed in the running \
               guest before the move.",
    },
    Explanation {
        id: "subvolume-read-only",
        severity: Severity::Blocks,
        text: "The guest starts from a subvolume of btrfs that is marked read-only: a snapshot, or the root of a \
               transactional system such as openSUSE MicroOS. Nothing can be written there, not even by root. \
               Make it writable in the guest (`btrfs property set -ts / ro false`), or roll back to a writable \
               one (`snapper rollback`), and convert again.",
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
    Explanation {
        id: "volumes-too-many",
        severity: Severity::Warns,
        text: "The disks hold more partitions, arrays and logical volumes than any machine has in use. Those beyond \
               the bound are copied as they are, and neither seen nor changed. Leave out disks that do not belong \
               to the machine.",
    },
];
