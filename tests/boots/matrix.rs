//! The boot matrix: guests of many layouts and releases, each converted once and tried on every virtual hardware that QEMU
//! has, before the pass and after it. `make matrix` runs it (hours of emulation without KVM) and leaves the table in
//! `target/matrix.md`, which the README shows; `MATRIX=noble make matrix` runs the guests whose names hold that.

use super::{comes_ashore, convert, convert_with, guest, landfall_for, place, prove, root, text};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Release and layout (see `tools/guests/`), what is worth telling of it, and the hardware that it is tried on.
const GUESTS: &[(&str, &str, &str, &[&str])] = &[
    ("bullseye", "bios-raid", "Debian 11, BIOS, GRUB, ext4 on md RAID1, ifupdown", HARDWARE),
    ("bookworm", "bios-ext4", "Debian 12, BIOS, GRUB, ext4, ifupdown", HARDWARE),
    (
        "bookworm",
        "bios-lvm",
        "Debian 12, BIOS, GRUB, ext4 on LVM, multipathd, two kernels, netplan",
        HARDWARE,
    ),
    ("bookworm", "uefi-luks", "Debian 12, UEFI, GRUB, ext4 in LUKS2, networkd", HARDWARE),
    ("trixie", "uefi-lvm-xfs", "Debian 13, UEFI, GRUB, XFS on LVM, ifupdown", HARDWARE),
    (
        "trixie",
        "uefi-btrfs",
        "Debian 13, UEFI, systemd-boot, dracut, btrfs subvolumes, NetworkManager",
        HARDWARE,
    ),
    ("forky", "uefi-lvm-xfs", "Debian 14 (testing), UEFI, GRUB, XFS on LVM, ifupdown", HARDWARE),
    ("bionic", "bios-netplan", "Ubuntu 18.04, BIOS, GRUB, ext4, netplan", HARDWARE),
    ("focal", "bios-netplan", "Ubuntu 20.04, BIOS, GRUB, ext4, netplan", HARDWARE),
    ("jammy", "uefi-lvm-xfs", "Ubuntu 22.04, UEFI, GRUB, XFS on LVM, ifupdown", HARDWARE),
    ("noble", "bios-netplan", "Ubuntu 24.04, BIOS, GRUB, ext4, netplan", HARDWARE),
    ("questing", "bios-netplan", "Ubuntu 25.10, BIOS, GRUB, ext4, netplan", HARDWARE),
    ("trixie", "uefi-uki", "Debian 13, UEFI, systemd-boot, unified kernel image, ext4, networkd", FEW_UEFI),
    (
        "trixie",
        "uefi-uki-alone",
        "Debian 13, UEFI, unified kernel image started by the firmware, ext4, networkd",
        FEW_UEFI,
    ),
    ("trixie", "uefi-secure", "Debian 13, UEFI with secure boot, shim and GRUB, ext4, ifupdown", FEW_UEFI),
    ("bookworm", "bios-btrfs", "Debian 12, BIOS, GRUB, / and /boot on btrfs subvolumes, ifupdown", FEW_BIOS),
    ("bookworm", "bios-extlinux", "Debian 12, BIOS, extlinux, ext4, ifupdown", FEW_BIOS),
    ("bookworm", "bios-thin", "Debian 12, BIOS, GRUB, ext4 on a thin LVM volume, ifupdown", FEW_BIOS),
    ("bookworm", "bios-second", "Debian 12, BIOS, GRUB and ext4 on the second disk, ifupdown", FEW_BIOS),
];

/// As `prove --hardware` takes them. The guests come from the first.
const HARDWARE: &[&str] = &[
    "pvscsi,vmxnet3",
    "virtio-blk,virtio-net",
    "virtio-scsi,virtio-net",
    "lsi,e1000e",
    "sata,e1000e",
    "ide,e1000",
    "nvme,virtio-net",
];

/// Where loader and volumes are what the guest is for: hardware that gives the disks other names, and hardware that is foreign in
/// another way.
const FEW_BIOS: &[&str] = &["virtio-blk,virtio-net", "lsi,e1000e"];
const FEW_UEFI: &[&str] = &["virtio-blk,virtio-net", "nvme,virtio-net"];

/// QEMU's own firmware cannot start from it, whatever the guest has.
const NO_FIRMWARE: &str = "no firmware";

/// One guest on one hardware.
struct Cell {
    /// How it went unpatched, and patched.
    before: String,
    after: String,
}

impl Cell {
    /// It boots now; where it did before, the trial shows less, and the table says so.
    fn shown(&self) -> String {
        match (self.before.as_str(), self.after.as_str()) {
            ("booted", "booted") => "yes (before, too)".to_owned(),
            (_, "booted") => "yes".to_owned(),
            (_, NO_FIRMWARE) => "–".to_owned(),
            (_, other) => format!("**no**: {other}"),
        }
    }
}

fn wanted(name: &str) -> bool {
    std::env::var("MATRIX").map_or(true, |filter| name.contains(&filter))
}

