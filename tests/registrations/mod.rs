//! Machines registered with running hypervisors: a libvirtd of the test's own, and VMware's simulator of a vCenter and a host.
//! A second client of each tells what is there.

mod ahead;
mod faults;
mod fleet;
mod libvirt;
mod proxy;
mod trust;
mod vcsim;
mod vsphere;

pub use landfall::machine::Machine;
use landfall::machine::NicSlot;
use landfall_image::Bytes;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const UUID: &str = "564d9bef-acd9-b4e0-c8f0-aea8b9103515";
pub const MAC: &str = "00:50:56:00:12:ab";

pub fn landfall() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    for name in ["LANDFALL_LOG", "LANDFALL_USER", "LANDFALL_PASSWORD"] {
        command.env_remove(name);
    }
    command
}

pub fn all(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The document that was printed, and the exit code.
pub fn document(output: &Output) -> (Value, i32) {
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", all(output)));
    let schema = if value.get("machine").is_some() { "register" } else { "error" };
    crate::cli::schemas::check(&[(schema, value.clone())]);
    (value, output.status.code().unwrap())
}

/// The ids of a document's findings.
pub fn ids(document: &Value) -> Vec<&str> {
    document["findings"].as_array().unwrap().iter().map(|finding| finding["id"].as_str().unwrap()).collect()
}

/// A machine with one disk and one card.
pub fn machine(name: &str) -> Machine {
    let mut machine = Machine::new(name, Bytes::mib(512));
    machine.smbios.uuid = Some(UUID.parse().unwrap());
    machine.nics = vec![NicSlot {
        mac: Some(MAC.into()),
        network: Some("VM Network".into()),
        ..NicSlot::new("ethernet0")
    }];
    machine
}

/// The report of a conversion, as far as it is read back.
pub fn report(folder: &Path, target: &str, machine: &Machine, disks: &[(&str, &str, u64)]) {
    let disks: Vec<Value> = disks
        .iter()
        .map(|(file, kind, size)| {
            json!({
                "file": file, "format": kind.split('-').next(), "kind": kind, "virtual_size": size, "data": 0,
                "allocated": 0, "content_digest": "",
            })
        })
        .collect();
    let report = json!({ "version": 1, "target": target, "written": machine, "written_disks": disks });
    fs::write(folder.join("report.json"), format!("{report:#}")).unwrap();
}

/// An image of that kind with `mib` of data that cannot be compressed.
pub fn image(folder: &Path, name: &str, kind: &str, mib: usize) -> PathBuf {
    let raw = folder.join(".raw");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = (0..mib << 17)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    fs::write(&raw, noise).unwrap();
    let path = folder.join(name);
    let done = landfall().args(["-q", "disk", "convert", "-O", kind]).args([&raw, &path]).output().unwrap();
    assert!(done.status.success(), "{}", all(&done));
    fs::remove_file(raw).unwrap();
    path
}
