//! Operating systems by the names that each hypervisor has for them: one table.
//!
//! Sources: VMware's enumeration VirtualMachineGuestOsIdentifier with the release that brought each name; CIM_OperatingSystem
//! (DMTF) for OVF; libosinfo's database; Proxmox VE's `ostype`; Hyper-V's secure boot templates; KubeVirt's common
//! instance types. A name is a label: drivers go by what was found in the guest, never by this.
//!
//! Deliberately absent: systems that no hypervisor here boots, and architectures other than x86.

use crate::machine::{Machine, OsId};

/// A guest system from one release on, until the next row of the same system.
#[derive(Debug)]
struct Row {
    /// Ids of os-release; `windows-server` by its year (the year after is its R2: 2009 is 2008 R2) and `windows` by its number (6 is
    /// Vista, 9 is 8.1).
    ids: &'static [&'static str],
    /// First release.
    from: u32,
    /// VMware's names of 64 bits: in a .vmx, and in its web service and OVF.
    wide: (&'static str, &'static str),
    /// The hardware version that brought the name.
    hardware: u32,
    /// The names for older hardware, where there is no row for them.
    before: Option<(&'static str, &'static str)>,
    /// VMware's names of 32 bits; empty where there are none.
    narrow: (&'static str, &'static str),
    /// libosinfo's short id; `{m}` is the major release, `{2}` the first two numbers, `{v}` all, `{s}` SUSE's spelling.
    osinfo: &'static str,
    /// Proxmox VE's `ostype`.
    proxmox: &'static str,
    /// CIM's number for 64 and 32 bits.
    cim: (u16, u16),
    /// KubeVirt's preference.
    kubevirt: &'static str,
}

#[expect(clippy::too_many_arguments, reason = "the columns of a table")]
const fn row(
    ids: &'static [&'static str],
    from: u32,
    wide: (&'static str, &'static str),
    hardware: u32,
    before: Option<(&'static str, &'static str)>,
    narrow: (&'static str, &'static str),
    osinfo: &'static str,
    proxmox: &'static str,
    cim: (u16, u16),
    kubevirt: &'static str,
) -> Row {
    Row { ids, from, wide, hardware, before, narrow, osinfo, proxmox, cim, kubevirt }
}

