//! Names inside images: of files that they may not reach, of themselves, and of files that are not there.

use super::build::{be64, content, descriptor, differencing, qcow2, qcow2_over, qcow2_with};
use super::build::{rename_utf16, save, tar, vdi};
use super::{bounded, refused, run_all};
use landfall_image::Format;
use landfall_image::testing::noise_bytes;
use std::path::{Path, PathBuf};

/// What lies above the image's folder: each a file that an image could have as a part of it.
fn secrets(vm: &Path) {
    let above = vm.parent().unwrap();
    save(above, "secret.raw", &noise_bytes(9, 1 << 20));
    save(above, "secret.vmdk", descriptor("monolithicFlat", "RW 2048 FLAT \"secret.raw\" 0").as_bytes());
    std::os::unix::fs::symlink("../secret.raw", vm.join("link.raw")).unwrap();
    std::os::unix::fs::symlink("..", vm.join("up")).unwrap();
}

/// Ways out of a folder, each to something that could be read.
const WAYS_OUT: [&str; 6] =
    ["../secret.raw", "sub/../../secret.raw", "/etc/hostname", "/dev/zero", "link.raw", "up/secret.raw"];

#[test]
fn no_name_leads_out_of_the_folder() {
    let mut cases = Vec::new();
    for way in WAYS_OUT {
        cases.push(refused(&format!("qcow2 backing {way}"), &["leads outside"], move |vm| {
            secrets(vm);
            save(vm, "a.qcow2", &qcow2_over(way))
        }));
        cases.push(refused(&format!("qcow2 data file {way}"), &["leads outside"], move |vm| {
            secrets(vm);
            let mut bytes = qcow2_with(0x4441_5441, way.as_bytes());
            be64(&mut bytes, 72, 4);
            save(vm, "a.qcow2", &bytes)
        }));
        for kind in ["FLAT", "SPARSE", "VMFS", "SESPARSE"] {
            cases.push(refused(&format!("vmdk {kind} {way}"), &["leads outside"], move |vm| {
                secrets(vm);
                let line = format!("RW 2048 {kind} \"{way}\" {}", if kind == "FLAT" { "0" } else { "" });
                save(vm, "a.vmdk", descriptor("custom", &line).as_bytes())
            }));
        }
        cases.push(refused(&format!("disk in an ova, extent {way}"), &["leads outside"], move |vm| {
            secrets(vm);
            let text = descriptor("monolithicFlat", &format!("RW 2048 FLAT \"{way}\" 0"));
            save(vm, "a.ova", &tar(&[("a.ovf", b"<Envelope/>"), ("a.vmdk", text.as_bytes())]))
        }));
    }
    for way in ["../secret.vmdk", "/etc/hostname", "..\\secret.vmdk"] {
        cases.push(refused(&format!("vmdk parent {way}"), &["leads outside"], move |vm| {
            secrets(vm);
            let lines = format!("parentCID=11223344\nparentFileNameHint=\"{way}\"\nRW 2048 ZERO");
            save(vm, "a.vmdk", descriptor("monolithicSparse", &lines).as_bytes())
        }));
    }
    for (kind, base, way) in
        [("vhdx", "bbbbbbbbb.vhdx", "..\\secret.vhdx"), ("vhd", "bbbbbbbbb.vhd", "..\\secret.vhd")]
    {
        cases.push(refused(&format!("{kind} parent {way}"), &["leads outside"], move |vm| {
            let secret = vm.join(way.replace('\\', "/"));
            let path = differencing(vm, kind, &format!("a.{kind}"), base, Some(&secret));
            rename_utf16(&path, base, way);
            if kind == "vhd" {
                let mut bytes = std::fs::read(&path).unwrap();
                super::build::vhd_sum(&mut bytes, 512, 1024, 36);
                std::fs::write(&path, bytes).unwrap();
            }
            path
        }));
    }
    let cases: Vec<_> = cases.into_iter().map(|case| case.hint("--allow")).collect();
    run_all(&cases);
}

