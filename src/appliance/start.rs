//! The steps of the appliance's start, each run by a unit of its own (`packaging/appliance/units`). Each may run again, and says what stands in
//! the way instead of failing: a machine that cannot be reached helps nobody.

use super::data::{DATA, is_mounted_from_a_disk};
use super::disks;
use super::helper::NextSystem;
use super::kept::Kept;
use super::problems::{self, Problem};
use super::slots::{self, Came};
use super::{apply, media, places, programs, state};
use crate::authority::Authority;
use crate::ops::service::{Access, Service};
use crate::report::api::Role;
use crate::service::config::Config;
use landfall_boot::appliance::init::Boot;
use landfall_image::{Error, Result};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A system that is tried has this long to come up.
const TRIAL_WITHIN: Duration = Duration::from_secs(600);

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
    let (given, wrong) = media::look(&boot);
    let mut found: Vec<Problem> = wrong.iter().map(Problem::from).collect();
    for given in given {
        let kept = Kept::new(Path::new(places::KEPT));
        match kept.take_given(&given) {
            Ok(true) => tracing::info!("settings of {} are new, and are taken", given.identity.source),
            Ok(false) => {}
            Err(error) => found.push(Problem::from(&error)),
        }
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

/// A host key, where a key lets somebody in and there is none yet that sshd could use.
fn ssh_host_key() -> Result<()> {
    if !Path::new("/run/landfall-appliance/ssh/authorized_keys").exists() {
        return Ok(());
    }
    let key = Path::new(places::KEPT).join("ssh/ssh_host_ed25519_key");
    let public = key.with_extension("pub");
    // ssh-keygen reads it as sshd does: one that was torn by a lost power is none.
    let is_good = |key: &Path| {
        programs::run(programs::SSH_KEYGEN, &["-y", "-P", "", "-f", &key.to_string_lossy()])
            .is_ok_and(|(code, _)| code == 0)
    };
    if key.exists() && is_good(&key) {
        return Ok(());
    }
    // It does not sync what it writes: made in memory, and kept whole or not at all.
    let new = Path::new(places::RUN).join("host-key");
    let new_public = new.with_extension("pub");
    for old in [&new, &new_public] {
        let _ = fs::remove_file(old);
    }
    programs::must(
        programs::SSH_KEYGEN,
        &["-q", "-t", "ed25519", "-N", "", "-C", "landfall", "-f", &new.to_string_lossy()],
    )?;
    for (from, to, mode) in [(&new_public, &public, 0o644), (&new, &key, 0o600)] {
        let bytes = state::read(from)?
            .ok_or_else(|| Error::io("was not made", std::io::ErrorKind::NotFound.into()).in_file(from))?;
        state::write(to, &bytes, mode)?;
        let _ = fs::remove_file(from);
    }
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
/// `Refused` on a disc, and while a system is being tried: the other slot has the only one that is known to be good.
pub fn can_update(boot: &Boot) -> Result<()> {
    match boot.slot {
        Some(_) if boot.trial && !boot.fallback && !Path::new(places::CONFIRMED).exists() => {
            Err(Error::refused("this system is an update that is still being tried")
                .hint("wait until it has come up, or has given way to the old one: ten minutes at most; then install the other update"))
        }
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

/// What follows from the service's having come up: its file is one to go back to. And the administrator's token, at the first start and
/// where the vault is one that no token is for, for the console to show.
///
/// # Errors
/// Where the service gives none.
pub fn welcome() -> Result<()> {
    const NAME: &str = "admin";
    if let Err(error) = keep_file() {
        tracing::error!(%error, "the service's file is not kept");
    }
    let path = Path::new(places::FIRST_TOKEN);
    let service = Service::new(&Access::default())?;
    let there = service.tokens()?.tokens;
    // Shown, and of this vault: another one's service does not know it, and one that was cut off while it was written nobody can read.
    let is_shown = || {
        let of_console = fs::metadata(path).is_ok_and(|meta| meta.uid() == places::CONSOLE_USER);
        let vault = state::read(Path::new(places::TOKEN_VAULT)).ok().flatten();
        of_console && vault.is_some() && vault == state::read(Path::new(places::VAULT_ID)).ok().flatten()
    };
    if !there.is_empty() && (Path::new(places::WELCOMED).exists() || is_shown()) {
        return Ok(());
    }
    // Those of another appliance that had the vault stay, and one of a start that was cut off before it was shown.
    let is_free = |name: &String| !there.iter().any(|token| token.name == *name);
    let mut names = std::iter::once(NAME.to_owned()).chain((2..).map(|n: u32| format!("{NAME}-{n}")));
    let name = names.find(is_free).unwrap_or_else(|| NAME.to_owned());
    let made = service.make_token(&name, Role::Admin)?;
    state::write(path, made.secret.as_bytes(), 0o400)?;
    if let Some(vault) = state::read(Path::new(places::VAULT_ID))? {
        state::write(Path::new(places::TOKEN_VAULT), &vault, 0o644)?;
    }
    std::os::unix::fs::chown(path, Some(places::CONSOLE_USER), Some(places::CONSOLE_USER))
        .map_err(|e| Error::io("cannot give to the console", e).in_file(path))
}

/// With this file the service has come up: it is the one to go back to.
fn keep_file() -> Result<()> {
    let last = Path::new(places::SERVICE_LAST);
    match state::read(Path::new(places::SERVICE_FILE))? {
        Some(file) if state::read(last).ok().flatten().as_ref() != Some(&file) => {
            state::write(last, &file, 0o644)
        }
        _ => Ok(()),
    }
}

/// Certificates, and the service's file: what the appliance says, and over it what the administrator says. What is wrong with either.
///
/// With additions that cannot be used the service goes on as it was before them, and is not started where it never was: with the appliance's
/// own settings it would give up points that they keep.
pub(super) fn service_file() -> Vec<Problem> {
    let mut found = Vec::new();
    // Where it cannot be made for other addresses than before, the old certificate still is one.
    found.extend(authority().err().iter().map(Problem::from));
    let path = Path::new(places::SERVICE_FILE);
    let made = state::read(Path::new(places::SERVICE_MORE)).and_then(|more| merged(more.as_deref()));
    let text = match made {
        Ok(text) => Some(text.into_bytes()),
        Err(error) => {
            found.push(Problem::from(&error));
            state::read(Path::new(places::SERVICE_LAST)).unwrap_or_default()
        }
    };
    match text.map(|text| state::write(path, &text, 0o644)) {
        Some(written) => found.extend(written.err().iter().map(Problem::from)),
        None => found.push(Problem::new(
            "the service is not started: there is no file of before that it could go on with",
            "Correct the additions to its file over SSH, or remove them, and restart.",
        )),
    }
    found
}

/// The service's file with the administrator's additions, which the service can use.
fn merged(more: Option<&[u8]>) -> Result<String> {
    let own = own_file();
    let Some(more) = more else { return Ok(own.to_string()) };
    let path = Path::new(places::SERVICE_MORE);
    let wrong = |says: &str| {
        Error::corrupt(format!("the administrator's additions to the service's file cannot be used: {says}"))
            .in_file(path)
            .hint("correct it over SSH, or remove it, and restart; until then the service goes on with what it had before")
    };
    let text = std::str::from_utf8(more).map_err(|e| wrong(&e.to_string()))?;
    let more: toml::Table = toml::from_str(text).map_err(|e| wrong(e.message()))?;
    let text = over(own, more).to_string();
    Config::parse(&text, Path::new("/etc/landfall")).map_err(|e| wrong(&e.to_string()))?;
    Ok(text)
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
        // Where it stands in for one that cannot be read there is no better one to go back to.
        if boot.fallback && Instant::now() > end {
            break;
        }
        if Instant::now() > end {
            tracing::error!("the new system has not come up: back to the old one");
            programs::must(programs::SYSTEMCTL, &["reboot"])?;
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    let mut found = Vec::new();
    let confirmed = slots::confirm(&boot);
    if confirmed.is_ok() {
        state::write(Path::new(places::CONFIRMED), b"", 0o644)?;
    }
    match confirmed {
        Ok(Came::Nothing) => {}
        // Installed since this start.
        Ok(Came::NotTried(_)) if Path::new(places::NEXT).exists() => {}
        Ok(Came::Again) => found.push(Problem::new(
            "this system could not be read at the start before, and there is no other one that starts",
            "The disk may be failing: its messages are in the support bundle. Deploy the appliance anew, and attach the data disk to it.",
        )),
        Ok(Came::NotTried(slot)) => found.push(Problem::new(
            format!("the update in slot {} was not tried: the loader could not write to its partition", slot.name()),
            "Restart once more. If it is not tried then either, the disk may be failing: deploy the newer image anew, and attach the data disk to it.",
        )),
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

/// True where this system has come up, see [`has_come_up`].
fn is_up() -> bool {
    let active = |unit: &str| {
        programs::run(programs::SYSTEMCTL, &["is-active", "--quiet", unit]).is_ok_and(|(code, _)| code == 0)
    };
    has_come_up(
        is_mounted_from_a_disk(places::STATE),
        !matches!(disks::known(), Ok(None)),
        Path::new(places::PROBLEMS).join(format!("{DATA}.json")).exists(),
        active,
    )
}

/// True where the service works; or could not before either, as there never was a vault: then it is not the system's fault. Where there was
/// one and this system does not see it, the old one is to look for it.
fn has_come_up(
    has_state: bool,
    had_vault: bool,
    no_data_is_told: bool,
    active: impl Fn(&str) -> bool,
) -> bool {
    // In memory nobody knows what there was before.
    if !has_state {
        return false;
    }
    // That there is no data disk is what the search for one has told.
    let is_set_up = || {
        no_data_is_told
            && ["landfall-settings.service", "landfall-console@tty1.service", "landfall-helper.socket"]
                .into_iter()
                .all(&active)
    };
    active("landfall.service") || (!had_vault && is_set_up())
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
        let read = Config::parse(&text, Path::new("/etc/landfall")).unwrap();
        assert_eq!(read.vault, Path::new("/elsewhere"));
        assert!(
            text.contains("10.0.0.5:10809") && text.contains("server.pem") && text.contains("[::]:8470"),
            "{text}"
        );
        Config::parse(&own_file().to_string(), Path::new("/")).unwrap();
    }

    #[test]
    fn a_system_has_come_up_where_it_serves_or_never_had_anything_to_serve() {
        let others = ["landfall-settings.service", "landfall-console@tty1.service", "landfall-helper.socket"];
        let serves = |unit: &str| unit == "landfall.service";
        let rest = |unit: &str| others.contains(&unit);
        assert!(has_come_up(true, true, false, serves));
        assert!(!has_come_up(false, true, false, serves), "its state is in memory");
        assert!(has_come_up(true, false, true, rest), "there never was a data disk");
        assert!(!has_come_up(true, false, false, rest), "the search for one has not ended");
        assert!(!has_come_up(true, true, true, rest), "there was a vault");
        for missing in others {
            assert!(!has_come_up(true, false, true, |unit| rest(unit) && unit != missing), "{missing}");
        }
    }

    #[test]
    fn additions_that_cannot_be_used_are_no_additions_that_are_not_there() {
        assert!(merged(None).unwrap().contains("10809"));
        assert!(merged(Some(b"[protect]\nretention = \"1y every 1d\"\n")).unwrap().contains("1y every 1d"));
        for bad in [&b"[protect"[..], b"[protect]\nretension = \"1y every 1d\"\n", b"\xff"] {
            let error = merged(Some(bad)).unwrap_err();
            assert!(error.hint_text().unwrap().contains("before"), "{error}");
        }
    }
}
