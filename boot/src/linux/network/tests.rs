use super::*;
use crate::family::Scene;
use crate::patch::{Action, PatchPlan};
use crate::target::Nic;
use crate::tree::mem::MemTree;

const A: &str = "00:50:56:00:00:0a";
const B: &str = "00:50:56:00:00:0b";

fn nics(list: &[(&str, &str)]) -> Request {
    let nic = |(mac, name): &(&str, &str)| Nic {
        mac: (!mac.is_empty()).then(|| (*mac).to_owned()),
        source_name: (!name.is_empty()).then(|| (*name).to_owned()),
        ..Nic::default()
    };
    Request { nics: list.iter().map(nic).collect(), ..Request::default() }
}

fn run(tree: &MemTree, request: &Request) -> (PatchPlan, Vec<InitramfsFile>) {
    let scene = Scene { tree, volumes: &[], mounts: &[] };
    let mut draft = Draft::new(&scene);
    let mut inside = Vec::new();
    plan(&mut draft, &Packages::default(), request, &mut inside).unwrap();
    (draft.finish(), inside)
}

/// `ens192=…0a` for every link file, then the ids of the findings.
fn outcome(tree: &MemTree, request: &Request) -> (Vec<String>, Vec<&'static str>) {
    let (plan, inside) = run(tree, request);
    let mut links = Vec::new();
    for edit in &plan.edits {
        if let (true, Action::Write { contents, .. }) = (edit.path.ends_with(".link"), &edit.action) {
            let text = String::from_utf8(contents.0.clone()).unwrap();
            let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
            links.push(format!("{}={}", value("Name="), value("MACAddress=00:50:56:00:00:")));
            let name = edit.path.rsplit('/').next().unwrap();
            assert!(inside.iter().any(|file| file.path.ends_with(name)), "{name} is inside the initramfs");
        }
    }
    (links, plan.findings.iter().map(|finding| finding.id).collect())
}

fn interfaces_file(text: &str) -> MemTree {
    MemTree::new().file("/etc/network/interfaces", text)
}

#[test]
fn one_static_name_on_one_card() {
    let tree = interfaces_file(
        "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n\nauto ens192\niface ens192 inet static\n\taddress 10.0.2.5\n\tnetmask 255.255.255.0\n\tgateway 10.0.2.2\n",
    );
    let (plan, inside) = run(&tree, &nics(&[(A, "ens192")]));
    insta::assert_json_snapshot!((plan, inside));
    let network = read(&tree, &Packages::default()).unwrap();
    let facts = interfaces(&network);
    assert_eq!(
        (facts[0].name.as_str(), facts[0].addresses.as_slice()),
        ("ens192", &["10.0.2.5/24".to_owned()][..])
    );
}

