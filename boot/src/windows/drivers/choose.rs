//! Which folder of virtio-win is for the guest, and whether the package in it is whole and for its machine.
//!
//! ```text
//! ISO       <Driver>/<os>/<arch>            NetKVM/2k12R2/amd64
//! package   drivers/by-driver/<Driver>/<os>/<arch>, drivers/by-os/<arch>/<os>
//! installed [Program Files/][Virtio-Win/]<Driver>
//! ```
//! Signatures are not verified: whether the catalogue is one and lists the files is as far as this goes.

use super::inf::Inf;
use super::inf::install::{Install, Package, Service};
use super::signature::{self, Catalogue, Program};
use super::{Driver, DriverSource};
use crate::tree::CONFIG_AT_MOST;
use crate::windows::draft::{Draft, System, Version};
use crate::{Error, Kind, Result};
use sha2::{Digest, Sha256};

/// Bytes of a package's files in all; that of the network card has 2 MiB with its installers.
const PACKAGE_AT_MOST: usize = 32 << 20;

/// The newest builds that there were folders for when this was written: Windows 11 25H2, Windows Server 2025.
const NEWEST_CLIENT: u32 = 26200;
const NEWEST_SERVER: u32 = 26100;

const fn v(major: u32, minor: u32, build: u32) -> Version {
    Version { major, minor, build }
}

/// Folders from the version on that they are for, the newest first.
const CLIENTS: &[(Version, &str)] = &[
    (v(10, 0, 22000), "w11"),
    (v(10, 0, 0), "w10"),
    (v(6, 3, 0), "w8.1"),
    (v(6, 2, 0), "w8"),
    (v(6, 1, 0), "w7"),
    (v(6, 0, 0), "2k8"),
    (v(5, 1, 0), "xp"),
];
const SERVERS: &[(Version, &str)] = &[
    (v(10, 0, 26100), "2k25"),
    (v(10, 0, 20348), "2k22"),
    (v(10, 0, 17763), "2k19"),
    (v(10, 0, 0), "2k16"),
    (v(6, 3, 0), "2k12R2"),
    (v(6, 2, 0), "2k12"),
    (v(6, 1, 0), "2k8R2"),
    (v(6, 0, 0), "2k8"),
    (v(5, 2, 0), "2k3"),
];

/// Folders for the guest, the best first: its own, then those of the same kernel, then older ones.
pub fn folders(system: &System) -> Vec<&'static str> {
    let (own, others) = if system.is_server { (SERVERS, CLIENTS) } else { (CLIENTS, SERVERS) };
    let fits = |row: &&(Version, &'static str)| row.0 <= system.version && row.0 >= Version::VISTA;
    let mut rows: Vec<(bool, &(Version, &str))> = own.iter().filter(fits).map(|row| (true, row)).collect();
    rows.extend(others.iter().filter(fits).map(|row| (false, row)));
    let first = rows.first().map(|(_, row)| row.1);
    rows.sort_by_key(|(is_own, (from, name))| {
        std::cmp::Reverse((Some(*name) == first, from.major, from.minor, *is_own, from.build))
    });
    let mut names: Vec<&str> = Vec::new();
    for (_, (_, name)) in rows {
        if !names.contains(name) {
            names.push(name);
        }
    }
    names
}

