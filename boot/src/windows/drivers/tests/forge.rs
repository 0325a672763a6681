//! A virtio-win tree in the style of the real one, made here: INF files with their syntax, programs with headers and a
//! version, catalogues that list them. None of them is a driver.

use super::super::source::DriverSource;
use super::super::{Driver, signature};
use crate::tree::{Entry, NodeKind};
use crate::{Error, Result};
use landfall_image::Bytes;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A source in memory.
#[derive(Clone, Default)]
pub struct MemSource(pub BTreeMap<String, Vec<u8>>);

impl MemSource {
    /// The same in a folder of the host.
    pub fn write(&self, folder: &Path) {
        for (path, bytes) in &self.0 {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}

impl DriverSource for MemSource {
    fn name(&self) -> String {
        "virtio-win".into()
    }
    fn list(&self, folder: &str) -> Result<Option<Vec<Entry>>> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{}/", folder.to_lowercase()) };
        let mut names = BTreeSet::new();
        for path in self.0.keys() {
            let Some(head) = path.get(..prefix.len()) else { continue };
            if head.to_lowercase() == prefix {
                let mut parts = path[prefix.len()..].splitn(2, '/');
                let name = parts.next().unwrap().to_owned();
                names.insert((
                    name,
                    if parts.next().is_some() { NodeKind::Dir } else { NodeKind::File } as u8,
                ));
            }
        }
        let entry = |(name, kind): (String, u8)| Entry {
            name,
            kind: if kind == NodeKind::Dir as u8 { NodeKind::Dir } else { NodeKind::File },
        };
        Ok((!names.is_empty()).then(|| names.into_iter().map(entry).collect()))
    }
    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        let found = self.0.iter().find(|(other, _)| other.eq_ignore_ascii_case(path));
        match found {
            Some((_, bytes)) if bytes.len() as u64 > at_most.0 => Err(Error::refused("too long")),
            found => Ok(found.map(|(_, bytes)| bytes.clone())),
        }
    }
}

/// A program for a machine, with a version in its resources.
pub fn program(machine: u16, version: [u16; 4]) -> Vec<u8> {
    let mut bytes = vec![0; 0x400];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x80;
    bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
    bytes[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
    let magic: u16 = if machine == 0x14c { 0x10b } else { 0x20b };
    bytes[0x98..0x9a].copy_from_slice(&magic.to_le_bytes());
    bytes[0x200..0x208].copy_from_slice(&[0xbd, 0x04, 0xef, 0xfe, 0, 0, 1, 0]);
    for (at, part) in [0x20a, 0x208, 0x20e, 0x20c].into_iter().zip(version) {
        bytes[at..at + 2].copy_from_slice(&part.to_le_bytes());
    }
    bytes
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x84], length.as_slice(), content].concat()
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// A catalogue that lists files, and names who signed it. Its signature is none.
pub fn catalogue(files: &[&[u8]], sha2: bool, signer: &str) -> Vec<u8> {
    let hash = |file: &&[u8]| {
        let mut file = file.to_vec();
        // What a signature of a program leaves out: its checksum, and where its signature lies.
        if file.starts_with(b"MZ") {
            let directories = 0x98 + if file[0x98] == 0x0b && file[0x99] == 1 { 96 } else { 112 };
            file.drain(directories + 32..directories + 40);
            file.drain(0x98 + 64..0x98 + 68);
        }
        if sha2 { Sha256::digest(&file).to_vec() } else { Sha1::digest(&file).to_vec() }
    };
    let members: Vec<Vec<u8>> = files.iter().map(|file| tlv(4, &hash(file))).collect();
    let oid = |bytes: &[u8]| tlv(6, bytes);
    let name = |text: &str| {
        let pair = sequence(&[oid(&[0x55, 4, 3]), tlv(0x13, text.as_bytes())]);
        sequence(&[tlv(0x31, &pair)])
    };
    let algorithm = match sha2 {
        true => sequence(&[oid(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1])]),
        false => sequence(&[oid(&[0x2b, 0x0e, 3, 2, 0x1a])]),
    };
    let serial = |number: u8| tlv(2, &[number]);
    let certificate = |number: u8, subject: &str| {
        let body = [
            tlv(0xa0, &tlv(2, &[2])),
            serial(number),
            algorithm.clone(),
            name("Root"),
            sequence(&[]),
            name(subject),
        ];
        sequence(&[sequence(&body)])
    };
    let signed = [
        tlv(2, &[1]),
        tlv(0x31, &algorithm),
        sequence(&[oid(&[0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 1]), tlv(0xa0, &sequence(&members))]),
        tlv(0xa0, &[certificate(7, "Intermediate"), certificate(9, signer)].concat()),
        tlv(0x31, &sequence(&[tlv(2, &[1]), sequence(&[name("Root"), serial(9)]), algorithm.clone()])),
    ];
    sequence(&[oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2]), tlv(0xa0, &sequence(&signed))])
}

