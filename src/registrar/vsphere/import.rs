//! An OVF or OVA imported: the server makes a machine of the descriptor, a lease takes the disks.
//!
//! Source: vim25, OvfManager.CreateImportSpec, ResourcePool.ImportVApp, HttpNfcLease. The server's own reading of the descriptor
//! forgets two things that a guest is known by, hardware addresses and the UUID: they are written into the import
//! specification before it goes back.

use super::http::Http;
use super::inventory::Object;
use super::soap::{Ref, Trouble, echo, fault_error, returned, returned_ref};
use super::{FREE_SPACE, Vsphere, upload};
use crate::event::Event;
use crate::finding;
use crate::hypervisor::xml::{Element, parent, text};
use crate::registrar::package::{self, Definition, Package};
use crate::registrar::{Coming, Identity, Plan, aftermath};
use crate::trust::{Thumbprint, Trust};
use landfall_boot::check::{Finding, Severity};
use landfall_image::ova;
use landfall_image::{Bytes, Error, Kind, Result, Source};
use std::time::{Duration, Instant};

/// An import that the server has agreed to.
pub(super) struct Import {
    specification: Element,
    files: Vec<File>,
    name: String,
}

/// A file that the server asks for.
struct File {
    /// The device that it is for, as the lease names it.
    device: String,
    name: String,
    /// It is no disk: made as a file.
    creates: bool,
    source: Source,
}

/// A lease is ready in seconds; a thick disk on slow storage takes longer.
const READY: Duration = Duration::from_secs(600);

