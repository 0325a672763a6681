//! Guests of every configuration system whose cards get other addresses; a second pass; what cannot be followed.

use super::*;
use crate::apply::Change;
use crate::family::Scene;
use crate::linux::packages::Packages;
use crate::network_map::{NetworkMap, Rule};
use crate::patch::{Action, PatchPlan};
use crate::target::{Nic, Platform};
use crate::testing::written;
use crate::tree::GuestTreeExt;
use crate::tree::mem::MemTree;

const A: &str = "00:50:56:00:00:0a";
const B: &str = "00:50:56:00:00:0b";
const NEW_A: &str = "52:54:00:12:34:56";
const NEW_B: &str = "52:54:00:ab:cd:ef";

fn cards(list: &[(&str, &str, &str)]) -> Request {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let nic = |(mac, name, new): &(&str, &str, &str)| Nic {
        mac: some(mac),
        source_name: some(name),
        new_mac: some(new),
    };
    Request { nics: list.iter().map(nic).collect(), ..Request::default() }
}

/// Two cards that get other addresses.
fn both() -> Request {
    cards(&[(A, "ens192", NEW_A), (B, "ens224", NEW_B)])
}

fn run_with(tree: &MemTree, request: &Request) -> (PatchPlan, Vec<InitramfsFile>, Vec<(String, String)>) {
    let scene = Scene { tree, volumes: &[], mounts: &[] };
    let mut draft = Draft::new(&scene);
    let mut inside = Vec::new();
    super::super::plan(&mut draft, &Packages::default(), request, &mut inside).unwrap();
    let addresses = draft.addresses_inside.clone();
    (draft.finish(), inside, addresses)
}

fn run(tree: &MemTree, request: &Request) -> PatchPlan {
    run_with(tree, request).0
}

fn apply(tree: &mut MemTree, plan: &PatchPlan) {
    let change = |edit: &crate::patch::Edit| match &edit.action {
        Action::Write { contents, mode } => {
            Change::Put { path: edit.path.clone(), bytes: contents.0.clone(), mode: *mode }
        }
        Action::Remove => Change::Remove { path: edit.path.clone() },
        other => panic!("{other:?}"),
    };
    tree.apply(&plan.edits.iter().map(change).collect::<Vec<_>>()).unwrap();
}

fn ids(plan: &PatchPlan) -> Vec<&'static str> {
    plan.findings.iter().map(|finding| finding.id).collect()
}

fn says(plan: &PatchPlan, id: &str) -> Vec<String> {
    plan.findings.iter().filter(|one| one.id == id).map(|one| one.says.clone()).collect()
}

/// The places in which an old address still is.
fn left(tree: &MemTree) -> Vec<&str> {
    let changes = Changes::new(&[A, B].map(|mac| (mac.to_owned(), NEW_A.to_owned())));
    let holds = |bytes: &[u8]| text::lines(bytes).any(|(body, _)| changes.find(body).is_some());
    tree.paths().filter(|(_, file)| file.is_some_and(holds)).map(|(path, _)| path).collect()
}