/// What one package is made by.
#[derive(Clone)]
pub struct Recipe {
    pub driver: Driver,
    /// `NTamd64.10.0`
    pub decoration: &'static str,
    pub machine: u16,
    /// 12, or 13 for drivers that run from the store.
    pub folder: u32,
    pub version: [u16; 4],
    pub date: &'static str,
    pub sha2: bool,
    pub signer: &'static str,
}

impl Recipe {
    pub fn ten(driver: Driver) -> Recipe {
        Recipe {
            driver,
            decoration: "NTamd64.10.0",
            machine: 0x8664,
            folder: 12,
            version: [100, 90, 104, 21500],
            date: "12/02/2021",
            sha2: true,
            signer: "Microsoft Windows Hardware Compatibility Publisher",
        }
    }

    pub fn seven(driver: Driver) -> Recipe {
        let signer = "Red Hat, Inc.";
        Recipe {
            decoration: "NTamd64.6.1",
            version: [61, 73, 104, 14900],
            sha2: false,
            signer,
            ..Recipe::ten(driver)
        }
    }

    pub fn sys(&self) -> String {
        self.driver.inf().replace(".inf", ".sys")
    }

    /// The INF file, by hand in the manner of its kind.
    pub fn inf(&self) -> String {
        let version = self.version.map(|part| part.to_string()).join(".");
        let (sys, date, decoration, folder) = (self.sys(), self.date, self.decoration, self.folder);
        let stem = self.driver.inf().trim_end_matches(".inf").to_owned();
        let (class, guid, legacy, subsystem, modern, service, start) = match self.driver {
            Driver::Viostor => ("SCSIAdapter", "4D36E97B", "1001", "0002", "1042", "viostor", 0),
            Driver::Vioscsi => ("SCSIAdapter", "4D36E97B", "1004", "0008", "1048", "vioscsi", 0),
            Driver::Netkvm => ("Net", "4d36e972", "1000", "0001", "1041", "netkvm", 3),
            Driver::Balloon => ("System", "4d36e97d", "1002", "0005", "1045", "BALLOON", 3),
            Driver::Vioserial => ("System", "4d36e97d", "1003", "0003", "1043", "VirtioSerial", 3),
        };
        let head = format!(
            "; {stem}, made for a test\r\n[version]\r\nSignature = \"$WINDOWS NT$\"\r\nClass={class} ; what it is\r\n\
             ClassGUID = {{{guid}-E325-11CE-BFC1-08002BE10318}}\r\nProvider=%VENDOR%\r\n\
             DriverVer = {date},{version}\r\nCatalogFile = {stem}.cat\r\nPnpLockdown=1\r\n\r\n\
             [SourceDisksNames]\r\n1 = %DiskId%,,,\"\"\r\n[SourceDisksFiles]\r\n{sys}= 1,,\r\n\
             [DestinationDirs]\r\nDefaultDestDir = {folder}\r\n\
             [Manufacturer]\r\n%VENDOR% = Virtio, NTx86.5.1, {decoration}\r\n"
        );
        let models = format!(
            "[Virtio.{decoration}]\r\n\
             %Virtio.DeviceDesc% = Install, \\ ; two ids\r\n  PCI\\VEN_1AF4&DEV_{legacy}&SUBSYS_{subsystem}1AF4&REV_00, \
             PCI\\VEN_1AF4&DEV_{legacy}\r\n\
             %Virtio.DeviceDesc% = Install, PCI\\VEN_1AF4&DEV_{modern}&SUBSYS_11001AF4&REV_01, \
             PCI\\VEN_1AF4&DEV_{modern}\r\n"
        );
        let install = format!(
            "[Install.NT]\r\nCopyFiles=Files\r\n[Files]\r\n{sys},,,2\r\n\
             [Install.NT.HW]\r\nAddReg = Interrupts\r\n[Interrupts]\r\n\
             HKR, \"Interrupt Management\",, 0x00000010\r\n\
             HKR, \"Interrupt Management\\MessageSignaledInterruptProperties\", MSISupported, 0x00010001, 1\r\n\
             [Install.NT.Services]\r\nAddService = {service},%ASSOC%, Service, Log\r\n[Service]\r\n\
             DisplayName = %Virtio.Service%\r\nServiceType = 1 ; SERVICE_KERNEL_DRIVER\r\nStartType = {start}\r\n\
             ErrorControl = %NORMAL%\r\nServiceBinary = %{folder}%\\{sys}\r\n"
        );
        let more = match self.driver {
            Driver::Viostor | Driver::Vioscsi => format!(
                "LoadOrderGroup = SCSI miniport\r\nAddReg = Bus\r\n[Bus]\r\n\
                 HKR, \"Parameters\\PnpInterface\", \"5\", %REG_DWORD%, 0x00000001\r\n\
                 HKR, \"Parameters\", \"BusType\", %REG_DWORD%, {}\r\n",
                if self.driver == Driver::Viostor { "1" } else { "0x0000000A" }
            ),
            Driver::Netkvm => "LoadOrderGroup = NDIS\r\n".to_owned(),
            _ => format!(
                "[Install.NT.Wdf]\r\nKmdfService = {service}, Wdf\r\n[Wdf]\r\nKmdfLibraryVersion = 1.15\r\n"
            ),
        };
        let log = "[Log]\r\nAddReg = LogReg\r\n[LogReg]\r\n\
                   HKR,,EventMessageFile,0x00020000,\"%%SystemRoot%%\\System32\\IoLogMsg.dll\"\r\n\
                   HKR,,TypesSupported,0x00010001,7\r\n\r\n";
        let strings = format!(
            "[Strings]\r\nVENDOR = \"Red Hat, Inc.\"\r\nDiskId = \"Disk\"\r\nVirtio.DeviceDesc = \"VirtIO {stem}\"\r\n\
             Virtio.Service = \"VirtIO {stem} \"\"Service\"\"\"\r\nASSOC = 0x00000002\r\nNORMAL = 1\r\nREG_DWORD = 0x00010001\r\n"
        );
        [head, models, install, more, log.to_owned(), strings].concat()
    }

