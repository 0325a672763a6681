use super::*;
use crate::vault::Vault;
use crate::vault::journal::{DiskInfo, Mark};
use landfall_image::{DiskMut, GuestOffset, Kind, testing};
use std::path::Path;

const SIZE: u64 = 1 << 20;

fn name() -> Name {
    "web01".parse().unwrap()
}

/// A vault with one machine that has these disks, each filled with its number; it is closed again. Its points' numbers.
fn vault(folder: &Path, disks: &[&str], definition: Option<&Machine>) -> Vec<u64> {
    let (vault, troubles) = Vault::open(folder).unwrap();
    assert!(troubles.is_empty());
    let machine = vault.machine_or_new(&name()).unwrap();
    let write = |fill: u8| {
        for (number, disk) in (fill..).zip(disks) {
            machine
                .journal()
                .set_disk(&DiskInfo { name: (*disk).to_owned(), size: SIZE, sector: 512 })
                .unwrap();
            machine.live(disk).unwrap().write_at(GuestOffset(4096), &[number; 4096]).unwrap();
        }
    };
    write(1);
    if let Some(definition) = definition {
        machine.journal().attach(DEFINITION, &serde_json::to_vec(definition).unwrap()).unwrap();
    }
    let tag = Mark { tag: Some("before".into()), ..Mark::default() };
    let first = machine.checkpoint(1_000_000, &tag).unwrap();
    write(101);
    let second = machine.checkpoint(2_000_000, &Mark::default()).unwrap();
    vec![first, second]
}

fn defined(disks: &[&str]) -> Machine {
    let mut machine = Machine::new("Web 01", Bytes::gib(1));
    machine.disks = disks
        .iter()
        .enumerate()
        .map(|(n, disk)| DiskSlot::new(format!("scsi0:{n}"), Bus::Scsi, *disk))
        .collect();
    machine
}

fn load(points: &OpenVault, at: At, wanted: &Wanted) -> Result<Loaded> {
    let mut refuse = |_, error| Err(error);
    let mut how = How { digests: true, unreadable: &mut refuse };
    points.open(&name(), &at)?.load(wanted, &mut how)
}

fn byte(loaded: &Loaded, disk: usize) -> u8 {
    testing::read_all(&*loaded.images[disk].disk).unwrap()[4096]
}

fn ids(loaded: &Loaded) -> Vec<&str> {
    loaded.findings.iter().map(|finding| finding.id).collect()
}

#[test]
fn a_point_is_the_machine_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    // The order is the definition's, whatever the disks are called.
    let points = vault(dir.path(), &["sda", "sdb", "sdc"], Some(&defined(&["sdb", "sda"])));
    let open = OpenVault::new(dir.path());
    let wanted = Wanted::default();
    let old = load(&open, At::Tag("before".into()), &wanted).unwrap();
    assert_eq!((old.source_name.as_str(), old.machine.disks.len()), ("Web 01", 2));
    assert_eq!((byte(&old, 0), byte(&old, 1)), (2, 1));
    assert_eq!(old.machine.disks[0].size, Some(Bytes(SIZE)));
    assert_eq!(old.path, Path::new(&format!("point:web01@{}", points[0])));
    assert_eq!(ids(&old), ["recovery-point", "recovery-point-disk-left-out"]);
    assert!(
        old.findings[0].says.contains("1970-01-01 00:16:40 UTC")
            && old.findings[0].says.contains("\"before\"")
    );
    assert!(old.findings[1].says.contains("web01/sdc"));
    let new = load(&open, At::Latest, &wanted).unwrap();
    assert_eq!((byte(&new, 0), byte(&new, 1)), (102, 101));
    // It has a state, by which a run that is repeated knows it again.
    let again = load(&open, At::Number(points[0]), &wanted).unwrap();
    assert!(old.state().is_some() && old.state() == again.state() && old.state() != new.state());
    let skipped = Wanted { skipped: vec!["scsi0:1".into()], ..Wanted::default() };
    let skipped = load(&open, At::Latest, &skipped).unwrap();
    assert_eq!((skipped.images.len(), byte(&skipped, 0)), (1, 102));
    // What was left out on purpose is not told of as forgotten.
    assert_eq!(ids(&skipped), ["recovery-point", "recovery-point-disk-left-out"]);
}

#[test]
fn what_does_not_fit_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    vault(dir.path(), &["sda"], Some(&defined(&["sda", "sdb"])));
    let open = OpenVault::new(dir.path());
    let refused = |wanted: &Wanted, hint: &str| {
        let error = load(&open, At::Latest, wanted).err().unwrap();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(error.hint_text().unwrap().contains(hint), "{error}: {:?}", error.hint_text());
        assert!(error.to_string().starts_with("point:web01@"), "{error}");
    };
    refused(&Wanted::default(), "--skip-disk scsi0:1");
    refused(&Wanted { skipped: vec!["sda".into()], ..Wanted::default() }, "scsi0:0, scsi0:1");
    refused(&Wanted { disks: vec![("scsi0:0".into(), "x".into())], ..Wanted::default() }, "leave it out");
    let hardware = super::super::Hardware { cpus: Some(1), ..Default::default() };
    refused(&Wanted { hardware, ..Wanted::default() }, "--map");
    assert!(
        load(&open, At::Latest, &Wanted { skipped: vec!["scsi0:1".into()], ..Wanted::default() }).is_ok()
    );
    // For an inspection it is one lost disk of several.
    let mut lost = Vec::new();
    let mut note = |disk, _| {
        lost.push(disk);
        Ok(())
    };
    let mut how = How { digests: true, unreadable: &mut note };
    let loaded = open.open(&name(), &At::Latest).unwrap().load(&Wanted::default(), &mut how).unwrap();
    assert_eq!((loaded.images.len(), lost), (2, vec![1]));
}

