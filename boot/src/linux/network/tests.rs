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