/// One pass leaves no old address, a second changes nothing, and one that goes on to the next target or back finds its way.
fn passes(what: &str, tree: &MemTree, request: &Request) -> MemTree {
    let mut patched = tree.clone();
    apply(&mut patched, &run(tree, request));
    assert_eq!(left(&patched), [""; 0], "{what}");
    let again = run(&patched, request);
    assert_eq!(again.edits, [], "{what}");
    assert!(!ids(&again).contains(&"linux-nic-mac-unknown"), "{what}: {:?}", again.findings);
    // The next target's source is this target.
    let mut next = request.clone();
    for nic in &mut next.nics {
        let next_mac = nic.new_mac.as_ref().map(|mac| mac.replace("52:54:00", "00:15:5d"));
        nic.mac = nic.new_mac.take();
        nic.new_mac = next_mac;
    }
    let mut there = patched.clone();
    apply(&mut there, &run(&patched, &next));
    let changes = Changes::new(&[NEW_A, NEW_B].map(|mac| (mac.to_owned(), A.to_owned())));
    for (path, file) in there.paths() {
        let holds = file.is_some_and(|file| text::lines(file).any(|(body, _)| changes.find(body).is_some()));
        assert!(!holds, "{what}: {path} has an address of the target before");
    }
    // And home, to the first addresses, all names on the cards that had them.
    for (nic, home) in next.nics.iter_mut().zip(&request.nics) {
        (nic.mac, nic.new_mac) = (nic.new_mac.take(), home.mac.clone());
    }
    let mut home = there.clone();
    apply(&mut home, &run(&there, &next));
    let mut kept = request.clone();
    kept.nics.iter_mut().for_each(|nic| nic.new_mac = None);
    let mut plain = tree.clone();
    apply(&mut plain, &run(tree, &kept));
    let text = |tree: &MemTree, path: &str| {
        let file =
            tree.paths().find(|(known, _)| *known == path).and_then(|(_, file)| file).unwrap_or_default();
        // Quotes of a number and leading zeros do not come back.
        String::from_utf8_lossy(file)
            .replace('"', "")
            .replace("=0:50:56:0:0:a", "=00:50:56:00:00:0a")
            .to_owned()
    };
    for (path, _) in plain.paths() {
        assert_eq!(text(&home, path), text(&plain, path), "{what}: {path}");
    }
    patched
}

