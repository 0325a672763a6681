//! What a recovery needs of a libvirt besides registering: a network of its own, its machine stopped and forgotten, its disks
//! pulled out of the point that they lie over.
//!
//! Source: libvirt, "Network XML format"; virsh(1): `net-define`, `blockpull`, `blockjob`. Whatever is changed here is named by
//! the UUID that it was made with: what has the same name and another UUID is somebody else's.

use super::domain::typed;
use super::{Libvirt, QUESTION, START};
use crate::hypervisor::xml::{self, Element};
use crate::registrar::{Surroundings, Wanted};
use landfall_image::{Bytes, Error, Kind, Result};
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

/// A libvirt on this host.
pub struct Host<'a>(Libvirt<'a>);

/// A machine that has a file of a folder attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As libvirt knows it.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// Its processors run, or are paused.
    pub is_active: bool,
    /// They are paused.
    pub is_paused: bool,
}

/// A disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// What libvirt calls its place: `vda`.
    pub place: String,
    /// Its file.
    pub file: String,
    /// It lies over another image.
    pub has_backing: bool,
}

/// Between two questions about a job.
const LOOK_AROUND: Duration = Duration::from_millis(250);
/// QEMU that was not told to wait for a lost server loses a read by finding that out, and one more while it connects again.
const TRIES: usize = 5;

