//! Targets whose definitions are not written yet: the neutral machine as JSON, and in words what to choose there.

use super::{Artifact, Networks, Placement, Rendered, attach};
use crate::machine::{Clock, Machine, NicSlot};
use landfall_boot::check::Finding;
use landfall_boot::target::{BY_HAND, DiskModel, Firmware, Platform};
use landfall_image::{Error, Result};

/// `machine.json`
pub fn render(machine: &Machine, _placement: &Placement) -> Result<Rendered> {
    let text = serde_json::to_string_pretty(machine)
        .map_err(|e| Error::corrupt(format!("the machine cannot be written as JSON: {e}")))?;
    Ok(Rendered { artifacts: vec![Artifact::file("machine.json", text + "\n")], findings: Vec::new() })
}

/// What has to be done by hand for the adapted `machine`, whose cards are plugged in as `networks` says.
pub fn finding(machine: &Machine, platform: Platform, networks: &Networks) -> Finding {
    let says = format!(
        "The definition for {} is not written yet: the machine has to be made there by hand.",
        platform.name()
    );
    Finding::new(BY_HAND, says, instructions(machine, platform, networks))
}

/// The exact hardware, one sentence.
fn instructions(machine: &Machine, platform: Platform, networks: &Networks) -> String {
    let mut parts = vec![format!(
        "Make {} with {} processor{}, {} of memory and {}",
        match (platform, machine.firmware) {
            (Platform::Hyperv, Firmware::Bios) => "a machine of generation 1".to_owned(),
            (Platform::Hyperv, Firmware::Uefi) => "a machine of generation 2".to_owned(),
            (Platform::Azure, Firmware::Bios) =>
                "a specialised disk of generation V1, and of it a machine".to_owned(),
            (Platform::Azure, Firmware::Uefi) =>
                "a specialised disk of generation V2, and of it a machine".to_owned(),
            (Platform::Xen, _) => "an HVM machine".to_owned(),
            _ => "a machine".to_owned(),
        },
        machine.cpus.count,
        if machine.cpus.count == 1 { "" } else { "s" },
        machine.memory,
        match (machine.firmware, machine.secure_boot) {
            (Firmware::Bios, _) => "BIOS",
            (Firmware::Uefi, false) => "UEFI, secure boot off",
            (Firmware::Uefi, true) => "UEFI, secure boot on (for Microsoft's UEFI CA)",
        }
    )];
    if machine.tpm {
        parts.push("add a TPM".into());
    }
    if machine.clock == Clock::LocalTime {
        parts.push("let its clock count local time".into());
    }
    for (index, disk) in machine.disks.iter().enumerate() {
        let model = attach::model(disk).map_or("its controller", controller);
        let role = match machine.disks.len() > 1 && index == machine.boot_disk() {
            false => String::new(),
            true if platform == Platform::Esxi && machine.firmware == Firmware::Bios && index > 0 => {
                format!(" as the boot disk, with bios.hddOrder = \"{}\"", disk.slot)
            }
            true => " as the boot disk".to_owned(),
        };
        parts.push(format!("attach {} at {}{role} ({model})", disk.file, disk.slot));
    }
    for nic in &machine.nics {
        parts.push(card(nic, platform, networks));
    }
    parts.join("; ") + "."
}

fn controller(model: DiskModel) -> &'static str {
    match model {
        DiskModel::VirtioBlk => "virtio-blk",
        DiskModel::VirtioScsi => "SCSI",
        DiskModel::Pvscsi => "VMware Paravirtual",
        DiskModel::Lsi => "LSI Logic SAS",
        DiskModel::LsiParallel => "LSI Logic Parallel",
        DiskModel::Nvme => "NVMe",
        DiskModel::Sata => "SATA",
        DiskModel::Ide => "IDE",
        DiskModel::Vmbus => "Hyper-V storage",
        DiskModel::Xen => "paravirtual block device",
    }
}

