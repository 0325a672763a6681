//! What the real readers of each configuration system make of a file before and after: the same, with every address moved.
//! The addresses are moved a second time by Python's ipaddress for that.

use super::*;
use crate::testing::{network_readers, tool};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PYTHON: &str = r#"
import ipaddress, re, sys
rules = [(ipaddress.ip_network(a), ipaddress.ip_network(b)) for a, b in
    [("10.1.0.0/16", "10.2.0.0/16"), ("10.7.0.0/24", "10.8.0.0/25"), ("2001:db8:1::/48", "2001:db8:2::/48")]]
def moved(match):
    word = match.group(0)
    try:
        one = ipaddress.ip_interface(word)
    except ValueError:
        return word
    for old, new in rules:
        if one.ip.version == old.version and one.ip in old:
            ip = new.network_address + (int(one.ip) - int(old.network_address))
            if "/" not in word:
                return str(ip)
            length = one.network.prefixlen
            length = new.prefixlen if length == old.prefixlen else max(length, new.prefixlen)
            return f"{ip}/{length}"
    return word
for line in sys.stdin:
    sys.stdout.write(re.sub(r"[0-9a-fA-F:.]+[0-9a-fA-F:](/\d+)?", moved, line))
"#;

pub fn output(command: &mut Command, input: &str) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{command:?}: {}\n{input}", text(&out.stderr));
    text(&out.stdout)
}

fn by_python(text: &str) -> String {
    output(Command::new(tool("python3").unwrap()).args(["-c", PYTHON]), text)
}

/// The file as it is after the subnets were moved.
fn moved_file(path: &str, before: &str) -> String {
    after(&run(&MemTree::new().file(path, before), vec![subnets()]), path).unwrap()
}

/// A program of the packages that were fetched, with their libraries.
pub fn reader(folder: &Path, package: &str, program: &str) -> Option<Command> {
    let found = ["", "usr"]
        .iter()
        .map(|start| folder.join(package).join(start).join(program))
        .find(|path| path.is_file());
    let Some(path) = found else {
        eprintln!("SKIPPED: {program} is not among the network readers");
        return None;
    };
    let libraries: Vec<PathBuf> = ["libnetplan0", "libnm0"]
        .iter()
        .map(|name| folder.join(name).join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)))
        .collect();
    let mut command = Command::new(path);
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap());
    Some(command)
}

const INTERFACES: &str = "auto ens192\niface ens192 inet static\n\taddress 10.1.0.5\n\tnetmask 255.255.0.0\n\tbroadcast 10.1.255.255\n\
    \tgateway 10.1.0.1\n\tdns-nameservers 10.1.0.53 8.8.8.8\n\tup ip route add 172.16.0.0/12 \\\n\t\tvia 10.1.0.9\n\
    iface ens192 inet6 static\n\taddress 2001:db8:1::5\n\tnetmask 64\n\tgateway 2001:db8:1::1\n";

#[test]
fn ifquery_reads_the_moved_addresses() {
    let Some(folder) = network_readers() else { return };
    let path = "/etc/network/interfaces";
    for package in ["ifupdown", "ifupdown-ng"] {
        let program = if package == "ifupdown" { "sbin/ifup" } else { "sbin/ifupdown" };
        let Some(real) = reader(&folder, package, program) else { continue };
        let dir = tempfile::tempdir().unwrap();
        // One program with several names.
        let named = dir.path().join("ifquery");
        std::os::unix::fs::symlink(real.get_program(), &named).unwrap();
        let read = |text: &str| {
            let file = dir.path().join("interfaces");
            fs::write(&file, text).unwrap();
            output(Command::new(&named).arg("-i").arg(&file).arg("ens192"), "")
        };
        let after = read(&moved_file(path, INTERFACES));
        assert_eq!(after, by_python(&read(INTERFACES)), "{package}");
        assert!(
            after.contains("10.2.0.5") && after.contains("10.2.0.1") && !after.contains("10.1."),
            "{after}"
        );
    }
}

#[test]
fn networkmanager_reads_the_moved_addresses() {
    let Some(folder) = network_readers() else { return };
    let Some(mut nmcli) = reader(&folder, "network-manager", "usr/bin/nmcli") else { return };
    nmcli.args(["--offline", "connection", "modify", "connection.id", "read"]);
    let profile = "[connection]\nid=lan\nuuid=2d1a6ee1-27ba-4a5a-8b2a-5c5e6d0e8f1f\ntype=ethernet\ninterface-name=ens192\n\n[ipv4]\n\
        address1=10.1.0.5/16,10.1.0.1\naddress2=10.7.0.5/24\ndns=10.1.0.53;8.8.8.8;\nmethod=manual\n\
        route1=172.16.0.0/12,10.1.0.9,100\nroute1_options=mtu=1400,src=10.1.0.5\n\n[ipv6]\naddress1=2001:db8:1::5/64,2001:db8:1::1\n\
        dns=2001:db8:1::53;\nmethod=manual\n";
    let path = "/etc/NetworkManager/system-connections/lan.nmconnection";
    let after = output(&mut nmcli, &moved_file(path, profile));
    assert_eq!(after, by_python(&output(&mut nmcli, profile)));
    assert!(after.contains("10.2.0.5/16,10.2.0.1") && after.contains("10.8.0.5/25"), "{after}");
    // DHCP with the map's own servers, and without.
    for (rules, expected) in [
        (vec![subnets(), dhcp()], "[ipv4]\nmethod=auto\nroute1="),
        (vec![subnets(), servers(), dhcp()], "[ipv4]\ndns=10.2.9.1;10.2.9.2;10.2.9.3;\n"),
    ] {
        let new = after_of(path, profile, rules);
        let read = output(&mut nmcli, &new);
        assert!(read.contains(expected) && read.contains("method=auto"), "{read}");
    }
}

