//! libvirt, through `virsh`: a definition is checked against all that are there, defined, looked at again and started.
//!
//! `virsh` is libvirt's own client of every connection it has (local, SSH, TLS, SASL), with the user's configuration; its
//! subcommands and the XML they print are kept stable. Deliberately absent: what the script `register.sh` beside the
//! definition does without this program, and putting disks into a remote host's pools.

use super::package::{self, Definition, Package};
use super::{Coming, Done, Identity, Plan, Registrar, Surroundings, Wanted, aftermath, child};
use crate::event::Event;
use crate::finding;
use crate::hypervisor::xml::{self, Element};
use crate::machine::is_folder_name;
use domain::{Domain, collide, domain, networks, stored_name, typed, verify};
use landfall_boot::check::Finding;
use landfall_image::{Bytes, Error, Kind, Result};
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

mod copy;
mod domain;
pub mod host;

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
    /// The same of its UEFI variables, where they came along.
    variables: Option<(PathBuf, PathBuf)>,
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
        if !is_folder_name(&named.identity.name) {
            let says = format!("no file can have the machine's name {:?}", named.identity.name);
            return Err(Error::refused(says).in_file(path).hint("convert it again with --name"));
        }
        let mut disks = Vec::new();
        let place = |file: &str| -> Result<(PathBuf, PathBuf)> {
            let (lies, _) = package.file(file)?;
            let goes = match &self.storage {
                None => lies.clone(),
                Some(folder) => folder.join(stored_name(&named.identity.name, file)),
            };
            Ok((lies, goes))
        };
        for disk in &package.disks {
            let (lies, goes) = place(&disk.file)?;
            let is_its = |file: &&String| Path::new(file).file_name() == Some(disk.file.as_ref());
            if named.files.iter().filter(is_its).count() != 1 {
                return Err(Error::refused(format!("does not name the disk {} once", disk.file))
                    .in_file(path)
                    .hint(format!(
                        "it was changed since it was written: define it by hand with {}",
                        typed(&self.uri, "define --file", &[&path.to_string_lossy()])
                    )));
            }
            disks.push((lies, goes));
        }
        let moved = |file: &str| {
            let name = Path::new(file).file_name()?;
            let (_, goes) = disks.iter().find(|(lies, _)| lies.file_name() == Some(name))?;
            goes.to_str().map(str::to_owned)
        };
        let mut definition = xml::with_attribute(&text, "source", "file", &moved)?;
        let variables = root.text_at("os/nvram").filter(|file| !file.is_empty());
        let variables =
            variables.and_then(|file| Path::new(file).file_name()?.to_str().map(place)).transpose()?;
        if let Some((_, goes)) = &variables {
            let goes = goes.to_str().ok_or_else(|| {
                Error::unsupported("lies in a folder whose name is not UTF-8").in_file(goes)
            })?;
            definition = with_variables(&definition, goes).ok_or_else(|| {
                Error::corrupt("names its UEFI variables in another way than landfall does").in_file(path)
            })?;
        }
        let uuid = named.identity.uuid.unwrap_or_else(Uuid::new_v4);
        if named.identity.uuid.is_none() {
            definition = definition.replacen("</name>", &format!("</name>\n  <uuid>{uuid}</uuid>"), 1);
        }
        match Element::parse(definition.as_bytes())?
            .text_at("uuid")
            .and_then(|text| text.parse::<Uuid>().ok())
        {
            Some(own) if uuid == own => {
                Ok(Planned { definition, uuid, identity: named.identity, disks, variables })
            }
            _ => Err(Error::corrupt("has no place for a UUID").in_file(path)),
        }
    }

    /// What is wrong with the folder that takes the disks.
    fn check_storage(&self, planned: &Planned, findings: &mut Vec<Finding>) -> Result<()> {
        let Some(folder) = &self.storage else { return Ok(()) };
        let mut needed = Bytes(0);
        for (lies, goes) in planned.files() {
            check_free(goes, findings);
            needed.0 += copy::allocated(lies)?.0;
        }
        let free = room(folder)?;
        if free < needed {
            findings.push(finding::TARGET_STORAGE.finding(
                format!("{} has {free} free, the disks take {needed}.", folder.display()),
                FREE_SPACE,
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
                Error::refused(format!("no storage pool of {} has the file {path}", self.uri)).hint(format!(
                    "run landfall on that host; or let both see the folder under the same path, and \
                     refresh its pool there: {} POOL",
                    typed(&self.uri, "pool-refresh", &[])
                ))
            })?;
        }
        Ok(())
    }

    fn check_networks(&self, definition: &Element, findings: &mut Vec<Finding>) -> Result<()> {
        let names = networks(definition);
        if names.is_empty() {
            return Ok(());
        }
        let active = match self.virsh(&["net-list", "--name"]) {
            Ok(active) => active,
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => {
                findings.push(finding::TARGET_UNCHECKED.finding(
                    format!("The networks could not be listed: {error}."),
                    format!("Look with {}.", typed(&self.uri, "net-list --all", &[])),
                ));
                return Ok(());
            }
        };
        for name in names {
            if !active.lines().any(|line| line.trim() == name) {
                findings.push(finding::TARGET_NETWORK_DOWN.finding(
                    format!("The network {name:?} is not active at {}.", self.uri),
                    format!(
                        "{}, or convert again with --network bridge:NAME.",
                        typed(&self.uri, "net-start --network", &[name])
                    ),
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
}

impl Registrar for Libvirt<'_> {
    fn taken(&mut self, identities: &[&Identity]) -> Result<Vec<Vec<Finding>>> {
        let domains = self.domains()?;
        Ok(identities.iter().map(|identity| collide(&domains, identity, &self.uri)).collect())
    }

    fn look(&mut self, coming: &Coming<'_>) -> Result<Vec<Finding>> {
        let identity = &coming.identity;
        let mut findings = collide(&self.domains()?, identity, &self.uri);
        if let Some(folder) = &self.storage {
            for file in coming.disks.iter().map(|disk| disk.file.as_str()).chain(coming.variables) {
                check_free(&folder.join(stored_name(&identity.name, file)), &mut findings);
            }
            let place = folder.display().to_string();
            coming.check_room(room(folder)?, &place, FREE_SPACE, &mut findings)?;
        }
        for artifact in coming.artifacts.iter().filter(|artifact| artifact.name == "domain.xml") {
            self.check_networks(&Element::parse(artifact.text.as_bytes())?, &mut findings)?;
        }
        Ok(findings)
    }

    fn plan(&mut self, package: &Package) -> Result<Plan> {
        let planned = self.place(package)?;
        let domains = self.domains()?;
        let mut findings = collide(&domains, &planned.identity, &self.uri);
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
        self.check_networks(&Element::parse(planned.definition.as_bytes())?, &mut findings)?;
        self.check_remote(&planned)?;
        let mut steps = Vec::new();
        if self.storage.is_some() {
            for (lies, goes) in planned.files() {
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
            for (lies, goes) in planned.files() {
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
        let verified = defined.and_then(|found| verify(&planned, &found).map(|()| found));
        let found = match verified {
            Ok(found) => found,
            Err(error) => return Err(self.take_back(error, Some(planned.uuid), &copied)),
        };
        if self.start {
            self.around.observer.event(Event::Step(format!("Starting {}", planned.identity.name)));
            let args = ["start", "--domain", &found.uuid].map(OsStr::new);
            self.virsh_for(&args, START, true).map_err(|error| {
                let hint = format!(
                    "it is registered, and stays so: see what it says, then {}; or take it back with {}",
                    typed(&self.uri, "start --domain", &[&found.uuid]),
                    typed(
                        &self.uri,
                        // A file that came along is not to be lost with the definition.
                        match planned.variables {
                            Some(_) => "undefine --keep-nvram --domain",
                            None => "undefine --nvram --domain",
                        },
                        &[&found.uuid]
                    )
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
                    // Its variables are a file of the folder, or a copy that is removed below.
                    let args = ["undefine", "--keep-nvram", "--domain", &uuid].map(OsStr::new);
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

impl Planned {
    /// All files: where they lie, and where the definition looks for them.
    fn files(&self) -> impl Iterator<Item = &(PathBuf, PathBuf)> {
        self.disks.iter().chain(&self.variables)
    }
}

/// The definition with its UEFI variables in another file. `None` where they are not named as our definitions do it.
fn with_variables(definition: &str, file: &str) -> Option<String> {
    let (before, rest) = definition.split_once("<nvram>")?;
    let (_, after) = rest.split_once("</nvram>")?;
    Some(format!("{before}<nvram>{}</nvram>{after}", xml::escape(file)))
}

/// What killed runs leave has no other name than this ending.
const FREE_SPACE: &str = "Free space there (what runs that were killed left ends in .landfall-partial), or leave the disks where \
                          they lie (without --register-storage).";

/// A finding where something is at `path` already.
fn check_free(path: &Path, findings: &mut Vec<Finding>) {
    if path.symlink_metadata().is_ok() {
        findings.push(finding::TARGET_FILE_TAKEN.finding(
            format!("{} exists already.", path.display()),
            "Remove it if an earlier try left it, or name another folder with --register-storage.",
        ));
    }
}

/// What is free where a folder lies.
fn room(folder: &Path) -> Result<Bytes> {
    let stat = rustix::fs::statvfs(folder)
        .map_err(|e| Error::io("cannot ask for the room in", e.into()).in_file(folder))?;
    Ok(Bytes(stat.f_bavail.saturating_mul(stat.f_frsize)))
}
