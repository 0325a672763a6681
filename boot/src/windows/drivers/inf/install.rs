//! What an INF file says of a driver package and how its devices are installed (Microsoft: "INF Version Section",
//! "INF Models Section", "INF DDInstall Section", "INF AddService Directive", "INF CopyFiles Directive").
//!
//! ```text
//! [Manufacturer] %vendor% = Models,NTamd64        -> [Models.NTamd64] %device% = install, PCI\VEN_…, PCI\VEN_…
//! [install.NT] CopyFiles, AddReg, FeatureScore    -> [.Services] AddService, [.HW] AddReg, [.Wdf] KmdfService
//! ```
//! Deliberately absent: co-installers, interfaces and class sections, which Windows runs when it installs the device.

use super::decoration;
use super::registry::{self, Entry};
use super::{Inf, Line, number};
use crate::windows::draft::System;
use crate::{Error, Result};
use uuid::Uuid;

/// Files of one package. Those of network cards have a dozen.
const FILES_AT_MOST: usize = 256;

/// Devices that one file is for; the largest have some thousand.
const DEVICES_AT_MOST: usize = 4096;

/// Services of one installation.
const SERVICES_AT_MOST: usize = 32;

/// What the file says of its package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Class of its devices.
    pub class: Uuid,
    /// `SCSIAdapter`
    pub class_name: String,
    /// Who provides it.
    pub provider: String,
    /// File with its signature.
    pub catalogue: String,
    /// Year, month, day of `DriverVer`.
    pub date: (u16, u8, u8),
    /// Its four numbers.
    pub version: [u16; 4],
    /// Its files are locked against everyone but Windows.
    pub is_locked: bool,
    /// Devices for the guest.
    pub devices: Vec<Device>,
    /// How they are installed, each once.
    pub installs: Vec<Install>,
    /// Its files as paths below the folder of the INF file, with `/`.
    pub files: Vec<String>,
}

/// A device that the package is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// As it is written: `%viostor.device%`.
    pub description: String,
    /// As it is written.
    pub manufacturer: String,
    /// Place in [`Package::installs`].
    pub install: usize,
    /// The hardware id, then compatible ones.
    pub ids: Vec<String>,
}

/// How a device is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Install {
    /// Name of the section with its decoration.
    pub name: String,
    /// Rank among drivers for the same device; less is better.
    pub feature_score: u8,
    /// INF files of Windows that it includes.
    pub includes: Vec<String>,
    /// Values of the device's key.
    pub device: Vec<Entry>,
    /// Values of the driver's key.
    pub driver: Vec<Entry>,
    /// Services, the device's function driver among them.
    pub services: Vec<Service>,
    /// Files that are copied out of the package.
    pub copies: Vec<Copy>,
}

impl Install {
    /// The service that drives the device.
    pub fn function(&self) -> Option<&Service> {
        self.services.iter().find(|service| service.is_function)
    }
}

/// A file that is copied out of the package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Path below the folder of the INF file.
    pub from: String,
    /// Number of the folder: 12 for drivers.
    pub folder: u32,
    /// Path below that.
    pub to: String,
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its key.
    pub name: String,
    /// It drives the device.
    pub is_function: bool,
    /// 1: a kernel driver.
    pub kind: u32,
    /// 0 with the boot loader, 3 on demand.
    pub start: u32,
    /// 1: an error is logged.
    pub error_control: u32,
    /// `%12%\viostor.sys`
    pub binary: String,
    /// `SCSI miniport`
    pub group: Option<String>,
    /// What must run before it.
    pub depends: Vec<String>,
    /// As it is written: `%viostor.service%`.
    pub display: Option<String>,
    /// Values of its key.
    pub entries: Vec<Entry>,
    /// Name below `Services\EventLog\System`, and values there.
    pub event_log: Option<(String, Vec<Entry>)>,
    /// Version of the framework library that it needs.
    pub kmdf: Option<String>,
}

