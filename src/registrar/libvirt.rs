//! libvirt, through `virsh`: a definition is checked against all that are there, defined, looked at again and started.
//!
//! `virsh` is libvirt's own client of every connection it has (local, SSH, TLS, SASL), with the user's configuration; its
//! subcommands and the XML they print are kept stable. Deliberately absent: what the script `register.sh` beside the
//! definition does without this program, and putting disks into a remote host's pools.

use super::package::{self, Definition, Package};
use super::{Done, Identity, Plan, Registrar, Surroundings, Wanted, aftermath, child};
use crate::event::Event;
use crate::finding;
use crate::hypervisor::xml::{self, Element};
use crate::machine::parse_mac;
use landfall_boot::check::Finding;
use landfall_image::{Bytes, Error, Kind, Result};
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

mod copy;

/// A connection.
pub struct Libvirt<'a> {
    uri: String,
    storage: Option<PathBuf>,
    start: bool,
    around: &'a Surroundings<'a>,
    planned: Option<Planned>,
}

/// A definition as it will be defined.
struct Planned {
    definition: String,
    /// Its UUID: the machine's own, or one made for this registration. It tells ours from anybody else's.
    uuid: Uuid,
    identity: Identity,
    /// Every disk's file: where it lies, and where the definition looks for it.
    disks: Vec<(PathBuf, PathBuf)>,
}

/// A machine that is defined there.
struct Domain {
    uuid: String,
    identity: Identity,
    files: Vec<String>,
}

/// A question to the daemon.
const QUESTION: Duration = Duration::from_secs(60);
/// A start waits for firmware, swtpm and storage.
const START: Duration = Duration::from_secs(300);

