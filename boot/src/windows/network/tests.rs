use super::*;
use crate::family::Scene;
use crate::network_map::{NetworkMap, Rule};
use crate::patch::PatchPlan;
use crate::target::{Nic, Platform, Request};
use crate::testing;
use crate::tree::mem::MemTree;
use crate::windows::data::Data;
use crate::windows::draft::tests::{draft, ten};
use crate::windows::registry::tests::MemKeys;
use std::process::Command;

const A: &str = "00:50:56:aa:00:01";
const B: &str = "00:50:56:aa:00:02";
const GUIDS: [&str; 3] = [
    "{11111111-0000-4000-8000-000000000001}",
    "{22222222-0000-4000-8000-000000000002}",
    "{33333333-0000-4000-8000-000000000003}",
];

type Values = Vec<(String, String, Data)>;

fn nics(macs: &[&str]) -> Request {
    let nic = |mac: &&str| Nic { mac: (!mac.is_empty()).then(|| (*mac).to_owned()), ..Nic::default() };
    Request { nics: macs.iter().map(nic).collect(), ..Request::default() }
}

/// An adapter with a connection of this name, device and card.
fn adapter(number: usize, name: &str, device: &str, mac: &str) -> Values {
    let guid = GUIDS[number];
    let class = format!("Control\\Class\\{{4d36e972-e325-11ce-bfc1-08002be10318}}\\000{number}");
    let connection =
        format!("Control\\Network\\{{4D36E972-E325-11CE-BFC1-08002BE10318}}\\{}", guid.to_uppercase());
    let connection = format!("{connection}\\Connection");
    let mut values = vec![
        (class.clone(), "NetCfgInstanceId", Data::text(guid)),
        (class.clone(), "DriverDesc", Data::text("vmxnet3 Ethernet Adapter")),
        (class.clone(), "NetLuidIndex", Data::dword(0x8000 + u32::try_from(number).unwrap())),
        (class, "*IfType", Data::dword(6)),
        (connection.clone(), "Name", Data::text(name)),
        (connection, "PnpInstanceID", Data::text(device)),
    ];
    if !mac.is_empty() {
        let octets: Vec<u8> = mac.split(':').map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        let setup = format!("Control\\NetworkSetup2\\Interfaces\\{guid}\\Kernel");
        values.push((setup, "PermanentAddress", Data::binary(octets)));
    }
    let below =
        |(key, name, data): (String, &str, Data)| (format!("ControlSet001\\{key}"), name.to_owned(), data);
    values.into_iter().map(below).collect()
}

/// With an address, a gateway and name servers of its own.
fn set_up(number: usize, address: &str, gateway: &str, servers: &str) -> Values {
    let key = format!("ControlSet001\\Services\\Tcpip\\Parameters\\Interfaces\\{}", GUIDS[number]);
    vec![
        (key.clone(), "EnableDHCP".into(), Data::dword(0)),
        (key.clone(), "IPAddress".into(), Data::texts(address.split(' '))),
        (key.clone(), "SubnetMask".into(), Data::texts(address.split(' ').map(|_| "255.255.255.0"))),
        (
            key.clone(),
            "DefaultGateway".into(),
            Data::texts(gateway.split(' ').filter(|text| !text.is_empty())),
        ),
        (key.clone(), "DefaultGatewayMetric".into(), Data::texts(["0"])),
        (key, "NameServer".into(), Data::text(servers)),
    ]
}

fn value(number: usize, service: &str, name: &str, data: Data) -> (String, String, Data) {
    let tcpip = if service == "NetBT" { "Tcpip_" } else { "" };
    let key = format!("ControlSet001\\Services\\{service}\\Parameters\\Interfaces\\{tcpip}{}", GUIDS[number]);
    (key, name.to_owned(), data)
}

fn card(number: usize) -> String {
    format!("PCI\\VEN_15AD&DEV_07B0&SUBSYS_07B015AD&REV_01\\4&3ad87e0a&0&00A{number}")
}

