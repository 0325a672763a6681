//! The verbs that ask the service.

mod alarms;
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
use crate::ops::service::{Access, Service};
use crate::ops::{Context, Failure};
use landfall_image::{Bytes, Result};
use std::path::PathBuf;

/// How the verbs of the service are run.
pub struct Run<'a> {
    context: &'a Context<'a>,
    surroundings: &'a Surroundings,
    ca: Option<PathBuf>,
    rate_limit: Option<Bytes>,
    as_json: bool,
}

impl Run<'_> {
    /// The service that is meant.
    fn service(&self, at: &AtService) -> Result<Service> {
        Service::new(&Access {
            service: at.service.clone().or_else(|| self.surroundings.service.clone()),
            token: self.surroundings.token.clone(),
            ca: self.ca.clone(),
        })
    }

    /// Prints a document, as JSON or in words.
    fn show<D: serde::Serialize>(&self, document: &D, in_words: impl FnOnce(&D) -> String) -> Result<()> {
        match self.as_json {
            true => print_json(document),
            false => text::print(&in_words(document)),
        }
    }
}

/// Runs one of them; the exit code.
pub fn run(
    cli: &Cli,
    context: &Context<'_>,
    surroundings: &Surroundings,
) -> std::result::Result<u8, Failure> {
    let common = &cli.common;
    let run = Run {
        context,
        surroundings,
        ca: common.tls_ca.clone(),
        rate_limit: common.rate_limit,
        as_json: common.json,
    };
    let done = match &cli.verb {
        Verb::Status(args) => return Ok(status::run(&run, args)),
        Verb::Protect(args) => protect::protect(&run, args),
        Verb::Unprotect(args) => protect::unprotect(&run, args),
        Verb::Ready(args) => protect::ready(&run, args),
        Verb::Points(verb) => points::run(&run, verb),
        Verb::Alarms(args) => alarms::run(&run, args),
        Verb::Token(verb) => tokens::run(&run, verb),
        _ => Ok(0),
    };
    done.map_err(Failure::from)
}
