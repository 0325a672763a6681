//! The same file, merged into the same hive by hivexregedit (libwin-hivex-perl) and by landfall, read back by hivexregedit.

use super::*;
use crate::family::Scene;
use crate::patch::Action;
use crate::target::Request;
use crate::testing::{Tool, corpus, tool};
use crate::tree::mem::MemTree;
use crate::windows::draft::tests::{draft, ten};
use crate::windows::hives;
use crate::windows::registry::Registry;
use std::path::Path;

/// What both understand: hivexregedit makes no keys on the way to another, and knows no comments behind data.
const FILE: &str = r#"Windows Registry Editor Version 5.00

; made for this test
[HKEY_LOCAL_MACHINE\SOFTWARE\Example]
@="default"
"text"="C:\\Program Files\\\"quoted\""
"empty"=""
"number"=dword:0000001f
"bytes"=hex:01,02,ff
"typed"=hex(3):09
"expand"=hex(2):25,00,50,00,41,00,54,00,48,00,25,00,00,00
"many"=hex(7):61,00,00,00,62,00,\
  00,00,00,00
"wide"=hex(b):01,00,00,00,00,00,00,80
"gone"=dword:00000001

[HKEY_LOCAL_MACHINE\SOFTWARE\Example\Deep]

[HKEY_LOCAL_MACHINE\SOFTWARE\Example\Deep\Er]
"a]b"="c"

[HKEY_LOCAL_MACHINE\SOFTWARE\Example\Removed]

[HKEY_LOCAL_MACHINE\SOFTWARE\Example\Removed\Below]
"x"=dword:00000002

[HKEY_LOCAL_MACHINE\SOFTWARE\Example]
"gone"=-
"number"=dword:ffffffff

[-HKEY_LOCAL_MACHINE\SOFTWARE\Example\Removed]
"#;

fn export(hive: &Path) -> String {
    Tool::line(&format!("hivexregedit --export {} \\", hive.display())).run()
}

#[test]
fn another_program_merges_the_same() {
    let Some(corpus) = corpus() else { return };
    if tool("hivexregedit").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (theirs, ours, file) =
        (folder.path().join("theirs"), folder.path().join("ours"), folder.path().join("site.reg"));
    let minimal = std::fs::read(corpus.join("hives/hivex/minimal")).unwrap();
    std::fs::write(&theirs, &minimal).unwrap();
    std::fs::write(&file, FILE).unwrap();
    Tool::line(&format!(
        "hivexregedit --merge {} --prefix HKEY_LOCAL_MACHINE\\SOFTWARE {}",
        theirs.display(),
        file.display()
    ))
    .run();

    let path = "/Windows/System32/config/SOFTWARE";
    let tree = MemTree::new().file(path, &minimal);
    let request = Request {
        registry: Some(RegistryFile::parse(FILE.as_bytes(), "site.reg").unwrap()),
        ..Request::default()
    };
    let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
    let mut draft = draft(&scene, &request, ten(), &[], &[]);
    let (hive, _) = hives::open(&tree, path).unwrap().unwrap();
    draft.software = Registry::new(Box::new(hive));
    plan(&mut draft).unwrap();
    let edits = draft.finish().edits;
    let [edit] = edits.as_slice() else { panic!("{edits:?}") };
    let Action::Registry(edits) = &edit.action else { panic!("{edit:?}") };
    std::fs::write(&ours, hives::edited(&tree, path, &edits.0).unwrap()).unwrap();
    let (theirs, ours) = (export(&theirs), export(&ours));
    assert!(theirs.contains("\"number\"=dword:ffffffff") && !theirs.contains("Removed"), "{theirs}");
    assert_eq!(ours, theirs);
}