fn run(values: &Values, request: &Request) -> (PatchPlan, Steps) {
    let tree = MemTree::new().file(
        "/Windows/System32/drivers/etc/hosts",
        "# hosts\r\n10.1.0.5 web web.example # own\r\n10.1.0.77 db\r\n",
    );
    let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
    let values: Vec<(&str, &str, Data)> =
        values.iter().map(|(key, name, data)| (key.as_str(), name.as_str(), data.clone())).collect();
    let mut draft = draft(&scene, request, ten(), &values, &[]);
    let mut steps = Steps::default();
    plan(&mut draft, &mut steps).unwrap();
    (draft.finish(), steps)
}

fn ids(plan: &PatchPlan) -> Vec<&'static str> {
    plan.findings.iter().map(|finding| finding.id).collect()
}

fn server() -> Values {
    let mut values = adapter(0, "Ethernet0", &card(0), A);
    values.extend(set_up(0, "10.1.0.5 10.1.0.6", "10.1.0.1", "10.1.0.53,8.8.8.8"));
    values.push(value(0, "Tcpip", "Domain", Data::text("corp.example")));
    values.push(value(0, "Tcpip", "RegisterAdapterName", Data::dword(1)));
    values.push(value(0, "Tcpip", "InterfaceMetric", Data::dword(15)));
    values.push(value(0, "Tcpip", "MTU", Data::dword(9000)));
    values.push(value(0, "NetBT", "NetbiosOptions", Data::dword(2)));
    values.push(value(0, "NetBT", "NameServerList", Data::texts(["10.1.0.54"])));
    values.push(value(0, "Tcpip6", "NameServer", Data::text("2001:db8:1::53")));
    values.extend(adapter(1, "Backup & \"more\" %PATH%", &card(1), B));
    values.extend(set_up(1, "192.168.7.5", "", ""));
    let nsi = |module: &str, table| {
        format!("ControlSet001\\Control\\Nsi\\{{eb004a{module}-9b1a-11d4-9123-0050047759bc}}\\{table}")
    };
    let row =
        |prefix: u8| Data::binary([&[0xff; 8][..], &[16, 0, 0, 0, 16, 0, 0, 0, prefix, 0, 0, 0]].concat());
    values.push((nsi("01", 10), "000000008000060020010db8000100000000000000000005".into(), row(64)));
    let default = format!("{}{}", "00".repeat(40), "0000000080000600".repeat(2));
    values.push((nsi("01", 16), format!("{default}20010db8000100000000000000000001"), Data::binary([])));
    let row = |network: &str, length: u8, next: &str| {
        let luid = "0000000080000600".repeat(2);
        format!("00000000{network}{length:02x}{}{luid}{next}00000000", "00".repeat(15))
    };
    // The route of the machine has a row of its adapter, too, and so has a gateway; one is of the adapter alone.
    for name in
        [row("0a090000", 16, "0a0100fe"), row("00000000", 0, "0a010001"), row("0a080000", 16, "0a0100fd")]
    {
        values.push((nsi("00", 16), name, Data::binary([])));
    }
    let routes = "ControlSet001\\Services\\Tcpip\\Parameters\\PersistentRoutes".to_owned();
    values.push((routes.clone(), "10.9.0.0,255.255.0.0,10.1.0.254,5".into(), Data::text("")));
    values.push((routes.clone(), "0.0.0.0,0.0.0.0,10.1.0.1,-1".into(), Data::text("")));
    values.push((routes, "nonsense".into(), Data::text("")));
    let parameters = "ControlSet001\\Services\\Tcpip\\Parameters".to_owned();
    values.push((parameters, "SearchList".into(), Data::text("corp.example,example")));
    values
}

fn site_b() -> NetworkMap {
    let rule = Rule {
        place: "site-b.toml:3".into(),
        subnets: vec![
            ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap()),
            ("2001:db8:1::/48".parse().unwrap(), "2001:db8:2::/48".parse().unwrap()),
        ],
        search: Some(vec!["b.example".into()]),
        ..Rule::default()
    };
    NetworkMap { rules: vec![rule] }
}

#[test]
fn a_server_is_carried_by_its_cards_addresses() {
    let (plan, steps) = run(&server(), &nics(&[A, B]));
    insta::assert_json_snapshot!(plan);
    insta::assert_debug_snapshot!(steps);
}

