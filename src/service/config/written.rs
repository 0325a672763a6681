//! The file as it is written, and what of it is refused: with its line, and what fixes it.

use super::{
    Alarm, Api, Authority, Client, Config, Drill, Folder, InSync, Protect, Senders, Upkeep, Who, sends,
};
use crate::hypervisor;
use crate::name::Name;
use crate::ops::parse_size;
use crate::ops::toml_file::{self, wrong};
use crate::receive::folder::Options;
use crate::receive::nbd::{Config as Receive, Listen};
use crate::receive::subject::Subject;
use crate::vault::retention::duration;
use landfall_image::convert::RateLimit;
use landfall_image::nbd::{ClientOptions, TlsFiles};
use landfall_image::{Bytes, Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use toml::Spanned;

/// As it is written.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Written {
    /// The vault's folder: empty or a vault; by default /var/lib/landfall/vault.
    vault: Option<PathBuf>,
    /// The folder of the sockets for programs on this machine; by default /run/landfall.
    sockets: Option<PathBuf>,
    /// The group of this machine that may read points through the local socket, by name or number: that of the hypervisor's
    /// processes, such as libvirt-qemu.
    #[schemars(with = "Option<String>")]
    points_group: Option<Spanned<String>>,
    /// Where disks come in.
    receive: WrittenReceive,
    /// Where others ask, and order.
    api: WrittenApi,
    /// The authority that certificates of clients are handed out of (landfall certificate add).
    authority: Option<WrittenAuthority>,
    /// How every machine is protected that says nothing else.
    protect: WrittenProtect,
    /// Machines with settings of their own, by name.
    #[schemars(with = "BTreeMap<String, WrittenProtect>")]
    machine: BTreeMap<Spanned<String>, WrittenProtect>,
    /// Machines whose points are cut at one moment, by the group's name.
    #[schemars(with = "BTreeMap<String, WrittenGroup>")]
    group: BTreeMap<Spanned<String>, WrittenGroup>,
    /// Folders in which exported machines, images and deltas of them are put.
    folder: Vec<WrittenFolder>,
    /// RBD streams.
    rbd: WrittenRbd,
    /// NBD servers that disks are pulled from.
    pull: WrittenPull,
    /// What is done in the background.
    upkeep: WrittenUpkeep,
    /// How points are booted in isolation, and patched ahead.
    drill: WrittenDrill,
    /// Who is told when something is wrong.
    alarm: WrittenAlarm,
    /// What is sent to other landfalls by the clock.
    send: Vec<sends::Written>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WrittenReceive {
    /// Addresses and ports for NBD over TLS: `[::]:10809`. A local socket is there in any case.
    #[schemars(with = "Vec<String>")]
    listen: Vec<Spanned<String>>,
    /// The receiver's certificate, in PEM, with those that vouch for it.
    certificate: Option<PathBuf>,
    /// Its key.
    key: Option<PathBuf>,
    /// The authority of the clients' certificates.
    clients_ca: Option<PathBuf>,
    /// On a loopback address without certificates: whoever is on this machine may write to every disk.
    anybody_on_this_machine: bool,
    /// Which client may write to which machines; without, each may write to all.
    client: Vec<WrittenClient>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenClient {
    /// The subject of its certificate, such as `CN=hv1,O=Example`, in this order or the reverse one (RFC 4514; openssl x509 -noout -subject
    /// -nameopt RFC2253 -in CERTIFICATE). Types of attributes that have no name here are written as their numbers, and a comma in a value as
    /// `\,`.
    #[schemars(with = "Option<String>")]
    #[serde(default)]
    subject: Option<Spanned<String>>,
    /// The SHA-256 of its certificate, in hexadecimal digits.
    #[schemars(with = "Option<String>")]
    #[serde(default)]
    sha256: Option<Spanned<String>>,
    /// The machines, as patterns: `web*`.
    #[schemars(with = "Vec<String>")]
    machines: Spanned<Vec<String>>,
    /// It may read their recovery points, too.
    #[serde(default)]
    recovers: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenAuthority {
    /// Its certificate, in PEM; the same as clients_ca of [receive].
    #[schemars(with = "PathBuf")]
    certificate: Spanned<PathBuf>,
    /// Its key, in PEM.
    key: PathBuf,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WrittenApi {
    /// Addresses and ports for HTTPS: `[::]:8470`. A local socket is there in any case.
    #[schemars(with = "Vec<String>")]
    listen: Vec<Spanned<String>>,
    /// The certificate, in PEM, with those that vouch for it.
    certificate: Option<PathBuf>,
    /// Its key.
    key: Option<PathBuf>,
    /// The authority of the certificates of other landfalls, which send machines (landfall send).
    clients_ca: Option<PathBuf>,
    /// By what those are known: `certificate`, `token` (with the role operate), `either` or `both`; by default by their certificate where
    /// `clients_ca` is there, else by a token. Which machines a certificate may send is said in `[receive] client`.
    #[schemars(with = "Option<Senders>")]
    senders: Option<Spanned<Senders>>,
    /// A user of this machine, by name or number, who may look through the local socket and do no more. The socket is opened to the
    /// group of the service's user, so this one has to be in it.
    #[schemars(with = "Option<String>")]
    viewer: Option<Spanned<String>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WrittenProtect {
    /// Between two checkpoints, 1s to 1h; by default 5s.
    #[schemars(with = "Option<String>")]
    checkpoint: Option<Spanned<String>>,
    /// Which points are kept; by default `24h every 5s, 7d every 1h, 30d every 1d`.
    #[schemars(with = "Option<String>")]
    retention: Option<Spanned<String>>,
    /// How old the newest point may be; by default three times `checkpoint`.
    #[schemars(with = "Option<String>")]
    rpo: Option<Spanned<String>>,
    /// How old the last delta may be of a machine that is fed by deltas and not mirrored; by default the machine's own `rpo`, where that is
    /// given, else 26h.
    #[schemars(with = "Option<String>")]
    delta_rpo: Option<Spanned<String>>,
    /// When a copy is complete: `stays` (the client flushes and stays, as QEMU's mirror does), `flush`, or `said`
    /// (landfall ready); by default `stays`.
    in_sync: Option<InSync>,
    /// The newest point is booted in isolation this often, 1m to 365d: `1d`; `never` is the default.
    #[schemars(with = "Option<String>")]
    prove: Option<Spanned<String>>,
    /// The newest point is patched ahead for these, so that its recovery starts at once: `["kvm"]`.
    #[schemars(with = "Option<Vec<String>>")]
    prepare: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenFolder {
    /// The folder. Drops for a machine are put into a folder of its name in there.
    #[schemars(with = "PathBuf")]
    path: Spanned<PathBuf>,
    /// Only drops with a manifest (landfall.json, SHA256SUMS, .sha256 beside each file) are taken; by default, a folder whose name does not end
    /// in .partial is complete.
    #[serde(default)]
    manifest: bool,
    /// Drops that were taken stay where they are, with DONE.txt in them; by default they go to .done.
    #[serde(default)]
    keep: bool,
    /// Between two looks, 1s to 1h; by default 10s.
    #[schemars(with = "Option<String>")]
    #[serde(default)]
    every: Option<Spanned<String>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WrittenRbd {
    /// Streams without a SHA-256 are refused; by default they are taken, and said to be unverified.
    require_digest: bool,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WrittenPull {
    /// The authority of the servers' certificates, for nbds://.
    ca: Option<PathBuf>,
    /// The certificate that is shown to them.
    certificate: Option<PathBuf>,
    /// Its key.
    key: Option<PathBuf>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenGroup {
    /// Its machines.
    #[schemars(with = "Vec<String>")]
    machines: Vec<Spanned<String>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WrittenUpkeep {
    /// Between two rounds, 1s to 1h; by default 30s.
    #[schemars(with = "Option<String>")]
    every: Option<Spanned<String>>,
    /// Bytes per second that a round writes at most: `200M`; by default no limit.
    #[schemars(with = "Option<String>")]
    rate_limit: Option<Spanned<String>>,
    /// Free room in per cent below which an alarm is raised; by default 20.
    #[schemars(with = "Option<u8>")]
    low: Option<Spanned<u8>>,
    /// Free room in per cent below which points are thinned by `thin`; by default 10.
    #[schemars(with = "Option<u8>")]
    scarce: Option<Spanned<u8>>,
    /// The retention when room is scarce; by default `1h every 5s, 24h every 1h, 7d every 1d`.
    #[schemars(with = "Option<String>")]
    thin: Option<Spanned<String>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WrittenDrill {
    /// On whose virtual hardware points are booted; by default kvm.
    #[schemars(with = "Option<String>")]
    target: Option<Spanned<String>>,
    /// From power-on to giving up, 10s to 6h; by default 15m.
    #[schemars(with = "Option<String>")]
    within: Option<Spanned<String>>,
    /// The folder of the evidence; by default /var/lib/landfall/evidence.
    evidence: Option<PathBuf>,
    /// Trials of a machine whose logs and pictures are kept, 1 to 1000; by default 30. What came of them is kept of all.
    #[schemars(with = "Option<u16>")]
    keep: Option<Spanned<u16>>,
    /// Between two points that are patched ahead, 1m to 7d; by default 15m.
    #[schemars(with = "Option<String>")]
    prepare_every: Option<Spanned<String>>,
    /// The folder of recovered machines (`landfall recover -o`), where points that are patched ahead lie; by default
    /// /var/lib/landfall/recovered.
    recovered: Option<PathBuf>,
    /// The socket of whoever runs trials (landfall appliance trial, as a unit of systemd's), where the service has no right to boot guests.
    through: Option<PathBuf>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WrittenAlarm {
    /// Gets each alarm as a JSON document by POST: `https://…`, or `http://` on this machine.
    #[schemars(with = "Option<String>")]
    webhook: Option<Spanned<String>>,
}

/// The only target whose machines start without a copy of their disks.
const PREPARABLE: &str = "kvm";

pub(super) enum Bad {
    At(toml_file::Wrong),
    Whole(Error),
}

impl From<Error> for Bad {
    fn from(error: Error) -> Bad {
        Bad::Whole(error)
    }
}

pub(super) fn bad(spanned_at: usize, says: impl Into<String>, hint: &str) -> Bad {
    Bad::At(wrong(spanned_at, says).hint(hint))
}

/// A value that knows how to be read, with its place in complaints.
fn read<T: FromStr<Err = Error>>(text: &Spanned<String>) -> Result<T, Bad> {
    text.get_ref().parse().map_err(|error: Error| {
        bad(text.span().start, error.to_string(), error.hint_text().unwrap_or_default())
    })
}

pub(super) fn between(text: &Spanned<String>, least: u64, most: u64) -> Result<Duration, Bad> {
    duration(text.get_ref()).filter(|time| (least..=most).contains(&time.as_secs())).ok_or_else(|| {
        bad(
            text.span().start,
            format!("{:?} is no time that can be used here", text.get_ref()),
            &format!("write it like 5s, 10m or 2h, between {least}s and {most}s"),
        )
    })
}

fn addresses(written: &[Spanned<String>]) -> Result<Vec<SocketAddr>, Bad> {
    let one = |text: &Spanned<String>| {
        text.get_ref().parse().map_err(|_| {
            bad(
                text.span().start,
                format!("{:?} is no address with a port", text.get_ref()),
                "write it like 192.0.2.1:10809, 0.0.0.0:10809 or [::]:10809",
            )
        })
    };
    written.iter().map(one).collect()
}

impl WrittenProtect {
    fn over(&self, base: &Protect) -> Result<Protect, Bad> {
        const HOUR: u64 = 3600;
        let mut protect = base.clone();
        if let Some(text) = &self.checkpoint {
            protect.checkpoint = between(text, 1, HOUR)?;
            protect.rpo = protect.rpo.max(protect.checkpoint * 3);
        }
        if let Some(text) = &self.retention {
            protect.retention = read(text)?;
        }
        if let Some(text) = &self.rpo {
            protect.rpo = between(text, 1, 30 * 24 * HOUR)?;
            if protect.rpo < protect.checkpoint {
                return Err(bad(
                    text.span().start,
                    "the newest point is always older than this now and then",
                    "checkpoints have to come more often than that: make checkpoint smaller, or rpo larger",
                ));
            }
        }
        if let Some(text) = &self.delta_rpo {
            protect.delta_rpo = between(text, 1, 366 * 24 * HOUR)?;
        }
        protect.in_sync = self.in_sync.unwrap_or(protect.in_sync);
        if let Some(text) = &self.prove {
            protect.prove = match text.get_ref().as_str() {
                "never" => None,
                _ => Some(between(text, 60, 365 * 24 * HOUR)?),
            };
        }
        if let Some(targets) = &self.prepare {
            let one = |text: &Spanned<String>| match text.get_ref().as_str() {
                PREPARABLE => Ok(PREPARABLE.to_owned()),
                other => Err(bad(
                    text.span().start,
                    format!("points cannot be patched ahead for {other:?}"),
                    "its machines start from a copy of their disks (landfall convert point:NAME); write [\"kvm\"]",
                )),
            };
            protect.prepare = targets.iter().map(one).collect::<Result<_, Bad>>()?;
        }
        Ok(protect)
    }
}

impl Written {
    pub(super) fn check(self, folder: &Path) -> Result<Config, Bad> {
        let path = |path: &PathBuf| folder.join(path);
        let receive = self.receive(&path)?;
        let protect = self.protect.over(&Protect::default())?;
        let mut machines = BTreeMap::new();
        for (name, written) in &self.machine {
            let mut own = written.over(&protect)?;
            // What somebody says of one machine is meant for the way that it comes in by.
            if written.rpo.is_some() && written.delta_rpo.is_none() {
                own.delta_rpo = own.rpo;
            }
            machines.insert(read(name)?, own);
        }
        let mut groups: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        for (name, group) in &self.group {
            let mut members = BTreeSet::new();
            for text in &group.machines {
                let machine: Name = read(text)?;
                if let Some((other, _)) = groups.iter().find(|(_, members)| members.contains(&machine)) {
                    return Err(bad(
                        text.span().start,
                        format!("{machine} is in the group {other} already"),
                        "a machine's points are cut at one moment with those of one group",
                    ));
                }
                members.insert(machine);
            }
            groups.insert(read(name)?, members);
        }
        // Members are cut together, so as often.
        for (group, members) in &groups {
            let every: BTreeSet<Duration> =
                members.iter().map(|name| machines.get(name).unwrap_or(&protect).checkpoint).collect();
            if every.len() > 1 {
                return Err(Error::refused(format!(
                    "the machines of the group {group} have different values of checkpoint"
                ))
                .hint("their points are cut at one moment: give them the same")
                .into());
            }
        }
        let upkeep = self.upkeep()?;
        let vault = self.vault.as_ref().map_or_else(|| PathBuf::from("/var/lib/landfall/vault"), path);
        let tls = TlsFiles {
            ca: self.pull.ca.as_ref().map(path),
            certificate: self.pull.certificate.as_ref().map(path),
            key: self.pull.key.as_ref().map(path),
        };
        let drill = self.drill(&path)?;
        Ok(Config {
            folders: self.folders(&path, &vault)?,
            require_digest: self.rbd.require_digest,
            pull: ClientOptions { tls, ..ClientOptions::default() },
            clients: self.clients()?,
            authority: self.authority(&path)?,
            api: self.api(&path)?,
            viewer: self.api.viewer.as_ref().map(user).transpose()?,
            alarm: self.alarm()?,
            sends: self.send.iter().map(|send| send.check(&path)).collect::<Result<_, _>>()?,
            vault,
            sockets: self.sockets.as_ref().map_or_else(|| PathBuf::from("/run/landfall"), path),
            points_group: self.points_group.as_ref().map(group).transpose()?,
            receive,
            protect,
            machines,
            groups,
            upkeep,
            drill,
        })
    }

    fn receive(&self, path: &impl Fn(&PathBuf) -> PathBuf) -> Result<Receive, Bad> {
        let written = &self.receive;
        let tls = (written.certificate.is_some() || written.key.is_some() || written.clients_ca.is_some())
            .then(|| TlsFiles {
                ca: written.clients_ca.as_ref().map(path),
                certificate: written.certificate.as_ref().map(path),
                key: written.key.as_ref().map(path),
            });
        let listen = addresses(&written.listen)?.into_iter().map(|address| Listen::Tcp {
            address,
            tls: tls.clone(),
            anybody_on_this_machine: written.anybody_on_this_machine,
        });
        let receive = Receive { listen: listen.collect(), ..Receive::default() };
        if !receive.listen.is_empty() {
            receive.check()?;
        }
        Ok(receive)
    }

    fn folders(&self, path: &impl Fn(&PathBuf) -> PathBuf, vault: &Path) -> Result<Vec<Folder>, Bad> {
        let mut folders: Vec<Folder> = Vec::new();
        for written in &self.folder {
            let folder = path(written.path.get_ref());
            let is_within = |a: &Path, b: &Path| a.starts_with(b) || b.starts_with(a);
            if is_within(&folder, vault) {
                return Err(bad(
                    written.path.span().start,
                    "a watched folder and the vault cannot lie in one another",
                    "what is in the vault is not for others: name a folder elsewhere",
                ));
            }
            if let Some(other) = folders.iter().find(|other| is_within(&folder, &other.path)) {
                return Err(bad(
                    written.path.span().start,
                    format!(
                        "the watched folders {} and {} lie in one another",
                        folder.display(),
                        other.path.display()
                    ),
                    "each drop is taken once: name one of them",
                ));
            }
            folders.push(Folder {
                path: folder,
                options: Options { manifest: written.manifest, keep: written.keep },
                every: written
                    .every
                    .as_ref()
                    .map_or(Ok(Duration::from_secs(10)), |text| between(text, 1, 3600))?,
            });
        }
        Ok(folders)
    }

    fn clients(&self) -> Result<Vec<Client>, Bad> {
        let mut clients = Vec::new();
        for written in &self.receive.client {
            let who = match (&written.subject, &written.sha256) {
                (Some(text), None) => Who::Subject(Subject::parse(text.get_ref()).map_err(|says| {
                    bad(
                        text.span().start,
                        format!("this is no subject of a certificate: {says}"),
                        "openssl x509 -noout -subject -nameopt RFC2253 -in CERTIFICATE prints it",
                    )
                })?),
                (None, Some(text)) => Who::Fingerprint(fingerprint(text.get_ref()).ok_or_else(|| {
                    bad(
                        text.span().start,
                        "this is no SHA-256",
                        "64 hexadecimal digits: openssl x509 -noout -fingerprint -sha256 -in CERTIFICATE",
                    )
                })?),
                _ => {
                    return Err(bad(
                        written.machines.span().start,
                        "a client is known by its subject or by its sha256",
                        "write one of the two",
                    ));
                }
            };
            clients.push(Client {
                who,
                machines: written.machines.get_ref().clone(),
                recovers: written.recovers,
            });
        }
        Ok(clients)
    }

    fn authority(&self, path: &impl Fn(&PathBuf) -> PathBuf) -> Result<Option<Authority>, Bad> {
        let Some(written) = &self.authority else { return Ok(None) };
        let certificate = path(written.certificate.get_ref());
        let trusted = [&self.receive.clients_ca, &self.api.clients_ca].map(|file| file.as_ref().map(path));
        // What it signs is believed, so nothing that another has signed may come in.
        if trusted[0].is_none() || trusted.iter().flatten().any(|file| *file != certificate) {
            return Err(bad(
                written.certificate.span().start,
                "clients are let in with certificates of another authority than this one",
                "name the same file as clients_ca in [receive], and in [api] where it is named there",
            ));
        }
        Ok(Some(Authority { certificate, key: path(&written.key) }))
    }

    fn api(&self, path: &impl Fn(&PathBuf) -> PathBuf) -> Result<Option<Api>, Bad> {
        let listen = addresses(&self.api.listen)?;
        match (&self.api.certificate, &self.api.key) {
            _ if listen.is_empty() => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(Api {
                listen,
                certificate: path(certificate),
                key: path(key),
                clients_ca: self.api.clients_ca.as_ref().map(path),
                senders: Senders::of(self.api.senders.as_ref(), self.api.clients_ca.is_some())?,
            })),
            _ => Err(bad(
                self.api.listen[0].span().start,
                "the API is spoken to over TLS only",
                "give its certificate and key: [api] certificate = …, key = …",
            )),
        }
    }

    fn upkeep(&self) -> Result<Upkeep, Bad> {
        let written = &self.upkeep;
        let percent = |value: &Option<Spanned<u8>>, default: u8| match value {
            None => Ok(default),
            Some(value) if (1..100).contains(value.get_ref()) => Ok(*value.get_ref()),
            Some(value) => {
                Err(bad(value.span().start, "per cent of the room are between 1 and 99", "20 is usual"))
            }
        };
        let low = percent(&written.low, 20)?;
        let scarce = percent(&written.scarce, low.min(10))?;
        if scarce > low {
            return Err(Error::refused(format!("[upkeep] scarce = {scarce} is above low = {low}"))
                .hint("an alarm comes before points are thinned: let scarce be the smaller one")
                .into());
        }
        let size = |text: &Spanned<String>| -> Result<Bytes, Bad> {
            parse_size(text.get_ref())
                .map_err(|says| bad(text.span().start, says, "write it like 200M or 1G"))
        };
        Ok(Upkeep {
            every: written
                .every
                .as_ref()
                .map_or(Ok(Duration::from_secs(30)), |text| between(text, 1, 3600))?,
            rate_limit: written.rate_limit.as_ref().map(size).transpose()?.map(RateLimit::new),
            low,
            scarce,
            thin: match &written.thin {
                Some(text) => read(text)?,
                None => "1h every 5s, 24h every 1h, 7d every 1d".parse()?,
            },
        })
    }

    fn drill(&self, path: &impl Fn(&PathBuf) -> PathBuf) -> Result<Drill, Bad> {
        let written = &self.drill;
        let target = match &written.target {
            None => "kvm",
            Some(text) => text.get_ref(),
        };
        let place = written.target.as_ref().map_or(0, |text| text.span().start);
        let Some(target) = hypervisor::target(target) else {
            let names = hypervisor::target_names().join(", ");
            return Err(bad(place, format!("{target:?} is no target"), &format!("there are {names}")));
        };
        let time = |text: &Option<Spanned<String>>, least, most, default| {
            text.as_ref().map_or(Ok(Duration::from_secs(default)), |text| between(text, least, most))
        };
        let folder =
            |written: &Option<PathBuf>, default: &str| written.as_ref().map_or_else(|| default.into(), path);
        let keep = match &written.keep {
            None => 30,
            Some(keep) if (1..=1000).contains(keep.get_ref()) => usize::from(*keep.get_ref()),
            Some(keep) => {
                return Err(bad(keep.span().start, "so many trials cannot be kept", "write 1 to 1000"));
            }
        };
        Ok(Drill {
            target: target.name.to_owned(),
            within: time(&written.within, 10, 6 * 3600, 900)?,
            evidence: folder(&written.evidence, "/var/lib/landfall/evidence"),
            keep,
            prepare_every: time(&written.prepare_every, 60, 7 * 24 * 3600, 900)?,
            recovered: folder(&written.recovered, "/var/lib/landfall/recovered"),
            through: written.through.as_ref().map(path),
        })
    }

    fn alarm(&self) -> Result<Alarm, Bad> {
        let Some(text) = &self.alarm.webhook else { return Ok(Alarm::default()) };
        let url = text.get_ref();
        let is_near = ["http://127.0.0.1", "http://[::1]", "http://localhost"].iter().any(|near| {
            url.strip_prefix(near).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
        });
        match url.starts_with("https://") || is_near {
            true => Ok(Alarm { webhook: Some(url.clone()) }),
            false => Err(bad(
                text.span().start,
                format!("alarms cannot be sent to {url:?}"),
                "write https://HOST/PATH; http:// only for a program on this machine",
            )),
        }
    }
}

/// The number of a group (group(5)).
fn group(text: &Spanned<String>) -> Result<u32, Bad> {
    number(text, "/etc/group", "group", "getent group shows those that there are")
}

/// A user by name or number.
fn user(text: &Spanned<String>) -> Result<u32, Bad> {
    number(text, "/etc/passwd", "user", "getent passwd shows those that there are")
}

/// The third field of the line with that name (passwd(5), group(5)), or the number that it is.
fn number(text: &Spanned<String>, path: &str, what: &str, hint: &str) -> Result<u32, Bad> {
    let name = text.get_ref();
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let path = Path::new(path);
    let lines = std::fs::read_to_string(path).map_err(|e| Error::io("cannot read", e).in_file(path))?;
    let number = lines.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.first() == Some(&name.as_str())).then(|| fields.get(2)?.parse().ok())?
    });
    number.ok_or_else(|| bad(text.span().start, format!("this machine has no {what} {name:?}"), hint))
}

/// 64 hexadecimal digits, in pairs with colons or not.
fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.chars().filter(|letter| *letter != ':').collect();
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut out = [0; 32];
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(out)
}
