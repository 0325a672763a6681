//! Which folder is chosen, and what is wrong with one.

use super::forge::{catalogue, program, tree};
use super::*;
use crate::Kind;
use choose::folders;
use std::process::Command;

fn version(major: u32, minor: u32, build: u32) -> Version {
    Version { major, minor, build }
}

#[test]
fn every_windows_has_its_folder() {
    let source = tree();
    for (system, folder) in [
        (System { version: version(6, 0, 6002), ..ten() }, "2k8"),
        (System { version: version(6, 1, 7601), architecture: "i686".into(), ..ten() }, "w7"),
        (server(version(6, 0, 6002)), "2k8"),
        (System { version: version(6, 2, 9200), ..ten() }, "w8"),
        (server(version(6, 2, 9200)), "2k12"),
        (System { version: version(6, 3, 9600), ..ten() }, "w8.1"),
        (server(version(6, 3, 9600)), "2k12R2"),
        (System { version: version(10, 0, 19045), architecture: "i686".into(), ..ten() }, "w10"),
        (ten(), "w10"),
        (System { version: version(10, 0, 22631), ..ten() }, "w11"),
        (System { version: version(10, 0, 26100), architecture: "aarch64".into(), ..ten() }, "w11"),
        (server(version(10, 0, 14393)), "2k16"),
        (server(version(10, 0, 17763)), "2k19"),
        (server(version(10, 0, 20348)), "2k22"),
        (server(version(10, 0, 26100)), "2k25"),
    ] {
        assert_eq!(folders(&system)[0], folder);
        let guest = Guest::new(system.clone(), &database());
        let (installed, plan) = guest.plan(Some(&source), Driver::ALL);
        assert_eq!(installed.usable, Driver::ALL, "{system:?}");
        assert!(plan.findings.is_empty(), "{:?}", plan.findings);
    }
}

#[test]
fn what_has_no_folder_takes_the_nearest_older_one() {
    assert_eq!(
        folders(&ten()),
        ["w10", "2k19", "2k16", "w8.1", "2k12R2", "w8", "2k12", "w7", "2k8R2", "2k8"]
    );
    assert_eq!(folders(&server(version(10, 0, 26100)))[..5], ["2k25", "2k22", "2k19", "2k16", "w11"]);
    let source = one(&Recipe::ten(Driver::Viostor), "viostor/w10/amd64");
    let eleven = Guest::new(System { version: version(10, 0, 26200), ..ten() }, &database());
    let (installed, plan) = eleven.plan(Some(&source), &[Driver::Viostor]);
    assert_eq!((installed.usable, ids(&plan)), (vec![Driver::Viostor], vec!["windows-driver-nearest"]));
    // A build that is newer than all that is known.
    let newer = Guest::new(System { version: version(10, 0, 30000), ..ten() }, &database());
    let (installed, plan) = newer.plan(Some(&tree()), &[Driver::Viostor]);
    assert_eq!((installed.usable, ids(&plan)), (vec![Driver::Viostor], vec!["windows-driver-nearest"]));
    assert!(plan.findings[0].says.contains("viostor/w11/amd64"), "{:?}", plan.findings);
    // An older driver that its INF file does not give to this Windows.
    let only = one(
        &Recipe { decoration: "NTamd64.10.0...22000", ..Recipe::ten(Driver::Viostor) },
        "viostor/w10/amd64",
    );
    let (installed, plan) = Guest::ten().plan(Some(&only), &[Driver::Viostor]);
    assert_eq!((installed.usable, ids(&plan)), (vec![], vec!["windows-driver-unusable"]));
    assert!(plan.findings[0].says.contains("10.0.19045"), "{:?}", plan.findings);
}

#[test]
fn what_is_too_old_is_refused_by_name() {
    let xp = Guest::new(
        System { version: version(5, 1, 2600), architecture: "i686".into(), ..ten() },
        &database(),
    );
    let (installed, plan) = xp.plan(Some(&tree()), Driver::ALL);
    assert_eq!((installed, ids(&plan)), (Installed::default(), vec!["windows-too-old-for-virtio"]));
    assert!(plan.findings[0].says.contains("XP") && plan.edits.is_empty());
}

