//! The disc: by independent readers, and machines that start from it.

use super::boot::{Disks, UP_WITHIN, certificates, free_port, issuer};
use super::matrix::firmware;
use super::{folder, image, text, tool};
use crate::boots::place;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// The disc of this run.
fn disc() -> Option<PathBuf> {
    Some(image()?.with_extension("iso"))
}

#[test]
fn independent_readers_agree_with_the_disc() {
    let Some(disc) = disc() else { return };
    let path = disc.to_str().unwrap();
    let wanted = [
        "/EFI/BOOT/grub.cfg",
        "/landfall/bios.img",
        "/landfall/efi.img",
        "/landfall/cd/vmlinuz",
        "/landfall/cd/initrd",
        "/landfall/root.squashfs",
    ];
    if let Some(out) = tool("isoinfo", &["-R", "-f", "-i", path]) {
        let listed = text(&out);
        for file in wanted {
            assert!(listed.lines().any(|line| line == file), "{file}: {listed}");
        }
    }
    if let Some(out) = tool("isoinfo", &["-d", "-i", path]) {
        let told = text(&out);
        assert!(told.contains("Volume id: LANDFALL_") && told.contains("Rock Ridge"), "{told}");
    }
    if let Some(out) =
        tool("xorriso", &["-indev", path, "-report_el_torito", "plain", "-find", "/", "-type", "f"])
    {
        let told = text(&out);
        assert!(told.contains("boot img :   1  BIOS  y   none"), "{told}");
        assert!(told.contains("boot img :   2  UEFI  y   none"), "{told}");
        assert!(told.contains("El Torito img path :   1  /landfall/bios.img"), "{told}");
        assert!(told.contains("'/landfall/root.squashfs'") && !told.contains("SORRY"), "{told}");
    }
    // As a disk: one partition, with what UEFI firmware starts.
    if let Some(out) = tool("fdisk", &["-l", "-o", "Boot,Start,Sectors,Id", path]) {
        let told = text(&out);
        let line = told.lines().next_back().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
        let ["*", start, sectors, "ef"] = line[..] else { panic!("{told}") };
        let efi = folder().join("efi.fat");
        let cut = Command::new("dd")
            .args(["bs=512", "status=none", &format!("skip={start}"), &format!("count={sectors}")])
            .args([format!("if={path}"), format!("of={}", efi.display())])
            .status();
        assert!(cut.unwrap().success());
        if let Some(out) = tool("fsck.fat", &["-n", efi.to_str().unwrap()]) {
            assert!(out.status.success(), "{}", text(&out));
        }
        if let Some(out) = tool("mdir", &["-/", "-b", "-i", efi.to_str().unwrap(), "::/"]) {
            assert!(text(&out).to_lowercase().contains("efi/boot/bootx64.efi"), "{}", text(&out));
        }
    }
    let root = folder().join("disc-root.squashfs");
    let _ = std::fs::remove_file(&root);
    let extract =
        ["-osirrox", "on", "-indev", path, "-extract", "/landfall/root.squashfs", root.to_str().unwrap()];
    if let Some(out) = tool("xorriso", &extract)
        && out.status.success()
        && let Some(out) = tool("unsquashfs", &["-ll", root.to_str().unwrap()])
    {
        let listed = text(&out);
        assert!(out.status.success() && listed.contains("squashfs-root/usr/bin/landfall"), "{listed:.2000}");
    }
    let _ = std::fs::remove_file(&root);
}

const DRIVE: &str = "file={},format=raw,if=none,id=cd,readonly=on";
const IDE: &[&str] = &["-drive", DRIVE, "-device", "ide-cd,drive=cd,bootindex=0"];
const USB: &[&str] =
    &["-device", "qemu-xhci", "-drive", DRIVE, "-device", "usb-storage,drive=cd,bootindex=0"];

/// How the disc is in the machine; `{}` is the disc's file.
const DRIVES: &[(&str, &str, &[&str])] = &[
    ("bios", "ide-cd", IDE),
    ("bios", "a USB stick", USB),
    ("uefi", "ahci", IDE),
    (
        "uefi",
        "virtio-scsi",
        &[
            "-device",
            "virtio-scsi-pci",
            "-drive",
            "file={},format=raw,if=none,id=cd,readonly=on",
            "-device",
            "scsi-cd,drive=cd,bootindex=0",
        ],
    ),
    ("uefi", "a USB stick", USB),
    ("secure", "ahci", IDE),
];

/// From each: a first start makes state and vault of the empty disk; power is lost, and the second one finds the same again.
#[test]
#[ignore = "takes a quarter of an hour: make matrix"]
fn it_comes_up_from_a_disc_and_again_after_a_lost_power() {
    let Some(disc) = disc() else { return };
    let only = std::env::var("LANDFALL_DISC").unwrap_or_default();
    let mut failed = Vec::new();
    for (name, drive, args) in
        DRIVES.iter().filter(|(name, drive, _)| format!("{name} {drive}").contains(&only))
    {
        let _place = place();
        let disks = Disks::new(&disc);
        let Some(mut more) = firmware(name, drive, disks.folder.path()) else { return };
        more.extend(args.iter().map(|arg| arg.replace("{}", disc.to_str().unwrap())));
        let ports = [free_port(), free_port()];
        let mut authorities = Vec::new();
        for start in ["first", "second"] {
            let began = Instant::now();
            let mut machine = disks.start_with("virtio-net-pci", ports, &more, true);
            if let Err(says) = machine.wait_for("Status", UP_WITHIN) {
                failed.push(format!("{name} {drive}, {start} start: {says}"));
                break;
            }
            println!("{name:6} {drive:12} {start:6} {:.1} s", began.elapsed().as_secs_f64());
            authorities.push(issuer(&certificates(ports[0], UP_WITHIN)));
        }
        if let [first, second] = &authorities[..]
            && (first != second || first.is_none())
        {
            failed.push(format!("{name} {drive}: {first:?}, and after the power was lost {second:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
