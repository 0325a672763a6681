//! What the routes of machines do that another landfall sends, and where the points of this one differ.

use super::call::{Call, Outcome, Refusal};
use super::handlers::check_definition;
use crate::name::Name;
use crate::ops::source::point;
use crate::receive::send::{Begin, Begun, Commit, Committed, Held, Question, Taken};
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_image::{Error, Kind};
use std::collections::BTreeSet;

/// A send that is not under way (any more) is begun again.
fn found(error: Error) -> Refusal {
    match error.kind() {
        Kind::Interrupted => Refusal { status: StatusCode::NOT_FOUND, error },
        Kind::Corrupt => Refusal { status: StatusCode::UNPROCESSABLE_ENTITY, error },
        _ => error.into(),
    }
}

pub(super) fn held(call: &Call) -> Outcome<Held> {
    Ok(call.service.replica(&call.new_machine()?)?)
}

pub(super) fn begin(call: &Call, begin: Begin) -> Outcome<Begun> {
    let name = call.new_machine()?;
    Ok(call.service.begin_replica(&name, &begin, &call.by)?)
}

pub(super) fn digests(call: &Call, question: Question) -> Outcome<Vec<u8>> {
    let (name, disk) = (call.new_machine()?, call.disk()?);
    call.service.replica_digests(&name, &disk, &question).map_err(found)
}

pub(super) fn take(call: &Call, body: &[u8]) -> Outcome<Taken> {
    let (name, disk) = (call.new_machine()?, call.disk()?);
    let session =
        call.query("session")?.ok_or_else(|| Refusal::bad(Error::refused("the query says no session")))?;
    call.service.take_replica(&name, &disk, session, body).map_err(found)
}

pub(super) fn commit(call: &Call, commit: Commit) -> Outcome<Committed> {
    let name = call.new_machine()?;
    let variables = commit.variables.as_ref().map(|text| {
        STANDARD.decode(text).map_err(|error| {
            Refusal::bad(Error::refused(format!("the variables are not in Base64: {error}")))
        })
    });
    let variables = variables.transpose()?;
    if let Some(definition) = &commit.definition {
        let disks: BTreeSet<&str> = commit.checked.keys().map(Name::as_str).collect();
        check_definition(definition, disks)?;
    }
    call.service.commit_replica(&name, &commit, variables.as_deref()).map_err(found)
}

pub(super) fn give_up(call: &Call) -> Outcome<Held> {
    let name = call.new_machine()?;
    call.service.give_up_replica(&name)?;
    Ok(call.service.replica(&name)?)
}

/// Where a disk may differ between two points.
pub(super) fn changes(call: &Call) -> Outcome<Vec<u8>> {
    let (name, point) = call.point()?;
    let asked = |name: &str| Refusal::bad(Error::refused(format!("the query says no {name}")));
    let disk: Name = call.query("disk")?.ok_or_else(|| asked("disk"))?;
    let since: u64 = call.query("since")?.ok_or_else(|| asked("since"))?;
    let watched = call.service.machine(&name)?;
    let changed =
        point::changed(watched.machine(), disk.as_str(), since, point.number).map_err(Refusal::missing)?;
    Ok(changed.to_bytes())
}
