//! The point that a machine is recovered from: opened, and with a place for each disk where QEMU reads it.

use super::Wanted;
use super::serve::ToServe;
use crate::hypervisor::{Below, Networks};
use crate::moment::Moment;
use crate::name::Name;
use crate::ops::map::Mapped;
use crate::ops::source::point::{self, Points};
use crate::ops::source::{How, Loaded};
use crate::ops::{Context, GuestChoice, convert};
use crate::recovery::{Mode, below};
use crate::vault::journal::Consistency;
use landfall_image::create::CreateOptions;
use landfall_image::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An opened point.
pub struct Source {
    /// Who has it.
    pub points: Arc<dyn Points>,
    /// The machine's name in the vault.
    pub machine: Name,
    /// The point's number.
    pub number: u64,
    /// When it was set.
    pub at: Moment,
    /// How far it can be trusted.
    pub consistency: Consistency,
    /// The name that somebody gave to it.
    pub tag: Option<String>,
    /// The machine and its disks.
    pub loaded: Loaded,
    /// For each of the machine's disks, where it is read.
    pub disks: Vec<SourceDisk>,
    /// The folder of recoveries, by its real path.
    pub output: PathBuf,
}

/// A disk of the point.
pub struct SourceDisk {
    /// Its name in the vault.
    pub name: String,
    /// Where it is read, as a URI.
    pub uri: String,
    /// The same, taken apart.
    pub below: Below,
    /// The socket on which this process has to serve it; `None` where a service does.
    pub socket: Option<PathBuf>,
}

/// Sockets have short names: the kernel takes 107 bytes for a whole path.
const SOCKET_AT_MOST: usize = 107;

impl Source {
    /// Opens the point; the folder of recoveries is made where it is not there.
    ///
    /// # Errors
    /// As [`point::open`] and [`PointSource::load`](point::PointSource::load).
    pub fn open(
        context: &Context<'_>,
        name: &point::PointName,
        guest: &GuestChoice,
        output: &Path,
    ) -> Result<Source> {
        let cannot = |doing: &'static str| move |e| Error::io(doing, e).in_file(output);
        std::fs::create_dir_all(output).map_err(cannot("cannot create the folder of recoveries"))?;
        let output = output.canonicalize().map_err(cannot("cannot resolve the folder of recoveries"))?;
        let points = context.points.clone();
        let source = point::open(context, name)?;
        let points = points.ok_or_else(|| Error::refused("nobody has recovery points here"))?;
        let (machine, number, at) = (source.name.clone(), source.number, source.at);
        let (consistency, tag) = (source.consistency, source.tag.clone());
        let uris: Vec<(String, Option<String>)> =
            source.disks.iter().map(|disk| (disk.name.clone(), disk.uri.clone())).collect();
        let mut refuse = |_, error| Err(error);
        let mut how = How { digests: true, unreadable: &mut refuse };
        let mut loaded = source.load(&guest.source, &mut how)?;
        loaded.findings.extend(point::assumed_zone(&name.at));
        let named = loaded.machine.disks.iter().enumerate().map(|(index, slot)| {
            let uri = uris.iter().find(|(disk, _)| *disk == slot.file).and_then(|(_, uri)| uri.clone());
            place(&output, &machine, number, index, &slot.file, uri)
        });
        let disks = named.collect::<Result<_>>()?;
        Ok(Source { points, machine, number, at, consistency, tag, disks, loaded, output })
    }

    /// What this process has to serve.
    pub fn to_serve(&self) -> Vec<ToServe> {
        let disks = self.disks.iter().zip(&self.loaded.images);
        let served = disks.filter_map(|(disk, image)| {
            let (socket, export) = (disk.socket.clone()?, disk.below.export.clone());
            Some(ToServe { socket, export, disk: Arc::clone(&image.disk) })
        });
        served.collect()
    }

    /// What the map makes of the machine.
    pub fn mapped(&self, wanted: &Wanted) -> Mapped {
        wanted.guest.mapped(&self.loaded, wanted.name.as_deref(), wanted.target.platform)
    }

    /// What the machine is called where it runs: after the machine at the service, whatever its definition calls it.
    pub fn name(&self, wanted: &Wanted) -> String {
        let own = self.mapped(wanted).name.unwrap_or_else(|| self.machine.to_string());
        match (wanted.mode, &wanted.name) {
            (_, Some(name)) => name.clone(),
            (Mode::Test, None) => format!("{own}-test"),
            (Mode::Live, None) => own,
        }
    }

    /// A digest of all that the patching depends on: the point and where it is read, the target, and what is wanted of the guest.
    pub fn patch_key(&self, wanted: &Wanted) -> Result<String> {
        // The name, networks and places at the target change nothing in the guest.
        let mapped = Mapped {
            name: None,
            networks: Vec::new(),
            storage: None,
            id: None,
            findings: Vec::new(),
            ..self.mapped(wanted)
        };
        let path = self.loaded.path.clone();
        let asked = as_conversion(wanted, &path, Networks::default());
        let fingerprint = convert::fingerprint(&self.loaded, &asked, &mapped)
            .ok_or_else(|| Error::corrupt("a recovery point has no state"))?;
        let uris: Vec<&str> = self.disks.iter().map(|disk| disk.uri.as_str()).collect();
        let said = serde_json::json!({
            "landfall": env!("CARGO_PKG_VERSION"),
            "made of": fingerprint,
            "read at": uris,
        });
        Ok(blake3::hash(said.to_string().as_bytes()).to_hex().to_string())
    }
}

/// The folder of sockets on which points are served that no service serves.
pub fn sockets(output: &Path) -> PathBuf {
    output.join(".points")
}

/// As what a conversion would be asked for.
pub fn as_conversion<'a>(wanted: &Wanted, path: &'a Path, networks: Networks) -> convert::Wanted<'a> {
    convert::Wanted {
        source: path,
        target: wanted.target,
        name: None,
        kind: None,
        create: CreateOptions::default(),
        networks,
        guest: wanted.guest.clone(),
        register: None,
    }
}

/// Where a disk is read: where the service says, else on a socket of this process.
fn place(
    output: &Path,
    machine: &Name,
    number: u64,
    index: usize,
    disk: &str,
    uri: Option<String>,
) -> Result<SourceDisk> {
    let name = disk.to_owned();
    if let Some(uri) = uri {
        let below = below::of(&uri)?;
        return Ok(SourceDisk { name, uri, below, socket: None });
    }
    let short: String = blake3::hash(machine.as_str().as_bytes()).to_hex().chars().take(8).collect();
    let socket = sockets(output).join(format!("{short}-{number}-{index}"));
    let text = socket.to_str().filter(|text| text.len() <= SOCKET_AT_MOST).ok_or_else(|| {
        Error::refused(format!(
            "sockets in {} would have too long a name, or one that is not UTF-8: {SOCKET_AT_MOST} bytes are the most",
            output.display()
        ))
        .hint("choose a folder with a shorter path with -o")
    })?;
    let below = Below {
        server: crate::hypervisor::Server::Socket(text.to_owned()),
        export: point::export(machine, disk, number),
    };
    let uri = below::uri(&below);
    Ok(SourceDisk { name, uri, below, socket: Some(socket) })
}
