//! Where disks are sent to and points are read, as NBD URIs.

use super::Service;
use crate::receive::nbd::Listen;
use crate::receive::position;
use crate::report::api::{Inlet, PointDisk};
use crate::vault::journal::State;
use landfall_image::nbd::{Address, Uri};
use landfall_image::{Bytes, Result};
use std::net::IpAddr;

impl Service {
    /// Where each of these disks of a machine is sent to.
    pub(super) fn inlets<'d>(&self, machine: &str, disks: impl Iterator<Item = &'d str>) -> Vec<Inlet> {
        let socket = self.config.receive_socket();
        let one = |disk: &str| {
            let export = format!("{machine}/{disk}");
            let mut uris = vec![Uri::new(Address::Unix(socket.clone()), false, &export).to_string()];
            uris.extend(self.network(&export).map(|(uri, _)| uri));
            Inlet { disk: disk.to_owned(), export, socket: socket.display().to_string(), uris }
        };
        disks.map(one).collect()
    }

    /// Where an export is reached from other machines, each with whether certificates are shown there.
    fn network(&self, export: &str) -> impl Iterator<Item = (String, bool)> {
        self.config.receive.listen.iter().filter_map(move |listen| {
            let Listen::Tcp { address, tls, .. } = listen else { return None };
            let place = Address::Tcp(host(address.ip()), address.port());
            Some((Uri::new(place, tls.is_some(), export).to_string(), tls.is_some()))
        })
    }

    /// The disks of a machine at a point, and where they are read; `snapshot` says which of RBD's they are at.
    ///
    /// # Errors
    /// Those of `snapshot`.
    pub(super) fn outlets(
        &self,
        machine: &str,
        point: u64,
        state: &State,
        snapshot: &dyn Fn(&str) -> Result<Option<String>>,
    ) -> Result<Vec<PointDisk>> {
        let socket = self.config.points_socket();
        let brought = position::brought(state);
        let one = |info: &crate::vault::journal::DiskInfo| {
            let export = format!("{machine}/{}@{point}", info.name);
            Ok(PointDisk {
                snapshot: snapshot(&info.name)?,
                unverified: brought.get(&info.name).is_some_and(|own| own.is_unverified),
                name: info.name.clone(),
                size: Bytes(info.size),
                sector: info.sector,
                uri: Uri::new(Address::Unix(socket.clone()), false, &export).to_string(),
                uris: self.network(&export).filter_map(|(uri, is_tls)| is_tls.then_some(uri)).collect(),
            })
        };
        state.disks.values().map(one).collect()
    }
}

/// What others reach an address by that is listened at: this machine's name where that is every address.
fn host(address: IpAddr) -> String {
    match address.is_unspecified() {
        true => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        false => address.to_string(),
    }
}