/// The newest release of a system first.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    row(&["debian"], 13, ("debian13-64", "debian13_64Guest"), 22, Some(("debian11-64", "debian11_64Guest")), ("debian13", "debian13Guest"), "debian{m}", "l26", (96, 95), "debian"),
    row(&["debian"], 12, ("debian12-64", "debian12_64Guest"), 20, Some(("debian11-64", "debian11_64Guest")), ("debian12", "debian12Guest"), "debian{m}", "l26", (96, 95), "debian"),
    row(&["debian"], 11, ("debian11-64", "debian11_64Guest"), 17, None, ("debian11", "debian11Guest"), "debian{m}", "l26", (96, 95), "debian"),
    row(&["debian"], 10, ("debian10-64", "debian10_64Guest"), 13, None, ("debian10", "debian10Guest"), "debian{m}", "l26", (96, 95), "debian"),
    row(&["debian"], 9, ("debian9-64", "debian9_64Guest"), 13, None, ("debian9", "debian9Guest"), "debian{m}", "l26", (96, 95), "debian"),
    row(&["debian"], 8, ("debian8-64", "debian8_64Guest"), 11, None, ("debian8", "debian8Guest"), "debian{m}", "l26", (96, 95), "debian"),
    row(&["debian"], 7, ("debian7-64", "debian7_64Guest"), 8, None, ("debian7", "debian7Guest"), "debian{m}", "l26", (96, 95), "debian"),
    row(&["debian"], 6, ("debian6-64", "debian6_64Guest"), 8, None, ("debian6", "debian6Guest"), "debian{m}", "l26", (96, 95), "debian"),
    row(&["debian"], 0, ("debian5-64", "debian5_64Guest"), 7, None, ("debian5", "debian5Guest"), "debian{m}", "l26", (96, 95), "debian"),
    row(&["ubuntu", "linuxmint", "pop", "zorin"], 0, ("ubuntu-64", "ubuntu64Guest"), 4, None, ("ubuntu", "ubuntuGuest"), "ubuntu{v}", "l26", (94, 93), "ubuntu"),
    row(&["rhel"], 10, ("rhel10-64", "rhel10_64Guest"), 22, Some(("rhel8-64", "rhel8_64Guest")), ("otherlinux", "otherLinuxGuest"), "rhel{v}", "l26", (80, 79), "rhel.10"),
    row(&["rhel"], 9, ("rhel9-64", "rhel9_64Guest"), 18, Some(("rhel8-64", "rhel8_64Guest")), ("otherlinux", "otherLinuxGuest"), "rhel{v}", "l26", (80, 79), "rhel.9"),
    row(&["rhel"], 8, ("rhel8-64", "rhel8_64Guest"), 14, None, ("otherlinux", "otherLinuxGuest"), "rhel{v}", "l26", (80, 79), "rhel.8"),
    row(&["rhel"], 7, ("rhel7-64", "rhel7_64Guest"), 8, None, ("rhel7", "rhel7Guest"), "rhel{v}", "l26", (80, 79), "rhel.7"),
    row(&["rhel"], 6, ("rhel6-64", "rhel6_64Guest"), 7, None, ("rhel6", "rhel6Guest"), "rhel{v}", "l26", (80, 79), ""),
    row(&["rhel"], 5, ("rhel5-64", "rhel5_64Guest"), 7, None, ("rhel5", "rhel5Guest"), "rhel{v}", "l26", (80, 79), ""),
    row(&["rhel"], 0, ("rhel4-64", "rhel4_64Guest"), 7, None, ("rhel4", "rhel4Guest"), "rhel{v}", "l26", (80, 79), ""),
    row(&["centos"], 9, ("centos9-64", "centos9_64Guest"), 18, Some(("centos8-64", "centos8_64Guest")), ("otherlinux", "otherLinuxGuest"), "centos-stream{m}", "l26", (107, 106), "centos.stream9"),
    row(&["centos"], 8, ("centos8-64", "centos8_64Guest"), 14, None, ("otherlinux", "otherLinuxGuest"), "centos{m}", "l26", (107, 106), ""),
    row(&["centos"], 7, ("centos7-64", "centos7_64Guest"), 13, None, ("centos7", "centos7Guest"), "centos{m}.0", "l26", (107, 106), "centos.7"),
    row(&["centos"], 6, ("centos6-64", "centos6_64Guest"), 13, None, ("centos6", "centos6Guest"), "centos{m}.0", "l26", (107, 106), ""),
    row(&["centos"], 0, ("centos-64", "centos64Guest"), 7, None, ("centos", "centosGuest"), "centos{m}.0", "l26", (107, 106), ""),
    row(&["rocky"], 0, ("rockylinux-64", "rockylinux_64Guest"), 20, Some(("centos8-64", "centos8_64Guest")), ("otherlinux", "otherLinuxGuest"), "rocky{m}", "l26", (101, 36), "rhel.{m}"),
    row(&["almalinux"], 0, ("almalinux-64", "almalinux_64Guest"), 20, Some(("centos8-64", "centos8_64Guest")), ("otherlinux", "otherLinuxGuest"), "almalinux{m}", "l26", (101, 36), "rhel.{m}"),
    row(&["ol"], 10, ("oraclelinux10-64", "oracleLinux10_64Guest"), 22, Some(("oraclelinux8-64", "oracleLinux8_64Guest")), ("otherlinux", "otherLinuxGuest"), "ol{v}", "l26", (109, 108), ""),
    row(&["ol"], 9, ("oraclelinux9-64", "oracleLinux9_64Guest"), 18, Some(("oraclelinux8-64", "oracleLinux8_64Guest")), ("otherlinux", "otherLinuxGuest"), "ol{v}", "l26", (109, 108), ""),
    row(&["ol"], 8, ("oraclelinux8-64", "oracleLinux8_64Guest"), 14, None, ("otherlinux", "otherLinuxGuest"), "ol{v}", "l26", (109, 108), ""),
    row(&["ol"], 7, ("oraclelinux7-64", "oracleLinux7_64Guest"), 13, None, ("oraclelinux7", "oracleLinux7Guest"), "ol{v}", "l26", (109, 108), ""),
    row(&["ol"], 6, ("oraclelinux6-64", "oracleLinux6_64Guest"), 13, None, ("oraclelinux6", "oracleLinux6Guest"), "ol{v}", "l26", (109, 108), ""),
    row(&["ol"], 0, ("oraclelinux-64", "oracleLinux64Guest"), 7, None, ("oraclelinux", "oracleLinuxGuest"), "ol{v}", "l26", (109, 108), ""),
    row(&["fedora"], 0, ("fedora-64", "fedora64Guest"), 13, None, ("fedora", "fedoraGuest"), "fedora{m}", "l26", (101, 36), "fedora"),
    row(&["sles", "sled", "sles_sap"], 16, ("sles16-64", "sles16_64Guest"), 18, Some(("sles15-64", "sles15_64Guest")), ("otherlinux", "otherLinuxGuest"), "sle{s}", "l26", (85, 84), "sles"),
    row(&["sles", "sled", "sles_sap"], 15, ("sles15-64", "sles15_64Guest"), 14, None, ("otherlinux", "otherLinuxGuest"), "sle{s}", "l26", (85, 84), "sles"),
    row(&["sles", "sled", "sles_sap"], 12, ("sles12-64", "sles12_64Guest"), 8, None, ("sles12", "sles12Guest"), "sle{s}", "l26", (85, 84), "sles"),
    row(&["sles", "sled", "sles_sap"], 11, ("sles11-64", "sles11_64Guest"), 7, None, ("sles11", "sles11Guest"), "sle{s}", "l26", (85, 84), "sles"),
    row(&["sles", "sled", "sles_sap"], 0, ("sles10-64", "sles10_64Guest"), 7, None, ("sles10", "sles10Guest"), "sle{s}", "l26", (85, 84), "sles"),
    row(&["opensuse-leap", "opensuse-tumbleweed", "opensuse"], 0, ("opensuse-64", "opensuse64Guest"), 8, None, ("opensuse", "opensuseGuest"), "opensuse{v}", "l26", (83, 82), "opensuse.leap"),
    row(&["amzn"], 2023, ("amazonlinux3-64", "amazonlinux3_64Guest"), 18, Some(("amazonlinux2-64", "amazonlinux2_64Guest")), ("otherlinux", "otherLinuxGuest"), "", "l26", (101, 36), ""),
    row(&["amzn"], 0, ("amazonlinux2-64", "amazonlinux2_64Guest"), 15, None, ("otherlinux", "otherLinuxGuest"), "", "l26", (101, 36), ""),
    row(&["photon"], 0, ("vmware-photon-64", "vmwarePhoton64Guest"), 13, None, ("otherlinux", "otherLinuxGuest"), "", "l26", (101, 36), ""),
    row(&["alpine"], 0, ("other5xlinux-64", "other5xLinux64Guest"), 18, Some(("other4xlinux-64", "other4xLinux64Guest")), ("otherlinux", "otherLinuxGuest"), "alpinelinux{2}", "l26", (101, 36), "alpine"),
    row(&["arch"], 0, ("other5xlinux-64", "other5xLinux64Guest"), 18, Some(("other4xlinux-64", "other4xLinux64Guest")), ("otherlinux", "otherLinuxGuest"), "archlinux", "l26", (101, 36), "linux"),
    row(&["linux"], 0, ("other5xlinux-64", "other5xLinux64Guest"), 18, Some(("other4xlinux-64", "other4xLinux64Guest")), ("otherlinux", "otherLinuxGuest"), "", "l26", (101, 36), "linux"),
    row(&["freebsd"], 14, ("freebsd14-64", "freebsd14_64Guest"), 20, Some(("freebsd13-64", "freebsd13_64Guest")), ("freebsd14", "freebsd14Guest"), "freebsd{v}", "other", (78, 42), ""),
    row(&["freebsd"], 13, ("freebsd13-64", "freebsd13_64Guest"), 17, None, ("freebsd13", "freebsd13Guest"), "freebsd{v}", "other", (78, 42), ""),
    row(&["freebsd"], 12, ("freebsd12-64", "freebsd12_64Guest"), 14, None, ("freebsd12", "freebsd12Guest"), "freebsd{v}", "other", (78, 42), ""),
    row(&["freebsd"], 0, ("freebsd-64", "freebsd64Guest"), 4, None, ("freebsd", "freebsdGuest"), "freebsd{v}", "other", (78, 42), ""),
    row(&["windows-server"], 2025, ("windows2022srvnext-64", "windows2022srvNext_64Guest"), 20, Some(("windows2019srv-64", "windows2019srv_64Guest")), ("", ""), "win2k25", "win11", (102, 1), "windows.2k25"),
    row(&["windows-server"], 2022, ("windows2019srvnext-64", "windows2019srvNext_64Guest"), 18, Some(("windows2019srv-64", "windows2019srv_64Guest")), ("", ""), "win2k22", "win11", (102, 1), "windows.2k22"),
    row(&["windows-server"], 2019, ("windows2019srv-64", "windows2019srv_64Guest"), 17, Some(("windows9srv-64", "windows9Server64Guest")), ("", ""), "win2k19", "win10", (102, 1), "windows.2k19"),
    row(&["windows-server"], 2016, ("windows9srv-64", "windows9Server64Guest"), 10, None, ("", ""), "win2k16", "win10", (102, 1), "windows.2k16"),
    row(&["windows-server"], 2013, ("windows8srv-64", "windows8Server64Guest"), 8, None, ("", ""), "win2k12r2", "win8", (115, 1), ""),
    row(&["windows-server"], 2012, ("windows8srv-64", "windows8Server64Guest"), 8, None, ("", ""), "win2k12", "win8", (115, 1), ""),
    row(&["windows-server"], 2009, ("windows7srv-64", "windows7Server64Guest"), 7, None, ("", ""), "win2k8r2", "win7", (103, 1), ""),
    row(&["windows-server"], 2008, ("longhorn-64", "winLonghorn64Guest"), 7, None, ("longhorn", "winLonghornGuest"), "win2k8", "w2k8", (77, 76), ""),
    row(&["windows-server"], 2004, ("winnetstandard-64", "winNetStandard64Guest"), 4, None, ("winnetstandard", "winNetStandardGuest"), "win2k3r2", "w2k3", (70, 69), ""),
    row(&["windows-server"], 2003, ("winnetstandard-64", "winNetStandard64Guest"), 4, None, ("winnetstandard", "winNetStandardGuest"), "win2k3", "w2k3", (70, 69), ""),
    row(&["windows-server"], 0, ("", ""), 4, None, ("win2000serv", "win2000ServGuest"), "win2k", "w2k", (58, 58), ""),
    row(&["windows"], 11, ("windows11-64", "windows11_64Guest"), 20, Some(("windows9-64", "windows9_64Guest")), ("", ""), "win11", "win11", (102, 1), "windows.11"),
    row(&["windows"], 10, ("windows9-64", "windows9_64Guest"), 10, None, ("windows9", "windows9Guest"), "win10", "win10", (102, 1), "windows.10"),
    row(&["windows"], 9, ("windows8-64", "windows8_64Guest"), 8, None, ("windows8", "windows8Guest"), "win8.1", "win8", (114, 113), ""),
    row(&["windows"], 8, ("windows8-64", "windows8_64Guest"), 8, None, ("windows8", "windows8Guest"), "win8", "win8", (114, 113), ""),
    row(&["windows"], 7, ("windows7-64", "windows7_64Guest"), 7, None, ("windows7", "windows7Guest"), "win7", "win7", (105, 105), ""),
    row(&["windows"], 6, ("winvista-64", "winVista64Guest"), 4, None, ("winvista", "winVistaGuest"), "winvista", "wvista", (74, 73), ""),
    row(&["windows"], 0, ("winxppro-64", "winXPPro64Guest"), 4, None, ("winxppro", "winXPProGuest"), "winxp", "wxp", (71, 67), ""),
];

