//! Against volumes of Windows: the images that cryptsetup's own tests bring (`tests/bitlk-images.tar.xz` of its source), with the
//! SHA-256 of what is in them. They are looked for in `LANDFALL_BITLK_IMAGES`.

mod made;

use super::*;
use crate::disk::{Disk, Extent, ExtentKind};
use crate::units::{Bytes, GuestOffset, GuestRange};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Mutex;

/// A disk in memory.
struct Memory(Mutex<Vec<u8>>);

impl Disk for Memory {
    fn size(&self) -> Bytes {
        Bytes(self.0.lock().unwrap().len() as u64)
    }
    fn extents(&self, range: GuestRange, _: usize) -> Result<Vec<Extent>> {
        Ok(vec![Extent { range, kind: ExtentKind::Data }])
    }
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        let at = usize::try_from(at.0).unwrap();
        buf.copy_from_slice(&self.0.lock().unwrap()[at..at + buf.len()]);
        Ok(())
    }
}

impl DiskMut for Memory {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        let at = usize::try_from(at.0).unwrap();
        self.0.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
    fn zero_at(&self, _: GuestRange) -> Result<()> {
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

fn images() -> Option<PathBuf> {
    let folder =
        std::env::var_os("LANDFALL_BITLK_IMAGES").map(PathBuf::from).filter(|folder| folder.is_dir());
    if folder.is_none() {
        eprintln!("SKIPPED: LANDFALL_BITLK_IMAGES names no folder with images of BitLocker");
    }
    folder
}

fn try_open(disk: &Arc<Memory>, key: Option<&str>) -> Result<Outcome> {
    let key = key.map(|key| Secret::new(key.as_bytes().to_vec()));
    open_volume(disk.clone(), key.as_ref(), &mut Effort::default())
}

fn hash(disk: &dyn Disk) -> String {
    let mut hash = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    for at in (0..disk.size().0).step_by(buf.len()) {
        let len = usize::try_from(disk.size().0 - at).unwrap().min(buf.len());
        disk.read_at(GuestOffset(at), &mut buf[..len]).unwrap();
        hash.update(&buf[..len]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every image that can be opened, by every secret that its list names: the content is what the list says.
#[test]
fn volumes_of_windows_are_read() {
    let Some(folder) = images() else { return };
    let list = std::fs::read_to_string(folder.join("images.conf")).unwrap();
    let mut read = 0;
    for section in list.split("\n[").map(|section| section.trim_start_matches('[')) {
        let (name, fields) = section.split_once(']').unwrap();
        let field = |name: &str| fields.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let disk = Arc::new(Memory(Mutex::new(std::fs::read(folder.join(format!("{name}.img"))).unwrap())));
        let wanted = field("SHA256SUM=");
        for secret in [field("RP="), field("PW=")].into_iter().filter(|secret| !secret.is_empty()) {
            match try_open(&disk, Some(secret)) {
                Ok(Outcome::Opened(volume)) => {
                    assert_eq!(hash(&*volume), wanted, "{name} by {secret}");
                    read += 1;
                }
                Ok(_) => panic!("{name} is not opened by {secret}"),
                Err(error) if error.kind() == crate::Kind::Unsupported => eprintln!("{name}: {error}"),
                Err(error) => panic!("{name}: {error}"),
            }
        }
        if field("CLEARKEY=") == "1" || name.contains("clearkey") {
            match try_open(&disk, None) {
                Ok(Outcome::Opened(volume)) => {
                    assert!(wanted.is_empty() || hash(&*volume) == wanted, "{name}");
                    read += 1;
                }
                // Encrypted as it is written to: a layout of its own.
                Err(error) if error.kind() == crate::Kind::Unsupported => eprintln!("{name}: {error}"),
                Ok(_) => panic!("{name} without a key"),
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }
    assert!(read > 15, "{read}");
}

/// What is written reads back, by a second opening too; nothing else changes, and the metadata never.
#[test]
fn volumes_of_windows_are_written() {
    let Some(folder) = images() else { return };
    for name in
        ["bitlk-aes-xts-128-4k", "bitlk-aes-cbc-128", "bitlk-aes-cbc-elephant-256", "bitlk-aes-xts-256"]
    {
        let disk = Arc::new(Memory(Mutex::new(std::fs::read(folder.join(format!("{name}.img"))).unwrap())));
        let open = || match try_open(&disk, Some("anaconda")).unwrap() {
            Outcome::Opened(volume) => volume,
            _ => panic!("{name}"),
        };
        let volume = open();
        let mut before = vec![0; usize::try_from(volume.size().0).unwrap()];
        volume.read_at(GuestOffset(0), &mut before).unwrap();
        for (at, len) in [(0usize, 512usize), (100, 9000), (8191, 2), (70_000, 1), (1 << 20, 4096)] {
            let data: Vec<u8> = (0..len).map(|n| u8::try_from((n + at) % 253).unwrap()).collect();
            volume.write_at(GuestOffset(at as u64), &data).unwrap();
            before[at..at + len].copy_from_slice(&data);
        }
        let mut after = vec![0; before.len()];
        open().read_at(GuestOffset(0), &mut after).unwrap();
        assert!(before == after, "{name}");
        let metadata = Metadata::read(&*disk).unwrap();
        for at in metadata.copies.into_iter().chain([metadata.header_at]) {
            let error = volume.write_at(GuestOffset(at + 100), &[1]).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Refused, "{name} at {at:#x}");
        }
    }
}

#[test]
fn a_wrong_key_opens_nothing_and_damage_is_an_error() {
    let Some(folder) = images() else { return };
    let raw = std::fs::read(folder.join("bitlk-aes-xts-128.img")).unwrap();
    let disk = Arc::new(Memory(Mutex::new(raw.clone())));
    assert!(matches!(try_open(&disk, Some("anacondas")).unwrap(), Outcome::Wrong));
    let Outcome::Locked(needed) = try_open(&disk, None).unwrap() else { panic!() };
    assert_eq!(needed, "a password, a recovery password");
    // Damage to the first copy: another stands in. To all of them: errors, no panic.
    let first = usize::try_from(Metadata::read(&*disk).unwrap().copies[0]).unwrap();
    disk.0.lock().unwrap()[first] = 0;
    assert!(matches!(try_open(&disk, Some("anaconda")).unwrap(), Outcome::Opened(_)));
    let copies = Metadata::read(&*disk).unwrap().copies.map(|at| usize::try_from(at).unwrap());
    let mut number = 9_u64;
    for _ in 0..2000 {
        let mut bad = raw.clone();
        bad.truncate(copies[2] + (64 << 10));
        for _ in 0..3 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = usize::try_from(number >> 33).unwrap() % 1500;
            for at in copies {
                bad[at + place] = number.to_le_bytes()[3];
            }
            bad[usize::try_from(number >> 20).unwrap() % 512] ^= 1;
        }
        let _ = Metadata::read(&Memory(Mutex::new(bad)));
    }
}
