//! The verbs that ask the service.

mod alarms;
mod certificates;
mod mirror;
mod points;
mod protect;
mod shown;
mod status;
mod tokens;

pub(super) use shown::{count, wrapped};

use super::Surroundings;
use super::args::{AtService, Cli, Verb};
use super::text::{self, print_json};
use crate::ops::service::{Access, Service, with_vault};
use crate::ops::{Context, Failure};
use landfall_image::{Bytes, Error, Result};
use std::path::{Path, PathBuf};

/// How the verbs of the service are run.
pub struct Run<'a> {
    context: &'a Context<'a>,
    surroundings: &'a Surroundings,
    /// The socket at which a vault that is named with --vault is asked.
    vault: Option<&'a Path>,
    ca: Option<PathBuf>,
    rate_limit: Option<Bytes>,
    as_json: bool,
}

impl Run<'_> {
    /// The service that is meant.
    fn service(&self, at: &AtService) -> Result<Service> {
        let Some(socket) = self.vault else {
            return Service::new(&Access {
                service: at.service.clone().or_else(|| self.surroundings.service.clone()),
                token: self.surroundings.token.clone(),
                ca: self.ca.clone(),
            });
        };
        if at.service.is_some() {
            return Err(Error::refused("--service names a service, and --vault a vault on which none works")
                .hint("leave one of them out"));
        }
        Service::new(&Access { service: Some(socket.display().to_string()), ..Access::default() })
    }

    /// True where a vault is asked on which no service works: what it says of addresses is of no use to anybody.
    fn is_alone(&self) -> bool {
        self.vault.is_some()
    }

    /// Prints a document, as JSON or in words.
    fn show<D: serde::Serialize>(&self, document: &D, in_words: impl FnOnce(&D) -> String) -> Result<()> {
        match self.as_json {
            true => print_json(document),
            false => text::print(&in_words(document)),
        }
    }
}

/// Refuses a vault that is named for a verb that only a service can do.
fn without_service(verb: &Verb) -> Result<()> {
    let name = match verb {
        Verb::Protect(_) => "protect",
        Verb::Unprotect(_) => "unprotect",
        Verb::Ready(_) => "ready",
        Verb::Alarms(_) => "alarms",
        Verb::Token(_) => "token",
        Verb::Certificate(_) => "certificate",
        _ => return Ok(()),
    };
    Err(Error::refused(format!(
        "landfall {name} is for a service, and --vault names a vault on which none works"
    ))
    .hint(
        "start a service on that vault (landfall serve); or leave --vault out, to ask the service that runs",
    ))
}

/// Runs one of them; the exit code.
pub fn run(
    cli: &Cli,
    context: &Context<'_>,
    surroundings: &Surroundings,
) -> std::result::Result<u8, Failure> {
    let Some(folder) = &cli.common.vault else {
        return done(cli, context, surroundings, None).map_err(Failure::from);
    };
    let done = without_service(&cli.verb)
        .and_then(|()| with_vault(context, folder, |socket| done(cli, context, surroundings, Some(socket))));
    match (done, &cli.verb) {
        (Err(error), Verb::Status(_)) => Ok(status::failed(error, cli.common.json)),
        (done, _) => done.map_err(Failure::from),
    }
}

fn done(cli: &Cli, context: &Context<'_>, surroundings: &Surroundings, vault: Option<&Path>) -> Result<u8> {
    let common = &cli.common;
    let run = Run {
        context,
        surroundings,
        vault,
        ca: common.tls_ca.clone(),
        rate_limit: common.rate_limit,
        as_json: common.json,
    };
    match &cli.verb {
        Verb::Status(args) => Ok(status::run(&run, args)),
        Verb::Protect(args) => protect::protect(&run, args),
        Verb::Unprotect(args) => protect::unprotect(&run, args),
        Verb::Ready(args) => protect::ready(&run, args),
        Verb::Points(verb) => points::run(&run, verb),
        Verb::Alarms(args) => alarms::run(&run, args),
        Verb::Token(verb) => tokens::run(&run, verb),
        Verb::Certificate(verb) => certificates::run(&run, verb),
        _ => Ok(0),
    }
}
