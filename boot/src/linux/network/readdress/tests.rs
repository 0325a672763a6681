use super::*;
use crate::check::Severity;
use crate::family::Scene;
use crate::linux::packages::Packages;
use crate::network_map::{Host, RouteRule, Rule, What};
use crate::patch::{Action, PatchPlan};
use crate::target::{Firmware, Nic, Platform};
use crate::tree::mem::MemTree;

const A: &str = "00:50:56:00:00:0a";
const B: &str = "00:50:56:00:00:0b";

/// 10.1/16 -> 10.2/16, 10.7.0/24 -> 10.8.0/25, 2001:db8:1::/48 -> 2001:db8:2::/48.
fn subnets() -> Rule {
    let pairs = [
        ("10.1.0.0/16", "10.2.0.0/16"),
        ("10.7.0.0/24", "10.8.0.0/25"),
        ("2001:db8:1::/48", "2001:db8:2::/48"),
    ];
    Rule {
        subnets: pairs.iter().map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap())).collect(),
        ..Rule::default()
    }
}

fn servers() -> Rule {
    Rule {
        dns: Some(["10.2.9.1", "10.2.9.2", "10.2.9.3"].map(|ip| ip.parse().unwrap()).to_vec()),
        search: Some(vec!["b.example".into(), "example".into()]),
        gateways: vec!["10.2.0.254".parse().unwrap()],
        routes: vec![RouteRule {
            from: "172.16.0.0/12".parse().unwrap(),
            to: Some("172.32.0.0/12".parse().unwrap()),
            via: Some("10.2.0.9".parse().unwrap()),
        }],
        ..Rule::default()
    }
}

fn dhcp() -> Rule {
    Rule { dhcp: Some(true), ..Rule::default() }
}

fn request(rules: Vec<Rule>) -> Request {
    let nic = |(mac, name): &(&str, &str)| Nic {
        mac: Some((*mac).to_owned()),
        source_name: Some((*name).to_owned()),
        ..Nic::default()
    };
    Request {
        platform: Platform::Kvm,
        firmware: Firmware::Bios,
        nics: [(A, "ens192"), (B, "ens224")].iter().map(nic).collect(),
        network_map: Some(NetworkMap { rules }),
        ..Request::default()
    }
}

fn run(tree: &MemTree, rules: Vec<Rule>) -> PatchPlan {
    let scene = Scene { tree, volumes: &[], mounts: &[] };
    let mut draft = Draft::new(&scene);
    super::super::plan(&mut draft, &Packages::default(), &request(rules), &mut Vec::new()).unwrap();
    draft.finish()
}

/// The file after the plan.
fn after(plan: &PatchPlan, path: &str) -> Option<String> {
    plan.edits.iter().find(|edit| edit.path == path).map(|edit| match &edit.action {
        Action::Write { contents, .. } => String::from_utf8(contents.0.clone()).unwrap(),
        other => panic!("{other:?}"),
    })
}

fn ids(plan: &PatchPlan) -> Vec<&'static str> {
    plan.findings.iter().map(|finding| finding.id).filter(|id| id.contains("readdress")).collect()
}

