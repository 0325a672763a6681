//! The units of the appliance, looked at by systemd itself: it knows every key, and judges what they leave a program to do
//! harm with. What they name is what the code names.

use super::helper::protocol::SOCKET;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

/// The units with a program that is here, in a folder of their own.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut files = vec![(packaging().join("landfall.service"), dir.path().join("landfall.service"))];
    let mut folders = vec![(packaging().join("appliance"), dir.path().to_owned())];
    while let Some((from, to)) = folders.pop() {
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => folders.push((entry.path(), target)),
                false => files.push((entry.path(), target)),
            }
        }
    }
    let is_unit = |path: &Path| {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        ["service", "socket", "path", "conf"].contains(&ending)
    };
    for (from, to) in files.into_iter().filter(|(from, _)| is_unit(from)) {
        fs::write(
            to,
            fs::read_to_string(from)
                .unwrap()
                .replace("/usr/bin/landfall", "/bin/true")
                .replace("/usr/sbin/sshd", "/bin/true"),
        )
        .unwrap();
    }
    dir
}

fn analyze(folder: &Path, args: &[&str]) -> Option<(bool, String)> {
    let mut command = Command::new("systemd-analyze");
    let path = format!("{}:/usr/lib/systemd/system", folder.display());
    let out = command.args(args).current_dir(folder).env("SYSTEMD_UNIT_PATH", path).output();
    let Ok(out) = out else {
        eprintln!("SKIPPED: systemd-analyze is not here (Debian: systemd)");
        return None;
    };
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    Some((out.status.success(), said))
}

/// In tenths, as systemd 252 and 257 judge.
const BOUNDS: [(&str, u32); 5] = [
    ("landfall", 12),
    ("landfall-trial@x", 18),
    ("landfall-helper", 20),
    ("landfall-settings", 18),
    ("landfall-resolv", 9),
];

#[test]
fn systemd_knows_every_key_and_finds_little_to_do_harm_with() {
    let dir = folder();
    let names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| [".service", ".socket", ".path"].iter().any(|ending| name.ends_with(ending)))
        .collect();
    assert!(names.len() >= 16, "{names:?}");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let Some((is_fine, said)) = analyze(dir.path(), &[&["verify", "--man=no"], names.as_slice()].concat())
    else {
        return;
    };
    assert!(is_fine && !said.contains("landfall"), "{said}");
    for (name, bound) in BOUNDS {
        let unit = format!("{name}.service");
        let judge = |bound: u32| {
            let threshold = format!("--threshold={bound}");
            analyze(dir.path(), &["security", "--offline=yes", "--no-pager", &threshold, &unit]).unwrap()
        };
        let (is_under, said) = judge(bound);
        assert!(is_under && said.contains("Overall exposure"), "{name}: {said}");
        // It is not looser than it has to be.
        assert!(!judge(bound - 1).0, "{name} is under {bound}: write the better bound down");
    }
    let more =
        fs::read_to_string(dir.path().join("landfall-helper.service")).unwrap() + "NoNewPrivilege=yes\n";
    fs::write(dir.path().join("landfall-helper.service"), more).unwrap();
    let (_, said) = analyze(dir.path(), &["verify", "--man=no", "landfall-helper.service"]).unwrap();
    assert!(said.contains("NoNewPrivilege"), "it says nothing of a wrong key: {said}");
}

/// Values of a key in a unit.
fn values(unit: &str, key: &str) -> Vec<String> {
    let text = fs::read_to_string(packaging().join("appliance").join(unit)).unwrap();
    text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned).collect()
}

/// The sandbox is confined by bwrap, which opens with `openat2` what it mounts, and its kernel is the system's own: none of it is there behind
/// these keys.
#[test]
fn trials_are_left_what_the_sandbox_needs() {
    let trial = fs::read_to_string(packaging().join("appliance/landfall-trial@.service")).unwrap();
    let service = fs::read_to_string(packaging().join("landfall.service")).unwrap();
    for unit in [trial, service] {
        for key in ["ProtectKernelModules=", "RestrictSUIDSGID=", "MemoryDenyWriteExecute=", "ProcSubset="] {
            assert!(!unit.lines().any(|line| line.starts_with(key)), "{key}");
        }
        assert!(unit.contains("RestrictNamespaces=cgroup ipc mnt net pid user uts"));
    }
    // What the service may make there with other rights is for nobody else.
    let service = fs::read_to_string(packaging().join("landfall.service")).unwrap();
    assert!(service.lines().any(|line| line == "CacheDirectoryMode=0700"));
}

/// It tells what the start is at, and of a state that does not come: PrivateTmp waits for /var.
#[test]
fn the_console_waits_for_nothing() {
    for key in ["After", "Requires", "RequiresMountsFor", "PrivateTmp"] {
        assert_eq!(values("landfall-console@.service", key), [""; 0], "{key}");
    }
    assert_eq!(values("landfall-console@.service", "DefaultDependencies"), ["no"]);
}

#[test]
fn units_name_what_the_code_names() {
    assert_eq!(values("landfall-helper.socket", "ListenStream"), [SOCKET]);
    assert_eq!(values("landfall-trial.socket", "ListenStream"), [super::places::TRIALS]);
    assert_eq!(values("landfall-resolv.path", "PathChanged"), [super::network::STATE]);
    assert_eq!(values("landfall-resolv.service", "ReadWritePaths"), [super::apply::RUN]);
    let state = super::kept::FOLDER.rsplit('/').next().unwrap();
    for unit in ["landfall-helper.service", "landfall-settings.service"] {
        assert_eq!(values(unit, "StateDirectory"), [state]);
    }
    // The helper has of root's powers what is documented.
    assert_eq!(values("landfall-helper.service", "CapabilityBoundingSet"), ["CAP_SYS_TIME"]);
    let keys = values("ssh.service", "ConditionPathExists");
    let sshd = fs::read_to_string(packaging().join("appliance/root/sshd_config")).unwrap();
    let sshd: BTreeMap<&str, &str> =
        sshd.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(sshd["AuthorizedKeysFile"], keys[0]);
    assert_eq!((sshd["PasswordAuthentication"], keys[0].starts_with(super::apply::RUN)), ("no", true));
}

/// `*` is a password that none is; `!` before it locks the account, and sshd lets no locked one in (sshd(8), UsePAM no).
#[test]
fn nobody_has_a_password_and_nobody_is_locked_out() {
    let shadow = fs::read_to_string(packaging().join("appliance/root/shadow")).unwrap();
    let passwd = fs::read_to_string(packaging().join("appliance/root/passwd")).unwrap();
    let names = |text: &str| -> Vec<String> {
        let mut names: Vec<String> =
            text.lines().filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect();
        names.sort();
        names
    };
    assert_eq!(names(&shadow), names(&passwd));
    for line in shadow.lines() {
        assert_eq!(line.split(':').nth(1), Some("*"), "{line}");
    }
}
