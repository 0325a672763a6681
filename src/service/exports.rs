//! What NBD clients get: the disks of protected machines to write to, and disks as they were at a point to read.
//!
//! Over the network both are behind one address, and certificates say who gets what; on this machine each has a socket of its own, and who
//! may open that is let in.

use super::Service;
use crate::receive::{Ended, ExportName, Exports, Opened, Peer, SentAway};
use crate::vault::machine::PointDisk;
use landfall_image::{Bytes, Disk, DiskMut, Error, Extent, GuestOffset, GuestRange, Result};
use std::sync::Arc;

/// The disks of machines, as hypervisors write to them: `MACHINE/DISK`; and, for whose certificate allows it, [`Points`].
pub struct Receiving(pub Arc<Service>);

impl Service {
    /// Says in the log that a client was told of no disk, because the service's file does not name its certificate for it.
    fn not_named(&self, name: &ExportName, peer: &Peer) {
        let Some(certificate) = &peer.certificate else { return };
        self.refusals.say(|unsaid| {
            tracing::warn!(
                export = %name, %peer, unsaid,
                "not let in: no [[receive.client]] of the service's file names this certificate for the machine; the line for it is: {}",
                certificate.rule()
            );
        });
    }
}

impl Exports for Receiving {
    fn open(&self, name: &ExportName, peer: &Peer) -> Result<Option<Opened>> {
        let service = &self.0;
        // Whoever may not write to it is not told that it is there.
        let may_write = service.may_write(peer, name.machine());
        let stream = service.stream(name);
        if stream.is_none() && is_past(name) && service.may_recover(peer, name.machine()) {
            return Points(Arc::clone(service)).open(name, peer);
        }
        if !may_write {
            service.not_named(name, peer);
            return Ok(None);
        }
        let Some(stream) = stream else { return Ok(None) };
        if let Err(error) = service.machine(name.machine())?.machine().roles().check(name.machine().as_str())
        {
            service.source_is_back(name.machine(), &peer.to_string());
            return Err(error);
        }
        let lease = service.incoming().leases.stream(name.machine(), name.disk())?;
        let (disk, info) = (stream.incoming(peer, lease)?, format!("{} of {}", name.disk(), name.machine()));
        Ok(Some(Opened {
            disk: Arc::new(disk),
            read_only: false,
            preferred: Bytes::kib(64),
            description: Some(info),
        }))
    }

    fn sent_away(&self, peer: &Peer) -> Option<SentAway> {
        self.0.until_taken_back(peer)
    }

    fn list(&self, peer: &Peer) -> Vec<ExportName> {
        let mut names = self.0.streams();
        names.retain(|name| self.0.may_write(peer, name.machine()));
        if peer.certificate.is_some() {
            let mut past = Points(Arc::clone(&self.0)).list(peer);
            past.retain(|name| self.0.may_recover(peer, name.machine()));
            names.append(&mut past);
        }
        names
    }

    fn connected(&self, name: &ExportName, peer: &Peer, connections: usize) {
        if let Some(stream) = self.0.stream(name) {
            stream.came(peer, connections);
        }
    }

    fn flushed(&self, name: &ExportName, peer: &Peer) {
        let Some(stream) = self.0.stream(name) else { return };
        if let Err(error) = stream.flushed(peer, self.0.config().protect(name.machine()).in_sync) {
            tracing::error!(export = %name, %error, "that a copy is complete cannot be kept");
        }
    }

    fn closed(&self, name: &ExportName, _peer: &Peer, connections: usize, why: &Ended) {
        let Some(stream) = self.0.stream(name) else { return };
        let lost = match why {
            Ended::Lost(why) => Some(why.as_str()),
            Ended::Left | Ended::Stopped => None,
        };
        stream.went(connections, lost);
        if connections == 0 {
            // What it sent last is in a point before anybody else sends.
            self.0.cut_now(name.machine());
        }
    }
}

/// True where the name is that of a disk at a point.
fn is_past(name: &ExportName) -> bool {
    name.disk().as_str().rsplit_once('@').is_some_and(|(_, record)| record.parse::<u64>().is_ok())
}

/// Disks as they were at a point: `MACHINE/DISK@RECORD`, where the record is that of the point. A point that somebody reads is not given
/// up.
pub struct Points(pub Arc<Service>);

impl Exports for Points {
    fn open(&self, name: &ExportName, _peer: &Peer) -> Result<Option<Opened>> {
        let Some((disk, sequence)) = name.disk().as_str().rsplit_once('@') else { return Ok(None) };
        let Ok(sequence) = sequence.parse::<u64>() else { return Ok(None) };
        let Ok(machine) = self.0.vault().machine(name.machine()) else { return Ok(None) };
        let point = machine.at(sequence)?;
        let Some((number, _)) = point.state().disks.iter().find(|(_, info)| info.name == disk) else {
            return Ok(None);
        };
        let disk = PastDisk(point.disk(*number)?);
        Ok(Some(Opened {
            disk: Arc::new(disk),
            read_only: true,
            preferred: Bytes::kib(64),
            description: None,
        }))
    }

    /// The newest point of each machine: all of them would be thousands.
    fn list(&self, _peer: &Peer) -> Vec<ExportName> {
        let mut names = Vec::new();
        for (name, machine) in self.0.vault().machines() {
            let Some(last) = machine.points().ok().and_then(|points| points.last().cloned()) else {
                continue;
            };
            let disks = machine.journal().with_state(|state| state.disks.clone());
            let parse = |disk: &str| ExportName::parse(&format!("{name}/{disk}@{}", last.sequence));
            names.extend(disks.values().filter_map(|info| parse(&info.name)));
        }
        names
    }
}

/// A disk as it was, which nobody can write to.
struct PastDisk(PointDisk);

impl Disk for PastDisk {
    fn size(&self) -> Bytes {
        self.0.size()
    }

    fn sector_size(&self) -> Bytes {
        self.0.sector_size()
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        self.0.extents(range, at_most)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        self.0.read_at(at, buf)
    }
}

impl PastDisk {
    fn refused() -> Error {
        Error::refused("a recovery point does not change")
            .hint("write to a copy of it: landfall recover makes one")
    }
}

impl DiskMut for PastDisk {
    fn write_at(&self, _at: GuestOffset, _data: &[u8]) -> Result<()> {
        Err(PastDisk::refused())
    }

    fn zero_at(&self, _range: GuestRange) -> Result<()> {
        Err(PastDisk::refused())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}