#[test]
fn every_system_follows() {
    let nm = "/etc/NetworkManager/system-connections/lan.nmconnection";
    let rhel = "/etc/sysconfig/network-scripts/ifcfg-lan0";
    let suse = "/etc/sysconfig/network/ifcfg-lan0";
    for (path, before, after) in [
        (
            nm,
            "# was 00:50:56:00:00:0A\n[connection]\ntype=ethernet\ninterface-name=lan0\n[ethernet]\nmac-address=00:50:56:00:00:0A\ncloned-mac-address=00:50:56:00:00:0A\nmac-address-blacklist=00:50:56:00:00:0B;\n",
            "# was 00:50:56:00:00:0A\n[connection]\ntype=ethernet\ninterface-name=lan0\n[ethernet]\nmac-address=52:54:00:12:34:56\ncloned-mac-address=52:54:00:12:34:56\nmac-address-blacklist=52:54:00:AB:CD:EF;\n",
        ),
        (
            "/etc/NetworkManager/conf.d/a.conf",
            "[device-lan]\nmatch-device=mac:00:50:56:00:00:0b\n[keyfile]\nunmanaged-devices=mac:00:50:56:00:00:0a;interface-name:x\n",
            "[device-lan]\nmatch-device=mac:52:54:00:ab:cd:ef\n[keyfile]\nunmanaged-devices=mac:52:54:00:12:34:56;interface-name:x\n",
        ),
        ("/var/lib/NetworkManager/no-auto-default.state", "00:50:56:00:00:0B,\n", "52:54:00:AB:CD:EF,\n"),
        (
            rhel,
            "DEVICE=lan0\r\nHWADDR=\"00:50:56:00:00:0B\" # port 2\r\nMACADDR=00:50:56:00:00:0b\r\n",
            "DEVICE=lan0\r\nHWADDR=\"52:54:00:AB:CD:EF\" # port 2\r\nMACADDR=52:54:00:ab:cd:ef\r\n",
        ),
        (
            "/etc/sysconfig/hwconf",
            "-\nclass: NETWORK\nnetwork.hwaddr: 00:50:56:00:00:0a\n",
            "-\nclass: NETWORK\nnetwork.hwaddr: 52:54:00:12:34:56\n",
        ),
        (
            suse,
            "BOOTPROTO='static'\nLLADDR='00:50:56:00:00:0a'\n",
            "BOOTPROTO='static'\nLLADDR='52:54:00:12:34:56'\n",
        ),
        (
            "/etc/wicked/ifconfig/lan.xml",
            "<interface>\n <name>lan0</name>\n <link><address>00:50:56:00:00:0a</address></link>\n</interface>\n",
            "<interface>\n <name>lan0</name>\n <link><address>52:54:00:12:34:56</address></link>\n</interface>\n",
        ),
        (
            "/etc/netplan/50-cloud-init.yaml",
            "network:\n  version: 2\n  ethernets:\n    lan0:\n      match:\n        macaddress: 00:50:56:00:00:0a # card 1\n      set-name: lan0\n    lan1:\n      match: {macaddress: '00:50:56:00:00:0B'}\n      macaddress: 00:50:56:00:00:0b\n",
            "network:\n  version: 2\n  ethernets:\n    lan0:\n      match:\n        macaddress: \"52:54:00:12:34:56\" # card 1\n      set-name: lan0\n    lan1:\n      match: {macaddress: '52:54:00:AB:CD:EF'}\n      macaddress: 52:54:00:ab:cd:ef\n",
        ),
        (
            "/etc/systemd/network/10-lan.link",
            "[Match]\nMACAddress=00:50:56:00:00:0a 00-50-56-00-00-0b\nPermanentMACAddress=0050.5600.000a\n[Link]\nName=lan0\n",
            "[Match]\nMACAddress=52:54:00:12:34:56 52-54-00-ab-cd-ef\nPermanentMACAddress=5254.0012.3456\n[Link]\nName=lan0\n",
        ),
        (
            "/etc/systemd/network/10-lan.network.d/more.conf",
            "[Match]\nMACAddress=0:50:56:0:0:a\n",
            "[Match]\nMACAddress=52:54:00:12:34:56\n",
        ),
        (
            "/etc/systemd/network/bond0.netdev",
            "[NetDev]\nName=bond0\nKind=bond\nMACAddress=00:50:56:00:00:0a\n",
            "[NetDev]\nName=bond0\nKind=bond\nMACAddress=52:54:00:12:34:56\n",
        ),
        (
            "/etc/network/interfaces",
            "auto bond0\niface bond0 inet static\n\taddress 10.0.0.5/24\n\tbond-slaves ens192 ens224\n\thwaddress ether 00:50:56:00:00:0a\n\tup ip link set dev ens224 address 00:50:56:00:00:0b\n",
            "auto bond0\niface bond0 inet static\n\taddress 10.0.0.5/24\n\tbond-slaves ens192 ens224\n\thwaddress ether 52:54:00:12:34:56\n\tup ip link set dev ens224 address 52:54:00:ab:cd:ef\n",
        ),
        (
            "/etc/udev/rules.d/70-persistent-net.rules",
            "# PCI device 0x15ad:0x07b0 (vmxnet3)\nSUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:50:56:00:00:0b\", ATTR{type}==\"1\", KERNEL==\"eth*\", NAME=\"eth1\"\n",
            "# PCI device 0x15ad:0x07b0 (vmxnet3)\nSUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"52:54:00:ab:cd:ef\", ATTR{type}==\"1\", KERNEL==\"eth*\", NAME=\"eth1\"\n",
        ),
        (
            "/etc/cloud/cloud.cfg.d/50-network.cfg",
            "network:\n  version: 1\n  config:\n  - type: physical\n    name: lan0\n    mac_address: 00:50:56:00:00:0a\n",
            "network:\n  version: 1\n  config:\n  - type: physical\n    name: lan0\n    mac_address: \"52:54:00:12:34:56\"\n",
        ),
        ("/etc/iftab", "lan0 mac 00:50:56:00:00:0b\n", "lan0 mac 52:54:00:ab:cd:ef\n"),
        (
            "/etc/default/grub",
            "GRUB_CMDLINE_LINUX=\"quiet ifname=lan0:00:50:56:00:00:0a rd.neednet=1\"\n",
            "GRUB_CMDLINE_LINUX=\"quiet ifname=lan0:52:54:00:12:34:56 rd.neednet=1\"\n",
        ),
        (
            "/boot/grub/grub.cfg",
            "menuentry 'x' {\n\tlinux /vmlinuz root=UUID=1 BOOTIF=01-00-50-56-00-00-0b\n\tinitrd /initrd.img\n}\n",
            "menuentry 'x' {\n\tlinux /vmlinuz root=UUID=1 BOOTIF=01-52-54-00-ab-cd-ef\n\tinitrd /initrd.img\n}\n",
        ),
        (
            "/boot/grub/menu.lst",
            "# kopt=root=UUID=1 BOOTIF=01-00-50-56-00-00-0b\n# 00:50:56:00:00:0c\n",
            "# kopt=root=UUID=1 BOOTIF=01-52-54-00-ab-cd-ef\n# 00:50:56:00:00:0c\n",
        ),
        (
            "/boot/loader/entries/a.conf",
            "title a\noptions ip=lan0:dhcp:1500:00:50:56:00:00:0a\n",
            "title a\noptions ip=lan0:dhcp:1500:52:54:00:12:34:56\n",
        ),
        (
            "/etc/dracut.conf.d/net.conf",
            "kernel_cmdline+=\" ifname=lan0:00:50:56:00:00:0b \"\n",
            "kernel_cmdline+=\" ifname=lan0:52:54:00:ab:cd:ef \"\n",
        ),
        ("/etc/initramfs-tools/conf.d/net", "BOOTIF=01-00-50-56-00-00-0a\n", "BOOTIF=01-52-54-00-12-34-56\n"),
    ] {
        let tree = MemTree::new().file(path, before);
        let plan = run(&tree, &both());
        assert_eq!(written(&plan, path).as_deref(), Some(after), "{path}");
        for id in ["linux-nic-old-address", "linux-nic-mac-unknown", "linux-nic-address-refused"] {
            assert!(!ids(&plan).contains(&id), "{path}: {:?}", plan.findings);
        }
        // Comments are no configuration.
        if !before.contains("# was") {
            passes(path, &tree, &both());
        }
        // Where addresses stay nothing of this happens.
        let mut kept = both();
        kept.nics.iter_mut().for_each(|nic| nic.new_mac = None);
        assert_eq!(written(&run(&tree, &kept), path), None, "{path}");
    }
}

