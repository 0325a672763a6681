//! INF files by the lines of the documentation, and decorations by its tables.

use super::decoration::{Decoration, closest, models};
use super::registry::{Change, Entry, entries};
use super::*;
use crate::windows::data::Data;
use crate::windows::draft::tests::ten;
use crate::windows::draft::{System, Version};

fn inf(text: &str) -> Inf {
    Inf::parse(text.as_bytes()).unwrap()
}

fn lines(text: &str) -> Vec<(Option<String>, Vec<String>)> {
    let inf = inf(&format!("[s]\n{text}"));
    inf.lines("S")
        .iter()
        .filter(|line| **line != Line::default())
        .map(|line| (line.key.clone(), line.fields.clone()))
        .collect()
}

#[test]
fn lines_are_keys_and_fields() {
    let key = |key: &str, fields: &[&str]| {
        (Some(key.to_owned()), fields.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>())
    };
    let plain = |fields: &[&str]| (None, fields.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>());
    for (text, read) in [
        ("a = b", key("a", &["b"])),
        ("a=b,c , d", key("a", &["b", "c", "d"])),
        ("a= ; nothing", key("a", &[""])),
        ("a.sys,,,2", plain(&["a.sys", "", "", "2"])),
        ("HKR,,x,,a=b", plain(&["HKR", "", "x", "", "a=b"])),
        ("HKR,\"a b\\c\",\"5\", 1", plain(&["HKR", "a b\\c", "5", "1"])),
        ("a = \"say \"\"so\"\", or; not\"", key("a", &["say \"so\", or; not"])),
        ("a = \" kept \" ", key("a", &[" kept "])),
        ("a = \"open", key("a", &["open"])),
        ("a = b, \\\n c", key("a", &["b", "c"])),
        ("a = b, \\ ; more\r\n c\r\n", key("a", &["b", "c"])),
        ("a = C:\\dir\\file", key("a", &["C:\\dir\\file"])),
        ("\"quoted key\" = x", key("quoted key", &["x"])),
    ] {
        assert_eq!(lines(text), [read], "{text}");
    }
    assert!(lines("; only\n\n   \n").is_empty());
}

#[test]
fn sections_go_on_and_names_have_no_case() {
    let inf = inf("x=lost\n[ One ]\na=1\n[two]\nb=2\n[ONE]\nc=3\nA=4\n");
    assert_eq!(inf.names().collect::<Vec<_>>(), ["One", "two"]);
    assert_eq!(inf.values("one", "A").unwrap(), ["1", "4"]);
    assert_eq!((inf.number("one", "c").unwrap(), inf.spelled("oNe")), (Some(3), Some("One")));
    assert_eq!(inf.value("one", "none").unwrap(), None);
}

#[test]
fn tokens_are_replaced_once() {
    let inf = inf(
        "[v]\na=%x% and %X%, %12%\\f, 100%%, %none%, %\n[Strings]\nx=\"%y%\"\ny=z\n[Strings.0407]\nx=de\nonly=de\n",
    );
    assert_eq!(inf.values("v", "a").unwrap(), ["%y% and %y%", "%12%\\f", "100%", "%none%", "%"]);
    assert_eq!(inf.string("ONLY"), Some("de"));
}

#[test]
fn all_encodings_are_read() {
    let text = "[s]\r\na=\"é\"\r\n";
    let utf16 = |swap: bool| {
        text.encode_utf16().flat_map(move |u| if swap { u.to_be_bytes() } else { u.to_le_bytes() })
    };
    for bytes in [
        [0xff, 0xfe].into_iter().chain(utf16(false)).collect::<Vec<u8>>(),
        [0xfe, 0xff].into_iter().chain(utf16(true)).collect(),
        utf16(false).collect(),
        text.as_bytes().to_vec(),
        [&[0xef, 0xbb, 0xbf], text.as_bytes()].concat(),
        b"[s]\r\na=\"\xe9\"\r\n".to_vec(),
    ] {
        assert_eq!(Inf::parse(&bytes).unwrap().value("s", "a").unwrap().as_deref(), Some("é"), "{bytes:?}");
    }
}

