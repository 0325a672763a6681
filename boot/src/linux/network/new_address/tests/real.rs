//! The files of real releases, and what real readers of network configuration make of files before and after.

use super::*;
use crate::linux::network::readdress::tests::readers::{generated, output, reader};
use crate::testing::{network_readers, tool};
use std::process::Command;

/// The files of real releases hold nothing that is taken for an address, and what is put among them follows.
#[test]
fn among_the_files_of_real_releases() {
    for suite in ["bullseye", "bookworm", "trixie"] {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/guests/files-{suite}"));
        if !folder.join("etc").is_dir() {
            eprintln!("SKIPPED: no {}; run tools/make-trees.sh", folder.display());
            continue;
        }
        let mut tree = MemTree::new();
        for part in [
            "etc",
            "usr/lib/systemd/network",
            "lib/systemd/network",
            "usr/lib/udev/rules.d",
            "lib/udev/rules.d",
            "var/lib",
        ] {
            load(&folder, &folder.join(part), &mut tree);
        }
        tree = tree.file("/etc/network/interfaces", "");
        let plan = run(&tree, &both());
        assert!(plan.edits.is_empty() && plan.findings.is_empty(), "{suite}: {plan:#?}");
        for (path, text) in bonded().paths().filter_map(|(path, file)| Some((path, file?))) {
            tree = tree.file(path, text);
        }
        let mut patched = tree.clone();
        apply(&mut patched, &run(&tree, &both()));
        assert_eq!(left(&patched), ["/etc/dhcp/dhclient.conf", "/etc/licence.key"], "{suite}");
        assert_eq!(run(&patched, &both()).edits, [], "{suite}");
    }
}

fn load(root: &std::path::Path, folder: &std::path::Path, tree: &mut MemTree) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let inner = format!("/{}", path.strip_prefix(root).unwrap().display());
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            load(root, &path, tree);
        } else if meta.is_file() && meta.len() < 1 << 20 {
            *tree = std::mem::take(tree).file(&inner, std::fs::read(&path).unwrap());
        }
    }
}

const NETPLAN: &str = "network:\n  version: 2\n  ethernets:\n    lan0:\n      match: {macaddress: 00:50:56:00:00:0a}\n      set-name: lan0\n      dhcp4: true\n    lan1:\n      renderer: NetworkManager\n      match:\n        macaddress: \"00:50:56:00:00:0B\"\n      macaddress: 00:50:56:00:00:0b\n      addresses: [10.0.0.5/24]\n";

/// What netplan and NetworkManager make of a file is the same as before, but for the addresses.
#[test]
fn real_readers_see_the_new_addresses() {
    let replaced = |text: &str| {
        let pairs = [(A, NEW_A), (B, NEW_B)];
        pairs.iter().fold(text.to_owned(), |text, (old, new)| {
            text.replace(old, new).replace(&old.to_uppercase(), &new.to_uppercase())
        })
    };
    let new_file =
        |path: &str, text: &str| written(&run(&MemTree::new().file(path, text), &both()), path).unwrap();
    let Some(folder) = network_readers() else { return };
    if reader(&folder, "netplan.io", "libexec/netplan/generate").is_some() {
        let read = |text: &str| {
            generated(&mut reader(&folder, "netplan.io", "libexec/netplan/generate").unwrap(), text)
        };
        let after = read(&new_file("/etc/netplan/a.yaml", NETPLAN));
        assert_eq!(after, replaced(&read(NETPLAN)));
        assert!(after.contains(NEW_A) && after.contains(&NEW_B.to_uppercase()), "{after}");
    }
    if let Some(mut nmcli) = reader(&folder, "network-manager", "usr/bin/nmcli") {
        nmcli.args(["--offline", "connection", "modify", "connection.id", "read"]);
        let profile = "[connection]\nid=lan\nuuid=2d1a6ee1-27ba-4a5a-8b2a-5c5e6d0e8f1f\ntype=ethernet\n\n[ethernet]\ncloned-mac-address=00:50:56:00:00:0A\nmac-address=0:50:56:0:0:a\n\n[ipv4]\nmethod=auto\n";
        let new = new_file("/etc/NetworkManager/system-connections/lan.nmconnection", profile);
        let after = output(&mut nmcli, &new);
        assert_eq!(after, replaced(&output(&mut nmcli, profile)));
        assert_eq!(after.matches(NEW_A).count(), 2, "{after}");
    }
}

/// cloud-init reads YAML with Python.
#[test]
fn python_reads_an_address_and_no_number() {
    let Some(python) = tool("python3") else { return };
    if !Command::new(&python).args(["-c", "import yaml"]).output().unwrap().status.success() {
        eprintln!("SKIPPED: Python has no yaml module");
        return;
    }
    let path = "/etc/netplan/a.yaml";
    let new = written(&run(&MemTree::new().file(path, NETPLAN), &both()), path).unwrap();
    let program = "import sys, yaml; all = yaml.safe_load(sys.stdin)['network']['ethernets']\nfor one in all.values(): print(one['match']['macaddress'])";
    let read = output(Command::new(python).args(["-c", program]), &new);
    assert_eq!(read, format!("{NEW_A}\n{}\n", NEW_B.to_uppercase()));
}