/// The length of GRUB's environment block stays.
#[test]
fn grubs_environment_follows() {
    let mut block =
        b"# GRUB Environment Block\nkernelopts=root=UUID=1 ifname=lan0:00:50:56:00:00:0a ro\n".to_vec();
    block.resize(1024, b'#');
    let tree = MemTree::new().file("/boot/grub2/grubenv", &block);
    let new = written(&run(&tree, &both()), "/boot/grub2/grubenv").unwrap();
    assert!(new.len() == 1024 && new.contains("ifname=lan0:52:54:00:12:34:56 ro\n#"), "{new}");
    let short = String::from_utf8(block).unwrap().replace(":00:00:0a ro\n##", ":0:0:a ro\n#####");
    let plan = run(&MemTree::new().file("/boot/grub2/grubenv", short), &both());
    assert_eq!(written(&plan, "/boot/grub2/grubenv"), None);
    assert_eq!(says(&plan, "linux-nic-old-address").len(), 1, "{:?}", plan.findings);
    // The card that it is about is named, not the first.
    let second = "kernelopts=ifname=lan1:0:50:56:0:0:b ro\n####\n";
    let plan = run(&MemTree::new().file("/boot/grub2/grubenv", second), &both());
    let says = says(&plan, "linux-nic-old-address");
    assert!(matches!(says.as_slice(), [one] if one.contains(B) && one.contains(NEW_B)), "{says:?}");
}

