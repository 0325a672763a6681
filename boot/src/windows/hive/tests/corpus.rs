//! Real hives, read as the manifest of the corpus says: what three other readers agree on.

use super::super::{Hive, Key};
use crate::Kind;
use crate::testing;
use crate::windows::data::Data;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// A file of the corpus, unpacked.
pub fn real(path: &str) -> Option<Vec<u8>> {
    let folder = testing::corpus()?;
    let path = folder.join(path.trim_end_matches(".zst"));
    let scratch = tempfile::tempdir().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let unpacked: PathBuf = testing::unpack(path.parent().unwrap(), name, scratch.path());
    Some(std::fs::read(unpacked).unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hive in lines, as the corpus' README has it: `K` and the path of each key; path, name, type, length and digest of each value.
pub fn lines(hive: &Hive) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut waiting: Vec<(Key, String)> = vec![(hive.root(), String::new())];
    while let Some((key, path)) = waiting.pop() {
        lines.push(format!("K\t{path}"));
        for (name, data) in hive.values(key).unwrap() {
            lines.push(line(&path, &name, &data));
        }
        for (name, child) in hive.subkeys(key).unwrap() {
            waiting.push((child, format!("{path}\\{name}")));
        }
    }
    lines.sort_unstable();
    lines
}

/// The line of a value.
pub fn line(path: &str, name: &str, data: &Data) -> String {
    let sum = hex(&Sha256::digest(&data.bytes));
    format!("{path}\t{name}\t{}\t{}\t{sum}", data.kind, data.bytes.len())
}

/// What the corpus' README calls a hive's digest, with the counts.
pub fn digest(hive: &Hive) -> (usize, usize, String) {
    let lines = lines(hive);
    let keys = lines.iter().filter(|line| line.starts_with("K\t")).count();
    (keys, lines.len() - keys, hex(&Sha256::digest(lines.join("\n"))))
}

/// `keys=N values=M digest=D` of a text.
fn figures(text: &str) -> Option<(usize, usize, String)> {
    let field = |name: &str| {
        let rest = &text[text.find(name)? + name.len()..];
        Some(rest.split([' ', ';', '\t']).next().unwrap_or_default().to_owned())
    };
    Some((field("keys=")?.parse().ok()?, field("values=")?.parse().ok()?, field("digest=")?))
}

#[test]
fn every_hive_is_read_as_the_manifest_says() {
    let Some(folder) = testing::corpus() else { return };
    let manifest = std::fs::read_to_string(folder.join("MANIFEST.tsv")).unwrap();
    let mut seen = 0;
    for line in manifest.lines().filter(|line| line.starts_with("hives/")) {
        let fields: Vec<&str> = line.split('\t').collect();
        let (path, expected, note) = (fields[0], fields[6], fields.get(11).copied().unwrap_or_default());
        if fields[1].ends_with("(log)") {
            continue;
        }
        eprintln!("{path}");
        let bytes = real(path).unwrap();
        seen += 1;
        let opened = Hive::open(bytes.clone(), None, None);
        if expected.starts_with("refuse: ") {
            let error = opened.unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported, "{path}");
            assert!(error.says().contains("CREG"), "{error}");
            continue;
        }
        let Some(expected) = figures(expected) else {
            // Refused or read: either is an answer, a panic is none.
            eprintln!("{:?}", opened.map(|opened| digest(&opened.hive)));
            continue;
        };
        if note.contains("DIRTY") {
            let error = opened.unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{path}: {error}");
            assert!(error.hint_text().unwrap().contains("shut it down completely"));
            assert_eq!(digest(&Hive::open_stale(bytes).unwrap()), expected, "{path}");
            continue;
        }
        let hive = opened.unwrap().hive;
        let contents = hive.validate().unwrap();
        assert_eq!((contents.keys, contents.values), (expected.0, expected.1), "{path}");
        assert_eq!(
            (contents.lost_cells, contents.miscounted),
            (0, 0),
            "{path}: so strict are Windows' own hives"
        );
        assert_eq!(digest(&hive), expected, "{path}");
        assert_eq!(hive.finish().unwrap(), bytes, "{path}: unchanged, to the byte");
    }
    assert_eq!(seen, 13, "hives in the corpus");
}

#[test]
fn a_dirty_hive_gets_what_its_logs_hold() {
    let Some(folder) = testing::corpus() else { return };
    let manifest = std::fs::read_to_string(folder.join("MANIFEST.tsv")).unwrap();
    let path = "hives/regipy/SYSTEM_B/SYSTEM_B";
    let line = manifest.lines().find(|line| line.starts_with(&format!("{path}.zst\t"))).unwrap();
    let after = figures(line.split("AFTER log replay: ").nth(1).unwrap()).unwrap();
    let log = |name: &str| real(&format!("{path}.{name}"));
    let (bytes, log1, log2) = (real(path).unwrap(), log("LOG1"), log("LOG2"));

    let opened = Hive::open(bytes.clone(), log1.clone(), log2.clone()).unwrap();
    assert_eq!(digest(&opened.hive), after);
    let replayed = opened.replayed.unwrap();
    assert_eq!((&replayed.logs[..], replayed.entries), (&[1, 2][..], 24));
    assert_eq!((replayed.first, replayed.last, replayed.base_block), (2107, 2130, false));
    assert_eq!(replayed.left_out, [""; 0]);
    // Written, it is clean, and no entry of the logs could be taken for a later one.
    let written = opened.hive.finish().unwrap();
    assert_eq!(written[4..8], written[8..12]);
    assert!(u32::from_le_bytes(written[4..8].try_into().unwrap()) > 2130);
    let again = Hive::open(written, log1.clone(), log2.clone()).unwrap();
    assert_eq!((again.replayed, digest(&again.hive)), (None, after.clone()));

    // The first log may be the later one.
    let opened = Hive::open(bytes.clone(), log2.clone(), log1.clone()).unwrap();
    assert_eq!(digest(&opened.hive), after);
    assert_eq!(opened.replayed.unwrap().logs, [2, 1]);
    // One of them alone is taken by Windows, too; the second does not begin where the hive ends, but says what it is.
    let opened = Hive::open(bytes.clone(), log1, None).unwrap();
    assert_eq!(opened.replayed.unwrap().last, 2110);
    let error = Hive::open(bytes, None, None).unwrap_err();
    assert!(error.says().contains("there is no log beside it"), "{error}");
}