#[test]
fn evidence_is_weighed() {
    let static_ens = "iface ens192 inet dhcp\n";
    #[allow(clippy::type_complexity)] // a table: what, tree, request, links, findings
    let cases: &[(&str, MemTree, Request, &[&str], &[&str])] = &[
        ("left over", interfaces_file(static_ens), nics(&[(A, "")]), &["ens192=0a"], &[]),
        ("two cards, one name by slot", interfaces_file(static_ens), nics(&[(B, "ens224"), (A, "ens192")]), &["ens192=0a"], &[]),
        ("two cards, no slot", interfaces_file(static_ens), nics(&[(A, ""), (B, "")]), &[], &["linux-nic-ambiguous"]),
        ("no address", interfaces_file(static_ens), nics(&[("", "ens192")]), &[], &["linux-nic-no-mac"]),
        ("no card", interfaces_file(static_ens), nics(&[]), &[], &["linux-nic-none"]),
        (
            "eth by order",
            interfaces_file("iface eth0 inet dhcp\niface eth1 inet manual\niface eth1:1 inet static\n address 10.0.0.1/8\n"),
            nics(&[(A, "ens192"), (B, "ens224")]),
            &["eth0=0a", "eth1=0b"],
            &["linux-nic-by-order"],
        ),
        (
            "bond, bridge and VLAN: the members only",
            interfaces_file(
                "auto bond0\niface bond0 inet manual\n  bond-slaves ens192 ens224\n  bond_mode 1\niface bond0.10 inet static\n address 10.0.0.5/24\niface br0 inet dhcp\n bridge_ports bond0.20\n",
            ),
            nics(&[(A, "ens192"), (B, "ens224")]),
            &["ens192=0a", "ens224=0b"],
            &[],
        ),
        (
            "address in the configuration beats the slot",
            interfaces_file("iface lan0 inet dhcp\n hwaddress ether 00:50:56:00:00:0B\n"),
            nics(&[(A, "ens192"), (B, "ens224")]),
            &["lan0=0b"],
            &[],
        ),
        (
            "history that no card has",
            interfaces_file("iface ens192 inet dhcp\niface eth7 inet dhcp\n"),
            nics(&[(A, "ens192")]),
            &["ens192=0a"],
            &["linux-nic-extra-config"],
        ),
        (
            "a hostile name is not a name",
            interfaces_file("iface e\";x inet dhcp\niface ../../x inet dhcp\niface averyveryverylongname0 inet dhcp\n"),
            nics(&[(A, "ens192")]),
            &[],
            &[],
        ),
        (
            "a rule by address keeps the name",
            interfaces_file("iface eth0 inet dhcp\n").file(
                "/etc/udev/rules.d/70-persistent-net.rules",
                format!("SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{{address}}==\"{A}\", NAME=\"eth0\"\n"),
            ),
            nics(&[(A, "ens192")]),
            &[],
            &[],
        ),
        (
            "netplan by name",
            MemTree::new().file("/etc/netplan/00-installer-config.yaml", "# x\nnetwork:\n  ethernets:\n    ens160:\n      dhcp4: true\n    ens192:\n      addresses: [10.0.0.5/24]\n  version: 2\n"),
            nics(&[(A, "ens160"), (B, "ens192")]),
            &["ens160=0a", "ens192=0b"],
            &[],
        ),
        (
            "netplan by address keeps itself",
            MemTree::new().file("/etc/netplan/50-cloud-init.yaml", format!("network:\n    ethernets:\n        ens192:\n            dhcp4: true\n            match:\n                macaddress: {A}\n            set-name: ens192\n    version: 2\n")),
            nics(&[(A, "ens192")]),
            &[],
            &[],
        ),
        (
            "netplan renames a slot",
            MemTree::new().file("/etc/netplan/x.yaml", "network: {ethernets: {e: {match: {name: ens192}, set-name: lan0}}}"),
            nics(&[(A, "ens224"), (B, "ens192")]),
            &["lan0=0b"],
            &[],
        ),
        (
            "netplan by address and by slot: the slot is gone, so it does not keep itself",
            MemTree::new().file("/etc/netplan/x.yaml", format!("network: {{ethernets: {{e: {{match: {{macaddress: '{A}', name: 'ens1*'}}, set-name: lan0}}}}}}")),
            nics(&[(A, "ens192")]),
            &["lan0=0a"],
            &[],
        ),
        (
            "netplan by a lost address",
            MemTree::new().file("/etc/netplan/x.yaml", "network: {ethernets: {e: {match: {macaddress: '00:50:56:00:00:99'}}}}"),
            nics(&[(A, "ens192")]),
            &[],
            &["linux-nic-mac-unknown"],
        ),
        (
            "netplan by driver, with a bond beside it",
            MemTree::new().file("/etc/netplan/x.yaml", "network: {ethernets: {e: {match: {driver: vmxnet3}}, ens192: {}}, bonds: {bond0: {interfaces: [ens192]}}, vlans: {vlan5: {id: 5, link: bond0}}}"),
            nics(&[(A, "ens192")]),
            &["ens192=0a"],
            &["linux-network-by-driver"],
        ),
        (
            "broken netplan",
            MemTree::new().file("/etc/netplan/x.yaml", "network: [\n"),
            nics(&[(A, "ens192")]),
            &[],
            &["linux-file-unreadable"],
        ),
        (
            "networkd by pattern that fits anything",
            MemTree::new().file("/etc/systemd/network/lan.network", "[Match]\nName=en*\n[Network]\nDHCP=yes\n"),
            nics(&[(A, "ens192")]),
            &[],
            &[],
        ),
        (
            "networkd by pattern that fits the old name only",
            MemTree::new().file("/etc/systemd/network/lan.network", "[Match]\nName=ens1*\n[Network]\nDHCP=yes\n"),
            nics(&[(A, "ens192")]),
            &["ens192=0a"],
            &[],
        ),
        (
            "networkd bridge from netdev",
            MemTree::new()
                .file("/etc/systemd/network/br.netdev", "[NetDev]\nName=lan\nKind=bridge\n")
                .file("/etc/systemd/network/br.network", "[Match]\nName=lan\n")
                .file("/etc/systemd/network/up.network", "[Match]\nName=ens192\n[Network]\nBridge=lan\n"),
            nics(&[(A, "ens192")]),
            &["ens192=0a"],
            &[],
        ),
        (
            "NetworkManager",
            MemTree::new()
                .file("/etc/NetworkManager/system-connections/a.nmconnection", "[connection]\ntype=ethernet\ninterface-name=ens192\n[ipv4]\nmethod=manual\naddress1=10.0.0.5/24,10.0.0.1\n")
                .file("/etc/NetworkManager/system-connections/b.nmconnection", format!("[connection]\ntype=802-3-ethernet\n[ethernet]\nmac-address={}\n", B.to_uppercase()))
                .file("/etc/NetworkManager/system-connections/w.nmconnection", "[connection]\ntype=wifi\ninterface-name=x\n"),
            nics(&[(A, "ens192"), (B, "ens224")]),
            &["ens192=0a"],
            &[],
        ),
    ];
    for (what, tree, request, links, findings) in cases {
        let (found_links, found) = outcome(tree, request);
        assert_eq!(found_links, *links, "{what}");
        assert_eq!(found, *findings, "{what}");
    }
}

