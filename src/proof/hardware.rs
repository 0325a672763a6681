//! The virtual hardware of a trial as arguments of QEMU: the target's own, as its tools would set it up, or what the user
//! names; with nothing that leads out of the machine: no route, no file of the host, handles only.
//!
//! Deliberately absent: devices that QEMU does not have (Hyper-V's, Xen's, LSI Logic parallel). [`check`] refuses them.

use crate::hypervisor::attach;
use crate::machine::{Clock, Machine};
use landfall_boot::sandbox::Accelerator;
use landfall_boot::target::{DiskModel, Firmware, NicModel, Platform};
use landfall_image::{Bytes, Error, Result};
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

/// MiB of memory for a trial of this machine, on a host that has so much left: three quarters of it at most (but for the least that a system
/// needs), so that it is not the host that ends the trial.
pub fn memory_mib(machine: &Machine, available: Option<Bytes>) -> u64 {
    let left = available.map_or(u64::MAX, |available| (available.0 >> 20) / 4 * 3);
    (machine.memory.0 >> 20).min(MEMORY_AT_MOST_MIB).min(left).max(MEMORY_AT_LEAST_MIB)
}

/// Devices by name: `pvscsi,vmxnet3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// What all disks hang on.
    pub disk: DiskModel,
    /// All network cards.
    pub card: NicModel,
}

/// Disks that QEMU has, each with the card that usually comes with it.
const DISKS: &[(DiskModel, NicModel)] = &[
    (DiskModel::VirtioBlk, NicModel::VirtioNet),
    (DiskModel::VirtioScsi, NicModel::VirtioNet),
    (DiskModel::Pvscsi, NicModel::Vmxnet3),
    (DiskModel::Lsi, NicModel::E1000e),
    (DiskModel::Sata, NicModel::E1000e),
    (DiskModel::Ide, NicModel::E1000),
    (DiskModel::Nvme, NicModel::E1000e),
];

/// Cards that QEMU has, with its name for them, and whether they are PCI Express.
const CARDS: &[(NicModel, &str, bool)] = &[
    (NicModel::VirtioNet, "virtio-net-pci", true),
    (NicModel::Vmxnet3, "vmxnet3", true),
    (NicModel::E1000e, "e1000e", true),
    (NicModel::E1000, "e1000", false),
    (NicModel::Rtl8139, "rtl8139", false),
];

impl Hardware {
    /// `DISK` or `DISK,NIC`.
    pub fn parse(text: &str) -> std::result::Result<Hardware, String> {
        let (disk, card) = text.split_once(',').map_or((text, None), |(disk, card)| (disk, Some(card)));
        let (disk, usual) = DISKS.iter().find(|(model, _)| model.name() == disk).ok_or_else(|| {
            let names: Vec<_> = DISKS.iter().map(|(model, _)| model.name()).collect();
            format!("disks are {}", names.join(", "))
        })?;
        let Some(card) = card else { return Ok(Hardware { disk: *disk, card: *usual }) };
        let card = CARDS.iter().find(|(model, ..)| model.name() == card).ok_or_else(|| {
            let names: Vec<_> = CARDS.iter().map(|(model, ..)| model.name()).collect();
            format!("cards are {}", names.join(", "))
        })?;
        Ok(Hardware { disk: *disk, card: card.0 })
    }

    /// The machine on these devices.
    pub fn apply(self, machine: &Machine) -> Machine {
        attach::on(machine, Platform::Kvm, self.disk, self.card)
    }
}

impl std::fmt::Display for Hardware {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{},{}", self.disk.name(), self.card.name())
    }
}

/// The card of a name; old reports call virtio's as libvirt does.
fn card(model: Option<&str>) -> Option<&'static (NicModel, &'static str, bool)> {
    let name = model.filter(|name| *name != "virtio").unwrap_or(NicModel::VirtioNet.name());
    CARDS.iter().find(|(model, ..)| model.name() == name)
}

/// Disks that hang on one controller, where there is a bound.
fn at_most(model: DiskModel) -> usize {
    match model {
        DiskModel::Ide => 4,
        DiskModel::Sata => 6,
        DiskModel::Lsi => 8,
        _ => 64,
    }
}

