//! The steps of the appliance's start, each run by a unit of its own (`packaging/appliance/units`). Each may run again, and says what stands in
//! the way instead of failing: a machine that cannot be reached helps nobody.

use super::disks::{self, Choice, Layout};
use super::helper::NextSystem;
use super::kept::Kept;
use super::problems::{self, Problem};
use super::slots::{self, Came};
use super::{apply, disc, media, places, programs, state};
use crate::authority::Authority;
use crate::ops::service::{Access, Service};
use crate::report::api::Role;
use landfall_boot::appliance::init::Boot;
use landfall_image::{Error, Result};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A system that is tried has this long to come up.
const TRIAL_WITHIN: Duration = Duration::from_secs(300);

/// The state partition.
///
/// # Errors
/// Where there is not even memory for it.
pub fn state() -> Result<()> {
    state::prepare(&state::boot()?)
}

/// Settings that came with the machine.
///
/// # Errors
/// Where this is no appliance.
pub fn media() -> Result<()> {
    let boot = state::boot()?;
    let mut found = Vec::new();
    match media::look(&boot) {
        Ok(given) => {
            for given in given {
                let kept = Kept::new(Path::new(places::KEPT));
                match kept.take_given(&given) {
                    Ok(true) => {
                        tracing::info!("settings of {} are new, and are taken", given.identity.source)
                    }
                    Ok(false) => {}
                    Err(error) => found.push(Problem::from(&error)),
                }
            }
        }
        Err(error) => found.push(Problem::from(&error)),
    }
    problems::tell("2-media", &found);
    Ok(())
}

/// Settings into effect.
///
/// # Errors
/// `Io`
pub fn settings() -> Result<()> {
    let kept = Kept::new(Path::new(places::KEPT));
    let effective = kept.load().effective();
    // Only then does it matter which card is the first one, and what it is called.
    if effective.nic.is_some_and(|nics| !nics.is_empty()) {
        programs::run(programs::UDEVADM, &["settle", "--timeout=20"])?;
    }
    // It says itself what could not be done.
    apply::settings(&kept)?;
    ssh_host_key()
}

/// A host key, where a key lets somebody in and there is none yet.
fn ssh_host_key() -> Result<()> {
    let key = Path::new(places::KEPT).join("ssh/ssh_host_ed25519_key");
    if key.exists() || !Path::new("/run/landfall-appliance/ssh/authorized_keys").exists() {
        return Ok(());
    }
    fs::create_dir_all(Path::new(places::KEPT).join("ssh"))
        .map_err(|e| Error::io("cannot make", e).in_file(&key))?;
    programs::must(
        programs::SSH_KEYGEN,
        &["-q", "-t", "ed25519", "-N", "", "-C", "landfall", "-f", &key.to_string_lossy()],
    )?;
    Ok(())
}

/// The resolver's file.
///
/// # Errors
/// `Io`
pub fn resolv() -> Result<()> {
    apply::resolv(&Kept::new(Path::new(places::KEPT)))
}

/// Whether there is a slot to put an update into.
///
/// # Errors
/// `Refused` on a disc.
pub fn can_update(boot: &Boot) -> Result<()> {
    match boot.slot {
        Some(_) => Ok(()),
        None => Err(Error::refused("this system runs from a disc, which cannot be updated in its place").hint(
            "build a newer disc (landfall appliance build -o landfall.iso), put it into the drive instead of this one, and restart: settings, certificates and the vault are on the data disk",
        )),
    }
}

/// An update that was sent.
///
/// # Errors
/// Where this is no appliance.
pub fn update() -> Result<()> {
    let boot = state::boot()?;
    if let Err(error) = can_update(&boot) {
        problems::tell("5-update", &[Problem::from(&error)]);
        return Ok(());
    }
    let path = Path::new(places::UPDATE);
    let installed =
        File::open(path).map_err(|e| Error::io("cannot read", e).in_file(path)).and_then(|mut file| {
            let key = state::read(Path::new(crate::ops::appliance::UPDATE_KEY))?;
            let running = state::read(Path::new(crate::ops::appliance::SNAPSHOT))?.unwrap_or_default();
            slots::install(&boot, &mut file, key.as_deref(), String::from_utf8_lossy(&running).trim())
        });
    // Whatever waited before is not there any longer: the slot was written over.
    let _ = fs::remove_file(places::NEXT);
    let found: Vec<Problem> = match installed {
        Ok(manifest) => {
            let next = NextSystem { version: manifest.version, snapshot: manifest.snapshot };
            let text = serde_json::to_vec(&next).map_err(|e| Error::corrupt(e.to_string()))?;
            state::write(Path::new(places::NEXT), &text, 0o644)?;
            Vec::new()
        }
        Err(error) => vec![Problem::from(&error)],
    };
    problems::tell("5-update", &found);
    Ok(())
}

/// A data disk that has become larger.
///
/// # Errors
/// Where this is no appliance.
pub fn grow() -> Result<()> {
    let found: Vec<Problem> = disks::grow(&state::boot()?).err().iter().map(Problem::from).collect();
    problems::tell("4-grow", &found);
    Ok(())
}