/// What is known of a machine's guest.
#[derive(Clone, Debug)]
pub struct Guest {
    row: Option<&'static Row>,
    version: String,
    is_64_bit: bool,
}

/// The guest of a machine: by what was found on its disks, else by what its definition calls it.
pub fn of(machine: &Machine) -> Guest {
    let label = machine.os_label.as_deref().unwrap_or_default();
    let labelled = by_label(label);
    match &machine.os {
        Some(os) => {
            // The label tells how wide it is, where it speaks of the same system.
            let found = by_id(os, true);
            let is_narrow = labelled.is_some_and(|guest| guest.is_same_system(&found) && !guest.is_64_bit);
            Guest { is_64_bit: !is_narrow, ..found }
        }
        None => labelled.unwrap_or(Guest { row: None, version: String::new(), is_64_bit: true }),
    }
}

/// The guest with that id and version of os-release.
pub fn by_id(os: &OsId, is_64_bit: bool) -> Guest {
    let has = |row: &&Row| row.ids.contains(&os.distribution.as_str());
    // Without a version it is the newest: Debian's testing, Arch.
    let major = match (os.distribution.as_str(), os.version.as_str()) {
        ("windows", version) if version == "8.1" || version.starts_with("8.1.") => 9,
        ("windows-server", version) if version.ends_with(" R2") => {
            version.trim_end_matches(" R2").parse::<u32>().map_or(u32::MAX, |year| year.saturating_add(1))
        }
        (_, version) => version.split(['.', '-']).next().and_then(|n| n.parse().ok()).unwrap_or(u32::MAX),
    };
    let row = ROWS.iter().filter(has).find(|row| row.from <= major).or_else(|| linux());
    Guest { row, version: os.version.clone(), is_64_bit }
}

