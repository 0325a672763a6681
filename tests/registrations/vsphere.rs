//! The two ways to a vSphere, and what stands in them.

use super::vcsim::{Vcsim, definition, filled, ovf, second_client, vmx};
use super::{MAC, UUID, document, ids, machine, report};
use landfall::machine::NicSlot;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

const HOST: &[&str] = &["--host", "DC0_H0"];

fn with(args: &[&'static str]) -> Vec<&'static str> {
    [HOST, args].concat()
}

#[test]
fn an_ovf_is_imported_once() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    if !second_client() {
        return;
    }
    let before = vcsim.machines();
    let name = "web 'one' & <more>";
    let folder = ovf(vcsim.folder.path(), name, 3);
    let (plan, code) = document(&vcsim.register(&folder, &with(&["--dry-run"])));
    assert_eq!((code, plan["outcome"].as_str()), (0, Some("planned")), "{plan:#}");
    assert_eq!(plan["steps"].as_array().unwrap().len(), 2, "{plan:#}");
    assert_eq!(vcsim.machines(), before, "a dry run changes nothing");

    let (done, code) = document(&vcsim.register(&folder, &with(&["--start"])));
    assert_eq!((code, done["outcome"].as_str()), (0, Some("registered")), "{done:#}");
    assert_eq!(ids(&done), [""; 0]);
    let after = vcsim.machines();
    let there = &after[name];
    assert_eq!(there["id"], done["id"]);
    assert_eq!((&there["uuid"], &there["macs"]), (&json!(UUID), &json!([MAC])));
    assert_eq!((&there["disks"], &there["networks"]), (&json!([3072]), &json!(["VM Network"])));
    assert_eq!((&there["running"], &there["pool"]), (&json!(true), &json!("DC0_H0")));
    assert!(vcsim.sent("disk-0.vmdk") == fs::read(folder.join("disk0.vmdk")).unwrap(), "every byte arrives");

    let (again, code) = document(&vcsim.register(&folder, HOST));
    assert_eq!((code, again["outcome"].as_str()), (1, Some("blocked")), "{again:#}");
    assert_eq!(ids(&again), ["target-name-taken", "target-id-taken", "target-address-taken"]);
    // Another name, another id, the same address.
    let mut twin = machine("twin");
    twin.smbios.uuid = None;
    report(&folder, "ova", &twin, &[("disk0.vmdk", "vmdk-stream", 3 << 20)]);
    let (twin, code) = document(&vcsim.register(&folder, HOST));
    assert_eq!((code, ids(&twin)), (1, vec!["target-address-taken"]), "{twin:#}");
    assert_eq!(vcsim.machines(), after);
}

#[test]
fn addresses_stay_with_their_cards_and_the_rate_is_kept() {
    let Some(vcsim) = Vcsim::start(&["-esx"]) else { return };
    if !second_client() {
        return;
    }
    let card = |slot: &str, mac: Option<&str>| NicSlot {
        mac: mac.map(str::to_owned),
        network: Some("VM Network".into()),
        ..NicSlot::new(slot)
    };
    let mut cards = machine("web01");
    // The hypervisor chooses the first one's.
    cards.nics = vec![card("ethernet0", None), card("ethernet1", Some(MAC))];
    let folder = filled(vcsim.folder.path(), cards, "ova", "vmdk-stream", 3);
    let began = Instant::now();
    let (done, code) = document(&vcsim.register(&folder, &["--rate-limit", "1M"]));
    assert_eq!((code, ids(&done)), (0, vec![]), "{done:#}");
    // Of 3 MiB that cannot be compressed, the first read does not wait.
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    let macs = vcsim.machines()["web01"]["macs"].clone();
    assert_eq!(macs[1], json!(MAC), "{macs}");
    assert!(macs[0] != json!(MAC) && macs.as_array().unwrap().len() == 2, "{macs}");
}

#[test]
fn an_ova_is_imported_at_a_host() {
    let Some(vcsim) = Vcsim::start(&["-esx"]) else { return };
    if !second_client() {
        return;
    }
    let folder = ovf(vcsim.folder.path(), "web01", 2);
    let disk = fs::read(folder.join("disk0.vmdk")).unwrap();
    let descriptor = definition(&folder, "ovf").file_name().unwrap().to_owned();
    let packed = Command::new("tar")
        .args(["--format=ustar", "-cf", "web01.ova"])
        .args([descriptor.as_os_str(), "disk0.vmdk".as_ref()])
        .current_dir(&folder)
        .status()
        .unwrap();
    assert!(packed.success());
    for file in [descriptor.as_os_str(), "disk0.vmdk".as_ref()] {
        fs::remove_file(folder.join(file)).unwrap();
    }
    // A host has one of everything: nothing has to be chosen.
    let (done, code) = document(&vcsim.register(&folder, &[]));
    assert_eq!((code, done["outcome"].as_str()), (0, Some("registered")), "{done:#}");
    let there = &vcsim.machines()["web01"];
    assert_eq!(
        (&there["uuid"], &there["macs"], &there["running"]),
        (&json!(UUID), &json!([MAC]), &json!(false))
    );
    assert!(vcsim.sent("disk-0.vmdk") == disk);
}

#[test]
fn a_vmx_is_uploaded_and_registered() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    if !second_client() {
        return;
    }
    let folder = vmx(vcsim.folder.path(), "web 01");
    let place = ["--host", "DC0_C0", "--datastore", "LocalDS_0", "--datacenter", "DC0", "--start"];
    let (done, code) = document(&vcsim.register(&folder, &place));
    assert_eq!((code, done["outcome"].as_str()), (0, Some("registered")), "{done:#}");
    assert_eq!(ids(&done), [""; 0]);
    let there = &vcsim.machines()["web 01"];
    assert_eq!(there["path"], json!("[LocalDS_0] web 01/web_01.vmx"));
    assert_eq!(
        (&there["uuid"], &there["macs"], &there["disks"]),
        (&json!(UUID), &json!([MAC]), &json!([3072]))
    );
    assert_eq!((&there["running"], &there["pool"]), (&json!(true), &json!("DC0_C0")));

    // The machine is gone, its folder is not: somebody's data may be in it.
    report(
        &folder,
        "esxi",
        &super::Machine { nics: vec![], ..machine("web 01") },
        &[("disk0.vmdk", "vmdk-esxi", 3 << 20)],
    );
    let (again, code) = document(&vcsim.register(&folder, &place));
    assert_eq!((code, again["outcome"].as_str()), (1, Some("blocked")), "{again:#}");
    assert_eq!(ids(&again), ["target-name-taken", "target-id-taken", "target-file-taken"]);
}

