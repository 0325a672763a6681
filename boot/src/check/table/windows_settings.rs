//! Findings about a Windows guest's agents, boot files, drive letters, and what a user wants in its registry.

use super::super::{Explanation, Severity};

pub(super) const ROWS: &[Explanation] = &[
    Explanation {
        id: "windows-agent-by-owner",
        severity: Severity::Notes,
        text: "The target's own agent is installed in the guest, and somebody disabled its service; it stays so. Enable \
               it on the target if it is wanted there.",
    },
    Explanation {
        id: "windows-agent-depended-on",
        severity: Severity::Warns,
        text: "A service of the guest is declared to need a service of the old platform's agent, which is switched off at \
               the target. Windows does not start it then. Uninstall what it belongs to, or keep the agent with --keep.",
    },
    Explanation {
        id: "windows-agent-enabled",
        severity: Severity::Notes,
        text: "The target's own agent was found switched off by an earlier pass of landfall, and got back the start types, \
               filters and entries that it had. Convert with --drop and its name to leave it off.",
    },
    Explanation {
        id: "windows-agent-missing",
        severity: Severity::Warns,
        text: "The target's guest agent is not installed. The machine runs without it, but the hypervisor cannot shut it \
               down cleanly, and snapshots of it are taken without its knowledge. Install the agent that is named.",
    },
    Explanation {
        id: "windows-agent-network-filter",
        severity: Severity::Warns,
        text: "An agent of the old platform filters all network connections in a way that Windows cannot do without: \
               with its driver switched off no card would have a connection. It was left on, as was what it waits for. \
               Uninstall the agent, or unbind the filter with `netcfg -u`, in the running guest.",
    },
    Explanation {
        id: "windows-agent-off",
        severity: Severity::Notes,
        text: "An agent of a platform that the guest leaves is installed. Its filters were taken out of their lists, \
               then what of it starts by itself was switched off; what was there is kept in the guest's registry below \
               HKEY_LOCAL_MACHINE\\SOFTWARE\\landfall, and a pass back to the agent's platform gives it back. Keep it on with --keep.",
    },
    Explanation {
        id: "windows-boot-device-missing",
        severity: Severity::Warns,
        text: "The boot configuration starts Windows from a partition that is on none of the given disks, by the disk \
               signature or GUID that it names. The boot manager then stops with 0xc000000e. Usually a disk was left out; \
               otherwise rebuild the boot configuration in the source machine with `bcdboot`.",
    },
    Explanation {
        id: "windows-boot-entry-missing",
        severity: Severity::Warns,
        text: "The boot configuration has no default entry that starts Windows: the boot manager shows a menu, or stops. \
               Choose an entry with `bcdedit /default`, or rebuild the boot configuration with `bcdboot`.",
    },
    Explanation {
        id: "windows-boot-files-missing",
        severity: Severity::Blocks,
        text: "Neither for BIOS nor for UEFI were Windows' boot manager and boot configuration found. Usually the disk with \
               the system partition was left out. Give all disks of the machine, or write the files anew with `bcdboot`.",
    },
    Explanation {
        id: "windows-boot-other-volume",
        severity: Severity::Warns,
        text: "The machine holds several Windows, and its boot configuration starts another one than the one that was \
               prepared for the target. That one may not start there. Choose it with --root instead, or make the \
               prepared one the default with `bcdedit /default` in the source machine.",
    },
    Explanation {
        id: "windows-boot-path",
        severity: Severity::Warns,
        text: "The default entry of the boot configuration names a loader of the other kind of firmware: winload.exe is \
               BIOS', winload.efi is UEFI's. Rebuild the boot configuration with `bcdboot` in the source machine.",
    },
    Explanation {
        id: "windows-boot-safe-mode",
        severity: Severity::Warns,
        text: "The boot configuration starts Windows in safe mode. What is to be done at the first start at the target is \
               done by a service, and few of those start in safe mode. Take it back with `bcdedit /deletevalue {default} safeboot`.",
    },
    Explanation {
        id: "windows-boot-store-unreadable",
        severity: Severity::Blocks,
        text: "The boot configuration is damaged, or holds more than any real one. What would be made of it cannot be \
               told, so nothing is changed. Rebuild it in the source machine with `bootrec /rebuildbcd` or `bcdboot`.",
    },
    Explanation {
        id: "windows-disk-signature-twice",
        severity: Severity::Warns,
        text: "Two of the machine's disks have the same signature or partition GUID: one is a copy of the other. Windows \
               takes one of them offline, and which one can change. Leave the copy out with --skip-disk, or give it \
               another signature with diskpart.",
    },
    Explanation {
        id: "windows-fallback-loader",
        severity: Severity::Warns,
        text: "A machine at another hypervisor has empty UEFI variables, and its firmware starts the loader of the fallback \
               path. That is not Windows' own here, and it stays. If it does not start Windows, choose Windows Boot Manager in the firmware's menu once.",
    },
    Explanation {
        id: "windows-firmware-bios",
        severity: Severity::Blocks,
        text: "The machine's definition says UEFI, and its disks are set up for BIOS. It would not start. Set the \
               firmware to BIOS, or convert the disk for UEFI in the running guest with `mbr2gpt` before.",
    },
    Explanation {
        id: "windows-firmware-uefi",
        severity: Severity::Blocks,
        text: "The machine's definition says BIOS, and its disks are set up for UEFI. It would not start. Set the \
               firmware to UEFI.",
    },
    Explanation {
        id: "windows-hypervisor-starts",
        severity: Severity::Notes,
        text: "Windows is set to start its own hypervisor below itself, for Hyper-V, WSL 2 or protected memory. Without \
               nested virtualisation at the target Windows starts without those. Offer it there if they are needed.",
    },
    Explanation {
        id: "windows-installer-no-room",
        severity: Severity::Warns,
        text: "An agent's installer was given (--agent-installer), and the guest's system volume has no room for it. It was not \
               put there. Free some room in the guest and convert again, or install the agent on the target.",
    },
    Explanation {
        id: "windows-installer-staged",
        severity: Severity::Notes,
        text: "The installer of the target's agent was put into the guest, below the folder landfall of Windows, and is run \
               there once, at the first start, without anybody at the screen; the script waits half an hour for it. A wish \
               to restart is granted once. An installer that has succeeded is removed; one that failed stays to be \
               run by hand. done.json, the step's log and the installer's own log (agents\\….log) tell what came of it.",
    },
    Explanation {
        id: "windows-installer-there",
        severity: Severity::Notes,
        text: "An agent's installer was given (--agent-installer), and the guest has that agent in the same or a later version, \
               or in one that cannot be compared. It stays as it is. Replace it in the running guest if that is wanted.",
    },
    Explanation {
        id: "windows-installer-unfit",
        severity: Severity::Warns,
        text: "An installer was given (--agent-installer) that is not for this guest: its agent belongs to another \
               platform than the target, it is for another processor, its agent is to be left off, or another installer of the \
               same agent was named before. It was not put into the guest. Several installers can be given: each \
               guest gets the one that is for it, and nothing is said of the others then.",
    },
    Explanation {
        id: "windows-installer-unknown",
        severity: Severity::Warns,
        text: "An installer was given (--agent-installer) that is not known: landfall goes by the product's name in it, and runs only \
               what it knows how to run without anybody at the screen. Known are VMware Tools, the QEMU guest agent, \
               virtio-win-guest-tools, virtio-win's drivers, the SPICE agent, Nutanix Guest Tools, the tools of XenServer and XCP-ng, \
               Azure's VM agent and the VirtualBox additions. Anything else can be installed on the target.",
    },
    Explanation {
        id: "windows-letter-missing",
        severity: Severity::Notes,
        text: "The guest remembers a drive letter for a partition that is on none of the given disks. It may be a stick \
               or a disk of long ago; if it is one of the machine's disks, give that, too.",
    },
    Explanation {
        id: "windows-registry-conflict",
        severity: Severity::Warns,
        text: "A line of the --registry file changes what landfall has to change, too. The user's line counts. If the \
               machine does not start or has no network, take the line out and convert again.",
    },
    Explanation {
        id: "windows-registry-file",
        severity: Severity::Notes,
        text: "The --registry file was applied to the guest's registry. The report lists each edit with the previous \
               value. A pass back does not take them back: apply a file with the old values for that.",
    },
    Explanation {
        id: "windows-registry-hive-missing",
        severity: Severity::Blocks,
        text: "The --registry file changes a key of a hive that the guest has no file for. A file is applied as a whole \
               or not at all. Take the line out.",
    },
    Explanation {
        id: "windows-system-letter",
        severity: Severity::Warns,
        text: "Windows lies on another volume than the one whose drive letter it calls itself by. This is what a disk \
               looks like that was copied inside its own machine. Nobody can log on to such a system while both are \
               there. Leave one of the two disks out with --skip-disk.",
    },
    Explanation {
        id: "windows-test-signing",
        severity: Severity::Notes,
        text: "The boot configuration accepts drivers with test signatures. Firmware with secure boot ignores that, and \
               such drivers do not load then. Switch it off unless a driver of the machine needs it.",
    },
];