impl Vsphere<'_> {
    pub(super) fn plan_import(
        &self,
        package: &Package,
        definition: &Definition,
        plan: &mut Plan,
    ) -> Result<Option<Import>> {
        let path = definition.path();
        let archive = match definition {
            Definition::Ova(path) => Some(ova::Package::open(path)?),
            _ => None,
        };
        let descriptor = match &archive {
            Some(archive) => archive.descriptor()?.1,
            None => package::text(path)?,
        };
        let root = Element::parse(descriptor.as_bytes()).map_err(|e| e.in_file(path))?;
        let networks = self.networks(&networks(&root), &mut plan.findings);
        let result = self.specification(&descriptor, &package.identity.name, &networks)?;
        let product = self.session.content.product();
        let agreed = agreed(&result, product, &mut plan.findings).map_err(|e| e.in_file(path))?;
        let Some(mut specification) = agreed else { return Ok(None) };
        identify(&mut specification, &package.identity)?;
        let mut files = Vec::new();
        for item in result.all("fileItem") {
            let name = item.text_at("path").unwrap_or_default();
            if item.child("compressionMethod").is_some() || item.child("chunkSize").is_some() {
                return Err(Error::unsupported(format!(
                    "its file {name:?} is compressed or cut into chunks"
                ))
                .in_file(path));
            }
            let source = match &archive {
                Some(archive) => archive.disk(name)?,
                None => Source::open(&package.file(name)?.0)?,
            };
            files.push(File {
                device: item.text_at("deviceId").unwrap_or_default().to_owned(),
                name: name.to_owned(),
                creates: item.text_at("create") == Some("true"),
                source,
            });
        }
        let total = Bytes(files.iter().map(|file| file.source.len().0).sum());
        self.check_room(total, &mut plan.findings);
        let name = package.identity.name.clone();
        plan.steps.push(format!("import {name:?} at {}: {}", self.session.authority, self.place.says));
        for file in &files {
            plan.steps.push(format!("send {} ({})", file.name, file.source.len()));
        }
        Ok(Some(Import { specification, files, name }))
    }

    /// What stands in the way of a descriptor whose disks are not converted yet.
    pub(super) fn look_at_import(
        &self,
        coming: &Coming<'_>,
        descriptor: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        self.networks(&networks(&Element::parse(descriptor.as_bytes())?), findings);
        let place = format!("The datastore {}", self.place.datastore_name);
        coming.check_room(self.place.free, &place, FREE_SPACE, findings)
    }

    /// What the server makes of the descriptor. It changes nothing there.
    fn specification(&self, descriptor: &str, name: &str, networks: &[(String, Ref)]) -> Result<Element> {
        let manager = self.session.content.manager("ovfManager")?;
        let place = &self.place;
        let answer = self.session.call("CreateImportSpec", &manager, |xml| {
            text(xml, "ovfDescriptor", &[], descriptor)?;
            place.pool.write(xml, "resourcePool")?;
            place.datastore.write(xml, "datastore")?;
            parent(xml, "cisp", &[], |xml| {
                text(xml, "locale", &[], "")?;
                text(xml, "deploymentOption", &[], "")?;
                text(xml, "entityName", &[], name)?;
                if let Some(host) = &place.host {
                    host.write(xml, "hostSystem")?;
                }
                for (name, network) in networks {
                    parent(xml, "networkMapping", &[], |xml| {
                        text(xml, "name", &[], name)?;
                        network.write(xml, "network")
                    })?;
                }
                text(xml, "diskProvisioning", &[], "thin")
            })
        })?;
        Ok(returned(&answer)?.clone())
    }

    /// Imports it: the machine, and what of it is not as it was to be.
    pub(super) fn import(&self, package: &Package, import: &Import) -> Result<(Ref, Vec<Finding>)> {
        let name = &import.name;
        self.around.observer.event(Event::Step(format!("Importing {name} at {}", self.session.authority)));
        let lease = self
            .session
            .call("ImportVApp", &self.place.pool, |xml| {
                echo(xml, "spec", &import.specification)?;
                self.place.folder.write(xml, "folder")?;
                self.place.host.as_ref().map_or(Ok(()), |host| host.write(xml, "host"))
            })
            .and_then(|answer| Ok(returned_ref(&answer)?));
        let lease = match lease {
            Ok(lease) => lease,
            // A refusal: nothing was made.
            Err(trouble @ Trouble::Fault { .. }) => return Err(aftermath(trouble.into(), &[], &[])),
            Err(trouble) => {
                let left =
                    format!("perhaps a machine {name:?}, which the server removes when its lease ends");
                return Err(aftermath(trouble.into(), &[], &[left]));
            }
        };
        let mut machine = None;
        let done = self.fill(&lease, import, &mut machine).and_then(|machine| {
            let findings = self.verify(&machine, package)?;
            Ok((machine, findings))
        });
        done.map_err(|error| self.take_import_back(error, &lease, machine.as_ref(), name))
    }

    fn fill(&self, lease: &Ref, import: &Import, machine: &mut Option<Ref>) -> Result<Ref> {
        let info = self.ready(lease, machine)?;
        let entity = machine.clone().ok_or_else(|| Error::corrupt("the server's lease is for no machine"))?;
        let total: u64 = import.files.iter().map(|file| file.source.len().0).sum::<u64>().max(1);
        let mut before = 0;
        for file in &import.files {
            let device = info.all("deviceUrl").find(|url| url.text_at("importKey") == Some(&file.device));
            let device = device.ok_or_else(|| {
                Error::corrupt(format!("the server's lease has no place for {} ({})", file.name, file.device))
            })?;
            let (http, url) = self.way_to(device)?;
            let headers: &[(&str, &str)] = match file.creates {
                true => &[("Overwrite", "t"), ("Content-Type", "application/octet-stream")],
                false => &[("Content-Type", "application/x-vnd.vmware-streamVmdk")],
            };
            let method = if file.creates { "PUT" } else { "POST" };
            let to = upload::To { method, url: &url, headers, name: &file.name };
            let sign = |sent: u64| self.sign(lease, (before + sent).saturating_mul(100) / total);
            upload::send(&http, &to, &file.source, self.around, &sign)?;
            before += file.source.len().0;
        }
        self.sign(lease, 100);
        self.session.call("HttpNfcLeaseComplete", lease, |_| Ok(()))?;
        Ok(entity)
    }

    /// Waits until the lease takes data: its description. The machine is known even where the lease fails.
    fn ready(&self, lease: &Ref, machine: &mut Option<Ref>) -> Result<Element> {
        let started = Instant::now();
        loop {
            let found = self.session.properties(lease, &["state", "info", "error"])?;
            let entity = found.value("info").and_then(|info| info.child("entity")).and_then(Ref::of);
            *machine = entity.or_else(|| machine.take());
            match found.text("state") {
                Some("ready") => {
                    let info = found.value("info").cloned();
                    return info.ok_or_else(|| Error::corrupt("the server's lease has no description"));
                }
                Some("initializing") | None => {}
                Some(state) => {
                    let error = found.value("error");
                    let fault = error.and_then(|error| error.child("fault"));
                    let kind = fault.and_then(|fault| fault.attribute("xsi:type")).unwrap_or("unknown fault");
                    let says = error.and_then(|error| error.text_at("localizedMessage")).unwrap_or(state);
                    return Err(fault_error(
                        kind,
                        format!("the server does not take the machine: {says} ({kind})"),
                    ));
                }
            }
            if self.around.cancel.is_cancelled() {
                return Err(Error::interrupted());
            }
            if started.elapsed() > READY {
                let says = format!("the server is not ready for the disks after {} s", READY.as_secs());
                return Err(Error::new(Kind::Io, says));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Keeps the lease, and shows in the server's client how far it is.
    fn sign(&self, lease: &Ref, percent: u64) {
        let percent = percent.min(100).to_string();
        let told =
            self.session.call("HttpNfcLeaseProgress", lease, |xml| text(xml, "percent", &[], &percent));
        if let Err(trouble) = told {
            tracing::debug!("progress: {trouble:?}");
        }
    }

    /// The address of a device and a client that trusts it. A vCenter sends to the host itself, whose certificate it vouches
    /// for with a thumbprint.
    fn way_to(&self, device: &Element) -> Result<(Http, String)> {
        let url = device.text_at("url").unwrap_or_default();
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if scheme != "https" {
            return Err(Error::refused(format!(
                "the server wants the disks at {url:?}, which is not encrypted"
            )));
        }
        // A host that does not know its own name says `*`: the one that answers here.
        if authority.split(':').next() == Some("*") {
            return Ok((self.session.http.clone(), format!("https://{}/{path}", self.session.authority)));
        }
        let is_same = authority.split(':').next() == self.session.authority.split(':').next();
        let thumbprint = device.text_at("sslThumbprint").and_then(|text| Thumbprint::parse(text).ok());
        let http = match thumbprint {
            Some(thumbprint) if !is_same => Http::new(&Trust::Pinned(thumbprint))?,
            None if !is_same => Http::new(&self.trust)?,
            _ => self.session.http.clone(),
        };
        Ok((http, url.to_owned()))
    }

    /// True where the folder has a machine of that name.
    fn named(&self, name: &str) -> Result<bool, Trouble> {
        let machines = self.session.below(&self.place.folder, "VirtualMachine", &["name", "parent"])?;
        let is_it = |other: &Object| {
            other.name() == name && other.object("parent").as_ref() == Some(&self.place.folder)
        };
        Ok(machines.iter().any(is_it))
    }

    /// Ends the lease, which removes the machine; sees to it that it did.
    fn take_import_back(&self, error: Error, lease: &Ref, machine: Option<&Ref>, name: &str) -> Error {
        let (mut undone, mut left) = (Vec::new(), Vec::new());
        if let Err(trouble) = self.session.call("HttpNfcLeaseAbort", lease, |_| Ok(())) {
            tracing::debug!("ending the lease: {trouble:?}");
        }
        let removed = match machine {
            // A lease that never said what it is for: the server removes that machine itself, as a rule.
            None => match self.named(name) {
                Ok(true) => {
                    left.push(format!(
                        "perhaps a machine {name:?}, which the server removes when its lease ends"
                    ));
                    Ok(false)
                }
                other => other,
            },
            Some(machine) => self.is_there(machine).and_then(|is_there| match is_there {
                true => self.task("Destroy_Task", machine).map(|()| true),
                false => Ok(true),
            }),
        };
        match removed {
            Ok(true) => undone.push(format!("the machine {name:?}")),
            Ok(false) => {}
            Err(trouble) => {
                let id = machine.map(|machine| machine.id.clone()).unwrap_or_default();
                let why = Error::from(trouble);
                left.push(format!(
                    "perhaps the machine {name:?} ({id}), without its disks: it could not be removed ({why}); the \
                     server does so when its lease ends, else remove it there"
                ));
            }
        }
        aftermath(error, &undone, &left)
    }
}

/// The networks that a descriptor's cards are plugged into.
fn networks(descriptor: &Element) -> Vec<String> {
    let sections = descriptor.child("NetworkSection").into_iter();
    let networks = sections.flat_map(|section| section.all("Network"));
    networks.filter_map(|network| network.attribute("name").map(str::to_owned)).collect()
}

/// The import specification of an answer, and findings for what the server says to it. None where something blocks: without
/// one there is nothing to send.
fn agreed(result: &Element, product: &str, findings: &mut Vec<Finding>) -> Result<Option<Element>> {
    for (list, row) in [("error", finding::TARGET_OBJECTS), ("warning", finding::TARGET_REMARKS)] {
        for fault in result.all(list) {
            let says = fault.text_at("localizedMessage").unwrap_or("a fault without words");
            findings.push(row.finding(format!("{product} says: {says}"), ""));
        }
    }
    let specification = result.child("importSpec").filter(|specification| !specification.children.is_empty());
    let is_blocked = findings.iter().any(|finding| finding.severity == Severity::Blocks);
    match specification {
        None if !is_blocked => {
            let says: Vec<&str> = findings.iter().map(|finding| finding.says.as_str()).collect();
            let error = Error::corrupt("the server makes nothing of the descriptor");
            Err(if says.is_empty() { error } else { error.hint(says.join(" ")) })
        }
        specification => Ok(specification.cloned()),
    }
}

/// Writes the UUID and the hardware addresses into an import specification, each at its place in the order of properties.
fn identify(specification: &mut Element, identity: &Identity) -> Result<()> {
    const BEFORE_UUID: [&str; 4] = ["changeVersion", "name", "version", "createDate"];
    const AFTER_ADDRESS: [&str; 6] = [
        "macAddress",
        "wakeOnLanEnabled",
        "resourceAllocation",
        "externalId",
        "uptCompatibilityEnabled",
        "uptv2Enabled",
    ];
    let config = specification.children.iter_mut().find(|child| child.name == "configSpec");
    let config =
        config.ok_or_else(|| Error::unsupported("the server makes several machines of the descriptor"))?;
    if let Some(uuid) = identity.uuid {
        let is_before = |child: &Element| BEFORE_UUID.contains(&child.name.as_str());
        set(config, "uuid", &uuid.to_string(), |config| {
            config.children.iter().take_while(|c| is_before(c)).count()
        });
    }
    let cards: Vec<&mut Element> = config
        .children
        .iter_mut()
        .filter(|child| child.name == "deviceChange")
        .filter_map(|change| change.children.iter_mut().find(|child| child.name == "device"))
        .filter(|device| is_card(device))
        .collect();
    // Which card would be which is not known then.
    if cards.len() != identity.macs.len() && identity.macs.iter().any(Option::is_some) {
        return Err(Error::unsupported(format!(
            "the server makes {} network cards of the descriptor, the machine has {}: their addresses cannot be kept",
            cards.len(),
            identity.macs.len()
        )));
    }
    for (card, mac) in cards.into_iter().zip(&identity.macs) {
        let Some(mac) = mac else { continue };
        let place = |card: &Element| {
            let is_after = |child: &Element| AFTER_ADDRESS.contains(&child.name.as_str());
            card.children.iter().position(is_after).unwrap_or(card.children.len())
        };
        set(card, "addressType", "manual", place);
        set(card, "macAddress", mac, |card| {
            card.children.iter().position(|child| child.name == "addressType").map_or(0, |at| at + 1)
        });
    }
    Ok(())
}

pub(super) fn is_card(device: &Element) -> bool {
    const CARDS: [&str; 7] = [
        "VirtualVmxnet3",
        "VirtualVmxnet2",
        "VirtualVmxnet",
        "VirtualE1000",
        "VirtualE1000e",
        "VirtualPCNet32",
        "VirtualSriovEthernetCard",
    ];
    device.attribute("xsi:type").is_some_and(|kind| CARDS.contains(&kind.rsplit(':').next().unwrap_or(kind)))
}

/// Gives a child a text; makes it where `place` says.
fn set(parent: &mut Element, name: &str, value: &str, place: impl FnOnce(&Element) -> usize) {
    match parent.children.iter_mut().find(|child| child.name == name) {
        Some(child) => child.text = value.to_owned(),
        None => {
            let child = Element { name: name.to_owned(), text: value.to_owned(), ..Element::default() };
            let at = place(parent);
            parent.children.insert(at, child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_stand_at_their_place() {
        let text = "<importSpec><configSpec><name>a</name><version>vmx-13</version><guestId>x</guestId>\
            <deviceChange><operation>add</operation><device xsi:type='VirtualDisk'><key>1</key></device></deviceChange>\
            <deviceChange><device xsi:type='VirtualVmxnet3'><key>2</key><addressType>generated</addressType>\
            <wakeOnLanEnabled>true</wakeOnLanEnabled></device></deviceChange>\
            <deviceChange><device xsi:type='VirtualE1000'><key>3</key><uptCompatibilityEnabled>true</uptCompatibilityEnabled>\
            </device></deviceChange></configSpec></importSpec>";
        let mut tree = Element::parse(text.as_bytes()).unwrap();
        let identity = Identity {
            name: "a".into(),
            uuid: Some(uuid::Uuid::from_u128(1)),
            macs: vec![Some("00:50:56:00:00:01".into()), Some("00:50:56:00:00:02".into())],
        };
        identify(&mut tree, &identity).unwrap();
        let names = |element: &Element| -> Vec<String> {
            element.children.iter().map(|child| child.name.clone()).collect()
        };
        let config = tree.child("configSpec").unwrap();
        assert_eq!(names(config)[..4], ["name", "version", "uuid", "guestId"]);
        let cards: Vec<&Element> =
            config.all("deviceChange").filter_map(|change| change.child("device")).collect();
        assert_eq!(names(cards[0]), ["key"]);
        assert_eq!(names(cards[1]), ["key", "addressType", "macAddress", "wakeOnLanEnabled"]);
        assert_eq!(names(cards[2]), ["key", "addressType", "macAddress", "uptCompatibilityEnabled"]);
        assert_eq!(cards[1].text_at("addressType"), Some("manual"));
        assert_eq!(cards[2].text_at("macAddress"), Some("00:50:56:00:00:02"));
        assert!(identify(&mut Element::default(), &identity).is_err());
    }

    #[test]
    fn a_card_without_an_address_gets_none_of_another_card() {
        let card = "<deviceChange><device xsi:type='VirtualVmxnet3'><key>1</key></device></deviceChange>";
        let text = format!("<importSpec><configSpec>{card}{card}</configSpec></importSpec>");
        let tree = Element::parse(text.as_bytes()).unwrap();
        let identity = |macs: &[Option<&str>]| Identity {
            macs: macs.iter().map(|mac| mac.map(str::to_owned)).collect(),
            ..Identity::default()
        };
        let mut named = tree.clone();
        identify(&mut named, &identity(&[None, Some("00:50:56:00:00:02")])).unwrap();
        let cards: Vec<&Element> = named.child("configSpec").unwrap().all("deviceChange").collect();
        let mac = |at: usize| cards[at].child("device").unwrap().text_at("macAddress");
        assert_eq!((mac(0), mac(1)), (None, Some("00:50:56:00:00:02")));
        // Cards that the server left out would put the lists out of step.
        let three = identity(&[Some("00:50:56:00:00:01"), None, None]);
        assert!(
            identify(&mut tree.clone(), &three).unwrap_err().to_string().contains("makes 2 network cards")
        );
        assert!(identify(&mut tree.clone(), &identity(&[None; 3])).is_ok());
    }

    #[test]
    fn nothing_is_imported_that_the_server_did_not_specify() {
        let answer = |text: &str| {
            let text = format!("<returnval>{text}</returnval>");
            let mut findings = Vec::new();
            let agreed = agreed(&Element::parse(text.as_bytes()).unwrap(), "vCenter", &mut findings);
            (
                agreed.map(|it| it.is_some()).map_err(|e| e.hint_text().unwrap_or_default().to_owned()),
                findings.len(),
            )
        };
        let remark = "<warning><localizedMessage>No floppy.</localizedMessage></warning>";
        let refusal = "<error><localizedMessage>No host.</localizedMessage></error>";
        let specification = "<importSpec><configSpec/></importSpec>";
        assert_eq!(answer(&format!("{specification}{remark}")), (Ok(true), 1));
        assert_eq!(answer(&format!("{refusal}{remark}")), (Ok(false), 2));
        assert_eq!(answer(remark), (Err("vCenter says: No floppy.".into()), 1));
        assert_eq!(answer("<importSpec/>"), (Err(String::new()), 0));
    }
}
