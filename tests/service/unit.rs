//! The unit file of systemd.

use std::path::Path;

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
