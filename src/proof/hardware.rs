//! The target's virtual hardware as arguments of QEMU, as the target's own tools would set it up, but with nothing that
//! leads out of the machine: no route, no file of the host, handles only.

use crate::machine::{Bus, Clock, Machine};
use landfall_boot::sandbox::Accelerator;
use landfall_boot::target::Firmware;
use landfall_image::{Error, Result};
use std::path::{Path, PathBuf};

/// The handles that QEMU inherits, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handles {
    /// The machine protocol.
    pub qmp: i32,
    /// First serial line: the console.
    pub console: i32,
    /// Second serial line: the probe.
    pub probe: i32,
    /// UEFI's variable store, for reading and writing; `None` on BIOS.
    pub variables: Option<i32>,
    /// Where the screenshot goes.
    pub screenshot: i32,
    /// One connected NBD client socket per disk.
    pub disks: Vec<i32>,
}

/// Number of the file-descriptor set of the screenshot: `/dev/fdset/N`.
pub const SCREENSHOT_SET: u32 = 1;
const VARIABLES_SET: u32 = 2;

/// Memory and processors of a trial: enough for any system to reach its login, little enough for a busy host.
const MEMORY_AT_MOST_MIB: u64 = 4096;
const MEMORY_AT_LEAST_MIB: u64 = 512;
const CPUS_AT_MOST: u32 = 4;

/// UEFI firmware files of distributions: code, variables, and both again with secure boot enforced.
const FIRMWARE: &[[&str; 4]] = &[
    [
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
        "/usr/share/OVMF/OVMF_CODE_4M.ms.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
    ],
    [
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
        "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.secboot.fd",
    ],
    [
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
        "/usr/share/OVMF/OVMF_CODE.secboot.fd",
        "/usr/share/OVMF/OVMF_VARS.ms.fd",
    ],
];

/// Files of the firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uefi {
    /// Read-only.
    pub code: PathBuf,
    /// Template of the variable store.
    pub variables: PathBuf,
}

/// The UEFI firmware of this host, where the machine needs one.
pub fn firmware(machine: &Machine) -> Result<Option<Uefi>> {
    if machine.firmware == Firmware::Bios {
        return Ok(None);
    }
    for [code, variables, secure_code, secure_variables] in FIRMWARE {
        let (code, variables) =
            if machine.secure_boot { (secure_code, secure_variables) } else { (code, variables) };
        if Path::new(code).exists() && Path::new(variables).exists() {
            return Ok(Some(Uefi { code: code.into(), variables: variables.into() }));
        }
    }
    Err(Error::unsupported("there is no UEFI firmware for virtual machines on this host")
        .hint("apt install ovmf"))
}