fn after_of(path: &str, before: &str, rules: Vec<Rule>) -> String {
    after(&run(&MemTree::new().file(path, before), rules), path).unwrap()
}

/// What netplan generates for networkd and NetworkManager from one file.
pub fn generated(generator: &mut Command, yaml: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("etc/netplan");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("a.yaml"), yaml).unwrap();
    output(generator.arg("--root-dir").arg(dir.path()), "");
    let mut files = Vec::new();
    for folder in ["systemd/network", "NetworkManager/system-connections"] {
        let Ok(entries) = fs::read_dir(dir.path().join("run").join(folder)) else { continue };
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.sort();
    assert!(!files.is_empty(), "{yaml}");
    files
        .iter()
        .map(|path| {
            format!("{}\n{}", path.file_name().unwrap().to_string_lossy(), fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn netplan_generates_the_moved_addresses() {
    let Some(folder) = network_readers() else { return };
    let generator = || reader(&folder, "netplan.io", "libexec/netplan/generate");
    if generator().is_none() {
        return;
    }
    let path = "/etc/netplan/a.yaml";
    let yaml = "network:\n  version: 2\n  ethernets:\n    ens192:\n      addresses:\n      - 10.1.0.5/16   # main\n      - '2001:db8:1::5/64'\n      - \"10.7.0.5/24\":\n\
        \x20         label: second\n      nameservers: {addresses: [10.1.0.53, 2001:db8:1::53], search: [a.example]}\n      routes:\n      - to: default\n\
        \x20       via: 10.1.0.1\n      - {to: 172.16.0.0/12, via: 10.1.0.9, metric: 5}\n    ens224:\n      renderer: NetworkManager\n      addresses: [10.7.0.6/24]\n\
        \x20 vlans:\n    vlan7:\n      id: 7\n      link: ens192\n      addresses: [10.1.7.7/24]\n      gateway4: 10.1.7.1\n\
        \x20     routing-policy:\n      - from: 10.1.7.0/24\n        table: 7\n";
    let new = moved_file(path, yaml);
    let read = |text: &str| generated(&mut generator().unwrap(), text);
    let after = read(&new);
    assert_eq!(after, by_python(&read(yaml)), "{new}");
    assert!(after.contains("Address=10.2.0.5/16") && after.contains("10.8.0.6/25"), "{after}");
    // The other maps yield files that netplan takes, with what they say.
    let fixed = after_of(path, yaml, vec![subnets(), servers()]);
    let read_fixed = read(&fixed);
    assert!(read_fixed.contains("DNS=10.2.9.3") && read_fixed.contains("Gateway=10.2.0.254"), "{read_fixed}");
    assert!(read_fixed.contains("Destination=172.32.0.0/12\nGateway=10.2.0.9"), "{read_fixed}");
    let simple = "network:\n  version: 2\n  ethernets:\n    ens192:\n      dhcp4: false\n      addresses:\n        - 10.1.0.5/16\n      gateway4: 10.1.0.1\n\
        \x20     nameservers:\n        addresses:\n          - 10.1.0.53\n      routes:\n        - to: default\n          via: 10.1.0.1\n        - to: 10.1.9.0/24\n\
        \x20         via: 10.1.0.9\n";
    let automatic = read(&after_of(path, simple, vec![subnets(), dhcp()]));
    assert!(
        automatic.contains("DHCP=ipv4") && !automatic.contains("Address=") && !automatic.contains("DNS="),
        "{automatic}"
    );
    assert!(
        automatic.contains("Destination=10.2.9.0/24") && !automatic.contains("Destination=0.0.0.0/0"),
        "{automatic}"
    );
}

/// A key that netplan passes through to NetworkManager counts more than what netplan makes of its own keys.
#[test]
fn networkmanager_gets_the_moved_addresses_through_netplan() {
    let Some(folder) = network_readers() else { return };
    let generator = || reader(&folder, "netplan.io", "libexec/netplan/generate");
    if generator().is_none() {
        return;
    }
    let read = |text: &str| generated(&mut generator().unwrap(), text);
    let before = read(super::places::BY_NETWORKMANAGER);
    assert!(before.contains("address1=10.1.0.5/24,10.1.0.1"), "{before}");
    let path = "/etc/netplan/90-NM.yaml";
    let after = read(&moved_file(path, super::places::BY_NETWORKMANAGER));
    assert_eq!(after, by_python(&before));
    let automatic = read(&after_of(path, super::places::BY_NETWORKMANAGER, vec![subnets(), dhcp()]));
    assert!(automatic.contains("method=auto") && !automatic.contains("10."), "{automatic}");
}
