//! A target whose definition is not written yet, Xen: the neutral machine as JSON, and in words what to choose there.

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
    Finding::new(BY_HAND, says, instructions(machine, networks))
}

/// The exact hardware, one sentence.
fn instructions(machine: &Machine, networks: &Networks) -> String {
    let mut parts = vec![format!(
        "Make an HVM machine with {} processor{}, {} of memory and {}",
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
        let controller = match attach::model(disk) {
            Some(DiskModel::Ide) => "IDE",
            _ => "paravirtual block device",
        };
        let is_told = machine.disks.len() > 1 && index == machine.boot_disk();
        let role = if is_told { " as the boot disk" } else { "" };
        parts.push(format!("attach {} at {}{role} ({controller})", disk.file, disk.slot));
    }
    for nic in &machine.nics {
        parts.push(card(nic, networks));
    }
    parts.join("; ") + "."
}

fn card(nic: &NicSlot, networks: &Networks) -> String {
    let model = match nic.model.as_deref() {
        Some("e1000") => "an E1000 card",
        Some("rtl8139") => "an emulated RTL8139 card",
        _ => "a network card",
    };
    let network = match (networks.chosen(nic), &nic.network) {
        (Some(target), _) => format!(", in the network {target}"),
        (None, Some(source)) => format!(", in place of {source}"),
        (None, None) => String::new(),
    };
    let plug = if nic.connected { "" } else { ", not connected" };
    let address = nic.mac.as_ref().map(|mac| format!(" with the static address {mac}")).unwrap_or_default();
    format!("add {model}{address}{network}{plug}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_boot::target::{Devices, NicModel};

    #[test]
    fn the_exact_hardware_is_named() {
        let text = "config.version = \"8\"\nmemsize = 1024\nscsi0.present = TRUE\nscsi0:0.present = TRUE\nscsi0:0.fileName = a\n\
                    ethernet0.present=TRUE\nethernet0.address=00:50:56:20:30:40\nethernet0.networkName = LAN\n";
        let machine = super::super::vmware::vmx::parse(text.as_bytes(), &Default::default()).unwrap().machine;
        let mut all = String::new();
        for firmware in [Firmware::Bios, Firmware::Uefi] {
            let old = Devices { disks: vec![DiskModel::Ide], cards: vec![NicModel::Rtl8139] };
            for devices in [Devices::default(), old] {
                let machine = Machine { firmware, ..machine.clone() };
                let mut machine = attach::adapt(&machine, Platform::Xen, &devices).unwrap();
                machine.disks[0].file = "disk0".into();
                all += &format!("{}\n", instructions(&machine, &Networks::default()));
            }
        }
        insta::assert_snapshot!(all);
    }

    /// A machine with two disks and two cards, at Xen.
    fn two_of_each() -> Machine {
        let text = "config.version = \"8\"\nscsi0.present = TRUE\nscsi0:0.present = TRUE\nscsi0:0.fileName = a\n\
                    scsi0:1.present = TRUE\nscsi0:1.fileName = b\nethernet0.present=TRUE\nethernet0.networkName = LAN\n\
                    ethernet1.present=TRUE\nethernet1.networkName = DMZ\nethernet1.startConnected = FALSE\n";
        let machine = super::super::vmware::vmx::parse(text.as_bytes(), &Default::default()).unwrap().machine;
        let machine = Machine { boot_disk: Some(1), ..machine };
        attach::adapt(&machine, Platform::Xen, &Devices::default()).unwrap()
    }

    #[test]
    fn the_boot_disk_is_told_where_there_are_several() {
        let says = instructions(&two_of_each(), &Networks::default());
        let expected = "attach b at xvda as the boot disk (paravirtual block device)";
        assert!(says.contains(expected) && says.matches("boot disk").count() == 1, "{says}");
    }

    #[test]
    fn networks_that_were_chosen_are_told() {
        let told = |networks: &Networks| {
            let says = instructions(&two_of_each(), networks);
            says.split("; add a network card").skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(told(&Networks::default()), [", in place of LAN", ", in place of DMZ, not connected."]);
        let map = vec![("DMZ".to_owned(), "site B".to_owned())];
        let networks = Networks { map: map.clone(), rest: None };
        assert_eq!(told(&networks), [", in place of LAN", ", in the network site B, not connected."]);
        let networks = Networks { map, rest: Some("prod".into()) };
        assert_eq!(told(&networks), [", in the network prod", ", in the network site B, not connected."]);
    }
}