fn card(nic: &NicSlot, platform: Platform, networks: &Networks) -> String {
    let model = match nic.model.as_deref() {
        Some("vmxnet3") => "a VMXNET3 card",
        Some("e1000e") => "an E1000E card",
        Some("e1000") => "an E1000 card",
        Some("netvsc") => "a network adapter",
        Some("tulip") => "a legacy network adapter",
        Some("virtio-net") => "a VirtIO card",
        Some("rtl8139") => "an emulated RTL8139 card",
        _ => "a network card",
    };
    let network = match (networks.chosen(nic), &nic.network) {
        (Some(target), _) => format!(", in the network {target}"),
        (None, Some(source)) => format!(", in place of {source}"),
        (None, None) => String::new(),
    };
    let plug = if nic.connected { "" } else { ", not connected" };
    let address = match (&nic.mac, platform) {
        (_, Platform::Azure) => " (Azure chooses its address, and gives its IP address by DHCP)".to_owned(),
        (None, _) => String::new(),
        (Some(mac), Platform::Hyperv) => {
            format!(" with the static address {}", mac.replace(':', "-").to_uppercase())
        }
        (Some(mac), Platform::Esxi) if !is_vmwares(mac) => {
            format!(
                " with the static address {mac}, which ESXi takes with ethernetN.checkMACAddress = \"false\""
            )
        }
        (Some(mac), _) => format!(" with the static address {mac}"),
    };
    format!("add {model}{address}{network}{plug}")
}

/// ESXi takes static addresses in 00:50:56:00 to 3f.
fn is_vmwares(mac: &str) -> bool {
    let fourth = mac.strip_prefix("00:50:56:").and_then(|rest| u8::from_str_radix(rest.get(..2)?, 16).ok());
    fourth.is_some_and(|octet| octet <= 0x3f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_boot::target::Devices;

    #[test]
    fn the_exact_hardware_is_named() {
        let text = "config.version = \"8\"\nmemsize = 1024\nscsi0.present = TRUE\nscsi0:0.present = TRUE\nscsi0:0.fileName = a\n\
                    ethernet0.present=TRUE\nethernet0.address=00:50:56:20:30:40\nethernet0.networkName = LAN\n";
        let machine = super::super::vmware::vmx::parse(text.as_bytes(), &Default::default()).unwrap().machine;
        let mut all = String::new();
        for firmware in [Firmware::Bios, Firmware::Uefi] {
            for platform in Platform::ALL {
                let machine = Machine { firmware, ..machine.clone() };
                let mut machine = attach::adapt(&machine, *platform, &Devices::default()).unwrap();
                machine.disks[0].file = "disk0".into();
                let networks = Networks::default();
                all += &format!("{platform:?}: {}\n", instructions(&machine, *platform, &networks));
            }
        }
        insta::assert_snapshot!(all);
    }

    fn two_of_each() -> Machine {
        let text = "config.version = \"8\"\nscsi0.present = TRUE\nscsi0:0.present = TRUE\nscsi0:0.fileName = a\n\
                    scsi0:1.present = TRUE\nscsi0:1.fileName = b\nethernet0.present=TRUE\nethernet0.networkName = LAN\n\
                    ethernet1.present=TRUE\nethernet1.networkName = DMZ\nethernet1.startConnected = FALSE\n";
        super::super::vmware::vmx::parse(text.as_bytes(), &Default::default()).unwrap().machine
    }

    #[test]
    fn the_boot_disk_is_told_where_there_are_several() {
        for (platform, expected) in [
            (Platform::Azure, "attach b at OS disk as the boot disk (Hyper-V storage)"),
            (Platform::Hyperv, "attach b at IDE 0:0 as the boot disk (Hyper-V storage)"),
            (
                Platform::Esxi,
                "attach b at scsi0:1 as the boot disk, with bios.hddOrder = \"scsi0:1\" (VMware Paravirtual)",
            ),
        ] {
            let machine = Machine { boot_disk: Some(1), ..two_of_each() };
            let machine = attach::adapt(&machine, platform, &Devices::default()).unwrap();
            let says = instructions(&machine, platform, &Networks::default());
            assert!(says.contains(expected) && says.matches("boot disk").count() == 1, "{says}");
        }
    }

    #[test]
    fn networks_that_were_chosen_are_told() {
        let machine = attach::adapt(&two_of_each(), Platform::Esxi, &Devices::default()).unwrap();
        let told = |networks: &Networks| {
            let says = instructions(&machine, Platform::Esxi, networks);
            says.split("; add a VMXNET3 card").skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(told(&Networks::default()), [", in place of LAN", ", in place of DMZ, not connected."]);
        let map = vec![("DMZ".to_owned(), "site B".to_owned())];
        let networks = Networks { map: map.clone(), rest: None };
        assert_eq!(told(&networks), [", in place of LAN", ", in the network site B, not connected."]);
        let networks = Networks { map, rest: Some("prod".into()) };
        assert_eq!(told(&networks), [", in the network prod", ", in the network site B, not connected."]);
    }

    #[test]
    fn addresses_that_esxi_does_not_take_are_told() {
        assert!(is_vmwares("00:50:56:3f:00:00") && !is_vmwares("00:50:56:40:00:00"));
        assert!(!is_vmwares("00:0c:29:00:00:01") && !is_vmwares("00:50:56:"));
    }
}
