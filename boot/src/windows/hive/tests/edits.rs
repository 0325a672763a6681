//! Single edits: what they change, what they leave, what they refuse.

use super::super::cells::{NIL, PAGE};
use super::super::read::nk;
use super::super::{Hive, Key, limits};
use super::corpus::real;
use super::{all_keys, lengths};
use crate::Kind;
use crate::windows::data::*;

fn reopened(hive: Hive) -> Hive {
    Hive::open(hive.finish().unwrap(), None, None).unwrap().hive
}

#[test]
fn data_are_what_windows_makes_of_them() {
    assert_eq!(Data::text("é").bytes, [0xe9, 0, 0, 0]);
    assert_eq!(Data::texts(["a", "b"]).bytes, b"a\0\0\0b\0\0\0\0\0");
    assert_eq!(Data::texts::<&str>([]).bytes, [0, 0]);
    assert_eq!((Data::dword(3).bytes, Data::qword(3).bytes.len()), (vec![3, 0, 0, 0], 8));
    let data = |kind, bytes: &[u8]| Data { kind, bytes: bytes.to_vec() };
    assert_eq!(Data::expand("%SystemRoot%").as_text().unwrap(), "%SystemRoot%");
    assert_eq!(data(REG_SZ, b"a\0b\0x").as_text().unwrap(), "ab", "no NUL, an odd byte");
    assert_eq!(data(REG_SZ, b"a\0\0\0b\0").as_text().unwrap(), "a");
    assert_eq!(data(REG_SZ, b"").as_text().unwrap(), "");
    assert_eq!(data(REG_MULTI_SZ, b"a\0\0\0b\0").as_texts().unwrap(), ["a", "b"]);
    assert_eq!(data(REG_MULTI_SZ, b"\0\0").as_texts().unwrap(), [""; 0]);
    assert_eq!(Data::text("x").as_texts().unwrap(), ["x"]);
    assert_eq!((Data::binary([1]).as_text(), Data::text("1").as_dword()), (None, None));
    assert_eq!(data(REG_DWORD_BIG_ENDIAN, &[0, 0, 1, 2]).as_dword(), Some(0x102));
    assert_eq!(Data::qword(1 << 32).as_dword(), None);
    assert_eq!(Data::qword(7).as_dword(), Some(7));
    assert_eq!(Data::binary([1, 0, 0, 0]).as_dword(), Some(1));
    assert_eq!(data(REG_DWORD, &[1, 0]).as_dword(), None);
}

