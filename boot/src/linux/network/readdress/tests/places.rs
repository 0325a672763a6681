//! Where addresses stand: files for the whole machine, devices of several files, keys that are only looked at.

use super::*;

fn left(plan: &PatchPlan) -> Vec<String> {
    let found = plan.findings.iter().filter(|finding| finding.id == "linux-readdress-left");
    found
        .filter_map(|finding| {
            let (path, rest) = finding.says.split_once(" names ")?;
            Some(format!("{path} {}", rest.split(',').next()?))
        })
        .collect()
}

#[test]
fn addresses_in_places_that_are_not_edited_are_told() {
    let base = ("/etc/network/interfaces", "iface ens192 inet static\n address 10.1.0.5/24\n");
    for (path, text, ip) in [
        (
            "/etc/netplan/a.yaml",
            "network: {bonds: {bond0: {interfaces: [ens224], parameters: {arp-ip-targets: [10.1.0.1]}}}}\n",
            "10.1.0.1",
        ),
        (
            "/etc/netplan/a.yaml",
            "network: {tunnels: {t: {mode: gre, local: 10.1.0.5, remote: 10.1.0.6}}}\n",
            "10.1.0.5",
        ),
        (
            "/etc/NetworkManager/system-connections/b.nmconnection",
            "[connection]\ntype=bond\ninterface-name=bond0\n[bond]\narp_ip_target=10.1.0.1\n",
            "10.1.0.1",
        ),
        (
            "/etc/NetworkManager/system-connections/t.nmconnection",
            "[connection]\ntype=ip-tunnel\ninterface-name=t0\n[ip-tunnel]\nremote=10.1.0.6\n",
            "10.1.0.6",
        ),
        (
            "/etc/NetworkManager/system-connections/w.nmconnection",
            "[connection]\ntype=wireguard\ninterface-name=wg0\n[wireguard-peer.K]\nendpoint=10.1.0.9:51820\n",
            "10.1.0.9",
        ),
        (
            "/etc/systemd/network/t.netdev",
            "[NetDev]\nName=t0\nKind=gre\n[Tunnel]\nLocal=10.1.0.5\n",
            "10.1.0.5",
        ),
        (
            "/etc/systemd/network/b.netdev",
            "[NetDev]\nName=b0\nKind=bond\n[Bond]\nARPIPTargets=10.1.0.1\n",
            "10.1.0.1",
        ),
        ("/etc/dhcp/dhclient.conf", "# 10.1.0.1\nsupersede domain-name-servers 10.1.0.53;\n", "10.1.0.53"),
        ("/etc/resolvconf/resolv.conf.d/head", "nameserver 10.1.0.53\n", "10.1.0.53"),
        ("/etc/NetworkManager/conf.d/dns.conf", "[global-dns-domain-*]\nservers=10.1.0.53\n", "10.1.0.53"),
        (
            "/etc/NetworkManager/NetworkManager.conf",
            "[global-dns-domain-*]\nservers=10.1.0.53\n",
            "10.1.0.53",
        ),
        ("/etc/dhcpcd.conf", "static ip_address=10.1.0.5/24\n", "10.1.0.5"),
        (
            "/etc/initramfs-tools/initramfs.conf",
            "IP=10.1.0.5::10.1.0.1:255.255.255.0::eth0:off\n",
            "10.1.0.5",
        ),
        ("/etc/initramfs-tools/conf.d/ip", "IP=10.1.0.5::10.1.0.1:255.255.255.0::eth0:off\n", "10.1.0.1"),
        (
            "/etc/default/grub",
            "GRUB_CMDLINE_LINUX=\"ip=10.1.0.5::10.1.0.1:255.255.255.0::eth0:off\"\n",
            "10.1.0.5",
        ),
        ("/etc/kernel/cmdline", "root=/dev/sda1 ip=10.1.0.5::10.1.0.1:255.255.255.0::eth0:off\n", "10.1.0.1"),
    ] {
        let plan = run(&MemTree::new().files(&[base, (path, text)]), vec![subnets()]);
        assert!(left(&plan).contains(&format!("{path} {ip}")), "{path}: {:?}", plan.findings);
        assert_eq!(after(&plan, path), None, "{path}");
    }
}

