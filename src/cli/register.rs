//! `landfall register`, and the end of `landfall convert --register`.

use super::Surroundings;
use super::args::{PlaceArgs, Register};
use super::text::{self, print_json};
use crate::ops::{Context, Failure, register};
use crate::registrar::Wanted;
use crate::report::registration::{Outcome, Registration};
use std::fmt::Write;

/// What the arguments say of the place.
pub fn wanted(at: &str, place: &PlaceArgs, surroundings: &Surroundings) -> Wanted {
    Wanted {
        at: at.to_owned(),
        credentials: place.credentials.clone(),
        environment: surroundings.credentials.clone(),
        ca: place.register_ca.clone(),
        thumbprint: place.thumbprint,
        datacenter: place.datacenter.clone(),
        host: place.host.clone(),
        pool: place.pool.clone(),
        datastore: place.datastore.clone(),
        folder: place.register_folder.clone(),
        storage: place.register_storage.clone(),
        start: place.start,
    }
}

/// `landfall register`
pub fn register(
    args: &Register,
    as_json: bool,
    context: &Context<'_>,
    surroundings: &Surroundings,
) -> Result<u8, Failure> {
    let wanted = wanted(&args.at, &args.place, surroundings);
    let done = register::register(context, &args.machine, &wanted, args.dry_run)?;
    if as_json {
        print_json(&done)?;
    } else {
        text::print(&registration_text(&done))?;
    }
    Ok(code(&done))
}

/// The program's exit code.
pub fn code(done: &Registration) -> u8 {
    u8::from(done.outcome == Outcome::Blocked)
}

/// For people.
pub fn registration_text(done: &Registration) -> String {
    let mut out = String::new();
    let Registration { machine, at, .. } = done;
    let _ = match (done.outcome, done.id.as_deref().unwrap_or_default()) {
        (Outcome::Planned, _) => writeln!(out, "\n{machine} can be registered at {at}"),
        (Outcome::Blocked, _) => {
            writeln!(out, "\n{machine} is NOT registered at {at}; nothing was changed there")
        }
        (Outcome::Registered, id) => writeln!(
            out,
            "\n{machine} is registered at {at} as {id}{}, in {:.1} s",
            if done.started { " and runs" } else { "" },
            done.seconds
        ),
    };
    let will = match done.outcome {
        Outcome::Planned => "would ",
        Outcome::Blocked => "was to ",
        Outcome::Registered => "",
    };
    for step in &done.steps {
        let _ = writeln!(out, "  {will}{step}");
    }
    if !done.findings.is_empty() {
        let _ = writeln!(out, "\nFindings");
        text::findings(&done.findings, &mut |line| {
            let _ = writeln!(out, "{line}");
        });
    }
    out
}