/// The id of a system as Glance's `os_distro` has it. One that Glance has no word for keeps its own.
pub fn glance(distribution: &str) -> &str {
    match distribution {
        "windows-server" => "windows",
        "opensuse-leap" | "opensuse-tumbleweed" => "opensuse",
        "sles_sap" => "sles",
        other => other,
    }
}

fn linux() -> Option<&'static Row> {
    ROWS.iter().find(|row| row.ids == ["linux"])
}

/// The guest that a definition calls `label`: VMware's names, Proxmox VE's, libosinfo's, VirtualBox'.
pub fn by_label(label: &str) -> Option<Guest> {
    if label.is_empty() {
        return None;
    }
    let lower = label.trim().to_ascii_lowercase();
    let guest = |row: &'static Row, version: &str, is_64_bit| {
        Some(Guest { row: Some(row), version: version.to_owned(), is_64_bit })
    };
    for row in ROWS {
        let version = if row.from == 0 { String::new() } else { row.from.to_string() };
        let is = |pair: (&str, &str)| {
            !pair.0.is_empty() && (lower == pair.0 || label.eq_ignore_ascii_case(pair.1))
        };
        if is(row.wide) {
            return guest(row, &version, true);
        }
        if is(row.narrow) && row.narrow.0 != "otherlinux" {
            return guest(row, &version, false);
        }
    }
    // http://debian.org/debian/12, http://microsoft.com/win/2k22
    let lower = match lower.strip_prefix("http://") {
        Some(url) => url.split('/').skip(1).collect::<Vec<_>>().concat(),
        None => lower,
    };
    let is_64_bit = !(lower.ends_with("-32") || lower.ends_with("_32"));
    let bare = lower.trim_end_matches("_64").trim_end_matches("-64");
    if let Some(row) = windows(bare) {
        return guest(row, "", is_64_bit);
    }
    let at = bare.find(|c: char| c.is_ascii_digit()).unwrap_or(bare.len());
    let (name, version) = bare.split_at(at);
    let name = name.trim_end_matches(['-', '_', ' ']);
    let id = match name {
        "redhat" => "rhel",
        "oracle" | "oraclelinux" => "ol",
        "archlinux" => "arch",
        "alpinelinux" => "alpine",
        "centos-stream" => "centos",
        "sle" => "sles",
        "opensuse" => "opensuse-leap",
        "linux" | "l26" | "l" | "otherlinux" => "linux",
        // Windows by a number that is none of its own.
        "win" | "windows" => return None,
        other => other,
    };
    // Without a version it is the newest; a word in its place is no version. SUSE's 15sp4 is 15.4.
    let version = version.replacen("sp", ".", 1);
    let first = version.split(['.', '-', '_']).next().unwrap_or_default();
    let major = if first.is_empty() { u32::MAX } else { first.parse().ok()? };
    let row = ROWS.iter().filter(|row| row.ids.contains(&id)).find(|row| row.from <= major)?;
    guest(row, if id == "linux" { "" } else { &version }, is_64_bit)
}