/// Refuses a machine whose devices QEMU does not have, or whose trial would say nothing about the guest.
///
/// # Errors
/// `Unsupported`, with what can be proven instead.
pub fn check(machine: &Machine) -> Result<()> {
    let instead = "prove it on other devices with --hardware sata,e1000e: everything but the drivers of the target is seen \
                   to work; that those are in every initramfs, the report says (edits, \"add drivers\")";
    for disk in &machine.disks {
        let model = attach::model(disk);
        if model.is_none_or(|model| DISKS.iter().all(|(known, _)| *known != model)) {
            let name = model.map_or("controller", DiskModel::name);
            return Err(Error::unsupported(format!(
                "{} is on {name}, and QEMU has no such disks",
                disk.slot
            ))
            .hint(instead));
        }
        // Debian's and Red Hat's builds of OVMF leave both drivers out.
        let is_unseen = matches!(model, Some(DiskModel::Lsi | DiskModel::Pvscsi));
        if let Some(model) = model.filter(|_| is_unseen && machine.firmware == Firmware::Uefi) {
            return Err(Error::unsupported(format!(
                "the UEFI firmware for QEMU has no driver for {} disks: the trial would say nothing about the guest",
                model.name()
            ))
            .hint("prove it with --hardware sata,e1000e or nvme,e1000e"));
        }
        if model == Some(DiskModel::Ide) && machine.secure_boot {
            return Err(Error::unsupported("QEMU's machine with IDE has no secure boot")
                .hint("prove it with --hardware sata,e1000e"));
        }
        let is_ata = matches!(model, Some(DiskModel::Sata | DiskModel::Ide));
        if let Some(size) = disk.sector_size.filter(|_| is_ata) {
            return Err(Error::unsupported(format!(
                "{} has sectors of {} bytes, and QEMU's ATA disks have 512",
                disk.slot, size.0
            ))
            .hint("prove it with --hardware virtio-scsi,virtio-net"));
        }
        if let Some(most) = model.map(at_most).filter(|most| machine.disks.len() > *most) {
            return Err(Error::unsupported(format!(
                "has more than the {most} disks that fit on this controller"
            ))
            .hint("prove it with --hardware virtio-scsi,virtio-net"));
        }
    }
    for nic in &machine.nics {
        if card(nic.model.as_deref()).is_none() {
            let name = nic.model.as_deref().unwrap_or("?");
            return Err(Error::unsupported(format!(
                "{} is of the type {name}, and QEMU has no such card",
                nic.slot
            ))
            .hint(instead));
        }
    }
    Ok(())
}

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

/// QEMU's arguments for a machine with that much memory, and the devices in words.
pub fn arguments(
    machine: &Machine,
    memory_mib: u64,
    accelerator: Accelerator,
    uefi: Option<&Uefi>,
    handles: &Handles,
) -> (Vec<String>, Vec<String>) {
    let mut args: Vec<String> = Vec::new();
    let mut devices = Vec::new();
    let mut add = |name: &str, value: String| args.extend([format!("-{name}"), value]);
    let smm = if machine.secure_boot { ",smm=on" } else { "" };
    let board = Board::of(machine);
    let board_name = board.name();
    match accelerator {
        Accelerator::Kvm => {
            add("machine", format!("{board_name},accel=kvm{smm}"));
            add("cpu", "host".into());
        }
        Accelerator::Tcg => {
            add("machine", format!("{board_name},accel=tcg{smm}"));
            // QEMU 7.2 panics Linux 6.12 at random with cmpxchg16b.
            add("cpu", "max,cx16=off".into());
        }
    }
    let cpus = machine.cpus.count.clamp(1, CPUS_AT_MOST);
    add("smp", format!("{cpus}"));
    add("m", format!("{memory_mib}M"));
    let own_mib = machine.memory.0 >> 20;
    if memory_mib < own_mib {
        // A guest that fails for want of it would look like one that does not boot.
        devices.push(format!("{memory_mib} MiB of memory, of its {own_mib}"));
    }
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
    let mut slots = Slots { board, ports: 0, plain: 0, args: Vec::new() };
    controller(machine, &mut slots);
    for (index, (disk, fd)) in machine.disks.iter().zip(&handles.disks).enumerate() {
        slots.add(
            "blockdev",
            format!("driver=nbd,node-name=disk{index},export=,discard=unmap,server.type=fd,server.str={fd}"),
        );
        let model = attach::model(disk).unwrap_or(DiskModel::VirtioBlk);
        attach_disk(model, disk.sector_size, index, index == machine.boot_disk(), &mut slots);
        devices.push(format!("{} on {}", disk.slot, model.name()));
    }
    for (index, nic) in machine.nics.iter().enumerate() {
        // A network of one: it answers DHCP and leads nowhere.
        slots.add("netdev", format!("user,id=net{index},restrict=on"));
        let mac = nic.mac.as_ref().map(|mac| format!(",mac={mac}")).unwrap_or_default();
        let (model, name, express) =
            card(nic.model.as_deref()).unwrap_or(&(NicModel::VirtioNet, "virtio-net-pci", true));
        let bus = if *express { slots.express() } else { slots.plain() };
        slots.add("device", format!("{name},netdev=net{index},{bus},romfile={mac}"));
        devices.push(format!("{} on {}", nic.mac.as_deref().unwrap_or("a network card"), model.name()));
    }
    let bus = slots.express();
    slots.add("device", format!("virtio-rng-pci,{bus}"));
    args.append(&mut slots.args);
    let mut all: Vec<String> =
        ["-nodefaults", "-no-user-config", "-display", "none"].map(str::to_owned).into();
    all.extend(
        ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
            .map(str::to_owned),
    );
    all.extend(args);
    (all, devices)
}

