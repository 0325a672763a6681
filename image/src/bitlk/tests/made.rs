//! A volume that is made here, its protection suspended: Windows images with a clear key have layouts that are refused. What it
//! holds is compared with what dislocker reads of it, where that is installed.
//!
//! Sealing is the one thing that is written here a second time: AES-CCM the other way round (RFC 3610).

use super::*;
use crate::luks::{Block, SectorCipher, aes};
use std::process::{Command, Stdio};

const SIZE: usize = 1 << 20;
const COPIES: [usize; 3] = [0x4_0000, 0x6_0000, 0x8_0000];
const HEADER: (usize, usize) = (0xa_0000, 8192);
const CLEAR: [u8; 32] = [0x11; 32];
const MASTER: [u8; 32] = [0x22; 32];

/// size · type · kind of value · version · value
fn entry(kind: u16, value: u16, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len() + 8).unwrap();
    let head = [len, kind, value, 1].map(u16::to_le_bytes).concat();
    [&head, data].concat()
}

/// A key of that method, sealed by another.
fn sealed(by: &[u8], method: u16, key: &[u8]) -> Vec<u8> {
    let cipher = aes(by).unwrap();
    let nonce = [9; 12];
    // Its head is an entry of its own: a key.
    let plain = entry(0, 1, &[&u32::from(method).to_le_bytes()[..], key].concat());
    let block = |flags: u8, number: usize| {
        let mut block = Block::default();
        block[0] = flags;
        block[1..13].copy_from_slice(&nonce);
        block[13..].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes()[1..]);
        block
    };
    let stream = |number: usize| {
        let mut stream = block(2, number);
        cipher.encrypt(&mut stream);
        stream
    };
    let mut tag = block(0x3a, plain.len());
    cipher.encrypt(&mut tag);
    for bytes in plain.chunks(16) {
        tag.iter_mut().zip(bytes).for_each(|(tag, byte)| *tag ^= byte);
        cipher.encrypt(&mut tag);
    }
    tag.iter_mut().zip(stream(0)).for_each(|(tag, mask)| *tag ^= mask);
    let data = plain.chunks(16).zip(1..).flat_map(|(bytes, number)| {
        bytes.iter().zip(stream(number)).map(|(byte, mask)| byte ^ mask).collect::<Vec<_>>()
    });
    [&nonce[..], &tag, &data.collect::<Vec<_>>()].concat()
}

/// A copy of the master key under `protection`, with these entries.
fn protector(protection: u16, entries: &[Vec<u8>]) -> Vec<u8> {
    let head = [&[0xab; 16][..], &[0; 10], &protection.to_le_bytes()].concat();
    entry(2, 8, &[head, entries.concat()].concat())
}

