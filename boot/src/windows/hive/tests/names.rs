//! Names as Windows compares them.

use super::super::Hive;
use super::super::names::{Name, encoded, folded, upper};
use crate::testing::Tool;
use crate::windows::data::Data;

#[test]
fn upper_case_is_that_of_ntfs() {
    for name in ["mkntfs", "ntfscat"] {
        if crate::testing::tool(name).is_none() {
            return;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    crate::testing::sparse(&disk, 8 << 20);
    Tool::line(&format!("mkntfs --quick --force {}", disk.display())).run();
    // The table of every volume made since Windows Vista: file 10.
    let ntfscat = crate::testing::tool("ntfscat").unwrap();
    let out = std::process::Command::new(ntfscat).args(["-f", "-i", "10"]).arg(&disk).output().unwrap();
    assert_eq!(out.stdout.len(), 2 << 16, "{}", String::from_utf8_lossy(&out.stderr));
    for (unit, mapped) in out.stdout.chunks_exact(2).enumerate() {
        let unit = u16::try_from(unit).unwrap();
        assert_eq!(upper(unit), u16::from_le_bytes([mapped[0], mapped[1]]), "{unit:#06x}");
    }
}

#[test]
fn names_are_stored_short_where_they_can_be() {
    assert_eq!(encoded("Größe"), (vec![b'G', b'r', 0xf6, 0xdf, b'e'], false));
    assert!(encoded("€").1);
    let (bytes, wide) = encoded("a\u{1f4a9}");
    assert_eq!((bytes.len(), wide), (6, true));
    let name = |bytes| Name { bytes, wide: false };
    assert_eq!(name(b"gr\xf6\xdfer").text(), "größer");
    assert!(name(b"gr\xf6\xdfer").compare(&folded("GRÖßER")).is_eq());
    assert_eq!((name(b"Sto").hint(), name(b"Storage").hint()), (*b"Sto\0", *b"Stor"));
    let (bytes, _) = encoded("a€bc");
    assert_eq!(Name { bytes: &bytes, wide: true }.hint(), [0; 4]);
    // 37 * 'A' + 'B', whatever the case.
    assert_eq!((name(b"aB").hash(), name(b"Ab").hash()), (37 * 65 + 66, 37 * 65 + 66));
}

#[test]
fn every_letter_is_found_in_any_case() {
    let mut hive = Hive::new();
    let names = [
        "Zürich",
        "ÿ",
        "Ångström",
        "ключ",
        "ΣΊΣΥΦΟΣ",
        "日本",
        "a\u{1f4a9}",
        "ǆ",
        "µ",
        "ı",
        "{4D36E967}",
        "_",
        "z",
        "Z1",
    ];
    for name in names {
        let key = hive.create_key(name).unwrap();
        hive.set(key, name, &Data::text(name)).unwrap();
    }
    assert_eq!(hive.validate().unwrap().keys, names.len() + 1);
    for (name, other) in names.into_iter().zip([
        "zÜRICH",
        "Ÿ",
        "åNGSTRÖM",
        "КЛЮЧ",
        "σίσυφοσ",
        "日本",
        "A\u{1f4a9}",
        "Ǆ",
        "µ",
        "ı",
        "{4d36e967}",
        "_",
        "Z",
        "z1",
    ]) {
        let key = hive.key(other).unwrap().unwrap();
        assert_eq!(hive.name(key).unwrap(), name);
        assert_eq!(hive.value(key, other).unwrap().unwrap().as_text().unwrap(), name);
    }
    // By code in upper case: `_` comes after `Z`, and what Windows does not map does not meet.
    let order: Vec<String> = hive.subkeys(hive.root()).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(order[..5], ["a\u{1f4a9}", "z", "Z1", "Zürich", "_"]);
    assert_eq!((hive.key("Μ").unwrap(), hive.key("I").unwrap()), (None, None));
}