/// What is not whole is told by the file, and nothing of it is planned.
#[test]
fn a_package_that_is_not_whole_is_not_used() {
    let recipe = Recipe::ten(Driver::Viostor);
    let good = one(&recipe, "viostor/w10/amd64");
    let path = |name: &str| format!("viostor/w10/amd64/{name}");
    let inf = recipe.inf();
    let with = |name: &str, bytes: Option<Vec<u8>>| {
        let mut source = good.clone();
        match bytes {
            Some(bytes) => source.0.insert(path(name), bytes),
            None => source.0.remove(&path(name)),
        };
        source
    };
    let changed = |from: &str, to: &str| {
        assert!(inf.contains(from), "{from}");
        with("viostor.inf", Some(inf.replace(from, to).into_bytes()))
    };
    for (source, says) in [
        (with("viostor.cat", None), "viostor.cat is missing"),
        (with("viostor.sys", None), "viostor.sys is missing"),
        (with("viostor.inf", None), "no driver viostor"),
        (with("viostor.sys", Some(program(0x14c, [1, 0, 0, 0]))), "is for i686, and the guest is x86_64"),
        (with("viostor.sys", Some(program(0xaa64, [1, 0, 0, 0]))), "is for aarch64"),
        (with("viostor.sys", Some(b"MZ".to_vec())), "viostor.sys is no program"),
        (with("viostor.cat", Some(b"signed".to_vec())), "viostor.cat is no signed catalogue"),
        (with("viostor.cat", Some(vec![0x30; 100])), "viostor.cat is no signed catalogue"),
        (with("viostor.inf", Some(Vec::new())), "[Version] has no sound DriverVer"),
        (changed("CatalogFile", ";"), "names no catalogue"),
        (changed("12/02/2021", "13/02/2021"), "date in DriverVer"),
        (changed("100.90", "100.90000"), "version in DriverVer"),
        (changed("NTamd64", "NTarm64"), "has nothing for Windows 10.0.19045"),
        (changed("AddService", "NoService"), "installs no service"),
        (changed("StartType", "NoType"), "no sound StartType"),
        (changed("\\viostor.sys\r\n", "\\other.sys\r\n"), "is not among its files"),
        (changed("viostor.sys= 1,,", "viostor.sys= 1,..\\..,"), "is no name of a file in its folder"),
        (changed("viostor,%ASSOC%", "..\\disk,%ASSOC%"), "is no name of a registry key"),
    ] {
        let (installed, plan) = Guest::ten().plan(Some(&source), &[Driver::Viostor]);
        assert_eq!(
            (installed, ids(&plan)),
            (Installed::default(), vec!["windows-driver-unusable"]),
            "{says}"
        );
        assert!(plan.findings[0].says.contains(says), "{says}: {:?}", plan.findings);
        assert!(plan.edits.is_empty());
    }
}

#[test]
fn what_was_changed_after_it_was_signed_is_told() {
    let recipe = Recipe::ten(Driver::Viostor);
    let mut source = one(&recipe, "viostor/w10/amd64");
    let sys = source.0.get_mut("viostor/w10/amd64/viostor.sys").unwrap();
    // The checksum is not part of what is signed, the code is.
    sys[0x98 + 64] ^= 1;
    assert_eq!(ids(&Guest::ten().plan(Some(&source), &[Driver::Viostor]).1), Vec::<&str>::new());
    *source.0.get_mut("viostor/w10/amd64/viostor.sys").unwrap().last_mut().unwrap() ^= 1;
    let (installed, plan) = Guest::ten().plan(Some(&source), &[Driver::Viostor]);
    assert_eq!((installed.usable, ids(&plan)), (vec![Driver::Viostor], vec!["windows-driver-altered"]));
    assert!(plan.findings[0].says.contains("viostor.sys"));
}

