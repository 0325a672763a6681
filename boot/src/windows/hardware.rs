//! Which of the target's devices a Windows guest can drive, which of them the machine's definition has to offer, and which of
//! the guest's own drivers must start with the boot loader for it.
//!
//! What is inbox differs by edition and was taken out of some releases again, so nothing is concluded from the version: a driver
//! counts where it is registered and its file lies there. Drivers that are put in come before this
//! ([`super::drivers`]). Deliberately absent: drivers' own settings; no value but `Start` and `StartOverride` is touched.

use super::draft::{Draft, Version};
use super::services;
use crate::Result;
use crate::target::{DiskModel, Firmware, NicModel, Platform};

/// A way in which a disk can be attached, as Windows drives it.
struct Way {
    model: DiskModel,
    /// One of each set must be there; all of them start with the boot loader.
    drivers: &'static [&'static [&'static str]],
    /// The firmware that can start from it there; `None` for both.
    firmware: Option<Firmware>,
}

/// A network card: one of the drivers must be there, or a package for its hardware id in the driver store.
struct Card {
    model: NicModel,
    drivers: &'static [&'static str],
    /// Below PCI, as the driver database names it.
    id: Option<&'static str>,
}

const fn way(model: DiskModel, drivers: &'static [&'static [&'static str]]) -> Way {
    Way { model, drivers, firmware: None }
}

const fn card(model: NicModel, drivers: &'static [&'static str]) -> Card {
    Card { model, drivers, id: None }
}

/// `storahci` since Windows 8, `msahci` before.
const SATA: Way = way(DiskModel::Sata, &[&["storahci", "msahci"]]);
const IDE: Way = way(DiskModel::Ide, &[&["intelide"], &["atapi"]]);
const NVME: Way = way(DiskModel::Nvme, &[&["stornvme"]]);
const LSI: Way = way(DiskModel::Lsi, &[&["LSI_SAS"]]);
const LSI_PARALLEL: Way = way(DiskModel::LsiParallel, &[&["LSI_SCSI", "symmpi"]]);
const PVSCSI: Way = way(DiskModel::Pvscsi, &[&["pvscsi"]]);
const VIRTIO_BLK: Way = way(DiskModel::VirtioBlk, &[&["viostor"]]);
const VIRTIO_SCSI: Way = way(DiskModel::VirtioScsi, &[&["vioscsi"]]);
const XEN: Way = way(DiskModel::Xen, &[&["xenbus"], &["xenvbd"]]);
/// Generation 2 has nothing but VMBus.
const VMBUS: Way =
    Way { firmware: Some(Firmware::Uefi), ..way(DiskModel::Vmbus, &[&["vmbus"], &["storvsc"]]) };
/// Generation 1 starts from IDE, which VMBus takes over.
const VMBUS_ON_IDE: Way = Way {
    firmware: Some(Firmware::Bios),
    ..way(DiskModel::Vmbus, &[&["vmbus"], &["storvsc"], &["intelide"], &["atapi"]])
};
const BIOS_IDE: Way = Way { firmware: Some(Firmware::Bios), ..IDE };

const VIRTIO_NET: Card = card(NicModel::VirtioNet, &["netkvm"]);
/// 82574: the names of its inbox driver have changed with the releases.
const E1000E: Card = Card {
    model: NicModel::E1000e,
    drivers: &["e1iexpress", "e1i65x64", "e1i68x64", "e1qexpress", "e1kexpress", "e1express"],
    id: Some("VEN_8086&DEV_10D3"),
};
/// The same driver for both kinds: VMware has the 82545, QEMU the 82540.
const E1000_VMWARE: Card =
    Card { model: NicModel::E1000, drivers: &["E1G60"], id: Some("VEN_8086&DEV_100F") };
const E1000: Card = Card { id: Some("VEN_8086&DEV_100E"), ..E1000_VMWARE };
const RTL8139: Card =
    Card { model: NicModel::Rtl8139, drivers: &["RTL8023x64", "rtl8139"], id: Some("VEN_10EC&DEV_8139") };
const VMXNET3: Card = card(NicModel::Vmxnet3, &["vmxnet3ndis6", "vmxnet3"]);
const NETVSC: Card = card(NicModel::Netvsc, &["netvsc"]);

