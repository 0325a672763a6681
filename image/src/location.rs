//! Where a disk comes from or goes to, as a person writes it: a file's path, or the URI of an NBD export.
//!
//! Only what the user typed becomes a [`Location`]. Names inside images and machine definitions are paths, always:
//! a hostile image must not make this machine speak to another.

use crate::chain;
use crate::create::CreateOptions;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::formats::{Format, Image, KindRow, LayerInfo, OpenOptions};
use crate::nbd::{self, Client, ClientOptions, Uri};
use crate::sink::Sink;
use crate::units::{Bytes, GuestOffset};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place that holds a disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// A file or block device on this machine.
    Path(PathBuf),
    /// An export of an NBD server.
    Nbd(Uri),
}

impl Location {
    /// What the text means. One that begins as an NBD URI and is not a good one is refused, never taken for a file.
    pub fn of(text: &Path) -> Result<Location> {
        match text.to_str() {
            Some(text) if Uri::is_uri(text) => Ok(Location::Nbd(Uri::parse(text)?)),
            _ => Ok(Location::Path(text.to_owned())),
        }
    }

    /// The file, where it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Location::Path(path) => Some(path),
            Location::Nbd(_) => None,
        }
    }

    /// Opens the image, with its parents.
    ///
    /// An export is a disk, so its format is raw; any other is refused. Where no format is given and the export
    /// begins as an image does, it is refused too: the server was probably told nothing of the image's format, and
    /// its bytes are not those of the disk.
    pub fn open(&self, options: &OpenOptions, client: &ClientOptions) -> Result<Image> {
        let uri = match self {
            Location::Path(path) => return chain::open(path, options),
            Location::Nbd(uri) => uri,
        };
        if let Some(format) = options.format.filter(|format| *format != Format::Raw) {
            return Err(Error::unsupported(format!(
                "an NBD export is a disk; {} inside one is not read",
                format.name()
            ))
            .in_file(uri.as_path())
            .hint(format!("let the server open the image: qemu-nbd -f {}", format.name())));
        }
        if let Some(snapshot) = &options.snapshot {
            return Err(Error::refused(format!(
                "an NBD export has no internal snapshots, and so none called {snapshot:?}"
            ))
            .in_file(uri.as_path())
            .hint("let the server open the snapshot: qemu-nbd -l NAME"));
        }
        let disk = Client::connect(uri, client)?;
        if options.format.is_none() {
            refuse_image(uri, &disk)?;
        }
        let layer = LayerInfo {
            path: uri.as_path().to_owned(),
            format: Format::Raw,
            variant: "nbd".into(),
            identity: None,
            details: disk.details(),
            files: Vec::new(),
            // A server does not say what it takes on its own storage.
            allocated: Bytes(0),
            by_name: false,
        };
        Ok(Image { disk: Arc::new(disk), layers: vec![layer] })
    }

    /// Begins a new image of a disk of that size. An export takes the kind `raw` alone.
    pub fn create(
        &self,
        kind: &KindRow,
        size: Bytes,
        options: &CreateOptions,
        client: &ClientOptions,
    ) -> Result<Box<dyn Sink>> {
        match self {
            Location::Path(path) => (kind.create)(path, size, options),
            Location::Nbd(uri) if kind.name == "raw" => nbd::create(uri, size, options, client),
            Location::Nbd(uri) => {
                let says = format!("an NBD export is a disk; {} cannot be written into one", kind.name);
                let error = Error::refused(says).in_file(uri.as_path());
                Err(error.hint("leave the format out, or let the server open the image with its own format"))
            }
        }
    }
}

/// Magic numbers at the start of images of which the whole disk might be served by mistake.
const IMAGES: &[(&str, &[u8])] = &[
    ("qcow2", b"QFI\xfb"),
    ("VHDX", b"vhdxfile"),
    ("VMDK", b"KDMV"),
    ("VMDK", b"COWD"),
    ("VMDK", b"# Disk DescriptorFile"),
    ("VHD", b"conectix"),
    ("LUKS", b"LUKS\xba\xbe"),
];

fn refuse_image(uri: &Uri, disk: &Client) -> Result<()> {
    let mut head = [0; 32];
    let len = usize::try_from(disk.size().0).unwrap_or(usize::MAX).min(head.len());
    disk.read_at(GuestOffset(0), &mut head[..len])?;
    match IMAGES.iter().find(|(_, magic)| head.starts_with(magic)) {
        None => Ok(()),
        Some((name, _)) => Err(Error::refused(format!("begins as a {name} image does, not as a disk"))
            .in_file(uri.as_path())
            .hint("serve the disk inside the image (qemu-nbd -f FORMAT), or say -f raw if these bytes are the disk")),
    }
}
