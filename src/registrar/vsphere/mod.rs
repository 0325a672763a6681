//! vSphere: a vCenter or an ESXi host, through its web service (vim25).
//!
//! Two ways, by what lies in the folder: an OVF or OVA is imported ([`import`]), a `.vmx` with ESXi's own disks is uploaded to a
//! datastore and registered there ([`datastore`]). Both look first at all that must not be there twice.
//!
//! Source: "vSphere Web Services API", and the behaviour of VMware's simulator, against which the tests run.

mod datastore;
mod http;
mod import;
mod inventory;
mod place;
mod soap;
mod upload;

use super::credentials::{self, Credentials};
use super::package::{Definition, Package};
use super::{Coming, Done, Identity, Plan, Registrar, Surroundings, Wanted};
use crate::event::Event;
use crate::finding;
use crate::hypervisor::xml::Element;
use crate::machine::parse_mac;
use crate::trust::Trust;
use inventory::Object;
use landfall_boot::check::Finding;
use landfall_image::{Bytes, Error, Kind, Result};
use place::Place;
use soap::{Ref, Session, Trouble, returned_ref};
use std::time::Duration;

/// Registering and removing is a matter of seconds; a loaded vCenter takes minutes.
const TASK: Duration = Duration::from_secs(600);

const FREE_SPACE: &str = "Free space there, or choose another one with --datastore.";

/// A login with a place.
pub struct Vsphere<'a> {
    session: Session,
    place: Place,
    trust: Trust,
    start: bool,
    around: &'a Surroundings<'a>,
    planned: Option<Planned>,
}

enum Planned {
    Import(import::Import),
    Upload(datastore::Upload),
}

