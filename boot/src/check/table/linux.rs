//! What is found in a Linux guest.

use super::super::{Explanation, Severity};

pub(super) const ROWS: &[Explanation] = &[
    Explanation {
        id: "linux-agent-by-owner",
        severity: Severity::Notes,
        text: "The target's guest agent is installed, but its service is masked, and it was not landfall that did \
               it. An owner's decision is not overruled. Run systemctl unmask on the target if the agent is wanted \
               there.",
    },
    Explanation {
        id: "linux-agent-enabled",
        severity: Severity::Notes,
        text: "The target's guest agent is installed and would not have started: its unit was not enabled, or an \
               earlier pass to another platform had switched it off. It was enabled in the way that its unit asks \
               for. Convert with --keep NAME to leave it as it is.",
    },
    Explanation {
        id: "linux-agent-inert",
        severity: Severity::Notes,
        text: "An agent of the old hypervisor is installed, and its services check for that hypervisor before \
               they start. It does no harm on the target and is there again after a move back. It can be \
               uninstalled with the distribution's tools once the machine stays.",
    },
    Explanation {
        id: "linux-agent-installer",
        severity: Severity::Warns,
        text: "An agent's installer for Windows was given (--agent-installer), and this guest is Linux. Nothing of it was done. \
               Leave the option out for this machine, and install the agent that the distribution has.",
    },
    Explanation {
        id: "linux-agent-missing",
        severity: Severity::Notes,
        text: "The target's guest agent shuts the machine down cleanly, reports its addresses and quiesces file \
               systems for snapshots. The machine runs without it. Install it as the remedy says: distributions call \
               its package differently, and some agents come from the hypervisor.",
    },
    Explanation {
        id: "linux-agent-off",
        severity: Severity::Notes,
        text: "An agent of another platform would start on the target and fail, or wait for hardware that is not \
               there; or it was to be dropped. Its services got a condition (a file 90-landfall.conf beside the \
               unit), or lost their start links where the guest has no systemd. A pass to the agent's own platform \
               takes that back. Keep it with --keep NAME, or uninstall it on the target.",
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
        id: "linux-console",
        severity: Severity::Notes,
        text: "The kernel's parameters or a login named Xen's console, which is absent elsewhere, or the target \
               shows nothing but a serial line. Now they name the serial line in addition to the screen. Choose \
               other consoles in the named files if the machine is watched otherwise.",
    },
    Explanation {
        id: "linux-console-by-hand",
        severity: Severity::Warns,
        text: "A block of fixed length that holds kernel parameters has no room for another console. The machine \
               starts, but a serial console shows nothing of it. Shorten the parameters on the target and add the \
               console by hand.",
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
        id: "linux-default-kernel-unchecked",
        severity: Severity::Blocks,
        text: "The kernel that starts by default has no list of its modules, so it is not known which drivers it \
               has, and its initramfs was not changed: the machine would most likely stop there. Its folder of \
               modules may be damaged, or lie elsewhere. Reinstall the kernel's package in the guest, or make \
               another kernel the default of the boot loader. A kernel that was built by hand without modules is \
               judged by its configuration in /boot.",
    },
    Explanation {
        id: "linux-driver-forbidden",
        severity: Severity::Warns,
        text: "The guest's configuration of modprobe or dracut, or a kernel parameter in its boot loader, forbids a \
               driver that the target's devices need, as hardening guides sometimes do. If the module is needed for \
               the root disk the machine does not start; if for the network card it has no network. Remove the line \
               or the name in the guest, and rebuild the initramfs with the distribution's tool.",
    },
    Explanation {
        id: "linux-efi-bits",
        severity: Severity::Blocks,
        text: "The boot loaders on the EFI system partition are for 32-bit UEFI, as some tablets and early \
               machines have it. Virtual machines have 64-bit UEFI, which cannot start them. Install the 64-bit \
               loader in the guest beside the other, or start the machine by BIOS where it has a loader for that.",
    },
    Explanation {
        id: "linux-efi-fallback-replaced",
        severity: Severity::Notes,
        text: "Boot entries in the firmware's memory do not move with the disks, so the target starts EFI/BOOT/BOOTX64.EFI. \
               There lay a loader that does not start this guest: another system's, or a GRUB of another version than \
               its modules. Now the guest's own loader is there, and the old one lies beside it under a name that ends \
               in landfall-old. Rename it back if the machine is to start by it.",
    },
    Explanation {
        id: "linux-efi-fallback-unknown",
        severity: Severity::Warns,
        text: "Boot entries in the firmware's memory do not move with the disks, so the target starts EFI/BOOT/BOOTX64.EFI, \
               and what lies there was not recognised: a boot manager of the owner's, a kernel, or what another system \
               left. It was kept. Check that the guest starts by it, or put the guest's own loader in its place.",
    },
    Explanation {
        id: "linux-entry-unchecked",
        severity: Severity::Warns,
        text: "A boot entry starts a kernel of which neither name, package nor image tells which folder of modules \
               is its own. It may belong to another system on the same disk. Its parameters were looked at, its \
               initramfs was not: the entry may not start on the target. Choose another one, or reinstall the \
               kernel's package in the guest.",
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
               longer than any sane file of its kind, or one of more than any sane guest has. Nothing in it was \
               checked or changed. Look at it by hand before the machine is relied upon.",
    },
    Explanation {
        id: "linux-firmware-mismatch",
        severity: Severity::Blocks,
        text: "The boot loader on the disks is for one kind of firmware, BIOS or UEFI, and the target machine \
               was asked to have the other. It would not find a loader. Set the other firmware in a copy of the \
               machine's definition, or install the missing loader in the guest first.",
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
        text: "The package of GRUB (Debian's grub-pc, SUSE's grub_installdevice) remembers the disk to which it \
               installs GRUB by a name of the old hardware. Nothing happens until the next upgrade, which then asks \
               a question or fails. On the target run dpkg-reconfigure grub-pc, or write the disk into the file that \
               is named.",
    },
    Explanation {
        id: "linux-grub-uuid-unknown",
        severity: Severity::Warns,
        text: "GRUB's configuration searches a file system by a UUID that none of the given disks has. Either a \
               disk of the machine is missing from the conversion, or the configuration is stale. Check the \
               list of disks in the machine's definition.",
    },
    Explanation {
        id: "linux-grubenv-full",
        severity: Severity::Blocks,
        text: "GRUB's environment block has a fixed length, and the kernel parameters in it would not fit with \
               UUIDs in place of device names. GRUB would pass the old device name, and the boot would stop in \
               the initramfs. Shorten the parameters with grub2-editenv in the guest.",
    },
    Explanation {
        id: "linux-initramfs-names",
        severity: Severity::Warns,
        text: "An initramfs carries kernel parameters or a script with it that name a device as the old hypervisor's kernel \
               called it, and it is not certain which volume is meant. What the boot entry says comes first, so the \
               machine may start all the same. Name the device by UUID in the guest and build the initramfs anew.",
    },
    Explanation {
        id: "linux-initramfs-tool-unknown",
        severity: Severity::Warns,
        text: "The drivers were added to each initramfs that is there, but the tool that builds the next one was not \
               found, so it could not be told to keep them. The machine starts now, and may not do so after the \
               next update of its kernel. Add the named drivers to that tool's configuration.",
    },
    Explanation {
        id: "linux-kdump-device",
        severity: Severity::Warns,
        text: "The configuration of crash dumps names a disk as the old hypervisor's kernel called it, such as \
               /dev/sdb1. A crash on the target would leave no dump, or write it to another disk. Name the file \
               system by UUID there, and restart kdump, which makes its initramfs anew.",
    },
    Explanation {
        id: "linux-kernel-no-disk-driver",
        severity: Severity::Blocks,
        text: "The kernel that starts by default has the driver of no kind of disk that the target offers, neither \
               as modules nor built in, so it cannot find its root file system. Install the distribution's standard \
               kernel in the guest before the move, and convert again.",
    },
    Explanation {
        id: "linux-kernel-no-nic-driver",
        severity: Severity::Warns,
        text: "A kernel has no driver for the network card that the machine gets. It starts without network. \
               Install the distribution's standard kernel in the guest before the move.",
    },
    Explanation {
        id: "linux-kernel-other-bus",
        severity: Severity::Warns,
        text: "The kernel that starts by default has no driver for the target's preferred kind of disk, but it has \
               one for another kind that the target offers. The machine's definition attaches the disks in that \
               way. Do not change it at the target before another kernel is installed.",
    },
    Explanation {
        id: "linux-kernel-other-nic",
        severity: Severity::Warns,
        text: "The kernel that starts by default has no driver for the target's preferred network card, but it has \
               one for another card that the target offers. The machine's definition has cards of that type. Do not \
               change them at the target before another kernel is installed.",
    },
    Explanation {
        id: "linux-kernel-unchecked",
        severity: Severity::Warns,
        text: "A kernel that is not the default lies in /boot without its list of modules, so it is not known which \
               drivers it has, and its initramfs was not changed. It may have been built by hand with everything \
               built in, or its modules may be damaged. Start another kernel on the target, or reinstall this one's \
               package in the guest before the move.",
    },
    Explanation {
        id: "linux-kernel-without-initramfs",
        severity: Severity::Blocks,
        text: "The kernel that starts by default has no initramfs, so the driver of the root disk has to be built \
               in, and none of the target's is. Build one in the guest, or install the distribution's standard kernel, \
               and convert again.",
    },
    Explanation {
        id: "linux-kernel-xen-only",
        severity: Severity::Blocks,
        text: "The kernel that starts by default was built for Xen's paravirtual machines, as RHEL 5 and SUSE had \
               one for guests of Xen. It finds none of the hardware of another hypervisor, and does not even start \
               there. Install the distribution's standard kernel in the guest, make it the default of the boot \
               loader, and convert again.",
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
        text: "A line of /etc/fstab with the option nofail or _netdev names a device in a way that changes with the \
               hypervisor, and no volume was certain. The machine starts without this mount. Name the file \
               system by UUID.",
    },
    Explanation {
        id: "linux-multipath-in-use",
        severity: Severity::Warns,
        text: "The guest uses multipath. Where it mounts or starts from maps by name, the configuration was left as it \
               is: on the target its disks may have a single path, and maps are then made under other names or not at \
               all. Where it reaches other disks on several paths (iSCSI, passed-through adapters), multipathd was \
               kept from virtual disks by their vendor, and from nothing else. Check both on the target.",
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
        id: "linux-network-static",
        severity: Severity::Warns,
        text: "An address is fixed in the guest, and the target's network gives every machine its addresses by DHCP and lets \
               no others through. Set the address at the card's network interface on the target, and let the guest \
               ask for it: a network map with dhcp = true does that.",
    },
    Explanation {
        id: "linux-nic-address-refused",
        severity: Severity::Blocks,
        text: "A card of the machine is to have another hardware address at the target, and the guest cannot be made to go by \
               it: it is no address, or another card of the machine has it on the source or gets it, too. Which card a file \
               in the guest means could not be told after the move, and two networks might be exchanged. Give every card \
               an address of its own that is new to the machine.",
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
        id: "linux-nic-identifier",
        severity: Severity::Notes,
        text: "A DHCP client in the guest calls itself by an identifier that was once made of a card's hardware address, and \
               that card has another address at the target. The identifier was left as it is, because a server may know the \
               machine by it. Two machines with one identifier get one address, so give the copy another where both run.",
    },
    Explanation {
        id: "linux-nic-lease",
        severity: Severity::Notes,
        text: "An interface asks for its address by DHCP on a card that has another hardware address at the target. Where the \
               server knows the machine by that, it gives another IP address, and addresses that IPv6 makes of it change, \
               too. Let the server reserve the machine's address for the new hardware address.",
    },
    Explanation {
        id: "linux-nic-mac-unknown",
        severity: Severity::Warns,
        text: "The network configuration looks for a hardware address that no card in the machine's definition \
               has. The interface stays unconfigured unless the target's card gets that address. Compare the \
               definition with the configuration.",
    },
    Explanation {
        id: "linux-nic-new-address",
        severity: Severity::Warns,
        text: "The target gives every card a new hardware address, and part of the guest goes by the old one: a file that \
               looks for it or sets it, or names of several cards, which only it tells apart. A single card's name is \
               kept by its driver instead. Let the file go by the interface's name; write .link files with the new \
               addresses where there are several cards.",
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
        id: "linux-nic-old-address",
        severity: Severity::Warns,
        text: "A card has another hardware address at the target, and a file of the guest that landfall does not edit holds the \
               old one, or sets an address of its own. What reads the file would not find the card, or gives it an \
               address that the source may have, too. Put the new address in its place. Programs elsewhere, in /opt for \
               example, may have a licence for the old address: ask their vendor for another.",
    },
    Explanation {
        id: "linux-nic-swapped",
        severity: Severity::Warns,
        text: "An interface with a name of the kernel's own kind (eth0, eth1) belongs to a card that the kernel, by the \
               order of the slots, gives another such name first. Current udev does not exchange two names, and the \
               cards may come up with each other's name. Put the cards into the order of their names in the \
               target's definition.",
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
        text: "A kernel that is not the default cannot drive the disks in the way in which they are attached for \
               the default one. The machine starts by its default kernel, but this entry of the boot menu does not \
               work on the target. Remove the kernel, or attach the disks by the bus that the remedy names when it \
               has to be used.",
    },
    Explanation {
        id: "linux-old-kernel-xen-only",
        severity: Severity::Warns,
        text: "A kernel that is not the default was built for Xen's paravirtual machines. The machine starts by its \
               default kernel, but this entry of the boot menu does not work on the target.",
    },
    Explanation {
        id: "linux-packages-unchecked",
        severity: Severity::Warns,
        text: "The database of installed packages is absent, empty or damaged. Which agents and services are \
               installed was told from files, and something may have been overlooked. Check it in the guest \
               with the package manager, on Debian with dpkg --audit.",
    },
    Explanation {
        id: "linux-readdress-address-stays",
        severity: Severity::Warns,
        text: "An address of the machine itself is covered by no rule of the network map, which moves others, and was left \
               as it is. At the other site the interface would have the address of the old one. Add a rule; one that \
               turns a subnet into itself says that it is the same at both sites.",
    },
    Explanation {
        id: "linux-readdress-chain",
        severity: Severity::Warns,
        text: "The network map moves an address to one that the same map would move on, as when networks change \
               places. One pass is right, and a second pass over its result would not be. Do not apply the map to \
               a machine that it was applied to.",
    },
    Explanation {
        id: "linux-readdress-duplicate",
        severity: Severity::Blocks,
        text: "By the network map two addresses of the machine would become the same one. Nothing is written. Give \
               one of them an address of its own in the map, with a rule for the single address.",
    },
    Explanation {
        id: "linux-readdress-gateway",
        severity: Severity::Warns,
        text: "A gateway was in the network of its interface, and by the network map it will be in none of the \
               interface's networks, so nothing is reached over it. Mostly one rule gives a gateway for several \
               networks: give it the subnets that it is for, and each other network a rule of its own.",
    },
    Explanation {
        id: "linux-readdress-left",
        severity: Severity::Notes,
        text: "An address that the network map covers stands in a place that is not edited: a command that an \
               interface runs, an option for other machines, another machine's line in /etc/hosts, a bond's or tunnel's \
               settings, the configuration of a DHCP client, of an initramfs or of the kernel's command line. It was \
               left as it is. Look whether it has to change at the other site.",
    },
    Explanation {
        id: "linux-readdress-no-room",
        severity: Severity::Blocks,
        text: "The network map turns a subnet into a smaller one, in which the number of this host does not exist or \
               is the broadcast address. Nothing is written. Give the address a rule of its own, or the subnet a \
               larger one.",
    },
    Explanation {
        id: "linux-readdress-rule-unused",
        severity: Severity::Notes,
        text: "A rule of the network map is for cards in a network or for interfaces of a name, and this machine has \
               none of them, so the rule does nothing here. That is right for a map of many machines. Names of \
               networks are compared letter by letter, capitals too: compare the rule with what `landfall inspect` \
               lists.",
    },
    Explanation {
        id: "linux-readdress-scope",
        severity: Severity::Notes,
        text: "The network map is applied to the network configuration, /etc/resolv.conf and the machine's own lines \
               in /etc/hosts. Addresses in the configuration of services, databases, firewalls and applications are \
               out of its scope. Search for the old addresses there.",
    },
    Explanation {
        id: "linux-readdress-unclear",
        severity: Severity::Warns,
        text: "A value of the network configuration is written in a way that is not edited, such as a variable of the \
               shell, or the whole machine has one setting for which the network map gives several. Change it by hand \
               on the target, or write it plainly in the guest and convert again.",
    },
    Explanation {
        id: "linux-readdress-unmapped",
        severity: Severity::Notes,
        text: "An address in the network configuration is covered by no rule of the network map and was left as it is. \
               That is right for what is the same at both sites, such as a public name server. Add a rule to the map if \
               it is not.",
    },
    Explanation {
        id: "linux-readdress-unplaced",
        severity: Severity::Notes,
        text: "The network map gives a value for which no file of the guest has a place; mostly DHCP gives it. Values \
               are replaced, not invented: where nothing is configured nothing is added. Set it on the target if it is \
               needed.",
    },
    Explanation {
        id: "linux-registry-file",
        severity: Severity::Warns,
        text: "A file of registry edits was given (--registry), and this guest is Linux, which has no registry. Nothing of \
               it was done. Leave the option out for this machine.",
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
        id: "linux-secure-boot-kernel",
        severity: Severity::Warns,
        text: "The target enforces secure boot, as the source did or should have done, and the kernel that starts by \
               default carries no signature. Shim and GRUB refuse it, and the machine stops in the boot menu. Either \
               another kernel is the one that starts, or secure boot was not effective at the source.",
    },
    Explanation {
        id: "linux-secure-boot-loader",
        severity: Severity::Blocks,
        text: "The target enforces secure boot, and the program that its firmware would start from the EFI system \
               partition carries no signature. The firmware refuses it. Install shim and the signed loader of the \
               distribution, or switch secure boot off.",
    },
    Explanation {
        id: "linux-secure-boot-modules",
        severity: Severity::Warns,
        text: "Modules that were built on the machine are trusted by a key of its owner (MOK), which lives in the \
               firmware's memory and does not move with the disks. With secure boot the target's kernel refuses \
               them until the key is enrolled again. The machine starts unless they drive its disks.",
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
        id: "linux-shared-folder",
        severity: Severity::Notes,
        text: "A line of /etc/fstab mounts a folder that a desktop hypervisor shares with its guests. Elsewhere the \
               mount fails, and systemd would stop the boot in the emergency shell, so the line got the option \
               nofail. Remove it when the machine will not move back.",
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
        id: "linux-uki-fixed",
        severity: Severity::Blocks,
        text: "The guest starts by a unified kernel image, whose initramfs lacks the drivers of the target's disks. \
               A signed image cannot be changed without making its signature void, and one with several profiles is \
               not understood well enough; one whose kernel has no modules in the guest has nothing to take them \
               from. Build the image with the drivers in the guest (dracut's add_drivers, mkinitcpio's MODULES), \
               sign it there, and convert again.",
    },
    Explanation {
        id: "linux-uki-kept",
        severity: Severity::Notes,
        text: "A unified kernel image was left as it is, since it is signed or has several profiles. That does no \
               harm: the initramfs in it has the drivers of the target's disks already.",
    },
    Explanation {
        id: "linux-uki-left",
        severity: Severity::Warns,
        text: "A unified kernel image lies beside the boot entries by which the guest starts, and it would not \
               start on the target: it lacks the drivers of the disks, or names a device as the old hypervisor's \
               kernel called it. Choose another entry, or build the image anew in the guest.",
    },
    Explanation {
        id: "linux-uki-parameters",
        severity: Severity::Blocks,
        text: "The guest starts by a unified kernel image whose built-in parameters name a device in a way that \
               changes with the hypervisor. The boot would stop in the initramfs. Name the device by UUID in \
               /etc/kernel/cmdline, and build the image anew with the guest's own tool.",
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
];