/// The key beside what it seals.
fn clear(key: &[u8], sealing: &[u8]) -> Vec<u8> {
    let key = entry(0, 1, &[&0x2000_u32.to_le_bytes()[..], key].concat());
    protector(0, &[key, entry(0, 5, &sealed(sealing, 0x2003, &MASTER))])
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

/// What the volume holds, and the volume: AES-XTS of 128 bits, opened by one of the protectors.
fn made(protectors: &[Vec<u8>]) -> (Vec<u8>, Arc<Memory>) {
    let volume_key: Vec<u8> = (0..32).collect();
    let mut plain: Vec<u8> = (0..SIZE).map(|at| u8::try_from((at ^ (at >> 9)) % 251).unwrap()).collect();
    plain[..11].copy_from_slice(b"\xeb\x52\x90NTFS    ");
    plain[11..13].copy_from_slice(&512_u16.to_le_bytes());
    plain[13] = 8;
    plain[0x28..0x30].copy_from_slice(&(SIZE as u64 / 512).to_le_bytes());
    plain[510..512].copy_from_slice(&[0x55, 0xaa]);
    // The places of the metadata are zeros for Windows.
    for (at, len) in COPIES.map(|at| (at, 64 << 10)).into_iter().chain([HEADER]) {
        plain[at..at + len].fill(0);
    }
    let cipher = SectorCipher::new("aes", "xts-plain64", &volume_key, 512).unwrap().counting_own_sectors();
    let mut raw = plain.clone();
    raw.copy_within(..HEADER.1, HEADER.0);
    for (number, sector) in (0..).zip(raw.chunks_exact_mut(512)) {
        cipher.encrypt(number, sector);
    }
    let offsets = COPIES.map(|at| (at as u64).to_le_bytes()).concat();
    let guid =
        [0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01];
    raw[..512].fill(0);
    raw[..11].copy_from_slice(b"\xeb\x58\x90-FVE-FS-");
    raw[11..13].copy_from_slice(&512_u16.to_le_bytes());
    raw[13] = 8;
    raw[0xa0..0xb0].copy_from_slice(&guid);
    raw[0xb0..0xc8].copy_from_slice(&offsets);
    raw[510..512].copy_from_slice(&[0x55, 0xaa]);
    let place = [(HEADER.0 as u64).to_le_bytes(), (HEADER.1 as u64).to_le_bytes()].concat();
    let entries =
        [protectors.concat(), entry(3, 5, &sealed(&MASTER, 0x8004, &volume_key)), entry(15, 15, &place)]
            .concat();
    let size = u32::try_from(entries.len() + 0x30).unwrap();
    let mut block = vec![0; 112];
    block[..8].copy_from_slice(b"-FVE-FS-");
    block[10..12].copy_from_slice(&2_u16.to_le_bytes());
    block[12..16].copy_from_slice(&[4, 0, 4, 0]);
    block[16..24].copy_from_slice(&(SIZE as u64).to_le_bytes());
    block[28..32].copy_from_slice(&16_u32.to_le_bytes());
    block[32..56].copy_from_slice(&offsets);
    block[56..64].copy_from_slice(&(HEADER.0 as u64).to_le_bytes());
    for (at, value) in [(64, size), (68, 1), (72, 0x30), (76, size), (96, 3), (100, 0x8004)] {
        block[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    block.extend_from_slice(&entries);
    let len = block.len().next_multiple_of(16);
    block.resize(len, 0);
    // In units of 16 bytes; the checksum behind it is over so many.
    block[8..10].copy_from_slice(&u16::try_from(len / 16).unwrap().to_le_bytes());
    let check = [&8_u16.to_le_bytes()[..], &2_u16.to_le_bytes(), &crc32(&block).to_le_bytes()].concat();
    block.extend_from_slice(&check);
    for at in COPIES {
        raw[at..at + (64 << 10)].fill(0);
        raw[at..at + block.len()].copy_from_slice(&block);
    }
    (plain, Arc::new(Memory(Mutex::new(raw))))
}

fn opened(disk: &Arc<Memory>, key: Option<&str>) -> Arc<dyn DiskMut> {
    match try_open(disk, key).unwrap() {
        Outcome::Opened(volume) => volume,
        Outcome::Locked(needed) => panic!("{needed}"),
        Outcome::Wrong => panic!("wrong"),
    }
}

fn all(disk: &dyn Disk) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(disk.size().0).unwrap()];
    disk.read_at(GuestOffset(0), &mut all).unwrap();
    all
}

/// Without a key, and with one that would open nothing; what is written is there for the next one, and the metadata stay.
#[test]
fn a_suspended_volume_needs_no_key() {
    let (mut plain, disk) = made(&[protector(0x100, &[]), clear(&CLEAR, &CLEAR)]);
    let before = disk.0.lock().unwrap().clone();
    let volume = opened(&disk, Some("anaconda"));
    assert!(all(&*volume) == plain);
    let places = [(0, 512), (8190, 4), (512, 300_000 - 512 - 64), (0xa_2000, 1), (SIZE - 513, 513)];
    for (at, len) in places {
        let data: Vec<u8> = (0..len).map(|n| u8::try_from((n * 7 + at) % 241).unwrap()).collect();
        // Pieces that lie beside the metadata only.
        let hidden = COPIES.map(|at| (at, at + (64 << 10)));
        if hidden.iter().any(|&(start, end)| at < end && at + len > start) {
            let error = volume.write_at(GuestOffset(at as u64), &data).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Refused);
            plain[at..hidden[0].0].copy_from_slice(&data[..hidden[0].0 - at]);
            continue;
        }
        volume.write_at(GuestOffset(at as u64), &data).unwrap();
        plain[at..at + len].copy_from_slice(&data);
    }
    assert!(all(&*opened(&disk, None)) == plain);
    let after = disk.0.lock().unwrap().clone();
    assert!(before[..512] == after[..512], "the boot sector is BitLocker's");
    for at in COPIES {
        assert!(before[at..at + (64 << 10)] == after[at..at + (64 << 10)]);
    }
}

