//! The machine as QEMU's command line, in a script that needs no libvirt.
//!
//! Source: the manual page qemu(1), "Invocation", and `-device NAME,help`. PCI Express devices sit behind root ports, as libvirt
//! puts them, so that virtio devices are the modern kind there and here. What depends on the host (acceleration, firmware files,
//! networks, TPM) the script finds out when it runs.
//!
//! Deliberately absent: annotation and tags, which QEMU has no place for (domain.xml beside it has them); a start at the host's
//! boot, migration and live snapshots, for which there is libvirt.

use super::write::{Fitted, Plug, enforces_secure_boot, is_i440fx, topology};
use crate::hypervisor::text::{one_line, shell, shell_script};
use crate::machine::{Bus, Clock};
use landfall_boot::target::Firmware;

/// `qemu.sh`.
pub fn script(fitted: &Fitted<'_>) -> String {
    let machine = fitted.machine;
    let mut words = Words::new(is_i440fx(machine));
    general(fitted, &mut words);
    disks(fitted, &mut words);
    cards(fitted, &mut words);
    words.express("virtio-rng-pci", "");
    let files: Vec<String> = fitted.placement.disks.iter().map(|disk| shell(&disk.file)).collect();
    let uses: String = (0..machine.nics.len())
        .map(|index| format!("net{index}=$(card {index} {})\n", default_network(fitted, index)))
        .collect();
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    shell_script(
        include_str!("qemu.sh"),
        &[
            ("@NAME@", shell(&machine.name)),
            ("@FILES@", files.join(" ")),
            ("@UEFI@", yes(machine.firmware == Firmware::Uefi)),
            ("@SECURE_BOOT@", yes(enforces_secure_boot(machine))),
            ("@TPM@", yes(machine.tpm)),
            ("@CARDS@", machine.nics.len().to_string()),
            ("@NETWORKS@", networks(fitted)),
            ("@CARDS_IN_USE@", uses),
            ("@WORDS@", words.out),
        ],
    )
}

/// Words of a command line, each on a line of its own.
struct Words {
    out: String,
    is_i440fx: bool,
    ports: usize,
    plain: usize,
}

impl Words {
    fn new(is_i440fx: bool) -> Words {
        Words { out: String::new(), is_i440fx, ports: 0, plain: 0 }
    }

    /// An option with one word that a shell takes literally.
    fn add(&mut self, option: &str, value: &str) {
        self.raw(option, &shell(value));
    }

    /// An option with a word that is quoted already.
    fn raw(&mut self, option: &str, word: &str) {
        self.out += &format!("    -{option} {word} \\\n");
    }

    /// A PCI Express device, behind a root port of its own; eight ports to a slot.
    fn express(&mut self, device: &str, settings: &str) {
        if self.is_i440fx {
            return self.plain(device, settings);
        }
        self.ports += 1;
        let (port, at) = (self.ports, self.ports - 1);
        let (slot, function) = (2 + at / 8, at % 8);
        let place = format!("addr={slot:#x}.{function:x},multifunction=on");
        self.add("device", &format!("pcie-root-port,id=port{port},chassis={port},{place}"));
        self.add("device", &format!("{device},bus=port{port}{settings}"));
    }

    /// A PCI device: beyond the root ports, or where QEMU finds room.
    fn plain(&mut self, device: &str, settings: &str) {
        const FIRST: usize = 0x10;
        const AT_MOST: usize = 14;
        let place = match (self.is_i440fx, self.plain) {
            (true, _) => "bus=pci.0".to_owned(),
            (false, taken @ 0..AT_MOST) => format!("bus=pcie.0,addr={:#x}", FIRST + taken),
            (false, _) => "bus=pcie.0".to_owned(),
        };
        self.plain += 1;
        self.add("device", &format!("{device},{place}{settings}"));
    }
}

/// A value among others that commas part.
fn value(text: &str) -> String {
    text.replace(',', ",,")
}

fn general(fitted: &Fitted<'_>, words: &mut Words) {
    let machine = fitted.machine;
    words.add("name", &format!("guest={}", value(&machine.name)));
    let smm = if enforces_secure_boot(machine) { ",smm=on" } else { "" };
    words.add("machine", &format!("{}{smm}", if is_i440fx(machine) { "pc" } else { "q35" }));
    words.raw("cpu", "\"$cpu\"");
    let cpus = topology(machine);
    let (sockets, cores, threads) = (cpus.sockets(), cpus.cores_per_socket, cpus.threads_per_core);
    words.add("smp", &format!("{},sockets={sockets},cores={cores},threads={threads}", cpus.count));
    words.add("m", &format!("{}k", machine.memory.0.div_ceil(1024)));
    words.add("rtc", if machine.clock == Clock::LocalTime { "base=localtime" } else { "base=utc" });
    if let Some(uuid) = machine.smbios.uuid {
        words.add("uuid", &uuid.to_string());
    }
    if !fitted.smbios.is_empty() {
        let parts: Vec<String> =
            fitted.smbios.iter().map(|(name, text)| format!("{name}={}", value(text))).collect();
        words.add("smbios", &format!("type=1,{}", parts.join(",")));
    }
    if machine.firmware == Firmware::Uefi {
        words.raw("drive", "\"if=pflash,unit=0,format=raw,readonly=on,file=$(commas \"$code\")\"");
        words.raw("drive", "\"if=pflash,unit=1,format=raw,file=$(commas \"$variables\")\"");
    }
    if enforces_secure_boot(machine) {
        words.add("global", "driver=cfi.pflash01,property=secure,value=on");
    }
    if machine.tpm {
        words.raw("chardev", "\"socket,id=tpm,path=$(commas \"$run/tpm\")\"");
        words.add("tpmdev", "emulator,id=tpm,chardev=tpm");
        words.add("device", "tpm-crb,tpmdev=tpm");
    }
    words.add("vga", "std");
}

