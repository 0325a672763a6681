//! What can be said of a machine's definition: the rows of findings that are not about its guest, and the way from an id to
//! its row, whoever's it is.

use landfall_boot::check::{self, Explanation, Severity};

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $severity:ident, $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Explanation =
            Explanation { id: $id, severity: Severity::$severity, text: $text };)*
        /// All of them, sorted by id.
        pub const TABLE: &[Explanation] = &[$($name),*];
    };
}

rows! {
    /// An id is taken.
    COLLISION_ID = "collision-id", Blocks,
        "Two machines would have one id at the target. Nothing is written for either. Give one of them another id in the map, or \
         none, so that the target chooses.";
    /// A hardware address is taken.
    COLLISION_MAC = "collision-mac", Blocks,
        "Two network cards would have one hardware address, so that neither would work: usually the machine at the target is an \
         earlier replica of this one, or both were copied from one template. Remove the earlier one, or give this one new \
         addresses in the map with mac = \"new\"; the guest is changed to follow.";
    /// A name is taken.
    COLLISION_NAME = "collision-name", Blocks,
        "Two machines would have one name at the target, and so one folder, there or here: letters that a target does not take \
         become others, and many targets do not tell capitals from small letters. Nothing is written for either. Give one of \
         them another name, in the fleet file or in the map.";
    /// A UUID is taken.
    COLLISION_UUID = "collision-uuid", Blocks,
        "Two machines would have one SMBIOS UUID, by which hypervisors, licences and inventories know them: one is a copy of the \
         other. Leave one of them out, or give it a new one in the map with uuid = \"new\".";
    /// The machine is made of an image.
    NO_DEFINITION = "definition-absent", Warns,
        "The source is a disk image without a definition of a machine, so what a definition says is found out from the image or \
         chosen: how the machine starts, its memory, its processors, its network cards. Serial numbers and UUID are new. Give what \
         is known of the old machine with --memory, --cpus, --firmware and --nic, or name its definition instead of the image \
         where there is one.";
    /// A device that no target gets.
    DEVICE_LEFT_OUT = "definition-device-left-out", Notes,
        "The source's definition has a device that is not made at the target: a CD or floppy drive, a sound card, a serial \
         or parallel port, a USB controller, a shared folder. The guest starts without it. Add it at the target if \
         something in the guest needs it.";
    /// A guess at a character set.
    ENCODING = "definition-encoding", Warns,
        "The definition has text in a character set that it does not name, that is not known here, or that the text is not in: a name \
         or an annotation may be read wrongly. Names of disks' files are never guessed. Save the definition as UTF-8, or \
         choose the machine's name with --name.";
    /// Work on it was not finished.
    LOCKED = "definition-locked", Warns,
        "The source's hypervisor has locked the machine: a backup, a migration, a clone, a rollback or the removal of a snapshot \
         is under way, or broke off. Its disks may be in the middle of that work. Wait for its end at the source, or \
         clear up what it left, and copy the machine again.";
    /// A setting that the target has no place for.
    NOT_HELD = "definition-not-held", Warns,
        "The source's definition says something that the target's definition has no place for, so the machine there differs \
         in it. What it is stands in the finding. Set it by hand where the target can do it, or live without.";
    /// A setting that is not read.
    NOT_READ = "definition-not-read", Notes,
        "The source's definition has settings that no part of landfall carries over: tuning of the source's hypervisor, state that it \
         keeps for itself, or a kind of device that is not known here. Their names stand in the finding, so that \
         nothing is lost in silence. Look them through once for each kind of machine.";
    /// Snapshots at the source.
    SNAPSHOTS = "definition-snapshots", Notes,
        "The machine has snapshots at the source. Its current state is what is converted, with all that the snapshots below it \
         hold; the snapshots themselves do not go over. Choose one of them with --snapshot to convert that state \
         instead.";
    /// A passed-through device.
    PASSTHROUGH = "device-passthrough", Warns,
        "A physical device of the source's host is given to the machine: a PCI or USB device, a virtual function, a graphics \
         card, a tape drive. No definition can take it along. Give the machine such a device at the target, or \
         remove its driver and its software from the guest.";
    /// Changes that are kept apart.
    DISK_INDEPENDENT = "disk-independent", Warns,
        "A disk is independent at the source: snapshots and backups leave it out, and a nonpersistent one forgets its \
         changes at power-off. What is converted is its content as it is now, and at the target it is an ordinary \
         disk. Exclude it there from backups if that was the purpose.";
    /// It is made of several images.
    DISK_LINKED = "disk-linked", Notes,
        "A disk is made of several images on top of each other, as snapshots, linked clones and differencing disks are. All of them \
         are read, and what is written is one image that needs no other. The finding names them. The images below of a \
         linked clone lie in another folder: name it with --allow.";
    /// A parent without proof.
    DISK_PARENT = "disk-parent-by-name", Warns,
        "A disk is made of several images, and the one below lies elsewhere than the upper one says. A file of the same name was taken \
         in a folder of --allow, and the format (qcow2) has no identity by which it could be checked. With a wrong one the \
         disk is a mixture. Look whether it is the right one before the machine is used.";
    /// A raw device mapping.
    DISK_RAW = "disk-raw-device", Warns,
        "A disk is a raw device mapping or a physical disk of the host. Where it can be read, its content becomes an ordinary \
         disk at the target. Software in the guest that speaks to the storage array directly (multipath agents, \
         snapshot providers, clusters) will not find it there.";
    /// Two machines write to it.
    DISK_SHARED = "disk-shared", Warns,
        "A disk is shared with other machines at the source, as clusters do. The copy at the target belongs to this machine \
         alone, and it is a copy of a moment in which others may have written. Convert all machines of the \
         cluster while they are off, and share one of the copies at the target by hand.";
    /// The definition is of another opinion.
    DISK_SIZE = "disk-size-differs", Warns,
        "The definition gives a disk another size than its image has. The image's size is what the target's disk gets. It may be \
         the wrong image, one from before or after the disk was enlarged, or a definition that was edited by hand. Compare \
         it with the source.";
    /// It cannot be opened or read.
    DISK_UNREADABLE = "disk-unreadable", Blocks,
        "A disk of the machine cannot be opened or read, so what lies on it is not known: a volume group or an array that needs \
         it is incomplete, and the guest may be on it. The finding names the file and the reason. Copy it from \
         the source again, or name a good copy with --disk SLOT=FILE.";
    /// More than the target takes.
    DISKS_TOO_MANY = "disks-too-many", Blocks,
        "The machine has more disks than the target can attach. Put several disks together in the guest (LVM, storage spaces) \
         before the move, or leave some out with --skip-disk and attach them another way.";
    /// A map's rule changed it.
    MAPPED = "machine-mapped", Notes,
        "A rule of the map that was given changes the machine on its way: its name, its processors or memory, a hardware \
         address. The file and line of the rule stand in the finding. Change the rule if that is not what is wanted.";
    /// It runs.
    RUNNING = "machine-running", Warns,
        "The definition is that of a machine that runs, so its disks change while they are read, and what is converted is a mixture of \
         moments. Shut it down first, or convert a snapshot of its disks; then read the definition again.";
    /// In the middle of its work.
    SUSPENDED = "machine-suspended", Warns,
        "The machine is suspended at the source: what is in its memory is lost, and its file systems are as after a power cut. \
         Journals are replayed, as they would be after one. Resume it and shut it down at the source for a clean \
         copy.";
    /// The target takes no such name.
    NAME_CHANGED = "name-changed", Notes,
        "The target has rules for names that the machine's own does not follow, so it gets the nearest name that does. The name \
         inside of the guest stays as it is. Choose another one with --name.";
    /// The address was made anew.
    MAC_MISSING = "nic-without-address", Notes,
        "A network card has no hardware address in the definition, because the machine was never started or its hypervisor \
         chooses one at every start. The target chooses one. A guest that ties its network configuration to the \
         address is changed to go by the card's place.";
    /// UEFI variables that are taken over.
    NVRAM_CARRIED = "nvram-carried", Notes,
        "The firmware of the target starts with the UEFI variables of the source, which lie beside the machine in a file of their own. \
         Boot entries that name devices of the source's hardware are passed over, and the fallback path starts the guest. Whether \
         secure boot holds goes by the keys in them.";
    /// UEFI variables.
    NVRAM = "nvram-not-carried", Notes,
        "The UEFI variables of the source (boot entries, enrolled keys) stay there: their file has a format of its own, and \
         the target makes new ones. The guest starts by the fallback path, which every loader that landfall sees to \
         has. Enrol keys of your own again where secure boot is to go by them.";
    /// It has no firmware.
    PARAVIRTUAL = "paravirtual-guest", Warns,
        "The machine is paravirtual at the source: its hypervisor starts the guest's kernel itself, and no firmware was ever asked \
         to. At every target a firmware looks for a boot loader on the disk, and the kernel for devices that are not Xen's. The \
         disk may have neither a loader nor such drivers; what was found in it stands in the other findings. Install both while \
         the guest still runs at the source, or change it into a fully virtual machine there first.";
    /// Which moment it is.
    POINT = "recovery-point", Notes,
        "The source is a recovery point: the machine as it was at the moment that the finding names. What was written later is not \
         in it. A point as after a loss of power is what the machine's file systems and databases are made for: they replay their \
         journals at the first start. Choose another moment with --at.";
    /// It is not in the definition.
    POINT_DISK_LEFT_OUT = "recovery-point-disk-left-out", Warns,
        "A disk is protected, and the machine's definition that was stored with the point does not have it, so the machine \
         comes ashore without it. It was added to the machine after its definition was stored, or belongs to another one. Store \
         the definition again with landfall protect; points from then on have it.";
    /// Two spellings of one UUID.
    UUID_ORDER = "smbios-uuid-order", Notes,
        "From virtual hardware 13 on, VMware's SMBIOS has the first three fields of the UUID with their lowest byte first, as the \
         specification wants it (VMware's article 53609). The guest so knows itself by another spelling than vSphere has for \
         the machine. landfall keeps vSphere's, by which the machine is known outside of it. Inventories, agents and \
         licences in the guest that go by the UUID may see the other spelling before and after the move: the finding names both.";
    /// A hardware address is there already.
    TARGET_ADDRESS_TAKEN = "target-address-taken", Blocks,
        "A machine at the target has a network card with the same hardware address. Most often it is another copy of this very \
         machine: two of them in one network disturb each other. Remove the other one, or give this one another \
         address with --map.";
    /// A disk's file is there already.
    TARGET_FILE_TAKEN = "target-file-taken", Blocks,
        "A file that is to be written at the target exists already, or a disk of this machine is attached to another machine there. \
         Nothing is overwritten, and no disk is given to two machines. Remove what an earlier try left, or choose \
         another name, folder or datastore.";
    /// An id is there already.
    TARGET_ID_TAKEN = "target-id-taken", Blocks,
        "A machine at the target has the same UUID, by which licences, backups and inventories know it. It is another copy of this \
         machine. Remove the other one first.";
    /// A name is there already.
    TARGET_NAME_TAKEN = "target-name-taken", Blocks,
        "The target has a machine of this name already. Remove or rename it there, or convert this one again with --name.";
    /// A network does not run.
    TARGET_NETWORK_DOWN = "target-network-down", Warns,
        "A network that the machine is to be plugged into is not there yet, or is not active. The machine can be registered and \
         does not start before the network is there. Make or start it first.";
    /// A network is not there.
    TARGET_NETWORK_MISSING = "target-network-missing", Blocks,
        "The target has no network of the name that a card is to be plugged into. Convert again with --map-network or --network and \
         one of the names that the finding lists, or make the network there first.";
    /// It could not be checked.
    TARGET_UNCHECKED = "target-not-checked", Warns,
        "Something at the target could not be looked at, so that it may or may not stand in the way. What it is stands in the \
         finding. Look yourself.";
    /// What the target says to a plan.
    TARGET_OBJECTS = "target-objects", Blocks,
        "The target was asked what it would make of the machine, and refuses it. Its own words stand in the finding. Change what they \
         are about, or choose another host or datastore.";
    /// It takes no such machine.
    TARGET_REFUSES = "target-refuses", Blocks,
        "The target, or the folder that the machine is written into, does not take it as it is, so that a conversion would be refused. \
         The finding names the reason and what can be done about it. Nothing was written.";
    /// What the target remarks.
    TARGET_REMARKS = "target-remarks", Notes,
        "The target was asked what it would make of the machine, and has a remark. Its own words stand in the finding. The machine \
         can be registered all the same.";
    /// The room is too small.
    TARGET_STORAGE = "target-storage", Blocks,
        "The storage that is to take the disks cannot do so: it has not enough room, is in maintenance or cannot be reached by the \
         host. Free space or choose another one.";
    /// A test without a network.
    TEST_UNPLUGGED = "test-unplugged", Notes,
        "The network cards of a test are there and lead nowhere, not even to one another: the hypervisor has no way to make a \
         network for the test. What the machine needs of the network at its start it waits for in vain. Use a libvirt of the \
         system (qemu:///system), or name an isolated network with --network.";
    /// Secrets in a TPM.
    TPM = "tpm-secrets", Warns,
        "The machine has a virtual TPM, and what is sealed in it cannot leave the source. At the target it has a new, empty one. \
         BitLocker asks for its recovery key at the first start, LUKS with a TPM for a passphrase. The recovery key is where it was \
         backed up (Active Directory, Entra ID, the account, on paper); on a running source manage-bde -protectors -get C: shows it, \
         and manage-bde -protectors -disable C: -RebootCount 0 suspends BitLocker until it is enabled again, so that the first start \
         asks for nothing. On Linux systemd-cryptenroll DEVICE lists what opens the volume: add a recovery key before the move \
         (systemd-cryptenroll --recovery-key DEVICE). At the target seal it anew: manage-bde -protectors -enable C:, or \
         systemd-cryptenroll --wipe-slot=tpm2 --tpm2-device=auto DEVICE. Keys of Windows Hello and certificates in the TPM are \
         made anew.";
}

/// The row of an id, of the machine or of its guest.
pub fn explain(id: &str) -> Option<&'static Explanation> {
    TABLE.iter().find(|row| row.id == id).or_else(|| check::explain(id))
}

/// Every row there is, sorted by id.
pub fn all() -> Vec<&'static Explanation> {
    let mut rows: Vec<_> = TABLE.iter().chain(check::TABLE.iter()).collect();
    rows.sort_by_key(|row| row.id);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_speak_in_sentences() {
        assert!(TABLE.windows(2).all(|pair| pair[0].id < pair[1].id));
        assert!(all().windows(2).all(|pair| pair[0].id < pair[1].id), "no id twice");
        for row in TABLE {
            assert!(
                row.text.ends_with('.') && !row.text.contains("  ") && row.text.contains(". "),
                "{}",
                row.id
            );
        }
    }
}
