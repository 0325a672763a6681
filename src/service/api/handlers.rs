//! What each route does.

use super::call::{Call, Outcome, Refusal, json};
use super::caller::new_secret;
use super::{flow, openapi, secret_digest};
use crate::machine::Machine;
use crate::moment::Moment;
use crate::ops::receive::pull_request;
use crate::receive::digest::Sum;
use crate::receive::rbd::export::{Wanted, name_at, snapshot_at};
use crate::receive::rbd::record::Version;
use crate::receive::send;
use crate::receive::spool::{Request, Upload};
use crate::report::VERSION;
use crate::report::api::{
    CertificateMade, Certificates, Events, Health, Hold, HoldSet, Holds, MachineShown, MakeCertificate,
    MakeToken, PointSet, PointShown, Protect, SetHold, SetPoint, SetRole, SetTag, Token, TokenMade, Tokens,
    Verification, Verify,
};
use crate::report::protection::{Evidence, History, Point, Points, Status};
use crate::report::receiving::{Receipt, Scan, TakeStreams, Uploaded, WantedPull};
use crate::service::which::Which;
use crate::service::{DEFINITION, VARIABLES};
use crate::vault::journal::{Mark, State};
use axum::body::Body;
use axum::http::{Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_image::{Bytes, Error};
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

/// Events that are shown, and those that can be.
const EVENTS: u32 = 100;
const EVENTS_AT_MOST: u32 = 10_000;
/// Tokens of a service: each request looks for one.
const TOKENS_AT_MOST: usize = 1000;

pub(super) fn health(call: &Call) -> Outcome<Health> {
    match call.service.health() {
        Ok(()) => Ok(Health::default()),
        Err(error) => Err(Refusal { status: StatusCode::SERVICE_UNAVAILABLE, error }),
    }
}

pub(super) fn document(_call: &Call) -> Outcome<serde_json::Value> {
    Ok(openapi::document(&super::table::routes()))
}

pub(super) fn status(call: &Call) -> Outcome<Status> {
    Ok(call.service.status())
}

pub(super) fn machine(call: &Call) -> Outcome<MachineShown> {
    let name = call.machine()?;
    let machine = call.service.status_of(&name).map_err(Refusal::missing)?;
    let state = call.service.machine(&name)?.machine().journal().state();
    let disks = state.disks.values().map(|info| info.name.as_str());
    Ok(MachineShown {
        version: VERSION,
        receive: call.service.inlets(name.as_str(), disks),
        definition: definition(&state)?,
        variables: state.attachments.contains_key(VARIABLES),
        machine,
    })
}

fn definition(state: &State) -> Outcome<Option<Machine>> {
    let kept = state.attachments.get(DEFINITION);
    let read = kept.map(|bytes| {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::corrupt(format!("the machine's definition cannot be read: {error}")))
    });
    Ok(read.transpose()?)
}

pub(super) fn protect(call: &Call, wanted: Protect) -> Outcome<MachineShown> {
    let name = call.new_machine()?;
    if wanted.disks.is_empty() && call.service.machine(&name).is_err() {
        return Err(Error::refused(format!("{name} would have no disk"))
            .hint("name its disks, each with its size")
            .into());
    }
    let variables = wanted.variables.as_ref().map(|text| {
        STANDARD.decode(text).map_err(|error| {
            Refusal::bad(Error::refused(format!("the variables are not in Base64: {error}")))
        })
    });
    let variables = variables.transpose()?;
    let definition = match &wanted.definition {
        None => None,
        Some(definition) => {
            let there = call.service.machine(&name).map(|watched| watched.machine().journal().state().disks);
            let there = there.unwrap_or_default();
            let known = there.values().map(|info| info.name.as_str());
            check_definition(
                definition,
                known.chain(wanted.disks.iter().map(|disk| disk.name.as_str())).collect(),
            )?;
            let text = serde_json::to_vec(definition)
                .map_err(|error| Error::refused(format!("the definition cannot be written down: {error}")))?;
            Some(text)
        }
    };
    call.service.protect(&name, &wanted.disks, definition.as_deref(), variables.as_deref())?;
    machine(call)
}

