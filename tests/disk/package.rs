//! OVA packages as a kind that is written, beyond what every kind inherits; and the controllers that disks are made for.

use super::pairs::file_name;
use super::program::{files_in, landfall, measured};
use landfall_image::formats::KINDS;
use landfall_image::testing::noise_bytes;
use landfall_image::{Format, ova};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Runs the program: exit code, and what it says.
fn run(arguments: &[&str], paths: &[&Path]) -> (Option<i32>, String) {
    let (output, _) = measured(landfall(arguments, paths));
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), String::from_utf8_lossy(&all).into_owned())
}

/// The attributes of the first element of that name.
fn attributes(xml: &str, element: &str) -> std::collections::BTreeMap<String, String> {
    let mut reader = quick_xml::Reader::from_str(xml);
    loop {
        match reader.read_event().expect("well-formed") {
            quick_xml::events::Event::Start(e) | quick_xml::events::Event::Empty(e)
                if e.local_name().as_ref() == element.as_bytes() =>
            {
                let pair = |a: quick_xml::events::attributes::Attribute<'_>| {
                    let name = String::from_utf8(a.key.local_name().as_ref().to_vec()).unwrap();
                    (name, a.unescape_value().unwrap().into_owned())
                };
                return e.attributes().map(|a| pair(a.unwrap())).collect();
            }
            quick_xml::events::Event::Eof => panic!("no {element} in {xml}"),
            _ => {}
        }
    }
}

/// Texts of all elements of that name.
fn texts(xml: &str, element: &str) -> Vec<String> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut out = Vec::new();
    loop {
        match reader.read_event().expect("well-formed") {
            quick_xml::events::Event::Start(e) if e.local_name().as_ref() == element.as_bytes() => {
                let end = e.to_end().into_owned();
                let text = reader.read_text(end.name()).expect("a text");
                out.push(quick_xml::escape::unescape(&text).unwrap().into_owned());
            }
            quick_xml::events::Event::Eof => return out,
            _ => {}
        }
    }
}

/// Many disks, a package each: the descriptor first and true, digests right, the content the same.
#[test]
fn each_of_many_disks_becomes_a_package_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let sources = ["web 01.raw", "größe <&\".raw"].map(|name| folder.path().join(name));
    let sizes = [5u64 << 20, (3 << 20) + 512];
    for (n, (source, size)) in sources.iter().zip(sizes).enumerate() {
        std::fs::write(source, noise_bytes(n as u64 + 1, usize::try_from(size).unwrap())).unwrap();
    }
    let (code, says) = run(&["disk", "convert", "-f", "raw", "-O", "ova"], &[&sources[0], &sources[1], &out]);
    assert_eq!(code, Some(0), "{says}");
    assert_eq!(files_in(&out), ["größe <&\".ova", "web 01.ova"]);
    let stems = ["web_01", "gr__e____"];
    for ((source, size), stem) in sources.iter().zip(sizes).zip(stems) {
        let path = out.join(source.with_extension("ova").file_name().unwrap());
        let package = ova::Package::open(&path).unwrap();
        let names: Vec<_> = package.members().iter().map(|member| member.name.as_str()).collect();
        let disk = format!("{stem}-disk1.vmdk");
        assert_eq!(names, [format!("{stem}.ovf"), disk.clone(), format!("{stem}.mf")]);
        // The digests by another's hand.
        let bytes = std::fs::read(&path).unwrap();
        let content = |n: usize| {
            let member = &package.members()[n];
            let start = usize::try_from(member.at.0).unwrap();
            &bytes[start..start + usize::try_from(member.len.0).unwrap()]
        };
        let sum = |n: usize| format!("SHA256({})= {:x}\n", names[n], Sha256::digest(content(n)));
        assert_eq!(std::str::from_utf8(content(2)).unwrap(), sum(0) + &sum(1));
        let (_, xml) = package.descriptor().unwrap();
        let file = attributes(&xml, "File");
        assert_eq!(file["href"], disk);
        assert_eq!(file["size"], package.members()[1].len.0.to_string());
        let described = attributes(&xml, "Disk");
        assert_eq!(described["fileRef"], file["id"]);
        assert_eq!(
            (&*described["capacity"], &*described["capacityAllocationUnits"]),
            (&*size.to_string(), "byte")
        );
        assert!(described["populatedSize"].parse::<u64>().unwrap() == size, "noise has no holes");
        assert_eq!(texts(&xml, "HostResource"), [format!("ovf:/disk/{}", described["diskId"])]);
        assert_eq!(texts(&xml, "Name"), [source.file_stem().unwrap().to_str().unwrap()]);
        assert_eq!(attributes(&xml, "OperatingSystemSection")["id"], "1", "not known");
        // Processor, memory, controller, disk: no more is claimed.
        assert_eq!(texts(&xml, "ResourceType"), ["3", "4", "6", "17"]);
        let (code, says) = run(&["disk", "compare", "-f", "raw"], &[source, &path]);
        assert_eq!(code, Some(0), "{says}");
        let (code, says) = run(&["disk", "check"], &[&path]);
        assert_eq!(code, Some(0), "{says}");
    }
    let (code, says) = run(&["disk", "convert", "-f", "raw", "-O", "ova"], &[&sources[0], &out]);
    assert_eq!(code, Some(1), "{says}");
    assert!(says.contains("exists already"), "{says}");
}