/// QEMU's mainboards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Board {
    /// PCI Express, AHCI built in.
    Q35,
    /// PCI, IDE built in: the only one with that.
    I440fx,
}

impl Board {
    fn of(machine: &Machine) -> Board {
        let is_ide = machine.disks.iter().any(|disk| attach::model(disk) == Some(DiskModel::Ide));
        if is_ide { Board::I440fx } else { Board::Q35 }
    }

    fn name(self) -> &'static str {
        match self {
            Board::Q35 => "q35",
            Board::I440fx => "pc",
        }
    }
}

/// Arguments for devices, and the places that are taken.
struct Slots {
    board: Board,
    ports: usize,
    plain: usize,
    args: Vec<String>,
}

impl Slots {
    fn add(&mut self, name: &str, value: String) {
        self.args.extend([format!("-{name}"), value]);
    }

    /// A place for a PCI Express device: as libvirt does it, behind a root port of its own.
    fn express(&mut self) -> String {
        if self.board == Board::I440fx {
            return self.plain();
        }
        self.ports += 1;
        let (port, at) = (self.ports, self.ports - 1);
        let (slot, function) = (2 + at / 8, at % 8);
        let place = format!("addr={slot:#x}.{function:x},multifunction=on");
        self.add("device", format!("pcie-root-port,id=port{port},chassis={port},{place}"));
        format!("bus=port{port}")
    }

    /// A place for a PCI device, away from the root ports and the mainboard's own devices.
    fn plain(&mut self) -> String {
        self.plain += 1;
        match self.board {
            Board::Q35 => format!("bus=pcie.0,addr={:#x}", 0xf + self.plain),
            Board::I440fx => format!("bus=pci.0,addr={:#x}", 3 + self.plain),
        }
    }
}

/// The controller that all disks share, where they do.
fn controller(machine: &Machine, slots: &mut Slots) {
    match machine.disks.first().and_then(attach::model) {
        Some(DiskModel::VirtioScsi) => {
            let bus = slots.express();
            slots.add("device", format!("virtio-scsi-pci,id=scsi,{bus}"));
        }
        Some(DiskModel::Pvscsi) => {
            let bus = slots.express();
            slots.add("device", format!("pvscsi,id=scsi,{bus}"));
        }
        Some(DiskModel::Lsi) => {
            let bus = slots.plain();
            slots.add("device", format!("mptsas1068,id=scsi,{bus}"));
        }
        _ => {}
    }
}