/// As the service that worked on the vault would have them.
#[test]
fn names_that_were_given_later_count_and_points_that_were_given_up_are_gone() {
    use crate::service::catalog::{CATALOG, Catalog};
    let dir = tempfile::tempdir().unwrap();
    let points = vault(dir.path(), &["sda"], Some(&defined(&["sda"])));
    let open = || OpenVault::new(dir.path());
    let id = open().open(&name(), &At::Latest).unwrap().id;
    let (catalog, _) = Catalog::open(&dir.path().join(CATALOG)).unwrap();
    catalog.tag(&id, points[1], Some("later")).unwrap();
    let later = open().open(&name(), &At::Tag("later".into())).unwrap();
    assert_eq!((later.number, later.tag.as_deref()), (points[1], Some("later")));
    // The name that it was set with was taken back.
    catalog.tag(&id, points[0], Some("")).unwrap();
    let error = open().open(&name(), &At::Tag("before".into())).err().unwrap();
    assert!(error.hint_text().unwrap().contains("there are later"), "{error}");
    assert_eq!(open().open(&name(), &At::Number(points[0])).unwrap().tag, None);
    catalog.give_up(&id, points[0]).unwrap();
    assert!(open().open(&name(), &At::Number(points[0])).is_err());
}

/// A definition that was stored beside disks of other names, which were taken out since.
#[test]
fn disks_that_the_definition_calls_otherwise_are_found_in_their_order() {
    let sized = |files: &[&str], size: u64| {
        let mut machine = defined(files);
        machine.disks.iter_mut().for_each(|slot| slot.size = Some(Bytes(size)));
        machine
    };
    let dir = tempfile::tempdir().unwrap();
    vault(dir.path(), &["sda", "sdb"], Some(&sized(&["vda", "vdb"], SIZE)));
    let loaded = load(&OpenVault::new(dir.path()), At::Latest, &Wanted::default()).unwrap();
    let files: Vec<&str> = loaded.machine.disks.iter().map(|slot| slot.file.as_str()).collect();
    assert_eq!((files, byte(&loaded, 0), byte(&loaded, 1)), (vec!["sda", "sdb"], 101, 102));
    assert_eq!(ids(&loaded), ["recovery-point"; 3]);
    assert!(loaded.findings[1].says.contains("sda is taken for it"), "{}", loaded.findings[1].says);
    // Of other sizes, fewer, or with one of the names: nobody knows. The disk that it starts from cannot be left out.
    for (disks, definition, hint) in [
        (&["sda", "sdb"][..], sized(&["vda", "vdb"], 2 * SIZE), "--as scsi0:0=NAME"),
        (&["sda"], sized(&["vda", "vdb"], SIZE), "--as scsi0:0=NAME"),
        (&["sda", "sdb"], sized(&["sda", "vdb"], SIZE), "--skip-disk scsi0:1"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        vault(dir.path(), disks, Some(&definition));
        let error = load(&OpenVault::new(dir.path()), At::Latest, &Wanted::default()).err().unwrap();
        let said = error.hint_text().unwrap();
        assert!(
            said.contains(hint) && (hint.starts_with("--skip") || !said.contains("--skip-disk")),
            "{said}"
        );
    }
}

#[test]
fn a_machine_without_a_definition_is_described_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    vault(dir.path(), &["vdaa", "vdb"], None);
    let open = OpenVault::new(dir.path());
    let error = load(&open, At::Latest, &Wanted::default()).err().unwrap();
    assert!(
        error.hint_text().unwrap().contains("landfall protect web01 DEFINITION"),
        "{:?}",
        error.hint_text()
    );
    let hardware = super::super::Hardware { memory: Some(Bytes::gib(2)), ..Default::default() };
    let loaded = load(&open, At::Latest, &Wanted { hardware, ..Wanted::default() }).unwrap();
    let slots: Vec<&str> = loaded.machine.disks.iter().map(|disk| disk.slot.as_str()).collect();
    assert_eq!((loaded.machine.name.as_str(), slots), ("web01", vec!["vdb", "vdaa"]));
    assert_eq!((byte(&loaded, 0), loaded.machine.memory), (102, Bytes::gib(2)));
    assert!(ids(&loaded).contains(&"definition-absent"));
}

#[test]
fn a_damaged_definition_is_corrupt_and_a_folder_is_no_vault() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("vault");
    let open = OpenVault::new(&folder);
    let error = open.open(&name(), &At::Latest).err().unwrap();
    assert!(error.kind() == Kind::Refused && !folder.exists(), "{error}");
    {
        let (vault, _) = Vault::open(&folder).unwrap();
        let machine = vault.machine_or_new(&name()).unwrap();
        machine.journal().set_disk(&DiskInfo { name: "sda".into(), size: SIZE, sector: 512 }).unwrap();
        machine.journal().attach(DEFINITION, b"{\"name\": 7}").unwrap();
        machine.checkpoint(1, &Mark::default()).unwrap();
    }
    let error = open.open(&name(), &At::Latest).err().unwrap();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    let other = "other".parse().unwrap();
    assert_eq!(open.open(&other, &At::Latest).err().unwrap().kind(), Kind::Refused);
    // Only one process works on a vault.
    assert!(Vault::open(&folder).unwrap_err().hint_text().is_some());
}
