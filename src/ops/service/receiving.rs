//! What is sent to the service besides questions and orders: streams of any length, in both directions; and what it receives by itself.

use super::{Service, machine_path, part, point_path};
use crate::name::Name;
use crate::receive::rbd::record::Version;
use crate::receive::spool::Request;
use crate::report::receiving::{Receipt, Scan, TakeStreams, Uploaded, WantedPull};
use landfall_image::convert::Cancel;
use landfall_image::{Error, Result};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;
use ureq::SendBody;
use uuid::Uuid;

/// A service that compares long runs that are the same has nothing to send meanwhile.
const COMPARING: Duration = Duration::from_secs(3600);
/// It is asked first whether it wants all of it.
const WANTED: Duration = Duration::from_secs(30);
const PIECE: usize = 256 << 10;

/// A service that ends an upload says why in its log only: nobody listens while it is sent.
fn cut_short(error: Error) -> Error {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    match error.io_error().map(io::Error::kind) {
        Some(kind @ (BrokenPipe | ConnectionReset)) => Error::io("the service ended the upload", kind.into())
            .hint(
                "its log says why (journalctl -u landfall); landfall status shows whether the vault has room",
            ),
        _ => error,
    }
}

impl Service {
    /// Sends a stream of RBD, of whatever length; the service keeps it until it is [taken](Self::take_streams) or
    /// [discarded](Self::discard). What is cut off leaves nothing.
    ///
    /// # Errors
    /// Refused where it could not be taken at this moment: then nothing was read. As `from` and the service's.
    pub fn upload(&self, request: &Request, from: &mut dyn Read) -> Result<Uploaded> {
        let mut query = vec![
            format!("machine={}", part(request.machine.as_str())),
            format!("disk={}", part(request.disk.as_str())),
            format!("name={}", part(&request.name)),
        ];
        query.extend(request.sha256.map(|sum| format!("sha256={sum}")));
        query.extend(request.taken_at.map(|moment| format!("taken_at={}", part(&moment.rfc3339()))));
        query.extend(
            [("replace", request.replace), ("apart", request.apart)]
                .into_iter()
                .filter(|(_, is)| *is)
                .map(|(name, _)| format!("{name}=true")),
        );
        let request = self
            .request("POST", &format!("/v1/uploads?{}", query.join("&")))
            .header("Content-Type", "application/octet-stream")
            .header("Expect", "100-continue")
            .body(SendBody::from_reader(from))
            .map_err(super::unusable)?;
        let request = self.agent.configure_request(request).timeout_await_100(Some(WANTED)).build();
        self.understood(&self.answered(self.agent.run(request)).map_err(cut_short)?)
    }

    /// Takes an upload back. One that is not there is no error.
    ///
    /// # Errors
    /// As the service's.
    pub fn discard(&self, id: Uuid) -> Result<()> {
        self.run("DELETE", &format!("/v1/uploads/{id}"), None::<&()>).map(drop)
    }

    /// Has uploads taken into a machine, all of one moment.
    ///
    /// # Errors
    /// As the service's; what comes of it is in the [receipt](Self::receipt).
    pub fn take_streams(&self, machine: &Name, uploads: &[Uuid]) -> Result<Receipt> {
        let wanted = TakeStreams { uploads: uploads.to_vec() };
        self.send("POST", &format!("{}/receive/rbd", machine_path(machine)), Some(&wanted))
    }

    /// Has the disks of a machine pulled.
    ///
    /// # Errors
    /// As the service's; what comes of it is in the [receipt](Self::receipt).
    pub fn pull(&self, machine: &Name, wanted: &WantedPull) -> Result<Receipt> {
        self.send("POST", &format!("{}/receive/pull", machine_path(machine)), Some(wanted))
    }

    /// Has a watched folder looked at now.
    ///
    /// # Errors
    /// Refused where the service does not watch it.
    pub fn scan(&self, folder: &Path) -> Result<Receipt> {
        let folder = folder.to_str().ok_or_else(|| Error::unsupported("is not UTF-8").in_file(folder))?;
        self.send("POST", "/v1/receive/folder", Some(&Scan { folder: folder.to_owned() }))
    }

    /// How far something is that is received, or what came of it.
    ///
    /// # Errors
    /// Refused where the service knows nothing of it (any more): it was started again since.
    pub fn receipt(&self, id: Uuid) -> Result<Receipt> {
        self.get(&format!("/v1/receipts/{id}"))
    }

    /// Writes a disk of a point as an RBD diff into `out`; from nothing, or since an earlier point. Each point is to be the snapshot of that name.
    ///
    /// # Errors
    /// As the service's and the writer's. What was written then is no whole diff: its last record is missing.
    #[expect(clippy::too_many_arguments, reason = "all of what is asked")]
    pub fn export(
        &self,
        machine: &Name,
        (point, snapshot): &(u64, String),
        disk: &Name,
        since: Option<&(u64, String)>,
        format: Version,
        out: &mut dyn Write,
        cancel: &Cancel,
    ) -> Result<()> {
        let mut query = vec![
            format!("snapshot={}", part(snapshot)),
            format!("format={}", if format == Version::V1 { "v1" } else { "v2" }),
        ];
        if let Some((number, name)) = since {
            query.extend([format!("since={number}"), format!("since_snapshot={}", part(name))]);
        }
        let point = point_path(machine, &point.to_string());
        let path = format!("{point}/disks/{}/diff?{}", part(disk.as_str()), query.join("&"));
        let request = self.request("GET", &path).body(()).map_err(super::unusable)?;
        let request = self.agent.configure_request(request).timeout_per_read(Some(COMPARING)).build();
        let mut answer = self.agent.run(request).map_err(|error| self.failed(error))?;
        if !answer.status().is_success() {
            let bytes = super::content(&mut answer).map_err(|error| self.failed(error))?;
            return Err(self.refused(answer.status(), &bytes));
        }
        let mut from = answer.body_mut().with_config().limit(u64::MAX).reader();
        let mut buf = vec![0; PIECE];
        loop {
            if cancel.is_cancelled() {
                return Err(Error::interrupted());
            }
            let count = match from.read(&mut buf) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(Error::io("the service ended the diff before it was complete", error)
                        .hint("its log says why: journalctl -u landfall"));
                }
            };
            out.write_all(&buf[..count]).map_err(|error| Error::io("cannot write the diff", error))?;
        }
    }
}