/// What came of a trial: `booted` (with its address, on its card), or why not.
fn trial(source: &Path, machine: &Path, evidence: &Path, more: &[&str]) -> String {
    let output = landfall_for(source)
        .args(["prove", "--timeout", "900", "-o"])
        .arg(evidence)
        .args(more)
        .arg(machine)
        .output()
        .unwrap();
    let Ok(proof) = fs::read(evidence.join("proof.json")) else {
        let refused = text(&output);
        return if refused.contains("firmware for QEMU has no driver") {
            NO_FIRMWARE.to_owned()
        } else {
            refused
        };
    };
    let proof: Value = serde_json::from_slice(&proof).unwrap();
    let outcome = proof["outcome"].as_str().unwrap_or_default();
    if outcome != "booted" {
        return format!("{outcome}: {}", proof["because"].as_str().unwrap_or_default());
    }
    let interface = &proof["guest"]["interfaces"][0];
    let has_address =
        |list: &Value| list.as_array().is_some_and(|all| all.iter().any(|a| a == "10.20.30.40/24"));
    match interface["name"] == "ens192" && has_address(&interface["addresses"]) {
        true => outcome.to_owned(),
        false => format!("booted without its address: {interface}"),
    }
}

#[test]
#[ignore = "hours of emulation: make matrix"]
fn every_guest_on_every_hardware() {
    let _place = place();
    let out = tempfile::tempdir_in(root().join("target")).unwrap();
    let mut guests = Vec::new();
    for (suite, layout, says, hardware) in GUESTS {
        let name = format!("{suite}-{layout}");
        if !wanted(&name) {
            continue;
        }
        let Some(source) = guest(suite, layout) else { continue };
        let folder = out.path().join(&name);
        convert(landfall_for(&source), "kvm", &source.join("web01.vmx"), &folder);
        guests.push((name, *says, source, folder.join("web01"), *hardware));
    }
    let cells: Vec<(usize, usize)> = (0..guests.len())
        .flat_map(|guest| (0..HARDWARE.len()).map(move |hardware| (guest, hardware)))
        .filter(|(guest, hardware)| guests[*guest].4.contains(&HARDWARE[*hardware]))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((guest, hardware)) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (name, _, source, converted, _) = &guests[*guest];
            let devices = HARDWARE[*hardware];
            let evidence = |when: &str| out.path().join(format!("{name}-{devices}-{when}"));
            let after = trial(source, converted, &evidence("after"), &["--hardware", devices]);
            let as_it_is = ["--to", "kvm", "--hardware", devices];
            let before = trial(source, &source.join("web01.vmx"), &evidence("before"), &as_it_is);
            eprintln!("{name} on {devices}: before: {before}; after: {after}");
            done.push(((*guest, *hardware), Cell { before, after }));
        }
        done
    };
    // One virtual machine has two processors, of which a start seldom uses more than one.
    let mut done = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    done.sort_by_key(|(place, _)| *place);
    let mut table = format!("| Guest | {} |\n|---{}|\n", HARDWARE.join(" | "), "|---".repeat(HARDWARE.len()));
    for (index, (_, says, ..)) in guests.iter().enumerate() {
        let shown = |hardware| {
            let cell = done.iter().find(|(place, _)| *place == (index, hardware));
            cell.map(|(_, cell)| cell.shown()).unwrap_or_default()
        };
        let row: Vec<String> = (0..HARDWARE.len()).map(shown).collect();
        let _ = writeln!(table, "| {says} | {} |", row.join(" | "));
    }
    fs::write(root().join("target/matrix.md"), &table).unwrap();
    eprintln!("{table}");
    assert!(!table.contains("**no**"), "{table}");
    for (guest, (name, ..)) in guests.iter().enumerate() {
        let failed_before = done
            .iter()
            .any(|((of, _), cell)| *of == guest && cell.before != "booted" && cell.after == "booted");
        assert!(failed_before, "{name} boots everywhere as it is: that proves nothing\n{table}");
    }
}

/// Both disks of the mirror are written alike, and mdadm's configuration looks at the new names.
#[test]
#[ignore = "the guest takes minutes to make: make matrix"]
fn a_guest_on_a_mirror_of_two_disks_comes_ashore() {
    let _place = place();
    let Some(seen) = comes_ashore("bullseye", "bios-raid") else { return };
    assert_eq!(seen["proof"]["guest"]["failed_units"], serde_json::json!([]), "{seen:#}");
}

#[test]
#[ignore = "the guest takes minutes to make: make matrix"]
fn a_guest_in_luks_comes_ashore() {
    let _place = place();
    let Some(seen) = comes_ashore("bookworm", "uefi-luks") else { return };
    assert!(seen["proof"]["guest"]["root"].as_str().unwrap().contains("root_crypt"), "{seen:#}");
}

/// systemd-boot, an initramfs of dracut on the ESP, NetworkManager.
#[test]
#[ignore = "the guest takes minutes to make: make matrix"]
fn a_guest_on_subvolumes_of_btrfs_comes_ashore() {
    let _place = place();
    let Some(seen) = comes_ashore("trixie", "uefi-btrfs") else { return };
    assert!(seen["proof"]["guest"]["root"].as_str().unwrap().contains("btrfs"), "{seen:#}");
}