#[test]
fn a_server_moves_to_another_site() {
    let mut request = nics(&[A, B]);
    request.nics[0].new_mac = Some("52:54:00:00:00:01".into());
    request.network_map = Some(site_b());
    let (plan, steps) = run(&server(), &request);
    insta::assert_json_snapshot!(plan);
    insta::assert_debug_snapshot!(steps);
}

#[test]
fn nothing_is_to_be_done_for_dhcp() {
    for (values, macs) in [
        (adapter(0, "Ethernet0", &card(0), A), vec![A]),
        (adapter(0, "Ethernet0", &card(0), ""), vec![""]),
        ([adapter(0, "Ethernet0", &card(0), A), adapter(1, "Ethernet1", &card(1), B)].concat(), vec![A, B]),
    ] {
        let (plan, steps) = run(&values, &nics(&macs));
        assert!(steps.is_empty() && plan.findings.is_empty(), "{:?}", plan.findings);
    }
}

#[test]
fn dhcp_by_the_map_is_told_to_the_adapter_that_may_be_the_old_one() {
    let mut request = nics(&[A, B]);
    let rule = Rule { cards: Some(vec![0]), dhcp: Some(true), ..Rule::default() };
    request.network_map = Some(NetworkMap { rules: vec![rule] });
    let (plan, steps) = run(&server(), &request);
    assert!(steps.adapters[0].settings.is_dhcp && steps.adapters[0].settings.addresses.is_empty());
    assert_eq!(plan.moved[0].after, "dhcp");
}

#[test]
fn what_is_not_clear_is_not_matched() {
    let two = |macs: [&str; 2]| {
        let mut values = [adapter(0, "a", &card(0), macs[0]), adapter(1, "b", &card(1), macs[1])].concat();
        values.extend(set_up(0, "10.0.0.1", "", ""));
        values.extend(set_up(1, "10.0.0.2", "", ""));
        values
    };
    let names = |(plan, steps): (PatchPlan, Steps)| {
        let names: Vec<String> =
            steps.adapters.iter().map(|one| format!("{}={}", one.name.clone().unwrap(), one.mac)).collect();
        (names.join(" "), ids(&plan))
    };
    // One adapter, one card: whatever the addresses say.
    let one = [adapter(0, "a", &card(0), B), set_up(0, "10.0.0.1", "", "")].concat();
    assert_eq!(names(run(&one, &nics(&[A]))), (format!("a={A}"), vec![]));
    assert_eq!(names(run(&one, &nics(&[""]))), (String::new(), vec!["windows-nic-no-mac"]));
    // Without slots there is no order.
    assert_eq!(names(run(&two(["", ""]), &nics(&[A, B]))).1, ["windows-nic-unmatched"; 2]);
    let mut slots = two(["", ""]);
    for (number, slot) in [(0, "(11,0,0)"), (1, "(3,0,0)")] {
        let key = format!("ControlSet001\\Enum\\{}", card(number));
        slots.push((key, "LocationInformation".into(), Data::text(&format!("@x;PCI-Bus %1;{slot}"))));
    }
    let (order, found) = names(run(&slots, &nics(&[A, B])));
    assert_eq!((order, found), (format!("b={A} a={B}"), vec!["windows-nic-by-order"]));
    // The one that is known leaves the other card for the other adapter.
    assert_eq!(names(run(&two([B, ""]), &nics(&[A, B]))).0, format!("b={A} a={B}"));
    // A card that is gone.
    let (left, found) = names(run(&two([A, B]), &nics(&[A])));
    assert_eq!((left, found), (format!("a={A}"), vec!["windows-nic-gone"]));
    // Two adapters for one card: which was plugged in last, or which was not found gone.
    assert_eq!(names(run(&two([A, A]), &nics(&[A]))).1, ["windows-nic-ambiguous"]);
    let mut marked = two([A, A]);
    marked.push(value(0, "Tcpip", "LandfallCleared", Data::dword(1)));
    assert_eq!(names(run(&marked, &nics(&[A]))), (format!("b={A}"), vec![]));
    let mut dated = two([A, A]);
    for (number, time) in [(0, 9_u64), (1, 7)] {
        let key = format!("ControlSet001\\Enum\\{}\\Properties", card(number));
        let key = format!("{key}\\{{83da6326-97a6-4088-9453-a1923f573b29}}\\0066");
        dated.push((key, String::new(), Data { kind: 0xffff_0010, bytes: time.to_le_bytes().to_vec() }));
    }
    let (name, steps) = (names(run(&dated, &nics(&[A]))).0, run(&dated, &nics(&[A])).1);
    assert_eq!(name, format!("a={A}"));
    assert_eq!(steps.ghosts.len(), 2, "the one that is gone for sure, and the one that may be");
}