#[test]
fn sources_may_loop() {
    let tree = interfaces_file("source interfaces\nsource-directory /etc/network/interfaces.d\n")
        .file("/etc/network/interfaces.d/a", "source /etc/network/interfaces.d/*\niface ens192 inet dhcp\n")
        .file("/etc/network/interfaces.d/b.dpkg-old", "iface ens9 inet dhcp\n");
    let network = read(&tree, &Packages::default()).unwrap();
    let names: Vec<_> = network.configured.iter().map(|one| one.name.as_str()).collect();
    // The pattern of `source` takes every name, source-directory only plain ones.
    assert_eq!(names, ["ens9", "ens192"]);
}

#[test]
fn a_second_run_changes_nothing() {
    let mut tree = interfaces_file("iface ens192 inet dhcp\niface eth5 inet dhcp\n").file(
        "/etc/udev/rules.d/70-persistent-net.rules",
        "SUBSYSTEM==\"net\", KERNELS==\"0000:03:00.0\", NAME=\"ens192\"\r\n",
    );
    let request = nics(&[(A, "ens192"), (B, "ens224")]);
    let (plan, first) = run(&tree, &request);
    assert_eq!(plan.edits.len(), 5 - 1, "{plan:?}");
    let changes: Vec<_> = plan
        .edits
        .iter()
        .map(|edit| match &edit.action {
            Action::Write { contents, mode } => {
                crate::apply::Change::Put { path: edit.path.clone(), bytes: contents.0.clone(), mode: *mode }
            }
            other => panic!("{other:?}"),
        })
        .collect();
    tree.apply(&changes).unwrap();
    let rule = tree.read_text("/etc/udev/rules.d/70-persistent-net.rules").unwrap().unwrap();
    assert_eq!(rule, format!("SUBSYSTEM==\"net\", ATTR{{address}}==\"{A}\", NAME=\"ens192\"\r\n"));
    let (plan, _) = run(&tree, &request);
    assert_eq!(plan.edits, [], "{:?}", first);
}

fn ifcfg(name: &str, text: &str) -> MemTree {
    MemTree::new().file(&format!("/etc/sysconfig/network-scripts/ifcfg-{name}"), text)
}

fn suse(name: &str, text: &str) -> MemTree {
    MemTree::new().file(&format!("/etc/sysconfig/network/ifcfg-{name}"), text)
}