/// QEMU's arguments, and the devices in words.
pub fn arguments(
    machine: &Machine,
    accelerator: Accelerator,
    uefi: Option<&Uefi>,
    handles: &Handles,
) -> (Vec<String>, Vec<String>) {
    let mut args: Vec<String> = Vec::new();
    let mut devices = Vec::new();
    let mut add = |name: &str, value: String| args.extend([format!("-{name}"), value]);
    let smm = if machine.secure_boot { ",smm=on" } else { "" };
    match accelerator {
        Accelerator::Kvm => {
            add("machine", format!("q35,accel=kvm{smm}"));
            add("cpu", "host".into());
        }
        Accelerator::Tcg => {
            add("machine", format!("q35,accel=tcg{smm}"));
            // QEMU 7.2 panics Linux 6.12 at random with cmpxchg16b.
            add("cpu", "max,cx16=off".into());
        }
    }
    let cpus = machine.cpus.count.clamp(1, CPUS_AT_MOST);
    add("smp", format!("{cpus}"));
    let memory = (machine.memory.0 >> 20).clamp(MEMORY_AT_LEAST_MIB, MEMORY_AT_MOST_MIB);
    add("m", format!("{memory}M"));
    add("rtc", format!("base={}", if machine.clock == Clock::LocalTime { "localtime" } else { "utc" }));
    if let Some(uuid) = machine.smbios.uuid {
        add("uuid", uuid.to_string());
    }
    if let Some(serial) = &machine.smbios.serial {
        add("smbios", format!("type=1,serial={}", serial.replace(',', ",,")));
    }
    if let (Some(uefi), Some(variables)) = (uefi, handles.variables) {
        let code = uefi.code.display().to_string().replace(',', ",,");
        add("add-fd", format!("fd={variables},set={VARIABLES_SET}"));
        add("blockdev", format!("driver=file,node-name=code,read-only=on,filename={code}"));
        add("blockdev", format!("driver=file,node-name=variables,filename=/dev/fdset/{VARIABLES_SET}"));
        add("machine", "pflash0=code,pflash1=variables".into());
        if machine.secure_boot {
            add("global", "driver=cfi.pflash01,property=secure,value=on".into());
        }
        devices.push(if machine.secure_boot { "UEFI with secure boot".into() } else { "UEFI".to_owned() });
    } else {
        devices.push("BIOS".to_owned());
    }
    add("add-fd", format!("fd={},set={SCREENSHOT_SET}", handles.screenshot));
    for (id, fd) in [("qmp", handles.qmp), ("console", handles.console), ("probe", handles.probe)] {
        add("chardev", format!("socket,id={id},fd={fd}"));
    }
    add("mon", "chardev=qmp,mode=control".into());
    add("serial", "chardev:console".into());
    add("serial", "chardev:probe".into());
    add("vga", "std".into());
    // As libvirt does it: every device behind a root port of its own.
    let mut ports = 0;
    let mut port = |add: &mut dyn FnMut(&str, String)| {
        ports += 1;
        add(
            "device",
            format!(
                "pcie-root-port,id=port{ports},chassis={ports},addr={:#x}.{:x},multifunction=on",
                2 + (ports - 1) / 8,
                (ports - 1) % 8
            ),
        );
        format!("port{ports}")
    };
    if machine.disks.iter().any(|disk| disk.bus == Bus::VirtioScsi) {
        let bus = port(&mut add);
        add("device", format!("virtio-scsi-pci,id=scsi,bus={bus}"));
    }
    for (index, (disk, fd)) in machine.disks.iter().zip(&handles.disks).enumerate() {
        add(
            "blockdev",
            format!("driver=nbd,node-name=disk{index},export=,discard=unmap,server.type=fd,server.str={fd}"),
        );
        let boot = if index == machine.boot_disk() { ",bootindex=0" } else { "" };
        let errors = "werror=report,rerror=report";
        match disk.bus {
            Bus::VirtioScsi => {
                add("device", format!("scsi-hd,bus=scsi.0,scsi-id={index},drive=disk{index},{errors}{boot}"));
                devices.push(format!("{} on virtio-scsi", disk.slot));
            }
            _ => {
                let bus = port(&mut add);
                add("device", format!("virtio-blk-pci,drive=disk{index},bus={bus},{errors}{boot}"));
                devices.push(format!("{} on virtio-blk", disk.slot));
            }
        }
    }
    for (index, nic) in machine.nics.iter().enumerate() {
        // A network of one: it answers DHCP and leads nowhere.
        add("netdev", format!("user,id=net{index},restrict=on"));
        let mac = nic.mac.as_ref().map(|mac| format!(",mac={mac}")).unwrap_or_default();
        let bus = port(&mut add);
        add("device", format!("virtio-net-pci,netdev=net{index},bus={bus},romfile={mac}"));
        devices.push(format!("{} on virtio-net", nic.mac.as_deref().unwrap_or("a network card")));
    }
    let bus = port(&mut add);
    add("device", format!("virtio-rng-pci,bus={bus}"));
    let mut all: Vec<String> =
        ["-nodefaults", "-no-user-config", "-display", "none"].map(str::to_owned).into();
    all.extend(
        ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
            .map(str::to_owned),
    );
    all.extend(args);
    (all, devices)
}