impl<'a> Vsphere<'a> {
    /// Logs in, and finds the place.
    pub fn connect(wanted: &Wanted, around: &'a Surroundings<'a>) -> Result<Vsphere<'a>> {
        let address = Address::parse(&wanted.at)?;
        let trust = Trust::of(wanted.ca.as_deref(), wanted.thumbprint)?;
        let credentials = log_in(wanted, &address, around)?;
        around
            .observer
            .event(Event::Step(format!("Logging in at {} as {}", address.authority, credentials.user)));
        let session = Session::open(&address.authority, &trust, &credentials)?;
        let place = Place::find(&session, wanted).inspect_err(|_| session.close())?;
        Ok(Vsphere { session, place, trust, start: wanted.start, around, planned: None })
    }

    /// Every machine there, with what must not be there twice.
    fn machines(&self) -> Result<Vec<Object>> {
        let root = self.session.content.manager("rootFolder")?;
        let paths = ["name", "parent", "config.uuid", "config.instanceUuid", "config.hardware.device"];
        Ok(self.session.below(&root, "VirtualMachine", &paths)?)
    }

    /// Every one of the machines whose name, id or address is that of `identity`.
    fn collide(&self, machines: &[Object], identity: &Identity) -> Vec<Finding> {
        let mut findings = Vec::new();
        for other in machines {
            let (name, id) = (other.name(), &other.reference.id);
            // Names are unique in a folder, and on a host.
            let is_here = other.object("parent").as_ref() == Some(&self.place.folder);
            if name == identity.name && (is_here || !self.session.content.is_vcenter()) {
                findings.push(finding::TARGET_NAME_TAKEN.finding(
                    format!("A machine with the name {name:?} is in that folder already ({id})."),
                    "Remove or rename it there, choose another --register-folder, or convert again with --name.",
                ));
            }
            let wanted = identity.uuid.map(|uuid| uuid.to_string());
            let ids = ["config.uuid", "config.instanceUuid"].map(|path| other.text(path));
            if let Some(uuid) = wanted.filter(|uuid| ids.contains(&Some(uuid))) {
                findings.push(finding::TARGET_ID_TAKEN.finding(
                    format!("{name:?} ({id}) has the UUID {uuid} already."),
                    "It is another copy of this machine: remove it there first.",
                ));
            }
            for mac in cards(other).iter().flatten().filter(|mac| identity.has(mac)) {
                findings.push(finding::TARGET_ADDRESS_TAKEN.finding(
                    format!("{name:?} ({id}) has a network card with the address {mac}."),
                    "It is another copy of this machine: remove it there, or give this one another address with --map.",
                ));
            }
        }
        findings
    }

    /// The networks that the cards need, by name; findings for those that are not there.
    fn networks(&self, names: &[String], findings: &mut Vec<Finding>) -> Vec<(String, Ref)> {
        let mut out = Vec::new();
        for name in names {
            match self.place.networks.iter().find(|(own, _)| own == name) {
                Some((_, network)) => out.push((name.clone(), network.clone())),
                None => {
                    let all: Vec<&str> = self.place.networks.iter().map(|(name, _)| name.as_str()).collect();
                    findings.push(finding::TARGET_NETWORK_MISSING.finding(
                        format!("There is no network {name:?} at {}.", self.place.says),
                        format!("Convert again with --network and one of: {}.", all.join(", ")),
                    ));
                }
            }
        }
        out
    }

    fn check_room(&self, needed: Bytes, findings: &mut Vec<Finding>) {
        let free = self.place.free;
        if free < needed {
            findings.push(finding::TARGET_STORAGE.finding(
                format!(
                    "The datastore {} has {free} free, {needed} are to be sent.",
                    self.place.datastore_name
                ),
                FREE_SPACE,
            ));
        }
    }

    /// What the server made, against what was wanted: sizes of disks must be right; what else differs is said.
    fn verify(&self, machine: &Ref, package: &Package) -> Result<Vec<Finding>> {
        let paths = ["name", "config.uuid", "config.hardware.device"];
        let found = self.session.properties(machine, &paths)?;
        let mut sizes: Vec<u64> = package.disks.iter().map(|disk| disk.virtual_size.0 / 1024).collect();
        let disks = devices(&found).filter(|device| device.attribute("xsi:type") == Some("VirtualDisk"));
        let mut theirs: Vec<u64> =
            disks.filter_map(|disk| disk.text_at("capacityInKB")?.parse().ok()).collect();
        sizes.sort_unstable();
        theirs.sort_unstable();
        if sizes != theirs {
            return Err(Error::corrupt(format!(
                "the server made disks of {theirs:?} KiB; the machine's have {sizes:?} KiB"
            )));
        }
        let mut findings = Vec::new();
        let mut differs = |what: String| {
            findings.push(finding::NOT_HELD.finding(what, "Set it there by hand before the first start."));
        };
        let cards = cards(&found);
        for (at, mac) in package.identity.macs.iter().enumerate() {
            let has = cards.get(at).and_then(Option::as_deref).unwrap_or("none");
            if let Some(mac) = mac.as_deref().filter(|mac| *mac != has) {
                differs(format!(
                    "The server did not give the machine's network card {} the hardware address {mac}, but {has}.",
                    at + 1
                ));
            }
        }
        let uuid = package.identity.uuid.map(|uuid| uuid.to_string());
        if let Some(uuid) = uuid.filter(|uuid| found.text("config.uuid") != Some(uuid)) {
            differs(format!("The server did not give the machine the UUID {uuid}."));
        }
        Ok(findings)
    }

    /// Starts it. It stays registered where it does not start.
    fn power_on(&self, machine: &Ref) -> Result<()> {
        self.around.observer.event(Event::Step("Starting it".into()));
        let started = self
            .session
            .call("PowerOnVM_Task", machine, |_| Ok(()))
            .and_then(|answer| Ok(returned_ref(&answer)?))
            .and_then(|task| self.wait_for_start(&task, machine));
        started.map_err(|trouble| {
            Error::from(trouble).hint(format!(
                "it is registered as {}, and stays so: see what the server says, and start it there",
                machine.id
            ))
        })
    }

    fn wait_for_start(&self, task: &Ref, machine: &Ref) -> Result<(), Trouble> {
        // A question holds the task up until somebody answers.
        let until = std::time::Instant::now() + TASK;
        loop {
            let waited = self.session.wait(task, Duration::from_secs(5), Some(self.around.cancel));
            match waited {
                Ok(_) => return Ok(()),
                Err(Trouble::Error(error)) if error.kind() == Kind::Io && error.io_error().is_none() => {
                    let found = self.session.properties(machine, &["runtime.question"])?;
                    if let Some(question) = found.value("runtime.question").and_then(|it| it.text_at("text"))
                    {
                        return Err(Error::refused(format!("the server asks: {question}")).into());
                    }
                    if std::time::Instant::now() > until {
                        return Err(error.into());
                    }
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Runs a task and waits for it; goes on after Ctrl-C, for taking back.
    fn task(&self, method: &str, this: &Ref) -> Result<(), Trouble> {
        let task = returned_ref(&self.session.call(method, this, |_| Ok(()))?)?;
        self.session.wait(&task, TASK, None).map(|_| ())
    }

    /// False where the server says that it is gone.
    fn is_there(&self, object: &Ref) -> Result<bool, Trouble> {
        match self.session.properties(object, &["name"]) {
            Ok(_) => Ok(true),
            Err(trouble) if trouble.is_fault("ManagedObjectNotFound") => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }
}

fn log_in(wanted: &Wanted, address: &Address, around: &Surroundings<'_>) -> Result<Credentials> {
    let mut found = match (&wanted.credentials, &wanted.environment, &address.user) {
        (Some(path), _, _) => Some(credentials::from_file(path)?),
        (None, Some(own), _) => Some(own.clone()),
        (None, None, Some(user)) => credentials::from_keyring(&address.host, user, around.cancel)?,
        (None, None, None) => None,
    };
    if let (Some(found), Some(user)) = (&mut found, &address.user)
        && found.user != *user
    {
        return Err(Error::refused(format!(
            "the address names the user {user}, the credentials {}",
            found.user
        ))
        .hint("leave the user out of the address"));
    }
    found.ok_or_else(|| {
        Error::refused(format!("there is no user name and password for {}", address.host)).hint(format!(
            "give a file of your own with --credentials (two lines: user = 'NAME', password = 'PASSWORD'); or set \
             LANDFALL_USER and LANDFALL_PASSWORD; or write the user into the address and the password into the \
             keyring: secret-tool store --label=landfall service landfall host {} user USER",
            address.host
        ))
    })
}

/// `vsphere://USER@HOST:PORT`
struct Address {
    user: Option<String>,
    host: String,
    authority: String,
}

impl Address {
    fn parse(text: &str) -> Result<Address> {
        let refused = |says: &str, hint: &str| Err(Error::refused(says).hint(hint));
        let rest = text.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return refused(
                "a password in the address is seen by every user of this system",
                "give a file with --credentials, and change that password",
            );
        }
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        if host.is_empty() {
            return refused("the address has no host", "write vsphere://VCENTER or esxi://HOST");
        }
        let user = user.map(|user| user.replace("%40", "@").replace("%5c", "\\").replace("%5C", "\\"));
        Ok(Address { user, host: host.to_owned(), authority: authority.to_owned() })
    }
}

/// The devices of a machine.
fn devices(machine: &Object) -> impl Iterator<Item = &Element> {
    machine.value("config.hardware.device").into_iter().flat_map(|devices| &devices.children)
}

/// The hardware address of every network card, in the order of its keys, by which the guest counts them.
fn cards(machine: &Object) -> Vec<Option<String>> {
    let is_card = |device: &&Element| import::is_card(device) || device.child("macAddress").is_some();
    let mut cards: Vec<&Element> = devices(machine).filter(is_card).collect();
    cards.sort_by_key(|card| card.text_at("key").and_then(|key| key.parse::<i64>().ok()));
    cards.iter().map(|card| parse_mac(card.text_at("macAddress")?)).collect()
}

impl Registrar for Vsphere<'_> {
    fn taken(&mut self, identities: &[&Identity]) -> Result<Vec<Vec<Finding>>> {
        let machines = self.machines()?;
        Ok(identities.iter().map(|identity| self.collide(&machines, identity)).collect())
    }

    fn look(&mut self, coming: &Coming<'_>) -> Result<Vec<Finding>> {
        let mut findings = self.collide(&self.machines()?, &coming.identity);
        for artifact in coming.artifacts {
            let ending = artifact.name.rsplit_once('.').map_or("", |(_, ending)| ending);
            match ending {
                "ovf" => self.look_at_import(coming, &artifact.text, &mut findings)?,
                "vmx" => self.look_at_upload(coming, &artifact.text, &mut findings)?,
                _ => {}
            }
        }
        Ok(findings)
    }

    fn plan(&mut self, package: &Package) -> Result<Plan> {
        let mut plan =
            Plan { findings: self.collide(&self.machines()?, &package.identity), ..Plan::default() };
        let is_ours = |definition: &Definition| !matches!(definition, Definition::Domain(_));
        let definition = package.only("definition for vSphere", "esxi (or ova)", is_ours)?;
        self.planned = match definition {
            Definition::Vmx(path) => Some(Planned::Upload(self.plan_upload(package, path, &mut plan)?)),
            other => self.plan_import(package, other, &mut plan)?.map(Planned::Import),
        };
        if self.start {
            plan.steps.push("start it".to_owned());
        }
        Ok(plan)
    }

    fn carry_out(&mut self, package: &Package) -> Result<Done> {
        let (machine, findings) = match self.planned.take() {
            Some(Planned::Import(import)) => self.import(package, &import)?,
            Some(Planned::Upload(upload)) => self.upload(package, &upload)?,
            None => return Err(Error::corrupt("there is no plan to carry out")),
        };
        if self.start {
            self.power_on(&machine)?;
        }
        Ok(Done { id: machine.id, started: self.start, findings })
    }
}

impl Drop for Vsphere<'_> {
    fn drop(&mut self) {
        self.session.close();
    }
}