/// Windows by libosinfo's name (`win2k12r2`), Proxmox VE's (`w2k8`), or the number behind `win` or `windows` (`windows2012`, `windows81`).
fn windows(label: &str) -> Option<&'static Row> {
    let rows = || ROWS.iter().filter(|row| row.ids[0].starts_with("windows"));
    let short = label.replacen("windows", "win", 1);
    // A name that both have is libosinfo's, which is one system's: win10.
    let named = rows().find(|row| row.osinfo == short).or_else(|| rows().find(|row| row.proxmox == label));
    if named.is_some() {
        return named;
    }
    let number = short.strip_prefix("win")?.trim_start_matches(['-', '_', ' ']);
    let (number, is_second) = match number.strip_suffix("r2") {
        Some(number) => (number, true),
        None => (number, false),
    };
    let (id, from) = match number.strip_prefix("2k") {
        Some("") => ("windows-server", 2000),
        Some(year) => ("windows-server", 2000 + year.parse::<u32>().ok().filter(|year| *year < 100)?),
        // Without a number it is the newest.
        None if number.is_empty() => ("windows", u32::MAX - 1),
        None => match number.parse::<u32>().ok()? {
            81 => ("windows", 9),
            number @ (7 | 8 | 10..=19) => ("windows", number),
            year @ 2000..=2099 => ("windows-server", year),
            // 3.1, 95 and 98, which nothing here starts.
            _ => return None,
        },
    };
    let from = from + u32::from(is_second);
    rows().filter(|row| row.ids == [id]).find(|row| row.from <= from)
}

/// libosinfo's id of a machine's guest, `http://debian.org/debian/12`, as libvirt's metadata have it: by what was found on its
/// disks, else by what its definition calls it.
pub fn libosinfo_id(machine: &Machine) -> Option<String> {
    let label = machine.os_label.as_deref().unwrap_or_default();
    match &machine.os {
        // These count their own releases, not those of the system that they are made of.
        Some(os) if ["linuxmint", "zorin", "opensuse-tumbleweed"].contains(&os.distribution.as_str()) => None,
        None if label.starts_with("http://") => Some(label.to_owned()),
        _ => of(machine).osinfo().as_deref().and_then(osinfo_url),
    }
}

