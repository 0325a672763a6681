//! Stores of real machines: a boot configuration, and drive letters of three Windows.

use super::bcd::Store;
use super::letters::letters;
use crate::testing::{corpus, unpack};
use crate::tree::mem::MemTree;
use crate::volume::VolumeId;
use crate::windows::hive::Hive;
use crate::windows::hives;
use crate::windows::registry::Registry;

#[test]
fn a_real_boot_configuration_is_read() {
    let Some(corpus) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(unpack(&corpus.join("hives/regipy"), "BCD", folder.path())).unwrap();
    let tree = MemTree::new().file("/:esp/EFI/Microsoft/Boot/BCD", bytes);
    let (hive, _) = hives::open(&tree, "/:esp/EFI/Microsoft/Boot/BCD").unwrap().unwrap();
    let volumes = [super::tests::volume("disk0p3", 0, super::tests::GUID, 0)];
    let entries = Store::read(&Registry::new(Box::new(hive))).unwrap().entries(&volumes);
    assert_eq!(entries[0].volume, Some(VolumeId("disk0p3".into())));
    insta::assert_json_snapshot!("real_entries", entries);
}

#[test]
fn real_drive_letters_are_read() {
    let Some(corpus) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for name in ["SYSTEM", "SYSTEM_2", "SYSTEM_WIN_10_1709"] {
        let bytes = std::fs::read(unpack(&corpus.join("hives/regipy"), name, folder.path())).unwrap();
        let registry = Registry::new(Box::new(Hive::open_stale(bytes).unwrap()));
        all.push((name, letters(&registry, &[]).unwrap()));
    }
    insta::assert_json_snapshot!("real_letters", all);
}
