//! Puts settings into effect: writes what other programs read into `/run`, and gives the machine its name. Done before the
//! network starts, and again when settings change (`landfall-settings.service`, which the helper restarts).
//!
//! | file | for |
//! |---|---|
//! | `/run/systemd/network/10-landfall-*`, `85-landfall-unused.network` or `90-landfall-dhcp.network` | networkd |
//! | `/run/systemd/timesyncd.conf.d/landfall.conf` | timesyncd, where servers are set |
//! | `/run/landfall-appliance/resolv.conf` | the C library; `/etc/resolv.conf` leads there |
//! | `/run/landfall-appliance/localtime` | the C library; `/etc/localtime` leads there |
//! | `/run/landfall-appliance/ssh/authorized_keys` | sshd, which does not start without |
//! | `/run/landfall-appliance/problems` | the helper's status |
//!
//! `/etc` is read-only: nothing is written there. Deliberately absent: starting and reloading those programs, which is for who
//! calls.

use super::helper::system::{PROBLEMS, present};
use super::kept::Kept;
use super::network::{
    Learnt, OTHERS_DHCP, OTHERS_UNUSED, PREFIX, STATE, TIME, UNITS, resolv_conf, time_servers, units,
};
use super::settings::Settings;
use landfall_image::{Error, Result};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder of what is made at each start.
pub const RUN: &str = "/run/landfall-appliance";
/// What a machine without a name is called.
pub const HOST: &str = "landfall";
const ZONES: &str = "/usr/share/zoneinfo";
const NETWORKCTL: &str = "/usr/bin/networkctl";

/// Puts what is kept into effect on this machine. What cannot be done as it is set, for people; the same is in
/// `/run/landfall-appliance/problems`.
///
/// # Errors
/// I/O where a file cannot be written.
pub fn settings(kept: &Kept) -> Result<Vec<String>> {
    let root = Path::new("/");
    let settings = kept.load().effective();
    let mut written = write(root, &settings)?;
    if let Err(error) = rustix::system::sethostname(name(&settings).as_bytes()) {
        written.problems.push(format!("the machine keeps its name: {}", io::Error::from(error)));
    }
    for device in &written.gone {
        // Their names were made here.
        let deleted = Command::new(NETWORKCTL)
            .args(["delete", device])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !deleted.is_ok_and(|status| status.success()) {
            written.problems.push(format!("{device} is there until the machine is restarted"));
        }
    }
    let text: String =
        written.problems.iter().map(|problem| format!("{}\n", problem.replace('\n', " "))).collect();
    put(root, PROBLEMS, &text)?;
    Ok(written.problems)
}

/// Writes the resolver's file from what is kept and what networkd has learnt.
///
/// # Errors
/// I/O where it cannot be written.
pub fn resolv(kept: &Kept) -> Result<()> {
    write_resolv(Path::new("/"), &kept.load().effective())
}

/// What the machine is called.
pub fn name(settings: &Settings) -> &str {
    settings.hostname.as_ref().map_or(HOST, |name| name.as_str())
}

#[derive(Debug, Default)]
struct Written {
    problems: Vec<String>,
    /// Devices that earlier settings made, and these do not.
    gone: Vec<String>,
}

fn write(root: &Path, settings: &Settings) -> Result<Written> {
    let units = units(settings, &present(root));
    let mut written = Written { problems: units.problems, ..Written::default() };
    let folder = at(root, UNITS);
    let is_ours = |name: &str| name.starts_with(PREFIX) || name == OTHERS_DHCP || name == OTHERS_UNUSED;
    let mut made = BTreeSet::new();
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let Some(file) = entry.file_name().into_string().ok().filter(|file| is_ours(file)) else { continue };
        if file.ends_with(".netdev") {
            made.extend(
                text(&entry.path()).lines().filter_map(|line| line.strip_prefix("Name=")).map(str::to_owned),
            );
        }
        if !units.files.contains_key(&file) {
            remove(&entry.path())?;
        }
    }
    for (file, text) in &units.files {
        put(root, &format!("{UNITS}/{file}"), text)?;
    }
    written.gone = made.into_iter().filter(|name| is_device(name) && !units.devices.contains(name)).collect();
    match time_servers(settings) {
        Some(text) => put(root, TIME, &text)?,
        None => remove(&at(root, TIME))?,
    }
    write_resolv(root, settings)?;
    zone(root, settings, &mut written.problems)?;
    let keys: String = settings.ssh_keys.iter().flatten().map(|key| format!("{key}\n")).collect();
    let file = format!("{RUN}/ssh/authorized_keys");
    match keys.is_empty() {
        // sshd starts where it is there.
        true => remove(&at(root, &file))?,
        false => put(root, &file, &keys)?,
    }
    Ok(written)
}

