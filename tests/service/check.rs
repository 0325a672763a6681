//! `landfall serve --check`: what the file needs and is not there; and what the service says at its start.

use super::api::{ROOM, err, out};
use super::*;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

/// The program with a service's file, as this user or as somebody who may do little.
fn serve(site: &Site, program: &std::path::Path, as_nobody: bool, words: &[&str]) -> Output {
    let mut command = match as_nobody {
        false => Command::new(program),
        true => {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
            setpriv
        }
    };
    // No kernel for the sandbox.
    command.env("LANDFALL_SANDBOX_KERNEL", site.path("empty")).env("LANDFALL_CACHE", site.path("cache"));
    command.arg("serve").args(words).arg("--config").arg(site.path("landfall.toml"));
    command.output().unwrap()
}

fn program() -> PathBuf {
    assert_cmd::cargo::cargo_bin("landfall")
}

fn rewrite(site: &Site, text: &str) {
    std::fs::write(site.path("landfall.toml"), text).unwrap();
}

#[test]
fn a_check_finds_what_the_file_needs_and_is_not_there() {
    let site = Site::new("");
    std::fs::create_dir(site.path("empty")).unwrap();
    let check = |text: &str| {
        rewrite(&site, text);
        let done = serve(&site, &program(), false, &["--check"]);
        (done.status.code(), out(&done) + &err(&done))
    };
    let (code, says) = check("vault = \"vault\"\n");
    assert!(code == Some(0) && says.contains("Nothing is wrong"), "{says}");
    assert!(!site.path("vault").exists(), "it only looks");
    for text in ["[protect]\nprove = \"1d\"\n", "[machine.web01]\nprepare = [\"kvm\"]\n"] {
        let (code, says) = check(&format!("vault = \"vault\"\n{text}"));
        assert!(code == Some(1) && says.contains("no kernel for the sandbox"), "{says}");
        assert!(says.contains("    fix: ") && !says.contains("Nothing is wrong"), "{says}");
    }
    std::fs::write(site.path("file"), "").unwrap();
    for vault in ["/proc/vault", "file/vault"] {
        let (code, says) = check(&format!("vault = \"{vault}\"\n"));
        assert!(code == Some(1) && says.contains(vault) && says.contains("    fix: "), "{says}");
    }
    std::fs::create_dir(site.path("full")).unwrap();
    std::fs::write(site.path("full/letter"), "").unwrap();
    let (code, says) = check("vault = \"full\"\n");
    assert!(code == Some(1) && says.contains("not empty"), "{says}");
    // A machine needs no table of its own: it may be a slip.
    let (code, says) = check(
        "vault = \"vault\"\n[machine.web01]\nrpo = \"1m\"\n[group.shop]\nmachines = [\"web01\", \"bd01\"]\n",
    );
    assert!(code == Some(0) && says.contains("doubt: group shop: bd01"), "{says}");
    assert!(!says.contains("doubt: group shop: web01"), "{says}");
    let (code, says) = check("vault = \"vault\"\npoints_group = \"no-such-group\"\n");
    assert!(code == Some(1) && says.contains("no group"), "{says}");
}

/// As an ordinary user, of which the tests have to be root.
#[test]
fn a_group_that_the_user_is_not_in_is_told_with_what_to_do() {
    if !rustix::process::geteuid().is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        eprintln!("SKIPPED: only root can become another user (setpriv of util-linux)");
        return;
    }
    let site = Site::new("");
    rewrite(&site, "vault = \"vault\"\nsockets = \"sockets\"\npoints_group = \"0\"\n");
    std::fs::set_permissions(site.path(""), std::fs::Permissions::from_mode(0o777)).unwrap();
    // Where that user can reach it.
    let copy = site.path("landfall");
    std::fs::copy(program(), &copy).unwrap();
    let done = serve(&site, &copy, true, &["--check"]);
    let says = out(&done) + &err(&done);
    assert!(done.status.code() == Some(1) && says.contains("SupplementaryGroups="), "{says}");
    let done = serve(&site, &copy, true, &[]);
    let says = err(&done);
    assert_eq!(done.status.code(), Some(2), "{says}");
    assert!(says.contains("points.sock") && says.contains("SupplementaryGroups="), "{says}");
}

/// A member that nobody protects is missed as soon as another one is protected.
#[test]
fn a_group_that_is_not_complete_is_an_alarm() {
    let mut site = Site::new(&format!("[group.shop]\nmachines = [\"web01\", \"bd01\"]\n{ROOM}"));
    site.start();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(site.status(), Some(0), "nobody of it is there");
    site.stop();
    site.protect("web01", &["sda"], 1 << 20);
    site.start();
    let begin = Instant::now();
    while !site.log().contains("group-incomplete") {
        assert!(begin.elapsed() < Duration::from_secs(10), "{}", site.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(
        site.log().contains("The group shop has machines that are not protected: bd01."),
        "{}",
        site.log()
    );
    site.stop();
    site.protect("bd01", &["sda"], 1 << 20);
    site.start();
    let begin = Instant::now();
    while site.document(&["alarms"])["alarms"].to_string().contains("group-incomplete") {
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", site.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}