#[test]
fn ifcfg_files_and_leases_are_evidence() {
    let both = || nics(&[(A, "ens192"), (B, "ens224")]);
    let nameless = || nics(&[(A, ""), (B, "")]);
    #[allow(clippy::type_complexity)] // a table: what, tree, request, links, findings
    let cases: &[(&str, MemTree, Request, &[&str], &[&str])] = &[
        ("by DEVICE", ifcfg("ens192", "DEVICE=ens192\nBOOTPROTO=dhcp\n"), both(), &["ens192=0a"], &[]),
        (
            "HWADDR decides, whatever the file is called",
            ifcfg("Wired", &format!("DEVICE=\"lan0\"\nHWADDR=\"{}\"\n", B.to_uppercase())),
            both(),
            &["lan0=0b"],
            &[],
        ),
        ("by HWADDR alone, no name is asked for", ifcfg("Wired", &format!("HWADDR={B}\nNAME=Wired\n")), both(), &[], &[]),
        (
            "HWADDR of a card that is gone",
            ifcfg("ens192", "DEVICE=ens192\nHWADDR=00:50:56:00:00:99\n"),
            both(),
            &["ens192=0a"],
            &["linux-nic-mac-unknown"],
        ),
        (
            "a bond, a bridge on it and a VLAN: only the members are cards",
            ifcfg("bond0", "DEVICE=bond0\nTYPE=Bond\nBONDING_MASTER=yes\nBRIDGE=br0\n")
                .file("/etc/sysconfig/network-scripts/ifcfg-br0", "DEVICE=br0\nTYPE=Bridge\nIPADDR=10.0.0.5\nPREFIX=24\n")
                .file("/etc/sysconfig/network-scripts/ifcfg-bond0.7", "DEVICE=bond0.7\nVLAN=yes\n")
                .file("/etc/sysconfig/network-scripts/ifcfg-vlan9", "DEVICE=vlan9\nVLAN=yes\nPHYSDEV=ens224\n")
                .file("/etc/sysconfig/network-scripts/ifcfg-ens192", "DEVICE=ens192\nMASTER=bond0\nSLAVE=yes\n")
                .file("/etc/sysconfig/network-scripts/ifcfg-ens224", "DEVICE=ens224\nTEAM_MASTER=team0\nDEVICETYPE=TeamPort\n")
                .file("/etc/sysconfig/network-scripts/ifcfg-lo", "DEVICE=lo\nIPADDR=127.0.0.1\n")
                .file("/etc/sysconfig/network-scripts/ifcfg-ens9.rpmsave", "DEVICE=ens9\n"),
            both(),
            &["ens192=0a", "ens224=0b"],
            &[],
        ),
        (
            "RHEL 6: a rule of the generator and HWADDR agree",
            ifcfg("eth0", &format!("DEVICE=eth0\nHWADDR={B}\n")).file(
                "/etc/udev/rules.d/70-persistent-net.rules",
                format!("SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{{address}}==\"{B}\", ATTR{{type}}==\"1\", KERNEL==\"eth*\", NAME=\"eth0\"\n"),
            ),
            both(),
            &[],
            &[],
        ),
        (
            "eth0 is the second card: the kernel's names are in the way",
            ifcfg("eth0", &format!("DEVICE=eth0\nHWADDR={B}\n")),
            both(),
            &["eth0=0b"],
            &["linux-nic-swapped"],
        ),
        ("SUSE: by file name", suse("eth0", "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n"), nics(&[(A, "")]), &["eth0=0a"], &[]),
        (
            "SUSE: bond, bridge, VLAN",
            suse("bond0", "BONDING_MASTER='yes'\nBONDING_SLAVE0='ens192'\nBONDING_SLAVE_1='ens224'\n")
                .file("/etc/sysconfig/network/ifcfg-br0", "BRIDGE='yes'\nBRIDGE_PORTS='bond0'\nIPADDR='10.0.0.5/24'\n")
                .file("/etc/sysconfig/network/ifcfg-vlan7", "ETHERDEVICE='bond0'\nVLAN_ID='7'\n")
                .file("/etc/sysconfig/network/ifcfg.template", "IPADDR=''\n"),
            both(),
            &["ens192=0a", "ens224=0b"],
            &[],
        ),
        ("SUSE 9: the file names the card", suse(&format!("eth-id-{B}"), "BOOTPROTO='dhcp'\n"), both(), &[], &[]),
        (
            "wicked's XML",
            MemTree::new().file(
                "/etc/wicked/ifconfig/all.xml",
                "<interface>\n <name>ens192</name>\n <ipv4:dhcp/>\n</interface>\n<interface><name>br0</name><bridge><ports><port><device>ens224</device></port></ports></bridge></interface>",
            ),
            both(),
            &["ens192=0a", "ens224=0b"],
            &[],
        ),
        (
            "a lease knows the card",
            interfaces_file("iface lan0 inet dhcp\n").file(
                "/var/lib/NetworkManager/internal-2d1a6ee1-27ba-4a5a-8b2a-5c5e6d0e8f1f-lan0.lease",
                "ADDRESS=10.1.0.5\nCLIENTID=0100505600000b\n",
            ),
            nameless(),
            &["lan0=0b"],
            &[],
        ),
        (
            "a lease of a card that is gone knows nothing",
            interfaces_file("iface lan0 inet dhcp\n").file(
                "/var/lib/NetworkManager/internal-2d1a6ee1-27ba-4a5a-8b2a-5c5e6d0e8f1f-lan0.lease",
                "CLIENTID=01005056000099\n",
            ),
            nameless(),
            &[],
            &["linux-nic-ambiguous"],
        ),
        (
            "ifupdown-ng",
            interfaces_file("auto bond0\niface bond0\n use bond\n requires ens192 ens224\n address 10.0.0.5/24\n"),
            both(),
            &["ens192=0a", "ens224=0b"],
            &[],
        ),
        (
            "NetworkManager: bond ports and a VLAN, the parent by UUID",
            MemTree::new()
                .file("/etc/NetworkManager/system-connections/bond0.nmconnection", "[connection]\nid=bond0\ntype=bond\ninterface-name=bond0\n")
                .file("/etc/NetworkManager/system-connections/p1.nmconnection", "[connection]\ntype=ethernet\ninterface-name=ens192\nmaster=bond0\nslave-type=bond\n")
                .file("/etc/NetworkManager/system-connections/p2.nmconnection", format!("[connection]\ntype=ethernet\ncontroller=2d1a6ee1-27ba-4a5a-8b2a-5c5e6d0e8f1f\nport-type=bond\n[ethernet]\nmac-address={B}\n"))
                .file("/etc/NetworkManager/system-connections/v.nmconnection", "[connection]\ntype=vlan\ninterface-name=vlan7\n[vlan]\nid=7\nparent=2d1a6ee1-27ba-4a5a-8b2a-5c5e6d0e8f1f\n"),
            both(),
            &["ens192=0a"],
            &[],
        ),
        (
            "NetworkManager: a profile for whatever card there is",
            MemTree::new().file("/etc/NetworkManager/system-connections/any.nmconnection", "[connection]\ntype=ethernet\nautoconnect=true\n[ipv4]\nmethod=auto\n"),
            both(),
            &[],
            &[],
        ),
        (
            "NetworkManager: match by one pattern, and by several",
            MemTree::new()
                .file("/etc/NetworkManager/system-connections/m.nmconnection", "[connection]\ntype=ethernet\n[match]\ninterface-name=ens1*;\n")
                .file("/etc/NetworkManager/system-connections/n.nmconnection", "[connection]\ntype=ethernet\n[match]\ninterface-name=ens1*;eth*;\n"),
            both(),
            &["ens192=0a"],
            &[],
        ),
    ];
    for (what, tree, request, links, findings) in cases {
        let (found_links, found) = outcome(tree, request);
        assert_eq!(found_links, *links, "{what}");
        assert_eq!(found, *findings, "{what}");
    }
}