/// The target's ways, the preferred first. On ESXi the paravirtual controller needs a driver of VMware's; of the others AHCI is
/// the one that every Windows since 8 drives well, and before that LSI SAS.
fn ways(platform: Platform, version: Version) -> &'static [Way] {
    match platform {
        Platform::Kvm => &[VIRTIO_BLK, VIRTIO_SCSI, SATA, BIOS_IDE],
        Platform::Ahv => &[VIRTIO_SCSI, SATA, BIOS_IDE],
        Platform::Esxi if version >= Version::EIGHT => &[PVSCSI, SATA, NVME, LSI, LSI_PARALLEL, BIOS_IDE],
        Platform::Esxi => &[PVSCSI, LSI, SATA, LSI_PARALLEL, NVME, BIOS_IDE],
        Platform::Hyperv => &[VMBUS, VMBUS_ON_IDE, BIOS_IDE],
        Platform::Azure => &[VMBUS, VMBUS_ON_IDE],
        // The emulated disk starts whether or not the paravirtual drivers do, which take it over where they are.
        Platform::Xen => &[IDE, XEN],
    }
}

fn cards(platform: Platform) -> &'static [Card] {
    match platform {
        Platform::Kvm => &[VIRTIO_NET, E1000E, E1000],
        Platform::Ahv => &[VIRTIO_NET, E1000],
        Platform::Esxi => &[VMXNET3, E1000E, E1000_VMWARE],
        Platform::Hyperv | Platform::Azure => &[NETVSC],
        Platform::Xen => &[E1000, RTL8139],
    }
}

/// Inbox drivers that start with the boot loader from now on, whatever the target, so that the next hop and failback boot, too.
/// Each of them leaves a machine alone that has no device for it.
const EVERY_TARGET: &[&str] =
    &["atapi", "intelide", "pciide", "msahci", "storahci", "stornvme", "vmbus", "storvsc", "storflt"];

/// Every driver that this part of the plan knows of, for facts: of disks, then of network cards.
pub fn drivers_of_interest() -> Vec<&'static str> {
    let mut all: Vec<&'static str> = Vec::new();
    for platform in Platform::ALL {
        for version in [Version::SEVEN, Version::TEN] {
            let of_ways =
                ways(*platform, version).iter().flat_map(|way| way.drivers.iter().copied().flatten());
            let of_cards = cards(*platform).iter().flat_map(|card| card.drivers);
            all.extend(of_ways.chain(of_cards).copied());
        }
    }
    all.extend(EVERY_TARGET);
    all.sort_unstable_by_key(|name| name.to_ascii_lowercase());
    all.dedup_by(|one, other| one.eq_ignore_ascii_case(other));
    all
}

/// The first driver of a set that is there.
fn installed(draft: &Draft<'_>, set: &[&'static str]) -> Result<Option<&'static str>> {
    for driver in set {
        if services::is_installed(&draft.registry, &draft.system, draft.scene.tree, driver)? {
            return Ok(Some(driver));
        }
    }
    Ok(None)
}