impl<'a> Host<'a> {
    /// Checks that there is a connection, to a libvirt of this host.
    ///
    /// # Errors
    /// Refused for another host's: points are read over a socket of this one.
    pub fn connect(wanted: &Wanted, around: &'a Surroundings<'a>) -> Result<Host<'a>> {
        if !matches!(wanted.at.split([':', '+']).next(), Some("qemu")) {
            return Err(Error::refused(format!("{:?} is no address of a libvirt with QEMU", wanted.at))
                .hint("write qemu:///system"));
        }
        let libvirt = Libvirt::connect(wanted, around)?;
        if libvirt.is_remote() {
            return Err(Error::refused(format!(
                "{} is on another host, where the recovery point cannot be read",
                wanted.at
            ))
            .hint(
                "run landfall on that host, or copy the machine there: landfall convert point:NAME --to kvm",
            ));
        }
        Ok(Host(libvirt))
    }

    /// True where every user has a libvirt of his own, which makes no networks.
    pub fn is_session(&self) -> bool {
        self.0.uri.split(['?', '#']).next().is_some_and(|path| path.ends_with("/session"))
    }

    /// A command to type.
    pub fn typed(&self, verb: &str, names: &[&str]) -> String {
        typed(&self.0.uri, verb, names)
    }

    /// True where machines run on the host's own virtualisation.
    pub fn has_kvm(&self) -> Result<bool> {
        match self.0.virsh(&["domcapabilities", "--virttype", "kvm"]) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::Interrupted => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// The user and group as which it starts QEMU, where it says so.
    pub fn qemu_owner(&self) -> Result<Option<(u32, u32)>> {
        let text = self.0.virsh(&["capabilities"])?;
        Ok(owner(&Element::parse(text.as_bytes())?))
    }

    /// The UUID of the network with that name.
    pub fn network(&self, name: &str) -> Result<Option<Uuid>> {
        let listed = self.0.virsh(&["net-list", "--all", "--name"])?;
        if !listed.lines().any(|line| line.trim_end() == name) {
            return Ok(None);
        }
        let uuid = self.0.virsh(&["net-uuid", "--network", name])?;
        let uuid = uuid.trim().parse().map_err(|_| {
            Error::corrupt(format!("virsh says that {:?} is the UUID of the network {name:?}", uuid.trim()))
        })?;
        Ok(Some(uuid))
    }

    /// Makes and starts the network `name` that leads nowhere, unless it is there with that UUID.
    ///
    /// # Errors
    /// Refused where another network has the name.
    pub fn make_network(&self, name: &str, uuid: Uuid) -> Result<()> {
        match self.network(name)? {
            Some(there) if there == uuid => {}
            Some(_) => {
                return Err(Error::refused(format!(
                    "{} has a network {name:?} already, which is not of this recovery",
                    self.0.uri
                ))
                .hint(format!(
                    "remove the recovery that it belongs to; or, if nothing needs it, the network: {}; or choose another name with --name",
                    self.typed("net-undefine --network", &[name])
                )));
            }
            None => {
                let file = self.temporary(&network(name, uuid))?;
                let args = ["net-define".as_ref(), "--file".as_ref(), file.path().as_os_str()];
                self.0.virsh_for(&args, QUESTION, false)?;
            }
        }
        let active = self.0.virsh(&["net-list", "--uuid"])?;
        let uuid = uuid.to_string();
        if active.lines().any(|line| line.trim() == uuid) {
            return Ok(());
        }
        let args = ["net-start", "--network", &uuid].map(OsStr::new);
        self.0.virsh_for(&args, START, false).map(drop)
    }

    /// Removes the network with that UUID. One that is not there is no error.
    pub fn remove_network(&self, uuid: Uuid) -> Result<bool> {
        let uuid = uuid.to_string();
        let has = |listed: &str| listed.lines().any(|line| line.trim() == uuid);
        if !has(&self.0.virsh(&["net-list", "--all", "--uuid"])?) {
            return Ok(false);
        }
        if has(&self.0.virsh(&["net-list", "--uuid"])?) {
            self.0.virsh_for(&["net-destroy", "--network", &uuid].map(OsStr::new), QUESTION, false)?;
        }
        // A transient one went with that.
        if has(&self.0.virsh(&["net-list", "--all", "--uuid"])?) {
            self.0.virsh_for(&["net-undefine", "--network", &uuid].map(OsStr::new), QUESTION, false)?;
        }
        Ok(true)
    }

    fn temporary(&self, text: &str) -> Result<tempfile::NamedTempFile> {
        let folder = self.0.around.scratch;
        let cannot = |e| Error::io("cannot write the definition", e).in_file(folder);
        let made = tempfile::Builder::new().prefix("landfall-").suffix(".xml").tempfile_in(folder);
        let mut file = made.map_err(cannot)?;
        file.write_all(text.as_bytes()).map_err(cannot)?;
        Ok(file)
    }

    /// The machines that have a file in `folder` attached, as they run or as they would be started.
    pub fn users_of(&self, folder: &Path) -> Result<Vec<User>> {
        let is_in = |file: &String| Path::new(file).starts_with(folder);
        let mut users = Vec::new();
        for found in self.0.domains()? {
            let uuid = found.uuid.as_str();
            let mut is_user = found.files.iter().any(is_in);
            if !is_user {
                let inactive = self.0.virsh(&["dumpxml", "--inactive", "--domain", uuid]);
                // Of one that runs and is not defined there is none.
                is_user = inactive.is_ok_and(|text| {
                    let root = Element::parse(text.as_bytes());
                    root.is_ok_and(|root| super::domain::domain(String::new(), &root).files.iter().any(is_in))
                });
            }
            if is_user {
                let state = self.state(uuid)?;
                users.push(User {
                    uuid: uuid
                        .parse()
                        .map_err(|_| Error::corrupt(format!("{uuid:?} is no UUID of a machine")))?,
                    name: found.identity.name,
                    is_active: !matches!(state.as_str(), "shut off" | "crashed"),
                    is_paused: state == "paused",
                });
            }
        }
        Ok(users)
    }

    fn state(&self, uuid: &str) -> Result<String> {
        Ok(self.0.virsh(&["domstate", "--domain", uuid])?.trim().to_owned())
    }

    /// Starts a machine that is off, and lets one go on that is paused.
    ///
    /// # Errors
    /// Where it stops again at once: its point cannot be read.
    pub fn start(&self, user: &User) -> Result<()> {
        let uuid = user.uuid.to_string();
        if !user.is_active {
            return self.0.virsh_for(&["start", "--domain", &uuid].map(OsStr::new), START, true).map(drop);
        }
        for _ in 0..TRIES {
            if self.state(&uuid)? != "paused" {
                return Ok(());
            }
            self.0.virsh_for(&["resume", "--domain", &uuid].map(OsStr::new), START, true)?;
            std::thread::sleep(LOOK_AROUND);
        }
        match self.state(&uuid)?.as_str() {
            "paused" => Err(Error::new(
                Kind::Io,
                format!("{} stops again at once: a disk of it cannot be read or written", user.name),
            )
            .hint(format!(
                "see which ({}); a recovery point has to be served: start the service, or run the command that recovered it again, with --serve",
                self.typed("domblkerror --domain", &[&uuid])
            ))),
            _ => Ok(()),
        }
    }

    /// Lets a machine go on that stopped because a disk could not be read; true where it had.
    pub fn wake(&self, uuid: Uuid) -> Result<bool> {
        let uuid = uuid.to_string();
        let state = self.0.virsh(&["domstate", "--reason", "--domain", &uuid])?;
        if !state.trim().eq_ignore_ascii_case("paused (I/O error)") {
            return Ok(false);
        }
        self.0.virsh_for(&["resume", "--domain", &uuid].map(OsStr::new), START, true)?;
        Ok(true)
    }

    /// Stops a machine as a loss of power does.
    pub fn stop(&self, user: &User) -> Result<()> {
        if user.is_active {
            let uuid = user.uuid.to_string();
            self.0.virsh_for(&["destroy", "--domain", &uuid].map(OsStr::new), START, false)?;
        }
        Ok(())
    }

    /// Removes the definition of a machine that is off, with what libvirt keeps for it. One that is not there is no error.
    pub fn forget(&self, user: &User) -> Result<()> {
        let uuid = user.uuid.to_string();
        if !self.0.uuids()?.contains(&uuid) {
            return Ok(());
        }
        let keeps = ["--nvram", "--managed-save", "--snapshots-metadata", "--checkpoints-metadata"];
        let args: Vec<&OsStr> =
            ["undefine", "--domain", &uuid].into_iter().chain(keeps).map(OsStr::new).collect();
        self.0.virsh_for(&args, QUESTION, false).map(drop)
    }

    /// The disks of a machine, as it runs; of one that is off, as it would be started.
    pub fn attached(&self, uuid: Uuid) -> Result<Vec<Attached>> {
        let text = self.0.virsh(&["dumpxml", "--domain", &uuid.to_string()])?;
        Ok(attached(&Element::parse(text.as_bytes())?))
    }

    /// Copies what a disk of a running machine lies over into its own image, until it lies over nothing. `progress` is told of the
    /// bytes that are done and those in all, as far as libvirt counts them. A copy that is under way is watched to its end.
    ///
    /// # Errors
    /// Where the copy fails; [`Kind::Interrupted`] where the user asks to stop: it is ended, and what was copied stays.
    pub fn pull(
        &self,
        uuid: Uuid,
        place: &str,
        at_most: Option<Bytes>,
        progress: &mut dyn FnMut(Bytes, Bytes),
    ) -> Result<()> {
        for _ in 0..TRIES {
            if !self.lies_over(uuid, place)? {
                return Ok(());
            }
            self.pull_once(&uuid.to_string(), place, at_most, progress)?;
        }
        match self.lies_over(uuid, place)? {
            false => Ok(()),
            true => Err(Error::new(
                Kind::Io,
                format!("the copy of {place} ended, and the disk still lies over the recovery point"),
            )
            .hint(
                "look into libvirt's log of the machine; free space where its disks lie, and run it again",
            )),
        }
    }

    fn lies_over(&self, uuid: Uuid, place: &str) -> Result<bool> {
        let disks = self.attached(uuid)?;
        let disk = disks.iter().find(|disk| disk.place == place);
        disk.map(|disk| disk.has_backing)
            .ok_or_else(|| Error::refused(format!("the machine has no disk {place} any more")))
    }

    fn pull_once(
        &self,
        uuid: &str,
        place: &str,
        at_most: Option<Bytes>,
        progress: &mut dyn FnMut(Bytes, Bytes),
    ) -> Result<()> {
        if self.job(uuid, place)?.is_none() {
            let mut args = vec!["blockpull", "--domain", uuid, "--path", place];
            let rate = at_most.map(|rate| (rate.0 >> 20).max(1).to_string());
            if let Some(rate) = &rate {
                args.extend(["--bandwidth", rate]);
            }
            let args: Vec<&OsStr> = args.into_iter().map(OsStr::new).collect();
            self.0.virsh_for(&args, QUESTION, true)?;
        }
        while let Some((done, all)) = self.job(uuid, place)? {
            progress(done, all);
            if self.0.around.cancel.is_cancelled() {
                let args = ["blockjob", "--abort", "--domain", uuid, "--path", place].map(OsStr::new);
                self.0.virsh_for(&args, START, false)?;
                return Err(Error::interrupted());
            }
            std::thread::sleep(LOOK_AROUND);
        }
        // Its end reaches the definition a moment later.
        std::thread::sleep(LOOK_AROUND);
        Ok(())
    }

    /// The job of a disk: bytes done, and in all; `None` where there is none.
    fn job(&self, uuid: &str, place: &str) -> Result<Option<(Bytes, Bytes)>> {
        let args = ["blockjob", "--info", "--raw", "--domain", uuid, "--path", place].map(OsStr::new);
        // Asked once more after Ctrl-C: what runs has to be ended.
        Ok(job(&self.0.virsh_for(&args, QUESTION, false)?))
    }

    /// Defines a machine that is off anew, with disks that lie over nothing.
    pub fn forget_backing(&self, uuid: Uuid) -> Result<()> {
        let uuid = uuid.to_string();
        let args = ["dumpxml", "--inactive", "--security-info", "--domain", &uuid].map(OsStr::new);
        let text = self.0.virsh_for(&args, QUESTION, false)?;
        let file = self.temporary(&xml::without(&text, "backingStore")?)?;
        let args = ["define".as_ref(), "--file".as_ref(), file.path().as_os_str()];
        self.0.virsh_for(&args, QUESTION, false).map(drop)
    }
}

