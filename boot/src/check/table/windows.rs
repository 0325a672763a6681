//! What is found in a Windows guest.

use super::super::{Explanation, Severity};

pub(super) const ROWS: &[Explanation] = &[
    Explanation {
        id: "windows-device-restrictions",
        severity: Severity::Warns,
        text: "A group policy keeps Windows from installing devices that it names, or that no other policy names, and at the \
               target every device is a new one. Where it hits the disk controller Windows stops with \
               INACCESSIBLE_BOOT_DEVICE; where it hits the network card the machine has no network. The policy is left as it \
               is. Take it from the machine before the move, or allow the target's devices in it.",
    },
    Explanation {
        id: "windows-hive-unreadable",
        severity: Severity::Warns,
        text: "A hive that is not needed to start Windows could not be read, so what depends on it was not checked. Start the \
               guest once where it ran and shut it down, so that Windows completes the file, and convert again.",
    },
    Explanation {
        id: "windows-no-disk-driver",
        severity: Severity::Blocks,
        text: "Windows stops with INACCESSIBLE_BOOT_DEVICE where it has no driver for the disk that it starts from. None of the \
               drivers for the target's kinds of disk is registered with its file in place. For KVM and AHV give the drivers \
               with --virtio-win; for others install them in the running guest before the move.",
    },
    Explanation {
        id: "windows-no-second-generation",
        severity: Severity::Blocks,
        text: "Machines of generation 2 and those of Azure with UEFI have no emulated devices. Windows starts there from version \
               8 and 2012 of x86_64 on. An older one has to stay on a hypervisor that emulates a disk controller for UEFI, or \
               be installed anew.",
    },
    Explanation {
        id: "windows-no-nic-driver",
        severity: Severity::Warns,
        text: "No driver for one of the target's network cards is in use in the guest, and its driver database does not name one. \
               Windows may still find one when the card appears. Look at the network in a trial before the move, with the \
               card's driver at hand on a medium that the machine can read.",
    },
    Explanation {
        id: "windows-old",
        severity: Severity::Warns,
        text: "Windows Vista and Server 2008 have what Windows 7 has, mostly, and are patched in the same way, but nothing is \
               promised of them. Prove that the machine boots before you rely on it.",
    },
    Explanation {
        id: "windows-other-bus",
        severity: Severity::Warns,
        text: "The guest lacks the driver of the target's preferred disk controller, so the machine's definition offers one that \
               the guest can drive. It starts; its disks are slower than they could be. Give the driver (--virtio-win for KVM \
               and AHV), or install it in the running guest and change the controller then.",
    },
    Explanation {
        id: "windows-other-nic",
        severity: Severity::Warns,
        text: "The guest lacks the driver of the target's preferred network card, so the machine's definition offers one that the \
               guest can drive. It is slower. Give the driver (--virtio-win for KVM and AHV), or install it in the running guest \
               and change the card then.",
    },
    Explanation {
        id: "windows-registry-replayed",
        severity: Severity::Notes,
        text: "Windows writes the registry to a log first. The machine was copied, or stopped, before the log had got into the \
               hive; its entries were checked and applied, as Windows does it at its next start. Nothing is lost by it, and \
               nothing is to be done.",
    },
    Explanation {
        id: "windows-registry-unreadable",
        severity: Severity::Blocks,
        text: "SYSTEM or SOFTWARE could not be read: damaged, or not completely written and without a log that completes it. \
               Nothing can be planned without them, and a damaged hive is never changed. Start the guest once where it ran, \
               shut it down completely with shutdown /s /t 0, and convert again; if Windows cannot read it either, restore it \
               from a backup.",
    },
    Explanation {
        id: "windows-too-old",
        severity: Severity::Blocks,
        text: "Windows XP, Server 2003 and older tie themselves to the machine's hardware in ways that this version does not \
               change. Install the target's drivers in the running guest, convert its disks alone with landfall disk convert, \
               and attach them by IDE.",
    },
    Explanation {
        id: "windows-version-unknown",
        severity: Severity::Blocks,
        text: "Which drivers a guest needs depends on its version, and its SOFTWARE hive does not tell it. The hive is another \
               one's, or damaged. Start the guest once where it ran, shut it down, and convert again.",
    },
];
