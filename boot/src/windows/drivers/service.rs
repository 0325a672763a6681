//! Services of a driver package, and its files outside of the store: what the INF file says, and for the controller that
//! Windows starts from also what it must have.

use super::choose::Chosen;
use super::inf::install::{Copy, Install, Service};
use super::inf::registry;
use super::signature;
use crate::Result;
use crate::tree::GuestTreeExt;
use crate::windows::data::Data;
use crate::windows::draft::Draft;

/// Place among the drivers of its load order group: what installers of virtio-win give it.
const TAG: u32 = 0x21;

/// `SERVICE_DISABLED`
const DISABLED: u32 = 4;

/// How the package lies in the guest.
pub(super) struct Place<'p> {
    /// Folder of the package, below that of Windows: `System32\DriverStore\FileRepository\…`.
    pub package: String,
    /// `oem3.inf`, where Windows keeps account of who brought a service.
    pub owner: Option<&'p str>,
    /// Drivers may run from the package's folder.
    pub runs_from_store: bool,
}

impl Place<'_> {
    /// A folder of INF files below that of Windows, with `\`; `None` for one that is not used.
    fn folder(&self, number: u32) -> Option<&str> {
        Some(match number {
            10 => "",
            11 => "System32",
            12 => "System32\\drivers",
            13 if self.runs_from_store => &self.package,
            13 => "System32\\drivers",
            _ => return None,
        })
    }

    /// Where a file is copied to, below the folder of Windows, with `/`; `None` where it stays in the package.
    pub fn target(&self, copy: &Copy) -> Option<String> {
        let folder = self.folder(copy.folder).filter(|folder| *folder != self.package)?;
        Some(format!("{folder}/{}", copy.to).replace('\\', "/").trim_start_matches('/').to_owned())
    }

    /// `ImagePath` of a service: the boot loader takes it below the folder of Windows, all others by its name.
    fn image_path(&self, service: &Service) -> String {
        let parsed = service.binary.strip_prefix('%').and_then(|rest| rest.split_once('%'));
        let parsed = parsed.and_then(|(number, rest)| Some((self.folder(number.parse().ok()?)?, rest)));
        let Some((folder, rest)) = parsed else { return service.binary.clone() };
        let below = format!("{folder}\\{}", rest.trim_start_matches('\\'));
        let below = below.trim_start_matches('\\');
        match service.start {
            0 => below.to_owned(),
            _ => format!("\\SystemRoot\\{below}"),
        }
    }
}

/// Copies what the installation copies out of the package. A newer file stays.
pub(super) fn copy_files(
    draft: &mut Draft<'_>,
    chosen: &Chosen,
    install: &Install,
    place: &Place<'_>,
) -> Result<()> {
    for copy in &install.copies {
        let (Some(target), Some(file)) = (place.target(copy), chosen.file(&copy.from)) else { continue };
        let path = draft.system.path(&target);
        let newer = match draft.read(&path)? {
            Some(old) if old != file.bytes => {
                let versions = signature::file_version(&old).zip(signature::file_version(&file.bytes));
                versions.filter(|(old, new)| old > new)
            }
            _ => None,
        };
        match newer {
            Some((old, new)) => is_newer(draft, &path, old, new),
            None => {
                let why = format!("Windows loads the driver {} from there.", chosen.driver.folder());
                draft.write(&path, file.bytes.clone(), &why)?;
            }
        }
    }
    Ok(())
}

pub(super) fn dotted(version: [u16; 4]) -> String {
    version.map(|part| part.to_string()).join(".")
}

/// Says that what the guest has stays.
pub(super) fn is_newer(draft: &mut Draft<'_>, what: &str, old: [u16; 4], new: [u16; 4]) {
    draft.find(
        "windows-driver-newer",
        format!("{what} of the guest has version {}, and virtio-win {}: it stays.", dotted(old), dotted(new)),
        "Nothing needs to be done.",
    );
}