#[test]
fn drop_ins_of_resolved_and_static_routes_are_edited() {
    let base = ("/etc/sysconfig/network-scripts/ifcfg-ens192", "DEVICE=ens192\nIPADDR=10.1.0.5\nPREFIX=24\n");
    let (drop_in, routes) = ("/etc/systemd/resolved.conf.d/site.conf", "/etc/sysconfig/static-routes");
    let tree = MemTree::new().files(&[
        base,
        (drop_in, "[Resolve]\nDNS=10.1.0.53\n"),
        (
            routes,
            "# ours\nany net 10.9.0.0 netmask 255.255.0.0 gw 10.1.0.9\nany -net 10.1.64.0/18 gw 10.1.0.9\n",
        ),
    ]);
    let plan = run(&tree, vec![subnets()]);
    assert_eq!(after(&plan, drop_in).unwrap(), "[Resolve]\nDNS=10.2.0.53\n");
    assert_eq!(
        after(&plan, routes).unwrap(),
        "# ours\nany net 10.9.0.0 netmask 255.255.0.0 gw 10.2.0.9\nany -net 10.2.64.0/18 gw 10.2.0.9\n"
    );
}

/// As NetworkManager writes it where netplan is its backend.
pub(super) const BY_NETWORKMANAGER: &str = "network:\n  version: 2\n  ethernets:\n    NM-2d1a6ee1-27ba-4a5a-8b2a-5c5e6d0e8f1f:\n      renderer: NetworkManager\n\
    \x20     match:\n        name: \"ens192\"\n      addresses:\n      - \"10.1.0.5/24\"\n      nameservers:\n        addresses:\n        - 10.1.0.53\n\
    \x20     networkmanager:\n        uuid: \"2d1a6ee1-27ba-4a5a-8b2a-5c5e6d0e8f1f\"\n        name: \"lan\"\n        passthrough:\n\
    \x20         ipv4.address1: \"10.1.0.5/24,10.1.0.1\"\n          ipv4.method: \"manual\"\n          proxy._: \"\"\n";

#[test]
fn what_netplan_passes_through_moves_too() {
    let path = "/etc/netplan/90-NM-2d1a6ee1-27ba-4a5a-8b2a-5c5e6d0e8f1f.yaml";
    let plan = run(&MemTree::new().file(path, BY_NETWORKMANAGER), vec![subnets()]);
    assert_eq!(after(&plan, path).unwrap(), BY_NETWORKMANAGER.replace("10.1.0", "10.2.0"));
    let gateway = plan.moved.iter().find(|moved| moved.what == What::Gateway).unwrap();
    assert_eq!((gateway.interface.as_str(), gateway.after.as_str()), ("ens192", "10.2.0.1"));
    // By DHCP its addresses go with the others.
    let new =
        after(&run(&MemTree::new().file(path, BY_NETWORKMANAGER), vec![subnets(), dhcp()]), path).unwrap();
    assert!(!new.contains("10.") && new.contains("dhcp4: true"), "{new}");
    assert!(
        new.contains("passthrough:\n          ipv4.method: \"auto\"\n          proxy._: \"\"\n"),
        "{new}"
    );
    let other = "network:\n  version: 2\n  nm-devices:\n    NM-1:\n      renderer: NetworkManager\n      networkmanager:\n        uuid: \"1\"\n\
        \x20       passthrough:\n          connection.type: \"dummy\"\n          connection.interface-name: \"dummy0\"\n\
        \x20         ipv4.address1: \"10.1.0.5/24,10.1.0.1\"\n          ipv4.method: \"manual\"\n          vpn.gateway: \"10.1.0.9\"\n";
    let by_name = Rule { interface: Some("dummy0".into()), ..subnets() };
    let plan = run(&MemTree::new().file(path, other), vec![by_name]);
    assert_eq!(
        after(&plan, path).unwrap(),
        other.replace("10.1.0.5", "10.2.0.5").replace("10.1.0.1\"", "10.2.0.1\"")
    );
    assert_eq!(left(&plan), [format!("{path} 10.1.0.9")]);
}

