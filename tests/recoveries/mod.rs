//! Machines recovered from points of a vault: a real guest, patched, run by QEMU and by a libvirt of the test's own.
//!
//! The vault holds the disk of a guest at two points: as it was, and with its first sectors written over, so that the older one
//! is the one to recover.

mod host;
mod libvirt;
mod points;
mod qemu;
mod service;

use crate::boots::{guest, landfall, text};
use landfall::event::Silent;
use landfall::machine::Machine;
use landfall::name::Name;
use landfall::ops::source::point::{self, At, Candidate, PointSource, Points};
use landfall::ops::{self, Context};
use landfall::vault::Vault;
use landfall::vault::journal::{DiskInfo, Mark};
use landfall_image::convert::{self, Cancel};
use landfall_image::nbd::ClientOptions;
use landfall_image::{Bytes, Disk, DiskMut, ExtentKind, Gate, GuestOffset, GuestRange, OpenOptions, Result};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn name() -> Name {
    "web01".parse().unwrap()
}

/// What an operation is given, as the program gives it.
pub fn context(scratch: &Path, points: Option<Arc<dyn Points>>) -> Context<'static> {
    let mut sandbox = ops::Settings::new(env!("CARGO_BIN_EXE_landfall").into(), root().join("target/cache"));
    sandbox.data_folder = Some(root().join("target"));
    Context {
        gate: Gate::own_folder(),
        jobs: None,
        rate_limit: None,
        cancel: Cancel::default(),
        scratch: scratch.to_owned(),
        sandbox,
        nbd: ClientOptions::default(),
        key: None,
        points,
        observer: &Silent,
    }
}

/// A vault with a guest in it.
pub struct Protected {
    pub dir: tempfile::TempDir,
    /// The guest as it was, and written over.
    pub points: [u64; 2],
}

impl Protected {
    /// The vault's folder.
    pub fn vault(&self) -> PathBuf {
        self.dir.path().join("vault")
    }

    /// The program, with the vault.
    pub fn landfall(&self) -> Command {
        let mut command = landfall();
        command.arg("--vault").arg(self.vault());
        command
    }
}

/// A guest in a vault. `None`, loudly, where it cannot be made.
pub fn protected() -> Option<Protected> {
    let folder = guest("bookworm", "bios-ext4")?;
    let dir = tempfile::tempdir_in(root().join("target")).unwrap();
    let definition =
        ops::source::read_alone(&context(dir.path(), None), &folder.join("web01.vmx"), &Default::default())
            .unwrap();
    assert_eq!(definition.machine.disks[0].file, "scsi0-0");
    let (vault, _) = Vault::open(&dir.path().join("vault")).unwrap();
    let machine = vault.machine_or_new(&name()).unwrap();
    let disk =
        landfall_image::formats::open(&folder.join("web01.vmdk"), &OpenOptions::default()).unwrap().disk;
    let info = DiskInfo { name: "scsi0-0".into(), size: disk.size().0, sector: 512 };
    machine.journal().set_disk(&info).unwrap();
    let live = machine.live("scsi0-0").unwrap();
    copy(&*disk, &live);
    store(&machine, &definition.machine);
    let first =
        machine.checkpoint(1_795_960_985_000, &Mark { tag: Some("good".into()), ..Mark::default() }).unwrap();
    live.write_at(GuestOffset(0), &[0x66; 4 << 20]).unwrap();
    let second = machine.checkpoint(1_795_960_990_000, &Mark::default()).unwrap();
    machine.journal().close_segment();
    machine.journal().seal().unwrap();
    Some(Protected { dir, points: [first, second] })
}

pub fn store(machine: &landfall::vault::machine::Machine, definition: &Machine) {
    machine.journal().attach(point::DEFINITION, &serde_json::to_vec(definition).unwrap()).unwrap();
}

/// Writes what a disk holds into another.
pub fn copy(from: &dyn Disk, to: &dyn DiskMut) {
    const PIECE: u64 = 1 << 20;
    let (mut here, size) = (0, from.size().0);
    while here < size {
        let rest = GuestRange::between(GuestOffset(here), GuestOffset(size));
        for extent in from.extents(rest, 64).unwrap() {
            let end = extent.range.end().0;
            while extent.kind == ExtentKind::Data && here < end {
                let mut buf = vec![0; usize::try_from((end - here).min(PIECE)).unwrap()];
                from.read_at(GuestOffset(here), &mut buf).unwrap();
                to.write_at(GuestOffset(here), &buf).unwrap();
                here += buf.len() as u64;
            }
            here = end;
        }
    }
}

/// The digest of a disk at a point.
pub fn digest(vault: &Path, number: u64) -> String {
    let (vault, _) = Vault::open(vault).unwrap();
    let point = vault.machine(&name()).unwrap().at(number).unwrap();
    let disk = *point.state().disks.keys().next().unwrap();
    let disk = point.disk(disk).unwrap();
    convert::digest(&disk, &convert::Options::default()).unwrap().to_hex().to_string()
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(output)))
}

/// What it printed, where it went well.
pub fn done(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    json(&output)
}

/// Its error, where it was refused.
pub fn refused(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {}", text(&output));
    let document = json(&output);
    crate::cli::schemas::check(&[("error", document.clone())]);
    document
}

pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
