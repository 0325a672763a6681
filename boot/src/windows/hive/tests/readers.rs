//! Hives that were made and edited here, as libhivex and libregf read them: exactly what was meant is different.

use super::super::Hive;
use super::corpus::{line, lines, real};
use crate::testing;
use crate::windows::data::Data;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const PYTHON: &str = "/usr/bin/python3";

/// Prints a hive in the lines of the corpus' README.
const HIVEX: &str = r#"
import hashlib, hivex, sys
h = hivex.Hivex(sys.argv[1])
out = []
waiting = [(h.root(), "")]
while waiting:
    node, path = waiting.pop()
    out.append("K\t" + path)
    for value in h.node_values(node):
        kind, data = h.value_value(value)
        out.append("\t".join([path, h.value_key(value), str(kind), str(len(data)), hashlib.sha256(data).hexdigest()]))
    waiting += [(child, path + "\\" + h.node_name(child)) for child in h.node_children(node)]
sys.stdout.buffer.write("\n".join(sorted(out)).encode())
"#;
const REGF: &str = r#"
import hashlib, pyregf, sys
f = pyregf.file()
f.open(sys.argv[1])
assert not f.is_corrupted()
out = []
waiting = [(f.get_root_key(), "")]
while waiting:
    key, path = waiting.pop()
    out.append("K\t" + path)
    for value in key.values:
        data = value.data or b""
        out.append("\t".join([path, value.name or "", str(value.type), str(len(data)), hashlib.sha256(data).hexdigest()]))
    waiting += [(child, path + "\\" + child.name) for child in key.sub_keys]
sys.stdout.buffer.write("\n".join(sorted(out)).encode())
"#;

/// The modules of these readers, or a loud skip.
fn has(modules: &[&str]) -> bool {
    modules.iter().all(|module| {
        let there = Command::new(PYTHON).args(["-c", &format!("import {module}")]).output();
        let there = there.is_ok_and(|out| out.status.success());
        if !there {
            eprintln!("SKIPPED: {PYTHON} has no module {module} (tools/setup.sh test)");
        }
        there
    })
}

fn read(program: &str, hive: &[u8]) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hive");
    std::fs::write(&path, hive).unwrap();
    let out = Command::new(PYTHON).args(["-c", program]).arg(&path).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().split('\n').map(str::to_owned).collect()
}

fn set(lines: &[String]) -> BTreeSet<String> {
    lines.iter().cloned().collect()
}

/// A path with its names as they are stored.
fn stored(hive: &Hive, path: &str) -> String {
    let ends = path.match_indices('\\').map(|(at, _)| at).skip(1).chain([path.len()]);
    let names = ends.map(|end| hive.name(hive.key(&path[..end]).unwrap().unwrap()).unwrap());
    names.fold(String::new(), |path, name| format!("{path}\\{name}"))
}

/// What a reader finds that it did not find before, and the other way round.
fn differences(program: &str, before: &[u8], after: &[u8]) -> (Vec<String>, Vec<String>) {
    let (before, after) = (read(program, before), read(program, after));
    (after.difference(&before).cloned().collect(), before.difference(&after).cloned().collect())
}

#[test]
fn two_readers_find_all_of_a_new_hive() {
    if !has(&["hivex", "pyregf"]) {
        return;
    }
    let mut hive = Hive::new();
    for n in 0..1300 {
        let key = hive.create_key(&format!("Many\\Key {}", n * 7919 % 1300)).unwrap();
        hive.set(key, &format!("Value {n}"), &Data::dword(n)).unwrap();
    }
    for n in (0..1300).step_by(3) {
        hive.delete_key(&format!("many\\KEY {n}")).unwrap();
    }
    let key = hive.create_key("Größe\\ключ").unwrap();
    for size in [0, 1, 2, 3, 4, 5, 16343, 16344, 16345, 32688, 32689, 100_000] {
        hive.set(key, &format!("Size {size}"), &Data::binary(vec![0x5a; size])).unwrap();
    }
    hive.set(key, "", &Data::text("unnamed")).unwrap();
    hive.set(key, "значение", &Data::texts(["a", "b"])).unwrap();
    hive.set(key, "Qword", &Data::qword(1 << 40)).unwrap();
    let mut ours = set(&lines(&hive));
    let written = hive.finish().unwrap();
    for (name, program) in [("libhivex", HIVEX), ("libregf", REGF)] {
        let mut theirs = read(program, &written);
        if program == REGF {
            // Of data of one to three bytes in the record libregf 20201007 reads the wrong end: zeros.
            const SHORT: [&str; 3] = ["\tSize 1\t", "\tSize 2\t", "\tSize 3\t"];
            theirs.retain(|line| !SHORT.iter().any(|size| line.contains(size)));
            ours.retain(|line| !SHORT.iter().any(|size| line.contains(size)));
        }
        let (more, fewer): (Vec<_>, Vec<_>) =
            (theirs.difference(&ours).take(9).collect(), ours.difference(&theirs).take(9).collect());
        assert!(more.is_empty() && fewer.is_empty(), "{name} finds {more:#?} and not {fewer:#?}");
    }
}