#[test]
fn a_new_hive_holds_what_is_put_into_it() {
    let mut hive = Hive::new();
    hive.set_time(0x1d9_0000_0000_0001);
    let key = hive.create_key(r"\Objects\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\Elements\").unwrap();
    let sizes = [0, 1, 3, 4, 5, 8, 16343, 16344, 16345, 16348, 32688, 32689, 100_000];
    for (n, size) in sizes.into_iter().enumerate() {
        let byte = u8::try_from(n).unwrap() + 1;
        hive.set(key, &format!("v{size}"), &Data::binary(vec![byte; size])).unwrap();
    }
    hive.set(key, "", &Data::text("unnamed")).unwrap();
    hive.set(key, "Ключ", &Data { kind: 0xffff_0012, bytes: vec![1, 2] }).unwrap();
    let contents = hive.validate().unwrap();
    assert_eq!((contents.keys, contents.values, contents.lost_cells), (4, sizes.len() + 2, 0));
    assert_eq!(lengths(&hive), (12, 0));

    let hive = reopened(hive);
    assert_eq!(hive.validate().unwrap(), contents);
    let key = hive.key(r"objects\{9DEA862C-5cdd-4e70-acc1-f32b344d4795}\ELEMENTS").unwrap().unwrap();
    assert_eq!(hive.name(key).unwrap(), "Elements");
    assert_eq!(hive.last_written(key).unwrap(), 0x1d9_0000_0000_0001);
    for (n, size) in sizes.into_iter().enumerate() {
        let data = hive.value(key, &format!("V{size}")).unwrap().unwrap();
        assert_eq!(data, Data::binary(vec![u8::try_from(n).unwrap() + 1; size]));
    }
    assert_eq!(hive.value(key, "").unwrap().unwrap().as_text().unwrap(), "unnamed");
    assert_eq!(hive.value(key, "КЛЮЧ").unwrap().unwrap().kind, 0xffff_0012);
    assert_eq!(hive.value(key, "none").unwrap(), None);
    assert_eq!((hive.key(r"Objects\none").unwrap(), hive.class_name(key).unwrap()), (None, None));
    // The root's descriptor: revision 1, self-relative, an owner behind the list.
    let descriptor = hive.security(key).unwrap();
    assert_eq!((descriptor.len(), &descriptor[..4]), (20 + 76 + 16 + 12, &[1, 0, 4, 0x80][..]));
    assert_eq!(descriptor, hive.security(hive.root()).unwrap());
}

#[test]
fn what_is_so_already_is_no_edit() {
    let mut hive = Hive::open(real_or_new(), None, None).unwrap().hive;
    let before = hive.clone().finish().unwrap();
    let key = hive.create_key("a\\b").unwrap();
    hive.set(key, "x", &Data::dword(1)).unwrap();
    let with = hive.finish().unwrap();
    let mut hive = Hive::open(with.clone(), None, None).unwrap().hive;
    let key = hive.create_key("A\\B").unwrap();
    hive.set(key, "X", &Data::dword(1)).unwrap();
    assert!(!hive.delete_value(key, "y").unwrap() && !hive.delete_key("a\\c").unwrap());
    assert!(!hive.is_changed());
    assert_eq!(hive.finish().unwrap(), with);
    // The name keeps its letters, the data change.
    let mut hive = Hive::open(with, None, None).unwrap().hive;
    let key = hive.key("a\\b").unwrap().unwrap();
    hive.set(key, "X", &Data::qword(1)).unwrap();
    assert_eq!(hive.values(key).unwrap(), [("x".to_owned(), Data::qword(1))]);
    assert!(hive.is_changed());
    assert!(hive.delete_key("a").unwrap());
    let hive = reopened(hive);
    assert_eq!(hive.key("a").unwrap(), None);
    assert_eq!(before.len(), hive.finish().unwrap().len());
}

fn real_or_new() -> Vec<u8> {
    Hive::new().finish().unwrap()
}

#[test]
fn sequence_numbers_and_times_are_those_of_a_finished_write() {
    let mut hive = Hive::new();
    hive.set_time(5);
    let bytes = hive.finish().unwrap();
    assert_eq!(bytes[4..12], [1, 0, 0, 0, 1, 0, 0, 0]);
    let mut hive = Hive::open(bytes, None, None).unwrap().hive;
    hive.set_time(9);
    let (root, _) = (hive.root(), hive.create_key("k").unwrap());
    assert_eq!(hive.last_written(root).unwrap(), 9, "a new subkey");
    hive.set_time(10);
    let key = hive.create_key("k").unwrap();
    hive.set(key, "v", &Data::dword(1)).unwrap();
    assert_eq!((hive.last_written(root).unwrap(), hive.last_written(key).unwrap()), (9, 10));
    hive.set_time(11);
    hive.delete_value(key, "V").unwrap();
    assert_eq!(hive.last_written(key).unwrap(), 11);
    let bytes = hive.finish().unwrap();
    assert_eq!(bytes[4..12], [2, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!((bytes[12], bytes[4096 + 20]), (11, 11), "in the base block and the first bin");
    let sum = bytes[..512].chunks_exact(4).fold(0, |sum, w| sum ^ u32::from_le_bytes(w.try_into().unwrap()));
    assert_eq!(sum, 0);
}

#[test]
fn cells_are_used_again_and_bins_appended() {
    let mut hive = Hive::new();
    let key = hive.create_key("k").unwrap();
    for round in 0..200u32 {
        let size = 3000 + round as usize % 7 * 500;
        hive.set(key, "a", &Data::binary(vec![1; size])).unwrap();
        hive.set(key, "b", &Data::binary(vec![2; 9000 - size])).unwrap();
        hive.delete_value(key, if round % 2 == 0 { "a" } else { "b" }).unwrap();
    }
    assert!(hive.cells.bins().len() <= 6 * PAGE, "{} bytes", hive.cells.bins().len());
    hive.set(key, "large", &Data::binary(vec![3; 40_000])).unwrap();
    hive.delete_key("k").unwrap();
    assert_eq!(hive.validate().unwrap().lost_cells, 0);
    assert_eq!(hive.cells.in_use(), 2, "the root and its descriptor");
    // All that was free before and between is one piece in each bin.
    let hive = reopened(hive);
    assert_eq!(hive.cells.free_cells(), hive.cells.bin_count());
    assert_eq!(hive.cells.u32(hive.root().0, nk::SUBKEY_LIST).unwrap(), NIL);
}

#[test]
fn descriptors_are_counted_and_the_last_key_takes_its_own_along() {
    let Some(bytes) = real("hives/regipy/BCD") else { return };
    let mut hive = Hive::open(bytes, None, None).unwrap().hive;
    let distinct = |hive: &Hive| {
        let mut all: Vec<u32> = all_keys(hive, hive.root())
            .into_iter()
            .map(|Key(key)| hive.cells.u32(key, nk::SECURITY).unwrap())
            .collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    };
    assert!(distinct(&hive) > 1);
    let lost = hive.validate().unwrap().lost_cells;
    let names: Vec<String> = hive.subkeys(hive.root()).unwrap().into_iter().map(|(name, _)| name).collect();
    for name in names {
        assert!(hive.delete_key(&name).unwrap());
        assert_eq!(hive.validate().unwrap().lost_cells, lost, "{name}");
    }
    assert_eq!((hive.validate().unwrap().keys, distinct(&hive)), (1, 1));
    let hive = reopened(hive);
    assert_eq!(hive.cells.in_use(), 2 + lost);
}

#[test]
fn a_wrong_count_of_a_descriptor_is_made_right_with_the_first_edit() {
    for said in [1u32, 0, 99] {
        let mut hive = Hive::new();
        hive.create_key("a\\b").unwrap();
        let security = hive.cells.u32(hive.root().0, nk::SECURITY).unwrap();
        hive.cells.write(security, 12, &said.to_le_bytes()).unwrap();
        let bytes = hive.finish().unwrap();
        let mut hive = Hive::open(bytes.clone(), None, None).unwrap().hive;
        assert_eq!((hive.validate().unwrap().miscounted, hive.is_changed()), (1, false));
        assert!(!hive.delete_key("none").unwrap());
        assert_eq!(hive.clone().finish().unwrap(), bytes);
        hive.delete_key("a\\b").unwrap();
        assert_eq!((hive.validate().unwrap().miscounted, hive.cells.u32(security, 12).unwrap()), (0, 2));
        reopened(hive).create_key("c").unwrap();
    }
}

#[test]
fn what_windows_could_not_hold_is_refused() {
    let mut hive = Hive::new();
    let root = hive.root();
    let refused = |error: crate::Error, word: &str| {
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(error.says().contains(word), "{error}");
    };
    refused(hive.create_key(&"k".repeat(limits::KEY_NAME + 1)).unwrap_err(), "longer than 255");
    refused(hive.create_key(&"k\\".repeat(limits::DEPTH)).unwrap_err(), "levels");
    refused(hive.set(root, &"v".repeat(limits::VALUE_NAME + 1), &Data::dword(1)).unwrap_err(), "longer");
    refused(hive.set(root, "v", &Data::binary(vec![0; limits::DATA + 1])).unwrap_err(), "at most");
    refused(hive.delete_key("").unwrap_err(), "root key");
    let key = hive.create_key("kept\\below").unwrap();
    hive.cells.write(key.0, nk::FLAGS, &0x28u16.to_le_bytes()).unwrap();
    refused(hive.delete_key("kept").unwrap_err(), "cannot be deleted");
    // None of these changed anything: the hive is good for others.
    hive.cells.write(key.0, nk::FLAGS, &0x60u16.to_le_bytes()).unwrap();
    let error = hive.set(key, "v", &Data::dword(1)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert_eq!(hive.values(key).unwrap(), []);
    hive.create_key(&"k".repeat(limits::KEY_NAME)).unwrap();
    hive.create_key(&"d\\".repeat(limits::DEPTH - 1)).unwrap();
    let key = hive.create_key("x").unwrap();
    hive.set(key, &"v".repeat(limits::VALUE_NAME), &Data::binary(vec![1; 2 << 20])).unwrap();
    reopened(hive);
}

#[test]
fn a_hive_that_was_left_half_changed_gives_out_nothing() {
    let mut hive = Hive::new();
    let key = hive.create_key("k").unwrap();
    hive.set(key, "v", &Data::binary(vec![1; 100])).unwrap();
    // A list that names a cell which is none: found when it is too late.
    let (_, value) = hive.find_value(key, "v").unwrap().unwrap();
    let list = hive.cells.u32(key.0, nk::VALUE_LIST).unwrap();
    hive.cells.release(list).unwrap();
    let mut broken = hive.clone();
    assert!(broken.set(key, "w", &Data::dword(1)).is_err());
    assert!(broken.finish().unwrap_err().says().contains("not valid"));
    hive.cells.write(value, 8, &64u32.to_le_bytes()).unwrap();
    let error = hive.finish().unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");

    let mut hive = Hive::new();
    let key = hive.create_key("k").unwrap();
    let security = hive.cells.u32(key.0, nk::SECURITY).unwrap();
    hive.cells.write(security, 4, &8u32.to_le_bytes()).unwrap();
    hive.cells.write(security, 12, &1u32.to_le_bytes()).unwrap();
    assert!(hive.delete_key("k").is_err());
    let error = hive.create_key("other").unwrap_err();
    assert!(error.says().contains("an edit of the hive failed before"), "{error}");
    assert!(hive.finish().unwrap_err().says().contains("not written"));
}

#[test]
fn a_hive_without_its_logs_is_for_looking_only() {
    let mut hive = Hive::open_stale(real_or_new()).unwrap();
    assert_eq!(hive.create_key("k").unwrap_err().kind(), Kind::Refused);
    assert!(hive.finish().unwrap_err().says().contains("without its logs"));
}

#[test]
fn other_files_are_named() {
    let sound = real_or_new();
    for (bytes, word) in [
        (b"CREG\0\0\x01\0".to_vec(), "Windows 95, 98 or Me"),
        (vec![0; 8192], "file of zeros"),
        (b"MZ\x90\0".to_vec(), r"MZ\x90\x00"),
        (b"re".to_vec(), "a file of 2 bytes"),
        ([0xff, 0xfe, b'W', 0].to_vec(), "registry edits"),
        (changed(&sound, 24, 2), "version 1.2"),
        (changed(&sound, 24, 6), "layered keys"),
        (changed(&sound, 28, 6), "a log, not a hive"),
        (changed(&sound, 32, 2), "format 2"),
    ] {
        let error = Hive::open(bytes, None, None).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.says().contains(word), "{error}");
    }
    for (bytes, word) in [
        (sound[..4000].to_vec(), "cut off"),
        (sound[..6000].to_vec(), "the bins are said to have"),
        (changed(&sound, 40, 4095), "the bins are said to have"),
        (changed(&sound, 36, 24), "is said to be a cell in use"),
    ] {
        let error = Hive::open(bytes, None, None).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert!(error.says().contains(word), "{error}");
    }
}

/// With one field of the base block changed and the checksum right.
fn changed(hive: &[u8], at: usize, number: u32) -> Vec<u8> {
    let mut hive = hive.to_vec();
    hive[at..at + 4].copy_from_slice(&number.to_le_bytes());
    let sum = hive[..508].chunks_exact(4).fold(0, |sum, w| sum ^ u32::from_le_bytes(w.try_into().unwrap()));
    hive[508..512].copy_from_slice(&sum.to_le_bytes());
    hive
}
