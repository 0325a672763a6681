//! Drivers of Vista, 7 and the servers of their time, which have no driver database. Windows starts from the controller by its
//! list of critical devices and its service, and finds the packages of all devices in a folder that it searches when it sees
//! new hardware.
//!
//! ```text
//! SYSTEM   Control\CriticalDeviceDatabase\PCI#VEN_…: Service, ClassGUID
//! SOFTWARE Microsoft\Windows\CurrentVersion: DevicePath = %SystemRoot%\inf;%SystemRoot%\Drivers\VirtIO\viostor;…
//! ```
//! Deliberately absent: the index files of its driver store, which are a format of their own that Windows rebuilds.

use super::choose::Chosen;
use super::service::{self, Place};
use crate::Result;
use crate::windows::data::Data;
use crate::windows::draft::Draft;

/// Where packages are put, below the folder of Windows.
const PACKAGES: &str = "Drivers\\VirtIO";

/// Adds a package, and gives the path of its INF file in the guest.
pub(super) fn register(draft: &mut Draft<'_>, chosen: &Chosen) -> Result<String> {
    let driver = chosen.driver.folder();
    let folder = format!("{PACKAGES}\\{driver}");
    let below = folder.replace('\\', "/");
    for file in &chosen.files {
        let path = draft.system.path(&format!("{below}/{}", file.path));
        let why = format!("Windows installs devices of the driver {driver} from there.");
        draft.write(&path, file.bytes.clone(), &why)?;
    }
    search(draft, &format!("%SystemRoot%\\{folder}"))?;
    if chosen.driver.is_storage() {
        let place = Place { package: folder, owner: None, runs_from_store: false };
        for install in &chosen.package.installs {
            service::copy_files(draft, chosen, install, &place)?;
            service::write(draft, chosen, install, &place)?;
        }
        critical(draft, chosen)?;
    }
    Ok(draft.system.path(&format!("{below}/{}", chosen.driver.inf())))
}

/// Windows searches the folder for drivers of new hardware.
fn search(draft: &mut Draft<'_>, folder: &str) -> Result<()> {
    const KEY: &str = "Microsoft\\Windows\\CurrentVersion";
    let old = draft.software.text(KEY, "DevicePath")?.unwrap_or_else(|| "%SystemRoot%\\inf".to_owned());
    if old.split(';').any(|other| other.eq_ignore_ascii_case(folder)) {
        return Ok(());
    }
    let new = format!("{};{folder}", old.trim_end_matches(';'));
    draft.software.set(
        KEY,
        "DevicePath",
        Data::expand(&new),
        "Windows searches the folder for drivers of new hardware.",
    )
}

/// Windows starts the device by its driver before anything is installed.
fn critical(draft: &mut Draft<'_>, chosen: &Chosen) -> Result<()> {
    let class = chosen.package.class.braced().to_string().to_uppercase();
    for device in &chosen.package.devices {
        let install = chosen.package.installs.get(device.install);
        let Some(service) = install.and_then(|install| install.function()) else { continue };
        for id in &device.ids {
            let key =
                draft.system.key(&format!("Control\\CriticalDeviceDatabase\\{}", id.replace('\\', "#")));
            let why = "Windows starts the disk controller by it before anything is installed.";
            draft.registry.set(&key, "Service", Data::text(&service.name), why)?;
            draft.registry.set(&key, "ClassGUID", Data::text(&class), why)?;
        }
    }
    Ok(())
}
