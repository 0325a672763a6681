//! The command line: parses, calls `ops`, prints. Results go to standard output, everything else to standard error.

mod appliance;
pub mod args;
mod batch;
mod disk;
mod machine;
mod map;
mod mapping;
mod progress;
mod receive;
mod recover;
mod register;
mod send;
mod serve;
mod service;
mod text;

use crate::ops::Settings;
use crate::ops::service::{Access, Service};
use crate::ops::source::point::{OpenVault, Points, Served};
use crate::ops::{Context, Failure};
use crate::registrar::credentials::Credentials;
use args::{AtService, Cli, PointsVerb, Verb};
use landfall_image::convert::{Cancel, RateLimit};
use landfall_image::luks::Secret;
use landfall_image::nbd::{ClientOptions, TlsFiles};
use landfall_image::{Gate, Result};
use progress::Drawer;
use std::path::PathBuf;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What the program knows of its surroundings. Only `main` finds it out.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Folder for short-lived scratch files.
    pub scratch: PathBuf,
    /// Where the patch sandbox finds its parts.
    pub sandbox: Settings,
    /// Folder of machines that were recovered.
    pub recovered: PathBuf,
    /// User name and password of a hypervisor.
    pub credentials: Option<Credentials>,
    /// Set when the user asks to stop.
    pub cancel: Cancel,
    /// Where the service is.
    pub service: Option<String>,
    /// The secret of a token for it.
    pub token: Option<Zeroizing<String>>,
    /// The socket on which whoever started the program wants to hear of it (sd_notify(3)).
    pub notify: Option<PathBuf>,
    /// The appliance's console, until it is told to stop: the command line starts it without knowing it.
    pub console: fn(&Cancel) -> Result<()>,
}

/// Runs one command. The exit code: 0 done, 1 refused, 2 failed.
pub fn run(cli: &Cli, surroundings: &Surroundings) -> u8 {
    let drawer = Drawer::new(cli.common.quiet || cli.common.json);
    let outcome = gate(cli).and_then(|gate| Ok((gate, key(cli)?))).map_err(Failure::from);
    let outcome = outcome.and_then(|(gate, key)| {
        let context = Context {
            gate,
            key,
            nbd: ClientOptions { tls: tls(cli), ..ClientOptions::default() },
            jobs: cli.common.jobs.map(usize::from),
            rate_limit: cli.common.rate_limit.map(RateLimit::new),
            cancel: surroundings.cancel.clone(),
            scratch: surroundings.scratch.clone(),
            sandbox: surroundings.sandbox.clone(),
            points: Some(points(cli, surroundings)),
            observer: &drawer,
        };
        dispatch(cli, &context, surroundings)
    });
    drop(drawer);
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            text::failure(&failure, cli.common.json);
            failure.exit_code()
        }
    }
}

fn gate(cli: &Cli) -> Result<Gate> {
    cli.common.allow.iter().try_fold(Gate::own_folder(), |gate, folder| gate.allow(folder))
}

/// The service that a verb means.
fn service_at(at: &AtService, cli: &Cli, surroundings: &Surroundings) -> Result<Service> {
    Service::new(&Access {
        service: at.service.clone().or_else(|| surroundings.service.clone()),
        token: surroundings.token.clone(),
        ca: cli.common.tls_ca.clone(),
    })
}

/// Who has recovery points: a vault that is named, else the service.
fn points(cli: &Cli, surroundings: &Surroundings) -> Arc<dyn Points> {
    if let Some(vault) = &cli.common.vault {
        return Arc::new(OpenVault::new(vault));
    }
    let access = Access {
        service: surroundings.service.clone(),
        token: surroundings.token.clone(),
        ca: cli.common.tls_ca.clone(),
    };
    Arc::new(Served::new(access, ClientOptions::default()))
}

fn tls(cli: &Cli) -> TlsFiles {
    let common = &cli.common;
    TlsFiles { ca: common.tls_ca.clone(), certificate: common.tls_cert.clone(), key: common.tls_key.clone() }
}

/// The key of encrypted images, from a file: on the command line everybody could see it.
fn key(cli: &Cli) -> Result<Option<Secret>> {
    /// cryptsetup's own limit.
    const AT_MOST: u64 = 8 << 20;
    let (path, first_line) = match (&cli.common.key_file, &cli.common.passphrase_file) {
        (Some(path), _) => (path, false),
        (None, Some(path)) => (path, true),
        (None, None) => return Ok(None),
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, AT_MOST), &mut bytes))
        .map_err(|e| landfall_image::Error::io("cannot read the key", e).in_file(path))?;
    if first_line {
        let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
        bytes.truncate(end);
    }
    Ok(Some(Secret::new(bytes)))
}

fn dispatch(
    cli: &Cli,
    context: &Context<'_>,
    surroundings: &Surroundings,
) -> std::result::Result<u8, Failure> {
    match &cli.verb {
        Verb::Appliance(verb) => {
            appliance::run(verb, cli.common.json, context, surroundings).map_err(Failure::from)
        }
        Verb::Disk(verb) => disk::run(verb, cli.common.json, context).map_err(Failure::from),
        Verb::Explain(explain) => {
            text::explain(explain.id.as_deref(), cli.common.json).map_err(Failure::from)
        }
        Verb::Batch(fleet) => batch::run(fleet, cli.common.json, cli.common.quiet, context, surroundings),
        Verb::Map(verb) => mapping::run(verb, cli.common.json).map_err(Failure::from),
        Verb::Convert(convert) => machine::convert(convert, cli.common.json, context, surroundings),
        Verb::Schema(wanted) => text::schema(wanted.name.as_deref(), cli.common.json).map_err(Failure::from),
        Verb::Inspect(inspect) => machine::inspect(inspect, cli.common.json, context),
        Verb::Prove(prove) => machine::prove(prove, cli.common.json, context),
        Verb::Send(args) => send::run(args, cli, context, surroundings),
        Verb::Serve(args) => serve::run(args, cli.common.json, surroundings).map_err(Failure::from),
        Verb::Receive(verb) => receive::run(verb, cli, context, surroundings),
        Verb::Points(PointsVerb::Export(args)) => receive::export(args, cli, context, surroundings),
        Verb::Status(_)
        | Verb::Protect(_)
        | Verb::Unprotect(_)
        | Verb::Ready(_)
        | Verb::Points(_)
        | Verb::Alarms(_)
        | Verb::Token(_)
        | Verb::Certificate(_) => service::run(cli, context, surroundings),
        Verb::Recover(args) => recover::run(args, cli, context, surroundings),
        Verb::Register(args) => register::register(args, cli.common.json, context, surroundings),
    }
}