/// How folders call an architecture.
fn architectures(system: &System) -> &'static [&'static str] {
    match system.architecture.as_str() {
        "x86_64" => &["amd64"],
        "aarch64" => &["ARM64"],
        _ => &["x86", "i386"],
    }
}

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageFile {
    /// Below the folder of the INF file, with `/`.
    pub path: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A package that is whole and for the guest.
#[derive(Debug)]
pub struct Chosen {
    /// Which driver.
    pub driver: Driver,
    /// Its folder in the source.
    pub folder: String,
    /// The INF file as text.
    pub inf: Inf,
    /// What it says.
    pub package: Package,
    /// The INF file first, then the catalogue, then the others.
    pub files: Vec<PackageFile>,
    /// What the catalogue says of itself.
    pub catalogue: Catalogue,
}

impl Chosen {
    /// A file of the package.
    pub fn file(&self, path: &str) -> Option<&PackageFile> {
        self.files.iter().find(|file| file.path.eq_ignore_ascii_case(path))
    }

    /// The installation of its first device, and the service that drives it.
    pub fn function(&self) -> Option<(&Install, &Service)> {
        let installs =
            self.package.devices.iter().filter_map(|device| self.package.installs.get(device.install));
        installs.filter_map(|install| Some((install, install.function()?))).next()
    }

    /// A number that is the same for the same files: the first eight bytes of SHA-256 over names and contents.
    pub fn identity(&self) -> String {
        let mut files: Vec<(String, &[u8])> =
            self.files.iter().map(|file| (file.path.to_lowercase(), file.bytes.as_slice())).collect();
        files.sort();
        let mut digest = Sha256::new();
        for (path, bytes) in files {
            digest.update(path.as_bytes());
            digest.update([0]);
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        }
        digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Where the driver's INF file is: its folder in the source, and the name of the Windows that the folder is for.
fn find(
    source: &dyn DriverSource,
    system: &System,
    driver: Driver,
) -> Result<Option<(String, Option<&'static str>)>> {
    let name = driver.folder();
    let has = |folder: &str| -> Result<bool> {
        let entries = source.list(folder)?.unwrap_or_default();
        Ok(entries.iter().any(|entry| entry.name.eq_ignore_ascii_case(driver.inf())))
    };
    for os in folders(system) {
        for arch in architectures(system) {
            let by_driver =
                ["", "drivers/by-driver/", "by-driver/"].map(|base| format!("{base}{name}/{os}/{arch}"));
            let by_os = ["drivers/by-os/", "by-os/", ""].map(|base| format!("{base}{arch}/{os}"));
            for folder in by_driver.into_iter().chain(by_os) {
                if has(&folder)? {
                    return Ok(Some((folder, Some(os))));
                }
            }
        }
    }
    for base in ["", "Virtio-Win/", "Program Files/Virtio-Win/"] {
        let folder = format!("{base}{name}");
        if has(&folder)? {
            return Ok(Some((folder, None)));
        }
    }
    Ok(None)
}

/// The package for the guest; `None`, with a finding, where there is none that it can use.
///
/// # Errors
/// Where the source cannot be read.
pub fn choose(draft: &mut Draft<'_>, source: &dyn DriverSource, driver: Driver) -> Result<Option<Chosen>> {
    let (name, from) = (driver.folder(), source.name());
    let Some((folder, os)) = find(source, &draft.system, driver)? else {
        let wanted = folders(&draft.system);
        draft.find(
            "windows-driver-unusable",
            format!(
                "{from} holds no driver {name} for this Windows: looked for {} in folders {} ({}).",
                driver.inf(),
                wanted.join(", "),
                architectures(&draft.system).join(", ")
            ),
            "Name a complete virtio-win folder or ISO image with --virtio-win.",
        );
        return Ok(None);
    };
    let read = match read(source, &draft.system, driver, &folder) {
        Err(error) if matches!(error.kind(), Kind::Io | Kind::Interrupted) => return Err(error),
        Err(error) => Err(error.to_string()),
        Ok(read) => read,
    };
    let chosen = match read {
        Ok(chosen) => chosen,
        Err(says) => {
            draft.find(
                "windows-driver-unusable",
                format!("The driver {name} in {folder} of {from} is not used: {says}."),
                "Fetch virtio-win again, compare its checksum, and name it with --virtio-win.",
            );
            return Ok(None);
        }
    };
    Ok(is_taken(draft, &chosen, os)?.then_some(chosen))
}

/// Reads and checks a package; the inner error says why it is not used.
fn read(
    source: &dyn DriverSource,
    system: &System,
    driver: Driver,
    folder: &str,
) -> Result<std::result::Result<Chosen, String>> {
    let mut files: Vec<PackageFile> = Vec::new();
    let mut total = 0;
    let mut fetch = |path: &str| -> Result<Option<Vec<u8>>> {
        let Some(bytes) = source.read(&format!("{folder}/{path}"), CONFIG_AT_MOST)? else { return Ok(None) };
        total += bytes.len();
        match total > PACKAGE_AT_MOST {
            true => Err(Error::refused(format!("the package has more than {PACKAGE_AT_MOST} bytes"))),
            false => Ok(Some(bytes)),
        }
    };
    let Some(bytes) = fetch(driver.inf())? else { return Ok(Err(format!("{} is not there", driver.inf()))) };
    let inf = Inf::parse(&bytes)?;
    let package = Package::read(&inf, system)?;
    files.push(PackageFile { path: driver.inf().to_owned(), bytes });
    let version = system.version;
    if package.devices.is_empty() {
        return Ok(Err(format!(
            "{} has nothing for Windows {}.{}.{} ({})",
            driver.inf(),
            version.major,
            version.minor,
            version.build,
            system.architecture
        )));
    }
    if package.catalogue.is_empty() {
        return Ok(Err(format!("{} names no catalogue (.cat), so that it is not signed", driver.inf())));
    }
    for path in std::iter::once(&package.catalogue).chain(&package.files) {
        if files.iter().any(|file| file.path.eq_ignore_ascii_case(path)) {
            continue;
        }
        let Some(bytes) = fetch(path)? else { return Ok(Err(format!("its file {path} is missing"))) };
        if path.to_lowercase().ends_with(".sys") {
            match Program::parse(&bytes) {
                None => return Ok(Err(format!("{path} is no program of Windows"))),
                Some(program) if program.machine != system.architecture => {
                    return Ok(Err(format!(
                        "{path} is for {}, and the guest is {}",
                        program.machine, system.architecture
                    )));
                }
                Some(_) => {}
            }
        }
        files.push(PackageFile { path: path.clone(), bytes });
    }
    let Some(catalogue) = files.get(1).and_then(|file| Catalogue::parse(&file.bytes)) else {
        return Ok(Err(format!("{} is no signed catalogue", package.catalogue)));
    };
    let chosen = Chosen { driver, folder: folder.to_owned(), inf, package, files, catalogue };
    let Some((install, service)) = chosen.function() else {
        return Ok(Err(format!("{} installs no service for its device", driver.inf())));
    };
    let binary = service.binary.rsplit('\\').next().unwrap_or_default();
    let is_binary = |file: &&PackageFile| {
        file.path.rsplit('/').next().is_some_and(|name| name.eq_ignore_ascii_case(binary))
    };
    if !binary.to_lowercase().ends_with(".sys") || chosen.files.iter().find(is_binary).is_none() {
        let says = format!("the program {:?} of {} is not among its files", service.binary, install.name);
        return Ok(Err(says));
    }
    Ok(Ok(chosen))
}

/// What is to be said of a sound package; false where the guest could not load it.
fn is_taken(draft: &mut Draft<'_>, chosen: &Chosen, os: Option<&str>) -> Result<bool> {
    let (name, folder) = (chosen.driver.folder(), &chosen.folder);
    let newest = if draft.system.is_server { NEWEST_SERVER } else { NEWEST_CLIENT };
    let build = draft.system.version.build;
    let own = folders(&draft.system).first().copied();
    if os.is_some() && (os != own || build > newest) {
        draft.find(
            "windows-driver-nearest",
            format!("For build {build} the driver {name} is taken from {folder}, the nearest that there is."),
            "Fetch a newer virtio-win if the device does not start.",
        );
    }
    let Some(catalogue) = chosen.files.get(1) else { return Ok(true) };
    let is_signed =
        |file: &&PackageFile| file.path.to_lowercase().ends_with(".sys") || file.path == chosen.driver.inf();
    for file in chosen.files.iter().filter(is_signed) {
        if !signature::lists(&catalogue.bytes, &file.bytes) {
            draft.find(
                "windows-driver-altered",
                format!("{} in {folder} is not listed in {}: it was changed after it was signed.", file.path, catalogue.path),
                "Fetch virtio-win again and compare its checksum, unless the driver is your own and Windows is set to take it.",
            );
        }
    }
    let is_seven = draft.system.version < Version::EIGHT;
    if is_seven && chosen.catalogue.needs_sha2 && draft.system.architecture == "x86_64" && !knows_sha2(draft)?
    {
        draft.find(
            "windows-driver-signing",
            format!("The driver {name} is signed with SHA-2, and this Windows has no update that knows it (KB4474419 or KB3033929)."),
            "Install KB4474419 in the guest at the source and convert it again, or keep the AHCI controller and the e1000e card.",
        );
        return Ok(false);
    }
    Ok(true)
}

/// True where an update that brought SHA-2 is installed: one of its own, or a monthly rollup from October 2019 on, which is
/// itself signed so.
fn knows_sha2(draft: &Draft<'_>) -> Result<bool> {
    const ROLLUP: [u32; 2] = [7601, 24535];
    // Installed, installed for good, and installed but with all its files replaced by those of a later update.
    const INSTALLED: [u32; 3] = [0x70, 0x80, 0x50];
    let key = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\Packages";
    for name in draft.software.subkeys(key)? {
        let folded = name.to_lowercase();
        let knows = match folded.strip_prefix("package_for_") {
            Some(rest) if rest.starts_with("rollupfix~") => {
                let version = rest.rsplit('~').next().unwrap_or_default();
                let numbers: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
                numbers.get(..2).is_some_and(|numbers| numbers >= ROLLUP.as_slice())
            }
            Some(rest) => ["kb4474419~", "kb3033929~"].iter().any(|update| rest.starts_with(update)),
            None => false,
        };
        let state = || draft.software.dword(&format!("{key}\\{name}"), "CurrentState");
        if knows && state()?.is_some_and(|state| INSTALLED.contains(&state)) {
            return Ok(true);
        }
    }
    Ok(false)
}