#[test]
fn a_place_is_never_guessed() {
    let Some(vcsim) = Vcsim::start(&[]) else { return };
    let folder = ovf(vcsim.folder.path(), "web01", 1);
    let hint = |args: &[&str]| -> (Value, String) {
        let (refused, code) = document(&vcsim.register(&folder, args));
        assert_eq!(code, 1, "{refused:#}");
        let hint = refused["error"]["hint"].as_str().unwrap_or_default().to_owned();
        (refused, hint)
    };
    assert!(hint(&[]).1.contains("--host: DC0_C0, DC0_H0"));
    assert!(hint(&["--host", "nowhere"]).1.contains("DC0_C0_H0"));
    assert!(hint(&["--host", "DC0_H0", "--datastore", "x"]).1.contains("LocalDS_0"));
    assert!(hint(&["--datacenter", "x"]).1.contains("DC0"));
    assert!(hint(&["--host", "DC0_H0", "--pool", "x"]).0["error"]["says"].as_str().unwrap().contains("pool"));
    assert!(
        hint(&["--host", "DC0_H0", "--register-folder", "a/b"]).0["error"]["says"]
            .as_str()
            .unwrap()
            .contains("folder")
    );
    let descriptor = definition(&folder, "ovf");
    let text = fs::read_to_string(&descriptor).unwrap();
    fs::write(descriptor, text.replace("VM Network", "Elsewhere")).unwrap();
    let (missing, _) = hint(HOST);
    assert_eq!(ids(&missing), ["target-network-missing"]);
    assert!(missing["findings"][0]["remedy"].as_str().unwrap().contains("VM Network"), "{missing:#}");
    // What was written for another hypervisor is none of this one's.
    report(&folder, "kvm", &machine("web01"), &[]);
    assert!(hint(HOST).1.contains("--to esxi"));
}