/// Refuses a definition whose disks are not those of the machine: a recovery could not tell which is which.
pub(super) fn check_definition(definition: &Machine, disks: BTreeSet<&str>) -> Outcome<()> {
    let mut seen = BTreeSet::new();
    for slot in &definition.disks {
        let file = slot.file.as_str();
        if !disks.contains(file) {
            return Err(Error::refused(format!(
                "{} of the definition is {file:?}, which is no disk of the machine",
                slot.slot
            ))
            .hint(format!(
                "let `file` of each disk be the name under which it is protected: {}",
                disks.iter().copied().collect::<Vec<_>>().join(", ")
            ))
            .into());
        }
        if !seen.insert(file) {
            return Err(Error::refused(format!("{file:?} is two disks of the definition"))
                .hint("let `file` of each disk be the name under which it is protected")
                .into());
        }
    }
    Ok(())
}

pub(super) fn drop_disk(call: &Call) -> Outcome<MachineShown> {
    let (name, disk) = (call.machine()?, call.disk()?);
    let watched = call.service.machine(&name)?;
    if watched.machine().disk_number(disk.as_str()).is_none() {
        let error =
            Error::refused(format!("{name} has no disk {disk}")).hint("landfall status shows its disks");
        return Err(Refusal::missing(error));
    }
    call.service.drop_disk(&name, &disk)?;
    machine(call)
}

pub(super) fn role(call: &Call, wanted: SetRole) -> Outcome<MachineShown> {
    let name = call.machine()?;
    call.service.machine(&name).map_err(Refusal::missing)?;
    call.service.set_role(&name, &wanted)?;
    machine(call)
}

pub(super) fn unprotect(call: &Call) -> Outcome<()> {
    let name = call.machine()?;
    if call.query.get("points").map(String::as_str) != Some("delete") {
        let points = call.service.points(&name)?.len();
        return Err(Error::refused(format!("{name} has {points} points, and all of them would be gone"))
            .hint("say that this is meant: points=delete")
            .into());
    }
    Ok(call.service.unprotect(&name)?)
}

fn set(name: &crate::name::Name, point: Point) -> PointSet {
    PointSet { version: VERSION, machine: name.to_string(), point, was: None }
}

pub(super) fn ready(call: &Call) -> Outcome<PointSet> {
    let name = call.machine()?;
    Ok(set(&name, call.service.ready(&name)?))
}

pub(super) fn set_point(call: &Call, wanted: SetPoint) -> Outcome<PointSet> {
    let name = call.machine()?;
    let mark = Mark { consistency: wanted.consistency, tag: wanted.tag, ..Mark::default() };
    Ok(set(&name, call.service.checkpoint(&name, &mark)?))
}

pub(super) fn points(call: &Call) -> Outcome<Points> {
    let name = call.machine()?;
    let (since, until) = (call.moment("since")?, call.moment("until")?);
    let mut points = call.service.points(&name)?;
    points.retain(|point| {
        since.is_none_or(|since| point.at >= since) && until.is_none_or(|until| point.at <= until)
    });
    Ok(Points { version: VERSION, machine: name.to_string(), points })
}

pub(super) fn point(call: &Call) -> Outcome<PointShown> {
    let (name, point) = call.point()?;
    let machine = Arc::clone(call.service.machine(&name)?.machine());
    let was = machine.at(point.number).map_err(Refusal::missing)?;
    let state = was.state();
    let was_at = |disk: &str| snapshot_at(&machine, point.number, disk);
    Ok(PointShown {
        version: VERSION,
        machine: name.to_string(),
        id: call.service.machine(&name)?.machine().home().machine,
        sent: send::of_point(state),
        disks: call.service.outlets(name.as_str(), point.number, state, &was_at)?,
        definition: definition(state)?,
        variables: state.attachments.contains_key(VARIABLES),
        point,
    })
}

pub(super) fn variables(call: &Call) -> Outcome<Vec<u8>> {
    let (name, point) = call.point()?;
    let was = call.service.machine(&name)?.machine().at(point.number).map_err(Refusal::missing)?;
    was.state().attachments.get(VARIABLES).cloned().ok_or_else(|| {
        Refusal::missing(
            Error::refused(format!("point {} of {name} has no UEFI variables", point.number))
                .hint("landfall protect NAME --nvram FILE keeps them for later points"),
        )
    })
}

pub(super) fn give_up(call: &Call) -> Outcome<()> {
    let (name, point) = call.point()?;
    Ok(call.service.give_up(&name, point.number)?)
}