#[test]
fn edits_of_real_hives_are_what_changes_and_all_that_changes() {
    if !has(&["hivex"]) {
        return;
    }
    for (path, services) in [
        ("hives/regipy/SYSTEM", r"\ControlSet001\Services"),
        ("hives/regipy/BCD", r"\Objects\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\Elements"),
        ("hives/nt-hive/testhive", r"\subkey-test"),
        ("hives/guestfs-tools/windows-system", r"\ControlSet001"),
    ] {
        let Some(before) = real(path) else { return };
        let mut hive = Hive::open(before.clone(), None, None).unwrap().hive;
        let all = lines(&hive);
        assert!(set(&all) == read(HIVEX, &before), "{path}: read differently before any edit");
        let above = hive.key(services).unwrap().unwrap();
        let services = &stored(&hive, services);
        let new = format!("{services}\\viostor-new");
        let key = hive.create_key(&format!("{new}\\Parameters")).unwrap();
        let image = Data::expand(r"system32\drivers\viostor.sys");
        hive.set(key, "ImagePath", &image).unwrap();
        hive.set(key, "Large", &Data::binary(vec![9; 15_000])).unwrap();
        // Of a value and a key that were there, one is changed and one goes with all below.
        let first = hive.values(above).unwrap().into_iter().next();
        let (value, old) = first.unwrap_or((String::new(), Data::dword(0)));
        if !value.is_empty() {
            hive.set(above, &value.to_uppercase(), &Data::dword(77)).unwrap();
        }
        let gone = hive.subkeys(above).unwrap().remove(0).0;
        let gone = format!("{services}\\{gone}");
        hive.delete_key(&gone).unwrap();

        let mut added = vec![
            format!("K\t{new}"),
            format!("K\t{new}\\Parameters"),
            line(&format!("{new}\\Parameters"), "ImagePath", &image),
            line(&format!("{new}\\Parameters"), "Large", &Data::binary(vec![9; 15_000])),
        ];
        let is_gone = |at: &str| at == gone || at.starts_with(&format!("{gone}\\"));
        let path_of = |line: &String| {
            let mut fields = line.split('\t');
            let first = fields.next().unwrap_or_default().to_owned();
            if first == "K" { fields.next().unwrap_or_default().to_owned() } else { first }
        };
        let mut removed: Vec<String> = all.iter().filter(|line| is_gone(&path_of(line))).cloned().collect();
        assert!(!removed.is_empty());
        if !value.is_empty() {
            added.push(line(services, &value, &Data::dword(77)));
            removed.push(line(services, &value, &old));
        }
        added.sort();
        removed.sort();
        let after = hive.finish().unwrap();
        let (more, fewer) = differences(HIVEX, &before, &after);
        assert_eq!(more, added, "{path}");
        assert_eq!(fewer, removed, "{path}");
    }
}

#[test]
fn another_writer_goes_on_where_ours_stopped() {
    if !has(&["hivex"]) {
        return;
    }
    let Some(hivexregedit) = testing::tool("hivexregedit") else { return };
    let Some(before) = real("hives/nt-hive/testhive") else { return };
    let mut hive = Hive::open(before, None, None).unwrap().hive;
    for n in 0..600 {
        hive.create_key(&format!("Ours\\Key {n}")).unwrap();
    }
    let ours = hive.finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (path, edits) = (folder.path().join("hive"), folder.path().join("edits.reg"));
    std::fs::write(&path, &ours).unwrap();
    std::fs::write(&edits, "[\\Ours\\Key 300\\Theirs]\n\"Value\"=dword:00000007\n").unwrap();
    merge(&hivexregedit, &path, &edits);
    let mut hive = Hive::open(std::fs::read(&path).unwrap(), None, None).unwrap().hive;
    let key = hive.key("ours\\key 300\\theirs").unwrap().unwrap();
    assert_eq!(hive.value(key, "value").unwrap().unwrap().as_dword(), Some(7));
    assert!(hive.delete_key("Ours\\Key 300\\Theirs").unwrap());
    let again = Hive::open(ours, None, None).unwrap().hive;
    assert_eq!(lines(&hive), lines(&again));
    hive.finish().unwrap();
}

fn merge(hivexregedit: &Path, hive: &Path, edits: &Path) {
    let out = Command::new(hivexregedit).arg("--merge").arg(hive).arg(edits).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
