//! A machine, its spool and its batches on a medium that can fail and lose its power, for the tests of the ways in.

use super::batch::Batches;
use super::lease::Leases;
use super::spool::{Request, Spool, Upload};
use crate::vault::handles::Handles;
use crate::vault::journal::start::Ended;
use crate::vault::journal::{Home, Limits};
use crate::vault::machine::Machine;
use crate::vault::room::Room;
use crate::vault::storage::Storage;
pub(crate) use crate::vault::tests::disk as medium;
use landfall_image::{Disk, GuestOffset, Result};
use medium::Medium;
use std::sync::Arc;
use uuid::Uuid;

/// Small segments, so that all kinds of them are there.
const LIMITS: Limits = Limits { records: 24, bytes: 96 << 10, closed: 2 };

/// A service's parts, as far as they receive.
pub struct Bench {
    pub machine: Arc<Machine>,
    pub batches: Batches,
    pub spool: Spool,
    pub leases: Leases,
}

impl Bench {
    /// Those of the machine `web01`, on this medium.
    pub fn try_on(medium: &Medium, ended: Ended) -> Result<Bench> {
        let storage: Arc<dyn Storage> = Arc::new(medium.clone());
        let home = Home {
            storage: Arc::clone(&storage),
            handles: Arc::new(Handles::new(8)),
            dir: "web01/journal".into(),
            machine: Uuid::from_u128(7),
            in_memory: Arc::default(),
            room: Arc::new(Room::new(&storage)),
        };
        let (machine, _) = Machine::open("web01", &home, "web01/bases", LIMITS, ended)?;
        let leases = Leases::default();
        let batches = Batches::open(&storage, &leases)?;
        let (spool, troubles) = Spool::open(&storage)?;
        assert!(troubles.is_empty(), "{troubles:?}");
        Ok(Bench { machine: Arc::new(machine), batches, spool, leases })
    }

    /// After a service that was killed, if there was one.
    pub fn on(medium: &Medium) -> Bench {
        Bench::try_on(medium, Ended::Killed).unwrap()
    }

    /// After a loss of power.
    pub fn without_power(medium: &Medium) -> Bench {
        Bench::try_on(medium, Ended::WithThePower).unwrap()
    }

    /// These bytes in the spool.
    pub fn upload(&self, request: Request, bytes: &[u8]) -> Upload {
        self.spool.take(request, &mut &bytes[..]).unwrap()
    }

    /// What a disk holds now; nothing where there is none.
    pub fn live(&self, disk: &str) -> Option<Vec<u8>> {
        self.machine.disk_number(disk)?;
        Some(content(&self.machine.live(disk).unwrap()))
    }

    /// The points with what that disk held.
    pub fn points(&self, disk: &str) -> Vec<(u64, Option<Vec<u8>>)> {
        let all = self.machine.points().unwrap();
        let at = |sequence| {
            let point = self.machine.at(sequence).unwrap();
            let number =
                point.state().disks.iter().find(|(_, info)| info.name == disk).map(|(number, _)| *number);
            number.map(|number| content(&point.disk(number).unwrap()))
        };
        all.iter().map(|point| (point.sequence, at(point.sequence))).collect()
    }
}

pub fn content(disk: &dyn Disk) -> Vec<u8> {
    let mut buf = vec![0; disk.size().to_usize().unwrap()];
    disk.read_at(GuestOffset(0), &mut buf).unwrap();
    buf
}

pub fn request(disk: &str, name: &str) -> Request {
    Request {
        machine: "web01".parse().unwrap(),
        disk: disk.parse().unwrap(),
        name: name.to_owned(),
        sha256: None,
        replace: false,
        apart: false,
        taken_at: None,
    }
}