/// The gate is what stands in the way: with the folder allowed, the same images are read.
#[test]
fn an_allowed_folder_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let vm = folder.path().join("vm");
    std::fs::create_dir(&vm).unwrap();
    secrets(&vm);
    let image = save(&vm, "a.qcow2", &qcow2_over("../secret.raw"));
    let target = folder.path().join("out.raw");
    let allow = folder.path().to_str().unwrap();
    let told = bounded(&["disk", "convert", "--allow", allow], &[&image, &target]).unwrap();
    assert_eq!(told.code, Some(0), "{}", told.says);
    let len = 32 << 10;
    assert!(std::fs::read(&target).unwrap() == noise_bytes(9, 1 << 20)[..len]);
}

/// A name that only QEMU would understand is no file name: nothing is connected to and nothing is opened.
#[test]
fn names_with_a_scheme_are_refused() {
    let mut cases = Vec::new();
    for name in [
        "json:{\"driver\":\"raw\",\"file\":{\"filename\":\"/etc/hostname\"}}",
        "nbd://127.0.0.1:10809/x",
        "nbd:unix:/run/x",
        "nbd+unix:///x?socket=/run/x",
        "http://127.0.0.1/x",
        "ssh://127.0.0.1/x",
        "fd:3",
        "blkdebug::/etc/hostname",
        "file:json:{}",
    ] {
        cases.push(
            refused(&format!("qcow2 backing {name}"), &["no plain file name"], move |vm| {
                save(vm, "a.qcow2", &qcow2_over(name))
            })
            .hint("beside the image"),
        );
    }
    cases.push(
        refused("file: and a path", &["leads outside"], |vm| {
            save(vm, "a.qcow2", &qcow2_over("file:/etc/hostname"))
        })
        .hint("--allow"),
    );
    run_all(&cases);
    run_all(&[refused("vmdk nbd", &["is an object of a datastore, not a file"], |vm| {
        save(vm, "a.vmdk", descriptor("custom", "RW 2048 FLAT \"nbd://127.0.0.1/x\" 0").as_bytes())
    })
    .hint("vmkfstools")]);
}

#[test]
fn an_image_that_is_its_own_parent_is_refused() {
    let mut cases = vec![
        refused("qcow2, itself", &[], |vm| save(vm, "a.qcow2", &qcow2_over("a.qcow2"))),
        refused("qcow2, itself by a detour", &[], |vm| {
            std::os::unix::fs::symlink("a.qcow2", vm.join("b.qcow2")).unwrap();
            save(vm, "a.qcow2", &qcow2_over("./b.qcow2"))
        }),
        refused("qcow2, two", &[], |vm| {
            save(vm, "b.qcow2", &qcow2_over("a.qcow2"));
            save(vm, "a.qcow2", &qcow2_over("b.qcow2"))
        }),
        refused("vmdk, itself", &[], |vm| delta(vm, "a.vmdk", "a.vmdk")),
        refused("vmdk, two", &[], |vm| {
            delta(vm, "b.vmdk", "a.vmdk");
            delta(vm, "a.vmdk", "b.vmdk")
        }),
        refused("vdi, itself", &[], |vm| {
            let mut bytes = vdi(4);
            bytes.copy_within(392..424, 424);
            save(vm, "a.vdi", &bytes)
        }),
    ];
    for (kind, base, own) in
        [("vhdx", "bbbbbbbbb.vhdx", "aaaaaaaaa.vhdx"), ("vhd", "bbbbbbbbb.vhd", "aaaaaaaaa.vhd")]
    {
        cases.push(refused(&format!("{kind}, itself"), &[], move |vm| {
            let path = differencing(vm, kind, own, base, None);
            rename_utf16(&path, base, own);
            if kind == "vhd" {
                let mut bytes = std::fs::read(&path).unwrap();
                super::build::vhd_sum(&mut bytes, 512, 1024, 36);
                std::fs::write(&path, bytes).unwrap();
            }
            path
        }));
    }
    for case in &mut cases {
        case.says.push("is its own parent");
    }
    cases.push(refused("qcow2, 300 layers", &["longer than 256 layers"], |vm| {
        for n in 1..300 {
            save(vm, &format!("{n}.qcow2"), &qcow2_over(&format!("{}.qcow2", n + 1)));
        }
        save(vm, "300.qcow2", &qcow2(9));
        save(vm, "0.qcow2", &qcow2_over("1.qcow2"))
    }));
    run_all(&cases);
}

