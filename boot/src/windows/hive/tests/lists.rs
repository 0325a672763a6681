//! Lists of subkeys of every kind, long and short.

use super::super::Hive;
use super::super::read::nk;
use super::corpus::real;
use super::lengths;
use crate::windows::data::Data;

/// In a scattered order, each once.
fn scattered(count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |n| n * 7919 % count)
}

fn kinds(hive: &Hive, path: &str) -> Vec<String> {
    let key = hive.key(path).unwrap().unwrap();
    let kind = |cell| String::from_utf8_lossy(hive.cells.read(cell, 0, 2).unwrap()).into_owned();
    let list = hive.list_of_lists(key).unwrap().map(kind);
    list.into_iter().chain(hive.leaves(key).unwrap().iter().map(|leaf| kind(leaf.cell))).collect()
}

fn fill(hive: &mut Hive, count: usize) {
    for n in scattered(count) {
        hive.create_key(&format!("many\\Key {n:05}")).unwrap();
    }
    let many = hive.key("MANY").unwrap().unwrap();
    let names: Vec<String> = hive.subkeys(many).unwrap().into_iter().map(|(name, _)| name).collect();
    let sorted: Vec<String> = (0..count).map(|n| format!("Key {n:05}")).collect();
    assert_eq!(names, sorted);
    assert_eq!(hive.validate().unwrap().lost_cells, 0);
}

fn drain(hive: &mut Hive, count: usize) {
    for (done, n) in scattered(count).enumerate() {
        assert!(hive.delete_key(&format!("MANY\\kEY {n:05}")).unwrap());
        if done % 97 == 0 {
            assert_eq!(hive.validate().unwrap().lost_cells, 0);
        }
    }
    let many = hive.key("many").unwrap().unwrap();
    assert_eq!(hive.cells.u32(many.0, nk::SUBKEY_LIST).unwrap(), u32::MAX);
    assert_eq!(hive.cells.u16(many.0, nk::LONGEST_SUBKEY).unwrap(), 0);
    assert!(hive.delete_key("many").unwrap());
    assert_eq!(hive.validate().unwrap().keys, 1);
    assert_eq!(hive.cells.in_use(), 2);
}

#[test]
fn a_list_is_split_and_emptied_again() {
    let mut hive = Hive::new();
    fill(&mut hive, 506);
    assert_eq!(kinds(&hive, "many"), ["lh"]);
    hive.create_key("many\\Key 99999").unwrap();
    assert_eq!(kinds(&hive, "many"), ["ri", "lh", "lh"]);
    hive.delete_key("many\\Key 99999").unwrap();
    fill(&mut hive, 3001);
    assert!(kinds(&hive, "many").len() > 6);
    let mut hive = Hive::open(hive.finish().unwrap(), None, None).unwrap().hive;
    drain(&mut hive, 3001);
}

#[test]
fn lists_keep_their_kind() {
    // Version 1.3 has hints in place of hashes, and no values in pieces.
    let mut hive = Hive::new();
    hive.base.set_minor(3);
    fill(&mut hive, 1100);
    assert!(kinds(&hive, "many")[1..].iter().all(|kind| kind == "lf"));
    let key = hive.key("many").unwrap().unwrap();
    hive.set(key, "v", &Data::binary(vec![7; 40_000])).unwrap();
    assert!(hive.set(key, "v", &Data::binary(vec![7; (1 << 20) + 1])).is_err());
    let mut hive = Hive::open(hive.finish().unwrap(), None, None).unwrap().hive;
    assert_eq!(hive.value(key, "v").unwrap().unwrap().bytes, vec![7; 40_000]);
    drain(&mut hive, 1100);

    // `li`, which Windows NT 3 wrote and later versions read, is made here of `lh`.
    let mut hive = Hive::new();
    fill(&mut hive, 600);
    let many = hive.key("many").unwrap().unwrap();
    for leaf in hive.leaves(many).unwrap() {
        let entries: Vec<u32> = (0..leaf.len).map(|n| hive.leaf_key(&leaf, n).unwrap()).collect();
        hive.cells.write(leaf.cell, 0, b"li").unwrap();
        let raw: Vec<u8> = entries.into_iter().flat_map(u32::to_le_bytes).collect();
        hive.cells.write(leaf.cell, 4, &raw).unwrap();
    }
    fill(&mut hive, 1300);
    assert!(kinds(&hive, "many")[1..].iter().all(|kind| kind == "li"));
    let mut hive = Hive::open(hive.finish().unwrap(), None, None).unwrap().hive;
    drain(&mut hive, 1300);
}

#[test]
fn lengths_are_counted_as_windows_counts_them() {
    // Windows' own hives show what is counted: nearly always exactly, never too little.
    for path in ["hives/regipy/SYSTEM", "hives/regipy/BCD"] {
        let Some(bytes) = real(path) else { return };
        let (exact, more) = lengths(&Hive::open(bytes, None, None).unwrap().hive);
        eprintln!("{path}: {exact} exact, {more} more");
        assert!(more * 20 < exact, "{path}: {exact} exact, {more} more");
    }
}
