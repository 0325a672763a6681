use super::*;
use crate::appliance::settings::{Dhcp, Settings};
use base64::Engine;
use proptest::prelude::*;

fn parsed(meta: &str, user: &str, network: &str) -> Given {
    parse(Documents { meta: meta.as_bytes(), user: user.as_bytes(), network: network.as_bytes() }).unwrap()
}

fn key(name: &str) -> String {
    let mut bytes = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
    bytes.extend([7; 32]);
    format!("ssh-ed25519 {} {name}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[test]
fn user_data_is_heeded_where_it_is_a_setting_and_named_where_it_is_not() {
    let user = format!(
        "#cloud-config\nhostname: dr1\nfqdn: dr1.example.org\npassword: hunter2\nchpasswd: {{expire: false}}\nssh_pwauth: true\n\
         users:\n  - default\n  - name: me\n    sudo: ALL\n    passwd: hunter2\n    ssh_authorized_keys: [\"{}\"]\n\
         ssh_authorized_keys:\n  - {}\n  - command=\"reboot\" {}\nntp:\n  enabled: true\n  servers: [ntp.example.org]\n  pools: [10.0.0.9]\n\
         timezone: Europe/Berlin\nkeyboard: {{layout: de, model: pc105}}\nruncmd:\n  - reboot\nbootcmd: [reboot]\n\
         write_files:\n  - path: /etc/shadow\n    content: x\npackages: [x]\nmanage_etc_hosts: true\n",
        key("one"),
        key("two"),
        key("three"),
    );
    let given = parsed("instance-id: i-1\nlocal-hostname: old\npublic-keys:\n  - x\n", &user, "");
    let settings = &given.settings;
    assert_eq!(settings.hostname.as_ref().unwrap().as_str(), "dr1.example.org");
    assert_eq!(settings.time_zone.as_ref().unwrap().as_str(), "Europe/Berlin");
    assert_eq!(
        settings.ntp.as_ref().unwrap().iter().map(|one| one.as_str()).collect::<Vec<_>>(),
        ["ntp.example.org", "10.0.0.9"]
    );
    let keys: Vec<&str> = settings.ssh_keys.as_ref().unwrap().iter().map(|one| one.as_str()).collect();
    assert_eq!(keys, [key("one"), key("two")]);
    assert_eq!(
        given.unread,
        [
            "bootcmd",
            "chpasswd",
            "keyboard",
            "packages",
            "password",
            "runcmd",
            "ssh_pwauth",
            "users.name",
            "users.passwd",
            "users.sudo",
            "write_files"
        ]
    );
    assert_eq!(given.notes.len(), 2, "{:?}", given.notes);
    assert!(given.notes[1].contains("options are not taken"));
    assert_eq!(given.identity.instance.as_deref(), Some("i-1"));
    assert!(!format!("{given:?}").contains("hunter2"));
}

#[test]
fn what_is_no_cloud_config_is_not_looked_into() {
    for user in [
        "#!/bin/sh\nreboot\n",
        "Content-Type: multipart/mixed\n\n#cloud-config\nhostname: x\n",
        "#include\nhttp://x\n",
        "#cloud-configs\nhostname: x\n",
    ] {
        let given = parsed("instance-id: i\n", user, "");
        assert_eq!(
            (given.unread.as_slice(), given.settings),
            (&["user-data".to_owned()][..], Settings::default()),
            "{user}"
        );
        assert!(given.notes[0].contains("nothing is run"));
    }
    let given = parse(Documents { meta: b"{}", user: b"\x1f\x8b\x08\x00\xff", network: b"" }).unwrap();
    assert!(given.notes[0].contains("packed"));
    assert!(parsed("{}", "#cloud-config\na: [b\n", "").notes[0].contains("no YAML"));
    for deep in ["[".repeat(1000), "- ".repeat(1000), "{a: ".repeat(1000)] {
        let given = parsed("{}", &format!("#cloud-config\n{deep}"), "");
        assert!(given.notes[0].starts_with("user-data: it is ") && given.settings == Settings::default());
    }
    assert!(
        parsed("{}", &format!("#cloud-config\n#{}", "x".repeat(1 << 20)), "").notes[0]
            .contains("are read at most")
    );
    assert_eq!(parsed("", "", "").settings, Settings::default());
}

/// What Proxmox VE writes.
const PROXMOX: &str = "version: 1\nconfig:\n    - type: physical\n      name: eth0\n      mac_address: 'bc:24:11:00:00:01'\n      subnets:\n      \
    - type: static\n        address: '10.0.0.5'\n        netmask: '255.255.255.0'\n        gateway: '10.0.0.1'\n      - type: static6\n        \
    address: '2001:db8::5/64'\n        gateway: '2001:db8::1'\n    - type: nameserver\n      address:\n      - '10.0.0.53'\n      search:\n      - 'example.org'\n";
const SECOND: &str = "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    lan:\n      match: {macaddress: \"52:54:00:12:34:56\"}\n      set-name: lan0\n      \
    addresses: [10.0.0.5/24, {2001:db8::5/64: {label: x}}]\n      routes:\n        - {to: default, via: 10.0.0.1}\n        - {to: 10.9.0.0/16, via: 10.0.0.2}\n      \
    gateway6: 2001:db8::1\n      nameservers: {addresses: [10.0.0.53], search: [example.org]}\n      mtu: 9000\n    eth1:\n      dhcp4: true\n      dhcp6: no\n      \
    dhcp4-overrides: {use-dns: false}\n    p1: {}\n    p2: {}\n  bonds:\n    bond0:\n      interfaces: [p1, p2]\n      parameters: {mode: active-backup}\n  \
    vlans:\n    v7: {id: 7, link: bond0, addresses: [10.7.0.5/24]}\n    v8: {id: 8, link: lan, dhcp4: yes}\n  bridges:\n    br0: {interfaces: [eth1]}\n";

#[test]
fn networks_of_both_versions_become_settings() {
    let given = parsed("{}", "", PROXMOX);
    let wanted = "dns = [\"10.0.0.53\"]\nsearch = [\"example.org\"]\n[[nic]]\ncard = \"bc:24:11:00:00:01\"\n\
        addresses = [\"10.0.0.5/24\", \"2001:db8::5/64\"]\ngateways = [\"10.0.0.1\", \"2001:db8::1\"]\n";
    assert_eq!(
        (given.settings, given.notes.len(), given.unread.len()),
        (Settings::parse(wanted).unwrap(), 0, 0)
    );
    let given = parsed("{}", "", SECOND);
    assert_eq!(given.notes, Vec::<String>::new());
    let wanted = "dns = [\"10.0.0.53\"]\nsearch = [\"example.org\"]\n[[nic]]\ncard = \"eth1\"\ndhcp = \"ipv4\"\n\
        [[nic]]\ncard = \"52:54:00:12:34:56\"\naddresses = [\"10.0.0.5/24\", \"2001:db8::5/64\"]\ngateways = [\"2001:db8::1\", \"10.0.0.1\"]\nmtu = 9000\n\
        [[nic]]\ncard = \"p1\"\nvlan = 7\naddresses = [\"10.7.0.5/24\"]\nbond = { mode = \"active-backup\", with = [\"p2\"] }\n\
        [[nic]]\ncard = \"52:54:00:12:34:56\"\nvlan = 8\ndhcp = \"ipv4\"\n";
    assert_eq!(given.settings, Settings::parse(wanted).unwrap());
    assert_eq!(
        given.unread,
        [
            "network-config: bridges.br0",
            "network-config: eth1.dhcp4-overrides",
            "network-config: lan.routes (10.9.0.0/16)"
        ]
    );
    let dhcp = "version: 1\nconfig:\n - {type: physical, name: eth0, subnets: [{type: dhcp4}, {type: dhcp6}]}\n \
        - {type: bond, name: b, bond_interfaces: [eth1, eth2], params: {bond-mode: 802.3ad}, subnets: [{type: manual}]}\n \
        - {type: vlan, name: b.5, vlan_link: b, vlan_id: 5, subnets: [{type: dhcp}]}\n - {type: route, destination: 10.0.0.0/8}\n";
    let given = parsed("{}", "", dhcp);
    let nics = given.settings.nics();
    assert_eq!(
        (nics.len(), nics[1].dhcp, nics[0].vlan, nics[0].bond.is_some()),
        (2, Dhcp::Yes, Some(5), true)
    );
    assert_eq!(given.unread, ["network-config: route "]);
    let any = parsed("{}", "", "version: 2\nethernets: {all: {match: {name: \"en*\"}, dhcp4: true}}\n");
    assert!(
        any.notes[0].contains("the first card is taken")
            && any.settings.nics()[0].card.to_string() == "first"
    );
}

#[test]
fn a_network_that_is_wrong_somewhere_is_left_out_whole() {
    for (network, says) in [
        ("version: 3\n", "version \"3\""),
        ("a: [", "no YAML"),
        ("version: 2\nethernets: {eth0: {addresses: [10.0.0.5]}}\n", "has no prefix"),
        ("version: 2\nethernets: {eth0: {dhcp4: true}, \"eth*\": {dhcp4: true}}\n", "names no network card"),
        ("version: 2\nethernets: {eth0: {dhcp4: true, mtu: big}}\n", "the MTU \"big\" is none"),
        ("version: 2\nvlans: {v: {link: eth0, dhcp4: true}}\n", "has no id"),
        ("version: 2\nvlans: {v: {id: 1, link: w, dhcp4: true}, w: {id: 2, link: v}}\n", "a VLAN on a VLAN"),
        ("version: 2\nbonds: {b: {interfaces: [eth0], parameters: {mode: balance-rr}}}\n", "balance-rr"),
        // The card would be right.
        (
            "version: 2\nethernets: {eth0: {dhcp4: true}}\nbonds: {b: {interfaces: [], dhcp4: true}}\n",
            "a bond without cards",
        ),
        ("version: 1\nconfig: [{type: physical, name: eth0, mac_address: x}]\n", "hardware address"),
        (
            "version: 1\nconfig: [{type: physical, name: eth0, subnets: [{type: static, address: 10.0.0.5, netmask: 1.2.3.4}]}]\n",
            "no mask",
        ),
        (
            "version: 2\nethernets: {eth0: {addresses: [10.0.0.5/24], gateway4: 10.9.0.1}}\n",
            "is not in 10.0.0.0/24",
        ),
        // Left out they would give DHCP where an address is meant.
        ("version: 2\nethernets: {eth0: {addresses: 10.0.0.5/24}}\n", "eth0.addresses is no list"),
        (
            "version: 2\nethernets: {eth0: {addresses: {10.0.0.5/24: {label: x}}}}\n",
            "eth0.addresses is no list",
        ),
        (
            "version: 2\nethernets: {eth0: {dhcp4: true, routes: {to: default, via: 10.0.0.1}}}\n",
            "routes is no list",
        ),
        (
            "version: 2\nethernets: {eth0: {dhcp4: true, nameservers: {addresses: 10.0.0.53}}}\n",
            "eth0.nameservers.addresses is no list",
        ),
        (
            "version: 2\nethernets: {eth0: {dhcp4: true, nameservers: [10.0.0.53]}}\n",
            "eth0.nameservers is no map",
        ),
        ("version: 2\nethernets: {eth0: 10.0.0.5/24}\n", "eth0 is no map"),
        (
            "version: 1\nconfig: [{type: physical, name: eth0, subnets: {type: static, address: 10.0.0.5/24}}]\n",
            "eth0.subnets is no list",
        ),
        ("version: 1\nconfig: {type: physical, name: eth0, subnets: [{type: dhcp}]}\n", "config is no list"),
        (
            "version: 1\nconfig: [{type: physical, name: eth0, subnets: [{type: dhcp, routes: x}]}]\n",
            "eth0.subnets.routes is no list",
        ),
        ("version: 2\nethernets: {eth0: {addresses: *x}}\n", "no YAML"),
        ("version: 2\nethernets: {eth0: {addresses: &x [*x]}}\n", "stands for what it is itself in"),
    ] {
        let given = parsed("{}", "#cloud-config\nhostname: dr1\n", network);
        assert!(given.notes.iter().any(|note| note.contains(says)), "{network}: {:?}", given.notes);
        assert_eq!(
            (given.settings.nic, given.settings.hostname.unwrap().as_str()),
            (None, "dr1"),
            "{network}"
        );
    }
    assert!(parse(Documents { meta: b"a: [", ..Documents::default() }).is_err());
    assert!(parse(Documents { meta: b"\xff", ..Documents::default() }).is_err());
}

#[test]
fn aliases_count_as_what_they_stand_for() {
    let network = "x: &x [10.0.0.5/24]\nversion: 2\nethernets:\n  eth0: &d {addresses: *x, routes: , gateway4: &g 10.0.0.1}\n  \
        eth1:\n    <<: *d\n    addresses: [10.1.0.5/24]\n    gateway4: 10.1.0.1\n    nameservers: {addresses: [*g]}\n";
    let given = parsed("{}", "#cloud-config\nhostname: &h dr1\nfqdn: *h\n", network);
    let wanted = "hostname = \"dr1\"\ndns = [\"10.0.0.1\"]\n\
        [[nic]]\ncard = \"eth0\"\naddresses = [\"10.0.0.5/24\"]\ngateways = [\"10.0.0.1\"]\n\
        [[nic]]\ncard = \"eth1\"\naddresses = [\"10.1.0.5/24\"]\ngateways = [\"10.1.0.1\"]\n";
    assert_eq!(given.notes, Vec::<String>::new());
    assert_eq!(given.settings, Settings::parse(wanted).unwrap());
    assert_eq!(given.unread, ["network-config: x"]);
}

proptest! {
    #[test]
    fn no_document_panics(text in "(version: [12]\n|config:\n|ethernets:\n|  - |  |type: |subnets: |vlans: |bonds: |addresses: |\\[|\\{|\\}|\\]|, |: |10\\.0\\.0\\.5/24|x|é|\n){0,30}") {
        let _ = parse(Documents { meta: text.as_bytes(), user: format!("#cloud-config\n{text}").as_bytes(), network: text.as_bytes() });
    }
}
