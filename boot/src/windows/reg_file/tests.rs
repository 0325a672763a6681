use super::*;
use crate::Kind;
use crate::family::Scene;
use crate::patch::{Action, PatchPlan, RegistryChange, RegistryEdits};
use crate::target::Request;
use crate::tree::mem::MemTree;
use crate::windows::data::REG_MULTI_SZ;
use crate::windows::draft::tests::{draft, ten};
use crate::windows::registry::tests::MemKeys;
use proptest::prelude::*;

const HEAD: &str = "Windows Registry Editor Version 5.00\r\n\r\n";

fn utf16(text: &str) -> Vec<u8> {
    [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
}

fn parse(text: &str) -> Result<RegistryFile> {
    RegistryFile::parse(text.as_bytes(), "site.reg")
}

fn changes(body: &str) -> Vec<Change> {
    parse(&format!("{HEAD}{body}")).unwrap().changes
}

/// The data of the values in a key, by their names.
fn data(body: &str) -> Vec<(String, Data)> {
    let set = |change: Change| match change.what {
        What::Set { name, kind, bytes } => Some((name, Data { kind, bytes })),
        _ => None,
    };
    changes(&format!("[HKEY_LOCAL_MACHINE\\SOFTWARE\\a]\r\n{body}")).into_iter().filter_map(set).collect()
}

#[test]
fn every_kind_of_value_is_read() {
    let body = r#"
; a comment
@="the default"
"text"="C:\\Program Files\\\"x\" é" ; behind it
"number"=dword:0000001F
"short" = dword:5
"bytes"=hex:01,2,ff
"none"=hex(0):
"expand"=hex(2):25,00,61,00,25,00,00,00
"wide"=hex(b):01,00,00,00,\
  00,00,00,00
"many"=hex(7):61,00,\ ; a comment inside
  00,00,00,00
"odd type"=hex(fffe0007):09
"semi;colon=\\"="]"
"#;
    let expected = [
        ("", Data::text("the default")),
        ("text", Data::text("C:\\Program Files\\\"x\" é")),
        ("number", Data::dword(31)),
        ("short", Data::dword(5)),
        ("bytes", Data::binary([1, 2, 255])),
        ("none", Data { kind: 0, bytes: vec![] }),
        ("expand", Data::expand("%a%")),
        ("wide", Data::qword(1)),
    ];
    let found = data(body);
    for (at, (name, data)) in expected.into_iter().enumerate() {
        assert_eq!(found[at], (name.to_owned(), data));
    }
    assert_eq!(found[8], ("many".into(), Data { kind: REG_MULTI_SZ, bytes: vec![0x61, 0, 0, 0, 0, 0] }));
    assert_eq!(found[9].1, Data { kind: 0xfffe_0007, bytes: vec![9] });
    assert_eq!(found[10], ("semi;colon=\\".into(), Data::text("]")));
}

#[test]
fn encodings_say_the_same() {
    let body = "[HKEY_LOCAL_MACHINE\\SOFTWARE\\Größe]\r\n\"é\"=\"ü\u{1f4be}\"\r\n";
    let plain = format!("{HEAD}{body}");
    let expected = changes(body);
    let bom = [&[0xef, 0xbb, 0xbf], plain.as_bytes()].concat();
    for bytes in [utf16(&plain), bom, plain.replace("\r\n", "\n").into_bytes()] {
        assert_eq!(RegistryFile::parse(&bytes, "").unwrap().changes, expected);
    }
    // One byte per character, for texts only.
    let old = "REGEDIT4\n[HKEY_LOCAL_MACHINE\\SOFTWARE\\a]\n\"e\"=hex(2):25,61,25,00\n\"b\"=hex:25,61\n";
    let found = parse(old).unwrap().changes;
    assert_eq!(found[1].what, What::set("e".into(), Data::expand("%a%")));
    assert_eq!(found[2].what, What::set("b".into(), Data::binary([0x25, 0x61])));
}

#[test]
fn keys_lie_in_their_hives() {
    for (path, hive, key) in [
        (
            "HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services",
            Hive::System,
            "CurrentControlSet\\Services",
        ),
        ("HKLM\\software\\A", Hive::Software, "A"),
        ("HKEY_LOCAL_MACHINE\\SAM\\SAM", Hive::Sam, "SAM"),
        ("HKEY_LOCAL_MACHINE\\SECURITY\\Policy", Hive::Security, "Policy"),
        ("HKEY_LOCAL_MACHINE\\BCD00000000\\Objects", Hive::Boot, "Objects"),
        ("HKEY_USERS\\.DEFAULT\\Control Panel", Hive::Default, "Control Panel"),
        ("HKEY_USERS\\S-1-5-18\\x", Hive::Default, "x"),
        ("HKEY_USERS\\S-1-5-19\\x", Hive::LocalService, "x"),
        ("HKEY_USERS\\S-1-5-20\\x", Hive::NetworkService, "x"),
        ("HKEY_CLASSES_ROOT\\.txt", Hive::Software, "Classes\\.txt"),
        ("HKEY_LOCAL_MACHINE\\SOFTWARE\\a]b", Hive::Software, "a]b"),
    ] {
        let found = changes(&format!("[{path}]\n[-{path}]\n"));
        assert_eq!((found[0].hive, found[0].key.as_str()), (hive, key), "{path}");
        assert_eq!(found[0].what, What::Create);
        assert_eq!((&found[1].what, found[1].line), (&What::Delete, 4));
    }
    // The root of a hive is no key to be made, and its values are some.
    let found = changes("[HKEY_LOCAL_MACHINE\\SOFTWARE]\n\"a\"=-\n");
    assert_eq!((found.len(), found[0].key.as_str()), (1, ""));
    assert_eq!(found[0].what, What::DeleteValue { name: "a".into() });
}

#[test]
fn what_is_not_understood_is_refused_with_its_line() {
    let long = format!("[HKEY_LOCAL_MACHINE\\SOFTWARE\\{}]", "k".repeat(256));
    for (body, expected) in [
        ("\"a\"=\"b\"", "line 3: a value stands before the first key"),
        ("[HKEY_CURRENT_USER\\a]", "line 3: HKEY_CURRENT_USER"),
        ("[HKEY_CURRENT_CONFIG\\a]", "line 3: HKEY_CURRENT_CONFIG"),
        ("[HKEY_USERS\\S-1-5-21-1-2-3-500\\a]", "line 3: the hive of a user"),
        ("[HKEY_LOCAL_MACHINE\\HARDWARE\\a]", "line 3: HKEY_LOCAL_MACHINE\\HARDWARE"),
        ("[HKEY_LOCAL_MACHINE\\DRIVERS\\a]", "is no hive that Windows loads"),
        ("[HKEY_LOCAL_MACHINE]", "itself is no hive"),
        ("[-HKEY_LOCAL_MACHINE\\SOFTWARE]", "would remove all of"),
        ("[-HKEY_CLASSES_ROOT]", "would remove all of"),
        ("[HKEY_LOCAL_MACHINE\\SOFTWARE\\]", "empty name"),
        ("[HKEY_LOCAL_MACHINE\\SOFTWARE\\a\\\\b]", "empty name"),
        ("[HKEY_LOCAL_MACHINE\\SOFTWARE\\a", "lacks a ]"),
        ("[HKEY_LOCAL_MACHINE\\SOFTWARE\\a] ; see [b]", "where the key ends cannot be told"),
        ("[HKEY_LOCAL_MACHINE\\SOFTWARE\\a] b", "where the key ends cannot be told"),
        ("[SOFTWARE\\a]", "is no root of the registry"),
        (&long, "longer than 255"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"", "line 4: lacks a ="),
        ("[HKLM\\SOFTWARE\\a]\nb=\"c\"", "line 4: is no key, value or comment"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=c", "line 4: data of no known kind"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=\"C:\\Windows\"", "line 4: a single \\"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=\"one\ntwo\"", "line 4: a text lacks its closing quote"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=\"c\" d", "line 4: more text behind"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=-1", "line 4: more text behind"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=dword:", "line 4: \"\" is no number"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=dword:123456789", "is no number"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=dword:+1", "is no number"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=hex:0x1", "line 4: \"0x1\" is no byte"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=hex:01,,02", "line 4: \"\" is no byte"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=hex:+1", "line 4: \"+1\" is no byte"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=hex(7:01", "has no type"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=hex:01,", "line 4: the list of bytes breaks off"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=hex:01,\\", "line 4: the list of bytes breaks off"),
        (
            "[HKLM\\SOFTWARE\\a]\n\"b\"=hex:01,\\\n\n[HKLM\\SOFTWARE\\c]",
            "line 4: the list of bytes breaks off",
        ),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=hex:01,\\\n; 02\n\"c\"=\"d\"", "line 5: the list of bytes breaks off"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=hex:\\\n;", "line 5: the list of bytes breaks off"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=hex:01\\\n02", "lacks the comma"),
        ("[-HKLM\\SOFTWARE\\a]\n\"b\"=\"c\"", "line 4: a value of a key that is removed"),
        ("[HKLM\\SOFTWARE\\a]\n\"b\"=\"\u{7}\"", "line 4: holds the control character U+0007"),
    ] {
        let error = parse(&format!("{HEAD}{body}\n")).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{body}");
        assert!(error.to_string().contains(expected), "{body}\n{error}");
    }
    for (bytes, expected) in [
        (&b"REGEDIT5\n"[..], "is no registry editor file"),
        (b"", "is no registry editor file"),
        (b"W\0i\0n\0", "without the mark"),
        (b"\xfe\xff\0W", "big-endian"),
        (b"\xff\xfeW\0\0", "middle of a character"),
        (b"\xff\xfe\n\0\0\xd8x\0", "line 2: half a character"),
        (b"REGEDIT4\n;\xe9\n", "line 2: is neither"),
        ("REGEDIT4\n;é\n".as_bytes(), "line 2: holds characters beyond ASCII"),
        (b"REGEDIT4\n[HKLM\\SOFTWARE\\a]\n\"b\"=hex(1):e9,00\n", "line 3: the byte e9"),
    ] {
        let error = RegistryFile::parse(bytes, "").unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// A plan that holds edits of others before the user's.
fn plan_of(body: &str, others: impl FnOnce(&mut crate::windows::draft::Draft<'_>)) -> PatchPlan {
    let request = Request { registry: Some(parse(&format!("{HEAD}{body}")).unwrap()), ..Request::default() };
    let tree = MemTree::new();
    let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
    let registry = [
        ("ControlSet001\\Services\\a", "Start", Data::dword(2)),
        ("ControlSet001\\Services\\b", "Start", Data::dword(3)),
    ];
    let software = [("Vendor", "x", Data::text("old")), ("Vendor\\Deep", "y", Data::dword(1))];
    let mut draft = draft(&scene, &request, ten(), &registry, &software);
    others(&mut draft);
    plan(&mut draft).unwrap();
    draft.finish()
}

#[test]
fn edits_come_last_and_tell_what_was() {
    let body = r#"[HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Services\a]
"Start"=dword:4
[HKEY_LOCAL_MACHINE\SYSTEM\currentcontrolset\Services\b]
"Start"=dword:3
[-HKEY_LOCAL_MACHINE\SOFTWARE\Vendor]
[HKEY_LOCAL_MACHINE\SOFTWARE\Vendor]
"x"="new"
"#;
    let plan = plan_of(body, |draft| {
        draft.registry.set("ControlSet001\\services\\A", "start", Data::dword(0), "Ours.").unwrap();
    });
    let edits = |file: &str| {
        let path = format!("/Windows/System32/config/{file}");
        plan.edits.iter().find(|edit| edit.path == path).map(|edit| match &edit.action {
            Action::Registry(RegistryEdits(edits)) => edits.clone(),
            other => panic!("{other:?}"),
        })
    };
    let system = edits("SYSTEM").unwrap();
    assert_eq!(system.len(), 2);
    assert_eq!(system[1].why, "site.reg says so in line 4.");
    assert_eq!(
        system[1].change,
        RegistryChange::Set { name: "Start".into(), data: Data::dword(4), was: Some(Data::dword(0)) }
    );
    let software: Vec<_> =
        edits("SOFTWARE").unwrap().into_iter().map(|edit| (edit.key, edit.change)).collect();
    assert_eq!(software[0].1, RegistryChange::Delete { was: vec![("x".into(), Data::text("old"))] });
    assert_eq!(software[1].1, RegistryChange::Create);
    assert_eq!(software.len(), 3);
    let said: Vec<_> = plan.findings.iter().map(|finding| (finding.id, finding.says.as_str())).collect();
    assert_eq!(
        said,
        [
            (
                "windows-registry-conflict",
                "site.reg, line 4: ControlSet001\\Services\\a is also decided by landfall; the file's line counts."
            ),
            ("windows-registry-file", "site.reg: 4 of 7 lines change the registry."),
        ]
    );
}

/// Also where there was nothing to edit, and in hives besides the two.
#[test]
fn what_was_decided_and_so_already_is_told_of_too() {
    const STORE: &str = "/:esp/EFI/Microsoft/Boot/BCD";
    let body = r#"[HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Services\a]
"Start"=dword:4
"Other"=dword:1
[HKEY_LOCAL_MACHINE\BCD00000000\Objects\x\Elements\16000046]
"Element"=hex:01
"#;
    let request = Request {
        registry: Some(parse(&format!("{HEAD}{body}")).unwrap()),
        firmware: crate::target::Firmware::Uefi,
        ..Request::default()
    };
    let tree = MemTree::new().file(STORE, "");
    let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
    let registry = [("ControlSet001\\Services\\A", "start", Data::dword(0))];
    let mut draft = draft(&scene, &request, ten(), &registry, &[]);
    draft.put_hive(STORE, crate::windows::registry::Registry::new(Box::new(MemKeys::default())));
    draft.registry.set("ControlSet001\\Services\\a", "Start", Data::dword(0), "Ours.").unwrap();
    assert!(draft.registry.edits().is_empty());
    draft.hive(STORE).unwrap().unwrap().delete("Objects\\x\\Elements\\16000046", "Ours.").unwrap();
    plan(&mut draft).unwrap();
    let plan = draft.finish();
    let conflicts = plan.findings.iter().filter(|finding| finding.id == "windows-registry-conflict");
    let said: Vec<_> = conflicts.map(|finding| finding.says.split(':').next().unwrap()).collect();
    assert_eq!(said, ["site.reg, line 4", "site.reg, line 7"]);
}

/// Also where the key lies above.
#[test]
fn a_key_that_is_removed_takes_with_it_what_was_decided() {
    for (key, is_told) in [("Services\\a", true), ("Services", true), ("Services\\b", false)] {
        let plan = plan_of(&format!("[-HKLM\\SYSTEM\\CurrentControlSet\\{key}]\n"), |draft| {
            for service in ["a", "bb"] {
                let key = format!("ControlSet001\\Services\\{service}");
                draft.registry.set(&key, "Start", Data::dword(0), "Ours.").unwrap();
            }
        });
        let told = plan.findings.iter().any(|finding| finding.id == "windows-registry-conflict");
        assert_eq!(told, is_told, "{key}");
    }
}

#[test]
fn every_hive_is_changed_in_its_own_file() {
    let files = [
        ("HKLM\\SYSTEM", "System32/config/SYSTEM"),
        ("HKLM\\SOFTWARE", "System32/config/SOFTWARE"),
        ("HKLM\\SAM", "System32/config/SAM"),
        ("HKLM\\SECURITY", "System32/config/SECURITY"),
        ("HKU\\.DEFAULT", "System32/config/DEFAULT"),
        ("HKU\\S-1-5-19", "ServiceProfiles/LocalService/NTUSER.DAT"),
        ("HKU\\S-1-5-20", "ServiceProfiles/NetworkService/NTUSER.DAT"),
    ];
    for (hive, file) in files {
        let plan = plan_of(&format!("[{hive}\\New]\n"), |draft| {
            for (_, file) in files {
                let empty = crate::windows::registry::Registry::new(Box::new(MemKeys::default()));
                draft.put_hive(&draft.system.path(file), empty);
            }
        });
        let paths: Vec<_> = plan.edits.iter().map(|edit| edit.path.as_str()).collect();
        assert_eq!(paths, [format!("/Windows/{file}")]);
    }
}

#[test]
fn a_hive_that_is_not_there_blocks() {
    let plan = plan_of("[HKEY_LOCAL_MACHINE\\BCD00000000\\x]\n", |_| {});
    assert!(plan.is_blocked());
    assert_eq!(plan.findings[0].id, "windows-registry-hive-missing");
}

proptest! {
    /// What is written down is read back, whatever the characters of names and texts.
    #[test]
    fn written_values_are_read_back(
        values in prop::collection::vec(("[^\\p{Cc}]{0,20}", "[^\\p{Cc}]{0,40}"), 0..8),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in any::<u32>(),
    ) {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut body = String::new();
        for (name, text) in &values {
            body.push_str(&format!("\"{}\"=\"{}\"\r\n", escaped(name), escaped(text)));
        }
        let lines: Vec<String> = bytes.chunks(25).map(|line| {
            line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(",")
        }).collect();
        body.push_str(&format!("\"bytes\"=hex({kind:x}):{}\r\n", lines.join(",\\\r\n  ")));
        let text = format!("{HEAD}[HKEY_LOCAL_MACHINE\\SOFTWARE\\a]\r\n{body}");
        let found = RegistryFile::parse(&utf16(&text), "").unwrap().changes;
        let mut expected = vec![What::Create];
        expected.extend(values.iter().map(|(name, text)| What::set(name.clone(), Data::text(text))));
        expected.push(What::set("bytes".into(), Data { kind, bytes }));
        prop_assert_eq!(found.into_iter().map(|change| change.what).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = RegistryFile::parse(&bytes, "");
        let _ = RegistryFile::parse(&[HEAD.as_bytes(), &bytes].concat(), "");
    }
}