/// The administrator's token, at the first start, for the console to show.
///
/// # Errors
/// Where the service gives none.
pub fn welcome() -> Result<()> {
    const NAME: &str = "admin";
    if Path::new(places::WELCOMED).exists() {
        return Ok(());
    }
    let service = Service::new(&Access::default())?;
    // One that nobody noted, of a start that was cut off.
    if service.tokens()?.tokens.iter().any(|token| token.name == NAME) {
        service.remove_token(NAME)?;
    }
    let made = service.make_token(NAME, Role::Admin)?;
    let path = Path::new(places::FIRST_TOKEN);
    state::write(path, made.secret.as_bytes(), 0o400)?;
    std::os::unix::fs::chown(path, Some(places::CONSOLE_USER), Some(places::CONSOLE_USER))
        .map_err(|e| Error::io("cannot give to the console", e).in_file(path))
}

/// The data disk, and what the service needs.
///
/// # Errors
/// Where this is no appliance.
pub fn data() -> Result<()> {
    let boot = state::boot()?;
    let mut found = Vec::new();
    if !is_mounted(places::VAULT) {
        match vault(&boot) {
            Ok(None) => {}
            Ok(Some(problem)) => found.push(problem),
            Err(error) => found.push(Problem::from(&error)),
        }
    }
    if let Err(error) = service_file() {
        found.push(Problem::from(&error));
    }
    problems::tell("3-data", &found);
    if is_mounted(places::VAULT) {
        // At a start it is waited for anyway; a disk that came later starts it.
        programs::must(programs::SYSTEMCTL, &["start", "--no-block", "landfall.service"])?;
    }
    Ok(())
}

fn vault(boot: &Boot) -> Result<Option<Problem>> {
    let disks = disks::list(boot);
    let in_memory = disc::is_in_memory(boot);
    let damaged = state::read(Path::new(places::DAMAGED_STATE))?;
    let damaged = damaged.as_deref().map(|bytes| Path::new(std::ffi::OsStr::from_bytes(bytes)));
    if in_memory && let Some(problem) = disc::late(&disks, damaged) {
        return Ok(Some(problem));
    }
    let layout = if in_memory { Layout::StateAndVault } else { Layout::Vault };
    let claim = state::read(Path::new(places::CLAIM))?;
    let choice = match claim.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        Some(claim) => {
            // Once: what is refused now must not be tried at each start.
            fs::remove_file(places::CLAIM)
                .map_err(|e| Error::io("cannot remove", e).in_file(Path::new(places::CLAIM)))?;
            disks::claimed(&disks, &claim, layout)?
        }
        None => disks::choose(&disks, disks::known()?, layout),
    };
    match choice {
        Choice::Mount(partition, id) => {
            disks::mount_vault(&partition)?;
            disks::keep(id)?;
        }
        Choice::Make(device) => {
            if in_memory {
                disc::keep_on(&device)?;
            }
            let (partition, id) = disks::make(&device, layout)?;
            disks::mount_vault(&partition)?;
            disks::keep(id)?;
        }
        Choice::Nothing(problem) => return Ok(Some(problem)),
    }
    Ok(None)
}

/// True where something is mounted there.
pub fn is_mounted(path: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(path))
}

/// Certificates, and the service's file: what the appliance says, and over it what the administrator says.
fn service_file() -> Result<()> {
    authority()?;
    let own = own_file();
    let more = state::read(Path::new(places::SERVICE_MORE))?;
    let text = match more {
        None => own.to_string(),
        Some(bytes) => {
            let path = Path::new(places::SERVICE_MORE);
            let text = String::from_utf8(bytes).map_err(|e| Error::corrupt(e.to_string()).in_file(path))?;
            let more: toml::Table = toml::from_str(&text).map_err(|e| {
                Error::corrupt(format!(
                    "the administrator's additions to the service's file cannot be used: {}",
                    e.message()
                ))
                .in_file(path)
                .hint("correct or remove it; until then the appliance's own settings count alone")
            })?;
            over(own, more).to_string()
        }
    };
    state::write(Path::new(places::SERVICE_FILE), text.as_bytes(), 0o644)
}

/// What the appliance says to its service.
fn own_file() -> toml::Table {
    let of = |name: &str| toml::Value::String(format!("{}/{name}", places::AUTHORITY));
    let listen = |port: u16| toml::Value::Array(vec![toml::Value::String(format!("[::]:{port}"))]);
    let server = |port: u16| {
        toml::Value::Table(toml::Table::from_iter([
            ("listen".to_owned(), listen(port)),
            ("certificate".to_owned(), of("server.pem")),
            ("key".to_owned(), of("server.key")),
            ("clients_ca".to_owned(), of("ca.pem")),
        ]))
    };
    let mut api = server(8470);
    if let toml::Value::Table(api) = &mut api {
        // By its number, which the image has set: the file is read wherever it is tried, too.
        api.insert("viewer".to_owned(), toml::Value::String(places::CONSOLE_USER.to_string()));
    }
    toml::Table::from_iter([
        ("vault".to_owned(), toml::Value::String(format!("{}/vault", places::VAULT))),
        ("receive".to_owned(), server(10809)),
        ("api".to_owned(), api),
        (
            "drill".to_owned(),
            toml::Value::Table(toml::Table::from_iter([(
                "through".to_owned(),
                toml::Value::String(places::TRIALS.to_owned()),
            )])),
        ),
        (
            "authority".to_owned(),
            toml::Value::Table(toml::Table::from_iter([
                ("certificate".to_owned(), of("ca.pem")),
                ("key".to_owned(), of("ca.key")),
            ])),
        ),
    ])
}