    /// Its files by name.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let (inf, sys) = (self.inf().into_bytes(), program(self.machine, self.version));
        let cat = catalogue(&[&inf, &sys], self.sha2, self.signer);
        assert!(signature::lists(&cat, &sys));
        let name = self.driver.inf().replace(".inf", ".cat");
        vec![(self.driver.inf().to_owned(), inf), (self.sys(), sys), (name, cat)]
    }

    /// Its files in a folder of a source.
    pub fn put(&self, source: &mut MemSource, folder: &str) {
        for (name, bytes) in self.files() {
            source.0.insert(format!("{folder}/{name}"), bytes);
        }
    }
}

/// Every folder of the image: token, decoration, whether its signatures are of SHA-2.
pub const FOLDERS: &[(&str, &str, bool)] = &[
    ("xp", "NT{}.5.1", false),
    ("2k3", "NT{}.5.2", false),
    ("2k8", "NT{}.6.0", false),
    ("w7", "NT{}.6.1", false),
    ("2k8R2", "NT{}.6.1", false),
    ("w8", "NT{}.6.2", false),
    ("2k12", "NT{}.6.2", false),
    ("w8.1", "NT{}.6.3", false),
    ("2k12R2", "NT{}.6.3", false),
    ("w10", "NT{}.10.0", true),
    ("w11", "NT{}.10.0...22000", true),
    ("2k16", "NT{}.10.0", true),
    ("2k19", "NT{}.10.0...17763", true),
    ("2k22", "NT{}.10.0...20348", true),
    ("2k25", "NT{}.10.0...26100", true),
];

/// The whole image, in the layout of the ISO.
pub fn tree() -> MemSource {
    let mut source = MemSource::default();
    for (token, decoration, sha2) in FOLDERS {
        for (arch, machine) in [("amd64", 0x8664), ("x86", 0x014c), ("ARM64", 0xaa64)] {
            for driver in Driver::ALL {
                let decoration = decoration.replace("{}", if arch == "ARM64" { "arm64" } else { arch });
                let recipe = Recipe {
                    decoration: Box::leak(decoration.into_boxed_str()),
                    machine,
                    sha2: *sha2,
                    ..Recipe::ten(*driver)
                };
                recipe.put(&mut source, &format!("{}/{token}/{arch}", driver.folder()));
            }
        }
    }
    source
}