/// A network without a way out: no `forward`, and no address of the host in it.
pub fn network(name: &str, uuid: Uuid) -> String {
    format!(
        "<network>\n  <name>{}</name>\n  <uuid>{uuid}</uuid>\n  <bridge stp=\"on\" delay=\"0\"/>\n</network>\n",
        xml::escape(name)
    )
}

fn owner(capabilities: &Element) -> Option<(u32, u32)> {
    let models = capabilities.child("host")?.all("secmodel");
    let dac = models.into_iter().find(|model| model.text_at("model") == Some("dac"))?;
    let (user, group) = dac.text_at("baselabel")?.split_once(':')?;
    let number = |text: &str| text.trim().trim_start_matches('+').parse().ok();
    Some((number(user)?, number(group)?))
}

fn attached(root: &Element) -> Vec<Attached> {
    let disks = root.child("devices").into_iter().flat_map(|devices| devices.all("disk"));
    let disk = |disk: &Element| {
        let backing = disk.child("backingStore");
        Some(Attached {
            place: disk.child("target")?.attribute("dev")?.to_owned(),
            file: disk.child("source")?.attribute("file")?.to_owned(),
            // An empty one ends the chain.
            has_backing: backing.is_some_and(|backing| backing.child("source").is_some()),
        })
    };
    disks.filter_map(disk).collect()
}

