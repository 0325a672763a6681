//! Findings whose ids come before `linux-`: arrays, disks, files, the guest as a whole.

use super::super::{Explanation, Severity};

pub(super) const ROWS: &[Explanation] = &[
    Explanation {
        id: "array-degraded",
        severity: Severity::Warns,
        text: "A mirrored array lacks disks, and works without them. What is changed reaches the disks that are \
               here only. Before the first change their superblocks are made to say that the others are gone, so \
               that none of those is taken for current where it turns up on the target; added there with mdadm, \
               it is filled anew. Name all disks of the machine, and give the keys of those that are encrypted, \
               or give the array its disks back on the target.",
    },
    Explanation {
        id: "array-incomplete",
        severity: Severity::Warns,
        text: "A software RAID array lacks more disks than it can do without, so nothing on it is seen. Usually a \
               disk of the machine was left out. Name all of them; the array's UUID is in the output of `mdadm \
               --detail` and in /etc/mdadm/mdadm.conf of the guest.",
    },
    Explanation {
        id: "array-member-damaged",
        severity: Severity::Warns,
        text: "The superblock of a RAID member is damaged, or does not fit the device that it is on, so the \
               member is not used. If the array does without it, it is opened and said to be degraded. Check the \
               member in the source machine with `mdadm --examine`.",
    },
    Explanation {
        id: "array-member-stale",
        severity: Severity::Warns,
        text: "A RAID member left its array some time before the others were written last, as a disk does that \
               failed. It is neither read nor written, and the array on the target leaves it out, too, until it \
               is added again. Add it with mdadm --manage --add once the machine runs: all of it is then filled \
               anew, since what landfall changes is in no bitmap of the array (--re-add is refused).",
    },
    Explanation {
        id: "array-not-opened",
        severity: Severity::Warns,
        text: "A software RAID array is of a kind that is not written from outside (level 10 in its far layouts, \
               levels with a journal of their own), or is in a state that is not (it is reshaped or rebuilt, its \
               members contradict each other, or one with parity lacks disks and was not stopped in order). Its \
               disks are copied as they are. Another finding says so if the guest needs it to start.",
    },
    Explanation {
        id: "array-unclean",
        severity: Severity::Notes,
        text: "A software RAID array was in use when its disks were copied, as in every snapshot of a running \
               machine. Its mirrors may differ where writes were under way, and parity may be wrong there. The first \
               disk in sync counts, and the data count before their parity, as for the kernel, which puts the rest \
               right when the array starts; nothing needs to be done.",
    },
    Explanation {
        id: "boot-disk-no-code",
        severity: Severity::Warns,
        text: "The machine starts by BIOS, and the first sector of none of its disks has the code that a boot \
               loader of Linux puts there. Either a disk was left out, or the loader starts in a way that was not \
               recognised, such as from a partition. Start the machine on the target as a trial, or run grub- \
               install in the guest before the move.",
    },
    Explanation {
        id: "boot-disk-not-first",
        severity: Severity::Notes,
        text: "The guest's boot loader lies on a disk that is not the first. Target firmware tries one disk only, \
               so a definition that landfall writes names this disk as the one to start. Keep it where the definition \
               is changed by other tools.",
    },
    Explanation {
        id: "boot-disk-unclear",
        severity: Severity::Warns,
        text: "Several disks have boot code, or the first one has code that is no loader of Linux, so which disk \
               the source's firmware starts is not certain from the disks alone. The likely one is taken as the boot \
               disk. Compare the boot order in the source's settings.",
    },
    Explanation {
        id: "disk-in-array",
        severity: Severity::Warns,
        text: "A disk is a member of a RAID array as a whole, the partition table that it shows is the array's \
               own, and the array was not opened. Patching a partition on one side of a mirror would make the \
               sides differ, so nothing on the disk is opened. It is copied as it is.",
    },
    Explanation {
        id: "disk-sector-size",
        severity: Severity::Blocks,
        text: "A disk has logical sectors of 4096 bytes, and its partition table counts in them. At the target the \
               same disk has sectors of 512 bytes, or its firmware does not start from larger ones, so that neither \
               firmware nor kernel find a partition. libvirt gives a disk on virtio-blk or virtio-scsi its sectors, \
               and UEFI starts from it. For other targets move the system to a disk with sectors of 512 bytes.",
    },
    Explanation {
        id: "file-immutable",
        severity: Severity::Notes,
        text: "A file that had to be changed, or its folder, carried a flag that keeps even root from changing it \
               (`lsattr` shows it). Administrators set it on resolv.conf or fstab against programs that rewrite \
               them. The flag was lifted for the change and is set again.",
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
        id: "initramfs-doubtful",
        severity: Severity::Warns,
        text: "An initramfs was rewritten, and something about it is out of the ordinary: it was made by a tool that \
               is not known, so that nobody can say whether it loads what was added; it has modules of another kernel \
               than its own; parts of it were damaged, or are left out by the kernel, too. `landfall prove` shows \
               whether the machine boots with it.",
    },
    Explanation {
        id: "initramfs-left",
        severity: Severity::Warns,
        text: "An initramfs could not be rewritten, because it is damaged or of a kind that is not known, or because \
               its kernel's modules are not all there. It belongs to a kernel that does not start by default, so it \
               was left as it is: that kernel will not find its disks on the target. An initramfs of the kernel that \
               starts by default would have stopped the conversion.",
    },
];