/// Refuses a path that leads out of a folder, or that no file of Windows has.
pub fn check_path(path: &str) -> Result<()> {
    let odd = |part: &str| {
        part.is_empty()
            || part == ".."
            || part == "."
            || part.len() > 255
            || part.ends_with(['.', ' '])
            || part.contains(|letter: char| letter.is_control() || r#"\:*?"<>|"#.contains(letter))
    };
    match path.len() > 1024 || path.split('/').any(odd) {
        true => Err(Error::refused(format!("{path:?} in the INF file is no name of a file in its folder"))),
        false => Ok(()),
    }
}

/// Names of services, sections and ids: no path.
fn check_name(name: &str) -> Result<()> {
    let is_odd = name.is_empty()
        || name.encode_utf16().count() > 255
        || name.contains(|letter: char| letter.is_control() || letter == '\\' || letter == '/');
    match is_odd {
        true => Err(Error::refused(format!("{name:?} in the INF file is no name of a registry key"))),
        false => Ok(()),
    }
}

fn date(text: &str) -> Option<(u16, u8, u8)> {
    let mut parts = text.split(['/', '-']).map(str::trim);
    let (month, day, year) =
        (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    ((1..=12).contains(&month) && (1..=31).contains(&day) && (1601..=9999).contains(&year))
        .then_some((year, month, day))
}

fn version(text: &str) -> Option<[u16; 4]> {
    let mut version = [0; 4];
    let parts: Vec<&str> = text.trim().split('.').collect();
    if parts.len() > version.len() {
        return None;
    }
    for (to, part) in version.iter_mut().zip(parts) {
        *to = part.trim().parse().ok()?;
    }
    Some(version)
}

impl Package {
    /// Reads what the file says to the guest.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::Kind::Corrupt) for what is missing or is not what it should be,
    /// [`Kind::Refused`](crate::Kind::Refused) for names that lead elsewhere and beyond the bounds. Where the file has nothing
    /// for the guest, it has no devices.
    pub fn read(inf: &Inf, system: &System) -> Result<Package> {
        let missing = |what: &str| Error::corrupt(format!("the INF file's [Version] has no sound {what}"));
        let text = |key: &str| inf.value("Version", key);
        let arch = decoration::architecture(system);
        let class = text("ClassGuid")?.and_then(|text| Uuid::parse_str(text.trim()).ok());
        let dates = inf.line("Version", "DriverVer")?.ok_or_else(|| missing("DriverVer"))?;
        let catalogue = match text(&format!("CatalogFile.nt{arch}"))? {
            Some(name) => Some(name),
            None => match text("CatalogFile.nt")? {
                Some(name) => Some(name),
                None => text("CatalogFile")?,
            },
        };
        let mut package = Package {
            class: class.ok_or_else(|| missing("ClassGuid"))?,
            class_name: text("Class")?.unwrap_or_default(),
            provider: text("Provider")?.unwrap_or_default(),
            catalogue: catalogue.unwrap_or_default(),
            date: date(&inf.expand(dates.field(0))?).ok_or_else(|| missing("date in DriverVer"))?,
            version: version(&inf.expand(dates.field(1))?).ok_or_else(|| missing("version in DriverVer"))?,
            is_locked: inf.number("Version", "PnpLockdown")? == Some(1),
            devices: Vec::new(),
            installs: Vec::new(),
            files: files(inf, arch)?,
        };
        if !package.catalogue.is_empty() {
            check_path(&package.catalogue)?;
        }
        package.read_devices(inf, system)?;
        Ok(package)
    }

    fn read_devices(&mut self, inf: &Inf, system: &System) -> Result<()> {
        let mut places: Vec<(String, usize)> = Vec::new();
        for line in inf.lines("Manufacturer") {
            let section = inf.expand(line.field(0))?;
            let decorations = line.fields.get(1..).unwrap_or_default().iter().map(String::as_str);
            let Some(models) = decoration::models(&section, decorations, system) else { continue };
            let manufacturer = line.key.clone().unwrap_or_else(|| section.clone());
            for model in inf.lines(&models) {
                let Some(description) = &model.key else { continue };
                if self.devices.len() >= DEVICES_AT_MOST {
                    return Err(Error::refused(format!(
                        "the INF file has more than {DEVICES_AT_MOST} devices"
                    )));
                }
                let ids = model.fields.iter().skip(1).map(|id| inf.expand(id)).collect::<Result<Vec<_>>>()?;
                let ids: Vec<String> = ids.into_iter().filter(|id| !id.is_empty()).collect();
                let is_odd = |id: &String| id.split('\\').any(|part| check_name(part).is_err());
                if ids.len() > 255 || ids.iter().any(is_odd) {
                    return Err(Error::corrupt(format!("{description:?} has hardware ids that are none")));
                }
                let name = inf.expand(model.field(0))?;
                let known = places.iter().find(|(other, _)| other.eq_ignore_ascii_case(&name));
                let install = match known {
                    Some((_, at)) => *at,
                    None => {
                        let Some(install) = install(inf, system, &name)? else { continue };
                        self.installs.push(install);
                        places.push((name, self.installs.len() - 1));
                        self.installs.len() - 1
                    }
                };
                let (description, manufacturer) = (description.clone(), manufacturer.clone());
                self.devices.push(Device { description, manufacturer, install, ids });
            }
        }
        Ok(())
    }
}

/// Files of the package, from `[SourceDisksFiles]` with and without the architecture; a file that both name is where the
/// first says.
fn files(inf: &Inf, arch: &str) -> Result<Vec<String>> {
    let mut files: Vec<String> = Vec::new();
    let own = format!("SourceDisksFiles.{arch}");
    for section in [own.as_str(), "SourceDisksFiles"] {
        for line in inf.lines(section) {
            let Some(key) = &line.key else { continue };
            if section != own && inf.line(&own, key)?.is_some() {
                continue;
            }
            let path = source(inf, arch, line, &inf.expand(key)?)?;
            if !files.iter().any(|other| other.eq_ignore_ascii_case(&path)) {
                files.push(path);
            }
            if files.len() > FILES_AT_MOST {
                return Err(Error::refused(format!("the INF file names more than {FILES_AT_MOST} files")));
            }
        }
    }
    Ok(files)
}

/// The line with a key in the first of some sections that has one.
fn first<'i>(inf: &'i Inf, sections: &[String], key: &str) -> Result<Option<&'i Line>> {
    for section in sections {
        if let Some(line) = inf.line(section, key)? {
            return Ok(Some(line));
        }
    }
    Ok(None)
}