pub(super) fn tag(call: &Call, wanted: SetTag) -> Outcome<PointSet> {
    let (name, point) = call.point()?;
    let tagged = call.service.tag(&name, point.number, wanted.tag.as_deref())?;
    let was = point.tag.filter(|was| tagged.tag.as_ref() != Some(was));
    Ok(PointSet { was, ..set(&name, tagged) })
}

pub(super) fn hold(call: &Call, wanted: SetHold) -> Outcome<HoldSet> {
    let name = call.machine()?;
    let SetHold { holder, held } = wanted;
    if holder.trim().is_empty() || holder.len() > 4096 || holder.chars().any(char::is_control) {
        return Err(Refusal::bad(
            Error::refused("this cannot be who holds a point")
                .hint("use 1 to 4096 bytes without control characters"),
        ));
    }
    // One that is gone can be let go.
    let number = match call.number() {
        Some(number) => number,
        None => call.point()?.1.number,
    };
    match held {
        true => call.service.hold(&name, number, &holder).map_err(Refusal::missing)?,
        false => call.service.release(&name, number, &holder)?,
    }
    Ok(HoldSet { version: VERSION, hold: Hold { machine: name.to_string(), point: number, holder }, held })
}

pub(super) fn holds(call: &Call) -> Outcome<Holds> {
    Ok(Holds { version: VERSION, holds: call.service.holds() })
}

pub(super) fn evidence(call: &Call) -> Outcome<History> {
    let name = call.machine()?;
    let id = call.service.machine(&name)?.machine().home().machine;
    Ok(History {
        version: VERSION,
        machine: name.to_string(),
        statements: call.service.catalog().signed(&id)?,
    })
}

pub(super) fn attach_proof(call: &Call, evidence: Evidence) -> Outcome<PointSet> {
    let (name, point) = call.point()?;
    let texts = [&evidence.target, &evidence.says, &evidence.folder].into_iter().chain(&evidence.accelerator);
    if texts.into_iter().any(|text| text.len() > 8192 || text.chars().any(char::is_control)) {
        return Err(Refusal::bad(
            Error::refused("this cannot be evidence").hint("its texts are lines of at most 8192 bytes"),
        ));
    }
    // When it arrives is what its age is told by.
    call.service.attach_proof(&name, point.number, &Evidence { at: Moment::now(), ..evidence })?;
    Ok(set(&name, call.service.point(&name, &Which::Number(point.number))?))
}

pub(super) fn verify(call: &Call, how: Verify) -> Outcome<Verification> {
    let (name, point) = call.point()?;
    Ok(call.service.verify(&name, point.number, &how)?)
}

pub(super) fn verification(call: &Call) -> Outcome<Verification> {
    let (name, point) = call.point()?;
    call.service.verification(&name, point.number).map_err(Refusal::missing)
}

pub(super) fn events(call: &Call) -> Outcome<Events> {
    let at_most = call.query::<u32>("at_most")?.unwrap_or(EVENTS).min(EVENTS_AT_MOST);
    Ok(Events { version: VERSION, events: call.service.catalog().events(at_most)? })
}

pub(super) fn tokens(call: &Call) -> Outcome<Tokens> {
    Ok(Tokens { version: VERSION, tokens: call.service.catalog().tokens()? })
}

pub(super) fn make_token(call: &Call, wanted: MakeToken) -> Outcome<TokenMade> {
    let MakeToken { name, role } = wanted;
    if name.trim().is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
        return Err(Refusal::bad(
            Error::refused("this cannot be a token's name")
                .hint("use 1 to 100 bytes without control characters"),
        ));
    }
    let catalog = call.service.catalog();
    if catalog.tokens()?.len() >= TOKENS_AT_MOST {
        return Err(Error::refused(format!("there are {TOKENS_AT_MOST} tokens"))
            .hint("take back those that nobody uses: landfall token remove NAME")
            .into());
    }
    let secret = new_secret()?;
    catalog.add_token(&name, &secret_digest(&secret), role)?;
    Ok(TokenMade { version: VERSION, token: Token { name, role, made: Moment::now() }, secret })
}

pub(super) fn remove_token(call: &Call) -> Outcome<()> {
    let name = call.plain_name()?;
    match call.service.catalog().remove_token(name)? {
        true => Ok(()),
        false => Err(Refusal::missing(
            Error::refused(format!("there is no token {name:?}"))
                .hint("landfall token list shows those that there are"),
        )),
    }
}

