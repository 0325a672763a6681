//! A `.vmx` with ESXi's own disks: uploaded into a folder of its own in a datastore, and registered from there.
//!
//! Source: vim25, FileManager.MakeDirectory (which refuses a folder that is there: nothing is overwritten),
//! Folder.RegisterVM_Task; the datastore's files over HTTP, `/folder/PATH?dcPath=DATACENTER&dsName=DATASTORE`.

use super::soap::{Ref, Trouble, returned_ref};
use super::{FREE_SPACE, TASK, Vsphere, upload};
use crate::event::Event;
use crate::finding;
use crate::hypervisor::vmware::vmx;
use crate::hypervisor::xml::text;
use crate::machine::Machine;
use crate::registrar::package::{self, Package};
use crate::registrar::{Coming, Plan, aftermath};
use landfall_boot::check::Finding;
use landfall_image::{Bytes, Error, Result, Source};
use std::path::{Path, PathBuf};

/// Files to be sent.
pub(super) struct Upload {
    /// The folder's name in the datastore.
    folder: String,
    /// The definition's name in it.
    definition: String,
    files: Vec<(String, PathBuf, Bytes)>,
    name: String,
}

impl Vsphere<'_> {
    pub(super) fn plan_upload(&self, package: &Package, path: &Path, plan: &mut Plan) -> Result<Upload> {
        let definition = package::text(path)?;
        let machine =
            vmx::parse(definition.as_bytes(), &Default::default()).map_err(|e| e.in_file(path))?.machine;
        self.check_port_groups(&machine, &mut plan.findings);
        let definition = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut names = vec![definition.clone()];
        for disk in &package.disks {
            check_kind(&disk.kind, &disk.file).map_err(|e| e.in_file(&package.folder))?;
            names.push(disk.file.clone());
            names.extend(extents(&package.file(&disk.file)?.0)?);
        }
        names.extend(machine.nvram.filter(|nvram| package.file(nvram).is_ok()));
        let mut files = Vec::new();
        for name in names {
            let (path, len) = package.file(&name)?;
            files.push((name, path, len));
        }
        let name = package.identity.name.clone();
        let folder = folder_name(&name);
        let total = Bytes(files.iter().map(|(_, _, len)| len.0).sum());
        self.check_room(total, &mut plan.findings);
        self.check_folder(&folder, &mut plan.findings)?;
        plan.steps.push(format!(
            "make the folder [{}] {folder} at {}",
            self.place.datastore_name, self.session.authority
        ));
        for (name, _, len) in &files {
            plan.steps.push(format!("send {name} ({len})"));
        }
        plan.steps.push(format!("register {name:?}: {}", self.place.says));
        Ok(Upload { folder, definition, files, name })
    }

    /// What stands in the way of a definition whose disks are not converted yet.
    pub(super) fn look_at_upload(
        &self,
        coming: &Coming<'_>,
        definition: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        for disk in coming.disks {
            check_kind(coming.kind, &disk.file)?;
        }
        self.check_port_groups(&vmx::parse(definition.as_bytes(), &Default::default())?.machine, findings);
        self.check_folder(&folder_name(&coming.identity.name), findings)?;
        // ESXi's own disks are sent with their zeros; a sparse one has at most its data.
        match coming.kind {
            "vmdk-esxi" => {
                self.check_room(coming.size(), findings);
                Ok(())
            }
            _ => {
                let place = format!("The datastore {}", self.place.datastore_name);
                coming.check_room(self.place.free, &place, FREE_SPACE, findings)
            }
        }
    }

    fn check_port_groups(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        let names: Vec<String> = machine.nics.iter().filter_map(|nic| nic.network.clone()).collect();
        for (name, network) in self.networks(&names, findings) {
            if network.kind == "DistributedVirtualPortgroup" {
                findings.push(finding::TARGET_NETWORK_MISSING.finding(
                    format!("{name:?} is a distributed port group, which a .vmx cannot name."),
                    "Convert with --to ova instead, or plug the card into a standard port group.",
                ));
            }
        }
    }

    fn check_folder(&self, folder: &str, findings: &mut Vec<Finding>) -> Result<()> {
        let cookie = self.session.cookie().unwrap_or_default();
        let url = self.place.url(&self.session, folder);
        let there = self.session.http.head(&url, &[("Cookie", cookie.as_str())])?;
        if matches!(there.status, 200..400) {
            findings.push(finding::TARGET_FILE_TAKEN.finding(
                format!("The datastore {} has a folder {folder:?} already.", self.place.datastore_name),
                "Remove it there if an earlier try left it, choose another --datastore, or convert again with --name.",
            ));
        }
        Ok(())
    }

    /// Sends and registers it.
    pub(super) fn upload(&self, package: &Package, upload: &Upload) -> Result<(Ref, Vec<Finding>)> {
        let folder = format!("[{}] {}", self.place.datastore_name, upload.folder);
        let manager = self.session.content.manager("fileManager")?;
        let made = self.session.call("MakeDirectory", &manager, |xml| {
            text(xml, "name", &[], &folder)?;
            self.place.datacenter.write(xml, "datacenter")?;
            text(xml, "createParentDirectories", &[], "false")
        });
        match made {
            Ok(_) => {}
            Err(trouble @ Trouble::Fault { .. }) => {
                return Err(aftermath(
                    Error::from(trouble).hint(format!("the folder is {folder}")),
                    &[],
                    &[],
                ));
            }
            Err(trouble) => {
                return Err(aftermath(trouble.into(), &[], &[format!("perhaps the empty folder {folder}")]));
            }
        }
        let mut machine = None;
        let done = self.fill_folder(upload, &folder, &mut machine).and_then(|machine| {
            let findings = self.verify(&machine, package)?;
            Ok((machine, findings))
        });
        done.map_err(|error| self.take_upload_back(error, &manager, &folder, machine.as_ref()))
    }

    fn fill_folder(&self, upload: &Upload, folder: &str, machine: &mut Option<Ref>) -> Result<Ref> {
        for (name, path, _) in &upload.files {
            let cookie = self.session.cookie().unwrap_or_default();
            let headers = [
                ("Cookie", cookie.as_str()),
                ("Content-Type", "application/octet-stream"),
                ("Overwrite", "f"),
            ];
            let url = self.place.url(&self.session, &format!("{}/{name}", upload.folder));
            let to = upload::To { method: "PUT", url: &url, headers: &headers, name };
            // A login ends when nothing is asked for a while.
            let sign = |_| {
                let instance = Ref::new("ServiceInstance", "ServiceInstance");
                if let Err(trouble) = self.session.call("CurrentTime", &instance, |_| Ok(())) {
                    tracing::debug!("a sign of life: {trouble:?}");
                }
            };
            upload::send(&self.session.http, &to, &Source::open(path)?, self.around, &sign)?;
        }
        self.around.observer.event(Event::Step(format!("Registering {}", upload.name)));
        let task = returned_ref(&self.session.call("RegisterVM_Task", &self.place.folder, |xml| {
            text(xml, "path", &[], &format!("{folder}/{}", upload.definition))?;
            text(xml, "name", &[], &upload.name)?;
            text(xml, "asTemplate", &[], "false")?;
            self.place.pool.write(xml, "pool")?;
            self.place.host.as_ref().map_or(Ok(()), |host| host.write(xml, "host"))
        })?)?;
        let made = self.session.wait(&task, TASK, Some(self.around.cancel))?;
        let made = made.ok_or_else(|| Error::corrupt("the server registered no machine"))?;
        *machine = Some(made.clone());
        Ok(made)
    }

    /// Unregisters the machine and removes the folder, which this run made.
    fn take_upload_back(&self, error: Error, manager: &Ref, folder: &str, machine: Option<&Ref>) -> Error {
        let (mut undone, mut left) = (Vec::new(), Vec::new());
        if let Some(machine) = machine {
            match self.session.call("UnregisterVM", machine, |_| Ok(())) {
                Ok(_) => undone.push(format!("the machine {}", machine.id)),
                Err(trouble) => {
                    left.push(format!("the machine {} ({})", machine.id, Error::from(trouble)));
                    left.push(format!("its folder {folder}"));
                    return aftermath(error, &undone, &left);
                }
            }
        }
        let removed = self
            .session
            .call("DeleteDatastoreFile_Task", manager, |xml| {
                text(xml, "name", &[], folder)?;
                self.place.datacenter.write(xml, "datacenter")
            })
            .and_then(|answer| Ok(returned_ref(&answer)?))
            .and_then(|task| self.session.wait(&task, TASK, None));
        match removed {
            Ok(_) => undone.push(format!("the folder {folder}")),
            Err(trouble) => left.push(format!("the folder {folder} ({})", Error::from(trouble))),
        }
        aftermath(error, &undone, &left)
    }
}