/// An identifier for DHCP beside an address does not hold the address back, whatever stands first.
#[test]
fn the_key_of_a_value_tells_what_it_is() {
    let netplan = "/etc/netplan/a.yaml";
    let nm = "/etc/NetworkManager/system-connections/a";
    for (path, before, after) in [
        (
            netplan,
            "network: {ethernets: {lan0: {match: {macaddress: 00:50:56:00:00:0b}, dhcp-identifier: duid}}}\n",
            "network: {ethernets: {lan0: {match: {macaddress: 52:54:00:ab:cd:ef}, dhcp-identifier: duid}}}\n",
        ),
        (
            netplan,
            "network: {\"ethernets\":{\"lan0\":{\"dhcp-identifier\":\"duid\",\"match\":{\"macaddress\":\"00:50:56:00:00:0b\"}}}}\n",
            "network: {\"ethernets\":{\"lan0\":{\"dhcp-identifier\":\"duid\",\"match\":{\"macaddress\":\"52:54:00:ab:cd:ef\"}}}}\n",
        ),
        (
            nm,
            "[ethernet]\nmac-address=00:50:56:00:00:0b # duid\n",
            "[ethernet]\nmac-address=52:54:00:ab:cd:ef # duid\n",
        ),
        (
            "/etc/conf.d/net",
            "clientid_lan0='00:50:56:00:00:0b' mac_lan0='00:50:56:00:00:0b'\n",
            "clientid_lan0='00:50:56:00:00:0b' mac_lan0='52:54:00:ab:cd:ef'\n",
        ),
        (
            "/etc/wicked/a.xml",
            "<client-id>00:50:56:00:00:0b</client-id><address>00:50:56:00:00:0b</address>\n",
            "<client-id>00:50:56:00:00:0b</client-id><address>52:54:00:ab:cd:ef</address>\n",
        ),
    ] {
        let plan = run(&MemTree::new().file(path, before), &both());
        assert_eq!(written(&plan, path).as_deref(), Some(after), "{path}");
        let is_told = ids(&plan).contains(&"linux-nic-identifier");
        assert_eq!(is_told, after.contains(B), "{path}: {:?}", plan.findings);
    }
    for kept in [
        "send dhcp-client-identifier 00:50:56:00:00:0b;",
        "ipv4.dhcp-client-id = 00:50:56:00:00:0b",
        "\tclient-id: x 00:50:56:00:00:0b",
        "dhcp-duid=\"00:50:56:00:00:0b\"",
    ] {
        let path = "/etc/netctl/a";
        let plan = run(&MemTree::new().file(path, kept), &both());
        assert_eq!(written(&plan, path), None, "{kept}");
        assert!(ids(&plan).contains(&"linux-nic-identifier"), "{kept}");
    }
}

fn bonded() -> MemTree {
    MemTree::new().files(&[
        (
            "/etc/netplan/00-installer-config.yaml",
            "# bond\nnetwork:\n  version: 2\n  ethernets:\n    ens192:\n      match:\n        macaddress: 00:50:56:00:00:0a\n      set-name: ens192\n    ens224: {}\n  bonds:\n    bond0:\n      interfaces: [ens192, ens224]\n      macaddress: 00:50:56:00:00:0a\n  vlans:\n    bond0.10:\n      id: 10\n      link: bond0\n      dhcp4: true\n",
        ),
        (
            "/etc/udev/rules.d/70-persistent-net.rules",
            "SUBSYSTEM==\"net\", ACTION==\"add\", ATTR{address}==\"00:50:56:00:00:0b\", KERNELS==\"0000:0b:00.0\", NAME=\"ens224\"\n",
        ),
        ("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"ifname=ens192:00:50:56:00:00:0a\"\n"),
        ("/etc/dhcp/dhclient.conf", "send dhcp-client-identifier 01:00:50:56:00:00:0b;\n"),
        ("/etc/licence.key", "SERVER web01 00505600000A 27000\n"),
    ])
}

/// A bond of two cards with a VLAN: the whole plan.
#[test]
fn a_bond_of_renewed_cards() {
    let tree = bonded();
    insta::assert_json_snapshot!(run_with(&tree, &both()));
    let mut patched = tree.clone();
    apply(&mut patched, &run(&tree, &both()));
    assert_eq!(left(&patched), ["/etc/dhcp/dhclient.conf", "/etc/licence.key"]);
    assert_eq!(run(&patched, &both()).edits, []);
}

