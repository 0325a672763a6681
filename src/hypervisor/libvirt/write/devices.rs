//! Devices of a domain: disks and their controllers, network cards, and what every machine gets.

use super::{Fitted, Plug, bus};
use crate::hypervisor::xml::{Xml, empty, parent, text};
use crate::hypervisor::{Below, RECONNECT_SECONDS, Server};
use crate::machine::{Bus, NicSlot};
use std::io;

/// Writes what is in `devices`.
pub fn write(xml: &mut Xml, fitted: &Fitted<'_>) -> io::Result<()> {
    let machine = fitted.machine;
    for index in 0..machine.disks.len() {
        disk(xml, fitted, index)?;
    }
    for index in 0..fitted.scsi_controllers() {
        let index = index.to_string();
        empty(xml, "controller", &[("type", "scsi"), ("index", &index), ("model", "virtio-scsi")])?;
    }
    for (index, nic) in machine.nics.iter().enumerate() {
        card(xml, fitted, index, nic)?;
    }
    parent(xml, "serial", &[("type", "pty")], |xml| empty(xml, "target", &[("port", "0")]))?;
    parent(xml, "channel", &[("type", "unix")], |xml| {
        empty(xml, "target", &[("type", "virtio"), ("name", "org.qemu.guest_agent.0")])
    })?;
    if machine.tpm {
        parent(xml, "tpm", &[("model", "tpm-crb")], |xml| {
            empty(xml, "backend", &[("type", "emulator"), ("version", "2.0")])
        })?;
    }
    empty(xml, "graphics", &[("type", "vnc"), ("autoport", "yes")])?;
    parent(xml, "video", &[], |xml| empty(xml, "model", &[("type", "vga")]))?;
    empty(xml, "memballoon", &[("model", "virtio")])?;
    parent(xml, "rng", &[("model", "virtio")], |xml| {
        text(xml, "backend", &[("model", "random")], "/dev/urandom")
    })
}

fn disk(xml: &mut Xml, fitted: &Fitted<'_>, index: usize) -> io::Result<()> {
    let (disk, placed) = (&fitted.machine.disks[index], &fitted.placement.disks[index]);
    parent(xml, "disk", &[("type", "file"), ("device", "disk")], |xml| {
        let mut driver = vec![("name", "qemu"), ("type", placed.format.as_str()), ("discard", "unmap")];
        if placed.below.is_some() {
            // A point that cannot be read for a while stops the machine; the guest sees no error.
            driver.extend([("error_policy", "stop"), ("rerror_policy", "stop")]);
        }
        empty(xml, "driver", &driver)?;
        empty(xml, "source", &[("file", &format!("{}/{}", fitted.placement.folder, placed.file))])?;
        if let Some(below) = &placed.below {
            backing(xml, below)?;
        }
        if let Some(size) = disk.sector_size {
            let size = size.0.to_string();
            let sizes = [("logical_block_size", size.as_str()), ("physical_block_size", size.as_str())];
            empty(xml, "blockio", &sizes)?;
        }
        let bus = bus(disk.bus).unwrap_or_default();
        empty(xml, "target", &[("dev", &disk.slot), ("bus", bus)])?;
        if let Some(serial) = fitted.serials[index] {
            text(xml, "serial", &[], serial)?;
        }
        // Only one disk is a boot disk: the firmware must not try a data disk's left-over boot sector.
        if index == fitted.machine.boot_disk() {
            empty(xml, "boot", &[("order", &fitted.disk_order.to_string())])?;
        }
        if disk.bus == Bus::VirtioScsi {
            // libvirt would count seven to a controller, and not make the others as this one.
            let (controller, target) = Fitted::scsi_place(index);
            let (controller, target) = (controller.to_string(), target.to_string());
            let place = [
                ("type", "drive"),
                ("controller", controller.as_str()),
                ("bus", "0"),
                ("target", target.as_str()),
                ("unit", "0"),
            ];
            empty(xml, "address", &place)?;
        }
        Ok(())
    })
}

/// What a delta lies over. Without it libvirt would read it out of the image, and know of no reconnection (libvirt 9.5).
fn backing(xml: &mut Xml, below: &Below) -> io::Result<()> {
    parent(xml, "backingStore", &[("type", "network")], |xml| {
        empty(xml, "format", &[("type", "raw")])?;
        parent(xml, "source", &[("protocol", "nbd"), ("name", &below.export)], |xml| {
            match &below.server {
                Server::Socket(path) => empty(xml, "host", &[("transport", "unix"), ("socket", path)])?,
                Server::Host(host, port) => {
                    empty(xml, "host", &[("name", host), ("port", &port.to_string())])?
                }
            }
            empty(xml, "reconnect", &[("delay", &RECONNECT_SECONDS.to_string())])
        })?;
        empty(xml, "backingStore", &[])
    })
}

fn card(xml: &mut Xml, fitted: &Fitted<'_>, index: usize, nic: &NicSlot) -> io::Result<()> {
    let plug = fitted.plugs[index];
    let kind = match plug {
        Plug::Network(_) => "network",
        Plug::Bridge(_) | Plug::OpenVswitch(_) => "bridge",
        // Of what needs no network it is the one that every libvirt has. It leads nowhere with the link down.
        Plug::Nothing => "user",
    };
    parent(xml, "interface", &[("type", kind)], |xml| {
        if let Some(mac) = &nic.mac {
            empty(xml, "mac", &[("address", mac)])?;
        }
        match plug {
            Plug::Network(name) => empty(xml, "source", &[("network", name)])?,
            Plug::Bridge(name) => empty(xml, "source", &[("bridge", name)])?,
            Plug::Nothing => {}
            Plug::OpenVswitch(name) => {
                empty(xml, "source", &[("bridge", name)])?;
                // libvirt before 11.0 refuses a tag on a plain bridge.
                if let Some(tag) = nic.vlan {
                    parent(xml, "vlan", &[], |xml| empty(xml, "tag", &[("id", &tag.to_string())]))?;
                }
                empty(xml, "virtualport", &[("type", "openvswitch")])?;
            }
        }
        let model = fitted.cards[index];
        empty(xml, "model", &[("type", if model == "virtio-net" { "virtio" } else { model })])?;
        if !nic.connected || plug == Plug::Nothing {
            empty(xml, "link", &[("state", "down")])?;
        }
        match fitted.nic_orders[index] {
            Some(order) => empty(xml, "boot", &[("order", &order.to_string())]),
            None => Ok(()),
        }
    })
}
