//! The points of a service: what they consist of is asked over its API, what is on their disks is read over NBD.
//!
//! On the service's own machine that is a local socket, where QEMU reads as well. From another one it is NBD over TLS, with a certificate
//! that allows it (`landfall certificate add NAME --recover`): then this process has to hand on to QEMU what it reads.

use super::{At, HeldPoint, PointDisk, PointSource, Points, variables_of};
use crate::moment::Moment;
use crate::name::Name;
use crate::ops::service::{Access, Service};
use crate::receive::content::Changed;
use crate::report::api::{self, SetRole, WantedRole};
use crate::report::protection::{DiskStatus, Evidence};
use landfall_image::formats::Image;
use landfall_image::location::Location;
use landfall_image::nbd::{Address, ClientOptions, Uri};
use landfall_image::{Error, Format, Kind, OpenOptions, Result};
use std::path::Path;
use std::time::Duration;

/// Who wrote so long ago may write still.
const STILL: Duration = Duration::from_secs(30);

/// A service that is asked when something is wanted of it.
pub struct Served {
    access: Access,
    nbd: ClientOptions,
}

impl Served {
    /// The service that is meant; nothing is asked yet.
    pub fn new(access: Access, nbd: ClientOptions) -> Served {
        Served { access, nbd }
    }

    fn service(&self) -> Result<Service> {
        Service::new(&self.access)
    }

    /// Opens a disk of a point where it is read from here, and says where other programs of this machine read it, too.
    fn disk(&self, service: &Service, disk: &api::PointDisk) -> Result<(Image, Option<String>)> {
        let options = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
        let open = |uri: &str| Location::of(Path::new(uri))?.open(&options, &self.nbd);
        let Some(host) = service.host() else {
            return Ok((open(&disk.uri)?, Some(disk.uri.clone())));
        };
        let shown = disk.uris.iter().find_map(|uri| Uri::parse(uri).ok()).ok_or_else(|| {
            Error::refused("the service serves no points to other machines").hint(
                "its file names addresses and certificates in [receive]; or run landfall on its machine",
            )
        })?;
        if self.nbd.tls.certificate.is_none() {
            return Err(Error::refused(format!("the points of {host} are read with a certificate")).hint(
                "landfall certificate add NAME --recover -o FOLDER makes one; name it with --tls-cert FILE --tls-key FILE --tls-ca FILE",
            ));
        }
        // By the name under which the service is known here; its own for itself may mean nothing to this machine.
        let port = match shown.address() {
            Address::Tcp(_, port) => *port,
            Address::Unix(_) => return Err(Error::corrupt("the service names a socket of its own machine")),
        };
        let uri = Uri::new(Address::Tcp(host.clone(), port), true, shown.export()).to_string();
        let image = open(&uri).map_err(|error| match error.kind() {
            Kind::Refused => error.hint(
                "the certificate has to allow it: landfall certificate list shows which does (recover)",
            ),
            _ => error,
        })?;
        Ok((image, None))
    }
}

/// Where no service answers, the vault may be here all the same.
fn or_vault(error: Error) -> Error {
    match (error.io_error().is_some(), error.hint_text().map(str::to_owned)) {
        (true, Some(hint)) => {
            error.hint(format!("{hint}; or, where no service runs, name the vault's folder: --vault FOLDER"))
        }
        _ => error,
    }
}

impl Points for Served {
    fn open(&self, name: &Name, at: &At) -> Result<PointSource> {
        let service = self.service()?;
        let shown = service.point(name, &which(at)).map_err(or_vault)?;
        let number = shown.point.number;
        let kept_variables =
            shown.variables.then(|| service.variables(name, &number.to_string())).transpose()?;
        // Without them the machine starts all the same.
        let variables = kept_variables.clone().and_then(|kept| {
            variables_of(kept)
                .inspect_err(|error| tracing::warn!("the UEFI variables of the point are left out: {error}"))
                .ok()
        });
        let disks = shown.disks.into_iter().map(|disk| {
            let (image, uri) = self.disk(&service, &disk)?;
            if image.disk.size() != disk.size {
                return Err(Error::corrupt(format!(
                    "{} has {} bytes where it is read, and {} where it is kept",
                    uri.as_deref().unwrap_or(&disk.name),
                    image.disk.size().0,
                    disk.size.0
                )));
            }
            let sector = disk.sector;
            Ok(PointDisk { sector, ..PointDisk::new(name, &disk.name, number, image.disk, uri) })
        });
        Ok(PointSource {
            name: name.clone(),
            id: shown.id,
            machine: shown.definition,
            number,
            at: shown.point.at,
            consistency: shown.point.consistency,
            tag: shown.point.tag,
            disks: disks.collect::<Result<_>>()?,
            variables,
            kept_variables,
        })
    }

    fn reach(&self) -> Result<()> {
        self.holds().map(drop)
    }

    fn hold(&self, machine: &Name, number: u64, holder: &str) -> Result<()> {
        self.service()?.hold(machine, number, holder, true).map(drop).map_err(or_vault)
    }

    fn release(&self, machine: &Name, number: u64, holder: &str) -> Result<()> {
        self.service()?.hold(machine, number, holder, false).map(drop)
    }

    fn holds(&self) -> Result<Vec<HeldPoint>> {
        let holds = self.service()?.holds().map_err(or_vault)?.holds.into_iter();
        let held = |hold: crate::report::api::Hold| {
            Ok(HeldPoint { machine: hold.machine.parse()?, number: hold.point, holder: hold.holder })
        };
        holds.map(held).collect()
    }

    fn changed(&self, machine: &Name, disk: &str, since: u64, to: u64) -> Result<Changed> {
        self.service()?.changes(machine, disk, since, to)
    }

    fn promote(&self, machine: &Name, number: u64, holder: &str) -> Result<()> {
        let wanted =
            SetRole { role: WantedRole::Promoted, point: Some(number), holder: Some(holder.to_owned()) };
        self.service()?.set_role(machine, &wanted).map(drop)
    }

    fn sender(&self, machine: &Name) -> Result<Option<String>> {
        let shown = self.service()?.machine(machine)?;
        let now = Moment::now();
        let writes =
            |disk: &&DiskStatus| disk.connections > 0 && disk.written.is_some_and(|at| now.since(at) < STILL);
        let disk = shown.machine.disks.iter().find(writes);
        Ok(disk.map(|disk| {
            let from = disk.from.as_deref().unwrap_or("somebody");
            format!("{from} writes to {machine}/{} at this moment", disk.name)
        }))
    }

    fn attach(&self, machine: &Name, number: u64, evidence: &Evidence) -> Result<()> {
        self.service()?.attach_proof(machine, number, evidence).map(drop)
    }
}

/// A point as the service is asked for it.
pub fn which(at: &At) -> String {
    match at {
        At::Latest => "latest".to_owned(),
        At::Number(number) => number.to_string(),
        At::Tag(tag) => format!("tag:{tag}"),
        At::Time { moment, .. } => moment.rfc3339(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::Moment;

    #[test]
    fn a_service_understands_which_point_is_meant() {
        for (at, text) in [
            (At::Latest, "latest"),
            (At::Number(7), "7"),
            (At::Tag("a b".into()), "tag:a b"),
            (
                At::Time { moment: Moment(1_795_960_985_999), is_zone_assumed: false },
                "2026-11-29T14:03:05.999Z",
            ),
        ] {
            assert_eq!(which(&at), text);
            assert!(text.parse::<crate::service::which::Which>().is_ok(), "{text}");
        }
    }
}
