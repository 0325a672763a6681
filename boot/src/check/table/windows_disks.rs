//! What is found of the disks of a Windows guest: their states, and what hides a system.

use super::super::{Explanation, Severity};

pub(super) const ROWS: &[Explanation] = &[
    Explanation {
        id: "windows-bitlocker",
        severity: Severity::Blocks,
        text: "A volume is encrypted with BitLocker, and no system was found outside of it, so nothing of Windows can be read \
               or changed. Its recovery password opens it, or the password that it asks for; a key in a TPM or on a USB stick \
               does not. So does suspending BitLocker in the source machine (`manage-bde -protectors -disable C: -rebootcount \
               0`), which also keeps the target from asking for the recovery password. `manage-bde -off C:` decrypts it for \
               good.",
    },
    Explanation {
        id: "windows-bitlocker-data",
        severity: Severity::Notes,
        text: "A data volume is encrypted with BitLocker. It is copied as it is, and Windows unlocks it on the target as \
               before, by a key on its system volume or by a password. Where it was bound to the machine's TPM, the recovery \
               key is asked for.",
    },
    Explanation {
        id: "windows-bitlocker-key-wrong",
        severity: Severity::Warns,
        text: "A volume is encrypted with BitLocker, and the given key is neither its recovery password nor its password. The \
               recovery password belongs to one volume: eight groups of six digits, which `manage-bde -protectors -get C:` shows. \
               Another finding says so if the guest needs the volume to start.",
    },
    Explanation {
        id: "windows-bitlocker-not-opened",
        severity: Severity::Warns,
        text: "A volume is encrypted with BitLocker in a state or a way that is not opened: its encryption is under way or \
               paused, it encrypts only what is written, it is of Windows Vista, its metadata are damaged. It is copied as it \
               is. Let the encryption finish, or turn BitLocker off in the source machine.",
    },
    Explanation {
        id: "windows-bitlocker-system",
        severity: Severity::Warns,
        text: "Windows itself lies on a volume of BitLocker. It was opened, and what is changed is encrypted again with the same \
               keys. A protector in the old machine's TPM does not work on the target, and the boot chain there is another: \
               unless protection is suspended, Windows asks for the recovery password once. Have it at hand, and let BitLocker \
               make a new protector afterwards.",
    },
    Explanation {
        id: "windows-boot-unclear",
        severity: Severity::Blocks,
        text: "Several partitions hold a boot manager of Windows and its store, and neither the disk nor the active flag tells \
               which one the firmware starts. Changing the wrong one would leave a machine that does not start. Leave out the \
               disk that does not belong to the machine, or remove what is not used there.",
    },
    Explanation {
        id: "windows-data-not-opened",
        severity: Severity::Notes,
        text: "A partition belongs to a Dynamic Disk or to Storage Spaces, or has ReFS. The system does not lie on it, so it is \
               copied as it is, and Windows finds it again by what is written on the disks. All disks of such a set have to be \
               converted together.",
    },
    Explanation {
        id: "windows-hibernated",
        severity: Severity::Blocks,
        text: "Windows was hibernated, or shut down with Fast Startup, which hibernates the kernel: hiberfil.sys holds a system \
               that believes in the old hardware and in file systems that stand still. Changing those and resuming it \
               destroys data. Switch hibernation off in the source machine (`powercfg /h off`) and shut it down with `shutdown \
               /s /t 0`; or convert with --discard-hibernation, which removes the file of the system that is converted. Another Windows \
               that sleeps beside it has to be started and shut down.",
    },
    Explanation {
        id: "windows-hibernation-discarded",
        severity: Severity::Warns,
        text: "Windows was hibernated, and --discard-hibernation was given: hiberfil.sys is removed from the copy, and Windows \
               starts anew instead of resuming. What programs had not saved is lost, as after a loss of power. The source \
               keeps its file.",
    },
    Explanation {
        id: "windows-ntfs-dirty",
        severity: Severity::Blocks,
        text: "A volume of Windows carries the mark by which Windows checks it at the next start: it met an error there. Writing \
               to a damaged file system may damage more, so nothing is changed and the mark is never removed. Run `chkdsk /f` \
               in the source machine, restart it so that the check can run, and convert again.",
    },
    Explanation {
        id: "windows-ntfs-log",
        severity: Severity::Notes,
        text: "A volume of Windows was in use when its disk was copied, as in every snapshot of a running machine. The kernel of \
               the sandbox replays its journal into the copy, as Windows would at its next start. What programs had not written \
               is not there; where that matters (databases), shut the source machine down or use a snapshot that quiesces \
               the guest.",
    },
    Explanation {
        id: "windows-ntfs-log-damaged",
        severity: Severity::Blocks,
        text: "The journal of a volume of Windows begins with nothing that is known, or the records that tell of its state \
               cannot be read, so nobody can say whether the volume is complete. Windows itself repairs that. Run `chkdsk /f` in the source machine, shut it down, and convert again.",
    },
    Explanation {
        id: "windows-ntfs-old",
        severity: Severity::Blocks,
        text: "A volume has NTFS of Windows NT 4 or older. Neither such a guest nor its file system is handled. landfall disk \
               convert still converts the disks, as they are.",
    },
    Explanation {
        id: "windows-system-not-opened",
        severity: Severity::Blocks,
        text: "No system was found, and a partition belongs to a Dynamic Disk or to Storage Spaces, or has ReFS, none of which is \
               opened: one side of a mirror may not be changed alone. Move the system to NTFS on a basic disk in the source \
               machine, or convert the disks alone with landfall disk convert after installing the target's drivers.",
    },
];