/// The folder of a machine in a datastore.
fn folder_name(machine: &str) -> String {
    machine.chars().map(|c| if c.is_control() || "/\\[]%".contains(c) { '_' } else { c }).collect()
}

/// Refuses a kind of image that no machine starts from where it lies.
fn check_kind(kind: &str, file: &str) -> Result<()> {
    if kind == "vmdk-stream" {
        return Err(Error::refused(format!("{file} is made for transport: ESXi does not start from it"))
            .hint("convert with -O vmdk-esxi, or --to ova, which is imported"));
    }
    Ok(())
}

/// The files that a VMDK's descriptor names; none where the disk is one file.
fn extents(path: &Path) -> Result<Vec<String>> {
    const START: &[u8] = b"# Disk DescriptorFile";
    const AT_MOST: u64 = 1 << 20;
    let source = Source::open(path)?;
    if source.len().0 > AT_MOST || source.head(START.len())? != START {
        return Ok(Vec::new());
    }
    let text = package::text(path)?;
    // access, sectors, type, "name", offset
    let is_extent = |line: &&str| ["RW ", "RDONLY "].iter().any(|start| line.starts_with(start));
    let names = text.lines().map(str::trim).filter(is_extent).filter_map(|line| line.split('"').nth(1));
    Ok(names.map(str::to_owned).collect())
}