pub(super) fn certificates(call: &Call) -> Outcome<Certificates> {
    Ok(Certificates { version: VERSION, certificates: call.service.catalog().certificates()? })
}

pub(super) fn make_certificate(call: &Call, wanted: MakeCertificate) -> Outcome<CertificateMade> {
    Ok(call.service.make_certificate(&wanted.name, wanted.rights)?)
}

pub(super) fn remove_certificate(call: &Call) -> Outcome<()> {
    let name = call.plain_name()?;
    match call.service.take_back(name)? {
        true => Ok(()),
        false => Err(Refusal::missing(
            Error::refused(format!("there is no certificate {name:?} that is not taken back"))
                .hint("landfall certificate list shows those that there are"),
        )),
    }
}

pub(super) fn upload(call: &Call, body: &mut dyn std::io::Read) -> Outcome<Response<Body>> {
    let request = Request {
        machine: call.named("machine")?,
        disk: call.named("disk")?,
        name: call.query.get("name").cloned().unwrap_or_else(|| "a stream".to_owned()),
        sha256: call.query.get("sha256").map(|text| Sum::parse(text)).transpose().map_err(Refusal::bad)?,
        replace: call.query("replace")?.unwrap_or_default(),
        apart: call.query("apart")?.unwrap_or_default(),
        taken_at: call.moment("taken_at")?,
    };
    let Upload { id, request, length, .. } = call.service.upload(request, body)?;
    let uploaded = Uploaded {
        version: VERSION,
        id,
        machine: request.machine,
        disk: request.disk,
        length: Bytes(length),
    };
    Ok(json(StatusCode::CREATED, &uploaded)?)
}

pub(super) fn discard(call: &Call) -> Outcome<()> {
    Ok(call.service.discard(call.id()?)?)
}

pub(super) fn take_streams(call: &Call, wanted: TakeStreams) -> Outcome<Receipt> {
    Ok(call.service.take_streams(&call.new_machine()?, &wanted.uploads)?)
}

pub(super) fn pull(call: &Call, wanted: WantedPull) -> Outcome<Receipt> {
    let request = pull_request(&wanted).map_err(Refusal::bad)?;
    Ok(call.service.pull(&call.new_machine()?, request)?)
}

pub(super) fn scan(call: &Call, wanted: Scan) -> Outcome<Receipt> {
    Ok(call.service.scan_folder(std::path::Path::new(&wanted.folder))?)
}

pub(super) fn receipt(call: &Call) -> Outcome<Receipt> {
    call.service.receipts().receipt(call.id()?).map_err(Refusal::missing)
}

pub(super) fn diff(call: &Call) -> Outcome<Body> {
    let (name, point) = call.point()?;
    let disk = call.disk()?;
    let since = match call.query.get("since") {
        None => None,
        Some(text) => {
            let which = text.parse().map_err(Refusal::bad)?;
            Some(call.service.point(&name, &which).map_err(Refusal::missing)?.number)
        }
    };
    let version = match call.query.get("format").map(String::as_str) {
        None | Some("v1") => Version::V1,
        Some("v2") => Version::V2,
        Some(other) => {
            return Err(Refusal::bad(
                Error::refused(format!("{other:?} is no notation of a diff")).hint("v1 or v2"),
            ));
        }
    };
    let machine = Arc::clone(call.service.machine(&name)?.machine());
    let called = |parameter: &str, number: u64| match call.query.get(parameter) {
        Some(name) => Ok(name.clone()),
        None => name_at(&machine, number, disk.as_str()),
    };
    let snapshot = called("snapshot", point.number)?;
    let from = since.map(|since| Ok::<_, Error>((since, called("since_snapshot", since)?))).transpose()?;
    let flow = call.flow.lock().unwrap_or_else(PoisonError::into_inner).take();
    let service = Arc::clone(&call.service);
    flow::outgoing(flow, move |out| {
        let wanted = Wanted {
            disk: disk.as_str(),
            from: from.as_ref().map(|(point, name)| (*point, name.as_str())),
            to: point.number,
            name: Some(&snapshot),
            version,
        };
        service.export(&name, &wanted, out)
    })
}