impl<'a> Libvirt<'a> {
    /// Checks that there is a connection.
    pub fn connect(wanted: &Wanted, around: &'a Surroundings<'a>) -> Result<Libvirt<'a>> {
        let storage = match &wanted.storage {
            None => None,
            Some(folder) => Some(folder.canonicalize().map_err(|e| {
                Error::io("cannot resolve the folder for disks", e).in_file(folder).hint("make it first")
            })?),
        };
        let libvirt = Libvirt { uri: wanted.at.clone(), storage, start: wanted.start, around, planned: None };
        libvirt.virsh(&["version"]).map_err(|e| match e.kind() {
            Kind::Interrupted => e,
            _ if e.hint_text().is_some() => e,
            _ => e.hint("start libvirtd (or virtqemud) there, and join the group libvirt"),
        })?;
        Ok(libvirt)
    }

    fn virsh(&self, args: &[&str]) -> Result<String> {
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        self.virsh_for(&args, QUESTION, true)
    }

    /// Taking back goes on after Ctrl-C.
    fn virsh_for(&self, args: &[&OsStr], within: Duration, stoppable: bool) -> Result<String> {
        let mut all: Vec<&OsStr> = vec!["-q".as_ref(), "-c".as_ref(), self.uri.as_ref()];
        all.extend(args);
        let said = child::run("virsh", &all, within, stoppable.then_some(self.around.cancel))?;
        if !said.fine {
            let what = child::shown(&args[..args.len().min(1)]);
            return Err(Error::new(Kind::Io, format!("virsh {what} at {}: {}", self.uri, said.complaint)));
        }
        String::from_utf8(said.out).map_err(|_| Error::corrupt("what virsh prints is not UTF-8"))
    }

    /// True for a daemon on another host: files here are not files there.
    fn is_remote(&self) -> bool {
        let rest = self.uri.split_once("://").map_or("", |(_, rest)| rest);
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        !matches!(host.rsplit('@').next().unwrap_or_default(), "" | "localhost" | "127.0.0.1" | "[::1]")
    }

    fn uuids(&self) -> Result<Vec<String>> {
        let out = self.virsh(&["list", "--all", "--uuid"])?;
        Ok(out.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
    }

    /// Every machine there, running or not.
    fn domains(&self) -> Result<Vec<Domain>> {
        let mut out = Vec::new();
        for uuid in self.uuids()? {
            match self.virsh(&["dumpxml", "--domain", &uuid]) {
                Ok(text) => out.push(domain(uuid, &Element::parse(text.as_bytes())?)),
                // It may have gone since it was listed.
                Err(error) if self.uuids()?.contains(&uuid) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(out)
    }

    /// The definition with its disks where they will lie.
    fn place(&self, package: &Package) -> Result<Planned> {
        let is_domain = |definition: &Definition| matches!(definition, Definition::Domain(_));
        let path = package.only("definition for libvirt", "kvm", is_domain)?.path();
        let text = package::text(path)?;
        let root = Element::parse(text.as_bytes()).map_err(|e| e.in_file(path))?;
        let named = domain(String::new(), &root);
        if root.name != "domain" || named.identity.name.is_empty() {
            return Err(Error::corrupt("is no definition of libvirt").in_file(path));
        }
        let mut disks = Vec::new();
        for disk in &package.disks {
            let (lies, _) = package.file(&disk.file)?;
            let goes = match &self.storage {
                None => lies.clone(),
                Some(folder) => folder.join(stored_name(&named.identity.name, &disk.file)),
            };
            let is_its = |file: &&String| Path::new(file).file_name() == Some(disk.file.as_ref());
            if named.files.iter().filter(is_its).count() != 1 {
                return Err(Error::refused(format!("does not name the disk {} once", disk.file))
                    .in_file(path)
                    .hint("it was changed since it was written: define it by hand with virsh define"));
            }
            disks.push((lies, goes));
        }
        let moved = |file: &str| {
            let name = Path::new(file).file_name()?;
            let (_, goes) = disks.iter().find(|(lies, _)| lies.file_name() == Some(name))?;
            goes.to_str().map(str::to_owned)
        };
        let mut definition = xml::with_attribute(&text, "source", "file", &moved)?;
        let uuid = named.identity.uuid.unwrap_or_else(Uuid::new_v4);
        if named.identity.uuid.is_none() {
            definition = definition.replacen("</name>", &format!("</name>\n  <uuid>{uuid}</uuid>"), 1);
        }
        match Element::parse(definition.as_bytes())?
            .text_at("uuid")
            .and_then(|text| text.parse::<Uuid>().ok())
        {
            Some(own) if uuid == own => Ok(Planned { definition, uuid, identity: named.identity, disks }),
            _ => Err(Error::corrupt("has no place for a UUID").in_file(path)),
        }
    }

    /// What is wrong with the folder that takes the disks.
    fn check_storage(&self, planned: &Planned, findings: &mut Vec<Finding>) -> Result<()> {
        let Some(folder) = &self.storage else { return Ok(()) };
        let mut needed = Bytes(0);
        for (lies, goes) in &planned.disks {
            if goes.symlink_metadata().is_ok() {
                findings.push(finding::TARGET_FILE_TAKEN.finding(
                    format!("{} exists already.", goes.display()),
                    "Remove it if an earlier try left it, or name another folder with --register-storage.",
                ));
            }
            needed.0 += copy::allocated(lies)?.0;
        }
        let stat = rustix::fs::statvfs(folder)
            .map_err(|e| Error::io("cannot ask for the room in", e.into()).in_file(folder))?;
        let free = Bytes(stat.f_bavail.saturating_mul(stat.f_frsize));
        if free < needed {
            findings.push(finding::TARGET_STORAGE.finding(
                format!("{} has {free} free, the disks take {needed}.", folder.display()),
                "Free space there, or leave the disks where they lie (without --register-storage).",
            ));
        }
        Ok(())
    }

    /// The daemon's host must have the files that the definition names.
    fn check_remote(&self, planned: &Planned) -> Result<()> {
        if !self.is_remote() {
            return Ok(());
        }
        for (_, goes) in &planned.disks {
            let path = goes.to_string_lossy();
            self.virsh(&["vol-info", "--vol", &path]).map_err(|error| {
                if error.kind() == Kind::Interrupted {
                    return error;
                }
                Error::refused(format!("no storage pool of {} has the file {path}", self.uri)).hint(
                    "run landfall on that host; or let both see the folder under the same path, and \
                     refresh its pool there (virsh pool-refresh)",
                )
            })?;
        }
        Ok(())
    }

    fn check_networks(&self, planned: &Planned, findings: &mut Vec<Finding>) -> Result<()> {
        let root = Element::parse(planned.definition.as_bytes())?;
        let names: Vec<&str> = devices(&root, "interface")
            .filter_map(|card| card.child("source")?.attribute("network"))
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let active = match self.virsh(&["net-list", "--name"]) {
            Ok(active) => active,
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => {
                findings.push(finding::TARGET_UNCHECKED.finding(
                    format!("The networks could not be listed: {error}."),
                    "Look with virsh net-list.",
                ));
                return Ok(());
            }
        };
        for name in names {
            if !active.lines().any(|line| line.trim() == name) {
                findings.push(finding::TARGET_NETWORK_DOWN.finding(
                    format!("The network {name:?} is not active at {}.", self.uri),
                    format!("virsh net-start '{name}', or convert again with --network bridge:NAME."),
                ));
            }
        }
        Ok(())
    }

    fn define(&self, planned: &Planned) -> Result<()> {
        let cannot = |e| Error::io("cannot write the definition", e).in_file(self.around.scratch);
        let mut file = tempfile::Builder::new()
            .prefix("landfall-")
            .suffix(".xml")
            .tempfile_in(self.around.scratch)
            .map_err(cannot)?;
        file.write_all(planned.definition.as_bytes()).map_err(cannot)?;
        self.virsh_for(&["define".as_ref(), "--file".as_ref(), file.path().as_os_str()], QUESTION, false)
            .map(|_| ())
    }

    /// The machine that was just defined, as libvirt has it now.
    fn defined(&self, planned: &Planned) -> Result<Domain> {
        let uuid = planned.uuid.to_string();
        let args = ["dumpxml", "--inactive", "--domain", &uuid].map(OsStr::new);
        let text = self.virsh_for(&args, QUESTION, false)?;
        Ok(domain(uuid, &Element::parse(text.as_bytes())?))
    }

    /// Every disk where it was placed, every address as it was written: nothing else is a machine of ours.
    fn verify(planned: &Planned, found: &Domain) -> Result<()> {
        let files =
            planned.disks.iter().all(|(_, goes)| found.files.iter().any(|file| Path::new(file) == goes));
        let macs = planned.identity.macs.iter().all(|mac| found.identity.macs.contains(mac));
        let name = planned.identity.name == found.identity.name;
        match files && macs && name {
            true => Ok(()),
            false => Err(Error::corrupt(format!(
                "libvirt defined {:?} with another name, other disks or other addresses than it was told",
                planned.identity.name
            ))),
        }
    }
}

/// A disk's name in a folder with the disks of many machines.
fn stored_name(machine: &str, file: &str) -> String {
    if file.starts_with(machine) { file.to_owned() } else { format!("{machine}-{file}") }
}

fn devices<'e>(root: &'e Element, kind: &'e str) -> impl Iterator<Item = &'e Element> {
    root.child("devices").into_iter().flat_map(move |devices| devices.all(kind))
}

/// What of a definition must not be there twice.
fn domain(uuid: String, root: &Element) -> Domain {
    let mut files = Vec::new();
    for disk in devices(root, "disk") {
        // A running machine's shows what lies below its image, and what it is mirrored to.
        let mut open = vec![disk];
        while let Some(element) = open.pop() {
            if let Some(source) = element.child("source") {
                files.extend(
                    ["file", "dev"].iter().filter_map(|key| source.attribute(key)).map(str::to_owned),
                );
            }
            open.extend(["backingStore", "mirror"].iter().flat_map(|name| element.all(name)));
        }
    }
    let macs =
        devices(root, "interface").filter_map(|card| parse_mac(card.child("mac")?.attribute("address")?));
    let identity = Identity {
        name: root.text_at("name").unwrap_or_default().to_owned(),
        uuid: root.text_at("uuid").and_then(|text| text.parse().ok()),
        macs: macs.collect(),
    };
    Domain { uuid, identity, files }
}

fn collide(domains: &[Domain], identity: &Identity) -> Vec<Finding> {
    let mut findings = Vec::new();
    for other in domains {
        let name = &other.identity.name;
        let by = format!("virsh undefine {}, if it is an earlier try", other.uuid);
        if *name == identity.name {
            findings.push(finding::TARGET_NAME_TAKEN.finding(
                format!("A machine with the name {name:?} is there already."),
                format!("{by}; or convert again with --name."),
            ));
        }
        if identity.uuid.is_some() && other.identity.uuid == identity.uuid {
            findings.push(finding::TARGET_ID_TAKEN.finding(
                format!("{name:?} has the UUID {} already.", other.uuid),
                format!("It is another copy of this machine: {by}."),
            ));
        }
        for mac in other.identity.macs.iter().filter(|mac| identity.macs.contains(mac)) {
            findings.push(finding::TARGET_ADDRESS_TAKEN.finding(
                format!("{name:?} has a network card with the address {mac}."),
                format!(
                    "It is another copy of this machine: {by}; or give this one another address with --map."
                ),
            ));
        }
    }
    findings
}

impl Registrar for Libvirt<'_> {
    fn collisions(&mut self, identity: &Identity) -> Result<Vec<Finding>> {
        Ok(collide(&self.domains()?, identity))
    }

    fn plan(&mut self, package: &Package) -> Result<Plan> {
        let planned = self.place(package)?;
        let domains = self.domains()?;
        let mut findings = collide(&domains, &planned.identity);
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        for other in &domains {
            let theirs: Vec<PathBuf> = other.files.iter().map(|file| real(Path::new(file))).collect();
            for (_, goes) in planned.disks.iter().filter(|(_, goes)| theirs.contains(&real(goes))) {
                findings.push(finding::TARGET_FILE_TAKEN.finding(
                    format!("{:?} has the disk {} attached.", other.identity.name, goes.display()),
                    "Two machines must not write one disk: undefine the other one, or copy this one's disks \
                     with --register-storage.",
                ));
            }
        }
        self.check_storage(&planned, &mut findings)?;
        self.check_networks(&planned, &mut findings)?;
        self.check_remote(&planned)?;
        let mut steps = Vec::new();
        if self.storage.is_some() {
            for (lies, goes) in &planned.disks {
                steps.push(format!("copy {} to {}", lies.display(), goes.display()));
            }
        }
        steps.push(format!("define {:?} at {}", planned.identity.name, self.uri));
        if self.start {
            steps.push("start it".to_owned());
        }
        self.planned = Some(planned);
        Ok(Plan { steps, findings })
    }

    fn carry_out(&mut self, _package: &Package) -> Result<Done> {
        let planned = self.planned.take().ok_or_else(|| Error::corrupt("there is no plan to carry out"))?;
        let mut copied: Vec<&Path> = Vec::new();
        if self.storage.is_some() {
            for (lies, goes) in &planned.disks {
                if let Err(error) = copy::copy(lies, goes, self.around) {
                    return Err(self.take_back(error, None, &copied));
                }
                copied.push(goes);
            }
        }
        if self.around.cancel.is_cancelled() {
            return Err(self.take_back(Error::interrupted(), None, &copied));
        }
        self.around
            .observer
            .event(Event::Step(format!("Defining {} at {}", planned.identity.name, self.uri)));
        let defined = self.define(&planned).and_then(|()| self.defined(&planned));
        // A daemon that gave no answer may have done it all the same.
        let verified = defined.and_then(|found| Self::verify(&planned, &found).map(|()| found));
        let found = match verified {
            Ok(found) => found,
            Err(error) => return Err(self.take_back(error, Some(planned.uuid), &copied)),
        };
        if self.start {
            self.around.observer.event(Event::Step(format!("Starting {}", planned.identity.name)));
            let args = ["start", "--domain", &found.uuid].map(OsStr::new);
            self.virsh_for(&args, START, true).map_err(|error| {
                let hint = format!(
                    "it is registered, and stays so: see what it says, then virsh -c {} start {}; or take it \
                     back with virsh undefine --nvram {}",
                    self.uri, found.uuid, found.uuid
                );
                error.hint(hint)
            })?;
        }
        Ok(Done { id: found.uuid, started: self.start, findings: Vec::new() })
    }
}

impl Libvirt<'_> {
    /// Removes what this run made: the definition with that UUID, which was at no other machine before, and copies.
    fn take_back(&self, error: Error, defined: Option<Uuid>, copied: &[&Path]) -> Error {
        let (mut undone, mut left) = (Vec::new(), Vec::new());
        if let Some(uuid) = defined.map(|uuid| uuid.to_string()) {
            let args = ["list", "--all", "--uuid"].map(OsStr::new);
            let listed = self.virsh_for(&args, QUESTION, false);
            match listed.map(|all| all.lines().any(|line| line.trim() == uuid)) {
                Ok(false) => {}
                Ok(true) => {
                    let args = ["undefine", "--nvram", "--domain", &uuid].map(OsStr::new);
                    match self.virsh_for(&args, QUESTION, false) {
                        Ok(_) => undone.push(format!("the definition {uuid}")),
                        Err(e) => left.push(format!("the definition {uuid}, which cannot be removed ({e})")),
                    }
                }
                Err(e) => left.push(format!("perhaps the definition {uuid} ({e})")),
            }
        }
        for file in copied {
            match std::fs::remove_file(file) {
                Ok(()) => undone.push(format!("the copy {}", file.display())),
                Err(e) => left.push(format!("the copy {} ({e})", file.display())),
            }
        }
        aftermath(error, &undone, &left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_machine_that_must_not_be_there_twice_is_seen() {
        let text = "<domain><name>a</name><uuid>564d9bef-acd9-b4e0-c8f0-aea8b9103515</uuid><devices>\
            <disk><source file='/i/top.qcow2'/><backingStore><source file='/i/base.qcow2'/><backingStore>\
            <source dev='/dev/vg/x'/></backingStore></backingStore></disk><disk device='cdrom'/>\
            <interface><mac address='52:54:00:AB:cd:01'/></interface></devices></domain>";
        let found = domain("u".into(), &Element::parse(text.as_bytes()).unwrap());
        assert_eq!(found.files, ["/i/top.qcow2", "/i/base.qcow2", "/dev/vg/x"]);
        let same = found.identity.clone();
        let ids = |identity: &Identity| -> Vec<&str> {
            collide(std::slice::from_ref(&found), identity).iter().map(|finding| finding.id).collect()
        };
        assert_eq!(ids(&same), ["target-name-taken", "target-id-taken", "target-address-taken"]);
        let other = Identity { name: "b".into(), ..Identity::default() };
        assert!(ids(&other).is_empty());
        assert_eq!(ids(&Identity { macs: same.macs.clone(), ..other }), ["target-address-taken"]);
    }

    #[test]
    fn names_in_a_common_folder_tell_whose_they_are() {
        assert_eq!(stored_name("web01", "disk0.qcow2"), "web01-disk0.qcow2");
        assert_eq!(stored_name("web01", "web01.qcow2"), "web01.qcow2");
    }
}