fn delta(vm: &Path, name: &str, parent: &str) -> PathBuf {
    let lines = format!("parentCID=11223344\nparentFileNameHint=\"{parent}\"\nRW 2048 ZERO");
    save(vm, name, descriptor("monolithicSparse", &lines).as_bytes())
}

/// What was stored over a parent is no disk without it.
#[test]
fn a_difference_without_its_parent_is_no_disk() {
    let mut cases = vec![
        refused("qcow2", &["\"base.qcow2\", which cannot be opened"], |vm| {
            save(vm, "a.qcow2", &qcow2_over("base.qcow2"))
        })
        .codes(&[2]),
        refused("vmdk", &["\"base.vmdk\", which cannot be opened"], |vm| delta(vm, "a.vmdk", "base.vmdk"))
            .codes(&[2]),
        refused("vdi", &["parent with the id 09090909-"], |vm| {
            let mut bytes = vdi(4);
            bytes[424..440].fill(9);
            save(vm, "a.vdi", &bytes)
        }),
    ];
    for (kind, base) in [("vhdx", "base.vhdx"), ("vhd", "base.vhd")] {
        let make = move |vm: &Path| differencing(vm, kind, &format!("a.{kind}"), base, None);
        cases.push(refused(kind, &["which cannot be opened"], make).codes(&[2]));
    }
    let mut cases: Vec<_> = cases.into_iter().map(|case| case.hint("hint: put ")).collect();
    cases.push(refused("vmdk that does not say where", &["does not name it"], |vm| {
        save(vm, "a.vmdk", descriptor("custom", "parentCID=11223344\nRW 2048 ZERO").as_bytes())
    }));
    cases.push(
        refused("vmdk over another one", &["is not the parent that its child was made from"], |vm| {
            save(
                vm,
                "b.vmdk",
                descriptor("custom", "RW 2048 ZERO").replace("CID=1122", "CID=9922").as_bytes(),
            );
            delta(vm, "a.vmdk", "b.vmdk")
        })
        .hint("find the right one"),
    );
    run_all(&cases);
}

/// Members of a package are read where they lie: their names are no paths, and those that lead out of it are refused.
#[test]
fn names_in_a_package_are_no_paths() {
    let folder = tempfile::tempdir().unwrap();
    let vm = folder.path().join("vm");
    std::fs::create_dir(&vm).unwrap();
    secrets(&vm);
    let inside = noise_bytes(5, 1 << 20);
    for name in ["../secret.raw", "/etc/hostname.raw", "up/secret.raw", "x/../../secret.raw"] {
        let image = save(&vm, "a.ova", &tar(&[("a.ovf", b"<Envelope/>"), (name, &inside)]));
        let target = folder.path().join("out.qcow2");
        let told = bounded(&["disk", "convert"], &[&image, &target]).unwrap();
        if name == "up/secret.raw" {
            assert_eq!(told.code, Some(0), "{name}: {}", told.says);
            assert!(content(&target, Format::Qcow2) == inside, "{name}");
            std::fs::remove_file(&target).unwrap();
        } else {
            assert!(told.code != Some(0) && told.says.contains(name), "{name}: {}", told.says);
            assert!(!target.exists(), "{name}");
        }
    }
    assert_eq!(super::files_in(&vm), ["a.ova", "link.raw", "up"]);
}
