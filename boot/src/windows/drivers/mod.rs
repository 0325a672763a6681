//! Virtio drivers of a Windows guest, from a folder or an image of virtio-win that the user names.
//!
//! ```text
//! source (folder, ISO) -> choose: the folder for this Windows, all files there and for its machine
//!        -> inf: what the package says -> database (8 and newer) or legacy (Vista, 7): registry and files
//! ```
//! A package is registered as Windows does it when one is added, and the controller's driver also as if its device had been
//! installed, since Windows must start from it before it can install anything. Other devices are found at the first start
//! and installed from the package by Windows itself.
//!
//! Left out: random numbers (viorng), shared folders (viofs), display (qxldod, viogpudo), panic device (pvpanic), firmware
//! configuration (fwcfg). No guest needs them to start or to be reached, and the installer of virtio-win brings them.

pub mod choose;
mod database;
pub mod inf;
mod legacy;
mod service;
pub mod signature;
pub mod source;
#[cfg(test)]
pub(super) mod tests;

use super::draft::{Draft, Version};
use crate::Result;
use serde::Serialize;
pub use source::DriverSource;

/// A driver of virtio-win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// Disks of virtio-blk.
    Viostor,
    /// Disks of virtio-scsi.
    Vioscsi,
    /// Network cards.
    Netkvm,
    /// Memory that the host takes back.
    Balloon,
    /// The channel of the guest agent.
    Vioserial,
}

impl Driver {
    /// All of them.
    pub const ALL: &'static [Driver] =
        &[Driver::Viostor, Driver::Vioscsi, Driver::Netkvm, Driver::Balloon, Driver::Vioserial];

    /// Its folder in virtio-win.
    pub fn folder(self) -> &'static str {
        match self {
            Driver::Viostor => "viostor",
            Driver::Vioscsi => "vioscsi",
            Driver::Netkvm => "NetKVM",
            Driver::Balloon => "Balloon",
            Driver::Vioserial => "vioserial",
        }
    }

    /// Its service.
    pub fn service(self) -> &'static str {
        match self {
            Driver::Viostor => "viostor",
            Driver::Vioscsi => "vioscsi",
            Driver::Netkvm => "netkvm",
            Driver::Balloon => "BALLOON",
            Driver::Vioserial => "VirtioSerial",
        }
    }

    /// Its INF file, in lower case.
    pub fn inf(self) -> &'static str {
        match self {
            Driver::Viostor => "viostor.inf",
            Driver::Vioscsi => "vioscsi.inf",
            Driver::Netkvm => "netkvm.inf",
            Driver::Balloon => "balloon.inf",
            Driver::Vioserial => "vioser.inf",
        }
    }

    /// The machine may start from its disks.
    pub fn is_storage(self) -> bool {
        matches!(self, Driver::Viostor | Driver::Vioscsi)
    }
}

/// What the guest can use after the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Installed {
    /// These drivers, in the order in which they were wanted.
    pub usable: Vec<Driver>,
    /// INF files in the guest, for whoever adds them once more with `pnputil` at the first start. Absolute guest paths.
    pub packages: Vec<String>,
}

impl Installed {
    /// True where the guest can use the driver.
    pub fn has(&self, driver: Driver) -> bool {
        self.usable.contains(&driver)
    }
}

/// Plans the wanted drivers. What is not usable afterwards is told by a finding, and nothing of it is planned.
///
/// # Errors
/// Where the source cannot be read, or the guest's registry is damaged on the way.
pub fn plan(
    draft: &mut Draft<'_>,
    source: Option<&dyn DriverSource>,
    wanted: &[Driver],
) -> Result<Installed> {
    let mut installed = Installed::default();
    if wanted.is_empty() {
        return Ok(installed);
    }
    let Some(source) = source else {
        draft.find(
            "windows-no-virtio-win",
            "There are no virtio drivers to give to Windows: the machine gets an AHCI (or IDE) disk controller and an e1000e (or e1000) network card, which Windows drives by itself.",
            "Name a virtio-win folder or ISO image with --virtio-win, or keep the slower devices.",
        );
        return Ok(installed);
    };
    if draft.system.version < Version::VISTA {
        let version = draft.system.version;
        draft.find(
            "windows-too-old-for-virtio",
            format!(
                "This is Windows {}.{} (2000, XP or Server 2003), for which virtio drivers are not installed offline.",
                version.major, version.minor
            ),
            "Give the machine IDE disks and an rtl8139 or e1000 network card, and install drivers in the running guest.",
        );
        return Ok(installed);
    }
    for driver in wanted {
        if installed.has(*driver) {
            continue;
        }
        let Some(chosen) = choose::choose(draft, source, *driver)? else { continue };
        // The presence of the database decides, not the version: it was new in Windows 8.
        let package = match draft.registry.exists("DriverDatabase")? {
            true => database::register(draft, &chosen)?,
            false => legacy::register(draft, &chosen)?,
        };
        installed.usable.push(*driver);
        installed.packages.push(package);
    }
    Ok(installed)
}
