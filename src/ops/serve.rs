//! Runs the service, or says what its file means.

use crate::name::Name;
use crate::receive::folder::Watcher;
use crate::receive::nbd::Listen;
use crate::report::VERSION;
use crate::report::serving::{ClientRule, Found, Rules, SendsByClock, ServeChecked, WatchedFolder};
use crate::service::config::{Client, Config, Protect, Who};
use crate::service::run::{Bound, POINTS_GROUP};
use crate::vault::Vault;
use crate::vault::retention::shown_duration;
use landfall_boot::sandbox::Settings;
use landfall_image::convert::{Cancel, RateLimit};
use landfall_image::nbd::TlsFiles;
use landfall_image::{Error, Result};
use std::path::{Path, PathBuf};

/// Where the file is looked for when nobody names it.
const USUAL: &str = "/etc/landfall/landfall.toml";

/// The configuration in the file at `path`; without, in the usual place, or where nothing is there, the defaults.
///
/// # Errors
/// As [`Config::read`].
pub fn config(path: Option<&Path>) -> Result<Config> {
    match path {
        Some(path) => Config::read(path),
        None if Path::new(USUAL).exists() => Config::read(Path::new(USUAL)),
        None => {
            tracing::info!("{USUAL} is not there: the service has its defaults");
            Config::parse("", Path::new(""))
        }
    }
}

/// What a configuration means, whether the certificates can be read, and what of what it needs is not there for this user; `sandbox` is what
/// points are booted and patched with.
///
/// # Errors
/// Where a certificate cannot be read, or a watched folder is not there.
pub fn check(config: &Config, sandbox: &Settings) -> Result<ServeChecked> {
    let mut receive = vec![config.receive_socket().display().to_string()];
    for listen in &config.receive.listen {
        let Listen::Tcp { address, tls, .. } = listen else { continue };
        receive.push(match tls {
            Some(files) => files.server().map(|_| format!("{address} (TLS)"))?,
            None => format!("{address} (anybody on this machine)"),
        });
    }
    let mut api = vec![config.api_socket().display().to_string()];
    if let Some(remote) = &config.api {
        let files = TlsFiles {
            certificate: Some(remote.certificate.clone()),
            key: Some(remote.key.clone()),
            ca: remote.clients_ca.clone(),
        };
        files.server_that_asks()?;
        api.extend(remote.listen.iter().map(|address| format!("https://{address}")));
    }
    let mut folders = Vec::new();
    for folder in &config.folders {
        // It has to be there.
        Watcher::new(&folder.path, folder.options).map_err(|error| {
            error.hint(
                "make or mount it, and let the service's user read and write it; or take its [[folder]] out",
            )
        })?;
        folders.push(WatchedFolder {
            path: folder.path.display().to_string(),
            every: shown_duration(folder.every),
            manifest: folder.options.manifest,
            keep: folder.options.keep,
        });
    }
    let mut sends = Vec::new();
    for rule in &config.sends {
        if rule.tls.certificate.is_some() {
            rule.tls.client()?;
        }
        sends.push(SendsByClock {
            to: rule.to.clone(),
            machines: rule.machines.clone(),
            every: shown_duration(rule.every),
            late: shown_duration(rule.late),
            limit: rule.limit.as_ref().map(RateLimit::per_second),
        });
    }
    if config.pull.tls != TlsFiles::default() {
        config.pull.tls.client()?;
    }
    Ok(ServeChecked {
        version: VERSION,
        vault: config.vault.display().to_string(),
        receive,
        points: config.points_socket().display().to_string(),
        api,
        folders,
        sends,
        require_digest: config.require_digest,
        clients: config.clients.iter().map(client).collect(),
        webhook: config.alarm.webhook.clone(),
        protect: rules(&config.protect),
        machines: config.machines.iter().map(|(name, protect)| (name.to_string(), rules(protect))).collect(),
        groups: config
            .groups
            .iter()
            .map(|(name, members)| (name.to_string(), members.iter().map(ToString::to_string).collect()))
            .collect(),
        lacks: lacks(config, sandbox),
        doubts: doubts(config),
    })
}

fn lacks(config: &Config, sandbox: &Settings) -> Vec<Found> {
    let mut found = Vec::new();
    let mut put = |error: &Error, before: &str| {
        let fix = error.hint_text().unwrap_or("see landfall schema serve-file").to_owned();
        found.push(Found { says: format!("{before}{error}"), fix });
    };
    if let Err(error) = Vault::check(&config.vault) {
        put(&error, "");
    }
    if let Some(group) = config.points_group.filter(|group| !may_give(*group)) {
        let error = Error::refused(format!("points_group: this user is not in the group {group}"));
        put(&error.hint(POINTS_GROUP), "");
    }
    let uses_sandbox = |rules: &Protect| rules.prove.is_some() || !rules.prepare.is_empty();
    if uses_sandbox(&config.protect) || config.machines.values().any(uses_sandbox) {
        for error in sandbox.lacks() {
            put(&error, "prove and prepare: ");
        }
    }
    found
}

/// True where this user may give a file to that group (chown(2)).
fn may_give(group: u32) -> bool {
    use rustix::process::{getegid, geteuid, getgroups};
    let is_one = |other: &rustix::process::Gid| other.as_raw() == group;
    geteuid().is_root() || is_one(&getegid()) || getgroups().is_ok_and(|all| all.iter().any(is_one))
}

/// Members of groups that nothing else speaks of.
fn doubts(config: &Config) -> Vec<Found> {
    let is_in_vault = |name: &Name| config.vault.join("machines").join(name.as_str()).is_dir();
    let mut found = Vec::new();
    for (group, members) in &config.groups {
        for name in members.iter().filter(|name| !config.machines.contains_key(*name) && !is_in_vault(name)) {
            found.push(Found {
                says: format!("group {group}: {name} is not in the vault, and has no [machine.{name}]"),
                fix: format!("see whether it is written as in landfall protect {name}; until it is protected, the others get their points without it"),
            });
        }
    }
    found
}

fn client(client: &Client) -> ClientRule {
    let who = match &client.who {
        Who::Subject(subject) => subject.to_string(),
        Who::Fingerprint(sha256) => {
            let digits: Vec<String> = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("sha256:{}", digits.concat())
        }
    };
    ClientRule { who, machines: client.machines.clone() }
}

fn rules(protect: &Protect) -> Rules {
    Rules {
        checkpoint: shown_duration(protect.checkpoint),
        retention: protect.retention.to_string(),
        rpo: shown_duration(protect.rpo),
        delta_rpo: shown_duration(protect.delta_rpo),
        prove: protect.prove.map(shown_duration),
        prepare: protect.prepare.clone(),
    }
}

/// Works until `cancel`; `notify` is the socket of who started it (sd_notify(3)).
///
/// # Errors
/// Where it cannot begin, with what stands in the way; where it cannot end in good order.
pub fn serve(config: Config, notify: Option<PathBuf>, cancel: &Cancel) -> Result<()> {
    let bound = Bound::open(config, notify)?;
    let service = bound.service();
    let config = service.config();
    let machines = service.watched().len();
    tracing::info!(
        vault = %config.vault.display(),
        machines,
        nbd = ?bound.addresses(),
        api = ?bound.api_addresses(),
        sockets = %config.sockets.display(),
        "the service is there"
    );
    let ended = bound.run(cancel);
    match &ended {
        Ok(()) => tracing::info!("the service has ended in good order"),
        Err(error) => tracing::error!(%error, "the service has ended"),
    }
    ended
}