/// The drivers of a way, if all are there.
fn drivers(draft: &Draft<'_>, way: &Way) -> Result<Option<Vec<&'static str>>> {
    let mut found = Vec::new();
    for set in way.drivers {
        match installed(draft, set)? {
            Some(driver) => found.push(driver),
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

/// Chooses the machine's devices and makes their drivers start. `ready` are those that an earlier part of the plan puts in.
pub fn plan(draft: &mut Draft<'_>, ready: &[&str]) -> Result<()> {
    let (platform, firmware) = (draft.request.platform, draft.request.firmware);
    let offered: Vec<&Way> = ways(platform, draft.system.version)
        .iter()
        .filter(|way| way.firmware.is_none_or(|only| only == firmware))
        .collect();
    let mut needed: Vec<&'static str> = Vec::new();
    for way in &offered {
        let put_in = way.drivers.iter().all(|set| set.iter().any(|driver| ready.contains(driver)));
        let found = drivers(draft, way)?;
        if found.is_none() && !put_in {
            continue;
        }
        if needed.is_empty() {
            needed = found.unwrap_or_default();
        }
        if !draft.devices.disks.contains(&way.model) {
            draft.devices.disks.push(way.model);
        }
    }
    about_disks(draft, &offered);
    for driver in needed {
        let why = format!("{} starts from a disk that this driver drives.", platform.name());
        services::start_at_boot(draft, driver, &why)?;
    }
    for driver in EVERY_TARGET {
        if services::is_installed(&draft.registry, &draft.system, draft.scene.tree, driver)? {
            let why =
                "It drives disks of other hypervisors, and leaves machines alone that have none of them.";
            services::start_at_boot(draft, driver, why)?;
        }
    }
    plan_cards(draft, ready)?;
    about_policy(draft)
}

/// Tells of a group policy that keeps new devices from being installed (Microsoft, DeviceInstallation.admx). What it allows
/// hinders nothing, and what it does to devices that are there (`…Retroactive`) comes with a value of these.
fn about_policy(draft: &mut Draft<'_>) -> Result<()> {
    const KEY: &str = "Policies\\Microsoft\\Windows\\DeviceInstall\\Restrictions";
    const DENIES: [&str; 5] =
        ["DenyUnspecified", "DenyDeviceClasses", "DenyDeviceIDs", "DenyInstanceIDs", "DenyRemovableDevices"];
    let mut found = Vec::new();
    for name in DENIES {
        if draft.software.dword(KEY, name)?.is_some_and(|number| number != 0) {
            found.push(name);
        }
    }
    if !found.is_empty() {
        draft.find(
            "windows-device-restrictions",
            format!("A group policy keeps devices from being installed ({}), and at the target all are new.", found.join(", ")),
            "Take \"Device Installation Restrictions\" from the machine before the move, or allow the target's disk controller and network card there.",
        );
    }
    Ok(())
}

/// True where virtio devices are out of question because nobody gave their drivers.
fn lacks_virtio(draft: &Draft<'_>) -> bool {
    matches!(draft.request.platform, Platform::Kvm | Platform::Ahv) && draft.request.virtio_win.is_none()
}

fn about_disks(draft: &mut Draft<'_>, offered: &[&Way]) {
    let platform = draft.request.platform;
    let names: Vec<&str> = offered.iter().map(|way| way.model.name()).collect();
    match (draft.devices.disks.first().copied(), offered.first()) {
        (None, _) => draft.find(
            "windows-no-disk-driver",
            format!(
                "Windows has no driver for any kind of disk that {} offers ({}).",
                platform.name(),
                names.join(", ")
            ),
            match platform {
                Platform::Kvm | Platform::Ahv => "Give the drivers with --virtio-win, or install them in the running guest before the move.",
                _ => "Install the target's storage driver in the running guest before the move.",
            },
        ),
        // That there are no virtio drivers was said.
        (Some(_), _) if lacks_virtio(draft) => {}
        (Some(chosen), Some(wanted)) if chosen != wanted.model => {
            let (chosen, wanted) = (chosen.name(), wanted.model.name());
            let remedy = match platform {
                Platform::Kvm | Platform::Ahv => format!("Give --virtio-win a folder or ISO with the drivers for {wanted}."),
                _ => format!("Keep {chosen}, or install the driver for {wanted} in the guest and change the controller then."),
            };
            draft.find(
                "windows-other-bus",
                format!("Windows has no driver for {wanted}: the machine's disks are attached by {chosen}."),
                remedy,
            );
        }
        _ => {}
    }
}

/// True where the driver database has a package for the card. It lies in SYSTEM, and what is not needed to start in a hive of
/// its own since Windows 8.1.
fn is_in_store(draft: &mut Draft<'_>, card: &Card) -> Result<bool> {
    let Some(id) = card.id else { return Ok(false) };
    let key = format!("DriverDatabase\\DeviceIds\\PCI\\{id}");
    if draft.registry.exists(&key)? {
        return Ok(true);
    }
    let path = draft.system.path("System32/config/DRIVERS");
    match draft.hive(&path) {
        Ok(Some(drivers)) => drivers.exists(&key),
        Ok(None) => Ok(false),
        Err(error) if error.kind() == crate::Kind::Io => Err(error),
        Err(error) => {
            let says = format!("{path} could not be read as a hive: {error}");
            draft.find(
                "windows-hive-unreadable",
                says,
                "Start the guest once and shut it down, then convert again.",
            );
            Ok(false)
        }
    }
}

fn plan_cards(draft: &mut Draft<'_>, ready: &[&str]) -> Result<()> {
    let platform = draft.request.platform;
    let offered = cards(platform);
    for card in offered {
        let put_in = card.drivers.iter().any(|driver| ready.contains(driver));
        if put_in || installed(draft, card.drivers)?.is_some() || is_in_store(draft, card)? {
            draft.devices.cards.push(card.model);
        }
    }
    let Some(wanted) = offered.first() else { return Ok(()) };
    let wanted = wanted.model.name();
    match draft.devices.cards.first() {
        // A driver of the driver store is installed when its device appears, which nothing here can see.
        None => {
            let emulated = offered.iter().find(|card| card.id.is_some());
            let model = emulated.or(offered.first()).map_or(NicModel::E1000e, |card| card.model);
            draft.devices.cards.push(model);
            draft.find(
                "windows-no-nic-driver",
                format!(
                    "Windows has no driver in use for any network card that {} offers; the machine gets {}, whose driver may be in its driver store.",
                    platform.name(),
                    model.name()
                ),
                "Look at the network in the trial; install the card's driver from its medium if it is missing.",
            );
        }
        Some(_) if lacks_virtio(draft) => {}
        Some(chosen) if chosen.name() != wanted => {
            let chosen = chosen.name();
            draft.find(
                "windows-other-nic",
                format!("Windows has no driver for {wanted}: the machine gets cards of the type {chosen}."),
                format!(
                    "Keep {chosen}, or install the driver for {wanted} in the guest and change the card then."
                ),
            );
        }
        Some(_) => {}
    }
    Ok(())
}