/// `blockjob --raw`: `key=value` lines; nothing where there is no job.
fn job(text: &str) -> Option<(Bytes, Bytes)> {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
        line.and_then(|value| value.trim().parse().ok()).map(Bytes)
    };
    text.lines()
        .any(|line| line.trim().starts_with("type="))
        .then(|| (value("cur").unwrap_or_default(), value("end").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_virsh_prints_is_understood() {
        let raw = " type=Block Pull\n bandwidth=1048576\n cur=65536\n end=4294967296\n";
        assert_eq!(job(raw), Some((Bytes(65536), Bytes(4 << 30))));
        assert_eq!(job("\n"), None);
        let text = "<capabilities><host><secmodel><model>apparmor</model></secmodel><secmodel><model>dac</model>\
            <baselabel type='kvm'>+64055:+108</baselabel></secmodel></host></capabilities>";
        let root = |text: &str| Element::parse(text.as_bytes()).unwrap();
        assert_eq!(owner(&root(text)), Some((64055, 108)));
        assert_eq!(owner(&root("<capabilities><host/></capabilities>")), None);
        let domain = "<domain><devices><disk><source file='/a'/><backingStore type='network'><source protocol='nbd'/>\
            <backingStore/></backingStore><target dev='vda'/></disk><disk><source file='/b'/><backingStore/>\
            <target dev='vdb'/></disk><disk><source file='/c'/><target dev='sda'/></disk><disk device='cdrom'>\
            <target dev='sdb'/></disk></devices></domain>";
        let found: Vec<_> =
            attached(&root(domain)).into_iter().map(|disk| (disk.place, disk.has_backing)).collect();
        assert_eq!(found, [("vda".to_owned(), true), ("vdb".to_owned(), false), ("sda".to_owned(), false)]);
    }

    #[test]
    fn the_network_leads_nowhere() {
        let text = network("landfall-web01 <test>", Uuid::nil());
        let root = Element::parse(text.as_bytes()).unwrap();
        assert_eq!(root.text_at("name"), Some("landfall-web01 <test>"));
        assert!(root.child("forward").is_none() && root.child("ip").is_none());
    }
}