#[test]
fn software_and_platforms_that_renew_are_told_of() {
    let mut values = adapter(0, "Team", "COMPOSITEBUS\\MS_IMPLAT_MP\\{1}", "");
    values.extend(set_up(0, "10.1.0.5", "", ""));
    values.extend(adapter(1, "vEthernet", "ROOT\\VMS_MP\\0000", ""));
    values.extend(adapter(2, "Ethernet0", &card(2), A));
    values.extend(set_up(2, "10.1.0.6", "", ""));
    let mut request = nics(&[A]);
    request.network_map = Some(site_b());
    let (plan, _) = run(&values, &request);
    let left: Vec<_> = plan.findings.iter().filter(|one| one.id == "windows-readdress-left").collect();
    assert!(left.iter().any(|one| one.says.contains("10.1.0.5")), "{left:?}");
    assert_eq!(ids(&plan).iter().filter(|id| **id == "windows-nic-virtual").count(), 2);
    request.platform = Platform::Azure;
    let (plan, steps) = run(&values, &request);
    assert!(steps.is_empty() && ids(&plan).contains(&"windows-nic-renewed"));
    // An address of IPv6 alone is one, too.
    request.network_map = None;
    let mut values = adapter(0, "Ethernet0", &card(0), A);
    let nsi = "ControlSet001\\Control\\Nsi\\{eb004a01-9b1a-11d4-9123-0050047759bc}\\10";
    let row = [&[0xff; 8][..], &[16, 0, 0, 0, 16, 0, 0, 0, 64, 0, 0, 0]].concat();
    let name = "000000008000060020010db8000100000000000000000005";
    values.push((nsi.into(), name.into(), Data::binary(row)));
    let says = run(&values, &request).0.findings.iter().map(|one| one.says.clone()).collect::<Vec<_>>();
    assert!(says.len() == 1 && says[0].contains("2001:db8:1::5"), "{says:?}");
}

/// What is not carried is said: an adapter without a device, and what is more than is read.
#[test]
fn no_address_is_lost_in_silence() {
    let gone = [adapter(0, "old", "", ""), set_up(0, "10.1.0.5", "", "")].concat();
    let (plan, steps) = run(&gone, &nics(&[A]));
    assert!(steps.is_empty());
    assert_eq!(ids(&plan), ["windows-nic-unmatched"]);
    assert!(plan.findings[0].says.contains("10.1.0.5"), "{:?}", plan.findings);

    let many: Vec<String> = (0..600).map(|at| format!("10.1.{}.{}", at / 250, 1 + at % 250)).collect();
    let mut values = [adapter(0, "a", &card(0), A), set_up(0, &many.join(" "), "", "")].concat();
    for at in 0..600 {
        let name = format!("10.{}.{}.0,255.255.255.0,10.1.0.254,1", 2 + at / 250, at % 250);
        let key = "ControlSet001\\Services\\Tcpip\\Parameters\\PersistentRoutes";
        values.push((key.into(), name, Data::text("")));
    }
    let (plan, steps) = run(&values, &nics(&[A]));
    assert_eq!((steps.adapters[0].settings.addresses.len(), steps.routes.len()), (512, 512));
    let says: Vec<&str> = plan.findings.iter().map(|one| one.says.as_str()).collect();
    for what in ["IPAddress from place 513 of 600", "of 600 persistent routes"] {
        assert!(says.iter().any(|says| says.contains(what)), "{says:?}");
    }
}

/// A gateway that is not understood does not give its metric to the next.
#[test]
fn gateways_keep_their_metrics() {
    let mut values = [adapter(0, "a", &card(0), A), set_up(0, "10.1.0.5", "nonsense 10.1.0.1", "")].concat();
    let place = values.iter().position(|(_, name, _)| name == "DefaultGatewayMetric").unwrap();
    values[place].2 = Data::texts(["7", "9"]);
    let (_, steps) = run(&values, &nics(&[A]));
    assert_eq!(steps.adapters[0].settings.gateways, [("10.1.0.1".parse().unwrap(), Some(9))]);
}

