//! Machines registered at hypervisors for real: what a folder that `convert` wrote becomes at the other end of a connection.
//!
//! ```text
//! Package (a folder) -> Registrar::plan (looks, changes nothing) -> Plan { steps, findings }
//!                    -> Registrar::carry_out (does it, or takes back what it did) -> Done
//! ```
//! Everything that can stand in the way is looked for before anything is changed: a name, an id, a network address or a
//! file that another machine has already, a network or a storage that is not there. What fails half-way is taken back as
//! far as the target lets itself be told to, and what could not be taken back is said.
//!
//! Deliberately absent: changing or removing machines that are there already, creating networks and storage at the target,
//! and any way to skip the check of a server's certificate.

mod child;
pub mod credentials;
pub mod libvirt;
pub mod package;
pub mod vsphere;

use crate::event::Observer;
use crate::finding;
use crate::hypervisor::{Artifact, PlacedDisk};
use crate::machine::Machine;
use credentials::Credentials;
use landfall_boot::check::Finding;
use landfall_image::convert::{Cancel, RateLimit};
use landfall_image::{Bytes, Error, Result};
use package::Package;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Where a machine is to be registered, and how.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The hypervisor's address: `qemu:///system`, `vsphere://vcenter.example`.
    pub at: String,
    /// The file with user name and password.
    pub credentials: Option<PathBuf>,
    /// User name and password that the environment has.
    pub environment: Option<Credentials>,
    /// Authorities that vouch for the server, in PEM; the system's own otherwise.
    pub ca: Option<PathBuf>,
    /// The server's certificate by its fingerprint, instead of any authority.
    pub thumbprint: Option<crate::trust::Thumbprint>,
    /// vSphere: the datacenter.
    pub datacenter: Option<String>,
    /// vSphere: the host or cluster.
    pub host: Option<String>,
    /// vSphere: the resource pool.
    pub pool: Option<String>,
    /// vSphere: the datastore.
    pub datastore: Option<String>,
    /// vSphere: the folder of virtual machines.
    pub folder: Option<String>,
    /// libvirt: the folder that the disks are copied into; they stay where they lie otherwise.
    pub storage: Option<PathBuf>,
    /// Start it when it is registered.
    pub start: bool,
}

/// What must not be at the target twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its BIOS UUID.
    pub uuid: Option<Uuid>,
    /// Its hardware addresses, in lower case with colons: one for every card, in the machine's order. `None` where the
    /// hypervisor chooses it.
    pub macs: Vec<Option<String>>,
}

impl Identity {
    /// A machine's.
    pub fn of(machine: &Machine) -> Identity {
        let macs = machine.nics.iter().map(|nic| nic.mac.as_deref().map(str::to_ascii_lowercase)).collect();
        Identity { name: machine.name.clone(), uuid: machine.smbios.uuid, macs }
    }

    /// True where one of its cards has that address.
    fn has(&self, mac: &str) -> bool {
        self.macs.iter().flatten().any(|own| own == mac)
    }
}

/// A machine that is to be registered once its disks are converted: what is known of it before.
pub struct Coming<'a> {
    /// What must not be at the target twice.
    pub identity: Identity,
    /// Its definition, as it will be written.
    pub artifacts: &'a [Artifact],
    /// Its disks, as they will lie there.
    pub disks: &'a [PlacedDisk],
    /// The file of its UEFI variables, where they come along.
    pub variables: Option<&'a str>,
    /// The disks' kind: `vmdk-esxi`.
    pub kind: &'a str,
    /// Bytes of data on them all, at most. Asked for only where it matters: it takes a walk through their maps.
    pub data: &'a dyn Fn() -> Result<Bytes>,
}

impl Coming<'_> {
    /// Size of all its disks as the guest sees them.
    fn size(&self) -> Bytes {
        Bytes(self.disks.iter().fold(0, |sum, disk| sum.saturating_add(disk.virtual_size.0)))
    }

    /// Whether its disks fit into `free` bytes of `place`, which takes data and no holes. How much of the data is zeros is known
    /// when it is read: no more than a warning.
    fn check_room(&self, free: Bytes, place: &str, remedy: &str, findings: &mut Vec<Finding>) -> Result<()> {
        if free < self.size() {
            let data = (self.data)()?;
            if free < data {
                findings.push(finding::TARGET_UNCHECKED.finding(
                    format!(
                        "{place} has {free} free, the disks have up to {data} of data: they may not fit."
                    ),
                    remedy,
                ));
            }
        }
        Ok(())
    }
}

/// What will be done, and what stands in the way.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What will be done, a line each.
    pub steps: Vec<String>,
    /// What stands in the way, or is good to know.
    pub findings: Vec<Finding>,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// The machine's id at the target: a UUID, `vm-42`.
    pub id: String,
    /// It was started.
    pub started: bool,
    /// What of it is not as it was to be.
    pub findings: Vec<Finding>,
}

/// What a registrar is given besides.
pub struct Surroundings<'a> {
    /// Set by Ctrl-C.
    pub cancel: &'a Cancel,
    /// Folder for short-lived files.
    pub scratch: &'a Path,
    /// How fast disks are read, at most.
    pub rate_limit: Option<&'a RateLimit>,
    /// Who is told.
    pub observer: &'a dyn Observer,
}

impl Surroundings<'_> {
    /// Returns when `bytes` of a disk may be read.
    fn pause(&self, bytes: Bytes) -> Result<()> {
        self.rate_limit.map_or(Ok(()), |limit| limit.pause(bytes, self.cancel))
    }
}