/// The initramfs lies in one program with the kernel, beside the one in /boot.
#[test]
#[ignore = "the guest takes minutes to make: make matrix"]
fn a_guest_in_a_unified_kernel_image_comes_ashore() {
    let _place = place();
    let Some(seen) = comes_ashore("trixie", "uefi-uki") else { return };
    let edits = seen["report"]["edits"].as_array().unwrap();
    let image = |edit: &&Value| edit["path"].as_str().unwrap().ends_with(".efi");
    assert!(edits.iter().any(|edit| image(&edit)), "{edits:#?}");
}

/// Firmware, shim, GRUB and kernel check each other, and the kernel says so.
#[test]
#[ignore = "the guest takes minutes to make: make matrix"]
fn a_guest_with_secure_boot_comes_ashore() {
    let _place = place();
    let Some(source) = guest("trixie", "uefi-secure") else { return };
    let out = tempfile::tempdir_in(root().join("target")).unwrap();
    convert(landfall_for(&source), "kvm", &source.join("web01.vmx"), out.path());
    let (output, proof) = prove(&out.path().join("web01"), &[]);
    assert_eq!(proof["outcome"], "booted", "{}\n{proof:#}", text(&output));
    assert_eq!(proof["devices"][0], "UEFI with secure boot", "{proof:#}");
    let console = fs::read(out.path().join("web01/proof/serial.log")).unwrap();
    assert!(String::from_utf8_lossy(&console).contains("secureboot: Secure boot enabled"));
}

/// Neither the snapshot of / nor that of /boot is taken for the one in use.
#[test]
#[ignore = "the guest takes minutes to make: make matrix"]
fn a_guest_with_boot_on_a_subvolume_comes_ashore() {
    let _place = place();
    let Some(seen) = comes_ashore("bookworm", "bios-btrfs") else { return };
    assert!(seen["proof"]["guest"]["root"].as_str().unwrap().contains("btrfs"), "{seen:#}");
}

#[test]
#[ignore = "the guest takes minutes to make: make matrix"]
fn a_guest_of_extlinux_comes_ashore() {
    let _place = place();
    let Some(seen) = comes_ashore("bookworm", "bios-extlinux") else { return };
    assert!(seen["proof"]["guest"]["root"].as_str().unwrap().starts_with("/dev/vda1"), "{seen:#}");
}

#[test]
#[ignore = "the guest takes minutes to make: make matrix"]
fn a_guest_on_a_thin_volume_comes_ashore() {
    let _place = place();
    let Some(seen) = comes_ashore("bookworm", "bios-thin") else { return };
    assert!(seen["proof"]["guest"]["root"].as_str().unwrap().contains("vg0-root ext4"), "{seen:#}");
}

/// The definition that is written says which disk to start.
#[test]
#[ignore = "the guest takes minutes to make: make matrix"]
fn a_guest_with_its_loader_on_the_second_disk_comes_ashore() {
    let _place = place();
    let Some(seen) = comes_ashore("bookworm", "bios-second") else { return };
    assert!(seen["proof"]["guest"]["root"].as_str().unwrap().starts_with("/dev/vdb1"), "{seen:#}");
    assert_eq!(seen["proof"]["guest"]["failed_units"], serde_json::json!([]), "{seen:#}");
}

/// Both cards keep their names though the bond has the address of one of them, and the VLAN comes up with the address of
/// the other site.
#[test]
#[ignore = "the guest takes minutes to make: make matrix"]
fn a_guest_on_a_bond_comes_ashore_at_another_site() {
    let _place = place();
    let Some(source) = guest("noble", "bios-bond") else { return };
    let out = tempfile::tempdir_in(root().join("target")).unwrap();
    let map = out.path().join("map.toml");
    let rule = "[[rule]]\nsubnets = { \"10.20.30.0/24\" = \"10.99.30.0/24\" }\ngateway = \"10.99.30.1\"\n";
    fs::write(&map, rule).unwrap();
    let more = ["--to", "kvm", "--network-map", map.to_str().unwrap()];
    convert_with(landfall_for(&source), &more, &source.join("web01.vmx"), out.path());
    let folder = out.path().join("web01");
    for hardware in ["virtio-blk,virtio-net", "lsi,e1000e"] {
        let (output, proof) = prove(&folder, &["--hardware", hardware]);
        assert_eq!(proof["outcome"], "booted", "{}\n{proof:#}", text(&output));
        let interfaces = proof["guest"]["interfaces"].as_array().unwrap();
        let named = |name: &str| interfaces.iter().find(|interface| interface["name"] == name);
        assert!(
            named("ens192").is_some() && named("ens224").is_some() && named("bond0").is_some(),
            "{proof:#}"
        );
        let addresses = &named("vlan20").unwrap()["addresses"];
        assert!(addresses.as_array().unwrap().iter().any(|address| address == "10.99.30.40/24"), "{proof:#}");
    }
}