#[test]
fn a_device_of_two_files_has_one_name() {
    let (first, second) = ("/etc/netplan/10-match.yaml", "/etc/netplan/20-addresses.yaml");
    let tree = MemTree::new().files(&[
        (first, "network:\n  ethernets:\n    lan:\n      match: {name: ens192}\n      set-name: lan0\n"),
        (second, "network:\n  ethernets:\n    lan:\n      addresses: [10.1.0.5/24]\n"),
    ]);
    let plan = run(&tree, vec![Rule { interface: Some("lan0".into()), ..subnets() }]);
    assert!(after(&plan, second).unwrap().contains("10.2.0.5/24"));
    assert_eq!(plan.moved[0].interface, "lan0");
}

#[test]
fn rules_reach_what_stands_on_their_cards() {
    let by_card = || vec![Rule { cards: Some(vec![1]), ..subnets() }];
    let folder = "/etc/NetworkManager/system-connections";
    let (bond, vlan) = (format!("{folder}/bond.nmconnection"), format!("{folder}/vlan.nmconnection"));
    let (uuid, port) = ("2d1a6ee1-27ba-4a5a-8b2a-5c5e6d0e8f1f", format!("{folder}/a-port.nmconnection"));
    let files = [
        (
            port.as_str(),
            format!("[connection]\ntype=ethernet\ninterface-name=ens224\nmaster={uuid}\nslave-type=bond\n"),
        ),
        (
            bond.as_str(),
            format!(
                "[connection]\ntype=bond\nuuid={uuid}\ninterface-name=bond0\n[ipv4]\nmethod=manual\naddress1=10.1.0.6/24\n"
            ),
        ),
        (
            vlan.as_str(),
            format!(
                "[connection]\ntype=vlan\ninterface-name=vlan7\n[vlan]\nid=7\nparent={uuid}\n[ipv4]\nmethod=manual\naddress1=10.1.7.6/24\n"
            ),
        ),
    ];
    let tree = files.iter().fold(MemTree::new(), |tree, (path, text)| tree.file(path, text));
    let plan = run(&tree, by_card());
    assert!(after(&plan, &bond).unwrap().contains("10.2.0.6/24"));
    assert!(after(&plan, &vlan).unwrap().contains("10.2.7.6/24"));
    let path = "/etc/network/interfaces";
    let interfaces = "auto ens224\niface ens224 inet manual\n bond-master bond0\nauto bond0\niface bond0 inet static\n bond-slaves none\n address 10.1.0.6/24\n";
    let plan = run(&MemTree::new().file(path, interfaces), by_card());
    assert!(after(&plan, path).unwrap().contains("10.2.0.6/24"));
}

#[test]
fn sources_and_peers_are_reported() {
    let tree = MemTree::new().file(
            "/etc/systemd/network/a.network",
            "[Match]\nName=ens192\n[Address]\nAddress=10.1.0.5/24\nPeer=10.1.0.6/24\nBroadcast=10.1.0.255\n[Route]\nDestination=10.9.0.0/16\n\
             Gateway=10.1.0.9\nPreferredSource=10.1.0.5\n[RoutingPolicyRule]\nFrom=10.1.0.0/24\nTable=7\n",
    );
    let plan = run(&tree, vec![subnets()]);
    let moved: Vec<_> = plan.moved.iter().map(|moved| format!("{:?} {}", moved.what, moved.after)).collect();
    for expected in ["Peer 10.2.0.6/24", "Source 10.2.0.5", "Source 10.2.0.0/24"] {
        assert!(moved.iter().any(|one| one == expected), "{expected}: {moved:?}");
    }
}