#[test]
fn ifcfg_facts() {
    let tree = ifcfg("ens192", "DEVICE=ens192\nIPADDR0=10.0.0.5\nPREFIX0=24\nIPADDR1=10.0.1.5\nNETMASK1=255.255.0.0\nIPV6ADDR=2001:db8::5/64\n")
        .file("/etc/sysconfig/network/ifcfg-eth0", "IPADDR='10.0.2.5/24'\nIPADDR_1='10.0.3.5'\nNETMASK_1='255.255.255.0'\n");
    let facts = interfaces(&read(&tree, &Packages::default()).unwrap());
    let addresses: Vec<_> = facts.iter().map(|one| (one.name.as_str(), one.addresses.join(" "))).collect();
    assert_eq!(
        addresses,
        [
            ("ens192", "10.0.0.5/24 10.0.1.5/16 2001:db8::5/64".to_owned()),
            ("eth0", "10.0.2.5/24 10.0.3.5/24".to_owned())
        ]
    );
}

/// Azure gives every card a new hardware address.
#[test]
fn on_azure_no_name_hangs_on_a_hardware_address() {
    use crate::target::Platform;
    let azure = |list| Request { platform: Platform::Azure, ..nics(list) };
    let one = || azure(&[(A, "ens192")]);
    let said = |plan: &PatchPlan, id: &str| {
        plan.findings.iter().filter(|one| one.id == id).map(|one| one.says.clone()).collect::<Vec<_>>()
    };
    let text = |plan: &PatchPlan, end: &str| {
        plan.edits.iter().find(|edit| edit.path.ends_with(end)).map(|edit| match &edit.action {
            Action::Write { contents, .. } => String::from_utf8(contents.0.clone()).unwrap(),
            other => panic!("{other:?}"),
        })
    };
    // One card: by its driver.
    let (plan, _) = run(&interfaces_file("iface ens192 inet dhcp\n"), &one());
    let link = text(&plan, "10-landfall-ens192.link").unwrap();
    assert!(link.contains("\nDriver=hv_netvsc\n") && !link.contains(A), "{link}");
    let rules = text(&plan, RULES).unwrap();
    assert!(rules.contains("DRIVERS==\"hv_netvsc\"") && !rules.contains(A), "{rules}");
    assert!(plan.findings.is_empty(), "{:?}", plan.findings);
    // A rule of the guest that gives the name by the old address does not do it.
    let by_rule = interfaces_file("iface eth5 inet dhcp\n").file(
        "/etc/udev/rules.d/70-persistent-net.rules",
        format!("SUBSYSTEM==\"net\", ATTR{{address}}==\"{A}\", NAME=\"eth5\"\n"),
    );
    assert!(text(&run(&by_rule, &one()).0, "10-landfall-eth5.link").is_some());
    // Several: nothing tells them apart.
    let two = azure(&[(A, "ens192"), (B, "ens224")]);
    let (plan, _) = run(&interfaces_file("iface ens192 inet dhcp\niface ens224 inet dhcp\n"), &two);
    assert_eq!(plan.edits, []);
    assert_eq!(
        said(&plan, "linux-nic-new-address"),
        [
            "The target gives every card a new hardware address, and the machine has 2 of them: the names ens192, ens224 cannot be kept by it."
        ]
    );
    // What looks for an address itself.
    for (tree, name) in [
        (
            MemTree::new().file(
                "/etc/netplan/x.yaml",
                format!("network: {{ethernets: {{e: {{match: {{macaddress: '{A}'}}, dhcp4: true}}}}}}"),
            ),
            "/etc/netplan/x.yaml",
        ),
        (
            ifcfg("ens192", &format!("DEVICE=ens192\nHWADDR={A}\nBOOTPROTO=dhcp\n")),
            "/etc/sysconfig/network-scripts/ifcfg-ens192",
        ),
        (
            MemTree::new().file(
                "/etc/systemd/network/a.network",
                format!("[Match]\nMACAddress={A}\n[Network]\nDHCP=yes\n"),
            ),
            "/etc/systemd/network/a.network",
        ),
        (
            MemTree::new().file(
                "/etc/NetworkManager/system-connections/b",
                format!("[connection]\ntype=ethernet\n[ethernet]\nmac-address={A}\n[ipv4]\nmethod=auto\n"),
            ),
            "/etc/NetworkManager/system-connections/b",
        ),
    ] {
        let found = said(&run(&tree, &one()).0, "linux-nic-new-address");
        assert_eq!(
            found,
            [format!("{name} goes by the hardware address {A}; the target gives every card a new one.")]
        );
        let at_home = Request { platform: Platform::Hyperv, ..one() };
        assert!(said(&run(&tree, &at_home).0, "linux-nic-new-address").is_empty());
    }
    // What is fixed in the guest is not what the target's network expects.
    let fixed = interfaces_file(
        "iface ens192 inet static\n address 10.1.0.5/24\niface ens192 inet6 static\n address 2001:db8::5/64\n",
    );
    let (plan, _) = run(&fixed, &one());
    assert_eq!(
        said(&plan, "linux-network-static"),
        [
            "ens192 has the address 10.1.0.5/24 in the guest (/etc/network/interfaces), and the target's network gives addresses by DHCP."
        ]
    );
    let map = crate::network_map::NetworkMap {
        rules: vec![crate::network_map::Rule { dhcp: Some(true), ..Default::default() }],
    };
    let (plan, _) = run(&fixed, &Request { network_map: Some(map), ..one() });
    assert!(said(&plan, "linux-network-static").is_empty(), "{:?}", plan.findings);
}
