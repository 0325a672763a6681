//! UEFI variables: a target whose firmware reads their format starts with the source's; for any other it is told that they stay.

use super::{Site, have_qemu_img, qemu_img};
use crate::boots::{guest, landfall, place, text};
use serde_json::Value;
use std::fs;
use std::path::Path;

const TEMPLATE: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// A distribution's variables with a mark in a place that is free in them.
fn variables() -> Option<Vec<u8>> {
    let Ok(mut bytes) = fs::read(TEMPLATE) else {
        eprintln!("SKIPPED: {TEMPLATE} is not here (Debian: ovmf)");
        return None;
    };
    let at = bytes.len() - 16;
    bytes[at..].copy_from_slice(b"landfall's mark.");
    Some(bytes)
}

/// libvirt's machine with UEFI, a disk and a file of variables.
fn domain(site: &Site, nvram: &str) -> std::path::PathBuf {
    fs::File::create(site.at("vm/disk.img")).unwrap().set_len(16 << 20).unwrap();
    let text = format!(
        "<domain type='kvm'><name>web01</name><memory unit='MiB'>512</memory>\
         <os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type>{nvram}</os>\
         <devices><disk type='file'><driver name='qemu' type='raw'/><source file='/v/disk.img'/>\
         <target dev='vda' bus='virtio'/></disk></devices></domain>"
    );
    let path = site.at("vm/web01.xml");
    fs::write(&path, text).unwrap();
    path
}

/// Which of the two findings an inspection has.
fn told(path: &Path, args: &[&str]) -> (Vec<String>, String) {
    let output = landfall().args(["--json", "inspect"]).arg(path).args(args).output().unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let all = value["findings"].as_array().into_iter().flatten();
    let ids = all.map(|finding| finding["id"].as_str().unwrap().to_owned());
    (ids.filter(|id| id.starts_with("nvram")).collect(), text(&output))
}

#[test]
fn variables_come_along_where_the_firmware_reads_them() {
    let Some(bytes) = variables() else { return };
    if !have_qemu_img() {
        return;
    }
    let site = Site::new();
    let path = domain(&site, "<nvram>/var/lib/libvirt/qemu/nvram/web01_VARS.fd</nvram>");
    let (carried, stays) = (["nvram-carried"], ["nvram-not-carried"]);
    // Not here.
    assert_eq!(told(&path, &["--to", "kvm"]).0, stays);
    let file = site.at("vm/web01_VARS.fd");
    fs::write(&file, &bytes).unwrap();
    for (target, expected) in
        [("kvm", carried), ("proxmox", carried), ("esxi", stays), ("hyperv", stays), ("openstack", stays)]
    {
        assert_eq!(told(&path, &["--to", target]).0, expected, "{target}");
    }
    // Recent libvirt keeps them in qcow2; a storage's volume is longer than they are.
    qemu_img(&site.at("vm"), &["convert", "-O", "qcow2", "web01_VARS.fd", "x.qcow2"]);
    fs::rename(site.at("vm/x.qcow2"), &file).unwrap();
    assert_eq!(told(&path, &[]).0, carried);
    let padded = [&bytes[..], &vec![0; (4 << 20) - bytes.len()]].concat();
    let elsewhere = site.at("elsewhere/vm-100-disk-0");
    fs::write(&elsewhere, padded).unwrap();
    fs::remove_file(&file).unwrap();
    let named = ["--nvram", elsewhere.to_str().unwrap()];
    assert_eq!(told(&path, &named).0, carried);
    // Those of firmware of another size, and what is none.
    let old = fs::read("/usr/share/OVMF/OVMF_VARS.fd").unwrap();
    fs::write(&file, old).unwrap();
    assert_eq!(told(&path, &[]).0, stays);
    fs::write(&file, vec![7; bytes.len()]).unwrap();
    assert_eq!(told(&path, &[]).0, stays);
    let (_, said) = told(&path, &["--nvram", file.to_str().unwrap()]);
    assert!(said.contains("holds no UEFI variables") && said.contains("OVMF"), "{said}");
    let mut damaged = bytes.clone();
    damaged[60] ^= 1;
    fs::write(&file, damaged).unwrap();
    let (_, said) = told(&path, &["--nvram", file.to_str().unwrap()]);
    assert!(said.contains("\"corrupt\"") && said.contains("adds up to"), "{said}");
    // With BIOS there are none.
    let vmx = site.at("vm/web01.vmx");
    let head = "config.version = \"8\"\ndisplayName = \"web01\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\n\
                scsi0:0.fileName = \"disk.img\"\nnvram = \"web01.nvram\"\n";
    fs::write(&vmx, head).unwrap();
    let (_, said) = told(&vmx, &["--nvram", file.to_str().unwrap()]);
    assert!(said.contains("starts by BIOS"), "{said}");
    // VMware's own go to VMware only.
    fs::write(&vmx, format!("{head}firmware = \"efi\"\n")).unwrap();
    fs::write(site.at("vm/web01.nvram"), b"MRVN\x01\0\0\0and so on").unwrap();
    for (target, expected) in [("kvm", stays), ("esxi", carried), ("ova", stays)] {
        assert_eq!(told(&vmx, &["--to", target]).0, expected, "{target}");
    }
}

/// What is written is what was read, and every file beside it goes by the name.
#[test]
fn the_written_machine_has_the_variables_of_the_source() {
    let _place = place();
    let Some(folder) = guest("trixie", "uefi-lvm-xfs") else { return };
    let Some(bytes) = variables() else { return };
    let site = Site::new();
    let file = site.at("it's/VARS & more.fd");
    fs::write(&file, &bytes).unwrap();
    for (target, definition, expected) in [
        ("kvm", "domain.xml", "<nvram>"),
        ("proxmox", "register.sh", "import-from=$here/uefi-variables.fd,efitype=4m"),
    ] {
        let out = site.at(target);
        let output = landfall()
            .arg("convert")
            .arg(folder.join("web01.vmx"))
            .args(["--to", target, "--nvram"])
            .arg(&file)
            .arg("-o")
            .arg(&out)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let out = out.join("web01");
        assert!(fs::read(out.join("uefi-variables.fd")).unwrap() == bytes);
        let written = fs::read_to_string(out.join(definition)).unwrap();
        assert!(written.contains(expected), "{written}");
        let manifest: Value = serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
        let digest = blake3::hash(&bytes).to_hex().to_string();
        let listed = manifest["files"].as_array().unwrap();
        assert!(
            listed.iter().any(|one| one["file"] == "uefi-variables.fd" && one["blake3"] == *digest),
            "{manifest:#}"
        );
    }
    let domain = fs::read_to_string(site.at("kvm/web01/domain.xml")).unwrap();
    assert!(
        domain.contains(&format!("{}</nvram>", site.at("kvm/web01/uefi-variables.fd").display())),
        "{domain}"
    );
}