/// Where a file lies: folder of its disk, folder of its own, name.
fn source(inf: &Inf, arch: &str, line: &Line, name: &str) -> Result<String> {
    let disk = inf.expand(line.field(0))?;
    let sections = [format!("SourceDisksNames.{arch}"), "SourceDisksNames".to_owned()];
    let own = first(inf, &sections, &disk)?;
    let folder = own.map(|line| inf.expand(line.field(3))).transpose()?.unwrap_or_default();
    let parts = [folder, inf.expand(line.field(1))?, name.to_owned()];
    let parts = parts.iter().map(|part| part.replace('\\', "/"));
    let parts: Vec<String> = parts.map(|part| part.trim_matches('/').to_owned()).collect();
    let path = parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("/");
    check_path(&path)?;
    Ok(path)
}

/// The section that installs a device; `None` where the file has none for the guest.
fn install(inf: &Inf, system: &System, name: &str) -> Result<Option<Install>> {
    inf.charge(inf.names().count())?;
    let Some(section) = decoration::closest(name, inf.names(), system) else { return Ok(None) };
    check_name(section)?;
    let score = inf.value(section, "FeatureScore")?;
    let score = score.and_then(|text| u8::from_str_radix(text.trim_start_matches("0x"), 16).ok());
    Ok(Some(Install {
        name: section.to_owned(),
        feature_score: score.unwrap_or(0xff),
        includes: inf.values(section, "Include")?,
        device: registry::entries(inf, &format!("{section}.HW"))?,
        driver: registry::entries(inf, section)?,
        services: services(inf, section)?,
        copies: copies(inf, decoration::architecture(system), section)?,
    }))
}