#[test]
fn registry_entries_have_the_types_of_their_flags() {
    let inf = inf(
        "[i]\nAddReg=r,R\n[r]\nHKR\nHKR,k\nHKR,,t,,text\nHKR,,e,0x00020000,\"%%x%%\"\nHKR,,m,0x00010000,a,b\n\
                   HKR,,b,1,01,fe,\\\n 0a\nHKR,,d,0x10001,0x20\nHKR,,d4,0x10001,1,2,0,0\nHKR,,neg,0x10001,-1\nHKR,,n,0x20001\n\
                   HKR,,q,0xb0001,1,0,0,0,0,0,0,0\nHKR,,new,2,x\nHKR,,old,0x20,x\nHKR,,gone,4\nHKR,,more,0x10008,x\nHKR,only,,0x10\n\
                   HKLM,a,b,,c\nHKR,,\"5\",%D%,1\n[Strings]\nD=0x00010001\n",
    );
    let entry = |key: &str, name: &str, change| Entry { key: key.into(), name: name.into(), change };
    assert_eq!(
        entries(&inf, "i").unwrap(),
        [
            entry("", "", Change::Key),
            entry("k", "", Change::Key),
            entry("", "t", Change::Set(Data::text("text"))),
            entry("", "e", Change::Set(Data::expand("%x%"))),
            entry("", "m", Change::Set(Data::texts(["a", "b"]))),
            entry("", "b", Change::Set(Data::binary([1, 0xfe, 10]))),
            entry("", "d", Change::Set(Data::dword(0x20))),
            entry("", "d4", Change::Set(Data::dword(0x201))),
            entry("", "neg", Change::Set(Data::dword(u32::MAX))),
            entry("", "n", Change::Set(Data { kind: 0, bytes: vec![] })),
            entry("", "q", Change::Set(Data::qword(1))),
            entry("", "new", Change::SetNew(Data::text("x"))),
            entry("", "old", Change::SetOld(Data::text("x"))),
            entry("", "gone", Change::Delete),
            entry("", "more", Change::Append(vec!["x".into()])),
            entry("only", "", Change::Key),
            entry("", "5", Change::Set(Data::dword(1))),
        ]
    );
}

fn system(major: u32, minor: u32, build: u32, architecture: &str, is_server: bool) -> System {
    System { version: Version { major, minor, build }, architecture: architecture.into(), is_server, ..ten() }
}

#[test]
fn the_closest_decoration_is_taken() {
    let chosen = |decorations: &str, system: &System| {
        models("M", decorations.split(',').filter(|text| !text.is_empty()), system)
            .map(|name| name[1..].to_owned())
    };
    let ten = ten();
    let eight = system(6, 2, 9200, "x86_64", false);
    let server = system(10, 0, 17763, "x86_64", true);
    let x86 = system(6, 1, 7601, "i686", false);
    let arm = system(10, 0, 22631, "aarch64", false);
    for (decorations, system, found) in [
        ("NTamd64", &ten, Some(".NTamd64")),
        ("NTx86,NTamd64.6.1,NTamd64.10.0", &ten, Some(".NTamd64.10.0")),
        ("NTx86,NTamd64.6.1,NTamd64.10.0", &eight, Some(".NTamd64.6.1")),
        (
            "NTamd64.10.0...14310,NTamd64.10.0...19041,NTamd64.10.0...22000",
            &ten,
            Some(".NTamd64.10.0...19041"),
        ),
        ("NTamd64.10.0...22000", &ten, None),
        ("NTamd64.10.0.1,NTamd64.10.0.3,NTamd64.10.0", &ten, Some(".NTamd64.10.0.1")),
        ("NTamd64.10.0.1,NTamd64.10.0.3,NTamd64.10.0", &server, Some(".NTamd64.10.0.3")),
        ("NTamd64.6.3,NTamd64.10.0.2", &server, Some(".NTamd64.6.3")),
        ("NTamd64.10.0..0x80,NTamd64", &ten, Some(".NTamd64")),
        ("NTARM64.10.0...16299", &arm, Some(".NTARM64.10.0...16299")),
        // Others than x86 must be named.
        ("NT.6.1", &ten, None),
        ("", &ten, None),
        ("", &x86, Some("")),
        ("NT.6.1,NTx86", &x86, Some(".NT.6.1")),
        ("NTx86.6.2", &x86, Some("")),
        ("nonsense,NTamd64.x,NTamd64.6", &ten, Some(".NTamd64.6")),
    ] {
        assert_eq!(chosen(decorations, system).as_deref(), found, "{decorations}");
    }
    assert_eq!(Decoration::parse("NTmips"), None);
}

#[test]
fn the_closest_installation_is_taken() {
    let names = [
        "I",
        "I.NT",
        "i.NTx86",
        "I.NTamd64",
        "I.NTamd64.HW",
        "I.NT.Services",
        "I2",
        "J.NT",
        "K.NTarm64",
        "L",
    ];
    for (section, found) in [
        ("i", Some("I.NTamd64")),
        ("j", Some("J.NT")),
        ("k", None),
        ("l", Some("L")),
        ("x", None),
        ("ii", None),
    ] {
        assert_eq!(closest(section, names.into_iter(), &ten()), found, "{section}");
    }
}

/// The list of the architecture goes before the common one.
#[test]
fn a_file_lies_where_its_own_architecture_says() {
    let text = "[Version]\nClassGuid={4D36E97B-E325-11CE-BFC1-08002BE10318}\nDriverVer=01/01/2020,1.0\n\
                [SourceDisksNames]\n1=d,,,\n[SourceDisksFiles]\nx.sys=1,i386\ny.dll=1\n\
                [SourceDisksFiles.amd64]\nX.SYS=1,amd64\n";
    let package = install::Package::read(&inf(text), &ten()).unwrap();
    assert_eq!(package.files, ["amd64/X.SYS", "y.dll"]);
    let package =
        install::Package::read(&inf(text), &System { architecture: "i686".into(), ..ten() }).unwrap();
    assert_eq!(package.files, ["i386/x.sys", "y.dll"]);
}