fn write_resolv(root: &Path, settings: &Settings) -> Result<()> {
    let learnt = Learnt::parse(&text(&at(root, STATE)));
    put(root, &format!("{RUN}/resolv.conf"), &resolv_conf(settings, &learnt))
}

/// Without a link the C library has UTC.
fn zone(root: &Path, settings: &Settings, problems: &mut Vec<String>) -> Result<()> {
    let link = at(root, &format!("{RUN}/localtime"));
    remove(&link)?;
    let Some(zone) = &settings.time_zone else { return Ok(()) };
    let file = format!("{ZONES}/{zone}");
    if !at(root, &file).is_file() {
        problems.push(format!("there is no time zone {zone}: the console has UTC"));
        return Ok(());
    }
    symlink(&file, &link).map_err(|error| Error::io("cannot be made", error).in_file(&link))
}

/// Names as [`units`] makes them.
fn is_device(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix("bond").is_some_and(is_number)
        || name
            .strip_prefix("vlan")
            .and_then(|rest| rest.split_once('.'))
            .is_some_and(|(base, vlan)| is_number(base) && is_number(vlan))
}

fn at(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Of a small file; empty where it cannot be read.
fn text(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(1 << 20).read_to_string(&mut text);
    }
    text
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::io("cannot be removed", error).in_file(path))
        }
        _ => Ok(()),
    }
}

/// Whole, for all to read. It is in memory: nothing is synced.
fn put(root: &Path, path: &str, text: &str) -> Result<()> {
    let path = at(root, path);
    let written = (|| {
        let folder = path.parent().unwrap_or(root);
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(PermissionsExt::from_mode(0o644))?;
        file.persist(&path).map_err(|error| error.error)
    })();
    written.map(drop).map_err(|error: io::Error| Error::io("cannot be written", error).in_file(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(root: &Path, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(at(root, folder))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_those_of_the_settings_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(at(root, ZONES).join("Europe")).unwrap();
        fs::write(at(root, ZONES).join("Europe/Berlin"), "TZif").unwrap();
        fs::create_dir_all(at(root, UNITS)).unwrap();
        fs::write(at(root, UNITS).join("70-other.network"), "").unwrap();
        fs::create_dir_all(at(root, STATE).parent().unwrap()).unwrap();
        fs::write(at(root, STATE), "DNS=10.0.0.53\n").unwrap();
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH";
        let all = format!(
            "hostname = \"dr1\"\ntime_zone = \"Europe/Berlin\"\nntp = [\"10.0.0.1\"]\nssh_keys = [\"{key}\"]\n\
             [[nic]]\ncard = \"eth0\"\nvlan = 7\ndhcp = \"yes\"\n"
        );
        let settings = Settings::parse(&all).unwrap();
        let written = write(root, &settings).unwrap();
        assert!(written.gone.is_empty() && written.problems[0].contains("eth0"), "{written:?}");
        assert_eq!(
            names(root, UNITS),
            [
                "10-landfall-00-vlan7.netdev",
                "10-landfall-00-vlan7.network",
                "10-landfall-00.network",
                "70-other.network",
                "90-landfall-dhcp.network"
            ]
        );
        // As of settings before these, whose cards were there.
        fs::write(at(root, UNITS).join(OTHERS_UNUSED), "").unwrap();
        assert_eq!(names(root, RUN), ["localtime", "resolv.conf", "ssh"]);
        assert!(text(&at(root, RUN).join("resolv.conf")).ends_with("nameserver 10.0.0.53\n"));
        assert_eq!(text(&at(root, RUN).join("ssh/authorized_keys")), format!("{key}\n"));
        assert_eq!(
            fs::read_link(at(root, RUN).join("localtime")).unwrap(),
            Path::new(ZONES).join("Europe/Berlin")
        );
        assert!(at(root, TIME).is_file());
        assert_eq!(name(&settings), "dr1");
        // And back.
        let written = write(root, &Settings::default()).unwrap();
        assert_eq!((written.gone, written.problems.len()), (vec!["vlan0.7".to_owned()], 0));
        assert_eq!(names(root, UNITS), ["70-other.network", "90-landfall-dhcp.network"]);
        assert_eq!(names(root, RUN), ["resolv.conf", "ssh"]);
        assert!(names(root, &format!("{RUN}/ssh")).is_empty() && !at(root, TIME).exists());
        assert_eq!(name(&Settings::default()), HOST);
        let nowhere = Settings { time_zone: Some("Europe/Nowhere".parse().unwrap()), ..Settings::default() };
        assert!(write(root, &nowhere).unwrap().problems[0].contains("there is no time zone Europe/Nowhere"));
        // Nobody else's device is taken away.
        fs::write(at(root, UNITS).join("10-landfall-x.netdev"), "Name=eth0\nName=--help\nName=bond1\n")
            .unwrap();
        assert_eq!(write(root, &Settings::default()).unwrap().gone, ["bond1"]);
    }
}