/// One card keeps its address, one gets another, one is known by its new one only.
#[test]
fn each_card_for_itself() {
    let tree = MemTree::new().file(
        "/etc/network/interfaces",
        "iface ens192 inet dhcp\niface ens224 inet dhcp\niface ens256 inet dhcp\n",
    );
    let request = cards(&[(A, "ens192", ""), (B, "ens224", NEW_B), ("", "ens256", NEW_A)]);
    let plan = run(&tree, &request);
    for (name, mac) in [("ens192", A), ("ens224", NEW_B), ("ens256", NEW_A)] {
        let link = written(&plan, &format!("/etc/systemd/network/10-landfall-{name}.link")).unwrap();
        assert!(link.contains(&format!("MACAddress={mac}\n")), "{link}");
    }
    assert_eq!(ids(&plan), ["linux-nic-lease"]);
    assert_eq!(
        says(&plan, "linux-nic-lease"),
        [
            "ens224 asks for its address by DHCP (/etc/network/interfaces), and its card has the hardware address 52:54:00:ab:cd:ef instead of 00:50:56:00:00:0b."
        ]
    );
    passes("cards", &tree, &cards(&[(B, "ens224", NEW_B), (A, "ens192", NEW_A)]));
}

/// SUSE's old files have the address in their names; a name of udev's own tells the card.
#[test]
fn names_that_hold_an_address() {
    let old = "/etc/sysconfig/network/ifcfg-eth-id-00:50:56:00:00:0a";
    let new = "/etc/sysconfig/network/ifcfg-eth-id-52:54:00:12:34:56";
    let tree = MemTree::new().file(old, "BOOTPROTO='static'\nIPADDR='10.1.0.5/16'\n");
    let map = NetworkMap {
        rules: vec![Rule {
            subnets: vec![("10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap())],
            ..Rule::default()
        }],
    };
    let request = Request { network_map: Some(map), ..both() };
    let mut patched = tree.clone();
    let plan = run(&tree, &request);
    apply(&mut patched, &plan);
    assert_eq!(
        patched.read_text(new).unwrap().as_deref(),
        Some("BOOTPROTO='static'\nIPADDR='10.2.0.5/16'\n")
    );
    assert!(!patched.exists(old).unwrap());
    assert_eq!(run(&patched, &request).edits, []);
    assert!(!ids(&plan).contains(&"linux-nic-old-address"), "{:?}", plan.findings);

    let tree = MemTree::new()
        .file("/etc/network/interfaces", "iface enx00505600000b inet static\n address 10.0.0.5/8\n");
    let nameless = cards(&[(A, "", NEW_A), (B, "", NEW_B)]);
    let link = "/etc/systemd/network/10-landfall-enx00505600000b.link";
    let plan = run(&tree, &nameless);
    assert!(written(&plan, link).unwrap().contains("MACAddress=52:54:00:ab:cd:ef\n"), "{plan:?}");
    let mut patched = tree.clone();
    apply(&mut patched, &plan);
    assert_eq!(run(&patched, &nameless).edits, []);
}

#[test]
fn addresses_that_cannot_be_told_apart_are_refused() {
    let tree = MemTree::new()
        .file("/etc/systemd/network/a.link", format!("[Match]\nMACAddress={A}\n[Link]\nName=lan0\n"));
    for (what, request) in [
        ("exchanged", cards(&[(A, "ens192", B), (B, "ens224", A)])),
        ("another card's", cards(&[(A, "ens192", "00-50-56-00-00-0B"), (B, "ens224", NEW_B)])),
        ("twice", cards(&[(A, "ens192", NEW_A), (B, "ens224", NEW_A)])),
        ("no address", cards(&[(A, "ens192", "auto"), (B, "ens224", NEW_B)])),
        ("twice, one unknown", cards(&[("", "ens192", NEW_A), (B, "ens224", NEW_A)])),
    ] {
        let plan = run(&tree, &request);
        assert!(plan.is_blocked() && ids(&plan).contains(&"linux-nic-address-refused"), "{what}: {plan:?}");
        assert_eq!(written(&plan, "/etc/systemd/network/a.link"), None, "{what}");
    }
    // Its own is no other.
    let plan = run(&tree, &cards(&[(A, "ens192", A)]));
    assert_eq!((plan.edits, plan.findings), (vec![], vec![]));
    // Azure gives what it likes.
    let plan = run(&tree, &Request { platform: Platform::Azure, ..both() });
    assert!(written(&plan, "/etc/systemd/network/a.link").is_none());
}

#[test]
fn what_is_not_followed_is_told() {
    let duid = "default-duid \"\\000\\001\\000\\001*\\037\\274\\013\\000PV\\000\\000\\012\";\n";
    let binary: &[u8] = b"\x00\x01\x00\x01\x2a\x1f\xbc\x0b\x00\x50\x56\x00\x00\x0b";
    let tree = MemTree::new()
        .file("/var/lib/dhcp/dhclient6.leases", duid)
        .file("/var/lib/dhcpv6/dhcp6c_duid", binary)
        .file(
            "/etc/NetworkManager/system-connections/a",
            format!("[connection]\ntype=ethernet\n[ipv4]\ndhcp-client-id=01:{A}\n[ipv6]\ndhcp-duid={A}\n"),
        )
        .file(
            "/etc/systemd/network/a.network",
            "[Match]\nName=x\n[DHCPv4]\nDUIDRawData=00:00:00:50:56:00:00:0a\n",
        )
        .file("/etc/ethers", format!("{A} web01\n"))
        .file("/usr/local/sbin/wake", "#!/bin/sh\n# 00-50-56-00-00-0A\nwakeonlan 00-50-56-00-00-0B\n")
        .file("/var/lib/cloud/instances/i-1/obj.pkl", b"\x80\x04\x8c\x1100:50:56:00:00:0a\x94".as_slice())
        .file("/var/lib/connman/ethernet_00505600000a_cable/settings", "x")
        .file("/etc/old/ifcfg.bak", A)
        .file("/etc/ssl/x", A)
        .file("/etc/comment", format!("# {A}\n; {A}\n// {A}\nuuid=2d1a6ee1-27ba-11ee-8b2a-00505600000a\n"))
        .file("/opt/app/licence", A)
        .file("/etc/netplan/x.yaml", "network: {bonds: {b: {macaddress: '02:00:00:00:00:01'}}}");
    let plan = run(&tree, &both());
    let paths = |id: &str| -> Vec<String> {
        says(&plan, id).iter().map(|says| says.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(
        paths("linux-nic-identifier"),
        [
            "/etc/NetworkManager/system-connections/a",
            "/etc/systemd/network/a.network",
            "/var/lib/dhcpv6/dhcp6c_duid",
            "/var/lib/dhcp/dhclient6.leases"
        ]
    );
    assert_eq!(
        paths("linux-nic-old-address"),
        [
            "/etc/netplan/x.yaml",
            "/etc/ethers",
            "/usr/local/sbin/wake",
            "/var/lib/cloud/instances/i-1/obj.pkl",
            "/var/lib/connman/ethernet_00505600000a_cable"
        ]
    );
    assert_eq!(plan.edits, []);
    // What is too large to be searched is named; the hardware database of systemd is not.
    let large = vec![b'x'; (1 << 20) + 1];
    let tree = (0..10).fold(MemTree::new(), |tree, n| tree.file(&format!("/etc/app/{n}"), &large));
    let plan = run(&tree.file("/etc/udev/hwdb.bin", &large), &both());
    let [says] = says(&plan, "linux-file-unreadable").try_into().unwrap();
    assert!(
        says.contains("/etc/app/0, ") && says.ends_with(" and 2 more.") && !says.contains("hwdb"),
        "{says}"
    );
    // A tree without end is searched in part, and that is said.
    let deep = MemTree::new().file(&format!("/etc{}/x", "/d".repeat(20)), A);
    assert_eq!(ids(&run(&deep, &both())), ["linux-file-unreadable"]);
    let wide = (0..17_000).fold(MemTree::new(), |tree, n| tree.file(&format!("/etc/w/{n}"), ""));
    assert_eq!(ids(&run(&wide, &both())), ["linux-file-unreadable"]);
}

#[test]
fn rules_that_were_unpinned_follow_inside_as_well() {
    let rule = "SUBSYSTEM==\"net\", KERNELS==\"0000:03:00.0\", NAME=\"ens192\"\n";
    let tree = MemTree::new()
        .file("/etc/network/interfaces", "iface ens192 inet manual\n")
        .file("/etc/udev/rules.d/70-persistent-net.rules", rule);
    let (plan, inside, addresses) = run_with(&tree, &both());
    let expected = format!("SUBSYSTEM==\"net\", ATTR{{address}}==\"{NEW_A}\", NAME=\"ens192\"\n");
    assert_eq!(written(&plan, "/etc/udev/rules.d/70-persistent-net.rules"), Some(expected.clone()));
    let copy = inside.iter().find(|file| file.path.ends_with("70-persistent-net.rules")).unwrap();
    assert_eq!(copy.contents, Text::from(expected));
    assert_eq!(
        addresses,
        [A, B].into_iter().zip([NEW_A, NEW_B]).map(|(a, b)| (a.to_owned(), b.to_owned())).collect::<Vec<_>>()
    );
    passes("rules", &tree, &both());
}

/// What the first pass read from one file the second one reads from those that the first wrote.
#[test]
fn names_have_one_order_in_every_pass() {
    let text = "iface lan0 inet static\n hwaddress ether DEVICE=lan0\niface ens192 inet dhcp\n";
    passes("order", &MemTree::new().file("/etc/network/interfaces", text), &both());
}

mod real;

mod hostile {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_file_panics_and_a_second_pass_is_quiet(
            text in "(00:50:56:00:00:0a|00-50-56-00-00-0B|0050.5600.000b|52:54:00:12:34:56|01:|\n|iface ens192 inet dhcp\n|iface lan0 inet static\n hwaddress ether |HWADDR=|DEVICE=lan0\n|\\[Match\\]\n|\\[Link\\]\n|MACAddress=|Name=lan0\n|network: \\{ethernets: |\\{match: \\{macaddress: |SUBSYSTEM==\"net\", |ATTR\\{address\\}==\"|NAME=\"lan0\"|KERNELS==\"x\", |linux /v BOOTIF=|ifname=|client-id=|<name>lan0</name>|#|\"|'|\\\\|é|[:,\\-a-f0-9 ])*",
        ) {
            let paths = [
                "/etc/network/interfaces",
                "/etc/sysconfig/network-scripts/ifcfg-lan0",
                "/etc/sysconfig/network/ifcfg-lan0",
                "/etc/wicked/ifconfig/a.xml",
                "/etc/NetworkManager/system-connections/a.nmconnection",
                "/etc/netplan/a.yaml",
                "/etc/systemd/network/a.network",
                "/etc/systemd/network/a.link",
                "/etc/udev/rules.d/70-persistent-net.rules",
                "/etc/cloud/cloud.cfg.d/a.cfg",
                "/etc/default/grub",
                "/boot/grub/grub.cfg",
                "/etc/unknown",
            ];
            for path in paths {
                let tree = MemTree::new().file(path, &text);
                let mut patched = tree.clone();
                apply(&mut patched, &run(&tree, &both()));
                let again = run(&patched, &both());
                prop_assert!(again.edits.is_empty(), "{}: {:?} {:?}", path, patched, again.edits);
            }
        }

        /// Names are hostile, too.
        #[test]
        fn no_name_panics(name in "(ifcfg-|eth-id-|-id-|00:50:56:00:00:0a|00-50-56-00-00-0b|enx|00505600000a|[a-zé.:~-]){1,6}") {
            let path = format!("/etc/sysconfig/network/{name}");
            let tree = MemTree::new().file(&path, "BOOTPROTO=dhcp\n");
            let mut patched = tree.clone();
            apply(&mut patched, &run(&tree, &both()));
            prop_assert!(run(&patched, &both()).edits.is_empty(), "{:?}", patched);
        }
    }
}