fn disks(fitted: &Fitted<'_>, words: &mut Words) {
    for index in 0..fitted.scsi_controllers() {
        words.express("virtio-scsi-pci", &format!(",id=scsi{index}"));
    }
    for (index, (disk, placed)) in fitted.machine.disks.iter().zip(&fitted.placement.disks).enumerate() {
        let settings = format!("if=none,id=disk{index},format={},discard=unmap,file=", value(&placed.format));
        let file = shell(&value(&format!("/{}", placed.file)));
        words.raw("drive", &format!("{}\"$(commas \"$here\")\"{file}", shell(&settings)));
        let mut common = format!(",drive=disk{index}");
        if let Some(serial) = fitted.serials[index] {
            common += &format!(",serial={serial}");
        }
        if let Some(size) = disk.sector_size {
            common += &format!(",logical_block_size={0},physical_block_size={0}", size.0);
        }
        // The firmware must not try a data disk's left-over boot sector.
        if index == fitted.machine.boot_disk() {
            common += &format!(",bootindex={}", fitted.disk_order);
        }
        if placed.below.is_some() {
            // A point that cannot be read for a while stops the machine (cont goes on); the guest sees no error.
            common += ",rerror=stop,werror=stop";
        }
        match disk.bus {
            Bus::VirtioScsi => {
                let (controller, target) = Fitted::scsi_place(index);
                if fitted.serials[index].is_none() {
                    // By this it says who it is, as libvirt's disks do: multipathd takes no others.
                    common += &format!(",device_id=drive-scsi{controller}-0-{target}-0");
                }
                words
                    .add("device", &format!("scsi-hd,bus=scsi{controller}.0,scsi-id={target},lun=0{common}"));
            }
            Bus::Sata => words.add("device", &format!("ide-hd,bus=ide.{index}{common}")),
            Bus::Ide => {
                words.add("device", &format!("ide-hd,bus=ide.{},unit={}{common}", index / 2, index % 2))
            }
            _ => words.express("virtio-blk-pci", &common),
        }
    }
}

fn cards(fitted: &Fitted<'_>, words: &mut Words) {
    for (index, nic) in fitted.machine.nics.iter().enumerate() {
        let mut settings = format!(",netdev=net{index}");
        if let Some(mac) = &nic.mac {
            settings += &format!(",mac={mac}");
        }
        match fitted.nic_orders[index] {
            Some(order) => settings += &format!(",bootindex={order}"),
            // Its boot ROM is a package of its own, which a card without a start does not need.
            None => settings += ",romfile=",
        }
        words.raw("netdev", &format!("\"$net{index},id=net{index}\""));
        match fitted.cards[index] {
            "virtio-net" => words.express("virtio-net-pci", &settings),
            card @ ("vmxnet3" | "e1000e") => words.express(card, &settings),
            card => words.plain(card, &settings),
        }
    }
}

/// What a card is plugged into where the user does not say.
fn default_network(fitted: &Fitted<'_>, index: usize) -> &'static str {
    let is_plugged = fitted.machine.nics[index].connected && fitted.plugs[index] != Plug::Nothing;
    if is_plugged { "user" } else { "none" }
}

/// A comment for each card: what it is, and where it was.
fn networks(fitted: &Fitted<'_>) -> String {
    let cards = fitted.machine.nics.iter().zip(&fitted.plugs).enumerate();
    cards
        .map(|(index, (nic, plug))| {
            let mut line =
                format!("#   {index}: {}", nic.mac.as_deref().unwrap_or("an address that QEMU chooses"));
            if let Some(network) = &nic.network {
                line += &format!(", at the source in {network}");
            }
            if let Some(tag) = nic.vlan {
                line += &format!(", in the VLAN {tag}");
            }
            if let Plug::Bridge(name) | Plug::OpenVswitch(name) = plug {
                line += &format!("; -n {index}=bridge:{name}");
            }
            if !nic.connected || *plug == Plug::Nothing {
                line += "; not plugged in";
            }
            one_line(&line) + "\n"
        })
        .collect()
}