/// Windows 7 stops at a driver that is signed in a way which it has not learnt.
#[test]
fn windows_7_needs_an_update_for_sha2() {
    let recipe = Recipe { sha2: true, ..Recipe::seven(Driver::Viostor) };
    let source = one(&recipe, "viostor/w7/amd64");
    let package = |name: &str| {
        format!("Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\Packages\\{name}")
    };
    for (name, state, usable) in [
        ("Package_for_KB4474419~31bf3856ad364e35~amd64~~6.1.3.2", 0x70, true),
        ("Package_for_KB3033929~31bf3856ad364e35~amd64~~6.1.1.1", 0x70, true),
        ("Package_for_RollupFix~31bf3856ad364e35~amd64~~7601.24535.1.4", 0x70, true),
        // A later update took its place, and brought what it brought; it cannot be taken away again; it is not there yet.
        ("Package_for_KB3033929~31bf3856ad364e35~amd64~~6.1.1.1", 0x50, true),
        ("Package_for_KB4474419~31bf3856ad364e35~amd64~~6.1.3.2", 0x80, true),
        ("Package_for_KB4474419~31bf3856ad364e35~amd64~~6.1.3.2", 0x60, false),
        ("Package_for_RollupFix~31bf3856ad364e35~amd64~~7601.23964.1.4", 0x70, false),
        ("Package_for_KB4474419~31bf3856ad364e35~amd64~~6.1.3.2", 0x40, false),
        ("Package_for_KB44744190~31bf3856ad364e35~amd64~~6.1.3.2", 0x70, false),
    ] {
        let mut guest = Guest::new(seven(), &Vec::new());
        guest.software = MemKeys::of(&[(&package(name), "CurrentState", Data::dword(state))]);
        let (installed, plan) = guest.plan(Some(&source), &[Driver::Viostor]);
        assert_eq!(installed.has(Driver::Viostor), usable, "{name}");
        assert_eq!(ids(&plan), if usable { vec![] } else { vec!["windows-driver-signing"] });
    }
    let old = one(&Recipe::seven(Driver::Viostor), "viostor/w7/amd64");
    assert!(Guest::new(seven(), &Vec::new()).plan(Some(&old), &[Driver::Viostor]).1.findings.is_empty());
}

#[test]
fn catalogues_say_who_signed_them() {
    let read = |sha2, signer| signature::Catalogue::parse(&catalogue(&[b"x"], sha2, signer)).unwrap();
    let catalogue = read(true, "Microsoft Windows Hardware Compatibility Publisher");
    assert_eq!(catalogue.signer.as_deref(), Some("Microsoft Windows Hardware Compatibility Publisher"));
    assert!(catalogue.needs_sha2 && !read(false, "Red Hat, Inc.").needs_sha2);
    assert_eq!(signature::file_version(&program(0x8664, [1, 2, 3, 4])), Some([1, 2, 3, 4]));
}

/// The same tree in a folder and in images that other programs made: the same plan.
#[test]
fn a_folder_and_an_image_give_the_same_plan() {
    let expected = Guest::ten().plan(Some(&tree()), Driver::ALL);
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("virtio-win");
    tree().write(&folder);
    let source = source::open(&folder).unwrap();
    assert_eq!(Guest::ten().plan(Some(&*source), Driver::ALL), expected);
    assert_eq!(source.list("NETKVM").unwrap().unwrap().len(), forge::FOLDERS.len());
    assert_eq!(source.list("nothing").unwrap(), None);
    assert_eq!(source.read("../virtio-win/NetKVM", landfall_image::Bytes(9)).unwrap(), None);
    for maker in [&["genisoimage", "-quiet", "-r", "-J"][..], &["xorriso", "-as", "mkisofs", "-quiet", "-J"]]
    {
        let Some(tool) = crate::testing::tool(maker[0]) else { continue };
        let image = scratch.path().join("virtio-win.iso");
        let made = Command::new(tool).args(&maker[1..]).arg("-o").arg(&image).arg(&folder).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let source = source::open(&image).unwrap();
        assert_eq!(Guest::ten().plan(Some(&*source), Driver::ALL), expected, "{maker:?}");
        std::fs::remove_file(image).unwrap();
    }
    let absent = source::open(&scratch.path().join("absent")).err().unwrap();
    assert_eq!(absent.kind(), Kind::Io);
    assert!(absent.hint_text().is_some());
}