/// Writes the services of an installation into the control set of the next start.
pub(super) fn write(
    draft: &mut Draft<'_>,
    chosen: &Chosen,
    install: &Install,
    place: &Place<'_>,
) -> Result<()> {
    for service in &install.services {
        let boots = chosen.driver.is_storage() && service.is_function;
        let service = &Service { start: if boots { 0 } else { service.start }, ..service.clone() };
        let key = draft.system.key(&format!("Services\\{}", service.name));
        let why = match boots {
            true => format!("Windows starts from disks of the driver {}.", service.name),
            false => format!("Windows loads the driver {} for its device.", service.name),
        };
        let display = display(chosen, service, place);
        let registry = &mut draft.registry;
        let mut set = |name: &str, data: Data| registry.set(&key, name, data, &why);
        set("Type", Data::dword(service.kind))?;
        set("ErrorControl", Data::dword(service.error_control))?;
        set("ImagePath", Data::expand(&place.image_path(service)))?;
        if let Some(group) = &service.group {
            set("Group", Data::text(group))?;
        }
        if !service.depends.is_empty() {
            set("DependOnService", Data::texts(&service.depends))?;
        }
        if let Some(display) = display {
            set("DisplayName", Data::text(&display))?;
        }
        // Someone may have switched off what the machine does not start from; but its cards become those of this driver.
        let start = registry.dword(&key, "Start")?;
        let is_off_in_vain = start == Some(DISABLED) && chosen.driver == super::Driver::Netkvm;
        if boots || start.is_none() || is_off_in_vain {
            registry.set(&key, "Start", Data::dword(service.start), &why)?;
        }
        if boots {
            if registry.value(&key, "Tag")?.is_none() {
                registry.set(&key, "Tag", Data::dword(TAG), &why)?;
            }
            let says = "Windows 8 and newer keep a boot driver from starting by it.";
            registry.delete(&format!("{key}\\StartOverride"), says)?;
        }
        if let Some(owner) = place.owner {
            let mut owners = registry.texts(&key, "Owners")?;
            if !owners.iter().any(|other| other.eq_ignore_ascii_case(owner)) {
                owners.push(owner.to_owned());
                registry.set(&key, "Owners", Data::texts(owners), &why)?;
            }
        }
        registry::apply(&service.entries, registry, &key, &why)?;
        if boots {
            bus(chosen, registry, &key, &why)?;
        }
        if let Some(kmdf) = &service.kmdf {
            registry.set(&format!("{key}\\Parameters\\Wdf"), "KmdfLibraryVersion", Data::text(kmdf), &why)?;
        }
        if let Some((name, entries)) = &service.event_log {
            let log = draft.system.key(&format!("Services\\EventLog\\System\\{name}"));
            registry::apply(
                entries,
                &mut draft.registry,
                &log,
                "Windows finds the texts of the driver's events by it.",
            )?;
        }
    }
    Ok(())
}

/// What a storage driver must say of its bus, where its INF file does not: which bus it is, and that it is on PCI.
fn bus(
    chosen: &Chosen,
    registry: &mut crate::windows::registry::Registry,
    key: &str,
    why: &str,
) -> Result<()> {
    let bus = if chosen.driver == super::Driver::Viostor { 1 } else { 0x0a };
    for (below, name, value) in [("Parameters", "BusType", bus), ("Parameters\\PnpInterface", "5", 1)] {
        let key = format!("{key}\\{below}");
        if registry.value(&key, name)?.is_none() {
            registry.set(&key, name, Data::dword(value), why)?;
        }
    }
    Ok(())
}

/// The name for people: Windows looks it up in the INF file, and has it beside for want of that.
fn display(chosen: &Chosen, service: &Service, place: &Place<'_>) -> Option<String> {
    let written = service.display.as_deref()?;
    let text = chosen.inf.expand(written).ok()?;
    match place.owner {
        Some(owner) if written.starts_with('%') && written != text => {
            Some(format!("@{owner},{written};{text}"))
        }
        _ => Some(text),
    }
}

/// Writes a file of the guest unless it is there already.
pub(super) fn write_absent(draft: &mut Draft<'_>, path: &str, bytes: &[u8], why: &str) -> Result<()> {
    if !draft.scene.tree.exists(path)? {
        draft.write(path, bytes, why)?;
    }
    Ok(())
}