/// The id that belongs to one of libosinfo's short ids.
fn osinfo_url(short: &str) -> Option<String> {
    let version = |prefix: &str| short.strip_prefix(prefix).filter(|rest| !rest.is_empty());
    for (prefix, site) in [
        ("debian", "debian.org/debian"),
        ("ubuntu", "ubuntu.com/ubuntu"),
        ("rhel", "redhat.com/rhel"),
        ("centos-stream", "centos.org/centos-stream"),
        ("centos", "centos.org/centos"),
        ("rocky", "rockylinux.org/rocky"),
        ("almalinux", "almalinux.org/almalinux"),
        ("ol", "oracle.com/ol"),
        ("fedora", "fedoraproject.org/fedora"),
        ("opensuse", "opensuse.org/opensuse"),
        ("alpinelinux", "alpinelinux.org/alpinelinux"),
        ("freebsd", "freebsd.org/freebsd"),
        ("win", "microsoft.com/win"),
    ] {
        if let Some(version) = version(prefix) {
            return Some(format!("http://{site}/{version}"));
        }
    }
    if short == "archlinux" {
        return Some("http://archlinux.org/archlinux/rolling".to_owned());
    }
    // Before release 15 the server's product had a name of its own.
    let version = version("sle")?.replace("sp", ".");
    let is_new = version.split('.').next().and_then(|major| major.parse().ok()).is_some_and(|n: u32| n >= 15);
    Some(format!("http://suse.com/{}/{version}", if is_new { "sle" } else { "sles" }))
}

impl Guest {
    /// Windows, of any kind.
    pub fn is_windows(&self) -> bool {
        self.row.is_some_and(|row| row.ids[0].starts_with("windows"))
    }

    /// True where both are releases of one system.
    fn is_same_system(&self, other: &Guest) -> bool {
        self.row.zip(other.row).is_some_and(|(own, other)| own.ids == other.ids)
    }

    /// Linux, of any kind.
    pub fn is_linux(&self) -> bool {
        self.row.is_some_and(|row| row.proxmox == "l26" || row.proxmox == "l24")
    }

