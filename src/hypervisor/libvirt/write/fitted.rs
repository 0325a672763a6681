//! A machine as libvirt and QEMU take it: where its parts go, which values fit, and the findings on what does not.

use crate::finding;
use crate::hypervisor::xml::{holdable, is_plain};
use crate::hypervisor::{Placement, fit, guests};
use crate::machine::{BootDevice, Bus, DiskSlot, Machine, NicSlot};
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::{Error, Result};

const TITLE: &str = "libvirt";
/// The network that libvirt makes when it is installed.
const USUAL_NETWORK: &str = "default";
/// OVMF looks at the targets 0 to 31 of a virtio SCSI controller, and at no others for a disk to start.
const ON_A_SCSI_CONTROLLER: usize = 31;

/// What a card is plugged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plug<'a> {
    /// A network of libvirt's.
    Network(&'a str),
    /// A bridge of the host.
    Bridge(&'a str),
    /// A bridge of Open vSwitch.
    OpenVswitch(&'a str),
    /// Nothing: the card is there, and its cable is not.
    Nothing,
}

/// The name of a network that is none.
pub const NO_NETWORK: &str = "none";

/// The machine and what was found out about it. Lists are in the order of the machine's.
pub struct Fitted<'a> {
    pub machine: &'a Machine,
    pub placement: &'a Placement,
    /// Names and values of SMBIOS' system table, but for its UUID.
    pub smbios: Vec<(&'static str, String)>,
    /// The serial number of each disk, where it has one that fits.
    pub serials: Vec<Option<&'a str>>,
    pub plugs: Vec<Plug<'a>>,
    /// Names of `landfall prove --hardware`.
    pub cards: Vec<&'a str>,
    /// Place of the boot disk in the order of starting, 1 and up.
    pub disk_order: usize,
    /// Places of the cards that are started from.
    pub nic_orders: Vec<Option<usize>>,
    pub findings: Vec<Finding>,
}

impl<'a> Fitted<'a> {
    pub fn new(machine: &'a Machine, placement: &'a Placement) -> Result<Fitted<'a>> {
        let (disk_order, nic_orders) = order(machine);
        let mut fitted = Fitted {
            machine,
            placement,
            smbios: Vec::new(),
            serials: Vec::new(),
            plugs: Vec::new(),
            cards: Vec::new(),
            disk_order,
            nic_orders,
            findings: Vec::new(),
        };
        fitted.identity();
        fitted.texts();
        for disk in &machine.disks {
            let serial = fitted.serial(disk);
            fitted.serials.push(serial);
        }
        for nic in &machine.nics {
            fitted.cards.push(card(nic)?);
            let plug = fitted.plug(nic)?;
            fitted.plugs.push(plug);
        }
        fitted.surroundings();
        Ok(fitted)
    }

    /// The controller and the target on it of the disk with that number.
    pub fn scsi_place(index: usize) -> (usize, usize) {
        (index / ON_A_SCSI_CONTROLLER, index % ON_A_SCSI_CONTROLLER)
    }

    /// How many virtio SCSI controllers there are.
    pub fn scsi_controllers(&self) -> usize {
        let last = self.machine.disks.iter().rposition(|disk| disk.bus == Bus::VirtioScsi);
        last.map_or(0, |index| Self::scsi_place(index).0 + 1)
    }

    fn lose(&mut self, what: Vec<String>, remedy: &str) {
        self.findings.extend(fit::not_held(&what, TITLE, remedy));
    }

    fn identity(&mut self) {
        let smbios = &self.machine.smbios;
        let mut cut = Vec::new();
        for (name, value) in [
            ("manufacturer", &smbios.manufacturer),
            ("product", &smbios.product),
            ("version", &smbios.version),
            ("serial", &smbios.serial),
            ("sku", &smbios.sku),
            ("family", &smbios.family),
        ] {
            let Some(value) = value.as_ref().filter(|value| !value.is_empty()) else { continue };
            let plain: String = value.chars().filter(|letter| is_plain(*letter)).collect();
            if plain != *value {
                cut.push(format!("the control characters in SMBIOS' {name} {value:?}"));
            }
            if !plain.is_empty() {
                self.smbios.push((name, plain));
            }
        }
        self.lose(cut, "Look whether licences go by it.");
    }

    fn texts(&mut self) {
        let machine = self.machine;
        // A line break in front of another is of no account, and XML's readers drop it.
        let is_cut = |text: &str| holdable(text) != text.replace('\r', "");
        let mut cut = Vec::new();
        if machine.annotation.as_deref().is_some_and(is_cut) {
            cut.push("the control characters in the annotation".to_owned());
        }
        let tags = machine.tags.iter().filter(|tag| tag.trim() != tag.as_str() || is_cut(tag));
        cut.extend(tags.map(|tag| format!("blanks around the tag {tag:?}, and control characters in it")));
        if let (None, None, Some(label)) = (&machine.os, guests::libosinfo_id(machine), &machine.os_label)
            && !label.is_empty()
        {
            cut.push(format!("the operating system's label {label:?}, which libosinfo does not know"));
        }
        self.lose(cut, "Nothing in the guest goes by it; virt-xml --edit --osinfo sets the system's name.");
    }

    fn serial(&mut self, disk: &'a DiskSlot) -> Option<&'a str> {
        let serial = disk.serial.as_deref().filter(|serial| !serial.is_empty())?;
        // QEMU cuts a longer one off, or does not start.
        let at_most = if disk.bus == Bus::VirtioScsi { 36 } else { 20 };
        let is_fine =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'+' | b'-' | b' ');
        if serial.len() <= at_most && serial.bytes().all(is_fine) && serial.trim() == serial {
            return Some(serial);
        }
        self.lose(
            vec![format!(
                "the serial number {serial:?} of {} (up to {at_most} letters, digits, blanks and _.+- are possible)",
                disk.slot
            )],
            "Let the guest find the disk by the UUID of its file system instead of /dev/disk/by-id.",
        );
        None
    }

    fn plug(&mut self, nic: &'a NicSlot) -> Result<Plug<'a>> {
        let placement = self.placement;
        let chosen = placement.networks.chosen(nic);
        let name = chosen.unwrap_or(USUAL_NETWORK);
        let plug = match (name.strip_prefix("bridge:"), name.strip_prefix("ovs:")) {
            (Some(bridge), _) => Plug::Bridge(bridge),
            (_, Some(bridge)) => Plug::OpenVswitch(bridge),
            _ if chosen == Some(NO_NETWORK) => Plug::Nothing,
            _ => Plug::Network(name),
        };
        let (word, fine) = match plug {
            Plug::Network(name) => ("network", !name.is_empty() && name.chars().all(is_plain)),
            Plug::Bridge(name) | Plug::OpenVswitch(name) => {
                let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:".contains(&byte);
                ("bridge", !name.is_empty() && name.bytes().all(is_fine))
            }
            Plug::Nothing => return Ok(plug),
        };
        if !fine {
            return Err(Error::refused(format!("there is no {word} with the name {name:?}"))
                .hint("name a network of libvirt, bridge:NAME or ovs:NAME with --network or --map-network"));
        }
        if let (None, Some(source)) = (chosen, &nic.network)
            && source != USUAL_NETWORK
        {
            self.findings.push(finding::NOT_HELD.finding(
                format!(
                    "{} was in the network {source:?}; it is plugged into {USUAL_NETWORK:?}, behind address translation.",
                    nic.slot
                ),
                "Name the right network, or bridge:NAME, with --map-network or --network.",
            ));
        }
        if let Some(tag) = nic.vlan.filter(|_| !matches!(plug, Plug::OpenVswitch(_))) {
            self.findings.push(finding::NOT_HELD.finding(
                format!(
                    "{} is in the VLAN {tag}, and libvirt before 11.0 gives no tag to a card on {name:?}: its frames have none.",
                    nic.slot
                ),
                "Plug it into Open vSwitch with --map-network NETWORK=ovs:BRIDGE, or into a bridge whose port on the host is in that \
                 VLAN.",
            ));
        }
        Ok(plug)
    }

    fn surroundings(&mut self) {
        let machine = self.machine;
        let is_uefi = machine.firmware == Firmware::Uefi;
        if machine.secure_boot && !is_uefi {
            self.lose(vec!["secure boot with BIOS".to_owned()], "Change the guest to UEFI before the move.");
        }
        if machine.tpm {
            self.findings.push(finding::TPM.finding(
                "libvirt makes the new, empty TPM with swtpm.",
                "Install swtpm at the target's host.",
            ));
        }
        let drives = [BootDevice::Cdrom, BootDevice::Floppy];
        if machine.boot_order.iter().any(|device| drives.contains(device)) {
            self.findings.push(finding::DEVICE_LEFT_OUT.finding(
                "The source tries a CD or floppy drive at its start, too; the machine has none, and starts without it.",
                "",
            ));
        }
    }
}

/// Places in the order of starting, 1 and up: the boot disk's, and those of cards that the definition names.
fn order(machine: &Machine) -> (usize, Vec<Option<usize>>) {
    let mut disk = None;
    let mut nics = vec![None; machine.nics.len()];
    let mut next = 1;
    for device in &machine.boot_order {
        let place = match device {
            BootDevice::Disk => Some(&mut disk),
            BootDevice::Nic(index) => nics.get_mut(*index),
            // There are no such drives.
            BootDevice::Cdrom | BootDevice::Floppy => None,
        };
        if let Some(place) = place.filter(|place| place.is_none()) {
            *place = Some(next);
            next += 1;
        }
    }
    (disk.unwrap_or(next), nics)
}

/// The card's model, of those that QEMU has.
fn card(nic: &NicSlot) -> Result<&str> {
    match nic.model.as_deref() {
        None | Some("virtio-net" | "virtio") => Ok("virtio-net"),
        Some(model @ ("e1000" | "e1000e" | "vmxnet3" | "rtl8139")) => Ok(model),
        Some(other) => {
            Err(Error::corrupt(format!("{} is {other:?}, a card that KVM does not have", nic.slot)))
        }
    }
}
