//! The unit file of systemd.

use std::path::Path;

/// The unit with what is added to it on a hypervisor: systemd knows every key, and judges it no worse.
#[test]
fn the_addition_for_hypervisors_is_one_that_systemd_knows() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let Some(mut analyze) = crate::receive::program("systemd-analyze", "systemd") else { return };
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("landfall.service");
    let text = std::fs::read_to_string(packaging.join("landfall.service")).unwrap();
    // It is not installed here.
    std::fs::write(&unit, text.replace("/usr/bin/landfall", "/bin/true")).unwrap();
    let added = dir.path().join("landfall.service.d/hypervisor.conf");
    std::fs::create_dir(added.parent().unwrap()).unwrap();
    std::fs::copy(packaging.join("landfall-hypervisor.conf"), &added).unwrap();
    let path = format!("{}:", dir.path().display());
    let out =
        analyze.args(["verify", "--man=no"]).arg(&unit).env("SYSTEMD_UNIT_PATH", &path).output().unwrap();
    let says = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && !says.contains("landfall.service"), "{says}");
    // It does look at it.
    let judge = || {
        let mut analyze = std::process::Command::new("systemd-analyze");
        analyze
            .args(["security", "--offline=yes", "--threshold=30"])
            .arg(&unit)
            .env("SYSTEMD_UNIT_PATH", &path);
        let out = analyze.output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    assert!(judge().0);
    let more = std::fs::read_to_string(&added).unwrap() + "Suplementary=x\n";
    std::fs::write(&added, more).unwrap();
    assert!(judge().1.contains("Suplementary"), "{}", judge().1);
}

/// As systemd itself judges: 0 is a service that can do nothing, 10 one that can do everything. What is more than 2 are the namespaces
/// that guests are looked into and booted behind.
#[test]
fn the_unit_leaves_the_service_little_to_do_harm_with() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/landfall.service");
    let Some(mut analyze) = crate::receive::program("systemd-analyze", "systemd") else { return };
    let out = analyze.args(["security", "--offline=yes", "--threshold=30"]).arg(&unit).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}", text.lines().last().unwrap_or_default());
    assert!(text.contains("Overall exposure"), "{text} {}", String::from_utf8_lossy(&out.stderr));
}