    /// VMware's name in a .vmx (`debian11-64`) that hardware of that version knows.
    pub fn vmx(&self, hardware: u32) -> &'static str {
        self.vmware(hardware).0
    }

    /// VMware's name in its web service and in OVF: `debian11_64Guest`.
    pub fn vsphere(&self, hardware: u32) -> &'static str {
        self.vmware(hardware).1
    }

    fn vmware(&self, hardware: u32) -> (&'static str, &'static str) {
        let Some(row) = self.row else {
            return if self.is_64_bit { ("other-64", "otherGuest64") } else { ("other", "otherGuest") };
        };
        if (!self.is_64_bit || row.wide.0.is_empty()) && !row.narrow.0.is_empty() {
            return row.narrow;
        }
        row.before.filter(|_| hardware < row.hardware).unwrap_or(row.wide)
    }

    /// libosinfo's short id, `debian12`, where it has one.
    pub fn osinfo(&self) -> Option<String> {
        let pattern = self.row?.osinfo;
        if pattern.is_empty() || pattern.contains('{') && self.version.is_empty() {
            return None;
        }
        let numbers: Vec<&str> = self.version.split('.').collect();
        let major = numbers.first().copied().unwrap_or_default();
        let suse = match numbers.as_slice() {
            [major, service @ ..] if !service.is_empty() => format!("{major}sp{}", service[0]),
            _ => major.to_owned(),
        };
        let two = numbers.iter().take(2).copied().collect::<Vec<_>>().join(".");
        // libosinfo knows minor releases where there are any.
        let all = if numbers.len() == 1 && pattern.starts_with("rhel") {
            format!("{major}.0")
        } else {
            self.version.clone()
        };
        let mut out = pattern.to_owned();
        for (mark, value) in [("{m}", major), ("{2}", &two), ("{v}", &all), ("{s}", &suse)] {
            out = out.replace(mark, value);
        }
        Some(out)
    }

    /// Proxmox VE's `ostype`.
    pub fn proxmox(&self) -> &'static str {
        self.row.map_or("other", |row| row.proxmox)
    }

    /// Hyper-V's secure boot template.
    pub fn hyperv_template(&self) -> &'static str {
        if self.is_windows() { "MicrosoftWindows" } else { "MicrosoftUEFICertificateAuthority" }
    }

    /// CIM_OperatingSystem's OSType, as OVF has it; 1 is "other".
    pub fn cim(&self) -> u16 {
        match self.row {
            Some(row) if self.is_64_bit => row.cim.0,
            Some(row) => row.cim.1,
            None if self.is_64_bit => 102,
            None => 1,
        }
    }

    /// KubeVirt's preference, where its common ones have one.
    pub fn kubevirt(&self) -> Option<String> {
        let name = self.row?.kubevirt;
        let major = self.version.split('.').next().unwrap_or_default();
        let known = !name.is_empty() && (!name.contains("{m}") || !major.is_empty());
        known.then(|| name.replace("{m}", major))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::Bytes;

    fn os(distribution: &str, version: &str) -> Guest {
        by_id(&OsId { distribution: distribution.into(), version: version.into() }, true)
    }

    #[test]
    fn each_hypervisor_has_its_own_name() {
        for (id, version, vmx, vsphere, osinfo, proxmox, cim, kubevirt) in [
            ("debian", "12", "debian11-64", "debian11_64Guest", "debian12", "l26", 96, "debian"),
            ("debian", "10", "debian10-64", "debian10_64Guest", "debian10", "l26", 96, "debian"),
            ("ubuntu", "24.04", "ubuntu-64", "ubuntu64Guest", "ubuntu24.04", "l26", 94, "ubuntu"),
            ("rhel", "9.4", "rhel8-64", "rhel8_64Guest", "rhel9.4", "l26", 80, "rhel.9"),
            ("rhel", "6", "rhel6-64", "rhel6_64Guest", "rhel6.0", "l26", 80, ""),
            ("rocky", "9.3", "centos8-64", "centos8_64Guest", "rocky9", "l26", 101, "rhel.9"),
            ("sles", "15.5", "sles15-64", "sles15_64Guest", "sle15sp5", "l26", 85, "sles"),
            ("amzn", "2023", "amazonlinux2-64", "amazonlinux2_64Guest", "", "l26", 101, ""),
            (
                "alpine",
                "3.19.1",
                "other4xlinux-64",
                "other4xLinux64Guest",
                "alpinelinux3.19",
                "l26",
                101,
                "alpine",
            ),
            ("nobody", "1", "other4xlinux-64", "other4xLinux64Guest", "", "l26", 101, "linux"),
            (
                "windows-server",
                "2022",
                "windows2019srv-64",
                "windows2019srv_64Guest",
                "win2k22",
                "win11",
                102,
                "windows.2k22",
            ),
            ("windows", "10", "windows9-64", "windows9_64Guest", "win10", "win10", 102, "windows.10"),
        ] {
            let guest = os(id, version);
            assert_eq!((guest.vmx(17), guest.vsphere(17)), (vmx, vsphere), "{id} {version}");
            assert_eq!(guest.osinfo().unwrap_or_default(), osinfo, "{id} {version}");
            assert_eq!((guest.proxmox(), guest.cim()), (proxmox, cim), "{id} {version}");
            assert_eq!(guest.kubevirt().unwrap_or_default(), kubevirt, "{id} {version}");
        }
        assert_eq!(os("debian", "12").vmx(20), "debian12-64");
        assert_eq!(os("debian", "").vmx(22), "debian13-64", "testing");
        assert_eq!(
            by_id(&OsId { distribution: "debian".into(), version: "9".into() }, false).vmx(17),
            "debian9"
        );
    }

    #[test]
    fn labels_of_every_producer_are_understood() {
        for (label, vmx, windows) in [
            ("debian12-64", "debian12-64", false),
            ("debian12_64Guest", "debian12-64", false),
            ("ubuntu", "ubuntu", false),
            ("windows2019srvNext_64Guest", "windows2019srvnext-64", true),
            ("windows9Server64Guest", "windows9srv-64", true),
            ("win11", "windows11-64", true),
            ("win10", "windows9-64", true),
            ("w2k3", "winnetstandard-64", true),
            ("l26", "other5xlinux-64", false),
            ("http://debian.org/debian/12", "debian12-64", false),
            ("http://microsoft.com/win/2k19", "windows2019srv-64", true),
            ("Debian_64", "debian13-64", false),
            ("RedHat9_64", "rhel9-64", false),
            ("Windows2016_64", "windows9srv-64", true),
            ("Windows10_64", "windows9-64", true),
            ("win2k12", "windows8srv-64", true),
            ("win2k12r2", "windows8srv-64", true),
            ("http://microsoft.com/win/2k12r2", "windows8srv-64", true),
            ("Windows2012_64", "windows8srv-64", true),
            ("Windows2025_64", "windows2022srvnext-64", true),
            ("win2k3r2", "winnetstandard-64", true),
            ("win8", "windows8-64", true),
            ("win8.1", "windows8-64", true),
            ("Windows81_64", "windows8-64", true),
            ("Windows12_64", "windows11-64", true),
            ("windows", "windows11-64", true),
            ("WindowsXP_64", "winxppro-64", true),
            ("sle15sp4", "sles15-64", false),
            ("centos-stream9", "centos9-64", false),
            ("Ubuntu22_LTS_64", "ubuntu-64", false),
        ] {
            let guest = by_label(label).unwrap_or_else(|| panic!("{label} is not known"));
            assert_eq!((guest.vmx(99), guest.is_windows()), (vmx, windows), "{label}");
        }
        for label in [
            "",
            "plan9",
            "nonsense12",
            "\u{1}",
            "win98",
            "Windows31",
            "windowsfoo",
            "win2kx",
            "win7x",
            "debian12x",
            "rhel9x",
        ] {
            assert!(by_label(label).is_none(), "{label}");
        }
        let mut machine = Machine::new("a", Bytes::gib(1));
        assert_eq!((of(&machine).vmx(17), of(&machine).cim()), ("other-64", 102));
        machine.os_label = Some("debian9".into());
        machine.os = Some(OsId { distribution: "debian".into(), version: "10".into() });
        assert_eq!(
            of(&machine).vmx(17),
            "debian10",
            "what was found goes before the label, but for its width"
        );
    }

    #[test]
    fn libosinfo_knows_systems_by_their_makers_site() {
        for (id, version, url) in [
            ("debian", "12", "http://debian.org/debian/12"),
            ("ubuntu", "24.04", "http://ubuntu.com/ubuntu/24.04"),
            ("centos", "9", "http://centos.org/centos-stream/9"),
            ("centos", "7", "http://centos.org/centos/7.0"),
            ("sles", "15.5", "http://suse.com/sle/15.5"),
            ("sles", "12.5", "http://suse.com/sles/12.5"),
            ("arch", "", "http://archlinux.org/archlinux/rolling"),
            ("windows-server", "2022", "http://microsoft.com/win/2k22"),
            ("windows", "10", "http://microsoft.com/win/10"),
            ("linuxmint", "21", ""),
            ("amzn", "2023", ""),
        ] {
            let mut machine = Machine::new("a", Bytes::gib(1));
            machine.os_label = Some("http://label.example/1".into());
            assert_eq!(libosinfo_id(&machine).as_deref(), Some("http://label.example/1"));
            machine.os = Some(OsId { distribution: id.into(), version: version.into() });
            assert_eq!(libosinfo_id(&machine).unwrap_or_default(), url, "{id} {version}");
            if by_label(url).is_some_and(|guest| guest.osinfo().is_some()) && id != "centos" {
                assert_eq!(by_label(url).unwrap().osinfo(), of(&machine).osinfo(), "{url}");
            }
        }
    }

    #[test]
    fn a_label_of_another_system_says_nothing() {
        let mut machine = Machine::new("a", Bytes::gib(1));
        machine.os = Some(OsId { distribution: "debian".into(), version: "12".into() });
        for (label, vmx) in [("winXPPro", "debian12-64"), ("centos7", "debian12-64"), ("debian9", "debian12")]
        {
            machine.os_label = Some(label.into());
            assert_eq!(of(&machine).vmx(20), vmx, "{label}");
        }
    }

    #[test]
    fn libosinfo_tells_releases_of_windows_apart() {
        for name in ["win2k3", "win2k3r2", "win2k12", "win2k12r2", "win8", "win8.1", "win2k8r2", "win2k"] {
            assert_eq!(by_label(name).unwrap().osinfo().as_deref(), Some(name));
        }
        for (version, name) in [("8.1", "win8.1"), ("8", "win8"), ("10", "win10")] {
            assert_eq!(os("windows", version).osinfo().as_deref(), Some(name));
        }
    }

    #[test]
    fn glance_has_ids_of_its_own() {
        for (id, glance) in [
            ("windows-server", "windows"),
            ("windows", "windows"),
            ("opensuse-tumbleweed", "opensuse"),
            ("sles_sap", "sles"),
            ("debian", "debian"),
            ("linuxmint", "linuxmint"),
        ] {
            assert_eq!(super::glance(id), glance, "{id}");
        }
    }

    #[test]
    fn rows_of_a_system_are_in_falling_order() {
        for (index, row) in ROWS.iter().enumerate() {
            let later = ROWS[index + 1..].iter().find(|other| other.ids == row.ids);
            assert!(later.is_none_or(|other| other.from < row.from), "{row:?}");
            assert!(later.is_some() || row.from == 0, "{row:?} is not the last");
        }
    }
}