/// Shows files before and after the three kinds of map, for the golden files; checks what holds for all of them: nothing is
/// edited without a map that means it, and a second pass does nothing more.
fn golden(files: &[(&str, &str)]) -> String {
    let mut shown = String::new();
    for (title, rules) in [
        ("subnets", vec![subnets()]),
        ("subnets, servers, gateway, routes", vec![subnets(), servers()]),
        ("dhcp", vec![subnets(), dhcp()]),
    ] {
        let tree = MemTree::new().files(files);
        let plan = run(&tree, rules.clone());
        shown.push_str(&format!("==== {title}\n"));
        let mut second = MemTree::new();
        for (path, before) in files {
            if plan.edits.iter().any(|edit| edit.path == *path && edit.action == Action::Remove) {
                shown.push_str(&format!("---- {path} goes\n"));
                continue;
            }
            second = second.file(path, *before);
            let Some(new) = after(&plan, path) else { continue };
            shown.push_str(&format!("---- {path}\n"));
            let diff = similar_lines(before, &new);
            shown.push_str(&diff);
            second = second.file(path, &new);
        }
        for moved in &plan.moved {
            shown.push_str(&format!(
                "{} {:?} {} -> {} ({})\n",
                moved.interface, moved.what, moved.before, moved.after, moved.path
            ));
        }
        for finding in plan.findings.iter().filter(|finding| finding.id.contains("readdress")) {
            shown.push_str(&format!("[{}] {}\n", finding.id, finding.says));
        }
        let again = run(&second, rules);
        for (path, _) in files {
            assert_eq!(after(&again, path), None, "{title}: a second pass edits {path}");
        }
    }
    // Nothing of what the map says is there.
    let other = Rule {
        subnets: vec![("192.0.2.0/24".parse().unwrap(), "198.51.100.0/24".parse().unwrap())],
        ..Rule::default()
    };
    let identity = Rule {
        subnets: vec![("10.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap())],
        ..Rule::default()
    };
    for rules in [vec![], vec![Rule::default()], vec![other], vec![identity]] {
        let plan = run(&MemTree::new().files(files), rules);
        for (path, _) in files {
            assert_eq!(after(&plan, path), None, "a map that means nothing edits {path}");
        }
        assert_eq!(plan.moved, []);
    }
    shown
}

/// Old and new file, line by line, with what changed marked.
fn similar_lines(before: &str, after: &str) -> String {
    let old: Vec<&str> = before.split_inclusive('\n').collect();
    let new: Vec<&str> = after.split_inclusive('\n').collect();
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let mut shown = String::new();
    let mut show = |sign: char, lines: &[&str]| {
        for line in lines {
            shown.push_str(&format!("{sign}{}\n", line.trim_end_matches('\n').replace('\r', "\\r")));
        }
    };
    show('-', &old[head..old.len() - tail]);
    show('+', &new[head..new.len() - tail]);
    shown
}

#[test]
fn ifupdown() {
    insta::assert_snapshot!(golden(&[
        (
            "/etc/network/interfaces",
            "# 10.1.0.5 stays in comments\nsource /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n\
             \tdns-nameservers 127.0.0.1\n\n\
             auto ens192\niface ens192 inet static\n\taddress  10.1.0.5   # not a comment to ifupdown\n\tnetmask 255.255.0.0\n\
             \tnetwork 10.1.0.0\n\tbroadcast 10.1.255.255\n\tgateway 10.1.0.1\n\tdns-nameservers 10.1.0.53 8.8.8.8\n\
             \tdns-search a.example\n\tup ip route add 172.16.0.0/12 via 10.1.0.9 || true\n\
             \tpost-up /sbin/ip route add 172.16.0.0/12 via 10.1.0.9 dev ens192\n\
             \tup route add -net 10.1.64.0 netmask 255.255.192.0 gw 10.1.0.9\n\
             \tup iptables -A INPUT -s 10.1.0.7 -j DROP\n\
             iface ens192 inet6 static\n\taddress 2001:db8:1::5\n\tnetmask 64\n\tgateway 2001:db8:1::1\n",
        ),
        (
            "/etc/network/interfaces.d/second",
            "auto ens224\r\niface ens224 inet static\r\n  address 10.7.0.9/24\r\n  dns-nameserver 10.7.0.53\r\n\
             \r\nauto ens224:1\r\niface ens224:1 inet static\r\n  address 10.7.0.10/24\r\n",
        ),
    ]));
}

#[test]
fn ifupdown_ng() {
    insta::assert_snapshot!(golden(&[(
        "/etc/network/interfaces",
        "auto lo\niface lo\n\nauto ens192\niface ens192\n\taddress 10.1.0.5/24\n\taddress 2001:db8:1::5/64\n\tgateway 10.1.0.1\n\n\
         auto bond0\niface bond0\n\trequires ens224\n\tuse bond\n\taddress 10.7.0.5/24\n",
    )]));
}

#[test]
fn red_hat() {
    insta::assert_snapshot!(golden(&[
        (
            "/etc/sysconfig/network-scripts/ifcfg-ens192",
            "# Generated by anaconda\nTYPE=\"Ethernet\"\nBOOTPROTO=\"none\"\nDEVICE=\"ens192\"\nONBOOT=yes\nHWADDR=00:50:56:00:00:0A\n\
             IPADDR=\"10.1.0.5\"\nPREFIX=\"16\"\nIPADDR1=10.7.0.5\nNETMASK1=255.255.255.0\nBROADCAST=10.1.255.255\nGATEWAY=10.1.0.1\n\
             DNS1=10.1.0.53\nDNS2=1.1.1.1\nDOMAIN=\"a.example\"\nIPV6ADDR=2001:db8:1::5/64\n\
             IPV6ADDR_SECONDARIES=\"2001:db8:1::6/64 2001:db8:1::7/64\"\nIPV6_DEFAULTGW=fe80::1%ens192\nMTU=1500\nARPING=10.1.0.1\n",
        ),
        (
            "/etc/sysconfig/network-scripts/ifcfg-bond0",
            "DEVICE=bond0\nTYPE=Bond\nBONDING_OPTS='mode=1 arp_ip_target=10.7.0.1'\nBOOTPROTO=static\nIPADDR=10.7.0.6\nNETMASK=255.255.255.0\n",
        ),
        ("/etc/sysconfig/network-scripts/ifcfg-ens224", "DEVICE=ens224\nMASTER=bond0\nSLAVE=yes\n"),
        (
            "/etc/sysconfig/network-scripts/ifcfg-ens192:1",
            "DEVICE=ens192:1\nIPADDR=10.1.0.55\nNETMASK=$MASK\n"
        ),
        ("/etc/sysconfig/network-scripts/ifcfg-ens192.bak", "DEVICE=ens192\nIPADDR=10.1.0.5\n"),
        (
            "/etc/sysconfig/network-scripts/route-ens192",
            "# ours\n172.16.0.0/12 via 10.1.0.9 dev ens192\n10.1.128.0/17 via 10.1.0.9 metric 5\ndefault via 10.1.0.1\n",
        ),
        (
            "/etc/sysconfig/network-scripts/route-bond0",
            "ADDRESS0=172.16.0.0\nNETMASK0=255.240.0.0\nGATEWAY0=10.7.0.9\n",
        ),
        ("/etc/sysconfig/network-scripts/rule-ens192", "from 10.1.0.5 table 5\nfrom 10.1.0.0/16 lookup 6\n"),
        ("/etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=web01\nGATEWAY=10.7.0.1\n"),
    ]));
}

#[test]
fn suse() {
    insta::assert_snapshot!(golden(&[
        (
            "/etc/sysconfig/network/ifcfg-ens192",
            "BOOTPROTO='static'\nSTARTMODE='auto'\nIPADDR='10.1.0.5/16'\nNETMASK=''\nBROADCAST=''\nIPADDR_1='10.7.0.5'\nPREFIXLEN_1='24'\n\
             LABEL_1='second'\nIPADDR_six='2001:db8:1::5/64'\nNAME='VMXNET3 Ethernet Controller'\n",
        ),
        (
            "/etc/sysconfig/network/ifcfg-vlan7",
            "ETHERDEVICE='ens224'\nVLAN_ID='7'\nIPADDR='10.7.0.6/24'\nSTARTMODE='auto'\n"
        ),
        (
            "/etc/sysconfig/network/ifroute-ens192",
            "172.16.0.0/12 10.1.0.9 - ens192\n10.1.64.0 10.1.0.9 255.255.192.0 -\n"
        ),
        ("/etc/sysconfig/network/routes", "# all\ndefault 10.1.0.1 - -\n2001:db8:9::/48 2001:db8:1::9 - -\n"),
        (
            "/etc/sysconfig/network/config",
            "NETCONFIG_DNS_POLICY=\"auto\"\nNETCONFIG_DNS_STATIC_SEARCHLIST=\"a.example\"\nNETCONFIG_DNS_STATIC_SERVERS=\"10.1.0.53 10.1.0.54\"\n",
        ),
    ]));
}

#[test]
fn wicked_xml() {
    insta::assert_snapshot!(golden(&[(
        "/etc/wicked/ifconfig/ens192.xml",
        "<!-- ours -->\n<interface origin=\"static\">\n  <name>ens192</name>\n  <ipv4:static>\n    <address>\n      <local> 10.1.0.5/16 </local>\n\
         \x20     <broadcast>10.1.255.255</broadcast>\n    </address>\n    <route>\n      <destination>172.16.0.0/12</destination>\n\
         \x20     <nexthop>\n        <gateway>10.1.0.9</gateway>\n      </nexthop>\n    </route>\n    <route>\n      <nexthop>\n\
         \x20       <gateway>10.1.0.1</gateway>\n      </nexthop>\n    </route>\n  </ipv4:static>\n\
         \x20 <ipv6:static>\n    <address><local>2001:db8:1::5/64</local></address>\n  </ipv6:static>\n</interface>\n",
    )]));
}

#[test]
fn keyfiles() {
    insta::assert_snapshot!(golden(&[
        (
            "/etc/NetworkManager/system-connections/ens192.nmconnection",
            "[connection]\nid=ens192\ntype=ethernet\ninterface-name=ens192\n\n[ipv4]\naddress1=10.1.0.5/16,10.1.0.1\naddress2=10.7.0.5/24\n\
             dns=10.1.0.53;8.8.8.8;\ndns-search=a.example;\nmethod=manual\nroute1=172.16.0.0/12,10.1.0.9,100\nroute1_options=src=10.1.0.5,mtu=1400\n\n\
             [ipv6]\naddr-gen-mode=eui64\naddress1=2001:db8:1::5/64,2001:db8:1::1\ndns=2001:db8:1::53;\nmethod=manual\n",
        ),
        (
            "/etc/NetworkManager/system-connections/by address.nmconnection",
            "[connection]\nid=b\ntype=802-3-ethernet\n[802-3-ethernet]\nmac-address=00:50:56:00:00:0B\n[ipv4]\nmethod=manual\n\
             addresses=10.7.0.6/24;10.7.0.7/24;\ngateway=10.7.0.1\nroutes=10.7.0.0/25,10.7.0.9,1\n",
        ),
    ]));
}

#[test]
fn netplan() {
    insta::assert_snapshot!(golden(&[
        (
            "/etc/netplan/00-installer-config.yaml",
            "# 10.1.0.5 stays – in comments\nnetwork:\n  version: 2\n  renderer: networkd\n  ethernets:\n    ens192:\n      addresses:\n      - 10.1.0.5/16   # main\n\
             \x20     - \"10.7.0.5/24\":\n          label: second\n      gateway4: 10.1.0.1\n      nameservers:\n        addresses: [10.1.0.53, '8.8.8.8']\n\
             \x20       search:\n        - a.example\n      routes:\n      - to: 172.16.0.0/12\n        via: 10.1.0.9\n      - to: default\n        via: 10.1.0.1\n",
        ),
        (
            "/etc/netplan/60-more.yaml",
            "network: {version: 2, bonds: {bond0: {interfaces: [ens224], addresses: [10.7.0.6/24, '2001:db8:1::6/64'], nameservers: {addresses: [10.1.0.53]}}}}\n",
        ),
        (
            "/etc/netplan/70-vlan.yaml",
            "network:\n  vlans:\n    vlan7:\n      id: 7\n      link: bond0\n      dhcp4: no\n      addresses:\n        - 10.7.0.7/24\n\
             \x20     routing-policy:\n        - from: 10.7.0.7\n          table: 7\n      nameservers:\n        addresses:\n          - 10.7.0.53\n          - 10.7.0.54\n",
        ),
    ]));
}

#[test]
fn networkd() {
    insta::assert_snapshot!(golden(&[
        (
            "/etc/systemd/network/10-lan.network",
            "[Match]\nName=ens192\n\n[Network]\nAddress=10.1.0.5/16\nAddress = 2001:db8:1::5/64\nGateway=10.1.0.1\nDNS=10.1.0.53 1.1.1.1\nDNS=10.1.0.54\n\
             Domains=a.example ~internal\n\n[Route]\nDestination=172.16.0.0/12\nGateway=10.1.0.9\n\n[RoutingPolicyRule]\nFrom=10.1.0.5\nTable=5\n",
        ),
        (
            "/etc/systemd/network/10-lan.network.d/more.conf",
            "[Address]\nAddress=10.7.0.5/24\nBroadcast=10.7.0.255\n"
        ),
        (
            "/etc/systemd/network/20-second.network",
            "[Match]\nMACAddress=00:50:56:00:00:0b\n[Network]\nDHCP=no\n[Address]\nAddress=10.7.0.6/24\n[Route]\nGateway=10.7.0.1\n",
        ),
        ("/etc/systemd/resolved.conf", "[Resolve]\n#DNS=\nDNS=10.1.0.53\nDomains=a.example\n"),
    ]));
}

#[test]
fn the_whole_machine() {
    insta::assert_snapshot!(golden(&[
        ("/etc/network/interfaces", "iface ens192 inet static\n address 10.1.0.5/24\n"),
        (
            "/etc/resolv.conf",
            "# ours\nsearch a.example\nnameserver\t10.1.0.53\nnameserver 8.8.8.8\noptions edns0\n"
        ),
        (
            "/etc/hosts",
            "127.0.0.1\tlocalhost\n127.0.1.1 web01\n10.1.0.5   web01.a.example web01 # own\n10.1.0.99 db01\n::1 localhost\n",
        ),
    ]));
    let linked = MemTree::new()
        .file("/etc/network/interfaces", "iface ens192 inet static\n address 10.1.0.5/24\n")
        .file("/run/resolv.conf", "nameserver 10.1.0.53\n")
        .symlink("/etc/resolv.conf", "../run/resolv.conf");
    let plan = run(&linked, vec![subnets(), servers()]);
    assert_eq!(
        (after(&plan, "/etc/resolv.conf"), ids(&plan).contains(&"linux-readdress-unplaced")),
        (None, true)
    );
}

#[test]
fn rules_are_for_some_interfaces() {
    let file = "/etc/network/interfaces";
    let tree = MemTree::new().file(
        file,
        "iface ens192 inet static\n address 10.1.0.5/24\niface bond0 inet static\n address 10.1.0.6/24\n bond-slaves ens224\n\
         iface bond0.7 inet static\n address 10.1.0.7/24\n",
    );
    let to = |third: &str| Rule {
        subnets: vec![("10.1.0.0/16".parse().unwrap(), format!("10.{third}.0.0/16").parse().unwrap())],
        ..Rule::default()
    };
    let addresses = |rules: Vec<Rule>| {
        let plan = run(&tree, rules);
        after(&plan, file).map(|text| {
            let words = text.lines().filter_map(|line| line.strip_prefix(" address ")?.strip_suffix("/24"));
            words.map(str::to_owned).collect::<Vec<_>>().join(" ")
        })
    };
    let by_card = Rule { cards: Some(vec![1]), ..to("3") };
    assert_eq!(addresses(vec![to("2"), by_card.clone()]).unwrap(), "10.2.0.5 10.3.0.6 10.3.0.7");
    assert_eq!(addresses(vec![by_card]).unwrap(), "10.1.0.5 10.3.0.6 10.3.0.7");
    let by_name = Rule { interface: Some("bond0.*".into()), ..to("4") };
    assert_eq!(addresses(vec![to("2"), by_name]).unwrap(), "10.2.0.5 10.2.0.6 10.4.0.7");
    assert_eq!(addresses(vec![Rule { interface: Some("eth*".into()), ..to("4") }]), None);
    assert_eq!(addresses(vec![Rule { cards: Some(vec![]), ..to("4") }]), None);
}

#[test]
fn what_does_not_work_out_is_told() {
    let interfaces = |text: &str| MemTree::new().file("/etc/network/interfaces", text);
    let two = interfaces(
        "iface ens192 inet static\n address 10.1.0.5/24\niface ens224 inet static\n address 10.2.0.5/24\n",
    );
    let plan = run(&two, vec![subnets()]);
    assert!(plan.is_blocked());
    assert_eq!(
        ids(&plan),
        ["linux-readdress-duplicate", "linux-readdress-unmapped", "linux-readdress-scope"]
    );
    // Of two that are moved into one another, by a single address.
    let one = Rule {
        addresses: vec![(
            "10.7.0.5".parse().unwrap(),
            Host { ip: "10.2.0.5".parse().unwrap(), prefix: None },
        )],
        ..subnets()
    };
    let both = interfaces(
        "iface ens192 inet static\n address 10.1.0.5/24\niface ens224 inet static\n address 10.7.0.5/24\n",
    );
    assert_eq!(ids(&run(&both, vec![one]))[0], "linux-readdress-duplicate");
    let crowded = interfaces("iface ens192 inet static\n address 10.7.0.200/24\n");
    let plan = run(&crowded, vec![subnets()]);
    assert_eq!((ids(&plan), plan.is_blocked()), (vec!["linux-readdress-no-room"], true));
    let swap = Rule {
        subnets: vec![
            ("10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap()),
            ("10.2.0.0/16".parse().unwrap(), "10.1.0.0/16".parse().unwrap()),
        ],
        ..Rule::default()
    };
    let plan = run(&two, vec![swap]);
    assert_eq!(plan.moved.len(), 2, "each is moved once");
    assert_eq!(ids(&plan), ["linux-readdress-chain", "linux-readdress-chain", "linux-readdress-scope"]);
    let variable = MemTree::new()
        .file("/etc/sysconfig/network-scripts/ifcfg-ens192", "DEVICE=ens192\nIPADDR=$IP\nPREFIX=24\n");
    assert_eq!(ids(&run(&variable, vec![subnets()])), ["linux-readdress-unclear"]);
    let automatic = interfaces("iface ens192 inet dhcp\n");
    let plan = run(&automatic, vec![subnets(), servers()]);
    assert_eq!(ids(&plan), ["linux-readdress-unplaced"; 3]);
    assert!(plan.findings.iter().all(|finding| finding.severity == Severity::Notes));
    assert!(run(&automatic, vec![dhcp()]).findings.is_empty());
    assert!(plan.moved.iter().all(|moved| moved.what != What::Address));
}

mod gateways;
mod places;
pub(in crate::linux::network) mod readers;
mod routes;

mod hostile {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_file_panics_and_a_second_pass_is_quiet(
            text in "(iface ens192 inet static\n|iface ens192:1 inet static\n|auto ens192:1\n| up ip route add default via | \\|\\| true|; |routing-rule1=from |networkmanager: \\{passthrough: \\{ipv4\\.|IPADDR=|address |10\\.1\\.0\\.5|/16|\n|\"|'|gateway |dns-nameservers |\\[Network\\]\n|Address=|DNS=|network:|\n  |- |<local>|é|\\\\|#| via |[a-z:{},])*",
            map in 0usize..3,
        ) {
            let rules = || vec![vec![subnets()], vec![subnets(), servers()], vec![subnets(), dhcp()]].swap_remove(map);
            let paths = [
                "/etc/network/interfaces",
                "/etc/sysconfig/network-scripts/ifcfg-ens192",
                "/etc/sysconfig/network-scripts/route-ens192",
                "/etc/sysconfig/network/ifroute-ens192",
                "/etc/wicked/ifconfig/a.xml",
                "/etc/NetworkManager/system-connections/a.nmconnection",
                "/etc/netplan/a.yaml",
                "/etc/systemd/network/a.network",
                "/etc/resolv.conf",
                "/etc/hosts",
            ];
            for path in paths {
                let tree = MemTree::new().file(path, &text);
                let plan = run(&tree, rules());
                if let Some(new) = after(&plan, path) {
                    let plan = run(&MemTree::new().file(path, &new), rules());
                    prop_assert_eq!(after(&plan, path), None, "{}", new);
                }
            }
        }
    }
}