/// What a package cannot honour is refused by name before anything is written.
#[test]
fn options_that_a_package_does_not_take_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    std::fs::write(&source, noise_bytes(1, 1 << 20)).unwrap();
    let base = source.to_str().unwrap();
    for (options, word) in [
        (&["--compress", "zstd"][..], "zstd"),
        (&["--block-size", "64K"], "unit of allocation"),
        (&["--extended-l2"], "L2"),
        (&["--preallocate", "full"], "preallocated"),
        (&["--base", base, "-F", "raw"], "differencing"),
        (&["--level", "99"], "level"),
    ] {
        let target = folder.path().join("out.ova");
        let arguments = [&["disk", "convert", "-f", "raw"], options].concat();
        let (code, says) = run(&arguments, &[&source, &target]);
        assert_eq!(code, Some(1), "{options:?}: {says}");
        assert!(says.contains("out.ova") && says.contains(word), "{options:?}: {says}");
        assert!(says.contains("hint: ") || says.contains("are possible"), "{options:?}: {says}");
        assert_eq!(files_in(folder.path()), ["source.raw"], "{options:?}");
    }
}

/// In the descriptor of every kind of VMDK and in the hardware of a package; every other kind refuses it by name.
#[test]
fn a_disk_is_made_for_the_controller_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    std::fs::write(&source, noise_bytes(1, 8 << 20)).unwrap();
    // Option, what VMware's descriptors say, type and subtype in a package.
    let adapters = [
        ("lsilogic", "lsilogic", "6", Some("lsilogic")),
        ("buslogic", "buslogic", "6", Some("buslogic")),
        ("ide", "ide", "5", None),
        ("pvscsi", "lsilogic", "6", Some("VirtualSCSI")),
    ];
    for kind in KINDS {
        for (adapter, word, number, subtype) in adapters {
            let own = folder.path().join("own");
            std::fs::create_dir(&own).unwrap();
            let target = own.join(file_name(kind));
            let arguments = ["disk", "convert", "-f", "raw", "-O", kind.name, "--adapter", adapter];
            let (code, says) = run(&arguments, &[&source, &target]);
            if kind.format != Format::Vmdk {
                assert_eq!(code, Some(1), "{}: {says}", kind.name);
                let named = format!("{} names no disk controller", kind.name);
                assert!(says.contains(&named) && says.contains("hint: "), "{says}");
                assert_eq!(files_in(&own), [""; 0], "{}", kind.name);
                std::fs::remove_dir_all(&own).unwrap();
                continue;
            }
            assert_eq!(code, Some(0), "{}: {says}", kind.name);
            let (code, says) = run(&["disk", "info"], &[&target]);
            assert_eq!(code, Some(0), "{says}");
            assert!(says.contains(&format!("adapterType: {word}\n")), "{} {adapter}: {says}", kind.name);
            let image = super::pairs::unpacked(kind, &target).unwrap_or(target.clone());
            let bytes = std::fs::read(&image).unwrap();
            let line = format!("ddb.adapterType = \"{word}\"\n");
            let there = bytes.windows(line.len()).any(|part| part == line.as_bytes());
            assert!(there, "{} {adapter}: another descriptor", kind.name);
            if super::readers::have_qemu() && image.extension().is_some_and(|ending| ending == "vmdk") {
                super::readers::qemu_img(&["info", "-f", "vmdk"], &[&image]);
            }
            if kind.name == "ova" {
                let (_, xml) = ova::Package::open(&target).unwrap().descriptor().unwrap();
                assert_eq!(texts(&xml, "ResourceType"), ["3", "4", number, "17"]);
                assert_eq!(texts(&xml, "ResourceSubType"), Vec::from_iter(subtype));
            }
            std::fs::remove_dir_all(&own).unwrap();
        }
    }
}

/// As people write it: options anywhere, and a word where a name is missing.
#[test]
fn options_may_stand_between_source_and_target() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    std::fs::write(&source, noise_bytes(1, 1 << 20)).unwrap();
    let target = folder.path().join("out.img");
    let mut command = landfall(&["disk", "convert"], &[&source]);
    command.args(["-O", "ova"]).arg(&target).args(["--jobs", "1"]);
    let (output, _) = measured(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(ova::Package::open(&target).is_ok());
    let (code, says) = run(&["disk", "convert"], &[&source]);
    assert_eq!(code, Some(1), "{says}");
    assert!(says.contains("source.raw: is the only name") && says.contains("hint: "), "{says}");
}