fn services(inf: &Inf, section: &str) -> Result<Vec<Service>> {
    let mut services = Vec::new();
    inf.charge(inf.lines(&format!("{section}.Services")).len())?;
    for line in inf.lines(&format!("{section}.Services")).iter().filter(|line| line.is("AddService")) {
        let name = inf.expand(line.field(0))?;
        if name.is_empty() {
            continue;
        }
        check_name(&name)?;
        if services.len() >= SERVICES_AT_MOST {
            return Err(Error::refused(format!("an installation has more than {SERVICES_AT_MOST} services")));
        }
        let flags = number(&inf.expand(line.field(1))?).unwrap_or(0);
        let own = inf.expand(line.field(2))?;
        let log = inf.expand(line.field(3))?;
        let log_name = Some(inf.expand(line.field(5))?).filter(|name| !name.is_empty());
        let log_name = log_name.unwrap_or_else(|| name.clone());
        check_name(&log_name)?;
        let missing =
            |key: &str| Error::corrupt(format!("the service {name} has no sound {key} in the INF file"));
        let value = |key: &str| inf.number(&own, key)?.ok_or_else(|| missing(key));
        let raw = |key: &str| -> Result<Option<String>> {
            Ok(inf.line(&own, key)?.map(|line| line.field(0).to_owned()).filter(|text| !text.is_empty()))
        };
        services.push(Service {
            is_function: flags & 2 != 0,
            kind: value("ServiceType")?,
            start: value("StartType")?,
            error_control: value("ErrorControl")?,
            binary: inf.value(&own, "ServiceBinary")?.ok_or_else(|| missing("ServiceBinary"))?,
            group: inf.value(&own, "LoadOrderGroup")?,
            depends: inf.values(&own, "Dependencies")?,
            display: raw("DisplayName")?,
            entries: registry::entries(inf, &own)?,
            event_log: match log.is_empty() {
                true => None,
                false => Some((log_name, registry::entries(inf, &log)?)),
            },
            kmdf: kmdf(inf, section, &name)?,
            name,
        });
    }
    Ok(services)
}

fn kmdf(inf: &Inf, section: &str, service: &str) -> Result<Option<String>> {
    inf.charge(inf.lines(&format!("{section}.Wdf")).len())?;
    for line in inf.lines(&format!("{section}.Wdf")).iter().filter(|line| line.is("KmdfService")) {
        if inf.expand(line.field(0))?.eq_ignore_ascii_case(service) {
            return inf.value(&inf.expand(line.field(1))?, "KmdfLibraryVersion");
        }
    }
    Ok(None)
}

fn copies(inf: &Inf, arch: &str, section: &str) -> Result<Vec<Copy>> {
    let mut copies = Vec::new();
    for list in inf.values(section, "CopyFiles")? {
        let one = list.strip_prefix('@').map(|name| Line { key: None, fields: vec![name.to_owned()] });
        let (folder, below) = destination(inf, if one.is_some() { "" } else { &list })?;
        let lines = one.as_ref().map_or_else(|| inf.lines(&list), std::slice::from_ref);
        for line in lines.iter().filter(|line| !line.field(0).is_empty()) {
            let to = inf.expand(line.field(0))?;
            let from = Some(inf.expand(line.field(1))?).filter(|from| !from.is_empty());
            let from = from.unwrap_or_else(|| to.clone());
            let to = format!("{below}/{}", to.replace('\\', "/"));
            let to = to.trim_matches('/').to_owned();
            check_path(&to)?;
            let sections = [format!("SourceDisksFiles.{arch}"), "SourceDisksFiles".to_owned()];
            let from = match first(inf, &sections, &from)? {
                Some(line) => source(inf, arch, line, &from)?,
                None => from,
            };
            check_path(&from)?;
            copies.push(Copy { from, folder, to });
            if copies.len() > FILES_AT_MOST {
                return Err(Error::refused(format!(
                    "an installation copies more than {FILES_AT_MOST} files"
                )));
            }
        }
    }
    Ok(copies)
}

/// Folder that the files of a section go to, and the path below it.
fn destination(inf: &Inf, section: &str) -> Result<(u32, String)> {
    let own = if section.is_empty() { None } else { inf.line("DestinationDirs", section)? };
    let line = match own {
        Some(line) => Some(line),
        None => inf.line("DestinationDirs", "DefaultDestDir")?,
    };
    let Some(line) = line else { return Ok((0, String::new())) };
    let folder = number(&inf.expand(line.field(0))?);
    let below = inf.expand(line.field(1))?.replace('\\', "/");
    Ok((folder.unwrap_or(0), below.trim_matches('/').to_owned()))
}