/// One file over another: tables key by key, everything else as a whole.
fn over(mut below: toml::Table, above: toml::Table) -> toml::Table {
    for (key, value) in above {
        let merged = match (below.remove(&key), value) {
            (Some(toml::Value::Table(low)), toml::Value::Table(high)) => toml::Value::Table(over(low, high)),
            (_, value) => value,
        };
        below.insert(key, merged);
    }
    below
}

/// The certificates, for the names and addresses that the machine has now.
fn authority() -> Result<()> {
    let folder = Path::new(places::AUTHORITY);
    let authority = Authority::open(folder)?;
    let mut names = BTreeSet::from(["landfall".to_owned(), "localhost".to_owned()]);
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if !name.is_empty() && name != "(none)" {
        names.insert(name);
    }
    authority.server(&names, &addresses())?;
    // The service signs for its clients.
    let owner = Some(places::SERVICE_USER);
    let own = |path: &Path| {
        std::os::unix::fs::chown(path, owner, owner)
            .map_err(|e| Error::io("cannot give to the service", e).in_file(path))
    };
    own(folder)?;
    for entry in fs::read_dir(folder).map_err(|e| Error::io("cannot read", e).in_file(folder))?.flatten() {
        own(&entry.path())?;
    }
    Ok(())
}

/// The machine's addresses, loopback and link-local ones left out.
pub fn addresses() -> BTreeSet<IpAddr> {
    #[derive(serde::Deserialize)]
    struct Link {
        #[serde(default)]
        addr_info: Vec<Address>,
    }
    #[derive(serde::Deserialize)]
    struct Address {
        local: Option<IpAddr>,
        scope: Option<String>,
    }
    let Ok(text) = programs::must(programs::IP, &["-j", "address", "show", "up"]) else {
        return BTreeSet::new();
    };
    let links: Vec<Link> = serde_json::from_str(&text).unwrap_or_default();
    let all = links.into_iter().flat_map(|link| link.addr_info);
    all.filter(|address| !matches!(address.scope.as_deref(), Some("host" | "link")))
        .filter_map(|address| address.local)
        .collect()
}

/// What follows from other addresses than before.
///
/// # Errors
/// `Io`
pub fn addresses_changed() -> Result<()> {
    authority()
}

/// Tells the loader that this system has come up; one that is tried and has not restarts, and the old one comes back.
///
/// # Errors
/// `Io`
pub fn confirm() -> Result<()> {
    let boot = state::boot()?;
    let end = Instant::now() + TRIAL_WITHIN;
    while boot.trial && !is_up() {
        if Instant::now() > end {
            tracing::error!("the new system has not come up: back to the old one");
            programs::must(programs::SYSTEMCTL, &["reboot"])?;
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    let mut found = Vec::new();
    match slots::confirm(&boot) {
        Ok(Came::Nothing) => {}
        Ok(Came::Up) => tracing::info!("the update has come up, and is what starts from now on"),
        Ok(Came::Back(slot)) => found.push(Problem::new(
            format!("the update in slot {} did not come up: the old system runs again", slot.name()),
            "Look at the log of the start before this one (support bundle), then try the update again or another one.",
        )),
        Err(error) => found.push(Problem::from(&error)),
    }
    problems::tell("5-update", &found);
    Ok(())
}

/// True where the service works, or cannot for want of a disk: then it is not the system's fault.
fn is_up() -> bool {
    let active = |unit: &str| {
        programs::run(programs::SYSTEMCTL, &["is-active", "--quiet", unit]).is_ok_and(|(code, _)| code == 0)
    };
    active("landfall.service") || (!is_mounted(places::VAULT) && active("landfall-helper.socket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_administrators_file_lies_over_the_appliances() {
        let more: toml::Table = toml::from_str(
            "vault = \"/elsewhere\"\n[receive]\nlisten = [\"10.0.0.5:10809\"]\n[protect]\ncheckpoint = \"10s\"\n",
        )
        .unwrap();
        let text = over(own_file(), more).to_string();
        let read = crate::service::config::Config::parse(&text, Path::new("/etc/landfall")).unwrap();
        assert_eq!(read.vault, Path::new("/elsewhere"));
        assert!(
            text.contains("10.0.0.5:10809") && text.contains("server.pem") && text.contains("[::]:8470"),
            "{text}"
        );
        crate::service::config::Config::parse(&own_file().to_string(), Path::new("/")).unwrap();
    }
}
