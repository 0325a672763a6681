//! A fleet that is registered: all identities are compared with the hypervisor's before a disk is copied, and a second run
//! registers what is not registered yet, and nothing twice.

use super::vcsim::{Vcsim, second_client};
use super::{all, ids, landfall};
use crate::boots::{guest, place};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;

fn batch(vcsim: &Vcsim, fleet: &Path, args: &[&str]) -> (Value, Output) {
    let output = landfall()
        .args(["--json", "batch"])
        .arg(fleet)
        .arg("--register")
        .arg(format!("esxi://{}", vcsim.address))
        .arg("--credentials")
        .arg(vcsim.path("credentials"))
        .arg("--register-ca")
        .arg(vcsim.path("cert.pem"))
        .args(args)
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", all(&output)));
    (report, output)
}

fn outcomes(report: &Value) -> Vec<(&str, &str)> {
    report["machines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), one["outcome"].as_str().unwrap()))
        .collect()
}

#[test]
fn a_fleet_is_registered_once() {
    let _place = place();
    let Some(folder) = guest("bookworm", "bios-ext4") else { return };
    let Some(vcsim) = Vcsim::start(&["-esx"]) else { return };
    if !second_client() {
        return;
    }
    let site = tempfile::tempdir().unwrap();
    let fleet = site.path().join("fleet.toml");
    let source = folder.join("web01.vmx");
    let entry =
        |name: &str, to: &str| format!("[[machine]]\nsource = {source:?}\nname = {name:?}\nto = {to:?}\n");
    let head = "output = \"out\"\nmap = \"map.toml\"\n";
    fs::write(site.path().join("map.toml"), "[[rule]]\nnetworks = { \"*\" = \"VM Network\" }\n").unwrap();
    // The name of a machine that the simulator has from its start.
    fs::write(&fleet, [head, &entry("ha-host_VM0", "esxi")].concat()).unwrap();
    let out = site.path().join("out");

    let (report, output) = batch(&vcsim, &fleet, &["--dry-run"]);
    assert!(!out.exists(), "{}", all(&output));
    assert_eq!(outcomes(&report), [("ha-host_VM0", "refused")]);
    assert_eq!(ids(&report["machines"][0]), ["target-name-taken"], "{report:#}");
    // Two targets, one hypervisor.
    fs::write(&fleet, [head, &entry("web01", "ova"), &entry("web02", "esxi")].concat()).unwrap();
    let (report, _) = batch(&vcsim, &fleet, &["--dry-run"]);
    assert_eq!(ids(&report["machines"][1]), ["collision-mac", "collision-uuid"], "{report:#}");
    // A target that does not run there is refused for itself.
    let text = [head, &entry("web01", "ova"), &entry("web02", "kvm")].concat();
    fs::write(&fleet, &text).unwrap();
    let (report, output) = batch(&vcsim, &fleet, &["--dry-run"]);
    assert_eq!(outcomes(&report), [("web01", "planned"), ("web02", "refused")], "{}", all(&output));
    assert!(
        report["machines"][1]["error"].as_str().unwrap().contains("cannot be registered at esxi"),
        "{report:#}"
    );

    fs::write(&fleet, [head, &entry("web01", "ova")].concat()).unwrap();
    let (report, output) = batch(&vcsim, &fleet, &[]);
    assert_eq!(outcomes(&report), [("web01", "done")], "{}", all(&output));
    let id = report["machines"][0]["registration"]["id"].as_str().unwrap().to_owned();
    assert_eq!(vcsim.machines()["web01"]["id"], id.as_str());
    crate::cli::schemas::check(&[("batch", report)]);
    let page = fs::read_to_string(out.join("batch-report.html")).unwrap();
    assert!(page.contains(&format!("registered as {id}")), "{page}");

    let (report, output) = batch(&vcsim, &fleet, &[]);
    assert_eq!(outcomes(&report), [("web01", "already-done")], "{}", all(&output));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(vcsim.machines().as_object().unwrap().keys().filter(|name| *name == "web01").count(), 1);
    // A registered machine's folder is not replaced.
    let other = fs::read_to_string(&fleet).unwrap().replace("\"ova\"", "\"esxi\"");
    fs::write(&fleet, other).unwrap();
    let (report, output) = batch(&vcsim, &fleet, &["--replace"]);
    assert_eq!(outcomes(&report), [("web01", "refused")], "{}", all(&output));
    fs::write(&fleet, [head, &entry("web01", "ova")].concat()).unwrap();

    // A run that was killed between the two steps: what is there by then is told, and nothing is registered twice.
    fs::remove_file(out.join("web01/registration.json")).unwrap();
    let (report, output) = batch(&vcsim, &fleet, &[]);
    assert_eq!(outcomes(&report), [("web01", "refused")], "{}", all(&output));
    assert_eq!(ids(&report["machines"][0])[0], "target-name-taken", "{report:#}");
    assert_eq!(vcsim.machines().as_object().unwrap().len(), 3, "two of its own, and one");
}