#[test]
fn hostile_values_are_told_of_and_left_out() {
    let mut values = adapter(0, "x", &format!("{}\" & calc", card(0)), A);
    values.extend(set_up(0, "10.1.0.5 10.1.0.6;calc 1.2.3", "10.1.0.1&calc", "8.8.8.8,|calc"));
    values.push(value(0, "Tcpip", "Domain", Data::text("corp & calc")));
    values.push(value(0, "Tcpip", "MTU", Data::dword(u32::MAX)));
    let (plan, steps) = run(&values, &nics(&[A]));
    let text = format!("{steps:?}");
    assert!(!text.contains("calc"), "{text}");
    assert_eq!(steps.adapters[0].settings.addresses.len(), 1);
    assert!(ids(&plan).iter().all(|id| *id == "windows-nic-unread"));
    assert!(plan.findings.len() >= 4, "{:?}", plan.findings);
}

/// A key of a real hive and all below it.
fn export(hive: &std::path::Path, key: &str, into: &mut Values) {
    let out = Command::new("hivexregedit").args(["--export"]).arg(hive).arg(key).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut above = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            above = name.trim_start_matches('\\').to_owned();
            continue;
        }
        let (name, data) = match line.strip_prefix("@=") {
            Some(data) => (String::new(), data),
            None => {
                let Some((name, data)) = line.strip_prefix('"').and_then(|line| line.split_once("\"="))
                else {
                    continue;
                };
                (name.replace("\\\\", "\\"), data)
            }
        };
        let data = match data.split_once(':') {
            Some(("dword", number)) => Data::dword(u32::from_str_radix(number, 16).unwrap()),
            Some((kind, bytes)) => Data {
                kind: kind[4..kind.len() - 1].parse().unwrap_or(3),
                bytes: bytes.split(',').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect(),
            },
            None => continue,
        };
        into.push((above.clone(), name, data));
    }
}

fn real(name: &str) -> Option<Vec<WindowsInterface>> {
    let (corpus, _) = (testing::corpus()?, testing::tool("hivexregedit")?);
    let packed = std::fs::read(corpus.join(format!("hives/regipy/{name}.zst"))).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), zstd::decode_all(&packed[..]).unwrap()).unwrap();
    let mut values = Values::new();
    for key in [
        "Control\\Class\\{4d36e972-e325-11ce-bfc1-08002be10318}",
        "Control\\Network\\{4D36E972-E325-11CE-BFC1-08002BE10318}",
        "Control\\NetworkSetup2\\Interfaces",
        "Control\\Nsi",
        "Services\\Tcpip",
        "Services\\Tcpip6",
        "Services\\NetBT",
        "Enum\\PCI",
    ] {
        export(file.path(), &format!("\\ControlSet001\\{key}"), &mut values);
    }
    let mut keys = MemKeys::default();
    for (key, name, data) in &values {
        crate::windows::registry::Keys::set(&mut keys, key, name, data).unwrap();
    }
    Some(interfaces(&Registry::new(Box::new(keys)), &ten()).unwrap())
}

#[test]
fn real_hives_tell_their_adapters() {
    let Some(seven) = real("SYSTEM") else { return };
    let cards: Vec<&WindowsInterface> = seven.iter().filter(|one| one.kind == Kind::Card).collect();
    insta::assert_debug_snapshot!("windows_7", cards);
    let Some(ten) = real("SYSTEM_WIN_10_1709") else { return };
    let cards: Vec<&WindowsInterface> = ten.iter().filter(|one| one.kind == Kind::Card).collect();
    insta::assert_debug_snapshot!("windows_10", cards);
    // What Windows keeps and what the device says of itself are two sources.
    assert_eq!(cards[0].macs[0].0, cards[0].macs[1].0);
    assert!(
        facts(&ten)
            .iter()
            .any(|one| one.mac.as_deref() == Some("00:0c:29:f3:ff:de") && one.addresses == ["dhcp"])
    );
}
