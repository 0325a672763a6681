//! Another landfall's service as the one that receives what is sent.

use super::{Service, content, machine_path, part};
use crate::name::Name;
use crate::ops::send::{Fault, Replica};
use crate::receive::send::{Begin, Begun, Commit, Committed, Held, Question, Taken};
use landfall_image::{Error, Kind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http;
use uuid::Uuid;

const JSON: &str = "application/json";

impl Service {
    fn call(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {}", token.as_str()));
        }
        let unusable =
            |error: http::Error| Fault::Told(Error::refused(format!("this cannot be asked: {error}")));
        let answer = match method {
            "GET" | "DELETE" => self.agent.run(request.body(()).map_err(unusable)?),
            _ => self.agent.run(request.header("Content-Type", content_type).body(body).map_err(unusable)?),
        };
        let lost = |error| Fault::Lost(self.failed(error));
        let mut answer = answer.map_err(lost)?;
        let bytes = content(&mut answer).map_err(lost)?;
        let status = answer.status();
        match status.as_u16() {
            200..=299 => Ok(bytes),
            404 => Err(match self.refused(status, &bytes) {
                error if error.kind() == Kind::Interrupted => Fault::Gone(error),
                error => Fault::Told(error),
            }),
            // Too busy, too slow, or stopping: in a moment it may be otherwise.
            408 | 503 => Err(Fault::Lost(self.refused(status, &bytes))),
            _ => Err(Fault::Told(self.refused(status, &bytes))),
        }
    }

    fn exchange<A: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<A, Fault> {
        let text = body.map(serde_json::to_vec).transpose();
        let text =
            text.map_err(|error| Fault::Told(Error::refused(format!("cannot be written down: {error}"))))?;
        Ok(self.understood(&self.call(method, path, JSON, &text.unwrap_or_default())?)?)
    }
}

fn replica_path(machine: &Name) -> String {
    format!("{}/replica", machine_path(machine))
}

impl Replica for Service {
    fn place(&self) -> &str {
        &self.place
    }

    fn held(&self, machine: &Name) -> Result<Held, Fault> {
        self.exchange("GET", &replica_path(machine), None::<&()>)
    }

    fn begin(&self, machine: &Name, begin: &Begin) -> Result<Begun, Fault> {
        self.exchange("PUT", &replica_path(machine), Some(begin))
    }

    fn digests(&self, machine: &Name, disk: &Name, question: &Question) -> Result<Vec<u8>, Fault> {
        let path = format!("{}/disks/{}/digests", replica_path(machine), part(disk.as_str()));
        let text = serde_json::to_vec(question);
        let text =
            text.map_err(|error| Fault::Told(Error::refused(format!("cannot be written down: {error}"))))?;
        self.call("POST", &path, JSON, &text)
    }

    fn take(&self, machine: &Name, disk: &Name, session: Uuid, body: &[u8]) -> Result<Taken, Fault> {
        let path =
            format!("{}/disks/{}/chunks?session={session}", replica_path(machine), part(disk.as_str()));
        Ok(self.understood(&self.call("POST", &path, "application/octet-stream", body)?)?)
    }

    fn commit(&self, machine: &Name, commit: &Commit) -> Result<Committed, Fault> {
        self.exchange("POST", &format!("{}/commit", replica_path(machine)), Some(commit))
    }

    fn give_up(&self, machine: &Name) -> Result<(), Fault> {
        self.exchange::<Held>("DELETE", &replica_path(machine), None::<&()>).map(drop)
    }
}