/// One hypervisor that is connected.
pub trait Registrar {
    /// For each of the machines: which other one at the hypervisor has its name, its id or an address already.
    fn taken(&mut self, identities: &[&Identity]) -> Result<Vec<Vec<Finding>>>;

    /// What stands in the way of a machine whose disks are not converted yet. Changes nothing.
    fn look(&mut self, coming: &Coming<'_>) -> Result<Vec<Finding>>;

    /// Everything that can be known before anything is changed.
    fn plan(&mut self, package: &Package) -> Result<Plan>;

    /// Does what the last plan says.
    ///
    /// # Errors
    /// With a hint that says what was taken back, and what is left at the target. A machine that is registered and does
    /// not start stays registered: its disks took long to get there.
    fn carry_out(&mut self, package: &Package) -> Result<Done>;
}

/// Connects to the hypervisor at `wanted.at`.
///
/// # Errors
/// Refused where the address is of no known kind, has a password in it, or goes with options of another kind; what the
/// connection fails with.
pub fn connect<'a>(wanted: &Wanted, around: &'a Surroundings<'a>) -> Result<Box<dyn Registrar + 'a>> {
    let refused = |says: String, hint: &str| Err(Error::refused(says).hint(hint));
    let Some((scheme, _)) = wanted.at.split_once(':') else {
        return refused(format!("{:?} is no address of a hypervisor", wanted.at), ADDRESSES);
    };
    match scheme.split('+').next().unwrap_or_default() {
        "qemu" | "test" => {
            let given = [
                ("--credentials", wanted.credentials.is_some()),
                ("--register-ca", wanted.ca.is_some()),
                ("--thumbprint", wanted.thumbprint.is_some()),
                ("--datacenter", wanted.datacenter.is_some()),
                ("--host", wanted.host.is_some()),
                ("--pool", wanted.pool.is_some()),
                ("--datastore", wanted.datastore.is_some()),
                ("--register-folder", wanted.folder.is_some()),
            ];
            if let Some(option) = foreign(&given) {
                return refused(
                    format!("{option} is not for libvirt"),
                    "libvirt has its own files for passwords and certificates (auth.conf, pki), and SSH its keys; \
                     --register-storage names the folder for disks",
                );
            }
            Ok(Box::new(libvirt::Libvirt::connect(wanted, around)?))
        }
        "vsphere" | "esxi" | "https" => {
            if let Some(option) = foreign(&[("--register-storage", wanted.storage.is_some())]) {
                return refused(
                    format!("{option} is not for vSphere"),
                    "choose a datastore with --datastore",
                );
            }
            Ok(Box::new(vsphere::Vsphere::connect(wanted, around)?))
        }
        "http" => refused(
            "passwords are not sent over a connection that is not encrypted".into(),
            "use vsphere://HOST, which is HTTPS",
        ),
        other => refused(format!("{other:?} is no kind of hypervisor that is known here"), ADDRESSES),
    }
}

const ADDRESSES: &str = "write qemu:///system, qemu+ssh://root@HOST/system, vsphere://VCENTER or esxi://HOST";

/// The first option that was given.
fn foreign(options: &[(&'static str, bool)]) -> Option<&'static str> {
    options.iter().find(|(_, given)| *given).map(|(name, _)| *name)
}

/// `error` with what became of the target: what was taken back, and what is left there.
pub(crate) fn aftermath(error: Error, undone: &[String], left: &[String]) -> Error {
    let mut says: Vec<String> = error.hint_text().map(str::to_owned).into_iter().collect();
    if !undone.is_empty() {
        says.push(format!("taken back: {}", undone.join(", ")));
    }
    says.push(match left {
        [] => "nothing of it is left at the target".to_owned(),
        left => format!("STILL AT THE TARGET: {}", left.join("; ")),
    });
    error.hint(says.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Silent;

    #[test]
    fn addresses_of_no_hypervisor_are_refused() {
        let around = Surroundings {
            cancel: &Cancel::default(),
            scratch: Path::new("/tmp"),
            rate_limit: None,
            observer: &Silent,
        };
        for (at, says) in [
            ("vcenter", "no address"),
            ("http://vcenter/sdk", "not encrypted"),
            ("xen:///", "no kind"),
            ("vsphere://root:secret@vcenter", "password"),
            ("vsphere://", "no host"),
        ] {
            let wanted = Wanted { at: at.into(), ..Wanted::default() };
            let error = connect(&wanted, &around).err().unwrap();
            assert!(error.to_string().contains(says), "{at}: {error}");
            assert!(error.hint_text().is_some() && !error.to_string().contains("secret"), "{at}: {error}");
        }
        let wanted = Wanted { at: "qemu:///system".into(), pool: Some("x".into()), ..Wanted::default() };
        assert!(connect(&wanted, &around).err().unwrap().to_string().contains("--pool"));
    }

    #[test]
    fn addresses_stay_with_their_cards() {
        use crate::machine::NicSlot;
        let mut machine = Machine::new("a", Bytes::mib(1));
        let second = NicSlot { mac: Some("52:54:00:AB:cd:01".into()), ..NicSlot::new("b") };
        machine.nics = vec![NicSlot::new("a"), second];
        let identity = Identity::of(&machine);
        assert_eq!(identity.macs, [None, Some("52:54:00:ab:cd:01".to_owned())]);
        assert!(identity.has("52:54:00:ab:cd:01") && !identity.has(""));
    }
}