/// A clear key that is damaged, or not the one, hides no other.
#[test]
fn clear_keys_that_open_nothing_are_passed_over() {
    let good = clear(&CLEAR, &CLEAR);
    for bad in [clear(&CLEAR[..31], &CLEAR), clear(&[0x12; 32], &CLEAR), protector(0, &[])] {
        let (plain, disk) = made(&[bad.clone(), good.clone()]);
        assert!(all(&*opened(&disk, None)) == plain);
        let (_, disk) = made(&[bad, protector(0x100, &[]), protector(0x200, &[]), protector(0x7777, &[])]);
        let Outcome::Locked(needed) = try_open(&disk, None).unwrap() else { panic!() };
        assert_eq!(needed, "a key file, nothing (suspended), something else, the TPM of its machine");
    }
}

/// Places that overlap, or lie where the header lies for Windows, are no volume.
#[test]
fn places_that_contradict_each_other_are_refused() {
    let (_, disk) = made(&[clear(&CLEAR, &CLEAR)]);
    let raw = disk.0.lock().unwrap().clone();
    let block = &raw[COPIES[0]..COPIES[0] + 2048];
    let wanted = (HEADER.0 as u64).to_le_bytes();
    let entry = block.windows(8).rposition(|bytes| bytes == wanted).unwrap();
    let (at, len) = (entry, entry + 8);
    for (field, value) in [
        (at, 0u64),
        (at, 4096),
        (at, 0xa_0001),
        (at, COPIES[1] as u64),
        (at, SIZE as u64 - 512),
        (at, u64::MAX - 511),
        (len, 0),
        (len, 513),
        (len, u64::MAX),
        (len, 1 << 40),
        (32, 0xa_1000),
        (40, COPIES[0] as u64),
    ] {
        let mut bad = raw.clone();
        for copy in COPIES {
            bad[copy + field..copy + field + 8].copy_from_slice(&value.to_le_bytes());
        }
        let Err(error) = try_open(&Arc::new(Memory(Mutex::new(bad))), None) else {
            panic!("{field} {value:#x}")
        };
        assert_eq!(error.kind(), crate::Kind::Corrupt, "{field} {value:#x}");
    }
}

/// dislocker reads the same.
#[test]
fn another_reader_agrees() {
    let found = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&found).any(|folder| folder.join("dislocker-file").is_file()) {
        eprintln!("SKIPPED: dislocker-file is not installed");
        return;
    }
    let (plain, disk) = made(&[clear(&CLEAR, &CLEAR)]);
    let dir = tempfile::tempdir().unwrap();
    let (image, out) = (dir.path().join("volume"), dir.path().join("plain"));
    std::fs::write(&image, &*disk.0.lock().unwrap()).unwrap();
    let said = Command::new("dislocker-file")
        .args(["-c", "-V"])
        .arg(&image)
        .arg("--")
        .arg(&out)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    assert!(std::fs::read(&out).unwrap() == plain);
}