fn attach_disk(model: DiskModel, sector: Option<Bytes>, index: usize, starts: bool, slots: &mut Slots) {
    let mut boot = if starts { ",bootindex=0".to_owned() } else { String::new() };
    if let Some(Bytes(size)) = sector {
        boot += &format!(",logical_block_size={size},physical_block_size={size}");
    }
    let common = format!("drive=disk{index},werror=report,rerror=report{boot}");
    let device = match model {
        // By this it says who it is, as libvirt's disks do: multipathd takes no others.
        DiskModel::VirtioScsi => {
            format!("scsi-hd,bus=scsi.0,scsi-id={index},device_id=drive-scsi0-0-0-{index},{common}")
        }
        DiskModel::Pvscsi => format!("scsi-hd,bus=scsi.0,scsi-id={index},{common}"),
        // A SAS disk has a world-wide name, or the guest's driver does not take it.
        DiskModel::Lsi => {
            let name = 0x5000_c500_0000_0000_u64 + index as u64;
            format!("scsi-hd,bus=scsi.0,scsi-id={index},wwn={name:#x},{common}")
        }
        DiskModel::Sata => format!("ide-hd,bus=ide.{index},{common}"),
        DiskModel::Ide => format!("ide-hd,bus=ide.{},unit={},{common}", index / 2, index % 2),
        DiskModel::Nvme => {
            let bus = slots.express();
            format!("nvme,drive=disk{index},serial=disk{index},{bus}{boot}")
        }
        DiskModel::VirtioBlk | DiskModel::LsiParallel | DiskModel::Vmbus | DiskModel::Xen => {
            let bus = slots.express();
            format!("virtio-blk-pci,{bus},{common}")
        }
    };
    slots.add("device", device);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(disks: usize) -> Machine {
        let mut text = "config.version = \"8\"\nethernet0.present=TRUE\nethernet0.address=00:50:56:20:30:40\nscsi0.present = TRUE\n".to_owned();
        for n in 0..disks {
            text += &format!("scsi0:{n}.present = TRUE\nscsi0:{n}.fileName = \"{n}.vmdk\"\n");
        }
        crate::hypervisor::vmware::vmx::parse(text.as_bytes(), &Default::default()).unwrap().machine
    }

    fn handles(disks: i32) -> Handles {
        Handles {
            qmp: 10,
            console: 11,
            probe: 12,
            variables: None,
            screenshot: 14,
            disks: (20..20 + disks).collect(),
        }
    }

    #[test]
    fn names_of_hardware() {
        for (text, expected) in [
            ("virtio-blk", "virtio-blk,virtio-net"),
            ("pvscsi", "pvscsi,vmxnet3"),
            ("lsi,e1000e", "lsi,e1000e"),
            ("sata,virtio-net", "sata,virtio-net"),
        ] {
            assert_eq!(Hardware::parse(text).unwrap().to_string(), expected);
        }
        for bad in ["", "vmbus", "lsi-parallel", "pvscsi,", "pvscsi,netvsc", "xen,xen", "sata,e1000e,x"] {
            assert!(Hardware::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_trial_leaves_the_host_some_memory() {
        let mib = |own: u64, available: Option<u64>| {
            let machine = Machine { memory: Bytes::mib(own), ..machine(1) };
            memory_mib(&machine, available.map(Bytes::mib))
        };
        for (own, available, expected) in [
            (2048, None, 2048),
            (65536, None, 4096),
            (128, None, 512),
            (2048, Some(64 << 10), 2048),
            (65536, Some(2000), 1500),
            (65536, Some(100), 512),
        ] {
            assert_eq!(mib(own, available), expected, "{own} {available:?}");
        }
        // What is taken away is told.
        let machine = Machine { memory: Bytes::gib(64), ..machine(1) };
        let told = |mib| arguments(&machine, mib, Accelerator::Tcg, None, &handles(1)).1.join(", ");
        assert!(told(1500).contains("1500 MiB of memory, of its 65536"), "{}", told(1500));
        assert!(!told(65536).contains("MiB"));
    }

    /// The devices of every kind of hardware, as QEMU gets them.
    #[test]
    fn every_kind_of_hardware() {
        let mut all = String::new();
        for (disk, card) in DISKS {
            let machine = Hardware { disk: *disk, card: *card }.apply(&machine(2));
            check(&machine).unwrap();
            let (args, devices) = arguments(&machine, 512, Accelerator::Tcg, None, &handles(2));
            all += &format!("{}: {}\n", disk.name(), devices.join(", "));
            let values = args.chunks(2).filter(|pair| ["-machine", "-device"].contains(&pair[0].as_str()));
            all.extend(values.map(|pair| format!("  {} {}\n", pair[0], pair[1])));
        }
        insta::assert_snapshot!(all);
    }

    /// QEMU itself takes each of them, with more disks than one bus has places. It is stopped before the first instruction.
    #[test]
    fn qemu_has_every_device() {
        use std::io::Write;
        use std::process::{Command, Stdio};
        for (disk, card) in DISKS {
            let mut machine = Hardware { disk: *disk, card: *card }.apply(&machine(4));
            machine.disks[1].sector_size =
                (!matches!(disk, DiskModel::Sata | DiskModel::Ide)).then_some(Bytes(4096));
            let (args, _) = arguments(&machine, 512, Accelerator::Tcg, None, &handles(4));
            let mut command = Command::new("qemu-system-x86_64");
            command.args(["-nodefaults", "-display", "none", "-S", "-monitor", "stdio"]);
            let mut node = 0;
            for pair in args.windows(2) {
                match pair[0].as_str() {
                    "-machine" | "-cpu" | "-m" | "-smp" | "-vga" | "-netdev" | "-device" => {
                        command.args(pair);
                    }
                    "-blockdev" => {
                        command
                            .arg("-blockdev")
                            .arg(format!("driver=null-co,node-name=disk{node},size=1048576"));
                        node += 1;
                    }
                    _ => {}
                }
            }
            let started = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
            let mut qemu = match started {
                Ok(qemu) => qemu,
                Err(error) => {
                    eprintln!("SKIPPED: qemu-system-x86_64 cannot be run, so no device was tried: {error}");
                    return;
                }
            };
            qemu.stdin.take().unwrap().write_all(b"quit\n").unwrap();
            let output = qemu.wait_with_output().unwrap();
            let says = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && says.is_empty(), "{}: {says}", disk.name());
        }
    }

    /// A partition table in sectors of 4096 bytes is not found in others.
    #[test]
    fn disks_keep_their_sectors() {
        for (disk, card) in DISKS {
            let mut machine = Hardware { disk: *disk, card: *card }.apply(&machine(2));
            machine.disks[1].sector_size = Some(Bytes(4096));
            if matches!(disk, DiskModel::Sata | DiskModel::Ide) {
                assert!(check(&machine).unwrap_err().hint_text().unwrap().contains("virtio-scsi"));
                continue;
            }
            check(&machine).unwrap();
            let (args, _) = arguments(&machine, 512, Accelerator::Tcg, None, &handles(2));
            let with: Vec<_> = args.iter().filter(|arg| arg.contains("logical_block_size=4096")).collect();
            assert!(with.len() == 1 && with[0].contains("drive=disk1"), "{with:?}");
        }
    }

    #[test]
    fn what_qemu_does_not_have_is_refused_with_a_way_out() {
        for platform in [Platform::Hyperv, Platform::Azure, Platform::Xen] {
            let machine = attach::adapt(&machine(1), platform, &Default::default()).unwrap();
            let error = check(&machine).unwrap_err();
            assert!(error.hint_text().unwrap().contains("--hardware"), "{error}");
        }
        for unseen in ["lsi", "pvscsi"] {
            let mut uefi = Hardware::parse(unseen).unwrap().apply(&machine(1));
            uefi.firmware = Firmware::Uefi;
            assert!(check(&uefi).unwrap_err().to_string().contains(unseen));
        }
        let mut secure = Hardware::parse("ide").unwrap().apply(&machine(1));
        (secure.firmware, secure.secure_boot) = (Firmware::Uefi, true);
        assert!(check(&secure).is_err());
        assert!(check(&Hardware::parse("ide").unwrap().apply(&machine(5))).is_err());
        // A report of an earlier version.
        let mut old = Hardware::parse("virtio-blk").unwrap().apply(&machine(1));
        old.disks[0].controller = None;
        old.nics[0].model = Some("virtio".into());
        check(&old).unwrap();
    }
}
