//! Firmware by disk controller by network card: each boots to its console. Minutes each without KVM, so it is `make matrix`.

use super::boot::{Disks, UP_WITHIN, free_port};
use super::image;
use crate::boots::place;
use std::path::Path;
use std::time::Instant;

/// Controllers, with what QEMU is told; `{}` is the drive and its place in the order.
const CONTROLLERS: &[(&str, &[&str])] = &[
    ("virtio-blk", &["-device", "virtio-blk-pci,{}"]),
    ("virtio-scsi", &["-device", "virtio-scsi-pci", "-device", "scsi-hd,{}"]),
    ("pvscsi", &["-device", "pvscsi", "-device", "scsi-hd,{}"]),
    ("lsi", &["-device", "lsi53c895a", "-device", "scsi-hd,{}"]),
    ("mptsas", &["-device", "mptsas1068", "-device", "scsi-hd,wwn=0x5000c500a0000001,{}"]),
    ("megasas", &["-device", "megasas", "-device", "scsi-hd,{}"]),
    ("ahci", &["-device", "ich9-ahci,id=sata", "-device", "ide-hd,bus=sata.0,{}"]),
    ("ide", &["-device", "ide-hd,bus=ide.0,{}"]),
    ("nvme", &["-device", "nvme,serial=landfall,{}"]),
];

const CARDS: [&str; 3] = ["virtio-net-pci", "vmxnet3", "e1000e"];

/// What starts from what: Debian 12's SeaBIOS and OVMF. OVMF sees none of the disks on the controllers below, whatever is on them.
fn can_start(firmware: &str, controller: &str) -> bool {
    match firmware {
        "bios" => true,
        // Secure boot is enforced on Q35 only, which has no IDE.
        "secure" if controller == "ide" => false,
        _ => !matches!(controller, "pvscsi" | "lsi" | "mptsas" | "megasas"),
    }
}

pub fn firmware(name: &str, controller: &str, folder: &Path) -> Option<Vec<String>> {
    let ovmf = Path::new("/usr/share/OVMF");
    let (code, variables) = match name {
        "bios" => return Some(vec!["-machine".into(), "pc".into()]),
        "uefi" => ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
        _ => ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"),
    };
    let own = folder.join(format!("{name}-vars.fd"));
    if std::fs::copy(ovmf.join(variables), &own).is_err() {
        eprintln!("SKIPPED: the appliance's matrix: no {variables} here");
        return None;
    }
    let mut args: Vec<String> =
        ["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]
            .map(str::to_owned)
            .to_vec();
    if name == "uefi" {
        let machine = if controller == "ide" { "pc" } else { "q35" };
        args = vec!["-machine".into(), machine.into()];
    }
    args.extend([
        "-drive".into(),
        format!("if=pflash,unit=0,format=raw,readonly=on,file={}", ovmf.join(code).display()),
        "-drive".into(),
        format!("if=pflash,unit=1,format=raw,file={}", own.display()),
    ]);
    Some(args)
}

fn comes_up(name: &str) {
    let Some(image) = image() else { return };
    let mut failed = Vec::new();
    for (index, (controller, args)) in
        CONTROLLERS.iter().enumerate().filter(|(_, (controller, _))| can_start(name, controller))
    {
        let _place = place();
        let disks = Disks::new(&image);
        let Some(mut more) = firmware(name, controller, disks.folder.path()) else { return };
        more.extend(args.iter().map(|arg| arg.replace("{}", "drive=system,bootindex=0")));
        let card = CARDS[index % CARDS.len()];
        let ports = [free_port(), free_port()];
        let began = Instant::now();
        let mut machine = disks.start_on(card, ports, &more, false);
        match machine.wait_for("Status", UP_WITHIN) {
            Ok(()) => println!("{name:6} {controller:12} {card:15} {:.1} s", began.elapsed().as_secs_f64()),
            Err(says) => failed.push(format!("{name} {controller} {card}: {says}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
#[ignore = "takes ten minutes: make matrix"]
fn it_comes_up_by_bios() {
    comes_up("bios");
}

#[test]
#[ignore = "takes five minutes: make matrix"]
fn it_comes_up_by_uefi() {
    comes_up("uefi");
}

#[test]
#[ignore = "takes five minutes: make matrix"]
fn it_comes_up_with_secure_boot() {
    comes_up("secure");
}
